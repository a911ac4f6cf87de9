"""The scheme `adaptive`: a secret's own file, or one coded to fit, where changes of +-1 are noticed least.

secret -> bytes -> a sealed chunk for each frame -> trellis code at HILL costs, or learned ones, in keyed
order, in the cover's own planes. Every frame of the cover carries the same number of bytes, so that nothing
tells where it ends.

Several secrets: a public order deals the samples out to slots, each of which is all of this for a key of its
own. All slots carry as much as they can, those without a secret random bytes under a random key.
"""

import os
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from fractions import Fraction
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from ml_collections import ConfigDict

from deepsteg_jax import keys, media
from deepsteg_jax.errors import UserError
from deepsteg_jax.plan import Plan
from deepsteg_jax.schemes import payload, slots
from deepsteg_jax.schemes.adaptive import embedding, header, risk
from deepsteg_jax.schemes.adaptive.embedding import Pricing
from deepsteg_jax.schemes.adaptive.header import TAG_BYTES, Header
from deepsteg_jax.schemes.adaptive.receiving import ChunkReceiver
from deepsteg_jax.schemes.base import Cost, Found, Frame, Metadata, Pair, Scheme, Sender, Settings, Stego
from deepsteg_jax.schemes.payload import Payload
from deepsteg_jax.schemes.slots import Slot, in_each

DENSEST = 0.6  # bits per sample that is embedded in
_WORKERS = 2  # frames that are embedded at once
_MOST_MISSING = 4  # frames in a row that a receiver does without
_STEPS = 16  # sizes of chunks in an octave: each size takes seconds to compile, once

# Measured on two cores, file to file, at 0.1 bit per sample.
_SECONDS_PER_SAMPLE = 6e-7
_BYTES_PER_SAMPLE, _BYTES = 170, 650e6  # memory: of a sample of one frame, and of the process
_STEGO_BYTES_PER_SAMPLE = 0.35  # lossless H.264


