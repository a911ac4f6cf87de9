"""What HEIF, AVIF and JPEG 2000 files say of a picture and Pillow does not tell (ISO/IEC 23008-12)."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from deepsteg_jax.media.codecs import Colour

_LARGEST = 2**24  # bytes of the description, far more than any has
_STILLS = (b"avif", b"heic", b"heix", b"heim", b"heis", b"mif1", b"mif2", b"miaf", b"jpeg", b"j2ki", b"vvic")
_SEQUENCES = (b"msf1", b"hevc", b"hevx", b"avcs", b"avis")
_HANDLER_END = 24  # bytes of a description: version, and the box hdlr up to its kind
_FULL = 4  # bytes of version and flags


class Crop(NamedTuple):
    """A part of a picture, in pixels."""

    left: int
    top: int
    right: int
    bottom: int


def is_still(path: Path) -> bool:
    """Return whether a file says that it is a picture, and no sequence of them."""
    brand = _brand(path)
    if not brand or brand in _STILLS or brand in _SEQUENCES:
        return brand in _STILLS
    described = _outer_box(path, b"meta")[:_HANDLER_END]
    return described.endswith(b"pict") and not _outer_box(path, b"moov")


def is_sequence(path: Path) -> bool:
    """Return whether a file says that it is a sequence of pictures with times."""
    return _brand(path) in _SEQUENCES


def _brand(path: Path) -> bytes:
    with path.open("rb") as file:
        head = file.read(12)
    return head[8:] if head[4:8] == b"ftyp" else b""


def describe(path: Path, size: tuple[int, int]) -> tuple[Colour, Crop | None]:
    """Return the colour tags of a picture, and what is shown of its `size` (width, height); None: all.

    A damaged description is one without tags.
    """
    try:
        found = dict(_properties(_outer_box(path, b"meta")[_FULL:]))
        return _colour(found.get(b"colr", b"")), _crop(found.get(b"clap"), size)
    except (ValueError, IndexError, ZeroDivisionError):
        return Colour(), None


def _boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = 0
    while at + 8 <= len(data):
        length = int.from_bytes(data[at : at + 4], "big") or len(data) - at
        if length < 8:
            raise ValueError("no box")
        yield data[at + 4 : at + 8], data[at + 8 : at + length]
        at += length


def jp2_profile(path: Path) -> bytes:
    """Return the colour profile of a JPEG 2000 file (ISO/IEC 15444-1, I.5.3.3); none if it has none."""
    with suppress(ValueError):
        for kind, content in _boxes(_outer_box(path, b"jp2h")):
            if kind == b"colr" and content[:1] in b"\2\3":  # by a restricted or by any profile
                return content[3:]
    return b""


def _outer_box(path: Path, kind: bytes) -> bytes:
    """Return the content of the first of the outermost boxes of a kind; none if there is none."""
    with path.open("rb") as file:
        while head := file.read(8):
            length, read = int.from_bytes(head[:4], "big"), 8
            if length == 1:
                length, read = int.from_bytes(file.read(8), "big"), 16
            if head[4:] == kind and read <= length < _LARGEST:
                return file.read(length - read)
            if not read <= length < 2**60:  # nonsense, which no file could be sought to
                break
            file.seek(length - read, 1)
    return b""


def _properties(meta: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield kind and content of the properties of the primary item; tags in numbers after a profile."""
    boxes = dict(_boxes(meta))
    primary = boxes.get(b"pitm", b"")
    item = int.from_bytes(primary[_FULL:], "big")
    parts = list(_boxes(boxes.get(b"iprp", b"")))
    stock = list(_boxes(dict(parts).get(b"ipco", b"")))
    for kind, table in parts:
        if kind == b"ipma":
            used = [stock[number - 1] for number in _associated(table, item) if number]
            yield from sorted(used, key=lambda one: one[1][:4] == b"nclx")


def _associated(table: bytes, item: int) -> list[int]:
    """Return the numbers of an item's properties out of the table of them, counted from 1."""
    long_items, long_numbers = table[0] > 0, table[3] & 1
    wide, size = (4 if long_items else 2), (2 if long_numbers else 1)
    at, numbers = 8, []
    for _ in range(int.from_bytes(table[4:8], "big")):
        number, count = int.from_bytes(table[at : at + wide], "big"), table[at + wide]
        at += wide + 1
        if number == item:
            entries = [table[i : i + size] for i in range(at, at + count * size, size)]
            numbers += [int.from_bytes(entry, "big") & (2 ** (8 * size - 1) - 1) for entry in entries]
        at += count * size
    return numbers


def _colour(content: bytes) -> Colour:
    if content[:4] != b"nclx":
        return Colour()
    primaries, transfer = (int.from_bytes(content[at : at + 2], "big") for at in (4, 6))
    return Colour(primaries=primaries, transfer=transfer)


def _crop(content: bytes | None, size: tuple[int, int]) -> Crop | None:
    """Return the clean aperture: width, height and offset of the centre as fractions."""
    if content is None:
        return None
    numbers = [int.from_bytes(content[at : at + 4], "big", signed=True) for at in range(0, 32, 4)]
    shown_width, shown_height, right, down = (a / b for a, b in zip(numbers[::2], numbers[1::2], strict=True))
    left, top = (size[0] - shown_width) / 2 + right, (size[1] - shown_height) / 2 + down
    crop = Crop(round(left), round(top), round(left + shown_width), round(top + shown_height))
    inside = 0 <= crop.left < crop.right <= size[0] and 0 <= crop.top < crop.bottom <= size[1]
    return crop if inside else None
