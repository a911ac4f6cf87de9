"""Files whose times jump, and tracks that begin elsewhere than the picture."""

from fractions import Fraction

import av
import numpy as np
import pytest

from deepsteg_jax import media, plan
from tests.helpers import refused
from tests.media.clips import click, onset, write
from tests.synthetic import Sound, film, heard, packets, smooth

TICK = Fraction(1, 90_000)
WRAP = 2**33 * TICK  # seconds, after which the times of a transport stream begin again
H264 = {"codec": "libx264", "pixel_format": "yuv420p", "options": {"preset": "ultrafast", "g": "50"}}


def stream(path, at=0, *, sound_at=0, click_at=0.2, seconds=1.0, sound=True, frames=25, **video):
    """A transport stream of a second that says it begins at `at` seconds, with a click."""
    times = [round(at / TICK) + 3600 * i for i in range(frames)]
    sounds = [Sound("mp2", click(click_at, seconds), round((at + sound_at) * 48_000))] * sound
    return film(path, smooth(frames), times=times, time_base=TICK, sounds=sounds, **{**H264, **video})


def join(path, *parts):
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    return path


def clock_of(path):
    return plan.clock_of(path, media.probe(path))


def clicks(sound):
    """When a hidden track clicks, in seconds after the first frame."""
    with av.open(sound.file, format="ogg") as container:
        samples = np.concatenate([frame.to_ndarray().mean(0) for frame in container.decode(audio=0)])
    sound.file.close()
    loud = (np.flatnonzero(np.abs(samples) > 0.2) + sound.start) / 48_000
    return loud[np.flatnonzero(np.diff(loud, prepend=-9) > 0.3)]


@pytest.mark.parametrize(
    "at, lasts, second",
    [
        (0, 2.0, 1.2),  # the times begin again
        (0.5, 2.0, 1.2),
        (-1, 2.0, 1.2),
        (3600, 2.0, 1.2),
        (WRAP - 2, 2.0, 1.2),
        (5, 6.0, 5.2),  # a gap, as a pause in a recording makes it
    ],
)
def test_joined_streams_go_on(tmp_path, at, lasts, second):
    parts = [stream(tmp_path / "a.ts", 1), stream(tmp_path / "b.ts", 1 + at)]
    path = join(tmp_path / "ab.ts", *parts)
    clock = clock_of(path)
    assert len(clock.times) == 50 and clock.duration == pytest.approx(lasts, abs=0.1)
    np.testing.assert_allclose(np.delete(np.diff(clock.times), 24), 0.04, atol=1e-4)
    np.testing.assert_allclose(clicks(media.encode_sound(path, 32_000)), [0.2, second], atol=0.02)


def test_three_parts_of_which_one_leaps(tmp_path):
    parts = [stream(tmp_path / f"{at}.ts", at) for at in (1, 5000)]
    clock = clock_of(join(tmp_path / "a.ts", *parts, parts[0]))
    assert clock.constant and clock.rate == 25 and clock.duration == 3


@pytest.mark.parametrize("seconds, second, lasts", [(0.5, 1.2, 2.0), (1.6, 1.8, 2.6)])
def test_sound_of_another_length_than_the_pictures(tmp_path, seconds, second, lasts):
    """Pictures wait for longer sound; shorter sound leaves a pause."""
    parts = [stream(tmp_path / "a.ts", 1, seconds=seconds), stream(tmp_path / "b.ts", 1)]
    path = join(tmp_path / "ab.ts", *parts)
    assert clock_of(path).duration == pytest.approx(lasts, abs=0.05)
    np.testing.assert_allclose(clicks(media.encode_sound(path, 32_000)), [0.2, second], atol=0.03)


@pytest.mark.parametrize("first", [True, False])
def test_a_part_without_sound(tmp_path, first):
    parts = [stream(tmp_path / "a.ts", 1, sound=first), stream(tmp_path / "b.ts", 1, sound=not first)]
    path = join(tmp_path / "ab.ts", *parts)
    assert clock_of(path).duration == 2
    clicked = clicks(media.encode_sound(path, 32_000))
    np.testing.assert_allclose(clicked, [0.2 if first else 1.2], atol=0.02)


