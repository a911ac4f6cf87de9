"""The baseline without a network: a real video codec, its bytes in the low digits of the samples.

The secret is coded as finely as the cover has room for: without loss if that fits, else at the lowest
constant rate factor that does. Modulus 2 is least-significant-bit replacement, 3 is +-1 embedding, 5 takes
two levels either way; every sample moves to the nearest value congruent to its digit, as in `block_dct`.
The message is neither encrypted nor scattered, so this measures quality, not secrecy.
"""

from collections.abc import Sequence
from zlib import crc32

import numpy as np

from deepsteg_jax import media
from deepsteg_jax.errors import UserError
from deepsteg_jax.models.block_dct import wrap_into

CODEC, PIXEL_FORMAT, PRESET = "libx264rgb", "rgb24", "veryslow"
LOSSLESS = 0  # x264's constant rate factor 0
FINEST, COARSEST, STEP = 0.5, 51.0, 0.25  # constant rate factors
_WORD = 64  # bits that are turned into digits at a time


def _digits_per_word(modulus: int) -> int:
    count, size = 0, 1
    while size < 2**_WORD:
        count, size = count + 1, size * modulus
    return count


def to_digits(data: bytes, modulus: int) -> np.ndarray:
    """The digits of a byte string, uint8 in [0, modulus); made of words of 64 bits, zeros at the end."""
    words = np.frombuffer(data + bytes(-len(data) % 8), "<u8")
    powers = np.array([modulus**i for i in range(_digits_per_word(modulus))], np.uint64)
    return (words[:, None] // powers % np.uint64(modulus)).astype(np.uint8).ravel()


def from_digits(digits: np.ndarray, modulus: int) -> bytes:
    """Inverse of `to_digits`; digits that do not fill a word are ignored."""
    count = _digits_per_word(modulus)
    powers = np.array([modulus**i for i in range(count)], np.uint64)
    whole = digits[: len(digits) // count * count].reshape(-1, count).astype(np.uint64)
    return (whole * powers).sum(axis=1, dtype=np.uint64).astype("<u8").tobytes()


def capacity(samples: int, modulus: int) -> int:
    """Bytes that fit into so many samples, beside the word that holds their number and checksum."""
    return max(0, samples // _digits_per_word(modulus) - 1) * _WORD // 8


def compress_to_fit(frames: Sequence[np.ndarray], room: int) -> bytes:
    """The finest coding of `frames` of at most `room` bytes.

    Raises:
        UserError: not even the coarsest fits.
    """

    def compress(crf):
        return media.compress(frames, CODEC, PIXEL_FORMAT, {"preset": PRESET, "crf": str(crf)})

    best = compress(LOSSLESS)
    if len(best) <= room:
        return best
    best, low, high = None, 0, round((COARSEST - FINEST) / STEP)
    while low <= high:
        middle = (low + high) // 2
        coded = compress(FINEST + STEP * middle)
        if len(coded) <= room:
            best, high = coded, middle - 1
        else:
            low = middle + 1
    if best is None:
        raise UserError(f"the secret does not fit into {room} bytes at any rate: take a larger cover")
    return best


def embed(cover: np.ndarray, message: bytes, modulus: int) -> np.ndarray:
    """Writes a message into samples.

    Args:
        cover: uint8, any shape whose last three axes are [h, w, 3].
        message: at most `capacity(cover.size, modulus)` bytes.
        modulus: 2 or more.

    Returns:
        The stego, uint8; samples after the end of the message stay as they are.

    Raises:
        ValueError: the message is too long.
    """
    if len(message) > capacity(cover.size, modulus):
        raise ValueError(f"{len(message)} bytes do not fit")
    head = len(message).to_bytes(4, "little") + crc32(message).to_bytes(4, "little")
    digits = to_digits(head + message, modulus)
    filled = np.full(cover.size, -1, np.int32)
    filled[: len(digits)] = digits
    return np.asarray(wrap_into(cover.astype(np.float32), filled, modulus)).astype(np.uint8)


def extract(stego: np.ndarray, modulus: int) -> bytes:
    """The message in uint8 samples.

    Raises:
        UserError: there is none.
    """
    data = from_digits(stego.ravel() % modulus, modulus)
    length, check = (int.from_bytes(data[i : i + 4], "little") for i in (0, 4))
    message = data[8 : 8 + length]
    if not message or crc32(message) != check:
        raise UserError("no message in these samples: the stego was changed, or nothing is hidden in it")
    return message


def hide(cover: np.ndarray, secret: np.ndarray, modulus: int) -> np.ndarray:
    """Codes and embeds a secret: uint8 [t, h, w, 3] and [t, h', w', 3] -> the stego, uint8 [t, h, w, 3]."""
    return embed(cover, compress_to_fit(secret, capacity(cover.size, modulus)), modulus)


def reveal(stego: np.ndarray, modulus: int) -> np.ndarray:
    """The secret of a stego, uint8 [t, h, w, 3] -> [t, h', w', 3].

    Raises:
        UserError: nothing is hidden in it, or it was changed.
    """
    return np.stack(media.decompress(extract(stego, modulus)))
