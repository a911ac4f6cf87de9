"""Hides a secret segment by segment, each of them by itself.

cover + random symbols -> real codecs -> capacity of each layer
secret -> thumbnail or video in as many bytes, layer by layer -> sealed -> error-correcting code -> symbols
"""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache, partial
from itertools import islice, zip_longest
from typing import NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from deepsteg_jax import media
from deepsteg_jax.channels import ladder
from deepsteg_jax.errors import UserError
from deepsteg_jax.models.symbols import Frames, group_means
from deepsteg_jax.schemes import base
from deepsteg_jax.schemes.base import Metadata, Pair
from deepsteg_jax.schemes.robust import alignment, code, header, levels, sound
from deepsteg_jax.schemes.robust.header import Header
from deepsteg_jax.schemes.robust.layout import COARSE, FINE, SEGMENT, Layer
from deepsteg_jax.schemes.robust.modem import Modem, Modulation, planes_of
from deepsteg_jax.schemes.robust.secret_layers import MOST_THUMBNAIL, LayerCoder
from deepsteg_jax.schemes.robust.segment import OVERHEAD, Format, Reading, Segment
from deepsteg_jax.schemes.robust.sound import SecretSound

GROWTH_CODEC = "CRF24"  # codec run that compares the stego's bits with the cover's
LEAST_CAPACITY = 20  # bytes; layers of less are left out
_UNEVEN = 0.5  # share that is used behind a bit rate, see `_share_kept`
_THUMBNAIL = 64  # bytes that show something
_LEAST_THUMBNAIL = 40  # that show a little, for sites, which change most
STILL_SALTS = 12  # tried for a single frame, which is quick
_ROOMY = 0.6  # share of the permitted bits below which fewer frames may share symbols again
_POOL = ThreadPoolExecutor(2, "codec run")


class Secret(NamedTuple):
    """The content of a slot in one segment."""

    frames: np.ndarray  # uint8 [n, h, w, 3], of any size
    metadata: Metadata  # of the whole secret, as its sound
    sound: SecretSound | None = None


class Sent(NamedTuple):
    """A segment as it is sent."""

    segments: tuple[Segment, ...]  # as each slot has it
    modulation: Modulation
    stego: Frames  # uint8
    bits: np.ndarray  # see `Segment.filled`
    fine_bits: np.ndarray


def _is_decoded(llr: np.ndarray, bits: np.ndarray, size: int) -> bool:
    """Return whether these received bits are decoded if they are the code of `size` message bits.

    The code is linear: every codeword is decoded as well as that of zeros.
    """
    found = code.build(len(bits), size).decode(llr * (1 - 2.0 * bits))
    return found is not None and not found.any()


