"""Speed and memory of hide and reveal, or of training, all in one run.

    python -m experiments.speed [--width 448] [--height 256] [--workdir runs/speed]
    python -m experiments.speed --memory [--width 320] [--height 240] [--workdir runs/speed]
    XLA_FLAGS=--xla_force_host_platform_device_count=2 \\
        python -m experiments.speed --train [--only invertible] [--side 64 --batch 4] [--workdir runs/speed]

The first measures, in frames per second: the bare compiled hide and reveal, as many calls at a time as the
pipelines make; every stage of these alone (decode cover, decode secret, hide, encode stego; decode stego,
reveal, encode revealed); and the whole pipelines, file to file. Then the peak memory of a process that hides
and reveals 100 frames, and of one for 1,000. The clips are made of a sample clip, played back and forth, so
no data are needed. Writes speed.json and prints the table.

The second measures only the memory, for 100 and for 10,000 frames, and writes memory.json.

The third measures, for the learned entries of the benchmark, the compiled training step on random pictures
against a product of two 2048x2048 float32 matrices on the same cores, on one device and on all that XLA_FLAGS
simulates: XLA gives most convolutions one core, so that a device for each core keeps them busy. Seconds are
those of a clock and of the processors. Writes train_speed.json.

Machines are noisy: compare figures of one run only.
"""

import argparse
import re
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from deepsteg_jax import costs, loading, media, models, pipeline, sample_clips
from deepsteg_jax.schemes.runner import Runner
from deepsteg_jax.training.parallel import parallelise
from deepsteg_jax.training.state import create_optimizer, create_state
from deepsteg_jax.training.step import make_train_step
from experiments import common
from experiments.entries import ENTRIES

REPEATS = 3


def make_clip(path: Path, sample: str, frames: int, width: int, height: int) -> Path:
    """Writes `frames` frames of a sample clip, forwards and backwards in turn."""
    source = list(media.read_frames(sample_clips.resolve(sample), stop=100, width=width, height=height))
    media.write_frames(path, common.to_and_fro(source, frames))
    return path


def rate(work, frames: int) -> float:
    """Frames per second of the fastest of a few runs."""
    return max(frames / elapsed(work) for _ in range(REPEATS))


def elapsed(work) -> float:
    """Seconds of one run."""
    start = time.monotonic()
    work()
    return time.monotonic() - start


def drain(path: Path) -> None:
    """Decodes a clip and drops it."""
    for _ in media.read_frames(path):
        pass


def bare(run, group: int, *streams: list[np.ndarray]) -> None:
    """Runs the compiled graph over frames in memory."""
    runner = Runner(run, np.zeros(8, np.uint32), group, *streams[0][0].shape[:2])
    for frames in zip(*streams, strict=True):
        runner.take(None, frames)
    runner.finish()
    runner.close()


def measure_speed(config, folder: Path, frames: int, width: int, height: int) -> dict[str, float]:
    """Frames per second of the stages and of the pipelines."""
    cover = make_clip(folder / "cover.mkv", "sample:bikes.mp4", frames, width, height)
    secret = make_clip(folder / "secret.mkv", "sample:bigbuckbunny.mp4", frames, width, height)
    stego, revealed = folder / "stego.mkv", folder / "revealed.mkv"
    scheme = loading.load(config)
    codec = scheme.codec()
    quiet = lambda count: None  # noqa: E731
    whole = {"hide": 0.0, "reveal": 0.0}
    for _ in range(REPEATS):
        whole["hide"] = max(whole["hide"], pipeline.hide(scheme, "speed", cover, secret, stego, quiet).fps)
        whole["reveal"] = max(whole["reveal"], pipeline.reveal([scheme], "speed", stego, revealed, quiet).fps)
    covers, secrets, stegos = (list(media.read_frames(path)) for path in (cover, secret, stego))
    group = config.model.frames
    hide, reveal = partial(codec.hide, scheme.hide_params), partial(codec.reveal, scheme.reveal_params)
    usable = frames // group * group
    covers, secrets, stegos = covers[:usable], secrets[:usable], stegos[:usable]
    stages = {
        "decode cover": rate(lambda: drain(cover), frames),
        "decode secret": rate(lambda: drain(secret), frames),
        "bare hide": rate(lambda: bare(hide, group, covers, secrets), usable),
        "encode stego": rate(lambda: media.write_frames(folder / "again.mkv", stegos), usable),
        "decode stego": rate(lambda: drain(stego), frames),
        "bare reveal": rate(lambda: bare(reveal, group, stegos), usable),
        "encode revealed": rate(lambda: media.write_frames(folder / "again.mkv", secrets), usable),
    }
    slowest = {
        "hide": min(list(stages.values())[:4]),
        "reveal": min(list(stages.values())[4:]),
    }
    return {
        **stages,
        **{f"file to file {side}": fps for side, fps in whole.items()},
        **{f"{side} pipeline / slowest stage": whole[side] / slowest[side] for side in whole},
    }


def peak_memory_mib(folder: Path, frames: int, width: int, height: int) -> float:
    """Peak memory of a fresh process that hides and reveals `frames` frames."""
    command = [
        sys.executable,
        "-m",
        "experiments.speed",
        "--memory-of",
        str(frames),
        "--workdir",
        str(folder.resolve()),
    ]
    command += ["--width", str(width), "--height", str(height)]
    done = subprocess.run(command, check=True, cwd=common.ROOT, capture_output=True, text=True)
    return float(done.stdout.split()[-1])


