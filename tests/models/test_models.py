import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from deepsteg_jax import models
from deepsteg_jax.errors import UserError

SETTINGS = {
    "block_dct": {"step": 4, "frames": 2, "classes": 8, "features": 4, "layers": 1},
    "invertible": {"start": "swap", "block": 4, "couplings": 1, "features": 2, "layers": 1},
    "prep_hide_reveal": {"features": 2},
}


def build(name):
    return models.build(ConfigDict({"name": name, **SETTINGS[name]}))


def test_every_model_is_tested():
    assert set(models.MODELS) == set(SETTINGS)


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
    assert model.step == 1
    assert build("block_dct").step == 4
