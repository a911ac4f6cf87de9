"""Symbols of the finest layer: small spacings in further coefficients, in every frame.

They lie in luma, are too small for a codec to spend bits on, and a lossy codec destroys them. On a lossless
channel their capacity is many times that of the large spacings. Each symbol carries two bits, a quarter of
the circle.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from deepsteg_jax import keys
from deepsteg_jax.keystream import numpy_bits, numpy_permutation
from deepsteg_jax.models import symbols as symbol_model
from deepsteg_jax.schemes.robust import levels
from deepsteg_jax.schemes.slots import ALONE, Slot

BITS = 2  # of a symbol
_PILOT_SHARE = 1 / 32
_SCALE, _LOST = 1 / 16, 1e-3  # of the error of a phase, before pilots tell better
_MOST_PILOTS = 2048  # of a frame that calibrate


@partial(jax.jit, static_argnames=("count", "skip"))
def _write(frames, symbols, spacing, count, skip):
    stego = symbol_model.write_symbols(frames, symbols, spacing, _carriers(count, skip))
    return jax.tree.map(lambda x: x.astype(jnp.uint8), stego)


@partial(jax.jit, static_argnames=("count", "skip"))
def _read(planes, spacing, count, skip):
    return symbol_model.read_phases(planes, spacing, _carriers(count, skip))


def _carriers(count: int, skip: int) -> symbol_model.Carriers:
    return symbol_model.make_carriers((1.0,) * count, (), skip)


class Fine(NamedTuple):
    """The fine symbols of frames for the holder of a key."""

    coefficients: int  # of a block of luma
    spacing: float  # D
    skip: int  # coefficients below them
    key: bytes
    slot: Slot = ALONE

    @property
    def count(self) -> int:
        """Symbols of a macroblock."""
        return 4 * self.coefficients

    def filler(self, salt: bytes, frames: int, macroblocks: int) -> np.ndarray:
        """Return the keystream under a segment's layer, uint8 [frames * macroblocks * count, BITS]."""
        key = keys.subkey(self.key, f"robust fine {salt.hex()}")
        return numpy_bits(key, 0, frames * macroblocks * self.count * BITS).reshape(-1, BITS)

    def share(self, macroblocks: int) -> np.ndarray:
        """Return which symbols of a frame belong to the slot, bool [macroblocks * count]."""
        at = np.arange(macroblocks * self.count)
        return (at + at // self.count) % self.slot.of == self.slot.number

    def indices(self, segment: int, frames: int, macroblocks: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the indices of a segment's pilots, int [frames, m], and of its free symbols in order."""
        symbols = macroblocks * self.count
        order = numpy_permutation(self.key, segment, symbols)
        own = order[self.share(macroblocks)[order]]
        pilots, data = np.split(own, [max(1, round(len(own) * _PILOT_SHARE))])
        first = symbols * np.arange(frames)[:, None]
        # One permutation of all would take long; frames, taken by turns, spread a burst as well.
        return first + pilots, (first + data).T.ravel()

    def write(self, frames: symbol_model.Frames, bits: np.ndarray) -> symbol_model.Frames:
        """Write these bits into n frames; return the stego, uint8."""
        height, width = jax.tree.leaves(frames)[0].shape[1:3]
        rows, columns = height // symbol_model.MACROBLOCK, width // symbol_model.MACROBLOCK
        phases = (levels.quarter_starts(bits) + 1 / 8).reshape(-1, rows, columns, self.count)
        stego = _write(frames, phases, self.spacing, self.coefficients, self.skip)
        return jax.tree.map(np.asarray, stego)

    def llr(self, planes: tuple[np.ndarray, ...], known: np.ndarray, pilots: np.ndarray) -> np.ndarray:
        """Return log-likelihood ratios, positive for 0, [n * macroblocks * count, BITS].

        Args:
            planes: of received frames, [n, ...].
            known: the bits of `filler`, of which those of pilots are used.
            pilots: see `indices`.
        """
        phase = _read(planes[:1], self.spacing, self.coefficients, self.skip)
        phase = np.asarray(phase, np.float64).reshape(len(phase), -1)
        some = pilots[:, :_MOST_PILOTS]
        error = phase.reshape(-1)[some] - levels.quarter_starts(known[some]) - 1 / 8
        scale, lost = np.full(error.shape, _SCALE), np.full(error.shape, _LOST)
        factor, loss = symbol_model.calibrate(error - np.round(error), scale, lost)
        factor, loss = factor[:, None, None], loss[:, None, None]
        scale, lost = symbol_model.adjusted(scale[:, :1], lost[:, :1], factor, loss)
        scale, lost = (np.broadcast_to(np.asarray(x[:, 0], np.float64), phase.shape) for x in (scale, lost))
        return levels.coarse_llr(phase, scale, lost).reshape(-1, BITS)


def make(config: Any, skip: int, master: bytes, slot: Slot = ALONE) -> Fine:
    """Return the fine symbols of a config's section `fine`, above `skip` coefficients, in a slot."""
    return Fine(config.coefficients, config.spacing, skip, keys.subkey(master, "robust fine"), slot)
