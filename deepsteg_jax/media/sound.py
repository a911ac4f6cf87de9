"""Sound of a clip as Opus, to be hidden and to be put beside a revealed video."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from tempfile import TemporaryFile
from typing import BinaryIO, NamedTuple

import av

from deepsteg_jax.errors import UserError
from deepsteg_jax.media.container import existing, first_sound, opened
from deepsteg_jax.media.damage import ERRORS
from deepsteg_jax.media.images import is_pictures, shown

SOUND_RATE = 48_000  # Opus, samples per second
_OPUS_FRAME = 960  # samples, 20 ms
_OGG_OPTIONS = {"page_duration": "200000"}  # us; a damaged byte costs a page, which else lasts a second


class Sound(NamedTuple):
    """A track of sound as Opus packets in an Ogg file."""

    file: BinaryIO  # temporary, at its beginning; gone when closed
    size: int  # bytes
    start: int  # when the first sample sounds, in samples after the first frame


def encode_sound(path: str | Path, bit_rate: int, copy: bool = True) -> Sound | None:
    """Encode the first sound track of a video as Opus; one that is Opus already is copied packet by packet.

    Args:
        path: the clip.
        bit_rate: of sound encoded here, bits per second; more than two channels are mixed down to two.
        copy: False encodes Opus again.

    Returns:
        None where there is no sound.

    Raises:
        UserError: the track is damaged.
    """
    path = existing(path)
    if is_pictures(path):
        return None
    with opened(path) as (container, video):
        track = first_sound(container)
        if track is None:
            return None
        origin = (video.start_time or 0) * video.time_base
        file = TemporaryFile()  # noqa: SIM115, the caller closes it
        with _complaining(path, file):
            with av.open(file, "w", format="ogg", options=dict(_OGG_OPTIONS)) as output:
                if track.codec_context.name in ("opus", "libopus") and copy:
                    first = _copy_opus(container, track, output)
                else:
                    first = _encode_opus(container, track, output, bit_rate)
            size = file.tell()
            file.seek(0)
    if first is None:
        file.close()
        return None
    return Sound(file, size, round((first - origin) * SOUND_RATE))


@contextmanager
def _complaining(path: Path, file: BinaryIO) -> Iterator[None]:
    """Turn errors of FFmpeg into UserErrors about the sound, and close the temporary file."""
    try:
        yield
    except ERRORS as error:
        with suppress(OSError):
            file.close()
        if isinstance(error, av.error.PyAVCallbackError):  # not the sound: the temporary file
            raise OSError(str(error.__cause__ or "no space")) from error
        if not isinstance(error, av.error.FFmpegError):
            raise
        raise UserError(f"the sound of {shown(path)} cannot be read: repair or remove it first") from error


def _copy_opus(
    container: "av.container.InputContainer", track: av.AudioStream, output: "av.container.OutputContainer"
) -> Fraction | None:
    """Copy packets; return when the first sample sounds, in seconds."""
    copy, begin = output.add_stream_from_template(track), None
    skip = int.from_bytes((track.codec_context.extradata or bytes(12))[10:12], "little")  # RFC 7845, 5.1

    # By 2.5 ms, the shortest Opus frame: containers round times to the millisecond.
    def samples(ticks: int) -> int:
        return round(ticks * time_base * SOUND_RATE / 120) * 120

    for packet in container.demux(track):
        if packet.dts is None or not packet.size:
            continue
        time_base = packet.time_base
        begin = packet.pts if begin is None else begin
        time, duration = samples(packet.pts - begin) - skip, samples(packet.duration or 0)
        packet.time_base = Fraction(1, SOUND_RATE)
        packet.pts = packet.dts = time
        packet.duration = duration
        packet.stream = copy
        output.mux(packet)
    return None if begin is None else begin * time_base + Fraction(skip, SOUND_RATE)


def _encode_opus(
    container: "av.container.InputContainer",
    track: av.AudioStream,
    output: "av.container.OutputContainer",
    bit_rate: int,
) -> Fraction | None:
    """Decode and encode anew; return when the first sample sounds, in seconds."""
    layout = "mono" if track.codec_context.layout.nb_channels == 1 else "stereo"
    coded = output.add_stream("libopus", rate=SOUND_RATE, layout=layout)
    coded.bit_rate = bit_rate
    resampler = av.AudioResampler("flt", layout, SOUND_RATE, frame_size=_OPUS_FRAME)
    first = None

    # From time 0 on: a later Ogg page would state the start of the sound a second time.
    def encode(pieces: "list[av.AudioFrame]") -> None:
        nonlocal first
        for piece in pieces:
            if first is None:
                first = piece.pts or 0
            piece.pts = None if piece.pts is None else piece.pts - first
            output.mux(coded.encode(piece))

    for packet in container.demux(track):
        for frame in packet.decode():
            encode(resampler.resample(frame))
    if first is not None:
        encode(resampler.resample(None))
        output.mux(coded.encode(None))
    return None if first is None else Fraction(first, SOUND_RATE)


def is_sound(sound: Sound) -> bool:
    """Return whether there is any sound in the file, which is at its beginning again afterwards."""
    sound.file.seek(0)
    try:
        with av.open(sound.file, format="ogg") as container:
            return bool(container.streams.audio)
    except ERRORS:
        return False
    finally:
        sound.file.seek(0)
