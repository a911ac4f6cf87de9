"""One device and several give the same training; each count of devices needs a process of its own.

Here the devices are those of one process.
"""

import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.video import get_config
from deepsteg_jax import models
from deepsteg_jax.errors import UserError
from deepsteg_jax.training import checkpoints, parallel
from deepsteg_jax.training.objective import choose_objective, hide_and_reveal
from deepsteg_jax.training.parallel import check_batch, parallelise, split_batch
from deepsteg_jax.training.state import create_optimizer, create_state
from deepsteg_jax.training.step import example_keys, make_train_step, make_validation_step
from tests.children import start_on_devices
from tests.toy import build_toy

DEVICES, STEPS = 8, 5


def batches(shape):
    rng = np.random.default_rng(0)

    def draw():
        return rng.integers(0, 256, (8, *shape), np.uint8)

    return [{"cover": draw(), "secret": draw()} for _ in range(STEPS)]


def draw_pictures(out):
    """Leave what becomes of every example in a channel that shuffles and adds noise."""
    config = get_config("tiny")
    config.channel = (("gaussian_noise", 0.1),)
    relay = models.Model(None, lambda params, cover, secret: cover, lambda params, stego: stego)

    def draw(params, batch, devices):  # of all devices, in the order of the batch
        keys = example_keys(jax.random.key(1), len(batch["cover"]), devices)
        pictures = hide_and_reveal(relay, config, params, batch, keys)
        first = devices.index() * len(keys)

        def place(x):
            return jax.lax.dynamic_update_slice_in_dim(jnp.zeros((8, *x.shape[1:])), x, first, 0)

        return devices.sum(jax.tree.map(place, pictures))

    pictures = parallelise(draw, donate=False)({"hide": 0, "reveal": 0}, batches((16, 16, 3))[0])
    found = {name: np.asarray(x).reshape(8, -1) for name, x in pictures._asdict().items()}
    np.savez(out / f"pictures-{jax.device_count()}.npz", **found)


def leaves(when, tree):
    """Copies, since the step takes the memory of its state."""
    return {when + jax.tree_util.keystr(path): np.array(x) for path, x in jax.tree.leaves_with_path(tree)}


def train(out, name, parts):
    """Leave the parameters before and after some steps, what they log, and a checkpoint or a validation."""
    config, shape, devices = get_config("tiny"), (2, 16, 16, 3), jax.device_count()
    config.optimizer.warmup_steps, config.optimizer.num_steps = 0, STEPS
    config.train.accumulate_steps = parts
    config.shuffle.cipher = "blocks"  # compiles sooner; `draw_pictures` has the other one
    if name == "toy":
        config.model = {"name": name, "size": 2}
        config.shuffle.moves, config.channel = "secret", (("gaussian_noise", 0.05), ("round", 8))
        config.optimizer.learning_rate, shape = 1e-3, (8, 8, 3)
    model, optimizer = models.build(config.model), create_optimizer(config.optimizer)
    model = model._replace(init=jax.jit(model.init))
    state = create_state(model, optimizer, jax.random.key(0))
    found = leaves("before", state.params)
    step = parallelise(make_train_step(model, optimizer, config, jax.random.key(2)))
    for i, batch in enumerate(batches(shape)):
        state, logs = step(state, batch)
        found |= {f"logs/{i}/{k}": np.asarray(v) for k, v in logs.items()}
    found |= leaves("after", state.params)
    np.savez(out / f"{name}-{devices}-{parts}.npz", **found)
    if name == "block_dct":
        with checkpoints.open_manager(out / f"checkpoints-{devices}") as manager:
            checkpoints.save(manager, state, config)
    elif parts == 1:
        objective = choose_objective(model, config)
        validate = parallelise(make_validation_step(objective, jax.random.key(3)), donate=False)
        found = {}
        for number, real in enumerate((8, 5, 1)):  # the last one leaves devices without a real example
            batch = {**batches(shape)[0], "weight": np.arange(8) < real}
            batch["weight"] = batch["weight"].astype(np.float32)
            sums = validate((state.params, np.uint32(number)), batch)
            found |= {f"{number}/{k}": np.asarray(v) for k, v in sums.items()}
        np.savez(out / f"validation-{devices}.npz", **found)


