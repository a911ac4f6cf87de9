"""Stegos of one key are told by what they share, not by what a codec clears."""

import numpy as np

from experiments.linking import score


def _phases(seed, cleared=0.0):
    random = np.random.default_rng(seed)
    phases = random.uniform(-0.5, 0.5, (30, 16, 28, 6))
    return np.where(random.random(phases.shape) < cleared, 0, phases)


def test_a_twentieth_that_is_shared_is_seen():
    first, second = _phases(0), _phases(1)
    assert abs(score(first, second)) < 4
    shared = np.random.default_rng(2).random(first.shape) < 0.05
    assert score(first, np.where(shared, first, second)) > 10


def test_what_a_codec_clears_is_no_sign():
    assert abs(score(_phases(0, cleared=0.6), _phases(1, cleared=0.6))) < 4
