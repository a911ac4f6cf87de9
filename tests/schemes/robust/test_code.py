"""The code: linear, near its limit at every rate, and the same in every process."""

import hashlib

import numpy as np
import pytest
from scipy import optimize

from deepsteg_jax.errors import UserError
from deepsteg_jax.schemes.robust import code


def _message(size, seed=0):
    return np.random.default_rng(seed).integers(0, 2, size, np.uint8)


def _noisy(word, deviation, seed=1):
    received = 1.0 - 2.0 * word + np.random.default_rng(seed).normal(0, deviation, len(word))
    return 2 * received / deviation**2


def _deviation(capacity):
    """Of the noise of a channel with this capacity, bits."""
    z = np.random.default_rng(2).normal(size=50_000)

    def excess(deviation):
        return 1 - np.mean(np.logaddexp(0, -2 * (1 + deviation * z) / deviation**2)) / np.log(2) - capacity

    return optimize.brentq(excess, 0.3, 20)


@pytest.mark.parametrize(("length", "size"), [(400, 10), (3000, 300), (3001, 1000), (4000, 3600), (97, 90)])
def test_reads_its_own_words(length, size):
    book, message = code.build(length, size), _message(size)
    word = book.encode(message)
    assert word.shape == (length,) and word.dtype == np.uint8
    assert np.array_equal(book.decode(4.0 * (1 - 2.0 * word)), message)


@pytest.mark.parametrize(("length", "size"), [(400, 10), (3001, 1000), (4000, 3600)])
def test_sums_of_words_are_words(length, size):
    book, one, two = code.build(length, size), _message(size, 1), _message(size, 2)
    assert np.array_equal(book.encode(one ^ two), book.encode(one) ^ book.encode(two))


def test_every_message_bit_is_in_as_many_sums_as_designed():
    assert all(sum(shares) == 1000 for shares in code.SHARES.values())
    book = code.build(8000, 1000)
    degrees, counts = np.unique(np.bincount(book.bits), return_counts=True)
    assert tuple(degrees) == code.DEGREES
    np.testing.assert_allclose(counts, code.SHARES[1 / 8], atol=3)
    assert np.array_equal(np.sort(book.terms[book.terms < len(book.bits)]), np.arange(len(book.bits)))
    assert np.array_equal(book.terms.ravel()[book.places], np.arange(len(book.bits)))


def test_what_the_others_say_is_the_ratio_of_their_sum():
    ratios = np.random.default_rng(0).normal(0, 2, (4, 5))
    of_ones = 1 / (1 + np.exp(ratios))
    for i, found in enumerate(code._others(ratios)):
        odd = np.zeros(5)
        for p in np.delete(of_ones, i, axis=0):
            odd = odd * (1 - p) + (1 - odd) * p
        np.testing.assert_allclose(found, np.log((1 - odd) / odd), rtol=1e-6)


@pytest.mark.parametrize("information", [0.05, 0.15, 0.3, 0.6, 0.9])
def test_reaches_what_it_says(information):
    size = code.reached_size(30_000, information)
    assert 0.35 < size / (30_000 * information) < 0.95
    book, message = code.build(30_000, size), _message(size)
    assert np.array_equal(book.decode(_noisy(book.encode(message), _deviation(information))), message)


def test_long_codes_are_cut_into_parts(monkeypatch):
    length, size = 3 * code.MOST_LENGTH - 5, 40_001
    book, message = code.build(length, size), _message(size)
    word = book.encode(message)
    assert isinstance(book, code.Parts) and word.shape == (length,) and word.dtype == np.uint8
    assert np.array_equal(book.decode(4.0 * (1 - 2.0 * word)), message)
    llr = 4.0 * (1 - 2.0 * word)
    llr[1 :: book.count] = np.random.default_rng(0).normal(size=len(llr[1 :: book.count]))
    monkeypatch.setattr(code, "ITERATIONS", 10)
    assert book.decode(llr) is None  # one part cannot be read


def test_says_so_where_there_is_too_much_noise():
    book = code.build(2000, 1000)
    assert book.decode(_noisy(book.encode(_message(1000)), 3.0)) is None


def test_missing_bits_are_ratios_of_0():
    book, message = code.build(8000, 2000), _message(2000)
    llr = 6.0 * (1 - 2.0 * book.encode(message))
    llr[np.random.default_rng(3).random(8000) < 0.6] = 0
    assert np.array_equal(book.decode(llr), message)


def test_is_the_same_everywhere():
    """Files of today must open tomorrow."""
    word = code.build(5000, 1200).encode(_message(1200))
    assert hashlib.sha256(word.tobytes()).hexdigest()[:16] == WORD


@pytest.mark.parametrize(("length", "size"), [(100, 0), (100, 100), (0, 10)])
def test_refuses_what_does_not_fit(length, size):
    with pytest.raises(UserError, match="too small"):
        code.build(length, size)


WORD = "b399913a09a7c097"
