"""Hiding and revealing whole files as streams: memory is bounded by the frame size, not by the length."""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from fractions import Fraction
from functools import partial
from io import SEEK_END
from itertools import islice
from pathlib import Path
from tempfile import TemporaryFile, gettempdir
from typing import Any, NamedTuple

import numpy as np

from deepsteg_jax import keys, media, timing
from deepsteg_jax.errors import PartialError, UserError
from deepsteg_jax.media.background import read_ahead, write_behind
from deepsteg_jax.schemes import metadata
from deepsteg_jax.schemes.metadata import PACKET_HEAD, Packet, Packets, SideInfo
from deepsteg_jax.steganography import Codec

CHUNK_FRAMES = 4  # frames in one call of the compiled graph, or one group where groups are longer
MOST_CARRIERS = 2**26  # a month at 25 frames/s; their times are in memory
LEAST_SOUND, MOST_SOUND = 6_000, 512_000  # bits per second; what Opus can do
OGG_HEAD = 160  # bytes; no less in a packet of large frames, so that one holds the head of the Ogg file


class Report(NamedTuple):
    """What a job did."""

    frames: int  # of the secret
    width: int  # of the frames written
    height: int
    rate: Fraction
    seconds: float  # from the first frame read to the last one written, without compilation
    processed: int  # frames of the stego that were written or read in that time
    notes: tuple[str, ...] = ()  # what the user should know

    @property
    def fps(self) -> float:
        """Frames per second, file to file."""
        return self.processed / self.seconds

    def summary(self) -> str:
        """One line for the user."""
        notes = "".join(f"; {note}" for note in self.notes)
        return f"{self.frames} frames of {self.width}x{self.height}, {self.fps:.1f} frames/s{notes}"


class Side(NamedTuple):
    """One side of a model, ready to work."""

    codec: Codec
    params: Any  # of this side only
    step: int  # the model's `step`
    fingerprint: bytes  # of the reveal parameters
    checkpoint: str = ""  # its name


class Settings(NamedTuple):
    """How a secret is laid along a cover; see section `video` of the config."""

    align: str = "time"
    loop_cover: bool = False
    sound_bit_rate: int = 64_000  # bits per second; 0 leaves the secret's sound out


DEFAULTS = Settings()


# --- fitting --------------------------------------------------------------------------------------


class Fit(NamedTuple):
    """How a secret lies in a cover's frame."""

    width: int  # pixels, as it lies there
    height: int
    turned: bool  # left by 90 degrees


def fit(info: media.Info, width: int, height: int) -> Fit:
    """A secret keeps its size where it fits into width x height; else the way round that shrinks it less."""

    def scale(w, h):
        return min(Fraction(1), Fraction(width, w), Fraction(height, h))

    turned = scale(info.height, info.width) > scale(info.width, info.height)
    size = (info.height, info.width) if turned else (info.width, info.height)
    factor = scale(*size)
    return Fit(*(max(1, round(side * factor)) for side in size), turned)


def fitted_size(info: media.Info, width: int, height: int) -> tuple[int, int]:
    """The size (width, height) at which a secret comes back from a cover of width x height."""
    fitted = fit(info, width, height)
    return (fitted.height, fitted.width) if fitted.turned else (fitted.width, fitted.height)


def read_fitted(path: str | Path, info: media.Info, width: int, height: int) -> Iterator[np.ndarray]:
    """The frames of a secret, scaled down if they are larger than the cover; uint8 [h', w', 3]."""
    inner_width, inner_height = fitted_size(info, width, height)
    return media.read_frames(path, width=inner_width, height=inner_height)


def _lay(frame: np.ndarray, turned: bool, width: int, height: int) -> np.ndarray:
    """Turns a fitted frame and repeats its last row and column up to the cover's size."""
    frame = np.rot90(frame) if turned else frame
    return np.pad(frame, ((0, height - frame.shape[0]), (0, width - frame.shape[1]), (0, 0)), mode="edge")


# --- streams --------------------------------------------------------------------------------------


