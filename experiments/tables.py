"""Write the tables of the documentation from the JSON files in experiments/results.

    python -m experiments.tables [--check]

Replaces what lies between `<!-- table NAME -->` and `<!-- end -->` in README.md, docs/*.md and
experiments/results/*.md; with --check it changes nothing and fails if a page is out of date. Measure with the
scripts that these pages name and copy their JSON to experiments/results first.
"""

import json
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from deepsteg_jax.errors import UserError
from experiments import common, steganalysis_tables
from experiments.markdown import cells, short, table, titles_of

PAGES = (
    common.ROOT / "README.md",
    *sorted((common.ROOT / "docs").glob("*.md")),
    *sorted(common.RESULTS.glob("*.md")),
)
PUBLISHED = Path(__file__).with_name("published.json")
MARK = re.compile(r"(<!-- table ([\w ]+) -->\n).*?(<!-- end -->)", re.DOTALL)


# --- lossless quality: experiments.quality -------------------------------------------------------

CLIPS = {
    "stego_psnr_db": ("stego dB", ".2f"),
    "secret_psnr_db": ("secret dB", ".2f"),
    "secret_ssim": ("SSIM", ".4f"),
}
IMAGES = {name: CLIPS[name] for name in ("stego_psnr_db", "secret_psnr_db")} | {
    "worst_secret_db": ("worst", ".2f")
}


def quality_figures(row: dict) -> dict[str, float]:
    """What the tables show of a measured row."""
    return row["mean"] | {"worst_secret_db": min(item["secret_psnr_db"] for item in row["items"])}


def published(kind: str) -> dict[str, dict]:
    """Published figures by the name of the system, in the columns of the table."""
    return {
        row["system"]: {name: row[name] for name in CLIPS if row.get(name) is not None}
        for row in json.loads(PUBLISHED.read_text())["figures"]
        if row["kind"] == kind
    }


BETWEEN = (
    "Weng 2019",
    "RIIS 2022",
    "HiDDeN",
    "UDH 2020",
    "ISN 2021",
)  # between their neighbours
EARLIER = ("lsb_codec 1 LSB, 8-bit RGB", "lsb_codec mod 5, 8-bit RGB")  # forms of the baseline


def is_shown(name: str) -> bool:
    """Whether a row is that of a shipped cipher, or has none as the original networks may."""
    return "shuffle" not in name or name.startswith("prep_hide_reveal")


def quality(rows: list[dict], kind: str) -> str:
    """Systems measured here, under the shipped cipher, and those published."""
    columns = CLIPS if kind == "clips" else IMAGES
    most, all_items = (max(numbers(row)[i] for row in rows) for i in (1, 0))
    lines = []
    for row in rows:
        if is_shown(row["name"]) and row["name"] not in BETWEEN + EARLIER:
            items, frames = numbers(row)
            few = f", {frames:.0f} frames of each" if frames < 0.9 * most else ""
            few += f", {items} of them" if items < all_items else ""
            lines.append([f"`{row['name']}`{few}", *cells(quality_figures(row), columns)])
    known = ((name, row) for name, row in published(kind).items() if name not in BETWEEN)
    lines += [[f"*{name}*", *cells(row, columns)] for name, row in known]
    return table(["", *titles_of(columns)], lines)


