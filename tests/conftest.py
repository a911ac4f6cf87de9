"""Fixtures of the tests of training: a model that compiles in no time, its config, a folder of images."""

import os
from pathlib import Path

import jax
import numpy as np
import pytest
from jaxtyping import install_import_hook
from ml_collections import ConfigDict
from PIL import Image

import tests.typecheck  # noqa: F401 - found by its name below

# Modules whose signatures say shapes: checked by every test that calls them.
SHAPED = [
    f"deepsteg_jax.{name}"
    for name in (
        "channels.simulated",
        "channels.simulated_codecs",
        "cipher",
        "dct",
        "keystream",
        "losses",
        "metrics",
        "models.block_dct",
        "models.symbols",
        "shuffle",
        "steganography",
    )
]

with install_import_hook(SHAPED, "tests.typecheck.check"):
    from deepsteg_jax import losses, metrics, models, steganography  # noqa: F401
    from deepsteg_jax.channels import simulated  # noqa: F401
    from tests.toy import build_toy

CACHE = Path(__file__).parents[1] / ".cache" / f"jax-{jax.__version__}"


def pytest_configure() -> None:
    """Has this process and all that it starts compile quickly, and each program once."""
    settings = {
        "jax_compilation_cache_dir": str(CACHE),
        "jax_persistent_cache_min_compile_time_secs": 0.0,
        "jax_disable_most_optimizations": True,  # halves the time that compiling takes
    }
    for name, value in settings.items():
        if name.upper() not in os.environ:
            os.environ[name.upper()] = str(value)
            jax.config.update(name, value)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Has slow tests run first, so that none of them runs alone at the end."""
    items.sort(key=lambda item: "slow" not in item.keywords)


@pytest.fixture
def toy(monkeypatch) -> ConfigDict:
    """The config of the model `toy`, registered for one test; without a folder of data."""
    monkeypatch.setitem(models.MODELS, "toy", build_toy)
    return ConfigDict(
        {
            "seed": 3,
            "deterministic": False,
            "model": {"name": "toy", "size": 2, "frames": 1},
            "shuffle": {"moves": "nothing", "cipher": "blocks", "block_size": 4},
            "channel": (("gaussian_noise", 0.02),),
            "losses": {"stego": 1.0, "secret": 2.0, "secret_db": 0.01, "penalty": 1.0},
            "optimizer": {
                "num_steps": 6,
                "learning_rate": 0.01,
                "schedule": "constant",
                "warmup_steps": 2,
                "clip_norm": 10.0,
                "ema_decay": 0.0,
                "plateau_factor": 0.5,
                "plateau_patience": 2,
                "plateau_window": 3,
            },
            "train": {
                "batch_size": 4,
                "accumulate_steps": 1,
                "log_every_steps": 2,
                "picture_every_steps": 100,
                "save_every_steps": 2,
                "keep": 2,
                "validate_every_steps": 2,
                "best_metric": "loss",
            },
            "data": {
                "source": "images",
                "path": "",
                "validation_path": "",
                "frames": 1,
                "height": 8,
                "width": 8,
                "flip": True,
                "min_scale": 1.0,
                "cache": True,
            },
        }
    )


@pytest.fixture(scope="session")
def image_folder(tmp_path_factory):
    """Seven small images of noise."""
    folder = tmp_path_factory.mktemp("images")
    for i, pixels in enumerate(np.random.default_rng(0).integers(0, 256, (7, 12, 12, 3), np.uint8)):
        Image.fromarray(pixels).save(folder / f"{i}.png")
    return folder
