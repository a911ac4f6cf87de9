"""What a steganalyser's scores are worth: threshold, accuracy, area under the curve, with intervals."""

from typing import NamedTuple

import numpy as np

RESAMPLES = 1000  # of the bootstrap


class Figures(NamedTuple):
    """Figures of pairs that took no part in the training; intervals of 95 %, bootstrap over pairs."""

    accuracy: float  # at the threshold, covers and stegos alike often
    accuracy_interval: tuple[float, float]
    auc: float  # probability that a stego scores above a cover
    auc_interval: tuple[float, float]
    count: int  # pairs


def best_threshold(covers: np.ndarray, stegos: np.ndarray) -> tuple[float, float]:
    """Return the threshold of fewest errors, the middle one of equals, and the error of both classes."""
    scores = np.concatenate([covers, stegos])
    order = np.argsort(scores, kind="stable")
    is_stego = (np.arange(len(scores)) >= len(covers))[order]
    # Errors when the k smallest scores are called covers.
    errors = np.concatenate([[0], np.cumsum(is_stego)]) / len(stegos)
    errors = errors + np.concatenate([[len(covers)], len(covers) - np.cumsum(~is_stego)]) / len(covers)
    ordered = scores[order]
    edges = np.concatenate([[ordered[0] - 1], (ordered[:-1] + ordered[1:]) / 2, [ordered[-1] + 1]])
    possible = np.concatenate([[True], ordered[:-1] < ordered[1:], [True]])
    best = np.flatnonzero((errors <= errors[possible].min() + 1e-12) & possible)
    index = best[len(best) // 2]
    return float(edges[index]), float(errors[index] / 2)


def auc(covers: np.ndarray, stegos: np.ndarray) -> float:
    """Return the probability that a stego's score is above a cover's; equal ones count half."""
    ordered = np.sort(covers)
    below = np.searchsorted(ordered, stegos, "left") + np.searchsorted(ordered, stegos, "right")
    return float(below.mean() / 2 / len(covers))


def accuracy(covers: np.ndarray, stegos: np.ndarray, threshold: float) -> float:
    """Return the share of right answers at a threshold, both classes weighing the same."""
    return float(((covers <= threshold).mean() + (stegos > threshold).mean()) / 2)


def separation(covers: np.ndarray, stegos: np.ndarray) -> float:
    """Return how far the mean scores of both classes lie apart, in standard deviations of a class.

    d' of Green and Swets 1966, "Signal Detection Theory and Psychophysics": it still tells detectors apart
    that are right about everything.
    """
    deviation = np.sqrt((covers.var(ddof=1) + stegos.var(ddof=1)) / 2)
    return float((stegos.mean() - covers.mean()) / max(deviation, 1e-12))


def pool(scores: np.ndarray, frames: int) -> np.ndarray:
    """Average the scores of `frames` consecutive frames of each clip: [clips, n] -> [clips, n // frames]."""
    count = scores.shape[1] // frames
    return scores[:, : count * frames].reshape(len(scores), count, frames).mean(axis=2)


def measure(covers: np.ndarray, stegos: np.ndarray, threshold: float | np.ndarray, seed: int = 0) -> Figures:
    """Measure the scores of pairs.

    Args:
        covers: scores of n covers, [n], or of several parts of each, [n, m].
        stegos: of the stegos made of them.
        threshold: from training data; [n] where pairs belong to different training sets.
        seed: of the bootstrap.
    """
    threshold = np.broadcast_to(threshold, len(covers))[:, None]
    covers, stegos = (x.reshape(len(x), -1) - threshold for x in (covers, stegos))
    right = ((covers <= 0) + (stegos > 0).astype(float)).mean(axis=1) / 2
    rng, count = np.random.default_rng(seed), len(covers)
    samples = rng.integers(0, count, (RESAMPLES, count))
    areas = [auc(covers[s].ravel(), stegos[s].ravel()) for s in samples]
    return Figures(
        float(right.mean()),
        _interval(right[samples].mean(axis=1), right.mean() * count, count),
        auc(covers.ravel(), stegos.ravel()),
        tuple(float(x) for x in np.quantile(areas, (0.025, 0.975))),
        count,
    )


def _interval(means: np.ndarray, right: float, count: int) -> tuple[float, float]:
    """Return the bootstrap's interval; where all or no answers are right, Wilson's, which has a width."""
    if 0 < right < count:
        return tuple(float(x) for x in np.quantile(means, (0.025, 0.975)))
    width = 1.96**2 / (count + 1.96**2)
    return (1 - width, 1.0) if right else (0.0, width)
