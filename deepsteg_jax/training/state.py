"""The training state and the optimiser."""

import re
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct
from ml_collections import ConfigDict

from deepsteg_jax.errors import UserError
from deepsteg_jax.models import Model


@struct.dataclass
class TrainState:
    """Everything that a step changes."""

    step: jax.Array  # int32 scalar
    params: Any  # {"hide": ..., "reveal": ...}
    opt_state: Any
    ema: Any = None  # exponential moving average of params, where the config asks for one

    @property
    def tested(self) -> Any:
        """Return the parameters that are validated and shipped: the average where there is one."""
        return self.params if self.ema is None else self.ema


def learning_rate(config: ConfigDict) -> optax.Schedule:
    """Return the schedule of `config` (section `optimizer`): step -> learning rate.

    `constant`, `plateau` (constant here; the optimiser scales it down when the loss stalls) or `cosine`
    (linear warm-up, then cosine to zero at `num_steps`).

    Raises:
        UserError: `config.schedule` is unknown.
    """
    if config.schedule in ("constant", "plateau"):
        return optax.constant_schedule(config.learning_rate)
    if config.schedule == "cosine":
        return optax.warmup_cosine_decay_schedule(
            0.0, config.learning_rate, config.warmup_steps, max(config.num_steps, config.warmup_steps + 1)
        )
    raise UserError(f"config.optimizer.schedule must be constant, cosine or plateau, not {config.schedule!r}")


def create_optimizer(
    config: ConfigDict, schedule: optax.Schedule | None = None
) -> optax.GradientTransformationExtraArgs:
    """Build Adam with gradient clipping and this or the config's schedule; `update` takes `value=loss`."""
    stages = [optax.clip_by_global_norm(config.clip_norm), optax.adam(schedule or learning_rate(config))]
    if config.schedule == "plateau":
        stages.append(
            optax.contrib.reduce_on_plateau(
                factor=config.plateau_factor,
                patience=config.plateau_patience,
                accumulation_size=config.plateau_window,
            )
        )
    if sparsity := config.get("sparsity", 0.0):
        frozen = config.get("frozen", ())
        learning = lambda params: jax.tree.map(lambda x: not x, matches(params, frozen))  # noqa: E731
        stages.append(optax.masked(prune(sparsity, config.num_steps), learning))
    return optax.with_extra_args_support(optax.chain(*stages))


def matches(params: Any, patterns: Sequence[str]) -> Any:
    """Return which parameters have names, such as `reveal/out/kernel`, that begin with one of the patterns.

    Args:
        params: {"hide": ..., "reveal": ...}.
        patterns: regular expressions.

    Raises:
        UserError: a pattern fits none.
    """
    names = jax.tree_util.tree_map_with_path(
        lambda path, x: jax.tree_util.keystr(path, simple=True, separator="/"), params
    )
    for pattern in patterns:
        if not any(re.match(pattern, name) for name in jax.tree.leaves(names)):
            raise UserError(f"config.optimizer.frozen fits no parameters: {pattern}")
    return jax.tree.map(lambda name: any(re.match(pattern, name) for pattern in patterns), names)


def prune(sparsity: float, steps: int) -> optax.GradientTransformation:
    """Make the smallest weights of every kernel zero after each update.

    Magnitude pruning with the schedule of Zhu and Gupta 2017: the share of zeros is `sparsity` from the
    middle of `steps` on.
    """

    def update(updates, state, params):
        share = sparsity * (1 - (1 - jnp.minimum(1, 2 * state.count / steps)) ** 3)

        def one(change, x):
            size = jnp.abs(x + change)
            return jnp.where(size >= jnp.quantile(size, share), change, -x) if x.ndim > 1 else change

        return jax.tree.map(one, updates, params), optax.ScaleByScheduleState(state.count + 1)

    return optax.GradientTransformation(
        lambda _: optax.ScaleByScheduleState(jnp.zeros((), jnp.int32)), update
    )


def current_learning_rate(config: ConfigDict, state: TrainState) -> jax.Array:
    """Return the learning rate of the next update, with the plateau's scale where there is one."""
    rate = jnp.asarray(learning_rate(config)(state.step))
    if config.schedule == "plateau":
        rate = rate * state.opt_state[2].scale
    return rate


def update_ema(config: ConfigDict, ema: Any, params: Any, step: jax.Array) -> Any:
    """Return the moving average after an update, ema + (1 - decay) (params - ema); None where there is none.

    Averages of iterates: Polyak and Juditsky 1992. The decay grows with the step up to `config.ema_decay`,
    decay = min(ema_decay, (1 + step) / (10 + step)), so that the start is forgotten.
    """
    if ema is None:
        return None
    decay = jnp.minimum(config.ema_decay, (1 + step) / (10 + step))
    return optax.incremental_update(params, ema, 1 - decay)


def create_state(
    model: Model, optimizer: optax.GradientTransformation, key: jax.Array, ema: bool = False
) -> TrainState:
    """Create a state at step 0, with a moving average of the parameters or without."""
    params = model.init(key)
    copies = jax.tree.map(lambda x: jnp.array(x, copy=True), params) if ema else None
    return TrainState(jnp.zeros((), jnp.int32), params, optimizer.init(params), copies)
