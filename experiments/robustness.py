"""How well hidden pictures survive real codecs, on any folder of clips or of images.

    python -m experiments.robustness --clips FOLDER [--trained runs/benchmark] [--workdir runs/robustness]
    python -m experiments.robustness --images FOLDER [--trained runs/benchmark] [--workdir runs/robustness]

The pairs are those of quality.py (protocol Q1: item i + 1 is hidden in item i, frames 5..34 at 448x256; of
images the 256x256 centre crop). Every entry hides once, its stego goes through every codec of
`channels.ladder`, and so does the clean cover; clips are brought into 4:2:0 first, as videos come. RGB,
8-bit, mean over frames of per-frame dB, then over items; SSIMULACRA2 of every fifth frame. Bit rates are
those of the coded pictures at 25 frames/s. The efficiency of a system that codes symbols is the payload of
all that can be decoded over the mutual information of all its data symbols as sent and as received
(`systems.information`), both summed over items.

Every figure is kept in WORKDIR/KIND/cells by entry, codec and item, so that an interrupted run goes on;
--only, --codecs and --items measure less and --tables-only nothing; an entry of fewer --frames says so.
--speed times each entry on 10 s of the first item instead. Writes robustness.json and .png
(secret down the ladder, and against x264's rate factor) and robustness_pictures.png to WORKDIR/KIND.
"""

import argparse
import json
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from ml_collections import ConfigDict
from tqdm import tqdm

from deepsteg_jax import evaluation, media, metrics
from deepsteg_jax.channels import ladder
from deepsteg_jax.channels.ladder import CodecRun
from deepsteg_jax.errors import UserError
from deepsteg_jax.plots import plt
from deepsteg_jax.schemes.robust.layout import SEGMENT
from experiments import common, tables
from experiments.entries import file_name
from experiments.systems import KEY, Context, Row, System, rows_of

CURVE = [ladder.named(f"CRF{crf}") for crf in (20, 22, 24, 26, 28)]  # finer steps of x264
LADDERS = {"clips": ladder.VIDEO, "images": ladder.IMAGE}
SHOWN = {"clips": "C6", "images": "C9-75"}  # the codec of the picture grid
COVER = "cover"  # the clean one, measured like an entry
SEEN = slice(None, None, 5)  # frames whose SSIMULACRA2 is measured
LONG = 250  # frames of a clip of 10 s
PLANES = "yuv420p"


# --- measuring -----------------------------------------------------------------------------------


class Pair(NamedTuple):
    """A cover and what is hidden in it, uint8 [n, h, w, 3]."""

    names: tuple[str, str]
    cover: np.ndarray
    secret: np.ndarray
    planes: media.Planes | None = None  # of a clip, in 4:2:0, of which `cover` is made

    def cover_for(self, system: System) -> media.Planes | np.ndarray:
        """The cover as a system takes it."""
        return self.planes if system.in_planes and self.planes else self.cover

    def context(self) -> Context:
        """What both sides know."""
        return Context(KEY, self.secret.shape)

    def settings(self) -> dict:
        """What a figure of this pair depends on, fit for JSON."""
        return {"items": list(self.names), "shape": list(self.cover.shape)}


def pairs_of(settings: ConfigDict, count: int | None) -> Iterator[Pair]:
    """The pairs of protocol Q1, or only the first `count`."""
    items = evaluation.list_items(settings.path)
    for i, path in enumerate(items[:count]):
        following = items[(i + 1) % len(items)]
        cover, secret = evaluation.prepare(path, settings), evaluation.prepare(following, settings)
        frames = min(len(cover), len(secret))
        names, secret, planes = (path.name, following.name), np.stack(secret[:frames]), None
        if not media.probe(path).is_image:
            planes = media.stack([media.from_rgb(frame, PLANES) for frame in cover[:frames]])
            cover = media.unstack(rgb_of(planes))
        yield Pair(names, np.stack(cover[:frames]), secret, planes)


def rgb_of(frames: media.Planes | np.ndarray) -> np.ndarray:
    """Frames as uint8 RGB [n, h, w, 3]."""
    if not isinstance(frames, media.Planes):
        return np.asarray(frames)
    return np.stack([media.to_rgb(frame, PLANES) for frame in media.unstack(frames)])


