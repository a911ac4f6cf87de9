"""Do learned costs hide better than HILL? `adaptive` at both, judged by detectors that took no part.

    pip install -r experiments/requirements-steganalysis.txt
    python -m experiments.learned_costs covers --images FOLDER
    python main.py --config configs/adaptive_learned.py --mode train --workdir runs/learned_costs/game \\
        --config.data.path=runs/learned_costs/covers
    python -m experiments.learned_costs judge --images FOLDER
    python -m experiments.learned_costs clips --clips FOLDER [FOLDER ...]
    python -m experiments.learned_costs network --images FOLDER

judge: the photos of experiments.steganalysis: the first 500 are kept from both players of the game, all
others are its covers. Detectors are trained anew on half of the first COUNT and tested on the other half, six
times (boosting: 4). Features lie in WORKDIR/photos, where `experiments.steganalysis photos` with the same
WORKDIR looks for them.

clips: the same with frames of decoded clips in their own 4:2:0, whole clips on one side; none was a cover of
the game.

network: `steganalysis.network` with a fixed front end, on the photos in grey; embedding is simulated at the
bound of ideal codes. It learns LSB matching on COUNT covers of the game, then both costs on half of the first
COUNT photos, at a falling payload, and is tested on the other half.

Rows of other covers and detectors in the results stay. A detector that finds LSB matching at 0.4 bit per
sample in less than 75 % (network: 85 %) cannot see enough.
"""

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import cache, partial
from itertools import islice
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict
from PIL import Image

from deepsteg_jax import metrics
from deepsteg_jax.models import embedding_costs
from deepsteg_jax.plots import plt
from deepsteg_jax.steganalysis import learning, scores
from deepsteg_jax.training import checkpoints
from deepsteg_jax.training.logs import read_log
from experiments import common
from experiments.baselines import embedding
from experiments.entries import Entry
from experiments.steganalysis import (
    DECIDING,
    FEATURES,
    SEED,
    Store,
    cut_photo,
    embed_adaptive,
    embed_planes,
    extract,
    extract_pair,
    halves,
    list_photos,
    network_config,
    of_detector,
    planes_of,
    spread,
    train_boosting,
    train_ensemble,
)
from experiments.steganalysis_clips import Clip, read_clips

RESULTS = "learned_costs.json"
COVERS = ("photos", "grey photos", "clips")
KEPT = 500  # photos that neither player sees
PAYLOADS = (0.1, 0.2)  # bits per sample; 0.3 and 0.6 of those that are embedded in
CLIP_PAYLOADS = (0.2, 0.4)
APART = 10  # frames between those of a clip that are taken
FLOOR = "LSB matching 0.4"
LSB_STEPS, COSTS_STEPS = 400, {1.0: 200, 0.4: 200, 0.2: 100}  # one payload after the other
NETWORK_PAYLOADS = (0.4, 0.2)  # that are tested
EASY = 200  # steps in which LSB matching falls from a payload of 1 to 0.4
CURVES = ("loss", "accuracy", "distance")
DETECTORS = {**dict.fromkeys(FEATURES, (train_ensemble, 6)), "boosting": (train_boosting, 4)}


def write_covers(arguments) -> None:
    """The command `covers`."""
    folder = arguments.workdir / "covers"
    folder.mkdir(parents=True, exist_ok=True)
    for path in list_photos(arguments.images)[KEPT:]:
        Image.fromarray(cut_photo(path)).save(folder / f"{path.stem}.png")


@cache
def load_costs(checkpoint: str | None) -> Any:
    """The parameters of learned costs, none without a checkpoint."""
    if not checkpoint:
        return None
    from deepsteg_jax import models

    config = Entry("adaptive_learned").load().model
    return checkpoints.restore_params(checkpoint, models.build(config), config, "hide")


