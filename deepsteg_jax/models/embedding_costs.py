"""`adaptive_learned`: embedding costs from a network, trained against a steganalyser that is trained on them.

In the line of Yang, Ruan, Huang, Kang and Shi, "An Embedding Cost Learning Framework Using GAN" (UT-GAN),
TIFS 2020: a network says where to change, an embedding is simulated at the bound of ideal codes, and a
steganalyser learns to tell it from the cover. Here the network corrects HILL and starts at HILL itself; the
payload is met exactly, by implicit differentiation of the multiplier instead of a penalty; and the gradient
reaches the costs as in Tang, Li, Barni, Li and Huang, "An Automatic Cost Learning Framework for Image
Steganography Using Deep Reinforcement Learning" (SPAR-RL), TIFS 2021: each change is rewarded by what it does
to the steganalyser to first order. One backward pass serves both players (`losses.reverse_gradient`).
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from ml_collections import ConfigDict

from deepsteg_jax import losses
from deepsteg_jax.models.base import Model, hides_nothing
from deepsteg_jax.steganalysis import network

SMOOTHED, SPREAD = 3, 15  # sides of HILL's two mean filters
FLAT = 0.02  # residual taken for none, below the least other one (1/9), so that costs stay finite
FEATURES, DEPTH = 16, 3  # channels and convolutions of the network
PACE = 0.005  # of the costs, in units of the steganalyser's, which has to keep up
FURTHEST = 1.0  # a corrected cost is within exp(-1) and exp(1) times HILL's
HALVINGS, WIDEST = 24, 30.0  # of the bisection for the multiplier's logarithm, and its first bounds


def hill(plane: jax.Array) -> jax.Array:
    """Return the HILL cost of each sample, float32 [h, w], finite and positive.

    Li, Wang, Huang and Li, "A new cost function for spatial image steganography", ICIP 2014: the reciprocal
    of the mean of the Ker-Boehme residual, averaged in turn. Edges are mirrored.

    Args:
      plane: integers [h, w] of any depth, in their own units; h and w at least 8.
    """
    return _mean(1 / jnp.maximum(_mean(jnp.abs(_residual(plane)), SMOOTHED), FLAT), SPREAD)


def _residual(plane: jax.Array) -> jax.Array:
    """Apply the Ker-Boehme filter: (1, -2, 1) along one axis, then along the other."""
    padded = jnp.pad(plane.astype(jnp.float32), 1, "symmetric")
    bent = padded[:-2] - 2 * padded[1:-1] + padded[2:]
    return bent[:, :-2] - 2 * bent[:, 1:-1] + bent[:, 2:]


def _mean(x: jax.Array, side: int) -> jax.Array:
    """Average over squares, with mirrored edges."""
    h, w = x.shape
    x = jnp.pad(x, side // 2, "symmetric")
    x = sum(x[i : i + h] for i in range(side))
    return sum(x[:, i : i + w] for i in range(side)) / side**2


class Correction(nn.Module):
    """Features of planes [b, h, w, 2] -> the logarithm of a factor of their costs, [b, h, w], 0 at first."""

    @nn.compact
    def __call__(self, x):
        """Apply the network."""
        for _ in range(DEPTH):
            x = nn.leaky_relu(nn.Conv(FEATURES, (3, 3))(x))
        x = PACE * nn.Conv(1, (1, 1), kernel_init=nn.initializers.zeros)(x)[..., 0]
        return FURTHEST * jnp.tanh(x / FURTHEST)


def learned(params: Any, plane: jax.Array, highest: int = 255) -> jax.Array:
    """Return HILL costs corrected by the network, float32 [h, w], finite and positive; their mean stays.

    Args:
      params: `hide` of `build`.
      plane: integers [h, w] from 0 to `highest`; h and w at least 8.
      highest: largest value of a sample.
    """
    plane = plane * (255 / highest)
    base, residual = hill(plane), _residual(plane)
    features = jnp.stack([jnp.log(base), jnp.sign(residual) * jnp.log1p(jnp.abs(residual))], -1)
    correction = Correction().apply({"params": params}, features[None])[0]
    return base * jnp.exp(correction - correction.mean())  # the price of other planes stays comparable


def chances(costs: jax.Array, payload: jax.Array) -> jax.Array:
    """Return the probability that an ideal code changes each sample, to one side: [h, w], up to 1/3.

    The payload-limited sender of Filler and Fridrich 2010, "Gibbs Construction in Steganography", ternary.

    Args:
      costs: float32 [h, w], finite and positive.
      payload: bits per sample, scalar, more than 0 and less than log2(3).
    """
    costs = costs / jnp.exp(jnp.mean(jnp.log(costs)))

    def excess(scale):
        return _entropy(costs, scale) - payload

    def bisect(function, guess):
        def halve(_, bounds):
            low, high = bounds
            middle = (low + high) / 2
            above = function(middle) > 0
            return jnp.where(above, middle, low), jnp.where(above, high, middle)

        low, high = lax.fori_loop(0, HALVINGS, halve, (guess - WIDEST, guess + WIDEST))
        return (low + high) / 2

    # The multiplier follows the costs: differentiated by the implicit function theorem.
    scale = lax.custom_root(excess, jnp.zeros(()), bisect, lambda slope, y: y / slope(1.0))
    weight = jnp.exp(-jnp.exp(scale) * costs)
    return weight / (1 + 2 * weight)


def _entropy(costs: jax.Array, scale: jax.Array) -> jax.Array:
    """Return bits per sample of changes to either side at probabilities of exp(-exp(scale) cost)."""
    x = jnp.minimum(jnp.exp(scale) * costs, 80.0)
    weight = jnp.exp(-x)
    # -sum p log p of p = (1, w, w) / (1 + 2 w)
    return jnp.mean(jnp.log1p(2 * weight) + 2 * weight * x / (1 + 2 * weight)) / jnp.log(2.0)


def simulate(key: jax.Array, chance: jax.Array) -> jax.Array:
    """Draw changes of -1, 0 or 1 at these probabilities to either side, differentiable in them.

    The gradient of a change's probability is that of its logarithm times the change's effect.
    """
    drawn = jax.random.uniform(key, chance.shape)
    change = (drawn < chance).astype(jnp.float32) - (drawn > 1 - chance)
    known = jnp.log(jnp.maximum(chance, 1e-30))  # the dearest samples have none
    return lax.stop_gradient(change) * (1 + known - lax.stop_gradient(known))


def build(config: ConfigDict) -> Model:
    """Build the game of a config's section `model`: `hide` holds the costs, `reveal` the steganalyser.

    It hides nothing by itself: `schemes.adaptive` embeds at its costs, and receivers need nothing of it.
    """
    steganalyser = network.Network(tuple(config.steganalyser))

    def init(key):
        own, other = jax.random.split(key)
        return {
            "hide": Correction().init(own, jnp.zeros((1, 16, 16, 2)))["params"],
            "reveal": steganalyser.init(other, jnp.zeros((1, 32, 32, 1)), True)["params"],
        }

    def stego_of(params, key, plane):
        own, size = jax.random.split(key)
        lowest, highest = config.payloads
        payload = lowest * (highest / lowest) ** jax.random.uniform(size)
        found = learned(params, plane)
        moved = lax.stop_gradient(jnp.log(found / hill(plane)))
        return plane + simulate(own, chances(found, payload)), jnp.std(moved)

    def loss(params, batch, keys):
        plane = batch["cover"][..., 1].astype(jnp.float32)  # of RGB, green alone is priced
        stego, distance = jax.vmap(stego_of, (None, 0, 0))(params["hide"], keys, plane)
        stego = losses.reverse_gradient(stego, config.strength)
        pair = plane[..., None], stego[..., None]
        found, accuracy = network.discriminate(steganalyser, params["reveal"], *pair)
        return found, {"accuracy": accuracy, "distance": distance.mean()}

    return Model(init, hides_nothing, hides_nothing, loss=loss, examples="covers and secrets")
