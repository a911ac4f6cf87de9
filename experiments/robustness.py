"""How well hidden pictures survive real codecs, on any folder of clips or of images.

    python experiments/robustness.py --clips FOLDER [--trained runs/benchmark] [--workdir runs/robustness]
    python experiments/robustness.py --images FOLDER [--trained runs/benchmark] [--workdir runs/robustness]

The pairs are those of quality.py (protocol Q1: item i + 1 is hidden in item i, frames 5..34 at 448x256; of
images the 256x256 centre crop). Every entry hides once, its stego goes through every rung of
`channels.ladder`, and so does the clean cover. RGB, 8-bit, mean over frames of per-frame dB, then
over items. Bit rates are those of the coded pictures at 25 frames/s.

An entry is hide(cover, secret, context) -> stego and reveal(received, context) -> revealed. Nothing but the
frames goes through the codec: side information would not survive it, so that both sides know the key, the
number of the first frame and the secret's size (`Context`). What comes out counts as it is: a network's noise
as noise, a bitstream that cannot be decoded as mid-grey.

Every figure is kept in WORKDIR/KIND/cells by entry, rung and item, so that an interrupted run goes on;
--only, --rungs and --items measure less and --tables-only nothing; an entry of fewer --frames says so. Writes
robustness.json, .md and .png (secret down the ladder, and against x264's rate factor) and
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

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt  # noqa: E402
import numpy as np  # noqa: E402
from deepsteg_jax.schemes.robust.segments import SEGMENT, Description, Receiver, Sender  # noqa: E402
from entries import ENTRIES, Entry, file_name  # noqa: E402
from ml_collections import ConfigDict  # noqa: E402
from quality import learned_config, make_parser, settings_of  # noqa: E402
from tqdm import tqdm  # noqa: E402

from deepsteg_jax import (  # noqa: E402
    evaluation,
    held_bits,  # noqa: E402
    keys,
    lsb_codec,
    media,  # noqa: E402
    metrics,
)
from deepsteg_jax.channels import ladder  # noqa: E402
from deepsteg_jax.channels.ladder import Passage  # noqa: E402
from deepsteg_jax.commands.common import load_robust, load_side  # noqa: E402
from deepsteg_jax.errors import UserError  # noqa: E402
from deepsteg_jax.held_bits import Carrier  # noqa: E402
from deepsteg_jax.schemes.robust import secret_codec  # noqa: E402
from deepsteg_jax.training import checkpoints  # noqa: E402

KEY = keys.key_words(bytes(range(32)))
GREY = 128
LADDERS = {"clips": ladder.VIDEO, "images": ladder.IMAGE}
SHOWN = {"clips": "C6", "images": "C9-75"}  # the rung of the picture grid
COVER = "cover"  # the clean one, measured like an entry
# D of the rows of `robust`; None: the config's.
ROBUST_STEPS = {"clips": (None, 53.8), "images": (None, 40.0)}
SHIPPED = {"clips": "block_dct", "images": "block_dct_image"}
RULE = (
    "`python experiments/robustness.py --{kind} FOLDER --trained runs/benchmark`\n\n"
    "{items}; RGB, 8-bit; mean over frames of per-frame dB, then over items. *before*: the stego as "
    "it was made; *after*: as it arrives, both against the cover; *cover*: the clean cover through the same "
    "codec. Bits are those of the coded pictures{rate}, *ratio* is stego to cover, mean over items. The "
    "same key and frame numbers on both sides, no side information; what cannot be decoded counts as "
    "mid-grey ({grey:.2f} dB)."
)
COLUMNS = {
    "before_psnr_db": ("before dB", ".2f"),
    "before_ssim": ("SSIM", ".4f"),
    "after_psnr_db": ("after dB", ".2f"),
    "after_ssim": ("SSIM", ".4f"),
    "cover_psnr_db": ("cover dB", ".2f"),
    "secret_psnr_db": ("secret dB", ".2f"),
    "secret_ssim": ("SSIM", ".4f"),
    "kbit_s": ("kbit/s", ".0f"),
    "cover_kbit_s": ("cover kbit/s", ".0f"),
    "ratio": ("ratio", ".2f"),
    "bpp": ("bpp", ".3f"),
    "cover_bpp": ("cover bpp", ".3f"),
}


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
    hider, revealer = load_side(config, "hide"), load_side(config, "reveal")

    def in_groups(run, frames: int, count: int) -> np.ndarray:
        parts = [slice(i, min(i + frames, count)) for i in range(0, count, frames)]
        return np.concatenate([np.asarray(run(part)) for part in parts])

    def hide(cover, secret, context):
        codec, params = hider.codec, hider.params
        return in_groups(
            lambda part: codec.hide(params, context.key, part.start, cover[part], secret[part]),
            codec.frames,
            len(cover),
        )

    def reveal(received, context):
        codec, params = revealer.codec, revealer.params
        return in_groups(
            lambda part: codec.reveal(params, context.key, part.start, received[part]),
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


def digital_system(carrier: Carrier) -> System:
    """The baseline of a tiny coded secret in held bits: everything as it was coded, or nothing."""

    def hide(cover, secret, context):
        message = secret_codec.code(secret, carrier.capacity(cover.shape))
        return held_bits.embed(cover, context.key.tobytes(), message, carrier)

    def reveal(received, context):
        try:
            message = held_bits.extract(received, context.key.tobytes(), carrier)
        except UserError:
            return context.grey()
        return secret_codec.decode(message, *context.shape[:3])

    return System(hide, reveal)


def robust_system(config: ConfigDict) -> System:
    """`robust`: segment by segment; the receiver finds out by itself which frames it has, and all else."""
    params = {side: load_robust(config, side) for side in ("hide", "reveal")}

    def hide(cover, secret, context):
        n, height, width = secret.shape[:3]
        about = Description(n, width, height, False, media.FOLDER_RATE, Fraction(1))
        sender = Sender(config, params["hide"], context.key.tobytes())
        starts = range(0, n, SEGMENT)
        parts = [slice(i, i + SEGMENT) for i in starts]
        return np.concatenate([sender.hide(i, cover[p], secret[p], about) for i, p in enumerate(parts)])

    def reveal(received, context):
        shown = context.grey()
        receiver = Receiver(config, params["reveal"], context.key.tobytes(), *received.shape[1:3])
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
        carrier = Carrier()
        rows["digital"] = Row(carrier._asdict(), cache(partial(digital_system, carrier)))
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


def measure_cover(rung: Passage, pair: Pair) -> dict[str, float]:
    """The clean cover through a codec, and what mid-grey in place of the secret would be worth."""
    received = ladder.run(rung, pair.cover)
    return {
        **likeness("after", pair.cover, received.frames),
        "size_bytes": received.size_bytes,
        "grey_psnr_db": likeness("grey", pair.secret, pair.context().grey())["grey_psnr_db"],
    }


def measure_stego(
    system: System, rung: Passage, pair: Pair, stego: np.ndarray, pictures: Path | None
) -> dict[str, float]:
    """A stego through a codec; with `pictures` the middle frames side by side are saved there."""
    received = ladder.run(rung, stego)
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
    """Figures by entry, rung, item and number of frames, each in a file of its own."""

    def __init__(self, folder: Path):
        self._folder = folder

    def path(self, row: str, rung: Passage, item: str, frames: int) -> Path:
        """Where they lie."""
        return self._folder / file_name(row) / file_name(rung.name) / f"{file_name(item)}_{frames}.json"

    def frames(self, row: str, rung: Passage, item: str) -> int:
        """The most frames that this was measured with, 0 for none."""
        found = self.path(row, rung, item, 0).parent.glob(f"{file_name(item)}_*.json")
        return max((int(path.stem.rpartition("_")[2]) for path in found), default=0)

    def read(self, row: str, rung: Passage, item: str, frames: int, settings: dict) -> dict | None:
        """{"pair", "figures"} if they were measured with just this rung and these settings of the row."""
        path = self.path(row, rung, item, frames)
        found = json.loads(path.read_text()) if path.exists() else {}
        return found if found.get("of") == _plain([rung._asdict(), settings]) else None

    def write(self, row: str, rung: Passage, pair: Pair, settings: dict, figures: dict) -> None:
        """Keeps figures; an interruption leaves no half of a file."""
        path = self.path(row, rung, pair.names[0], len(pair.cover))
        path.parent.mkdir(parents=True, exist_ok=True)
        cell = {"of": [rung._asdict(), settings], "pair": pair.settings(), "figures": figures}
        part = path.with_suffix(".part")
        part.write_text(json.dumps(cell, indent=1) + "\n")
        part.replace(path)

    def has(self, row: str, rung: Passage, pair: Pair, settings: dict) -> bool:
        """Whether this pair is measured."""
        found = self.read(row, rung, pair.names[0], len(pair.cover), settings)
        return found is not None and found["pair"] == pair.settings()


def _plain(value):
    """As it comes back from a JSON file."""
    return json.loads(json.dumps(value))


def measure_pair(
    rows: dict[str, Row], rungs: list[Passage], pair: Pair, cells: Cells, shown: str | None, progress: tqdm
) -> None:
    """Measures what is missing of one pair; `shown` names the rung whose pictures are kept."""
    for rung in rungs:
        if not cells.has(COVER, rung, pair, {}):
            cells.write(COVER, rung, pair, {}, measure_cover(rung, pair))
        progress.update()
    for name, row in rows.items():
        missing = [rung for rung in rungs if not cells.has(name, rung, pair, row.settings)]
        progress.update(len(rungs) - len(missing))
        if not missing:
            continue
        progress.set_description(name)
        system = row.load()
        stego = np.asarray(system.hide(pair.cover, pair.secret, pair.context()))
        before = likeness("before", pair.cover, stego)
        for rung in missing:
            path = cells.path(name, rung, pair.names[0], len(pair.cover)).with_suffix(".png")
            path.parent.mkdir(parents=True, exist_ok=True)
            after = measure_stego(system, rung, pair, stego, path if rung.name == shown else None)
            cells.write(name, rung, pair, row.settings, before | after)
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


def collect(rows: dict[str, Row], rungs: list[Passage], cells: Cells, names: list[str]) -> list[dict]:
    """What is measured of every entry and rung: one dict each, with every item's figures and their mean."""
    results = []
    for name, row in rows.items():
        for rung in rungs:
            items = []
            for item in names:
                frames = cells.frames(name, rung, item)
                stego = cells.read(name, rung, item, frames, row.settings)
                cover = cells.read(COVER, rung, item, frames, {})
                if stego and cover:
                    items.append(item_figures(stego, cover))
            if items:
                title = {"entry": name, "rung": rung.name, "title": rung.title}
                results.append({**title, "mean": evaluation.mean_of(items), "items": items})
    return results


