"""A steganalyser that is trained beside a model, as a term of its loss."""

import shutil

import jax
import numpy as np
import pytest

from deepsteg_jax import models
from deepsteg_jax.training import checkpoints, objective
from deepsteg_jax.training.loop import train
from deepsteg_jax.training.state import create_optimizer, create_state
from deepsteg_jax.training.step import example_keys
from tests.training.test_loop import _equal, _figures, _lines


@pytest.fixture
def watched(toy, monkeypatch):
    """A config with a small steganalyser."""
    monkeypatch.setattr(objective, "_FEATURES", (4, 4))
    toy.losses.steganalyser = 0.5
    toy.data.update(height=24, width=24)
    return toy


def slopes(config, weight):
    """The gradient of both players at the same parameters, and the logs."""
    config.losses.steganalyser = weight
    model = objective.with_steganalyser(models.build(config.model), config)
    params = model.init(jax.random.key(0))
    pictures = np.random.default_rng(0).integers(0, 256, (2, 4, 24, 24, 3), np.uint8)
    batch = dict(zip(("cover", "secret"), pictures, strict=True))
    loss = objective.choose_objective(model, config).loss
    grads, logs = jax.jit(jax.grad(loss, has_aux=True))(params, batch, example_keys(jax.random.key(1), 4))
    return grads, logs


def test_the_model_gets_the_weight_and_the_steganalyser_none(watched):
    (once, logs), (thrice, more) = (slopes(watched, weight) for weight in (1.0, 3.0))
    (none, _) = slopes(watched, 0.0)
    added = [once["hide"]["mix"] - none["hide"]["mix"], thrice["hide"]["mix"] - none["hide"]["mix"]]
    assert np.abs(added[0]).max() > 1e-4
    np.testing.assert_allclose(3 * added[0], added[1], rtol=1e-2, atol=1e-5)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-7),
        once["steganalyser"],
        thrice["steganalyser"],
    )
    assert "steganalyser" not in none and 0 <= float(logs["steganalyser_accuracy"]) <= 1
    assert float(more["weighted_steganalyser"]) == pytest.approx(
        3 * float(logs["loss_steganalyser"]), rel=1e-4
    )


@pytest.mark.slow
def test_a_run_goes_on_with_its_steganalyser_and_models_load_without(watched, image_folder, tmp_path):
    watched.data.path = watched.data.validation_path = str(image_folder)
    whole = train(watched, tmp_path / "whole")
    shutil.copytree(tmp_path / "whole", tmp_path / "cut")
    shutil.rmtree(tmp_path / "cut/checkpoints/6")  # as after a crash between the last two saves
    assert _equal(train(watched, tmp_path / "cut"), whole)
    assert [line["step"] for line in _lines(tmp_path / "cut")][-2:] == [6, 6]  # done again, and validated
    assert "steganalyser_accuracy" in _figures(tmp_path / "whole")[-1] | _figures(tmp_path / "whole")[-2]
    model = models.build(watched.model)
    for folder in ("whole", "whole/best"):
        for side in checkpoints.SIDES:
            found = checkpoints.restore_params(str(tmp_path / folder), model, watched.model, side)
            assert folder != "whole" or _equal(found, whole.params[side])
    with checkpoints.open_manager(tmp_path / "whole" / "checkpoints") as manager:
        plain = objective.with_steganalyser(model, watched)
        fresh = create_state(plain, create_optimizer(watched.optimizer), jax.random.key(5))
        assert _equal(checkpoints.restore_state(manager, fresh).params, whole.params)
