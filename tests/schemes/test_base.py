"""The interface is wide enough: bytes in the cover's own planes, two keys, a pass over the whole cover."""

import errno
import os
import time
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from deepsteg_jax import keys, media, pipeline
from deepsteg_jax.errors import PartialError, UserError
from deepsteg_jax.plan import make_plan_for_bytes
from deepsteg_jax.schemes.base import Cost, Settings
from tests.helpers import PlaneScheme, names
from tests.synthetic import noise, save

KEY, OTHER = bytes(range(32)), bytes(range(1, 33))
COUNT = 9  # frames


def quiet(frames):
    pass


@pytest.fixture
def cover(tmp_path):
    """A cover in 4:2:0."""
    path = tmp_path / "cover.mkv"
    source = save(tmp_path / "rgb.mkv", noise(COUNT, 32, 48))
    with media.Writer(path, Fraction(25), pixel_format="yuv420p") as writer:
        for timed in media.read_timed(source):
            y, cb, cr = np.moveaxis(timed.frame, 2, 0).copy()
            writer.write(media.Planes(y, cb[::2, ::2].copy(), cr[::2, ::2].copy()), timed.time)
    source.unlink()
    return path


def planes_of(path):
    return [timed.frame for timed in media.read_planes(path)]


def write_secret(folder, size, seed=0):
    path = folder / f"secret{seed}.bin"
    path.write_bytes(np.random.default_rng(seed).bytes(size))
    return path


def hide(cover, secret, stego, credentials=KEY):
    settings = Settings(slots=2) if isinstance(secret, tuple) else Settings()
    return pipeline.hide(PlaneScheme(), credentials, cover, secret, stego, quiet, settings)


@pytest.mark.parametrize("size", [0, 1, 200, 800])
def test_a_file_comes_back_bit_for_bit(tmp_path, cover, size):
    secret, stego, output = write_secret(tmp_path, size), tmp_path / "stego.mkv", tmp_path / "out.bin"
    report = hide(cover, secret, stego)
    assert report.processed == report.frames == COUNT
    before, after = planes_of(cover), planes_of(stego)
    for old, new in zip(before, after, strict=True):
        assert np.abs(old[0].astype(int) - new[0]).max() <= 1  # luma by one level, chroma not at all
        assert all(np.array_equal(a, b) for a, b in zip(old[1:], new[1:], strict=True))
    shown = pipeline.reveal([PlaneScheme()], KEY, stego, output, quiet)
    assert output.read_bytes() == secret.read_bytes()
    assert shown.processed <= COUNT and shown.frames == 0
    assert names(tmp_path) == ["cover.mkv", "out.bin", "secret0.bin", "stego.mkv"]


def test_each_key_opens_its_own_secret(tmp_path, cover):
    secrets = write_secret(tmp_path, 100, 1), write_secret(tmp_path, 300, 2)
    stego, output = tmp_path / "stego.mkv", tmp_path / "out.bin"
    hide(cover, secrets, stego, (KEY, OTHER))
    for key, secret in zip((KEY, OTHER), secrets, strict=True):
        pipeline.reveal([PlaneScheme()], key, stego, output, quiet)
        assert output.read_bytes() == secret.read_bytes()
    with pytest.raises(UserError, match="no hidden video for this passphrase or key"):
        pipeline.reveal([PlaneScheme()], KEY[::-1], stego, output, quiet)


@pytest.mark.parametrize(
    ("secrets", "credentials", "settings", "words"),
    [
        (2, [KEY, OTHER], {}, "2 secrets need as many slots"),
        (1, [KEY], {"slots": 3}, "a stego has 1, 2, 4, 8 slots, not 3"),
        (1, [KEY], {"slots": 4}, "the scheme planes has 2 slots at most"),
        (1, [KEY], {"slots": 2, "loop_cover": True}, "cannot be repeated"),
        (2, ["caf\u00e9", "cafe\u0301"], {"slots": 2}, "two secrets have the same passphrase or key"),
    ],
)
def test_slots_that_cannot_be(tmp_path, cover, secrets, credentials, settings, words):
    paths = tuple(write_secret(tmp_path, 10, seed) for seed in range(secrets))
    before = names(tmp_path)
    with pytest.raises(UserError, match=words):
        pipeline.hide(
            PlaneScheme(), credentials, cover, paths, tmp_path / "s.mkv", quiet, Settings(**settings)
        )
    assert names(tmp_path) == before


