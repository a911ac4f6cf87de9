"""Write symbols into frames and read them."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from ml_collections import ConfigDict

from deepsteg_jax.errors import UserError
from deepsteg_jax.models import symbols as symbol_model
from deepsteg_jax.schemes.robust.layout import SEGMENT


def _blockwise(symbols, frames):
    """Rearrange [n, symbols of a frame] to [n, rows, columns, symbols of a block]."""
    rows, columns = (length // symbol_model.BLOCK for length in frames.shape[1:3])
    return rearrange(symbols, "n (k y x) -> n y x k", y=rows, x=columns)


@partial(jax.jit, static_argnames="repeat")
def _write(cover, symbols, spacing, repeat):
    return symbol_model.write_repeated(cover, _blockwise(symbols, cover), spacing, repeat).astype(jnp.uint8)


@partial(jax.jit, static_argnames="count")
def _write_pilots(frames, pilots, phases, spacing, count):
    shape = len(frames), count * blocks_of(*frames.shape[1:3])
    symbols = jnp.zeros(shape).at[:, pilots].set(phases)
    these = jnp.zeros(shape, bool).at[:, pilots].set(True)
    symbols, these = _blockwise(symbols, frames), _blockwise(these, frames)
    return symbol_model.write_some(frames, symbols, these, spacing).astype(jnp.uint8)


class Modulation(NamedTuple):
    """The parameters with which symbols are written."""

    spacing: float  # D
    count: int  # symbols of a block
    repeat: int  # frames that share their symbols


class Modem:
    """Write symbols into frames and read them, with the networks of a config; keeps compiled programs."""

    def __init__(self, config: ConfigDict, params: Any):
        """Compile for section `model` of a config and the `params` of either side."""
        self._demodulate = jax.jit(partial(symbol_model.demodulate, config, params["reliability"]))

    def write(self, cover: np.ndarray, phases: np.ndarray, how: Modulation, pilots) -> np.ndarray:
        """Write phases [ceil(n / repeat), symbols] into a cover, uint8 [n, h, w, 3]; return the stego.

        `pilots`: which symbols of a frame they are, and their phases [n, m]; no two frames share them.
        """
        stego = _write(cover, phases, how.spacing, how.repeat)
        if how.repeat > 1:
            stego = _write_pilots(stego, *pilots, how.spacing, how.count)
        return np.asarray(stego)

    def read(self, luma: np.ndarray, spacing: float, indices: np.ndarray, known: np.ndarray) -> np.ndarray:
        """Demodulate and calibrate.

        Args:
            luma: [n, h, w], of frames or means of those that share symbols.
            spacing: D.
            indices: symbols of a frame that are known, int [m].
            known: their phases, [n, m].

        Returns:
            Phase, scale and loss, float64 [3, n, symbols], of all symbols that there may be; see
            `symbol_model.demodulate`.
        """
        n = len(luma)
        filled = np.pad(luma, ((0, -n % 8), (0, 0), (0, 0)), mode="edge")  # few lengths to compile for
        phase, scale, lost = (
            rearrange(np.asarray(x[0, :n], np.float64), "n y x k -> n (k y x)")
            for x in self._demodulate(filled[None], jnp.full(1, spacing))
        )
        error = phase[:, indices] - known
        factor, loss = symbol_model.calibrate(error - np.round(error), scale[:, indices], lost[:, indices])
        scale, lost = symbol_model.adjusted(scale, lost, factor[:, None, None], loss[:, None, None])
        return np.stack([phase, scale[:, 0], lost[:, 0]]).astype(np.float64)


def blocks_of(height: int, width: int) -> int:
    """Count the blocks of a frame."""
    return (height // symbol_model.BLOCK) * (width // symbol_model.BLOCK)


def modulations_of(config: ConfigDict) -> list[tuple[int, int]]:
    """Return the pairs (symbols of a block, frames that share them) of a config's `modulations`.

    Raises:
        UserError: there are none, or they are out of range.
    """
    pairs = [(int(count), int(repeat)) for count, repeat in config.modulations]
    most = config.model.coefficients
    if not pairs or any(not (0 < n <= most and 0 < repeat <= SEGMENT) for n, repeat in pairs):
        raise UserError(
            f"config.modulations must be pairs of 1 to config.model.coefficients={most} coefficients and "
            f"1 to {SEGMENT} frames that share them"
        )
    return pairs


def luma_of(frames: np.ndarray) -> np.ndarray:
    """Return the luma, float32 [..., h', w'], of the whole blocks of RGB, uint8 [..., h, w, 3]."""
    return np.asarray(symbol_model.luma_of(jnp.asarray(frames)))


def repeated_means(luma: np.ndarray, repeat: int) -> np.ndarray:
    """Average luma [n, h, w] over each group of frames that share symbols, [ceil(n / repeat), h, w]."""
    return np.stack([luma[i : i + repeat].mean(0) for i in range(0, len(luma), repeat)])
