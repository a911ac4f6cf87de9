"""A secret in a number of bytes."""

import numpy as np
import pytest

from deepsteg_jax import media, metrics
from deepsteg_jax.errors import UserError
from deepsteg_jax.schemes.robust import secret_codec
from tests.synthetic import smooth

pytestmark = pytest.mark.skipif(
    not media.has_encoder(secret_codec.CODEC), reason="this build of FFmpeg has no AV1 encoder"
)


def test_fits_and_gets_better_with_room():
    secret, last = smooth(9, 90, 130), 0.0
    for capacity in (400, 1000, 4000):
        message = secret_codec.encode(secret, capacity)
        assert len(message) <= capacity
        shown = secret_codec.decode(message, *secret.shape[:3])
        assert shown.shape == secret.shape and shown.dtype == np.uint8
        assert metrics.mean_psnr(secret, shown) > last
        last = metrics.mean_psnr(secret, shown)
    assert last > 30


def test_a_single_frame():
    secret = smooth(1, 64, 64)
    shown = secret_codec.decode(secret_codec.encode(secret, 900), 1, 64, 64)
    assert metrics.mean_psnr(secret, shown) > 30


@pytest.mark.parametrize("number", range(len(secret_codec.SIZES)))
def test_every_size_comes_back_whole(number):
    secret = smooth(10, 64, 96)
    message = secret_codec._try_size(secret, number, 10**6, media.FOLDER_RATE)[1]
    assert message[0] == number
    assert secret_codec.decode(message, 10, 64, 96).shape == secret.shape


def test_too_little_room_is_refused():
    with pytest.raises(UserError, match="does not fit into 20 bytes"):
        secret_codec.encode(smooth(4, 64, 64), 20)


@pytest.mark.parametrize("message", [b"", bytes([99]) + b"x" * 50, bytes(60)])
def test_damage_is_refused(message):
    with pytest.raises(UserError):
        secret_codec.decode(message, 4, 64, 64)


def test_the_search_climbs_to_the_best_size():
    heights = [-np.inf, 1, 3, 5, 4, 2]
    for start in range(6):
        assert secret_codec._climb(lambda i: heights[i] if 0 <= i < 6 else -np.inf, start) == 3
