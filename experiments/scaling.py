"""How cost grows: counted for every model and frame size, on paper for GPUs, measured on this machine.

    python experiments/scaling.py --clips FOLDER [--input-speed FILE] [--only SECTION ...] [--models NAME ...]

Sections, each merged into experiments/results/scaling.json, model by model:

    costs    parameters, multiply-adds, bytes, memory between the passes; compiled, not run
    growth   the same against batch, frames in a group and classes
    steps    seconds of a training step against batch and frame size
    devices  one device against eight simulated ones, the same global batch
    saving   how long a checkpoint holds up the loop; needs --clips

--models restricts costs, growth and devices to some of the entries, and what is known of the others stays.
Then writes docs/scaling.png and the tables of docs/SCALING.md, between its marks (`--only` without a section
does only that). --input-speed is the JSON of experiments/input_speed.py; its figure is kept in scaling.json.

Times are of this machine: compare those of one run, on a quiet machine.
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
import scaling_report
from entries import Entry

from deepsteg_jax import costs, models
from deepsteg_jax.training import checkpoints
from deepsteg_jax.training.parallel import AXIS, parallelise
from deepsteg_jax.training.state import create_optimizer, create_state
from deepsteg_jax.training.step import compute_loss, example_keys, make_train_step

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "experiments/results/scaling.json"

ENTRIES = {
    "block_dct": Entry("video"),
    "block_dct, 2 layers": Entry("video", overrides={"model.depth": 2}),
    "block_dct, images": Entry("image"),
    "invertible": Entry("invertible"),
    "invertible:swap": Entry("invertible", "swap"),
    "prep_hide_reveal": Entry("prep_hide_reveal"),
}
SIZES = {"224x224": (224, 224), "448x256": (256, 448), "1920x1080": (1080, 1920), "3840x2160": (2160, 3840)}

# Of the comparison of devices: entry, global batch, frame side. The original at its 224 takes minutes a step.
DEVICE_CASES = {
    "block_dct": ("block_dct", 8, 128),
    "invertible": ("invertible", 8, 64),
    "invertible:swap": ("invertible:swap", 8, 64),
    "invertible:swap, larger batch": ("invertible:swap", 32, 64),
    "prep_hide_reveal": ("prep_hide_reveal", 8, 32),
}
TIMED_STEPS = 8


# --- counting ------------------------------------------------------------------------------------


def load(name: str, frames: int | None = None, **model):
    """The config of an entry, with `frames` in a group and other fields of its section `model`."""
    config = ENTRIES[name].load()
    config.model.update(model)
    if frames:
        config.model.frames = frames
    return config


def shapes(config, batch: int, height: int, width: int) -> dict[str, jax.ShapeDtypeStruct]:
    """A batch of training, as shapes."""
    frames = config.model.frames
    shape = (batch, height, width, 3) if frames == 1 else (batch, frames, height, width, 3)
    return {name: jax.ShapeDtypeStruct(shape, jnp.uint8) for name in ("cover", "secret")}


def make_step(config, axis_name=None):
    """(train_step, make_state) of a config."""
    model, optimizer = models.build(config.model), create_optimizer(config.optimizer)
    step = make_train_step(model, optimizer, config, jax.random.key(0), axis_name)
    return step, partial(create_state, model, optimizer)


def step_work(config, batch: int, height: int, width: int) -> costs.Work:
    """What one training step does, compiled and not run."""
    step, make_state = make_step(config)
    state = jax.eval_shape(make_state, jax.random.key(0))
    return costs.work(step, state, shapes(config, batch, height, width))


def loss_of(config):
    """loss(params, batch) of training, and the shapes of the parameters."""
    model = models.build(config.model)

    def loss(params, batch):
        keys = example_keys(jax.random.key(0), len(batch["cover"]), None)
        return compute_loss(model, config, params, batch, keys)[0]

    return loss, jax.eval_shape(model.init, jax.random.key(0))


VARIANTS = {
    "float32": {},
    "remat": {"remat": True},
    "bfloat16": {"dtype": "bfloat16"},
    "bfloat16 remat": {"dtype": "bfloat16", "remat": True},
}


def kept_bytes(config, height: int, width: int) -> dict[str, dict]:
    """Memory between the passes by variant.

    Returns:
        {variant: bytes that an `example` adds, those that remat computes `again` for it, and those that are
        `fixed`, as copies of parameters are}.
    """
    found = {}
    for name, fields in VARIANTS.items():
        if found and config.model.get("depth") == 0:  # no network, all variants are the same
            found[name] = found["float32"]
            continue
        changed = config.copy_and_resolve_references()
        changed.model.update(fields)
        loss, params = loss_of(changed)
        batches = [shapes(config, batch, height, width) for batch in (1, 2)]
        kept, kept_of_2 = (costs.kept_activations(loss, params, batch) for batch in batches)
        again, again_of_2 = (costs.computed_again(loss, params, batch) for batch in batches)
        found[name] = {
            "example": kept_of_2 - kept,
            "again": again_of_2 - again,
            "fixed": 2 * kept - kept_of_2 + 2 * again - again_of_2,
        }
    return found


def temporary_bytes(config) -> dict[str, float]:
    """What an example adds at 224x224 to the memory of the whole step, as compiled for this machine.

    A CPU's compiler undoes remat, so what it needs with remat is known only where no network is.
    """
    step, make_state = make_step(config)
    state = jax.eval_shape(make_state, jax.random.key(0))
    few, many = (
        costs.temporary_bytes(step, state, shapes(config, batch, *SIZES["224x224"])) for batch in (8, 16)
    )
    example = max(0.0, (many - few) / 8)
    known = VARIANTS if config.model.name == "block_dct" else ("float32",)
    return {name: example if name in known else 0 for name in VARIANTS}


def count_sizes(config) -> dict:
    """By size: multiply-adds of hide and reveal, what an example adds to a step; what is fixed in it."""
    model, frames = models.build(config.model), config.model.frames
    steps = {size: step_work(config, 1, *shape) for size, shape in SIZES.items()}
    size = "224x224"
    two = step_work(config, 2, *SIZES[size])
    fixed = costs.Work(*(max(0.0, 2 * a - b) for a, b in zip(steps[size], two, strict=True)))
    sizes = {
        size: {
            "gmac": costs.gmac_per_frame(model, frames, *shape),
            "step": steps[size].plus(fixed, -1)._asdict(),
        }
        for size, shape in SIZES.items()
    }
    return {"fixed": fixed._asdict(), "sizes": sizes}


def measure_costs(found: dict, save: Callable, names: list[str]) -> None:
    """The section `costs`: by model and frame size."""
    for name in names:
        config = load(name)
        loss, params = loss_of(config)
        found[name] = {
            "parameters": sum(costs.parameter_counts(models.build(config.model)).values()),
            "frames": config.model.frames,
            "rounds": costs.loop_rounds(loss, params, shapes(config, 1, 64, 64)),
            **count_sizes(config),
            "temporary": temporary_bytes(config),
            # Linear in pixels, to a millionth, and slow to trace: two sizes show it.
            "kept": {size: kept_bytes(config, *SIZES[size]) for size in list(SIZES)[:2]},
        }
        save()


def count_once(config, batch: int, side: int) -> dict:
    """A whole step on square frames: flops, bytes, memory, parameters."""
    loss, params = loss_of(config)
    done = step_work(config, batch, side, side)
    kept = costs.kept_activations(loss, params, shapes(config, batch, side, side))
    parameters = sum(costs.parameter_counts(models.build(config.model)).values())
    return {"flops": done.flops, "bytes": done.bytes, "kept": kept, "parameters": parameters}


def measure_growth(found: dict, save: Callable, names: list[str], side: int = 128) -> None:
    """The section `growth`: whole steps on 128x128, one thing changed at a time."""
    for name in [name for name in ("block_dct", "invertible", "prep_hide_reveal") if name in names]:
        found[name] = {
            "batch": {batch: count_once(load(name), batch, side) for batch in (1, 2, 4, 8)},
            "t": {t: count_once(load(name, frames=t), 1, side) for t in (1, 2, 4, 8)},
        }
        if name == "block_dct":
            classes = (16, 32, 64, 128)
            found[name]["K"] = {k: count_once(load(name, classes=k), 1, side) for k in classes}
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
    step, make_state = make_step(config, AXIS)
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
    for size, shape in {"64x64": (64, 64), "128x128": (128, 128), **dict(list(SIZES.items())[:2])}.items():
        found["size"][size] = statistics.median(time_steps(config, 1, *shape))
    save()


def run_devices(case: str, count: int) -> list[float]:
    """Seconds of the steps of a case in a process of its own with `count` simulated devices."""
    simulated = f"--xla_force_host_platform_device_count={count}"
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": simulated}
    command = [sys.executable, __file__, "--devices-of", case]
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def measure_devices(found: dict, save: Callable, names: list[str]) -> None:
    """The section `devices`: one device and eight in turn, twice, each in a fresh process."""
    for case, (name, batch, side) in DEVICE_CASES.items():
        if name not in names:
            continue
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
    command = [sys.executable, str(ROOT / "main.py"), "--config", str(ROOT / "configs/video.py")]
    command += ["--mode", "train", "--workdir", str(workdir), f"--config.data.path={clips.resolve()}"]
    command += [f"--config.optimizer.num_steps={steps}", f"--config.train.save_every_steps={every}"]
    command += [f"--config.train.log_every_steps={every}", "--config.train.picture_every_steps=100000"]
    subprocess.run(command, check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
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
            for i, name in enumerate(("block_dct", "invertible:swap", "prep_hide_reveal"))
        }
    save()


# --- all of it -----------------------------------------------------------------------------------


def read_input_speed(path: Path | None) -> float | None:
    """Images per second and core, at best of ImageNet at 224x224; None without a file or such a figure."""
    if path is None or not path.is_file():
        return None
    figures = json.loads(path.read_text())
    names = [name for name in figures if name.endswith("per_core")]
    for wanted in ("imagenet_224", "imagenet", ""):
        for name in names:
            if name.startswith(wanted) and figures[name]:
                return float(figures[name])
    return None


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    sections = ("costs", "growth", "steps", "devices", "saving")
    parser.add_argument("--clips", type=Path, help="folder of clips to train on, for the section saving")
    parser.add_argument("--input-speed", type=Path, help="JSON of experiments/input_speed.py")
    parser.add_argument("--only", nargs="*", choices=sections, default=sections)
    parser.add_argument("--models", nargs="+", choices=ENTRIES, default=list(ENTRIES))
    parser.add_argument("--devices-of", choices=DEVICE_CASES, help=argparse.SUPPRESS)
    return parser.parse_args()


def run_sections(arguments: argparse.Namespace, results: dict) -> None:
    """Measures what is asked for, into `results` and its file, part by part."""
    start = time.monotonic()

    def save(section):
        RESULTS.write_text(json.dumps(results, indent=1) + "\n")
        print(f"{time.monotonic() - start:.0f} s: {section}", flush=True)

    measures = {
        "costs": partial(measure_costs, names=arguments.models),
        "growth": partial(measure_growth, names=arguments.models),
        "steps": measure_steps,
        "devices": partial(measure_devices, names=arguments.models),
        "saving": partial(measure_saving, clips=arguments.clips),
    }
    for section in arguments.only:
        measures[section](results.setdefault(section, {}), partial(save, section))
    speed = read_input_speed(arguments.input_speed)
    if speed:
        results["input images per second and core"] = speed
        save("input speed")


def main() -> None:
    """Measures the sections, then writes the tables and the plot."""
    arguments = parse()
    if arguments.devices_of:
        name, batch, side = DEVICE_CASES[arguments.devices_of]
        config = load(name)
        config.shuffle.block_size = min(config.shuffle.block_size, side)
        print(json.dumps(time_steps(config, batch, side, side)))
        return
    if "saving" in arguments.only and not arguments.clips:
        sys.exit("scaling.py: the section saving needs --clips FOLDER")
    results = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
    run_sections(arguments, results)
    results = json.loads(json.dumps(results))  # with names as JSON has them
    for section in ("costs", "growth", "devices"):  # in one order, whatever was measured first
        found = results.get(section, {})
        results[section] = {name: found[name] for name in ENTRIES | DEVICE_CASES if name in found}
    scaling_report.write_tables(results, ROOT / "docs/SCALING.md")
    scaling_report.draw(results, ROOT / "docs/scaling.png")


if __name__ == "__main__":
    main()
