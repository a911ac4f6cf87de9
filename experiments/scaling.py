"""Count what models cost by frame size, and measure training on this machine.

    python -m experiments.scaling --clips FOLDER [--only SECTION ...]

Sections, each merged into experiments/results/scaling.json:

    costs    parameters, multiply-adds, memory between the passes; compiled, not run
    steps    seconds of a training step against batch and frame size
    devices  one device against eight simulated ones, the same global batch
    saving   how long a checkpoint holds up the loop; needs --clips

`python -m experiments.tables` writes them to docs/SCALING.md. Times are of this machine: compare those of one
run, on a quiet machine.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from deepsteg_jax import costs, models
from deepsteg_jax.errors import UserError
from deepsteg_jax.training import checkpoints
from deepsteg_jax.training.objective import choose_objective
from deepsteg_jax.training.parallel import parallelise
from deepsteg_jax.training.state import create_optimizer, create_state
from deepsteg_jax.training.step import example_keys, make_train_step
from experiments import common
from experiments.entries import Entry

RESULTS = common.RESULTS / "scaling.json"

ENTRIES = {
    "block_dct": Entry("video"),
    "block_dct, 2 layers": Entry("video", overrides={"model.depth": 2}),
    "block_dct, images": Entry("image"),
    "invertible": Entry("invertible"),
    "invertible:identity": Entry("invertible", "identity"),
    "prep_hide_reveal": Entry("prep_hide_reveal"),
}
SIZES = {"224x224": (224, 224), "448x256": (256, 448)}

# Of the comparison of devices: entry, global batch, frame side. The original at its 224 takes minutes a step.
DEVICE_CASES = {
    "block_dct": ("block_dct", 8, 128),
    "invertible": ("invertible", 8, 64),
    "invertible:identity": ("invertible:identity", 8, 64),
    "prep_hide_reveal": ("prep_hide_reveal", 8, 32),
}
TIMED_STEPS = 8


# --- counting ------------------------------------------------------------------------------------


def load(name: str):
    """The config of an entry."""
    return ENTRIES[name].load()


def shapes(config, batch: int, height: int, width: int) -> dict[str, jax.ShapeDtypeStruct]:
    """A batch of training, as shapes."""
    frames = config.model.frames
    shape = (batch, height, width, 3) if frames == 1 else (batch, frames, height, width, 3)
    return {name: jax.ShapeDtypeStruct(shape, jnp.uint8) for name in ("cover", "secret")}


def make_step(config):
    """(train_step, make_state) of a config."""
    model, optimizer = models.build(config.model), create_optimizer(config.optimizer)
    step = make_train_step(model, optimizer, config, jax.random.key(0))
    return step, partial(create_state, model, optimizer)


def loss_of(config):
    """loss(params, batch) of training, and the shapes of the parameters."""
    model = models.build(config.model)

    def loss(params, batch):
        keys = example_keys(jax.random.key(0), len(batch["cover"]))
        return choose_objective(model, config).loss(params, batch, keys)[0]

    return loss, jax.eval_shape(model.init, jax.random.key(0))


def count_size(config, height: int, width: int) -> dict:
    """Multiply-adds of hide and reveal per frame; of an example, those of a step and what it keeps, in MB."""
    model, frames = models.build(config.model), config.model.frames
    step, make_state = make_step(config)
    state = jax.eval_shape(make_state, jax.random.key(0))
    one, two = (costs.flops(step, state, shapes(config, batch, height, width)) for batch in (1, 2))
    found = {"gmac": costs.gmac_per_frame(model, frames, height, width), "step_gflop": (two - one) / 1e9}
    found["kept_mb"] = {"float32": kept_megabytes(config, height, width)}
    if "remat" in config.model:
        config = config.copy_and_resolve_references()
        config.model.remat = True
    found["kept_mb"]["remat"] = kept_megabytes(config, height, width)
    return found


def kept_megabytes(config, height: int, width: int) -> float:
    """Memory between the passes that an example adds."""
    loss, params = loss_of(config)
    one, two = (
        costs.kept_activations(loss, params, shapes(config, batch, height, width)) for batch in (1, 2)
    )
    return (two - one) / 1e6


def measure_costs(found: dict, save: Callable) -> None:
    """The section `costs`: by model and frame size."""
    for name in ENTRIES:
        config = load(name)
        found[name] = {
            "parameters": sum(costs.parameter_counts(models.build(config.model)).values()),
            "frames": config.model.frames,
            "sizes": {size: count_size(config, *shape) for size, shape in SIZES.items()},
        }
        save()


# --- measuring -----------------------------------------------------------------------------------


def pictures(config, batch: int, height: int, width: int) -> dict[str, np.ndarray]:
    """Random pictures; their noise makes no step cheaper or dearer."""
    generator = np.random.default_rng(0)
    return {
        name: generator.integers(0, 256, x.shape, np.uint8)
        for name, x in shapes(config, batch, height, width).items()
    }


def time_steps(config, batch: int, height: int, width: int, count: int = TIMED_STEPS) -> list[float]:
    """Seconds of `count` training steps on all devices, after two that do not count."""
    step, make_state = make_step(config)
    state, run = make_state(jax.random.key(0)), parallelise(step)
    data, seconds = pictures(config, batch, height, width), []
    for _ in range(count + 2):
        start = time.monotonic()
        state, logs = run(state, data)
        jax.block_until_ready((state, logs))
        seconds.append(time.monotonic() - start)
    return seconds[2:]


def measure_steps(found: dict, save: Callable) -> None:
    """The section `steps`: seconds of a step of block_dct."""
    config = load("block_dct")
    found.update(batch={}, size={})
    for batch in (1, 2, 4, 8, 16):
        found["batch"][batch] = statistics.median(time_steps(config, batch, 128, 128))
    for size, shape in {"64x64": (64, 64), "128x128": (128, 128), **SIZES}.items():
        found["size"][size] = statistics.median(time_steps(config, 1, *shape))
    save()


def run_devices(case: str, count: int) -> list[float]:
    """Seconds of the steps of a case in a process of its own with `count` simulated devices."""
    simulated = f"--xla_force_host_platform_device_count={count}"
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": simulated}
    command = [sys.executable, "-m", "experiments.scaling", "--devices-of", case]
    done = subprocess.run(
        command, cwd=common.ROOT, env=environment, check=True, capture_output=True, text=True
    )
    return json.loads(done.stdout.splitlines()[-1])


def measure_devices(found: dict, save: Callable) -> None:
    """The section `devices`: one device and eight in turn, twice, each in a fresh process."""
    for case, (_, batch, side) in DEVICE_CASES.items():
        runs = {1: [], 8: []}
        for count in (1, 8, 1, 8):
            runs[count].append(run_devices(case, count))
        found[case] = {
            "batch": batch,
            "side": side,
            "medians": {count: [statistics.median(run) for run in both] for count, both in runs.items()},
            **{f"seconds {count}": statistics.median(sum(both, [])) for count, both in runs.items()},
        }
        save()


def time_saves(name: str, folder: Path) -> dict:
    """Seconds for which `checkpoints.save` holds up its caller, the last one finished; and what it saves."""
    config = load(name)
    _, make_state = make_step(config)
    state, seconds = make_state(jax.random.key(0)), []
    with checkpoints.open_manager(folder) as manager:
        for step in range(1, 7):
            state = state.replace(step=jnp.asarray(step, jnp.int32))
            start = time.monotonic()
            checkpoints.save(manager, state, config)
            seconds.append(time.monotonic() - start)
            manager.wait_until_finished()
    return {"seconds": statistics.median(seconds[1:]), "bytes": costs.tree_bytes(state)}


def train_shortly(clips: Path, workdir: Path, steps: int = 200, every: int = 100) -> dict:
    """Trains configs/video.py and returns its last line of the log, whose window holds one save."""
    command = [
        sys.executable,
        str(common.ROOT / "main.py"),
        "--config",
        str(common.ROOT / "configs/video.py"),
    ]
    command += ["--mode", "train", "--workdir", str(workdir), f"--config.data.path={clips.resolve()}"]
    command += [f"--config.optimizer.num_steps={steps}", f"--config.train.save_every_steps={every}"]
    command += [f"--config.train.log_every_steps={every}", "--config.train.picture_every_steps=100000"]
    subprocess.run(command, check=True, cwd=common.ROOT, stdout=subprocess.DEVNULL)
    return json.loads((workdir / "training.jsonl").read_text().splitlines()[-1])


def measure_saving(found: dict, save: Callable, clips: Path) -> None:
    """The section `saving`: the loop's own account of it, and single saves."""
    with tempfile.TemporaryDirectory() as folder:
        line = train_shortly(clips, Path(folder) / "run")
        found["run"] = {name: line[name] for name in ("step", "images_per_s", "data_wait", "save_wait")}
        config = load("block_dct")
        seconds = config.train.batch_size * config.model.frames / line["images_per_s"]
        found["run"]["seconds per step"] = seconds
        found["saves"] = {
            name: time_saves(name, Path(folder) / str(i))
            for i, name in enumerate(("block_dct", "invertible", "prep_hide_reveal"))
        }
    save()


