"""Reading clips: their properties, their frames and the times of these.

Frames are uint8 RGB arrays [h, w, 3]; times are whole ticks of a clip's time base. A clip is a video file,
a still image, a sequence of images (see `images`), or a `memory.Clip`. Whatever the user gave wrong becomes a
`UserError` of one line.
"""

from collections.abc import Iterable, Iterator
from contextlib import suppress
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np

from deepsteg_jax.errors import UserError
from deepsteg_jax.media import clock, images, jpeg, mjpeg, sdr
from deepsteg_jax.media.codecs import GREY, RGB, Colour
from deepsteg_jax.media.container import check_colours, decoder_of, existing, has_alpha_beside, opened
from deepsteg_jax.media.damage import ERRORS, Ffv1Check, decode_all, is_cut, past_damage, up_to_damage
from deepsteg_jax.media.images import FOLDER_RATE, is_image, is_sequence, list_sequence, shown
from deepsteg_jax.media.memory import Clip
from deepsteg_jax.media.planes import (
    Planes,
    TimedPlanes,
    Turn,
    from_picture,
    from_rgb,
    has_planes,
    plain_name,
    subsampling,
    turn_of,
)

_REORDERED = 17  # frames by which packets may be out of order: H.264 and H.265 hold 16 back


class Info(NamedTuple):
    """Frame size, rate and times of a clip, and its frame count as the container reports it.

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
    pixel_format: str = RGB  # of the file, as FFmpeg calls it; of images "gray" if they are, else RGB
    colour: Colour = Colour()  # that its numbers stand for
    coefficients: int = 0  # AC, other than 0, of an image or the first frame that can stay a JPEG


class Timed(NamedTuple):
    """A frame and its time."""

    frame: np.ndarray  # uint8 [h, w, 3]
    time: int  # ticks of the clip's time base


def probe(path: str | Path | Clip, damaged: list[int] | None = None) -> Info:
    """Describe a clip; the size is that after rotation. With `damaged` its first frame may be damaged.

    Raises UserError if it is missing, is no clip, or if its first frame cannot be read.
    """
    path = existing(path)
    if isinstance(path, Clip):
        height, width = path.frames[0].shape[:2]
        return Info(width, height, len(path.frames), FOLDER_RATE, path.is_image)
    if found := _still_images(path):
        first, still = images.load(found[0]), not is_sequence(path)
        colour = images.colour_of(found[0])
        info = Info(first.shape[1], first.shape[0], len(found), FOLDER_RATE, still, colour=colour)
        info = info._replace(coefficients=jpeg.count_nonzero(found[0]) if still else 0)
        return info._replace(pixel_format=GREY) if still and (first == first[..., :1]).all() else info
    if images.is_animation(path):
        return _probe_animation(path)
    frame = next(_decoded(path, damaged))
    check_colours(frame, path)
    turned = turn_of(frame).transposed
    width, height = (frame.height, frame.width) if turned else (frame.width, frame.height)
    with opened(path) as (container, stream):
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
            plain_name(frame.format.name),
            Colour.of(frame),
            jpeg.count_nonzero(path, mjpeg.read) if stream.codec_context.name == mjpeg.CODEC else 0,
        )


def _probe_animation(path: Path) -> Info:
    height, width = next(images.read_animation(path)).frame.shape[:2]
    times = frame_times(path)
    rate = (len(times) - 1) / (int(times[-1]) * images.ANIMATION_TICK) if times[-1] else FOLDER_RATE
    return Info(width, height, len(times), rate, False, images.ANIMATION_TICK)


def _rate(stream: "av.VideoStream") -> Fraction:
    return Fraction(stream.average_rate or stream.guessed_rate or stream.base_rate or FOLDER_RATE)


def _frame_hint(stream: "av.VideoStream") -> int | None:
    """Return the number of frames by the header, else by the duration; None if neither says."""
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
    return (timed.frame for timed in _read(existing(path), start, stop, size))


def read_timed(path: str | Path | Clip, damaged: list[int] | None = None) -> Iterator[Timed]:
    """Yield all frames with their times, ticks of `probe(path).time_base`; raise as `read_frames` does.

    With the list `damaged` damage does not end the clip: frames that cannot be decoded whole are yielded as
    far as they can be, missing ones as a copy of the one before, and their numbers are added to the list.
    """
    return _read(existing(path), 0, None, None, damaged)


def read_planes(
    path: str | Path | Clip,
    damaged: list[int] | None = None,
    pixel_format: str | None = None,
    by_rgb: bool = False,
) -> Iterator[TimedPlanes]:
    """Yield all frames as planes, with their times.

    Args:
        path: of a clip.
        damaged: see `read_timed`.
        pixel_format: of the planes, to which frames in another one, RGB also, are converted; None: the
            video's own, `probe(path).pixel_format`.
        by_rgb: convert all frames to RGB first, as one who gets RGB will have them.

    Raises:
        UserError: as `read_timed`; also for a clip without planes of its own where those are wanted.
    """
    path = existing(path)
    wrong = f"{shown(path)} has no planes Y, Cb, Cr: give a video (ffmpeg -i IN -pix_fmt yuv420p OUT.mkv)"
    own = not (by_rgb or isinstance(path, Clip) or _still_images(path) or images.is_animation(path))
    if own:
        with opened(path) as (_, stream):
            own = has_planes(stream.codec_context.pix_fmt or "") and not has_alpha_beside(stream)
    if own:
        return _video_planes(path, pixel_format, damaged)
    if pixel_format is None:
        raise UserError(wrong)
    return (TimedPlanes(from_rgb(frame, pixel_format), time) for frame, time in read_timed(path, damaged))


def _video_planes(path: Path, pixel_format: str | None, damaged: list[int] | None) -> Iterator[TimedPlanes]:
    native = None
    for picture, time in _with_times(_decoded(path, damaged)):
        kind = pixel_format or plain_name(picture.format.name)
        native, turn = native or (picture.width, picture.height, kind), turn_of(picture)
        if (picture.width, picture.height, kind) != native:  # it changes inside the clip
            picture = picture.reformat(*native, interpolation="BICUBIC")
        yield TimedPlanes(_planes(path, picture, pixel_format, turn), time)


def _planes(path: Path, picture: av.VideoFrame, pixel_format: str | None, turn: Turn) -> Planes:
    if pixel_format not in (None, plain_name(picture.format.name)):
        return from_picture(picture.reformat(format=pixel_format), turn)
    if turn.transposed and len(set(subsampling(picture.format.name))) == 2:
        raise UserError(
            f"{shown(path)} is stored on its side, and planes of half width cannot be turned: turn it first "
            "(ffmpeg -i IN OUT.mkv)"
        )
    return from_picture(picture, turn)


def _read(
    path: str | Path | Clip,
    start: int,
    stop: int | None,
    size: tuple[int, int] | None,
    damaged: list[int] | None = None,
) -> Iterator[Timed]:
    if isinstance(path, Clip):
        return _from_memory(path, start, stop, size)
    if found := _still_images(path):
        return _read_images(found[start:stop], start, size)
    if images.is_animation(path):
        return _read_animation(path, start, stop, size)
    with opened(path):  # complains now, not at the first frame
        return _video_frames(path, start, stop, size, damaged)


def _from_memory(clip: Clip, start: int, stop: int | None, size: tuple[int, int] | None) -> Iterator[Timed]:
    """Yield frames as they would come out of a file: images and videos are not resized by one library."""
    scale = images.resize if clip.is_image else resize
    for number, frame in enumerate(clip.frames[start:stop], start):
        yield Timed(frame if size is None else scale(frame, *size), number)


def _read_images(paths: list[Path], start: int, size: tuple[int, int] | None) -> Iterator[Timed]:
    for number, frame in enumerate(images.read(paths, size), start):
        yield Timed(frame, number)


def _read_animation(
    path: Path, start: int, stop: int | None, size: tuple[int, int] | None
) -> Iterator[Timed]:
    for frame, time, _ in islice(images.read_animation(path), start, stop):
        yield Timed(frame if size is None else resize(frame, *size), time)


def _video_frames(
    path: Path, start: int, stop: int | None, size: tuple[int, int] | None, damaged: list[int] | None
) -> Iterator[Timed]:
    native = None
    for frame, time in islice(_with_times(_decoded(path, damaged)), start, stop):
        native = native or (frame.width, frame.height)
        yield Timed(_to_rgb(frame, native, size), time)


def _to_rgb(frame: "av.VideoFrame", native: tuple[int, int], size: tuple[int, int] | None) -> np.ndarray:
    turn, colour = turn_of(frame), Colour.of(frame)
    goal = native if size is None else size[:: -1 if turn.transposed else 1]
    # A palette may hold transparent colours.
    transparent = frame.format.name == "pal8" or any(part.is_alpha for part in frame.format.components)
    mapped = sdr.needs_mapping(colour)
    kind = ("rgba64le" if mapped else "rgba") if transparent else "rgb48le" if mapped else RGB
    if goal == (frame.width, frame.height):
        rgb = frame.to_ndarray(format=kind)
    else:  # resized, or the size changes inside the clip
        rgb = frame.reformat(*goal, format=kind, interpolation="BICUBIC").to_ndarray()
    if mapped:
        shown = sdr.map_to_sdr(rgb[..., :3], colour)
        rgb = np.dstack([shown, rgb[..., 3] >> 8]).astype(np.uint8) if transparent else shown
    return np.ascontiguousarray(turn(images.on_white(rgb) if transparent else rgb))


def _with_times(frames: Iterable["av.VideoFrame"]) -> Iterator[tuple]:
    """Yield each frame and its time, which grows; one without comes as long after the last as that did."""
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


def _decoded(path: Path, damaged: list[int] | None = None) -> Iterator["av.VideoFrame"]:
    """Yield readable frames up to the first damage, then raise UserError; with `damaged` on to the end."""
    cut, count, wrong = is_cut(path), 0, False
    with opened(path) as (container, stream):
        check = _ffv1_check(path) if stream.codec_context.name == "ffv1" else None
        decoder = decoder_of(stream)
        decoder.options = {"max_pixels": str(images.LARGEST)}
        decoder.thread_type = "AUTO"
        packets = clock.demux(container, [stream])
        if damaged is None:
            frames = up_to_damage(packets, decoder, check, cut)
        else:
            frames = past_damage(decode_all(packets, decoder, check), check, damaged)
        try:
            for frame in frames:
                if frame.interlaced_frame and (damaged is None or not count):  # damaged ones say anything
                    raise UserError(f"{shown(path)} is interlaced: deinterlace it first (ffmpeg -vf bwdif)")
                count += 1
                yield frame
        except ERRORS:
            wrong = True
    if damaged is not None and count:
        return
    if cut:
        raise UserError(f"{shown(path)} is cut short after frame {count}: get a complete copy of it")
    if wrong:
        raise UserError(f"{shown(path)} is damaged after frame {count}: get an intact copy of it")
    if not count:
        raise UserError(f"{shown(path)} has no frames in it: give another video")


def _ffv1_check(path: Path) -> Ffv1Check:
    with opened(path) as (container, stream):
        return Ffv1Check(container, stream)


class Timing(NamedTuple):
    """The times of the frames of a clip, in ticks of its time base."""

    ticks: np.ndarray  # int64 [n], rising
    last: int  # how long the last frame is shown; 0: not said


def timing(path: str | Path | Clip) -> Timing:
    """Return the times of all frames; decodes the clip, since headers and packets can be wrong.

    Raises UserError as `read_frames` does.
    """
    path = existing(path)
    if found := path.frames if isinstance(path, Clip) else _still_images(path):
        return Timing(np.arange(len(found)), 0)
    if images.is_animation(path):
        timed = [frame[1:] for frame in images.read_animation(path)]
        return Timing(np.array(timed, np.int64)[:, 0], timed[-1][1])
    timed = ((time, frame.duration) for frame, time in _with_times(_decoded(path)))
    ticks, durations = zip(*timed, strict=True)
    _check_packets(path, ticks[-1])
    return Timing(np.array(ticks, np.int64), 0 if _reorders(path) else max(0, durations[-1]))


def _check_packets(path: Path, last: int) -> None:
    """Raise UserError where times go back, or pictures after the frame at time `last` were not decoded."""
    times = [time for time in _packet_times(path) if time is not None]
    if len(times) < 2:
        return
    places = np.argsort(np.argsort(times, kind="stable"), kind="stable")
    late = np.arange(len(times)) - places > _REORDERED
    if late.any():
        raise UserError(
            f"the times of {shown(path)} go back after frame {int(np.argmax(late))}: give it "
            "new ones (ffmpeg -i IN -vf setpts=N/FRAME_RATE/TB OUT.mkv)"
        )
    if max(times) - last > _REORDERED * (max(times) - min(times)) / len(times):
        raise UserError(
            f"{shown(path)} has pictures that cannot be decoded after frame {sum(np.array(times) <= last)}: "
            "cut it there, or code its parts alike before they are joined"
        )


def _reorders(path: Path) -> bool:
    """Return whether a file is an MP4 with B-frames, whose durations are those of decoding."""
    with opened(path) as (container, stream):
        return container.format.name.startswith("mov") and bool(stream.codec_context.has_b_frames)


def frame_times(path: str | Path | Clip) -> np.ndarray:
    """Return the times of all frames, ticks, int64 [n]; see `timing`."""
    return timing(path).ticks


def count_frames(path: str | Path | Clip) -> int:
    """Return about how many frames there are, by the packets: fast, and nearly always right.

    Raises UserError as `read_frames` does.
    """
    path = existing(path)
    if found := path.frames if isinstance(path, Clip) else _still_images(path):
        return len(found)
    times = [] if is_cut(path) or images.is_animation(path) else _packet_times(path)
    return len(times) or len(frame_times(path))


def _packet_times(path: Path) -> list[int | None]:
    """List the times of the packets from the first on that can be decoded by itself."""
    times, first = [], None
    with opened(path) as (container, stream), suppress(*ERRORS):  # decoding will tell
        for packet in clock.demux(container, [stream]):
            first = packet if first is None and packet.is_keyframe else first
            shown = first is not None and (packet.pts is None or packet.pts >= first.pts)
            if shown and packet.size and not packet.is_discard:
                times.append(packet.pts)
    return times


def _still_images(path: str | Path) -> list[Path]:
    """Return the files of a still image or of a sequence; none if it is neither."""
    if is_sequence(path):
        return list_sequence(path)
    return [path] if is_image(path) else []


def size_of(path: str | Path | Clip) -> int:
    """Return the size of a file, or of all images of a sequence, in bytes; 0 for a clip in memory."""
    if isinstance(path, Clip):
        return 0
    paths = list_sequence(path) if is_sequence(path) else [Path(path)]
    return sum(file.stat().st_size for file in paths)


def resize(frame: np.ndarray, width: int, height: int) -> np.ndarray:
    """Resize a uint8 frame [h, w, 3] or plane [h, w], bicubic; the same array if its size is unchanged."""
    if frame.shape[:2] == (height, width):
        return frame
    pixels = "rgb24" if frame.ndim == 3 else "gray"
    source = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format=pixels)
    return source.reformat(width, height, format=pixels, interpolation="BICUBIC").to_ndarray()
