"""Video clips and still images in and out: the only file that knows PyAV and Pillow.

Frames are uint8 RGB arrays [h, w, 3]. Whatever the user gave wrong becomes a `UserError` of one line.
"""

import os
import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from fractions import Fraction
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
from PIL import Image, ImageOps

from deepsteg_jax.errors import UserError
from deepsteg_jax.video.integrity import crc_is_right, ffv1_slices, is_cut

FOLDER_RATE = Fraction(25)
LOSSLESS_VIDEO = (".mkv",)
LOSSLESS_IMAGE = {".png": "PNG", ".bmp": "BMP", ".tif": "TIFF", ".tiff": "TIFF"}
LOSSY_VIDEO = (
    ".mp4",
    ".m4v",
    ".webm",
    ".avi",
    ".mov",
    ".wmv",
    ".flv",
    ".mpg",
    ".mpeg",
    ".ts",
    ".3gp",
    ".ogv",
)
LOSSY_IMAGE = (".jpg", ".jpeg", ".webp", ".gif", ".jp2", ".avif", ".heic")

_READ_SUFFIXES = (*LOSSLESS_IMAGE, ".jpg", ".jpeg", ".webp", ".ppm")  # images of a folder
_READ_FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP", "PPM")  # Pillow would also open MPEG streams
_IMAGE_ERRORS = (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError)
_AV_ERRORS = (av.error.FFmpegError, OSError)
_TEXT_CODECS = ("ansi", "xbin", "bintext", "idf")  # FFmpeg draws a text file as a video
_ATTACHED_PICTURE = 0x0400  # AV_DISPOSITION_ATTACHED_PIC: the cover picture of a song
_FFV1_OPTIONS = {"level": "3", "slices": "16", "slicecrc": "1"}
_SMALLEST = 4  # FFV1 cannot cut less than this into 16 slices


class Info(NamedTuple):
    """What `read_frames` will yield: frame size, rate, and the container's word on the frame count.

    `frames` is a hint (None where the container says nothing; 1 for an image): only reading counts.
    """

    width: int
    height: int
    frames: int | None
    rate: Fraction
    is_image: bool


def probe(path: str | Path) -> Info:
    """Describe a video, an image or a folder of images; the size is that after rotation.

    Raises UserError if it is missing, is none of these, or if its first frame cannot be read.
    """
    path = _existing(path)
    if path.is_dir() or _is_image(path):
        images = _folder_images(path) if path.is_dir() else [path]
        height, width = _load_image(images[0]).shape[:2]
        return Info(width, height, len(images), FOLDER_RATE, not path.is_dir())
    frame = next(_decoded(path))
    width, height = (frame.height, frame.width) if frame.rotation % 180 else (frame.width, frame.height)
    with _opened(path) as (container, stream):
        return Info(width, height, _frame_hint(stream), _rate(stream), False)


def read_frames(
    path: str | Path,
    start: int = 0,
    stop: int | None = None,
    width: int | None = None,
    height: int | None = None,
) -> Iterator[np.ndarray]:
    """Yield frames start <= i < stop (stop None: to the end), uint8 RGB [h, w, 3].

    A video gives its frames in presentation order, an image its one frame, a folder its images sorted by
    name. With width and height (both or none) each frame is resized, bicubic. Fewer frames than `stop`
    are no error. Raises UserError at once if the path is missing or is no video, image or folder of
    images; while reading, after the readable frames before it, where the file is damaged, cut short or
    without frames. Damage after `stop` is not looked for.
    """
    path = _existing(path)
    size = None if width is None or height is None else (width, height)
    if path.is_dir():
        return _image_frames(_folder_images(path)[start:stop], size)
    if _is_image(path):
        return _image_frames([path][start:stop], size)
    with _opened(path):  # complains now, not at the first frame
        return _video_frames(path, start, stop, size)


def read_stack(path: str | Path) -> np.ndarray:
    """All frames of a short clip, uint8 [t, h, w, 3]; raises UserError as `read_frames` does."""
    return np.stack(list(read_frames(path)))


def count_frames(path: str | Path) -> int:
    """How many frames `read_frames` yields; decodes the whole clip, since headers can be wrong.

    Raises UserError as `read_frames` does.
    """
    path = _existing(path)
    if path.is_dir() or _is_image(path):
        return len(_folder_images(path)) if path.is_dir() else 1
    return sum(1 for _ in _decoded(path))


def resize(frame: np.ndarray, width: int, height: int) -> np.ndarray:
    """Resize one uint8 RGB frame [h, w, 3] to [height, width, 3], bicubic; the same array if unchanged."""
    if frame.shape[:2] == (height, width):
        return frame
    source = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
    return source.reformat(width, height, format="rgb24", interpolation="BICUBIC").to_ndarray()


