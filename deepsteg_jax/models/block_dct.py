"""`block_dct`: digits of the secret's block DCT, wrapped into the cover.

The sender knows the cover, so the cover need not be noise to the receiver ("writing on dirty paper",
Costa 1983; quantisation index modulation, Chen and Wornell 2001): with a modulus D, moving every 8-bit
sample of the cover to the nearest value that is congruent to a digit m modulo D carries m, whatever
the cover is, at a mean squared error of about D^2/12. It remains to describe the secret by t*h*w*3
digits as well as possible:

1. *Transform.* Opponent colours, DCT over 8x8 pixels and over the group's t frames. Each block of each
   temporal frequency (a "cell", 192 coefficients in 96 pairs) is coded on its own.
2. *Classes.* A codebook of K classes, learned per temporal frequency, gives each pair of coefficients a
   scale. A cell takes the class of least rate-distortion cost; the class is written in plain digits.
3. *Pool.* The digits of all cells of the group lie in one pool, so busy blocks borrow what flat blocks
   do not need (reverse water-filling, Cover and Thomas 2006, section 10.3.3). The water level is the
   finest that fits, found by bisection, and one step finer in as many cells as the rest allows; sender
   and receiver compute the same layout from the level and the classes in integer arithmetic. There is no
   serial bitstream: the index of every digit is known at once.
4. *Digits.* A pair with n digits has L = floor(sqrt(D^n)) levels per coefficient, spread by the
   compander of a Laplace density (Bennett 1948), read back at the cells' centroids.
5. *Refinement* (optional, off by default). Residual 3x3 convolutions on the grid of blocks move each
   coefficient inside its quantisation interval, guided by the neighbouring blocks. So close to the 8-bit
   grid the neighbours tell next to nothing: see docs/RESULTS.md.
"""

import math
from functools import partial
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Float, Float32, Int, Int8, Int32

from deepsteg_jax.dct import dct_matrix, diagonal_frequencies, from_blocks, mix, pad_to_blocks, to_blocks
from deepsteg_jax.errors import UserError
from deepsteg_jax.models.base import Digits, Model, compute_dtype, rematerialise
from deepsteg_jax.models.quantiser import SCALE_STEPS, Quantiser, make_quantiser, width
from deepsteg_jax.shapes import Array, Batch, Group, Index
from deepsteg_jax.stripes import divisor, from_stripes, map_batch, map_stripes, to_stripes

BLOCK = 8
PAIRS = 3 * BLOCK * BLOCK // 2
LEVEL_BITS = 7  # of the water level: far more than any picture needs
LEVEL_CODE_BITS = 12  # of the digits for it: most of their values cannot be, which shows a wrong key
SHARE_BITS = 8  # of the share of cells that are one level finer
LEVEL_OFFSET = 16  # the finest water level, 2**(-16/8) grey levels: finer than rounding the revealed needs
MAX_MODULUS = 32  # the stego is below 29 dB there
STRIPE_CELLS = 512  # worked on at once in each frame: their arrays stay small, whatever the frame's size
FLOOR = 0.05  # grey levels; no class falls below, since nothing so small is ever coded
LAPLACE_STEPS = -SCALE_STEPS // 2  # the width of a Laplace density is its rms over sqrt(2)

Codebook = Float[Array, "frames classes 96"]


def _look_up(table: np.ndarray, index: Array) -> Array:
    return jnp.asarray(table)[index]


# --- transform -----------------------------------------------------------------------------------


def analyse(video: Group) -> Float[Array, "t rows columns 192"]:
    """Transform a group of frames, h and w multiples of 8, to orthonormal coefficients in grey levels.

    Axis 0 is the temporal frequency.
    """
    x = to_blocks(video * 255 - 128, BLOCK)
    return x if len(x) == 1 else mix(x, dct_matrix(len(x)), axis=0)


def synthesise(coefficients: Float[Array, "t rows columns 192"]) -> Float[Array, "t 8*rows 8*columns 3"]:
    """Invert `analyse`, without clipping."""
    t = len(coefficients)
    x = coefficients if t == 1 else mix(coefficients, dct_matrix(t).T, axis=0)
    return (from_blocks(x, BLOCK) + 128) / 255


# --- codebook and layout -------------------------------------------------------------------------


