"""Video clips and still images in and out: the only file that knows PyAV.

Frames are uint8 RGB arrays [h, w, 3]; times are whole ticks of a clip's time base. A clip is a video file,
a still image, a sequence of images (see `images`), or a `memory.Clip`. Whatever the user gave wrong becomes a
`UserError` of one line.
"""

import os
import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from fractions import Fraction
from io import BytesIO
from itertools import islice
from pathlib import Path
from tempfile import TemporaryFile
from typing import BinaryIO, NamedTuple

import av
import numpy as np

from deepsteg_jax.errors import UserError
from deepsteg_jax.media import images
from deepsteg_jax.media.damage import crc_is_right, ffv1_slices, is_cut
from deepsteg_jax.media.images import LOSSLESS_IMAGE, is_image, is_pattern, is_sequence, list_sequence, shown
from deepsteg_jax.media.memory import Clip

FOLDER_RATE = Fraction(25)
LOSSLESS_VIDEO = {".mkv": "matroska", ".nut": "nut"}
PLAYABLE_VIDEO = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov"}  # what H.264 is written into
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
SOUND_RATE = 48_000  # Opus, samples per second

_AV_ERRORS = (av.error.FFmpegError, OSError)
_TEXT_CODECS = ("ansi", "xbin", "bintext", "idf")  # FFmpeg draws a text file as a video
_ATTACHED_PICTURE = 0x0400  # AV_DISPOSITION_ATTACHED_PIC: the cover picture of a song
_FFV1_OPTIONS = {"level": "3", "slices": "16", "slicecrc": "1"}
_FULL_RANGE, _RGB, _PROGRESSIVE = 2, 0, 1  # AVCOL_RANGE_JPEG, AVCOL_SPC_RGB, AV_FIELD_PROGRESSIVE
_LIMITED_RANGE, _BT601 = 1, 6  # AVCOL_RANGE_MPEG, AVCOL_SPC_SMPTE170M: what swscale makes of RGB by itself
_FINEST_TICK = Fraction(1, 90_000)  # seconds, in an MP4, which holds ticks of a frame's duration in 32 bits
_SMALLEST = 4  # FFV1 cannot cut less than this into 16 slices
_OPUS_FRAME = 960  # samples, 20 ms
_OGG_OPTIONS = {"page_duration": "200000"}  # us; a damaged byte costs a page, which else lasts a second
# Sound that players take out of each container; all else is coded anew.
_PLAYABLE_SOUND = {
    "mp4": ("aac", "mp3", "ac3", "eac3", "alac", "flac", "opus"),
    "mov": ("aac", "mp3", "ac3", "eac3", "alac", "pcm_s16le", "pcm_s16be", "pcm_s24le", "pcm_s24be"),
}
_AAC_FRAME = 1024  # samples
_AAC_BIT_RATE = 96_000  # of a channel


class Info(NamedTuple):
    """What `read_frames` will yield: frame size, rate, and the container's word on the frame count.

    `frames` is a hint (None where the container says nothing; 1 for an image): only reading counts.
    """

    width: int
    height: int
    frames: int | None
    rate: Fraction  # frames per second
    is_image: bool
    time_base: Fraction = 1 / FOLDER_RATE  # seconds of a tick
    aspect: Fraction | None = None  # of a pixel, width over height; None: square, or not said
    tracks: int = 0  # of sound and subtitles


class Timed(NamedTuple):
    """A frame and when it is shown."""

    frame: np.ndarray  # uint8 [h, w, 3]
    time: int  # ticks of the clip's time base


def probe(path: str | Path | Clip, damaged: list[int] | None = None) -> Info:
    """Describe a clip; the size is that after rotation. With `damaged` its first frame may be damaged.

    Raises UserError if it is missing, is no clip, or if its first frame cannot be read.
    """
    path = _existing(path)
    if isinstance(path, Clip):
        height, width = path.frames[0].shape[:2]
        return Info(width, height, len(path.frames), FOLDER_RATE, path.is_image)
    if found := _still_images(path):
        height, width = images.load(found[0]).shape[:2]
        return Info(width, height, len(found), FOLDER_RATE, not is_sequence(path))
    frame = next(_decoded(path, damaged))
    if frame.interlaced_frame:
        raise UserError(f"{shown(path)} is interlaced: make its frames whole first (ffmpeg -vf bwdif)")
    turned = frame.rotation % 180 != 0
    width, height = (frame.height, frame.width) if turned else (frame.width, frame.height)
    with _opened(path) as (container, stream):
        aspect = stream.sample_aspect_ratio
        aspect = None if not aspect or aspect <= 0 else 1 / aspect if turned else aspect
        return Info(
            width,
            height,
            _frame_hint(stream),
            _rate(stream),
            False,
            stream.time_base,
            aspect,
            len(container.streams.audio) + len(container.streams.subtitles),
        )


def read_frames(
    path: str | Path | Clip,
    start: int = 0,
    stop: int | None = None,
    width: int | None = None,
    height: int | None = None,
) -> Iterator[np.ndarray]:
    """Yield frames start <= i < stop (stop None: to the end), uint8 RGB [h, w, 3].

    A video gives its frames in presentation order, an image its one frame, a folder its images sorted by
    name. With width and height (both or none) each frame is resized, bicubic. Fewer frames than `stop`
    are no error. Raises UserError at once if the path is missing or is no clip; while reading, after the
    readable frames before it, where the file is damaged, cut short or without frames. Damage after `stop`
    is not looked for.
    """
    size = None if width is None or height is None else (width, height)
    return (timed.frame for timed in _read(_existing(path), start, stop, size))


def read_timed(path: str | Path | Clip, damaged: list[int] | None = None) -> Iterator[Timed]:
    """Yield all frames with their times, ticks of `probe(path).time_base`; raises as `read_frames` does.

    With the list `damaged` damage does not end the clip: frames that cannot be decoded whole are yielded as
    far as they can be, missing ones as a copy of the one before, and their numbers are added to the list.
    """
    return _read(_existing(path), 0, None, None, damaged)


