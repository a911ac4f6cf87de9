"""The network on tiny pictures."""

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from deepsteg_jax.steganalysis import learning, network, scores


@pytest.fixture
def config():
    return ConfigDict(
        {
            "seed": 0,
            "model": {"features": (8,), "front": "learned", "planes": 3},
            "optimizer": {
                "num_steps": 12,
                "learning_rate": 0.01,
                "schedule": "constant",
                "warmup_steps": 0,
                "clip_norm": 5.0,
                "ema_decay": 0.0,
            },
            "train": {
                "batch_size": 8,
                "accumulate_steps": 1,
                "calibration_steps": 4,
                "log_every_steps": 6,
                "save_every_steps": 12,
                "picture_every_steps": 10**9,
                "validate_every_steps": 10**9,
            },
        }
    )


@pytest.fixture
def covers():
    y, x = np.mgrid[:40, :44]
    waves = np.random.default_rng(0).uniform(0.1, 0.4, (24, 3, 2))
    pictures = 120 + 60 * np.sin(waves[..., :1, None] * y + waves[..., 1:, None] * x)
    return np.moveaxis(pictures, 1, -1).astype(np.uint8)


def embed(cover, step, rng, cut):
    return (cover + rng.integers(-2, 3, cover.shape)).astype(np.uint8)


@pytest.fixture
def draw(covers):
    return learning.draw_pairs(covers, embed, 24, 8, seed=3)


@pytest.mark.slow
def test_it_learns_and_is_restored_from_its_folder(config, covers, draw, tmp_path):
    found = learning.train(config, draw, tmp_path)
    again = learning.train(config, draw, tmp_path)  # takes no further step
    jax.tree.map(np.testing.assert_array_equal, found, again)
    stegos = embed(covers, 0, np.random.default_rng(9), None)
    clean, changed = (learning.score(config, found, x) for x in (covers, stegos))
    assert clean.shape == (24,) and scores.auc(clean, changed) > 0.9


def test_a_batch_depends_on_its_step_alone(covers, draw):
    first, other, again = draw(1), draw(2), draw(1)
    np.testing.assert_array_equal(first["cover"], again["cover"])
    np.testing.assert_array_equal(first["stego"], again["stego"])
    assert (first["cover"] != other["cover"]).any()


def test_crops_of_given_stegos_are_those_of_their_covers(covers):
    draw = learning.draw_pairs(covers, lambda cover, step, rng, cut: cut(covers + 1), 24, 8, seed=0)
    batch = draw(5)
    np.testing.assert_array_equal(batch["stego"], batch["cover"] + 1)


def test_the_first_layer_starts_at_residuals_of_flat_zero():
    kernels = network.high_pass_kernels()
    assert kernels.shape == (5, 5, 3, 24)
    np.testing.assert_allclose(kernels.sum(axis=(0, 1)), 0, atol=1e-6)
    np.testing.assert_allclose(np.abs(kernels[2, :, 1, 0]).max(), 1)  # green's first difference


def test_the_fixed_front_end_has_every_residual_once():
    kernels = network.rich_kernels(1)[:, :, 0]
    assert kernels.shape == (5, 5, 22)
    np.testing.assert_allclose(kernels.sum(axis=(0, 1)), 0, atol=1e-6)
    trimmed = [x[np.ix_(x.any(1), x.any(0))] for x in np.moveaxis(kernels, -1, 0)]
    known = {(x.shape, x.tobytes()) for x in trimmed}
    turned = {(x.shape, np.ascontiguousarray(x[::-1, ::-1]).tobytes()) for x in trimmed}
    assert len(known) == 22
    # Turned by half a circle, edges become one another, and a line is its own mirror but for the sign.
    assert len(known & turned) == 14


def test_a_fixed_front_end_learns_nothing_and_has_no_sign(covers):
    fixed = network.Network((4,), "fixed")
    grey = covers[:2, :, :, :1].astype(np.float32)
    variables = fixed.init(jax.random.key(0), grey, True)
    assert "residuals" not in variables["params"]
    scores_of = [fixed.apply(variables, x, True, mutable=["batch_stats"])[0] for x in (grey, 255 - grey)]
    np.testing.assert_allclose(*scores_of, rtol=1e-4, atol=1e-5)
