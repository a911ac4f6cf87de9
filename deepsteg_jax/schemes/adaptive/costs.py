"""Embedding costs: the price of changing a sample by -1 or +1, high where the change is easy to notice."""

from __future__ import annotations

import jax
import jax.numpy as jnp

SMOOTHED, SPREAD = 3, 15  # sides of HILL's two mean filters
FLAT = 0.02  # residual taken for none, below the least other one (1/9), so that costs stay finite


def hill(plane: jax.Array) -> jax.Array:
    """Return the HILL cost of each sample, float32 [h, w], finite and positive.

    Li, Wang, Huang and Li, "A new cost function for spatial image steganography", ICIP 2014: the reciprocal
    of the mean of the Ker-Boehme residual, averaged in turn. Edges are mirrored.

    Args:
      plane: integers [h, w] of any depth, in their own units; h and w at least 8.
    """
    padded = jnp.pad(plane.astype(jnp.float32), 1, "symmetric")
    # The Ker-Boehme filter is (1, -2, 1) along one axis, then along the other.
    bent = padded[:-2] - 2 * padded[1:-1] + padded[2:]
    residual = jnp.abs(bent[:, :-2] - 2 * bent[:, 1:-1] + bent[:, 2:])
    return _mean(1 / jnp.maximum(_mean(residual, SMOOTHED), FLAT), SPREAD)


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
) -> jax.Array:
    """Return the costs of changing each sample by -1 and by +1, float32 [h, w, 2].

    Args:
      plane: integers [h, w] from 0 to `highest`, one plane of a frame.
      neighbours: the same plane of the frame before and of the next one, where there are such.
      highest: largest value of a sample, 1023 for 10 bits. Changes that leave the range cost infinity.
      weight: factor of the whole plane, such as chroma's.
      still: factor of samples that stand still, whose change shows in a difference of frames.
      near: difference up to which a sample stands still.
    """
    cost = weight * hill(plane) * jnp.where(standing_still(plane, neighbours, near), still, 1.0)
    return jnp.stack([jnp.where(plane > 0, cost, jnp.inf), jnp.where(plane < highest, cost, jnp.inf)], -1)


def _mean(x: jax.Array, side: int) -> jax.Array:
    """Average over squares, with mirrored edges."""
    h, w = x.shape
    x = jnp.pad(x, side // 2, "symmetric")
    x = sum(x[i : i + h] for i in range(side))
    return sum(x[:, i : i + w] for i in range(side)) / side**2
