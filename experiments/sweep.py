"""Train every point of a grid of config values, each in a process of its own, and compare them.

    python -m experiments.sweep --config configs/video.py --data FOLDER \\
        --grid optimizer.learning_rate=1e-3,1e-2,1e-1 --grid model.classes=8,64 \\
        [--seeds 0,1,2] [--workers 2] [--steps 500] [--set data.height=64 data.width=64] \\
        [--metric secret_psnr_db] [--workdir runs/sweep]
    python -m experiments.sweep --workdir runs/sweep --table-only [--metric loss]

A point is one `python main.py --mode train` in WORKDIR/NAME, with what it printed in output.txt and its
settings in point.json. The same command again goes on: what is finished stays, the rest goes on from its
newest checkpoint. A further grid or further seeds in the same WORKDIR join the table. One point at a time has
all cores and the whole accelerator; --workers shares them, --scheduler tls://HOST:PORT takes other machines,
which must see the same folders (docs/LISTS.md).

Figures are those of training.jsonl. One that begins with `validation_` is read from the last line that has
it; every other is the mean over the last --last lines that have it, since single batches differ. What ends in
psnr_db, ssim or images_per_s is better when higher, all else when lower. Of several seeds the table shows
mean (lowest..highest). Writes WORKDIR/sweep.json, sweep.md and sweep.png, the metric over the steps.
"""

import argparse
import json
import math
import shlex
import subprocess
import sys
from functools import partial
from itertools import product
from pathlib import Path
from typing import NamedTuple

from absl import flags
from ml_collections import ConfigDict, config_flags

from deepsteg_jax import cluster
from deepsteg_jax.errors import UserError
from deepsteg_jax.plots import plt
from deepsteg_jax.training.logs import read_log
from experiments import common, tables
from experiments.entries import file_name

MAIN = common.ROOT / "main.py"
HIGHER_IS_BETTER = ("psnr_db", "ssim", "images_per_s")
SHOWN = ("loss", "stego_psnr_db", "secret_psnr_db")
COLUMNS = SHOWN + tuple(f"validation_{name}" for name in SHOWN)


class Point(NamedTuple):
    """One training of the sweep."""

    config: str  # path, with its variant
    base: dict[str, str]  # settings that all points share
    values: dict[str, str]  # its place in the grid
    seed: str
    num_steps: int

    @property
    def name(self) -> str:
        """A readable name of its folder."""
        return file_name(" ".join(f"{n}={v}" for n, v in (self.values | {"seed": self.seed}).items()))


# --- the grid -------------------------------------------------------------------------------------


