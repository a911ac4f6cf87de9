"""The library: hide and reveal arrays and files with a shipped or a trained model.

Everything here goes through the pipelines that `--mode hide` and `--mode reveal` use. So a stego made of
arrays and written to a lossless file opens with `--mode reveal`, and the frames of a stego file open with
`reveal`.
"""

import importlib
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from os import PathLike, fspath
from typing import Any

import numpy as np
from ml_collections import ConfigDict
from numpy.typing import ArrayLike, NDArray

from deepsteg_jax import keys, sample_clips
from deepsteg_jax.commands import common
from deepsteg_jax.errors import PartialError, UserError
from deepsteg_jax.keys import Credential
from deepsteg_jax.media.memory import Clip
from deepsteg_jax.pipeline import Report
from deepsteg_jax.training import checkpoints

SHIPPED = {"video": "video", "image": "image", "robust": "robust", "robust_image": "robust:image"}
"""Shipped checkpoints and their configs, file:variant."""

random_key = keys.random_key

Progress = Callable[[int], Any]
"""Called with the number of frames just done."""


@dataclass(frozen=True)
class LoadedModel:
    """A model with the parameters of both sides, from `load`."""

    config: ConfigDict = field(repr=False)
    """The whole config, for reading."""

    hider: Callable[..., Report] = field(repr=False)
    """`hide` of the model's pipeline, called from the credential on."""

    revealer: Callable[..., Report] = field(repr=False)
    """`reveal` of it, called from the credential on."""

    name: str
    """Of the checkpoint."""


def load(
    model: str | PathLike | ConfigDict = "video", changes: Mapping[str, Any] | None = None
) -> LoadedModel:
    """Loads a model, ready to hide and reveal.

    Args:
        model: the name of a shipped checkpoint ("video", "image", "robust" or "robust_image"), a folder that
            `--mode train` wrote, or a config.
        changes: values for fields of the config, such as {"model.modulus": 4}.

    Returns:
        What the other functions take as `model`. Loading takes a second or so; each new size of frames is
        compiled once. What is compiled is kept in JAX's compilation cache (`modes.common`).

    Raises:
        UserError: there is no such model, checkpoint or field.
    """
    config = _config_of(model).lock()
    try:
        config.update_from_flattened_dict(dict(changes or {}))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        reason = str(error.args[0] if error.args else error).strip().splitlines()[0]
        raise UserError(f"the config cannot be changed so: {reason}") from None
    return LoadedModel(config, common.hider(config), common.revealer(config), config.checkpoint)


def _config_of(model: str | PathLike | ConfigDict) -> ConfigDict:
    if isinstance(model, ConfigDict):
        return model.copy_and_resolve_references()
    if not isinstance(model, str | PathLike):
        raise UserError(f"a model is {', '.join(SHIPPED)}, a folder or a ConfigDict, not {model!r}")
    name = fspath(model)
    if name in SHIPPED:
        file, _, variant = SHIPPED[name].partition(":")
        try:
            return importlib.import_module(f"configs.{file}").get_config(variant)
        except ModuleNotFoundError as error:  # another package of that name comes first
            raise UserError(f"{error}: put the folder of deepsteg_jax first in PYTHONPATH") from None
    config = checkpoints.read_config(name)
    config.checkpoint = name
    return config


# --- arrays ---------------------------------------------------------------------------------------


def hide(model: LoadedModel, cover: ArrayLike, secret: ArrayLike, key: Credential) -> NDArray[np.uint8]:
    """Hides frames in frames, or a picture in a picture.

    Args:
        model: from `load`.
        cover: RGB uint8 [t, h, w, 3], or [h, w, 3] for a still picture.
        secret: RGB uint8 [t', h', w', 3] with t' <= t, or [h', w', 3]. One that is larger than the cover is
            scaled down to fit. Beyond its last frame the cover carries it once more from its start.
        key: what the receiver must have: a passphrase, or 32 bytes from `random_key` or a key file.

    Returns:
        The stego, uint8 of the cover's shape. Only lossless formats keep what is in it, unless the model is a
        robust one.

    Raises:
        UserError: the arrays or the key are not of this kind, the cover has fewer frames than the secret, or
            frames are too small.
    """
    stego = Clip("the stego array")
    clips = _clip("array", cover), _clip("array", secret)
    model.hider(_checked(key), *clips, stego, _ignore, common.settings_of(model.config))
    return _array(stego)


