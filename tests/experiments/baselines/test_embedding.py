"""Simulated embeddings change as much as their payload asks."""

import numpy as np
import pytest

from experiments.baselines import embedding


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_lsb_matching_changes_half_its_payload_by_one(rng):
    plane = rng.integers(0, 256, (200, 200)).astype(np.uint8)
    change = embedding.lsb_matching(plane, 0.4, rng).astype(int) - plane
    assert set(np.unique(change)) == {-1, 0, 1} and np.mean(change != 0) == pytest.approx(0.2, abs=0.01)


def test_embedding_changes_where_it_costs_least_and_carries_its_payload(rng):
    plane = rng.integers(0, 256, (200, 200)).astype(np.uint8)
    cost = np.where(np.arange(200) < 100, 1.0, 1e8) * np.ones((200, 1))  # the left half only
    cost[plane == 255] = cost[plane == 0] = 1e8
    change = embedding.embed(plane, cost, 0.4, rng).astype(int) - plane
    assert not change[:, 100:].any() and set(np.unique(change)) == {-1, 0, 1}
    share = np.mean(change[:, :100] != 0)
    entropy = -share * np.log2(share / 2) - (1 - share) * np.log2(1 - share)
    assert entropy == pytest.approx(0.8, abs=0.02)  # bits of each sample of the half that carries
