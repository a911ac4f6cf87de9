"""Find how a received picture lies in the stego it was made from: scaled, cropped, rotated or between bars.

Some symbols of every frame, the grid pilots, lie at places that repeat every TILE blocks, whatever the size
of the stego, and turn by half a circle every two frames. The receiver scales what it got by one factor after
the other, reads blocks at all offsets, and correlates them with the pattern (FFT): where it agrees, scale and
offset are right. The turns take away what stands still in the picture itself. A picture that was rotated is
rotated back by a few angles.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial
from itertools import chain, islice, product
from operator import attrgetter
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.ndimage import affine_transform
from scipy.optimize import minimize, minimize_scalar

from deepsteg_jax import keys
from deepsteg_jax.dct import dct_matrix
from deepsteg_jax.keystream import numpy_bits, numpy_permutation
from deepsteg_jax.models.symbols import BLOCK, MACROBLOCK, Carriers, block_scale
from deepsteg_jax.schemes.robust import levels
from deepsteg_jax.schemes.slots import ALONE, Slot

SLOTS = 2  # at most
TILE = 32  # blocks, after which the pattern repeats
DENSITY, DENSITY_IN_LUMA = 1 / 34, 1 / 12  # share of the blocks that are pilots, of each coefficient
_LOWEST = 3  # coefficients of a block that have pilots
_WINDOW, _STILL_WINDOW = (128, 224), (256, 448)  # samples of a plane that are searched, at its centre
FRAMES, _FEW = 48, 16  # that are searched together: all at the most usual scales, the last few at all
_THREADS = 2  # at work on scales; a correlation keeps one core busy
SPACINGS = 16.0 * 2 ** (np.arange(21) / 8)  # all spacings D: 16 to 90.5
# D: pilots of others are read nearly as well with the nearest; in luma, which has more in it, less so.
_SEARCHED, _SEARCHED_IN_LUMA = (36.0, 55.0), (17.4, 20.7, 24.7, 29.3)
_STEP = 0.02  # between scales that are tried, as a logarithm
_LEAST, _MOST = 0.5, 1.5  # of a received picture, of its size before
_BEYOND_CHANCE = 7.5  # score that no candidate of a search reaches by chance
_SURE = 12.0  # that busy pictures do not reach either: no better candidate is looked for
_LEAST_ENERGY = 0.05  # of random symbols': where hardly anything moves, single blocks would decide
_MOST_CROPPED = 0.12  # of each side
_NEAR, _AS_WELL = 2.0, 0.9  # samples; share of the best agreement
_STRETCHED_BY, _LARGE_BLOCKS = 0.05, 0.98  # stretching that is half as likely as none; likelihood
_BLOCK_SCALES = 1, 2, 3  # of the stego, that are thought of
_UNSCALED, _STRETCHED = 1e-3, 0.01  # deviations that are called none, and stretching
_BLACK = 32  # luma of bars, at most
_USUAL = 1, 2 / 3, 3 / 4, 1 / 2, 4 / 3, 3 / 2, 0.9, 5 / 6, 0.6, 5 / 4  # scales that are tried first
_MOST_USUAL = 4  # of them, that are tried in all frames, and for rotated pictures
_SIZES = (240, 320), (256, 448), (360, 640), (480, 640), (480, 720), (576, 720), (480, 854), (540, 960)
_SIZES += (720, 960), (720, 1280), (1080, 1920), (512, 512), (720, 720), (1080, 1080)  # (h, w) before
_ANGLES = -1.5, 1.5  # degrees: whoever was rotated by less is found as it is
_AROUND, _BETWEEN = (-1.5, -0.75, 0, 0.75, 1.5), 0.75  # degrees: tried at the scale of a hit
_UNROTATED, _NOT_WORTH = 0.15, 0.02  # degrees, and share of the agreement gained, that are called none
_RATES = 1, 4 / 5, 6 / 5, 8 / 5, 1 / 2, 2  # frames of the stego in one that is received


class Geometry(NamedTuple):
    """The stego's size, and where a received sample lies in it: at scale * sample + offset, each (y, x).

    Positions are those of edges, so that a sample's centre is at + 1/2; in samples of luma. They hold once
    the picture is rotated back about its centre, by as many degrees as `angle` says it was rotated clockwise.
    """

    size: tuple[int, int]
    scale: tuple[float, float]
    offset: tuple[float, float]
    angle: float = 0.0

    def rectify(self, planes: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
        """Return planes [h, w] in the stego's size, uint8; mirrored where nothing was received."""
        return tuple(_resample(self, planes[0].shape, plane) for plane in planes)

    def received(self, shape: tuple[int, int]) -> np.ndarray:
        """Return which macroblocks of the stego were received whole, of h x w, bool [rows, columns]."""
        corners = np.mgrid[tuple(slice(0, size + 1, MACROBLOCK) for size in self.size)]
        centre = np.array(shape) / 2
        unturned = (np.moveaxis(corners, 0, -1) - self.offset) / self.scale
        at = (unturned - centre) @ _rotation(self.angle) + centre
        near = 1 / np.array(self.scale)  # a sample of the stego
        inside = ((at > -near) & (at < shape + near)).all(-1)
        return inside[:-1, :-1] & inside[1:, :-1] & inside[:-1, 1:] & inside[1:, 1:]

    def describe(self, height: int, width: int) -> str:
        """Return, for the user, what happened to a stego that arrived in this size."""
        size, scale, offset = map(np.array, self[:3])
        end, found = scale * (height, width) + offset, []
        if not any(np.abs(blocks * scale - 1).max() < _UNSCALED for blocks in _BLOCK_SCALES):
            stretched = abs(scale[0] / scale[1] - 1) > _STRETCHED
            found.append(f"{'stretched' if stretched else 'rescaled'} to {width}x{height}")
        if (offset > 1).any() or (end < size - 1).any():
            found.append("cropped")
        if (offset < -1).any():
            found.append("put between bars")
        if self.angle:
            found.append(f"rotated by {abs(self.angle):.1f} degrees")
        return f"the stego was {' and '.join(found)}" if found else ""


