"""The model `robust` from file to file with its shipped checkpoints: coded again, with frames lost."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from configs.robust import get_config
from deepsteg_jax import media, metrics, robust_pipeline
from deepsteg_jax.commands import common
from deepsteg_jax.errors import UserError
from deepsteg_jax.schemes.robust import secret_codec
from tests.helpers import read_stack
from tests.synthetic import noise, save, smooth

ROOT = Path(__file__).parent.parent
KEY, OTHER = bytes(range(32)), bytes(32)
pytestmark = pytest.mark.skipif(
    not (media.has_encoder("libx264") and media.has_encoder(secret_codec.CODEC)),
    reason="this build of FFmpeg lacks x264 or SVT-AV1",
)


def _config(variant=""):
    config = get_config(variant)
    config.growth, config.video.crf = 0.0, 14
    return config


def _hide(config, cover, secret, output):
    params = common.load_robust(config, "hide")
    robust_pipeline.hide(config, params, KEY, str(cover), str(secret), str(output), lambda frames: None)


def _reveal(config, stego, output, key=KEY):
    params = common.load_robust(config, "reveal")
    robust_pipeline.reveal(config, params, key, str(stego), str(output), lambda frames: None)
    return read_stack(output)


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """(folder, frames of the secret); the folder has cover.mkv, secret.mkv and stego.mp4 of 32 frames."""
    folder = tmp_path_factory.mktemp("clip")
    cover = smooth(32, 128, 192) // 2 + 50 + noise(32, 128, 192, high=16)
    secret = smooth(32, 72, 96, seed=3)
    save(folder / "cover.mkv", cover.astype(np.uint8))
    save(folder / "secret.mkv", secret)
    config = _config()
    _hide(config, folder / "cover.mkv", folder / "secret.mkv", folder / "stego.mp4")
    return folder, secret


def test_an_ordinary_file_gives_the_secret(clip):
    folder, secret = clip
    shown = _reveal(_config(), folder / "stego.mp4", folder / "revealed.mkv")
    assert shown.shape == secret.shape
    assert metrics.mean_psnr(secret, shown) > 20
    assert metrics.mean_psnr(read_stack(folder / "cover.mkv"), read_stack(folder / "stego.mp4")) > 30


def test_coded_again_with_frames_lost_it_still_does(clip):
    folder, secret = clip
    frames = read_stack(folder / "stego.mp4")
    kept = [i for i in range(32) if i not in (2, 9, 10, 21)]
    with media.Writer(folder / "again.mp4", 20, lossy=media.Lossy(crf=16)) as writer:
        for i in kept:
            writer.write(frames[i])
    shown = _reveal(_config(), folder / "again.mp4", folder / "again.mkv")
    assert shown.shape == secret.shape
    assert metrics.mean_psnr(secret, shown) > 17


def test_another_key_is_one_line(clip):
    folder, _ = clip
    with pytest.raises(UserError, match="passphrase"):
        _reveal(_config(), folder / "stego.mp4", folder / "wrong.mkv", OTHER)
    assert not (folder / "wrong.mkv").exists()


def test_an_image_survives_jpeg(tmp_path):
    cover = smooth(1, 256, 256) // 2 + 50 + noise(1, 256, 256, high=24)
    secret = smooth(1, 120, 160, seed=3)
    save(tmp_path / "cover.png", cover.astype(np.uint8))
    save(tmp_path / "secret.png", secret)
    config = _config("image")
    _hide(config, tmp_path / "cover.png", tmp_path / "secret.png", tmp_path / "stego.jpg")
    shown = _reveal(config, tmp_path / "stego.jpg", tmp_path / "revealed.png")
    assert shown.shape == secret.shape and metrics.mean_psnr(secret, shown) > 25


def test_the_command_line(clip):
    """Only a robust model may write a lossy file; the key comes from a file."""
    folder, secret = clip
    (folder / "key").write_bytes(KEY)
    main, key = [sys.executable, str(ROOT / "main.py")], f"--key_file={folder}/key"
    files = [f"--stego={folder}/stego.mp4", f"--output={folder}/by_command.mkv"]
    robust = f"--config={ROOT}/configs/robust.py"
    subprocess.run([*main, robust, "--mode=reveal", *files, key], check=True, capture_output=True)
    assert read_stack(folder / "by_command.mkv").shape == secret.shape
    files = [f"--cover={folder}/cover.mkv", f"--secret={folder}/secret.mkv", f"--output={folder}/no.mp4"]
    lossless = [*main, f"--config={ROOT}/configs/video.py", "--mode=hide", *files, key]
    refused = subprocess.run(lossless, capture_output=True, text=True, check=False)
    assert refused.returncode == 1 and "loss" in refused.stderr and "Traceback" not in refused.stderr
