"""Many jobs in processes of their own, on this machine or on a cluster; the only file that knows Dask."""

import asyncio
import logging
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

from deepsteg_jax import memory
from deepsteg_jax.errors import UserError

ATTEMPTS = 2  # of a job whose worker is lost, among others and then once more alone
_RESTART_S = 30  # for a worker, at most


class Outcome(NamedTuple):
    """The end of a job."""

    number: int  # of the job, from 0
    result: Any = None
    error: Exception | None = None


class LostError(Exception):
    """Every worker that took a job was lost, so that the job is to blame."""


def run(
    function: Callable[[Any], Any],
    jobs: Sequence[Any],
    workers: int = 0,
    scheduler: str | None = None,
    announce: Callable[[str], Any] = lambda line: None,
) -> Iterator[Outcome]:
    """Yield the outcome of `function(job)` for each job, as they end.

    A job that fails, or whose worker is lost, does not stop the others. One whose worker was lost twice is
    run alone at the end: who shared a worker, or memory, with the culprit then succeeds.

    Args:
        function: importable where the workers are; its results and those of `jobs` are pickled, and pass the
            scheduler.
        jobs: given to `function`, one at a time for each worker.
        workers: processes on this machine that share its cores; 0: this process does it all.
        scheduler: address of a Dask scheduler, tls://HOST:PORT, in place of processes on this machine.
        announce: called with a line for the user.

    Raises:
        UserError: Dask is missing, or the scheduler cannot be reached or went away.
    """
    if not jobs:
        return
    if not workers and scheduler is None:
        yield from (_outcome(number, function, job) for number, job in enumerate(jobs))
        return
    if scheduler and not scheduler.startswith("tls://"):
        announce(
            f"{scheduler} is not encrypted: whoever reaches it can run programs there; better use tls://"
        )
    with _client(min(workers, len(jobs)), scheduler) as client:
        if not client.nthreads():
            announce("no worker has joined the scheduler yet: waiting for one")
        suspects = []
        for outcome in _completed(client, function, dict(enumerate(jobs))):
            if isinstance(outcome.error, LostError):
                suspects.append(outcome.number)
            else:
                yield outcome
        for number in suspects:
            yield from _completed(client, function, {number: jobs[number]})


def _outcome(number: int, function: Callable[[Any], Any], job: Any) -> Outcome:
    try:
        return Outcome(number, function(job))
    except Exception as error:
        return Outcome(number, error=error)


def _completed(client: Any, function: Callable[[Any], Any], jobs: dict[int, Any]) -> Iterator[Outcome]:
    """Yield outcomes as workers return them."""
    from distributed import KilledWorker, as_completed

    futures = client.map(function, list(jobs.values()), pure=False, batch_size=None)
    numbers = dict(zip((future.key for future in futures), jobs, strict=True))
    ended = as_completed(futures)
    del futures  # so that each result is forgotten once it is here
    for future in ended:
        if future.cancelled():
            raise UserError("the scheduler went away: start again, finished files stay")
        error = future.exception()
        if isinstance(error, KilledWorker):
            error = LostError("the worker process ended each time, killed or out of memory")
        yield Outcome(numbers[future.key], None if error else future.result(), error)


def fitting(peak_bytes: int) -> int:
    """Return the number of processes of this peak memory that suit this machine, at least one.

    Raises:
        UserError: Dask is missing.
    """
    _dask()
    from dask.system import CPU_COUNT  # limits of containers included

    free = memory.available()
    return CPU_COUNT if free is None else max(1, min(CPU_COUNT, free // peak_bytes))


def _dask() -> Any:
    try:
        import distributed
    except ModuleNotFoundError:
        raise UserError('several processes need Dask: run pip install ".[cluster]"') from None
    logging.getLogger("distributed").setLevel(logging.CRITICAL)  # a lost worker is an outcome here
    return distributed


@contextmanager
def _client(workers: int, scheduler: str | None) -> Iterator[Any]:
    """Connect to a scheduler, or start one with its workers; end what was started."""
    distributed = _dask()
    if scheduler is not None:
        with _connect(distributed, scheduler) as client:
            yield client
        return
    import dask

    class Uninterrupted(distributed.WorkerPlugin):
        """Leaves Ctrl-C to the main process, which ends the workers."""

        def setup(self, worker: Any) -> None:
            signal.signal(signal.SIGINT, lambda number, frame: None)  # not SIG_IGN, which children inherit

    settings = {
        "distributed.scheduler.worker-saturation": 1.0,  # no job waits behind another
        "distributed.scheduler.http.routes": [],  # pages for everybody on this machine
        "distributed.worker.http.routes": [],
    }
    with (
        dask.config.set(settings),
        distributed.LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            security=True,  # temporary keys: else other users of this machine could run programs through it
            memory_limit=None,  # above which Dask would kill a worker
            silence_logs=logging.CRITICAL,
            scheduler_kwargs={
                "allowed_failures": ATTEMPTS - 1,
                "dashboard": False,
                "dashboard_address": "127.0.0.1:0",
            },
            env=_environment(workers),
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        client.register_plugin(Uninterrupted())
        yield client
        with suppress(TimeoutError):  # one that starts anew, after it was killed, cannot be ended yet
            client.wait_for_workers(workers, timeout=_RESTART_S)


def _connect(distributed: Any, scheduler: str) -> Any:
    """Connect to a scheduler; Dask's configuration names the files of TLS."""

    async def reach() -> None:  # a `Client` that cannot connect would complain until the process ends
        arguments = distributed.Security().get_connection_args("client")
        await (await distributed.comm.connect(scheduler, **arguments)).close()

    try:
        asyncio.run(reach())
    except TypeError:
        raise UserError(f"{scheduler} needs the files of TLS, see docs/LISTS.md") from None
    except (OSError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"cannot reach the scheduler {scheduler}: {reason}") from None
    return distributed.Client(scheduler)


def _environment(workers: int) -> dict[str, str]:
    """Return what gives each of several processes its share of the cores, and of a GPU what it uses."""
    from dask.system import CPU_COUNT

    threads = str(max(1, CPU_COUNT // workers))
    names = ("NPROC", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")  # NPROC: XLA's
    return dict.fromkeys(names, threads) | {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
