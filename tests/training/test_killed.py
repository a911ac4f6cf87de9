"""main.py trains, is killed twice, and ends with the same bits as a run that nothing interrupted."""

import json
import signal
import time
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import pytest

from deepsteg_jax import models
from deepsteg_jax.training import checkpoints
from deepsteg_jax.training.logs import JSON_LINES
from deepsteg_jax.training.loop import train
from tests.children import start_training
from tests.toy import build_toy, get_config
from tests.training.test_loop import _figures, _lines, _restore, _saved

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
STEPS = 40


class Killed(NamedTuple):
    """A training that nothing interrupted, in this process, and one by main.py that was killed twice."""

    whole: Path
    parts: Path
    resumed_at: list[int]  # the newest checkpoint after each kill
    half_saved: bool  # whether the first kill left half a save
    printed: str  # by the last start


def _settings(images) -> dict:
    settings = {"data.path": str(images), "optimizer.num_steps": STEPS}
    return settings | {"train.save_every_steps": 10, "train.log_every_steps": 1}


def _start(images, workdir, **how):
    flags = [f"--config.{name}={value}" for name, value in _settings(images).items()]
    return start_training(workdir, f"--config={ROOT}/tests/toy.py", *flags, **how)


def _newest(workdir) -> int:
    return max((int(p.name) for p in (workdir / "checkpoints").glob("*") if p.name.isdigit()), default=0)


def _steps_written(workdir) -> list[int]:
    """The steps of a log that is being written."""
    *lines, _ = (workdir / JSON_LINES).read_text().split("\n")
    return [json.loads(line)["step"] for line in lines]


@pytest.fixture(scope="module")
def killed(tmp_path_factory, image_folder):
    """Three starts of main.py; the kills come in the middle of a save and between two."""
    folder = tmp_path_factory.mktemp("killed")
    whole, parts = folder / "whole", folder / "parts"
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(models.MODELS, "toy", build_toy)
        config = get_config()
        config.update_from_flattened_dict(_settings(image_folder))
        train(config, whole)
    assert _start(image_folder, parts, dies_in_save=20).finish().code == -signal.SIGKILL
    resumed_at, half_saved = [_newest(parts)], any((parts / "checkpoints").glob("*-tmp*"))
    logged = len(_steps_written(parts))
    child = _start(image_folder, parts, pause_s=100, pause_from=38)
    while 37 not in _steps_written(parts)[logged:] or _newest(parts) < 30:
        assert child.code is None, f"main.py ended too early: {child.errors}"
        time.sleep(0.02)
    child.send(signal.SIGKILL)
    assert child.finish().code == -signal.SIGKILL
    resumed_at.append(_newest(parts))
    child = _start(image_folder, parts).finish()
    assert child.code == 0, child.errors
    return Killed(whole, parts, resumed_at, half_saved, child.printed)


def test_main_trains_to_a_checkpoint_that_can_be_used(killed, toy):
    assert f"trained to step {STEPS}; use it with --config.checkpoint={killed.parts}" in killed.printed
    model = models.build(toy.model)
    params = {
        side: checkpoints.restore_params(str(killed.parts), model, toy.model, side)
        for side in ("hide", "reveal")
    }
    fresh = model.init(jax.random.key(0))
    assert jax.tree.all(jax.tree.map(lambda a, b: a.shape == b.shape and np.isfinite(a).all(), params, fresh))


def test_a_run_that_was_killed_ends_with_the_same_bits(killed, toy):
    assert killed.resumed_at == [10, 30]
    assert killed.half_saved and _saved(killed.parts) == _saved(killed.whole) == ["30", "40"]
    states = [_restore(toy, folder) for folder in (killed.whole, killed.parts)]
    for (path, a), b in zip(jax.tree.leaves_with_path(states[0]), jax.tree.leaves(states[1]), strict=True):
        assert np.array_equal(a, b), jax.tree_util.keystr(path)
    right = {line["step"]: line for line in _figures(killed.whole)}
    steps = [line["step"] for line in _lines(killed.parts)]
    assert all(line == right[line["step"]] for line in _figures(killed.parts))
    assert sorted(set(steps)) == list(range(1, STEPS + 1))
    # Each start goes on right after the newest checkpoint.
    jumps = {b for a, b in pairwise(steps) if b != a + 1}
    assert jumps and jumps <= {step + 1 for step in killed.resumed_at}
