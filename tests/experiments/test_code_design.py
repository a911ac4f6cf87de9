"""The design of the code is that of the code."""

import numpy as np
import pytest

from deepsteg_jax.schemes.robust import code
from experiments import code_design


def test_information_and_deviation_are_inverse():
    information = np.linspace(0.01, 0.99, 50)
    found = code_design.to_information(code_design.to_deviation(information))
    np.testing.assert_allclose(found, information, atol=1e-6)
    draw = 2 * np.random.default_rng(0).normal(size=200_000) + 2  # of deviation 2
    told = 1 - np.mean(np.logaddexp(0, -draw)) / np.log(2)
    assert code_design.to_information(2.0) == pytest.approx(told, abs=0.005)


@pytest.mark.parametrize("rate", [1 / 8, 1 / 2])
def test_shares_are_those_of_the_code(rate):
    received, terms = code_design.POINTS[rate]
    reached, shares = code_design.design(received, terms)
    assert 0.95 * received < reached < received
    np.testing.assert_allclose(1000 * shares, code.SHARES[rate], atol=1.5)


def test_words_are_decoded_below_the_limit_alone():
    assert code_design.decoded(4000, 1200, 0.5, 3) == 3
    assert code_design.decoded(4000, 2200, 0.5, 3) == 0
