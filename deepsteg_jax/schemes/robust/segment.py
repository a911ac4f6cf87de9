"""A segment as sender and receiver both know it: the symbols, filler bits and keys of its layers."""

import math
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESCCM
from ml_collections import ConfigDict

from deepsteg_jax import keys
from deepsteg_jax.channels import ladder
from deepsteg_jax.keystream import numpy_bits
from deepsteg_jax.models import symbols as symbol_model
from deepsteg_jax.models.symbols import MACROBLOCK, block_scale
from deepsteg_jax.schemes.robust import code, fine, geometry, header, layout, levels
from deepsteg_jax.schemes.robust.fine import Fine
from deepsteg_jax.schemes.robust.header import Header
from deepsteg_jax.schemes.robust.layout import COARSE, FINE, HALF, SEGMENT, Layer, Layout
from deepsteg_jax.schemes.robust.modem import macroblocks_of, repeats_of
from deepsteg_jax.schemes.slots import ALONE, Slot

_TAG, _END = 8, b"\x80"  # of a layer's message: bytes of the authentication tag, and its end mark
OVERHEAD = _TAG + len(_END)  # bytes of a layer's capacity that its message cannot have
_OPTIMISM = 1.4  # factor on the expected information, which is often too low; larger messages are not tried


class Format(NamedTuple):
    """The knowledge that both parties have before the first segment, for frames of one size."""

    layers: tuple[Layer, ...]
    layout: Layout
    repeats: list[int]  # numbers of frames that may share symbols
    fine: Fine
    macroblocks: int  # of a frame, of the fine symbols
    master: bytes
    top: float  # of the density of errors, see `symbol_model.error_density`

    @property
    def places_known(self) -> bool:
        """Whether no layer has finer levels: the filler then says where in its quarter each symbol is."""
        return all(layer.coarse or layer.levels == FINE for layer in self.layers)

    def quarter_shares(self, read: np.ndarray, bits: np.ndarray) -> np.ndarray:
        """Return probabilities of quarters, [..., 4], as far as their symbols are known.

        Args:
            read: see `Modem.read`, [3, ...].
            bits: of the filler, uint8 [..., LEVELS].
        """
        at = levels.finest_starts(bits) if self.places_known else None
        return levels.quarter_shares(*read, at, self.top)

    def header_llr(self, read: np.ndarray, frames: Iterable[int]) -> np.ndarray:
        """Return log-likelihood ratios of the header in these frames of a segment, [n, header symbols, 2]."""
        count = len(self.layout.header)
        finer = np.stack([header.finer_bits(frame, count, self.master) for frame in frames])
        bits = np.pad(finer, ((0, 0), (0, 0), (2, 0)))
        return levels.share_llr(self.quarter_shares(read[:, :, self.layout.header], bits))

    def segment(self, number: int, header: Header) -> "Segment":
        """Lay out the segment of a number, counted from 0, and a header."""
        here, frames = self.layout, len(_starts(header))
        pilots, free = self.fine.indices(number, header.length, self.macroblocks)
        shares = [layer.share for layer in self.layers if layer.coarse]
        coarse, finer = iter(here.coarse_indices(number, frames, shares)), here.finer_indices(number, frames)
        indices = tuple(
            next(coarse) if layer.coarse else free if layer.levels == FINE else finer for layer in self.layers
        )
        return Segment(self, number, header, indices, pilots)


def make_format(
    config: ConfigDict, master: bytes, height: int, width: int, slot: Slot = ALONE, exact: bool = True
) -> Format:
    """Return the format of a whole config for the holder of a key, in a slot of frames of one size.

    Not `exact`: of a sender whose stego will be coded with loss; without fine symbols, which this erases.

    Raises:
        UserError: `config.secret_layers` or `repeats` makes no sense, or the frames are too small.
    """
    carriers, scale = symbol_model.carriers_of(config.model), block_scale(config.lines, height, width)
    shape = height // scale // MACROBLOCK, width // scale // MACROBLOCK
    key = master if slot == ALONE else keys.subkey(master, f"robust slot {slot.number} of {slot.of}")
    own, grid = geometry.share(carriers, *shape, slot), geometry.make_grid(carriers, master)
    coefficient = 4 * math.prod(shape) * (config.data.frames == 1)
    known = grid.symbols(carriers, *shape, slot)
    *coarser, last = layers = layout.layers_of(config)
    erased = not exact and last.levels == FINE and all(map(ladder.is_exact, last.codecs))
    return Format(
        tuple(coarser) if erased else layers,
        layout.make(key, own, header.BITS, config.overhead, known, coefficient),
        repeats_of(config),
        fine.make(config.fine, len(config.model.luma), key, slot),
        macroblocks_of(height, width),
        key,
        symbol_model.top_of(config.model),
    )