class AdaptiveScheme(Scheme):
    """Embeds by syndrome-trellis codes at HILL costs, or at those of the model `adaptive_learned`."""

    name, purpose, domain, accepts, slots = "adaptive", "file", "own", "bytes", max(slots.NUMBERS)

    def __init__(self, config: ConfigDict, load_params: Callable[[str], Any]):
        """Take the whole config, and `load_params`, which returns the parameters of learned costs.

        Raises:
            UserError: a field makes no sense.
        """
        self.config, self._load = config, load_params
        header.check(config, "sample")
        if min(config.model.chroma, config.model.still) <= 0:
            raise UserError("config.model.chroma and still must be more than 0")

    @cached_property
    def params(self) -> Any:
        """The parameters of learned costs; None: HILL."""
        return self._load("hide") if self.config.model.name == "adaptive_learned" else None

    def cost(self, height: int, width: int, frames: int, slots: int = 1) -> Cost:
        """Predict from figures measured with 4:2:0; slots share out what one would take."""
        samples = 1.5 * height * width
        return Cost(
            _SECONDS_PER_SAMPLE * samples * frames,
            int(_BYTES + _BYTES_PER_SAMPLE * samples),
            int(_STEGO_BYTES_PER_SAMPLE * samples * frames),
            int(_BYTES + _BYTES_PER_SAMPLE / 2 * samples),
        )

    def room(self, samples: int, embedded: int, frames: int, slots: int = 1) -> int:
        """Return the bytes that a slot of frames carries at the config's rate, which is that of all slots.

        Args:
            samples: of a frame.
            embedded: those of them that are embedded in, which have a limit of their own.
            frames: number of frames.
            slots: number of slots.
        """
        if embedded < slots * header.LEAST_SAMPLES:
            return 0
        left = embedded - header.sample_count(embedded, slots)
        bits = min(self.config.payload.rate * samples, DENSEST * left) / slots
        return frames * max(0, int(bits) // 8 - TAG_BYTES)

    def capacity(self, info: media.Info, frames: int, slots: int = 1) -> str:
        """Return the largest file that fits as it is."""
        rate = self.config.payload.rate
        room = f"{self.holds(info, frames, slots) / 1000:,.1f} kB{in_each(slots)}"
        return f"any file of up to {room}, at {rate:g} bit per sample, {risk.of_frames(rate)}"

    def holds(self, info: media.Info, frames: int, slots: int = 1, measured: Any = None) -> int:
        """See `Scheme`."""
        if measured is not None:
            return self.room(
                embedding.sample_count(measured), len(embedding.free_of(measured)), frames, slots
            )
        embedded = info.width * info.height
        samples = embedded * (1 if info.pixel_format == "gray" else 3)
        if media.has_planes(info.pixel_format) and not info.is_image:
            across, down = media.subsampling(info.pixel_format)
            samples = embedded = embedded + 2 * -(-info.width // across) * -(-info.height // down)
        return self.room(samples, embedded, frames, slots)

    def check(self, info: media.Info) -> None:
        """Raise UserError unless frames of this size hold header and chunks."""
        if info.width * info.height < header.LEAST_SAMPLES or min(info.width, info.height) < 16:
            raise UserError(f"the cover, {info.width}x{info.height}, is too small: it needs 64x64 pixels")

    def measure(self, cover: Iterable[Frame]) -> Frame:
        """Return the first frame, which tells the number of samples."""
        return next(iter(cover))

    def sender(
        self, plan: Plan, credentials: Sequence[keys.Credential], settings: Settings, measured: Any = None
    ) -> "AdaptiveSender":
        """Make the sender of one stego, see `Scheme.sender`."""
        return AdaptiveSender(self, plan, credentials, settings, measured)

    def probe(self, stego: Stego, deriver: keys.Deriver) -> Found | None:
        """Open the header in the first two frames: one derivation, a second one where that is damaged."""
        for frame in islice(stego.frames(), header.FRAMES):
            if opened := header.read(embedding.planes_of(frame), deriver):
                found, slot = opened
                about = _metadata(stego.info, found.frames)
                return Found(about, (found, _Chunks(deriver(found.salt), slot)))
        return None

    def receiver(self, found: Found) -> "AdaptiveReceiver":
        """Make the receiver of what `probe` found."""
        return AdaptiveReceiver(found.metadata, *found.state)


def _metadata(info: media.Info, frames: int) -> Metadata:
    return Metadata(info.width, info.height, frames, frames, info.rate, False, False, Fraction(1))


class _Chunks:
    """Seals and opens the chunk of each frame in one slot."""

    def __init__(self, master: bytes, slot: Slot):
        self.slot = slot
        self._sealer = ChaCha20Poly1305(keys.subkey(master, "adaptive chunks"))
        self._order_key = keys.subkey(master, "adaptive order")

    def order(self, number: int, samples: int) -> np.ndarray:
        return embedding.slot_order(self._order_key, number, samples, self.slot)

    def seal(self, number: int, chunk: bytes) -> bytes:
        return self._sealer.encrypt(number.to_bytes(12, "little"), chunk, None)

    def open(self, number: int, sealed: bytes) -> bytes | None:
        try:
            return self._sealer.decrypt(number.to_bytes(12, "little"), sealed, None)
        except InvalidTag:
            return None


class _Content:
    """A secret on its way into a slot, or random bytes in its place."""

    def __init__(
        self, sent: Payload, credential: keys.Credential, salts: list[bytes], slot: Slot, shape: tuple
    ):
        """Take what is to be sent, and `shape`: height of the trellis, frames, bytes of a chunk."""
        self.masters = [keys.derive_key(credential, salt) for salt in salts]
        self.chunks = _Chunks(self.masters[0], slot)
        height, frames, self._chunk = shape
        name = len(sent.name)
        self.header = Header(sent.coded, height, name, frames, self._chunk, sent.size, sent.digest, salts[0])
        self._rest, self._file = sent.name, sent.file

    def sealed(self, number: int) -> bytes:
        """Return the next chunk, of frame `number`: the name, the file, then random bytes."""
        data, self._rest = self._rest[: self._chunk], self._rest[self._chunk :]
        data += self._file.read(self._chunk - len(data))
        return self.chunks.seal(number, data + os.urandom(self._chunk - len(data)))


class AdaptiveSender(Sender):
    """Hides bytes, a chunk in each frame and slot."""

    def __init__(
        self,
        scheme: AdaptiveScheme,
        plan: Plan,
        credentials: Sequence[keys.Credential],
        settings: Settings,
        first: Frame,
    ):
        """Prepare the secrets, and code those that do not fit.

        Raises:
            UserError: one does not fit, or the cover has no frames.
        """
        self._frames = len(plan.cover_clock.times)
        model, highest = scheme.config.model, _highest(first, plan.cover.pixel_format)
        self._height, self._params = model.height, scheme.params
        self._pricing = Pricing(highest, float(model.chroma), float(model.still))
        samples, count = embedding.sample_count(first), settings.slots
        room = scheme.holds(plan.cover, self._frames, count, first)
        with ExitStack() as files:
            sent = [_prepared(each.secret_path, room, settings, files) for each in plan.each]
            self._files = files.pop_all()
        self._pool = ThreadPoolExecutor(_WORKERS, "embed")
        chunk, note = room // self._frames, f"{count} slots of {room / 1000:,.1f} kB"
        if count == 1:
            chunk, note = _rounded(-(-sent[0].size // self._frames), chunk), sent[0].note
        self._salts = [os.urandom(keys.SALT_BYTES) for _ in range(header.FRAMES)]
        filled = slots.deal(zip(sent, credentials, strict=True), payload.NOTHING, count)
        shape = model.height, self._frames, chunk
        self._contents = [
            _Content(*content, self._salts, Slot(i, count), shape) for i, content in enumerate(filled)
        ]
        rate = count * 8 * (chunk + TAG_BYTES) / samples
        self.announcement = f"{note}; {rate:.3f} bit per sample, {risk.of_frames(rate)}"
        self.notes = (self.announcement,)
        self._waiting: list[Frame] = []  # the frame before, the next one to embed, and the one after it
        self._number, self._running = 0, deque()

    def send(self, pair: Pair) -> list[Frame]:
        """Take the next frame of the cover; see `Sender.send`."""
        self._waiting.append(pair.cover)
        if len(self._waiting) == 1:
            return []
        self._start(len(self._waiting) - 2)
        del self._waiting[:-2]
        return self._ready(2 * _WORKERS)

    def finish(self) -> list[Frame]:
        """Return the rest of the stego."""
        if self._waiting:
            self._start(len(self._waiting) - 1)
        return self._ready(0)

    def _start(self, i: int) -> None:
        """Let the embedding in waiting frame `i` begin."""
        beside = self._waiting[max(i - 1, 0) : i] + self._waiting[i + 1 : i + 2]
        beside *= 2 // max(len(beside), 1)  # the ends have one; the same program serves them
        if self._number < self._frames:
            sealed = [content.sealed(self._number) for content in self._contents]
            job = self._pool.submit(self._embed, self._number, self._waiting[i], beside, sealed)
        else:  # a cover that has more frames than it promised
            job = Future()
            job.set_result(self._waiting[i])
        self._running.append(job)
        self._number += 1

    def _ready(self, most: int) -> list[Frame]:
        """Return frames that are done, or that are more than may be running."""
        done = []
        while self._running and (len(self._running) > most or self._running[0].done()):
            done.append(self._running.popleft().result())
        return done

    def _embed(self, number: int, cover: Frame, beside: list[Frame], sealed: list[bytes]) -> Frame:
        planes, free = embedding.planes_of(cover), embedding.free_of(cover)
        neighbours = tuple(embedding.planes_of(frame) for frame in beside)
        if number < header.FRAMES:
            masters = [content.masters[number] for content in self._contents]
            headers = [content.header for content in self._contents]
            planes, taken = header.embed(planes, self._salts[number], masters, headers)
            free[taken] = False
        orders = np.stack([content.chunks.order(number, len(free)) for content in self._contents])
        settings = self._height, self._pricing, self._params
        stego = embedding.embed(planes, neighbours, orders, free, sealed, *settings)
        if stego is None:
            raise UserError(
                f"frame {number + 1} of the cover has too few samples that can be changed: take another cover"
            )
        return embedding.frame_of(stego, cover)

    def __exit__(self, *exception: object) -> None:
        """Stop the work and remove temporary files."""
        self._pool.shutdown(cancel_futures=True)
        self._files.close()


def _prepared(path: str | Path, room: int, settings: Settings, files: ExitStack) -> Payload:
    prepared = payload.prepare(Path(path), room, settings.sound_bit_rate, files)
    if prepared.size > room:
        raise UserError(f"{path} changed while it was read: start again")
    return prepared


def _highest(frame: Frame, pixel_format: str) -> int:
    """Return the largest value of a sample."""
    planes = frame if isinstance(frame, media.Planes) else (frame,)
    return 255 if planes[0].dtype == np.uint8 else 2 ** media.sample_bits(pixel_format) - 1


def _rounded(chunk: int, most: int) -> int:
    """Return the next one of few sizes, at most the largest that there is room for."""
    size = 1.0
    while round(size) < chunk:
        size *= 2 ** (1 / _STEPS)
    return min(round(size), most)


class AdaptiveReceiver(ChunkReceiver):
    """Reveals bytes, of which every frame carries a chunk."""

    def __init__(self, metadata: Metadata, found: Header, chunks: _Chunks):
        """Take what `AdaptiveScheme.probe` found."""
        super().__init__(metadata, found)
        self._chunks = chunks

    def receive(self, frame: Frame) -> list[bytes]:
        """Take the next frame of the stego; return the part of the secret in it."""
        self.received += 1
        numbers = range(self._at, self._at + 1 + _MOST_MISSING)
        opened = ((number, self._open(frame, number)) for number in numbers)
        return self._take(*next((found for found in opened if found[1] is not None), (self._at, None)))

    def _open(self, frame: Frame, number: int) -> bytes | None:
        """Return the chunk in a frame; None if it was changed."""
        planes, size = embedding.planes_of(frame), self._header.chunk_bytes + TAG_BYTES
        samples, height = sum(plane.size for plane in planes), self._header.height
        if not embedding.fits(samples // self._chunks.slot.of, size, height):
            return None
        order = self._chunks.order(number, samples)
        return self._chunks.open(number, embedding.extract(planes, order, size, height))
