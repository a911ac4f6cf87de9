"""Trains every point of a grid of config values, each in a process of its own, and compares them.

    python experiments/sweep.py --config configs/video.py --data FOLDER \\
        --grid optimizer.learning_rate=1e-3,1e-2,1e-1 --grid model.classes=8,64 \\
        [--samples 4] [--seeds 0,1,2] [--processes 1] [--steps 500] [--set data.height=64 data.width=64] \\
        [--metric secret_psnr_db] [--workdir runs/sweep]
    python experiments/sweep.py --workdir runs/sweep --table-only [--metric loss]

A point is one `python main.py --mode train` in WORKDIR/NAME, with what it printed in output.txt and how it
ended in point.json. The same command again goes on: what is finished stays, what was interrupted or failed
is started again and goes on from its newest checkpoint. A further grid or further seeds in the same WORKDIR
join the table; other --set, --steps, --data or --config are refused. Ctrl-C and SIGTERM are passed on as
SIGTERM, upon which main.py saves and ends. Every process uses all cores and the whole accelerator, so
--processes above 1 pays only where one run leaves them idle.

Figures are those of training.jsonl. One that begins with `validation_` is read from the last line that has
it; every other is the mean over the last --last lines that have it, since single batches differ. What ends
in psnr_db, ssim or images_per_s is better when higher, all else when lower. Rows with several seeds show
the mean over those that did not fail, and (lowest..highest). Finished rows come first, best first; then
unfinished ones; then those of which any seed failed.

Writes WORKDIR/sweep.json, sweep.md and sweep.png. Exit code 0: every point is finished; 1: some are not;
2: a mistake in the command line, and nothing was run; 128 + signal: stopped.
"""

import argparse
import fcntl
import hashlib
import json
import math
import os
import random
import re
import shlex
import signal
import subprocess
import sys
import time
from itertools import product
from pathlib import Path
from typing import NamedTuple

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt  # noqa: E402
from absl import flags  # noqa: E402
from ml_collections import ConfigDict, config_flags  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from deepsteg_jax.errors import UserError  # noqa: E402
from deepsteg_jax.training.logs import read_log  # noqa: E402

MAIN = ROOT / "main.py"
POINT, OUTPUT = "point.json", "output.txt"
FINISHED, UNFINISHED, FAILED = "finished", "unfinished", "failed"
HIGHER_IS_BETTER = ("psnr_db", "ssim", "images_per_s")
SHOWN = ("loss", "stego_psnr_db", "secret_psnr_db")
COLUMNS = SHOWN + tuple(f"validation_{name}" for name in SHOWN)
LONGEST_NAME, LEGEND = 120, 12
POLL_SECONDS = 0.1


class Point(NamedTuple):
    """One training of the sweep."""

    config: str  # path, with its variant
    base: dict[str, str]  # settings that all points share
    values: dict[str, str]  # its place in the grid
    seed: str | None  # None: the seed is among the others
    num_steps: int

    @property
    def overrides(self) -> dict[str, str]:
        """All that differs from the config, by dotted name."""
        return self.base | self.values | ({} if self.seed is None else {"seed": self.seed})

    @property
    def name(self) -> str:
        """Readable, safe as a file name, and different for different points."""
        place = sorted(self.values.items()) + ([] if self.seed is None else [("seed", self.seed)])
        full = ",".join(f"{name}={value}" for name, value in place) or "config"
        safe = re.sub(r"[^A-Za-z0-9_.,=+-]+", "-", full)
        if safe == full and len(safe) <= LONGEST_NAME:
            return safe
        return f"{safe[:LONGEST_NAME]}-{hashlib.sha256(full.encode()).hexdigest()[:8]}"


# --- the grid -------------------------------------------------------------------------------------


def read_config(path: str, overrides: dict[str, str]) -> ConfigDict:
    """The config as main.py would read it from the same flags.

    Raises:
        UserError: there is no such file, name or value.
    """
    argv = ["main.py", f"--config={path}", *(f"--config.{name}={value}" for name, value in overrides.items())]
    values = flags.FlagValues()
    config_flags.DEFINE_config_file("config", None, lock_config=True, flag_values=values, sys_argv=argv)
    try:
        values(argv)
    except (AttributeError, KeyError):
        raise UserError(f"{path} has no such name") from None
    except Exception as error:  # a config file is a program and may raise anything
        raise UserError((str(error).strip().splitlines() or [repr(error)])[-1]) from None
    if not isinstance(values.config, ConfigDict):
        raise UserError(f"the config file {path!r} cannot be read")
    return values.config


