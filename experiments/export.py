"""Exported checkpoints against JAX: size, difference, quality, latency; TFLite also quantised.

    python -m experiments.export [--only block_dct robust] [--width 448 --height 256] [--images FOLDER]

Each file is run by its own runtime (jax.export, LiteRT, ONNX Runtime, all cores) on a group of frames of the
sample clips that nothing was calibrated on, and JAX runs the whole keyed graph on the same frames in turn;
times are the fastest of three. With --images, files of networks for single pictures also run on the middles
of that folder's first --items photos, item i + 1 in item i, under a key. What cannot be converted or run
stands in the table with the error. Rivals without a shipped checkpoint have random parameters of their full
size: their sizes, differences and times say something, their decibels do not. Needs the extra `export`.
Writes export.json; with --only into what is there already.

Machines are noisy: compare times of one row only.
"""

import logging
import os
from pathlib import Path
from typing import NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import jax
import numpy as np
from ml_collections import ConfigDict
from tqdm import tqdm

from deepsteg_jax import loading, media, models
from deepsteg_jax.commands import export
from deepsteg_jax.export import comparing, formats
from deepsteg_jax.schemes import PixelScheme
from deepsteg_jax.schemes.base import Scheme
from experiments import common, tables
from experiments.entries import ENTRIES, Entry


class Exported(NamedTuple):
    """An entry and whether its parameters are shipped."""

    entry: Entry
    shipped: bool
    small: bool = False  # at a quarter of the size: its convolutions take seconds
    formats: str = "stablehlo,tflite,onnx"


EXPORTED = {
    "block_dct": Exported(ENTRIES["block_dct"], True, formats="stablehlo"),
    "block_dct_image": Exported(ENTRIES["block_dct_image"], True, formats="stablehlo"),
    "robust": Exported(Entry("robust"), True),
    "invertible": Exported(ENTRIES["invertible"], True, formats="stablehlo"),
    "prep_hide_reveal": Exported(ENTRIES["prep_hide_reveal"], True, True),
    "prep_hide_reveal_small": Exported(ENTRIES["prep_hide_reveal_small"], True, True),
}


def make_scheme(exported: Exported) -> Scheme:
    """The scheme of an entry, with random parameters where none are shipped."""
    config = exported.entry.load()
    if exported.shipped:
        return loading.load(config)
    params = jax.jit(models.build(config.model).init)(jax.random.key(0))
    noise = np.random.default_rng(0)  # since layers that begin at zero would hide every difference
    params = jax.tree.map(lambda x: np.asarray(x + 0.02 * noise.standard_normal(x.shape, np.float32)), params)
    return PixelScheme(config, params.get)


def read_pairs(folder: Path, items: int, height: int, width: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Covers and secrets from the middles of photos, uint8 [1, height, width, 3]."""
    photos = []
    for path in sorted(folder.iterdir())[:items]:
        picture = media.images.load(path)
        y, x = (picture.shape[0] - height) // 2, (picture.shape[1] - width) // 2
        photos.append(picture[None, y : y + height, x : x + width])
    return list(zip(photos, photos[1:] + photos[:1], strict=True))


def on_photos(scheme: Scheme, rows: list[dict], pairs: list, folder: Path) -> None:
    """Add to the rows of files the mean PSNR over pairs of photos, in dB, and JAX's."""
    shape = pairs[0][0].shape[:3]
    exact, inputs = scheme.graphs(shape), [scheme.graph_inputs(*pair, i) for i, pair in enumerate(pairs)]
    wanted = {}
    for graph in exact:
        outputs = [graph(given) for given in inputs]
        wanted[graph.name] = [
            comparing.quality(graph, exact, *pair) for pair in zip(inputs, outputs, strict=True)
        ]
    for row in (row for row in rows if "error" not in row):
        portable = row["format"] != "stablehlo"
        graph = next(one for one in scheme.graphs(shape, portable) if one.name == row["graph"])
        run = formats.load((folder / row["file"]).read_bytes(), row["format"], list(graph.outputs), 1)
        found = [comparing.quality(graph, exact, given, run(**graph.pick(given))) for given in inputs]
        row["photos"] = {"items": len(pairs)} | _means(found)
        row["photos"] |= {f"jax_{name}": db for name, db in _means(wanted[graph.name]).items()}


def _means(found: list[dict[str, float]]) -> dict[str, float]:
    return {name: float(np.mean([each[name] for each in found])) for name in found[0]}


def measure(name: str, width: int, height: int, folder: Path, images: Path | None, items: int) -> list[dict]:
    """All files of one entry."""
    scheme, folder = make_scheme(EXPORTED[name]), folder / name
    group = scheme.graph_facts()["group"]
    divide = 4 if EXPORTED[name].small else 1
    settings = ConfigDict({"formats": EXPORTED[name].formats, "quantise": "float16,weights,int8"})
    settings.sizes, settings.frames = f"{width // divide}x{height // divide}", str(group)
    plan = export.read_plan(settings, group)
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for row in tqdm(export.export_shape(scheme, plan, plan.shapes[0], folder), desc=name, unit="file"):
        row.pop("inputs", None)
        rows.append(row)
    if images and plan.shapes[0][0] == 1:
        on_photos(scheme, rows, read_pairs(images, items, *plan.shapes[0][1:]), folder)
    return rows


def main() -> None:
    """Exports, compares, writes the tables."""
    parser = common.make_parser(__doc__)
    parser.add_argument("--only", nargs="+", choices=EXPORTED, default=list(EXPORTED))
    parser.add_argument("--width", type=int, default=448)
    parser.add_argument("--height", type=int, default=256)
    parser.add_argument("--images", type=Path)
    parser.add_argument("--items", type=int, default=10)
    parser.add_argument("--workdir", type=Path, default=Path("runs/export"))
    arguments = parser.parse_args()
    logging.getLogger("onnx_ir").setLevel(logging.ERROR)
    path = arguments.workdir / "export.json"
    report = common.read_json(path, {})
    photos = arguments.images, arguments.items
    for name in arguments.only:
        report[name] = measure(name, arguments.width, arguments.height, arguments.workdir, *photos)
        report = {name: report[name] for name in EXPORTED if name in report}
        common.write_json(path, report)
        print(tables.export({name: report[name]}), flush=True)


if __name__ == "__main__":
    common.run(main)
