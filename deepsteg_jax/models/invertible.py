"""`invertible`: affine couplings between cover and secret, run backwards to reveal.

After HiNet (Jing et al., ICCV 2021, equations 1-4): both pictures become Haar coefficients; couplings

    x1' = x1 + phi(x2),    x2' = x2 * exp(alpha(rho(x1'))) + eta(x1')

mix the cover's branch x1 with the secret's branch x2; the stego is the last x1, and the last x2 is thrown
away. Reveal runs the same couplings backwards with zero in its place. Differences from HiNet: opponent
colours; zero, the mean of HiNet's random fill, instead of a random draw; and small residual-free networks
for a small training budget. The channel rounds to 8 bits in training (configs/invertible.py), which
HiNet's own code does not.

`start = "swap"` begins at the linear scheme instead of at the identity: the half of the cover's
coefficients that carries the least energy makes room for the half of the secret's that carries the most,
with gains that split the power as sqrt(variance), the optimum for a white error.
"""

from collections.abc import Callable
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from deepsteg_jax.dct import diagonal_frequencies, from_blocks, pad_to_blocks, to_blocks
from deepsteg_jax.errors import UserError
from deepsteg_jax.models.base import Model, compute_dtype, rematerialise
from deepsteg_jax.stripes import map_tiles

TILE = 256  # blocks of a side that are worked on at once
CLAMP = 2.0  # bound of log scales, as in HiNet
SWAP_POWER = 2e-4  # mean power of the hidden coefficients, [0, 1] pixels squared


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


def swap_plan(block: int) -> tuple[np.ndarray, np.ndarray]:
    """Choose the coefficients to swap by a power-law spectrum of photographs.

    Returns:
        (order, gains): the coefficients of a block by falling energy, int [c], and the gain of each of the
        first c/2, float32 [c/2].
    """
    frequency = np.tile(np.log2(1 + diagonal_frequencies(block)), 3)
    chroma = np.repeat([0.0, 1.5, 2.0], block * block)
    log_deviation = np.log2(block / 4) - 1.2 * frequency - chroma
    order = np.argsort(-log_deviation, kind="stable")
    kept = log_deviation[order[: len(order) // 2]]
    # Power a^2 v proportional to sqrt(v), in all SWAP_POWER for every coefficient of the block.
    share = np.exp2(kept) / np.exp2(kept).sum() * SWAP_POWER * len(order)
    return order, np.sqrt(share / np.exp2(2 * kept)).astype(np.float32)


def _swap(x1, x2, order, gains):
    """Apply the linear scheme: (cover, secret) -> (stego, lost part)."""
    high, low = np.split(order, 2)
    stego = x1.at[..., low].set(x2[..., high] * gains)
    return stego, jnp.concatenate([x1[..., low], x2[..., low]], axis=-1)


def _swap_back(x1, lost, order, gains):
    """Invert `_swap`."""
    high, low = np.split(order, 2)
    cover_low, secret_low = jnp.split(lost, 2, axis=-1)
    x2 = jnp.zeros_like(x1).at[..., high].set(x1[..., low] / gains).at[..., low].set(secret_low)
    return x1.at[..., low].set(cover_low), x2


def build(config) -> Model:
    """Build the model of `config`: block, start, couplings, features, depth, dtype, remat; frame by frame.

    Raises:
        UserError: `start` is unknown.
    """
    if config.start not in ("identity", "swap"):
        raise UserError(f"config.model.start must be identity or swap, not {config.start!r}")
    channels = 3 * config.block**2
    coupling = rematerialise(Coupling, config, ("__call__", "inverse"))
    make = partial(coupling, config.features, config.depth, channels, compute_dtype(config))
    network = Couplings(config.couplings, make)
    swaps = config.start == "swap"
    plan, reach = swap_plan(config.block), 2 * config.couplings * (config.depth + 1)

    def analyse(video):
        frames = video.reshape(-1, *video.shape[-3:])
        return to_blocks(pad_to_blocks(frames - 0.5, config.block), config.block)

    def synthesise(coefficients, shape):
        frames = from_blocks(coefficients, config.block) + 0.5
        return frames[:, : shape[-3], : shape[-2]].reshape(shape)

    def init(key):
        grid = jnp.zeros((1, 2, 2, channels))
        return tie({"hide": network.init(key, grid, grid)["params"], "reveal": {}})

    def hide(params, cover, secret):
        x1, x2 = analyse(cover), analyse(secret)
        if swaps:
            x1, x2 = _swap(x1, x2, *plan)

        def one(x1, x2):
            return network.apply({"params": params}, x1, x2)[0]

        return synthesise(map_tiles(one, TILE, reach, x1, x2), cover.shape)

    def reveal(params, stego):
        def one(x1):
            x1, x2 = network.apply({"params": params}, x1, jnp.zeros_like(x1), method="inverse")
            return _swap_back(x1, x2, *plan)[1] if swaps else x2

        return synthesise(map_tiles(one, TILE, reach, analyse(stego)), stego.shape)

    def tie(params):
        copies = jax.tree.map(lambda x: jnp.array(x, copy=True), params["hide"])
        return {"hide": params["hide"], "reveal": copies}

    return Model(init, hide, reveal, tie=tie)
