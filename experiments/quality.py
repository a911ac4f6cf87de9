"""The benchmark: how well pictures hide in one another, on any folder of clips or of images.

    python -m experiments.quality --clips FOLDER [--trained runs/benchmark] [--workdir runs/quality/clips]
    python -m experiments.quality --images FOLDER [--trained runs/benchmark] [--workdir runs/quality/images]

Items are sorted by name and item i + 1 is hidden in item i, through files written and read back: of clips
frames 5..34 at 448x256 (protocol Q1), of images the 256x256 centre crop. RGB, 8-bit; mean over frames of
per-frame dB, then over items; with --size 224x224 crops are of that size, and rows say so. Rows:

    adaptive         at several rates; the secret is coded to fit, covers are in 4:2:0
    block_dct        the shipped checkpoint at several steps D, and with the other settings of the shuffle
    lsb_codec        the baseline: x264's bytes in the low digits (no network, no training)
    the others       networks, shipped or of train_entries.py, where --trained holds them

Each row is kept in WORKDIR/rows, so that an interrupted run goes on; --only measures single rows and
--tables-only measures none; a row of fewer --frames says so. Writes quality.json (every item's figures of
every row) and quality.png (secret against stego, with the published points of published.json).
"""

import re
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict
from tqdm import tqdm

from deepsteg_jax import evaluation, loading, media, plots
from deepsteg_jax.api import SHIPPED
from deepsteg_jax.errors import UserError
from experiments import common, tables
from experiments.baselines import lsb_codec
from experiments.entries import ENTRIES, Entry, file_name

STEPS = (2, 3, 4, 5)
SHUFFLES = (  # besides the default
    ("nothing", "blocks"),
    ("cover", "blocks"),
    ("secret", "coefficients"),
    ("secret", "blocks"),
)
RATES = (0.05, 0.1, 0.4)  # of adaptive, bits per sample
MODULI = {2: "1 LSB", 3: "ternary", 5: "mod 5"}
SIZED = re.compile(r", \d+x\d+$")  # ends the name of a row of another size than the protocol's


def learned_row(config: ConfigDict, settings: ConfigDict, workdir: Path, progress) -> tuple[dict, list]:
    """Measures one network: (figures, pictures); its cost is that of the bare model."""
    scheme = loading.load(config)
    run = partial(evaluation.hide_and_reveal, scheme)
    items, pictures = evaluation.evaluate_folder(
        run, settings, workdir, progress, in_planes=scheme.domain == "own"
    )
    gmac, counts = scheme.complexity(settings.height, settings.width).values()
    return {
        "model": config.model.to_dict(),
        **{name: config[name].to_dict() for name in ("shuffle", "payload") if name in config},
        "checkpoint": Path(config.checkpoint).name,
        "gmac": sum(gmac.values()),
        "parameters": sum(counts.values()) / 1e6,
        "items": items,
    }, pictures


def lsb_row(modulus: int, settings: ConfigDict, workdir: Path, progress) -> tuple[dict, list]:
    """Measures the baseline: (figures, pictures); its frame rates include the search for the rate."""

    def run(files: evaluation.Files) -> dict[str, float]:
        cover, secret = (np.stack(list(media.read_frames(path))) for path in (files.cover, files.secret))
        start = time.monotonic()
        media.write_frames(files.stego, lsb_codec.hide(cover, secret, modulus))
        hidden = time.monotonic()
        media.write_frames(
            files.revealed, lsb_codec.reveal(np.stack(list(media.read_frames(files.stego))), modulus)
        )
        return {
            "hide_fps": len(cover) / (hidden - start),
            "reveal_fps": len(cover) / (time.monotonic() - hidden),
        }

    items, pictures = evaluation.evaluate_folder(run, settings, workdir, progress)
    return {"model": {"name": "lsb_codec", "modulus": modulus}, "items": items}, pictures


def learned_config(entry: Entry, checkpoint: str | None, **changes) -> ConfigDict:
    """An entry's config with another checkpoint and changed settings, by dotted name."""
    config = entry.load()
    config.checkpoint = checkpoint or config.checkpoint
    config.update_from_flattened_dict({name.replace("__", "."): value for name, value in changes.items()})
    return config


