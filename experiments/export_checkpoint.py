"""Makes a shippable checkpoint, parameters only, of a training folder.

    python -m experiments.export_checkpoint runs/mine deepsteg_jax/pretrained/mine [--widen-to CONFIG.py]

With --widen-to the parameters of a `prep_hide_reveal` become those of that config's larger networks, which
compute the same (Net2Net: Chen, Goodfellow and Shlens 2016): kernels lie in the middle of larger ones,
features come first, and all else is zero. The checkpoint then carries the run's config with that `model`.
"""

import json
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from deepsteg_jax import models
from deepsteg_jax.errors import UserError
from deepsteg_jax.training import checkpoints
from experiments import common
from experiments.sweep import read_config


def widen(params: Any, larger: Any, features: int, wider: int) -> Any:
    """Write a small network's parameters into a larger one's shapes.

    Args:
        params: of `prep_hide_reveal`, both sides.
        larger: arrays or shapes of the larger network, as many stacks.
        features: of a stack in the small one, more than 3.
        wider: of a stack in the larger one.

    Raises:
        UserError: a part does not fit into its larger one.
    """

    def place(path, small, large):
        found = np.zeros(large.shape, small.dtype)
        if any(a > b for a, b in zip(small.shape, large.shape, strict=True)):
            raise UserError(f"{jax.tree_util.keystr(path)} of {small.shape} does not fit into {large.shape}")
        if small.ndim == 1:
            found[: len(small)] = small
            return found
        inputs = np.arange(small.shape[2])
        extra = small.shape[2] % features  # colours, before what the stacks give
        if small.shape[2] > features:
            stack, feature = np.divmod(inputs - extra, features)
            inputs = np.where(inputs < extra, inputs, extra + stack * wider + feature)
        start = [(b - 1) // 2 - (a - 1) // 2 for a, b in zip(small.shape[:2], large.shape[:2], strict=True)]
        rows, columns = (slice(a, a + size) for a, size in zip(start, small.shape[:2], strict=True))
        found[rows, columns, inputs[:, None], np.arange(small.shape[3])] = small
        return found

    return jax.tree_util.tree_map_with_path(place, params, larger)


def main() -> None:
    """Reads the run's own config, exports its newest step, prints the size."""
    parser = common.make_parser(__doc__)
    parser.add_argument("workdir", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--widen-to", metavar="CONFIG.py")
    arguments = parser.parse_args()
    config = ConfigDict(json.loads((arguments.workdir / "config.json").read_text()))
    for field in ("path", "validation_path", "secret_path", "validation_secret_path"):
        if field in config.data:  # paths of this machine stay here
            config.data[field] = Path(config.data[field]).name
    trained, change = models.build(config.model), lambda params: params
    if arguments.widen_to:
        features, config.model = config.model.features, read_config(arguments.widen_to, {}).model
        larger = jax.eval_shape(models.build(config.model).init, jax.random.key(0))
        change = partial(widen, larger=larger, features=features, wider=config.model.features)
    checkpoints.export(str(arguments.workdir), arguments.target, trained, config, change)
    for note in arguments.target.rglob("commit_success.txt"):  # it names a folder of this machine
        note.write_text("Checkpoint commit was successful")
    size = sum(path.stat().st_size for path in arguments.target.rglob("*") if path.is_file())
    print(f"{arguments.target}: {size / 2**20:.2f} MiB")


if __name__ == "__main__":
    common.run(main)
