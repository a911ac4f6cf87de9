"""The training loop: data, steps, validation, logs, checkpoints."""

from collections.abc import Callable, Iterator
from contextlib import closing, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from deepsteg_jax import data, models
from deepsteg_jax.errors import UserError
from deepsteg_jax.training import checkpoints, environment, parallel
from deepsteg_jax.training.logs import SilentLog, Stopwatch, TrainingLog
from deepsteg_jax.training.parallel import AXIS, parallelise
from deepsteg_jax.training.state import TrainState, create_optimizer, create_state
from deepsteg_jax.training.step import example_keys, hide_and_reveal, make_train_step
from deepsteg_jax.training.validation import Validation, open_validation

MODEL_STREAM, STEP_STREAM, VALIDATION_STREAM = 0, 1, 2


def picture_grid(pictures) -> np.ndarray:
    """Up to four examples as rows of cover, stego, secret, revealed; uint8 [h, w, 3]."""
    columns = []
    for x in (pictures.cover, pictures.stego, pictures.secret, pictures.revealed):
        frames = np.asarray(x[:4] if x.ndim == 4 else x[:4, 0])
        columns.append(np.concatenate(np.round(np.clip(frames, 0, 1) * 255).astype(np.uint8)))
    return np.concatenate(columns, axis=1)


def train(config: ConfigDict, workdir: str | Path, stop: Callable[[], bool] = lambda: False) -> TrainState:
    """Trains into `workdir`, going on where the newest checkpoint there ends.

    The state after step k depends on the config alone, not on where the run was interrupted, how often it
    saves, or how its batches are dealt out to processes of the same number of devices.

    Args:
        config: see configs/video.py.
        workdir: gets checkpoints/, best/, tensorboard/, training.jsonl, config.json and environment.jsonl.
            Several processes share it.
        stop: asked after every step; once it says yes the state is saved and training ends. Several processes
            stop on SIGTERM instead (`parallel.agree_to_stop`).

    Returns:
        The last state.

    Raises:
        UserError: bad data, a folder of another config, a loss that is not finite, or a model that is not
            trained from such data.
    """
    workdir = Path(workdir)
    workdir.mkdir(parents=True, exist_ok=True)
    parallel.check_batch(config.train.batch_size, config.train.accumulate_steps)
    base_key = jax.random.key(config.seed)
    model = models.build(config.model)
    _check_source(config, model)
    optimizer = create_optimizer(config.optimizer)
    validates = data.has_validation(config.data)
    with (
        checkpoints.open_manager(workdir / "checkpoints", config.train.keep) as manager,
        checkpoints.open_manager(workdir / "best", keep=1) if validates else nullcontext() as best,
        parallel.all_or_none(),
    ):
        model_key = jax.random.fold_in(base_key, MODEL_STREAM)
        fresh = create_state(model, optimizer, model_key, ema=config.optimizer.ema_decay > 0)
        state = checkpoints.restore_state(manager, fresh)
        step = make_train_step(model, optimizer, config, jax.random.fold_in(base_key, STEP_STREAM), AXIS)
        draw = None if model.loss else jax.jit(partial(hide_and_reveal, model, config))
        validation_key = jax.random.fold_in(base_key, VALIDATION_STREAM)
        validation = open_validation(config, model, validation_key, best, _share()) if validates else None
        first = int(state.step)
        if parallel.process_index() == 0:
            environment.record(workdir, config, first)
        # Closed at once, since a live tf.data iterator can hang the end of the process.
        with closing(_open_log(config, workdir, first)) as log, closing(_pairs_from(config, first)) as pairs:
            run = Run(config, parallelise(step), draw, validation, manager, log, stop)
            return run.steps(state, pairs)


def _check_source(config, model):
    if (config.data.source == "recordings") != (model.loss is not None):
        wanted = "recordings" if model.loss else "covers and secrets"
        raise UserError(
            f"the model {config.model.name!r} is trained from {wanted}, but config.data.source is "
            f"{config.data.source!r}"
        )


def _share() -> data.Share:
    return data.Share(parallel.process_index(), parallel.process_count())


def _open_log(config, workdir, step):
    first_process = parallel.process_index() == 0
    return TrainingLog(workdir, step, config.optimizer.num_steps) if first_process else SilentLog()


def _pairs_from(config, step):
    settings, batch_size = data.section(config), config.train.batch_size
    return data.create_pairs(
        settings, seed=config.seed, batch_size=batch_size, start_step=step, share=_share()
    )


class Run(NamedTuple):
    """What the steps of a training need besides the state."""

    config: ConfigDict
    train_step: Callable
    draw: Callable | None  # None: the batches are no pictures to hide
    validation: Validation | None
    manager: Any  # of the checkpoints
    log: Any
    stop: Callable[[], bool]

    def steps(self, state: TrainState, pairs: Iterator) -> TrainState:
        """Steps from `state` to the last one, or until `stop` says so."""
        num_steps, every = self.config.optimizer.num_steps, self.config.train
        first, logs = int(state.step), {}
        if first == 0:
            self._validate(state)
        watch = Stopwatch(first)
        for step in range(first + 1, num_steps + 1):
            with watch("data"):
                batch = next(pairs)
            before, (state, logs) = logs, self.train_step(state, batch)
            self.log.advance()
            jax.block_until_ready(before)  # one step ahead of the devices keeps them busy
            stopping = parallel.agree_to_stop(step, self.stop)
            last = step == num_steps or stopping
            if step % every.log_every_steps == 0 or last:
                self._write_line(step, logs, watch)
            if self.draw and (step % every.picture_every_steps == 0 or step == num_steps):
                self._draw(step, state, batch)
            # Before the save, so that a run that goes on from a checkpoint has validated it.
            if step % every.validate_every_steps == 0 or step == num_steps:
                with watch("validation"):
                    self._validate(state)
            if step % every.save_every_steps == 0 or last:
                # The loss is that of the parameters before the step; what is saved are those after it.
                self._check_finite(float(logs["parameter_norm"]), "norm of the parameters", step)
                with watch("save"):
                    checkpoints.save(self.manager, state, self.config)
            if stopping:
                break
        return state

    def _write_line(self, step: int, logs: dict, watch: Stopwatch) -> None:
        logs = {name: float(value) for name, value in logs.items()}
        self._check_finite(logs["loss"], "loss", step)
        images_per_step = self.config.train.batch_size * data.section(self.config).frames
        self.log.scalars(step, logs | watch.lap(step, images_per_step))

    def _validate(self, state: TrainState) -> None:
        if self.validation:
            figures = self.validation.measure(state)
            self.log.scalars(int(state.step), figures)
            self.validation.keep_if_best(state, figures)

    def _draw(self, step: int, state: TrainState, batch: dict) -> None:
        if parallel.process_index() == 0:
            few = {name: jnp.asarray(x[:4]) for name, x in batch.items()}
            keys = example_keys(jax.random.key(step), len(few["cover"]), None)
            self.log.picture(step, picture_grid(self.draw(state.tested, few, keys)))

    def _check_finite(self, value: float, name: str, step: int) -> None:
        if not np.isfinite(value):
            raise UserError(
                f"the {name} is not finite at step {step}; the last good checkpoint is in "
                f"{self.manager.directory}: lower config.optimizer.learning_rate or "
                "config.optimizer.clip_norm and start again"
            )
