"""The sweep with a stand-in for main.py, the range test on a parabola, and one real run."""

import importlib
import json
import math
import os
import signal
import subprocess
import sys
import time
from itertools import count
from pathlib import Path
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image

from deepsteg_jax import models

ROOT = Path(__file__).parent.parent
EXPERIMENTS = ROOT / "experiments"
CONFIG = "configs/video.py:tiny"

# Takes main.py's flags; model.classes says what happens: 13 diverges, 99 waits for SIGTERM the first time.
STAND_IN = """
import json, signal, sys, time
from pathlib import Path

flags = dict(x.removeprefix("--").split("=", 1) for x in sys.argv[1:] if "=" in x)
workdir = Path(sys.argv[sys.argv.index("--workdir") + 1])
classes, steps = int(flags.get("config.model.classes", 8)), int(flags["config.optimizer.num_steps"])
value = classes + float(flags["config.seed"]) / 4
resumed = (workdir / "training.jsonl").exists()
with (workdir / "calls.txt").open("a") as calls:
    print(time.monotonic(), *sys.argv[1:], file=calls)

def log(**line):
    with (workdir / "training.jsonl").open("a") as lines:
        print(json.dumps(line), file=lines)

def stopped(*_):
    print("stopped and saved at step 1")
    sys.exit(0)

signal.signal(signal.SIGTERM, stopped)
log(step=1, loss=100 - value, secret_psnr_db=value)
if classes == 13:
    print("main.py: the loss is not finite at step 2", file=sys.stderr)
    print("a late note", file=sys.stderr)
    sys.exit(1)
if classes == 99 and not resumed:
    (workdir / "ready").touch()
    time.sleep(60)
    sys.exit(5)
time.sleep(float(flags.get("config.losses.stego", 0)))
log(step=steps, loss=100 - value, secret_psnr_db=value)
(workdir / "end.txt").write_text(str(time.monotonic()))
"""


@pytest.fixture(scope="module")
def sweep():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(EXPERIMENTS)
        yield importlib.import_module("sweep")


@pytest.fixture(scope="module")
def finder(sweep):
    return importlib.import_module("learning_rate_finder")


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for i, pixels in enumerate(np.random.default_rng(0).integers(0, 256, (5, 6, 6, 3), np.uint8)):
        Image.fromarray(pixels).resize((40, 40)).save(folder / f"{i}.png")
    return folder


@pytest.fixture
def stand_in(sweep, tmp_path, monkeypatch):
    path = tmp_path / "stand_in.py"
    path.write_text(STAND_IN)
    monkeypatch.setattr(sweep, "MAIN", path)
    monkeypatch.setattr(sweep, "POLL_SECONDS", 0.01)
    monkeypatch.chdir(ROOT)
    return path


@pytest.fixture
def run(sweep, stand_in, tmp_path):
    """Runs a sweep of 10 steps with the stand-in into tmp_path / sweep; returns the exit code."""

    def run(*options):
        folder = f"--workdir={tmp_path / 'sweep'}"
        return sweep.main([f"--config={CONFIG}", "--data=clips", "--steps=10", folder, *options])

    return run


def _calls(folder) -> list[list[str]]:
    path = folder / "calls.txt"
    return [line.split() for line in path.read_text().splitlines()] if path.exists() else []


def _states(workdir) -> dict[str, str]:
    return {p.parent.name: json.loads(p.read_text())["state"] for p in workdir.glob("*/point.json")}


def _table(workdir) -> list[list[str]]:
    lines = (workdir / "sweep.md").read_text().splitlines()
    return [line.strip("| ").split(" | ") for line in lines if line.startswith("| ")]


# --- the grid -------------------------------------------------------------------------------------


