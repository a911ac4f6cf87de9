"""A convolutional steganalyser that starts from high-pass filters of green and of colour differences.

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
    """Return the first layer's start, float32 [5, 5, planes, n]: eight residuals of each of MIXES."""
    lines = [np.zeros((5, 5)) for _ in range(6)]
    for kernel, taps in zip(lines[::2], LINES, strict=True):
        kernel[2, 2 - (len(taps) - 1) // 2 :][: len(taps)] = np.array(taps) / max(map(abs, taps))
    lines[1::2] = [kernel.T for kernel in lines[::2]]
    kernels = np.stack([*lines, np.pad(KB, 1) / 4, KV / 12], axis=-1)
    return np.einsum("yxk,mc->yxcmk", kernels, MIXES[planes]).reshape(5, 5, planes, -1).astype(np.float32)


class Network(nn.Module):
    """Pictures [b, h, w, 1 or 3] in 0..255 -> [b], the log-odds that they are stegos."""

    features: Sequence[int]

    @nn.compact
    def __call__(self, x, train: bool):
        """Apply the network; `train` normalises by the batch instead of by `calibrate`'s figures."""
        kernel = self.param("residuals", lambda _: jnp.asarray(high_pass_kernels(x.shape[-1])))
        # Without a sum of zero, brightness would soon saturate what is truncated.
        kernel = kernel - kernel.mean(axis=(0, 1))
        x = lax.conv_general_dilated(x, kernel, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"))
        x = jnp.clip(x, -LIMIT, LIMIT)
        for i, features in enumerate(self.features):
            x = nn.Conv(features, (3, 3), use_bias=False)(x)
            x = nn.relu(nn.BatchNorm(use_running_average=not train, momentum=0.0)(x))
            if i + 1 < len(self.features):
                x = nn.avg_pool(x, (2, 2), (2, 2))
        return nn.Dense(1)(x.mean(axis=(1, 2)))[:, 0]


def discriminate(network: Network, params: Any, cover: jax.Array, stego: jax.Array) -> tuple[jax.Array, ...]:
    """Return the cross entropy of telling pairs [b, h, w, c] in 0..255 apart, in nats, and the accuracy."""
    pictures = jnp.concatenate([cover, stego]).astype(jnp.float32)
    scores, _ = network.apply({"params": params}, pictures, True, mutable=["batch_stats"])
    labels = jnp.repeat(jnp.array([0.0, 1.0]), len(cover))
    accuracy = jnp.mean((scores > 0) == (labels > 0))
    return optax.sigmoid_binary_cross_entropy(scores, labels).mean(), accuracy