def _table(titles: list[str], lines: list[list[str]]) -> str:
    rule = "|---" * len(titles) + "|"
    return "\n".join(["| " + " | ".join(titles) + " |", rule, *("| " + " | ".join(x) + " |" for x in lines)])


def markdown(results: list[dict], columns: dict[str, tuple[str, str]]) -> str:
    """Secret PSNR of entries down the ladder, then every figure, the entries of a rung together."""
    entries = list(dict.fromkeys(result["entry"] for result in results))
    rungs = {result["rung"]: result["title"] for result in results}
    found = {(result["entry"], result["rung"]): result for result in results}
    brief, full = [], []
    for rung, title in rungs.items():
        there = [found[entry, rung] for entry in entries if (entry, rung) in found]
        cells = {r["entry"]: f"{r['mean']['secret_psnr_db']:.2f}" for r in there}
        cover = f"{np.mean([r['mean']['cover_psnr_db'] for r in there]):.2f}"
        brief.append([f"{rung}: {title}", cover, *(cells.get(entry, "-") for entry in entries)])
        for result in there:
            figures = [format(result["mean"][name], style) for name, (_, style) in columns.items()]
            full.append([f"{rung}: {title}", result["entry"] + few_of(result, results), *figures])
    titles = [title for title, _ in columns.values()]
    return "\n\n".join(
        (
            "Secret dB, and the clean cover's:",
            _table(["", "cover", *entries], brief),
            "All figures:",
            _table(["", "entry", *titles], full),
        )
    )


