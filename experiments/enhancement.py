"""What denoising and sharpening do to revealed clips: PSNR and SSIM before and after.

    python -m experiments.enhancement --clips FOLDER [--count 5] [--frames 16] [--output NAME]

Hides each of the first clips of a folder in the one before it, 448x256, through files: `block_dct`
(configs/video.py, lossless) and `robust` (configs/robust.py, H.264 at CRF 18 and 23). What is revealed is
enhanced in several ways and measured against the secret. "via Lab" is OpenCV's variant of non-local means
for colour, which the package does not use. Writes NAME, experiments/results/enhancement.json if not given.
"""

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
from ml_collections import ConfigDict

from configs import robust, video
from deepsteg_jax import evaluation, keys, loading, media, metrics, pipeline
from deepsteg_jax.commands.settings import ENHANCE
from deepsteg_jax.enhance import enhance, neighbours
from experiments import common, tables

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
    scheme, revealed = loading.load(config), []
    with tempfile.TemporaryDirectory() as folder:
        names = ("cover.mkv", "secret.mkv", f"stego{suffix}", "revealed.mkv")
        cover, secret, stego, output = (Path(folder) / name for name in names)
        for i, frames in enumerate(clips):
            media.write_frames(cover, frames)
            media.write_frames(secret, clips[(i + 1) % len(clips)])
            key = keys.random_key()
            pipeline.hide(scheme, key, cover, secret, stego, lambda count: None)
            pipeline.reveal([scheme], key, stego, output, lambda count: None)
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


def main() -> None:
    """Measures all systems and ways."""
    parser = common.make_parser(__doc__)
    parser.add_argument("--clips", type=Path, required=True)
    parser.add_argument("--count", type=int, default=5, help="clips")
    parser.add_argument("--frames", type=int, default=16, help="of each")
    parser.add_argument("--output", type=Path, default=common.RESULTS / "enhancement.json")
    arguments = parser.parse_args()
    settings = common.q1_settings("clips", str(arguments.clips), arguments.frames)
    clips = [
        evaluation.prepare(path, settings)
        for path in evaluation.list_items(arguments.clips)[: arguments.count]
    ]
    secrets, report = clips[1:] + clips[:1], {}
    for name, (config, suffix) in systems().items():
        revealed = reveal_all(config, suffix, clips)
        report[name] = {way: measure(work, secrets, revealed) for way, work in ways().items()}
        common.write_json(arguments.output, report)
        print(f"{name} done", flush=True)
    print(tables.enhancement(report))


if __name__ == "__main__":
    common.run(main)
