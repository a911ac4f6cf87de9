import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax.traverse_util import flatten_dict
from ml_collections import ConfigDict

from deepsteg_jax import models, steganography
from deepsteg_jax.errors import UserError
from deepsteg_jax.losses import mean_squared_error
from deepsteg_jax.models import prep_hide_reveal
from deepsteg_jax.training.objective import psnr

quick = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})  # compiles fast


KERNELS = prep_hide_reveal.KERNELS


@pytest.fixture(scope="module", autouse=True)
def two_kernels():
    """Two of three sizes of kernels compile sooner."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prep_hide_reveal, "KERNELS", (3, 4))
        yield


def build(features, **fields):
    return models.build(ConfigDict({"name": "prep_hide_reveal", "features": features, **fields}))


def key(seed):
    return jax.random.key(seed, impl="rbg")  # compiles faster than the default


@functools.cache
def small():
    """(model, its compiled init, params), random all over."""
    model = build(4, start="random")
    init = quick(model.init)
    return model, init, init(key(0))


def pictures(seed, shape=(16, 16)):
    """Two smooth pictures, float32 [2, h, w, 3] in [0, 1]."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: shape[0], : shape[1]][..., None]
    phases = rng.uniform(0, 6, (2, 1, 1, 3))
    slopes = rng.uniform(-0.01, 0.01, (2, 2, 1, 1, 3))
    smooth = 0.5 + slopes[0] * (y - 8) + slopes[1] * (x - 8) + 0.3 * np.sin(0.4 * x + 0.3 * y + phases)
    return jnp.asarray(np.clip(smooth + rng.normal(0, 0.01, smooth.shape), 0, 1), jnp.float32)


def test_shapes_of_the_original(monkeypatch):
    monkeypatch.setattr(prep_hide_reveal, "KERNELS", KERNELS)
    shapes = jax.eval_shape(build(50).init, jax.random.key(0))
    found = {"/".join(name): leaf.shape for name, leaf in flatten_dict(shapes).items()}
    expected = {}
    networks = {"hide/prepare": (3, False), "hide/hide": (3 + 150, True), "reveal": (3, True)}
    for network, (channels, out) in networks.items():
        for stack, k in enumerate((3, 4, 5)):
            first = [channels, 50, 50, 50]
            for block, inputs in (("block0", first), ("block1", [150])):
                for i, c in enumerate(inputs):
                    name = f"{network}/{block}/stack{stack}_conv{i}"
                    expected[f"{name}/kernel"] = (k, k, c, 50)
                    expected[f"{name}/bias"] = (50,)
        if out:
            expected[f"{network}/out/kernel"] = (1, 1, 150, 3)
            expected[f"{network}/out/bias"] = (3,)
    assert found == expected


@pytest.mark.slow
def test_init_depends_on_the_key_only():
    _, init, params = small()
    jax.tree.map(np.testing.assert_array_equal, params, init(key(0)))
    other = flatten_dict(init(key(1)))
    for name, leaf in flatten_dict(params).items():
        assert np.any(leaf != other[name]) == (name[-1] == "kernel")


@pytest.mark.slow
def test_delta_init_hands_the_picture_on():
    block = prep_hide_reveal.Block(
        (5,) * 4,
        ((3,) * 4, (4,) * 4),
        jnp.float32,
        prep_hide_reveal.hand_on(lift=3.0),
        prep_hide_reveal.hand_on(),
    )
    x = pictures(0) - 0.5
    stacks = quick(block.apply)(quick(block.init)(key(0), x), x).reshape(*x.shape[:3], 2, 5)
    np.testing.assert_allclose(stacks[..., :3], np.repeat((x + 3)[..., None, :], 2, axis=3), atol=1e-5)
    assert np.std(stacks[..., 3:]) > 1e-3


