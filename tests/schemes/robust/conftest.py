"""A secret that is hidden once, quickly, for all tests of segments."""

from contextlib import contextmanager
from fractions import Fraction
from functools import cache
from types import SimpleNamespace

import numpy as np
import pytest

from configs.robust import get_config
from deepsteg_jax import media, models
from deepsteg_jax.schemes.base import Metadata
from deepsteg_jax.schemes.robust import scheme, secret_codec, sender
from deepsteg_jax.schemes.robust.receiver import SegmentReceiver
from deepsteg_jax.schemes.robust.segment import make_format
from deepsteg_jax.schemes.robust.sender import SegmentSender
from deepsteg_jax.training import checkpoints
from tests.synthetic import smooth

KEY = bytes(range(32))
FRAMES, SIZE = 16, (96, 160)
ABOUT = Metadata(100, 60, FRAMES, FRAMES, media.FOLDER_RATE, False, False, Fraction(1))


def load_scheme(config) -> scheme.RobustScheme:
    """The scheme with the parameters of its checkpoint."""
    model = models.build(config.model)

    def load(side):
        return checkpoints.restore_params(config.checkpoint, model, config.model, side)

    return scheme.RobustScheme(config, load)


@contextmanager
def quick_encoders():
    """The quickest AV1 and one salt."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(secret_codec, "PRESET", 12)
        patch.setattr(sender, "SALTS", 1)
        yield


@pytest.fixture(scope="session")
def parties():
    """The sender and, for a key, a new receiver of segments, on a config of two layers that grows freely."""
    if not (media.has_encoder("libx264") and media.has_encoder(secret_codec.CODEC)):
        pytest.skip("this build of FFmpeg lacks x264 or SVT-AV1")
    config = get_config()
    config.secret_layers = (("01", 1.0, "CRF20"), ("2", 1.0, "C2"))
    config.growth, config.model.spacing = 0.0, 76.0
    loaded = load_scheme(config)
    formats = cache(lambda key: make_format(config, key, *SIZE))
    return SimpleNamespace(
        config=config,
        scheme=loaded,
        format=formats,
        sender=lambda changed=config: SegmentSender(changed, loaded._sending, formats(KEY)),
        receiver=lambda key=KEY: SegmentReceiver(*loaded._receiving, formats(key)),
    )


@pytest.fixture(scope="session")
def hidden(parties):
    """(secret, stego); read-only."""
    secret = smooth(FRAMES, 60, 100, seed=5)
    with quick_encoders():
        stego = parties.sender().hide(0, smooth(FRAMES, *SIZE) // 2 + 60, secret, ABOUT)
    for frames in (secret, stego):
        frames.setflags(write=False)
    return secret, stego


def reveal(parties, frames: np.ndarray, key=KEY) -> list:
    """The parts of all segments."""
    receiver = parties.receiver(key)
    return [part for frame in frames for part in receiver.take(frame)] + receiver.finish()