def read_config(path: str, overrides: dict[str, str]) -> ConfigDict:
    """Read a config as main.py would from the same flags.

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
    return values.config


def assignments(texts: list[str]) -> dict[str, str]:
    """NAME=VALUE texts as a dict.

    Raises:
        UserError: one is no assignment, or names what another names.
    """
    found = {}
    for text in texts:
        name, _, value = text.partition("=")
        if not (name and value):
            raise UserError(f"{text}: give NAME=VALUE, for example optimizer.learning_rate=1e-3")
        if name in found:
            raise UserError(f"{text}: {name} is given twice")
        found[name] = value
    return found


def build_points(arguments: argparse.Namespace) -> list[Point]:
    """All points that the command line asks for.

    Raises:
        UserError: a name or value that the config does not know.
    """
    short = {"data.path": arguments.data, "optimizer.num_steps": arguments.steps}
    base = assignments(arguments.set + [f"{n}={v}" for n, v in short.items() if v is not None])
    grid = {name: values.split(",") for name, values in assignments(arguments.grid).items()}
    if both := base.keys() & grid.keys():
        raise UserError(f"{', '.join(both)}: given by --grid and for all points")
    seeds = (arguments.seeds or str(read_config(arguments.config, base).seed)).split(",")
    points = []
    for place, seed in product(product(*grid.values()), seeds):
        values = dict(zip(grid, place, strict=True))
        config = read_config(arguments.config, base | values | {"seed": seed})
        points.append(Point(arguments.config, base, values, seed, config.optimizer.num_steps))
    return points


# --- running --------------------------------------------------------------------------------------


def check_workdir(workdir: Path, points: list[Point]) -> None:
    """Refuse a folder whose points differ in what the table does not show.

    Raises:
        UserError: `workdir` holds such points.
    """
    here = (points[0].config, points[0].base)
    for path in workdir.glob("*/point.json"):
        known = json.loads(path.read_text())
        if (known["config"], known["base"]) != here:
            raise UserError(f"{path.parent} was run with other settings: choose another --workdir")


def run_point(main: Path, workdir: Path, point: Point) -> bool:
    """Train a point with main.py unless it is finished; return whether it is then."""
    folder = workdir / point.name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "point.json").write_text(json.dumps(point._asdict(), indent=1) + "\n")
    if last_step(read_log(folder)) < point.num_steps:
        overrides = point.base | point.values | {"seed": point.seed}
        command = [sys.executable, str(main), "--config", point.config, "--mode", "train", "--workdir"]
        command += [str(folder), *(f"--config.{name}={value}" for name, value in overrides.items())]
        print(f"{point.name}: started", flush=True)
        with (folder / "output.txt").open("a") as output:
            print("$", shlex.join(command), file=output, flush=True)
            subprocess.run(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, check=False)
    finished = last_step(read_log(folder)) >= point.num_steps
    print(f"{point.name}: {'finished' if finished else 'not finished, see its output.txt'}", flush=True)
    return finished


# --- results --------------------------------------------------------------------------------------


def last_step(log: list[dict]) -> int:
    """The last step that was trained; 0 before the first."""
    return max((line["step"] for line in log if "loss" in line), default=0)


def read_metric(log: list[dict], metric: str, last: int) -> float | None:
    """A metric by the rule in this file's head; None where no line has it or it is not finite."""
    values = [line[metric] for line in log if metric in line]
    values = values[-1:] if metric.startswith("validation_") else values[-last:]
    mean = sum(values) / len(values) if values else math.nan
    return mean if math.isfinite(mean) else None


def make_rows(workdir: Path, metric: str, last: int) -> list[dict]:
    """One row for each place of the grid, the best first, those with unfinished seeds at the end.

    Raises:
        UserError: there is no point.
    """
    places: dict[str, list[tuple[dict, list[dict]]]] = {}
    for path in sorted(workdir.glob("*/point.json")):
        point = json.loads(path.read_text())
        places.setdefault(json.dumps(point["values"]), []).append((point, read_log(path.parent)))
    if not places:
        raise UserError(f"{workdir} holds no point of a sweep")
    sign = -1 if metric.endswith(HIGHER_IS_BETTER) else 1
    rows = [make_row(runs, metric, last) for runs in places.values()]

    def order(row):
        figure = row["figures"].get(metric)
        return row["unfinished"] > 0, sign * figure["mean"] if figure else math.inf

    return sorted(rows, key=order)


def make_row(runs: list[tuple[dict, list[dict]]], metric: str, last: int) -> dict:
    """Figures of one place of the grid: `runs` are its points with their logs, one for each seed."""
    figures = {}
    for name in (metric, *COLUMNS):
        values = [x for _, log in runs if (x := read_metric(log, name, last)) is not None]
        if values:
            figures[name] = {"mean": sum(values) / len(values), "min": min(values), "max": max(values)}
    unfinished = sum(last_step(log) < point["num_steps"] for point, log in runs)
    return {"values": runs[0][0]["values"], "seeds": len(runs), "unfinished": unfinished, "figures": figures}


