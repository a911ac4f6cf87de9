"""The salt and the sealed header of a stego, in low bits of its first two frames.

Each of the two holds a salt of its own, at public places since it must be read before the key exists, and the
header, sealed with ChaCha20-Poly1305 (RFC 8439) at places that the key picks. A frame that is damaged or gone
so loses neither. All bits look random to whoever lacks the key.
"""

import struct
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from deepsteg_jax import keys
from deepsteg_jax.schemes import low_bits
from deepsteg_jax.schemes.adaptive.embedding import Samples, planes_like

VERSION = 1  # of the format
FRAMES = 2  # that hold salt and header
TAG_BYTES = 16
LEAST_SAMPLES = 4096  # of a frame, for salt, header and something of the secret
_AREA = 4224  # public samples from which the key picks those of the header, at most
_HEADER = struct.Struct("<BBBBIIQ32s16s")
HEIGHTS = range(4, 11)  # of the trellis; with 3, one frame in 200 cannot be embedded in at the densest
_TABLE = low_bits.parity_table(1)  # the lowest bit; moves by 1 change it


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


@lru_cache(maxsize=4)
def _public(samples: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the indices of the salt and those that the header is picked from."""
    salt_bits = 8 * keys.SALT_BYTES
    area = min(_AREA, samples // 4)
    chosen = low_bits.choose_indices(bytes(keys.KEY_BYTES), 0, salt_bits + area, samples)
    return chosen[:salt_bits], chosen[salt_bits:]


def sample_count(samples: int) -> int:
    """Count those of a frame's samples that hold salt and header."""
    area = min(_AREA, samples // 4)
    return 8 * keys.SALT_BYTES + low_bits.samples_needed(_HEADER.size + TAG_BYTES, area)


def _picked(master: bytes, area: np.ndarray) -> np.ndarray:
    needed = low_bits.samples_needed(_HEADER.size + TAG_BYTES, len(area))
    return area[low_bits.choose_indices(keys.subkey(master, "adaptive places"), 0, needed, len(area))]


def _sealer(master: bytes) -> ChaCha20Poly1305:
    return ChaCha20Poly1305(keys.subkey(master, "adaptive header"))


def embed(planes: Samples, salt: bytes, master: bytes, header: Header) -> tuple[Samples, np.ndarray]:
    """Write salt and header into a frame.

    Args:
        planes: of the cover, LEAST_SAMPLES or more in all.
        salt: of this frame.
        master: the key derived with that salt.
        header: for the receiver.

    Returns:
        The planes, and the indices of all samples that carry something now.
    """
    packed = _HEADER.pack(VERSION, *header)
    samples = np.concatenate([plane.ravel() for plane in planes])
    low = (samples & 255).astype(np.uint8)
    salt_at, area = _public(len(low))
    header_at = _picked(master, area)
    for indices, data in (salt_at, salt), (header_at, _sealer(master).encrypt(bytes(12), packed, None)):
        low_bits.write(low, low.copy(), indices, data, 1, _TABLE)
    written = samples & ~np.array(255, samples.dtype) | low
    return planes_like(planes, written), np.concatenate([salt_at, header_at])


def read(planes: Samples, deriver: keys.Deriver) -> Header | None:
    """Return the header that a frame holds for a key; None if there is none. One key is derived."""
    low = np.concatenate([(plane & 255).astype(np.uint8).ravel() for plane in planes])
    if len(low) < LEAST_SAMPLES:
        low = np.zeros(LEAST_SAMPLES, np.uint8)  # the same work for every input
    salt_at, area = _public(len(low))
    master = deriver(low_bits.read(low, salt_at, keys.SALT_BYTES, _TABLE))
    sealed = low_bits.read(low, _picked(master, area), _HEADER.size + TAG_BYTES, _TABLE)
    try:
        version, *fields = _HEADER.unpack(_sealer(master).decrypt(bytes(12), sealed, None))
    except InvalidTag:
        return None
    header = Header(*fields)
    known = version == VERSION and header.height in HEIGHTS
    return header._replace(coded=bool(header.coded)) if known else None
