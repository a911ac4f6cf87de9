"""Fine carriers: exact without a codec, told by how much they err, apart from the coefficients below them."""

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
def carriers():
    return fine.make(CONFIG, 9, KEY)


def _sent(carriers):
    bits = carriers.filled(SALT, FRAMES, BLOCKS)
    return bits, carriers.write(smooth(FRAMES, *SIZE) // 2 + 60, bits)


def test_bits_come_back(carriers):
    bits, stego = _sent(carriers)
    pilots, data = carriers.places(0, FRAMES, BLOCKS)
    llr = carriers.llr(modem.luma_of(stego), bits, pilots)
    assert llr.shape == bits.shape
    assert np.mean((llr[data] < 0) == bits[data]) > 0.98


def test_confidence_falls_with_noise(carriers):
    bits, stego = _sent(carriers)
    pilots, data = carriers.places(0, FRAMES, BLOCKS)
    found = []
    for deviation in (0, 1, 3):
        noise = np.random.default_rng(0).normal(0, deviation, modem.luma_of(stego).shape)
        llr = carriers.llr((modem.luma_of(stego) + noise).astype(np.float32), bits, pilots)
        found.append((levels.information(llr[data], bits[data]), levels.expected_information(llr[data])))
    assert found == sorted(found, reverse=True)
    assert all(abs(true - expected) < 0.2 for true, expected in found)


def test_every_symbol_has_one_use(carriers):
    pilots, data = carriers.places(3, FRAMES, BLOCKS)
    uses = np.concatenate([pilots.ravel(), data])
    assert np.array_equal(np.sort(uses), np.arange(FRAMES * BLOCKS * 5))
    assert not np.array_equal(data, carriers.places(4, FRAMES, BLOCKS)[1])
    assert not np.array_equal(data, fine.make(CONFIG, 9, bytes(32)).places(3, FRAMES, BLOCKS)[1])


def test_the_coefficients_below_stay(carriers):
    cover = smooth(FRAMES, *SIZE) // 2 + 60
    _, stego = _sent(carriers)
    before, after = (
        np.asarray(symbols.coefficients(modem.luma_of(x)))[..., symbols.places(9)] for x in (cover, stego)
    )
    assert np.quantile(np.abs(after - before), 0.99) < 1.5  # rounding to 8 bits


def test_salt_decides_over_the_filling(carriers):
    assert not np.array_equal(carriers.filled(SALT, 1, BLOCKS), carriers.filled(b"another salt", 1, BLOCKS))
