"""Thresholds, accuracies, areas and their intervals."""

import numpy as np
import pytest

from deepsteg_jax.steganalysis import scores


def test_the_best_threshold_parts_both_where_it_can():
    threshold, error = scores.best_threshold(np.array([0.0, 1.0, 2.0]), np.array([3.0, 4.0]))
    assert 2 < threshold < 3 and error == 0
    threshold, error = scores.best_threshold(np.array([0.0, 1.0, 3.0, 1.5]), np.array([2.0, 4.0]))
    assert 1.5 < threshold < 2 and error == pytest.approx(1 / 8)


def test_equal_scores_are_a_guess():
    same = np.zeros(5)
    threshold, error = scores.best_threshold(same, same)
    assert error == 0.5 and scores.accuracy(same, same, threshold) == 0.5 and scores.auc(same, same) == 0.5


def test_the_area_counts_pairs_in_order():
    covers, stegos = np.random.default_rng(0).integers(0, 9, (2, 40)).astype(float)
    pairs = stegos[:, None] - covers
    assert scores.auc(covers, stegos) == pytest.approx(((pairs > 0) + (pairs == 0) / 2).mean())


def test_the_separation_is_in_deviations_and_grows_where_accuracy_cannot():
    rng = np.random.default_rng(0)
    covers, stegos = rng.normal(3, 2, 4000), rng.normal(4, 2, 4000)
    assert scores.separation(covers, stegos) == pytest.approx(0.5, abs=0.06)
    assert scores.separation(covers, stegos) == pytest.approx(scores.separation(5 * covers, 5 * stegos))
    assert scores.separation(covers, stegos + 60) > scores.separation(covers, stegos + 40) > 10


def test_intervals_hold_the_figure_and_shrink():
    rng = np.random.default_rng(0)
    widths = []
    for count in (50, 800):
        figures = scores.measure(rng.normal(size=count), rng.normal(1, 1, count), 0.5)
        low, high = figures.accuracy_interval
        assert low < figures.accuracy < high
        assert figures.auc_interval[0] < figures.auc < figures.auc_interval[1]
        widths.append(high - low)
    assert widths[1] < widths[0] / 2


def test_a_perfect_score_has_an_interval():
    figures = scores.measure(np.zeros(40), np.ones(40), 0.5)
    assert figures.accuracy == 1 and 0.85 < figures.accuracy_interval[0] < 0.95


def test_each_fold_has_its_threshold():
    covers, stegos = np.array([0.0, 10.0]), np.array([1.0, 11.0])
    assert scores.measure(covers, stegos, np.array([0.5, 10.5])).accuracy == 1


def test_consecutive_frames_are_pooled():
    clip = np.arange(7.0)[None]
    np.testing.assert_array_equal(scores.pool(clip, 1), clip)
    np.testing.assert_array_equal(scores.pool(clip, 3), [[1, 4]])


def test_parts_of_a_clip_count_once_in_the_interval():
    rng = np.random.default_rng(0)
    covers, stegos = rng.normal(size=30), rng.normal(0.5, 1, 30)
    alone = scores.measure(covers, stegos, 0.2)
    parts = scores.measure(*(np.repeat(x[:, None], 10, axis=1) for x in (covers, stegos)), 0.2)
    for found, expected in zip(parts, alone, strict=True):
        assert found == pytest.approx(expected)
