"""Whether a training that is killed again and again ends with the same bits as one that is not.

    python -m experiments.reproduction --data FOLDER [--config configs/video.py:tiny] [--steps N] [--kills N]

Runs `main.py --mode train` once without interruption, and once more killed by SIGKILL at random steps, each
start with another checkpoint interval; the last interruption is a SIGTERM, whose time to the exit is
measured. Compares the last checkpoints (parameters, optimiser, step) bit by bit and every logged figure of
every step, those of repeated steps too. Checkpoints are saved in the background in all runs, so some kills
fall into the middle of a save. Writes reproduction.json to --workdir and fails if anything differs.
"""

import argparse
import importlib
import json
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np

from deepsteg_jax import models
from deepsteg_jax.training import checkpoints
from deepsteg_jax.training.logs import JSON_LINES
from deepsteg_jax.training.state import create_optimizer, create_state
from experiments import common, tables

INTERVALS = (3, 7, 10, 25)  # steps between checkpoints
TIMES = ("images_per_s", "data_wait", "save_wait")  # what may differ


def start(arguments: argparse.Namespace, workdir: Path, save_every: int) -> subprocess.Popen:
    """Starts a training, or goes on with it."""
    settings = {
        "data.path": arguments.data,
        "optimizer.num_steps": arguments.steps,
        "train.save_every_steps": save_every,
        "train.log_every_steps": 1,
    }
    flags = [f"--config.{name}={value}" for name, value in settings.items()]
    command = [sys.executable, str(common.ROOT / "main.py"), "--config", arguments.config, "--mode", "train"]
    workdir.mkdir(parents=True, exist_ok=True)
    with (workdir / "output.txt").open("a") as output:
        return subprocess.Popen([*command, "--workdir", str(workdir), *flags], stdout=output, stderr=output)


def read_lines(workdir: Path) -> list[dict]:
    """The complete lines of the log, repeated ones too."""
    path = workdir / JSON_LINES
    lines = path.read_text().split("\n")[:-1] if path.exists() else []
    return [json.loads(line) for line in lines]


def interrupt(child: subprocess.Popen, workdir: Path, step: int, number: int) -> float:
    """Sends a signal once a new line says `step` or more; returns the seconds until the process is gone."""
    seen = len(read_lines(workdir))
    while not any(line["step"] >= step for line in read_lines(workdir)[seen:]):
        if child.poll() is not None:
            raise SystemExit(f"main.py ended by itself: see {workdir / 'output.txt'}")
        time.sleep(0.001)
    begin = time.monotonic()
    child.send_signal(number)
    child.wait()
    return time.monotonic() - begin


def finish(child: subprocess.Popen, workdir: Path) -> None:
    """Waits for the end of a training."""
    if child.wait():
        raise SystemExit(f"main.py failed: see {workdir / 'output.txt'}")


def unfinished_saves(workdir: Path) -> set[tuple[str, float]]:
    """What kills in the middle of a save have left, by name and time."""
    return {(path.name, path.stat().st_mtime) for path in (workdir / "checkpoints").glob("*-tmp*")}


def last_state(arguments: argparse.Namespace, workdir: Path) -> list[np.ndarray]:
    """Everything in the newest checkpoint."""
    path, _, variant = arguments.config.partition(":")
    config = importlib.import_module(f"configs.{Path(path).stem}").get_config(variant)
    model, optimizer = models.build(config.model), create_optimizer(config.optimizer)
    with checkpoints.open_manager(workdir / "checkpoints") as manager:
        fresh = create_state(model, optimizer, jax.random.key(0), ema=config.optimizer.ema_decay > 0)
        return [np.asarray(x) for x in jax.tree.leaves(checkpoints.restore_state(manager, fresh))]


def differing_lines(whole: list[dict], parts: list[dict]) -> int:
    """How many lines of the interrupted run differ from those of the other."""
    bare = lambda line: {name: value for name, value in line.items() if name not in TIMES}  # noqa: E731
    right = {line["step"]: bare(line) for line in whole}
    return sum(bare(line) != right[line["step"]] for line in parts)


def main() -> int:
    """Runs, interrupts, compares."""
    parser = common.make_parser(__doc__)
    parser.add_argument("--data", required=True, help="folder of training data")
    parser.add_argument("--config", default="configs/video.py:tiny")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0, help="of the steps and intervals")
    parser.add_argument("--workdir", type=Path, default=Path("runs/reproduction"))
    arguments = parser.parse_args()
    arguments.data = str(Path(arguments.data).resolve())
    draw = random.Random(arguments.seed)
    shutil.rmtree(arguments.workdir, ignore_errors=True)
    whole, parts = arguments.workdir / "whole", arguments.workdir / "parts"
    finish(start(arguments, whole, 10), whole)
    steps = sorted(draw.sample(range(1, arguments.steps), arguments.kills + 1))
    half_saved = 0
    for step in steps[:-1]:
        before = unfinished_saves(parts)
        interrupt(start(arguments, parts, draw.choice(INTERVALS)), parts, step, signal.SIGKILL)
        half_saved += bool(unfinished_saves(parts) - before)
        print(f"killed at step {read_lines(parts)[-1]['step']}", flush=True)
    seconds = interrupt(start(arguments, parts, draw.choice(INTERVALS)), parts, steps[-1], signal.SIGTERM)
    finish(start(arguments, parts, draw.choice(INTERVALS)), parts)
    pairs = zip(last_state(arguments, whole), last_state(arguments, parts), strict=True)
    report = {
        "config": arguments.config,
        "steps": arguments.steps,
        "killed_after_steps": steps[:-1],
        "kills_in_the_middle_of_a_save": half_saved,
        "seconds_from_sigterm_to_exit": seconds,
        "steps_done_again": len(read_lines(parts)) - arguments.steps,
        "differing_arrays": sum(not np.array_equal(a, b) for a, b in pairs),
        "differing_lines_of_the_log": differing_lines(read_lines(whole), read_lines(parts)),
    }
    common.write_json(arguments.workdir / "reproduction.json", report)
    print(tables.reproduction(report))
    return int(report["differing_arrays"] + report["differing_lines_of_the_log"] > 0)


if __name__ == "__main__":
    common.run(main)
