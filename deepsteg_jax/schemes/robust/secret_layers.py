"""A secret in layers, each a coding of it that is finer than the one below.

A layer holds the secret anew, as a video or as a thumbnail, or, if it has little more room than the one
below, what is missing to that. So the revealed secret gets coarser layer by layer as the channel gets worse.
"""

from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction

import numpy as np

from deepsteg_jax import metrics
from deepsteg_jax.errors import UserError
from deepsteg_jax.schemes.robust import secret_codec, thumbnail
from deepsteg_jax.schemes.robust.secret_codec import Coding

KIND_BYTES = 1  # before the coder's message
MOST_THUMBNAIL = 680  # bytes; with more, a video codec is better
LEAST_GROWTH = 1.8  # capacity over that of the layer below, from which on the secret is coded anew
_WHOLE, _REFINEMENT, _THUMBNAIL = range(3)  # kinds of layers
_ENCODERS = 2  # at work together


def _refine(below: np.ndarray, difference: np.ndarray) -> np.ndarray:
    return np.clip(below + difference.astype(np.int16) - 128, 0, 255).astype(np.uint8)


class LayerCoder:
    """Encodes one secret after the other, each like the one before it."""

    def __init__(self):
        """Begin with no secret."""
        self._near: dict[int, Coding] = {}

    def encode(self, secret: np.ndarray, capacities: list[int], rate: Fraction) -> list[bytes]:
        """Encode a secret in layers.

        Args:
            secret: uint8 [n, h, w, 3].
            capacities: bytes for each layer's message; too few leave it out.
            rate: frames per second.

        Returns:
            A message for each, not longer than its capacity; empty where there is none or it would not help.
        """
        kinds, whole, messages = _kinds(capacities), None, []
        with ThreadPoolExecutor(_ENCODERS) as pool:
            anew = {
                i: pool.submit(self._encode, kind, i, secret, capacity, rate)
                for i, (kind, capacity) in enumerate(zip(kinds, capacities, strict=True))
                if kind in (_WHOLE, _THUMBNAIL)
            }
            for i, (kind, capacity) in enumerate(zip(kinds, capacities, strict=True)):
                message = b""
                if i in anew:
                    message = anew[i].result()
                    whole = message or whole
                elif kind == _REFINEMENT and whole:
                    message = self._refined(i, secret, whole, capacity, rate)
                messages.append(message)
        return messages

    def _refined(self, layer: int, secret: np.ndarray, whole: bytes, capacity: int, rate: Fraction) -> bytes:
        """Return the message of what is missing to a layer that holds the secret; empty if it does not help.

        A second refinement is of the same layer, not of the first.
        """
        below = decode_layer(whole, None, secret.shape)
        missing = np.clip(secret.astype(np.int16) - below + 128, 0, 255).astype(np.uint8)
        message = self._encode(_REFINEMENT, layer, missing, capacity, rate)
        if not message:
            return b""
        refined = decode_layer(message, below, secret.shape)
        return message if metrics.mean_psnr(secret, refined) > metrics.mean_psnr(secret, below) else b""

    def _encode(self, kind: int, layer: int, frames: np.ndarray, capacity: int, rate: Fraction) -> bytes:
        """Return the message of a layer; empty if it does not fit."""
        room = capacity - KIND_BYTES
        try:
            if kind == _THUMBNAIL:
                return bytes([kind]) + thumbnail.encode(frames, room)
            coded, self._near[layer] = secret_codec.encode(frames, room, rate, self._near.get(layer))
        except UserError:  # does not fit
            return b""
        return bytes([kind]) + coded


def _kinds(capacities: list[int]) -> list[int | None]:
    """Return the kind of each layer; None: it is left out."""
    kinds, below = [], 0
    for capacity in capacities:
        growth = capacity / max(below, 1)
        if capacity <= KIND_BYTES:
            kinds.append(None)
        elif capacity < MOST_THUMBNAIL:
            kinds.append(_THUMBNAIL if growth > 1 else None)
        elif growth < LEAST_GROWTH:
            kinds.append(_REFINEMENT)
        else:
            kinds.append(_WHOLE)
        if kinds[-1] in (_WHOLE, _THUMBNAIL):
            below = capacity
    return kinds


def needs_below(message: bytes) -> bool:
    """Return whether a layer is a refinement of the last one below it that is none."""
    return message[0] == _REFINEMENT


def decode_layer(message: bytes, below: np.ndarray | None, shape: tuple[int, ...]) -> np.ndarray | None:
    """Decode a layer on top of the secret shown `below`, uint8 of `shape`; None if it needs one below."""
    coder = thumbnail if message[0] == _THUMBNAIL else secret_codec
    decoded = coder.decode(message[KIND_BYTES:], *shape[:3])
    if message[0] != _REFINEMENT:
        return decoded
    return None if below is None else _refine(below, decoded)
