"""`robust`: symbols in low frequencies that real codecs leave readable, and the network that reads them.

A macroblock is 16x16 pixels: four 8x8 blocks of Y, and in 4:2:0 one of Cb and one of Cr. Each of some lowest
AC coefficients of its blocks carries a symbol, a phase from -1/2 to 1/2: the coefficient moves to the nearest
value that is congruent to it modulo a spacing D (dirty paper, as in `block_dct`, but with a D as large as a
codec's noise). The receiver takes the coefficient modulo D. Where nothing happens on the way, it reads the
phase; after a codec, the phase plus noise. Videos carry symbols in Cb and Cr, in their own samples: eyes see
less there, and codecs at coarse settings leave three times as much as of luma. Still images, whose colour
JPEG crushes, carry them in luma, which all of R, G and B follow.

A network learns from recordings of real codecs how far each phase can be relied on: it sees what was received
and predicts the error of each phase, as the scale of a logistic density on the circle, and the probability
that the phase is lost; known symbols then correct all scales of a frame (`calibrate`). The sender uses it
too, to predict the capacity of its stego after a codec. The bits of the symbols are up to
`deepsteg_jax.schemes.robust`.
"""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from jaxtyping import Bool, Float, Float32, Shaped
from ml_collections import ConfigDict

from deepsteg_jax.colour import LUMA
from deepsteg_jax.dct import dct_matrix, zigzag
from deepsteg_jax.errors import UserError
from deepsteg_jax.models.base import Model, compute_dtype
from deepsteg_jax.shapes import Array, Scalar

BLOCK, MACROBLOCK = 8, 16  # pixels, or samples of colour for those of a block
ENLARGEMENTS = 2  # of what is still missing, of a change that is made in larger blocks
PROJECTIONS = 8  # onto 0..255 and onto the symbols, by turns
CONTEXT = 16  # coefficients of a block that the network sees one by one
MOVING = 4  # of which it sees the change from and to the neighbouring frames
LEAST_SCALE, MOST_SCALE = 2.0**-9, 0.3  # of the phase's error, in spacings
FACTORS = 2.0 ** np.arange(-4.5, 3.1, 0.5, np.float32)  # by which a frame's scales may be off
FINER_FACTORS = 2.0 ** np.arange(-4.5, 3.1, 0.125, np.float32)  # for a density with steep flanks
LOSSES = np.array([-0.98, -0.7, 0, 0.1, 0.3, 0.6], np.float32)  # of phases: fewer, or others too
FLANK = 0.25  # scale of the flanks of a density with a flat top, in its scales

Frames = Shaped[Array, "*n h w 3"] | tuple[Array, ...]
"""RGB [*n, h, w, 3]; or planes: Y [*n, h, w] alone, or with Cb and Cr [*n, h / 2, w / 2]. 0 to 255."""

Phases = Float[Array, "b t rows columns k"]

_SIDES = (2, 1, 1)  # blocks of each plane in a row of a macroblock
_CB = 4  # number of the first block of colour


class Carriers(NamedTuple):
    """The coefficients of a macroblock that carry symbols, all of the same length."""

    blocks: np.ndarray  # int: 0 to 3 of Y, row by row, 4 of Cb, 5 of Cr
    coefficients: np.ndarray  # int: place in a block, row by row
    spacings: np.ndarray  # float32, in units of D

    def waves(self, count: int) -> np.ndarray:
        """Return what each coefficient is of the samples of `count` blocks, float32 [k, count, 64]."""
        waves = np.zeros((len(self.blocks), count, BLOCK * BLOCK), np.float32)
        waves[np.arange(len(waves)), self.blocks] = _WAVES[self.coefficients]
        return waves


_WAVES = np.kron(dct_matrix(BLOCK), dct_matrix(BLOCK)).astype(np.float32)  # of a block, [coefficient, sample]


def make_carriers(luma: tuple[float, ...], chroma: tuple[float, ...], skip: int = 0) -> Carriers:
    """Choose AC coefficients by rising frequency, one after the other in all blocks.

    Args:
        luma: the spacing, in units of D, of each of them in the blocks of Y; 0: it carries none.
        chroma: the same for Cb and Cr.
        skip: coefficients of lower frequencies that are left alone.

    Raises:
        UserError: none carries symbols, or there are more of them than a block has.
    """
    order = zigzag(BLOCK)[skip + 1 :]
    if not any((*luma, *chroma)) or max(len(luma), len(chroma)) > len(order):
        raise UserError(
            f"config.model.luma and chroma must have at most {len(order)} spacings, and one that is not 0"
        )
    kinds = ((range(_CB), luma), ((_CB, _CB + 1), chroma))
    chosen = [(b, order[i], s) for blocks, some in kinds for i, s in enumerate(some) if s for b in blocks]
    blocks, coefficients, spacings = zip(*chosen, strict=True)
    return Carriers(np.array(blocks), np.array(coefficients), np.array(spacings, np.float32))


