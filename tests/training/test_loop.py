"""The loop: what it writes, that an interruption changes nothing, and when it stops."""

import json
import os
import signal
import subprocess
import sys
import time
from itertools import islice, pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from configs.video import get_config
from deepsteg_jax import commands, data, models
from deepsteg_jax.errors import UserError
from deepsteg_jax.training import checkpoints, logs, loop
from deepsteg_jax.training.logs import JSON_LINES
from deepsteg_jax.training.loop import picture_grid, train
from deepsteg_jax.training.state import create_optimizer, create_state
from deepsteg_jax.training.step import Pictures
from deepsteg_jax.training.validation import Validation
from tests.recordings import build_listener, listen, write_pictures, write_symbols

ROOT = Path(__file__).parents[2]
TIMES = ("images_per_s", "data_wait", "save_wait")


@pytest.fixture
def config(toy, image_folder):
    """The toy config of a run of 6 steps that saves and logs every second one."""
    toy.data.path = str(image_folder)
    return toy


class _Crash(Exception):
    pass


def _crash_after(count, config, workdir):
    """A run that dies when it asks for the batch after its `count`-th."""
    create_pairs = data.create_pairs

    def crashing(*args, **kwargs):
        yield from islice(create_pairs(*args, **kwargs), count)
        raise _Crash

    with pytest.MonkeyPatch.context() as patch, pytest.raises(_Crash):
        patch.setattr(data, "create_pairs", crashing)
        train(config, workdir)


def _lines(workdir) -> list[dict]:
    return [json.loads(line) for line in (workdir / JSON_LINES).open()]


def _figures(workdir) -> list[dict]:
    """The lines without what depends on the clock."""
    return [{name: x for name, x in line.items() if name not in TIMES} for line in _lines(workdir)]


def _saved(workdir) -> list[str]:
    return sorted(p.name for p in (workdir / "checkpoints").iterdir())


def _equal(a, b) -> bool:
    return jax.tree.all(jax.tree.map(np.array_equal, a, b))


def _write_clips(folder):
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        (folder / name).mkdir(parents=True)
        for i in range(6):
            pixels = rng.integers(0, 256, (6, 6, 3), np.uint8)
            Image.fromarray(pixels).resize((48, 48)).save(folder / name / f"{i}.png")


def _restore(config, workdir):
    """The newest state of a folder."""
    model, optimizer = models.build(config.model), create_optimizer(config.optimizer)
    fresh = create_state(model, optimizer, jax.random.key(99), ema=config.optimizer.ema_decay > 0)
    with checkpoints.open_manager(workdir / "checkpoints") as manager:
        return checkpoints.restore_state(manager, fresh)


# --- what it writes -------------------------------------------------------------------------------


def test_a_run_leaves_checkpoints_logs_events_and_the_config(config, tmp_path):
    config.optimizer.num_steps, config.train.save_every_steps = 5, 2
    state = train(config, tmp_path / "new" / "run")
    folder = tmp_path / "new" / "run"
    assert int(state.step) == 5 and _saved(folder) == ["4", "5"]  # the last step is always saved
    assert _equal(_restore(config, folder), state)
    for side in ("hide", "reveal"):
        params = checkpoints.restore_params(str(folder), models.build(config.model), config.model, side)
        assert _equal(params, state.params[side])
    assert [line["step"] for line in _lines(folder)] == [2, 4, 5]
    assert [p for p in (folder / "tensorboard").iterdir() if "tfevents" in p.name and p.stat().st_size > 1000]
    assert json.loads((folder / "config.json").read_text())["optimizer"]["num_steps"] == 5
    assert {p.name for p in folder.iterdir()} == {
        *("checkpoints", "tensorboard", "training.jsonl", "config.json", "environment.jsonl")
    }


