"""A small network written into a larger one."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from deepsteg_jax import models
from deepsteg_jax.errors import UserError
from experiments.export_checkpoint import widen

quick = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})  # compiles fast


def build(features, hide, reveal, **fields):
    fields |= {"features": features, "start": "random", "hide_kernels": hide, "reveal_kernels": reveal}
    return models.build(ConfigDict({"name": "prep_hide_reveal", **fields}))


def test_a_wider_network_computes_the_same():
    small, large = (
        build(4, (1, 2), ((1, 1, 1, 1, 3),), hide_features=(5, 4, 3, 3, 4)),
        build(6, (1, 4), (3, 2)),
    )
    params = quick(small.init)(jax.random.key(0, impl="rbg"))
    shapes = jax.eval_shape(large.init, jax.random.key(0))
    wider = widen(jax.tree.map(np.asarray, params), shapes)
    assert jax.tree.map(np.shape, wider) == jax.tree.map(np.shape, shapes)
    cover, secret = jnp.asarray(np.random.default_rng(0).random((2, 1, 9, 9, 3)), jnp.float32)
    for run, side, given in (("hide", "hide", (cover, secret)), ("reveal", "reveal", (cover,))):
        expected = quick(getattr(small, run))(params[side], *given)
        np.testing.assert_allclose(quick(getattr(large, run))(wider[side], *given), expected, atol=1e-5)
    with pytest.raises(UserError, match="lacks reveal/block0/stack1_conv0/bias"):
        widen(wider, params)
    with pytest.raises(UserError, match="does not fit into"):
        widen({"hide": wider["hide"]}, params)