def check_output(path: str | Path, inputs: Iterable[str | Path] = (), image: bool = False) -> None:
    """Raise UserError unless `path` can take a lossless video (with `image`: a lossless still image).

    Meant to be called before any work starts: the folder must exist and be writable, the path must not
    be one of `inputs`, and the suffix must be that of a lossless format of the right kind.
    """
    path = Path(path)
    if path.is_dir():
        raise UserError(f"{_name(path)} is a folder: give the name of a file to write")
    _check_suffix(path, image)
    if not path.parent.is_dir():
        raise UserError(f"{_name(path)} cannot be written: the folder {_name(path.parent)} does not exist")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise UserError(f"{_name(path)} cannot be written: no permission in the folder {_name(path.parent)}")
    if any(_same_file(path, Path(other)) for other in inputs):
        raise UserError(f"{_name(path)} is also an input: give the output another name")


def write_frames(
    path: str | Path, frames: Iterable[np.ndarray], rate: Fraction | float = FOLDER_RATE
) -> None:
    """Write frames losslessly through `Writer`; as a still image if `path` has the suffix of one."""
    image = Path(path).suffix.lower() in LOSSLESS_IMAGE
    with Writer(path, rate, image=image) as writer:
        for frame in frames:
            writer.write(frame)


def compress(frames: Iterable[np.ndarray], codec: str, pixel_format: str, options: dict[str, str]) -> bytes:
    """Code frames [h, w, 3] with one of FFmpeg's video encoders; returns the bytes of a matroska file.

    Args:
        frames: uint8 RGB, all of one size.
        codec: the encoder's name, such as "libx264rgb".
        pixel_format: one that the encoder takes, such as "rgb24".
        options: the encoder's own, such as {"crf": "18"}.
    """
    buffer = BytesIO()
    with av.open(buffer, "w", format="matroska") as container:
        stream = None
        for frame in frames:
            if stream is None:
                stream = container.add_stream(codec, rate=FOLDER_RATE, options=options)
                stream.height, stream.width, stream.pix_fmt = *frame.shape[:2], pixel_format
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24").reformat(format=pixel_format)
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    return buffer.getvalue()


def decompress(data: bytes) -> list[np.ndarray]:
    """The frames of a video file in memory, uint8 RGB [h, w, 3].

    Raises UserError if nothing can be decoded; damage that FFmpeg conceals goes unnoticed.
    """
    try:
        with av.open(BytesIO(data)) as container:
            frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    except (*_AV_ERRORS, IndexError) as error:
        raise UserError("the coded video is damaged: get an intact copy of it") from error
    if not frames:
        raise UserError("the coded video has no frames in it: get an intact copy of it")
    return frames


