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
from deepsteg_jax.models.symbols import Carriers, Frames
from deepsteg_jax.schemes.robust.layout import SEGMENT

_CALIBRATE = jax.jit(symbol_model.calibrate, static_argnames="top")
_reduce = jax.jit(symbol_model.reduce_planes, static_argnums=1)
_MULTIPLE = 8  # numbers of frames are filled up to multiples of it, so that few programs are compiled


class Modulation(NamedTuple):
    """The parameters with which symbols are written."""

    spacing: float  # D
    repeat: int  # frames that share their symbols


class Modem:
    """Write symbols into frames and read them, with the network of a config; keeps compiled programs."""

    def __init__(self, config: ConfigDict, params: Any, lines: int = 0):
        """Compile for section `model` of a config and `params` of either side; `lines`: see `block_scale`."""
        carriers = symbol_model.carriers_of(config)
        self._lines, self._colour_alone = lines, not config.luma
        self._top = symbol_model.top_of(config)
        self._demodulate = jax.jit(partial(symbol_model.demodulate, config, params))
        self._write = jax.jit(partial(_write, carriers), static_argnames="repeat")
        self._write_pilots = jax.jit(partial(_write_pilots, carriers))
        self._read = jax.jit(partial(symbol_model.read_values, carriers=carriers))

    def write(self, cover: Frames, phases: np.ndarray, how: Modulation, pilots) -> Frames:
        """Write phases [ceil(n / repeat), symbols] into n frames; return the stego, uint8.

        `pilots`: which symbols of a frame they are, and their phases [n, m]; no two frames share them.
        """
        scale = self._scale_of(cover)
        stego = self._write(self.reduced(cover), phases, how.spacing, how.repeat)
        if how.repeat > 1:
            stego = self._write_pilots(stego, *pilots, how.spacing)
        if scale > 1:
            carry = [not self._colour_alone, True, True]
            planes = zip(cover, stego, carry, strict=True)
            moved = [_enlarge(old, new, scale) if here else old for old, new, here in planes]
            stego = jax.tree.unflatten(jax.tree.structure(cover), moved)
        return jax.tree.map(np.asarray, stego)

    def reduced(self, frames: Frames) -> Frames:
        """Return frames in the size in which blocks of symbols are BLOCK samples wide."""
        scale = self._scale_of(frames)
        return frames if scale == 1 else jax.tree.map(np.asarray, _reduce(tuple(frames), scale))

    def _scale_of(self, frames: Frames) -> int:
        if not isinstance(frames, tuple):
            return 1
        return symbol_model.block_scale(self._lines, *frames[0].shape[-2:])

    def values(self, planes: tuple[np.ndarray, ...]) -> np.ndarray:
        """Return the symbols' coefficients in a reduced frame, [symbols], in units of D / spacing."""
        return rearrange(np.asarray(self._read(planes)), "y x k -> (k y x)")

    def read(
        self, planes: tuple[np.ndarray, ...], spacing: float, indices: np.ndarray, known: np.ndarray
    ) -> np.ndarray:
        """Demodulate and calibrate.

        Args:
            planes: [n, ...], of reduced frames or means of those that share symbols.
            spacing: D.
            indices: symbols of a frame that are known, int [m].
            known: their phases, [n, m].

        Returns:
            Phase, scale and loss, float64 [3, n, symbols]; see `symbol_model.demodulate`.
        """
        n = len(planes[0])
        filled = [np.pad(x, ((0, -n % _MULTIPLE), (0, 0), (0, 0)), mode="edge") for x in planes]
        phase, scale, lost = (
            rearrange(np.asarray(x[0, :n], np.float64), "n y x k -> n (k y x)")
            for x in self._demodulate(tuple(x[None] for x in filled), jnp.full(1, spacing))
        )
        error = phase[:, indices] - known
        factor, loss = _CALIBRATE(error - np.round(error), scale[:, indices], lost[:, indices], top=self._top)
        scale, lost = symbol_model.adjusted(scale, lost, factor[:, None, None], loss[:, None, None])
        return np.stack([phase, scale[:, 0], lost[:, 0]]).astype(np.float64)


def macroblocks_of(height: int, width: int) -> int:
    """Count the macroblocks of a frame."""
    return (height // symbol_model.MACROBLOCK) * (width // symbol_model.MACROBLOCK)


def repeats_of(config: ConfigDict) -> list[int]:
    """Return the numbers of frames that may share symbols, from a config's `repeats`.

    Raises:
        UserError: there are none, or they are out of range.
    """
    repeats = [int(repeat) for repeat in config.repeats]
    if not repeats or any(repeat < 1 or SEGMENT % repeat for repeat in repeats):
        raise UserError(
            f"config.repeats must be numbers of frames that share symbols: 1 or divisors of {SEGMENT}"
        )
    return repeats


def planes_of(frames: Frames) -> tuple[np.ndarray, ...]:
    """Return the planes that are read, of RGB luma alone, as arrays of NumPy."""
    return tuple(np.asarray(plane) for plane in symbol_model.planes_of(frames))


@partial(jax.jit, static_argnums=2)
def _enlarge(plane, goal, scale):
    return symbol_model.enlarge_change(plane, goal, scale).astype(jnp.uint8)


def _whole(frames: Frames) -> Frames:
    return jax.tree.map(lambda x: x.astype(jnp.uint8), frames)


def _framewise(symbols: jax.Array, frames: Frames) -> jax.Array:
    """Rearrange [n, symbols of a frame] to [n, rows, columns, symbols of a macroblock]."""
    plane = jax.tree.leaves(frames)[0]
    rows, columns = (length // symbol_model.MACROBLOCK for length in plane.shape[1:3])
    return rearrange(symbols, "n (k y x) -> n y x k", y=rows, x=columns)


def _write(carriers: Carriers, cover, phases, spacing, repeat):
    phases = _framewise(phases, cover)
    return _whole(symbol_model.write_repeated(cover, phases, spacing, carriers, repeat))


def _write_pilots(carriers: Carriers, frames, pilots, phases, spacing):
    plane = jax.tree.leaves(frames)[0]
    shape = len(plane), len(carriers.blocks) * macroblocks_of(*plane.shape[1:3])
    symbols = _framewise(jnp.zeros(shape).at[:, pilots].set(phases), frames)
    these = _framewise(jnp.zeros(shape, bool).at[:, pilots].set(True), frames)
    return _whole(symbol_model.write_some(frames, symbols, these, spacing, carriers))
