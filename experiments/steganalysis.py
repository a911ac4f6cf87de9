"""Steganalysers trained on own pairs against everything that hides here: protocol Q3.

    pip install -r experiments/requirements-steganalysis.txt
    python -m experiments.steganalysis network --images FOLDER
    python -m experiments.steganalysis photos --images FOLDER

Photos with a short side of at least 300, scaled to three quarters, 224x224 centre crops, in an order that the
seed draws; the first 73 % train. The detectors:

    spam       colour SPAM and the linear ensemble
    srm        the compact colour rich model and the linear ensemble
    boosting   gradient boosting on both
    network    `steganalysis.network`, trained on pairs that are made anew for every step

Thresholds come from training pairs. A detector's figures count if it finds LSB matching at 0.4 bit per sample
in 75 % (network: 85 %) of what it has not seen. Features and training are kept in WORKDIR, so that an
interrupted run goes on; the figures of `network` too. `photos` writes them all to steganalysis.json, with
accuracy against payload and against training pairs in steganalysis.png.
"""

import multiprocessing
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from ml_collections import ConfigDict
from PIL import Image

from deepsteg_jax import metrics
from deepsteg_jax.media import Planes
from deepsteg_jax.plots import plt
from deepsteg_jax.schemes.adaptive import embedding as adaptive
from deepsteg_jax.schemes.adaptive.embedding import Pricing
from deepsteg_jax.steganalysis import ensemble, features, learning, scores
from experiments import common
from experiments.baselines import embedding
from experiments.entries import ENTRIES, Entry, file_name
from experiments.quality import learned_config
from experiments.systems import KEY, Context, learned_system

SIDE = 224
SMALLEST = 300  # short side of a photo
SCALE = 0.75
TRAINING_SHARE = 0.73
SEED = 0
PAYLOADS = (0.05, 0.1, 0.2, 0.4)  # bits per sample
HALVES = 10
CURVE = (10, 30, 100, 300)  # training pairs, besides all
CURVE_ROWS = ("LSB matching 0.4", "HILL 0.4", "HILL 0.1", "block_dct D=3")
BOOSTED_ROWS = (
    "LSB matching 0.1",
    "LSB matching 0.4",
    "HILL 0.1",
    "HILL 0.4",
    "S-UNIWARD 0.4",
    "block_dct D=3",
)
MISMATCH_ROWS = ("LSB matching 0.4", "LSB matching 0.1", "HILL 0.4", "HILL 0.1", "block_dct D=3")
NETWORK = "network.json"  # in the work folder
FEATURES = {"spam": features.spam, "srm": features.srm}

# --- covers and stegos ---------------------------------------------------------------------------


class Family(NamedTuple):
    """Rows whose stegos are made together."""

    method: str  # lsb, hill, suniward or an entry of the benchmark
    rows: dict[str, float]  # name -> payload, or D
    photos: int = 10_000  # at most; fewer where a stego takes long to make


def families() -> list[Family]:
    """All rows, in the order of the table."""
    return [
        Family("lsb", {f"LSB matching {payload}": payload for payload in PAYLOADS}),
        Family("hill", {f"HILL {payload}": payload for payload in PAYLOADS}, 500),
        Family("adaptive", {f"adaptive {payload}": payload for payload in PAYLOADS[:3]}, 500),
        Family("suniward", {f"S-UNIWARD {payload}": payload for payload in PAYLOADS}, 200),
        Family("block_dct_image", {"block_dct D=3": 3}),
        Family("block_dct_image", {f"block_dct D={modulus}": modulus for modulus in (2, 4, 5)}, 200),
        *(Family(name, {name: 0}, 200) for name in ("invertible", "prep_hide_reveal")),
    ]


def list_photos(folder: str) -> list[Path]:
    """Photos that are large enough, in a drawn order."""
    paths = sorted(Path(folder).glob("*.jpg"))
    paths = [path for path in paths if min(Image.open(path).size) >= SMALLEST]
    return [paths[i] for i in np.random.default_rng(SEED).permutation(len(paths))]


def cut_photo(path: Path) -> np.ndarray:
    """The cover of a photo, uint8 [224, 224, 3]."""
    # Pillow scales R, G and B as they are; FFmpeg goes through YCbCr, whose lattice would show.
    photo = Image.open(path).convert("RGB")
    size = tuple(round(SCALE * x) for x in photo.size)
    return central(np.asarray(photo.resize(size, Image.Resampling.LANCZOS)), SIDE)


