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


def decoded(path):
    """When the first sound that can be decoded begins, in seconds, and its samples, float [n]."""
    with av.open(str(path)) as container:
        track = next(track for track in container.streams.audio if track.codec_context)
        frames = list(container.decode(track))
    samples = np.concatenate([frame.to_ndarray().T.reshape(-1) for frame in frames])
    scale = 2.0 ** (8 * samples.itemsize - 1) if samples.dtype.kind == "i" else 1
    return float(frames[0].pts * frames[0].time_base), samples / scale


@pytest.mark.parametrize("output", ["out.mkv", "out.nut"])
@pytest.mark.parametrize(
    "name, codec",
    [
        ("a.avi", "pcm_mulaw"),
        ("a.avi", "pcm_alaw"),
        ("a.avi", "adpcm_ms"),
        ("a.avi", "adpcm_ima_wav"),
        ("a.mov", "adpcm_ima_qt"),
        ("a.mov", "alac"),
        ("a.mov", "pcm_s24be"),
        ("a.wmv", "wmav2"),
        ("a.wmv", "wmav1"),
    ],
)
def test_sound_of_every_kind_sounds_the_same(tmp_path, name, codec, output):
    """Copied where the container holds it so that it can be decoded, else coded without loss."""
    cover = film(tmp_path / name, smooth(25), sounds=[Sound(codec, hiss(1.0), bit_rate=64_000)], **MPEG4)
    path = write(tmp_path / output, noise(25), tracks_from=cover)
    (begin, samples), (wanted, expected) = decoded(path), decoded(cover)
    np.testing.assert_array_equal(samples, expected)
    assert begin == pytest.approx(wanted, abs=2e-3) and media.left_out(cover, path) == ""
    if output == "out.mkv" and name != "a.mov":
        assert [data for data, _ in packets(path)] == [data for data, _ in packets(cover)]
    again = write(tmp_path / f"again{path.suffix}", noise(25), tracks_from=path)  # a stego is a cover, too
    np.testing.assert_array_equal(decoded(again)[1], expected)