def _canonical(path: str, base: dict[str, str], name: str, value: str) -> str:
    """The value as the config understands it: 1e-2 and 0.01 are one."""
    try:
        found = read_config(path, base | {name: value})
        for part in name.split("."):
            found = found[part]
    except (UserError, KeyError, TypeError) as error:
        raise UserError(f"{name}={value}: {error}") from None
    return found if isinstance(found, str) else repr(found)


def split_values(text: str) -> list[str]:
    """The values between the commas; a comma within brackets separates nothing."""
    parts, depth = [""], 0
    for letter in text:
        depth += (letter in "([{") - (letter in ")]}")
        if letter == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return [part.strip() for part in parts]


def _assignments(arguments: argparse.Namespace) -> tuple[dict[str, str], dict[str, str]]:
    """What --set, --data and --steps give, and what --grid and --seeds give; each name once."""
    given = [("--set", text) for text in arguments.set] + [("--grid", text) for text in arguments.grid]
    short = {"--data": "data.path", "--steps": "optimizer.num_steps", "--seeds": "seed"}
    for option, name in short.items():
        value = getattr(arguments, option.strip("-"))
        given += [] if value is None else [(option, f"{name}={value}")]
    base, grid = {}, {}
    for option, text in given:
        name, _, value = text.partition("=")
        if not (name and value):
            raise UserError(f"{option} {text}: it is NAME=VALUE, for example optimizer.learning_rate=1e-3")
        if name in base | grid:
            raise UserError(f"{option} {text}: {name} is given twice")
        (grid if option in ("--grid", "--seeds") else base)[name] = value
    return base, grid


def build_points(arguments: argparse.Namespace) -> list[Point]:
    """All points that the command line asks for.

    Raises:
        UserError: a name or value that the config does not know.
    """
    path = arguments.config
    base, grid = _assignments(arguments)
    config = read_config(path, {})
    base = {name: _canonical(path, {}, name, value) for name, value in base.items()}
    lists = {
        name: list(dict.fromkeys(_canonical(path, base, name, value) for value in split_values(values)))
        for name, values in grid.items()
    }
    by_seed = not any(text.startswith("seed=") for text in arguments.set + arguments.grid)
    seeds = lists.pop("seed", [str(config.seed)]) if by_seed else [None]
    places = [dict(zip(lists, values, strict=True)) for values in product(*lists.values())]
    if arguments.samples is not None and arguments.samples < len(places):
        places = random.Random(arguments.sample_seed).sample(places, arguments.samples)
    points = [Point(path, base, values, seed, 0) for values in places for seed in seeds]
    steps = [read_config(path, point.overrides).optimizer.num_steps for point in points]
    return [point._replace(num_steps=n) for point, n in zip(points, steps, strict=True)]


# --- running --------------------------------------------------------------------------------------


class Running(NamedTuple):
    """A point whose process is under way."""

    point: Point
    folder: Path
    process: subprocess.Popen
    offset: int  # where its output begins in output.txt


def read_points(workdir: Path) -> dict[str, dict]:
    """What point.json says, by the name of the folder."""
    return {path.parent.name: json.loads(path.read_text()) for path in sorted(workdir.glob(f"*/{POINT}"))}


def _write_point(folder: Path, point: Point, state: str, message: str = "") -> None:
    unfinished = folder / f"{POINT}.part"  # a kill in the middle of the write must leave nothing half
    unfinished.write_text(json.dumps(point._asdict() | {"state": state, "message": message}, indent=1) + "\n")
    unfinished.replace(folder / POINT)


def check_workdir(workdir: Path, points: list[Point]) -> None:
    """Points of other settings in one table would be compared by what it does not show.

    Raises:
        UserError: `workdir` holds such points.
    """
    for name, known in read_points(workdir).items():
        here = {"config": points[0].config} | points[0].base
        there = {"config": known["config"]} | known["base"]
        for key in sorted(here.keys() | there.keys()):
            if here.get(key) != there.get(key):
                raise UserError(
                    f"{workdir / name} was run with {key}={there.get(key, '(not set)')}, not "
                    f"{here.get(key, '(not set)')}: choose another --workdir"
                )