def read_stack(path: str | Path) -> np.ndarray:
    """All frames of a short clip, uint8 [t, h, w, 3]; raises UserError as `read_frames` does."""
    return np.stack(list(read_frames(path)))


def frame_times(path: str | Path | Clip, decode: bool = True) -> np.ndarray:
    """The times of all frames, ticks, int64 [n].

    Decodes the whole clip, since headers can be wrong; without `decode` it only lists the packets, which is
    fast and nearly always right. Raises UserError as `read_frames` does.
    """
    path = _existing(path)
    if found := path.frames if isinstance(path, Clip) else _still_images(path):
        return np.arange(len(found))
    times = [] if decode or is_cut(path) else _packet_times(path)
    if not times or None in times:
        times = [time for _, time in _with_times(_decoded(path))]
    return np.sort(np.array(times, np.int64))


def _packet_times(path: Path) -> list[int | None]:
    with _opened(path) as (container, stream), suppress(*_AV_ERRORS):  # decoding will tell
        return [packet.pts for packet in container.demux(stream) if packet.size and not packet.is_discard]
    return []


def count_frames(path: str | Path) -> int:
    """How many frames `read_frames` yields; raises UserError as it does."""
    return len(frame_times(path))


def size_of(path: str | Path) -> int:
    """Bytes of a file, or of all images of a sequence."""
    paths = list_sequence(path) if is_sequence(path) else [Path(path)]
    return sum(file.stat().st_size for file in paths)


def resize(frame: np.ndarray, width: int, height: int) -> np.ndarray:
    """Resize one uint8 RGB frame [h, w, 3] to [height, width, 3], bicubic; the same array if unchanged."""
    if frame.shape[:2] == (height, width):
        return frame
    source = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
    return source.reformat(width, height, format="rgb24", interpolation="BICUBIC").to_ndarray()


# Sound


class Sound(NamedTuple):
    """A track of sound as Opus packets in an Ogg file."""

    file: BinaryIO  # temporary, at its beginning; gone when closed
    size: int  # bytes
    start: int  # when the first sample sounds, in samples after the first frame


def encode_sound(path: str | Path, bit_rate: int) -> Sound | None:
    """The first sound track of a video as Opus; one that is Opus already is copied packet by packet.

    Args:
        path: the clip.
        bit_rate: of what is coded here, bits per second; more than two channels are mixed down to two.

    Returns:
        None where there is no sound.

    Raises:
        UserError: the track is damaged.
    """
    path = _existing(path)
    if is_sequence(path) or is_image(path):
        return None
    with _opened(path) as (container, video):
        track = next(iter(container.streams.audio), None)
        if track is None or track.codec_context is None:
            return None
        origin = (video.start_time or 0) * video.time_base
        file = TemporaryFile()  # noqa: SIM115, the caller closes it
        try:
            with av.open(file, "w", format="ogg", options=dict(_OGG_OPTIONS)) as output:
                copied = track.codec_context.name in ("opus", "libopus")
                run = _copy_opus if copied else _code_opus
                first = run(container, track, output, bit_rate)
            size = file.tell()
            file.seek(0)
        except _AV_ERRORS as error:
            with suppress(OSError):
                file.close()
            if isinstance(error, av.error.PyAVCallbackError):  # not the sound: the temporary file
                raise OSError(str(error.__cause__ or "no room")) from error
            if not isinstance(error, av.error.FFmpegError):
                raise
            raise UserError(
                f"the sound of {shown(path)} cannot be read: repair or remove it first"
            ) from error
    if first is None:
        file.close()
        return None
    return Sound(file, size, round((first - origin) * SOUND_RATE))


def is_sound(sound: Sound) -> bool:
    """Whether there is any sound in the file; at its beginning again afterwards."""
    sound.file.seek(0)
    try:
        with av.open(sound.file, format="ogg") as container:
            return bool(container.streams.audio)
    except _AV_ERRORS:
        return False
    finally:
        sound.file.seek(0)


def _copy_opus(container, track, output, bit_rate) -> Fraction | None:
    """Copies packets; returns when the first sample sounds, in seconds."""
    del bit_rate
    copy, begin = output.add_stream_from_template(track), None
    skip = int.from_bytes((track.codec_context.extradata or bytes(12))[10:12], "little")  # RFC 7845, 5.1

    def samples(ticks):  # of 2.5 ms, the shortest Opus frame: containers round times to the millisecond
        return round(ticks * time_base * SOUND_RATE / 120) * 120

    for packet in container.demux(track):
        if packet.dts is None or not packet.size:
            continue
        time_base = packet.time_base
        begin = packet.pts if begin is None else begin
        time, duration = samples(packet.pts - begin) - skip, samples(packet.duration or 0)
        packet.time_base = Fraction(1, SOUND_RATE)
        packet.pts = packet.dts = time
        packet.duration = duration
        packet.stream = copy
        output.mux(packet)
    return None if begin is None else begin * time_base + Fraction(skip, SOUND_RATE)


def _code_opus(container, track, output, bit_rate) -> Fraction | None:
    """Decodes and codes anew; returns when the first sample sounds, in seconds."""
    layout = "mono" if track.codec_context.layout.nb_channels == 1 else "stereo"
    coded = output.add_stream("libopus", rate=SOUND_RATE, layout=layout)
    coded.bit_rate = bit_rate
    resampler = av.AudioResampler("flt", layout, SOUND_RATE, frame_size=_OPUS_FRAME)
    first = None

    def code(pieces):  # from time 0 on: an Ogg page of more would say when the sound starts a second time
        nonlocal first
        for piece in pieces:
            if first is None:
                first = piece.pts or 0
            piece.pts = None if piece.pts is None else piece.pts - first
            output.mux(coded.encode(piece))

    for packet in container.demux(track):
        for frame in packet.decode():
            code(resampler.resample(frame))
    if first is not None:
        code(resampler.resample(None))
        output.mux(coded.encode(None))
    return None if first is None else Fraction(first, SOUND_RATE)


# Writing


