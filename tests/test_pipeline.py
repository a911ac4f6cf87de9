import shutil
import subprocess
import threading
from fractions import Fraction
from types import SimpleNamespace
from typing import NamedTuple

import av
import jax
import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image

from deepsteg_jax import keys, media, memory, metrics, models, pipeline, plan
from deepsteg_jax.errors import PartialError, UserError
from deepsteg_jax.pipeline import Settings
from deepsteg_jax.schemes import metadata
from deepsteg_jax.schemes.pixels import PixelScheme
from tests.helpers import FINGERPRINT, PlainCodec, PlainScheme, read_stack
from tests.synthetic import Sound, film, heard, hiss, noise, packets, save, smooth, tone

GROUP = 4  # frames
STEP = 4  # of the model
PLAIN_STEP = 16  # of its stand-in
KEY = bytes(range(1, 33))  # what a key file holds
PASSPHRASE = "correct horse battery staple"
MILLISECOND = Fraction(1, 1000)


def quiet(frames):
    pass


def saturated(count=6, height=32, width=48):
    """Grey with black and white areas."""
    frames = np.full((count, height, width, 3), 128, np.uint8)
    frames[:, : height // 2, : width // 2] = 0
    frames[:, height // 2 :, width // 3 :] = 255
    return frames


def coarse(frames):
    """What the stand-in's secret comes back as; such a secret comes back as it is."""
    return frames & 0xF0


def secret_noise(count=6, height=32, width=48, seed=1):
    return coarse(noise(count, height, width, seed))


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def psnr(a, b):
    assert len(a) == len(b)
    return metrics.mean_psnr(a, b)


@pytest.fixture(scope="module")
def side():
    """The scheme of an untrained block_dct."""
    shuffle = {"moves": "cover", "cipher": "blocks", "block_size": 8}
    model = {"name": "block_dct", "modulus": STEP, "frames": GROUP, "classes": 8, "features": 8, "depth": 1}
    config = ConfigDict({"model": model, "shuffle": shuffle})
    params = models.build(config.model).init(jax.random.key(0))
    return PixelScheme(config, params.__getitem__)


def plain(frames=GROUP, codec=None, fingerprint=FINGERPRINT):
    return PlainScheme(frames, PLAIN_STEP, codec, fingerprint)


class Files(NamedTuple):
    path: object
    cover: object
    secret: object
    stego: object
    output: object


def round_trip(path, cover, secret, settings=pipeline.DEFAULTS, suffix=".mkv", scheme=None, key=KEY):
    """Hides and reveals with the stand-in; returns (files, report of hide, report of reveal)."""
    scheme = scheme or plain()
    files = Files(path, cover, secret, path / f"stego{suffix}", path / f"revealed{suffix}")
    hidden = pipeline.hide(scheme, key, files.cover, files.secret, files.stego, quiet, settings)
    return files, hidden, pipeline.reveal([scheme], key, files.stego, files.output, quiet)


def load(path):
    return read_stack(path)


def seconds_of(path):
    """When frames are shown, exactly."""
    ticks = media.probe(path).time_base
    return [int(time) * ticks for time in media.frame_times(path)]


# --- through files, with a model ------------------------------------------------------------------


@pytest.mark.parametrize(
    "cover, secret, stego_db, secret_db",  # both about 1 dB below what was measured
    [
        (smooth(5), smooth(5, seed=1), 45, 41.5),
        (noise(10), smooth(5, seed=2), 45, 41.5),  # the cover goes on
        (saturated(5), smooth(5, seed=3), 41.5, 39),
        (smooth(1), smooth(1, seed=4), 42, 38),
        (saturated(3, 37, 45), smooth(3, 37, 45, seed=5), 41.5, 41),
        (smooth(8), smooth(4, 20, 30, seed=6), 45, 41),
        (smooth(8), saturated(4, 32, 7), 45, 50),
    ],
    ids=["same", "longer cover", "saturated cover", "one frame", "odd", "small secret", "narrow secret"],
)
def test_round_trip(side, tmp_path, cover, secret, stego_db, secret_db):
    cover_path = save(tmp_path / "cover.mkv", cover, Fraction(30000, 1001))
    secret_path = save(tmp_path / "secret.mkv", secret, 12)
    stego_path, revealed_path = tmp_path / "stego.mkv", tmp_path / "revealed.mkv"
    progress = []
    args = (side, KEY, cover_path, secret_path, stego_path, progress.append, Settings("frames"))
    report = pipeline.hide(*args)
    assert report[:4] == (len(cover), *cover.shape[2:0:-1], Fraction(30000, 1001))
    assert report.processed == sum(progress) == len(cover)
    assert report.fps == pytest.approx(len(cover) / report.seconds) and report.seconds > 0
    assert report.notes == ()

    stego = load(stego_path)
    assert stego.shape == cover.shape
    assert media.probe(stego_path).rate == Fraction(30000, 1001)
    assert seconds_of(stego_path) == seconds_of(cover_path)
    change = np.abs(stego.astype(int) - cover)
    assert change[2:].max(initial=0) < STEP and change[:2].max() < 8 * STEP
    assert psnr(stego, cover) > stego_db
    assert all(frame.mean() > 0.3 for frame in change)  # in the tail too

    progress = []
    shown = pipeline.reveal([side], KEY, stego_path, revealed_path, progress.append)
    assert shown[:4] == (len(secret), *secret.shape[2:0:-1], Fraction(12))
    assert shown.processed == sum(progress) == len(secret)
    revealed = load(revealed_path)
    assert revealed.shape == secret.shape
    assert media.probe(revealed_path).rate == 12
    assert psnr(revealed, secret) > secret_db
    assert names(tmp_path) == ["cover.mkv", "revealed.mkv", "secret.mkv", "stego.mkv"]


def test_larger_secret_is_scaled_down(side, tmp_path):
    cover = save(tmp_path / "cover.mkv", noise(4))
    secret = save(tmp_path / "secret.mkv", smooth(4, 40, 96, seed=7))
    files, _, _ = round_trip(tmp_path, cover, secret, scheme=side)
    revealed = load(files.output)
    assert revealed.shape == (4, 20, 48, 3)
    fitted = np.stack([media.resize(frame, 48, 20) for frame in load(secret)])
    assert psnr(revealed, fitted) > 40


def test_portrait_secret_lies_on_its_side(side, tmp_path):
    cover = save(tmp_path / "cover.mkv", noise(4))
    secret = smooth(4, 48, 32, seed=7)
    files, _, _ = round_trip(tmp_path, cover, save(tmp_path / "secret.mkv", secret), scheme=side)
    assert psnr(load(files.output), secret) > 40  # as large and as upright as it was


def test_images(side, tmp_path):
    cover = save(tmp_path / "cover.png", noise(1))
    secret = save(tmp_path / "secret.bmp", smooth(1, 30, 41, seed=8))
    files, _, _ = round_trip(tmp_path, cover, secret, suffix=".png", scheme=side)
    assert load(files.stego).shape == (1, 32, 48, 3)
    assert media.probe(files.output).is_image
    assert psnr(load(files.output), load(secret)) > 38


def test_secrets_of_other_rates_look_as_good(side, tmp_path):
    cover = save(tmp_path / "cover.mkv", smooth(12), 25)
    for rate, count in ((12.5, 6), (50, 24)):
        secret = smooth(count, seed=9)
        path = save(tmp_path / "secret.mkv", secret, Fraction(rate))
        files, _, _ = round_trip(tmp_path, cover, path, scheme=side)
        carried = np.arange(count) // (2 if rate == 50 else 1) * (2 if rate == 50 else 1)
        assert psnr(load(files.output), secret[carried]) > 37
        assert media.probe(files.output).rate == Fraction(rate)
        assert psnr(load(files.stego), load(cover)) > 44


def test_sound_costs_little(side, tmp_path):
    """Of the stego's quality; of the secret's picture nothing."""
    cover = save(tmp_path / "cover.mkv", smooth(12))
    secret = film(tmp_path / "secret.mkv", smooth(12, seed=1), sounds=[Sound("flac", hiss(0.48))])
    stego_db, secret_db = [], []
    for rate in (0, 8_000):
        files, _, _ = round_trip(tmp_path, cover, secret, Settings(sound_bit_rate=rate), scheme=side)
        assert media.probe(files.output).tracks == bool(rate)
        stego_db.append(psnr(load(files.stego), load(cover)))
        secret_db.append(psnr(load(files.output), load(secret)))
    assert stego_db[0] - 1.5 < stego_db[1] < stego_db[0]
    assert secret_db[1] == pytest.approx(secret_db[0], abs=0.1)


def test_damage_stays_in_its_group(side, tmp_path):
    cover, secret = save(tmp_path / "c.mkv", noise(12)), save(tmp_path / "s.mkv", smooth(12))
    files, _, _ = round_trip(tmp_path, cover, secret, scheme=side)
    whole = load(files.output)
    flip(files.stego, 5)
    with pytest.raises(PartialError, match="damaged in frame 6: .* has all 12 frames"):
        pipeline.reveal([side], KEY, files.stego, files.output, quiet)
    revealed = load(files.output)
    np.testing.assert_array_equal(np.delete(revealed, range(4, 8), 0), np.delete(whole, range(4, 8), 0))
    assert (revealed[4:8] != whole[4:8]).any()


@pytest.mark.slow
def test_wrong_key_shows_nothing_of_the_secret(side, tmp_path):
    """Somebody who knows the side information but not the key sees noise."""
    secret = smooth(4, seed=9)
    cover_path, secret_path = save(tmp_path / "c.mkv", noise(4)), save(tmp_path / "s.mkv", secret)
    pipeline.hide(side, KEY, cover_path, secret_path, tmp_path / "stego.mkv", quiet)
    words = keys.key_words(bytes(range(32)))
    revealed = np.asarray(side.codec().reveal(side.reveal_params, words, 0, load(tmp_path / "stego.mkv")))
    assert psnr(revealed, secret) < 15


def test_every_hide_uses_its_own_key(side, tmp_path):
    cover, secret = save(tmp_path / "c.mkv", noise(4)), save(tmp_path / "s.mkv", smooth(4, seed=10))
    for name in ("a.mkv", "b.mkv"):
        pipeline.hide(side, KEY, cover, secret, tmp_path / name, quiet)
    a, b = load(tmp_path / "a.mkv"), load(tmp_path / "b.mkv")
    assert all((x != y).mean() > 0.3 for x, y in zip(a, b, strict=True))


def test_same_input_same_salts_same_stego(side, tmp_path, monkeypatch):
    cover, secret = save(tmp_path / "c.mkv", noise(5)), save(tmp_path / "s.mkv", smooth(5, seed=10))
    monkeypatch.setattr(keys, "random_key", lambda: bytes(range(32)))
    for name in ("a.mkv", "b.mkv"):
        pipeline.hide(side, KEY, cover, secret, tmp_path / name, quiet)
    np.testing.assert_array_equal(load(tmp_path / "a.mkv"), load(tmp_path / "b.mkv"))


def test_recoded_stego(side, tmp_path):
    cover, secret = save(tmp_path / "c.mkv", noise(4)), save(tmp_path / "s.mkv", smooth(4))
    pipeline.hide(side, KEY, cover, secret, tmp_path / "stego.mkv", quiet)
    recoded = film(
        tmp_path / "recoded.mkv", load(tmp_path / "stego.mkv"), codec="mpeg4", pixel_format="yuv420p"
    )
    before = names(tmp_path)
    with pytest.raises(UserError, match="recoded"):
        pipeline.reveal([side], KEY, recoded, tmp_path / "revealed.mkv", quiet)
    assert names(tmp_path) == before


# --- through files, with a stand-in for the model -------------------------------------------------


@pytest.mark.parametrize("group, count", [(1, 7), (2, 7), (3, 7), (4, 7), (4, 3), (4, 8), (6, 13)])
def test_frames_are_numbered_and_compilation_comes_first(tmp_path, group, count):
    one, secret = plain(group), secret_noise(count)
    cover, path = save(tmp_path / "c.mkv", noise(2 * count + 2)), save(tmp_path / "s.mkv", secret)
    files, _, _ = round_trip(tmp_path, cover, path, scheme=one)
    for what, wanted in ("hide", 2 * count + 2), ("reveal", count):
        calls = [call for call in one.plain.calls if call.what == what]
        compiled = {call.frames for call in calls if call.blank_key}
        work = [call for call in calls if not call.blank_key]
        assert compiled == {call.frames for call in work}
        # Two calls run at once, so that they may be recorded in another order than they were made.
        numbers = sorted(i for call in work for i in range(call.first_frame, call.first_frame + call.frames))
        assert numbers == list(range(wanted))
    np.testing.assert_array_equal(load(files.output), secret)


@pytest.mark.parametrize("length", [7, 8, 14, 15])
def test_the_tail_of_the_cover_hides_the_secret_again(tmp_path, length):
    secret = secret_noise(7)
    files, _, _ = round_trip(
        tmp_path, save(tmp_path / "c.mkv", noise(length)), save(tmp_path / "s.mkv", secret)
    )
    stego = load(files.stego)
    np.testing.assert_array_equal(stego << 4, np.concatenate([secret, secret, secret])[:length])
    np.testing.assert_array_equal(coarse(stego[2:]), coarse(noise(length))[2:])
    np.testing.assert_array_equal(load(files.output), secret)


def test_only_the_first_two_frames_carry_headers(tmp_path):
    cover, secret = noise(6), save(tmp_path / "s.mkv", secret_noise(5))
    files, _, _ = round_trip(tmp_path, save(tmp_path / "c.mkv", cover), secret)
    moved = coarse(load(files.stego)) != coarse(cover)
    assert not moved[2:].any()
    assert all(50 < np.count_nonzero(frame) < 500 for frame in moved[:2])


def test_the_headers_describe_the_secret(tmp_path):
    cover, secret = save(tmp_path / "c.mkv", noise(9)), save(tmp_path / "s.mkv", noise(6, 48, 32))
    files, _, _ = round_trip(tmp_path, cover, secret)
    for heads in (load(files.stego)[:2], load(files.stego)[1:2]):
        header = next(metadata.open_headers(list(heads), keys.Deriver(KEY)))
        assert header.secret == (48, 32, 6, 6, Fraction(25), False, True, 1, 0)
        assert (header.packet_bytes, header.sound_bytes, header.modulus) == (0, 0, PLAIN_STEP)
        assert (header.group, header.moves, header.cipher, header.block_size) == (4, "cover", "blocks", 8)
        assert header.fingerprint == FINGERPRINT


@pytest.mark.parametrize("size", [(16, 16), (31, 47), (16, 48)])
@pytest.mark.parametrize("count", [1, 2, 5])
def test_small_and_short_clips(tmp_path, size, count):
    secret = secret_noise(count, *size)
    cover = save(tmp_path / "c.mkv", noise(count, *size))
    files, _, _ = round_trip(tmp_path, cover, save(tmp_path / "s.mkv", secret))
    np.testing.assert_array_equal(load(files.output), secret)
    assert load(files.stego).shape == secret.shape


def test_a_passphrase_and_keys_leave_no_trace(tmp_path):
    cover, secret = save(tmp_path / "c.mkv", noise(3)), save(tmp_path / "s.mkv", secret_noise(3))
    for key, other in ((PASSPHRASE, KEY), (KEY, PASSPHRASE)):
        files, hidden, shown = round_trip(tmp_path, cover, secret, key=key)
        np.testing.assert_array_equal(load(files.output), secret_noise(3))
        raw = key.encode() if isinstance(key, str) else key
        for data in (files.stego.read_bytes(), load(files.stego).tobytes(), files.output.read_bytes()):
            assert raw not in data and b"deepsteg" not in data
        assert str(key) not in f"{hidden.summary()}{shown.summary()}"
        with pytest.raises(UserError, match="no hidden video") as caught:
            pipeline.reveal([plain()], other, files.stego, files.output, quiet)
        assert PASSPHRASE not in str(caught.value) and KEY.hex() not in str(caught.value)


def test_a_stego_looks_like_its_frames_coded_with_plain_ffv1(tmp_path):
    tags = {"title": "A film"}
    cover = film(tmp_path / "c.mkv", noise(6), tags=tags)
    secret = film(tmp_path / "s.mkv", secret_noise(6), sounds=[Sound("flac", hiss())])
    files, _, _ = round_trip(tmp_path, cover, secret)

    def prepare(stream):
        stream.codec_context.gop_size, stream.codec_context.color_range = 1, 2

    options = {"level": "3", "slices": "16", "slicecrc": "1"}
    other = film(tmp_path / "other.mkv", load(files.stego), options=options, prepare=prepare, tags=tags)
    assert packets(files.stego, "video") == packets(other, "video")
    looks = []
    for path in (files.stego, other):
        with av.open(str(path)) as container:
            (stream,) = container.streams
            own = {name for name in stream.metadata if name != "ENCODER"}
            looks.append((stream.codec_context.extradata, container.metadata, own, stream.time_base))
    assert looks[0] == looks[1]


# --- what clips can be ----------------------------------------------------------------------------

LOSSY = {"codec": "mpeg4", "pixel_format": "yuv420p"}


def turned(stream):
    stream.set_display_rotation(90)


def mirrored(stream):
    stream.set_display_matrix([-(2**16), 0, 0, 0, 2**16, 0, 0, 0, 2**30])


def pq(stream):
    stream.codec_context.color_primaries, stream.codec_context.color_trc = 9, 16


def wide(stream):
    stream.codec_context.sample_aspect_ratio = Fraction(4, 3)


@pytest.mark.parametrize(
    "name, size, given",
    [
        ("a.mp4", (32, 48), {**LOSSY, "prepare": turned}),
        ("a.mp4", (32, 48), {**LOSSY, "prepare": mirrored}),
        ("a.mkv", (32, 48), {"codec": "libx264", "pixel_format": "yuv420p10le", "prepare": pq}),
        ("a.mp4", (32, 48), {**LOSSY, "prepare": wide}),
        ("a.mkv", (32, 48), {"codec": "libx264", "pixel_format": "yuv420p10le"}),
        ("a.mkv", (31, 47), {"codec": "libx264", "pixel_format": "yuv444p"}),
        ("a.mkv", (32, 48), {"codec": "libx264", "pixel_format": "yuv422p"}),
        ("a.mkv", (32, 48), {"pixel_format": "gray"}),
        ("a.mkv", (32, 48), {"pixel_format": "bgra"}),
        ("a.avi", (32, 48), {"codec": "mjpeg", "pixel_format": "yuvj420p"}),
        ("a.ts", (32, 48), {"codec": "mpeg2video", "pixel_format": "yuv420p"}),
    ],
    ids=[
        "turned",
        "mirrored",
        "HDR",
        "wide",
        "10 bits",
        "4:4:4",
        "4:2:2",
        "grey",
        "alpha",
        "full range",
        "transport stream",
    ],
)
def test_any_clip_can_be_cover_and_secret(tmp_path, name, size, given):
    """A cover's own pixels are kept, a secret's come back, both as `io` reads them."""
    clip = film(tmp_path / name, smooth(5, *size), **given)
    picture = load(clip)
    upright = media.probe(clip).height, media.probe(clip).width
    assert picture.shape == (5, *upright, 3)
    other = save(tmp_path / "other.mkv", secret_noise(5, *upright))
    (tmp_path / "a").mkdir()
    files, _, _ = round_trip(tmp_path / "a", clip, other)
    np.testing.assert_array_equal(coarse(load(files.stego))[2:], coarse(picture)[2:])
    np.testing.assert_array_equal(load(files.output), secret_noise(5, *upright))
    assert np.diff(seconds_of(files.stego)).tolist() == np.diff(seconds_of(clip)).tolist()
    (tmp_path / "b").mkdir()
    files, hidden, _ = round_trip(tmp_path / "b", other, clip)
    np.testing.assert_array_equal(load(files.output), coarse(picture))
    assert ("the secret is HDR and is mapped to SDR" in hidden.summary()) == (given.get("prepare") is pq)


@pytest.mark.parametrize(
    "name, count", [("a.avif", 1), ("a.heic", 1), ("a.gif", 1), ("a.webp", 3), ("a.png", 3)]
)
def test_stills_and_animations_can_be_cover_and_secret(tmp_path, name, count):
    pictures = [Image.fromarray(frame) for frame in smooth(count)]
    several = {"save_all": True, "append_images": pictures[1:], "duration": 40} if count > 1 else {}
    pictures[0].save(tmp_path / name, **several)
    clip, suffix = tmp_path / name, ".png" if count == 1 else ".mkv"
    other = save(tmp_path / f"other{suffix}", secret_noise(count))
    (tmp_path / "a").mkdir()
    files, _, _ = round_trip(tmp_path / "a", clip, other, suffix=suffix)
    stego = load(files.stego)
    assert stego.shape == (count, 32, 48, 3) and media.probe(files.stego).is_image == (count == 1)
    np.testing.assert_array_equal(coarse(stego)[2:], coarse(load(clip))[2:])
    (tmp_path / "b").mkdir()
    files, _, _ = round_trip(tmp_path / "b", other, clip, suffix=suffix)
    np.testing.assert_array_equal(load(files.output), coarse(load(clip)))


@pytest.mark.skipif(shutil.which("ffprobe") is None, reason="without ffprobe nothing else shows it")
@pytest.mark.parametrize("size", [(32, 48), (48, 32)])
def test_the_shape_of_pixels_is_kept(tmp_path, size):
    """Also of a secret that is turned to fit."""
    clip = film(tmp_path / "a.mp4", smooth(3, *size), prepare=wide, **LOSSY)
    other = save(tmp_path / "other.mkv", secret_noise(3))
    (tmp_path / "a").mkdir()
    files, _, _ = round_trip(tmp_path / "a", clip, other)
    assert shapes_of(files.stego) == {"4:3"} and shapes_of(files.output) <= {"1:1", "N/A"}
    (tmp_path / "b").mkdir()
    files, _, _ = round_trip(tmp_path / "b", other, clip)
    assert shapes_of(files.output) == {"4:3"} and shapes_of(files.stego) <= {"1:1", "N/A"}


def shapes_of(path):
    """The shape of the pixels that each frame names."""
    command = ["ffprobe", "-v", "error", "-of", "csv=p=0", "-show_entries", "frame=sample_aspect_ratio", path]
    return set(subprocess.run(command, capture_output=True, check=True, text=True).stdout.split())


def test_portrait_secret_in_landscape_cover(tmp_path):
    secret = secret_noise(5, 48, 32)
    cover = save(tmp_path / "c.mkv", noise(5))
    files, _, shown = round_trip(tmp_path, cover, save(tmp_path / "s.mkv", secret))
    np.testing.assert_array_equal(load(files.output), secret)
    assert shown[:3] == (5, 32, 48)


def test_folders_and_patterns(tmp_path):
    secret = secret_noise(5)
    save(f"{tmp_path}/covers/", noise(6))
    save(f"{tmp_path}/secrets/x%03d.png", secret)
    pipeline.hide(
        plain(), KEY, f"{tmp_path}/covers", f"{tmp_path}/secrets/x%03d.png", f"{tmp_path}/stego/", quiet
    )
    assert names(tmp_path / "stego") == [f"frame_0000{i}.png" for i in range(6)]
    pipeline.reveal([plain()], KEY, f"{tmp_path}/stego/", f"{tmp_path}/out/r%02d.bmp", quiet)
    assert names(tmp_path / "out") == [f"r0{i}.bmp" for i in range(5)]
    np.testing.assert_array_equal(load(tmp_path / "out"), secret)
    for output in ("stego", "stego/", "out/r%d.png"):
        with pytest.raises(UserError, match="has files in it"):
            pipeline.hide(
                plain(), KEY, tmp_path / "covers", tmp_path / "secrets", f"{tmp_path}/{output}", quiet
            )
    assert names(tmp_path) == ["covers", "out", "secrets", "stego"]


def test_a_folder_of_images_and_sound(tmp_path):
    cover = tone(tmp_path / "c.mkv", "pcm_s16le", 10, 0.4)
    secret = tone(tmp_path / "s.mkv", "flac", 10, 0.4)
    stego, output = f"{tmp_path}/stego/", f"{tmp_path}/out/"
    report = pipeline.hide(plain(), KEY, cover, secret, stego, quiet)
    assert "left out of the cover: track 1: sound (" in report.summary()
    pipeline.reveal([plain()], KEY, stego, output, quiet)
    assert (tmp_path / "out" / "sound.opus").read_bytes()[:4] == b"OggS"
    np.testing.assert_array_equal(load(output), coarse(load(secret)))


# --- times ----------------------------------------------------------------------------------------

UNEVEN = [7, 40, 95, 200, 201, 230, 333, 334, 340, 420, 460, 500]


@pytest.mark.parametrize(
    "name, time_base", [("c.mkv", MILLISECOND), ("c.nut", Fraction(1, 90000)), ("c.nut", Fraction(1, 12800))]
)
def test_the_times_of_the_cover_are_kept(tmp_path, name, time_base):
    cover = film(tmp_path / name, noise(12), times=UNEVEN, time_base=time_base)
    assert seconds_of(cover) == [time * time_base for time in UNEVEN]
    secret = save(tmp_path / "s.mkv", secret_noise(4))
    files, _, _ = round_trip(tmp_path, cover, secret, Settings("frames"), suffix=name[1:])
    assert seconds_of(files.stego) == seconds_of(cover)
    np.testing.assert_array_equal(load(files.output), secret_noise(4))
    assert seconds_of(files.output) == [i * Fraction(1, 25) for i in range(4)]


@pytest.mark.parametrize(
    "rate", [Fraction(24000, 1001), Fraction(25, 2), Fraction(8), Fraction(50), Fraction(60)]
)
@pytest.mark.parametrize("align", ["time", "frames"])
def test_secrets_of_other_rates(tmp_path, rate, align):
    count = int(0.8 * rate) if align == "time" else 18
    secret = secret_noise(count)
    cover = save(tmp_path / "c.mkv", noise(20), 25)
    path = save(tmp_path / "s.mkv", secret, rate)
    files, hidden, shown = round_trip(tmp_path, cover, path, Settings(align))
    assert shown.frames == count and shown.rate == media.probe(files.output).rate == rate
    assert seconds_of(files.output) == seconds_of(path)
    revealed = load(files.output)
    if align == "frames" or rate < 25:
        assert hidden.notes == ()
        np.testing.assert_array_equal(revealed, secret)
        return
    exact = [np.array_equal(*pair) for pair in zip(revealed, secret, strict=True)]
    lost = exact.count(False)
    assert 0.9 * (count - 20) <= lost <= count - 20 + 1 and exact[0]
    assert f"{lost} frames of the secret, which are left out (--config.video.align=frames" in hidden.summary()
    for i in np.flatnonzero(np.logical_not(exact)):
        np.testing.assert_array_equal(revealed[i], revealed[i - 1])


@pytest.mark.parametrize(
    "name, time_base", [("s.mkv", MILLISECOND), ("s.nut", Fraction(1, 90000)), ("s.nut", Fraction(1, 12800))]
)
def test_a_secret_of_no_constant_rate_keeps_its_times(tmp_path, name, time_base):
    ticks = [round(ms * MILLISECOND / time_base) for ms in (30, 70, 200, 241, 520, 700)]
    secret = film(tmp_path / name, secret_noise(6), times=ticks, time_base=time_base)
    cover = save(tmp_path / "c.mkv", noise(24))
    files, _, shown = round_trip(tmp_path, cover, secret, suffix=name[1:])
    np.testing.assert_array_equal(load(files.output), secret_noise(6))
    assert seconds_of(files.output) == [(tick - ticks[0]) * time_base for tick in ticks]
    assert shown.frames == 6


@pytest.mark.parametrize("suffix", [".mkv", ".mp4"])
def test_a_last_frame_that_is_held_is_held_afterwards(tmp_path, suffix):
    """Of a GIF as a secret, and as a cover."""
    durations = [100, 100, 500, 100, 300]
    first, *others = map(Image.fromarray, noise(5))
    gif = tmp_path / "a.gif"
    first.save(gif, save_all=True, append_images=others, duration=durations)

    def lasts(path):
        ticks, last = media.timing(path)
        return (ticks - ticks[0] + last)[-1] * media.probe(path).time_base

    files, *_ = round_trip(tmp_path, save(tmp_path / "c.mkv", noise(30)), gif)
    revealed = tmp_path / f"again{suffix}"
    pipeline.reveal([plain()], KEY, files.stego, revealed, quiet)
    assert lasts(gif) == lasts(revealed) == Fraction(11, 10) and len(load(revealed)) == 5
    files, *_ = round_trip(tmp_path, gif, save(tmp_path / "s.mkv", secret_noise(3)))
    assert lasts(files.stego) == Fraction(11, 10)


def test_frames_that_come_too_fast_are_left_out(tmp_path):
    times = [0, 1, 2, 3, 100, 101, 240, 400]
    secret = film(tmp_path / "s.mkv", secret_noise(8), times=times, time_base=MILLISECOND)
    cover = save(tmp_path / "c.mkv", noise(12))
    files, hidden, shown = round_trip(tmp_path, cover, secret)
    kept = [list(map(bytes, secret_noise(8))).index(bytes(frame)) for frame in load(files.output)]
    assert kept == sorted(set(kept)) and kept[-1] == 7 and 4 <= len(kept) < 8
    assert [1000 * s for s in seconds_of(files.output)] == [times[i] for i in kept]
    assert f"{8 - len(kept)} frames of the secret, which are left out" in hidden.summary()
    assert shown.frames == len(kept)


@pytest.mark.parametrize("align", ["time", "frames"])
def test_cover_shorter_than_the_secret_in_time(tmp_path, align):
    cover, secret = save(tmp_path / "c.mkv", noise(10), 50), save(tmp_path / "s.mkv", noise(10), 25)
    if align == "frames":
        round_trip(tmp_path, cover, secret, Settings(align))
        return
    with pytest.raises(UserError, match="lasts 0.20 s and the secret 0.40 s.*--loop_cover"):
        round_trip(tmp_path, cover, secret, Settings(align))
    assert names(tmp_path) == ["c.mkv", "s.mkv"]


def test_the_last_pass_of_a_cover_ends_with_its_frames(monkeypatch):
    """Of four, the last of which is held for 5 s, two are shown once more."""
    told = {}
    monkeypatch.setattr(media, "Writer", lambda *given, **options: told.update(options))
    clock = plan.Clock(np.array([0, 0.1, 0.2, 0.3]), Fraction(10), False, Fraction(5))
    info, schedule = media.Info(16, 16, 4, Fraction(10), False), SimpleNamespace(numbers=range(6), passes=2)
    job = SimpleNamespace(cover=info, cover_path="c.mkv", cover_clock=clock, schedule=schedule)
    pipeline._stego_writer(plain(), job, "o.mkv", False)
    assert told["loop"] == (2, Fraction(53, 10), Fraction(2, 10), 0)


@pytest.mark.parametrize("rate, count", [(25, 10), (25, 8), (Fraction(25, 2), 5), (50, 20)])
def test_a_cover_is_played_again(tmp_path, rate, count):
    pictures = noise(4)
    cover = film(tmp_path / "c.mkv", pictures, sounds=[Sound("pcm_s16le", hiss(0.16))])
    secret = save(tmp_path / "s.mkv", secret_noise(count), rate)
    needed = round(count * 25 / Fraction(rate))
    with pytest.raises(UserError, match="too short"):
        round_trip(tmp_path, cover, secret)
    files, _, _ = round_trip(tmp_path, cover, secret, Settings(loop_cover=True))
    stego = load(files.stego)
    assert len(stego) == needed
    kept = coarse(stego) == coarse(pictures[np.arange(needed) % 4])
    assert kept.mean((1, 2, 3)).min() > 0.9
    assert seconds_of(files.stego) == [Fraction(i, 25) for i in range(needed)]
    once, found = packets(cover), packets(files.stego)
    wanted = [(data, time + i * Fraction(4, 25)) for i in range(3) for data, time in once]
    assert found == [packet for packet in wanted if packet[1] < Fraction(needed, 25)]
    revealed = load(files.output)
    assert len(revealed) == count
    np.testing.assert_array_equal(
        revealed[:: 2 if rate == 50 else 1], secret_noise(count)[:: 2 if rate == 50 else 1]
    )


def test_a_cover_of_no_constant_rate_is_played_again(tmp_path):
    cover = film(tmp_path / "c.mkv", noise(4), times=[0, 10, 90, 120], time_base=MILLISECOND)
    secret = save(tmp_path / "s.mkv", secret_noise(10))
    files, _, _ = round_trip(tmp_path, cover, secret, Settings("frames", True))
    times = [int(1000 * time) for time in seconds_of(files.stego)]
    assert np.diff(times).tolist()[:3] == np.diff(times).tolist()[4:7] == [10, 80, 30]
    assert min(np.diff(times)) > 0 and len(times) == 10
    np.testing.assert_array_equal(load(files.output), secret_noise(10))


def test_settings_that_cannot_be(tmp_path):
    cover = save(tmp_path / "c.mkv", noise(12))
    secret = tone(tmp_path / "s.mkv", "flac", 12, 0.48)
    for settings, words in (
        (Settings("nonsense"), "align must be time or frames, not 'nonsense'"),
        (Settings(sound_bit_rate=5_999), "sound_bit_rate must be 6000 to 512000"),
        (Settings(sound_bit_rate=512_001), "sound_bit_rate must be 6000 to 512000"),
        (Settings(sound_bit_rate=-1), "sound_bit_rate must be 6000 to 512000"),
    ):
        with pytest.raises(UserError, match=words):
            round_trip(tmp_path, cover, secret, settings)
    assert names(tmp_path) == ["c.mkv", "s.mkv"]


# --- sound ----------------------------------------------------------------------------------------


def coded_sound(path, bit_rate):
    """The Opus packets that hide makes of a clip's sound."""
    with media.encode_sound(path, bit_rate).file as file, av.open(file, format="ogg") as container:
        return [bytes(packet) for packet in container.demux(audio=0) if packet.size]


@pytest.mark.parametrize("codec", ["pcm_s16le", "flac", "aac", "libopus"])
def test_the_sound_of_the_secret_comes_back_bit_for_bit(tmp_path, codec):
    cover = film(tmp_path / "c.mkv", noise(24, 64, 96), sounds=[Sound("pcm_s16le", hiss(0.96))])
    secret = film(tmp_path / "s.mkv", secret_noise(20), sounds=[Sound(codec, hiss(0.8))])
    files, _, _ = round_trip(tmp_path, cover, secret, Settings(sound_bit_rate=8_000))
    found = [data for data, _ in packets(files.output)]
    assert found == coded_sound(secret, 8_000) and len(found) > 30
    if codec == "libopus":
        assert found == [data for data, _ in packets(secret)]
    assert packets(files.stego) == packets(cover)
    np.testing.assert_array_equal(load(files.output), secret_noise(20))
    assert seconds_of(files.output) == seconds_of(secret)


def test_the_sound_of_a_timed_secret(tmp_path):
    secret = film(
        tmp_path / "s.mkv",
        secret_noise(12),
        times=UNEVEN,
        time_base=MILLISECOND,
        sounds=[Sound("flac", hiss(0.5))],
    )
    cover = save(tmp_path / "c.mkv", noise(60), 100)
    files, _, _ = round_trip(tmp_path, cover, secret, Settings(sound_bit_rate=8_000))
    assert [data for data, _ in packets(files.output)] == coded_sound(secret, 8_000)
    assert len(load(files.output)) >= 10


@pytest.mark.parametrize("codec", ["pcm_s16le", "aac", "libopus"])
@pytest.mark.parametrize("start", [-4800, 0, 4800])
@pytest.mark.parametrize("suffix", [".mkv", ".nut"])
def test_sound_comes_back_in_step(tmp_path, codec, start, suffix):
    samples = np.zeros(72000)
    samples[9600:10560] = 0.8 * np.sin(0.2 * np.arange(960))
    secret = film(tmp_path / "s.mkv", secret_noise(40), sounds=[Sound(codec, samples, start)])
    # 64 kbit/s of Opus, which is copied, take larger frames.
    cover = save(tmp_path / "c.mkv", noise(40, 64, 96))
    files, _, _ = round_trip(tmp_path, cover, secret, Settings(sound_bit_rate=24_000), suffix=suffix)
    onset = np.flatnonzero(np.abs(heard(files.output)) > 0.2)[0] / 48000
    assert onset == pytest.approx(0.2 + start / 48000, abs=3e-3)


def test_sound_can_be_left_out(tmp_path):
    cover, secret = tone(tmp_path / "c.mkv", "libopus"), tone(tmp_path / "s.mkv", "flac")
    files, _, _ = round_trip(tmp_path, cover, secret, Settings(sound_bit_rate=0))
    assert media.probe(files.output).tracks == 0
    assert packets(files.stego) == packets(cover)


def test_only_as_much_sound_as_there_is_room_for(tmp_path):
    secret = tone(tmp_path / "s.mkv", "flac", 12, 0.48)
    lengths = []
    for size in ((32, 48), (64, 96)):
        cover = save(tmp_path / "c.mkv", noise(12, *size))
        files, _, _ = round_trip(tmp_path, cover, secret, Settings(sound_bit_rate=512_000))
        lengths.append(sum(len(data) for data, _ in packets(files.output)))
    assert 2 * lengths[0] < lengths[1]


@pytest.mark.parametrize(
    "count, size, codec", [(2, (32, 48), "flac"), (12, (16, 16), "flac"), (12, (32, 48), "libopus")]
)
def test_sound_that_does_not_fit(tmp_path, count, size, codec):
    cover = save(tmp_path / "c.mkv", noise(count, *size))
    secret = tone(tmp_path / "s.mkv", codec, count, 0.48)
    before = names(tmp_path)
    with pytest.raises(UserError, match="too small for the secret's sound.*sound_bit_rate=0"):
        round_trip(tmp_path, cover, secret)
    assert names(tmp_path) == before
    files, _, _ = round_trip(tmp_path, cover, secret, Settings(sound_bit_rate=0))
    assert len(load(files.output)) == count


def test_tracks_of_the_cover_are_kept(tmp_path):
    srt = "1\n00:00:00,040 --> 00:00:00,120\nhello\n\n2\n00:00:00,160 --> 00:00:00,200\nbye\n\n"
    cover = film(
        tmp_path / "c.mkv",
        noise(8),
        sounds=[
            Sound("aac", hiss(0.32), tags={"language": "deu", "title": "Ton"}),
            Sound("libopus", hiss(0.32), 480),
        ],
        subtitles=srt,
        subtitle_tags={"language": "fra"},
        chapters=[(0, 100, "one"), (100, 320, "two")],
        tags={"title": "A film"},
    )
    files, _, _ = round_trip(tmp_path, cover, save(tmp_path / "s.mkv", secret_noise(5)))
    looks = []
    for path in (cover, files.stego):
        contents = [packets(path, *track) for track in (("audio", 0), ("audio", 1), ("subtitle", 0))]
        with av.open(str(path)) as container:
            tags = [s.metadata.get("language") for s in container.streams], container.metadata["title"]
            looks.append((contents, tags, container.chapters()))
    assert looks[0] == looks[1]
    assert media.probe(files.output).tracks == 0


@pytest.mark.parametrize("length", [2, 6])
@pytest.mark.parametrize("codec", ["pcm_s16le", "libopus"])
def test_the_sound_of_a_longer_cover_is_kept(tmp_path, codec, length):
    cover = tone(tmp_path / "c.mkv", codec)
    files, _, _ = round_trip(tmp_path, cover, save(tmp_path / "s.mkv", secret_noise(length)))
    assert packets(files.stego) == packets(cover) and len(packets(cover)) > 5
    assert seconds_of(files.stego) == seconds_of(cover)


# --- damage ---------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path):
    """A cover of 9 frames, a secret of 6 and the stego of the two."""
    cover, secret = save(tmp_path / "c.mkv", noise(9)), save(tmp_path / "s.mkv", secret_noise(6))
    pipeline.hide(plain(), KEY, cover, secret, tmp_path / "stego.mkv", quiet)
    return Files(tmp_path, cover, secret, tmp_path / "stego.mkv", tmp_path / "out.mkv")


@pytest.fixture(scope="module")
def sounding_whole(tmp_path_factory):
    """As `folder`, of 30 and 24 larger frames, with a secret whose sound fills several pages; revealed."""
    path = tmp_path_factory.mktemp("sounding")
    cover = save(path / "c.mkv", noise(30, 64, 96))
    secret = film(path / "s.mkv", secret_noise(24), sounds=[Sound("flac", hiss(0.96))])
    return round_trip(path, cover, secret, Settings(sound_bit_rate=40_000))[0]


@pytest.fixture
def sounding(sounding_whole, tmp_path):
    """The same with a stego of one's own to damage, not revealed."""
    shutil.copy(sounding_whole.stego, tmp_path)
    return sounding_whole._replace(path=tmp_path, stego=tmp_path / "stego.mkv", output=tmp_path / "out.mkv")


def assert_most_of_the_sound_is_there(files, whole):
    """Less than half a second is lost; all but the first packet after the gap come at their time."""
    whole, found = packets(whole.output), packets(files.output)
    assert len(whole) > 45 and len(found) > 25
    assert {data for data, _ in found} <= {data for data, _ in whole}
    assert len(set(found) - set(whole)) <= 1


def place(path, number):
    """(begin of the block, begin of its content, end) of a frame in a file."""
    with av.open(str(path)) as container:
        coded = [(p.pos, bytes(p)) for p in container.demux(video=0) if p.size][number]
    begin = path.read_bytes().index(coded[1])
    return coded[0], begin, begin + len(coded[1])


def flip(path, number):
    """One bit in the middle of a frame."""
    _, begin, end = place(path, number)
    data = bytearray(path.read_bytes())
    data[(begin + end) // 2] ^= 1
    path.write_bytes(data)


def clear(path, number, head=False):
    """Zeros over a frame; with `head` over its block too, so that no reader finds it."""
    block, begin, end = place(path, number)
    begin = block if head else begin
    data = path.read_bytes()
    path.write_bytes(data[:begin] + bytes(end - begin) + data[end:])


def partly(files, words):
    """Reveals what there is; returns its frames."""
    threads = set(threading.enumerate())
    with pytest.raises(PartialError, match=words) as caught:
        pipeline.reveal([plain()], KEY, files.stego, files.output, quiet)
    line = str(caught.value)
    del caught  # its traceback keeps the frames of the streams alive
    assert "\n" not in line and KEY.hex() not in line and str(files.stego) in line
    assert not set(threading.enumerate()) - threads
    assert not any(".part" in name for name in names(files.path))
    return load(files.output)


def test_cut_stegos_are_revealed_as_far_as_they_go(sounding):
    data, lengths, tracks = sounding.stego.read_bytes(), [], []
    for share in np.linspace(0.02, 0.99, 12):
        sounding.output.unlink(missing_ok=True)
        sounding.stego.write_bytes(data[: int(share * len(data))])
        try:
            pipeline.reveal([plain()], KEY, sounding.stego, sounding.output, quiet)
        except PartialError as error:
            assert f"has the first {len(load(sounding.output))} of 24 frames" in str(error)
        except UserError as error:
            assert not lengths and "cut short" in str(error)
            assert not sounding.output.exists()
            continue
        revealed = load(sounding.output)
        np.testing.assert_array_equal(revealed, secret_noise(24)[: len(revealed)])
        lengths.append(len(revealed))
        tracks.append(media.probe(sounding.output).tracks)
    assert len(set(lengths)) > 5 and lengths == sorted(lengths)
    assert lengths[-1] == 24 and all(length % GROUP == 0 for length in lengths)
    assert tracks == sorted(tracks) and tracks[-1] == 1


@pytest.mark.parametrize("hurt", [flip, clear])
@pytest.mark.parametrize("number", [0, 1, 2, 11, 23])
def test_a_damaged_frame_costs_itself(sounding, sounding_whole, hurt, number):
    hurt(sounding.stego, number)
    revealed = partly(sounding, f"damaged in frame {number + 1}: .* has all 24 frames")
    others = np.delete(np.arange(24), number)
    np.testing.assert_array_equal(revealed[others], secret_noise(24)[others])
    assert seconds_of(sounding.output) == seconds_of(sounding.secret)
    assert_most_of_the_sound_is_there(sounding, sounding_whole)


@pytest.mark.parametrize("number", [0, 1, 2, 11, 23])
def test_a_missing_frame_costs_itself(sounding, sounding_whole, number):
    clear(sounding.stego, number, head=True)
    revealed = partly(sounding, f"damaged in frames? {number + 1}.* has all 24 frames")
    others = np.delete(np.arange(24), [number, min(number + 1, 23)])
    np.testing.assert_array_equal(revealed[others], secret_noise(24)[others])
    assert_most_of_the_sound_is_there(sounding, sounding_whole)


def test_damage_in_the_tail_costs_nothing(sounding):
    flip(sounding.stego, 27)
    pipeline.reveal([plain()], KEY, sounding.stego, sounding.output, quiet)
    np.testing.assert_array_equal(load(sounding.output), secret_noise(24))


def test_damage_in_many_frames_is_named_in_ranges(sounding):
    for number in (3, 4, 5, 9, 11, 13, 15, 17):
        flip(sounding.stego, number)
    partly(sounding, r"damaged in frames 4-6, 10, 12, 14, 16, \.\.\.: ")


def test_both_records_lost(folder):
    for number in (0, 1):
        flip(folder.stego, number)
        clear(folder.stego, number)
    reveal_fails(folder, "no hidden video")


def test_a_frame_that_says_nothing_of_its_damage(sounding):
    """Somebody coded the stego anew, one frame of it changed: only its packet tells."""
    frames = load(sounding.stego)
    frames[9] = noise(1, 64, 96, seed=7)[0]
    save(sounding.stego, frames)
    revealed = partly(sounding, "damaged in frame 10: ")
    np.testing.assert_array_equal(np.delete(revealed, 9, 0), np.delete(secret_noise(24), 9, 0))


def test_a_damaged_cover_or_secret_is_no_input(folder):
    for path in (folder.cover, folder.secret):
        whole = path.read_bytes()
        for number in (0, 3):
            flip(path, number)
            hide_fails(folder, f"{path.name} is damaged")
            path.write_bytes(whole)


def test_stego_with_frames_missing(folder):
    save(folder.stego, load(folder.stego)[:5])
    revealed = partly(folder, "cut short: .* has the first 4 of 6 frames")
    np.testing.assert_array_equal(revealed, secret_noise(6)[:4])


def test_stego_without_its_tail_is_enough(folder):
    save(folder.stego, load(folder.stego)[:6])
    pipeline.reveal([plain()], KEY, folder.stego, folder.output, quiet)
    np.testing.assert_array_equal(load(folder.output), secret_noise(6))


# --- what fails -------------------------------------------------------------------------------------


def fails(folder, match, run, *args):
    """One line, nothing written, no thread left running."""
    before, threads = names(folder.path), set(threading.enumerate())
    with pytest.raises(UserError, match=match) as caught:
        run(*args, quiet)
    line = str(caught.value)
    del caught  # its traceback keeps the frames of the streams alive
    assert "\n" not in line and PASSPHRASE not in line
    assert names(folder.path) == before
    assert not set(threading.enumerate()) - threads


def hide_fails(folder, match, output=None, one=None):
    args = (KEY, folder.cover, folder.secret, output or folder.output)
    fails(folder, match, pipeline.hide, one or plain(), *args)


def reveal_fails(folder, match, key=KEY, one=None, output=None):
    fails(folder, match, pipeline.reveal, [one or plain()], key, folder.stego, output or folder.output)


def test_cover_shorter_than_the_secret(folder):
    for count in (1, 4, 5):
        save(folder.cover, noise(count))
        hide_fails(folder, f"it has {count} frames and the secret 6.*at least 6 frames .0.24 s.*--loop_cover")


def test_an_image_hides_no_video(folder):
    save(folder.path / "c.png", noise(1))
    folder = folder._replace(cover=folder.path / "c.png")
    hide_fails(folder, "is an image", folder.path / "out.png")


def test_cut_files(folder):
    whole = folder.cover.read_bytes()
    for share in (0.95, 0.3):  # after and before the secret's end
        folder.cover.write_bytes(whole[: int(share * len(whole))])
        hide_fails(folder, "c.mkv is cut short")
    folder.cover.write_bytes(whole)
    data = folder.secret.read_bytes()
    folder.secret.write_bytes(data[: len(data) // 2])
    hide_fails(folder, "s.mkv is cut short")


def test_wrong_key_or_nothing_hidden(folder):
    for key in (KEY[::-1], PASSPHRASE, "x"):
        reveal_fails(folder, "no hidden video for this passphrase or key", key)
    reveal_fails(folder._replace(stego=folder.cover), "no hidden video for this passphrase or key")
    save(folder.stego, np.zeros((2, 5, 5, 3), np.uint8))
    reveal_fails(folder, "no hidden video")


def test_another_checkpoint(folder):
    reveal_fails(folder, "the checkpoint or config is another", one=plain(fingerprint=b"87654321"))


def test_stego_whose_first_two_frames_are_others(folder):
    save(folder.stego, load(folder.stego)[2:])
    reveal_fails(folder, "no hidden video")


def test_frames_too_small_for_side_information(folder):
    save(folder.cover, noise(6, 15, 17))
    hide_fails(folder, "needs 256 pixels")


def test_outputs_that_cannot_be(folder):
    for match, output in {
        "also an input": folder.cover,
        "also an input|": folder.secret,
        "has files in it": folder.path,
        "coded with loss": folder.path / "out.mp4",
        "still images": folder.path / "out.png",
        "not a known": folder.path / "out.xyz",
        "does not exist": folder.path / "no" / "out.mkv",
    }.items():
        hide_fails(folder, match, output)
    reveal_fails(folder, "also an input", output=folder.stego)


def test_a_revealed_video_may_be_lossy(folder):
    output, secret = folder.path / "out.mp4", coarse(smooth(6))
    save(folder.secret, secret)
    pipeline.hide(plain(), KEY, folder.cover, folder.secret, folder.stego, quiet)
    pipeline.reveal([plain()], KEY, folder.stego, output, quiet)
    shown = load(output)
    assert shown.shape == secret.shape and psnr(shown, secret) > 25


def test_older_output_survives_a_failure(folder):
    folder.output.write_text("old")
    whole = folder.secret.read_bytes()
    folder.secret.write_bytes(whole[: len(whole) // 2])
    hide_fails(folder, "cut short")
    save(folder.secret, noise(12))
    hide_fails(folder, "it has 9 frames")
    reveal_fails(folder, "passphrase", KEY[::-1])
    assert folder.output.read_text() == "old"


def test_work_that_takes_more_memory_than_is_free_is_refused(folder, monkeypatch):
    monkeypatch.setattr(memory, "taken", lambda: 10**8)
    monkeypatch.setattr(memory, "available", lambda: 10**8)
    hide_fails(folder, r"hiding in \d+x\d+ needs about 0\.6 GB of memory, 0\.2 GB are free: take a smaller")
    reveal_fails(folder, r"revealing from \d+x\d+ needs about 0\.6 GB of memory, 0\.2 GB are free")


@pytest.mark.parametrize("at", [0, 1, 2])
@pytest.mark.parametrize("name", ["out.mkv", "out/"])
def test_an_exception_of_the_model_leaves_nothing(folder, at, name):
    """Also what a signal raises: at the first, second or tail chunk of hide and of reveal."""

    class Breaking(PlainCodec):
        def note(self, what, key, first_frame, count):
            super().note(what, key, first_frame, count)
            if first_frame == 4 * at and key.any():
                raise KeyboardInterrupt

    one, output = plain(codec=Breaking()), f"{folder.path}/{name}"
    save(folder.secret, noise(9))
    pipeline.hide(plain(), KEY, folder.cover, folder.secret, folder.stego, quiet)
    before, threads = names(folder.path), set(threading.enumerate())
    with pytest.raises(KeyboardInterrupt):
        pipeline.hide(one, KEY, folder.cover, folder.secret, output, quiet)
    with pytest.raises(KeyboardInterrupt):
        pipeline.reveal([one], KEY, folder.stego, output, quiet)
    assert names(folder.path) == before
    assert not set(threading.enumerate()) - threads


def test_an_exception_while_sound_is_added_leaves_nothing(sounding, monkeypatch):
    def broken(*args):
        raise OSError("no space left")

    monkeypatch.setattr(media.video_file, "_join", broken)
    before = names(sounding.path)
    with pytest.raises(UserError, match=r"out\.mkv cannot be written: no space left"):
        pipeline.reveal([plain()], KEY, sounding.stego, sounding.output, quiet)
    assert names(sounding.path) == before


def test_an_exception_of_progress_leaves_nothing(folder):
    def progress(frames):
        raise RuntimeError("no terminal")

    before = names(folder.path)
    with pytest.raises(RuntimeError, match="terminal"):
        pipeline.hide(plain(), KEY, folder.cover, folder.secret, folder.output, progress)
    assert names(folder.path) == before


def test_memory_does_not_grow_with_the_length(tmp_path, monkeypatch):
    """While the writer is stuck the reader gets stuck too, a few chunks ahead."""
    count = 60
    cover = save(tmp_path / "c.mkv", np.repeat(noise(1), count, axis=0))
    read, ahead = [], []
    write = media.Writer.write

    def counted(reader):
        def frames(*args, **kwargs):
            for frame in reader(*args, **kwargs):
                read.append(None)
                yield frame

        return frames

    def stuck(self, frame, time):
        while not ahead or ahead[-1] != len(read):  # once, until nothing more is read
            ahead.append(len(read))
            threading.Event().wait(0.3)
        monkeypatch.setattr(media.Writer, "write", write)
        write(self, frame, time)

    monkeypatch.setattr(media, "read_frames", counted(media.read_frames))  # of the secret
    monkeypatch.setattr(media, "read_timed", counted(media.read_timed))  # of the cover
    monkeypatch.setattr(media.Writer, "write", stuck)
    pipeline.hide(plain(), KEY, cover, cover, tmp_path / "stego.mkv", quiet)
    assert 2 * count <= len(read) <= 2 * count + 1  # one more may be read before the cover turns out to end
    # Two chunks wait to be hidden and two to be written; the reader and the writer hold one, the model two.
    assert ahead[-1] <= 2 * GROUP * 8


# --- what is said and asked before the work ---------------------------------------------------------


def test_the_key_is_asked_for_once_cover_and_secret_fit(tmp_path):
    asked = []

    def ask():
        asked.append(names(tmp_path))
        return KEY

    secret, cover = save(tmp_path / "s.mkv", secret_noise(6)), save(tmp_path / "c.mkv", noise(6))
    short, stego = save(tmp_path / "short.mkv", noise(4)), tmp_path / "t.mkv"
    for files, words in (
        ((short, secret, stego), "too short"),
        ((cover, secret, tmp_path / "t.mp4"), "loss"),
    ):
        with pytest.raises(UserError, match=words):
            pipeline.hide(plain(), ask, *files, quiet)
    assert asked == []
    pipeline.hide(plain(), ask, cover, secret, stego, quiet)
    assert asked == [["c.mkv", "s.mkv", "short.mkv"]]


def test_sizes_are_said_before_the_work_and_after_it(tmp_path):
    told = []
    cover, secret = save(tmp_path / "c.mkv", noise(6)), save(tmp_path / "s.mkv", secret_noise(6, 64, 96))
    stego, output = tmp_path / "t.mkv", tmp_path / "r.mp4"
    hidden = pipeline.hide(plain(), KEY, cover, secret, stego, quiet, announce=told.append)
    shrunk = "the secret is scaled down from 96x64 to 48x32"
    assert told[0].startswith(f"{shrunk}; {stego} will take about ") and shrunk in hidden.notes
    assert hidden.size_bytes == stego.stat().st_size
    assert f", {hidden.size_bytes / 1000:,.1f} kB, took " in hidden.summary()
    shown = pipeline.reveal([plain()], KEY, stego, output, quiet, told.append)
    assert told[1].startswith(f"found 6 frames of 48x32; {output} will take about ")
    assert shown.size_bytes == output.stat().st_size and len(told) == 2


@pytest.mark.parametrize("name", ["r.mp4", "r.mov", "r.m4v"])
def test_a_revealed_video_plays_on_phones(tmp_path, name):
    cover = save(tmp_path / "c.mkv", noise(12))
    secret = film(tmp_path / "s.mkv", smooth(12), sounds=[Sound("flac", hiss(0.48))])
    pipeline.hide(plain(), KEY, cover, secret, tmp_path / "t.mkv", quiet)
    pipeline.reveal([plain()], KEY, tmp_path / "t.mkv", tmp_path / name, quiet)
    with av.open(str(tmp_path / name)) as container:
        kinds = [(stream.type, stream.codec_context.name) for stream in container.streams]
        assert kinds == [("video", "h264"), ("audio", "aac")]
        assert container.streams.video[0].codec_context.pix_fmt == "yuv420p"
    assert psnr(load(tmp_path / name), coarse(load(secret))) > 25


@pytest.mark.parametrize("height, width, size", [(15, 21, (22, 16)), (16, 21, (22, 16)), (15, 22, (22, 16))])
def test_odd_sides_of_a_revealed_video_are_padded_for_h264(tmp_path, height, width, size):
    cover, secret = save(tmp_path / "c.mkv", noise(4)), coarse(smooth(4, height, width))
    pipeline.hide(plain(), KEY, cover, save(tmp_path / "s.mkv", secret), tmp_path / "t.mkv", quiet)
    report = pipeline.reveal([plain()], KEY, tmp_path / "t.mkv", tmp_path / "r.mp4", quiet)
    shown = load(tmp_path / "r.mp4")
    assert shown.shape[2:0:-1] == size and psnr(shown[:, :height, :width], secret) > 25
    assert report.notes[-1] == "padded to 22x16, since H.264 needs even sides"
    pipeline.reveal([plain()], KEY, tmp_path / "t.mkv", tmp_path / "r.mkv", quiet)
    np.testing.assert_array_equal(load(tmp_path / "r.mkv"), secret)
