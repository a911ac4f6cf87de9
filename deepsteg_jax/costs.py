"""What a model costs: multiply-adds from the compiled program, and parameters."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.extend import core

from deepsteg_jax.models import Model


def _compiled_flops(function: Callable, *args) -> float:
    return jax.jit(function).lower(*args).compile().cost_analysis().get("flops", 0.0)


def _loops(jaxpr: core.Jaxpr):
    """Yields (body, trips) of the outermost loops of a jaxpr, however deep they are wrapped."""
    for equation in jaxpr.eqns:
        if equation.primitive.name == "scan":
            yield equation.params["jaxpr"], equation.params["length"]
            continue
        for value in equation.params.values():
            inner = value.jaxpr if isinstance(value, core.ClosedJaxpr) else value
            if isinstance(inner, core.Jaxpr):
                yield from _loops(inner)


def flops(function: Callable, *args) -> float:
    """Floating-point operations of a compiled function, arguments as arrays or shapes.

    XLA's cost analysis counts the body of a loop once; here it counts as often as it runs.
    """

    def closed_flops(closed, trips):
        arguments = [jax.ShapeDtypeStruct(v.shape, v.dtype) for v in closed.in_avals]
        return (trips - 1) * flops(core.jaxpr_as_fun(closed), *arguments)

    extra = sum(closed_flops(*loop) for loop in _loops(jax.make_jaxpr(function)(*args).jaxpr))
    return _compiled_flops(function, *args) + extra


def gmac_per_frame(model: Model, frames: int, height: int, width: int) -> dict[str, float]:
    """Billions of multiply-adds (two flops each) per frame of the bare model, {"hide": ..., "reveal": ...}.

    Counts the whole graph, decisions and elementwise work included.
    """
    params = jax.eval_shape(model.init, jax.random.key(0))
    shape = (1, height, width, 3) if frames == 1 else (1, frames, height, width, 3)
    video = jax.ShapeDtypeStruct(shape, jnp.float32)
    scale = 2e9 * frames
    return {
        "hide": flops(model.hide, params["hide"], video, video) / scale,
        "reveal": flops(model.reveal, params["reveal"], video) / scale,
    }


def parameter_counts(model: Model) -> dict[str, int]:
    """Number of parameters of each side."""
    params = jax.eval_shape(model.init, jax.random.key(0))
    return {side: sum(math.prod(x.shape) for x in jax.tree.leaves(tree)) for side, tree in params.items()}
