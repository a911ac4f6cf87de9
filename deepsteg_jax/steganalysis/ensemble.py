"""The linear ensemble: Fisher discriminants on random subspaces of the features.

Kodovsky, Fridrich and Holub 2012, "Ensemble Classifiers for Steganalysis of Digital Media", with the mean of
the projections instead of votes, so that scores of several frames can be pooled.
"""

from typing import NamedTuple

import numpy as np

from deepsteg_jax.steganalysis.scores import best_threshold

SUBSPACES = (50, 200, 400)  # dimensions that are tried; out-of-bag errors choose
TRIED = 10  # learners that each of them is tried with
RIDGE = 1e-5  # of the mean variance, added to the diagonal of a covariance


class Ensemble(NamedTuple):
    """A trained ensemble; a score above `threshold` says stego."""

    weights: np.ndarray  # [d]
    bias: float
    threshold: float  # that makes fewest errors on the out-of-bag scores of the training pairs


def score(ensemble: Ensemble, features: np.ndarray) -> np.ndarray:
    """Return the scores of features [n, d]: about -1/2 for covers, 1/2 for stegos, [n]."""
    return features @ ensemble.weights + ensemble.bias


def train(
    covers: np.ndarray, stegos: np.ndarray, seed: int, learners: int = 40, groups: np.ndarray | None = None
) -> Ensemble:
    """Train on pairs.

    Args:
        covers: features of n > 1 covers, [n, d].
        stegos: of the stegos made of them, [n, d].
        seed: of the subspaces and of the pairs that each learner sees.
        learners: number of discriminants.
        groups: of each pair, [n]: pairs of one clip go into the bag together. By default each is its own.
    """
    mean, deviation = covers.mean(axis=0), covers.std(axis=0)
    live = np.flatnonzero(deviation > 1e-12)
    scaled = [((x[:, live] - mean[live]) / deviation[live]).astype(np.float64) for x in (covers, stegos)]
    groups = np.unique(np.arange(len(covers)) if groups is None else groups, return_inverse=True)[1]
    sizes = sorted({min(size, len(live)) for size in SUBSPACES})
    size = min(sizes, key=lambda size: _grow(*scaled, groups, size, TRIED, seed).error)
    grown = _grow(*scaled, groups, size, learners, seed + 1)
    weights = np.zeros(covers.shape[1])
    weights[live] = grown.weights / deviation[live]
    return Ensemble(weights, grown.bias - float(mean @ weights), grown.threshold)


class _Grown(NamedTuple):
    weights: np.ndarray
    bias: float
    threshold: float
    error: float  # out of bag, at the threshold


def _grow(
    covers: np.ndarray, stegos: np.ndarray, groups: np.ndarray, size: int, learners: int, seed: int
) -> _Grown:
    """Train discriminants on bootstrap samples of the groups and subspaces of `size` dimensions."""
    rng, (pairs, dimensions) = np.random.default_rng(seed), covers.shape
    weights, bias = np.zeros(dimensions), 0.0
    sums, counts = np.zeros((2, pairs)), np.zeros(pairs)  # of the scores of pairs out of the bag
    for _ in range(learners):
        chosen = rng.choice(dimensions, size, replace=False)
        drawn = np.bincount(rng.integers(0, groups.max() + 1, groups.max() + 1), minlength=groups.max() + 1)
        bag, out = np.repeat(np.arange(pairs), drawn[groups]), np.flatnonzero(drawn[groups] == 0)
        own, shift = _discriminate(covers[np.ix_(bag, chosen)], stegos[np.ix_(bag, chosen)])
        weights[chosen] += own / learners
        bias += shift / learners
        for total, x in zip(sums, (covers, stegos), strict=True):
            total[out] += x[np.ix_(out, chosen)] @ own + shift
        counts[out] += 1
    seen = counts > 0
    scores = sums[:, seen] / counts[seen]
    threshold, error = best_threshold(*scores)
    return _Grown(weights, bias, threshold, error)


def _discriminate(covers: np.ndarray, stegos: np.ndarray) -> tuple[np.ndarray, float]:
    """Return weights and bias of Fisher's discriminant, scaled to means of -1/2 and 1/2."""
    means = covers.mean(axis=0), stegos.mean(axis=0)
    within = sum((x - m).T @ (x - m) for x, m in zip((covers, stegos), means, strict=True)) / len(covers)
    within[np.diag_indices_from(within)] += RIDGE * np.trace(within) / len(within) + 1e-12
    weights = np.linalg.solve(within, means[1] - means[0])
    weights /= max(float(weights @ (means[1] - means[0])), 1e-12)
    return weights, -float(weights @ (means[0] + means[1])) / 2
