"""The scheme `pixels`: a picture model hides frames in frames, under a keyed cipher, on a lossless channel.

Which frame of the secret comes when, and its sound, travel as sealed metadata in low bits, see `metadata`.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from fractions import Fraction
from functools import cached_property, partial
from io import SEEK_END
from tempfile import TemporaryFile
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from deepsteg_jax import keys, media, models
from deepsteg_jax.errors import UserError
from deepsteg_jax.export.graphs import Arrays, Graph, Shape, keyed_graphs, sample_tables, tabled_graphs
from deepsteg_jax.keys import Deriver
from deepsteg_jax.media.temporary import temporary_files
from deepsteg_jax.plan import Plan, tick_rate
from deepsteg_jax.schemes import low_bits, metadata, slots
from deepsteg_jax.schemes.base import (
    Cost,
    Found,
    Metadata,
    Pair,
    Receiver,
    Scheme,
    Sender,
    Settings,
    Stego,
    Timed,
    ranges,
)
from deepsteg_jax.schemes.metadata import PACKET_HEADER, Header, Packet, Packets
from deepsteg_jax.schemes.pixel_slots import SlotCodec, SlotSender
from deepsteg_jax.schemes.runner import Runner, calls_at_once, chunk_frames
from deepsteg_jax.steganography import Codec

LEAST_SOUND, MOST_SOUND = 6_000, 512_000  # bits per second; the range of Opus
OGG_HEADER = 160  # bytes: the least in a packet of large frames, so that one holds the header of an Ogg file

# Measured with block_dct on two cores, file to file; other models take longer.
_SECONDS_PER_PIXEL = 3e-7
_SLOT_SECONDS = 0.6  # for each further slot, as a share of those of the first
_STEGO_BYTES_PER_PIXEL = 1.1  # FFV1 with noise in its low bits
# Memory: of a process that compiles; of a pixel of an image; of a pixel of a video in files and queues,
# and for every frame in one call of the compiled graph. To reveal, the share of these of a pixel.
_BYTES, _STILL_BYTES, _STREAM_BYTES, _CALL_BYTES, _REVEALING = 600e6, 60, 210, 40, 0.65


class PixelScheme(Scheme):
    """A model of pictures with its parameters, those of the hide side loaded when they are first used."""

    name, purpose = "pixels", "live"

    def __init__(self, config: ConfigDict, load_params: Callable[[str], Any]):
        """Take the config and `load_params`, which gives the parameters of "hide" or "reveal".

        Raises:
            UserError: there is no such model, its checkpoint does not fit, or its D is too large.
        """
        self.config, self._load = config, load_params
        self.group, self.still = config.model.frames, config.model.frames == 1
        self._codecs: dict[tuple, Codec | SlotCodec] = {}
        self.model = models.build(config.model)
        self.slots = max(slots.NUMBERS) if self.model.digits else 1
        self.modulus = self.model.modulus
        if not 1 <= self.modulus <= low_bits.LARGEST_MODULUS:
            raise UserError(
                f"the scheme pixels takes models of a modulus D from 1 to {low_bits.LARGEST_MODULUS}, not "
                f"{self.modulus}: metadata would not fit"
            )
        # Loaded at once, so that a checkpoint that does not fit is refused here.
        self.reveal_params = jax.device_put(load_params("reveal"))
        self.fingerprint = models.fingerprint(self.reveal_params)

    @cached_property
    def hide_params(self) -> Any:
        """The parameters of the hide side, on the device."""
        return jax.device_put(self._load("hide"))

    def codec(self, modulus: int | None = None, group: int | None = None, **shuffle: Any) -> Codec:
        """Return the compiled programs for these settings, those of the config where they are not given."""
        shuffle = ConfigDict({**self.config.shuffle, **shuffle})
        group = group or self.config.model.frames
        modulus = modulus or self.modulus
        key = modulus, group, shuffle.moves, shuffle.cipher, shuffle.block_size
        if key not in self._codecs:
            self._codecs[key] = Codec(self._model(modulus, group), shuffle, group)
        return self._codecs[key]

    def slot_codec(self, modulus: int, group: int) -> SlotCodec:
        """Return the compiled programs for stegos with slots."""
        key = modulus, group
        if key not in self._codecs:
            self._codecs[key] = SlotCodec(self._model(modulus, group), group)
        return self._codecs[key]

    def _model(self, modulus: int, group: int) -> models.Model:
        model = self.config.model.copy_and_resolve_references().unlock()
        model.frames = group
        if "modulus" in model:
            model.modulus = modulus
        return models.build(model)

    def cost(self, height: int, width: int, frames: int, slots: int = 1) -> Cost:
        """Predict from figures measured with block_dct."""
        pixels, size = height * width, (self.group, height, width)
        at_once = chunk_frames(*size) * calls_at_once(*size)
        each = _STILL_BYTES if frames == 1 else _STREAM_BYTES + _CALL_BYTES * at_once
        return Cost(
            pixels * frames * _SECONDS_PER_PIXEL * (1 + _SLOT_SECONDS * (slots - 1)),
            int(_BYTES + each * pixels),
            int(_STEGO_BYTES_PER_PIXEL * pixels * frames),
            int(_BYTES + _REVEALING * each * pixels),
        )

    def check(self, info: media.Info) -> None:
        """Raise UserError unless frames of this size hold the metadata."""
        metadata.check_size(info.width, info.height)

    def sender(
        self, plan: Plan, credentials: Sequence[keys.Credential], settings: Settings, measured: Any = None
    ) -> Sender:
        """Make the sender of one stego, see `Scheme.sender`."""
        if settings.slots > 1:
            header = partial(_header, self, sound=None)
            codec = self.slot_codec(self.modulus, self.group)
            return SlotSender(codec, self.hide_params, plan, credentials, settings.slots, header)
        (credential,) = credentials
        return PixelSender(self, plan, credential, settings)

    def probe(self, stego: Stego, deriver: Deriver) -> Found | None:
        """Open the header in the first two frames; two derivations, three where the first is damaged."""
        first = [frame for frame, _ in zip(stego.frames(), range(2), strict=False)]
        for header in metadata.open_headers(first, deriver):
            if header.fingerprint == self.fingerprint:
                return Found(header.secret, (header, deriver(header.salt), first[0].shape[:2]))
        return None

    def receiver(self, found: Found) -> Receiver:
        """Make the receiver of what `probe` found."""
        return PixelReceiver(self, *found.state)

    def reveal_blindly(self, stego: np.ndarray, key: bytes) -> np.ndarray:
        """Reveal a group of frames with a key of any kind."""
        return np.asarray(self.codec().reveal(self.reveal_params, keys.key_words(key), 0, stego))

    def session(self, key: str | bytes, height: int, width: int) -> tuple["Party", "Party"]:
        """Return sender and receiver of a live session; they share the key and nothing else."""
        metadata.check_size(width, height)
        master = keys.derive_key(key, keys.random_key()[: keys.SALT_BYTES])
        key_words, codec = keys.key_words(keys.subkey(master, "shuffle")), self.codec()
        sides = (codec.hide, self.hide_params), (codec.reveal, self.reveal_params)
        return tuple(Party(run, params, key_words) for run, params in sides)

    def complexity(self, height: int, width: int) -> dict[str, dict[str, float]]:
        """Count multiply-adds in the compiled program and parameters."""
        from deepsteg_jax import costs

        gmac = costs.gmac_per_frame(self.model, self.config.model.frames, height, width)
        return {"gmac_per_frame": gmac, "parameters": costs.parameter_counts(self.model)}

    def graphs(self, shape: Shape, portable: bool = False) -> list[Graph]:
        """Return hide and reveal: exact with the cipher inside, portable with its tables as inputs."""
        params = {"hide": self.hide_params, "reveal": self.reveal_params}
        make = tabled_graphs if portable else keyed_graphs
        return make(self.config, params, shape)

    def graph_inputs(self, cover: np.ndarray, secret: np.ndarray, first_frame: int) -> Arrays:
        """See `Scheme`; under a random key, with the stego that it gives."""
        key = keys.key_words(keys.random_key())
        stego = np.asarray(self.codec().hide(self.hide_params, key, first_frame, cover, secret))
        tables = sample_tables(self.config.shuffle, key, first_frame, cover.shape[:3])
        frames = {"cover": cover, "secret": secret, "stego": stego}
        return {"key": key, "first_frame": np.int32(first_frame), **frames, **tables}

    def graph_facts(self) -> dict[str, Any]:
        """See `Scheme`; also the modulus of the header's digits, and how the key moves samples."""
        return {
            "group": self.group,
            "modulus": self.modulus,
            "fingerprint": self.fingerprint.hex(),
            "shuffle": self.config.shuffle.to_dict(),
        }


