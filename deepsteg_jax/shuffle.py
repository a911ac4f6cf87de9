"""Keyed shuffle of blocks: a key-derived permutation, gathered inside the compiled graph.

A block shuffle is not encryption; see docs/SECURITY.md for what it protects, and `cipher` for a stronger
transform.
"""

import jax
import jax.numpy as jnp
from einops import rearrange
from jaxtyping import Shaped

from deepsteg_jax.keystream import permutation
from deepsteg_jax.shapes import Array, Index, Key


def _permute_blocks(frame, key, frame_index, size, invert):
    """Permute the whole blocks of one frame [h, w, c]; the rest stays."""
    rows, columns = frame.shape[0] // size, frame.shape[1] // size
    whole = frame[: rows * size, : columns * size]
    blocks = rearrange(whole, "(y i) (x j) c -> (y x) i j c", i=size, j=size)
    order = permutation(key, frame_index, len(blocks))
    blocks = blocks[jnp.argsort(order) if invert else order]
    whole = rearrange(blocks, "(y x) i j c -> (y i) (x j) c", y=rows, x=columns)
    return frame.at[: rows * size, : columns * size].set(whole)


def _permute(frames, key, frame_index, block_size, invert):
    def one(frame, index):
        return _permute_blocks(frame, key, index, block_size, invert)

    return jax.vmap(one)(frames, frame_index + jnp.arange(len(frames)))


def shuffle_blocks(
    frames: Shaped[Array, "t h w c"], key: Key, frame_index: Index, block_size: int
) -> Shaped[Array, "t h w c"]:
    """Permute the blocks of each frame, every frame by its own key-derived permutation.

    Args:
        frames: any dtype. Rows and columns that no whole block covers stay in place.
        key: 256 bits.
        frame_index: number of the first frame; the others count on from it.
        block_size: pixels.

    Returns:
        The same pixels in another order.
    """
    return _permute(frames, key, frame_index, block_size, invert=False)


def unshuffle_blocks(
    frames: Shaped[Array, "t h w c"], key: Key, frame_index: Index, block_size: int
) -> Shaped[Array, "t h w c"]:
    """Invert `shuffle_blocks` exactly; arguments and shape are the same."""
    return _permute(frames, key, frame_index, block_size, invert=True)
