"""Bits in symbols: a phase's quarter of the circle gives two bits, each halving of it one more.

The circle is from -1/2 to 1/2. Neighbouring quarters differ in one of their two bits (Gray). Coarse levels
survive more than fine ones; who knows the coarse ones reads the fine ones better.
"""

import numpy as np
from scipy.special import expit

LEVELS = 6  # bits of a symbol: levels 0 and 1 are the quarter's, 2 to 5 halve it
_GRAY = np.array([0, 1, 3, 2], np.uint8)  # 2 * (bit of level 0) + (bit of level 1) of each quarter
_TINY = 1e-9


def to_phases(bits: np.ndarray) -> np.ndarray:
    """Map bits, uint8 [..., LEVELS], to phases in [-1/2, 1/2), float32 [...]: middles of intervals."""
    at = quarter_starts(bits[..., :2]) + 0.5 ** (LEVELS + 1)
    for level in range(2, LEVELS):
        at = at + bits[..., level] * 0.5 ** (level + 1)
    return at.astype(np.float32)


def quarter_starts(bits: np.ndarray) -> np.ndarray:
    """Return where the quarter of two bits, uint8 [..., 2], begins: -1/2, -1/4, 0 or 1/4."""
    return np.argsort(_GRAY)[2 * bits[..., 0] + bits[..., 1]] / 4 - 0.5


def _shares(phase, scale, lost, edges):
    """Return the probability of each interval between neighbouring edges [..., m + 1], up to a factor."""
    below = 0
    for turn in (-1, 0, 1):
        below = below + expit((phase[..., None] - edges + turn) / scale[..., None])
    inside = -np.diff(below, axis=-1)
    return (1 - lost[..., None]) * np.maximum(inside, 0) + lost[..., None] * np.diff(edges, axis=-1) + _TINY


def coarse_llr(phase: np.ndarray, scale: np.ndarray, lost: np.ndarray) -> np.ndarray:
    """Return log-likelihood ratios of levels 0 and 1, positive for 0: [...] -> [..., 2].

    Args:
        phase: as received, [...].
        scale: of the logistic density of its error.
        lost: probability that it says nothing.
    """
    edges = np.broadcast_to(np.linspace(-0.5, 0.5, 5), (*phase.shape, 5))
    share = _shares(phase, scale, lost, edges)[..., np.argsort(_GRAY)]  # in the order of their bits
    first = np.log(share[..., :2].sum(-1)) - np.log(share[..., 2:].sum(-1))
    second = np.log(share[..., ::2].sum(-1)) - np.log(share[..., 1::2].sum(-1))
    return np.stack([first, second], axis=-1)


def finer_llr(
    phase: np.ndarray, scale: np.ndarray, lost: np.ndarray, start: np.ndarray, first: int, count: int
) -> np.ndarray:
    """Return log-likelihood ratios of levels first, ..., first + count - 1 (from 2 on), positive for 0.

    Args:
        phase: as received, [...]; `scale` and `lost` as for `coarse_llr`.
        start: where the interval begins that the coarser levels say, [...].
        first: the coarsest of the levels.
        count: the number of levels.

    Returns:
        [..., count]; each as if the others were not known.
    """
    edges = start[..., None] + 0.5 ** (first + count) * np.arange(2**count + 1)
    share = _shares(phase, scale, lost, edges)
    bits = (np.arange(2**count) >> np.arange(count - 1, -1, -1)[:, None]) & 1  # [count, intervals]
    return np.log(share @ (1 - bits).T) - np.log(share @ bits.T)


def finer_start(start: np.ndarray, bits: np.ndarray, level: int) -> np.ndarray:
    """Return where the interval begins once a level from 2 on is known too."""
    return start + bits * 0.5 ** (level + 1)


def information(llr: np.ndarray, bits: np.ndarray) -> float:
    """Return the mean information, in bits, of log-likelihood ratios about known bits."""
    wrong = (2.0 * bits - 1) * llr
    return float(1 - np.mean(np.logaddexp(0, wrong)) / np.log(2))


def expected_information(llr: np.ndarray) -> float:
    """Return the mean information, in bits, that log-likelihood ratios claim."""
    p = expit(np.abs(llr))
    return float(1 + np.mean(p * np.log2(p) + (1 - p) * np.log2(np.maximum(1 - p, _TINY))))
