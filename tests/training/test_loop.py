"""The loop: when it logs, draws, validates, saves and stops; what it leaves; resume changes nothing."""

import gzip
import json
import os
import signal
from itertools import count, islice
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from deepsteg_jax import commands, data, models
from deepsteg_jax.errors import UserError
from deepsteg_jax.training import checkpoints, logs, loop
from deepsteg_jax.training.logs import JSON_LINES, Log
from deepsteg_jax.training.loop import Run, picture_grid, train
from deepsteg_jax.training.objective import Pictures
from deepsteg_jax.training.state import TrainState, create_optimizer, create_state
from deepsteg_jax.training.validation import Validation

TIMES = ("images_per_s", "data_wait", "save_wait")


class ListLog(Log):
    """Keeps what it is told."""

    def __init__(self):
        self.lines, self.pictures = [], []

    def scalars(self, step, values):
        self.lines.append({"step": step, **values})

    def picture(self, step, grid):
        self.pictures.append((step, grid))


def _lines(workdir) -> list[dict]:
    return [json.loads(line) for line in (workdir / JSON_LINES).open()]


def _figures(workdir) -> list[dict]:
    """The lines without what depends on the clock."""
    return [{name: x for name, x in line.items() if name not in TIMES} for line in _lines(workdir)]


def _saved(workdir) -> list[str]:
    return sorted(p.name for p in (workdir / "checkpoints").iterdir())


def _equal(a, b) -> bool:
    return jax.tree.all(jax.tree.map(np.array_equal, a, b))


# --- the steps, in memory -------------------------------------------------------------------------


def _count(state, batch):
    """A training step that only counts, on the host; a state's parameters are its step."""
    step = state.step + 1
    return TrainState(step, step, None), {"loss": 1 / step, "parameter_norm": 1.0}


def _run(config, step=_count, first=0, validate=None, **fields):
    """Run the steps after `first`: (last state, log, saved steps)."""
    log, saved = ListLog(), []
    validation = validate and Validation(None, None, "loss", lambda *_: None, {})
    if validate:
        validation.measure = validate
    run = Run(config, step, lambda state: saved.append(int(state.step)), "HERE", 4, log, validation, **fields)
    batches = ({"cover": np.full((2, 1, 1, 3), i, np.uint8)} for i in count(first))
    return run.steps(TrainState(np.int32(first), first, None), batches), log, saved


def _validated(state):
    return {"validation_loss": float(state.step)}


def test_lines_saves_validations_and_pictures_come_when_they_are_due(toy):
    toy.optimizer.num_steps = 7
    toy.train.update(log_every_steps=2, save_every_steps=3, validate_every_steps=4, picture_every_steps=5)
    blank = Pictures(*np.zeros((4, 2, 1, 1, 3)))
    state, log, saved = _run(toy, validate=_validated, draw=lambda *_: blank)
    assert state.step == 7 and saved == [3, 6, 7]
    assert [x["step"] for x in log.lines if "loss" in x] == [2, 4, 6, 7]
    assert [x["step"] for x in log.lines if "validation_loss" in x] == [0, 4, 7]
    assert all(x["step"] == x["validation_loss"] for x in log.lines if "validation_loss" in x)
    assert [step for step, _ in log.pictures] == [5, 7]
    _, log, saved = _run(toy, first=4, validate=_validated)
    assert saved == [6, 7] and log.pictures == []
    assert [x["step"] for x in log.lines if "validation_loss" in x] == [7]  # 4 was validated before its save


def test_each_step_gets_the_next_batch_and_its_state(toy):
    seen = []

    def step(state, batch):
        seen.append((int(state.step), batch["cover"][0, 0, 0, 0]))
        return _count(state, batch)

    _run(toy, step, first=2)
    assert seen == [(i, i) for i in range(2, 6)]


def test_a_finished_run_does_nothing(toy):
    state, log, saved = _run(toy, first=6, validate=_validated)
    assert state.step == 6 and log.lines == [] and saved == []


def test_a_run_that_was_asked_to_stop_logs_and_saves_first(toy):
    asked = []
    state, log, saved = _run(toy, stop=lambda step: asked.append(step) or step == 3)
    assert state.step == 3 and asked == [1, 2, 3] and saved == [2, 3]
    assert [x["step"] for x in log.lines] == [2, 3]


