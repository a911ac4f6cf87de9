"""The interface of a model: pure functions bound to a config."""

import hashlib
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from deepsteg_jax.errors import UserError

Params = dict[str, Any]


def _no_penalty(params: Params, cover: jax.Array, secret: jax.Array) -> jax.Array:
    return jnp.zeros(())


def compute_dtype(config: ConfigDict) -> jnp.dtype:
    """Return the type that a model's networks compute in; parameters, pictures and transforms stay float32.

    Raises:
        UserError: `config.dtype` is neither float32 nor bfloat16.
    """
    name = config.get("dtype", "float32")
    if name not in ("float32", "bfloat16"):
        raise UserError(f"config.model.dtype must be float32 or bfloat16, not {name!r}")
    return jnp.dtype(name)


def rematerialise(module: type[nn.Module], config: ConfigDict, methods: tuple[str, ...] = ("__call__",)):
    """Return the module; with `config.remat` the backward pass computes again all but its inputs.

    Chen et al. 2016, "Training Deep Nets with Sublinear Memory Cost". Values and parameters stay the same.
    """
    return nn.remat(module, methods=list(methods)) if config.get("remat", False) else module


class Revealed(NamedTuple):
    """What was revealed, and how much of it is known to be wrong."""

    pictures: jax.Array
    spoilt: jax.Array
    """[...]: share in [0, 1] of each group's blocks whose code contradicts itself."""


class Digits(NamedTuple):
    """The halves of a model that describes a secret by digits modulo D, wherever they are then written."""

    encode: Callable[[Any, jax.Array, int], jax.Array]
    """encode(params["hide"], secret [t, h, w, 3], count) -> digits [count], -1 where none is needed; `count`
    is a multiple of t."""

    decode: Callable[[Any, jax.Array, tuple[int, ...]], Revealed]
    """decode(params["reveal"], digits [count], (t, h, w, 3)) -> pictures, not clipped, of one group."""


class Integers(NamedTuple):
    """Layers that compute in 8-bit whole numbers."""

    layers: str
    """Regular expression that is found in their names, and in no others."""

    largest: float
    """Activation that the number 255 stands for; 0 stands for 0."""


class Model(NamedTuple):
    """Pure functions over `params = {"hide": ..., "reveal": ...}`, bound to one model config.

    Images are [b, h, w, 3] and video is [b, t, h, w, 3], RGB float32 in [0, 1].
    """

    init: Callable[[jax.Array], Params]
    """init(key) -> params."""

    hide: Callable[[Any, jax.Array, jax.Array], jax.Array]
    """hide(params["hide"], cover, secret) -> stego."""

    reveal: Callable[[Any, jax.Array], jax.Array]
    """reveal(params["reveal"], stego) -> revealed."""

    penalty: Callable[[Params, jax.Array, jax.Array], jax.Array] = _no_penalty
    """penalty(params, cover, secret) -> scalar that training adds to the loss."""

    tie: Callable[[Params], Params] = lambda params: params
    """Copies what hide and reveal share from the hide side; training calls it inside the loss, so that the
    gradients of both sides meet, and after every update."""

    modulus: int = 1
    """The model reads the stego's 8-bit samples modulo this number only if it is more than 1, so side
    information may change a sample by `modulus` unseen."""

    inspect: Callable[[Any, jax.Array], Revealed] | None = None
    """inspect(params["reveal"], stego) -> `Revealed`, of models that notice damage; spoilt is [b]."""

    digits: Digits | None = None
    """Of models that write digits modulo `modulus`, so that several secrets can share a cover."""

    loss: Callable[[Params, dict[str, Any], jax.Array], tuple[jax.Array, dict[str, jax.Array]]] | None = None
    """loss(params, batch, keys) -> (scalar, logs) of a batch, the logs scalars that are means over it; `keys`
    has a random key for each example. A model that has it is trained by it alone."""

    integers: Integers | None = None
    """What an int8 file computes in whole numbers; None where their ranges have to be measured."""

    examples: str = "recordings"
    """The batches of `loss`: recordings (`data.recordings`), or covers and secrets."""


def hides_nothing(*_: Any) -> jax.Array:
    """Stand for hide and reveal of a model that is only trained by its loss; raise NotImplementedError."""
    raise NotImplementedError("this model hides nothing")


def straight_through(x: jax.Array, rounded: jax.Array) -> jax.Array:
    """Return `rounded` with the gradient of `x` (Bengio et al. 2013)."""
    return x + jax.lax.stop_gradient(rounded - x)


def fingerprint(params: Any) -> bytes:
    """Return 8 bytes that differ between any two sets of parameters."""
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(params):
        digest.update(np.asarray(leaf).tobytes())
    return digest.digest()[:8]
