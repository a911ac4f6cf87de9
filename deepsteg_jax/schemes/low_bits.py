"""Bytes in low bits of 8-bit samples, at places that a key chooses.

A bit is the parity of floor(sample / D), which a model that reads samples modulo D never sees: changing a
bit moves a sample by D. Matrix embedding (Crandall 1998) with Hamming codes changes few of them: p bits lie
in 2^p - 1 samples, as the sum of the numbers of those whose bit is 1, of which at most one must change.
The sample moves up or down, whichever ends nearer to the cover.
"""

import math
from functools import lru_cache

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms

from deepsteg_jax.cipher import ROUNDS, rotations

LARGEST_CODE = 6  # p: 6 bits in 63 samples, of which 0.98 change on the average


def code_for(count: int, samples: int) -> int:
    """The p of the Hamming code that puts `count` bytes into so many samples; 0 if there is none."""
    fits = (p for p in range(LARGEST_CODE, 0, -1) if _needed(count, p) <= samples)
    return next(fits, 0)


def samples_needed(count: int, samples: int) -> int:
    """How many of so many samples carry `count` bytes.

    Raises:
        ValueError: they are too few.
    """
    p = code_for(count, samples)
    if not p:
        raise ValueError(f"{count} bytes do not fit into {samples} samples")
    return _needed(count, p)


def _needed(count: int, p: int) -> int:
    return -(-8 * count // p) * (2**p - 1)


def choose_places(key: bytes, number: int, count: int, samples: int) -> np.ndarray:
    """The first `count` places of a key-derived permutation of range(samples), int64 [count].

    The permutation is the Feistel network of `cipher.scatter` on a grid that is a little too large, walked
    on from each place that falls outside (Black and Rogaway 2002, method 2). `number` makes one
    permutation for each frame.
    """
    columns = math.isqrt(samples - 1) + 1
    rows = -(-samples // columns)
    nonce = bytes(4) + number.to_bytes(12, "little")
    stream = Cipher(algorithms.ChaCha20(key, nonce), None).encryptor()
    words = np.frombuffer(stream.update(bytes(4 * (ROUNDS // 2) * (rows + columns))), "<u4")
    words = words.reshape(ROUNDS // 2, rows + columns).astype(np.int64)
    turns = words[:, :rows] % columns, words[:, rows:] % rows
    places = np.arange(count)
    outside = np.full(count, True)
    while outside.any():
        row, column = rotations(*np.divmod(places[outside], columns), *turns)
        places[outside] = row * columns + column
        outside = places >= samples
    return places


@lru_cache(maxsize=8)
def _numbers(p: int) -> np.ndarray:
    return np.arange(1, 2**p)


def _sums(bits: np.ndarray, p: int) -> np.ndarray:
    """The message that each group of 2^p - 1 bits holds, [groups, 2^p - 1] -> [groups]."""
    return np.bitwise_xor.reduce(bits * _numbers(p), axis=1)


def write(samples: np.ndarray, cover: np.ndarray, places: np.ndarray, data: bytes, step: int) -> None:
    """Writes bytes into samples, in place.

    Args:
        samples: uint8 [n].
        cover: uint8 [n], what the samples should stay close to.
        places: distinct indices; as many as are needed at the code that `code_for` picks are used.
        data: the bytes.
        step: the model's `step` D.

    Raises:
        ValueError: there are too few places.
    """
    places = places[: samples_needed(len(data), len(places))]
    p = code_for(len(data), len(places))
    places = places.reshape(-1, 2**p - 1)
    bits = np.unpackbits(np.frombuffer(data, np.uint8))
    bits = np.append(bits, np.zeros(-len(bits) % p, np.uint8)).reshape(-1, p)
    message = bits @ (1 << np.arange(p))
    change = _sums(samples[places] // step % 2, p) ^ message
    rows = np.flatnonzero(change)
    moved = places[rows, change[rows] - 1]
    old, goal = samples[moved].astype(int), cover[moved].astype(int)
    up = np.where(old == goal, moved % 2 == 0, old < goal)
    up = np.where(old + step > 255, False, np.where(old - step < 0, True, up))
    samples[moved] = old + np.where(up, step, -step)


def read(samples: np.ndarray, places: np.ndarray, count: int, step: int) -> bytes:
    """The `count` bytes that `write` put there; random bytes where nothing was.

    Raises:
        ValueError: there are too few places.
    """
    places = places[: samples_needed(count, len(places))]
    p = code_for(count, len(places))
    places = places.reshape(-1, 2**p - 1)
    message = _sums(samples[places] // step % 2, p)
    bits = (message[:, None] >> np.arange(p)) & 1
    return np.packbits(bits.ravel()[: 8 * count].astype(np.uint8)).tobytes()
