"""Validation during training, on data of its own, and keeping the best parameters."""

import math
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from deepsteg_jax import data
from deepsteg_jax.errors import UserError
from deepsteg_jax.models import Model
from deepsteg_jax.training import checkpoints
from deepsteg_jax.training.parallel import AXIS, parallelise
from deepsteg_jax.training.state import TrainState
from deepsteg_jax.training.step import VALIDATED, make_validation_step


class Validation(NamedTuple):
    """Passes over the validation data."""

    config: ConfigDict
    batches: Callable[[], Iterator]
    step: Callable
    manager: Any  # of the best checkpoint
    best: dict[str, float]  # what was measured for it; empty if there is none yet

    def measure(self, state: TrainState) -> dict[str, float]:
        """Means over all examples, `validation_loss` and `validation_{stego,secret}_psnr_db`.

        Of records they are `validation_loss` and what else the model's own loss logs.

        The PSNRs are means of dB, of pictures rounded to 8 bits inside the graph; what goes through files is
        measured by `--mode evaluate`.
        """
        sums = Counter()
        with closing(self.batches()) as batches:
            for number, batch in enumerate(batches):
                found = self.step((state.tested, jnp.uint32(number)), batch)
                sums.update({name: float(value) for name, value in found.items()})
        return {f"validation_{name}": x / sums["weight"] for name, x in sums.items() if name != "weight"}

    def keep_if_best(self, state: TrainState, figures: dict[str, float]) -> None:
        """Saves the parameters if no earlier ones of this run were as good by `config.train.best_metric`."""
        name = f"validation_{self.config.train.best_metric}"
        sign = 1 if name.endswith("_db") else -1  # decibels are better when high, losses when low
        if not math.isfinite(figures[name]):  # nothing would be better later
            return
        if not self.best or sign * figures[name] > sign * self.best[name]:
            self.best.update(figures)
            checkpoints.save_best(self.manager, state, self.config, figures)


def open_validation(
    config: ConfigDict, model: Model, key: jax.Array, manager: Any, share: data.Share
) -> Validation:
    """Opens the validation data that the config names.

    Args:
        config: the whole config.
        model: from `models.build`.
        key: of the shuffles and the noise, the same in every pass.
        manager: of the folder for the best checkpoint.
        share: which part of the data this process reads.

    Raises:
        UserError: the data cannot be read, or `config.train.best_metric` is unknown.
    """
    metric = config.train.best_metric
    if model.loss and metric != "loss":
        raise UserError(f"config.train.best_metric is loss for a model of records, not {metric!r}")
    if metric not in VALIDATED:
        raise UserError(f"config.train.best_metric is one of {', '.join(VALIDATED)}, not {metric!r}")
    batches = data.create_validation(data.section(config), batch_size=config.train.batch_size, share=share)
    step = parallelise(make_validation_step(model, config, key, AXIS), donate=False)
    return Validation(config, batches, step, manager, checkpoints.read_best(manager))
