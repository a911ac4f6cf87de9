"""Embedding costs: the price of changing a sample by -1 or +1, high where the change is easy to notice."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from deepsteg_jax.models.embedding_costs import hill, learned


def standing_still(plane: jax.Array, neighbours: tuple[jax.Array, ...], near: int = 0) -> jax.Array:
    """Return where samples [h, w] differ by at most `near` from all neighbours, the frames beside it."""
    still = jnp.full(plane.shape, bool(neighbours))
    for neighbour in neighbours:
        still &= jnp.abs(plane.astype(jnp.int32) - neighbour.astype(jnp.int32)) <= near
    return still


def changes(
    plane: jax.Array,
    neighbours: tuple[jax.Array, ...] = (),
    *,
    highest: int = 255,
    weight: float = 1.0,
    still: float = 1.0,
    near: int = 0,
    params: Any = None,
) -> jax.Array:
    """Return the costs of changing each sample by -1 and by +1, float32 [h, w, 2].

    Args:
      plane: integers [h, w] from 0 to `highest`, one plane of a frame.
      neighbours: the same plane of the frame before and of the next one, where there are such.
      highest: largest value of a sample, 1023 for 10 bits. Changes that leave the range cost infinity.
      weight: factor of the whole plane, such as chroma's.
      still: factor of samples that stand still, whose change shows in a difference of frames.
      near: difference up to which a sample stands still.
      params: of `learned`; None: HILL.
    """
    price = hill(plane) if params is None else learned(params, plane, highest)
    cost = weight * price * jnp.where(standing_still(plane, neighbours, near), still, 1.0)
    return jnp.stack([jnp.where(plane > 0, cost, jnp.inf), jnp.where(plane < highest, cost, jnp.inf)], -1)
