"""A secret that is hidden once, quickly, for all tests of segments, and stand-ins for those."""

from contextlib import contextmanager
from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pytest

from configs.robust import get_config
from deepsteg_jax import media, models
from deepsteg_jax.schemes.base import Metadata
from deepsteg_jax.schemes.robust import layout, receiver, scheme, secret_codec, sender
from deepsteg_jax.training import checkpoints
from tests.synthetic import smooth

KEY = bytes(range(32))
SHORT_SEGMENT, PROBE_FRAMES = 4, 24  # frames, of the stand-ins
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
    return SimpleNamespace(
        config=config,
        scheme=loaded,
        sender=lambda: loaded.segment_sender(KEY, *SIZE),
        receiver=lambda key=KEY: loaded.segment_receiver(key, *SIZE),
    )


@pytest.fixture(scope="session")
def hidden(parties):
    """(secret, stego); read-only."""
    secret = smooth(FRAMES, 60, 100, seed=5)
    with quick_encoders():
        stego = parties.sender().send(0, smooth(FRAMES, *SIZE) // 2 + 60, secret, ABOUT).stego
    for frames in (secret, stego):
        frames.setflags(write=False)
    return secret, stego


def reveal(parties, frames: np.ndarray, key=KEY) -> list:
    """The parts of all segments."""
    receiver = parties.receiver(key)
    return [part for frame in frames for part in receiver.take(frame)] + receiver.finish()


# --- stand-ins ------------------------------------------------------------------------------------


@pytest.fixture
def wire(monkeypatch):
    """What is between the stand-ins: `sent[number]`, of which `lost` ones do not arrive.

    The receiver counts frames, from frame `trimmed` on.
    """
    wire = SimpleNamespace(sent={}, lost=set(), trimmed=0, layers=lambda number: (3, 3))

    class SegmentSender:
        def __init__(self, config, modem, shared):
            wire.master = shared[0]

        def send(self, number, cover, secret, metadata):
            assert number == len(wire.sent) and 0 < len(cover) == len(secret) <= SHORT_SEGMENT
            assert cover.dtype == secret.dtype == np.uint8
            assert secret.shape[1:] == (metadata.height, metadata.width, 3)
            wire.sent[number] = secret.copy(), metadata
            return SimpleNamespace(stego=cover ^ 1)

    class SegmentReceiver:
        def __init__(self, modem, restore, shared):
            master, *self._size = shared
            self._wire = wire if master == wire.master else SimpleNamespace(sent={}, trimmed=0)
            self._at = wire.trimmed

        def take(self, frame):
            assert frame.shape == (*self._size, 3) and frame.dtype == np.uint8
            self._at += 1
            return [] if self._at % SHORT_SEGMENT else self._part(self._at // SHORT_SEGMENT - 1)

        def finish(self):
            return self._part(self._at // SHORT_SEGMENT) if self._at % SHORT_SEGMENT else []

        def _part(self, number):
            if number not in self._wire.sent or number in wire.lost:
                return []
            frames, metadata = wire.sent[number]
            return [receiver.Part(number, metadata, frames, *wire.layers(number), 0)]

    monkeypatch.setattr(layout, "LEAST_PILOTS", 4)  # lets small frames through
    for module in (sender, receiver, scheme):
        monkeypatch.setattr(module, "SEGMENT", SHORT_SEGMENT)
    monkeypatch.setattr(scheme, "PROBE_FRAMES", PROBE_FRAMES)
    monkeypatch.setattr(scheme, "make_format", lambda config, *shared: shared)
    monkeypatch.setattr(scheme, "SegmentSender", SegmentSender)
    monkeypatch.setattr(scheme, "SegmentReceiver", SegmentReceiver)
    return wire


@pytest.fixture
def robust(wire):
    """The scheme with those stand-ins; no checkpoint is needed."""
    return scheme.RobustScheme(get_config("tiny"), {"hide": no_params(), "reveal": no_params()}.__getitem__)


def no_params():
    return {"reliability": None, "restoration": None}
