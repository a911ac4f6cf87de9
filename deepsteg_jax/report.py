"""The report of a round trip or an evaluation: one HTML file that asks for nothing outside itself.

`report.html.jinja` is the page. Jinja2 escapes every text that goes in, and a Content-Security-Policy in the
page forbids scripts and requests, so that a report of other people's files is safe to open and to pass on.
"""

import base64
import secrets
from collections.abc import Sequence
from fractions import Fraction
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
import numpy as np
from markupsafe import Markup
from ml_collections import ConfigDict
from PIL import Image

from deepsteg_jax import media, plots
from deepsteg_jax.errors import UserError
from deepsteg_jax.evaluation import Files
from deepsteg_jax.training import environment

TEMPLATE = "report.html.jinja"
CURVES = {"stego_psnr_db": "stego", "secret_psnr_db": "secret"}
WIDEST = 960  # pixels of a picture on the page; larger ones are scaled down
JPEG_QUALITY = 90
PACKAGES = ("jax", "jaxlib", "flax", "numpy", "av", "pillow", "scikit-image")  # whose versions are named


class Fact(NamedTuple):
    """One main figure."""

    name: str
    value: str
    note: str = ""


class Table(NamedTuple):
    """A table; the first cell of a row is its header."""

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    last: Sequence[str] = ()  # a row that sums up the others
    texts: int = 1  # leading columns that hold text, not numbers


class Chart(NamedTuple):
    """Figures in dB along frames or pairs."""

    title: str
    drawing: Markup
    table: Table  # says the same in words


class Picture(NamedTuple):
    """A picture inside the page."""

    caption: str
    alt: str
    source: str  # data:image/jpeg;base64,...
    width: int
    height: int


class Page(NamedTuple):
    """What the template needs."""

    title: str
    lead: str
    facts: Sequence[Fact]
    charts: Sequence[Chart]
    tables: Sequence[Table]
    pictures: Sequence[tuple[str, Sequence[Picture]]]  # rows under their titles
    notes: Sequence[str]
    command: str
    time: str
    folded: Sequence[Table]  # shown on demand


# --- the two reports ------------------------------------------------------------------------------


def write_roundtrip(
    path: str | Path,
    config: ConfigDict,
    figures: dict[str, Any],
    files: Files,
    rows: list[tuple[str, dict[str, np.ndarray]]],
    command: str,
    notes: Sequence[str] = (),
) -> None:
    """Writes the report of one cover and one secret.

    Args:
        path: of the HTML file.
        config: the whole config.
        figures: what metrics.json holds.
        files: the four clips or images.
        rows: of `evaluation.picked_frames`.
        command: that makes it again.
        notes: what hide and reveal had to say.

    Raises:
        UserError: it cannot be written.
    """
    ratio = figures["stego_bytes"] / figures["cover_bytes"]
    facts = [
        *_quality_facts(figures),
        *_work_facts(figures),
        Fact("stego file", _megabytes(figures["stego_bytes"]), f"{ratio:.3g} times the cover"),
        Fact("capacity", f"{figures['capacity_bpp']:.2f} bits", "of secret for each pixel of cover"),
    ]
    per_frame = figures["per_frame"]
    curves = {name: per_frame[figure] for figure, name in CURVES.items()}
    page = Page(
        title=f"{_name(files.secret)} hidden in {_name(files.cover)}",
        lead=f"Round trip of {_count(figures['frames'], 'frame')} with the checkpoint {config.checkpoint}: "
        "hidden, written to a file, read back, revealed, measured.",
        facts=facts,
        charts=[make_chart("PSNR of every frame", curves, "frame", 0)] if figures["frames"] > 1 else [],
        tables=[_files_table(files)],
        pictures=[(label, picture_row(label, frames)) for label, frames in rows],
        notes=(*notes, *_lossy_rules(files), *_RULES, *_picture_rules(rows, "comparison.png")),
        **_origin(config, command),
    )
    write(path, page)


def write_evaluation(
    path: str | Path,
    config: ConfigDict,
    figures: dict[str, Any],
    rows: list[tuple[str, dict[str, np.ndarray]]],
    command: str,
    notes: Sequence[str] = (),
) -> None:
    """Writes the report of a folder of clips or images.

    Args:
        path: of the HTML file.
        config: the whole config.
        figures: what evaluation.json holds.
        rows: of `evaluation.evaluate_folder`, those of the first pairs.
        command: that makes it again.
        notes: what else the reader should know.

    Raises:
        UserError: it cannot be written.
    """
    pairs, mean, settings = figures["pairs"], figures["mean"], config.evaluate
    pixels = settings.width * settings.height * mean["frames"]
    facts = [
        *_quality_facts(mean),
        Fact("wrong key", f"{mean['wrong_key_psnr_db']:.2f} dB", "revealed with another key"),
        *_work_facts({**mean, **{name: figures[name] for name in ("gmac_per_frame", "parameters")}}),
        Fact("stego file", f"{8 * mean['stego_bytes'] / pixels:.2f} bits", "for each pixel"),
    ]
    marks = {name: [pair[figure] for pair in pairs] for figure, name in CURVES.items()}
    page = Page(
        title=f"Evaluation of {_name(config.checkpoint)} on {_name(settings.path)}",
        lead=f"{_count(len(pairs), 'pair')} of {settings.width}x{settings.height}: each item of the folder "
        "carries the next one, the last one the first.",
        facts=facts,
        charts=[make_chart("PSNR of every pair", marks, "pair", 1, marks=True)],
        tables=[_pairs_table(pairs, mean)],
        pictures=[
            (f"{number}: {pair['secret']} in {pair['cover']}", picture_row(pair["cover"], frames))
            for number, (pair, (_, frames)) in enumerate(zip(pairs, rows, strict=False), 1)
        ],
        notes=(*notes, *_folder_rules(settings), *_RULES, *_picture_rules(rows, "evaluation.png")),
        **_origin(config, command),
    )
    write(path, page)


