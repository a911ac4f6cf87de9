"""The benchmark: how well pictures hide in one another, on any folder of clips or of images.

    python experiments/quality.py --clips FOLDER [--trained runs/benchmark] [--workdir runs/quality/clips]
    python experiments/quality.py --images FOLDER [--trained runs/benchmark] [--workdir runs/quality/images]

Items are sorted by name and item i + 1 is hidden in item i, through files written and read back: of clips
frames 5..34 at 448x256 (protocol Q1), of images the 256x256 centre crop. RGB, 8-bit; mean over frames of
per-frame dB, then over items. Rows:

    block_dct        the shipped checkpoint at several steps D, and with the other settings of the shuffle
    lsb_codec        the baseline: x264's bytes in the low digits (no network, no training)
    the others       networks of train_entries.py, where --trained holds them

Each row is kept in WORKDIR/rows, so that an interrupted run goes on; --only measures single rows and
--tables-only measures none; a row of fewer --frames says so. Writes quality.json (every item's figures of
every row), quality.md and quality.png (secret against stego, with the published points of published.json).
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from entries import ENTRIES, Entry, file_name
from ml_collections import ConfigDict
from tqdm import tqdm

from deepsteg_jax import costs, evaluation, lsb_codec, media, models, plots
from deepsteg_jax.commands.common import load_side
from deepsteg_jax.errors import UserError

STEPS = (2, 3, 4, 5)
SHUFFLES = (  # besides the default
    ("nothing", "blocks"),
    ("cover", "blocks"),
    ("secret", "coefficients"),
    ("secret", "blocks"),
)
MODULI = {2: "1 LSB", 3: "ternary", 5: "mod 5"}
FRAMES = 30  # of a clip
SIZE = {"clips": (256, 448), "images": (256, 256)}
RULE = (
    "`python experiments/quality.py --{kind} FOLDER --trained runs/benchmark`\n\n"
    "RGB, 8-bit, through files written and read back; mean over frames of per-frame dB, then over items; "
    "SSIMULACRA2 of the first of every five frames. "
    "Parameters are those of both sides, shared ones counted twice. "
    "Frame rates are file to file; those of lsb_codec include the search for the finest rate that fits. "
    "Published rows: as published, on other pictures; sources and notes in experiments/published.json."
)
PUBLISHED = Path(__file__).with_name("published.json")
COLUMNS = {
    "stego_psnr_db": ("stego dB", ".2f"),
    "stego_ssim": ("SSIM", ".4f"),
    "stego_ssimulacra2": ("SSIMULACRA2", ".1f"),
    "secret_psnr_db": ("secret dB", ".2f"),
    "secret_ssim": ("SSIM", ".4f"),
    "secret_ssimulacra2": ("SSIMULACRA2", ".1f"),
    "median_stego_db": ("median stego dB", ".2f"),
    "median_secret_db": ("median secret dB", ".2f"),
    "worst_secret_db": ("worst secret dB", ".2f"),
    "wrong_key_psnr_db": ("wrong key dB", ".1f"),
    "gmac": ("GMAC/frame", ".2f"),
    "parameters": ("M parameters", ".2f"),
    "hide_fps": ("hide fps", ".1f"),
    "reveal_fps": ("reveal fps", ".1f"),
    "capacity_bpp": ("bpp", ".0f"),
}


def settings_of(kind: str, folder: str, frames: int) -> ConfigDict:
    """Section `evaluate` of protocol Q1 or of its counterpart for images."""
    settings = ENTRIES["block_dct"].load().evaluate
    settings.path, settings.perceptual, settings.frames = folder, True, frames
    settings.height, settings.width = SIZE[kind]
    return settings


def learned_row(config: ConfigDict, settings: ConfigDict, workdir: Path, progress) -> tuple[dict, list]:
    """Measures one network: (figures, pictures); its cost is that of the bare model."""
    run = partial(evaluation.hide_and_reveal, load_side(config, "hide"), load_side(config, "reveal"))
    items, pictures = evaluation.evaluate_folder(run, settings, workdir, progress)
    model = models.build(config.model)
    gmac = costs.gmac_per_frame(model, config.model.frames, settings.height, settings.width)
    counts = costs.parameter_counts(model)
    return {
        "model": config.model.to_dict(),
        "shuffle": config.shuffle.to_dict(),
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
    for moves, cipher in SHUFFLES:
        name = f"block_dct D=3, shuffle moves {moves}"
        name += "" if moves == "nothing" else f" by {cipher}"
        changes = {"shuffle__moves": moves, "shuffle__cipher": cipher}
        configs[name] = learned_config(ours, None, model__modulus=3, **changes)
    for name, entry in ENTRIES.items():
        if trained and not name.startswith("block_dct") and (trained / name / "checkpoints").is_dir():
            configs[name] = learned_config(entry, str(trained / name))
            unkeyed = learned_config(entry, str(trained / name), shuffle__moves="nothing")
            configs[f"{name}, no shuffle"] = unkeyed
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
    path.write_text(json.dumps({"name": name, **row, "mean": mean}, indent=2) + "\n")


def figures_of(row: dict) -> dict[str, float]:
    """What the table shows of a measured row."""
    figures = row["mean"] | {name: row[name] for name in ("gmac", "parameters") if name in row}
    for side in ("stego", "secret"):
        values = [item[f"{side}_psnr_db"] for item in row["items"]]
        figures |= {f"median_{side}_db": np.median(values), f"worst_{side}_db": min(values)}
    return figures


def published_rows(kind: str) -> dict[str, dict]:
    """Published figures by the name of the system, in the columns of the table."""
    rows = [row for row in json.loads(PUBLISHED.read_text())["figures"] if row["kind"] == kind]
    renamed = {"gmac": "gmac_per_frame", "parameters": "parameters_m"}
    names = {name: renamed.get(name, name) for name in COLUMNS}
    return {
        row["system"]: {name: row[key] for name, key in names.items() if row.get(key) is not None}
        for row in rows
    }


def markdown(rows: dict[str, dict[str, float]]) -> str:
    """One line for each row; a dash where a figure does not apply."""
    titles, formats = zip(*COLUMNS.values(), strict=True)
    lines = ["| | " + " | ".join(titles) + " |", "|---" * (len(COLUMNS) + 1) + "|"]
    for name, figures in rows.items():
        few = f" ({figures['frames']:.0f} frames)" if 1 < figures.get("frames", 1) < FRAMES else ""
        cells = [
            format(figures[column], style) if column in figures else "-"
            for column, style in zip(COLUMNS, formats, strict=True)
        ]
        lines.append(f"| {name}{few} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def write_tables(kind: str, names: list[str], workdir: Path) -> str:
    """Puts the measured rows, in the order of `names`, into quality.json, .md and .png."""
    found = {
        row["name"]: row
        for path in (workdir / "rows").glob("*.json")
        for row in [json.loads(path.read_text())]
    }
    rows = [found[name] for name in names if name in found]
    figures, published = {row["name"]: figures_of(row) for row in rows}, published_rows(kind)
    table = markdown(figures | {f"*{name}, published*": row for name, row in published.items()})
    (workdir / "quality.json").write_text(json.dumps(rows, indent=1) + "\n")
    (workdir / "quality.md").write_text(f"{RULE.format(kind=kind)}\n\n{table}\n")
    measured = [(name, row) for name, row in figures.items() if "shuffle" not in name]
    plots.quality(workdir / "quality.png", {"measured here": measured, "published": list(published.items())})
    return table


def make_parser(description: str) -> argparse.ArgumentParser:
    """The options of scripts that measure entries on a folder."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    folders = parser.add_mutually_exclusive_group(required=True)
    folders.add_argument("--clips")
    folders.add_argument("--images")
    parser.add_argument("--trained", type=Path, help="folder of train_entries.py")
    parser.add_argument("--only", nargs="+", help="names of rows")
    parser.add_argument("--frames", type=int, default=FRAMES, help="fewer, for a network that is very slow")
    parser.add_argument("--tables-only", action="store_true")
    return parser


def main() -> int:
    """Measures the rows that are missing and prints the table."""
    parser = make_parser(__doc__)
    parser.add_argument("--workdir", type=Path)
    arguments = parser.parse_args()
    kind = "clips" if arguments.clips else "images"
    workdir = arguments.workdir or Path("runs/quality") / kind
    settings = settings_of(kind, arguments.clips or arguments.images, arguments.frames)
    rows = rows_of(kind, settings, arguments.trained)
    wanted = [] if arguments.tables_only else arguments.only or list(rows)
    if unknown := set(wanted) - set(rows):
        parser.error(f"no such row: {', '.join(unknown)}; there are {', '.join(rows)}")
    try:
        for name in wanted:
            measure_row(name, rows[name], workdir)
    except UserError as error:
        print(f"quality.py: {error}", file=sys.stderr)
        return 1
    print(write_tables(kind, list(rows), workdir))
    return 0


if __name__ == "__main__":
    sys.exit(main())
