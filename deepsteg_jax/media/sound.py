"""Sound of a clip as Opus, to be hidden and to be put beside a revealed video."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from tempfile import TemporaryFile
from typing import BinaryIO, NamedTuple

import av
import numpy as np

from deepsteg_jax.errors import UserError
from deepsteg_jax.media.clock import demux, opus_delay
from deepsteg_jax.media.codecs import encoder_tag
from deepsteg_jax.media.container import existing, first_sound, opened
from deepsteg_jax.media.damage import ERRORS
from deepsteg_jax.media.images import is_pictures, shown
from deepsteg_jax.media.source import read_timed

SOUND_RATE = 48_000  # Opus, samples per second
_LONGEST_PAUSE = 3600  # seconds
_JITTER = 1024  # samples by which times may be off: containers round them
_BIT_RATE = 96_000  # of a channel
OGG_OPTIONS = {"page_duration": "200000"}  # us; a damaged byte costs a page, which else lasts a second


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
    with opened_sound(path) as found:
        if found is None:
            return None
        packets, track, origin = found
        file = TemporaryFile()  # noqa: SIM115, the caller closes it
        with complaining(path, file):
            with av.open(file, "w", format="ogg", options=dict(OGG_OPTIONS)) as output:
                if track.codec_context.name in ("opus", "libopus") and copy:
                    first = _copy_opus(packets, track, output)
                else:
                    first = _encode_opus(packets, track, output, bit_rate)
            size = file.tell()
            file.seek(0)
    if first is None:
        file.close()
        return None
    return Sound(file, size, round((first - origin) * SOUND_RATE))


@contextmanager
def opened_sound(path: Path) -> Iterator[tuple[Iterator[av.Packet], av.AudioStream, Fraction] | None]:
    """Open the first sound track of a clip: (packets, track, first frame's time in seconds), or None."""
    if is_pictures(path):
        yield None
        return
    with opened(path) as (container, video):
        track = first_sound(container)
        if track is None:
            yield None
            return
        yield demux(container, [track]), track, next(read_timed(path)).time * video.time_base


@contextmanager
def complaining(path: Path, file: BinaryIO) -> Iterator[None]:
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
    packets: Iterable[av.Packet], track: av.AudioStream, output: "av.container.OutputContainer"
) -> Fraction | None:
    """Copy packets; return when the first sample sounds, in seconds."""
    copy, begin = output.add_stream_from_template(track), None
    delay = opus_delay(track.codec_context)

    # By 2.5 ms, the shortest Opus frame: containers round times to the millisecond.
    def samples(ticks: int) -> int:
        return round(ticks * time_base * SOUND_RATE / 120) * 120

    for packet in packets:
        if packet.dts is None or not packet.size:
            continue
        time_base = packet.time_base
        begin = packet.pts if begin is None else begin
        time, duration = samples(packet.pts - begin) - delay * SOUND_RATE, samples(packet.duration or 0)
        packet.time_base = Fraction(1, SOUND_RATE)
        packet.pts = packet.dts = int(time)
        packet.duration = duration
        packet.stream = copy
        output.mux(packet)
    return None if begin is None else begin * time_base + delay


def _encode_opus(
    packets: Iterable[av.Packet],
    track: av.AudioStream,
    output: "av.container.OutputContainer",
    bit_rate: int,
) -> Fraction | None:
    """Decode and encode anew; return when the first sample sounds, in seconds."""
    # From time 0 on: a later Ogg page would state the start of the sound a second time.
    recoder = Recoder(track, output, "libopus", bit_rate, from_zero=True)
    for packet in packets:
        if packet.size:
            output.mux(recoder.take(packet))
    output.mux(recoder.finish())
    return recoder.start