def _resample(geometry: Geometry, whole: tuple[int, int], plane: np.ndarray) -> np.ndarray:
    """Resample one plane of a frame whose luma is `whole`."""
    across = np.array(plane.shape) / whole  # 1/2 for colour of 4:2:0
    size = tuple(int(round(a * b)) for a, b in zip(geometry.size, across, strict=True))
    offset = np.float32(geometry.offset * across)
    scale = np.float32(geometry.scale)
    unrotated = _rotated(plane.astype(np.float32), -geometry.angle, 3)
    moved = np.asarray(_scaled(unrotated, scale, offset, size))
    rows, columns = map(_mirrored, size, offset, offset + scale * plane.shape)
    return moved[rows[:, None], columns]


def _mirrored(size: int, begin: float, end: float) -> np.ndarray:
    """Return the index within [begin, end) that stands for each of `size`, as means over frames want it."""
    begin, end = int(np.ceil(max(begin, 0))), int(min(end, size))
    at = (np.arange(size) - begin) % (2 * (end - begin))
    return begin + np.minimum(at, 2 * (end - begin) - 1 - at)


def _rotation(angle: float) -> np.ndarray:
    """Return the matrix that takes (y, x) to its place before a clockwise rotation, in degrees."""
    cos, sin = np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))
    return np.array([[cos, -sin], [sin, cos]])


