"""Small records, and a model that is trained from them in no time, for several tests."""

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from deepsteg_jax.models import Model


def write_symbols(folder, number, shape=(6, 24, 32), count=2, step=40.0, seed=0, **changes):
    """Writes symbols-NUMBER.npz, whose symbols are the means of blocks, and others; returns the path."""
    n, h, w = shape
    rng = np.random.default_rng((number, seed))
    frames = rng.uniform(0, 255, shape).astype(np.float16)
    symbols = rng.uniform(-0.5, 0.5, (n, h // 8, w // 8, count)).astype(np.float32)
    symbols[..., 0] = _block_means(frames) / 256 - 0.5
    content = {
        "frames": frames,
        "symbols": symbols,
        "step": np.float32(step + number),
        "count": np.int32(count),
    }
    return _save(folder, f"symbols-{number:04}.npz", content | changes)


def write_pictures(folder, number, shape=(5, 28, 20), seed=0, **changes):
    """Writes pictures-NUMBER.npz, whose coded pictures are half as bright; returns the path."""
    secret = np.random.default_rng((number, seed)).integers(0, 256, (*shape, 3), np.uint8)
    return _save(folder, f"pictures-{number:04}.npz", {"coded": secret // 2, "secret": secret} | changes)


def _save(folder, name, content):
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(folder / name, **{key: x for key, x in content.items() if x is not None})
    return folder / name


def _block_means(frames):
    *rest, h, w = frames.shape
    return frames.astype(np.float32).reshape(*rest, h // 8, 8, w // 8, 8).mean((-3, -1))


def build_listener(config: ConfigDict) -> Model:
    """Guesses the first symbol from the mean of its block, and the secret from the coded picture.

    What it shares lies on the hide side, and only a tied reveal side sees it.
    """

    def init(key):
        slope = 0.1 * jax.random.normal(key, (2,))
        return {"hide": {"bias": jnp.zeros(2)}, "reveal": {"slope": slope, "bias": jnp.full(2, 7.0)}}

    def tie(params):
        return {
            **params,
            "reveal": {**params["reveal"], "bias": jnp.array(params["hide"]["bias"], copy=True)},
        }

    def loss(params, batch):
        slope, bias = params["reveal"]["slope"], params["reveal"]["bias"]
        logs = {}
        if "symbols" in batch:
            means = _block_means(batch["frames"]) / 256 - 0.5
            logs["symbols"] = jnp.mean(jnp.square(slope[0] * means + bias[0] - batch["symbols"][..., 0]))
            logs["mean_step"] = batch["step"].mean()
        if "coded" in batch:
            coded, secret = (batch[name].astype(jnp.float32) / 255 for name in ("coded", "secret"))
            logs["pictures"] = jnp.mean(jnp.square(slope[1] * coded + bias[1] - secret))
        return logs.get("symbols", 0) + logs.get("pictures", 0), logs

    return Model(init, _never, _never, tie=tie, loss=loss)


def _never(*_):
    raise AssertionError("a model of recordings neither hides nor reveals in training")


def listen(config: ConfigDict, folder) -> None:
    """Makes a config that of a listener on the records of `folder`, without what it has no use for."""
    config.model = ConfigDict({"name": "listener"})
    config.data = ConfigDict({"source": "recordings", "path": str(folder), "validation_path": ""})
    config.data.update(frames=2, height=8, width=16)
    for section in ("shuffle", "channel", "losses"):
        del config[section]
