"""The digital baseline: bits in low luma frequencies, held over frames, with an error-correcting code.

They lie in the lowest AC coefficients of the 8x8 DCT of luma. Dirty paper as in `models.block_dct`, with a
large modulus D: the mean of a coefficient over `repeat` frames moves to the nearest value that is congruent
to -D/4 or D/4 modulo D, whichever the bit says, and all these frames move alike, since a codec predicts
frames from each other and a change that stays costs it little. The receiver averages again; the distance to
the two values, and the noise as seen over the whole clip, give each bit a probability. The code is that of
`schemes.robust.code`. The key scatters the bits over all coefficients and hides what they say.
"""

import zlib
from typing import NamedTuple

import numpy as np
from einops import rearrange, repeat

from deepsteg_jax.dct import dct_matrix, zigzag
from deepsteg_jax.errors import UserError
from deepsteg_jax.keystream import numpy_keystream
from deepsteg_jax.schemes.robust import code

BLOCK = 8
LUMA = np.array([0.299, 0.587, 0.114])  # BT.601, as codecs take it by default
HEADER = 8  # bytes: length and CRC-32 of the message
BASIS = dct_matrix(BLOCK, dtype=np.float64)


class Settings(NamedTuple):
    """How bits are embedded; both sides must agree. Stego PSNR falls with modulus and coefficients."""

    coefficients: int = 9  # AC coefficients of a block, by rising frequency
    modulus: float = 44.0  # D, grey levels of an orthonormal DCT
    repeat: int = 8  # frames that share the bits
    rate: float = 0.4  # of the code: message bits per embedded bit

    def bits(self, shape: tuple[int, ...]) -> int:
        """Embedded bits of frames [n, h, w, 3]."""
        n, h, w = shape[:3]
        return -(-n // self.repeat) * (h // BLOCK) * (w // BLOCK) * self.coefficients

    def capacity(self, shape: tuple[int, ...]) -> int:
        """Bytes of a message in frames [n, h, w, 3]; negative if not even its header fits."""
        return int(self.bits(shape) * self.rate) // 8 - HEADER


def embed(frames: np.ndarray, key: bytes, message: bytes, settings: Settings) -> np.ndarray:
    """Writes a message.

    Args:
        frames: uint8 [n, h, w, 3]; what 8 does not divide stays as it is, below and to the right.
        key: 32 bytes, for one clip only.
        message: at most `settings.capacity(frames.shape)` bytes.
        settings: how.

    Returns:
        The stego, uint8 [n, h, w, 3].

    Raises:
        UserError: the message is too long.
    """
    capacity = settings.capacity(frames.shape)
    if len(message) > capacity:
        raise UserError(f"{len(message)} bytes do not fit: these frames carry {max(0, capacity)}")
    errors = code.build(settings.bits(frames.shape), 8 * (capacity + HEADER))
    head = len(message).to_bytes(4, "little") + zlib.crc32(message).to_bytes(4, "little")
    data = (head + message).ljust(capacity + HEADER, b"\0")
    mask, order = _secrets(key, len(data), errors.length)
    word = errors.encode(np.unpackbits(np.frombuffer(data, np.uint8) ^ mask))
    bits = np.empty(errors.length, np.uint8)
    bits[order] = word
    return write(frames, bits, settings)


def extract(frames: np.ndarray, key: bytes, settings: Settings) -> bytes:
    """Reads what `embed` wrote, after a codec.

    Raises:
        UserError: there is no message, or too little of it is left.
    """
    capacity = settings.capacity(frames.shape)
    errors = code.build(settings.bits(frames.shape), 8 * (capacity + HEADER))
    mask, order = _secrets(key, capacity + HEADER, errors.length)
    bits = errors.decode(read(frames, settings)[order])
    data = b"" if bits is None else (np.packbits(bits) ^ mask).tobytes()
    length, check = (int.from_bytes(data[i : i + 4], "little") for i in (0, 4))
    message = data[HEADER : HEADER + length]
    if bits is None or len(message) != length or zlib.crc32(message) != check:
        raise UserError("no message is left in these frames, or they need another key")
    return message


def write(frames: np.ndarray, bits: np.ndarray, settings: Settings) -> np.ndarray:
    """Write `settings.bits(frames.shape)` bits, uint8, into frames, uint8 [n, h, w, 3]; return the stego."""
    cover = _coefficients(frames, settings)
    values = settings.modulus * (bits.reshape(cover.shape) / 2 - 1 / 4)
    moved = frames + _pictures(_wrap(values - cover, settings.modulus), frames.shape, settings)[..., None]
    return np.clip(np.round(moved), 0, 255).astype(np.uint8)


def read(frames: np.ndarray, settings: Settings) -> np.ndarray:
    """Return the log-likelihood ratios, flat and positive for 0, of the bits that `write` wrote."""
    found = _wrap(_coefficients(frames, settings), settings.modulus)
    return _likelihoods(found, settings.modulus).ravel()


def phases(frames: np.ndarray, settings: Settings) -> np.ndarray:
    """Return the coefficients that carry bits, in units of D: [groups, rows, columns, coefficients]."""
    return _coefficients(frames, settings) / settings.modulus


# --- coefficients --------------------------------------------------------------------------------


def _frequencies(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Vertical and horizontal frequency of the first coefficients, without DC."""
    return np.divmod(zigzag(BLOCK)[1 : count + 1], BLOCK)


def _coefficients(frames: np.ndarray, settings: Settings) -> np.ndarray:
    """Mean of each coefficient over each group of frames: [groups, rows, columns, coefficients]."""
    n, h, w = frames.shape[:3]
    luma = frames[:, : h // BLOCK * BLOCK, : w // BLOCK * BLOCK] @ LUMA
    means = np.stack([luma[i : i + settings.repeat].mean(0) for i in range(0, n, settings.repeat)])
    blocks = rearrange(means, "g (y i) (x j) -> g y x i j", i=BLOCK, j=BLOCK)  # the DCT is linear
    u, v = _frequencies(settings.coefficients)
    return (BASIS @ blocks @ BASIS.T)[..., u, v]


def _pictures(moves: np.ndarray, shape: tuple[int, ...], settings: Settings) -> np.ndarray:
    """What moves of the coefficients add to every frame's luma: [n, h, w] grey levels."""
    n, h, w = shape[:3]
    u, v = _frequencies(settings.coefficients)
    blocks = np.zeros((*moves.shape[:3], BLOCK, BLOCK))
    blocks[..., u, v] = moves
    pictures = rearrange(BASIS.T @ blocks @ BASIS, "g y x i j -> g (y i) (x j)")
    edges = [(0, 0), *((0, size - inner) for size, inner in zip((h, w), pictures.shape[1:], strict=True))]
    return repeat(np.pad(pictures, edges), "g h w -> (g t) h w", t=settings.repeat)[:n]


def _wrap(x: np.ndarray, modulus: float) -> np.ndarray:
    return x - modulus * np.round(x / modulus)


def _likelihoods(found: np.ndarray, modulus: float) -> np.ndarray:
    """Log-likelihood ratio of each bit, positive for 0, from the noise of its kind of coefficient.

    Both values coincide modulo D/2, so that the noise shows as the spread of the angle 4 pi x / D: of normal
    noise with deviation s the mean of its unit vectors is exp(-8 (pi s / D)^2) long.
    """
    vectors = np.exp(4j * np.pi * found / modulus).mean((0, 1, 2))
    length = np.clip(np.abs(vectors), 1e-4, 1 - 1e-4)
    deviation = modulus / np.pi * np.sqrt(-np.log(length) / 8)
    images = modulus * np.arange(-1, 2)

    def density(centre):
        return np.exp(-(((found[..., None] - centre - images) / deviation[:, None]) ** 2) / 2).sum(-1) + 1e-12

    return np.log(density(-modulus / 4) / density(modulus / 4))


def _secrets(key: bytes, count: int, length: int) -> tuple[np.ndarray, np.ndarray]:
    """`count` bytes of a keystream and a permutation of `length` coefficients."""
    stream = numpy_keystream(key, 0, count + 8 * length)
    return stream[:count], np.argsort(np.frombuffer(stream[count:].tobytes(), "<u8"), kind="stable")
