"""What the receiver must know besides the key, sealed and hidden in low bits of the stego.

The first frame holds 16 bytes of salt and a sealed record (`SideInfo`); the second frame holds both again
under a salt of its own, so that one damaged frame loses neither. Every later carrier, if the record says so,
holds a sealed packet: which frame of the secret it shows, when, and a share of the secret's sound. One
damaged frame costs one packet.

The salt lies at public places (it looks random and must be read before the key exists); all other places
come from the key. Everything but the salt is sealed with ChaCha20-Poly1305 (RFC 8439) under keys that the
salt makes unique, so nonces are frame numbers. All bits look random to whoever lacks the key.
"""

import hmac
import struct
from fractions import Fraction
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from deepsteg_jax import keys
from deepsteg_jax.errors import UserError
from deepsteg_jax.schemes import low_bits

VERSION = 2
TAG_BYTES = 16
PACKET_HEAD = struct.Struct("<II")  # number of the secret's frame, its time in ticks
NAME_BYTES = 8  # of the checkpoint's name, more are cut off
SMALLEST_PIXELS = 256  # a frame of 16x16 holds salt and record
LARGEST_SIDE = 2**16 - 1

_RECORD = struct.Struct("<B8s8sHHIIIHBBBHiI16s")
_RECORD_BYTES = _RECORD.size + TAG_BYTES
_RECORD_BITS = 8 * (keys.SALT_BYTES + _RECORD_BYTES)
_RECORD_ROOM = 2560  # public samples from which the key picks those of the record
_TURNED, _TIMED = 1, 2

NOTHING = (
    "no hidden video for this passphrase or key: it is wrong, or the checkpoint or config is another, "
    "or nothing is hidden, or the file was recoded"
)


class SideInfo(NamedTuple):
    """Facts about the hidden secret."""

    width: int  # pixels, as it lies in the stego
    height: int
    frames: int
    carriers: int  # frames of the stego that it lies in, from the first one on
    rate: Fraction  # frames per second; of a timed secret its ticks per second
    timed: bool  # every packet says when its frame is shown
    turned: bool  # the secret was turned left by 90 degrees to fit better
    aspect: Fraction  # of a pixel, width over height; of the secret as it was
    packet_bytes: int  # content of the packet in every carrier after the first; 0: there are none
    sound_start: int  # when the sound begins, in samples of 1/48000 s after the first frame
    sound_bytes: int  # of the Ogg file; 0: no sound
    checkpoint: str  # its name
    fingerprint: bytes  # 8 bytes, of the reveal parameters
    salt: bytes  # of the key that all but the record is under


def _pack(info: SideInfo) -> bytes:
    rate, aspect = info.rate.limit_denominator(2**16 - 1), info.aspect.limit_denominator(255)
    if not 0 < aspect.numerator <= 255:
        aspect = Fraction(1)
    return _RECORD.pack(
        VERSION,
        info.fingerprint,
        info.checkpoint.encode()[:NAME_BYTES],
        info.width,
        info.height,
        info.frames,
        info.carriers,
        rate.numerator,
        rate.denominator,
        _TURNED * info.turned + _TIMED * info.timed,
        aspect.numerator,
        aspect.denominator,
        info.packet_bytes,
        info.sound_start,
        info.sound_bytes,
        info.salt,
    )


def _unpack(packed: bytes) -> SideInfo | None:
    """None for another version."""
    if packed[0] != VERSION:
        return None
    (_, fingerprint, name, width, height, frames, carriers, *rest) = _RECORD.unpack(packed)
    rate, rate_over, flags, aspect, aspect_over, packet_bytes, start, size, salt = rest
    return SideInfo(
        width=width,
        height=height,
        frames=frames,
        carriers=carriers,
        rate=Fraction(rate, rate_over),
        timed=bool(flags & _TIMED),
        turned=bool(flags & _TURNED),
        aspect=Fraction(aspect, aspect_over),
        packet_bytes=packet_bytes,
        sound_start=start,
        sound_bytes=size,
        checkpoint=name.rstrip(b"\0").decode(errors="ignore"),
        fingerprint=fingerprint,
        salt=salt,
    )


# --- places --------------------------------------------------------------------------------------