def test_every_line_has_losses_weighted_and_not_psnr_learning_rate_and_speed(config, tmp_path):
    config.optimizer.schedule = "cosine"
    train(config, tmp_path)
    lines = _lines(tmp_path)
    for line in lines:
        for name, weight in config.losses.items():
            assert line[f"weighted_{name}"] == pytest.approx(weight * line[f"loss_{name}"], rel=1e-5)
        assert line["loss"] == pytest.approx(sum(line[f"weighted_{n}"] for n in config.losses), rel=1e-5)
        assert line["images_per_s"] > 0 and line["gradient_norm"] > 0 and line["parameter_norm"] > 0
        assert 0 <= line["data_wait"] <= 1 and 0 <= line["save_wait"] <= 1
        for side in ("stego", "secret"):  # the mean of the dB is at least the dB of the mean
            assert -10 * np.log10(line[f"loss_{side}"]) - 1e-3 <= line[f"{side}_psnr_db"] < 100
    # Of the update that led to the step: two steps of warm-up, then a cosine over four.
    assert [line["learning_rate"] for line in lines] == pytest.approx(
        [0.005, 0.005 * (1 + np.cos(np.pi / 4)), 0.005 * (1 + np.cos(3 * np.pi / 4))], rel=1e-5
    )


def test_speed_and_waits_since_the_last_line_leave_validation_out(config, tmp_path, monkeypatch):
    """With a clock that only data (3 s), steps (2 s), saves (1 s) and validations (100 s) move."""
    now = [0.0]

    def slow(seconds, function):
        def run(*args, **kwargs):
            now[0] += seconds
            return function(*args, **kwargs)

        return run

    create_pairs, parallelise = data.create_pairs, loop.parallelise
    batches = lambda *args, **kwargs: (slow(3, lambda x: x)(x) for x in create_pairs(*args, **kwargs))  # noqa: E731
    monkeypatch.setattr(data, "create_pairs", batches)
    monkeypatch.setattr(loop, "parallelise", lambda step: slow(2, parallelise(step)))
    monkeypatch.setattr(checkpoints, "save", slow(1, checkpoints.save))
    monkeypatch.setattr(Validation, "measure", slow(100, lambda *_: {"validation_loss": 1.0}))
    monkeypatch.setattr(logs, "time", SimpleNamespace(monotonic=lambda: now[0]))
    _write_clips(tmp_path / "clips")
    clips = {
        "source": "clips",
        "path": str(tmp_path / "clips"),
        "validation_path": str(tmp_path / "clips"),
        "frames": 3,
        "max_frames": 6,
        "max_stride": 1,
    }
    config.data.update(clips, cache_height=12, cache_width=12)
    train(config, tmp_path / "run")
    lines = [line for line in _lines(tmp_path / "run") if "loss" in line]
    for line, seconds in zip(lines, (10, 11, 11), strict=True):
        assert line["images_per_s"] == pytest.approx(2 * 4 * 3 / seconds)
        assert line["data_wait"] == pytest.approx(6 / seconds)
        assert line["save_wait"] == pytest.approx((seconds - 10) / seconds)


def test_logs_saves_pictures_and_validation_change_nothing(config, tmp_path):
    before, states = config.copy_and_resolve_references(), []
    for changes in (
        {},
        {"train.log_every_steps": 1, "train.save_every_steps": 100},
        {"train.log_every_steps": 100, "train.save_every_steps": 1, "train.picture_every_steps": 2},
        {"data.validation_path": config.data.path, "train.validate_every_steps": 1},
    ):
        config = before.copy_and_resolve_references()
        config.update_from_flattened_dict(changes)
        states.append(train(config, tmp_path / str(len(states))))
    assert len(_lines(tmp_path / "1")) == 6 and _saved(tmp_path / "2") == ["5", "6"]
    assert len(_lines(tmp_path / "3")) == 3 + 7
    assert all(_equal(state, states[0]) for state in states[1:])


