"""Cells of `block_dct`: the transform of a group of frames, classes of cells, and the water level.

A cell is a block of one temporal frequency: 192 coefficients in 96 pairs.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Float, Int32

from deepsteg_jax.dct import dct_matrix, diagonal_frequencies, einsum, from_blocks, mix, to_blocks
from deepsteg_jax.models.quantiser import (
    ERROR_PER_BIT,
    EXACT_TAIL,
    HIGHEST,
    LEVEL_STEPS,
    LOWEST,
    ROUNDING,
    SCALE_STEPS,
    Quantiser,
    look_up,
    rows_of,
    step,
    tail_error,
)
from deepsteg_jax.shapes import Array, Group, Index
from deepsteg_jax.stripes import from_stripes, map_stripes

BLOCK = 8
PAIRS = 3 * BLOCK * BLOCK // 2
LEVEL_BITS = 10  # of the water level
LEVEL_OFFSET = 96  # the finest water level, a step of 2^(-3/2): finer than rounding the revealed needs
TAILED = 16  # at most one cell in 16 chooses its class again: each costs time
LAPLACE_STEPS = -SCALE_STEPS // 2  # the width of a Laplace density is its rms over sqrt(2)

Codebook = Float[Array, "frames classes 96"]


# --- transform -----------------------------------------------------------------------------------


def analyse(video: Group) -> Float[Array, "t rows columns 192"]:
    """Transform a group of frames, h and w multiples of 8, to orthonormal coefficients in grey levels.

    Axis 0 is the temporal frequency.
    """
    x = to_blocks(video * 255 - 128, BLOCK)
    return x if len(x) == 1 else mix(x, dct_matrix(len(x)), axis=0)


def synthesise(coefficients: Float[Array, "t rows columns 192"]) -> Float[Array, "t 8*rows 8*columns 3"]:
    """Invert `analyse`, without clipping."""
    t = len(coefficients)
    x = coefficients if t == 1 else mix(coefficients, dct_matrix(t).T, axis=0)
    return (from_blocks(x, BLOCK) + 128) / 255


# --- codebook and classes -------------------------------------------------------------------------


def init_codebook(key: jax.Array, frames: int, classes: int) -> Float[Array, " {frames} {classes} 96"]:
    """Make a starting codebook: log2 of the rms of each coefficient pair, grey levels.

    Classes span activity (level at DC) times shape (decay with frequency) around the power-law spectrum
    of photographs; a little noise breaks ties. Training moves it to the data.
    """
    frequency = np.tile(diagonal_frequencies(BLOCK)[::2], 3)
    chroma = np.repeat([0.0, 1.5, 2.0], BLOCK * BLOCK // 2)
    shapes = 4
    activity = np.linspace(-3, 9.5, max(classes // shapes, 1))
    decay = np.linspace(0.2, 2.0, shapes)
    base = np.stack([a - d * np.log2(1 + frequency) - chroma for a in activity for d in decay])
    base = np.resize(base, (frames, classes, PAIRS))
    return jnp.asarray(base, jnp.float32) + 0.1 * jax.random.normal(key, base.shape)


def for_frames(codebook: Float[Array, "t k 96"], frames: int) -> Float[Array, " {frames} k 96"]:
    """Return what a group of `frames` frames takes of a codebook.

    A shorter group (the tail of a clip) takes the temporal frequencies at its own spacing.
    """
    return codebook[np.arange(frames) * len(codebook) // frames]


def integer_scales(codebook: Float[Array, "t k 96"], frames: int) -> Int32[Array, " {frames} k 96"]:
    """Return the Laplace widths of a group of `frames` frames in whole scale steps.

    Scaling by a power of two and rounding are exact, so the layout is the same on every device.
    """
    return jnp.round(SCALE_STEPS * for_frames(codebook, frames)).astype(jnp.int32) + LAPLACE_STEPS


def excess_indices(scales: Int32[Array, "t k 96"], level: Index) -> Int32[Array, "t k 96"]:
    """Return the index of each pair in the quantiser's tables at a water level in level steps."""
    fine = LEVEL_STEPS // SCALE_STEPS
    return jnp.clip((scales * fine - level + fine // 2) // fine, LOWEST, HIGHEST) - LOWEST


def magnitudes(pairs: Float[Array, "*n 2"], level: Index) -> Float[Array, "*n 2"]:
    """Return the magnitudes of the indices of coefficients in grey levels at a water level in level steps."""
    return jnp.floor(jnp.abs(pairs) / step(level) + ROUNDING)


def class_bits(
    pairs: Float[Array, "t n 96 2"], scales: Int32[Array, "t k 96"], level: Index, quantiser: Quantiser
) -> tuple[Float[Array, "t n 96"], Float[Array, "t n k"]]:
    """Return the magnitudes of all pairs of indices, both together, and the bits of cells under all classes.

    The bits of an index under a Laplace density are a straight line of its magnitude, but for 0, so those of
    all cells under all classes are one matrix product.

    Args:
        pairs: of coefficients, grey levels.
        scales: from `integer_scales`.
        level: water level in level steps.
        quantiser: of the coefficients.
    """
    one, two = (magnitudes(pairs[..., i], level) for i in range(2))
    parts = jnp.concatenate([jnp.minimum(one, 1) + jnp.minimum(two, 1), one + two], axis=-1)
    zero, other, slope = (look_up(table, excess_indices(scales, level)) for table in quantiser.bits.T)
    weights = jnp.concatenate([other, slope], axis=-1)
    return parts[..., PAIRS:], 2 * zero.sum(-1)[:, None] + einsum("tnp,tkp->tnk", parts, weights)


def choose_classes(
    pairs: Float[Array, "t n 96 2"], scales: Int32[Array, "t k 96"], level: Index, quantiser: Quantiser
) -> tuple[Int32[Array, "t n"], Float[Array, "t n"]]:
    """Choose the class in [0, k) of fewest bits for every cell; return these too. Arguments as `class_bits`.

    Cells whose coefficients lie far in the tails of that class, where symbols are coarse, choose again, of
    bits and error together; of a pair the larger index counts.
    """
    totals, bits = class_bits(pairs, scales, level, quantiser)
    classes = jnp.argmin(bits, axis=-1).astype(jnp.int32)
    t, n, k = bits.shape
    indices = excess_indices(scales, level)
    scales, reach = (look_up(table, indices) for table in (quantiser.scales, quantiser.reach))
    exact = ((reach + EXACT_TAIL) * scales).astype(jnp.float32).reshape(t * k, PAIRS)
    beyond = totals - rows_of(exact, k * np.arange(t, dtype=np.int32)[:, None] + classes)
    beyond = jnp.sum(jnp.maximum(beyond, 0) ** 2, axis=-1)

    def choose_again(place):
        plane, cell = place
        larger = magnitudes(pairs[plane, cell], level).max(-1)
        errors = tail_error(larger, scales[plane], reach[plane]).sum(-1)
        return jnp.argmin(bits[plane, cell] + errors / ERROR_PER_BIT).astype(jnp.int32)

    places = jnp.divmod(lax.top_k(beyond.ravel(), max(1, t * n // TAILED))[1], n)
    classes = classes.at[places].set(lax.map(choose_again, places))
    return classes, jnp.take_along_axis(bits, classes[..., None], axis=-1)[..., 0]


def finest_level(fits):
    """Find the least water level in level steps for which the monotone predicate `fits(level)` holds."""

    def halve(_, bounds):
        low, high = bounds
        middle = (low + high) // 2
        good = fits(middle)
        return jnp.where(good, low, middle + 1), jnp.where(good, middle, high)

    bounds = jnp.int32(-LEVEL_OFFSET), jnp.int32(2**LEVEL_BITS - 1 - LEVEL_OFFSET)
    return lax.fori_loop(0, LEVEL_BITS, halve, bounds)[1]


class Water(NamedTuple):
    """What is foretold of the water level."""

    level: Array  # int32, level steps
    slope: Array  # bits that one step more saves


def allot(
    pairs: Float[Array, "s t m 96 2"], scales: Int32[Array, "t k 96"], budget: float, quantiser: Quantiser
) -> tuple[Water, Int32[Array, "t s*m"]]:
    """Choose the water level and the classes so that stripes of coefficients take `budget` bits.

    The level is searched on a sample of the cells, then corrected by what all of them take.
    """
    cells = pairs.shape[0] * pairs.shape[2]
    stride = max(1, min(16, cells // 64))
    stripe, place = np.divmod(np.arange(0, cells, stride), pairs.shape[2])
    sample = jnp.moveaxis(pairs[stripe, :, place], 0, 1)
    share = cells / sample.shape[1]

    def sampled(level):
        return share * class_bits(sample, scales, level, quantiser)[1].min(-1).sum()

    level = finest_level(lambda level: sampled(level) <= budget)
    octave = LEVEL_STEPS // 4
    slope = jnp.maximum(sampled(level) - sampled(level + octave), 1) / octave
    classes, bits = map_stripes(lambda part: choose_classes(part, scales, level, quantiser), pairs)
    return Water(raised(level, bits.sum() - budget, slope), slope), from_stripes(classes)


def raised(level, bits, slope):
    """Return a water level, raised until about `bits` fewer are written."""
    level = level + jnp.ceil(bits / slope).astype(jnp.int32)
    return jnp.clip(level, -LEVEL_OFFSET, 2**LEVEL_BITS - 1 - LEVEL_OFFSET)