MOVED = {
    "": "samples of the cover, flipped (default)",
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

LEFT_OUT = ("C1", "C3", "C4", "CRF20", "CRF22", "CRF24", "C11", "C9-95", "C13")  # of the ladder
FLAT = ("block_dct", "lsb_codec ternary", "prep_hide_reveal", "invertible_identity")  # little is left
TUNED = "robust, one layer"  # for each codec run


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
    """Secret dB down the ladder of what survives codecs; growth of bits and SSIM of the secret at `codec`."""
    titles = {result["codec"]: result["title"] for result in results if result["codec"] not in LEFT_OUT}
    lines = []
    for name, runs in entries_of(results).items():
        if codec not in runs or name in (*FLAT, TUNED):
            continue
        stego = np.mean([result["mean"]["before_psnr_db"] for result in runs.values()])
        ratio, ssim = (f"{runs[codec]['mean'][figure]:.2f}" for figure in ("ratio", "secret_ssim"))
        shown = [f"{runs[c]['mean']['secret_psnr_db']:.2f}" if c in runs else "-" for c in titles]
        lines.append([f"`{name}`{few_of(runs, results)}", f"{stego:.2f}", ratio, ssim, *shown])
    shown = (title.replace(" CRF", "").replace(" quality", "") for title in titles.values())
    return table(["", "stego dB", "bits", "SSIM", *shown], lines)


def one_layer(results: list[dict]) -> str:
    """Secret dB where all symbols of `robust` are in one layer for that codec run, and of others there.

    All on the clips that the first was measured on.
    """
    found = entries_of(results)
    entries, lines = (TUNED, "robust", "digital"), []
    for codec, tuned in found[TUNED].items():
        clips = {item["cover"] for item in tuned["items"]}
        items = [[x for x in found[entry][codec]["items"] if x["cover"] in clips] for entry in entries]
        means = [f"{np.mean([x['secret_psnr_db'] for x in some]):.2f}" for some in items]
        shares = [f"{quotient(some, 'payload_bits', 'information_bits'):.2f}" for some in items[:2]]
        lines.append([tuned["title"], str(len(clips)), *means, *shares])
    titles = [f"`{name}`" for name in entries]
    return table(["", "clips", *titles, "its efficiency", "that of `robust`"], lines)


def quotient(items: list[dict], above: str, below: str) -> float:
    """The quotient of two sums over items."""
    return sum(item[above] for item in items) / sum(item[below] for item in items)


VISIBILITY = {
    "before_psnr_db": ("stego dB", ".1f"),
    "before_ssimulacra2": ("SSIMULACRA2", ".0f"),
    "after_ssimulacra2": ("after", ".0f"),
    "cover_ssimulacra2": ("clean", ".0f"),
    "ratio_of_sums": ("bits, sums", ".2f"),
    "ratio": ("mean", ".2f"),
    "secret_psnr_db": ("secret dB", ".1f"),
    "efficiency": ("efficiency", ".2f"),
}


def visibility(results: list[dict]) -> str:
    """What x264 CRF 23 leaves of a stego and of the clean cover, what that costs and what arrives."""
    shown = [result for result in results if result["codec"] == "C6"]
    lines = ([f"`{found['entry']}`", *cells(found["mean"] | found, VISIBILITY)] for found in shown)
    return table(["", *titles_of(VISIBILITY)], lines)


def linking(found: dict[str, dict]) -> str:
    """How far stegos of one key, and of two, are from chance."""
    lines = ([stage, *(f"{value:.1f}" for value in scores.values())] for stage, scores in found.items())
    return table(["deviations from chance", "one key, mean", "least", "two keys, most"], lines)


NETWORK = "prep_hide_reveal_small"
SUMMARY = ("block_dct D=3", "adaptive 0.1", "robust", "lsb_codec ternary", "invertible", NETWORK)
SUMMARY_PUBLISHED = ("HiNet 2021, 8-bit", "LF-VSN 2023")


def summary(rows: list[dict]) -> str:
    """A few systems without loss, from the quality file or else the one of codecs, and behind one codec."""
    through = entries_of(common.read_json(common.RESULTS / "robustness_clips.json"))
    lossless = {row["name"]: row["mean"] for row in rows}
    lines = []
    for name in SUMMARY:
        runs = through.get(name.removesuffix(" D=3"), {})
        clean = lossless.get(name) or runs["C2"]["mean"]
        figures = clean.get("stego_psnr_db", clean.get("before_psnr_db")), clean["secret_psnr_db"]
        coded = f"{runs['C6']['mean']['secret_psnr_db']:.1f}" if runs else "-"
        lines.append([f"`{name}`", *(f"{value:.1f}" for value in figures), coded])
    known = published("clips")
    for name in SUMMARY_PUBLISHED:
        figures = known[name]["stego_psnr_db"], known[name]["secret_psnr_db"]
        lines.append([f"*{name}*", *(f"{value:.1f}" for value in figures), "-"])
    return table(["", "stego dB", "secret dB, lossless", "secret dB, x264 CRF 23"], lines)


# --- parts of the default model: experiments.ablation --------------------------------------------

SEEDS = ("default", "seed 1", "seed 2")
VARIANTS = {
    "default": "default",
    "codebook not trained (power law)": "codebook not trained (power law)",
    "8 classes": "8 classes",
    "t = 1": "t = 1",
    "saturated samples clipped, not moved to the next valid value": "saturated samples clipped",
    "refinement network, learning rate 3e-3": "refinement network",
    "the same codebook without the network": "its codebook, no network",
}


def ablation(rows: dict[str, dict]) -> str:
    """Mean dB of the variants, and the spread over seeds."""
    means = {
        name: [np.mean(figures[f"{side}_psnr_db"]) for side in ("stego", "secret")]
        for name, figures in rows.items()
    }
    shown = {name: title for name, title in VARIANTS.items() if name in means}
    lines = ([title, *(f"{x:.2f}" for x in means[name])] for name, title in shown.items())
    found = table(["variant", "stego dB", "secret dB"], lines)
    if not all(name in means for name in SEEDS):
        return found
    seeds = [means[name][1] for name in SEEDS]
    return f"{found}\n\nSpread of the secret over {len(SEEDS)} seeds: {max(seeds) - min(seeds):.3f} dB."


def coding_ideas(found: dict[str, list[float]]) -> str:
    """Mean dB that each idea would bring, and the most for a clip."""
    lines = ([idea, f"{np.mean(dbs):+.2f}", f"{max(dbs):+.2f}"] for idea, dbs in found.items())
    return table(["idea", "secret dB", "best clip"], lines)


# --- the original networks: experiments.network_ablation -----------------------------------------


def network_ablation(rows: dict[str, dict]) -> str:
    """What the variants reach on photos and with drawn secrets, and the time of a step."""
    lines = []
    for name, row in rows.items():
        photos, drawn = row["photos"], row["drawn"]
        decibels = photos["stego_psnr_db"], photos["secret_psnr_db"], drawn["secret_psnr_db"]
        found = [f"{x:.2f}" for x in decibels] + [f"{photos['secret_ssim']:.4f}"]
        step = f"{1000 * row['seconds'] / row['steps']:.0f}" if row["steps"] > 1 else "-"
        lines.append([name, *found, step])
    return table(["", "stego dB", "secret dB", "drawn secret dB", "SSIM of photos", "ms a step"], lines)


# --- side information: experiments.side_information ----------------------------------------------


def side_information(report: dict) -> str:
    """Stego and secret with more and more beside the pictures."""
    rows = {name.replace("side information", "metadata"): row for name, row in report["rows"].items()}
    stego = ", ".join(f"{row['stego_psnr_db']:.3f} ({name})" for name, row in rows.items())
    secret = " / ".join(sorted({f"{row['secret_psnr_db']:.3f}" for row in rows.values()}))
    exact = "every packet came back to the bit" if report["sound_is_exact"] else "NOT all packets came back"
    return (
        f"Stego dB: {stego}; secret {secret}. Sound: {report['sound_bytes']:,} bytes of Opus, "
        f"{report['packets']:,} packets; {exact}."
    )


def secret_sound(rows: list[dict]) -> str:
    """The secret's picture in `robust` without and with its sound."""
    lines = (
        [row["cover"], f"{row['width']}x{row['height']}", row["share"]]
        + [f"{row['with']['sound_bit_s'] / 1000:.1f}"]
        + [f"{row[side]['secret_psnr_db']:.2f}" for side in ("without", "with")]
        for row in rows
    )
    return table(
        ["cover", "size", "`sound_share`", "sound kbit/s", "secret dB without", "secret dB with"], lines
    )


def messenger_sound(rows: dict[str, dict]) -> str:
    """What came through a messenger of a secret with sound."""
    lines = [
        [
            name.split(", ")[1],
            row["revealed"].split(":")[0],
            f"{row['secret_psnr_db']:.1f}",
            "no sound" if row["sound_late_s"] is None else str(round(1000 * row["sound_late_s"])),
        ]
        for name, row in rows.items()
    ]
    return table(["sent with", "revealed", "secret dB", "sound late by ms"], lines)


def edits(rows: dict[str, dict]) -> str:
    """The secret behind each of strangers' edits, or each service, for each cover."""
    found: dict[str, dict[str, str]] = {}
    for name, row in rows.items():
        cover, edit = name.split(", ", 1)
        found.setdefault(edit, {})[Path(cover).stem] = f"{row['secret_psnr_db']:.1f}"
    covers = list(dict.fromkeys(cover for of_edit in found.values() for cover in of_edit))
    lines = ([edit, *(of_edit.get(cover, "-") for cover in covers)] for edit, of_edit in found.items())
    return table(["", *covers], lines)


def off_grid(rows: dict[str, dict[str, float]]) -> str:
    """Bits that a symbol keeps behind each edit, for each clip."""
    edits = next(iter(rows.values()))
    return table(["edit", *rows], ([edit, *(f"{row[edit]:.3f}" for row in rows.values())] for edit in edits))


# --- simulated channels: experiments.channels ----------------------------------------------------


CHANNELS = ("JPEG 75", "4:2:0 (x264 qp 0)", "x264 crf 23")


def channels(rows: list[dict]) -> str:
    """The differentiable channels beside the real ones."""
    lines = []
    for row in (row for row in rows if row["name"] in CHANNELS):
        figures = [row[name] for name in ("real_psnr_db", "proxy_psnr_db", "apart_db")]
        carriers = [row[f"{side}_carrier"] for side in ("real", "proxy") if f"{side}_carrier" in row]
        shown = "/".join(f"{x:.2f}" for x in carriers) or "-"
        lines.append([row["name"], *(f"{x:.2f}" for x in figures), shown])
    return table(["real thing", "real dB", "proxy dB", "apart", "carrier"], lines)


# --- enhancement: experiments.enhancement --------------------------------------------------------


ENHANCED = ("denoise 2", "denoise 5", "sharpen 0.5")


def enhancement(report: dict[str, dict]) -> str:
    """PSNR as revealed, and the change by each way, for each system."""
    lines = [["as revealed", *(f"{figures['nothing']['psnr_db']:.2f}" for figures in report.values())]]
    for way in ENHANCED:
        gains = (ways[way]["psnr_db"] - ways["nothing"]["psnr_db"] for ways in report.values())
        lines.append([way, *(f"{gain:+.2f}" for gain in gains)])
    return table(["dB", *report], lines)


# --- exported files: experiments.export ----------------------------------------------------------

EXPORTED = ("prep_hide_reveal_small", "robust")  # those with a checkpoint that TFLite and ONNX take
WEIGHTS = ("float16", "weights", "int8")


def export(report: dict[str, list[dict]]) -> str:
    """Difference from JAX of the TFLite / ONNX files of a shipped checkpoint."""
    found: dict[str, dict[tuple, str]] = {}
    for name in EXPORTED:
        for row in report.get(name, ()):
            found.setdefault(f"`{name}` {row['graph']}", {})[row["format"], row["weights"]] = _exported(row)
    lines = [
        [
            graph,
            *("/".join(gaps.get((kind, weights), "-") for kind in ("tflite", "onnx")) for weights in WEIGHTS),
        ]
        for graph, gaps in found.items()
    ]
    return table(["dB from JAX", *WEIGHTS], lines)


def _exported(row: dict) -> str:
    if "error" in row:
        return "-"
    if "secret_psnr_db" in row:
        found = row.get("photos", row)
        return f"{found['secret_psnr_db'] - found['jax_secret_psnr_db']:z.2f}"
    return f"{row['max_difference']:.3f}*"


# --- attack without the key: experiments.jigsaw --------------------------------------------------

PIECES = (56, 8)  # pixels
ATTACKED = {
    "shuffled photo itself, nothing hidden": "the photo itself, nothing hidden (control)",
    "fixed 4x4 map (public: needs no solver)": "the original's fixed map of 56 px blocks",
    "coefficients of the secret": "coefficients of the secret",
    "coefficients, cover (default)": "samples of the cover (default)",
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


def reproduction(report: dict) -> str:
    """A run that was killed, against one that was not."""
    kills, saves = len(report["killed_after_steps"]), report["kills_in_the_middle_of_a_save"]
    differing = report["differing_arrays"] + report["differing_lines_of_the_log"]
    return (
        f"Killed {kills} times in {report['steps']} steps, {saves} times in the middle of a save: "
        f"{differing} arrays and lines of the log differ. SIGTERM ends it in "
        f"{report['seconds_from_sigterm_to_exit']:.1f} s."
    )


SOURCES = ("imagenet 224", "images 128", "images cached 128", "clips 128")


def input_speed(report: dict) -> str:
    """Images per second of each source of training data alone."""
    rates = {source: short(report[f"{source.replace(' ', '_')}_images_per_s"]) for source in SOURCES}
    waiting = max(value for name, value in report.items() if name.endswith("waiting_share"))
    shown = ", ".join(f"{rate} ({source})" for source, rate in rates.items())
    return (
        f"Images per second: {shown}. A training step waits for data for {waiting:.1%} of its time at most."
    )


def models(results: dict) -> str:
    """Counted, not run: what a model costs whatever the frame, and for each frame of 224x224."""
    titles = ["", "parameters", "GMAC hide", "reveal", "GFLOP a step", "MB kept", "with remat"]
    lines = []
    for name, found in results["costs"].items():
        # Images: a quarter of the parameters; 2 layers: with the network that brings nothing; another start.
        if name in ("block_dct, images", "block_dct, 2 layers", "invertible:identity"):
            continue
        size = found["sizes"]["224x224"]
        figures = [size["gmac"]["hide"], size["gmac"]["reveal"]]
        figures += [x / found["frames"] for x in (size["step_gflop"], *size["kept_mb"].values())]
        lines.append([f"`{name}`", f"{found['parameters']:,}", *map(short, figures)])
    return table(titles, lines)


def steps(results: dict) -> str:
    """Seconds of a training step of block_dct against batch and frame size."""
    found = results["steps"]
    cases = {f"{batch}, 128x128": (int(batch), found["batch"][batch]) for batch in ("1", "16")}
    cases |= {f"1, {size}": (1, s) for size, s in found["size"].items() if size != "64x64"}
    lines = [[name, f"{1e3 * s:.0f}", f"{4 * batch / s:.0f}"] for name, (batch, s) in cases.items()]
    return table(["batch, frame", "ms a step", "frames/s"], lines)


def devices(results: dict) -> str:
    """One device against eight simulated ones."""
    lines = []
    for case, found in results["devices"].items():
        runs = [" ".join(f"{1e3 * x:.0f}" for x in found["medians"][n]) for n in ("1", "8")]
        shape = f"{found['batch']}, {found['side']}x{found['side']}"
        lines.append([f"`{case}`", shape, *runs, f"{found['seconds 8'] / found['seconds 1']:.2f}"])
    return table(["", "global batch, frame", "ms on 1", "ms on 8", "8 / 1"], lines)


# --- pages ---------------------------------------------------------------------------------------


class Table(NamedTuple):
    """A table of the documentation: the file of its results and the function that writes it."""

    file: str
    write: Callable[[Any], str]


TABLES = {
    "summary": Table("quality_clips", summary),
    "quality clips": Table("quality_clips", partial(quality, kind="clips")),
    "quality images": Table("quality_images", partial(quality, kind="images")),
    "shuffle": Table("quality_clips", shuffle),
    "robustness clips": Table("robustness_clips", partial(robustness, codec="C6")),
    "robustness images": Table("robustness_images", partial(robustness, codec="C9-75")),
    "one layer": Table("robustness_clips", one_layer),
    "visibility seen": Table("visibility_val", visibility),
    "visibility unseen": Table("visibility_left_out", visibility),
    "linking": Table("linking", linking),
    "ablation": Table("ablation", ablation),
    "coding ideas": Table("coding_ideas", coding_ideas),
    "network ablation": Table("network_ablation", network_ablation),
    "side information": Table("side_information", side_information),
    "secret sound": Table("secret_sound", secret_sound),
    "messenger sound": Table("messenger_sound", messenger_sound),
    "edits": Table("edits", edits),
    "edits large": Table("edits_large", edits),
    "edits scaled": Table("edits_scaled", edits),
    "off grid": Table("off_grid", off_grid),
    "channels": Table("channels", channels),
    "enhancement": Table("enhancement", enhancement),
    "export": Table("export", export),
    "jigsaw": Table("jigsaw", jigsaw),
    "live": Table("live_speed", live_speed),
    "steganalysis": Table("steganalysis", steganalysis_tables.photos),
    "steganalysis summary": Table("steganalysis", steganalysis_tables.summary),
    "steganalysis pairs": Table("steganalysis", steganalysis_tables.pairs),
    "steganalysis clips": Table("steganalysis_clips", steganalysis_tables.clips),
    "steganalysis risk": Table("steganalysis_clips", steganalysis_tables.risk),
    "steganalysis jpeg": Table("steganalysis_jpeg", steganalysis_tables.jpeg),
    "learned costs": Table("learned_costs", steganalysis_tables.learned_costs),
    "steganalyser loss": Table("steganalyser_loss", steganalysis_tables.steganalyser_loss),
    "steganalysis untrained": Table("steganalysis_untrained", steganalysis_tables.untrained),
    "reproduction": Table("reproduction", reproduction),
    "input speed": Table("input_speed", input_speed),
    "models": Table("scaling", models),
    "steps": Table("scaling", steps),
    "devices": Table("scaling", devices),
    "slots": Table("slots", lambda found: table(*found["table"])),
    "slots detection": Table("slots_detection", lambda found: table(*found["table"])),
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
