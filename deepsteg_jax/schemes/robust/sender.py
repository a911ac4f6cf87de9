"""Hides a secret segment by segment, each of them by itself.

cover + random symbols -> real codecs -> capacity of each layer
secret -> thumbnail or AV1 in as many bytes, layer by layer -> sealed -> error-correcting code -> symbols
"""

import os
from collections.abc import Iterable
from functools import cache
from operator import attrgetter
from typing import NamedTuple

import numpy as np
from ml_collections import ConfigDict

from deepsteg_jax.channels import ladder
from deepsteg_jax.errors import UserError
from deepsteg_jax.schemes import base
from deepsteg_jax.schemes.base import Metadata, Pair
from deepsteg_jax.schemes.robust import alignment, code, header, levels
from deepsteg_jax.schemes.robust.header import Header
from deepsteg_jax.schemes.robust.layout import COARSE, FINE, SEGMENT, Layer
from deepsteg_jax.schemes.robust.modem import Modem, Modulation, luma_of, repeated_means
from deepsteg_jax.schemes.robust.secret_layers import encode_layers
from deepsteg_jax.schemes.robust.segment import OVERHEAD, Format, Reading, Segment

GROWTH_CODEC = "C6"  # codec run that compares the stego's bits with the cover's
LEAST_INFORMATION = 0.012  # bits per pixel from which on a secret is recognisable
LEAST_CAPACITY = 20  # bytes; layers of less are left out
SALTS, STILL_SALTS = 3, 12  # tried for a segment, and for a single frame, which is quick
_SMALLER = 0.95  # factor to the next size after one that cannot be decoded


class Sent(NamedTuple):
    """A segment as it is sent."""

    segment: Segment
    modulation: Modulation
    stego: np.ndarray  # uint8 [n, h, w, 3]
    bits: np.ndarray  # see `Segment.filled`
    fine_bits: np.ndarray


class _Trial(NamedTuple):
    """The result of a trial of a modulation."""

    modulation: Modulation
    size_bytes: int  # of the stego as H.264
    bits: float  # of information that arrived


def _choose(trials: list[_Trial], most: float, least: float) -> _Trial:
    """Choose the richest trial within `most` bytes; if none has `least` bits, the cheapest that has."""
    rich = [trial for trial in trials if trial.bits >= least]
    if fitting := [trial for trial in rich or trials if trial.size_bytes <= most]:
        return max(fitting, key=attrgetter("bits"))
    return min(rich, key=attrgetter("size_bytes")) if rich else max(trials, key=attrgetter("bits"))


def _is_decoded(llr: np.ndarray, bits: np.ndarray, size: int) -> bool:
    """Return whether these received bits are decoded if they are the code of `size` message bits.

    The code is linear: every codeword is decoded as well as that of zeros.
    """
    found = code.build(len(bits), size).decode(llr * (1 - 2.0 * bits))
    return found is not None and not found.any()


def _decodable(llr: np.ndarray, bits: np.ndarray, size: float) -> float:
    """Return the largest tried number of message bits, from `size` down, that decodes; 0 if none does."""
    while size >= 8 * LEAST_CAPACITY and not _is_decoded(llr, bits, int(size)):
        size *= _SMALLER
    return size if size >= 8 * LEAST_CAPACITY else 0.0


