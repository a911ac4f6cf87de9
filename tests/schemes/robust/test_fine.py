"""Fine symbols: exact without a codec, told by how much they err, apart from the coefficients below them."""

import numpy as np
import pytest
from ml_collections import ConfigDict

from deepsteg_jax.models import symbols
from deepsteg_jax.schemes.robust import fine, levels, modem
from tests.synthetic import smooth

KEY, SALT = bytes(range(32)), b"twelve bytes"
CONFIG = ConfigDict({"coefficients": 5, "spacing": 8.0})
FRAMES, SIZE, BLOCKS = 3, (48, 64), 48


@pytest.fixture
def fine_symbols():
    return fine.make(CONFIG, 9, KEY)


def _sent(fine_symbols):
    bits = fine_symbols.filler(SALT, FRAMES, BLOCKS)
    return bits, fine_symbols.write(smooth(FRAMES, *SIZE) // 2 + 60, bits)


def test_bits_come_back(fine_symbols):
    bits, stego = _sent(fine_symbols)
    pilots, data = fine_symbols.indices(0, FRAMES, BLOCKS)
    llr = fine_symbols.llr(modem.luma_of(stego), bits, pilots)
    assert llr.shape == bits.shape
    assert np.mean((llr[data] < 0) == bits[data]) > 0.98


def test_confidence_falls_with_noise(fine_symbols):
    bits, stego = _sent(fine_symbols)
    pilots, data = fine_symbols.indices(0, FRAMES, BLOCKS)
    found = []
    for deviation in (0, 1, 3):
        noise = np.random.default_rng(0).normal(0, deviation, modem.luma_of(stego).shape)
        llr = fine_symbols.llr((modem.luma_of(stego) + noise).astype(np.float32), bits, pilots)
        found.append((levels.information(llr[data], bits[data]), levels.expected_information(llr[data])))
    assert found == sorted(found, reverse=True)
    assert all(abs(true - expected) < 0.2 for true, expected in found)


def test_every_symbol_has_one_use(fine_symbols):
    pilots, data = fine_symbols.indices(3, FRAMES, BLOCKS)
    uses = np.concatenate([pilots.ravel(), data])
    assert np.array_equal(np.sort(uses), np.arange(FRAMES * BLOCKS * 5))
    assert not np.array_equal(data, fine_symbols.indices(4, FRAMES, BLOCKS)[1])
    assert not np.array_equal(data, fine.make(CONFIG, 9, bytes(32)).indices(3, FRAMES, BLOCKS)[1])


def test_the_coefficients_below_stay(fine_symbols):
    cover = smooth(FRAMES, *SIZE) // 2 + 60
    _, stego = _sent(fine_symbols)
    before, after = (
        np.asarray(symbols.coefficients(modem.luma_of(x)))[..., symbols.ac_indices(9)] for x in (cover, stego)
    )
    assert np.quantile(np.abs(after - before), 0.99) < 1.5  # rounding to 8 bits


def test_salt_decides_over_the_filling(fine_symbols):
    assert not np.array_equal(
        fine_symbols.filler(SALT, 1, BLOCKS), fine_symbols.filler(b"another salt", 1, BLOCKS)
    )
