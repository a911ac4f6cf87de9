"""A video file that grows frame by frame, with sound and subtitles in step."""

from collections.abc import Iterable, Iterator
from contextlib import suppress
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from deepsteg_jax.media import images
from deepsteg_jax.media.codecs import RGB, Coding, Colour, encoder_tag, opening
from deepsteg_jax.media.container import url
from deepsteg_jax.media.damage import ERRORS, is_cut
from deepsteg_jax.media.formats import Format
from deepsteg_jax.media.outputs import check_aspect, check_size, destination, part_path
from deepsteg_jax.media.planes import Planes, to_picture
from deepsteg_jax.media.sound import Sound
from deepsteg_jax.media.tracks import Loop, SoundTrack, Tracks

_REORDERED = 1000  # ticks by which the first frame is decoded before it is shown


class VideoFile:
    """Coded video in a container, with the tracks of another file; for `Writer`."""

    def __init__(
        self,
        path: Path,
        row: Format,
        coding: Coding,
        colour: Colour,
        clock: tuple[Fraction, Fraction],
        aspect: Fraction | None,
        tracks: tuple[Path, Loop | None, bool] | None,
        end: Fraction | None = None,
    ):
        """Prepare; nothing is opened before the first frame.

        Args:
            path: of the finished file.
            row: its format.
            coding: of its pictures.
            colour: that they say they have.
            clock: frames per second, seconds of a tick.
            aspect: of a pixel, width over height; None: not said.
            tracks: the file whose tracks to copy, their repetitions, and whether its tags are left out.
            end: seconds, by the frames' times, until which the last frame is shown; None: as long as others.
        """
        check_aspect(path, coding, aspect)
        self._path, self._row = path, row
        self._goal = destination(path)
        self._part = part_path(self._goal)
        self._aspect, self._tracks_from = aspect, tracks
        self._coding, self._colour = coding, colour
        self._rate, self._time_base = clock
        self._tick, self._last = max(self._time_base, coding.finest_tick), None
        self._container = self._stream = self._tracks = self._set_aspect = None
        self._end, self._held = end, []

    def write(self, frame: np.ndarray | Planes, time: int) -> None:
        """Append a frame, uint8 RGB [h, w, 3] or planes, shown at `time` ticks."""
        picture = self._picture(frame)
        if self._container is None:
            self._open(picture.height, picture.width)
        if self._tracks:
            self._tracks.copy_until(time * self._time_base)
        picture.pts, picture.time_base = self._ticks(time), self._tick
        self._colour.put_on(picture)
        if self._set_aspect:
            self._set_aspect.push(picture)
            picture = self._set_aspect.pull()
        packets = self._held + self._stream.encode(picture)
        self._held = packets[-1:]  # the last one of the file is still to learn how long it is shown
        self._container.mux(packets[:-1])

    def _picture(self, frame: np.ndarray | Planes) -> av.VideoFrame:
        if isinstance(frame, Planes):
            return to_picture(frame, self._coding.pixel_format)
        picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format=RGB)
        return picture.reformat(format=self._coding.pixel_format)

    def _ticks(self, time: int) -> int:
        ticks = time if self._tick == self._time_base else round(time * self._time_base / self._tick)
        self._last = ticks if self._last is None else max(ticks, self._last + 1)
        return self._last

    def _open(self, height: int, width: int) -> None:
        check_size(self._path, self._coding, width, height)
        self._container = _create(self._part, self._row)
        self._stream = stream = self._coding.open(self._container, self._rate)
        context = stream.codec_context
        stream.width, stream.height, stream.pix_fmt = width, height, self._coding.pixel_format
        stream.time_base = context.time_base = self._tick
        context.thread_count = 2
        if self._end is not None and self._row.name in ("mp4", "mov"):
            context.max_b_frames = 0  # their durations are those of decoding
        self._colour.put_on(context)
        stream.metadata["encoder"] = encoder_tag(context.name)
        stream.disposition = av.stream.Disposition.default
        if self._aspect not in (None, 1):
            if self._coding.aspect == "frames":
                self._set_aspect = _aspect_filter(stream, self._aspect)
            else:
                context.sample_aspect_ratio = self._aspect
        if self._tracks_from is not None:
            self._tracks = Tracks(*self._tracks_from, self._container, stream, self._row)
        with opening():
            self._container.start_encoding()

    def _close(self) -> None:
        if self._tracks:
            self._tracks.copy_until(None)
        packets = self._held + self._stream.encode(None)
        if self._end is not None:
            last = max(packets, key=lambda packet: packet.pts)
            last.duration = max(1, round(self._end / last.time_base) - last.pts)
        self._container.mux(packets)
        self._container.close()
        self._container = None

    def add_sound(self, sound: Sound) -> None:
        """Put a track of sound beside the pictures, which are complete."""
        self._close()
        whole = part_path(self._goal)
        try:
            _join(self._part, sound, whole, self._row)
            whole.replace(self._part)
        finally:
            images.remove(whole)

    def finish(self) -> None:
        """Complete the file and give it its name."""
        if self._container is not None:
            self._close()
        if is_cut(self._part):  # a full disk that nobody reported
            raise OSError("the disk took only a part of it")
        self._part.replace(self._goal)

    def discard(self) -> None:
        """Close open files and remove an unfinished one."""
        if self._tracks:
            self._tracks.close()
        if self._container is not None:
            with suppress(*ERRORS, ValueError):
                self._container.close()
            self._container = None
        images.remove(self._part)


def _aspect_filter(stream: av.VideoStream, aspect: Fraction) -> "av.filter.Graph":
    """Stamp frames with the shape of their pixels, which FFV1 then writes into its slices."""
    graph = av.filter.Graph()
    source = graph.add_buffer(
        width=stream.width, height=stream.height, format=stream.pix_fmt, time_base=stream.time_base
    )
    stamp = graph.add("setsar", f"{aspect.numerator}/{aspect.denominator}")
    sink = graph.add("buffersink")
    source.link_to(stamp)
    stamp.link_to(sink)
    graph.configure()
    return graph


def _create(part: Path, row: Format) -> "av.container.OutputContainer":
    return av.open(url(part), "w", format=row.name, options=dict(row.options))


def _join(video: Path, sound: Sound, output: Path, row: Format) -> None:
    """Copy a video and a sound track into one file, in step."""
    with av.open(url(video)) as pictures, _create(output, row) as container:
        source = pictures.streams.video[0]
        stream = container.add_stream_from_template(source, opaque=True)  # a decoder has no encoder
        stream.time_base, stream.disposition = source.time_base, source.disposition
        with SoundTrack(sound, container, row) as track:
            for packet in _with_decoding_times(pictures.demux(source)):
                track.copy_until(packet.pts * packet.time_base)
                packet.stream = stream
                container.mux(packet)
            track.copy_until(None)


def _with_decoding_times(packets: Iterable[av.Packet]) -> Iterator[av.Packet]:
    """Yield packets; matroska does not tell when the first ones are decoded where frames are reordered."""
    last = None
    for packet in packets:
        if packet.size:
            last = packet.pts - _REORDERED if last is None else last + 1
            last = packet.dts = last if packet.dts is None else packet.dts
            yield packet
