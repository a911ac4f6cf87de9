"""The library: hide and reveal arrays and files with a shipped or a trained model.

Everything here goes through the pipeline that the command line uses. So a stego made of arrays and written to
a lossless file opens with `deepsteg reveal`, and the frames of a stego file open with `reveal`.
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike, fspath
from typing import Any, get_args

import numpy as np
from ml_collections import ConfigDict
from numpy.typing import ArrayLike, NDArray

from deepsteg_jax import keys, loading, media, pipeline, sample_clips
from deepsteg_jax.errors import PartialError, UserError
from deepsteg_jax.keys import Credential
from deepsteg_jax.media.memory import Clip
from deepsteg_jax.pipeline import Report
from deepsteg_jax.schemes.base import Purpose, Scheme
from deepsteg_jax.schemes.slots import check as check_slots

SHIPPED = (
    "video",
    "image",
    "adaptive",
    "adaptive_jpeg",
    "adaptive_learned",
    "robust",
    "robust_image",
    "prep_hide_reveal",
    "prep_hide_reveal_small",
    "invertible",
)
"""The names of the shipped checkpoints."""

random_key = keys.random_key

PURPOSES = {"adaptive": "file", "adaptive_learned": "file", "pixels": "live", "robust": "post"}
"""The purpose that each scheme serves."""

_EXACT = "survives exact copies only: send it as a file, no messenger and no upload that re-encodes"
SURVIVES = {
    "file": _EXACT,
    "live": _EXACT,
    "post": "survives re-encoding and rescaling, coarser",
}
"""The channels that a stego survives, by purpose."""

Progress = Callable[[int], Any]
"""Called with the number of frames just done."""


@dataclass(frozen=True)
class LoadedModel:
    """A model with its parameters and compiled programs, from `load`."""

    config: ConfigDict = field(repr=False)
    """The whole config, for reading."""

    scheme: Scheme = field(repr=False)

    name: str
    """Of the checkpoint."""


def load(
    model: str | PathLike | ConfigDict = "video", changes: Mapping[str, Any] | None = None
) -> LoadedModel:
    """Load a model, ready to hide and reveal.

    Args:
        model: the name of a shipped checkpoint (one of `SHIPPED`), a folder that
            `--mode train` wrote, or a config.
        changes: values for fields of the config, such as {"model.modulus": 4}.

    Returns:
        The model that the other functions take. Loading takes a second or so; each new size of frames is
        compiled once, and kept in JAX's compilation cache (`loading`).

    Raises:
        UserError: there is no such model, checkpoint or field.
    """
    if isinstance(model, ConfigDict):
        config = loading.changed(model, changes)
    elif isinstance(model, str | PathLike):
        config = loading.config_of(model, changes)
    else:
        raise UserError(f"a model must be {', '.join(SHIPPED)}, a folder or a ConfigDict, not {model!r}")
    return LoadedModel(config, loading.load(config), config.checkpoint)


# --- arrays ---------------------------------------------------------------------------------------


def hide(model: LoadedModel, cover: ArrayLike, secret: ArrayLike, key: Credential) -> NDArray[np.uint8]:
    """Hide frames in frames, or a picture in a picture.

    Args:
        model: from `load`.
        cover: RGB uint8 [t, h, w, 3], or [h, w, 3] for a still picture.
        secret: RGB uint8 [t', h', w', 3] with t' <= t, or [h', w', 3]. One that is larger than the cover is
            scaled down to fit. Beyond its last frame the cover carries it once more from its start.
        key: what the receiver must have: a passphrase, or 32 bytes from `random_key` or a key file.

    Returns:
        The stego, uint8 of the cover's shape. Only lossless formats keep the secret, unless the model is a
        robust one.

    Raises:
        UserError: the arrays or the key are not of this kind, the cover has fewer frames than the secret, or
            frames are too small.
    """
    _check_pictures(model)
    stego = Clip("the stego array")
    clips = _clip("array", cover), _clip("array", secret)
    pipeline.hide(model.scheme, _checked(key), *clips, stego, _ignore, loading.settings_of(model.config))
    return _array(stego)


def reveal(model: LoadedModel, stego: ArrayLike, key: Credential) -> NDArray[np.uint8]:
    """Reveal the secret that is hidden in frames.

    A stego that is cut short gives the part that is left, with a `UserWarning`. Samples that were changed
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
    _check_pictures(model)
    revealed = Clip("the revealed array")
    try:
        pipeline.reveal([model.scheme], _checked(key), _clip("the stego array", stego), revealed, _ignore)
    except PartialError as error:
        warnings.warn(str(error), stacklevel=2)
    return _array(revealed)


def _check_pictures(model: LoadedModel) -> None:
    if model.scheme.accepts == "bytes":
        raise UserError(f"the model {model.name} hides files: give them to hide_video and reveal_video")


def _clip(name: str, frames: ArrayLike) -> Clip:
    frames = np.asarray(frames)
    if frames.dtype != np.uint8 or frames.ndim not in (3, 4) or frames.shape[-1] != 3 or not frames.size:
        raise UserError(
            f"frames must be uint8 RGB arrays [t, h, w, 3], or [h, w, 3] for a picture, not {frames.dtype} "
            f"{list(frames.shape)}"
        )
    return Clip(name, frames[None] if frames.ndim == 3 else frames, is_image=frames.ndim == 3)


def _array(clip: Clip) -> NDArray[np.uint8]:
    return clip.frames[0] if clip.is_image else np.stack(clip.frames)


def _ignore(told: Any) -> None:
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
    drop_tags: bool = False,
) -> Report:
    """Hide a video in a video or an image in an image, file to file, as `--mode hide` does.

    Args:
        model: from `load`.
        cover: path of a clip, or "sample:bikes.mp4" for one of the sample package.
        secret: the same; it keeps its own size, rate, length and sound where the model can carry them. With
            the model "adaptive" any file.
        output: path of the stego, in a lossless format (.mkv, .nut, .png, ...); .mp4 and .jpg with a robust
            model.
        key: what the receiver must have: a passphrase, or 32 bytes from `random_key` or a key file.
        progress: called with the number of frames just hidden.
        loop_cover: repeat a cover that is shorter than the secret.
        drop_tags: leave out the cover's tags, all but languages.

    Returns:
        The report, with notes for the user.

    Raises:
        UserError: bad input; nothing is left under the output's name.
    """
    cover, secret = (sample_clips.resolve(fspath(path)) for path in (cover, secret))
    settings = loading.settings_of(model.config, loop_cover, drop_tags)
    return pipeline.hide(model.scheme, _checked(key), cover, secret, fspath(output), progress, settings)


