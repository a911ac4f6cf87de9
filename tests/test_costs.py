"""What is counted in a program."""

import jax
import jax.numpy as jnp
import pytest
from jax import lax

from configs import invertible, prep_hide_reveal
from deepsteg_jax import costs, models


def floats(*shape):
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def test_flops_of_a_matrix_product():
    assert costs.flops(jnp.dot, floats(32, 64), floats(64, 16)) == 2 * 32 * 64 * 16


def chain(trips, x, w):
    return lax.fori_loop(0, trips, lambda _, x: x @ w, x)


def test_loops_count_as_often_as_they_run():
    once, often = (
        costs.flops(lambda x, w, trips=trips: chain(trips, x, w), floats(64, 64), floats(64, 64))
        for trips in (2, 20)
    )
    assert often == pytest.approx(10 * once, rel=0.01)


def layer(w, x):
    return jnp.sum(jnp.sin(x @ w))


def test_kept_activations_by_hand():
    # The product's gradient needs x, the sine's needs a cosine; w itself is a parameter and not kept twice.
    assert costs.kept_activations(layer, floats(7, 5), floats(3, 7)) == 4 * (3 * 7 + 3 * 5)


def test_kept_activations_leave_out_parameters():
    def loss(params, x):
        first, second = params
        return jnp.sum(jnp.sin(jnp.sin(x @ first) @ second))

    # x and the first sine for the products, a cosine of each size; `second` is needed too, and not counted.
    kept = 3 * 7 + 3 * 5 + 3 * 5 + 3 * 4
    assert costs.kept_activations(loss, (floats(7, 5), floats(5, 4)), floats(3, 7)) == 4 * kept


def test_kept_activations_of_rematerialised_layers():
    def loss(w, x):
        return jnp.sum(jax.checkpoint(lambda x: jnp.sin(x @ w) + jnp.cos(x @ w))(x))

    assert costs.kept_activations(loss, floats(7, 5), floats(3, 7)) == 4 * 3 * 7  # the inputs alone


@pytest.fixture(params=["invertible", "prep_hide_reveal"])
def case(request):
    """The config of a model; one of three sizes of kernels is enough."""
    if request.param == "invertible":
        model = invertible.get_config("identity").model
        model.update(couplings=2, features=4, depth=1)
        return model
    model = prep_hide_reveal.get_config("tiny").model
    model.update(hide_kernels=(3,), reveal_kernels=(3,))
    return model


def kept(config, batch):
    model = models.build(config)
    params = jax.eval_shape(model.init, jax.random.key(0))

    def loss(params, cover, secret):
        stego = model.hide(params["hide"], cover, secret)
        return jnp.sum(jnp.square(model.reveal(params["reveal"], stego) - secret)) + jnp.sum(stego**2)

    pictures = [floats(batch, 16, 16, 3)] * 2
    return costs.kept_activations(loss, params, *pictures)


@pytest.mark.slow
def test_kept_activations_are_linear_in_the_batch(case):
    one, two, five = (kept(case, batch) for batch in (1, 2, 5))
    assert two > one
    assert five - two == 3 * (two - one)


@pytest.mark.slow
def test_remat_and_bfloat16_keep_less(case):
    plain = kept(case, 2)
    case.remat = True
    assert kept(case, 2) < 0.7 * plain
    case.remat, case.dtype = False, "bfloat16"
    assert kept(case, 2) < plain


def test_parameter_bytes_do_not_grow_with_the_frame(case):
    model = models.build(case)
    params = jax.eval_shape(model.init, jax.random.key(0))
    assert costs.tree_bytes(params) == 4 * sum(costs.parameter_counts(model).values())


@pytest.mark.slow
def test_gmac_is_about_linear_in_pixels(case):
    small, large = (costs.gmac_per_frame(models.build(case), 1, side, side) for side in (32, 64))
    for side in ("hide", "reveal"):  # convolutions are not padded at borders, so a little more than 4
        assert 4 <= large[side] / small[side] < 4.6
