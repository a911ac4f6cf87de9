"""A trace of some steps, by JAX's profiler, which TensorBoard (with the package xprof) and Perfetto show."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax

SKIPPED = 2  # the first step of a start compiles, the second waits for it

Trace = Callable[[int, Any], None]


@contextmanager
def open_trace(folder: Path, first: int, count: int, say: Callable[[str], None]) -> Iterator[Trace]:
    """Trace `count` steps of a training that begins after step `first`, from its third step on.

    Args:
        folder: of TensorBoard's logs; the trace goes to plugins/profile/ in it.
        first: the last step that was done before.
        count: of steps; 0: nothing is traced.
        say: called with a line once the trace is written.

    Yields:
        trace(step, results): to be called before each step with what the step before returned.
    """
    begin, running = first + 1 + SKIPPED, False

    def trace(step: int, results: Any) -> None:
        nonlocal running
        if running and step == begin + count:
            jax.block_until_ready(results)
            end()
        elif count and step == begin:
            jax.block_until_ready(results)
            jax.profiler.start_trace(str(folder))
            running = True

    def end() -> None:
        nonlocal running
        jax.profiler.stop_trace()
        running = False
        say(f"profile: steps from {begin:,} on are in {folder}/plugins/profile")

    try:
        yield trace
    finally:
        if running:
            end()