def test_only_the_first_process_writes_logs(config, tmp_path, monkeypatch):
    monkeypatch.setattr(loop.parallel, "process_index", lambda: 1)
    train(config, tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoints"]


def test_the_seed_decides(config, tmp_path):
    config.optimizer.num_steps = 1
    states = []
    for seed in (3, 4):
        config.seed = seed
        states.append(train(config, tmp_path / str(seed)))
    assert not _equal(states[0].params, states[1].params)


def test_picture_grid_has_four_rows_and_rounds():
    pictures = Pictures(*(np.full((6, 2, 5, 3), value) for value in (0.0, 0.4999, -1.0, 2.0)))
    grid = picture_grid(pictures)
    assert grid.shape == (8, 20, 3) and grid.dtype == np.uint8
    assert grid[0, ::5, 0].tolist() == [0, 127, 0, 255]
    video = Pictures(*(np.stack([x, 1 - x], axis=1) for x in pictures))
    assert np.array_equal(picture_grid(video), grid)  # its first frames


# --- going on -------------------------------------------------------------------------------------


def test_a_longer_run_goes_on_where_the_shorter_ended(config, tmp_path):
    whole = train(config, tmp_path / "whole")
    config.optimizer.num_steps = 3
    assert int(train(config, tmp_path / "parts").step) == 3
    config.optimizer.num_steps = 6
    assert _equal(train(config, tmp_path / "parts"), whole)


def test_a_run_that_crashed_goes_on_to_the_same_bits(config, tmp_path):
    """Steps after the last save are done and logged again, with the same figures."""
    config.optimizer.schedule, config.optimizer.num_steps, config.train.save_every_steps = "plateau", 8, 3
    config.optimizer.plateau_patience, config.optimizer.plateau_window = 1, 1
    config.optimizer.learning_rate = 0.5  # the loss rises and falls
    config.train.log_every_steps = 1
    whole = train(config, tmp_path / "whole")
    parts = tmp_path / "parts"
    for count, saved in ((2, []), (5, ["3"]), (4, ["3", "6"])):
        _crash_after(count, config, parts)
        assert _saved(parts) == saved
    assert _equal(train(config, parts), whole)
    lines = _figures(parts)
    assert [x["step"] for x in lines] == [1, 2, 1, 2, 3, 4, 5, 4, 5, 6, 7, 7, 8]
    right = {line["step"]: line for line in _figures(tmp_path / "whole")}
    assert all(line == right[line["step"]] for line in lines)
    rates = [right[step]["learning_rate"] for step in range(1, 9)]
    assert len(set(rates)) > 2  # so that a schedule that starts afresh would show


def test_averages_go_on_to_the_same_bits(config, tmp_path):
    config.optimizer.ema_decay = 0.4
    whole = train(config, tmp_path / "whole")
    assert not _equal(whole.ema, whole.params)
    _crash_after(3, config, tmp_path / "parts")
    _crash_after(3, config, tmp_path / "parts")
    assert _saved(tmp_path / "parts") == ["2", "4"]
    assert _equal(train(config, tmp_path / "parts"), whole)
    assert _equal(_restore(config, tmp_path / "parts"), whole)
    config.optimizer.ema_decay = 0.0
    assert _equal(train(config, tmp_path / "plain").params, whole.params)


def test_a_folder_without_averages_cannot_get_them_later(config, tmp_path):
    train(config, tmp_path)
    config.optimizer.ema_decay = 0.4
    with pytest.raises(UserError, match="holds a run of another config.*choose another --workdir"):
        train(config, tmp_path)


def test_a_run_that_was_asked_to_stop_saves_and_goes_on_to_the_same_bits(config, tmp_path):
    whole = train(config, tmp_path / "whole")
    asked = []
    stopped = train(config, tmp_path / "stopped", lambda: asked.append(None) or len(asked) == 3)
    assert int(stopped.step) == len(asked) == 3
    assert _saved(tmp_path / "stopped") == ["2", "3"]
    assert _equal(train(config, tmp_path / "stopped"), whole)


@pytest.fixture
def run_mode(config, monkeypatch, tmp_path):
    """run_mode(trained): `--mode train` with `trained` in place of the training."""
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "cache"))

    def run(trained):
        monkeypatch.setattr(loop, "train", trained)
        commands.load("train").run(config, commands.Options(str(tmp_path)))

    yield run
    signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize("at", [3, 6])