def reveal(model: LoadedModel, stego: ArrayLike, key: Credential) -> NDArray[np.uint8]:
    """Reveals the secret that is hidden in frames.

    A stego that is cut short gives what is left, with a `UserWarning` that says so. Samples that were changed
    are not noticed (files have checksums), unless the model is a robust one.

    Args:
        model: from `load`; the model that hid it.
        stego: all frames, RGB uint8 [t, h, w, 3], or a still picture [h, w, 3].
        key: the sender's.

    Returns:
        The revealed secret as the sender's own, uint8 [t', h', w', 3]; [h', w', 3] if the stego is a picture.

    Raises:
        UserError: one and the same line for a wrong key, another model, nothing hidden, or lossy recoding;
            others for arrays or keys that are not of this kind.
    """
    revealed = Clip("the revealed array")
    try:
        model.revealer(_checked(key), _clip("the stego array", stego), revealed, _ignore)
    except PartialError as error:
        warnings.warn(str(error), stacklevel=2)
    return _array(revealed)


def _clip(name: str, frames: ArrayLike) -> Clip:
    frames = np.asarray(frames)
    if frames.dtype != np.uint8 or frames.ndim not in (3, 4) or frames.shape[-1] != 3 or not frames.size:
        raise UserError(
            f"frames are uint8 RGB arrays [t, h, w, 3], or [h, w, 3] for a picture, not {frames.dtype} "
            f"{list(frames.shape)}"
        )
    return Clip(name, frames[None] if frames.ndim == 3 else frames, is_image=frames.ndim == 3)


def _array(clip: Clip) -> NDArray[np.uint8]:
    return clip.frames[0] if clip.is_image else np.stack(clip.frames)


def _ignore(frames: int) -> None:
    pass


# --- files ----------------------------------------------------------------------------------------


def hide_video(
    model: LoadedModel,
    cover: str | PathLike,
    secret: str | PathLike,
    output: str | PathLike,
    key: Credential,
    progress: Progress = _ignore,
    loop_cover: bool = False,
) -> Report:
    """Hides a video in a video or an image in an image, file to file, as `--mode hide` does.

    Args:
        model: from `load`.
        cover: path of a clip, or "sample:bikes.mp4" for one of the sample package.
        secret: the same; it keeps its own size, rate, length and sound where the model can carry them.
        output: path of the stego, in a lossless format (.mkv, .nut, .png, ...); .mp4 and .jpg with a robust
            model.
        key: what the receiver must have: a passphrase, or 32 bytes from `random_key` or a key file.
        progress: called with the number of frames just hidden.
        loop_cover: repeat a cover that is shorter than the secret.

    Returns:
        What was done; `Report.notes` says what the user should know.

    Raises:
        UserError: bad input; nothing is left under the output's name.
    """
    cover, secret = (sample_clips.resolve(fspath(path)) for path in (cover, secret))
    settings = common.settings_of(model.config, loop_cover)
    return model.hider(_checked(key), cover, secret, fspath(output), progress, settings)


def reveal_video(
    model: LoadedModel,
    stego: str | PathLike,
    output: str | PathLike,
    key: Credential,
    progress: Progress = _ignore,
) -> Report:
    """Reveals a hidden video or image, file to file, as `--mode reveal` does.

    Args:
        model: from `load`; the model that hid it.
        stego: path of a clip.
        output: path of the revealed secret, in a lossless format.
        key: the sender's.
        progress: called with the number of frames just read.

    Returns:
        What was done.

    Raises:
        UserError: bad input, a wrong key or another model; nothing is left under the output's name.
        PartialError: the stego is cut short or damaged; what could be revealed is written.
    """
    return model.revealer(_checked(key), fspath(stego), fspath(output), progress)


def _checked(key: Credential) -> Credential:
    if isinstance(key, str):
        return keys.check_passphrase(key)
    if isinstance(key, bytes) and len(key) == keys.KEY_BYTES:
        return key
    raise UserError(f"the key is a passphrase (str) or {keys.KEY_BYTES} bytes, as random_key() gives them")
