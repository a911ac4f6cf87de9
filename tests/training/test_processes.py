"""Two real processes on this machine: they train as one, survive kills together and stop together."""

import json
import os
import signal
import socket
import time
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import pytest

from deepsteg_jax import models
from deepsteg_jax.training.loop import train
from tests.children import Main, start_training
from tests.toy import build_toy, get_config
from tests.training.test_loop import _figures, _restore

pytestmark = pytest.mark.slow

TOY = Path(__file__).parents[1] / "toy.py"
STEPS, SAVE_EVERY, RATE = 50, 10, 3e-3
# Below those that other programs get without asking for a number, so that none of them takes one meanwhile.
PORTS = iter(range(20_000 + os.getpid() % 10_000, 32_768))
INTERRUPTIBLE_S = 0.15  # after each step, so that a signal comes before the last one


def _by_flags(port, process):
    return {}, [f"--coordinator=127.0.0.1:{port}", "--num_processes=2", f"--process_id={process}"]


def _by_slurm(port, process):
    """What srun sets on a node, and where the first process listens."""
    names = {"JOB_ID": 77, "STEP_NODELIST": "127.0.0.1", "NTASKS": 2, "PROCID": process, "LOCALID": process}
    env = {f"SLURM_{name}": str(value) for name, value in (names | {"STEP_NUM_NODES": 1}).items()}
    return env | {"JAX_COORDINATOR_PORT": str(port)}, []


class Runs(NamedTuple):
    """One training by two processes, one that was interrupted twice, and one by this process."""

    whole: Path
    parts: Path
    alone: Path
    ended: dict[str, list[Main]]


def _settings(images):
    settings = {"data.path": str(images), "data.validation_path": str(images), "train.log_every_steps": 1}
    settings |= {"optimizer.num_steps": STEPS, "optimizer.learning_rate": RATE, "optimizer.ema_decay": 0.9}
    return settings | {"train.save_every_steps": SAVE_EVERY, "train.validate_every_steps": SAVE_EVERY}


def _free_port():
    """Another one each time."""
    for port in PORTS:
        with socket.socket() as found, suppress(OSError):
            found.bind(("127.0.0.1", port))
            return port
    raise AssertionError("no port is free")


def _start(images, workdir, join, pause_s=0.0):
    port = _free_port()
    flags = [f"--config={TOY}", *(f"--config.{name}={value}" for name, value in _settings(images).items())]
    children = []
    for process in range(2):
        environment, place = join(port, process)
        children.append(start_training(workdir, *flags, *place, environment=environment, pause_s=pause_s))
    return children


def _finish(children):
    return [child.finish() for child in children]


def _wait_for_a_save_after(step, workdir, children):
    """Returns the newest complete checkpoint, which is later than `step`."""
    while True:
        assert all(child.code is None for child in children), [x.errors for x in _finish(children)]
        found = [int(p.name) for p in (workdir / "checkpoints").glob("*") if p.name.isdigit()]
        if max(found, default=0) > step:
            return max(found)
        time.sleep(0.01)


@pytest.fixture(scope="module")
def runs(tmp_path_factory, image_folder):
    """Process 1 is killed, both are started again, process 1 gets SIGTERM, both are started again."""
    folder = tmp_path_factory.mktemp("processes")
    whole, parts, alone = folder / "whole", folder / "parts", folder / "alone"
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(models.MODELS, "toy", build_toy)
        config = get_config()
        config.update_from_flattened_dict(_settings(image_folder))
        ended, uninterrupted = {}, _start(image_folder, whole, _by_flags)
        train(config, alone)
    children = _start(image_folder, parts, _by_flags, INTERRUPTIBLE_S)
    saved = _wait_for_a_save_after(0, parts, children)
    children[1].send(signal.SIGKILL)
    ended["killed"] = _finish(children)
    children = _start(image_folder, parts, _by_slurm, INTERRUPTIBLE_S)
    _wait_for_a_save_after(saved, parts, children)
    children[1].send(signal.SIGTERM)
    ended["asked"] = _finish(children)
    ended["last"] = _finish(_start(image_folder, parts, _by_flags))
    ended["whole"] = _finish(uninterrupted)
    return Runs(whole, parts, alone, ended)


@pytest.fixture
def config(toy):
    toy.optimizer.ema_decay = 0.9
    return toy


def interrupted_processes_end_with_the_same_bits(runs, config):
    for name in ("whole", "last"):
        assert [x.code for x in runs.ended[name]] == [0, 0], [x.errors for x in runs.ended[name]]
    whole, parts = _restore(config, runs.whole), _restore(config, runs.parts)
    assert int(whole.step) == int(parts.step) == STEPS
    for (path, a), b in zip(jax.tree.leaves_with_path(whole), jax.tree.leaves(parts), strict=True):
        assert np.array_equal(a, b), jax.tree_util.keystr(path)
    right = {(line["step"], "loss" in line): line for line in _figures(runs.whole)}
    assert all(line == right[line["step"], "loss" in line] for line in _figures(runs.parts))


def two_processes_train_as_one(runs, config):
    """Equal up to the order in which a batch is summed; see tests/training/test_parallel.py."""
    one, two = _restore(config, runs.alone), _restore(config, runs.whole)
    for (path, a), b in zip(jax.tree.leaves_with_path(one.params), jax.tree.leaves(two.params), strict=True):
        assert np.allclose(a, b, rtol=0, atol=0.01 * STEPS * RATE), jax.tree_util.keystr(path)
    for a, b in zip(_figures(runs.alone), _figures(runs.whole), strict=True):
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
    assert [x.code for x in runs.ended["asked"]] == [0, 0], [x.errors for x in runs.ended["asked"]]
    assert f"of {STEPS}; the same command goes on" in runs.ended["asked"][0].printed
    steps = [line["step"] for line in _figures(runs.parts) if "loss" in line]
    jumps = [(a, b) for a, b in pairwise(steps) if b != a + 1]
    assert len(jumps) <= 1  # back to the last checkpoint after the kill, and none after the SIGTERM
    assert steps[-1] == STEPS and set(steps) == set(range(1, STEPS + 1))


def only_the_first_process_writes(runs):
    steps = [line["step"] for line in _figures(runs.whole)]
    assert sorted(steps) == sorted([*range(1, STEPS + 1), *range(0, STEPS + 1, SAVE_EVERY)])
    starts = [json.loads(line) for line in (runs.parts / "environment.jsonl").open()]
    assert [start["processes"] for start in starts] == [2, 2, 2] and starts[0]["step"] == 0
    for first, second in (runs.ended["whole"], runs.ended["last"]):
        assert f"trained to step {STEPS}" in first.printed
        assert "step" not in second.printed


def test_processes(runs, config):
    """One test, so that no second worker starts all these processes again."""
    interrupted_processes_end_with_the_same_bits(runs, config)
    two_processes_train_as_one(runs, config)
    the_survivor_of_a_kill_ends_with_one_line(runs)
    sigterm_to_one_process_stops_all_at_the_same_step(runs)
    only_the_first_process_writes(runs)
