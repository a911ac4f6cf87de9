"""How well hidden pictures survive real codecs, on any folder of clips or of images.

    python -m experiments.robustness --clips FOLDER [--trained runs/benchmark] [--workdir runs/robustness]
    python -m experiments.robustness --images FOLDER [--trained runs/benchmark] [--workdir runs/robustness]

The pairs are those of quality.py (protocol Q1: item i + 1 is hidden in item i, frames 5..34 at 448x256; of
images the 256x256 centre crop). Every entry hides once, its stego goes through every codec of
`channels.ladder`, and so does the clean cover. RGB, 8-bit, mean over frames of per-frame dB, then
over items. Bit rates are those of the coded pictures at 25 frames/s.

An entry is hide(cover, secret, context) -> stego and reveal(received, context) -> revealed. Nothing but the
frames goes through the codec: side information would not survive it, so that both sides know the key, the
number of the first frame and the secret's size (`Context`). What comes out counts as it is: a network's noise
as noise, a bitstream that cannot be decoded as mid-grey.

Every figure is kept in WORKDIR/KIND/cells by entry, codec and item, so that an interrupted run goes on;
--only, --codecs and --items measure less and --tables-only nothing; an entry of fewer --frames says so.
Writes robustness.json and .png (secret down the ladder, and against x264's rate factor) and
robustness_pictures.png to WORKDIR/KIND.
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from fractions import Fraction
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from ml_collections import ConfigDict
from tqdm import tqdm

from deepsteg_jax import evaluation, keys, loading, media, metrics
from deepsteg_jax.channels import ladder
from deepsteg_jax.channels.ladder import CodecRun
from deepsteg_jax.errors import UserError
from deepsteg_jax.plots import plt
from deepsteg_jax.schemes.base import GREY, Metadata
from deepsteg_jax.schemes.robust import secret_codec
from deepsteg_jax.schemes.robust.layout import SEGMENT
from deepsteg_jax.training import checkpoints
from experiments import common, tables
from experiments.baselines import digital, lsb_codec
from experiments.entries import ENTRIES, Entry, file_name
from experiments.quality import learned_config

KEY = keys.key_words(bytes(range(32)))
CURVE = [ladder.named(f"CRF{crf}") for crf in (20, 22, 24, 26, 28)]  # finer steps of x264
LADDERS = {"clips": ladder.VIDEO, "images": ladder.IMAGE}
SHOWN = {"clips": "C6", "images": "C9-75"}  # the codec of the picture grid
COVER = "cover"  # the clean one, measured like an entry
# D of the rows of `robust`; None: the config's.
ROBUST_STEPS = {"clips": (None, 53.8), "images": (None, 40.0)}
SHIPPED = {"clips": "block_dct", "images": "block_dct_image"}


# --- entries -------------------------------------------------------------------------------------


class Context(NamedTuple):
    """What both sides know beside the frames; the stego's first frame has number 0."""

    key: np.ndarray  # uint32 [8]
    shape: tuple[int, ...]  # of the secret, (n, h, w, 3)

    def grey(self) -> np.ndarray:
        """The secret of a receiver who could decode nothing."""
        return np.full(self.shape, GREY, np.uint8)


class System(NamedTuple):
    """A way to hide, ready to work; all frames are uint8 [n, h, w, 3]."""

    hide: Callable[[np.ndarray, np.ndarray, Context], np.ndarray]  # cover, secret -> stego
    reveal: Callable[[np.ndarray, Context], np.ndarray]  # received -> revealed, of `context.shape`


class Row(NamedTuple):
    """An entry of the benchmark."""

    settings: dict  # whatever its figures depend on, fit for JSON
    load: Callable[[], System]


def learned_system(config: ConfigDict) -> System:
    """A network: group after group, without the pipeline's side information."""
    scheme = loading.load(config)
    codec = scheme.codec()

    def in_groups(run, frames: int, count: int) -> np.ndarray:
        parts = [slice(i, min(i + frames, count)) for i in range(0, count, frames)]
        return np.concatenate([np.asarray(run(part)) for part in parts])

    def hide(cover, secret, context):
        return in_groups(
            lambda part: codec.hide(scheme.hide_params, context.key, part.start, cover[part], secret[part]),
            codec.frames,
            len(cover),
        )

    def reveal(received, context):
        return in_groups(
            lambda part: codec.reveal(scheme.reveal_params, context.key, part.start, received[part]),
            codec.frames,
            len(received),
        )

    return System(hide, reveal)


