"""Reveals a secret segment by segment.

frames -> their numbers in the stego -> header -> layers, from the most robust to the finest
-> the finest secret that can be read -> in order
"""

from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from itertools import takewhile
from operator import itemgetter
from typing import NamedTuple

import numpy as np

from deepsteg_jax import media
from deepsteg_jax.media.temporary import temporary_files
from deepsteg_jax.models import symbols as symbol_model
from deepsteg_jax.schemes import base
from deepsteg_jax.schemes.base import GREY, Metadata, Timed, ranges
from deepsteg_jax.schemes.robust import alignment, fine, header, levels
from deepsteg_jax.schemes.robust.geometry import Geometry
from deepsteg_jax.schemes.robust.layout import COARSE, FINE, SEGMENT
from deepsteg_jax.schemes.robust.modem import Modem, planes_of
from deepsteg_jax.schemes.robust.secret_layers import decode_layer, needs_below
from deepsteg_jax.schemes.robust.segment import Format, Reading, Segment
from deepsteg_jax.schemes.robust.sound import Packets, split

_KEPT = 2 * SEGMENT  # frames kept at most of those that were not found singly
_MOST_IN_SEGMENT = 4 * SEGMENT  # received frames of one: a picture may stand still without end


class _Received(NamedTuple):
    """A frame as it arrived."""

    luma: np.ndarray
    planes: tuple[np.ndarray, ...]  # see `Modem.reduced`
    pilots: np.ndarray  # as read, see `Modem.values`
    number: int | None  # in the stego, where that was found
    spacing: float | None


class Part(NamedTuple):
    """The part of the secret that one segment carries."""

    number: int
    metadata: Metadata
    frames: np.ndarray  # uint8 [n, h, w, 3]
    layers: int  # that could be read
    of: int  # layers that there are
    payload: int  # bytes of what could be read
    sound: Packets | None = None


def _not_found_at_end(received: list[_Received]) -> list[_Received]:
    """Return the frames after the last one that was found, in order."""
    return list(takewhile(lambda x: x.number is None, reversed(received)))[::-1]


