"""Image quality, one rule everywhere.

PSNR is in dB over RGB, 8-bit frames, one value a frame; means are means of dB over frames; identical
frames count as 100 dB. SSIM is that of Wang et al. 2004 (Gaussian window, sigma 1.5), mean over RGB.
SSIMULACRA2 (Cloudinary 2023) is a perceptual score: 100 identical, 90 not told apart, 70 high quality.
"""

from collections.abc import Iterable
from io import BytesIO

import numpy as np
from jaxtyping import UInt8
from PIL import Image
from skimage.metrics import structural_similarity

from deepsteg_jax.shapes import Array

IDENTICAL_DB = 100.0
Picture = UInt8[Array, "h w 3"]


def psnr(a: Picture, b: Picture) -> float:
    """Return the PSNR of two frames in dB; 100 where they are identical."""
    error = np.mean(np.square(a.astype(np.float64) - b.astype(np.float64)))
    return IDENTICAL_DB if error == 0 else min(IDENTICAL_DB, float(10 * np.log10(255**2 / error)))


def mean_psnr(a: Iterable[Picture], b: Iterable[Picture]) -> float:
    """Return the mean over frames of `psnr`, dB, of two clips of as many frames."""
    return float(np.mean([psnr(x, y) for x, y in zip(a, b, strict=True)]))


def ssim(a: Picture, b: Picture) -> float:
    """Return the SSIM of two frames, in [-1, 1]; the window shrinks for frames below 11 pixels."""
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


def ssimulacra2(a: Picture, b: Picture) -> float:
    """Return the SSIMULACRA2 of two frames, the first one the original; at most 100."""
    from ssimulacra2 import compute_ssimulacra2  # only the benchmark needs it

    return float(compute_ssimulacra2(_as_file(a), _as_file(b)))


def _as_file(frame: np.ndarray) -> BytesIO:
    file = BytesIO()
    Image.fromarray(frame).save(file, "BMP")
    file.seek(0)
    return file
