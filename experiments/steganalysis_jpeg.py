"""Steganalysers trained on own pairs of JPEGs: `adaptive_jpeg` against the simulated J-UNIWARD of conseal.

    pip install -r experiments/requirements-steganalysis.txt
    python -m experiments.steganalysis_jpeg --images FOLDER [--count N]

The covers of experiments.steganalysis in grey, coded at quality 75 and 95. Payloads are bits per AC
coefficient other than 0: `adaptive_jpeg` embeds 0.1 and 0.4, rounded to a quarter of an octave of bits, ideal
codes 1.25 times that at conseal's costs of J-UNIWARD; a detector that counts must find nsF5. DCTR and GFR
features and the linear ensemble; figures are means over random halves. Features are kept in WORKDIR, so that
an interrupted run goes on.
"""

from collections.abc import Iterator
from io import BytesIO
from itertools import product
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.fft import idctn

from deepsteg_jax import media
from deepsteg_jax.schemes.adaptive import coefficients
from deepsteg_jax.steganalysis import ensemble, features, scores
from experiments import common
from experiments.entries import Entry
from experiments.steganalysis import SEED, cut_photo, halves, list_photos, spread

QUALITIES, PAYLOADS = (75, 95), (0.1, 0.4)
MORE = 1.25  # times the payload, for the ideal code
FLOOR = 0.4  # payload of nsF5
DETECTORS = {"dctr": features.dctr, "gfr": features.gfr}


def pixels(plane: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """Decoded samples of a plane, not rounded, [h, w]."""
    blocks = idctn(plane * steps.astype(float), axes=(2, 3), norm="ortho")
    return blocks.swapaxes(1, 2).reshape(8 * plane.shape[0], -1) + 128


def code(photo: np.ndarray, quality: int) -> media.Coefficients:
    """The grey JPEG of a photo."""
    file = BytesIO()
    Image.fromarray(photo).convert("L").save(file, "JPEG", quality=quality)
    return media.jpeg.decode(file.getvalue())


def embed(cover: media.Coefficients, payload: float, rng: np.random.Generator) -> tuple[np.ndarray, float]:
    """The plane after embedding random bytes as the scheme does, and the bits per coefficient."""
    settings, count = Entry("adaptive_jpeg").load().model, media.nonzero(cover)
    size = round(2 ** (round(4 * np.log2(payload * count / 8)) / 4))  # of few layouts, each of which compiles
    at = coefficients.rest(cover.planes[0].size // 64, coefficients.Places(), size, rng.bytes(32))
    costs = coefficients.costs(cover, settings.chroma)
    found = coefficients.embed(coefficients.flat(cover), costs, at, rng.bytes(size), settings.height)
    return found.reshape(cover.planes[0].shape), 8 * size / count


def stegos(cover: media.Coefficients, seed: int) -> Iterator[tuple[str, np.ndarray, float]]:
    """Name, plane and bits per coefficient of all stegos of a cover."""
    import conseal

    plane, steps, count = cover.planes[0], cover.steps[0], media.nonzero(cover)
    decoded = np.clip(np.round(pixels(plane, steps)), 0, 255)
    juniward = conseal.juniward
    costs = juniward.compute_cost_adjusted(
        decoded, plane, steps, implementation=juniward.JUNIWARD_FIX_OFF_BY_ONE
    )
    for payload in PAYLOADS:
        stego, rate = embed(cover, payload, np.random.default_rng((SEED, seed)))
        yield f"adaptive_jpeg {payload}", stego, rate
        change = conseal.simulate.ternary(rhos=costs, alpha=MORE * rate, n=count, seed=seed)
        yield f"J-UNIWARD {payload * MORE:g}", plane + change, MORE * rate
    yield f"nsF5 {FLOOR}", conseal.nsF5.simulate_single_channel(plane, FLOOR, seed=seed), FLOOR


def extract(photo: Path, seed: int) -> dict[str, np.ndarray]:
    """Features, rate and share of changed coefficients of a photo's cover and stegos at all qualities."""
    found, cut = {}, cut_photo(photo)
    for quality in QUALITIES:
        cover = code(cut, quality)
        plane, steps = cover.planes[0], cover.steps[0]
        made = [("cover", plane, 0.0), *stegos(cover, seed)]
        for (name, stego, rate), (detector, function) in product(made, DETECTORS.items()):
            found[f"{quality} {name} {detector}"] = function(pixels(stego, steps), quality)
            found[f"{quality} {name} about"] = np.array([rate, (stego != plane).sum() / media.nonzero(cover)])
    return found


def judge(cover: np.ndarray, stego: np.ndarray) -> dict[str, float]:
    """Mean accuracy and area under the curve on halves that took no part in the training."""
    accuracies, areas = [], []
    for half, (train, test) in enumerate(halves(len(cover))):
        trained = ensemble.train(cover[train], stego[train], half)
        pair = [ensemble.score(trained, x[test]) for x in (cover, stego)]
        accuracies.append(scores.accuracy(*pair, trained.threshold))
        areas.append(scores.auc(*pair))
    mean, area = float(np.mean(accuracies)), float(np.mean(areas))
    return {"accuracy": mean, "interval": spread(accuracies), "auc": area}


def main() -> None:
    """Extracts what is missing, then trains and tests."""
    parser = common.make_parser(__doc__)
    parser.add_argument("--images", required=True)
    parser.add_argument("--count", type=int, help="photos, all by default")
    parser.add_argument("--workdir", type=Path, default=Path("runs/steganalysis_jpeg"))
    parser.add_argument("--results", type=Path, default=common.RESULTS)
    arguments = parser.parse_args()
    arguments.workdir.mkdir(parents=True, exist_ok=True)
    paths, kept = list_photos(arguments.images)[: arguments.count], []
    for seed, photo in enumerate(paths):
        path = arguments.workdir / f"{seed}.npz"
        if not path.exists():
            part = path.with_suffix(".part.npz")
            np.savez(part, **extract(photo, seed))
            part.replace(path)
        kept.append(dict(np.load(path)))
    rows = []
    names = [key.removesuffix(" about") for key in kept[0] if key.endswith(" about")]
    for name, detector in product((name for name in names if not name.endswith("cover")), DETECTORS):
        quality = int(name.split()[0])
        keys = f"{quality} cover {detector}", f"{name} {detector}", f"{name} about"
        cover, stego, about = (np.stack([found[key] for found in kept]) for key in keys)
        rate, changed = about.mean(0)
        row = {"quality": quality, "row": name.split(maxsplit=1)[1], "rate": rate, "changed": changed}
        rows.append(row | {"detector": detector} | judge(cover, stego))
        print(rows[-1], flush=True)
    common.write_json(arguments.results / "steganalysis_jpeg.json", {"photos": len(paths), "rows": rows})


if __name__ == "__main__":
    common.run(main)