def render(page: Page) -> str:
    """The page as HTML, all its texts escaped."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(TEMPLATE).render(page._asdict())


def write(path: str | Path, page: Page) -> None:
    """Renders into a file, which has its name only once it is whole.

    Raises:
        UserError: it cannot be written.
    """
    path = Path(path)
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    text = render(page)
    try:
        # A file name that is no text has surrogates, which UTF-8 cannot write: question marks then.
        part.write_text(text, encoding="utf-8", errors="replace")
        part.replace(path)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror}") from None
    finally:
        part.unlink(missing_ok=True)


# --- texts ----------------------------------------------------------------------------------------


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'s' * (number != 1)}"


def _name(path: str) -> str:
    return Path(path).name or str(path)


def _megabytes(size: float) -> str:
    return f"{size / 2**20:,.1f} MiB" if size >= 2**20 else f"{size / 2**10:,.1f} KiB"


def _rate(value: float) -> str:
    return f"{value:.1f}" if value >= 1 else f"{value:.2g}"


def _quality_facts(figures: dict) -> list[Fact]:
    facts = []
    for name, note in (("stego", "against the cover"), ("secret", "revealed against it")):
        extra = f"SSIM {figures[f'{name}_ssim']:.4f}"
        if f"{name}_ssimulacra2" in figures:
            extra += f", SSIMULACRA2 {figures[f'{name}_ssimulacra2']:.1f}"
        facts.append(Fact(f"{name} PSNR", f"{figures[f'{name}_psnr_db']:.2f} dB", f"{note}, {extra}"))
    return facts


def _work_facts(figures: dict) -> list[Fact]:
    gmac, parameters = figures["gmac_per_frame"], figures["parameters"]
    sides = ("hide", "reveal")
    return [
        *(Fact(side, f"{_rate(figures[f'{side}_fps'])} frames/s", "file to file") for side in sides),
        Fact(
            "work for a frame",
            f"{sum(gmac.values()):.2f} GMAC",
            ", ".join(f"{side} {gmac[side]:.2f}" for side in sides),
        ),
        Fact(
            "parameters",
            f"{sum(parameters.values()):,}",
            ", ".join(f"{side} {parameters[side]:,}" for side in sides),
        ),
    ]


_RULES = (
    "PSNR is in dB over RGB, both sides 8-bit, one value a frame; the mean is that of the frames' dB, then "
    "that of the clips. Identical frames count as 100 dB.",
    "The stego was written to a file and read back before it was revealed, and so was the revealed secret "
    "before it was measured.",
    "SSIM is that of Wang et al. 2004 (Gaussian window, sigma 1.5), the mean over R, G and B.",
    "A secret larger than its cover is measured as it was hidden, scaled down.",
    "Frames per second are from file to file on the machine named below, without compilation (for the model "
    "robust with it).",
    "GMAC are billions of multiply-adds (two floating-point operations each) of the bare model, counted in "
    "the compiled program; reading and writing files is not among them.",
)


def _lossy_rules(files: Files) -> list[str]:
    return (
        []
        if media.is_exact(files.stego)
        else ["The stego's format is lossy, and its PSNR includes what that took away."]
    )


def _folder_rules(settings: ConfigDict) -> list[str]:
    last = settings.first_frame + settings.frames - 1
    return [
        f"Clips are resized to {settings.width}x{settings.height}, their frames {settings.first_frame} to "
        f"{last} are used; of images it is the crop at the centre. Cover and secret are stored without loss."
    ]


def _picture_rules(rows: list, file: str) -> list[str]:
    if not rows:
        return []
    return [
        f"The pictures on this page are JPEG of quality {JPEG_QUALITY}, at most {WIDEST} pixels wide; {file} "
        f"shows them without loss. Differences are {plots.GAIN} times the difference, around mid-grey."
    ]


# --- tables ---------------------------------------------------------------------------------------


def _pairs_table(pairs: list[dict], mean: dict) -> Table:
    columns = {
        "stego_psnr_db": ("stego dB", ".2f"),
        "stego_ssim": ("stego SSIM", ".4f"),
        "stego_ssimulacra2": ("stego SSIMULACRA2", ".1f"),
        "secret_psnr_db": ("secret dB", ".2f"),
        "secret_ssim": ("secret SSIM", ".4f"),
        "secret_ssimulacra2": ("secret SSIMULACRA2", ".1f"),
        "wrong_key_psnr_db": ("wrong key dB", ".2f"),
        "hide_fps": ("hide frames/s", ".1f"),
        "reveal_fps": ("reveal frames/s", ".1f"),
        "stego_bytes": ("stego KiB", ",.0f"),
    }
    columns = {name: column for name, column in columns.items() if name in mean}

    def cells(row):
        scale = {"stego_bytes": 1 / 2**10}
        return [format(row[name] * scale.get(name, 1), style) for name, (_, style) in columns.items()]

    return Table(
        caption="Every pair",
        columns=("pair", "cover", "secret", *(title for title, _ in columns.values())),
        rows=[(str(i), pair["cover"], pair["secret"], *cells(pair)) for i, pair in enumerate(pairs, 1)],
        last=("mean", "", "", *cells(mean)),
        texts=3,
    )


def _files_table(files: Files) -> Table:
    rows = []
    for name, path in files._asdict().items():
        info, size = media.probe(path), media.size_of(path)
        frames = 1 if info.is_image else info.frames
        rate = None if info.is_image or not frames else 8 * size * info.rate / frames
        rows.append(
            (
                name,
                Path(path).name,
                f"{info.width}x{info.height}",
                "?" if frames is None else f"{frames:,}",
                "" if info.is_image else f"{float(info.rate):.5g}",
                _megabytes(size),
                "" if rate is None else _bit_rate(rate),
            )
        )
    columns = ("", "file", "pixels", "frames", "frames/s", "size", "bit rate")
    return Table("The files, as their containers describe them", columns, rows, texts=2)


def _bit_rate(rate: Fraction) -> str:
    return f"{float(rate) / 1e6:,.2f} Mbit/s" if rate >= 1e6 else f"{float(rate) / 1e3:,.1f} kbit/s"


def _origin(config: ConfigDict, command: str) -> dict[str, Any]:
    """The fields of a page that say how to make it again."""

    def flat(values: dict, prefix: str):
        for name, value in values.items():
            if isinstance(value, dict):
                yield from flat(value, f"{prefix}{name}.")
            else:
                yield f"{prefix}{name}", str(value)

    start = environment.describe(config, 0)
    revision = start["git_revision"] or "unknown: no git repository"
    versions = {
        "deepsteg_jax": f"{revision}, with changes" if start["git_changed"] else revision,
        "python": start["python"],
        **{name: start["packages"].get(name, "-") for name in PACKAGES},
        "platform": start["platform"],
        "device": f"{start['device_kind']}, {start['devices']}",
    }
    settings = Table("The config", ("field", "value"), list(flat(config.to_dict(), "config.")), texts=2)
    machine = Table("Versions and machine", ("name", "value"), list(versions.items()), texts=2)
    return {"command": command, "time": start["time"], "folded": (settings, machine)}


# --- charts ---------------------------------------------------------------------------------------


def make_chart(
    title: str, series: dict[str, Sequence[float]], along: str, first: int, marks: bool = False
) -> Chart:
    """Draw figures in dB, by name, along what counts from `first`; `marks` where they make no curve."""
    columns = ("dB", "mean", "median", "lowest", f"at {along}", "highest", f"at {along}")
    rows = []
    for name, values in series.items():
        low, high = int(np.argmin(values)), int(np.argmax(values))
        ends = (f"{values[low]:.2f}", str(low + first), f"{values[high]:.2f}", str(high + first))
        rows.append((name, f"{np.mean(values):.2f}", f"{np.median(values):.2f}", *ends))
    drawing = Markup(plots.chart(series, along, first, marks))
    return Chart(title, drawing, Table(f"{title}, in numbers", columns, rows))


# --- pictures -------------------------------------------------------------------------------------


def picture_row(label: str, frames: dict[str, np.ndarray]) -> list[Picture]:
    """Cover, stego and their difference; secret, revealed and theirs.

    Args:
        label: says which frame it is, in the alternative texts.
        frames: {"cover", "stego", "secret", "revealed"}: uint8 [h, w, 3].
    """
    pictures = []
    for before, after in (("cover", "stego"), ("secret", "revealed")):
        pictures += [_picture(name, f"{name}, {label}", frames[name]) for name in (before, after)]
        amplified = plots.difference(frames[before], frames[after])
        alt = f"{plots.GAIN} times the difference between {before} and {after}, {label}"
        pictures.append(_picture(f"{plots.GAIN}x difference of {before} and {after}", alt, amplified))
    return pictures


def _picture(caption: str, alt: str, frame: np.ndarray) -> Picture:
    image = Image.fromarray(frame)
    if image.width > WIDEST:
        image = image.resize((WIDEST, max(1, round(image.height * WIDEST / image.width))), Image.LANCZOS)
    file = BytesIO()
    image.save(file, "JPEG", quality=JPEG_QUALITY, subsampling=0)
    source = f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"
    return Picture(caption, alt, source, *image.size)
