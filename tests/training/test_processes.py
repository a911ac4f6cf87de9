"""Two real processes on this machine: they train as one, survive kills together and stop together."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from configs.video import get_config
from deepsteg_jax import models
from deepsteg_jax.training import checkpoints
from deepsteg_jax.training.logs import JSON_LINES
from deepsteg_jax.training.state import create_optimizer, create_state

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
STEPS, SAVE_EVERY, RATE = 50, 10, 3e-3


def _by_flags(port, process):
    return {}, [f"--coordinator=127.0.0.1:{port}", "--num_processes=2", f"--process_id={process}"]


def _by_slurm(port, process):
    """What srun sets on a node, and where the first process listens."""
    names = {"JOB_ID": 77, "STEP_NODELIST": "127.0.0.1", "NTASKS": 2, "PROCID": process, "LOCALID": process}
    env = {f"SLURM_{name}": str(value) for name, value in (names | {"STEP_NUM_NODES": 1}).items()}
    return env | {"JAX_COORDINATOR_PORT": str(port)}, []


def _alone(port, process):
    return {}, []


class Ended(NamedTuple):
    """A process that ended."""

    code: int
    printed: str
    errors: str


class Runs(NamedTuple):
    """One training by two processes, one that was interrupted twice, and one by a single process."""

    whole: Path
    parts: Path
    alone: Path
    ended: dict[str, list[Ended]]


def _start(folder, workdir, join, count=2):
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    env = {**os.environ, "JAX_PLATFORMS": "cpu"}
    settings = {"data.path": folder / "clips", "data.validation_path": folder / "clips"}
    settings |= {"optimizer.num_steps": STEPS, "optimizer.learning_rate": RATE, "optimizer.ema_decay": 0.9}
    settings |= {"shuffle.moves": "secret", "shuffle.cipher": "blocks"}  # compiles sooner
    settings |= {"train.save_every_steps": SAVE_EVERY, "train.validate_every_steps": SAVE_EVERY}
    command = [sys.executable, "main.py", "--config=configs/video.py:tiny", "--mode=train"]
    command += [f"--workdir={workdir}", *(f"--config.{name}={value}" for name, value in settings.items())]
    children = []
    for process in range(count):
        extra, flags = join(port, process)
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        children.append(subprocess.Popen(command + flags, cwd=ROOT, env=env | extra, **pipes))
    return children


def _finish(children):
    ended = []
    for child in children:
        printed, errors = child.communicate()
        ended.append(Ended(child.returncode, printed, errors))
    return ended


def _wait_for_a_save_after(step, workdir, children):
    """Returns the newest complete checkpoint, which is later than `step`."""
    while True:
        assert all(child.poll() is None for child in children), _finish(children)
        found = [int(p.name) for p in (workdir / "checkpoints").glob("*") if p.name.isdigit()]
        if max(found, default=0) > step:
            return max(found)
        time.sleep(0.01)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Process 1 is killed, both are started again, process 1 gets SIGTERM, both are started again."""
    folder = tmp_path_factory.mktemp("processes")
    whole, parts, alone = folder / "whole", folder / "parts", folder / "alone"
    rng = np.random.default_rng(0)
    for name in ("a", "b", "c"):
        (folder / "clips" / name).mkdir(parents=True)
        for i in range(6):
            pixels = rng.integers(0, 256, (6, 6, 3), np.uint8)
            Image.fromarray(pixels).resize((48, 48)).save(folder / "clips" / name / f"{i}.png")
    ended = {"alone": _finish(_start(folder, alone, _alone, 1))}
    ended["whole"] = _finish(_start(folder, whole, _by_flags))
    children = _start(folder, parts, _by_flags)
    saved = _wait_for_a_save_after(0, parts, children)
    children[1].kill()
    ended["killed"] = _finish(children)
    children = _start(folder, parts, _by_slurm)
    _wait_for_a_save_after(saved, parts, children)
    children[1].send_signal(signal.SIGTERM)
    ended["asked"] = _finish(children)
    ended["last"] = _finish(_start(folder, parts, _by_flags))
    return Runs(whole, parts, alone, ended)