@pytest.mark.slow
def test_delta_init_starts_at_the_cover():
    model = build(6)
    params, cover, secret = quick(model.init)(key(0)), pictures(1), pictures(2)
    # What is not handed on comes besides, so that the secret has a gradient.
    stego = quick(model.hide)(params["hide"], cover, secret)
    assert psnr(stego, cover) > psnr(jnp.full_like(cover, 0.5), cover) + 6
    revealed = quick(model.reveal)(params["reveal"], cover)
    assert psnr(revealed, cover) > psnr(jnp.full_like(cover, 0.5), cover) + 6


def test_bad_settings():
    with pytest.raises(UserError, match="features must be at least 3, not 2"):
        build(2)
    with pytest.raises(UserError, match="start must be random, delta or modulo, not 'identity'"):
        build(4, start="identity")
    with pytest.raises(UserError, match="quantise must be empty or int8, not 'int4'"):
        build(4, quantise="int4")
    with pytest.raises(UserError, match=r"reveal_features must be empty or 5 numbers, not \(8, 3\)"):
        build(4, reveal_features=(8, 3))
    with pytest.raises(UserError, match=r"one side or 5 sides, not \(1, \(3, 3\)\)"):
        build(4, hide_kernels=(1, (3, 3)))


def test_normalise():
    x = pictures(0)
    np.testing.assert_allclose(prep_hide_reveal.denormalise(prep_hide_reveal.normalise(x)), x, atol=1e-6)
    mean = jnp.asarray([0.485, 0.456, 0.406])
    deviation = jnp.asarray([0.229, 0.224, 0.225])
    np.testing.assert_allclose(prep_hide_reveal.normalise(mean), np.zeros(3), atol=1e-6)
    np.testing.assert_allclose(prep_hide_reveal.normalise(mean + deviation), np.ones(3), atol=1e-5)
    np.testing.assert_allclose(prep_hide_reveal.denormalise(jnp.zeros(3)), mean, atol=1e-6)


@pytest.mark.slow
def test_video_is_frame_by_frame():
    model, _, params = small()
    hide, reveal = quick(model.hide), quick(model.reveal)
    cover, secret = pictures(1), pictures(2)
    together = hide(params["hide"], cover[None], secret[None])
    images = hide(params["hide"], cover, secret)
    assert together.shape == (1, 2, 16, 16, 3)
    np.testing.assert_allclose(together[0], images, atol=1e-5)
    np.testing.assert_allclose(
        reveal(params["reveal"], together)[0], reveal(params["reveal"], images), atol=1e-5
    )
    # A frame depends on its own cover and on its own secret, and on no other frame.
    for changed in (
        hide(params["hide"], cover.at[0].set(0.5), secret),
        hide(params["hide"], cover, secret.at[0].set(0.5)),
    ):
        assert np.mean(np.abs(changed[0] - images[0])) > 2e-4
        np.testing.assert_allclose(changed[1], images[1], atol=1e-5)


@pytest.mark.slow
def test_overfits_one_batch():
    model, _, params = small()
    shuffle = ConfigDict({"moves": "secret", "cipher": "blocks", "block_size": 4})
    keys, firsts = jnp.arange(16, dtype=jnp.uint32).reshape(2, 8), jnp.asarray([0, 5])
    cover, secret = pictures(1), pictures(2)
    optimiser = optax.adam(1e-2)

    def loss(params):
        stego = steganography.hide(model, shuffle, params["hide"], keys, firsts, cover, secret)
        revealed = steganography.reveal(model, shuffle, params["reveal"], keys, firsts, stego)
        return mean_squared_error(stego, cover) + 0.75 * mean_squared_error(revealed, secret)

    @quick
    def update(params, state):
        value, gradient = jax.value_and_grad(loss)(params)
        updates, state = optimiser.update(gradient, state)
        return optax.apply_updates(params, updates), state, value, gradient

    state = optimiser.init(params)
    values = []
    for _ in range(150):
        params, state, value, gradient = update(params, state)
        values.append(float(value))
        if len(values) == 1:
            assert all(np.any(leaf) for leaf in jax.tree.leaves(gradient))
    assert np.all(np.isfinite(values))
    assert values[-1] < values[0] / 5
