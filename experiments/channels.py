"""The differentiable channels against the real things: how far apart, and is the noise of the same kind.

    python -m experiments.channels --clips FOLDER --images FOLDER [--count 20] [--workdir runs/channels]

Sends clean pictures through each proxy of `deepsteg_jax.channel` and through what it stands for: JPEG by
Pillow (4:2:0), x264 by PyAV (preset medium, yuv420p), resizing and 4:2:0 by swscale. Clips are 448x256,
frames 5..20; images are --count centre crops of 256x256. Writes channels.json (every item) and channels.png.
"""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict
from tqdm import tqdm

from deepsteg_jax import evaluation, media, plots
from deepsteg_jax.channels import ladder, simulated
from deepsteg_jax.channels.simulated_codecs import BLOCK
from deepsteg_jax.dct import dct_matrix
from experiments import common, tables

WIDTH, HEIGHT, FIRST, FRAMES = 448, 256, 5, 16
LUMA = np.array([0.299, 0.587, 0.114])
CARRIERS, AMPLITUDE, HELD = ((0, 1), (1, 0), (1, 1), (0, 2)), 18, 4  # coefficients, grey levels, frames


class Case(NamedTuple):
    """A proxy, as a stage of the config, and the real thing: uint8 [t, h, w, 3] -> the same."""

    name: str
    stage: tuple
    real: Callable[[np.ndarray], np.ndarray]
    on_clips: bool = True


def x264(**options: int) -> Callable[[np.ndarray], np.ndarray]:
    """x264 `medium` in yuv420p."""
    words = {name: str(value) for name, value in options.items()}
    return lambda x: np.stack(media.decompress(media.compress(x, "libx264", "yuv420p", words)))


def pillow(quality: int) -> Callable[[np.ndarray], np.ndarray]:
    """JPEG with chroma of half the size, each frame by itself."""
    return lambda x: ladder.run(ladder.jpeg("", quality), x).frames


def resized(scale: float) -> Callable[[np.ndarray], np.ndarray]:
    """swscale's bicubic scaler, down and up again."""

    def there_and_back(frame):
        h, w = frame.shape[:2]
        return media.resize(media.resize(frame, round(w * scale), round(h * scale)), w, h)

    return lambda x: np.stack([there_and_back(frame) for frame in x])


CASES = [
    *(Case(f"JPEG {q}", ("jpeg", q), pillow(q), on_clips=False) for q in (90, 75, 50)),
    Case("4:2:0 (x264 qp 0)", ("yuv420", "bt601"), x264(qp=0)),
    Case("resize 75 %", ("resize", 0.75), resized(0.75)),
    *(Case(f"x264 qp {qp}", ("video_codec", qp), x264(qp=qp)) for qp in (20, 24, 28, 32)),
    *(Case(f"x264 crf {crf}", ("video_crf", crf), x264(crf=crf)) for crf in (18, 23, 28)),
]


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    """dB over all samples, at most 100."""
    return float(min(-10 * np.log10(max(np.mean((a.astype(float) - b) ** 2), 1e-9) / 255**2), 100))