@pytest.mark.parametrize("process", [0, 1])
def test_sigterm_asks_the_training_to_stop(run_mode, monkeypatch, capsys, at, process):
    asked = []

    def trained(config, workdir, stop):
        asked.append(stop())
        os.kill(os.getpid(), signal.SIGTERM)
        asked.append(stop())
        return SimpleNamespace(step=at)

    monkeypatch.setattr(loop.parallel, "process_index", lambda: process)
    run_mode(trained)
    assert asked == [False, True]
    printed = capsys.readouterr().out
    if process:  # only the first one prints
        assert printed == ""
    else:
        assert ("saved at step 3 of 6" in printed) == (at == 3)
        assert ("trained to step 6;" in printed) == (at == 6)


@pytest.mark.parametrize("deterministic", [False, True])
@pytest.mark.parametrize("before", ["", "--xla_cpu_enable_fast_math=false"])
def test_determinism_on_gpus_is_a_flag_beside_those_that_are_there(
    config, run_mode, monkeypatch, deterministic, before
):
    seen, config.deterministic = [], deterministic
    monkeypatch.setenv("XLA_FLAGS", before)

    def trained(*_):
        seen.append(os.environ["XLA_FLAGS"].split())
        return SimpleNamespace(step=6)

    run_mode(trained)
    assert seen == [before.split() + ["--xla_gpu_deterministic_ops=true"] * deterministic]


def test_a_finished_run_stays_as_it_is(config, tmp_path):
    state = train(config, tmp_path)
    before = (tmp_path / JSON_LINES).read_text()
    assert _equal(train(config, tmp_path), state)
    assert (tmp_path / JSON_LINES).read_text() == before and _saved(tmp_path) == ["4", "6"]


def test_a_folder_of_another_config_is_left_alone(config, tmp_path):
    state = train(config, tmp_path)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir() if p.is_file()}
    config.model.size, config.optimizer.num_steps = 3, 12
    with pytest.raises(UserError, match="holds a run of another config.*choose another --workdir"):
        train(config, tmp_path)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir() if p.is_file()} == before
    config.model.size = 2
    assert _equal(_restore(config, tmp_path), state)


# --- stopping -------------------------------------------------------------------------------------


def _diverge(config, workdir, match):
    with pytest.raises(UserError, match=match) as info:
        train(config, workdir)
    text = str(info.value)
    assert "\n" not in text and str(workdir / "checkpoints") in text and "learning_rate" in text


def test_a_run_that_diverges_keeps_the_last_good_checkpoint(config, tmp_path):
    config.optimizer.num_steps = 4
    good = train(config, tmp_path)
    config.optimizer.num_steps, config.optimizer.learning_rate = 8, float("inf")
    _diverge(config, tmp_path, "not finite at step [56]; the last good checkpoint is in")
    assert _saved(tmp_path) == ["2", "4"] and _equal(_restore(config, tmp_path), good)
    config.optimizer.learning_rate = 0.01
    state = train(config, tmp_path)
    assert int(state.step) == 8 and np.isfinite(state.params["hide"]["mix"]).all()


def test_parameters_that_are_not_finite_are_not_saved_although_the_loss_was(config, tmp_path):
    """The loss of a step is that of the parameters before it."""
    config.train.save_every_steps, config.optimizer.learning_rate = 1, float("inf")
    _diverge(config, tmp_path, "parameters is not finite at step 1;")
    assert _saved(tmp_path) == []


