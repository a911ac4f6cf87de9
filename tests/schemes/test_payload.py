import hashlib
import os
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

from deepsteg_jax.errors import UserError
from deepsteg_jax.schemes import payload
from tests.helpers import names, refused
from tests.synthetic import save, smooth


@pytest.fixture
def prepare():
    """prepare(path, room) -> Payload."""
    with ExitStack() as files:
        yield lambda path, room=10_000: payload.prepare(path, room, 0, files)


def test_a_file_that_fits_travels_as_it_is(tmp_path, prepare):
    (tmp_path / "a.bin").write_bytes(b"12345")
    given = prepare(tmp_path / "a.bin", 10)
    assert (given.name, given.file.read(), given.size, given.coded) == (b"a.bin", b"12345", 10, False)
    assert given.digest == hashlib.sha256(b"a.bin12345").digest() and "bit for bit" in given.note
    refused(tmp_path / "a.bin", "and 0.0 kB fit", lambda path: prepare(path, 9))


def test_long_names_keep_their_end(tmp_path, prepare):
    path = tmp_path / ("ä" * 120 + ".jpeg")
    path.write_bytes(b"")
    assert prepare(path).name == path.name.encode()
    name = payload._packed_name(path.with_name("x" * 300 + ".jpeg"))
    assert len(name) == payload.NAME_BYTES and name.endswith(b"x.jpeg")


@pytest.mark.skipif(os.name == "nt", reason="names are text there")
def test_names_that_are_no_text(tmp_path, prepare):
    path = tmp_path / os.fsdecode(b"\xff.bin")
    path.write_bytes(b"1")
    assert prepare(path).name == b"\xff.bin"


def test_a_picture_that_does_not_fit_is_coded_in_a_temporary_file(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    picture = save(tmp_path / "picture.png", smooth(1, 90, 120))
    with ExitStack() as files:
        given = payload.prepare(picture, 2000, 0, files)
        assert given.coded and given.name == b"picture.mkv" and given.size <= 2000
        assert given.size == len(given.name) + len(given.file.read()) and "so it is coded: " in given.note
    assert names(tmp_path) == ["picture.png"]


def test_a_folder_of_images_is_coded(tmp_path, prepare):
    (tmp_path / "images").mkdir()
    for i, frame in enumerate(smooth(2, 48, 64)):
        save(tmp_path / f"images/{i}.png", np.array([frame]))
    given = prepare(tmp_path / "images")
    assert (
        given.coded and given.name == b"images.mkv" and given.note.startswith("its images are coded to fit")
    )


def test_a_folder_may_be_the_current_one(tmp_path, prepare, monkeypatch):
    (tmp_path / "holiday").mkdir()
    save(tmp_path / "holiday/0.png", smooth(1, 48, 64))
    monkeypatch.chdir(tmp_path / "holiday")
    assert prepare(Path()).name == b"holiday.mkv"


def test_what_cannot_be_a_secret(tmp_path, prepare):
    refused(tmp_path / "none", "does not exist", prepare)
    (tmp_path / "folder").mkdir()
    refused(tmp_path / "folder", "without images", prepare)
    os.mkfifo(tmp_path / "pipe")
    refused(tmp_path / "pipe", "is a pipe or device", prepare)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root reads everything")
def test_a_secret_without_permission(tmp_path, prepare):
    (tmp_path / "secret").touch(0o000)
    refused(tmp_path / "secret", "no permission", prepare)


def test_a_full_disk_is_one_line(tmp_path, prepare, monkeypatch):
    monkeypatch.setattr(payload, "TemporaryDirectory", lambda: (tmp_path / "none/full").mkdir())
    with pytest.raises(UserError, match="a temporary file cannot be written"):
        prepare(save(tmp_path / "picture.png", smooth(1, 90, 120)), 2000)