FIGURES = {
    "psnr_db": (metrics.psnr, slice(None)),
    "ssim": (metrics.ssim, slice(None)),
    "ssimulacra2": (metrics.ssimulacra2, SEEN),
}


def likeness(name: str, a: np.ndarray, b: np.ndarray, figures=("psnr_db", "ssim")) -> dict[str, float]:
    """Mean over frames of figures of `FIGURES`, `a` the original."""
    found = {}
    with ThreadPoolExecutor(evaluation.WORKERS) as pool:
        for figure in figures:
            measure, some = FIGURES[figure]
            found[f"{name}_{figure}"] = float(np.mean(list(pool.map(measure, a[some], b[some]))))
    return found


def measure_cover(codec: CodecRun, pair: Pair) -> dict[str, float]:
    """The clean cover through a codec, and what mid-grey in place of the secret would be worth."""
    received = ladder.run(codec, pair.planes or pair.cover)
    return {
        **likeness("after", pair.cover, rgb_of(received.frames), FIGURES),
        "size_bytes": received.size_bytes,
        "grey_psnr_db": likeness("grey", pair.secret, pair.context().grey())["grey_psnr_db"],
    }


def measure_stego(
    system: System, codec: CodecRun, pair: Pair, stego: media.Planes | np.ndarray, pictures: Path | None
) -> dict[str, float]:
    """A stego through a codec; with `pictures` the middle frames side by side are saved there."""
    received = ladder.run(codec, stego)
    revealed, seen = np.asarray(system.reveal(received.frames, pair.context())), rgb_of(received.frames)
    if pictures:
        middle = len(seen) // 2
        four = pair.cover, seen, pair.secret, revealed
        media.write_frames(pictures, [np.concatenate([frames[middle] for frames in four], axis=1)])
    return {
        **likeness("after", pair.cover, seen, FIGURES),
        **likeness("secret", pair.secret, revealed),
        **(system.arrived(received.frames)._asdict() if system.arrived else {}),
        "size_bytes": received.size_bytes,
    }


def measure_speed(system: System, pair: Pair) -> dict[str, float]:
    """Frames per second of hide and of reveal after x264 CRF 23; the pair is played to and fro for 10 s.

    A short one has compiled everything before.
    """
    rates = {}
    for count in (SEGMENT, LONG):
        cover, secret = (
            media.stack([*common.to_and_fro(media.unstack(x), count)])
            for x in (pair.cover_for(system), pair.secret)
        )
        context, start = Context(KEY, secret.shape), time.monotonic()
        stego = system.hide(cover, secret, context)
        rates["hide_fps"] = count / (time.monotonic() - start)
        received, start = ladder.run(ladder.named("C6"), stego).frames, time.monotonic()
        system.reveal(received, context)
        rates["reveal_fps"] = count / (time.monotonic() - start)
    return rates


class Cells:
    """Figures by entry, codec, item and number of frames, each in a file of its own."""

    def __init__(self, folder: Path):
        self._folder = folder

    def path(self, row: str, codec: CodecRun, item: str, frames: int) -> Path:
        """Where they lie."""
        return self._folder / file_name(row) / file_name(codec.name) / f"{file_name(item)}_{frames}.json"

    def frames(self, row: str, codec: CodecRun, item: str) -> int:
        """The most frames that this was measured with, 0 for none."""
        found = self.path(row, codec, item, 0).parent.glob(f"{file_name(item)}_*.json")
        return max((int(path.stem.rpartition("_")[2]) for path in found), default=0)

    def read(self, row: str, codec: CodecRun, item: str, frames: int, settings: dict) -> dict | None:
        """{"pair", "figures"} if they were measured with just this codec and these settings of the row."""
        path = self.path(row, codec, item, frames)
        found = json.loads(path.read_text()) if path.exists() else {}
        return found if found.get("of") == _plain([codec._asdict(), settings]) else None

    def write(self, row: str, codec: CodecRun, pair: Pair, settings: dict, figures: dict) -> None:
        """Keeps figures; an interruption leaves no half of a file."""
        path = self.path(row, codec, pair.names[0], len(pair.cover))
        path.parent.mkdir(parents=True, exist_ok=True)
        cell = {"of": [codec._asdict(), settings], "pair": pair.settings(), "figures": figures}
        part = path.with_suffix(".part")
        part.write_text(json.dumps(cell, indent=1) + "\n")
        part.replace(path)

    def has(self, row: str, codec: CodecRun, pair: Pair, settings: dict) -> bool:
        """Whether this pair is measured."""
        found = self.read(row, codec, pair.names[0], len(pair.cover), settings)
        return found is not None and found["pair"] == pair.settings()


