"""A secret coded to a number of bytes: by VVC where its encoder is installed, else by AV1."""

import math
from collections.abc import Callable
from fractions import Fraction
from typing import NamedTuple

import numpy as np

from deepsteg_jax import media
from deepsteg_jax.errors import UserError
from deepsteg_jax.media import vvc
from deepsteg_jax.media.search import Trial, finest

AV1, CONTAINER = "libsvtav1", "obu"  # a bare stream: no container's bytes
PRESET = 6  # of SVT-AV1
FILLED = 0.86  # share of the capacity from which on a coding is fine enough


class Size(NamedTuple):
    """The part of a secret that is coded: scaled down, and in time one frame of each `stride`."""

    scale: float  # of its width and height
    stride: int = 1  # every stride-th frame


class Coder(NamedTuple):
    """A video codec."""

    # Frames, quantiser, rate, and whether they were scaled down.
    encode: Callable[[np.ndarray, int, Fraction, bool], bytes]
    decode: Callable[[bytes], list[np.ndarray]]
    side: int  # pixels that sides must be multiples of
    quantisers: tuple[int, int]  # the finest and the coarsest
    usual: Trial  # of _MEGAPIXEL, without _HEADERS

    def usual_of(self, frames: np.ndarray) -> Trial:
        """Return the usual coding of frames [n, h, w, 3]."""
        size = self.usual.size * math.prod(frames.shape[:3]) // _MEGAPIXEL
        return self.usual._replace(size=_HEADERS + size)


class Coding(NamedTuple):
    """What a secret was coded with; where to begin with the next one."""

    size: int  # in SIZES
    trial: Trial


# From fine to coarse; the first byte of a message has the number of one of them, and of the coder.
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
# Bits per pixel from which on a size is best.
_USUAL = (0.012, 0.005, 0.0016, 0.0009, 0.0005, 0.0003, 0.0002, 0.00015, 0.0001, 0.00005)
_CODER_BIT = 16  # of the first byte
_MEGAPIXEL = 1_000_000
_HEADERS = 100  # bytes, about


def _encode_av1(frames: np.ndarray, quantiser: int, rate: Fraction, small: bool) -> bytes:
    del small
    options = {"crf": str(quantiser), "preset": str(PRESET), "svtav1-params": "lp=1"}
    return media.compress(frames, AV1, "yuv420p", options, rate, CONTAINER)


def _encode_vvc(frames: np.ndarray, quantiser: int, rate: Fraction, small: bool) -> bytes:
    """Encode for longer where that costs little."""
    del rate
    return vvc.encode(frames, quantiser, "fast" if small else "faster")


def _decode_av1(stream: bytes) -> list[np.ndarray]:
    return media.decompress(stream, CONTAINER)


_CODERS = (
    Coder(_encode_av1, _decode_av1, 2, (12, 63), Trial(45, 2000, 0.065)),
    Coder(_encode_vvc, vvc.decode, vvc.SIDE, (44, vvc.COARSEST), Trial(86, 1700, 0.06)),
)


def has_encoder() -> bool:
    """Return whether there is an encoder of either codec."""
    return bool(vvc.program()) or media.has_encoder(AV1)


def encode(
    frames: np.ndarray, capacity: int, rate: Fraction = media.FOLDER_RATE, near: Coding | None = None
) -> tuple[bytes, Coding]:
    """Return about the best coding of a secret in at most `capacity` bytes, and what it was coded with.

    Try the size that usually suits the capacity, then smaller ones. Take the first quantiser that fits and
    fills FILLED of the bytes, or else the finest that fits.

    Args:
        frames: uint8 [n, h, w, 3].
        capacity: bytes.
        rate: frames per second.
        near: of a secret like this one.

    Returns:
        The number of coder and size, then the stream, which has to arrive bit for bit; see `Coding`.

    Raises:
        UserError: it does not fit at any size, or there is no encoder.
    """
    number = 1 if vvc.program() else 0
    coder, pixels = _CODERS[number], math.prod(frames.shape[:3])
    for size in range(sum(8 * capacity / pixels < least for least in _USUAL), len(SIZES)):
        small = _shrink(frames, SIZES[size], coder.side)
        like = near.trial if near and near.size == size else coder.usual_of(small)
        found = _finest(coder, lambda q: coder.encode(small, q, rate, size > 0), capacity - 1, like)  # noqa: B023
        if found:
            trial, stream = found
            return bytes([number * _CODER_BIT + size]) + stream, Coding(size, trial)
    raise UserError(f"the secret does not fit into {capacity} bytes at any size: take a larger cover")


def decode(message: bytes, count: int, height: int, width: int) -> np.ndarray:
    """Return the `count` frames of `encode` at their full size, uint8 [count, height, width, 3].

    Raises UserError if nothing can be decoded; damage that the decoder conceals goes unnoticed.
    """
    number, size = divmod(message[0] if message else 255, _CODER_BIT)
    if number >= len(_CODERS) or size >= len(SIZES):
        raise UserError("the coded secret is damaged: get an intact copy of it")
    frames = _CODERS[number].decode(message[1:])
    return _grow(np.stack(frames), SIZES[size], count, height, width)


def _finest(
    coder: Coder, encode_at: Callable[[int], bytes], room: int, like: Trial
) -> tuple[Trial, bytes] | None:
    """Return (coding, bytes) of the finest that fits, or nearly; None if none does."""
    coded: dict[int, bytes] = {}

    def size_at(quantiser: int) -> int:
        coded[quantiser] = encode_at(quantiser)
        return len(coded[quantiser])

    found = finest(size_at, room, like, coder.quantisers, FILLED)
    return None if found is None else (found, coded[found.quantiser])


def _multiple(length: float, side: int) -> int:
    return max(2 * side, side * round(length / side))


def _resized(frames, height, width):
    return np.stack([media.resize(frame, width, height) for frame in frames])


def _shrink(frames, size: Size, side: int):
    height, width = (_multiple(length * size.scale, side) for length in frames.shape[1:3])
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