class SegmentReceiver:
    """Reveals segments from frames as they come: some may be missing, come twice, or be coded again."""

    def __init__(self, modem: Modem, shared: Format, geometry: Geometry | None = None):
        """Take the modem, the sender's format, and where frames lie in the stego, if not as they are."""
        self._modem, self._format, self._geometry = modem, shared, geometry
        self._outside = np.array([], int)  # symbols of a frame that were not received
        self._finder = alignment.Finder(shared.layout, shared.repeats)
        self._segment, self._received = None, []

    def take(self, frame: base.Frame) -> list[Part]:
        """Take the next frame, RGB or planes; return the segments that it completes, in order."""
        planes = planes_of(frame)
        if self._geometry:
            whole = self._geometry.received(planes[0].shape)
            self._outside = np.flatnonzero(np.tile(~whole.ravel(), self._format.layout.symbols // whole.size))
        luma = planes[0]
        planes = self._geometry.rectify(planes) if self._geometry else self._modem.reduced(planes)
        pilots = self._modem.values(planes)[self._format.layout.pilots]
        number, spacing = self._finder.find(pilots) or (None, None)
        parts = self._add(_Received(luma, planes, pilots, number, spacing))
        lost = len(_not_found_at_end(self._received))
        if lost and lost % SEGMENT == 0:
            parts += self._find_lost()
            if len(_not_found_at_end(self._received)) == _KEPT:
                del self._received[-_KEPT:-SEGMENT]
        return parts

    def finish(self) -> list[Part]:
        """Return the segment at the end, as far as it was received."""
        return self._find_lost() + self._complete()

    def _add(self, received: _Received) -> list[Part]:
        """Append a frame; return the segment that ended before it, if one did."""
        parts, number = [], received.number
        if number is not None and number // SEGMENT != self._segment:
            parts, self._segment = self._complete(), number // SEGMENT
        if number is None or len(self._received) < _MOST_IN_SEGMENT:
            self._received.append(received)
        return parts

    def _find_lost(self) -> list[Part]:
        """Number the frames at the end that were not found singly, if all of them together can be."""
        lost = _not_found_at_end(self._received)
        found = self._finder.find_lost(np.stack([x.pilots for x in lost])) if lost else None
        if not found:
            return []
        start, spacing = found
        del self._received[-len(lost) :]
        numbered = (
            x._replace(number=start + i, spacing=spacing) for i, x in enumerate(lost) if start + i >= 0
        )
        return [part for x in numbered for part in self._add(x)]

    def _complete(self) -> list[Part]:
        """Read the segment from the frames received."""
        received, number = self._received, self._segment
        # Those that were not found at the end may belong to the next segment as well.
        self._segment = None
        self._received = _not_found_at_end(received)
        if number is None:
            return []
        part = self._read(number, received)
        return [] if part is None else [part]

    def _read(self, number: int, received: list[_Received]) -> Part | None:
        spacings = [x.spacing for x in received if x.spacing is not None]
        spacing, first, found = max(set(spacings), key=spacings.count), number * SEGMENT, []
        starts = range(first - len(received) + 1, first + SEGMENT)
        pilots = np.stack([x.pilots for x in received])
        start, _ = self._finder.together(pilots, starts, np.array([spacing])) or (None, None)
        for placed in alignment.alignments([x.number for x in received], start, first, SEGMENT):
            frames: dict[int, list[_Received]] = {}  # for each of the segment; some may come twice
            for i, at in sorted(placed.items()):
                frames.setdefault(at, []).append(received[i])
            found += self._with_header(first, frames, spacing)
        for _, found_header, reading, frames in sorted(found, key=itemgetter(0), reverse=True):
            if part := self._read_part(self._format.segment(number, found_header), reading, frames):
                return part
        return None

    def _with_header(self, first: int, frames: dict[int, list], spacing: float) -> list[tuple]:
        """Return (information, bits; header; symbols; `frames`) if frames so placed have a header."""
        for repeat in self._format.repeats:
            reading = self._read_symbols(first, frames, repeat, spacing)
            llr = self._format.header_llr(reading, range(SEGMENT))
            bits = header.decode(llr.reshape(SEGMENT, -1), self._format.master)
            found = None if bits is None else header.unpack(bits, repeat, self._format.master)
            if found is not None:
                return [(levels.expected_information(llr) * llr.size, found, reading, frames)]
        return []

    def _read_symbols(self, first: int, frames: dict[int, list], repeat: int, spacing: float) -> np.ndarray:
        """Read all groups of a segment, at their first frames, [3, SEGMENT, symbols]; see `Modem.read`."""
        groups: dict[int, list[tuple]] = {}
        for at, alike in frames.items():
            groups.setdefault(at // repeat * repeat, []).extend(x.planes for x in alike)
        there, here = sorted(groups), self._format.layout
        known = np.stack([levels.to_phases(here.reference_bits(first + i)) for i in there])
        inside = ~np.isin(here.references, self._outside)
        means = [[np.mean(plane, axis=0) for plane in zip(*groups[i], strict=True)] for i in there]
        means = tuple(map(np.stack, zip(*means, strict=True)))
        found = self._modem.read(means, spacing, here.references[inside], known[:, inside])
        nothing = np.array([0, symbol_model.MOST_SCALE, 1.0])  # of what is missing: all is lost
        found[:, :, self._outside] = nothing[:, None, None]
        reading = np.tile(nothing[:, None, None], (1, SEGMENT, found.shape[2]))
        for target, values in zip(reading, found, strict=True):
            target[there] = values
        return reading

    def _read_part(self, segment: Segment, reading: np.ndarray, frames: dict[int, list]) -> Part | None:
        metadata = segment.header.metadata
        flat = reading[:, np.array(segment.starts)].reshape(3, -1)
        messages = list(self._messages(segment, flat, frames))
        payload = sum(len(message) for message in messages if message)
        sound, messages = split(messages)
        shown, count = _shown(messages, (segment.header.length, metadata.height, metadata.width, 3))
        if shown is None:
            return None
        used = sum(capacity > 0 for capacity in segment.header.capacities)
        return Part(segment.number, metadata, shown, count, used, payload, sound)

    def _messages(self, segment: Segment, read: np.ndarray, frames) -> Iterator[bytes | None]:
        """Yield the message of each layer in use; None: it cannot be read."""
        filler, coarser_known = segment.filler().reshape(-1, levels.LEVELS), True
        reading = Reading(segment.format, read, filler)
        reading.know(COARSE, *segment.unused(filler))
        for i, (layer, symbols, capacity) in enumerate(
            zip(self._format.layers, segment.indices, segment.header.capacities, strict=False)
        ):
            if layer.levels == FINE:
                if capacity:
                    opened = segment.opened(i, self._fine_llr(segment, frames)[symbols].ravel())
                    yield opened and opened[0]
                continue
            finer, opened = not layer.coarse, None
            filler_bits = filler[symbols][:, np.array(layer.levels)].ravel()
            if not capacity:
                if finer and coarser_known:
                    reading.know(layer.levels, symbols, filler_bits)
                continue
            if coarser_known or not finer:
                opened = segment.opened(i, reading.llr(layer, symbols) * (1 - 2.0 * filler_bits))
            if opened:
                reading.know(layer.levels, symbols, opened[1] ^ filler_bits)
            coarser_known = coarser_known and opened is not None
            yield opened and opened[0]

    def _fine_llr(self, segment: Segment, frames: dict[int, list]) -> np.ndarray:
        """Return log-likelihood ratios of the bits added to all fine symbols, 0 for missing frames."""
        fine_symbols, length = self._format.fine, segment.header.length
        there = [] if self._geometry else [i for i in frames if i < length]
        llr = np.zeros((length, self._format.macroblocks * fine_symbols.count, fine.BITS))
        if there:
            known = segment.fine_filler().reshape(llr.shape)[there]
            luma = np.stack([frames[i][0].luma for i in there])
            found = fine_symbols.llr((luma,), known.reshape(-1, fine.BITS), segment.fine_pilots[: len(there)])
            llr[there] = found.reshape(known.shape) * (1 - 2.0 * known)
        return llr.reshape(-1, fine.BITS)


def _shown(read: Sequence[bytes | None], shape: tuple[int, ...]) -> tuple[np.ndarray | None, int]:
    """Return the finest secret in these messages or None, and the number of its layers.

    A refinement is of no use without the layer that it refines, the last one before it that is none.
    """
    whole = [i for i, message in enumerate(read) if message and not needs_below(message)]
    if not whole:
        return None, 0
    shown = decode_layer(read[whole[-1]], None, shape)
    finer = list(takewhile(lambda message: message is not None, read[whole[-1] + 1 :]))
    if finer:
        shown = decode_layer(finer[-1], shown, shape)
    return shown, _useful(read)


def _useful(messages: Sequence[bytes | None]) -> int:
    """Count the layers that show something: a refinement does not where the layer below it is lost."""
    count, unbroken = 0, False
    for message in messages:
        unbroken = message is not None and (unbroken or not needs_below(message))
        count += unbroken
    return count


class RobustReceiver(base.Receiver):
    """Puts the frames of segments in order and fills the gaps.

    The first segment that can be read has the secret's metadata; `listen` to frames until it is found.
    """

    def __init__(self, segments: SegmentReceiver, still: bool, note: str = ""):
        """Take the receiver of segments, and a note on the stego.

        `still`: it is an image, from which one frame comes out.
        """
        self.received = self.written = 0
        self.missing: list[int] = []  # frames that repeat the one before
        self._segments, self._still, self._ended = segments, still, False
        self._ready: list[Timed] = []
        self._note = (note,) if note else ()
        self._layers: set[tuple[int, int]] = set()
        self._sound = media.PacketWriter()

    @property
    def found(self) -> bool:
        """Whether something of the secret could be read."""
        return bool(self._layers)

    @property
    def complete(self) -> bool:
        """See `base.Receiver`."""
        return self.found and self._placed == self._frames

    @property
    def notes(self) -> tuple[str, ...]:
        """The number of layers that could be read, in words, and the note."""
        if not self.found:
            return ()
        counts = sorted({layers for layers, _ in self._layers})
        span = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
        return (f"{span} of {max(of for _, of in self._layers)} layers", *self._note)

    def listen(self, frame: base.Frame) -> None:
        """Take the next frame of the stego; `receive` or `finish` will give what it completes."""
        self.received += 1
        self._place(self._segments.take(frame))

    def end(self) -> None:
        """Take note that there are no more frames."""
        if not self._ended:
            self._ended = True
            self._place(self._segments.finish())

    def receive(self, frame: base.Frame) -> list[Timed]:
        """See `base.Receiver`."""
        self.listen(frame)
        return self._give()

    def finish(self) -> list[Timed]:
        """See `base.Receiver`; frames missing at the end of a whole stego repeat the last one."""
        if not self.complete:
            self.end()
        if self.found and self.received >= self._frames:
            self._fill(self._frames)
        return self._give()

    def sound(self) -> media.Sound | None:
        """See `base.Receiver`; silent where segments cannot be read."""
        with temporary_files():
            return self._sound.finish()

    def __exit__(self, *exception: object) -> None:
        """Remove the temporary file of the sound."""
        self._sound.close()

    def complaint(self, stego: str, output: str, damaged: Sequence[int]) -> str | None:
        """See `base.Receiver`; damage shows where segments cannot be read."""
        missing = ranges([number + 1 for number in self.missing])
        if not self.complete:
            gaps = f", and stands still in {missing}" if missing else ""
            return (
                f"{stego} is cut short, or its end cannot be read: {output} has the first {self._placed} of "
                f"{self._frames} frames{gaps}; get a complete copy of it"
            )
        if not missing:
            return None
        plural = "s" if len(self.missing) > 1 else ""
        return (
            f"{stego} cannot be read in frame{plural} {missing}: {output} has all {self._frames} frames, "
            "but stands still there; get a better copy of it"
        )

    @property
    def _frames(self) -> int:
        """The number of frames that come out."""
        return 1 if self._still else self.metadata.frames

    @property
    def _placed(self) -> int:
        return self.written + len(self._ready)

    def _place(self, parts: Iterable[Part]) -> None:
        """Append the frames of parts, repeating frames where some are missing before them."""
        for part in parts:
            if not self.found:
                self._start(part.metadata)
            period = -(-self.metadata.frames // SEGMENT)  # segments, after which the secret comes again
            begin = part.number % period * SEGMENT
            frames = part.frames[: max(0, self._frames - begin)]
            if begin < self._placed or not len(frames) or part.metadata != self.metadata:
                continue
            self._fill(begin)
            self._ready += [Timed(self.metadata.upright(frame)) for frame in frames]
            self._last = self._ready[-1]
            self._layers.add((part.layers, part.of))
            if part.sound:
                with temporary_files():
                    begins = Fraction(begin) / self.metadata.rate
                    self._sound.put(part.sound.number(begins), part.sound.packets)

    def _start(self, metadata: Metadata) -> None:
        self.metadata = metadata
        self._last = Timed(metadata.upright(np.full((metadata.height, metadata.width, 3), GREY, np.uint8)))

    def _fill(self, end: int) -> None:
        """Repeat the last frame up to frame `end`."""
        while self._placed < end:
            self.missing.append(self._placed)
            self._ready.append(self._last)

    def _give(self) -> list[Timed]:
        ready, self._ready = self._ready, []
        self.written += len(ready)
        return ready
