"""A model that compiles in no time, and its config, which main.py takes too."""

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

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


def get_config() -> ConfigDict:
    """Return a config of six steps on images; without a folder of data."""
    return ConfigDict(
        {
            "seed": 3,
            "deterministic": False,
            "model": {"name": "toy", "size": 2, "frames": 1},
            "shuffle": {"moves": "nothing", "cipher": "blocks", "block_size": 4},
            "channel": (("gaussian_noise", 0.02),),
            "losses": {"stego": 1.0, "secret": 2.0, "secret_db": 0.01, "penalty": 1.0},
            "optimizer": {
                "num_steps": 6,
                "learning_rate": 0.01,
                "schedule": "constant",
                "warmup_steps": 2,
                "clip_norm": 10.0,
                "ema_decay": 0.0,
                "plateau_factor": 0.5,
                "plateau_patience": 2,
                "plateau_window": 3,
            },
            "train": {
                "batch_size": 4,
                "accumulate_steps": 1,
                "log_every_steps": 2,
                "picture_every_steps": 100,
                "save_every_steps": 2,
                "keep": 2,
                "validate_every_steps": 2,
                "best_metric": "loss",
                "profile_steps": 0,
            },
            "data": {
                "source": "images",
                "path": "",
                "validation_path": "",
                "frames": 1,
                "height": 8,
                "width": 8,
                "flip": True,
                "min_scale": 1.0,
                "cache": True,
            },
        }
    )
