"""Files in and out: lossy formats with stand-ins for segments, and the shipped checkpoints as they are."""

import json
from fractions import Fraction

import jax
import numpy as np
import pytest
from PIL import Image

from configs.robust import get_config
from deepsteg_jax import api, commands, keys, loading, media, metrics, pipeline
from deepsteg_jax.errors import PartialError, UserError
from deepsteg_jax.schemes.base import NOTHING, Settings
from deepsteg_jax.schemes.robust import geometry, scheme, secret_codec
from tests.helpers import read_stack
from tests.schemes.robust.conftest import load_scheme, no_params
from tests.synthetic import Sound, film, hiss, in_planes, in_rgb, noise, packets, save, smooth

KEY = bytes(range(32))
H264 = {"codec": "libx264", "pixel_format": "yuv420p"}
FOUND_LAYERS = ("3 of 3 layers",)


def quiet(frames):
    pass


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def hide(robust, cover, secret, stego, settings=pipeline.DEFAULTS):
    return pipeline.hide(robust, KEY, cover, secret, stego, quiet, settings)


def reveal(robust, stego, output, key=KEY):
    report = pipeline.reveal([robust], key, stego, output, quiet)
    return report, read_stack(output)


def clips(path, count=10, length=10, size=(32, 48)):
    """(secret's frames, cover, secret): two saved clips."""
    secret = noise(count, 20, 30, seed=1)
    return secret, save(path / "cover.mkv", smooth(length, *size)), save(path / "secret.mkv", secret)


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv", ".nut"])
def test_formats(robust, wire, tmp_path, suffix):
    secret, cover, path = clips(tmp_path)
    stego = tmp_path / f"stego{suffix}"
    report = hide(robust, cover, path, stego)
    assert wire.exact == (suffix in (".mkv", ".nut"))
    assert report[:4] == (10, 48, 32, 25) and report.processed == 10 and report.notes == ()
    sent = jax.tree.map(lambda x: x ^ 1, in_planes(smooth(10)))
    if media.is_exact(stego):
        written = media.stack([frame for frame, _ in media.read_planes(stego)])
        jax.tree.map(np.testing.assert_array_equal, written, sent)
    assert np.abs(read_stack(stego).astype(int) - in_rgb(sent)).mean() < 8
    times = media.frame_times(stego) * media.probe(stego).time_base
    assert list(times) == [Fraction(i, 25) for i in range(10)]
    shown, frames = reveal(robust, stego, tmp_path / "revealed.mkv")
    assert shown[:4] == (10, 30, 20, 25) and shown.processed == 10 and shown.notes == FOUND_LAYERS
    np.testing.assert_array_equal(frames, secret)
    assert names(tmp_path) == sorted(["cover.mkv", "revealed.mkv", "secret.mkv", stego.name])


@pytest.fixture
def still(wire):
    """The scheme of images with stand-ins."""
    return scheme.RobustScheme(get_config("image"), no_params)


@pytest.mark.parametrize("scheme_of", ["still", "robust"])
@pytest.mark.parametrize("suffix", [".jpg", ".JPEG", ".png"])
def test_images(request, tmp_path, suffix, scheme_of):
    """Also by the scheme of videos, whose planes become RGB."""
    robust = request.getfixturevalue(scheme_of)
    cover, secret = save(tmp_path / "c.png", smooth(1, 33, 49)), save(tmp_path / "s.bmp", noise(1, 47, 31))
    stego = tmp_path / f"stego{suffix}"
    assert hide(robust, cover, secret, stego)[:3] == (1, 49, 33)
    with Image.open(stego) as image:
        assert image.format == ("PNG" if suffix == ".png" else "JPEG")
    shown, frames = reveal(robust, stego, tmp_path / "out.png")
    assert shown[:3] == (1, 31, 47)
    np.testing.assert_array_equal(frames, noise(1, 47, 31))


