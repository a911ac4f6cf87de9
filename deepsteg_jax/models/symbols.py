"""`robust`: symbols in low luma frequencies that real codecs leave readable, and the networks around them.

The cover's luma goes through an 8x8 DCT. Each of the lowest AC coefficients of a block carries a symbol, a
phase from -1/2 to 1/2: the coefficient moves to the nearest value that is congruent to it modulo a spacing D
(dirty paper, as in `block_dct`, but with a D as large as a codec's noise). The receiver takes the coefficient
modulo D. Where nothing happens on the way, it reads the phase; after a codec, the phase plus noise.

Two networks learn what the codec does, from recordings of real codecs:

    reliability   sees the received luma, predicts the error of each phase: the scale of a logistic density
                  on the circle, and the probability that the phase is lost; known symbols then correct all
                  scales of a frame (`calibrate`)
    restoration   sees a secret that was coded to a few bits, and brings it nearer to the original

The sender uses the first too, to predict the capacity of its stego after a codec. The bits of the symbols are
up to `deepsteg_jax.schemes.robust`.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from jaxtyping import Bool, Float, Float32, Int, Shaped
from ml_collections import ConfigDict

from deepsteg_jax.colour import LUMA
from deepsteg_jax.dct import plane_from_blocks, plane_to_blocks, zigzag
from deepsteg_jax.models.base import Model, compute_dtype
from deepsteg_jax.shapes import Array, Scalar

BLOCK = 8
PROJECTIONS = 8  # onto 0..255 and onto the symbols, by turns
CONTEXT = 21  # coefficients of a block that the reliability network sees one by one
MOVING = 6  # of which it sees the change from and to the neighbouring frames
LEAST_SCALE, MOST_SCALE = 2.0**-9, 0.3  # of the phase's error, in spacings
FACTORS = 2.0 ** np.arange(-4.5, 3.1, 0.5, np.float32)  # by which a frame's scales may be off
LOSSES = np.array([-0.98, -0.7, 0, 0.1, 0.3, 0.6], np.float32)  # of phases: fewer, or others too

Phases = Float[Array, "b t rows columns k"]


def ac_indices(count: int, skip: int = 0) -> Int[np.ndarray, " {count}"]:
    """Return the indices, row by row, of `count` AC coefficients by rising frequency, after `skip` others."""
    return zigzag(BLOCK)[skip + 1 : skip + count + 1]


def wrap(x):
    """Reduce modulo 1 to the nearest representative, [-1/2, 1/2]."""
    return x - jnp.round(x)


def luma_of(frames: Shaped[Array, "*n h w 3"]) -> Float32[Array, "*n H W"]:
    """Return the luma of RGB, both 0 to 255, of whole blocks: the rest is cut off."""
    h, w = (length // BLOCK * BLOCK for length in frames.shape[-3:-1])
    return frames[..., :h, :w, :].astype(jnp.float32) @ LUMA


def coefficients(luma: Float[Array, "*n h w"]) -> Float[Array, "*n rows columns 64"]:
    """Transform all blocks of luma, sides multiples of 8."""
    return plane_to_blocks(luma, BLOCK)


def read_phases(
    luma: Float[Array, "*n h w"], spacing: Float[Array, "..."] | float, count: int, skip: int = 0
) -> Float[Array, "*n rows columns {count}"]:
    """Read the phases, in [-1/2, 1/2], of luma whose sides are multiples of 8."""
    return wrap(coefficients(luma)[..., ac_indices(count, skip)] / spacing)


def write_symbols(
    cover: Shaped[Array, "*n h w 3"],
    symbols: Float[Array, "*n h//8 w//8 k"],
    spacing: Scalar,
    whole: bool = True,
    skip: int = 0,
) -> Float32[Array, "*n h w 3"]:
    """Write symbols into a cover.

    Samples that would leave 0 to 255 stay there, and the change that is missing then is made elsewhere in the
    block, again and again (projection onto two convex sets).

    Args:
        cover: 0 to 255; rows and columns beyond whole blocks stay as they are.
        symbols: phases.
        spacing: D, grey levels of an orthonormal DCT; k D^2 / 768 is added to the mean squared error.
        whole: round to whole numbers.
        skip: coefficients of lower frequencies that are left alone.

    Returns:
        The stego, 0 to 255.
    """
    rows, columns, count = symbols.shape[-3:]
    h, w = rows * BLOCK, columns * BLOCK
    cover = jnp.asarray(cover, jnp.float32)
    inner = cover[..., :h, :w, :]
    indices = ac_indices(count, skip)
    start = coefficients(luma_of(inner))[..., indices]
    goal = start + spacing * wrap(symbols - start / spacing)

    def approach(_, x):
        missing = goal - coefficients(luma_of(x))[..., indices]
        blocks = jnp.zeros((*missing.shape[:-1], BLOCK * BLOCK)).at[..., indices].set(missing)
        return jnp.clip(x + plane_from_blocks(blocks, BLOCK)[..., None], 0, 255)

    moved = jax.lax.fori_loop(0, PROJECTIONS, approach, inner)
    return cover.at[..., :h, :w, :].set(jnp.round(moved) if whole else moved)


def write_some(
    frames: Shaped[Array, "*n h w 3"],
    symbols: Float[Array, "*n h//8 w//8 k"],
    these: Bool[Array, "*n h//8 w//8 k"],
    spacing: Scalar,
) -> Float32[Array, "*n h w 3"]:
    """Write, as `write_symbols`, those symbols only for which `these` is true."""
    now = coefficients(luma_of(frames))[..., ac_indices(symbols.shape[-1])] / spacing
    return write_symbols(frames, jnp.where(these, symbols, now), spacing)


def write_repeated(
    cover: Shaped[Array, "n h w 3"], symbols: Float[Array, "groups h//8 w//8 k"], spacing: Scalar, repeat: int
) -> Float32[Array, "n h w 3"]:
    """Write symbols in groups of frames that share them and move alike, for covers that stand still.

    Args:
        cover: 0 to 255.
        symbols: phases of the mean of each of ceil(n / repeat) groups.
        spacing: D.
        repeat: frames of a group; the last one may be shorter.
    """
    if repeat == 1:
        return write_symbols(cover, symbols, spacing)
    cover = jnp.asarray(cover, jnp.float32)
    means = jnp.stack([cover[i : i + repeat].mean(0) for i in range(0, len(cover), repeat)])
    moves = write_symbols(means, symbols, spacing, whole=False) - means
    return jnp.round(jnp.clip(cover + jnp.repeat(moves, repeat, axis=0)[: len(cover)], 0, 255))


# --- reliability of phases -----------------------------------------------------------------------


def _neighbours(x: Array) -> tuple[Array, Array]:
    """Return the changes from the frame before and to the one after; 0 at the ends. [b, t, ...]."""
    change = x[:, 1:] - x[:, :-1]
    nothing = jnp.zeros_like(x[:, :1])
    return jnp.concatenate([nothing, change], axis=1), jnp.concatenate([change, nothing], axis=1)


def _signed_log(x: Array) -> Array:
    return jnp.sign(x) * jnp.log1p(jnp.abs(x))


def context(
    luma: Float[Array, "b t h w"], spacing: Float[Array, " b"], count: int
) -> Float[Array, "b t rows columns channels"]:
    """Compute the inputs of the reliability network from received luma.

    Coefficients and their changes in time as signed logarithms, the energy of three bands above them, the
    phases as points on the circle, and the means of all these over the frame.
    """
    blocks = coefficients(luma)
    order = ac_indices(BLOCK * BLOCK - 1)
    near = blocks[..., order[:CONTEXT]]
    bands = jnp.split(blocks[..., order[CONTEXT:]], 3, axis=-1)
    energy = [jnp.log1p(jnp.sqrt(jnp.mean(jnp.square(x), axis=-1, keepdims=True))) for x in bands]
    moving = [_signed_log(x) for x in _neighbours(blocks[..., order[:MOVING]])]
    angle = 2 * jnp.pi * blocks[..., order[:count]] / spacing[:, None, None, None, None]
    local = [_signed_log(near), jnp.log1p(jnp.abs(near)), *energy, *moving, *map(jnp.abs, moving)]
    local = jnp.concatenate([*local, jnp.cos(angle), jnp.sin(angle)], axis=-1)
    means = jnp.broadcast_to(local.mean((2, 3), keepdims=True), local.shape)
    size = jnp.broadcast_to(jnp.log(spacing)[:, None, None, None, None], (*local.shape[:-1], 1))
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
    error: Float[Array, "..."], scale: Float[Array, "..."], lost: Float[Array, "..."]
) -> Float[Array, "..."]:
    """Return the density of a phase's error on the circle: logistic, and uniform where it is lost."""
    turns = jnp.arange(-1, 2, dtype=jnp.float32)
    z = (error[..., None] + turns) / (2 * scale[..., None])
    peak = jnp.sum(1 / (4 * scale[..., None] * jnp.square(jnp.cosh(jnp.clip(z, -30, 30)))), axis=-1)
    return (1 - lost) * peak + lost


