import os
from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image

from deepsteg_jax.errors import UserError
from deepsteg_jax.video import io


def clip(count=6, height=48, width=64, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, height, width, 3), dtype=np.uint8)


def save(path, frames, rate=25, **kwargs):
    with io.Writer(path, rate, **kwargs) as writer:
        for frame in frames:
            writer.write(frame)
    return path


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def read_until_error(path):
    frames = []
    with pytest.raises(UserError) as caught:
        for frame in io.read_frames(path):
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
    np.testing.assert_array_equal(np.stack(list(io.read_frames(path))), frames)
    info = io.probe(path)
    assert info == io.Info(size[1], size[0], 4, Fraction(30000, 1001), False)
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
    np.testing.assert_array_equal(list(io.read_frames(path)), frames)
    assert io.probe(path) == io.Info(7, 13, 1, io.FOLDER_RATE, True)
    assert len(names(tmp_path)) == 1


def test_start_stop_and_size(tmp_path):
    frames = clip(7)
    path = save(tmp_path / "a.mkv", frames)
    np.testing.assert_array_equal(list(io.read_frames(path, 2, 5)), frames[2:5])
    np.testing.assert_array_equal(list(io.read_frames(path, 5, 99)), frames[5:])
    assert list(io.read_frames(path, 9)) == []
    small = list(io.read_frames(path, width=20, height=10))
    assert len(small) == 7
    assert small[0].shape == (10, 20, 3)
    np.testing.assert_allclose(small[3].astype(int), io.resize(frames[3], 20, 10), atol=2)


def test_resize():
    frame = clip(1)[0]
    assert io.resize(frame, 64, 48) is frame
    assert io.resize(frame[:, ::-1], 31, 17).shape == (17, 31, 3)
    flat = np.full((40, 40, 3), (10, 200, 90), np.uint8)
    np.testing.assert_array_equal(io.resize(flat, 23, 9), np.full((9, 23, 3), (10, 200, 90)))


def test_folder_of_images(tmp_path):
    frames = clip(4)
    for i in (2, 0, 3, 1):
        Image.fromarray(frames[i]).save(tmp_path / f"{i:03}.png")
    (tmp_path / "notes.txt").write_text("no image")
    np.testing.assert_array_equal(list(io.read_frames(tmp_path)), frames)
    np.testing.assert_array_equal(list(io.read_frames(tmp_path, 1, 3)), frames[1:3])
    assert next(io.read_frames(tmp_path, width=8, height=6)).shape == (6, 8, 3)
    assert io.probe(tmp_path) == io.Info(64, 48, 4, Fraction(25), False)
    Image.fromarray(frames[0, :5]).save(tmp_path / "004.png")
    with pytest.raises(UserError, match=r"004\.png is 64x5"):
        list(io.read_frames(tmp_path))


def test_orientation_of_images_and_16_bits(tmp_path):
    picture = clip(1, 10, 20)[0]
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(picture).save(tmp_path / "a.png", exif=exif)
    assert io.probe(tmp_path / "a.png")[:2] == (10, 20)
    np.testing.assert_array_equal(next(io.read_frames(tmp_path / "a.png")), np.rot90(picture, -1))
    grey = np.arange(200, dtype=np.uint16).reshape(10, 20) * 300
    Image.fromarray(grey).save(tmp_path / "b.png")
    np.testing.assert_array_equal(next(io.read_frames(tmp_path / "b.png"))[..., 1], grey >> 8)


