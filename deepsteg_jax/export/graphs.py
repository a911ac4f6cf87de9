"""Pure functions of 8-bit frames that schemes export, each for one group length and one frame size.

Hide and reveal of picture models have two forms:

    keyed   The key (8 words) and the number of the first frame go in; ChaCha20, permutation and model are
            inside. StableHLO only: the converters of the other formats lack unsigned shifts or sorts.
    tabled  A table of where each sample goes stands for the cipher, see `sample_tables`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from deepsteg_jax import models, steganography
from deepsteg_jax.errors import UserError
from deepsteg_jax.models import symbols as symbol_model
from deepsteg_jax.models.base import Integers

Shape = tuple[int, int, int]
"""(t, h, w) of a group of frames."""

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Graph:
    """A function to export."""

    name: str
    raw: Callable[..., tuple]  # of arrays in the order of `inputs`; returns float32, not rounded
    inputs: dict[str, jax.ShapeDtypeStruct]
    outputs: dict[str, type]  # their types in a file
    integers: Integers | None = None  # of int8 files

    @cached_property
    def function(self) -> Callable[..., tuple]:
        """`raw` with outputs in their types, rounded."""

        def typed(*inputs):
            outputs = zip(self.raw(*inputs), self.outputs.values(), strict=True)
            return tuple((jnp.round(x) if kind == np.uint8 else x).astype(kind) for x, kind in outputs)

        return typed

    @cached_property
    def compiled(self) -> Callable[..., tuple]:
        """`function`, compiled by JAX."""
        return jax.jit(self.function)

    def pick(self, arrays: Arrays) -> Arrays:
        """Return the graph's inputs from whatever holds them by name."""
        return {name: arrays[name] for name in self.inputs}

    def __call__(self, arrays: Arrays) -> list[np.ndarray]:
        """Run in JAX on inputs that `pick` finds."""
        return [np.asarray(x) for x in self.compiled(*self.pick(arrays).values())]


def _frames(shape: Shape) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((*shape, 3), np.uint8)


def _pictures(frames):
    """uint8 [t, h, w, 3] -> a batch of one group, as models take it."""
    x = frames.astype(jnp.float32) / 255
    return x if len(frames) == 1 else x[None]


def _levels(x):
    """Inverse of `_pictures`, 0 to 255, not rounded."""
    return jnp.clip(x.reshape(-1, *x.shape[-3:]), 0, 1) * 255


# --- picture models ------------------------------------------------------------------------------


def keyed_graphs(config: ConfigDict, params: dict, shape: Shape) -> list[Graph]:
    """Return hide and reveal with the cipher inside.

    Args:
        config: the whole config.
        params: of both sides, {"hide": ..., "reveal": ...}.
        shape: (t, h, w), t at most `config.model.frames`.

    Returns:
        hide(key, first_frame, cover, secret) -> (stego,) and reveal(key, first_frame, stego) -> (revealed,);
        key uint32 [8], first_frame int32 (number of the group's first frame in its video), frames uint8
        [t, h, w, 3].
    """
    model, shuffle, frames = models.build(config.model), config.shuffle, _frames(shape)
    steganography.transform(shuffle)

    def hide(key, first_frame, cover, secret):
        keyed = params["hide"], key[None], jnp.reshape(first_frame, 1)
        return (_levels(steganography.hide(model, shuffle, *keyed, _pictures(cover), _pictures(secret))),)

    def reveal(key, first_frame, stego):
        keyed = params["reveal"], key[None], jnp.reshape(first_frame, 1)
        return (_levels(steganography.reveal(model, shuffle, *keyed, _pictures(stego))),)

    keyed = {"key": jax.ShapeDtypeStruct((8,), np.uint32), "first_frame": jax.ShapeDtypeStruct((), np.int32)}
    return [
        Graph("hide", hide, {**keyed, "cover": frames, "secret": frames}, {"stego": np.uint8}),
        Graph("reveal", reveal, {**keyed, "stego": frames}, {"revealed": np.uint8}),
    ]