def reveal_video(
    model: LoadedModel,
    stego: str | PathLike,
    output: str | PathLike,
    key: Credential,
    progress: Progress = _ignore,
) -> Report:
    """Reveal a hidden video or image, file to file, as `--mode reveal` does.

    Args:
        model: from `load`; the model that hid it.
        stego: path of a clip.
        output: path of the revealed secret, in a lossless format; of one that is a file a folder will do.
        key: the sender's.
        progress: called with the number of frames just read.

    Returns:
        The report.

    Raises:
        UserError: bad input, a wrong key or another model; nothing is left under the output's name.
        PartialError: the stego is cut short or damaged; the readable part is written.
    """
    return pipeline.reveal([model.scheme], _checked(key), fspath(stego), fspath(output), progress)


# --- files, whatever hides in them ------------------------------------------------------------------


_shipped = loading.Shipped()


def hide_file(
    cover: str | PathLike,
    secret: str | PathLike | Sequence[str | PathLike],
    output: str | PathLike,
    key: Credential | Sequence[Credential] | Callable[[], Any],
    purpose: Purpose | None = None,
    scheme: str | None = None,
    changes: Mapping[str, Any] | None = None,
    loop_cover: bool = False,
    drop_tags: bool = False,
    slots: int = 1,
    progress: Progress = _ignore,
    announce: Callable[[str], Any] = _ignore,
) -> Report:
    """Hide a file in a file with the shipped model that suits, as `deepsteg hide` does.

    Args:
        cover: path of a clip or an image.
        secret: the same, or for "file" any file; or several in a sequence, at most `slots`.
        output: path of the stego.
        key: a passphrase, or 32 bytes from `random_key` or a key file; of several secrets one each, all
            different; or a function that asks for them, called once cover and secrets are known to fit.
        purpose: "file" for exact copies, "post" for re-encoding, "live" for the fastest; None: by the
            suffix of `output`, .mp4, .mov and .jpg are for posting.
        scheme: "adaptive", "pixels" or "robust", or one of `SHIPPED`, in place of the one that suits the
            purpose.
        changes: values for fields of the config.
        loop_cover: repeat a cover that is shorter than the secret.
        drop_tags: leave out the cover's tags, all but languages.
        slots: 1, 2, 4 or 8 equal parts of the cover, all of which are filled, with secrets or with noise.
        progress: called with the number of frames just hidden.
        announce: called before the work with a line that says what will be done and how large it gets.

    Returns:
        The report; its last note says what the stego survives.

    Raises:
        UserError: bad input; nothing is left under the output's name.
    """
    paths = [secret] if isinstance(secret, str | PathLike) else secret
    cover, *secrets = (sample_clips.resolve(fspath(path)) for path in (cover, *paths))
    made = _suitable(cover, fspath(output), purpose, scheme, changes, slots)
    settings = loading.settings_of(made.config, loop_cover, drop_tags)._replace(slots=slots)
    if made.accepts == "pictures":
        for path in secrets:
            _check_picture(path)
    asked = (lambda: _all_checked(key())) if callable(key) else _all_checked(key)
    files = cover, tuple(secrets), fspath(output)
    report = pipeline.hide(made, asked, *files, progress, settings, announce)
    return report._replace(notes=(*report.notes, SURVIVES[made.purpose]))


