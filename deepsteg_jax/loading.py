"""From a config and its checkpoint to a `Scheme` that is ready to work."""

import ctypes
import os
from collections.abc import Mapping
from contextlib import suppress
from functools import lru_cache
from os import PathLike, fspath
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict, FrozenConfigDict

from deepsteg_jax import media, models
from deepsteg_jax.errors import UserError
from deepsteg_jax.schemes import SCHEMES
from deepsteg_jax.schemes.base import Purpose, Scheme, Settings
from deepsteg_jax.training import checkpoints

_M_MMAP_THRESHOLD = -3  # in malloc.h of glibc


def use_compilation_cache() -> None:
    """Let a second start reuse what the first one compiled; JAX_COMPILATION_CACHE_DIR moves it."""
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        home = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
        jax.config.update("jax_compilation_cache_dir", str(home / "deepsteg_jax"))
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)


def _return_large_buffers() -> None:
    """Have the C library give buffers as large as a frame back at once, so that memory is bounded.

    Once glibc has seen such buffers it keeps freed ones for later, in pieces and more of them with the length
    of a video. Other C libraries are left alone.
    """
    with suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, 2**18)


def load(config: ConfigDict) -> Scheme:
    """Make the scheme of a whole config; parameters are read when they are first used.

    Raises:
        UserError: no such model or checkpoint, or they do not fit.
    """
    use_compilation_cache()
    _return_large_buffers()
    checkpoints.locate(config.checkpoint)

    def restore(side: str) -> Any:
        model = models.build(config.model)
        return checkpoints.restore_params(config.checkpoint, model, config.model, side)

    try:
        return SCHEMES.get(config.model.name, SCHEMES["pixels"])(config, restore)
    except (AttributeError, KeyError, TypeError) as error:
        reason = str(error.args[0]).splitlines()[0]
        raise UserError(
            f"the config of {config.checkpoint!r} lacks a field, perhaps because it is from an older version "
            f"({reason}): take one of configs/ with --config.checkpoint"
        ) from None


def load_once(config: ConfigDict) -> Scheme:
    """Return what `load` does, and keep it with its compiled programs for the next call."""
    return _kept(FrozenConfigDict(config))


@lru_cache(maxsize=4)
def _kept(config: FrozenConfigDict) -> Scheme:
    return load(ConfigDict(config))


def config_of(checkpoint: str | PathLike, changes: Mapping[str, Any] | None = None) -> ConfigDict:
    """Return the config that a checkpoint carries, changed.

    Args:
        checkpoint: a shipped name, or a folder that training wrote.
        changes: values for fields, such as {"model.modulus": 4}.

    Raises:
        UserError: there is no such checkpoint or field.
    """
    config = checkpoints.read_config(fspath(checkpoint))
    config.checkpoint = fspath(checkpoint)
    return changed(config, changes)


def changed(config: ConfigDict, changes: Mapping[str, Any] | None) -> ConfigDict:
    """Return a config with other values of some fields; UserError if it has no such field."""
    config = config.copy_and_resolve_references().lock()
    try:
        config.update_from_flattened_dict(dict(changes or {}))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        reason = str(error.args[0] if error.args else error).strip().splitlines()[0]
        raise UserError(f"the config cannot be changed like this: {reason}") from None
    return config


class Shipped:
    """The shipped schemes, each loaded when it is first asked for and then kept."""

    def __init__(self, given: Scheme | None = None) -> None:
        """Take `given`, a scheme to use in place of the shipped one of its kind."""
        self._kept: dict[str, Scheme] = {}
        if given is not None:
            self._kept[_name(given.purpose, given.still)] = given

    def scheme(self, name: str) -> Scheme:
        """Return the scheme of a shipped checkpoint."""
        if name not in self._kept:
            self._kept[name] = load(config_of(name))
        return self._kept[name]

    def for_cover(self, info: media.Info, purpose: Purpose, output: str | None = None) -> str:
        """Return the name of the checkpoint that hides in such a cover for this purpose.

        Args:
            info: the cover's.
            purpose: of the stego.
            output: the stego's name; None: an exact format.
        """
        stays = purpose == "file" and output is not None and media.can_stay(info, output)
        return "adaptive_jpeg" if stays else _name(purpose, info.is_image)

    def for_stego(self, info: media.Info, exact: bool) -> list[str]:
        """Return the names of those that may have made a stego, the likeliest first.

        Args:
            info: the stego's.
            exact: whether its format keeps every sample.
        """
        surviving = ["robust_image", "robust"] if info.is_image else ["robust"]
        if info.coefficients:
            return ["adaptive_jpeg", *surviving]
        if media.has_planes(info.pixel_format) and not info.is_image:
            return ["adaptive", *surviving]  # which work in planes; two frames tell the first one
        exactly = ["image", "video", "adaptive"] if info.is_image else ["video", "image", "adaptive"]
        exactly += ["prep_hide_reveal_small", "prep_hide_reveal", "invertible"] if exact else []
        return exactly + surviving if exact else surviving + exactly


def _name(purpose: Purpose, is_image: bool) -> str:
    if purpose == "post":
        return "robust_image" if is_image else "robust"
    if purpose == "file":
        return "adaptive"
    return "image" if is_image else "video"


def settings_of(config: ConfigDict, loop_cover: bool = False, drop_tags: bool = False) -> Settings:
    """Return how section `video` of the config wants a secret to be laid along a cover."""
    return Settings(config.video.align, loop_cover, config.video.get("sound_bit_rate", 0), drop_tags)
