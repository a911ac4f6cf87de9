"""Orthonormal DCT of blocks: of RGB frames by way of opponent colours, and of single planes.

With blocks of two pixels the DCT is the Haar wavelet, one level.
"""

from functools import cache, partial

import jax.numpy as jnp
import numpy as np
from einops import rearrange
from jax import lax
from jaxtyping import Float, Int

from deepsteg_jax.shapes import Array

# Orthonormal opponent colours: lightness, red-blue, green-magenta.
_OPPONENT = np.array([[2, 2, 2], [6**0.5, 0, -(6**0.5)], [2**0.5, -(8**0.5), 2**0.5]], np.float32) / 12**0.5


# Recent GPUs multiply float32 matrices in TF32 unless told not to: 11 bits, far off the 8-bit grid.
einsum = partial(jnp.einsum, precision="highest", optimize="optimal")


def mix(x: Float[Array, "..."], matrix: Float[np.ndarray, "rows columns"], axis: int) -> Float[Array, "..."]:
    """Multiply a short axis by a matrix, in sums that are written out.

    So they have the same bits for any shape of `x`, which the library's products with few columns do not.
    """
    parts = [lax.index_in_dim(x, i, axis, keepdims=False) for i in range(x.shape[axis])]
    sums = [sum(part * weight for part, weight in zip(parts, row, strict=True)) for row in matrix]
    return jnp.stack(sums, axis)


@cache
def dct_matrix(
    size: int, count: int | None = None, dtype: type = np.float32
) -> Float[np.ndarray, "frequency {size}"]:
    """Return the orthonormal DCT-II, [frequency, sample]; with `count` its lowest frequencies only."""
    k, x = np.mgrid[: size if count is None else count, :size]
    matrix = np.sqrt(2 / size) * np.cos(np.pi * (2 * x + 1) * k / (2 * size))
    matrix[0] /= np.sqrt(2)
    return matrix.astype(dtype)


@cache
def diagonal_frequencies(size: int) -> Int[np.ndarray, " {size*size}"]:
    """Return u + v of each coefficient of a block in the order of `to_blocks`: rising."""
    u, v = np.mgrid[:size, :size]
    return np.sort((u + v).ravel())


@cache
def zigzag(size: int) -> Int[np.ndarray, " {size*size}"]:
    """Return the indices, row by row, of a block's coefficients in the order of rising u + v, then u."""
    u, v = np.mgrid[:size, :size]
    return np.lexsort((u.ravel(), (u + v).ravel()))


def pad_to_blocks(frames: Float[Array, "n h w c"], size: int) -> Float[Array, "n H W c"]:
    """Repeat the last row and column until `size` divides both sides."""
    h, w = frames.shape[1:3]
    if h % size == 0 and w % size == 0:
        return frames
    # Gathers, since jax2onnx does not know how to pad with edges.
    rows, columns = (np.minimum(np.arange(n + -n % size), n - 1) for n in (h, w))
    return frames[:, rows][:, :, columns]


def to_blocks(frames: Float[Array, "n h w 3"], size: int) -> Float[Array, "n rows columns {3*size*size}"]:
    """Return the coefficients of every block, orthonormal.

    Args:
        frames: h and w are multiples of `size`.
        size: side of a block in pixels.

    Returns:
        One colour after the other, each by rising frequency: neighbours have similar scales.
    """
    x = rearrange(frames, "n (y i) (x j) c -> n y x c (i j)", i=size, j=size)
    x = einsum("nyxcs,fs->nyxcf", x, _block_basis(size)[zigzag(size)])
    return rearrange(mix(x, _OPPONENT, axis=3), "n y x d f -> n y x (d f)")


def from_blocks(
    coefficients: Float[Array, "n rows columns {3*size*size}"], size: int
) -> Float[Array, "n {size}*rows {size}*columns 3"]:
    """Invert `to_blocks`."""
    x = rearrange(coefficients, "n y x (d f) -> n y x d f", d=3)
    x = mix(einsum("nyxdf,fs->nyxds", x, _block_basis(size)[zigzag(size)]), _OPPONENT.T, axis=3)
    return rearrange(x, "n y x c (i j) -> n (y i) (x j) c", i=size)


@cache
def _block_basis(size: int) -> np.ndarray:
    """Return the orthonormal DCT of a whole block, [frequency, sample], both row by row."""
    return np.kron(dct_matrix(size), dct_matrix(size))


def plane_to_blocks(planes: Float[Array, "*n h w"], size: int) -> Float[Array, "*n rows columns {size*size}"]:
    """Return the coefficients of every block of planes, orthonormal, row by row; `zigzag` sorts them.

    Args:
        planes: h and w are multiples of `size`.
        size: side of a block in pixels.
    """
    x = rearrange(planes, "... (y i) (x j) -> ... y x (i j)", i=size, j=size)
    return einsum("...i,ui->...u", x, _block_basis(size))


def plane_from_blocks(
    coefficients: Float[Array, "*n rows columns {size*size}"], size: int
) -> Float[Array, "*n {size}*rows {size}*columns"]:
    """Invert `plane_to_blocks`."""
    x = einsum("...u,ui->...i", coefficients, _block_basis(size))
    return rearrange(x, "... y x (i j) -> ... (y i) (x j)", i=size)
