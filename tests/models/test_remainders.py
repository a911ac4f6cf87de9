import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from deepsteg_jax import models
from deepsteg_jax.errors import UserError
from deepsteg_jax.losses import mean_squared_error
from deepsteg_jax.models import remainders

quick = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})  # compiles fast


@functools.cache
def made():
    """(compiled hide, compiled reveal, params, model)."""
    settings = {"block": 8, "modulus": 5, "couplings": 2, "features": 4, "depth": 1}
    model = models.build(ConfigDict({"name": "invertible", "start": "modulo", **settings}))
    params = quick(model.init)(jax.random.key(0, impl="rbg"))
    return quick(model.hide), quick(model.reveal), params, model


def randomised(params):
    """No layer at zero any more, as after training."""
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda x: x + jnp.asarray(rng.normal(0, 0.1, x.shape), jnp.float32), params)


def pictures(seed, shape=(24, 32), noise=0.02):
    """Smooth pictures with a little grey noise, 8-bit values in [0, 1], [2, h, w, 3]."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: shape[0], : shape[1]][..., None]
    slopes, phases = rng.uniform(0.05, 0.2, (2, 2, 1, 1, 1)), rng.uniform(0, 6, (2, 1, 1, 3))
    waves = 0.5 + 0.4 * np.sin(slopes[0] * x + slopes[1] * y + phases)
    noisy = waves + rng.normal(0, noise, (*waves.shape[:-1], 1))
    return jnp.asarray(np.round(np.clip(noisy, 0, 1) * 255) / 255, jnp.float32)


def db(a, b):
    return -10 * np.log10(np.mean(np.square(a - b)))


@pytest.mark.parametrize(("block", "modulus"), [(8, 5), (4, 6), (2, 3)])
def test_fixed_couplings_are_undone_for_any_numbers(block, modulus):
    """Real ones too, also outside of what digits can say."""
    rng = np.random.default_rng(modulus)
    x1 = rng.uniform(0, 255, (40, 3 * block**2)).astype(np.float32)
    x2 = (remainders.make_plan(block, modulus).levels * rng.uniform(-0.5, 1.5, x1.shape)).astype(np.float32)
    stego, lost = remainders.embed(x1, x2, block, modulus)
    back = remainders.extract(stego, lost, block, modulus)
    np.testing.assert_allclose(back[0], x1, atol=2e-3)
    np.testing.assert_allclose(back[1], x2, atol=2e-3)


@pytest.mark.parametrize("modulus", [5, 6])
def test_whole_numbers_need_no_lost_part(modulus):
    """And the stego is the nearest one that says them."""
    rng, levels = np.random.default_rng(modulus), remainders.make_plan(8, modulus).levels
    x1 = rng.integers(0, 256, (50, 192)).astype(np.float32)
    numbers = rng.integers(0, levels, (50, 192)).astype(np.float32)
    stego, _ = remainders.embed(x1, numbers, 8, modulus)
    np.testing.assert_array_equal(stego, np.round(stego))
    assert np.abs(stego - x1).max() == modulus // 2
    read = remainders.extract(stego, jnp.zeros_like(stego), 8, modulus)[1]
    np.testing.assert_array_equal(read, numbers)


def test_plan_deals_out_every_sample_and_the_mean_gets_most():
    plan = remainders.make_plan(8, 5)
    counts = np.bincount(plan.owner, minlength=192)
    assert counts.sum() == 192 and counts[0] == counts.max()
    np.testing.assert_array_equal(plan.levels, 5**counts)
    assert np.all(np.diff(plan.deviation) <= 0) and sorted(plan.order) == list(range(192))
    for one in range(192):  # from the top down
        assert list(plan.weight[plan.owner == one]) == [5**k for k in range(counts[one] - 1, -1, -1)]


def test_samples_of_blocks_come_back():
    frames = np.random.default_rng(0).random((2, 16, 24, 3))
    samples = remainders.to_samples(frames, 8)
    np.testing.assert_array_equal(remainders.from_samples(samples, 8), frames)
    np.testing.assert_array_equal(samples[:, 0, 0, :12], frames[:, :2, :2].reshape(2, 12)[:, _corner(2)])


def _corner(side):
    rows, columns, _ = np.mgrid[:side, :side, :3]
    return np.argsort(np.maximum(rows, columns).ravel(), kind="stable")


def test_start_hides_untrained():
    hide, reveal, params, model = made()
    cover, secret = pictures(1), pictures(2)
    stego = np.asarray(hide(params["hide"], cover, secret))
    np.testing.assert_allclose(stego * 255, np.round(stego * 255), atol=1e-4)
    assert stego.min() >= 0 and stego.max() <= 1
    assert db(stego, cover) > 44.5
    assert db(reveal(params["reveal"], stego), secret) > 41
    assert model.modulus == 5


def test_black_and_white_covers_and_secrets():
    hide, reveal, params, _ = made()
    extremes = jnp.stack([jnp.zeros((16, 16, 3)), jnp.ones((16, 16, 3))])
    stego = np.asarray(hide(params["hide"], extremes, extremes[::-1]))
    assert stego.min() >= 0 and stego.max() <= 1
    assert db(reveal(params["reveal"], stego), extremes[::-1]) > 40


def test_both_sides_agree_whatever_was_learned():
    hide, reveal, params, model = made()
    cover, secret = pictures(1), pictures(2)
    weights = randomised(params["hide"])
    stego = hide(weights, cover, secret)
    moved = stego.at[:, ::2].add(jnp.where(stego[:, ::2] > 0.5, -1, 1) * model.modulus / 255)
    revealed = np.asarray(reveal(weights, stego))
    np.testing.assert_allclose(reveal(weights, moved), revealed, atol=1e-5)  # remainders are all that counts
    assert db(revealed, secret) > 25
    again = np.asarray(reveal(weights, hide(weights, cover[::-1], secret)))
    np.testing.assert_allclose(again, revealed, atol=1e-5)  # no trace of the cover


def test_cut_blocks_hold_what_they_can():
    hide, reveal, params, _ = made()
    weights = randomised(params["hide"])
    cover, secret = pictures(1, (21, 27), noise=0), pictures(2, (21, 27), noise=0)
    stego = hide(weights, cover, secret)
    revealed = reveal(weights, stego)
    assert stego.shape == revealed.shape == cover.shape
    whole = reveal(weights, hide(weights, cover[:, :16, :24], secret[:, :16, :24]))
    np.testing.assert_allclose(revealed[:, :16, :24], whole, atol=1e-5)
    assert db(revealed[:, 16:], secret[:, 16:]) > 25  # 5 rows of each
    assert db(revealed[:, :, 24:], secret[:, :, 24:]) > 20  # 3 columns of each


def test_gradients_reach_every_layer_and_lead_down():
    _, _, params, model = made()
    cover, secret = pictures(1), pictures(2)

    @quick
    def descend(params):
        def loss(params):
            params = model.tie(params)
            stego = model.hide(params["hide"], cover, secret)
            return jnp.log(mean_squared_error(model.reveal(params["reveal"], stego), secret))

        value, gradient = jax.value_and_grad(loss)(params)
        return model.tie(jax.tree.map(lambda x, g: x - 2e-3 * g, params, gradient)), gradient, value

    values = []
    for _ in range(8):
        params, gradient, value = descend(params)
        values.append(float(value))
    assert all(np.any(leaf) for leaf in jax.tree.leaves(gradient["hide"]))
    assert values[-1] < values[0] - 0.005


@pytest.mark.parametrize("modulus", [2, 10])
def test_modulus_out_of_range(modulus):
    with pytest.raises(UserError, match=f"must be 3 to 9, not {modulus}"):
        remainders.make_plan(8, modulus)
