import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from deepsteg_jax import models
from deepsteg_jax.errors import UserError
from deepsteg_jax.losses import mean_squared_error
from deepsteg_jax.models import prep_hide_reveal

SETTINGS = {
    "block_dct": {"modulus": 4, "frames": 2, "classes": 8, "features": 4, "depth": 2},
    "invertible": {"start": "identity", "block": 4, "couplings": 2, "features": 2, "depth": 2},
    "prep_hide_reveal": {"features": 3},
}
MOVED = {"block_dct": 0.1, "invertible": 0.03, "prep_hide_reveal": 0.1}  # deviation from fresh parameters

quick = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})  # compiles fast


def build(name, **changes):
    return models.build(ConfigDict({"name": name, **SETTINGS[name], **changes}))


def test_every_model_is_tested():
    others = {"adaptive_learned", "robust"}  # test_embedding_costs.py, test_symbols.py
    assert set(models.MODELS) == {*SETTINGS} | others


@pytest.mark.parametrize("name", ["", "block-dct", "baluja"])
def test_unknown_name(name):
    with pytest.raises(UserError, match="block_dct, invertible, prep_hide_reveal") as caught:
        models.build(ConfigDict({"name": name}))
    assert repr(name) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("shape", [(2, 16, 24, 3), (2, 2, 13, 9, 3)])
def test_shapes(name, shape):
    model = build(name)
    params = jax.eval_shape(model.init, jax.random.key(0))
    assert set(params) == {"hide", "reveal"}
    x = jax.ShapeDtypeStruct(shape, np.float32)
    stego = jax.eval_shape(model.hide, params["hide"], x, x)
    revealed = jax.eval_shape(model.reveal, params["reveal"], stego)
    for made in (stego, revealed):
        assert made.shape == shape
        assert made.dtype == np.float32
    assert jax.eval_shape(model.penalty, params, x, x).shape == ()
    tied = jax.eval_shape(model.tie, params)
    assert jax.tree.map(lambda leaf: leaf.shape, tied) == jax.tree.map(lambda leaf: leaf.shape, params)


def test_defaults():
    model = build("prep_hide_reveal")
    params = {"hide": {}, "reveal": {}}
    assert float(model.penalty(params, None, None)) == 0
    assert model.tie(params) is params
    assert model.modulus == 1
    assert build("block_dct").modulus == 4


# --- dtype and remat ------------------------------------------------------------------------------


@pytest.fixture(scope="module", autouse=True)
def small():
    """A third of `prep_hide_reveal` takes a third of the time to compile."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prep_hide_reveal, "KERNELS", (4,))
        yield


def pictures(seed, shape):
    """Smooth pictures in [0, 1]."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: shape[1], : shape[2]][..., None]
    phases = rng.uniform(0, 6, (shape[0], 1, 1, 3))
    return jnp.asarray(0.5 + 0.3 * np.sin(0.3 * x + 0.2 * y + phases), jnp.float32)


@functools.cache
def make_params(name, scale):
    """Fresh parameters of which no layer is at zero any more, as after training."""
    model = build(name)
    params, rng = quick(model.init)(jax.random.key(0, impl="rbg")), np.random.default_rng(0)
    moved = jax.tree.map(lambda x: np.asarray(x) + rng.normal(0, scale, x.shape).astype(np.float32), params)
    return model.tie(moved)


def make_loss(model, size=16):
    """A loss that reaches every parameter; (params) -> (loss, (stego, revealed))."""
    cover, secret = (pictures(seed, (2, size, size, 3)) for seed in (1, 2))

    def loss(params):
        params = model.tie(params)
        stego = model.hide(params["hide"], cover, secret)
        revealed = model.reveal(params["reveal"], stego)
        terms = mean_squared_error(stego, cover) + mean_squared_error(revealed, secret)
        return terms + model.penalty(params, cover, secret), (stego, revealed)

    return loss


