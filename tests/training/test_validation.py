"""Validation while training: which steps, what means, which parameters are kept as the best."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from deepsteg_jax import models
from deepsteg_jax.errors import UserError
from deepsteg_jax.training import checkpoints
from deepsteg_jax.training.logs import JSON_LINES
from deepsteg_jax.training.loop import train
from deepsteg_jax.training.validation import Validation

NAMES = {"validation_loss", "validation_stego_psnr_db", "validation_secret_psnr_db"}


@pytest.fixture
def config(toy, image_folder):
    """The toy config of a run of 5 steps that validates every second one."""
    toy.data.path = toy.data.validation_path = str(image_folder)
    toy.optimizer.num_steps = 5
    return toy


@pytest.fixture
def script(monkeypatch):
    """script(name, values, otherwise): lets validations find these values of a metric, one after the other.

    Returns a list that gets the parameters of each.
    """

    def install(name, values, otherwise=1.0):
        seen, rest = [], iter(values)

        def measure(self, state):
            seen.append(jax.tree.map(np.array, state.tested))
            return dict.fromkeys(NAMES, otherwise) | {f"validation_{name}": next(rest)}

        monkeypatch.setattr(Validation, "measure", measure)
        return seen

    return install


def _validated(workdir) -> dict[int, list[dict]]:
    """The lines of validations by step."""
    lines = [json.loads(line) for line in (workdir / JSON_LINES).open()]
    found = {}
    for line in lines:
        if NAMES & line.keys():
            assert line.keys() == {"step", *NAMES}
            found.setdefault(line["step"], []).append(line)
    return found


def _best(config, workdir):
    """The step in best/ and its parameters, read as a receiver would."""
    (step,) = (int(p.name) for p in (workdir / "best").iterdir())
    model = models.build(config.model)
    sides = ("hide", "reveal")
    return step, {
        side: checkpoints.restore_params(str(workdir / "best"), model, config.model, side) for side in sides
    }


def _equal(a, b) -> bool:
    return jax.tree.all(jax.tree.map(np.array_equal, a, b))


@pytest.mark.parametrize("every, steps", [(2, [0, 2, 4, 5]), (100, [0, 5]), (1, [0, 1, 2, 3, 4, 5])])
def test_a_line_at_the_start_every_so_many_steps_and_at_the_end(config, tmp_path, every, steps):
    config.train.validate_every_steps = every
    train(config, tmp_path)
    found = _validated(tmp_path)
    assert list(found) == steps and all(len(lines) == 1 for lines in found.values())
    losses = [lines[0]["validation_loss"] for lines in found.values()]
    assert losses[-1] < losses[0]  # it learns


@pytest.mark.parametrize("decay", [0.0, 0.5])
def test_figures_are_means_over_all_examples_of_the_parameters_that_are_used(config, tmp_path, decay):
    """By hand, for seven images in batches of four; without noise in the channel."""
    config.channel, config.optimizer.ema_decay = (), decay
    params = jax.tree.map(np.float64, train(config, tmp_path).tested)
    wanted = np.zeros(3)
    paths = sorted(Path(config.data.path).iterdir())
    images = [np.asarray(Image.open(path))[2:10, 2:10] / 255 for path in paths]  # the centre
    for i, cover in enumerate(images):
        secret = images[(i + 3) % 7]
        stego = cover + secret @ params["hide"]["mix"].sum(0)
        revealed = stego @ params["reveal"]["unmix"].sum(0) + params["reveal"]["bias"]
        pairs = (cover, stego), (secret, revealed)
        errors = [np.mean((a - b) ** 2) for a, b in pairs]
        coarse = [np.mean((a - np.round(np.clip(b, 0, 1) * 255) / 255) ** 2) for a, b in pairs]
        loss = errors[0] + 2 * errors[1] + 0.01 * 10 * np.log10(errors[1])
        wanted += [loss, *(-10 * np.log10(coarse))]
    (line,) = _validated(tmp_path)[5]
    found = [line[f"validation_{name}"] for name in ("loss", "stego_psnr_db", "secret_psnr_db")]
    assert found == pytest.approx(wanted / 7, rel=1e-4)


@pytest.mark.parametrize(
    "metric, values, best, decay",
    [
        ("loss", [3.0, 1.0, 2.0, 1.0], 1, 0.0),  # of equal ones the first
        ("loss", [0.5, -1.0, 0.0, -2.0], 3, 0.5),
        ("stego_psnr_db", [30.0, 20.0, 25.0, 28.0], 0, 0.0),
        ("secret_psnr_db", [30.0, 31.0, 35.0, 34.0], 2, 0.5),
    ],
)
def test_the_best_is_kept_and_can_be_used(config, tmp_path, script, metric, values, best, decay):
    config.train.best_metric, config.optimizer.ema_decay = metric, decay
    seen = script(metric, values)
    train(config, tmp_path)
    step, params = _best(config, tmp_path)
    assert step == (0, 2, 4, 5)[best] and _equal(params, seen[best])
    assert not any(_equal(params, x) for i, x in enumerate(seen) if i != best)


def test_a_run_that_goes_on_keeps_what_was_better(config, tmp_path, script):
    seen = script("loss", [3.0, 1.0, 2.0, 2.0, 1.5, 1.25, 0.5])
    train(config, tmp_path)
    config.optimizer.num_steps = 8
    train(config, tmp_path)
    assert list(_validated(tmp_path)) == [0, 2, 4, 5, 6, 8]
    step, params = _best(config, tmp_path)
    assert step == 2 and _equal(params, seen[1])
    config.optimizer.num_steps = 9
    train(config, tmp_path)
    step, params = _best(config, tmp_path)
    assert step == 9 and _equal(params, seen[6])


def test_a_crash_while_validating_loses_no_validation(config, tmp_path, monkeypatch):
    """What a checkpoint holds has been validated before."""
    config.train.validate_every_steps, config.train.save_every_steps = 2, 4
    train(config, tmp_path / "whole")
    measure, parts = Validation.measure, tmp_path / "parts"

    def crash(self, state):
        if int(state.step) == 4:
            raise KeyboardInterrupt
        return measure(self, state)

    monkeypatch.setattr(Validation, "measure", crash)
    with pytest.raises(KeyboardInterrupt):
        train(config, parts)
    monkeypatch.setattr(Validation, "measure", measure)
    train(config, parts)
    whole, found = _validated(tmp_path / "whole"), _validated(parts)
    assert sorted(found) == sorted(whole)
    assert all(line == whole[step][0] for step, lines in found.items() for line in lines)
    best, again = _best(config, tmp_path / "whole"), _best(config, parts)
    assert best[0] == again[0] and _equal(best[1], again[1])


@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
def test_figures_that_are_not_finite_are_never_the_best(config, tmp_path, script, value):
    """Nothing would be better than them later."""
    seen = script("loss", [value, 5.0, value, 6.0])
    train(config, tmp_path)
    step, params = _best(config, tmp_path)
    assert step == 2 and _equal(params, seen[1])


def test_each_validation_draws_the_same_noise(config, tmp_path):
    config.channel, config.optimizer.learning_rate = (("gaussian_noise", 0.3),), 0.0
    train(config, tmp_path)
    lines = [line for lines in _validated(tmp_path).values() for line in lines]
    assert len({line["validation_loss"] for line in lines}) == 1 and len(lines) == 4


def test_no_validation_without_data(config, tmp_path):
    config.data.validation_path = ""
    config.train.best_metric = "not looked at"
    train(config, tmp_path)
    assert _validated(tmp_path) == {} and not (tmp_path / "best").exists()


@pytest.mark.parametrize("name", ["", "psnr", "validation_loss", "loss_secret"])
def test_unknown_metric(config, tmp_path, name):
    config.train.best_metric = name
    with pytest.raises(UserError, match="best_metric is one of loss, stego_psnr_db, secret_psnr_db") as info:
        train(config, tmp_path)
    assert repr(name) in str(info.value) and "\n" not in str(info.value)


def test_validation_data_that_are_missing(config, tmp_path):
    config.data.validation_path = str(tmp_path / "nowhere")
    with pytest.raises(UserError, match="nowhere"):
        train(config, tmp_path / "run")
