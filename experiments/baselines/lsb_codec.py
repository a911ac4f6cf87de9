"""The baseline without a network: a real video codec, its bytes in the low digits of the samples.

The secret is coded by x264 as finely as the cover has room for: without loss in RGB if that fits, else in
10-bit YCbCr 4:4:4 at the lowest constant rate factor that does. Modulus 2 is least-significant-bit
replacement, 3 is +-1 embedding, 5 takes two levels either way; every sample moves to the nearest value
congruent to its digit, as in `block_dct`. The message is neither encrypted nor scattered, so this measures
quality, not secrecy.
"""

from collections.abc import Iterable, Sequence
from zlib import crc32

import numpy as np

from deepsteg_jax import media
from deepsteg_jax.errors import UserError
from deepsteg_jax.models.block_dct import wrap_into

PLANES = "yuv444p10le"
FINEST, COARSEST, STEP = -11.75, 51.0, 0.25  # constant rate factors; -12 is lossless
CRF_PER_HALVING = 5  # of the size, at high rates
_RGB, _PLANES = b"\0", b"\1"  # first byte of a message: how it is coded
_OFFSET = np.array([0, 512, 512])
_YCBCR = np.array(  # ITU-R BT.709-6, 3.2 and 3.3
    [
        [0.2126, 0.7152, 0.0722],
        [-0.2126 / 1.8556, -0.7152 / 1.8556, 0.5],
        [0.5, -0.7152 / 1.5748, -0.0722 / 1.5748],
    ]
)
_WORD = 64  # bits that are turned into digits at a time


def _options(rate: str) -> dict[str, str]:
    # Psychovisual settings and adaptive quantisation cost PSNR; with AVX-512 bytes differ from run to run.
    return {"preset": "veryslow", "x264-params": f"{rate}:psy=0:aq-mode=0:asm=avx2"}


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


def to_planes(frames: np.ndarray) -> np.ndarray:
    """RGB as Y, Cb, Cr of 10 bits, BT.709 at full range, from which `to_rgb` makes the same RGB again.

    Args:
        frames: uint8 [..., 3].

    Returns:
        uint16 [..., 3] below 1,024.
    """
    return np.clip(np.rint(frames / 255 @ _YCBCR.T * 1023 + _OFFSET), 0, 1023).astype(np.uint16)


def to_rgb(planes: np.ndarray) -> np.ndarray:
    """Invert `to_planes`: uint16 [..., 3] -> uint8 [..., 3]."""
    rgb = (planes - _OFFSET) / 1023 @ np.linalg.inv(_YCBCR).T
    return np.clip(np.rint(255 * rgb), 0, 255).astype(np.uint8)


def compress_losslessly(frames: Iterable[np.ndarray]) -> bytes:
    """Code uint8 frames [h, w, 3] bit for bit."""
    return _RGB + media.compress(frames, "libx264rgb", "rgb24", _options("qp=0"))


def compress(frames: Iterable[np.ndarray], crf: float) -> bytes:
    """Code uint8 frames [h, w, 3] at a constant rate factor of x264, -12 (finest) to 51."""
    planes = (to_planes(frame) for frame in frames)
    return _PLANES + media.compress(planes, "libx264", PLANES, _options(f"crf={crf}"), samples=PLANES)


def decompress(message: bytes) -> np.ndarray:
    """The frames of a message, uint8 [t, h, w, 3].

    Raises:
        UserError: it cannot be decoded.
    """
    if message[:1] == _RGB:
        return np.stack(media.decompress(message[1:]))
    return np.stack([to_rgb(planes) for planes in media.decompress(message[1:], samples=PLANES)])


def compress_to_fit(frames: Sequence[np.ndarray], capacity: int) -> bytes:
    """The finest coding of `frames` of at most `capacity` bytes.

    The rate factor is found by regula falsi, as a size halves with every five or so.

    Raises:
        UserError: not even the coarsest fits.
    """
    best = compress_losslessly(frames)
    if len(best) <= capacity:
        return best
    best, low, high = None, round(FINEST / STEP) - 1, round(COARSEST / STEP) + 1
    tried = {}  # {index of the rate factor: log2 of size to capacity}
    guess = 0
    while high - low > 1:
        coded = compress(frames, STEP * guess)
        tried[guess] = np.log2(len(coded) / capacity)
        if len(coded) <= capacity:
            best, high = coded, guess
        else:
            low = guess
        guess = _next_guess(tried, low, high)
    if best is None:
        raise UserError(f"the secret does not fit into {capacity} bytes at any rate: take a larger cover")
    return best


def _next_guess(tried: dict[int, float], low: int, high: int) -> int:
    if low in tried and high in tried:
        guess = low + (high - low) * tried[low] / (tried[low] - tried[high])
    else:
        nearest = low if low in tried else high
        guess = nearest + CRF_PER_HALVING / STEP * tried[nearest]
    return int(np.clip(round(guess), low + 1, high - 1))


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
    return decompress(extract(stego, modulus))
