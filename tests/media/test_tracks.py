from fractions import Fraction

import av
import numpy as np
import pytest

from deepsteg_jax import media
from deepsteg_jax.errors import UserError
from tests.helpers import names, read_stack
from tests.media.clips import LOSSY, SRT, click, movie_with_text, onset, packets_at, rich, stereo, write
from tests.synthetic import Sound, film, heard, hiss, noise, packets, smooth

MPEG4 = {"codec": "mpeg4", "pixel_format": "yuv420p"}


@pytest.mark.parametrize(
    ("name", "codec"),
    [("a.mp4", "aac"), ("a.mkv", "libopus"), ("a.avi", "pcm_s16le"), ("a.mov", "pcm_s16le")],
)
def test_sound_is_copied(tmp_path, name, codec):
    cover = film(tmp_path / name, smooth(25), sounds=[Sound(codec, hiss(1.0))], **MPEG4)
    frames = noise(25)
    path = write(tmp_path / "out.mkv", frames, tracks_from=cover)
    assert names(tmp_path) == sorted([name, "out.mkv"])
    ours, theirs = packets(path), packets(cover)
    assert [data for data, _ in ours] == [data for data, _ in theirs]
    assert [float(time) for _, time in ours] == pytest.approx([float(time) for _, time in theirs], abs=2e-3)
    assert packets(path, "video")[0][1] == 0
    (_, first), (_, last) = packets_at(path, "audio")[0], packets_at(path)[-1]
    assert first < last  # interleaved
    np.testing.assert_array_equal(read_stack(path), frames)


def test_sound_that_is_longer_than_the_video_is_copied_whole(tmp_path):
    cover = film(tmp_path / "a.mp4", smooth(25), sounds=[Sound("aac", hiss(1.0))], **MPEG4)
    path = write(tmp_path / "out.mkv", noise(10), tracks_from=cover)
    assert packets(cover)[-1][1] > 2 * Fraction(10, 25)
    assert [data for data, _ in packets(path)] == [data for data, _ in packets(cover)]


def test_cover_without_sound(tmp_path):
    cover = film(tmp_path / "a.mp4", smooth(3), **MPEG4)
    assert media.probe(write(tmp_path / "out.mkv", noise(3), tracks_from=cover)).tracks == 0


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
    assert tracks(write(tmp_path / "out.mkv", noise(6), tracks_from=cover)) == before


@pytest.mark.parametrize("start", [-2400, 0, 2400])
@pytest.mark.parametrize("name", ["out.mkv", "out.nut"])
def test_sound_of_a_cover_stays_in_step(tmp_path, name, start):
    """NUT has no times before 0: there the whole clip starts later."""
    cover = film(tmp_path / "cover.mkv", noise(12), sounds=[Sound("aac", click(0.2), start)])
    path = write(tmp_path / name, noise(12), tracks_from=cover)
    assert onset(path) == pytest.approx(onset(cover), abs=1e-3)
    assert onset(path) == pytest.approx(0.2 + start / 48000, abs=2e-3)
    assert [data for data, _ in packets(path)] == [data for data, _ in packets(cover)]
    times = media.frame_times(path) * float(media.probe(path).time_base)
    np.testing.assert_allclose(np.diff(times), 0.04, atol=6e-4)
    assert name == "out.nut" or times[0] == 0


def test_tracks_are_played_as_often_as_the_video(tmp_path):
    cover = rich(tmp_path / "cover.mkv", sounds=[Sound("pcm_s16le", hiss())] * 2)
    loop = media.Loop(3, Fraction(6, 25), Fraction(3, 25))
    path = write(tmp_path / "out.mkv", noise(15), tracks_from=cover, loop=loop)
    for kind in ("audio", "subtitle"):
        once = packets(cover, kind)
        wanted = [(data, time + i * Fraction(6, 25)) for i in range(2) for data, time in once]
        wanted += [(data, time + 2 * Fraction(6, 25)) for data, time in once if time < loop.end]
        assert len(wanted) > 2 * len(once)
        assert packets(path, kind) == wanted


def subtitled(path, kind):
    if kind == "mov_text":
        return movie_with_text(path.with_suffix(".mp4"))
    lines = "WEBVTT\n\n00:40.000 --> 00:41.000\nhello\n" if kind == "webvtt" else SRT
    return film(path, noise(3), subtitles=lines)


