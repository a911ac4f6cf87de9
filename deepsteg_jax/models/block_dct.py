"""`block_dct`: the secret's block DCT, entropy coded to digits that are wrapped into the cover.

The sender knows the cover, so the cover need not be noise to the receiver ("writing on dirty paper",
Costa 1983; quantisation index modulation, Chen and Wornell 2001): with a modulus D, moving every 8-bit
sample of the cover to the nearest value that is congruent to a digit m modulo D carries m, whatever
the cover is, at a mean squared error of about D^2/12. It remains to describe the secret by t*h*w*3
digits as well as possible:

1. *Transform.* Opponent colours, DCT over 8x8 pixels and over the group's t frames. Each block of each
   temporal frequency (a "cell", 192 coefficients in 96 pairs) has a class of its own.
2. *Quantising.* All coefficients take the same step, 2^(water level), with a dead zone: at equal slope of
   error against bits (reverse water-filling, Cover and Thomas 2006, section 10.3.3).
3. *Classes.* A codebook of K classes, learned per temporal frequency, gives each pair of coefficients the
   width of a Laplace density. A cell takes the class under which it has the fewest bits, found by a matrix
   product; a few cells, whose coefficients are too large for exact symbols, choose by bits and error. The
   class is written in plain digits.
4. *Coding.* Lanes of a few neighbouring cells are coded by rANS, see `rans`, each on its own: a wrong sample
   spoils one lane. The water level is the finest that fits, foretold from the sum of -log2 p.
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

from deepsteg_jax.dct import einsum, pad_to_blocks
from deepsteg_jax.errors import UserError
from deepsteg_jax.models import rans
from deepsteg_jax.models.base import Digits, Model, Revealed, compute_dtype, rematerialise
from deepsteg_jax.models.cells import (
    BLOCK,
    LEVEL_BITS,
    LEVEL_OFFSET,
    PAIRS,
    Codebook,
    Water,
    allot,
    analyse,
    for_frames,
    init_codebook,
    integer_scales,
    raised,
    synthesise,
)
from deepsteg_jax.models.lanes import (
    Kinds,
    from_lanes,
    kinds_at,
    lay_out,
    mark,
    plain_places,
    read_plain,
    to_lanes,
    write_marked,
)
from deepsteg_jax.models.quantiser import (
    ROUNDING,
    ZERO,
    Quantiser,
    from_symbols,
    look_up,
    make_quantiser,
    rows_of,
    step,
    to_symbols,
)
from deepsteg_jax.shapes import Array, Batch, Group, Index
from deepsteg_jax.stripes import divisor, from_stripes, map_batch, map_parts, map_stripes, to_stripes

LEVEL_CODE_BITS = 12  # of the digits for it: most of their values cannot be, which shows a wrong key
LEVEL_COPIES = 3
LANE_CELLS = 16  # coded by one state, at most
MARGIN = 0.997  # of the words are meant to be filled
MAX_MODULUS = 32  # the stego is below 29 dB there
STRIPE_CELLS = 8192  # worked on at once: their arrays stay small, whatever the frame's size
FLOOR = 0.05  # grey levels; no class falls below, since nothing so small is ever coded


# --- layout --------------------------------------------------------------------------------------


class Sizes(NamedTuple):
    """The parts of a group, which follow from its shape alone.

    Its digits are those of the water level, some copies, then of the first word of each lane, of the class of
    each cell, and of the words.
    """

    t: int
    rows: int  # of blocks
    columns: int
    deep: int  # rows of blocks in a stripe
    lanes: int  # in a stripe
    start_digits: int
    class_digits: int
    level_digits: int  # of one copy
    ends: tuple[int, int, int]  # of the digits of levels, starts and classes
    words: int  # that fit after them

    @property
    def stripes(self) -> int:
        """Number of stripes."""
        return self.rows // self.deep


def sizes_of(shape: tuple[int, ...], classes: int, quantiser: Quantiser, size: int | None = None) -> Sizes:
    """Return the parts of a group of frames of shape (t, h, w, 3) in `size` digits, one a sample if None."""
    t, h, w, _ = shape
    rows, columns = -(-h // BLOCK), -(-w // BLOCK)
    deep = divisor(rows, STRIPE_CELLS // (t * columns))
    lanes = -(-t * deep * columns // LANE_CELLS)
    size, modulus = size or math.prod(shape), quantiser.modulus
    start_digits = _digits_for(max(2, size // quantiser.coder.digits), modulus)
    class_digits, level_digits = _digits_for(classes, modulus), _digits_for(2**LEVEL_CODE_BITS, modulus)
    parts = (
        LEVEL_COPIES * level_digits,
        rows // deep * lanes * start_digits,
        t * rows * columns * class_digits,
    )
    ends = tuple(int(end) for end in np.cumsum(parts))
    words = (size - ends[-1]) // quantiser.coder.digits
    return Sizes(t, rows, columns, deep, lanes, start_digits, class_digits, level_digits, ends, words)


# --- digits --------------------------------------------------------------------------------------


def _to_digits(values: Array, count: int, modulus: int) -> Array:
    """Split non-negative integers into `count` base-D digits, least first: [...] -> [..., count]."""
    return values[..., None].astype(jnp.int32) // modulus ** np.arange(count, dtype=np.int32) % modulus


def _from_digits(digits: Array, modulus: int) -> Array:
    """Invert `_to_digits`, int32."""
    return jnp.sum(digits.astype(jnp.int32) * modulus ** np.arange(digits.shape[-1], dtype=np.int32), axis=-1)


def _digits_for(values: int, modulus: int) -> int:
    """Return the number of digits that tell `values` values apart."""
    return max(1, math.ceil(math.log(values, modulus) - 1e-9))


class Quantised(NamedTuple):
    """Indices of coefficients in two parts."""

    symbols: Array  # int8 [n, 192]: the higher part, ZERO is 0
    plain: Array  # [n, 192]: the lower part, below D to the number of plain digits


def quantise(
    coefficients: Float[Array, "n 192"], of_cells: Int32[Array, " n"], kinds: Kinds, level: Index
) -> Quantised:
    """Quantise coefficients of cells of some kinds with a dead zone."""
    scales, reach = (rows_of(table, of_cells) for table in (kinds.scales, kinds.reach))
    magnitudes = jnp.floor(jnp.abs(coefficients) / step(level) + ROUNDING)
    index = jnp.where(coefficients < 0, -magnitudes, magnitudes) + jnp.floor(scales / 2)
    high = jnp.floor((index + 0.5) / scales)  # exact, since index is far below 2^21
    symbols = to_symbols(high.astype(jnp.int32), reach).astype(jnp.int8)
    return Quantised(symbols, (index - high * scales).astype(jnp.int32))


def dequantise(
    quantised: Quantised, of_cells: Int32[Array, " n"], kinds: Kinds, level: Index
) -> Float[Array, "n 192"]:
    """Return the centroids of quantised coefficients in grey levels."""
    scales, reach, shifts = (rows_of(table, of_cells) for table in (kinds.scales, kinds.reach, kinds.shifts))
    high = from_symbols(quantised.symbols.astype(jnp.int32), reach)
    index = high * scales + quantised.plain - jnp.floor(scales / 2)
    return jnp.sign(index) * (jnp.abs(index) + shifts) * step(level)


class Cells(NamedTuple):
    """A group's coefficients, their classes and the water level."""

    pairs: Array  # [s, t, m, 96, 2] grey levels, in stripes
    classes: Array  # int32 [t, n]
    water: Water