class Decoder:
    """Decodes a sound track to samples at its times: silence in gaps, overlaps cut.

    Sample format, rate and channels may change inside the track.
    """

    def __init__(self, layout: str, rate: int):
        """Take the layout, such as "mono", and the rate of the samples to give."""
        self._layout, self._rate = layout, rate
        self._decoder = self._resampler = self._kind = self._time = None
        self._next = self._begin = None  # numbers of samples, from the file's time 0 on
        self._error = None

    @property
    def start(self) -> Fraction | None:
        """When the first sample sounds, in seconds; None: there is none yet."""
        return None if self._begin is None else Fraction(self._begin, self._rate)

    def take(self, packet: av.Packet) -> list[np.ndarray]:
        """Return the samples that a packet of the track completes, float32 [channels, n] each."""
        self._decoder = packet.stream.codec_context
        try:
            return self._decoded(packet.decode())
        except av.error.FFmpegError as error:
            if self._next is not None:
                raise
            self._error = error  # a recording that starts inside a packet
            return []

    def finish(self) -> list[np.ndarray]:
        """Return the remaining samples; raise what hindered decoding if nothing could be decoded."""
        if self._next is None and self._error is not None:
            raise self._error
        if self._next is None:
            return []
        decoded = self._decoded(self._decoder.decode(None))  # a decoder may hold frames back
        return decoded + [samples for piece in self._rest() for samples in self._placed(piece)]

    def _decoded(self, frames: list[av.AudioFrame]) -> list[np.ndarray]:
        for frame in frames:
            repeated = frame.pts == self._time  # it stands for a block of frames
            self._time = frame.pts
            frame.pts = None if repeated else frame.pts
        pieces = [piece for frame in frames for piece in self._resampled(frame)]
        return [samples for piece in pieces for samples in self._placed(piece)]

    def _resampled(self, frame: av.AudioFrame) -> list[av.AudioFrame]:
        kind, pieces = (frame.format.name, frame.layout.name, frame.sample_rate), []
        if kind != self._kind:
            pieces = self._rest()
            self._kind, self._resampler = kind, av.AudioResampler("fltp", self._layout, self._rate)
        return pieces + self._resampler.resample(frame)

    def _rest(self) -> list[av.AudioFrame]:
        """Return what the resampler still holds."""
        pieces = [] if self._resampler is None else self._resampler.resample(None)
        return [piece for piece in pieces if piece is not None]

    def _placed(self, piece: av.AudioFrame) -> list[np.ndarray]:
        """Return samples at their time: after silence where there is a gap, cut where they overlap."""
        samples, placed = piece.to_ndarray(), []
        time = None if piece.pts is None else round(piece.pts * piece.time_base * self._rate)
        if self._next is None:
            self._begin = self._next = time or 0
        gap = 0 if time is None else time - self._next
        if gap > _LONGEST_PAUSE * self._rate:
            raise UserError(
                f"the sound has a pause of {gap / self._rate / 3600:.0f} hours: repair or cut it first"
            )
        if gap < -_JITTER:
            samples = samples[:, -gap:]
        while gap > _JITTER:
            placed.append(np.zeros((len(samples), min(gap, self._rate)), np.float32))
            gap -= placed[-1].shape[1]
        placed += [samples] * bool(samples.size)
        self._next += sum(x.shape[1] for x in placed)
        return placed


class Recoder:
    """Codes a sound track anew at its times; more than two channels are mixed down to two, but for PCM."""

    def __init__(
        self,
        track: av.AudioStream,
        output: "av.container.OutputContainer",
        encoder: str,
        bit_rate: int = 0,
        from_zero: bool = False,
    ):
        """Add a stream to `output`.

        Args:
            track: to be coded anew.
            output: for the result.
            encoder: FFmpeg's name of it.
            bit_rate: bits per second; 0: enough for good sound.
            from_zero: let the result begin at 0 instead of the track's first time.
        """
        context = track.codec_context
        self._layout = "mono" if context.layout.nb_channels == 1 else "stereo"
        self._layout = context.layout.name if encoder.startswith("pcm") else self._layout
        rates = av.Codec(encoder, "w").audio_rates
        self._rate = context.sample_rate if not rates or context.sample_rate in rates else SOUND_RATE
        self.stream = output.add_stream(encoder, rate=self._rate, layout=self._layout)
        self.stream.bit_rate = bit_rate or _BIT_RATE * (1 if self._layout == "mono" else 2)
        self.stream.metadata["encoder"] = encoder_tag(encoder)
        self._decoder, self._from_zero = Decoder(self._layout, self._rate), from_zero
        self._next = 0  # number of the next sample

    @property
    def start(self) -> Fraction | None:
        """When the first sample sounds, in seconds; None: there is none yet."""
        return self._decoder.start

    def take(self, packet: av.Packet) -> list[av.Packet]:
        """Return the packets to write for a packet of the track."""
        return [coded for samples in self._decoder.take(packet) for coded in self._encode(samples)]

    def finish(self) -> list[av.Packet]:
        """Return the remaining packets; raise what hindered decoding if nothing could be decoded."""
        coded = [packet for samples in self._decoder.finish() for packet in self._encode(samples)]
        return coded if self.start is None else coded + self.stream.encode(None)

    def _encode(self, samples: np.ndarray) -> list[av.Packet]:
        frame = sound_frame(samples, self._layout, self._rate)
        begin = 0 if self._from_zero else round(self.start * self._rate)
        frame.pts = begin + self._next
        self._next += samples.shape[1]
        return self.stream.encode(frame)  # which cuts frames of the encoder's size


def sound_frame(samples: np.ndarray, layout: str, rate: int) -> av.AudioFrame:
    """Return a frame of samples, float32 [channels, n]."""
    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples), format="fltp", layout=layout)
    frame.sample_rate, frame.time_base = rate, Fraction(1, rate)
    return frame


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
