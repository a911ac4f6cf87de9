"""Speed of the training data: images per second, where the time goes, and how long training waits for it.

    python -m experiments.input_speed --photos FOLDER [--clips FOLDER] [--steps 20] [--workdir FOLDER]

ImageNet may not be passed on, so a data set of its format is made of the photos: the two archives, in
WORKDIR/tfds/downloads/manual, which the code that trains finds and prepares (kept for the next run). JPEG
files go in as they are. ImageNet's mean photo has about 400x350 = 140,000 pixels and 110 kB; those of these
photos are reported, and decoding grows with both. So small a data set is read from memory, not from a disk.

1. Every source alone: `create_pairs` iterated and its batches dropped. An image is one crop (one frame of a
   clip); a pair has two, or two for each frame. CPU time is that of all threads of the process, so
   `images_per_s_per_core` depends less on what else the machine does than `images_per_s`, on all cores.
2. How long a training step waits for data. `waiting_share`: host time in `next(pairs)` over the whole, the
   devices idle before each `next`; `loop.train` runs one step ahead of them, so there it is at most that.
   `over_fixed_batch`: the time of a step with real data over that with the same batch again and again, which
   is measured before and after; on a CPU, where data and step share the cores, this is what the data cost.
   There configs/imagenet.py gets 2 steps on a batch of 1, as each takes seconds; time and data grow alike.

Machines are noisy: each figure of 1 is the best of three, and ratios are those of one run. Compare
figures of one run only. Writes WORKDIR/input_speed.json (flat: NAME_FIGURE).
"""

import io
import os
import tarfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import jax
from ml_collections import ConfigDict
from PIL import Image

from deepsteg_jax import data, models
from deepsteg_jax.training.state import create_optimizer, create_state
from deepsteg_jax.training.step import make_train_step
from experiments import common, tables
from experiments.entries import Entry

SYNSETS = ("n01440764", "n01443537", "n01484850", "n01491361", "n01494475")
REPEATS = 3
BATCH, BATCHES = 32, 20  # of one measurement of a source


def encode(path: Path) -> bytes:
    """The file itself if it is a JPEG, else its picture as one."""
    if path.suffix.lower() in (".jpg", ".jpeg"):
        return path.read_bytes()
    file = io.BytesIO()
    Image.open(path).convert("RGB").save(file, "JPEG", quality=90)
    return file.getvalue()


def add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    """Adds a file to an archive."""
    info = tarfile.TarInfo(name)
    info.size = len(content)
    archive.addfile(info, io.BytesIO(content))


def write_archives(photos: Path, manual: Path) -> None:
    """Writes ImageNet's two archives; every tenth photo is for validation. Nothing if they are there."""
    if manual.exists():
        return
    paths = sorted(p for p in photos.rglob("*") if p.suffix.lower() in (".jpg", ".jpeg", ".png"))
    train = [p for number, p in enumerate(paths) if number % 10]
    unfinished = manual.with_name("unfinished")
    unfinished.mkdir(parents=True, exist_ok=True)
    with tarfile.open(unfinished / "ILSVRC2012_img_val.tar", "w") as archive:
        for number, path in enumerate(paths[::10], 1):
            add(archive, f"ILSVRC2012_val_{number:08}.JPEG", encode(path))
    with tarfile.open(unfinished / "ILSVRC2012_img_train.tar", "w") as archive:
        for number, synset in enumerate(SYNSETS):
            file = io.BytesIO()
            with tarfile.open(fileobj=file, mode="w") as inner:
                for i, path in enumerate(train[number :: len(SYNSETS)]):
                    add(inner, f"{synset}_{i}.JPEG", encode(path))
            add(archive, f"{synset}.tar", file.getvalue())
    unfinished.rename(manual)


def use_imagenet(config: ConfigDict, data_dir: Path) -> ConfigDict:
    """Lets a config train on all of the data set made of photos."""
    changes = {"source": "imagenet", "path": str(data_dir), "train_split": "train", "validation_split": ""}
    with config.data.unlocked():
        config.data.update(changes)
    return config


def best(measure: Callable[[], tuple[float, ...]]) -> tuple[float, ...]:
    """The least of each figure over a few runs."""
    return tuple(min(figures) for figures in zip(*(measure() for _ in range(REPEATS)), strict=True))


def clock(work: Callable[[], None]) -> tuple[float, float]:
    """Seconds and CPU seconds of some work."""
    start, cpu_start = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - start, time.process_time() - cpu_start


