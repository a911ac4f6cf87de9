"""Hide and reveal with the keyed cipher, in one compiled graph, for training and use alike.

`shuffle.moves` says what the key moves, the secret (the original system) or the cover:

    secret:  stego = hide(cover, encipher(secret))               revealed = decipher(reveal(stego))
    cover:   stego = decipher(hide(encipher(cover), secret))     revealed = reveal(encipher(stego))

`shuffle.cipher` says how: "blocks" permutes whole blocks (the original system, keyed), "coefficients"
permutes and flips single coefficients or samples, see `cipher`. All scatter the hidden picture over the
stego by a transform that only the key holder knows, another one for every frame. Moving the cover leaves
the secret whole, so a model that uses the secret's neighbourhood in space and time, and looks at the cover
sample by sample, loses nothing.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from einops import rearrange
from jaxtyping import Integer, UInt32
from ml_collections import ConfigDict

from deepsteg_jax import cipher
from deepsteg_jax.errors import UserError
from deepsteg_jax.models import Model
from deepsteg_jax.shapes import Array, Batch, Frames, Index, Key
from deepsteg_jax.shuffle import shuffle_blocks, unshuffle_blocks


class Transform(NamedTuple):
    """A keyed transform of [t, h, w, 3], (frames, key, first_frame) -> frames, and its inverse."""

    encipher: Callable
    decipher: Callable
    smallest: int = 1  # pixels that a frame must have each way


def transform(shuffle: ConfigDict) -> Transform:
    """Return the transform of a config's section `shuffle`: moves, cipher, block_size.

    Raises:
        UserError: one of them has no such value.
    """
    if shuffle.moves not in ("secret", "cover", "nothing"):
        raise UserError(f"config.shuffle.moves must be secret, cover or nothing, not {shuffle.moves!r}")
    if shuffle.block_size < 1:
        raise UserError(f"config.shuffle.block_size must be a number of pixels, not {shuffle.block_size}")
    ciphers = {
        "blocks": Transform(
            *(partial(f, block_size=shuffle.block_size) for f in (shuffle_blocks, unshuffle_blocks)),
            smallest=shuffle.block_size,
        ),
        "coefficients": Transform(cipher.encipher_samples, cipher.decipher_samples)
        if shuffle.moves == "cover"
        else Transform(cipher.encipher_coefficients, cipher.decipher_coefficients, cipher.BLOCK),
    }
    if shuffle.cipher not in ciphers:
        raise UserError(f"config.shuffle.cipher must be {' or '.join(ciphers)}, not {shuffle.cipher!r}")
    return ciphers[shuffle.cipher]


def _each(change, smallest, x, keys, first_frames):
    """Apply one direction of a transform to every example of a batch, [b, h, w, c] or [b, t, h, w, c]."""
    video = x[:, None] if x.ndim == 4 else x
    if min(video.shape[2:4]) < smallest:
        raise UserError(f"frames are smaller than the {smallest} pixels of a block: use larger frames")
    return jax.vmap(change)(video, keys, first_frames).reshape(x.shape)


def hide(
    model: Model,
    shuffle: ConfigDict,
    params: Any,
    keys: UInt32[Array, "b 8"],
    first_frames: Integer[Array, " b"],
    cover: Batch,
    secret: Batch,
) -> Batch:
    """Shuffle and hide a batch.

    Args:
        model: from `models.build`.
        shuffle: config section with `moves`, `cipher` and `block_size`.
        params: the hide parameters.
        keys: one for each example.
        first_frames: number of each example's first frame in its video.
        cover: in [0, 1].
        secret: in [0, 1].

    Returns:
        The stego, not rounded.

    Raises:
        UserError: the section is wrong, or a frame is smaller than a block.
    """
    keyed = transform(shuffle)
    if shuffle.moves == "secret":
        secret = _each(keyed.encipher, keyed.smallest, secret, keys, first_frames)
    elif shuffle.moves == "cover":
        cover = _each(keyed.encipher, keyed.smallest, cover, keys, first_frames)
    stego = model.hide(params, cover, secret)
    if shuffle.moves == "cover":
        stego = _each(keyed.decipher, keyed.smallest, stego, keys, first_frames)
    return stego


def reveal(
    model: Model,
    shuffle: ConfigDict,
    params: Any,
    keys: UInt32[Array, "b 8"],
    first_frames: Integer[Array, " b"],
    stego: Batch,
) -> Batch:
    """Reveal and decipher a batch; arguments as for `hide`, the revealed secret is about [0, 1]."""
    keyed = transform(shuffle)
    if shuffle.moves == "cover":
        stego = _each(keyed.encipher, keyed.smallest, stego, keys, first_frames)
    revealed = model.reveal(params, stego)
    if shuffle.moves == "secret":
        revealed = _each(keyed.decipher, keyed.smallest, revealed, keys, first_frames)
    return revealed


def _to_batch(frames, group):
    """Turn uint8 [n, h, w, 3] into float [n / group, group, h, w, 3], or [n, h, w, 3] for a group of 1."""
    x = jnp.asarray(frames, jnp.float32) / 255
    return x if group == 1 else rearrange(x, "(b t) ... -> b t ...", t=group)


def _to_frames(x):
    """Invert `_to_batch`, rounded to 8 bits."""
    return jnp.round(jnp.clip(x, 0, 1) * 255).astype(jnp.uint8).reshape(-1, *x.shape[-3:])


class Codec:
    """Compiled hide and reveal of 8-bit frames; compiles once for every frame size and group length."""

    def __init__(self, model: Model, shuffle: ConfigDict, frames: int):
        """Compile for groups of `frames` frames, the model's group length t."""
        self.frames = frames

        @partial(jax.jit, static_argnames="group")
        def hide_frames(params, key, first_frame, cover, secret, group):
            cover, secret = _to_batch(cover, group), _to_batch(secret, group)
            keys = jnp.broadcast_to(key, (len(cover), 8))
            first_frames = first_frame + group * jnp.arange(len(cover))
            return _to_frames(hide(model, shuffle, params, keys, first_frames, cover, secret))

        @partial(jax.jit, static_argnames="group")
        def reveal_frames(params, key, first_frame, stego, group):
            stego = _to_batch(stego, group)
            keys = jnp.broadcast_to(key, (len(stego), 8))
            first_frames = first_frame + group * jnp.arange(len(stego))
            return _to_frames(reveal(model, shuffle, params, keys, first_frames, stego))

        self._hide, self._reveal = hide_frames, reveal_frames

    def _group(self, count: int) -> int:
        """Return the group length for `count` frames: whole groups, or one shorter group at a clip's end."""
        if count % self.frames and count > self.frames:
            raise ValueError(
                f"{count} frames are neither whole groups of {self.frames} nor one shorter group"
            )
        return min(count, self.frames)

    def hide(self, params: Any, key: Key, first_frame: Index, cover: Frames, secret: Frames) -> Frames:
        """Hide n consecutive frames, n a multiple of t or less than t."""
        return self._hide(params, key, first_frame, cover, secret, group=self._group(len(cover)))

    def reveal(self, params: Any, key: Key, first_frame: Index, stego: Frames) -> Frames:
        """Reveal n consecutive frames, n as they were hidden."""
        return self._reveal(params, key, first_frame, stego, group=self._group(len(stego)))
