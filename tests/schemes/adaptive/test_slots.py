"""Several secrets in one stego, each with its own key, and nothing that tells how many there are."""

import random
from types import SimpleNamespace

import numpy as np
import pytest

from deepsteg_jax import keys, media, pipeline
from deepsteg_jax.errors import UserError
from deepsteg_jax.schemes import low_bits
from deepsteg_jax.schemes.adaptive import embedding, header
from deepsteg_jax.schemes.base import NOTHING
from deepsteg_jax.schemes.slots import Slot, public_order
from tests.helpers import names
from tests.schemes.adaptive.conftest import hide, make_scheme, read_planes, reveal, write_planes
from tests.synthetic import noise, save, smooth

KEYS = [bytes([i]) * 32 for i in range(4)]
COUNT, HEIGHT, WIDTH = 3, 96, 128
ALL, RATE = 4, 0.4  # slots; bits per sample


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    """Four slots with one secret and with four, of which the first has the same slot: paths and reports."""
    folder = tmp_path_factory.mktemp("slots")
    rgb = smooth(COUNT, HEIGHT, WIDTH) // 2 + noise(COUNT, HEIGHT, WIDTH, high=100)
    cover = write_planes(folder / "cover.mkv", [media.from_rgb(frame, "yuv420p") for frame in rgb])
    secrets = tuple(folder / f"secret{i}.bin" for i in range(ALL))
    for i, path in enumerate(secrets):
        path.write_bytes(np.random.default_rng(i).bytes(50 + 100 * i))
    made = SimpleNamespace(cover=cover, secrets=secrets, stegos={}, said={})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(random.SystemRandom, "shuffle", lambda self, filled: None)
        for real in (1, ALL):
            stego, told = folder / f"stego{real}.mkv", []
            hidden = secrets[:real], stego, make_scheme(RATE), KEYS[:real], told.append
            report = hide(cover, *hidden, slots=ALL)
            made.stegos[real] = stego
            made.said[real] = told[0].partition(f"; {stego}")[0], report._replace(seconds=1, size_bytes=0)
    return made


def test_every_key_opens_its_own_slot_and_no_other(tmp_path, filled):
    for key, secret in zip(KEYS, filled.secrets, strict=True):
        reveal(filled.stegos[ALL], f"{tmp_path}/out/", key)
        assert (tmp_path / "out" / secret.name).read_bytes() == secret.read_bytes()
    assert names(tmp_path / "out") == [secret.name for secret in filled.secrets]
    with pytest.raises(UserError, match=NOTHING.split(":")[0]):
        reveal(filled.stegos[1], f"{tmp_path}/no/", KEYS[1])


def test_nothing_that_is_said_tells_how_many_are_real(filled):
    assert filled.said[1] == filled.said[ALL]
    assert filled.said[1][0].startswith("4 slots of 0.6 kB; 0.399 bit per sample, ")


@pytest.mark.parametrize("key", [KEYS[0], bytes(reversed(range(32)))])
def test_a_receiver_prints_writes_and_does_the_same_however_many_are_real(tmp_path, filled, key, monkeypatch):
    """Work is counted, since clocks are not exact: derivations of keys, reads of headers and of chunks."""
    found = []
    for real, stego in filled.stegos.items():
        work, told, output = [], [], tmp_path / f"{real}"
        for owner, name in ((keys, "derive_key"), (low_bits, "read"), (embedding, "extract")):
            usual = getattr(owner, name)

            def counted(*given, usual=usual, name=name, work=work):
                work.append(name)
                return usual(*given)

            monkeypatch.setattr(owner, name, counted)
        try:
            output.mkdir()
            job = [make_scheme()], key, stego, output / "out", told.append, told.append
            told.append(pipeline.reveal(*job)._replace(seconds=1))
            told.append((output / "out").read_bytes())
        except UserError as error:
            told.append(str(error))
        monkeypatch.undo()
        found.append((work, told, names(output)))
    assert found[0] == found[1] and found[0][0].count("derive_key") <= 2


def test_all_slots_change_as_many_samples(filled):
    for stego in filled.stegos.values():
        before, after = (read_planes(path) for path in (filled.cover, stego))
        flat = [np.concatenate([plane.ravel() for plane in frame]).astype(int) for frame in before + after]
        changed = np.stack(flat[:COUNT]) != np.stack(flat[COUNT:])
        order = public_order(changed.shape[1], changed.shape[1])
        counts = [changed[:, order[slot::ALL]].sum() for slot in range(ALL)]
        assert 500 < max(counts) < 1.15 * min(counts)


def test_slots_of_an_image(tmp_path):
    cover = save(tmp_path / "cover.png", smooth(1, HEIGHT, WIDTH) // 2 + noise(1, HEIGHT, WIDTH, high=100))
    for i in range(2):
        (tmp_path / f"secret{i}").write_bytes(bytes([i]) * 100)
    secrets = tmp_path / "secret0", tmp_path / "secret1"
    hide(cover, secrets, tmp_path / "stego.png", make_scheme(RATE), KEYS[:2], slots=2)
    for i in range(2):
        reveal(tmp_path / "stego.png", tmp_path / "out", KEYS[i])
        assert (tmp_path / "out").read_bytes() == bytes([i]) * 100


def test_a_secret_that_fits_the_cover_but_not_its_slot_is_one_line(tmp_path, filled):
    (tmp_path / "secret.zip").write_bytes(bytes(700))
    with pytest.raises(UserError, match="secret.zip has 0.7 kB and 0.6 kB fit"):
        hide(filled.cover, tmp_path / "secret.zip", tmp_path / "s.mkv", make_scheme(RATE), slots=ALL)


def test_a_header_knows_its_slot():
    """The first area of all numbers of slots is one and the same in large frames."""
    planes, salt = (np.zeros((400, 400), np.uint8),), bytes(16)
    master = keys.derive_key(KEYS[0], salt)
    made = header.Header(False, 6, 0, 1, 1, 1, bytes(32), salt)
    for slots in (1, 8):
        stego, _ = header.embed(planes, salt, [master] * slots, [made] * slots)
        assert header.read(stego, keys.Deriver(KEYS[0])) == (made, Slot(0, slots))
