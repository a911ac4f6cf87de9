"""Y, Cb and Cr as a video has them, each at its own size, with no RGB between."""

from collections.abc import Sequence
from typing import NamedTuple

import av
import numpy as np
from av.sidedata.sidedata import Type as SideData

from deepsteg_jax.media.codecs import PLANES, RGB, Colour

_MATRIX = SideData.DISPLAYMATRIX


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


class Turn(NamedTuple):
    """The way from a frame as it is stored to one as it is shown: the steps are taken in this order."""

    transposed: bool = False
    left_right: bool = False  # mirrored
    up_down: bool = False

    def __call__(self, array: np.ndarray) -> np.ndarray:
        """Turn an array [h, w, ...]; the same one if there is nothing to do."""
        array = array.swapaxes(0, 1) if self.transposed else array
        array = array[:, ::-1] if self.left_right else array
        return array[::-1] if self.up_down else array


def turn_of(picture: av.VideoFrame) -> Turn:
    """Return the turn that a decoded frame asks for, by its display matrix rounded to right angles."""
    matrix = _display_matrix(picture)
    if matrix is None:
        quarters = round(picture.rotation / 90) % 4
        return (Turn(), Turn(True, up_down=True), Turn(False, True, True), Turn(True, True))[quarters]
    right, down = matrix[0:2], matrix[3:5]  # where these directions of what is stored are shown, (x, y)
    transposed = abs(right[0]) + abs(down[1]) < abs(right[1]) + abs(down[0])
    x, y = (down[0], right[1]) if transposed else (right[0], down[1])
    return Turn(transposed, bool(x < 0), bool(y < 0))


def _display_matrix(picture: av.VideoFrame) -> np.ndarray | None:
    """Return FFmpeg's matrix, int [9]; None without one, or where PyAV cannot read it."""
    if not picture.format.name.startswith(("yuv", "nv")):
        return None  # PyAV frees the name of a PNG's profile twice
    try:
        found = picture.side_data.get(_MATRIX)
    except ValueError:  # side data of a kind that PyAV does not know
        return None
    return None if found is None else np.frombuffer(found, "<i4").astype(int)


def from_picture(picture: av.VideoFrame, turn: Turn | None = None) -> Planes:
    """Copy the planes out of a decoded frame, turned as it is to be shown, or by `turn`."""
    turn = turn or turn_of(picture)
    return Planes(*(turn(view).copy() for view in _views(picture)))


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
