"""Bits in phases: exact without noise, calibrated with it."""

import numpy as np
import pytest
from scipy.stats import logistic

from deepsteg_jax.schemes.robust import levels


def _bits(count=4000, seed=0):
    return np.random.default_rng(seed).integers(0, 2, (count, levels.LEVELS), np.uint8)


def _received(bits, scale, lost, seed=1):
    rng = np.random.default_rng(seed)
    phase = levels.to_phases(bits) + logistic.rvs(scale=scale, size=len(bits), random_state=rng)
    gone = rng.random(len(bits)) < lost
    phase = np.where(gone, rng.uniform(-0.5, 0.5, len(bits)), phase)
    return phase - np.round(phase), np.full(len(bits), scale), np.full(len(bits), lost)


def test_phases_are_distinct_and_evenly_spaced():
    number = np.arange(2**levels.LEVELS)[:, None] >> np.arange(levels.LEVELS) & 1
    phases = np.sort(levels.to_phases(number.astype(np.uint8)))
    assert phases[0] > -0.5 and np.allclose(np.diff(phases), 0.5**levels.LEVELS)


def test_neighbouring_quarters_differ_in_one_bit_even_around_the_circle():
    bits = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], np.uint8)
    ordered = bits[np.argsort(levels.quarter_starts(bits))]
    assert all(np.sum(a != b) == 1 for a, b in zip(ordered, np.roll(ordered, 1, axis=0), strict=True))


def test_every_level_is_read_where_there_is_no_noise():
    bits = _bits()
    read = _received(bits, 1e-3, 0.0)
    assert np.array_equal(levels.coarse_llr(*read) < 0, bits[:, :2])
    start = levels.quarter_starts(bits[:, :2])
    assert np.mean((levels.finer_llr(*read, start, 2, 3) < 0) == bits[:, 2:5]) > 0.97
    start = levels.finer_start(levels.finer_start(start, bits[:, 2], 2), bits[:, 3], 3)
    assert np.mean((levels.finer_llr(*read, start, 4, 1) < 0)[:, 0] == bits[:, 4]) > 0.97


@pytest.mark.parametrize(("scale", "lost"), [(0.05, 0.0), (0.12, 0.1), (0.03, 0.5)])
def test_ratios_are_calibrated(scale, lost):
    """What they claim to know is what they know: bits are wrong as often as the ratios say."""
    bits = _bits(60_000)
    llr = levels.coarse_llr(*_received(bits, scale, lost))
    assert levels.information(llr, bits[:, :2]) == pytest.approx(levels.expected_information(llr), abs=0.01)
    claimed = 1 / (1 + np.exp(np.abs(llr)))
    assert np.mean((llr < 0) != bits[:, :2]) == pytest.approx(np.mean(claimed), abs=0.01)


def test_finer_levels_say_less_and_knowing_coarser_ones_helps():
    bits = _bits(20_000)
    read = _received(bits, 0.06, 0.0)
    start = levels.quarter_starts(bits[:, :2])
    found = [
        levels.information(levels.coarse_llr(*read), bits[:, :2]),
        levels.information(levels.finer_llr(*read, start, 2, 1), bits[:, 2:3]),
        levels.information(
            levels.finer_llr(*read, levels.finer_start(start, bits[:, 2], 2), 3, 1), bits[:, 3:4]
        ),
    ]
    assert found == sorted(found, reverse=True) and found[-1] >= 0


def test_a_known_place_in_the_quarter_helps_and_ratios_stay_calibrated():
    bits = _bits(40_000)
    read, at = _received(bits, 0.06, 0.1), levels.finest_starts(bits)
    llr = levels.share_llr(levels.quarter_shares(*read, at))
    known = levels.information(llr, bits[:, :2])
    assert known > 1.1 * levels.information(levels.coarse_llr(*read), bits[:, :2])
    assert known == pytest.approx(levels.expected_information(llr), abs=0.01)


def test_a_flat_top_is_the_error_of_a_uniform_quantiser():
    """As wide as a quarter: it says where all phases are whose place in it is known."""
    bits, rng = _bits(4000), np.random.default_rng(0)
    phase = levels.to_phases(bits) + rng.uniform(-0.12, 0.12, len(bits))
    read, at = (phase, np.full(len(bits), 0.24 / 4), np.full(len(bits), 1e-3)), levels.finest_starts(bits)
    llr = {top: levels.share_llr(levels.quarter_shares(*read, at, top)) for top in (0.0, 4.0)}
    found = {top: levels.information(llr[top], bits[:, :2]) for top in llr}
    assert found[4.0] > 0.9 > found[0.0]
    assert np.array_equal(llr[4.0] < 0, bits[:, :2])


def test_half_a_turn_is_read_in_more_noise_than_a_quarter():
    bits = _bits(20_000)
    share = levels.quarter_shares(*_received(bits, 0.12, 0.1), levels.finest_starts(bits))
    for known in (bits[:, :2], 1 - bits[:, :2]):  # of the opposite quarter as well
        llr = levels.half_llr(share, known)
        found = levels.information(llr, bits[:, 0])
        assert found == pytest.approx(levels.expected_information(llr), abs=0.02)
        assert found > 1.5 * levels.information(levels.share_llr(share), bits[:, :2])


def test_lost_phases_say_nothing():
    read = _received(_bits(100), 0.3, 1.0)
    assert np.allclose(levels.coarse_llr(*read), 0)
