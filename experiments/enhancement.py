"""What denoising and sharpening do to revealed clips: PSNR and SSIM before and after.

    python experiments/enhancement.py --clips FOLDER [--count 5] [--frames 16] [--output NAME]

Hides each of the first clips of a folder in the one before it, 448x256, through files: `block_dct`
(configs/video.py, lossless) and `robust` (configs/robust.py, H.264 at CRF 18 and 23). What is revealed is
enhanced in several ways and measured against the secret. "via Lab" is OpenCV's variant of non-local means
for colour, which the package does not use. Writes NAME.json and NAME.md, experiments/results/enhancement
if not given.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
from ml_collections import ConfigDict

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from configs import robust, video  # noqa: E402
from deepsteg_jax import (  # noqa: E402
    evaluation,
    keys,
    media,  # noqa: E402
    metrics,
)
from deepsteg_jax.commands.common import hider, revealer  # noqa: E402
from deepsteg_jax.commands.settings import ENHANCE  # noqa: E402
from deepsteg_jax.enhance import enhance, neighbours  # noqa: E402

Frames = list[np.ndarray]


def systems() -> dict[str, tuple[ConfigDict, str]]:
    """name -> (config, suffix of the stego)."""
    found = {"block_dct, lossless": (video.get_config(), ".mkv")}
    for crf in (18, 23):
        config = robust.get_config()
        config.video.crf = crf
        found[f"robust, CRF {crf}"] = config, ".mp4"
    return found


def via_lab(frames: Frames, strength: float) -> Iterator[np.ndarray]:
    """As the original system: non-local means of CIELAB over three frames, OpenCV's sizes."""
    for group in neighbours([cv2.cvtColor(frame, cv2.COLOR_RGB2BGR) for frame in frames], 1):
        done = cv2.fastNlMeansDenoisingColoredMulti(group, 1, 3, None, strength, strength, 7, 21)
        yield cv2.cvtColor(done, cv2.COLOR_BGR2RGB)


def ways() -> dict[str, Callable[[Frames], Iterator[np.ndarray]]]:
    """name -> what is done to the revealed frames."""

    def with_settings(**values):
        settings = ConfigDict(ENHANCE)
        settings.update(values)
        return lambda frames: enhance(frames, settings)

    found = {"nothing": iter}
    for strength in (1.0, 2.0, 3.0, 5.0):
        found[f"denoise {strength:g}"] = with_settings(steps="denoise", strength=strength)
    found["denoise 3, via Lab"] = lambda frames: via_lab(frames, 3.0)
    for amount in (0.2, 0.5, 1.0):
        found[f"sharpen {amount:g}"] = with_settings(steps="sharpen", amount=amount)
    found["denoise 1, sharpen 0.5"] = with_settings(steps="denoise sharpen", strength=1.0, amount=0.5)
    return found


def reveal_all(config: ConfigDict, suffix: str, clips: list[Frames]) -> list[Frames]:
    """Hides clip i + 1 in clip i, through files; what is revealed."""
    hide, reveal, revealed = hider(config), revealer(config), []
    with tempfile.TemporaryDirectory() as folder:
        names = ("cover.mkv", "secret.mkv", f"stego{suffix}", "revealed.mkv")
        cover, secret, stego, output = (Path(folder) / name for name in names)
        for i, frames in enumerate(clips):
            media.write_frames(cover, frames)
            media.write_frames(secret, clips[(i + 1) % len(clips)])
            key = keys.random_key()
            hide(key, cover, secret, stego, lambda count: None)
            reveal(key, stego, output, lambda count: None)
            revealed.append(list(media.read_frames(output)))
    return revealed


def measure(way, secrets: list[Frames], revealed: list[Frames]) -> dict:
    """Mean over frames, then over clips, and the PSNR of each clip."""
    figures = []
    for secret, frames in zip(secrets, revealed, strict=True):
        pairs = list(zip(secret, way(frames), strict=True))
        figures.append([np.mean([rule(*pair) for pair in pairs]) for rule in (metrics.psnr, metrics.ssim)])
    psnr, ssim = np.mean(figures, axis=0)
    return {"psnr_db": float(psnr), "ssim": float(ssim), "clips_db": [float(f[0]) for f in figures]}


def table(report: dict[str, dict]) -> str:
    """Markdown: a row for each way, columns for each system."""
    lines = ["| | " + " | ".join(f"{name}: dB | SSIM" for name in report) + " |"]
    lines.append("|---" * (1 + 2 * len(report)) + "|")
    for way in ways():
        cells = []
        for figures in report.values():
            before, after = figures["nothing"], figures[way]
            if way == "nothing":
                cells += [f"{after['psnr_db']:.2f}", f"{after['ssim']:.4f}"]
            else:
                cells.append(f"{after['psnr_db'] - before['psnr_db']:+.2f}")
                cells.append(f"{after['ssim'] - before['ssim']:+.4f}")
        lines.append(f"| {way} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measures all systems and ways."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clips", type=Path, required=True)
    parser.add_argument("--count", type=int, default=5, help="clips")
    parser.add_argument("--frames", type=int, default=16, help="of each")
    parser.add_argument("--output", type=Path, default=Path("experiments/results/enhancement"))
    arguments = parser.parse_args()
    settings = video.get_config().evaluate
    settings.frames = arguments.frames
    clips = [
        evaluation.prepare(path, settings)
        for path in evaluation.list_items(arguments.clips)[: arguments.count]
    ]
    secrets, report = clips[1:] + clips[:1], {}
    for name, (config, suffix) in systems().items():
        revealed = reveal_all(config, suffix, clips)
        report[name] = {way: measure(work, secrets, revealed) for way, work in ways().items()}
        arguments.output.with_suffix(".json").write_text(json.dumps(report, indent=2) + "\n")
        print(f"{name} done", flush=True)
    arguments.output.with_suffix(".md").write_text(table(report))
    print(table(report))


if __name__ == "__main__":
    main()