@pytest.mark.parametrize("angle", [90, -90, 180])
def test_rotation_of_videos(tmp_path, angle):
    plain = with_audio(tmp_path / "a.mp4", codec=None, frames=3)
    turned = with_audio(tmp_path / "b.mp4", codec=None, frames=3, rotate=angle)
    frame, expected = next(io.read_frames(turned)), next(io.read_frames(plain))
    info = io.probe(turned)
    assert frame.shape == (info.height, info.width, 3) == ((48, 64, 3) if angle == 180 else (64, 48, 3))
    with av.open(str(turned)) as container:
        assert next(container.decode(video=0)).rotation % 360 == angle % 360
    np.testing.assert_array_equal(frame, np.rot90(expected, angle // 90))
    small = next(io.read_frames(turned, width=30, height=22))
    assert small.shape == (22, 30, 3)


@pytest.mark.parametrize(
    ("name", "codec"),
    [("a.mp4", "aac"), ("a.mkv", "libopus"), ("a.avi", "pcm_s16le"), ("a.mov", "pcm_s16le")],
)
def test_audio_is_copied(tmp_path, name, codec):
    cover = with_audio(tmp_path / name, codec)
    frames = clip(25)
    path = save(tmp_path / "out.mkv", frames, audio_from=cover)
    assert names(tmp_path) == sorted([name, "out.mkv"])
    ours, theirs = packets_of(path, "audio"), packets_of(cover, "audio")
    assert [p[0] for p in ours] == [p[0] for p in theirs]
    assert [float(p[1]) for p in ours] == pytest.approx([float(p[1]) for p in theirs], abs=2e-3)
    video = packets_of(path, "video")
    assert video[0][1] == 0
    assert min(p[2] for p in ours) < max(p[2] for p in video)  # interleaved
    np.testing.assert_array_equal(list(io.read_frames(path)), frames)


def test_audio_stops_with_a_trimmed_video(tmp_path):
    cover = with_audio(tmp_path / "a.mp4", "aac")
    path = save(tmp_path / "out.mkv", clip(10), audio_from=cover)
    ours, theirs = packets_of(path, "audio"), packets_of(cover, "audio")
    wanted = [p[0] for p in theirs if p[1] < Fraction(10, 25)]
    assert [p[0] for p in ours] == wanted
    assert 10 < len(wanted) < len(theirs)


def test_cover_without_audio(tmp_path):
    cover = with_audio(tmp_path / "a.mp4", codec=None, frames=3)
    with av.open(str(save(tmp_path / "out.mkv", clip(3), audio_from=cover))) as container:
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
        for read in (io.probe, lambda p: list(io.read_frames(p))):
            with pytest.raises(UserError) as caught:
                read(path)
            assert "\n" not in str(caught.value)
            assert path.name.replace("\n", " ") in str(caught.value)


def test_wrong_kind_of_file_is_reported_at_once(tmp_path):
    (tmp_path / "a.mp4").write_text("no video")
    with pytest.raises(UserError):
        io.read_frames(tmp_path / "a.mp4")


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
    np.testing.assert_array_equal(list(io.read_frames(path, 0, 5)), frames[:5])


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
    whole = list(io.read_frames(path))
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
            readable.extend(io.read_frames(path))
            np.testing.assert_array_equal(readable, frames)
        except UserError:
            np.testing.assert_array_equal(np.array(readable).reshape(-1, 8, 8, 3), frames[: len(readable)])


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError, UserError])
@pytest.mark.parametrize(("name", "image"), [("a.mkv", False), ("a.png", True)])
def test_exception_leaves_the_folder_as_it_was(tmp_path, error, name, image):
    (tmp_path / name).write_bytes(b"older file")
    with pytest.raises(error), io.Writer(tmp_path / name, 25, image=image) as writer:
        writer.write(clip(1)[0])
        assert len(names(tmp_path)) == 2
        raise error("stop")
    assert names(tmp_path) == [name]
    assert (tmp_path / name).read_bytes() == b"older file"


def test_older_file_is_replaced(tmp_path):
    (tmp_path / "a.mkv").write_bytes(b"older file")
    assert len(list(io.read_frames(save(tmp_path / "a.mkv", clip(2))))) == 2


def test_writer_failures_leave_nothing(tmp_path):
    with pytest.raises(UserError, match="no frames"), io.Writer(tmp_path / "a.mkv", 25):
        pass
    with pytest.raises(UserError, match="cannot be written"):
        save(tmp_path / "none" / "a.mkv", clip(1))
    (tmp_path / "b.mkv").mkdir()
    with pytest.raises(UserError, match="cannot be written"):
        save(tmp_path / "b.mkv", clip(1))
    with pytest.raises(UserError, match="33x3"):
        save(tmp_path / "a.mkv", clip(1, 3, 33))
    with pytest.raises(UserError, match="loss"):
        io.Writer(tmp_path / "a.mp4", 25)
    with pytest.raises(UserError, match="sound.txt"):
        (tmp_path / "sound.txt").write_text("no sound")
        save(tmp_path / "a.mkv", clip(1), audio_from=tmp_path / "sound.txt")
    assert names(tmp_path) == ["b.mkv", "sound.txt"]


