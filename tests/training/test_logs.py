"""What a training writes: JSON lines, TensorBoard, and lines or a bar on the terminal."""

import json
import sys

import numpy as np
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
from tensorboard.util import tensor_util

from deepsteg_jax.training.logs import JSON_LINES, TrainingLog

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
    log.advance()
    log.scalars(1, VALUES)
    log.close()
    printed = capsys.readouterr()
    assert printed.out == "step 1: loss=0.5 stego_psnr_db=48.25 secret_psnr_db=31\n" and not printed.err


def test_on_a_terminal_there_is_a_bar_that_starts_where_the_run_goes_on(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    log = TrainingLog(tmp_path, 4, 8)
    log.advance()
    log.scalars(5, VALUES)
    log.close()
    printed = capsys.readouterr()
    assert "4/8" in printed.err and "5/8" in printed.err and "loss=0.5" in printed.err and not printed.out
