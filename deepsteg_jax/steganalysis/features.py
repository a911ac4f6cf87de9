"""Features that change when something is embedded: SPAM, a compact colour rich model; DCTR and GFR for JPEGs.

A picture is a sequence of planes, uint8 [h, w]: R, G and B, or Y, Cb and Cr at their own sizes.
"""

from collections.abc import Sequence
from functools import cache
from itertools import groupby, product

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from scipy import fft

SPAM_LIMIT = 3  # differences are truncated to -3..3
SPATIAL_LIMIT, COLOUR_LIMIT = 2, 3  # the same of residuals
LINES = FIRST, SECOND, THIRD = (-1, 1), (1, -2, 1), (1, -3, 3, -1)  # residuals along a line
EDGE = np.array([[-1, 2, -1], [2, -4, 2]])  # the upper part of KB: a neighbourhood that stops at an edge
KB = np.array([[-1, 2, -1], [2, -4, 2], [-1, 2, -1]])
KV = np.array(
    [[-1, 2, -2, 2, -1], [2, -6, 8, -6, 2], [-2, 8, -12, 8, -2], [2, -6, 8, -6, 2], [-1, 2, -2, 2, -1]]
)

PHASE_LIMIT = 4  # of quantised magnitudes, in DCTR and GFR
GABOR_SCALES = (0.5, 0.75, 1.0, 1.25)  # standard deviations of the window, pixels
GABOR_TURNS = 8  # orientations
HALF = 0.5 + 1e-9  # in the grid of blocks many magnitudes lie between two steps: the higher one is taken

Planes = Sequence[np.ndarray]


def spam(planes: Planes) -> np.ndarray:
    """Return second-order SPAM features with T = 3 of every plane, float32 [686 * len(planes)].

    Pevny, Bas and Fridrich 2010, "Steganalysis by Subtractive Pixel Adjacency Matrix": probabilities of a
    difference of neighbours given the two before it, averaged over the four straight directions and over the
    four diagonal ones.
    """
    return np.concatenate([_spam_of_plane(plane.astype(np.int16)) for plane in planes])


def _spam_of_plane(plane: np.ndarray) -> np.ndarray:
    base = 2 * SPAM_LIMIT + 1
    averages = []
    for steps in (((0, 1), (1, 0)), ((1, 1), (1, -1))):
        total = np.zeros((base,) * 3)
        for step in steps:
            shifts = [(step[0] * i, step[1] * i) for i in range(4)]
            a, b, c, d = _shifted(plane, shifts)
            digits = [np.clip(x - y, -SPAM_LIMIT, SPAM_LIMIT) for x, y in ((a, b), (b, c), (c, d))]
            counts = _count(digits, SPAM_LIMIT).reshape((base,) * 3)
            # The opposite direction sees the differences in reverse, with the other sign.
            total += _conditional(counts) + _conditional(counts.transpose(2, 1, 0)[::-1, ::-1, ::-1])
        averages.append(total.ravel() / 4)
    return np.concatenate(averages).astype(np.float32)


def _conditional(counts: np.ndarray) -> np.ndarray:
    return counts / np.maximum(counts.sum(axis=2, keepdims=True), 1)


def srm(planes: Planes) -> np.ndarray:
    """Return a compact rich model of planes, float32: 2,652 features of planes of one size.

    A selection of the residuals of Fridrich and Kodovsky 2012, "Rich Models for Steganalysis of Digital
    Images", with q = 1: co-occurrences of four neighbours, summed over planes of one size that follow one
    another. Three planes of one size add 2,232 co-occurrences of a pixel's three residuals (Goljan, Fridrich
    and Cogranne 2014, "Rich Model for Steganalysis of Color Images"), and the co-occurrences of neighbours in
    the differences of the first and the third plane to the second.
    """
    parts = []
    for _, group in groupby(planes, np.shape):
        stack = np.stack(list(group)).astype(np.int16)
        parts += _rich_model(stack, with_colour=len(stack) == 3)
        if len(stack) == 3:
            parts += _rich_model(stack[::2] - stack[1], with_colour=False)
    return np.concatenate(parts).astype(np.float32)


def _rich_model(x: np.ndarray, with_colour: bool) -> list[np.ndarray]:
    """Return the co-occurrences of all residuals of [c, h, w]."""
    parts = []
    for pairs, divisor in _linear_residuals(x):
        small = [_quantise(r, divisor, SPATIAL_LIMIT) for r in pairs]
        if len(small) == 2:  # across, down: along the direction of the residual, and across it
            parts.append(_neighbours(small[0], 2, True) + _neighbours(small[1], 1, True))
            parts.append(_neighbours(small[0], 1, True) + _neighbours(small[1], 2, True))
        else:
            parts.append(_neighbours(small[0], 1, True) + _neighbours(small[0], 2, True))
        if with_colour:
            large = [_quantise(r, divisor, COLOUR_LIMIT) for r in pairs]
            parts.append(sum(_colours(r, True) for r in large))
    for residuals, divisor in _extreme_residuals(x):
        low, high = np.minimum.reduce(residuals), np.maximum.reduce(residuals)
        # The minimum of residuals is minus the maximum of residuals of the other sign.
        small = [_quantise(r, divisor, SPATIAL_LIMIT) for r in (low, -high)]
        parts.append(sum(_neighbours(r, axis, False) for r in small for axis in (1, 2)))
        if with_colour:
            parts.append(sum(_colours(_quantise(r, divisor, COLOUR_LIMIT), False) for r in (low, -high)))
    return [part / max(part.sum(), 1) for part in parts]


