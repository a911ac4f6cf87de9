"""Code a video or picture anew, as finely as a number of bytes permits."""

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

from deepsteg_jax.errors import UserError
from deepsteg_jax.media import formats
from deepsteg_jax.media.codecs import Small, has_encoder
from deepsteg_jax.media.images import shown
from deepsteg_jax.media.sdr import is_hdr
from deepsteg_jax.media.search import Trial, finest
from deepsteg_jax.media.sound import Sound, encode_sound
from deepsteg_jax.media.source import Info, probe, read_timed, resize, timing
from deepsteg_jax.media.video_file import VideoFile

_RICH = 0.3  # bits per pixel from which on colour at full size is worth its bits
_SCALES = ((0.012, 1.0), (0.005, 0.75), (0.0016, 0.5), (0.0, 0.25))  # from how many bits per pixel on
_FILLED = 0.95  # share of the room from which on a coding is fine enough
_LEAST = 500  # bytes of a matroska file with a picture
_USUAL = {"libsvtav1": 35, "libx264": 20}  # rate factors to begin with
_SOUND_SHARE = 0.15  # of the room, at most
_OVERSHOOT = 1.25  # by Opus of its rate, at most
_LEAST_SOUND = 6_000  # bits per second, the least of Opus


def code_to_size(path: Path, output: Path, room: int, sound_bit_rate: int) -> str:
    """Code a video or picture into a matroska file, as finely as fits.

    Args:
        path: of the video or picture.
        output: .mkv, to be written.
        room: bytes.
        sound_bit_rate: of its sound, bits per second, or less where that takes more than 15 % of the room; 0
            leaves it out.

    Returns:
        The coding, in words.

    Raises:
        UserError: it cannot be read, or does not fit at any quality.
    """
    info, (times, last) = probe(path), timing(path)
    end = int(times[-1] - times[0]) * info.time_base + (last * info.time_base or 1 / info.rate)
    too_large = UserError(f"{shown(path)} does not fit into {room:,} bytes at any quality: cut or shrink it")
    if room < _LEAST:
        raise too_large
    seconds = float(end)
    most = min(sound_bit_rate, _SOUND_SHARE * 8 * room / seconds)
    sound = _sound(path, most, seconds) if info.tracks else None
    try:
        pixels = len(times) * info.width * info.height
        left = room - (sound.size if sound else 0)
        for codec, (width, height) in _codings(info, 8 * left / pixels):
            if _write_finest(path, output, room, sound, info, end, codec, (width, height)):
                break
        else:
            raise too_large
    finally:
        if sound is not None:
            sound.file.close()
    named = "AV1" if codec == "libsvtav1" else "H.264 4:4:4"
    rate = f" at {8 * output.stat().st_size / seconds / 1000:,.0f} kbit/s" if len(times) > 1 else ""
    silent = "" if sound or not info.tracks else ", without its sound"
    mapped = ", its HDR mapped to SDR" if is_hdr(info.colour) else ""
    return f"{named}{rate}, {width}x{height}{silent}{mapped}"


def likely_size(info: Info, frames: int, room: int) -> tuple[int, int]:
    """Predict the width and height at which `code_to_size` will code a video into `room` bytes."""
    return next(_codings(info, 8 * room / (frames * info.width * info.height)))[1]


def _sound(path: Path, bit_rate: float, seconds: float) -> Sound | None:
    """Return the sound, coded again if its rate is higher than it may be; None: none, or no room."""
    if bit_rate < _LEAST_SOUND:
        return None
    sound = encode_sound(path, int(bit_rate))
    if sound and 8 * sound.size > _OVERSHOOT * bit_rate * seconds:
        sound.file.close()
        sound = encode_sound(path, int(bit_rate), copy=False)
    return sound


def _codings(info: Info, bits: float) -> Iterator[tuple[str, tuple[int, int]]]:
    """Yield codec, and width and height, for this many bits per pixel, then for fewer."""
    av1 = has_encoder("libsvtav1")
    first = next(i for i, (least, _) in enumerate(_SCALES) if bits >= least or not least)
    sizes = [_scaled(info, scale) for _, scale in _SCALES[first:]]
    if bits > _RICH and av1:
        yield "libx264", sizes[0]
    yield from (("libsvtav1" if av1 else "libx264", size) for size in sizes)


def _scaled(info: Info, scale: float) -> tuple[int, int]:
    width, height = (max(Small.smallest, 2 * round(side * scale / 2)) for side in (info.width, info.height))
    return width, height


def _write_finest(path, output, room, sound, info, end, codec, size) -> bool:
    """Write the finest coding that fits, or nearly; False if none does."""
    trial = output.with_stem("trial")

    def size_at(crf: int) -> int:
        _encode(path, trial, sound, info, end, Small(codec, crf), size)
        taken = trial.stat().st_size
        if taken <= room:
            trial.replace(output)
        return taken

    usual = Trial(_USUAL[codec], room, Small.slopes[codec])
    return finest(size_at, room, usual, Small.ranges[codec], _FILLED) is not None


def _encode(path, output, sound: Sound | None, info: Info, end: Fraction, coding: Small, size) -> None:
    clock = info.rate, info.time_base
    file = VideoFile(output, formats.find(output), coding, coding.colour, clock, info.aspect, None, end)
    try:
        first = None
        for frame, time in read_timed(path):
            first = time if first is None else first  # sound counts from the first frame
            file.write(resize(frame, *size), time - first)
        if sound is not None:
            sound.file.seek(0)
            file.add_sound(sound)
        file.finish()
    finally:
        file.discard()
