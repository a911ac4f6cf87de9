"""Covers that stay what they are, JPEG or Motion JPEG, but for quantised coefficients.

A video is written as the one that it is made of: packets of the same times beside copies of its other tracks.
"""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import av

from deepsteg_jax.errors import UserError
from deepsteg_jax.media import formats, images, jpeg, mjpeg
from deepsteg_jax.media.container import existing, opened, url
from deepsteg_jax.media.damage import ERRORS
from deepsteg_jax.media.formats import TrackRules
from deepsteg_jax.media.images import shown
from deepsteg_jax.media.jpeg import Coefficients, JpegWriter, TimedCoefficients
from deepsteg_jax.media.outputs import check_output, check_place, destination, part_path, writing
from deepsteg_jax.media.source import Info
from deepsteg_jax.media.tracks import Tracks

ONLY = ".avi"  # takes nothing else
SUFFIXES = (ONLY, ".mov", ".mkv")


def can_stay(info: Info, output: str | Path) -> bool:
    """Return whether a cover like `info` stays a JPEG, or Motion JPEG, in an output of that name."""
    if info.is_image:
        return jpeg.is_jpeg(output)
    suffix = Path(output).suffix.lower()
    return suffix == ONLY or (info.coefficients > 0 and suffix in SUFFIXES)


def read_coefficients(path: str | Path, damaged: list[int] | None = None) -> Iterator[TimedCoefficients]:
    """Yield the frames of a JPEG or of Motion JPEG; see `mjpeg.read`."""
    return mjpeg.read(path, damaged) if _is_video(path) else jpeg.read_coefficients(path)


def coefficient_writer(
    path: str | Path, source: str | Path, drop_tags: bool = False
) -> "JpegWriter | MjpegWriter":
    """Return a context manager that writes `source` with other coefficients to `path`."""
    return (MjpegWriter if _is_video(source) else JpegWriter)(path, source, drop_tags)


def check_coefficients(cover: str | Path, output: str | Path, inputs: Iterable[str | Path]) -> None:
    """Raise UserError unless `cover` can become `output`, which is none of `inputs`, and stay what it is."""
    if not _is_video(cover):
        jpeg.check_jpeg(cover, output, inputs)
        return
    if Path(output).suffix.lower() not in SUFFIXES:
        use = " or ".join(SUFFIXES)
        raise UserError(f"{shown(output)} cannot be the output: the cover stays Motion JPEG; use {use}")
    try:
        next(mjpeg.read(cover))
    except UserError as error:
        raise UserError(f"{error}; or use .mkv") from None
    with opened(Path(cover)) as (container, _):
        if Path(output).suffix.lower() == ONLY and container.format.name != "avi":  # without times of frames
            raise UserError(f"{shown(output)} cannot be the output: the cover is no .avi; use .mov or .mkv")
    check_place(output, inputs)


def check_stego(output: str | Path, inputs: Iterable[str | Path], info: Info) -> None:
    """Raise UserError unless `output` can take the stego of some scheme, of a cover like `info`."""
    if can_stay(info, output):
        check_place(output, inputs)
    else:
        check_output(output, inputs, info.is_image, lossy=True)


def _is_video(path: str | Path) -> bool:
    return not images.is_image(Path(existing(path)))


class MjpegWriter:
    """Context manager that writes Motion JPEG with other coefficients; it gets its name at the end."""

    def __init__(self, path: str | Path, source: str | Path, drop_tags: bool = False):
        """Prepare to write `path` as `source` is; nothing is opened before the first frame."""
        self._path, self._source, self._drop_tags = Path(path), Path(source), drop_tags
        self._goal = destination(path)
        self._part = part_path(self._goal)
        self._open, self._container, self._tracks = ExitStack(), None, None

    def __enter__(self) -> "MjpegWriter":
        """Return itself."""
        return self

    def write(self, frame: Coefficients, time: int = 0) -> None:
        """Write the next frame, with the times that its packet has in the source."""
        with writing(self._path):
            if self._container is None:
                self._begin()
            packet = next(self._packets, None)
            if packet is None:
                raise UserError(f"{shown(self._source)} changed while it was read: start again")
            self._tracks.copy_until(packet.dts * packet.time_base)
            data = jpeg.replace_coefficients(bytes(packet), frame)
            copy = av.Packet(jpeg.without_tags(data, 1) if self._drop_tags else data)
            for name in ("pts", "dts", "duration", "time_base", "is_keyframe"):
                setattr(copy, name, getattr(packet, name))
            copy.stream = self._stream
            self._container.mux(copy)

    def _begin(self) -> None:
        source, stream = self._open.enter_context(opened(self._source))
        self._packets = mjpeg.packets(source, stream)
        row = formats.find(self._path)._replace(tracks=TrackRules())  # as a camera had them
        self._container = av.open(url(self._part), "w", format=row.name, options=dict(row.options))
        self._stream = self._container.add_stream_from_template(stream, opaque=True)
        self._stream.time_base, self._stream.disposition = stream.time_base, stream.disposition
        self._tracks = Tracks(self._source, None, self._drop_tags, self._container, self._stream, row)
        self._open.callback(self._tracks.close)
        self._container.start_encoding()

    def __exit__(self, kind: type | None, *rest: object) -> None:
        """Complete the file and give it its name; after an exception remove it."""
        try:
            if kind is None and self._container is not None:
                with writing(self._path):
                    self._tracks.copy_until(None)
                    self._container.close()
                    self._container = None
                    self._part.replace(self._goal)
        finally:
            self._open.close()
            if self._container is not None:
                with suppress(*ERRORS, ValueError):
                    self._container.close()
            images.remove(self._part)
