import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from deepsteg_jax import models
from deepsteg_jax.errors import UserError
from deepsteg_jax.models.modulo_start import UNIT

quick = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})  # compiles fast


@functools.cache
def build(levels, features, quantise="", **fields):
    """The model and its parameters."""
    kernels = {"hide_kernels": (1, 1, 1), "reveal_kernels": ((1, 1, 1, 3, 3), 1, 1)}
    fields = (
        {"features": features, "levels": levels, "start": "modulo", "quantise": quantise} | kernels | fields
    )
    model = models.build(ConfigDict({"name": "prep_hide_reveal", **fields}))
    return model, quick(model.init)(jax.random.key(0, impl="rbg"))


def pictures(seed=0):
    """Cover and secret, int [1, 16, 256, 3]; every row of the cover has all values."""
    rng = np.random.default_rng(seed)
    cover = rng.permuted(np.tile(np.arange(256)[:, None], (1, 16, 1, 3)), axis=2)
    return cover, rng.integers(0, 256, cover.shape)


def hide_by_remainder(cover, secret, levels):
    """What the start computes, in integers."""
    digit, top = secret * levels // 256, 256 // levels - 1
    part = np.minimum(cover // levels, top)
    distance = part * levels + digit - cover
    part = part + ((distance < -(levels // 2)) & (part < top))
    part = part - ((distance > levels // 2) & (part > 0))
    return part * levels + digit


NARROW = (  # as few features as the start needs, all colours in one stack of reveal
    ("hide_features", (17, 17, 3, 3, 3)),
    ("reveal_features", (48, 48, 3, 4, 3)),
    ("reveal_kernels", ((1, 1, 1, 3, 3),)),
)


@pytest.mark.parametrize(
    ("levels", "features", "quantise", "fields"),  # a colour in each stack, or all in each
    [
        (17, 16, "", ()),
        (32, 31, "", ()),
        (17, 16, "int8", ()),
        (16, 50, "", NARROW),
    ],
)
def test_start_hides_by_remainders(levels, features, quantise, fields):
    model, params = build(levels, features, quantise, **dict(fields))
    cover, secret = pictures()
    stego = 255 * np.asarray(quick(model.hide)(params["hide"], cover / 255.0, secret / 255.0))
    expected = hide_by_remainder(cover, secret, levels)
    assert np.max(np.abs(cover - expected)) < 2 * levels
    np.testing.assert_allclose(stego, expected, atol=1e-3)
    revealed = 255 * np.asarray(quick(model.reveal)(params["reveal"], expected / 255.0))
    middles = 256 / levels * (secret * levels // 256 + 0.5) - 0.5
    np.testing.assert_allclose(revealed, middles, atol=0.55 if quantise else 0.02)


def test_biases_may_be_whole_numbers():
    """Those of int8 layers are, in steps of the weights' scale times that of the activations."""
    model, params = build(17, 16, "int8")

    def rounded(layer):
        step = UNIT * np.maximum(np.abs(layer["kernel"]).max((0, 1, 2)) / 127, 1e-9)
        return layer | {"bias": np.round(layer["bias"] / step) * step}

    hide = jax.tree.map(np.asarray, params["hide"])
    for blocks in hide.values():
        for block in ("block0", "block1"):
            for name in blocks[block]:
                if (block, name[-1]) != ("block0", "0"):  # which reads pixels
                    blocks[block][name] = rounded(blocks[block][name])
    cover, secret = pictures()
    stego = 255 * np.asarray(quick(model.hide)(hide, cover / 255.0, secret / 255.0))
    np.testing.assert_allclose(stego, hide_by_remainder(cover, secret, 17), atol=1e-3)


def test_units_behind_the_remainder_learn():
    model, params = build(17, 16)
    cover, secret = (jnp.asarray(x, jnp.float32) / 255 for x in pictures())

    def loss(reveal):
        return jnp.mean(jnp.square(model.reveal(reveal, cover) - secret))

    gradient = quick(jax.grad(loss))(params["reveal"])
    of_second_stack = gradient["out"]["kernel"][0, 0, 16:32]
    assert np.mean(np.any(of_second_stack != 0, axis=-1)) > 0.3
    deep = params["reveal"]["block0"]["stack0_conv3"]["kernel"]
    (taken,) = np.unique(np.nonzero(deep)[2])  # the red remainder alone
    assert np.std(deep[:, :, taken]) > 0.1
    # Steps stay between the same neighbouring values.
    slopes = gradient["block0"]["stack0_conv1"]["kernel"][0, 0, :14, :14]
    np.testing.assert_array_equal(np.diag(slopes), 0)


def test_bad_settings():
    with pytest.raises(UserError, match=r"at least \[16, 16, 3, 3, 3\] .* with 17 levels, not \[15, 15,"):
        build(17, 15)
    with pytest.raises(UserError, match="levels must be 2 to 64, not 65"):
        build(65, 64)
