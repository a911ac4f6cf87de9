import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from deepsteg_jax.errors import UserError
from deepsteg_jax.media import images
from tests.helpers import names, refused
from tests.synthetic import noise


@pytest.mark.parametrize(
    "name, pattern, sequence",
    [
        ("frame_%05d.png", True, True),
        ("%d.png", True, True),
        ("a/%03d", True, True),
        ("%5d.png", False, False),  # blanks in names are no pattern
        ("100%.png", False, False),
        ("100%done.mp4", False, False),  # a video is no sequence
        ("%03d.MKV", False, False),
        ("%s.png", False, False),
        ("%03d/a.png", False, False),
        ("a.png", False, False),
        ("new/", False, True),
    ],
)
def test_names_of_sequences(name, pattern, sequence):
    assert images.is_pattern(name) == pattern
    assert images.is_sequence(name) == sequence


def test_a_folder_is_a_sequence_whatever_its_name(tmp_path):
    (tmp_path / "a.mkv").mkdir()
    assert images.is_sequence(tmp_path / "a.mkv")


def test_shown_is_one_line():
    assert images.shown("a\nb.png") == "a b.png"


def test_a_pattern_is_sorted_by_number_and_a_folder_by_name(tmp_path):
    for name in ("f9.png", "f10.png", "f0008.png", "xf1.png", "f1.bmp", "f7.png.txt", "f.png"):
        images.save(tmp_path / name, noise(1, 4, 5)[0], "a.png")
    (tmp_path / "f11.png").mkdir()

    def found(path):
        return [path.name for path in images.list_sequence(path)]

    assert found(tmp_path / "f%d.png") == found(tmp_path / "f%04d.png") == ["f0008.png", "f9.png", "f10.png"]
    assert found(tmp_path) == ["f.png", "f0008.png", "f1.bmp", "f10.png", "f9.png", "xf1.png"]


def test_an_image_of_that_name_is_no_pattern(tmp_path):
    images.save(tmp_path / "100%done.png", noise(1, 4, 5)[0], "a.png")
    assert not images.is_sequence(tmp_path / "100%done.png")


def test_hidden_files_of_a_folder_are_no_frames(tmp_path):
    """macOS puts one beside every file on a disk that it did not format."""
    for name in ("a.png", "b.png"):
        images.save(tmp_path / name, noise(1, 4, 5)[0], "a.png")
        (tmp_path / f"._{name}").write_bytes(b"\0\5\x16\7")
    (tmp_path / "._c.heic").write_bytes(b"\0\5\x16\7")
    (tmp_path / "notes.txt").touch()
    assert [path.name for path in images.list_sequence(tmp_path)] == ["a.png", "b.png"]


@pytest.mark.parametrize("name", ["b.HEIC", "b.avif", "b.heif", "b.tga", "b.gif"])
def test_a_picture_of_a_folder_that_is_not_read_is_named(tmp_path, name):
    for good in ("a.png", "c.png"):
        images.save(tmp_path / good, noise(1, 4, 5)[0], "a.png")
    (tmp_path / name).touch()
    refused(
        tmp_path / name,
        f"{name} is a picture of a kind that is not read in a folder: convert it to .png",
        lambda path: images.list_sequence(path.parent),
    )


def test_special_characters_of_a_pattern_are_plain(tmp_path):
    for name in ("a+(1).png", "aa1.png"):
        images.save(tmp_path / name, noise(1, 4, 5)[0], "a.png")
    assert [path.name for path in images.list_sequence(tmp_path / "a+(%d).png")] == ["a+(1).png"]


@pytest.mark.parametrize("name", ["%d.png", "none/%d.png", "empty"])
def test_nothing_to_read(tmp_path, name):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.txt").write_text("no image")
    with pytest.raises(UserError, match="cannot be read") as caught:
        images.list_sequence(tmp_path / name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".tiff", ".PNG", ".ppm"])
def test_what_is_saved_is_read_whatever_its_name(tmp_path, suffix):
    frame = noise(1, 9, 7)[0]
    images.save(tmp_path / "a.part", frame, f"a{suffix}")
    assert images.is_image(tmp_path / "a.part")
    np.testing.assert_array_equal(images.load(tmp_path / "a.part"), frame)


def test_a_small_copy(tmp_path):
    images.save_small(tmp_path / "a.jpg", noise(1, 30, 60)[0], 20, 90)
    with Image.open(tmp_path / "a.jpg") as image:
        assert (image.format, image.size) == ("JPEG", (20, 10))


@pytest.mark.parametrize("orientation, turns", [(1, 0), (3, 2), (6, -1), (8, 1)])
def test_images_are_turned_upright(tmp_path, orientation, turns):
    frame, exif = noise(1, 9, 7)[0], Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(frame).save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(images.load(tmp_path / "a.png"), np.rot90(frame, turns))


