import numpy as np
import pytest

from deepsteg_jax import keys
from deepsteg_jax.schemes.adaptive import header
from deepsteg_jax.schemes.slots import Slot
from tests.schemes.adaptive.conftest import KEY

SALT, MASTER = bytes(range(16)), keys.derive_key(KEY, bytes(range(16)))
HEADER = header.Header(True, 6, 9, 250, 1234, 300_000, bytes(range(32)), SALT)


def planes(highest=255, seed=0):
    kind = np.uint8 if highest == 255 else np.uint16
    rng = np.random.default_rng(seed)
    return tuple(rng.integers(0, highest + 1, shape, kind) for shape in ((64, 48), (32, 24), (32, 24)))


@pytest.mark.parametrize("highest", [255, 1023])
def test_a_header_is_read_by_its_key_alone(highest):
    cover = planes(highest)
    stego, _ = header.embed(cover, SALT, [MASTER], [HEADER])
    assert header.read(stego, keys.Deriver(KEY)) == (HEADER, Slot())
    assert header.read(stego, keys.Deriver(bytes(32))) is None
    assert header.read(cover, keys.Deriver(KEY)) is None


@pytest.mark.parametrize("value", [0, 255, 256, 1023])
def test_saturated_samples_change_by_one_and_only_where_told(value):
    cover = tuple(np.full_like(plane, value, dtype=np.uint16) for plane in planes())
    stego, taken = header.embed(cover, SALT, [MASTER], [HEADER])
    change = np.concatenate([(a.astype(int) - b).ravel() for a, b in zip(stego, cover, strict=True)])
    assert set(np.abs(change)) == {0, 1} and len(set(taken)) == len(taken)
    assert set(np.flatnonzero(change)) <= set(taken) and len(taken) == header.sample_count(len(change), 1)
    assert {plane.dtype for plane in stego} == {np.dtype(np.uint16)}
    assert header.read(stego, keys.Deriver(KEY)) == (HEADER, Slot())


@pytest.mark.parametrize("field", [{"height": 3}, {"height": 200}])
def test_a_header_that_asks_for_too_much_is_none(field):
    stego, _ = header.embed(planes(), SALT, [MASTER], [HEADER._replace(**field)])
    assert header.read(stego, keys.Deriver(KEY)) is None


def test_a_header_of_another_version_is_none(monkeypatch):
    stego, _ = header.embed(planes(), SALT, [MASTER], [HEADER])
    monkeypatch.setattr(header, "VERSION", header.VERSION + 1)
    assert header.read(stego, keys.Deriver(KEY)) is None


def test_reading_derives_one_key_whatever_the_frame():
    for frame in (planes(), tuple(plane[:8] for plane in planes())):
        deriver = keys.Deriver(KEY)
        assert header.read(frame, deriver) is None and deriver.count == 1
