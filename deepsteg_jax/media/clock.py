"""One clock for a file: the times of all its tracks on one line, whatever its packets say.

Recordings are joined end to end, and receivers lose the signal: then the times of a transport stream, a
program stream or an Ogg file start again, or leap. Such a file falls into *parts*. Each part follows the one
before it, as the ffmpeg program has it: the pictures go on without a gap, unless sound would overlap by more
than `BACK`. The clock of such a file is 0 where its first track starts.
"""

from collections import defaultdict
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import av
from av.format import Flags

from deepsteg_jax.media.damage import ERRORS

LEAP = 10  # seconds forward that begin a part, of the file as a whole (ffmpeg's -dts_delta_threshold)
BACK = Fraction(1, 10)  # seconds backward that begin a part, of a track


class Clock(NamedTuple):
    """The parts of a file."""

    begins: dict[int, list[int]]  # of each track: with which of its packets each part but the first begins
    shifts: list[Fraction]  # seconds by which each part comes later than it says


class Span(NamedTuple):
    """The time that a track takes in a part, in seconds."""

    start: Fraction
    end: Fraction


@dataclass
class _Part:
    front: Fraction  # seconds, to where its packets have come
    spans: dict[int, Span] = field(default_factory=dict)


@dataclass
class _Track:
    packets: int = 0
    part: int = 0
    begins: list[int] = field(default_factory=list)
    first_place: int | None = None  # in the file
    last_place: int | None = None
    last: Fraction | None = None  # seconds, when its last packet is decoded
    step: Fraction | None = None  # the least from one packet to the next in this part

    @property
    def end(self) -> Fraction:
        return self.last + (self.step or 0)


def clock_of(container: "av.container.InputContainer") -> Clock:
    """Return the clock of an open file."""
    if not container.format.flags & Flags.ts_discont.value:
        return Clock({}, [Fraction(0)])
    status = Path(container.name.removeprefix("file:")).stat()
    return _scanned(container.name, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=8)
def _scanned(name: str, size: int, changed: int) -> Clock:
    """Return the clock of a file whose times may jump, by all its packets."""
    tracks, parts = defaultdict(_Track), []
    with av.open(name, metadata_errors="replace", options={"protocol_whitelist": "file"}) as container:
        pictures = {track.index for track in container.streams.video}
        with suppress(*ERRORS):  # decoding will tell
            for packet in container.demux([*container.streams.video, *container.streams.audio]):
                track = tracks[packet.stream.index]
                track.packets += 1
                if packet.dts is not None:
                    _place(packet, tracks, parts)
    begins = {index: track.begins for index, track in tracks.items()}
    return Clock(begins, _shifts([part.spans for part in parts], pictures) or [Fraction(0)])


def _place(packet: "av.Packet", tracks: dict[int, _Track], parts: list[_Part]) -> None:
    """Put a packet into the part that it belongs to, a new one where its time jumps."""
    time, track = packet.dts * packet.time_base, tracks[packet.stream.index]
    part = _part_of(time, track, parts)
    if part == len(parts):
        parts.append(_Part(time))
        _move_new_tracks(track, tracks, parts)
    if part > track.part or track.last is None:
        track.step = None
    elif time > track.last:
        track.step = min(track.step or LEAP, time - track.last)
    track.begins += [track.packets - 1] * (part - track.part)
    track.first_place = packet.pos if track.last is None else track.first_place
    track.part, track.last = part, time
    track.last_place = packet.pos
    shown = time if packet.pts is None else packet.pts * packet.time_base
    end = shown + max(track.step or 0, (packet.duration or 0) * packet.time_base)
    span = parts[part].spans.get(packet.stream.index, Span(shown, end))
    parts[part].spans[packet.stream.index] = Span(min(span.start, shown), max(span.end, end))
    parts[part].front = max(parts[part].front, track.end)


