import functools

import jax
import numpy as np
import pytest

from deepsteg_jax.models import rans
from deepsteg_jax.models.quantiser import make_quantiser

MODULI = (2, 3, 16, 17)  # the largest words, odd ones, the two smallest
STEPS, LANES = 200, 7


@functools.cache
def coder_of(modulus):
    return make_quantiser(modulus).coder


def frequencies_of(coder):
    return coder.ranges % (2 * rans.TOTAL), coder.ranges // (2 * rans.TOTAL)


def drawn(modulus, seed, likely=True):
    """Rows [STEPS / 2, LANES] and symbols [STEPS, LANES]: as rows have it, or all that exist as often."""
    rng, coder = np.random.default_rng(seed), coder_of(modulus)
    rows = rng.integers(0, len(coder.ranges), (LANES, STEPS // 2)).T
    mass = frequencies_of(coder)[0][each_of(rows)] / rans.TOTAL
    mass = mass if likely else (mass > 0) / (mass > 0).sum(-1, keepdims=True)
    symbols = (rng.uniform(size=(LANES, STEPS, 1)).swapaxes(0, 1) >= np.cumsum(mass, axis=-1)).sum(-1)
    return np.uint8(rows), np.int8(symbols)


def each_of(rows):
    """The row of each symbol."""
    return np.repeat(rows, 2, axis=0)


def encode_plainly(rows, symbols, coder):
    """One lane, with Python's whole numbers: (state, words in the order of the symbols)."""
    frequencies, firsts = frequencies_of(coder)
    state, words = coder.least, []
    for row, symbol in zip(rows[::-1], symbols[::-1], strict=True):
        frequency, first = int(frequencies[row, symbol]), int(firsts[row, symbol])
        if state * rans.TOTAL >= frequency * coder.least * coder.base:
            state, word = divmod(state, coder.base)
            words.append(word)
        state = state // frequency * rans.TOTAL + first + state % frequency
        assert coder.least <= state < coder.least * coder.base
    return state, words[::-1]


def joined(coded):
    """The words of all lanes, one lane after the other, and where each begins."""
    out = np.asarray(coded.behind) >= 0
    lengths = out.sum(0)
    np.testing.assert_array_equal(coded.sizes, lengths)
    for lane in range(LANES):
        np.testing.assert_array_equal(coded.behind[out[:, lane], lane], np.arange(lengths[lane])[::-1])
    return np.asarray(coded.words).T[out.T], np.int32(np.cumsum(lengths) - lengths)


@pytest.mark.parametrize("modulus", range(2, 33))
def test_words_fit(modulus):
    coder = rans.make_coder(modulus, np.array([[rans.TOTAL - 1, 1]]))
    assert coder.base == modulus**coder.digits
    assert rans.TOTAL <= coder.base <= 2**16
    assert coder.least % rans.TOTAL == 0 < coder.least <= coder.base
    assert coder.least * coder.base < 2**31
    assert coder.least * coder.base <= coder.base**rans.STATE_WORDS


@pytest.mark.parametrize("likely", [True, False])
@pytest.mark.parametrize("modulus", MODULI)
def test_lanes_are_those_of_a_plain_coder_and_come_back(modulus, likely):
    coder = coder_of(modulus)
    rows, symbols = drawn(modulus, 0, likely)
    coded = jax.jit(lambda *x: rans.encode(*x, coder))(rows, symbols)
    words, starts = joined(coded)
    for lane in range(LANES):
        state, expected = encode_plainly(each_of(rows)[:, lane], symbols[:, lane], coder)
        assert coded.states[lane] == state
        np.testing.assert_array_equal(words[starts[lane] :][: len(expected)], expected)
    back, whole = jax.jit(lambda *x: rans.decode(x[0], 2, *x[1:], coder))(rows, coded.states, starts, words)
    np.testing.assert_array_equal(back, symbols)
    assert np.all(whole)


@pytest.mark.parametrize("modulus", [2, 3, 17])
def test_length_is_that_of_the_information(modulus):
    coder = coder_of(modulus)
    rows, symbols = drawn(modulus, 1)
    coded = rans.encode(rows, symbols, coder)
    bits = -np.log2(frequencies_of(coder)[0][each_of(rows), symbols] / rans.TOTAL).sum()
    held = np.log2(np.float64(coded.states) / coder.least).sum()
    written = np.sum(coded.sizes) * np.log2(coder.base) + held
    assert written == pytest.approx(bits, rel=0.03 if modulus == 17 else 0.005)


def test_a_wrong_word_spoils_its_lane_alone():
    coder = coder_of(3)
    rows, symbols = drawn(3, 2)
    coded = rans.encode(rows, symbols, coder)
    words, starts = joined(coded)
    words = words.copy()
    words[starts[3] + 5] = (words[starts[3] + 5] + 1) % coder.base
    back, whole = rans.decode(rows, 2, coded.states, starts, words, coder)
    wrong = np.any(np.asarray(back) != symbols, axis=0)
    np.testing.assert_array_equal(wrong, np.arange(LANES) == 3)
    np.testing.assert_array_equal(whole, ~wrong)


def test_garbage_gives_symbols_that_exist():
    coder, rng = coder_of(3), np.random.default_rng(0)
    rows, _ = drawn(3, 3)
    states = np.int32(rng.integers(-(2**31), 2**31, LANES))  # two words may run over
    starts = np.int32(rng.integers(0, 2**17, LANES))  # most of them behind the end
    symbols, _ = rans.decode(rows, 2, states, starts, rng.integers(0, coder.base, 50), coder)
    assert np.all(frequencies_of(coder)[0][each_of(rows), np.asarray(symbols)] > 0)
