"""What the receiver is told of a segment: salt, description and sizes of the layers, sealed and checked."""

import hashlib
import hmac
import struct
from fractions import Fraction
from typing import NamedTuple

import numpy as np

from deepsteg_jax import keys
from deepsteg_jax.robust import code
from deepsteg_jax.robust.layout import keystream

SALT_BYTES, TAG_BYTES = 12, 8
ROOM_UNIT = 8  # bytes in which the room of a layer is counted
MOST_LAYERS = 6
_BODY = struct.Struct(f"<BBBBIHHIHHH{MOST_LAYERS}H")
BITS = 8 * (SALT_BYTES + _BODY.size + TAG_BYTES)
_VERSION = 2
_TURNED = 1


class Description(NamedTuple):
    """What the receiver is told in every segment."""

    frames: int  # of the stego that carry the secret, from its first one on
    width: int  # of the secret as it lies
    height: int
    turned: bool  # left by 90 degrees
    rate: Fraction  # frames per second
    aspect: Fraction  # of a pixel, width over height


class Header(NamedTuple):
    """A segment's own."""

    salt: bytes  # of its keys
    length: int  # frames
    count: int  # symbols of a block
    hold: int  # frames that share their symbols
    rooms: tuple[int, ...]  # bytes of each layer; 0: it is left out
    description: Description


def pack(header: Header, master: bytes) -> np.ndarray:
    """The bits of a header, uint8 [BITS]; nobody without the key can tell them from random ones."""
    about = header.description
    rate = about.rate.limit_denominator(2**16 - 1)
    aspect = about.aspect.limit_denominator(2**16 - 1)
    rooms = [room // ROOM_UNIT for room in header.rooms]
    rooms += [0] * (MOST_LAYERS - len(rooms))
    body = _BODY.pack(
        _VERSION << 4 | _TURNED * about.turned,
        header.length,
        header.count,
        header.hold,
        about.frames,
        about.width,
        about.height,
        min(rate.numerator, 2**32 - 1),
        rate.denominator,
        min(aspect.numerator, 2**16 - 1),
        aspect.denominator,
        *rooms,
    )
    return np.unpackbits(np.frombuffer(header.salt + _sealed(body, header.salt, master), np.uint8))


def unpack(bits: np.ndarray, master: bytes) -> Header | None:
    """The header of bits, None if they are not one of this key."""
    data = np.packbits(bits).tobytes()
    salt, sealed = data[:SALT_BYTES], data[SALT_BYTES:]
    body = _masked(sealed[: _BODY.size], salt, master)
    if not hmac.compare_digest(_sealed(body, salt, master), sealed):
        return None
    fields = _BODY.unpack(body)
    (first, *needed), rooms = fields[:-MOST_LAYERS], fields[-MOST_LAYERS:]
    if first >> 4 != _VERSION or not all(needed):
        return None
    length, count, hold, frames, width, height, rate, per, wide, high = needed
    about = Description(
        frames, width, height, bool(first & _TURNED), Fraction(rate, per), Fraction(wide, high)
    )
    return Header(salt, length, count, hold, tuple(ROOM_UNIT * room for room in rooms), about)


def _masked(body: bytes, salt: bytes, master: bytes) -> bytes:
    key = keys.subkey(master, f"robust header {salt.hex()}")
    return (np.frombuffer(body, np.uint8) ^ keystream(key, 0, len(body))).tobytes()


def _sealed(body: bytes, salt: bytes, master: bytes) -> bytes:
    key = keys.subkey(master, "robust header tag")
    tag = hmac.new(key, salt + body, hashlib.sha256).digest()[:TAG_BYTES]
    return _masked(body, salt, master) + tag


def _code() -> tuple[code.Code, np.ndarray]:
    """The header's code and the order in which its bits are sent: neighbours far apart."""
    inner = code.build(int(BITS / code.LEAST_RATE), BITS)
    return inner, np.argsort(np.random.Philox(1).random_raw(inner.length), kind="stable")


def carried_bits(bits: np.ndarray, frame: int, count: int) -> np.ndarray:
    """What frame `frame` of a segment carries of the coded header in `count` bits; together they repeat."""
    inner, order = _code()
    return inner.encode(bits)[order[(frame * count + np.arange(count)) % inner.length]]


def decode(llr: np.ndarray) -> np.ndarray | None:
    """The bits of a header from the log-likelihood ratios of all frames, [frames, count]; None: not found."""
    inner, order = _code()
    return inner.decode(np.bincount(np.resize(order, llr.size), llr.ravel(), inner.length))