def test_speed_and_waits_since_the_last_line_leave_validation_out(toy, monkeypatch):
    """With a clock that only data (3 s), steps (2 s), saves (1 s) and validations (100 s) move."""
    now = [0.0]

    def slow(seconds, function):
        def run(*args):
            now[0] += seconds
            return function(*args)

        return run

    monkeypatch.setattr(logs, "time", SimpleNamespace(monotonic=lambda: now[0]))
    log, validation = ListLog(), Validation(None, None, "loss", lambda *_: None, {})
    validation.measure = slow(100, _validated)
    run = Run(toy, slow(2, _count), slow(1, lambda state: None), "HERE", 4 * 3, log, validation)
    run.steps(TrainState(np.int32(0), 0, None), (slow(3, dict)() for _ in range(6)))
    for line, seconds in zip([x for x in log.lines if "loss" in x], (10, 11, 11), strict=True):
        assert line["images_per_s"] == pytest.approx(2 * 4 * 3 / seconds)
        assert line["data_wait"] == pytest.approx(6 / seconds)
        assert line["save_wait"] == pytest.approx((seconds - 10) / seconds)


def test_what_is_saved_has_been_validated(toy):
    def crash(state):
        if state.step == 4:
            raise KeyboardInterrupt
        return _validated(state)

    toy.train.update(validate_every_steps=2, save_every_steps=4)
    saved = []
    validation = Validation(None, None, "loss", lambda *_: None, {})
    validation.measure = crash
    run = Run(toy, _count, saved.append, "HERE", 4, validation=validation)
    with pytest.raises(KeyboardInterrupt):
        run.steps(TrainState(np.int32(0), 0, None), iter([{}] * 6))
    assert saved == []


@pytest.mark.parametrize("log_every, stopped", [(2, 4), (100, 5)])
def test_a_loss_that_is_not_finite_stops_at_the_next_line_or_save(toy, log_every, stopped):
    def step(state, batch):
        state, found = _count(state, batch)
        poison = np.nan if state.step >= 3 else 1.0
        return state, {name: x * poison for name, x in found.items()}

    toy.train.update(log_every_steps=log_every, save_every_steps=5)
    saved, log = [], ListLog()
    run = Run(toy, step, lambda state: saved.append(state.step), "HERE", 4, log)
    with pytest.raises(UserError, match=f"not finite at step {stopped}; the last good checkpoint is in HERE"):
        run.steps(TrainState(np.int32(0), 0, None), iter([{}] * 6))
    assert saved == [] and [x["step"] for x in log.lines] == [*range(log_every, stopped, log_every)]


def test_picture_grid_has_four_rows_and_rounds():
    pictures = Pictures(*(np.full((6, 2, 5, 3), value) for value in (0.0, 0.4999, -1.0, 2.0)))
    grid = picture_grid(pictures)
    assert grid.shape == (8, 20, 3) and grid.dtype == np.uint8
    assert grid[0, ::5, 0].tolist() == [0, 127, 0, 255]
    video = Pictures(*(np.stack([x, 1 - x], axis=1) for x in pictures))
    assert np.array_equal(picture_grid(video), grid)  # its first frames


# --- the mode of main.py --------------------------------------------------------------------------


@pytest.fixture
def run_mode(toy, monkeypatch, tmp_path):
    """run_mode(trained): `--mode train` with `trained` in place of the training."""
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "cache"))

    def run(trained):
        monkeypatch.setattr(loop, "train", trained)
        commands.load("train").run(toy, commands.Options(str(tmp_path)))

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
    toy, run_mode, monkeypatch, deterministic, before
):
    seen, toy.deterministic = [], deterministic
    monkeypatch.setenv("XLA_FLAGS", before)

    def trained(*_):
        seen.append(os.environ["XLA_FLAGS"].split())
        return SimpleNamespace(step=6)

    run_mode(trained)
    assert seen == [before.split() + ["--xla_gpu_deterministic_ops=true"] * deterministic]


# --- whole trainings, in folders ------------------------------------------------------------------


class _Crash(Exception):
    pass


def _crash_after(number, config, workdir):
    """A run that dies when it asks for the batch after its `number`-th."""
    create_pairs = data.create_pairs

    def crashing(*args, **kwargs):
        yield from islice(create_pairs(*args, **kwargs), number)
        raise _Crash

    with pytest.MonkeyPatch.context() as patch, pytest.raises(_Crash):
        patch.setattr(data, "create_pairs", crashing)
        train(config, workdir)


def _restore(config, workdir):
    """The newest state of a folder."""
    model, optimizer = models.build(config.model), create_optimizer(config.optimizer)
    fresh = create_state(model, optimizer, jax.random.key(99), ema=config.optimizer.ema_decay > 0)
    with checkpoints.open_manager(workdir / "checkpoints") as manager:
        return checkpoints.restore_state(manager, fresh)


