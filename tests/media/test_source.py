import os
import socket
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from deepsteg_jax import media
from deepsteg_jax.errors import UserError
from deepsteg_jax.media import container, images, source
from tests.helpers import read_stack, refused
from tests.media.clips import MATRICES, shown_by, write
from tests.synthetic import film, noise, packets, smooth

LOSSY = {"codec": "mpeg4", "pixel_format": "yuv420p"}


def test_start_stop_and_size(tmp_path):
    frames = noise(7)
    path = write(tmp_path / "a.mkv", frames)
    np.testing.assert_array_equal(list(media.read_frames(path, 2, 5)), frames[2:5])
    np.testing.assert_array_equal(list(media.read_frames(path, 5, 99)), frames[5:])
    assert list(media.read_frames(path, 9)) == []
    small = list(media.read_frames(path, width=20, height=10))
    assert len(small) == 7
    assert small[0].shape == (10, 20, 3)
    np.testing.assert_allclose(small[3].astype(int), media.resize(frames[3], 20, 10), atol=2)


def test_resize():
    frame = noise(1, 48, 64)[0]
    assert media.resize(frame, 64, 48) is frame
    assert media.resize(frame[:, ::-1], 31, 17).shape == (17, 31, 3)
    flat = np.full((40, 40, 3), (10, 200, 90), np.uint8)
    np.testing.assert_array_equal(media.resize(flat, 23, 9), np.full((9, 23, 3), (10, 200, 90)))


def test_folder_of_images(tmp_path):
    frames = noise(4)
    for i in (2, 0, 3, 1):
        Image.fromarray(frames[i]).save(tmp_path / f"{i:03}.png")
    (tmp_path / "notes.txt").write_text("no image")
    np.testing.assert_array_equal(list(media.read_frames(tmp_path)), frames)
    np.testing.assert_array_equal(list(media.read_frames(tmp_path, 1, 3)), frames[1:3])
    assert next(media.read_frames(tmp_path, width=8, height=6)).shape == (6, 8, 3)
    assert media.probe(tmp_path) == media.Info(48, 32, 4, Fraction(25), False)
    Image.fromarray(frames[0, :5]).save(tmp_path / "004.png")
    with pytest.raises(UserError, match=r"004\.png is 48x5"):
        list(media.read_frames(tmp_path))


