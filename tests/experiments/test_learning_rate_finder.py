"""The range test on a parabola and with the real training step."""

import importlib
import json
import math
from itertools import count
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image

from deepsteg_jax import models
from experiments import learning_rate_finder as finder


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for i, pixels in enumerate(np.random.default_rng(0).integers(0, 256, (5, 6, 6, 3), np.uint8)):
        Image.fromarray(pixels).resize((40, 40)).save(folder / f"{i}.png")
    return folder


class _State(NamedTuple):
    step: int
    w: float

    def replace(self, **changes):
        return self._replace(**changes)


def _parabola(offset=0.0, noise=0.0, low=1e-4, high=100.0, steps=120, flat=False):
    """A range test of gradient descent on w^2, which diverges above the rate 1."""
    rates = [float(finder.rate_schedule(low, high, steps)(number)) for number in range(steps)]
    errors = np.random.default_rng(0).normal(0, noise, steps)

    def step(state, batch):
        loss = (0 if flat else state.w**2) + offset + errors[batch]
        return _State(state.step + 1, state.w - rates[state.step] * 2 * state.w), {"loss": loss}

    curve = finder.run_test(step, _State(0, 3.0), count(), rates, 0.9)
    return curve, finder.suggest(curve)


@pytest.mark.parametrize("offset, noise", [(0, 0), (0, 2), (-1000, 0), (-1000, 2), (1e6, 2)])
def test_rates_of_a_parabola(offset, noise):
    curve, found = _parabola(offset, noise)
    assert curve.diverged and len(curve.rates) < 120
    assert 1 < found["diverged_at"] < 10  # not at the first loss that rises, and not at the end
    assert found["below_divergence"] == found["diverged_at"] / 10
    # w^2 falls as exp(-4 sum of the rates), fastest per decade where that sum is 1 / 4.
    total = np.cumsum(curve.rates)
    ideal = curve.rates[int(np.searchsorted(total, 0.25))]
    assert ideal / 2 < found["steepest_descent"] < 2 * ideal
    assert curve.rates[0] == pytest.approx(1e-4) and curve.rates[60] == pytest.approx(
        1e-4 * 1e6 ** (60 / 119)
    )


def test_the_smoothed_change_is_a_bias_corrected_average():
    curve = finder.Curve(50, 0.5)
    for loss in (4.0, 1.0, 3.0):
        curve.add(1e-3, loss, 2.0)
    assert curve.smoothed == pytest.approx([2, 0, 4 / 7])


@pytest.mark.parametrize("best, limit", [(-0.001, 15), (-10, 20)])
def test_divergence_is_a_matter_of_range(best, limit):
    """Batches differ by 5 and nothing was won: 3 x 5 above it; 10 were won: 3 x 10 above the best."""
    curve = finder.Curve(100, 0.0)
    for i in range(20):
        curve.add(1e-3, best + 100 + 5 * (-1) ** i, 100 + 5 * (-1) ** i)
        assert not curve.diverged
    for change, diverged in ((limit - 0.1, False), (limit + 0.1, True)):
        curve.add(1e-3, 100 + change, 100)
        assert curve.diverged == diverged


def test_what_says_nothing_gives_no_rate():
    curve, found = _parabola(noise=2, high=0.1)
    assert not curve.diverged and len(curve.rates) == 120
    assert found["diverged_at"] is None and found["below_divergence"] is None
    assert found["steepest_descent"] is not None and "did not diverge up to 0.1" in finder.say(found, curve)
    curve, found = _parabola(flat=True)
    assert found["steepest_descent"] is None and "none found" in finder.say(found, curve)


def test_a_loss_that_is_not_finite_ends_the_test(tmp_path):
    values = iter([1.0, 1.0] * 9 + [math.nan] * 9)  # the untouched one and the trained one in turn
    step = lambda state, batch: (_State(state.step + 1, 0.0), {"loss": next(values)})  # noqa: E731
    curve = finder.run_test(step, _State(0, 0.0), count(), [1e-3 * 2**k for k in range(50)], 0.9)
    found = finder.suggest(curve)
    assert curve.diverged and len(curve.losses) == 10 and found["diverged_at"] == 1e-3 * 2**9
    finder.draw(tmp_path / "a.png", curve, found)
    with Image.open(tmp_path / "a.png") as image:
        assert image.format == "PNG"


def _build_toy(config):
    """A linear model that compiles in no time."""

    def init(key):
        return {"hide": {"mix": jnp.full((), 0.5)}, "reveal": {"unmix": jnp.zeros(3)}}

    def hide(params, cover, secret):
        return cover + params["mix"] * secret

    return models.Model(init, hide, lambda params, stego: stego * params["unmix"])


@pytest.mark.slow
def test_the_real_training_step_with_growing_rates(images, tmp_path, monkeypatch, capsys):
    config = importlib.import_module("configs.image").get_config("tiny")
    config.model = ConfigDict({"name": "toy", "frames": 1})
    config.shuffle.moves = "nothing"
    config.data.update(path=str(images), height=16, width=16)
    config.optimizer.schedule = "plateau"  # whose scale is no part of this test
    config.train.batch_size = 2
    monkeypatch.setitem(models.MODELS, "toy", _build_toy)
    monkeypatch.setattr(finder, "read_config", lambda *_: config)
    options = ["--config=toy", "--steps=50", "--low=1e-5", "--high=1e3", f"--output={tmp_path}"]
    finder.main(options)
    found = json.loads((tmp_path / "learning_rate.json").read_text())["results"]
    steps = len(found["rates"])
    assert found["rates"] == pytest.approx([10 ** (8 * i / 49 - 5) for i in range(steps)], rel=1e-3)
    changes = np.subtract(found["losses"], found["untouched"])
    assert changes[0] == 0 and np.abs(changes[1:4]).max() < 0.01 and min(changes) < -1
    assert len(set(found["untouched"])) > 3  # batches do differ
    assert found["diverged_at"] == found["rates"][-1] and steps < 50
    assert f"diverged at {found['diverged_at']:.3g}" in capsys.readouterr().out
    assert (tmp_path / "learning_rate.png").stat().st_size > 1000
