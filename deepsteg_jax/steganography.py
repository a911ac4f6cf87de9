"""Hide and reveal with the keyed shuffle: what is compiled, for training and for use alike.

`shuffle.moves` says what the key permutes, blocks of the secret (the original system) or of the cover:

    secret:  stego = hide(cover, shuffle(secret))              revealed = unshuffle(reveal(stego))
    cover:   stego = unshuffle(hide(shuffle(cover), secret))   revealed = reveal(shuffle(stego))

Both scatter the hidden picture over the stego by a permutation that only the key holder knows, another
one for every frame. Moving the cover leaves the secret whole, so a model that uses the secret's
neighbourhood in space and time, and looks at the cover sample by sample, loses nothing.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from deepsteg_jax.errors import UserError
from deepsteg_jax.models import Model
from deepsteg_jax.shuffle import shuffle_blocks, unshuffle_blocks


def _each(permute, x, keys, first_frames, block_size):
    """Applies a shuffle to every example of a batch, [b, h, w, c] or [b, t, h, w, c]."""
    video = x[:, None] if x.ndim == 4 else x
    if min(video.shape[2:4]) < block_size:
        raise UserError(f"frames are smaller than config.shuffle.block_size={block_size}: use larger frames")
    one = partial(permute, block_size=block_size)
    return jax.vmap(one)(video, keys, first_frames).reshape(x.shape)


def _moves(shuffle: ConfigDict) -> str:
    if shuffle.moves not in ("secret", "cover", "nothing"):
        raise UserError(f"config.shuffle.moves is secret, cover or nothing, not {shuffle.moves!r}")
    if shuffle.block_size < 1:
        raise UserError(f"config.shuffle.block_size is a number of pixels, not {shuffle.block_size}")
    return shuffle.moves


def hide(model: Model, shuffle: ConfigDict, params, keys, first_frames, cover, secret) -> jax.Array:
    """Shuffles and hides a batch.

    Args:
        model: from `models.build`.
        shuffle: config section with `moves` and `block_size`.
        params: the hide parameters.
        keys: uint32 [b, 8], a key for each example.
        first_frames: int [b], number of each example's first frame in its video.
        cover: [b, h, w, 3] or [b, t, h, w, 3] in [0, 1].
        secret: same shape.

    Returns:
        The stego, same shape, not rounded.

    Raises:
        UserError: `shuffle.moves` is unknown, or a frame is smaller than a block.
    """
    moves = _moves(shuffle)
    if moves == "secret":
        secret = _each(shuffle_blocks, secret, keys, first_frames, shuffle.block_size)
    elif moves == "cover":
        cover = _each(shuffle_blocks, cover, keys, first_frames, shuffle.block_size)
    stego = model.hide(params, cover, secret)
    if moves == "cover":
        stego = _each(unshuffle_blocks, stego, keys, first_frames, shuffle.block_size)
    return stego


def reveal(model: Model, shuffle: ConfigDict, params, keys, first_frames, stego) -> jax.Array:
    """Reveals and unshuffles a batch; arguments as for `hide`, the revealed secret is in [0, 1]."""
    moves = _moves(shuffle)
    if moves == "cover":
        stego = _each(shuffle_blocks, stego, keys, first_frames, shuffle.block_size)
    revealed = model.reveal(params, stego)
    if moves == "secret":
        revealed = _each(unshuffle_blocks, revealed, keys, first_frames, shuffle.block_size)
    return revealed


def _to_batch(frames, group):
    """uint8 [n, h, w, 3] -> float [n / group, group, h, w, 3], or [n, h, w, 3] for a group of 1."""
    x = jnp.asarray(frames, jnp.float32) / 255
    return x if group == 1 else x.reshape(-1, group, *x.shape[1:])


def _to_frames(x):
    """Inverse of `_to_batch`, rounded to 8 bits."""
    return jnp.round(jnp.clip(x, 0, 1) * 255).astype(jnp.uint8).reshape(-1, *x.shape[-3:])


class Codec:
    """Compiled hide and reveal of 8-bit frames; compiles once for every frame size and group length."""

    def __init__(self, model: Model, shuffle: ConfigDict, frames: int):
        """`frames` is the model's group length t."""
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
        """The group length for `count` frames: whole groups, or one shorter group at a clip's end."""
        if count % self.frames and count > self.frames:
            raise ValueError(
                f"{count} frames are neither whole groups of {self.frames} nor one shorter group"
            )
        return min(count, self.frames)

    def hide(
        self, params, key: np.ndarray, first_frame: int, cover: np.ndarray, secret: np.ndarray
    ) -> jax.Array:
        """Hides consecutive frames, uint8 [n, h, w, 3] with n a multiple of t or less than t, as uint8."""
        return self._hide(params, key, first_frame, cover, secret, group=self._group(len(cover)))

    def reveal(self, params, key: np.ndarray, first_frame: int, stego: np.ndarray) -> jax.Array:
        """Reveals consecutive frames, uint8 [n, h, w, 3] with n as they were hidden, as uint8."""
        return self._reveal(params, key, first_frame, stego, group=self._group(len(stego)))
