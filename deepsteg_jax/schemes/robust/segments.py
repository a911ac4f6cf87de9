"""Hides and reveals a secret segment by segment, each of them by itself.

Sender:    cover + random symbols -> real codecs -> what each layer would carry
           secret -> thumbnail or AV1 in as many bytes, layer by layer -> sealed -> error-correcting code
           -> symbols
Receiver:  frames -> which of the stego they are -> header -> layers, from the most robust to the finest
           -> the finest secret that can be read -> restored by the network
"""

import math
import os
from collections.abc import Callable, Iterable
from fractions import Fraction
from functools import cache, partial
from itertools import takewhile
from operator import attrgetter, itemgetter
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESCCM
from ml_collections import ConfigDict

from deepsteg_jax import keys
from deepsteg_jax.channels import ladder
from deepsteg_jax.errors import UserError
from deepsteg_jax.models import symbols as symbol_model
from deepsteg_jax.schemes.robust import alignment, code, fine, header, layout, levels
from deepsteg_jax.schemes.robust.header import Description, Header
from deepsteg_jax.schemes.robust.layout import FINE, QUARTER, SEGMENT, Layer, Layout
from deepsteg_jax.schemes.robust.modem import Modem, Modulation, blocks_of, carriers_of, held_means, luma_of
from deepsteg_jax.schemes.robust.secret_layers import code_layers, decode_layer

MASTER_SALT = b"deepsteg robust\0"  # public: there is no place for another before the key is known
GROWTH_RUNG = "C6"  # where the stego's bits are compared with the cover's
LEAST_INFORMATION = 0.012  # bits per pixel, with which a secret can be made out
LEAST_ROOM = 20  # bytes; layers of less are left out
_TAG, _END = 8, b"\x80"  # of a layer's message: bytes of the cipher, and what marks its end
_AROUND = _TAG + len(_END)
_SMALLER = 0.95  # what is tried after a size that cannot be decoded
_TRIES, _STILL_TRIES = 3, 12  # salts; of a frame alone, which is tried quickly, more
_OPTIMISM = 1.4  # of the information expected, which tends to be too little; what needs more is not tried
_RESTORED_TOGETHER = 4  # frames
_KEPT = 2 * SEGMENT  # frames that are kept of those that were not found again


class _Received(NamedTuple):
    """A frame as it arrived."""

    luma: np.ndarray
    pilots: np.ndarray  # what they read
    number: int | None  # in the stego, where that was found
    step: float | None


class Part(NamedTuple):
    """What one segment gave."""

    number: int
    description: Description
    frames: np.ndarray  # uint8 [n, h, w, 3]
    layers: int  # that could be read
    of: int


# --- bits ----------------------------------------------------------------------------------------


class _Places(NamedTuple):
    """The symbols of each layer in a segment, flat over its frames; of FINE those of its own carriers."""

    layers: tuple[Layer, ...]
    symbols: list[np.ndarray]

    def bits(self, number: int) -> int:
        return len(self.symbols[number]) * (len(self.layers[number].levels) or fine.BITS)


def _places(layers, frames_layout: Layout, segment: int, head: Header, own: np.ndarray) -> _Places:
    """`own`: the fine symbols that are free for data."""
    frames = len(_written(head))
    coarse = [layer.share for layer in layers if layer.levels == QUARTER]
    quarters = iter(frames_layout.quarters(segment, frames, coarse))
    everywhere = frames_layout.finer(segment, frames)
    of_kind = {QUARTER: lambda: next(quarters), FINE: lambda: own}
    return _Places(layers, [of_kind.get(layer.levels, lambda: everywhere)() for layer in layers])


def _written(head: Header) -> range:
    """The frames of a segment in which symbols begin."""
    return range(0, head.length, head.hold)