def rows_of(kind: str, settings: ConfigDict, trained: Path | None) -> dict[str, Callable]:
    """Every row by its name: a function of (workdir, progress)."""
    ours = ENTRIES["block_dct" if kind == "clips" else "block_dct_image"]
    configs = {f"block_dct D={step}": learned_config(ours, None, model__modulus=step) for step in STEPS}
    for rate in RATES:
        configs[f"adaptive {rate}"] = learned_config(Entry("adaptive"), None, payload__rate=rate)
    for moves, cipher in SHUFFLES:
        name = f"block_dct D=3, shuffle moves {moves}"
        name += "" if moves == "nothing" else f" by {cipher}"
        changes = {"shuffle__moves": moves, "shuffle__cipher": cipher}
        configs[name] = learned_config(ours, None, model__modulus=3, **changes)
    for name, entry in ENTRIES.items():
        own = str(trained / name) if trained and (trained / name / "checkpoints").is_dir() else None
        if not name.startswith("block_dct") and (own or name in SHIPPED):
            configs[name] = learned_config(entry, own)
            configs[f"{name}, no shuffle"] = learned_config(entry, own, shuffle__moves="nothing")
    rows = {name: partial(learned_row, config, settings) for name, config in configs.items()}
    return rows | {
        f"lsb_codec {title}": partial(lsb_row, modulus, settings) for modulus, title in MODULI.items()
    }


def measure_row(name: str, run: Callable, workdir: Path) -> None:
    """Measures a row unless it is there already, and keeps it with its pictures."""
    path = workdir / "rows" / f"{file_name(name)}.json"
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    row, pictures = run(workdir, lambda items: tqdm(items, desc=name, unit="item"))
    mean = evaluation.mean_of(row["items"])
    plots.comparison(path.with_suffix(".png"), pictures)
    common.write_json(path, {"name": name, **row, "mean": mean})


def write_results(kind: str, names: list[str], workdir: Path) -> str:
    """Write the measured rows, in the order of `names`, to quality.json and quality.png; return the table.

    Raises:
        UserError: nothing is measured.
    """
    found = sorted(map(common.read_json, (workdir / "rows").glob("*.json")), key=lambda row: row["name"])
    rows = [row for name in names for row in found if SIZED.sub("", row["name"]) == name]
    if not rows:
        raise UserError(f"nothing is measured in {workdir}: leave --tables-only out")
    common.write_json(workdir / "quality.json", rows)
    figures = {row["name"]: tables.quality_figures(row) for row in rows if tables.is_shown(row["name"])}
    points = {"measured here": figures, "published": tables.published(kind)}
    plots.quality(workdir / "quality.png", {group: list(rows.items()) for group, rows in points.items()})
    return tables.quality(rows, kind)


def main() -> int:
    """Measures the rows that are missing and prints the table."""
    parser = common.make_parser(__doc__)
    common.add_folders(parser)
    parser.add_argument("--workdir", type=Path)
    parser.add_argument("--size", help="width x height, such as 224x224")
    arguments = parser.parse_args()
    kind = "clips" if arguments.clips else "images"
    workdir = arguments.workdir or Path("runs/quality") / kind
    settings = common.q1_settings(kind, arguments.clips or arguments.images, arguments.frames)
    if arguments.size and not SIZED.fullmatch(f", {arguments.size}"):
        parser.error(f"--size is like 224x224, not {arguments.size!r}")
    if arguments.size:
        settings.width, settings.height = map(int, arguments.size.split("x"))
    rows = rows_of(kind, settings, arguments.trained)
    wanted = [] if arguments.tables_only else arguments.only or list(rows)
    if unknown := set(wanted) - set(rows):
        parser.error(f"no such row: {', '.join(unknown)}; there are {', '.join(rows)}")
    for name in wanted:
        measure_row(f"{name}, {arguments.size}" if arguments.size else name, rows[name], workdir)
    print(write_results(kind, list(rows), workdir))
    return 0


if __name__ == "__main__":
    common.run(main)
