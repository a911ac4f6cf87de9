"""The secret's sound: packets of Opus in front of the coded pictures of a layer's message.

A segment carries the packets that begin while it is shown, in the coarsest layer of whose bytes they take no
more than `config.sound_share`, and again in a finer one that has room for a higher bit rate. Silence and a
secret without sound take no bit.
"""

import math
import struct
from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

import numpy as np
from ml_collections import ConfigDict

from deepsteg_jax import media
from deepsteg_jax.channels import ladder
from deepsteg_jax.errors import UserError
from deepsteg_jax.media.temporary import temporary_files
from deepsteg_jax.plan import Plan, by_number
from deepsteg_jax.schemes.base import Settings
from deepsteg_jax.schemes.robust.layout import SEGMENT, layers_of

BIT_RATES = (6_000, 8_000, 12_000, 16_000)  # of Opus, bits per second
_KIND_BITS = 2  # of a message's first byte, see `secret_layers`; those above tell the bit rate, 0: no sound
_HEAD = struct.Struct("<HB")  # packets; parts of a packet from the segment's beginning to the first of them
_PARTS = 256


class Packets(NamedTuple):
    """The sound of a segment."""

    rate: int  # of BIT_RATES
    offset: int  # of the first packet, in 1 / _PARTS of a packet after the segment's beginning
    packets: tuple[bytes, ...]

    def number(self, begin: Fraction) -> int:
        """Return the number of the first packet in a secret whose segment begins at this time, in seconds."""
        return round(begin / media.PACKET + Fraction(self.offset, _PARTS))


def size_of(packets: Packets | None) -> int:
    """Return the bytes that packets take of a message."""
    return 0 if packets is None else _HEAD.size + sum(map(len, packets.packets))


def attach(packets: Packets | None, message: bytes) -> bytes:
    """Put packets into a layer's message, unless it is empty."""
    if packets is None or not message:
        return message
    first = message[0] | packets.rate + 1 << _KIND_BITS
    head = _HEAD.pack(len(packets.packets), packets.offset)
    return b"".join([bytes([first]), head, *packets.packets, message[1:]])


def split(messages: Sequence[bytes | None]) -> tuple[Packets | None, list[bytes | None]]:
    """Return the finest sound in the messages of a segment's layers, None: there is none, and the rests."""
    found = [_split(message) for message in messages]
    sounds = [packets for packets, _ in found if packets]
    return (sounds[-1] if sounds else None), [rest for _, rest in found]


def _split(message: bytes | None) -> tuple[Packets | None, bytes | None]:
    rate = message[0] >> _KIND_BITS if message else 0
    if not 0 < rate <= len(BIT_RATES):
        return None, message
    count, offset = _HEAD.unpack_from(message, 1)
    begin, size = 1 + _HEAD.size, media.packet_bytes(BIT_RATES[rate - 1])
    end = begin + count * size
    packets = tuple(message[i : i + size] for i in range(begin, end, size))
    kind = message[0] & (1 << _KIND_BITS) - 1
    return Packets(rate - 1, offset, packets), bytes([kind]) + message[end:]


def check(share: float) -> None:
    """Raise UserError if `config.sound_share` makes no sense."""
    if not 0 <= share < 1:
        raise UserError("config.sound_share must be at least 0 and less than 1; 0 leaves the sound out")


class SecretSound:
    """The sound of one secret, laid along the segments of its stego."""

    def __init__(self, reader: media.PacketReader, times: np.ndarray, config: ConfigDict, most: int):
        """Take the sound.

        Args:
            reader: of all BIT_RATES up to `most`.
            times: of the secret when segments begin, and its end, in seconds after its first frame.
            config: the whole config.
            most: bits per second.
        """
        self._reader, self._share, self._most = reader, config.sound_share, most
        self._times = [Fraction(float(time)).limit_denominator(10**6) / media.PACKET for time in times]
        self._exact = [ladder.is_exact(layer.codecs[0]) for layer in layers_of(config)]
        self._left_out: set[int] = set()  # segments

    def blocks(self, segment: int, capacities: Sequence[int]) -> list[Packets | None]:
        """Return what each layer of a segment is to carry, whose messages have these capacities in bytes."""
        segment %= len(self._times) - 1  # after its end the secret begins again
        begin, end = self._times[segment : segment + 2]
        first = math.ceil(begin)
        count = math.ceil(end) - first
        if self._reader.is_silent(first, count):
            return [None] * len(capacities)
        blocks, below = [], -1
        for capacity in capacities:
            rate = self._highest(count, capacity)
            blocks.append(self._read(rate, begin, count) if rate > below else None)
            below = max(rate, below)
        # Without the last layer where the stego's own coding erases it.
        if not any(block and not exact for block, exact in zip(blocks, self._exact, strict=False)):
            self._left_out.add(segment)
        return blocks

    def _highest(self, count: int, capacity: int) -> int:
        """Return the highest of BIT_RATES at which this many packets fit; -1: none."""
        room = self._share * capacity - _HEAD.size
        fitting = (i for i, rate in enumerate(_up_to(self._most)) if count * media.packet_bytes(rate) <= room)
        return max(fitting, default=-1)

    def _read(self, rate: int, begin: Fraction, count: int) -> Packets:
        first, size = math.ceil(begin), media.packet_bytes(BIT_RATES[rate])
        data = self._reader.read(rate, first, count)
        packets = tuple(data[i : i + size] for i in range(0, len(data), size))
        return Packets(rate, int((first - begin) * _PARTS), packets)

    @property
    def notes(self) -> tuple[str, ...]:
        """For the user: the time for which no layer that outlasts a codec has room for the sound."""
        if not self._left_out:
            return ()
        lost = sum(self._times[i + 1] - self._times[i] for i in self._left_out) * media.PACKET
        whole = self._times[-1] * media.PACKET
        return (
            f"the secret's sound is left out of {float(lost):.1f} of {float(whole):.1f} s, where it does not "
            "fit: use a larger cover or --config.sound_share=0.6",
        )

    def close(self) -> None:
        """Remove temporary files."""
        self._reader.close()


def _up_to(most: int) -> tuple[int, ...]:
    return tuple(rate for rate in BIT_RATES if rate <= most)


def sound_of(plan: Plan, settings: Settings, config: ConfigDict) -> SecretSound | None:
    """Encode the sound of a plan's secret, if it has any that is to travel.

    Raises:
        UserError: the bit rate is too low, or the sound is damaged.
    """
    most, asked = settings.sound_bit_rate, config.sound_share and settings.sound_bit_rate
    if not (asked and plan.secret.tracks and len(plan.schedule.numbers) > 1):
        return None
    if not _up_to(most):
        raise UserError(f"config.video.sound_bit_rate must be {BIT_RATES[0]} bits/s or more, or 0")
    times = _segment_times(plan, settings.align)
    with temporary_files():
        reader = media.encode_packets(plan.secret_path, _up_to(most), float(times[-1]))
    return reader and SecretSound(reader, times, config, most)


def _segment_times(plan: Plan, align: str) -> np.ndarray:
    """Return the times of the secret when segments begin, and its end, in seconds."""
    cover, secret = plan.cover_clock, plan.secret_clock
    clock, passes = (secret, 1) if by_number(cover, secret, align) else (cover, plan.schedule.passes)
    times = np.concatenate([clock.times + i * clock.duration for i in range(passes)])
    times = times[: len(plan.schedule.numbers)]
    return np.append(times[::SEGMENT], times[-1] + 1 / float(clock.rate))
