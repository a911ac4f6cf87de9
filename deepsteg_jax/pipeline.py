"""Hide and reveal whole files with any scheme, as streams: memory is bounded by the frame size."""

import os
import secrets
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, suppress
from fractions import Fraction
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from deepsteg_jax import keys, media, memory
from deepsteg_jax.errors import PartialError, UserError
from deepsteg_jax.media.background import read_ahead, write_behind
from deepsteg_jax.plan import Plan, cover_frames, fitted_size, plan_job, secret_frames
from deepsteg_jax.schemes import payload, slots
from deepsteg_jax.schemes.base import (
    NOTHING,
    Cost,
    Found,
    Pair,
    Receiver,
    Scheme,
    Sender,
    Settings,
    Stego,
)

AHEAD, AHEAD_PIXELS = 8, 2**22  # frames read ahead of the work: fewer of large ones, but two
DEFAULTS = Settings()
REVEALED = media.Lossy(crf=12, quality=97)
"""The quality of a revealed secret in a lossy format: no eye tells it from the exact one."""


class Report(NamedTuple):
    """The result of a job."""

    frames: int  # written; 0: the secret is a file, and was revealed
    width: int  # of these frames; of the secret's carrier, if there are none
    height: int
    rate: Fraction
    seconds: float  # from the first frame read to the last one written, without compilation
    processed: int  # frames of the stego that were written or read in that time
    notes: tuple[str, ...] = ()  # for the user
    size_bytes: int = 0  # of the output; 0: it is in memory

    @property
    def fps(self) -> float:
        """Frames per second, file to file."""
        return self.processed / self.seconds

    def summary(self) -> str:
        """Summarise the job in one line for the user."""
        notes = "".join(f"; {note}" for note in self.notes)
        took = f"{self.seconds:.1f}" if self.seconds < 10 else f"{self.seconds:.0f}"
        about = f"{self.frames} frames of {self.width}x{self.height}, " if self.frames else ""
        return f"{about}{shown_size(self.size_bytes)}, took {took} s{notes}"


def shown_size(size: float) -> str:
    """Return a number of bytes in words."""
    return f"{size / 1e6:,.1f} MB" if size >= 1e6 else f"{size / 1e3:,.1f} kB"


# --- hide -----------------------------------------------------------------------------------------


def hide(
    scheme: Scheme,
    credential: keys.Credential | Sequence[keys.Credential] | Callable[[], Any],
    cover: Any,
    secret: Any,
    output: Any,
    progress: Callable[[int], Any],
    settings: Settings = DEFAULTS,
    announce: Callable[[str], Any] = lambda line: None,
) -> Report:
    """Hide a video in a video or an image in an image, or a file in either, file to file.

    The cover's sound and subtitles, its times, and the part of it beyond the secret are kept; in that tail
    the secret is hidden again from its start, so that the tail looks like the rest.

    Args:
        scheme: to hide with.
        credential: what the receiver must have, a passphrase or a key file's content; for several secrets
            a sequence; or a function that asks for it, called once cover and secret are known to fit.
        cover: path of a clip.
        secret: path, or a tuple of at most `settings.slots`; scaled down if it is larger than the cover.
        output: path of the stego.
        progress: called with the number of frames just hidden.
        settings: see `Settings`.
        announce: called before the work with a line that says what will be done and how large it gets.

    Raises:
        UserError: bad input; nothing is left under the output's name.
    """
    paths = secret if isinstance(secret, tuple) else (secret,)
    pictures = scheme.accepts == "pictures"
    slots.check(scheme.slots, settings.slots, len(paths), settings.loop_cover, scheme.name)
    plan = plan_job(cover, paths, pictures, settings.align, settings.loop_cover)
    read = _reader(scheme, plan.cover, output)
    info, inputs = plan.cover, (cover, *paths)
    scheme.check(info)
    check_output(scheme, output, info, inputs)
    media.check_tracks(cover, output)
    memory.check(cost(scheme, info, settings.slots).memory_bytes, f"hiding in {info.width}x{info.height}")
    measured = scheme.measure(timed.frame for timed in read(cover))
    _check_fits(scheme, plan, settings.slots, measured)
    one = pictures and settings.slots == 1
    pairs = _paired(scheme, plan, read) if one else _unpaired(plan, read)
    credential = credential() if callable(credential) else credential
    credentials = [credential] if isinstance(credential, str | bytes) else list(credential)
    keys.check_each(credentials, len(paths))
    settings = settings._replace(exact=_is_exact(scheme, info, output))
    with scheme.sender(plan, credentials, settings, measured) as sender:
        announce(_announcement(scheme, plan, output, sender, settings))
        start, done, counted = time.monotonic(), 0, _Counted(progress)
        sender.progress = counted.ahead
        with (
            closing(read_ahead(pairs, _ahead(info))) as stream,
            _stego_writer(scheme, plan, output, settings.drop_tags) as writer,
            write_behind(partial(_write_all, writer), 1) as put,
        ):
            for frames in _sent(sender, stream):
                put(frames)
                counted.whole(len(frames))
                done += len(frames)
            _check_carried(plan, done)
        seconds = time.monotonic() - start
        notes = (*_notes(scheme, plan, output, settings), *sender.notes)
    return Report(done, info.width, info.height, info.rate, seconds, done, notes, media.size_of(output))


