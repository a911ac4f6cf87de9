"""Bits in symbols: a phase's quarter of the circle gives two bits, each halving of it one more.

The circle is from -1/2 to 1/2. Neighbouring quarters differ in one of their two bits (Gray). Coarse levels
survive more than fine ones; who knows the coarse ones reads the fine ones better.
"""

import numpy as np
from scipy.special import expit

from deepsteg_jax.models.symbols import FLANK

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


def finest_starts(bits: np.ndarray) -> np.ndarray:
    """Return where in its quarter the interval of all levels of bits, uint8 [..., LEVELS], begins."""
    return bits[..., 2:] @ 0.5 ** np.arange(3, LEVELS + 1)


def _below(x, scale, top):
    """Return the probability that an error is below x; see `symbols.error_density`."""
    if not top:
        return expit(x / scale)
    flank, half = FLANK * scale, top * scale / 2
    return flank / (2 * half) * (np.logaddexp(0, (x + half) / flank) - np.logaddexp(0, (x - half) / flank))


def _shares(phase, scale, lost, edges, top=0.0):
    """Return the probability of each interval between neighbouring edges [..., m + 1], up to a factor."""
    below = 0
    for turn in (-1, 0, 1):
        below = below + _below(phase[..., None] - edges + turn, scale[..., None], top)
    inside = -np.diff(below, axis=-1)
    return (1 - lost[..., None]) * np.maximum(inside, 0) + lost[..., None] * np.diff(edges, axis=-1) + _TINY


def quarter_shares(
    phase: np.ndarray, scale: np.ndarray, lost: np.ndarray, at: np.ndarray | None = None, top: float = 0.0
) -> np.ndarray:
    """Return the probability of each quarter, up to a factor, in the order of its bits: [...] -> [..., 4].

    Args:
        phase: as received, [...].
        scale: of the logistic density of its error.
        lost: probability that it says nothing.
        at: where in its quarter each phase is, see `finest_starts`; None: that is not known.
        top: of the density of its error, see `symbols.error_density`.
    """
    quarters = np.linspace(-0.5, 0.5, 5)
    if at is None:
        share = _shares(phase, scale, lost, np.broadcast_to(quarters, (*phase.shape, 5)), top)
    else:
        edges = quarters[:4, None] + at[..., None, None] + [0, 0.5**LEVELS]
        share = _shares(phase[..., None], scale[..., None], lost[..., None], edges, top)[..., 0]
    return share[..., np.argsort(_GRAY)]


def coarse_llr(phase: np.ndarray, scale: np.ndarray, lost: np.ndarray) -> np.ndarray:
    """Return log-likelihood ratios of levels 0 and 1, positive for 0: [...] -> [..., 2]."""
    return share_llr(quarter_shares(phase, scale, lost))


def share_llr(share: np.ndarray) -> np.ndarray:
    """Return log-likelihood ratios of levels 0 and 1, of `quarter_shares`: [..., 4] -> [..., 2]."""
    first = np.log(share[..., :2].sum(-1)) - np.log(share[..., 2:].sum(-1))
    second = np.log(share[..., ::2].sum(-1)) - np.log(share[..., 1::2].sum(-1))
    return np.stack([first, second], axis=-1)


def half_llr(share: np.ndarray, bits: np.ndarray) -> np.ndarray:
    """Return log-likelihood ratios of level 0 where it may be that of a quarter or of the opposite one.

    Args:
        share: see `quarter_shares`, [n, 4].
        bits: of either of both quarters, uint8 [n, 2].
    """
    number, symbols = 2 * bits[:, 0] + bits[:, 1], np.arange(len(bits))
    ratio = np.log(share[symbols, number]) - np.log(share[symbols, 3 - number])
    return ratio * (1 - 2.0 * bits[:, 0])


def finer_llr(
    phase: np.ndarray,
    scale: np.ndarray,
    lost: np.ndarray,
    start: np.ndarray,
    first: int,
    count: int,
    top: float = 0.0,
) -> np.ndarray:
    """Return log-likelihood ratios of levels first, ..., first + count - 1 (from 2 on), positive for 0.

    Args:
        phase: as received, [...]; `scale` and `lost` as for `coarse_llr`.
        start: where the interval begins that the coarser levels say, [...].
        first: the coarsest of the levels.
        count: the number of levels.
        top: as for `coarse_llr`.

    Returns:
        [..., count]; each as if the others were not known.
    """
    edges = start[..., None] + 0.5 ** (first + count) * np.arange(2**count + 1)
    share = _shares(phase, scale, lost, edges, top)
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
