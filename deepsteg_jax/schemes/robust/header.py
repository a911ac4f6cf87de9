"""A segment's header: salt, metadata of the secret and capacities of the layers, sealed and checked."""

import hashlib
import hmac
from fractions import Fraction
from functools import cache
from typing import NamedTuple

import numpy as np

from deepsteg_jax import keys
from deepsteg_jax.errors import UserError
from deepsteg_jax.keystream import numpy_bits, numpy_keystream
from deepsteg_jax.schemes.base import Metadata
from deepsteg_jax.schemes.robust import code
from deepsteg_jax.schemes.robust.layout import MOST_LAYERS
from deepsteg_jax.schemes.robust.levels import LEVELS

SALT_BYTES, TAG_BYTES = 6, 4
_VERSION = 6
_MANTISSA, _EXPONENT, _UNIT = 8, 4, 2  # bits, bits and bytes: capacities are floats, rounded down
# Bits of each field, as few as will do: a header has to survive worse channels than any layer.
_FIELDS = {
    "version": 3,
    "turned": 1,
    "length": 6,
    "frames": 22,
    "width": 13,
    "height": 13,
    "rate": 17,
    "per": 10,
    "wide": 8,
    "high": 8,
} | {f"capacity {i}": _MANTISSA + _EXPONENT for i in range(MOST_LAYERS)}
_BODY_BYTES = -(-sum(_FIELDS.values()) // 8)
BITS = 8 * (SALT_BYTES + _BODY_BYTES + TAG_BYTES)


class Header(NamedTuple):
    """The header of one segment; `repeat` is bound to its tag, not sent."""

    salt: bytes  # of its keys
    length: int  # frames
    repeat: int  # frames that share their symbols
    capacities: tuple[int, ...]  # bytes of each layer; 0: it is left out
    metadata: Metadata  # of which `frames` and `cover_frames` are the same here


def capacity_within(size: int) -> int:
    """Return `size`, in bytes, rounded down to a capacity that a header can represent."""
    return _capacity_of(_float_of(size))


def capacity_for(size: int) -> int:
    """Return `size`, in bytes, rounded up to a capacity that a header can represent."""
    below = capacity_within(size)
    return below if below >= size else capacity_within(below + (_UNIT << (_float_of(size) >> _MANTISSA)))


def _float_of(size: int) -> int:
    units = max(size, 0) // _UNIT
    exponent = max(0, units.bit_length() - _MANTISSA)
    return min(exponent << _MANTISSA | units >> exponent, 2 ** (_MANTISSA + _EXPONENT) - 1)


def _capacity_of(value: int) -> int:
    return _UNIT * (value % 2**_MANTISSA << (value >> _MANTISSA))


def _fraction(value: Fraction, above: str, below: str) -> Fraction:
    """Return the nearest fraction whose terms fit into two fields."""
    largest, most = (2 ** _FIELDS[name] - 1 for name in (above, below))
    value = min(max(value, Fraction(1, most)), Fraction(largest))
    return value.limit_denominator(min(most, int(largest / max(value, 1))))


def pack(header: Header, master: bytes) -> np.ndarray:
    """Return the bits of a header, uint8 [BITS], which without the key look random.

    Capacities are rounded down by `capacity_within`, fractions to terms that fit.

    Raises:
        UserError: the secret has more frames or larger ones than a header can say.
    """
    metadata = header.metadata
    rate, aspect = _fraction(metadata.rate, "rate", "per"), _fraction(metadata.aspect, "wide", "high")
    values = [_VERSION, metadata.turned, header.length]
    values += [metadata.cover_frames, metadata.width, metadata.height]
    values += [rate.numerator, rate.denominator, aspect.numerator, aspect.denominator]
    values += [_float_of(size) for size in header.capacities] + [0] * (MOST_LAYERS - len(header.capacities))
    number = 0
    for value, (name, bits) in zip(values, _FIELDS.items(), strict=True):
        if value >= 2**bits:
            raise UserError(f"the secret's {name}, {value}, exceeds {2**bits - 1}: take a smaller one")
        number = number << bits | value
    body = number.to_bytes(_BODY_BYTES, "big")
    sealed = _sealed(body, header.salt, header.repeat, master)
    return np.unpackbits(np.frombuffer(header.salt + sealed, np.uint8))


def unpack(bits: np.ndarray, repeat: int, master: bytes) -> Header | None:
    """Return the header that bits hold; None if they are not one of this key and `repeat`.

    The header does not hold that one: the receiver tries which it opens with.
    """
    data = np.packbits(bits).tobytes()
    salt, sealed = data[:SALT_BYTES], data[SALT_BYTES:]
    body = _masked(sealed[:_BODY_BYTES], salt, master)
    if not hmac.compare_digest(_sealed(body, salt, repeat, master), sealed):
        return None
    number, values = int.from_bytes(body, "big"), []
    for bits_of_field in reversed(_FIELDS.values()):
        values.insert(0, number % 2**bits_of_field)
        number >>= bits_of_field
    version, turned, length, frames, width, height, rate, per, wide, high, *floats = values
    if version != _VERSION or not all((length, frames, width, height, rate, per, wide, high)):
        return None
    fractions = Fraction(rate, per), Fraction(wide, high)
    metadata = Metadata(width, height, frames, frames, fractions[0], False, bool(turned), fractions[1])
    return Header(salt, length, repeat, tuple(map(_capacity_of, floats)), metadata)


def _masked(body: bytes, salt: bytes, master: bytes) -> bytes:
    key = keys.subkey(master, f"robust header {salt.hex()}")
    return (np.frombuffer(body, np.uint8) ^ numpy_keystream(key, 0, len(body))).tobytes()


def _sealed(body: bytes, salt: bytes, repeat: int, master: bytes) -> bytes:
    key = keys.subkey(master, f"robust header tag {repeat}")
    tag = hmac.new(key, salt + body, hashlib.sha256).digest()[:TAG_BYTES]
    return _masked(body, salt, master) + tag


@cache
def _code() -> tuple[code.Code, np.ndarray]:
    """Return the header's code and the order in which its bits are sent: neighbours far apart."""
    inner = code.build(int(BITS / code.LEAST_RATE), BITS)
    return inner, np.argsort(np.random.Philox(1).random_raw(inner.length), kind="stable")


def carried_bits(bits: np.ndarray, frame: int, count: int, master: bytes) -> np.ndarray:
    """Return the `count` bits of the coded header that a frame of a segment carries; together they repeat.

    Each repetition has another keystream: errors would add up where a codec turns all symbols into a few.
    """
    inner, order = _code()
    repeated = inner.encode(bits)[order[(frame * count + np.arange(count)) % inner.length]]
    return repeated ^ _mask(frame, count, master)


def finer_bits(frame: int, count: int, master: bytes) -> np.ndarray:
    """Return the finer bits of the `count` symbols of the header in a frame of a segment, uint8 [count, ...].

    They are known before the header is, where no layer has these levels.
    """
    key = keys.subkey(master, "robust header finer bits")
    return numpy_bits(key, frame, count * (LEVELS - 2)).reshape(count, -1)


def decode(llr: np.ndarray, master: bytes) -> np.ndarray | None:
    """Return a header's bits from log-likelihood ratios of all frames, [frames, count]; None: not found."""
    inner, order = _code()
    masks = np.stack([_mask(frame, llr.shape[1], master) for frame in range(len(llr))])
    unmasked = llr * (1 - 2.0 * masks)
    return inner.decode(np.bincount(np.resize(order, llr.size), unmasked.ravel(), inner.length))


def _mask(frame: int, count: int, master: bytes) -> np.ndarray:
    return numpy_bits(keys.subkey(master, "robust header mask"), frame, count)
