"""Hides a secret segment by segment, each of them by itself.

cover + random symbols -> real codecs -> capacity of each layer
secret -> thumbnail or video in as many bytes, layer by layer -> sealed -> error-correcting code -> symbols
"""

import os
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
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
from deepsteg_jax.schemes.robust.secret_layers import LayerCoder
from deepsteg_jax.schemes.robust.segment import OVERHEAD, Format, Reading, Segment
from deepsteg_jax.schemes.robust.sound import SecretSound

GROWTH_CODEC = "CRF24"  # codec run that compares the stego's bits with the cover's
LEAST_CAPACITY = 20  # bytes; layers of less are left out
_UNEVEN = 0.5  # share that is used behind a bit rate, which is spent on some segments more than on others
_THUMBNAIL = 64  # bytes that show something
STILL_SALTS = 12  # tried for a single frame, which is quick
_ROOMY = 0.6  # share of the permitted bits below which fewer frames may share symbols again
_POOL = ThreadPoolExecutor(2, "codec run")


class Sent(NamedTuple):
    """A segment as it is sent."""

    segment: Segment
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


def _read_layer(layer: Layer, symbols, sent: np.ndarray, read: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return (log-likelihood ratios, bits) of a layer of all bits `sent`; coarser levels are known."""
    flat = sent.reshape(-1, levels.LEVELS)
    reading, everywhere = Reading(*read.reshape(3, -1)), np.arange(len(flat))
    reading.know(COARSE, everywhere, flat[:, :2])
    for level in range(2, layer.levels[0]):
        reading.know((level,), everywhere, flat[:, level : level + 1])
    return reading.llr(layer, symbols), flat[symbols][:, np.array(layer.levels)].ravel()


def _demodulated(modem: Modem, sent: Sent, frames: Frames) -> np.ndarray:
    """Demodulate the symbols of a segment in received frames, see `Modem.read`."""
    references, modulation = sent.segment.format.layout.references, sent.modulation
    planes = group_means(modem.reduced(planes_of(frames)), modulation.repeat)
    return modem.read(planes, modulation.spacing, references, levels.to_phases(sent.bits[:, references]))


class _Received:
    """A segment as received through codec runs, with the coarser layers known."""

    def __init__(self, sent: Sent, modem: Modem):
        self.sent, self._rate = sent, sent.segment.header.metadata.rate
        self._running: dict[str, Future] = {}
        self.chosen: dict[int, str] = {}  # codec run that each layer is to survive
        self._demodulated = cache(lambda name: _demodulated(modem, sent, self.through(name).frames))

    def through(self, name: str) -> ladder.Received:
        """Return what arrives through a codec run."""
        self.start([name])
        return self._running[name].result()

    def start(self, names: Iterable[str]) -> None:
        """Let these codec runs begin."""
        for name in names:
            if name not in self._running:
                run = _POOL.submit(ladder.run, ladder.named(name), self.sent.stego, self._rate)
                self._running[name] = run

    def codecs(self, i: int) -> list[str]:
        """Return the codec runs of layer `i` that change these frames as their names say."""
        size = jax.tree.leaves(self.sent.stego)[0].shape[1:3]
        runs = map(ladder.named, self.sent.segment.format.layers[i].codecs)
        return [run.name for run in runs if not run.lines or run.scale_of(*size) < 1]

    def read(self, i: int, codec: str) -> tuple[np.ndarray, np.ndarray]:
        """Return (log-likelihood ratios, bits) of layer `i` behind a codec run."""
        sent, segment_format = self.sent, self.sent.segment.format
        layer, symbols = segment_format.layers[i], sent.segment.indices[i]
        if layer.levels != FINE:
            return _read_layer(layer, symbols, sent.bits, self._demodulated(codec))
        planes = planes_of(self.through(codec).frames)
        llr = segment_format.fine.llr(planes, sent.fine_bits, sent.segment.fine_pilots)
        return llr[symbols].ravel(), sent.fine_bits[symbols].ravel()

    def has_header(self, codec: str) -> bool:
        """Return whether the header can be read."""
        segment = self.sent.segment
        llr = levels.coarse_llr(*self._demodulated(codec)[:, :, segment.format.layout.header])
        of_all = np.zeros((SEGMENT, llr[0].size))
        of_all[np.array(segment.starts)] = llr.reshape(len(llr), -1)
        return header.decode(of_all, segment.format.master) is not None


class SegmentSender:
    """Hides segments of at most SEGMENT frames, each like the one before it."""

    def __init__(self, config: ConfigDict, modem: Modem, shared: Format):
        """Take the whole config, the modem and the format `shared` with the receiver.

        Raises:
            UserError: the spacing, `growth` or `margin` makes no sense.
        """
        check(config)
        self._modem, self._format = modem, shared
        self._spacing = alignment.nearest_spacing(config.model.spacing)
        self._growth, self._margin = config.growth, config.margin
        self._coder, self._at = LayerCoder(), 0
        self.survives = False  # whether a segment can be read behind a codec

    def send(
        self,
        number: int,
        cover: Frames,
        secret: np.ndarray,
        metadata: Metadata,
        progress: Callable[[float], None] = lambda share: None,
        secret_sound: SecretSound | None = None,
    ) -> Sent:
        """Hide segment `number`.

        Args:
            number: of the segment in the stego.
            cover: RGB, uint8 [n, h, w, 3], or planes [n, ...], n <= SEGMENT.
            secret: uint8 [n, h', w', 3], of any size.
            metadata: of the secret.
            progress: called with the share of the work that is done.
            secret_sound: of the whole secret.

        Returns:
            The segment with its stego, which is like the cover.

        Raises:
            UserError: nothing fits into the first segment.
        """
        layers, length = self._format.layers, len(secret)
        plain = Header(_salt(), length, self._format.repeats[0], (0,) * len(layers), metadata)
        received = self._modulated(number, cover, plain)
        progress(0.3)
        capacities = self._capacities(received)
        self.survives = self.survives or self._is_readable(received, capacities)
        progress(0.6)
        rooms = [size - OVERHEAD for size in capacities]
        blocks = secret_sound.blocks(number, rooms) if secret_sound else [None] * len(rooms)
        rooms = [room - sound.size_of(block) for room, block in zip(rooms, blocks, strict=True)]
        messages = [*map(sound.attach, blocks, self._coder.encode(secret, rooms, metadata.rate))]
        progress(0.9)
        if not any(messages) and not number:  # a short last segment may well be empty
            raise UserError("nothing of the secret fits into this cover: use larger or more frames")
        # A message that does not fill its layer leaves more room to the code, which then corrects more.
        taken = [header.capacity_for(len(message) + OVERHEAD) if message else 0 for message in messages]
        capacities = tuple(map(min, taken, capacities))
        segment, modulation = received.sent.segment, received.sent.modulation
        salted = (
            self._send(segment.with_header(salt=_salt(), capacities=capacities), cover, modulation, messages)
            for _ in range(STILL_SALTS if length == 1 else 1)
        )
        return self._most_readable(salted) if length == 1 else next(salted)

    def phase_errors(self, sent: Sent, frames: Frames) -> np.ndarray:
        """Return the errors of the data symbols' phases, in turns, in what arrived of a segment's stego.

        Args:
            sent: from `send`.
            frames: as many as the stego has, and like them.

        Returns:
            [frames with symbols, data symbols], wrapped or not; without the fine symbols, which codecs erase.
        """
        phases, _, _ = _demodulated(self._modem, sent, frames)
        return (phases - levels.to_phases(sent.bits))[:, sent.segment.format.layout.data]

    def _send(self, segment: Segment, cover: Frames, modulation: Modulation, messages=()) -> Sent:
        bits, fine_bits = segment.filled(messages)
        stego = self._modem.write(cover, levels.to_phases(bits), modulation, segment.pilots())
        if segment.uses_fine:
            stego = self._format.fine.write(stego, fine_bits)
        return Sent(segment, modulation, stego, bits, fine_bits)

    def _modulated(self, number: int, cover: Frames, plain: Header) -> _Received:
        """Send filler, shared by as few frames as keeps H.264 of the stego within the limit on its growth.

        Symbols of every frame carry most where frames have to be coded anew anyway; where the cover stands
        still, shared ones cost less. The number that the last segment took is tried first.
        """
        repeats = self._format.repeats
        limited = self._growth and len(repeats) > 1 and plain.length > 1
        received = self._filled(number, cover, plain, repeats[self._at])
        if not limited:
            return received
        received.start([GROWTH_CODEC])
        run = ladder.run(ladder.named(GROWTH_CODEC), cover, plain.metadata.rate)
        most = self._growth * run.size_bytes
        size = received.through(GROWTH_CODEC).size_bytes
        while size > most and self._at < len(repeats) - 1:
            self._at += 1
            received = self._filled(number, cover, plain, repeats[self._at])
            size = received.through(GROWTH_CODEC).size_bytes
        if self._at and size < _ROOMY * most:
            self._at -= 1  # for the next segment
        return received

    def _filled(self, number: int, cover: Frames, plain: Header, repeat: int) -> _Received:
        segment = self._format.segment(number, plain._replace(repeat=repeat))
        return _Received(self._send(segment, cover, Modulation(self._spacing, repeat)), self._modem)

    def _capacities(self, received: _Received) -> list[int]:
        """Return the bytes that each layer can carry through its codec run, found by sending these bits.

        That is the first one that leaves room for a thumbnail, else the last one.
        """
        received.start(received.codecs(i)[0] for i in range(len(self._format.layers)))
        capacities = []
        for i in range(len(self._format.layers)):
            for name in received.codecs(i):
                if (capacity := self._capacity(received, i, name)) >= _THUMBNAIL:
                    break
            received.chosen[i] = name
            capacities.append(capacity if capacity >= LEAST_CAPACITY else 0)
        return capacities

    def _capacity(self, received: _Received, i: int, codec: str) -> int:
        """Return the bytes that layer `i` can carry through a codec run."""
        llr, bits = received.read(i, codec)
        size = code.reached_size(len(bits), levels.information(llr, bits))
        share = self._margin * (_UNEVEN if ladder.named(codec).has_bit_rate else 1)
        return header.capacity_within(int(share * size) // 8)

    def _is_readable(self, received: _Received, capacities: list[int]) -> bool:
        """Return whether a layer with a capacity has a codec run behind which the header can be read."""
        used = {received.chosen[i] for i, size in enumerate(capacities) if size}
        return any(received.has_header(codec) for codec in sorted(used) if not ladder.is_exact(codec))

    def _most_readable(self, salted: Iterable[Sent]) -> Sent:
        """Return the first segment whose coarse layers all survive their codec runs, else that with the most.

        What a codec leaves varies with every bit, on some covers much; another salt is another chance.
        """
        best, most = None, -1
        for sent in salted:
            received = _Received(sent, self._modem)
            capacities = sent.segment.header.capacities
            coarse = [
                i for i, layer in enumerate(self._format.layers) if layer.levels == COARSE and capacities[i]
            ]
            count = sum(
                _is_decoded(*received.read(i, received.codecs(i)[0]), 8 * capacities[i]) for i in coarse
            )
            if count > most:
                best, most = sent, count
            if most == len(coarse):
                break
        return best


def check(config: ConfigDict) -> None:
    """Raise UserError if `growth`, `margin`, `sound_share` or the spacing of a config makes no sense."""
    if not (config.growth >= 0 and 0 < config.margin <= 1):
        raise UserError("config.growth must be 0 or more, config.margin more than 0 and at most 1")
    alignment.nearest_spacing(config.model.spacing)
    sound.check(config.sound_share)


def _salt() -> bytes:
    return os.urandom(header.SALT_BYTES)


class RobustSender(base.Sender):
    """Collects the pairs of a segment and hides them together."""

    def __init__(
        self,
        segments: SegmentSender,
        metadata: Metadata,
        notes: tuple[str, ...] = (),
        secret_sound: SecretSound | None = None,
    ):
        """Take the sender of segments, the secret's metadata, notes for the user, and the secret's sound."""
        self.notes = notes
        self._segments, self._metadata, self._sound = segments, metadata, secret_sound
        self._pairs: list[Pair] = []
        self._number = 0

    def send(self, pair: Pair) -> list[np.ndarray]:
        """See `base.Sender`."""
        self._pairs.append(pair)
        return self._hide() if len(self._pairs) == SEGMENT else []

    def finish(self) -> list[np.ndarray]:
        """See `base.Sender`; raise UserError if no segment can be read behind a codec."""
        stego = self._hide() if self._pairs else []
        if not self._segments.survives:
            raise UserError("nothing outlasts a codec in this cover: use larger frames, with more in them")
        self.notes += self._sound.notes if self._sound else ()
        return stego

    def _hide(self) -> list[np.ndarray]:
        cover = media.stack([pair.cover for pair in self._pairs])
        secret, told = np.stack([pair.secret for pair in self._pairs]), 0

        def tell(share: float) -> None:
            nonlocal told
            frames = int(share * len(secret)) - told
            told += frames
            self.progress(frames)

        stego = self._segments.send(self._number, cover, secret, self._metadata, tell, self._sound).stego
        self._pairs, self._number = [], self._number + 1
        return media.unstack(stego)

    def __exit__(self, *exception: object) -> None:
        """Remove temporary files."""
        if self._sound:
            self._sound.close()
