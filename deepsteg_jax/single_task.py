"""Loops of many short steps in a compiled graph: on CPUs XLA takes longer to start a step than to do it."""

from collections.abc import Callable
from typing import Any

import jax
from jax import lax
from jax.experimental.xla_metadata import set_xla_metadata


def single_task(function: Callable) -> Callable:
    """Return the function, on CPUs as one task of its compiled graph, with its loops inside.

    Otherwise each operation of each step is a task, some microseconds each. A single task runs on one core.

    Args:
        function: of arrays, all of which it uses, to arrays. Only loops: XLA cannot cut operations on large
            arrays into parts for several cores in there, and fails to compile; nor does it know scatters.
    """
    compiled = jax.jit(function)

    def on_cpu(*arrays: Any) -> Any:
        leaves, tree = jax.tree.flatten(compiled(*arrays))
        marked = set_xla_metadata(leaves[0], inlineable="false", xla_cpu_small_call="true")  # marks the call
        return jax.tree.unflatten(tree, [marked, *leaves[1:]])

    return lambda *arrays: lax.platform_dependent(*arrays, cpu=on_cpu, default=compiled)