@pytest.mark.parametrize(
    "name, kind, advice",
    [
        ("a.mkv", "srt", None),
        ("a.mkv", "webvtt", None),
        ("a.mkv", "mov_text", r"srt OUT\.mkv"),
        ("a.nut", "mov_text", r"srt OUT\.mkv"),
        ("a.mp4", "mov_text", None),
        ("a.mp4", "srt", r"mov_text OUT\.mp4"),
        ("a.webm", "webvtt", None),
        ("a.webm", "srt", r"webvtt OUT\.mkv"),
    ],
)
def test_subtitles_are_copied_or_refused(tmp_path, name, kind, advice):
    cover = subtitled(tmp_path / "cover.mkv", kind)
    if advice:
        with pytest.raises(UserError, match=f"does not fit .* -c:s {advice}") as caught:
            write(tmp_path / name, noise(3), tracks_from=cover, lossy=LOSSY)
        assert "\n" not in str(caught.value) and str(cover) in str(caught.value)
        assert names(tmp_path) == [cover.name]
    else:
        path = write(tmp_path / name, noise(3), tracks_from=cover, lossy=LOSSY)
        assert media.probe(path).tracks == 1
        texts = [[data for data, _ in packets(file, "subtitle")] for file in (path, cover)]
        assert texts[0] == texts[1] != []


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
        ("a.webm", "libopus", "opus"),
        ("a.webm", "aac", "opus"),
        ("a.webm", "flac", "opus"),
    ],
)
@pytest.mark.parametrize("start", [-2400, 0, 2400])
def test_sound_of_playable_video(tmp_path, name, codec, result, start):
    """Copied, or coded anew where the container cannot hold it; in step either way."""
    sound = Sound(codec, click(0.2, 1.0), start, {"language": "eng"})
    cover = film(tmp_path / "cover.mkv", noise(25), sounds=[sound])
    path = write(tmp_path / name, smooth(25), tracks_from=cover, lossy=LOSSY)
    assert sound_codecs(path) == [result]
    if codec.removeprefix("lib") == result and not codec.startswith("pcm"):
        assert [data for data, _ in packets(path)] == [data for data, _ in packets(cover)]
    assert onset(path) == pytest.approx(onset(cover), abs=2e-3)
    assert len(read_stack(path)) == 25 and media.frame_times(path)[0] == 0
    with av.open(str(path)) as container:
        assert container.streams.audio[0].metadata["language"] == "eng"


def test_sound_that_is_coded_anew_sounds_the_same(tmp_path):
    tune = 0.4 * np.sin(0.05 * np.arange(48000)) * np.linspace(0, 1, 48000)
    cover = film(tmp_path / "cover.mkv", noise(25), sounds=[Sound("pcm_s16le", tune)])
    path = write(tmp_path / "a.mp4", smooth(25), tracks_from=cover, lossy=LOSSY)
    np.testing.assert_allclose(heard(path)[:48000], tune, atol=0.02)
    assert not np.abs(heard(path)[48000:]).max() > 0.02 + np.abs(tune[-1])


@pytest.mark.parametrize("name, result", [("a.mp4", "aac"), ("a.webm", "vorbis")])
def test_vorbis_in_stereo(tmp_path, name, result):
    cover = stereo(tmp_path / "cover.mkv", "vorbis", 0.3 * (np.arange(20480) >= 10240), rate=44100)
    path = write(tmp_path / name, smooth(12), tracks_from=cover, lossy=LOSSY)
    with av.open(str(path)) as container:
        context = container.streams.audio[0].codec_context
        assert (context.name, context.sample_rate, context.layout.name) == (result, 44100, "stereo")
        samples = np.concatenate([frame.to_ndarray() for frame in container.decode(audio=0)], axis=1)
    assert samples.shape[1] == pytest.approx(20480, abs=2100)
    assert np.flatnonzero(np.abs(samples[0]) > 0.15)[0] == pytest.approx(10240, abs=400)


def test_gaps_in_sound_that_is_coded_anew_stay(tmp_path):
    """Of a repeated cover too, whose sound is shorter than its pictures."""
    cover = film(tmp_path / "cover.mkv", noise(12), sounds=[Sound("pcm_s16le", click(0.2, 0.3))])
    loop = media.Loop(3, Fraction(12, 25), Fraction(6, 25))
    path = write(tmp_path / "a.mp4", smooth(30), tracks_from=cover, loop=loop, lossy=LOSSY)
    loud = np.flatnonzero(np.abs(heard(path)) > 0.2)
    begins = loud[np.flatnonzero(np.diff(loud, prepend=-48000) > 4800)] / 48000
    np.testing.assert_allclose(begins, [0.2, 0.68, 1.16], atol=2e-3)


def test_damaged_sound_that_must_be_coded_anew(tmp_path):
    cover = film(tmp_path / "cover.mkv", noise(12), sounds=[Sound("mp2", hiss(0.48))])
    data = cover.read_bytes()
    for content, _ in packets(cover):
        data = data.replace(content, b"\xff" * len(content))
    cover.write_bytes(data)
    with pytest.raises(UserError, match=r"of .*cover\.mkv is damaged: remove it"):
        write(tmp_path / "a.mp4", smooth(12), tracks_from=cover, lossy=LOSSY)
    assert names(tmp_path) == ["cover.mkv"]


def test_tags_and_chapters_of_playable_video(tmp_path):
    cover = rich(tmp_path / "cover.mkv", subtitles="")
    path = write(tmp_path / "a.mp4", smooth(6), tracks_from=cover, lossy=LOSSY)
    with av.open(str(path)) as container:
        assert (container.metadata["title"], container.metadata["artist"]) == ("A film", "Somebody")
        assert [c["metadata"]["title"] for c in container.chapters()] == ["one", "two"]
        assert [stream.metadata["language"] for stream in container.streams.audio] == ["eng", "deu"]
    assert media.probe(path).tracks == 2
    for word in (b"deepsteg", b"numpy", b"pyav", b"python"):
        assert word not in path.read_bytes().lower()
