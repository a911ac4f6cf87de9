"""One device and several give the same training; each count of devices needs a process of its own."""

import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from configs.video import get_config
from deepsteg_jax import models
from deepsteg_jax.errors import UserError
from deepsteg_jax.training import checkpoints
from deepsteg_jax.training.parallel import AXIS, parallelise, split_batch
from deepsteg_jax.training.state import create_optimizer, create_state

ROOT = Path(__file__).parents[2]
STEPS = 3
SCRIPT = """
import sys
from pathlib import Path

import jax
import numpy as np

from configs.video import get_config
from deepsteg_jax import models
from deepsteg_jax.errors import UserError
from deepsteg_jax.models import prep_hide_reveal
from deepsteg_jax.training import checkpoints
from deepsteg_jax.training.parallel import AXIS, parallelise, split_batch
from deepsteg_jax.training.state import create_optimizer, create_state
from deepsteg_jax.training.step import example_keys, hide_and_reveal, make_train_step

prep_hide_reveal.KERNELS = (4,)  # a third of the network takes a third of the time to compile
out, devices, steps = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
assert jax.local_device_count() == devices


def batches(shape):
    rng = np.random.default_rng(0)
    draw = lambda: rng.integers(0, 256, (4, *shape), np.uint8)
    return [{"cover": draw(), "secret": draw()} for _ in range(steps)]


# What becomes of every example in a channel that shuffles and adds noise.
config = get_config("tiny")
config.channel = (("gaussian_noise", 0.1),)
relay = models.Model(None, lambda params, cover, secret: cover, lambda params, stego: stego)
draw = lambda batch: hide_and_reveal(
    relay, config, {"hide": 0, "reveal": 0}, batch, example_keys(jax.random.key(1), len(batch["cover"]), AXIS)
)
pictures = jax.pmap(draw, axis_name=AXIS)(split_batch(batches((16, 16, 3))[0], devices))
found = {name: np.asarray(x).reshape(4, -1) for name, x in pictures._asdict().items()}
np.savez(out / f"pictures-{devices}.npz", **found)


def leaves(when, tree):  # copies, since the step takes the memory of its state
    return {when + jax.tree_util.keystr(path): np.array(x) for path, x in jax.tree.leaves_with_path(tree)}


for name in ("block_dct", "prep_hide_reveal"):
    config, shape = get_config("tiny"), (2, 16, 16, 3)
    config.optimizer.warmup_steps = 0
    if name == "prep_hide_reveal":
        config.model.name, config.model.features = name, 2
        config.shuffle.moves, config.channel = "secret", (("gaussian_noise", 0.05), ("round", 8))
        config.optimizer.learning_rate, shape = 1e-3, (8, 8, 3)
    model, optimizer = models.build(config.model), create_optimizer(config.optimizer)
    model = model._replace(init=jax.jit(model.init))
    state = create_state(model, optimizer, jax.random.key(0))
    train_step = make_train_step(model, optimizer, config, jax.random.key(2), AXIS)
    found = leaves("before", state.params)
    step = parallelise(train_step, 4)
    for i, batch in enumerate(batches(shape)):
        state, logs = step(state, batch)
        found |= {f"logs/{i}/{k}": np.asarray(v) for k, v in logs.items()}
    np.savez(out / f"{name}-{devices}.npz", **found, **leaves("after", state.params))
    if name == "block_dct":
        with checkpoints.open_manager(out / f"checkpoints-{devices}") as manager:
            checkpoints.save(manager, state, config)
try:
    parallelise(train_step, 6)
except UserError as error:
    print(error)
"""


