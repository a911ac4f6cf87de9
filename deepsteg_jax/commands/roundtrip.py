"""`--mode roundtrip`: hide, reveal from the written file, measure."""

import json
from pathlib import Path

from ml_collections import ConfigDict

from deepsteg_jax import keys, media, sample_clips
from deepsteg_jax.commands import Options, make_workdir
from deepsteg_jax.plan import make_plan


def _print_report(report: dict, files, notes: tuple[str, ...], workdir: Path) -> None:
    from deepsteg_jax.commands.common import table

    size = lambda path: f"{path}  {media.size_of(path) / 2**20:.1f} MiB"  # noqa: E731
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
                ("report", str(workdir / "report.html")),
            ]
        )
    )


def _write_figures(path: Path, figures: dict) -> None:
    """Write JSON with one line for each figure, whatever the number of frames."""
    lines = (f"  {json.dumps(name)}: {json.dumps(value)}" for name, value in figures.items())
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n")


def run(config: ConfigDict, options: Options) -> None:
    """Hide config.video.secret in config.video.cover under --workdir and report.

    Writes stego.mkv, revealed.mkv (.png for images), comparison.png, metrics.json and report.html. Where the
    scheme survives codecs, the stego is stego.mp4, or stego.jpg.

    Raises:
        UserError: see `pipeline`.
        PartialError: part of the stego cannot be read.
    """
    cover, secret = (Path(sample_clips.resolve(path)) for path in (config.video.cover, config.video.secret))
    info = media.probe(cover)
    workdir = make_workdir(options)

    from deepsteg_jax import evaluation, loading, pipeline, plots
    from deepsteg_jax.cli import announce
    from deepsteg_jax.commands.common import command, progress_bar, revealer
    from deepsteg_jax.report import write_roundtrip

    scheme = loading.load(config)
    media.probe(secret)  # a round trip is measured in pictures
    exact, lossy = (".png", ".jpg") if info.is_image else (".mkv", ".mp4")
    stego, revealed = workdir / f"stego{lossy if scheme.lossy else exact}", workdir / f"revealed{exact}"
    for output in (stego, revealed):
        pipeline.check_output(scheme, output, info, (cover, secret))

    print("drew a random key for this round trip; hide and reveal use a passphrase or a key file")
    key = keys.random_key()
    settings = loading.settings_of(config)
    enhancement = options.enhance if options.enhance_revealed else None
    with progress_bar("hide", info.frames) as bar:
        hidden = pipeline.hide(scheme, key, cover, secret, stego, bar.update, settings, announce)
    with progress_bar("reveal", hidden.processed) as bar:
        shown = revealer(scheme, enhancement)(key, stego, revealed, bar.update)
    files = evaluation.Files(cover, stego, secret, revealed)
    numbers = None
    if scheme.accepts == "pictures":
        numbers = scheme.shown_numbers(make_plan(cover, secret, settings.align, settings.loop_cover))
    with progress_bar("measure", hidden.frames or None) as bar:
        per_frame = evaluation.measure_frames(files, bar.update, numbers=numbers)
    rows = evaluation.picked_frames(files, 3, len(per_frame), numbers)
    plots.comparison(workdir / "comparison.png", rows)
    figures = {
        **evaluation.mean_of_frames(files, per_frame),
        "hide_fps": hidden.fps,
        "reveal_fps": shown.fps,
        **{f"{name}_bytes": media.size_of(path) for name, path in files._asdict().items()},
        **scheme.complexity(info.height, info.width),
        "per_frame": {name: [frame[name] for frame in per_frame] for name in per_frame[0]},
    }
    notes = (*hidden.notes, *shown.notes)
    _write_figures(workdir / "metrics.json", figures)
    write_roundtrip(workdir / "report.html", config, figures, files, rows, command(), notes)
    _print_report(figures, files, notes, workdir)
