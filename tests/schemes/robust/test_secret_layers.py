"""Layers of a secret: each fits and comes nearer than the one below."""

from fractions import Fraction

import pytest

from deepsteg_jax import metrics
from deepsteg_jax.schemes.robust import secret_codec, secret_layers
from tests.synthetic import smooth

pytestmark = pytest.mark.skipif(not secret_codec.has_encoder(), reason="there is no encoder of secrets")

ROOMS = [300, 0, 700, 1200]


def test_layers_refine_or_replace_each_other():
    secret = smooth(8, 128, 192)
    messages = secret_layers.LayerCoder().encode(secret, ROOMS, Fraction(25))
    assert messages[1] == b"" and all(len(m) <= r for m, r in zip(messages, ROOMS, strict=True))
    assert [message[:1] for message in messages] == [b"\2", b"", b"\0", b"\1"]
    assert secret_layers.decode_layer(messages[-1], None, secret.shape) is None
    shown, reached = None, 0.0
    for message in filter(None, messages):
        shown = secret_layers.decode_layer(message, shown, secret.shape)
        psnr = metrics.mean_psnr(secret, shown)
        assert psnr > reached
        reached = psnr
    assert reached > 28


def test_next_to_no_room_holds_a_thumbnail():
    secret = smooth(8, 64, 96) // 2 + 60
    (message,) = secret_layers.LayerCoder().encode(secret, [60], Fraction(25))
    assert 40 < len(message) <= 60
    shown = secret_layers.decode_layer(message, None, secret.shape)
    assert metrics.mean_psnr(secret, shown) > metrics.mean_psnr(secret, 0 * secret + 128) + 3


def test_a_refinement_that_would_not_help_is_empty():
    """A black picture is whole in the first layer."""
    messages = secret_layers.LayerCoder().encode(0 * smooth(2, 64, 96), [700, 1000], Fraction(25))
    assert messages[0] and messages[1] == b""


MOST = secret_layers.MOST_THUMBNAIL
WHOLE, REFINEMENT, THUMBNAIL = secret_layers._WHOLE, secret_layers._REFINEMENT, secret_layers._THUMBNAIL


@pytest.mark.parametrize(
    ("rooms", "kinds"),
    [
        ([], []),
        ([0, -8, 1], [None, None, None]),
        ([40, 40, 41], [THUMBNAIL, None, THUMBNAIL]),
        ([MOST - 1, MOST], [THUMBNAIL, REFINEMENT]),
        ([300, MOST, MOST + 90], [THUMBNAIL, WHOLE, REFINEMENT]),
        ([1000, 1500, 1800], [WHOLE, REFINEMENT, WHOLE]),  # a refinement is no measure of the one above it
        ([1000, 0, 900], [WHOLE, None, REFINEMENT]),
    ],
)
def test_the_room_over_the_layer_below_decides_on_the_kind(rooms, kinds):
    assert secret_layers._kinds(rooms) == kinds


@pytest.mark.slow
def test_a_second_refinement_is_of_the_same_layer():
    """So it is of use without the first."""
    secret = smooth(8, 128, 192)
    whole, *finer = secret_layers.LayerCoder().encode(secret, [800, 1000, 1400], Fraction(25))
    assert [secret_layers.needs_below(x) for x in (whole, *finer)] == [False, True, True]
    below = secret_layers.decode_layer(whole, None, secret.shape)
    shown = [secret_layers.decode_layer(message, below, secret.shape) for message in finer]
    reached = [metrics.mean_psnr(secret, frames) for frames in (below, *shown)]
    assert reached == sorted(reached)
