"""Trains the learned entries of the benchmark, each for the same CPU time.

    python -m experiments.train_entries --clips FOLDER --images FOLDER [--minutes 25] [--only invertible]

CPU time is that of all threads of the process, compilation left out: a few steps are timed first, and the
number of steps follows. Each entry trains into WORKDIR/NAME, and goes on there if it was interrupted.
Budget, steps and the CPU time really used are in WORKDIR/NAME/budget.json.
"""

import json
import time
from pathlib import Path

import jax
from ml_collections import ConfigDict

from deepsteg_jax import data, models
from deepsteg_jax.training import loop
from deepsteg_jax.training.state import create_optimizer, create_state
from deepsteg_jax.training.step import make_train_step
from experiments import common
from experiments.entries import ENTRIES

TIMED_STEPS = 8


def cpu_seconds_per_step(config: ConfigDict) -> float:
    """CPU time of one training step with its data, all threads together."""
    model, optimizer = models.build(config.model), create_optimizer(config.optimizer)
    state = create_state(model, optimizer, jax.random.key(0))
    step = jax.jit(make_train_step(model, optimizer, config, jax.random.key(0)))
    pairs = data.create_pairs(data.section(config), seed=config.seed, batch_size=config.train.batch_size)
    state, _ = jax.block_until_ready(step(state, next(pairs)))
    start = time.process_time()
    for _ in range(TIMED_STEPS):
        state, _ = step(state, next(pairs))
    jax.block_until_ready(state)
    used = time.process_time() - start
    pairs.close()
    return used / TIMED_STEPS


def plan(config: ConfigDict, minutes: float, path: Path) -> dict:
    """The budget of one entry; measured once and kept in `path`, so that a restart changes nothing."""
    if path.exists():
        return json.loads(path.read_text())
    seconds = cpu_seconds_per_step(config)
    budget = {
        "cpu_minutes": minutes,
        "cpu_seconds_per_step": seconds,
        "num_steps": int(minutes * 60 / seconds),
        "cpu_minutes_used": 0.0,
    }
    path.write_text(json.dumps(budget, indent=2) + "\n")
    return budget


def train(name: str, folders: dict[str, str], minutes: float, workdir: Path) -> None:
    """Trains one entry for its share."""
    config = ENTRIES[name].load()
    config.data.path = folders[config.data.source]
    folder = workdir / name
    folder.mkdir(parents=True, exist_ok=True)
    budget = plan(config, minutes, folder / "budget.json")
    config.optimizer.num_steps = budget["num_steps"]
    print(f"{name}: {budget['num_steps']} steps of {budget['cpu_seconds_per_step']:.3f} CPU seconds")
    start = time.process_time()
    loop.train(config, folder)
    budget["cpu_minutes_used"] += (time.process_time() - start) / 60
    (folder / "budget.json").write_text(json.dumps(budget, indent=2) + "\n")


def main() -> None:
    """Trains all entries, or one."""
    parser = common.make_parser(__doc__)
    parser.add_argument("--clips", required=True)
    parser.add_argument("--images", required=True)
    parser.add_argument("--minutes", type=float, default=25)
    parser.add_argument("--only", choices=ENTRIES, default=None)
    parser.add_argument("--workdir", type=Path, default=Path("runs/benchmark"))
    arguments = parser.parse_args()
    folders = {"clips": arguments.clips, "images": arguments.images}
    for name in [arguments.only] if arguments.only else ENTRIES:
        train(name, folders, arguments.minutes, arguments.workdir)


if __name__ == "__main__":
    common.run(main)