def start(point: Point, workdir: Path, shared: bool) -> Running | None:
    """Starts main.py on a point; None where a process of an earlier sweep still works on it."""
    folder = workdir / point.name
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, str(MAIN), "--config", point.config, "--mode", "train"]
    command += ["--workdir", str(folder)]
    command += [f"--config.{name}={value}" for name, value in point.overrides.items()]
    # Several processes on one accelerator: none may take most of its memory at once, as JAX does by itself.
    env = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"} | os.environ if shared else os.environ
    with (folder / OUTPUT).open("ab") as output:
        try:
            # The child inherits the lock, so it lasts as long as the child, even if the sweep is killed.
            fcntl.flock(output, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"{point.name}: another process is at work on it")
            return None
        output.write(f"$ {shlex.join(command)}\n".encode())
        output.flush()
        offset = output.tell()
        _write_point(folder, point, UNFINISHED)
        # In a session of its own: Ctrl-C goes to the whole group, and main.py would end without saving.
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=env, start_new_session=True
        )
    print(f"{point.name}: started", flush=True)
    return Running(point, folder, process, offset)


def last_line(text: str, code: int) -> str:
    """Why a run failed: main.py's own line, else the last it printed, with the signal that ended it."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    own = [line for line in lines if line.startswith("main.py: ")]
    line = (own or lines or ["no output"])[-1]
    return f"killed by signal {-code}: {line}" if code < 0 else line


def finish(running: Running, stopping: bool) -> str:
    """Notes how a process ended; returns the point's state."""
    code, point = running.process.returncode, running.point
    state, message = UNFINISHED, ""
    if code == 0 and last_step(read_log(running.folder)) >= point.num_steps:
        state = FINISHED
    elif code != 0 and not (stopping and code in (-signal.SIGTERM, 128 + signal.SIGTERM)):
        with (running.folder / OUTPUT).open("rb") as output:
            output.seek(running.offset)
            state, message = FAILED, last_line(output.read().decode(errors="replace"), code)
    _write_point(running.folder, point, state, message)
    print(f"{point.name}: {state}{message and ': '}{message}", flush=True)
    return state


def run_points(points: list[Point], workdir: Path, processes: int) -> tuple[bool, int]:
    """Runs what is not finished; returns whether all is finished now, and the signal that stopped it or 0."""
    received: list[int] = []
    before = {
        number: signal.signal(number, lambda number, _: received.append(number))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        complete = _run_until(points, workdir, processes, received)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return complete, received[0] if received else 0


def _run_until(points: list[Point], workdir: Path, processes: int, received: list[int]) -> bool:
    """`run_points` until all is done or `received` holds a signal; returns whether all is finished."""
    known = {name: found["state"] for name, found in read_points(workdir).items()}
    waiting = [point for point in points if known.get(point.name) != FINISHED]
    running: list[Running] = []
    complete, told = True, False
    while running or (waiting and not received):
        while waiting and len(running) < processes and not received:
            started = start(waiting.pop(0), workdir, processes > 1)
            complete &= started is not None
            running += [started] if started else []
        if received and not told:
            told = True
            for each in running:
                each.process.send_signal(signal.SIGTERM)
        for each in [each for each in running if each.process.poll() is not None]:
            running.remove(each)
            complete &= finish(each, bool(received)) == FINISHED
        time.sleep(POLL_SECONDS)
    return complete and not waiting


# --- results --------------------------------------------------------------------------------------


def last_step(log: list[dict]) -> int:
    """The last step that was trained; 0 before the first."""
    return max((line["step"] for line in log if "loss" in line), default=0)


def curve(log: list[dict], metric: str) -> list[tuple[int, float]]:
    """(step, value) of the lines that have the metric."""
    return [(line["step"], line[metric]) for line in log if metric in line]


def read_metric(log: list[dict], metric: str, last: int) -> float | None:
    """A metric by the rule in this file's head; None where no line has it or it is not finite."""
    values = [value for _, value in curve(log, metric)]
    values = values[-1:] if metric.startswith("validation_") else values[-last:]
    mean = sum(values) / len(values) if values else math.nan
    return mean if math.isfinite(mean) else None


def spread(values: list[float | None]) -> dict[str, float] | None:
    """Mean and range of what is there."""
    values = [value for value in values if value is not None]
    return {"mean": sum(values) / len(values), "min": min(values), "max": max(values)} if values else None


def make_row(runs: list[dict], last: int) -> dict:
    """One place of the grid: `runs` are its points with their logs, one for each seed."""
    failed = [run for run in runs if run["state"] == FAILED]
    good = [run for run in runs if run["state"] != FAILED]
    state, note = FINISHED, ""
    if failed:
        state, note = FAILED, f"{len(failed)} of {len(runs)} seeds failed: " if len(runs) > 1 else "failed: "
        note += failed[0]["message"]
    elif any(run["state"] == UNFINISHED for run in runs):
        state = UNFINISHED
        steps = [f"{last_step(run['log'])} of {run['num_steps']}" for run in runs if run["state"] == state]
        note = f"unfinished: step {', '.join(steps)}"
    names = sorted({name for run in good for line in run["log"] for name in line} - {"step"})
    figures = {name: spread([read_metric(run["log"], name, last) for run in good]) for name in names}
    row = {"values": runs[0]["values"], "state": state, "note": note, "figures": figures}
    return row | {"runs": {run["name"]: run["state"] for run in runs}, "seeds": len(runs)}


def make_rows(workdir: Path, metric: str, last: int) -> list[dict]:
    """The rows of the table, in its order."""
    places: dict[str, list[dict]] = {}
    for name, point in read_points(workdir).items():
        run = point | {"name": name, "log": read_log(workdir / name)}
        places.setdefault(json.dumps(point["values"], sort_keys=True), []).append(run)
    sign = -1 if metric.endswith(HIGHER_IS_BETTER) else 1

    def order(row):
        figure = row["figures"].get(metric)
        rank = (FINISHED, UNFINISHED, FAILED).index(row["state"])
        return rank, sign * figure["mean"] if figure else math.inf, str(row["values"])

    return sorted((make_row(runs, last) for runs in places.values()), key=order)


def _text(name: str, figure: dict[str, float] | None, seeds: int) -> str:
    if figure is None:
        return "-"
    form = "{:.2f}" if name.endswith("_db") else "{:.4g}"
    mean, low, high = (form.format(figure[key]) for key in ("mean", "min", "max"))
    return f"{mean} ({low}..{high})" if seeds > 1 else mean


def dimensions(rows: list[dict]) -> list[str]:
    """The names that the grid varies."""
    return list(dict.fromkeys(name for row in rows for name in row["values"]))


def markdown(rows: list[dict], metric: str) -> str:
    """The table: the metric first, then the usual figures that any run has."""
    names = [name for name in COLUMNS if name != metric and any(name in row["figures"] for row in rows)]
    grid = dimensions(rows)
    head = [*grid, metric, *names, "seeds", "state"]
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    for row in rows:
        cells = [row["values"].get(name, "-") for name in grid]
        cells += [_text(name, row["figures"].get(name), row["seeds"]) for name in (metric, *names)]
        cells += [str(row["seeds"]), row["note"] or row["state"]]
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines)


