import struct
import zlib

import av
import numpy as np
import pytest
from PIL import Image

from deepsteg_jax import media
from deepsteg_jax.errors import UserError
from deepsteg_jax.media import heif, images
from deepsteg_jax.media.container import video_stream
from tests.helpers import names, refused
from tests.synthetic import noise, smooth


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


@pytest.mark.parametrize("name", ["b.EXR", "b.jxl", "b.tga"])
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


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".tiff", ".PNG", ".ppm", ".webp"])
def test_what_is_saved_is_read_whatever_its_name(tmp_path, suffix):
    frame = noise(1, 9, 7)[0]
    images.save(tmp_path / "a.part", frame, f"a{suffix}")
    assert images.is_image(tmp_path / "a.part")
    np.testing.assert_array_equal(images.load(tmp_path / "a.part"), frame)


def test_a_small_copy(tmp_path):
    images.save_small(tmp_path / "a.jpg", noise(1, 30, 60)[0], 20, 90)
    with Image.open(tmp_path / "a.jpg") as image:
        assert (image.format, image.size) == ("JPEG", (20, 10))


AS_SHOWN = {  # by the orientations of Exif
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a, 2).swapaxes(0, 1),
    8: lambda a: np.rot90(a),
}


@pytest.mark.parametrize("suffix", [".png", ".tif", ".webp", ".avif", ".heic"])
@pytest.mark.parametrize("orientation", AS_SHOWN)
def test_images_are_turned_upright(tmp_path, orientation, suffix):
    frame, exif = smooth(1, 40, 56)[0], Image.Exif()
    exif[0x0112] = orientation
    image, options = Image.fromarray(frame), {"lossless": True, "exif": exif}
    if suffix in (".avif", ".heic"):  # whose encoders note it outside Exif
        image.info["exif"], options = exif.tobytes(), {"quality": 95, "exif": exif.tobytes()}
    image.save(tmp_path / f"a{suffix}", **options)
    assert_close(images.load(tmp_path / f"a{suffix}"), AS_SHOWN[orientation](frame))


def assert_close(found, wanted, decibels=30):
    assert found.shape == wanted.shape
    assert np.mean((found.astype(float) - wanted) ** 2) < 255**2 / 10 ** (decibels / 10)


@pytest.mark.parametrize(
    "name, options",
    [
        ("a.heic", {"tile_size": 64}),  # a grid, as phones write it
        ("a.heif", {}),  # cropped from 64x48
        ("a.hif", {}),
        ("a.avif", {}),
        ("a.jp2", {}),
    ],
)
def test_pictures_in_containers_come_whole(tmp_path, name, options):
    frame = smooth(1, 101, 150)[0]
    Image.fromarray(frame).save(tmp_path / name, quality=95, **options)
    assert_close(images.load(tmp_path / name), frame)
    (tmp_path / name).rename(tmp_path / "b.mp4")  # the content tells
    assert images.is_image(tmp_path / "b.mp4")
    info = media.probe(tmp_path / "b.mp4")
    assert (info.width, info.height, info.frames, info.is_image) == (150, 101, 1, True)
    data = (tmp_path / "b.mp4").read_bytes()
    if data[4:8] == b"ftyp":  # of a brand that is not known
        (tmp_path / "c.heic").write_bytes(data[:8] + b"next" + data[12:])
        assert images.is_image(tmp_path / "c.heic")
    for share in (0.1, 0.9):  # FFmpeg, or libheif, would give a part
        (tmp_path / "c.heic").write_bytes(data[: int(share * len(data))])
        with pytest.raises(UserError, match="cut short"):
            media.probe(tmp_path / "c.heic")


@pytest.mark.parametrize("suffix", [".heic", ".avif"])
def test_transparency_in_containers_lies_on_white(tmp_path, suffix):
    rgba = np.dstack([smooth(1, 40, 56)[0], np.full((40, 56), 255, np.uint8)])
    rgba[:, 30:, 3] = 0
    Image.fromarray(rgba).save(tmp_path / f"a{suffix}", quality=95)
    found = images.load(tmp_path / f"a{suffix}")
    assert (found[:, 34:] == 255).all()
    assert_close(found[:, :26], rgba[:, :26, :3])


def in_box(kind, content):
    return struct.pack(">I", 8 + len(content)) + kind + content


