"""What happens to a stego between sender and receiver: real codecs, as sites, cameras and players use them.

A `Passage` is one way to get across, `run` sends frames through it. `VIDEO` and `IMAGE` are the ladders of
the benchmark, from lossless to a coarse codec; `CURVE` is x264 at finer steps.

FFmpeg's swscale turns RGB to YUV and back in its default way: BT.601, limited range (MJPEG and Pillow's
JPEG: full range). Its way from 4:2:0 to RGB rounds down: what arrives is a level too dark in the mean, here
as in every player that uses it. A second coding starts from the YUV of the first. Encoders run on one
thread, and x264 without AVX-512, with which its rate control gives other bytes in every run: so that a second
run gives the same figures.

At the end: a secret coded to a number of bits, for the baseline that sends bits instead of pictures.
"""

import os
from collections.abc import Callable
from fractions import Fraction
from io import BytesIO
from typing import NamedTuple

import numpy as np
from PIL import Image

from deepsteg_jax import metrics
from deepsteg_jax.errors import UserError
from deepsteg_jax.video import io

JPEG = "jpeg"  # Pillow's, every frame for itself


class Passage(NamedTuple):
    """One way from sender to receiver."""

    name: str  # short, such as "C6"
    title: str
    codec: str  # FFmpeg's name of an encoder, or `JPEG`
    pixel_format: str  # that the encoder takes
    options: dict[str, str]  # the encoder's own
    times: int = 1  # how often it is decoded and coded anew
    scale: float = 1.0  # frames are resized to this part of their size and back before they are coded


class Received(NamedTuple):
    """What arrives."""

    frames: np.ndarray  # uint8 [n, h, w, 3], as many and as large as were sent
    size_bytes: int  # of the coded pictures, without what a container adds; of the last coding


def x264(name: str, crf: int, title: str = "", **changes) -> Passage:
    """H.264 at a constant rate factor, preset medium, 4:2:0; `changes` to other fields of a `Passage`."""
    options = {"preset": "medium", "crf": str(crf), "x264-params": "threads=1:asm=avx2"}
    return Passage(name, title or f"x264 CRF {crf}", "libx264", "yuv420p", options, **changes)


def jpeg(name: str, quality: int) -> Passage:
    """Pillow's JPEG, 4:2:0."""
    return Passage(name, f"JPEG quality {quality}", JPEG, "yuvj420p", {"quality": str(quality)})


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
    Passage("C0", "lossless RGB", "ffv1", "bgr0", _FFV1),
    Passage("C1", "4:4:4, lossless", "ffv1", "yuv444p", _FFV1),
    Passage("C2", "4:2:0, lossless", "ffv1", "yuv420p", _FFV1),
    Passage("C3", "MJPEG, q 2", "mjpeg", "yuvj420p", {"qmin": "2", "qmax": "2", "threads": "1"}),
    x264("C4", 10),
    x264("C5", 18),
    x264("C6", 23),
    Passage("C7", "x265 CRF 23", "libx265", "yuv420p", _X265),
    Passage("C8-vp9", "VP9 CRF 33", "libvpx-vp9", "yuv420p", _VP9),
    Passage("C8-av1", "AV1 CRF 31", "libsvtav1", "yuv420p", _AV1),
    x264("C10", 23, "x264 CRF 23, twice", times=2),
    x264("C11", 23, "75 % and back, x264 CRF 23", scale=0.75),
)
CURVE = tuple(x264(f"CRF{crf}", crf) for crf in (20, 22, 24, 26, 28))
IMAGE = (*VIDEO[:3], *(jpeg(f"C9-{quality}", quality) for quality in (90, 75, 50)))


def is_available(passage: Passage) -> bool:
    """Whether this build of FFmpeg has the encoder."""
    return passage.codec == JPEG or io.has_encoder(passage.codec)


def run(passage: Passage, frames: np.ndarray, rate: Fraction = io.FOLDER_RATE) -> Received:
    """Sends frames through a passage.

    Args:
        passage: one of the ladders or any other.
        frames: uint8 [n, h, w, 3], n > 0; odd sizes are padded at the edge for 4:2:0 and cropped again.
        rate: frames per second; constant rate factors look at it.

    Raises:
        UserError: this build of FFmpeg has no such encoder.
    """
    height, width = frames.shape[1:3]
    sent = _rescaled(frames, passage.scale)
    if "420" in passage.pixel_format:
        sent = np.pad(sent, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), "edge")
    received, size = (_through_jpeg if passage.codec == JPEG else _through_ffmpeg)(passage, sent, rate)
    if received.shape != sent.shape:
        raise RuntimeError(f"{passage.name} made {received.shape} of frames {sent.shape}")
    return Received(np.ascontiguousarray(received[:, :height, :width]), size)


