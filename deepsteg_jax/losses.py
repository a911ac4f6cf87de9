"""Training losses, weighted from the config."""

import jax.numpy as jnp
from jaxtyping import Float

from deepsteg_jax.shapes import Array, Scalar


def mean_squared_error(a: Float[Array, "*shape"], b: Float[Array, "*shape"]) -> Float[Array, ""]:
    """Return the mean of (a - b)^2; of pixels in [0, 1] PSNR is -10 log10 of it."""
    return jnp.mean(jnp.square(a - b))


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