def test_every_point_is_one_call_of_main_with_its_flags(run, tmp_path):
    grid = ["--grid=optimizer.learning_rate=1e-3,0.01", "--grid=model.classes=8,16", "--seeds=0,1"]
    assert run(*grid, "--set", "data.height=64", "data.width=96") == 0
    folders = sorted(p.parent for p in (tmp_path / "sweep").glob("*/calls.txt"))
    assert len(folders) == 8
    names = [p.name for p in folders]
    assert names[0] == "model.classes=16,optimizer.learning_rate=0.001,seed=0"
    seen = set()
    for folder in folders:
        (call,) = _calls(folder)
        for flag in ("--config.data.height=64", "--config.data.width=96", "--config.data.path=clips"):
            assert flag in call
        assert "--config.optimizer.num_steps=10" in call and call[1:5] == [
            "--config",
            CONFIG,
            "--mode",
            "train",
        ]
        assert call[call.index("--workdir") + 1] == str(folder)
        varied = ("model.classes", "optimizer.learning_rate", "seed")
        place = sorted(
            flag[len("--config.") :] for flag in call if flag[len("--config.") :].startswith(varied)
        )
        assert ",".join(place) == folder.name
        seen.add(tuple(place))
    assert len(seen) == 8


@pytest.mark.parametrize(
    "options, line",
    [
        (["--grid=model.clases=8,64"], "model.clases=8: configs/video.py:tiny has no such name"),
        (["--grid=model.classes=8,many"], "model.classes=many: "),
        (["--grid=model.classes=8,"], "model.classes=: "),
        (["--grid=model=3"], "model=3: "),
        (["--grid=model.classes"], "it is NAME=VALUE"),
        (["--set", "data.flip=perhaps"], "data.flip=perhaps: "),
        (["--grid=model.classes=8", "--set", "model.classes=9"], "model.classes is given twice"),
        (["--set", "data.path=a"], "data.path is given twice"),
        (["--seeds=0,x"], "seed=x: "),
        (["--config=configs/none.py"], "'configs/none.py' cannot be read"),
        (["--config=configs/video.py:huge"], "not 'huge'"),
    ],
)
def test_a_mistake_is_one_line_before_anything_runs(run, tmp_path, capsys, options, line):
    assert run(*options) == 2
    printed = capsys.readouterr()
    assert line in printed.err and printed.err.count("\n") == 1 and printed.out == ""
    assert not (tmp_path / "sweep").exists()


def test_samples_are_a_seeded_part_of_the_grid(sweep, monkeypatch):
    monkeypatch.chdir(ROOT)
    grid = [
        f"--config={CONFIG}",
        "--grid=model.classes=1,2,3,4,5,6",
        "--grid=model.modulus=2,3,4,5",
        "--seeds=0,1",
    ]

    def drawn(*options):
        points = sweep.build_points(sweep.parse([*grid, *options]))
        return [tuple(p.values.values()) for p in points if p.seed == "0"], len(points)

    everything, total = drawn()
    some, few = drawn("--samples=7")
    assert total == 48 and few == 14 and len(set(some)) == 7 and set(some) < set(everything)
    assert drawn("--samples=7") == (some, few)
    assert drawn("--samples=7", "--sample_seed=1")[0] != some
    assert drawn("--samples=100") == (everything, total)


def test_names_are_safe_and_differ(sweep):
    def name(**values):
        return sweep.Point(CONFIG, {}, values, "0", 4).name

    names = [
        name(x="../a"),
        name(x="..-a"),
        name(x="a b"),
        name(x="(1, 2)"),
        name(x="y" * 400),
        name(x="y" * 401),
    ]
    assert len(set(names)) == len(names)
    assert all("/" not in n and " " not in n and len(n) < 200 for n in names)
    assert name(a="1", b="2") == name(b="2", a="1") == "a=1,b=2,seed=0"
    assert sweep.split_values("1, 2,(3,(4,5)),[6,7]") == ["1", "2", "(3,(4,5))", "[6,7]"]


def test_spellings_of_a_value_are_one_point(run, tmp_path):
    assert run("--grid=optimizer.learning_rate=1e-2,0.01,.01") == 0
    assert list(_states(tmp_path / "sweep")) == ["optimizer.learning_rate=0.01,seed=0"]


# --- running --------------------------------------------------------------------------------------


