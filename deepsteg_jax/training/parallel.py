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
from typing import Any

import jax
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from deepsteg_jax.errors import UserError

AXIS = "devices"


def initialize(coordinator: str | None, num_processes: int | None, process_id: int | None) -> None:
    """Joins the other processes of a training; does nothing for a process that is alone.

    Args:
        coordinator: HOST:PORT of process 0; None: from JAX_COORDINATOR_ADDRESS, or from the cluster (Slurm,
            Open MPI, Kubernetes), as JAX detects it, if that started more than one process.
        num_processes: how many processes there are.
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
        raise UserError(f"the processes of this training do not find each other: {reason}") from None


def _cluster_started_several() -> bool:
    """Whether a cluster started this process as one of several; a lone one must not wait for others."""
    if "SLURM_STEP_NODELIST" in os.environ:
        return int(os.environ.get("SLURM_NTASKS", 1)) > 1
    if "KUBERNETES_SERVICE_HOST" in os.environ:
        return "JOB_COMPLETION_INDEX" in os.environ  # an indexed job; JAX needs the package kubernetes
    return int(os.environ.get("OMPI_COMM_WORLD_SIZE", 1)) > 1


def process_index() -> int:
    """Which process this is; only 0 writes logs."""
    return jax.process_index()


def process_count() -> int:
    """How many processes train together."""
    return jax.process_count()


def describe_devices() -> dict[str, Any]:
    """What trains here, for the record."""
    return {
        "device_kind": jax.devices()[0].device_kind,
        "devices": jax.device_count(),
        "processes": jax.process_count(),
    }


def split_batch(batch: dict, devices: int) -> dict:
    """[b, ...] -> [devices, b / devices, ...] for every array of the batch."""
    return {name: x.reshape(devices, -1, *x.shape[1:]) for name, x in batch.items()}


def check_batch(batch_size: int, accumulate_steps: int) -> None:
    """Raises UserError if devices and micro-batches do not divide the global batch."""
    devices = jax.device_count()
    if accumulate_steps < 1 or batch_size % (devices * accumulate_steps):
        parts = f"{devices} devices" + (f" times {accumulate_steps} parts" if accumulate_steps != 1 else "")
        raise UserError(f"{parts} do not divide config.train.batch_size={batch_size}: use a multiple")


def parallelise(step: Callable, donate: bool = True) -> Callable:
    """Maps `step(state, batch)` over all devices.

    Args:
        step: built with `axis_name=AXIS`, averaging or adding over it what it returns.
        donate: whether the memory of the old state may be used for the result.

    Returns:
        step(state, batch) with `batch` arrays [b / processes, ...] on the host, this process's part of the
        global batch; what comes back is the same in every process.
    """
    devices = jax.local_device_count()
    donated = (0,) if donate else ()
    mapped = partial(jax.pmap, axis_name=AXIS, in_axes=(None, 0), out_axes=None, donate_argnums=donated)(step)
    # Where `mapped` leaves the state; one that lies elsewhere would make the second call compile again.
    replicated = NamedSharding(Mesh(jax.local_devices(), AXIS), PartitionSpec())

    def run(state, batch):
        return mapped(jax.device_put(state, replicated), split_batch(batch, devices))

    return run


def as_global(tree: Any) -> Any:
    """Arrays that every process holds, as arrays of all of them, which orbax saves together."""
    if jax.process_count() == 1:
        return tree
    return multihost_utils.host_local_array_to_global_array(tree, Mesh(jax.devices(), AXIS), PartitionSpec())


def do_once(action: Callable[[], None]) -> None:
    """Has process 0 do something to the files that all share; the others wait until it is done."""
    if jax.process_index() == 0:
        action()
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices("do_once")


def agree_to_stop(step: int, asked: Callable[[], bool]) -> bool:
    """Whether to stop after `step`: the same answer in every process.

    A process that is alone stops when `asked()`. With several, the first SIGTERM to any of them stops all at
    the same step, which JAX's preemption service finds.
    """
    if jax.process_count() == 1:
        return asked()
    return multihost_utils.reached_preemption_sync_point(step)


@contextmanager
def all_or_none():
    """Ends this process at once, with exit code 1, if what is inside fails and there are other processes.

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
