"""Where in the symbols of a segment pilots, header and layers lie; only the key holder can tell.

Every frame gives some symbols to pilots, by which the receiver knows the frame again and measures its noise,
and the quarters (levels 0 and 1) of some to the header. The other quarters, in an order of its own for every
segment, are dealt out to the layers that use quarters. Finer levels belong to one layer each.
"""

from typing import NamedTuple

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from ml_collections import ConfigDict

from deepsteg_jax import keys
from deepsteg_jax.errors import UserError
from deepsteg_jax.robust.levels import LEVELS

PILOT_SHARE, HEADER_SHARE = 1 / 32, 0.06  # of the symbols of a frame
LEAST_PILOTS = 96


class Layer(NamedTuple):
    """One layer of a secret: each codes it for a worse or a better channel."""

    levels: tuple[int, ...]  # (0, 1), or consecutive ones from 2 on
    share: float  # of the symbols whose quarters are free, for (0, 1)
    rung: str  # the passage that it is to survive, see `video.passage`


def layers_of(config: ConfigDict) -> tuple[Layer, ...]:
    """The layers of a config's `layers`, from the most robust to the finest.

    Raises:
        UserError: levels do not follow each other, or shares do not make a whole.
    """
    layers = tuple(Layer(tuple(int(c) for c in levels), share, rung) for levels, share, rung in config.layers)
    used = [level for layer in layers if layer.levels != (0, 1) for level in layer.levels]
    coarse = sum(layer.share for layer in layers if layer.levels == (0, 1))
    if used != list(range(2, 2 + len(used))) or len(used) > LEVELS - 2 or not 0 < coarse <= 1 + 1e-9:
        raise UserError(
            'config.layers: first layers of the levels "01" whose shares add up to at most 1, then "2", "3", '
            "... in this order, each level once"
        )
    return layers


def keystream(key: bytes, number: int, count: int) -> np.ndarray:
    """`count` random bytes for number `number` (ChaCha20, RFC 8439), uint8."""
    nonce = bytes(4) + number.to_bytes(12, "little")
    stream = Cipher(algorithms.ChaCha20(key, nonce), None).encryptor()
    return np.frombuffer(stream.update(bytes(count)), np.uint8)


def permutation(key: bytes, number: int, count: int) -> np.ndarray:
    """A random order of `count` things."""
    return np.argsort(keystream(key, number, 8 * count).view("<u8"), kind="stable")


class Layout(NamedTuple):
    """Of frames with `symbols` symbols each, as they lie row by row."""

    symbols: int
    pilots: np.ndarray  # int: which symbols of a frame
    header: np.ndarray
    data: np.ndarray
    order_key: bytes
    pilot_key: bytes

    def pilot_bits(self, frame: int) -> np.ndarray:
        """All bits of a frame's pilots, uint8 [pilots, LEVELS]."""
        count = LEVELS * len(self.pilots)
        packed = keystream(self.pilot_key, frame, -(-count // 8))
        return np.unpackbits(packed)[:count].reshape(-1, LEVELS)

    def quarters(self, segment: int, frames: int, shares: list[float]) -> list[np.ndarray]:
        """Which symbols of a segment [frames * symbols] belong to each layer that uses quarters."""
        of_frames = (np.arange(frames)[:, None] * self.symbols + self.data).ravel()
        shuffled = of_frames[permutation(self.order_key, 2 * segment, len(of_frames))]
        ends = np.round(np.cumsum(shares) * len(shuffled)).astype(int)
        return np.split(shuffled, ends)[: len(shares)]

    def finer(self, segment: int, frames: int) -> np.ndarray:
        """The symbols of a segment, all but pilots, in the order of the finer levels."""
        of_frames = (np.arange(frames)[:, None] * self.symbols + np.append(self.header, self.data)).ravel()
        return of_frames[permutation(self.order_key, 2 * segment + 1, len(of_frames))]


def make(master: bytes, symbols: int, header_bits: int) -> Layout:
    """The layout of frames with so many symbols for the holder of a key.

    Raises:
        UserError: frames are too small for pilots and header.
    """
    pilots = max(round(symbols * PILOT_SHARE), LEAST_PILOTS)
    header = max(round(symbols * HEADER_SHARE), min(header_bits, symbols // 4))
    if pilots + header >= symbols:
        raise UserError("these frames are too small to carry anything: use larger ones")
    order = permutation(keys.subkey(master, "robust places"), 0, symbols)
    parts = np.split(order, [pilots, pilots + header])
    return Layout(symbols, *parts, keys.subkey(master, "robust order"), keys.subkey(master, "robust pilots"))
