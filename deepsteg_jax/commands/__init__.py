"""The modes of main.py, each a module with `run(config, options)`; imported only when chosen."""

import importlib
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from deepsteg_jax.errors import UserError

MODES = ("roundtrip", "hide", "reveal", "enhance", "live", "app", "export", "keygen", "train", "evaluate")


class Options(NamedTuple):
    """The command line besides the config."""

    workdir: str
    cover: str | None = None
    secret: str | None = None
    stego: str | None = None
    input: str | None = None
    output: str | None = None
    passphrase_file: str | None = None
    key_file: str | None = None
    loop_cover: bool = False
    coordinator: str | None = None
    num_processes: int | None = None
    process_id: int | None = None
    host: str = "127.0.0.1"
    port: int = 7860
    open: bool = False
    upload_limit: int = 2048  # MiB


def make_workdir(options: Options) -> Path:
    """Makes the folder that a mode writes into.

    Raises:
        UserError: it cannot be made.
    """
    workdir = Path(options.workdir)
    try:
        workdir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make the folder {workdir}: {error.strerror}") from None
    return workdir


def load(name: str) -> ModuleType:
    """Imports a mode."""
    return importlib.import_module(f"deepsteg_jax.commands.{name}")