@pytest.mark.parametrize("name", ["stego/", "stego/%03d.png"])
def test_a_folder_takes_rgb_of_which_a_receiver_makes_planes(robust, wire, tmp_path, name):
    """So the cover's planes are made of its RGB as well; fine symbols, which this erases, are left out."""
    tags = media.Colour(1, 1, 1, 1)
    cover = film(tmp_path / "c.mkv", smooth(5), prepare=lambda s: tags.put_on(s.codec_context), **H264)
    hide(robust, cover, save(tmp_path / "s.mkv", noise(5, 20, 30)), f"{tmp_path}/{name}")
    assert not wire.exact
    sent = jax.tree.map(lambda x: x ^ 1, in_planes(read_stack(cover)))
    np.testing.assert_array_equal(read_stack(tmp_path / "stego"), in_rgb(sent))
    _, frames = reveal(robust, tmp_path / "stego", tmp_path / "out.mkv")
    np.testing.assert_array_equal(frames, noise(5, 20, 30))


@pytest.mark.parametrize("frames", [np.s_[:], 0])
def test_arrays_are_rgb_of_planes(robust, frames):
    """Of a clip and of a picture."""
    model = api.LoadedModel(robust.config, robust, "robust")
    cover, secret = smooth(6)[frames], noise(6, 20, 30)[frames]
    stego = api.hide(model, cover, secret, KEY)
    sent = jax.tree.map(lambda x: x ^ 1, in_planes(cover.reshape(-1, 32, 48, 3)))
    np.testing.assert_array_equal(stego, in_rgb(sent)[frames])
    np.testing.assert_array_equal(api.reveal(model, stego, KEY), secret)


def test_planes_of_the_cover_stay_planes(robust, tmp_path):
    """With their own colours, and no RGB between."""
    tags = media.Colour(1, 1, 1, 1)
    cover = film(tmp_path / "c.mkv", smooth(5), prepare=lambda s: tags.put_on(s.codec_context), **H264)
    stego = tmp_path / "stego.mkv"
    hide(robust, cover, save(tmp_path / "s.mkv", noise(5, 20, 30)), stego)
    assert media.probe(stego).colour == tags and media.probe(stego).pixel_format == "yuv420p"
    for (before, _), (after, _) in zip(media.read_planes(cover), media.read_planes(stego), strict=True):
        jax.tree.map(np.testing.assert_array_equal, after, jax.tree.map(lambda x: x ^ 1, before))


def test_times_and_sound_of_the_cover_are_kept(robust, tmp_path):
    ticks, sounds = [37, 80, 120, 150, 200, 400], [Sound("libopus", hiss(0.4))]
    cover = film(tmp_path / "c.mkv", smooth(6), times=ticks, time_base=Fraction(1, 1000), sounds=sounds)
    stego = tmp_path / "stego.mp4"
    report = hide(robust, cover, save(tmp_path / "s.mkv", noise(2)), stego)
    assert report.notes == ("the frame rate of the cover varies, that of the revealed video will not",)
    times = media.frame_times(stego) * media.probe(stego).time_base
    assert [round(float(time), 4) for time in times] == [tick / 1000 for tick in ticks]
    assert [data for data, _ in packets(stego)] == [data for data, _ in packets(cover)]


def test_a_short_cover_is_repeated(robust, tmp_path):
    secret, cover, path = clips(tmp_path, length=4)
    hide(robust, cover, path, tmp_path / "stego.mp4", Settings(loop_cover=True))
    assert len(read_stack(tmp_path / "stego.mp4")) == 10
    np.testing.assert_array_equal(reveal(robust, tmp_path / "stego.mp4", tmp_path / "out.mkv")[1], secret)


def test_progress_goes_on_within_a_segment(robust, tmp_path):
    cover, secret = (save(tmp_path / f"{name}.mkv", noise(9)) for name in ("cover", "secret"))
    told = []
    pipeline.hide(robust, KEY, cover, secret, tmp_path / "stego.mp4", told.append)
    assert told == [2, 2, 2, 2, 0, 1]


def test_an_odd_cover_goes_into_lossless_formats_only(wire, robust, tmp_path):
    _, cover, secret = clips(tmp_path, 3, 3, (31, 48))
    with pytest.raises(UserError, match=r"48x31; use \.mkv .* crop=48:30"):
        hide(robust, cover, secret, tmp_path / "stego.mp4")
    assert not wire.sent and names(tmp_path) == ["cover.mkv", "secret.mkv"]
    hide(robust, cover, secret, tmp_path / "stego.mkv")
    assert media.probe(tmp_path / "stego.mkv").height == 31


