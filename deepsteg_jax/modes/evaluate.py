"""`--mode evaluate`: a checkpoint on a folder of clips or images."""

import json
from functools import partial

from ml_collections import ConfigDict
from tqdm import tqdm

from deepsteg_jax.modes import Options, is_robust, make_workdir

COLUMNS = {
    "stego_psnr_db": "stego dB",
    "stego_ssim": "SSIM",
    "secret_psnr_db": "secret dB",
    "secret_ssim": "SSIM",
    "wrong_key_psnr_db": "wrong key dB",
}


def markdown(results: list[dict], mean: dict[str, float]) -> str:
    """The results as a Markdown table with the mean as its last row."""
    lines = ["| cover | secret | " + " | ".join(COLUMNS.values()) + " |", "|---|---|" + "---|" * len(COLUMNS)]
    for row in [*results, {"cover": "**mean**", "secret": "", **mean}]:
        figures = (f"{row[name]:.4f}" if "ssim" in name else f"{row[name]:.2f}" for name in COLUMNS)
        lines.append(f"| {row['cover']} | {row['secret']} | {' | '.join(figures)} |")
    return "\n".join(lines)


def _gmac(model, config: ConfigDict) -> dict[str, float]:
    """Multiply-adds of a frame; of `robust` those of symbols and of both networks, without its codecs."""
    from deepsteg_jax import costs

    height, width = config.evaluate.height, config.evaluate.width
    if not is_robust(config):
        return costs.gmac_per_frame(model, config.model.frames, height, width)
    import jax
    import jax.numpy as jnp

    from deepsteg_jax.models import robust

    frames = config.data.frames
    symbols = (1, frames, height // robust.BLOCK, width // robust.BLOCK, config.model.coefficients)
    gmac = costs.gmac_per_frame(model, frames, height, width, symbols)
    params = jax.eval_shape(model.init, jax.random.key(0))["reveal"]["restoration"]
    video = jax.ShapeDtypeStruct((1, frames, height, width, 3), jnp.float32)
    gmac["reveal"] += costs.flops(partial(robust.restore, config.model), params, video) / (2e9 * frames)
    return gmac


def run(config: ConfigDict, options: Options) -> dict:
    """Evaluates and writes evaluation.json, evaluation.md and evaluation.png under --workdir.

    Returns:
        What evaluation.json holds: every pair's figures, their mean, cost and parameters.

    Raises:
        UserError: the folder or one of its items cannot be read.
    """
    from deepsteg_jax import costs, evaluation, models, plots
    from deepsteg_jax.modes.common import hider, load_side, revealer

    workdir = make_workdir(options)
    settings = config.evaluate
    evaluation.list_items(settings.path)  # complains before the model is loaded
    if is_robust(config):
        run_pair = partial(evaluation.hide_and_reveal_robust, hider(config), revealer(config))
    else:
        run_pair = partial(evaluation.hide_and_reveal, load_side(config, "hide"), load_side(config, "reveal"))
    progress = lambda items: tqdm(items, desc="evaluate", unit="pair")  # noqa: E731
    results, rows = evaluation.evaluate_folder(run_pair, settings, workdir, progress)
    model = models.build(config.model)
    report = {
        "model": config.model.to_dict(),
        "checkpoint": config.checkpoint,
        "mean": evaluation.mean_of(results),
        "gmac_per_frame": _gmac(model, config),
        "parameters": costs.parameter_counts(model),
        "pairs": results,
    }
    table = markdown(results, report["mean"])
    (workdir / "evaluation.json").write_text(json.dumps(report, indent=2) + "\n")
    (workdir / "evaluation.md").write_text(table + "\n")
    if rows:
        plots.comparison(workdir / "evaluation.png", rows)
    gmac = report["gmac_per_frame"]
    print(table)
    print(
        f"\n{sum(gmac.values()):.2f} GMAC per {settings.width}x{settings.height} frame "
        f"(hide {gmac['hide']:.2f}, reveal {gmac['reveal']:.2f}); "
        f"{sum(report['parameters'].values()) / 1e6:.2f} M parameters; details in {workdir}/evaluation.json"
    )
    return report
