"""Sound for channels of few bits: mono Opus packets of one length, and at each bit rate of one size."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from tempfile import TemporaryFile
from typing import BinaryIO

import av
import numpy as np

from deepsteg_jax.media.container import existing
from deepsteg_jax.media.damage import ERRORS
from deepsteg_jax.media.sound import (
    OGG_OPTIONS,
    SOUND_RATE,
    Decoder,
    Sound,
    complaining,
    opened_sound,
    sound_frame,
)

PACKET = Fraction(60, 1000)  # seconds
_SAMPLES = int(PACKET * SOUND_RATE)
_DELAY = 312  # samples by which FFmpeg's encoder of Opus lags
_SILENCE = b"\xfb\x03" + 3 * b"\xff\xfe"  # a packet (RFC 6716, 3.2.5): three frames of CELT, each silent
_QUIET = 2.0**-10  # level below which nobody hears anything


def packet_bytes(bit_rate: int) -> int:
    """Return the size of a packet at a bit rate, bits per second."""
    return int(bit_rate * PACKET) // 8


class PacketReader:
    """A clip's sound at several bit rates; packet n begins n * PACKET seconds after its first frame."""

    def __init__(self, file: BinaryIO, bit_rates: Sequence[int], loud: bytes):
        """Take a temporary file of the packets, those of all rates side by side, and which can be heard."""
        self._file, self._loud = file, np.frombuffer(loud, bool)
        self._sizes = [packet_bytes(bit_rate) for bit_rate in bit_rates]

    def is_silent(self, first: int, count: int) -> bool:
        """Return whether nothing is heard in some packets."""
        return not self._loud[first : first + count].any()

    def read(self, rate: int, first: int, count: int) -> bytes:
        """Return packets at the `rate`-th bit rate, one after the other; fewer where the sound ends."""
        begin, whole = sum(self._sizes[:rate]), sum(self._sizes)
        self._file.seek(first * whole)
        records = np.frombuffer(self._file.read(count * whole), np.uint8).reshape(-1, whole)
        return records[:, begin : begin + self._sizes[rate]].tobytes()

    def close(self) -> None:
        """Remove the temporary file."""
        with suppress(OSError):
            self._file.close()


def encode_packets(path: str | Path, bit_rates: Sequence[int], seconds: float) -> PacketReader | None:
    """Encode the first sound track of a video at several bit rates.

    Args:
        path: the clip.
        bit_rates: bits per second.
        seconds: after the first frame, at which the sound is cut.

    Returns:
        None where there is no sound.

    Raises:
        UserError: the track is damaged.
    """
    path = existing(path)
    with opened_sound(path) as found:
        if found is None:
            return None
        packets, _, origin = found
        file, loud = TemporaryFile(), bytearray()  # noqa: SIM115, the caller closes it
        with complaining(path, file):
            samples = _from(origin, packets)
            encoders = [_encoder(bit_rate) for bit_rate in bit_rates]
            before = 0.0  # level of what lags behind from the packet before
            for number, block in enumerate(_blocks(samples)):
                if number * PACKET >= seconds:
                    break
                file.write(b"".join(_encoded(encoder, number, block) for encoder in encoders))
                loud.append(bool(max(before, np.abs(block).max()) > _QUIET))
                before = np.abs(block[:, -_DELAY:]).max()
    return PacketReader(file, bit_rates, bytes(loud))


def _encoder(bit_rate: int) -> av.AudioCodecContext:
    encoder = av.CodecContext.create("libopus", "w")
    encoder.sample_rate, encoder.layout, encoder.format = SOUND_RATE, "mono", "flt"
    encoder.bit_rate = bit_rate
    # For music Opus changes its mode inside the track, at which FFmpeg's decoder clicks.
    encoder.options = {"frame_duration": str(int(PACKET * 1000)), "vbr": "off", "application": "voip"}
    return encoder


def _encoded(encoder: av.AudioCodecContext, number: int, block: np.ndarray) -> bytes:
    frame = sound_frame(block, "mono", SOUND_RATE)
    frame.pts = number * _SAMPLES
    (packet,) = encoder.encode(frame)
    return bytes(packet)


def _from(origin: Fraction, packets: Iterable[av.Packet]) -> Iterator[np.ndarray]:
    """Yield the samples of a track, float32 [1, n] each, from a time of the file on."""
    decoder = Decoder("mono", SOUND_RATE)

    def decoded() -> Iterator[np.ndarray]:
        for packet in packets:
            if packet.size:
                yield from decoder.take(packet)
        yield from decoder.finish()

    skipped = None
    for samples in decoded():
        if skipped is None:
            skipped = round((origin - decoder.start) * SOUND_RATE)
            while skipped < 0:  # the sound begins later
                silence = np.zeros((1, min(-skipped, SOUND_RATE)), np.float32)
                skipped += silence.shape[1]
                yield silence
        yield samples[:, skipped:]
        skipped = max(0, skipped - samples.shape[1])


def _blocks(pieces: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Yield samples by the packet, at their end until nothing lags behind."""
    waiting = np.zeros((1, 0), np.float32)
    for piece in pieces:
        waiting = np.concatenate([waiting, piece], axis=1)
        while waiting.shape[1] >= _SAMPLES:
            yield waiting[:, :_SAMPLES]
            waiting = waiting[:, _SAMPLES:]
    rest = waiting.shape[1] + _DELAY
    waiting = np.pad(waiting, ((0, 0), (0, -rest % _SAMPLES + _DELAY)))
    yield from np.split(waiting, waiting.shape[1] // _SAMPLES, axis=1)


class PacketWriter:
    """Puts such packets into an Ogg file as they come, with silence where there are none."""

    def __init__(self) -> None:
        """Begin with no sound, and no file."""
        self._file = self._output = self._stream = None
        self._next = 0  # number of the next packet

    def put(self, number: int, packets: Iterable[bytes]) -> None:
        """Append packets, the first of which sounds from `number` * PACKET seconds on; none comes twice."""
        if self._file is None:
            self._file = TemporaryFile()  # noqa: SIM115, closed by `close`
            self._output = av.open(self._file, "w", format="ogg", options=dict(OGG_OPTIONS))
            self._stream = self._output.add_stream("libopus", rate=SOUND_RATE, layout="mono")
        for packet in packets:
            while self._next < number:
                self._write(_SILENCE)
            if self._next == number:
                self._write(packet)
            number += 1

    def _write(self, data: bytes) -> None:
        packet = av.Packet(data)
        packet.stream, packet.time_base = self._stream, Fraction(1, SOUND_RATE)
        packet.pts = packet.dts = self._next * _SAMPLES - _DELAY
        packet.duration = _SAMPLES
        self._output.mux(packet)
        self._next += 1

    def finish(self) -> Sound | None:
        """Return the sound, valid until `close`; None: there is none."""
        if self._output is not None:
            self._output.close()
            self._output = None
        if self._file is None:
            return None
        size = self._file.seek(0, 2)
        self._file.seek(0)
        return Sound(self._file, size, 0)

    def close(self) -> None:
        """Remove the temporary file."""
        with suppress(*ERRORS, OSError):
            self.finish()
        if self._file is not None:
            with suppress(OSError):
                self._file.close()