def _move_new_tracks(jumped: _Track, tracks: dict[int, _Track], parts: list[_Part]) -> None:
    """Move tracks that began after the last packet of the one that jumped into the new part."""
    for index, track in tracks.items():
        if track.first_place and jumped.last_place and track.first_place > jumped.last_place:
            parts[-1].spans[index] = parts[track.part].spans.pop(index)
            track.begins += [0] * (len(parts) - 1 - track.part)
            track.part = len(parts) - 1


def _part_of(time: Fraction, track: _Track, parts: list[_Part]) -> int:
    newest = len(parts) - 1
    if newest < 0:
        return 0
    front = parts[newest].front
    if track.last is None:
        return newest + (abs(time - front) > LEAP)
    if track.part < newest:  # another track jumped: packets of the old part may still come
        return newest if abs(time - front) <= abs(time - track.end) else track.part
    return newest + (time < track.last - BACK or time > max(front, track.end) + LEAP)


def _shifts(parts: list[dict[int, Span]], pictures: set[int]) -> list[Fraction]:
    """Lay the parts one after the other."""
    shifts, ends = [], {}
    for part in parts:
        overlaps = {index: ends[index] - span.start for index, span in part.items() if index in ends}
        most = max(
            overlaps.values(), default=max(ends.values(), default=0) - min(s.start for s in part.values())
        )
        shift = next((overlaps[index] for index in overlaps if index in pictures), most)
        shift = most if most > shift + BACK else shift
        ends |= {index: span.end + shift for index, span in part.items()}
        shifts.append(Fraction(shift))
    return shifts


def demux(
    container: "av.container.InputContainer", streams: "list[av.stream.Stream]"
) -> "Iterator[av.Packet]":
    """Yield the packets of streams with their times by the file's clock; those of pictures out of order.

    Sound that an edit list hides is left out, but for what primes the decoder; so is a packet of sound that
    begins before the one before it, where joined sound overlaps.
    """
    clock, numbers, order = clock_of(container), defaultdict(int), defaultdict(_Order)
    for packet in container.demux(streams):
        index = packet.stream.index
        part = sum(begin <= numbers[index] for begin in clock.begins.get(index, ()))
        numbers[index] += 1
        shift = round(clock.shifts[part] / packet.time_base)
        packet.pts = None if packet.pts is None else packet.pts + shift
        packet.dts = None if packet.dts is None else packet.dts + shift
        if packet.stream.type == "video" or packet.dts is None:
            yield packet
        else:
            yield from order[index].take(packet)


class _Order:
    """Puts the packets of a track of sound or subtitles in order."""

    def __init__(self) -> None:
        self._last, self._step, self._hidden = None, 0, []

    def take(self, packet: "av.Packet") -> "Iterator[av.Packet]":
        """Yield the packets to use for a packet."""
        is_sound = packet.stream.type == "audio"
        if is_sound and packet.is_discard:
            self._hidden.append(packet)
            return
        first = packet.dts - _priming(self._hidden[-1]) if self._hidden else 0
        for following in *(hidden for hidden in self._hidden if hidden.dts >= first), packet:
            if self._last is not None:
                free = self._last + min(self._step, following.duration or 0) // 2
                if is_sound and following.dts < free:
                    continue
                following.dts = max(following.dts, self._last)
                self._step = following.dts - self._last
            self._last = following.dts
            yield following
        self._hidden = []


def _priming(packet: "av.Packet") -> int:
    """Return how long a decoder runs before what it gives is right, in ticks of a packet of the track."""
    context = packet.stream.codec_context
    if context is not None and context.name in ("opus", "libopus"):
        return round(opus_delay(context) / packet.time_base)
    return packet.duration or 0


def opus_delay(context: "av.AudioCodecContext") -> Fraction:
    """Return the seconds at the start of a track of Opus that are not heard (RFC 7845, 5.1)."""
    return Fraction(int.from_bytes((context.extradata or bytes(12))[10:12], "little"), 48_000)