def carriers_of(config: ConfigDict) -> Carriers:
    """Return the carriers of a config's section `model`."""
    return make_carriers(tuple(config.luma), tuple(config.chroma))


def wrap(x):
    """Reduce modulo 1 to the nearest representative, [-1/2, 1/2]."""
    return x - jnp.round(x)


def block_scale(lines: int, height: int, width: int) -> int:
    """Return how many times BLOCK samples the blocks of symbols are wide: large frames are often scaled down.

    `lines`: of frames with blocks of BLOCK samples, about; 0: all.
    """
    return max(1, int(min(height, width) / lines + 0.5)) if lines else 1


def reduce_planes(planes: tuple[Array, ...], scale: int) -> tuple[Array, ...]:
    """Average squares of scale x scale samples of planes [..., h, w]; what is left over at the end goes."""

    def mean(plane):
        *n, h, w = plane.shape
        whole = plane[..., : h // scale * scale, : w // scale * scale].astype(jnp.float32)
        return whole.reshape(*n, h // scale, scale, w // scale, scale).mean((-3, -1))

    return planes if scale == 1 else tuple(map(mean, planes))


def enlarge_change(plane: Array, goal: Array, scale: int) -> Array:
    """Move a plane [n, h, w] smoothly so that it becomes `goal` where `reduce_planes` reduces it, float32."""
    n, *size = goal.shape
    h, w = (scale * side for side in size)
    moved = jnp.asarray(plane, jnp.float32)
    for _ in range(ENLARGEMENTS):
        change = goal - reduce_planes((moved,), scale)[0]
        moved = moved.at[:, :h, :w].add(jax.image.resize(change, (n, h, w), "cubic"))
        moved = jnp.clip(moved, 0, 255)
    return jnp.round(moved)


def planes_of(frames: Frames) -> tuple[Array, ...]:
    """Return planes as they are, or the luma of RGB, float32 [*n, h, w], as the only one."""
    return frames if isinstance(frames, tuple) else (frames.astype(jnp.float32) @ LUMA,)


def _split(plane: Array, side: int, rows: int, columns: int) -> Array:
    """Cut [*n, h, w, c] into the blocks of whole macroblocks, [*n, rows, columns, side^2, 64, c].

    TFLite transposes no more than six axes, so that neighbours which stay together are one.
    """
    *n, _, _, c = plane.shape
    h, w = (side * BLOCK * length for length in (rows, columns))
    x = plane[..., :h, :w, :].reshape(-1, side, BLOCK, columns, side, BLOCK * c)
    return x.transpose(0, 3, 1, 4, 2, 5).reshape(*n, rows, columns, side * side, BLOCK * BLOCK, c)


def _put(plane: Array, blocks: Array, side: int) -> Array:
    """Invert `_split`; what lies outside whole macroblocks stays as it is in `plane`."""
    *n, rows, columns, _, _, c = blocks.shape
    h, w = (side * BLOCK * length for length in (rows, columns))
    x = blocks.reshape(-1, columns, side, side, BLOCK, BLOCK * c).transpose(0, 2, 4, 1, 3, 5)
    return plane.at[..., :h, :w, :].set(x.reshape(*n, h, w, c))


def _channels(frames: Frames) -> tuple[Array, ...]:
    """Return planes, or RGB as the only one, float32 with the channels as the last axis."""
    planes = [plane[..., None] for plane in frames] if isinstance(frames, tuple) else [frames]
    return tuple(jnp.asarray(plane, jnp.float32) for plane in planes)


def to_macroblocks(frames: Frames) -> Float32[Array, "*n rows columns blocks 64 c"]:
    """Cut frames into the samples of macroblocks; c: 3 for RGB, whose blocks are those of luma, else 1."""
    parts = _channels(frames)
    *n, h, w, c = parts[0].shape
    rows, columns = h // MACROBLOCK, w // MACROBLOCK
    cut = [_split(part, side, rows, columns) for part, side in zip(parts, _SIDES, strict=False)]
    flat = jnp.concatenate([x.reshape(-1, x.shape[-3], BLOCK * BLOCK * c) for x in cut], axis=1)
    return flat.reshape(*n, rows, columns, -1, BLOCK * BLOCK, c)


def from_macroblocks(samples: Float32[Array, "*n rows columns blocks 64 c"], frames: Frames) -> Frames:
    """Invert `to_macroblocks`, float32; what lies outside whole macroblocks stays as it is in `frames`."""
    parts, first, put = _channels(frames), 0, []
    for part, side in zip(parts, _SIDES, strict=False):
        put.append(_put(part, samples[..., first : first + side * side, :, :], side))
        first += side * side
    planes = [part[..., 0] for part in put] if isinstance(frames, tuple) else put
    return jax.tree.unflatten(jax.tree.structure(frames), planes)


def _luma(samples: Array) -> Array:
    """Return the samples of macroblocks without channels: [..., c] to [...]."""
    return samples @ LUMA if samples.shape[-1] == 3 else samples.reshape(samples.shape[:-1])


def read_values(frames: Frames, carriers: Carriers) -> Float[Array, "*n rows columns k"]:
    """Return the coefficients that carry symbols, in grey levels over their relative spacing."""
    luma = _luma(to_macroblocks(frames))
    return jnp.einsum("...bs,kbs->...k", luma, carriers.waves(luma.shape[-2])) / carriers.spacings


def read_phases(
    frames: Frames, spacing: Float[Array, "..."] | float, carriers: Carriers
) -> Float[Array, "*n rows columns k"]:
    """Read the phases, in [-1/2, 1/2]."""
    return wrap(read_values(frames, carriers) / spacing)


def write_symbols(
    cover: Frames,
    symbols: Float[Array, "*n rows columns k"],
    spacing: Scalar,
    carriers: Carriers,
    whole: bool = True,
) -> Frames:
    """Write symbols into a cover.

    Samples that would leave 0 to 255 stay there, and the change that is missing then is made elsewhere in the
    block, again and again (projection onto two convex sets).

    Args:
        cover: rows and columns beyond whole macroblocks stay as they are.
        symbols: phases.
        spacing: D, grey levels of an orthonormal DCT; D^2 / 768 is added to the mean squared error of a block
            for each of its coefficients.
        carriers: of the symbols.
        whole: round to whole numbers.

    Returns:
        The stego, like the cover, float32.
    """
    samples = to_macroblocks(cover)
    waves, steps = carriers.waves(samples.shape[-3]), spacing * carriers.spacings

    def read(x):
        return jnp.einsum("...bs,kbs->...k", _luma(x), waves)

    start = read(samples)
    goal = start + steps * wrap(symbols - start / steps)

    def approach(_, x):
        return jnp.clip(x + jnp.einsum("...k,kbs->...bs", goal - read(x), waves)[..., None], 0, 255)

    moved = jax.lax.fori_loop(0, PROJECTIONS, approach, samples)
    return from_macroblocks(jnp.round(moved) if whole else moved, cover)


def write_some(
    frames: Frames,
    symbols: Float[Array, "*n rows columns k"],
    these: Bool[Array, "*n rows columns k"],
    spacing: Scalar,
    carriers: Carriers,
) -> Frames:
    """Write, as `write_symbols`, those symbols only for which `these` is true."""
    now = read_values(frames, carriers) / spacing
    return write_symbols(frames, jnp.where(these, symbols, now), spacing, carriers)


def write_repeated(
    cover: Frames,
    symbols: Float[Array, "groups rows columns k"],
    spacing: Scalar,
    carriers: Carriers,
    repeat: int,
) -> Frames:
    """Write symbols in groups of frames that share them and move alike, for covers that stand still.

    Args:
        cover: with one axis before height and width, of n frames.
        symbols: phases of the mean of each of ceil(n / repeat) groups.
        spacing: D.
        carriers: of the symbols.
        repeat: frames of a group; the last one may be shorter.
    """
    if repeat == 1:
        return write_symbols(cover, symbols, spacing, carriers)
    cover = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), cover)
    means = group_means(cover, repeat)
    written = write_symbols(means, symbols, spacing, carriers, whole=False)

    def moved(x, mean, goal):
        moves = jnp.repeat(goal - mean, repeat, axis=0)[: len(x)]
        return jnp.round(jnp.clip(x + moves, 0, 255))

    return jax.tree.map(moved, cover, means, written)


