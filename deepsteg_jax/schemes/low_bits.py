"""Bytes in low bits of 8-bit samples, at indices that a key chooses.

A table of 256 says the bit of every sample value. A model that reads samples modulo D never sees a sample
move by a multiple of D, so that is how bits are changed; of two ways the one that ends nearer to the cover is
taken. Matrix embedding (Crandall 1998) with Hamming codes changes few of them: p bits lie in 2^p - 1 samples,
as the sum of the numbers of those whose bit is 1, of which at most one must change.
"""

import math
from functools import lru_cache

import numpy as np

from deepsteg_jax.cipher import ROUNDS, rotations
from deepsteg_jax.keystream import numpy_keystream

LARGEST_CODE = 6  # p: 6 bits in 63 samples, of which 0.98 change on the average

LARGEST_MODULUS = 32  # of D, for which the common table can be written

# A table that a receiver can read before D is known. Found by search: every D up to the largest has a short
# way from each value to one with the other bit, 1.1 to 1.5 D on the average and 6 D at the most.
COMMON_TABLE = np.unpackbits(
    np.frombuffer(bytes.fromhex("a153f4e1702bc778b8e0f187642e0f38f38bd4a1d543c7e61c2ab0fb8f3c341e"), np.uint8)
)


@lru_cache(maxsize=8)
def parity_table(modulus: int) -> np.ndarray:
    """Return the table for D = `modulus`, the parity of floor(sample / D): moving by D changes every bit."""
    return (np.arange(256) // modulus % 2).astype(np.uint8)


def code_for(count: int, samples: int) -> int:
    """Return the p of the Hamming code that puts `count` bytes into `samples` samples; 0 if there is none."""
    fits = (p for p in range(LARGEST_CODE, 0, -1) if _needed(count, p) <= samples)
    return next(fits, 0)


def samples_needed(count: int, samples: int) -> int:
    """Count the samples, of `samples`, that carry `count` bytes.

    Raises:
        ValueError: they are too few.
    """
    p = code_for(count, samples)
    if not p:
        raise ValueError(f"{count} bytes do not fit into {samples} samples")
    return _needed(count, p)


def _needed(count: int, p: int) -> int:
    return -(-8 * count // p) * (2**p - 1)


def choose_indices(key: bytes, number: int, count: int, samples: int) -> np.ndarray:
    """Return the first `count` indices of a key-derived permutation of range(samples), int64 [count].

    The permutation is the Feistel network of `cipher.scatter` on a grid that is a little too large, walked
    on from each index that falls outside (Black and Rogaway 2002, method 2). `number` makes one
    permutation for each frame.
    """
    columns = math.isqrt(samples - 1) + 1
    rows = -(-samples // columns)
    words = numpy_keystream(key, number, 4 * (ROUNDS // 2) * (rows + columns)).view("<u4")
    words = words.reshape(ROUNDS // 2, rows + columns).astype(np.int64)
    turns = words[:, :rows] % columns, words[:, rows:] % rows
    indices = np.arange(count)
    outside = np.full(count, True)
    while outside.any():
        row, column = rotations(*np.divmod(indices[outside], columns), *turns)
        indices[outside] = row * columns + column
        outside = indices >= samples
    return indices


@lru_cache(maxsize=8)
def _numbers(p: int) -> np.ndarray:
    return np.arange(1, 2**p)


def _sums(bits: np.ndarray, p: int) -> np.ndarray:
    """Return the message that each group of 2^p - 1 bits holds, [groups, 2^p - 1] -> [groups]."""
    return np.bitwise_xor.reduce(bits * _numbers(p), axis=1)


def write(
    samples: np.ndarray, cover: np.ndarray, indices: np.ndarray, data: bytes, modulus: int, table: np.ndarray
) -> None:
    """Write bytes into samples, in place.

    Args:
        samples: uint8 [n].
        cover: uint8 [n], what the samples should stay close to.
        indices: distinct; as many as are needed at the code that `code_for` picks are used.
        data: the bytes.
        modulus: the model's D.
        table: the bit of each sample value, uint8 [256].

    Raises:
        ValueError: there are too few indices.
    """
    indices = indices[: samples_needed(len(data), len(indices))]
    p = code_for(len(data), len(indices))
    indices = indices.reshape(-1, 2**p - 1)
    bits = np.unpackbits(np.frombuffer(data, np.uint8))
    bits = np.append(bits, np.zeros(-len(bits) % p, np.uint8)).reshape(-1, p)
    message = bits @ (1 << np.arange(p))
    change = _sums(table[samples[indices]], p) ^ message
    rows = np.flatnonzero(change)
    moved = indices[rows, change[rows] - 1]
    samples[moved] = _flipped(samples[moved].astype(int), cover[moved].astype(int), moved, modulus, table)


def _flipped(old: np.ndarray, goal: np.ndarray, indices: np.ndarray, modulus: int, table: np.ndarray):
    """Return the nearest values with the other bit, a multiple of D away from `old`; ties go by index."""
    new, open_ = old.copy(), np.ones(len(old), bool)
    upward = np.where(old == goal, indices % 2 == 0, old < goal)
    for distance in range(modulus, 256, modulus):
        up, down = old + distance, old - distance
        can_rise, can_fall = (
            open_ & (value >= 0) & (value <= 255) & (table[np.clip(value, 0, 255)] != table[old])
            for value in (up, down)
        )
        rises = can_rise & (upward | ~can_fall)
        new = np.where(rises, up, np.where(can_fall, down, new))
        open_ &= ~(can_rise | can_fall)
        if not open_.any():
            break
    return new


def read(samples: np.ndarray, indices: np.ndarray, count: int, table: np.ndarray) -> bytes:
    """Return the `count` bytes that `write` put there; random bytes where nothing was.

    Raises:
        ValueError: there are too few indices.
    """
    indices = indices[: samples_needed(count, len(indices))]
    p = code_for(count, len(indices))
    indices = indices.reshape(-1, 2**p - 1)
    message = _sums(table[samples[indices]], p)
    bits = (message[:, None] >> np.arange(p)) & 1
    return np.packbits(bits.ravel()[: 8 * count].astype(np.uint8)).tobytes()
