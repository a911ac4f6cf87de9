"""The training loop: data, steps, logs, checkpoints."""

import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict

from deepsteg_jax import data, models
from deepsteg_jax.errors import UserError
from deepsteg_jax.training import checkpoints
from deepsteg_jax.training.logs import TrainingLog
from deepsteg_jax.training.parallel import AXIS, parallelise
from deepsteg_jax.training.state import TrainState, create_optimizer, create_state
from deepsteg_jax.training.step import example_keys, hide_and_reveal, make_train_step

MODEL_STREAM, STEP_STREAM = 0, 1


def picture_grid(pictures) -> np.ndarray:
    """Up to four examples as rows of cover, stego, secret, revealed; uint8 [h, w, 3]."""
    columns = []
    for x in (pictures.cover, pictures.stego, pictures.secret, pictures.revealed):
        frames = np.asarray(x[:4] if x.ndim == 4 else x[:4, 0])
        columns.append(np.concatenate(np.round(np.clip(frames, 0, 1) * 255).astype(np.uint8)))
    return np.concatenate(columns, axis=1)


def _check_finite(value: float, name: str, step: int, folder: Path) -> None:
    if not np.isfinite(value):
        raise UserError(
            f"the {name} is not finite at step {step}; the last good checkpoint is in {folder}: "
            "lower config.optimizer.learning_rate or config.optimizer.clip_norm and start again"
        )


def train(config: ConfigDict, workdir: str | Path, stop: Callable[[], bool] = lambda: False) -> TrainState:
    """Trains into `workdir`, going on where the newest checkpoint there ends.

    The state after step k depends on the config alone, not on where the run was interrupted.

    Args:
        config: see configs/video.py.
        workdir: gets checkpoints/, tensorboard/, training.jsonl and config.json.
        stop: asked after every step; once it says yes the state is saved and training ends.

    Returns:
        The last state.

    Raises:
        UserError: bad data, a folder of another config, or a loss that is not finite.
    """
    workdir = Path(workdir)
    workdir.mkdir(parents=True, exist_ok=True)
    base_key = jax.random.key(config.seed)
    model = models.build(config.model)
    optimizer = create_optimizer(config.optimizer)
    step_key = jax.random.fold_in(base_key, STEP_STREAM)
    train_step = parallelise(
        make_train_step(model, optimizer, config, step_key, AXIS), config.train.batch_size
    )
    with checkpoints.open_manager(workdir / "checkpoints", config.train.keep) as manager:
        fresh = create_state(model, optimizer, jax.random.fold_in(base_key, MODEL_STREAM))
        state = checkpoints.restore_state(manager, fresh)
        (workdir / "config.json").write_text(config.to_json_best_effort(indent=2) + "\n")
        log = TrainingLog(workdir, int(state.step), config.optimizer.num_steps)
        # Closed at once, since a live tf.data iterator can hang the end of the process.
        with closing(log), closing(_pairs_from(config, int(state.step))) as pairs:
            return _run(config, state, train_step, model, pairs, manager, log, stop)


def _pairs_from(config, step):
    return data.create_pairs(
        config.data, seed=config.seed, batch_size=config.train.batch_size, start_step=step, train=True
    )


def _run(config, state, train_step, model, pairs, manager, log, stop) -> TrainState:
    """Steps from `state` to the last one, or until `stop` says so."""
    draw = jax.jit(lambda params, batch, keys: hide_and_reveal(model, config, params, batch, keys))
    num_steps, every = config.optimizer.num_steps, config.train
    first = int(state.step)
    clock, since = time.monotonic(), first
    for step, batch in zip(range(first + 1, num_steps + 1), pairs, strict=False):
        state, logs = train_step(state, batch)
        log.advance()
        stopping = stop()
        last = step == num_steps or stopping
        if step % every.log_every_steps == 0 or last:
            logs = {name: float(value) for name, value in logs.items()}
            _check_finite(logs["loss"], "loss", step, manager.directory)
            now = time.monotonic()
            logs["images_per_s"] = (step - since) * every.batch_size * config.data.frames / (now - clock)
            clock, since = now, step
            log.scalars(step, logs)
        if step % every.picture_every_steps == 0 or step == num_steps:
            few = {name: jnp.asarray(x[:4]) for name, x in batch.items()}
            keys = example_keys(jax.random.key(step), len(few["cover"]), None)
            log.picture(step, picture_grid(draw(state.params, few, keys)))
        if step % every.save_every_steps == 0 or last:
            # The loss is that of the parameters before the step; what is saved are those after it.
            norm = float(optax.global_norm(state.params))
            _check_finite(norm, "norm of the parameters", step, manager.directory)
            checkpoints.save(manager, state, config)
        if stopping:
            break
    return state
