"""The linear ensemble on made-up features."""

import numpy as np
import pytest

from deepsteg_jax.steganalysis import ensemble, scores


@pytest.fixture
def rng():
    return np.random.default_rng(1)


def test_it_finds_a_small_shift_under_a_large_variation(rng):
    contents = rng.normal(size=(400, 5)) @ rng.normal(size=(5, 60))
    covers = 10 * contents + rng.normal(size=contents.shape)
    stegos = covers + 0.7 * np.sign(np.arange(60) - 30) + 0.1 * rng.normal(size=contents.shape)
    found = ensemble.train(covers[:300], stegos[:300], seed=0, learners=20)
    figures = scores.measure(*(ensemble.score(found, x[300:]) for x in (covers, stegos)), found.threshold)
    assert figures.accuracy > 0.95 and figures.auc > 0.98 and figures.count == 100


def test_it_finds_nothing_in_noise(rng):
    covers, stegos = rng.normal(size=(2, 900, 80))
    found = ensemble.train(covers[:300], stegos[:300], seed=0, learners=20)
    figures = scores.measure(*(ensemble.score(found, x[300:]) for x in (covers, stegos)), found.threshold)
    low, high = figures.accuracy_interval
    assert low < 0.5 < high and abs(found.threshold) < 0.5


def test_the_threshold_comes_from_the_training_pairs(rng):
    covers = rng.normal(size=(200, 20))
    stegos = covers + 2
    found = ensemble.train(covers, stegos, seed=0, learners=20)
    elsewhere = [ensemble.score(found, x + 3) for x in (covers, stegos)]  # another source, all of it shifted
    assert scores.accuracy(*elsewhere, found.threshold) < 0.7 and scores.auc(*elsewhere) > 0.95


def test_same_seed_same_ensemble_and_dead_features_do_no_harm(rng):
    covers = np.concatenate([rng.normal(size=(30, 12)), np.ones((30, 3))], axis=1)
    stegos = covers + np.r_[np.ones(12), np.zeros(3)]
    first, again = (ensemble.train(covers, stegos, seed=5) for _ in range(2))
    np.testing.assert_array_equal(first.weights, again.weights)
    assert not first.weights[12:].any() and np.isfinite(first.threshold)


def test_pairs_of_a_group_are_in_the_bag_together(rng):
    """Frames that repeat look easy where a learner has seen their like: errors out of the bag must not."""
    covers, stegos = (np.repeat(x, 20, axis=0) for x in rng.normal(size=(2, 40, 30)))
    groups = np.repeat(np.arange(40), 20)
    apart = [ensemble.train(covers, stegos, 0, 20, given) for given in (None, groups)]
    errors = [ensemble._grow(covers, stegos, g, 30, 20, 0).error for g in (np.arange(800), groups)]
    assert errors[0] < 0.3 < errors[1] and apart[0].threshold != apart[1].threshold