@lru_cache(maxsize=4)
def _public_places(size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Places of the salt, of those that the record is picked from, and all the others."""
    room = min(8 * keys.SALT_BYTES + _RECORD_ROOM, size)
    first = low_bits.choose_places(bytes(keys.KEY_BYTES), 0, room, size)
    others = np.ones(size, bool)
    others[first] = False
    return first[: 8 * keys.SALT_BYTES], first[8 * keys.SALT_BYTES :], np.flatnonzero(others)


def _picked(key: bytes, number: int, count: int, among: np.ndarray) -> np.ndarray:
    """The places among `among` for `count` bytes, as many as their code takes."""
    needed = low_bits.samples_needed(count, len(among))
    return among[low_bits.choose_places(key, number, needed, len(among))]


def packet_room(size: int) -> int:
    """The largest packet content, in bytes, that a frame of `size` samples holds beside a record."""
    return max(0, min(len(_public_places(size)[2]) // 8 - TAG_BYTES, 2**16 - 1))


# --- record --------------------------------------------------------------------------------------


def _record_keys(master: bytes) -> tuple[ChaCha20Poly1305, bytes]:
    return ChaCha20Poly1305(keys.subkey(master, "record")), keys.subkey(master, "record places")


def check_size(width: int, height: int) -> None:
    """Raises UserError unless frames of this size hold the side information."""
    if width * height < SMALLEST_PIXELS:
        raise UserError(
            f"the cover is too small with {width}x{height}: a frame needs {SMALLEST_PIXELS} pixels"
        )
    if max(width, height) > LARGEST_SIDE:
        raise UserError(f"the cover is too large with {width}x{height}: scale it down first")


def embed_record(
    stego: np.ndarray, cover: np.ndarray, salt: bytes, master: bytes, info: SideInfo, step: int
) -> np.ndarray:
    """Writes salt and record into a copy of a stego frame.

    Args:
        stego: uint8 [h, w, 3].
        cover: same shape; what the result should stay close to.
        salt: 16 random bytes of this frame's own.
        master: the master key derived with that salt.
        info: what to tell the receiver.
        step: the model's `step`.
    """
    samples, under = stego.flatten(), cover.ravel()
    salt_places, room, _ = _public_places(samples.size)
    sealer, places_key = _record_keys(master)
    low_bits.write(samples, under, salt_places, salt, step)
    sealed = sealer.encrypt(bytes(12), _pack(info), None)
    low_bits.write(samples, under, _picked(places_key, 0, len(sealed), room), sealed, step)
    return samples.reshape(stego.shape)


def _read_record(frame: np.ndarray, credential: keys.Credential, step: int) -> tuple | None:
    """The record of one frame, and the salt and the master key that opened it."""
    samples = frame.ravel()
    salt_places, room, _ = _public_places(samples.size)
    salt = low_bits.read(samples, salt_places, keys.SALT_BYTES, step)
    master = keys.derive_key(credential, salt)
    sealer, places_key = _record_keys(master)
    sealed = low_bits.read(samples, _picked(places_key, 0, _RECORD_BYTES, room), _RECORD_BYTES, step)
    try:
        info = _unpack(sealer.decrypt(bytes(12), sealed, None))
    except InvalidTag:
        return None
    return None if info is None else (info, salt, master)


def open_record(
    frames: list[np.ndarray], credential: keys.Credential, fingerprint: bytes, step: int
) -> tuple[SideInfo, bytes]:
    """Opens the side information of a stego; the work is the same whatever is wrong.

    Args:
        frames: its first frame, or its first two, uint8 [h, w, 3].
        credential: passphrase or key file's content.
        fingerprint: of the receiver's reveal parameters.
        step: of the receiver's model.

    Returns:
        (the record, the master key of the video).

    Raises:
        UserError: one and the same line for a wrong passphrase, another checkpoint, nothing hidden, a
            recoded file.
    """
    frames = [frame if frame.size >= _RECORD_BITS else np.zeros((16, 16, 3), np.uint8) for frame in frames]
    for frame in frames:
        found = _read_record(frame, credential, step)
        if found is not None and hmac.compare_digest(found[0].fingerprint, fingerprint):
            info, salt, master = found
            return info, master if salt == info.salt else keys.derive_key(credential, info.salt)
    raise UserError(NOTHING)


# --- packets -------------------------------------------------------------------------------------


class Packet(NamedTuple):
    """What one carrier says."""

    number: int  # of the secret's frame that it shows
    time: int  # ticks
    sound: bytes


class Packets:
    """Seals and opens the packets of one video."""

    def __init__(self, master: bytes, content: int, step: int):
        """`content` is the record's `packet_bytes`."""
        self._sealer = ChaCha20Poly1305(keys.subkey(master, "packets"))
        self._places_key = keys.subkey(master, "packet places")
        self._content, self._step = content, step

    def _places(self, number: int, size: int) -> np.ndarray:
        return _picked(self._places_key, number, self._content + TAG_BYTES, _public_places(size)[2])

    def embed(self, stego: np.ndarray, cover: np.ndarray, number: int, packet: Packet) -> np.ndarray:
        """Writes a packet into a copy of stego frame `number`; uint8 [h, w, 3] each."""
        plain = PACKET_HEAD.pack(packet.number, packet.time) + packet.sound
        sealed = self._sealer.encrypt(_nonce(number), plain.ljust(self._content, b"\0"), None)
        samples = stego.flatten()
        low_bits.write(samples, cover.ravel(), self._places(number, samples.size), sealed, self._step)
        return samples.reshape(stego.shape)

    def extract(self, stego: np.ndarray, number: int) -> Packet | None:
        """The packet of stego frame `number`; None where it is damaged."""
        samples = stego.ravel()
        places = self._places(number, samples.size)
        sealed = low_bits.read(samples, places, self._content + TAG_BYTES, self._step)
        try:
            plain = self._sealer.decrypt(_nonce(number), sealed, None)
        except InvalidTag:
            return None
        return Packet(*PACKET_HEAD.unpack_from(plain), plain[PACKET_HEAD.size :])


def _nonce(number: int) -> bytes:
    return number.to_bytes(12, "little")
