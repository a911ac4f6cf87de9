"""Features on small planes, against what their definitions count one by one."""

from collections import Counter
from itertools import product

import numpy as np
import pytest
from scipy.fft import dctn
from scipy.signal import correlate2d

from deepsteg_jax.steganalysis import features


@pytest.fixture
def planes(rng):
    return rng.integers(100, 108, (3, 12, 14)).astype(np.uint8)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def spam_by_definition(plane: np.ndarray) -> np.ndarray:
    """Second-order Markov chains of differences along eight directions, sample by sample."""
    x, averages = plane.astype(int), []
    for steps in (((0, 1), (0, -1), (1, 0), (-1, 0)), ((1, 1), (-1, -1), (1, -1), (-1, 1))):
        total = np.zeros((7, 7, 7))
        for dy, dx in steps:
            counts = np.zeros((7, 7, 7))
            for i, j in product(*map(range, x.shape)):
                places = [(i + k * dy, j + k * dx) for k in range(4)]
                if all(0 <= a < x.shape[0] and 0 <= b < x.shape[1] for a, b in places):
                    values = [x[place] for place in places]
                    step = [int(np.clip(a - b, -3, 3)) + 3 for a, b in zip(values, values[1:], strict=False)]
                    counts[tuple(step)] += 1
            total += counts / np.maximum(counts.sum(axis=2, keepdims=True), 1)
        averages.append(total.ravel() / 4)
    return np.concatenate(averages)


def test_spam_is_as_defined(planes):
    found = features.spam(planes[:2])
    assert found.shape == (2 * 686,) and found.dtype == np.float32
    for plane, part in zip(planes[:2], np.split(found, 2), strict=True):
        np.testing.assert_allclose(part, spam_by_definition(plane), atol=1e-6)


def test_first_co_occurrence_of_the_rich_model_is_as_defined(planes):
    counts = Counter()
    for plane in planes.astype(int):
        for x in (plane, plane.T):  # residuals to the right and down, each along its direction
            residual = np.clip(x[:, 1:] - x[:, :-1], -2, 2)
            for row in residual:
                for i in range(len(row) - 3):
                    four = tuple(row[i : i + 4])
                    alike = [four, four[::-1]]
                    alike += [tuple(-v for v in t) for t in alike]
                    counts[min(alike)] += 1
    order = sorted({min(t, t[::-1], tuple(-v for v in t), tuple(-v for v in t[::-1]))
                    for t in product(range(-2, 3), repeat=4)})  # fmt: skip
    expected = np.array([counts[t] for t in order]) / sum(counts.values())
    assert len(order) == 169
    np.testing.assert_allclose(features.srm(planes)[:169], expected, atol=1e-6)


def test_the_rich_model_has_a_length_for_each_kind_of_picture(planes):
    y, cb, cr = planes[0], planes[1][::2, ::2], planes[2][::2, ::2]
    assert features.srm(planes).shape == (2 * 2652 + 2232,)
    assert features.srm([y]).shape == (2652,) and features.srm([y, cb, cr]).shape == (2 * 2652,)


@pytest.mark.parametrize("extract", [features.spam, features.srm])
def test_features_do_not_see_brightness_mirrors_and_quarter_turns(extract, planes):
    found = extract(planes)
    for other in (planes + 40, planes[:, ::-1], planes[:, :, ::-1], planes.swapaxes(1, 2)):
        np.testing.assert_allclose(extract(other), found, atol=1e-6)


def test_negatives_count_the_same(planes):
    np.testing.assert_allclose(features.srm(255 - planes), features.srm(planes), atol=1e-6)


@pytest.mark.parametrize(("divisor", "limit"), [(2, 2), (3, 3), (12, 2)])
def test_residuals_are_rounded_and_truncated(divisor, limit):
    residual = np.arange(-100, 101, dtype=np.int16)
    expected = np.sign(residual) * np.floor(np.abs(residual) / divisor + 0.5)
    found = features._quantise(residual, divisor, limit)
    np.testing.assert_array_equal(found, np.clip(expected, -limit, limit))


def test_dctr_is_as_defined(rng):
    pixels, step = rng.normal(128, 20, (18, 21)), 4.0  # of quality 75
    wanted = np.zeros((64, 25, 5))
    for top, left in product(range(11), range(14)):
        block = dctn(pixels[top : top + 8, left : left + 8] - 128, norm="ortho")
        values = np.minimum(np.floor(np.abs(block) / step + 0.5), 4).astype(int).ravel()
        place = 5 * min(top % 8, -top % 8) + min(left % 8, -left % 8)
        wanted[np.arange(64), place, values] += 1
    wanted /= wanted.sum(2, keepdims=True)
    np.testing.assert_allclose(features.dctr(pixels, 75), wanted.ravel(), atol=1e-6)


def test_gfr_counts_gabor_residuals_by_their_place(rng):
    pixels = rng.normal(128, 20, (19, 22))
    found = features.gfr(pixels, 75).reshape(4, 2, 5, 25, 5)
    np.testing.assert_allclose(found.sum(-1), 1, atol=1e-6)
    # The odd filter of scale 0.75 across the picture, whose sum is zero by itself, at places in columns of 0.
    y, x = np.mgrid[:8, :8] - 3.5
    kernel = -np.exp(-(x**2 + y**2 / 4) / (2 * 0.75**2)) * np.sin(2 * np.pi * 0.56 / 0.75 * x)
    residual = np.abs(correlate2d(pixels, kernel, "valid"))[:, ::8]  # steps of scale 0.75: 4
    values = np.minimum(np.floor(residual / 4 + 0.5), 4).astype(int)
    for distance in range(5):
        rows = [i for i in range(12) if min(i % 8, -i % 8) == distance]
        counts = np.bincount(values[rows].ravel(), minlength=5)
        np.testing.assert_allclose(found[1, 1, 0, 5 * distance], counts / counts.sum(), atol=1e-6)


def test_gfr_is_the_same_of_mirrored_and_of_brighter_planes(rng):
    pixels = rng.normal(120, 20, (24, 32))
    plain = features.gfr(pixels, 95)
    assert plain.shape == (5000,)
    for other in (pixels[::-1], pixels[:, ::-1], pixels + 8):
        np.testing.assert_allclose(features.gfr(other, 95), plain, atol=0.05)
        # Values between two steps fall to either side by rounding; they are few.
        assert (np.abs(features.gfr(other, 95) - plain) > 1e-6).mean() < 0.01
    assert np.abs(features.gfr(np.roll(pixels, 1, 0), 95) - plain).max() > 0.05  # out of the grid of blocks
