"""A segment: each bit has one use, and what is put in is found by the key holder."""

from fractions import Fraction

import numpy as np
import pytest

from configs.robust import get_config
from deepsteg_jax.schemes.base import Metadata
from deepsteg_jax.schemes.robust import code, levels
from deepsteg_jax.schemes.robust.header import Header
from deepsteg_jax.schemes.robust.layout import COARSE, FINE
from deepsteg_jax.schemes.robust.segment import Reading, make_format

KEY, OTHER = bytes(range(32)), bytes(32)
SIZE = 192, 320
ABOUT = Metadata(100, 60, 8, 8, Fraction(25), False, False, Fraction(1))
LAYERS = *((("01", 1 / 3, "CRF28"),) * 3), ("2", 1.0, "CRF18"), ("fine", 1.0, "C2")
CAPACITIES = 24, 60, 0, 100, 200
MESSAGES = (b"coarse", b"coarser", b"", b"finer", b"finest" * 20)


def _config():
    config = get_config()
    config.secret_layers = LAYERS
    return config


def _segment(key=KEY, number=3, repeat=4, salt=b"a salt"):
    header = Header(salt, 8, repeat, CAPACITIES, ABOUT)
    return make_format(_config(), key, *SIZE).segment(number, header)


def _sure(bits):
    return 8.0 * (1 - 2.0 * bits)


@pytest.fixture(scope="module")
def segment():
    return _segment()


def test_messages_come_back(segment):
    bits, fine_bits = segment.filled(MESSAGES)
    added = (bits ^ segment.filler()).reshape(-1, levels.LEVELS), fine_bits ^ segment.fine_filler()
    for i, (layer, symbols) in enumerate(zip(segment.format.layers, segment.indices, strict=True)):
        if not CAPACITIES[i]:
            continue
        carried = added[1][symbols] if layer.levels == FINE else added[0][symbols][:, list(layer.levels)]
        message, coded = segment.opened(i, _sure(carried.ravel()))
        assert message == MESSAGES[i]
        np.testing.assert_array_equal(coded, carried.ravel())
        assert _segment(OTHER).opened(i, _sure(carried.ravel())) is None
        assert segment.opened(i, 0 * _sure(carried.ravel())) is None


@pytest.mark.parametrize("at", [0, 30, -1])
def test_one_wrong_byte_opens_nothing(segment, at):
    """Of picture and sound, or of the tag, however well the code corrects."""
    coded, wrong = segment._sealed(1, MESSAGES[1]), np.zeros(CAPACITIES[1], np.uint8)
    wrong[at] = 1
    ecc = code.build(len(coded), 8 * CAPACITIES[1])
    assert segment.opened(1, _sure(coded))[0] == MESSAGES[1]
    assert segment.opened(1, _sure(coded ^ ecc.encode(np.unpackbits(wrong)))) is None


def test_nothing_else_is_changed(segment):
    """Pilots, references, header and what no layer uses are the filler's."""
    changed = (segment.filled(MESSAGES)[0] ^ segment.filler()).reshape(-1, levels.LEVELS)
    symbols, quarters = segment.unused(segment.filler().reshape(-1, levels.LEVELS))
    assert not changed[symbols, :2].any() and quarters.shape == (len(symbols), 2)
    coarse = [s for s, layer in zip(segment.indices[:2], segment.format.layers, strict=False)]
    assert len(symbols) + sum(map(len, coarse)) == len(changed) and not set(symbols) & {
        *np.concatenate(coarse)
    }
    here = segment.format.layout
    for i, start in enumerate(segment.starts):
        frame = changed.reshape(len(segment.starts), here.symbols, -1)[i]
        assert not frame[here.pilots].any() and not frame[here.references].any()
        filler = segment.filler()[i]
        np.testing.assert_array_equal(filler[here.pilots], here.pilot_bits(segment.first + start))
        np.testing.assert_array_equal(filler[here.references], here.reference_bits(segment.first + start))


def test_symbols_begin_where_the_header_says(segment):
    assert list(segment.starts) == [0, 4] and segment.first == 96
    assert segment.filler().shape == (2, 6 * 240, levels.LEVELS)
    assert _segment(repeat=1).filler().shape == (8, 6 * 240, levels.LEVELS)
    here = segment.format.layout
    indices, phases = segment.pilots()
    assert set(indices) == {*here.grid, *here.pilots} and phases.shape == (8, len(indices))


def test_key_number_and_salt_decide(segment):
    for other in (_segment(OTHER), _segment(number=4)):
        assert not np.array_equal(other.indices[0], segment.indices[0])
    salted = segment.with_header(salt=b"pepper")
    assert salted.indices is segment.indices
    assert not np.array_equal(salted.filler(), segment.filler())
    assert not np.array_equal(salted.fine_filler(), segment.fine_filler())


def test_known_levels_tell_finer_ones():
    bits = np.random.default_rng(0).integers(0, 2, (500, levels.LEVELS), np.uint8)
    read = np.stack([levels.to_phases(bits), np.full(500, 0.01), np.full(500, 1e-3)])
    symbols, shared = np.arange(500), make_format(_config(), KEY, *SIZE)
    reading, wrong = (Reading(shared, read, bits) for _ in range(2))
    reading.know(COARSE, symbols, bits[:, :2])
    wrong.know(COARSE, symbols, 1 - bits[:, :2])
    layer = shared.layers[3]
    assert layer.levels == (2,)
    assert levels.information(reading.llr(layer, symbols), bits[:, 2]) > 0.9
    assert levels.information(wrong.llr(layer, symbols), bits[:, 2]) < 0.5
