"""The search: what it finds fits, and in few trials nothing finer would."""

import math

import numpy as np
import pytest

from deepsteg_jax.media.search import Trial, finest

QUANTISERS, FILLED = (10, 63), 0.9


@pytest.mark.parametrize("slope", [0.05, 0.08, 0.2])
@pytest.mark.parametrize("begin", [10, 30, 63])
@pytest.mark.parametrize("room", [700, 4321, 12_345])
def test_the_finest_that_fits(slope, begin, room):
    """Or one that fills most of the room."""
    tries = []

    def size_at(quantiser):
        tries.append(quantiser)
        return round(50_000 * math.exp(-slope * quantiser))

    found = finest(size_at, room, Trial(begin, room, 0.08), QUANTISERS, FILLED)
    assert len(tries) == len(set(tries)) <= 6 and set(tries) <= set(range(10, 64))
    if size_at(63) > room:
        assert found is None
        return
    assert found.size == size_at(found.quantiser) <= room
    finer = size_at(found.quantiser - 1) > room or found.quantiser == QUANTISERS[0]
    assert finer or found.size > FILLED * room


def test_it_ends_where_sizes_are_noise():
    noise = np.random.default_rng(0).integers(500, 1500, 64)
    for room in range(490, 1500, 50):
        found = finest(lambda q: noise[q], room, Trial(30, room, 0.08), QUANTISERS, FILLED)
        assert found is None or noise[found.quantiser] == found.size <= room


def test_a_coding_of_something_alike_tells_where_to_begin():
    """What took half of the bytes may be finer by their logarithm over the slope."""
    trial = Trial(40, 500, 0.07)
    assert trial.quantiser_for(1000) == 40 - round(math.log(2) / 0.07) and trial.quantiser_for(500) == 40
    tries = []
    finest(lambda q: tries.append(q) or 950, 1000, trial, QUANTISERS, FILLED)
    assert tries == [trial.quantiser_for(1000 * math.sqrt(FILLED))]


def test_the_slope_that_was_found_is_kept():
    found = finest(
        lambda q: round(1e5 * math.exp(-0.12 * q)), 1000, Trial(20, 1000, 0.08), QUANTISERS, FILLED
    )
    assert found.slope == pytest.approx(0.12, rel=0.02)
