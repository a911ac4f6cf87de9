"""`--mode roundtrip`: hide, reveal from the written file, measure."""

import json
from pathlib import Path

from ml_collections import ConfigDict

from deepsteg_jax import keys, samples
from deepsteg_jax.modes import Options, is_robust, make_workdir
from deepsteg_jax.video import io


def _print_report(report: dict, files, notes: tuple[str, ...], workdir: Path) -> None:
    from deepsteg_jax.modes.common import table

    size = lambda path: f"{path}  {path.stat().st_size / 2**20:.1f} MiB"  # noqa: E731
    print(
        table(
            [
                ("stego", f"{report['stego_psnr_db']:.2f} dB PSNR  {report['stego_ssim']:.4f} SSIM"),
                ("secret", f"{report['secret_psnr_db']:.2f} dB PSNR  {report['secret_ssim']:.4f} SSIM"),
                ("hide", f"{report['hide_fps']:.1f} frames/s, file to file"),
                ("reveal", f"{report['reveal_fps']:.1f} frames/s, file to file"),
                ("capacity", f"{report['capacity_bpp']:.2f} bits of secret per pixel of cover"),
                ("frames", str(report["frames"])),
                *(("note", note) for note in notes),
                ("cover", size(files.cover)),
                ("secret", size(files.secret)),
                ("stego", size(files.stego)),
                ("revealed", size(files.revealed)),
                ("pictures", str(workdir / "comparison.png")),
                ("figures", str(workdir / "metrics.json")),
            ]
        )
    )


def run(config: ConfigDict, options: Options) -> None:
    """Hides config.video.secret in config.video.cover under --workdir and reports.

    Writes stego.mkv, revealed.mkv (.png for images), comparison.png and metrics.json. Of the model `robust`
    the stego is stego.mp4, or stego.jpg.

    Raises:
        UserError: see `pipeline` and `robust_pipeline`.
        PartialError: of the model `robust`, part of the stego cannot be read.
    """
    cover, secret = (Path(samples.resolve(path)) for path in (config.video.cover, config.video.secret))
    info, robust = io.probe(cover), is_robust(config)
    workdir = make_workdir(options)
    lossless, lossy = (".png", ".jpg") if info.is_image else (".mkv", ".mp4")
    stego, revealed = workdir / f"stego{lossy if robust else lossless}", workdir / f"revealed{lossless}"
    for output in (stego, revealed):
        io.check_output(output, (cover, secret), info.is_image, robust, (info.width, info.height))

    from deepsteg_jax import evaluation, plots
    from deepsteg_jax.modes.common import hider, progress_bar, revealer, settings_of
    from deepsteg_jax.video import pipeline

    print("drew a random key for this round trip; hide and reveal use a passphrase or a key file")
    key = keys.random_key()
    settings = settings_of(config)
    with progress_bar("hide", info.frames) as bar:
        hidden = hider(config)(key, cover, secret, stego, bar.update, settings)
    with progress_bar("reveal", hidden.frames) as bar:
        shown = revealer(config)(key, stego, revealed, bar.update)
    files = evaluation.Files(cover, stego, secret, revealed)
    # The robust model reveals what each frame of the cover carries, not every frame of the secret.
    numbers = pipeline.make_plan(cover, secret, settings).schedule.numbers if robust else None
    with progress_bar("measure", hidden.frames) as bar:
        report = evaluation.measure(files, bar.update, numbers=numbers)
    report |= {"hide_fps": hidden.fps, "reveal_fps": shown.fps}
    report |= {f"{name}_bytes": path.stat().st_size for name, path in files._asdict().items()}
    plots.comparison(workdir / "comparison.png", evaluation.picked_frames(files, 3, hidden.frames, numbers))
    (workdir / "metrics.json").write_text(json.dumps(report, indent=2) + "\n")
    _print_report(report, files, (*hidden.notes, *shown.notes), workdir)
