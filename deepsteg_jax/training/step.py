"""One training step and one validation step as pure functions of state and batch."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import lax
from ml_collections import ConfigDict

from deepsteg_jax.models import Model
from deepsteg_jax.training.objective import Objective, choose_objective
from deepsteg_jax.training.parallel import ONE_DEVICE, Devices
from deepsteg_jax.training.state import TrainState, current_learning_rate, matches, update_ema


def example_keys(key: jax.Array, batch_size: int, devices: Devices = ONE_DEVICE) -> jax.Array:
    """Return a random key for every example, by its number in the global batch, on any number of devices."""
    first = devices.index() * batch_size
    return jax.vmap(jax.random.fold_in, (None, 0))(key, first + jnp.arange(batch_size))


def mean_over_parts(function: Callable, parts: int, *arguments: Any) -> Any:
    """Return the mean of `function` over equal parts of the leading axis, one part after the other.

    For a function that averages over its examples this is the function of the whole, in the memory of a part.

    Args:
        function: (*arguments) -> pytree of float arrays.
        parts: divides the leading axis.
        arguments: pytrees of arrays [b, ...].
    """
    if parts == 1:
        return function(*arguments)
    split = jax.tree.map(lambda x: x.reshape(parts, -1, *x.shape[1:]), arguments)
    shapes = jax.eval_shape(function, *jax.tree.map(lambda x: x[0], split))
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)

    def add(total, part):
        return jax.tree.map(jnp.add, total, function(*part)), None

    # On a CPU the gradient of a convolution is some 20 times slower inside a loop.
    unroll = parts if jax.default_backend() == "cpu" else 1
    total, _ = lax.scan(add, zeros, split, unroll=unroll)
    return jax.tree.map(lambda x: x / parts, total)


def make_train_step(
    model: Model, optimizer: optax.GradientTransformationExtraArgs, config: ConfigDict, base_key: jax.Array
) -> Callable[..., tuple[TrainState, dict[str, Any]]]:
    """Build train_step(state, batch, devices=ONE_DEVICE) -> (state, logs).

    Randomness is a function of (base_key, step, example), so a run that restarts at step k goes on with
    the same bits. Gradients and logs are averaged over the devices.
    """
    loss, frozen = choose_objective(model, config).loss, config.optimizer.get("frozen", ())

    def freeze(params):
        stop = matches(params, frozen)
        return jax.tree.map(lambda x, still: lax.stop_gradient(x) if still else x, params, stop)

    def gradients(params, batch, keys):
        differentiate = jax.value_and_grad(lambda x: loss(freeze(x), batch, keys), has_aux=True)
        (_, logs), grads = differentiate(params)
        return logs, grads

    def train_step(state, batch, devices=ONE_DEVICE):
        step_key = jax.random.fold_in(base_key, state.step)
        keys = example_keys(step_key, len(jax.tree.leaves(batch)[0]), devices)
        part = partial(gradients, state.params)
        logs, grads = devices.mean(mean_over_parts(part, config.train.accumulate_steps, batch, keys))
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params, value=logs["loss"])
        params = model.tie(optax.apply_updates(state.params, updates))
        logs |= {
            "gradient_norm": optax.global_norm(grads),
            "parameter_norm": optax.global_norm(params),
            "learning_rate": current_learning_rate(config.optimizer, state),
        }
        ema = update_ema(config.optimizer, state.ema, params, state.step)
        return TrainState(state.step + 1, params, opt_state, ema), logs

    return train_step


def make_validation_step(objective: Objective, base_key: jax.Array) -> Callable[..., dict[str, jax.Array]]:
    """Build validation_step((params, number), batch, devices=ONE_DEVICE) -> sums over real examples.

    `number` counts the batches of a pass, so that every pass draws the same keys and noise. `batch` has
    `weight` [b] besides, 1 for an example and 0 for padding; its sum is returned with those of the
    objective's figures.
    """

    def measure(params, example, key):
        return objective.measure(params, jax.tree.map(lambda x: x[None], example), key[None])

    def validation_step(replicated, batch, devices=ONE_DEVICE):
        params, number = replicated
        examples = {name: x for name, x in batch.items() if name != "weight"}
        keys = example_keys(jax.random.fold_in(base_key, number), len(batch["weight"]), devices)
        found = jax.vmap(partial(measure, params))(examples, keys)
        found["weight"] = jnp.ones_like(batch["weight"])
        return devices.sum(jax.tree.map(lambda x: jnp.sum(jnp.where(batch["weight"] > 0, x, 0)), found))

    return validation_step
