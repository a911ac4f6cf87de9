"""Sealed metadata in low bits of the stego: all that a receiver must know besides the key.

The first frame holds 16 bytes of salt and a sealed `Header`; the second frame holds both again under a salt
of its own, so that one damaged frame loses neither (the same salt twice could be seen by anybody). Every
later frame, if the header says so, holds a sealed packet: which frame of the secret it carries, when that is
shown, and a share of the secret's sound. One damaged frame costs one packet.

The salt lies at public indices (it looks random and must be read before the key exists); all other indices
come from the key. Salt and header can be read before the model's D is known. Everything but the salt is
sealed with ChaCha20-Poly1305 (RFC 8439) under keys that the salt makes unique, so nonces are frame numbers.
All bits look random to whoever lacks the key.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from deepsteg_jax import keys
from deepsteg_jax.errors import UserError
from deepsteg_jax.schemes import low_bits, slots
from deepsteg_jax.schemes.base import Metadata
from deepsteg_jax.schemes.slots import ALONE, Slot

VERSION = 5  # of the format
TAG_BYTES = 16
PACKET_HEADER = struct.Struct("<II")  # number of the secret's frame, its time in ticks
SMALLEST_PIXELS = 256  # a frame of 16x16 holds salt and header
_SLOT_PIXELS = 1024  # for each slot, which has packets too
LARGEST_SIDE = 2**16 - 1
MOVES, CIPHERS = ("nothing", "secret", "cover"), ("blocks", "coefficients")

_HEADER = struct.Struct("<BHHIIIHBBBIHiIBBH8s16s")
_HEADER_BYTES = _HEADER.size + TAG_BYTES
_HEADER_BITS = 8 * (keys.SALT_BYTES + _HEADER_BYTES)
_HEADER_SAMPLES = 2560  # public samples from which the key picks those of the header
_TURNED, _TIMED, _MOVES, _CIPHER = 1, 2, 4, 16  # flags; factors of the last two


class Header(NamedTuple):
    """The header of a stego of `pixels`."""

    secret: Metadata
    packet_bytes: int  # content of the packet in every frame after the first; 0: there are none
    sound_start: int  # when the sound begins, in samples of 1/48000 s after the first frame
    sound_bytes: int  # of the Ogg file; 0: no sound
    modulus: int  # the model's D
    group: int  # frames hidden together
    moves: str  # pictures that the key permutes, see `steganography.transform`
    cipher: str
    block_size: int  # pixels
    fingerprint: bytes  # 8 bytes, of the reveal parameters
    salt: bytes  # of the key that all but the header is under
    slot: Slot = ALONE  # where it lies, which tells


def _pack(header: Header) -> bytes:
    secret = header.secret
    rate, aspect = secret.rate.limit_denominator(2**16 - 1), secret.aspect.limit_denominator(255)
    if not 0 < aspect.numerator <= 255:
        aspect = Fraction(1)
    flags = _TURNED * secret.turned + _TIMED * secret.timed
    flags += _MOVES * MOVES.index(header.moves) + _CIPHER * CIPHERS.index(header.cipher)
    return _HEADER.pack(
        VERSION,
        secret.width,
        secret.height,
        secret.frames,
        secret.cover_frames,
        rate.numerator,
        rate.denominator,
        flags,
        aspect.numerator,
        aspect.denominator,
        secret.end,
        header.packet_bytes,
        header.sound_start,
        header.sound_bytes,
        header.modulus,
        header.group,
        header.block_size,
        header.fingerprint,
        header.salt,
    )


def _unpack(packed: bytes, slot: Slot) -> Header | None:
    """Unpack a header from a slot; None for another version."""
    if packed[0] != VERSION:
        return None
    _, width, height, frames, cover_frames, rate, per, flags, wide, high, end, *rest = _HEADER.unpack(packed)
    packet_bytes, start, size, modulus, group, block_size, fingerprint, salt = rest
    secret = Metadata(
        width=width,
        height=height,
        frames=frames,
        cover_frames=cover_frames,
        rate=Fraction(rate, per),
        timed=bool(flags & _TIMED),
        turned=bool(flags & _TURNED),
        aspect=Fraction(wide, high),
        end=end,
    )
    moves, cipher = MOVES[flags // _MOVES % 4], CIPHERS[flags // _CIPHER % 2]
    settings = modulus, group, moves, cipher, block_size
    return Header(secret, packet_bytes, start, size, *settings, fingerprint, salt, slot)


# --- indices -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Others:
    """All indices of a frame but some, as a sorted sequence that is not written out."""

    size: int  # of the frame
    taken: np.ndarray  # sorted

    def __len__(self) -> int:
        return self.size - len(self.taken)

    def __getitem__(self, places: np.ndarray) -> np.ndarray:
        before = self.taken - np.arange(len(self.taken))  # places that lie before each one taken
        return places + np.searchsorted(before, places, side="right")


@lru_cache(maxsize=32)
def _public_indices(size: int, slot: Slot = ALONE) -> tuple[np.ndarray, np.ndarray, _Others]:
    """Return the indices of the salt, of those that the header is picked from, and those of no header."""
    salt_bits = 8 * keys.SALT_BYTES
    count = min(salt_bits + slot.of * _HEADER_SAMPLES, size)
    first, area = slots.public_order(size, count), (count - salt_bits) // slot.of
    start = salt_bits + slot.number * area
    return first[:salt_bits], first[start : start + area], _Others(size, np.sort(first))


def _picked(key: bytes, number: int, count: int, among: np.ndarray | _Others) -> np.ndarray:
    """Return the indices among `among` for `count` bytes, as many as their code takes."""
    needed = low_bits.samples_needed(count, len(among))
    return among[low_bits.choose_indices(key, number, needed, len(among))]


def packet_capacity(size: int) -> int:
    """Return the largest packet content, in bytes, that a frame of `size` samples holds beside a header."""
    return max(0, min(len(_public_indices(size)[2]) // 8 - TAG_BYTES, 2**16 - 1))


# --- header --------------------------------------------------------------------------------------


def _header_keys(master: bytes) -> tuple[ChaCha20Poly1305, bytes]:
    return ChaCha20Poly1305(keys.subkey(master, "header")), keys.subkey(master, "header indices")


def check_size(width: int, height: int, count: int = 1) -> None:
    """Raise UserError unless frames of this size hold the metadata of `count` slots."""
    needed = count * (SMALLEST_PIXELS if count == 1 else _SLOT_PIXELS)
    if width * height < needed:
        raise UserError(f"the cover, {width}x{height}, is too small: a frame needs {needed} pixels")
    if max(width, height) > LARGEST_SIDE:
        raise UserError(f"the cover, {width}x{height}, is too large: scale it down first")


def embed_header(
    stego: np.ndarray, cover: np.ndarray, salt: bytes, master: bytes, header: Header
) -> np.ndarray:
    """Write salt and header into a copy of a stego frame; slots share the salt.

    Args:
        stego: uint8 [h, w, 3].
        cover: same shape; the result stays close to it.
        salt: 16 random bytes of this frame's own.
        master: the master key derived with that salt.
        header: for the receiver.
    """
    samples, under = stego.flatten(), cover.ravel()
    salt_indices, public, _ = _public_indices(samples.size, header.slot)
    sealer, indices_key = _header_keys(master)
    sealed = sealer.encrypt(header.slot.nonce, _pack(header), None)
    for indices, data in (salt_indices, salt), (_picked(indices_key, 0, len(sealed), public), sealed):
        low_bits.write(samples, under, indices, data, header.modulus, low_bits.COMMON_TABLE)
    return samples.reshape(stego.shape)


def _read_header(frame: np.ndarray, deriver: keys.Deriver, slot: Slot) -> Header | None:
    samples = frame.ravel()
    salt_indices, public, _ = _public_indices(samples.size, slot)
    salt = low_bits.read(samples, salt_indices, keys.SALT_BYTES, low_bits.COMMON_TABLE)
    sealer, indices_key = _header_keys(deriver(salt))
    indices = _picked(indices_key, 0, _HEADER_BYTES, public)
    try:
        sealed = low_bits.read(samples, indices, _HEADER_BYTES, low_bits.COMMON_TABLE)
        return _unpack(sealer.decrypt(slot.nonce, sealed, None), slot)
    except InvalidTag:
        return None


def open_headers(frames: list[np.ndarray], deriver: keys.Deriver) -> Iterator[Header]:
    """Yield the headers of a stego that open, of the first frame before that of the second.

    A wrong passphrase, nothing hidden and a recoded file give none, and the same work.

    Args:
        frames: its first frame, or its first two, uint8 [h, w, 3].
        deriver: of the passphrase or key file.
    """
    for frame in frames:
        frame = frame if frame.size >= _HEADER_BITS else np.zeros((16, 16, 3), np.uint8)
        for slot in slots.every(frame.size // _HEADER_BITS):
            if header := _read_header(frame, deriver, slot):
                yield header


# --- packets -------------------------------------------------------------------------------------


class Packet(NamedTuple):
    """The metadata of one frame of the stego."""

    number: int  # of the secret's frame that it carries
    time: int  # ticks
    sound: bytes


class Packets:
    """Seals and opens the packets of one video."""

    def __init__(self, master: bytes, content: int, modulus: int, slot: Slot = ALONE):
        """Take the key, `content`, the header's `packet_bytes`, and the slot."""
        self._slot = slot
        self._sealer = ChaCha20Poly1305(keys.subkey(master, "packets"))
        self._indices_key = keys.subkey(master, "packet indices")
        self._content, self._modulus = content, modulus
        self._table = low_bits.parity_table(modulus)

    def _indices(self, number: int, size: int) -> np.ndarray:
        among = _public_indices(size, self._slot)[2]
        if self._slot.of > 1:
            among = slots.share(size, self._slot, after=len(among.taken))
        return _picked(self._indices_key, number, self._content + TAG_BYTES, among)

    def embed(self, stego: np.ndarray, cover: np.ndarray, number: int, packet: Packet) -> np.ndarray:
        """Write a packet into a copy of stego frame `number`; uint8 [h, w, 3] each."""
        plain = PACKET_HEADER.pack(packet.number, packet.time) + packet.sound
        sealed = self._sealer.encrypt(_nonce(number), plain.ljust(self._content, b"\0"), None)
        samples = stego.flatten()
        indices = self._indices(number, samples.size)
        low_bits.write(samples, cover.ravel(), indices, sealed, self._modulus, self._table)
        return samples.reshape(stego.shape)

    def extract(self, stego: np.ndarray, number: int) -> Packet | None:
        """Return the packet of stego frame `number`; None where it is damaged."""
        samples = stego.ravel()
        indices = self._indices(number, samples.size)
        sealed = low_bits.read(samples, indices, self._content + TAG_BYTES, self._table)
        try:
            plain = self._sealer.decrypt(_nonce(number), sealed, None)
        except InvalidTag:
            return None
        return Packet(*PACKET_HEADER.unpack_from(plain), plain[PACKET_HEADER.size :])


def _nonce(number: int) -> bytes:
    return number.to_bytes(12, "little")
