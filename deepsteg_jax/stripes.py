"""Work on parts of a frame, one after the other, inside a compiled graph: memory does not grow with it."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
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


def map_batch(function: Callable, *batch: jax.Array) -> Any:
    """Apply a function to all examples at once, as `jax.vmap`; one alone is spared batched gathers."""
    if len(batch[0]) > 1:
        return jax.vmap(function)(*batch)
    return jax.tree.map(lambda x: x[None], function(*(x[0] for x in batch)))
