"""Uniform quantisers of Laplace densities with a dead zone, whose indices `block_dct` entropy codes."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Float, Int, Int32

from deepsteg_jax.models.rans import TOTAL, Coder, make_coder
from deepsteg_jax.shapes import Array

SCALE_STEPS = 8  # scales are whole numbers of 1/8 octave
LEVEL_STEPS = 64  # water levels of 1/64
LOWEST, HIGHEST = -32, 112  # excess of a scale over the water level, scale steps; outside is taken as these
ROUNDING = 0.33  # a magnitude is rounded up from this far above a whole number less one: 1/2 has no dead zone
ZERO = 63  # the symbol of 0; symbols reach as far to both sides
_WIDEST = 5.0  # Laplace width of a symbol's density; wider ones leave their lowest digits plain
_REACH, _LEAST_REACH, _MOST_REACH = 10.0, 3, 28  # beyond as many widths symbols are a quarter of an octave
_TAIL = 35  # such symbols to each side
EXACT_TAIL = 8  # magnitudes beyond reach that still have symbols of their own
ERROR_PER_BIT = 2 * np.log(2) / 12  # squared error that a bit saves a coefficient, in steps (high rate)


class Quantiser(NamedTuple):
    """Tables for a modulus D; those of `[e]` are indexed by the excess - LOWEST."""

    modulus: int  # D: digits lie in [0, D)
    plain: np.ndarray  # [e] lowest digits of an index that are not entropy coded
    scales: np.ndarray  # [e] modulus**plain
    rows: np.ndarray  # [e] the coder's distribution of the rest
    reach: np.ndarray  # [e] largest magnitude of the rest with a symbol of its own
    shifts: np.ndarray  # [e] from a magnitude to its centroid, in steps of the quantiser
    rms: np.ndarray  # [e] root mean squared error of a coefficient, in steps
    bits: np.ndarray  # [e, 3] of a 0, of another index beyond that, of each unit of its magnitude
    coder: Coder


def _distribution(width: float) -> tuple[np.ndarray, float]:
    """Return the frequencies of the symbols of a Laplace density, at least 1, and the bits lost by them."""
    reach, edge = _reach(width), 1 - ROUNDING
    count = reach + _TAIL  # of symbols to a side
    starts = np.append(np.arange(1, reach + 1), reach + _tail_start(np.arange(1, _TAIL + 2)))
    outside = -np.diff(np.exp(-(starts - 1 + edge) / width)) / 2
    mass = np.concatenate([outside[::-1], [-np.expm1(-edge / width)], outside])
    found = 1 + np.floor(mass / mass.sum() * (TOTAL - len(mass))).astype(np.int32)
    found[count] += TOTAL - found.sum()
    lost = np.sum(mass * np.log2(np.maximum(mass, 1e-99) * TOTAL / found))
    return np.pad(found, ZERO - count), lost


def _reach(width: float) -> int:
    return int(min(max(_LEAST_REACH, np.ceil(_REACH * width)), _MOST_REACH))


def _tail_start(number: Array) -> Array:
    """Return how far beyond reach a symbol of the tail begins: 1 to 8 one by one, then 4 an octave."""
    octave = (number - 4) // 4 * (number >= 8)
    return (number - 4 * octave) << octave


def to_symbols(index: Int[Array, "*n"], reach: Int[Array, "*n"]) -> Int[Array, "*n"]:
    """Return the symbols of signed indices: their own as far as `reach`, then those of the tail."""
    size = jnp.abs(index)
    beyond = jnp.maximum(size - reach, 0)
    octave = jnp.maximum(29 - lax.clz(beyond), 0)
    tail = jnp.minimum(4 * octave + (beyond >> octave), _TAIL)
    return ZERO + jnp.sign(index) * (jnp.minimum(size, reach) + tail)


def from_symbols(symbols: Int[Array, "*n"], reach: Int[Array, "*n"]) -> Int[Array, "*n"]:
    """Invert `to_symbols`, in the tail to the middle of what a symbol stands for."""
    size = jnp.abs(symbols - ZERO)
    tail = jnp.clip(size - reach, 0, _TAIL)
    first = _tail_start(tail)
    middle = (first + _tail_start(tail + 1) - 1) // 2
    return jnp.sign(symbols - ZERO) * (jnp.minimum(size, reach) + jnp.where(tail > 0, middle, 0))


def tail_error(
    magnitude: Float[Array, "*n"], scale: Int[Array, "*n"], reach: Int[Array, "*n"]
) -> Float[Array, "*n"]:
    """Return about the squared error, in steps, of indices whose symbols lie in the tail.

    Over an octave of 4 symbols its mean is a 440th of the squared distance from `reach`. Beyond the last
    symbol, where indices are clipped, it is too little, and still more than any other class costs.

    Args:
        magnitude: of indices.
        scale: D to the number of their plain digits.
        reach: of the quantiser.
    """
    beyond = magnitude - scale * reach
    return jnp.where(beyond < EXACT_TAIL * scale, 0, beyond**2 / 440)


def make_quantiser(modulus: int) -> Quantiser:
    """Build the tables for digits in [0, modulus).

    Indices so wide that a symbol could not hold them leave their lowest digits, which are all but uniform,
    plain.
    """
    excess = np.arange(LOWEST, HIGHEST + 1)
    widths = 2.0 ** (excess / SCALE_STEPS)
    plain = np.maximum(0, np.ceil(np.log(widths / _WIDEST) / np.log(modulus) - 1e-9)).astype(np.int32)
    rows = np.round(excess - plain * SCALE_STEPS * np.log2(modulus)).astype(np.int32) - LOWEST
    table = np.arange(rows.max() + 1)
    of_rows = 2.0 ** ((table + LOWEST) / SCALE_STEPS)
    a, edge = 1 / widths, 1 - ROUNDING
    # Of a cell [0, 1) under exp(-a x): centroid and variance.
    small = a < 0.05
    safe = np.where(small, 1.0, a)
    centroid = np.where(small, 0.5 - a / 12, 1 / safe - 1 / np.expm1(safe))
    variance = np.where(small, 1 / 12, 1 / safe**2 - np.exp(safe) / np.expm1(safe) ** 2)
    tail = np.exp(-edge * a)
    inside = (2 - tail * ((edge * a) ** 2 + 2 * edge * a + 2)) / a**2  # second moment of the dead zone
    zero = -np.log2(-np.expm1(-edge * a))
    slope = a / np.log(2)
    other = 1 - np.log2(-np.expm1(-a)) - ROUNDING * slope - zero
    frequencies, lost = (np.stack(x) for x in zip(*map(_distribution, of_rows), strict=True))
    return Quantiser(
        modulus=modulus,
        plain=plain,
        scales=modulus**plain,
        rows=rows.astype(np.uint8),
        reach=np.array([_reach(w) for w in of_rows], np.int32)[rows],
        shifts=(centroid - ROUNDING).astype(np.float32),
        rms=np.sqrt(inside + tail * variance).astype(np.float32),
        bits=np.stack([zero + lost[rows], other, slope], axis=-1).astype(np.float32),
        coder=make_coder(modulus, frequencies),
    )


def step(level: Int[Array, "*n"] | int) -> Float[Array, "*n"]:
    """Turn a water level in whole level steps into the quantisers' step in grey levels."""
    return jnp.exp2(level / LEVEL_STEPS)


def look_up(table: np.ndarray, index: Array) -> Array:
    """Return the entries of a table."""
    return jnp.asarray(table)[index]


def rows_of(table: Array, rows: Int32[Array, "*n"]) -> Array:
    """Return rows of a table, all of which exist."""
    return table.at[rows].get(mode="promise_in_bounds", wrap_negative_indices=False)
