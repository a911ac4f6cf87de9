"""The scheme `adaptive_jpeg`: a secret's own file, or one coded to fit, in a JPEG that stays one.

secret -> bytes -> sealed -> trellis code at J-UNIWARD costs, in keyed order, in the quantised coefficients of
the cover's own file, of which nothing else changes.
"""

import os
import struct
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from ml_collections import ConfigDict

from deepsteg_jax import keys, media
from deepsteg_jax.errors import UserError
from deepsteg_jax.plan import Plan
from deepsteg_jax.schemes import payload
from deepsteg_jax.schemes.adaptive import coefficients, risk
from deepsteg_jax.schemes.adaptive.header import HEIGHTS, TAG_BYTES, check
from deepsteg_jax.schemes.base import Cost, Found, Metadata, Pair, Receiver, Scheme, Sender, Settings, Stego

VERSION = 1  # of the format
_HEADER = struct.Struct("<BBBBI")
_SEALED = _HEADER.size + TAG_BYTES
_OVERHEAD = keys.SALT_BYTES + _SEALED + TAG_BYTES  # bytes
_NONCE = bytes(12)  # no two pictures share a key

# Processor time at 0.1 bit per coefficient, file to file; memory of a busy picture, smooth ones take less.
_SECONDS_PER_PIXEL = 3e-6
_BYTES_PER_PIXEL, _BYTES = 250, 600e6


class JpegHeader(NamedTuple):
    """The knowledge that a receiver needs besides the key."""

    coded: bool  # the secret was coded to fit; else it is its own file
    height: int  # constraint height of the trellis
    name_bytes: int  # of the secret's name, which lies before it
    size: int  # bytes of the secret, with its name


