"""`--mode evaluate`: a checkpoint on a folder of clips or images."""

import json
from functools import partial

from ml_collections import ConfigDict
from tqdm import tqdm

from deepsteg_jax.commands import Options, make_workdir

COLUMNS = {
    "stego_psnr_db": "stego dB",
    "stego_ssim": "SSIM",
    "secret_psnr_db": "secret dB",
    "secret_ssim": "SSIM",
    "wrong_key_psnr_db": "wrong key dB",
}
LOSSY_NOTE = (
    "The stego is written without loss here, before any codec. Another key finds nothing in it, which counts "
    "as mid-grey."
)


def markdown(results: list[dict], mean: dict[str, float]) -> str:
    """Return the results as a Markdown table with the mean as its last row."""
    lines = ["| cover | secret | " + " | ".join(COLUMNS.values()) + " |", "|---|---|" + "---|" * len(COLUMNS)]
    for row in [*results, {"cover": "**mean**", "secret": "", **mean}]:
        figures = (f"{row[name]:.4f}" if "ssim" in name else f"{row[name]:.2f}" for name in COLUMNS)
        lines.append(f"| {row['cover']} | {row['secret']} | {' | '.join(figures)} |")
    return "\n".join(lines)


def run(config: ConfigDict, options: Options) -> dict:
    """Evaluate and write evaluation.json, .md and .png and report.html under --workdir.

    Returns:
        What evaluation.json holds: every pair's figures, their mean, cost and parameters.

    Raises:
        UserError: the folder or one of its items cannot be read.
    """
    from deepsteg_jax import evaluation, loading, plots
    from deepsteg_jax.commands.common import command
    from deepsteg_jax.report import write_evaluation

    workdir = make_workdir(options)
    settings = config.evaluate
    evaluation.list_items(settings.path)  # complains before the model is loaded
    scheme = loading.load_once(config)
    results, rows = evaluation.evaluate_folder(
        partial(evaluation.hide_and_reveal_by, config),
        settings,
        workdir,
        progress=partial(tqdm, desc="evaluate"),
        in_planes=scheme.domain == "own",
        workers=options.workers,
        scheduler=options.scheduler,
    )
    report = {
        "model": config.model.to_dict(),
        "checkpoint": config.checkpoint,
        "mean": evaluation.mean_of(results),
        **scheme.complexity(settings.height, settings.width),
        "pairs": results,
    }
    table = markdown(results, report["mean"])
    (workdir / "evaluation.json").write_text(json.dumps(report, indent=2) + "\n")
    (workdir / "evaluation.md").write_text(table + "\n")
    if rows:
        plots.comparison(workdir / "evaluation.png", rows)
    notes = (LOSSY_NOTE,) if scheme.lossy else ()
    write_evaluation(workdir / "report.html", config, report, rows, command(), notes)
    gmac = report["gmac_per_frame"]
    print(table)
    print(
        f"\n{sum(gmac.values()):.2f} GMAC per {settings.width}x{settings.height} frame "
        f"(hide {gmac['hide']:.2f}, reveal {gmac['reveal']:.2f}); "
        f"{sum(report['parameters'].values()) / 1e6:.2f} M parameters; "
        f"details in {workdir}/report.html and evaluation.json"
    )
    return report