def chunks(items: Iterable[Any], group: int) -> Iterator[list]:
    """Splits a stream into lists that a `Codec` takes: whole groups, then one shorter group."""
    items = iter(items)
    size = group * max(1, CHUNK_FRAMES // group)
    while chunk := list(islice(items, size)):
        whole = len(chunk) // group * group
        if whole:
            yield chunk[:whole]
        if chunk[whole:]:
            yield chunk[whole:]


class _Carrier(NamedTuple):
    """A frame of the cover and what it is to carry."""

    cover: media.Timed
    secret: np.ndarray  # as large as the cover's frame
    number: int  # of the secret's frame
    time: int  # its ticks


def picked(secret: Iterable[media.Timed], numbers: Iterable[int]) -> Iterator[tuple[int, media.Timed]]:
    """The secret's frames in the order of `numbers`, which never falls."""
    secret, at, frame = iter(secret), -1, None
    for number in numbers:
        while at < number:
            frame, at = next(secret, None), at + 1
            if frame is None:
                raise UserError("the secret changed while it was read: start again")
        yield number, frame


def _carriers(
    covers: Iterator[media.Timed], secret: Iterator[tuple[int, media.Timed]], lay
) -> Iterator[_Carrier]:
    """Pairs them until either ends."""
    for number, hidden in secret:
        cover = next(covers, None)
        if cover is None:
            return
        yield _Carrier(cover, lay(hidden.frame), number, hidden.time)


def _repeated(path: str, passes: int, length: int) -> Iterator[media.Timed]:
    """A cover's frames, `passes` times one after the other, `length` ticks apart."""
    for number in range(passes):
        for frame in media.read_timed(path):
            yield media.Timed(frame.frame, frame.time + number * length)


def _computed(run: Callable, items: Iterable[tuple], words: np.ndarray) -> Iterator[tuple[list, np.ndarray]]:
    """Runs the compiled graph over chunks, one ahead of the one that is used, one at a time.

    Args:
        run: (words, first_frame, *stacks) -> frames.
        items: (whatever belongs to the chunk, its stacks [n, h, w, 3]).

    Yields:
        (what belongs to the chunk, frames [n, h, w, 3]).
    """
    number, running = 0, None
    for belonging, stacks in items:
        # The last chunk is fetched first: two at a time would take twice the memory, now and then.
        done = running and (running[0], np.array(running[1]))
        running = belonging, run(words, number, *stacks)
        number += len(stacks[0])
        if done:
            yield done
    if running:
        yield running[0], np.array(running[1])


def _sizes(frames: int, group: int) -> set[int]:
    """The lengths of all chunks of so many frames."""
    full = group * max(1, CHUNK_FRAMES // group)
    return {len(chunk) for chunk in chunks(range(frames % full + full * (frames >= full)), group)}


def _warm_up(run: Callable, sizes: set[int], height: int, width: int, inputs: int) -> None:
    """Compiles for the sizes to come, so that reported times are those of the work."""
    for size in sizes:
        blank = np.zeros((size, height, width, 3), np.uint8)
        np.asarray(run(np.zeros(8, np.uint32), 0, *[blank] * inputs))


# --- sound ----------------------------------------------------------------------------------------


def _sound_room(frame_size: int, rate: Fraction) -> int:
    """Bits per second that the carriers hold at most, with half of the room left over."""
    share = metadata.packet_room(frame_size) // 2 - PACKET_HEAD.size
    return int(8 * share * rate)


@contextmanager
def _temporary_files():
    """Makes errors of the disk, where the hidden sound lies for a while, one line for the user."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"a temporary file cannot be written in {gettempdir()}: {reason}") from error


@contextmanager
def _secret_sound(path: str, info: media.Info, bit_rate: int, room: int):
    """The secret's sound, coded at `bit_rate` or as much of it as there is room for; None: there is none."""
    sound = None
    if bit_rate and info.tracks:
        if not LEAST_SOUND <= bit_rate <= MOST_SOUND:
            raise UserError(f"config.video.sound_bit_rate is {LEAST_SOUND} to {MOST_SOUND} bits/s, or 0")
        with _temporary_files():
            sound = media.encode_sound(path, max(LEAST_SOUND, min(bit_rate, room)))
    try:
        yield sound
    finally:
        if sound is not None:
            sound.file.close()


@contextmanager
def _revealed_sound():
    """An unnamed temporary file."""
    with _temporary_files():
        file = TemporaryFile()  # noqa: SIM115
    try:
        yield file
    finally:
        with suppress(OSError):
            file.close()


# --- hide -----------------------------------------------------------------------------------------


class Plan(NamedTuple):
    """What hide knows before the first frame."""

    cover: media.Info
    cover_clock: timing.Clock
    secret: media.Info
    secret_clock: timing.Clock
    schedule: timing.Schedule
    fit: Fit

    @property
    def needs_packets(self) -> bool:
        """Whether carriers must say what they show."""
        in_order = np.arange(len(self.secret_clock.times))
        return not (self.secret_clock.constant and np.array_equal(self.schedule.numbers, in_order))

    @property
    def left_out(self) -> int:
        """Frames of the secret that nobody carries."""
        return len(self.secret_clock.times) - len(np.unique(self.schedule.numbers))


def make_plan(cover: str, secret: str, settings: Settings) -> Plan:
    """How a secret will lie along a cover, both paths; reads the times of all frames.

    Raises:
        UserError: bad input, or the cover is too short.
    """
    cover_info, secret_info = media.probe(cover), media.probe(secret)
    metadata.check_size(cover_info.width, cover_info.height)
    cover_clock = timing.clock(media.frame_times(cover, decode=False), cover_info.time_base, cover_info.rate)
    secret_clock = timing.clock(media.frame_times(secret), secret_info.time_base, secret_info.rate)
    if cover_info.is_image and len(secret_clock.times) > 1:
        raise UserError(
            f"the cover {cover} is an image and the secret {secret} has more frames: give a video"
        )
    _check_length(secret, secret_clock, secret_info, cover_clock)
    schedule = timing.schedule(cover_clock, secret_clock, settings.align, settings.loop_cover, cover)
    fitted = fit(secret_info, cover_info.width, cover_info.height)
    return Plan(cover_info, cover_clock, secret_info, secret_clock, schedule, fitted)


def _check_length(secret: str, clock: timing.Clock, info: media.Info, cover: timing.Clock) -> None:
    """Raises UserError if the times of a secret, which may be damaged, fit neither packets nor memory."""
    too_long = not clock.constant and clock.times[-1] * _tick_rate(info) >= 2**32
    if too_long or clock.duration * float(cover.rate) > MOST_CARRIERS:
        raise UserError(
            f"the secret {secret} lasts {clock.duration:.0f} s by its own times: repair or cut it first"
        )


def _side_info(plan: Plan, side: Side, sound: media.Sound | None, salt: bytes) -> SideInfo:
    carriers = len(plan.schedule.numbers)
    room = metadata.packet_room(plan.cover.width * plan.cover.height * 3)
    share = 0 if sound is None else max(min(OGG_HEAD, room // 4), -(-sound.size // max(1, carriers - 2)))
    packet_bytes = PACKET_HEAD.size + share if plan.needs_packets or sound else 0
    if packet_bytes > room or (sound and carriers < 3):
        raise UserError(
            "the cover is too small for the secret's sound: use larger or more frames, or leave the sound "
            "out with --config.video.sound_bit_rate=0"
            if sound
            else "the cover is too small for the times of the secret's frames: use larger frames"
        )
    if sound and abs(sound.start) >= 2**31:
        raise UserError("the secret's sound and pictures are hours apart: repair it first")
    timed = not plan.secret_clock.constant
    return SideInfo(
        width=plan.fit.width,
        height=plan.fit.height,
        frames=len(plan.secret_clock.times),
        carriers=carriers,
        rate=_tick_rate(plan.secret) if timed else plan.secret_clock.rate,
        timed=timed,
        turned=plan.fit.turned,
        aspect=plan.secret.aspect or Fraction(1),
        packet_bytes=packet_bytes,
        sound_start=0 if sound is None else sound.start,
        sound_bytes=0 if sound is None else sound.size,
        checkpoint=side.checkpoint,
        fingerprint=side.fingerprint,
        salt=salt,
    )


def _tick_rate(info: media.Info) -> Fraction:
    """Ticks per second in which a timed secret's times travel."""
    rate, most = 1 / info.time_base, Fraction(timing.TICKS_PER_SECOND)
    return rate if rate <= most and rate.denominator == 1 else most


def hide(
    side: Side,
    credential: keys.Credential,
    cover: str,
    secret: str,
    output: str,
    progress: Callable[[int], Any],
    settings: Settings = DEFAULTS,
) -> Report:
    """Hides a video in a video or an image in an image, file to file.

    The cover's sound and subtitles, its times, and what of it is longer than the secret are kept; in that
    tail the secret is hidden again from its start, so that the tail looks like the rest.

    Args:
        side: the hide side.
        credential: what the receiver must have, a passphrase or a key file's content.
        cover: path of a clip.
        secret: path; scaled down if it is larger than the cover.
        output: path of the stego.
        progress: called with the number of frames just hidden.
        settings: see `Settings`.

    Raises:
        UserError: bad input; nothing is left under the output's name.
    """
    plan = make_plan(cover, secret, settings)
    info, group = plan.cover, side.codec.frames
    media.check_output(output, (cover, secret), image=info.is_image)
    room = _sound_room(info.width * info.height * 3, plan.cover_clock.rate)
    with _secret_sound(secret, plan.secret, settings.sound_bit_rate, room) as sound:
        salts = [keys.random_key()[: keys.SALT_BYTES] for _ in range(2)]
        masters = [keys.derive_key(credential, salt) for salt in salts]
        record = _side_info(plan, side, sound, salts[0])
        marker = _Marker(record, salts, masters, side.step, sound)
        run = partial(side.codec.hide, side.params)
        tail = max(0, len(plan.cover_clock.times) - record.carriers) % record.carriers
        _warm_up(run, _sizes(record.carriers, group) | _sizes(tail, group), info.height, info.width, 2)

        start = time.monotonic()
        words = keys.key_words(keys.subkey(masters[0], "shuffle"))
        with (
            closing(read_ahead(_chunks_to_hide(plan, cover, secret, group))) as stream,
            stego_writer(plan, cover, output) as writer,
            write_behind(partial(write_all, writer)) as put,
        ):
            for carriers, stegos in _computed(run, stream, words):
                put(
                    [(marker.mark(c, stego), c.cover.time) for c, stego in zip(carriers, stegos, strict=True)]
                )
                progress(len(carriers))
            check_carried(cover, marker.done, record.carriers)
    seconds = time.monotonic() - start
    notes = notes_on(plan, output)
    return Report(record.frames, info.width, info.height, info.rate, seconds, marker.done, notes)


def cover_frames(plan: Plan, cover: str) -> Iterator[media.Timed]:
    """The frames of a cover to its end, or as many of a repeated one as carry something."""
    period = round(plan.cover_clock.duration / float(plan.cover.time_base))
    covers = _repeated(cover, plan.schedule.passes, period)
    return covers if plan.schedule.passes == 1 else islice(covers, len(plan.schedule.numbers))


def check_carried(cover: str, done: int, needed: int) -> None:
    """Raises UserError if a cover turned out to have fewer frames than it promised."""
    if done < needed:
        raise UserError(
            f"the cover {cover} ends after {done} frames, {needed} are needed: "
            "give a longer cover, or --loop_cover"
        )


def _chunks_to_hide(plan: Plan, cover: str, secret: str, group: int) -> Iterator[tuple]:
    """(carriers, (covers, secrets)) until the cover ends, or a repeated cover's last carrier."""
    covers = cover_frames(plan, cover)
    width, height = fitted_size(plan.secret, plan.cover.width, plan.cover.height)
    lay = partial(_lay, turned=plan.fit.turned, width=plan.cover.width, height=plan.cover.height)
    ticks = _tick_rate(plan.secret)
    times = np.round(plan.secret_clock.times * float(ticks)).astype(np.int64)
    times *= not plan.secret_clock.constant  # nobody reads them then, and they may be too large to send

    def hidden():
        frames = zip(media.read_frames(secret, width=width, height=height), times, strict=False)
        return picked((media.Timed(*frame) for frame in frames), plan.schedule.numbers)

    done = len(plan.schedule.numbers)
    while done == len(plan.schedule.numbers):
        done = 0
        for carriers in chunks(_carriers(covers, hidden(), lay), group):
            stacks = np.stack([c.cover.frame for c in carriers]), np.stack([c.secret for c in carriers])
            yield carriers, stacks
            done += len(carriers)


class _Marker:
    """Puts what the frames of the stego have to say into their low bits, one after the other."""

    def __init__(self, record: SideInfo, salts: list[bytes], masters: list[bytes], step: int, sound):
        self.done = 0
        self._record, self._step, self._sound = record, step, sound
        self._salts, self._masters = salts, masters
        self._packets = Packets(masters[0], record.packet_bytes, step)

    def mark(self, carrier: _Carrier, stego: np.ndarray) -> np.ndarray:
        """The next frame of the stego, uint8 [h, w, 3], marked."""
        number, under, record = self.done, carrier.cover.frame, self._record
        self.done += 1
        if number < len(self._salts):
            salt, master = self._salts[number], self._masters[number]
            stego = metadata.embed_record(stego, under, salt, master, record, self._step)
        if number and record.packet_bytes:
            packet = Packet(carrier.number, carrier.time, self._share(number))
            stego = self._packets.embed(stego, under, number, packet)
        return stego

    def _share(self, number: int) -> bytes:
        """The sound of one packet; none in the tail.

        The last one repeats the first one, which holds the head of the Ogg file.
        """
        if self._sound is None or number >= self._record.carriers:
            return b""
        if number == self._record.carriers - 1:
            self._sound.file.seek(0)
        return self._sound.file.read(self._record.packet_bytes - PACKET_HEAD.size)


def stego_writer(plan: Plan, cover: str, output: str, lossy: media.Lossy | None = None) -> media.Writer:
    """Writes the stego with the cover's times, pixel shape, sound and subtitles; `lossy` as for `Writer`."""
    info, loop = plan.cover, None
    if plan.schedule.passes > 1:
        period = Fraction(plan.cover_clock.duration).limit_denominator(10**6)
        rest = len(plan.schedule.numbers) / plan.cover_clock.rate - (plan.schedule.passes - 1) * period
        loop = media.Loop(plan.schedule.passes, period, rest)
    return media.Writer(
        output,
        info.rate,
        time_base=info.time_base,
        aspect=info.aspect,
        tracks_from=cover,
        loop=loop,
        image=info.is_image,
        lossy=lossy,
    )


def notes_on(plan: Plan, output: str) -> tuple[str, ...]:
    """What the user should know about a plan."""
    notes = []
    if plan.left_out:
        notes.append(
            f"the cover has no frames at the times of {plan.left_out} frames of the secret, which are left "
            "out (--config.video.align=frames keeps all)"
        )
    if plan.cover.tracks and media.is_sequence(output):
        notes.append("a folder of images does not hold the cover's sound and subtitles")
    return tuple(notes)


def write_all(writer: media.Writer, frames: Iterable[tuple[np.ndarray, int | None]]) -> None:
    """Writes frames with their ticks, if they have any."""
    for frame, at in frames:
        writer.write(frame, at)


# --- reveal ---------------------------------------------------------------------------------------


def reveal(
    side: Side, credential: keys.Credential, stego: str, output: str, progress: Callable[[int], Any]
) -> Report:
    """Reveals a hidden video or image, file to file; arguments as for `hide`.

    Raises:
        UserError: bad input, wrong passphrase or another checkpoint; nothing is left of the output.
        PartialError: the stego is cut short or damaged; what could be revealed is written.
    """
    damaged: list[int] = []
    stego_info = media.probe(stego, damaged)
    heads = [frame.frame for frame in islice(media.read_timed(stego, damaged), 2)]
    record, master = metadata.open_record(heads, credential, side.fingerprint, side.step)
    media.check_output(output, (stego,), image=stego_info.is_image)
    run, group = partial(side.codec.reveal, side.params), side.codec.frames
    _warm_up(run, _sizes(record.carriers, group), *heads[0].shape[:2], 1)

    start = time.monotonic()
    words = keys.key_words(keys.subkey(master, "shuffle"))
    damaged.clear()
    with _revealed_sound() as sound, _revealed_writer(record, output, stego_info.is_image) as writer:
        receiver = _Receiver(record, Packets(master, record.packet_bytes, side.step), sound)
        stream = closing(read_ahead(_chunks_to_reveal(stego, record, group, damaged)))
        with stream as stream, write_behind(partial(write_all, writer)) as put:
            for stegos, revealed in _computed(run, stream, words):
                put(receiver.take(stegos, revealed))
                progress(len(revealed))
            put(receiver.rest())
        if not receiver.carriers:
            raise UserError(f"{stego} is cut short in its first frames: get a complete copy of it")
        receiver.deliver_sound(writer)
    seconds = time.monotonic() - start
    _complain(stego, output, record, receiver, damaged)
    size = (record.height, record.width) if record.turned else (record.width, record.height)
    return Report(receiver.written, *size, record.rate, seconds, receiver.carriers)


def _chunks_to_reveal(stego: str, record: SideInfo, group: int, damaged: list[int]) -> Iterator[tuple]:
    """(stegos, (stegos,)) of whole groups; a group that the end of the file cuts is left out."""
    frames = (timed.frame for timed in media.read_timed(stego, damaged))
    done = 0
    for piece in chunks(islice(frames, record.carriers), group):
        if len(piece) % group and done + len(piece) < record.carriers:
            return
        done += len(piece)
        yield piece, (np.stack(piece),)


def _revealed_writer(record: SideInfo, output: str, image: bool) -> media.Writer:
    if record.timed:
        return media.Writer(
            output, media.FOLDER_RATE, time_base=1 / record.rate, aspect=record.aspect, image=image
        )
    return media.Writer(output, record.rate, aspect=record.aspect, image=image)


class _Receiver:
    """Puts revealed frames into the secret's own order and collects its sound."""

    def __init__(self, record: SideInfo, packets: Packets, sound):
        self.carriers = self.written = 0
        self.lost: list[int] = []  # carriers whose packet is damaged
        self._record, self._packets, self._sound = record, packets, sound
        self._number, self._time, self._last = -1, -1, None

    def take(self, stegos: list[np.ndarray], revealed: np.ndarray) -> list[tuple[np.ndarray, int | None]]:
        """The frames of the secret, with times where they have some, that this chunk adds."""
        added = []
        for stego, frame in zip(stegos, revealed, strict=True):
            packet = self._packet(stego)
            self.carriers += 1
            if packet.number <= self._number:
                continue
            frame = np.ascontiguousarray(frame[: self._record.height, : self._record.width])
            frame = np.ascontiguousarray(np.rot90(frame, -1)) if self._record.turned else frame
            if self._record.timed:
                added.append((frame, packet.time))
            else:
                added += self._fill(packet.number) + [(frame, packet.number)]
            self._number, self._time, self._last = packet.number, packet.time, frame
        self.written += len(added)
        return added

    def rest(self) -> list[tuple[np.ndarray, int]]:
        """Stands in for frames at the end that nobody carried."""
        complete = self.carriers == self._record.carriers and not self._record.timed
        added = self._fill(self._record.frames) if complete else []
        self.written += len(added)
        return added

    def _fill(self, number: int) -> list[tuple[np.ndarray, int]]:
        """The last frame once more for every frame before `number` that nobody carried."""
        if self._last is None:
            return []
        return [(self._last, missing) for missing in range(self._number + 1, number)]

    def _packet(self, stego: np.ndarray) -> Packet:
        following = Packet(min(self._number + 1, self._record.frames - 1), self._time + 1, b"")
        if not self._record.packet_bytes:
            return following
        if not self.carriers:
            return Packet(0, 0, b"")
        packet = self._packets.extract(stego, self.carriers)
        if packet is None:
            self.lost.append(self.carriers)
        share = self._record.packet_bytes - PACKET_HEAD.size
        last = self.carriers == self._record.carriers - 1
        with _temporary_files():
            self._sound.seek(0 if last and 1 in self.lost else (self.carriers - 1) * share)
            self._sound.write(bytes(share) if packet is None else packet.sound)
        return packet or following

    def deliver_sound(self, writer: media.Writer) -> None:
        """Gives the writer the sound, as far as there is some."""
        if not self._record.sound_bytes:
            return
        with _temporary_files():
            self._sound.truncate(min(self._sound.seek(0, SEEK_END), self._record.sound_bytes))
        sound = media.Sound(self._sound, self._record.sound_bytes, self._record.sound_start)
        if media.is_sound(sound):
            writer.add_sound(sound)


def _complain(stego: str, output: str, record: SideInfo, receiver: _Receiver, damaged: list[int]) -> None:
    """Raises PartialError if something is missing or wrong."""
    if receiver.carriers < record.carriers:
        raise PartialError(
            f"{stego} is cut short: {output} has the first {receiver.written} of {record.frames} frames; "
            "get a complete copy of it for the rest"
        )
    wrong = sorted({number + 1 for number in damaged + receiver.lost if number < record.carriers})
    if wrong:
        raise PartialError(
            f"{stego} is damaged in frame{'s' if len(wrong) > 1 else ''} {ranges(wrong)}: {output} has all "
            f"{receiver.written} frames, but is wrong about there; get an intact copy of it"
        )


def ranges(numbers: list[int]) -> str:
    """1, 2, 3, 7 -> '1-3, 7'; at most five ranges."""
    runs = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    shown = [str(a) if a == b else f"{a}-{b}" for a, b in runs[:5]]
    return ", ".join(shown) + (", ..." if len(runs) > 5 else "")
