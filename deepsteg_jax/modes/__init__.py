"""The modes of main.py, each a module with `run(config, options)`; imported only when chosen."""

import importlib
from types import ModuleType
from typing import NamedTuple

MODES = ("roundtrip", "hide", "reveal", "train", "evaluate")


class Options(NamedTuple):
    """The command line besides the config."""

    workdir: str
    cover: str | None = None
    secret: str | None = None
    stego: str | None = None
    output: str | None = None
    passphrase_file: str | None = None


def load(name: str) -> ModuleType:
    """Imports a mode."""
    return importlib.import_module(f"deepsteg_jax.modes.{name}")