def _check_picture(secret: str) -> None:
    media.check_readable(secret)
    try:
        media.probe(secret)
    except UserError as error:
        raise UserError(f"{error}; --for file hides any other") from None


def reveal_file(
    stego: str | PathLike,
    output: str | PathLike,
    key: Credential,
    progress: Progress = _ignore,
    announce: Callable[[str], Any] = _ignore,
) -> Report:
    """Reveal a hidden file, finding out which shipped model hid it and how, as `deepsteg reveal` does.

    Args:
        stego: path of a clip or an image.
        output: path of the secret; a folder for one that is a file, which has its own name there.
        key: the sender's.
        progress: called with the number of frames just read.
        announce: called before the work with a line that says what was found and how large it gets.

    Raises:
        UserError: bad input, a wrong key or a model that is not shipped; nothing is left under the output's
            name.
        PartialError: the stego is cut short or damaged; the readable part is written.
    """
    stego = fspath(stego)
    info = media.probe(stego, [])
    names = _shipped.for_stego(info, media.is_exact(stego))
    schemes = (_shipped.scheme(name) for name in names)
    return pipeline.reveal(schemes, _checked(key), stego, fspath(output), progress, announce)


def hiding_memory(
    cover: str | PathLike,
    output: str | PathLike,
    purpose: Purpose | None = None,
    scheme: str | None = None,
    changes: Mapping[str, Any] | None = None,
    slots: int = 1,
    **others: Any,
) -> int:
    """Predict the peak memory in bytes of a process that calls `hide_file` with the same arguments.

    Raises:
        UserError: the cover cannot be read, or there is no such scheme or field.
    """
    cover = sample_clips.resolve(fspath(cover))
    made = _suitable(cover, fspath(output), purpose, scheme, changes, slots)
    info = media.probe(cover)
    return pipeline.cost(made, info, slots).memory_bytes


