"""Files in and out, with stand-ins for the sender and the receiver of segments."""

import json
from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from configs.robust import get_config
from deepsteg_jax import commands, keys, media, robust_pipeline
from deepsteg_jax.commands import common
from deepsteg_jax.errors import PartialError, UserError
from deepsteg_jax.pipeline import DEFAULTS, Settings
from deepsteg_jax.schemes import metadata
from deepsteg_jax.schemes.robust import segments
from tests.helpers import read_stack
from tests.synthetic import Sound, film, hiss, noise, packets, save, smooth

SEGMENT = 4  # frames
KEY = bytes(range(1, 33))
MILLISECOND = Fraction(1, 1000)


def quiet(frames):
    pass


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def config_of(**video):
    config = get_config("tiny")
    config.video.update({"align": "time", "sound_bit_rate": 64_000, "crf": 18, "jpeg_quality": 90} | video)
    return config


@pytest.fixture
def wire(monkeypatch):
    """What is between the stand-ins: `sent[number]`, of which `lost` ones do not arrive.

    The receiver counts frames, from frame `trimmed` on.
    """
    wire = SimpleNamespace(sent={}, lost=set(), trimmed=0, layers=lambda number: (3, 3), fails=())

    class Sender:
        def __init__(self, config, params, master):
            assert params == "hide side"
            wire.master = master

        def hide(self, number, cover, secret, description):
            assert number == len(wire.sent) and 0 < len(cover) == len(secret) <= SEGMENT
            assert cover.dtype == secret.dtype == np.uint8
            assert secret.shape[1:] == (description.height, description.width, 3)
            if number in wire.fails:
                raise UserError("too small")
            wire.sent[number] = secret.copy(), description
            return cover ^ 1

    class Receiver:
        def __init__(self, config, params, master, height, width):
            assert params == "reveal side"
            self._wire = wire if master == wire.master else SimpleNamespace(sent={}, trimmed=0)
            self._at, wire.size = wire.trimmed, (height, width)

        def take(self, frame):
            assert frame.shape == (*wire.size, 3) and frame.dtype == np.uint8
            self._at += 1
            return [] if self._at % SEGMENT else self._part(self._at // SEGMENT - 1)

        def finish(self):
            return self._part(self._at // SEGMENT) if self._at % SEGMENT else []

        def _part(self, number):
            if number not in self._wire.sent or number in wire.lost:
                return []
            frames, description = wire.sent[number]
            return [segments.Part(number, description, frames, *wire.layers(number))]

    monkeypatch.setattr(segments, "SEGMENT", SEGMENT)
    monkeypatch.setattr(segments, "Sender", Sender)
    monkeypatch.setattr(segments, "Receiver", Receiver)
    return wire


def hide(cover, secret, stego, settings=DEFAULTS, key=KEY, progress=quiet, **video):
    config = config_of(**video)
    return robust_pipeline.hide(config, "hide side", key, cover, secret, stego, progress, settings)


def reveal(stego, output, key=KEY, progress=quiet):
    return robust_pipeline.reveal(config_of(), "reveal side", key, stego, output, progress)


def clips(path, count, length, rate=25, cover_rate=25, size=(20, 30)):
    """(secret's frames, cover, secret): two saved clips."""
    secret = noise(count, *size, seed=1)
    return (
        secret,
        save(path / "cover.mkv", smooth(length), Fraction(cover_rate)),
        save(path / "secret.mkv", secret, Fraction(rate)),
    )


# --- pairing --------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv", ".nut"])
def test_round_trip(wire, tmp_path, suffix):
    secret, cover, path = clips(tmp_path, 10, 10)
    stego, output, progress = tmp_path / f"stego{suffix}", tmp_path / "revealed.mkv", []
    report = hide(cover, path, stego, progress=progress.append)
    assert report[:4] == (10, 48, 32, 25) and report.processed == sum(progress) == 10
    assert report.notes == () and report.seconds > 0
    assert {description for _, description in wire.sent.values()} == {
        segments.Description(10, 30, 20, False, Fraction(25), Fraction(1))
    }
    assert wire.master == keys.derive_key(KEY, segments.MASTER_SALT)
    sent = np.concatenate([frames for frames, _ in wire.sent.values()])
    np.testing.assert_array_equal(sent, secret)
    written = read_stack(stego)
    assert written.shape == (10, 32, 48, 3)
    assert np.abs(written.astype(int) - smooth(10)).mean() < (1.1 if media.is_exact(stego) else 8)
    times = media.frame_times(stego) * media.probe(stego).time_base
    assert list(times) == [Fraction(i, 25) for i in range(10)]

    progress = []
    shown = reveal(stego, output, progress=progress.append)
    assert shown[:4] == (10, 30, 20, 25) and shown.processed == sum(progress) == 10
    assert shown.notes == ("3 of 3 layers",) and "3 of 3 layers" in shown.summary()
    np.testing.assert_array_equal(read_stack(output), secret)
    assert media.probe(output).rate == 25 and wire.size == (32, 48)
    assert names(tmp_path) == sorted(["cover.mkv", "revealed.mkv", "secret.mkv", stego.name])


def test_times_and_sound_of_the_cover_are_kept(wire, tmp_path):
    ticks = [37, 80, 120, 150, 200, 400]
    sounds = [Sound("pcm_s16le", hiss(0.4)), Sound("libopus", hiss(0.4))]
    cover = film(tmp_path / "c.mkv", smooth(6), times=ticks, time_base=MILLISECOND, sounds=sounds)
    secret = save(tmp_path / "s.mkv", noise(2), 25)
    hide(cover, secret, tmp_path / "stego.mp4")
    info = media.probe(tmp_path / "stego.mp4")
    assert [round(float(t * info.time_base), 4) for t in media.frame_times(tmp_path / "stego.mp4")] == [
        t / 1000 for t in ticks
    ]
    assert info.tracks == 2
    assert [data for data, _ in packets(tmp_path / "stego.mp4", track=1)] == [
        data for data, _ in packets(cover, track=1)
    ]


@pytest.mark.parametrize("length", [7, 8, 9, 15, 16, 21])
def test_in_the_tail_the_secret_comes_again(wire, tmp_path, length):
    """From the next segment on: in the one in which it ends it stands still."""
    secret, cover, path = clips(tmp_path, 7, length)
    report = hide(cover, path, tmp_path / "stego.mkv")
    sent = np.concatenate([frames for frames, _ in wire.sent.values()])
    again = np.concatenate([secret, secret[-1:]] * 3)
    np.testing.assert_array_equal(sent, again[:length])
    assert {description.frames for _, description in wire.sent.values()} == {7}
    assert (report.frames, report.processed) == (7, length)
    shown = reveal(tmp_path / "stego.mkv", tmp_path / "out.mkv")
    np.testing.assert_array_equal(read_stack(tmp_path / "out.mkv"), secret)
    assert (shown.frames, shown.processed) == (7, min(length, 8))  # the rest need not be read


def test_a_short_cover_is_refused_or_repeated(wire, tmp_path):
    secret, cover, path = clips(tmp_path, 10, 4)
    with pytest.raises(UserError, match="too short: .* at least 10 frames .*--loop_cover"):
        hide(cover, path, tmp_path / "stego.mp4")
    assert names(tmp_path) == ["cover.mkv", "secret.mkv"]
    hide(cover, path, tmp_path / "stego.mp4", Settings(loop_cover=True))
    assert len(read_stack(tmp_path / "stego.mp4")) == 10
    reveal(tmp_path / "stego.mp4", tmp_path / "out.mkv")
    np.testing.assert_array_equal(read_stack(tmp_path / "out.mkv"), secret)


@pytest.mark.parametrize(
    "rate, count, align, shown, left_out",
    [
        (12.5, 5, "time", [0, 0, 1, 1, 2, 2, 3, 3, 4, 4], False),
        (50, 20, "time", list(range(0, 20, 2)), True),
        (50, 10, "frames", list(range(10)), False),
        (Fraction(2499, 100), 10, "time", list(range(10)), False),
    ],
)
def test_other_frame_rates(wire, tmp_path, rate, count, align, shown, left_out):
    """Paired by time the revealed clip has the cover's rate, paired one by one its own."""
    secret, cover, path = clips(tmp_path, count, 10, rate)
    report = hide(cover, path, tmp_path / "stego.mp4", Settings(align))
    assert report.frames == 10
    assert len(report.notes) == left_out and all("10 frames of the secret" in x for x in report.notes)
    reveal(tmp_path / "stego.mp4", tmp_path / "out.mkv")
    np.testing.assert_array_equal(read_stack(tmp_path / "out.mkv"), secret[shown])
    own = count == 10
    assert media.probe(tmp_path / "out.mkv").rate == pytest.approx(rate if own else 25, rel=1e-3)


@pytest.mark.parametrize("size", [(20, 30), (31, 47), (5, 5), (48, 32), (32, 7), (48, 20)])
def test_sizes(wire, tmp_path, size):
    secret, cover, path = clips(tmp_path, 5, 5, size=size)
    hide(cover, path, tmp_path / "stego.mp4")
    turned = size[0] > 32
    description = wire.sent[0][1]
    assert (description.height, description.width) == (size[::-1] if turned else size)
    assert description.turned == turned
    shown = reveal(tmp_path / "stego.mp4", f"{tmp_path}/out/")
    assert shown[1:3] == size[::-1]
    np.testing.assert_array_equal(read_stack(tmp_path / "out"), secret)


def test_a_larger_secret_is_scaled_down(wire, tmp_path):
    _, cover, path = clips(tmp_path, 5, 5, size=(40, 96))
    hide(cover, path, tmp_path / "stego.mp4")
    reveal(tmp_path / "stego.mp4", tmp_path / "out.mkv")
    fitted = list(media.read_frames(path, width=48, height=20))
    np.testing.assert_array_equal(read_stack(tmp_path / "out.mkv"), fitted)


def test_pixel_shapes_are_kept(wire, tmp_path):
    for name, aspect in (("c", Fraction(4, 3)), ("s", Fraction(8, 9))):
        with media.Writer(tmp_path / f"{name}.mp4", 25, aspect=aspect, lossy=media.Lossy()) as writer:
            for frame in smooth(3):
                writer.write(frame)
    hide(tmp_path / "c.mp4", tmp_path / "s.mp4", tmp_path / "stego.mp4")
    assert media.probe(tmp_path / "stego.mp4").aspect == Fraction(4, 3)
    assert wire.sent[0][1].aspect == Fraction(8, 9)


def test_an_odd_cover_goes_into_lossless_formats_only(wire, tmp_path):
    cover, secret = save(tmp_path / "c.mkv", noise(3, 31, 48)), save(tmp_path / "s.mkv", noise(3))
    with pytest.raises(UserError, match=r"48x31; use \.mkv .* crop=48:30"):
        hide(cover, secret, tmp_path / "stego.mp4")
    assert not wire.sent and names(tmp_path) == ["c.mkv", "s.mkv"]
    hide(cover, secret, tmp_path / "stego.mkv")
    assert media.probe(tmp_path / "stego.mkv").height == 31


def test_an_error_of_the_sender_leaves_nothing(wire, tmp_path):
    _, cover, path = clips(tmp_path, 10, 10)
    wire.fails = (1,)
    with pytest.raises(UserError, match="too small"):
        hide(cover, path, tmp_path / "stego.mp4")
    assert len(wire.sent) == 1 and names(tmp_path) == ["cover.mkv", "secret.mkv"]


@pytest.mark.parametrize("changes", [{"crf": 52}, {"crf": -1}, {"jpeg_quality": 0}, {"jpeg_quality": 101}])
def test_settings_out_of_range(wire, tmp_path, changes):
    _, cover, path = clips(tmp_path, 2, 2)
    with pytest.raises(UserError, match="config.video.crf is 0 to 51 and config.video.jpeg_quality 1 to 100"):
        hide(cover, path, tmp_path / "stego.mp4", **changes)


def test_the_rate_factor_is_obeyed(wire, tmp_path):
    _, cover, path = clips(tmp_path, 4, 4)
    for crf in (10, 40):
        wire.sent.clear()
        hide(cover, path, tmp_path / f"{crf}.mp4", crf=crf)
    assert (tmp_path / "10.mp4").stat().st_size > 300 + (tmp_path / "40.mp4").stat().st_size


# --- what is missing ------------------------------------------------------------------------------


def sent(path, wire, count=14, length=None):
    secret, cover, clip = clips(path, count, length or count)
    hide(cover, clip, path / "stego.mkv")
    return secret, path / "stego.mkv", path / "out.mkv"


@pytest.mark.parametrize(
    "lost, words",
    [
        ({1}, "in frames 5-8: .*has all 14 frames, but stands still there"),
        ({0}, "in frames 1-4: "),
        ({0, 1}, "in frames 1-8: "),
        ({3}, "in frames 13-14: "),
        ({0, 2, 3}, "in frames 1-4, 9-14: "),
    ],
)
def test_missing_segments_stand_still(wire, tmp_path, lost, words):
    secret, stego, output = sent(tmp_path, wire)
    wire.lost = lost
    with pytest.raises(PartialError, match=words) as caught:
        reveal(stego, output)
    assert "\n" not in str(caught.value) and str(stego) in str(caught.value)
    wanted, last = [], np.full_like(secret[0], 128)
    for i, frame in enumerate(secret):
        last = last if i // SEGMENT in lost else frame
        wanted.append(last)
    np.testing.assert_array_equal(read_stack(output), wanted)


def test_one_missing_frame(wire, tmp_path):
    _, stego, output = sent(tmp_path, wire, 5)
    wire.lost = {1}
    with pytest.raises(PartialError, match="in frame 5: .*all 5 frames"):
        reveal(stego, output)


@pytest.mark.parametrize("key", [KEY, bytes(32), "another passphrase"])
def test_nothing_found(wire, tmp_path, key):
    """All lost, or another key: one and the same line, that of the lossless way."""
    _, stego, output = sent(tmp_path, wire)
    if key == KEY:
        wire.lost = set(range(4))
    before = names(tmp_path)
    with pytest.raises(UserError) as caught:
        reveal(stego, output, key)
    assert str(caught.value) == metadata.NOTHING
    assert names(tmp_path) == before


def test_the_tail_stands_in(wire, tmp_path):
    """The secret of 14 frames fills 4 segments and comes again in the next 4."""
    secret, stego, output = sent(tmp_path, wire, length=32)
    wire.lost = {3, 4}
    reveal(stego, output)
    np.testing.assert_array_equal(read_stack(output), secret)
    wire.lost = {2, 3, 4}
    reveal(stego, output)
    np.testing.assert_array_equal(read_stack(output), secret)


def test_a_stego_without_its_beginning(wire, tmp_path):
    secret, stego, output = sent(tmp_path, wire, length=32)
    trimmed = save(tmp_path / "trimmed.mkv", list(media.read_frames(stego, 16)))
    wire.trimmed = 16
    reveal(trimmed, output)
    np.testing.assert_array_equal(read_stack(output), secret)


def test_a_stego_that_ends_too_early(wire, tmp_path):
    secret, stego, output = sent(tmp_path, wire)
    short = save(tmp_path / "short.mkv", list(media.read_frames(stego, 0, 8)))
    with pytest.raises(PartialError, match="cut short: .* has the first 8 of 14 frames; get a complete"):
        reveal(short, output)
    np.testing.assert_array_equal(read_stack(output), secret[:8])
    wire.lost = {0}
    with pytest.raises(PartialError, match="first 8 of 14 frames, and stands still in 1-4; get a complete"):
        reveal(short, output)


def test_a_damaged_stego_is_read_as_far_as_it_goes(wire, tmp_path):
    """Damage matters only where a segment suffers from it."""
    secret, stego, output = sent(tmp_path, wire)
    data, coded = stego.read_bytes(), packets(stego, "video")[6][0]
    middle = data.index(coded) + len(coded) // 2
    stego.write_bytes(data[:middle] + bytes([data[middle] ^ 4]) + data[middle + 1 :])
    reveal(stego, output)
    np.testing.assert_array_equal(read_stack(output), secret)
    stego.write_bytes(data[: data.index(packets(stego, "video")[9][0])])
    with pytest.raises(PartialError, match="cut short"):
        reveal(stego, output)
    np.testing.assert_array_equal(read_stack(output)[:8], secret[:8])


def test_parts_of_another_secret_are_left_out(wire, tmp_path):
    _, stego, output = sent(tmp_path, wire)
    frames, description = wire.sent[2]
    wire.sent[2] = frames, description._replace(frames=99)
    with pytest.raises(PartialError, match="in frames 9-12: "):
        reveal(stego, output)


def test_an_unreadable_stego_and_bad_outputs(wire, tmp_path):
    _, stego, _ = sent(tmp_path, wire, 5)
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(UserError, match=r"text\.mp4"):
        reveal(tmp_path / "text.mp4", tmp_path / "out.mkv")
    for name, words in (("out.mp4", "loss"), ("stego.mkv", "also an input"), ("out.png", "still images")):
        with pytest.raises(UserError, match=words):
            reveal(stego, tmp_path / name)


# --- notes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "layers, note",
    [
        (lambda number: (5, 6), "5 of 6 layers"),
        (lambda number: (6, 6) if number else (2, 5), "2 to 6 of 6 layers"),
    ],
)
def test_how_many_layers_could_be_read(wire, tmp_path, layers, note):
    _, stego, output = sent(tmp_path, wire)
    wire.layers = layers
    assert reveal(stego, output).notes == (note,)


def test_what_the_secret_loses_is_said(wire, tmp_path):
    cover = save(tmp_path / "c.mkv", smooth(6))
    loud = film(tmp_path / "s.mkv", noise(6), sounds=[Sound("flac", hiss())])
    report = hide(cover, loud, tmp_path / "a.mp4")
    assert report.notes == ("the secret's sound and subtitles are left out: this model hides pictures only",)
    ticks = [0, 10, 100, 110, 200, 240]
    varying = film(tmp_path / "v.mkv", noise(6), times=ticks, time_base=MILLISECOND)
    wire.sent.clear()
    report = hide(varying, loud, tmp_path / "b.mp4")
    assert any("the frame rate of the cover varies" in note for note in report.notes)


# --- images ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".jpg", ".JPEG", ".png"])
@pytest.mark.parametrize("size", [(20, 30), (47, 31)])
def test_images(wire, tmp_path, suffix, size):
    cover = smooth(1, 33, 49)
    media.write_frames(tmp_path / "c.png", cover)
    secret = noise(1, *size, seed=1)
    media.write_frames(tmp_path / "s.bmp", secret)
    stego = tmp_path / f"stego{suffix}"
    report = hide(tmp_path / "c.png", tmp_path / "s.bmp", stego)
    assert report[:3] == (1, 49, 33) and list(wire.sent) == [0] and len(wire.sent[0][0]) == 1
    assert np.abs(read_stack(stego).astype(int) - cover).mean() < 8
    if suffix != ".png":
        with Image.open(stego) as image:
            assert image.format == "JPEG"
    shown = reveal(stego, tmp_path / "out.png")
    assert shown[:3] == (1, *size[::-1])
    np.testing.assert_array_equal(read_stack(tmp_path / "out.png"), secret)
    assert media.probe(tmp_path / "out.png").is_image


def test_quality_of_jpegs(wire, tmp_path):
    media.write_frames(tmp_path / "c.png", smooth(1, 64, 64))
    sizes = []
    for quality in (30, 95):
        wire.sent.clear()
        hide(tmp_path / "c.png", tmp_path / "c.png", tmp_path / "stego.jpg", jpeg_quality=quality)
        sizes.append((tmp_path / "stego.jpg").stat().st_size)
    assert sizes[0] < sizes[1]


def test_an_image_in_a_video_and_a_video_in_an_image(wire, tmp_path):
    secret, cover, path = clips(tmp_path, 1, 6)
    media.write_frames(tmp_path / "s.png", secret)
    hide(cover, tmp_path / "s.png", tmp_path / "stego.mp4")
    reveal(tmp_path / "stego.mp4", tmp_path / "out.mkv")
    np.testing.assert_array_equal(read_stack(tmp_path / "out.mkv"), secret)
    with pytest.raises(UserError, match="is an image and the secret"):
        hide(tmp_path / "s.png", cover, tmp_path / "stego.png")


def test_a_frame_of_a_stego_video_is_no_stego_image(wire, tmp_path):
    _, stego, _ = sent(tmp_path, wire)
    media.write_frames(tmp_path / "frame.png", list(media.read_frames(stego, 5, 6)))
    wire.trimmed = 5
    before = names(tmp_path)
    with pytest.raises(UserError, match="no frames"):
        reveal(tmp_path / "frame.png", tmp_path / "out.png")
    assert names(tmp_path) == before


# --- modes ----------------------------------------------------------------------------------------


@pytest.fixture
def loaded(wire, monkeypatch):
    """No checkpoint is needed."""
    monkeypatch.setattr(common, "load_robust", lambda config, side: f"{side} side")
    monkeypatch.setenv(keys.PASSPHRASE_VARIABLE, "secret")
    return wire


def test_modes_hide_and_reveal(loaded, tmp_path, capsys):
    secret, cover, path = clips(tmp_path, 6, 6)
    files = {name: str(tmp_path / name) for name in ("stego.mp4", "out.mkv")}
    given = {"cover": str(cover), "secret": str(path), "output": files["stego.mp4"]}
    options = commands.Options(str(tmp_path), **given)
    other = config_of()
    other.model.name = "block_dct"
    with pytest.raises(UserError, match="loss"):
        commands.load("hide").run(other, options)
    commands.load("hide").run(config_of(), options)
    options = commands.Options(str(tmp_path), stego=files["stego.mp4"], output=files["out.mkv"])
    commands.load("reveal").run(config_of(), options)
    np.testing.assert_array_equal(read_stack(files["out.mkv"]), secret)
    assert "3 of 3 layers" in capsys.readouterr().out


@pytest.mark.parametrize("rate, count", [(25, 6), (12.5, 3), (50, 12)])
def test_mode_roundtrip(loaded, tmp_path, rate, count):
    _, cover, path = clips(tmp_path, count, 6, rate, size=(16, 24))
    config = config_of(cover=str(cover), secret=str(path))
    commands.load("roundtrip").run(config, commands.Options(str(tmp_path / "work")))
    assert names(tmp_path / "work") == [
        "comparison.png",
        "metrics.json",
        "report.html",
        "revealed.mkv",
        "stego.mp4",
    ]
    report = json.loads((tmp_path / "work" / "metrics.json").read_text())
    assert report["frames"] == 6 and report["secret_psnr_db"] == 100
    assert 20 < report["stego_psnr_db"] < 45


def test_mode_roundtrip_of_images(loaded, tmp_path):
    for name in ("c", "s"):
        media.write_frames(tmp_path / f"{name}.png", smooth(1))
    config = config_of(cover=str(tmp_path / "c.png"), secret=str(tmp_path / "s.png"))
    commands.load("roundtrip").run(config, commands.Options(str(tmp_path / "work")))
    assert names(tmp_path / "work") == [
        "comparison.png",
        "metrics.json",
        "report.html",
        "revealed.png",
        "stego.jpg",
    ]