def _starts(header: Header) -> range:
    """Return the frames of a segment in which symbols begin."""
    return range(0, header.length, header.repeat)


class Segment(NamedTuple):
    """A segment as its header describes it.

    Symbols are flat over the frames in which they begin. Those of the layer FINE are symbols of their own,
    flat over all frames.
    """

    format: Format
    number: int  # in the stego, from 0 on
    header: Header
    indices: tuple[np.ndarray, ...]  # int: which symbols each layer has
    fine_pilots: np.ndarray  # int [length, m]: which of the fine symbols are known

    @property
    def first(self) -> int:
        """Number of its first frame in the stego."""
        return self.number * SEGMENT

    @property
    def starts(self) -> range:
        """The frames, counted from its first one, in which symbols begin."""
        return _starts(self.header)

    @property
    def uses_fine(self) -> bool:
        """Whether there is a layer of fine symbols."""
        return self.format.layers[-1].levels == FINE

    def own(self) -> np.ndarray:
        """Return which symbols of a frame belong to the slot, bool [symbols]."""
        return self.format.layout.own

    def fine_own(self) -> np.ndarray:
        """Return which of the fine symbols do, bool [symbols of all frames]."""
        return np.tile(self.format.fine.share(self.format.macroblocks), self.header.length)

    def with_header(self, **changes) -> "Segment":
        """Return it with another salt or other capacities, which leave the indices as they are."""
        return self._replace(header=self.header._replace(**changes))

    def filler(self) -> np.ndarray:
        """Return its bits before layers are written, uint8 [frames with symbols, symbols, LEVELS].

        Pilots, header, and for all else a keystream that layers are added to. So the receiver knows unused
        bits too, and errors of a code's repetitions do not add up where a codec turns all symbols into a few.
        """
        here, master = self.format.layout, self.format.master
        shape = len(self.starts), here.symbols, levels.LEVELS
        key = keys.subkey(master, f"robust filler {self.header.salt.hex()}")
        bits = numpy_bits(key, 0, math.prod(shape)).reshape(shape)
        packed, count = header.pack(self.header, master), 2 * len(here.header)
        for line, frame in zip(bits, self.starts, strict=True):
            line[here.grid] = here.grid_bits(self.first + frame)
            line[here.pilots] = here.pilot_bits(self.first + frame)
            line[here.references] = here.reference_bits(self.first + frame)
            line[here.header, :2] = header.carried_bits(packed, frame, count, master).reshape(-1, 2)
            if self.format.places_known:
                line[here.header, 2:] = header.finer_bits(frame, len(here.header), master)
        return bits

    def fine_filler(self) -> np.ndarray:
        """Return the bits of the fine symbols before a layer is written, uint8 [symbols, fine.BITS]."""
        return self.format.fine.filler(self.header.salt, self.header.length, self.format.macroblocks)

    def pilots(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the symbols of a frame that are pilots of either kind, [n], and phases, [length, n]."""
        here, frames = self.format.layout, range(self.first, self.first + self.header.length)
        bits = np.stack([np.concatenate([here.grid_bits(i), here.pilot_bits(i)]) for i in frames])
        return np.append(here.grid, here.pilots), levels.to_phases(bits)

    def filled(self, messages=()) -> tuple[np.ndarray, np.ndarray]:
        """Return the bits of all symbols, and of the fine ones, with the messages of the layers."""
        bits, fine_bits = self.filler(), self.fine_filler()
        flat = bits.reshape(-1, levels.LEVELS)
        for i, (message, capacity) in enumerate(zip(messages, self.header.capacities, strict=False)):
            if not capacity:
                continue
            layer, symbols, coded = self.format.layers[i], self.indices[i], self._sealed(i, message)
            if layer.levels == FINE:
                fine_bits[symbols] ^= coded.reshape(-1, fine.BITS)
            else:
                written = np.array(COARSE if layer.coarse else layer.levels)
                flat[symbols[:, None], written] ^= coded.reshape(-1, len(layer.levels))
        return bits, fine_bits

    def unused(self, filler: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the indices of symbols whose quarters no layer uses, and their bits, uint8 [m, 2].

        `filler`: its bits, flat over the frames.
        """
        free = np.ones(len(filler), bool)
        for layer, symbols, capacity in zip(
            self.format.layers, self.indices, self.header.capacities, strict=False
        ):
            if layer.coarse and capacity:
                free[symbols] = False
        return np.flatnonzero(free), filler[free][:, :2]

    def opened(self, i: int, llr: np.ndarray) -> tuple[bytes, np.ndarray] | None:
        """Return the message of layer `i` and its coded bits; None if these ratios do not give them.

        `llr`: log-likelihood ratios of the bits that were added to the filler.
        """
        size = 8 * self.header.capacities[i]
        if _OPTIMISM * levels.expected_information(llr) * len(llr) <= size:
            return None
        ecc = code.build(len(llr), size)
        bits = ecc.decode(llr)
        if bits is None:
            return None
        try:
            message = self._cipher().decrypt(_nonce(i), np.packbits(bits).tobytes(), None)
        except InvalidTag:
            return None
        return message.rstrip(b"\0").removesuffix(_END), ecc.encode(bits)

    def _sealed(self, i: int, message: bytes) -> np.ndarray:
        """Seal and encode the message of layer `i`; return its coded bits."""
        layer, capacity = self.format.layers[i], self.header.capacities[i]
        length = len(self.indices[i]) * (len(layer.levels) or fine.BITS)
        padded = (message + _END).ljust(capacity - _TAG, b"\0")
        sealed = np.frombuffer(self._cipher().encrypt(_nonce(i), padded, None), np.uint8)
        return code.build(length, 8 * capacity).encode(np.unpackbits(sealed))

    def _cipher(self) -> AESCCM:
        purpose = f"robust layers {self.number} {self.header.salt.hex()}"
        return AESCCM(keys.subkey(self.format.master, purpose), tag_length=_TAG)


def _nonce(layer: int) -> bytes:
    return layer.to_bytes(12, "little")


class Reading:
    """Log-likelihood ratios of a segment's symbols, of finer levels once the coarser ones are known."""

    def __init__(self, shared: Format, read: np.ndarray, filler: np.ndarray):
        """Take what `Modem.read` returns, [3, n] flat over the segment, and the filler, uint8 [n, LEVELS]."""
        self._read, self._top, self._filler = read, shared.top, filler[:, :2]
        self._shares = shared.quarter_shares(read, filler)
        self._coarse = levels.share_llr(self._shares)
        self._bits = (self._coarse < 0).astype(np.uint8)
        self._start = None

    def llr(self, layer: Layer, symbols: np.ndarray) -> np.ndarray:
        """Return the ratios of all bits of a layer, one symbol after the other."""
        if layer.levels == COARSE:
            return self._coarse[symbols].ravel()
        if layer.levels == HALF:
            return levels.half_llr(self._shares[symbols], self._filler[symbols])
        read = (x[symbols] for x in self._read)
        starts = self._starts()[symbols]
        return levels.finer_llr(*read, starts, layer.levels[0], len(layer.levels), self._top).ravel()

    def know(self, symbol_levels: tuple[int, ...], symbols: np.ndarray, bits: np.ndarray) -> None:
        """Take the bits of some levels as known, in the order of `llr`."""
        bits = bits.reshape(len(symbols), -1)
        if symbol_levels == COARSE:
            self._bits[symbols] = bits
            return
        if symbol_levels == HALF:
            self._bits[symbols] = self._filler[symbols] ^ bits ^ self._filler[symbols, :1]
            return
        for level, column in zip(symbol_levels, bits.T, strict=True):
            self._starts()[symbols] = levels.finer_start(self._starts()[symbols], column, level)

    def _starts(self) -> np.ndarray:
        """Return where the known intervals begin; the first call takes the quarters as known."""
        if self._start is None:
            self._start = levels.quarter_starts(self._bits)
        return self._start
