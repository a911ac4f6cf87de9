import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deepsteg_jax import channel
from deepsteg_jax.errors import UserError

KEY = jax.random.key(3)


def picture(seed=0, shape=(2, 16, 24, 3)):
    return jnp.asarray(np.random.default_rng(seed).uniform(-0.2, 1.2, shape), jnp.float32)


@pytest.mark.parametrize("bits", [1, 4, 8])
def test_round_values(bits):
    x = picture()
    rounded = np.asarray(channel.build((("round", bits),))(KEY, x))
    steps = 2**bits - 1
    np.testing.assert_allclose(rounded, np.round(np.clip(x, 0, 1) * steps) / steps, atol=1e-6)
    assert rounded.dtype == np.float32
    assert (rounded.min(), rounded.max()) == (0, 1)


def test_round_gradient_goes_straight_through():
    x, weights = picture(), picture(1)
    gradient = jax.grad(lambda x: jnp.sum(weights * channel.build((("round", 8),))(KEY, x)))(x)
    np.testing.assert_array_equal(gradient, weights)


def test_noise_deviation():
    x = jnp.full((1, 200, 200, 3), 0.5)
    noise = np.asarray(channel.build((("gaussian_noise", 0.05),))(KEY, x) - x)
    assert np.std(noise) == pytest.approx(0.05, rel=0.01)
    assert np.mean(noise) == pytest.approx(0, abs=0.0006)
    assert np.mean(np.abs(noise) > 0.1) == pytest.approx(0.0455, abs=0.003)  # a normal density's tails


def test_noise_gradient_is_one():
    x, weights = picture(), picture(1)
    gradient = jax.grad(lambda x: jnp.sum(weights * channel.build((("gaussian_noise", 0.1),))(KEY, x)))(x)
    np.testing.assert_array_equal(gradient, weights)


def test_noise_depends_on_the_key_only():
    noisy = channel.build((("gaussian_noise", 0.1),))
    x = picture()
    np.testing.assert_array_equal(noisy(KEY, x), noisy(KEY, x))
    assert np.mean(np.asarray(noisy(KEY, x) != noisy(jax.random.key(4), x))) > 0.99
    np.testing.assert_allclose(noisy(KEY, x) - x, noisy(KEY, 0 * x), atol=1e-6)


def test_two_noises_are_independent():
    x = jnp.zeros((1, 100, 100, 3))
    noise = channel.build((("gaussian_noise", 0.3), ("gaussian_noise", 0.4)))(KEY, x)
    assert np.std(noise) == pytest.approx(0.5, rel=0.02)


def test_stages_apply_in_order():
    x = picture()
    on_grid = lambda y: np.allclose(y * 255, np.round(y * 255), atol=1e-3)  # noqa: E731
    noise_last = np.asarray(channel.build((("round", 8), ("gaussian_noise", 0.1)))(KEY, x))
    noise_first = np.asarray(channel.build((("gaussian_noise", 0.1), ("round", 8)))(KEY, x))
    assert on_grid(noise_first)
    assert not on_grid(noise_last)
    assert noise_first.min() >= 0
    assert noise_last.min() < 0
    by_hand = channel.gaussian_noise(jax.random.fold_in(KEY, 1), channel.round_to_bits(KEY, x, 8), 0.1)
    np.testing.assert_array_equal(noise_last, by_hand)


def test_no_stage_changes_nothing():
    np.testing.assert_array_equal(channel.build(())(KEY, picture()), picture())


def test_compiles():
    x = picture()
    build = channel.build((("gaussian_noise", 0.1), ("round", 8)))
    np.testing.assert_allclose(jax.jit(build)(KEY, x), build(KEY, x), atol=1 / 254)


def test_unknown_name():
    with pytest.raises(UserError, match="'jpeg'.*round, gaussian_noise") as caught:
        channel.build((("round", 8), ("jpeg", 50)))
    assert "\n" not in str(caught.value)
