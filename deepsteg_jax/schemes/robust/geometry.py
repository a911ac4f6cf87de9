"""Find how a received picture lies in the stego it was made from: scaled, cropped or between bars.

Some symbols of every frame, the grid pilots, lie at places that repeat every TILE blocks, whatever the size
of the stego, and turn by half a circle every two frames. The receiver scales what it got by one factor after
the other, reads blocks at all offsets, and correlates them with the pattern (FFT): where it agrees, scale and
offset are right. The turns take away what stands still in the picture itself.
"""

from collections.abc import Iterator
from functools import partial
from itertools import product
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.optimize import minimize

from deepsteg_jax import keys
from deepsteg_jax.dct import dct_matrix
from deepsteg_jax.keystream import numpy_bits, numpy_permutation
from deepsteg_jax.models.symbols import BLOCK, MACROBLOCK, Carriers
from deepsteg_jax.schemes.robust import levels

TILE = 32  # blocks, after which the pattern repeats
DENSITY = 1 / 34  # share of the blocks of each coefficient that are pilots
_LOWEST = 3  # coefficients of a block that have pilots
_WINDOW = 128, 224  # samples of a plane that are searched, at its centre
FRAMES = 16  # that are searched together
SPACINGS = 16.0 * 2 ** (np.arange(21) / 8)  # all spacings D: 16 to 90.5
_SEARCHED = 36.0, 55.0  # D: pilots of others are read nearly as well with the nearest
_STEP = 0.02  # between scales that are tried, as a logarithm
_LEAST, _MOST = 0.5, 1.5  # of a received picture, of its size before
_BEYOND_CHANCE = 7.5  # score that no candidate of a search reaches by chance
_MOST_CROPPED = 0.12  # of each side
_NEAR, _AS_WELL = 2.0, 0.9  # samples; share of the best agreement
_BLACK = 32  # luma of bars, at most
_USUAL = 1, 2 / 3, 3 / 4, 1 / 2, 4 / 3, 3 / 2, 0.9, 5 / 6, 0.6, 5 / 4  # scales that are tried first


