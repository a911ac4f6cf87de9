"""Measuring hidden and revealed files: the one place that computes reported figures.

Every figure is RGB and 8-bit, from files written and read back; the mean over frames of per-frame dB.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np

from deepsteg_jax import metrics
from deepsteg_jax.video import io, pipeline

WORKERS = 2


class Files(NamedTuple):
    """The four clips or images of one round trip."""

    cover: Path
    stego: Path
    secret: Path
    revealed: Path


def read_together(files: Files, frames: int | None = None) -> Iterator[dict[str, np.ndarray]]:
    """Yields the hidden frames side by side; the secret is scaled as it was hidden."""
    cover_info, secret_info = io.probe(files.cover), io.probe(files.secret)
    streams = {
        "revealed": io.read_frames(files.revealed),
        "cover": io.read_frames(files.cover),
        "stego": io.read_frames(files.stego),
        "secret": pipeline.read_fitted(files.secret, secret_info, cover_info.width, cover_info.height),
    }
    for together in islice(zip(*streams.values(), strict=False), frames):
        yield dict(zip(streams, together, strict=True))


def _measure_frame(frames: dict[str, np.ndarray]) -> dict[str, float]:
    pairs = {"stego": ("cover", "stego"), "secret": ("secret", "revealed")}
    measured = {}
    for name, (a, b) in pairs.items():
        measured[f"{name}_psnr_db"] = metrics.psnr(frames[a], frames[b])
        measured[f"{name}_ssim"] = metrics.ssim(frames[a], frames[b])
    return measured


def measure(files: Files, progress=lambda frames: None) -> dict[str, float]:
    """Mean over frames of stego and secret PSNR (dB) and SSIM, and the capacity used.

    `capacity_bpp` is the size of the secret, 24 bits a pixel, per pixel of cover that carries it.
    """
    values, shape = [], {}
    with ThreadPoolExecutor(WORKERS) as pool:
        stream = read_together(files)
        while batch := list(islice(stream, 2 * WORKERS)):
            shape = {name: frame.shape for name, frame in batch[0].items()}
            values += pool.map(_measure_frame, batch)
            progress(len(batch))
    means = {name: float(np.mean([v[name] for v in values])) for name in values[0]}
    pixels = {name: size[0] * size[1] for name, size in shape.items()}
    return {**means, "capacity_bpp": 24 * pixels["secret"] / pixels["cover"], "frames": len(values)}


def picked_frames(files: Files, count: int, frames: int) -> list[tuple[str, dict[str, np.ndarray]]]:
    """`count` rows for `plots.comparison`, evenly spread over the first `frames` frames."""
    wanted = sorted({round((i + 0.5) * frames / count - 0.5) for i in range(count)})
    return [(f"frame {n}", f) for n, f in enumerate(read_together(files, wanted[-1] + 1)) if n in wanted]