def group_means(frames: Frames, repeat: int) -> Any:
    """Average each group of frames that share symbols, [n, ...] to [ceil(n / repeat), ...]."""
    if repeat == 1:
        return frames

    def means(x):
        return jnp.stack([x[i : i + repeat].mean(0) for i in range(0, len(x), repeat)])

    return jax.tree.map(means, frames)


# --- reliability of phases -----------------------------------------------------------------------


def _neighbours(x: Array) -> tuple[Array, Array]:
    """Return the changes from the frame before and to the one after; 0 at the ends. [b, t, ...]."""
    change = x[:, 1:] - x[:, :-1]
    nothing = jnp.zeros_like(x[:, :1])
    return jnp.concatenate([nothing, change], axis=1), jnp.concatenate([change, nothing], axis=1)


def _signed_log(x: Array) -> Array:
    return jnp.sign(x) * jnp.log1p(jnp.abs(x))


def context(
    planes: tuple[Array, ...], spacing: Float[Array, " b"], carriers: Carriers
) -> Float[Array, "b t rows columns channels"]:
    """Compute the inputs of the reliability network from received planes [b, t, ...].

    Of every block, coefficients and their changes in time as signed logarithms and the energy of three bands
    above them; the phases as points on the circle; and the means of all these over the frame.
    """
    blocks = _luma(to_macroblocks(planes)) @ _WAVES.T
    order = zigzag(BLOCK)[1:]
    near = blocks[..., order[:CONTEXT]]
    bands = jnp.split(blocks[..., order[CONTEXT:-2]], 3, axis=-1)
    energy = [jnp.log1p(jnp.sqrt(jnp.mean(jnp.square(x), axis=-1, keepdims=True))) for x in bands]
    moving = [_signed_log(x) for x in _neighbours(near[..., :MOVING])]
    local = [_signed_log(near), jnp.log1p(jnp.abs(near)), *energy, *moving, *map(jnp.abs, moving)]
    local = rearrange(jnp.concatenate(local, axis=-1), "... blocks c -> ... (blocks c)")
    spacing = spacing[:, None, None, None, None]
    angle = 2 * jnp.pi * read_values(planes, carriers) / spacing
    local = jnp.concatenate([local, jnp.cos(angle), jnp.sin(angle)], axis=-1)
    means = jnp.broadcast_to(local.mean((2, 3), keepdims=True), local.shape)
    size = jnp.broadcast_to(jnp.log(spacing), (*local.shape[:-1], 1))
    return jnp.concatenate([local, means, size], axis=-1)


