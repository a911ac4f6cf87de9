import numpy as np
import pytest

from experiments.systems import PHASE_BINS, information


def test_information_is_that_of_a_channel_that_adds():
    rng = np.random.default_rng(0)
    turns = rng.integers(-3, 4, 100_000)
    assert information(turns.astype(float)) == pytest.approx(len(turns) * np.log2(PHASE_BINS), rel=0.01)
    assert information(rng.uniform(-2, 2, 100_000)) / 100_000 == pytest.approx(0, abs=0.001)
    # Errors over half the circle leave one bit of each symbol.
    assert information(rng.uniform(0, 0.5, (100, 1000)) + 7) == pytest.approx(100_000, rel=0.01)
