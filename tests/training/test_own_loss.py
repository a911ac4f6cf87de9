"""A model with a loss of its own is trained from recordings by the same loop."""

from types import SimpleNamespace

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from deepsteg_jax import models
from deepsteg_jax.errors import UserError
from deepsteg_jax.training.loop import train
from tests.children import start_on_devices
from tests.recordings import build_listener, listen, means_of, write_images, write_videos
from tests.training.test_loop import _crash_after, _equal, _figures, _lines, _restore, _saved


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """Recordings, others without colour for validation, and what the first test leaves to the next ones."""
    folder = tmp_path_factory.mktemp("recordings")
    for number in range(5):
        write_videos(folder / "recordings", number)
    for number in range(2):
        write_images(folder / "others", number, seed=1)
    return SimpleNamespace(folder=folder, whole=folder / "whole", state=None)


@pytest.fixture
def listener(toy, monkeypatch, kept):
    """The config of a run of 6 steps of a model that is trained from recordings."""
    monkeypatch.setitem(models.MODELS, "listener", build_listener)
    listen(toy, kept.folder / "recordings")
    toy.data.validation_path = str(kept.folder / "others")
    toy.optimizer.update(ema_decay=0.4, learning_rate=0.03)
    toy.train.update(batch_size=8, accumulate_steps=2, picture_every_steps=1)
    return toy


@pytest.fixture
def whole(listener, kept):
    """The folder and the last state of a run that nothing interrupted; no pictures of it are drawn."""
    if kept.state is None:
        kept.state = train(listener, kept.whole)
    return kept


def test_its_lines_hold_what_the_loss_logs(listener, whole):
    lines = [line for line in _lines(whole.whole) if "loss" in line]
    assert [line["step"] for line in lines] == [2, 4, 6] and _saved(whole.whole) == ["4", "6"]
    assert all(line["loss"] == pytest.approx(line["luma"] + line["cb"], rel=1e-5) for line in lines)
    assert _equal(_restore(listener, whole.whole), whole.state)


@pytest.mark.slow
def test_it_goes_on_to_the_same_bits(listener, whole, tmp_path):
    _crash_after(3, listener, tmp_path)
    assert _saved(tmp_path) == ["2"]
    assert _equal(train(listener, tmp_path), whole.state)
    right = {(line["step"], "loss" in line): line for line in _figures(whole.whole)}
    assert all(line == right[line["step"], "loss" in line] for line in _figures(tmp_path))


def test_validation_keeps_the_best(whole):
    """Its figures are what the loss logs: here of luma only, by hand."""
    params = jax.tree.map(np.float64, whole.state.tested)
    found = [line for line in _lines(whole.whole) if "validation_loss" in line]
    assert [line["step"] for line in found] == [0, 2, 4, 6]
    names = {"step", *(f"validation_{x}" for x in ("loss", "luma", "mean_step"))}
    assert all(line.keys() == names for line in found)
    losses, steps = [], []
    for path in sorted((whole.folder / "others").iterdir()):
        recording = np.load(path)
        luma, symbols = recording["luma"][:2, 16:32, 16:48], recording["symbols"][:2, 1:2, 1:3, 0]
        guess = params["reveal"]["slope"][0] * means_of(luma, 1) + params["hide"]["bias"][0]  # tied
        losses.append(np.mean((guess - symbols) ** 2))
        steps.append(recording["step"])
    assert found[-1]["validation_loss"] == pytest.approx(np.mean(losses), rel=1e-4)
    assert found[-1]["validation_mean_step"] == pytest.approx(np.mean(steps))
    best = min(found, key=lambda line: line["validation_loss"])["step"]
    assert [p.name for p in (whole.whole / "best").iterdir()] == [str(best)] != ["0"]


def train_listener(config, workdir):
    """In a process that is new, so that its model is not known yet."""
    models.MODELS["listener"] = build_listener
    train(ConfigDict(config), workdir)


@pytest.mark.slow
def test_four_devices_train_as_one(listener, whole, tmp_path):
    """Equal up to the order in which a batch is summed; see tests/training/test_parallel.py."""
    child = start_on_devices(4, train_listener, listener.to_dict(), tmp_path / "four")
    child.join()
    assert child.exitcode == 0
    moved = 1e-3 * listener.optimizer.num_steps * listener.optimizer.learning_rate
    four = _restore(listener, tmp_path / "four")
    one = whole.state
    for (path, a), b in zip(jax.tree.leaves_with_path(one.params), jax.tree.leaves(four.params), strict=True):
        assert np.allclose(a, b, rtol=0, atol=moved), jax.tree_util.keystr(path)
    for a, b in zip(_figures(whole.whole), _figures(tmp_path / "four"), strict=True):
        assert a == pytest.approx(b, rel=1e-4)


@pytest.mark.parametrize("metric", ["luma", "secret_psnr_db"])
def test_its_best_is_that_of_the_least_loss(listener, tmp_path, metric):
    listener.train.best_metric = metric
    with pytest.raises(
        UserError, match=f"best_metric is '{metric}': for the model 'listener' it must be loss, or empty$"
    ):
        train(listener, tmp_path / "run")


def test_models_and_data_that_do_not_go_together(listener, image_folder, tmp_path):
    listener.data.update(source="images", path=str(image_folder))
    message = "the model 'listener' is trained from recordings, but config.data.source is 'images'"
    with pytest.raises(UserError, match=message):
        train(listener, tmp_path / "run")
    listener.data.source, listener.model = "recordings", {"name": "toy", "size": 2, "frames": 1}
    message = "the model 'toy' is trained from covers and secrets, but config.data.source is 'recordings'"
    with pytest.raises(UserError, match=message):
        train(listener, tmp_path / "run")
