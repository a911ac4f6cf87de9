"""A secret in layers, each a coding of it that is finer than the one below.

A layer holds the secret anew, as a video or as a thumbnail, or what is missing to the one below it, whichever
comes nearer. So the revealed secret gets coarser layer by layer as the channel gets worse.
"""

from contextlib import suppress
from fractions import Fraction
from operator import itemgetter

import numpy as np

from deepsteg_jax import metrics
from deepsteg_jax.errors import UserError
from deepsteg_jax.schemes.robust import secret_codec, thumbnail

KIND_BYTES = 1  # before the coder's message
MOST_THUMBNAIL = 2000  # bytes; with more, a video codec is better
_WHOLE, _REFINEMENT, _THUMBNAIL = range(3)  # kinds of layers


def _refine(below: np.ndarray, difference: np.ndarray) -> np.ndarray:
    return np.clip(below + difference.astype(np.int16) - 128, 0, 255).astype(np.uint8)


def encode_layers(secret: np.ndarray, capacities: list[int], rate: Fraction) -> list[bytes]:
    """Encode a secret in layers.

    Args:
        secret: uint8 [n, h, w, 3].
        capacities: bytes for each layer's message; 0 or less leaves it out.
        rate: frames per second.

    Returns:
        A message for each, not longer than its capacity; empty where there is none or it would not help.
    """
    messages, below, reached, capacity_below = [], None, -np.inf, 0
    for capacity in capacities:
        best = (reached, b"", below)
        for message in (
            _codings(secret, below, capacity, capacity_below, rate) if capacity > KIND_BYTES else ()
        ):
            decoded = decode_layer(message, below, secret.shape)
            best = max(best, (metrics.mean_psnr(secret, decoded), message, decoded), key=itemgetter(0))
        reached, message, below = best
        capacity_below = capacity if message else capacity_below
        messages.append(message)
    return messages


def _codings(
    secret: np.ndarray, below: np.ndarray | None, capacity: int, capacity_below: int, rate: Fraction
):
    """Yield candidate messages for a layer of this capacity; hopeless ones are left out."""
    growth, coders = capacity / max(capacity_below, 1), []
    if growth > 1.35:
        coders.append((_WHOLE, lambda most: secret_codec.encode(secret, most, rate)))
        if capacity < MOST_THUMBNAIL:
            coders.append((_THUMBNAIL, lambda most: thumbnail.encode(secret, most)))
    if below is not None and growth < 3:
        missing = np.clip(secret.astype(np.int16) - below + 128, 0, 255).astype(np.uint8)
        coders.append((_REFINEMENT, lambda most: secret_codec.encode(missing, most, rate)))
    for kind, encode in coders:
        with suppress(UserError):  # does not fit
            yield bytes([kind]) + encode(capacity - KIND_BYTES)


def decode_layer(message: bytes, below: np.ndarray | None, shape: tuple[int, ...]) -> np.ndarray | None:
    """Decode a layer on top of the secret shown `below`, uint8 of `shape`; None if it needs one below."""
    coder = thumbnail if message[0] == _THUMBNAIL else secret_codec
    decoded = coder.decode(message[KIND_BYTES:], *shape[:3])
    if message[0] != _REFINEMENT:
        return decoded
    return None if below is None else _refine(below, decoded)