def test_frames_must_fit(tmp_path):
    for bad in (clip(1)[0].astype(np.float32), clip(1)[0][..., 0], clip(1, 48, 63)[0]):
        with pytest.raises(ValueError, match="frame"), io.Writer(tmp_path / "a.mkv", 25) as writer:
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
    for name in ("a.mkv", "A.MKV", "cover2.mkv"):
        io.check_output(tmp_path / name, [cover, tmp_path])
    for name in ("a.png", "a.bmp", "a.tif", "a.TIFF"):
        io.check_output(tmp_path / name, image=True)
    bad = [
        ("a.mp4", False, "loss.*use .mkv"),
        ("a.webm", False, "loss"),
        ("a.gif", True, "loss.*use .png"),
        ("a.jpg", True, "loss"),
        ("a.webp", True, "loss"),
        ("a.png", False, "still images; use .mkv"),
        ("a.jpeg", False, "still images"),
        ("a.mkv", True, "videos; use .png"),
        ("a.mp4", True, "videos"),
        ("a.xyz", False, "not a known video"),
        ("a", True, "not a known image"),
        ("folder.mkv", False, "is a folder"),
        ("none/a.mkv", False, "does not exist"),
        ("cover.mkv", False, "also an input"),
        ("folder.mkv/../cover.mkv", False, "also an input"),
        ("link.mkv", False, "also an input"),
    ]
    for name, image, words in bad:
        with pytest.raises(UserError, match=words) as caught:
            io.check_output(tmp_path / name, [cover, tmp_path / "none.mkv"], image=image)
        assert "\n" not in str(caught.value)
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(UserError, match="no permission"):
        io.check_output(tmp_path / "a.mkv")


def test_written_frames_are_read_as_a_stack(tmp_path):
    frames = clip(3)
    io.write_frames(tmp_path / "a.mkv", iter(frames))
    io.write_frames(tmp_path / "b.mkv", frames, Fraction(30))
    for name, rate in (("a.mkv", io.FOLDER_RATE), ("b.mkv", 30)):
        stack = io.read_stack(tmp_path / name)
        assert stack.dtype == np.uint8
        np.testing.assert_array_equal(stack, frames)
        assert io.probe(tmp_path / name).rate == rate


@pytest.mark.parametrize("name", ["a.png", "a.BMP", "a.tiff"])
def test_one_frame_is_written_as_an_image(tmp_path, name):
    frames = clip(1)
    io.write_frames(tmp_path / name, frames)
    np.testing.assert_array_equal(io.read_stack(tmp_path / name), frames)
    assert io.probe(tmp_path / name).is_image
    with pytest.raises(ValueError, match="exactly one"):
        io.write_frames(tmp_path / name, clip(2))


def test_write_frames_refuses_what_would_lose(tmp_path):
    with pytest.raises(UserError, match="loss"):
        io.write_frames(tmp_path / "a.mp4", clip(1))
    with pytest.raises(UserError, match="no frames"):
        io.write_frames(tmp_path / "a.mkv", [])
    assert names(tmp_path) == []


def test_read_stack_complains_of_a_missing_file(tmp_path):
    with pytest.raises(UserError, match="none.mkv"):
        io.read_stack(tmp_path / "none.mkv")


@pytest.mark.parametrize("size", [(16, 24), (13, 7)])
@pytest.mark.parametrize(
    "codec", [("libx264rgb", "rgb24", {"crf": "0"}), ("ffv1", "bgr0", {})], ids=lambda codec: codec[0]
)
def test_compress_without_loss(size, codec):
    frames = clip(5, *size)
    found = io.decompress(io.compress(iter(frames), *codec))
    assert {frame.dtype for frame in found} == {np.dtype(np.uint8)}
    np.testing.assert_array_equal(found, frames)


def test_compress_obeys_its_options():
    frames = clip(4, 16, 24)
    coded = [io.compress(frames, "libx264rgb", "rgb24", {"crf": crf}) for crf in ("0", "20", "40")]
    errors = [np.mean(np.square(np.subtract(io.decompress(data), frames, dtype=float))) for data in coded]
    assert len(coded[0]) > len(coded[1]) > len(coded[2])
    assert errors[0] == 0 < errors[1] < errors[2]


def test_decompress_refuses_what_is_no_video():
    coded = io.compress(clip(2, 16, 24), "libx264rgb", "rgb24", {})
    for data in (b"", b"this is no video" * 50, bytes(1000), coded[:40]):
        with pytest.raises(UserError, match="damaged") as caught:
            io.decompress(data)
        assert "\n" not in str(caught.value)