def calibrate(
    error: Float[Array, "*b n"], scale: Float[Array, "*b n"], lost: Float[Array, "*b n"]
) -> tuple[Float[Array, "*b"], Float[Array, "*b"]]:
    """Estimate from known symbols by which factor scales are off, and the share of phases lost besides.

    Args:
        error: of known symbols.
        scale: as the network has it.
        lost: as the network has it.

    Returns:
        The likeliest one of FACTORS and of LOSSES.
    """
    factor, loss = (x.ravel() for x in np.meshgrid(FACTORS, LOSSES, indexing="ij"))
    density = error_density(error[..., None, :], *adjusted(scale, lost, factor[:, None], loss[:, None]))
    best = jnp.argmax(jnp.mean(jnp.log(jnp.maximum(density, 1e-6)), axis=-1), axis=-1)
    return jnp.asarray(factor)[best], jnp.asarray(loss)[best]


def adjusted(scale, lost, factor, loss) -> tuple[Array, Array]:
    """Apply factors and losses [..., m, 1] to scale and loss [..., n] of phases: [..., m, n] each."""
    scale = jnp.clip(scale[..., None, :] * factor, LEAST_SCALE / 4, MOST_SCALE)
    lost = lost[..., None, :] * (1 + jnp.minimum(loss, 0))
    return scale, 1 - (1 - lost) * (1 - jnp.maximum(loss, 0))