class Party:
    """One side of a live session: its parameters, the key, and the number of frames that went by."""

    def __init__(self, run: Callable, params: Any, key_words: np.ndarray):
        """Take `run`, `hide` or `reveal` of a `Codec`, and the key of its keystreams, uint32 [8]."""
        self._run, self._params, self._key_words, self._frames = run, params, key_words, 0

    def work(self, *stacks: np.ndarray) -> np.ndarray:
        """Run the next group: uint8 [t, h, w, 3] each (cover and secret, or stego) -> uint8 [t, h, w, 3]."""
        done = np.asarray(self._run(self._params, self._key_words, self._frames, *stacks))
        self._frames += len(done)
        return done

    def warm_up(self, *stacks: np.ndarray) -> None:
        """Compile for such stacks."""
        np.asarray(self._run(self._params, np.zeros_like(self._key_words), 0, *stacks))


# --- sender ---------------------------------------------------------------------------------------


class PixelSender(Sender):
    """Hides a video in a video, or an image in an image."""

    def __init__(self, scheme: PixelScheme, plan: Plan, credential: keys.Credential, settings: Settings):
        """Compile, and encode the secret's sound.

        Raises:
            UserError: the cover is too small for sound or times, or the sound is damaged.
        """
        self._plan, info = plan, plan.cover
        self._length, self._sent = len(plan.schedule.numbers), 0
        self._salts = [keys.random_key()[: keys.SALT_BYTES] for _ in range(2)]
        self._masters = [keys.derive_key(credential, salt) for salt in self._salts]
        capacity = _sound_bit_rate(info.width * info.height * 3, plan.cover_clock.rate)
        self._sound, self._runner = _encoded_sound(plan, settings.sound_bit_rate, capacity), None
        try:
            self._header = _header(scheme, plan, self._salts[0], self._sound)
            self._packets = Packets(self._masters[0], self._header.packet_bytes, self._header.modulus)
            key_words = keys.key_words(keys.subkey(self._masters[0], "shuffle"))
            codec = scheme.codec()
            run = partial(codec.hide, scheme.hide_params)
            self._runner = Runner(run, key_words, codec.frames, info.height, info.width)
            tail = max(0, len(plan.cover_clock.times) - self._length) % self._length
            self._runner.warm_up((self._length, tail), 2)
        except BaseException:
            self.__exit__()
            raise
        self._taken = 0

    def send(self, pair: Pair) -> list[np.ndarray]:
        """Take the next pair of frames; see `Sender.send`."""
        height, width = pair.cover.shape[:2]
        secret, pair = pair.secret, pair._replace(secret=None)
        if secret.shape != pair.cover.shape:
            margins = (0, height - secret.shape[0]), (0, width - secret.shape[1]), (0, 0)
            secret = np.pad(secret, margins, mode="edge")
        done = self._runner.take(pair, (pair.cover, secret))
        self._taken += 1
        if self._taken % self._length == 0:  # the secret begins again in the tail, with a group of its own
            done += self._runner.cut()
        return [self._marked(*one) for one in done]

    def finish(self) -> list[np.ndarray]:
        """Return the rest of the stego."""
        return [self._marked(*one) for one in self._runner.cut() + self._runner.finish()]

    def _marked(self, pair: Pair, stego: np.ndarray) -> np.ndarray:
        """Embed the next frame's metadata."""
        number, header = self._sent, self._header
        self._sent += 1
        if number < len(self._salts):
            salt, master = self._salts[number], self._masters[number]
            stego = metadata.embed_header(stego, pair.cover, salt, master, header)
        if number and header.packet_bytes:
            packet = Packet(pair.number, pair.time, self._share(number))
            stego = self._packets.embed(stego, pair.cover, number, packet)
        return stego

    def _share(self, number: int) -> bytes:
        """Return the sound of one packet; none in the tail.

        The last one repeats the first one, which holds the header of the Ogg file.
        """
        if self._sound is None or number >= self._length:
            return b""
        if number == self._length - 1:
            self._sound.file.seek(0)
        return self._sound.file.read(self._header.packet_bytes - PACKET_HEADER.size)

    def __exit__(self, *exception: object) -> None:
        """End the work; close the temporary file of the sound."""
        if self._runner is not None:
            self._runner.close()
        if self._sound is not None:
            self._sound.file.close()


