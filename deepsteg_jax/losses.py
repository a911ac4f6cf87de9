"""Training losses, weighted from the config."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from deepsteg_jax.colour import ycbcr
from deepsteg_jax.errors import UserError
from deepsteg_jax.shapes import Array, Scalar

# Linear sRGB to XYZ relative to white (IEC 61966-2-1), and the cube roots of that to L, a, b.
_TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
_TO_XYZ /= _TO_XYZ.sum(axis=1, keepdims=True)
_TO_LAB = np.array([[0, 1.16, 0], [5, -5, 0], [0, 2, -2]])
_WINDOW, _DEVIATION = 11, 1.5  # pixels, of the Gaussian window of SSIM


def mean_squared_error(a: Float[Array, "*shape"], b: Float[Array, "*shape"]) -> Float[Array, ""]:
    """Return the mean of (a - b)^2; of pixels in [0, 1] PSNR is -10 log10 of it."""
    return jnp.mean(jnp.square(a - b))


def to_space(x: Float[Array, "*n 3"], space: str) -> Float[Array, "*n 3"]:
    """Bring RGB in [0, 1] into the colour space in which errors count.

    Args:
        x: pixels; a little outside [0, 1] is fine.
        space: `rgb`, `ycbcr` (BT.601) or `lab` (CIELAB of sRGB with white D65, in hundreds).

    Raises:
        UserError: another space.
    """
    if space == "rgb":
        return x
    if space == "ycbcr":
        return _mix(x, ycbcr("bt601_full").matrix)
    if space != "lab":
        raise UserError(f"config.losses.colour must be rgb, ycbcr or lab, not {space!r}")
    linear = jnp.where(x > 0.04045, ((jnp.maximum(x, 0.04045) + 0.055) / 1.055) ** 2.4, x / 12.92)
    edge = 6 / 29
    t = _mix(linear, _TO_XYZ)
    root = jnp.where(t > edge**3, jnp.cbrt(jnp.maximum(t, edge**3)), t / (3 * edge**2) + 4 / 29)
    return _mix(root, _TO_LAB) - jnp.array([0.16, 0, 0])


def _mix(x, matrix):
    return jnp.einsum("...i,ji->...j", x, jnp.asarray(matrix, jnp.float32), precision="highest")


def dissimilarity(a: Float[Array, "*n h w c"], b: Float[Array, "*n h w c"]) -> Float[Array, ""]:
    """Return 1 - SSIM of pixels in [0, 1], at least 11 to a side: 0 for equal pictures, at most 2.

    Wang et al. 2004 with their Gaussian window, the mean over colours and where the whole window fits.
    """

    def blur(x):
        rows, columns = (jnp.asarray(_windows(n)) for n in x.shape[-3:-1])
        return jnp.einsum("ih,jw,...hwc->...ijc", rows, columns, x, precision="highest")

    mean_a, mean_b = blur(a), blur(b)
    var_a, var_b = blur(a * a) - mean_a**2, blur(b * b) - mean_b**2
    both = blur(a * b) - mean_a * mean_b
    luminance, structure = 0.01**2, 0.03**2
    similarity = (2 * mean_a * mean_b + luminance) * (2 * both + structure)
    scale = (mean_a**2 + mean_b**2 + luminance) * (var_a + var_b + structure)
    return 1 - jnp.mean(similarity / scale)


def _windows(size: int) -> np.ndarray:
    """Return the Gaussian windows that fit a line of `size` pixels, float32 [size - 10, size]."""
    weights = np.exp(-0.5 * ((np.arange(_WINDOW) - _WINDOW // 2) / _DEVIATION) ** 2)
    found = np.zeros((size - _WINDOW + 1, size), np.float32)
    for i, row in enumerate(found):
        row[i : i + _WINDOW] = weights / weights.sum()
    return found


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def reverse_gradient(x: Float[Array, "*shape"], strength: float) -> Float[Array, "*shape"]:
    """Return x; its gradient comes back times -strength, so that one descent serves two players.

    Ganin and Lempitsky 2015, "Unsupervised Domain Adaptation by Backpropagation".
    """
    return x


reverse_gradient.defvjp(lambda x, strength: (x, None), lambda strength, _, slope: (-strength * slope,))


def total_loss(terms: dict[str, Scalar], weights: dict[str, float]) -> tuple[Scalar, dict[str, Scalar]]:
    """Return the weighted sum of the terms, and the values to log.

    With the terms `stego` and `secret` and the weights 1 and beta this is the loss of Baluja 2017
    (equation 1), ||c - c'||^2 + beta ||s - s'||^2.

    Args:
        terms: by name.
        weights: by the same names.

    Returns:
        (loss, logs) with `loss_NAME` unweighted, `weighted_NAME`, and `loss`.

    Raises:
        KeyError: the names differ.
    """
    if set(terms) != set(weights):
        raise KeyError(f"loss terms {sorted(terms)} and weights {sorted(weights)} differ")
    weighted = {name: weights[name] * terms[name] for name in sorted(terms)}
    loss = sum(weighted.values())
    logs = {f"loss_{name}": value for name, value in terms.items()}
    logs |= {f"weighted_{name}": value for name, value in weighted.items()}
    return loss, logs | {"loss": loss}