def test_an_avif_is_cropped(tmp_path):
    frame = smooth(1, 40, 56)[0]
    Image.fromarray(frame).save(tmp_path / "a.avif", quality=95)
    data = (tmp_path / "a.avif").read_bytes()
    numbers = (30, 1, 20, 1, -6, 2, 4, 1)  # width, height, offset of the centre: fractions
    extra = in_box(b"clap", struct.pack(">8i", *numbers))
    boxes = {kind: data.index(kind) - 4 for kind in (b"meta", b"iprp", b"ipco", b"ipma", b"mdat", b"iloc")}
    stock_end = boxes[b"ipco"] + struct.unpack_from(">I", data, boxes[b"ipco"])[0]
    count_at = boxes[b"ipma"] + 18  # of the properties of the only item
    count = data[count_at]
    total = data[boxes[b"ipco"] : stock_end].count(b"ispe")
    assert total == 1 and data[boxes[b"ipma"] + 15] == 1
    kinds = list(heif._boxes(data[boxes[b"ipco"] + 8 : stock_end]))
    changed = bytearray(data)
    changed[count_at] = count + 1
    changed.insert(count_at + 1 + count, 0x80 | len(kinds) + 1)  # which has to be understood
    changed[stock_end:stock_end] = extra
    for kind, grown in (
        (b"ipma", 1),
        (b"ipco", len(extra)),
        (b"iprp", len(extra) + 1),
        (b"meta", len(extra) + 1),
    ):
        at = changed.index(kind) - 4
        struct.pack_into(">I", changed, at, struct.unpack_from(">I", changed, at)[0] + grown)
    place = struct.pack(">I", boxes[b"mdat"] + 8)  # of the picture's bytes, in the table of places
    at = changed.index(place, changed.index(b"iloc"))
    struct.pack_into(">I", changed, at, boxes[b"mdat"] + 8 + len(extra) + 1)
    (tmp_path / "a.avif").write_bytes(changed)
    assert_close(images.load(tmp_path / "a.avif"), frame[14:34, 10:40])


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


@pytest.mark.parametrize("mode", ["I", "F"])
def test_samples_of_unknown_range_are_refused(tmp_path, mode):
    Image.fromarray(np.linspace(0, 1, 63).reshape(9, 7)).convert(mode).save(tmp_path / "a.tif")
    with pytest.raises(UserError, match="32 bits.*convert it"):
        media.probe(tmp_path / "a.tif")


def test_sixteen_bits(tmp_path):
    grey = np.random.default_rng(0).integers(0, 2**16, (9, 7), dtype=np.uint16)
    Image.fromarray(grey).save(tmp_path / "a.tif")
    data = (tmp_path / "a.tif").read_bytes()
    black_is_zero = struct.pack("<HHII", 262, 3, 1, 1)
    assert data.count(black_is_zero) == 1
    (tmp_path / "b.tif").write_bytes(data.replace(black_is_zero, struct.pack("<HHII", 262, 3, 1, 0)))
    (tmp_path / "a.pgm").write_bytes(b"P5 7 9 65535\n" + grey.astype(">u2").tobytes())
    for name, wanted in (("a.tif", grey >> 8), ("b.tif", 255 - (grey >> 8)), ("a.pgm", grey >> 8)):
        np.testing.assert_array_equal(images.load(tmp_path / name)[..., 1], wanted)


def test_pages(tmp_path):
    pages = [Image.fromarray(frame) for frame in noise(2, 9, 7)]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    with pytest.raises(UserError, match=r"a\.tif has 2 pages"):
        images.load(tmp_path / "a.tif")
    for preview in (0, 1):  # wherever it lies
        for page, kind in zip(pages, (1 - preview, preview), strict=True):
            page.encoderinfo = {"tiffinfo": {254: kind}}
        pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:], tiffinfo={254: 1 - preview})
        np.testing.assert_array_equal(images.load(tmp_path / "a.tif"), np.asarray(pages[1 - preview]))
    pages[0].encoderinfo = {"tiffinfo": {254: 1}}
    pages[0].save(tmp_path / "a.tif", save_all=True, tiffinfo={254: 1})
    with pytest.raises(UserError, match="preview"):
        images.load(tmp_path / "a.tif")


@pytest.mark.parametrize("suffix", [".gif", ".png", ".webp", ".avif"])
def test_the_number_of_frames_tells_an_animation(tmp_path, suffix):
    pictures = [Image.fromarray(frame) for frame in smooth(4, 40, 56)]
    path = tmp_path / f"a{suffix}"
    for count in (1, 4):
        pictures[0].save(path, save_all=True, append_images=pictures[1:count], duration=80)
        assert images.is_image(path) == (count == 1)
        info = media.probe(path)
        assert (info.width, info.height, info.is_image) == (56, 40, count == 1)
        assert len(list(media.read_frames(path))) == count
    with av.open(str(path)) as opened:  # FFmpeg lists the still of such a file first
        assert suffix != ".avif" or video_stream(opened).frames == 4
    ticks = media.frame_times(path)
    np.testing.assert_allclose((ticks - ticks[0]) * float(info.time_base), 0.08 * np.arange(4))
    assert info.rate == 12.5