def _check_fits(scheme: Scheme, plan: Plan, count: int, measured: Any) -> None:
    """Raise UserError if a secret that travels as bytes has too many."""
    room = scheme.holds(plan.cover, len(plan.cover_clock.times), count, measured)
    if room is not None:
        for each in plan.each:
            payload.check(Path(each.secret_path), room)


def cost(scheme: Scheme, info: media.Info, count: int = 1) -> Cost:
    """Return the cost of `count` slots for a file like `info`; memory does not grow with its length."""
    return scheme.cost(info.height, info.width, 1 if info.is_image else 2, count)


def _announcement(scheme: Scheme, plan: Plan, output: Any, sender: Sender, settings: Settings) -> str:
    """Say what will be done, before the work; of slots nothing that depends on their content."""
    about = plan.cover.height, plan.cover.width, len(plan.cover_clock.times)
    size = scheme.cost(*about, settings.slots).stego_bytes
    size = size * plan.schedule.passes or media.size_of(plan.cover_path)
    parts = sender.announcement, _shrunk(plan) if settings.slots == 1 else ""
    return f"{'; '.join(filter(None, parts))}{_about(output, size)}".removeprefix("; ")


def _shrunk(plan: Plan) -> str:
    """Say that a secret of pictures is scaled down, if it is."""
    if plan.fit is None:
        return ""
    width, height = fitted_size(plan.secret, plan.cover.width, plan.cover.height)
    own = plan.secret.width, plan.secret.height
    said = f"the secret is scaled down from {own[0]}x{own[1]} to {width}x{height}"
    return "" if (width, height) == own else said


class _Counted:
    """Tells of every frame once, whether its sender does so during its work or not."""

    def __init__(self, progress: Callable[[int], Any]):
        """Take what is called with the number of frames just hidden."""
        self._progress, self._told = progress, 0

    def ahead(self, frames: int) -> None:
        """Tell of frames that the sender will return."""
        self._told += frames
        self._progress(frames)

    def whole(self, frames: int) -> None:
        """Tell of the rest of the frames that it returned."""
        self._progress(frames - self._told)
        self._told = 0