class Runs(NamedTuple):
    """What the script left and printed, by the count of devices."""

    folder: Path
    printed: dict[int, str]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The script's findings with 1 and with 4 simulated devices."""
    folder, children, printed = tmp_path_factory.mktemp("parallel"), {}, {}
    for devices in (1, 4):
        env = {
            **os.environ,
            "JAX_PLATFORMS": "cpu",
            "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",  # halves the time it takes to compile
            "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
            "PYTHONPATH": str(ROOT),
        }
        command = [sys.executable, "-c", SCRIPT, str(folder), str(devices), str(STEPS)]
        children[devices] = subprocess.Popen(
            command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
    for devices, child in children.items():
        printed[devices], errors = child.communicate()
        assert child.returncode == 0, errors
    return Runs(folder, printed)


def _load(runs, name):
    return (dict(np.load(runs.folder / f"{name}-{devices}.npz")) for devices in (1, 4))


@pytest.mark.parametrize("name, rate", [("block_dct", 3e-3), ("prep_hide_reveal", 1e-3)])
def test_four_devices_train_as_one(runs, name, rate):
    """Equal up to the order in which a batch is summed, some 1e-7 of a gradient.

    Adam divides that by the size of the gradient, so parameters are compared to what they could have moved,
    one learning rate a step: measured 2e-4 of it, allowed 1e-2.
    """
    one, four = _load(runs, name)
    assert sorted(one) == sorted(four)
    assert any(not np.array_equal(one[k], one[k.replace("before", "after")]) for k in one if "before" in k)
    for key in one:
        size = np.abs(one[key]).max()
        tolerance = 1e-3 * size if key.startswith("logs") else 0.01 * STEPS * rate
        assert np.isfinite(size) and np.allclose(one[key], four[key], rtol=0, atol=tolerance), key


def test_randomness_belongs_to_the_example_not_to_its_device(runs):
    """Shuffle and noise of each example, compared one by one; equal but for the order of operations."""
    one, four = _load(runs, "pictures")
    noise = one["revealed"] - one["secret"]
    assert noise.std() > 0.05 and len(np.unique(noise[:, 0])) == 4
    for name in one:
        assert np.allclose(one[name], four[name], rtol=0, atol=1e-6), name


def test_a_checkpoint_of_four_devices_goes_on_with_one(runs):
    config = get_config("tiny")
    config.optimizer.warmup_steps = 0
    model, optimizer = models.build(config.model), create_optimizer(config.optimizer)
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    model = model._replace(init=lambda key: jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes))
    with checkpoints.open_manager(runs.folder / "checkpoints-4") as manager:
        state = checkpoints.restore_state(manager, create_state(model, optimizer, jax.random.key(9)))
    assert int(state.step) == STEPS
    _, four = _load(runs, "block_dct")
    for path, x in jax.tree.leaves_with_path(state.params):
        assert np.array_equal(x, four[f"after{jax.tree_util.keystr(path)}"])
    parallelise(lambda state, batch: (state, {}), 1)(state, {"x": np.zeros((1, 1))})


def test_devices_that_do_not_divide_the_batch(runs, monkeypatch):
    message = "4 devices do not divide config.train.batch_size=6: use a multiple"
    assert runs.printed == {1: "", 4: message + "\n"}
    monkeypatch.setattr(jax, "local_device_count", lambda: 4)
    with pytest.raises(UserError, match=message):
        parallelise(lambda state, batch: (state, {}), 6)


def test_the_parts_of_a_batch_are_in_order():
    batch = {"cover": np.arange(24).reshape(6, 2, 2), "secret": np.arange(6)}
    parts = split_batch(batch, 3)
    assert parts["cover"].shape == (3, 2, 2, 2) and parts["secret"].tolist() == [[0, 1], [2, 3], [4, 5]]
    assert np.array_equal(np.concatenate(parts["cover"]), batch["cover"])


def test_a_step_is_compiled_once():
    """Also when the first state does not lie where the step leaves it."""
    traces = []

    def step(state, batch):
        traces.append(1)
        return state + lax.pmean(batch["x"].sum(), AXIS), {}

    run, state = parallelise(step, 4), jnp.zeros(())
    for _ in range(3):
        state, _ = run(state, {"x": np.ones(4, np.float32)})
    assert len(traces) == 1 and float(state) == 12