def check_output(
    path: str | Path | Clip,
    inputs: Iterable[str | Path | Clip] = (),
    image: bool = False,
    lossy: bool = False,
    size: tuple[int, int] | None = None,
) -> None:
    """Raise UserError unless `path` can take a lossless clip (with `image`: a lossless still image).

    Meant to be called before any work starts: the folder must exist and be writable, the path must not
    be one of `inputs`, and the suffix must be that of a lossless format of the right kind. Without
    `image` a new or empty folder, or a pattern in one, takes a sequence of images. With `lossy` H.264 in
    MP4, or JPEG, will do as well; `size` (width, height), where it is known, must then suit it.
    """
    if isinstance(path, Clip):
        return
    path = Path(path) if not str(path).endswith(os.sep) else f"{Path(path)}{os.sep}"
    target = Path(path)
    if is_sequence(path) and not image:
        target = _check_sequence(path)
    else:
        if target.is_dir():
            raise UserError(f"{shown(target)} is a folder: give the name of a file to write")
        _check_suffix(target, image, lossy)
        if size is not None and not image:
            _check_size(target, *size)
    if not target.parent.is_dir():
        raise UserError(
            f"{shown(target)} cannot be written: the folder {shown(target.parent)} does not exist"
        )
    if not os.access(target.parent, os.W_OK | os.X_OK):
        raise UserError(
            f"{shown(target)} cannot be written: no permission in the folder {shown(target.parent)}"
        )
    if any(_same_file(target, Path(other)) for other in inputs):
        raise UserError(f"{shown(target)} is also an input: give the output another name")


def write_frames(
    path: str | Path, frames: Iterable[np.ndarray], rate: Fraction | float = FOLDER_RATE
) -> None:
    """Write frames losslessly through `Writer`; as a still image if `path` has the suffix of one."""
    image = Path(path).suffix.lower() in LOSSLESS_IMAGE and not is_sequence(path)
    with Writer(path, rate, image=image) as writer:
        for frame in frames:
            writer.write(frame)


def has_encoder(codec: str) -> bool:
    """Whether this build of FFmpeg has an encoder of that name."""
    try:
        av.Codec(codec, "w")
    except av.codec.codec.UnknownCodecError:
        return False
    return True


def _check_encoder(codec: str) -> None:
    if not has_encoder(codec):
        raise UserError(f"this build of FFmpeg cannot encode with {codec}: install PyAV from its wheel")


def compress(
    frames: Iterable[np.ndarray],
    codec: str,
    pixel_format: str,
    options: dict[str, str],
    rate: Fraction = FOLDER_RATE,
    container: str = "matroska",
) -> bytes:
    """Code frames [h, w, 3] with one of FFmpeg's video encoders; returns the bytes of a file.

    Args:
        frames: uint8 RGB, all of one size.
        codec: the encoder's name, such as "libx264rgb".
        pixel_format: one that the encoder takes, such as "rgb24".
        options: the encoder's own, such as {"crf": "18"}.
        rate: frames per second.
        container: FFmpeg's name of the file's format.

    Raises:
        UserError: this build of FFmpeg has no such encoder.
    """
    pictures = (av.VideoFrame.from_ndarray(frame, format="rgb24") for frame in frames)
    return _encode(pictures, codec, pixel_format, options, rate, container)


def recompress(
    data: bytes, codec: str, pixel_format: str, options: dict[str, str], rate: Fraction = FOLDER_RATE
) -> bytes:
    """Decode a matroska file in memory and code it anew, as sites do: not by way of RGB.

    Arguments and what it raises are those of `compress`; also UserError if the file is damaged.
    """
    try:
        with av.open(BytesIO(data)) as file:
            return _encode(file.decode(video=0), codec, pixel_format, options, rate, "matroska")
    except (*_AV_ERRORS, IndexError) as error:
        raise UserError("the coded video is damaged: get an intact copy of it") from error


def _encode(pictures, codec, pixel_format, options, rate, container) -> bytes:
    _check_encoder(codec)
    os.environ.setdefault("SVT_LOG", "1")  # SVT-AV1 prints what FFmpeg's log level cannot turn off
    buffer = BytesIO()
    with av.open(buffer, "w", format=container) as file:
        stream = None
        for number, picture in enumerate(pictures):
            if stream is None:
                stream = file.add_stream(codec, rate=rate, options=options)
                stream.height, stream.width = picture.height, picture.width
                stream.pix_fmt = pixel_format
                with _usual_priorities():
                    file.start_encoding()
            picture = picture.reformat(format=pixel_format)
            picture.pts, picture.time_base = number, 1 / rate
            picture.pict_type = 0  # a decoded one would force its own type
            file.mux(stream.encode(picture))
        file.mux(stream.encode(None))
    return buffer.getvalue()


@contextmanager
def _usual_priorities():
    """Lets no encoder opened in this context change how threads are scheduled.

    For root, SVT-AV1 makes its threads, and the one that opens it with all that this one starts later,
    real-time threads of the highest priority: two encoders at once then bring a machine to a standstill.
    """
    threads = Path("/proc/self/task")
    if not threads.is_dir():  # not Linux, where it does no such thing
        yield
        return
    usual = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        yield
    finally:
        for thread in threads.iterdir():
            with suppress(OSError):  # it has ended
                if os.sched_getscheduler(int(thread.name)) == os.SCHED_FIFO:
                    os.sched_setscheduler(int(thread.name), *usual)


def decompress(data: bytes, container: str | None = None) -> list[np.ndarray]:
    """The frames of a video file in memory, uint8 RGB [h, w, 3].

    `container` is FFmpeg's name of its format, for one that does not say so itself. Raises UserError if
    nothing can be decoded; damage that FFmpeg conceals goes unnoticed.
    """
    try:
        with av.open(BytesIO(data), format=container) as file:
            frames = [frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)]
    except (*_AV_ERRORS, IndexError) as error:
        raise UserError("the coded video is damaged: get an intact copy of it") from error
    if not frames:
        raise UserError("the coded video has no frames in it: get an intact copy of it")
    return frames


def coded_size(data: bytes) -> int:
    """Bytes of the coded pictures in a video file in memory, without what its container adds."""
    with av.open(BytesIO(data)) as file:
        return sum(packet.size for packet in file.demux(video=0))


