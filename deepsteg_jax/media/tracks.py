"""Sound and subtitle tracks on their way from one file into another, in step with its video."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import av

from deepsteg_jax.errors import UserError
from deepsteg_jax.media.clock import demux
from deepsteg_jax.media.container import open_input, video_stream
from deepsteg_jax.media.damage import ERRORS
from deepsteg_jax.media.formats import Format
from deepsteg_jax.media.images import is_pictures, shown
from deepsteg_jax.media.routes import ATTACH, CODE, add_copy, routes
from deepsteg_jax.media.sound import Recoder, Sound


class Loop(NamedTuple):
    """The repetitions of the tracks of a file."""

    passes: int
    seconds: Fraction  # of one pass
    end: Fraction | None  # seconds, of the last pass
    start: Fraction = Fraction(0)  # when the first frame is shown, in seconds by the file's clock


class Tracks:
    """The sound and subtitle packets of a file, handed to an output container in step with its video."""

    def __init__(
        self,
        path: Path,
        loop: Loop | None,
        drop_tags: bool,
        output: "av.container.OutputContainer",
        video: "av.VideoStream",
        row: Format,
    ):
        """Add the file's tracks, tags and chapters to `output`; raise UserError as `routes` does."""
        self._path, self._loop, self._output = path, loop or Loop(1, Fraction(0), None), output
        self._map, self._next_packet, self._input = {}, None, None
        self._packets = iter(())
        if is_pictures(path):
            return
        self._input = open_input(path)
        tags = _language if drop_tags else _tags
        for index, way in routes(path, row).ways.items():
            track = self._input.streams[index]
            if way == ATTACH:
                output.add_stream_from_template(track)
                continue
            copy = Recoder(track, output, row.tracks.encoder) if way == CODE else _Copy(track, output)
            copy.stream.disposition = track.disposition
            copy.stream.metadata.update(tags(track.metadata, coded_anew=way == CODE))
            self._map[track.index] = copy
        output.metadata.update(tags(self._input.metadata))
        with suppress(ValueError):
            output.set_chapters([c | {"metadata": tags(c["metadata"])} for c in self._input.chapters()])
        source = video_stream(self._input)
        if source is not None:
            video.metadata.update(tags(source.metadata))
        if self._map:
            self._packets = self._all_passes()

    def copy_until(self, end: Fraction | None) -> None:
        """Copy the packets that start before `end` seconds; None: all that are left."""
        while (packet := self._peek()) is not None:
            if end is not None and packet.dts * packet.time_base >= end:
                return
            self._next_packet = None
            track = self._map[packet.stream.index]
            with self._complaining():
                coded = track.take(packet)
            self._output.mux(coded)
        if end is None:
            for track in self._map.values():
                with self._complaining():
                    coded = track.finish()
                self._output.mux(coded)

    def close(self) -> None:
        """Close the input."""
        if self._input is not None:
            self._input.close()
            self._input = None

    def _peek(self) -> "av.Packet | None":
        while self._next_packet is None:
            with self._complaining():
                self._next_packet = next(self._packets, None)
            if self._next_packet is None:
                return None
        return self._next_packet

    @contextmanager
    def _complaining(self):
        try:
            yield
        except ERRORS as error:
            raise UserError(
                f"a sound or subtitle track of {shown(self._path)} is damaged: remove it first"
            ) from error

    def _all_passes(self) -> Iterator["av.Packet"]:
        for number in range(self._loop.passes):
            if number:
                self._input.close()
                self._input = open_input(self._path)
            wanted = [self._input.streams[track] for track in self._map]
            last = number == self._loop.passes - 1
            end = self._loop.end if last else self._loop.seconds
            for packet in demux(self._input, wanted):
                if packet.dts is None:  # the empty packet at the end of a track
                    continue
                time = packet.dts * packet.time_base - self._loop.start
                if (number and time < 0) or (end is not None and time >= end):
                    continue
                shift = round(number * self._loop.seconds / packet.time_base)
                packet.dts += shift
                packet.pts = packet.dts if packet.pts is None else packet.pts + shift
                yield packet


class _Copy:
    """A track whose packets go into the output as they are."""

    def __init__(self, track: "av.stream.Stream", output: "av.container.OutputContainer"):
        self.stream = add_copy(track, output)

    def take(self, packet: "av.Packet") -> "list[av.Packet]":
        """Return the packets to write for a packet of the track."""
        packet.stream = self.stream
        return [packet]

    def finish(self) -> "list[av.Packet]":
        """Return the remaining packets."""
        return []


def _language(metadata: dict[str, str], coded_anew: bool = True) -> dict[str, str]:
    """Return the one tag of a track that says nothing of who made it where, when and with what."""
    return {name: text for name, text in metadata.items() if name.lower() == "language"}


def _tags(metadata: dict[str, str], coded_anew: bool = True) -> dict[str, str]:
    """Return the tags that the ffmpeg program would copy."""
    dropped = ("duration", "creation_time", "company_name", "product_name", "product_version")
    dropped += ("encoder",) * coded_anew
    return {name: text for name, text in metadata.items() if name.lower() not in dropped}


class SoundTrack:
    """The packets of a `Sound`, handed to an output container in step with its video.

    Phones play no Opus out of the containers that have AAC for all other sound: there it is coded anew.
    """

    def __init__(self, sound: Sound, output: "av.container.OutputContainer", row: Format):
        self._start, self._output = sound.start, output
        self._input = av.open(sound.file, format="ogg")
        source, encoder = self._input.streams.audio[0], row.tracks.encoder
        self._track = Recoder(source, output, encoder) if encoder == "aac" else _Copy(source, output)
        self._packets = (packet for packet in self._input.demux(source) if packet.dts is not None)
        self._next_packet = None

    def __enter__(self) -> "SoundTrack":
        """Return itself."""
        return self

    def __exit__(self, *exception) -> None:
        """Close the Ogg file."""
        self._input.close()

    def copy_until(self, end: Fraction | None) -> None:
        """Copy the packets that start before `end` seconds; None: all that are left."""
        while (packet := self._next_packet or next(self._packets, None)) is not None:
            self._next_packet = packet
            if end is not None and (packet.pts + self._start) * packet.time_base >= end:
                return
            packet.pts += self._start
            packet.dts, self._next_packet = packet.pts, None
            with suppress(*ERRORS):  # a damaged packet is a gap
                self._output.mux(self._track.take(packet))
        if end is None:
            with suppress(*ERRORS):
                self._output.mux(self._track.finish())
