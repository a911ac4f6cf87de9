"""The modes of main.py, each a module with `run(config, options)`; imported only when chosen."""

import importlib
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from ml_collections import ConfigDict

from deepsteg_jax.commands import settings
from deepsteg_jax.errors import UserError

_MODEL = {"checkpoint", "model", "shuffle"}
_SCHEME = _MODEL | {"secret_layers", "repeats", "overhead", "fine", "growth", "margin", "payload"}
_SCHEME |= {"lines", "sound_share"}
_TRAINING = {"seed", "deterministic", "channel", "losses", "optimizer", "train", "data"}
# The sections of the config that each mode uses; training saves those of the scheme in its checkpoints.
SECTIONS = {
    "roundtrip": _SCHEME | {"video"},
    "hide": _SCHEME | {"video"},
    "reveal": _SCHEME,
    "enhance": set(),
    "live": _MODEL,
    "app": _SCHEME | {"video"},
    "export": _SCHEME | {"video", "data"},  # data: the length of groups where the model has none
    "keygen": set(),
    "train": _SCHEME | _TRAINING,
    "evaluate": _SCHEME | {"evaluate"},
}
MODES = tuple(SECTIONS)
SETTINGS = {"live": settings.LIVE, "enhance": settings.ENHANCE, "export": settings.EXPORT}


class Options(NamedTuple):
    """The command line besides the config; hide may be given several of some."""

    workdir: str
    cover: str | None = None
    secret: str | tuple[str, ...] | None = None
    stego: str | None = None
    input: str | None = None
    output: str | None = None
    passphrase_file: str | tuple[str, ...] | None = None
    key_file: str | tuple[str, ...] | None = None
    slots: int = 1
    loop_cover: bool = False
    drop_tags: bool = False
    coordinator: str | None = None
    num_processes: int | None = None
    process_id: int | None = None
    workers: int = 0  # processes; 0: this one
    scheduler: str | None = None
    host: str = "127.0.0.1"
    port: int = 7860
    open: bool = False
    upload_limit: int = 2048  # MiB
    enhance_revealed: bool = False
    live: ConfigDict = settings.LIVE
    enhance: ConfigDict = settings.ENHANCE
    export: ConfigDict = settings.EXPORT


def make_workdir(options: Options) -> Path:
    """Make the folder that a mode writes into.

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
    """Import a mode."""
    return importlib.import_module(f"deepsteg_jax.commands.{name}")
