"""The training loop: data, steps, validation, logs, checkpoints."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from deepsteg_jax import data, models
from deepsteg_jax.errors import UserError
from deepsteg_jax.training import checkpoints, environment, parallel
from deepsteg_jax.training.logs import Log, Stopwatch, TrainingLog
from deepsteg_jax.training.objective import Objective, Pictures, choose_objective, with_steganalyser
from deepsteg_jax.training.profiling import Trace, open_trace
from deepsteg_jax.training.state import TrainState, create_optimizer, create_state
from deepsteg_jax.training.step import example_keys, make_train_step
from deepsteg_jax.training.validation import Validation, open_validation

MODEL_STREAM, STEP_STREAM, VALIDATION_STREAM = 0, 1, 2


def picture_grid(pictures: Pictures) -> np.ndarray:
    """Lay up to four examples out as rows of cover, stego, secret, revealed; uint8 [h, w, 3]."""
    columns = []
    for x in (pictures.cover, pictures.stego, pictures.secret, pictures.revealed):
        frames = np.asarray(x[:4] if x.ndim == 4 else x[:4, 0])
        columns.append(np.concatenate(np.round(np.clip(frames, 0, 1) * 255).astype(np.uint8)))
    return np.concatenate(columns, axis=1)


def train(config: ConfigDict, workdir: str | Path, stop: Callable[[], bool] = lambda: False) -> TrainState:
    """Train into `workdir`, going on where the newest checkpoint there ends.

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
    _check(config)
    model = with_steganalyser(models.build(config.model), config)
    optimizer = create_optimizer(config.optimizer)
    objective = choose_objective(model, config)
    _check_source(config, objective)
    validates = data.has_validation(config.data)
    with (
        checkpoints.open_manager(workdir / "checkpoints", config.train.keep) as manager,
        checkpoints.open_manager(workdir / "best", keep=1) if validates else nullcontext() as best,
        parallel.all_or_none(),
    ):
        fresh = create_state(model, optimizer, _key(config, MODEL_STREAM), config.optimizer.ema_decay > 0)
        state = checkpoints.restore_state(manager, fresh)
        key = _key(config, VALIDATION_STREAM)
        validation = open_validation(config, objective, key, best, _share()) if validates else None
        log = _open_log(config, workdir, state)
        with (
            closing(log),
            # Closed at once, since a live tf.data iterator can hang the end of the process.
            closing(_open_batches(config, int(state.step), log.say)) as batches,
            _open_trace(config, workdir, int(state.step), log.say) as trace,
        ):
            run = Run(
                config,
                parallel.parallelise(make_train_step(model, optimizer, config, _key(config, STEP_STREAM))),
                partial(checkpoints.save, manager, config=config),
                str(manager.directory),
                config.train.batch_size * data.section(config).frames,
                log,
                validation,
                jax.jit(objective.draw) if objective.draw and parallel.process_index() == 0 else None,
                partial(parallel.agree_to_stop, asked=stop),
                trace,
            )
            return run.steps(state, batches)


def _check(config: ConfigDict) -> None:
    """Raise UserError for numbers that make no sense."""
    parallel.check_batch(config.train.batch_size, config.train.accumulate_steps)
    if config.seed < 0:
        raise UserError("config.seed must be at least 0")
    for name in ("keep", *(f"{each}_every_steps" for each in ("log", "save", "validate", "picture"))):
        if config.train.get(name, 1) < 1:  # only models that draw have pictures
            raise UserError(f"config.train.{name} must be at least 1")
    if config.optimizer.get("sparsity", 0.0) and config.optimizer.ema_decay:
        raise UserError("config.optimizer.sparsity needs ema_decay=0: means of weights are not sparse")


def _key(config: ConfigDict, stream: int) -> jax.Array:
    return jax.random.fold_in(jax.random.key(config.seed), stream)


def _check_source(config: ConfigDict, objective: Objective) -> None:
    if (config.data.source == "recordings") != (objective.examples == "recordings"):
        raise UserError(
            f"the model {config.model.name!r} is trained from {objective.examples}, but config.data.source "
            f"is {config.data.source!r}"
        )


