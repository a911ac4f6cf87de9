"""Processes that need not import anything: forks of one that has, such as trainings by main.py."""

import multiprocessing
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

CONTEXT = multiprocessing.get_context("forkserver")
# For all tests that start such processes, since a session has one server.
CONTEXT.set_forkserver_preload(
    ["main", "deepsteg_jax.loading", "deepsteg_jax.training.loop", "tests.toy", "tests.test_faults"]
)


class Main:
    """A process that runs main.py, and ends by itself or by a signal.

    Args:
        stem: a path; what the process prints goes to files that begin like it.
        flags: such as `--config=configs/video.py`; the model `toy` is known.
        environment: variables to be set.
        pause_s: how long it sleeps after each step of a training, so that a signal finds it training.
        pause_from: the first step after which it sleeps.
        dies_in_save: of which step's checkpoint it is killed before that is complete.
    """

    _number = 0

    def __init__(
        self,
        stem: Path,
        *flags: str,
        environment: dict[str, str] | None = None,
        pause_s=0.0,
        pause_from=1,
        dies_in_save: int | None = None,
    ):
        Main._number += 1
        self._files = [stem.with_name(f"{stem.name}-{self._number}.{x}") for x in ("out", "err")]
        arguments = (["main.py", *flags], environment or {}, self._files, pause_s, pause_from, dies_in_save)
        self._process = CONTEXT.Process(target=_run_main, args=arguments)
        self._process.start()

    @property
    def code(self) -> int | None:
        """Exit code, minus the signal that ended it, None while it runs."""
        return self._process.exitcode

    @property
    def printed(self) -> str:
        return self._read(0)

    @property
    def errors(self) -> str:
        return self._read(1)

    def _read(self, which: int) -> str:
        return self._files[which].read_text() if self._files[which].exists() else ""

    def send(self, number: int) -> None:
        os.kill(self._process.pid, number)

    def finish(self) -> "Main":
        self._process.join()
        return self


def start_training(workdir: Path, *flags: str, **how: Any) -> Main:
    """Start `main.py --mode=train`, which prints into files beside the folder."""
    return Main(workdir, "--mode=train", f"--workdir={workdir}", *flags, **how)


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


def _run_main(
    flags: list[str],
    environment: dict[str, str],
    files: list[Path],
    pause_s: float,
    pause_from: int,
    dies_in_save: int | None,
) -> None:
    for descriptor, path in enumerate(files, 1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), descriptor)
    os.environ.update(environment)
    tempfile.tempdir = None  # as TMPDIR says
    sys.argv = flags  # config_flags looks there too

    import jax

    import main
    from deepsteg_jax import models
    from deepsteg_jax.training import parallel
    from tests.toy import build_toy

    jax.config.update("jax_platforms", "cpu")
    models.MODELS["toy"] = build_toy
    agree_to_stop = parallel.agree_to_stop

    def agree_slowly(step, asked):
        time.sleep(pause_s * (step >= pause_from))
        return agree_to_stop(step, asked)

    def die_in_save(event, arguments):
        """A checkpoint gets its name once it is complete."""
        if event == "os.rename" and Path(os.fsdecode(arguments[1])).name == str(dies_in_save):
            os.kill(os.getpid(), signal.SIGKILL)

    parallel.agree_to_stop = agree_slowly
    if dies_in_save is not None:
        sys.addaudithook(die_in_save)
    sys.exit(main.main(flags))
