"""Segments with the shipped checkpoint: through real codecs, from what is left, not without the key."""

from fractions import Fraction

import numpy as np
import pytest

from configs.robust import get_config
from deepsteg_jax import media, metrics
from deepsteg_jax.channels import ladder
from deepsteg_jax.commands.common import load_robust
from deepsteg_jax.errors import UserError
from deepsteg_jax.schemes.robust import secret_codec
from deepsteg_jax.schemes.robust.segments import Description, Receiver, Sender
from tests.synthetic import smooth

pytestmark = pytest.mark.skipif(
    not (media.has_encoder("libx264") and media.has_encoder(secret_codec.CODEC)),
    reason="this build of FFmpeg lacks x264 or SVT-AV1",
)
KEY, OTHER = bytes(range(32)), bytes(32)
FRAMES, SIZE = 24, (96, 160)
ABOUT = Description(FRAMES, 100, 60, False, Fraction(25), Fraction(1))


def _config():
    config = get_config()
    config.secret_layers = (("01", 0.5, "CRF24"), ("01", 0.5, "CRF16"), ("2", 1.0, "C2"), ("3", 1.0, "C2"))
    config.growth, config.model.spacing = 0.0, 76.0
    return config


@pytest.fixture(scope="module")
def hidden():
    """(secret, stego)."""
    cover = smooth(FRAMES, *SIZE) // 2 + 60
    secret = smooth(FRAMES, 60, 100, seed=5)
    sender = Sender(_config(), load_robust(_config(), "hide"), KEY)
    return secret, sender.hide(0, cover, secret, ABOUT)


def _reveal(frames, key=KEY):
    receiver = Receiver(_config(), load_robust(_config(), "reveal"), key, *frames.shape[1:3])
    return [part for frame in frames for part in receiver.take(frame)] + receiver.finish()


def _psnr(secret, part):
    return metrics.mean_psnr(secret, part.frames)


def test_comes_back_finer_through_better_channels(hidden):
    secret, stego = hidden
    found = []
    for rung in ("CRF22", "CRF14", "C0"):
        (part,) = _reveal(ladder.run(ladder.named(rung), stego).frames)
        assert part.number == 0 and part.description == ABOUT
        assert part.frames.shape == secret.shape and part.frames.dtype == np.uint8
        found.append((part.layers, _psnr(secret, part)))
    assert found == sorted(found) and found[0][0] < found[-1][0]
    assert found[-1][1] > 26 and found[-1][1] > found[0][1] + 2


def test_missing_and_repeated_frames_do_no_harm(hidden):
    secret, stego = hidden
    kept = [0, 1, 1, 2, 4, 5, 6, 8, 9, 9, 10, 12, 13, 15, 16, 17, 18, 20, 21, 22]
    (part,) = _reveal(stego[kept])
    assert part.frames.shape == secret.shape
    assert _psnr(secret, part) > 18


def test_a_cover_that_stands_still_holds_its_symbols():
    grain = np.random.default_rng(0).integers(0, 24, (1, *SIZE, 3))
    cover = np.repeat((smooth(1, *SIZE) // 2 + 60 + grain).astype(np.uint8), FRAMES, axis=0)
    secret, config = smooth(FRAMES, 60, 100, seed=5), _config()
    config.growth = 1.2
    sender = Sender(config, load_robust(config, "hide"), KEY)
    stego = sender.hide(0, cover, secret, ABOUT)
    moves = stego.astype(int) - cover
    alike = (moves[1:4] == moves[:3]).all(-1)  # all but pilots, of which every frame has its own
    assert 0.5 < alike.mean() < 1 and moves.any()
    rung = ladder.named("C6")
    sizes = [ladder.run(rung, frames).size_bytes for frames in (stego, cover)]
    assert sizes[0] < 1.5 * sizes[1]
    (part,) = _reveal(stego)
    assert part.frames.shape == secret.shape


def test_another_key_finds_nothing(hidden):
    assert _reveal(hidden[1], OTHER) == []


def test_a_cover_alone_has_nothing():
    assert _reveal(smooth(6, *SIZE)) == []


def test_frames_too_small_are_refused():
    sender = Sender(_config(), load_robust(_config(), "hide"), KEY)
    tiny = smooth(2, 16, 16)
    with pytest.raises(UserError, match="too small"):
        sender.hide(0, tiny, tiny, ABOUT)
