"""Send frames through real codecs, as sites, cameras and players use them.

A `CodecRun` says which codec with which settings, `run` sends frames through it. `VIDEO` and `IMAGE` are the
ladders of the benchmark, from lossless to coarse.

FFmpeg's swscale turns RGB to YUV and back in its default way: BT.601, limited range (MJPEG and Pillow's
JPEG: full range). Its way from 4:2:0 to RGB rounds down: what arrives is a level too dark in the mean, here
as in every player that uses it. A second coding starts from the YUV of the first. Encoders run on one
thread, and x264 without AVX-512, with which its rate control gives other bytes in every run: so that a second
run gives the same figures.
"""

from fractions import Fraction
from typing import NamedTuple

import numpy as np

from deepsteg_jax import media
from deepsteg_jax.errors import UserError

JPEG, WEBP = "jpeg", "webp"  # Pillow's, every frame for itself
STILL = {JPEG: media.encode_jpeg, WEBP: media.encode_webp}


class CodecRun(NamedTuple):
    """A codec with its settings, coded once or more often."""

    name: str  # short, such as "C6"
    title: str
    codec: str  # FFmpeg's name of an encoder, or one of `STILL`
    pixel_format: str  # that the encoder takes
    options: dict[str, str]  # the encoder's own
    times: int = 1  # codings, one after the other
    scale: float = 1.0  # of the size at which frames are coded; who receives them scales them back
    lines: int = 0  # at most, of frames that are coded, on their shorter side; 0: any number

    @property
    def bit_rate(self) -> int:
        """Bits per second that it is told to spend; 0: it goes by quality."""
        return 1000 * int(self.options.get("b", "0").removesuffix("k"))

    def scale_of(self, height: int, width: int) -> float:
        """Return the scale at which frames of a size are coded."""
        return min(self.scale, (self.lines or np.inf) / min(height, width))


class Received(NamedTuple):
    """Frames as they arrive."""

    frames: np.ndarray | media.Planes  # as they were sent
    size_bytes: int  # of the coded pictures without their container; of the last coding


def x264(name: str, crf: int, title: str = "", **changes) -> CodecRun:
    """Return H.264 at a constant rate factor, preset medium, 4:2:0; `changes` set other fields."""
    options = {"preset": "medium", "crf": str(crf), "x264-params": "threads=1:asm=avx2"}
    return CodecRun(name, title or f"x264 CRF {crf}", "libx264", "yuv420p", options, **changes)


def jpeg(name: str, quality: int, title: str = "", **changes) -> CodecRun:
    """Return Pillow's JPEG, 4:2:0; `changes` set other fields."""
    title = title or f"JPEG quality {quality}"
    return CodecRun(name, title, JPEG, "yuvj420p", {"quality": str(quality)}, **changes)


def webp(name: str, quality: int) -> CodecRun:
    """Return Pillow's lossy WebP."""
    return CodecRun(name, f"WebP quality {quality}", WEBP, "yuv420p", {"quality": str(quality)})


_FFV1 = {"threads": "1"}
_X265 = {
    "preset": "medium",
    "crf": "23",
    # With AVX x265 writes past its buffers where frames are narrow; the bytes are the same without it.
    "x265-params": "log-level=none:pools=none:frame-threads=1:asm=sse4.1",
}
# At these rate factors 10 clips of the training data took 1.03 and 0.99 times the bits of C6.
_VP9 = {"crf": "33", "b": "0", "deadline": "good", "cpu-used": "2", "threads": "1"}
_AV1 = {"crf": "31", "preset": "8", "svtav1-params": "lp=1"}

VIDEO = (
    CodecRun("C0", "lossless RGB", "ffv1", "bgr0", _FFV1),
    CodecRun("C1", "4:4:4, lossless", "ffv1", "yuv444p", _FFV1),
    CodecRun("C2", "4:2:0, lossless", "ffv1", "yuv420p", _FFV1),
    CodecRun("C3", "MJPEG, q 2", "mjpeg", "yuvj420p", {"qmin": "2", "qmax": "2", "threads": "1"}),
    x264("C4", 10),
    x264("C5", 18),
    x264("C6", 23),
    CodecRun("C7", "x265 CRF 23", "libx265", "yuv420p", _X265),
    CodecRun("C8-vp9", "VP9 CRF 33", "libvpx-vp9", "yuv420p", _VP9),
    CodecRun("C8-av1", "AV1 CRF 31", "libsvtav1", "yuv420p", _AV1),
    x264("C10", 23, "x264 CRF 23, twice", times=2),
    x264("C11", 23, "two thirds of the size, x264 CRF 23", scale=2 / 3, lines=480),
)
IMAGE = (
    *VIDEO[:3],
    *(jpeg(f"C9-{quality}", quality) for quality in (95, 90, 75, 50)),
    webp("C12-80", 80),
    jpeg("C13", 85, "two thirds of the size, JPEG quality 85", scale=2 / 3),
)


_X264_AT = {"preset": "medium", "x264-params": "threads=1:asm=avx2"}
_VP9_AT = {"deadline": "good", "cpu-used": "3", "threads": "1"}
_AV1_AT = {"preset": "8", "svtav1-params": "lp=1:rc=1"}


def _platform(name: str, lines: int, codec: str, kbit_s: int, options: dict[str, str]) -> CodecRun:
    title = f"{lines} lines, {codec.removeprefix('lib')} at {kbit_s} kbit/s"
    return CodecRun(name, title, codec, "yuv420p", {**options, "b": f"{kbit_s}k"}, lines=lines)


