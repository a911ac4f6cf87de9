"""A secret coded to a number of bytes, by AV1 at the size and frame rate that suit it best."""

from collections.abc import Callable
from fractions import Fraction
from typing import NamedTuple

import numpy as np

from deepsteg_jax import media, metrics
from deepsteg_jax.errors import UserError

CODEC, CONTAINER = "libsvtav1", "obu"  # a bare stream: no container's bytes
FINEST, COARSEST = 1, 63  # constant rate factors
PRESET = 6
FILLED = 0.97  # share of the capacity from which on a coding is fine enough


class Size(NamedTuple):
    """The part of a secret that is coded: scaled down, and in time one frame of each `stride`."""

    scale: float  # of its width and height
    stride: int = 1  # every stride-th frame


# From fine to coarse; the first byte of a message is the number of one of them.
SIZES = (
    Size(1.0),
    Size(0.75),
    Size(0.5),
    Size(0.375),
    Size(0.25),
    Size(0.25, 2),
    Size(0.1875, 2),
    Size(0.125, 2),
    Size(0.125, 4),
    Size(0.125, 16),
    Size(0.125, 64),
)
_USUAL = (
    0.05,
    0.02,
    0.01,
    0.006,
    0.003,
    0.002,
    0.0012,
    0.0006,
    0.0003,
    0.0002,
)  # bits per pixel from which on a size is best


def encode(frames: np.ndarray, capacity: int, rate: Fraction = media.FOLDER_RATE) -> bytes:
    """Return the best coding of a secret in at most `capacity` bytes.

    Takes the finest rate factor that fits, and the size whose frames, scaled up again, come nearest to the
    secret (mean over frames of PSNR), as far as a search from a usual size uphill finds it.

    Args:
        frames: uint8 [n, h, w, 3].
        capacity: bytes.
        rate: frames per second.

    Returns:
        The number of the size, then the stream, which has to arrive bit for bit.

    Raises:
        UserError: it does not fit at any size, or this build of FFmpeg has no AV1 encoder.
    """
    bits_per_pixel = 8 * capacity / float(np.prod(frames.shape[:3]))
    start = sum(bits_per_pixel < least for least in _USUAL)
    tried: dict[int, tuple[float, bytes | None]] = {}

    def quality(number: int) -> float:
        if not 0 <= number < len(SIZES):
            return -np.inf
        if number not in tried:
            tried[number] = _try_size(frames, number, capacity, rate)
        return tried[number][0]

    best = _climb(quality, start)
    if tried[best][1] is None:
        raise UserError(f"the secret does not fit into {capacity} bytes at any size: take a larger cover")
    return tried[best][1]


def decode(message: bytes, count: int, height: int, width: int) -> np.ndarray:
    """Return the `count` frames of `encode` at their full size, uint8 [count, height, width, 3].

    Raises UserError if nothing can be decoded; damage that the decoder conceals goes unnoticed.
    """
    if not message or message[0] >= len(SIZES):
        raise UserError("the coded secret is damaged: get an intact copy of it")
    frames = media.decompress(message[1:], CONTAINER)
    return _grow(np.stack(frames), SIZES[message[0]], count, height, width)


def _climb(quality: Callable[[int], float], start: int) -> int:
    """Return the number, searching from `start` in the better direction, after which `quality` falls."""
    while np.isneginf(quality(start)) and start < len(SIZES) - 1:  # nothing fits yet
        start += 1
    for direction in (1, -1):
        best = start
        while quality(best + direction) > quality(best):
            best += direction
        if best != start:
            return best
    return start


def _try_size(frames, number, capacity, rate) -> tuple[float, bytes | None]:
    """Return (PSNR in dB, message) of the finest coding at a size; (-inf, None) if none fits."""
    small = _shrink(frames, SIZES[number])
    stream = _finest(lambda factor: _encode_av1(small, factor, rate), capacity - 1)
    if stream is None:
        return -np.inf, None
    message = bytes([number]) + stream
    decoded = decode(message, *frames.shape[:3])
    return metrics.mean_psnr(frames, decoded), message


def _finest(encode_at: Callable[[int], bytes], capacity: int) -> bytes | None:
    """Return the bytes of `encode_at` for the lowest rate factor at which they fit; None if none does.

    The logarithm of the number of bytes falls about linearly with the factor, which tells where to look.
    """
    best, low, high, guess = None, FINEST, COARSEST, 45
    while low <= high:
        guess = min(max(guess, low), high)
        coded = encode_at(guess)
        if len(coded) <= capacity:
            best, high = coded, guess - 1
            if len(coded) > FILLED * capacity:
                break
        else:
            low = guess + 1
        ahead = np.log(max(len(coded), 1) / max(capacity, 1)) / 0.065  # a factor's share of the bytes
        guess += int(np.ceil(ahead)) if ahead > 0 else int(np.floor(min(ahead, -1)))
    return best


def _encode_av1(frames, factor, rate):
    options = {"crf": str(factor), "preset": str(PRESET), "svtav1-params": "lp=1"}
    return media.compress(frames, CODEC, "yuv420p", options, rate, CONTAINER)


def _even(length: float) -> int:
    return max(2, 2 * round(length / 2))


def _resized(frames, height, width):
    return np.stack([media.resize(frame, width, height) for frame in frames])


def _shrink(frames, size: Size):
    height, width = (_even(length * size.scale) for length in frames.shape[1:3])
    return _resized(frames[:: size.stride], height, width)


def _grow(frames, size: Size, count, height, width):
    """Invert `_shrink`, up to lost detail; frames between are interpolated from their neighbours."""
    large = _resized(frames, height, width)
    if len(large) == count:
        return large
    at = np.minimum(np.arange(count) / size.stride, len(large) - 1)
    first = np.floor(at).astype(int)
    share = (at - first)[:, None, None, None]
    mixed = large[first] * (1 - share) + large[np.minimum(first + 1, len(large) - 1)] * share
    return np.round(mixed).astype(np.uint8)