def lsb_system(modulus: int) -> System:
    """The baseline of x264's bytes in the low digits: everything or nothing."""

    def reveal(received, context):
        try:
            revealed = lsb_codec.reveal(received, modulus)
        except UserError:
            return context.grey()
        return revealed if revealed.shape == context.shape else context.grey()

    return System(lambda cover, secret, context: lsb_codec.hide(cover, secret, modulus), reveal)


def digital_system(settings: digital.Settings) -> System:
    """The baseline of a tiny coded secret in held bits: everything as it was coded, or nothing."""

    def hide(cover, secret, context):
        message = secret_codec.encode(secret, settings.capacity(cover.shape))
        return digital.embed(cover, context.key.tobytes(), message, settings)

    def reveal(received, context):
        try:
            message = digital.extract(received, context.key.tobytes(), settings)
        except UserError:
            return context.grey()
        return secret_codec.decode(message, *context.shape[:3])

    return System(hide, reveal)


def robust_system(config: ConfigDict) -> System:
    """`robust`: segment by segment; the receiver finds out by itself which frames it has, and all else."""
    scheme = loading.load(config)

    def hide(cover, secret, context):
        n, height, width = secret.shape[:3]
        about = Metadata(width, height, n, n, media.FOLDER_RATE, False, False, Fraction(1))
        sender = scheme.segment_sender(context.key.tobytes(), *cover.shape[1:3])
        starts = range(0, n, SEGMENT)
        parts = [slice(i, i + SEGMENT) for i in starts]
        return np.concatenate([sender.hide(i, cover[p], secret[p], about) for i, p in enumerate(parts)])

    def reveal(received, context):
        shown = context.grey()
        receiver = scheme.segment_receiver(context.key.tobytes(), *received.shape[1:3])
        parts = [part for frame in received for part in receiver.take(frame)] + receiver.finish()
        for part in parts:
            first = part.number * SEGMENT
            if part.frames.shape[1:] == shown.shape[1:]:
                shown[first : first + len(part.frames)] = part.frames[: len(shown) - first]
        return shown

    return System(hide, reveal)


def robust_rows(kind: str, trained: Path | None) -> dict[str, Row]:
    """`robust` at its own step D and at others; the same checkpoint."""
    own = trained / "robust" if trained else None
    rows = {}
    for step in ROBUST_STEPS[kind]:
        config = Entry("robust", "image" if kind == "images" else "").load()
        config.model.spacing = step or config.model.spacing
        config.checkpoint = str(own) if own and own.is_dir() else config.checkpoint
        with suppress(UserError):  # no parameters
            settings = {"model": config.model.to_dict(), "secret_layers": config.secret_layers}
            settings |= {
                "margin": config.margin,
                "growth": config.growth,
                "checkpoint": checkpoint_title(config),
            }
            name = f"robust, D = {step:.0f}" if step else "robust"
            rows[name] = Row(settings, cache(partial(robust_system, config)))
    return rows


def checkpoint_title(config: ConfigDict) -> str:
    """The checkpoint of a config and its newest step; raises UserError if there is none."""
    step = max(
        int(path.name) for path in checkpoints.locate(config.checkpoint).iterdir() if path.name.isdigit()
    )
    return f"{config.checkpoint}, step {step}"


def learned_rows(kind: str, trained: Path | None) -> dict[str, Row]:
    """The networks that there are parameters for, in `trained` or shipped."""
    entries = {SHIPPED[kind]: ENTRIES[SHIPPED[kind]]}
    entries |= {name: entry for name, entry in ENTRIES.items() if not name.startswith("block_dct")}
    rows = {}
    for name, entry in entries.items():
        own = trained is not None and not name.startswith("block_dct") and (trained / name).is_dir()
        config = learned_config(entry, str(trained / name) if own else None)
        with suppress(UserError):  # no parameters
            settings = {"model": config.model.to_dict(), "shuffle": config.shuffle.to_dict()}
            settings["checkpoint"] = checkpoint_title(config)
            rows[name] = Row(settings, cache(partial(learned_system, config)))
    return rows


def rows_of(kind: str, trained: Path | None) -> dict[str, Row]:
    """Every entry by its name."""
    rows = robust_rows(kind, trained) | learned_rows(kind, trained)
    for modulus, title in {2: "1 LSB", 3: "ternary"}.items():
        rows[f"lsb_codec {title}"] = Row({"modulus": modulus}, cache(partial(lsb_system, modulus)))
    if kind == "clips":
        settings = digital.Settings()
        rows["digital"] = Row(settings._asdict(), cache(partial(digital_system, settings)))
    return rows


