"""`invertible`: couplings between cover and secret, run backwards to reveal.

After HiNet (Jing et al., ICCV 2021, equations 1-4). With `start = "identity"` both pictures become Haar
coefficients; couplings

    x1' = x1 + phi(x2),    x2' = x2 * exp(alpha(rho(x1'))) + eta(x1')

mix the cover's branch x1 with the secret's branch x2; the stego is the last x1, and the last x2 is thrown
away. Reveal runs the same couplings backwards with zero in its place. Differences from HiNet: opponent
colours; zero, the mean of HiNet's random fill, instead of a random draw; and small residual-free networks
for a small training budget. The channel rounds to 8 bits in training (configs/invertible.py), which
HiNet's own code does not.

With `start = "modulo"` the couplings between cover and secret are fixed and hide by remainders, and what is
learned are couplings inside the secret: see `remainders`.
"""

from collections.abc import Callable
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from deepsteg_jax.dct import from_blocks, pad_to_blocks, to_blocks
from deepsteg_jax.errors import UserError
from deepsteg_jax.models import remainders
from deepsteg_jax.models.base import Model, compute_dtype, rematerialise
from deepsteg_jax.stripes import map_tiles

TILE = 256  # blocks of a side that are worked on at once
CLAMP = 2.0  # bound of log scales, as in HiNet


class Network(nn.Module):
    """`layers` 3x3 convolutions, densely connected, then one to `out` channels that starts at zero."""

    features: int
    layers: int
    out: int
    dtype: jnp.dtype = jnp.dtype("float32")

    @nn.compact
    def __call__(self, x):
        """Apply the network; see the class."""
        conv = partial(nn.Conv, kernel_size=(3, 3), dtype=self.dtype)
        x = x.astype(self.dtype)
        for i in range(self.layers):
            y = nn.leaky_relu(conv(self.features, name=f"conv{i}")(x), 0.2)
            x = jnp.concatenate([x, y], axis=-1)
        x = conv(self.out, kernel_init=nn.initializers.zeros, name="leave")(x)
        return x.astype(jnp.float32)


class Coupling(nn.Module):
    """One affine coupling and its inverse on branches [n, rows, columns, c]."""

    features: int
    layers: int
    channels: int
    dtype: jnp.dtype = jnp.dtype("float32")

    def setup(self):
        """Make the three networks."""
        self.phi, self.rho, self.eta = (
            Network(self.features, self.layers, self.channels, self.dtype) for _ in ("phi", "rho", "eta")
        )

    def _log_scale(self, x1):
        return CLAMP * (2 * nn.sigmoid(self.rho(x1)) - 1)

    def __call__(self, x1, x2):
        """Apply the coupling."""
        x1 = x1 + self.phi(x2)
        return x1, x2 * jnp.exp(self._log_scale(x1)) + self.eta(x1)

    def inverse(self, x1, x2):
        """Apply its inverse."""
        x2 = (x2 - self.eta(x1)) * jnp.exp(-self._log_scale(x1))
        return x1 - self.phi(x2), x2


class Couplings(nn.Module):
    """A chain of couplings, each made by `make()`."""

    count: int
    make: Callable[[], Coupling]

    def setup(self):
        """Make the couplings."""
        self.chain = [self.make() for _ in range(self.count)]

    def __call__(self, x1, x2):
        """Apply the couplings in order."""
        for coupling in self.chain:
            x1, x2 = coupling(x1, x2)
        return x1, x2

    def inverse(self, x1, x2):
        """Apply their inverses in reverse order."""
        for coupling in reversed(self.chain):
            x1, x2 = coupling.inverse(x1, x2)
        return x1, x2


def build(config) -> Model:
    """Build the model of `config`: start, block, couplings, features, depth, dtype, remat; frame by frame.

    The start modulo takes `modulus`, its D, besides.

    Raises:
        UserError: `start` is unknown, or D is out of range.
    """
    starts = {"identity": _build_couplings, "modulo": _build_remainders}
    if config.start not in starts:
        raise UserError(f"config.model.start must be identity or modulo, not {config.start!r}")
    return starts[config.start](config)


