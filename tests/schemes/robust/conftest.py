"""A secret that is hidden once, quickly, for all tests of segments, and stand-ins for those."""

from fractions import Fraction
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from configs.robust import get_config
from deepsteg_jax import media, models
from deepsteg_jax.schemes.base import Metadata
from deepsteg_jax.schemes.robust import layout, receiver, scheme, secret_codec, sender, sound
from deepsteg_jax.schemes.slots import ALONE
from deepsteg_jax.training import checkpoints
from tests.synthetic import in_planes, smooth

KEY = bytes(range(32))
SHORT_SEGMENT, PROBE_FRAMES = 4, 24  # frames, of the stand-ins
FRAMES, SIZE = 16, (128, 192)
ABOUT = Metadata(100, 60, FRAMES, FRAMES, media.FOLDER_RATE, False, False, Fraction(1))


def load_scheme(config) -> scheme.RobustScheme:
    """The scheme with the parameters of its checkpoint."""
    model = models.build(config.model)

    def load(side):
        return checkpoints.restore_params(config.checkpoint, model, config.model, side)

    return scheme.RobustScheme(config, load)


@pytest.fixture(scope="session")
def parties():
    """The sender and, for a key, a new receiver of segments, with three layers and no limit on growth."""
    if not (media.has_encoder("libx264") and secret_codec.has_encoder()):
        pytest.skip("this build of FFmpeg lacks x264 or an encoder of secrets")
    config = get_config()
    config.secret_layers = (("01", 1.0, "CRF20"), ("2", 1.0, "C2"), ("fine", 1.0, "C2"))
    config.growth, config.model.spacing = 0.0, 76.0
    loaded = load_scheme(config)
    return SimpleNamespace(
        config=config,
        scheme=loaded,
        sender=lambda *others: loaded.segment_sender([KEY, *others], *SIZE),
        receiver=lambda key=KEY, slot=ALONE: loaded.segment_receiver(key, *SIZE, slot),
    )


@pytest.fixture(scope="session")
def hidden(parties):
    """(secret, stego); read-only."""
    secret, cover = smooth(FRAMES, 60, 100, seed=5), in_planes(smooth(FRAMES, *SIZE) // 2 + 60)
    stego = parties.sender().send(0, cover, [sender.Secret(secret, ABOUT)]).stego
    for frames in (secret, *stego):
        frames.setflags(write=False)
    return secret, stego


def reveal(parties, frames: media.Planes | list[media.Planes], key=KEY, slot=ALONE) -> list:
    """The parts of all segments."""
    receiver, frames = parties.receiver(key, slot), media.unstack(frames)
    return [part for frame in frames for part in receiver.take(frame)] + receiver.finish()


# --- stand-ins ------------------------------------------------------------------------------------


@pytest.fixture
def wire(monkeypatch):
    """What is between the stand-ins: `sent[number]`, of which `lost` ones do not arrive.

    That is the content of the first slot, and `slots[key, slot][number]` that of every one. The receiver
    counts frames, from frame `trimmed` on. Sound has `capacities`, in bytes. `exact`: the stego's file is.
    """
    wire = SimpleNamespace(sent={}, slots={}, lost=set(), trimmed=0, layers=lambda number: (3, 3))
    wire.sounds, wire.capacities = {}, [0, 4000, 0, 0]

    class SegmentSender:
        def __init__(self, config, modem, shared):
            wire.master, self.survives = shared[0][0], True
            wire.slots = {(master, slot): {} for master, *_, slot in shared}
            wire.sent = wire.slots[wire.master, shared[0][-1]]

        def send(self, number, cover, secrets, progress):
            assert number == len(wire.sent)
            for (secret, metadata, _), sent in zip(secrets, wire.slots.values(), strict=True):
                for plane in jax.tree.leaves(cover):
                    assert 0 < len(plane) == len(secret) <= SHORT_SEGMENT and plane.dtype == np.uint8
                assert secret.shape[1:] == (metadata.height, metadata.width, 3) and secret.dtype == np.uint8
                sent[number] = secret.copy(), metadata
            progress(0.6)
            heard = secrets[0].sound
            blocks = heard.blocks(number, wire.capacities) if heard else []
            wire.sounds[number] = next(filter(None, blocks), None)
            return SimpleNamespace(stego=jax.tree.map(lambda x: x ^ 1, cover))

    class SegmentReceiver:
        def __init__(self, modem, shared, placed):
            master, *self._size, slot = shared
            self._sent, self._at = wire.slots.get((master, slot), {}), wire.trimmed

        def take(self, frame):
            planes = jax.tree.leaves(frame)
            assert len(planes) in (1, 3) and all(plane.dtype == np.uint8 for plane in planes)
            assert planes[0].shape[:2] == tuple(self._size)
            self._at += 1
            return [] if self._at % SHORT_SEGMENT else self._part(self._at // SHORT_SEGMENT - 1)

        def finish(self):
            return self._part(self._at // SHORT_SEGMENT) if self._at % SHORT_SEGMENT else []

        def _part(self, number):
            if number not in self._sent or number in wire.lost:
                return []
            frames, metadata = self._sent[number]
            return [receiver.Part(number, metadata, frames, *wire.layers(number), 0, wire.sounds[number])]

    def make_format(config, *shared, exact=True):
        wire.exact = exact
        return shared

    monkeypatch.setattr(layout, "LEAST_PILOTS", 4)  # lets small frames through
    for module in (sender, receiver, scheme, sound):
        monkeypatch.setattr(module, "SEGMENT", SHORT_SEGMENT)
    monkeypatch.setattr(scheme, "PROBE_FRAMES", PROBE_FRAMES)
    monkeypatch.setattr(scheme.RobustScheme, "_places", lambda self, stego, master: [])
    monkeypatch.setattr(scheme, "make_format", make_format)
    monkeypatch.setattr(scheme, "SegmentSender", SegmentSender)
    monkeypatch.setattr(scheme, "SegmentReceiver", SegmentReceiver)
    return wire


@pytest.fixture
def robust(wire):
    """The scheme with those stand-ins; no checkpoint is needed."""
    return scheme.RobustScheme(get_config("tiny"), no_params)


def no_params(side):
    """What a checkpoint would hold."""
    return {}
