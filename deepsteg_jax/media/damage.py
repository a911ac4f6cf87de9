"""Damage that FFmpeg only logs, found in the bytes themselves: cut files and FFV1 slices with a wrong CRC."""

import zlib
from pathlib import Path
from typing import BinaryIO

_MIRROR = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))  # each byte with its bits reversed


def ffv1_slices(data: bytes) -> tuple[list[bytes], bool]:
    """Slices of an FFV1 packet, last first, and whether they fill it exactly.

    Each ends with its size (3 bytes, without this trailer), a status byte and 4 bytes of CRC.
    """
    parts, end = [], len(data)
    while end >= 8:
        size = int.from_bytes(data[end - 8 : end - 5], "big") + 8
        if size > end or size == 8:  # no slice is empty: these are zeros
            break
        parts.append(data[end - size : end])
        end -= size
    return parts, end == 0


def crc_is_right(part: bytes) -> bool:
    """Whether an FFV1 slice, trailer included, agrees with its CRC-32."""
    # FFV1 runs CRC-32 most significant bit first and from 0; zlib runs it the other way round and from ~0.
    return zlib.crc32(part.translate(_MIRROR), 0xFFFFFFFF) == 0xFFFFFFFF


def is_cut(path: Path) -> bool:
    """Whether a matroska, mp4 or avi file ends before its outermost element says it does."""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(12)
        file.seek(0)
        if head[:4] == b"\x1a\x45\xdf\xa3":
            return _matroska_end(file, size) > size
        if head[4:8] in (b"ftyp", b"moov", b"mdat", b"free", b"wide", b"skip", b"styp"):
            return _boxes_end(file, size) > size
        if head[:4] == b"RIFF" and head[8:] == b"AVI ":
            return int.from_bytes(head[4:8], "little") + 8 > size
    return False


def _matroska_end(file: BinaryIO, size: int) -> int:
    """Where the segment ends; 0 if it does not say."""
    for _ in range(2):  # the EBML header, then the segment
        file.read(4)
        first = file.read(1)
        if not first or not first[0]:
            return 0
        length = 9 - first[0].bit_length()
        value = int.from_bytes(first + file.read(length - 1), "big")
        value &= (1 << 7 * length) - 1
        if value == (1 << 7 * length) - 1:  # unknown: a live recording
            return 0
        end = file.tell() + value
        file.seek(min(end, size))
    return end


def _boxes_end(file: BinaryIO, size: int) -> int:
    """Where the last of the outermost boxes ends, as far as they are boxes at all."""
    end = 0
    while end < size:
        file.seek(end)
        head = file.read(16)
        length = int.from_bytes(head[:4], "big")
        if length == 1:
            length = int.from_bytes(head[8:16], "big")
        if head[4:8] not in (b"ftyp", b"moov", b"mdat", b"moof", b"free", b"wide", b"skip", b"styp", b"sidx"):
            break  # rubbish at the end, or a rarer box: nothing can be told
        if length < 8:
            break
        end += length
    return end
