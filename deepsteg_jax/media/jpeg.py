"""JPEG files as their quantised coefficients, read and written with no loss; no other file knows jpeglib.

A file is written as the one that it is made of, byte for byte, but for the entropy-coded data. Pictures of
Motion JPEG may lack the Huffman tables, which then are those of ITU-T T.81, K.3.
"""

import re
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import cache, lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import jpeglib
import numpy as np

from deepsteg_jax.errors import UserError
from deepsteg_jax.media import formats, huffman, images
from deepsteg_jax.media.huffman import ALL, Band, Component, Table, Tokens
from deepsteg_jax.media.images import shown
from deepsteg_jax.media.memory import Clip
from deepsteg_jax.media.outputs import check_place, destination, part_path, writing

_SOI, _EOI, _SOS, _DHT, _DQT, _DRI, _DNL, _COM = 0xD8, 0xD9, 0xDA, 0xC4, 0xDB, 0xDD, 0xDC, 0xFE
_APP0, _APP1, _APP2, _APP13 = 0xE0, 0xE1, 0xE2, 0xED
_PROGRESSIVE = 0xC2
_FRAMES = (0xC0, 0xC1, _PROGRESSIVE)
_OTHERS = (0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF)  # arithmetic codes, lossless, ...
_AFTER_SCAN = re.compile(rb"\xff+[^\x00\xff\xd0-\xd7]")
_EXIF, _MPF, _MP_ENTRIES = (
    b"Exif\0\0",
    b"MPF\0",
    0xB002,
)  # the table of pictures after the first one, CIPA DC-007
_AVI, _AVI_SIZES = b"AVI1", (6, 10)  # with and without padding, OpenDML AVI 1.02
_MOTION_JPEG_A = b"mjpg"  # in QuickTime, with the places of all segments
_TURNED = _EXIF + b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0%c\0\0\0\0\0\0\0"


class Coefficients(NamedTuple):
    """The quantised DCT coefficients of a picture, a plane for each component."""

    planes: tuple[np.ndarray, ...]  # int16 [rows, columns, 8, 8]
    steps: tuple[np.ndarray, ...]  # uint16 [8, 8], of the quantiser of each plane


class TimedCoefficients(NamedTuple):
    """A frame and its time."""

    frame: Coefficients
    time: int


class _Unfit(ValueError):
    """Says why a file's coefficients cannot be written."""


class _Segment(NamedTuple):
    """A marker and what belongs to it, up to the next one."""

    marker: int
    content: bytes  # without its length
    coded: bytes = b""  # data of a scan; of others what fills the file up to the next marker
    implied: bool = False  # not in the file

    def packed(self) -> bytes:
        return struct.pack(">BBH", 0xFF, self.marker, 2 + len(self.content)) + self.content + self.coded


class _File(NamedTuple):
    """A JPEG, taken apart."""

    segments: list[_Segment]
    tail: bytes  # from the end of the picture on
    components: dict[int, tuple[int, int, int]]  # by name: across, down, table of the quantiser
    units: tuple[int, int]  # columns and rows of them, in a scan of all components


class _Scan(NamedTuple):
    """A scan and the segments that its Huffman tables come from."""

    names: list[int]  # of its components
    tables: list[tuple[int, int]]  # of DC and AC, for each
    band: Band
    restart: int
    sources: dict[int, tuple[int, int]]  # by number of the table: segment, and place in it


def is_jpeg(path: str | Path | Clip) -> bool:
    """Return whether files of that name are JPEGs."""
    row = None if isinstance(path, Clip) else formats.find(path)
    return row is not None and row.name == "JPEG" and row.coding is not None


# --- segments -------------------------------------------------------------------------------------


def _parse(data: bytes) -> _File:
    """Take a JPEG apart; raise _Unfit if it is none that can be written."""
    if not data.startswith(images.START_OF_JPEG):
        raise _Unfit("it is no JPEG")
    segments, at = [], 2
    while True:
        while data[at : at + 2] == b"\xff\xff":
            at += 1
            if segments:
                segments[-1] = segments[-1]._replace(coded=segments[-1].coded + b"\xff")
        if at + 4 > len(data) and data[at + 1 :] != bytes([_EOI]) or data[at] != 0xFF:
            raise _Unfit("it is damaged")
        marker = data[at + 1]
        if marker == _EOI:
            break
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4])
        segment, at = _Segment(marker, data[at + 4 : end]), end
        if marker == _SOS:
            found = _AFTER_SCAN.search(data, end)
            if found is None:
                raise _Unfit("it is cut short")
            segment, at = segment._replace(coded=data[end : found.start()]), found.start()
        segments.append(segment)
    if all(segment.marker != _DHT for segment in segments):
        segments[:0] = _usual_tables()
    return _File(segments, data[at:], *_frame(segments))


