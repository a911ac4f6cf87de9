"""Imitated services scale as they say; what came back is compared frame by frame."""

import shutil

import numpy as np
import pytest

from deepsteg_jax import media
from deepsteg_jax.errors import UserError
from experiments import services
from tests.synthetic import smooth


def _clip(path, *shape):
    media.write_frames(path, smooth(*shape))
    return path


@pytest.mark.skipif(not shutil.which("ffmpeg"), reason="needs the program ffmpeg")
@pytest.mark.parametrize(("name", "size"), [("messenger", (848, 424)), ("social", (900, 450))])
def test_large_videos_are_shrunk_and_others_are_not(tmp_path, name, size):
    received = services.imitate(_clip(tmp_path / "c.mkv", 3, 450, 900), name, tmp_path)
    info = media.probe(received)
    assert (info.width, info.height) == size


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
