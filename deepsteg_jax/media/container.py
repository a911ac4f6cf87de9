"""Opening video files, with one line for the user where that fails."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import av

from deepsteg_jax.errors import UserError
from deepsteg_jax.media import images
from deepsteg_jax.media.damage import ERRORS, is_cut
from deepsteg_jax.media.images import is_pattern, shown
from deepsteg_jax.media.memory import Clip

_TEXT_CODECS = ("ansi", "xbin", "bintext", "idf")  # FFmpeg draws a text file as a video
_ATTACHED_PICTURE = 0x0400  # AV_DISPOSITION_ATTACHED_PIC: the cover picture of a song


def existing(path: str | Path | Clip) -> str | Path | Clip:
    """Return the path; raise UserError unless it can be read."""
    if isinstance(path, Clip) or is_pattern(path):
        return path
    path = Path(path)
    if not path.exists():
        raise UserError(f"{shown(path)} does not exist: check the name")
    if not path.is_dir() and not path.is_file():
        raise UserError(f"{shown(path)} is a pipe or device: give a file or a folder")
    if path.is_file() and not os.access(path, os.R_OK):
        raise UserError(f"{shown(path)} cannot be read: no permission")
    return path


@contextmanager
def opened(path: Path) -> Iterator[tuple]:
    """Open a video file; give its container and its video stream; raise UserError if there is none."""
    with open_input(path) as container:
        stream = video_stream(container)
        if stream is None:
            raise UserError(f"{shown(path)} has no video in it: give a video or image file")
        if stream.width * stream.height > images.LARGEST:
            raise UserError(
                f"{shown(path)} has frames of {stream.width}x{stream.height}: scale them down first"
            )
        yield container, stream


def open_input(path: Path) -> "av.container.InputContainer":
    """Open a media file; raise UserError if it is none."""
    try:
        # A playlist must not fetch anything.
        return av.open(url(path), metadata_errors="replace", options={"protocol_whitelist": "file"})
    except (*ERRORS, ValueError) as error:
        cut = path.is_file() and is_cut(path)
        reason = "is cut short" if cut else "is not a video or image, or is damaged at its start"
        raise UserError(f"{shown(path)} {reason}: give a complete video or image file") from error


def video_stream(container: "av.container.InputContainer") -> "av.VideoStream | None":
    """Return the first stream of moving pictures, if any."""
    for stream in container.streams.video:
        picture = int(stream.disposition) & _ATTACHED_PICTURE
        if stream.codec_context is not None and stream.codec_context.name not in _TEXT_CODECS and not picture:
            return stream
    return None


def url(path: Path) -> str:
    """Return a path as FFmpeg wants it: it would take "a:b.mkv" for a protocol."""
    return f"file:{path}"
