"""Layers of a secret: each fits and comes nearer than the one below."""

from fractions import Fraction

import pytest

from deepsteg_jax import media, metrics
from deepsteg_jax.schemes.robust import secret_codec, secret_layers
from tests.synthetic import smooth

pytestmark = pytest.mark.skipif(
    not media.has_encoder(secret_codec.CODEC), reason="this build of FFmpeg lacks SVT-AV1"
)


def test_layers_refine_or_replace_each_other():
    secret = smooth(8, 64, 96)
    messages = secret_layers.encode_layers(secret, [300, 0, 700, 3000], Fraction(25))
    assert messages[1] == b"" and all(len(m) <= r for m, r in zip(messages, [300, 0, 700, 3000], strict=True))
    shown, reached = None, 0.0
    for message in filter(None, messages):
        shown = secret_layers.decode_layer(message, shown, secret.shape)
        psnr = metrics.mean_psnr(secret, shown)
        assert psnr > reached
        reached = psnr
    assert reached > 28


def test_next_to_no_room_holds_a_thumbnail():
    secret = smooth(8, 64, 96) // 2 + 60
    (message,) = secret_layers.encode_layers(secret, [60], Fraction(25))
    assert 40 < len(message) <= 60
    shown = secret_layers.decode_layer(message, None, secret.shape)
    assert metrics.mean_psnr(secret, shown) > metrics.mean_psnr(secret, 0 * secret + 128) + 3