def _linear_residuals(x: np.ndarray) -> list[tuple[list[np.ndarray], int]]:
    """Return residuals in both directions, or in one that has none, each with its divisor."""
    lines = [
        ([_along(x, taps, 2), _along(x, taps, 1)], max(map(abs, taps))) for taps in (FIRST, SECOND, THIRD)
    ]
    return [*lines, ([_filter(x, KB)], 4), ([_filter(x, KV)], 12)]


def _extreme_residuals(x: np.ndarray) -> list[tuple[list[np.ndarray], int]]:
    """Return residuals at the same pixels in several directions, whose extremes count."""
    offsets = {
        FIRST: [[(0, 0), step] for step in _STRAIGHT],
        SECOND: [[(0, -1), (0, 0), (0, 1)], [(-1, 0), (0, 0), (1, 0)]],
        THIRD: [[(-y, -x), (0, 0), (y, x), (2 * y, 2 * x)] for y, x in _STRAIGHT],
    }
    found = []
    for taps, directions in offsets.items():
        reach = 2 if taps == THIRD else 1
        residuals = [
            sum(tap * _at(x, offset, reach) for tap, offset in zip(taps, where, strict=True))
            for where in directions
        ]
        found.append((residuals, max(map(abs, taps))))
    edges = []
    for turn in range(4):
        kernel = np.rot90(np.vstack([EDGE, np.zeros((1, 3), int)]), turn)
        edges.append(_filter(x, kernel))
    return [*found, (edges, 4)]


_STRAIGHT = ((0, 1), (0, -1), (1, 0), (-1, 0))


def _at(x: np.ndarray, offset: tuple[int, int], reach: int) -> np.ndarray:
    """Return [c, h - 2 reach, w - 2 reach]: the neighbour at that offset of every inner pixel."""
    (y, z), (_, h, w) = offset, x.shape
    return x[:, reach + y : h - reach + y, reach + z : w - reach + z]


def _along(x: np.ndarray, taps: Sequence[int], axis: int) -> np.ndarray:
    length = x.shape[axis] - len(taps) + 1
    return sum(tap * x.take(range(i, i + length), axis) for i, tap in enumerate(taps))


