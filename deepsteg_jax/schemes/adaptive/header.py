"""The salt and the sealed header of a stego, in low bits of its first two frames.

Each of the two holds a salt of its own, at public places since it must be read before the key exists, and the
header, sealed with ChaCha20-Poly1305 (RFC 8439) at places that the key picks. A frame that is damaged or gone
so loses neither. All bits look random to whoever lacks the key. Slots share the salt, and have a header each.
"""

import struct
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from ml_collections import ConfigDict

from deepsteg_jax import keys
from deepsteg_jax.errors import UserError
from deepsteg_jax.schemes import low_bits
from deepsteg_jax.schemes.adaptive.embedding import Samples, planes_like
from deepsteg_jax.schemes.slots import Slot, every, public_order

VERSION = 1  # of the format
FRAMES = 2  # that hold salt and header
TAG_BYTES = 16
LEAST_SAMPLES = 4096  # of a frame and slot, for salt, header and something of the secret
_AREA = 4224  # public samples from which the key picks those of the header, at most
_HEADER = struct.Struct("<BBBBIIQ32s16s")
MOST_RATE = 0.5  # bits per sample, or per AC coefficient other than 0
HEIGHTS = range(4, 11)  # of the trellis; with 3, one frame in 200 cannot be embedded in at the densest
_TABLE = low_bits.parity_table(1)  # the lowest bit; moves by 1 change it


def check(config: ConfigDict, unit: str) -> None:
    """Raise UserError unless a config's `payload.rate`, bits per `unit`, and `model.height` make sense."""
    if not 0 < config.payload.rate <= MOST_RATE:
        raise UserError(f"config.payload.rate must be more than 0 and at most {MOST_RATE} bits per {unit}")
    if config.model.height not in HEIGHTS:
        raise UserError("config.model.height must be 4 to 10")


class Header(NamedTuple):
    """The knowledge that a receiver needs besides the key."""

    coded: bool  # the secret was coded to fit; else it is its own file
    height: int  # constraint height of the trellis
    name_bytes: int  # of the secret's name, which lies before it
    frames: int  # that carry it
    chunk_bytes: int  # of the secret in each of them
    size: int  # bytes of the secret, with its name
    digest: bytes  # SHA-256 of these
    salt: bytes  # of the master key


def _area(samples: int, slots: int) -> int:
    return min(_AREA, samples // (4 * slots))


def _public(samples: int, slots: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the indices of the salt, and those that headers are picked from, [slots, area]."""
    salt_bits, area = 8 * keys.SALT_BYTES, _area(samples, slots)
    chosen = public_order(samples, salt_bits + slots * area)
    return chosen[:salt_bits], chosen[salt_bits:].reshape(slots, area)


def sample_count(samples: int, slots: int) -> int:
    """Count those of a frame's samples that hold salt and headers."""
    each = low_bits.samples_needed(_HEADER.size + TAG_BYTES, _area(samples, slots))
    return 8 * keys.SALT_BYTES + slots * each


def _picked(master: bytes, area: np.ndarray) -> np.ndarray:
    needed = low_bits.samples_needed(_HEADER.size + TAG_BYTES, len(area))
    return area[low_bits.choose_indices(keys.subkey(master, "adaptive places"), 0, needed, len(area))]


def _sealer(master: bytes) -> ChaCha20Poly1305:
    return ChaCha20Poly1305(keys.subkey(master, "adaptive header"))


def embed(
    planes: Samples, salt: bytes, masters: Sequence[bytes], headers: Sequence[Header]
) -> tuple[Samples, np.ndarray]:
    """Write salt and headers into a frame.

    Args:
        planes: of the cover, LEAST_SAMPLES or more for each slot.
        salt: of this frame.
        masters: the key of each slot, derived with that salt.
        headers: of each slot, for its receiver.

    Returns:
        The planes, and the indices of all samples that carry something now.
    """
    samples = np.concatenate([plane.ravel() for plane in planes])
    low = (samples & 255).astype(np.uint8)
    salt_at, areas = _public(len(low), len(headers))
    places, data = [salt_at], [salt]
    for number, (master, header, area) in enumerate(zip(masters, headers, areas, strict=True)):
        packed, slot = _HEADER.pack(VERSION, *header), Slot(number, len(headers))
        places.append(_picked(master, area))
        data.append(_sealer(master).encrypt(slot.nonce, packed, None))
    for indices, sealed in zip(places, data, strict=True):
        low_bits.write(low, low.copy(), indices, sealed, 1, _TABLE)
    written = samples & ~np.array(255, samples.dtype) | low
    return planes_like(planes, written), np.concatenate(places)


def read(planes: Samples, deriver: keys.Deriver) -> tuple[Header, Slot] | None:
    """Return the header that a frame holds for a key, and its slot; None if there is none.

    One key is derived, and as many headers tried as there are slots in stegos of 1, 2, 4 and 8.
    """
    low = np.concatenate([(plane & 255).astype(np.uint8).ravel() for plane in planes])
    if len(low) < LEAST_SAMPLES:
        low = np.zeros(LEAST_SAMPLES, np.uint8)  # the same work for every input
    master = deriver(low_bits.read(low, _public(len(low), 1)[0], keys.SALT_BYTES, _TABLE))
    for slot in every(len(low) // LEAST_SAMPLES):
        area = _public(len(low), slot.of)[1][slot.number]
        sealed = low_bits.read(low, _picked(master, area), _HEADER.size + TAG_BYTES, _TABLE)
        if header := _opened(master, slot, sealed):
            return header, slot
    return None


def _opened(master: bytes, slot: Slot, sealed: bytes) -> Header | None:
    try:
        version, *fields = _HEADER.unpack(_sealer(master).decrypt(slot.nonce, sealed, None))
    except InvalidTag:
        return None
    header = Header(*fields)
    known = version == VERSION and header.height in HEIGHTS
    return header._replace(coded=bool(header.coded)) if known else None
