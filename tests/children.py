"""Processes that need not import anything: forks of one that has, such as trainings by main.py."""

import multiprocessing
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

CONTEXT = multiprocessing.get_context("forkserver")
# For all tests that start such processes, since a session has one server.
CONTEXT.set_forkserver_preload(
    ["main", "deepsteg_jax.loading", "deepsteg_jax.training.loop", "tests.toy", "tests.test_faults"]
)


class Training:
    """A process that runs `main.py --mode=train` with more flags, and ends by itself or by a signal.

    Args:
        workdir: a folder; what the process prints goes to files beside it.
        flags: such as `--config=configs/video.py`; the model `toy` is known.
        environment: variables to be set.
        pause_s: how long it sleeps after each step, so that a signal finds it training.
    """

    _number = 0

    def __init__(self, workdir: Path, *flags: str, environment: dict[str, str] | None = None, pause_s=0.0):
        Training._number += 1
        self._files = [workdir.with_name(f"{workdir.name}-{self._number}.{x}") for x in ("out", "err")]
        flags = ["main.py", "--mode=train", f"--workdir={workdir}", *flags]
        arguments = (flags, environment or {}, self._files, pause_s)
        self._process = CONTEXT.Process(target=_train, args=arguments)
        self._process.start()

    @property
    def code(self) -> int | None:
        """Exit code, minus the signal that ended it, None while it runs."""
        return self._process.exitcode

    @property
    def printed(self) -> str:
        return self._files[0].read_text()

    @property
    def errors(self) -> str:
        return self._files[1].read_text()

    def send(self, number: int) -> None:
        os.kill(self._process.pid, number)

    def finish(self) -> "Training":
        self._process.join()
        return self


def start_on_devices(count: int, function: Callable, *arguments: Any) -> multiprocessing.Process:
    """Start a process that calls `function(*arguments)` with so many simulated devices."""
    process = CONTEXT.Process(target=_call_on_devices, args=(count, function, arguments))
    process.start()
    return process


def _call_on_devices(count: int, function: Callable, arguments: tuple) -> None:
    os.environ["XLA_FLAGS"] += f" --xla_force_host_platform_device_count={count}"
    import jax

    jax.config.update("jax_platforms", "cpu")
    assert jax.local_device_count() == count
    function(*arguments)


def _train(flags: list[str], environment: dict[str, str], files: list[Path], pause_s: float) -> None:
    for descriptor, path in enumerate(files, 1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), descriptor)
    os.environ.update(environment)
    sys.argv = flags  # config_flags looks there too

    import jax

    import main
    from deepsteg_jax import models
    from deepsteg_jax.training import parallel
    from tests.toy import build_toy

    jax.config.update("jax_platforms", "cpu")
    models.MODELS["toy"] = build_toy
    agree_to_stop = parallel.agree_to_stop

    def agree_slowly(*arguments, **named):
        time.sleep(pause_s)
        return agree_to_stop(*arguments, **named)

    parallel.agree_to_stop = agree_slowly
    sys.exit(main.main(flags))
