"""Symbols of the finest layer: small spacings in further coefficients, in every frame.

They are too small for a codec to spend bits on, and a lossy codec destroys them. On a lossless channel their
capacity is many times that of the large spacings below them. Each symbol carries two bits, a quarter of the
circle.
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

BITS = 2  # of a symbol
_PILOT_SHARE = 1 / 32
_SCALE, _LOST = 1 / 16, 1e-3  # of the error of a phase, before pilots tell better
_MOST_PILOTS = 2048  # of a frame that calibrate


@partial(jax.jit, static_argnames="skip")
def _write(frames, symbols, spacing, skip):
    return symbol_model.write_symbols(frames, symbols, spacing, skip=skip).astype(jnp.uint8)


@partial(jax.jit, static_argnames=("count", "skip"))
def _read(luma, spacing, count, skip):
    return symbol_model.read_phases(luma, spacing, count, skip)


class Fine(NamedTuple):
    """The fine symbols of frames for the holder of a key."""

    count: int  # symbols of a block
    spacing: float  # D
    skip: int  # coefficients below them
    key: bytes

    def filler(self, salt: bytes, frames: int, blocks: int) -> np.ndarray:
        """Return the keystream under a segment's layer, uint8 [frames * blocks * count, BITS]."""
        key = keys.subkey(self.key, f"robust fine {salt.hex()}")
        return numpy_bits(key, 0, frames * blocks * self.count * BITS).reshape(-1, BITS)

    def indices(self, segment: int, frames: int, blocks: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the indices of a segment's pilots, int [frames, m], and of its free symbols in order."""
        symbols = blocks * self.count
        order = numpy_permutation(self.key, segment, symbols)
        pilots, data = np.split(order, [max(1, round(symbols * _PILOT_SHARE))])
        first = symbols * np.arange(frames)[:, None]
        # One permutation of all would take long; frames, taken by turns, spread a burst as well.
        return first + pilots, (first + data).T.ravel()

    def write(self, frames: np.ndarray, bits: np.ndarray) -> np.ndarray:
        """Write these bits into frames, uint8 [n, h, w, 3]."""
        rows, columns = (length // symbol_model.BLOCK for length in frames.shape[1:3])
        phases = levels.quarter_starts(bits) + 1 / 8
        return np.asarray(
            _write(frames, phases.reshape(-1, rows, columns, self.count), self.spacing, self.skip)
        )

    def llr(self, luma: np.ndarray, known: np.ndarray, pilots: np.ndarray) -> np.ndarray:
        """Return log-likelihood ratios, positive for 0, [n * blocks * count, BITS].

        Args:
            luma: of received frames, [n, h, w].
            known: the bits of `filler`, of which those of pilots are used.
            pilots: see `indices`.
        """
        phase = np.asarray(_read(luma, self.spacing, self.count, self.skip), np.float64).reshape(
            len(luma), -1
        )
        some = pilots[:, :_MOST_PILOTS]
        error = phase.reshape(-1)[some] - levels.quarter_starts(known[some]) - 1 / 8
        scale, lost = np.full(error.shape, _SCALE), np.full(error.shape, _LOST)
        factor, loss = symbol_model.calibrate(error - np.round(error), scale, lost)
        factor, loss = factor[:, None, None], loss[:, None, None]
        scale, lost = symbol_model.adjusted(scale[:, :1], lost[:, :1], factor, loss)
        scale, lost = (np.broadcast_to(np.asarray(x[:, 0], np.float64), phase.shape) for x in (scale, lost))
        return levels.coarse_llr(phase, scale, lost).reshape(-1, BITS)


def make(config: Any, skip: int, master: bytes) -> Fine:
    """Return the fine symbols of a config's section `fine`, above `skip` coefficients."""
    return Fine(config.coefficients, config.spacing, skip, keys.subkey(master, "robust fine"))