def test_size_of_an_image_that_is_turned(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(noise(1, 10, 20)[0]).save(tmp_path / "a.png", exif=exif)
    assert media.probe(tmp_path / "a.png")[:2] == (10, 20)


@pytest.mark.parametrize("case", MATRICES)
def test_videos_are_turned_as_they_are_shown(tmp_path, case):
    plain = film(tmp_path / "a.mp4", smooth(3), **LOSSY)
    prepare = shown_by(case)
    turned = film(tmp_path / "b.mp4", smooth(3), prepare=prepare, **LOSSY)
    expected, info = MATRICES[case][1](read_stack(plain)[0]), media.probe(turned)
    frame = next(media.read_frames(turned))
    assert (info.height, info.width) == frame.shape[:2]
    np.testing.assert_array_equal(frame, expected)
    assert next(media.read_frames(turned, width=30, height=22)).shape == (22, 30, 3)
    in_rgb = film(tmp_path / "c.mov", smooth(1), codec="qtrle", pixel_format="rgb24", prepare=prepare)
    if case.startswith("turned"):  # of frames in RGB PyAV tells the angle only
        np.testing.assert_array_equal(next(media.read_frames(in_rgb)), MATRICES[case][1](smooth(1)[0]))


@pytest.mark.parametrize("angle, aspect", [(0, Fraction(4, 3)), (90, Fraction(3, 4)), (180, Fraction(4, 3))])
def test_pixels_are_turned_with_the_frame(tmp_path, angle, aspect):
    def prepare(stream):
        stream.codec_context.sample_aspect_ratio = Fraction(4, 3)
        stream.set_display_rotation(angle)

    path = film(tmp_path / "a.mp4", smooth(2), prepare=prepare, **LOSSY)
    info = media.probe(path)
    assert info.aspect == aspect
    assert (info.width, info.height) == ((32, 48) if angle == 90 else (48, 32))


def test_transparency_beside_the_frames_lies_on_white(tmp_path):
    rgba = np.dstack([smooth(1)[0], np.full((32, 48), 255, np.uint8)])
    rgba[:, 24:, 3] = 0
    path = tmp_path / "a.webm"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libvpx-vp9", rate=25, width=48, height=32, pix_fmt="yuva420p")
        stream.bit_rate, stream.metadata["alpha_mode"] = 2_000_000, "1"
        frame = av.VideoFrame.from_ndarray(rgba, format="rgba").reformat(format="yuva420p")
        for time in range(5):
            frame.pts = time
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    found = read_stack(path)
    assert len(found) == 5 and (found[:, :, 26:] == 255).all()
    assert np.abs(found[:, :, :22].astype(int) - rgba[:, :22, :3]).mean() < 8
    assert not media.has_planes(media.probe(path).pixel_format)
    refused(path, "no planes", lambda path: next(media.read_planes(path)))
    planes = next(media.read_planes(path, pixel_format="yuv420p"))
    assert (planes.frame.y[:, 26:] == 235).all()
    damaged = []
    assert len(list(media.read_timed(path, damaged))) == 5 and not damaged


def test_colours_that_cannot_be_converted_are_refused(tmp_path):
    def prepare(stream):
        stream.codec_context.colorspace = 14  # ICtCp

    path = film(tmp_path / "a.mkv", smooth(2), codec="ffv1", pixel_format="yuv444p", prepare=prepare)
    refused(path, "colours of a rare kind .*matrix 14.*zscale")


def text(path):
    path.write_text("this is no video\n" * 50)


def endless_box(path):
    path.write_bytes(b"\0\0\0\1ftyp" + b"\xff" * 8 + bytes(100))


def sound_only(path):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))


def no_frames(path):
    with av.open(str(path), "w") as container:
        container.add_stream("ffv1", rate=25, width=16, height=16, pix_fmt="bgr0")
        container.start_encoding()


def cut_image(path):
    Image.fromarray(noise(1)[0]).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def nothing(path):
    pass


@pytest.mark.parametrize(
    "make, name",
    [
        *((text, name) for name in ("a.txt", "a.mp4", "a.png")),
        (endless_box, "a.mp4"),
        (sound_only, "a.wav"),
        (no_frames, "a.mkv"),
        (Path.touch, "a.mkv"),
        (Path.mkdir, "images"),
        *((cut_image, name) for name in ("a.png", "a.jpg", "a.bmp")),
        *((nothing, name) for name in ("none.mkv", "line\nbreak.mkv", "no/none.png")),
    ],
)
def test_bad_inputs(tmp_path, make, name):
    make(tmp_path / name)
    for read in (media.probe, lambda p: list(media.read_frames(p))):
        with pytest.raises(UserError) as caught:
            read(tmp_path / name)
        assert "\n" not in str(caught.value)
        assert name.replace("\n", " ") in str(caught.value)


def test_wrong_kind_of_file_is_reported_at_once(tmp_path):
    (tmp_path / "a.mp4").write_text("no video")
    with pytest.raises(UserError):
        media.read_frames(tmp_path / "a.mp4")


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
    assert np.diff(media.frame_times(path)).tolist() == np.diff(times).tolist()


def test_times_of_images_are_their_numbers(tmp_path):
    media.write_frames(tmp_path / "a.png", noise(1))
    write(f"{tmp_path}/images/", noise(3))
    for name, times in (("a.png", [0]), ("images", [0, 1, 2])):
        assert media.frame_times(tmp_path / name).tolist() == times
        assert [found.time for found in media.read_timed(tmp_path / name)] == times