def _filled(frames_layout: Layout, first_frame: int, head: Header, master: bytes) -> np.ndarray:
    """Bits of a segment as they are before layers are written, uint8 [groups, symbols, LEVELS].

    Pilots, header, and for all else a keystream that layers are added to: what no layer uses is known to the
    receiver too, and where a codec turns all symbols into the same few, errors of a code's repetitions do not
    add up.
    """
    written = _written(head)
    shape = len(written), frames_layout.symbols, levels.LEVELS
    key = keys.subkey(master, f"robust filler {head.salt.hex()}")
    bits = layout.random_bits(key, 0, math.prod(shape)).reshape(shape)
    packed, room = header.pack(head, master), 2 * len(frames_layout.header)
    for line, frame in zip(bits, written, strict=True):
        line[frames_layout.pilots] = frames_layout.pilot_bits(first_frame + frame)
        line[frames_layout.references] = frames_layout.reference_bits(first_frame + frame)
        line[frames_layout.header, :2] = header.carried_bits(packed, frame, room, master).reshape(-1, 2)
    return bits


class _Reading:
    """The log-likelihood ratios of a segment, finer levels as soon as the coarser ones are known."""

    def __init__(self, phase: np.ndarray, scale: np.ndarray, lost: np.ndarray):
        """All flat over the segment."""
        self._read = phase, scale, lost
        self._quarter = levels.quarter_llr(phase, scale, lost)
        self._bits = (self._quarter < 0).astype(np.uint8)
        self._start = None

    def llr(self, layer: Layer, symbols: np.ndarray) -> np.ndarray:
        """Of all bits of a layer, one symbol after the other."""
        if layer.levels == QUARTER:
            return self._quarter[symbols].ravel()
        read = (x[symbols] for x in self._read)
        return levels.finer_llr(*read, self._starts()[symbols], layer.levels[0], len(layer.levels)).ravel()

    def know(self, layer: Layer, symbols: np.ndarray, bits: np.ndarray) -> None:
        """Takes note of a layer's bits, in the order of `llr`."""
        bits = bits.reshape(len(symbols), -1)
        if layer.levels == QUARTER:
            self._bits[symbols] = bits
            return
        for level, column in zip(layer.levels, bits.T, strict=True):
            self._starts()[symbols] = levels.finer_start(self._starts()[symbols], column, level)

    def _starts(self) -> np.ndarray:
        """Where the intervals begin that are known; the first call takes the quarters for known."""
        if self._start is None:
            self._start = levels.quarter_starts(self._bits)
        return self._start


