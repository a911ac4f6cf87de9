"""Tests that need no training: can these samples have come out of the cover's codec?

Each returns a figure and has a bound, set beforehand by what rounding allows. They say nothing about covers
that no codec has touched since they were scaled.
"""

import numpy as np
from scipy import fft

from deepsteg_jax.colour import LUMA

LATTICE_BOUND = 0.001
"""Most of `off_lattice` in a picture that was 4:2:0: none, but for a decoder that rounds in other places."""

ERROR_BOUND = 0.352
"""Most of `quantisation_error` in a decoded JPEG: Y is rounded once, R, G and B once more, sqrt(1/12 + sum of
the squared weights of luma / 12) = 0.347, and one in a hundred of it for what blocks differ."""

BLOCK = 8
COARSE = 4  # quantiser from which on an error is told from the lattice


def off_lattice(frame: np.ndarray) -> float:
    """Return the share of 2x2 blocks of RGB, uint8 [h, w, 3], that no 4:2:0 picture decodes to.

    A decoder that repeats chroma adds the same to the luma of all four pixels: R - G and B - G are equal but
    for rounding. Blocks begin at even rows and columns; those with black or white samples are left out.
    """
    height, width = (2 * (x // 2) for x in frame.shape[:2])
    blocks = _blocks(frame[:height, :width], 2).astype(int).reshape(-1, 4, 3)
    differences = blocks[..., ::2] - blocks[..., 1:2]
    return float((np.ptp(differences, axis=1).max(axis=1) > 1).mean()) if len(blocks) else 0.0


def quantisation_error(frame: np.ndarray, quantisers: np.ndarray) -> float:
    """Return the rms distance of luma's DCT coefficients from the lattice of a JPEG, in grey levels.

    Args:
        frame: RGB, uint8 [h, w, 3]; the JPEG's blocks begin at its corner. Blocks with black or white samples
            are left out.
        quantisers: of the JPEG's luma, [8, 8].
    """
    height, width = (BLOCK * (x // BLOCK) for x in frame.shape[:2])
    blocks = _blocks(frame[:height, :width], BLOCK)
    coefficients = fft.dctn(blocks @ LUMA.astype(float) - 128, axes=(1, 2), norm="ortho")
    errors = coefficients - quantisers * np.round(coefficients / quantisers)
    coarse = errors[:, quantisers >= COARSE]
    return float(np.sqrt(np.mean(np.square(coarse)))) if coarse.size else 0.0


def _blocks(frame: np.ndarray, size: int) -> np.ndarray:
    """Cut [h, w, 3] into blocks [n, size, size, 3] and leave out those with samples that may be clipped."""
    height, width = frame.shape[:2]
    blocks = frame.reshape(height // size, size, width // size, size, 3).swapaxes(1, 2)
    blocks = blocks.reshape(-1, size, size, 3)
    return blocks[(blocks.min(axis=(1, 2, 3)) > 0) & (blocks.max(axis=(1, 2, 3)) < 255)]