@pytest.fixture
def config(toy, image_folder):
    """8 steps with averages and a learning rate that follows the loss, which rises and falls."""
    toy.data.path = str(image_folder)
    toy.train.update(log_every_steps=1, save_every_steps=3)
    toy.optimizer.update(num_steps=8, learning_rate=0.5, ema_decay=0.4)
    toy.optimizer.update(schedule="plateau", plateau_patience=1, plateau_window=1)
    return toy


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """What the first test that trains leaves to the others."""
    return SimpleNamespace(folder=tmp_path_factory.mktemp("whole"), state=None)


@pytest.fixture
def whole(config, kept):
    """The folder and the last state of a run that nothing interrupted."""
    if kept.state is None:
        kept.state = train(config, kept.folder)
    return kept


def test_a_run_leaves_checkpoints_logs_events_and_the_config(config, whole):
    folder, state = whole.folder, whole.state
    assert int(state.step) == 8 and _saved(folder) == ["6", "8"]
    assert _equal(_restore(config, folder), state) and not _equal(state.ema, state.params)
    for side in ("hide", "reveal"):
        params = checkpoints.restore_params(str(folder), models.build(config.model), config.model, side)
        assert _equal(params, state.ema[side])
    assert [line["step"] for line in _lines(folder)] == [*range(1, 9)]
    assert [p for p in (folder / "tensorboard").iterdir() if "tfevents" in p.name and p.stat().st_size > 1000]
    assert json.loads((folder / "config.json").read_text())["optimizer"]["num_steps"] == 8
    assert {p.name for p in folder.iterdir()} == {
        *("checkpoints", "tensorboard", "training.jsonl", "config.json", "environment.jsonl")
    }


def test_every_line_has_losses_weighted_and_not_psnr_norms_and_speed(config, whole):
    for line in _lines(whole.folder):
        for name, weight in config.losses.items():
            assert line[f"weighted_{name}"] == pytest.approx(weight * line[f"loss_{name}"], rel=1e-5)
        assert line["loss"] == pytest.approx(sum(line[f"weighted_{n}"] for n in config.losses), rel=1e-5)
        assert line["images_per_s"] > 0 and line["gradient_norm"] > 0 and line["parameter_norm"] > 0
        assert 0 <= line["data_wait"] <= 1 and 0 <= line["save_wait"] <= 1
        for side in ("stego", "secret"):  # the mean of the dB is at least the dB of the mean
            assert -10 * np.log10(line[f"loss_{side}"]) - 1e-3 <= line[f"{side}_psnr_db"] < 100


def test_a_start_says_model_devices_steps_and_data(config, whole, tmp_path, capsys):
    capsys.readouterr()
    assert int(train(config, whole.folder).step) == 8  # finished
    config.optimizer.num_steps = 0
    train(config, tmp_path)
    expected = []
    for folder, where in ((whole.folder, "goes on at step 8 of 8"), (tmp_path, "new, 0 steps")):
        expected += ["model: toy, 39 parameters, both sides together", "devices: 1 x cpu, processes: 1"]
        expected += [f"{folder}: {where}, batches of 4", f"data: 7 images in {config.data.path}"]
    assert capsys.readouterr().out.splitlines() == expected


@pytest.mark.slow
def test_lines_saves_pictures_validation_and_traces_change_nothing(config, whole, tmp_path, capsys):
    config.data.validation_path = config.data.path
    config.train.update(log_every_steps=3, save_every_steps=1, picture_every_steps=2, validate_every_steps=1)
    config.train.profile_steps = 2
    assert _equal(train(config, tmp_path), whole.state)
    assert len(_lines(tmp_path)) == 3 + 9 and (tmp_path / "best").exists()
    profiles = tmp_path / "tensorboard/plugins/profile"
    assert f"profile: steps from 3 on are in {profiles}" in capsys.readouterr().out
    (trace,) = profiles.glob("*/*.trace.json.gz")
    events = json.loads(gzip.decompress(trace.read_bytes()))["traceEvents"]
    steps = {event["args"]["step_num"] for event in events if event.get("name") == "train"}
    assert steps == {"3", "4"} and list(profiles.glob("*/*.xplane.pb"))


@pytest.mark.slow
def test_a_run_that_crashed_goes_on_to_the_same_bits(config, whole, tmp_path):
    """Steps after the last save are done and logged again, with the same figures."""
    for number, saved in ((2, []), (5, ["3"]), (4, ["3", "6"])):
        _crash_after(number, config, tmp_path)
        assert _saved(tmp_path) == saved
    assert _equal(train(config, tmp_path), whole.state)
    assert _equal(_restore(config, tmp_path), whole.state)
    lines = _figures(tmp_path)
    assert [x["step"] for x in lines] == [1, 2, 1, 2, 3, 4, 5, 4, 5, 6, 7, 7, 8]
    right = {line["step"]: line for line in _figures(whole.folder)}
    assert all(line == right[line["step"]] for line in lines)
    rates = [right[step]["learning_rate"] for step in range(1, 9)]
    starts = [json.loads(line)["step"] for line in (tmp_path / "environment.jsonl").open()]
    assert starts == [0, 0, 3, 6]
    assert len(set(rates)) > 2  # so that a schedule that starts afresh would show