def markdown(rows: list[dict], metric: str) -> str:
    """The table: the metric first, then the usual figures that any run has."""
    names = [metric] + [n for n in COLUMNS if n != metric and any(n in row["figures"] for row in rows)]
    grid = list(dict.fromkeys(name for row in rows for name in row["values"]))
    lines = []
    for row in rows:
        cells = [row["values"].get(name, "-") for name in grid]
        cells += [_cell(name, row["figures"].get(name), row["seeds"]) for name in names]
        lines.append([*cells, row["seeds"], f"{row['unfinished']} unfinished" if row["unfinished"] else ""])
    return tables.table([*grid, *names, "seeds", ""], lines)


def _cell(name: str, figure: dict[str, float] | None, seeds: int) -> str:
    if figure is None:
        return "-"
    form = "{:.2f}" if name.endswith("_db") else "{:.4g}"
    mean, low, high = (form.format(figure[key]) for key in ("mean", "min", "max"))
    return f"{mean} ({low}..{high})" if seeds > 1 else mean


def draw(path: Path, workdir: Path, metric: str) -> None:
    """The metric over the steps, a line for each point."""
    figure, axis = plt.subplots(figsize=(8, 5), layout="constrained")
    for folder in sorted(found.parent for found in workdir.glob("*/point.json")):
        curve = [(line["step"], line[metric]) for line in read_log(folder) if metric in line]
        if curve:
            axis.plot(*zip(*curve, strict=True), marker=".", markersize=3, linewidth=1, label=folder.name)
    axis.set(xlabel="step", ylabel=metric)
    axis.legend(fontsize=7)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def report(workdir: Path, metric: str, last: int) -> str:
    """Write the three files and return the table."""
    rows = make_rows(workdir, metric, last)
    table = markdown(rows, metric)
    common.write_json(workdir / "sweep.json", {"metric": metric, "last": last, "rows": rows})
    (workdir / "sweep.md").write_text(f"{table}\n")
    draw(workdir / "sweep.png", workdir, metric)
    return table


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The command line; exits with 2 for a mistake in it."""
    parser = common.make_parser(__doc__)
    parser.add_argument("--config", help="for example configs/video.py; as for main.py")
    parser.add_argument("--data", help="config.data.path")
    parser.add_argument("--grid", action="append", default=[], metavar="NAME=VALUE,VALUE", help="repeatable")
    parser.add_argument("--seeds", metavar="SEED,SEED", help="config.seed; each point is run with each")
    parser.add_argument("--workers", type=int, default=0, help="points at a time, in processes")
    parser.add_argument("--scheduler", help="a Dask scheduler in their place, tls://HOST:PORT")
    parser.add_argument("--steps", type=int, help="config.optimizer.num_steps")
    parser.add_argument("--set", nargs="+", action="extend", default=[], metavar="NAME=VALUE", help="for all")
    parser.add_argument("--metric", default="secret_psnr_db", help="a name in training.jsonl")
    parser.add_argument("--last", type=int, default=5, help="lines that a training metric is averaged over")
    parser.add_argument("--workdir", type=Path, default=Path("runs/sweep"))
    parser.add_argument("--table-only", action="store_true", help="run nothing")
    arguments = parser.parse_args(argv)
    if not arguments.table_only and arguments.config is None:
        parser.error("--config is missing: for example --config configs/video.py")
    return arguments


def main(argv: list[str] | None = None) -> int:
    """Run the sweep and print its table; 1 if a point is not finished."""
    arguments, unfinished = parse(argv), 0
    if not arguments.table_only:
        points = build_points(arguments)
        check_workdir(arguments.workdir, points)
        train = partial(run_point, MAIN, arguments.workdir.absolute())
        for outcome in cluster.run(train, points, arguments.workers, arguments.scheduler):
            if outcome.error is not None:
                print(f"{points[outcome.number].name}: {outcome.error}", file=sys.stderr)
            unfinished += not outcome.result
    print(report(arguments.workdir, arguments.metric, arguments.last))
    return int(unfinished > 0)


if __name__ == "__main__":
    common.run(main)