def _read_layer(layer: Layer, symbols, sent: np.ndarray, read: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return (log-likelihood ratios, bits) of a layer of all bits `sent`; coarser levels are known."""
    flat = sent.reshape(-1, levels.LEVELS)
    reading, everywhere = Reading(*read.reshape(3, -1)), np.arange(len(flat))
    reading.know(COARSE, everywhere, flat[:, :2])
    for level in range(2, layer.levels[0]):
        reading.know((level,), everywhere, flat[:, level : level + 1])
    return reading.llr(layer, symbols), flat[symbols][:, np.array(layer.levels)].ravel()


def _demodulated(modem: Modem, sent: Sent, frames: np.ndarray) -> np.ndarray:
    """Demodulate the symbols of a segment in received frames, see `Modem.read`."""
    references, modulation = sent.segment.layout.references, sent.modulation
    luma, known = (
        repeated_means(luma_of(frames), modulation.repeat),
        levels.to_phases(sent.bits[:, references]),
    )
    return modem.read(luma, modulation.spacing, references, known)[..., : sent.bits.shape[1]]


class _Received:
    """A segment as received through the codec run of each layer, with the coarser layers known."""

    def __init__(self, sent: Sent, modem: Modem):
        rate = sent.segment.header.metadata.rate
        self._sent = sent
        self._through = cache(lambda name: ladder.run(ladder.named(name), sent.stego, rate).frames)
        self._demodulated = cache(lambda name: _demodulated(modem, sent, self._through(name)))

    def read(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        """Return (log-likelihood ratios, bits) of layer `i`."""
        sent, segment_format = self._sent, self._sent.segment.format
        layer, symbols = segment_format.layers[i], sent.segment.indices[i]
        if layer.levels != FINE:
            return _read_layer(layer, symbols, sent.bits, self._demodulated(layer.codec))
        luma = luma_of(self._through(layer.codec))
        llr = segment_format.fine.llr(luma, sent.fine_bits, sent.segment.fine_pilots)
        return llr[symbols].ravel(), sent.fine_bits[symbols].ravel()


class SegmentSender:
    """Hides segments of at most SEGMENT frames."""

    def __init__(self, config: ConfigDict, modem: Modem, shared: Format):
        """Take the whole config, the modem and the format `shared` with the receiver.

        Raises:
            UserError: the spacing, `growth` or `margin` makes no sense.
        """
        check(config)
        self._modem, self._format = modem, shared
        self._spacing = alignment.nearest_spacing(config.model.spacing)
        self._growth, self._margin = config.growth, config.margin

    def send(self, number: int, cover: np.ndarray, secret: np.ndarray, metadata: Metadata) -> Sent:
        """Hide segment `number`.

        Args:
            number: of the segment in the stego.
            cover: uint8 [n, h, w, 3], n <= SEGMENT.
            secret: uint8 [n, h', w', 3], of any size.
            metadata: of the secret.

        Returns:
            The segment with its stego, which is like the cover.

        Raises:
            UserError: nothing fits into the first segment.
        """
        empty = (0,) * len(self._format.layers)
        plain = Header(_salt(), len(cover), self._format.fewest, 1, empty, metadata)
        modulation = self._modulation(number, cover, plain)
        plain = plain._replace(count=modulation.count, repeat=modulation.repeat)
        segment = self._format.segment(number, plain)
        capacities = self._capacities(self._send(segment, cover, modulation))
        messages = encode_layers(secret, [size - OVERHEAD for size in capacities], metadata.rate)
        capacities = [size if message else 0 for size, message in zip(capacities, messages, strict=True)]
        if not any(capacities) and not number:  # a short last segment may well be empty
            raise UserError("nothing of the secret fits into this cover: use larger or more frames")
        salted = (
            segment.with_header(salt=_salt(), capacities=tuple(capacities))
            for _ in range(SALTS if len(cover) > 1 else STILL_SALTS)
        )
        return self._most_readable(self._send(s, cover, modulation, messages) for s in salted)

    def phase_errors(self, sent: Sent, frames: np.ndarray) -> np.ndarray:
        """Return the errors of the data symbols' phases, in turns, in what arrived of a segment's stego.

        Args:
            sent: from `send`.
            frames: uint8 [n, h, w, 3], as many as the stego has.

        Returns:
            [frames with symbols, data symbols], wrapped or not; without the fine symbols, which codecs erase.
        """
        phases, _, _ = _demodulated(self._modem, sent, frames)
        return (phases - levels.to_phases(sent.bits))[:, sent.segment.layout.data]

    def _send(self, segment: Segment, cover: np.ndarray, modulation: Modulation, messages=()) -> Sent:
        bits, fine_bits = segment.filled(messages)
        pilots = segment.layout.pilots, segment.pilot_phases()
        stego = self._modem.write(cover, levels.to_phases(bits), modulation, pilots)
        if segment.uses_fine:
            stego = self._format.fine.write(stego, fine_bits)
        return Sent(segment, modulation, stego, bits, fine_bits)

    def _modulation(self, number: int, cover: np.ndarray, plain: Header) -> Modulation:
        """Return the modulation that carries most among those within the limit on H.264's growth.

        Symbols of every frame carry most where frames have to be coded anew anyway; where the cover stands
        still, repeated ones cost less, and then more of a block. Where all that fit carry next to nothing, it
        is the cheapest that does carry something.
        """
        if not self._growth or len(cover) == 1:
            count, repeat = next(iter(self._format.layouts))
            return Modulation(self._spacings(count)[0], count, repeat)
        trials, codec, rate = [], ladder.named(GROWTH_CODEC), plain.metadata.rate
        most = self._growth * ladder.run(codec, cover, rate).size_bytes
        for count, repeat in self._format.layouts:
            segment = self._format.segment(number, plain._replace(count=count, repeat=repeat))
            for spacing in self._spacings(count):
                sent = self._send(segment, cover, Modulation(spacing, count, repeat))
                received = ladder.run(codec, sent.stego, rate)
                found = self._information(sent, received.frames)
                trials.append(_Trial(sent.modulation, received.size_bytes, found))
                best = max((t.bits for t in trials if t.size_bytes <= most), default=0)
                if received.size_bytes <= most or found <= best:  # a smaller spacing would carry less
                    break
        return _choose(trials, most, LEAST_INFORMATION * cover[..., 0].size).modulation

    def _spacings(self, count: int) -> list[float]:
        """Return the spacings to try with `count` symbols in a block, the largest first."""
        largest = self._spacing * np.sqrt(self._format.fewest / count)  # as much distortion
        every = alignment.SPACINGS
        return every[(1.04 * largest >= every) & (0.49 * largest < every)][::-1][::3].tolist()

    def _information(self, sent: Sent, frames: np.ndarray) -> float:
        """Return the bits of information that received frames have about the quarters of all symbols."""
        coarse = sent.bits[..., :2]
        llr = levels.coarse_llr(*_demodulated(self._modem, sent, frames))
        return coarse.size * levels.information(llr, coarse)

    def _capacities(self, sent: Sent) -> list[int]:
        """Return the bytes that each layer can carry through its codec run, found by sending these bits."""
        capacities, received = [], _Received(sent, self._modem)
        for i, layer in enumerate(self._format.layers):
            llr, bits = received.read(i)
            information = levels.information(llr, bits)
            if layer.levels == FINE:  # its errors vary little
                size = code.reached_size(len(bits), information)
            else:
                size = _decodable(llr, bits, code.reached_size(len(bits), information, short=0))
            capacity = header.capacity_within(int(self._margin * size) // 8)
            capacities.append(capacity if capacity >= LEAST_CAPACITY else 0)
        return capacities

    def _most_readable(self, salted: Iterable[Sent]) -> Sent:
        """Return the first segment whose coarse layers all survive their codec runs, else that with the most.

        What a codec leaves varies with every bit, on some covers much; another salt is another chance.
        """
        best, most = None, -1
        for sent in salted:
            received, capacities = _Received(sent, self._modem), sent.segment.header.capacities
            coarse = [
                i for i, layer in enumerate(self._format.layers) if layer.levels == COARSE and capacities[i]
            ]
            count = sum(_is_decoded(*received.read(i), 8 * capacities[i]) for i in coarse)
            if count > most:
                best, most = sent, count
            if most == len(coarse):
                break
        return best


def check(config: ConfigDict) -> None:
    """Raise UserError if `growth`, `margin` or the spacing of a config makes no sense."""
    if not (config.growth >= 0 and 0 < config.margin <= 1):
        raise UserError("config.growth must be 0 or more, config.margin more than 0 and at most 1")
    alignment.nearest_spacing(config.model.spacing)


def _salt() -> bytes:
    return os.urandom(header.SALT_BYTES)


class RobustSender(base.Sender):
    """Collects the pairs of a segment and hides them together."""

    def __init__(self, segments: SegmentSender, metadata: Metadata, notes: tuple[str, ...] = ()):
        """Take the sender of segments, the secret's metadata and notes for the user."""
        self.notes = notes
        self._segments, self._metadata = segments, metadata
        self._pairs: list[Pair] = []
        self._number = 0

    def send(self, pair: Pair) -> list[np.ndarray]:
        """See `base.Sender`."""
        self._pairs.append(pair)
        return self._hide() if len(self._pairs) == SEGMENT else []

    def finish(self) -> list[np.ndarray]:
        """See `base.Sender`."""
        return self._hide() if self._pairs else []

    def _hide(self) -> list[np.ndarray]:
        cover, secret = (
            np.stack([getattr(pair, name) for pair in self._pairs]) for name in ("cover", "secret")
        )
        stego = self._segments.send(self._number, cover, secret, self._metadata).stego
        self._pairs, self._number = [], self._number + 1
        return list(stego)