def few_of(result: dict, results: list[dict]) -> str:
    """Says where an entry was measured on fewer items or frames than the others."""
    items = max(len(other["items"]) for other in results)
    frames = max(other["mean"]["frames"] for other in results)
    parts = [f"{len(result['items'])} items"] * (len(result["items"]) < items)
    parts += [f"{result['mean']['frames']:.0f} frames"] * (result["mean"]["frames"] < 0.9 * frames)
    return f" ({', '.join(parts)})" if parts else ""


def is_plain_x264(rung: Passage) -> bool:
    """Whether a rung is x264 at a constant rate factor and nothing else."""
    return rung.codec == "libx264" and rung.times == rung.scale == 1


def chart(path: Path, results: list[dict], ladder: list[Passage], curve: list[Passage]) -> None:
    """Draws secret PSNR down the ladder and, where there is a `curve` of x264, against its rate factor."""
    present = {result["rung"] for result in results}
    steps = [rung for rung in ladder if rung.name in present]
    factors = {rung.name: int(rung.options["crf"]) for rung in curve if rung.name in present}
    count = 2 if len(factors) > 1 else 1
    figure, axes = plt.subplots(1, count, figsize=(7.5 * count, 6), squeeze=False, layout="constrained")
    _lines(axes[0][0], results, {rung.name: i for i, rung in enumerate(steps)})
    labels = [f"{rung.name}: {rung.title}" for rung in steps]
    axes[0][0].set_xticks(range(len(steps)), labels, rotation=40, ha="right", fontsize=8)
    if count == 2:
        _lines(axes[0][1], results, factors)
        axes[0][1].set(xlabel="x264 CRF", xticks=sorted(factors.values()))
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _lines(axis, results: list[dict], places: dict[str, float]) -> None:
    """One line for each entry over rungs at `places`, and what mid-grey would be worth."""
    here = sorted((r for r in results if r["rung"] in places), key=lambda r: places[r["rung"]])
    for i, entry in enumerate(dict.fromkeys(result["entry"] for result in results)):
        points = [(places[r["rung"]], r["mean"]["secret_psnr_db"]) for r in here if r["entry"] == entry]
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
        title: of the rung.
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
    kind: str, rows: dict[str, Row], rungs: list[Passage], cells: Cells, names: list[str], workdir: Path
) -> str:
    """Writes the tables and pictures of all that is measured; returns the table.

    Raises:
        UserError: nothing is measured.
    """
    results = collect(rows, rungs, cells, names)
    if not results:
        raise UserError(f"nothing is measured in {workdir}: leave --tables-only out")
    most = max(results, key=lambda result: (len(result["items"]), result["mean"]["frames"]))
    what = f"{len(most['items'])} {kind}"
    what += f" of {most['mean']['frames']:.0f} frames" if kind == "clips" else ""
    rate = " at 25 frames/s" if kind == "clips" else ""
    rule = RULE.format(kind=kind, items=what, rate=rate, grey=most["mean"]["grey_psnr_db"])
    timeless = {name: column for name, column in COLUMNS.items() if "kbit" not in name}
    table = markdown(results, COLUMNS if kind == "clips" else timeless)
    (workdir / "robustness.json").write_text(json.dumps(results, indent=1) + "\n")
    (workdir / "robustness.md").write_text(f"{rule}\n\n{table}\n")
    ladder = [rung for rung in rungs if rung in LADDERS[kind]]
    chart(workdir / "robustness.png", results, ladder, [rung for rung in rungs if is_plain_x264(rung)])
    shown = next((rung for rung in rungs if rung.name == SHOWN[kind]), None)
    strips = {}
    for row in rows if shown else ():
        path = cells.path(row, shown, names[0], cells.frames(row, shown, names[0])).with_suffix(".png")
        strips |= {row: path} if path.exists() else {}
    if strips:
        picture_grid(workdir / "robustness_pictures.png", strips, shown.title)
    return table


