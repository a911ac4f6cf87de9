"""The choices of the Hide tab, the scheme that suits them, and what hiding will take and give."""

from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from deepsteg_jax import loading, media, pipeline
from deepsteg_jax.app import messages
from deepsteg_jax.errors import UserError
from deepsteg_jax.plan import SAME_RATE, fitted_size
from deepsteg_jax.schemes.base import Purpose, Scheme

KEPT = 8  # schemes of another quality than that of their config
SIZES = {640: "Small (640 pixels)", 1280: "Medium (1280 pixels)", 0: "As the cover is"}  # of the longest side
SLOW_S = 120.0  # from which on the page warns
PLANES = "yuv420p"  # of covers that are scaled, which all players know
_SHRINK_S, _CODE_S = 3e-8, 3e-7  # for a pixel of a cover that is scaled, of a secret that is coded again
_MORE_ROOM = "take a longer or larger cover, a larger size, or more room under “More settings”"


# --- schemes --------------------------------------------------------------------------------------


Wish = Literal["file", "post"]


class Quality(NamedTuple):
    """A choice of the Hide tab: a scheme, by the purpose it serves, and fields of its config."""

    label: str
    purpose: Purpose
    changes: dict[str, Any] = {}


QUALITIES: dict[Wish, dict[str, Quality]] = {
    "file": {
        "hidden": Quality("Hardest to notice", "file"),
        "room": Quality("Four times the room for the secret, noticed sooner", "file", {"payload.rate": 0.4}),
        "quick": Quality("Quick, and a secret as large as the cover: a huge file, noticed at once", "live"),
    },
    "post": {
        "balanced": Quality("The cover looks untouched", "post"),
        "cover": Quality("Even fainter, with a coarser secret", "post", {"model.spacing": 32.0}),
        "secret": Quality(
            "The secret looks better, the cover a little grainy", "post", {"model.spacing": 60.0}
        ),
    },
}
"""The first of each is the default."""


class Schemes(loading.Shipped):
    """The shipped schemes, the user's in place of the one of its kind."""

    def __init__(self, config: ConfigDict):
        """Take the user's config, of any model.

        Raises:
            UserError: as `loading.load`, or it hides in a JPEG's coefficients.
        """
        own = loading.load(config)
        if own.domain == "coefficients":
            raise UserError(f"the page hides in pixels, {own.name} does not: use --mode hide")
        super().__init__(own)
        self._changed = lru_cache(KEPT)(self._change)

    def hiding(self, info: media.Info, quality: Quality) -> Scheme:
        """Return the scheme that hides in such a cover; fields that its config lacks are left alone."""
        name = self.for_cover(info, quality.purpose)
        fields = dict(self.scheme(name).config.iteritems())
        changes = {field: value for field, value in quality.changes.items() if _has(fields, field)}
        return self._changed(name, tuple(changes.items())) if changes else self.scheme(name)

    def _change(self, name: str, changes: tuple[tuple[str, Any], ...]) -> Scheme:
        return loading.load(loading.changed(self.scheme(name).config, dict(changes)))


def _has(fields: dict[str, Any], field: str) -> bool:
    section, _, name = field.partition(".")
    return name in fields.get(section, ())


# --- dropped files --------------------------------------------------------------------------------


class Clip(NamedTuple):
    """A dropped file."""

    path: Path
    size: int  # bytes
    info: media.Info | None  # None: it is neither video nor picture
    first: np.ndarray | None = None  # its first frame, small; uint8 [h, w, 3]
    problem: str = ""  # why it is neither

    @property
    def frames(self) -> int:
        """The number of its frames."""
        return (self.info and self.info.frames) or 1

    @property
    def seconds(self) -> float:
        """Its duration."""
        return self.frames / float(self.info.rate)

    @property
    def is_video(self) -> bool:
        """Whether it is a video."""
        return self.info is not None and not self.info.is_image


def look(path: Path, any_file: bool = False) -> Clip:
    """Read the properties and the first frame of a file.

    Args:
        path: of the file.
        any_file: take what is neither video nor picture, too.

    Raises:
        UserError: it is empty, or no video or picture.
    """
    size = path.stat().st_size
    if not size:
        raise UserError(f"{path} is empty: it has 0 bytes")
    try:
        info = media.probe(path, [])
        if not info.frames:
            info = info._replace(frames=media.count_frames(path))
        width, height = within(info, 320, even=False)
        return Clip(path, size, info, next(media.read_frames(path, 0, 1, width, height)))
    except UserError as error:
        if not any_file:
            raise
        return Clip(path, size, None, problem=str(error))


