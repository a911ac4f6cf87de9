"""Work on parts of a frame, one after the other, inside a compiled graph: memory does not grow with it."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Shaped

from deepsteg_jax.shapes import Array


def divisor(count: int, most: int) -> int:
    """Return the largest divisor of `count` that is at most `most`; 1 if `most` is less."""
    return max(n for n in range(1, count + 1) if count % n == 0 and n <= max(1, most))


def to_stripes(cells: Shaped[Array, "t n ..."], count: int) -> Shaped[Array, "{count} t n/{count} ..."]:
    """Cut what lies in each frame into stripes."""
    return jnp.moveaxis(cells.reshape(len(cells), count, -1, *cells.shape[2:]), 1, 0)


def from_stripes(stripes: Shaped[Array, "s t m ..."]) -> Shaped[Array, "t s*m ..."]:
    """Invert `to_stripes`."""
    cells = jnp.moveaxis(stripes, 0, 1)
    return cells.reshape(len(cells), -1, *cells.shape[3:])


def map_stripes(function: Callable, stripes: Any) -> Any:
    """Apply a function to each stripe, one after the other, as `lax.map`; a single one needs no loop.

    Args:
        function: of one stripe, a pytree of arrays or one array.
        stripes: the same with a first axis more.
    """
    if len(jax.tree.leaves(stripes)[0]) > 1:
        return lax.map(function, stripes)
    return jax.tree.map(lambda x: x[None], function(jax.tree.map(lambda x: x[0], stripes)))


def map_parts(function: Callable, *cells: jax.Array) -> Any:
    """Apply a function of cells [n, ...] to some of them at a time, one part after the other.

    XLA keeps what a loop makes; else it would compute it anew wherever it is used, element by element.
    """
    parts = divisor(len(cells[0]), 8)
    split = tuple(x.reshape(parts, -1, *x.shape[1:]) for x in cells)
    made = map_stripes(lambda part: function(*part), split)
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), made)


def map_batch(function: Callable, *batch: jax.Array) -> Any:
    """Apply a function to all examples at once, as `jax.vmap`; one alone is spared batched gathers."""
    if len(batch[0]) > 1:
        return jax.vmap(function)(*batch)
    return jax.tree.map(lambda x: x[None], function(*(x[0] for x in batch)))


def map_tiles(function: Callable, tile: int, overlap: int, *frames: jax.Array) -> jax.Array:
    """Apply a function of frames, one tile after the other, as if to the whole.

    Windows touch the frames' own borders, so that padding there is that of the whole.

    Args:
        function: of frames [n, h, w, *] to one [n, h, w, c].
        tile: pixels of a side that are kept of each window; a frame of not many more is one window.
        overlap: pixels that a result depends on, in each direction.
        frames: of one size.
    """
    size = frames[0].shape[1:3]
    sides = [min(n, tile + 2 * overlap) for n in size]
    if sides == list(size):
        return function(*frames)
    kept = [min(n, tile) for n in size]
    starts = [np.minimum(np.arange(0, n, k), n - k) for n, k in zip(size, kept, strict=True)]
    cores = np.stack(np.meshgrid(*starts, indexing="ij"), -1).reshape(-1, 2).astype(np.int32)
    windows = np.clip(cores - overlap, 0, np.subtract(size, sides)).astype(np.int32)

    def work(whole, at):
        core, window = at
        shapes = [(len(x), *sides, x.shape[3]) for x in frames]
        parts = [lax.dynamic_slice(x, (0, *window, 0), s) for x, s in zip(frames, shapes, strict=True)]
        done = function(*parts)
        done = lax.dynamic_slice(done, (0, *(core - window), 0), (len(done), *kept, done.shape[3]))
        return lax.dynamic_update_slice(whole, done, (0, *core, 0)), None

    made = jax.eval_shape(function, *frames)
    return lax.scan(work, jnp.zeros(made.shape, made.dtype), (cores, windows))[0]
