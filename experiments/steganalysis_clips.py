"""Steganalysers on frames of decoded clips, and tests that need no training: protocol Q3.

    pip install -r experiments/requirements-steganalysis.txt
    python -m experiments.steganalysis_clips clips --clips FOLDER [FOLDER ...]
    python -m experiments.steganalysis_clips untrained --clips FOLDER [FOLDER ...] --images FOLDER

clips: frames 5..34 of every clip of 8-bit 4:2:0, the central 224x224 of luma with their chroma, as they were
decoded; rows of methods that work in RGB take the same frames as RGB. The linear ensemble is trained on the
frames of three quarters of the clips and tested on the others, in turn; scores of consecutive frames are
pooled. `robust` is hidden in the first --robust clips only, since it takes long.

untrained: `steganalysis.consistency`. Stegos are RGB: of one frame of each clip, which was 4:2:0, and of the
corners of decoded JPEGs at their own size.

Features are kept in WORKDIR. Writes steganalysis_clips.json or steganalysis_untrained.json to --results.
"""

import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from deepsteg_jax import evaluation, media
from deepsteg_jax.channels import ladder
from deepsteg_jax.errors import UserError
from deepsteg_jax.steganalysis import consistency, ensemble, scores
from experiments import common
from experiments.baselines import embedding
from experiments.entries import ENTRIES, Entry
from experiments.quality import learned_config
from experiments.steganalysis import (
    FEATURES,
    SEED,
    SIDE,
    Store,
    central,
    embed_planes,
    extract,
    planes_of,
)
from experiments.systems import KEY, Context, learned_system, robust_system

FIRST_FRAME = 5
FOLDS = 4
POOLED = (1, 3, 10, 30)
PAYLOADS = (0.05, 0.1, 0.4)
PLANE_ROWS = {"LSB matching": "lsb", "HILL": "hill", "adaptive": "adaptive"}
# Columns of the features of `FEATURES`; those of luma come first in SPAM.
DETECTORS = {"luma": ("spam", slice(686)), "spam": ("spam", slice(None)), "srm": ("srm", slice(None))}
# Rows whose covers are not the row "cover", and the row of those.
COVERS = {"block_dct D=3": "cover, RGB", "robust, x264 CRF 23": "cover, x264 CRF 23"}
SHARES = (0.05, 0.4)  # payloads of the tests that need no training

# --- clips ---------------------------------------------------------------------------------------


class Clip(NamedTuple):
    """The centre of the frames of a decoded clip."""

    planes: list[list[np.ndarray]]  # of each frame: Y, Cb and Cr
    frames: np.ndarray  # the same as RGB, uint8 [30, 224, 224, 3]


def read_clips(folders: list[str]) -> Iterator[Clip]:
    """Frames 5..34 of every clip that has them, in 8-bit 4:2:0 and large enough."""
    span = FIRST_FRAME, FIRST_FRAME + common.FRAMES
    for path in [path for folder in folders for path in evaluation.list_items(folder)]:
        try:
            planes = [timed.frame for timed in islice(media.read_planes(path), *span)]
            frames = list(islice(media.read_frames(path), *span))
        except UserError:  # images have no planes of their own
            continue
        if len(planes) == common.FRAMES and min(planes[0].y.shape) >= SIDE and _is_usual(planes[0]):
            yield Clip([cut_planes(x) for x in planes], np.stack([central(frame, SIDE) for frame in frames]))


