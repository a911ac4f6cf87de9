from fractions import Fraction

import av
import numpy as np
import pytest

from deepsteg_jax import media
from deepsteg_jax.errors import UserError
from deepsteg_jax.media import video_file
from tests.helpers import names, read_stack, refused
from tests.media.clips import LOSSY, write
from tests.synthetic import Sound, film, hiss, noise, smooth


@pytest.mark.parametrize("size", [(16, 16), (5, 17), (241, 321), (48, 64), (4, 4)])
@pytest.mark.parametrize("name", ["a.mkv", "a.nut", "a.webm"])
def test_videos_are_exact(tmp_path, name, size):
    frames, rate = noise(4, *size), Fraction(30000, 1001)
    media.write_frames(tmp_path / name, iter(frames), rate)
    found = read_stack(tmp_path / name)
    assert found.dtype == np.uint8 and names(tmp_path) == [name]
    np.testing.assert_array_equal(found, frames)
    info = media.probe(tmp_path / name)
    assert (info.width, info.height, info.rate, info.is_image) == (size[1], size[0], rate, False)
    if name != "a.nut":  # which has ticks of its own and says nothing of the number of frames
        assert (info.frames, info.time_base) == (4, Fraction(1, 1000))


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.tif", "a.TIFF", "a.ppm"])
def test_images_are_exact(tmp_path, name):
    frames = noise(1, 13, 7)
    media.write_frames(tmp_path / name, frames)
    np.testing.assert_array_equal(read_stack(tmp_path / name), frames)
    assert media.probe(tmp_path / name) == media.Info(7, 13, 1, media.FOLDER_RATE, True)
    with pytest.raises(ValueError, match="exactly one"):
        media.write_frames(tmp_path / name, noise(2))
    assert names(tmp_path) == [name]


def test_lossless_formats_stay_lossless(tmp_path):
    for name, given in (("a.mkv", {}), ("a.png", {"image": True}), ("b/", {})):
        frames = noise(1)
        write(f"{tmp_path}/{name}", frames, lossy=LOSSY, **given)
        np.testing.assert_array_equal(read_stack(tmp_path / name), frames)


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError, UserError])
@pytest.mark.parametrize("name", ["a.mkv", "a.png", "a.mp4", "a.jpg"])
def test_exception_leaves_the_folder_as_it_was(tmp_path, error, name):
    (tmp_path / name).write_bytes(b"older file")
    image = name in ("a.png", "a.jpg")
    with pytest.raises(error), media.Writer(tmp_path / name, 25, image=image, lossy=LOSSY) as writer:
        for frame in noise(1 if image else 60):
            writer.write(frame)
        assert len(names(tmp_path)) == 2
        raise error("stop")
    assert names(tmp_path) == [name]
    assert (tmp_path / name).read_bytes() == b"older file"


def test_older_file_is_replaced(tmp_path):
    (tmp_path / "a.mkv").write_bytes(b"older file")
    assert len(list(media.read_frames(write(tmp_path / "a.mkv", noise(2))))) == 2


def test_tracks_of_a_file_that_has_none(tmp_path):
    (tmp_path / "sound.txt").write_text("no sound")
    with pytest.raises(UserError, match=r"sound\.txt"):
        write(tmp_path / "a.mkv", noise(1), tracks_from=tmp_path / "sound.txt")
    assert names(tmp_path) == ["sound.txt"]


def test_frames_must_fit(tmp_path):
    for bad in (noise(1)[0].astype(np.float32), noise(1)[0][..., 0], noise(1, 32, 47)[0]):
        with pytest.raises(ValueError, match="frame"), media.Writer(tmp_path / "a.mkv", 25) as writer:
            writer.write(noise(1)[0])
            writer.write(bad)
    assert names(tmp_path) == []


def test_a_full_disk_leaves_no_playable_video(tmp_path, monkeypatch):
    monkeypatch.setattr(video_file, "is_cut", lambda path: path.suffix == ".part")
    refused(tmp_path / "a.mp4", "cannot be written", lambda path: write(path, noise(2), lossy=LOSSY))
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    "name, time_base, times",
    [
        ("a.mkv", Fraction(1, 1000), [0, 40, 41, 700, 701, 2000]),
        ("a.mkv", Fraction(1, 1000), [37, 40, 90, 91, 120, 9000]),
        ("a.webm", Fraction(1, 1000), [37, 40, 90, 91, 120, 9000]),
        ("a.nut", Fraction(1, 90000), [5, 100, 137, 900, 1000, 400_000]),
        ("a.nut", Fraction(1, 12800), [0, 512, 1025, 1026, 1027, 99_999]),
        *(
            (name, *given)
            for name in ("a.mp4", "a.mov")
            for given in [
                (Fraction(1, 1000), [0, 40, 41, 700, 701, 2000]),
                (Fraction(1, 1000), [37, 40, 90, 91, 120, 9000]),
                (Fraction(1, 90000), [0, 100, 137, 900, 1000, 400_000]),
                (Fraction(1, 12800), [512, 513, 1025, 1026, 1027, 99_999]),
                (Fraction(1001, 24000), [0, 1, 2, 3, 5, 6]),
            ]
        ),
    ],
)
def test_times_are_kept(tmp_path, name, time_base, times):
    frames = smooth(6)
    path = write(tmp_path / name, frames, times=times, time_base=time_base, lossy=LOSSY)
    ticks, timed = media.probe(path).time_base, list(media.read_timed(path))
    assert [found.time * ticks for found in timed] == [time * time_base for time in times]
    if media.is_exact(path):
        np.testing.assert_array_equal([found.frame for found in timed], frames)
    assert media.frame_times(path).tolist() == [found.time for found in timed]
    assert media.count_frames(path) == len(times)


