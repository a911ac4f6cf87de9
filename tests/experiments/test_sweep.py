"""The sweep with a stand-in for main.py, and one real run."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deepsteg_jax.errors import UserError
from experiments import sweep
from tests.helpers import needs_dask

ROOT = Path(__file__).parents[2]
CONFIG = "configs/video.py:tiny"

# Takes main.py's flags; with 13 classes it fails, with 99 it stops halfway the first time.
STAND_IN = """
import json, sys
from pathlib import Path

flags = dict(x.removeprefix("--").split("=", 1) for x in sys.argv[1:] if "=" in x)
workdir = Path(sys.argv[sys.argv.index("--workdir") + 1])
classes, steps = int(flags.get("config.model.classes", 8)), int(flags["config.optimizer.num_steps"])
value = classes + float(flags["config.seed"]) / 4
resumed = (workdir / "training.jsonl").exists()
with (workdir / "calls.txt").open("a") as calls:
    print(*sys.argv[1:], file=calls)
if classes == 13:
    sys.exit("main.py: the loss is not finite at step 2")
for step in (1,) if classes == 99 and not resumed else (1, steps):
    with (workdir / "training.jsonl").open("a") as lines:
        print(json.dumps({"step": step, "loss": 100 - value, "secret_psnr_db": value}), file=lines)
"""

MAIN_WITH_TOY = f"""
import runpy
from deepsteg_jax import models
from tests.toy import build_toy

models.MODELS["toy"] = build_toy
runpy.run_path("{ROOT}/main.py", run_name="__main__")
"""


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs a sweep of 10 steps with the stand-in into tmp_path / sweep; returns the exit code."""
    (tmp_path / "stand_in.py").write_text(STAND_IN)
    monkeypatch.setattr(sweep, "MAIN", tmp_path / "stand_in.py")
    monkeypatch.chdir(ROOT)
    common = (f"--config={CONFIG}", "--data=clips", "--steps=10", f"--workdir={tmp_path / 'sweep'}")
    return lambda *options: sweep.main([*common, *options])


def calls(folder):
    path = folder / "calls.txt"
    return path.read_text().splitlines() if path.exists() else []


def table(workdir):
    lines = (workdir / "sweep.md").read_text().splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if "---" not in line]


@pytest.mark.slow
@needs_dask
def test_every_point_is_one_call_of_main_with_its_flags(run, tmp_path):
    grid = ["--grid=optimizer.learning_rate=1e-3,1e-2", "--grid=model.classes=8,16", "--seeds=0,1"]
    assert run(*grid, "--workers=1", "--set", "data.height=64", "data.width=96") == 0
    seen = set()
    for folder in (path.parent for path in (tmp_path / "sweep").glob("*/calls.txt")):
        (call,) = calls(folder)
        words = set(call.split())
        assert {"--config.data.height=64", "--config.data.width=96", "--config.data.path=clips"} <= words
        seen.add(frozenset(word for word in words if "rate" in word or "classes" in word or "seed" in word))
    assert len(seen) == 8
    head, best, *_, last = table(tmp_path / "sweep")
    assert head[:3] == ["optimizer.learning_rate", "model.classes", "secret_psnr_db"]
    assert best[1:3] == ["16", "16.12 (16.00..16.25)"] and last[1:3] == ["8", "8.12 (8.00..8.25)"]
    assert len(json.loads((tmp_path / "sweep/sweep.json").read_text())["results"]["rows"]) == 4
    with Image.open(tmp_path / "sweep/sweep.png") as image:
        assert len(image.convert("RGB").getcolors(1 << 24)) > 3  # something is drawn


def test_what_is_finished_stays_and_the_rest_goes_on(run, tmp_path):
    workdir = tmp_path / "sweep"
    assert run("--grid=model.classes=8,99,13") == 1
    assert [row[-1] for row in table(workdir)[1:]] == ["", "1 unfinished", "1 unfinished"]
    assert run("--grid=model.classes=8,99,13") == 1
    found = {folder.name: len(calls(folder)) for folder in workdir.iterdir() if folder.is_dir()}
    assert found == {"model_classes_8_seed_0": 1, "model_classes_99_seed_0": 2, "model_classes_13_seed_0": 2}
    assert "the loss is not finite" in (workdir / "model_classes_13_seed_0/output.txt").read_text()
    assert [row[-1] for row in table(workdir)[1:]] == ["", "", "1 unfinished"]


def test_points_of_other_settings_are_refused(run):
    assert run("--grid=model.classes=8") == 0
    with pytest.raises(UserError, match="other settings: choose another --workdir"):
        run("--grid=model.classes=20", "--set", "data.height=64")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--grid=model.classes"], "give NAME=VALUE"),
        (["--grid=model.classes=8", "--grid=model.classes=9"], "is given twice"),
        (["--grid=model.classes=8", "--set", "model.classes=9"], "given by --grid and for all"),
        (["--grid=model.clases=8"], "has no such name"),
        (["--grid=model.classes=many"], "many"),
    ],
)
def test_mistakes_in_the_grid(run, tmp_path, options, message):
    with pytest.raises(UserError, match=message):
        run(*options)
    assert not (tmp_path / "sweep").exists()


def test_metrics_are_read_by_their_rule():
    log = [{"step": i, "loss": x} for i, x in enumerate((9.0, 8.0, 1.0, 3.0), 1)]
    log += [{"step": 0, "validation_loss": 7.0}, {"step": 4, "validation_loss": 2.5}]
    assert sweep.read_metric(log, "loss", 2) == 2.0 and sweep.read_metric(log, "loss", 50) == 5.25
    assert sweep.read_metric(log, "validation_loss", 50) == 2.5
    assert sweep.read_metric(log, "ssim", 5) is None
    assert sweep.read_metric([{"step": 1, "loss": float("nan")}], "loss", 5) is None
    assert sweep.last_step(log) == 4


def test_a_folder_without_points(tmp_path):
    with pytest.raises(UserError, match="holds no point of a sweep"):
        sweep.main([f"--workdir={tmp_path}", "--table-only"])


@pytest.mark.slow
def test_a_real_sweep_of_one_point(image_folder, tmp_path, monkeypatch):
    (tmp_path / "main.py").write_text(MAIN_WITH_TOY)
    monkeypatch.setattr(sweep, "MAIN", tmp_path / "main.py")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    options = [f"--config={ROOT}/tests/toy.py", "--steps=2", f"--data={image_folder}"]
    options += [f"--workdir={tmp_path / 'sweep'}", "--grid=optimizer.learning_rate=0.01"]
    assert sweep.main([*options, "--set", "train.log_every_steps=1"]) == 0
    point = tmp_path / "sweep/optimizer_learning_rate_0_01_seed_3"
    assert "trained to step 2" in (point / "output.txt").read_text() and (point / "checkpoints/2").is_dir()
    lines = [json.loads(line) for line in (point / "training.jsonl").open()]
    mean = np.mean([line["secret_psnr_db"] for line in lines if "secret_psnr_db" in line])
    assert table(tmp_path / "sweep")[1][:2] == ["0.01", f"{mean:.2f}"]