@pytest.mark.parametrize("log_every, stopped", [(2, 4), (100, 5)])
def test_a_loss_that_is_not_finite_stops_at_the_next_log_or_save(
    config, tmp_path, monkeypatch, log_every, stopped
):
    config.train.log_every_steps, config.train.save_every_steps = log_every, 5
    make_train_step = loop.make_train_step

    def poisoned(*args):
        step = make_train_step(*args)

        def run(state, batch):
            poison = jnp.where(state.step == 2, jnp.nan, 1.0)  # the third step
            after, logs = step(state, batch)
            after = after.replace(params=jax.tree.map(lambda x: x * poison, after.params))
            return after, logs | {"loss": logs["loss"] * poison}

        return run

    monkeypatch.setattr(loop, "make_train_step", poisoned)
    _diverge(config, tmp_path, f"not finite at step {stopped};")
    assert _saved(tmp_path) == [] and [x["step"] for x in _lines(tmp_path)] == [
        *range(log_every, stopped, log_every)
    ]


def test_data_that_are_missing(config, tmp_path):
    config.data.path = str(tmp_path / "nowhere")
    with pytest.raises(UserError, match="nowhere"):
        train(config, tmp_path / "run")


# --- records --------------------------------------------------------------------------------------


@pytest.fixture
def listener(config, monkeypatch, tmp_path):
    """The config of a run of 6 steps of a model that is trained from records."""
    monkeypatch.setitem(models.MODELS, "listener", build_listener)
    for number in range(5):
        write_symbols(tmp_path / "recordings", number)
    for number in range(2):
        write_pictures(tmp_path / "recordings", number)
        write_symbols(tmp_path / "others", number, seed=1)
    listen(config, tmp_path / "recordings")
    return config


def test_a_model_is_trained_from_records(listener, tmp_path):
    """No pictures of it are drawn."""
    listener.train.picture_every_steps, listener.optimizer.num_steps = 1, 40
    state = train(listener, tmp_path / "run")
    lines = _lines(tmp_path / "run")
    assert [line["step"] for line in lines] == list(range(2, 41, 2))
    assert _saved(tmp_path / "run") == ["38", "40"]
    assert all(line["loss"] == pytest.approx(line["symbols"] + line["pictures"], rel=1e-5) for line in lines)
    assert lines[-1]["loss"] < 0.5 * lines[0]["loss"]
    assert _equal(_restore(listener, tmp_path / "run"), state)


def test_training_from_records_goes_on_to_the_same_bits(listener, tmp_path):
    listener.optimizer.ema_decay, listener.train.accumulate_steps = 0.4, 2
    whole = train(listener, tmp_path / "whole")
    for count, saved in ((3, ["2"]), (3, ["2", "4"])):
        _crash_after(count, listener, tmp_path / "parts")
        assert _saved(tmp_path / "parts") == saved
    assert _equal(train(listener, tmp_path / "parts"), whole)
    right = {line["step"]: line for line in _figures(tmp_path / "whole")}
    assert all(line == right[line["step"]] for line in _figures(tmp_path / "parts"))


def test_validation_on_records_keeps_the_best(listener, tmp_path):
    """Its figures are what the loss logs: here of symbols only, by hand."""
    listener.data.validation_path, listener.optimizer.learning_rate = str(tmp_path / "others"), 0.1
    params = jax.tree.map(np.float64, train(listener, tmp_path / "run").tested)
    found = [line for line in _lines(tmp_path / "run") if "validation_loss" in line]
    assert [line["step"] for line in found] == [0, 2, 4, 6]
    assert all(
        line.keys() == {"step", *(f"validation_{x}" for x in ("loss", "symbols", "mean_step"))}
        for line in found
    )
    losses, steps = [], []
    for path in sorted((tmp_path / "others").iterdir()):
        record = np.load(path)
        frames, symbols = record["frames"][:2, 8:16, 8:24], record["symbols"][:2, 1:2, 1:3, 0]
        means = frames.astype(np.float64).reshape(2, 1, 8, 2, 8).mean((2, 4)) / 256 - 0.5
        guess = params["reveal"]["slope"][0] * means + params["reveal"]["bias"][0]
        losses.append(np.mean((guess - symbols) ** 2))
        steps.append(record["step"])
    assert found[-1]["validation_loss"] == pytest.approx(np.mean(losses), rel=1e-4)
    assert found[-1]["validation_mean_step"] == pytest.approx(np.mean(steps))
    best = min(found, key=lambda line: line["validation_loss"])["step"]
    assert [p.name for p in (tmp_path / "run" / "best").iterdir()] == [str(best)] != ["0"]