# --- restoration ---------------------------------------------------------------------------------


class Restoration(nn.Module):
    """A coded secret [b, t, h, w, 3] in [0, 1] -> the same, restored; each frame sees its neighbours."""

    features: int
    layers: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, coded):
        """Restore; see the class."""
        _, t, h, w, _ = coded.shape
        even = coded
        if h % 2 or w % 2:
            even = jnp.pad(coded, ((0, 0), (0, 0), (0, h % 2), (0, w % 2), (0, 0)), mode="edge")
        packed = rearrange(even, "b t (y i) (x j) c -> b t y x (i j c)", i=2, j=2)
        before, after = (packed[:, np.clip(np.arange(t) + d, 0, t - 1)] for d in (-1, 1))
        x = rearrange(jnp.concatenate([before, packed, after], axis=-1), "b t ... -> (b t) ...") - 0.5
        x = nn.Conv(self.features, (3, 3), dtype=self.dtype)(x)
        for _ in range(self.layers):
            x = x + nn.Conv(self.features, (3, 3), dtype=self.dtype)(nn.relu(x))
        out = nn.Conv(12, (3, 3), kernel_init=nn.initializers.zeros, dtype=jnp.float32)
        y = rearrange(out(nn.relu(x)), "(b t) y x (i j c) -> b t (y i) (x j) c", t=t, i=2, j=2)
        return coded + y[:, :, :h, :w]


# --- the model -----------------------------------------------------------------------------------


def networks(config) -> tuple[Reliability, Restoration]:
    """Return the two networks of a config's section `model`."""
    dtype = compute_dtype(config)
    return (
        Reliability(config.coefficients, config.features, config.depth, dtype),
        Restoration(config.restoration_features, config.restoration_depth, dtype),
    )


