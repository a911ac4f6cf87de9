import os

import pytest

from deepsteg_jax import media
from deepsteg_jax.errors import UserError
from tests.helpers import names, refused
from tests.media.clips import write
from tests.synthetic import noise


@pytest.fixture
def folder(tmp_path):
    """A cover, a link to it and a folder with something in it."""
    (tmp_path / "cover.mkv").write_bytes(b"x")
    (tmp_path / "link.mkv").symlink_to(tmp_path / "cover.mkv")
    (tmp_path / "full.mkv").mkdir()
    (tmp_path / "full.mkv" / "file").touch()
    return tmp_path


@pytest.mark.parametrize(
    "given, good",
    [
        ({}, ("a.mkv", "A.MKV", "a.nut", "a.webm", "cover2.mkv", "new/", "new/x_%04d.tif")),
        ({"size": (47, 31)}, ("a.mkv", "a.webm", "new/")),
        ({"image": True}, ("a.png", "a.bmp", "a.tif", "a.TIFF", "a.ppm")),
        ({"lossy": True, "size": (48, 32)}, ("a.mp4", "a.MOV", "a.m4v", "a.mkv", "a.nut", "a.webm", "new/")),
        ({"lossy": True, "image": True, "size": (47, 31)}, ("a.jpg", "a.JPEG", "a.png")),
        ({"pixel_format": "yuv420p", "size": (48, 32)}, ("a.mkv", "a.mp4", "a.webm")),
        ({"pixel_format": "yuv444p", "size": (47, 31)}, ("a.mkv", "a.mp4", "a.webm")),
        ({"pixel_format": "yuv420p10le", "size": (47, 31)}, ("a.mkv",)),
    ],
)
def test_good_outputs(folder, given, good):
    for name in good:
        media.check_output(f"{folder}/{name}", [folder / "cover.mkv", folder], **given)


IMAGE, LOSSY = {"image": True}, {"lossy": True}
H264_NEEDS = r"{0}x{1}; use \.mkv .*, or crop .* crop={2}:{3} "


@pytest.mark.parametrize(
    "name, given, words",
    [
        ("a.mp4", {}, "loss.*use .mkv"),
        ("a.avi", {}, "loss"),
        ("a.png", {}, "still images; use .mkv"),
        ("a.jpeg", {}, "still images"),
        ("a.xyz", {}, "'.xyz' is not a known video"),
        ("a.gif", IMAGE, "loss.*use .png"),
        ("a.jpg", IMAGE, "loss"),
        ("a.webp", IMAGE | {"size": (16_384, 9)}, "at most 16383 pixels a side; use .png"),
        ("a.mkv", IMAGE, "videos; use .png"),
        ("a.mp4", IMAGE, "videos"),
        ("a", IMAGE, "without a suffix it is not a known image"),
        ("a.avi", LOSSY, r"only read; use .*\.mp4"),
        ("a.jpg", LOSSY, "still images"),
        ("a.mp4", LOSSY | IMAGE, r"videos; use .*\.jpg"),
        ("a.gif", LOSSY | IMAGE, "only read"),
        ("new/x%d.jpg", LOSSY, "use .png"),
        ("none/a.mp4", LOSSY, "does not exist"),
        ("full.mkv", {}, "has files in it"),
        ("full.mkv/x%d.png", {}, "has files in it"),
        ("new/x%d_%d.png", {}, "one place for the number"),
        ("new/x%d.jpg", {}, "use .png"),
        ("cover.mkv/", {}, "is a file"),
        ("full.mkv", IMAGE, "is a folder"),
        ("none/new/", {}, "does not exist"),
        ("none/a.mkv", {}, "does not exist"),
        ("cover.mkv", {}, "also an input"),
        ("full.mkv/../cover.mkv", {}, "also an input"),
        ("link.mkv", {}, "also an input"),
        ("a.mkv", {"size": (33, 3)}, "33x3 is too small"),
        ("a.mp4", LOSSY | {"size": (48, 31)}, H264_NEEDS.format(48, 31, 48, 30)),
        ("a.mp4", LOSSY | {"size": (47, 32)}, H264_NEEDS.format(47, 32, 46, 32)),
        ("a.mp4", {"pixel_format": "yuv422p", "size": (47, 31)}, H264_NEEDS.format(47, 31, 46, 31)),
        ("a.mp4", {"pixel_format": "yuv420p10le"}, "use .mkv"),
        ("new/", {"pixel_format": "yuv420p"}, "RGB only; use .mkv"),
        ("a.png", {"pixel_format": "yuv420p"}, "still images; use .mkv"),
        ("a.png", IMAGE | {"pixel_format": "yuv420p"}, "RGB only; use .mkv"),
    ],
)
def test_bad_outputs(folder, name, given, words):
    with pytest.raises(UserError, match=words) as caught:
        media.check_output(f"{folder}/{name}", [folder / "cover.mkv", folder / "none.mkv"], **given)
    assert "\n" not in str(caught.value)


