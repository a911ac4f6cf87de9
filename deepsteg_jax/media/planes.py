"""Y, Cb and Cr as a video has them, each at its own size, with no RGB between."""

from collections.abc import Sequence
from typing import NamedTuple

import av
import numpy as np

from deepsteg_jax.media.codecs import PLANES, RGB, Colour


class Planes(NamedTuple):
    """The samples of a frame, or of n frames [n, ...]: uint8, or uint16 if they have more than 8 bits."""

    y: np.ndarray  # [h, w]
    cb: np.ndarray  # [h, w], [h, w / 2] or [h / 2, w / 2], rounded up
    cr: np.ndarray


class TimedPlanes(NamedTuple):
    """A frame and its time."""

    frame: Planes
    time: int  # ticks of the clip's time base


def plain_name(pixel_format: str) -> str:
    """Return FFmpeg's name of samples without the range of their numbers: yuvj420p is yuv420p."""
    return pixel_format.replace("yuvj", "yuv")


def has_planes(pixel_format: str) -> bool:
    """Return whether samples in FFmpeg's format of that name are planes Y, Cb and Cr."""
    return plain_name(pixel_format) in PLANES


def sample_bits(pixel_format: str) -> int:
    """Return the bits of a sample."""
    return av.VideoFormat(pixel_format).components[0].bits


def subsampling(pixel_format: str) -> tuple[int, int]:
    """Return the width and height of the pixels that share a sample of colour."""
    chroma = av.VideoFormat(pixel_format, 4, 4).components[1]
    return 4 // chroma.width, 4 // chroma.height


def check(planes: Planes, pixel_format: str) -> None:
    """Raise ValueError unless the arrays have the types and sizes of the format."""
    height, width = planes.y.shape
    parts = av.VideoFormat(pixel_format, width, height).components
    wanted = [(np.uint8 if part.bits == 8 else np.uint16, (part.height, part.width)) for part in parts]
    found = [(plane.dtype, plane.shape) for plane in planes]
    if found != wanted:
        raise ValueError(f"a frame in {pixel_format} has planes {wanted}, not {found}")


def stack(frames: Sequence[np.ndarray | Planes]) -> np.ndarray | Planes:
    """Put frames of one size, RGB or planes, into one, with an axis [n] in front."""
    if isinstance(frames[0], Planes):
        return Planes(*map(np.stack, zip(*frames, strict=True)))
    return np.stack(frames)


def unstack(frames: np.ndarray | Planes) -> list[np.ndarray] | list[Planes]:
    """Invert `stack`."""
    return list(map(Planes, *frames)) if isinstance(frames, Planes) else list(frames)


def from_rgb(frame: np.ndarray, pixel_format: str) -> Planes:
    """Convert a frame, uint8 RGB [h, w, 3], as swscale does by default: BT.601, limited range."""
    picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format=RGB)
    return from_picture(picture.reformat(format=pixel_format))


def to_rgb(planes: Planes, pixel_format: str, colour: Colour | None = None) -> np.ndarray:
    """Convert to uint8 RGB [h, w, 3], by the colour tags or else BT.601 in limited range."""
    picture = to_picture(planes, pixel_format)
    (colour or Colour()).put_on(picture)
    return picture.to_ndarray(format=RGB)


def from_picture(picture: av.VideoFrame) -> Planes:
    """Copy the planes out of a decoded frame, turned as it is to be shown."""
    quarters = round(picture.rotation / 90)
    return Planes(*(np.rot90(view, quarters).copy() for view in _views(picture)))


def to_picture(planes: Planes, pixel_format: str) -> av.VideoFrame:
    """Copy planes into a frame to be coded."""
    height, width = planes.y.shape
    picture = av.VideoFrame(width, height, pixel_format)
    for view, plane in zip(_views(picture), planes, strict=True):
        view[:] = plane
    return picture


def _views(picture: av.VideoFrame) -> list[np.ndarray]:
    views = []
    for part, plane in zip(picture.format.components, picture.planes, strict=True):
        rows = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)
        views.append(rows.view(np.uint8 if part.bits == 8 else "<u2")[: part.height, : part.width])
    return views