def test_modes(tmp_path):
    rng = np.random.default_rng(0)
    grey = rng.integers(0, 256, (9, 7), dtype=np.uint8)
    for name, image in {
        "L.png": Image.fromarray(grey),
        "I16.png": Image.fromarray(grey.astype(np.uint16) * 257),
        "P.png": Image.fromarray(grey).convert("P"),
        "LA.png": Image.merge("LA", [Image.fromarray(grey), Image.new("L", (7, 9), 255)]),
        "L.tif": Image.fromarray(grey),
        "L.ppm": Image.fromarray(grey),
    }.items():
        image.save(tmp_path / name)
        np.testing.assert_array_equal(images.load(tmp_path / name), np.repeat(grey[..., None], 3, axis=-1))
    black_and_white = (grey > 127).astype(np.uint8) * 255
    Image.fromarray(black_and_white).convert("1").save(tmp_path / "1.png")
    np.testing.assert_array_equal(images.load(tmp_path / "1.png")[..., 2], black_and_white)


def test_what_is_transparent_lies_on_white(tmp_path):
    rgba = np.random.default_rng(0).integers(0, 256, (9, 7, 4), dtype=np.uint8)
    rgba[0, :, 3], rgba[1, :, 3] = 0, 255
    Image.fromarray(rgba).save(tmp_path / "a.png")
    found = images.load(tmp_path / "a.png")
    assert (found[0] == 255).all()
    np.testing.assert_array_equal(found[1], rgba[1, :, :3])
    share = rgba[..., 3:] / 255
    np.testing.assert_allclose(found, rgba[..., :3] * share + 255 * (1 - share), atol=0.51)
    np.testing.assert_array_equal(images.on_white(rgba), found)
    colours = Image.fromarray(rgba[..., 0]).convert("P")
    colours.save(tmp_path / "b.png", transparency=int(np.array(colours)[4, 4]))
    assert (images.load(tmp_path / "b.png")[4, 4] == 255).all()


def png_of_size(width, height):
    """The head of a PNG that claims a size, and no pixels."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("size", [(8193, 8192), (50_000, 50_000), (2**31 - 1, 3)])
def test_images_too_large(tmp_path, size):
    (tmp_path / "a.png").write_bytes(png_of_size(*size))
    with pytest.raises(UserError, match=r"a\.png is too large an image") as caught:
        images.load(tmp_path / "a.png")
    assert "\n" not in str(caught.value)


def test_the_largest_image_is_taken(tmp_path, monkeypatch):
    images.save(tmp_path / "a.png", noise(1, 9, 7)[0], "a.png")
    monkeypatch.setattr(images, "LARGEST", 63)
    assert images.load(tmp_path / "a.png").shape == (9, 7, 3)
    monkeypatch.setattr(images, "LARGEST", 62)
    with pytest.raises(UserError, match="too large"):
        images.load(tmp_path / "a.png")


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".jpg", ".webp", ".ppm"])
def test_cut_images(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    Image.fromarray(noise(1, 48, 64)[0]).save(path)
    data = path.read_bytes()
    assert images.load(path).shape == (48, 64, 3)
    for share in (0.3, 0.7):
        path.write_bytes(data[: int(share * len(data))])
        with pytest.raises(UserError, match="damaged or cut short") as caught:
            images.load(path)
        assert "\n" not in str(caught.value)


def test_what_is_an_image(tmp_path):
    (tmp_path / "a.png").write_text("no image")
    (tmp_path / "b.txt").write_bytes(png_of_size(3, 3))
    assert not images.is_image(tmp_path / "a.png")
    assert images.is_image(tmp_path / "b.txt")


def test_read_wants_one_size(tmp_path):
    frames = [*noise(2, 9, 7), *noise(1, 8, 7, seed=1)]
    paths = [tmp_path / f"{i}.png" for i in range(3)]
    for path, frame in zip(paths, frames, strict=True):
        images.save(path, frame, "a.png")
    stream = images.read(paths)
    np.testing.assert_array_equal([next(stream), next(stream)], frames[:2])
    with pytest.raises(UserError, match=r"2\.png is 7x8 but the images before it are 7x9"):
        next(stream)
    assert {frame.shape for frame in images.read(paths, (5, 4))} == {(4, 5, 3)}
    np.testing.assert_array_equal(next(images.read(paths, (7, 9))), frames[0])


def test_folders_are_placed_and_removed(tmp_path):
    part, folder = tmp_path / "part", tmp_path / "folder"
    for there in (False, True):
        part.mkdir()
        (part / "a.png").touch()
        images.place_folder(part, folder)
        assert names(tmp_path) == ["folder"] and names(folder) == ["a.png"]
        part.mkdir()
        with pytest.raises(OSError, match="empty"):  # something else took the name
            images.place_folder(part, folder)
        assert names(folder) == ["a.png"]
        images.remove(part)
        images.remove(folder)
        assert names(tmp_path) == []
        if not there:
            folder.mkdir()
    (tmp_path / "a.png").touch()
    images.remove(tmp_path / "a.png")
    images.remove(tmp_path / "none.png")
    assert names(tmp_path) == []
