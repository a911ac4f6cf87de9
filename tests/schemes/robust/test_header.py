"""The header: what goes in comes out, for the key holder only, from whatever frames are left."""

from fractions import Fraction

import numpy as np
import pytest

from deepsteg_jax.errors import UserError
from deepsteg_jax.schemes.base import Metadata
from deepsteg_jax.schemes.robust import header
from deepsteg_jax.schemes.robust.header import Header

KEY, OTHER = bytes(range(32)), bytes(32)
ABOUT = Metadata(448, 256, 1234, 1234, Fraction(30000, 1001), False, True, Fraction(64, 45))
HEADER = Header(b"a salt", 30, 4, (160, 0, 8000), ABOUT)
PADDED = HEADER._replace(capacities=(160, 0, 8000, 0, 0, 0))


def unpacked(bits, key=KEY, repeat=4):
    return header.unpack(bits, repeat, key)


def test_round_trip():
    bits = header.pack(HEADER, KEY)
    assert bits.shape == (header.BITS,)
    assert unpacked(bits) == PADDED


@pytest.mark.parametrize(
    ("size", "said"),
    [(0, 0), (1, 0), (511, 510), (1000, 1000), (1003, 1000), (10**5, 99840), (2**40, 255 << 16)],
)
def test_capacities_are_rounded_down(size, said):
    assert header.capacity_within(size) == said == header.capacity_within(said)
    assert unpacked(header.pack(HEADER._replace(capacities=(size,)), KEY)).capacities[0] == said


def test_capacities_lose_less_than_a_hundredth():
    sizes = np.unique(np.logspace(2.5, 7, 500).astype(int))
    assert all(0.99 * size <= header.capacity_within(int(size)) <= size for size in sizes)


def test_capacities_for_a_size_are_the_next_that_hold_it():
    sizes = [*range(2000), *np.logspace(3.3, 6.9, 500).astype(int).tolist()]
    for size in sizes:
        said = header.capacity_for(size)
        assert size <= said == header.capacity_within(said)
        assert size == said or header.capacity_within(said - 1) < size  # none between


@pytest.mark.parametrize(
    ("rate", "said"),
    [
        (Fraction(240000, 1001), Fraction(120000, 500)),
        (Fraction(10**6, 7), Fraction(2**17 - 1)),
        (Fraction(12, 5), Fraction(12, 5)),
    ],
)
def test_fractions_are_said_as_well_as_they_can_be(rate, said):
    about = ABOUT._replace(rate=rate)
    found = unpacked(header.pack(HEADER._replace(metadata=about), KEY)).metadata.rate
    assert abs(found / said - 1) < 0.001 and abs(min(rate, 2**17 - 1) / found - 1) < 0.001


@pytest.mark.parametrize("field", ["frames", "width", "height"])
def test_values_beyond_their_field_are_refused(field):
    about = ABOUT._replace(**{"cover_frames" if field == "frames" else field: 2**24})
    with pytest.raises(UserError, match=f"the secret's {field}, {2**24}, exceeds"):
        header.pack(HEADER._replace(metadata=about), KEY)


def test_another_key_or_a_wrong_bit_gives_nothing():
    bits = header.pack(HEADER, KEY)
    assert unpacked(bits, OTHER) is None
    for place in range(0, header.BITS, 37):
        wrong = bits.copy()
        wrong[place] ^= 1
        assert unpacked(wrong) is None


def test_another_number_of_frames_that_share_symbols_gives_nothing():
    assert unpacked(header.pack(HEADER, KEY), repeat=8) is None


def test_the_same_header_looks_different_under_another_salt():
    a, b = (header.pack(HEADER._replace(salt=salt), KEY) for salt in (b"a" * 6, b"b" * 6))
    assert 0.3 < np.mean(a[48:] != b[48:]) < 0.7


@pytest.mark.parametrize("kept", [range(0, 3), range(20, 24), range(1, 32, 7)])
def test_a_few_frames_are_enough(kept):
    bits, count = header.pack(HEADER, KEY), 700
    llr = np.zeros((32, count))
    for i in kept:
        llr[i] = 5 * (1 - 2.0 * header.carried_bits(bits, i, count, KEY))
    assert np.array_equal(header.decode(llr, KEY), bits)


def test_all_frames_together_survive_much_noise():
    bits, count = header.pack(HEADER, KEY), 700
    word = np.stack([header.carried_bits(bits, i, count, KEY) for i in range(32)])
    received = 1 - 2.0 * word + np.random.default_rng(0).normal(0, 4, word.shape)
    assert np.array_equal(header.decode(2 * received / 16, KEY), bits)


def test_a_channel_that_shows_one_symbol_too_often_does_no_harm():
    bits, count = header.pack(HEADER, KEY), 700
    word = np.stack([header.carried_bits(bits, i, count, KEY) for i in range(32)])
    shown = np.random.default_rng(0).random(word.shape)
    received = np.where(shown < 0.6, 0, word)
    assert np.array_equal(header.decode(0.4 * (1 - 2.0 * received), KEY), bits)


def test_noise_alone_gives_nothing():
    assert header.decode(np.random.default_rng(0).normal(0, 2, (32, 700)), KEY) is None
