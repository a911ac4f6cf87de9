"""Do learned costs hide better than HILL? `adaptive` at both, judged by detectors that took no part.

    pip install -r experiments/requirements-steganalysis.txt
    python -m experiments.learned_costs covers --images FOLDER
    python main.py --config configs/adaptive_learned.py --mode train --workdir runs/learned_costs/game \\
        --config.data.path=runs/learned_costs/covers
    python -m experiments.learned_costs judge --images FOLDER

The photos of experiments.steganalysis: the first 500 are kept from both players of the game, all others are
its covers. Detectors are trained anew on half of the first COUNT and tested on the other half, six times
(boosting: 4). Features lie in WORKDIR/photos, where `experiments.steganalysis photos` with the same WORKDIR
looks for them.
"""

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image

from deepsteg_jax import metrics
from deepsteg_jax.plots import plt
from deepsteg_jax.steganalysis import scores
from deepsteg_jax.training import checkpoints
from deepsteg_jax.training.logs import read_log
from experiments import common
from experiments.entries import Entry
from experiments.steganalysis import (
    FEATURES,
    SEED,
    Store,
    cut_photo,
    embed_adaptive,
    extract,
    extract_pair,
    halves,
    list_photos,
    of_detector,
    planes_of,
    spread,
    train_boosting,
    train_ensemble,
)

KEPT = 500  # photos that neither player sees
PAYLOADS = (0.1, 0.2)  # bits per sample; 0.3 and 0.6 of those that are embedded in
CURVES = ("loss", "accuracy", "distance")
DETECTORS = {**dict.fromkeys(FEATURES, (train_ensemble, 6)), "boosting": (train_boosting, 4)}


def write_covers(arguments) -> None:
    """The command `covers`."""
    folder = arguments.workdir / "covers"
    folder.mkdir(parents=True, exist_ok=True)
    for path in list_photos(arguments.images)[KEPT:]:
        Image.fromarray(cut_photo(path)).save(folder / f"{path.stem}.png")


def simulate(payload: float, checkpoint: str | None, cover: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """Features and PSNR of a photo after embedding at learned costs, or at HILL's without a checkpoint."""
    rng, params = np.random.default_rng((SEED, seed)), None
    if checkpoint:
        from deepsteg_jax import models

        config = Entry("adaptive_learned").load().model
        params = checkpoints.restore_params(checkpoint, models.build(config), config, "hide")
    stego = embed_adaptive(payload, planes_of(cover), rng, params=params)
    return {**extract(stego), "psnr_db": metrics.psnr(cover, np.stack(stego, axis=-1))}


def make_features(store: Store, checkpoint: str, paths: list[Path], workers: int) -> None:
    """Extracts what is missing in the store."""
    rows = {f"adaptive {payload}": (payload, None) for payload in PAYLOADS}
    rows |= {f"adaptive_learned {payload}": (payload, checkpoint) for payload in PAYLOADS}
    missing = [name for name in ("cover", *rows) if not store.has(name)]
    if not missing:
        return
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        covers = list(pool.map(cut_photo, paths, chunksize=8))
        for name in missing:
            if name == "cover":
                items = [found[0] for found in pool.map(extract_pair, covers, covers, chunksize=8)]
            else:
                items = list(
                    pool.map(partial(simulate, *rows[name]), covers, range(len(covers)), chunksize=8)
                )
            store.write(name, items)
            print(f"{name}: features of {len(covers)} photos", flush=True)


def accuracies(learn: Callable, cover: np.ndarray, stego: np.ndarray, count: int) -> np.ndarray:
    """Accuracies on halves that took no part in the training, [count]."""
    found = []
    for train, test in islice(halves(len(cover)), count):
        score, threshold = learn(cover[train], stego[train])
        found.append(scores.accuracy(score(cover[test]), score(stego[test]), threshold))
    return np.array(found)


def judge(arguments) -> None:
    """The command `judge`."""
    paths, store = list_photos(arguments.images)[: arguments.count], Store(arguments.workdir / "photos")
    make_features(store, arguments.checkpoint, paths, arguments.workers)
    rows = []
    for payload in PAYLOADS:
        names = "cover", f"adaptive {payload}", f"adaptive_learned {payload}"
        kept = [{key: x[: len(paths)] for key, x in store.read(name).items()} for name in names]
        for detector in arguments.detectors:
            learn, count = DETECTORS[detector]
            cover, *stegos = (of_detector(detector, row) for row in kept)
            hill, learned = (accuracies(learn, cover, stego, count) for stego in stegos)
            row = {"payload": payload, "detector": detector, "less": float(np.mean(hill - learned))}
            row |= {
                "less_interval": spread(hill - learned),
                "psnr_db": [float(x["psnr_db"].mean()) for x in kept[1:]],
            }
            for name, found in (("hill", hill), ("learned", learned)):
                row |= {name: float(found.mean()), f"{name}_interval": spread(found)}
            rows.append(row)
            print(row, flush=True)
    log = [line for line in read_log(arguments.workdir / "game") if "accuracy" in line]
    curves = {name: [line.get(name) for line in log] for name in ("step", *CURVES)}
    found = {"photos": len(paths), "rows": rows, "curves": curves}
    common.write_json(arguments.results / "learned_costs.json", found)
    plot(arguments.results / "learned_costs.png", curves)


def plot(path: Path, curves: dict[str, list]) -> None:
    """Draws what the steganalyser finds during the game, and how far the costs have moved from HILL."""
    titles = ("steganalyser's cross entropy (nats)", "its accuracy", "distance from HILL (nats)")
    figure, axes = plt.subplots(1, len(CURVES), figsize=(12, 3.2), layout="constrained")
    for axis, name, title in zip(axes, CURVES, titles, strict=True):
        values = np.array(curves[name], float)
        axis.plot(curves["step"], values, linewidth=0.5, alpha=0.4, color="C0")
        smooth = np.convolve(values, np.ones(9) / 9, "valid")
        axis.plot(curves["step"][4 : 4 + len(smooth)], smooth, color="C0")
        axis.set(xlabel="step", title=title)
        axis.grid(alpha=0.3)
    figure.savefig(path, dpi=100)
    plt.close(figure)


COMMANDS = {"covers": write_covers, "judge": judge}


def main() -> None:
    """Runs a command."""
    parser = common.make_parser(__doc__)
    parser.add_argument("command", choices=COMMANDS)
    parser.add_argument("--images", required=True)
    parser.add_argument("--checkpoint", default="adaptive_learned")
    parser.add_argument("--count", type=int, default=KEPT, help="photos that judge")
    parser.add_argument("--detectors", nargs="+", choices=DETECTORS, default=DETECTORS)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--workdir", type=Path, default=Path("runs/learned_costs"))
    parser.add_argument("--results", type=Path, default=common.RESULTS)
    arguments = parser.parse_args()
    COMMANDS[arguments.command](arguments)


if __name__ == "__main__":
    common.run(main)
