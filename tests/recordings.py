"""Small recordings, and a model that is trained from them in no time, for several tests."""

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from deepsteg_jax.models import Model


def write_videos(folder, number, shape=(6, 48, 64), seed=0, **changes):
    """Writes videos-NUMBER.npz, whose first symbols are the means of luma and Cb; returns the path."""
    rng = np.random.default_rng((number, seed))
    n, h, w = shape
    colour = {name: rng.uniform(0, 255, (n, h // 2, w // 2)).astype(np.float16) for name in ("cb", "cr")}
    return _save(
        folder, f"videos-{number:04}.npz", colour | _sent(rng, number, shape, colour["cb"], **changes)
    )


def write_images(folder, number, shape=(6, 48, 64), seed=0, **changes):
    """Writes images-NUMBER.npz, whose first symbols are the means of luma; returns the path."""
    rng = np.random.default_rng((number, seed))
    return _save(folder, f"images-{number:04}.npz", _sent(rng, number, shape, **changes))


def _sent(rng, number, shape, cb=None, count=2, step=40.0, **changes):
    """What both kinds hold."""
    n, h, w = shape
    luma = rng.uniform(0, 255, shape).astype(np.float16)
    symbols = rng.uniform(-0.5, 0.5, (n, h // 16, w // 16, count)).astype(np.float32)
    for i, plane in enumerate((luma,) if cb is None else (luma, cb)):
        symbols[..., i] = means_of(plane, h // 16)
    return {"luma": luma, "symbols": symbols, "step": np.float32(step + number)} | changes


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

    def loss(params, batch):
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