def test_a_cut_stego_gives_what_arrived(tmp_path, cover):
    secret, output = write_secret(tmp_path, 800), tmp_path / "out.bin"
    hide(cover, secret, tmp_path / "whole.mkv")
    cut = tmp_path / "cut.mkv"
    with media.Writer(cut, Fraction(25), pixel_format="yuv420p") as writer:
        for timed in list(media.read_planes(tmp_path / "whole.mkv"))[:5]:
            writer.write(timed.frame, timed.time)
    with pytest.raises(PartialError, match="cut short"):
        pipeline.reveal([PlaneScheme()], KEY, cut, output, quiet)
    assert secret.read_bytes().startswith(output.read_bytes()) and output.stat().st_size > 300


def test_a_failure_leaves_nothing(tmp_path, cover):
    stego = tmp_path / "stego.mkv"
    hide(cover, write_secret(tmp_path, 800), stego)
    before = names(tmp_path)

    def fail(frames):
        raise RuntimeError("no terminal")

    with pytest.raises(RuntimeError, match="terminal"):
        pipeline.reveal([PlaneScheme()], KEY, stego, tmp_path / "out.bin", fail)
    assert names(tmp_path) == before


class Named(PlaneScheme):
    """Gives the secret a name, which a sender may have chosen freely."""

    def __init__(self, name):
        self.file_name = name

    def receiver(self, found):
        receiver = super().receiver(found)
        receiver.file_name = self.file_name
        return receiver


@pytest.fixture
def reveal_into(tmp_path, cover):
    """reveal_into(output, name) -> report; the secret are 100 bytes."""
    hide(cover, write_secret(tmp_path, 100), tmp_path / "stego.mkv")

    def reveal(output, name="report.pdf"):
        return pipeline.reveal([Named(name)], KEY, tmp_path / "stego.mkv", output, quiet)

    return reveal


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("report.pdf", "report.pdf"),
        ("../../x", "x"),
        ("/etc/passwd", "passwd"),
        ("C:\\Windows\\a.ini", "a.ini"),
        ("con.txt", "revealed.txt"),
        ("NUL", "revealed"),
        ("com\u00b2.tar.gz", "revealed.gz"),
        ("", "revealed"),
        ("..", "revealed"),
        (" .profile ", "profile"),
        ("a\nb\x1b[2J\u202egnp.exe", "ab[2Jgnp.exe"),
        ("what?*.txt", "what.txt"),
        ("\N{PARTY POPPER}.png", "\N{PARTY POPPER}.png"),
        ("x" * 300, "x" * 200),
        ("\u00e4" * 300 + ".txt", "\u00e4" * 98 + ".txt"),
    ],
)
def test_a_file_gets_its_own_name_in_a_folder_made_safe(tmp_path, reveal_into, name, safe):
    report = reveal_into(f"{tmp_path}/out/", name)
    assert names(tmp_path / "out") == [safe] and f"written to {tmp_path / 'out' / safe}" in report.notes
    assert (tmp_path / "out" / safe).read_bytes() == (tmp_path / "secret0.bin").read_bytes()


def test_nothing_in_a_folder_is_overwritten(tmp_path, reveal_into):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/report.pdf").symlink_to("nowhere")
    with pytest.raises(UserError, match="report.pdf exists already: give -o another folder"):
        reveal_into(tmp_path / "out")
    assert names(tmp_path / "out") == ["report.pdf"] and names(tmp_path)[-1] == "stego.mkv"


