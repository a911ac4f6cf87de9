"""Hides and reveals a secret segment by segment, each of them by itself.

Sender:    cover + random symbols -> real codecs -> what each layer would carry
           secret -> AV1 in as many bytes, layer by layer -> sealed -> error-correcting code -> symbols
Receiver:  frames -> which of the stego they are -> header -> layers, from the most robust to the finest
           -> the finest secret that can be read -> restored by the network

A layer holds the secret anew, or what is missing to the one below it, whichever comes nearer. So the revealed
secret gets coarser layer by layer as the channel gets worse.
"""

import os
from collections.abc import Callable
from fractions import Fraction
from functools import partial
from operator import itemgetter
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from ml_collections import ConfigDict

from deepsteg_jax import keys, metrics
from deepsteg_jax.errors import UserError
from deepsteg_jax.models import robust
from deepsteg_jax.robust import alignment, code, header, layout, levels, secret_codec
from deepsteg_jax.robust.header import Description, Header
from deepsteg_jax.robust.layout import Layer, Layout
from deepsteg_jax.video import passage

SEGMENT = 32  # frames hidden and revealed together
MASTER_SALT = b"deepsteg robust\0"  # public: there is no place for another before the key is known
GROWTH_RUNG = "C6"  # where the stego's bits are compared with the cover's
LEAST_ROOM = 96  # bytes; layers of less are left out
_TAG, _LENGTH = 16, 3  # bytes around a layer's message: of the cipher, and its length
_AROUND = _TAG + _LENGTH + 1  # with what the layer holds
_WHOLE, _REFINEMENT = 0, 1  # what a layer holds
_OPTIMISM = 0.95  # of the limit of information; what would need more is not even tried
_RESTORED_TOGETHER = 4  # frames


class Part(NamedTuple):
    """What one segment gave."""

    number: int
    description: Description
    frames: np.ndarray  # uint8 [n, h, w, 3]
    layers: int  # that could be read
    of: int


# --- symbols -------------------------------------------------------------------------------------


