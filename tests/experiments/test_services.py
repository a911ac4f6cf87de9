"""Imitated services scale as they say; what came back is compared frame by frame."""

import shutil
import subprocess

import numpy as np
import pytest

from deepsteg_jax import media
from deepsteg_jax.errors import UserError
from experiments import services
from tests.synthetic import smooth

needs_ffmpeg = pytest.mark.skipif(not shutil.which("ffmpeg"), reason="needs the program ffmpeg")


def _clip(path, *shape):
    media.write_frames(path, smooth(*shape))
    return path


@needs_ffmpeg
@pytest.mark.parametrize(("name", "size"), [("messenger", (848, 424)), ("social", (900, 450))])
def test_large_videos_are_shrunk_and_others_are_not(tmp_path, name, size):
    received = services.imitate(_clip(tmp_path / "c.mkv", 3, 450, 900), name, tmp_path)
    info = media.probe(received)
    assert (info.width, info.height) == size


@needs_ffmpeg
@pytest.mark.parametrize("name", services.EDITS)
def test_edits_give_videos_of_the_size_and_length_that_they_say(tmp_path, name):
    sent = 102 if name == services.CUT_OFF else 12
    lengths = {services.CUT_OFF: 2, "frame rate 5/6": 10, "frame rate 1/2": 6, "frame rate 5/4": 15}
    sizes = {"letterbox": (96, 72), "5 % of each side cut off": (86, 58)}
    sizes |= {"scaled to 5/4": (120, 80), "scaled to 3/4": (72, 48), "scaled to 2/3": (64, 42)}
    cover = tmp_path / "c.mkv"
    media.write_frames(cover, smooth(sent, 64, 96), 10)
    received = services.imitate(cover, name, tmp_path)
    info, frames = media.probe(received), np.stack(list(media.read_frames(received)))
    assert (info.width, info.height) == sizes.get(name, (96, 64))
    assert len(frames) == lengths.get(name, sent)


@needs_ffmpeg
def test_edits_change_tones(tmp_path):
    cover = _clip(tmp_path / "c.mkv", 1, 64, 96)
    names = "faded in, 2 s", "brightness -10 %", "coded again", "brightness +10 %"
    received = [np.stack(list(media.read_frames(services.imitate(cover, name, tmp_path)))) for name in names]
    faded, darker, same, brighter = (frames.mean() for frames in received)
    assert faded < 1 and darker + 15 < same < brighter - 15


def test_without_ffmpeg_the_user_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(UserError, match="the program ffmpeg"):
        services.imitate(tmp_path / "c.mkv", "social", tmp_path)


def test_frames_that_are_missing_repeat_the_last_and_nothing_is_grey(tmp_path):
    secret = _clip(tmp_path / "s.mkv", 4, 48, 64)
    frames = np.stack(list(media.read_frames(secret)))
    media.write_frames(tmp_path / "r.mkv", frames[:2])
    assert services._psnr(secret, secret) == 100
    whole, half = services._psnr(secret, tmp_path / "none.mkv"), services._psnr(secret, tmp_path / "r.mkv")
    assert 50 < half < 100 and whole < 20
    assert services._psnr(secret, tmp_path / "r.mkv", since=1 / 30) < half


@needs_ffmpeg
def test_late_sound_is_heard(tmp_path):
    sounds = [tmp_path / name for name in ("sent.wav", "late.wav")]
    for path, late in zip(sounds, (0, 50), strict=True):
        noise = ["-f", "lavfi", "-i", "anoisesrc=d=1:seed=1", "-af", f"adelay={late}"]
        subprocess.run(["ffmpeg", "-v", "error", *noise, path], check=True)
    assert services.sound_late(*sounds) == pytest.approx(0.05, abs=1e-3)
    part = tmp_path / "part.wav"  # quiet and short, as what is left of a sound that is louder elsewhere
    loud = ["-i", sounds[0], "-af", "volume='if(gt(t,0.5),8,1)':eval=frame", tmp_path / "loud.wav"]
    left = ["-i", sounds[1], "-af", "volume='between(t,0.15,0.4)':eval=frame", part]
    for options in (loud, left):
        subprocess.run(["ffmpeg", "-v", "error", *options], check=True)
    assert services.sound_late(tmp_path / "loud.wav", part) == pytest.approx(0.05, abs=1e-3)
    assert services.sound_late(sounds[0], _clip(tmp_path / "c.mkv", 3, 64, 96)) is None