class Reliability(nn.Module):
    """[b, t, rows, columns, channels] -> log scale and logit of loss, [b, t, rows, columns, 2, count]."""

    count: int
    features: int
    layers: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x):
        """Apply the network; see the class."""
        b = len(x)
        x = nn.Conv(self.features, (1, 1), dtype=self.dtype)(rearrange(x, "b t ... -> (b t) ..."))
        for _ in range(self.layers):
            x = x + nn.Conv(self.features, (3, 3), dtype=self.dtype)(nn.relu(x))
        out = nn.Conv(2 * self.count, (1, 1), kernel_init=nn.initializers.zeros, dtype=jnp.float32)
        y = rearrange(out(nn.relu(x)), "(b t) y x (two k) -> b t y x two k", b=b, two=2)
        return y + jnp.array([-2.0, -3.0])[:, None]  # about the values of CRF 23


def _densities(raw: Array) -> tuple[Array, Array]:
    scale = jnp.clip(jnp.exp(raw[..., 0, :]), LEAST_SCALE, MOST_SCALE)
    return scale, nn.sigmoid(raw[..., 1, :])


def error_density(
    error: Float[Array, "..."], scale: Float[Array, "..."], lost: Float[Array, "..."], top: float = 0.0
) -> Float[Array, "..."]:
    """Return the density of a phase's error on the circle: logistic, and uniform where it is lost.

    `top`: the width of a flat top, in scales, with logistic flanks, as a uniform quantiser errs; 0: none.
    """
    turns = jnp.arange(-1, 2, dtype=jnp.float32)
    at, scale = error[..., None] + turns, scale[..., None]
    if top:
        left, right = (nn.sigmoid((at + side * top * scale) / (FLANK * scale)) for side in (-0.5, 0.5))
        return (1 - lost) * jnp.sum((right - left) / (top * scale), axis=-1) + lost
    z = at / (2 * scale)
    peak = jnp.sum(1 / (4 * scale * jnp.square(jnp.cosh(jnp.clip(z, -30, 30)))), axis=-1)
    return (1 - lost) * peak + lost


