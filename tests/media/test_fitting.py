from fractions import Fraction

import numpy as np
import pytest

from deepsteg_jax import media
from deepsteg_jax.errors import UserError
from deepsteg_jax.media import fitting
from tests.helpers import read_stack
from tests.media.clips import click, onset
from tests.synthetic import Sound, film, heard, hiss, save, smooth

AV1 = pytest.param(5500, "AV1", marks=pytest.mark.skipif(not media.has_encoder("libsvtav1"), reason="no AV1"))


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """Eight frames with loud sound in Opus, of times of their own."""
    path = tmp_path_factory.mktemp("fitting") / "clip.mkv"
    times = [0, 40, 50, 120, 200, 210, 300, 1000]
    sound = Sound("libopus", hiss(1.04))
    return film(path, smooth(8, 120, 160, 3), times=times, time_base=Fraction(1, 1000), sounds=[sound])


@pytest.mark.parametrize(("room", "codec"), [AV1, (9000, "H.264")])
def test_the_finest_that_fits_keeps_times_and_sound(tmp_path, clip, room, codec, capfd):
    output = tmp_path / "coded.mkv"
    said = media.code_to_size(clip, output, room, 64_000)
    assert said.startswith(codec) and said.endswith("kbit/s, 160x120")
    assert 0.75 * room < output.stat().st_size <= room
    shown = read_stack(output)
    assert shown.shape == (8, 120, 160, 3) and np.abs(shown.astype(int) - read_stack(clip)).mean() < 12
    assert np.array_equal(media.frame_times(output), media.frame_times(clip))
    assert np.abs(heard(output)).max() > 0.1
    assert capfd.readouterr() == ("", "")


def test_sound_stays_in_step_with_pictures_that_begin_later(tmp_path):
    """Half a second of sound comes before them, and a click with the first one."""
    times, sound = range(500, 1500, 100), Sound("pcm_s16le", click(0.5, 1.5))
    clip = film(tmp_path / "c.mkv", smooth(10), times=times, time_base=Fraction(1, 1000), sounds=[sound])
    media.code_to_size(clip, tmp_path / "coded.mkv", 20_000, 64_000)
    assert media.frame_times(tmp_path / "coded.mkv")[0] == 0
    assert onset(tmp_path / "coded.mkv") < 0.01


def test_sound_is_left_out_where_it_would_take_too_much_or_is_not_wanted(tmp_path, clip):
    for room, rate in ((2500, 64_000), (6000, 0)):
        output = tmp_path / f"{room}.mkv"
        assert media.code_to_size(clip, output, room, rate).endswith(", without its sound")
        assert media.probe(output).tracks == 0


def test_a_rate_that_is_constant_is_said(tmp_path):
    path = film(tmp_path / "clip.mkv", smooth(8, 48, 64, 3), rate=10, sounds=[Sound("libopus", hiss(0.8))])
    media.code_to_size(path, tmp_path / "coded.mkv", 6000, 64_000)
    assert media.probe(tmp_path / "coded.mkv").rate == 10


def test_a_picture_in_little_room(tmp_path):
    path = save(tmp_path / "picture.png", smooth(1, 90, 120))
    for room in (1200, 3000):
        output = tmp_path / f"{room}.mkv"
        assert media.code_to_size(path, output, room, 0).endswith(", 120x90")
        assert output.stat().st_size <= room and read_stack(output).shape == (1, 90, 120, 3)


def test_a_long_clip_is_scaled_down():
    info = media.Info(640, 480, 100, Fraction(25), False)
    first = [next(iter(fitting._codings(info, bits)))[1] for bits in (1.0, 0.02, 0.006, 0.002, 0.001)]
    assert first == [(640, 480), (640, 480), (480, 360), (320, 240), (160, 120)]
    assert [size for _, size in fitting._codings(info, 0.006)] == [(480, 360), (320, 240), (160, 120)]


@pytest.mark.parametrize("room", [-5, 0, 700])
def test_what_fits_at_no_quality_is_one_line_and_leaves_nothing(tmp_path, room):
    path = save(tmp_path / "picture.png", smooth(1, 90, 120))
    with pytest.raises(UserError, match=r"picture.png does not fit into .* at any quality") as caught:
        media.code_to_size(path, tmp_path / "coded.mkv", room, 0)
    assert "\n" not in str(caught.value) and not (tmp_path / "coded.mkv").exists()
