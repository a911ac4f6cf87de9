"""Motion JPEG: what is written is the video that it is made of, but for coefficients."""

from fractions import Fraction
from functools import partial

import av
import numpy as np
import pytest
from av.logging import Capture

from deepsteg_jax import media
from deepsteg_jax.errors import UserError
from deepsteg_jax.media import jpeg, mjpeg
from tests.helpers import names, refused
from tests.media.test_jpeg import changed, coded
from tests.synthetic import Sound, film, hiss, noise, packets, smooth


def motion_jpeg(path, pixel_format="yuvj420p", size=(40, 52), count=4, **given):
    """Frames that FFmpeg codes, beside uncompressed sound."""
    frames = smooth(count, *size) // 2 + noise(count, *size, high=100)
    sound = {"sounds": [Sound("pcm_s16le", hiss(count / 25))], "tags": {"title": "A film"}}
    return film(path, frames, codec="mjpeg", pixel_format=pixel_format, **sound | given)


def mux(path, pictures, height=32, width=48):
    """A film of coded pictures."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=25, width=width, height=height, pix_fmt="yuvj420p")
        for i, data in enumerate(pictures):
            packet = av.Packet(data)
            packet.pts = packet.dts = i
            packet.time_base, packet.stream, packet.is_keyframe = Fraction(1, 25), stream, True
            container.mux(packet)
    return path


def coefficients(path):
    """All frames."""
    return [timed.frame for timed in media.read_coefficients(path)]


def rewrite(source, output, frames, **given):
    """Writes a film with other coefficients."""
    with media.coefficient_writer(output, source, **given) as writer:
        for frame in frames:
            writer.write(frame)


def sound_of(path):
    """The bytes of the sound, and when it begins."""
    found = packets(path)
    return b"".join(data for data, _ in found), found[0][1]


def check(output, cover):
    """Whether a cover can become an output."""
    media.check_coefficients(cover, output, [cover])


def loud_frames(path):
    """What FFmpeg decodes; a warning is an error."""
    with Capture() as told, av.open(str(path)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert told == []
    return np.stack(frames)


@pytest.mark.parametrize(
    ("source", "output", "pixel_format"),
    [
        ("a.avi", "b.avi", "yuvj420p"),
        ("a.mov", "b.mov", "yuvj422p"),
        ("a.mkv", "b.mkv", "yuvj422p"),
        ("a.avi", "b.mov", "yuvj420p"),
    ],
)
def test_all_but_coefficients_is_copied(tmp_path, source, output, pixel_format):
    source, output = motion_jpeg(tmp_path / source, pixel_format), tmp_path / output
    frames = coefficients(source)
    rewrite(source, output, frames)
    assert packets(output, "video") == packets(source, "video") != []
    assert sound_of(output) == sound_of(source)
    with av.open(str(output)) as container:
        assert container.metadata["title"] == "A film" and container.streams.video[0].average_rate == 25
    goal = [changed(frame, i) for i, frame in enumerate(frames)]
    rewrite(source, output, goal)
    for found, wanted in zip(coefficients(output), goal, strict=True):
        assert all(np.array_equal(*pair) for pair in zip(found.planes, wanted.planes, strict=True))
    assert sound_of(output) == sound_of(source)
    assert loud_frames(output).shape == (4, 40, 52, 3)


def test_tags_are_left_out_also_those_in_frames(tmp_path):
    source = motion_jpeg(tmp_path / "a.avi")
    rewrite(source, tmp_path / "b.avi", coefficients(source), drop_tags=True)
    (data, _), (clean, _) = (packets(path, "video")[0] for path in (source, tmp_path / "b.avi"))
    assert b"Lavc" in data and b"Lavc" not in clean
    with av.open(str(tmp_path / "b.avi")) as container:
        assert "title" not in container.metadata
    assert np.array_equal(loud_frames(tmp_path / "b.avi"), loud_frames(source))


def as_camera(data, sizes=(0, 0)):
    """A picture without Huffman tables, and with the marker that AVI has in their place."""
    file = jpeg._parse(data)
    kept = [segment for segment in file.segments if segment.marker != 0xC4]
    content = b"AVI1\0\0" + b"".join(size.to_bytes(4, "big") for size in sizes)
    return jpeg._joined([jpeg._Segment(0xE0, content), *kept]) + file.tail + bytes(3)


def test_pictures_without_huffman_tables(tmp_path):
    pictures = [as_camera(coded(32, 48), (1003, 1000)), as_camera(coded(32, 48, quality=90))]
    source = mux(tmp_path / "a.avi", pictures)
    frames = coefficients(source)
    assert all(
        np.array_equal(*pair)
        for pair in zip(frames[0].planes, jpeg.decode(coded(32, 48)).planes, strict=True)
    )
    rewrite(source, tmp_path / "b.avi", frames)
    assert [data for data, _ in packets(tmp_path / "b.avi", "video")] == pictures
    rewrite(source, tmp_path / "b.avi", [changed(frame) for frame in frames])
    stego = [data for data, _ in packets(tmp_path / "b.avi", "video")]
    grown = len(stego[0]) - len(pictures[0])
    assert grown and stego[0][12:20] == b"".join((n + grown).to_bytes(4, "big") for n in (1003, 1000))
    assert b"\xff\xc4" not in stego[1] and stego[1][12:20] == bytes(8)
    assert loud_frames(tmp_path / "b.avi").shape == (2, 32, 48, 3)


def test_interlaced_frames_are_refused(tmp_path):
    fields = as_camera(coded(16, 48)) + as_camera(coded(16, 48))
    source = mux(tmp_path / "a.avi", [fields, fields])
    refused(
        source, "frame 1 of .* as a JPEG: it is interlaced; or use .mkv", partial(check, tmp_path / "b.avi")
    )
    assert media.probe(source).coefficients == 0


def test_a_truncated_packet_is_told_or_marked(tmp_path):
    pictures = [coded(32, 48), coded(32, 48)[:-200], coded(32, 48)]
    source, damaged = mux(tmp_path / "a.avi", pictures), []
    refused(source, "frame 2 of .* cannot be used as a JPEG: it is cut short", coefficients)
    found = [timed.frame for timed in media.read_coefficients(source, damaged)]
    assert damaged == [1] and found[1] == mjpeg.UNREADABLE and found[2].planes
    assert media.probe(source).coefficients == media.nonzero(found[0]) > 0


def test_covers_and_outputs_that_do_not_do(tmp_path):
    source = motion_jpeg(tmp_path / "a.mov")
    film(tmp_path / "c.mkv", noise())
    for cover, output, words in (
        (source, "b.mp4", "stays Motion JPEG; use .avi or .mov or .mkv"),
        (source, "b.avi", "the cover is no .avi; use .mov or .mkv"),
        (source, "a.mov", "is also an input"),
        (tmp_path / "c.mkv", "b.avi", "as Motion JPEG: its pictures are ffv1; or use .mkv"),
    ):
        with pytest.raises(UserError, match=words):
            check(tmp_path / output, cover)
    assert names(tmp_path) == ["a.mov", "c.mkv"]


def test_the_writer_leaves_nothing_half_written(tmp_path):
    source = motion_jpeg(tmp_path / "a.avi")
    with pytest.raises(UserError), media.coefficient_writer(tmp_path / "b.avi", source) as writer:
        writer.write(coefficients(source)[0])
        raise UserError("")
    frames = coefficients(source)
    with pytest.raises(UserError, match="changed while it was read"):
        rewrite(source, tmp_path / "b.avi", frames * 2)
    assert names(tmp_path) == ["a.avi"]
