"""Bits that survive a codec: wrapped into low luma frequencies and held over frames.

The carriers are the lowest AC coefficients of the 8x8 DCT of luma. Dirty paper as in `models.block_dct`, with
a large step D: the mean of a coefficient over `hold` frames moves to the nearest value that is congruent to
-D/4 or D/4 modulo D, whichever the bit says, and all these frames move alike, since a codec predicts frames
from each other and a change that stays costs it little. The receiver averages again; the distance to the two
values, and the noise as seen over the whole clip, give each bit a probability. An error-correcting code of
the irregular repeat-accumulate kind (Jin, Khandekar and McEliece 2000), decoded by belief propagation of the
package ldpc, mends the errors. The key scatters the bits over all carriers and hides what they say.
"""

import zlib
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from ldpc import BpDecoder
from scipy import fft, sparse

from deepsteg_jax.errors import UserError

BLOCK = 8
LUMA = np.array([0.299, 0.587, 0.114])  # BT.601, as codecs take it by default
HEADER = 8  # bytes: length and CRC-32 of the message
REPEATS = 3  # checks that each message bit takes part in
ITERATIONS = 100
MIN_SUM_SCALE = 0.75  # makes up for the optimism of the min-sum rule (Chen and Fossorier 2002)


class Carrier(NamedTuple):
    """How bits are carried; both sides must agree. Stego PSNR falls with step and coefficients."""

    coefficients: int = 9  # AC coefficients of a block, by rising frequency
    step: float = 44.0  # D, grey levels of an orthonormal DCT
    hold: int = 8  # frames
    rate: float = 0.4  # of the code: message bits per carried bit

    def bits(self, shape: tuple[int, ...]) -> int:
        """Carried bits of frames [n, h, w, 3]."""
        n, h, w = shape[:3]
        return -(-n // self.hold) * (h // BLOCK) * (w // BLOCK) * self.coefficients

    def capacity(self, shape: tuple[int, ...]) -> int:
        """Bytes of a message in frames [n, h, w, 3]; negative if not even its header fits."""
        return int(self.bits(shape) * self.rate) // 8 - HEADER


def embed(frames: np.ndarray, key: bytes, message: bytes, carrier: Carrier) -> np.ndarray:
    """Writes a message.

    Args:
        frames: uint8 [n, h, w, 3]; what 8 does not divide stays as it is, below and to the right.
        key: 32 bytes, for one clip only.
        message: at most `carrier.capacity(frames.shape)` bytes.
        carrier: how.

    Returns:
        The stego, uint8 [n, h, w, 3].

    Raises:
        UserError: the message is too long.
    """
    room = carrier.capacity(frames.shape)
    if len(message) > room:
        raise UserError(f"{len(message)} bytes do not fit: these frames carry {max(0, room)}")
    code = _code(carrier.bits(frames.shape), 8 * (room + HEADER))
    head = len(message).to_bytes(4, "little") + zlib.crc32(message).to_bytes(4, "little")
    data = (head + message).ljust(room + HEADER, b"\0")
    mask, order = _secrets(key, len(data), code.length)
    word = code.encode(np.unpackbits(np.frombuffer(data, np.uint8) ^ mask))
    values = np.empty(code.length)
    values[order] = carrier.step * (word / 2 - 1 / 4)
    cover = _coefficients(frames, carrier)
    moves = _wrap(values.reshape(cover.shape) - cover, carrier.step)
    moved = frames + _pictures(moves, frames.shape, carrier)[..., None]
    return np.clip(np.round(moved), 0, 255).astype(np.uint8)


def extract(frames: np.ndarray, key: bytes, carrier: Carrier) -> bytes:
    """Reads what `embed` wrote, after a codec.

    Raises:
        UserError: there is no message, or too little of it is left.
    """
    room = carrier.capacity(frames.shape)
    code = _code(carrier.bits(frames.shape), 8 * (room + HEADER))
    mask, order = _secrets(key, room + HEADER, code.length)
    found = _wrap(_coefficients(frames, carrier), carrier.step)
    ones = _probabilities(found, carrier.step).ravel()[order]
    data = (np.packbits(code.decode(ones)) ^ mask).tobytes()
    length, check = (int.from_bytes(data[i : i + 4], "little") for i in (0, 4))
    message = data[HEADER : HEADER + length]
    if len(message) != length or zlib.crc32(message) != check:
        raise UserError("no message is left in these frames, or they need another key")
    return message


# --- carriers ------------------------------------------------------------------------------------


def _places(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Vertical and horizontal frequency of the carriers, without DC."""
    u, v = np.mgrid[:BLOCK, :BLOCK].reshape(2, -1)
    order = np.lexsort((u, u + v))[1 : count + 1]
    return u[order], v[order]


def _groups(n: int, carrier: Carrier) -> list[slice]:
    return [slice(i, min(i + carrier.hold, n)) for i in range(0, n, carrier.hold)]


def _coefficients(frames: np.ndarray, carrier: Carrier) -> np.ndarray:
    """Mean of each carrier over each group of frames: [groups, rows, columns, coefficients]."""
    n, h, w = frames.shape[:3]
    rows, columns = h // BLOCK, w // BLOCK
    luma = frames[:, : rows * BLOCK, : columns * BLOCK] @ LUMA
    means = np.stack([luma[group].mean(0) for group in _groups(n, carrier)])  # the DCT is linear
    blocks = means.reshape(-1, rows, BLOCK, columns, BLOCK).swapaxes(2, 3)
    u, v = _places(carrier.coefficients)
    return fft.dctn(blocks, axes=(3, 4), norm="ortho")[..., u, v]


def _pictures(moves: np.ndarray, shape: tuple[int, ...], carrier: Carrier) -> np.ndarray:
    """What moves of the carriers add to every frame's luma: [n, h, w] grey levels."""
    n, h, w = shape[:3]
    groups, rows, columns, _ = moves.shape
    blocks = np.zeros((groups, rows, columns, BLOCK, BLOCK))
    u, v = _places(carrier.coefficients)
    blocks[..., u, v] = moves
    pictures = fft.idctn(blocks, axes=(3, 4), norm="ortho").swapaxes(2, 3)
    pictures = pictures.reshape(groups, rows * BLOCK, columns * BLOCK)
    pictures = np.pad(pictures, ((0, 0), (0, h - rows * BLOCK), (0, w - columns * BLOCK)))
    return np.repeat(pictures, carrier.hold, axis=0)[:n]


def _wrap(x: np.ndarray, step: float) -> np.ndarray:
    return x - step * np.round(x / step)


def _probabilities(found: np.ndarray, step: float) -> np.ndarray:
    """Probability that each bit is 1, from the noise of its kind of coefficient.

    Both values coincide modulo D/2, so that the noise shows as the spread of the angle 4 pi x / D: of normal
    noise with deviation s the mean of its unit vectors is exp(-8 (pi s / D)^2) long.
    """
    vectors = np.exp(4j * np.pi * found / step).mean((0, 1, 2))
    length = np.clip(np.abs(vectors), 1e-4, 1 - 1e-4)
    deviation = step / np.pi * np.sqrt(-np.log(length) / 8)
    images = step * np.arange(-1, 2)

    def density(centre):
        return np.exp(-(((found[..., None] - centre - images) / deviation[:, None]) ** 2) / 2).sum(-1) + 1e-12

    zero, one = density(-step / 4), density(step / 4)
    return one / (zero + one)


def _secrets(key: bytes, count: int, length: int) -> tuple[np.ndarray, np.ndarray]:
    """A keystream of `count` bytes and a permutation of `length` carriers."""
    stream = Cipher(algorithms.ChaCha20(key, bytes(16)), None).encryptor()
    mask = np.frombuffer(stream.update(bytes(count)), np.uint8)
    return mask, np.argsort(np.frombuffer(stream.update(bytes(8 * length)), "<u8"), kind="stable")


# --- code ----------------------------------------------------------------------------------------


class _Code(NamedTuple):
    """Message bits, then the running parities of sums of message bits that are chosen at random."""

    sums: sparse.csr_matrix  # uint8 [length - size, size]
    checks: sparse.csr_matrix  # uint8 [length - size, length]

    @property
    def length(self) -> int:
        return self.checks.shape[1]

    def encode(self, message: np.ndarray) -> np.ndarray:
        """uint8 [size] -> uint8 [length]."""
        return np.concatenate([message, np.cumsum(self.sums @ message % 2) % 2]).astype(np.uint8)

    def decode(self, ones: np.ndarray) -> np.ndarray:
        """The likeliest message for the probabilities of a 1, [length] -> uint8 [size]; it may be wrong."""
        hard = (ones > 0.5).astype(np.uint8)
        doubt = np.clip(np.minimum(ones, 1 - ones), 1e-9, 0.4999)
        decoder = BpDecoder(
            self.checks,
            error_channel=doubt.tolist(),
            max_iter=ITERATIONS,
            bp_method="minimum_sum",
            ms_scaling_factor=MIN_SUM_SCALE,
            input_vector_type="syndrome",
        )
        errors = decoder.decode((self.checks @ hard % 2).astype(np.uint8))
        return (hard ^ errors)[: self.sums.shape[1]]


@lru_cache(maxsize=4)
def _code(length: int, size: int) -> _Code:
    """The code of `size` message bits in `length` carried ones; the same on every machine."""
    if not 0 < size < length:
        raise UserError("these frames are too small to carry anything")
    parities = length - size
    draw = np.random.Philox(0)  # unlike shuffles, its raw bits are the same in every version
    passes = -(-size * REPEATS // parities)
    checks = np.concatenate([np.argsort(draw.random_raw(parities), kind="stable") for _ in range(passes)])
    edges = checks[: size * REPEATS], np.repeat(np.arange(size), REPEATS)
    sums = sparse.coo_matrix((np.ones(size * REPEATS, np.uint8), edges), (parities, size)).tocsr()
    sums.data %= 2  # two edges between the same two cancel
    sums.eliminate_zeros()
    chain = sparse.diags([1, 1], [0, -1], (parities, parities), dtype=np.uint8)
    return _Code(sums, sparse.hstack([sums, chain], format="csr"))
