"""The entropy-coded data of a JPEG (ITU-T T.81, annexes C, F, G and K), made of coefficients.

No library writes it as it was: with the tables, restart intervals and scans of the file that it belongs to.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

_END_OF_BLOCK, _SIXTEEN_ZEROS = 0x00, 0xF0
_LONGEST_RUN, _MOST_HELD = 0x7FFF, 937  # blocks that end together, and bits that wait for them, in libjpeg
_LONGEST = 16  # bits of a code
AC, _NONE = 4, 8  # numbers of the first table of AC coefficients, those of DC have 0 to 3; and of no code
# Places of a block's coefficients [8, 8] in the order in which they are coded.
_DIAGONALS = ([i for i in range(64) if i // 8 + i % 8 == d] for d in range(15))  # each from top to bottom
ZIGZAG = np.array([i for d, found in enumerate(_DIAGONALS) for i in (found if d % 2 else found[::-1])])


class Component(NamedTuple):
    """A component of a scan."""

    blocks: np.ndarray  # int16 [rows, columns, 8, 8]
    across: int  # blocks of a unit, the sampling factors; 1 in a scan of its own
    down: int
    dc: int  # numbers of its tables
    ac: int


class Band(NamedTuple):
    """The part of the coefficients that a scan codes."""

    first: int = 0  # in zigzag order
    last: int = 63
    high: int = 0  # lowest bit of those coded before; 0: there are none
    low: int = 0  # lowest bit
    progressive: bool = False


ALL = Band()


class Table(NamedTuple):
    """A Huffman table, as its segment has it."""

    counts: bytes  # codes of 1 to 16 bits, [16]
    symbols: bytes  # in the order of their codes

    def codes(self) -> tuple[np.ndarray, np.ndarray]:
        """Return code and length of each symbol, int64 [256]; those without one have length 0."""
        codes, lengths, code, at = np.zeros(256, int), np.zeros(256, int), 0, 0
        for length, count in enumerate(self.counts, 1):
            for symbol in self.symbols[at : at + count]:
                codes[symbol], lengths[symbol] = code, length
                code += 1
            at, code = at + count, code << 1
        return codes, lengths


class Tokens(NamedTuple):
    """The content of a scan before it is coded."""

    tables: np.ndarray  # uint8 [n], of 9
    symbols: np.ndarray  # uint8 [n]
    extra: np.ndarray  # uint16 [n], the bits after the code
    bits: np.ndarray  # uint8 [n], their number
    starts: np.ndarray  # int [intervals], numbers of the first tokens after a restart


def tokens(
    components: Sequence[Component], width: int, height: int, restart: int, band: Band = ALL
) -> Tokens:
    """Take apart a scan.

    Args:
        components: of the scan.
        width: units in a row; ignored for a single component, whose units are its blocks.
        height: rows of units.
        restart: units between two restart markers; 0: there are none.
        band: of a progressive scan.
    """
    if len(components) == 1:
        height, width = components[0].blocks.shape[:2]
        components = [components[0]._replace(across=1, down=1)]
    if band.first:
        blocks = components[0].blocks.reshape(-1, 64)[:, ZIGZAG[band.first : band.last + 1]]
        return _progressive(blocks, AC + components[0].ac, restart or len(blocks), band)
    laid = [_units(component, width, height) for component in components]
    blocks = np.concatenate([values for values, _ in laid], 1)
    owners = np.repeat(np.arange(len(components)), [values.shape[1] for values, _ in laid])
    differences = np.zeros(blocks.shape[:2], np.int32)
    for i, (values, real) in enumerate(laid):
        filled = _filled(values[..., 0], real) >> band.low
        differences[:, owners == i] = (
            filled & 1 if band.high else _differences(filled, restart or len(values))
        )
    per_unit, flat = blocks.shape[1], blocks.reshape(-1, 64)
    first = np.arange(0, len(flat), (restart or len(blocks)) * per_unit)
    if band.progressive:
        return _dc_tokens(differences.ravel(), np.array([c.dc for c in components])[owners], band, first)
    dc, ac = (np.array(x)[owners] for x in ([c.dc for c in components], [AC + c.ac for c in components]))
    return _assemble(flat, differences.ravel(), *(np.tile(x, len(blocks)) for x in (dc, ac)), first)


def _units(component: Component, width: int, height: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the blocks [units, blocks of a unit, 64] in zigzag order and which of them are the picture's."""
    blocks, across, down = component.blocks, component.across, component.down
    rows, columns = blocks.shape[:2]
    padding = (0, height * down - rows), (0, width * across - columns)

    def arranged(x):
        x = np.pad(x, padding + ((0, 0),) * (x.ndim - 2))
        x = x.reshape(height, down, width, across, *x.shape[2:]).swapaxes(1, 2)
        return x.reshape(height * width, down * across, *x.shape[4:])

    return arranged(blocks.reshape(rows, columns, 64)[..., ZIGZAG]), arranged(np.ones((rows, columns), bool))


