"""Lanes of `block_dct`: which cells one state of the coder holds, and where their plain digits lie.

The digits of a lane are plain ones, cell by cell, then the words of its coder.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Int, Int8, Int32

from deepsteg_jax.models.cells import PAIRS, excess_indices
from deepsteg_jax.models.quantiser import Quantiser, look_up
from deepsteg_jax.shapes import Array, Index

PLAIN_AT_ONCE = 2**15  # digits
NOWHERE = 2**30  # a place behind all digits


def to_lanes(cells: Array, lanes: int, lacking: int = 0) -> Array:
    """Deal cells [n, c] to lanes, one after the other: [lanes, each * c], padded by `lacking`."""
    each = -(-len(cells) // lanes)
    margins = (0, lanes * each - len(cells)), (0, 0)
    return jnp.pad(cells, margins, constant_values=lacking).reshape(lanes, -1)


def from_lanes(lanes: Array, cells: int, count: int) -> Array:
    """Invert `to_lanes`: [cells, count]."""
    return lanes.reshape(-1, count)[:cells]


class Kinds(NamedTuple):
    """What all classes of all temporal frequencies have at one water level."""

    indices: Array  # int32 [t * k, 96]: in the quantiser's tables
    scales: Array  # int32 [t * k, 96]: D to the number of plain digits of a coefficient
    counts: Array  # int32 [t * k * 96]: plain digits of a pair
    ends: Array  # int32 [t * k * 96]: these and those before, of all kinds in order
    sizes: Array  # int32 [t * k]: plain digits of a cell


def kinds_at(scales: Int32[Array, "t k 96"], level: Index, quantiser: Quantiser) -> Kinds:
    """Return the kinds at a water level; `scales` are from `integer_scales`."""
    indices = excess_indices(scales, level).reshape(-1, PAIRS)
    digits = look_up(quantiser.plain, indices)
    counts = 2 * digits.ravel()
    powers = look_up(quantiser.powers, digits)
    return Kinds(indices, powers, counts, jnp.cumsum(counts), 2 * digits.sum(-1))


class Layout(NamedTuple):
    """How the cells of a stripe are quantised, and where their plain digits lie."""

    kinds: Array  # int32 [n]
    indices: Array  # int32 [n, 96], those of the kind
    scales: Array  # int32 [n, 96], likewise
    before: Array  # int32 [n]: plain digits before those of the cell in its lane
    plain_words: Array  # int32 [lanes]: words that hold the plain digits of a lane


def lay_out(kinds: Kinds, classes: Int32[Array, "t m"], lanes: int, quantiser: Quantiser) -> Layout:
    """Lay out the cells of a stripe, as sender and receiver both do."""
    each = len(kinds.sizes) // len(classes)
    of_cells = (each * np.arange(len(classes), dtype=np.int32)[:, None] + classes).ravel()
    indices, scales, sizes = (
        table.at[of_cells].get(mode="promise_in_bounds")
        for table in (kinds.indices, kinds.scales, kinds.sizes)
    )
    in_lanes = to_lanes(sizes[:, None], lanes)
    ends = jnp.cumsum(in_lanes, axis=1)
    before = from_lanes(ends - in_lanes, len(sizes), 1)[:, 0]
    return Layout(of_cells, indices, scales, before, -(-ends[:, -1] // quantiser.coder.digits))


def plain_places(layout: Layout, starts: Int32[Array, " lanes"], word_digits: int) -> Array:
    """Return the index of the first plain digit of each cell, int32 [n]."""
    n = len(layout.kinds)
    return jnp.repeat(starts * word_digits, -(-n // len(starts)))[:n] + layout.before


def _count_to(ends: Int32[Array, " p"], ranks: Int32[Array, " r"]) -> Int32[Array, " r"]:
    """Return how many of `ends`, which rise, each rank reaches; `jnp.searchsorted` in what TFLite knows."""

    def halve(_, bounds):
        low, high = bounds
        middle = (low + high) >> 1
        reached = (low < high) & (ends.at[middle].get(mode="clip") <= ranks)
        return jnp.where(reached, middle + 1, low), jnp.where(reached, high, middle)

    bounds = jnp.zeros_like(ranks), jnp.full_like(ranks, len(ends))
    return lax.fori_loop(0, len(ends).bit_length(), halve, bounds)[0]


def _for_each_plain(work, state, layout: Layout, kinds: Kinds, places: Int32[Array, " n"]):
    """Call state = work(state, pairs, orders, places) for the plain digits of all cells, many at a time.

    A digit's cell, and its pair among those of the cell's kind, are found by bisection: few pairs have any.
    """
    sizes = kinds.sizes[layout.kinds]
    ends = jnp.cumsum(sizes)
    kind_firsts = (kinds.ends - kinds.counts)[::PAIRS]
    to_place, to_pair = places - ends + sizes, kind_firsts[layout.kinds] - ends + sizes

    def take(state):
        first, state = state
        ranks = first + np.arange(PLAIN_AT_ONCE, dtype=np.int32)
        cells = _count_to(ends, ranks)  # n: there is no such digit
        inside = ranks + to_pair.at[cells].get(mode="clip")
        pairs = _count_to(kinds.ends, inside)
        orders = inside - (kinds.ends - kinds.counts).at[pairs].get(mode="clip")
        pairs += PAIRS * (cells - layout.kinds.at[cells].get(mode="clip"))
        found = ranks + to_place.at[cells].get(mode="fill", fill_value=NOWHERE)
        return first + PLAIN_AT_ONCE, work(state, pairs, orders, found)

    return lax.while_loop(lambda state: state[0] < ends[-1], take, (jnp.int32(0), state))[1]


def write_plain(
    digits: Int8[Array, " size"],
    values: Int32[Array, "n 96"],
    layout: Layout,
    kinds: Kinds,
    places: Int32[Array, " n"],
    quantiser: Quantiser,
) -> Int8[Array, " size"]:
    """Lay the plain digits of pairs, least first, at the places of their cells."""
    values = values.ravel()

    def write(digits, pairs, orders, places):
        found = values.at[pairs].get(mode="clip") // look_up(quantiser.powers, orders) % quantiser.modulus
        return digits.at[places].set(found.astype(jnp.int8), mode="drop")

    return _for_each_plain(write, digits, layout, kinds, places)


def read_plain(
    digits: Int[Array, " size"],
    layout: Layout,
    kinds: Kinds,
    places: Int32[Array, " n"],
    quantiser: Quantiser,
) -> Int32[Array, "n 96"]:
    """Invert `write_plain`; garbage in, garbage out, no error."""

    def add(values, pairs, orders, places):
        found = digits.at[places].get(mode="clip").astype(jnp.int32)
        return values.at[pairs].add(found * look_up(quantiser.powers, orders), mode="drop")

    nothing = jnp.zeros(layout.indices.size, jnp.int32)
    return _for_each_plain(add, nothing, layout, kinds, places).reshape(-1, PAIRS)
