"""What each idea of `block_dct` brings, and how much the seed matters: same data, same number of steps.

    python -m experiments.ablation --train FOLDER --clips FOLDER [--steps 600] [--workdir runs/ablation]

Trains every variant on the clips of --train and measures it on those of --clips: protocol Q1's pairs and
frames (frames 5..34 at 448x256, clip i + 1 in clip i), bare model, 8-bit stego, mean over frames of dB,
then over clips. Each variant is kept in WORKDIR, so that an interrupted run goes on; --only measures
single ones. Writes ablation.json (every clip).
"""

from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from deepsteg_jax import costs, evaluation, metrics, models
from deepsteg_jax.models import block_dct
from deepsteg_jax.training import checkpoints, loop
from experiments import common, tables
from experiments.entries import ENTRIES, file_name

HEIGHT, WIDTH = 256, 448
WITH_NETWORK = "refinement network, learning rate 3e-3"
VARIANTS = {
    "default": {},
    "seed 1": {"seed": 1},
    "seed 2": {"seed": 2},
    "codebook not trained (power law)": {"optimizer.num_steps": 1, "optimizer.learning_rate": 0.0},
    "8 classes": {"model.classes": 8},
    "t = 1": {"model.frames": 1, "train.batch_size": 32},
    "t = 8": {"model.frames": 8, "train.batch_size": 4},
    WITH_NETWORK: {"model.depth": 4, "optimizer.learning_rate": 3e-3},
    "D = 2, trained at D = 2": {"model.modulus": 2},
}


def measure(hide: Callable, reveal: Callable, frames: int, clips: list[np.ndarray]) -> dict:
    """PSNR of every pair, groups of `frames` frames; hide and reveal take and give uint8 [t, h, w, 3]."""
    found = {"stego_psnr_db": [], "secret_psnr_db": []}
    for cover, secret in zip(clips, clips[1:] + clips[:1], strict=True):
        count = min(len(cover), len(secret))
        stego, revealed = [], []
        for start in range(0, count, frames):
            group = slice(start, min(start + frames, count))
            stego += list(hide(cover[group], secret[group]))
            revealed += list(reveal(np.stack(stego[group])))
        pairs = {"stego_psnr_db": (cover, stego), "secret_psnr_db": (secret, revealed)}
        for name, (a, b) in pairs.items():
            dbs = [metrics.psnr(x, y) for x, y in zip(a[:count], b, strict=True)]
            found[name].append(float(np.mean(dbs)))
    return found


def to_frames(x: jax.Array) -> jax.Array:
    """[1, t, h, w, 3] in [0, 1] -> uint8 [t, h, w, 3]."""
    return jnp.round(jnp.clip(x[0], 0, 1) * 255).astype(jnp.uint8)


def to_video(x: jax.Array) -> jax.Array:
    """Inverse of `to_frames`."""
    return jnp.asarray(x, jnp.float32)[None] / 255


def load(workdir: Path, config: ConfigDict) -> dict:
    """The trained parameters of both sides."""
    model = models.build(config.model)
    read = checkpoints.restore_params
    return {side: read(str(workdir), model, config.model, side) for side in ("hide", "reveal")}


def measure_model(config: ConfigDict, params: dict, clips: list[np.ndarray]) -> dict:
    """Measures a bare model."""
    model = models.build(config.model)
    hide = jax.jit(lambda p, c, s: to_frames(model.hide(p, to_video(c), to_video(s))))
    reveal = jax.jit(lambda p, y: to_frames(model.reveal(p, to_video(y))))
    return measure(
        lambda c, s: np.asarray(hide(params["hide"], c, s)),
        lambda y: np.asarray(reveal(params["reveal"], y)),
        config.model.frames,
        clips,
    )


def measure_clipped(config: ConfigDict, params: dict, clips: list[np.ndarray]) -> dict:
    """The model without the rule for saturated samples: what leaves [0, 255] is clipped."""

    def wrap_and_clip(cover, digits, step):
        digits = digits.reshape(cover.shape)
        offset = jnp.mod(digits - cover + step // 2, step) - step // 2
        return jnp.clip(jnp.where(digits < 0, cover, cover + offset), 0, 255)

    with patch.object(block_dct, "wrap_into", wrap_and_clip):
        return measure_model(config, params, clips)


def config_of(name: str, folder: str, steps: int) -> ConfigDict:
    """The default config with the variant's changes."""
    config = ENTRIES["block_dct"].load()
    config.data.path, config.optimizer.num_steps = folder, steps
    config.update_from_flattened_dict(VARIANTS[name])
    return config


def row(config: ConfigDict, figures: dict) -> dict:
    """A variant's figures with its cost."""
    model = models.build(config.model)
    gmac = costs.gmac_per_frame(model, config.model.frames, HEIGHT, WIDTH)
    return {**figures, "gmac": sum(gmac.values()), "modulus": config.model.modulus}


def rows_of(name: str, arguments, clips: list[np.ndarray]) -> dict[str, dict]:
    """Trains one variant and measures it; the default also without single rules and at other steps."""
    config = config_of(name, arguments.train, arguments.steps)
    folder = arguments.workdir / file_name(name)
    loop.train(config, folder)
    params = load(folder, config)
    rows = {name: row(config, measure_model(config, params, clips))}
    if name == WITH_NETWORK:
        config.model.depth = 0
        rows["the same codebook without the network"] = row(config, measure_model(config, params, clips))
    if name != "default":
        return rows
    clipped = measure_clipped(config, params, clips)
    rows["saturated samples clipped, not moved to the next valid value"] = row(config, clipped)
    config.model.modulus = 2
    rows["D = 2, trained at D = 3"] = row(config, measure_model(config, params, clips))
    return rows


def main() -> None:
    """Trains and measures what is missing and prints the table."""
    parser = common.make_parser(__doc__)
    parser.add_argument("--train", required=True)
    parser.add_argument("--clips", required=True)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--only", nargs="*", choices=VARIANTS, help="names of variants; none: only the table")
    parser.add_argument("--workdir", type=Path, default=Path("runs/ablation"))
    arguments = parser.parse_args()
    path = arguments.workdir / "ablation.json"
    settings = common.q1_settings("clips", arguments.clips)
    items = evaluation.list_items(arguments.clips)
    clips = [np.stack(evaluation.prepare(item, settings)) for item in items]
    for name in VARIANTS if arguments.only is None else arguments.only:
        if name not in common.read_json(path, {}):
            rows = rows_of(name, arguments, clips)
            common.write_json(path, common.read_json(path, {}) | rows)
    print(tables.ablation(common.read_json(path)))


if __name__ == "__main__":
    common.run(main)