def bit_rate(size_bytes: int, frames: int, rate: Fraction = io.FOLDER_RATE) -> float:
    """Bits per second of so many coded frames."""
    return float(size_bytes * 8 * rate / frames)


def bits_per_pixel(size_bytes: int, shape: tuple[int, ...]) -> float:
    """Bits of a coded pixel; `shape` is that of the frames, (n, h, w, 3)."""
    return size_bytes * 8 / float(np.prod(shape[:3]))


def _resized(frames, height, width):
    return np.stack([io.resize(frame, width, height) for frame in frames])


def _rescaled(frames, scale):
    """Frames of the same size with the detail of smaller ones."""
    if scale == 1:
        return frames
    height, width = frames.shape[1:3]
    return _resized(_resized(frames, _even(height * scale), _even(width * scale)), height, width)


def _even(length):
    return max(2, 2 * round(length / 2))


def _through_ffmpeg(passage, frames, rate):
    _quiet()
    how = passage.codec, passage.pixel_format, passage.options, rate
    data = io.compress(frames, *how)
    for _ in range(passage.times - 1):
        data = io.recompress(data, *how)
    return np.stack(io.decompress(data)), io.coded_size(data)


def _quiet():
    """SVT-AV1 prints on stderr what FFmpeg's log level cannot turn off."""
    os.environ.setdefault("SVT_LOG", "1")


def _through_jpeg(passage, frames, rate):
    del rate
    quality, received, size = int(passage.options["quality"]), [], 0
    for frame in frames:
        for _ in range(passage.times):
            file = BytesIO()
            Image.fromarray(frame).save(file, "JPEG", quality=quality, subsampling="4:2:0")
            with Image.open(file) as image:
                frame = np.array(image)
        received.append(frame)
        size += file.tell()
    return np.stack(received), size


# --- a secret coded to a number of bits ----------------------------------------------------------

SECRET_CODEC, SECRET_CONTAINER = "libsvtav1", "obu"  # a bare stream: no container's bytes
SECRET_SCALES = (1.0, 0.75, 0.5, 0.375, 0.25)  # a byte of the message says which
FINEST, COARSEST = 1, 63  # constant rate factors


def code_secret(frames: np.ndarray, bits: int, rate: Fraction = io.FOLDER_RATE) -> bytes:
    """The best coding of a secret as AV1 in at most so many bits.

    Tries every size of `SECRET_SCALES` at the finest rate factor that fits and keeps the one whose frames,
    scaled up again, come nearest to the secret: mean over frames of PSNR.

    Args:
        frames: uint8 [n, h, w, 3].
        bits: what the carrier holds.
        rate: frames per second.

    Returns:
        At most `bits` // 8 bytes: the scale, then the stream. The carrier must give back exactly these,
        without padding.

    Raises:
        UserError: it does not fit at any size, or this build of FFmpeg has no AV1 encoder.
    """
    _quiet()
    best, best_db = None, -np.inf
    for number, scale in enumerate(SECRET_SCALES):
        height, width = (_even(length * scale) for length in frames.shape[1:3])
        small = _resized(frames, height, width)
        stream = _finest(lambda crf, small=small: _code_av1(small, crf, rate), bits // 8 - 1)
        if stream is None:
            continue
        message = bytes([number]) + stream
        decoded = decode_secret(message, *frames.shape[1:3])
        db = np.mean([metrics.psnr(a, b) for a, b in zip(frames, decoded, strict=True)])
        if db > best_db:
            best, best_db = message, db
    if best is None:
        raise UserError(f"the secret does not fit into {bits} bits at any size: take a larger cover")
    return best


def decode_secret(message: bytes, height: int, width: int) -> np.ndarray:
    """The frames of `code_secret` at their full size, uint8 [n, height, width, 3].

    Raises UserError if nothing can be decoded; damage that the decoder conceals goes unnoticed.
    """
    if not message or message[0] >= len(SECRET_SCALES):
        raise UserError("the coded secret is damaged: get an intact copy of it")
    return _resized(io.decompress(message[1:], SECRET_CONTAINER), height, width)


def _code_av1(frames, crf, rate):
    options = {"crf": str(crf), "preset": "4", "svtav1-params": "lp=1"}
    return io.compress(frames, SECRET_CODEC, "yuv420p", options, rate, SECRET_CONTAINER)


def _finest(code: Callable[[int], bytes], room: int) -> bytes | None:
    """What `code` makes of the lowest rate factor whose bytes fit; None if none does."""
    best, low, high = None, FINEST, COARSEST
    while low <= high:
        middle = (low + high) // 2
        coded = code(middle)
        if len(coded) <= room:
            best, high = coded, middle - 1
        else:
            low = middle + 1
    return best