@pytest.mark.slow
def test_a_longer_run_goes_on_where_a_shorter_or_stopped_one_ended(config, whole, tmp_path):
    config.optimizer.num_steps = 2
    assert int(train(config, tmp_path).step) == 2
    config.optimizer.num_steps = 8
    asked = []
    stopped = train(config, tmp_path, lambda: asked.append(None) or len(asked) == 3)
    assert int(stopped.step) == 5 and len(asked) == 3 and _saved(tmp_path) == ["3", "5"]
    assert _equal(train(config, tmp_path), whole.state)
    before = (tmp_path / JSON_LINES).read_text()
    assert _equal(train(config, tmp_path), whole.state)  # finished: stays as it is
    assert (tmp_path / JSON_LINES).read_text() == before and _saved(tmp_path) == ["6", "8"]


def test_the_seed_decides_and_only_the_first_process_writes_logs(config, monkeypatch, tmp_path):
    monkeypatch.setattr(loop.parallel, "process_index", lambda: 1)
    config.optimizer.num_steps, states = 0, []
    for config.seed in (3, 4):
        states.append(train(config, tmp_path / str(config.seed)))
        assert [p.name for p in (tmp_path / str(config.seed)).iterdir()] == ["checkpoints"]
    assert not _equal(states[0].params, states[1].params)


@pytest.mark.parametrize("change", [{"model.size": 3}, {"optimizer.ema_decay": 0.0}])
def test_a_folder_of_another_config_is_left_alone(config, whole, change):
    folder = whole.folder
    before = {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()}
    other = config.copy_and_resolve_references()
    other.update_from_flattened_dict(change | {"optimizer.num_steps": 12})
    with pytest.raises(UserError, match="holds a run of another config.*choose another --workdir"):
        train(other, folder)
    assert {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()} == before
    assert _equal(_restore(config, folder), whole.state)


@pytest.mark.slow
def test_a_run_that_diverges_keeps_the_last_good_checkpoint(config, tmp_path):
    """A loss is that of the parameters before its step, hence the norm of those after it is looked at."""
    config.optimizer.num_steps = 3
    good = train(config, tmp_path)
    config.optimizer.update(num_steps=4, learning_rate=float("inf"))
    with pytest.raises(UserError, match="parameters is not finite at step 4; the last good") as info:
        train(config, tmp_path)
    text = str(info.value)
    assert "\n" not in text and str(tmp_path / "checkpoints") in text and "learning_rate" in text
    assert _saved(tmp_path) == ["3"] and _equal(_restore(config, tmp_path), good)
    config.optimizer.learning_rate = 0.01
    state = train(config, tmp_path)
    assert int(state.step) == 4 and np.isfinite(state.params["hide"]["mix"]).all()


def test_a_cosine_is_logged_as_it_was_used(config, tmp_path):
    """Of the update that led to the step: two steps of warm-up, then a cosine over four."""
    config.optimizer.update(schedule="cosine", learning_rate=0.01, num_steps=6)
    config.train.log_every_steps = 2
    train(config, tmp_path)
    assert [line["learning_rate"] for line in _lines(tmp_path)] == pytest.approx(
        [0.005, 0.005 * (1 + np.cos(np.pi / 4)), 0.005 * (1 + np.cos(3 * np.pi / 4))], rel=1e-5
    )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"train.keep": 0}, r"config\.train\.keep must be at least 1"),
        ({"train.validate_every_steps": 0}, r"config\.train\.validate_every_steps must be at least 1"),
        ({"train.picture_every_steps": 0}, r"config\.train\.picture_every_steps must be at least 1"),
        ({"seed": -1}, r"config\.seed must be at least 0"),
        ({"optimizer.sparsity": 0.5, "optimizer.ema_decay": 0.9}, "sparsity needs ema_decay=0"),
    ],
)
def test_numbers_that_make_no_sense(config, tmp_path, change, words):
    with config.unlocked():
        config.update_from_flattened_dict(change)
    with pytest.raises(UserError, match=words):
        train(config, tmp_path)
    assert not any(tmp_path.iterdir())


def test_data_that_are_missing(config, tmp_path):
    config.data.path = str(tmp_path / "nowhere")
    with pytest.raises(UserError, match="nowhere"):
        train(config, tmp_path / "run")