def test_a_folder_without_permission(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda *_: False)
    refused(tmp_path / "a.mkv", "no permission", media.check_output)


@pytest.mark.parametrize(
    "name, frames, given, words",
    [
        ("a.mp4", noise(1), {}, "loss"),
        ("a.jpg", noise(1), IMAGE, "loss"),
        ("a.mp4", noise(2, 31, 48), {"lossy": media.Lossy()}, "48x31; use"),
        ("a.mkv", noise(1, 3, 33), {}, "33x3"),
        ("a.webm", noise(1), {"aspect": media.FOLDER_RATE}, r"square pixels and these are 25:1; use \.mkv"),
        ("a.mkv", [], {}, "no frames"),
        ("none/a.mkv", noise(1), {}, "cannot be written"),
    ],
)
def test_the_writer_refuses_them_too(tmp_path, name, frames, given, words):
    refused(tmp_path / name, words, lambda path: write(path, frames, **given))
    assert names(tmp_path) == []


LINKED = [("a.mkv", noise(2), {}), ("a.mp4", noise(2), {"lossy": media.Lossy()}), ("a.png", noise(1), IMAGE)]


@pytest.mark.parametrize("name, frames, given", LINKED)
@pytest.mark.parametrize("there", [True, False])
def test_the_target_of_a_link_is_written(tmp_path, name, frames, given, there):
    for folder in ("there", "here"):
        (tmp_path / folder).mkdir()
    target = tmp_path / "there" / f"target{name[1:]}"
    if there:
        target.write_bytes(b"before")
    link = tmp_path / "here" / name
    link.symlink_to(f"../there/target{name[1:]}")
    media.check_output(link, [], given == IMAGE, "lossy" in given)
    write(link, frames, **given)
    assert link.is_symlink() and not target.is_symlink()
    assert media.probe(target).width == 48 and names(tmp_path / "here") == [name]
    assert names(tmp_path / "there") == [target.name]


def test_the_target_of_a_link_to_a_folder_is_written(tmp_path):
    (tmp_path / "target").mkdir()
    (tmp_path / "link").symlink_to("target")
    write(f"{tmp_path}/link/", noise(2))
    assert (tmp_path / "link").is_symlink() and len(names(tmp_path / "target")) == 2


def test_devices_and_links_to_themselves_are_not_replaced(tmp_path):
    (tmp_path / "null.mkv").symlink_to(os.devnull)
    (tmp_path / "loop.mkv").symlink_to("loop.mkv")
    for name in ("null.mkv", "loop.mkv"):
        for check in (media.check_output, media.check_place):
            with pytest.raises(UserError, match="a pipe, a device or a broken link"):
                check(tmp_path / name)


@pytest.mark.parametrize("name, frames, given", [*LINKED, ("a/", noise(2), {})])
def test_names_as_long_as_names_can_be(tmp_path, name, frames, given):
    suffix = name[1:]
    long = "é" * 120 + "a" * (15 - len(suffix.rstrip("/"))) + suffix
    assert len(long.rstrip("/").encode()) == 255
    media.check_output(f"{tmp_path}/{long}", [], given == IMAGE, "lossy" in given)
    write(f"{tmp_path}/{long}", frames, **given)
    assert names(tmp_path) == [long.rstrip("/")]


@pytest.mark.parametrize("name", [f"{'a' * 252}.mkv", f"{'a' * 256}/", f"{'a' * 256}/%d.png"])
def test_names_that_are_too_long(tmp_path, name):
    with pytest.raises(UserError, match="too long|does not exist") as caught:
        media.check_output(f"{tmp_path}/{name}")
    assert "\n" not in str(caught.value)


def test_cleaning_up_does_not_hide_the_first_error(tmp_path, monkeypatch):
    def broken(*_):
        raise OSError(28, "No space left on device")

    with pytest.raises(ZeroDivisionError), media.Writer(tmp_path / "a.mkv", 25) as writer:
        writer.write(noise(1)[0])
        monkeypatch.setattr("pathlib.Path.is_dir", broken)
        monkeypatch.setattr("pathlib.Path.unlink", broken)
        1 / 0  # noqa: B018
