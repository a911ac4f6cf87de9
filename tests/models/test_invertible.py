import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from ml_collections import ConfigDict

from deepsteg_jax import models
from deepsteg_jax.errors import UserError
from deepsteg_jax.losses import mean_squared_error
from deepsteg_jax.models import invertible

quick = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})  # compiles fast


def build(block=2, start="identity"):
    settings = {"start": start, "block": block, "couplings": 2, "features": 3, "depth": 1}
    return models.build(ConfigDict({"name": "invertible", **settings}))


@functools.cache
def made(block=2):
    """(compiled hide, compiled reveal, params, model)."""
    model = build(block)
    params = quick(model.init)(jax.random.key(0, impl="rbg"))
    return quick(model.hide), quick(model.reveal), params, model


def randomised(params, seed=0):
    """No layer at zero any more, as after training."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda x: x + jnp.asarray(rng.normal(0, 0.1, x.shape), jnp.float32), params)


def pictures(seed, shape=(16, 24), count=2):
    """Smooth pictures, float32 [count, h, w, 3] in [0, 1]."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: shape[0], : shape[1]][..., None]
    slopes = rng.uniform(0.05, 0.2, (2, count, 1, 1, 1))
    phases = rng.uniform(0, 6, (count, 1, 1, 3))
    return jnp.asarray(0.5 + 0.3 * np.sin(slopes[0] * x + slopes[1] * y + phases), jnp.float32)


def branches(channels, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(0, 0.5, (2, 2, 3, 4, channels)), jnp.float32)


def db(a, b):
    return -10 * np.log10(np.mean(np.square(a - b)))


def largest(tree):
    return max(float(np.abs(leaf).max()) for leaf in jax.tree.leaves(tree))


def test_inverse_undoes_the_couplings():
    network = invertible.Couplings(3, lambda: invertible.Coupling(features=4, layers=2, channels=12))
    x1, x2 = branches(12)
    params = randomised(network.init(jax.random.key(0), x1, x2))
    y1, y2 = network.apply(params, x1, x2)
    assert min(np.mean(np.abs(y1 - x1)), np.mean(np.abs(y2 - x2))) > 0.05  # both branches were mixed
    z1, z2 = network.apply(params, y1, y2, method="inverse")
    np.testing.assert_allclose(z1, x1, atol=1e-4)
    np.testing.assert_allclose(z2, x2, atol=1e-4)


def test_log_scale_is_clamped():
    coupling = invertible.Coupling(features=2, layers=1, channels=3)
    x1, x2 = branches(3)
    params = coupling.init(jax.random.key(0), x1, x2)
    params["params"]["rho"]["leave"]["bias"] = jnp.asarray([50.0, -50.0, 0.0])
    _, scaled = coupling.apply(params, x1, x2)  # the other networks start at zero
    np.testing.assert_allclose(scaled, x2 * jnp.exp(jnp.asarray([2.0, -2.0, 0.0])), rtol=1e-4)


def test_identity_start_leaves_the_cover():
    hide, _, params, _ = made()
    cover = pictures(1)
    np.testing.assert_allclose(hide(params["hide"], cover, pictures(2)), cover, atol=1e-6)


def test_tie_copies_hide_to_reveal():
    _, _, params, model = made()
    jax.tree.map(np.testing.assert_array_equal, params["hide"], params["reveal"])
    changed = {**params, "hide": jax.tree.map(lambda x: x + 1, params["hide"])}
    tied = model.tie(changed)
    jax.tree.map(np.testing.assert_array_equal, tied["hide"], changed["hide"])
    jax.tree.map(np.testing.assert_array_equal, tied["reveal"], changed["hide"])
    for hidden, revealed in zip(*(jax.tree.leaves(tied[side]) for side in ("hide", "reveal")), strict=True):
        assert hidden.unsafe_buffer_pointer() != revealed.unsafe_buffer_pointer()