def init_codebook(key: jax.Array, frames: int, classes: int) -> Float[Array, " {frames} {classes} 96"]:
    """Make a starting codebook: log2 of the rms of each coefficient pair, grey levels.

    Classes span activity (level at DC) times shape (decay with frequency) around the power-law spectrum
    of photographs; a little noise breaks ties. Training moves it to the data.
    """
    frequency = np.tile(diagonal_frequencies(BLOCK)[::2], 3)
    chroma = np.repeat([0.0, 1.5, 2.0], BLOCK * BLOCK // 2)
    shapes = 4
    activity = np.linspace(-3, 9.5, max(classes // shapes, 1))
    decay = np.linspace(0.2, 2.0, shapes)
    base = np.stack([a - d * np.log2(1 + frequency) - chroma for a in activity for d in decay])
    base = np.resize(base, (frames, classes, PAIRS))
    return jnp.asarray(base, jnp.float32) + 0.1 * jax.random.normal(key, base.shape)


def integer_scales(codebook: Float[Array, "t k 96"], frames: int) -> Int32[Array, " {frames} k 96"]:
    """Return the Laplace widths of a group of `frames` frames in whole scale steps.

    A shorter group (the tail of a clip) takes the codebook's temporal frequencies at its own spacing.
    Scaling by a power of two and rounding are exact, so the layout is the same on every device.
    """
    planes = np.arange(frames) * codebook.shape[0] // frames
    return jnp.round(SCALE_STEPS * codebook[planes]).astype(jnp.int32) + LAPLACE_STEPS


def digit_counts(scales: Int[Array, "..."], level: Int[Array, "..."] | int, quantiser: Quantiser) -> Array:
    """Count the digits that each pair earns at a water level, both in scale steps; int32, broadcast."""
    excess = (scales - level)[..., None]
    return jnp.sum(excess >= quantiser.thresholds, axis=-1, dtype=jnp.int32)


def choose_classes(
    magnitudes: Float[Array, "t n 96"],
    scales: Int32[Array, "t k 96"],
    level: Index,
    quantiser: Quantiser,
) -> Int32[Array, "t n"]:
    """Choose the class in [0, k) of least rate-distortion cost for every cell.

    Cost = squared error of each pair, inside the quantiser's range and beyond it, + lambda * digits, with
    lambda = width(level)^2.

    Args:
        magnitudes: hypotenuse of each pair of coefficients.
        scales: from `integer_scales`.
        level: water level in scale steps.
    """
    counts = digit_counts(scales, level, quantiser)
    widths = width(scales)
    levels = _look_up(quantiser.levels, counts)
    # A compander cell at x is (6 w / L) exp(|x| / (3 w)) wide, and its error its width squared over 12.
    granular = jnp.where(levels > 1, 3 * (widths / levels) ** 2, 0.0)
    rate = (width(level) ** 2 * counts + granular).sum(-1)

    def by_pair(x):
        return x.transpose(2, 0, 1)[..., None]  # [96, t, K, 1]

    granular, growth = by_pair(granular), by_pair(2 / (3 * widths))
    edge = by_pair(widths * _look_up(quantiser.edges, counts))
    reach = by_pair(widths * _look_up(quantiser.reach, counts))
    magnitudes = magnitudes.transpose(2, 0, 1)[:, :, None]  # [96, t, 1, n]

    def add_error(cost, pair):
        magnitude, granular, growth, edge, reach = pair
        inside = granular * jnp.exp(growth * jnp.minimum(magnitude, edge))
        return cost + inside + jnp.square(jnp.maximum(magnitude - reach, 0)), None

    cost = jnp.broadcast_to(rate[..., None], (*rate.shape, magnitudes.shape[-1]))
    cost, _ = lax.scan(add_error, cost, (magnitudes, granular, growth, edge, reach))
    return jnp.argmin(cost, axis=1).astype(jnp.int32)


def _population(classes, count: int) -> Array:
    """Count the cells [t, n] of each temporal frequency in each class, int32 [t, count]."""
    return jnp.sum(classes[..., None] == jnp.arange(count), axis=1, dtype=jnp.int32)


def _finest_level(fits, guess=0):
    """Find the least water level in scale steps for which the monotone predicate `fits(level)` holds.

    The level above which all fit is halved in on, beginning just below and at a guess.
    """

    def unknown(state):
        low, high, _ = state
        return low < high

    def probe(state):
        low, high, tried = state
        middle = jnp.where(tried < 2, guess - 1 + tried, (low + high) // 2)
        middle = jnp.clip(middle, low, high - 1)
        good = fits(middle)
        return jnp.where(good, low, middle + 1), jnp.where(good, middle, high), tried + 1

    bounds = jnp.int32(-LEVEL_OFFSET), jnp.int32(2**LEVEL_BITS - 1 - LEVEL_OFFSET)
    return lax.while_loop(unknown, probe, (*bounds, jnp.int32(0)))[0]


class Water(NamedTuple):
    """The water level, which rises by one scale step on the way through the cells."""

    level: Array  # int32, scale steps
    share: Array  # int32: the first share / 2**SHARE_BITS of the cells are one level finer

    def of_cells(self, t: int, n: int) -> Array:
        """Return each cell's own level, int32 [t, n]."""
        finer = jnp.arange(t * n) < t * n * self.share // 2**SHARE_BITS
        return (self.level - finer).reshape(t, n)


def allot(pairs, scales, budget: int, quantiser: Quantiser) -> tuple[Water, Array]:
    """Choose the water level and the classes so that the pool holds all digits.

    The level is searched on a sample of the cells, where classes and level move together; then the
    classes are fixed on all cells, the level is made the finest that fits exactly, and as many cells as
    fit take the next finer one.

    Args:
        pairs: stripes of coefficients, [s, t, m, 96, 2].
        scales: from `integer_scales`.
        budget: digits.
        quantiser: of the digits.

    Returns:
        (water, classes: int32 [t, n]).
    """
    cells = pairs.shape[0] * pairs.shape[2]

    def per_class(level):
        return digit_counts(scales, level, quantiser).sum(-1)  # [t, K] digits of one cell

    def search(stride, guess):
        stripe, place = np.divmod(np.arange(0, cells, stride), pairs.shape[2])
        sample = jnp.moveaxis(_magnitudes(pairs[stripe, :, place]), 0, 1)
        part = budget * sample.shape[1] // cells

        def fits(level):
            population = _population(choose_classes(sample, scales, level, quantiser), scales.shape[1])
            return (per_class(level) * population).sum() <= part

        return _finest_level(fits, guess)

    stride = max(1, min(8, cells // 64))
    level = search(stride, search(8 * stride, 0))  # a guess saves most of the longer search

    def choose(stripe):
        classes = choose_classes(_magnitudes(stripe), scales, level, quantiser)
        return classes, _population(classes, scales.shape[1])

    classes, population = map_stripes(choose, pairs)
    classes, population = from_stripes(classes), population.sum(0)
    level = _finest_level(lambda level: (per_class(level) * population).sum() <= budget, level)
    coarse = per_class(level)
    more = jnp.take_along_axis(per_class(level - 1) - coarse, classes, axis=1)
    spare = budget - (coarse * population).sum()
    finer = jnp.sum(jnp.cumsum(more.ravel()) <= spare)  # cells that fit on the finer level
    share = ((finer + 1) * 2**SHARE_BITS - 1) // classes.size
    return Water(level, jnp.minimum(share, 2**SHARE_BITS - 1)), classes


def _magnitudes(pairs):
    return jnp.hypot(pairs[..., 0], pairs[..., 1])


class Layout(NamedTuple):
    """The digits of every pair in the pool."""

    counts: Array  # [t * n * 96] digits of each pair
    starts: Array  # [t * n * 96] index of its first digit in the pool
    widths: Array  # [t * n * 96] its Laplace width, grey levels


class Shares(NamedTuple):
    """The share of every cell in the pool, from which the layout of any part of them follows."""

    kinds: Array  # int32 [t, n]: the row of the tables for its temporal frequency, class and level
    starts: Array  # int32 [t, n]: index of its first digit
    counts: Array  # int32 [kinds, 96]: digits of each pair
    before: Array  # int32 [kinds, 96]: those of the pairs before it in the cell
    widths: Array  # [kinds, 96]: its Laplace width, grey levels

    def of(self, kinds: Int32[Array, "t m"], starts: Int32[Array, "t m"]) -> Layout:
        """Lay out cells of these kinds and starts."""
        counts, before, widths = (
            table.at[kinds].get(mode="promise_in_bounds") for table in (self.counts, self.before, self.widths)
        )
        return Layout(counts.ravel(), (starts[..., None] + before).ravel(), widths.ravel())


def share_out(
    water: Water, classes: Int32[Array, "t n"], scales: Int32[Array, "t k 96"], quantiser: Quantiser
) -> Shares:
    """Derive the shares, as sender and receiver both do, from the water level and the classes."""
    t, k, _ = scales.shape
    levels = water.level - jnp.arange(2)
    counts = digit_counts(scales[:, :, None], levels[:, None], quantiser).reshape(-1, PAIRS)
    finer = (water.level - water.of_cells(*classes.shape)).astype(jnp.int32)
    kinds = 2 * (k * np.arange(t, dtype=np.int32)[:, None] + classes) + finer
    sizes = counts.sum(-1)[kinds].ravel()
    ends = jnp.cumsum(sizes)
    before = jnp.cumsum(counts, axis=-1) - counts
    widths = jnp.repeat(width(scales.reshape(-1, PAIRS)), 2, axis=0)
    return Shares(kinds, (ends - sizes).reshape(classes.shape), counts, before, widths)


# --- digits --------------------------------------------------------------------------------------


def _to_digits(values: Array, count: int, quantiser: Quantiser) -> Array:
    """Split non-negative integers into `count` base-D digits, least first: [...] -> [..., count]."""
    return values[..., None] // quantiser.powers[:count] % quantiser.modulus


def _from_digits(digits: Array, quantiser: Quantiser) -> Array:
    """Invert `_to_digits`."""
    return jnp.sum(digits * quantiser.powers[: digits.shape[-1]], axis=-1)


def _digits_for(values: int, modulus: int) -> int:
    """Return the number of digits that tell `values` values apart."""
    return max(1, math.ceil(math.log(values, modulus) - 1e-9))


def header_digits(modulus: int) -> list[int]:
    """Return the numbers of digits of the water level and of the share."""
    return [_digits_for(2**LEVEL_CODE_BITS, modulus), _digits_for(2**SHARE_BITS, modulus)]


def quantise(pairs: Float[Array, "p 2"], layout: Layout, quantiser: Quantiser) -> Int32[Array, " p"]:
    """Quantise each pair of coefficients to one whole number below modulus^counts."""
    levels = _look_up(quantiser.levels, layout.counts)[:, None]
    compressed = jnp.sign(pairs) * -jnp.expm1(-jnp.abs(pairs) / (3 * layout.widths[:, None]))
    index = jnp.floor((compressed + 1) / 2 * levels).astype(jnp.int32)
    index = jnp.clip(index, 0, levels - 1)
    return index[:, 0] * levels[:, 0] + index[:, 1]


def dequantise(values: Int[Array, " p"], layout: Layout, quantiser: Quantiser) -> Float[Array, "p 2"]:
    """Return the centroids of quantised pairs in grey levels."""
    levels = _look_up(quantiser.levels, layout.counts)
    first = values // levels
    index = jnp.stack([first, values - first * levels], axis=-1)
    index = jnp.clip(index, 0, levels[:, None] - 1) + _look_up(quantiser.offsets, layout.counts)[:, None]
    return _look_up(quantiser.centroids, index) * layout.widths[:, None]


def write_pool(
    pool: Int8[Array, " size"], values: Int[Array, " p"], layout: Layout, quantiser: Quantiser
) -> Int8[Array, " size"]:
    """Lay the digits of pairs in the pool."""

    def write(state, order):
        pool, values = state
        at = jnp.where(order < layout.counts, layout.starts + order, len(pool))
        digits = (values % quantiser.modulus).astype(jnp.int8)
        pool = pool.at[at].set(digits, mode="drop", unique_indices=True)
        return (pool, values // quantiser.modulus), None

    return lax.scan(write, (pool, values), np.arange(len(quantiser.powers) - 1, dtype=np.int32))[0][0]


def read_pool(digits: Int[Array, " size"], layout: Layout, quantiser: Quantiser) -> Int32[Array, " p"]:
    """Invert `write_pool`; garbage in, garbage out, no error."""

    def add(values, digit):
        order, power = digit
        at = layout.starts + order
        there = (order < layout.counts) & (at < len(digits))
        found = digits[jnp.minimum(at, len(digits) - 1)].astype(jnp.int32)
        return values + jnp.where(there, found * power, 0), None

    # A loop, since XLA would otherwise compute the digits anew for every power.
    powers = jnp.arange(len(quantiser.powers)), jnp.asarray(quantiser.powers)
    return lax.scan(add, jnp.zeros_like(layout.counts), powers)[0]


class Cells(NamedTuple):
    """A group's coefficients, their classes and the water level."""

    pairs: Array  # [s, t, m, 96, 2] grey levels, in stripes
    classes: Array  # int32 [t, n]
    water: Water
    budget: int  # digits in the pool


def classify(codebook: Codebook, secret: Group, quantiser: Quantiser, count: int | None = None) -> Cells:
    """Transform a group and choose its classes and its water level; `count` as in `encode`."""
    t, class_digits = len(secret), _digits_for(codebook.shape[1], quantiser.modulus)
    video = pad_to_blocks(secret, BLOCK)
    rows, columns = video.shape[1] // BLOCK, video.shape[2] // BLOCK
    deep = divisor(rows, STRIPE_CELLS // columns)

    def stripe(start):
        part = lax.dynamic_slice_in_dim(video, start, deep * BLOCK, axis=1)
        return analyse(part).reshape(t, deep * columns, PAIRS, 2)

    pairs = map_stripes(stripe, np.arange(0, rows * BLOCK, deep * BLOCK))
    overhead = sum(header_digits(quantiser.modulus)) + t * rows * columns * class_digits
    budget = (count or secret.size) - overhead
    water, classes = allot(pairs, integer_scales(codebook, t), budget, quantiser)
    return Cells(pairs, classes, water, budget)


def encode(
    codebook: Codebook, secret: Group, quantiser: Quantiser, count: int | None = None
) -> Int8[Array, " digits"]:
    """Describe one group of frames, not more than the codebook's, by digits.

    Args:
        codebook: of the model.
        secret: the frames.
        quantiser: of the digits.
        count: of digits, a multiple of the number of frames; None: one for each sample of the secret.

    Returns:
        Digits in [0, D), -1 where the secret needs none.
    """
    cells = classify(codebook, secret, quantiser, count)
    shares = share_out(cells.water, cells.classes, integer_scales(codebook, len(secret)), quantiser)

    def write(pool, stripe):
        pairs, *where = stripe
        layout = shares.of(*where)
        return write_pool(pool, quantise(pairs.reshape(-1, 2), layout, quantiser), layout, quantiser), None

    where = (to_stripes(x, len(cells.pairs)) for x in (shares.kinds, shares.starts))
    pool, _ = lax.scan(write, jnp.full(cells.budget, -1, jnp.int8), (cells.pairs, *where))
    level_digits, share_digits = header_digits(quantiser.modulus)
    head = [
        _to_digits(cells.water.level + LEVEL_OFFSET, level_digits, quantiser),
        _to_digits(cells.water.share, share_digits, quantiser),
        _to_digits(cells.classes, _digits_for(codebook.shape[1], quantiser.modulus), quantiser).ravel(),
    ]
    digits = jnp.concatenate([*(x.astype(jnp.int8) for x in head), pool])
    return digits.reshape(-1, len(secret)).T.ravel()  # all frames share the digits that are not needed


class Decoded(NamedTuple):
    """Coefficients that were read from digits, before refinement."""

    coefficients: Array  # [t, rows, columns, 192] grey levels
    errors: Array  # [t, rows, columns, 96] expected rms error of each coefficient of a pair


def _decoder(codebook, digits, shape, quantiser: Quantiser):
    """Return a function that reads a stripe as `Decoded`, and the stripes that it takes."""
    t, h, w, _ = shape
    rows, columns = -(-h // BLOCK), -(-w // BLOCK)
    count, deep = codebook.shape[1], divisor(rows, STRIPE_CELLS // columns)
    class_digits = _digits_for(count, quantiser.modulus)
    ends = np.cumsum([*header_digits(quantiser.modulus), t * rows * columns * class_digits])
    level, share, classes, pool = jnp.split(digits.reshape(t, -1).T.ravel(), ends)
    level = _from_digits(level, quantiser)
    # With a wrong key most levels cannot be; they are read as the finest, which reveals loud noise.
    level = jnp.where(level < 2**LEVEL_BITS, level, 0) - LEVEL_OFFSET
    share = jnp.clip(_from_digits(share, quantiser), 0, 2**SHARE_BITS - 1)
    classes = _from_digits(classes.reshape(t, rows * columns, class_digits), quantiser)
    scales = integer_scales(codebook, t)
    shares = share_out(Water(level, share), jnp.minimum(classes, count - 1), scales, quantiser)

    def read(stripe):
        layout = shares.of(*stripe)
        pairs = dequantise(read_pool(pool, layout, quantiser), layout, quantiser)
        errors = _look_up(quantiser.rms, layout.counts) * layout.widths
        grid = t, deep, columns
        return Decoded(pairs.reshape(*grid, 2 * PAIRS), errors.reshape(*grid, PAIRS))

    return read, tuple(to_stripes(x, rows // deep) for x in (shares.kinds, shares.starts))


def decode(
    codebook: Codebook, digits: Int[Array, " samples"], shape: tuple[int, ...], quantiser: Quantiser
) -> Decoded:
    """Read the digits of one group of frames of shape (t, h, w, 3)."""
    read, stripes = _decoder(codebook, digits, shape, quantiser)
    return Decoded(*(from_stripes(x) for x in map_stripes(read, stripes)))


def reveal_group(
    codebook: Codebook, digits: Int[Array, " samples"], shape: tuple[int, ...], quantiser: Quantiser
) -> Group:
    """Read the digits of one group of frames of shape (t, h, w, 3) and return it, not clipped."""
    read, stripes = _decoder(codebook, digits, shape, quantiser)
    video = from_stripes(map_stripes(lambda stripe: synthesise(read(stripe).coefficients), stripes))
    return video[:, : shape[1], : shape[2]]


def wrap_into(
    cover: Float[Array, "*b h w c"], digits: Int[Array, "..."], modulus: int
) -> Float32[Array, "*b h w c"]:
    """Move each 8-bit sample of the cover to the nearest valid value congruent to its digit modulo D.

    Args:
        cover: whole numbers in [0, 255].
        digits: as many; -1 leaves the sample as it is.

    Returns:
        The stego, whole numbers in [0, 255].
    """
    levels, digits = cover.astype(jnp.int32), digits.reshape(cover.shape)
    offset = (digits - levels) % modulus
    # A tie between +D/2 and -D/2 (even D) goes by the position's parity: no bias, no contours.
    odd = sum(jnp.indices(cover.shape[-3:], sparse=True)) % 2 == 1
    down = (2 * offset > modulus) | ((2 * offset == modulus) & odd)
    stego = levels + jnp.where(down, offset - modulus, offset)
    stego = jnp.where(stego < 0, stego + modulus, jnp.where(stego > 255, stego - modulus, stego))
    return jnp.where(digits < 0, levels, stego).astype(jnp.float32)


def hide_group(codebook: Codebook, cover: Group, secret: Group, quantiser: Quantiser) -> Group:
    """Hide one group of frames in another; the stego is whole 8-bit levels."""
    digits = lax.stop_gradient(encode(codebook, secret, quantiser))
    return wrap_into(jnp.round(cover * 255), digits, quantiser.modulus) / 255


# --- networks ------------------------------------------------------------------------------------


class Refinement(nn.Module):
    """Residual network on the grid of blocks that sharpens dequantised coefficients.

    [n, rows, columns, 192] and their expected errors [n, rows, columns, 96] -> correction, same shape as
    the coefficients, bounded to twice the expected error. The last layer starts at zero, so an untrained
    model reveals the plain centroids.
    """

    features: int
    layers: int
    dtype: jnp.dtype = jnp.dtype("float32")

    @nn.compact
    def __call__(self, coefficients, errors):
        """Sharpen coefficients, given their expected errors; see the class."""
        dense = partial(nn.Dense, dtype=self.dtype)
        silent = partial(dense, kernel_init=nn.initializers.zeros)
        x = jnp.concatenate([jnp.arcsinh(coefficients), jnp.log2(errors + 1e-3)], axis=-1)
        x = dense(self.features, name="enter")(x)
        for i in range(self.layers):
            y = nn.Conv(self.features, (3, 3), dtype=self.dtype, name=f"conv{i}")(nn.relu(x))
            x = x + silent(self.features, name=f"mix{i}")(nn.relu(y))
        x = silent(coefficients.shape[-1], name="leave")(nn.relu(x)).astype(jnp.float32)
        return jnp.tanh(x) * 2 * jnp.repeat(errors, 2, axis=-1)


# --- model ---------------------------------------------------------------------------------------


def _as_video(x: Batch) -> Float[Array, "b t h w 3"]:
    return x[:, None] if x.ndim == 4 else x


def build(config) -> Model:
    """Build the model of `config`: modulus, frames, classes, depth, features, dtype, remat.

    Raises:
        UserError: `modulus` is out of range, or `dtype` unknown.
    """
    if not 2 <= config.modulus <= MAX_MODULUS:
        raise UserError(
            f"config.model.modulus must be a whole number from 2 to {MAX_MODULUS}, not {config.modulus}"
        )
    quantiser = make_quantiser(config.modulus)
    refinement, dtype = rematerialise(Refinement, config), compute_dtype(config)
    network = refinement(config.features, config.depth, dtype) if config.depth else None

    def init(key):
        codebook_key, network_key = jax.random.split(key)
        codebook = init_codebook(codebook_key, config.frames, config.classes)
        reveal_params = {}
        if network:
            grid = jnp.zeros((1, 2, 2, 2 * PAIRS))
            reveal_params["refinement"] = network.init(network_key, grid, grid[..., :PAIRS])["params"]
        return tie({"hide": {"codebook": codebook}, "reveal": reveal_params})

    def hide(params, cover, secret):
        def one(cover, secret):
            return hide_group(params["codebook"], cover, secret, quantiser)

        return map_batch(one, _as_video(cover), _as_video(secret)).reshape(cover.shape)

    def reveal(params, stego):
        video = _as_video(stego)
        digits = (jnp.round(video * 255).astype(jnp.int32) % quantiser.modulus).astype(jnp.int8)

        def read(digits):
            take = decode if network else reveal_group
            return take(params["codebook"], digits.ravel(), digits.shape, quantiser)

        revealed = lax.stop_gradient(map_batch(read, digits))
        if network:
            coefficients = revealed.coefficients + refine(params["refinement"], revealed)
            revealed = map_batch(synthesise, coefficients)[:, :, : video.shape[2], : video.shape[3]]
        return jnp.clip(revealed, 0, 1).reshape(stego.shape)

    def refine(params, decoded):
        planes = [x.reshape(-1, *x.shape[2:]) for x in decoded]  # batch and temporal frequency in one axis
        return network.apply({"params": params}, *planes).reshape(decoded.coefficients.shape)

    def penalty(params, cover, secret):
        del cover

        def misfit(secret):
            return _misfit(params["hide"]["codebook"], secret, quantiser)

        return jax.vmap(misfit)(_as_video(secret)).mean()

    def tie(params):
        codebook = jnp.array(params["hide"]["codebook"], copy=True)  # a buffer of its own can be donated
        return {**params, "reveal": {**params["reveal"], "codebook": codebook}}

    digits = Digits(
        lambda params, secret, count: encode(params["codebook"], secret, quantiser, count),
        lambda params, digits, shape: reveal_group(params["codebook"], digits, shape, quantiser),
    )
    return Model(init, hide, reveal, penalty, tie, quantiser.modulus, digits=None if network else digits)


def _misfit(codebook, secret, quantiser: Quantiser) -> Array:
    """Return the Gaussian negative log-likelihood (nats per coefficient) of cells under their chosen class.

    Its gradient moves every class to the rms of the cells that choose it: k-means in the model's own
    rate-distortion cost, one minibatch at a time.
    """
    cells = lax.stop_gradient(classify(codebook, secret, quantiser))
    planes = np.arange(len(secret)) * len(codebook) // len(secret)
    log_rms = jnp.take_along_axis(codebook[planes], cells.classes[..., None], axis=1) * math.log(2)
    power = jnp.mean(from_stripes(cells.pairs) ** 2, axis=-1) + FLOOR**2
    return jnp.mean(log_rms + power / 2 * jnp.exp(-2 * log_rms))