# --- measuring -----------------------------------------------------------------------------------


class Pair(NamedTuple):
    """A cover and what is hidden in it, uint8 [n, h, w, 3]."""

    names: tuple[str, str]
    cover: np.ndarray
    secret: np.ndarray

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
        yield Pair((path.name, following.name), np.stack(cover[:frames]), np.stack(secret[:frames]))


def likeness(name: str, a: np.ndarray, b: np.ndarray) -> dict[str, float]:
    """Mean over frames of PSNR (dB) and SSIM."""
    with ThreadPoolExecutor(evaluation.WORKERS) as pool:
        return {
            f"{name}_{figure}": float(np.mean(list(pool.map(measure, a, b))))
            for figure, measure in (("psnr_db", metrics.psnr), ("ssim", metrics.ssim))
        }


def measure_cover(codec: CodecRun, pair: Pair) -> dict[str, float]:
    """The clean cover through a codec, and what mid-grey in place of the secret would be worth."""
    received = ladder.run(codec, pair.cover)
    return {
        **likeness("after", pair.cover, received.frames),
        "size_bytes": received.size_bytes,
        "grey_psnr_db": likeness("grey", pair.secret, pair.context().grey())["grey_psnr_db"],
    }


def measure_stego(
    system: System, codec: CodecRun, pair: Pair, stego: np.ndarray, pictures: Path | None
) -> dict[str, float]:
    """A stego through a codec; with `pictures` the middle frames side by side are saved there."""
    received = ladder.run(codec, stego)
    revealed = np.asarray(system.reveal(received.frames, pair.context()))
    if pictures:
        middle = len(stego) // 2
        four = pair.cover, received.frames, pair.secret, revealed
        media.write_frames(pictures, [np.concatenate([frames[middle] for frames in four], axis=1)])
    return {
        **likeness("after", pair.cover, received.frames),
        **likeness("secret", pair.secret, revealed),
        "size_bytes": received.size_bytes,
    }


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
        missing = [codec for codec in codecs if not cells.has(name, codec, pair, row.settings)]
        progress.update(len(codecs) - len(missing))
        if not missing:
            continue
        progress.set_description(name)
        system = row.load()
        stego = np.asarray(system.hide(pair.cover, pair.secret, pair.context()))
        before = likeness("before", pair.cover, stego)
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
    result |= {"cover_psnr_db": clean["after_psnr_db"], "cover_ssim": clean["after_ssim"]}
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
            if items:
                title = {"entry": name, "codec": codec.name, "title": codec.title}
                results.append({**title, "mean": evaluation.mean_of(items), "items": items})
    return results


def is_plain_x264(codec: CodecRun) -> bool:
    """Whether a codec is x264 at a constant rate factor and nothing else."""
    return codec.codec == "libx264" and codec.times == codec.scale == 1


def chart(path: Path, results: list[dict], ladder: list[CodecRun], curve: list[CodecRun]) -> None:
    """Draws secret PSNR down the ladder and, where there is a `curve` of x264, against its rate factor."""
    present = {result["codec"] for result in results}
    steps = [codec for codec in ladder if codec.name in present]
    factors = {codec.name: int(codec.options["crf"]) for codec in curve if codec.name in present}
    count = 2 if len(factors) > 1 else 1
    figure, axes = plt.subplots(1, count, figsize=(7.5 * count, 6), squeeze=False, layout="constrained")
    _lines(axes[0][0], results, {codec.name: i for i, codec in enumerate(steps)})
    labels = [f"{codec.name}: {codec.title}" for codec in steps]
    axes[0][0].set_xticks(range(len(steps)), labels, rotation=40, ha="right", fontsize=8)
    if count == 2:
        _lines(axes[0][1], results, factors)
        axes[0][1].set(xlabel="x264 CRF", xticks=sorted(factors.values()))
    figure.savefig(path, dpi=110)
    plt.close(figure)


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
    results = collect(rows, codecs, cells, names)
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
        if codec.codec == ladder.JPEG or media.has_encoder(codec.codec):
            found.append(codec)
        else:
            print(f"{codec.name} is left out: no encoder {codec.codec} in this build", file=sys.stderr)
    return found


def parse() -> argparse.Namespace:
    """The command line."""
    parser = common.make_parser(__doc__)
    common.add_folders(parser)
    parser.add_argument("--codecs", nargs="+", help="names of codecs, such as C6")
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
    if not arguments.tables_only:
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