class Loop(NamedTuple):
    """How often the tracks of a file are played, and how long each time."""

    passes: int
    seconds: Fraction  # of one pass
    end: Fraction  # seconds, of the last pass


class Lossy(NamedTuple):
    """How much an output in a lossy format may lose."""

    crf: int = 18  # x264's constant rate factor
    quality: int = 90  # of a JPEG


class Writer:
    """Context manager that writes frames losslessly: FFV1 in matroska or NUT, or still images.

    With `lossy` also ordinary H.264 in MP4, or a JPEG, if the suffix is that of one.

    What is written appears under its name only on a clean exit; after an exception nothing of it is left
    and a file that had this name before is untouched. The sound and subtitle tracks of `tracks_from` are
    copied packet by packet, with their names and times.

    Raises UserError for a suffix that is not lossless (at once), if the file cannot be written, if the
    tracks cannot be copied, and on exit if no frame was written. Sound that an MP4 cannot hold is coded anew.
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
        image: bool = False,
        lossy: Lossy | None = None,
    ):
        """Prepares; nothing is opened before the first frame.

        Args:
            path: of the video or image, or a folder or pattern for a sequence of images.
            rate: frames per second.
            time_base: seconds of a tick, for frames with times of their own; 1 / rate if not given.
            aspect: of a pixel, width over height.
            tracks_from: a video whose sound and subtitles go into this one.
            loop: plays them more than once.
            image: write one still image.
            lossy: permits lossy formats.
        """
        in_memory = isinstance(path, Clip)
        sequence = not in_memory and is_sequence(path) and not image
        self._path = path if in_memory else Path(path)
        self._rate = Fraction(rate).limit_denominator(100_000)
        self._time_base = time_base or 1 / self._rate
        if in_memory:
            self._sink = _MemorySink(path, image)
        elif sequence:
            self._sink = _SequenceSink(_check_sequence(path), self._path)
        else:
            _check_suffix(self._path, image, lossy is not None)
            part = self._path.with_name(_part_name(self._path))
            if image:
                self._sink = _ImageSink(part, self._path, lossy)
            else:
                tracks = None if tracks_from is None else (Path(tracks_from), loop)
                coding = _X264(lossy) if self._path.suffix.lower() in PLAYABLE_VIDEO else _Ffv1()
                self._sink = _VideoSink(part, self._path, self._rate, self._time_base, aspect, tracks, coding)
        self._image = image
        self._size: tuple[int, int] | None = None
        self._count, self._last = 0, None

    def __enter__(self) -> "Writer":
        """Nothing is opened before the first frame."""
        return self

    def write(self, frame: np.ndarray, time: int | None = None) -> None:
        """Append a uint8 RGB frame [h, w, 3] shown at `time` ticks; the first one sets the size.

        Times must grow; one that does not comes a tick after the last. Without times frames are one tick
        apart. Raises ValueError for another dtype, shape or size, or for a second frame of an image;
        UserError if the disk or the file with the tracks fails.
        """
        if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
            raise ValueError(f"a uint8 RGB frame is needed, not {frame.dtype} {frame.shape}")
        if self._size not in (None, frame.shape[:2]):
            raise ValueError(f"frame of size {frame.shape[:2]} in a clip of size {self._size}")
        if self._image and self._count:
            raise ValueError("an image takes exactly one frame")
        self._size = frame.shape[:2]
        time = self._count if time is None else time
        time = time if self._last is None else max(time, self._last + 1)
        with _writing(self._path):
            self._sink.write(np.ascontiguousarray(frame), time)
        self._count, self._last = self._count + 1, time

    def add_sound(self, sound: Sound) -> None:
        """Puts a track of sound beside the finished video; into a folder of images as `sound.opus`."""
        with _writing(self._path):
            self._sink.add_sound(sound)

    def __exit__(self, kind, error, traceback) -> None:
        """Give the file its name, or after an exception remove what there is of it."""
        try:
            if kind is None:
                self._finish()
        finally:  # after a clean finish there is nothing left to discard
            self._sink.discard()

    def _finish(self) -> None:
        if not self._count:
            raise UserError(f"{shown(self._path)} was not written: there are no frames to put into it")
        with _writing(self._path):
            self._sink.finish()


class _ImageSink:
    """One still image."""

    def __init__(self, part: Path, path: Path, lossy: Lossy | None):
        self._part, self._path, self._quality = part, path, lossy and lossy.quality

    def write(self, frame, time):
        images.save(self._part, frame, self._path.suffix, self._quality)

    def add_sound(self, sound):
        raise UserError(f"{shown(self._path)} is an image and takes no sound: write a video")

    def finish(self):
        self._part.replace(self._path)

    def discard(self):
        images.remove(self._part)


class _MemorySink:
    """Frames in memory; what else a file would hold is left out."""

    def __init__(self, clip: Clip, image: bool):
        self._clip, self._image, self._frames = clip, image, []

    def write(self, frame, time):
        self._frames.append(frame)

    def add_sound(self, sound):
        pass

    def finish(self):
        self._clip.frames, self._clip.is_image = self._frames, self._image

    def discard(self):
        self._frames = []


class _SequenceSink:
    """A folder of still images, written beside it and renamed at the end."""

    def __init__(self, folder: Path, path: Path):
        self._folder = folder
        self._name = path.name if is_pattern(path) else images.DEFAULT_PATTERN
        self._part = folder.with_name(_part_name(folder))
        self._count = 0

    def write(self, frame, time):
        if not self._count:
            self._part.mkdir()
        name = self._name % self._count
        images.save(self._part / name, frame, Path(name).suffix)
        self._count += 1

    def add_sound(self, sound):
        with (self._part / "sound.opus").open("wb") as file:
            while data := sound.file.read(2**20):
                file.write(data)

    def finish(self):
        images.place_folder(self._part, self._folder)

    def discard(self):
        images.remove(self._part)


class _Ffv1:
    """Lossless RGB."""

    pixel_format, colour = "bgr0", (_FULL_RANGE, _RGB)
    finest_tick = Fraction(0)
    aspect_in_frames = True

    def open(self, container, rate):
        """A stream of the container, but for its size and time base."""
        stream = container.add_stream("ffv1", rate=rate, options=dict(_FFV1_OPTIONS))
        stream.codec_context.gop_size = 1
        stream.codec_context.field_order = _PROGRESSIVE
        return stream


class _X264:
    """H.264, 4:2:0, as the ffmpeg program codes it by default, at a given rate factor."""

    pixel_format, colour = "yuv420p", (_LIMITED_RANGE, _BT601)
    finest_tick = _FINEST_TICK
    aspect_in_frames = False

    def __init__(self, lossy: Lossy):
        self._options = {"crf": str(lossy.crf), "preset": "medium"}

    def open(self, container, rate):
        """A stream of the container, but for its size and time base."""
        _check_encoder("libx264")
        return container.add_stream("libx264", rate=rate, options=dict(self._options))


class _VideoSink:
    """Coded video in a container, with the tracks of another file."""

    def __init__(self, part, path, rate, time_base, aspect, tracks, coding):
        self._part, self._path, self._rate, self._time_base = part, path, rate, time_base
        self._aspect, self._tracks_from, self._coding = aspect, tracks, coding
        self._tick, self._last = max(time_base, coding.finest_tick), None
        self._container = self._stream = self._tracks = self._set_aspect = None

    def write(self, frame, time):
        if self._container is None:
            self._open(*frame.shape[:2])
        if self._tracks:
            self._tracks.copy_until(time * self._time_base)
        picture = av.VideoFrame.from_ndarray(frame, format="rgb24").reformat(format=self._coding.pixel_format)
        picture.pts, picture.time_base = self._ticks(time), self._tick
        picture.color_range, picture.colorspace = self._coding.colour
        if self._set_aspect:
            self._set_aspect.push(picture)
            picture = self._set_aspect.pull()
        self._container.mux(self._stream.encode(picture))

    def _ticks(self, time: int) -> int:
        ticks = time if self._tick == self._time_base else round(time * self._time_base / self._tick)
        self._last = ticks if self._last is None else max(ticks, self._last + 1)
        return self._last

    def _open(self, height: int, width: int) -> None:
        if min(height, width) < _SMALLEST:
            raise UserError(
                f"{shown(self._path)}: {width}x{height} is too small for a video: give a folder for images"
            )
        _check_size(self._path, width, height)
        self._container = _create(self._part, self._path)
        self._stream = stream = self._coding.open(self._container, self._rate)
        context = stream.codec_context
        stream.width, stream.height, stream.pix_fmt = width, height, self._coding.pixel_format
        stream.time_base = context.time_base = self._tick
        context.thread_count = 2
        # What the ffmpeg program says of such a stream, so that this one does not stand out.
        context.color_range, context.colorspace = self._coding.colour
        version = "{}.{}.{}".format(*av.library_versions["libavcodec"])
        stream.metadata["encoder"] = f"Lavc{version} {context.name}"
        stream.disposition = av.stream.Disposition.default
        if self._aspect not in (None, 1):
            if self._coding.aspect_in_frames:
                self._set_aspect = _aspect_filter(width, height, self._time_base, self._aspect)
            else:
                context.sample_aspect_ratio = self._aspect
        if self._tracks_from is not None:
            self._tracks = _Tracks(*self._tracks_from, self._container, stream)
        try:
            self._container.start_encoding()
        except (*_AV_ERRORS, ValueError) as error:
            if self._tracks and not isinstance(error, OSError):
                raise UserError(self._tracks.refusal()) from error
            raise

    def _close(self) -> None:
        if self._tracks:
            self._tracks.copy_until(None)
        self._container.mux(self._stream.encode(None))
        self._container.close()
        self._container = None

    def add_sound(self, sound):
        self._close()
        whole = self._path.with_name(_part_name(self._path))
        try:
            _join(self._part, sound, whole, self._path)
            whole.replace(self._part)
        finally:
            images.remove(whole)

    def finish(self):
        if self._container is not None:
            self._close()
        if is_cut(self._part):  # a full disk that nobody reported
            raise OSError("the disk took only a part of it")
        self._part.replace(self._path)

    def discard(self):
        if self._tracks:
            self._tracks.close()
        if self._container is not None:
            with suppress(*_AV_ERRORS, ValueError):
                self._container.close()
            self._container = None
        images.remove(self._part)


def _create(part: Path, path: Path) -> "av.container.OutputContainer":
    if (kind := PLAYABLE_VIDEO.get(path.suffix.lower())) is not None:
        return av.open(_url(part), "w", format=kind, options={"movflags": "+faststart"})
    kind = LOSSLESS_VIDEO[path.suffix.lower()]
    # An early packet of sound (AAC priming) makes the muxer delay all streams, which only NUT needs: it has
    # no times before 0.
    options = {"avoid_negative_ts": "make_non_negative" if kind == "nut" else "disabled"}
    return av.open(_url(part), "w", format=kind, options=options)


def _aspect_filter(width: int, height: int, time_base: Fraction, aspect: Fraction) -> "av.filter.Graph":
    """Stamps frames with the shape of their pixels, which FFV1 then writes into its slices."""
    graph = av.filter.Graph()
    source = graph.add_buffer(width=width, height=height, format="bgr0", time_base=time_base)
    stamp = graph.add("setsar", f"{aspect.numerator}/{aspect.denominator}")
    sink = graph.add("buffersink")
    source.link_to(stamp)
    stamp.link_to(sink)
    graph.configure()
    return graph


def _join(video: Path, sound: Sound, output: Path, path: Path) -> None:
    """Copies a video and a sound track into one file, in step."""
    with av.open(_url(video)) as pictures, _create(output, path) as container:
        source = pictures.streams.video[0]
        stream = container.add_stream_from_template(source)
        stream.time_base, stream.disposition = source.time_base, source.disposition
        with _SoundTrack(sound, container) as track:
            for packet in pictures.demux(source):
                if packet.dts is not None:
                    track.copy_until(packet.pts * packet.time_base)
                    packet.stream = stream
                    container.mux(packet)
            track.copy_until(None)


class _SoundTrack:
    """The packets of a `Sound`, handed to an output container in step with its video."""

    def __init__(self, sound: Sound, output: "av.container.OutputContainer"):
        self._start, self._output = sound.start, output
        self._input = av.open(sound.file, format="ogg")
        self._source = self._input.streams.audio[0]
        self._stream = output.add_stream_from_template(self._source)
        self._packets = iter(self._input.demux(self._source))
        self._head = None

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self._input.close()

    def copy_until(self, end: Fraction | None) -> None:
        """Copies the packets that start before `end` seconds; None: all that are left."""
        while (packet := self._head or next(self._packets, None)) is not None:
            self._head = packet
            if packet.dts is None:
                self._head = None
                continue
            if end is not None and (packet.pts + self._start) * packet.time_base >= end:
                return
            packet.pts += self._start
            packet.dts = packet.pts
            packet.stream, self._head = self._stream, None
            self._output.mux(packet)


class _Tracks:
    """The sound and subtitle packets of a file, handed to an output container in step with its video."""

    def __init__(self, path: Path, loop: Loop | None, output: "av.container.OutputContainer", video):
        self._path, self._loop, self._output = path, loop or Loop(1, Fraction(0), None), output
        self._map, self._head, self._input = {}, None, None
        self._packets = iter(())
        if is_sequence(path) or is_image(path):
            return
        self._input = _open_input(path)
        wanted = [*self._input.streams.audio, *self._input.streams.subtitles]
        for track in wanted:
            try:
                copy = _AacTrack(track, output) if _is_coded_anew(track, output) else _Copy(track, output)
            except ValueError as error:
                self.close()
                raise UserError(self.refusal()) from error
            copy.stream.disposition = track.disposition
            copy.stream.metadata.update(_tags(track.metadata, coded_anew=isinstance(copy, _AacTrack)))
            self._map[track.index] = copy
        output.metadata.update(_tags(self._input.metadata))
        with suppress(ValueError):
            output.set_chapters(self._input.chapters())
        source = _video_stream(self._input)
        if source is not None:
            video.metadata.update(_tags(source.metadata))
        if wanted:
            self._packets = self._all_passes(wanted)

    def refusal(self) -> str:
        """The line for the user about tracks that the container cannot hold."""
        playable = self._output.format.name in _PLAYABLE_SOUND
        goal = "mov_text OUT.mp4" if playable else "srt OUT.mkv"
        return (
            f"a sound or subtitle track of {shown(self._path)} does not fit into such a file: "
            f"convert it first, for example with ffmpeg -i IN -c copy -c:s {goal}, or remove it"
        )

    def copy_until(self, end: Fraction | None) -> None:
        """Copy the packets that start before `end` seconds; None: all that are left."""
        while (packet := self._peek()) is not None:
            if end is not None and packet.dts * packet.time_base >= end:
                return
            self._head = None
            track = self._map[packet.stream.index]
            with self._complaining():
                coded = track.take(packet)
            self._output.mux(coded)
        if end is None:
            for track in self._map.values():
                self._output.mux(track.finish())

    def close(self) -> None:
        """Close the input."""
        if self._input is not None:
            self._input.close()
            self._input = None

    def _peek(self) -> "av.Packet | None":
        while self._head is None:
            with self._complaining():
                self._head = next(self._packets, None)
            if self._head is None:
                return None
        return self._head

    @contextmanager
    def _complaining(self):
        try:
            yield
        except _AV_ERRORS as error:
            raise UserError(
                f"a sound or subtitle track of {shown(self._path)} is damaged: remove it first"
            ) from error

    def _all_passes(self, wanted) -> Iterator["av.Packet"]:
        for number in range(self._loop.passes):
            if number:
                self._input.close()
                self._input = _open_input(self._path)
                wanted = [self._input.streams[track] for track in self._map]
            last = number == self._loop.passes - 1
            end = self._loop.end if last else self._loop.seconds
            for packet in self._input.demux(wanted):
                if packet.dts is None:  # the empty packet at the end of a track
                    continue
                if end is not None and packet.dts * packet.time_base >= end:
                    continue
                shift = round(number * self._loop.seconds / packet.time_base)
                packet.dts += shift
                packet.pts = packet.dts if packet.pts is None else packet.pts + shift
                yield packet


def _is_coded_anew(track: "av.stream.Stream", output: "av.container.OutputContainer") -> bool:
    playable = _PLAYABLE_SOUND.get(output.format.name)
    known = track.type == "audio" and track.codec_context is not None
    return playable is not None and known and track.codec_context.codec.canonical_name not in playable


class _Copy:
    """A track whose packets go into the output as they are."""

    def __init__(self, track: "av.stream.Stream", output: "av.container.OutputContainer"):
        self.stream = output.add_stream_from_template(track)

    def take(self, packet: "av.Packet") -> "list[av.Packet]":
        """The packets to write for one of the track's."""
        packet.stream = self.stream
        return [packet]

    def finish(self) -> "list[av.Packet]":
        """What is left."""
        return []