def classify(codebook: Codebook, secret: Group, quantiser: Quantiser, count: int | None = None) -> Cells:
    """Transform a group and choose its classes and its water level; `count` as in `encode`."""
    sizes = sizes_of(secret.shape, codebook.shape[1], quantiser, count)
    video = pad_to_blocks(secret, BLOCK)

    def stripe(start):
        part = lax.dynamic_slice_in_dim(video, start, sizes.deep * BLOCK, axis=1)
        return analyse(part).reshape(sizes.t, -1, PAIRS, 2)

    pairs = map_stripes(stripe, np.arange(0, sizes.rows * BLOCK, sizes.deep * BLOCK))
    # A lane's state takes two words and tells half of one; its plain digits leave half a word. The rest is
    # for what the sum of -log2 p does not foretell, since a second attempt takes as long as the first.
    words = MARGIN * sizes.words - rans.STATE_WORDS * sizes.stripes * sizes.lanes
    water, classes = allot(
        pairs, integer_scales(codebook, sizes.t), words * math.log2(quantiser.coder.base), quantiser
    )
    return Cells(pairs, classes, water)


class Written(NamedTuple):
    """Words and plain digits so far."""

    marks: Array  # int32 [words * digits]: where they begin, see `mark`
    used: Array  # int32, words


