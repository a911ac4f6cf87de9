"""Fine symbols: exact without a codec, told by how much they err, apart from the coefficients below them."""

import numpy as np
import pytest
from ml_collections import ConfigDict

from deepsteg_jax.models import symbols
from deepsteg_jax.schemes.robust import fine, levels, modem
from tests.synthetic import in_planes, smooth

KEY, SALT = bytes(range(32)), b"twelve bytes"
CONFIG = ConfigDict({"coefficients": 5, "spacing": 8.0})
FRAMES, SIZE, MACROBLOCKS, SKIP = 3, (48, 64), 12, 9


@pytest.fixture
def fine_symbols():
    return fine.make(CONFIG, SKIP, KEY)


def _cover():
    return smooth(FRAMES, *SIZE) // 2 + 60


def _sent(fine_symbols, cover):
    bits = fine_symbols.filler(SALT, FRAMES, MACROBLOCKS)
    return bits, fine_symbols.write(cover, bits)


@pytest.mark.parametrize("of", [in_planes, np.asarray])
def test_bits_come_back(fine_symbols, of):
    cover = of(_cover())
    bits, stego = _sent(fine_symbols, cover)
    pilots, data = fine_symbols.indices(0, FRAMES, MACROBLOCKS)
    llr = fine_symbols.llr(modem.planes_of(stego), bits, pilots)
    assert llr.shape == bits.shape
    assert np.mean((llr[data] < 0) == bits[data]) > 0.98
    if of is in_planes:
        assert stego.y.dtype == np.uint8 and not np.array_equal(stego.y, cover.y)
        assert np.array_equal(stego.cb, cover.cb) and np.array_equal(stego.cr, cover.cr)


def test_confidence_falls_with_noise(fine_symbols):
    bits, stego = _sent(fine_symbols, _cover())
    (luma,), found = modem.planes_of(stego), []
    pilots, data = fine_symbols.indices(0, FRAMES, MACROBLOCKS)
    for deviation in (0, 1, 3):
        noise = np.random.default_rng(0).normal(0, deviation, luma.shape)
        llr = fine_symbols.llr(((luma + noise).astype(np.float32),), bits, pilots)
        found.append((levels.information(llr[data], bits[data]), levels.expected_information(llr[data])))
    assert found == sorted(found, reverse=True)
    assert all(abs(true - expected) < 0.2 for true, expected in found)


def test_every_symbol_has_one_use(fine_symbols):
    pilots, data = fine_symbols.indices(3, FRAMES, MACROBLOCKS)
    uses = np.concatenate([pilots.ravel(), data])
    assert np.array_equal(np.sort(uses), np.arange(FRAMES * MACROBLOCKS * 4 * 5))
    assert not np.array_equal(data, fine_symbols.indices(4, FRAMES, MACROBLOCKS)[1])
    assert not np.array_equal(data, fine.make(CONFIG, SKIP, bytes(32)).indices(3, FRAMES, MACROBLOCKS)[1])


def test_the_coefficients_below_stay(fine_symbols):
    below = symbols.make_carriers((1.0,) * SKIP, ())
    _, stego = _sent(fine_symbols, _cover())
    before, after = (np.asarray(symbols.read_values(x, below)) for x in (_cover(), stego))
    assert np.quantile(np.abs(after - before), 0.99) < 1.5  # rounding to 8 bits


def test_salt_decides_over_the_filling(fine_symbols):
    assert not np.array_equal(
        fine_symbols.filler(SALT, 1, MACROBLOCKS), fine_symbols.filler(b"another salt", 1, MACROBLOCKS)
    )
