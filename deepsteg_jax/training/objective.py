"""The loss that a model is trained with, and the figures that validation takes."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from ml_collections import ConfigDict

from deepsteg_jax import losses, steganography
from deepsteg_jax.channels import simulated as channels
from deepsteg_jax.models import Model
from deepsteg_jax.steganalysis import network

STEGANALYSER = "steganalyser"  # a term of the loss, and the part of the parameters that it needs
_FEATURES = (24, 32, 48)  # channels of the steganalyser
_PACE = 1e-3  # its learning rate

Batch = dict[str, jax.Array]


class Pictures(NamedTuple):
    """A batch on its way: all [b, h, w, 3] or [b, t, h, w, 3] in [0, 1]."""

    cover: jax.Array
    stego: jax.Array
    secret: jax.Array
    revealed: jax.Array


class Objective(NamedTuple):
    """One way to train a model: by hiding and revealing, or with a loss of its own.

    Attributes:
        examples: what the batches hold, as a user would say it.
        loss: (params, batch, keys) -> (scalar, logs), the logs scalars that are means over the batch.
        measure: (params, batch, keys) -> the figures of validation, means over the batch.
        metrics: figures by which the best parameters may be chosen.
        draw: (params, batch, keys) -> Pictures; None if there are none to look at.
    """

    examples: str
    loss: Callable[[Any, Batch, jax.Array], tuple[jax.Array, dict[str, jax.Array]]]
    measure: Callable[[Any, Batch, jax.Array], dict[str, jax.Array]]
    metrics: tuple[str, ...]
    draw: Callable[[Any, Batch, jax.Array], Pictures] | None = None


def choose_objective(model: Model, config: ConfigDict) -> Objective:
    """Return the model's own loss where it has one, else hiding and revealing weighted by `config.losses`."""
    return _own(model) if model.loss else _hide_and_reveal(model, config)


def _own(model: Model) -> Objective:
    """Train by `Model.loss`."""

    def loss(params, batch, keys):
        value, logs = model.loss(model.tie(params), batch, keys)  # see `Model.tie`
        return value, {**logs, "loss": value}

    return Objective(model.examples, loss, lambda *given: loss(*given)[1], ("loss",))


def _hide_and_reveal(model: Model, config: ConfigDict) -> Objective:
    def run(params, batch, keys):
        weights = config.losses.to_dict()
        space = weights.pop("colour", "rgb")
        params = model.tie(params)  # shared parameters collect the gradients of both sides
        pictures = hide_and_reveal(model, config, params, batch, keys)
        stego, secret = (pictures.cover, pictures.stego), (pictures.secret, pictures.revealed)
        logs = {"stego_psnr_db": psnr(*stego), "secret_psnr_db": psnr(*secret)}
        terms = {
            "stego": losses.mean_squared_error(*(losses.to_space(x, space) for x in stego)),
            "secret": losses.mean_squared_error(*(losses.to_space(x, space) for x in secret)),
            "secret_db": -logs["secret_psnr_db"],
            "penalty": model.penalty(params, pictures.cover, pictures.secret),
        }
        for name, pair in (("stego_ssim", stego), ("secret_ssim", secret)):
            if weights.get(name):  # it takes crops of at least 11x11
                terms[name] = losses.dissimilarity(*pair)
        if STEGANALYSER in params:
            own = params[STEGANALYSER], config.optimizer.learning_rate, weights[STEGANALYSER]
            terms[STEGANALYSER], found = _steganalyse(*own, *stego)
            logs |= found
        used = {name: weight for name, weight in weights.items() if name in terms or weight}
        loss, found = losses.total_loss(terms, used)
        return loss, found | logs, pictures

    def measure(params, batch, keys):
        loss, _, pictures = run(params, batch, keys)
        cover, stego, secret, revealed = map(_to_8_bits, pictures)
        return {
            "loss": loss,
            "stego_psnr_db": psnr(cover, stego),
            "secret_psnr_db": psnr(secret, revealed),
        }

    def draw(params, batch, keys):
        return hide_and_reveal(model, config, params, batch, keys)

    metrics = ("loss", "stego_psnr_db", "secret_psnr_db")
    return Objective("covers and secrets", lambda *given: run(*given)[:2], measure, metrics, draw)


def with_steganalyser(model: Model, config: ConfigDict) -> Model:
    """Return a model whose parameters hold a steganalyser's besides, if `config.losses.steganalyser` asks.

    Adam moves every parameter by about the learning rate of a step; the steganalyser has to keep up with the
    model, so its parameters are kept in units at which it learns at `_PACE`.
    """
    if not config.get("losses", {}).get(STEGANALYSER):
        return model

    def init(key):
        found = network.Network(_FEATURES).init(jax.random.fold_in(key, 1), jnp.zeros((1, 32, 32, 3)), True)
        unit = _PACE / config.optimizer.learning_rate
        return model.init(key) | {STEGANALYSER: jax.tree.map(lambda x: x / unit, found["params"])}

    def tie(params):
        return {**model.tie(params), STEGANALYSER: params[STEGANALYSER]}

    return model._replace(init=init, tie=tie)


def _steganalyse(params, learning_rate: float, weight: float, cover, stego) -> tuple[jax.Array, dict]:
    """Return the term that the steganalyser lowers and the model raises, and the figures of both players."""
    params = jax.tree.map(lambda x: x * (_PACE / learning_rate), params)
    cover, stego = (255 * x.reshape(-1, *x.shape[-3:]) for x in (cover, stego))
    written = stego + lax.stop_gradient(jnp.round(jnp.clip(stego, 0, 255)) - stego)
    # The weight applies to what reaches the model; the steganalyser's own gradient has none.
    seen = losses.reverse_gradient(written, weight)
    found, accuracy = network.discriminate(network.Network(_FEATURES), params, cover, seen)
    value = -lax.stop_gradient(found)
    return value + (found - lax.stop_gradient(found)) / weight, {"steganalyser_accuracy": accuracy}


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
    """Return the mean over examples of the PSNR in dB of [b, ...] in [0, 1], at most 100."""
    errors = jnp.mean(jnp.square(a - b).reshape(len(a), -1), axis=1)
    return jnp.mean(-10 * jnp.log10(jnp.maximum(errors, 1e-10)))


def _to_8_bits(x: jax.Array) -> jax.Array:
    return jnp.round(jnp.clip(x, 0, 1) * 255) / 255