def _is_number(text: str | None) -> bool:
    try:
        return float(text) is not None
    except (TypeError, ValueError):
        return False


def numeric_dimension(rows: list[dict]) -> str | None:
    """The name of the grid whose values are numbers, at least two; None if there are several such or none."""
    found = []
    for name in dimensions(rows):
        values = {row["values"].get(name) for row in rows}
        found += [name] if len(values) > 1 and all(map(_is_number, values)) else []
    return found[0] if len(found) == 1 else None


def _draw_curves(axis, rows: list[dict], workdir: Path, metric: str) -> None:
    """One colour for each row, one line for each seed; the best rows are in the legend."""
    for number, row in enumerate(rows):
        label = ", ".join(f"{name.rpartition('.')[2]}={x}" for name, x in row["values"].items())
        colour = f"C{number % 10}" if number < LEGEND else "0.8"
        label = (label or "config") + ("" if row["state"] == FINISHED else f" ({row['state']})")
        for run in row["runs"]:
            points = curve(read_log(workdir / run), metric)
            style = {"color": colour, "linewidth": 1, "label": label if number < LEGEND else None}
            axis.plot(*zip(*points, strict=True), marker=".", markersize=3, **style) if points else None
            label = None
    axis.set(xlabel="step", ylabel=metric)
    if axis.get_legend_handles_labels()[0]:
        axis.legend(fontsize=7)