def measure_source(config: ConfigDict) -> dict[str, float]:
    """Speed of `create_pairs` for a `data` section."""
    count = 2 * config.frames * BATCH * BATCHES

    def take(batches: Iterator) -> None:
        for _ in range(BATCHES):
            next(batches)

    with closing(data.create_pairs(config, seed=0, batch_size=BATCH)) as batches:
        take(batches)
        seconds, cpu = best(lambda: clock(lambda: take(batches)))
    return {
        "images_per_s": count / seconds,
        "cpu_us_per_image": 1e6 * cpu / count,
        "images_per_s_per_core": count / cpu,
    }


def measure_sources(data_dir: Path, photos: Path, clips: Path | None) -> dict[str, dict[str, float]]:
    """Speed of every source, by a name that ends in the size of its crops."""
    original, small = (use_imagenet(Entry(name).load(), data_dir) for name in ("imagenet", "image"))
    folder, video = Entry("image").load(), Entry("video").load()
    folder.data.path = str(photos)
    report = {}
    for config in (original, small):
        report[f"imagenet_{config.data.height}"] = measure_source(data.section(config))
    for cache in (False, True):
        folder.data.cache = cache
        name = f"images{'_cached' if cache else ''}_{folder.data.height}"
        report[name] = measure_source(data.section(folder))
    if clips:
        video.data.path = str(clips)
        report[f"clips_{video.data.height}"] = measure_source(data.section(video))
    return report


def measure_waiting(config: ConfigDict, steps: int) -> dict[str, float]:
    """How long a training step waits for its data: see 2 above; `ms_per_step` is with real data."""
    model, optimizer = models.build(config.model), create_optimizer(config.optimizer)
    state = create_state(model, optimizer, jax.random.key(0))
    step = jax.jit(make_train_step(model, optimizer, config, jax.random.key(0)))
    open_pairs = lambda: data.create_pairs(data.section(config), seed=0, batch_size=config.train.batch_size)  # noqa: E731
    run = lambda batch: jax.block_until_ready(step(state, batch))  # noqa: E731
    with closing(open_pairs()) as batches:
        fixed = next(batches)
    repeat = lambda: [run(fixed) for _ in range(steps)]  # noqa: E731
    run(fixed)
    before, _ = clock(repeat)
    with closing(open_pairs()) as batches:
        run(next(batches))
        waited, start = 0.0, time.perf_counter()
        for _ in range(steps):
            asked = time.perf_counter()
            batch = next(batches)
            waited += time.perf_counter() - asked
            run(batch)
        total = time.perf_counter() - start
    after, _ = clock(repeat)
    return {
        "ms_per_step": 1000 * total / steps,
        "waiting_share": waited / total,
        "over_fixed_batch": 2 * total / (before + after),
    }


def measure_training(data_dir: Path, clips: Path | None, steps: int) -> dict[str, dict[str, float]]:
    """Waiting for data of the default model, on clips and on ImageNet, and of the original."""
    video, image, original = (Entry(name).load() for name in ("video", "image", "imagenet"))
    report = {}
    if clips:
        video.data.path = str(clips)
        report["train_block_dct_clips"] = measure_waiting(video, steps)
    report["train_block_dct_imagenet"] = measure_waiting(use_imagenet(image, data_dir), steps)
    if jax.default_backend() == "cpu":
        original.train.batch_size, steps = 1, 2
    report["train_prep_hide_reveal_imagenet"] = measure_waiting(use_imagenet(original, data_dir), steps)
    return report


def main() -> None:
    """Measures everything, prints tables and writes input_speed.json."""
    parser = common.make_parser(__doc__)
    parser.add_argument("--photos", type=Path, required=True, help="a folder of jpg and png files")
    parser.add_argument("--clips", type=Path, default=None, help="a folder of clips")
    parser.add_argument("--steps", type=int, default=20, help="training steps; 0: measure none")
    parser.add_argument("--workdir", type=Path, default=Path("runs/input_speed"))
    arguments = parser.parse_args()
    data_dir = arguments.workdir / "tfds"
    write_archives(arguments.photos, data_dir / "downloads" / "manual")
    report = {"cores": len(os.sched_getaffinity(0))}
    sections = [measure_sources(data_dir, arguments.photos, arguments.clips)]
    if arguments.steps:
        sections.append(measure_training(data_dir, arguments.clips, arguments.steps))
    for name, figures in (row for section in sections for row in section.items()):
        report |= {f"{name}_{figure}": value for figure, value in figures.items()}
    common.write_json(arguments.workdir / "input_speed.json", report)
    print(tables.table(["", ""], report.items()))


if __name__ == "__main__":
    common.run(main)
