"""`robust`: symbols in low luma frequencies that real codecs leave readable, and the networks around them.

The cover's luma goes through an 8x8 DCT. Each of the lowest AC coefficients of a block carries a symbol, a
phase from -1/2 to 1/2: the coefficient moves to the nearest value that is congruent to it modulo a step D
(dirty paper, as in `block_dct`, but with a D as large as a codec's noise). The receiver takes the coefficient
modulo D. Where nothing happens on the way, it reads the phase; after a codec, the phase plus noise.

Two networks learn what the codec does, from records of real codecs:

    reliability   sees the received luma, and says of each phase how it errs: the scale of a logistic density
                  on the circle, and how often the phase is lost altogether; how large all scales of a frame
                  are, symbols that the receiver knows tell better (`calibrate`)
    restoration   sees a secret that was coded to a few bits, and brings it nearer to what it was

The sender uses the first too: it finds out what its own stego would carry through a codec. What the symbols
say is up to `deepsteg_jax.schemes.robust`.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from deepsteg_jax.channels.simulated_codecs import from_blocks, to_blocks
from deepsteg_jax.models.base import Model, compute_dtype

BLOCK = 8
LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # BT.601, as codecs take it by default
PROJECTIONS = 8  # onto 0..255 and onto the symbols, by turns
CONTEXT = 21  # coefficients of a block that the reliability network sees one by one
MOVING = 6  # of which it sees the change from and to the neighbouring frames
LEAST_SCALE, MOST_SCALE = 2.0**-9, 0.3  # of the phase's error, in steps
FACTORS = 2.0 ** np.arange(-4.5, 3.1, 0.5, np.float32)  # by which a frame's scales may be off
LOSSES = np.array([-0.98, -0.7, 0, 0.1, 0.3, 0.6], np.float32)  # of phases: fewer, or others too


def places(count: int, skip: int = 0) -> np.ndarray:
    """`count` AC coefficients of a block by rising frequency after `skip`, in the order of `to_blocks`."""
    u, v = np.mgrid[:BLOCK, :BLOCK].reshape(2, -1)
    return np.lexsort((u, u + v))[skip + 1 : skip + count + 1]


def wrap(x):
    """To the nearest representative modulo 1, [-1/2, 1/2]."""
    return x - jnp.round(x)


def luma_of(frames: jax.Array) -> jax.Array:
    """Luma [..., h', w'] of RGB [..., h, w, 3], both 0 to 255, of whole blocks: the rest is cut off."""
    h, w = (length // BLOCK * BLOCK for length in frames.shape[-3:-1])
    return frames[..., :h, :w, :].astype(jnp.float32) @ LUMA


def coefficients(luma: jax.Array) -> jax.Array:
    """[..., h, w] -> [..., h/8, w/8, 64]."""
    *rest, h, w = luma.shape
    return to_blocks(luma).reshape(*rest, h // BLOCK, w // BLOCK, BLOCK * BLOCK)


def read_phases(luma: jax.Array, step: jax.Array | float, count: int, skip: int = 0) -> jax.Array:
    """The phases of luma [..., h, w], sides multiples of 8: [..., h/8, w/8, count] in [-1/2, 1/2]."""
    return wrap(coefficients(luma)[..., places(count, skip)] / step)


def write_symbols(
    cover: jax.Array, symbols: jax.Array, step: jax.Array | float, whole: bool = True, skip: int = 0
) -> jax.Array:
    """Moves a cover to symbols.

    Samples that would leave 0 to 255 stay there, and what the symbols lack then is added elsewhere in the
    block, again and again (projection onto two convex sets).

    Args:
        cover: RGB [..., h, w, 3], 0 to 255; what 8 does not divide stays as it is.
        symbols: phases [..., h//8, w//8, k].
        step: D, grey levels of an orthonormal DCT; k D^2 / 768 is added to the mean squared error.
        whole: round to whole numbers.
        skip: coefficients of lower frequencies that are left alone.

    Returns:
        The stego, 0 to 255 as float32, same shape.
    """
    rows, columns, count = symbols.shape[-3:]
    h, w = rows * BLOCK, columns * BLOCK
    cover = jnp.asarray(cover, jnp.float32)
    inner = cover[..., :h, :w, :]
    which = places(count, skip)
    start = coefficients(luma_of(inner))[..., which]
    goal = start + step * wrap(symbols - start / step)

    def approach(_, x):
        missing = goal - coefficients(luma_of(x))[..., which]
        blocks = jnp.zeros((*missing.shape[:-1], BLOCK * BLOCK)).at[..., which].set(missing)
        blocks = blocks.reshape(*missing.shape[:-3], rows * columns, BLOCK * BLOCK)
        return jnp.clip(x + from_blocks(blocks, h, w)[..., None], 0, 255)

    moved = jax.lax.fori_loop(0, PROJECTIONS, approach, inner)
    return cover.at[..., :h, :w, :].set(jnp.round(moved) if whole else moved)


def write_some(frames: jax.Array, symbols: jax.Array, these: jax.Array, step: jax.Array | float) -> jax.Array:
    """`write_symbols` of those symbols only for which `these`, bool like `symbols`, is true."""
    now = coefficients(luma_of(frames))[..., places(symbols.shape[-1])] / step
    return write_symbols(frames, jnp.where(these, symbols, now), step)


def write_held(cover: jax.Array, symbols: jax.Array, step: jax.Array | float, hold: int) -> jax.Array:
    """`write_symbols` in groups of frames that share symbols and move alike, for covers that stand still.

    Args:
        cover: RGB [n, h, w, 3], 0 to 255.
        symbols: of the mean of each group, phases [ceil(n / hold), h//8, w//8, k].
        step: D.
        hold: frames of a group; the last one may be shorter.
    """
    if hold == 1:
        return write_symbols(cover, symbols, step)
    cover = jnp.asarray(cover, jnp.float32)
    means = jnp.stack([cover[i : i + hold].mean(0) for i in range(0, len(cover), hold)])
    moves = write_symbols(means, symbols, step, whole=False) - means
    return jnp.round(jnp.clip(cover + jnp.repeat(moves, hold, axis=0)[: len(cover)], 0, 255))


# --- how reliable a phase is ---------------------------------------------------------------------


def _neighbours(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """What changes from the frame before and to the one after; 0 at the ends. [b, t, ...]."""
    change = x[:, 1:] - x[:, :-1]
    nothing = jnp.zeros_like(x[:, :1])
    return jnp.concatenate([nothing, change], axis=1), jnp.concatenate([change, nothing], axis=1)


def _signed_log(x: jax.Array) -> jax.Array:
    return jnp.sign(x) * jnp.log1p(jnp.abs(x))


def context(luma: jax.Array, step: jax.Array, count: int) -> jax.Array:
    """What the reliability network sees of received luma [b, t, h, w]: [b, t, h/8, w/8, channels].

    Coefficients and their changes in time as signed logarithms, the energy of three bands above them, the
    phases as points on the circle, and the means of all these over the frame.
    """
    blocks = coefficients(luma)
    order = places(BLOCK * BLOCK - 1)
    near = blocks[..., order[:CONTEXT]]
    bands = jnp.split(blocks[..., order[CONTEXT:]], 3, axis=-1)
    energy = [jnp.log1p(jnp.sqrt(jnp.mean(jnp.square(x), axis=-1, keepdims=True))) for x in bands]
    moving = [_signed_log(x) for x in _neighbours(blocks[..., order[:MOVING]])]
    angle = 2 * jnp.pi * blocks[..., order[:count]] / step[:, None, None, None, None]
    local = [_signed_log(near), jnp.log1p(jnp.abs(near)), *energy, *moving, *map(jnp.abs, moving)]
    local = jnp.concatenate([*local, jnp.cos(angle), jnp.sin(angle)], axis=-1)
    means = jnp.broadcast_to(local.mean((2, 3), keepdims=True), local.shape)
    size = jnp.broadcast_to(jnp.log(step)[:, None, None, None, None], (*local.shape[:-1], 1))
    return jnp.concatenate([local, means, size], axis=-1)


class Reliability(nn.Module):
    """[b, t, rows, columns, channels] -> log scale and logit of loss, [b, t, rows, columns, 2, count]."""

    count: int
    features: int
    layers: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x):
        """See the class."""
        shape = x.shape[:-1]
        x = nn.Conv(self.features, (1, 1), dtype=self.dtype)(x.reshape(-1, *x.shape[2:]))
        for _ in range(self.layers):
            x = x + nn.Conv(self.features, (3, 3), dtype=self.dtype)(nn.relu(x))
        out = nn.Conv(2 * self.count, (1, 1), kernel_init=nn.initializers.zeros, dtype=jnp.float32)
        y = out(nn.relu(x)).reshape(*shape, 2, self.count)
        return y + jnp.array([-2.0, -3.0])[:, None]  # about what CRF 23 does


def _densities(raw: jax.Array) -> tuple[jax.Array, jax.Array]:
    scale = jnp.clip(jnp.exp(raw[..., 0, :]), LEAST_SCALE, MOST_SCALE)
    return scale, nn.sigmoid(raw[..., 1, :])


def error_density(error: jax.Array, scale: jax.Array, lost: jax.Array) -> jax.Array:
    """Density of a phase's error on the circle: a logistic one, and a uniform one where it is lost."""
    turns = jnp.arange(-1, 2, dtype=jnp.float32)
    z = (error[..., None] + turns) / (2 * scale[..., None])
    peak = jnp.sum(1 / (4 * scale[..., None] * jnp.square(jnp.cosh(jnp.clip(z, -30, 30)))), axis=-1)
    return (1 - lost) * peak + lost


def calibrate(error: jax.Array, scale: jax.Array, lost: jax.Array) -> tuple[jax.Array, jax.Array]:
    """By which factor scales are off and how many phases are lost besides, from errors that are known.

    Args:
        error: of known symbols, [..., n]; `scale` and `lost` as the network has them.

    Returns:
        The likeliest one of FACTORS and of LOSSES for each [...].
    """
    factor, loss = (x.ravel() for x in np.meshgrid(FACTORS, LOSSES, indexing="ij"))
    density = error_density(error[..., None, :], *adjusted(scale, lost, factor[:, None], loss[:, None]))
    best = jnp.argmax(jnp.mean(jnp.log(jnp.maximum(density, 1e-6)), axis=-1), axis=-1)
    return jnp.asarray(factor)[best], jnp.asarray(loss)[best]


def adjusted(scale, lost, factor, loss) -> tuple[jax.Array, jax.Array]:
    """Scale and loss [..., n] of phases for factors and losses [..., m, 1] of all of them: [..., m, n]."""
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
        """See the class."""
        b, t, h, w, _ = coded.shape
        even = coded
        if h % 2 or w % 2:
            even = jnp.pad(coded, ((0, 0), (0, 0), (0, h % 2), (0, w % 2), (0, 0)), mode="edge")
        rows, columns = even.shape[2] // 2, even.shape[3] // 2
        packed = even.reshape(b, t, rows, 2, columns, 2, 3).swapaxes(3, 4).reshape(b, t, rows, columns, 12)
        before, after = (packed[:, np.clip(np.arange(t) + d, 0, t - 1)] for d in (-1, 1))
        x = jnp.concatenate([before, packed, after], axis=-1).reshape(b * t, rows, columns, 36) - 0.5
        x = nn.Conv(self.features, (3, 3), dtype=self.dtype)(x)
        for _ in range(self.layers):
            x = x + nn.Conv(self.features, (3, 3), dtype=self.dtype)(nn.relu(x))
        out = nn.Conv(12, (3, 3), kernel_init=nn.initializers.zeros, dtype=jnp.float32)
        y = out(nn.relu(x)).reshape(b, t, rows, columns, 2, 2, 3).swapaxes(3, 4)
        return coded + y.reshape(even.shape)[:, :, :h, :w]


# --- the model -----------------------------------------------------------------------------------


def networks(config) -> tuple[Reliability, Restoration]:
    """The two networks of a config's section `model`."""
    dtype = compute_dtype(config)
    return (
        Reliability(config.coefficients, config.features, config.depth, dtype),
        Restoration(config.restoration_features, config.restoration_depth, dtype),
    )


def demodulate(config, params, luma: jax.Array, step: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Reads received luma.

    Args:
        config: section `model`.
        params: of the reliability network.
        luma: [b, t, h, w], 0 to 255, t consecutive frames, sides multiples of 8.
        step: D, [b].

    Returns:
        (phase, scale, lost), each [b, t, h/8, w/8, k]: what was read, in steps, the scale of its error's
        logistic density, in steps, and the probability that it says nothing.
    """
    reliability = networks(config)[0]
    raw = reliability.apply(params, context(luma, step, config.coefficients))
    phase = read_phases(luma, step[:, None, None, None, None], config.coefficients)
    return (phase, *_densities(raw))


def restore(config, params, coded: jax.Array) -> jax.Array:
    """A decoded secret [b, t, h, w, 3] in [0, 1], restored; `params` of the restoration network."""
    return networks(config)[1].apply(params, coded)


def _information(config, params, batch) -> jax.Array:
    """Mean information that a symbol's receiver has of it, bits, who knows the factor of each frame best."""
    step = batch["step"].astype(jnp.float32)
    phase, scale, lost = demodulate(config, params, batch["frames"].astype(jnp.float32), step)
    error = wrap(phase - batch["symbols"].astype(jnp.float32))
    sent = jnp.arange(error.shape[-1]) < batch["count"][:, None, None, None, None]
    sent = jnp.broadcast_to(sent, error.shape)
    error, scale, lost, sent = (x.reshape(*x.shape[:2], -1) for x in (error, scale, lost, sent))
    density = error_density(error[..., None, :], *adjusted(scale, lost, FACTORS[:, None], 0.0))
    bits = jnp.log2(jnp.maximum(density, 1e-6))
    return jnp.mean(jnp.max(jnp.mean(bits, axis=-1, where=sent[:, :, None]), axis=-1))


def _mean_psnr(a: jax.Array, b: jax.Array) -> jax.Array:
    errors = jnp.mean(jnp.square(a - b), axis=(2, 3, 4))
    return jnp.mean(-10 * jnp.log10(jnp.maximum(errors, 1e-7)))


def _loss(config, params, batch):
    """See `Model.loss`; minus bits per symbol, and minus dB of restored frames."""
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
    """The model of `config`: coefficients, step, features, layers, restoration_features and _layers, dtype.

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
