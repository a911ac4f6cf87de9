"""The cost model: what is counted in a program, and the arithmetic on paper."""

import jax
import jax.numpy as jnp
import pytest
from jax import lax

from configs import invertible, prep_hide_reveal
from deepsteg_jax import costs, models

DEVICE = costs.Device("toy", 1e12, 1e9, 1e9, 4, 2e8, 1e7, 0.5, 0.25, launch=1e-3, hop=1e-4)


def floats(*shape):
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def test_flops_of_a_matrix_product():
    assert costs.flops(jnp.dot, floats(32, 64), floats(64, 16)) == 2 * 32 * 64 * 16


def test_bytes_of_a_matrix_product():
    expected = 4 * (32 * 64 + 64 * 16 + 32 * 16)
    assert costs.bytes_moved(jnp.dot, floats(32, 64), floats(64, 16)) == expected


def chain(trips, x, w):
    return lax.fori_loop(0, trips, lambda _, x: x @ w, x)


def test_loops_count_as_often_as_they_run():
    once, often = (
        costs.work(lambda x, w, trips=trips: chain(trips, x, w), floats(64, 64), floats(64, 64))
        for trips in (2, 20)
    )
    assert often.flops == pytest.approx(10 * once.flops, rel=0.01)
    assert often.bytes > 5 * once.bytes


def test_loop_rounds_of_nested_loops():
    def nested(x):
        return lax.fori_loop(0, 3, lambda _, x: lax.fori_loop(0, 4, lambda _, x: x + 1, x), x)

    assert costs.loop_rounds(nested, floats()) == 3 + 3 * 4
    assert costs.loop_rounds(jax.vmap(nested), floats(5)) == 3 + 3 * 4
    assert costs.loop_rounds(jnp.sin, floats()) == 0


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
    assert costs.computed_again(loss, floats(7, 5), floats(3, 7)) == 4 * 2 * 3 * 5  # both derivatives
    assert costs.computed_again(layer, floats(7, 5), floats(3, 7)) == 0


@pytest.fixture(params=["invertible", "prep_hide_reveal"])
def case(request):
    """A model's config and how to build a loss of it."""
    module = {"invertible": invertible, "prep_hide_reveal": prep_hide_reveal}[request.param]
    return module.get_config("tiny").model


def kept(config, batch):
    model = models.build(config)
    params = jax.eval_shape(model.init, jax.random.key(0))

    def loss(params, cover, secret):
        stego = model.hide(params["hide"], cover, secret)
        return jnp.sum(jnp.square(model.reveal(params["reveal"], stego) - secret)) + jnp.sum(stego**2)

    pictures = [floats(batch, 16, 16, 3)] * 2
    return costs.kept_activations(loss, params, *pictures), costs.computed_again(loss, params, *pictures)


def test_kept_activations_are_linear_in_the_batch(case):
    one, two, five = (kept(case, batch)[0] for batch in (1, 2, 5))
    assert two > one
    assert five - two == 3 * (two - one)


def test_remat_keeps_less(case):
    plain, again = kept(case, 2)
    assert again == 0
    case.remat = True
    less, again = kept(case, 2)
    assert less < 0.7 * plain
    assert 0 < again < plain
    assert less + again < plain


def test_bfloat16_keeps_less(case):
    plain, _ = kept(case, 2)
    case.dtype = "bfloat16"
    assert kept(case, 2)[0] < plain


def test_parameter_bytes_do_not_grow_with_the_frame(case):
    model = models.build(case)
    params = jax.eval_shape(model.init, jax.random.key(0))
    assert costs.tree_bytes(params) == 4 * sum(costs.parameter_counts(model).values())


def test_gmac_is_about_linear_in_pixels(case):
    small, large = (costs.gmac_per_frame(models.build(case), 1, side, side) for side in (32, 64))
    for side in ("hide", "reveal"):  # convolutions are not padded at borders, so a little more than 4
        assert 4 <= large[side] / small[side] < 4.6


# --- on paper ------------------------------------------------------------------------------------


def test_one_device_needs_no_all_reduce():
    assert costs.all_reduce_seconds(1e9, DEVICE, 1) == 0
    assert costs.step_seconds(costs.StepCost(1, 1, 1, 1000), DEVICE, 1).all_reduce == 0


@pytest.mark.parametrize(("count", "link"), [(2, 2e8), (4, 2e8), (8, 1e7)])
def test_ring_all_reduce(count, link):
    transfer = 2 * (count - 1) / count * 1e6 / link
    assert costs.all_reduce_seconds(1e6, DEVICE, count) == pytest.approx(transfer + 2 * (count - 1) * 1e-4)


@pytest.mark.parametrize(
    ("cost", "seconds"),
    [
        (costs.StepCost(5e11, 0, 0, 0), 1.0),  # half of 1e12 flops a second
        (costs.StepCost(0, 5e8, 0, 0), 2.0),  # a quarter of 1e9 bytes a second
        (costs.StepCost(0, 0, 3000, 0), 3.0),
        (costs.StepCost(5e11, 5e8, 3000, 0), 3.0),  # they overlap: the slowest counts
    ],
)
def test_step_seconds_is_the_slowest_part(cost, seconds):
    assert costs.step_seconds(cost, DEVICE, 1).total == pytest.approx(seconds)


def test_the_all_reduce_adds_to_the_step():
    step = costs.step_seconds(costs.StepCost(5e11, 0, 0, 10**6), DEVICE, 4)
    assert step.total == step.compute + step.all_reduce
    assert step.all_reduce == costs.all_reduce_seconds(4e6, DEVICE, 4)


def test_state():
    assert costs.state_bytes(1000) == 4 * 1000 * 4
    assert costs.state_bytes(1000, ema=True) == 4 * 1000 * 5
    assert costs.state_traffic(1) == 40


def test_largest_batch():
    assert costs.largest_batch(example=10, fixed=25, memory=100) == 7
    assert costs.largest_batch(example=10, fixed=95, memory=100) == 0
    assert costs.largest_batch(example=10, fixed=200, memory=100) == 0
