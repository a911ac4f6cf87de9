"""Embedding costs of quantised DCT coefficients: J-UNIWARD.

Holub, Fridrich and Denemark, "Universal distortion function for steganography in an arbitrary domain",
EURASIP JIS 2014: the sum of the changes of all wavelet coefficients, each relative to the cover's. The effect
of a DCT coefficient on a wavelet coefficient is the product of a vertical and a horizontal factor, so sums
are taken along one axis, then along the other.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np

STABILISER = 2.0**-6
LARGEST = 1023  # magnitude that a coefficient keeps
# Daubechies' wavelet of 8 vanishing moments, high-pass.
_HIGH = np.array(
    [-0.0544158422, 0.3128715909, -0.6756307363, 0.5853546837, 0.0158291053, -0.2840155430, -0.0004724846]
    + [0.1287474266, 0.0173693010, -0.0440882539, -0.0139810279, 0.0087460940, 0.0048703530, -0.0003917404]
    + [-0.0006754494, -0.0001174768]
)
_LOW = _HIGH[::-1] * (-1.0) ** np.arange(16)
_REACH = 15  # wavelet coefficients before a block that it takes part in


@functools.partial(jax.jit, static_argnames="largest")
def changes(plane: jax.Array, steps: jax.Array, largest: int = LARGEST) -> jax.Array:
    """Return the costs of changing each coefficient by -1 and by +1, float32 [rows, columns, 8, 8, 2].

    Args:
      plane: integers [rows, columns, 8, 8], quantised.
      steps: [8, 8], of the quantiser.
      largest: magnitude of a coefficient. Changes beyond it cost infinity.
    """
    cost = costs(plane, steps)
    allowed = jnp.stack([plane > -largest, plane < largest], -1)
    return jnp.where(allowed, cost[..., None], jnp.inf)


def costs(plane: jax.Array, steps: jax.Array) -> jax.Array:
    """Return the cost of changing each coefficient by one, float32 [rows, columns, 8, 8]; see `changes`."""
    rows, columns = plane.shape[:2]
    basis = _basis()
    steps = steps.astype(jnp.float32)
    pixels = jnp.einsum("rcuv,ui,vj->ricj", plane * steps, basis, basis, precision="highest")
    # One more line behind makes whole pieces of 8; the first wavelet coefficients lie before the picture.
    pixels = jnp.pad(pixels.reshape(8 * rows, 8 * columns), (_REACH, _REACH + 1), "symmetric")
    total = 0.0
    for down, across in ((_LOW, _HIGH), (_HIGH, _LOW), (_HIGH, _HIGH)):
        wavelet = _filtered(_filtered(pixels, down, 0), across, 1)
        total += _summed(_summed(1 / (jnp.abs(wavelet) + STABILISER), across, 1, columns), down, 0, rows)
    return total.transpose(0, 2, 1, 3) * steps


def _basis() -> np.ndarray:
    """Return the orthonormal DCT-II, [frequencies, places]."""
    angles = np.pi / 16 * np.arange(8)[:, None] * (2 * np.arange(8) + 1)
    return (np.cos(angles) * np.sqrt(np.where(np.arange(8)[:, None], 2, 1) / 8)).astype(np.float32)


def _filtered(x: jax.Array, taps: np.ndarray, axis: int) -> jax.Array:
    """Correlate along an axis, where all taps find a sample."""
    size = x.shape[axis] - len(taps) + 1
    return sum(jax.lax.slice_in_dim(x, i, i + size, axis=axis) * float(tap) for i, tap in enumerate(taps))


def _summed(x: jax.Array, taps: np.ndarray, axis: int, blocks: int) -> jax.Array:
    """Sum along an axis what a change of each frequency of each block does: [..., blocks, 8] in its place."""
    padded = np.pad(_basis(), ((0, 0), (_REACH, _REACH)))
    effect = np.abs(np.stack([padded[:, i : i + 16] @ taps for i in range(8 + _REACH)]))  # [23, 8]
    effect = np.pad(effect, ((0, 1), (0, 0))).astype(np.float32).reshape(3, 8, 8)
    x = x.reshape(*x.shape[:axis], blocks + 2, 8, *x.shape[axis + 1 :])
    parts = (jax.lax.slice_in_dim(x, i, i + blocks, axis=axis) for i in range(3))
    letters = "bpmn" if axis == 0 else "mbp"
    return sum(
        jnp.einsum(f"{letters},pu->{letters.replace('p', 'u')}", part, effect[i])
        for i, part in enumerate(parts)
    )