def _sound_bit_rate(frame_size: int, rate: Any) -> int:
    """Return the largest bit rate of sound, bits per second: half of the capacity."""
    share = metadata.packet_capacity(frame_size) // 2 - PACKET_HEADER.size
    return int(8 * share * rate)


def _encoded_sound(plan: Plan, bit_rate: int, capacity: int) -> media.Sound | None:
    """Encode the secret's sound at `bit_rate`, or as much of it as fits; None: there is none."""
    if not bit_rate or not plan.secret.tracks:
        return None
    if not LEAST_SOUND <= bit_rate <= MOST_SOUND:
        raise UserError(f"config.video.sound_bit_rate must be {LEAST_SOUND} to {MOST_SOUND} bits/s, or 0")
    with temporary_files():
        return media.encode_sound(plan.secret_path, max(LEAST_SOUND, min(bit_rate, capacity)))


def _header(scheme: PixelScheme, plan: Plan, salt: bytes, sound: media.Sound | None) -> Header:
    timed, shuffle = not plan.secret_clock.constant, scheme.config.shuffle
    secret = Metadata(
        width=plan.fit.width,
        height=plan.fit.height,
        frames=len(plan.secret_clock.times),
        cover_frames=len(plan.schedule.numbers),
        rate=tick_rate(plan.secret) if timed else plan.secret_clock.rate,
        timed=timed,
        turned=plan.fit.turned,
        aspect=plan.secret.aspect or Fraction(1),
        end=round(plan.secret_clock.duration * tick_rate(plan.secret)) if timed else 0,
    )
    return Header(
        secret,
        packet_bytes=_packet_bytes(plan, sound),
        sound_start=0 if sound is None else sound.start,
        sound_bytes=0 if sound is None else sound.size,
        modulus=scheme.modulus,
        group=scheme.config.model.frames,
        moves=shuffle.moves,
        cipher=shuffle.cipher,
        block_size=shuffle.block_size,
        fingerprint=scheme.fingerprint,
        salt=salt,
    )


