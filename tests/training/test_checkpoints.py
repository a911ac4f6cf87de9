"""Checkpoints: exact, one side alone, and one line for everything that can be wrong with them."""

import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deepsteg_jax import models
from deepsteg_jax.errors import UserError
from deepsteg_jax.training import checkpoints
from deepsteg_jax.training.parallel import parallelise
from deepsteg_jax.training.state import create_optimizer, create_state

# Of reads that orbax abandons when a file is damaged.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


def _equal(a, b) -> bool:
    """Bit for bit, with equal structure and types."""
    same = lambda x, y: x.dtype == y.dtype and np.array_equal(x, y)  # noqa: E731
    return jax.tree.all(jax.tree.map(same, a, b))


def _state(config, seed=0, step=5):
    """A state whose every number is random, so that none is restored right by chance."""
    model, optimizer = models.build(config.model), create_optimizer(config.optimizer)
    state = create_state(model, optimizer, jax.random.key(seed), ema=config.optimizer.ema_decay > 0)
    leaves, tree = jax.tree.flatten(state)
    rng = np.random.default_rng(seed)
    leaves = [jnp.asarray(rng.normal(size=x.shape) * 100, x.dtype) for x in leaves]
    return jax.tree.unflatten(tree, leaves).replace(step=jnp.int32(step))


def _save(config, folder, *states):
    with checkpoints.open_manager(folder, config.train.keep) as manager:
        for state in states:
            checkpoints.save(manager, state, config)
    return str(folder)


def _restore_state(config, folder):
    with checkpoints.open_manager(folder) as manager:
        return checkpoints.restore_state(manager, _state(config, seed=99, step=0))


def _restore_params(config, folder, side):
    return checkpoints.restore_params(str(folder), models.build(config.model), config.model, side)


def _one_line(info) -> str:
    text = str(info.value)
    assert "\n" not in text and len(text) < 500
    return text


@pytest.fixture
def saved(toy, tmp_path):
    """A saved state and its folder."""
    toy.model.size = 100  # 3.6 kB: large enough for orbax to put it into files of its own
    state = _state(toy)
    return state, _save(toy, tmp_path / "run" / "checkpoints", state)


@pytest.mark.parametrize("schedule, decay", [("constant", 0.0), ("plateau", 0.0), ("constant", 0.9)])
def test_a_state_comes_back_bit_for_bit(toy, tmp_path, schedule, decay):
    toy.optimizer.schedule, toy.optimizer.ema_decay = schedule, decay
    state = _state(toy)
    folder = _save(toy, tmp_path, state)
    assert _equal(_restore_state(toy, folder), state)
    assert not _equal(state, _state(toy, seed=99))


def test_an_empty_folder_leaves_the_fresh_state(toy, tmp_path):
    assert _equal(_restore_state(toy, tmp_path), _state(toy, seed=99, step=0))


def test_a_save_holds_the_state_of_its_step_although_the_next_steps_reuse_the_memory(toy, tmp_path):
    """Saving is in the background and the step donates its state."""
    toy.model.size, toy.train.keep = 50_000, 20
    count = parallelise(lambda state, batch, devices: (jax.tree.map(lambda x: x + 1, state), {}))
    state = jax.tree.map(jnp.zeros_like, _state(toy))
    with checkpoints.open_manager(tmp_path, 20) as manager:
        for _ in range(12):
            state, _ = count(state, {"x": np.zeros((1, 1))})
            if int(state.step) % 3 == 1:
                checkpoints.save(manager, state, toy)
    for step in (1, 4, 7, 10):
        with checkpoints.open_manager(tmp_path, 20) as manager:
            found = manager.restore(step)
        leaves = jax.tree.leaves([found["hide"], found["reveal"], found["training"]])
        assert all(np.all(np.asarray(x) == step) for x in leaves)


def test_the_last_ones_are_kept(toy, tmp_path):
    states = [_state(toy, seed=step, step=step) for step in (2, 4, 6, 8)]
    folder = _save(toy, tmp_path, *states)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["6", "8"]
    assert _equal(_restore_state(toy, folder), states[-1])
    assert _equal(_restore_params(toy, folder, "hide"), states[-1].params["hide"])


@pytest.mark.parametrize("side, other", [("hide", "reveal"), ("reveal", "hide")])
def test_a_side_is_read_alone(toy, saved, tmp_path, side, other):
    state, folder = saved
    for item in (other, "training"):
        shutil.rmtree(tmp_path / "run" / "checkpoints" / "5" / item)
    assert _equal(_restore_params(toy, folder, side), state.params[side])
    with pytest.raises(UserError, match="does not fit config.model or is damaged"):
        _restore_params(toy, folder, other)


def test_a_training_folder_its_checkpoints_and_a_shipped_name_are_one_path(toy, saved, tmp_path, monkeypatch):
    state, folder = saved
    monkeypatch.setattr(checkpoints, "PRETRAINED", tmp_path)
    for name in (tmp_path / "run", folder):
        assert _equal(_restore_params(toy, name, "hide"), state.params["hide"])
    shutil.copytree(folder, tmp_path / "shipped")
    assert _equal(_restore_params(toy, "shipped", "hide"), state.params["hide"])