@pytest.mark.slow
def test_gradients_of_both_sides_meet_in_tie():
    _, _, params, model = made()
    params = model.tie({**params, "hide": randomised(params["hide"])})
    cover, secret, still = pictures(1), pictures(2), pictures(3)

    def of_revealed(params):
        return mean_squared_error(model.reveal(params["reveal"], still), secret)

    def of_both(params):
        return mean_squared_error(model.hide(params["hide"], cover, secret), cover) + of_revealed(params)

    @quick
    def gradients(params):
        def tied(loss):
            return jax.grad(lambda p: loss(model.tie(p)))(params)

        return tied(of_revealed), tied(of_both), jax.grad(of_both)(params)

    revealed, both, apart = gradients(params)
    assert largest(revealed["hide"]) > 1e-4 and largest(revealed["reveal"]) == 0
    assert all(np.any(leaf) for leaf in jax.tree.leaves(both["hide"]))
    assert largest(apart["hide"]) > 1e-4 and largest(apart["reveal"]) > 1e-4
    expected = jax.tree.map(jnp.add, apart["hide"], apart["reveal"])
    error = jax.tree.map(jnp.subtract, both["hide"], expected)
    assert largest(error) < 1e-4 * largest(expected)


def test_odd_sizes_are_padded_by_their_edge():
    hide, reveal, params, _ = made(4)
    odd = (13, 21)
    cover, secret = pictures(1, odd), pictures(2, odd)
    padded = [jnp.pad(x, ((0, 0), (0, 3), (0, 3), (0, 0)), mode="edge") for x in (cover, secret)]
    weights = randomised(params["hide"])
    stego, whole = hide(weights, cover, secret), hide(weights, *padded)
    assert stego.shape == cover.shape
    np.testing.assert_allclose(stego, whole[:, :13, :21], atol=1e-5)
    assert reveal(weights, stego).shape == cover.shape


def test_video_is_frame_by_frame():
    hide, reveal, params, _ = made()
    weights = randomised(params["hide"])
    cover, secret = pictures(1), pictures(2)
    images, video = hide(weights, cover, secret), hide(weights, cover[None], secret[None])
    assert video.shape == (1, 2, 16, 24, 3)
    np.testing.assert_allclose(video[0], images, atol=1e-5)
    np.testing.assert_allclose(reveal(weights, video)[0], reveal(weights, images), atol=1e-5)
    # A frame depends on its own cover and on its own secret, and on no other frame.
    for changed in (
        hide(weights, cover.at[0].set(0.5), secret),
        hide(weights, cover, secret.at[0].set(0.5)),
    ):
        assert np.mean(np.abs(changed[0] - images[0])) > 1e-3
        np.testing.assert_allclose(changed[1], images[1], atol=1e-5)


@pytest.mark.parametrize("start", ["", "Modulo", "random"])
def test_unknown_start(start):
    with pytest.raises(UserError, match="identity or modulo") as caught:
        build(start=start)
    assert repr(start) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_overfits_one_batch():
    _, _, params, model = made()
    cover, secret = pictures(1), pictures(2)
    optimiser = optax.adam(1e-2)

    def loss(params):
        params = model.tie(params)
        stego = model.hide(params["hide"], cover, secret)
        revealed = model.reveal(params["reveal"], stego)
        return mean_squared_error(stego, cover) + mean_squared_error(revealed, secret)

    @quick
    def update(params, state):
        value, gradient = jax.value_and_grad(loss)(params)
        updates, state = optimiser.update(gradient, state)
        return model.tie(optax.apply_updates(params, updates)), state, value

    state, values = optimiser.init(params), []
    for _ in range(40):
        params, state, value = update(params, state)
        values.append(float(value))
    assert np.all(np.isfinite(values))
    assert values[-1] < values[0] / 3
    jax.tree.map(np.testing.assert_array_equal, params["hide"], params["reveal"])