def _plain(value):
    """As it comes back from a JSON file."""
    return json.loads(json.dumps(value))


def measure_pair(
    rows: dict[str, Row], codecs: list[CodecRun], pair: Pair, cells: Cells, shown: str | None, progress: tqdm
) -> None:
    """Measures what is missing of one pair; `shown` names the codec whose pictures are kept."""
    for codec in codecs:
        if not cells.has(COVER, codec, pair, {}):
            cells.write(COVER, codec, pair, {}, measure_cover(codec, pair))
        progress.update()
    for name, row in rows.items():
        meant = [codec for codec in codecs if row.codec in (None, codec.name)]
        missing = [codec for codec in meant if not cells.has(name, codec, pair, row.settings)]
        progress.update(len(codecs) - len(missing))
        if not missing:
            continue
        progress.set_description(name)
        system = row.load()
        stego = system.hide(pair.cover_for(system), pair.secret, pair.context())
        before = likeness("before", pair.cover, rgb_of(stego), FIGURES)
        for codec in missing:
            path = cells.path(name, codec, pair.names[0], len(pair.cover)).with_suffix(".png")
            path.parent.mkdir(parents=True, exist_ok=True)
            after = measure_stego(system, codec, pair, stego, path if codec.name == shown else None)
            cells.write(name, codec, pair, row.settings, before | after)
            progress.update()


# --- tables and pictures -------------------------------------------------------------------------


def item_figures(stego: dict, cover: dict) -> dict:
    """All figures of one item: those of the stego, the clean cover's beside them, and rates."""
    pair, figures, clean = stego["pair"], stego["figures"], cover["figures"]
    result = {"cover": pair["items"][0], "secret": pair["items"][1], "frames": pair["shape"][0], **figures}
    result |= {f"cover_{figure}": clean[f"after_{figure}"] for figure in FIGURES}
    result |= {"grey_psnr_db": clean["grey_psnr_db"], "ratio": figures["size_bytes"] / clean["size_bytes"]}
    for prefix, size in (("", figures["size_bytes"]), ("cover_", clean["size_bytes"])):
        result[f"{prefix}kbit_s"] = ladder.bit_rate(size, pair["shape"][0]) / 1000
        result[f"{prefix}bpp"] = ladder.bits_per_pixel(size, pair["shape"])
    return result


def collect(rows: dict[str, Row], codecs: list[CodecRun], cells: Cells, names: list[str]) -> list[dict]:
    """What is measured of every entry and codec: one dict each, with every item's figures and their mean."""
    results = []
    for name, row in rows.items():
        for codec in codecs:
            items = []
            for item in names:
                frames = cells.frames(name, codec, item)
                stego = cells.read(name, codec, item, frames, row.settings)
                cover = cells.read(COVER, codec, item, frames, {})
                if stego and cover:
                    items.append(item_figures(stego, cover))
            if items:  # rows for one codec run each are one entry
                entry = name.removesuffix(f" for {row.codec}")
                title = {"entry": entry, "codec": codec.name, "title": codec.title}
                results.append(
                    {**title, "mean": evaluation.mean_of(items), **quotients(items), "items": items}
                )
    return results


def quotients(items: list[dict]) -> dict[str, float]:
    """Quotients of sums over items: bits of stego to cover, and the efficiency where there is one."""
    sums = {"ratio_of_sums": ("kbit_s", "cover_kbit_s"), "efficiency": ("payload_bits", "information_bits")}
    return {name: tables.quotient(items, *two) for name, two in sums.items() if two[0] in items[0]}


