"""Pictures for reports."""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt  # noqa: E402
import numpy as np  # noqa: E402

GAIN = 20
COLUMNS = ("cover", "stego", f"{GAIN}x difference", "secret", "revealed")


def difference(cover: np.ndarray, stego: np.ndarray) -> np.ndarray:
    """The signed difference of two uint8 frames, 20 times, around mid-grey; uint8."""
    amplified = 128 + GAIN * (stego.astype(int) - cover.astype(int))
    return np.clip(amplified, 0, 255).astype(np.uint8)


def comparison(path: str | Path, rows: list[tuple[str, dict[str, np.ndarray]]]) -> None:
    """Draws one row of cover, stego, 20x difference, secret and revealed for each entry.

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
    """Draws secret against stego PSNR, one marker for each group of systems.

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