def _rotated(planes: np.ndarray, angle: float, order: int) -> np.ndarray:
    """Rotate planes [..., h, w] clockwise, in degrees, about their centre by splines of an order."""
    if not angle:
        return planes
    matrix, centre = _rotation(angle), (np.array(planes.shape[-2:]) - 1) / 2
    rotate = partial(affine_transform, matrix=matrix, offset=centre - matrix @ centre, order=order)
    flat = planes.reshape(-1, *planes.shape[-2:])
    return np.stack([rotate(plane, mode="mirror") for plane in flat]).reshape(planes.shape)


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

    def symbols(
        self, carriers: Carriers, rows: int, columns: int, slot: Slot = ALONE
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return which symbols of a frame are pilots, int [n], and their bits, see `turned`, [n, LEVELS].

        In each further slot the pattern lies one block more to the right, so that one search finds all.
        """
        indices, bits = [], []
        for k, (plane, coefficient, y, x) in enumerate(_blocks(carriers, rows, columns)):
            if plane in self.planes and coefficient in self.coefficients:
                kind = self.planes.index(plane), self.coefficients.index(coefficient)
                at = y % TILE, (x - slot.number) % TILE
                there = self.there[kind][at].ravel()
                indices.append(k * rows * columns + np.flatnonzero(there))
                bits.append(self.bits[kind][at].reshape(-1, levels.LEVELS)[there])
        return np.concatenate(indices), np.concatenate(bits)

    def waves(self) -> np.ndarray:
        """Return the coefficients' waves down and across a block, float32 [2, coefficients, 8]."""
        return dct_matrix(BLOCK).astype(np.float32)[np.stack(np.divmod(self.coefficients, BLOCK))]

    def points(self) -> np.ndarray:
        """Return the pilots of the first frame on the unit circle, complex64; 0 elsewhere."""
        angles = np.exp(2j * np.pi * levels.to_phases(self.bits))
        return np.where(self.there, angles, 0).astype(np.complex64)


def _blocks(carriers: Carriers, rows: int, columns: int) -> Iterator[tuple]:
    """Yield plane, coefficient, and (y, x) of the blocks, [rows, columns], of each symbol of a macroblock."""
    y, x = np.mgrid[:rows, :columns]
    for block, coefficient in zip(carriers.blocks, carriers.coefficients, strict=True):
        plane, side = (0, 2) if block < 4 else (int(block) - 3, 1)
        yield plane, int(coefficient), side * y + block % 4 // 2, side * x + block % 2 * (side - 1)


def _coefficients(carriers: Carriers) -> tuple[int, ...]:
    return tuple(map(int, dict.fromkeys(carriers.coefficients)))


def _belongs(slot: Slot, plane, order, y, x) -> np.ndarray:
    """Return whether blocks carry symbols of a slot in their coefficient of an `order`: a chequerboard."""
    return (plane + order + y + x) % slot.of == slot.number


def share(carriers: Carriers, rows: int, columns: int, slot: Slot) -> np.ndarray:
    """Return which symbols of a frame belong to a slot, bool [symbols]; everybody knows."""
    coefficients = _coefficients(carriers)
    blocks = _blocks(carriers, rows, columns)
    return np.concatenate(
        [_belongs(slot, plane, coefficients.index(i), y, x).ravel() for plane, i, y, x in blocks]
    )


def make_grid(carriers: Carriers, master: bytes) -> Grid:
    """Return the pattern of the holder of a master key, in blocks of the first of SLOTS slots."""
    planes = tuple(sorted({plane for plane, *_ in _blocks(carriers, 1, 1)}))
    coefficients = _coefficients(carriers)[:_LOWEST]
    shape = len(planes), len(coefficients), TILE, TILE
    count = int(np.prod(shape))
    there = np.zeros(count, bool)
    key = keys.subkey(master, "robust grid")
    density = DENSITY if planes[0] else DENSITY_IN_LUMA  # a still image is all there is to find it by
    plane, *others = np.indices(shape)
    order = numpy_permutation(key, 0, count)
    order = order[_belongs(Slot(0, SLOTS), np.array(planes)[plane], *others).ravel()[order]]
    there[order[: round(density * count)]] = True
    bits = numpy_bits(key, 1, count * levels.LEVELS).reshape(*shape, levels.LEVELS)
    return Grid(planes, coefficients, there.reshape(shape), bits)


def turned(bits: np.ndarray, frame: int) -> np.ndarray:
    """Return the bits of pilots in a frame from those in the first one."""
    return bits ^ np.array([frame % 4 // 2] * 2 + [0] * (levels.LEVELS - 2), np.uint8)


# --- search ---------------------------------------------------------------------------------------


class _Hit(NamedTuple):
    """A place where a received picture agrees with the pattern, in samples of the pilots' planes."""

    score: float
    scale: np.ndarray  # (y, x)
    offset: np.ndarray  # (y, x)
    spacing: float
    weights: np.ndarray  # of the frames, the last of those that were received
    angle: float = 0.0  # see `Geometry`


def find(planes: tuple[np.ndarray, ...], grid: Grid, lines: int) -> Iterator[tuple[int, Geometry]]:
    """Yield (number of the key's slot, geometry) that received frames may have.

    For each number the likeliest size comes first; scale and offset are the same.

    Args:
        planes: of at most FRAMES consecutive frames, [n, h, w] each.
        grid: of the key.
        lines: see `models.symbols.block_scale`.
    """
    ratio = 2 if grid.planes[0] else 1
    for top, bottom, left, right in _pictures(planes[0]):
        if min(bottom - top, right - left) < MACROBLOCK:
            continue
        cut = tuple(slice(a // ratio, b // ratio) for a, b in ((top, bottom), (left, right)))
        received = np.stack([planes[i][(slice(None), *cut)] for i in grid.planes], 1).astype(np.float32)
        if hit := _likeliest_hit(received, grid, bottom - top, right - left, lines):
            for number, (scale, offset, angle) in enumerate(_refined(received, grid, hit)):
                for size in _sizes(ratio * scale * received.shape[2:], ratio * offset):
                    placed = tuple(scale), tuple(ratio * offset - scale * (top, left)), angle
                    yield number, Geometry(size, *placed)


def _likeliest_hit(received: np.ndarray, grid: Grid, *size_and_lines: int) -> _Hit | None:
    """Return the best hit in planes [n, planes, h, w] of a picture; its angle is one of _AROUND."""
    usual, few = [*islice(_uniform_scales(*size_and_lines), len(_USUAL))], received[-_FEW:]
    # Sites spend their bits unevenly: some frames have pilots where others have none left.
    hits = [_search(received, grid, usual[:_MOST_USUAL], _RATES[:1], 1)] if len(received) > _FEW else []
    if not _sure(hits):
        hits.append(_search(few, grid, _uniform_scales(*size_and_lines), _RATES[:1], 1))
    if not _sure(hits):
        # A coarser search, for whole pictures alone, also thinks of other rates and shapes.
        hits.append(_search(few, grid, chain(usual, _other_scales(*size_and_lines)), _RATES, 2))
    for angle in _ANGLES:
        if not _sure(hits):
            hits.append(_search(few, grid, usual[:_MOST_USUAL], _RATES[:1], 1, angle))
    hit = _best(hits)
    around = [angle for angle in _AROUND if hit and angle != hit.angle]
    return _best([hit, *(_search(few, grid, [1 / hit.scale], _RATES[:1], 1, angle) for angle in around)])


def _best(hits: list[_Hit | None]) -> _Hit | None:
    return max(filter(None, hits), key=attrgetter("score"), default=None)


def _sure(hits: list[_Hit | None]) -> bool:
    best = _best(hits)
    return best is not None and best.score > _SURE


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


def _uniform_scales(height: int, width: int, lines: int) -> Iterator[tuple[float, float]]:
    """Yield the scales (y, x) of a received picture, of blocks of BLOCK samples, that are tried in turn."""
    short = min(height, width)

    def scale_of(usual: float) -> float:
        return usual * block_scale(lines, round(short / usual), round(short / usual))

    for usual in _USUAL:
        yield scale_of(usual), scale_of(usual)
    # Reduced, pictures with larger blocks have 3/4 to 5/4 of `lines`, others up to 3/2.
    least, most = _LEAST, _MOST
    if lines:
        least, most = max(least, short / (1.6 * lines)), max(most, short / (0.7 * lines))
    for scale in np.exp(np.arange(np.log(least), np.log(most) + _STEP, _STEP)):
        yield scale, scale


def _other_scales(height: int, width: int, lines: int) -> Iterator[tuple[float, float]]:
    """Yield the scales (y, x) of a picture that had one of the usual sizes and another shape."""
    for size in _SIZES:
        for sides in dict.fromkeys((size, size[::-1])):
            scale = np.array([height, width]) / sides
            if _LEAST < scale.min() < 0.99 * scale.max() < _MOST:
                yield tuple(block_scale(lines, *sides) * scale)


@partial(jax.jit, static_argnames=("size", "spacings", "stride"))
def _correlate(planes, scale, offset, waves, spectrum, weights, size, spacings, stride):
    """Correlate with the pattern at all offsets.

    Args:
      planes: received, [n, planes, h, w].
      scale: (y, x) by which they are scaled.
      offset: (y, x) of the received in the window that is searched.
      waves: of the coefficients.
      spectrum: conjugated Fourier transform of `Grid.points`, over its deviation by chance.
      weights: of the frames, see `_tones`, [m, 2, n].
      size: of the window.
      spacings: D that are tried.
      stride: between the blocks' phases that are tried, samples.

    Returns:
      For each D and tone, the best score, the tone's phase there, and its index (block's phase y, x, in units
      of `stride`, tile's offset y, x).
    """
    n, _, *shape = planes.shape
    window = _window(planes, scale, offset, size)
    window = jnp.pad(window, ((0, 0), (0, 0), (0, BLOCK - 1), (0, BLOCK - 1)))
    down, across = waves[..., None, None]
    # A block's sums down, then across, at every place.
    maps = window[:, :, None]
    maps = sum(down[:, i] * maps[..., i : i + size[0] : stride, :] for i in range(BLOCK))
    maps = sum(across[:, i] * maps[..., i : i + size[1] : stride] for i in range(BLOCK))
    maps = maps.reshape(n, -1, *maps.shape[3:])
    inside = [
        (at > start - 1) & (at + BLOCK < start + by * length + 1)
        for at, start, by, length in zip(
            (jnp.arange(0, side, stride) for side in size), offset, scale, shape, strict=True
        )
    ]
    inside = inside[0][:, None] & inside[1]

    power = jnp.square(weights).sum(2).T
    shares = _most(*power, (weights[:, 0] * weights[:, 1]).sum(1)) / power.sum(0)  # of one phase, of both
    least = _LEAST_ENERGY * power.sum(0) * maps.shape[1] * inside.sum() * (stride / BLOCK) ** 2

    def with_spacing(spacing):
        sums = (jnp.tensordot(weights, part, 1) for part in _on_circle(maps / spacing))
        return jax.lax.map(agreement, (jax.lax.complex(*sums) * inside, shares, least))

    def agreement(tone):
        z, share, least = tone
        rows, columns = (side // BLOCK for side in size)
        z = z.reshape(2, -1, rows, BLOCK // stride, columns, BLOCK // stride).transpose(3, 5, 0, 1, 2, 4)
        energy = share * (jnp.sum(jnp.square(jnp.abs(z)), (2, 3, 4, 5)) + least)[..., None, None]
        found = jnp.fft.ifft2((jnp.fft.fft2(_in_one_tile(z)) * spectrum).sum(3))
        # The largest part that both share for some phase of the tone: an eigenvalue of a 2x2 matrix.
        a, b = jnp.square(jnp.abs(found[:, :, 0])), jnp.square(jnp.abs(found[:, :, 1]))
        c = (found[:, :, 0] * jnp.conj(found[:, :, 1])).real
        score = jnp.sqrt(_most(a, b, c) / (energy + 1e-6))
        best = jnp.argmax(score)
        return score.ravel()[best], (jnp.arctan2(2 * c, a - b) / 2).ravel()[best], best

    return jax.lax.map(with_spacing, jnp.array(spacings))


def _on_circle(turns):
    """Return cosine and sine of 2 pi `turns` within 0.001, in half the time of exact ones."""

    def sine(x):  # by parabolas
        x = x - jnp.round(x)
        x = 8 * x * (1 - 2 * jnp.abs(x))
        return x * (0.775 + 0.225 * jnp.abs(x))

    return sine(turns + 0.25), sine(turns)


def _in_one_tile(z):
    """Add up what lies at the same place of tiles, [..., rows, columns] to [..., TILE, TILE]."""
    *n, rows, columns = z.shape
    pad = [(0, 0)] * len(n) + [(0, -rows % TILE), (0, -columns % TILE)]
    tiles = jnp.pad(z, pad).reshape(*n, -(-rows // TILE), TILE, -(-columns // TILE), TILE)
    return tiles.sum((-4, -2))


def _most(a, b, c):
    """Return the larger eigenvalue of the symmetric matrices [[a, c], [c, b]]."""
    return (a + b + jnp.hypot(a - b, 2 * c)) / 2


def _search(planes: np.ndarray, grid: Grid, scales, rates, stride: int, angle: float = 0) -> _Hit | None:
    """Return the first sure hit among scales (y, x) of the received, of its size before, else the best one.

    None: there is none. `angle`: by which the picture was rotated.
    """
    planes = _rotated(planes, -angle, 1)
    deviation = np.sqrt(grid.there.mean() / 2)
    spectrum = np.conj(np.fft.fft2(grid.points().reshape(-1, TILE, TILE)) / deviation).astype(np.complex64)
    size = _WINDOW if len(planes) > 1 else _STILL_WINDOW
    spacings = _SEARCHED if grid.planes[0] else _SEARCHED_IN_LUMA
    tones, waves, best = _tones(len(planes), rates), grid.waves(), None

    def hit_at(scale) -> _Hit | None:
        scale = 1 / np.array(scale, np.float32)
        # A picture that was not cropped has its blocks at phase 0.
        offset = BLOCK * np.round((np.array(size) - scale * planes.shape[2:]) / 2 / BLOCK)
        place = scale, offset.astype(np.float32)
        found = _correlate(planes, *place, waves, spectrum, tones, size, spacings, stride)
        scores, phases, places = map(np.asarray, found)
        i = np.unravel_index(np.argmax(scores), scores.shape)
        if scores[i] <= _BEYOND_CHANCE:
            return None
        *phase, tile_y, tile_x = np.unravel_index(places[i], (BLOCK // stride, BLOCK // stride, TILE, TILE))
        # The window's blocks, moved by -tile, agree: in the pattern they lie that far on.
        ahead = -np.array([tile_y, tile_x]) % TILE * BLOCK - stride * np.array(phase)
        # A picture begins within the first tile.
        offset = (offset + ahead + BLOCK) % (TILE * BLOCK) - BLOCK
        weights = np.array([np.cos(phases[i]), np.sin(phases[i])]) @ tones[i[1]]
        return _Hit(float(scores[i]), scale, offset, spacings[i[0]], weights.astype(np.float32), angle)

    with ThreadPoolExecutor(_THREADS, "geometry") as pool:
        for hit in pool.map(hit_at, scales):
            best = _best([best, hit])
            if _sure([best]):  # the scales that wait are dropped
                break
    return best


def _tones(count: int, rates) -> np.ndarray:
    """Return cosine and sine of the tone of `turned` at frame rates, float32 [rates, 2, count]."""
    angles = np.pi / 2 * np.outer(rates, np.arange(count))
    return np.stack([np.cos(angles), np.sin(angles)], 1).astype(np.float32)


# --- refinement -----------------------------------------------------------------------------------


class _Pilots:
    """Read the pilots of received frames at any place near a hit."""

    def __init__(self, planes: np.ndarray, grid: Grid, hit: _Hit):
        shape = np.array(planes.shape[2:])
        planes, count = planes[-len(hit.weights) :], len(hit.weights)
        few = max(4, int(min(_FEW, count) * min(1, np.prod(_WINDOW) / np.prod(hit.scale * shape))))
        spread = np.arange(count)[:: -(-count // few)]
        self._weights = hit.weights[spread]
        planes = _rotated(planes[spread], -hit.angle, 3)
        self._lines = np.ascontiguousarray(np.moveaxis(planes, 2, 0))
        # The blocks begin some samples before the picture.
        self._first = np.floor(hit.offset / BLOCK).astype(int) - 1
        self._blocks = np.ceil(hit.scale * shape / BLOCK).astype(int) + 3
        y, x = (np.arange(n) + begin for n, begin in zip(self._blocks, self._first, strict=True))
        points = np.conj(grid.points()[:, :, y[:, None] % TILE, x % TILE])
        self._there = np.nonzero(points)
        self._points, self._waves = points[self._there], grid.waves()
        self._down = lru_cache(maxsize=1)(self._sums_down)

    def agreement(self, scale: np.ndarray, offset: np.ndarray, spacing: float) -> float:
        """Return how well pilots read at a place (y, x) agree with those written with a D."""
        plane, kind, y, x = self._there
        down = self._down(scale[0], offset[0])[kind, y, :, plane]
        across = self._sums(1, scale[1], offset[1])[kind, x]
        turns = 2 * np.pi / spacing * np.einsum("mnw,mw->nm", down, across)
        return float(np.abs(self._weights @ np.exp(1j * turns) @ self._points))

    def _sums_down(self, scale: float, offset: float) -> np.ndarray:
        """Return the coefficients of each column, [coefficients, blocks, n, planes, w]."""
        return np.tensordot(self._sums(0, scale, offset), self._lines, 1)

    def _sums(self, axis: int, scale: float, offset: float) -> np.ndarray:
        """Return what coefficients of blocks are of an axis's samples, [coefficients, blocks, samples]."""
        length, blocks = self._lines.shape[3 * axis], int(self._blocks[axis])
        moved = _weights(scale, offset - BLOCK * self._first[axis], length, BLOCK * blocks)
        return np.tensordot(self._waves[axis], np.float32(moved).reshape(blocks, BLOCK, length), (1, 1))


def _weights(scale: float, offset: float, length: int, size: int) -> np.ndarray:
    """Return the matrix, float32 [size, length], by which `_window` resamples one axis (Keys 1981)."""
    at = (np.arange(size, dtype=np.float32) + 0.5 - np.float32(offset)) / np.float32(scale) - 0.5
    x = np.abs(at[:, None] - np.arange(length, dtype=np.float32)) * min(np.float32(scale), 1)
    far = np.where(x < 2, ((2.5 - 0.5 * x) * x - 4) * x + 2, 0)
    weights = np.where(x < 1, (1.5 * x - 2.5) * x * x + 1, far)
    inside = (at >= -0.5) & (at <= length - 0.5)
    return weights * (inside / np.where(inside, weights.sum(1), 1))[:, None]


def _refined(planes: np.ndarray, grid: Grid, hit: _Hit) -> Iterator[tuple[np.ndarray, np.ndarray, float]]:
    """Yield the likeliest (scale, offset, angle) near a hit for each slot; a whole picture is likelier."""
    shape, pilots = np.array(planes.shape[2:]), _Pilots(planes, grid, hit)

    def moved(x):
        scale = hit.scale * np.exp(_STEP / 2 * np.array([x[0] + x[1], x[0]]))
        return scale, hit.offset + (hit.scale - scale) * shape / 2 + x[2:]

    def likeliest(x, spacing, tolerance):
        simplex = x + np.concatenate([np.zeros((1, 4)), np.eye(4)]) - 0.2
        options = {"initial_simplex": simplex, "xatol": tolerance, "fatol": np.inf}

        def loss(x):
            return -_unstretched(_STEP / 2 * x[1]) * pilots.agreement(*moved(x), spacing)

        return minimize(loss, x, method="Nelder-Mead", options=options)

    x = likeliest(np.zeros(4), hit.spacing, 0.1).x  # with a D nearby, then with the right one
    spacing = max(SPACINGS, key=partial(pilots.agreement, *moved(x)))
    angle = _likeliest_angle(planes, grid, hit, lambda pilots: pilots.agreement(*moved(x), spacing))
    pilots = _Pilots(planes, grid, hit._replace(angle=angle))
    found = likeliest(x, spacing, 0.02)
    scale, offset = moved(found.x)
    for slot in range(SLOTS):
        right = np.array([0, slot * BLOCK])
        plain = list(_plain(scale, offset + right, shape, angle))
        scores = np.array([pilots.agreement(exact, at - right, spacing) for exact, at, _ in plain])
        best = int(np.argmax(scores * [likely for *_, likely in plain])) if plain else None
        likely = plain and scores[best] > _AS_WELL * -found.fun
        yield *(plain[best][:2] if likely else (scale, offset + right)), angle


def _likeliest_angle(planes: np.ndarray, grid: Grid, hit: _Hit, agreement) -> float:
    """Return the angle near a hit's with which pilots have the best `agreement`, or 0 if it is as good."""

    def loss(angle):
        return -agreement(_Pilots(planes, grid, hit._replace(angle=angle)))

    bounds = hit.angle - _BETWEEN, hit.angle + _BETWEEN
    found = minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 0.02})
    # By chance half the square of two standard deviations is gained.
    nothing = max(2 / hit.score**2, _NOT_WORTH)
    unrotated = abs(found.x) < _UNROTATED or loss(0.0) < (1 - nothing) * found.fun
    return 0.0 if unrotated else float(found.x)


def _unstretched(by: float) -> float:
    """Return how likely a stretch by exp(`by`) is: the pilots of a wide picture hardly tell."""
    return 1 / (1 + (by / _STRETCHED_BY) ** 2)


def _plain(scale, offset, shape, angle=0.0):
    """Yield (scale, offset, likelihood) of whole pictures with even sides and of unscaled parts, nearby.

    Parts of a rotated picture may begin within a sample.
    """
    around = list(product((-2, -1, 0, 1, 2), repeat=2))
    for blocks in _BLOCK_SCALES:
        likely = 1 if blocks == 1 else _LARGE_BLOCKS
        if np.abs(offset).max() < _NEAR:
            for move in around:
                exact = np.round(blocks * scale * shape + move) / shape / blocks
                yield exact, np.zeros(2), likely * _unstretched(np.log(exact / scale) @ [1, -1])
        if not angle and np.abs((scale - 1 / blocks) * shape).max() < 2 * _NEAR:
            for move in around:
                yield np.ones(2) / blocks, np.round(blocks * offset + move) / blocks, likely


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
