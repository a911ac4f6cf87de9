"""Pictures and charts for reports."""

import re
from collections.abc import Sequence
from io import StringIO
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import MaxNLocator

plt.switch_backend("Agg")

GAIN = 20
COLUMNS = ("cover", "stego", f"{GAIN}x difference", "secret", "revealed")


def difference(cover: np.ndarray, stego: np.ndarray) -> np.ndarray:
    """Return the signed difference of two uint8 frames, 20 times, around mid-grey; uint8."""
    amplified = 128 + GAIN * (stego.astype(int) - cover.astype(int))
    return np.clip(amplified, 0, 255).astype(np.uint8)


def comparison(path: str | Path, rows: list[tuple[str, dict[str, np.ndarray]]]) -> None:
    """Draw one row of cover, stego, 20x difference, secret and revealed for each entry.

    Args:
        path: of the PNG.
        rows: (label, {"cover", "stego", "secret", "revealed"}: uint8 frames [h, w, 3]).
    """
    height, width = rows[0][1]["cover"].shape[:2]
    size = (4 * len(COLUMNS), (4 * height / width + 0.35) * len(rows))
    figure, axes = plt.subplots(len(rows), len(COLUMNS), figsize=size, squeeze=False, layout="constrained")
    for line, (label, frames) in zip(axes, rows, strict=True):
        shown = {**frames, COLUMNS[2]: difference(frames["cover"], frames["stego"])}
        for axis, column in zip(line, COLUMNS, strict=True):
            axis.imshow(shown[column])
            axis.set_title(column, fontsize=10)
            axis.set_xticks([])
            axis.set_yticks([])
        line[0].set_ylabel(label, fontsize=10, parse_math=False)  # a file may be called $x
    figure.savefig(path, dpi=110)
    plt.close(figure)


def quality(path: str | Path, points: dict[str, list[tuple[str, dict[str, float]]]]) -> None:
    """Draw secret against stego PSNR, one marker for each group of systems.

    Args:
        path: of the PNG.
        points: group -> [(name, {"stego_psnr_db", "secret_psnr_db"})].
    """
    figure, axis = plt.subplots(figsize=(9, 6.5), layout="constrained")
    for i, (group, systems) in enumerate(points.items()):
        x = [figures["stego_psnr_db"] for _, figures in systems]
        y = [figures["secret_psnr_db"] for _, figures in systems]
        axis.scatter(x, y, marker="osD^v"[i % 5], label=group)
        for name, left, up in zip([name for name, _ in systems], x, y, strict=True):
            axis.annotate(name, (left, up), xytext=(5, 4), textcoords="offset points", fontsize=8)
    axis.set(xlabel="stego PSNR (dB)", ylabel="secret PSNR (dB)")
    axis.margins(x=0.15)  # room for names
    axis.grid(alpha=0.3)
    axis.legend(loc="upper left")
    figure.savefig(path, dpi=110)
    plt.close(figure)


# Colours that matplotlib takes, and those that a page puts in their place, in light and dark.
_INK, _FIRST, _SECOND = "#010203", "#010204", "#010205"
_OF_THE_PAGE = {_INK: "currentColor", _FIRST: "var(--first)", _SECOND: "var(--second)"}
_LINES = ((_FIRST, "-", "o"), (_SECOND, "--", "D"))  # colour, line, mark
_SVG = {
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "deepsteg_jax",  # the same names in every run
    "font.size": 12,
    **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), _INK),
}


def chart(series: dict[str, Sequence[float]], along: str, first: int, marks: bool = False) -> str:
    """Draw figures in dB as an SVG element that goes into a page.

    Args:
        series: at most two, by name.
        along: what the horizontal axis counts.
        first: number of the first value.
        marks: single values that belong to no curve.

    Returns:
        The element, in the colours `currentColor`, `var(--first)` and `var(--second)` of the page.
    """
    buffer = StringIO()
    with plt.rc_context(_SVG):
        figure, axis = plt.subplots(figsize=(9, 3.2), layout="constrained")
        for (name, values), (colour, line, mark) in zip(series.items(), _LINES, strict=False):
            how = {"marker": mark, "linestyle": ""} if marks else {"linestyle": line}
            numbers = range(first, first + len(values))
            axis.plot(numbers, values, label=name, color=colour, clip_on=False, **how)
        axis.set(xlabel=along, ylabel="dB")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.grid(color=_INK, alpha=0.2, clip_on=False)
        axis.spines[["top", "right"]].set_visible(False)
        axis.patch.set_visible(False)
        figure.patch.set_visible(False)
        figure.legend(loc="outside upper left", ncols=2, frameon=False)
        figure.savefig(buffer, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
        plt.close(figure)
    text = buffer.getvalue()
    text = re.sub(r"<style.*?</style>", "", text[text.index("<svg") :], flags=re.DOTALL)
    text = re.sub(r' (?:width|height)="[\d.]+pt"', "", text)  # the page decides
    for colour, replacement in _OF_THE_PAGE.items():
        text = text.replace(colour, replacement)
    return text