class Writer:
    """Context manager that writes frames losslessly: FFV1 in matroska, or one still image.

    The file appears under its name only on a clean exit; after an exception nothing of it is left and a
    file that had this name before is untouched. `rate` is in frames per second. The audio tracks of
    `audio_from`, if it has any, are copied packet by packet up to the end of the video.

    Raises UserError for a suffix that is not lossless (at once), if the file cannot be written, if the
    audio cannot be copied, and on exit if no frame was written.
    """

    def __init__(
        self,
        path: str | Path,
        rate: Fraction | float,
        audio_from: str | Path | None = None,
        image: bool = False,
    ):
        self._path = Path(path)
        _check_suffix(self._path, image)
        self._rate = Fraction(rate).limit_denominator(100_000)
        self._audio_from = None if audio_from is None or image else Path(audio_from)
        self._image = image
        self._part = self._path.with_name(f".{self._path.name}.{secrets.token_hex(4)}.part")
        self._size: tuple[int, int] | None = None
        self._count = 0
        self._container = self._stream = self._audio = None

    def __enter__(self) -> "Writer":
        """Nothing is opened before the first frame."""
        return self

    def write(self, frame: np.ndarray) -> None:
        """Append a uint8 RGB frame [h, w, 3]; the first one sets the size.

        Raises ValueError for another dtype, shape or size, or for a second frame of an image; UserError
        if the disk or the audio file fails.
        """
        if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
            raise ValueError(f"a uint8 RGB frame is needed, not {frame.dtype} {frame.shape}")
        if self._size not in (None, frame.shape[:2]):
            raise ValueError(f"frame of size {frame.shape[:2]} in a clip of size {self._size}")
        if self._image and self._count:
            raise ValueError("an image takes exactly one frame")
        self._size = frame.shape[:2]
        with _writing(self._path):
            (self._write_image if self._image else self._write_video)(np.ascontiguousarray(frame))
        self._count += 1

    def __exit__(self, kind, error, traceback) -> None:
        """Give the file its name, or after an exception remove what there is of it."""
        try:
            if kind is None:
                self._finish()
        finally:  # after a clean finish there is nothing left to discard
            self._discard()

    def _write_image(self, frame: np.ndarray) -> None:
        Image.fromarray(frame).save(self._part, format=LOSSLESS_IMAGE[self._path.suffix.lower()])

    def _write_video(self, frame: np.ndarray) -> None:
        if self._container is None:
            self._open(*frame.shape[:2])
        if self._audio:
            self._audio.copy_until(Fraction(self._count) / self._rate)
        picture = av.VideoFrame.from_ndarray(frame, format="rgb24").reformat(format="bgr0")
        picture.pts, picture.time_base = self._count, 1 / self._rate
        self._container.mux(self._stream.encode(picture))

    def _open(self, height: int, width: int) -> None:
        if min(height, width) < _SMALLEST:
            raise UserError(
                f"{_name(self._path)}: {width}x{height} is too small for a video: give larger frames"
            )
        # Without this option one early audio packet (AAC priming) makes the muxer delay all streams.
        options = {"avoid_negative_ts": "disabled"}
        self._container = av.open(_url(self._part), "w", format="matroska", options=options)
        self._stream = self._container.add_stream("ffv1", rate=self._rate, options=dict(_FFV1_OPTIONS))
        self._stream.width, self._stream.height, self._stream.pix_fmt = width, height, "bgr0"
        self._stream.time_base = self._stream.codec_context.time_base = 1 / self._rate
        self._stream.codec_context.thread_count = 2
        self._stream.codec_context.gop_size = 1
        if self._audio_from is not None:
            self._audio = _AudioCopy(self._audio_from, self._container)
        try:
            self._container.start_encoding()
        except (*_AV_ERRORS, ValueError) as error:
            if self._audio and not isinstance(error, OSError):
                raise UserError(self._audio.refusal()) from error
            raise

    def _finish(self) -> None:
        if not self._count:
            raise UserError(f"{_name(self._path)} was not written: there are no frames to put into it")
        with _writing(self._path):
            if self._container is not None:
                if self._audio:
                    self._audio.finish(self._count, self._rate)
                self._container.mux(self._stream.encode(None))
                self._container.close()
                self._container = None
                if is_cut(self._part):  # a full disk that nobody reported
                    raise OSError("the disk took only a part of it")
            os.replace(self._part, self._path)  # noqa: PTH105

    def _discard(self) -> None:
        if self._audio:
            self._audio.close()
        if self._container is not None:
            with suppress(*_AV_ERRORS, ValueError):
                self._container.close()
            self._container = None
        with suppress(OSError):
            self._part.unlink()


class _AudioCopy:
    """The audio packets of a file, handed to an output container in step with its video."""

    def __init__(self, path: Path, output: "av.container.OutputContainer"):
        self._path, self._output = path, output
        self._tracks, self._offset, self._hint, self._head = {}, Fraction(0), None, None
        if path.is_dir() or _is_image(path):
            self._input = self._packets = None
            return
        self._input = _open_input(path)
        audio = list(self._input.streams.audio)
        try:
            for track in audio:
                self._tracks[track.index] = output.add_stream_from_template(track)
        except ValueError as error:
            self.close()
            raise UserError(self.refusal()) from error
        video = _video_stream(self._input)
        if video is not None:
            # The new video starts at 0: the sound keeps its distance to the first frame.
            self._offset = max(Fraction(0), (video.start_time or 0) * video.time_base)
            self._hint = _frame_hint(video)
        self._packets = self._input.demux(audio) if audio else None

    def refusal(self) -> str:
        """The line for the user about audio that matroska cannot hold."""
        return f"the audio of {_name(self._path)} cannot be kept in a .mkv file: convert or remove it first"

    def copy_until(self, end: Fraction | None) -> None:
        """Copy the packets that start before `end` seconds; None: all that are left."""
        while (packet := self._peek()) is not None:
            if end is not None and packet.dts * packet.time_base - self._offset >= end:
                return
            self._head = None
            self._shift(packet)
            packet.stream = self._tracks[packet.stream.index]
            self._output.mux(packet)

    def finish(self, count: int, rate: Fraction) -> None:
        """Copy the rest: up to the end of `count` frames, or all if the video was not trimmed."""
        whole = self._hint is not None and count >= self._hint
        self.copy_until(None if whole else Fraction(count) / rate)

    def close(self) -> None:
        """Close the input."""
        if self._input is not None:
            self._input.close()

    def _peek(self) -> "av.Packet | None":
        while self._head is None and self._packets is not None:
            try:
                self._head = next(self._packets, None)
            except _AV_ERRORS as error:
                raise UserError(f"the audio of {_name(self._path)} is damaged: remove it first") from error
            if self._head is None:
                self._packets = None
            elif self._head.dts is None:  # the empty packet at the end of a track
                self._head = None
        return self._head

    def _shift(self, packet: "av.Packet") -> None:
        ticks = round(self._offset / packet.time_base)
        packet.dts -= ticks
        if packet.pts is not None:
            packet.pts -= ticks


