import json
import os
import shutil
import socket
import subprocess
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from deepsteg_jax import media
from deepsteg_jax.errors import UserError
from deepsteg_jax.media import codecs, images, source, video_file
from tests.helpers import read_stack
from tests.synthetic import Sound, film, heard, hiss, packets, smooth


def clip(count=6, height=48, width=64, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, height, width, 3), dtype=np.uint8)


def save(path, frames, rate=25, **kwargs):
    with media.Writer(path, rate, **kwargs) as writer:
        for frame in frames:
            writer.write(frame)
    return path


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def read_until_error(path):
    frames = []
    with pytest.raises(UserError) as caught:
        for frame in media.read_frames(path):
            frames.append(frame)
    assert "\n" not in str(caught.value)
    assert path.name in str(caught.value)
    return frames, str(caught.value)


def packets_of(path, kind):
    with av.open(str(path)) as container:
        stream = container.streams.get({kind: 0})
        return [
            (bytes(packet), packet.pts * packet.time_base, packet.pos)
            for packet in container.demux(stream)
            if packet.dts is not None
        ]


def with_audio(path, codec="aac", seconds=1.0, frames=25, rotate=None, size=(64, 48), container_format=None):
    """A lossy clip at 25 frames/s with a tone of its own length."""
    with av.open(str(path), "w", format=container_format) as container:
        video = container.add_stream("mpeg4", rate=25, width=size[0], height=size[1], pix_fmt="yuv420p")
        if rotate is not None:
            video.set_display_rotation(rotate)
        audio = container.add_stream(codec, rate=48000, layout="stereo") if codec else None
        for i in range(frames):
            picture = np.full((size[1], size[0], 3), 10 * (i % 20), np.uint8)
            picture[: size[1] // 2, : size[0] // 2] = (255, 0, 0)
            container.mux(video.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(video.encode(None))
        if audio is not None:
            rng = np.random.default_rng(1)
            for start in range(0, int(48000 * seconds), 960):
                sound = rng.uniform(-0.3, 0.3, (2, 960)).astype(np.float32)
                frame = av.AudioFrame.from_ndarray(sound, format="fltp", layout="stereo")
                frame.sample_rate, frame.pts, frame.time_base = 48000, start, Fraction(1, 48000)
                container.mux(audio.encode(frame))
            container.mux(audio.encode(None))
    return path


@pytest.mark.parametrize("size", [(16, 16), (5, 17), (241, 321), (48, 64), (4, 4)])
def test_video_round_trip_is_bit_exact(tmp_path, size):
    frames = clip(4, *size)
    path = save(tmp_path / "a.mkv", frames, Fraction(30000, 1001))
    np.testing.assert_array_equal(np.stack(list(media.read_frames(path))), frames)
    info = media.probe(path)
    assert info[:6] == (size[1], size[0], 4, Fraction(30000, 1001), False, Fraction(1, 1000))
    assert (info.aspect, info.tracks) == (None, 0)
    assert names(tmp_path) == ["a.mkv"]


def test_video_is_plain_ffv1(tmp_path):
    path = save(tmp_path / "a.mkv", clip(8), Fraction(24))
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("ffv1", "bgr0")
        assert set(container.metadata) <= {"ENCODER"}
        assert set(stream.metadata) <= {"ENCODER", "DURATION"}
        packets = [packet for packet in container.demux(stream) if packet.size]
    assert all(packet.is_keyframe for packet in packets)
    assert [float(p.pts * p.time_base) for p in packets] == pytest.approx(
        [i / 24 for i in range(8)], abs=6e-4
    )


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".TIFF"])
def test_image_round_trip(tmp_path, suffix):
    frames = clip(1, 13, 7)
    path = save(tmp_path / f"a{suffix}", frames, image=True)
    np.testing.assert_array_equal(list(media.read_frames(path)), frames)
    assert media.probe(path) == media.Info(7, 13, 1, media.FOLDER_RATE, True)
    assert len(names(tmp_path)) == 1


def test_start_stop_and_size(tmp_path):
    frames = clip(7)
    path = save(tmp_path / "a.mkv", frames)
    np.testing.assert_array_equal(list(media.read_frames(path, 2, 5)), frames[2:5])
    np.testing.assert_array_equal(list(media.read_frames(path, 5, 99)), frames[5:])
    assert list(media.read_frames(path, 9)) == []
    small = list(media.read_frames(path, width=20, height=10))
    assert len(small) == 7
    assert small[0].shape == (10, 20, 3)
    np.testing.assert_allclose(small[3].astype(int), media.resize(frames[3], 20, 10), atol=2)


def test_resize():
    frame = clip(1)[0]
    assert media.resize(frame, 64, 48) is frame
    assert media.resize(frame[:, ::-1], 31, 17).shape == (17, 31, 3)
    flat = np.full((40, 40, 3), (10, 200, 90), np.uint8)
    np.testing.assert_array_equal(media.resize(flat, 23, 9), np.full((9, 23, 3), (10, 200, 90)))


def test_folder_of_images(tmp_path):
    frames = clip(4)
    for i in (2, 0, 3, 1):
        Image.fromarray(frames[i]).save(tmp_path / f"{i:03}.png")
    (tmp_path / "notes.txt").write_text("no image")
    np.testing.assert_array_equal(list(media.read_frames(tmp_path)), frames)
    np.testing.assert_array_equal(list(media.read_frames(tmp_path, 1, 3)), frames[1:3])
    assert next(media.read_frames(tmp_path, width=8, height=6)).shape == (6, 8, 3)
    assert media.probe(tmp_path) == media.Info(64, 48, 4, Fraction(25), False)
    Image.fromarray(frames[0, :5]).save(tmp_path / "004.png")
    with pytest.raises(UserError, match=r"004\.png is 64x5"):
        list(media.read_frames(tmp_path))


def test_orientation_of_images_and_16_bits(tmp_path):
    picture = clip(1, 10, 20)[0]
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(picture).save(tmp_path / "a.png", exif=exif)
    assert media.probe(tmp_path / "a.png")[:2] == (10, 20)
    np.testing.assert_array_equal(next(media.read_frames(tmp_path / "a.png")), np.rot90(picture, -1))
    grey = np.arange(200, dtype=np.uint16).reshape(10, 20) * 300
    Image.fromarray(grey).save(tmp_path / "b.png")
    np.testing.assert_array_equal(next(media.read_frames(tmp_path / "b.png"))[..., 1], grey >> 8)


