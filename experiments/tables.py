"""Write the tables of the documentation from the JSON files in experiments/results.

    python -m experiments.tables [--check]

Replaces what lies between `<!-- table NAME -->` and `<!-- end -->` in README.md and docs/*.md; with --check
it changes nothing and fails if a page is out of date. Measure with the scripts that docs/RESULTS.md names and
copy their JSON to experiments/results first.
"""

import json
import re
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from deepsteg_jax.errors import UserError
from experiments import common

PAGES = (common.ROOT / "README.md", *sorted((common.ROOT / "docs").glob("*.md")))
PUBLISHED = Path(__file__).with_name("published.json")
MARK = re.compile(r"(<!-- table ([\w ]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def table(titles: Iterable[str], rows: Iterable[Iterable]) -> str:
    """A Markdown table."""
    titles = list(titles)
    head, *lines = ("| " + " | ".join(map(str, line)) + " |" for line in (titles, *rows))
    return "\n".join([head, "|" + "---|" * len(titles), *lines])


def cells(figures: dict[str, float], columns: dict[str, tuple[str, str]]) -> list[str]:
    """Formatted figures, a dash where one is missing; columns: {name: (title, format)}."""
    return [format(figures[name], style) if name in figures else "-" for name, (_, style) in columns.items()]


def titles_of(columns: dict[str, tuple[str, str]]) -> list[str]:
    """The titles of columns {name: (title, format)}."""
    return [title for title, _ in columns.values()]


def short(value: float, digits: int = 3) -> str:
    """A figure with a few digits, thousands separated."""
    rounded = float(f"{value:.{digits}g}")
    return f"{rounded:,.0f}" if rounded >= 10 ** (digits - 1) or not rounded else f"{rounded:.{digits}g}"


# --- lossless quality: experiments.quality -------------------------------------------------------

CLIPS = {
    "stego_psnr_db": ("stego dB", ".2f"),
    "secret_psnr_db": ("secret dB", ".2f"),
    "secret_ssim": ("SSIM", ".4f"),
    "median_secret_db": ("median", ".2f"),
    "worst_secret_db": ("worst", ".2f"),
    "secret_ssimulacra2": ("SSIMULACRA2", ".1f"),
    "gmac": ("GMAC/frame", ".2f"),
}
IMAGES = {
    name: CLIPS[name] for name in ("stego_psnr_db", "secret_psnr_db", "median_secret_db", "worst_secret_db")
}


def quality_figures(row: dict) -> dict[str, float]:
    """What the tables show of a measured row."""
    figures = row["mean"] | {name: row[name] for name in ("gmac", "parameters") if name in row}
    values = [item["secret_psnr_db"] for item in row["items"]]
    return figures | {"median_secret_db": np.median(values), "worst_secret_db": min(values)}


def published(kind: str) -> dict[str, dict]:
    """Published figures by the name of the system, in the columns of the table."""
    names = {name: "gmac_per_frame" if name == "gmac" else name for name in CLIPS}
    return {
        row["system"]: {name: row[key] for name, key in names.items() if row.get(key) is not None}
        for row in json.loads(PUBLISHED.read_text())["figures"]
        if row["kind"] == kind
    }


EARLIER = ("lsb_codec 1 LSB, 8-bit RGB", "lsb_codec mod 5, 8-bit RGB")  # forms of the baseline


def quality(rows: list[dict], kind: str, columns: dict) -> str:
    """Systems measured here, under the shipped cipher, and those published."""
    most = max(row["mean"]["frames"] for row in rows)
    lines = []
    for row in rows:
        if "shuffle" not in row["name"] and row["name"] not in EARLIER:
            frames = row["mean"]["frames"]
            few = f", {frames:.0f} frames of each" if frames < 0.9 * most else ""
            lines.append([f"`{row['name']}`{few}", *cells(quality_figures(row), columns)])
    lines += [[f"*{name}, published*", *cells(row, columns)] for name, row in published(kind).items()]
    return table(["", *titles_of(columns)], lines)


MOVED = {
    "": "samples of the cover, flipped (default)",
    ", shuffle moves nothing": "nothing",
    ", shuffle moves cover by blocks": "blocks of the cover",
    ", shuffle moves secret by coefficients": "coefficients of the secret, flipped",
    ", shuffle moves secret by blocks": "blocks of the secret",
}


def shuffle(rows: list[dict]) -> str:
    """The cost of each keyed cipher, and what a wrong key reveals."""
    means = {row["name"]: row["mean"] for row in rows}
    names = {"stego_psnr_db": ("stego dB", ".2f"), "secret_psnr_db": ("secret dB", ".2f")}
    names["wrong_key_psnr_db"] = ("wrong key dB", ".1f")
    lines = ([moved, *cells(means[f"block_dct D=3{end}"], names)] for end, moved in MOVED.items())
    return table(["the key moves", *titles_of(names)], lines)


# --- real codecs: experiments.robustness ---------------------------------------------------------

FULL = {
    "after_psnr_db": ("stego dB", ".2f"),
    "cover_psnr_db": ("clean cover dB", ".2f"),
    "secret_ssim": ("secret SSIM", ".4f"),
}
LEFT_OUT = ("C1", "C3", "C4", "CRF22", "CRF24", "C11")  # of the ladder: between their neighbours


def entries_of(results: list[dict]) -> dict[str, dict[str, dict]]:
    """{entry: {codec: result}} of a list of results."""
    found: dict[str, dict[str, dict]] = {}
    for result in results:
        found.setdefault(result["entry"], {})[result["codec"]] = result
    return found


def few_of(runs: dict[str, dict], results: list[dict]) -> str:
    """Says where an entry was measured on fewer items or frames than the others."""
    items, frames = (max(numbers(result)[i] for result in results) for i in (0, 1))
    own_items, own_frames = (max(numbers(result)[i] for result in runs.values()) for i in (0, 1))
    parts = [f"{own_items} items"] * (own_items < items)
    parts += [f"{own_frames:.0f} frames"] * (own_frames < 0.9 * frames)
    return f" ({', '.join(parts)})" if parts else ""


def numbers(result: dict) -> tuple[int, float]:
    """Items, and frames of each in the mean."""
    return len(result["items"]), result["mean"]["frames"]


def robustness(results: list[dict], codec: str) -> str:
    """Secret dB of every entry down the ladder; growth of its bits at `codec`, and mid-grey's secret dB."""
    titles = {result["codec"]: result["title"] for result in results if result["codec"] not in LEFT_OUT}
    lines = []
    for name, runs in entries_of(results).items():
        if codec not in runs:
            continue
        stego = np.mean([result["mean"]["before_psnr_db"] for result in runs.values()])
        ratio = f"{runs[codec]['mean']['ratio']:.2f}"
        shown = [f"{runs[c]['mean']['secret_psnr_db']:.2f}" if c in runs else "-" for c in titles]
        lines.append([f"`{name}`{few_of(runs, results)}", f"{stego:.2f}", ratio, *shown])
    grey = {c: [r["mean"]["grey_psnr_db"] for r in results if r["codec"] == c] for c in titles}
    lines.append(["mid-grey", "", "", *(f"{np.mean(values):.2f}" for values in grey.values())])
    return table(["", "stego dB", f"bits at {titles[codec]}", *titles.values()], lines)


def robustness_at(results: list[dict], codec: str) -> str:
    """Every figure of every entry behind one codec."""
    lines = [
        [f"`{name}`{few_of(runs, results)}", *cells(runs[codec]["mean"], FULL)]
        for name, runs in entries_of(results).items()
        if codec in runs
    ]
    return table(["", *titles_of(FULL)], lines)


SUMMARY = ("block_dct D=3", "robust", "lsb_codec ternary", "invertible", "prep_hide_reveal")
SUMMARY_PUBLISHED = ("HiNet 2021, 8-bit", "LF-VSN 2023")


def summary(rows: list[dict]) -> str:
    """A few systems without loss, from the quality file or else the one of codecs, and behind one codec."""
    through = entries_of(common.read_json(common.RESULTS / "robustness_clips.json"))
    lossless = {row["name"]: row["mean"] for row in rows}
    lines = []
    for name in SUMMARY:
        runs = through[name.removesuffix(" D=3")]
        clean = lossless.get(name) or runs["C0"]["mean"]
        figures = clean.get("stego_psnr_db", clean.get("before_psnr_db")), clean["secret_psnr_db"]
        shown = (f"{value:.1f}" for value in (*figures, runs["C6"]["mean"]["secret_psnr_db"]))
        lines.append([f"`{name}`", *shown])
    known = published("clips")
    for name in SUMMARY_PUBLISHED:
        figures = known[name]["stego_psnr_db"], known[name]["secret_psnr_db"]
        lines.append([f"*{name}, published*", *(f"{value:.1f}" for value in figures), "-"])
    return table(["", "stego dB", "secret dB, lossless", "secret dB, x264 CRF 23"], lines)


# --- parts of the default model: experiments.ablation --------------------------------------------

SEEDS = ("default", "seed 1", "seed 2")


def ablation(rows: dict[str, dict]) -> str:
    """The gain is the difference of mean secret dB to the default at the same modulus."""
    reference = {3: "default", 2: "D = 2, trained at D = 3"}
    lines = []
    for name, figures in rows.items():
        if "gain_bound_db" in figures:
            lines.append([name, "-", "-", f"< +{figures['gain_bound_db']:.2f}", "-"])
            continue
        stego, secret = (np.mean(figures[f"{side}_psnr_db"]) for side in ("stego", "secret"))
        base = rows.get(reference[figures["modulus"]])
        change = f"{secret - np.mean(base['secret_psnr_db']):+.2f}" if base else "-"
        lines.append([name, f"{stego:.2f}", f"{secret:.2f}", change, f"{figures['gmac']:.2f}"])
    text = table(["variant", "stego dB", "secret dB", "against default", "GMAC/frame"], lines)
    if all(name in rows for name in SEEDS):
        means = [np.mean(rows[name]["secret_psnr_db"]) for name in SEEDS]
        text += f"\n\nSpread of the secret's dB over {len(SEEDS)} seeds: {max(means) - min(means):.3f} dB."
    return text


# --- side information: experiments.side_information ----------------------------------------------


def side_information(report: dict) -> str:
    """Stego and secret with more and more beside the pictures."""
    columns = {"stego_psnr_db": ("stego dB", ".3f"), "secret_psnr_db": ("secret dB", ".3f")}
    text = table(
        ["", *titles_of(columns)],
        (
            [name.replace("side information", "metadata"), *cells(row, columns)]
            for name, row in report["rows"].items()
        ),
    )
    exact = "every packet came back to the bit" if report["sound_is_exact"] else "NOT all packets came back"
    return (
        f"{text}\n\nSound: {report['sound_bytes']:,} bytes of Opus, {report['packets']:,} packets; {exact}."
    )


# --- simulated channels: experiments.channels ----------------------------------------------------


CHANNELS = (
    "JPEG 75",
    "4:2:0 (x264 qp 0)",
    "resize 75 %",
    "x264 qp 24",
    "x264 crf 18",
    "x264 crf 23",
    "x264 crf 28",
)


def channels(rows: list[dict]) -> str:
    """The differentiable channels beside the real ones."""
    titles = ["real thing", "proxy", "real dB", "proxy dB", "apart dB", "carrier"]
    lines = []
    for row in (row for row in rows if row["name"] in CHANNELS):
        figures = [row[name] for name in ("real_psnr_db", "proxy_psnr_db", "apart_db")]
        carriers = [row[f"{side}_carrier"] for side in ("real", "proxy") if f"{side}_carrier" in row]
        line = [row["name"], "`{}` {}".format(*row["stage"]), *(f"{x:.2f}" for x in figures)]
        lines.append([*line, " / ".join(f"{x:.2f}" for x in carriers)])
    return table(titles, lines)


# --- enhancement: experiments.enhancement --------------------------------------------------------


ENHANCED = ("denoise 1", "denoise 2", "denoise 3", "denoise 5", "sharpen 0.5")


def enhancement(report: dict[str, dict]) -> str:
    """PSNR as revealed, and the change by each way, for each system."""
    lines = [["as revealed", *(f"{figures['nothing']['psnr_db']:.2f}" for figures in report.values())]]
    for way in ENHANCED:
        gains = (ways[way]["psnr_db"] - ways["nothing"]["psnr_db"] for ways in report.values())
        lines.append([way, *(f"{gain:+.2f}" for gain in gains)])
    return table(["dB", *report], lines)


# --- exported files: experiments.export ----------------------------------------------------------

EXPORTED = ("block_dct", "robust")  # those with a checkpoint; of images it is alike
WEIGHTS = (
    ("stablehlo", "float32"),
    *((f, w) for w in ("float32", "float16", "dynamic", "int8") for f in ("tflite", "onnx")),
)
RUNTIMES = {"stablehlo": "StableHLO", "tflite": "TFLite", "onnx": "ONNX"}


def export(report: dict[str, list[dict]]) -> str:
    """Difference from JAX of every exported file of a shipped checkpoint."""
    found: dict[tuple, dict[tuple, str]] = {}
    for name in EXPORTED:
        for row in report[name]:
            found.setdefault((f"`{name}`", row["graph"]), {})[row["format"], row["weights"]] = _exported(row)
    titles = [f"{RUNTIMES[kind]} {weights}" for kind, weights in WEIGHTS]
    lines = [[" ".join(key), *(gaps.get(each, "") for each in WEIGHTS)] for key, gaps in found.items()]
    return table(["dB from JAX", *titles], lines)


def _exported(row: dict) -> str:
    if "error" in row:
        return "-"
    if "secret_psnr_db" in row:
        return f"{row['secret_psnr_db'] - row['jax_secret_psnr_db']:z.2f}"
    return f"{row['max_difference']:.3f}*"


# --- attack without the key: experiments.jigsaw --------------------------------------------------

PIECES = (56, 16, 8)  # pixels
ATTACKED = {
    "shuffled photo itself, nothing hidden": "the photo itself, nothing hidden (control)",
    "fixed 4x4 map (public: needs no solver)": "the original's fixed map of 56 px blocks",
    "coefficients of the secret": "coefficients of the secret",
    "keyed blocks of the cover, 8 px": "blocks of the cover, 8 px",
    "coefficients, cover (default)": "samples of the cover (default)",
    "coefficients, cover (default), header given": "the same, header given",
}


def jigsaw(rows: list[dict]) -> str:
    """Neighbours that the solver puts right, in percent, for each size of pieces."""
    found: dict[str, dict[int, float]] = {"chance": {}}
    for row in rows:
        name = ATTACKED.get(row["name"], "blocks of the secret, as large as the pieces")
        if row["name"] in ATTACKED or row["name"].startswith("keyed blocks of the secret"):
            found.setdefault(name, {})[row["piece_size"]] = row["mean"]["neighbours"]
            found["chance"][row["piece_size"]] = row["mean"]["chance"]
    found["chance"] = found.pop("chance")  # last
    lines = [
        [name, *(f"{100 * shares[size]:.1f}" if size in shares else "" for size in PIECES)]
        for name, shares in found.items()
    ]
    return table(["neighbours right, %", *(f"{size} px" for size in PIECES)], lines)


# --- live: experiments.live_speed ----------------------------------------------------------------


def live_speed(report: dict) -> str:
    """A row for each config and size."""
    titles = ["", "frames/s", "latency at 25 frames/s, ms", "processor: hide, ms", "reveal, ms"]
    lines = []
    for name, ways in report["ways"].items():
        line = [name, f"{ways['overlapped']['fps']:.1f}", f"{ways['paced']['latency_ms']:.0f}"]
        lines.append(
            line + [f"{ways['one by one'][f'{side}_processor_ms']:.0f}" for side in ("hide", "reveal")]
        )
    return table(titles, lines)


# --- training: experiments.reproduction, input_speed, scaling -------------------------------------


def named_figures(report: dict) -> str:
    """A flat report, a line for each figure; lists are counted."""
    values = {name: len(x) if isinstance(x, list) else x for name, x in report.items()}
    shown = {name: x if isinstance(x, str) else short(x) for name, x in values.items()}
    return table(["", ""], ([name.replace("_", " "), x] for name, x in shown.items()))


SOURCES = ("imagenet 224", "imagenet 128", "images 128", "images cached 128", "clips 128")


def input_speed(report: dict) -> str:
    """Images per second of each source of training data alone."""
    lines = []
    for source in SOURCES:
        name = source.replace(" ", "_")
        figures = report[f"{name}_images_per_s"], report[f"{name}_cpu_us_per_image"]
        lines.append([source, *map(short, figures)])
    waiting = max(value for name, value in report.items() if name.endswith("waiting_share"))
    text = table(["", "images/s", "processor, us an image"], lines)
    return f"{text}\n\nA training step waits for data for {waiting:.1%} of its time at most."


def models(results: dict) -> str:
    """Counted, not run: what a model costs whatever the frame, and for each frame of 224x224."""
    titles = [
        "",
        "parameters",
        "state, MB",
        "GMAC hide",
        "GMAC reveal",
        "GFLOP a step",
        "MB kept",
        "with remat",
    ]
    lines = []
    for name, found in results["costs"].items():
        size = found["sizes"]["224x224"]
        figures = [16 * found["parameters"] / 1e6, size["gmac"]["hide"], size["gmac"]["reveal"]]
        figures += [x / found["frames"] for x in (size["step_gflop"], *size["kept_mb"].values())]
        lines.append([f"`{name}`", f"{found['parameters']:,}", *map(short, figures)])
    return table(titles, lines)


def steps(results: dict) -> str:
    """Seconds of a training step of block_dct against batch and frame size."""
    found = results["steps"]
    cases = {f"batch {batch}, 128x128": (int(batch), s) for batch, s in found["batch"].items()}
    cases |= {f"batch 1, {size}": (1, s) for size, s in found["size"].items()}
    lines = [[name, f"{1e3 * s:.0f}", f"{4 * batch / s:.1f}"] for name, (batch, s) in cases.items()]
    return table(["`block_dct`, groups of 4", "ms a step", "frames/s"], lines)


def devices(results: dict) -> str:
    """One device against eight simulated ones."""
    lines = []
    for case, found in results["devices"].items():
        runs = [" ".join(f"{1e3 * x:.0f}" for x in found["medians"][n]) for n in ("1", "8")]
        shape = f"{found['batch']}, {found['side']}x{found['side']}"
        lines.append([f"`{case}`", shape, *runs, f"{found['seconds 8'] / found['seconds 1']:.2f}"])
    return table(["", "global batch, frame", "ms on 1", "ms on 8", "8 / 1"], lines)


def saving(results: dict) -> str:
    """For how long a checkpoint holds up the loop."""
    run, saves = results["saving"]["run"], results["saving"]["saves"]
    lines = [
        ["`block_dct`, the loop's own `save_wait`, one save in 100 steps", "", f"{run['save_wait']:.2%}"]
    ]
    share = saves["block_dct"]["seconds"] / (100 * run["seconds per step"])
    for name, save in saves.items():
        title = f"`{name}`, one call, {save['bytes'] / 1e6:.1f} MB"
        lines.append([title, f"{1e3 * save['seconds']:.0f}", f"{share:.2%}" if name == "block_dct" else ""])
    return table(["", "ms held up", "share of 100 steps"], lines)


# --- pages ---------------------------------------------------------------------------------------


class Table(NamedTuple):
    """A table of the documentation: the file of its results and the function that writes it."""

    file: str
    write: Callable[[Any], str]


TABLES = {
    "summary": Table("quality_clips", summary),
    "quality clips": Table("quality_clips", partial(quality, kind="clips", columns=CLIPS)),
    "quality images": Table("quality_images", partial(quality, kind="images", columns=IMAGES)),
    "shuffle": Table("quality_clips", shuffle),
    "robustness clips": Table("robustness_clips", partial(robustness, codec="C6")),
    "robustness clips at CRF 23": Table("robustness_clips", partial(robustness_at, codec="C6")),
    "robustness images": Table("robustness_images", partial(robustness, codec="C9-75")),
    "ablation": Table("ablation", ablation),
    "side information": Table("side_information", side_information),
    "channels": Table("channels", channels),
    "enhancement": Table("enhancement", enhancement),
    "export": Table("export", export),
    "jigsaw": Table("jigsaw", jigsaw),
    "live": Table("live_speed", live_speed),
    "reproduction": Table("reproduction", named_figures),
    "input speed": Table("input_speed", input_speed),
    "models": Table("scaling", models),
    "steps": Table("scaling", steps),
    "devices": Table("scaling", devices),
    "saving": Table("scaling", saving),
}


def write(name: str) -> str:
    """The table of that name.

    Raises:
        UserError: there is no such table, or no file of its results.
    """
    if name not in TABLES:
        raise UserError(f"there is no table {name!r}: {', '.join(TABLES)}")
    path = common.RESULTS / f"{TABLES[name].file}.json"
    if not path.exists():
        raise UserError(f"{path} does not exist: copy what its script measured there")
    return TABLES[name].write(common.read_json(path))


def fill(text: str) -> str:
    """A page with the tables between its marks made anew."""
    return MARK.sub(lambda found: f"{found[1]}{write(found[2])}\n{found[3]}", text)


def main() -> int:
    """Write all pages, or with --check name those that are out of date."""
    parser = common.make_parser(__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing, fail if a page is out of date")
    check = parser.parse_args().check
    changed = [page for page in PAGES if fill(page.read_text()) != page.read_text()]
    for page in changed:
        print(f"{page.name}: {'out of date' if check else 'written'}")
        if not check:
            page.write_text(fill(page.read_text()))
    return int(check and bool(changed))


if __name__ == "__main__":
    common.run(main)
