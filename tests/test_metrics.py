from functools import partial

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from deepsteg_jax import metrics


def pair(height, width, seed=0, noise=12.0):
    """A smooth picture and a noisy version of it."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    smooth = 128 + 60 * np.sin(0.2 * x + 0.1 * y)[..., None] + 3 * y[..., None] + np.array([0, 10, -20])
    noisy = smooth + rng.normal(0, noise, smooth.shape)
    return tuple(np.clip(np.round(z), 0, 255).astype(np.uint8) for z in (smooth, noisy))


def constant(value, shape=(8, 12, 3)):
    return np.full(shape, value, np.uint8)


@pytest.mark.parametrize(("a", "b", "expected"), [(100, 101, 48.1308), (0, 255, 0.0), (255, 250, 34.1514)])
def test_psnr_known_values(a, b, expected):
    assert metrics.psnr(constant(a), constant(b)) == pytest.approx(expected, abs=1e-4)
    assert metrics.psnr(constant(b), constant(a)) == pytest.approx(expected, abs=1e-4)


def test_psnr_of_identical_frames_is_100():
    assert metrics.psnr(constant(3), constant(3)) == 100


def test_psnr_is_never_above_identical():
    a = np.zeros((240, 240, 3), np.uint8)
    b = a.copy()
    b[0, 0, 0] = 1
    assert 48.13 + 10 * np.log10(a.size) > 100
    assert metrics.psnr(a, b) == 100


def test_psnr_against_skimage():
    a, b = pair(20, 30)
    assert metrics.psnr(a, b) == pytest.approx(peak_signal_noise_ratio(a, b, data_range=255), abs=1e-9)


def ssim_by_hand(a, b):
    """Wang et al. 2004: an 11x11 Gaussian window, only where it lies inside the picture."""
    values = []
    for x, y in zip(np.float64(a).transpose(2, 0, 1), np.float64(b).transpose(2, 0, 1), strict=True):
        blur = partial(gaussian_filter, sigma=1.5, radius=5)
        ux, uy = blur(x), blur(y)
        vx, vy, vxy = blur(x * x) - ux * ux, blur(y * y) - uy * uy, blur(x * y) - ux * uy
        c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
        local = (2 * ux * uy + c1) * (2 * vxy + c2) / ((ux**2 + uy**2 + c1) * (vx + vy + c2))
        values.append(local[5:-5, 5:-5].mean())
    return np.mean(values)


@pytest.mark.parametrize("size", [(11, 11), (11, 40), (24, 32)])
def test_ssim_values(size):
    a, b = pair(*size)
    value = metrics.ssim(a, b)
    assert value == pytest.approx(ssim_by_hand(a, b), abs=1e-6)
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    skimage = structural_similarity(a, b, channel_axis=-1, data_range=255, **options)
    assert value == pytest.approx(skimage, abs=1e-9)
    assert 0.1 < value < 0.95


@pytest.mark.parametrize("size", [(3, 3), (4, 4), (5, 9), (7, 64), (10, 10)])
def test_ssim_of_tiny_frames(size):
    a, b = pair(*size)
    value = metrics.ssim(a, b)
    assert isinstance(value, float)
    assert -1 <= value < 0.999
    assert metrics.ssim(a, a) == pytest.approx(1)


def test_ssim_falls_with_noise():
    values = [metrics.ssim(*pair(24, 32, noise=noise)) for noise in (0, 3, 10, 40)]
    assert values[0] > 0.999
    assert values == sorted(values, reverse=True)
    a, _ = pair(24, 32)
    assert metrics.ssim(a, 255 - a) < 0


def test_ssimulacra2_of_identical_frames_is_100():
    a, b = pair(24, 32)
    assert metrics.ssimulacra2(a, a) == pytest.approx(100)
    assert metrics.ssimulacra2(b, b) == pytest.approx(100)


def test_ssimulacra2_falls_with_noise():
    values = [metrics.ssimulacra2(*pair(24, 32, noise=noise)) for noise in (0, 2, 6, 20)]
    assert all(isinstance(value, float) for value in values)
    assert np.all(np.diff(values) < -3)


def test_mean_psnr_is_the_mean_of_db():
    frames = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), np.uint8)
    others = np.stack([frames[0], frames[1] ^ 1, frames[2] ^ 4])
    assert metrics.mean_psnr(frames, iter(others)) == pytest.approx((100 + 48.1308 + 36.0896) / 3, abs=1e-3)
    with pytest.raises(ValueError):
        metrics.mean_psnr(frames, others[:2])