@pytest.mark.parametrize("angle", [90, -90, 180])
def test_rotation_of_videos(tmp_path, angle):
    plain = with_audio(tmp_path / "a.mp4", codec=None, frames=3)
    turned = with_audio(tmp_path / "b.mp4", codec=None, frames=3, rotate=angle)
    frame, expected = next(media.read_frames(turned)), next(media.read_frames(plain))
    info = media.probe(turned)
    assert frame.shape == (info.height, info.width, 3) == ((48, 64, 3) if angle == 180 else (64, 48, 3))
    with av.open(str(turned)) as container:
        assert next(container.decode(video=0)).rotation % 360 == angle % 360
    np.testing.assert_array_equal(frame, np.rot90(expected, angle // 90))
    small = next(media.read_frames(turned, width=30, height=22))
    assert small.shape == (22, 30, 3)


@pytest.mark.parametrize(
    ("name", "codec"),
    [("a.mp4", "aac"), ("a.mkv", "libopus"), ("a.avi", "pcm_s16le"), ("a.mov", "pcm_s16le")],
)
def test_sound_is_copied(tmp_path, name, codec):
    cover = with_audio(tmp_path / name, codec)
    frames = clip(25)
    path = save(tmp_path / "out.mkv", frames, tracks_from=cover)
    assert names(tmp_path) == sorted([name, "out.mkv"])
    ours, theirs = packets_of(path, "audio"), packets_of(cover, "audio")
    assert [p[0] for p in ours] == [p[0] for p in theirs]
    assert [float(p[1]) for p in ours] == pytest.approx([float(p[1]) for p in theirs], abs=2e-3)
    video = packets_of(path, "video")
    assert video[0][1] == 0
    assert min(p[2] for p in ours) < max(p[2] for p in video)  # interleaved
    np.testing.assert_array_equal(list(media.read_frames(path)), frames)


def test_sound_that_is_longer_than_the_video_is_copied_whole(tmp_path):
    cover = with_audio(tmp_path / "a.mp4", "aac")
    path = save(tmp_path / "out.mkv", clip(10), tracks_from=cover)
    ours, theirs = packets_of(path, "audio"), packets_of(cover, "audio")
    assert theirs[-1][1] > 2 * Fraction(10, 25)
    assert [p[0] for p in ours] == [p[0] for p in theirs]


def test_cover_without_sound(tmp_path):
    cover = with_audio(tmp_path / "a.mp4", codec=None, frames=3)
    with av.open(str(save(tmp_path / "out.mkv", clip(3), tracks_from=cover))) as container:
        assert not container.streams.audio


def make_text(folder):
    for name in ("a.txt", "a.mp4", "a.png"):
        (folder / name).write_text("this is no video\n" * 50)
    return [folder / name for name in ("a.txt", "a.mp4", "a.png")]


def make_sound(folder):
    with av.open(str(folder / "a.wav"), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
    return [folder / "a.wav"]


def make_no_frames(folder):
    with av.open(str(folder / "a.mkv"), "w") as container:
        container.add_stream("ffv1", rate=25, width=16, height=16, pix_fmt="bgr0")
        container.start_encoding()
    return [folder / "a.mkv"]


def make_empty(folder):
    (folder / "a.mkv").write_bytes(b"")
    (folder / "images").mkdir()
    return [folder / "a.mkv", folder / "images"]


def make_cut_image(folder):
    cuts = []
    for name in ("a.png", "a.jpg", "a.bmp"):
        Image.fromarray(clip(1)[0]).save(folder / name)
        data = (folder / name).read_bytes()
        (folder / name).write_bytes(data[: len(data) // 2])
        cuts.append(folder / name)
    return cuts


def make_missing(folder):
    return [folder / "none.mkv", folder / "line\nbreak.mkv", folder / "no" / "none.png"]


@pytest.mark.parametrize(
    "make", [make_text, make_sound, make_no_frames, make_empty, make_cut_image, make_missing]
)
def test_bad_inputs(tmp_path, make):
    for path in make(tmp_path):
        for read in (media.probe, lambda p: list(media.read_frames(p))):
            with pytest.raises(UserError) as caught:
                read(path)
            assert "\n" not in str(caught.value)
            assert path.name.replace("\n", " ") in str(caught.value)


def test_wrong_kind_of_file_is_reported_at_once(tmp_path):
    (tmp_path / "a.mp4").write_text("no video")
    with pytest.raises(UserError):
        media.read_frames(tmp_path / "a.mp4")


def test_cut_mkv_gives_its_frames_then_an_error(tmp_path):
    frames = clip(8)
    path = save(tmp_path / "a.mkv", frames)
    data, packets = path.read_bytes(), packets_of(path, "video")
    for k in (1, 4, 7):
        for position in (packets[k][2] + 2, packets[k][2] + len(packets[k][0]) // 2):
            path.write_bytes(data[:position])
            readable, message = read_until_error(path)
            np.testing.assert_array_equal(readable, frames[:k])
            assert f"cut short after frame {k}" in message
    path.write_bytes(data[: packets[0][2] + 100])
    assert read_until_error(path)[0] == []
    path.write_bytes(data[:-3])  # only the index is hurt
    assert len(read_until_error(path)[0]) == 8
    path.write_bytes(data[:100])
    assert read_until_error(path)[0] == []


def test_part_of_a_cut_file_can_be_read(tmp_path):
    frames = clip(8)
    path = save(tmp_path / "a.mkv", frames)
    path.write_bytes(path.read_bytes()[: packets_of(path, "video")[6][2]])
    np.testing.assert_array_equal(list(media.read_frames(path, 0, 5)), frames[:5])


@pytest.mark.parametrize("front", [True, False])
def test_cut_mp4(tmp_path, front):
    path = tmp_path / "a.mp4"
    frames = clip(20, 96, 96)
    with av.open(str(path), "w", options={"movflags": "faststart"} if front else {}) as container:
        stream = container.add_stream("mpeg4", rate=25, width=96, height=96, pix_fmt="yuv420p")
        stream.codec_context.bit_rate = 4_000_000
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
    whole = list(media.read_frames(path))
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 2 // 3])
    readable, message = read_until_error(path)
    assert "cut short" in message
    if front:
        assert 5 < len(readable) < 20
        np.testing.assert_array_equal(readable, whole[: len(readable)])


@pytest.mark.parametrize("size", [(48, 64), (16, 16), (5, 17)])
def test_flipped_byte_in_a_frame(tmp_path, size):
    frames = clip(6, *size)
    path = save(tmp_path / "a.mkv", frames)
    data, packets = path.read_bytes(), packets_of(path, "video")
    rng = np.random.default_rng(3)
    for k in (0, 3, 5):
        start = data.index(packets[k][0])
        for offset in [0, len(packets[k][0]) - 1, *rng.integers(0, len(packets[k][0]), 4)]:
            hurt = bytearray(data)
            hurt[start + offset] ^= 1 << int(rng.integers(8))
            path.write_bytes(hurt)
            readable, message = read_until_error(path)
            np.testing.assert_array_equal(np.array(readable).reshape(-1, *size, 3), frames[:k])
            assert f"damaged after frame {k}" in message


def test_flipped_byte_anywhere_never_changes_frames_in_silence(tmp_path):
    frames = clip(5, 8, 8)
    path = save(tmp_path / "a.mkv", frames)
    data, first = path.read_bytes(), packets_of(path, "video")[0][2]
    for position in range(first, len(data), 7):
        hurt = bytearray(data)
        hurt[position] ^= 0x55
        path.write_bytes(hurt)
        readable = []
        try:
            readable.extend(media.read_frames(path))
            np.testing.assert_array_equal(readable, frames)
        except UserError:
            np.testing.assert_array_equal(np.array(readable).reshape(-1, 8, 8, 3), frames[: len(readable)])


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError, UserError])
@pytest.mark.parametrize(("name", "image"), [("a.mkv", False), ("a.png", True)])
def test_exception_leaves_the_folder_as_it_was(tmp_path, error, name, image):
    (tmp_path / name).write_bytes(b"older file")
    with pytest.raises(error), media.Writer(tmp_path / name, 25, image=image) as writer:
        writer.write(clip(1)[0])
        assert len(names(tmp_path)) == 2
        raise error("stop")
    assert names(tmp_path) == [name]
    assert (tmp_path / name).read_bytes() == b"older file"


def test_older_file_is_replaced(tmp_path):
    (tmp_path / "a.mkv").write_bytes(b"older file")
    assert len(list(media.read_frames(save(tmp_path / "a.mkv", clip(2))))) == 2


def test_writer_failures_leave_nothing(tmp_path):
    with pytest.raises(UserError, match="no frames"), media.Writer(tmp_path / "a.mkv", 25):
        pass
    with pytest.raises(UserError, match="cannot be written"):
        save(tmp_path / "none" / "a.mkv", clip(1))
    (tmp_path / "b.mkv").mkdir()
    (tmp_path / "b.mkv" / "file").touch()
    with pytest.raises(UserError, match="has files in it"):
        save(tmp_path / "b.mkv", clip(1))
    with pytest.raises(UserError, match="33x3"):
        save(tmp_path / "a.mkv", clip(1, 3, 33))
    with pytest.raises(UserError, match="loss"):
        media.Writer(tmp_path / "a.mp4", 25)
    with pytest.raises(UserError, match="sound.txt"):
        (tmp_path / "sound.txt").write_text("no sound")
        save(tmp_path / "a.mkv", clip(1), tracks_from=tmp_path / "sound.txt")
    assert names(tmp_path) == ["b.mkv", "sound.txt"]


def test_frames_must_fit(tmp_path):
    for bad in (clip(1)[0].astype(np.float32), clip(1)[0][..., 0], clip(1, 48, 63)[0]):
        with pytest.raises(ValueError, match="frame"), media.Writer(tmp_path / "a.mkv", 25) as writer:
            writer.write(clip(1)[0])
            writer.write(bad)
    with pytest.raises(ValueError, match="exactly one"):
        save(tmp_path / "a.png", clip(2), image=True)
    assert names(tmp_path) == []


def test_check_output(tmp_path, monkeypatch):
    cover = tmp_path / "cover.mkv"
    cover.write_bytes(b"x")
    (tmp_path / "link.mkv").symlink_to(cover)
    (tmp_path / "folder.mkv").mkdir()
    (tmp_path / "folder.mkv" / "file").touch()
    for name in ("a.mkv", "A.MKV", "cover2.mkv"):
        media.check_output(tmp_path / name, [cover, tmp_path])
    for name in ("a.png", "a.bmp", "a.tif", "a.TIFF"):
        media.check_output(tmp_path / name, image=True)
    for name in ("new/", "new/x_%04d.tif"):
        media.check_output(f"{tmp_path}/{name}", [cover])
    bad = [
        ("a.mp4", False, "loss.*use .mkv"),
        ("a.avi", False, "loss"),
        ("a.gif", True, "loss.*use .png"),
        ("a.jpg", True, "loss"),
        ("a.webp", True, "loss"),
        ("a.png", False, "still images; use .mkv"),
        ("a.jpeg", False, "still images"),
        ("a.mkv", True, "videos; use .png"),
        ("a.mp4", True, "videos"),
        ("a.xyz", False, "not a known video"),
        ("a", True, "not a known image"),
        ("folder.mkv", False, "has files in it"),
        ("folder.mkv/x%d.png", False, "has files in it"),
        ("new/x%d.jpg", False, "use .png"),
        ("cover.mkv/", False, "is a file"),
        ("folder.mkv", True, "is a folder"),
        ("none/new/", False, "does not exist"),
        ("none/a.mkv", False, "does not exist"),
        ("cover.mkv", False, "also an input"),
        ("folder.mkv/../cover.mkv", False, "also an input"),
        ("link.mkv", False, "also an input"),
    ]
    for name, image, words in bad:
        with pytest.raises(UserError, match=words) as caught:
            media.check_output(f"{tmp_path}/{name}", [cover, tmp_path / "none.mkv"], image=image)
        assert "\n" not in str(caught.value)
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(UserError, match="no permission"):
        media.check_output(tmp_path / "a.mkv")


def test_written_frames_are_read_as_a_stack(tmp_path):
    frames = clip(3)
    media.write_frames(tmp_path / "a.mkv", iter(frames))
    media.write_frames(tmp_path / "b.mkv", frames, Fraction(30))
    for name, rate in (("a.mkv", media.FOLDER_RATE), ("b.mkv", 30)):
        stack = read_stack(tmp_path / name)
        assert stack.dtype == np.uint8
        np.testing.assert_array_equal(stack, frames)
        assert media.probe(tmp_path / name).rate == rate


@pytest.mark.parametrize("name", ["a.png", "a.BMP", "a.tiff"])
def test_one_frame_is_written_as_an_image(tmp_path, name):
    frames = clip(1)
    media.write_frames(tmp_path / name, frames)
    np.testing.assert_array_equal(read_stack(tmp_path / name), frames)
    assert media.probe(tmp_path / name).is_image
    with pytest.raises(ValueError, match="exactly one"):
        media.write_frames(tmp_path / name, clip(2))


def test_write_frames_refuses_what_would_lose(tmp_path):
    with pytest.raises(UserError, match="loss"):
        media.write_frames(tmp_path / "a.mp4", clip(1))
    with pytest.raises(UserError, match="no frames"):
        media.write_frames(tmp_path / "a.mkv", [])
    assert names(tmp_path) == []


def test_read_stack_complains_of_a_missing_file(tmp_path):
    with pytest.raises(UserError, match="none.mkv"):
        read_stack(tmp_path / "none.mkv")


@pytest.mark.parametrize("size", [(16, 24), (13, 7)])
@pytest.mark.parametrize(
    "codec", [("libx264rgb", "rgb24", {"crf": "0"}), ("ffv1", "bgr0", {})], ids=lambda codec: codec[0]
)
def test_compress_without_loss(size, codec):
    frames = clip(5, *size)
    found = media.decompress(media.compress(iter(frames), *codec))
    assert {frame.dtype for frame in found} == {np.dtype(np.uint8)}
    np.testing.assert_array_equal(found, frames)


def test_compress_obeys_its_options():
    frames = clip(4, 16, 24)
    coded = [media.compress(frames, "libx264rgb", "rgb24", {"crf": crf}) for crf in ("0", "20", "40")]
    errors = [np.mean(np.square(np.subtract(media.decompress(data), frames, dtype=float))) for data in coded]
    assert len(coded[0]) > len(coded[1]) > len(coded[2])
    assert errors[0] == 0 < errors[1] < errors[2]


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="threads have no such policies here")
@pytest.mark.skipif(not media.has_encoder("libsvtav1"), reason="this build of FFmpeg lacks SVT-AV1")
def test_no_thread_of_an_encoder_is_of_real_time():
    """Only root can see it fail."""
    found, usual = [], os.sched_getscheduler(0)

    def frames():
        for frame in clip(3, 64, 96):
            tasks = Path("/proc/self/task").iterdir()
            found.append({os.sched_getscheduler(int(task.name)) for task in tasks})
            yield frame

    media.compress(frames(), "libsvtav1", "yuv420p", {"crf": "50", "preset": "10"})
    assert found == [{usual}] * 3 and os.sched_getscheduler(0) == usual


def test_decompress_refuses_what_is_no_video():
    coded = media.compress(clip(2, 16, 24), "libx264rgb", "rgb24", {})
    for data in (b"", b"this is no video" * 50, bytes(1000), coded[:40]):
        with pytest.raises(UserError, match="damaged") as caught:
            media.decompress(data)
        assert "\n" not in str(caught.value)


# --- times and the shape of pixels ------------------------------------------------------------------


@pytest.mark.parametrize(
    "name, time_base, times",
    [
        ("a.mkv", Fraction(1, 1000), [0, 40, 41, 700, 701, 2000]),
        ("a.mkv", Fraction(1, 1000), [37, 40, 90, 91, 120, 9000]),
        ("a.nut", Fraction(1, 90000), [5, 100, 137, 900, 1000, 400_000]),
        ("a.nut", Fraction(1, 12800), [0, 512, 1025, 1026, 1027, 99_999]),
    ],
)
def test_times_are_kept(tmp_path, name, time_base, times):
    frames = clip(6)
    with media.Writer(tmp_path / name, 25, time_base=time_base) as writer:
        for frame, time in zip(frames, times, strict=True):
            writer.write(frame, time)
    ticks = media.probe(tmp_path / name).time_base
    timed = list(media.read_timed(tmp_path / name))
    assert [found.time * ticks for found in timed] == [time * time_base for time in times]
    np.testing.assert_array_equal([found.frame for found in timed], frames)
    for decode in (True, False):
        assert media.frame_times(tmp_path / name, decode).tolist() == [found.time for found in timed]


def test_times_that_do_not_grow_come_a_tick_later(tmp_path):
    with media.Writer(tmp_path / "a.mkv", 25, time_base=Fraction(1, 1000)) as writer:
        for frame, time in zip(clip(5), [7, 7, 3, 40, 40], strict=True):
            writer.write(frame, time)
    assert media.frame_times(tmp_path / "a.mkv").tolist() == [7, 8, 9, 40, 41]


def test_times_of_frames_that_are_coded_out_of_order(tmp_path):
    times = [0, 30, 50, 120, 130, 190, 200, 280]
    path = film(
        tmp_path / "a.mkv",
        smooth(8),
        times=times,
        time_base=Fraction(1, 1000),
        codec="libx264",
        pixel_format="yuv420p",
        options={"x264-params": "bframes=3:b-adapt=0:scenecut=0"},
    )
    coded = [float(seconds) for _, seconds in packets(path, "video")]
    assert coded != sorted(coded)
    assert media.frame_times(path).tolist() == media.frame_times(path, decode=False).tolist()
    assert np.diff(media.frame_times(path)).tolist() == np.diff(times).tolist()


def test_times_of_images_are_their_numbers(tmp_path):
    media.write_frames(tmp_path / "a.png", clip(1))
    save(f"{tmp_path}/images/", clip(3))
    for name, times in (("a.png", [0]), ("images", [0, 1, 2])):
        assert media.frame_times(tmp_path / name).tolist() == times
        assert [found.time for found in media.read_timed(tmp_path / name)] == times


@pytest.mark.skipif(shutil.which("ffprobe") is None, reason="without ffprobe nothing else shows it")
def test_every_frame_says_the_shape_of_its_pixels(tmp_path):
    path = save(tmp_path / "a.mkv", clip(2), aspect=Fraction(4, 3))
    np.testing.assert_array_equal(list(media.read_frames(path)), clip(2))
    command = ["ffprobe", "-v", "error", "-of", "json", "-show_entries", "frame=sample_aspect_ratio", path]
    found = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    assert [frame["sample_aspect_ratio"] for frame in found["frames"]] == ["4:3", "4:3"]


@pytest.mark.parametrize("angle, aspect", [(0, Fraction(4, 3)), (90, Fraction(3, 4)), (180, Fraction(4, 3))])
def test_pixels_are_turned_with_the_frame(tmp_path, angle, aspect):
    def prepare(stream):
        stream.codec_context.sample_aspect_ratio = Fraction(4, 3)
        stream.set_display_rotation(angle)

    lossy = {"codec": "mpeg4", "pixel_format": "yuv420p"}
    path = film(tmp_path / "a.mp4", smooth(2), prepare=prepare, **lossy)
    info = media.probe(path)
    assert info.aspect == aspect
    assert (info.width, info.height) == ((32, 48) if angle == 90 else (48, 32))


# --- what else a clip can be ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "codec, pixel_format, size",
    [
        ("libx264", "yuv420p10le", (32, 48)),
        ("libx264", "yuv422p", (32, 48)),
        ("libx264", "yuv444p10le", (31, 47)),
        ("ffv1", "yuv444p16le", (31, 47)),
        ("ffv1", "gbrp10le", (32, 48)),
        ("ffv1", "yuv420p", (31, 47)),
        ("mjpeg", "yuvj420p", (32, 48)),
        ("libx264rgb", "bgr24", (16, 16)),
    ],
)
def test_formats_of_pixels(tmp_path, codec, pixel_format, size):
    frames = smooth(3, *size)
    options = {"crf": "1"} if "264" in codec else None

    def prepare(stream):
        if codec == "mjpeg":
            stream.codec_context.color_range = 2
            stream.codec_context.qmin = stream.codec_context.qmax = 1

    path = film(
        tmp_path / "a.mkv", frames, codec=codec, pixel_format=pixel_format, options=options, prepare=prepare
    )
    found = read_stack(path)
    assert found.shape == frames.shape and found.dtype == np.uint8
    assert media.probe(path)[:2] == size[::-1]
    error = np.abs(found.astype(int) - frames)
    assert error.mean() < 6.5  # colours are halved in size
    assert np.abs(found.mean((0, 1, 2)) - frames.mean((0, 1, 2))).max() < 2
    assert found.std() == pytest.approx(frames.std(), rel=0.03)  # 1.16 times that with a wrong range


def test_grey(tmp_path):
    frames = np.repeat(smooth(3)[..., :1], 3, axis=-1)
    path = film(tmp_path / "a.mkv", frames, pixel_format="gray")
    np.testing.assert_allclose(read_stack(path).astype(int), frames, atol=2)


def test_what_is_transparent_lies_on_white(tmp_path):
    rgba = np.random.default_rng(0).integers(0, 256, (2, 32, 48, 4), dtype=np.uint8)
    rgba[0, :16, :, 3], rgba[0, 16:, :, 3] = 0, 255
    with av.open(str(tmp_path / "a.mkv"), "w") as container:
        stream = container.add_stream("ffv1", rate=25, width=48, height=32, pix_fmt="bgra")
        for pixels in rgba:
            frame = av.VideoFrame.from_ndarray(pixels, format="rgba").reformat(format="bgra")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    found = read_stack(tmp_path / "a.mkv")
    assert (found[0, :16] == 255).all()
    np.testing.assert_array_equal(found[0, 16:], rgba[0, 16:, :, :3])
    share = rgba[1, ..., 3:] / 255
    np.testing.assert_allclose(found[1], rgba[1, ..., :3] * share + 255 * (1 - share), atol=0.51)


def refused(path, words, run=media.probe):
    with pytest.raises(UserError, match=words) as caught:
        run(path)
    assert "\n" not in str(caught.value) and str(path).rstrip("/") in str(caught.value)


def test_interlaced_clips_are_refused(tmp_path):
    options = {"x264-params": "tff=1"}
    lossy = {"codec": "libx264", "pixel_format": "yuv420p"}
    refused(film(tmp_path / "a.mkv", smooth(3), options=options, **lossy), "interlaced.*bwdif")
    assert media.probe(film(tmp_path / "b.mkv", smooth(3), **lossy)).width == 48


def test_frames_too_large_are_refused(tmp_path, monkeypatch):
    path = save(tmp_path / "a.mkv", clip(2, 32, 64))
    monkeypatch.setattr(images, "LARGEST", 32 * 64)
    assert media.probe(path).frames == 2
    monkeypatch.setattr(images, "LARGEST", 32 * 64 - 1)
    refused(path, "64x32: scale them down")
    refused(path, "64x32: scale them down", read_stack)


def test_pipes_are_refused(tmp_path):
    os.mkfifo(tmp_path / "a.mkv")
    refused(tmp_path / "a.mkv", "pipe or device")
    refused(tmp_path / "a.mkv", "pipe or device", media.read_frames)


@pytest.mark.parametrize("kind", ["m3u8", "ffconcat", "sdp", "mpd"])
def test_a_playlist_fetches_nothing(tmp_path, kind):
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}/a.ts"
        texts = {
            "m3u8": f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nhttp://{address}\n#EXT-X-ENDLIST\n",
            "ffconcat": f"ffconcat version 1.0\nfile 'tcp://{address}'\n",
            "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n",
            "mpd": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static">'
            f"<BaseURL>http://{address}</BaseURL></MPD>",
        }
        path = tmp_path / f"a.{kind}"
        path.write_text(texts[kind])
        refused(path, "give a complete video or image file")
        server.setblocking(False)
        with pytest.raises(BlockingIOError):
            server.accept()


# --- sequences of images ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name, first, last",
    [
        ("out/", "frame_00000.png", "frame_00010.png"),
        ("out/x_%03d.tif", "x_000.tif", "x_010.tif"),
        ("out/%d.bmp", "0.bmp", "9.bmp"),
    ],
)
def test_sequence_round_trip(tmp_path, name, first, last):
    frames = clip(11, 8, 12)
    save(f"{tmp_path}/{name}", frames)
    written = names(tmp_path / "out")
    assert (written[0], written[-1], len(written)) == (first, last, 11)
    found = read_stack(f"{tmp_path}/{name}")
    np.testing.assert_array_equal(found, frames)
    info = media.probe(f"{tmp_path}/{name}")
    assert info == media.Info(12, 8, 11, media.FOLDER_RATE, False)
    assert names(tmp_path) == ["out"]


