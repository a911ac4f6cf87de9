import numpy as np
import pytest
from skimage.metrics import structural_similarity

from deepsteg_jax import evaluation
from deepsteg_jax.video import io


def noise(count=6, height=32, width=48, seed=0, low=0, high=256):
    shape = (count, height, width, 3)
    return np.random.default_rng(seed).integers(low, high, shape, dtype=np.uint8)


def save(path, frames, image=False):
    with io.Writer(path, 25, image=image) as writer:
        for frame in frames:
            writer.write(frame)
    return path


def make(folder, suffix=".mkv", **clips):
    paths = {
        name: save(folder / f"{name}{suffix}", frames, suffix != ".mkv") for name, frames in clips.items()
    }
    return evaluation.Files(**paths)


def ssim(a, b):
    settings = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    return structural_similarity(a, b, channel_axis=-1, data_range=255, **settings)


def test_exact_figures_of_known_differences(tmp_path):
    cover, secret = noise(low=10, high=240), noise(seed=1, low=10, high=240)
    stego, revealed = cover + 1, secret.copy()
    revealed[:, ::2] += 4  # a mean squared error of 8 in every frame
    files = make(tmp_path, cover=cover, stego=stego, secret=secret, revealed=revealed)
    report = evaluation.measure(files)
    assert report["stego_psnr_db"] == pytest.approx(20 * np.log10(255))  # 48.13
    assert report["secret_psnr_db"] == pytest.approx(10 * np.log10(255**2 / 8))
    assert report["stego_ssim"] == pytest.approx(np.mean([*map(ssim, cover, stego)]))
    assert report["secret_ssim"] == pytest.approx(np.mean([*map(ssim, secret, revealed)]))
    assert report["capacity_bpp"] == 24 and report["frames"] == 6


def test_psnr_is_a_mean_of_decibels(tmp_path):
    cover = noise(2, low=10, high=200)
    stego = cover.copy()
    stego[0] += 1
    stego[1] += 10
    files = make(tmp_path, cover=cover, stego=stego, secret=cover, revealed=cover)
    report = evaluation.measure(files)
    assert report["stego_psnr_db"] == pytest.approx(20 * np.log10(255) - 10)
    assert report["secret_psnr_db"] == 100 and report["secret_ssim"] == pytest.approx(1)


def test_only_hidden_frames_count(tmp_path):
    """The cover goes on behind the secret's end, unchanged; that must not improve the mean."""
    cover, secret = noise(11, low=10, high=200), noise(5, 20, 30, seed=1)
    stego = cover.copy()
    stego[:5] += 1
    files = make(tmp_path, cover=cover, stego=stego, secret=secret, revealed=secret)
    report = evaluation.measure(files)
    assert report["stego_psnr_db"] == pytest.approx(20 * np.log10(255))
    assert report["frames"] == 5
    assert report["capacity_bpp"] == pytest.approx(24 * (20 * 30) / (32 * 48))


def test_a_large_secret_is_measured_as_it_was_hidden(tmp_path):
    secret = noise(3, 64, 60)  # fits into 48x32 as 30x32
    revealed = np.stack([io.resize(frame, 30, 32) for frame in secret])
    cover = noise(3)
    report = evaluation.measure(make(tmp_path, cover=cover, stego=cover, secret=secret, revealed=revealed))
    assert report["secret_psnr_db"] == 100
    assert report["capacity_bpp"] == pytest.approx(24 * 30 / 48)


def test_images(tmp_path):
    cover, secret = noise(1, low=10, high=200), noise(1, 9, 10)
    files = make(tmp_path, ".png", cover=cover, stego=cover + 2, secret=secret, revealed=secret)
    report = evaluation.measure(files)
    assert report["stego_psnr_db"] == pytest.approx(20 * np.log10(255 / 2))
    assert report["frames"] == 1
    assert -1 <= report["secret_ssim"] <= 1  # frames smaller than the window


def test_progress_counts_the_frames(tmp_path):
    clip = noise(6)
    progress = []
    evaluation.measure(make(tmp_path, cover=clip, stego=clip, secret=clip, revealed=clip), progress.append)
    assert sum(progress) == 6 and len(progress) > 1


@pytest.mark.parametrize(
    "frames, count, wanted", [(9, 3, [1, 4, 7]), (6, 3, [0, 2, 4]), (2, 3, [0, 1]), (1, 3, [0]), (5, 1, [2])]
)
def test_picked_frames(tmp_path, frames, count, wanted):
    clip = noise(frames)
    files = make(tmp_path, cover=clip, stego=clip + 1, secret=clip + 2, revealed=clip + 3)
    rows = evaluation.picked_frames(files, count, frames)
    assert [label for label, _ in rows] == [f"frame {n}" for n in wanted]
    for n, (_, row) in zip(wanted, rows, strict=True):
        for i, name in enumerate(("cover", "stego", "secret", "revealed")):
            np.testing.assert_array_equal(row[name], clip[n] + i)


def test_read_together_keeps_the_clips_apart(tmp_path):
    clips = {name: noise(4, seed=i) for i, name in enumerate(evaluation.Files._fields)}
    files = make(tmp_path, **clips)
    together = list(evaluation.read_together(files, 3))
    assert len(together) == 3
    for n, row in enumerate(together):
        assert set(row) == set(clips)
        for name, frame in row.items():
            np.testing.assert_array_equal(frame, clips[name][n])
