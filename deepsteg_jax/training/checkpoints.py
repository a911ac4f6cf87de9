"""Checkpoints; the only file that knows orbax.

A checkpoint is one step of an orbax `CheckpointManager` with the items `hide` and `reveal` (the parameters
to use, averaged where the config averages, so that a receiver reads only its own), `training` (step,
optimiser state, what is trained beside the model, and the raw parameters beside averaged ones; absent from
shipped checkpoints) and `config` (JSON). Training folders and shipped checkpoints load by the same path.
Several processes save and restore together, in a folder that all of them see.
"""

import json
import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from ml_collections import ConfigDict

from deepsteg_jax.errors import UserError
from deepsteg_jax.models import Model
from deepsteg_jax.models.base import Params
from deepsteg_jax.training.parallel import as_global, do_once
from deepsteg_jax.training.state import TrainState

SIDES = ("hide", "reveal")
PRETRAINED = Path(__file__).parent.parent / "pretrained"

logging.getLogger("absl").setLevel(logging.ERROR)  # orbax narrates every file it touches


def open_manager(folder: str | Path, keep: int = 2) -> ocp.CheckpointManager:
    """Open or create a folder of checkpoints that keeps the last `keep` steps. Close it after use."""
    folder = Path(folder).absolute()
    # Processes that save to two folders at once must not take one folder's barriers for the other's.
    barriers = ocp.options.MultiprocessingOptions(barrier_sync_key_prefix=folder.name)
    options = ocp.CheckpointManagerOptions(max_to_keep=keep, create=True, multiprocessing_options=barriers)
    return ocp.CheckpointManager(folder, options=options)


def save(manager: ocp.CheckpointManager, state: TrainState, config: ConfigDict) -> None:
    """Start saving a state in the background; an interrupted save leaves the older steps intact."""
    manager.save(int(state.step), args=_arguments(as_global(_items(state)), config))


def save_best(manager: ocp.CheckpointManager, state: TrainState, config: ConfigDict, figures: dict) -> None:
    """Save the parameters to use with the figures of validation, which `read_best` reads.

    Not in the background: a checkpoint of this step that is there means that the best of them is there too.
    """
    sides = {side: state.tested[side] for side in SIDES}
    arguments = _arguments(as_global(sides), config, validation=figures)
    step = int(state.step)
    if step in manager.all_steps():  # of a part of the run that was done again, with another learning rate
        manager.delete(step)
    manager.save(step, args=arguments, force=True)  # also after a later step
    manager.wait_until_finished()


def read_best(manager: ocp.CheckpointManager) -> dict[str, float]:
    """Read the figures of the newest `save_best`; empty if there is none.

    Raises:
        UserError: they are damaged.
    """
    step = manager.latest_step()
    if step is None:
        return {}
    try:
        return manager.restore(step, args=ocp.args.Composite(validation=ocp.args.JsonRestore())).validation
    except (ValueError, KeyError, TypeError, OSError):
        raise UserError(f"{manager.directory} is damaged: move it away, and start again") from None


def _arguments(trees: dict[str, Any], config: ConfigDict, **figures: dict) -> ocp.args.Composite:
    """Return the arguments of orbax: arrays by item, the config and other items as JSON."""
    items = {name: ocp.args.StandardSave(tree) for name, tree in trees.items()}
    texts = {"config": json.loads(config.to_json()), **figures}
    return ocp.args.Composite(**items, **{name: ocp.args.JsonSave(text) for name, text in texts.items()})


def _items(state: TrainState) -> dict[str, Any]:
    """Split a state into the items that are saved."""
    training = {"opt_state": state.opt_state, "step": state.step}
    if state.ema is not None:
        training["params"] = state.params
    items = dict(state.tested)
    sides = {side: items.pop(side) for side in SIDES}
    if items:
        training["beside"] = items
    return {**sides, "training": training}


def _state(items: dict[str, Any]) -> TrainState:
    """Put a state together again: the inverse of `_items`."""
    training = items["training"]
    tested = {side: items[side] for side in SIDES} | training.get("beside", {})
    if "params" in training:
        return TrainState(training["step"], training["params"], training["opt_state"], tested)
    return TrainState(training["step"], tested, training["opt_state"])


def restore_state(manager: ocp.CheckpointManager, state: TrainState) -> TrainState:
    """Restore the newest saved state; `state` as it is when nothing has been saved yet.

    Checkpoints that cannot be read are renamed to STEP.damaged if an older one can, and that one is returned.

    Raises:
        UserError: nothing that is saved fits the config that made `state`, or all of it is damaged.
    """
    unreadable: dict[int, Exception] = {}
    for step in sorted(manager.all_steps(), reverse=True):
        try:
            found = jax.tree.map(jnp.array, _restore(manager, step, _items(state)))
        except (ValueError, KeyError, TypeError, OSError) as error:
            unreadable[step] = error
            continue
        if unreadable:
            steps = ", ".join(map(str, unreadable))
            logging.warning("%s: damaged at step %s, going on from %d", manager.directory, steps, step)
            do_once(partial(_put_aside, manager.directory, list(unreadable)))
            manager.reload()
        return _state(found)
    if not unreadable:
        return state
    raise UserError(
        f"{manager.directory} holds a run of another config or is damaged "
        f"({_first_line(unreadable[max(unreadable)])}): choose another --workdir"
    )