def is_plain_x264(codec: CodecRun) -> bool:
    """Whether a codec is x264 at a constant rate factor and nothing else."""
    return codec.codec == "libx264" and codec.times == codec.scale == 1


def chart(path: Path, results: list[dict], ladder: list[CodecRun], curve: list[CodecRun]) -> None:
    """Draws secret PSNR down the ladder, without what was tuned to a codec, on few items.

    Where there is a `curve` of x264, also against its rate factor, and what `robust` costs the cover to see.
    """
    results = [result for result in results if result["entry"] != tables.TUNED]
    present = {result["codec"] for result in results}
    steps = [codec for codec in ladder if codec.name in present]
    factors = {codec.name: int(codec.options["crf"]) for codec in curve if codec.name in present}
    count = 3 if len(factors) > 1 else 1
    figure, axes = plt.subplots(1, count, figsize=(7.5 * count, 6), squeeze=False, layout="constrained")
    _lines(axes[0][0], results, {codec.name: i for i, codec in enumerate(steps)})
    labels = [f"{codec.name}: {codec.title}" for codec in steps]
    axes[0][0].set_xticks(range(len(steps)), labels, rotation=40, ha="right", fontsize=8)
    if count > 1:
        _lines(axes[0][1], results, factors)
        axes[0][1].set(xlabel="x264 CRF", xticks=sorted(factors.values()))
        _seen(axes[0][2], [r for r in results if r["codec"] == SHOWN["clips"]])
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _seen(axis, results: list[dict]) -> None:
    """Secret PSNR of `robust` at each D against the SSIMULACRA2 of its stego, both behind one codec."""
    means = [r["mean"] | {"entry": r["entry"]} for r in results if r["entry"].startswith("robust")]
    points = sorted((mean["after_ssimulacra2"], mean["secret_psnr_db"], mean["entry"]) for mean in means)
    if points:
        axis.plot([point[0] for point in points], [point[1] for point in points], "o-")
        axis.axvline(np.mean([mean["cover_ssimulacra2"] for mean in means]), color="grey", linestyle="--")
    for x, y, entry in points:
        axis.annotate(entry, (x, y), (4, 4), textcoords="offset points")
    title = ladder.named(SHOWN["clips"]).title
    axis.set(xlabel=f"SSIMULACRA2 behind {title} (dashed: clean cover)", ylabel="secret PSNR (dB)")
    axis.grid(alpha=0.3)


def _lines(axis, results: list[dict], places: dict[str, float]) -> None:
    """One line for each entry over codecs at `places`, and what mid-grey would be worth."""
    here = sorted((r for r in results if r["codec"] in places), key=lambda r: places[r["codec"]])
    for i, entry in enumerate(dict.fromkeys(result["entry"] for result in results)):
        points = [(places[r["codec"]], r["mean"]["secret_psnr_db"]) for r in here if r["entry"] == entry]
        if points:
            style = {"marker": "osD^vP*X"[i % 8], "markersize": 11 - i, "markerfacecolor": "none"}
            axis.plot(*zip(*points, strict=True), label=entry, **style)
    if here:
        grey = np.mean([r["mean"]["grey_psnr_db"] for r in here])
        axis.axhline(grey, color="grey", linestyle="--", linewidth=1, label="mid-grey")
    axis.set(ylabel="secret PSNR (dB)")
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8)