def _packet_bytes(plan: Plan, sound: media.Sound | None) -> int:
    """Return the size of a packet's content; UserError if the frames cannot hold it."""
    frames = len(plan.schedule.numbers)
    capacity = metadata.packet_capacity(plan.cover.width * plan.cover.height * 3)
    share = 0 if sound is None else max(min(OGG_HEADER, capacity // 4), -(-sound.size // max(1, frames - 2)))
    size = PACKET_HEADER.size + share if plan.needs_numbers or sound else 0
    if size > capacity or (sound and frames < 3):
        raise UserError(
            "the cover is too small for the secret's sound: use larger or more frames, or leave the sound "
            "out with --config.video.sound_bit_rate=0"
            if sound
            else "the cover is too small for the times of the secret's frames: use larger frames"
        )
    if sound and abs(sound.start) >= 2**31:
        raise UserError("the secret's sound and pictures are hours apart: repair the secret first")
    return size


# --- receiver -------------------------------------------------------------------------------------


def _revealing(scheme: PixelScheme, header: Header, size: tuple[int, int]) -> Callable:
    """Return what reveals frames of a height and width: (key_words, first_frame, frames) -> `Revealed`."""
    if header.slot.of > 1:
        places = slots.share(3 * size[0] * size[1], header.slot)
        return partial(scheme.slot_codec(header.modulus, header.group).reveal, scheme.reveal_params, places)
    shuffle = {"moves": header.moves, "cipher": header.cipher, "block_size": header.block_size}
    return partial(scheme.codec(header.modulus, header.group, **shuffle).inspect, scheme.reveal_params)


class PixelReceiver(Receiver):
    """Reveals a video or an image, puts its frames into their order and collects its sound."""

    def __init__(self, scheme: PixelScheme, header: Header, master: bytes, size: tuple[int, int]):
        """Take the header that was found, and `size`, height and width of the stego's frames."""
        self.metadata, self._header = header.secret, header
        self.lost: list[int] = []  # frames whose packet is damaged
        self.spoilt: dict[int, float] = {}  # frames with the share of each that is known to be wrong
        self._packets = Packets(master, header.packet_bytes, header.modulus, header.slot)
        self._number, self._time, self._last, self._taken = -1, -1, None, 0
        key_words = keys.key_words(keys.subkey(master, "shuffle"))
        self._runner = Runner(_revealing(scheme, header, size), key_words, header.group, *size)
        self._runner.warm_up((header.secret.cover_frames,), 1)
        with temporary_files():
            self._sound = TemporaryFile()  # noqa: SIM115, closed by __exit__

    @property
    def complete(self) -> bool:
        """Whether all frames that carry the secret have come."""
        return self._taken == self.metadata.cover_frames

    def receive(self, frame: np.ndarray) -> list[Timed]:
        """Take the next frame of the stego; see `Receiver.receive`."""
        self._taken += 1
        return self._added(self._runner.take(frame, (frame,)))

    def finish(self) -> list[Timed]:
        """Return the rest; of a stego that is cut short only whole groups count."""
        if not self.complete:
            self._runner.drop_cut_group()
        added = self._added(self._runner.cut() + self._runner.finish())
        whole = self.received == self.metadata.cover_frames and not self.metadata.timed
        filled = self._fill(self.metadata.frames) if whole else []
        self.written += len(filled)
        return added + filled

    def _added(self, revealed: list[tuple[np.ndarray, tuple]]) -> list[Timed]:
        added = []
        for stego, (frame, spoilt) in revealed:
            packet = self._packet(stego)
            if spoilt:
                self.spoilt[self.received] = float(spoilt)
            self.received += 1
            if packet.number <= self._number:
                continue
            frame = self.metadata.upright(frame[: self.metadata.height, : self.metadata.width])
            if self.metadata.timed:
                added.append(Timed(frame, packet.time))
            else:
                added += [*self._fill(packet.number), Timed(frame, packet.number)]
            self._number, self._time, self._last = packet.number, packet.time, frame
        self.written += len(added)
        return added

    def _fill(self, number: int) -> list[Timed]:
        """Return the last frame once more for every frame before `number` that no frame carried."""
        if self._last is None:
            return []
        return [Timed(self._last, missing) for missing in range(self._number + 1, number)]

    def _packet(self, stego: np.ndarray) -> Packet:
        following = Packet(min(self._number + 1, self.metadata.frames - 1), self._time + 1, b"")
        if not self._header.packet_bytes:
            return following
        if not self.received:
            return Packet(0, 0, b"")
        packet = self._packets.extract(stego, self.received)
        if packet is None:
            self.lost.append(self.received)
        share = self._header.packet_bytes - PACKET_HEADER.size
        last = self.received == self.metadata.cover_frames - 1
        with temporary_files():
            self._sound.seek(0 if last and 1 in self.lost else (self.received - 1) * share)
            self._sound.write(bytes(share) if packet is None else packet.sound)
        return packet or following

    def sound(self) -> media.Sound | None:
        """Return the secret's sound as far as it arrived."""
        if not self._header.sound_bytes:
            return None
        with temporary_files():
            self._sound.truncate(min(self._sound.seek(0, SEEK_END), self._header.sound_bytes))
        sound = media.Sound(self._sound, self._header.sound_bytes, self._header.sound_start)
        return sound if media.is_sound(sound) else None

    def complaint(self, stego: str, output: str, damaged: Sequence[int]) -> str | None:
        """Say in one line what is missing or wrong."""
        if self.received < self.metadata.cover_frames:
            return (
                f"{stego} is cut short: {output} has the first {self.written} of {self.metadata.frames} "
                "frames; get a complete copy of it for the rest"
            )
        wrong = {number + 1 for number in [*damaged, *self.lost] if number < self.metadata.cover_frames}
        if self.spoilt and not wrong:
            percent, frames = 100 * max(self.spoilt.values()), ranges([number + 1 for number in self.spoilt])
            return (
                f"{stego} is damaged: up to {max(percent, 0.1):.1f} % of the picture in frames {frames} of "
                f"{output} is wrong; get an intact copy of it"
            )
        if not wrong:
            return None
        return (
            f"{stego} is damaged in frame{'s' if len(wrong) > 1 else ''} {ranges(sorted(wrong))}: {output} "
            f"has all {self.written} frames, but is wrong about there; get an intact copy of it"
        )

    def __exit__(self, *exception: object) -> None:
        """End the work; close the temporary file of the sound."""
        self._runner.close()
        with suppress(OSError):
            self._sound.close()
