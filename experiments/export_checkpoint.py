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
from flax import traverse_util
from ml_collections import ConfigDict

from deepsteg_jax import models
from deepsteg_jax.errors import UserError
from deepsteg_jax.models.modulo_start import RGB
from deepsteg_jax.training import checkpoints
from experiments import common
from experiments.sweep import read_config


def widen(params: Any, larger: Any) -> Any:
    """Write a small network's parameters into a larger one's shapes.

    Args:
        params: of `prep_hide_reveal`, both sides.
        larger: arrays or shapes of the larger network.

    Raises:
        UserError: a part does not fit into its larger one.
    """
    parts, wider = (traverse_util.flatten_dict(tree) for tree in (params, larger))
    if missing := set(parts) - set(wider):
        raise UserError(f"the larger network lacks {'/'.join(min(missing))}")

    def place(name, large):
        found = np.zeros(large.shape, np.float32)
        if name not in parts:
            return found
        small = parts[name]
        if any(a > b for a, b in zip(small.shape, large.shape, strict=True)):
            raise UserError(f"{'/'.join(name)} of {small.shape} does not fit into {large.shape}")
        if small.ndim == 1:
            found[: len(small)] = small
            return found
        colours, stacks, features = sources(name, parts)
        stack, feature = np.divmod(np.arange(stacks * features), features)
        inputs = np.r_[:colours, colours + stack * sources(name, wider)[2] + feature]
        start = [(b - 1) // 2 - (a - 1) // 2 for a, b in zip(small.shape[:2], large.shape[:2], strict=True)]
        rows, columns = (slice(a, a + size) for a, size in zip(start, small.shape[:2], strict=True))
        found[rows, columns, inputs[:, None], np.arange(small.shape[3])] = small
        return found

    return traverse_util.unflatten_dict({name: place(name, large) for name, large in wider.items()})


def sources(name: tuple[str, ...], parts: dict) -> tuple[int, int, int]:
    """The colours that a kernel reads, the stacks after them, and the features of each stack."""
    network, block = name[:-2] if "out" in name else name[:-3], name[-3]
    first = block == "block0" and name[-2].endswith("conv0")
    stacks = sum(each[:-3] == network and each[-3:-2] == ("block1",) for each in parts) // 2
    colours, stacks = RGB if first else 0, stacks if first or block != "block0" else 1
    return colours, stacks, (parts[name].shape[2] - colours) // stacks


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
        config.model = read_config(arguments.widen_to, {}).model
        larger = jax.eval_shape(models.build(config.model).init, jax.random.key(0))
        change = partial(widen, larger=larger)
    checkpoints.export(str(arguments.workdir), arguments.target, trained, config, change)
    for note in arguments.target.rglob("commit_success.txt"):  # it names a folder of this machine
        note.write_text("Checkpoint commit was successful")
    size = sum(path.stat().st_size for path in arguments.target.rglob("*") if path.is_file())
    print(f"{arguments.target}: {size / 2**20:.2f} MiB")


if __name__ == "__main__":
    common.run(main)
