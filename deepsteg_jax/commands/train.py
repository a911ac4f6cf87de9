"""`--mode train`: train into --workdir, going on where it stopped."""

import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from ml_collections import ConfigDict

from deepsteg_jax.cli import announce, fail
from deepsteg_jax.commands import Options, make_workdir
from deepsteg_jax.errors import UserError

# Excludes operations that add up in any order, and autotuning, which picks kernels by the clock.
GPU_DETERMINISM = "--xla_gpu_deterministic_ops=true"
INTERRUPTED = 128 + signal.SIGINT  # exit code


def run(config: ConfigDict, options: Options) -> None:
    """Train the config's model; see `training.loop.train`.

    SIGTERM, which clusters send before they take a machine away, ends the training after the running step:
    the state is saved and the exit code is 0. The same command goes on from there. With several processes a
    SIGTERM to one of them ends all at the same step. Ctrl-C does the same, with exit code 130; one before the
    first step, and a second one, end the process at once.

    Raises:
        UserError: the config has nothing to train.
    """
    if "optimizer" not in config:
        raise UserError(f"nothing of {config.model.name} is trained: use another config")
    workdir = make_workdir(options)
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())  # JAX takes it over in several processes
    if config.deterministic:
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {GPU_DETERMINISM}".strip()

    from deepsteg_jax.loading import use_compilation_cache
    from deepsteg_jax.training import parallel

    use_compilation_cache()
    parallel.initialize(options.coordinator, options.num_processes, options.process_id)

    from deepsteg_jax.training.loop import train

    begun = threading.Event()
    with _watching_for_ctrl_c(begun) as interrupted:
        step = int(train(config, workdir, lambda: begun.set() or stop.is_set()).step)
    if not parallel.process_index():
        steps = config.optimizer.num_steps
        if step < steps:
            print(f"stopped and saved at step {step} of {steps}; the same command goes on")
        else:
            print(f"trained to step {step}; use it with --config.checkpoint={workdir}")
    if interrupted.is_set():
        sys.exit(INTERRUPTED)


@contextmanager
def _watching_for_ctrl_c(begun: threading.Event) -> Iterator[threading.Event]:
    """Have the first Ctrl-C act as SIGTERM does, and the second end this process; yields whether one came.

    Until there is something to save, when `begun` is set, the first one ends the process.

    A thread listens, since handlers in Python wait until a running step or compilation returns.
    """
    interrupted, (reader, writer) = threading.Event(), socket.socketpair()

    def listen() -> None:
        while numbers := reader.recv(1):
            if numbers[0] != signal.SIGINT:
                continue
            if interrupted.is_set():
                os._exit(INTERRUPTED)  # half a save is not taken for a checkpoint
            if not begun.is_set():
                os._exit(fail("main.py", "interrupted before the first step", INTERRUPTED))
            interrupted.set()
            announce("Ctrl-C: saves after the running step and ends; a second one ends at once")
            signal.raise_signal(signal.SIGTERM)

    writer.setblocking(False)
    before = signal.signal(signal.SIGINT, lambda *_: None)
    signal.set_wakeup_fd(writer.fileno())
    threading.Thread(target=listen, daemon=True).start()
    try:
        yield interrupted
    finally:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGINT, before)
        writer.close()