def _draw_values(axis, rows: list[dict], name: str, metric: str) -> None:
    """The metric against the numeric values of the grid, one line for each combination of the others."""
    lines: dict[str, list] = {}
    for row in rows:
        others = ", ".join(f"{key.rpartition('.')[2]}={x}" for key, x in row["values"].items() if key != name)
        figure = row["figures"].get(metric)
        if figure and row["state"] == FINISHED:
            lines.setdefault(others, []).append((float(row["values"][name]), *figure.values()))
    for others, points in lines.items():
        x, mean, low, high = zip(*sorted(points), strict=True)
        below, above = ([abs(a - b) for a, b in zip(mean, end, strict=True)] for end in (low, high))
        axis.errorbar(x, mean, (below, above), marker="o", linewidth=1, capsize=3, label=others or None)
    values = [point[0] for points in lines.values() for point in points]
    if values and min(values) > 0 and max(values) >= 8 * min(values):
        axis.set_xscale("log")
    axis.set(xlabel=name, ylabel=metric)
    if any(lines):
        axis.legend(fontsize=7)


def draw(path: Path, rows: list[dict], workdir: Path, metric: str) -> None:
    """The metric over the steps and, if the grid has one numeric dimension, over its values."""
    name = numeric_dimension(rows)
    figure, axes = plt.subplots(1, 2 if name else 1, figsize=(12 if name else 7, 4.5), squeeze=False)
    _draw_curves(axes[0, 0], rows, workdir, metric)
    if name:
        _draw_values(axes[0, 1], rows, name, metric)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def report(workdir: Path, metric: str, last: int) -> None:
    """Writes the three files and prints the table.

    Raises:
        UserError: there is no point, or none has the metric; nothing is written.
    """
    rows = make_rows(workdir, metric, last)
    if not rows:
        raise UserError(f"{workdir} holds no point of a sweep")
    known = sorted({name for row in rows for name in row["figures"]})
    if known and metric not in known:
        raise UserError(
            f"no run has the metric {metric!r}: --table-only --metric with one of {', '.join(known)}"
        )
    better = "higher" if metric.endswith(HIGHER_IS_BETTER) else "lower"
    rule = "last line" if metric.startswith("validation_") else f"mean of the last {last} lines"
    table = markdown(rows, metric)
    head = (
        f"Sorted by {metric}, {better} is better; {rule} of training.jsonl; of seeds mean (lowest..highest)."
    )
    found = {"metric": metric, "better": better, "last": last, "rows": rows}
    (workdir / "sweep.json").write_text(json.dumps(found, indent=1) + "\n")
    (workdir / "sweep.md").write_text(f"{head}\n\n{table}\n")
    draw(workdir / "sweep.png", rows, workdir, metric)
    print(f"\n{head}\n\n{table}")


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The command line; exits with 2 for a mistake in it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", help="for example configs/video.py; as for main.py")
    parser.add_argument("--data", help="config.data.path")
    parser.add_argument("--grid", action="append", default=[], metavar="NAME=VALUE,VALUE", help="repeatable")
    parser.add_argument("--samples", type=int, help="how many points of the grid, drawn at random; none: all")
    parser.add_argument("--sample_seed", type=int, default=0)
    parser.add_argument("--seeds", metavar="SEED,SEED", help="config.seed; each point is run with each")
    parser.add_argument("--processes", type=int, default=1, help="how many run at a time")
    parser.add_argument("--steps", type=int, help="config.optimizer.num_steps")
    parser.add_argument("--set", nargs="+", action="extend", default=[], metavar="NAME=VALUE", help="for all")
    parser.add_argument("--metric", default="secret_psnr_db", help="a name in training.jsonl")
    parser.add_argument("--last", type=int, default=5, help="lines that a training metric is averaged over")
    parser.add_argument("--workdir", type=Path, default=Path("runs/sweep"))
    parser.add_argument("--table-only", action="store_true", help="run nothing")
    arguments = parser.parse_args(argv)
    for name in ("samples", "processes", "steps", "last"):
        value = getattr(arguments, name)
        if value is not None and value < 1:
            parser.error(f"--{name} is at least 1, not {value}")
    if not arguments.table_only and arguments.config is None:
        parser.error("--config is missing: for example --config configs/video.py")
    return arguments


def main(argv: list[str] | None = None) -> int:
    """Runs the sweep; returns the exit code."""
    arguments = parse(argv)
    complete, received = True, 0
    if not arguments.table_only:
        try:
            points = build_points(arguments)
            check_workdir(arguments.workdir, points)
        except UserError as error:
            print(f"sweep.py: {error}", file=sys.stderr)
            return 2
        complete, received = run_points(points, arguments.workdir, arguments.processes)
    try:
        report(arguments.workdir, arguments.metric, arguments.last)
    except UserError as error:
        print(f"sweep.py: {error}", file=sys.stderr)
        complete = False
    return 128 + received if received else int(not complete)


if __name__ == "__main__":
    sys.exit(main())