def _frames(video: jax.Array, block: int) -> jax.Array:
    return pad_to_blocks(video.reshape(-1, *video.shape[-3:]), block)


def _video(frames: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Invert `_frames`."""
    return frames[:, : shape[-3], : shape[-2]].reshape(shape)


def _tie(params):
    copies = jax.tree.map(lambda x: jnp.array(x, copy=True), params["hide"])
    return {"hide": params["hide"], "reveal": copies}


def _build_couplings(config) -> Model:
    """Build learned couplings between cover and secret."""
    block, channels = config.block, 3 * config.block**2
    coupling = rematerialise(Coupling, config, ("__call__", "inverse"))
    make = partial(coupling, config.features, config.depth, channels, compute_dtype(config))
    network = Couplings(config.couplings, make)
    reach = 2 * config.couplings * (config.depth + 1)

    def analyse(video):
        return to_blocks(_frames(video - 0.5, block), block)

    def synthesise(coefficients, shape):
        return _video(from_blocks(coefficients, block) + 0.5, shape)

    def init(key):
        grid = jnp.zeros((1, 2, 2, channels))
        return _tie({"hide": network.init(key, grid, grid)["params"], "reveal": {}})

    def hide(params, cover, secret):
        def one(x1, x2):
            return network.apply({"params": params}, x1, x2)[0]

        return synthesise(map_tiles(one, TILE, reach, analyse(cover), analyse(secret)), cover.shape)

    def reveal(params, stego):
        def one(x1):
            return network.apply({"params": params}, x1, jnp.zeros_like(x1), method="inverse")[1]

        return synthesise(map_tiles(one, TILE, reach, analyse(stego)), stego.shape)

    return Model(init, hide, reveal, tie=_tie)


def _build_remainders(config) -> Model:
    """Build fixed couplings between cover and secret, and learned ones inside the secret."""
    block, modulus = config.block, config.modulus
    plan, cells = remainders.make_plan(block, modulus), remainders.make_cells(block, modulus)
    module = rematerialise(remainders.Numbers, config, ("__call__", "inverse"))
    network = module(block, modulus, config.couplings, config.features, config.depth, compute_dtype(config))
    back = np.argsort(plan.order)

    def sides(shape):
        """Side of the square that a frame's end leaves of each block, [1, rows, columns, 1]."""
        rows, columns = (np.minimum(n - np.arange(0, n, block), block) for n in shape[-3:-1])
        return jnp.asarray(np.minimum.outer(rows, columns))[None, ..., None]

    def samples(video):
        return remainders.to_samples(jnp.round(255 * _frames(video, block)), block)

    def init(key):
        grid = jnp.zeros((1, 1, 1, len(back)))
        return _tie({"hide": network.init(key, grid, grid + 1, method="inverse")["params"], "reveal": {}})

    def hide(params, cover, secret):
        def one(x1, x2, sides):
            x2 = x2[..., plan.order] / plan.deviation
            numbers = network.apply({"params": params}, x2, jnp.asarray(cells)[sides[..., 0]])
            x1 = jnp.clip(x1, modulus // 2, 255 - modulus // 2)  # the nearest value with a remainder is 8-bit
            return remainders.embed(x1, numbers, block, modulus)[0]

        coefficients = to_blocks(_frames(secret - 0.5, block), block)
        stego = map_tiles(one, TILE, 0, samples(cover), coefficients, sides(cover.shape))
        return _video(remainders.from_samples(stego, block) / 255, cover.shape)

    def reveal(params, stego):
        def one(x1, sides):
            _, numbers = remainders.extract(x1, jnp.zeros_like(x1), block, modulus)
            arguments = numbers, jnp.asarray(cells)[sides[..., 0]]
            x2 = network.apply({"params": params}, *arguments, method="inverse")
            return (x2 * plan.deviation)[..., back]

        coefficients = map_tiles(one, TILE, 0, samples(stego), sides(stego.shape))
        return _video(from_blocks(coefficients, block) + 0.5, stego.shape)

    return Model(init, hide, reveal, tie=_tie, modulus=modulus)
