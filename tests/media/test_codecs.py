import json
import shutil
import subprocess
from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image

from deepsteg_jax import media
from deepsteg_jax.errors import UserError
from deepsteg_jax.media import codecs
from tests.helpers import names, read_stack
from tests.media.clips import LOSSY, rich, write
from tests.synthetic import film, noise, packets, smooth


def look(path):
    """All that a video says of itself but for the name of the encoder."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        context, tags = stream.codec_context, {*stream.metadata} - {"ENCODER"}
        formats = container.format.name, context.name, context.pix_fmt, stream.time_base
        return formats, bytes(context.extradata), set(container.metadata), tags


@pytest.mark.parametrize("size", [(32, 48), (31, 47)])
def test_a_clip_looks_like_plain_ffv1(tmp_path, size):
    def prepare(stream):
        stream.codec_context.gop_size, stream.codec_context.color_range = 1, 2

    frames = noise(3, *size)
    options = {"level": "3", "slices": "16", "slicecrc": "1"}
    plain = film(tmp_path / "plain.mkv", frames, options=options, prepare=prepare)
    ours = write(tmp_path / "ours.mkv", frames)
    assert look(plain) == look(ours)
    assert [data for data, _ in packets(plain, "video")] == [data for data, _ in packets(ours, "video")]


def test_webm_looks_like_what_ffmpeg_writes(tmp_path):
    """Each frame by itself, so that damage spreads to no other."""
    path = write(tmp_path / "a.webm", noise(5))
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        context = stream.codec_context
        assert (context.name, context.pix_fmt, context.profile) == ("vp9", "gbrp", "Profile 1")
        assert (context.color_range, context.colorspace) == (2, 0)
        assert stream.metadata["ENCODER"].endswith("libvpx-vp9")
        assert all(packet.is_keyframe for packet in container.demux(stream) if packet.size)
    assert path.read_bytes()[:64].count(b"webm") == 1


@pytest.mark.parametrize("name", ["a.mp4", "a.M4V", "a.mov"])
def test_playable_video(tmp_path, name):
    frames = smooth(30, 64, 96)
    path = write(tmp_path / name, frames, Fraction(30000, 1001), lossy=LOSSY)
    assert names(tmp_path) == [name]
    info = media.probe(path)
    assert info[:5] == (96, 64, 30, Fraction(30000, 1001), False)
    np.testing.assert_array_equal(media.frame_times(path) * info.time_base * info.rate, range(30))
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
    path = write(tmp_path / "a.mp4", noise(4), lossy=LOSSY)
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
    found = read_stack(write(tmp_path / "b.mp4", flat, lossy=LOSSY))
    np.testing.assert_allclose(found.astype(int), flat, atol=3)


def test_the_rate_factor_and_the_quality_are_obeyed(tmp_path):
    for low, high, name, given in (
        (media.Lossy(crf=40), media.Lossy(crf=10), "a.mp4", {}),
        (media.Lossy(quality=20), media.Lossy(quality=95), "a.jpg", {"image": True}),
    ):
        frames = noise(1 if given else 3)
        sizes = [write(tmp_path / name, frames, lossy=lossy, **given).stat().st_size for lossy in (low, high)]
        assert sizes[1] > 2 * sizes[0]


@pytest.mark.parametrize("name", ["a.jpg", "a.JPEG"])
def test_jpeg(tmp_path, name):
    frames = smooth(1, 33, 47)
    path = write(tmp_path / name, frames, image=True, lossy=LOSSY)
    with Image.open(path) as image:
        assert image.format == "JPEG" and image.layer[0][1:3] == (2, 2)  # colours are halved in size
        reference = tmp_path / "reference.jpg"
        Image.fromarray(frames[0]).save(reference, quality=90)
        assert image.quantization == Image.open(reference).quantization
    assert np.abs(read_stack(path).astype(int) - frames).mean() < 7


@pytest.mark.parametrize("name", ["a.mp4", "a.mov"])
def test_shape_of_pixels_of_playable_video(tmp_path, name):
    path = write(tmp_path / name, noise(2), aspect=Fraction(16, 11), lossy=LOSSY)
    assert media.probe(path).aspect == Fraction(16, 11)


@pytest.mark.skipif(shutil.which("ffprobe") is None, reason="without ffprobe nothing else shows it")
def test_every_frame_says_the_shape_of_its_pixels(tmp_path):
    path = write(tmp_path / "a.mkv", noise(2), aspect=Fraction(4, 3))
    np.testing.assert_array_equal(list(media.read_frames(path)), noise(2))
    command = ["ffprobe", "-v", "error", "-of", "json", "-show_entries", "frame=sample_aspect_ratio", path]
    found = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    assert [frame["sample_aspect_ratio"] for frame in found["frames"]] == ["4:3", "4:3"]


def test_a_missing_encoder_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(codecs, "has_encoder", lambda codec: False)
    with pytest.raises(UserError, match="cannot encode with libx264"):
        write(tmp_path / "a.mp4", noise(2), lossy=LOSSY)
    assert names(tmp_path) == []


@pytest.mark.skipif(shutil.which("ffprobe") is None, reason="needs ffprobe to show every tag")
def test_no_tag_names_this_project(tmp_path):
    cover = rich(tmp_path / "cover.mkv")
    path = write(tmp_path / "out.mkv", noise(6), tracks_from=cover)
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
