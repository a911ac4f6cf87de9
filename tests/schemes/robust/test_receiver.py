"""Segments with the shipped checkpoint: through real codecs, from what is left, not without the key."""

import logging
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from deepsteg_jax import keys, media, metrics
from deepsteg_jax.channels import ladder
from deepsteg_jax.models import symbols as symbol_model
from deepsteg_jax.schemes.base import Stego
from deepsteg_jax.schemes.robust import receiver
from deepsteg_jax.schemes.robust.geometry import Geometry
from tests.schemes.robust.conftest import ABOUT, KEY, SIZE, load_scheme, reveal
from tests.synthetic import in_planes, smooth


def test_comes_back_finer_through_better_channels(parties, hidden):
    secret, stego = hidden
    found = []
    for codec in ("CRF18", "C2"):
        (part,) = reveal(parties, ladder.run(ladder.named(codec), stego).frames)
        assert part.number == 0 and part.metadata == ABOUT
        assert part.frames.shape == secret.shape and part.frames.dtype == np.uint8
        found.append((part.layers, metrics.mean_psnr(secret, part.frames)))
    assert [layers for layers, _ in found] == [1, 3]
    assert found[1][1] > 26 and found[1][1] > found[0][1] + 1


@pytest.mark.slow
def test_missing_and_repeated_frames_do_no_harm(parties, hidden):
    secret, stego = hidden
    (part,) = reveal(
        parties, media.Planes(*(x[[0, 1, 1, 2, 4, 5, 6, 8, 9, 9, 10, 12, 13, 15]] for x in stego))
    )
    assert part.frames.shape == secret.shape
    assert metrics.mean_psnr(secret, part.frames) > 18


def _waiting(parties, number, lost):
    """A receiver that finds every frame as `number`, and calls `lost` with how many it looks for together."""
    segments = parties.scheme.segment_receiver(KEY, *SIZE)
    segments._finder = SimpleNamespace(find=lambda pilots: number, find_lost=lambda pilots: lost(len(pilots)))
    return segments


def test_frames_that_are_not_found_are_looked_for_together_again_and_again(parties, hidden):
    (frame, *_), tried = media.unstack(hidden[1]), []
    segments = _waiting(parties, None, tried.append)
    for _ in range(200):
        assert not segments.take(frame)
        assert len(segments._received) <= 64
    assert tried == [32, 64, 64, 64, 64, 64]


def test_a_picture_that_stands_still_takes_no_more_memory(parties, hidden):
    frame, *_ = media.unstack(hidden[1])
    segments = _waiting(parties, (3, 76.0), lambda count: None)
    for _ in range(200):
        assert not segments.take(frame)
    assert len(segments._received) == 128


def test_symbols_that_were_cut_off_say_nothing_of_the_others(parties, hidden, monkeypatch):
    placed, calibrating = Geometry(SIZE, (1.0, 1.0), (16.0, 32.0)), []
    segments = parties.scheme.segment_receiver(KEY, *SIZE, placed=placed)
    modem = segments._modem
    monkeypatch.setattr(
        modem, "read", lambda *told, read=modem.read: calibrating.append(told[2]) or read(*told)
    )
    cut = (media.Planes(y[16:, 32:], cb[8:, 16:], cr[8:, 16:]) for y, cb, cr in media.unstack(hidden[1]))
    parts = [part for frame in cut for part in segments.take(frame)] + segments.finish()
    assert [part.number for part in parts] == [0]
    rows, columns = (side // symbol_model.MACROBLOCK for side in SIZE)
    for symbols in calibrating:
        assert (symbols // columns % rows >= 1).all() and (symbols % columns >= 2).all() and len(symbols) > 50


def test_the_finest_that_can_be_read_is_shown(monkeypatch):
    """A refinement only on the layer that it refines, and nothing is decoded that is not shown."""
    decoded = []

    def decode(message, below, shape):
        decoded.append(message)
        return message if below is None else below + message

    monkeypatch.setattr(receiver, "decode_layer", decode)
    monkeypatch.setattr(receiver, "needs_below", lambda message: message.islower())
    for messages, shown, count in [
        ([b"A", b"b", b"C"], b"C", 3),
        ([None, None], None, 0),
        ([b"A", b"B"], b"B", 2),
        ([b"A", None, b"C"], b"C", 2),
        ([b"A", b"b", b"c"], b"Ac", 3),
        ([b"A", b"b", None], b"Ab", 2),
        ([b"A", None, b"cc"], b"A", 1),
        ([None, b"b"], None, 0),
    ]:
        decoded.clear()
        assert receiver._shown(messages, ()) == (shown, count)
        assert len(decoded) <= 2


def test_another_key_finds_nothing(parties, hidden):
    assert reveal(parties, hidden[1], bytes(32)) == []


def test_a_cover_alone_has_nothing(parties):
    assert reveal(parties, in_planes(smooth(6, *SIZE))) == []


@pytest.mark.slow
def test_a_second_file_compiles_nothing(parties, hidden, caplog, monkeypatch):
    """Programs are kept by the scheme."""
    scheme, stego = load_scheme(parties.config), media.unstack(hidden[1])
    monkeypatch.setattr(keys, "derive_key", lambda credential, salt: KEY)
    info = media.Info(*SIZE[::-1], len(stego), media.FOLDER_RATE, False)

    def reveal_file():
        with caplog.at_level(logging.WARNING), jax.log_compiles():
            caplog.clear()
            found = scheme.probe(Stego(info, lambda: iter(stego)), keys.Deriver(KEY))
            assert found.read == len(stego) and len(scheme.receiver(found).finish()) == len(stego)
            return [record for record in caplog.records if "racing" in record.getMessage()]

    assert reveal_file() and not reveal_file()