# They imitate what messengers and sites do to videos; none of them was asked.
PLATFORMS = (
    _platform("messenger", 476, "libx264", 1200, {**_X264_AT, "g": "60"}),
    _platform("social", 720, "libx264", 3500, _X264_AT),
    _platform("site-480-vp9", 480, "libvpx-vp9", 750, _VP9_AT),
    _platform("site-720-vp9", 720, "libvpx-vp9", 1800, _VP9_AT),
    _platform("site-480-av1", 480, "libsvtav1", 500, _AV1_AT),
    _platform("site-720-av1", 720, "libsvtav1", 1200, _AV1_AT),
)

# What is left of a large video that was coded, then scaled down and coded again at CRF 23.
SITE = x264("CRF25-480", 25, "480 lines, x264 CRF 25", lines=480)

_BY_NAME = {codec_run.name: codec_run for codec_run in (*VIDEO, *IMAGE, *PLATFORMS, SITE)}


def named(name: str) -> CodecRun:
    """Find a codec run of the ladders; "CRF24" is any rate factor of x264, "C9-80" and "C12-80" any quality.

    Raises:
        UserError: there is none of that name.
    """
    if name in _BY_NAME:
        return _BY_NAME[name]
    for prefix, make in (("CRF", x264), ("C9-", jpeg), ("C12-", webp)):
        number = name.removeprefix(prefix)
        if number != name and number.isdigit():
            return make(name, int(number))
    raise UserError(f"there is no codec run {name!r}: give one such as {', '.join(_BY_NAME)}, CRF24 or C9-80")


def is_exact(name: str) -> bool:
    """Return whether a codec run loses nothing but what its pixel format cannot hold."""
    return named(name).codec == "ffv1"


def run(
    codec_run: CodecRun, frames: np.ndarray | media.Planes, rate: Fraction = media.FOLDER_RATE
) -> Received:
    """Send frames through a codec.

    Args:
        codec_run: one of the ladders or any other.
        frames: RGB, uint8 [n, h, w, 3], or planes in 4:2:0 [n, ...], n > 0; odd sizes are padded at the edge
            for 4:2:0 and cropped again.
        rate: frames per second; constant rate factors look at it.

    Raises:
        UserError: this build of FFmpeg has no such encoder.
    """
    sent = [_scaled(frame, codec_run) for frame in media.unstack(frames)]
    if codec_run.codec in STILL:
        received, size = _through_pillow(codec_run, sent)
    else:
        received, size = _through_ffmpeg(codec_run, sent, rate)
    cut = (_cropped(got, was) for got, was in zip(received, sent, strict=True))
    back = [_resized(got, was) for got, was in zip(cut, media.unstack(frames), strict=True)]
    return Received(media.stack(back), size)


def bit_rate(size_bytes: int, frames: int, rate: Fraction = media.FOLDER_RATE) -> float:
    """Return the bits per second of coded frames."""
    return float(size_bytes * 8 * rate / frames)


def bits_per_pixel(size_bytes: int, shape: tuple[int, ...]) -> float:
    """Return the bits of a coded pixel; `shape` is that of the frames, (n, h, w, 3)."""
    return size_bytes * 8 / float(np.prod(shape[:3]))


def _scaled(frame, codec_run):
    """Return a frame in the size at which it is coded; scaled sides are even."""
    height, width = (frame.y if isinstance(frame, media.Planes) else frame).shape[:2]
    scale = codec_run.scale_of(height, width)
    if scale == 1:
        return frame
    height, width = (max(2, 2 * round(scale * side / 2)) for side in (height, width))
    if isinstance(frame, media.Planes):
        sizes = (height, width), *2 * [(height // 2, width // 2)]
        return media.Planes(*(media.resize(p, w, h) for p, (h, w) in zip(frame, sizes, strict=True)))
    return media.resize(frame, width, height)


def _resized(received, sent):
    """Return what was received in the size of what was sent."""
    if isinstance(sent, media.Planes):
        return media.Planes(*map(_resized, received, sent))
    height, width = sent.shape[:2]
    return media.resize(received, width, height)


def _padded(frame):
    """Return a frame with even sides; planes of colour have the size already."""
    if isinstance(frame, media.Planes):
        return frame._replace(y=_padded(frame.y[..., None])[..., 0])
    return np.pad(frame, ((0, frame.shape[0] % 2), (0, frame.shape[1] % 2), (0, 0)), "edge")


def _cropped(received, sent):
    """Return what was received at the size of what was sent."""
    if isinstance(sent, media.Planes):
        return media.Planes(*map(_cropped, received, sent))
    height, width = sent.shape[:2]
    return np.ascontiguousarray(received[:height, :width])


def _through_ffmpeg(codec_run, frames, rate):
    how = codec_run.codec, codec_run.pixel_format, codec_run.options, rate
    samples = "yuv420p" if isinstance(frames[0], media.Planes) else media.RGB
    sent = map(_padded, frames) if "420" in codec_run.pixel_format else frames
    data = media.compress(sent, *how, samples=samples)
    for _ in range(codec_run.times - 1):
        data = media.recompress(data, *how)
    return media.decompress(data, samples=samples), media.coded_size(data)


def _through_pillow(codec_run, frames):
    quality, received, size = int(codec_run.options["quality"]), [], 0
    for frame in frames:
        for _ in range(codec_run.times):
            data = STILL[codec_run.codec](frame, quality)
            frame = media.decode_image(data, (frame.shape[1], frame.shape[0]))
        received.append(frame)
        size += len(data)
    return received, size
