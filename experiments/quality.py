"""Protocol Q1: how well clips hide in one another, on any folder of clips.

    python experiments/quality.py --clips FOLDER [--steps 4 3 2] [--workdir runs/quality]

The clips are sorted by name, frames 5..34 are resized to 448x256, and clip i + 1 is hidden in clip i,
through files written and read back. RGB, 8-bit; mean over frames of per-frame dB, then over clips. One
checkpoint serves every step D. Writes quality.json (every clip's figures), quality.md, and for each D the
table and picture grid of --mode evaluate.
"""

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from configs import video  # noqa: E402
from deepsteg_jax.errors import UserError  # noqa: E402
from deepsteg_jax.modes import Options, evaluate  # noqa: E402


def row(step: int, report: dict) -> str:
    """One line of the table."""
    mean, gmac = report["mean"], sum(report["gmac_per_frame"].values())
    return (
        f"| {step} | {mean['stego_psnr_db']:.2f} | {mean['stego_ssim']:.4f} | {mean['secret_psnr_db']:.2f} "
        f"| {mean['secret_ssim']:.4f} | {min(p['secret_psnr_db'] for p in report['pairs']):.2f} "
        f"| {mean['wrong_key_psnr_db']:.2f} | {gmac:.2f} |"
    )


def main() -> int:
    """Runs the protocol for every step and prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clips", required=True)
    parser.add_argument("--steps", type=int, nargs="+", default=[4, 3, 2])
    parser.add_argument("--checkpoint", default=None, help="default: that of configs/video.py")
    parser.add_argument("--workdir", type=Path, default=Path("runs/quality"))
    arguments = parser.parse_args()
    reports, lines = {}, []
    for step in arguments.steps:
        config = video.get_config()
        config.model.step = step
        config.evaluate.path = arguments.clips
        config.checkpoint = arguments.checkpoint or config.checkpoint
        try:
            report = evaluate.run(config, Options(str(arguments.workdir / f"step{step}")))
        except UserError as error:
            print(f"quality.py: {error}", file=sys.stderr)
            return 1
        reports[step] = report
        lines.append(row(step, report))
    head = (
        "| D | stego dB | SSIM | secret dB | SSIM | worst secret dB | wrong key dB | GMAC/frame |\n"
        + "|---" * 8
        + "|"
    )
    table = "\n".join([head, *lines])
    (arguments.workdir / "quality.json").write_text(json.dumps(reports, indent=2) + "\n")
    (arguments.workdir / "quality.md").write_text(table + "\n")
    print(f"\n{table}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