# --- all of it -----------------------------------------------------------------------------------


def parse() -> argparse.Namespace:
    """The command line."""
    parser = common.make_parser(__doc__)
    sections = ("costs", "steps", "devices", "saving")
    parser.add_argument("--clips", type=Path, help="folder of clips to train on, for the section saving")
    parser.add_argument("--only", nargs="+", choices=sections, default=sections)
    parser.add_argument("--devices-of", choices=DEVICE_CASES, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    """Measure the sections, part by part into the file of results."""
    arguments = parse()
    if arguments.devices_of:
        name, batch, side = DEVICE_CASES[arguments.devices_of]
        config = load(name)
        config.shuffle.block_size = min(config.shuffle.block_size, side)
        print(json.dumps(time_steps(config, batch, side, side)))
        return
    if "saving" in arguments.only and not arguments.clips:
        raise UserError("the section saving needs --clips FOLDER")
    measures = {
        "costs": measure_costs,
        "steps": measure_steps,
        "devices": measure_devices,
        "saving": partial(measure_saving, clips=arguments.clips),
    }
    results = common.read_json(RESULTS, {})
    for section in arguments.only:
        save = partial(common.write_json, RESULTS, results)
        measures[section](results.setdefault(section, {}), save)


if __name__ == "__main__":
    common.run(main)
