"""Makes a shippable checkpoint, parameters only, of a training folder.

python experiments/export_checkpoint.py runs/mine deepsteg_jax/pretrained/mine
"""

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from ml_collections import ConfigDict  # noqa: E402

from deepsteg_jax import models  # noqa: E402
from deepsteg_jax.training import checkpoints  # noqa: E402


def main() -> None:
    """Reads the run's own config, exports its newest step, prints the size."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("workdir", type=Path)
    parser.add_argument("target", type=Path)
    arguments = parser.parse_args()
    config = ConfigDict(json.loads((arguments.workdir / "config.json").read_text()))
    config.data.path = Path(config.data.path).name  # paths of this machine stay here
    checkpoints.export(str(arguments.workdir), arguments.target, models.build(config.model), config)
    for note in arguments.target.rglob("commit_success.txt"):  # it names a folder of this machine
        note.write_text("Checkpoint commit was successful")
    size = sum(path.stat().st_size for path in arguments.target.rglob("*") if path.is_file())
    print(f"{arguments.target}: {size / 2**20:.2f} MiB")


if __name__ == "__main__":
    main()
