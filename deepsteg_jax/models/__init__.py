"""Registry of models: a name in the config -> pure functions."""

from collections.abc import Callable

from ml_collections import ConfigDict

from deepsteg_jax.errors import UserError
from deepsteg_jax.models import block_dct, embedding_costs, invertible, prep_hide_reveal, symbols
from deepsteg_jax.models.base import Model, Params, fingerprint

MODELS: dict[str, Callable[[ConfigDict], Model]] = {
    "adaptive_learned": embedding_costs.build,
    "block_dct": block_dct.build,
    "invertible": invertible.build,
    "prep_hide_reveal": prep_hide_reveal.build,
    "robust": symbols.build,
}


def build(config: ConfigDict) -> Model:
    """Build the model named by `config.name`, bound to `config` (the `model` section of a config).

    Raises:
        UserError: no model has that name.
    """
    if config.name not in MODELS:
        raise UserError(f"unknown model {config.name!r}: set config.model.name to one of {', '.join(MODELS)}")
    return MODELS[config.name](config)


__all__ = ["MODELS", "Model", "Params", "build", "fingerprint"]
