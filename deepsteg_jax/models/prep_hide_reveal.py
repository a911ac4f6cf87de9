"""`prep_hide_reveal`: prepare, hide and reveal networks after Baluja 2017.

"Hiding Images in Plain Sight: Deep Steganography" (NIPS 2017), as in the Keras system "Deep Video
Steganography: Hiding Videos in Plain Sight": each network is made of blocks of three parallel stacks of
3x3, 4x4 and 5x5 convolutions with 50 channels whose outputs are concatenated; hide and reveal end in a
1x1 convolution. Pixels are normalised by the ImageNet mean and deviation. Train it with Gaussian noise
on the stego, the loss ||c - c'||^2 + beta ||s - s'||^2, and Adam (configs/prep_hide_reveal.py).
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from deepsteg_jax.models.base import Model, compute_dtype, rematerialise

MEAN = np.array([0.485, 0.456, 0.406], np.float32)
DEVIATION = np.array([0.229, 0.224, 0.225], np.float32)
KERNELS = (3, 4, 5)


def normalise(x: jax.Array) -> jax.Array:
    """Bring RGB in [0, 1], [..., 3], to zero mean and unit deviation over ImageNet."""
    return (x - MEAN) / DEVIATION


def denormalise(x: jax.Array) -> jax.Array:
    """Invert `normalise`, [..., 3] -> [..., 3]."""
    return x * DEVIATION + MEAN


class Block(nn.Module):
    """Parallel stacks of `depth` 3x3, 4x4 and 5x5 convolutions, [..., c] -> [..., 3 * features]."""

    features: int
    depth: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x):
        """Apply the stacks; see the class."""
        stacks = []
        for kernel in KERNELS:
            y = x
            for i in range(self.depth):
                name = f"conv{kernel}x{kernel}_{i}"
                y = nn.relu(nn.Conv(self.features, (kernel, kernel), dtype=self.dtype, name=name)(y))
            stacks.append(y)
        return jnp.concatenate(stacks, axis=-1)


class Network(nn.Module):
    """Two blocks, four convolutions deep and one deep, then 1x1 to RGB if `out` says so."""

    out: bool
    features: int
    dtype: jnp.dtype
    block: type[nn.Module]

    @nn.compact
    def __call__(self, x):
        """Apply the network; see the class."""
        x = self.block(self.features, 4, self.dtype, name="block0")(x)
        x = self.block(self.features, 1, self.dtype, name="block1")(x)
        return nn.Conv(3, (1, 1), dtype=self.dtype, name="out")(x) if self.out else x


def _frames(x: jax.Array) -> jax.Array:
    return x.reshape(-1, *x.shape[-3:])


def build(config) -> Model:
    """Build the model of `config`: features (50 in the original), dtype, remat; video goes frame by frame."""
    settings = config.features, compute_dtype(config), rematerialise(Block, config)
    prepare, hide_network, reveal_network = (Network(out, *settings) for out in (False, True, True))

    def init(key):
        prepare_key, hide_key, reveal_key = jax.random.split(key, 3)
        picture = jnp.zeros((1, 8, 8, 3))
        prepared = jnp.zeros((1, 8, 8, 3 + len(KERNELS) * config.features))
        return {
            "hide": {
                "prepare": prepare.init(prepare_key, picture)["params"],
                "hide": hide_network.init(hide_key, prepared)["params"],
            },
            "reveal": reveal_network.init(reveal_key, picture)["params"],
        }

    def hide(params, cover, secret):
        prepared = prepare.apply({"params": params["prepare"]}, normalise(_frames(secret)))
        together = jnp.concatenate([normalise(_frames(cover)), prepared], axis=-1)
        stego = hide_network.apply({"params": params["hide"]}, together)
        return denormalise(stego.astype(jnp.float32)).reshape(cover.shape)

    def reveal(params, stego):
        revealed = reveal_network.apply({"params": params}, normalise(_frames(stego)))
        return denormalise(revealed.astype(jnp.float32)).reshape(stego.shape)

    return Model(init, hide, reveal)
