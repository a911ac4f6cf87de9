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
        line[0].set_ylabel(label, fontsize=10)
    figure.savefig(path, dpi=110)
    plt.close(figure)
