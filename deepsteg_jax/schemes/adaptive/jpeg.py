"""The scheme `adaptive_jpeg`: a secret's own file, or one coded to fit, in (Motion) JPEG that stays so.

secret -> bytes -> sealed chunks -> trellis code at J-UNIWARD costs, in keyed order, in the quantised
coefficients of the cover's own file, of which nothing else changes. The first frame has salt and header. All
frames with enough coefficients carry a chunk of one size, which says its number; the others are not touched.
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
from deepsteg_jax.schemes.adaptive.receiving import ChunkReceiver
from deepsteg_jax.schemes.base import Cost, Found, Metadata, Pair, Scheme, Sender, Settings, Stego

VERSION = 1  # of the format
_HEADER, _NUMBER = struct.Struct("<BBBBIII"), struct.Struct("<I")
_SEALED = _HEADER.size + TAG_BYTES
_FIRST = keys.SALT_BYTES + _SEALED  # bytes in the first frame, besides chunks
_OVERHEAD = _NUMBER.size + TAG_BYTES  # bytes of each chunk
_LARGEST = 2**32 - 1  # bytes of a secret
_STEPS = 20  # of the search for a rate
_NONCE = bytes(12)  # no two headers share a key

# Processor time at 0.1 bit per coefficient, file to file; memory of a busy picture, smooth ones take less.
_SECONDS_PER_PIXEL = 3e-6
_BYTES_PER_PIXEL, _BYTES = 250, 600e6


class JpegHeader(NamedTuple):
    """The knowledge that a receiver needs besides the key."""

    coded: bool  # the secret was coded to fit; else it is its own file
    height: int  # constraint height of the trellis
    name_bytes: int  # of the secret's name, which lies before it
    frames: int
    chunk_bytes: int  # of the secret in each frame that carries something of it
    size: int  # bytes of the secret, with its name

    digest = b""  # seals and numbers do without


class JpegScheme(Scheme):
    """Embeds in the coefficients of JPEGs; nothing of it is trained."""

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
        return Cost(_SECONDS_PER_PIXEL * pixels * frames, memory, 0, memory)

    def deal(self, nonzero: np.ndarray, size: int) -> tuple[int, np.ndarray]:
        """Return the bytes of a chunk, and which frames carry one, bool [n], at the lowest rate that will do.

        Args:
            nonzero: AC coefficients other than 0 of each frame, int [n].
            size: bytes of the secret.
        """
        low, high = 0.0, self.config.payload.rate
        for _ in range(_STEPS):
            rate = (low + high) / 2
            low, high = (low, rate) if _most(_rooms(nonzero, rate)) >= size else (rate, high)
        rooms = _rooms(nonzero, high)
        carries = rooms >= _largest_chunk(rooms)
        return -(-size // int(carries.sum())), carries

    def capacity(self, info: media.Info, frames: int, slots: int = 1) -> str:
        """Return the largest file that fits as it is; of a video a guess from its first frame."""
        rate, about = self.config.payload.rate, "" if info.is_image else "about "
        told = f"any file of up to {about}{self.holds(info, frames) / 1000:,.1f} kB"
        return f"{told}, at {rate:g} bit per coefficient, {risk.of_jpegs(rate)}"

    def holds(self, info: media.Info, frames: int, slots: int = 1, measured: Any = None) -> int:
        """See `Scheme`."""
        nonzero = np.full(frames, info.coefficients) if measured is None else measured
        return min(_most(_rooms(nonzero, self.config.payload.rate)), _LARGEST)

    def measure(self, cover: Iterable[media.Coefficients]) -> np.ndarray:
        """Count the coefficients that payloads are measured by, int [n]; UserError if they are too few."""
        nonzero = np.array([media.nonzero(frame) for frame in cover])
        rooms = _rooms(nonzero, self.config.payload.rate)
        if rooms[0] < -_OVERHEAD or rooms.max() <= 0:
            where = " in its first frame" if len(nonzero) > 1 else ""
            raise UserError(
                f"the cover has only {nonzero[0]:,} coefficients other than 0{where}: take a larger or "
                "busier one, or more of it with --config.payload.rate"
            )
        return nonzero

    def sender(
        self, plan: Plan, credentials: Sequence[keys.Credential], settings: Settings, measured: Any = None
    ) -> "JpegSender":
        """Make the sender of one stego, see `Scheme.sender`."""
        (credential,) = credentials
        return JpegSender(self, plan, credential, settings, measured)

    def probe(self, stego: Stego, deriver: keys.Deriver) -> Found | None:
        """Open the header: one derivation."""
        frame = next(stego.frames())
        if not frame.planes:  # damaged
            return None
        samples, public = coefficients.flat(frame), _places(frame)
        frames = _Frames(deriver(coefficients.extract(samples, public.salt, keys.SALT_BYTES)))
        sealed = coefficients.extract(samples, frames.header_order(public), _SEALED)
        try:
            version, *fields = _HEADER.unpack(frames.header.decrypt(_NONCE, sealed, None))
        except InvalidTag:
            return None
        header = JpegHeader(*fields)
        if version != VERSION or header.height not in HEIGHTS:
            return None
        info, size = stego.info, header._replace(coded=bool(header.coded))
        about = Metadata(info.width, info.height, 1, header.frames, info.rate, False, False, Fraction(1))
        return Found(about, (size, frames))

    def receiver(self, found: Found) -> "JpegReceiver":
        """Make the receiver of what `probe` found."""
        return JpegReceiver(found.metadata, *found.state)


def _rooms(nonzero: np.ndarray, rate: float) -> np.ndarray:
    """Return the bytes that frames carry at a rate, int [n]; of less than 0 not even the seals fit."""
    rooms = (rate * nonzero).astype(int) // 8 - _OVERHEAD
    rooms[0] -= _FIRST
    return rooms


def _largest_chunk(rooms: np.ndarray) -> int:
    """Return the size of chunks, one in each frame that has room for it, with which most bytes fit."""
    falling = np.sort(np.maximum(rooms, 0))[::-1]
    return int(falling[np.argmax(falling * np.arange(1, len(rooms) + 1))])


def _most(rooms: np.ndarray) -> int:
    """Return the bytes that fit into frames with such rooms."""
    chunk = _largest_chunk(rooms)
    return chunk * int(np.sum(rooms >= chunk))


def _places(frame: media.Coefficients, number: int = 0) -> coefficients.Places:
    """Return the places of salt and header, which lie in the first frame."""
    if number:
        return coefficients.Places()
    return coefficients.places(_blocks(frame), keys.SALT_BYTES, _SEALED)


def _blocks(frame: media.Coefficients) -> int:
    return sum(plane.size for plane in frame.planes) // 64


class _Frames:
    """Says where header and chunks lie, and seals them."""

    def __init__(self, master: bytes):
        def key(what):
            return keys.subkey(master, f"jpeg {what}")

        self.header, self._chunks = ChaCha20Poly1305(key("header")), ChaCha20Poly1305(key("payload"))
        self._header_key, self._order_key = key("header order"), key("payload order")

    def header_order(self, public: coefficients.Places) -> np.ndarray:
        return coefficients.ordered(public.header, self._header_key)

    def order(self, number: int, frame: media.Coefficients, size: int) -> np.ndarray:
        return coefficients.rest(_blocks(frame), _places(frame, number), size, self._order_key, number)

    def seal(self, number: int, chunk: bytes) -> bytes:
        return self._chunks.encrypt(number.to_bytes(12, "little"), chunk, None)

    def open(self, number: int, sealed: bytes) -> bytes | None:
        try:
            return self._chunks.decrypt(number.to_bytes(12, "little"), sealed, None)
        except InvalidTag:
            return None


class JpegSender(Sender):
    """Hides bytes in a picture, or in the frames of a video."""

    def __init__(
        self,
        scheme: JpegScheme,
        plan: Plan,
        credential: keys.Credential,
        settings: Settings,
        nonzero: np.ndarray,
    ):
        """Prepare the secret, and code it where it does not fit.

        Raises:
            UserError: it does not fit.
        """
        self._model, room = scheme.config.model, scheme.holds(plan.cover, len(nonzero), measured=nonzero)
        with ExitStack() as files:
            sent = payload.prepare(Path(plan.secret_path), room, settings.sound_bit_rate, files)
            self._files = files.pop_all()
        if sent.size > room:
            raise UserError(f"{plan.secret_path} changed while it was read: start again")
        self._rest, self._file, self._path, self._left = sent.name, sent.file, plan.secret_path, sent.size
        chunk, self._carries = scheme.deal(nonzero, sent.size)
        about = sent.coded, self._model.height, len(sent.name)
        self._header = JpegHeader(*about, len(nonzero), chunk, sent.size)
        self._salt = os.urandom(keys.SALT_BYTES)
        self._keyed = _Frames(keys.derive_key(credential, self._salt))
        self._number, self._chunk = 0, 0  # of the next ones
        bits = 8 * (_FIRST + self._carries.sum() * (_OVERHEAD + chunk))
        rate = bits / nonzero[self._carries].sum()
        self.announcement = f"{sent.note}; {rate:.3f} bit per coefficient other than 0, {risk.of_jpegs(rate)}"
        self.notes = (self.announcement,)

    def send(self, pair: Pair) -> list[media.Coefficients]:
        """Embed in the next frame of the cover."""
        cover, number = pair.cover, self._number
        parts, self._number = self._parts(cover, number), number + 1
        if not parts:
            return [cover]
        samples, costs = coefficients.flat(cover), coefficients.costs(cover, float(self._model.chroma))
        for part in parts:
            samples = coefficients.embed(samples, costs, *part)
            if samples is None:
                where = f"frame {number + 1} of " if len(self._carries) > 1 else ""
                raise UserError(
                    f"{where}the cover has too few coefficients that can be changed: take another cover"
                )
        return [coefficients.frame_of(samples, cover)]

    def _parts(self, cover: media.Coefficients, number: int) -> list[tuple]:
        """Return what lies in a frame, and where."""
        parts, keyed = [], self._keyed
        if number == 0:
            header = keyed.header.encrypt(_NONCE, _HEADER.pack(VERSION, *self._header), None)
            public = _places(cover)
            parts += [(public.salt, self._salt), (keyed.header_order(public), header)]
        if number < len(self._carries) and self._carries[number]:
            sealed = keyed.seal(number, self._next())
            parts.append((keyed.order(number, cover, len(sealed)), sealed, self._header.height))
        return parts

    def _next(self) -> bytes:
        """Return the next chunk: its number, then the name, the file, random bytes."""
        size = self._header.chunk_bytes
        data, self._rest = self._rest[:size], self._rest[size:]
        data += self._file.read(size - len(data))
        self._chunk, self._left = self._chunk + 1, self._left - len(data)
        return _NUMBER.pack(self._chunk - 1) + data + os.urandom(size - len(data))

    def finish(self) -> list[media.Coefficients]:
        """Return nothing: no frame is held back; raise UserError if the secret got longer or shorter."""
        if self._left or self._file.read(1):
            raise UserError(f"{self._path} changed while it was read: start again")
        return []

    def __exit__(self, *exception: object) -> None:
        """Remove temporary files."""
        self._files.close()


class JpegReceiver(ChunkReceiver):
    """Reveals bytes, of which most frames carry a chunk."""

    def __init__(self, metadata: Metadata, found: JpegHeader, frames: _Frames):
        """Take what `JpegScheme.probe` found."""
        super().__init__(metadata, found)
        self._frames = frames

    def receive(self, frame: media.Coefficients) -> list[bytes]:
        """Take the next frame of the stego; return the part of the secret in it."""
        number, self.received = self.received, self.received + 1
        if not frame.planes:  # damaged
            return []
        size, height = self._header.chunk_bytes + _OVERHEAD, self._header.height
        order = self._frames.order(number, frame, size)
        sealed = coefficients.extract(coefficients.flat(frame), order, size, height)
        chunk = self._frames.open(number, sealed)
        return [] if chunk is None else self._take(*_NUMBER.unpack_from(chunk), chunk[_NUMBER.size :])

    def finish(self) -> list[bytes]:
        """Return zeros for what the last frames lack; raise UserError if nothing could be opened."""
        if not self._at:
            raise UserError("the stego was changed after hiding, or cut: get an intact copy of it")
        if self.complete or self.received < self._header.frames:
            return []
        return self._take(-(-self._header.size // self._header.chunk_bytes) - 1, None)

    def _changes(self) -> str:
        count = len(self._lost)
        return f"in {count} frame{'s' if count > 1 else ''}"