@pytest.mark.parametrize(
    "field, values, suffix", [("crf", (40, 10), ".mp4"), ("jpeg_quality", (30, 95), ".jpg")]
)
def test_the_quality_of_the_config_is_obeyed(wire, tmp_path, field, values, suffix):
    frames = smooth(1, 64, 64) if suffix == ".jpg" else smooth(4, 64, 64)
    cover, sizes = save(tmp_path / ("c.png" if suffix == ".jpg" else "c.mkv"), frames), []
    for value in values:
        config = get_config("image" if suffix == ".jpg" else "tiny")
        config.video[field] = value
        wire.sent.clear()
        made = scheme.RobustScheme(config, no_params)
        hide(made, cover, cover, tmp_path / f"{value}{suffix}")
        sizes.append((tmp_path / f"{value}{suffix}").stat().st_size)
    assert sizes[1] > 300 + sizes[0]


@pytest.mark.parametrize("change", [{"crf": 52}, {"crf": -1}, {"jpeg_quality": 0}, {"jpeg_quality": 101}])
def test_qualities_out_of_range(change):
    config = get_config("tiny")
    config.video.update(change)
    with pytest.raises(
        UserError, match="config.video.crf must be 0 to 51, and config.video.jpeg_quality 1 to 100"
    ):
        scheme.RobustScheme(config, None)


@pytest.mark.parametrize("key", [KEY, bytes(32)])
def test_nothing_found_is_one_line(wire, robust, tmp_path, key):
    """All lost, or another key: one and the same."""
    _, cover, secret = clips(tmp_path)
    hide(robust, cover, secret, tmp_path / "stego.mp4")
    wire.lost = set(range(3)) if key == KEY else set()
    before = names(tmp_path)
    with pytest.raises(UserError) as caught:
        reveal(robust, tmp_path / "stego.mp4", tmp_path / "out.mkv", key)
    assert str(caught.value) == NOTHING and names(tmp_path) == before


def test_a_damaged_stego_is_read_as_far_as_it_goes(robust, tmp_path):
    """Damage matters only where a segment suffers from it."""
    secret, cover, path = clips(tmp_path, 14, 14)
    stego, output = tmp_path / "stego.mkv", tmp_path / "out.mkv"
    hide(robust, cover, path, stego)
    data, coded = stego.read_bytes(), packets(stego, "video")[6][0]
    middle = data.index(coded) + len(coded) // 2
    stego.write_bytes(data[:middle] + bytes([data[middle] ^ 4]) + data[middle + 1 :])
    np.testing.assert_array_equal(reveal(robust, stego, output)[1], secret)
    stego.write_bytes(data[: data.index(packets(stego, "video")[9][0])])
    with pytest.raises(PartialError, match="cut short"):
        reveal(robust, stego, output)
    np.testing.assert_array_equal(read_stack(output)[:8], secret[:8])


# --- modes ----------------------------------------------------------------------------------------


def pair(path, rate=25, count=6):
    """The config's fields for a cover of six frames and a secret."""
    cover = save(path / "cover.mkv", smooth(6))
    return {"cover": str(cover), "secret": str(save(path / "secret.mkv", noise(count, 16, 24), rate))}