class JpegScheme(Scheme):
    """Embeds in the coefficients of a JPEG; nothing of it is trained."""

    name, purpose, domain, accepts, still = "adaptive_jpeg", "file", "coefficients", "bytes", True

    def __init__(self, config: ConfigDict, load_params: Callable[[str], Any]):
        """Take the whole config; there are no parameters to load.

        Raises:
            UserError: a field makes no sense.
        """
        del load_params
        self.config = config
        check(config, "coefficient")
        if config.model.chroma <= 0:
            raise UserError("config.model.chroma must be more than 0")

    def cost(self, height: int, width: int, frames: int, slots: int = 1) -> Cost:
        """Predict an upper bound from figures measured with 4:4:4, of 0.9 and 3.7 million pixels."""
        pixels = height * width
        memory = int(_BYTES + _BYTES_PER_PIXEL * pixels)
        return Cost(_SECONDS_PER_PIXEL * pixels, memory, 0, memory)

    def room(self, nonzero: int) -> int:
        """Return the bytes that a picture with that many AC coefficients other than 0 carries."""
        return max(0, int(self.config.payload.rate * nonzero) // 8 - _OVERHEAD)

    def capacity(self, info: media.Info, frames: int, slots: int = 1) -> str:
        """Return the largest file that fits as it is."""
        rate, room = self.config.payload.rate, self.holds(info, frames)
        told = f"any file of up to {room / 1000:,.1f} kB, at {rate:g} bit per coefficient"
        return f"{told}, {risk.of_jpegs(rate)}"

    def holds(self, info: media.Info, frames: int, slots: int = 1) -> int:
        """See `Scheme`."""
        return self.room(info.coefficients)

    def measure(self, cover: Iterable[media.Coefficients]) -> int:
        """Count the coefficients that payloads are measured by; raise UserError if they are too few."""
        found = media.nonzero(next(iter(cover)))
        if not self.room(found):
            raise UserError(
                f"the cover has only {found:,} coefficients other than 0: take a larger or busier one, "
                "or more of it with --config.payload.rate"
            )
        return found

    def sender(
        self, plan: Plan, credentials: Sequence[keys.Credential], settings: Settings, measured: Any = None
    ) -> "JpegSender":
        """Make the sender of one stego, see `Scheme.sender`."""
        (credential,) = credentials
        return JpegSender(self, plan, credential, settings, measured)

    def probe(self, stego: Stego, deriver: keys.Deriver) -> Found | None:
        """Open the header: one derivation."""
        frame = next(stego.frames())
        samples, public = coefficients.flat(frame), _places(frame)
        master = deriver(coefficients.extract(samples, public.salt, keys.SALT_BYTES))
        sealed = coefficients.extract(samples, _header_order(master, public), _SEALED)
        try:
            version, *fields = _HEADER.unpack(_sealer(master, "header").decrypt(_NONCE, sealed, None))
        except InvalidTag:
            return None
        header = JpegHeader(*fields)
        if version != VERSION or header.height not in HEIGHTS:
            return None
        info, size = stego.info, header._replace(coded=bool(header.coded))
        about = Metadata(info.width, info.height, 1, 1, info.rate, False, False, Fraction(1))
        return Found(about, (size, master))

    def receiver(self, found: Found) -> "JpegReceiver":
        """Make the receiver of what `probe` found."""
        return JpegReceiver(found.metadata, *found.state)


def _places(frame: media.Coefficients) -> coefficients.Places:
    return coefficients.places(_blocks(frame), keys.SALT_BYTES, _SEALED)


def _blocks(frame: media.Coefficients) -> int:
    return sum(plane.size for plane in frame.planes) // 64


def _sealer(master: bytes, what: str) -> ChaCha20Poly1305:
    return ChaCha20Poly1305(keys.subkey(master, f"jpeg {what}"))


def _header_order(master: bytes, public: coefficients.Places) -> np.ndarray:
    return coefficients.ordered(public.header, keys.subkey(master, "jpeg header order"))


def _payload_order(master: bytes, frame: media.Coefficients, size: int) -> np.ndarray:
    key = keys.subkey(master, "jpeg payload order")
    return coefficients.rest(_blocks(frame), _places(frame), size, key)


class JpegSender(Sender):
    """Hides bytes in one picture."""

    def __init__(
        self, scheme: JpegScheme, plan: Plan, credential: keys.Credential, settings: Settings, nonzero: int
    ):
        """Prepare the secret, and code it where it does not fit.

        Raises:
            UserError: it does not fit.
        """
        self._model, room = scheme.config.model, scheme.room(nonzero)
        with ExitStack() as files:
            sent = payload.prepare(Path(plan.secret_path), room, settings.sound_bit_rate, files)
            self._data = sent.name + sent.file.read()
        if len(self._data) != sent.size:
            raise UserError(f"{plan.secret_path} changed while it was read: start again")
        self._header = JpegHeader(sent.coded, self._model.height, len(sent.name), sent.size)
        self._salt = os.urandom(keys.SALT_BYTES)
        self._master = keys.derive_key(credential, self._salt)
        rate = 8 * (_OVERHEAD + sent.size) / nonzero
        self.announcement = f"{sent.note}; {rate:.3f} bit per coefficient other than 0, {risk.of_jpegs(rate)}"
        self.notes = (self.announcement,)

    def send(self, pair: Pair) -> list[media.Coefficients]:
        """Embed in the one frame of the cover."""
        cover, samples = pair.cover, coefficients.flat(pair.cover)
        costs = coefficients.costs(cover, float(self._model.chroma))
        public = _places(cover)
        header = _sealer(self._master, "header").encrypt(_NONCE, _HEADER.pack(VERSION, *self._header), None)
        sealed = _sealer(self._master, "payload").encrypt(_NONCE, self._data, None)
        parts = (
            (public.salt, self._salt),
            (_header_order(self._master, public), header),
            (_payload_order(self._master, cover, len(sealed)), sealed, self._header.height),
        )
        for part in parts:
            samples = coefficients.embed(samples, costs, *part)
            if samples is None:
                raise UserError("the cover has too few coefficients that can be changed: take another cover")
        return [coefficients.frame_of(samples, cover)]

    def finish(self) -> list[media.Coefficients]:
        """Return nothing: the one frame is sent."""
        return []


class JpegReceiver(Receiver):
    """Reveals bytes out of one picture."""

    def __init__(self, metadata: Metadata, found: JpegHeader, master: bytes):
        """Take what `JpegScheme.probe` found."""
        self.metadata, self._header, self._master = metadata, found, master
        self.coded = found.coded
        self.notes = ("coded to fit by the sender" if found.coded else "the secret's own file, bit for bit",)
        self.announcement = f"found a file of {(found.size - found.name_bytes) / 1000:,.1f} kB"

    @property
    def complete(self) -> bool:
        """Whether the one frame has come."""
        return self.received > 0

    def receive(self, frame: media.Coefficients) -> list[bytes]:
        """Return the secret; raise UserError if the picture was changed."""
        size, height = self._header.size + TAG_BYTES, self._header.height
        order = _payload_order(self._master, frame, size)
        sealed = coefficients.extract(coefficients.flat(frame), order, size, height)
        try:
            data = _sealer(self._master, "payload").decrypt(_NONCE, sealed, None)
        except InvalidTag:
            raise UserError("the stego was changed after hiding: get an intact copy of it") from None
        self.received, name = 1, data[: self._header.name_bytes]
        self.file_name = name.decode("utf-8", "ignore")
        self.written = len(data) - len(name)
        return [data[len(name) :]]

    def finish(self) -> list[bytes]:
        """Return nothing: the one frame has all."""
        return []

    def complaint(self, stego: str, output: str, damaged: Sequence[int]) -> str | None:
        """Return None: what is changed gives nothing."""
        return None