def test_an_empty_folder_takes_a_sequence_and_a_full_one_does_not(tmp_path):
    (tmp_path / "out").mkdir()
    save(tmp_path / "out", clip(2))
    assert len(names(tmp_path / "out")) == 2
    for name in ("out", "out/", "out/x%d.png"):
        with pytest.raises(UserError, match="the folder .*out has files in it"):
            save(f"{tmp_path}/{name}", clip(1))
    refused(f"{tmp_path}/new/x%d.jpg", "use .png", lambda path: save(path, clip(1)))
    assert names(tmp_path) == ["out"]
    assert len(names(tmp_path / "out")) == 2


@pytest.mark.parametrize("error", [KeyboardInterrupt, UserError])
@pytest.mark.parametrize("name", ["out/", "out/%d.png"])
@pytest.mark.parametrize("there", [True, False])
def test_exception_leaves_no_images(tmp_path, error, name, there):
    if there:
        (tmp_path / "out").mkdir()
    before = names(tmp_path)
    with pytest.raises(error), media.Writer(f"{tmp_path}/{name}", 25) as writer:
        for frame in clip(3):
            writer.write(frame)
        raise error("stop")
    assert names(tmp_path) == before
    assert not there or names(tmp_path / "out") == []


# --- tracks -------------------------------------------------------------------------------------------

