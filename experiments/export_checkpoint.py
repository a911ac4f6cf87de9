"""Makes a shippable checkpoint, parameters only, of a training folder.

python -m experiments.export_checkpoint runs/mine deepsteg_jax/pretrained/mine
"""

import json
from pathlib import Path

from ml_collections import ConfigDict

from deepsteg_jax import models
from deepsteg_jax.training import checkpoints
from experiments import common


def main() -> None:
    """Reads the run's own config, exports its newest step, prints the size."""
    parser = common.make_parser(__doc__)
    parser.add_argument("workdir", type=Path)
    parser.add_argument("target", type=Path)
    arguments = parser.parse_args()
    config = ConfigDict(json.loads((arguments.workdir / "config.json").read_text()))
    for field in ("path", "validation_path", "secret_path", "validation_secret_path"):
        if field in config.data:  # paths of this machine stay here
            config.data[field] = Path(config.data[field]).name
    checkpoints.export(str(arguments.workdir), arguments.target, models.build(config.model), config)
    for note in arguments.target.rglob("commit_success.txt"):  # it names a folder of this machine
        note.write_text("Checkpoint commit was successful")
    size = sum(path.stat().st_size for path in arguments.target.rglob("*") if path.is_file())
    print(f"{arguments.target}: {size / 2**20:.2f} MiB")


if __name__ == "__main__":
    common.run(main)
