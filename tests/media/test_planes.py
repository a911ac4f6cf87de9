from fractions import Fraction

import av
import numpy as np
import pytest

from deepsteg_jax import media
from deepsteg_jax.errors import UserError
from deepsteg_jax.media import formats
from deepsteg_jax.media.memory import Clip
from tests.helpers import names, read_stack, refused
from tests.media.clips import MATRICES, packets_at, shown_by, write
from tests.synthetic import film, in_planes, in_rgb, noise, smooth

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


@pytest.mark.parametrize("case", MATRICES)
def test_planes_are_turned_as_they_are_shown(tmp_path, case):
    plain = film(tmp_path / "a.mp4", smooth(1), **MPEG4)
    turned = film(tmp_path / "b.mp4", smooth(1), prepare=shown_by(case), **MPEG4)
    (before, _), (after, _) = next(media.read_planes(plain)), next(media.read_planes(turned))
    for plane, expected in zip(after, before, strict=True):
        np.testing.assert_array_equal(plane, MATRICES[case][1](expected))
    given = {"codec": "libx264", "pixel_format": "yuv422p"}
    path = film(tmp_path / "c.mp4", smooth(1), prepare=shown_by(case), **given)
    plain = film(tmp_path / "d.mp4", smooth(1), **given)
    if len(after.y) == 32:
        assert next(media.read_planes(path)).frame.cb.shape == (32, 24)
    else:
        refused(path, "stored on its side", lambda path: next(media.read_planes(path)))
    before, after = (next(media.read_planes(name, pixel_format="yuv420p")).frame for name in (plain, path))
    assert _same(after, [MATRICES[case][1](plane) for plane in before])


def test_planes_past_damage(tmp_path):
    path = write(tmp_path / "a.mkv", planes_of("yuv420p", 32, 48), pixel_format="yuv420p")
    data, damaged = path.read_bytes(), []
    content = packets_at(path)[2][0]
    path.write_bytes(data.replace(content, bytes([*content[:9], content[9] ^ 4, *content[10:]])))
    with pytest.raises(UserError, match="damaged after frame 2"):
        list(media.read_planes(path))
    assert len(list(media.read_planes(path, damaged))) == 4 and damaged == [2]