def tabled_graphs(config: ConfigDict, params: dict, shape: Shape) -> list[Graph]:
    """Return hide and reveal with `sample_tables` for the cipher; arguments as for `keyed_graphs`.

    Returns:
        Where the key moves the cover, hide(cover, secret, encipher, decipher) and reveal(stego, encipher);
        where it moves the secret, hide(cover, secret, encipher) and reveal(stego, decipher); where it moves
        nothing, neither takes a table.

    Raises:
        UserError: the converters lack what the model does, or the cipher moves coefficients of the secret.
    """
    if config.model.name == "block_dct":
        raise UserError(
            "tflite and onnx do not know all that the entropy coder of block_dct does: export to stablehlo"
        )
    model, moves, frames = models.build(config.model), config.shuffle.moves, _frames(shape)
    steganography.transform(config.shuffle)
    if not _moves_samples(config.shuffle):
        raise UserError(
            "the cipher 'coefficients' of a secret moves no samples, so tflite and onnx cannot take it as a "
            "table: export to stablehlo, or set config.shuffle"
        )
    table = jax.ShapeDtypeStruct((shape[0], shape[1] * shape[2] * 3), np.int32)

    def hide(cover, secret, encipher=None, decipher=None):
        cover, secret = _pictures(cover), _pictures(secret)
        if moves == "cover":
            cover = apply_table(cover, encipher)
        elif moves == "secret":
            secret = apply_table(secret, encipher)
        stego = model.hide(params["hide"], cover, secret)
        return (_levels(apply_table(stego, decipher) if moves == "cover" else stego),)

    def reveal(stego, cipher=None):
        stego = apply_table(_pictures(stego), cipher) if moves == "cover" else _pictures(stego)
        revealed = model.reveal(params["reveal"], stego)
        return (_levels(apply_table(revealed, cipher) if moves == "secret" else revealed),)

    of_hide = {"cover": ("encipher", "decipher"), "secret": ("encipher",)}.get(moves, ())
    of_reveal = {"cover": ("encipher",), "secret": ("decipher",)}.get(moves, ())
    pair, whole = {"cover": frames, "secret": frames}, model.integers
    into, outof = (dict.fromkeys(names, table) for names in (of_hide, of_reveal))
    return [
        Graph("hide", hide, pair | into, {"stego": np.uint8}, whole),
        Graph("reveal", reveal, {"stego": frames} | outof, {"revealed": np.uint8}, whole),
    ]


# --- the cipher as a table -----------------------------------------------------------------------


def _moves_samples(shuffle: ConfigDict) -> bool:
    return (shuffle.moves, shuffle.cipher) != ("secret", "coefficients")


def sample_tables(shuffle: ConfigDict, key: np.ndarray, first_frame: int, shape: Shape) -> Arrays:
    """Return where the cipher and its inverse take each sample from, and whether it is turned over.

    Args:
        shuffle: section of the config.
        key: uint32 [8].
        first_frame: number of the group's first frame in its video.
        shape: (t, h, w) of the group.

    Returns:
        "encipher" and "decipher", int32 [t, h * w * 3] each: place p of the same frame as p, turned over
        (x -> 1 - x) as -1 - p. Nothing where the cipher moves no samples.
    """
    if not _moves_samples(shuffle):
        return {}
    t, h, w = shape
    ramp = np.broadcast_to(np.arange(1, h * w * 3 + 1, dtype=np.int32).reshape(h, w, 3), (t, h, w, 3))
    ways = steganography.transform(shuffle)
    moved = {
        name: jax.jit(getattr(ways, name))(ramp, np.asarray(key, np.uint32), np.int32(first_frame))
        for name in ("encipher", "decipher")
    }
    return {name: np.asarray(x).reshape(t, -1) - 1 for name, x in moved.items()}  # 1 - (p + 1) - 1 is -1 - p


def apply_table(frames: jax.Array, table: jax.Array) -> jax.Array:
    """Move and turn over samples of t frames [..., h, w, 3] in [0, 1]; table int32 [t, h * w * 3]."""
    turned = table < 0
    starts = np.arange(len(table), dtype=np.int32)[:, None] * table.shape[1]
    samples = frames.ravel()[jnp.where(turned, -1 - table, table) + starts]
    return jnp.where(turned, 1 - samples, samples).reshape(frames.shape)


# --- symbols -------------------------------------------------------------------------------------


def symbol_graphs(config: ConfigDict, params: dict, shape: Shape) -> list[Graph]:
    """Return the network of the model of symbols: what follows it is a code, no arithmetic on arrays.

    Args:
        config: the whole config.
        params: of the reveal side.
        shape: (t, h, w) of consecutive frames.

    Returns:
        demodulate(planes, spacing) -> (phase, scale, lost), float32 [t, h//16, w//16, k] each; planes y
        [t, h, w], cb and cr [t, h/2, w/2], or luma alone, float32, 0 to 255; spacing float32.
    """
    t, h, w = shape
    sizes = {"y": (h, w), "cb": (-(-h // 2), -(-w // 2)), "cr": (-(-h // 2), -(-w // 2))}
    sizes = sizes if config.model.chroma else {"luma": (h, w)}

    def demodulate(*inputs):
        *planes, spacing = inputs
        planes = tuple(plane[None] for plane in planes)
        read = symbol_model.demodulate(config.model, params, planes, jnp.reshape(spacing, 1))
        return tuple(x[0] for x in read)

    inputs = {name: jax.ShapeDtypeStruct((t, *size), np.float32) for name, size in sizes.items()}
    inputs["spacing"] = jax.ShapeDtypeStruct((), np.float32)
    outputs = dict.fromkeys(("phase", "scale", "lost"), np.float32)
    return [Graph("demodulate", demodulate, inputs, outputs)]