def rungs_of(kind: str) -> list[Passage]:
    """All rungs that this build of FFmpeg can do; says on stderr which are left out."""
    rungs = [*LADDERS[kind], *(ladder.CURVE if kind == "clips" else ())]
    for rung in rungs:
        if not ladder.is_available(rung):
            print(f"{rung.name} is left out: no encoder {rung.codec} in this build", file=sys.stderr)
    return [rung for rung in rungs if ladder.is_available(rung)]


def parse() -> argparse.Namespace:
    """The command line."""
    parser = make_parser(__doc__)
    parser.add_argument("--rungs", nargs="+", help="names of rungs, such as C6")
    parser.add_argument("--items", type=int, help="only the first items of the folder")
    parser.add_argument("--workdir", type=Path, default=Path("runs/robustness"))
    arguments = parser.parse_args()
    arguments.kind = "clips" if arguments.clips else "images"
    arguments.rows = rows_of(arguments.kind, arguments.trained)
    arguments.ladder = rungs_of(arguments.kind)
    known = {"only": list(arguments.rows), "rungs": [rung.name for rung in arguments.ladder]}
    for option, names in known.items():
        if getattr(arguments, option) is None:
            setattr(arguments, option, names)
        if unknown := set(getattr(arguments, option)) - set(names):
            parser.error(f"--{option}: no {', '.join(unknown)}; there are {', '.join(names)}")
    return arguments


def run(arguments: argparse.Namespace) -> str:
    """Measures the cells that are missing and returns the table."""
    kind, rows, rungs = arguments.kind, arguments.rows, arguments.ladder
    settings = settings_of(kind, arguments.clips or arguments.images, arguments.frames)
    workdir = arguments.workdir / kind
    workdir.mkdir(parents=True, exist_ok=True)
    cells = Cells(workdir / "cells")
    names = [path.name for path in evaluation.list_items(settings.path)][: arguments.items]
    wanted = {name: row for name, row in rows.items() if name in arguments.only}
    steps = [rung for rung in rungs if rung.name in arguments.rungs]
    if not arguments.tables_only:
        total = len(names) * len(steps) * (1 + len(wanted))
        with tqdm(total=total, unit="cell", dynamic_ncols=True) as progress:
            for i, pair in enumerate(pairs_of(settings, arguments.items)):
                measure_pair(wanted, steps, pair, cells, None if i else SHOWN[kind], progress)
    return report(kind, rows, rungs, cells, names, workdir)


def main() -> int:
    """Measures the cells that are missing and prints the table."""
    arguments = parse()
    try:
        print(run(arguments))
    except UserError as error:
        print(f"robustness.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