def _is_usual(planes: media.Planes) -> bool:
    height, width = planes.y.shape
    return planes.y.dtype == np.uint8 and planes.cb.shape == (-(-height // 2), -(-width // 2))


def cut_planes(planes: media.Planes) -> list[np.ndarray]:
    """The centre of a frame, as `central` cuts it."""
    top, left = ((x - SIDE) // 2 // 2 * 2 for x in planes.y.shape)
    parts = (planes.y, top, left, SIDE), *((x, top // 2, left // 2, SIDE // 2) for x in planes[1:])
    return [np.ascontiguousarray(x[y0 : y0 + side, x0 : x0 + side]) for x, y0, x0, side in parts]


def extract_clip(number: int, clip: Clip) -> dict[str, dict]:
    """Features of the frames, in their planes and as RGB, and of stegos in the planes: by row."""
    found = {"cover": [extract(planes) for planes in clip.planes], "cover, RGB": []}
    for title, method in PLANE_ROWS.items():
        for i, planes in enumerate(clip.planes):
            beside = tuple(clip.planes[max(i - 1, 0) : i] + clip.planes[i + 1 : i + 2])
            stegos = embed_planes(method, PAYLOADS, planes, (SEED, number, i), beside)
            for payload, stego in zip(PAYLOADS, stegos, strict=True):
                found.setdefault(f"{title} {payload}", []).append(extract(stego))
    found["cover, RGB"] = [extract(planes_of(frame)) for frame in clip.frames]
    return {row: _stacked(frames) for row, frames in found.items()}


def extract_frames(frames: np.ndarray | media.Planes) -> dict[str, np.ndarray]:
    """Features of frames, RGB or in planes, [n, d]."""
    each = media.unstack(frames)
    return _stacked([extract(list(x) if isinstance(x, media.Planes) else planes_of(x)) for x in each])


def _stacked(frames: list[dict]) -> dict[str, np.ndarray]:
    return {name: np.stack([frame[name] for frame in frames]) for name in FEATURES}


def stacked_planes(clip: Clip) -> media.Planes:
    """The frames of a clip in its own planes."""
    return media.stack([media.Planes(*planes) for planes in clip.planes])


def hide_clips(system, clips: list[Clip]) -> list[np.ndarray | media.Planes]:
    """Hides clip i + 1 in clip i."""
    following = clips[1:] + clips[:1]
    covers = [stacked_planes(clip) if system.in_planes else clip.frames for clip in clips]
    pairs = zip(covers, following, strict=True)
    return [system.hide(cover, b.frames, Context(KEY, b.frames.shape)) for cover, b in pairs]


def make_rows(store: Store, clips: list[Clip], robust: int, pool) -> None:
    """Extracts the features that the store lacks."""
    if not store.has("cover, RGB"):
        found = list(pool.map(extract_clip, range(len(clips)), clips))
        for row in found[0]:
            store.write(row, [clip[row] for clip in found])
    if not store.has("block_dct D=3"):
        system = learned_system(learned_config(ENTRIES["block_dct"], None, model__modulus=3))
        store.write("block_dct D=3", list(pool.map(extract_frames, hide_clips(system, clips))))
    if robust and not store.has("robust, x264 CRF 23"):
        stegos = hide_clips(robust_system(Entry("robust").load()), clips[:robust])
        codec = ladder.named("C6")
        covers = list(map(stacked_planes, clips))
        after = [[ladder.run(codec, x).frames for x in part] for part in (stegos, covers)]
        for row, frames in (
            ("robust", stegos),
            ("cover, x264 CRF 23", after[1]),
            ("robust, x264 CRF 23", after[0]),
        ):
            store.write(row, list(pool.map(extract_frames, frames)))


def judge(cover: np.ndarray, stego: np.ndarray) -> list[dict]:
    """Tests every clip by an ensemble trained on the other folds, for each number of pooled frames.

    Args:
        cover: features, [clips, frames, d].
        stego: of the same clips.
    """
    count, frames = cover.shape[:2]
    folds = np.random.default_rng(SEED).permutation(count) % FOLDS
    found, thresholds = np.zeros((2, count, frames)), np.zeros(count)
    for fold in range(FOLDS):
        train, test = folds != fold, folds == fold
        groups = np.repeat(np.flatnonzero(train), frames)
        trained = ensemble.train(*(np.concatenate(x[train]) for x in (cover, stego)), SEED, groups=groups)
        for part, x in zip(found, (cover, stego), strict=True):
            part[test] = ensemble.score(trained, x[test])
        thresholds[test] = trained.threshold
    pooled = {n: [scores.pool(x, n) for x in found] for n in POOLED}
    return [{"frames": n} | scores.measure(*pair, thresholds)._asdict() for n, pair in pooled.items()]


def measure_clips(arguments) -> dict:
    """The command `clips`."""
    clips, store = list(read_clips(arguments.clips)), Store(arguments.workdir / "clips")
    with ProcessPoolExecutor(arguments.workers, multiprocessing.get_context("spawn")) as pool:
        make_rows(store, clips, arguments.robust, pool)
    names = [f"{title} {payload}" for title in PLANE_ROWS for payload in PAYLOADS]
    names += ["robust", *COVERS]
    rows = []
    for name in filter(store.has, names):
        stego, cover = store.read(name), store.read(COVERS.get(name, "cover"))
        for detector, (features, columns) in DETECTORS.items():
            both = [x[features][: len(stego[features]), ..., columns] for x in (cover, stego)]
            rows += [{"row": name, "detector": detector} | found for found in judge(*both)]
            print(name, detector, *(f"{row['accuracy']:.3f}" for row in rows[-len(POOLED) :]), flush=True)
    return {"clips": len(clips), "folds": FOLDS, "seed": SEED, "rows": rows}


# --- tests that need no training -----------------------------------------------------------------


TESTS: dict[str, tuple[Callable[..., float], float]] = {  # and the bound above which they suspect
    "4:2:0": (consistency.off_lattice, consistency.LATTICE_BOUND),
    "JPEG": (consistency.quantisation_error, consistency.ERROR_BOUND),
}


def read_jpegs(folder: str, count: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """JPEGs at their own size, and the quantisers of their luma."""
    paths = sorted(Path(folder).glob("*.jpg"))
    for path in paths[:: max(1, len(paths) // count)][:count]:
        with Image.open(path) as picture:
            # Pillow gives the table in the order of rows.
            yield np.asarray(picture.convert("RGB")), np.array(picture.quantization[0]).reshape(8, 8)


def change_all(system, frames: list[np.ndarray]) -> dict[str, list[np.ndarray]]:
    """Covers and stegos of RGB frames of one size, by row; `system` is `block_dct`."""
    rng, found = np.random.default_rng(SEED), {"cover": frames}
    costs = [[embedding.costs("hill", plane) for plane in planes_of(x)] for x in frames]
    for payload in SHARES:
        found[f"LSB matching {payload}"] = [embedding.lsb_matching(x, payload, rng) for x in frames]
        found[f"HILL {payload}"] = [
            np.stack([embedding.embed(*pair, payload, rng) for pair in zip(planes_of(x), c, strict=True)], -1)
            for x, c in zip(frames, costs, strict=True)
        ]
    secrets = np.stack(frames)[:, ::-1]
    found["block_dct D=3"] = list(system.hide(np.stack(frames), secrets, Context(KEY, secrets.shape)))
    return found


def measure_untrained(arguments) -> dict:
    """The command `untrained`."""
    found: dict[str, dict[str, list[float]]] = {name: {} for name in TESTS}
    system = learned_system(learned_config(ENTRIES["block_dct_image"], None, model__modulus=3))

    def note(test: str, row: str, *given) -> None:
        found[test].setdefault(row, []).append(TESTS[test][0](*given))

    for clip in read_clips(arguments.clips):
        for row, (frame,) in change_all(system, [clip.frames[0]]).items():
            note("4:2:0", row, frame)
    for picture, quantisers in read_jpegs(arguments.images, arguments.jpegs):
        for row, (frame,) in change_all(system, [picture[:SIDE, :SIDE]]).items():
            note("JPEG", row, frame, quantisers)
    rows = []
    for test, figures in found.items():
        bound = TESTS[test][1]
        for row, values in figures.items():
            suspected = np.mean(np.array(values) > bound)
            about = {"test": test, "row": row, "suspected": float(suspected), "count": len(values)}
            rows.append(about | {"median": float(np.median(values)), "bound": bound})
            print(test, row, f"{suspected:.3f} {rows[-1]['median']:.4f}", flush=True)
    return {"seed": SEED, "rows": rows}


COMMANDS = {"clips": measure_clips, "untrained": measure_untrained}


def main() -> None:
    """Runs a command and writes its results."""
    parser = common.make_parser(__doc__)
    parser.add_argument("command", choices=COMMANDS)
    parser.add_argument("--clips", nargs="+", required=True)
    parser.add_argument("--images")
    parser.add_argument("--jpegs", type=int, default=100)
    parser.add_argument("--robust", type=int, default=0, help="clips that robust is hidden in")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--workdir", type=Path, default=Path("runs/steganalysis"))
    parser.add_argument("--results", type=Path, default=common.RESULTS)
    arguments = parser.parse_args()
    results = COMMANDS[arguments.command](arguments)
    common.write_json(arguments.results / f"steganalysis_{arguments.command}.json", results)


if __name__ == "__main__":
    common.run(main)