def central(frame: np.ndarray, side: int) -> np.ndarray:
    """The central square of [h, w, ...], at an even place."""
    top, left = ((x - side) // 2 // 2 * 2 for x in frame.shape[:2])
    return frame[top : top + side, left : left + side]


def embed_planes(
    method: str,
    payloads: Iterable[float],
    planes: list[np.ndarray],
    seed: tuple[int, ...],
    neighbours: tuple[list[np.ndarray], ...] = (),
) -> Iterator[list[np.ndarray]]:
    """Embeds every payload in all planes, each sample on average as much, or `adaptive` where it costs least.

    `neighbours`: the planes of the frames before and after.
    """
    rng = np.random.default_rng(seed)
    if method == "adaptive":
        for payload in payloads:
            yield embed_adaptive(payload, planes, rng, neighbours)
        return
    if method == "lsb":
        for payload in payloads:
            yield [embedding.lsb_matching(plane, payload, rng) for plane in planes]
        return
    costs = [embedding.costs(method, plane) for plane in planes]
    for payload in payloads:
        yield [embedding.embed(*pair, payload, rng) for pair in zip(planes, costs, strict=True)]


def embed_adaptive(
    payload: float, planes: list[np.ndarray], rng, neighbours=(), params=None
) -> list[np.ndarray]:
    """Embeds random bytes as the scheme `adaptive` does, in RGB or in 4:2:0, with its usual settings."""
    settings, samples = Entry("adaptive").load().model, sum(plane.size for plane in planes)
    data = rng.bytes(round(payload * samples) // 8)
    pricing = Pricing(chroma=settings.chroma, still=settings.still)
    in_rgb = planes[0].shape == planes[1].shape
    cover = np.stack(planes, axis=-1) if in_rgb else Planes(*planes)
    free, beside = adaptive.free_of(cover), tuple(map(tuple, neighbours))
    order = adaptive.keyed_order(rng.bytes(32), 0, len(free))[None]
    given = order, free, [data], settings.height, pricing, params
    found = adaptive.embed(adaptive.planes_of(cover), beside, *given)
    stego = adaptive.frame_of(found, cover)
    return planes_of(stego) if in_rgb else list(stego)


def hide_photos(entry: str, modulus: float, covers: np.ndarray) -> np.ndarray:
    """Hides photo i + 1 in photo i with a shipped network, [n, 224, 224, 3]."""
    changes = {"model__modulus": int(modulus)} if modulus else {}
    system = learned_system(learned_config(ENTRIES[entry], None, **changes))
    secrets = np.roll(covers, -1, axis=0)
    return system.hide(covers, secrets, Context(KEY, secrets.shape))


# --- features ------------------------------------------------------------------------------------


def extract(planes: list[np.ndarray]) -> dict[str, np.ndarray]:
    """All features of a picture."""
    return {name: function(planes) for name, function in FEATURES.items()}


def planes_of(frame: np.ndarray) -> list[np.ndarray]:
    """The planes of [h, w, 3]."""
    return [np.ascontiguousarray(frame[..., i]) for i in range(3)]


def simulate(method: str, payloads: tuple[float, ...], cover: np.ndarray, seed: int) -> list[dict]:
    """Features and PSNR of stegos of a photo, one for each payload."""
    found = []
    for stego in embed_planes(method, payloads, planes_of(cover), (SEED, seed)):
        found.append({**extract(stego), "psnr_db": metrics.psnr(cover, np.stack(stego, axis=-1))})
    return found


def extract_pair(cover: np.ndarray, stego: np.ndarray) -> list[dict]:
    """Features and PSNR of a stego."""
    return [{**extract(planes_of(stego)), "psnr_db": metrics.psnr(cover, stego)}]


class Store:
    """Features by row, in files of a folder: {"spam", "srm": [n, d], "psnr_db": [n]}."""

    def __init__(self, folder: Path):
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def _path(self, row: str) -> Path:
        return self._folder / f"{file_name(row)}.npz"

    def has(self, row: str) -> bool:
        """Whether a row is there."""
        return self._path(row).exists()

    def read(self, row: str) -> dict[str, np.ndarray]:
        """The arrays of a row."""
        with np.load(self._path(row)) as file:
            return dict(file)

    def write(self, row: str, items: list[dict]) -> None:
        """Keeps a row; an interruption leaves no half of a file."""
        part = self._path(row).with_suffix(".part.npz")
        np.savez(part, **{name: np.stack([item[name] for item in items]) for name in items[0]})
        part.replace(self._path(row))


def make_photos(store: Store, covers: np.ndarray, pool, only: list[str]) -> None:
    """Makes stegos and extracts what is missing in the store."""
    if not store.has("cover"):
        store.write("cover", [items[0] for items in pool.map(extract_pair, covers, covers, chunksize=8)])
    for family in families():
        rows = [name for name in family.rows if not store.has(name) and (not only or name in only)]
        own = covers[: family.photos]
        if rows and family.method in ("lsb", "hill", "adaptive", "suniward"):
            work = partial(simulate, family.method, tuple(family.rows[name] for name in rows))
            items = list(pool.map(work, own, range(len(own)), chunksize=8))
            for i, name in enumerate(rows):
                store.write(name, [found[i] for found in items])
        elif rows:
            for name in rows:
                stegos = hide_photos(family.method, family.rows[name], own)
                items = pool.map(extract_pair, own, stegos, chunksize=8)
                store.write(name, [found[0] for found in items])
        for name in rows:
            print(f"{name}: features of {len(own)} photos", flush=True)


# --- detectors -----------------------------------------------------------------------------------

Trained = tuple[Callable[[np.ndarray], np.ndarray], float]  # features -> scores, and the threshold


def train_ensemble(covers: np.ndarray, stegos: np.ndarray) -> Trained:
    """The linear ensemble."""
    found = ensemble.train(covers, stegos, SEED)
    return partial(ensemble.score, found), found.threshold


def train_boosting(covers: np.ndarray, stegos: np.ndarray) -> Trained:
    """Gradient boosted trees; the threshold is where both classes, equal in training, are as likely."""
    import lightgbm

    settings = {"objective": "binary", "learning_rate": 0.1, "num_leaves": 7, "feature_fraction": 0.05}
    settings |= {"seed": SEED, "deterministic": True, "num_threads": 1, "verbosity": -1, "max_bin": 31}
    data = lightgbm.Dataset(
        np.concatenate([covers, stegos]), np.repeat([0, 1], [len(covers), len(stegos)]), free_raw_data=True
    )
    booster = lightgbm.train(settings, data, num_boost_round=200)
    return partial(booster.predict, raw_score=True), 0.0


def of_detector(detector: str, row: dict[str, np.ndarray]) -> np.ndarray:
    """The features that a detector takes, [..., d]."""
    return np.concatenate([row["spam"], row["srm"]], axis=-1) if detector == "boosting" else row[detector]


def judge(detector: str, cover: dict, stego: dict, train: np.ndarray, test: np.ndarray) -> dict:
    """Trains on some pairs and tests on others; `train` and `test` are their numbers."""
    pair = [of_detector(detector, row) for row in (cover, stego)]
    learn = train_boosting if detector == "boosting" else train_ensemble
    score, threshold = learn(*(x[train] for x in pair))
    return {"train": len(train)} | scores.measure(*(score(x[test]) for x in pair), threshold)._asdict()


def halves(count: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Numbers of the photos that train and of those that test, HALVES times."""
    for half in range(HALVES):
        yield tuple(np.array_split(np.random.default_rng((SEED, half)).permutation(count), 2))


def spread(values: Sequence[float]) -> float:
    """Half of the 95 % interval of a mean over `halves`, whose photos are the same.

    Nadeau and Bengio 2003, "Inference for the Generalization Error".
    """
    return float(1.96 * np.std(values, ddof=1) * np.sqrt(1 / len(values) + 1))


def split(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of the photos that train and of those that test."""
    border = round(TRAINING_SHARE * count)
    return np.arange(border), np.arange(border, count)


def judge_photos(store: Store, names: list[str], sources: np.ndarray) -> dict[str, list[dict]]:
    """All rows, the curves over training pairs, and training on one source to test on the others."""
    cover, results, curve, mismatch = store.read("cover"), [], [], []
    for name in names:
        stego = store.read(name)
        train, test = split(len(stego["psnr_db"]))
        about = {"row": name, "stego_psnr_db": float(stego["psnr_db"].mean())}
        for detector in (*FEATURES, "boosting") if name in BOOSTED_ROWS else FEATURES:
            results.append(about | {"detector": detector} | judge(detector, cover, stego, train, test))
            print(name, detector, f"{results[-1]['accuracy']:.3f}", flush=True)
        for detector in FEATURES:
            own = about | {"detector": detector}
            if name in CURVE_ROWS:
                curve += [own | judge(detector, cover, stego, train[:n], test) for n in CURVE]
            if name in MISMATCH_ROWS:
                is_imagenet = sources[: len(stego["psnr_db"])] == "inA"
                apart = np.flatnonzero(is_imagenet), np.flatnonzero(~is_imagenet)
                mismatch.append(own | judge(detector, cover, stego, *apart))
    return {"rows": results, "curve": curve, "mismatch": mismatch}


def photos(arguments) -> None:
    """The command `photos`."""
    paths = list_photos(arguments.images)[: arguments.count]
    sources = np.array([path.name.split("_")[0] for path in paths])
    store = Store(arguments.workdir / "photos")
    # Forked processes would inherit JAX's threads.
    with ProcessPoolExecutor(arguments.workers, multiprocessing.get_context("spawn")) as pool:
        covers = np.stack(list(pool.map(cut_photo, paths, chunksize=8)))
        make_photos(store, covers, pool, arguments.only)
    names = [name for family in families() for name in family.rows if store.has(name)]
    found = {"photos": len(paths), "seed": SEED} | judge_photos(store, names, sources)
    found["network"] = common.read_json(arguments.workdir / NETWORK, {})
    common.write_json(arguments.results / "steganalysis.json", found)
    plot(arguments.results / "steganalysis.png", found)


def plot(path: Path, found: dict) -> None:
    """Draws accuracy against payload and against training pairs."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.2), sharey=True, layout="constrained")
    rows = found["rows"] + found["network"].get("rows", [])
    for method, colour in zip(("LSB matching", "HILL", "S-UNIWARD"), ("C0", "C1", "C2"), strict=True):
        for detector, style in (("spam", ":"), ("srm", "-"), ("network", "--")):
            own = {r["row"]: r["accuracy"] for r in rows if r["detector"] == detector}
            points = [(x, own[f"{method} {x}"]) for x in PAYLOADS if f"{method} {x}" in own]
            if points:
                left.plot(
                    *zip(*points, strict=True), style, color=colour, marker="o", label=f"{method}, {detector}"
                )
    for name, colour in zip(CURVE_ROWS, ("C0", "C1", "C3", "C4"), strict=True):
        for detector, style in (("spam", ":"), ("srm", "-")):
            own = [r for r in found["curve"] + found["rows"] if (r["row"], r["detector"]) == (name, detector)]
            own = sorted((r["train"], r["accuracy"], *r["accuracy_interval"]) for r in own)
            train, accuracy, low, high = np.array(own).T
            right.plot(train, accuracy, style, color=colour, marker="o", label=f"{name}, {detector}")
            right.fill_between(train, low, high, color=colour, alpha=0.15)
    left.set(xscale="log", xlabel="payload (bits per sample)", ylabel="accuracy")
    right.set(xscale="log", xlabel="training pairs")
    for axis in (left, right):
        axis.grid(alpha=0.3)
        axis.legend(fontsize=7)
    figure.savefig(path, dpi=110)
    plt.close(figure)


# --- the network ---------------------------------------------------------------------------------


class Lesson(NamedTuple):
    """A training of the network, from its start or from the end of another, and what it is tested on."""

    method: str
    payload: float  # or D
    start: str | None
    steps: int
    tests: dict[str, float]  # row -> payload, or D
    photos: int = 10_000


LESSONS = {
    "LSB matching 0.4": Lesson("lsb", 0.4, None, 1000, {f"LSB matching {x}": x for x in PAYLOADS}),
    "block_dct D=3": Lesson("block_dct_image", 3, "LSB matching 0.4", 200, {"block_dct D=3": 3}, 500),
    "HILL 0.4": Lesson("hill", 0.4, "LSB matching 0.4", 400, {f"HILL {x}": x for x in (0.1, 0.4)}, 500),
}
EASY = 300  # steps in which LSB matching falls from a payload of 1 to 0.4; then it is any of SHARED
SHARED = (0.1, 0.2, 0.4)
DECIDING = 100  # training pairs whose scores decide the network's threshold


def network_config(steps: int, is_first: bool) -> ConfigDict:
    """The settings of a training."""
    config = ConfigDict({"seed": SEED, "model": {"features": (24, 32, 48), "front": "learned", "planes": 3}})
    config.optimizer = ConfigDict({"num_steps": steps, "schedule": "cosine", "warmup_steps": 20})
    config.optimizer.update(learning_rate=3e-3 if is_first else 1e-3, clip_norm=5.0, ema_decay=0.0)
    config.train = ConfigDict({"batch_size": 12, "side": 64, "accumulate_steps": 1, "calibration_steps": 30})
    config.train.update(log_every_steps=20, save_every_steps=100)
    config.train.update(picture_every_steps=10**9, validate_every_steps=10**9)
    return config


def simulate_picture(method: str, payload: float, cover: np.ndarray, seed: int) -> np.ndarray:
    """The stego of a photo at one payload."""
    (stego,) = embed_planes(method, [payload], planes_of(cover), (SEED, seed))
    return np.stack(stego, axis=-1)


def make_stegos(method: str, payload: float, covers: np.ndarray, pool) -> np.ndarray:
    """The stegos of photos."""
    if method == "block_dct_image":
        return hide_photos(method, payload, covers)
    work = partial(simulate_picture, method, payload)
    return np.stack(list(pool.map(work, covers, range(len(covers)), chunksize=8)))


def embed_step(lesson: Lesson, stegos: np.ndarray | None, cover, step: int, rng, cut) -> np.ndarray:
    """The stegos of a step's crops: made anew for LSB matching, crops of those given for the others."""
    if stegos is not None:
        return cut(stegos)
    payload = 1 - 0.6 * step / EASY if step < EASY else rng.choice(SHARED, (len(cover), 1, 1, 1))
    return embedding.lsb_matching(cover, payload, rng)


def learn(name: str, known: dict, covers: np.ndarray, pool, workdir: Path) -> list[dict]:
    """Trains for a lesson, adds its variables to `known`, and tests."""
    lesson = LESSONS[name]
    config = network_config(lesson.steps, lesson.start is None)
    covers = covers[: lesson.photos]
    train, test = split(len(covers))
    made = {}
    if lesson.method != "lsb":
        made[lesson.payload] = make_stegos(lesson.method, lesson.payload, covers, pool)
    embed = partial(embed_step, lesson, made[lesson.payload][train] if made else None)
    draw = learning.draw_pairs(covers[train], embed, config.train.side, config.train.batch_size, SEED)
    known[name] = learning.train(config, draw, workdir / file_name(name), known.get(lesson.start))
    few = train[:DECIDING]
    score, results = partial(learning.score, config, known[name]), []
    clean = score(covers[few]), score(covers[test])
    for row, payload in lesson.tests.items():
        if payload not in made:
            made[payload] = make_stegos(lesson.method, payload, covers, pool)
        threshold, _ = scores.best_threshold(clean[0], score(made[payload][few]))
        figures = scores.measure(clean[1], score(made[payload][test]), threshold)._asdict()
        about = {"row": row, "detector": "network", "trained_on": name, "steps": lesson.steps}
        results.append(about | {"train": len(train)} | figures)
        print(row, f"{figures['accuracy']:.3f}", flush=True)
    return results


def train_network(arguments) -> None:
    """The command `network`."""
    paths = list_photos(arguments.images)[: arguments.count]
    known, rows = {}, []
    with ProcessPoolExecutor(arguments.workers, multiprocessing.get_context("spawn")) as pool:
        covers = np.stack(list(pool.map(cut_photo, paths, chunksize=8)))
        for name in LESSONS:
            rows += learn(name, known, covers, pool, arguments.workdir / "network")
            common.write_json(arguments.workdir / NETWORK, {"photos": len(paths), "rows": rows})


COMMANDS = {"photos": photos, "network": train_network}


def main() -> None:
    """Runs a command."""
    parser = common.make_parser(__doc__)
    parser.add_argument("command", choices=COMMANDS)
    parser.add_argument("--images", required=True)
    parser.add_argument("--count", type=int, help="photos, all by default")
    parser.add_argument("--only", nargs="+", default=[], help="rows to extract features of")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--workdir", type=Path, default=Path("runs/steganalysis"))
    parser.add_argument("--results", type=Path, default=common.RESULTS)
    arguments = parser.parse_args()
    COMMANDS[arguments.command](arguments)


if __name__ == "__main__":
    common.run(main)
