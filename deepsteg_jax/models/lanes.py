"""Lanes of `block_dct`: which cells one state of the coder holds, and where their plain digits lie.

The digits of a lane are plain ones, cell by cell, then the words of its coder.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int8, Int32

from deepsteg_jax.models.cells import PAIRS, excess_indices
from deepsteg_jax.models.quantiser import Quantiser, look_up, rows_of
from deepsteg_jax.shapes import Array, Index
from deepsteg_jax.stripes import map_parts, map_stripes

COUNT_BITS = 5  # of the number of digits of a number


def to_lanes(cells: Array, lanes: int, lacking: int = 0) -> Array:
    """Deal cells [n, c] to lanes, one after the other: [each * c, lanes], padded by `lacking`."""
    each = -(-len(cells) // lanes)
    margins = (0, lanes * each - len(cells)), (0, 0)
    return jnp.pad(cells, margins, constant_values=lacking).reshape(lanes, -1).T


def from_lanes(lanes: Array, cells: int, count: int) -> Array:
    """Invert `to_lanes`: [cells, count]."""
    return lanes.T.reshape(-1, count)[:cells]


class Kinds(NamedTuple):
    """What all classes of all temporal frequencies have at one water level, for pairs and coefficients."""

    indices: Array  # int32 [t * k, 96]: in the quantiser's tables
    plain: Array  # int32 [t * k, 192]: plain digits of a coefficient
    before: Array  # int32 [t * k, 192]: those before them in the cell
    scales: Array  # float32 [t * k, 192]: D to their number
    reach: Array  # int32 [t * k, 192], of the quantiser
    shifts: Array  # float32 [t * k, 192], likewise
    sizes: Array  # int32 [t * k]: plain digits of a cell


def kinds_at(scales: Int32[Array, "t k 96"], level: Index, quantiser: Quantiser) -> Kinds:
    """Return the kinds at a water level; `scales` are from `integer_scales`."""
    indices = excess_indices(scales, level).reshape(-1, PAIRS)
    plain, scales, reach, shifts = (
        jnp.repeat(look_up(table, indices), 2, axis=1)
        for table in (quantiser.plain, quantiser.scales.astype(np.float32), quantiser.reach, quantiser.shifts)
    )
    ends = jnp.cumsum(plain, axis=1)
    before = ends - 2 * plain * (np.arange(2 * PAIRS) % 2)  # the second of a pair comes first
    return Kinds(indices, plain, before, scales, reach, shifts, ends[:, -1])


class Layout(NamedTuple):
    """Where the plain digits of the cells of a stripe lie."""

    kinds: Array  # int32 [n]
    before: Array  # int32 [n]: plain digits before those of the cell in its lane
    plain_words: Array  # int32 [lanes]: words that hold the plain digits of a lane


def lay_out(kinds: Kinds, classes: Int32[Array, "t m"], lanes: int, quantiser: Quantiser) -> Layout:
    """Lay out the cells of a stripe, as sender and receiver both do."""
    each = len(kinds.sizes) // len(classes)
    of_cells = (each * np.arange(len(classes), dtype=np.int32)[:, None] + classes).ravel()
    in_lanes = to_lanes(rows_of(kinds.sizes, of_cells)[:, None], lanes)
    ends = jnp.cumsum(in_lanes, axis=0)
    before = from_lanes(ends - in_lanes, len(of_cells), 1)[:, 0]
    return Layout(of_cells, before, -(-ends[-1] // quantiser.coder.digits))


def plain_places(
    layout: Layout, kinds: Kinds, starts: Int32[Array, " lanes"], word_digits: int
) -> Int32[Array, "n 192"]:
    """Return the index of the first plain digit of each coefficient, if it has one."""
    n = len(layout.kinds)
    of_cells = jnp.repeat(starts * word_digits, -(-n // len(starts)))[:n] + layout.before
    return map_parts(lambda at, of: at[:, None] + rows_of(kinds.before, of), of_cells, layout.kinds)


def mark(marks: Int32[Array, " size"], places: Array, values: Array, counts: Array) -> Int32[Array, " size"]:
    """Mark the places where numbers of `counts` digits begin, for `write_marked`; those of none are dropped.

    Args:
        marks: so far, 0 where there are none.
        places: int32; behind the end they are dropped.
        values: int32, numbers from 0; same shape.
        counts: int32, below 2**COUNT_BITS; same shape.
    """
    places = jnp.where(counts > 0, places, len(marks))
    found = values << COUNT_BITS | counts
    return marks.at[places].set(found, mode="drop", wrap_negative_indices=False)


def write_marked(marks: Int32[Array, " size"], used: Index, quantiser: Quantiser) -> Int8[Array, " size"]:
    """Return the digits, least first, of the numbers that begin at the marks.

    Each turn, twice as many digits behind a mark get a mark of their own for the rest.

    Args:
        marks: from `mark`.
        used: digits behind these are -1; before, those that no number has are 0.
        quantiser: of the digits.
    """

    for shift in _shifts(max(quantiser.coder.digits, int(quantiser.plain.max()))):
        behind = jnp.pad(marks[:-shift], (shift, 0))
        rest = (behind >> COUNT_BITS) // quantiser.modulus**shift << COUNT_BITS
        left = (behind & 2**COUNT_BITS - 1) - shift
        marks = jnp.where((marks == 0) & (left > 0), rest | left, marks)
    # A loop, since XLA would otherwise compute all of this where it is used, digit by digit.
    parts = marks.reshape(quantiser.coder.digits, -1)
    digits = map_stripes(lambda part: ((part >> COUNT_BITS) % quantiser.modulus).astype(jnp.int8), parts)
    return jnp.where(np.arange(len(marks), dtype=np.int32) < used, digits.ravel(), -1)


def read_plain(
    digits: Int8[Array, " size"],
    scales: Float[Array, "n 192"],
    places: Int32[Array, "n 192"],
    quantiser: Quantiser,
) -> Float[Array, "n 192"]:
    """Return the numbers below `scales` that were marked; garbage in, garbage out, no error."""
    runs = digits.astype(jnp.int32)
    for shift in _shifts(int(quantiser.plain.max())):  # each turn, runs of twice as many digits
        runs += jnp.pad(runs[shift:], (0, shift)) * quantiser.modulus**shift
    found = runs.at[places].get(mode="clip", wrap_negative_indices=False).astype(jnp.float32)
    return found - jnp.floor((found + 0.5) / scales) * scales  # exact, since runs are below 2^23


def _shifts(digits: int) -> list[int]:
    return [2**n for n in range((digits - 1).bit_length())]
