"""JPEG files as their coefficients: what is written is the file that it is made of, but for them."""

import os
import struct
import warnings
from io import BytesIO

import numpy as np
import pytest
from PIL import Image, ImageCms

from deepsteg_jax import media
from deepsteg_jax.errors import UserError
from deepsteg_jax.media import huffman, images, jpeg
from tests.helpers import names, refused
from tests.synthetic import noise, smooth

CAMERA = {"quality": 85, "restart_marker_rows": 1, "subsampling": "4:2:2"}


def coded(height=45, width=67, mode="RGB", **options):
    """A JPEG of waves with noise, by default of an odd size."""
    frame = smooth(1, height, width)[0] // 2 + noise(1, height, width, high=100)[0]
    file = BytesIO()
    Image.fromarray(frame).convert(mode).save(file, "JPEG", **options)
    return file.getvalue()


def changed(frame, seed=0):
    """The same coefficients, but for one in ten."""
    rng = np.random.default_rng(seed)
    moves = (rng.integers(-1, 2, plane.shape) * (rng.random(plane.shape) < 0.1) for plane in frame.planes)
    planes = (plane + move for plane, move in zip(frame.planes, moves, strict=True))
    return frame._replace(planes=tuple(plane.astype(np.int16) for plane in planes))


def loud_decode(data):
    """What Pillow decodes; a warning is an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return np.asarray(Image.open(BytesIO(data)))


@pytest.mark.parametrize(
    ("mode", "options"),
    [
        ("RGB", {"quality": 75}),
        ("RGB", {"quality": 95, "subsampling": "4:4:4", "optimize": True}),
        ("RGB", {"quality": 80, "restart_marker_blocks": 7, "optimize": True}),
        ("RGB", CAMERA),
        ("L", {"quality": 90, "restart_marker_blocks": 3}),
        ("RGB", {"quality": 90, "progressive": True}),
        ("L", {"quality": 97, "progressive": True, "restart_marker_blocks": 5}),
    ],
)
@pytest.mark.parametrize("size", [(45, 67), (48, 64), (8, 9)])
def test_the_same_coefficients_make_the_same_file(mode, options, size):
    data = coded(*size, mode=mode, **options)
    assert jpeg.replace_coefficients(data, jpeg.decode(data)) == data


@pytest.mark.parametrize("options", [CAMERA, {"optimize": True}, {"quality": 95, "progressive": True}])
def test_other_coefficients_come_back(options):
    data = coded(**options)
    goal = changed(jpeg.decode(data))
    stego = jpeg.replace_coefficients(data, goal)
    for found, wanted in zip(jpeg.decode(stego), goal, strict=True):
        assert all(np.array_equal(*pair) for pair in zip(found, wanted, strict=True))
    assert loud_decode(stego).shape == (45, 67, 3)
    assert np.abs(loud_decode(stego).astype(int) - loud_decode(data)).mean() > 1


def test_tables_that_were_the_best_ones_are_so_again():
    stego = jpeg.replace_coefficients(data := coded(optimize=True), changed(jpeg.decode(data)))
    assert jpeg.replace_coefficients(data, jpeg.decode(data)) == data
    assert jpeg.replace_coefficients(stego, jpeg.decode(stego)) == stego
    scans = jpeg._scans(file := jpeg._parse(stego))
    tokens = {i: jpeg._tokens(file, scan, jpeg.decode(stego).planes) for i, scan in scans.items()}
    for i, j in jpeg._sources(scans):
        number, table = jpeg._tables(file.segments[i])[j]
        counts = sum(huffman.frequencies(found)[number] for found in tokens.values())
        assert table == huffman.best_table(counts)


def test_codes_are_no_longer_than_sixteen_bits():
    counts = np.zeros(256, int)
    counts[:40] = [2**i for i in range(40)]
    table = huffman.best_table(counts)
    codes, lengths = table.codes()
    assert lengths[:40].min() > 0 and lengths.max() == 16
    words = {format(code, f"0{length}b") for code, length in zip(codes[:40], lengths[:40], strict=True)}
    assert not any(a != b and b.startswith(a) for a in words for b in words)
    assert "1" * 16 not in words


def test_metadata_and_what_follows_the_picture_stay():
    tags = Image.Exif()
    tags[274], tags[271] = 6, "a camera"
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    data = (
        coded(exif=tags, icc_profile=profile, comment=b"a comment", xmp=b"<x/>", dpi=(72, 72)) + b"\0 a film"
    )
    stego = jpeg.replace_coefficients(data, changed(jpeg.decode(data)))
    before, after = (jpeg._parse(x) for x in (data, stego))
    assert [segment._replace(coded=b"") for segment in after.segments] == [
        segment._replace(coded=b"") for segment in before.segments
    ]
    assert after.tail == before.tail == b"\xff\xd9\0 a film"


@pytest.mark.parametrize("order", ["<", ">"])
def test_places_of_further_pictures_move_with_them(order):
    entries = b"".join(
        struct.pack(f"{order}IIIHH", *entry) for entry in ((0, 1000, 0, 0, 0), (0, 500, 960, 0, 0))
    )
    table = struct.pack(
        f"{order}2sHIHHHIII", b"II" if order == "<" else b"MM", 42, 8, 1, 0xB002, 7, 32, 26, 0
    )
    segment = jpeg._Segment(0xE2, b"MPF\0" + table + entries)
    moved = jpeg._moved(segment, 7).content
    assert len(moved) == len(segment.content) and moved[: 4 + 26] == segment.content[: 4 + 26]
    found = [struct.unpack_from(f"{order}IIIHH", moved, 4 + 26 + 16 * i) for i in range(2)]
    assert found == [(0, 1007, 0, 0, 0), (0, 500, 967, 0, 0)]


@pytest.mark.parametrize("turn", [1, 6])
def test_tags_are_left_out_and_the_orientation_stays(tmp_path, turn):
    tags = Image.Exif()
    tags[274], tags[271] = turn, "a camera"
    data = coded(exif=tags, comment=b"a comment", xmp=b"<x/>") + b" a film"
    clean = jpeg.without_tags(data, turn)
    with Image.open(BytesIO(clean)) as image:
        assert dict(image.getexif()) == ({} if turn == 1 else {274: turn}) and "comment" not in image.info
    assert np.array_equal(loud_decode(clean), loud_decode(data)) and clean.endswith(b"\xff\xd9")
    (tmp_path / "a.jpg").write_bytes(data)
    with jpeg.JpegWriter(tmp_path / "b.jpg", tmp_path / "a.jpg", drop_tags=True) as writer:
        writer.write(jpeg.decode(data))
    assert (tmp_path / "b.jpg").read_bytes() == clean


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (coded(mode="CMYK"), "neither grey nor"),
        (coded()[:-400], "cut short"),
        (b"\x89PNG\r\n\x1a\n", "no JPEG"),
        (coded()[:30], "damaged"),
    ],
)
def test_files_whose_coefficients_cannot_be_written(tmp_path, data, words):
    (tmp_path / "a.jpg").write_bytes(data)
    refused(tmp_path / "a.jpg", words, lambda path: next(jpeg.read_coefficients(path)))
    assert jpeg.count_nonzero(tmp_path / "a.jpg") == 0


def test_an_image_tells_its_coefficients(tmp_path):
    (tmp_path / "a.jpg").write_bytes(data := coded())
    planes = jpeg.decode(data).planes
    wanted = sum(np.count_nonzero(plane.reshape(-1, 64)[:, 1:]) for plane in planes)
    assert media.probe(tmp_path / "a.jpg").coefficients == wanted > 0
    images.save(tmp_path / "a.png", loud_decode(data), "a.png")
    assert media.probe(tmp_path / "a.png").coefficients == 0


def test_the_writer_leaves_nothing_half_written(tmp_path):
    (tmp_path / "a.jpg").write_bytes(data := coded())
    frame = jpeg.decode(data)
    with jpeg.JpegWriter(tmp_path / "b.jpg", tmp_path / "a.jpg") as writer:
        writer.write(frame)
    assert (tmp_path / "b.jpg").read_bytes() == data
    with pytest.raises(UserError), jpeg.JpegWriter(tmp_path / "c.jpg", tmp_path / "a.jpg") as writer:
        writer.write(frame)
        raise UserError("")
    assert names(tmp_path) == ["a.jpg", "b.jpg"]


def test_no_damage_to_the_segments_is_worse_than_a_refusal(tmp_path):
    data, rng = coded(16, 16), np.random.default_rng(0)
    end = data.index(b"\xff\xda")
    for _ in range(30):
        damaged = bytearray(data)
        damaged[rng.integers(2, end + 12)] = rng.integers(256)
        (tmp_path / "a.jpg").write_bytes(damaged)
        os.utime(tmp_path / "a.jpg", ns=(0, int(rng.integers(2**40))))
        assert jpeg.count_nonzero(tmp_path / "a.jpg") >= 0
