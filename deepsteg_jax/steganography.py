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
from jaxtyping import Integer, Shaped, UInt32
from ml_collections import ConfigDict

from deepsteg_jax import cipher
from deepsteg_jax.errors import UserError
from deepsteg_jax.models import Model
from deepsteg_jax.models.base import Revealed
from deepsteg_jax.shapes import Array, Frames, Index, Key
from deepsteg_jax.shuffle import shuffle_blocks, unshuffle_blocks
from deepsteg_jax.stripes import map_batch


class Transform(NamedTuple):
    """A keyed transform of [t, h, w, 3], (frames, key, first_frame) -> frames, and its inverse."""

    encipher: Callable
    decipher: Callable
    smallest: int = 1  # pixels that a frame must have each way
    moves_samples: bool = True  # so that it takes uint8 too


def transform(shuffle: ConfigDict) -> Transform:
    """Return the transform of a config's section `shuffle`: moves, cipher, block_size.

    Raises:
        UserError: one of them has no such value.
    """
    if shuffle.moves not in ("secret", "cover", "nothing"):
        raise UserError(f"config.shuffle.moves must be secret, cover or nothing, not {shuffle.moves!r}")
    if not 1 <= shuffle.block_size < 2**16:
        raise UserError(f"config.shuffle.block_size must be 1 to 65535 pixels, not {shuffle.block_size}")
    ciphers = {
        "blocks": Transform(
            *(partial(f, block_size=shuffle.block_size) for f in (shuffle_blocks, unshuffle_blocks)),
            smallest=shuffle.block_size,
        ),
        "coefficients": Transform(cipher.encipher_samples, cipher.decipher_samples)
        if shuffle.moves == "cover"
        else Transform(cipher.encipher_coefficients, cipher.decipher_coefficients, cipher.BLOCK, False),
    }
    if shuffle.cipher not in ciphers:
        raise UserError(f"config.shuffle.cipher must be {' or '.join(ciphers)}, not {shuffle.cipher!r}")
    return ciphers[shuffle.cipher]


def _each(keyed, change, x, keys, first_frames):
    """Apply one direction of a transform to every example of a batch, [b, h, w, c] or [b, t, h, w, c]."""
    video = x[:, None] if x.ndim == 4 else x
    if min(video.shape[2:4]) < keyed.smallest:
        raise UserError(f"frames are smaller than the {keyed.smallest} pixels of a block: use larger frames")
    return map_batch(change, video, keys, first_frames).reshape(x.shape)


def _unit(x):
    """Return frames in [0, 1]."""
    return x.astype(jnp.float32) / 255 if x.dtype == jnp.uint8 else x


def _levels(x):
    """Round frames to uint8."""
    return jnp.round(jnp.clip(x, 0, 1) * 255).astype(jnp.uint8)


def hide(
    model: Model,
    shuffle: ConfigDict,
    params: Any,
    keys: UInt32[Array, "b 8"],
    first_frames: Integer[Array, " b"],
    cover: Shaped[Array, "b *t h w 3"],
    secret: Shaped[Array, "b *t h w 3"],
) -> Shaped[Array, "b *t h w 3"]:
    """Shuffle and hide a batch.

    Args:
        model: from `models.build`.
        shuffle: config section with `moves`, `cipher` and `block_size`.
        params: the hide parameters.
        keys: one for each example.
        first_frames: number of each example's first frame in its video.
        cover: float in [0, 1], or uint8, which takes a quarter of the memory.
        secret: the same.

    Returns:
        The stego, float and not rounded, or uint8.

    Raises:
        UserError: the section is wrong, or a frame is smaller than a block.
    """
    keyed, eight_bits = transform(shuffle), cover.dtype == jnp.uint8
    if shuffle.moves == "secret":
        secret = secret if keyed.moves_samples else _unit(secret)
        secret = _each(keyed, keyed.encipher, secret, keys, first_frames)
    elif shuffle.moves == "cover":
        cover = _each(keyed, keyed.encipher, cover, keys, first_frames)
    stego = model.hide(params, _unit(cover), _unit(secret))
    stego = _levels(stego) if eight_bits else stego
    if shuffle.moves == "cover":
        stego = _each(keyed, keyed.decipher, stego, keys, first_frames)
    return stego


def reveal(
    model: Model,
    shuffle: ConfigDict,
    params: Any,
    keys: UInt32[Array, "b 8"],
    first_frames: Integer[Array, " b"],
    stego: Shaped[Array, "b *t h w 3"],
) -> Shaped[Array, "b *t h w 3"]:
    """Reveal and decipher a batch; arguments as for `hide`, the revealed secret is about [0, 1], or uint8."""
    return inspect(model, shuffle, params, keys, first_frames, stego).pictures


def inspect(
    model: Model, shuffle: ConfigDict, params: Any, keys: Array, first_frames: Array, stego: Array
) -> Revealed:
    """Reveal as `reveal` does, and say how much of each example is wrong, as far as the model notices."""
    keyed, eight_bits = transform(shuffle), stego.dtype == jnp.uint8
    if shuffle.moves == "cover":
        stego = _each(keyed, keyed.encipher, stego, keys, first_frames)
    look = model.inspect or (lambda *given: Revealed(model.reveal(*given), jnp.zeros(len(stego))))
    revealed, spoilt = look(params, _unit(stego))
    if eight_bits and (keyed.moves_samples or shuffle.moves != "secret"):
        revealed = _levels(revealed)
    if shuffle.moves == "secret":
        revealed = _each(keyed, keyed.decipher, revealed, keys, first_frames)
    revealed = _levels(revealed) if eight_bits and revealed.dtype != jnp.uint8 else revealed
    return Revealed(revealed, spoilt)


def _grouped(frames, group):
    """Cut frames [n, h, w, 3] into [n / group, group, h, w, 3]; a group of 1 has no axis."""
    frames = jnp.asarray(frames)
    return frames if group == 1 else rearrange(frames, "(b t) ... -> b t ...", t=group)


class Codec:
    """Compiled hide and reveal of 8-bit frames; compiles once for every frame size and group length."""

    def __init__(self, model: Model, shuffle: ConfigDict, frames: int):
        """Compile for groups of `frames` frames, the model's group length t."""
        self.frames = frames

        @partial(jax.jit, static_argnames="group")
        def hide_frames(params, key, first_frame, cover, secret, group):
            cover, secret = _grouped(cover, group), _grouped(secret, group)
            keys = jnp.broadcast_to(key, (len(cover), 8))
            first_frames = first_frame + group * jnp.arange(len(cover))
            stego = hide(model, shuffle, params, keys, first_frames, cover, secret)
            return stego.reshape(-1, *stego.shape[-3:])

        @partial(jax.jit, static_argnames="group")
        def inspect_frames(params, key, first_frame, stego, group):
            stego = _grouped(stego, group)
            keys = jnp.broadcast_to(key, (len(stego), 8))
            first_frames = first_frame + group * jnp.arange(len(stego))
            revealed, spoilt = inspect(model, shuffle, params, keys, first_frames, stego)
            return Revealed(revealed.reshape(-1, *revealed.shape[-3:]), jnp.repeat(spoilt, group))

        self._hide, self._inspect = hide_frames, inspect_frames

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
        return self.inspect(params, key, first_frame, stego).pictures

    def inspect(self, params: Any, key: Key, first_frame: Index, stego: Frames) -> Revealed:
        """Reveal as `reveal` does, with the share of each frame, [n], that is known to be wrong."""
        return self._inspect(params, key, first_frame, stego, group=self._group(len(stego)))
