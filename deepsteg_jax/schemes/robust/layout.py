"""The layout of a segment: which symbols are pilots, header and layers, known to the key holder only.

Every frame gives some symbols to pilots, by which the receiver knows the frame again, some to grid pilots,
by which it finds the grid of blocks (`geometry`), every group of frames that share symbols some to
references, by which it measures the noise, and the quarters (levels 0 and 1) of some to the header. The other
quarters, in an order of its own for every segment, are dealt out to the layers that use quarters. Finer
levels belong to one layer each.

A frame's symbols lie carrier by carrier, in each the macroblocks row by row.
"""

from typing import NamedTuple

import numpy as np
from ml_collections import ConfigDict

from deepsteg_jax import keys
from deepsteg_jax.errors import UserError
from deepsteg_jax.keystream import numpy_bits, numpy_permutation
from deepsteg_jax.schemes.robust.geometry import turned
from deepsteg_jax.schemes.robust.levels import LEVELS

SEGMENT = 32  # frames hidden and revealed together
MOST_LAYERS = 6  # of a header
LEAST_PILOTS, MOST_PILOTS = 80, 240  # of a frame, and as many references
MOST_HEADER = 600  # symbols of a frame: large ones need no more

COARSE = (0, 1)  # the levels of a quarter of the circle
FINE = ()  # stands for symbols of their own, see `fine`


class Layer(NamedTuple):
    """One layer of a secret: each codes it for a worse or a better channel."""

    levels: tuple[int, ...]  # COARSE, consecutive ones from 2 on, or FINE
    share: float  # of the symbols whose quarters are free, for COARSE
    codecs: tuple[str, ...]  # names of the codec runs that it is to survive, see `channels.ladder`


def layers_of(config: ConfigDict) -> tuple[Layer, ...]:
    """Return the layers of a config's `secret_layers`, from the most robust to the finest.

    Raises:
        UserError: levels do not follow each other, shares do not make a whole, or there are too many layers.
    """
    given = config.secret_layers
    if len(given) > MOST_LAYERS:
        raise UserError(f"config.secret_layers: give at most {MOST_LAYERS}, not {len(given)}")
    named = [(FINE if levels == "fine" else tuple(map(int, levels)), *rest) for levels, *rest in given]
    layers = tuple(Layer(levels, share, tuple(codecs)) for levels, share, *codecs in named)
    used = [level for layer in layers if layer.levels != COARSE for level in layer.levels]
    coarse = sum(layer.share for layer in layers if layer.levels == COARSE)
    fine = [layer.levels for layer in layers[:-1]].count(FINE)
    if used != list(range(2, 2 + len(used))) or len(used) > LEVELS - 2 or not 0 < coarse <= 1 + 1e-9 or fine:
        raise UserError(
            'config.secret_layers: first layers of the levels "01" whose shares add up to at most 1, then '
            '"2", "3", ... in this order, each level once, and at the end "fine" or not'
        )
    return layers


class Layout(NamedTuple):
    """Of the frames of one slot."""

    own: np.ndarray  # which symbols of a frame belong to the slot, bool [symbols]
    grid: np.ndarray  # int: indices of symbols in a frame, like the four below
    grid_start: np.ndarray  # bits of the grid's pilots, uint8 [n, LEVELS], see `geometry.turned`
    pilots: np.ndarray
    references: np.ndarray
    header: np.ndarray
    data: np.ndarray
    order_key: bytes
    pilot_key: bytes

    @property
    def symbols(self) -> int:
        """Symbols of a frame, of all slots."""
        return len(self.own)

    def grid_bits(self, frame: int) -> np.ndarray:
        """Return all bits of a frame's grid pilots, uint8 [grid pilots, LEVELS]."""
        return turned(self.grid_start, frame)

    def pilot_bits(self, frame: int) -> np.ndarray:
        """Return all bits of a frame's pilots, uint8 [pilots, LEVELS]."""
        return self._known_bits(2 * frame)

    def reference_bits(self, frame: int) -> np.ndarray:
        """Return all bits of the references of a group, by its first frame, uint8 [references, LEVELS]."""
        return self._known_bits(2 * frame + 1)

    def _known_bits(self, number: int) -> np.ndarray:
        return numpy_bits(self.pilot_key, number, LEVELS * len(self.pilots)).reshape(-1, LEVELS)

    def coarse_indices(self, segment: int, frames: int, shares: list[float]) -> list[np.ndarray]:
        """Return, for each coarse layer, the indices of its symbols in a segment [frames * symbols]."""
        of_frames = (np.arange(frames)[:, None] * self.symbols + self.data).ravel()
        shuffled = of_frames[numpy_permutation(self.order_key, 2 * segment, len(of_frames))]
        ends = np.round(np.cumsum(shares) * len(shuffled)).astype(int)
        return np.split(shuffled, ends)[: len(shares)]

    def finer_indices(self, segment: int, frames: int) -> np.ndarray:
        """Return a segment's indices without pilots and references, in the order of the finer levels."""
        of_frames = (np.arange(frames)[:, None] * self.symbols + np.append(self.header, self.data)).ravel()
        return of_frames[numpy_permutation(self.order_key, 2 * segment + 1, len(of_frames))]


def _overhead_sizes(symbols: int, header_bits: int, overhead: ConfigDict, grid: int) -> tuple[int, int]:
    """Return the numbers of symbols of a frame for pilots (as many are references) and header; see `make`.

    Raises:
        UserError: frames are too small for them.
    """
    pilots = int(np.clip(round(symbols * overhead.pilots), LEAST_PILOTS, MOST_PILOTS))
    header = min(max(round(symbols * overhead.header), min(header_bits, symbols // 4)), MOST_HEADER)
    if grid + 2 * pilots + header >= symbols:
        raise UserError("these frames are too small to carry anything: use larger ones")
    return pilots, header


def make(
    master: bytes,
    own: np.ndarray,
    header_bits: int,
    overhead: ConfigDict,
    grid: tuple[np.ndarray, np.ndarray],
) -> Layout:
    """Return the layout of frames for the holder of a key.

    Args:
        master: key.
        own: which of a frame's symbols belong to the slot, bool [symbols].
        header_bits: bits of a header.
        overhead: shares of the symbols, `pilots`, as many of which are references, and `header`.
        grid: symbols of a frame that are grid pilots, and their bits, see `geometry.Grid.symbols`.

    Raises:
        UserError: frames are too small for pilots and header.
    """
    pilots, header = _overhead_sizes(int(own.sum()), header_bits, overhead, len(grid[0]))
    order = numpy_permutation(keys.subkey(master, "robust places"), 0, len(own))
    free = order[own[order] & ~np.isin(order, grid[0])]
    parts = np.split(free, [pilots, 2 * pilots, 2 * pilots + header])
    return Layout(
        own, *grid, *parts, keys.subkey(master, "robust order"), keys.subkey(master, "robust pilots")
    )
