"""Thumbnails: they fit, they get finer with their capacity, and come back at any size."""

import numpy as np
import pytest

from deepsteg_jax import metrics
from deepsteg_jax.errors import UserError
from deepsteg_jax.schemes.robust import thumbnail
from tests.synthetic import smooth


def test_more_bytes_come_nearer():
    secret = smooth(8, 64, 96) // 2 + 60
    reached = [metrics.mean_psnr(secret, np.full_like(secret, 128))]
    for capacity in (24, 48, 100, 300, 1000):
        message = thumbnail.encode(secret, capacity)
        assert len(message) <= capacity
        reached.append(metrics.mean_psnr(secret, thumbnail.decode(message, *secret.shape[:3])))
    assert reached[1:] == sorted(reached[1:])
    assert reached[3] > reached[0] + 6 and reached[-1] > 36


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 2, 3), (32, 6, 200), (3, 130, 70)])
def test_any_size_comes_back(shape):
    secret = np.broadcast_to(np.array([250, 20, 90], np.uint8), (*shape, 3))
    message = thumbnail.encode(secret, 40)
    shown = thumbnail.decode(message, *shape)
    assert shown.shape == secret.shape and shown.dtype == np.uint8
    assert np.abs(shown.astype(int) - secret).max() < 12


def test_noise_needs_no_more_than_its_room():
    secret = np.random.default_rng(0).integers(0, 256, (4, 40, 40, 3), np.uint8)
    assert len(thumbnail.encode(secret, 200)) <= 200


def test_what_does_not_fit_is_refused():
    with pytest.raises(UserError, match="does not fit into 3 bytes"):
        thumbnail.encode(smooth(2, 16, 16), 3)


@pytest.mark.parametrize("message", [b"", b"\x10abc"])
def test_damage_is_one_line(message):
    with pytest.raises(UserError, match="damaged"):
        thumbnail.decode(message, 2, 16, 16)