def test_program_streams_are_joined_too(tmp_path):
    sound = Sound("mp2", click(0.2, 1.0))
    part = film(tmp_path / "a.mpg", smooth(25), codec="mpeg2video", pixel_format="yuv420p", sounds=[sound])
    path = join(tmp_path / "ab.mpg", part, part)
    assert clock_of(path).duration == 2
    np.testing.assert_allclose(clicks(media.encode_sound(path, 32_000)), [0.2, 1.2], atol=0.02)


@pytest.mark.parametrize("at", [WRAP - Fraction(1, 2), WRAP - 80])
def test_times_wrap(tmp_path, at):
    path = stream(tmp_path / "a.ts", at, seconds=4.0, frames=100)
    assert clock_of(path).constant and clock_of(path).duration == 4
    np.testing.assert_allclose(clicks(media.encode_sound(path, 32_000)), [0.2], atol=0.01)


@pytest.mark.parametrize("name", ["out.mkv", "out.mp4"])
@pytest.mark.parametrize("sounds", [("mp2", "aac")])
def test_tracks_of_joined_streams_stay_in_step(tmp_path, name, sounds):
    """Sound overlaps by some packets, which players would count."""
    tracks = [Sound(codec, click(0.2, 1.03)) for codec in sounds]
    times = [3600 * i for i in range(25)]
    part = film(tmp_path / "a.ts", smooth(25), times=times, time_base=TICK, sounds=tracks, **H264)
    cover = join(tmp_path / "ab.ts", part, part)
    timed = list(media.read_timed(cover))
    assert len(timed) == 50
    path, lossy = tmp_path / name, media.Lossy()
    with media.Writer(path, 25, time_base=TICK, tracks_from=cover, lossy=lossy) as writer:
        for frame, time in timed:
            writer.write(frame, time)
    for number in range(2):
        loud = np.flatnonzero(np.abs(heard(path, number)) > 0.2) / 48_000
        begins = loud[np.flatnonzero(np.diff(loud, prepend=-9) > 0.3)]
        np.testing.assert_allclose(begins, [0.2, 1.2], atol=0.02)


# --- recordings that begin in the middle ----------------------------------------------------------


def cut_start(path, share):
    """Drops the first part of a transport stream but its tables, at a packet of 188 bytes."""
    data = path.read_bytes()
    tables, at = data[: 188 * 3], round(share * len(data)) // 188 * 188
    path.write_bytes(tables + data[at:])
    return path


@pytest.fixture
def late(tmp_path):
    """A stream of 3 s with a click at 2.5 s that begins inside a group of pictures; 25 frames decode."""
    clip = stream(tmp_path / "late.ts", 1, frames=75, seconds=3.0, click_at=2.5)
    cut_start(clip, 0.4)
    with av.open(str(clip)) as container:
        first, *_ = container.decode(video=0)
        assert first.pts > container.streams.video[0].start_time
    return clip


def test_only_frames_that_decode_count(late):
    clock = clock_of(late)
    assert len(clock.times) == media.count_frames(late) == 25 and clock.start > 0.1
    assert len(packets(late, "video")) > 25


def test_sound_is_in_step_with_the_first_frame_that_decodes(tmp_path, late):
    """That frame is shown 2 s after the start."""
    np.testing.assert_allclose(clicks(media.encode_sound(late, 32_000)), [0.5], atol=5e-3)
    path = tmp_path / "out.mkv"
    with media.Writer(path, 25, time_base=TICK, tracks_from=late) as writer:
        for frame, time in media.read_timed(late):
            writer.write(frame, time)
    assert onset(path) == pytest.approx(0.5, abs=5e-3)


def test_a_repeated_cover_that_begins_late_keeps_its_sound(tmp_path, late):
    start = clock_of(late).start
    loop = media.Loop(2, Fraction(1), Fraction(1), start)
    path = tmp_path / "out.mkv"
    with media.Writer(path, 25, time_base=TICK, tracks_from=late, loop=loop) as writer:
        for number in range(2):
            for frame, time in media.read_timed(late):
                writer.write(frame, time + 90_000 * number)
    loud = np.flatnonzero(np.abs(heard(path)) > 0.2) / 48_000
    np.testing.assert_allclose(loud[np.flatnonzero(np.diff(loud, prepend=-9) > 0.3)], [0.5, 1.5], atol=5e-3)


# --- tracks that change ---------------------------------------------------------------------------


