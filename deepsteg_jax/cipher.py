"""Keyed permutation and sign flips of single coefficients or samples: nothing is left for a jigsaw solver.

Two forms of the cipher "coefficients", each with its exact inverse, for the two things a key can move:

- `encipher_coefficients` works on a secret before it is hidden: every block-DCT coefficient goes to the
  same frequency of another block, each frequency by a permutation of its own, and a coin turns its sign.
  Each frequency keeps its distribution over the frame.
- `encipher_samples` works on a cover, whose samples are to carry the digits of the coefficients: every
  sample goes anywhere in its frame, and a coin turns it over, x -> 1 - x. 8-bit samples stay 8-bit, and
  uint8 frames uint8, x -> 255 - x.

The permutations are generalised Feistel networks (Black and Rogaway, "Ciphers with arbitrary finite
domains", 2002): rows and columns of a grid rotate in turn, each by an offset from the ChaCha20
keystream. That needs no sorting and its inverse runs the rounds backwards.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Float, Int32, Num

from deepsteg_jax.dct import from_blocks, to_blocks
from deepsteg_jax.keystream import keystream, permutation
from deepsteg_jax.shapes import Array, Index, Key
from deepsteg_jax.single_task import single_task
from deepsteg_jax.stripes import map_stripes

BLOCK = 8
ROUNDS = 6  # rotations of the rows, then of the columns, and so on
HEADROOM = 0.5  # an enciphered secret is scaled by this about mid-grey: 4 sigma of it fit into [0, 1]
_OFFSETS, _SIGNS, _MARGIN, _MARGIN_SIGNS = 1, 2, 3, 4  # purposes of keystreams; 0 is the block shuffle


def rotations(row, column, row_turns, column_turns, invert=False):
    """Move the samples of a grid by rotating its rows and columns in turn.

    Args:
        row: whole numbers, the samples' rows; any shape.
        column: their columns, same shape.
        row_turns: [n, rows], the offset of each row each time, below the number of columns.
        column_turns: [n, columns], the offset of each column, below the number of rows.
        invert: run backwards.

    Returns:
        (row, column) afterwards. Works on NumPy and JAX arrays alike.
    """

    def rotate(position, turn, size):
        moved = position - turn if invert else position + turn
        return moved + size * (moved < 0) - size * (moved >= size)

    rows, columns = row_turns.shape[1], column_turns.shape[1]
    for step in range(2 * len(row_turns))[:: -1 if invert else 1]:
        if step % 2 == 0:
            column = rotate(column, row_turns[step // 2][row], columns)
        else:
            row = rotate(row, column_turns[step // 2][column], rows)
    return row, column


@partial(jax.jit, static_argnames=("rows", "columns", "grids", "invert"))
def scatter(
    key: Key, frame_index: Index, rows: int, columns: int, grids: int = 1, invert: bool = False
) -> Int32[Array, " {grids} {rows*columns}"]:
    """Permute the samples of a grid, by key and frame.

    Args:
        key: 256 bits.
        frame_index: number of the frame.
        rows: of the grid.
        columns: of the grid.
        grids: number of permutations, all independent.
        invert: the inverse permutations instead.

    Returns:
        For each sample, row by row, the index of the one that it is taken from.
    """
    indices = jnp.arange(rows * columns, dtype=jnp.int32).reshape(rows, columns)
    turns = _turns(key, frame_index, rows, columns, grids)
    return _rotate(jnp.broadcast_to(indices, (grids, rows, columns)), turns, invert).reshape(grids, -1)


def _turns(key, frame_index, rows: int, columns: int, grids: int) -> tuple[jax.Array, jax.Array]:
    """Draw the offsets of `rotations`, [grids, n, rows] and [grids, n, columns]."""
    words = keystream(key, frame_index, grids * (ROUNDS // 2) * (rows + columns), _OFFSETS)
    words = words.reshape(grids, ROUNDS // 2, rows + columns)
    return (words[..., :rows] % columns).astype(jnp.int32), (words[..., rows:] % rows).astype(jnp.int32)


def _rotate(grids, turns, invert: bool) -> jax.Array:
    """Take the samples of grids [n, rows, columns] from where `rotations` says."""

    def roll_columns(grids, turns):
        return _roll(grids.swapaxes(1, 2), turns).swapaxes(1, 2)

    def roll_both(grids, turns):
        rows, columns = turns
        if invert:
            return roll_columns(_roll(grids, -rows), -columns), None
        return _roll(roll_columns(grids, columns), rows), None

    steps = [turn.swapaxes(0, 1) for turn in turns]
    return lax.scan(roll_both, grids, steps, reverse=not invert)[0]


def _roll(grids, turns) -> jax.Array:
    """Move the samples of each row [n, rows] to the left by its turn, to the right if that is negative."""
    size = grids.shape[-1]
    rows, turns = grids.reshape(-1, size), turns.ravel()

    def cut(row):
        return lax.dynamic_slice(row[0], (row[1],), (size,))

    # CPUs copy a row at a time, several times as fast as they gather samples.
    twice = jnp.concatenate([rows, rows], axis=1), turns + size * (turns < 0)
    rolled = lax.platform_dependent(twice, cpu=single_task(partial(lax.map, cut)), default=jax.vmap(cut))
    return rolled.reshape(grids.shape)


@partial(jax.jit, static_argnames=("count", "purpose"))
def _coins(key, frame_index, count: int, purpose: int) -> jax.Array:
    """Draw `count` random bits."""
    words = keystream(key, frame_index, -(-count // 32), purpose)
    return (words[:, None] >> jnp.arange(32, dtype=jnp.uint32) & 1).astype(bool).ravel()[:count]


# --- samples of a cover --------------------------------------------------------------------------


def _samples(frame, key, frame_index, invert):
    h, w, c = frame.shape
    grid, top = frame.reshape(1, h, w * c), 255 if frame.dtype == jnp.uint8 else 1
    coins = _coins(key, frame_index, frame.size, _SIGNS).reshape(grid.shape)
    turns = _turns(key, frame_index, h, w * c, grids=1)
    grid = jnp.where(coins, top - grid, grid) if invert else _rotate(grid, turns, invert)
    grid = _rotate(grid, turns, invert) if invert else jnp.where(coins, top - grid, grid)
    return grid.reshape(frame.shape)


def encipher_samples(frames: Num[Array, "t h w c"], key: Key, frame_index: Index) -> Num[Array, "t h w c"]:
    """Scatter the samples of each frame over the frame and invert half of them.

    Args:
        frames: in [0, 1], or uint8.
        key: 256 bits.
        frame_index: number of the first frame; the others count on from it.

    Returns:
        The enciphered frames, same range.
    """
    return _each_frame(_samples, frames, key, frame_index, invert=False)


def decipher_samples(frames: Num[Array, "t h w c"], key: Key, frame_index: Index) -> Num[Array, "t h w c"]:
    """Invert `encipher_samples`, exactly for 8-bit samples; arguments and range are the same."""
    return _each_frame(_samples, frames, key, frame_index, invert=True)


# --- coefficients of a secret --------------------------------------------------------------------


def _coefficients(frame, key, frame_index, invert):
    rows, columns = frame.shape[0] // BLOCK, frame.shape[1] // BLOCK
    whole = frame[None, : rows * BLOCK, : columns * BLOCK]
    planes = jnp.moveaxis(to_blocks(whole, BLOCK)[0], -1, 0)
    turns = _turns(key, frame_index, rows, columns, len(planes))
    signs = 1 - 2 * _coins(key, frame_index, planes.size, _SIGNS).reshape(planes.shape).astype(planes.dtype)
    planes = _rotate(planes * signs, turns, invert) if invert else _rotate(planes, turns, invert) * signs
    whole = from_blocks(jnp.moveaxis(planes, 0, -1)[None], BLOCK)[0]
    return frame.at[: rows * BLOCK, : columns * BLOCK].set(whole)


def _margin(frame, key, frame_index, invert):
    """Permute and flip the samples that no whole block covers."""
    h, w, _ = frame.shape
    outside = np.ones(frame.shape, bool)
    outside[: h // BLOCK * BLOCK, : w // BLOCK * BLOCK] = False
    indices = np.flatnonzero(outside)
    if not indices.size:
        return frame
    samples, order = frame.ravel()[indices], permutation(key, frame_index, len(indices), _MARGIN)
    signs = 1 - 2 * _coins(key, frame_index, len(indices), _MARGIN_SIGNS).astype(frame.dtype)
    samples = (samples * signs)[jnp.argsort(order)] if invert else samples[order] * signs
    return frame.ravel().at[indices].set(samples).reshape(frame.shape)


def _secret(frame, key, frame_index, invert):
    before, after = (1, 1 / HEADROOM) if invert else (HEADROOM, 1)
    frame = _coefficients((frame - 0.5) * before, key, frame_index, invert)
    return _margin(frame, key, frame_index, invert) * after + 0.5


def encipher_coefficients(
    frames: Float[Array, "t h w 3"], key: Key, frame_index: Index
) -> Float[Array, "t h w 3"]:
    """Permute the block-DCT coefficients of each frame, frequency by frequency, and flip their signs.

    Args:
        frames: in [0, 1]; samples that no whole block covers are permuted by themselves.
        key: 256 bits.
        frame_index: number of the first frame; the others count on from it.

    Returns:
        The enciphered frames at half the contrast; now and then outside of [0, 1].
    """
    return _each_frame(_secret, frames, key, frame_index, invert=False)


def decipher_coefficients(
    frames: Float[Array, "t h w 3"], key: Key, frame_index: Index
) -> Float[Array, "t h w 3"]:
    """Invert `encipher_coefficients`, up to rounding of floats."""
    return _each_frame(_secret, frames, key, frame_index, invert=True)


def _each_frame(one, frames, key, frame_index, invert):
    indices = frame_index + jnp.arange(len(frames))
    return map_stripes(lambda frame: one(frame[0], key, frame[1], invert), (frames, indices))
