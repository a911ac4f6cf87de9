"""Writing clips: to a temporary name, renamed when complete."""

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import numpy as np

from deepsteg_jax.errors import UserError
from deepsteg_jax.media import formats, images, planes
from deepsteg_jax.media.codecs import RGB, Colour, Lossy
from deepsteg_jax.media.images import FOLDER_RATE, is_pattern, is_sequence, shown
from deepsteg_jax.media.memory import Clip
from deepsteg_jax.media.outputs import (
    check_sequence,
    check_suffix,
    destination,
    part_path,
    takes_rgb_only,
    writing,
)
from deepsteg_jax.media.planes import Planes
from deepsteg_jax.media.sound import Sound
from deepsteg_jax.media.tracks import Loop
from deepsteg_jax.media.video_file import VideoFile


def write_frames(
    path: str | Path, frames: Iterable[np.ndarray], rate: Fraction | float = FOLDER_RATE
) -> None:
    """Write frames losslessly through `Writer`; as a still image if `path` has the suffix of one."""
    row = formats.find(path)
    image = row is not None and row.kind == formats.IMAGE and not is_sequence(path)
    with Writer(path, rate, image=image) as writer:
        for frame in frames:
            writer.write(frame)


class Writer:
    """Context manager that writes frames losslessly: FFV1 in matroska or NUT, VP9 in WebM, or still images.

    With `lossy` also ordinary H.264 in MP4, or a JPEG, if the suffix is that of one. Planes are written as
    they are; losslessly in H.264, too.

    The output gets its name only on a clean exit; after an exception nothing is left of it, and a file that
    had this name before is untouched. The sound and subtitle tracks of `tracks_from` are copied packet by
    packet, with their names and times.

    Raises UserError for a suffix that is not lossless (at once), if the file cannot be written, if the
    tracks cannot be copied, and on exit if no frame was written. Sound that an MP4 or a WebM cannot hold
    is coded anew.
    """

    def __init__(
        self,
        path: str | Path | Clip,
        rate: Fraction | float,
        *,
        time_base: Fraction | None = None,
        aspect: Fraction | None = None,
        tracks_from: str | Path | None = None,
        loop: Loop | None = None,
        drop_tags: bool = False,
        image: bool = False,
        lossy: Lossy | None = None,
        pixel_format: str = RGB,
        colour: Colour | None = None,
        end: Fraction | None = None,
    ):
        """Prepare to write; raise UserError for an output that cannot be written.

        Args:
            path: of the video or image, or a folder or pattern for a sequence of images.
            rate: frames per second.
            time_base: seconds of a tick, for frames with times of their own; 1 / rate if not given.
            aspect: of a pixel, width over height.
            tracks_from: a video whose sound and subtitles go into this one.
            loop: plays them more than once.
            drop_tags: leaves out its tags, but for the languages of tracks.
            image: write one still image.
            lossy: permits lossy formats.
            pixel_format: of the frames: RGB, or that of `Planes` (`Info.pixel_format`).
            colour: of planes (`Info.colour`).
            end: seconds, by the frames' times, until which the last frame is shown; None: as long as others.
        """
        in_memory = isinstance(path, Clip)
        self._colour = colour
        self._converts = pixel_format != RGB and lossy is not None and takes_rgb_only(path)
        if in_memory and pixel_format != RGB and not self._converts:
            raise ValueError("clips in memory take RGB only")
        sequence = not in_memory and is_sequence(path) and not image
        self._path = path if in_memory else Path(path)
        self._rate = Fraction(rate).limit_denominator(100_000)
        self._time_base = time_base or 1 / self._rate
        if in_memory:
            self._sink = _MemorySink(path, image)
        elif sequence:
            self._sink = _SequenceSink(check_sequence(path, RGB if lossy else pixel_format), self._path)
        else:
            row = check_suffix(self._path, image, lossy is not None, RGB if image and lossy else pixel_format)
            if image:
                self._sink = _ImageSink(self._path, lossy)
            else:
                tracks = None if tracks_from is None else (Path(tracks_from), loop, drop_tags)
                clock, coding = (self._rate, self._time_base), row.coding(pixel_format, lossy)
                colour = colour or (coding.colour if pixel_format == RGB else Colour())
                self._sink = VideoFile(self._path, row, coding, colour, clock, aspect, tracks, end)
        self._image, self._pixel_format = image, pixel_format
        self._size: tuple[int, int] | None = None
        self._count, self._last = 0, None

    def __enter__(self) -> "Writer":
        """Return itself; nothing is opened before the first frame."""
        return self

    def write(self, frame: np.ndarray | Planes, time: int | None = None) -> None:
        """Append a uint8 RGB frame [h, w, 3] or planes, shown at `time` ticks; the first one sets the size.

        Times must grow; one that does not comes a tick after the last. Without times frames are one tick
        apart. Raises ValueError for another dtype, shape or size, or for a second frame of an image;
        UserError if the disk or the file with the tracks fails.
        """
        size = self._checked_size(frame)
        if self._size not in (None, size):
            raise ValueError(f"frame of size {size} in a clip of size {self._size}")
        if self._image and self._count:
            raise ValueError("an image takes exactly one frame")
        self._size = size
        time = self._count if time is None else time
        time = time if self._last is None else max(time, self._last + 1)
        if self._converts:
            frame = planes.to_rgb(frame, self._pixel_format, self._colour)
        with writing(self._path):
            self._sink.write(frame, time)
        self._count, self._last = self._count + 1, time

    def _checked_size(self, frame: np.ndarray | Planes) -> tuple[int, int]:
        if isinstance(frame, Planes) == (self._pixel_format == RGB):
            raise ValueError(f"a frame in {self._pixel_format} is needed, not {type(frame).__name__}")
        if isinstance(frame, Planes):
            planes.check(frame, self._pixel_format)
            return frame.y.shape
        if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
            raise ValueError(f"a uint8 RGB frame is needed, not {frame.dtype} {frame.shape}")
        return frame.shape[:2]

    def add_sound(self, sound: Sound) -> None:
        """Put a track of sound beside the finished video; into a folder of images as `sound.opus`."""
        with writing(self._path):
            self._sink.add_sound(sound)

    def __exit__(self, kind, error, traceback) -> None:
        """Give the file its final name, or after an exception remove the unfinished one."""
        try:
            if kind is None:
                self._finish()
        finally:  # after a clean finish there is nothing left to discard
            self._sink.discard()

    def _finish(self) -> None:
        if not self._count:
            raise UserError(f"{shown(self._path)} was not written: there are no frames to put into it")
        with writing(self._path):
            self._sink.finish()


