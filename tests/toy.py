"""A model that compiles in no time."""

import jax
import jax.numpy as jnp

from deepsteg_jax.models import Model


def build_toy(config) -> Model:
    """Adds a mix of the secret's colours to the cover; linear, so that its losses fall at once."""

    def init(key):
        keys = jax.random.split(key, 2)
        mix, unmix = (0.1 * jax.random.normal(k, (config.size, 3, 3)) for k in keys)
        return {"hide": {"mix": mix}, "reveal": {"unmix": unmix, "bias": jnp.zeros(3)}}

    def hide(params, cover, secret):
        return cover + secret @ params["mix"].sum(0)

    def reveal(params, stego):
        return stego @ params["unmix"].sum(0) + params["bias"]

    return Model(init, hide, reveal)