class _AacTrack:
    """A sound track that is coded anew; more than two channels are mixed down to two."""

    def __init__(self, track: "av.AudioStream", output: "av.container.OutputContainer"):
        context = track.codec_context
        self._layout = "mono" if context.layout.nb_channels == 1 else "stereo"
        channels = 1 if self._layout == "mono" else 2
        fits = context.sample_rate in av.Codec("aac", "w").audio_rates
        self._rate = context.sample_rate if fits else SOUND_RATE
        self.stream = output.add_stream("aac", rate=self._rate, layout=self._layout)
        self.stream.bit_rate = _AAC_BIT_RATE * channels
        self._resampler = av.AudioResampler("fltp", self._layout, self._rate)
        self._waiting = np.zeros((channels, 0), np.float32)
        self._end = None  # of what waits, in samples

    def take(self, packet: "av.Packet") -> "list[av.Packet]":
        """The packets to write for one of the track's."""
        pieces = [piece for frame in packet.decode() for piece in self._resampler.resample(frame)]
        return [coded for piece in pieces for coded in self._add(piece)]

    def finish(self) -> "list[av.Packet]":
        """What is left."""
        if self._end is None:
            return []
        pieces = [piece for piece in self._resampler.resample(None) if piece is not None]
        coded = [packet for piece in pieces for packet in self._add(piece)]
        return coded + self._code(self._waiting, self._end) + self.stream.encode(None)

    def _add(self, piece: "av.AudioFrame") -> "list[av.Packet]":
        samples, coded = piece.to_ndarray(), []
        time = None if piece.pts is None else round(piece.pts * piece.time_base * self._rate)
        if self._end is None:
            self._end = time or 0
        gap = 0 if time is None else time - self._end
        if gap > _AAC_FRAME:
            coded = self._code(self._waiting, self._end)
            self._waiting, self._end = self._waiting[:, :0], time
        elif gap < -_AAC_FRAME:
            samples = samples[:, -gap:]
        self._end += samples.shape[1]
        waiting = np.concatenate([self._waiting, samples], axis=1)
        rest = waiting.shape[1] % _AAC_FRAME
        whole, self._waiting = np.split(waiting, [waiting.shape[1] - rest], axis=1)
        return coded + self._code(whole, self._end - rest)

    def _code(self, samples: np.ndarray, end: int) -> "list[av.Packet]":
        """Codes samples that end with number `end`, the last frame filled up with silence."""
        coded, start = [], end - samples.shape[1]
        samples = np.pad(samples, ((0, 0), (0, -samples.shape[1] % _AAC_FRAME)))
        for begin in range(0, samples.shape[1], _AAC_FRAME):
            piece = np.ascontiguousarray(samples[:, begin : begin + _AAC_FRAME])
            frame = av.AudioFrame.from_ndarray(piece, format="fltp", layout=self._layout)
            frame.sample_rate, frame.time_base = self._rate, Fraction(1, self._rate)
            frame.pts = start + begin
            coded += self.stream.encode(frame)
        return coded


