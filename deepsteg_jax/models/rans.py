"""Asymmetric numeral systems with ranges (rANS, Duda 2013) in many lanes at once, in base-D words.

A lane is a sequence of symbols with a number, its state, that holds them: to push a symbol of frequency f out
of TOTAL multiplies the state by TOTAL / f. Before a state grows too large, its lowest word, a remainder
modulo `base`, goes out; the receiver takes it in again after the same symbol. All lanes take a step together
in a loop. Whole numbers below 2^31 only: every device makes the same bits.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Bool, Int, Int8, Int32, UInt8

from deepsteg_jax.shapes import Array, Index
from deepsteg_jax.single_task import single_task

TOTAL_BITS = 12
TOTAL = 2**TOTAL_BITS  # of the frequencies of a distribution
STATE_WORDS = 2
_SYMBOL_BITS = 7
_WORD = 2**16


class Coder(NamedTuple):
    """Tables of distributions, and the words of a modulus D."""

    digits: int  # base-D digits in a word
    base: int  # words are below it
    least: int  # a state that holds nothing; all are in [least, least * base)
    ranges: np.ndarray  # int32 [rows, 128]: first * 2 TOTAL + frequency of each symbol
    slots: np.ndarray  # int32 [rows, TOTAL]: frequency - 1, offset in its range, symbol of each remainder


def make_coder(modulus: int, frequencies: Int[np.ndarray, "rows symbols"]) -> Coder:
    """Build the tables for distributions whose frequencies, at most 128 each, sum to TOTAL."""
    digits = int(np.log(_WORD) / np.log(modulus) + 1e-9)
    base = modulus**digits
    frequencies = np.pad(frequencies, ((0, 0), (0, 2**_SYMBOL_BITS - frequencies.shape[1])))
    firsts = np.cumsum(frequencies, axis=1) - frequencies
    symbols = np.stack([np.repeat(np.arange(len(row)), row) for row in frequencies])
    inside = np.arange(TOTAL) - np.take_along_axis(firsts, symbols, axis=1)
    packed = np.take_along_axis(frequencies, symbols, axis=1) - 1
    for part, bits in ((inside, TOTAL_BITS), (symbols, _SYMBOL_BITS)):
        packed = packed << bits | part
    ranges = (firsts * 2 * TOTAL + frequencies).astype(np.int32)
    least = min(base, (2**31 - 1) // base) // TOTAL * TOTAL
    return Coder(digits, base, least, ranges, packed.astype(np.int32))


class Coded(NamedTuple):
    """Lanes of symbols in words."""

    states: Array  # int32 [lanes]
    words: Array  # int32 [steps, lanes]: what goes out at each symbol
    behind: Array  # int32 [steps, lanes]: words of later symbols in the lane; -1 where none goes out
    sizes: Array  # int32 [lanes]: words that go out


def encode(rows: UInt8[Array, "n lanes"], symbols: Int8[Array, "n*each lanes"], coder: Coder) -> Coded:
    """Encode lanes of symbols.

    Args:
        rows: of the distributions, in which no symbol's frequency is 0.
        symbols: as many under each row.
        coder: tables and words.
    """
    n, lanes = rows.shape
    each = len(symbols) // n

    @single_task
    def push_all(rows, symbols):
        ranges = jnp.asarray(coder.ranges.ravel())

        def push(step, state):
            state, size, words, behind = state
            step = each * n - 1 - step
            row, symbol = _line(rows, step // each), _line(symbols, step)
            packed = _entries(ranges, row << _SYMBOL_BITS | symbol)
            first, frequency = packed >> TOTAL_BITS + 1, packed & 2 * TOTAL - 1
            full = (state >= frequency * (coder.least // TOTAL * coder.base)).astype(jnp.int32)
            rest = lax.div(state, jnp.full_like(state, coder.base))
            words = _with_line(words, state - rest * coder.base, step)
            behind = _with_line(behind, (size + 1) * full - 1, step)
            state += full * (rest - state)
            # Below 2^19, so that the quotient of floats is wrong by one at most.
            many = (state.astype(jnp.float32) / frequency.astype(jnp.float32)).astype(jnp.int32)
            rest = state - many * frequency
            many += (rest >= frequency).astype(jnp.int32) - (rest < 0).astype(jnp.int32)
            state += many * (TOTAL - frequency) + first
            return state, size + full, words, behind

        none = jnp.zeros(symbols.shape, jnp.int32)
        start = jnp.full(lanes, coder.least, jnp.int32), jnp.zeros(lanes, jnp.int32), none, none
        return lax.fori_loop(0, each * n, push, start)

    states, sizes, words, behind = push_all(rows, symbols)
    return Coded(states, words, behind, sizes)


def decode(
    rows: UInt8[Array, "n lanes"],
    each: int,
    states: Int32[Array, " lanes"],
    starts: Int32[Array, " lanes"],
    words: Int32[Array, " count"],
    coder: Coder,
) -> tuple[Int8[Array, "n*each lanes"], Bool[Array, " lanes"]]:
    """Invert `encode`; garbage in, garbage out, no error.

    Args:
        rows: of the distributions.
        each: number of symbols under each row.
        states: from `encode`.
        starts: index of each lane's first word; its words follow one another in the order of its symbols.
        words: of all lanes.
        coder: as for `encode`.

    Returns:
        (symbols; whether each lane ended as it should).
    """

    @single_task
    def pop_all(rows, states, starts, words):
        slots = jnp.asarray(coder.slots.ravel())

        def pop(step, state):
            state, at, symbols = state
            row = _line(rows, step) << TOTAL_BITS
            for i in range(each):
                found = _entries(slots, row | state & TOTAL - 1)
                inside = found >> _SYMBOL_BITS & TOTAL - 1
                state = ((found >> _SYMBOL_BITS + TOTAL_BITS) + 1) * (state >> TOTAL_BITS) + inside
                low = (state < coder.least).astype(jnp.int32)
                word = _entries(words, lax.clamp(0, at, len(words) - 1))
                state += low * (state * (coder.base - 1) + word)
                at += low
                symbols = _with_line(symbols, found & 2**_SYMBOL_BITS - 1, each * step + i)
            return state, at, symbols

        symbols = jnp.zeros((len(rows) * each, rows.shape[1]), jnp.int8)
        return lax.fori_loop(0, len(rows), pop, (states, starts, symbols))

    states, _, symbols = pop_all(rows, states, starts, words)
    return symbols, states == coder.least


def _line(lines: Array, index: Index) -> Array:
    return lax.dynamic_slice(lines, (index, 0), (1, lines.shape[1]))[0].astype(jnp.int32)


def _with_line(lines: Array, line: Array, index: Index) -> Array:
    return lax.dynamic_update_slice(lines, line[None].astype(lines.dtype), (index, 0))


def _entries(table: Array, indices: Array) -> Array:
    return table.at[indices].get(mode="promise_in_bounds", wrap_negative_indices=False)