def _ahead(info: media.Info) -> int:
    """Return the number of frames of such a clip to read ahead."""
    return max(2, min(AHEAD, AHEAD_PIXELS // (info.width * info.height)))


def _sent(sender: Sender, pairs: Iterable[tuple[Pair, int]]) -> Iterator[list[tuple[Any, int]]]:
    """Yield the stego's frames with their ticks as they are ready."""
    times = deque()
    for pair, at in pairs:
        times.append(at)
        if frames := sender.send(pair):
            yield [(frame, times.popleft()) for frame in frames]
    yield [(frame, times.popleft()) for frame in sender.finish()]


def check_output(scheme: Scheme, output: Any, info: media.Info, inputs: Sequence[Any]) -> None:
    """Raise UserError unless `output` can take a stego of a cover like `info`."""
    if scheme.domain == "coefficients":
        media.check_coefficients(inputs[0], output, inputs)
        return
    survives, own = scheme.lossy is not None, {"pixel_format": scheme.pixel_format or info.pixel_format}
    kind = own if _in_planes(scheme, info, output) else {}
    size = (info.width, info.height) if survives or kind or info.is_image else None
    media.check_output(output, inputs, info.is_image, lossy=survives, size=size, **kind)


def _is_exact(scheme: Scheme, info: media.Info, output: Any) -> bool:
    """Return whether a receiver gets each sample that the scheme makes; planes written as RGB are rounded."""
    if _in_planes(scheme, info, output) and media.takes_rgb_only(output):
        return False
    return scheme.lossy is None or media.keeps_samples(output)


def _in_planes(scheme: Scheme, info: media.Info, output: Any = None) -> bool:
    """Return whether a scheme works in the planes of a file like `info`, for an `output` if it hides."""
    if scheme.domain != "own":
        return scheme.domain == "planes"
    taken = output is None or not media.takes_rgb_only(output)
    return media.has_planes(info.pixel_format) and not info.is_image and taken


def _reader(scheme: Scheme, info: media.Info, output: Any = None) -> Callable:
    """Return what reads frames of a file like `info` with their times in the scheme's domain.

    Where an `output` takes RGB only, planes are made of RGB, as a receiver will make them.
    """
    if scheme.domain == "coefficients":
        return media.read_coefficients
    by_rgb = output is not None and media.takes_rgb_only(output)
    if not _in_planes(scheme, info, output):
        return media.read_timed
    return partial(media.read_planes, pixel_format=scheme.pixel_format, by_rgb=by_rgb)


def _paired(scheme: Scheme, plan: Plan, read: Callable) -> Iterator[tuple[Pair, int]]:
    """Yield (pair, its ticks) until the cover ends, or the last frame of a repeated one that carries."""
    numbers = scheme.pass_numbers(plan)
    covers = cover_frames(plan, read)
    while True:
        for hidden in secret_frames(plan, numbers):
            cover = next(covers, None)
            if cover is None:
                return
            yield Pair(cover.frame, *hidden), cover.time


def _unpaired(plan: Plan, read: Callable) -> Iterator[tuple[Pair, int]]:
    for cover in cover_frames(plan, read):
        yield Pair(cover.frame, None), cover.time


def _check_carried(plan: Plan, done: int) -> None:
    """Raise UserError if a cover turned out to have fewer frames than it promised."""
    needed = max(len(each.schedule.numbers) for each in plan.each)
    if done < needed:
        raise UserError(
            f"the cover {plan.cover_path} ends after {done} frames, {needed} are needed: "
            "give a longer cover, or --loop_cover"
        )


def _stego_writer(scheme: Scheme, plan: Plan, output: Any, drop_tags: bool) -> Any:
    """Write the stego with the cover's times, pixel shape, sound and subtitles."""
    if scheme.domain == "coefficients":
        return media.coefficient_writer(output, plan.cover_path, drop_tags)
    info, loop = plan.cover, None
    if plan.schedule.passes > 1:
        times, passes = [*plan.cover_clock.times, plan.cover_clock.duration], plan.schedule.passes
        shown = len(plan.schedule.numbers) - (passes - 1) * len(plan.cover_clock.times)
        period, rest = (Fraction(time).limit_denominator(10**6) for time in (times[-1], times[shown]))
        loop = media.Loop(passes, period, rest, plan.cover_clock.start)
    return media.Writer(
        output,
        info.rate,
        time_base=info.time_base,
        aspect=info.aspect,
        tracks_from=plan.cover_path,
        loop=loop,
        drop_tags=drop_tags,
        image=info.is_image,
        lossy=scheme.lossy,
        end=None if loop or plan.cover_clock.constant else plan.cover_clock.end,
        **_planes(scheme, info, output),
    )


def _planes(scheme: Scheme, info: media.Info, output: Any) -> dict[str, Any]:
    """Return how planes are written, for a scheme that works in them."""
    if not _in_planes(scheme, info, output):
        return {}
    own = media.has_planes(info.pixel_format) and not media.takes_rgb_only(output)
    colour = info.colour if own else media.BT601
    return {"pixel_format": scheme.pixel_format or info.pixel_format, "colour": colour}


def _notes(scheme: Scheme, plan: Plan, output: Any, settings: Settings) -> Iterator[str]:
    """Yield notes for the user about a plan; of slots nothing that depends on their content."""
    if not _in_planes(scheme, plan.cover, output) and media.is_hdr(plan.cover.colour):
        yield "the cover is HDR and is mapped to SDR"
    if lost := media.left_out(plan.cover_path, output):
        yield f"left out of the cover: {lost}"
    if settings.slots == 1:
        yield from _notes_on_secret(scheme, plan, settings)


def _notes_on_secret(scheme: Scheme, plan: Plan, settings: Settings) -> Iterator[str]:
    if plan.secret is not None and media.is_hdr(plan.secret.colour):
        yield "the secret is HDR and is mapped to SDR"
    if plan.secret_clock is not None and plan.left_out:
        yield (
            f"the cover has no frames at the times of {plan.left_out} frames of the secret, which are left "
            "out (--config.video.align=frames keeps all)"
        )
    if shrunk := _shrunk(plan):
        yield shrunk
    if scheme.accepts == "pictures":
        sound = scheme.carries_sound and settings.sound_bit_rate > 0
        if lost := media.unsent(plan.secret_path, sound):
            yield f"left out of the secret: {lost}"


def _write_all(writer: media.Writer, frames: Sequence[tuple[Any, int | None]]) -> None:
    for frame, at in frames:
        writer.write(frame, at)


# --- reveal ---------------------------------------------------------------------------------------


def reveal(
    schemes: Sequence[Scheme],
    credential: keys.Credential,
    stego: Any,
    output: Any,
    progress: Callable[[int], Any],
    announce: Callable[[str], Any] = lambda line: None,
) -> Report:
    """Reveal a hidden video, image or file, file to file.

    Args:
        schemes: those that may have hidden it, the cheapest to probe first.
        credential: the sender's.
        stego: path.
        output: path of the secret, or a function that gives it for the scheme that is found; .mp4 and .jpg
            take it with a loss that no eye sees.
        progress: called with the number of frames just read.
        announce: called before the work with a line that says what was found and how large it gets.

    Raises:
        UserError: bad input, wrong passphrase or another checkpoint; nothing is left of the output.
        PartialError: the stego is cut short or damaged; the readable part is written.
    """
    damaged: list[int] = []
    info = media.probe(stego, damaged)
    began = time.monotonic()
    scheme, found = find(schemes, credential, stego, info, damaged)
    memory.check(cost(scheme, info).revealing_bytes, f"revealing from {info.width}x{info.height}")
    output = output(scheme) if callable(output) else output
    probed = time.monotonic() - began if found.read else 0.0  # then part of the work is done
    if scheme.accepts == "pictures":
        check_revealed(output, info, (stego,), found.metadata.size)
    else:
        media.check_place(output, (stego,))
    with scheme.receiver(found) as receiver:
        announce(_found(receiver, output) if scheme.accepts == "pictures" else receiver.announcement)
        start = time.monotonic()
        damaged.clear()
        if found.read:
            progress(found.read)
        frames = islice(_frames(scheme, info, stego, damaged), found.read, None)
        with (
            closing(read_ahead(frames, _ahead(info))) as stream,
            _opened(receiver, scheme, output, info) as writer,
        ):
            pieces = _received(receiver, stream, progress)
            with write_behind(writer.write_all, 1) as put:
                for piece in pieces:
                    put(piece)
            if not (receiver.written or receiver.complete):
                raise UserError(f"{stego} is cut short in its first frames: get a complete copy of it")
            writer.add_sound(receiver.sound())
        seconds = time.monotonic() - start + probed
        if complaint := receiver.complaint(str(stego), str(writer.path), damaged):
            raise PartialError(complaint)
        secret = receiver.metadata
        count = receiver.written if scheme.accepts == "pictures" else 0
        notes, size = (*receiver.notes, *writer.notes), media.size_of(getattr(writer, "path", output))
        return Report(count, *secret.size, secret.rate, seconds, receiver.received, notes, size)


_EXACT_BYTES, _LOSSY_BYTES = 1.2, 0.06  # of a revealed pixel, about


def _found(receiver: Receiver, output: Any) -> str:
    """Say what was found, before the work."""
    secret = receiver.metadata
    width, height = secret.size
    size = (_EXACT_BYTES if media.keeps_samples(output) else _LOSSY_BYTES) * secret.frames * width * height
    return f"found {secret.frames} frames of {width}x{height}{_about(output, size)}"


def _about(output: Any, size: float) -> str:
    """Say how large an output gets, unless it is in memory."""
    return f"; {output} will take about {shown_size(size)}" if isinstance(output, str | Path) else ""


def check_revealed(
    output: Any, info: media.Info, inputs: Sequence[Any], size: tuple[int, int] | None = None
) -> None:
    """Raise UserError unless `output` can take what a stego like `info` reveals, of `size` if known."""
    size = None if size is None else media.padded_size(output, *size)
    media.check_output(output, inputs, image=info.is_image, lossy=True, size=size)


def find(
    schemes: Sequence[Scheme], credential: keys.Credential, stego: Any, info: media.Info, damaged: list[int]
) -> tuple[Scheme, Found]:
    """Find the scheme that hid something for this key; at most five derivations of a key, six to find one.

    Raises:
        UserError: one and the same line for a wrong passphrase, another checkpoint, nothing hidden, a recoded
            file.
    """
    deriver = keys.Deriver(credential)
    for scheme in schemes:
        opened = Stego(info, partial(_frames, scheme, info, stego, damaged))
        if found := scheme.probe(opened, deriver):
            return scheme, found
    raise UserError(NOTHING)


def _frames(scheme: Scheme, info: media.Info, stego: Any, damaged: list[int]) -> Iterator[Any]:
    return (timed.frame for timed in _reader(scheme, info)(stego, damaged))


def _received(receiver: Receiver, frames: Iterator[Any], progress: Callable) -> Iterator[list]:
    """Yield the pieces of the secret as they come."""
    while not receiver.complete and (frame := next(frames, None)) is not None:
        pieces = receiver.receive(frame)
        progress(1)
        if pieces:
            yield pieces
    yield receiver.finish()


def _opened(receiver: Receiver, scheme: Scheme, output: Any, info: media.Info) -> Any:
    """Open the output for the secret."""
    if scheme.accepts == "bytes":
        return _FileWriter(output, receiver)
    secret = receiver.metadata
    rate, tick = (media.FOLDER_RATE, 1 / secret.rate) if secret.timed else (secret.rate, None)
    options = {"time_base": tick, "aspect": secret.aspect, "image": info.is_image, "lossy": REVEALED}
    options["end"] = secret.end / secret.rate if secret.timed else None
    return _PictureWriter(output, media.Writer(output, rate, **options), secret.size)


class _PictureWriter:
    """Writes the frames of a secret, their last row and column twice where the format needs even sides."""

    def __init__(self, path: Any, writer: media.Writer, size: tuple[int, int]):
        self.path, self._writer = path, writer
        (width, height), padded = size, media.padded_size(path, *size)
        self._margins = (0, padded[1] - height), (0, padded[0] - width), (0, 0)
        note = f"padded to {padded[0]}x{padded[1]}, since H.264 needs even sides"
        self.notes = () if padded == size else (note,)

    def write_all(self, pieces: Sequence[Any]) -> None:
        if self.notes:
            pieces = [(np.pad(frame, self._margins, "edge"), at) for frame, at in pieces]
        _write_all(self._writer, pieces)

    def add_sound(self, sound: media.Sound | None) -> None:
        if sound is not None:
            self._writer.add_sound(sound)

    def __enter__(self) -> "_PictureWriter":
        self._writer.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        self._writer.__exit__(*exception)


class _FileWriter:
    """Writes a secret that is a file, to a temporary name, renamed when complete.

    In a folder it gets its own name. One that the sender coded to fit is coded again as `path` says.
    """

    notes = ()

    def __init__(self, path: Any, receiver: Receiver):
        self.path, self._receiver = Path(path), receiver
        self._in_folder = media.is_folder(path)
        self._file, self._made = None, False

    def write_all(self, pieces: Sequence[bytes]) -> None:
        with media.writing(self.path):
            self._open()
            for piece in pieces:
                self._file.write(piece)

    def add_sound(self, sound: None) -> None:
        pass

    def __enter__(self) -> "_FileWriter":
        return self

    def __exit__(self, kind: type | None, *rest: object) -> None:
        if kind is None:
            self.write_all([])
        if self._file is None:
            return
        try:
            with media.writing(self.path):
                self._file.close()
                if kind is None:
                    self._place()
        finally:
            with suppress(OSError):  # it would hide the error before it
                self._part.unlink(missing_ok=True)
                if self._made and not self.path.exists():
                    self.path.parent.rmdir()

    def _open(self) -> None:
        """Open a temporary file, once; the receiver knows the secret's name by now."""
        if self._file is not None:
            return
        folder = self.path if self._in_folder else media.destination(self.path).parent
        if self._in_folder:
            self.path = self.path / media.safe_name(self._receiver.file_name)
            self._check_free()
            self._made = not folder.exists()
            folder.mkdir(exist_ok=True)
        self._part = folder / f".{secrets.token_hex(4)}.part"
        self._file = self._part.open("xb")

    def _check_free(self) -> None:
        if self._in_folder and os.path.lexists(self.path):
            raise UserError(f"{self.path} exists already: give -o another folder, or a name of its own")

    def _place(self) -> None:
        receiver, name = self._receiver, media.safe_name(self._receiver.file_name)
        self._check_free()
        recoded = receiver.coded and self.path.suffix.lower() != Path(name).suffix
        recoded = recoded and recode(self._part, self.path)
        if not recoded:
            self._part.replace(media.destination(self.path))
        receiver.notes = (*receiver.notes, *self._notes(name, recoded))

    def _notes(self, name: str, recoded: bool) -> Iterator[str]:
        """Yield what the file is where its name does not tell."""
        if self._in_folder:
            yield f"written to {self.path}"
        elif not recoded and self.path.suffix.lower() != Path(name).suffix.lower():
            yield f"it is a {Path(name).suffix or 'file without a suffix'}: its own name is {name}"


def recode(source: Path, output: Path) -> bool:
    """Code a video or picture anew, in the format of the output's name, with its sound; False: impossible."""
    with suppress(UserError):  # no format for it, or too damaged
        info, still = media.probe(source, []), not media.is_video(output)
        if still and media.count_frames(source) > 1:
            return False
        sound = None if still else media.encode_sound(source, DEFAULTS.sound_bit_rate)
        clock = {"time_base": info.time_base, "aspect": info.aspect, "end": _end(source, info)}
        with media.Writer(output, info.rate, **clock, image=still, lossy=REVEALED) as writer:
            first = None
            for frame, time in media.read_timed(source, []):
                first = time if first is None else first
                writer.write(frame, time - first)
            if sound is not None:
                with closing(sound.file):
                    writer.add_sound(sound)
        return True
    return False


def _end(path: Path, info: media.Info) -> Fraction | None:
    """Return the seconds after the first frame at which the last one ends; None: not said, or damaged."""
    with suppress(UserError):
        ticks, last = media.timing(path)
        return int(ticks[-1] - ticks[0] + last) * info.time_base if last else None
    return None
