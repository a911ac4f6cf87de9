"""Random numbers that a key decides: ChaCha20 keystreams (RFC 8439) and the permutations sorted by them.

Each comes twice, for JAX inside a compiled graph and for NumPy outside of it, bit for bit the same. They are
not `jax.random` nor `numpy.random`: all 256 bits of the key count, and a stego made today opens after any
upgrade of either.
"""

import jax.numpy as jnp
import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from einops import rearrange
from jax import lax
from jaxtyping import Int32, Int64, UInt8, UInt32

from deepsteg_jax.shapes import Array, Index, Key

_CONSTANTS = (0x61707865, 0x3320646E, 0x79622D32, 0x6B206574)  # "expand 32-byte k"
_COLUMNS_AND_DIAGONALS = (
    ((0, 4, 8, 12), (1, 5, 9, 13), (2, 6, 10, 14), (3, 7, 11, 15)),
    ((0, 5, 10, 15), (1, 6, 11, 12), (2, 7, 8, 13), (3, 4, 9, 14)),
)


def _rotate_left(x, bits):
    return (x << bits) | (x >> (32 - bits))


def _quarter_round(state, a, b, c, d):
    for target, source, mixed, bits in ((a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)):
        state[target] = state[target] + state[source]
        state[mixed] = _rotate_left(state[mixed] ^ state[target], bits)


def keystream(key: Key, frame_index: Index, words: int, purpose: Index = 0) -> UInt32[Array, " {words}"]:
    """Return the first `words` words of the ChaCha20 keystream (RFC 8439, section 2.3).

    Args:
        key: 256 bits.
        frame_index: the first word of the nonce.
        words: number of 32-bit words.
        purpose: the second word of the nonce; the third is zero.
    """
    blocks = -(-words // 16)
    nonce = (jnp.asarray(frame_index, jnp.uint32), purpose, 0)

    def fill(*values):
        return [jnp.full(blocks, value, jnp.uint32) for value in values]

    start = [*fill(*_CONSTANTS, *key), jnp.arange(blocks, dtype=jnp.uint32), *fill(*nonce)]

    def double_round(_, state):
        state = list(state)
        for rounds in _COLUMNS_AND_DIAGONALS:
            for quarter in rounds:
                _quarter_round(state, *quarter)
        return tuple(state)

    state = lax.fori_loop(0, 10, double_round, tuple(start))
    return jnp.stack([a + b for a, b in zip(start, state, strict=True)], axis=-1).ravel()[:words]


def permutation(key: Key, frame_index: Index, size: int, purpose: Index = 0) -> Int32[Array, " {size}"]:
    """Return the permutation of range(size) for one frame: the order of `size` 64-bit keystream words.

    Args:
        key: 256 bits.
        frame_index: number of the frame.
        size: number of things.
        purpose: keystreams of different purposes are independent.

    Returns:
        Which thing goes to each place.
    """
    low, high = rearrange(keystream(key, frame_index, 2 * size, purpose), "(n pair) -> pair n", pair=2)
    return lax.sort((high, low, jnp.arange(size)), num_keys=2)[2]


def numpy_keystream(key: bytes, number: int, count: int) -> UInt8[np.ndarray, " {count}"]:
    """Return the first `count` bytes of the keystream for one number.

    Args:
        key: 32 bytes.
        number: below 2^96, the nonce, little-endian; `keystream` takes it as frame_index + 2^32 purpose.
        count: number of bytes.
    """
    nonce = bytes(4) + number.to_bytes(12, "little")  # the block counter starts at zero
    stream = Cipher(algorithms.ChaCha20(key, nonce), None).encryptor()
    return np.frombuffer(stream.update(bytes(count)), np.uint8)


def numpy_bits(key: bytes, number: int, count: int) -> UInt8[np.ndarray, " {count}"]:
    """Return the first `count` bits of `numpy_keystream`, most significant first."""
    return np.unpackbits(numpy_keystream(key, number, -(-count // 8)))[:count]


def numpy_permutation(key: bytes, number: int, size: int) -> Int64[np.ndarray, " {size}"]:
    """Return `permutation` in NumPy; arguments as for `numpy_keystream`."""
    return np.argsort(numpy_keystream(key, number, 8 * size).view("<u8"), kind="stable")
