"""J-UNIWARD's costs against their definition: change a coefficient, and see what all wavelets do."""

import numpy as np
import pytest
from scipy.fft import idctn
from scipy.signal import correlate2d

from deepsteg_jax.schemes.adaptive import juniward


def wavelets(pixels):
    """All three subbands where the picture, mirrored beyond its edges, has any part."""
    low, high = juniward._LOW, juniward._HIGH
    return [
        correlate2d(pixels, np.outer(*pair), "valid") for pair in ((low, high), (high, low), (high, high))
    ]


def test_costs_are_as_defined():
    rng = np.random.default_rng(0)
    plane = np.round(rng.laplace(0, 3, (3, 4, 8, 8)) / (1 + np.arange(8)))
    steps = rng.integers(1, 30, (8, 8))
    decoded = idctn(plane * steps, axes=(2, 3), norm="ortho").swapaxes(1, 2).reshape(24, 32)
    cover = wavelets(np.pad(decoded, 16, "symmetric"))
    found = np.asarray(juniward.costs(plane, steps))
    for row, column, u, v in ((0, 0, 0, 0), (1, 2, 0, 3), (2, 3, 7, 7), (1, 1, 4, 2)):
        unit = np.zeros((8, 8))
        unit[u, v] = steps[u, v]
        change = np.zeros((24 + 32, 32 + 32))
        change[16 + 8 * row : 24 + 8 * row, 16 + 8 * column : 24 + 8 * column] = idctn(unit, norm="ortho")
        wanted = sum(
            (np.abs(moved) / (np.abs(own) + 2**-6)).sum()
            for moved, own in zip(wavelets(change), cover, strict=True)
        )
        assert found[row, column, u, v] == pytest.approx(wanted, rel=2e-3)


def test_coefficients_stay_in_their_range():
    plane = np.zeros((2, 2, 8, 8), np.int16)
    plane[0, 0, 0, :2] = juniward.LARGEST, -juniward.LARGEST
    allowed = np.isfinite(np.asarray(juniward.changes(plane, np.full((8, 8), 4))))
    assert not allowed[0, 0, 0, 0, 1] and not allowed[0, 0, 0, 1, 0] and allowed.sum() == allowed.size - 2
