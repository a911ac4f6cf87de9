"""Damage that FFmpeg only logs, found in the bytes themselves, and decoding up to it or past it."""

import zlib
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import BinaryIO

import av

ERRORS = (av.error.FFmpegError, OSError)  # that reading and writing a file may raise

_BOXES = (b"ftyp", b"moov", b"mdat", b"moof", b"meta", b"free", b"wide", b"skip", b"styp", b"sidx")
_MIRROR = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))  # each byte with its bits reversed


def ffv1_slices(data: bytes) -> tuple[list[bytes], bool]:
    """Split an FFV1 packet into slices, last first, and whether they fill it exactly.

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
    """Return whether an FFV1 slice, trailer included, agrees with its CRC-32."""
    # FFV1 runs CRC-32 most significant bit first and from 0; zlib runs it the other way round and from ~0.
    return zlib.crc32(part.translate(_MIRROR), 0xFFFFFFFF) == 0xFFFFFFFF


def is_cut(path: Path) -> bool:
    """Return whether a matroska, mp4 or avi file ends before its outermost element says it does."""
    size = path.stat().st_size
    with path.open("rb") as file:
        header = file.read(12)
        file.seek(0)
        if header[:4] == b"\x1a\x45\xdf\xa3":
            return _matroska_end(file, size) > size
        if header[4:8] in (b"ftyp", b"moov", b"mdat", b"free", b"wide", b"skip", b"styp"):
            return _boxes_end(file, size) > size
        if header[:4] == b"RIFF" and header[8:] == b"AVI ":
            return int.from_bytes(header[4:8], "little") + 8 > size
    return False


def _matroska_end(file: BinaryIO, size: int) -> int:
    """Return where the segment ends; 0 if it does not say."""
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
    """Return where the last of the outermost boxes ends, as far as they are boxes at all."""
    end = 0
    while end < size:
        file.seek(end)
        box = file.read(16)
        length = int.from_bytes(box[:4], "big")
        if length == 1:
            length = int.from_bytes(box[8:16], "big")
        if box[4:8] not in _BOXES:
            break  # rubbish at the end, or a rarer box: nothing can be told
        if length < 8:
            break
        end += length
    return end


def up_to_damage(
    packets: Iterable[av.Packet], decoder: av.VideoCodecContext, check: "Ffv1Check | None", cut: bool
) -> Iterator[av.VideoFrame]:
    """Yield the frames before the first damage, then raise OSError or one of FFmpeg's if there is any."""
    for packet in packets:
        wrong = (cut and packet.is_corrupt) or (check is not None and not check.passes(packet))
        # The decoder gives what it still holds of the good packets.
        yield from decoder.decode(None if wrong else packet)
        if wrong:
            raise OSError("damaged")


def past_damage(
    frames: Iterable[tuple[av.VideoFrame, bool]], check: "Ffv1Check | None", damaged: list[int]
) -> Iterator[av.VideoFrame]:
    """Yield all frames, a copy of the one before for each that is missing; adds numbers to `damaged`."""
    expected = check.times() if check else []
    count, last = 0, None
    for frame, wrong in frames:
        while expected and frame.pts is not None and expected[-1] < frame.pts:
            expected.pop()
            damaged.append(count)
            count += 1
            yield last or frame
        if expected and expected[-1] == frame.pts:
            expected.pop()
        if wrong:
            damaged.append(count)
        count, last = count + 1, frame
        yield frame
    for _ in expected if last is not None else ():
        damaged.append(count)
        count += 1
        yield last


def decode_all(
    packets: Iterator[av.Packet], decoder: av.VideoCodecContext, check: "Ffv1Check | None"
) -> Iterator[tuple[av.VideoFrame, bool]]:
    """Yield every frame that comes out of the decoder and whether it is damaged, past all errors."""
    bad = set()
    while True:
        try:
            packet = next(packets, None)
        except ERRORS:
            return
        if packet is None:
            return
        if packet.size and (packet.is_corrupt or (check is not None and not check.is_intact(packet))):
            bad.add(packet.pts)
        with suppress(*ERRORS):
            for frame in decoder.decode(packet):
                yield frame, frame.pts in bad or frame.is_corrupt


class Ffv1Check:
    """Check of the packets of an FFV1 file one after the other: slice CRCs, and none of them skipped.

    The demuxer skips a block whose header is damaged, but the index of the file still names its time.
    """

    def __init__(self, container: "av.container.InputContainer", stream: "av.VideoStream"):
        """Learn from the file's first packets and its index; the container is of no more use then."""
        first = [bytes(packet) for packet in islice(container.demux(stream), 4)]
        # Slices with a CRC in each packet; 0 where the file was coded without CRCs.
        self._slices = max((sum(map(crc_is_right, ffv1_slices(data)[0])) for data in first), default=0)
        with suppress(*ERRORS):
            container.seek(0, stream=stream)  # makes the demuxer read the index at the end of the file
        self._times = sorted(entry.timestamp for entry in stream.index_entries)
        self._times.reverse()  # the next one is the last

    def times(self) -> list[int]:
        """Return the times that the index names, the first one last."""
        return list(self._times)

    def passes(self, packet: "av.Packet") -> bool:
        """Return whether nothing is wrong up to this packet; the empty one at the end counts."""
        if not packet.size:
            return not self._times
        if packet.pts is not None:
            if self._times and self._times[-1] < packet.pts:
                return False
            if self._times and self._times[-1] == packet.pts:
                self._times.pop()
        return self.is_intact(packet)

    def is_intact(self, packet: "av.Packet") -> bool:
        """Return whether the slices fill the packet and agree with their CRCs."""
        if not self._slices:
            return True
        parts, exact = ffv1_slices(bytes(packet))
        return exact and len(parts) == self._slices and all(map(crc_is_right, parts))