def test_frames_are_counted_by_decoding_where_no_packet_is_listed(tmp_path, monkeypatch):
    path = write(tmp_path / "a.mkv", noise(5))
    monkeypatch.setattr(source, "_packet_times", lambda _: [])
    assert media.count_frames(path) == 5


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


def test_interlaced_clips_are_refused(tmp_path):
    options = {"x264-params": "tff=1"}
    lossy = {"codec": "libx264", "pixel_format": "yuv420p"}
    refused(film(tmp_path / "a.mkv", smooth(3), options=options, **lossy), "interlaced.*bwdif")
    assert media.probe(film(tmp_path / "b.mkv", smooth(3), **lossy)).width == 48


def test_frames_too_large_are_refused(tmp_path, monkeypatch):
    path = write(tmp_path / "a.mkv", noise(2, 32, 64))
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
        refused(
            path, r"is not a video or image but text \(playlists are not followed\): give a complete video"
        )
        server.setblocking(False)
        with pytest.raises(BlockingIOError):
            server.accept()


PLAYLISTS = {
    "m3u8": "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{0}\n#EXT-X-ENDLIST\n",
    "m3u8 of a map": '#EXTM3U\n#EXT-X-MAP:URI="{0}"\n#EXTINF:9,\n{0}\n#EXT-X-ENDLIST\n',
    "ffconcat": "ffconcat version 1.0\nfile {0}\n",
    "mpd": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" '
    'mediaPresentationDuration="PT1S"><Period><AdaptationSet contentType="video"><Representation id="0" '
    'bandwidth="1"><BaseURL>{0}</BaseURL></Representation></AdaptationSet></Period></MPD>',
    "idx": "# VobSub index file, v7 (do not modify this line!)\nid: en, index: 0\n",
}


@pytest.mark.parametrize("suffix", [".m3u8", ".mp4", ".ts", ".ffconcat", ".mpd", ".png", ""])
@pytest.mark.parametrize("kind", PLAYLISTS)
def test_a_playlist_of_videos_that_are_there_is_not_followed(tmp_path, kind, suffix):
    film(tmp_path / "other.ts", smooth(6), **LOSSY)
    for name in ("other.ts", str(tmp_path / "other.ts")):
        path = tmp_path / f"list{suffix}"
        path.write_text(PLAYLISTS[kind].format(name))
        for read in (media.probe, read_stack, media.frame_times):
            refused(path, "not followed|damaged after frame 0", read)
        with pytest.raises(UserError, match="damaged"):
            media.decompress(path.read_bytes())


def test_formats_that_open_other_files_are_never_tried():
    """Playlists of a kind that no suffix and no first line gives away are among them."""
    allowed = set(container.safe_formats().split(","))
    assert not allowed & {
        "hls",
        "concat",
        "dash",
        "sdp",
        "rtsp",
        "rtp",
        "vobsub",
        "webm_dash_manifest",
        "lavfi",
    }
    assert {"matroska", "mov", "mp4", "avi", "mpegts", "nut", "asf", "flv", "ogg", "mxf", "gif"} <= allowed


def test_a_pattern_in_the_name_of_a_video_is_no_pattern(tmp_path):
    for name in ("100%done.mkv", "%03d.mkv", "a%d.MP4"):
        path = write(tmp_path / name, smooth(3), lossy=media.Lossy())
        assert media.probe(path).frames == len(read_stack(path)) == 3


@pytest.mark.parametrize("suffix", [".mkv", ".mp4", ".png", ".jpg", ""])
def test_empty_files_are_called_so(tmp_path, suffix):
    (tmp_path / f"a{suffix}").touch()
    refused(tmp_path / f"a{suffix}", "is empty: give a complete video or image file")


def test_a_name_that_is_too_long_does_not_exist(tmp_path):
    refused(tmp_path / f"{'a' * 300}.mkv", "does not exist")
