"""Tables of what steganalysers find, for `experiments.tables`."""

from experiments.markdown import table

DETECTORS = {"spam": "SPAM", "srm": "rich model", "boosting": "boosting", "network": "network"}
PAIRS = (10, 100, 300)  # of the training pairs, besides all


def percent(found: dict | None) -> str:
    """An accuracy in percent with the wider half of its interval."""
    if not found:
        return "-"
    low, high = (100 * x for x in found["accuracy_interval"])
    accuracy = 100 * found["accuracy"]
    return f"{accuracy:.1f}±{max(high - accuracy, accuracy - low):.0f}"


def by_detector(found: dict) -> dict[str, dict[str, dict]]:
    """{row: {detector: figures}}, of the network too."""
    lines: dict[str, dict] = {}
    for row in found["rows"] + found["network"].get("rows", []):
        lines.setdefault(row["row"], {})[row["detector"]] = row
    return lines


def photos(found: dict) -> str:
    """Accuracy of every detector on photos it has not seen."""
    titles = ["hidden in a photo, bits per sample", "dB", *DETECTORS.values(), "photos: training, test"]
    shown = []
    for name, row in by_detector(found).items():
        if name.endswith(" 0.2") or name == "block_dct D=4":  # between their neighbours
            continue
        figures = [percent(row.get(detector)) for detector in DETECTORS]
        counts = f"{row['srm']['train']}, {row['srm']['count']}"
        shown.append([name, f"{row['srm']['stego_psnr_db']:.1f}", *figures, counts])
    return table(titles, shown)


def summary(found: dict) -> str:
    """The most that is found of what hides here, and of the most careful embedding."""
    best = {name: max(x["accuracy"] for x in row.values()) for name, row in by_detector(found).items()}
    shown = ("block_dct D=3", "invertible", "prep_hide_reveal", "HILL 0.1", "adaptive 0.1")
    figures = ", ".join(f"{name} {best[name]:.1%}" for name in shown if name in best)
    return f"Best detector's accuracy on an unseen 224x224 photo: {figures}."


def pairs(found: dict) -> str:
    """Accuracy of the rich model against the number of training pairs, and on another source."""
    of = {}
    for row in found["curve"] + found["rows"]:
        if row["detector"] == "srm":
            of.setdefault(row["row"], {})[row["train"]] = row
    apart = {row["row"]: row for row in found["mismatch"] if row["detector"] == "srm"}
    names = dict.fromkeys(row["row"] for row in found["curve"])
    lines = [
        [
            name,
            *(percent(of[name].get(n)) for n in PAIRS),
            percent(of[name][max(of[name])]),
            percent(apart.get(name)),
        ]
        for name in names
    ]
    return table(["training pairs", *PAIRS, "all", "another source"], lines)


def clips(found: dict) -> str:
    """Accuracy on clips that a detector has not seen: of all on one frame, of the rich model on several."""
    frames = list(dict.fromkeys(row["frames"] for row in found["rows"]))
    columns = [(detector, 1) for detector in ("luma", "spam", "srm")] + [("srm", n) for n in frames[1:]]
    lines: dict[str, dict] = {}
    for row in found["rows"]:
        title = row["row"] if row["count"] == found["clips"] else f"{row['row']} ({row['count']} clips)"
        lines.setdefault(title, {})[row["detector"], row["frames"]] = row
    several = [f"{n} frames" for n in frames[1:]]
    titles = ["", "SPAM of luma", "SPAM", "rich model", *several]
    return table(titles, ([name, *(percent(line.get(c)) for c in columns)] for name, line in lines.items()))


def risk(found: dict) -> str:
    """The most that is found of `adaptive` in frames of clips, by rate, by any detector here."""
    parts = []
    for rate in ("0.05", "0.1", "0.4"):
        rows = [row for row in found["rows"] if row["row"] == f"adaptive {rate}"]
        best = (max((r for r in rows if r["frames"] == n), key=lambda r: r["accuracy"]) for n in (1, 30))
        parts.append(" and ".join(percent(row) for row in best) + f" at {rate}")
    return (
        "The best detector tells `adaptive` from untouched video, in percent of single frames and of 30 "
        f"averaged ones (50: a guess): {', '.join(parts)} bit per sample."
    )


def untrained(found: dict) -> str:
    """Pictures that the tests suspect, in percent."""
    lines: dict[str, dict] = {}
    for row in found["rows"]:
        lines.setdefault(row["row"], {})[f"{row['test']} ({row['count']})"] = f"{100 * row['suspected']:.0f}"
    titles = list(dict.fromkeys(title for line in lines.values() for title in line))
    return table(["suspected, %", *titles], ([name, *line.values()] for name, line in lines.items()))


def jpeg(found: dict) -> str:
    """What DCTR and GFR features find in JPEGs, and how much was embedded and changed."""
    lines: dict[str, list] = {}
    for row in found["rows"]:
        about = [f"{row['rate']:.3f}", f"{100 * row['changed']:.1f}"]
        line = lines.setdefault(f"{row['row']}, quality {row['quality']}", about)
        line.append(f"{100 * row['accuracy']:.1f}±{100 * row['interval']:.0f}")
    titles = ["", "bits per coefficient", "% of them changed", f"DCTR, {found['photos']} photos", "GFR"]
    return table(titles, ([name, *line] for name, line in lines.items()))


def learned_costs(found: dict) -> str:
    """What detectors find of `adaptive` at HILL costs and at learned ones."""
    lines = [
        [
            f"{row['count']} {row['covers']}",
            f"{row['payload']}",
            DETECTORS[row["detector"]],
            *(f"{100 * row[name]:.1f}" for name in ("hill", "learned")),
            f"{100 * row['less']:+.1f}±{100 * row['less_interval']:.1f}",
            f"{100 * row['floor']:.0f}" if row.get("floor") else "-",
        ]
        for row in found["rows"]
    ]
    titles = [
        "covers",
        "bits per sample",
        "detector",
        "HILL",
        "learned",
        "HILL less learned",
        "LSB matching 0.4",
    ]
    return table(titles, lines)


def steganalyser_loss(found: dict) -> str:
    """Quality and detection of `prep_hide_reveal` by the weight of a steganalyser's loss."""
    detectors = ("spam", "srm")
    lines = [
        [
            f"{row['weight']:g}",
            f"{row['stego_psnr_db']:.2f}",
            f"{row['secret_psnr_db']:.2f}",
            *(f"{100 * row[name]:.1f}±{100 * row[f'{name}_interval']:.0f}" for name in detectors),
            *(f"{row[f'{name}_apart']:.1f}±{row[f'{name}_apart_interval']:.1f}" for name in detectors),
            "-" if row["own"] is None else f"{100 * row['own']:.0f}",
        ]
        for row in found["rows"]
    ]
    apart = [f"{DETECTORS[name]}, d'" for name in detectors]
    titles = ["weight", "stego dB", "secret dB", "SPAM", "rich model", *apart, "the one in training"]
    return table(titles, lines)
