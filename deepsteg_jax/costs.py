"""What a model costs: counted in its program, and on paper on accelerators (docs/SCALING.md)."""

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend import core

from deepsteg_jax.models import Model

# --- counted in the program ----------------------------------------------------------------------


class Work(NamedTuple):
    """What XLA's cost analysis counts in a compiled function, loops as often as they run."""

    flops: float
    bytes: float  # read and written by all instructions after fusion
    transcendentals: float  # exponentials, logarithms, ...; not among the flops

    def plus(self, other: "Work", times: float = 1) -> "Work":
        """self + times * other."""
        return Work(*(a + times * b for a, b in zip(self, other, strict=True)))


def _compiled_work(function: Callable, *args) -> Work:
    found = jax.jit(function).lower(*args).compile().cost_analysis()
    return Work(*(found.get(name, 0.0) for name in ("flops", "bytes accessed", "transcendentals")))


def _inner_jaxprs(equation) -> Iterator[core.Jaxpr]:
    for value in equation.params.values():
        inner = value.jaxpr if isinstance(value, core.ClosedJaxpr) else value
        if isinstance(inner, core.Jaxpr):
            yield inner


def _loops(jaxpr: core.Jaxpr):
    """Yields (body, trips) of the outermost loops of a jaxpr, however deep they are wrapped."""
    for equation in jaxpr.eqns:
        if equation.primitive.name == "scan":
            yield equation.params["jaxpr"], equation.params["length"]
            continue
        for inner in _inner_jaxprs(equation):
            yield from _loops(inner)


def _shapes(avals) -> list[jax.ShapeDtypeStruct]:
    return [jax.ShapeDtypeStruct(v.shape, v.dtype) for v in avals]


def work(function: Callable, *args) -> Work:
    """The work of a function as compiled for this machine, arguments as arrays or shapes; nothing is run.

    XLA's cost analysis counts the body of a loop once; here it counts as often as it runs. Flops hardly
    depend on the backend; bytes do, since backends fuse differently.
    """
    return _work(function, {}, *args)


def _work(function: Callable, known: dict[str, Work], *args) -> Work:
    """`work`; `known` holds that of loop bodies by their text, since many are alike and slow to compile."""
    total = _compiled_work(function, *args)
    for body, trips in _loops(jax.make_jaxpr(function)(*args).jaxpr):
        text = str(body.jaxpr)
        if text not in known:
            known[text] = _work(core.jaxpr_as_fun(body), known, *_shapes(body.in_avals))
        total = total.plus(known[text], trips - 1)
    return total


def flops(function: Callable, *args) -> float:
    """Floating-point operations of a compiled function, arguments as arrays or shapes."""
    return work(function, *args).flops


def bytes_moved(function: Callable, *args) -> float:
    """Bytes that the instructions of a compiled function read and write, as `work` counts them."""
    return work(function, *args).bytes


def loop_rounds(function: Callable, *args) -> int:
    """How many loop bodies run one after the other, those of nested loops included.

    On a GPU each is at least one kernel, however little there is to do in it.
    """

    def rounds(jaxpr):
        return sum(trips * (1 + rounds(body.jaxpr)) for body, trips in _loops(jaxpr))

    return rounds(jax.make_jaxpr(function)(*args).jaxpr)


def tree_bytes(tree: Any) -> int:
    """Bytes of all arrays (or shapes) of a pytree."""
    return sum(math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(tree))


def kept_activations(function: Callable, params: Any, *args) -> int:
    """Bytes that reverse-mode differentiation keeps between the forward and the backward pass.

    They are what JAX hands from one to the other, every array once and the parameters themselves left out,
    whatever the backend. XLA may merge or compute again some of it, so it is an estimate; its CPU backend
    undoes rematerialisation, so the memory of a program compiled for a CPU does not show what remat saves.

    Args:
        function: (params, *args) -> scalar.
        params: what is differentiated, arrays or shapes.
        args: arrays or shapes.
    """

    def kept(params, *args):
        _, pullback = jax.vjp(lambda p: function(p, *args), params)
        arrays = {id(x): x for x in jax.tree.leaves(pullback)}
        for x in jax.tree.leaves(params):
            arrays.pop(id(x), None)
        return list(arrays.values())

    return tree_bytes(jax.eval_shape(kept, params, *args))


def temporary_bytes(function: Callable, *args) -> int:
    """Bytes that the function as compiled for this machine needs besides its arguments and results.

    Without rematerialisation, which a CPU's compiler undoes, it is the peak of what is kept and of what lives
    only for a moment.
    """
    return jax.jit(function).lower(*args).compile().memory_analysis().temp_size_in_bytes


def _rematerialised(jaxpr: core.Jaxpr) -> Iterator[core.Jaxpr]:
    for equation in jaxpr.eqns:
        if equation.primitive.name in ("checkpoint", "remat", "remat2"):
            yield equation.params["jaxpr"]
            continue
        for inner in _inner_jaxprs(equation):
            yield from _rematerialised(inner)


