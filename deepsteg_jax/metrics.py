"""Image quality, one rule everywhere.

PSNR is in dB over RGB, 8-bit frames, one value a frame; means are means of dB over frames; identical
frames count as 100 dB. SSIM is that of Wang et al. 2004 (Gaussian window, sigma 1.5), mean over RGB.
"""

import numpy as np
from skimage.metrics import structural_similarity

IDENTICAL_DB = 100.0


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    """PSNR of two uint8 frames [h, w, 3] in dB; 100 where they are identical."""
    error = np.mean(np.square(a.astype(np.float64) - b.astype(np.float64)))
    return IDENTICAL_DB if error == 0 else min(IDENTICAL_DB, float(10 * np.log10(255**2 / error)))


def ssim(a: np.ndarray, b: np.ndarray) -> float:
    """SSIM of two uint8 frames [h, w, 3], in [-1, 1]; the window shrinks for frames below 11 pixels."""
    side = min(a.shape[:2])
    if side < 11:
        odd = max(3, side - 1 + side % 2)
        return float(structural_similarity(a, b, channel_axis=-1, data_range=255, win_size=odd))
    return float(
        structural_similarity(
            a,
            b,
            channel_axis=-1,
            data_range=255,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
        )
    )