SRT = "1\n00:00:00,040 --> 00:00:00,120\nhello\n\n2\n00:00:00,160 --> 00:00:00,200\nbye\n\n"


def rich(path, frames=6, **changes):
    """A film with two tracks of sound, subtitles, chapters and tags."""
    given = {
        "sounds": [
            Sound("libopus", hiss(), tags={"language": "eng", "title": "Original"}),
            Sound("flac", hiss(seed=5), 480, {"language": "deu", "title": "Ton"}),
        ],
        "subtitles": SRT,
        "subtitle_tags": {"language": "fra", "title": "Texte"},
        "chapters": [(0, 120, "one"), (120, 240, "two")],
        "tags": {"title": "A film", "artist": "Somebody"},
    }
    return film(path, clip(frames, 32, 48), **{**given, **changes})


def tracks(path):
    with av.open(str(path)) as container:
        sounds_and_texts = [*container.streams.audio, *container.streams.subtitles]
        found = []
        for stream in sounds_and_texts:
            tags = {k: v for k, v in stream.metadata.items() if k in ("language", "title")}
            found.append(
                (stream.type, stream.codec_context.name, bytes(stream.codec_context.extradata or b""), tags)
            )
        chapters = [
            (c["start"] * c["time_base"], c["end"] * c["time_base"], c["metadata"])
            for c in container.chapters()
        ]
        tags = {k: v for k, v in container.metadata.items() if k != "ENCODER"}
    contents = [packets(path, kind, i) for kind, i in (("audio", 0), ("audio", 1), ("subtitle", 0))]
    return found, contents, chapters, tags


