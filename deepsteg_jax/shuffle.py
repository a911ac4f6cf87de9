"""Keyed shuffle of blocks: a key-derived permutation, gathered inside the compiled graph.

The permutation comes from a ChaCha20 keystream (RFC 8439), not from `jax.random`: all 256 bits of the
key count, and a stego made today opens after any upgrade of JAX. A block shuffle is not encryption; see
docs/SECURITY.md for what it protects, and `cipher` for a stronger transform.
"""

import jax
import jax.numpy as jnp
from jax import lax

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


def keystream(key: jax.Array, frame_index: jax.Array, words: int, purpose: int = 0) -> jax.Array:
    """The first `words` words of the ChaCha20 keystream, uint32 [words] (RFC 8439, section 2.3).

    Args:
        key: uint32 [8], the 256-bit key, little-endian words.
        frame_index: whole number below 2^32; the first word of the nonce.
        words: how many 32-bit words to make.
        purpose: the second word of the nonce; the third is zero.
    """
    blocks = -(-words // 16)
    fill = lambda word: jnp.full(blocks, word, jnp.uint32)  # noqa: E731
    nonce = (jnp.asarray(frame_index, jnp.uint32), purpose, 0)
    start = [fill(w) for w in (*_CONSTANTS, *key)] + [jnp.arange(blocks, dtype=jnp.uint32)]
    start += [fill(w) for w in nonce]

    def double_round(_, state):
        state = list(state)
        for rounds in _COLUMNS_AND_DIAGONALS:
            for quarter in rounds:
                _quarter_round(state, *quarter)
        return tuple(state)

    state = lax.fori_loop(0, 10, double_round, tuple(start))
    return jnp.stack([a + b for a, b in zip(start, state, strict=True)], axis=-1).ravel()[:words]


def permutation(key: jax.Array, frame_index: jax.Array, size: int, purpose: int = 0) -> jax.Array:
    """The permutation of `size` things for one frame: the order of `size` 64-bit keystream words.

    Args:
        key: uint32 [8], 256 bits.
        frame_index: number of the frame.
        size: how many things.
        purpose: keystreams of different purposes are independent.

    Returns:
        int32 [size]: which thing goes to each place.
    """
    low, high = keystream(key, frame_index, 2 * size, purpose).reshape(size, 2).T
    return lax.sort((high, low, jnp.arange(size)), num_keys=2)[2]


def _to_blocks(frame, block_size):
    """[h, w, c] -> [rows * columns, block, block, c] of the largest grid of whole blocks."""
    rows, columns, channels = frame.shape[0] // block_size, frame.shape[1] // block_size, frame.shape[2]
    whole = frame[: rows * block_size, : columns * block_size]
    blocks = whole.reshape(rows, block_size, columns, block_size, channels).swapaxes(1, 2)
    return blocks.reshape(rows * columns, block_size, block_size, channels)


def _from_blocks(blocks, frame):
    """Inverse of `_to_blocks`; what no whole block covers is taken from `frame`."""
    size = blocks.shape[1]
    rows, columns, channels = frame.shape[0] // size, frame.shape[1] // size, frame.shape[2]
    whole = blocks.reshape(rows, columns, size, size, channels).swapaxes(1, 2)
    whole = whole.reshape(rows * size, columns * size, channels)
    return frame.at[: rows * size, : columns * size].set(whole)


def _permute(frames, key, frame_index, block_size, invert):
    def one(frame, index):
        blocks = _to_blocks(frame, block_size)
        order = permutation(key, index, len(blocks))
        return _from_blocks(blocks[jnp.argsort(order) if invert else order], frame)

    return jax.vmap(one)(frames, frame_index + jnp.arange(len(frames)))


def shuffle_blocks(frames: jax.Array, key: jax.Array, frame_index: jax.Array, block_size: int) -> jax.Array:
    """Permutes the blocks of each frame, every frame by its own key-derived permutation.

    Args:
        frames: [t, h, w, c], any dtype. Rows and columns that no whole block covers stay in place.
        key: uint32 [8], 256 bits.
        frame_index: number of the first frame; the others count on from it.
        block_size: pixels.

    Returns:
        The same pixels in another order, [t, h, w, c].
    """
    return _permute(frames, key, frame_index, block_size, invert=False)


def unshuffle_blocks(frames: jax.Array, key: jax.Array, frame_index: jax.Array, block_size: int) -> jax.Array:
    """Exact inverse of `shuffle_blocks`; arguments and shape are the same."""
    return _permute(frames, key, frame_index, block_size, invert=True)
