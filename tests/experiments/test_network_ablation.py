"""The variants of the small networks, and what they are trained on."""

from itertools import islice

import numpy as np

from deepsteg_jax import models
from deepsteg_jax.training.state import create_optimizer
from experiments import network_ablation


def test_every_variant_fits_the_config():
    for name in network_ablation.VARIANTS:
        config = network_ablation.config_of(name, 20)
        models.build(config.model)
        create_optimizer(config.optimizer)


def test_batches_are_crops_and_the_same_again():
    config = network_ablation.config_of("default", 1)
    photo = np.arange(60 * 70 * 3, dtype=np.uint16).reshape(60, 70, 3)  # no two values alike
    first, again = (
        next(islice(network_ablation.batches(config, [photo], [photo]), 1, None)) for _ in range(2)
    )
    for name, crops in first.items():
        assert crops.shape == (8, 48, 48, 3)
        np.testing.assert_array_equal(crops, again[name])
        for part in crops:
            y, x, _ = np.unravel_index(part.min(), photo.shape)
            found = photo[y : y + 48, x : x + 48]
            assert np.array_equal(part, found) or np.array_equal(part, found[:, ::-1])
    assert np.any(first["cover"] != first["secret"])