class _MemorySink:
    """Frames in memory, without times and tracks."""

    def __init__(self, clip: Clip, image: bool):
        self._clip, self._image, self._frames = clip, image, []

    def write(self, frame: np.ndarray, time: int) -> None:
        self._frames.append(frame)

    def add_sound(self, sound: Sound) -> None:
        pass

    def finish(self) -> None:
        self._clip.frames, self._clip.is_image = self._frames, self._image

    def discard(self) -> None:
        self._frames = []


class _ImageSink:
    """One still image."""

    def __init__(self, path: Path, lossy: Lossy | None):
        self._path, self._goal = path, destination(path)
        self._part = part_path(self._goal)
        self._quality = lossy and lossy.quality

    def write(self, frame: np.ndarray, time: int) -> None:
        images.save(self._part, frame, self._path, self._quality)

    def add_sound(self, sound: Sound) -> None:
        raise UserError(f"{shown(self._path)} is an image and takes no sound: write a video")

    def finish(self) -> None:
        self._part.replace(self._goal)

    def discard(self) -> None:
        images.remove(self._part)


class _SequenceSink:
    """A folder of still images, written beside it and renamed at the end."""

    def __init__(self, folder: Path, path: Path):
        self._folder = destination(folder)
        self._name = path.name if is_pattern(path) else images.DEFAULT_PATTERN
        self._part = part_path(self._folder)
        self._count = 0

    def write(self, frame: np.ndarray, time: int) -> None:
        if not self._count:
            self._part.mkdir()
        name = images.numbered(self._name, self._count)
        images.save(self._part / name, frame, name)
        self._count += 1

    def add_sound(self, sound: Sound) -> None:
        with (self._part / "sound.opus").open("wb") as file:
            while data := sound.file.read(2**20):
                file.write(data)

    def finish(self) -> None:
        images.place_folder(self._part, self._folder)

    def discard(self) -> None:
        images.remove(self._part)
