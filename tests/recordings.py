"""Small recordings, and a model that is trained from them in no time, for several tests."""

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from deepsteg_jax.models import Model


def write_videos(folder, number, shape=(6, 48, 64), seed=0, **changes):
    """Writes videos-NUMBER.npz, whose first symbols are the means of luma and Cb; returns the path."""
    return _write("videos", {"luma": 16, "cb": 8, "cr": 8}, folder, number, shape, seed, **changes)


def write_images(folder, number, shape=(6, 48, 64), seed=0, **changes):
    """Writes images-NUMBER.npz, whose first symbols are the means of luma; returns the path."""
    return _write("images", {"luma": 16}, folder, number, shape, seed, **changes)


def _write(kind, sides, folder, number, shape, seed, count=2, step=40.0, **changes):
    rng = np.random.default_rng((number, seed))
    blocks = shape[0], shape[1] // 16, shape[2] // 16
    planes = {name: _plane(rng, blocks, side) for name, side in sides.items()}
    symbols = rng.uniform(-0.5, 0.5, (*blocks, count)).astype(np.float32)
    for i, plane in enumerate(list(planes.values())[:2]):
        symbols[..., i] = means_of(plane, blocks[1])
    content = planes | {"symbols": symbols, "step": np.float32(step + number)}
    return _save(folder, f"{kind}-{number:04}.npz", content | changes)


def _plane(rng, blocks, side):
    """Noise about another level in each macroblock."""
    levels = rng.uniform(0, 200, blocks).repeat(side, axis=1).repeat(side, axis=2)
    return (levels + rng.uniform(0, 55, levels.shape)).astype(np.float16)


def _save(folder, name, content):
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(folder / name, **{key: x for key, x in content.items() if x is not None})
    return folder / name


def means_of(plane, rows):
    """The mean of each macroblock of a plane, from -1/2 to 1/2."""
    *rest, h, w = plane.shape
    side = h // rows
    return plane.astype(np.float32).reshape(*rest, rows, side, w // side, side).mean((-3, -1)) / 256 - 0.5


def build_listener(config: ConfigDict) -> Model:
    """Guesses symbols from the means of their macroblock: the first from luma, the second from Cb.

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

    def loss(params, batch, keys):
        del keys
        slope, bias = params["reveal"]["slope"], params["reveal"]["bias"]
        symbols, logs = batch["symbols"], {"mean_step": batch["step"].mean()}
        for i, name in enumerate(("luma", "cb")):
            if name in batch:
                guess = slope[i] * means_of(batch[name], symbols.shape[2]) + bias[i]
                logs[name] = jnp.mean(jnp.square(guess - symbols[..., i]))
        return logs["luma"] + logs.get("cb", 0), logs

    return Model(init, _never, _never, tie=tie, loss=loss)


def _never(*_):
    raise AssertionError("a model of recordings neither hides nor reveals in training")


def listen(config: ConfigDict, folder) -> None:
    """Makes a config that of a listener on the recordings of `folder`, without what it has no use for."""
    config.model = ConfigDict({"name": "listener"})
    config.data = ConfigDict({"source": "recordings", "path": str(folder), "validation_path": ""})
    config.data.update(frames=2, height=16, width=32)
    for section in ("shuffle", "channel", "losses"):
        del config[section]
