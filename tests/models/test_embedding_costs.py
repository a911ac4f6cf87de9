"""Learned embedding costs: where they start, the simulated embedding, and the game."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from configs import adaptive_learned
from deepsteg_jax import models
from deepsteg_jax.models import embedding_costs as costs
from tests.synthetic import noise, smooth


@pytest.fixture(scope="module")
def game():
    config = adaptive_learned.get_config("tiny").model
    model = models.build(config)
    return config, model, jax.jit(model.init)(jax.random.key(0))


@pytest.fixture(scope="module")
def plane():
    return (smooth(1, 32, 40)[0] // 2 + noise(1, 32, 40, high=100)[0])[..., 1]


def moved(params, seed=0):
    """Parameters at which the network does something."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda x: np.float32(x + rng.normal(0, 1.0, x.shape)), params)


def test_they_start_at_hill(game, plane):
    _, _, params = game
    np.testing.assert_allclose(costs.learned(params["hide"], plane), costs.hill(plane), rtol=1e-5)


def test_the_mean_stays_and_depth_does_not_matter(game, plane):
    params = moved(game[2]["hide"])
    found, base = np.asarray(costs.learned(params, plane)), np.asarray(costs.hill(plane))
    assert np.isfinite(found).all() and found.min() > 0 and np.std(np.log(found / base)) > 0.05
    assert np.log(found).mean() == pytest.approx(np.log(base).mean(), abs=1e-4)
    deep = costs.learned(params, plane.astype(np.uint16) * 4, 1020)
    np.testing.assert_allclose(deep, found, rtol=1e-3)


@pytest.mark.parametrize("payload", [0.05, 0.4, 1.2])
def test_chances_carry_the_payload_whatever_the_costs(plane, payload):
    def entropy(logs):
        p = costs.chances(jnp.exp(logs), payload)
        return -jnp.mean(2 * p * jnp.log2(p) + (1 - 2 * p) * jnp.log2(1 - 2 * p))

    logs = jnp.log(costs.hill(plane))
    found, slope = jax.value_and_grad(entropy)(logs)
    assert float(found) == pytest.approx(payload, rel=1e-3)
    one_by_one = jax.grad(lambda x: jnp.sum(costs.chances(jnp.exp(x), payload)[:4]))(logs)
    assert float(jnp.abs(slope).max()) < 1e-2 * float(jnp.abs(one_by_one).max())


def test_dear_samples_change_less(plane):
    hill = costs.hill(plane)
    order = np.argsort(np.asarray(hill), axis=None)
    p = np.asarray(costs.chances(hill, 0.3)).ravel()[order]
    assert (np.diff(p) <= 1e-7).all() and p[0] > 3 * p[-1] > 0


def test_changes_are_drawn_and_rewarded_by_their_effect():
    chance = jnp.linspace(0.01, 0.3, 40_000).at[0].set(0.0)
    change = np.asarray(costs.simulate(jax.random.key(1), chance))
    assert set(np.unique(change)) == {-1, 0, 1} and abs(change.mean()) < 0.01
    assert np.abs(change).mean() == pytest.approx(2 * float(chance.mean()), rel=0.03)
    effect = jnp.arange(40_000.0) - 20_000
    slope = jax.grad(lambda p: jnp.vdot(costs.simulate(jax.random.key(1), p), effect))(chance)
    np.testing.assert_allclose(slope, effect * change / np.maximum(chance, 1e-30), rtol=1e-4)


@pytest.mark.slow
def test_both_players_learn_from_one_pass(game):
    """What one descends, the other climbs; without strength the costs stay."""
    config, model, params = game
    params = {**params, "hide": moved(params["hide"])}
    batch = {"cover": smooth(4, 32, 32) // 2 + noise(4, 32, 32, high=100)}
    keys = jax.random.split(jax.random.key(2), 4)
    slopes = {}
    for strength in (0.0, 1.0, 3.0):
        game_of = models.build(ConfigDict(config.to_dict() | {"strength": strength}))
        (loss, logs), slopes[strength] = jax.jit(jax.value_and_grad(game_of.loss, has_aux=True))(
            params, batch, keys
        )
        assert 0.1 < float(loss) < 3 and 0 <= float(logs["accuracy"]) <= 1
    none, once, thrice = (slopes[x]["hide"] for x in (0.0, 1.0, 3.0))
    assert not any(np.any(x) for x in jax.tree.leaves(none)) and any(np.any(x) for x in jax.tree.leaves(once))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(3 * a, b, rtol=1e-3, atol=1e-7), once, thrice)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-7),
        *(slopes[x]["reveal"] for x in (1.0, 3.0)),
    )
    assert model.examples == "covers and secrets"
