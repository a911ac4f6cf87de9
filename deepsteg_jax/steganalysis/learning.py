"""Train the steganalyser of `network` on pairs, by the loop that trains models with a loss of their own."""

from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from deepsteg_jax.models.base import Model, hides_nothing
from deepsteg_jax.steganalysis.network import Network, discriminate
from deepsteg_jax.training import checkpoints, parallel
from deepsteg_jax.training.logs import TrainingLog
from deepsteg_jax.training.loop import Run
from deepsteg_jax.training.state import create_optimizer, create_state
from deepsteg_jax.training.step import make_train_step

BATCH = 8  # pictures that are scored at once

Batch = dict[str, np.ndarray]


def build(config: ConfigDict) -> Model:
    """Build the model of a section `model`: it has a loss, pairs as {"cover", "stego"}, and hides nothing.

    A checkpoint has two items, so `hide` holds the statistics of activations and `reveal` the weights.
    """
    network = _network(config)

    def init(key):
        variables = network.init(key, jnp.zeros((1, 32, 32, config.planes)), True)
        return {"hide": variables["batch_stats"], "reveal": variables["params"]}

    def loss(params, batch, keys):
        del keys
        loss, accuracy = discriminate(network, params["reveal"], batch["cover"], batch["stego"])
        return loss, {"accuracy": accuracy}

    return Model(init, hides_nothing, hides_nothing, loss=loss)


def _network(config: ConfigDict) -> Network:
    return Network(tuple(config.features), config.front)


def _variables(params: dict[str, Any]) -> dict[str, Any]:
    return {"params": params["reveal"], "batch_stats": params["hide"]}


def draw_pairs(
    covers: np.ndarray, embed: Callable, side: int, pairs: int, seed: int
) -> Callable[[int], Batch]:
    """Return the batch of a step as a function of the step alone: random crops, turned and mirrored.

    Args:
        covers: uint8 [n, h, w, planes].
        embed: (crops of covers, step, rng, cut) -> stegos; `cut` makes the same crops of any
            other array like `covers`.
        side: of a crop.
        pairs: in a batch.
        seed: of all draws.
    """

    def draw(step: int) -> Batch:
        rng = np.random.default_rng((seed, step))
        numbers = rng.choice(len(covers), pairs, replace=len(covers) < pairs)
        corners = rng.integers(0, np.array(covers.shape[1:3]) - side + 1, (pairs, 2))
        turns, mirrored = rng.integers(0, 4, pairs), rng.integers(0, 2, pairs).astype(bool)

        def cut(pictures):
            crops = []
            for i, (y, x), turn, mirror in zip(numbers, corners, turns, mirrored, strict=True):
                crop = np.rot90(pictures[i, y : y + side, x : x + side], turn)
                crops.append(crop[:, ::-1] if mirror else crop)
            return np.stack(crops)

        cover = cut(covers)
        return {"cover": cover, "stego": embed(cover, step, rng, cut)}

    return draw


def train(
    config: ConfigDict, draw: Callable[[int], Batch], workdir: Path, start: Any = None
) -> dict[str, Any]:
    """Train into `workdir`, going on where its newest checkpoint ends.

    Args:
        config: sections `model` (`features` and `front` of a `Network`, `planes` of a picture), `optimizer`
            and `train` as for every training; `seed`.
        draw: the batch of a step.
        workdir: gets checkpoints/ and training.jsonl.
        start: variables of another training to begin with.

    Returns:
        The variables of the network, calibrated.
    """
    workdir.mkdir(parents=True, exist_ok=True)
    model, optimizer = build(config.model), create_optimizer(config.optimizer)
    key = jax.random.key(config.seed)
    with checkpoints.open_manager(workdir / "checkpoints", keep=1) as manager:
        fresh = create_state(model, optimizer, key)
        if start is not None:
            fresh = fresh.replace(params={"hide": start["batch_stats"], "reveal": start["params"]})
        state = checkpoints.restore_state(manager, fresh)
        first, last = int(state.step), config.optimizer.num_steps
        with closing(TrainingLog(workdir, first, last)) as log:
            run = Run(
                config,
                parallel.parallelise(make_train_step(model, optimizer, config, key)),
                partial(checkpoints.save, manager, config=config),
                str(manager.directory),
                2 * config.train.batch_size,
                log,
            )
            state = run.steps(state, map(draw, count(first + 1)))
    variables = _variables(jax.tree.map(np.asarray, state.params))
    return calibrate(config, variables, (draw(last + 1 + i) for i in range(config.train.calibration_steps)))


def calibrate(config: ConfigDict, variables: dict[str, Any], batches: Iterator[Batch]) -> dict[str, Any]:
    """Return the variables with means and variances of the activations over batches of pairs."""
    network = _network(config.model)

    @jax.jit
    def statistics(params, batch):
        pictures = jnp.concatenate([batch["cover"], batch["stego"]]).astype(jnp.float32)
        return network.apply({**variables, "params": params}, pictures, True, mutable=["batch_stats"])[1]

    found = [statistics(variables["params"], batch) for batch in batches]
    mean = jax.tree.map(lambda *x: np.mean(x, axis=0), *found)
    return {"params": variables["params"], **mean}


@partial(jax.jit, static_argnums=0)
def _log_odds(network: Network, variables: dict[str, Any], pictures: jax.Array) -> jax.Array:
    return network.apply(variables, pictures.astype(jnp.float32), False)


def score(config: ConfigDict, variables: dict[str, Any], pictures: np.ndarray) -> np.ndarray:
    """Return the log-odds that pictures, uint8 [n, h, w, planes], are stegos: [n]."""
    network = _network(config.model)
    parts = [pictures[i : i + BATCH] for i in range(0, len(pictures), BATCH)]
    padded = [np.concatenate([part, np.repeat(part[-1:], BATCH - len(part), axis=0)]) for part in parts]
    found = [np.asarray(_log_odds(network, variables, part)) for part in padded]
    return np.concatenate(found)[: len(pictures)]