def _write_stripe(written: Written, stripe, kinds: Kinds, level, lanes: int, quantiser: Quantiser):
    """Encode the cells of a stripe behind those before it; return (`Written`, where each lane starts)."""
    pairs, classes = stripe
    coder, layout = quantiser.coder, lay_out(kinds, classes, lanes, quantiser)
    cells = pairs.reshape(-1, 2 * PAIRS), layout.kinds
    found = map_parts(lambda *part: quantise(*part, kinds, level), *cells)
    rows = rows_of(look_up(quantiser.rows, kinds.indices), layout.kinds)
    coded = rans.encode(to_lanes(rows, lanes), to_lanes(found.symbols, lanes, ZERO), coder)
    sizes = layout.plain_words + rans.STATE_WORDS + coded.sizes
    starts = written.used + jnp.cumsum(sizes) - sizes
    first = starts + layout.plain_words
    at = starts + sizes - 1 - coded.behind
    marks = mark(written.marks, at * coder.digits, coded.words, jnp.where(coded.behind < 0, 0, coder.digits))
    for i, word in enumerate((coded.states % coder.base, coded.states // coder.base)):
        marks = mark(marks, (first + i) * coder.digits, word, jnp.full_like(word, coder.digits))
    counts = rows_of(kinds.plain, layout.kinds)
    places = plain_places(layout, kinds, starts, coder.digits)
    return Written(mark(marks, places, found.plain, counts), written.used + sizes.sum()), starts


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
    count, coder, modulus = count or secret.size, quantiser.coder, quantiser.modulus
    cells = classify(codebook, secret, quantiser, count)
    sizes = sizes_of(secret.shape, codebook.shape[1], quantiser, count)
    scales, stripes = (
        integer_scales(codebook, sizes.t),
        (cells.pairs, to_stripes(cells.classes, sizes.stripes)),
    )
    empty = Written(jnp.zeros(sizes.words * coder.digits, jnp.int32), jnp.int32(0))

    def attempt(state):
        level, (written, _) = state
        over = jnp.maximum(written.used - sizes.words, 0) * math.log2(coder.base)
        level = raised(level, over, cells.water.slope)
        kinds = kinds_at(scales, level, quantiser)

        def write(written, stripe):
            return _write_stripe(written, stripe, kinds, level, sizes.lanes, quantiser)

        return level, lax.scan(write, empty, stripes)

    def too_long(state):
        level, (written, _) = state
        coarsest = level == 2**LEVEL_BITS - 1 - LEVEL_OFFSET
        return (written.used == 0) | (written.used > sizes.words) & ~coarsest

    nothing = empty, jnp.zeros((sizes.stripes, sizes.lanes), jnp.int32)
    level, (written, starts) = lax.while_loop(too_long, attempt, (cells.water.level, nothing))
    digits = write_marked(written.marks, written.used * coder.digits, quantiser)
    parts = [
        jnp.tile(_to_digits(level + LEVEL_OFFSET, sizes.level_digits, modulus), LEVEL_COPIES),
        _to_digits(starts, sizes.start_digits, modulus).ravel(),
        _to_digits(cells.classes, sizes.class_digits, modulus).ravel(),
        digits,
        jnp.full((count - sizes.ends[-1]) % coder.digits, -1),
    ]
    digits = jnp.concatenate([x.astype(jnp.int8) for x in parts])
    return digits.reshape(-1, sizes.t).T.ravel()  # all frames share the digits that are not needed


class Decoded(NamedTuple):
    """Coefficients that were read from digits, before refinement."""

    coefficients: Array  # [t, rows, columns, 192] grey levels
    errors: Array  # [t, rows, columns, 96] expected rms error of each coefficient of a pair
    spoilt: Array  # bool [t, rows, columns]: the lane does not end as it should


def _read_level(copies: Int[Array, "copies count"], modulus: int) -> Array:
    """Read the water level, each digit by majority."""
    values = np.arange(modulus)[:, None]
    level = _from_digits(jnp.argmax((copies[:, None] == values).sum(0), axis=0), modulus)
    # With a wrong key most levels cannot be; they are read as the finest, which reveals loud noise.
    return jnp.where(level < 2**LEVEL_BITS, level, 0) - LEVEL_OFFSET


def _decoder(codebook, digits, shape, quantiser: Quantiser):
    """Return a function that reads a stripe as `Decoded`, and the stripes that it takes."""
    count, coder, modulus = codebook.shape[1], quantiser.coder, quantiser.modulus
    sizes = sizes_of(shape, count, quantiser, digits.size)
    digits = jnp.split(digits.reshape(sizes.t, -1).T.ravel(), sizes.ends)
    level = _read_level(digits[0].reshape(LEVEL_COPIES, -1), modulus)
    starts = _from_digits(digits[1].reshape(sizes.stripes, sizes.lanes, -1), modulus)
    classes = _from_digits(digits[2].reshape(sizes.t, sizes.rows * sizes.columns, -1), modulus)
    pool = digits[3][: sizes.words * coder.digits]
    words = _from_digits(pool.reshape(-1, coder.digits), modulus)
    kinds = kinds_at(integer_scales(codebook, sizes.t), level, quantiser)

    def read(stripe):
        classes, starts = stripe
        layout = lay_out(kinds, classes, sizes.lanes, quantiser)
        first = jnp.minimum(starts, sizes.words) + layout.plain_words
        low, high = (words.at[first + i].get(mode="clip").astype(jnp.int32) for i in range(rans.STATE_WORDS))
        rows = rows_of(look_up(quantiser.rows, kinds.indices), layout.kinds)
        symbols, whole = rans.decode(
            to_lanes(rows, sizes.lanes), 2, low + coder.base * high, first + rans.STATE_WORDS, words, coder
        )
        n = len(rows)
        places = plain_places(layout, kinds, starts, coder.digits)
        plain = read_plain(pool, rows_of(kinds.scales, layout.kinds), places, quantiser)
        found = Quantised(from_lanes(symbols, n, 2 * PAIRS), plain)
        coefficients = dequantise(found, layout.kinds, kinds, level)
        errors = rows_of(look_up(quantiser.rms, kinds.indices), layout.kinds) * step(level)
        grid = sizes.t, sizes.deep, sizes.columns
        spoilt = jnp.repeat(~whole, -(-n // sizes.lanes))[:n].reshape(grid)
        return Decoded(coefficients.reshape(*grid, 2 * PAIRS), errors.reshape(*grid, PAIRS), spoilt)

    return read, (to_stripes(jnp.minimum(classes, count - 1), sizes.stripes), starts)


def decode(
    codebook: Codebook, digits: Int[Array, " samples"], shape: tuple[int, ...], quantiser: Quantiser
) -> Decoded:
    """Read the digits of one group of frames of shape (t, h, w, 3)."""
    read, stripes = _decoder(codebook, digits, shape, quantiser)
    return Decoded(*(from_stripes(x) for x in map_stripes(read, stripes)))


def reveal_group(
    codebook: Codebook, digits: Int[Array, " samples"], shape: tuple[int, ...], quantiser: Quantiser
) -> Revealed:
    """Read the digits of one group of frames of shape (t, h, w, 3); pictures are not clipped."""
    read, stripes = _decoder(codebook, digits, shape, quantiser)

    def reveal(stripe):
        decoded = read(stripe)
        return synthesise(decoded.coefficients), decoded.spoilt

    video, spoilt = (from_stripes(x) for x in map_stripes(reveal, stripes))
    return Revealed(video[:, : shape[1], : shape[2]], spoilt.any(0).mean())


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

    Each D compiles a program of its own, some 15 s of a core at 448x256: one program for all, with D and its
    tables as arguments, took a seventh more time to hide and to reveal.

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

    def inspect(params, stego):
        video = _as_video(stego)
        digits = (jnp.round(video * 255).astype(jnp.int32) % quantiser.modulus).astype(jnp.int8)

        def read(digits):
            take = decode if network else reveal_group
            return take(params["codebook"], digits.ravel(), digits.shape, quantiser)

        revealed = lax.stop_gradient(map_batch(read, digits))
        if network:
            coefficients = revealed.coefficients + refine(params["refinement"], revealed)
            pictures = map_batch(synthesise, coefficients)[:, :, : video.shape[2], : video.shape[3]]
            revealed = Revealed(pictures, revealed.spoilt.any(1).mean((1, 2)))
        return Revealed(jnp.clip(revealed.pictures, 0, 1).reshape(stego.shape), revealed.spoilt)

    def reveal(params, stego):
        return inspect(params, stego).pictures

    def refine(params, decoded):
        planes = decoded.coefficients, decoded.errors
        planes = [x.reshape(-1, *x.shape[2:]) for x in planes]  # batch and temporal frequency in one axis
        return network.apply({"params": params}, *planes).reshape(decoded.coefficients.shape)

    def penalty(params, cover, secret):
        del cover

        def misfit(secret):
            return _misfit(params["hide"]["codebook"], secret)

        return jax.vmap(misfit)(_as_video(secret)).mean()

    def tie(params):
        codebook = jnp.array(params["hide"]["codebook"], copy=True)  # a buffer of its own can be donated
        return {**params, "reveal": {**params["reveal"], "codebook": codebook}}

    digits = Digits(
        lambda params, secret, count: encode(params["codebook"], secret, quantiser, count),
        lambda params, digits, shape: reveal_group(params["codebook"], digits, shape, quantiser),
    )
    digits = None if network else digits
    return Model(init, hide, reveal, penalty, tie, quantiser.modulus, inspect, digits)


def _misfit(codebook, secret) -> Array:
    """Return the Gaussian negative log-likelihood (nats a coefficient) of cells under their likeliest class.

    Its gradient moves every class to the rms of the cells that it fits best: k-means, one minibatch at a
    time. By the model's own bits few classes are ever chosen, and the others would stay at their start.
    """
    pairs = analyse(pad_to_blocks(secret, BLOCK)).reshape(len(secret), -1, PAIRS, 2)
    power = jnp.mean(pairs**2, axis=-1) + FLOOR**2
    log_rms = for_frames(codebook, len(secret)) * math.log(2)
    fits = jnp.sum(log_rms, axis=-1)[:, None] + einsum("tnp,tkp->tnk", power, jnp.exp(-2 * log_rms)) / 2
    return jnp.mean(jnp.min(fits, axis=-1)) / PAIRS