def _read_layer(
    shared: Format, layer: Layer, symbols, sent: np.ndarray, read: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return (log-likelihood ratios, bits) of a layer of all bits `sent`; coarser levels are known."""
    flat = sent.reshape(-1, levels.LEVELS)
    reading, everywhere = Reading(shared, read.reshape(3, -1), flat), np.arange(len(flat))
    reading.know(COARSE, everywhere, flat[:, :2])
    for level in range(2, layer.levels[0]):
        reading.know((level,), everywhere, flat[:, level : level + 1])
    return reading.llr(layer, symbols), flat[symbols][:, np.array(layer.levels)].ravel()


def _demodulated(modem: Modem, sent: Sent, slot: int, frames: Frames) -> np.ndarray:
    """Demodulate the symbols of a segment in received frames, as in a slot, see `Modem.read`."""
    references, modulation = sent.segments[slot].format.layout.references, sent.modulation
    planes = group_means(modem.reduced(planes_of(frames)), modulation.repeat)
    return modem.read(planes, modulation.spacing, references, levels.to_phases(sent.bits[:, references]))


class _Runs:
    """The codec runs of a segment."""

    def __init__(self, sent: Sent):
        self._stego, self._rate = sent.stego, sent.segments[0].header.metadata.rate
        self._running: dict[str, Future] = {}

    def through(self, name: str) -> ladder.Received:
        """Return what arrives through a codec run."""
        self.start([name])
        return self._running[name].result()

    def frames(self, name: str) -> Frames:
        """Return the frames that arrive through a codec run."""
        return self._stego if self._keeps(name) else self.through(name).frames

    def start(self, names: Iterable[str]) -> None:
        """Let these codec runs begin."""
        for name in names:
            if not (name in self._running or self._keeps(name)):
                run = _POOL.submit(ladder.run, ladder.named(name), self._stego, self._rate)
                self._running[name] = run

    def _keeps(self, name: str) -> bool:
        """Return whether a codec run keeps every sample, so that nothing needs to be run."""
        in_planes = isinstance(self._stego, media.Planes)
        return in_planes and ladder.is_exact(name) and ladder.named(name).pixel_format == "yuv420p"


class _Received:
    """A segment as one slot receives it through codec runs, with the coarser layers known."""

    def __init__(self, sent: Sent, slot: int, modem: Modem, runs: _Runs):
        self.sent, self.segment, self.runs = sent, sent.segments[slot], runs
        self.chosen: dict[int, str] = {}  # codec run that each layer is to survive
        self._demodulated = cache(lambda name: _demodulated(modem, sent, slot, runs.frames(name)))

    def codecs(self, i: int) -> list[str]:
        """Return the codec runs of layer `i` that change these frames as their names say, or the last one."""
        size, names = jax.tree.leaves(self.sent.stego)[0].shape[1:3], self.segment.format.layers[i].codecs
        runs = map(ladder.named, names)
        return [run.name for run in runs if not run.lines or run.scale_of(*size) < 1] or [names[-1]]

    def read(self, i: int, codec: str) -> tuple[np.ndarray, np.ndarray]:
        """Return (log-likelihood ratios, bits) of layer `i` behind a codec run."""
        sent, segment_format = self.sent, self.segment.format
        layer, symbols = segment_format.layers[i], self.segment.indices[i]
        if layer.levels != FINE:
            return _read_layer(segment_format, layer, symbols, sent.bits, self._demodulated(codec))
        planes = planes_of(self.runs.frames(codec))
        llr = segment_format.fine.llr(planes, sent.fine_bits, self.segment.fine_pilots)
        return llr[symbols].ravel(), sent.fine_bits[symbols].ravel()

    def has_header(self, codec: str) -> bool:
        """Return whether the header can be read."""
        segment = self.segment
        llr = segment.format.header_llr(self._demodulated(codec), segment.starts)
        of_all = np.zeros((SEGMENT, llr[0].size))
        of_all[np.array(segment.starts)] = llr.reshape(len(llr), -1)
        return header.decode(of_all, segment.format.master) is not None


class SegmentSender:
    """Hides segments of at most SEGMENT frames, each like the one before it."""

    def __init__(self, config: ConfigDict, modem: Modem, formats: Sequence[Format]):
        """Take the whole checked config, the modem and the format of each slot, shared with its receiver."""
        self._modem, self._formats = modem, formats
        self._spacing = alignment.nearest_spacing(config.model.spacing)
        self._growth, self._margin = config.growth, config.margin
        self._coders, self._at = [LayerCoder() for _ in formats], 0
        self._share = 1.0  # of the permitted bits that the last measured segment took
        self.survives = False  # whether a segment can be read behind a codec, in every slot

    def send(
        self,
        number: int,
        cover: Frames,
        secrets: Sequence[Secret],
        progress: Callable[[float], None] = lambda share: None,
    ) -> Sent:
        """Hide segment `number`.

        Args:
            number: of the segment in the stego.
            cover: RGB, uint8 [n, h, w, 3], or planes [n, ...], n <= SEGMENT.
            secrets: of each slot, of n frames.
            progress: called with the share of the work that is done.

        Returns:
            The segment with its stego, which is like the cover.

        Raises:
            UserError: nothing fits into the first segment.
        """
        layers, length = self._formats[0].layers, len(secrets[0].frames)
        repeat, nothing = self._formats[0].repeats[0], (0,) * len(layers)
        plain = [Header(_salt(), length, repeat, nothing, secret.metadata) for secret in secrets]
        received = self._modulated(number, cover, plain)
        progress(0.3)
        capacities = [self._capacities(slot) for slot in received]
        self.survives = self.survives or all(map(self._is_readable, received, capacities))
        progress(0.6)
        messages = list(map(partial(_messages, number), self._coders, secrets, capacities))
        progress(0.9)
        if not all(map(any, messages)) and not number:  # a short last segment may well be empty
            raise UserError("nothing of the secret fits into this cover: use larger or more frames")
        segments = [
            slot.segment.with_header(capacities=_taken(*of_slot))
            for slot, *of_slot in zip(received, capacities, messages, strict=True)
        ]
        salted = (
            self._send(
                [segment.with_header(salt=_salt()) for segment in segments],
                cover,
                received[0].sent.modulation,
                messages,
            )
            for _ in range(STILL_SALTS if length == 1 else 1)
        )
        chosen = [slot.chosen for slot in received]
        return self._most_readable(salted, chosen) if length == 1 else next(salted)

    def phase_errors(self, sent: Sent, frames: Frames) -> np.ndarray:
        """Return the errors of the data symbols' phases, in turns, in what arrived of a segment's stego.

        Args:
            sent: from `send`, with one slot.
            frames: as many as the stego has, and like them.

        Returns:
            [frames with symbols, data symbols], wrapped or not; without the fine symbols, which codecs erase.
        """
        phases, _, _ = _demodulated(self._modem, sent, 0, frames)
        return (phases - levels.to_phases(sent.bits))[:, sent.segments[0].format.layout.data]

    def _send(
        self, segments: Sequence[Segment], cover: Frames, modulation: Modulation, messages: Sequence = ()
    ) -> Sent:
        first, *others = (
            segment.filled(of_slot) for segment, of_slot in zip_longest(segments, messages, fillvalue=())
        )
        bits, fine_bits = first
        for segment, (theirs, fine_theirs) in zip(segments[1:], others, strict=True):
            own, fine_own = segment.own(), segment.fine_own()
            bits[:, own], fine_bits[fine_own] = theirs[:, own], fine_theirs[fine_own]
        symbols, phases = zip(*(segment.pilots() for segment in segments), strict=True)
        pilots = np.concatenate(symbols), np.concatenate(phases, axis=1)
        stego = self._modem.write(cover, levels.to_phases(bits), modulation, pilots)
        if segments[0].uses_fine:
            stego = self._formats[0].fine.write(stego, fine_bits)
        return Sent(tuple(segments), modulation, stego, bits, fine_bits)

    def _modulated(self, number: int, cover: Frames, plain: Sequence[Header]) -> list[_Received]:
        """Send filler, shared by as few frames as keeps H.264 of the stego within the limit on its growth.

        Symbols of every frame carry most where frames have to be coded anew anyway; where the cover stands
        still, shared ones cost less. The number that the last segment took is tried first. While segments
        stay far below the limit, every second one is not measured.
        """
        repeats = self._formats[0].repeats
        limited = self._growth and len(repeats) > 1 and plain[0].length > 1
        limited = limited and (self._at > 0 or self._share > _ROOMY or number % 2 == 0)
        received = self._filled(number, cover, plain, repeats[self._at])
        if not limited:
            return received
        received[0].runs.start([GROWTH_CODEC])
        run = ladder.run(ladder.named(GROWTH_CODEC), cover, plain[0].metadata.rate)
        most = self._growth * run.size_bytes
        size = received[0].runs.through(GROWTH_CODEC).size_bytes
        while size > most and self._at < len(repeats) - 1:
            self._at += 1
            received = self._filled(number, cover, plain, repeats[self._at])
            size = received[0].runs.through(GROWTH_CODEC).size_bytes
        self._share = size / most
        if self._at and self._share < _ROOMY:
            self._at -= 1  # for the next segment
        return received

    def _filled(self, number: int, cover: Frames, plain: Sequence[Header], repeat: int) -> list[_Received]:
        segments = [
            shared.segment(number, header._replace(repeat=repeat))
            for shared, header in zip(self._formats, plain, strict=True)
        ]
        return self._received(self._send(segments, cover, Modulation(self._spacing, repeat)))

    def _received(self, sent: Sent) -> list[_Received]:
        """Return a segment as each slot receives it."""
        runs = _Runs(sent)
        return [_Received(sent, slot, self._modem, runs) for slot in range(len(sent.segments))]

    def _capacities(self, received: _Received) -> list[int]:
        """Return the bytes that each layer can carry through its codec runs, found by sending these bits."""
        count = len(self._formats[0].layers)
        received.runs.start(received.codecs(i)[0] for i in range(count))
        capacities = []
        for i in range(count):
            capacity, received.chosen[i] = self._capacity(received, i)
            capacities.append(capacity if capacity >= LEAST_CAPACITY else 0)
        return capacities

    def _capacity(self, received: _Received, i: int) -> tuple[int, str]:
        """Return the bytes that layer `i` is to carry, and through which codec run.

        Of sites that leave room for a thumbnail the worst, else the first run that does, or for a video in
        other layers than the first, else the last run.
        """
        codecs = received.codecs(i)
        sites = [codec for codec in codecs if ladder.named(codec).bit_rate]
        received.runs.start(sites)
        for together in (sites, *([codec] for codec in codecs if codec not in sites)):
            found = [(self._capacity_through(received, i, codec), codec) for codec in together]
            least = _LEAST_THUMBNAIL if together is sites else MOST_THUMBNAIL if i else _THUMBNAIL
            if enough := [one for one in found if one[0] >= least]:
                return min(enough)
        return found[-1]

    def _capacity_through(self, received: _Received, i: int, codec: str) -> int:
        """Return the bytes that layer `i` can carry through a codec run."""
        llr, bits = received.read(i, codec)
        size = code.reached_size(len(bits), levels.information(llr, bits))
        share = self._margin * _share_kept(received, codec)
        return header.capacity_within(int(share * size) // 8)

    def _is_readable(self, received: _Received, capacities: list[int]) -> bool:
        """Return whether a layer with a capacity has a codec run behind which the header can be read."""
        used = {received.chosen[i] for i, size in enumerate(capacities) if size}
        return any(received.has_header(codec) for codec in sorted(used) if not ladder.is_exact(codec))

    def _most_readable(self, salted: Iterable[Sent], chosen: Sequence[dict[int, str]]) -> Sent:
        """Return the first segment whose coarse layers all survive their codec runs, else that with the most.

        What a codec leaves varies with every bit, on some covers much; another salt is another chance.
        `chosen`: the codec runs of each slot's layers.
        """
        best, most = None, -1
        for sent in salted:
            coarse = [
                (slot, i, codecs[i], 8 * capacity)
                for slot, codecs in zip(self._received(sent), chosen, strict=True)
                for i, capacity in enumerate(slot.segment.header.capacities)
                if capacity and slot.segment.format.layers[i].coarse
            ]
            count = sum(_is_decoded(*slot.read(i, codec), size) for slot, i, codec, size in coarse)
            if count > most:
                best, most = sent, count
            if most == len(coarse):
                break
        return best


def _share_kept(received: _Received, codec: str) -> float:
    """Return the share of a segment's capacity, coded by itself, that is left where it is part of a stream.

    An encoder with a bit rate spends too much at the start of a stream, some of them twice as much, or too
    little, and later more on some segments than on others.
    """
    due = ladder.named(codec).bit_rate
    if not due:
        return 1
    about = received.segment.header
    spent = ladder.bit_rate(received.runs.through(codec).size_bytes, about.length, about.metadata.rate)
    return _UNEVEN * due / spent


def _messages(number: int, coder: LayerCoder, secret: Secret, capacities: Sequence[int]) -> list[bytes]:
    """Return the messages of the layers of a segment in a slot, sound and pictures."""
    rooms = [size - OVERHEAD for size in capacities]
    blocks = secret.sound.blocks(number, rooms) if secret.sound else [None] * len(rooms)
    rooms = [room - sound.size_of(block) for room, block in zip(rooms, blocks, strict=True)]
    return [*map(sound.attach, blocks, coder.encode(secret.frames, rooms, secret.metadata.rate))]


def _taken(capacities: Sequence[int], messages: Sequence[bytes]) -> tuple[int, ...]:
    """Return the bytes that layers take of their capacities; what is left makes the code correct more."""
    taken = [header.capacity_for(len(message) + OVERHEAD) if message else 0 for message in messages]
    return tuple(map(min, taken, capacities))


def check(config: ConfigDict) -> None:
    """Raise UserError if `growth`, `margin`, `sound_share` or the spacing of a config makes no sense."""
    if not (config.growth >= 0 and 0 < config.margin <= 1):
        raise UserError("config.growth must be 0 or more, config.margin more than 0 and at most 1")
    alignment.nearest_spacing(config.model.spacing)
    sound.check(config.sound_share)


def _salt() -> bytes:
    return os.urandom(header.SALT_BYTES)


class RobustSender(base.Sender):
    """Collects the frames of a segment and hides in them together."""

    def __init__(
        self,
        segments: SegmentSender,
        metadata: Sequence[Metadata],
        sounds: Sequence[SecretSound | None],
        notes: tuple[str, ...] = (),
        streams: Sequence[Iterator[np.ndarray]] = (),
    ):
        """Take what hides segments, and of every slot the secret's metadata, sound and frames.

        Args:
            segments: hides them.
            metadata: of each secret.
            sounds: of each secret.
            notes: for the user.
            streams: of frames without end, of each secret; none: pairs bring those of the only one.
        """
        self.notes, self.announcement = notes, f"{len(streams)} slots" if streams else ""
        self._segments, self._metadata, self._sounds = segments, metadata, sounds
        self._streams, self._number = streams, 0
        self._pairs: list[Pair] = []

    def send(self, pair: Pair) -> list[np.ndarray]:
        """See `base.Sender`."""
        self._pairs.append(pair)
        return self._hide() if len(self._pairs) == SEGMENT else []

    def finish(self) -> list[np.ndarray]:
        """See `base.Sender`; raise UserError if no segment can be read behind a codec."""
        stego = self._hide() if self._pairs else []
        if not self._segments.survives:
            raise UserError("nothing outlasts a codec in this cover: use larger frames, with more in them")
        if not self._streams and self._sounds[0]:
            self.notes += self._sounds[0].notes
        return stego

    def _hide(self) -> list[np.ndarray]:
        cover, count, told = media.stack([pair.cover for pair in self._pairs]), len(self._pairs), 0
        shown = [islice(stream, count) for stream in self._streams] or [(x.secret for x in self._pairs)]
        shown = [np.stack(list(frames)) for frames in shown]
        secrets = list(map(Secret, shown, self._metadata, self._sounds))

        def tell(share: float) -> None:
            nonlocal told
            frames = int(share * count) - told
            told += frames
            self.progress(frames)

        stego = self._segments.send(self._number, cover, secrets, tell).stego
        self._pairs, self._number = [], self._number + 1
        return media.unstack(stego)

    def __exit__(self, *exception: object) -> None:
        """Remove temporary files."""
        for secret_sound in filter(None, self._sounds):
            secret_sound.close()
