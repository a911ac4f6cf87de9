"""Validation while training: figures, and which parameters are kept as the best."""

from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from deepsteg_jax import data, models
from deepsteg_jax.errors import UserError
from deepsteg_jax.training import checkpoints
from deepsteg_jax.training.objective import choose_objective
from deepsteg_jax.training.state import TrainState
from deepsteg_jax.training.validation import Validation, open_validation

NAMES = ("loss", "stego_psnr_db", "secret_psnr_db")


@pytest.fixture
def config(toy, image_folder):
    """The toy config that validates on seven images in batches of four, without noise."""
    toy.data.path = toy.data.validation_path = str(image_folder)
    toy.channel = ()
    return toy


def _open(config, manager):
    objective = choose_objective(models.build(config.model), config)
    return open_validation(config, objective, jax.random.key(5), manager, data.Share())


def _params(config, seed):
    return models.build(config.model).init(jax.random.key(seed))


def test_figures_are_means_over_all_examples_of_the_averages(config, tmp_path):
    """By hand."""
    params = _params(config, 1)
    with checkpoints.open_manager(tmp_path) as manager:
        validation = _open(config, manager)
    found = validation.measure(TrainState(jnp.int32(3), _params(config, 0), None, params))
    assert validation.measure(TrainState(jnp.int32(4), params, None)) == found  # where there are none
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
    assert list(found) == [f"validation_{name}" for name in sorted(NAMES)]
    assert [found[f"validation_{name}"] for name in NAMES] == pytest.approx(wanted / 7, rel=1e-4)


def test_every_pass_numbers_its_batches_from_0_and_is_closed():
    """So each pass draws the same noise; see `make_validation_step`."""
    numbers, closed = [], []

    def batches():
        try:
            yield from ({"weight": np.ones(2)}, {"weight": np.ones(1)})
        finally:
            closed.append(True)

    def step(replicated, batch):
        numbers.append((int(replicated[1]), len(batch["weight"])))
        return {"loss": 6.0 * numbers[-1][0], "weight": batch["weight"].sum()}

    validation = Validation(batches, step, "loss", None, {})
    for _ in range(2):
        assert validation.measure(SimpleNamespace(tested=None)) == {"validation_loss": 2.0}
    assert numbers == 2 * [(0, 2), (1, 1)] and closed == [True, True]


@pytest.mark.parametrize(
    "metric, values, kept",
    [
        ("loss", [3.0, 1.0, 2.0, 1.0], [0, 1]),  # of equal ones the first
        ("loss", [0.5, -1.0, 0.0, -2.0], [0, 1, 3]),
        ("stego_psnr_db", [30.0, 20.0, 25.0, 28.0], [0]),
        ("secret_psnr_db", [30.0, 31.0, 35.0, 34.0], [0, 1, 2]),
        ("loss", [float("nan"), 5.0, float("nan"), 6.0], [1]),  # nothing would be better than these later
        ("loss", [float("-inf"), 5.0, float("-inf"), 4.0], [1, 3]),
    ],
)
def test_what_is_better_than_all_before_is_kept(metric, values, kept):
    saved, best = [], {}
    validation = Validation(None, None, metric, lambda state, figures: saved.append((state, figures)), best)
    figures = [{f"validation_{name}": 1.0 for name in NAMES} | {f"validation_{metric}": x} for x in values]
    for i, found in enumerate(figures):
        validation.keep_if_best(i, found)
    assert saved == [(i, figures[i]) for i in kept]


def test_the_best_can_be_used_and_a_run_that_goes_on_keeps_what_was_better(config, tmp_path):
    config.train.best_metric = "secret_psnr_db"
    params = [_params(config, seed) for seed in range(3)]
    model, folder = models.build(config.model), tmp_path / "best"
    for start, kept in (((30.0, 31.0), 1), ((29.0,), 1), ((30.5, 35.0, 34.0), 11)):
        with checkpoints.open_manager(folder, keep=1) as manager:
            validation = _open(config, manager)
            for i, value in enumerate(start):
                figures = {f"validation_{name}": value for name in NAMES}
                state = TrainState(jnp.int32(i + 10 * (len(start) - 2)), params[2], None, params[i])
                validation.keep_if_best(state, figures)
        assert [p.name for p in folder.iterdir()] == [str(kept)]
        for side in ("hide", "reveal"):
            found = checkpoints.restore_params(str(folder), model, config.model, side)
            assert jax.tree.all(jax.tree.map(np.array_equal, found, params[1][side]))


def test_of_a_game_nothing_is_the_best(config, tmp_path):
    config.train.best_metric = ""
    with checkpoints.open_manager(tmp_path / "best", keep=1) as manager:
        validation = _open(config, manager)
        state = TrainState(jnp.int32(1), _params(config, 0), None, None)
        validation.keep_if_best(state, {"validation_loss": 0.0})
    assert not any((tmp_path / "best").iterdir())


def test_a_damaged_best_is_said(config, tmp_path):
    config.train.best_metric, params = NAMES[0], _params(config, 0)
    with checkpoints.open_manager(tmp_path / "best", keep=1) as manager:
        state = TrainState(jnp.int32(1), params, None, params)
        _open(config, manager).keep_if_best(state, {f"validation_{name}": 0.0 for name in NAMES})
    for path in tmp_path.glob("best/1/validation/*"):
        path.write_text("")
    with (
        checkpoints.open_manager(tmp_path / "best", keep=1) as manager,
        pytest.raises(UserError, match="best is damaged: move it away"),
    ):
        _open(config, manager)


@pytest.mark.parametrize("name", ["psnr", "validation_loss", "loss_secret"])
def test_unknown_metric(config, name):
    config.train.best_metric = name
    with pytest.raises(UserError) as info:
        _open(config, None)
    text = str(info.value)
    assert f"best_metric is {name!r}: for the model 'toy' it must be one of {', '.join(NAMES)}" in text
    assert "\n" not in text


def test_validation_data_that_are_missing(config, tmp_path):
    config.data.validation_path = str(tmp_path / "nowhere")
    with pytest.raises(UserError, match="nowhere"):
        _open(config, None)
