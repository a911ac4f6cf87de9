"""What several modes need: a model ready to work, tables, the compilation cache."""

import ctypes
import os
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict
from tqdm import tqdm

from deepsteg_jax import enhance, models
from deepsteg_jax.modes import is_robust
from deepsteg_jax.steganography import Codec
from deepsteg_jax.training import checkpoints
from deepsteg_jax.video import pipeline
from deepsteg_jax.video.pipeline import Report, Settings, Side

_M_MMAP_THRESHOLD = -3  # in malloc.h of glibc


def use_compilation_cache() -> None:
    """Lets a second start reuse what the first one compiled; JAX_COMPILATION_CACHE_DIR moves it."""
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        home = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
        jax.config.update("jax_compilation_cache_dir", str(home / "deepsteg_jax"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)


def _return_large_buffers() -> None:
    """Has the C library give buffers as large as a frame back at once, so that memory is bounded.

    Once glibc has seen such buffers it keeps freed ones for later, in pieces and more of them with the length
    of a video. Other C libraries are left alone.
    """
    with suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, 2**18)


def load_side(config: ConfigDict, side: str) -> Side:
    """One side of the config's model with the parameters of its checkpoint.

    Args:
        config: the whole config.
        side: "hide" or "reveal"; only that side's parameters stay in memory.

    Raises:
        UserError: no such model or checkpoint, or they do not fit.
    """
    use_compilation_cache()
    _return_large_buffers()
    model = models.build(config.model)
    reveal = checkpoints.restore_params(config.checkpoint, model, config.model, "reveal")
    fingerprint = checkpoints.fingerprint(reveal)
    params = reveal
    if side == "hide":
        params = checkpoints.restore_params(config.checkpoint, model, config.model, "hide")
    codec = Codec(model, config.shuffle, config.model.frames)
    return Side(codec, jax.device_put(params), model.step, fingerprint, Path(config.checkpoint).name)


def load_robust(config: ConfigDict, side: str) -> Any:
    """The parameters of one side of the model `robust`; arguments and what it raises as for `load_side`."""
    use_compilation_cache()
    _return_large_buffers()
    model = models.build(config.model)
    return jax.device_put(checkpoints.restore_params(config.checkpoint, model, config.model, side))


def hider(config: ConfigDict) -> Callable[..., Report]:
    """`hide` of the pipeline for the config's model, called from the credential on.

    Raises:
        UserError: as `load_side`.
    """
    return _bound(config, "hide")


def revealer(config: ConfigDict) -> Callable[..., Report]:
    """`reveal` of the pipeline for the config's model, called from the credential on; raises as `hider`.

    With `config.enhance.after_reveal` what it writes is enhanced.
    """
    reveal = _bound(config, "reveal")
    return enhance.after(reveal, config.enhance) if config.enhance.after_reveal else reveal


def _bound(config: ConfigDict, side: str) -> Callable[..., Report]:
    if not is_robust(config):
        return partial(getattr(pipeline, side), load_side(config, side))
    from deepsteg_jax.video import robust_pipeline

    return partial(getattr(robust_pipeline, side), config, load_robust(config, side))


def settings_of(config: ConfigDict, loop_cover: bool = False) -> Settings:
    """How section `video` of the config wants a secret to be laid along a cover."""
    return Settings(config.video.align, loop_cover, config.video.sound_bit_rate)


def progress_bar(title: str, frames: int | None = None) -> tqdm:
    """A progress bar over frames, on stderr."""
    return tqdm(desc=title, total=frames, unit="frame", dynamic_ncols=True)


def table(rows: list[tuple[str, str]]) -> str:
    """Two aligned columns."""
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)