class Geometry(NamedTuple):
    """The stego's size, and where a received sample lies in it: at scale * sample + offset, each (y, x).

    Positions are those of edges, so that a sample's centre is at + 1/2; in samples of luma.
    """

    size: tuple[int, int]
    scale: tuple[float, float]
    offset: tuple[float, float]

    def rectify(self, planes: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
        """Return planes [h, w] in the stego's size, uint8; black where nothing was received."""
        return tuple(_resample(self, planes[0].shape, plane) for plane in planes)

    def received(self, shape: tuple[int, int]) -> np.ndarray:
        """Return which macroblocks of the stego were received whole, of h x w, bool [rows, columns]."""
        whole = []
        for size, length, scale, offset in zip(self.size, shape, self.scale, self.offset, strict=True):
            first = MACROBLOCK * np.arange(size // MACROBLOCK)
            whole.append((first > offset - 1) & (first + MACROBLOCK < scale * length + offset + 1))
        return whole[0][:, None] & whole[1]


def _resample(geometry: Geometry, whole: tuple[int, int], plane: np.ndarray) -> np.ndarray:
    """Resample one plane of a frame whose luma is `whole`."""
    across = np.array(plane.shape) / whole  # 1/2 for colour of 4:2:0
    size = tuple(int(round(a * b)) for a, b in zip(geometry.size, across, strict=True))
    offset = np.float32(geometry.offset * across)
    moved = _scaled(plane.astype(np.float32), np.float32(geometry.scale), offset, size)
    return np.asarray(moved)


@partial(jax.jit, static_argnames="size")
def _scaled(planes, scale, offset, size):
    return jnp.clip(jnp.round(_window(planes, scale, offset, size)), 0, 255).astype(jnp.uint8)


def _window(planes, scale, offset, size):
    """Resample planes [..., h, w] to `size`; a sample moves to scale * sample + offset."""
    axes = planes.ndim - 2, planes.ndim - 1
    shape = *planes.shape[:-2], *size
    return jax.image.scale_and_translate(planes, shape, axes, scale, offset, "cubic")


class Grid(NamedTuple):
    """The pattern of a key: kinds are coefficients of planes, TILE x TILE blocks each."""

    planes: tuple[int, ...]  # that have pilots: 0 luma, 1 and 2 colour
    coefficients: tuple[int, ...]  # place in a block, row by row; each in each of these planes
    there: np.ndarray  # bool [planes, coefficients, TILE, TILE]
    bits: np.ndarray  # uint8 [planes, coefficients, TILE, TILE, LEVELS], see `turned`

    def symbols(self, carriers: Carriers, rows: int, columns: int) -> tuple[np.ndarray, np.ndarray]:
        """Return which symbols of a frame are pilots, int [n], and their bits, see `turned`, [n, LEVELS]."""
        y, x = np.mgrid[:rows, :columns]
        indices, bits = [], []
        for k, (block, coefficient) in enumerate(zip(carriers.blocks, carriers.coefficients, strict=True)):
            plane, side = (0, 2) if block < 4 else (block - 3, 1)
            if plane in self.planes and coefficient in self.coefficients:
                kind = self.planes.index(plane), self.coefficients.index(coefficient)
                at = (side * y + block % 4 // 2) % TILE, (side * x + block % 2 * (side - 1)) % TILE
                there = self.there[kind][at].ravel()
                indices.append(k * rows * columns + np.flatnonzero(there))
                bits.append(self.bits[kind][at].reshape(-1, levels.LEVELS)[there])
        return np.concatenate(indices), np.concatenate(bits)

    def waves(self) -> np.ndarray:
        """Return the coefficients' waves, float32 [coefficients, 8, 8]."""
        waves = np.kron(dct_matrix(BLOCK), dct_matrix(BLOCK)).astype(np.float32)
        return waves[np.array(self.coefficients)].reshape(-1, BLOCK, BLOCK)

    def points(self) -> np.ndarray:
        """Return the pilots of the first frame on the unit circle, complex64; 0 elsewhere."""
        angles = np.exp(2j * np.pi * levels.to_phases(self.bits))
        return np.where(self.there, angles, 0).astype(np.complex64)


def make_grid(carriers: Carriers, master: bytes) -> Grid:
    """Return the pattern of the holder of a master key."""
    planes = tuple(sorted({0 if block < 4 else int(block) - 3 for block in carriers.blocks}))
    coefficients = tuple(map(int, dict.fromkeys(carriers.coefficients)))[:_LOWEST]
    shape = len(planes), len(coefficients), TILE, TILE
    count = int(np.prod(shape))
    there = np.zeros(count, bool)
    key = keys.subkey(master, "robust grid")
    there[numpy_permutation(key, 0, count)[: round(DENSITY * count)]] = True
    bits = numpy_bits(key, 1, count * levels.LEVELS).reshape(*shape, levels.LEVELS)
    return Grid(planes, coefficients, there.reshape(shape), bits)


def turned(bits: np.ndarray, frame: int) -> np.ndarray:
    """Return the bits of pilots in a frame from those in the first one."""
    return bits ^ np.array([frame % 4 // 2] * 2 + [0] * (levels.LEVELS - 2), np.uint8)


# --- search ---------------------------------------------------------------------------------------


class _Hit(NamedTuple):
    """A place where a received picture agrees with the pattern, in samples of the pilots' planes."""

    score: float  # 1: the deviation of chance
    scale: np.ndarray  # (y, x)
    offset: np.ndarray  # (y, x)
    spacing: float
    signs: np.ndarray  # of the frames


def find(planes: tuple[np.ndarray, ...], grid: Grid) -> Iterator[Geometry]:
    """Yield geometries that received frames may have, the likeliest first; they differ in the size alone.

    Args:
        planes: of some consecutive frames, [n, h, w] each.
        grid: of the key.
    """
    ratio = 2 if grid.planes[0] else 1
    for top, bottom, left, right in _pictures(planes[0]):
        cut = tuple(slice(a // ratio, b // ratio) for a, b in ((top, bottom), (left, right)))
        received = np.stack([planes[i][(slice(FRAMES), *cut)] for i in grid.planes], 1).astype(np.float32)
        hit = _search(received, grid, _scales())
        if hit:
            scale, offset = _refined(received, grid, hit)
            for size in _sizes(ratio * scale * received.shape[2:], ratio * offset):
                yield Geometry(size, tuple(scale), tuple(ratio * offset - scale * (top, left)))


def _pictures(luma: np.ndarray) -> list[tuple[int, int, int, int]]:
    """Return (top, bottom, left, right) of the picture between black bars, if there are such, and of all."""
    h, w = luma.shape[1:]
    bright = luma.max(0) > _BLACK
    inside = []
    for lines in (bright.any(1), bright.any(0)):
        seen = np.flatnonzero(lines)
        first, last = (seen[0], seen[-1] + 1) if len(seen) else (0, len(lines))
        inside += [first + first % 2, last - last % 2]
    return list(dict.fromkeys([tuple(map(int, inside)), (0, h, 0, w)]))


def _scales() -> list[tuple[float, float]]:
    """Return the scales (y, x) of a received picture, of its size before, that are tried in turn."""
    every = np.exp(np.arange(np.log(_LEAST), np.log(_MOST) + _STEP, _STEP))
    return [(scale, scale) for scale in [*_USUAL, *every]]


@partial(jax.jit, static_argnames="size")
def _correlate(planes, scale, waves, spectrum, signs, size):
    """Correlate with the pattern at all offsets.

    Args:
      planes: received, [n, planes, h, w].
      scale: (y, x) by which they are scaled.
      waves: of the coefficients.
      spectrum: conjugated Fourier transform of `Grid.points`.
      signs: of the frames, [m, n].
      size: of the window that is searched.

    Returns:
      The best score for each D and signs, and its index (block's phase y, x, tile's offset y, x).
    """
    n, count, h, w = planes.shape
    offset = (jnp.array(size) - scale * jnp.array([h, w])) / 2
    window = _window(planes, scale, offset, size)
    pad = (0, BLOCK - 1)
    maps = jax.lax.conv(window.reshape(-1, 1, *size), waves[:, None], (1, 1), "VALID")
    maps = jnp.pad(maps, ((0, 0), (0, 0), pad, pad)).reshape(n, count * len(waves), *size)

    def with_spacing(spacing):
        turns = 2 * jnp.pi / spacing * maps
        sums = jax.lax.complex(*(jnp.tensordot(signs, part(turns), 1) for part in (jnp.cos, jnp.sin)))
        return jax.lax.map(agreement, sums)

    def agreement(z):
        z = z.reshape(-1, size[0] // BLOCK, BLOCK, size[1] // BLOCK, BLOCK).transpose(2, 4, 0, 1, 3)
        energy = jnp.sum(jnp.square(jnp.abs(z)), (2, 3, 4), keepdims=True)[..., 0]
        found = jnp.fft.ifft2((jnp.fft.fft2(z, (TILE, TILE)) * spectrum).sum(2))
        score = jnp.abs(found) / jnp.sqrt(energy * DENSITY / 2 + 1e-6)
        best = jnp.argmax(score)
        return score.ravel()[best], best

    return jax.lax.map(with_spacing, jnp.array(_SEARCHED))


def _search(planes: np.ndarray, grid: Grid, scales) -> _Hit | None:
    """Return the first hit among scales (y, x) of the received, of its size before; None: there is none."""
    spectrum = np.conj(np.fft.fft2(grid.points().reshape(-1, TILE, TILE))).astype(np.complex64)
    signs = _signs(len(planes))
    for scale in scales:
        scale = 1 / np.array(scale, np.float32)
        found = _correlate(planes, scale, grid.waves(), spectrum, signs, _WINDOW)
        scores, places = map(np.asarray, found)
        i = np.unravel_index(np.argmax(scores), scores.shape)
        if scores[i] > _BEYOND_CHANCE:
            phase_y, phase_x, *tile = np.unravel_index(places[i], (BLOCK, BLOCK, TILE, TILE))
            # The window's blocks, moved by -tile, agree: in the pattern they lie that far on.
            ahead = -np.array(tile) % TILE * BLOCK - np.array([phase_y, phase_x])
            offset = (np.array(_WINDOW) - scale * planes.shape[2:]) / 2 + ahead
            offset = (offset + BLOCK) % (TILE * BLOCK) - BLOCK  # a picture begins within the first tile
            return _Hit(float(scores[i]), scale, offset, _SEARCHED[i[0]], signs[i[1]])
    return None


def _signs(count: int) -> np.ndarray:
    """Return the signs that `turned` may give consecutive frames, float32 [2, count]; others are opposite."""
    return np.where((np.arange(count) + np.arange(2)[:, None]) % 4 < 2, 1, -1).astype(np.float32)


# --- refinement -----------------------------------------------------------------------------------


@partial(jax.jit, static_argnames="size")
def _agreement(planes, scale, offset, waves, points, signs, spacing, size):
    """Return how well blocks at one place agree with the pattern's points [kinds, rows, columns]."""
    window = _window(planes, scale, offset, size)
    blocks = window.reshape(*window.shape[:2], size[0] // BLOCK, BLOCK, size[1] // BLOCK, BLOCK)
    values = jnp.einsum("npyaxb,cab->npcyx", blocks, waves)
    turns = 2 * jnp.pi / spacing * values.reshape(len(values), *points.shape)
    z = jnp.tensordot(signs, jax.lax.complex(jnp.cos(turns), jnp.sin(turns)), 1)
    return jnp.abs(jnp.sum(z * jnp.conj(points)))


def _refined(planes: np.ndarray, grid: Grid, hit: _Hit) -> tuple[np.ndarray, np.ndarray]:
    """Return the likeliest (scale, offset) near a hit; exactly that of a whole picture, if it is one."""
    shape, middle = np.array(planes.shape[2:]), np.array(planes.shape[2:]) / 2
    few = max(4, min(len(planes), int(len(planes) * np.prod(_WINDOW) / np.prod(hit.scale * shape))))
    # The window begins with a whole block, some samples before the picture.
    first = np.floor(hit.offset / BLOCK).astype(int) - 1
    size = tuple(int(x) for x in (np.ceil(hit.scale * shape / BLOCK) + 3).astype(int) * BLOCK)
    rows, columns = (np.arange(n // BLOCK) + begin for n, begin in zip(size, first, strict=True))
    points = grid.points().reshape(-1, TILE, TILE)[:, rows[:, None] % TILE, columns % TILE]

    def agreement(scale, offset, spacing):
        place = np.float32(scale), np.float32(offset - BLOCK * first)
        found = _agreement(planes[:few], *place, grid.waves(), points, hit.signs[:few], spacing, size)
        return float(found)

    def moved(x):
        scale = hit.scale * np.exp(_STEP / 2 * x[:2])
        return scale, hit.offset + (hit.scale - scale) * middle + x[2:]

    x, spacing = np.zeros(4), hit.spacing
    for _ in range(2):  # with a D nearby, then with the right one
        spacing = max(SPACINGS, key=lambda d: agreement(*moved(x), d)) if x.any() else spacing
        simplex = x + np.concatenate([np.zeros((1, 4)), np.eye(4)]) - 0.2
        options = {"initial_simplex": simplex, "xatol": 0.02, "fatol": 0.0, "maxfev": 120}
        found = minimize(lambda x, d: -agreement(*moved(x), d), x, (spacing,), "Nelder-Mead", options=options)
        x = found.x
    scale, offset = moved(x)
    plain = list(_plain(scale, offset, shape))
    scores = [agreement(*place, spacing) for place in plain]
    best = int(np.argmax(scores)) if plain else None
    return plain[best] if plain and scores[best] > _AS_WELL * -found.fun else (scale, offset)


def _plain(scale, offset, shape):
    """Yield (scale, offset) of whole pictures with even sides and of parts that were not scaled, nearby."""
    around = list(product((-2, -1, 0, 1, 2), repeat=2))
    if np.abs(offset).max() < _NEAR:
        yield from ((np.round(scale * shape + move) / shape, np.zeros(2)) for move in around)
    if np.abs((scale - 1) * shape).max() < 2 * _NEAR:
        yield from ((np.ones(2), np.round(offset + move)) for move in around)


def _sizes(extent: np.ndarray, offset: np.ndarray) -> Iterator[tuple[int, int]]:
    """Yield sizes, whole macroblocks, that a stego of which `extent` was received at `offset` may have.

    As much may be missing at the other side as on this one; more or less is less likely.
    """
    sides = []
    for length, at in zip(extent, offset, strict=True):
        likely = (length + 2 * max(at, 0)) / MACROBLOCK
        least, most = (length + at) / MACROBLOCK, (length + at) / (1 - _MOST_CROPPED) / MACROBLOCK
        whole = at < _NEAR and abs(round(length) - length) < 1e-3
        counts = [int(likely + 1e-3)] if whole else range(int(least), int(np.ceil(most)) + 1)
        sides.append([(abs(count + 0.5 - likely), count) for count in counts])
    for (_, rows), (_, columns) in sorted(product(*sides), key=lambda pair: pair[0][0] + pair[1][0]):
        yield MACROBLOCK * rows, MACROBLOCK * columns