@pytest.mark.parametrize(
    ("output", "notes"),
    [("out.pdf", []), ("out.txt", ["it is a .pdf: its own name is report.pdf"])],
)
def test_a_file_that_gets_another_suffix_is_said_to_be_what_it_is(tmp_path, reveal_into, output, notes):
    (tmp_path / output).write_bytes(b"an older one")
    assert list(reveal_into(tmp_path / output).notes) == notes
    assert (tmp_path / output).read_bytes() == (tmp_path / "secret0.bin").read_bytes()


@pytest.mark.parametrize("output", ["out.bin", "out/"])
def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path, reveal_into, monkeypatch, output):
    before, usual = names(tmp_path), Path.open

    def full(path, mode="r", **options):
        return Full(path) if mode == "xb" else usual(path, mode, **options)

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(UserError, match="cannot be written: No space left on device") as caught:
        reveal_into(f"{tmp_path}/{output}")
    assert "\n" not in str(caught.value) and names(tmp_path) == before


class Full:
    """A file on a full disk."""

    def __init__(self, path):
        path.touch()

    def write(self, data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def close(self):
        pass


def test_the_whole_cover_is_measured_before_the_first_frame_is_sent(tmp_path, cover):
    scheme = PlaneScheme()
    measured = scheme.measure(timed.frame for timed in media.read_planes(cover))
    assert measured.frames == COUNT
    plan = make_plan_for_bytes(cover, write_secret(tmp_path, 10))
    with scheme.sender(plan, [KEY], Settings(), measured) as sender:
        assert sender.finish() == []


def test_the_cost_is_known_and_a_scheme_of_long_groups_is_not_live():
    assert isinstance(PlaneScheme().cost(256, 448, 100), Cost)
    with pytest.raises(UserError, match="live"):
        PlaneScheme().session(KEY, 32, 48)


def test_schemes_are_tried_until_one_finds_something(tmp_path, cover):
    class Deaf(PlaneScheme):
        probed = 0

        def probe(self, stego, deriver):
            type(self).probed += 1
            return

    stego, output = tmp_path / "stego.mkv", tmp_path / "out.bin"
    secret = write_secret(tmp_path, 50)
    hide(cover, secret, stego)
    pipeline.reveal([Deaf(), PlaneScheme(), Deaf()], KEY, stego, output, quiet)
    assert Deaf.probed == 1 and output.read_bytes() == secret.read_bytes()


def test_a_key_is_derived_once_for_each_salt(monkeypatch):
    calls, derive = [], keys.derive_key
    monkeypatch.setattr(keys, "derive_key", lambda *args: calls.append(args) or derive(*args))
    deriver = keys.Deriver(KEY)
    assert deriver(b"a") == deriver(b"a") != deriver(b"b")
    assert len(calls) == deriver.count == 2


def test_frames_that_the_probe_received_are_timed_and_counted(tmp_path, cover):
    class Eager(PlaneScheme):
        """Receives the first two frames while it probes."""

        def probe(self, stego, deriver):
            found, frames = super().probe(stego, deriver), stego.frames()
            receiver = super().receiver(found)
            found.state = receiver, [piece for _ in range(2) for piece in receiver.receive(next(frames))]
            found.read = 2
            time.sleep(0.2)
            return found

        def receiver(self, found):
            receiver, pieces = found.state
            receive = receiver.receive
            receiver.receive = lambda frame: [*(pieces.pop(0) for _ in tuple(pieces)), *receive(frame)]
            return receiver

    secret, stego, output, done = write_secret(tmp_path, 800), tmp_path / "s.mkv", tmp_path / "out.bin", []
    hide(cover, secret, stego)
    report = pipeline.reveal([Eager()], KEY, stego, output, done.append)
    assert output.read_bytes() == secret.read_bytes()
    assert report.seconds >= 0.2 and done[0] == 2 and sum(done) == report.processed
