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
from deepsteg_jax.stripes import divisor, map_stripes

BLOCK = 8
ROUNDS = 6  # rotations of the rows, then of the columns, and so on
STRIPE_SAMPLES = 2**14  # moved at once: their indices stay in a core's cache
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
    turns = _turns(key, frame_index, rows, columns, grids)
    return jax.vmap(lambda *turns: _sources(*turns, jnp.arange(rows), invert).ravel())(*turns)


def _turns(key, frame_index, rows: int, columns: int, grids: int) -> tuple[jax.Array, jax.Array]:
    """Draw the offsets of `rotations`, [grids, n, rows] and [grids, n, columns]."""
    words = keystream(key, frame_index, grids * (ROUNDS // 2) * (rows + columns), _OFFSETS)
    words = words.reshape(grids, ROUNDS // 2, rows + columns)
    return (words[..., :rows] % columns).astype(jnp.int32), (words[..., rows:] % rows).astype(jnp.int32)


def _sources(row_turns, column_turns, some, invert: bool) -> jax.Array:
    """Return where the samples of some rows of a grid are taken from, int32 [some, columns]."""
    columns = column_turns.shape[1]
    row, column = jnp.broadcast_arrays(some[:, None], jnp.arange(columns))

    def rotate_both(i, index):
        turns = [t[::-1][i][None] if invert else t[i][None] for t in (row_turns, column_turns)]
        return rotations(*index, *turns, invert)

    # A loop, since XLA would otherwise compute all of this anew for every sample that is gathered.
    from_row, from_column = lax.fori_loop(0, ROUNDS // 2, rotate_both, (row, column))
    return from_row * columns + from_column


@partial(jax.jit, static_argnames=("count", "purpose"))
def _coins(key, frame_index, count: int, purpose: int) -> jax.Array:
    """Draw `count` random bits."""
    words = keystream(key, frame_index, -(-count // 32), purpose)
    return (words[:, None] >> jnp.arange(32, dtype=jnp.uint32) & 1).astype(bool).ravel()[:count]


# --- samples of a cover --------------------------------------------------------------------------


def _samples(frame, key, frame_index, invert):
    h, w, c = frame.shape
    flat, size, top = frame.ravel(), w * c, 255 if frame.dtype == jnp.uint8 else 1
    (row_turns,), (column_turns,) = _turns(key, frame_index, h, size, grids=1)
    words = keystream(key, frame_index, -(-frame.size // 32), _SIGNS)

    def rows(some):
        sources = _sources(row_turns, column_turns, some, invert)
        places = sources if invert else some[:, None] * size + jnp.arange(size)
        coins = words.at[places >> 5].get(mode="promise_in_bounds") >> (places & 31).astype(jnp.uint32) & 1
        moved = flat.at[sources].get(mode="promise_in_bounds")
        return jnp.where(coins == 1, top - moved, moved)

    return map_stripes(rows, jnp.arange(h).reshape(-1, divisor(h, STRIPE_SAMPLES // size))).reshape(h, w, c)


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
    planes = to_blocks(whole, BLOCK).reshape(rows * columns, -1).T
    indices = scatter(key, frame_index, rows, columns, len(planes), invert)
    signs = 1 - 2 * _coins(key, frame_index, planes.size, _SIGNS).reshape(planes.shape).astype(planes.dtype)
    if invert:
        planes = jnp.take_along_axis(planes * signs, indices, axis=1)
    else:
        planes = jnp.take_along_axis(planes, indices, axis=1) * signs
    whole = from_blocks(planes.T.reshape(1, rows, columns, -1), BLOCK)[0]
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