@pytest.mark.parametrize("name", ["nowhere", "", "empty", "file"])
def test_no_checkpoint(toy, tmp_path, name, monkeypatch):
    (tmp_path / "empty" / "checkpoints").mkdir(parents=True)
    (tmp_path / "file").write_text("7")
    (tmp_path / "shipped").mkdir()
    monkeypatch.setattr(checkpoints, "PRETRAINED", tmp_path)
    with pytest.raises(UserError, match="no checkpoint '.*': .*shipped") as info:
        _restore_params(toy, name and str(tmp_path / name), "hide")
    assert repr(name)[1:-1] in _one_line(info)


def test_no_checkpoint_and_none_shipped(toy, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, "PRETRAINED", tmp_path / "absent")
    with pytest.raises(UserError, match="no checkpoint 'nowhere'"):
        _restore_params(toy, "nowhere", "hide")


def test_an_unfinished_save_is_no_checkpoint(toy, saved, tmp_path):
    """What a kill in the middle of a save leaves behind."""
    state, folder = saved
    shutil.copytree(tmp_path / "run/checkpoints/5", tmp_path / "run/checkpoints/7.orbax-checkpoint-tmp")
    shutil.rmtree(tmp_path / "run/checkpoints/7.orbax-checkpoint-tmp/hide")
    assert _equal(_restore_state(toy, folder), state)
    assert _equal(_restore_params(toy, folder, "hide"), state.params["hide"])


@pytest.mark.parametrize("side", ["hide", "reveal"])
def test_another_model(toy, saved, side):
    model = models.build(toy.model)
    toy.model.name = "block_dct"
    with pytest.raises(UserError, match="is of the model 'toy', the config asks for 'block_dct'") as info:
        checkpoints.restore_params(saved[1], model, toy.model, side)
    _one_line(info)


@pytest.mark.parametrize("size", [99, 101, 1])
def test_other_sizes(toy, saved, size):
    toy.model.size = size
    with pytest.raises(UserError, match="does not fit config.model") as info:
        _restore_params(toy, saved[1], "reveal")
    _one_line(info)
    with pytest.raises(UserError, match="holds a run of another config") as info:
        _restore_state(toy, saved[1])
    _one_line(info)


def test_a_state_of_another_schedule(toy, saved):
    toy.optimizer.schedule = "plateau"
    with pytest.raises(UserError, match="another config.*choose another --workdir") as info:
        _restore_state(toy, saved[1])
    _one_line(info)


def test_what_is_used_is_the_average_where_there_is_one(toy, tmp_path):
    toy.optimizer.ema_decay = 0.9
    state = _state(toy)
    folder = _save(toy, tmp_path / "run" / "checkpoints", state)
    for side in ("hide", "reveal"):
        assert _equal(_restore_params(toy, folder, side), state.ema[side])
        assert not _equal(state.ema[side], state.params[side])
    checkpoints.export(folder, tmp_path / "shipped", models.build(toy.model), toy)
    assert _equal(_restore_params(toy, tmp_path / "shipped", "hide"), state.ema["hide"])


@pytest.mark.parametrize("before, after", [(0.0, 0.9), (0.9, 0.0)])
def test_an_average_is_kept_from_the_start_or_not_at_all(toy, tmp_path, before, after):
    toy.optimizer.ema_decay = before
    folder = _save(toy, tmp_path, _state(toy))
    toy.optimizer.ema_decay = after
    with pytest.raises(UserError, match="another config.*choose another --workdir") as info:
        _restore_state(toy, folder)
    _one_line(info)


def _best(config, folder, *found):
    """What is kept of (state, loss) one after the other: its step, its loss and its parameters."""
    with checkpoints.open_manager(folder, keep=1) as manager:
        for state, loss in found:
            checkpoints.save_best(manager, state, config, {"validation_loss": loss})
    with checkpoints.open_manager(folder, keep=1) as manager:
        hide = _restore_params(config, folder, "hide")
        return manager.all_steps(), checkpoints.read_best(manager)["validation_loss"], hide


@pytest.mark.parametrize("decay", [0.0, 0.9])
def test_the_best_parameters_are_saved_with_their_figures_and_without_the_optimiser(toy, tmp_path, decay):
    toy.optimizer.ema_decay = decay
    with checkpoints.open_manager(tmp_path, keep=1) as manager:
        assert checkpoints.read_best(manager) == {}
    states = _state(toy), _state(toy, seed=1, step=9)
    steps, loss, hide = _best(toy, tmp_path, (states[0], 2.5), (states[1], 1.25))
    assert (steps, loss) == ([9], 1.25) and _equal(hide, states[1].tested["hide"])
    assert {p.name for p in (tmp_path / "9").iterdir() if p.is_dir()} == {
        "hide",
        "reveal",
        "config",
        "validation",
    }


