"""Fixtures of the tests of training: a model that compiles in no time, its config, a folder of images."""

import functools
import gc
import os
import random
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
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
    from deepsteg_jax import keys, losses, metrics, models, steganography  # noqa: F401
    from deepsteg_jax.channels import simulated  # noqa: F401
    from tests.toy import build_toy, get_config

CACHE = Path(__file__).parents[1] / ".cache" / f"jax-{jax.__version__}"


@functools.cache
def _derived(cost: frozenset, passphrase: bytes) -> bytes:
    return Argon2id(**dict(cost)).derive(passphrase)


# What was derived before, such as by the sender of a test, is kept: it takes 0.2 s each time.
keys.Argon2id = lambda **cost: SimpleNamespace(derive=functools.partial(_derived, frozenset(cost.items())))


def pytest_configure() -> None:
    """Has this process and all that it starts compile quickly, and each program once."""
    settings = {
        "jax_compilation_cache_dir": str(CACHE),
        "jax_persistent_cache_min_compile_time_secs": 0.0,
        "jax_disable_most_optimizations": True,  # halves the time that compiling takes
        "jax_traceback_in_locations_limit": 0,  # nobody reads which lines a program is of
    }
    # The older emitters of loops compile in two thirds of the time, one module per program in less.
    flags = "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
    os.environ.setdefault("XLA_FLAGS", flags)
    for name, value in settings.items():
        if name.upper() not in os.environ:
            os.environ[name.upper()] = str(value)
            jax.config.update(name, value)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Has slow tests run first, so that none of them runs alone at the end."""
    items.sort(key=lambda item: "slow" not in item.keywords)


def pytest_collection_finish() -> None:
    """Has the garbage collector leave what was imported alone, and come seldom: 5 % of the time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


def pytest_fixture_setup(fixturedef: pytest.FixtureDef, request: pytest.FixtureRequest) -> None:
    """Has a fixture draw the same salts in every run, whichever test asks for it first."""
    os.urandom = random.Random(f"{fixturedef.argname} {request.param_index}").randbytes


def pytest_runtest_call(item: pytest.Item) -> None:
    """Has a test draw the same salts in every run: few of them must not decide."""
    os.urandom = random.Random(item.nodeid).randbytes


@pytest.fixture
def toy(monkeypatch) -> ConfigDict:
    """The config of the model `toy`, registered for one test; without a folder of data."""
    monkeypatch.setitem(models.MODELS, "toy", build_toy)
    return get_config()


@pytest.fixture(scope="session")
def image_folder(tmp_path_factory):
    """Seven small images of noise."""
    folder = tmp_path_factory.mktemp("images")
    for i, pixels in enumerate(np.random.default_rng(0).integers(0, 256, (7, 12, 12, 3), np.uint8)):
        Image.fromarray(pixels).save(folder / f"{i}.png")
    return folder
