"""What do decibels cost in detection? `prep_hide_reveal`, trained with a steganalyser as a loss and without.

    pip install -r experiments/requirements-steganalysis.txt
    python -m experiments.learned_costs covers --images FOLDER
    python -m experiments.steganalyser_loss --images FOLDER [--steps 300] [--count 60]

Every weight of `losses.steganalyser` is trained from the same start on the same crops. Photo i + 1 of the
first COUNT photos of experiments.steganalysis, which were in no training, is hidden in photo i; the detectors
are trained anew on half of them and tested on the other half, HALVES times. Beside the accuracy stands how
far the scores of covers and stegos lie apart, in standard deviations.
"""

from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from deepsteg_jax import metrics
from deepsteg_jax.steganalysis import scores
from deepsteg_jax.training import loop
from deepsteg_jax.training.logs import read_log
from experiments import common
from experiments.entries import Entry
from experiments.learned_costs import tested
from experiments.steganalysis import (
    FEATURES,
    HALVES,
    cut_photo,
    extract,
    list_photos,
    planes_of,
    spread,
    train_ensemble,
)
from experiments.systems import KEY, Context, learned_system

WEIGHTS = (0.0, 1e-3, 1e-2)
SIDE = 48  # of a crop, pixels


def config_of(weight: float, steps: int, covers: Path) -> ConfigDict:
    """The config of a training."""
    # Few steps on small batches from this start lose decibels at the usual rate, whatever the weight.
    changes = {"optimizer.learning_rate": 5e-6, "optimizer.frozen": ()}
    config = Entry("prep_hide_reveal", "small", changes).load()
    config.losses.steganalyser = weight
    config.optimizer.update(num_steps=steps, schedule="constant")
    config.train.update(log_every_steps=10, picture_every_steps=10**9, save_every_steps=steps)
    config.data.update(path=str(covers), height=SIDE, width=SIDE, growing=())
    return config


def measure(config: ConfigDict, folder: Path, photos: np.ndarray, clean: list[dict]) -> dict:
    """Quality and detection of a trained model."""
    config.checkpoint = str(folder)
    system, secrets = learned_system(config), np.roll(photos, -1, axis=0)
    context = Context(KEY, secrets.shape)
    stegos = system.hide(photos, secrets, context)
    revealed = system.reveal(stegos, context)
    row = {
        "stego_psnr_db": float(np.mean(list(map(metrics.psnr, photos, stegos)))),
        "secret_psnr_db": float(np.mean(list(map(metrics.psnr, secrets, revealed)))),
    }
    found = [extract(planes_of(stego)) for stego in stegos]
    for name in FEATURES:
        pair = (np.stack([item[name] for item in items]) for items in (clean, found))
        halves = list(tested(train_ensemble, *pair, HALVES))
        values = [scores.accuracy(*half) for half in halves]
        row |= {name: float(np.mean(values)), f"{name}_interval": spread(values)}
        apart = [scores.separation(*half[:2]) for half in halves]
        row |= {f"{name}_apart": float(np.mean(apart)), f"{name}_apart_interval": spread(apart)}
    return row


def main() -> None:
    """Trains and measures every weight."""
    parser = common.make_parser(__doc__)
    parser.add_argument("--images", required=True)
    parser.add_argument("--covers", type=Path, default=Path("runs/learned_costs/covers"))
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--count", type=int, default=60, help="photos")
    parser.add_argument("--workdir", type=Path, default=Path("runs/steganalyser_loss"))
    parser.add_argument("--results", type=Path, default=common.RESULTS)
    arguments = parser.parse_args()
    photos = np.stack([cut_photo(path) for path in list_photos(arguments.images)[: arguments.count]])
    clean, rows = [extract(planes_of(photo)) for photo in photos], []
    for weight in WEIGHTS:
        config, folder = (
            config_of(weight, arguments.steps, arguments.covers),
            arguments.workdir / f"{weight:g}",
        )
        loop.train(config, folder)
        rows.append({"weight": weight} | measure(config, folder, photos, clean))
        own = [line["steganalyser_accuracy"] for line in read_log(folder) if "steganalyser_accuracy" in line]
        rows[-1]["own"] = float(np.mean(own[-5:])) if own else None
        print(rows[-1], flush=True)
        found = {"photos": len(photos), "steps": arguments.steps, "rows": rows}
        common.write_json(arguments.results / "steganalyser_loss.json", found)


if __name__ == "__main__":
    common.run(main)