def test_the_best_of_steps_that_were_done_again(toy, tmp_path):
    """A run that diverged goes on from an earlier step, with a lower learning rate."""
    states = {step: _state(toy, seed=step, step=step) for step in (8, 5, 6)}
    _best(toy, tmp_path, (states[8], 3.0))
    steps, loss, hide = _best(toy, tmp_path, (states[5], 2.0))
    assert (steps, loss) == ([5], 2.0) and _equal(hide, states[5].params["hide"])
    again = _state(toy, seed=1, step=5)
    steps, loss, hide = _best(toy, tmp_path, (again, 1.0))
    assert (steps, loss) == ([5], 1.0) and _equal(hide, again.params["hide"])
    steps, loss, hide = _best(toy, tmp_path, (states[6], 0.5))
    assert (steps, loss) == ([6], 0.5) and _equal(hide, states[6].params["hide"])


@pytest.mark.slow
def test_a_truncated_file_is_harmless_or_one_line(toy, saved, tmp_path):
    """Not every file matters; those that do must not lead to wrong numbers or to a traceback."""
    state, folder = saved
    files = [p for p in (tmp_path / "run").rglob("*") if p.is_file()]
    caught = {"hide": 0, "reveal": 0, "state": 0}
    for path in files:
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
        for side in ("hide", "reveal"):
            try:
                assert _equal(_restore_params(toy, folder, side), state.params[side]), path
            except UserError as error:
                assert "damaged" in str(error) and "\n" not in str(error)
                caught[side] += 1
        try:
            assert _equal(_restore_state(toy, folder), state), path
        except UserError as error:
            assert "damaged" in str(error) and "\n" not in str(error)
            caught["state"] += 1
        path.write_bytes(whole)
    assert min(caught.values()) >= 3  # of each: the index, the manifest and the numbers themselves


def _damage(folder):
    """Cuts every file of a checkpoint in half."""
    for path in folder.rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def test_a_damaged_checkpoint_is_put_aside_for_the_one_before_it(toy, tmp_path, caplog):
    older, newer = _state(toy, seed=1, step=5), _state(toy, seed=2, step=6)
    _save(toy, tmp_path, older, newer)
    _damage(tmp_path / "6")
    assert _equal(_restore_state(toy, tmp_path), older)
    assert f"{tmp_path}: damaged at step 6, going on from 5" in caplog.text
    assert sorted(path.name for path in tmp_path.iterdir()) == ["5", "6.damaged"]
    _save(toy, tmp_path, newer)  # the run comes to the same step again
    assert _equal(_restore_state(toy, tmp_path), newer)


def test_nothing_is_put_aside_where_all_is_damaged(toy, tmp_path):
    _save(toy, tmp_path, _state(toy, seed=1, step=5), _state(toy, seed=2, step=6))
    for step in ("5", "6"):
        _damage(tmp_path / step)
    with pytest.raises(UserError, match="or is damaged"):
        _restore_state(toy, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["5", "6"]


def test_export_is_equal_and_without_the_optimiser(toy, saved, tmp_path):
    state, folder = saved
    checkpoints.export(folder, tmp_path / "shipped", models.build(toy.model), toy)
    for side in ("hide", "reveal"):
        assert _equal(_restore_params(toy, tmp_path / "shipped", side), state.params[side])
    (exported,) = (tmp_path / "shipped").iterdir()
    items = {p.name for p in exported.iterdir() if p.is_dir()}
    assert exported.name == "5" and items == {"hide", "reveal", "config"}
    assert not [p for p in exported.rglob("*") if p.is_file() and b"opt_state" in p.read_bytes()]


def test_export_again_does_not_keep_the_old_parameters_in_silence(toy, saved, tmp_path):
    _, folder = saved
    model = models.build(toy.model)
    checkpoints.export(folder, tmp_path / "shipped", model, toy)
    other = _save(toy, tmp_path / "other", _state(toy, seed=7))
    with pytest.raises(UserError, match="already holds step 5: choose an empty folder"):
        checkpoints.export(other, tmp_path / "shipped", model, toy)


def test_export_of_nothing(toy, tmp_path):
    with pytest.raises(UserError, match="no checkpoint"):
        checkpoints.export(str(tmp_path), tmp_path / "shipped", models.build(toy.model), toy)
    assert not (tmp_path / "shipped").exists()


def test_fingerprint_tells_parameters_apart(toy, saved):
    state, folder = saved
    params = state.params["reveal"]
    prints = {models.fingerprint(params)}
    assert {models.fingerprint(_restore_params(toy, folder, "reveal"))} == prints
    assert {models.fingerprint(jax.tree.map(np.asarray, params))} == prints
    for name, place in [("bias", 0), ("bias", 2), ("unmix", 0), ("unmix", 450), ("unmix", 899)]:
        changed = jax.tree.map(np.array, params)
        changed[name].view(np.uint32).flat[place] ^= 1  # the last bit counts
        prints.add(models.fingerprint(changed))
    assert len(prints) == 6 and all(len(p) == 8 for p in prints)
    swapped = {**params, "unmix": params["unmix"][::-1]}
    assert models.fingerprint(swapped) not in prints
