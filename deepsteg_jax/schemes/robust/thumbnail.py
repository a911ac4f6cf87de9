"""A secret coded to a few bytes: the lowest frequencies of a cosine transform in time, height and width.

For dozens to hundreds of bytes, where a video codec's headers alone take more. Coefficients of the
colours Y, Cb and Cr (JFIF) are quantised alike and range coded (Martin 1979, by the package constriction) as
if they came from Laplace distributions, narrower for higher frequencies, whose widths were fitted to training
clips.
"""

import constriction
import numpy as np

from deepsteg_jax.colour import ycbcr
from deepsteg_jax.dct import dct_matrix
from deepsteg_jax.errors import UserError

MOST = (12, 48, 64)  # coefficients in time, height and width
STEPS = 64.0 * 2 ** (-np.arange(64) / 6)  # of the quantiser, in grey levels of a whole picture
SPREADS = (0.5, 1.0, 2.0, 4.0)  # of the distributions, beside the usual ones
_MEAN = np.array([60, 60 / 7, 60 / 7])  # scales of the distributions of the mean colour, in grey levels
_PER_TIME = 5.0  # rows or columns of frequency that are as rare as one in time
_LEAST = 0.1  # scale, in steps, of coefficients that are coded
_ROUNDED_UP = 0.65  # part of a step from which on it counts as one: zeros are cheap
_LARGEST = 1000  # number
_LAPLACE = constriction.stream.model.QuantizedLaplace(-_LARGEST, _LARGEST)
_COLOURS = ycbcr("bt601_full").matrix
_GREY = 128


def encode(frames: np.ndarray, capacity: int) -> bytes:
    """Return the best coding of a secret in at most `capacity` bytes.

    Args:
        frames: uint8 [n, h, w, 3].
        capacity: bytes.

    Returns:
        A byte for step and spread, then the numbers.

    Raises:
        UserError: it does not fit.
    """
    coefficients = _transform(frames)
    found = [_finest(coefficients, spread, capacity) for spread in range(len(SPREADS))]
    error, message = min(found, key=lambda x: x[0])
    if np.isinf(error):
        raise UserError(f"the secret does not fit into {capacity} bytes at any size: take a larger cover")
    return message


def decode(message: bytes, count: int, height: int, width: int) -> np.ndarray:
    """Return the frames of `encode`, uint8 [count, height, width, 3].

    Raises:
        UserError: it is not such a message.
    """
    shape = tuple(map(min, MOST, (count, height, width)))
    try:
        spread, step = divmod(message[0], len(STEPS))
        scales, coded = _scales(shape, spread, step)
        decoder = constriction.stream.queue.RangeDecoder(np.frombuffer(message[1:], "<u4"))
        numbers = decoder.decode(_LAPLACE, np.zeros(len(scales)), scales)
    except (ValueError, IndexError, AssertionError) as error:
        raise UserError("the coded secret is damaged: get an intact copy of it") from error
    coefficients = np.zeros((*shape, 3))
    coefficients[coded] = numbers * STEPS[step]
    return _inverse(coefficients, count, height, width)


def _finest(coefficients: np.ndarray, spread: int, capacity: int) -> tuple[float, bytes]:
    """Return (squared error, message) with about the smallest step that fits; (inf, b"") if none does."""
    best, low, high = (np.inf, b""), 0, len(STEPS) - 1
    while low <= high:
        step = (low + high) // 2
        error, message = _quantised(coefficients, spread, step)
        if len(message) <= capacity:
            best, low = min(best, (error, message)), step + 1
        else:
            high = step - 1
    return best


def _quantised(coefficients: np.ndarray, spread: int, step: int) -> tuple[float, bytes]:
    """Quantise and range code; return (squared error, message)."""
    scales, coded = _scales(coefficients.shape[:3], spread, step)
    parts = coefficients[coded] / STEPS[step]
    numbers = np.sign(parts) * np.minimum(np.floor(np.abs(parts) + 1 - _ROUNDED_UP), _LARGEST)
    error = ((parts - numbers) ** 2).sum() * STEPS[step] ** 2 + (coefficients[~coded] ** 2).sum()
    encoder = constriction.stream.queue.RangeEncoder()
    encoder.encode(numbers.astype(np.int32), _LAPLACE, np.zeros(len(scales)), scales)
    return error, bytes([spread * len(STEPS) + step]) + encoder.get_compressed().astype("<u4").tobytes()


def _scales(shape: tuple[int, ...], spread: int, step: int) -> tuple[np.ndarray, np.ndarray]:
    """Return scales, in steps, of the coefficients [t, y, x, 3] that are coded, and which ones these are.

    The same to the bit on every machine: nothing but roots and what IEEE 754 rounds exactly.
    """
    time, row, column = np.ogrid[: shape[0], : shape[1], : shape[2]]
    frequency = (1.0 + _PER_TIME * time + row + column)[..., None]
    scales = SPREADS[spread] * _MEAN / (frequency * np.sqrt(frequency) * np.sqrt(np.sqrt(frequency)))
    coded = scales > _LEAST * STEPS[step]
    return scales[coded] / STEPS[step], coded


def _transform(frames: np.ndarray) -> np.ndarray:
    """Return the lowest coefficients of frames, [t, y, x, 3], in grey levels of a whole picture."""
    found = frames - np.float32(_GREY)
    for axis in (0, 2, 1):  # colours at last, when they are few
        length = frames.shape[axis]
        waves = (dct_matrix(length, min(MOST[axis], length)) / np.sqrt(length)).astype(np.float32)
        found = np.moveaxis(np.tensordot(waves, found, (1, axis)), 0, axis)
    return found @ _COLOURS.T


def _inverse(coefficients: np.ndarray, *lengths: int) -> np.ndarray:
    shown = (coefficients @ np.linalg.inv(_COLOURS).T).astype(np.float32)  # first, while they are few
    for axis, length in enumerate(lengths):
        waves = (dct_matrix(length, coefficients.shape[axis]) * np.sqrt(length)).astype(np.float32)
        shown = np.moveaxis(np.tensordot(waves, shown, (0, axis)), 0, axis)
    return np.clip(shown + (_GREY + 0.5), 0, 255).astype(np.uint8)  # rounds, as it cuts off