@pytest.mark.parametrize("count", [1, 3])
def test_the_picture_of_an_animation_for_other_programs_is_left_out(tmp_path, count):
    frames = noise(4, 40, 56)
    pictures = [Image.fromarray(frame) for frame in frames]
    rest = {"save_all": True, "append_images": pictures[1 : count + 1], "duration": 80}
    pictures[0].save(tmp_path / "a.png", default_image=True, **rest)
    assert images.is_image(tmp_path / "a.png") == (count == 1)
    np.testing.assert_array_equal(list(media.read_frames(tmp_path / "a.png")), frames[1 : count + 1])


def test_an_animation_is_read_as_it_moves(tmp_path):
    frames = noise(4, 40, 56)
    rgba = [Image.fromarray(np.dstack([frame, np.full((40, 56), 255, np.uint8)])) for frame in frames]
    rgba[2].putpixel((3, 5), (1, 2, 3, 0))
    path, durations = tmp_path / "a.webp", [40, 120, 80, 500]
    rgba[0].save(path, save_all=True, append_images=rgba[1:], duration=durations, lossless=True)
    found = list(media.read_timed(path))
    assert [timed.time for timed in found] == [0, 40, 160, 240]
    frames[2, 5, 3] = 255
    np.testing.assert_array_equal([timed.frame for timed in found], frames)
    np.testing.assert_array_equal(list(media.read_frames(path, 1, 3)), frames[1:3])
    assert next(media.read_planes(path, pixel_format="yuv420p")).frame.cb.shape == (20, 28)
    assert media.encode_sound(path, 64000) is None


@pytest.mark.parametrize(("milliseconds", "last"), [(0, 900), (1000 / 60, 150), (1000 / 30, 300)])
def test_durations_of_an_animation_add_up(tmp_path, milliseconds, last):
    """Those that are no whole milliseconds, and those that say none, as browsers show them."""
    first, *others = map(Image.fromarray, smooth(10, 16, 16))
    first.save(tmp_path / "a.png", save_all=True, append_images=others, duration=milliseconds)
    ticks = media.frame_times(tmp_path / "a.png")
    assert (np.diff(ticks) > 0).all() and abs(ticks[-1] - last) <= 1


def test_an_animation_is_no_frame_of_a_folder(tmp_path):
    pictures = [Image.fromarray(frame) for frame in smooth(3)]
    pictures[0].save(tmp_path / "a.png")
    pictures[0].save(tmp_path / "b.webp", save_all=True, append_images=pictures[1:])
    with pytest.raises(UserError, match=r"b\.webp has 3 frames"):
        list(media.read_frames(tmp_path))


def test_several_views_are_no_animation(tmp_path):
    views = [Image.fromarray(frame) for frame in smooth(2, 40, 56)]
    views[0].save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=views[1:], quality=95)
    assert images.is_image(tmp_path / "a.jpg")
    assert_close(images.load(tmp_path / "a.jpg"), np.asarray(views[0]))


def test_a_stream_of_jpegs_is_no_image(tmp_path):
    data = images.encode_jpeg(smooth(1, 40, 56)[0], 90)
    for rest, still in ((b"", True), (b"more", True), (2 * data, False)):
        for name in ("a.jpg", "a.mjpeg"):
            (tmp_path / name).write_bytes(data + rest)
            assert images.is_image(tmp_path / name) == still
            assert len(list(media.read_frames(tmp_path / name))) == (1 if still else 3)


def test_a_photo_with_another_take_behind_it_is_an_image(tmp_path):
    exif = Image.Exif()
    exif[0x0110] = "a phone"
    Image.fromarray(smooth(1, 40, 56)[0]).save(tmp_path / "a.jpg", exif=exif)
    (tmp_path / "a.jpg").write_bytes(2 * (tmp_path / "a.jpg").read_bytes())
    assert images.is_image(tmp_path / "a.jpg")


def test_images_of_other_kinds_are_refused(tmp_path):
    head = struct.pack("<BBBHHBHHHHBB", 0, 0, 2, 0, 0, 0, 0, 0, 7, 9, 24, 0)
    (tmp_path / "a.tga").write_bytes(head + bytes(3 * 63))
    with pytest.raises(UserError, match="kind that is not read: convert it to PNG"):
        media.probe(tmp_path / "a.tga")


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


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".jpg", ".webp", ".ppm", ".qoi", ".jp2", ".gif"])
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
