"""Random numbers that a key decides: ChaCha20 keystreams (RFC 8439) and the permutations sorted by them.

Each comes twice, for JAX inside a compiled graph and for NumPy outside of it, bit for bit the same. They are
not `jax.random` nor `numpy.random`: all 256 bits of the key count, and a stego made today opens after any
upgrade of either.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from einops import rearrange
from jax import lax
from jaxtyping import Int32, Int64, UInt8, UInt32

from deepsteg_jax.shapes import Array, Index, Key

_CONSTANTS = (0x61707865, 0x3320646E, 0x79622D32, 0x6B206574)  # "expand 32-byte k"


def _rotate_left(x, bits):
    return (x << bits) | (x >> (32 - bits))


def _quarter_rounds(a, b, c, d):
    """Mix each of the four columns whose rows these are."""
    for bits_of_d, bits_of_b in ((16, 12), (8, 7)):
        a = a + b
        d = _rotate_left(d ^ a, bits_of_d)
        c = c + d
        b = _rotate_left(b ^ c, bits_of_b)
    return a, b, c, d


def _turn(row, places):
    return jnp.concatenate([row[places:], row[:places]])


@partial(jax.jit, static_argnames="words")  # traced once, however often it is called
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

    def row(*values):  # four words of every block
        return jnp.stack([jnp.full(blocks, value, jnp.uint32) for value in values])

    start = (
        row(*_CONSTANTS),
        row(*key[:4]),
        row(*key[4:]),
        jnp.concatenate([jnp.arange(blocks, dtype=jnp.uint32)[None], row(*nonce)]),
    )

    def double_round(_, rows):
        for places in (1, 3):  # the columns, then the diagonals, which become columns and turn back
            a, b, c, d = _quarter_rounds(*rows)
            rows = a, _turn(b, places), _turn(c, 2), _turn(d, 4 - places)
        return rows

    rows = lax.fori_loop(0, 10, double_round, start)
    mixed = [word for a, b in zip(start, rows, strict=True) for word in a + b]
    return jnp.stack(mixed, axis=-1).ravel()[:words]


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
