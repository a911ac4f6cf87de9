"""Companded quantisers of a Laplace density for pairs of coefficients, which `block_dct` writes in digits."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from deepsteg_jax.shapes import Array

SCALE_STEPS = 8  # scales and water levels are whole numbers of 1/8 octave
MAX_LEVELS = 8192  # per coefficient; finer than any 8-bit secret needs


class Quantiser(NamedTuple):
    """Tables of the companded quantisers for a modulus D, indexed by the digits n of a pair."""

    modulus: int  # D: digits lie in [0, D)
    powers: np.ndarray  # [n] modulus**n
    levels: np.ndarray  # [n] levels per coefficient
    centroids: np.ndarray  # [sum(levels)] reconstruction points in units of the Laplace width
    offsets: np.ndarray  # [n] where each quantiser's centroids begin
    rms: np.ndarray  # [n] root mean squared error of one coefficient
    edges: np.ndarray  # [n] where the outermost cell begins
    reach: np.ndarray  # [n] the outermost centroid
    thresholds: np.ndarray  # [n - 1] least (scale - water level), in scale steps, that earns digit n


def _laplace_cell(lower, upper):
    """Return mass, centroid and squared error of [lower, upper) under exp(-x), x >= 0 (closed forms)."""
    finite = np.where(np.isinf(upper), 0.0, upper)
    below, above = np.exp(-lower), np.where(np.isinf(upper), 0.0, np.exp(-finite))
    mass = below - above
    mean = ((lower + 1) * below - (finite + 1) * above) / mass
    second = (lower**2 + 2 * lower + 2) * below - (finite**2 + 2 * finite + 2) * above
    return mass, mean, second - mass * mean**2


def _laplace_quantiser(count: int):
    """Return centroids [count] and mean squared error of `count` companded levels, Laplace width 1."""
    u = np.arange(count // 2, count + 1) / count * 2 - 1
    u[0] = max(u[0], 0.0)  # of an odd count, half of the middle cell
    edges = np.append(-3 * np.log1p(-u[:-1]), np.inf)
    mass, mean, error = _laplace_cell(edges[:-1], edges[1:])
    odd = count % 2
    if odd:
        error[0] += mass[0] * mean[0] ** 2
        mean[0] = 0.0
    return np.concatenate([-mean[odd:][::-1], mean]), error.sum()


def _hull_gains(errors: np.ndarray) -> np.ndarray:
    """Return the error saved per digit along the lower convex hull of errors[n]; equal in a hull segment."""
    gains, n = [], 0
    while n < len(errors) - 1:
        slopes = (errors[n] - errors[n + 1 :]) / np.arange(1, len(errors) - n)
        best = int(np.argmax(slopes))
        gains += [slopes[best]] * (best + 1)
        n += best + 1
    return np.array(gains)


def make_quantiser(modulus: int) -> Quantiser:
    """Build the quantiser tables for digits in [0, modulus).

    The compander u(x) = sign(x) (1 - exp(-|x| / 3)) has the optimal point density f^(1/3) of a Laplace
    density f of width 1 (Bennett 1948).
    """
    levels = [1]
    while levels[-1] < MAX_LEVELS:
        levels.append(int(np.sqrt(float(modulus) ** len(levels)) + 1e-9))
    centroids, errors = zip(*map(_laplace_quantiser, levels), strict=True)
    gains = _hull_gains(2 * np.array(errors))
    return Quantiser(
        modulus=modulus,
        powers=modulus ** np.arange(len(levels), dtype=np.int32),
        levels=np.array(levels, np.int32),
        centroids=np.concatenate(centroids).astype(np.float32),
        offsets=np.cumsum([0, *levels[:-1]]).astype(np.int32),
        rms=np.sqrt(np.array(errors, np.float32)),
        edges=np.array([max(c[-1] - 1, 0) for c in centroids], np.float32),  # an exponential tail's mean
        reach=np.array([c[-1] for c in centroids], np.float32),
        thresholds=np.ceil(-0.5 * np.log2(gains) * SCALE_STEPS).astype(np.int32),
    )


def width(scales: Int[Array, "*n"] | int) -> Float[Array, "*n"]:
    """Turn a Laplace width in whole scale steps into grey levels."""
    return jnp.exp2(scales / SCALE_STEPS)