def _filter(x: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Correlate [c, h, w] with an integer kernel, without what lies beyond the edges."""
    reach = len(kernel) // 2
    return sum(
        int(kernel[i, j]) * _at(x, (i - reach, j - reach), reach)
        for i, j in product(range(len(kernel)), repeat=2)
        if kernel[i, j]
    )


def _quantise(residual: np.ndarray, divisor: int, limit: int) -> np.ndarray:
    """Return round(residual / divisor), halves away from zero, within -limit..limit."""
    if divisor == 1:
        return np.clip(residual, -limit, limit)
    bound = divisor * (limit + 1)
    return _rounding_table(divisor, limit)[np.clip(residual, -bound, bound) + bound]


@cache
def _rounding_table(divisor: int, limit: int) -> np.ndarray:
    bound = divisor * (limit + 1)
    x = np.arange(-bound, bound + 1)
    return np.clip(np.sign(x) * ((2 * np.abs(x) + divisor) // (2 * divisor)), -limit, limit).astype(np.int16)


def _shifted(plane: np.ndarray, shifts: Sequence[tuple[int, int]]) -> list[np.ndarray]:
    """Return views of a plane at those shifts, of the size that all of them have."""
    ys, xs = zip(*shifts, strict=True)
    top, left = -min(ys), -min(xs)
    height, width = plane.shape[0] - max(ys) - top, plane.shape[1] - max(xs) - left
    return [plane[top + y : top + y + height, left + x : left + x + width] for y, x in shifts]


def _count(digits: Sequence[np.ndarray], limit: int) -> np.ndarray:
    """Return a histogram of tuples of digits in -limit..limit, the first one most significant."""
    base = 2 * limit + 1
    index = digits[0] + limit
    for digit in digits[1:]:
        index = index * base + (digit + limit)
    return np.bincount(index.ravel(), minlength=base ** len(digits))


def _neighbours(x: np.ndarray, axis: int, signs: bool) -> np.ndarray:
    """Count four neighbours along an axis of [c, h, w]; see `_orbits` for the tuples that count as one."""
    length = x.shape[axis] - 3
    views = [x[:, i : i + length] if axis == 1 else x[:, :, i : i + length] for i in range(4)]
    return np.bincount(_orbits(4, SPATIAL_LIMIT, True, signs), _count(views, SPATIAL_LIMIT))


def _colours(x: np.ndarray, signs: bool) -> np.ndarray:
    """Count the three residuals of each pixel of [3, h, w]."""
    return np.bincount(_orbits(3, COLOUR_LIMIT, False, signs), _count(list(x), COLOUR_LIMIT))


@cache
def _orbits(count: int, limit: int, mirrored: bool, signs: bool) -> np.ndarray:
    """Number tuples so that those alike have one number: reversed ones, and those of the other sign."""
    digits = np.array(list(product(range(-limit, limit + 1), repeat=count)))
    alike = [digits, digits[:, ::-1]] if mirrored else [digits]
    alike += [-x for x in alike] if signs else []
    weights = (2 * limit + 1) ** np.arange(count)[::-1]
    smallest = np.min([(x + limit) @ weights for x in alike], axis=0)
    return np.unique(smallest, return_inverse=True)[1]


def dctr(pixels: np.ndarray, quality: int) -> np.ndarray:
    """Return DCTR features of a plane of a JPEG, float32 [8000].

    Holub and Fridrich 2015, "Low-Complexity Features for JPEG Steganalysis Using Undecimated DCT": histograms
    of the DCT at every pixel, one for each frequency and each place in the grid of blocks; mirrored places
    count as one.

    Args:
        pixels: float [h, w], decoded and not rounded.
        quality: of the JPEG, 50 to 100, which decides the step of the quantiser.
    """
    basis = fft.idct(np.eye(8), axis=0, norm="ortho").T  # [frequency, place]
    rows = np.einsum("nwp,fp->fnw", sliding_window_view(pixels - 128.0, 8, 1), basis)
    found, step, places = [], _step(quality), _places(*pixels.shape)
    for one in basis:
        for row in rows:
            transformed = sum(one[i] * row[i : i + len(row) - 7] for i in range(8))
            counts = _by_place(transformed, step, places)
            found.append(counts / counts.sum(1, keepdims=True))
    return np.concatenate(found).astype(np.float32).ravel()


def gfr(pixels: np.ndarray, quality: int) -> np.ndarray:
    """Return GFR features of a plane of a JPEG, float32 [5000].

    Song, Liu, Yang, Luo and Zhang 2015, "Steganalysis of Adaptive JPEG Steganography Using 2D Gabor Filters":
    histograms of Gabor residuals, one for each filter and each place in the grid of blocks; mirrored places
    and mirrored filters count as one. Of eight orientations instead of 32; the quantiser's steps are those of
    the paper at quality 75 and 0.8 of them at 95.

    Args:
        pixels: as for `dctr`.
        quality: as for `dctr`.
    """
    height, width = pixels.shape
    spectrum, places = fft.rfft2(pixels.astype(np.float32) - 128), _places(height, width)
    found = []
    for scale, kernels in enumerate(_gabor_spectra(height, width)):
        residuals = fft.irfft2(spectrum * kernels, (height, width))[:, : height - 7, : width - 7]
        counts = [_by_place(x, (scale // 2 + 1) * _step(quality) / 2, places) for x in residuals]
        for i in range(GABOR_TURNS // 2 + 1):
            merged = counts[i] + counts[-i] if i % (GABOR_TURNS // 2) else counts[i]
            found.append(merged / merged.sum(1, keepdims=True))
    return np.concatenate(found).astype(np.float32).ravel()


@cache
def _gabor_spectra(height: int, width: int) -> list[np.ndarray]:
    """Return what correlates with Gabor filters: of each scale, even and odd, one for each orientation."""
    y, x = np.mgrid[:8, :8] - 3.5
    found = []
    for scale, phase in product(GABOR_SCALES, (0, np.pi / 2)):
        kernels = []
        for turn in np.pi * np.arange(GABOR_TURNS) / GABOR_TURNS:
            along, across = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
            window = np.exp(-(along**2 + (across / 2) ** 2) / (2 * scale**2))
            kernel = window * np.cos(2 * np.pi * 0.56 / scale * along + phase)
            kernels.append(kernel - window * kernel.sum() / window.sum())  # brightness has no residual
        found.append(np.conj(fft.rfft2(np.float32(kernels), (height, width))))
    return found


def _step(quality: int) -> float:
    """Return DCTR's step of the quantiser."""
    return max(8 * (2 - quality / 50), 0.2)


def _places(height: int, width: int) -> np.ndarray:
    """Number the places of 8x8 windows in the grid of blocks, mirrored ones alike: [h - 7, w - 7]."""
    cell = [np.minimum(np.arange(size - 7) % 8, -np.arange(size - 7) % 8) for size in (height, width)]
    return 5 * cell[0][:, None] + cell[1]


def _by_place(residual: np.ndarray, step: float, places: np.ndarray) -> np.ndarray:
    """Count the quantised magnitudes at each place, [25, PHASE_LIMIT + 1]."""
    values = np.minimum(np.abs(residual) / step + HALF, PHASE_LIMIT).astype(int)
    numbers = (PHASE_LIMIT + 1) * places + values
    return np.bincount(numbers.ravel(), minlength=25 * (PHASE_LIMIT + 1)).reshape(25, -1)