def simulate(payload: float, checkpoint: str | None, cover: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """Features and PSNR of a photo after embedding at learned costs, or at HILL's without a checkpoint."""
    rng = np.random.default_rng((SEED, seed))
    stego = embed_adaptive(payload, planes_of(cover), rng, params=load_costs(checkpoint))
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


def simulate_clip(checkpoint: str, payloads: list[float], number: int, clip: Clip) -> dict[str, dict]:
    """Features of frames of a clip and of their stegos, by row."""
    found: dict[str, list[dict]] = {}
    for i in range(APART // 2, len(clip.planes), APART):
        beside = clip.planes[i - 1], clip.planes[i + 1]
        matched = next(embed_planes("lsb", [0.4], clip.planes[i], (SEED, number, i)))
        for row, planes in (("cover", clip.planes[i]), (FLOOR, matched)):
            found.setdefault(row, []).append(extract(planes) | {"psnr_db": psnr_of(clip.planes[i], planes)})
        for title, own in (("adaptive", None), ("adaptive_learned", checkpoint)):
            for payload in payloads:
                rng = np.random.default_rng((SEED, number, i))
                stego = embed_adaptive(payload, clip.planes[i], rng, beside, load_costs(own))
                about = {"psnr_db": psnr_of(clip.planes[i], stego)}
                found.setdefault(f"{title} {payload}", []).append(extract(stego) | about)
    return {row: {key: np.stack([x[key] for x in items]) for key in items[0]} for row, items in found.items()}


def psnr_of(cover: list[np.ndarray], stego: list[np.ndarray]) -> float:
    """PSNR over all samples of planes."""
    return metrics.psnr(*(np.concatenate([plane.ravel() for plane in planes]) for planes in (cover, stego)))


def tested(learn: Callable, cover: np.ndarray, stego: np.ndarray, count: int) -> Iterator[tuple]:
    """Scores of covers and of stegos on halves that took no part in the training, and the threshold.

    Args:
        learn: trains a detector.
        cover: features [n, d], or [clips, frames, d], whose clips are not parted.
        stego: of the same.
        count: number of halves.
    """

    def flat(x):
        return x.reshape(-1, x.shape[-1])

    for train, test in islice(halves(len(cover)), count):
        score, threshold = learn(flat(cover[train]), flat(stego[train]))
        yield score(flat(cover[test])), score(flat(stego[test])), threshold


def accuracies(*given) -> np.ndarray:
    """Accuracies of what is `tested`, [count]."""
    return np.array([scores.accuracy(*found) for found in tested(*given)])


def judge(arguments) -> None:
    """The command `judge`."""
    paths, store = list_photos(arguments.images)[: arguments.count], Store(arguments.workdir / "photos")
    make_features(store, arguments.checkpoint, paths, arguments.workers)
    found = judged(arguments, store, "photos", PAYLOADS)
    if log := [line for line in read_log(arguments.workdir / "game") if "accuracy" in line]:
        found["curves"] = {name: [line.get(name) for line in log] for name in ("step", *CURVES)}
        plot(arguments.results / RESULTS.replace("json", "png"), found["curves"])
    common.write_json(arguments.results / RESULTS, found)


def judge_clips(arguments) -> None:
    """The command `clips`."""
    store = Store(arguments.workdir / "clips")
    missing = [payload for payload in arguments.payloads if not store.has(f"adaptive_learned {payload}")]
    if missing:
        clips = list(read_clips(arguments.clips))
        with ProcessPoolExecutor(arguments.workers, multiprocessing.get_context("spawn")) as pool:
            work = partial(simulate_clip, arguments.checkpoint, missing)
            made = list(pool.map(work, range(len(clips)), clips))
        for row in made[0]:
            store.write(row, [clip[row] for clip in made])
    found = judged(arguments, store, "clips", arguments.payloads)
    common.write_json(arguments.results / RESULTS, found)


def judge_network(arguments) -> None:
    """The command `network`."""
    paths, folder = list_photos(arguments.images), arguments.workdir / "network"
    chosen = paths[: arguments.count], paths[KEPT : KEPT + arguments.count]
    kept, covers = (np.stack(list(map(grey_photo, part))) for part in chosen)
    start = learn_pairs(covers, embed_lsb, LSB_STEPS, 3e-3, folder / "lsb")
    stegos = embedding.lsb_matching(kept, 0.4, np.random.default_rng(SEED))
    about = {"count": len(kept) // 2, "floor": float(right_of(start, kept, stegos).mean())}
    print(FLOOR, about, flush=True)
    found = {name: learn_costs(kept, start, own, folder / name) for name, own in costs_of(arguments).items()}
    results = common.read_json(arguments.results / RESULTS, {"rows": []})
    for payload in NETWORK_PAYLOADS:
        hill, learned = (found[name][payload] for name in ("hill", "learned"))
        row = {"covers": "grey photos", "payload": payload, "detector": "network"} | about
        for name, x in (("hill", hill), ("learned", learned), ("less", hill - learned)):
            row |= {name: float(x.mean()), f"{name}_interval": 1.96 * float(x.std(ddof=1)) / len(x) ** 0.5}
        put(results, row)
    common.write_json(arguments.results / RESULTS, results)


def costs_of(arguments) -> dict[str, Any]:
    """Parameters by the name of the costs; HILL has none."""
    return {"hill": None, "learned": load_costs(arguments.checkpoint)}


def grey_photo(path: Path) -> np.ndarray:
    """A photo in grey, uint8 [h, w, 1]."""
    return np.asarray(Image.fromarray(cut_photo(path)).convert("L"))[..., None]


def network_settings(steps: int, learning_rate: float) -> ConfigDict:
    """The settings of a training of the network."""
    config = network_config(steps, is_first=False)
    config.model.update(features=(16, 24, 32), front="fixed", planes=1)
    config.optimizer.learning_rate = learning_rate
    return config


def learn_pairs(covers, embed: Callable, steps: int, rate: float, folder: Path, start: Any = None) -> Any:
    """The variables of the network after learning pairs."""
    config = network_settings(steps, rate)
    draw = learning.draw_pairs(covers, embed, config.train.side, config.train.batch_size, SEED)
    return learning.train(config, draw, folder, start)


def embed_lsb(cover: np.ndarray, step: int, rng: np.random.Generator, cut: Callable) -> np.ndarray:
    """The stegos of a step's crops, by LSB matching."""
    return embedding.lsb_matching(cover, max(1 - 0.6 * step / EASY, 0.4), rng)


def learn_costs(kept: np.ndarray, start: Any, params: Any, folder: Path) -> dict[float, np.ndarray]:
    """Which answers are right, by payload: `right_of` a network that learns one payload after the other."""
    found, half = {}, len(kept) - len(kept) // 2
    for payload, steps in COSTS_STEPS.items():
        chance = np.stack([chance_of(params, plane[..., 0], payload) for plane in kept])[..., None]

        def embed(cover, step, rng, cut, own=chance[:half]):
            return embedding.change(cover, cut(own), rng)

        start = learn_pairs(kept[:half], embed, steps, 1e-3, folder / f"{payload}", start)
        if payload in NETWORK_PAYLOADS:
            stegos = embedding.change(kept, chance, np.random.default_rng(SEED))
            found[payload] = right_of(start, kept, stegos)
            print(folder.name, payload, f"{found[payload].mean():.3f}", flush=True)
    return found


@jax.jit
def chance_of(params: Any, plane: np.ndarray, payload: float) -> jax.Array:
    """The probability that a sample changes to one side, [h, w]: at learned costs, or HILL's without any."""
    costs = embedding_costs.hill(plane) if params is None else embedding_costs.learned(params, plane)
    return embedding_costs.chances(costs, payload)


def right_of(variables: Any, covers: np.ndarray, stegos: np.ndarray) -> np.ndarray:
    """The share of right answers about the pairs of the second half: 0, 0.5 or 1; the first half decides."""
    config, half = network_settings(0, 0.0), len(covers) - len(covers) // 2
    pair = (np.concatenate([x[:DECIDING], x[half:]]) for x in (covers, stegos))
    clean, found = (learning.score(config, variables, x) for x in pair)
    threshold, _ = scores.best_threshold(clean[:DECIDING], found[:DECIDING])
    return ((clean[DECIDING:] <= threshold) + (found[DECIDING:] > threshold).astype(float)) / 2


def judged(arguments, store: Store, covers: str, payloads: tuple[float, ...]) -> dict:
    """The results with rows for all detectors that are asked for."""
    found = common.read_json(arguments.results / RESULTS, {"rows": []})
    for detector in arguments.detectors:
        floor = find_floor(detector, store, f"adaptive {payloads[0]}")
        for payload in payloads:
            names = "cover", f"adaptive {payload}", f"adaptive_learned {payload}"
            about = {"covers": covers, "payload": payload, "detector": detector}
            put(found, about | compare(detector, *alike(store, names)) | {"floor": floor})
    return found


def put(found: dict, row: dict) -> None:
    """Puts a row into the results, in the place of an older one like it."""
    others = [other for other in found["rows"] if place(other) != place(row)]
    found["rows"] = sorted([*others, row], key=place)
    print(row, flush=True)


def alike(store: Store, names: Sequence[str]) -> list[dict[str, np.ndarray]]:
    """Rows of the store, as many photos or clips of the first ones as the last one has."""
    rows = [store.read(name) for name in names]
    return [{key: x[: len(rows[-1]["psnr_db"])] for key, x in row.items()} for row in rows]


def find_floor(detector: str, store: Store, like: str) -> float | None:
    """Accuracy on LSB matching in the covers of a row; None where the store has no features of it."""
    if not store.has(FLOOR):
        return None
    learn, count = DETECTORS[detector]
    features = (of_detector(detector, row) for row in alike(store, ("cover", FLOOR, like))[:2])
    return float(accuracies(learn, *features, count).mean())


def place(row: dict) -> tuple:
    """The place of a row in the table."""
    detectors = [*DETECTORS, "network"]
    return COVERS.index(row["covers"]), row["payload"], detectors.index(row["detector"])


def compare(detector: str, cover: dict, *stegos: dict) -> dict:
    """What a detector finds of stegos at HILL's costs and at learned ones."""
    learn, count = DETECTORS[detector]
    features = [of_detector(detector, row) for row in (cover, *stegos)]
    hill, learned = (accuracies(learn, features[0], stego, count) for stego in features[1:])
    row = {"count": len(features[0]), "less": float(np.mean(hill - learned))}
    row["less_interval"] = spread(hill - learned)
    row["psnr_db"] = [float(x["psnr_db"].mean()) for x in stegos]
    for name, found in (("hill", hill), ("learned", learned)):
        row |= {name: float(found.mean()), f"{name}_interval": spread(found)}
    return row


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


COMMANDS = {"covers": write_covers, "judge": judge, "clips": judge_clips, "network": judge_network}


def main() -> None:
    """Runs a command."""
    parser = common.make_parser(__doc__)
    parser.add_argument("command", choices=COMMANDS)
    parser.add_argument("--images")
    parser.add_argument("--clips", nargs="+")
    parser.add_argument("--payloads", nargs="+", type=float, default=CLIP_PAYLOADS, help="of clips")
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
