"""Opening video files, with one line for the user where that fails."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import BinaryIO

import av

from deepsteg_jax.errors import UserError
from deepsteg_jax.media import images
from deepsteg_jax.media.damage import ERRORS, is_cut
from deepsteg_jax.media.images import is_kind, is_pattern, shown
from deepsteg_jax.media.memory import Clip

_TEXT_CODECS = ("ansi", "xbin", "bintext", "idf")  # FFmpeg draws a text file as a video
_ALPHA_DECODERS = {"vp8": "libvpx", "vp9": "libvpx-vp9"}
_UNKNOWN_MATRICES = (8, 10, 11, 13, 14, 15, 16, 17)  # AVCOL_SPC: YCgCo, constant luminance, ICtCp, ...
_ATTACHED_PICTURE = 0x0400  # AV_DISPOSITION_ATTACHED_PIC: the cover picture of a song
_NO_FILE = 1  # AVFMT_NOFILE: the demuxer opens what it reads by itself, as devices and streams do
_OPEN_OTHERS = {"hls", "applehttp", "dash", "concat", "sdp", "imf", "vobsub", "webm_dash_manifest"}
_TEXT_BYTES = 512  # at a file's start that tell text from all else


def existing(path: str | Path | Clip) -> str | Path | Clip:
    """Return the path; raise UserError unless it can be read."""
    if isinstance(path, Clip):
        return path
    if is_pattern(path):
        _check_folder(Path(path).parent)
        return path
    path = Path(path)
    if not is_kind(path):
        raise UserError(f"{shown(path)} does not exist: check the name")
    if not path.is_dir() and not path.is_file():
        raise UserError(f"{shown(path)} is a pipe or device: give a file or a folder")
    if path.is_file() and not os.access(path, os.R_OK):
        raise UserError(f"{shown(path)} cannot be read: no permission")
    _check_folder(path)
    return path


def _check_folder(path: Path) -> None:
    """Raise UserError for a folder whose files cannot be listed and read."""
    if path.is_dir() and not os.access(path, os.R_OK | os.X_OK):
        raise UserError(f"the folder {shown(path)} cannot be read: no permission")


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
        container = av.open(url(path), metadata_errors="replace", options=_only_itself("file"))
        if _is_still_kind(container) and _start(path).startswith(images.START_OF_JPEG):
            container.close()  # `images` reads one; these are several
            container = av.open(url(path), format="mjpeg", options=_only_itself("file"))
    except (*ERRORS, ValueError) as error:
        raise UserError(f"{shown(path)} {_fault(path)}: give a complete video or image file") from error
    if _is_still_kind(container):
        container.close()
        fault = _fault(path, "is an image of a kind that is not read")
        raise UserError(f"{shown(path)} {fault}: convert it to PNG first")
    return container


def _is_still_kind(container: "av.container.InputContainer") -> bool:
    return container.format.name.endswith("_pipe") or container.format.name == "image2"


def _start(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_TEXT_BYTES)


def open_bytes(file: BinaryIO, format_name: str | None = None) -> "av.container.InputContainer":
    """Open media in memory; `format_name` is FFmpeg's, where the bytes do not say it themselves."""
    return av.open(file, format=format_name, options=_only_itself("none"))


def _only_itself(protocol: str) -> dict[str, str]:
    """Return options that keep FFmpeg from opening any other file, as a playlist would have it do."""
    return {"protocol_whitelist": protocol, "format_whitelist": safe_formats(), "pattern_type": "none"}


@cache
def safe_formats() -> str:
    """List the demuxers that read one file only; image2 does with its patterns off."""
    names = {"image2"}
    for name in av.formats_available:
        try:
            reader = av.format.ContainerFormat(name, "r")
        except ValueError:  # only written
            continue
        if not reader.flags & _NO_FILE and not _OPEN_OTHERS & set(name.split(",")):
            names.add(name)
    return ",".join(sorted(names))


def _fault(path: Path, other: str = "is not a video or image, or is damaged at its start") -> str:
    """Say what is wrong with a file that cannot be opened; `other` if that cannot be seen."""
    if not path.is_file():
        return "is not a video or image"
    start = _start(path)
    if not start:
        return "is empty"
    if is_cut(path):
        return "is cut short"
    if all(byte >= 32 or byte in b"\t\r\n" for byte in start):
        return "is not a video or image but text (playlists are not followed)"
    return other


def video_stream(container: "av.container.InputContainer") -> "av.VideoStream | None":
    """Return the first stream of moving pictures, if any; a still of a HEIF file only where nothing moves."""
    known = [stream for stream in container.streams.video if stream.codec_context is not None]
    known = [stream for stream in known if stream.codec_context.name not in _TEXT_CODECS]
    found = [stream for stream in known if not is_picture(stream)]
    moving = [stream for stream in found if stream.frames != 1 or stream.duration is not None]
    return next(iter(moving or found), None)


def first_sound(container: "av.container.InputContainer") -> "av.AudioStream | None":
    """Return the first sound that can be decoded, if any."""
    return next((stream for stream in container.streams.audio if stream.codec_context is not None), None)


def is_picture(stream: "av.stream.Stream") -> bool:
    """Return whether a stream is a picture that belongs to the file, such as the cover of a song."""
    return bool(int(stream.disposition) & _ATTACHED_PICTURE)


def has_alpha_beside(stream: "av.VideoStream") -> bool:
    """Return whether the transparency of VP8 or VP9 lies beside its frames, which have none themselves."""
    decoder = _ALPHA_DECODERS.get(stream.codec_context.name)
    said = {key.lower(): value for key, value in stream.metadata.items()}
    return said.get("alpha_mode") == "1" and decoder in av.codecs_available


def decoder_of(stream: "av.VideoStream") -> "av.VideoCodecContext":
    """Return what decodes a stream whole: FFmpeg's own VP8 and VP9 know no transparency."""
    own = stream.codec_context
    return av.CodecContext.create(_ALPHA_DECODERS[own.name], "r") if has_alpha_beside(stream) else own


def check_colours(frame: "av.VideoFrame", path: Path) -> None:
    """Raise UserError for samples that FFmpeg's conversion to RGB does not know."""
    if int(frame.colorspace) in _UNKNOWN_MATRICES or re.search(r"f(16|32)", frame.format.name):
        raise UserError(
            f"{shown(path)} has colours of a rare kind ({frame.format.name}, matrix "
            f"{int(frame.colorspace)}): convert it first (ffmpeg -i IN -vf zscale=m=bt709,format=yuv420p OUT)"
        )


def url(path: Path) -> str:
    """Return a path as FFmpeg wants it: it would take "a:b.mkv" for a protocol."""
    return f"file:{path}"