def within(info: media.Info, longest: int, even: bool) -> tuple[int, int]:
    """Return the size (width, height) of frames scaled down to a longest side; 0: as they are.

    `even`: both sides are made even, which H.264 needs.
    """
    scale = min(1.0, longest / max(info.width, info.height)) if longest else 1.0
    width, height = (max(1, round(scale * side)) for side in (info.width, info.height))
    return (max(2, width // 2 * 2), max(2, height // 2 * 2)) if even else (width, height)


# --- what it will take ----------------------------------------------------------------------------


class Choice(NamedTuple):
    """The choices of the Hide tab."""

    wish: Wish = "file"
    quality: str = "hidden"
    longest: int = 0  # pixels that the cover's longest side is scaled down to; 0: none
    loop_cover: bool = False
    sound: bool = True  # the secret's

    @property
    def of_quality(self) -> Quality:
        """The quality."""
        return QUALITIES[self.wish][self.quality]


class Estimate(NamedTuple):
    """What hiding will take and give."""

    name: str  # of the stego
    width: int
    height: int
    seconds: float
    memory_bytes: int
    stego_bytes: int
    returns: str  # how the secret will come back
    warnings: tuple[str, ...]
    is_short: bool  # whether the cover must be repeated
    wrong: str  # why it cannot be done; empty: it can


def estimate(schemes: Schemes, cover: Clip, secret: Clip, choice: Choice) -> Estimate:
    """Predict what hiding takes, by the headers of both files."""
    scheme = schemes.hiding(cover.info, choice.of_quality)
    info = fitted(cover.info, choice.longest, scheme)
    short = scheme.holds(info, 1) is None and is_longer(secret, cover)
    frames = stego_frames(cover, secret, choice.loop_cover and short)
    cost = scheme.cost(info.height, info.width, frames)
    path, wrong = stego_path(cover.path, scheme, info), ""
    try:
        scheme.check(info)
        returns, warnings = _returns(scheme, info, frames, secret)
        if short and not choice.loop_cover:
            wrong = _too_short(cover, secret)
    except UserError as error:
        returns, warnings, wrong = "", [], str(error)
    seconds = cost.seconds + _SHRINK_S * _pixels(cover) * (info != cover.info)
    seconds += _CODE_S * _pixels(secret) * returns.startswith("coded")
    if seconds > SLOW_S:
        warnings.append("This takes long: a shorter cover or a smaller size is quicker.")
    facts = info.width, info.height, seconds, cost.memory_bytes, cost.stego_bytes
    return Estimate(path.name, *facts, returns, tuple(warnings), short, wrong)


def _pixels(clip: Clip) -> int:
    return clip.frames * clip.info.width * clip.info.height if clip.info else 0


def fitted(info: media.Info, longest: int, scheme: Scheme) -> media.Info:
    """Return the properties of the cover as it will be used."""
    planes = scheme.domain != "rgb" and not info.is_image
    even = not info.is_image and (scheme.lossy is not None or (planes and longest > 0))
    width, height = within(info, longest, even)
    if (width, height) == (info.width, info.height):
        return info
    return info._replace(width=width, height=height, pixel_format=PLANES if planes else media.RGB)


def stego_frames(cover: Clip, secret: Clip, loop: bool) -> int:
    """Return the number of the stego's frames by the headers."""
    if not loop:
        return cover.frames
    return max(cover.frames, round(secret.frames / secret.info.rate * cover.info.rate))


def is_longer(secret: Clip, cover: Clip) -> bool:
    """Return whether a secret needs a repeated cover, by the headers."""
    if not (cover.is_video and secret.is_video):
        return False
    if abs(cover.info.rate / secret.info.rate - 1) <= SAME_RATE:
        return secret.frames > cover.frames
    return secret.seconds > cover.seconds + 1 / float(min(cover.info.rate, secret.info.rate))


def _too_short(cover: Clip, secret: Clip) -> str:
    cover_lasts, secret_lasts = (messages.precise(clip.seconds) for clip in (cover, secret))
    if cover_lasts == secret_lasts:
        cover_lasts, secret_lasts = (f"{clip.frames} frames" for clip in (cover, secret))
    lengths = f"{cover_lasts} and the secret {secret_lasts}"
    return f"The cover lasts {lengths}: tick “Repeat the cover”, or drop a longer one"


def _returns(scheme: Scheme, info: media.Info, frames: int, secret: Clip) -> tuple[str, list[str]]:
    """Say how the secret will come back, with warnings.

    Raises:
        UserError: it cannot be hidden like this.
    """
    room, own = scheme.holds(info, frames), messages.size(secret.size)
    if room is not None:
        if secret.size + len(secret.path.name.encode()) <= room:
            return f"as its own file, bit for bit ({own})", []
        if secret.info is None:
            raise UserError(f"{secret.path} has {own}, and {messages.size(room)} fit: {_MORE_ROOM}")
        width, height = media.likely_size(secret.info, secret.frames, room)
        return f"coded again{_size(secret, width, height)}: its file has {own}, {messages.size(room)} fit", []
    if secret.info is None:
        raise UserError(
            f"{secret.path} is neither video nor picture: only “Send it as a file” takes such files, "
            "hardest to notice or with four times the room"
        )
    if info.is_image and secret.is_video:
        raise UserError("the cover is a picture and the secret a video: a video needs a video as its cover")
    width, height = fitted_size(secret.info, info.width, info.height)
    said, small = _size(secret, width, height), (width, height) != (secret.info.width, secret.info.height)
    said += ", coarser" if scheme.lossy and not info.is_image else ""
    return said.removeprefix(" "), ["A larger result, or a larger cover, keeps more of the secret."] * small


def _size(secret: Clip, width: int, height: int) -> str:
    own = f"{secret.info.width} × {secret.info.height}"
    same = (width, height) == (secret.info.width, secret.info.height)
    return f" at its own size, {own}" if same else f" smaller, at {width} × {height} (its own: {own})"


def stego_path(like: Path, scheme: Scheme, info: media.Info) -> Path:
    """Return where the stego goes, named after the cover; an MP4, which most programs play, if possible."""
    if info.is_image:
        return like.with_suffix(".jpg" if scheme.lossy else ".png")
    try:
        pipeline.check_output(scheme, like.with_suffix(".mp4"), info, ())
    except UserError:
        return like.with_suffix(".mkv")
    return like.with_suffix(".mp4")