def revealing_memory(stego: str | PathLike) -> int:
    """Predict the largest peak memory in bytes of a process that reveals from a file.

    Raises:
        UserError: it is no clip or image.
    """
    info = media.probe(stego, [])
    names = _shipped.for_stego(info, media.is_exact(stego))
    return max(pipeline.cost(_shipped.scheme(name), info).revealing_bytes for name in names)


def describe(path: str | PathLike, purpose: Purpose | None = None, slots: int = 1) -> str:
    """Describe a file and the cost of hiding in it; never look for a secret.

    Args:
        path: of a clip or an image.
        purpose: see `hide_file`; None: all of them that have as many slots.
        slots: see `hide_file`.

    Raises:
        UserError: it is neither, or there are no schemes of this purpose with as many slots.
    """
    path = sample_clips.resolve(fspath(path))
    _check_purpose(purpose)
    info = media.probe(path)
    frames = media.count_frames(path)
    seconds = frames / float(info.rate)
    lines = [
        f"{path}: {info.width}x{info.height}, {frames} frames"
        + ("" if info.is_image else f", {seconds:.1f} s")
    ]
    kept = path if info.coefficients and slots == 1 else None
    names = [purpose] if purpose else ["file", "post"]
    found = {name: _shipped.scheme(_shipped.for_cover(info, name, kept)) for name in names}
    roomiest = max(found.values(), key=lambda made: made.slots)
    check_slots(roomiest.slots, slots, 1, False, roomiest.name)
    lines += [
        _described(made, name, path, info, frames, slots)
        for name, made in found.items()
        if slots <= made.slots
    ]
    return "\n".join(lines)


def _described(made: Scheme, purpose: str, path: str, info: media.Info, frames: int, slots: int) -> str:
    """Say what a scheme can hide in a file, and at what cost."""
    cost = made.cost(info.height, info.width, frames, slots)
    size = cost.stego_bytes or media.size_of(path)
    return (
        f"--for {purpose} ({made.name}): holds {made.capacity(info, frames, slots)}; about "
        f"{_duration(cost.seconds)} on two cores, "
        f"{cost.memory_bytes / 2**30:.1f} GiB of memory, a stego of {size / 2**20:.1f} MiB; "
        f"{SURVIVES[made.purpose]}"
    )


def _duration(seconds: float) -> str:
    return f"{max(1, round(seconds))} s" if seconds < 90 else f"{seconds / 60:.0f} min"


def _suitable(
    cover: str, output: str, purpose: str | None, scheme: str | None, changes: Any, slots: int = 1
) -> Scheme:
    """Return the scheme for an output, with changes in its config."""
    info = media.probe(cover)
    _check_purpose(purpose)
    if scheme not in (None, *PURPOSES, *SHIPPED):
        raise UserError(f"there is no scheme {scheme!r}: give one of {', '.join((*PURPOSES, *SHIPPED))}")
    stays = not (info.is_image or media.is_playable(output)) and media.can_stay(info, output)
    purpose = PURPOSES.get(scheme) or purpose or ("file" if stays or media.is_exact(output) else "post")
    name = _shipped.for_cover(info, purpose, output if slots == 1 else None)
    if scheme in SHIPPED and (scheme not in PURPOSES or name == "adaptive"):
        name = scheme
    return loading.load_once(loading.config_of(name, changes)) if changes else _shipped.scheme(name)


def _check_purpose(purpose: str | None) -> None:
    if purpose not in (None, *get_args(Purpose)):
        raise UserError(f"there is no purpose {purpose!r}: give one of {', '.join(get_args(Purpose))}")


def _all_checked(given: Credential | Sequence[Credential]) -> list[Credential]:
    return [_checked(key) for key in (given if isinstance(given, list | tuple) else [given])]


def _checked(key: Credential) -> Credential:
    if isinstance(key, str):
        return keys.check_passphrase(key)
    if isinstance(key, bytes) and len(key) == keys.KEY_BYTES:
        return key
    raise UserError(f"the key must be a passphrase (str) or {keys.KEY_BYTES} bytes, as from random_key()")
