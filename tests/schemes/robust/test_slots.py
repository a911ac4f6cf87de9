"""Two secrets in one stego of `robust`, each with its own key; nothing tells whether both are real."""

import random

import numpy as np
import pytest

from configs.robust import get_config
from deepsteg_jax import keys, metrics, pipeline
from deepsteg_jax.channels import ladder
from deepsteg_jax.errors import UserError
from deepsteg_jax.schemes.base import NOTHING
from deepsteg_jax.schemes.robust.segment import make_format
from deepsteg_jax.schemes.robust.sender import Secret
from deepsteg_jax.schemes.slots import Slot
from tests.helpers import names, read_stack
from tests.schemes.robust.conftest import ABOUT, FRAMES, KEY, SIZE, reveal
from tests.synthetic import in_planes, noise, save, smooth

OTHER, WRONG = bytes(reversed(range(32))), bytes(32)
SLOTS = Slot(0, 2), Slot(1, 2)


@pytest.fixture(scope="module")
def shared(parties):
    """(two secrets, stego)."""
    secrets = [smooth(FRAMES, 60, 100, seed=seed) for seed in (5, 7)]
    cover = in_planes(smooth(FRAMES, *SIZE) // 2 + 60)
    return secrets, parties.sender(OTHER).send(0, cover, [Secret(x, ABOUT) for x in secrets]).stego


def test_each_key_opens_its_own_slot(parties, shared):
    secrets, stego = shared
    for key, slot, secret in zip((KEY, OTHER), SLOTS, secrets, strict=True):
        (part,) = reveal(parties, stego, key, slot)
        assert part.metadata == ABOUT and part.layers == part.of
        assert metrics.mean_psnr(secret, part.frames) > 24
    coded = ladder.run(ladder.named("CRF18"), stego).frames
    (part,) = reveal(parties, coded, OTHER, SLOTS[1])
    assert part.layers == 1


@pytest.mark.slow
def test_and_nothing_else(parties, shared):
    for key, slot in [(KEY, SLOTS[1]), (KEY, Slot()), (WRONG, SLOTS[0])]:
        assert reveal(parties, shared[1], key, slot) == []


@pytest.mark.parametrize("variant", ["", "image"])
def test_every_symbol_has_one_slot_and_all_slots_as_many(variant):
    config = get_config(variant)
    first, second = (make_format(config, KEY, 144, 240, slot) for slot in SLOTS)
    for one, other in (
        (first.layout.own, second.layout.own),
        (first.fine.share(first.macroblocks), second.fine.share(second.macroblocks)),
    ):
        assert np.array_equal(one, ~other) and one.sum() == other.sum()
    for layout in (first.layout, second.layout):
        used = np.concatenate([layout.grid, layout.pilots, layout.references, layout.header, layout.data])
        assert np.array_equal(np.sort(used), np.flatnonzero(layout.own))
    assert not np.array_equal(first.layout.pilot_bits(0), second.layout.pilot_bits(0))


# --- files, with stand-ins for segments -----------------------------------------------------------


@pytest.fixture
def filled(robust, wire, tmp_path, monkeypatch):
    """What is said and sent of a secret alone and of two: {real: (told, report, slots, stego)}."""
    monkeypatch.setattr(random.SystemRandom, "shuffle", lambda self, filled: None)
    cover, made = save(tmp_path / "cover.mkv", smooth(10)), {}
    secrets = save(tmp_path / "a.mkv", noise(10, 20, 30)), save(tmp_path / "b.mkv", noise(4, 16, 24), 12.5)
    for real in (1, 2):
        told, stego = [], tmp_path / f"stego{real}.mkv"
        settings = pipeline.DEFAULTS._replace(slots=2)
        job = robust, [KEY, OTHER][:real], cover, secrets[:real], stego, told.append, settings, told.append
        report = pipeline.hide(*job)._replace(seconds=1, size_bytes=0)
        told = [x.partition(f"; {stego}")[0] if isinstance(x, str) else x for x in told]
        made[real] = told, report, wire.slots, stego
    return made


def test_a_sender_says_and_does_the_same_however_many_are_real(filled):
    (told, report, one, _), (same, again, two, _) = filled[1], filled[2]
    assert told == same and report == again and told[0] == "2 slots" and report.notes == ()
    assert [list(sent) for sent in one.values()] == [list(sent) for sent in two.values()] == [[0, 1, 2]] * 2


def revealed(robust, key, stego, folder):
    """What a receiver says and writes, and the number of keys that it derives."""
    told, derive_key = [], keys.derive_key
    folder.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keys, "derive_key", lambda *given: told.append("derived") or derive_key(*given))
        try:
            report = pipeline.reveal([robust], key, stego, folder / "out.mkv", told.append)
            told += [report._replace(seconds=1, size_bytes=0), read_stack(folder / "out.mkv").tobytes()]
        except UserError as error:
            told.append(str(error))
    return told, names(folder)


@pytest.mark.parametrize("key", [KEY, WRONG])
def test_a_receiver_says_and_does_the_same_however_many_are_real(filled, robust, wire, tmp_path, key):
    found = []
    for real, (*_, wire.slots, stego) in filled.items():
        found.append(revealed(robust, key, stego, tmp_path / f"{real}"))
    assert found[0] == found[1] and found[0][0].count("derived") == 1
    assert (found[0][0][-1] == NOTHING) == (key == WRONG)


def test_the_second_secret_comes_back_at_its_own_pace(filled, robust, wire, tmp_path):
    """Every frame is shown twice; where it ends it begins again."""
    *_, wire.slots, stego = filled[2]
    pipeline.reveal([robust], OTHER, stego, tmp_path / "out.mkv", lambda told: None)
    shown = np.repeat(noise(4, 16, 24), 2, axis=0)
    np.testing.assert_array_equal(read_stack(tmp_path / "out.mkv"), shown)