def demodulate(
    config: ConfigDict, params: Any, luma: Float[Array, "b t h w"], spacing: Float[Array, " b"]
) -> tuple[Phases, Phases, Phases]:
    """Read received luma.

    Args:
        config: section `model`.
        params: of the reliability network.
        luma: 0 to 255, of t consecutive frames, sides multiples of 8.
        spacing: D.

    Returns:
        (phase, scale, lost): phases in units of D, the scale of the logistic density of their errors, in
        units of D, and the probability that a phase says nothing.
    """
    reliability = networks(config)[0]
    raw = reliability.apply(params, context(luma, spacing, config.coefficients))
    phase = read_phases(luma, spacing[:, None, None, None, None], config.coefficients)
    return (phase, *_densities(raw))


def restore(config: ConfigDict, params: Any, coded: Float[Array, "b t h w 3"]) -> Float[Array, "b t h w 3"]:
    """Restore a decoded secret in [0, 1]; `params` of the restoration network."""
    return networks(config)[1].apply(params, coded)


def _information(config, params, batch) -> Array:
    """Return the mean information, bits, that a symbol's receiver has of it who knows each frame's factor."""
    spacing = batch["step"].astype(jnp.float32)
    phase, scale, lost = demodulate(config, params, batch["frames"].astype(jnp.float32), spacing)
    error = wrap(phase - batch["symbols"].astype(jnp.float32))
    sent = jnp.arange(error.shape[-1]) < batch["count"][:, None, None, None, None]
    sent = jnp.broadcast_to(sent, error.shape)
    error, scale, lost, sent = (rearrange(x, "b t y x k -> b t (y x k)") for x in (error, scale, lost, sent))
    density = error_density(error[..., None, :], *adjusted(scale, lost, FACTORS[:, None], 0.0))
    bits = jnp.log2(jnp.maximum(density, 1e-6))
    return jnp.mean(jnp.max(jnp.mean(bits, axis=-1, where=sent[:, :, None]), axis=-1))


def _mean_psnr(a: Array, b: Array) -> Array:
    errors = jnp.mean(jnp.square(a - b), axis=(2, 3, 4))
    return jnp.mean(-10 * jnp.log10(jnp.maximum(errors, 1e-7)))


def _loss(config, params, batch):
    """Return `Model.loss`: minus bits per symbol, and minus dB of restored frames."""
    total, logs = 0.0, {}
    if "symbols" in batch:
        bits = _information(config, params["reveal"]["reliability"], batch)
        total, logs = total - bits, {"bits_per_symbol": bits}
    if "coded" in batch:
        coded, secret = (batch[name].astype(jnp.float32) / 255 for name in ("coded", "secret"))
        restored = restore(config, params["reveal"]["restoration"], coded)
        psnr = _mean_psnr(restored, secret)
        total = total - psnr / 10
        logs |= {"secret_psnr_db": psnr, "gain_db": psnr - _mean_psnr(coded, secret)}
    return total, {"loss": total, **logs}


def build(config) -> Model:
    """Build the model of `config`: coefficients, spacing, features, depth, restoration_*, dtype.

    Here `hide` takes symbols for the secret, phases [b, t, h//8, w//8, k], and `reveal` returns what
    `demodulate` does. `deepsteg_jax.schemes.robust` makes symbols of a secret.
    """
    reliability, restoration = networks(config)

    def init(key):
        first, second = jax.random.split(key)
        luma, picture = jnp.zeros((1, 1, 16, 16)), jnp.zeros((1, 1, 16, 16, 3))
        seen = context(luma, jnp.ones(1), config.coefficients)
        shared = reliability.init(first, seen)
        return {
            "hide": {"reliability": shared},
            "reveal": {"reliability": shared, "restoration": restoration.init(second, picture)},
        }

    def hide(params, cover, symbols):
        return write_symbols(255 * cover, symbols, config.spacing) / 255

    def reveal(params, stego):
        luma = luma_of(255 * stego)
        return demodulate(config, params["reliability"], luma, jnp.full(len(luma), config.spacing))

    def tie(params):
        return {"hide": {"reliability": params["reveal"]["reliability"]}, "reveal": params["reveal"]}

    def loss(params, batch):
        return _loss(config, params, batch)

    return Model(init, hide, reveal, tie=tie, loss=loss)