def _filled(values: np.ndarray, real: np.ndarray) -> np.ndarray:
    """Return DC coefficients, int32 [units, blocks]; blocks beyond the picture repeat the one before."""
    place = np.maximum.accumulate(np.where(real, np.arange(real.size).reshape(real.shape), 0).ravel())
    return values.ravel()[place].reshape(real.shape).astype(np.int32)


def _differences(values: np.ndarray, restart: int) -> np.ndarray:
    """Return DC coefficients [units, blocks] less the one before."""
    before = np.roll(values.ravel(), 1).reshape(values.shape)
    before[::restart, 0] = 0
    return values - before


def _sized(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the category of each value, the bits of its magnitude, and these bits."""
    size = np.frexp(np.abs(values).astype(np.float32))[1]
    return size, np.where(values < 0, values + (1 << size) - 1, values)


def _assemble(
    blocks: np.ndarray, differences: np.ndarray, dc: np.ndarray, ac: np.ndarray, first: np.ndarray
) -> Tokens:
    """Lay out the tokens of blocks [n, 64] in zigzag order; `first` are the blocks after a restart."""
    block, place = np.nonzero(blocks[:, 1:])
    new = np.diff(block, prepend=-1) != 0
    run = place - np.where(new, 0, np.roll(place, 1) + 1)
    sixteens = np.cumsum(run >> 4)
    counts = np.bincount(block, minlength=len(blocks))
    ends = np.cumsum(counts)
    total = np.concatenate([[0], np.arange(1, len(block) + 1) + sixteens])[ends]  # AC tokens to a block's end
    last = np.where(counts > 0, place[np.maximum(ends - 1, 0)] if len(place) else 0, -1)
    open_end = last < 62
    after = np.cumsum(1 + open_end) + total  # number of the next block's first token
    at_dc = np.concatenate([[0], after[:-1]])
    ended = np.cumsum(open_end) - open_end
    at_ac = block + ended[block] + 1 + np.arange(len(block)) + sixteens
    tables = np.repeat(ac, np.diff(np.concatenate([[0], after]))).astype(np.uint8)
    symbols = np.full(len(tables), _SIXTEEN_ZEROS, np.uint8)
    extra, bits = np.zeros(len(tables), np.uint16), np.zeros(len(tables), np.uint8)
    tables[at_dc] = dc
    size, rest = _sized(differences)
    symbols[at_dc], bits[at_dc], extra[at_dc] = size, size, rest
    size, rest = _sized(blocks[:, 1:][block, place].astype(np.int32))
    symbols[at_ac], bits[at_ac], extra[at_ac] = (run & 15) << 4 | size, size, rest
    symbols[after[open_end] - 1] = _END_OF_BLOCK
    return Tokens(tables, symbols, extra, bits, at_dc[first])


def _dc_tokens(values: np.ndarray, tables: np.ndarray, band: Band, first: np.ndarray) -> Tokens:
    """Return the tokens of a progressive scan of DC coefficients: differences, or a bit of each."""
    if band.high:
        nothing, one = np.zeros(len(values), np.uint8), np.ones(len(values), np.uint8)
        return Tokens(one * _NONE, nothing, values.astype(np.uint16), one, first)
    size, rest = _sized(values)
    tables = np.tile(tables, len(values) // len(tables)).astype(np.uint8)
    return Tokens(tables, size.astype(np.uint8), rest.astype(np.uint16), size.astype(np.uint8), first)


class _Runs:
    """Collects (symbol or -1, bits, their number); blocks that have nothing more are counted together."""

    def __init__(self):
        self.out, self.blocks, self.held = [], 0, []

    def end_block(self, bits: list[int]) -> None:
        """End a block, of which these bits are left."""
        self.blocks += 1
        self.held += bits
        if self.blocks == _LONGEST_RUN or len(self.held) > _MOST_HELD:
            self.flush()

    def flush(self) -> None:
        """Write what was counted."""
        if self.blocks:
            size = self.blocks.bit_length() - 1
            self.out.append((size << 4, self.blocks - (1 << size), size))
            self.put(self.held)
        self.blocks, self.held = 0, []

    def put(self, bits: list[int]) -> None:
        """Write bits as they are."""
        self.out += [(-1, bit, 1) for bit in bits]


def _progressive(blocks: np.ndarray, table: int, restart: int, band: Band) -> Tokens:
    """Return the tokens of a scan of AC coefficients [n, of the band], as libjpeg orders them."""
    runs, starts = _Runs(), []
    magnitudes = np.abs(blocks.astype(np.int32)) >> band.low
    rows, places = np.nonzero(magnitudes)
    values, signs = magnitudes[rows, places].tolist(), (blocks[rows, places] > 0).tolist()
    ends, places = np.searchsorted(rows, np.arange(len(blocks) + 1)).tolist(), places.tolist()
    code = _refined if band.high else _coded
    for number in range(len(blocks)):
        if number % restart == 0:
            runs.flush()
            starts.append(len(runs.out))
        part = slice(ends[number], ends[number + 1])
        code(runs, places[part], values[part], signs[part], blocks.shape[1])
    runs.flush()
    symbols, extra, bits = np.array(runs.out).T
    tables = np.where(symbols < 0, _NONE, table).astype(np.uint8)
    symbols = np.maximum(symbols, 0).astype(np.uint8)
    return Tokens(tables, symbols, extra.astype(np.uint16), bits.astype(np.uint8), np.array(starts))


def _coded(runs: _Runs, places: list[int], values: list[int], signs: list[bool], width: int) -> None:
    """Add a block's coefficients that are not 0."""
    before = -1
    for place, value, sign in zip(places, values, signs, strict=True):
        runs.flush()
        zeros, before, size = place - before - 1, place, value.bit_length()
        runs.out += [(_SIXTEEN_ZEROS, 0, 0)] * (zeros >> 4)
        runs.out.append(((zeros & 15) << 4 | size, value if sign else (1 << size) - 1 - value, size))
    if before < width - 1:
        runs.end_block([])


def _refined(runs: _Runs, places: list[int], values: list[int], signs: list[bool], width: int) -> None:
    """Add a bit of each coefficient of a block that was not 0 before, and those that are not 0 now."""
    last = max((place for place, value in zip(places, values, strict=True) if value == 1), default=-1)
    before, zeros, held = -1, 0, []
    for place, value, sign in zip(places, values, signs, strict=True):
        zeros, before = zeros + place - before - 1, place
        while zeros > 15 and place <= last:
            runs.flush()
            runs.out.append((_SIXTEEN_ZEROS, 0, 0))
            runs.put(held)
            zeros, held = zeros - 16, []
        if value > 1:
            held.append(value & 1)
            continue
        runs.flush()
        runs.out.append((zeros << 4 | 1, int(sign), 1))
        runs.put(held)
        zeros, held = 0, []
    if zeros + width - 1 - before or held:
        runs.end_block(held)


def frequencies(scan: Tokens) -> np.ndarray:
    """Count the symbols of each table, int64 [9, 256]."""
    return np.bincount(scan.tables.astype(int) << 8 | scan.symbols, minlength=9 * 256).reshape(9, 256)


def encode(scan: Tokens, tables: dict[int, Table]) -> bytes:
    """Return the coded data of a scan; every symbol must have a code."""
    codes, lengths = np.zeros((2, 9, 256), int)
    for number, table in tables.items():
        codes[number], lengths[number] = table.codes()
    used = scan.tables, scan.symbols
    bits = lengths[used] + scan.bits
    words = (codes[used] << scan.bits | scan.extra).astype(np.uint64)
    # Each restart interval starts at a byte of its own.
    before = np.cumsum(bits) - bits
    held = np.add.reduceat(bits, scan.starts)
    sizes = (held + 7) // 8
    begins = np.cumsum(sizes) - sizes
    shift = 8 * begins - before[scan.starts]
    at = before + np.repeat(shift, np.diff(np.append(scan.starts, len(bits))))
    words <<= (40 - bits - (at & 7)).astype(np.uint64)
    data = np.zeros(int(sizes.sum()) + 4)
    for i in range(5):
        part = (words >> np.uint64(32 - 8 * i) & np.uint64(255)).astype(float)
        data += np.bincount((at >> 3) + i, part, len(data))
    data = data.astype(np.uint8)
    data[begins + sizes - 1] |= ((1 << (8 * sizes - held)) - 1).astype(np.uint8)  # ones fill the last byte
    parts = [
        data[a : a + n].tobytes().replace(b"\xff", b"\xff\0") for a, n in zip(begins, sizes, strict=True)
    ]
    return parts[0] + b"".join(bytes([0xFF, 0xD0 + i % 8]) + part for i, part in enumerate(parts[1:]))


def best_table(counts: np.ndarray) -> Table:
    """Return the table, as libjpeg makes it (K.2), that codes symbols, counted int [256], in fewest bits."""
    weights = [int(n) for n in counts] + [1]  # the last one keeps a code of ones only from being used
    groups = {i: [i] for i, n in enumerate(weights) if n}
    depths = [0] * 257
    while len(groups) > 1:
        low, high = sorted(groups, key=lambda i: (weights[i], -i))[:2]
        weights[low] += weights[high]
        groups[low] += groups.pop(high)
        for i in groups[low]:
            depths[i] += 1
    spread = [depths.count(length) for length in range(1, max(depths) + 1)]
    for length in range(len(spread) - 1, _LONGEST - 1, -1):  # figure K.3
        while spread[length] > 0:
            shorter = next(j for j in range(length - 2, -1, -1) if spread[j])
            spread[length] -= 2
            spread[length - 1] += 1
            spread[shorter + 1] += 2
            spread[shorter] -= 1
    spread = (spread + [0] * _LONGEST)[:_LONGEST]
    spread[max(i for i, n in enumerate(spread) if n)] -= 1
    symbols = sorted((i for i in range(256) if depths[i]), key=lambda i: (depths[i], i))
    return Table(bytes(spread), bytes(symbols))
