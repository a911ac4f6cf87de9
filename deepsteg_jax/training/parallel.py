"""Running a step on all devices of all processes; the only file that knows pmap and jax.distributed.

The state is replicated by `in_axes=None, out_axes=None`, so it looks the same inside and outside and needs
no replicate or unreplicate; only the batch is split. A move to `jit` with shardings changes this file.

With several processes each holds its own copy of the state and feeds its own part of every batch.
"""

import logging
import os
import sys
import traceback
from collections.abc import Callable
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import jax
from jax import lax
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from deepsteg_jax.errors import UserError

_AXIS = "devices"


class Devices(NamedTuple):
    """Operations over the devices that share the batch of a step.

    Attributes:
        index: () -> number of the device that asks.
        mean, sum: pytree -> the same, averaged or added over the devices.
    """

    index: Callable[[], Any]
    mean: Callable[[Any], Any]
    sum: Callable[[Any], Any]


ONE_DEVICE = Devices(lambda: 0, lambda tree: tree, lambda tree: tree)
_ALL_DEVICES = Devices(
    partial(lax.axis_index, _AXIS), partial(lax.pmean, axis_name=_AXIS), partial(lax.psum, axis_name=_AXIS)
)


def initialize(coordinator: str | None, num_processes: int | None, process_id: int | None) -> None:
    """Join the other processes of a training; do nothing for a process that is alone.

    Args:
        coordinator: HOST:PORT of process 0; None: from JAX_COORDINATOR_ADDRESS, or from the cluster (Slurm,
            Open MPI, Kubernetes), as JAX detects it, if that started more than one process.
        num_processes: the number of processes.
        process_id: which one this is, from 0.

    Raises:
        UserError: only some of the three are known, or the others do not come.
    """
    coordinator = coordinator or os.environ.get("JAX_COORDINATOR_ADDRESS")
    given = (coordinator, num_processes, process_id)
    by_cluster = _cluster_started_several()
    if given == (None, None, None) and not by_cluster:
        return
    if None in given and not by_cluster:
        raise UserError("--coordinator, --num_processes and --process_id go together: give all three")
    logging.getLogger("jax._src.distributed").setLevel(logging.ERROR)
    try:
        jax.distributed.initialize(coordinator, num_processes, process_id)
    except (RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"the processes of this training cannot find each other: {reason}") from None


def _cluster_started_several() -> bool:
    """Return whether a cluster started this process as one of several; one alone must not wait."""
    if "SLURM_STEP_NODELIST" in os.environ:
        return int(os.environ.get("SLURM_NTASKS", 1)) > 1
    if "KUBERNETES_SERVICE_HOST" in os.environ:
        return "JOB_COMPLETION_INDEX" in os.environ  # an indexed job; JAX needs the package kubernetes
    return int(os.environ.get("OMPI_COMM_WORLD_SIZE", 1)) > 1


def process_index() -> int:
    """Return the number of this process; only 0 writes logs."""
    return jax.process_index()


def process_count() -> int:
    """Return the number of processes that train together."""
    return jax.process_count()


def describe_devices() -> dict[str, Any]:
    """Describe the devices that train here."""
    return {
        "device_kind": jax.devices()[0].device_kind,
        "devices": jax.device_count(),
        "processes": jax.process_count(),
    }


def split_batch(batch: dict, devices: int) -> dict:
    """Split every array of the batch: [b, ...] -> [devices, b / devices, ...]."""
    return {name: x.reshape(devices, -1, *x.shape[1:]) for name, x in batch.items()}


def check_batch(batch_size: int, accumulate_steps: int) -> None:
    """Raise UserError if devices and micro-batches do not divide the global batch."""
    devices = jax.device_count()
    if batch_size < 1 or accumulate_steps < 1 or batch_size % (devices * accumulate_steps):
        parts = f"{devices} devices" + (f" times {accumulate_steps} parts" if accumulate_steps != 1 else "")
        raise UserError(f"{parts} do not divide config.train.batch_size={batch_size}: use a multiple")


def parallelise(step: Callable, donate: bool = True) -> Callable:
    """Map `step(state, batch, devices)` over all devices.

    Args:
        step: averages or adds over `devices` what it returns.
        donate: whether the memory of the old state may be used for the result.

    Returns:
        step(state, batch) with `batch` arrays [b / processes, ...] on the host, this process's part of the
        global batch; what comes back is the same in every process.
    """
    count = jax.local_device_count()
    settings = {"in_axes": (None, 0), "out_axes": None, "donate_argnums": (0,) if donate else ()}
    mapped = jax.pmap(partial(step, devices=_ALL_DEVICES), _AXIS, **settings)
    # Where `mapped` leaves the state; one that lies elsewhere would make the second call compile again.
    replicated = NamedSharding(Mesh(jax.local_devices(), _AXIS), PartitionSpec())

    def run(state, batch):
        return mapped(jax.device_put(state, replicated), split_batch(batch, count))

    return run


def as_global(tree: Any) -> Any:
    """Turn arrays that every process holds into arrays of all of them, which orbax saves together."""
    if jax.process_count() == 1:
        return tree
    return multihost_utils.host_local_array_to_global_array(tree, Mesh(jax.devices(), _AXIS), PartitionSpec())


def do_once(action: Callable[[], None]) -> None:
    """Have process 0 do something to the files that all share; the others wait until it is done."""
    if jax.process_index() == 0:
        action()
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices("do_once")


def agree_to_stop(step: int, asked: Callable[[], bool]) -> bool:
    """Return whether to stop after `step`: the same answer in every process.

    A process that is alone stops when `asked()`, which every process calls. With several, the first SIGTERM
    to any of them stops all at the same step, which JAX's preemption service finds.
    """
    stop = asked()
    if jax.process_count() == 1:
        return stop
    return multihost_utils.reached_preemption_sync_point(step)


@contextmanager
def all_or_none():
    """End this process at once, with exit code 1, if what is inside fails and there are other processes.

    They wait for this one in a collective operation; unwinding would wait for them, until JAX aborts both.
    """
    try:
        yield
    except Exception as error:
        if jax.process_count() == 1:
            raise
        print(f"process {jax.process_index()}: {_what_happened(error)}", file=sys.stderr)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(1)


def _what_happened(error: Exception) -> str:
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, (jax.errors.JaxRuntimeError, ValueError)) and any(
        sign in str(error) for sign in ("gloo", "Gloo", "NCCL", "heartbeat", "onnection")
    ):
        return "another process of this training has ended: start all of them again, they go on together"
    return "".join(traceback.format_exception(error))