@partial(jax.jit, static_argnames=("coefficients", "hold"))
def _write(cover, symbols, step, coefficients, hold):
    rows, columns = (length // robust.BLOCK for length in cover.shape[1:3])
    symbols = symbols.reshape(len(symbols), rows, columns, coefficients)
    return robust.write_held(cover, symbols, step, hold).astype(jnp.uint8)


class Modulation(NamedTuple):
    """How symbols are written."""

    step: float  # D
    hold: int  # frames that share their symbols


class Modem:
    """Symbols into frames and out of them, with the networks of a config."""

    def __init__(self, config: ConfigDict, params: Any):
        """`config`: section `model`; `params` of either side."""
        self.count = config.coefficients
        self._demodulate = jax.jit(partial(robust.demodulate, config, params["reliability"]))

    def symbols(self, height: int, width: int) -> int:
        """Symbols of a frame."""
        return (height // robust.BLOCK) * (width // robust.BLOCK) * self.count

    def write(self, cover: np.ndarray, phases: np.ndarray, how: "Modulation") -> np.ndarray:
        """Cover uint8 [n, h, w, 3] and phases [ceil(n / hold), symbols] -> stego."""
        return np.asarray(_write(cover, phases, how.step, self.count, how.hold))

    def read(self, luma: np.ndarray, step: float, places: np.ndarray, known: np.ndarray) -> np.ndarray:
        """Demodulates and calibrates.

        Args:
            luma: [n, h, w], of frames or means of those that share symbols.
            step: D.
            places: symbols of a frame that are known, int [m].
            known: their phases, [n, m].

        Returns:
            Phase, scale and loss, float64 [3, n, symbols]; see `robust.demodulate`.
        """
        n = len(luma)
        filled = np.pad(luma, ((0, -n % 8), (0, 0), (0, 0)), mode="edge")  # few lengths to compile for
        phase, scale, lost = (
            np.asarray(x[0, :n], np.float64).reshape(n, -1)
            for x in self._demodulate(filled[None], jnp.full(1, step))
        )
        error = phase[:, places] - known
        factor, loss = robust.calibrate(error - np.round(error), scale[:, places], lost[:, places])
        scale, lost = robust.adjusted(scale, lost, factor[:, None, None], loss[:, None, None])
        return np.stack([phase, scale[:, 0], lost[:, 0]]).astype(np.float64)


def luma_of(frames: np.ndarray) -> np.ndarray:
    """RGB uint8 [..., h, w, 3] -> luma float32 [..., h', w'], whole blocks."""
    return np.asarray(robust.luma_of(jnp.asarray(frames)))


def held_means(luma: np.ndarray, hold: int) -> np.ndarray:
    """Luma [n, h, w] -> the mean of each group of frames that share symbols, [ceil(n / hold), h, w]."""
    return np.stack([luma[i : i + hold].mean(0) for i in range(0, len(luma), hold)])


# --- bits ----------------------------------------------------------------------------------------


class _Places(NamedTuple):
    """The symbols of each layer in a segment, flat over its frames."""

    layers: tuple[Layer, ...]
    symbols: list[np.ndarray]

    def bits(self, number: int) -> int:
        return len(self.symbols[number]) * len(self.layers[number].levels)


def _places(layers: tuple[Layer, ...], frames_layout: Layout, segment: int, head: Header) -> _Places:
    frames = len(_written(head))
    coarse = [layer.share for layer in layers if layer.levels == (0, 1)]
    quarters = iter(frames_layout.quarters(segment, frames, coarse))
    everywhere = frames_layout.finer(segment, frames)
    return _Places(layers, [next(quarters) if x.levels == (0, 1) else everywhere for x in layers])


def _written(head: Header) -> range:
    """The frames of a segment in which symbols begin."""
    return range(0, head.length, head.hold)


def _filled(frames_layout: Layout, first_frame: int, head: Header, master: bytes) -> np.ndarray:
    """Bits of a segment as they are before layers are written, uint8 [groups, symbols, LEVELS].

    Pilots, header, and for all else a keystream: what no layer uses is known to the receiver too.
    """
    written = _written(head)
    count = len(written) * frames_layout.symbols * levels.LEVELS
    stream = layout.keystream(keys.subkey(master, f"robust filler {head.salt.hex()}"), 0, -(-count // 8))
    bits = np.unpackbits(stream)[:count].reshape(len(written), frames_layout.symbols, levels.LEVELS)
    packed, room = header.pack(head, master), 2 * len(frames_layout.header)
    for line, frame in zip(bits, written, strict=True):
        line[frames_layout.pilots] = frames_layout.pilot_bits(first_frame + frame)
        line[frames_layout.header, :2] = header.carried_bits(packed, frame, room).reshape(-1, 2)
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
        if layer.levels == (0, 1):
            return self._quarter[symbols].ravel()
        read = (x[symbols] for x in self._read)
        return levels.finer_llr(*read, self._starts()[symbols], layer.levels[0], len(layer.levels)).ravel()

    def know(self, layer: Layer, symbols: np.ndarray, bits: np.ndarray) -> None:
        """Takes note of a layer's bits, in the order of `llr`."""
        bits = bits.reshape(len(symbols), -1)
        if layer.levels == (0, 1):
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
        if layer.levels == (0, 1) and room:
            free[symbols] = False
    return np.flatnonzero(free), filled[free][:, :2]


def _layer_key(master: bytes, salt: bytes) -> ChaCha20Poly1305:
    return ChaCha20Poly1305(keys.subkey(master, f"robust layers {salt.hex()}"))


def _seal(cipher: ChaCha20Poly1305, number: int, message: bytes, room: int) -> np.ndarray:
    """A layer's message as its bits, uint8 [8 * room]."""
    filled = (len(message).to_bytes(_LENGTH, "little") + message).ljust(room - _TAG, b"\0")
    return np.unpackbits(np.frombuffer(cipher.encrypt(number.to_bytes(12, "little"), filled, None), np.uint8))


def _open(cipher: ChaCha20Poly1305, number: int, bits: np.ndarray) -> bytes | None:
    try:
        filled = cipher.decrypt(number.to_bytes(12, "little"), np.packbits(bits).tobytes(), None)
    except InvalidTag:
        return None
    return filled[_LENGTH : _LENGTH + int.from_bytes(filled[:_LENGTH], "little")]


# --- layers of a secret --------------------------------------------------------------------------


def _refine(below: np.ndarray, difference: np.ndarray) -> np.ndarray:
    return np.clip(below + difference.astype(np.int16) - 128, 0, 255).astype(np.uint8)


def _likeness(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.mean([metrics.psnr(x, y) for x, y in zip(a, b, strict=True)]))


def code_layers(secret: np.ndarray, rooms: list[int], rate: Fraction) -> list[bytes]:
    """A secret in layers.

    Args:
        secret: uint8 [n, h, w, 3].
        rooms: bytes for each layer; 0 leaves it out.
        rate: frames per second.

    Returns:
        A message for each, not longer than its room; empty where there is none, or where it would not help.
    """
    messages, below, reached, room_below = [], None, -np.inf, 0
    for room in rooms:
        best = (reached, b"", below)
        for kind, source in _sources(secret, below, room / max(room_below, 1)):
            try:
                message = secret_codec.code(source, room - _AROUND, rate) if room else None
            except UserError:  # does not fit
                message = None
            if message:
                decoded = decode_layer(bytes([kind]) + message, below, secret.shape)
                best = max(
                    best, (_likeness(secret, decoded), bytes([kind]) + message, decoded), key=itemgetter(0)
                )
        reached, message, below = best
        room_below = room if message else room_below
        messages.append(message)
    return messages


def _sources(secret: np.ndarray, below: np.ndarray | None, growth: float):
    """What a layer may hold that has `growth` times the room of the one below; hopeless ones are left out."""
    if growth > 1.35:
        yield _WHOLE, secret
    if below is not None and growth < 3:
        difference = secret.astype(np.int16) - below + 128
        yield _REFINEMENT, np.clip(difference, 0, 255).astype(np.uint8)


def decode_layer(message: bytes, below: np.ndarray | None, shape: tuple[int, ...]) -> np.ndarray | None:
    """What a layer's message shows, on top of what is shown below; uint8 of `shape`, None without."""
    decoded = secret_codec.decode(message[1:], *shape[:3])
    if message[0] == _WHOLE:
        return decoded
    return None if below is None else _refine(below, decoded)


# --- sender --------------------------------------------------------------------------------------


class Sender:
    """Hides segments of at most SEGMENT frames."""

    def __init__(self, config: ConfigDict, params: Any, master: bytes):
        """`config`: the whole config; `params` of the hide side; `master`: see MASTER_SALT.

        Raises:
            UserError: `config.layers`, the step, `growth` or `margin` makes no sense.
        """
        if not (config.growth >= 0 and 0 < config.margin <= 1):
            raise UserError("config.growth is 0 or more, config.margin more than 0 and at most 1")
        self._modem = Modem(config.model, params)
        self._layers = layout.layers_of(config)
        self._step, self._growth = alignment.nearest_step(config.model.step), config.growth
        self._margin = config.margin
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
        frames, first, rate = len(cover), number * SEGMENT, description.rate
        symbols = self._modem.symbols(*cover.shape[1:3])
        frames_layout = layout.make(self._master, symbols, header.BITS)
        head = Header(os.urandom(header.SALT_BYTES), frames, 1, (0,) * len(self._layers), description)
        fill = partial(_filled, frames_layout, first, master=self._master)
        how = self._modulation(cover, lambda hold: fill(head._replace(hold=hold)), frames_layout.pilots, rate)
        head = head._replace(hold=how.hold)
        bits, places = fill(head), _places(self._layers, frames_layout, number, head)
        stego = self._modem.write(cover, levels.to_phases(bits), how)
        rooms = self._rooms(stego, how, bits, places, frames_layout.pilots, rate)
        messages = code_layers(secret, rooms, rate)
        rooms = [room if message else 0 for room, message in zip(rooms, messages, strict=True)]
        if not any(rooms) and not number:  # a short last segment may well be empty
            raise UserError("nothing of the secret fits into this cover: use larger or more frames")
        head = head._replace(rooms=tuple(rooms))
        bits = fill(head)
        flat = bits.reshape(-1, levels.LEVELS)
        cipher = _layer_key(self._master, head.salt)
        for i, (layer, message, room) in enumerate(zip(self._layers, messages, rooms, strict=True)):
            if room:
                carried = code.build(places.bits(i), 8 * room).encode(_seal(cipher, i, message, room))
                chosen = carried.reshape(-1, len(layer.levels))
                flat[places.symbols[i][:, None], np.array(layer.levels)] = chosen
        return self._modem.write(cover, levels.to_phases(bits), how)

    def _modulation(self, cover, bits_of: Callable[[int], np.ndarray], pilots, rate) -> Modulation:
        """The one that carries most of those with which H.264 grows no more than it may.

        Symbols of every frame carry most where frames have to be coded anew anyway; where the cover stands
        still, held ones cost less. Where none fits, it is one that costs little. `bits_of` a hold: `_filled`.
        """
        if not self._growth or len(cover) == 1:
            return Modulation(self._step, 1)
        rung = passage.named(GROWTH_RUNG)
        most = self._growth * passage.run(rung, cover, rate).size_bytes
        inside = (self._step >= alignment.STEPS) & (0.49 * self._step < alignment.STEPS)
        steps = alignment.STEPS[inside][::-1][::3]
        best, carried = Modulation(float(steps[:2][-1]), header.HOLDS[-1]), 0.0  # where nothing fits
        for hold in header.HOLDS:
            bits = bits_of(hold)
            for step in steps:
                how = Modulation(float(step), hold)
                stego = self._modem.write(cover, levels.to_phases(bits), how)
                received = passage.run(rung, stego, rate)
                if received.size_bytes <= most:
                    found = self._carried(received.frames, how, bits, pilots)
                    best, carried = max((best, carried), (how, found), key=itemgetter(1))
                    break
            if best == Modulation(float(steps[0]), 1):
                break
        return best

    def _carried(self, frames: np.ndarray, how: Modulation, bits: np.ndarray, pilots: np.ndarray) -> float:
        """Information that received frames have of the quarters of all symbols, bits."""
        known = levels.to_phases(bits[:, pilots])
        reading = self._modem.read(held_means(luma_of(frames), how.hold), how.step, pilots, known)
        return bits[..., :2].size * levels.information(levels.quarter_llr(*reading), bits[..., :2])

    def _rooms(self, stego, how, bits: np.ndarray, places: _Places, pilots, rate: Fraction) -> list[int]:
        """Bytes that each layer can carry through its rung, found by sending these bits through it."""
        flat, readings, rooms = bits.reshape(-1, levels.LEVELS), {}, []
        for i, layer in enumerate(places.layers):
            if layer.rung not in readings:
                received = passage.run(passage.named(layer.rung), stego, rate).frames
                luma, known = held_means(luma_of(received), how.hold), levels.to_phases(bits[:, pilots])
                readings[layer.rung] = self._modem.read(luma, how.step, pilots, known).reshape(3, -1)
            reading = _Reading(*readings[layer.rung])
            everywhere = np.arange(len(flat))
            reading.know(Layer((0, 1), 1, ""), everywhere, flat[:, :2])
            for level in range(2, layer.levels[0]):
                reading.know(Layer((level,), 1, ""), everywhere, flat[:, level : level + 1])
            llr = reading.llr(layer, places.symbols[i])
            sent = flat[places.symbols[i]][:, np.array(layer.levels)].ravel()
            size = self._margin * code.reached_size(len(sent), levels.information(llr, sent))
            room = int(size) // 8 // header.ROOM_UNIT * header.ROOM_UNIT
            rooms.append(min(room, header.ROOM_UNIT * (2**16 - 1)) if room >= LEAST_ROOM else 0)
        return rooms


# --- receiver ------------------------------------------------------------------------------------


class Receiver:
    """Reveals segments from frames as they come: some may be missing, come twice, or be coded again."""

    def __init__(self, config: ConfigDict, params: Any, master: bytes, height: int, width: int):
        """`config`: the whole config; `params` of the reveal side; size of the frames to come.

        Raises:
            UserError: the frames are too small to carry anything.
        """
        self._modem = Modem(config.model, params)
        self._layers = layout.layers_of(config)
        self._master = master
        self._layout = layout.make(master, self._modem.symbols(height, width), header.BITS)
        self._finder = alignment.Finder(self._layout, self._modem.count)
        self._restore = jax.jit(partial(robust.restore, config.model, params["restoration"]))
        self._segment, self._lumas, self._steps = None, {}, []

    def take(self, frame: np.ndarray) -> list[Part]:
        """Takes the next frame, uint8 [h, w, 3]; returns what segments it completes, in their order."""
        luma = luma_of(frame)
        found = self._finder.find(luma)
        if found is None:
            return []
        number, step = found
        segment, place = divmod(number, SEGMENT)
        parts = [] if segment == self._segment else self.finish()
        self._segment = segment
        self._steps.append(step)
        self._lumas.setdefault(place, []).append(luma)
        return parts

    def finish(self) -> list[Part]:
        """What there is of the segment at the end."""
        lumas, steps, number = self._lumas, self._steps, self._segment
        self._lumas, self._steps, self._segment = {}, [], None
        if not lumas:
            return []
        part = self._read(number, lumas, max(set(steps), key=steps.count))
        return [] if part is None else [part]

    def _read(self, number: int, lumas: dict[int, list[np.ndarray]], step: float) -> Part | None:
        there, pilots, first = sorted(lumas), self._layout.pilots, number * SEGMENT
        known = np.stack([levels.to_phases(self._layout.pilot_bits(first + i)) for i in there])
        means = np.stack([np.mean(lumas[i], axis=0) for i in there])
        found = self._modem.read(means, step, pilots, known)
        nothing = np.array([0, robust.MOST_SCALE, 1.0])  # of frames that are missing: all is lost
        reading = np.tile(nothing[:, None, None], (1, SEGMENT, self._layout.symbols))
        for target, values in zip(reading, found, strict=True):
            target[there] = values
        head = self._read_header(reading)
        if head is None:
            return None
        flat = reading[:, np.array(_written(head))].reshape(3, -1)
        shape = (head.length, head.description.height, head.description.width, 3)
        filled = _filled(self._layout, first, head, self._master)
        shown, count = self._read_layers(
            number, head, _Reading(*flat), filled.reshape(-1, levels.LEVELS), shape
        )
        if shown is None:
            return None
        frames = self._restored(shown)
        return Part(number, head.description, frames, count, sum(room > 0 for room in head.rooms))

    def _read_header(self, reading: np.ndarray) -> Header | None:
        """The header, of which every frame has a piece."""
        llr = levels.quarter_llr(*reading[:, :, self._layout.header])
        bits = header.decode(llr.reshape(SEGMENT, -1))
        return None if bits is None else header.unpack(bits, self._master)

    def _read_layers(self, number, head: Header, reading: _Reading, filled: np.ndarray, shape):
        """(the finest secret that can be read or None, how many layers could)."""
        places = _places(self._layers, self._layout, number, head)
        cipher = _layer_key(self._master, head.salt)
        shown, count, coarse_known = None, 0, True
        reading.know(Layer((0, 1), 1, ""), *_of_no_layer(places, head.rooms, filled))
        for i, layer in enumerate(self._layers):
            room = head.rooms[i]
            if layer.levels != (0, 1) and not coarse_known:
                break
            if not room:
                if layer.levels != (0, 1):
                    reading.know(
                        layer, places.symbols[i], filled[places.symbols[i]][:, np.array(layer.levels)]
                    )
                continue
            book = code.build(places.bits(i), 8 * room)
            llr = reading.llr(layer, places.symbols[i])
            enough = _OPTIMISM * levels.expected_information(llr) * len(llr) > 8 * room
            found = book.decode(llr) if enough else None
            message = None if found is None else _open(cipher, i, found)
            if message is None:
                coarse_known = False
                continue
            reading.know(layer, places.symbols[i], book.encode(found))
            decoded = decode_layer(message, shown, shape)
            if decoded is not None:
                shown, count = decoded, count + 1
        return shown, count

    def _restored(self, frames: np.ndarray) -> np.ndarray:
        """Through the restoration network, a few frames at a time."""
        out = []
        for first in range(0, len(frames), _RESTORED_TOGETHER):
            at = np.clip(np.arange(first - 1, first + _RESTORED_TOGETHER + 1), 0, len(frames) - 1)
            restored = self._restore(jnp.asarray(frames[at], jnp.float32)[None] / 255)[0, 1:-1]
            out.append(np.asarray(jnp.round(jnp.clip(restored, 0, 1) * 255).astype(jnp.uint8)))
        return np.concatenate(out)[: len(frames)]