def calibrate(
    error: Float[Array, "*b n"], scale: Float[Array, "*b n"], lost: Float[Array, "*b n"], top: float = 0.0
) -> tuple[Float[Array, "*b"], Float[Array, "*b"]]:
    """Estimate from known symbols by which factor scales are off, and the share of phases lost besides.

    Args:
        error: of known symbols.
        scale: as the network has it.
        lost: as the network has it.
        top: see `error_density`.

    Returns:
        The likeliest one of FACTORS, or FINER_FACTORS, and of LOSSES.
    """
    factors = FINER_FACTORS if top else FACTORS
    factor, loss = (x.ravel() for x in np.meshgrid(factors, LOSSES, indexing="ij"))
    density = error_density(error[..., None, :], *adjusted(scale, lost, factor[:, None], loss[:, None]), top)
    best = jnp.argmax(jnp.mean(jnp.log(jnp.maximum(density, 1e-6)), axis=-1), axis=-1)
    return jnp.asarray(factor)[best], jnp.asarray(loss)[best]


def adjusted(scale, lost, factor, loss) -> tuple[Array, Array]:
    """Apply factors and losses [..., m, 1] to scale and loss [..., n] of phases: [..., m, n] each."""
    scale = jnp.clip(scale[..., None, :] * factor, LEAST_SCALE / 4, MOST_SCALE)
    lost = lost[..., None, :] * (1 + jnp.minimum(loss, 0))
    return scale, 1 - (1 - lost) * (1 - jnp.maximum(loss, 0))


# --- the model -----------------------------------------------------------------------------------


def network(config) -> Reliability:
    """Return the network of a config's section `model`."""
    count = len(carriers_of(config).blocks)
    return Reliability(count, config.features, config.depth, compute_dtype(config))


def demodulate(
    config: ConfigDict, params: Any, planes: tuple[Array, ...], spacing: Float[Array, " b"]
) -> tuple[Phases, Phases, Phases]:
    """Read received frames.

    Args:
        config: section `model`.
        params: of the network.
        planes: [b, t, ...], of t consecutive frames; see `planes_of`.
        spacing: D.

    Returns:
        (phase, scale, lost): phases in units of D, the scale of the logistic density of their errors, in
        units of D, and the probability that a phase says nothing.
    """
    carriers = carriers_of(config)
    raw = network(config).apply(params, context(planes, spacing, carriers))
    phase = read_phases(planes, spacing[:, None, None, None, None], carriers)
    return (phase, *_densities(raw))


def top_of(config: ConfigDict) -> float:
    """Return the width of the flat top of the errors' density of a config's section `model`."""
    return config.get("top", 0.0)  # which configs of videos lack


def _loss(config, params, batch):
    """Return minus the mean information, bits, that a symbol's receiver has who knows each frame's factor."""
    planes = tuple(batch[name].astype(jnp.float32) for name in ("luma", "cb", "cr") if name in batch)
    spacing = batch["step"].astype(jnp.float32)
    phase, scale, lost = demodulate(config, params["reveal"], planes, spacing)
    error = wrap(phase - batch["symbols"].astype(jnp.float32))
    error, scale, lost = (rearrange(x, "b t y x k -> b t (y x k)") for x in (error, scale, lost))
    density = error_density(
        error[..., None, :], *adjusted(scale, lost, FACTORS[:, None], 0.0), top_of(config)
    )
    bits = jnp.mean(jnp.max(jnp.mean(jnp.log2(jnp.maximum(density, 1e-6)), axis=-1), axis=-1))
    return -bits, {"loss": -bits, "bits_per_symbol": bits}


def build(config) -> Model:
    """Build the model of `config`: spacing, luma, chroma, features, depth, dtype.

    Here `hide` takes symbols for the secret, phases [*n, h//16, w//16, k], covers are `Frames`, and `reveal`
    returns what `demodulate` does. `deepsteg_jax.schemes.robust` makes symbols of a secret.
    """
    carriers = carriers_of(config)

    def init(key):
        planes = tuple(jnp.zeros((1, 1, side * BLOCK, side * BLOCK)) for side in _SIDES)
        planes = planes if config.chroma else planes[:1]
        params = network(config).init(key, context(planes, jnp.ones(1), carriers))
        return {"hide": params, "reveal": params}

    def hide(params, cover, symbols):
        return write_symbols(cover, symbols, config.spacing, carriers)

    def reveal(params, stego):
        planes = planes_of(stego)
        return demodulate(config, params, planes, jnp.full(len(planes[0]), config.spacing))

    def tie(params):
        return {"hide": params["reveal"], "reveal": params["reveal"]}

    def loss(params, batch, keys):
        del keys
        return _loss(config, params, batch)

    return Model(init, hide, reveal, tie=tie, loss=loss)