def computed_again(function: Callable, *args) -> int:
    """Bytes that the largest rematerialised part holds while the backward pass goes through it.

    They come on top of `kept_activations`, one part at a time; 0 without rematerialisation.
    """

    def held(jaxpr):
        part = core.jaxpr_as_fun(core.ClosedJaxpr(jaxpr, ()))
        inputs = _shapes(v.aval for v in jaxpr.invars)

        def kept(*inputs):
            floats = [x for x in inputs if jnp.issubdtype(x.dtype, jnp.floating)]

            def of_floats(*floats):
                rest = iter(floats)
                is_float = (jnp.issubdtype(x.dtype, jnp.floating) for x in inputs)
                return part(*(next(rest) if f else x for f, x in zip(is_float, inputs, strict=True)))

            arrays = {id(x): x for x in jax.tree.leaves(jax.vjp(of_floats, *floats)[1])}
            for x in inputs:
                arrays.pop(id(x), None)
            return list(arrays.values())

        return tree_bytes(jax.eval_shape(kept, *inputs))

    return max(map(held, _rematerialised(jax.make_jaxpr(function)(*args).jaxpr)), default=0)


def gmac_per_frame(
    model: Model, frames: int, height: int, width: int, secret: tuple[int, ...] | None = None
) -> dict[str, float]:
    """Billions of multiply-adds (two flops each) per frame of the bare model, {"hide": ..., "reveal": ...}.

    Counts the whole graph, decisions and elementwise work included. `secret`: shape of what is hidden where
    that is no video like the cover; the cover is [1, frames, height, width, 3] then.
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
    """Number of parameters of each side."""
    params = jax.eval_shape(model.init, jax.random.key(0))
    return {side: sum(math.prod(x.shape) for x in jax.tree.leaves(tree)) for side, tree in params.items()}


# --- on paper ------------------------------------------------------------------------------------


class Device(NamedTuple):
    """An accelerator on paper: peaks per second, and what is assumed to be reached of them."""

    name: str
    flops: float
    bandwidth: float  # bytes/s of its own memory
    memory: float  # bytes
    per_node: int  # devices in a node
    node_link: float  # bytes/s each way and device, inside a node
    network_link: float  # bytes/s each way and device, between nodes
    flops_efficiency: float = 0.4  # assumed, as the three below
    bandwidth_efficiency: float = 0.6
    launch: float = 5e-6  # seconds from one kernel to the next that waits for it
    hop: float = 5e-6  # seconds of latency of one step of the all-reduce

    def link(self, count: int) -> float:
        """Bytes/s of the slowest link in a ring of `count` devices."""
        return self.node_link if count <= self.per_node else self.network_link


# NVIDIA, "H100 Tensor Core GPU" datasheet, H100 SXM: 67 TFLOP/s float32, 989 TF32 and 1979 bfloat16 with
# sparsity, half of that without; 80 GB at 3.35 TB/s; NVLink 900 GB/s, 450 each way. A node is an HGX or DGX
# H100: 8 GPUs, and a network port of 400 Gb/s for each ("DGX H100" datasheet).
H100_FLOAT32 = Device("H100 SXM, float32", 67e12, 3.35e12, 80e9, 8, 450e9, 50e9)
H100_TF32 = H100_FLOAT32._replace(name="H100 SXM, TF32", flops=494.5e12)
H100_BFLOAT16 = H100_FLOAT32._replace(name="H100 SXM, bfloat16", flops=989.5e12)


class StepCost(NamedTuple):
    """What a training step costs each device."""

    flops: float
    bytes: float
    rounds: float  # kernels that wait for one another, at least
    parameters: int


class StepSeconds(NamedTuple):
    """The parts of a training step on paper; the gradients are averaged after the whole backward pass."""

    compute: float
    all_reduce: float

    @property
    def total(self) -> float:
        """The whole step."""
        return self.compute + self.all_reduce


def all_reduce_seconds(size: float, device: Device, count: int) -> float:
    """Seconds of a ring all-reduce of `size` bytes: 2 (N - 1) steps that move size / N each."""
    if count == 1:
        return 0.0
    return 2 * (count - 1) * (size / count / device.link(count) + device.hop)


def step_seconds(cost: StepCost, device: Device, count: int) -> StepSeconds:
    """Seconds of a step: the slowest of arithmetic, memory and kernel launches, then the all-reduce."""
    compute = max(
        cost.flops / (device.flops_efficiency * device.flops),
        cost.bytes / (device.bandwidth_efficiency * device.bandwidth),
        cost.rounds * device.launch,
    )
    return StepSeconds(compute, all_reduce_seconds(4 * cost.parameters, device, count))


def state_bytes(parameters: int, ema: bool = False) -> int:
    """Bytes of the training state in float32: parameters, two moments of Adam, gradients, and the average."""
    return 4 * parameters * (5 if ema else 4)


def state_traffic(parameters: int) -> int:
    """Bytes that a step must move for the state: parameters and gradients.

    Parameters are read forwards, backwards and by the update, gradients written and read; the update reads
    and writes two moments and writes the parameters.
    """
    return 4 * parameters * (3 + 2 + 4 + 1)


def largest_batch(example: float, fixed: float, memory: float) -> int:
    """How many examples of `example` bytes fit beside `fixed` bytes."""
    return max(0, int((memory - fixed) // example))