def test_tracks_are_copied_bit_for_bit_with_their_names(tmp_path):
    cover = rich(tmp_path / "cover.mkv")
    assert media.probe(cover).tracks == 3
    before = tracks(cover)
    assert [track[3]["language"] for track in before[0]] == ["eng", "deu", "fra"]
    assert all(len(content) > 1 for content in before[1]) and len(before[2]) == 2
    assert tracks(save(tmp_path / "out.mkv", clip(6), tracks_from=cover)) == before


def movie_with_text(path):
    """An mp4 with a subtitle."""
    style = (
        "[Script Info]\r\nScriptType: v4.00+\r\n\r\n[V4+ Styles]\r\nFormat: Name, Fontname, Fontsize, "
        "PrimaryColour, SecondaryColour, OutlineColour, BackColour, Bold, Italic, Underline, StrikeOut, "
        "ScaleX, ScaleY, Spacing, Angle, BorderStyle, Outline, Shadow, Alignment, MarginL, MarginR, MarginV, "
        "Encoding\r\nStyle: Default,Arial,16,&Hffffff,&Hffffff,&H0,&H0,0,0,0,0,100,100,0,0,1,1,0,2,9,9,9,1"
        "\r\n\r\n[Events]\r\nFormat: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, "
        "Text\r\n"
    )
    with av.open(str(path), "w") as container:
        video = container.add_stream("mpeg4", rate=25, width=48, height=32, pix_fmt="yuv420p")
        text = container.add_stream("mov_text")
        text.codec_context.subtitle_header = style.encode()
        text.codec_context.time_base = Fraction(1, 1000)
        for picture in clip(3, 32, 48):
            container.mux(video.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(video.encode(None))
        packet = av.Packet(b"\0\5hello")
        packet.pts, packet.dts, packet.duration, packet.time_base = 40, 40, 80, Fraction(1, 1000)
        packet.stream = text
        container.mux(packet)
    return path


def test_subtitles_that_do_not_fit_are_refused_in_one_line(tmp_path):
    cover = movie_with_text(tmp_path / "cover.mp4")
    before = names(tmp_path)
    for name in ("out.mkv", "out.nut"):
        with pytest.raises(UserError, match="does not fit") as caught:
            save(tmp_path / name, clip(3), tracks_from=cover)
        assert "\n" not in str(caught.value) and str(cover) in str(caught.value)
        assert names(tmp_path) == before


@pytest.mark.parametrize("start", [-2400, 0, 2400])
@pytest.mark.parametrize("name", ["out.mkv", "out.nut"])
def test_sound_of_a_cover_stays_in_step(tmp_path, name, start):
    """NUT has no times before 0: there the whole clip starts later."""
    cover = film(tmp_path / "cover.mkv", clip(12, 32, 48), sounds=[Sound("aac", click(0.2), start)])
    path = save(tmp_path / name, clip(12, 32, 48), tracks_from=cover)
    assert onset(path) == pytest.approx(onset(cover), abs=1e-3)
    assert onset(path) == pytest.approx(0.2 + start / 48000, abs=2e-3)
    assert [data for data, _ in packets(path)] == [data for data, _ in packets(cover)]
    times = media.frame_times(path) * float(media.probe(path).time_base)
    np.testing.assert_allclose(np.diff(times), 0.04, atol=6e-4)
    assert name == "out.nut" or times[0] == 0


def test_tracks_are_played_as_often_as_the_video(tmp_path):
    cover = rich(tmp_path / "cover.mkv", sounds=[Sound("pcm_s16le", hiss())] * 2)
    loop = media.Loop(3, Fraction(6, 25), Fraction(3, 25))
    path = save(tmp_path / "out.mkv", clip(15, 32, 48), tracks_from=cover, loop=loop)
    for kind in ("audio", "subtitle"):
        once = packets(cover, kind)
        wanted = [(data, time + i * Fraction(6, 25)) for i in range(2) for data, time in once]
        wanted += [(data, time + 2 * Fraction(6, 25)) for data, time in once if time < loop.end]
        assert len(wanted) > 2 * len(once)
        assert packets(path, kind) == wanted


# --- sound --------------------------------------------------------------------------------------------


def click(at, seconds=0.48):
    """Silence and a short tone, which begins after `at` seconds."""
    samples = np.zeros(round(48000 * seconds))
    begin = round(48000 * at)
    samples[begin : begin + 960] = 0.8 * np.sin(0.2 * np.arange(len(samples[begin : begin + 960])))
    return samples


def onset(path):
    """When the tone is first heard, in seconds after the first frame."""
    return np.flatnonzero(np.abs(heard(path)) > 0.2)[0] / 48000


@pytest.mark.parametrize("codec", ["pcm_s16le", "aac", "libopus"])
@pytest.mark.parametrize("start", [-4800, 0, 4800])
@pytest.mark.parametrize("name", ["out.mkv", "out.nut"])
@pytest.mark.parametrize("seconds", [0.48, 2.0])
def test_sound_comes_back_in_step(tmp_path, codec, start, name, seconds):
    """Also where it takes several pages of the Ogg file, which have times of their own."""
    source = film(tmp_path / "a.mkv", clip(12, 32, 48), sounds=[Sound(codec, click(0.2, seconds), start)])
    sound = media.encode_sound(source, 32_000)
    assert sound.start == pytest.approx(start, abs=100)
    with media.Writer(tmp_path / name, 25) as writer:
        for frame in clip(12, 32, 48):
            writer.write(frame)
        writer.add_sound(sound)
    sound.file.close()
    assert onset(tmp_path / name) == pytest.approx(0.2 + start / 48000, abs=3e-3)
    np.testing.assert_array_equal(read_stack(tmp_path / name), clip(12, 32, 48))
    assert names(tmp_path) == ["a.mkv", name]


@pytest.mark.parametrize("codec", ["aac", "libopus"])
@pytest.mark.parametrize("start", [0, 4800])
def test_sound_of_an_mp4_is_in_step(tmp_path, codec, start):
    """Its edit list hides the priming of the encoder."""
    pictures = {"codec": "mpeg4", "pixel_format": "yuv420p"}
    source = film(tmp_path / "a.mp4", smooth(12), sounds=[Sound(codec, click(0.2, 2), start)], **pictures)
    sound = media.encode_sound(source, 32_000)
    with media.Writer(tmp_path / "out.mkv", 25) as writer:
        for frame in clip(12, 32, 48):
            writer.write(frame)
        writer.add_sound(sound)
    sound.file.close()
    copy = save(tmp_path / "copy.mkv", clip(12, 32, 48), tracks_from=source)
    assert onset(tmp_path / "out.mkv") == pytest.approx(onset(source), abs=2e-3)
    assert onset(copy) == pytest.approx(onset(source), abs=2e-3)
    assert onset(source) == pytest.approx(0.2 + start / 48000, abs=2e-3)


def ogg_packets(sound):
    sound.file.seek(0)
    with av.open(sound.file, format="ogg") as container:
        found = [bytes(packet) for packet in container.demux(audio=0) if packet.size]
        return found, container.streams.audio[0].codec_context.layout.name


@pytest.mark.parametrize("name", ["a.mkv", "a.mp4", "a.webm"])
def test_opus_is_copied(tmp_path, name):
    pictures = {"codec": "libvpx" if name == "a.webm" else "mpeg4", "pixel_format": "yuv420p"}
    source = film(tmp_path / name, smooth(6), sounds=[Sound("libopus", hiss())], **pictures)
    with media.encode_sound(source, 6_000).file as file:
        sound = media.Sound(file, 0, 0)
        assert ogg_packets(sound)[0] == [data for data, _ in packets(source)]


def test_bit_rate_and_channels_of_sound(tmp_path):
    source = film(tmp_path / "a.mkv", clip(6, 32, 48), sounds=[Sound("flac", hiss(0.4))])
    sizes = []
    for bit_rate in (8_000, 32_000, 96_000):
        sound = media.encode_sound(source, bit_rate)
        data = sound.file.read()
        assert sound.size == len(data) and data[:4] == b"OggS"
        assert ogg_packets(sound)[1] == "mono" and media.is_sound(sound)
        assert sound.file.tell() == 0
        sizes.append(sound.size)
        sound.file.close()
    assert sizes == sorted(sizes) and sizes[2] > 2 * sizes[0]
    surround = with_audio(tmp_path / "b.mkv", "flac", frames=3, seconds=0.1)
    with media.encode_sound(surround, 32_000).file as file:
        assert ogg_packets(media.Sound(file, 0, 0))[1] == "stereo"


def test_no_sound(tmp_path):
    media.write_frames(tmp_path / "a.png", clip(1))
    save(f"{tmp_path}/images/", clip(2))
    for path in (save(tmp_path / "a.mkv", clip(2)), tmp_path / "a.png", tmp_path / "images"):
        assert media.encode_sound(path, 32_000) is None


def test_damaged_sound_is_refused(tmp_path):
    path = film(tmp_path / "a.mkv", clip(12, 32, 48), sounds=[Sound("flac", hiss(0.48))])
    data, content = path.read_bytes(), packets(path)[2][0]
    path.write_bytes(data.replace(content, bytes(len(content))))
    refused(path, "sound of .* cannot be read", lambda p: media.encode_sound(p, 32_000))


def test_rubbish_is_no_sound(tmp_path):
    source = film(tmp_path / "a.mkv", clip(6, 32, 48), sounds=[Sound("flac", hiss(4))])
    with media.encode_sound(source, 32_000).file as file:
        whole = file.read()
    cases = [(whole, True), (bytes(100), False), (b"", False), (whole[100:], False)]
    for data, wanted in [*cases, (whole[: len(whole) // 2], True)]:
        with (tmp_path / "x").open("w+b") as file:
            file.write(data)
            assert media.is_sound(media.Sound(file, len(data), 0)) == wanted
            assert file.tell() == 0


def test_sound_beside_images(tmp_path):
    source = film(tmp_path / "a.mkv", clip(6, 32, 48), sounds=[Sound("flac", hiss())])
    sound = media.encode_sound(source, 32_000)
    with media.Writer(f"{tmp_path}/out/", 25) as writer:
        writer.write(clip(1)[0])
        writer.add_sound(sound)
    sound.file.seek(0)
    assert (tmp_path / "out" / "sound.opus").read_bytes() == sound.file.read()
    assert len(read_stack(tmp_path / "out")) == 1
    sound.file.seek(0)
    with (
        pytest.raises(UserError, match="takes no sound"),
        media.Writer(tmp_path / "a.png", 25, image=True) as writer,
    ):
        writer.write(clip(1)[0])
        writer.add_sound(sound)
    assert names(tmp_path) == ["a.mkv", "out"]
    sound.file.close()


# --- reading past damage --------------------------------------------------------------------------------


def test_a_flipped_byte_costs_one_frame(tmp_path):
    frames = clip(6, 32, 48)
    path = save(tmp_path / "a.mkv", frames)
    data, coded = path.read_bytes(), packets_of(path, "video")
    for k in range(6):
        hurt = bytearray(data)
        hurt[data.index(coded[k][0]) + len(coded[k][0]) // 2] ^= 4
        path.write_bytes(hurt)
        damaged = []
        found = list(media.read_timed(path, damaged))
        assert damaged == [k] and len(found) == 6
        assert [frame.time for frame in found] == [40 * i for i in range(6)]
        for i in set(range(6)) - {k}:
            np.testing.assert_array_equal(found[i].frame, frames[i])
        assert (found[k].frame != frames[k]).any()
        damaged = []
        assert media.probe(path, damaged).width == 48


@pytest.mark.parametrize("k", [1, 3, 5])
def test_a_missing_frame_is_replaced_by_the_one_before(tmp_path, k):
    frames = clip(6, 32, 48)
    path = save(tmp_path / "a.mkv", frames)
    data, coded = path.read_bytes(), packets_of(path, "video")
    begin, end = coded[k][2], data.index(coded[k][0]) + len(coded[k][0])
    path.write_bytes(data[:begin] + bytes(end - begin) + data[end:])
    damaged = []
    found = [frame.frame for frame in media.read_timed(path, damaged)]
    assert len(found) == 6 and k in damaged and 0 not in damaged
    for i in set(range(6)) - set(damaged):
        np.testing.assert_array_equal(found[i], frames[i])
    if k < 5:
        assert damaged == [k]
        np.testing.assert_array_equal(found[k], frames[k - 1])


def test_a_cut_file_is_read_as_far_as_it_goes(tmp_path):
    frames = clip(6, 32, 48)
    path = save(tmp_path / "a.mkv", frames)
    data, coded = path.read_bytes(), packets_of(path, "video")
    for k in (1, 3, 5):
        path.write_bytes(data[: coded[k][2]])
        damaged = []
        found = [frame.frame for frame in media.read_timed(path, damaged)]
        np.testing.assert_array_equal(found, frames[:k])
        assert damaged == []


# --- what a stego looks like ------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(32, 48), (31, 47)])
def test_a_clip_looks_like_plain_ffv1(tmp_path, size):
    def prepare(stream):
        stream.codec_context.gop_size, stream.codec_context.color_range = 1, 2

    frames = clip(3, *size)
    options = {"level": "3", "slices": "16", "slicecrc": "1"}
    plain = film(tmp_path / "plain.mkv", frames, options=options, prepare=prepare)
    ours = save(tmp_path / "ours.mkv", frames)
    looks = []
    for path in (plain, ours):
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            context = stream.codec_context
            tags = set(container.metadata), {*stream.metadata} - {"ENCODER"}
            looks.append(
                (bytes(context.extradata), context.pix_fmt, stream.time_base, container.format.name, tags)
            )
    assert looks[0] == looks[1]
    assert [data for data, _ in packets(plain, "video")] == [data for data, _ in packets(ours, "video")]


@pytest.mark.skipif(shutil.which("ffprobe") is None, reason="needs ffprobe to show every tag")
def test_no_tag_names_this_project(tmp_path):
    cover = rich(tmp_path / "cover.mkv")
    path = save(tmp_path / "out.mkv", clip(6, 32, 48), tracks_from=cover)
    shown = subprocess.run(
        ["ffprobe", "-v", "error", "-show_format", "-show_streams", "-show_chapters", path.name],
        capture_output=True,
        check=True,
        cwd=tmp_path,
        text=True,
    ).stdout
    assert "TAG:title=A film" in shown and "ffv1" in shown
    for word in ("deepsteg", "jax", "numpy", "pyav", "python"):
        assert word not in shown.lower()
        assert word.encode() not in path.read_bytes().lower()


def test_times_are_decoded_where_no_packet_has_one(tmp_path, monkeypatch):
    path = save(tmp_path / "a.mkv", clip(5))
    listed = media.frame_times(path, decode=False).tolist()
    for nothing in ([], [0, None, 80, 120, 160]):
        monkeypatch.setattr(source, "_packet_times", lambda _, times=nothing: times)
        assert media.frame_times(path, decode=False).tolist() == listed == [0, 40, 80, 120, 160]


# --- lossy formats ------------------------------------------------------------------------------------

LOSSY = media.Lossy()


@pytest.mark.parametrize("name", ["a.mp4", "a.M4V", "a.mov"])
def test_playable_video(tmp_path, name):
    frames = smooth(30, 64, 96)
    path = save(tmp_path / name, frames, Fraction(30000, 1001), lossy=LOSSY)
    assert names(tmp_path) == [name]
    info = media.probe(path)
    assert info[:5] == (96, 64, 30, Fraction(30000, 1001), False)
    assert [time * info.time_base for time in media.frame_times(path)] == [
        i * Fraction(1001, 30000) for i in range(30)
    ]
    assert np.abs(read_stack(path).astype(int) - frames).mean() < 7
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        context = stream.codec_context
        assert (context.name, context.pix_fmt, context.profile) == ("h264", "yuv420p", "High")
        assert stream.metadata["encoder"].endswith("libx264")
    data = path.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")  # players start before they have the whole file
    for words in (b"crf=18.0", b"keyint=250", b"subme=7", b"bframes=3"):
        assert words in data


def test_colours_of_playable_video_are_what_untagged_ones_are_taken_for(tmp_path):
    path = save(tmp_path / "a.mp4", clip(4), lossy=LOSSY)
    found = list(media.read_frames(path))
    with av.open(str(path)) as container:
        context = container.streams.video[0].codec_context
        for frame, ours in zip(container.decode(video=0), found, strict=True):
            assert (frame.color_range, frame.colorspace) == (1, 6)
            planes = frame.to_ndarray()
            untagged = av.VideoFrame.from_ndarray(planes, format="yuv420p").to_ndarray(format="rgb24")
            np.testing.assert_allclose(ours.astype(int), untagged, atol=1)
        assert (context.color_range, context.colorspace) == (1, 6)
    flat = np.tile(np.array([200, 90, 30], np.uint8), (3, 32, 48, 1))
    np.testing.assert_allclose(
        read_stack(save(tmp_path / "b.mp4", flat, lossy=LOSSY)).astype(int), flat, atol=3
    )


def test_the_rate_factor_and_the_quality_are_obeyed(tmp_path):
    for low, high, name, given in (
        (media.Lossy(crf=40), media.Lossy(crf=10), "a.mp4", {}),
        (media.Lossy(quality=20), media.Lossy(quality=95), "a.jpg", {"image": True}),
    ):
        frames = clip(1 if given else 3)
        sizes = [save(tmp_path / name, frames, lossy=lossy, **given).stat().st_size for lossy in (low, high)]
        assert sizes[1] > 2 * sizes[0]


@pytest.mark.parametrize("name", ["a.jpg", "a.JPEG"])
def test_jpeg(tmp_path, name):
    frames = smooth(1, 33, 47)
    path = save(tmp_path / name, frames, image=True, lossy=LOSSY)
    with Image.open(path) as image:
        assert image.format == "JPEG" and image.layer[0][1:3] == (2, 2)  # colours are halved in size
        reference = tmp_path / "reference.jpg"
        Image.fromarray(frames[0]).save(reference, quality=90)
        assert image.quantization == Image.open(reference).quantization
    assert np.abs(read_stack(path).astype(int) - frames).mean() < 7


def test_lossless_formats_stay_lossless(tmp_path):
    for name, given in (("a.mkv", {}), ("a.png", {"image": True}), ("b/", {})):
        frames = clip(1)
        save(f"{tmp_path}/{name}", frames, lossy=LOSSY, **given)
        np.testing.assert_array_equal(read_stack(tmp_path / name), frames)


@pytest.mark.parametrize("name", ["a.mp4", "a.mov"])
@pytest.mark.parametrize(
    "time_base, times",
    [
        (Fraction(1, 1000), [0, 40, 41, 700, 701, 2000]),
        (Fraction(1, 1000), [37, 40, 90, 91, 120, 9000]),
        (Fraction(1, 90000), [0, 100, 137, 900, 1000, 400_000]),
        (Fraction(1, 12800), [512, 513, 1025, 1026, 1027, 99_999]),
        (Fraction(1001, 24000), [0, 1, 2, 3, 5, 6]),
    ],
)
def test_times_of_playable_video_are_kept(tmp_path, name, time_base, times):
    with media.Writer(tmp_path / name, 25, time_base=time_base, lossy=LOSSY) as writer:
        for frame, time in zip(smooth(6), times, strict=True):
            writer.write(frame, time)
    ticks = media.probe(tmp_path / name).time_base
    assert [time * ticks for time in media.frame_times(tmp_path / name)] == [
        time * time_base for time in times
    ]


def test_ticks_too_fine_for_playable_video_are_rounded(tmp_path):
    times = [0, 10, 41_000_000, 42_000_000, 10**9, 3 * 10**9]
    with media.Writer(tmp_path / "a.mp4", 25, time_base=Fraction(1, 10**9), lossy=LOSSY) as writer:
        for frame, time in zip(smooth(6), times, strict=True):
            writer.write(frame, time)
    found = media.frame_times(tmp_path / "a.mp4") * float(media.probe(tmp_path / "a.mp4").time_base)
    np.testing.assert_allclose(found, np.array(times) / 1e9, atol=1.2e-5)
    assert (np.diff(found) > 0).all()


@pytest.mark.parametrize("name", ["a.mp4", "a.mov"])
def test_shape_of_pixels_of_playable_video(tmp_path, name):
    assert media.probe(
        save(tmp_path / name, clip(2), aspect=Fraction(16, 11), lossy=LOSSY)
    ).aspect == Fraction(16, 11)


@pytest.mark.parametrize("size", [(31, 48), (32, 47), (31, 47)])
def test_odd_sizes_are_refused_for_playable_video(tmp_path, size):
    words = rf"{size[1]}x{size[0]}; use \.mkv .* crop={size[1] // 2 * 2}:{size[0] // 2 * 2}"
    refused(tmp_path / "a.mp4", words, lambda path: save(path, clip(2, *size), lossy=LOSSY))
    refused(tmp_path / "a.mp4", words, lambda path: media.check_output(path, lossy=True, size=size[::-1]))
    media.check_output(tmp_path / "a.mkv", lossy=True, size=size[::-1])
    media.check_output(tmp_path / "a.jpg", image=True, lossy=True, size=size[::-1])
    assert names(tmp_path) == []


def test_check_output_in_lossy_formats(tmp_path):
    for name in ("a.mp4", "a.MOV", "a.m4v", "a.mkv", "a.nut", "new/"):
        media.check_output(f"{tmp_path}/{name}", lossy=True, size=(48, 32))
    for name in ("a.jpg", "a.JPEG", "a.png"):
        media.check_output(tmp_path / name, image=True, lossy=True)
    bad = [
        ("a.avi", False, r"\.avi files are only read; use .*\.mp4"),
        ("a.jpg", False, "still images"),
        ("a.mp4", True, r"videos; use .*\.jpg"),
        ("a.webp", True, "only read"),
        ("none/a.mp4", False, "does not exist"),
        ("new/x%d.jpg", False, "use .png"),
    ]
    for name, image, words in bad:
        with pytest.raises(UserError, match=words):
            media.check_output(f"{tmp_path}/{name}", image=image, lossy=True)
    for name, image in (("a.mp4", False), ("a.jpg", True)):
        with pytest.raises(UserError, match="loss"):
            media.Writer(tmp_path / name, 25, image=image)


@pytest.mark.parametrize("error", [KeyboardInterrupt, UserError])
@pytest.mark.parametrize(("name", "image"), [("a.mp4", False), ("a.jpg", True)])
def test_exception_leaves_no_lossy_output(tmp_path, error, name, image):
    (tmp_path / name).write_bytes(b"older file")
    with pytest.raises(error), media.Writer(tmp_path / name, 25, image=image, lossy=LOSSY) as writer:
        for frame in clip(1 if image else 60):
            writer.write(frame)
        assert len(names(tmp_path)) == 2
        raise error("stop")
    assert names(tmp_path) == [name]
    assert (tmp_path / name).read_bytes() == b"older file"


def test_a_full_disk_leaves_no_playable_video(tmp_path, monkeypatch):
    monkeypatch.setattr(video_file, "is_cut", lambda path: path.suffix == ".part")
    refused(tmp_path / "a.mp4", "cannot be written", lambda path: save(path, clip(2), lossy=LOSSY))
    assert names(tmp_path) == []


def test_a_missing_encoder_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(codecs, "has_encoder", lambda codec: False)
    with pytest.raises(UserError, match="cannot encode with libx264"):
        save(tmp_path / "a.mp4", clip(2), lossy=LOSSY)
    assert names(tmp_path) == []


def sound_codecs(path):
    with av.open(str(path)) as container:
        return [stream.codec_context.codec.canonical_name for stream in container.streams.audio]


@pytest.mark.parametrize(
    "name, codec, result",
    [
        ("a.mp4", "aac", "aac"),
        ("a.mp4", "ac3", "ac3"),
        ("a.mp4", "libopus", "opus"),
        ("a.mp4", "flac", "flac"),
        ("a.mov", "aac", "aac"),
        ("a.mov", "pcm_s16le", "pcm_s16le"),
        ("a.mp4", "pcm_s16le", "aac"),
        ("a.mp4", "pcm_f32le", "aac"),
        ("a.mp4", "mp2", "aac"),
        ("a.mov", "flac", "aac"),
        ("a.mov", "libopus", "aac"),
    ],
)
@pytest.mark.parametrize("start", [-2400, 0, 2400])
def test_sound_of_playable_video(tmp_path, name, codec, result, start):
    """Copied, or coded anew where the container cannot hold it; in step either way."""
    sound = Sound(codec, click(0.2, 1.0), start, {"language": "eng"})
    cover = film(tmp_path / "cover.mkv", clip(25, 32, 48), sounds=[sound])
    path = save(tmp_path / name, smooth(25), tracks_from=cover, lossy=LOSSY)
    assert sound_codecs(path) == [result]
    if codec.removeprefix("lib") == result and not codec.startswith("pcm"):
        assert [data for data, _ in packets(path)] == [data for data, _ in packets(cover)]
    assert onset(path) == pytest.approx(onset(cover), abs=2e-3)
    assert len(read_stack(path)) == 25 and media.frame_times(path)[0] == 0
    with av.open(str(path)) as container:
        assert container.streams.audio[0].metadata["language"] == "eng"


def test_sound_that_is_coded_anew_sounds_the_same(tmp_path):
    tune = 0.4 * np.sin(0.05 * np.arange(48000)) * np.linspace(0, 1, 48000)
    cover = film(tmp_path / "cover.mkv", clip(25, 32, 48), sounds=[Sound("pcm_s16le", tune)])
    path = save(tmp_path / "a.mp4", smooth(25), tracks_from=cover, lossy=LOSSY)
    np.testing.assert_allclose(heard(path)[:48000], tune, atol=0.02)
    assert not np.abs(heard(path)[48000:]).max() > 0.02 + np.abs(tune[-1])


def test_vorbis_in_stereo_is_coded_anew(tmp_path):
    cover = tmp_path / "cover.mkv"
    with av.open(str(cover), "w") as container:
        video = container.add_stream("mpeg4", rate=25, width=48, height=32, pix_fmt="yuv420p")
        audio = container.add_stream("vorbis", rate=44100, layout="stereo", options={"strict": "-2"})
        for picture in smooth(12):
            container.mux(video.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(video.encode(None))
        for start in range(0, 20480, 1024):
            samples = np.full((2, 1024), 0.3 * (start >= 10240), np.float32)
            frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout="stereo")
            frame.sample_rate, frame.pts, frame.time_base = 44100, start, Fraction(1, 44100)
            container.mux(audio.encode(frame))
        container.mux(audio.encode(None))
    path = save(tmp_path / "a.mp4", smooth(12), tracks_from=cover, lossy=LOSSY)
    with av.open(str(path)) as container:
        context = container.streams.audio[0].codec_context
        assert (context.name, context.sample_rate, context.layout.name) == ("aac", 44100, "stereo")
        samples = np.concatenate([frame.to_ndarray() for frame in container.decode(audio=0)], axis=1)
    assert samples.shape[1] == pytest.approx(20480, abs=2100)
    assert np.flatnonzero(np.abs(samples[0]) > 0.15)[0] == pytest.approx(10240, abs=400)


def test_gaps_in_sound_that_is_coded_anew_stay(tmp_path):
    """Of a repeated cover too, whose sound is shorter than its pictures."""
    cover = film(tmp_path / "cover.mkv", clip(12, 32, 48), sounds=[Sound("pcm_s16le", click(0.2, 0.3))])
    loop = media.Loop(3, Fraction(12, 25), Fraction(6, 25))
    path = save(tmp_path / "a.mp4", smooth(30), tracks_from=cover, loop=loop, lossy=LOSSY)
    loud = np.flatnonzero(np.abs(heard(path)) > 0.2)
    begins = loud[np.flatnonzero(np.diff(loud, prepend=-48000) > 4800)] / 48000
    np.testing.assert_allclose(begins, [0.2, 0.68, 1.16], atol=2e-3)


def test_damaged_sound_that_must_be_coded_anew(tmp_path):
    cover = film(tmp_path / "cover.mkv", clip(12, 32, 48), sounds=[Sound("mp2", hiss(0.48))])
    data = cover.read_bytes()
    for content, _ in packets(cover):
        data = data.replace(content, b"\xff" * len(content))
    cover.write_bytes(data)
    with pytest.raises(UserError, match=r"of .*cover\.mkv is damaged: remove it"):
        save(tmp_path / "a.mp4", smooth(12), tracks_from=cover, lossy=LOSSY)
    assert names(tmp_path) == ["cover.mkv"]


def test_tags_and_chapters_of_playable_video(tmp_path):
    cover = rich(tmp_path / "cover.mkv", subtitles="")
    path = save(tmp_path / "a.mp4", smooth(6), tracks_from=cover, lossy=LOSSY)
    with av.open(str(path)) as container:
        assert (container.metadata["title"], container.metadata["artist"]) == ("A film", "Somebody")
        assert [c["metadata"]["title"] for c in container.chapters()] == ["one", "two"]
        assert [stream.metadata["language"] for stream in container.streams.audio] == ["eng", "deu"]
    assert media.probe(path).tracks == 2
    for word in (b"deepsteg", b"numpy", b"pyav", b"python"):
        assert word not in path.read_bytes().lower()


def test_subtitles_of_playable_video(tmp_path):
    """Those of an mp4 are copied, others refused."""
    cover = rich(tmp_path / "cover.mkv", sounds=[])
    with pytest.raises(UserError, match=r"does not fit .* -c:s mov_text OUT\.mp4"):
        save(tmp_path / "a.mp4", smooth(6), tracks_from=cover, lossy=LOSSY)
    assert names(tmp_path) == ["cover.mkv"]
    texts = movie_with_text(tmp_path / "cover.mp4")
    path = save(tmp_path / "a.mp4", smooth(3), tracks_from=texts, lossy=LOSSY)
    assert media.probe(path).tracks == 1
    assert [data for data, _ in packets(path, "subtitle")] == [data for data, _ in packets(texts, "subtitle")]
