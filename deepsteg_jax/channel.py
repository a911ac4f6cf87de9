"""Differentiable channels between hide and reveal, composed from the config.

`config.channel` is a tuple of (name, parameter) pairs, applied in order; each maps (key, stego, parameter)
to what the receiver gets, float32 in [0, 1] of the same shape.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from deepsteg_jax.errors import UserError


def round_to_bits(key: jax.Array, stego: jax.Array, bits: int) -> jax.Array:
    """Clips to [0, 1] and rounds to 2^bits levels; the gradient goes straight through (Bengio 2013)."""
    del key
    steps = 2**bits - 1
    rounded = jnp.round(jnp.clip(stego, 0, 1) * steps) / steps
    return stego + jax.lax.stop_gradient(rounded - stego)


def gaussian_noise(key: jax.Array, stego: jax.Array, deviation: float) -> jax.Array:
    """Adds white Gaussian noise; `deviation` is in units of the [0, 1] range."""
    return stego + deviation * jax.random.normal(key, stego.shape)


CHANNELS = {"round": round_to_bits, "gaussian_noise": gaussian_noise}


def build(stages: tuple[tuple[str, float], ...]) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """Composes the channel channel(key, stego) -> received.

    Raises:
        UserError: a stage has an unknown name.
    """
    for name, _ in stages:
        if name not in CHANNELS:
            raise UserError(f"unknown channel {name!r}: config.channel takes {', '.join(CHANNELS)}")

    def channel(key, stego):
        for i, (name, parameter) in enumerate(stages):
            stego = CHANNELS[name](jax.random.fold_in(key, i), stego, parameter)
        return stego

    return channel