@pytest.mark.parametrize(
    "name, codec, rate, layout, channels",
    [("a.avi", "adpcm_ima_wav", 44100, "stereo", 2), ("a.mov", "alac", 32000, "5.1", 6)],
)
def test_all_channels_and_the_rate_are_kept(tmp_path, name, codec, rate, layout, channels):
    """NUT holds neither codec."""
    cover = stereo(tmp_path / name, codec, hiss(1.0)[: rate // 2], rate, layout)
    path = write(tmp_path / "out.nut", noise(12), tracks_from=cover)
    with av.open(str(path)) as container:
        context = container.streams.audio[0].codec_context
        assert (context.name, context.sample_rate) == ("pcm_f32le", rate)
        assert context.layout.nb_channels == channels
    np.testing.assert_array_equal(decoded(path)[1], decoded(cover)[1])


# --- tracks that do not come along ------------------------------------------------------------------


def with_unknown_sound(path, sounds):
    """A film whose last sound is of a kind that FFmpeg does not know."""
    data = film(
        path, smooth(6), sounds=[Sound("ac3", hiss(0.24, i)) for i in range(sounds)], **MPEG4
    ).read_bytes()
    before, found, after = data.rpartition(b"ac-3")
    path.write_bytes(before + b"zzzz" + after)
    return path


@pytest.mark.parametrize("name", ["out.mkv", "out.nut", "out.webm", "out.mp4", "out.mov"])
@pytest.mark.parametrize("sounds", [1, 2])
def test_sound_that_nobody_can_decode_is_named(tmp_path, name, sounds):
    cover = with_unknown_sound(tmp_path / "cover.mp4", sounds)
    path = write(tmp_path / name, smooth(6), tracks_from=cover, lossy=LOSSY)
    assert len(sound_codecs(path)) == sounds - 1
    assert media.left_out(cover, path) == f"track {sounds}: sound that no decoder is known for"
    assert media.unsent(cover, sound=True) == media.left_out(cover, path)
    sound = media.encode_sound(cover, 64_000)
    assert (sound is None) == (sounds == 1)


def test_attachments_are_kept_where_the_container_has_them(tmp_path):
    def attach(stream):
        stream.container.add_attachment("a font.ttf", "application/x-truetype-font", bytes(range(99)))

    cover = rich(tmp_path / "cover.mkv", prepare=attach, subtitles="")
    path = write(tmp_path / "out.mkv", noise(6), tracks_from=cover)
    with av.open(str(path)) as container:
        (font,) = container.streams.attachments
        assert (font.name, font.mimetype, bytes(font.data)) == (
            "a font.ttf",
            "application/x-truetype-font",
            bytes(range(99)),
        )
        assert len(container.streams.audio) == 2
    assert media.left_out(cover, path) == ""
    for name in ("a.mp4", "a.webm", "a.nut"):
        write(tmp_path / name, smooth(6), tracks_from=cover, lossy=LOSSY)
        assert media.left_out(cover, tmp_path / name) == "track 3: a file (a font.ttf)"


def two_videos(path):
    with av.open(str(path), "w") as container:
        both = [container.add_stream("mpeg4", rate=25, width=48, height=32) for _ in range(2)]
        for number, picture in enumerate(noise(6)):
            for stream in both:
                frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
                frame.pts, frame.time_base = number, Fraction(1, 25)
                container.mux(stream.encode(frame))
        for stream in both:
            container.mux(stream.encode(None))
    return path


def test_a_second_video_is_named(tmp_path):
    cover = two_videos(tmp_path / "cover.mp4")
    for name in ("a.mp4", "a.mkv"):
        path = write(tmp_path / name, smooth(6), tracks_from=cover, lossy=LOSSY)
        assert media.left_out(cover, path) == "track 1: a second video (mpeg4)"
        assert media.probe(path).frames == 6


def test_all_that_a_folder_of_images_leaves_out_is_named(tmp_path):
    cover = rich(tmp_path / "cover.mkv", subtitles="")
    assert media.left_out(cover, f"{tmp_path}/new/") == "track 1: sound (opus), track 2: sound (flac)"
    assert media.unsent(cover, sound=True) == "track 2: sound (flac)"
    assert media.unsent(write(tmp_path / "a.png", noise(1), image=True), sound=True) == ""


def test_advice_about_subtitles_names_the_tracks_that_fit(tmp_path):
    """Neither the font nor the sound that nobody knows is among them."""
    cover = rich(tmp_path / "cover.mkv")
    with pytest.raises(
        UserError, match=r"track 3 \(srt\) .* \.mp4: write \.mkv, or convert it first"
    ) as caught:
        media.check_tracks(cover, tmp_path / "a.mp4")
    command = "ffmpeg -i IN -map 0:0 -map 0:1 -map 0:2 -map 0:3 -c copy -c:s mov_text OUT.mp4"
    assert str(caught.value).endswith(command)


def test_advice_about_pictures_of_subtitles_leaves_them_out(tmp_path):
    """No program makes text of them."""
    cover = tmp_path / "cover.mkv"
    with av.open(str(cover), "w") as container:
        video = container.add_stream("mpeg4", rate=25, width=48, height=32, pix_fmt="yuv420p")
        text = container.add_mux_stream("hdmv_pgs_subtitle", time_base=Fraction(1, 1000))
        container.mux(video.encode(av.VideoFrame.from_ndarray(noise(1)[0], format="rgb24")))
        container.mux(video.encode(None))
        packet = av.Packet(bytes(13))
        packet.pts, packet.dts, packet.time_base, packet.stream = 0, 0, Fraction(1, 1000), text
        container.mux(packet)
    media.check_tracks(cover, tmp_path / "a.mkv")
    with pytest.raises(UserError) as caught:
        media.check_tracks(cover, tmp_path / "a.mp4")
    assert str(caught.value).endswith(
        "does not fit into .mp4: write .mkv, or leave it out with ffmpeg -i IN -map 0:0 -c copy OUT.mkv"
    )


@pytest.mark.parametrize("name", ["out.mkv", "out.mp4", "out.webm"])
def test_tags_can_be_left_out(tmp_path, name):
    personal = {
        "location": "+48.1374+011.5755/",
        "make": "Camera Maker",
        "artist": "Somebody",
        "comment": "my own words",
    }
    cover = rich(tmp_path / "cover.mkv", subtitles="", tags=personal, chapters=[(0, 240, "At the lake")])
    path = write(tmp_path / name, smooth(6), tracks_from=cover, lossy=LOSSY, drop_tags=True)
    data = path.read_bytes()
    for words in (*personal.values(), "Original", "At the lake", "+48.1374"):
        assert words.encode() not in data
    with av.open(str(path)) as container:
        assert [stream.metadata["language"] for stream in container.streams.audio] == ["eng", "deu"]
        assert len(container.chapters()) == 1
    kept = write(tmp_path / f"kept{path.suffix}", smooth(6), tracks_from=cover, lossy=LOSSY).read_bytes()
    assert b"Somebody" in kept and (b"+48.1374" in kept or name == "out.mp4")