FOUR_DEVICES = """
import json, sys
import jax
from ml_collections import ConfigDict
from deepsteg_jax import models
from deepsteg_jax.training.loop import train
from tests.recordings import build_listener

assert jax.device_count() == 4
models.MODELS["listener"] = build_listener
train(ConfigDict(json.loads(sys.argv[1])), sys.argv[2])
"""


def test_records_on_four_devices_train_as_on_one(listener, tmp_path):
    """Equal up to the order in which a batch is summed; see tests/training/test_parallel.py."""
    listener.train.batch_size, listener.data.validation_path = 8, str(tmp_path / "others")
    one = train(listener, tmp_path / "one")
    env = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path / "cache"),
        "XLA_FLAGS": "--xla_force_host_platform_device_count=4",
        "PYTHONPATH": str(ROOT),
    }
    command = [sys.executable, "-c", FOUR_DEVICES, listener.to_json(), str(tmp_path / "four")]
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    moved = 1e-3 * listener.optimizer.num_steps * listener.optimizer.learning_rate
    four = _restore(listener, tmp_path / "four")
    for (path, a), b in zip(jax.tree.leaves_with_path(one.params), jax.tree.leaves(four.params), strict=True):
        assert np.allclose(a, b, rtol=0, atol=moved), jax.tree_util.keystr(path)
    for a, b in zip(_figures(tmp_path / "one"), _figures(tmp_path / "four"), strict=True):
        assert a == pytest.approx(b, rel=1e-4)


@pytest.mark.parametrize("metric", ["symbols", "secret_psnr_db"])
def test_the_best_of_a_model_of_records_is_that_of_the_least_loss(listener, tmp_path, metric):
    listener.data.validation_path, listener.train.best_metric = listener.data.path, metric
    with pytest.raises(UserError, match=f"best_metric is loss for a model of records, not '{metric}'$"):
        train(listener, tmp_path / "run")


def test_models_and_data_that_do_not_go_together(listener, image_folder, tmp_path):
    listener.data.update(source="images", path=str(image_folder))
    message = "the model 'listener' is trained from records, but config.data.source is 'images'"
    with pytest.raises(UserError, match=message):
        train(listener, tmp_path / "run")
    listener.data.source, listener.model = "recordings", {"name": "toy", "size": 2, "frames": 1}
    message = "the model 'toy' is trained from covers and secrets, but config.data.source is 'recordings'"
    with pytest.raises(UserError, match=message):
        train(listener, tmp_path / "run")


# --- killed, as a user would run it ---------------------------------------------------------------


STEPS = 60


class Killed(NamedTuple):
    """A run of main.py that nothing interrupted, and one that was killed three times."""

    whole: Path
    parts: Path
    resumed_at: list[int]  # the newest checkpoint after each kill
    unfinished: bool  # whether the second kill left half a save
    printed: str  # by the last start


def _newest(workdir) -> int:
    return max((int(p.name) for p in (workdir / "checkpoints").glob("*") if p.name.isdigit()), default=0)


def _whole_lines(workdir) -> list[dict]:
    """The lines of a log that is being written."""
    *lines, _ = (workdir / JSON_LINES).read_text().split("\n")
    return [json.loads(line) for line in lines]