@functools.cache
def gradient_of(name, **changes):
    """Compiled: params -> ((loss, (stego, revealed)), gradient)."""
    return quick(jax.value_and_grad(make_loss(build(name, **changes)), has_aux=True))


def results(name, scale, *changes):
    """What `gradient_of` gives with each of these changes, for the same parameters."""
    params = make_params(name, scale)
    return [gradient_of(name, **change)(params) for change in changes]


@pytest.mark.slow
@pytest.mark.parametrize("name", SETTINGS)
def test_bfloat16_is_inside_only(name):
    """The same parameters, in float32, so that a checkpoint fits both; and float32 pictures."""
    settings = {"dtype": "bfloat16"}, {"dtype": "bfloat16", "remat": True}
    plain = jax.eval_shape(build(name).init, jax.random.key(0))
    x = jax.ShapeDtypeStruct((2, 16, 16, 3), np.float32)
    for changes in settings:
        model = build(name, **changes)
        params = jax.eval_shape(model.init, jax.random.key(0))
        assert params == plain and {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}
        assert jax.eval_shape(model.hide, params["hide"], x, x).dtype == np.float32
        assert jax.eval_shape(model.reveal, params["reveal"], x).dtype == np.float32
        gradient = jax.eval_shape(jax.grad(make_loss(model), has_aux=True), params)[0]
        assert gradient == plain


@pytest.mark.slow
@pytest.mark.parametrize("name", SETTINGS)
def test_bfloat16_is_close_to_float32(name):
    """bfloat16 rounds to 2^-9 of a value; over a few layers that adds up: measured 4e-3 of a picture."""
    found = [made for (_, made), _ in results(name, MOVED[name], {}, {"dtype": "bfloat16"})]
    errors = [np.sqrt(np.mean(np.square(a - b))) for a, b in zip(*found, strict=True)]
    assert max(errors) > 1e-5  # it is bfloat16
    for error, picture in zip(errors, found[0], strict=True):
        assert error < 0.02 * np.std(picture)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["block_dct", "invertible"])
def test_bfloat16_does_not_touch_what_is_no_network(name):
    """Fresh networks add nothing here, so what is left are the transforms, in float32 all the same."""
    found = [made for (_, made), _ in results(name, 0, {}, {"dtype": "bfloat16"})]
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=0, atol=1e-6), *found)


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("dtype", ["float16", "bf16", ""])
def test_unknown_dtype(name, dtype):
    for changes in ({}, {"depth": 0}):
        with pytest.raises(UserError, match="float32 or bfloat16") as caught:
            build(name, dtype=dtype, **changes)
        assert repr(dtype) in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.slow
@pytest.mark.parametrize("name", SETTINGS)
def test_remat_changes_neither_values_nor_gradients(name):
    """But for the order in which sums are compiled, some 1e-7 of the largest."""
    found = results(name, MOVED[name], {}, {"remat": True})
    plain = found[0][1]
    assert all(np.any(leaf) for leaf in jax.tree.leaves(plain["hide"]))
    for (path, a), b in zip(jax.tree.leaves_with_path(found[0]), jax.tree.leaves(found[1]), strict=True):
        size = np.abs(a).max()
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-4 * size, err_msg=jax.tree_util.keystr(path))


@pytest.mark.slow
@pytest.mark.parametrize("name", SETTINGS)
def test_remat_keeps_less_for_the_backward_pass(name):
    """Counted before XLA, which on a CPU removes the recomputation again."""
    kept = []
    for remat in (False, True):
        model = build(name, remat=remat, features=16)
        backward = functools.partial(jax.vjp, make_loss(model, 96), has_aux=True)
        params = jax.eval_shape(model.init, jax.random.key(0))
        residuals = jax.eval_shape(lambda params, backward=backward: backward(params)[1], params)
        kept.append(sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(residuals)))
    assert kept[1] < 0.7 * kept[0]
