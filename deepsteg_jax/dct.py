"""Block transform of RGB frames: opponent colours, then an orthonormal DCT of every block.

With blocks of two pixels the DCT is the Haar wavelet, one level.
"""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np

# Orthonormal opponent colours: lightness, red-blue, green-magenta.
_OPPONENT = np.array([[2, 2, 2], [6**0.5, 0, -(6**0.5)], [2**0.5, -(8**0.5), 2**0.5]], np.float32) / 12**0.5


# Recent GPUs multiply float32 matrices in TF32 unless told not to: 11 bits, far off the 8-bit grid.
einsum = partial(jnp.einsum, precision="highest", optimize="optimal")


@cache
def dct_matrix(size: int, count: int | None = None, dtype: type = np.float32) -> np.ndarray:
    """Orthonormal DCT-II, [frequency, sample]; of `count` only the lowest so many frequencies."""
    k, x = np.mgrid[: size if count is None else count, :size]
    matrix = np.sqrt(2 / size) * np.cos(np.pi * (2 * x + 1) * k / (2 * size))
    matrix[0] /= np.sqrt(2)
    return matrix.astype(dtype)


@cache
def diagonal_frequencies(size: int) -> np.ndarray:
    """u + v of each coefficient of a block, int [size * size], in the order of `to_blocks`: rising."""
    u, v = np.mgrid[:size, :size]
    return np.sort((u + v).ravel())


@cache
def _zigzag(size: int) -> np.ndarray:
    u, v = np.mgrid[:size, :size]
    return np.lexsort((u.ravel(), (u + v).ravel()))


def pad_to_blocks(frames: jax.Array, size: int) -> jax.Array:
    """Repeats the last row and column of [n, h, w, 3] until `size` divides both sides."""
    h, w = frames.shape[1:3]
    if h % size == 0 and w % size == 0:
        return frames
    # Gathers, since jax2onnx does not know how to pad with edges.
    rows, columns = (np.minimum(np.arange(n + -n % size), n - 1) for n in (h, w))
    return frames[:, rows][:, :, columns]


def to_blocks(frames: jax.Array, size: int) -> jax.Array:
    """Coefficients of every block, orthonormal.

    Args:
        frames: [n, h, w, 3]; h and w multiples of `size`.
        size: side of a block in pixels.

    Returns:
        [n, h/size, w/size, 3 * size * size], one colour after the other, each by rising frequency:
        neighbours have similar scales.
    """
    n, h, w, _ = frames.shape
    x = frames.reshape(n, h // size, size, w // size, size, 3)
    basis = dct_matrix(size)
    x = einsum("nyixjc,ui,vj,dc->nyxduv", x, basis, basis, _OPPONENT)
    x = x.reshape(n, h // size, w // size, 3, size * size)[..., _zigzag(size)]
    return x.reshape(n, h // size, w // size, 3 * size * size)


def from_blocks(coefficients: jax.Array, size: int) -> jax.Array:
    """Inverse of `to_blocks`: [n, rows, columns, 3 * size * size] -> [n, h, w, 3]."""
    n, rows, columns, _ = coefficients.shape
    x = coefficients.reshape(n, rows, columns, 3, size * size)[..., np.argsort(_zigzag(size))]
    x = x.reshape(n, rows, columns, 3, size, size)
    basis = dct_matrix(size)
    x = einsum("nyxduv,ui,vj,dc->nyixjc", x, basis, basis, _OPPONENT)
    return x.reshape(n, rows * size, columns * size, 3)
