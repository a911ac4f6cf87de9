"""File formats, a row each: all that the package knows of suffixes, and the place to add a format.

A format that is written needs a row; a video codec that none has yet, a class in `codecs` too.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from deepsteg_jax.media.codecs import H264, Ffv1

VIDEO, IMAGE = "video", "image"


class TrackRules(NamedTuple):
    """Sound and subtitles that a container takes."""

    sounds: tuple[str, ...] | None = None  # codecs that players take out of it; None: any
    encoder: str = ""  # for all other sound
    subtitles: str = "srt OUT.mkv"  # what the ffmpeg program makes of others, and where


class Format(NamedTuple):
    """A file format and how it is written."""

    suffix: str
    kind: str  # VIDEO or IMAGE
    name: str = ""  # FFmpeg's of the container, Pillow's of the image; "": left to FFmpeg to find out
    coding: type | Mapping | None = None  # class of `codecs`, or Pillow's options; None: only read
    is_exact: bool = False  # frames come back bit for bit
    options: Mapping[str, str] = {}  # FFmpeg's, of the container
    tracks: TrackRules = TrackRules()
    in_training: bool = False  # TensorFlow decodes such images


# An early packet of sound (AAC priming) makes the muxer delay all streams, which only NUT needs: it has no
# times before 0.
_AS_IT_IS = {"avoid_negative_ts": "disabled"}
_FROM_ZERO = {"avoid_negative_ts": "make_non_negative"}
_INDEX_FIRST = {"movflags": "+faststart"}  # players start before they have the whole file
_MP4 = TrackRules(("aac", "mp3", "ac3", "eac3", "alac", "flac", "opus"), "aac", "mov_text OUT.mp4")
_PCM = ("pcm_s16le", "pcm_s16be", "pcm_s24le", "pcm_s24be")
_MOV = _MP4._replace(sounds=("aac", "mp3", "ac3", "eac3", "alac", *_PCM))
_JPEG = {"subsampling": "4:2:0"}

FORMATS = (
    Format(".mkv", VIDEO, "matroska", Ffv1, True, _AS_IT_IS),
    Format(".nut", VIDEO, "nut", Ffv1, True, _FROM_ZERO),
    Format(".mp4", VIDEO, "mp4", H264, False, _INDEX_FIRST, _MP4),
    Format(".m4v", VIDEO, "mp4", H264, False, _INDEX_FIRST, _MP4),
    Format(".mov", VIDEO, "mov", H264, False, _INDEX_FIRST, _MOV),
    *(Format(suffix, VIDEO) for suffix in (".webm", ".avi", ".wmv", ".flv", ".mpg", ".mpeg", ".ts", ".3gp")),
    Format(".ogv", VIDEO),
    Format(".png", IMAGE, "PNG", {}, True, in_training=True),
    Format(".bmp", IMAGE, "BMP", {}, True, in_training=True),
    Format(".tif", IMAGE, "TIFF", {}, True),
    Format(".tiff", IMAGE, "TIFF", {}, True),
    Format(".jpg", IMAGE, "JPEG", _JPEG, in_training=True),
    Format(".jpeg", IMAGE, "JPEG", _JPEG, in_training=True),
    Format(".webp", IMAGE, "WEBP", in_training=True),
    Format(".ppm", IMAGE, "PPM", is_exact=True),
    *(Format(suffix, IMAGE) for suffix in (".gif", ".jp2", ".avif", ".heic")),
)
_BY_SUFFIX = {row.suffix: row for row in FORMATS}


def find(path: str | Path) -> Format | None:
    """Return the format that a path's suffix, in either case, stands for; None for an unknown one."""
    return _BY_SUFFIX.get(Path(path).suffix.lower())


def is_exact(path: str | Path) -> bool:
    """Return whether files of that name keep RGB frames bit for bit."""
    row = find(path)
    return row is not None and row.is_exact


def is_playable(path: str | Path) -> bool:
    """Return whether files of that name are written so that browsers and phones play them."""
    row = find(path)
    return row is not None and isinstance(row.coding, type) and row.coding.is_playable


def is_video(path: str | Path) -> bool:
    """Return whether files of that name are videos."""
    row = find(path)
    return row is not None and row.kind == VIDEO


def is_training_image(path: str | Path) -> bool:
    """Return whether training reads images of that name."""
    row = find(path)
    return row is not None and row.in_training


def written(kind: str, lossy: bool = False) -> tuple[str, ...]:
    """List the suffixes of a kind that can be written: exact ones, with `lossy` all."""
    rows = [row for row in FORMATS if row.kind == kind and row.coding is not None]
    return tuple(row.suffix for row in rows if row.is_exact or lossy)
