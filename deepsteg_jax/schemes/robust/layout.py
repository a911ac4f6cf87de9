"""The layout of a segment: which symbols are pilots, header and layers, known to the key holder only.

Every frame gives some symbols to pilots, by which the receiver knows the frame again, some to grid pilots,
by which it finds the grid of blocks (`geometry`), every group of frames that share symbols some to
references, by which it measures the noise, and the quarters (levels 0 and 1) of some to the header. The other
quarters, in an order of its own for every segment, are dealt out to the layers that use quarters. Finer
levels belong to one layer each. Of still images pilots, header and the first layer, in this order, have the
lowest coefficients, which outlast rescaling best.

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
MOST_HEADER_ALONE = 4000  # of a still image

COARSE = (0, 1)  # the levels of a quarter of the circle
HALF = (0,)  # one bit, in both: the symbol is turned by half a circle, which outlasts most
FINE = ()  # stands for symbols of their own, see `fine`


class Layer(NamedTuple):
    """One layer of a secret: each codes it for a worse or a better channel."""

    levels: tuple[int, ...]  # COARSE or HALF, consecutive ones from 2 on, or FINE
    share: float  # of the symbols whose quarters are free, for COARSE and HALF
    codecs: tuple[str, ...]  # names of the codec runs that it is to survive, see `channels.ladder`

    @property
    def coarse(self) -> bool:
        """Whether it uses quarters."""
        return self.levels in (COARSE, HALF)


def layers_of(config: ConfigDict) -> tuple[Layer, ...]:
    """Return the layers of a config's `secret_layers`, from the most robust to the finest.

    Raises:
        UserError: levels do not follow each other, shares do not make a whole, a layer has no codec run, or
            there are too many layers.
    """
    given = config.secret_layers
    if len(given) > MOST_LAYERS:
        raise UserError(f"config.secret_layers: give at most {MOST_LAYERS}, not {len(given)}")
    named = [(FINE if levels == "fine" else tuple(map(int, levels)), *rest) for levels, *rest in given]
    layers = tuple(Layer(levels, share, tuple(codecs)) for levels, share, *codecs in named)
    if not all(layer.codecs for layer in layers):
        raise UserError("config.secret_layers: name a codec run for each layer, such as CRF25")
    used = [level for layer in layers if not layer.coarse for level in layer.levels]
    coarse = sum(layer.share for layer in layers if layer.coarse)
    fine = [layer.levels for layer in layers[:-1]].count(FINE)
    if used != list(range(2, 2 + len(used))) or len(used) > LEVELS - 2 or not 0 < coarse <= 1 + 1e-9 or fine:
        raise UserError(
            'config.secret_layers: first layers of the levels "01" or "0" whose shares add up to at most 1, '
            'then "2", "3", ... in this order, each level once, and at the end "fine" or not'
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
    coefficient: int  # symbols of a coefficient where the first layer has the lowest ones, else 0

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
        if self.coefficient:
            first = _rising(shuffled, self.coefficient)[: round(shares[0] * len(shuffled))]
            shuffled = np.append(first, shuffled[~np.isin(shuffled, first)])
        ends = np.round(np.cumsum(shares) * len(shuffled)).astype(int)
        return np.split(shuffled, ends)[: len(shares)]

    def finer_indices(self, segment: int, frames: int) -> np.ndarray:
        """Return a segment's indices without pilots and references, in the order of the finer levels."""
        of_frames = (np.arange(frames)[:, None] * self.symbols + np.append(self.header, self.data)).ravel()
        return of_frames[numpy_permutation(self.order_key, 2 * segment + 1, len(of_frames))]


def _rising(indices: np.ndarray, coefficient: int) -> np.ndarray:
    """Sort a still image's symbols by their coefficient; those of one stay in order."""
    return indices[np.argsort(indices // coefficient, kind="stable")]


def _overhead_sizes(
    symbols: int, header_bits: int, overhead: ConfigDict, grid: int, most_header: int
) -> tuple[int, int]:
    """Return the numbers of symbols of a frame for pilots (as many are references) and header; see `make`.

    Raises:
        UserError: frames are too small for them.
    """
    pilots = int(np.clip(round(symbols * overhead.pilots), LEAST_PILOTS, MOST_PILOTS))
    header = min(max(round(symbols * overhead.header), min(header_bits, symbols // 4)), most_header)
    if grid + 2 * pilots + header >= symbols:
        raise UserError("these frames are too small to carry anything: use larger ones")
    return pilots, header


def make(
    master: bytes,
    own: np.ndarray,
    header_bits: int,
    overhead: ConfigDict,
    grid: tuple[np.ndarray, np.ndarray],
    coefficient: int = 0,
) -> Layout:
    """Return the layout of frames for the holder of a key.

    Args:
        master: key.
        own: which of a frame's symbols belong to the slot, bool [symbols].
        header_bits: bits of a header.
        overhead: shares of the symbols, `pilots`, as many of which are references, and `header`.
        grid: symbols of a frame that are grid pilots, and their bits, see `geometry.Grid.symbols`.
        coefficient: of a still image, the number of symbols of one coefficient; else 0.

    Raises:
        UserError: frames are too small for pilots and header.
    """
    most = MOST_HEADER_ALONE if coefficient else MOST_HEADER
    pilots, header = _overhead_sizes(int(own.sum()), header_bits, overhead, len(grid[0]), most)
    order = numpy_permutation(keys.subkey(master, "robust places"), 0, len(own))
    free = order[own[order] & ~np.isin(order, grid[0])]
    if coefficient:
        lowest = np.isin(free, _rising(free, coefficient)[:pilots])
        free = np.append(free[lowest], free[~lowest])
        free[2 * pilots :] = _rising(free[2 * pilots :], coefficient)
    parts = np.split(free, [pilots, 2 * pilots, 2 * pilots + header])
    of_order, of_pilots = (keys.subkey(master, f"robust {purpose}") for purpose in ("order", "pilots"))
    return Layout(own, *grid, *parts, of_order, of_pilots, coefficient)