def memory_child(config, folder: Path, frames: int) -> None:
    """Hides and reveals, then prints this process's peak memory in MiB, as Linux counts it."""
    quiet = lambda count: None  # noqa: E731
    paths = [folder / f"{name}{frames}.mkv" for name in ("cover", "secret", "stego", "revealed")]
    scheme = loading.load(config)
    pipeline.hide(scheme, "speed", *paths[:3], quiet)
    pipeline.reveal([scheme], "speed", *paths[2:], quiet)
    status = Path("/proc/self/status").read_text()
    print(int(re.search(r"VmHWM:\s*(\d+) kB", status)[1]) / 1024)


def both_clocks(work) -> tuple[float, float]:
    """Seconds of one run, and those of all processors together."""
    start, busy = time.monotonic(), time.process_time()
    jax.block_until_ready(work())
    return time.monotonic() - start, time.process_time() - busy


def measure_step(config) -> dict[str, float]:
    """The training step: arithmetic done, seconds and rate, beside a matrix product's; all in turn."""
    model, optimizer = models.build(config.model), create_optimizer(config.optimizer)
    state = create_state(model, optimizer, jax.random.key(0))
    step = make_train_step(model, optimizer, config, jax.random.key(0))
    shape = (config.train.batch_size, config.model.frames, config.data.height, config.data.width, 3)
    shape = shape if config.model.frames > 1 else (shape[0], *shape[2:])
    batch = {name: np.random.default_rng(0).integers(0, 256, shape, np.uint8) for name in ("cover", "secret")}
    gflop, devices = costs.flops(step, state, batch) / 1e9, jax.local_device_count()
    square = jnp.ones((2048, 2048))
    product, compiled = jax.jit(jnp.dot), jax.jit(step).lower(state, batch).compile()
    works = {"product": partial(product, square, square), "1 device": partial(compiled, state, batch)}
    if devices > 1:
        works[f"{devices} devices"] = partial(parallelise(step, donate=False), state, batch)
    for work in works.values():
        both_clocks(work)
    seconds = {
        name: np.min([both_clocks(work) for _ in range(REPEATS)], axis=0) for name, work in works.items()
    }
    rates = 2 * 2.048**3 / seconds.pop("product")
    found = {"GFLOP a step": gflop, "matrix product GFLOP/s": rates[0], "of a core": rates[1]}
    for name, (wall, busy) in seconds.items():
        found |= {f"{name}, ms": 1000 * wall, f"{name}, share": gflop / wall / rates[0]}
        found[f"{name}, share by processor time"] = gflop / busy / rates[1]
    return found


def measure_training(names: list[str], folder: Path, side: int | None, count: int | None) -> None:
    """Measures the steps of several entries, writes train_speed.json and prints a table."""
    report = {}
    for name in names:
        config = ENTRIES[name].load()
        config.data.update(height=side or config.data.height, width=side or config.data.width)
        config.train.batch_size = count or config.train.batch_size
        report[name] = measure_step(config)
        figures = "  ".join(f"{title} {value:.2f}" for title, value in report[name].items())
        print(f"{name:<20} {figures}", flush=True)
    common.write_json(folder / "train_speed.json", report)


def main() -> None:
    """Measures everything and writes speed.json."""
    parser = common.make_parser(__doc__)
    parser.add_argument("--width", type=int, default=448)
    parser.add_argument("--height", type=int, default=256)
    parser.add_argument("--frames", type=int, default=200)
    parser.add_argument("--checkpoint", default=None)
    parser.add_argument("--workdir", type=Path, default=Path("runs/speed"))
    parser.add_argument("--memory", action="store_true", help="measure the memory of long clips instead")
    parser.add_argument("--train", action="store_true", help="measure training steps instead")
    parser.add_argument("--only", nargs="+", choices=ENTRIES, default=list(ENTRIES), help="with --train")
    parser.add_argument("--side", type=int, help="of the pictures, with --train; none: the config's")
    parser.add_argument("--batch", type=int, help="with --train; none: the config's")
    parser.add_argument("--memory-of", type=int, default=0, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    config = ENTRIES["block_dct"].load()
    config.checkpoint = arguments.checkpoint or config.checkpoint
    folder, size = arguments.workdir, (arguments.width, arguments.height)
    if arguments.memory_of:
        return memory_child(config, folder, arguments.memory_of)
    folder.mkdir(parents=True, exist_ok=True)
    if arguments.train:
        return measure_training(arguments.only, folder, arguments.side, arguments.batch)
    report = {} if arguments.memory else measure_speed(config, folder, arguments.frames, *size)
    for frames in (100, 100, 10_000 if arguments.memory else 1000):  # the first process compiles
        make_clip(folder / f"cover{frames}.mkv", "sample:bikes.mp4", frames, *size)
        make_clip(folder / f"secret{frames}.mkv", "sample:bigbuckbunny.mp4", frames, *size)
        report[f"peak MiB, {frames} frames"] = peak_memory_mib(folder, frames, *size)
    name = "memory" if arguments.memory else "speed"
    common.write_json(folder / f"{name}.json", report)
    for path in folder.glob("*.mkv"):
        path.unlink()
    for name, value in report.items():
        print(f"{name:<30} {value:10.2f}")
    return None


if __name__ == "__main__":
    common.run(main)