def work(out):
    """What a process does with its devices."""
    models.MODELS["toy"] = build_toy
    draw_pictures(out)
    train(out, "block_dct", 1)
    train(out, "toy", 1)
    if jax.device_count() == 1:
        train(out, "toy", 2)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The folder of what is found with 1 and with 8 simulated devices."""
    folder = tmp_path_factory.mktemp("parallel")
    children = [start_on_devices(devices, work, folder) for devices in (1, DEVICES)]
    for child in children:
        child.join()
    assert [child.exitcode for child in children] == [0, 0]
    return folder


def _load(runs, *names):
    return (dict(np.load(runs / f"{name}.npz")) for name in names)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name, other, rate",
    [
        ("block_dct", f"{DEVICES}-1", 3e-3),
        ("toy", f"{DEVICES}-1", 1e-3),
        ("toy", "1-2", 1e-3),
    ],
    ids=["block_dct on 8 devices", "toy on 8 devices", "toy in 2 parts"],
)
def test_devices_and_parts_of_a_batch_train_as_one(runs, name, other, rate):
    """Equal up to the order in which a batch is summed, some 1e-7 of a gradient.

    Adam divides that by the size of the gradient, so parameters are compared to what they could have moved,
    one learning rate a step: measured 3e-5 of it, allowed 1e-3. Of logs 4e-6 was measured, 1e-4 is allowed.
    """
    one, several = _load(runs, f"{name}-1-1", f"{name}-{other}")
    assert sorted(one) == sorted(several)
    assert any(not np.array_equal(one[k], one[k.replace("before", "after")]) for k in one if "before" in k)
    assert {key.rpartition("/")[2] for key in one} >= {
        "loss",
        "secret_psnr_db",
        "gradient_norm",
        "parameter_norm",
    }
    for key in one:
        size = np.abs(one[key]).max()
        tolerance = 1e-4 * size if key.startswith("logs") else 1e-3 * STEPS * rate
        assert np.isfinite(size) and np.allclose(one[key], several[key], rtol=0, atol=tolerance), key


@pytest.mark.slow
def test_validation_adds_up_the_real_examples_on_all_devices(runs):
    """Sums of at most 8 examples: equal but for the order of additions."""
    one, several = _load(runs, "validation-1", f"validation-{DEVICES}")
    assert sorted(one) == sorted(several) and len(one) == 3 * 4
    assert [float(one[f"{number}/weight"]) for number in range(3)] == [8, 5, 1]
    assert 0 < one["2/stego_psnr_db"] < one["1/stego_psnr_db"] < one["0/stego_psnr_db"]
    for key in one:
        assert np.isclose(one[key], several[key], rtol=1e-4, atol=0), key


@pytest.mark.slow
def test_randomness_belongs_to_the_example_not_to_its_device(runs):
    """Shuffle and noise of each example, compared one by one; equal but for the order of operations."""
    one, several = _load(runs, "pictures-1", f"pictures-{DEVICES}")
    noise = one["revealed"] - one["secret"]
    assert noise.std() > 0.05 and len(np.unique(noise[:, 0])) == 8
    for name in one:
        assert np.allclose(one[name], several[name], rtol=0, atol=1e-6), name


@pytest.mark.slow
def test_a_checkpoint_of_eight_devices_goes_on_with_one(runs):
    config = get_config("tiny")
    config.optimizer.warmup_steps = 0
    model, optimizer = models.build(config.model), create_optimizer(config.optimizer)
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    model = model._replace(init=lambda key: jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes))
    with checkpoints.open_manager(runs / f"checkpoints-{DEVICES}") as manager:
        state = checkpoints.restore_state(manager, create_state(model, optimizer, jax.random.key(9)))
    assert int(state.step) == STEPS
    (eight,) = _load(runs, f"block_dct-{DEVICES}-1")
    for path, x in jax.tree.leaves_with_path(state.params):
        assert np.array_equal(x, eight[f"after{jax.tree_util.keystr(path)}"])
    parallelise(lambda state, batch, devices: (state, {}))(state, {"x": np.zeros((1, 1))})


@pytest.mark.parametrize(
    "size, parts, good",
    [(8, 1, 1), (8, 2, 1), (6, 1, 0), (8, 3, 0), (4, 2, 0), (8, 0, 0), (8, -2, 0), (0, 1, 0)],
)
def test_parts_that_do_not_divide_the_batch(monkeypatch, size, parts, good):
    monkeypatch.setattr(jax, "device_count", lambda: 4)
    if good:
        check_batch(size, parts)
        return
    wanted = "4 devices" if parts == 1 else f"4 devices times {parts} parts"
    message = f"{wanted} do not divide config.train.batch_size={size}: use a multiple"
    with pytest.raises(UserError, match=message):
        check_batch(size, parts)


def test_the_parts_of_a_batch_are_in_order():
    batch = {"cover": np.arange(24).reshape(6, 2, 2), "secret": np.arange(6)}
    parts = split_batch(batch, 3)
    assert parts["cover"].shape == (3, 2, 2, 2) and parts["secret"].tolist() == [[0, 1], [2, 3], [4, 5]]
    assert np.array_equal(np.concatenate(parts["cover"]), batch["cover"])


def test_a_step_is_compiled_once():
    """Also when the first state does not lie where the step leaves it."""
    traces = []

    def step(state, batch, devices):
        traces.append(1)
        return state + devices.mean(batch["x"].sum()), {}

    run, state = parallelise(step), jnp.zeros(())
    for _ in range(3):
        state, _ = run(state, {"x": np.ones(4, np.float32)})
    assert len(traces) == 1 and float(state) == 12


def test_a_state_that_is_not_donated_stays():
    state = jnp.arange(3.0)
    for donate in (False, True):
        run = parallelise(lambda state, batch, devices: state + devices.sum(batch["x"].sum()), donate=donate)
        state = run(before := state, {"x": np.ones(1, np.float32)})
        assert before.is_deleted() == donate
    assert state.tolist() == [2, 3, 4]


# --- finding the other processes ------------------------------------------------------------------

CLUSTERS = ("SLURM_", "OMPI_", "KUBERNETES_", "JAX_COORDINATOR_ADDRESS", "JOB_COMPLETION_INDEX")


@pytest.fixture
def joined(monkeypatch):
    """What `jax.distributed.initialize` is called with, in an environment without a cluster."""
    for name in os.environ:
        if name.startswith(CLUSTERS):
            monkeypatch.delenv(name)
    calls = []
    monkeypatch.setattr(jax.distributed, "initialize", lambda *given: calls.append(given))
    return calls


SLURM = {"SLURM_JOB_ID": "7", "SLURM_STEP_NODELIST": "node[1-2]", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"}


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"SLURM_JOB_ID": "7"},
        {**SLURM, "SLURM_NTASKS": "1"},
        SLURM,
        {"OMPI_COMM_WORLD_SIZE": "1"},
        {"KUBERNETES_SERVICE_HOST": "10.0.0.1"},
    ],
    ids=["nothing", "a job without a step", "one task", "a step without tasks", "one rank", "a pod"],
)
def test_a_process_that_is_alone_waits_for_nobody(joined, monkeypatch, environment):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    parallel.initialize(None, None, None)
    assert joined == []


@pytest.mark.parametrize(
    "environment",
    [
        {**SLURM, "SLURM_NTASKS": "2"},
        {"OMPI_COMM_WORLD_SIZE": "2"},
        {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "JOB_COMPLETION_INDEX": "0"},
    ],
    ids=["Slurm", "Open MPI", "Kubernetes"],
)
def test_a_cluster_that_started_several_says_the_rest(joined, monkeypatch, environment):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    parallel.initialize(None, None, None)
    assert joined == [(None, None, None)]
    parallel.initialize("here:1", 2, 0)
    assert joined[1:] == [("here:1", 2, 0)]


def test_all_flags_or_none(joined, monkeypatch):
    given = ("here:1", 2, 0)
    parallel.initialize(*given)
    for keep in range(1, 7):
        some = [x if keep & 1 << i else None for i, x in enumerate(given)]
        with pytest.raises(UserError, match="--coordinator, --num_processes and --process_id go together"):
            parallel.initialize(*some)
    monkeypatch.setenv("JAX_COORDINATOR_ADDRESS", "there:2")
    parallel.initialize(None, 2, 0)  # what the environment says is given too
    with pytest.raises(UserError, match="give all three"):
        parallel.initialize(None, None, None)
    assert joined == [given, ("there:2", 2, 0)]


@pytest.mark.parametrize("error", [RuntimeError, ValueError])
def test_processes_that_do_not_find_each_other_are_one_line(joined, monkeypatch, error):
    def fail(*given):
        raise error("DEADLINE_EXCEEDED: nobody came\nand more")

    monkeypatch.setattr(jax.distributed, "initialize", fail)
    with pytest.raises(UserError, match="cannot find each other: DEADLINE_EXCEEDED: nobody came$"):
        parallel.initialize("here:1", 2, 0)
