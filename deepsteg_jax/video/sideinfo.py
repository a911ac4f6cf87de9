"""What the receiver must know besides the key, sealed and hidden in the first frame of the stego.

A bit is the parity of floor(sample / D), which a model that reads samples modulo D never sees: writing a
bit moves a sample by D at most. The salt lies at public places (it looks random and must be read before
the key exists); the places of the sealed rest come from the key. The rest is sealed with
ChaCha20-Poly1305 (RFC 8439) under a key of its own, which the salt makes unique, so its nonce is zero.
"""

import struct
from fractions import Fraction
from typing import NamedTuple

import numpy as np
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from deepsteg_jax import keys
from deepsteg_jax.errors import UserError

_FORMAT = struct.Struct("<BIIIII8s3x")
_VERSION = 1
_SEALED_BYTES = _FORMAT.size + 16
_NONCE = bytes(12)
SMALLEST_FRAME = 8 * (keys.SALT_BYTES + _SEALED_BYTES)


class SideInfo(NamedTuple):
    """Facts about the hidden secret."""

    width: int  # pixels
    height: int
    frames: int
    rate: Fraction  # frames per second
    fingerprint: bytes  # 8 bytes, of the reveal parameters


def _places(key: bytes, count: int, size: int, taken: np.ndarray | None = None) -> np.ndarray:
    """`count` distinct numbers below `size` from the ChaCha20 keystream of `key`, none of them taken."""
    encryptor = Cipher(algorithms.ChaCha20(key, bytes(16)), None).encryptor()
    found = np.array([], np.int64) if taken is None else taken
    skip = len(found)
    while len(found) < skip + count:
        drawn = np.frombuffer(encryptor.update(bytes(16 * count)), "<u8") % size
        together = np.concatenate([found, drawn.astype(np.int64)])
        found = together[np.sort(np.unique(together, return_index=True)[1])]
    return found[skip : skip + count]


def _write_bits(samples: np.ndarray, places: np.ndarray, data: bytes, step: int) -> None:
    bits = np.unpackbits(np.frombuffer(data, np.uint8))
    old = samples[places].astype(int)
    move = np.where(old < 128, step, -step) * ((old // step) % 2 != bits)
    samples[places] = old + move


def _read_bits(samples: np.ndarray, places: np.ndarray, step: int) -> bytes:
    return np.packbits(samples[places] // step % 2).tobytes()


def _salt_places(size: int) -> np.ndarray:
    return _places(bytes(keys.KEY_BYTES), 8 * keys.SALT_BYTES, size)


def _sealed_places(key: bytes, size: int) -> np.ndarray:
    return _places(keys.subkey(key, "places"), 8 * _SEALED_BYTES, size, taken=_salt_places(size))


def _sealer(key: bytes) -> ChaCha20Poly1305:
    return ChaCha20Poly1305(keys.subkey(key, "side information"))


def embed(frame: np.ndarray, salt: bytes, key: bytes, info: SideInfo, step: int) -> np.ndarray:
    """Writes salt and side information into a copy of the first stego frame.

    Args:
        frame: uint8 [h, w, 3].
        salt: 16 random bytes.
        key: the 256-bit key derived with that salt.
        info: what to tell the receiver.
        step: the model's `step`.

    Raises:
        UserError: the frame has too few samples.
    """
    if frame.size < SMALLEST_FRAME:
        raise UserError(f"the cover is too small: a frame needs at least {SMALLEST_FRAME // 3 + 1} pixels")
    rate = info.rate.limit_denominator(2**16)
    packed = _FORMAT.pack(
        _VERSION, info.width, info.height, info.frames, rate.numerator, rate.denominator, info.fingerprint
    )
    samples = frame.flatten()
    _write_bits(samples, _salt_places(samples.size), salt, step)
    sealed = _sealer(key).encrypt(_NONCE, packed, None)
    _write_bits(samples, _sealed_places(key, samples.size), sealed, step)
    return samples.reshape(frame.shape)


def read_salt(frame: np.ndarray, step: int) -> bytes:
    """The 16 bytes at the salt's places of the first stego frame; random where nothing is hidden."""
    if frame.size < SMALLEST_FRAME:
        raise UserError("no hidden video for this passphrase: the frames are too small to hold one")
    return _read_bits(frame.ravel(), _salt_places(frame.size), step)


def extract(frame: np.ndarray, key: bytes, step: int) -> SideInfo:
    """Opens the side information of the first stego frame.

    Raises:
        UserError: wrong key, nothing hidden, or a frame that was changed on its way.
    """
    sealed = _read_bits(frame.ravel(), _sealed_places(key, frame.size), step)
    try:
        packed = _sealer(key).decrypt(_NONCE, sealed, None)
    except InvalidTag:
        raise UserError(
            "no hidden video for this passphrase: it is wrong, or nothing is hidden, or the file was recoded"
        ) from None
    version, width, height, frames, numerator, denominator, fingerprint = _FORMAT.unpack(packed)
    if version != _VERSION:
        raise UserError(f"the hidden video has format {version}, this program reads {_VERSION}: upgrade it")
    return SideInfo(width, height, frames, Fraction(numerator, denominator), fingerprint)
