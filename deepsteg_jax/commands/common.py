"""What several modes need: a model ready to work, tables, the compilation cache."""

import ctypes
import os
import shlex
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict
from tqdm import tqdm

from deepsteg_jax import enhance, models, pipeline
from deepsteg_jax.commands import is_robust
from deepsteg_jax.pipeline import Report, Settings, Side
from deepsteg_jax.steganography import Codec
from deepsteg_jax.training import checkpoints

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


def revealer(config: ConfigDict, enhancement: ConfigDict | None = None) -> Callable[..., Report]:
    """`reveal` of the pipeline for the config's model, called from the credential on; raises as `hider`.

    With an `enhancement`, see `commands.settings.ENHANCE`, what it writes is enhanced.
    """
    reveal = _bound(config, "reveal")
    return enhance.after(reveal, enhancement) if enhancement else reveal


def _bound(config: ConfigDict, side: str) -> Callable[..., Report]:
    if not is_robust(config):
        return partial(getattr(pipeline, side), load_side(config, side))
    from deepsteg_jax import robust_pipeline

    return partial(getattr(robust_pipeline, side), config, load_robust(config, side))


def settings_of(config: ConfigDict, loop_cover: bool = False) -> Settings:
    """How section `video` of the config wants a secret to be laid along a cover."""
    return Settings(config.video.align, loop_cover, config.video.get("sound_bit_rate", 0))


def cost(config: ConfigDict, height: int, width: int) -> dict[str, dict[str, float]]:
    """What the config's model costs, of each side: {"gmac_per_frame": {...}, "parameters": {...}}.

    Counts billions of multiply-adds for a frame of that size in the compiled program, which takes seconds. Of
    `robust`, which works on whole blocks, they are those of the symbols and of both networks, without codecs.
    """
    from deepsteg_jax import costs

    model = models.build(config.model)
    if is_robust(config):
        gmac = _gmac_of_robust(model, config, height, width)
    else:
        gmac = costs.gmac_per_frame(model, config.model.frames, height, width)
    return {"gmac_per_frame": gmac, "parameters": costs.parameter_counts(model)}


def _gmac_of_robust(model: models.Model, config: ConfigDict, height: int, width: int) -> dict[str, float]:
    from deepsteg_jax import costs
    from deepsteg_jax.models import symbols as symbol_model

    frames, rows, columns = config.data.frames, height // symbol_model.BLOCK, width // symbol_model.BLOCK
    height, width = symbol_model.BLOCK * rows, symbol_model.BLOCK * columns
    symbols = (1, frames, rows, columns, config.model.coefficients)
    gmac = costs.gmac_per_frame(model, frames, height, width, symbols)
    params = jax.eval_shape(model.init, jax.random.key(0))["reveal"]["restoration"]
    video = jax.ShapeDtypeStruct((1, frames, height, width, 3), jnp.float32)
    gmac["reveal"] += costs.flops(partial(symbol_model.restore, config.model), params, video) / (2e9 * frames)
    return gmac


def command() -> str:
    """The command line of this process, ready for a shell."""
    return shlex.join(["python", *sys.argv])


def progress_bar(title: str, frames: int | None = None) -> tqdm:
    """A progress bar over frames, on stderr."""
    return tqdm(desc=title, total=frames, unit="frame", dynamic_ncols=True)


def table(rows: list[tuple[str, str]]) -> str:
    """Two aligned columns."""
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)
