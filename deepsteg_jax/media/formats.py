"""File formats, one row each; new formats and their suffixes are added here only.

A format that is written needs a row; a video codec that no other has, a class in `codecs` too.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from deepsteg_jax.media.codecs import H264, RGB, Coding, Ffv1, Vp9

VIDEO, IMAGE = "video", "image"


class Still(NamedTuple):
    """Pillow's settings for writing an image."""

    exact: tuple[str, ...] = (RGB,)  # formats of pixels that come back bit for bit
    options: Mapping = {}
    largest: int = 2**31 - 1  # pixels of a side


class TrackRules(NamedTuple):
    """Sound and subtitles that a container takes."""

    sounds: tuple[str, ...] | None = None  # codecs that players take out of it; None: any
    encoder: str = "pcm_f32le"  # for all other sound; this one loses nothing
    subtitles: str = "srt OUT.mkv"  # options of the ffmpeg program that convert others


class Format(NamedTuple):
    """A file format and its coding."""

    suffix: str
    kind: str  # VIDEO or IMAGE
    name: str = ""  # FFmpeg's of the container, Pillow's of the image; "": FFmpeg finds out by itself
    coding: type[Coding] | Still | None = None  # None: only read
    options: Mapping[str, str] = {}  # FFmpeg's, of the container
    tracks: TrackRules = TrackRules()
    in_training: bool = False  # TensorFlow decodes such images

    def keeps(self, pixel_format: str) -> bool:
        """Return whether frames, RGB or in one of `codecs.PLANES`, come back bit for bit."""
        return self.coding is not None and pixel_format in self.coding.exact


# An early packet of sound (AAC priming) makes the muxer delay all streams, which only NUT needs: it has no
# times before 0.
_AS_IT_IS = {"avoid_negative_ts": "disabled"}
_FROM_ZERO = {"avoid_negative_ts": "make_non_negative"}
_INDEX_FIRST = {"movflags": "+faststart"}  # players start before they have the whole file
_MP4 = TrackRules(("aac", "mp3", "ac3", "eac3", "alac", "flac", "opus"), "aac", "mov_text OUT.mp4")
_PCM = ("pcm_s16le", "pcm_s16be", "pcm_s24le", "pcm_s24be")
_MOV = _MP4._replace(sounds=("aac", "mp3", "ac3", "eac3", "alac", *_PCM))
_WEBM = TrackRules(("opus", "vorbis"), "libopus", "webvtt OUT.mkv")
_JPEG = Still((), {"subsampling": "4:2:0"}, 65_500)

FORMATS = (
    Format(".mkv", VIDEO, "matroska", Ffv1, _AS_IT_IS),
    Format(".nut", VIDEO, "nut", Ffv1, _FROM_ZERO),
    Format(".webm", VIDEO, "webm", Vp9, _AS_IT_IS, _WEBM),
    Format(".mp4", VIDEO, "mp4", H264, _INDEX_FIRST, _MP4),
    Format(".m4v", VIDEO, "mp4", H264, _INDEX_FIRST, _MP4),
    Format(".mov", VIDEO, "mov", H264, _INDEX_FIRST, _MOV),
    Format(".avi", VIDEO, "avi"),  # of Motion JPEG only
    *(Format(suffix, VIDEO) for suffix in (".wmv", ".flv", ".mpg", ".mpeg", ".ts", ".3gp", ".ogv")),
    Format(".png", IMAGE, "PNG", Still(), in_training=True),
    Format(".bmp", IMAGE, "BMP", Still(), in_training=True),
    Format(".tif", IMAGE, "TIFF", Still()),
    Format(".tiff", IMAGE, "TIFF", Still()),
    Format(".ppm", IMAGE, "PPM", Still()),
    Format(".jpg", IMAGE, "JPEG", _JPEG, in_training=True),
    Format(".jpeg", IMAGE, "JPEG", _JPEG, in_training=True),
    Format(".webp", IMAGE, "WEBP", Still(options={"lossless": True}, largest=16_383), in_training=True),
    *(Format(f".{name.lower()}", IMAGE, name) for name in ("AVIF", "GIF", "ICO", "PCX", "PSD", "QOI")),
    *(Format(suffix, IMAGE, "HEIF") for suffix in (".heic", ".heif", ".hif")),
    *(Format(suffix, IMAGE, "JPEG") for suffix in (".jpe", ".jfif")),
    *(Format(suffix, IMAGE, "JPEG2000") for suffix in (".jp2", ".j2k", ".jpx")),
    *(Format(suffix, IMAGE, "PPM") for suffix in (".pgm", ".pbm", ".pnm")),
)
_BY_SUFFIX = {row.suffix: row for row in FORMATS}
_NONE = Format("", "")


def find(path: str | Path) -> Format | None:
    """Return the format that a path's suffix, in either case, stands for; None for an unknown one."""
    return _BY_SUFFIX.get(Path(path).suffix.lower())


def is_exact(path: str | Path) -> bool:
    """Return whether files of that name keep RGB frames bit for bit."""
    return (find(path) or _NONE).keeps(RGB)


def is_playable(path: str | Path) -> bool:
    """Return whether videos of that name are written so that browsers and phones play them."""
    return getattr((find(path) or _NONE).coding, "is_playable", False)


def is_video(path: str | Path) -> bool:
    """Return whether files of that name are videos."""
    return (find(path) or _NONE).kind == VIDEO


def is_training_image(path: str | Path) -> bool:
    """Return whether training reads images of that name."""
    return (find(path) or _NONE).in_training


def written(kind: str, lossy: bool = False, pixel_format: str = RGB) -> tuple[str, ...]:
    """List the suffixes of a kind that keep frames bit for bit; with `lossy` all that are written."""
    rows = [row for row in FORMATS if row.kind == kind and row.coding is not None]
    return tuple(row.suffix for row in rows if lossy or row.keeps(pixel_format))