def _tags(metadata: dict[str, str], coded_anew: bool = True) -> dict[str, str]:
    """The tags that the ffmpeg program would copy."""
    dropped = ("duration", "creation_time", "company_name", "product_name", "product_version")
    dropped += ("encoder",) * coded_anew
    return {name: text for name, text in metadata.items() if name.lower() not in dropped}


def _part_name(path: Path) -> str:
    return f".{path.name}.{secrets.token_hex(4)}.part"


def _url(path: Path) -> str:
    return f"file:{path}"  # else FFmpeg takes "a:b.mkv" for a protocol


def _same_file(path: Path, other: Path) -> bool:
    if path.exists() and other.exists():
        return path.samefile(other)
    return path.resolve() == other.resolve()


def _check_sequence(path: str | Path) -> Path:
    """The folder that a sequence of images goes to; raises UserError unless it is new or empty."""
    folder = Path(path).parent if is_pattern(path) else Path(path)
    if is_pattern(path) and Path(path).suffix.lower() not in LOSSLESS_IMAGE:
        raise UserError(f"{shown(path)} cannot be the output: use {' or '.join(LOSSLESS_IMAGE)}")
    if folder.resolve() == Path.cwd() or (folder.is_dir() and any(folder.iterdir())):
        raise UserError(f"the folder {shown(folder)} has files in it: give a new or empty one for the images")
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{shown(folder)} is a file: give a folder for the images")
    return folder


