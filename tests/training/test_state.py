"""Schedules, clipping, the average of the parameters and the fresh state."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from deepsteg_jax import models
from deepsteg_jax.errors import UserError
from deepsteg_jax.training.state import (
    create_optimizer,
    create_state,
    current_learning_rate,
    learning_rate,
    update_ema,
)


@pytest.fixture
def optimizer(toy):
    """The section `optimizer` of a config."""
    toy.optimizer.num_steps, toy.optimizer.warmup_steps, toy.optimizer.learning_rate = 50, 10, 0.1
    return toy.optimizer


def _update(stages, opt_state, loss, gradient=1.0):
    params = {"w": jnp.zeros(3)}
    grads = {"w": jnp.full(3, gradient)}
    return jax.jit(stages.update)(grads, opt_state, params, value=jnp.float32(loss))


def test_cosine_warms_up_and_ends_at_zero(optimizer):
    optimizer.schedule = "cosine"
    rates = [float(learning_rate(optimizer)(step)) for step in range(51)]
    assert np.allclose(rates[:11], np.linspace(0, 0.1, 11), atol=1e-7)
    assert np.allclose(rates[10:], 0.05 * (1 + np.cos(np.linspace(0, np.pi, 41))), atol=1e-7)


def test_cosine_without_warm_up_starts_at_the_peak(optimizer):
    optimizer.schedule, optimizer.warmup_steps = "cosine", 0
    rate = learning_rate(optimizer)
    assert np.allclose([rate(0), rate(25), rate(50)], [0.1, 0.05, 0], atol=1e-7)


def test_cosine_of_a_run_shorter_than_its_warm_up(optimizer):
    optimizer.schedule, optimizer.num_steps = "cosine", 4
    assert np.allclose([learning_rate(optimizer)(step) for step in range(5)], np.linspace(0, 0.04, 5))


def test_constant(optimizer):
    rate = learning_rate(optimizer)
    assert [float(rate(step)) for step in (0, 5, 49, 1000)] == [pytest.approx(0.1)] * 4


def test_unknown_schedule(optimizer):
    optimizer.schedule = "linear"
    with pytest.raises(UserError, match="constant, cosine or plateau, not 'linear'"):
        create_optimizer(optimizer)


def test_the_schedule_reaches_the_updates(optimizer):
    """The first moments of Adam cancel for a constant gradient: each update is minus the learning rate."""
    optimizer.schedule = "cosine"
    stages = create_optimizer(optimizer)
    opt_state, sizes = stages.init({"w": jnp.zeros(3)}), []
    for _ in range(12):
        updates, opt_state = _update(stages, opt_state, loss=1.0)
        sizes.append(-float(updates["w"][0]))
    assert np.allclose(sizes, [learning_rate(optimizer)(step) for step in range(12)], rtol=1e-4, atol=1e-8)


def test_plateau_halves_after_patience_windows_without_progress(optimizer, toy):
    """Windows of 3, patience 2: the first window sets the best, the 3rd, 5th, ... each halve."""
    optimizer.schedule = "plateau"
    stages = create_optimizer(optimizer)
    state = create_state(models.build(toy.model), stages, jax.random.key(0))
    opt_state, sizes, rates = stages.init({"w": jnp.zeros(3)}), [], []
    for step in range(1, 17):
        updates, opt_state = _update(stages, opt_state, loss=1.0)
        sizes.append(-float(updates["w"][0]))
        state = state.replace(step=jnp.int32(step), opt_state=opt_state)
        rates.append(float(current_learning_rate(optimizer, state)))
    assert np.allclose(rates, [0.1] * 8 + [0.05] * 6 + [0.025] * 2)
    assert np.allclose(sizes, rates, rtol=1e-4)


def test_plateau_stays_while_the_loss_falls_and_forgives_noise_inside_a_window(optimizer):
    optimizer.schedule = "plateau"
    stages = create_optimizer(optimizer)
    opt_state = stages.init({"w": jnp.zeros(3)})
    for step in range(30):
        _, opt_state = _update(stages, opt_state, loss=100 - step // 3 + (50, 0, -50)[step % 3])
    assert float(opt_state[-1].scale) == 1


@pytest.mark.parametrize("schedule", ["constant", "plateau"])
def test_gradients_are_clipped_by_their_global_norm(optimizer, schedule):
    """Adam's first moment after one step is a tenth of the clipped gradient."""
    optimizer.schedule, optimizer.clip_norm = schedule, 2.0
    stages = create_optimizer(optimizer)
    for gradient, norm in ((0.5, 0.5 * 3**0.5), (1e4, 2.0)):
        _, opt_state = _update(stages, stages.init({"w": jnp.zeros(3)}), loss=1.0, gradient=gradient)
        moment = optax.tree_utils.tree_get(opt_state, "mu")
        assert float(optax.global_norm(moment)) == pytest.approx(0.1 * norm, rel=1e-5)


def test_the_average_is_the_recurrence_with_a_decay_that_warms_up(optimizer):
    """Against double precision; the decay is 1/10, 2/11, 3/12, ... and 0.7 from step 20 on."""
    optimizer.ema_decay = 0.7
    update = jax.jit(lambda *given: update_ema(optimizer, *given))
    rng, decays = np.random.default_rng(0), []
    average = {"a": rng.normal(size=3), "b": {"c": rng.normal(size=(2, 2))}}
    found = jax.tree.map(jnp.float32, average)
    for step in range(30):
        params = jax.tree.map(lambda x: rng.normal(size=x.shape), average)
        decays.append(min(0.7, (1 + step) / (10 + step)))
        average = jax.tree.map(lambda a, p: decays[-1] * a + (1 - decays[-1]) * p, average, params)
        found = update(found, jax.tree.map(jnp.float32, params), jnp.int32(step))
        for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(average), strict=True):
            assert a.dtype == jnp.float32
            np.testing.assert_allclose(a, b, rtol=0, atol=1e-6)
    assert decays[0] == 0.1 and decays[19] < decays[20] == decays[-1] == 0.7
    assert update_ema(optimizer, None, found, jnp.int32(3)) is None


def test_fresh_state_is_a_function_of_the_key(toy):
    model, stages = models.build(toy.model), create_optimizer(toy.optimizer)
    a, again, b = (create_state(model, stages, jax.random.key(seed)) for seed in (1, 1, 2))
    assert int(a.step) == 0 and a.step.dtype == jnp.int32
    assert jax.tree.all(jax.tree.map(np.array_equal, a, again))
    assert not np.array_equal(a.params["hide"]["mix"], b.params["hide"]["mix"])


def test_a_fresh_average_is_a_copy_that_can_be_donated_beside_the_parameters(toy):
    model, stages = models.build(toy.model), create_optimizer(toy.optimizer)
    plain, state = (create_state(model, stages, jax.random.key(1), ema=ema) for ema in (False, True))
    assert plain.ema is None and plain.tested is plain.params and state.tested is state.ema
    for params, average in zip(jax.tree.leaves(state.params), jax.tree.leaves(state.ema), strict=True):
        assert np.array_equal(params, average)
        assert params.unsafe_buffer_pointer() != average.unsafe_buffer_pointer()
