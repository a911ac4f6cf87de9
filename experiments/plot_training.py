"""Draws the curves of one or more training folders as a PNG.

python -m experiments.plot_training runs/a [runs/b ...] --output curves.png
"""

from pathlib import Path

from deepsteg_jax.plots import plt
from deepsteg_jax.training.logs import read_log
from experiments import common

PANELS = {
    "stego and secret PSNR (dB)": (
        "stego_psnr_db",
        "secret_psnr_db",
        "validation_stego_psnr_db",
        "validation_secret_psnr_db",
    ),
    "weighted losses": ("weighted_stego", "weighted_secret", "weighted_penalty"),
    "learning rate": ("learning_rate",),
    "frames per second": ("images_per_s",),
}


def main() -> None:
    """Reads the logs and draws four panels."""
    parser = common.make_parser(__doc__)
    parser.add_argument("workdirs", type=Path, nargs="+")
    parser.add_argument("--output", type=Path, default=Path("curves.png"))
    arguments = parser.parse_args()
    figure, axes = plt.subplots(1, len(PANELS), figsize=(4.5 * len(PANELS), 3.5), layout="constrained")
    for workdir in arguments.workdirs:
        log = read_log(workdir)
        for axis, (title, names) in zip(axes, PANELS.items(), strict=True):
            for name in names:
                values = [(line["step"], line[name]) for line in log if name in line]
                axis.plot(
                    *zip(*values, strict=True), label=f"{workdir.name} {name}", linewidth=1
                ) if values else None
            axis.set(title=title, xlabel="step")
            axis.legend(fontsize=6)
    figure.savefig(arguments.output, dpi=120)
    print(arguments.output)


if __name__ == "__main__":
    common.run(main)