def _of_no_layer(places: _Places, rooms, filled: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The symbols whose quarters no layer uses, and their bits, uint8 [m, 2]."""
    free = np.ones(len(filled), bool)
    for layer, symbols, room in zip(places.layers, places.symbols, rooms, strict=False):
        if layer.levels == QUARTER and room:
            free[symbols] = False
    return np.flatnonzero(free), filled[free][:, :2]


def _salt() -> bytes:
    return os.urandom(header.SALT_BYTES)


def _layer_key(master: bytes, segment: int, salt: bytes) -> AESCCM:
    return AESCCM(keys.subkey(master, f"robust layers {segment} {salt.hex()}"), tag_length=_TAG)


def _seal(cipher: AESCCM, number: int, message: bytes, room: int) -> np.ndarray:
    """A layer's message as its bits, uint8 [8 * room]."""
    filled = (message + _END).ljust(room - _TAG, b"\0")
    return np.unpackbits(np.frombuffer(cipher.encrypt(number.to_bytes(12, "little"), filled, None), np.uint8))


def _open(cipher: AESCCM, number: int, llr: np.ndarray, room: int) -> tuple[bytes, np.ndarray] | None:
    """A layer's message and its coded bits; None if these log-likelihood ratios do not give them."""
    if _OPTIMISM * levels.expected_information(llr) * len(llr) <= 8 * room:
        return None
    book = code.build(len(llr), 8 * room)
    bits = book.decode(llr)
    if bits is None:
        return None
    try:
        filled = cipher.decrypt(number.to_bytes(12, "little"), np.packbits(bits).tobytes(), None)
    except InvalidTag:
        return None
    return filled.rstrip(b"\0").removesuffix(_END), book.encode(bits)


# --- sender --------------------------------------------------------------------------------------


class _Sent(NamedTuple):
    """A segment as it is sent."""

    stego: np.ndarray  # uint8 [n, h, w, 3]
    how: Modulation
    bits: np.ndarray  # see `_filled`
    references: np.ndarray
    own: np.ndarray  # see `Fine.filled`
    fine_pilots: np.ndarray


class _Trial(NamedTuple):
    """What became of a modulation."""

    how: Modulation
    size_bytes: int  # of the stego as H.264
    bits: float  # of information that arrived


def _choose(trials: list[_Trial], most: float, least: float) -> _Trial:
    """The one of at most `most` bytes that carries most; if none has `least` bits, the cheapest that has."""
    rich = [trial for trial in trials if trial.bits >= least]
    if fitting := [trial for trial in rich or trials if trial.size_bytes <= most]:
        return max(fitting, key=attrgetter("bits"))
    return min(rich, key=attrgetter("size_bytes")) if rich else max(trials, key=attrgetter("bits"))


def _is_decoded(llr: np.ndarray, bits: np.ndarray, size: int) -> bool:
    """Whether these bits, received so, are decoded if they are `size` message bits coded.

    The code is linear: any word errs as the one of zeros does.
    """
    found = code.build(len(bits), size).decode(llr * (1 - 2.0 * bits))
    return found is not None and not found.any()


def _decodable(llr: np.ndarray, bits: np.ndarray, size: float) -> float:
    """The first of `size` and ever less message bits that are decoded if these bits are received so."""
    while size >= 8 * LEAST_ROOM and not _is_decoded(llr, bits, int(size)):
        size *= _SMALLER
    return size if size >= 8 * LEAST_ROOM else 0.0


def _of_layer(layer: Layer, symbols, sent: np.ndarray, read: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(log-likelihood ratios, bits) of a layer whose coarser levels are known; `sent`: see `_filled`."""
    flat = sent.reshape(-1, levels.LEVELS)
    reading, everywhere = _Reading(*read.reshape(3, -1)), np.arange(len(flat))
    reading.know(Layer(QUARTER, 1, ""), everywhere, flat[:, :2])
    for level in range(2, layer.levels[0]):
        reading.know(Layer((level,), 1, ""), everywhere, flat[:, level : level + 1])
    return reading.llr(layer, symbols), flat[symbols][:, np.array(layer.levels)].ravel()


class Sender:
    """Hides segments of at most SEGMENT frames."""

    def __init__(self, config: ConfigDict, params: Any, master: bytes):
        """`config`: the whole config; `params` of the hide side; `master`: see MASTER_SALT.

        Raises:
            UserError: `config.secret_layers`, `modulations`, `spacing`, `growth` or `margin` makes no sense.
        """
        if not (config.growth >= 0 and 0 < config.margin <= 1):
            raise UserError("config.growth is 0 or more, config.margin more than 0 and at most 1")
        self._modem = Modem(config.model, params)
        self._layers, self._carriers = layout.layers_of(config), carriers_of(config)
        self._fewest = min(count for count, _ in self._carriers)
        self._fine = fine.make(config.fine, config.model.coefficients, master)
        self._step, self._growth = alignment.nearest_step(config.model.spacing), config.growth
        self._margin, self._overhead = config.margin, config.overhead
        self._master = master

    def hide(
        self, number: int, cover: np.ndarray, secret: np.ndarray, description: Description
    ) -> np.ndarray:
        """Hides segment `number`.

        Args:
            number: of the segment in the stego.
            cover: uint8 [n, h, w, 3], n <= SEGMENT.
            secret: uint8 [n, h', w', 3], of any size.
            description: see there.

        Returns:
            The stego, like the cover.

        Raises:
            UserError: the frames are too small, or nothing fits into the first segment.
        """
        first, rate, blocks = number * SEGMENT, description.rate, blocks_of(*cover.shape[1:3])
        frames_layout = layout.make(self._master, self._fewest * blocks, header.BITS, self._overhead)
        fine_pilots, fine_data = self._fine.places(number, len(cover), blocks)
        pilot_bits = np.stack([frames_layout.pilot_bits(first + i) for i in range(len(cover))])
        write = partial(self._write, cover, (frames_layout.pilots, levels.to_phases(pilot_bits)))

        def fill(head):
            return _filled(frames_layout.extended(head.count * blocks), first, head, self._master)

        def fill_fine(head):
            return self._fine.filled(head.salt, len(cover), blocks)

        def sent(head, how, messages=()):
            bits, own = fill(head), fill_fine(head)
            self._carry(messages, number, head, places, bits, own)
            return _Sent(write(own, bits, how), how, bits, references, own, fine_pilots)

        def trial(count, hold):
            return fill(head._replace(count=count, hold=hold))

        head = Header(_salt(), len(cover), self._fewest, 1, (0,) * len(self._layers), description)
        references = frames_layout.references
        how = self._modulation(cover, partial(write, fill_fine(head)), trial, references, rate)
        head = head._replace(count=how.count, hold=how.hold)
        places = _places(self._layers, frames_layout.extended(how.count * blocks), number, head, fine_data)
        rooms = self._rooms(sent(head, how), places, rate)
        messages = code_layers(secret, [room - _AROUND for room in rooms], rate)
        rooms = [room if message else 0 for room, message in zip(rooms, messages, strict=True)]
        if not any(rooms) and not number:  # a short last segment may well be empty
            raise UserError("nothing of the secret fits into this cover: use larger or more frames")
        head = head._replace(rooms=tuple(rooms))
        tries = _TRIES if len(cover) > 1 else _STILL_TRIES
        salted = (sent(head._replace(salt=_salt()), how, messages) for _ in range(tries))
        return self._most_readable(salted, places, rooms, rate).stego

    def _most_readable(self, salted: Iterable[_Sent], places: _Places, rooms: list[int], rate) -> _Sent:
        """The first one all of whose coarse layers are read through their rungs, or that with the most.

        What a codec leaves varies with every bit, on some covers much; another salt is another chance.
        """
        coarse = [i for i, layer in enumerate(places.layers) if layer.levels == QUARTER and rooms[i]]
        best, most = None, -1
        for sent in salted:
            read = self._reader(sent, places, rate)
            count = sum(_is_decoded(*read(i), 8 * rooms[i]) for i in coarse)
            if count > most:
                best, most = sent, count
            if most == len(coarse):
                break
        return best

    def _carry(self, messages, segment: int, head: Header, places: _Places, bits, own) -> None:
        """Puts the messages of all layers into `bits` and into `own`, those of the fine carriers."""
        flat = bits.reshape(-1, levels.LEVELS)
        cipher = _layer_key(self._master, segment, head.salt)
        for i, (layer, message, room) in enumerate(zip(self._layers, messages, head.rooms, strict=False)):
            if not room:
                continue
            carried = code.build(places.bits(i), 8 * room).encode(_seal(cipher, i, message, room))
            if layer.levels == FINE:
                own[places.symbols[i]] ^= carried.reshape(-1, fine.BITS)
            else:
                chosen = carried.reshape(-1, len(layer.levels))
                flat[places.symbols[i][:, None], np.array(layer.levels)] ^= chosen

    def _write(self, cover: np.ndarray, pilots, own: np.ndarray, bits, how: Modulation) -> np.ndarray:
        """The stego of bits, and of those of the fine carriers, if there is a layer of them."""
        stego = self._modem.write(cover, levels.to_phases(bits), how, pilots)
        return self._fine.write(stego, own) if self._layers[-1].levels == FINE else stego

    def _modulation(
        self, cover, write, bits_of: Callable[[int, int], np.ndarray], references, rate
    ) -> Modulation:
        """The one that carries most of those with which H.264 grows no more than it may.

        Symbols of every frame carry most where frames have to be coded anew anyway; where the cover stands
        still, held ones cost less, and then more of a block. Where all that fit carry next to nothing, it
        is the cheapest that does carry something. `write` (bits, how) and `bits_of` (count, hold): see
        `_write` and `_filled`.
        """
        if not self._growth or len(cover) == 1:
            count, hold = self._carriers[0]
            return Modulation(self._steps(count)[0], count, hold)
        rung, trials = ladder.named(GROWTH_RUNG), []
        most = self._growth * ladder.run(rung, cover, rate).size_bytes
        for count, hold in self._carriers:
            bits = bits_of(count, hold)
            for step in self._steps(count):
                how = Modulation(step, count, hold)
                received = ladder.run(rung, write(bits, how), rate)
                found = self._carried(received.frames, how, bits, references)
                trials.append(_Trial(how, received.size_bytes, found))
                best = max((t.bits for t in trials if t.size_bytes <= most), default=0)
                if received.size_bytes <= most or found <= best:  # a smaller step would carry less
                    break
        return _choose(trials, most, LEAST_INFORMATION * cover[..., 0].size).how

    def _steps(self, count: int) -> list[float]:
        """The steps D that are tried with so many symbols in a block, from the largest one on."""
        largest = self._step * np.sqrt(self._fewest / count)  # as much distortion
        inside = (1.04 * largest >= alignment.STEPS) & (0.49 * largest < alignment.STEPS)
        return alignment.STEPS[inside][::-1][::3].tolist()

    def _carried(self, frames: np.ndarray, how: Modulation, bits: np.ndarray, references) -> float:
        """Information that received frames have of the quarters of all symbols, bits."""
        reading = self._reading(frames, how, bits, references)
        return bits[..., :2].size * levels.information(levels.quarter_llr(*reading), bits[..., :2])

    def _reading(self, frames: np.ndarray, how: Modulation, bits: np.ndarray, references: np.ndarray):
        """What is read of the symbols `bits` in received frames: see `Modem.read`."""
        known = levels.to_phases(bits[:, references])
        reading = self._modem.read(held_means(luma_of(frames), how.hold), how.step, references, known)
        return reading[..., : bits.shape[1]]

    def _reader(self, sent: _Sent, places: _Places, rate: Fraction):
        """Gives (log-likelihood ratios, bits) of a layer, by its number, after its rung.

        Coarser levels count as known.
        """
        received = cache(lambda rung: ladder.run(ladder.named(rung), sent.stego, rate).frames)
        demodulated = cache(lambda rung: self._reading(received(rung), sent.how, sent.bits, sent.references))

        def read(number: int) -> tuple[np.ndarray, np.ndarray]:
            layer, symbols = places.layers[number], places.symbols[number]
            if layer.levels != FINE:
                return _of_layer(layer, symbols, sent.bits, demodulated(layer.rung))
            llr = self._fine.llr(luma_of(received(layer.rung)), sent.own, sent.fine_pilots)
            return llr[symbols].ravel(), sent.own[symbols].ravel()

        return read

    def _rooms(self, sent: _Sent, places: _Places, rate: Fraction) -> list[int]:
        """Bytes that each layer can carry through its rung, found by sending these bits through it."""
        rooms, read = [], self._reader(sent, places, rate)
        for number, layer in enumerate(places.layers):
            llr, bits = read(number)
            information = levels.information(llr, bits)
            if layer.levels == FINE:  # whose errors vary little
                size = code.reached_size(len(bits), information)
            else:
                size = _decodable(llr, bits, code.reached_size(len(bits), information, short=0))
            room = header.room_within(int(self._margin * size) // 8)
            rooms.append(room if room >= LEAST_ROOM else 0)
        return rooms


# --- receiver ------------------------------------------------------------------------------------


def _not_found_at_end(received: list[_Received]) -> list[_Received]:
    """Those after the last one that was found, in order."""
    return list(takewhile(lambda x: x.number is None, reversed(received)))[::-1]


class Receiver:
    """Reveals segments from frames as they come: some may be missing, come twice, or be coded again."""

    def __init__(self, config: ConfigDict, params: Any, master: bytes, height: int, width: int):
        """`config`: the whole config; `params` of the reveal side; size of the frames to come.

        Raises:
            UserError: `config.secret_layers` or `modulations` makes no sense, or the frames are too small to
                carry anything.
        """
        self._modem = Modem(config.model, params)
        self._layers, carriers = layout.layers_of(config), carriers_of(config)
        fewest = min(count for count, _ in carriers)
        self._master, self._blocks = master, blocks_of(height, width)
        self._layout = layout.make(master, fewest * self._blocks, header.BITS, config.overhead)
        self._extended = {some: self._layout.extended(some[0] * self._blocks) for some in carriers}
        self._finder = alignment.Finder(self._layout, fewest, sorted({hold for _, hold in carriers}))
        self._fine = fine.make(config.fine, config.model.coefficients, master)
        self._restore = jax.jit(partial(symbol_model.restore, config.model, params["restoration"]))
        self._segment, self._received = None, []

    def take(self, frame: np.ndarray) -> list[Part]:
        """Takes the next frame, uint8 [h, w, 3]; returns what segments it completes, in their order."""
        luma = luma_of(frame)
        pilots = self._finder.read(luma)
        number, step = self._finder.find(pilots) or (None, None)
        parts = self._add(_Received(luma, pilots, number, step))
        lost = len(_not_found_at_end(self._received))
        if lost and lost % SEGMENT == 0:
            parts += self._find_lost()
        if lost > _KEPT:
            del self._received[-_KEPT - 1]
        return parts

    def finish(self) -> list[Part]:
        """What there is of the segment at the end."""
        return self._find_lost() + self._complete()

    def _add(self, received: _Received) -> list[Part]:
        """Takes note of a frame; returns the segment that ended before it, if one did."""
        parts, number = [], received.number
        if number is not None and number // SEGMENT != self._segment:
            parts, self._segment = self._complete(), number // SEGMENT
        self._received.append(received)
        return parts

    def _find_lost(self) -> list[Part]:
        """Numbers those at the end that were not found one by one, where all of them together can be."""
        lost = _not_found_at_end(self._received)
        found = self._finder.find_lost(np.stack([x.pilots for x in lost])) if lost else None
        if not found:
            return []
        start, step = found
        del self._received[-len(lost) :]
        numbered = (x._replace(number=start + i, step=step) for i, x in enumerate(lost) if start + i >= 0)
        return [part for x in numbered for part in self._add(x)]

    def _complete(self) -> list[Part]:
        """Reads what there is of the segment."""
        received, number = self._received, self._segment
        # Those that were not found at the end may belong to the next segment as well.
        self._segment = None
        self._received = _not_found_at_end(received)
        if number is None:
            return []
        part = self._read(number, received)
        return [] if part is None else [part]

    def _read(self, number: int, received: list[_Received]) -> Part | None:
        steps = [x.step for x in received if x.step is not None]
        step, first, found = max(set(steps), key=steps.count), number * SEGMENT, []
        starts = range(first - len(received) + 1, first + SEGMENT)
        pilots = np.stack([x.pilots for x in received])
        start, _ = self._finder.together(pilots, starts, np.array([step])) or (None, None)
        for placed in alignment.placings([x.number for x in received], start, first, SEGMENT):
            lumas: dict[int, list[np.ndarray]] = {}  # of each frame of the segment; some may come twice
            for i, at in sorted(placed.items()):
                lumas.setdefault(at, []).append(received[i].luma)
            found += self._with_header(first, lumas, step)
        for _, head, reading, lumas in sorted(found, key=itemgetter(0), reverse=True):
            if part := self._read_part(number, head, reading, lumas):
                return part
        return None

    def _with_header(self, first: int, lumas: dict[int, list], step: float) -> list[tuple]:
        """(information, bits; header; symbols; `lumas`) if a header can be read of frames placed so."""
        read = cache(partial(self._read_symbols, first, lumas, step=step))
        for (count, hold), here in self._extended.items():
            reading = read(hold)
            llr = levels.quarter_llr(*reading[:, :, here.header])
            bits = header.decode(llr.reshape(SEGMENT, -1), self._master)
            head = None if bits is None else header.unpack(bits, count, hold, self._master)
            if head is not None:
                return [(levels.expected_information(llr) * llr.size, head, reading, lumas)]
        return []

    def _read_symbols(self, first: int, lumas: dict[int, list], hold: int, step: float) -> np.ndarray:
        """See `Modem.read`; of all groups of a segment, at their first frames, [3, SEGMENT, symbols]."""
        groups: dict[int, list[np.ndarray]] = {}
        for at, alike in lumas.items():
            groups.setdefault(at // hold * hold, []).extend(alike)
        there = sorted(groups)
        known = np.stack([levels.to_phases(self._layout.reference_bits(first + i)) for i in there])
        means = np.stack([np.mean(groups[i], axis=0) for i in there])
        found = self._modem.read(means, step, self._layout.references, known)
        nothing = np.array([0, symbol_model.MOST_SCALE, 1.0])  # of frames that are missing: all is lost
        reading = np.tile(nothing[:, None, None], (1, SEGMENT, found.shape[2]))
        for target, values in zip(reading, found, strict=True):
            target[there] = values
        return reading

    def _read_part(self, number: int, head: Header, reading: np.ndarray, lumas) -> Part | None:
        here = self._extended[head.count, head.hold]
        flat = reading[:, np.array(_written(head)), : here.symbols].reshape(3, -1)
        shape = (head.length, head.description.height, head.description.width, 3)
        filled = _filled(here, number * SEGMENT, head, self._master).reshape(-1, levels.LEVELS)
        own = partial(self._read_fine, number, head, lumas)
        places = _places(
            self._layers, here, number, head, self._fine.places(number, head.length, self._blocks)[1]
        )
        shown, count = self._read_layers(places, number, head, _Reading(*flat), own, filled, shape)
        if shown is None:
            return None
        frames = self._restored(shown)
        return Part(number, head.description, frames, count, sum(room > 0 for room in head.rooms))

    def _read_fine(self, number: int, head: Header, lumas: dict[int, list]) -> np.ndarray:
        """Log-likelihood ratios of what was added to all fine symbols, 0 for frames that are not there."""
        there = [i for i in lumas if i < head.length]
        llr = np.zeros((head.length, self._blocks * self._fine.count, fine.BITS))
        if there:
            known = self._fine.filled(head.salt, head.length, self._blocks).reshape(llr.shape)[there]
            pilots, _ = self._fine.places(number, len(there), self._blocks)
            found = self._fine.llr(
                np.stack([lumas[i][0] for i in there]), known.reshape(-1, fine.BITS), pilots
            )
            llr[there] = found.reshape(known.shape) * (1 - 2.0 * known)
        return llr.reshape(-1, fine.BITS)

    def _read_layers(
        self, places: _Places, segment: int, head, reading: _Reading, own, filled: np.ndarray, shape
    ):
        """(the finest secret that can be read or None, how many layers could); `own`: see `_read_fine`."""
        cipher = _layer_key(self._master, segment, head.salt)
        shown, count, unbroken, coarser_known = None, 0, True, True
        reading.know(Layer(QUARTER, 1, ""), *_of_no_layer(places, head.rooms, filled))
        for i, (layer, symbols, room) in enumerate(
            zip(self._layers, places.symbols, head.rooms, strict=False)
        ):
            finer = layer.levels not in (QUARTER, FINE)
            if finer and not coarser_known:
                continue
            before = None if layer.levels == FINE else filled[symbols][:, np.array(layer.levels)].ravel()
            if not room:
                if finer:
                    reading.know(layer, symbols, before)
                continue
            if before is None:
                llr = own()[symbols].ravel()
            else:
                llr = reading.llr(layer, symbols) * (1 - 2.0 * before)
            opened = _open(cipher, i, llr, room)
            if opened is None:
                unbroken = coarser_known = False
                continue
            message, coded = opened
            if before is not None:
                reading.know(layer, symbols, coded ^ before)
            decoded = decode_layer(message, shown if unbroken else None, shape)
            if decoded is not None:
                shown, count, unbroken = decoded, count + 1, True
        return shown, count

    def _restored(self, frames: np.ndarray) -> np.ndarray:
        """Through the restoration network, a few frames at a time."""
        out = []
        for first in range(0, len(frames), _RESTORED_TOGETHER):
            at = np.clip(np.arange(first - 1, first + _RESTORED_TOGETHER + 1), 0, len(frames) - 1)
            restored = self._restore(jnp.asarray(frames[at], jnp.float32)[None] / 255)[0, 1:-1]
            out.append(np.asarray(jnp.round(jnp.clip(restored, 0, 1) * 255).astype(jnp.uint8)))
        return np.concatenate(out)[: len(frames)]
