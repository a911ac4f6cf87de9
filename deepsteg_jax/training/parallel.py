"""Running a step on all local devices; the only file that knows pmap.

The state is replicated by `in_axes=None, out_axes=None`, so it looks the same inside and outside and needs
no replicate or unreplicate; only the batch is split. A move to `jit` with shardings changes this file.
"""

from collections.abc import Callable
from functools import partial

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from deepsteg_jax.errors import UserError

AXIS = "devices"


def split_batch(batch: dict, devices: int) -> dict:
    """[b, ...] -> [devices, b / devices, ...] for every array of the batch."""
    return {name: x.reshape(devices, -1, *x.shape[1:]) for name, x in batch.items()}


def parallelise(step: Callable, batch_size: int) -> Callable:
    """Maps `step(state, batch) -> (state, logs)` over the local devices.

    Args:
        step: built with `axis_name=AXIS`, averaging over it what it returns.
        batch_size: the global batch, b.

    Returns:
        step(state, batch) with `batch` arrays [b, ...] on the host. The old state's buffers are donated.

    Raises:
        UserError: the devices do not divide the batch.
    """
    devices = jax.local_device_count()
    if batch_size % devices:
        raise UserError(
            f"{devices} devices do not divide config.train.batch_size={batch_size}: use a multiple"
        )
    mapped = partial(jax.pmap, axis_name=AXIS, in_axes=(None, 0), out_axes=None, donate_argnums=0)(step)
    # Where `mapped` leaves the state; one that lies elsewhere would make the second call compile again.
    replicated = NamedSharding(Mesh(jax.local_devices(), AXIS), PartitionSpec())

    def run(state, batch):
        return mapped(jax.device_put(state, replicated), split_batch(batch, devices))

    return run
