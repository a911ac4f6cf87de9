from fractions import Fraction

import av
import numpy as np
import pytest

from deepsteg_jax import media
from deepsteg_jax.errors import UserError
from deepsteg_jax.media import formats
from tests.helpers import names, read_stack, refused
from tests.media.clips import packets_at, write
from tests.synthetic import film, noise, smooth

MPEG4 = {"codec": "mpeg4", "pixel_format": "yuv420p"}
H264 = {"codec": "libx264", "pixel_format": "yuv420p"}


def planes_of(pixel_format, height, width, count=4):
    """Noise in a format such as yuv420p10le."""
    rng, bits = np.random.default_rng(0), int(pixel_format[7:-2] or 8)
    step_y, step_x = {"420": (2, 2), "422": (1, 2), "444": (1, 1)}[pixel_format[3:6]]
    half = -(-height // step_y), -(-width // step_x)
    kind = np.uint8 if bits == 8 else np.uint16
    return [
        media.Planes(*(rng.integers(0, 2**bits, size, dtype=kind) for size in ((height, width), half, half)))
        for _ in range(count)
    ]


@pytest.mark.parametrize("size", [(32, 48), (31, 47)])
@pytest.mark.parametrize("name", ["a.mkv", "a.nut", "a.webm", "a.mp4"])
@pytest.mark.parametrize("pixel_format", ["yuv420p", "yuv422p", "yuv444p", "yuv420p10le", "yuv444p16le"])
def test_planes_are_exact(tmp_path, pixel_format, name, size):
    odd = size == (31, 47) and "444" not in pixel_format
    if not formats.find(name).keeps(pixel_format) or (name == "a.mp4" and odd):
        return  # refused, see test_outputs
    planes, colour = planes_of(pixel_format, *size), media.Colour(1, 1, 1, 1)
    times = [0, 40, 41, 90]
    given = {"time_base": Fraction(1, 1000), "pixel_format": pixel_format, "colour": colour}
    path = write(tmp_path / name, planes, times=times, **given)
    info, found = media.probe(path), list(media.read_planes(path))
    assert info.pixel_format == pixel_format and (info.width, info.height) == size[::-1]
    assert name == "a.nut" or info.colour == colour
    assert [frame.time * info.time_base for frame in found] == [Fraction(time, 1000) for time in times]
    for frame, wanted in zip(found, planes, strict=True):
        for plane, expected in zip(frame.frame, wanted, strict=True):
            assert plane.dtype == expected.dtype
            np.testing.assert_array_equal(plane, expected)


def test_planes_are_those_that_were_coded(tmp_path):
    path = film(tmp_path / "a.mp4", smooth(4), **MPEG4)
    with av.open(str(path)) as container:
        for frame, (planes, _) in zip(container.decode(video=0), media.read_planes(path), strict=True):
            coded = np.concatenate([plane.ravel() for plane in planes])
            np.testing.assert_array_equal(coded, frame.to_ndarray().ravel())


@pytest.mark.parametrize("name", ["a.mkv", "a.mp4", "a.webm"])
@pytest.mark.parametrize("tags", [media.Colour(1, 1, 1, 1), media.Colour(2, 6, 2, 2)])
def test_planes_keep_their_colours(tmp_path, name, tags):
    cover = film(tmp_path / "cover.mkv", smooth(3), prepare=lambda s: tags.put_on(s.codec_context), **H264)
    info = media.probe(cover)
    assert info.colour == tags
    planes = [planes for planes, _ in media.read_planes(cover)]
    path = write(tmp_path / name, planes, pixel_format=info.pixel_format, colour=info.colour)
    np.testing.assert_array_equal(read_stack(path), read_stack(cover))


def test_planes_with_loss(tmp_path):
    planes = planes_of("yuv420p", 32, 48)
    sizes = [
        write(tmp_path / "a.mp4", planes, pixel_format="yuv420p", lossy=lossy).stat().st_size
        for lossy in (None, media.Lossy(crf=30))
    ]
    assert sizes[0] > 2 * sizes[1]


@pytest.mark.parametrize("angle", [90, -90, 180])
def test_planes_are_turned_as_they_are_shown(tmp_path, angle):
    def turn(stream):
        stream.set_display_rotation(angle)

    plain = film(tmp_path / "a.mp4", smooth(1), **MPEG4)
    turned = film(tmp_path / "b.mp4", smooth(1), prepare=turn, **MPEG4)
    (before, _), (after, _) = next(media.read_planes(plain)), next(media.read_planes(turned))
    for plane, expected in zip(after, before, strict=True):
        np.testing.assert_array_equal(plane, np.rot90(expected, angle // 90))
    path = film(tmp_path / "c.mp4", smooth(1), prepare=turn, codec="libx264", pixel_format="yuv422p")
    if angle == 180:
        assert next(media.read_planes(path)).frame.cb.shape == (32, 24)
    else:
        refused(path, "stored on its side", lambda path: next(media.read_planes(path)))


def test_planes_past_damage(tmp_path):
    path = write(tmp_path / "a.mkv", planes_of("yuv420p", 32, 48), pixel_format="yuv420p")
    data, damaged = path.read_bytes(), []
    content = packets_at(path)[2][0]
    path.write_bytes(data.replace(content, bytes([*content[:9], content[9] ^ 4, *content[10:]])))
    with pytest.raises(UserError, match="damaged after frame 2"):
        list(media.read_planes(path))
    assert len(list(media.read_planes(path, damaged))) == 4 and damaged == [2]


def test_clips_without_planes(tmp_path):
    media.write_frames(tmp_path / "a.png", noise(1))
    media.write_frames(tmp_path / "a.mkv", noise(1))
    for name in ("a.png", "a.mkv"):
        refused(tmp_path / name, "no planes", media.read_planes)
    refused(tmp_path / "none.mkv", "does not exist", media.read_planes)


def test_planes_must_fit(tmp_path):
    good = planes_of("yuv420p", 32, 48, 1)[0]
    for bad in (
        good._replace(cb=good.y),
        good._replace(cr=good.cr.astype(np.uint16)),
        planes_of("yuv420p", 30, 48, 1)[0],
    ):
        with pytest.raises(ValueError, match="frame"):
            write(tmp_path / "a.mkv", [good, bad], pixel_format="yuv420p")
    assert names(tmp_path) == []