def _check_suffix(path: Path, image: bool, lossy: bool) -> None:
    suffix = path.suffix.lower()
    kind, wanted = ("image", tuple(LOSSLESS_IMAGE)) if image else ("video", tuple(LOSSLESS_VIDEO))
    if lossy:
        wanted += tuple(images.JPEG) if image else tuple(PLAYABLE_VIDEO)
    if suffix in wanted:
        return
    advice = f"use {' or '.join(wanted)}"
    other = (*LOSSLESS_VIDEO, *LOSSY_VIDEO) if image else (*LOSSLESS_IMAGE, *LOSSY_IMAGE)
    if suffix in other:
        reason = f"the result is {'an image' if image else 'a video'}, but {suffix} is a format for "
        reason += "videos" if image else "still images"
    elif suffix in LOSSY_VIDEO + LOSSY_IMAGE and not lossy:
        reason = f"{suffix} files are usually coded with loss, which would destroy the hidden secret"
    else:
        reason = (
            f"{repr(suffix) + ' is not' if suffix else 'without a suffix it is not'} a known {kind} format"
        )
    raise UserError(f"{shown(path)} cannot be the output: {reason}; {advice}")


def _check_size(path: Path, width: int, height: int) -> None:
    """Raises UserError if a video of that suffix cannot have frames of that size."""
    suffix, even = path.suffix.lower(), (width // 2 * 2, height // 2 * 2)
    if suffix in PLAYABLE_VIDEO and (width, height) != even:
        raise UserError(
            f"{shown(path)} cannot be the output: H.264 in {suffix} needs even sides and the frames are "
            f"{width}x{height}; use {' or '.join(LOSSLESS_VIDEO)}, or crop the cover first, for example with "
            f"ffmpeg -i IN -vf crop={even[0]}:{even[1]} OUT.mkv"
        )


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Errors of the disk become UserErrors about `path`."""
    try:
        yield
    except _AV_ERRORS as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(f"{shown(path)} cannot be written: {' '.join(reason.split())}") from error


# Reading


def _existing(path: str | Path | Clip) -> str | Path | Clip:
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


def _still_images(path: str | Path) -> list[Path]:
    """The files of a still image or of a sequence; none if it is neither."""
    if is_sequence(path):
        return list_sequence(path)
    return [path] if is_image(path) else []


def _read(path, start, stop, size, damaged=None) -> Iterator[Timed]:
    if isinstance(path, Clip):
        return _from_memory(path, start, stop, size)
    if found := _still_images(path):
        return _read_images(found[start:stop], start, size)
    with _opened(path):  # complains now, not at the first frame
        return _video_frames(path, start, stop, size, damaged)


def _from_memory(clip: Clip, start: int, stop: int | None, size) -> Iterator[Timed]:
    """As the same frames would come out of a file: images and videos are not resized by the same library."""
    scale = images.resize if clip.is_image else resize
    for number, frame in enumerate(clip.frames[start:stop], start):
        yield Timed(frame if size is None else scale(frame, *size), number)


def _read_images(paths: list[Path], start: int, size) -> Iterator[Timed]:
    for number, frame in enumerate(images.read(paths, size), start):
        yield Timed(frame, number)


def _open_input(path: Path) -> "av.container.InputContainer":
    try:
        # A playlist must not fetch anything.
        return av.open(_url(path), metadata_errors="replace", options={"protocol_whitelist": "file"})
    except (*_AV_ERRORS, ValueError) as error:
        cut = path.is_file() and is_cut(path)
        reason = "is cut short" if cut else "is not a video or image, or is damaged at its start"
        raise UserError(f"{shown(path)} {reason}: give a complete video or image file") from error


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
            raise UserError(f"{shown(path)} has no video in it: give a video or image file")
        if stream.width * stream.height > images.LARGEST:
            raise UserError(
                f"{shown(path)} has frames of {stream.width}x{stream.height}: scale them down first"
            )
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


def _with_times(frames: Iterable["av.VideoFrame"]) -> Iterator[tuple]:
    """Each frame and its time, which grows; one without comes as long after the last as that one did."""
    last, step = None, 1
    for frame in frames:
        time = frame.pts
        if time is None:
            time = 0 if last is None else last + step
        elif last is not None:
            time = max(time, last + 1)
            step = time - last
        last = time
        yield frame, time


def _video_frames(path: Path, start: int, stop: int | None, size, damaged) -> Iterator[Timed]:
    native = None
    for frame, time in islice(_with_times(_decoded(path, damaged)), start, stop):
        native = native or (frame.width, frame.height)
        yield Timed(_to_rgb(frame, native, size), time)


def _to_rgb(frame: "av.VideoFrame", native: tuple[int, int], size: tuple[int, int] | None) -> np.ndarray:
    quarters = round(frame.rotation / 90)
    goal = native if size is None else size[:: -1 if quarters % 2 else 1]
    transparent = any(component.is_alpha for component in frame.format.components)
    kind = "rgba" if transparent else "rgb24"
    if goal == (frame.width, frame.height):
        rgb = frame.to_ndarray(format=kind)
    else:  # resized, or the size changes inside the clip
        rgb = frame.reformat(*goal, format=kind, interpolation="BICUBIC").to_ndarray()
    rgb = images.on_white(rgb) if transparent else rgb
    return np.ascontiguousarray(np.rot90(rgb, quarters)) if quarters else rgb


def _decoded(path: Path, damaged: list[int] | None = None) -> Iterator["av.VideoFrame"]:
    """Every readable frame up to the first damage, then a UserError; with `damaged` on to the end."""
    cut, count, wrong = is_cut(path), 0, False
    with _opened(path) as (container, stream):
        check = _Ffv1Check(path) if stream.codec_context.name == "ffv1" else None
        stream.codec_context.options = {"max_pixels": str(images.LARGEST)}
        stream.thread_type = "AUTO"
        if damaged is None:
            frames = _up_to_damage(container, stream, check, cut)
        else:
            frames = _past_damage(_decode_all(container, stream, check), check, damaged)
        try:
            for frame in frames:
                count += 1
                yield frame
        except _AV_ERRORS:
            wrong = True
    if damaged is not None and count:
        return
    if cut:
        raise UserError(f"{shown(path)} is cut short after frame {count}: get a complete copy of it")
    if wrong:
        raise UserError(f"{shown(path)} is damaged after frame {count}: get an intact copy of it")
    if not count:
        raise UserError(f"{shown(path)} has no frames in it: give another video")


def _up_to_damage(container, stream, check: "_Ffv1Check | None", cut: bool) -> Iterator["av.VideoFrame"]:
    """The frames before the first damage, then an OSError or one of FFmpeg's errors if there is any."""
    for packet in container.demux(stream):
        wrong = (cut and packet.is_corrupt) or (check is not None and not check.passes(packet))
        # The decoder gives what it still holds of the good packets.
        yield from stream.codec_context.decode(None) if wrong else packet.decode()
        if wrong:
            raise OSError("damaged")


# Damage


def _past_damage(frames: Iterable[tuple], check: "_Ffv1Check | None", damaged: list[int]) -> Iterator:
    """All frames, with a copy of the one before for each that is missing; adds to `damaged`."""
    expected = check.times() if check else []
    count, last = 0, None
    for frame, wrong in frames:
        while expected and frame.pts is not None and expected[-1] < frame.pts:
            expected.pop()
            damaged.append(count)
            count += 1
            yield last or frame
        if expected and expected[-1] == frame.pts:
            expected.pop()
        if wrong:
            damaged.append(count)
        count, last = count + 1, frame
        yield frame
    for _ in expected if last is not None else ():
        damaged.append(count)
        count += 1
        yield last


def _decode_all(container, stream, check) -> Iterator[tuple]:
    """Every frame that comes out of the decoder and whether it is damaged, on past all errors."""
    bad = set()
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets, None)
        except _AV_ERRORS:
            return
        if packet is None:
            return
        if packet.size and (packet.is_corrupt or (check is not None and not check.is_intact(packet))):
            bad.add(packet.pts)
        with suppress(*_AV_ERRORS):
            for frame in packet.decode():
                yield frame, frame.pts in bad or frame.is_corrupt


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

    def times(self) -> list[int]:
        """The times that the index names, the first one last."""
        return list(self._times)

    def passes(self, packet: "av.Packet") -> bool:
        """Whether nothing is wrong up to this packet; the empty one at the end counts."""
        if not packet.size:
            return not self._times
        if packet.pts is not None:
            if self._times and self._times[-1] < packet.pts:
                return False
            if self._times and self._times[-1] == packet.pts:
                self._times.pop()
        return self.is_intact(packet)

    def is_intact(self, packet: "av.Packet") -> bool:
        """Whether the slices fill the packet and agree with their CRCs."""
        if not self._slices:
            return True
        parts, exact = ffv1_slices(bytes(packet))
        return exact and len(parts) == self._slices and all(map(crc_is_right, parts))
