"""Hiding and revealing whole files so that the secret survives real codecs, as streams.

As `pipeline` does, but segment by segment through `robust.segments`, one segment in memory at a time.
Nothing lies in single samples, so the stego may be written in a lossy format. What a segment tells the
receiver is all that it is told: the revealed clip has a constant frame rate and no sound.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from fractions import Fraction
from functools import partial
from itertools import chain, islice
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from deepsteg_jax import keys, media, pipeline, timing
from deepsteg_jax.errors import PartialError, UserError
from deepsteg_jax.media.background import read_ahead, write_behind
from deepsteg_jax.pipeline import DEFAULTS, Report, Settings
from deepsteg_jax.schemes import metadata
from deepsteg_jax.schemes.robust import segments

GREY = 128  # what stands for frames at the start that could not be read
_AHEAD = 4  # frames read ahead
_MOST_CRF, _MOST_QUALITY = 51, 100


def lossy_of(config: ConfigDict) -> media.Lossy:
    """How lossy outputs are coded: `crf` and `jpeg_quality` of section `video`.

    Raises:
        UserError: they are out of range.
    """
    crf = config.video.get("crf", media.Lossy().crf)
    quality = config.video.get("jpeg_quality", media.Lossy().quality)
    if not (0 <= crf <= _MOST_CRF and 1 <= quality <= _MOST_QUALITY):
        raise UserError(
            f"config.video.crf is 0 to {_MOST_CRF} and config.video.jpeg_quality 1 to {_MOST_QUALITY}"
        )
    return media.Lossy(crf, quality)


# --- hide -----------------------------------------------------------------------------------------


def hide(
    config: ConfigDict,
    params: Any,
    credential: keys.Credential,
    cover: str,
    secret: str,
    output: str,
    progress: Callable[[int], Any],
    settings: Settings = DEFAULTS,
) -> Report:
    """Hides a video in a video or an image in an image, file to file.

    The cover's sound and subtitles, its times, and what of it is longer than the secret are kept; in that
    tail the secret is hidden again from its start, so that the tail looks like the rest. The time in the
    report includes compilation.

    Args:
        config: the whole config.
        params: of the hide side.
        credential: what the receiver must have, a passphrase or a key file's content.
        cover: path of a clip.
        secret: path; scaled down if it is larger than the cover.
        output: path of the stego; lossy formats will do.
        progress: called with the number of frames just hidden.
        settings: see `pipeline.Settings`; sound is not hidden.

    Raises:
        UserError: bad input; nothing is left under the output's name.
    """
    plan, lossy = pipeline.make_plan(cover, secret, settings), lossy_of(config)
    info, about = plan.cover, _describe(plan, settings)
    media.check_output(output, (cover, secret), info.is_image, lossy=True, size=(info.width, info.height))
    sender = segments.Sender(config, params, keys.derive_key(credential, segments.MASTER_SALT))
    start, done = time.monotonic(), 0
    with (
        closing(read_ahead(_carriers(plan, cover, secret), _AHEAD)) as stream,
        pipeline.stego_writer(plan, cover, output, lossy) as writer,
        write_behind(partial(pipeline.write_all, writer), segments.SEGMENT) as put,
    ):
        for number, carriers in enumerate(_segments(stream)):
            covers, secrets = (np.stack(frames) for frames in zip(*(c[:2] for c in carriers), strict=True))
            stego = sender.hide(number, covers, secrets, about)
            for frame, carrier in zip(stego, carriers, strict=True):
                put([(frame, carrier[2])])
            progress(len(carriers))
            done += len(carriers)
        pipeline.check_carried(cover, done, about.frames)
    seconds = time.monotonic() - start
    notes = (*pipeline.notes_on(plan, output), *_notes(plan))
    return Report(about.frames, info.width, info.height, info.rate, seconds, done, notes)


def _describe(plan: pipeline.Plan, settings: Settings) -> segments.Description:
    paired = timing.by_number(plan.cover_clock, plan.secret_clock, settings.align)
    return segments.Description(
        frames=len(plan.schedule.numbers),
        width=plan.fit.width,
        height=plan.fit.height,
        turned=plan.fit.turned,
        rate=(plan.secret_clock if paired else plan.cover_clock).rate,
        aspect=plan.secret.aspect or Fraction(1),
    )


def _notes(plan: pipeline.Plan) -> Iterator[str]:
    if plan.secret.tracks:
        yield "the secret's sound and subtitles are left out: this model hides pictures only"
    clocks = {"cover": plan.cover_clock, "secret": plan.secret_clock}
    if varying := [name for name, clock in clocks.items() if not clock.constant]:
        yield f"the frame rate of the {' and '.join(varying)} varies, that of the revealed video will not"


def _carriers(plan: pipeline.Plan, cover: str, secret: str) -> Iterator[tuple]:
    """(cover [h, w, 3], secret [h', w', 3] as it lies, ticks) until the cover ends.

    A secret that ends within a segment stands still to its end: coding frames of the next pass with it would
    take bits away from those that count.
    """
    covers, numbers = pipeline.cover_frames(plan, cover), plan.schedule.numbers
    numbers = np.pad(numbers, (0, -len(numbers) % segments.SEGMENT), mode="edge")
    while True:
        frames = pipeline.read_fitted(secret, plan.secret, plan.cover.width, plan.cover.height)
        for _, shown in pipeline.picked((media.Timed(frame, 0) for frame in frames), numbers):
            carrier = next(covers, None)
            if carrier is None:
                return
            yield carrier.frame, np.rot90(shown.frame) if plan.fit.turned else shown.frame, carrier.time


def _segments(items: Iterable) -> Iterator[list]:
    items = iter(items)
    while segment := list(islice(items, segments.SEGMENT)):
        yield segment


# --- reveal ---------------------------------------------------------------------------------------


def reveal(
    config: ConfigDict,
    params: Any,
    credential: keys.Credential,
    stego: str,
    output: str,
    progress: Callable[[int], Any],
) -> Report:
    """Reveals a hidden video or image, file to file; arguments as for `hide`, `params` of the reveal side.

    Raises:
        UserError: bad input, wrong passphrase or another checkpoint; nothing is left of the output.
        PartialError: some segments cannot be read; the others are written, and between them the last frame
            before each gap.
    """
    damaged: list[int] = []  # decoded as far as possible; what that leaves of a segment will show
    info = media.probe(stego, damaged)
    media.check_output(output, (stego,), image=info.is_image)
    master = keys.derive_key(credential, segments.MASTER_SALT)
    receiver = segments.Receiver(config, params, master, info.height, info.width)
    start, listening = time.monotonic(), _Listening(receiver, progress)
    with closing(read_ahead((timed.frame for timed in media.read_timed(stego, damaged)), _AHEAD)) as stream:
        parts = listening.parts(stream)
        first = next(parts, None)
        if first is None:
            raise UserError(metadata.NOTHING)
        about = first.description
        assembly = _Assembly(about, 1 if info.is_image else about.frames)
        with (
            media.Writer(output, about.rate, aspect=about.aspect, image=info.is_image) as writer,
            write_behind(writer.write, segments.SEGMENT) as put,
        ):
            for part in chain([first], parts):
                for frame in assembly.take(part):
                    put(frame)
                if assembly.complete:
                    break
            for frame in assembly.rest(listening.frames):
                put(frame)
    seconds = time.monotonic() - start
    _complain(stego, output, assembly)
    size = (about.height, about.width) if about.turned else (about.width, about.height)
    return Report(assembly.written, *size, about.rate, seconds, listening.frames, (assembly.note(),))


class _Listening:
    """Hands received frames to a `segments.Receiver`."""

    def __init__(self, receiver: segments.Receiver, progress: Callable[[int], Any]):
        self.frames = 0  # received so far
        self._receiver, self._progress = receiver, progress

    def parts(self, frames: Iterable[np.ndarray]) -> Iterator[segments.Part]:
        """What they give."""
        for frame in frames:
            parts = self._receiver.take(frame)
            self.frames += 1
            self._progress(1)
            yield from parts
        yield from self._receiver.finish()


class _Assembly:
    """Puts parts in their places and fills the gaps."""

    def __init__(self, about: segments.Description, frames: int):
        """`frames`: how many the result has."""
        self.frames, self.written = frames, 0
        self.missing: list[int] = []  # frames that repeat the one before
        self._about = about
        self._period = -(-about.frames // segments.SEGMENT)  # segments, after which the secret comes again
        self._last = self._upright(np.full((about.height, about.width, 3), GREY, np.uint8))
        self._layers: set[tuple[int, int]] = set()

    @property
    def complete(self) -> bool:
        """Whether there is nothing more to come."""
        return self.written == self.frames

    def take(self, part: segments.Part) -> Iterator[np.ndarray]:
        """The frames that a part adds, uint8 [h, w, 3], those before it that are missing included."""
        begin = part.number % self._period * segments.SEGMENT
        frames = part.frames[: max(0, self.frames - begin)]
        if begin < self.written or not len(frames) or part.description != self._about:
            return
        yield from self._fill(begin)
        for frame in frames:
            self._last = self._upright(frame)
            self.written += 1
            yield self._last
        self._layers.add((part.layers, part.of))

    def rest(self, received: int) -> Iterator[np.ndarray]:
        """Stands in for what is missing at the end of a stego of `received` frames, if that is not cut."""
        if self._layers and received >= self.frames:
            yield from self._fill(self.frames)

    def note(self) -> str:
        """How many layers could be read."""
        counts = sorted({layers for layers, _ in self._layers})
        span = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
        return f"{span} of {max(of for _, of in self._layers)} layers"

    def _fill(self, end: int) -> Iterator[np.ndarray]:
        while self.written < end:
            self.missing.append(self.written)
            self.written += 1
            yield self._last

    def _upright(self, frame: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(np.rot90(frame, -1)) if self._about.turned else frame


def _complain(stego: str, output: str, assembly: _Assembly) -> None:
    """Raises PartialError if something is missing."""
    missing = pipeline.ranges([number + 1 for number in assembly.missing])
    if not assembly.complete:
        gaps = f", and stands still in {missing}" if missing else ""
        raise PartialError(
            f"{stego} is cut short: {output} has the first {assembly.written} of {assembly.frames} frames"
            f"{gaps}; get a complete copy of it"
        )
    if missing:
        plural = "s" if len(assembly.missing) > 1 else ""
        raise PartialError(
            f"{stego} cannot be read in frame{plural} {missing}: {output} has all {assembly.frames} frames, "
            "but stands still there; get a better copy of it"
        )