def _name(path: Path) -> str:
    return " ".join(str(path).split("\n"))


def _url(path: Path) -> str:
    return f"file:{path}"  # else FFmpeg takes "a:b.mkv" for a protocol


def _same_file(path: Path, other: Path) -> bool:
    if path.exists() and other.exists():
        return path.samefile(other)
    return path.resolve() == other.resolve()


def _check_suffix(path: Path, image: bool) -> None:
    suffix = path.suffix.lower()
    kind, wanted = ("image", tuple(LOSSLESS_IMAGE)) if image else ("video", LOSSLESS_VIDEO)
    if suffix in wanted:
        return
    advice = f"use {' or '.join(wanted)}"
    other = (*LOSSLESS_VIDEO, *LOSSY_VIDEO) if image else (*LOSSLESS_IMAGE, *LOSSY_IMAGE)
    if suffix in other:
        reason = f"the result is {'an image' if image else 'a video'}, but {suffix} is a format for "
        reason += "videos" if image else "still images"
    elif suffix in LOSSY_VIDEO + LOSSY_IMAGE:
        reason = f"{suffix} files are usually coded with loss, which would destroy the hidden secret"
    else:
        reason = (
            f"{repr(suffix) + ' is not' if suffix else 'without a suffix it is not'} a known {kind} format"
        )
    raise UserError(f"{_name(path)} cannot be the output: {reason}; {advice}")


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Errors of the disk become UserErrors about `path`."""
    try:
        yield
    except _AV_ERRORS as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(f"{_name(path)} cannot be written: {' '.join(reason.split())}") from error


def _existing(path: str | Path) -> Path:
    path = Path(path)
    if not path.exists():
        raise UserError(f"{_name(path)} does not exist: check the name")
    if path.is_file() and not os.access(path, os.R_OK):
        raise UserError(f"{_name(path)} cannot be read: no permission")
    return path


# Still images


def _is_image(path: Path) -> bool:
    try:
        with Image.open(path, formats=_READ_FORMATS):
            return True
    except Image.UnidentifiedImageError:
        return False
    except _IMAGE_ERRORS:
        # Cut or damaged in the header: still an image if its name says so, and loading it will complain.
        return path.suffix.lower() in _READ_SUFFIXES


def _load_image(path: Path) -> np.ndarray:
    try:
        with Image.open(path, formats=_READ_FORMATS) as image:
            image = ImageOps.exif_transpose(image)
            if image.mode.startswith("I"):  # 16 bits of grey; convert() would clip them
                image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
            return np.array(image.convert("RGB"))
    except Image.DecompressionBombError as error:
        raise UserError(f"{_name(path)} is too large an image: scale it down first") from error
    except _IMAGE_ERRORS as error:
        raise UserError(f"{_name(path)} is damaged or cut short: get a complete copy of it") from error


def _folder_images(folder: Path) -> list[Path]:
    found = sorted(p for p in folder.iterdir() if p.suffix.lower() in _READ_SUFFIXES and p.is_file())
    if not found:
        raise UserError(f"{_name(folder)} is a folder without images: give a video, an image or images")
    return found


def _image_frames(paths: list[Path], size: tuple[int, int] | None) -> Iterator[np.ndarray]:
    shape = None
    for path in paths:
        frame = _load_image(path)
        shape = shape or frame.shape
        if size is None and frame.shape != shape:
            raise UserError(
                f"{_name(path)} is {frame.shape[1]}x{frame.shape[0]} but the images before it are "
                f"{shape[1]}x{shape[0]}: give all images of the folder one size"
            )
        yield frame if size is None else np.asarray(Image.fromarray(frame).resize(size, Image.BICUBIC))


# Videos


def _open_input(path: Path) -> "av.container.InputContainer":
    try:
        return av.open(_url(path), metadata_errors="replace")
    except _AV_ERRORS as error:
        cut = path.is_file() and is_cut(path)
        reason = "is cut short" if cut else "is not a video or image, or is damaged at its start"
        raise UserError(f"{_name(path)} {reason}: give a complete video or image file") from error


def _video_stream(container: "av.container.InputContainer") -> "av.video.stream.VideoStream | None":
    for stream in container.streams.video:
        picture = int(stream.disposition) & _ATTACHED_PICTURE
        if stream.codec_context is not None and stream.codec_context.name not in _TEXT_CODECS and not picture:
            return stream
    return None


@contextmanager
def _opened(path: Path) -> Iterator[tuple]:
    """The container of a video file and its video stream."""
    with _open_input(path) as container:
        stream = _video_stream(container)
        if stream is None:
            raise UserError(f"{_name(path)} has no video in it: give a video or image file")
        yield container, stream


def _rate(stream: "av.video.stream.VideoStream") -> Fraction:
    return Fraction(stream.average_rate or stream.guessed_rate or stream.base_rate or FOLDER_RATE)


def _frame_hint(stream: "av.video.stream.VideoStream") -> int | None:
    """Frames of the stream as its header has it, else from its duration."""
    if stream.frames:
        return stream.frames
    seconds = Fraction(0)
    if stream.duration:
        seconds = stream.duration * stream.time_base
    else:
        with suppress(ValueError, KeyError):  # matroska has it as a tag, 00:00:02.000000000
            hours, minutes, rest = stream.metadata["DURATION"].split(":")
            seconds = int(hours) * 3600 + int(minutes) * 60 + Fraction(rest)
    return round(seconds * _rate(stream)) or None


def _video_frames(
    path: Path, start: int, stop: int | None, size: tuple[int, int] | None
) -> Iterator[np.ndarray]:
    native = None
    for frame in islice(_decoded(path), start, stop):
        quarters = round(frame.rotation / 90)
        native = native or (frame.width, frame.height)
        goal = native if size is None else size[:: -1 if quarters % 2 else 1]
        if goal == (frame.width, frame.height):
            rgb = frame.to_ndarray(format="rgb24")
        else:  # resized, or the size changes inside the clip
            rgb = frame.reformat(*goal, format="rgb24", interpolation="BICUBIC").to_ndarray()
        yield np.ascontiguousarray(np.rot90(rgb, quarters)) if quarters else rgb


def _decoded(path: Path) -> Iterator["av.VideoFrame"]:
    """Every readable frame up to the first damage, then a UserError if anything is amiss."""
    cut, count, damaged = is_cut(path), 0, False
    with _opened(path) as (container, stream):
        check = _Ffv1Check(path) if stream.codec_context.name == "ffv1" else None
        stream.thread_type = "AUTO"
        try:
            for packet in container.demux(stream):
                damaged = (cut and packet.is_corrupt) or (check is not None and not check.passes(packet))
                # Damage ends the clip: the decoder gives what it still holds of the good packets.
                for frame in stream.codec_context.decode(None) if damaged else packet.decode():
                    count += 1
                    yield frame
                if damaged:
                    break
        except _AV_ERRORS:
            damaged = True
    if cut:
        raise UserError(f"{_name(path)} is cut short after frame {count}: get a complete copy of it")
    if damaged:
        raise UserError(f"{_name(path)} is damaged after frame {count}: get an intact copy of it")
    if not count:
        raise UserError(f"{_name(path)} has no frames in it: give another video")


# Damage


class _Ffv1Check:
    """Checks the packets of an FFV1 file one after the other: slice CRCs, and none of them skipped.

    The demuxer skips a block whose header is damaged, but the index of the file still names its time.
    """

    def __init__(self, path: Path):
        with _opened(path) as (container, stream):
            first = [bytes(packet) for packet in islice(container.demux(stream), 4)]
            # Slices with a CRC in each packet; 0 where the file was coded without CRCs.
            self._slices = max((sum(map(crc_is_right, ffv1_slices(data)[0])) for data in first), default=0)
            with suppress(*_AV_ERRORS):
                container.seek(0, stream=stream)  # makes the demuxer read the index at the end of the file
            self._times = sorted(entry.timestamp for entry in stream.index_entries)
            self._times.reverse()  # the next one is the last

    def passes(self, packet: "av.Packet") -> bool:
        """Whether nothing is wrong up to this packet; the empty one at the end counts."""
        if not packet.size:
            return not self._times
        if packet.pts is not None:
            if self._times and self._times[-1] < packet.pts:
                return False
            if self._times and self._times[-1] == packet.pts:
                self._times.pop()
        return not self._slices or self._is_intact(bytes(packet))

    def _is_intact(self, data: bytes) -> bool:
        parts, exact = ffv1_slices(data)
        return exact and len(parts) == self._slices and all(map(crc_is_right, parts))