def _put_aside(folder: Path, steps: list[int]) -> None:
    for step in steps:
        (folder / str(step)).rename(folder / f"{step}.damaged")


def locate(checkpoint: str) -> Path:
    """Find the folder of a checkpoint, given as a shipped name, a training folder or a checkpoint folder.

    Raises:
        UserError: there is no checkpoint there.
    """
    for folder in (Path(checkpoint), Path(checkpoint) / "checkpoints", PRETRAINED / checkpoint):
        if checkpoint and folder.is_dir() and any(p.name.isdigit() for p in folder.iterdir()):
            return folder.absolute()
    shipped = ", ".join(sorted(p.name for p in PRETRAINED.glob("*") if p.is_dir() and p.name[0] != "_"))
    raise UserError(
        f"no checkpoint {checkpoint!r}: give a folder that --mode train wrote, or one of {shipped}"
    )


def read_config(checkpoint: str) -> ConfigDict:
    """Read the config that the newest step of a checkpoint was trained with.

    Args:
        checkpoint: as for `locate`.

    Raises:
        UserError: there is none, or it is damaged.
    """
    folder = locate(checkpoint)
    manager = ocp.CheckpointManager(folder, options=ocp.CheckpointManagerOptions(read_only=True))
    try:
        return ConfigDict(_read_config(manager))
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise UserError(f"checkpoint {checkpoint!r} is damaged ({_first_line(error)})") from None
    finally:
        manager.close()


def _read_config(manager: ocp.CheckpointManager) -> dict[str, Any]:
    return manager.restore(
        manager.latest_step(), args=ocp.args.Composite(config=ocp.args.JsonRestore())
    ).config


def restore_params(checkpoint: str, model: Model, config: ConfigDict, side: str) -> Any:
    """Read the parameters of one side alone.

    Args:
        checkpoint: as for `locate`.
        model: built from `config`.
        config: section `model` of the config.
        side: "hide" or "reveal".

    Raises:
        UserError: there is none, or it is of another model or of other sizes.
    """
    folder = locate(checkpoint)
    manager = ocp.CheckpointManager(folder, options=ocp.CheckpointManagerOptions(read_only=True))
    step = manager.latest_step()
    try:
        saved = _read_config(manager)
        if saved["model"]["name"] != config.name:
            raise UserError(
                f"checkpoint {checkpoint!r} is of the model {saved['model']['name']!r}, the config asks for "
                f"{config.name!r}: set config.checkpoint or config.model.name"
            )
        target = jax.eval_shape(model.init, jax.random.key(0))[side]
        return _restore(manager, step, {side: target})[side]
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise UserError(
            f"checkpoint {checkpoint!r} does not fit config.model or is damaged ({_first_line(error)})"
        ) from None
    finally:
        manager.close()


def export(
    source: str,
    target: str | Path,
    model: Model,
    config: ConfigDict,
    change: Callable[[Params], Params] = lambda params: params,
) -> None:
    """Copy the newest parameters of a run, without the optimiser, to a folder fit for shipping.

    Args:
        source: as for `locate`.
        target: an empty folder, or none yet.
        model: of the run.
        config: to ship.
        change: makes the parameters of `config` out of the run's.

    Raises:
        UserError: as for `restore_params`, or `target` already holds this step or a later one.
    """
    params = {side: restore_params(source, model, config.model, side) for side in SIDES}
    with open_manager(target) as manager:
        step = max(int(p.name) for p in locate(source).iterdir() if p.name.isdigit())
        if not manager.save(step, args=_arguments(change(params), config)):
            raise UserError(f"{target} already holds step {manager.latest_step()}: choose an empty folder")


def _restore(manager: ocp.CheckpointManager, step: int, target: dict[str, Any]) -> dict[str, Any]:
    """Read items as trees of numpy arrays like `target`; ValueError where structure or shapes differ."""
    blank = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), target)
    args = {name: ocp.args.StandardRestore(tree) for name, tree in blank.items()}
    found = dict(manager.restore(step, args=ocp.args.Composite(**args)).items())
    for (path, x), y in zip(jax.tree.leaves_with_path(blank), jax.tree.leaves(found), strict=True):
        if x.shape != y.shape:  # orbax does not look
            raise ValueError(f"{jax.tree_util.keystr(path)} is {y.shape}, not {x.shape}")
    return found


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0][:160]