def picture_grid(path: Path, strips: dict[str, Path], title: str) -> None:
    """Draws cover, stego as received, secret and revealed, one row for each entry.

    Args:
        path: of the PNG.
        strips: the picture of `measure_stego` by entry.
        title: of the codec.
    """
    columns = ("cover", f"stego after {title}", "secret", "revealed")
    images = {name: np.split(next(media.read_frames(strip)), 4, axis=1) for name, strip in strips.items()}
    height, width = next(iter(images.values()))[0].shape[:2]
    size = (4 * len(columns), (4 * height / width + 0.35) * len(images))
    figure, axes = plt.subplots(len(images), 4, figsize=size, squeeze=False, layout="constrained")
    for line, (name, four) in zip(axes, images.items(), strict=True):
        for axis, column, image in zip(line, columns, four, strict=True):
            axis.imshow(image)
            axis.set_title(column, fontsize=10)
            axis.set_xticks([])
            axis.set_yticks([])
        line[0].set_ylabel(name, fontsize=10)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def report(
    kind: str, rows: dict[str, Row], codecs: list[CodecRun], cells: Cells, names: list[str], workdir: Path
) -> str:
    """Write the figures and pictures of all that is measured; return the table.

    Raises:
        UserError: nothing is measured.
    """
    speeds = common.read_json(workdir / "speed.json", {})
    results = [result | speeds.get(result["entry"], {}) for result in collect(rows, codecs, cells, names)]
    if not results:
        raise UserError(f"nothing is measured in {workdir}: leave --tables-only out")
    common.write_json(workdir / "robustness.json", results)
    steps = [codec for codec in codecs if codec in LADDERS[kind]]
    chart(workdir / "robustness.png", results, steps, [codec for codec in codecs if is_plain_x264(codec)])
    shown = ladder.named(SHOWN[kind])
    strips = {}
    for row in rows:
        path = cells.path(row, shown, names[0], cells.frames(row, shown, names[0])).with_suffix(".png")
        strips |= {row: path} if path.exists() else {}
    if strips:
        picture_grid(workdir / "robustness_pictures.png", strips, shown.title)
    return tables.robustness(results, SHOWN[kind])


def codecs_of(kind: str) -> list[CodecRun]:
    """All codec runs that this build of FFmpeg can do; says on stderr which are left out."""
    found = []
    for codec in [*LADDERS[kind], *(CURVE if kind == "clips" else ())]:
        if codec.codec in ladder.STILL or media.has_encoder(codec.codec):
            found.append(codec)
        else:
            print(f"{codec.name} is left out: no encoder {codec.codec} in this build", file=sys.stderr)
    return found


def parse() -> argparse.Namespace:
    """The command line."""
    parser = common.make_parser(__doc__)
    common.add_folders(parser)
    parser.add_argument("--codecs", nargs="+", help="names of codecs, such as C6")
    parser.add_argument("--speed", action="store_true", help="frames per second of 10 s instead")
    parser.add_argument("--items", type=int, help="only the first items of the folder")
    parser.add_argument("--workdir", type=Path, default=Path("runs/robustness"))
    arguments = parser.parse_args()
    arguments.kind = "clips" if arguments.clips else "images"
    arguments.rows = rows_of(arguments.kind, arguments.trained)
    arguments.ladder = codecs_of(arguments.kind)
    known = {"only": list(arguments.rows), "codecs": [codec.name for codec in arguments.ladder]}
    for option, names in known.items():
        if getattr(arguments, option) is None:
            setattr(arguments, option, names)
        if unknown := set(getattr(arguments, option)) - set(names):
            parser.error(f"--{option}: no {', '.join(unknown)}; there are {', '.join(names)}")
    return arguments


def run(arguments: argparse.Namespace) -> str:
    """Measures the cells that are missing and returns the table."""
    kind, rows, codecs = arguments.kind, arguments.rows, arguments.ladder
    settings = common.q1_settings(kind, arguments.clips or arguments.images, arguments.frames)
    workdir = arguments.workdir / kind
    cells = Cells(workdir / "cells")
    names = [path.name for path in evaluation.list_items(settings.path)][: arguments.items]
    wanted = {name: row for name, row in rows.items() if name in arguments.only}
    steps = [codec for codec in codecs if codec.name in arguments.codecs]
    if arguments.speed:
        pair, path = next(pairs_of(settings, 1)), workdir / "speed.json"
        for name, row in wanted.items():
            common.write_json(path, common.read_json(path, {}) | {name: measure_speed(row.load(), pair)})
    elif not arguments.tables_only:
        total = len(names) * len(steps) * (1 + len(wanted))
        with tqdm(total=total, unit="cell", dynamic_ncols=True) as progress:
            for i, pair in enumerate(pairs_of(settings, arguments.items)):
                measure_pair(wanted, steps, pair, cells, None if i else SHOWN[kind], progress)
    return report(kind, rows, codecs, cells, names, workdir)


def main() -> None:
    """Measures the cells that are missing and prints the table."""
    print(run(parse()))


if __name__ == "__main__":
    common.run(main)
