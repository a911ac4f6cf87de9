import functools

import jax.numpy as jnp
import numpy as np
import pytest

from deepsteg_jax.models import lanes, quantiser
from deepsteg_jax.models.rans import TOTAL

MODULI = (2, 3, 8, 32)
quantiser_of = functools.cache(quantiser.make_quantiser)


def laplace_indices(width, count=200_000):
    samples = np.random.default_rng(0).laplace(scale=width, size=count)
    return samples, np.sign(samples) * np.floor(np.abs(samples) + quantiser.ROUNDING)


@pytest.mark.parametrize("modulus", MODULI)
def test_tables(modulus):
    q = quantiser_of(modulus)
    count = quantiser.HIGHEST - quantiser.LOWEST + 1
    assert {len(x) for x in (q.plain, q.scales, q.rows, q.reach, q.shifts, q.rms, q.bits)} == {count}
    np.testing.assert_array_equal(q.scales, [modulus ** int(n) for n in q.plain])
    assert max(q.plain.max(), q.coder.digits) < 2**lanes.COUNT_BITS  # numbers fit into marks
    assert max(q.scales.max(), q.coder.base) << lanes.COUNT_BITS < 2**31
    assert np.all(np.diff(q.plain) >= 0)
    assert q.plain[0] == 0 < q.plain[-1]
    assert np.all(np.diff(q.rms) > -2e-3)
    assert q.rms[-1] == pytest.approx(12**-0.5, rel=0.01)
    frequencies = q.coder.ranges % (2 * TOTAL)
    assert len(frequencies) == q.rows.max() + 1
    assert np.all(frequencies.sum(1) == TOTAL)
    for row, reach in zip(q.rows, q.reach, strict=True):  # all that `to_symbols` makes
        made = np.asarray(quantiser.to_symbols(jnp.arange(-5000, 5001), jnp.int32(reach)))
        assert np.all(frequencies[row, made] > 0)


def test_tables_are_the_same_everywhere():
    """Sums of the tables: another one would make stegos that other machines cannot read."""
    q = quantiser_of(3)
    weights = np.arange(q.coder.ranges.size).reshape(q.coder.ranges.shape) % 8191
    assert int((q.coder.ranges.astype(np.int64) * weights).sum()) == 360909977759744
    assert int((q.plain * np.arange(len(q.plain))).sum()) == 44140


@pytest.mark.parametrize("excess", [-16, 0, 14, 30])
def test_quantising_errs_and_costs_as_the_tables_say(excess):
    q, place = quantiser_of(3), excess - quantiser.LOWEST
    samples, index = laplace_indices(2.0 ** (excess / quantiser.SCALE_STEPS))
    back = np.sign(index) * (np.abs(index) + q.shifts[place])
    assert np.sqrt(np.mean((back - samples) ** 2)) == pytest.approx(q.rms[place], rel=0.02)
    assert abs(np.mean((back - samples)[index > 0])) < 0.05  # centroids

    foretold = np.mean(np.stack([np.ones_like(index), index != 0, np.abs(index)], -1) @ q.bits[place])
    scale = 3 ** int(q.plain[place])
    high = (np.int32(index) + scale // 2) // scale
    symbols = np.asarray(quantiser.to_symbols(high, jnp.int32(q.reach[place])))
    mass = (q.coder.ranges % (2 * TOTAL))[q.rows[place], symbols] / TOTAL
    coded = q.plain[place] * np.log2(3) - np.mean(np.log2(mass))
    assert coded == pytest.approx(foretold, abs=0.03)


@pytest.mark.parametrize("reach", [3, 10, 28])
def test_symbols_come_back(reach):
    index = np.arange(-3000, 3001, dtype=np.int32)
    symbols = np.asarray(quantiser.to_symbols(index, np.int32(reach)))
    back = np.asarray(quantiser.from_symbols(symbols, np.int32(reach)))
    near, held = np.abs(index) <= reach + 8, np.abs(index) < reach + 1024
    np.testing.assert_array_equal(back[near], index[near])
    assert np.all(np.abs(back - index)[held] <= 1 / 8 * np.abs(index[held]))
    assert np.all(np.diff(symbols) >= 0)


def test_step_is_the_power_of_two_of_levels():
    np.testing.assert_allclose(quantiser.step(jnp.asarray([-64, 0, 32, 128])), [0.5, 1, 2**0.5, 4], rtol=1e-6)


@pytest.mark.parametrize(("reach", "scale"), [(3, 1), (28, 9)])
def test_tail_error_is_about_that_of_coding(reach, scale):
    index = jnp.arange(reach + 1024)
    back = quantiser.from_symbols(quantiser.to_symbols(index, jnp.int32(reach)), jnp.int32(reach))
    error = scale**2 * (np.asarray(back, np.float64) - np.asarray(index)) ** 2
    foretold = np.asarray(quantiser.tail_error(index * float(scale), np.int32(scale), np.int32(reach)))
    assert not np.any(foretold[: reach + 8]) and not np.any(error[: reach + 8])
    for first in 2 ** np.arange(3, 10):  # octaves of the tail
        octave = slice(reach + first, reach + 2 * first)
        assert np.mean(foretold[octave]) == pytest.approx(np.mean(error[octave]), rel=0.5)