def _share() -> data.Share:
    return data.Share(parallel.process_index(), parallel.process_count())


def _open_log(config: ConfigDict, workdir: Path, state: TrainState) -> Log:
    """Open the log of the first process, which says what begins; that of the others keeps nothing."""
    if parallel.process_index():
        return Log()
    step, steps = int(state.step), config.optimizer.num_steps
    environment.record(workdir, config, step)
    log, devices = TrainingLog(workdir, step, steps), parallel.describe_devices()
    count = sum(x.size for x in jax.tree.leaves(state.params))
    log.say(f"model: {config.model.name}, {count:,} parameters, both sides together")
    log.say(f"devices: {devices['devices']} x {devices['device_kind']}, processes: {devices['processes']}")
    where = f"goes on at step {step:,} of {steps:,}" if step else f"new, {steps:,} steps"
    log.say(f"{workdir}: {where}, batches of {config.train.batch_size}")
    return log


def _open_trace(
    config: ConfigDict, workdir: Path, step: int, say: Callable[[str], None]
) -> AbstractContextManager[Trace]:
    count = 0 if parallel.process_index() else config.train.profile_steps
    return open_trace(workdir / "tensorboard", step, count, say)


def _open_batches(config: ConfigDict, step: int, announce: Callable[[str], None]) -> Iterator:
    return data.create_pairs(
        data.section(config),
        seed=config.seed,
        batch_size=config.train.batch_size,
        start_step=step,
        share=_share(),
        announce=announce,
    )


@dataclass
class Run:
    """The steps of a training, and where their results go; knows nothing of files or devices."""

    config: ConfigDict
    train_step: Callable[[TrainState, dict], tuple[TrainState, dict]]
    save: Callable[[TrainState], None]
    checkpoints: str  # where they are, for messages
    images_per_step: int
    log: Log = field(default_factory=Log)
    validation: Validation | None = None
    draw: Callable[..., Pictures] | None = None
    stop: Callable[[int], Any] = lambda step: False  # asked after every step
    trace: Trace = lambda step, results: None  # called before every step

    def steps(self, state: TrainState, batches: Iterator[dict]) -> TrainState:
        """Step from `state` to the last one, or until `stop` says so."""
        num_steps, every = self.config.optimizer.num_steps, self.config.train
        first, logs = int(state.step), {}
        if first == 0:
            self._validate(state)
        watch = Stopwatch(first)
        for step in range(first + 1, num_steps + 1):
            self.trace(step, logs)
            with watch("data"):
                batch = next(batches)
            with jax.profiler.StepTraceAnnotation("train", step_num=step):
                before, (state, logs) = logs, self.train_step(state, batch)
            self.log.advance()
            jax.block_until_ready(before)  # one step ahead of the devices keeps them busy
            stopping = self.stop(step)
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
                # The loss belongs to the parameters before the step; those after it are saved.
                self._check_finite(float(logs["parameter_norm"]), "norm of the parameters", step)
                with watch("save"):
                    self.save(state)
            if stopping:
                break
        return state

    def _write_line(self, step: int, logs: dict, watch: Stopwatch) -> None:
        logs = {name: float(value) for name, value in logs.items()}
        self._check_finite(logs["loss"], "loss", step)
        self.log.scalars(step, logs | watch.lap(step, self.images_per_step))

    def _validate(self, state: TrainState) -> None:
        if self.validation:
            figures = self.validation.measure(state)
            self.log.scalars(int(state.step), figures)
            self.validation.keep_if_best(state, figures)

    def _draw(self, step: int, state: TrainState, batch: dict) -> None:
        few = {name: jnp.asarray(x[:4]) for name, x in batch.items()}
        keys = example_keys(jax.random.key(step), len(few["cover"]))
        self.log.picture(step, picture_grid(self.draw(state.tested, few, keys)))

    def _check_finite(self, value: float, name: str, step: int) -> None:
        if not np.isfinite(value):
            raise UserError(
                f"the {name} is not finite at step {step}; the last good checkpoint is in "
                f"{self.checkpoints}: lower config.optimizer.learning_rate or config.optimizer.clip_norm and "
                "start again"
            )