def _wait(child, condition):
    while not condition():
        assert child.poll() is None, f"main.py ended too early: {child.communicate()}"
        time.sleep(0.002)


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """Five starts of main.py; the kills come between two saves, in the middle of one, and at any step."""
    folder = tmp_path_factory.mktemp("killed")
    whole, parts = folder / "whole", folder / "parts"
    _write_clips(folder / "clips")
    env = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",  # halves the time it takes to compile
        "JAX_COMPILATION_CACHE_DIR": str(folder / "cache"),
    }

    def start(workdir):
        settings = {"data.path": folder / "clips", "optimizer.num_steps": STEPS, "train.save_every_steps": 10}
        settings["train.picture_every_steps"] = STEPS
        flags = [f"--config.{name}={value}" for name, value in settings.items()]
        command = [sys.executable, "main.py", "--config=configs/video.py:tiny", "--mode=train", *flags]
        command.append(f"--workdir={workdir}")
        return subprocess.Popen(
            command, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def finish(child):
        printed, errors = child.communicate()
        assert child.returncode == 0, errors
        return printed

    def kill(child):
        child.send_signal(signal.SIGKILL)
        assert child.wait() == -signal.SIGKILL
        child.communicate()
        return _newest(parts)

    def unfinished():
        return any((parts / "checkpoints").glob("*-tmp*"))

    finish(start(whole))
    child = start(parts)
    _wait(child, lambda: _newest(parts) and not unfinished())
    resumed_at = [kill(child)]
    child = start(parts)
    _wait(child, lambda: _newest(parts) > resumed_at[0] and unfinished())
    resumed_at.append(kill(child))
    half_saved = unfinished()
    some_step = np.random.default_rng(0).integers(_newest(parts) + 1, min(_newest(parts) + 15, STEPS - 5))
    logged = len(_whole_lines(parts))
    child = start(parts)
    _wait(child, lambda: any(line["step"] >= some_step for line in _whole_lines(parts)[logged:]))
    resumed_at.append(kill(child))
    return Killed(whole, parts, resumed_at, half_saved, finish(start(parts)))


@pytest.fixture(scope="module")
def tiny():
    """What main.py trained; its parameters begin at zero, which needs no compiling."""
    config = get_config("tiny")
    model = models.build(config.model)
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    return config, model._replace(
        init=lambda key: jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    )


def test_main_trains_to_a_checkpoint_that_can_be_used(killed, tiny):
    config, model = tiny
    assert f"trained to step {STEPS}; use it with --config.checkpoint={killed.parts}" in killed.printed
    params = {
        side: checkpoints.restore_params(str(killed.whole), model, config.model, side)
        for side in ("hide", "reveal")
    }
    fresh = model.init(jax.random.key(0))
    same = lambda a, b: a.shape == b.shape and np.isfinite(a).all()  # noqa: E731
    assert jax.tree.all(jax.tree.map(same, params, fresh))
    assert np.array_equal(params["hide"]["codebook"], params["reveal"]["codebook"])


def test_a_run_that_was_killed_three_times_ends_with_the_same_bits(killed, tiny):
    config, model = tiny
    assert 0 < killed.resumed_at[0] < killed.resumed_at[1] <= killed.resumed_at[2] < STEPS
    assert killed.unfinished and _saved(killed.parts) == _saved(killed.whole) == ["50", "60"]
    states = []
    for folder in (killed.whole, killed.parts):
        with checkpoints.open_manager(folder / "checkpoints") as manager:
            fresh = create_state(model, create_optimizer(config.optimizer), jax.random.key(0))
            states.append(checkpoints.restore_state(manager, fresh))
    for (path, a), b in zip(jax.tree.leaves_with_path(states[0]), jax.tree.leaves(states[1]), strict=True):
        assert np.array_equal(a, b), jax.tree_util.keystr(path)
    right = {line["step"]: line for line in _figures(killed.whole)}
    steps = [line["step"] for line in _lines(killed.parts)]
    for line in _figures(killed.parts):
        assert line == right[line["step"]]
    assert sorted(set(steps)) == list(range(1, STEPS + 1))
    # Each start goes on right after the newest checkpoint.
    jumps = {b for a, b in pairwise(steps) if b != a + 1}
    assert jumps and jumps <= {step + 1 for step in killed.resumed_at}
