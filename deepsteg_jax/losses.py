"""Training losses, weighted from the config."""

import jax
import jax.numpy as jnp


def mean_squared_error(a: jax.Array, b: jax.Array) -> jax.Array:
    """Mean of (a - b)^2 over arrays of one shape; of pixels in [0, 1] PSNR is -10 log10 of it."""
    return jnp.mean(jnp.square(a - b))


def total_loss(
    terms: dict[str, jax.Array], weights: dict[str, float]
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """The weighted sum of the terms, and what to log.

    With the terms `stego` and `secret` and the weights 1 and beta this is the loss of Baluja 2017
    (equation 1), ||c - c'||^2 + beta ||s - s'||^2.

    Args:
        terms: name -> scalar.
        weights: name -> weight, the same names.

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
