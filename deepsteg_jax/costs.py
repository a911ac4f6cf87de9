"""Count the cost of a model: arithmetic, memory between the passes, parameters. Nothing is run."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core

from deepsteg_jax.models import Model


def flops(function: Callable, *args) -> float:
    """Count the floating-point operations of a function compiled here; arguments are arrays or shapes.

    XLA's cost analysis counts the body of a loop once; here it counts as often as it runs.
    """
    return _flops(function, {}, *args)


def _flops(function: Callable, known: dict[str, float], *args) -> float:
    """Count as `flops`; `known` keeps loop bodies by their text: many are alike and slow to compile."""
    total = jax.jit(function).lower(*args).compile().cost_analysis().get("flops", 0.0)
    for body, trips in _loops(jax.make_jaxpr(function)(*args).jaxpr):
        text = str(body.jaxpr)
        if text not in known:
            shapes = [jax.ShapeDtypeStruct(v.shape, v.dtype) for v in body.in_avals]
            known[text] = _flops(core.jaxpr_as_fun(body), known, *shapes)
        total += (trips - 1) * known[text]
    return total


def _loops(jaxpr: core.Jaxpr) -> Iterator[tuple[core.ClosedJaxpr, int]]:
    """Yield (body, trips) of the outermost loops of a jaxpr, at whatever depth they are wrapped."""
    for equation in jaxpr.eqns:
        if equation.primitive.name == "scan":
            yield equation.params["jaxpr"], equation.params["length"]
            continue
        for value in equation.params.values():
            inner = value.jaxpr if isinstance(value, core.ClosedJaxpr) else value
            if isinstance(inner, core.Jaxpr):
                yield from _loops(inner)


def tree_bytes(tree: Any) -> int:
    """Count the bytes of all arrays (or shapes) of a pytree."""
    return sum(math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(tree))


def kept_activations(function: Callable, params: Any, *args) -> int:
    """Count the bytes that reverse-mode differentiation keeps between forward and backward pass.

    They are what JAX hands from one to the other, every array once and the parameters themselves left out,
    whatever the backend. XLA may merge or compute again some of it, so it is an estimate; its CPU backend
    undoes rematerialisation, so the memory of a program compiled for a CPU does not show what remat saves.

    Args:
        function: (params, *args) -> scalar.
        params: to differentiate by, arrays or shapes.
        args: arrays or shapes.
    """

    def kept(params, *args):
        _, pullback = jax.vjp(lambda p: function(p, *args), params)
        arrays = {id(x): x for x in jax.tree.leaves(pullback)}
        for x in jax.tree.leaves(params):
            arrays.pop(id(x), None)
        return list(arrays.values())

    return tree_bytes(jax.eval_shape(kept, params, *args))


def gmac_per_frame(
    model: Model, frames: int, height: int, width: int, secret: tuple[int, ...] | None = None
) -> dict[str, float]:
    """Count 1e9 multiply-adds (two flops each) per frame of the bare model, {"hide": ..., "reveal": ...}.

    The whole graph counts, decisions and elementwise work included. `secret`: shape of the secret where it is
    no video like the cover; the cover is [1, frames, height, width, 3] then.
    """
    params = jax.eval_shape(model.init, jax.random.key(0))
    shape = (1, height, width, 3) if frames == 1 and not secret else (1, frames, height, width, 3)
    video = jax.ShapeDtypeStruct(shape, jnp.float32)
    hidden = jax.ShapeDtypeStruct(secret or shape, jnp.float32)
    scale = 2e9 * frames
    return {
        "hide": flops(model.hide, params["hide"], video, hidden) / scale,
        "reveal": flops(model.reveal, params["reveal"], video) / scale,
    }


def parameter_counts(model: Model) -> dict[str, int]:
    """Count the parameters of each side."""
    params = jax.eval_shape(model.init, jax.random.key(0))
    return {side: sum(math.prod(x.shape) for x in jax.tree.leaves(tree)) for side, tree in params.items()}
