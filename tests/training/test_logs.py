"""What a training writes: JSON lines, TensorBoard, lines or a bar on the terminal; and what it times."""

import inspect
import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
from tensorboard.util import tensor_util

from deepsteg_jax.training import logs
from deepsteg_jax.training.logs import JSON_LINES, Log, Stopwatch, TrainingLog, read_log

VALUES = {"loss": 0.5, "stego_psnr_db": 48.25, "secret_psnr_db": 31.0, "learning_rate": 1e-3}


def _events(workdir):
    (path,) = (workdir / "tensorboard").iterdir()
    return [(e.step, v) for e in EventFileLoader(str(path)).Load() for v in e.summary.value]


def test_json_lines_are_on_disk_at_once_and_appended_to(tmp_path):
    for first in (0, 4):
        log = TrainingLog(tmp_path, first, 8)
        for step in (first + 2, first + 4):
            log.scalars(step, VALUES)
            last = (tmp_path / JSON_LINES).read_text().splitlines()[-1]
            assert json.loads(last) == {"step": step, **VALUES}
        log.close()
    assert [json.loads(line)["step"] for line in (tmp_path / JSON_LINES).open()] == [2, 4, 6, 8]


def test_half_a_line_of_a_killed_run_spoils_no_other(tmp_path):
    (tmp_path / JSON_LINES).write_text('{"step": 1}\n{"step": 2, "lo')
    log = TrainingLog(tmp_path, 1, 8)
    log.scalars(2, VALUES)
    log.close()
    assert [line["step"] for line in read_log(tmp_path)] == [1, 2]


def test_tensorboard_gets_every_scalar_and_the_picture(tmp_path):
    log = TrainingLog(tmp_path, 0, 8)
    log.scalars(3, VALUES)
    log.picture(4, np.zeros((8, 32, 3), np.uint8))
    log.close()
    found = {v.tag: (step, v) for step, v in _events(tmp_path)}
    for name, value in VALUES.items():
        step, event = found.pop(name)
        assert step == 3 and np.isclose(tensor_util.make_ndarray(event.tensor), value)
    ((name, (step, event)),) = found.items()
    assert step == 4 and "cover" in name and event.metadata.plugin_data.plugin_name == "images"


def test_without_a_terminal_every_log_is_one_line(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: False)
    log = TrainingLog(tmp_path, 0, 8)
    log.say("data: 3 clips")
    log.advance()
    log.scalars(1, VALUES | {"images_per_s": 12.5})
    log.scalars(1, {"validation_loss": 2.0, "validation_stego_psnr_db": 40.0})
    log.close()
    printed = capsys.readouterr()
    lines = (
        "data: 3 clips",
        "step 1 of 8: loss=0.5 stego_psnr_db=48.25 secret_psnr_db=31 images_per_s=12.5",
        "step 1 of 8: validation_loss=2 validation_stego_psnr_db=40",
    )
    assert printed.out.splitlines() == [*lines] and not printed.err


def test_the_time_left_is_that_of_the_steps_so_far_but_the_first(tmp_path, capsys, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(sys.stderr, "isatty", lambda: False)
    monkeypatch.setattr(logs, "time", SimpleNamespace(monotonic=lambda: now[0]))
    log = TrainingLog(tmp_path, 100, 1000)
    for seconds in (500, 4, 6):  # the first one compiles
        now[0] += seconds
        log.advance()
        log.scalars(1, VALUES)
    log.close()
    ends = [line.rpartition(", ")[2] for line in capsys.readouterr().out.splitlines()]
    assert ends[1:] == ["59:52 left", "1:14:45 left"] and "left" not in ends[0]


def test_on_a_terminal_there_is_a_bar_that_starts_where_the_run_goes_on(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    log = TrainingLog(tmp_path, 4, 8)
    log.advance()
    log.scalars(5, VALUES)
    log.close()
    printed = capsys.readouterr()
    assert "4/8" in printed.err and "5/8" in printed.err and "loss=0.5" in printed.err and not printed.out


def test_a_log_is_read_by_steps_with_training_and_validation_side_by_side(tmp_path):
    assert read_log(tmp_path) == []
    for first, loss in ((0, 0.5), (2, 0.25)):  # goes on from step 2: step 4 comes twice
        log = TrainingLog(tmp_path, first, 8)
        for step in (first + 2, 4):
            log.scalars(step, {"loss": loss})
            log.scalars(step, {"validation_loss": 2 * loss})
        log.close()
    with (tmp_path / JSON_LINES).open("a") as file:
        file.write('{"step": 6, "lo')  # of a process that was killed
    assert read_log(tmp_path) == [
        {"step": 2, "loss": 0.5, "validation_loss": 1.0},
        {"step": 4, "loss": 0.25, "validation_loss": 0.5},
    ]


def test_a_log_that_keeps_nothing_takes_what_a_log_takes(capsys):
    for name, method in inspect.getmembers(TrainingLog, inspect.isfunction):
        if not name.startswith("_"):
            assert inspect.signature(method) == inspect.signature(getattr(Log, name))
    log = Log()
    log.say("")
    log.advance()
    log.scalars(1, VALUES)
    log.picture(1, np.zeros((8, 32, 3), np.uint8))
    log.close()
    assert capsys.readouterr() == ("", "")


def test_the_stopwatch_gives_shares_of_the_time_without_validation(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(logs, "time", SimpleNamespace(monotonic=lambda: now[0]))

    def spend(part, seconds):
        with watch(part):
            now[0] += seconds

    watch = Stopwatch(10)
    for part, seconds in (("data", 1), ("validation", 50), ("save", 2), ("data", 3)):
        spend(part, seconds)
    now[0] += 2  # the rest
    found = watch.lap(14, images_per_step=6)
    assert found == pytest.approx({"images_per_s": 4 * 6 / 8, "data_wait": 4 / 8, "save_wait": 2 / 8})
    now[0] += 5
    found = watch.lap(15, images_per_step=6)
    assert found == pytest.approx({"images_per_s": 6 / 5, "data_wait": 0, "save_wait": 0})