def test_modes_hide_and_reveal(robust, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(loading, "load", lambda config: robust)
    monkeypatch.setenv(keys.PASSPHRASE_VARIABLE, "secret")
    stego, output = str(tmp_path / "stego.mp4"), str(tmp_path / "out.mkv")
    hiding = commands.Options(str(tmp_path), **pair(tmp_path), output=stego)
    commands.load("hide").run(robust.config, hiding)
    commands.load("reveal").run(robust.config, commands.Options(str(tmp_path), stego=stego, output=output))
    np.testing.assert_array_equal(read_stack(output), noise(6, 16, 24))
    assert FOUND_LAYERS[0] in capsys.readouterr().out


@pytest.mark.parametrize("rate, count", [(25, 6), (12.5, 3), (50, 12)])
def test_mode_roundtrip(robust, tmp_path, monkeypatch, rate, count):
    monkeypatch.setattr(loading, "load", lambda config: robust)
    robust.config.video.update(pair(tmp_path, rate, count))
    commands.load("roundtrip").run(robust.config, commands.Options(str(tmp_path / "work")))
    report = json.loads((tmp_path / "work" / "metrics.json").read_text())
    assert report["frames"] == 6 and report["secret_psnr_db"] == 100 and 20 < report["stego_psnr_db"] < 45
    assert {"stego.mp4", "revealed.mkv", "report.html"} < set(names(tmp_path / "work"))


def test_mode_roundtrip_of_images(still, tmp_path, monkeypatch):
    monkeypatch.setattr(loading, "load", lambda config: still)
    image = str(save(tmp_path / "c.png", smooth(1)))
    still.config.video.update(cover=image, secret=str(save(tmp_path / "s.png", smooth(1, seed=1))))
    commands.load("roundtrip").run(still.config, commands.Options(str(tmp_path / "work")))
    assert {"stego.jpg", "revealed.png"} < set(names(tmp_path / "work"))


# --- the shipped checkpoints, with their own layers, salts and presets ----------------------------

needs_encoders = pytest.mark.skipif(
    not (media.has_encoder("libx264") and secret_codec.has_encoder()),
    reason="this build of FFmpeg lacks x264 or an encoder of secrets",
)


def shipped(variant=""):
    config = get_config(variant)
    config.growth, config.video.crf = 0.0, 14
    return load_scheme(config)


@needs_encoders
@pytest.mark.slow
def test_a_clip_survives_coding_again_and_the_loss_of_frames(tmp_path):
    cover = (smooth(16, 192, 288) // 2 + 50 + noise(16, 192, 288, high=16)).astype(np.uint8)
    secret, robust = smooth(16, 72, 96, seed=3), shipped()
    save(tmp_path / "cover.mkv", cover)
    save(tmp_path / "secret.mkv", secret)
    hide(robust, tmp_path / "cover.mkv", tmp_path / "secret.mkv", tmp_path / "stego.mp4")
    stego = read_stack(tmp_path / "stego.mp4")
    assert metrics.mean_psnr(cover, stego) > 30
    _, shown = reveal(robust, tmp_path / "stego.mp4", tmp_path / "revealed.mkv")
    assert shown.shape == secret.shape and metrics.mean_psnr(secret, shown) > 20
    kept = np.delete(stego, (2, 9, 10), axis=0)
    with media.Writer(tmp_path / "again.mp4", 20, lossy=media.Lossy(crf=12)) as writer:
        for frame in kept:
            writer.write(frame)
    _, shown = reveal(robust, tmp_path / "again.mp4", tmp_path / "again.mkv")
    assert shown.shape == secret.shape and metrics.mean_psnr(secret, shown) > 17


@needs_encoders
@pytest.mark.slow
def test_an_image_survives_jpeg_in_files_and_in_arrays(tmp_path, monkeypatch):
    cover = (smooth(1, 256, 256) // 2 + 50 + noise(1, 256, 256, high=24)).astype(np.uint8)
    secret, robust = smooth(1, 120, 160, seed=3), shipped("image")
    save(tmp_path / "cover.png", cover)
    save(tmp_path / "secret.png", secret)
    hide(robust, tmp_path / "cover.png", tmp_path / "secret.png", tmp_path / "stego.jpg")
    _, shown = reveal(robust, tmp_path / "stego.jpg", tmp_path / "revealed.png")
    assert shown.shape == secret.shape and metrics.mean_psnr(secret, shown) > 25
    model = api.LoadedModel(robust.config, robust, "robust_image")
    assert np.array_equal(api.reveal(model, read_stack(tmp_path / "stego.jpg")[0], KEY), shown[0])
    stego = api.hide(model, cover[0], secret[0], KEY)
    assert stego.shape == cover[0].shape and stego.dtype == np.uint8
    Image.fromarray(stego).save(tmp_path / "again.jpg", quality=95, subsampling="4:2:0")
    shown = api.reveal(model, read_stack(tmp_path / "again.jpg")[0], KEY)
    assert metrics.psnr(secret[0], shown) > 25
    monkeypatch.setattr(geometry, "_uniform_scales", lambda *_: [(s, s) for s in (1.0, 0.75)])  # of 60
    with pytest.raises(UserError, match="passphrase"):
        api.reveal(model, stego, bytes(32))