def spectrum(error: np.ndarray) -> np.ndarray:
    """Rms of the DCT coefficients of 8x8 blocks by u + v, [15], of a luma error [t, h, w]."""
    t, h, w = error.shape
    x = error.reshape(t, h // BLOCK, BLOCK, w // BLOCK, BLOCK)
    power = np.mean(
        np.einsum("tyixj,ui,vj->uvtyx", x, *[dct_matrix(BLOCK)] * 2, optimize=True) ** 2, (2, 3, 4)
    )
    band = np.add(*np.mgrid[:BLOCK, :BLOCK])
    return np.sqrt(np.bincount(band.ravel(), power.ravel()) / np.bincount(band.ravel()))


def hold(error: np.ndarray) -> float:
    """Mean correlation of a luma error [t, h, w] with that of the frame before; 0 for a single frame."""
    pairs = zip(error[:-1], error[1:], strict=True)
    return float(np.mean([np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in pairs] or [0]))


def describe(clean: np.ndarray, received: np.ndarray) -> dict:
    """PSNR, spectrum and hold of what a channel made of uint8 [t, h, w, 3]."""
    error = (received.astype(float) - clean) @ LUMA
    return {
        "psnr_db": round(psnr(clean, received), 3),
        "hold": round(hold(error), 4),
        "spectrum": [round(float(x), 4) for x in spectrum(error)],
    }


def carrier_coefficients(frames: np.ndarray) -> np.ndarray:
    """The luma coefficients CARRIERS of [t, h, w, 3], mean over HELD frames: [4, t/HELD, h/8, w/8]."""
    t, h, w, _ = frames.shape
    x = (frames @ LUMA).reshape(t // HELD, HELD, h // BLOCK, BLOCK, w // BLOCK, BLOCK).mean(axis=1)
    basis = dct_matrix(BLOCK)
    return np.stack([np.einsum("tyixj,i,j->tyx", x, basis[u], basis[v], optimize=True) for u, v in CARRIERS])


def with_carrier(clean: np.ndarray) -> np.ndarray:
    """Adds +-AMPLITUDE at random to CARRIERS of each block of uint8 [t, h, w, 3], held for HELD frames."""
    t, h, w, _ = clean.shape
    rng, basis = np.random.default_rng(0), dct_matrix(BLOCK)
    signs = rng.choice([-AMPLITUDE, AMPLITUDE], (len(CARRIERS), t // HELD, h // BLOCK, w // BLOCK))
    waves = np.stack([np.outer(basis[u], basis[v]) for u, v in CARRIERS])
    added = np.einsum("ktyx,kij->tyixj", signs, waves).reshape(t // HELD, h, w).repeat(HELD, axis=0)
    return np.clip(np.round(clean + added[..., None]), 0, 255).astype(np.uint8)


def carrier_errors(case: Case, proxy: Callable, items: dict[str, np.ndarray]) -> list[float]:
    """Rms error of the carriers behind the real thing and behind the proxy, grey levels."""
    squares = []
    for clean in items.values():
        stego = with_carrier(clean)
        sent = carrier_coefficients(stego)
        errors = [carrier_coefficients(received) - sent for received in (case.real(stego), proxy(stego))]
        squares.append([np.mean(error**2) for error in errors])
    return [round(float(x), 3) for x in np.sqrt(np.mean(squares, axis=0))]


def compare(case: Case, items: dict[str, np.ndarray]) -> dict:
    """All figures of a proxy and of the real thing: means and every item."""
    compiled, rows = jax.jit(simulated.build((case.stage,))), []

    def proxy(frames):
        received = np.asarray(compiled(jax.random.key(0), np.float32(frames) / 255))
        return np.round(255 * np.clip(received, 0, 1)).astype(np.uint8)

    for name, clean in items.items():
        real, made = case.real(clean), proxy(clean)
        found = {"real": describe(clean, real), "proxy": describe(clean, made)}
        rows.append({"item": name, "apart_db": round(psnr(real, made), 3), **found})
    differences = [row["proxy"]["psnr_db"] - row["real"]["psnr_db"] for row in rows]
    summary = {"apart_db": np.mean([row["apart_db"] for row in rows]), "spread_db": np.std(differences)}
    for side in ("real", "proxy"):
        summary[f"{side}_psnr_db"] = np.mean([row[side]["psnr_db"] for row in rows])
        summary[f"{side}_hold"] = np.mean([row[side]["hold"] for row in rows])
    summary = {name: round(float(value), 3) for name, value in summary.items()}
    for side in ("real", "proxy"):
        bands = np.sqrt(np.mean(np.square([row[side]["spectrum"] for row in rows]), axis=0))
        summary[f"{side}_spectrum"] = [round(float(x), 4) for x in bands]
    if case.on_clips:
        some = dict(list(items.items())[::2])  # half of the clips
        summary["real_carrier"], summary["proxy_carrier"] = carrier_errors(case, proxy, some)
    return {"name": case.name, "stage": list(case.stage), **summary, "items": rows}


def load_clips(folder: str) -> dict[str, np.ndarray]:
    """uint8 [16, 256, 448, 3] of every clip of a folder."""
    items = evaluation.list_items(folder)
    read = ((item, list(media.read_frames(item, FIRST, FIRST + FRAMES, WIDTH, HEIGHT))) for item in items)
    return {item.name: np.stack(frames) for item, frames in read if frames}


def load_images(folder: str, count: int) -> dict[str, np.ndarray]:
    """uint8 [1, 256, 256, 3] of `count` images spread evenly over a folder."""
    settings, items = ConfigDict({"height": 256, "width": 256}), evaluation.list_items(folder)
    picked = items[:: max(len(items) // count, 1)][:count]
    return {item.name: np.stack(evaluation.prepare(item, settings)[:1]) for item in picked}


def draw(path: Path, rows: list[dict]) -> None:
    """Spectra of the errors, a panel for each channel; its title has PSNR and hold."""
    figure, axes = plots.plt.subplots(3, 4, figsize=(13, 8.4), sharex=True, layout="constrained")
    for axis, row in zip(axes.flat, rows, strict=False):
        for side, style in (("real", "-o"), ("proxy", "--x")):
            label = f"{side}: {row[f'{side}_psnr_db']:.1f} dB"
            label += f", hold {row[f'{side}_hold']:.2f}" if row[f"{side}_hold"] else ""
            axis.semilogy(row[f"{side}_spectrum"], style, markersize=4, label=label)
        axis.set_title(row["name"], fontsize=10)
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8)
    for axis in axes[-1]:
        axis.set_xlabel("frequency u + v of the 8x8 DCT")
    for axis in axes[:, 0]:
        axis.set_ylabel("rms luma error (grey levels)")
    figure.savefig(path, dpi=62)
    plots.plt.close(figure)


def main() -> None:
    """Compares all cases and prints the table."""
    parser = common.make_parser(__doc__)
    parser.add_argument("--clips", required=True)
    parser.add_argument("--images", required=True)
    parser.add_argument("--count", type=int, default=20, help="images, spread evenly over the folder")
    parser.add_argument("--workdir", type=Path, default=Path("runs/channels"))
    arguments = parser.parse_args()
    clips, photos = load_clips(arguments.clips), load_images(arguments.images, arguments.count)
    rows = [compare(case, clips if case.on_clips else photos) for case in tqdm(CASES, unit="channel")]
    common.write_json(arguments.workdir / "channels.json", rows)
    draw(arguments.workdir / "channels.png", rows)
    print(tables.channels(rows))


if __name__ == "__main__":
    common.run(main)