def test_a_point_that_fails_becomes_a_row_and_the_others_go_on(run, tmp_path):
    assert run("--grid=model.classes=8,13,20", "--seeds=0,1") == 1
    head, *rows = _table(tmp_path / "sweep")
    assert head[:2] == ["model.classes", "secret_psnr_db"]
    assert [row[:2] for row in rows] == [
        ["20", "20.12 (20.00..20.25)"],
        ["8", "8.12 (8.00..8.25)"],
        ["13", "-"],
    ]
    assert rows[0][-1] == rows[1][-1] == "finished"
    assert rows[2][-1] == "2 of 2 seeds failed: main.py: the loss is not finite at step 2"
    found = json.loads((tmp_path / "sweep/sweep.json").read_text())
    assert [row["state"] for row in found["rows"]] == ["finished", "finished", "failed"]


def test_finished_points_stay_and_the_others_go_on(run, tmp_path):
    workdir = tmp_path / "sweep"
    assert run("--grid=model.classes=8,13") == 1
    assert run("--grid=model.classes=8,13,20") == 1
    calls = {p.parent.name: len(_calls(p.parent)) for p in workdir.glob("*/calls.txt")}
    assert calls == {"model.classes=8,seed=0": 1, "model.classes=13,seed=0": 2, "model.classes=20,seed=0": 1}
    point = workdir / "model.classes=8,seed=0"
    point.joinpath("point.json").write_text(  # as a sweep leaves it that was killed
        point.joinpath("point.json").read_text().replace('"finished"', '"unfinished"')
    )
    assert run("--grid=model.classes=8") == 0
    assert len(_calls(point)) == 2 and _states(workdir)[point.name] == "finished"


def test_the_reason_is_that_of_the_last_attempt(run, stand_in, tmp_path):
    assert run("--grid=model.classes=13") == 1
    for ending, reason in (
        ("raise ValueError('a bug')", "failed: ValueError: a bug"),
        ("print('so far', flush=True); os.kill(os.getpid(), 9)", "failed: killed by signal 9: so far"),
        ("os._exit(1)", "failed: no output"),
    ):
        stand_in.write_text(f"import os\n{ending}\n")
        assert run("--grid=model.classes=13") == 1
        assert _table(tmp_path / "sweep")[1][-1] == reason


def test_a_run_that_ends_early_is_not_finished(run, stand_in, tmp_path):
    stand_in.write_text(STAND_IN.replace("log(step=steps", "log(step=steps - 1"))
    assert run("--grid=model.classes=8") == 1
    assert _states(tmp_path / "sweep") == {"model.classes=8,seed=0": "unfinished"}
    assert _table(tmp_path / "sweep")[1][-1] == "unfinished: step 9 of 10"


def test_points_of_other_settings_are_refused(run, tmp_path, capsys):
    assert run("--grid=model.classes=8") == 0
    assert run("--grid=model.classes=20", "--set", "data.height=64") == 2
    assert "was run with data.height=(not set), not 64: choose another" in capsys.readouterr().err
    assert list(_states(tmp_path / "sweep")) == ["model.classes=8,seed=0"]


@pytest.mark.parametrize("processes", [1, 2])
def test_as_many_processes_as_asked_for_at_a_time(run, tmp_path, processes):
    assert run("--grid=model.classes=1,2,3,4", f"--processes={processes}", "--set", "losses.stego=0.4") == 0
    events = []
    for folder in (p.parent for p in (tmp_path / "sweep").glob("*/calls.txt")):
        events += [(float(_calls(folder)[0][0]), 1), (float((folder / "end.txt").read_text()), -1)]
    assert max(np.cumsum([change for _, change in sorted(events)])) == processes


def _start(stand_in, workdir, *options):
    """A sweep in a process of its own, the leader of its group as under a terminal."""
    program = "import sys, sweep; sweep.MAIN = sys.argv.pop(1); sys.exit(sweep.main())"
    command = [
        sys.executable,
        "-c",
        program,
        str(stand_in),
        f"--config={CONFIG}",
        "--data=clips",
        "--steps=10",
    ]
    env = {**os.environ, "PYTHONPATH": str(EXPERIMENTS)}
    return subprocess.Popen(
        [*command, f"--workdir={workdir}", *options], cwd=ROOT, env=env, start_new_session=True
    )


