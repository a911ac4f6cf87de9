"""Validation during training, on data of its own, and keeping the best parameters."""

import math
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from deepsteg_jax import data
from deepsteg_jax.errors import UserError
from deepsteg_jax.training import checkpoints
from deepsteg_jax.training.objective import Objective
from deepsteg_jax.training.parallel import parallelise
from deepsteg_jax.training.state import TrainState
from deepsteg_jax.training.step import make_validation_step


@dataclass
class Validation:
    """Passes over the validation data, and the figures of the best parameters."""

    batches: Callable[[], Iterator]
    step: Callable  # see `make_validation_step`
    metric: str  # the figure that decides; empty: none does, and nothing is kept
    save_best: Callable[[TrainState, dict[str, float]], None]
    best: dict[str, float]  # empty if there is none yet

    def measure(self, state: TrainState) -> dict[str, float]:
        """Return means over all examples: `validation_` and the name, for each of the objective's figures.

        PSNRs are means of dB, of pictures rounded to 8 bits inside the graph; what goes through files is
        measured by `--mode evaluate`.
        """
        sums = Counter()
        with closing(self.batches()) as batches:
            for number, batch in enumerate(batches):
                found = self.step((state.tested, jnp.uint32(number)), batch)
                sums.update({name: float(value) for name, value in found.items()})
        return {f"validation_{name}": x / sums["weight"] for name, x in sums.items() if name != "weight"}

    def keep_if_best(self, state: TrainState, figures: dict[str, float]) -> None:
        """Save the parameters if no earlier ones of this run were as good by the metric."""
        if not self.metric:
            return
        name = f"validation_{self.metric}"
        sign = 1 if name.endswith("_db") else -1  # decibels are better when high, losses when low
        if not math.isfinite(figures[name]):  # nothing would be better later
            return
        if not self.best or sign * figures[name] > sign * self.best[name]:
            self.best = figures
            self.save_best(state, figures)


def open_validation(
    config: ConfigDict, objective: Objective, key: jax.Array, manager: Any, share: data.Share
) -> Validation:
    """Open the validation data that the config names.

    Args:
        config: the whole config.
        objective: of the model.
        key: of the shuffles and the noise, the same in every pass.
        manager: of the folder for the best checkpoint.
        share: which part of the data this process reads.

    Raises:
        UserError: the data cannot be read, or `config.train.best_metric` is unknown.
    """
    metric = config.train.best_metric
    if metric and metric not in objective.metrics:
        names = ", ".join(objective.metrics)
        raise UserError(
            f"config.train.best_metric is {metric!r}: for the model {config.model.name!r} it must be "
            f"{'one of ' * (len(objective.metrics) > 1)}{names}, or empty"
        )
    batches = data.create_validation(data.section(config), batch_size=config.train.batch_size, share=share)
    step = parallelise(make_validation_step(objective, key), donate=False)

    def save_best(state, figures):
        checkpoints.save_best(manager, state, config, figures)

    return Validation(batches, step, metric, save_best, checkpoints.read_best(manager))