def _state(workdir):
    config = get_config("tiny")
    model = models.build(config.model)
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    model = model._replace(init=lambda key: jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes))
    with checkpoints.open_manager(workdir / "checkpoints") as manager:
        fresh = create_state(model, create_optimizer(config.optimizer), jax.random.key(0), ema=True)
        return checkpoints.restore_state(manager, fresh)


def _lines(workdir):
    lines = [json.loads(line) for line in (workdir / JSON_LINES).open()]
    times = ("images_per_s", "data_wait", "save_wait")
    return [{name: value for name, value in line.items() if name not in times} for line in lines]


def interrupted_processes_end_with_the_same_bits(runs):
    for name in ("whole", "last"):
        assert [child.code for child in runs.ended[name]] == [0, 0], runs.ended[name]
    whole, parts = _state(runs.whole), _state(runs.parts)
    assert int(whole.step) == int(parts.step) == STEPS
    for (path, a), b in zip(jax.tree.leaves_with_path(whole), jax.tree.leaves(parts), strict=True):
        assert np.array_equal(a, b), jax.tree_util.keystr(path)
    right = {(line["step"], "loss" in line): line for line in _lines(runs.whole)}
    assert all(line == right[line["step"], "loss" in line] for line in _lines(runs.parts))


def two_processes_train_as_one(runs):
    """Equal up to the order in which a batch is summed; see tests/training/test_parallel.py."""
    one, two = _state(runs.alone), _state(runs.whole)
    for (path, a), b in zip(jax.tree.leaves_with_path(one.params), jax.tree.leaves(two.params), strict=True):
        assert np.allclose(a, b, rtol=0, atol=0.01 * STEPS * RATE), jax.tree_util.keystr(path)
    for a, b in zip(_lines(runs.alone), _lines(runs.whole), strict=True):
        assert a.keys() == b.keys()
        for name in a:
            assert a[name] == pytest.approx(b[name], rel=1e-2), (a["step"], name)


def the_survivor_of_a_kill_ends_with_one_line(runs):
    survivor, killed = runs.ended["killed"]
    assert killed.code == -signal.SIGKILL
    if survivor.code == -signal.SIGABRT:
        return  # a thread of JAX's own saw the loss first and aborted, which happens now and then
    assert survivor.code == 1
    assert "process 0: another process of this training has ended: start all of them again" in survivor.errors
    assert "Traceback" not in survivor.errors


def sigterm_to_one_process_stops_all_at_the_same_step(runs):
    assert [child.code for child in runs.ended["asked"]] == [0, 0], runs.ended["asked"]
    assert f"of {STEPS}; the same command goes on" in runs.ended["asked"][0].printed
    steps = [line["step"] for line in _lines(runs.parts) if "loss" in line]
    jumps = [(a, b) for a, b in pairwise(steps) if b != a + 1]
    assert len(jumps) <= 1  # back to the last checkpoint after the kill, and none after the SIGTERM
    assert steps[-1] == STEPS and set(steps) == set(range(1, STEPS + 1))


def only_the_first_process_writes(runs):
    steps = [line["step"] for line in _lines(runs.whole)]
    assert sorted(steps) == sorted([*range(1, STEPS + 1), *range(0, STEPS + 1, SAVE_EVERY)])
    starts = [json.loads(line) for line in (runs.parts / "environment.jsonl").open()]
    assert [start["processes"] for start in starts] == [2, 2, 2] and starts[0]["step"] == 0
    for first, second in (runs.ended["whole"], runs.ended["last"]):
        assert f"trained to step {STEPS}" in first.printed
        assert "step" not in second.printed


def test_processes(runs):
    """One test, so that no second worker starts all these processes again."""
    interrupted_processes_end_with_the_same_bits(runs)
    two_processes_train_as_one(runs)
    the_survivor_of_a_kill_ends_with_one_line(runs)
    sigterm_to_one_process_stops_all_at_the_same_step(runs)
    only_the_first_process_writes(runs)
