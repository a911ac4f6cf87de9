"""One training step as a pure function; it does not know how it is run in parallel."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax
from ml_collections import ConfigDict

from deepsteg_jax import losses, steganography
from deepsteg_jax.channels import simulated as channels
from deepsteg_jax.models import Model
from deepsteg_jax.training.state import TrainState, current_learning_rate, update_ema

Batch = dict[str, jax.Array]

VALIDATED = ("loss", "stego_psnr_db", "secret_psnr_db")  # what validation on pairs measures


class Pictures(NamedTuple):
    """A batch on its way: all [b, h, w, 3] or [b, t, h, w, 3] in [0, 1]."""

    cover: jax.Array
    stego: jax.Array
    secret: jax.Array
    revealed: jax.Array


def example_keys(key: jax.Array, batch_size: int, axis_name: str | None) -> jax.Array:
    """A random key for every example, by its number in the global batch: device counts do not matter."""
    first = lax.axis_index(axis_name) * batch_size if axis_name else 0
    return jax.vmap(jax.random.fold_in, (None, 0))(key, first + jnp.arange(batch_size))


def hide_and_reveal(model: Model, config: ConfigDict, params, batch: Batch, keys: jax.Array) -> Pictures:
    """Shuffle with a fresh key per example, hide, channel, reveal, unshuffle.

    Args:
        model: from `models.build`.
        config: the whole config.
        params: {"hide": ..., "reveal": ...}.
        batch: `cover` and `secret`, uint8.
        keys: random keys, one for each example.
    """
    cover, secret = (batch[name].astype(jnp.float32) / 255 for name in ("cover", "secret"))
    shuffle_keys = jax.vmap(lambda key: jax.random.bits(jax.random.fold_in(key, 0), (8,), jnp.uint32))(keys)
    first = jnp.zeros(len(cover), jnp.uint32)
    stego = steganography.hide(model, config.shuffle, params["hide"], shuffle_keys, first, cover, secret)
    noise_keys = jax.vmap(jax.random.fold_in, (0, None))(keys, 1)
    received = jax.vmap(channels.build(config.channel))(noise_keys, stego)
    revealed = steganography.reveal(model, config.shuffle, params["reveal"], shuffle_keys, first, received)
    return Pictures(cover, stego, secret, revealed)


def psnr(a: jax.Array, b: jax.Array) -> jax.Array:
    """Mean over examples of the PSNR in dB of [b, ...] in [0, 1], at most 100."""
    errors = jnp.mean(jnp.square(a - b).reshape(len(a), -1), axis=1)
    return jnp.mean(-10 * jnp.log10(jnp.maximum(errors, 1e-10)))


def compute_loss(model: Model, config: ConfigDict, params, batch: Batch, keys: jax.Array):
    """(loss, (logs, pictures)) of a batch; a batch of records (`Model.loss`) has no pictures, but None."""
    params = model.tie(params)  # what both sides share collects the gradients of both
    if model.loss:
        loss, logs = model.loss(params, batch)
        return loss, ({**logs, "loss": loss}, None)
    pictures = hide_and_reveal(model, config, params, batch, keys)
    terms = {
        "stego": losses.mean_squared_error(pictures.cover, pictures.stego),
        "secret": losses.mean_squared_error(pictures.secret, pictures.revealed),
        "secret_db": -psnr(pictures.secret, pictures.revealed),
        "penalty": model.penalty(params, pictures.cover, pictures.secret),
    }
    loss, logs = losses.total_loss(terms, config.losses.to_dict())
    logs["stego_psnr_db"] = psnr(pictures.cover, pictures.stego)
    logs["secret_psnr_db"] = -terms["secret_db"]
    return loss, (logs, pictures)


def mean_over_parts(function: Callable, parts: int, *arguments: Any) -> Any:
    """The mean of `function` over equal parts of the leading axis, one part after the other.

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
    model: Model,
    optimizer: optax.GradientTransformationExtraArgs,
    config: ConfigDict,
    base_key: jax.Array,
    axis_name: str | None = None,
) -> Callable[[TrainState, Batch], tuple[TrainState, dict[str, Any]]]:
    """Builds train_step(state, batch) -> (state, logs).

    Randomness is a function of (base_key, step, example), so a run that restarts at step k goes on with
    the same bits. With `axis_name`, gradients and logs are averaged over that mapped axis.
    """

    def gradients(params, batch, keys):
        def loss_fn(params):
            loss, (logs, _) = compute_loss(model, config, params, batch, keys)
            return loss, logs

        (_, logs), grads = jax.value_and_grad(loss_fn, has_aux=True)(params)
        return logs, grads

    def train_step(state, batch):
        step_key = jax.random.fold_in(base_key, state.step)
        keys = example_keys(step_key, len(jax.tree.leaves(batch)[0]), axis_name)
        part = partial(gradients, state.params)
        logs, grads = mean_over_parts(part, config.train.accumulate_steps, batch, keys)
        if axis_name:
            logs, grads = lax.pmean((logs, grads), axis_name)
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


def _to_8_bits(x: jax.Array) -> jax.Array:
    return jnp.round(jnp.clip(x, 0, 1) * 255) / 255


def make_validation_step(
    model: Model, config: ConfigDict, base_key: jax.Array, axis_name: str | None = None
) -> Callable[[tuple[Any, jax.Array], Batch], dict[str, jax.Array]]:
    """Builds validation_step((params, number), batch) -> sums over the batch's real examples.

    `number` counts the batches of a pass, so that every pass draws the same keys and noise. `batch` has
    `weight` [b] besides, 1 for an example and 0 for padding; its sum is returned with those of the losses and
    of the PSNRs, which are of 8-bit stego and revealed pictures, or of all logs of the model's own loss.
    """

    def measure(params, example, key):
        batch = jax.tree.map(lambda x: x[None], example)
        _, (logs, pictures) = compute_loss(model, config, params, batch, key[None])
        if model.loss:
            return logs
        cover, stego, secret, revealed = map(_to_8_bits, pictures)
        return {
            "loss": logs["loss"],
            "stego_psnr_db": psnr(cover, stego),
            "secret_psnr_db": psnr(secret, revealed),
        }

    def validation_step(replicated, batch):
        params, number = replicated
        examples = {name: x for name, x in batch.items() if name != "weight"}
        keys = example_keys(jax.random.fold_in(base_key, number), len(batch["weight"]), axis_name)
        found = jax.vmap(partial(measure, params))(examples, keys)
        found["weight"] = jnp.ones_like(batch["weight"])
        sums = jax.tree.map(lambda x: jnp.sum(jnp.where(batch["weight"] > 0, x, 0)), found)
        return lax.psum(sums, axis_name) if axis_name else sums

    return validation_step
