"""A convolutional steganalyser behind high-pass filters of green and of colour differences.

In the line of Xu et al. 2016, "Structural Design of Convolutional Neural Networks for Steganalysis", and Ye
et al. 2017, "Deep Learning Hierarchical Representations for Image Steganalysis": residuals, truncated; small
convolutions; averages over ever larger areas. Cover and stego of a pair are in the same batch, without which
it does not start to learn.
"""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from deepsteg_jax.steganalysis.features import KB, KV, LINES

LIMIT = 3.0  # residuals are truncated to -3..3
# By the number of planes, the mixes that are filtered: of RGB G, R - G and B - G.
MIXES = {1: np.array([[1]]), 3: np.array([[0, 1, 0], [1, -1, 0], [0, -1, 1]])}


def high_pass_kernels(planes: int = 3) -> np.ndarray:
    """Return the start of a learned front end, float32 [5, 5, planes, n]: 8 residuals of each of MIXES."""
    lines = [_line(taps, step) for taps in LINES for step in _STEPS[:2]]
    return _of_mixes([*lines, np.pad(KB, 1) / 4, KV / 12], planes)


def rich_kernels(planes: int = 3) -> np.ndarray:
    """Return the fixed front end, float32 [5, 5, planes, n]: 22 residuals of each of MIXES.

    The 30 linear ones of Fridrich and Kodovsky 2012, "Rich Models for Steganalysis of Digital Images",
    without the eight that are others seen from the other end.
    """
    lines = [_line(taps, step) for taps in LINES for step in _STEPS]
    squares, edges = (np.pad(KB, 1) / 4, KV / 12), []
    for square in squares:
        half = np.where(np.arange(5)[:, None] <= 2, square, 0)  # it stops at an edge below
        edges += [np.rot90(half, turn) for turn in range(4)]
    return _of_mixes([*lines, *squares, *edges], planes)


_STEPS = ((0, 1), (1, 0), (1, 1), (1, -1))  # directions of residuals along a line


def _line(taps: Sequence[int], step: tuple[int, int]) -> np.ndarray:
    kernel = np.zeros((5, 5))
    for i, tap in enumerate(taps, -((len(taps) - 1) // 2)):
        kernel[2 + i * step[0], 2 + i * step[1]] = tap / max(map(abs, taps))
    return kernel


def _of_mixes(kernels: Sequence[np.ndarray], planes: int) -> np.ndarray:
    mixed = np.einsum("kyx,mc->yxcmk", np.stack(kernels), MIXES[planes])
    return mixed.reshape(5, 5, planes, -1).astype(np.float32)


class Network(nn.Module):
    """Pictures [b, h, w, 1 or 3] in 0..255 -> [b], the log-odds that they are stegos.

    Attributes:
        features: channels of each convolution behind the front end.
        front: `learned`, or `fixed`: the residuals of `rich_kernels` stay, and what the first convolution
            makes of them loses its sign, as in Yedroudj, Comby and Chaumont 2018, "Yedroudj-Net: An
            Efficient CNN for Spatial Steganalysis".
    """

    features: Sequence[int]
    front: str = "learned"

    @nn.compact
    def __call__(self, x, train: bool):
        """Apply the network; `train` normalises by the batch instead of by `calibrate`'s figures."""
        x = lax.conv_general_dilated(
            x, self._kernel(x.shape[-1]), (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        x = jnp.clip(x, -LIMIT, LIMIT)
        for i, features in enumerate(self.features):
            x = nn.Conv(features, (3, 3), use_bias=False)(x)
            x = jnp.abs(x) if self.front == "fixed" and i == 0 else x
            x = nn.relu(nn.BatchNorm(use_running_average=not train, momentum=0.0)(x))
            if i + 1 < len(self.features):
                x = nn.avg_pool(x, (2, 2), (2, 2))
        return nn.Dense(1)(x.mean(axis=(1, 2)))[:, 0]

    def _kernel(self, planes: int) -> jax.Array:
        if self.front == "fixed":
            return jnp.asarray(rich_kernels(planes))
        kernel = self.param("residuals", lambda _: jnp.asarray(high_pass_kernels(planes)))
        # Without a sum of zero, brightness would soon saturate what is truncated.
        return kernel - kernel.mean(axis=(0, 1))


def discriminate(network: Network, params: Any, cover: jax.Array, stego: jax.Array) -> tuple[jax.Array, ...]:
    """Return the cross entropy of telling pairs [b, h, w, c] in 0..255 apart, in nats, and the accuracy."""
    pictures = jnp.concatenate([cover, stego]).astype(jnp.float32)
    scores, _ = network.apply({"params": params}, pictures, True, mutable=["batch_stats"])
    labels = jnp.repeat(jnp.array([0.0, 1.0]), len(cover))
    accuracy = jnp.mean((scores > 0) == (labels > 0))
    return optax.sigmoid_binary_cross_entropy(scores, labels).mean(), accuracy
