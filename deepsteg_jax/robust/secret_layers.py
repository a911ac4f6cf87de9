"""A secret in layers, each a coding of it that is finer than the one below.

A layer holds the secret anew, or what is missing to the one below it, whichever comes nearer. So the revealed
secret gets coarser layer by layer as the channel gets worse.
"""

from fractions import Fraction
from operator import itemgetter

import numpy as np

from deepsteg_jax import metrics
from deepsteg_jax.errors import UserError
from deepsteg_jax.robust import secret_codec

KIND_BYTES = 1  # before the secret codec's message
_WHOLE, _REFINEMENT = 0, 1  # what a layer holds


def _refine(below: np.ndarray, difference: np.ndarray) -> np.ndarray:
    return np.clip(below + difference.astype(np.int16) - 128, 0, 255).astype(np.uint8)


def code_layers(secret: np.ndarray, rooms: list[int], rate: Fraction) -> list[bytes]:
    """A secret in layers.

    Args:
        secret: uint8 [n, h, w, 3].
        rooms: bytes for each layer's message; 0 or less leaves it out.
        rate: frames per second.

    Returns:
        A message for each, not longer than its room; empty where there is none, or where it would not help.
    """
    messages, below, reached, room_below = [], None, -np.inf, 0
    for room in rooms:
        best = (reached, b"", below)
        for kind, source in _sources(secret, below, room / max(room_below, 1)):
            try:
                message = secret_codec.code(source, room - KIND_BYTES, rate) if room > 0 else None
            except UserError:  # does not fit
                message = None
            if message:
                decoded = decode_layer(bytes([kind]) + message, below, secret.shape)
                best = max(
                    best,
                    (metrics.mean_psnr(secret, decoded), bytes([kind]) + message, decoded),
                    key=itemgetter(0),
                )
        reached, message, below = best
        room_below = room if message else room_below
        messages.append(message)
    return messages


def _sources(secret: np.ndarray, below: np.ndarray | None, growth: float):
    """What a layer may hold that has `growth` times the room of the one below; hopeless ones are left out."""
    if growth > 1.35:
        yield _WHOLE, secret
    if below is not None and growth < 3:
        difference = secret.astype(np.int16) - below + 128
        yield _REFINEMENT, np.clip(difference, 0, 255).astype(np.uint8)


def decode_layer(message: bytes, below: np.ndarray | None, shape: tuple[int, ...]) -> np.ndarray | None:
    """What a layer's message shows, on top of what is shown below; uint8 of `shape`, None without."""
    decoded = secret_codec.decode(message[1:], *shape[:3])
    if message[0] == _WHOLE:
        return decoded
    return None if below is None else _refine(below, decoded)