@pytest.mark.parametrize("of", [in_planes, np.asarray])
def test_frames_are_put_into_one_and_taken_apart(of):
    frames = of(smooth(3, 17, 24))
    apart = media.unstack(frames)
    assert len(apart) == 3 and type(apart[0]) is type(frames)
    again = media.stack(apart)
    assert type(again) is type(frames)
    for a, b in zip(list(again), list(frames), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("size", [(32, 48), (31, 47)])
def test_rgb_comes_back_from_planes_where_colour_is_smooth(size):
    y, x = np.mgrid[: size[0], : size[1]]
    frame = np.stack([100 + x, 90 + y, 120 + (x + y) // 2], axis=-1).astype(np.uint8)
    planes = media.from_rgb(frame, "yuv420p")
    assert [plane.shape for plane in planes] == [size, *[(-(-size[0] // 2), -(-size[1] // 2))] * 2]
    assert np.abs(media.to_rgb(planes, "yuv420p").astype(int) - frame).max() <= 4
    weights = np.array([65.481, 128.553, 24.966]) / 255  # BT.601, limited range
    np.testing.assert_allclose(planes.y, 16 + frame @ weights, atol=1.5)


def test_rgb_is_made_by_the_tags_of_planes():
    planes = media.from_rgb(noise(1)[0] // 2 + 60, "yuv444p")
    usual, bt601, bt709 = (
        media.to_rgb(planes, "yuv444p", colour).astype(int)
        for colour in (None, media.BT601, media.BT601._replace(matrix=1))
    )
    np.testing.assert_array_equal(usual, bt601)
    assert np.abs(usual - bt709).max() > 5


def _planes(path, **options):
    return media.stack([frame for frame, _ in media.read_planes(path, **options)])


def _same(a, b):
    return all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


def test_any_clip_is_read_as_planes_in_the_format_wanted(tmp_path):
    """By way of RGB where it has no planes."""
    frames = smooth(3)
    wanted, clip = in_planes(frames), Clip("clip", frames)
    film(tmp_path / "rgb.mkv", frames)
    (tmp_path / "folder").mkdir()
    for i, frame in enumerate(frames):
        media.write_frames(tmp_path / "folder" / f"{i}.png", [frame])
    for path in (tmp_path / "rgb.mkv", tmp_path / "folder", clip):
        found = list(media.read_planes(path, pixel_format="yuv420p"))
        assert _same(media.stack([frame for frame, _ in found]), wanted)
        assert [time for _, time in found] == [time for _, time in media.read_timed(path)]
    (image,) = media.read_planes(tmp_path / "folder" / "0.png", pixel_format="yuv420p")
    assert _same(image.frame, media.unstack(wanted)[0])


@pytest.mark.parametrize("pixel_format", ["yuv444p", "yuv422p", "yuv420p10le"])
def test_other_planes_are_converted_without_rgb(tmp_path, pixel_format):
    planes = [media.from_rgb(frame, pixel_format) for frame in smooth(3)]
    path, bits = write(tmp_path / "a.mkv", planes, pixel_format=pixel_format), int(pixel_format[7:-2] or 8)
    found = _planes(path, pixel_format="yuv420p")
    assert all(plane.dtype == np.uint8 for plane in found) and found.cb.shape == (3, 16, 24)
    y = media.stack(planes).y
    np.testing.assert_allclose(found.y, y / 2 ** (bits - 8), atol=0 if bits == 8 else 1)
    assert np.abs(found.cb.astype(int) - in_planes(smooth(3)).cb).mean() < 2


def test_planes_in_the_format_wanted_stay_as_they_are_unless_by_rgb(tmp_path):
    path = film(tmp_path / "a.mp4", smooth(3), **H264)
    own = _planes(path)
    assert _same(_planes(path, pixel_format="yuv420p"), own)
    assert _same(_planes(path, pixel_format="yuv420p", by_rgb=True), in_planes(read_stack(path)))
    film(tmp_path / "j.mkv", smooth(3), codec="mjpeg", pixel_format="yuvj420p")
    assert _same(_planes(tmp_path / "j.mkv", pixel_format="yuv420p"), _planes(tmp_path / "j.mkv"))


@pytest.mark.parametrize("name", ["out/", "out/%02d.png"])
def test_a_folder_takes_planes_as_rgb_if_it_need_not_be_exact(tmp_path, name):
    planes, colour = in_planes(smooth(3)), media.BT601._replace(matrix=1)
    given = {"pixel_format": "yuv420p", "colour": colour, "lossy": media.Lossy()}
    media.check_output(f"{tmp_path}/{name}", [], lossy=True, pixel_format="yuv420p")
    with media.Writer(f"{tmp_path}/{name}", 25, **given) as writer:
        for frame in media.unstack(planes):
            writer.write(frame)
    wanted = [media.to_rgb(frame, "yuv420p", colour) for frame in media.unstack(planes)]
    np.testing.assert_array_equal(read_stack(tmp_path / "out"), wanted)
    refused(
        f"{tmp_path}/more/", "images take RGB only", lambda p: media.Writer(p, 25, pixel_format="yuv420p")
    )


def test_a_clip_in_memory_takes_planes_as_rgb_if_it_need_not_be_exact():
    planes, clip = in_planes(smooth(3)), Clip("clip")
    with media.Writer(clip, 25, pixel_format="yuv420p", lossy=media.Lossy()) as writer:
        for frame in media.unstack(planes):
            writer.write(frame)
    np.testing.assert_array_equal(clip.frames, in_rgb(planes))
    with pytest.raises(ValueError, match="RGB only"):
        media.Writer(Clip("clip"), 25, pixel_format="yuv420p")


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_an_image_takes_planes_as_rgb_if_it_need_not_be_exact(tmp_path, suffix):
    (frame,) = media.unstack(in_planes(smooth(1, 33, 48)))
    path = tmp_path / f"a{suffix}"
    media.check_output(path, [], True, lossy=True, pixel_format="yuv420p")
    with media.Writer(path, 25, image=True, pixel_format="yuv420p", lossy=media.Lossy(quality=100)) as writer:
        writer.write(frame)
    wanted = media.to_rgb(frame, "yuv420p").astype(int)
    assert np.abs(read_stack(path)[0] - wanted).mean() < (8 if suffix == ".jpg" else 1e-9)


@pytest.mark.parametrize(
    ("name", "only"), [("a.png", True), ("a.jpg", True), ("a/", True), ("a/%d.png", True), ("a.mkv", False)]
)
def test_outputs_that_take_rgb_only(tmp_path, name, only):
    assert media.takes_rgb_only(f"{tmp_path}/{name}") == only
    assert media.takes_rgb_only(Clip("clip"))


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


def test_planes_keep_the_size_of_the_first_frame(tmp_path):
    data = b""
    for i, size in enumerate(((64, 96), (32, 48))):
        path = film(tmp_path / f"{i}.ts", smooth(3, *size), codec="libx264", pixel_format="yuv420p")
        data += path.read_bytes()
    (tmp_path / "both.ts").write_bytes(data)
    frames = [timed.frame for timed in media.read_planes(tmp_path / "both.ts")]
    assert len(frames) == 6 and {frame.y.shape for frame in frames} == {(64, 96)}
