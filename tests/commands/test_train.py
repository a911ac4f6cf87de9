"""Ctrl-C in a training, as a user sees it: the first saves and ends, the second ends at once."""

import signal
import time
from pathlib import Path

import pytest

from tests.children import start_training
from tests.training.test_loop import _equal, _lines, _restore, _saved, train

TOY = Path(__file__).parents[1] / "toy.py"
STEPS = 40

pytestmark = pytest.mark.slow


@pytest.fixture
def config(toy, image_folder):
    toy.optimizer.num_steps, toy.data.path = STEPS, str(image_folder)
    toy.train.update(save_every_steps=100, validate_every_steps=100, log_every_steps=1)
    return toy


def _start(config, workdir, **pauses):
    names = ("optimizer.num_steps", "data.path", "train.save_every_steps", "train.log_every_steps")
    flags = [f"--config.{name}={config.to_dict()[name.split('.')[0]][name.split('.')[1]]}" for name in names]
    return start_training(workdir, f"--config={TOY}", *flags, **pauses)


def _wait(child, condition):
    while not condition():
        assert child.code is None, child.errors
        time.sleep(0.01)


def test_the_first_saves_and_ends_and_the_same_command_goes_on(config, tmp_path):
    parts = tmp_path / "parts"
    child = _start(config, parts, pause_s=0.5, pause_from=2)
    _wait(child, lambda: (parts / "training.jsonl").exists() and _lines(parts))
    child.send(signal.SIGINT)
    assert child.finish().code == 130 and child.errors.count("\n") == 1
    assert "Ctrl-C: saves after the running step" in child.errors
    (saved,) = _saved(parts)
    assert int(saved) == _lines(parts)[-1]["step"] < STEPS
    assert f"stopped and saved at step {saved} of {STEPS}; the same command goes on" in child.printed
    child = _start(config, parts).finish()
    assert child.code == 0 and f"goes on at step {saved} of {STEPS}" in child.printed
    assert _equal(_restore(config, parts), train(config, tmp_path / "whole"))


def test_the_second_ends_at_once(config, tmp_path):
    run = tmp_path / "run"
    child = _start(config, run, pause_s=100, pause_from=2)
    _wait(child, lambda: (run / "training.jsonl").exists() and _lines(run))  # one step is done
    child.send(signal.SIGINT)
    _wait(child, lambda: "Ctrl-C" in child.errors)
    child.send(signal.SIGINT)
    assert child.finish().code == 130 and _saved(run) == []
    assert child.errors.count("\n") == 1 and "saved at" not in child.printed


def test_one_before_the_first_step_ends_at_once(config, tmp_path):
    child = _start(config, tmp_path / "run", pause_s=100)
    _wait(child, lambda: (tmp_path / "run/environment.jsonl").exists())
    child.send(signal.SIGINT)
    assert child.finish().code == 130 and _saved(tmp_path / "run") == []
    assert child.errors == "main.py: interrupted before the first step\n"