@pytest.mark.parametrize("name", ["a.mkv", "a.webm", "a.mp4", "a.mov"])
def test_the_last_frame_is_shown_as_long_as_it_is(tmp_path, name):
    times = [0, 100, 200, 700, 800]
    path = write(
        tmp_path / name,
        smooth(5),
        times=times,
        time_base=Fraction(1, 1000),
        lossy=LOSSY,
        end=Fraction(19, 5),
    )
    ticks, last = media.timing(path)
    assert (ticks[-1] + last) * media.probe(path).time_base == Fraction(19, 5)
    with av.open(str(path)) as container:
        assert container.duration == 3_800_000


def test_times_that_do_not_grow_come_a_tick_later(tmp_path):
    path = write(tmp_path / "a.mkv", noise(5), times=[7, 7, 3, 40, 40], time_base=Fraction(1, 1000))
    assert media.frame_times(path).tolist() == [7, 8, 9, 40, 41]


def test_ticks_too_fine_for_playable_video_are_rounded(tmp_path):
    times = [0, 10, 41_000_000, 42_000_000, 10**9, 3 * 10**9]
    path = write(tmp_path / "a.mp4", smooth(6), times=times, time_base=Fraction(1, 10**9), lossy=LOSSY)
    found = media.frame_times(path) * float(media.probe(path).time_base)
    np.testing.assert_allclose(found, np.array(times) / 1e9, atol=1.2e-5)
    assert (np.diff(found) > 0).all()


@pytest.mark.parametrize(
    "name, first, last",
    [
        ("out/", "frame_00000.png", "frame_00010.png"),
        ("out/x_%03d.tif", "x_000.tif", "x_010.tif"),
        ("out/%d.bmp", "0.bmp", "9.bmp"),
    ],
)
def test_sequence_round_trip(tmp_path, name, first, last):
    frames = noise(11, 8, 12)
    write(f"{tmp_path}/{name}", frames)
    written = names(tmp_path / "out")
    assert (written[0], written[-1], len(written)) == (first, last, 11)
    found = read_stack(f"{tmp_path}/{name}")
    np.testing.assert_array_equal(found, frames)
    info = media.probe(f"{tmp_path}/{name}")
    assert info == media.Info(12, 8, 11, media.FOLDER_RATE, False)
    assert names(tmp_path) == ["out"]


def test_an_empty_folder_takes_a_sequence_and_a_full_one_does_not(tmp_path):
    (tmp_path / "out").mkdir()
    write(tmp_path / "out", noise(2))
    refused(f"{tmp_path}/out/", "has files in it", lambda path: write(path, noise(1)))
    assert names(tmp_path) == ["out"]
    assert len(names(tmp_path / "out")) == 2


@pytest.mark.parametrize("error", [KeyboardInterrupt, UserError])
@pytest.mark.parametrize("name", ["out/", "out/%d.png", "out/50%_frame_%05d.png", "out/a%%_%d.png"])
@pytest.mark.parametrize("there", [True, False])
def test_exception_leaves_no_images(tmp_path, error, name, there):
    if there:
        (tmp_path / "out").mkdir()
    before = names(tmp_path)
    with pytest.raises(error), media.Writer(f"{tmp_path}/{name}", 25) as writer:
        for frame in noise(3):
            writer.write(frame)
        raise error("stop")
    assert names(tmp_path) == before
    assert not there or names(tmp_path / "out") == []


def test_sound_beside_images(tmp_path):
    source = film(tmp_path / "a.mkv", noise(6), sounds=[Sound("flac", hiss())])
    sound = media.encode_sound(source, 32_000)
    with media.Writer(f"{tmp_path}/out/", 25) as writer:
        writer.write(noise(1)[0])
        writer.add_sound(sound)
    sound.file.seek(0)
    assert (tmp_path / "out" / "sound.opus").read_bytes() == sound.file.read()
    assert len(read_stack(tmp_path / "out")) == 1
    sound.file.seek(0)
    with (
        pytest.raises(UserError, match="takes no sound"),
        media.Writer(tmp_path / "a.png", 25, image=True) as writer,
    ):
        writer.write(noise(1)[0])
        writer.add_sound(sound)
    assert names(tmp_path) == ["a.mkv", "out"]
    sound.file.close()