def _wait_for(path, process):
    while not path.exists():
        assert process.poll() is None
        time.sleep(0.02)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_reaches_main_as_sigterm_and_the_sweep_goes_on_later(run, stand_in, tmp_path, number):
    workdir, options = tmp_path / "sweep", ("--grid=model.classes=99,8",)
    process = _start(stand_in, workdir, *options)
    point = workdir / "model.classes=99,seed=0"
    _wait_for(point / "ready", process)
    os.killpg(process.pid, number)  # Ctrl-C goes to the whole group
    assert process.wait() == 128 + number
    assert "stopped and saved at step 1" in (point / "output.txt").read_text()
    assert _states(workdir) == {point.name: "unfinished"}  # and the next one was not begun
    assert _table(workdir)[1][-1] == "unfinished: step 1 of 10"
    assert run(*options) == 0
    assert len(_calls(point)) == 2 and set(_states(workdir).values()) == {"finished"}


def test_a_point_whose_process_outlived_its_sweep_is_left_alone(run, stand_in, tmp_path, capsys):
    workdir, options = tmp_path / "sweep", ("--grid=model.classes=99",)
    process = _start(stand_in, workdir, *options)
    point = workdir / "model.classes=99,seed=0"
    _wait_for(point / "ready", process)
    (child,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    process.kill()
    process.wait()
    try:
        assert run(*options) == 1
        assert "another process is at work on it" in capsys.readouterr().out
        assert len(_calls(point)) == 1
    finally:
        os.kill(int(child), signal.SIGKILL)


# --- the table ------------------------------------------------------------------------------------


def _write_run(workdir, name, values, lines, state="finished", seed="0"):
    folder = workdir / name
    folder.mkdir(parents=True)
    point = {"config": CONFIG, "base": {}, "values": values, "seed": seed, "num_steps": 4, "state": state}
    (folder / "point.json").write_text(json.dumps(point | {"message": "main.py: a | b"}))
    (folder / "training.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def _log(*losses, **validation):
    """Training lines from step 1, and validation lines {step: loss}."""
    lines = [{"step": i, "loss": x, "secret_psnr_db": 10 * x} for i, x in enumerate(losses, 1)]
    return lines + [{"step": int(k[1:]), "validation_loss": x} for k, x in validation.items()]


def test_metrics_are_read_by_their_rule(sweep, tmp_path):
    lines = _log(9.0, 8.0, 1.0, 3.0, s0=7.0, s4=2.5)
    folder = _write_run(tmp_path, "a", {}, lines)
    log = sweep.read_log(folder)
    assert sweep.read_metric(log, "loss", 2) == 2.0 and sweep.read_metric(log, "loss", 3) == 4.0
    assert sweep.read_metric(log, "loss", 50) == 5.25
    assert sweep.read_metric(log, "validation_loss", 50) == 2.5
    assert sweep.read_metric(log, "ssim", 5) is None
    assert sweep.last_step(log) == 4
    with (folder / "training.jsonl").open(
        "a"
    ) as file:  # a resume logs step 4 again; a kill leaves half a line
        file.write('{"step": 4, "loss": 5.0}\n{"step": 5, "lo')
    log = sweep.read_log(folder)
    assert sweep.read_metric(log, "loss", 2) == 3.0 and sweep.read_metric(log, "validation_loss", 1) == 2.5
    assert sweep.read_metric([{"step": 1, "loss": math.nan}], "loss", 5) is None


def test_the_table_is_sorted_by_the_metric_with_mean_and_spread(sweep, tmp_path, capsys):
    for name, seed, loss in (("a0", "0", 1.0), ("a1", "1", 4.0), ("b0", "0", 2.0), ("b1", "1", 2.0)):
        _write_run(tmp_path, name, {"x": name[0]}, _log(loss, s1=-loss), seed=seed)
    _write_run(tmp_path, "c0", {"x": "c"}, _log(0.1), "unfinished")
    _write_run(tmp_path, "d0", {"x": "d"}, _log(0.0), "failed")
    _write_run(tmp_path, "d1", {"x": "d"}, _log(0.5), seed="1")
    rebuild = [f"--workdir={tmp_path}", "--table-only", "--metric"]
    assert sweep.main([*rebuild, "loss"]) == 0
    assert capsys.readouterr().out.rstrip().endswith((tmp_path / "sweep.md").read_text().rstrip())
    head, *rows = _table(tmp_path)
    assert head == ["x", "loss", "secret_psnr_db", "validation_loss", "seeds", "state"]
    assert [row[:2] for row in rows] == [
        ["b", "2 (2..2)"],
        ["a", "2.5 (1..4)"],
        ["c", "0.1"],
        ["d", "0.5 (0.5..0.5)"],
    ]
    assert rows[2][3:] == ["-", "1", "unfinished: step 1 of 4"]
    assert rows[3][-1] == "1 of 2 seeds failed: main.py: a \\| b"
    for metric, best in (("secret_psnr_db", "a"), ("validation_loss", "a")):
        assert sweep.main([*rebuild, metric]) == 0
        assert _table(tmp_path)[1][0] == best
    assert sweep.main([*rebuild, "ssmi"]) == 1
    assert "no run has the metric 'ssmi'" in capsys.readouterr().err
    assert _table(tmp_path)[0][1] == "validation_loss"  # as it was


def test_the_picture_has_a_second_panel_for_one_numeric_dimension(sweep, tmp_path):
    for x in ("0.001", "0.01", "0.1"):
        _write_run(tmp_path / "one", x, {"rate": x, "kind": "k"}, _log(float(x), 1.0))
        _write_run(tmp_path / "none", x, {"kind": f"k{x}"}, _log(float(x), 1.0))
    widths = {}
    for name in ("one", "none"):
        assert sweep.main([f"--workdir={tmp_path / name}", "--table-only", "--metric=loss"]) == 0
        with Image.open(tmp_path / name / "sweep.png") as image:
            widths[name] = image.width
            assert len(image.convert("RGB").getcolors(1 << 24)) > 3  # something is drawn
    assert widths["one"] > 1.5 * widths["none"]
    rows = [{"values": {"a": a, "b": b}} for a in ("1", "2") for b in ("1", "inf")]
    assert sweep.numeric_dimension(rows) is None and sweep.numeric_dimension(rows[::2]) == "a"


def test_a_folder_without_points(sweep, tmp_path, capsys):
    assert sweep.main([f"--workdir={tmp_path}", "--table-only"]) == 1
    assert "holds no point of a sweep" in capsys.readouterr().err


# --- the range test -------------------------------------------------------------------------------


class _State(NamedTuple):
    step: int
    w: float

    def replace(self, **changes):
        return self._replace(**changes)


def _parabola(finder, offset=0.0, noise=0.0, low=1e-4, high=100.0, steps=120, flat=False):
    """A range test of gradient descent on w^2, which diverges above the rate 1."""
    rates = [float(finder.rate_schedule(low, high, steps)(number)) for number in range(steps)]
    errors = np.random.default_rng(0).normal(0, noise, steps)

    def step(state, batch):
        loss = (0 if flat else state.w**2) + offset + errors[batch]
        return _State(state.step + 1, state.w - rates[state.step] * 2 * state.w), {"loss": loss}

    curve = finder.run_test(step, _State(0, 3.0), count(), rates, 0.9)
    return curve, finder.suggest(curve)


@pytest.mark.parametrize("offset, noise", [(0, 0), (0, 2), (-1000, 0), (-1000, 2), (1e6, 2)])
def test_rates_of_a_parabola(finder, offset, noise):
    curve, found = _parabola(finder, offset, noise)
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


def test_the_smoothed_change_is_a_bias_corrected_average(finder):
    curve = finder.Curve(50, 0.5)
    for loss in (4.0, 1.0, 3.0):
        curve.add(1e-3, loss, 2.0)
    assert curve.smoothed == pytest.approx([2, 0, 4 / 7])


@pytest.mark.parametrize("best, limit", [(-0.001, 15), (-10, 20)])
def test_divergence_is_a_matter_of_range(finder, best, limit):
    """Batches differ by 5 and nothing was won: 3 x 5 above it; 10 were won: 3 x 10 above the best."""
    curve = finder.Curve(100, 0.0)
    for i in range(20):
        curve.add(1e-3, best + 100 + 5 * (-1) ** i, 100 + 5 * (-1) ** i)
        assert not curve.diverged
    for change, diverged in ((limit - 0.1, False), (limit + 0.1, True)):
        curve.add(1e-3, 100 + change, 100)
        assert curve.diverged == diverged


def test_what_says_nothing_gives_no_rate(finder):
    curve, found = _parabola(finder, noise=2, high=0.1)
    assert not curve.diverged and len(curve.rates) == 120
    assert found["diverged_at"] is None and found["below_divergence"] is None
    assert found["steepest_descent"] is not None and "did not diverge up to 0.1" in finder.say(found, curve)
    curve, found = _parabola(finder, flat=True)
    assert found["steepest_descent"] is None and "none found" in finder.say(found, curve)


def test_a_loss_that_is_not_finite_ends_the_test(finder, tmp_path):
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


def test_the_real_training_step_with_growing_rates(finder, images, tmp_path, monkeypatch, capsys):
    config = importlib.import_module("configs.image").get_config("tiny")
    config.model = ConfigDict({"name": "toy", "frames": 1})
    config.shuffle.moves = "nothing"
    config.data.update(path=str(images), height=16, width=16)
    config.optimizer.schedule = "plateau"  # whose scale is no part of this test
    config.train.batch_size = 2
    monkeypatch.setitem(models.MODELS, "toy", _build_toy)
    monkeypatch.setattr(finder, "read_config", lambda *_: config)
    options = ["--config=toy", "--steps=50", "--low=1e-5", "--high=1e3", f"--output={tmp_path}"]
    assert finder.main(options) == 0
    found = json.loads((tmp_path / "learning_rate.json").read_text())
    steps = len(found["rates"])
    assert found["rates"] == pytest.approx([10 ** (8 * i / 49 - 5) for i in range(steps)], rel=1e-3)
    changes = np.subtract(found["losses"], found["untouched"])
    assert changes[0] == 0 and np.abs(changes[1:4]).max() < 0.01 and min(changes) < -1
    assert len(set(found["untouched"])) > 3  # batches do differ
    assert found["diverged_at"] == found["rates"][-1] and steps < 50
    assert f"diverged at {found['diverged_at']:.3g}" in capsys.readouterr().out
    assert (tmp_path / "learning_rate.png").stat().st_size > 1000


# --- for real -------------------------------------------------------------------------------------


def test_a_real_sweep_of_one_point(images, tmp_path):
    options = [
        "--config=configs/image.py:tiny",
        f"--data={images}",
        "--steps=2",
        f"--workdir={tmp_path / 'sweep'}",
    ]
    options += ["--grid=optimizer.learning_rate=0.01", "--set", "data.height=16", "data.width=16"]
    env = {**os.environ, "JAX_PLATFORMS": "cpu", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    env |= {"JAX_COMPILATION_CACHE_DIR": str(tmp_path / "cache")}
    command = [sys.executable, "experiments/sweep.py", *options, "train.batch_size=2"]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stdout + done.stderr
    point = tmp_path / "sweep/optimizer.learning_rate=0.01,seed=0"
    assert "trained to step 2" in (point / "output.txt").read_text()
    assert (point / "checkpoints/2").is_dir()
    lines = [json.loads(line) for line in (point / "training.jsonl").open()]
    mean = np.mean([line["secret_psnr_db"] for line in lines if "secret_psnr_db" in line])
    _, row = _table(tmp_path / "sweep")
    assert row[:2] == ["0.01", f"{mean:.2f}"] and row[-1] == "finished"