@cache
def _usual_tables() -> list[_Segment]:
    """Return the Huffman tables of ITU-T T.81, K.3, which libjpeg writes by default."""
    segments = _parse(images.encode_jpeg(np.zeros((8, 8, 3), np.uint8), 75)).segments
    return [segment._replace(implied=True) for segment in segments if segment.marker == _DHT]


def _frame(segments: list[_Segment]) -> tuple[dict, tuple[int, int]]:
    """Return components and units of the picture; raise _Unfit if it is not of a kind that is written."""
    markers = [segment.marker for segment in segments]
    headers = [segment.content for segment in segments if segment.marker in _FRAMES]
    is_a = any(s.marker == _APP1 and s.content[4:8] == _MOTION_JPEG_A for s in segments)
    if len(headers) != 1 or _SOS not in markers or {_DNL, *_OTHERS} & set(markers) or is_a:
        raise _Unfit("it is a JPEG of a rare kind")
    bits, height, width, count = struct.unpack_from(">BHHB", headers[0])
    parts = [headers[0][6 + 3 * i : 9 + 3 * i] for i in range(count)]
    if bits != 8 or count not in (1, 3) or not width * height or len({name for name, _, _ in parts}) != count:
        raise _Unfit("it is neither grey nor in three colours of 8 bits")
    components = {name: (factors >> 4, factors & 15, table) for name, factors, table in parts}
    across, down = (max(part[i] for part in components.values()) for i in (0, 1))
    return components, (-(-width // (8 * across)), -(-height // (8 * down)))


def _tables(segment: _Segment) -> list[tuple[int, Table]]:
    """Return the Huffman tables of a segment with their numbers."""
    found, rest = [], segment.content
    while rest:
        count = sum(rest[1:17])
        found.append((rest[0] >> 4 << 2 | rest[0] & 3, Table(rest[1:17], rest[17 : 17 + count])))
        rest = rest[17 + count :]
    return found


def _scans(file: _File) -> dict[int, _Scan]:
    """Return the scans by the numbers of their segments."""
    found, sources, restart = {}, {}, 0
    is_progressive = any(segment.marker == _PROGRESSIVE for segment in file.segments)
    for i, (marker, content, *_) in enumerate(file.segments):
        if marker == _DHT:
            sources |= {number: (i, j) for j, (number, _) in enumerate(_tables(file.segments[i]))}
        elif marker == _DRI:
            restart = int.from_bytes(content[:2])
        elif marker == _SOS:
            parts = [content[1 + 2 * j : 3 + 2 * j] for j in range(content[0])]
            names, tables = [name for name, _ in parts], [(t >> 4 & 3, t & 3) for _, t in parts]
            first, last, bits = content[1 + 2 * content[0] :][:3]
            band = Band(first, last, bits >> 4, bits & 15, is_progressive) if is_progressive else ALL
            found[i] = _Scan(names, tables, band, restart, dict(sources))
    return found


# --- reading --------------------------------------------------------------------------------------


def _decoded(file: _File) -> Coefficients:
    """Decode the coefficients of a file, in the order of its components."""
    kept = (*_FRAMES, _DQT, _DHT, _DRI, _SOS)  # no more: jpeglib has room for few markers
    data = _joined(s for s in file.segments if s.marker in kept) + b"\xff\xd9"
    with TemporaryDirectory() as folder:
        path = Path(folder) / "cover.jpg"
        path.write_bytes(data)
        found = jpeglib.read_dct(str(path))
        found.load()
    planes = [found.Y] if len(file.components) == 1 else [found.Y, found.Cb, found.Cr]
    if any(plane is None for plane in planes):
        raise _Unfit("its components are not Y, Cb and Cr")
    steps = (np.array(found.qt[table]) for _, _, table in file.components.values())
    return Coefficients(tuple(np.array(plane) for plane in planes), tuple(steps))


def decode(data: bytes, alone: bool = False) -> Coefficients:
    """Return the coefficients of a JPEG in memory.

    Args:
        data: the file.
        alone: whether a second picture behind the first, the other field of an interlaced frame, is refused.

    Raises:
        ValueError: it is none that can be written.
    """
    try:
        file = _parse(data)
        if alone and images.START_OF_JPEG in file.tail:
            raise _Unfit("it is interlaced")
        return _decoded(file)
    except _Unfit:
        raise
    except (RuntimeError, LookupError, ValueError, struct.error) as error:
        raise _Unfit("it is damaged") from error


def _read(path: str | Path) -> Coefficients:
    """Read a file; raise _Unfit if its coefficients cannot be written."""
    try:
        return decode(Path(path).read_bytes())
    except OSError as error:
        raise _Unfit("it is damaged") from error


def read_coefficients(path: str | Path) -> Iterator[TimedCoefficients]:
    """Yield the one frame of a JPEG; raise UserError if it is none whose coefficients can be written."""
    try:
        yield TimedCoefficients(_read(path), 0)
    except _Unfit as error:
        raise UserError(f"{shown(path)} cannot be used as a JPEG: {error}") from error


def check_jpeg(cover: str | Path, output: str | Path, inputs: Iterable[str | Path]) -> None:
    """Raise UserError unless `cover` is a JPEG that can become `output`, which is none of `inputs`."""
    if not is_jpeg(output):
        raise UserError(f"{shown(output)} cannot be the output: the cover stays a JPEG; use .jpg")
    try:
        next(read_coefficients(cover))
    except UserError as error:
        raise UserError(f"{error}; or use .png") from None
    check_place(output, inputs)


def count_nonzero(path: str | Path, read: Callable = read_coefficients) -> int:
    """Count the AC coefficients other than 0 of the first frame; 0 where they cannot be written."""
    about = Path(path).stat()
    return _count_nonzero(str(path), about.st_mtime_ns, about.st_size, read)


@lru_cache(maxsize=8)
def _count_nonzero(path: str, changed: int, size: int, read: Callable) -> int:
    del changed, size
    with suppress(UserError):
        return nonzero(next(read(path)).frame)
    return 0


def nonzero(frame: Coefficients) -> int:
    """Count the AC coefficients other than 0."""
    return sum(int(np.count_nonzero(x)) - int(np.count_nonzero(x[..., 0, 0])) for x in frame.planes)


# --- writing --------------------------------------------------------------------------------------


def replace_coefficients(data: bytes, frame: Coefficients) -> bytes:
    """Return a JPEG with other coefficients; all else is as it was.

    Huffman tables stay, but for those that lack a code now, and for those that were the best ones for what
    they coded and are so again.
    """
    file = _parse(data)
    scans = _scans(file)
    before, after = _all_tokens(file, scans, frame.planes)
    tables = {source: _fitted(source, file, scans, before, after) for source in _sources(scans)}
    segments = list(file.segments)
    for i, segment in enumerate(segments):
        if segment.marker == _DHT:
            parts = [(n, tables.get((i, j), table)) for j, (n, table) in enumerate(_tables(segment))]
            content = b"".join(bytes([n >> 2 << 4 | n & 3]) + b"".join(table) for n, table in parts)
            segments[i] = segment._replace(content=content)
    for i, scan in scans.items():
        used = {number: tables[source] for number, source in scan.sources.items()}
        segments[i] = segments[i]._replace(coded=huffman.encode(after[i], used))
    size = sum(len(segment.packed()) for segment in segments) - sum(len(s.packed()) for s in file.segments)
    return _joined(_moved(segment, size) for segment in segments if not segment.implied) + file.tail


def _joined(segments: Iterable[_Segment]) -> bytes:
    return b"\xff\xd8" + b"".join(segment.packed() for segment in segments)


def _all_tokens(file: _File, scans: dict, planes: Sequence[np.ndarray]) -> tuple[dict, dict]:
    """Return the tokens of a file and those of other planes, by scan.

    Where the blocks beyond the picture, which fill its last units, are not as libjpeg makes them, they stay.
    """
    whole = _decoded(file._replace(segments=[_filled(segment, file) for segment in file.segments])).planes
    own = [x[: y.shape[0], : y.shape[1]] for x, y in zip(whole, planes, strict=True)]
    before, usual = ({i: _tokens(file, scan, x) for i, scan in scans.items()} for x in (whole, own))
    if not all(np.array_equal(*pair) for i in scans for pair in zip(before[i], usual[i], strict=True)):
        inner, planes = planes, [plane.copy() for plane in whole]
        for plane, part in zip(planes, inner, strict=True):
            plane[: part.shape[0], : part.shape[1]] = part
    return before, {i: _tokens(file, scan, planes) for i, scan in scans.items()}


def _filled(segment: _Segment, file: _File) -> _Segment:
    """Enlarge the picture in its header to whole units, if all its scans have whole units."""
    scans = [s.content[0] for s in file.segments if s.marker == _SOS]
    if segment.marker not in _FRAMES or scans != [len(file.components)] or len(file.components) == 1:
        return segment
    across, down = (8 * max(part[i] for part in file.components.values()) for i in (0, 1))
    size = struct.pack(">HH", file.units[1] * down, file.units[0] * across)
    return segment._replace(content=segment.content[:1] + size + segment.content[5:])


def _tokens(file: _File, scan: _Scan, planes: tuple[np.ndarray, ...]) -> Tokens:
    by_name = dict(zip(file.components, planes, strict=True))
    parts = [
        Component(by_name[name], *file.components[name][:2], *numbers)
        for name, numbers in zip(scan.names, scan.tables, strict=True)
    ]
    return huffman.tokens(parts, *file.units, scan.restart, scan.band)


def _sources(scans: dict[int, _Scan]) -> set[tuple[int, int]]:
    return {source for scan in scans.values() for source in scan.sources.values()}


def _fitted(
    source: tuple[int, int], file: _File, scans: dict, before: dict[int, Tokens], after: dict[int, Tokens]
) -> Table:
    """Return the table to write in place of one of the file's."""
    number, table = _tables(file.segments[source[0]])[source[1]]
    users = [i for i, scan in scans.items() if scan.sources.get(number) == source]
    old, new = (
        sum(huffman.frequencies(found[i])[number] for i in users) if users else np.zeros(256, int)
        for found in (before, after)
    )
    is_best = old.any() and table == huffman.best_table(old)
    lacks = np.any((new > 0) & (table.codes()[1] == 0))
    return huffman.best_table(new) if is_best or lacks else table


def _moved(segment: _Segment, size: int) -> _Segment:
    """Correct what a segment says of the size of the picture, which grew by `size` bytes."""
    content = segment.content
    if segment.marker == _APP0 and content.startswith(_AVI):
        return segment._replace(content=_grown(content, _AVI_SIZES, size))
    if segment.marker != _APP2 or not content.startswith(_MPF):
        return segment
    start, content = len(_MPF), bytearray(content)
    order = "<" if content[start : start + 2] == b"II" else ">"
    with suppress(struct.error):
        (first,) = struct.unpack_from(f"{order}I", content, start + 4)
        (count,) = struct.unpack_from(f"{order}H", content, start + first)
        fields = [
            struct.unpack_from(f"{order}HHII", content, start + first + 2 + 12 * i) for i in range(count)
        ]
        for _, _, length, at in (field for field in fields if field[0] == _MP_ENTRIES):
            for entry in range(start + at, start + at + length, 16):
                field = (
                    entry + 4 if entry == start + at else entry + 8
                )  # its size, or the place of the others
                content = bytearray(_grown(content, (field,), size, order))
    return segment._replace(content=bytes(content))


def _grown(content: bytes, fields: Sequence[int], size: int, order: str = ">") -> bytes:
    """Add `size` to the 32 bits at some places, as far as there are any and they are not 0."""
    content = bytearray(content)
    with suppress(struct.error):
        for field in fields:
            (value,) = struct.unpack_from(f"{order}I", content, field)
            struct.pack_into(f"{order}I", content, field, value + size if value else 0)
    return bytes(content)


def without_tags(data: bytes, turn: int) -> bytes:
    """Return a JPEG without tags, comments and further pictures, but for `turn`, Exif's orientation."""
    file = _parse(data)

    def is_tag(segment):
        further = segment.marker == _APP2 and segment.content.startswith(_MPF)
        return further or segment.marker in (_APP1, _APP13, _COM)

    kept = [segment for segment in file.segments if not (is_tag(segment) or segment.implied)]
    if turn != 1:
        kept.insert(int(kept[0].marker == 0xE0), _Segment(_APP1, _TURNED % turn))
    return _joined(kept) + b"\xff\xd9"


class JpegWriter:
    """Context manager that writes a JPEG with the coefficients of another; it gets its name at the end."""

    def __init__(self, path: str | Path, source: str | Path, drop_tags: bool = False):
        """Prepare to write `path` as `source` is."""
        self._path, self._source, self._drop_tags = Path(path), Path(source), drop_tags
        self._goal = destination(path)
        self._part, self._written = part_path(self._goal), False

    def __enter__(self) -> "JpegWriter":
        """Return itself."""
        return self

    def write(self, frame: Coefficients, time: int = 0) -> None:
        """Take the one frame."""
        with writing(self._path):
            data = replace_coefficients(self._source.read_bytes(), frame)
            if self._drop_tags:
                data = without_tags(data, images.orientation(self._source))
            self._part.write_bytes(data)
        self._written = True

    def __exit__(self, kind: type | None, *rest: object) -> None:
        """Give the file its name; after an exception remove it."""
        try:
            if kind is None and self._written:
                with writing(self._path):
                    self._part.replace(self._goal)
        finally:
            images.remove(self._part)