def tuned(path, layout, rate, pitch, at):
    """A stream with a tone in mono or stereo."""
    samples = 0.3 * np.sin(2 * np.pi * pitch * np.arange(rate) / rate)
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=25, options={"preset": "ultrafast"})
        video.width, video.height, video.pix_fmt = 48, 32, "yuv420p"
        track = container.add_stream("mp2", rate=rate, layout=layout)
        for number, pixels in enumerate(smooth(25)):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = number + 25 * at, Fraction(1, 25)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        channels = len(av.AudioLayout(layout).channels)
        data = np.tile((32767 * samples).astype(np.int16)[:, None], (1, channels)).reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(data, format="s16", layout=layout)
        frame.sample_rate, frame.pts, frame.time_base = rate, rate * at, Fraction(1, rate)
        container.mux(track.encode(frame))
        container.mux(track.encode(None))
    return path


def pitches(samples):
    """The loudest frequency of each half second, Hz."""
    halves = samples[: len(samples) // 24_000 * 24_000].reshape(-1, 24_000)
    return 2 * np.abs(np.fft.rfft(halves * np.hanning(24_000))).argmax(axis=1)


@pytest.mark.parametrize(
    "kinds", [(("mono", 48_000), ("stereo", 48_000)), (("stereo", 48_000), ("mono", 32_000))]
)
def test_sound_whose_channels_and_rate_change(tmp_path, kinds):
    parts = [tuned(tmp_path / f"{i}.ts", *kind, (440, 880)[i], i) for i, kind in enumerate(kinds)]
    path = join(tmp_path / "ab.ts", *parts)
    sound = media.encode_sound(path, 64_000)
    with av.open(sound.file, format="ogg") as container:
        hidden = np.concatenate([frame.to_ndarray().mean(0) for frame in container.decode(audio=0)])
    sound.file.close()
    write(tmp_path / "out.mp4", smooth(50), tracks_from=path, lossy=media.Lossy())
    for samples in hidden, heard(tmp_path / "out.mp4"):
        np.testing.assert_allclose(pitches(samples)[[0, 2]], [440, 880], atol=4)


def test_interlacing_that_begins_later_is_refused(tmp_path):
    parts = [stream(tmp_path / "a.ts", 1), stream(tmp_path / "b.ts", 2, options={"x264-params": "tff=1"})]
    path = join(tmp_path / "ab.ts", *parts)
    assert media.probe(path).width == 48
    refused(path, "interlaced.*bwdif", media.timing)


def test_parts_of_other_coding_are_refused(tmp_path):
    first = film(tmp_path / "a.ts", smooth(25), codec="mpeg2video", pixel_format="yuv420p")
    path = join(tmp_path / "ab.ts", first, stream(tmp_path / "b.ts", 1, sound=False))
    refused(path, "cannot be decoded after frame 2[45]: cut it there", media.timing)


def test_a_pause_among_frames_that_are_reordered_is_no_fault(tmp_path):
    times = [40 * i + 30_000 * (i > 60) for i in range(120)]
    coding = H264 | {"options": {"preset": "medium", "bf": "3"}}
    path = film(tmp_path / "a.mkv", smooth(120), times=times, time_base=Fraction(1, 1000), **coding)
    assert np.array_equal(media.timing(path).ticks, times)


def test_times_that_go_back_in_another_container_are_refused(tmp_path):
    part = film(tmp_path / "a.mkv", smooth(25), codec="mpeg4", pixel_format="yuv420p")
    refused(
        join(tmp_path / "ab.mkv", part, part), "times of .* go back after frame 25: .*setpts", media.timing
    )


# --- edit lists -----------------------------------------------------------------------------------


def test_sound_that_an_edit_list_hides_is_not_heard(tmp_path):
    """Half a second before the first frame, with a click in it."""
    samples = click(0.2, 2.0) + click(0.9, 2.0)
    pictures = {"codec": "mpeg4", "pixel_format": "yuv420p"}
    source = film(tmp_path / "a.mp4", smooth(25), sounds=[Sound("aac", samples, -24_000)], **pictures)
    with av.open(str(source)) as container:
        assert sum(packet.is_discard for packet in container.demux(audio=0)) > 10
    path = write(tmp_path / "out.mkv", smooth(25), tracks_from=source)
    assert min(seconds for _, seconds in packets(path)) > -0.05
    loud = np.flatnonzero(np.abs(heard(path)) > 0.2) / 48_000
    assert loud.min() == pytest.approx(0.4, abs=3e-3)
    np.testing.assert_allclose(clicks(media.encode_sound(source, 32_000)), [0.4], atol=3e-3)
