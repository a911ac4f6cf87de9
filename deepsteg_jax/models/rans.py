"""Asymmetric numeral systems with ranges (rANS, Duda 2013) in many lanes at once, in base-D words.

A lane is a sequence of symbols with a number, its state, that holds them: to push a symbol of frequency f out
of TOTAL multiplies the state by TOTAL / f. Before a state grows too large, its lowest word, a remainder
modulo `base`, goes out; the receiver takes it in again after the same symbol. All lanes take a step together
in a `lax.scan`. Whole numbers below 2^31 only: every device makes the same bits.
"""

from functools import partial
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Bool, Int, Int8, Int32, UInt8

from deepsteg_jax.shapes import Array

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


def encode(rows: UInt8[Array, "lanes n"], symbols: Int8[Array, "lanes n*each"], coder: Coder) -> Coded:
    """Encode lanes of symbols.

    Args:
        rows: of the distributions, in which no symbol's frequency is 0.
        symbols: as many under each row.
        coder: tables and words.
    """
    ranges, each = jnp.asarray(coder.ranges), symbols.shape[1] // rows.shape[1]
    column = partial(lax.dynamic_index_in_dim, axis=1, keepdims=False)

    def push(state, step):
        state, size = state
        symbol = column(symbols, step).astype(jnp.int32)
        packed = ranges.at[column(rows, step // each), symbol].get(mode="promise_in_bounds")
        first, frequency = packed // (2 * TOTAL), packed % (2 * TOTAL)
        full = state >= frequency * (coder.least // TOTAL * coder.base)
        rest = state // coder.base
        word = state - rest * coder.base
        state = jnp.where(full, rest, state)
        many = state // frequency
        state = many * TOTAL + first + state - many * frequency
        return (state, size + full), (word, jnp.where(full, size, -1))

    start = jnp.full(len(rows), coder.least, jnp.int32), jnp.zeros(len(rows), jnp.int32)
    steps = np.arange(symbols.shape[1], dtype=np.int32)
    (states, sizes), (words, behind) = lax.scan(push, start, steps, reverse=True)
    return Coded(states, words, behind, sizes)


def decode(
    rows: UInt8[Array, "lanes n"],
    each: int,
    states: Int32[Array, " lanes"],
    starts: Int32[Array, " lanes"],
    words: Int[Array, " count"],
    coder: Coder,
) -> tuple[Int8[Array, "lanes n*each"], Bool[Array, " lanes"]]:
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
    slots, words = jnp.asarray(coder.slots), jnp.asarray(words)
    column = partial(lax.dynamic_index_in_dim, axis=1, keepdims=False)

    def pop(step, state):
        state, at, symbols = state
        found = slots.at[column(rows, step // each), state % TOTAL].get(mode="promise_in_bounds")
        inside = found // 2**_SYMBOL_BITS % TOTAL
        frequency = found // 2 ** (_SYMBOL_BITS + TOTAL_BITS) + 1
        state = frequency * (state // TOTAL) + inside
        low = state < coder.least
        word = words.at[at].get(mode="clip").astype(jnp.int32)
        state = jnp.where(low, state * coder.base + word, state)
        symbol = (found % 2**_SYMBOL_BITS).astype(jnp.int8)
        return state, at + low, lax.dynamic_update_index_in_dim(symbols, symbol, step, axis=1)

    symbols = jnp.zeros((len(rows), rows.shape[1] * each), jnp.int8)
    states, _, symbols = lax.fori_loop(0, symbols.shape[1], pop, (states, starts, symbols))
    return symbols, states == coder.least
