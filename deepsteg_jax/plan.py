"""The plan of a job: how a secret fits into the cover's frames, and which frame carries which."""

from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from deepsteg_jax import media
from deepsteg_jax.errors import UserError

SAME_RATE = Fraction(1, 100)  # rates this close are the same: frames are paired by number
JITTER = Fraction(1, 4)  # of a frame's duration, by which times may stray from a constant rate
HELD = 2  # frames; a last frame that is shown as long as this makes a rate vary
TICKS_PER_SECOND = 90_000  # of a timed secret whose own ticks are finer
MOST_COVER_FRAMES = 2**26  # a month at 25 frames/s; their times are in memory

# --- time -----------------------------------------------------------------------------------------


class Clock(NamedTuple):
    """The times of the frames of a clip."""

    times: np.ndarray  # seconds after the first frame, float64 [n]
    rate: Fraction  # frames per second, on the average where it varies
    constant: bool  # whether it does not vary
    last: Fraction  # seconds for which the last frame is shown
    start: Fraction = Fraction(0)  # when the first frame is shown, in seconds by the file's clock

    @property
    def duration(self) -> float:
        """Seconds, the last frame's share included."""
        return float(self.times[-1]) + float(self.last)

    @property
    def end(self) -> Fraction:
        """Seconds by the file's clock."""
        return self.start + Fraction(self.duration).limit_denominator(TICKS_PER_SECOND)


def clock(ticks: np.ndarray, time_base: Fraction, rate: Fraction, last: int = 0) -> Clock:
    """Return the clock of a clip from the times of its frames.

    Args:
        ticks: int [n], rising.
        time_base: seconds of a tick.
        rate: frame rate by the file's header; used if the times agree.
        last: ticks for which the last frame is shown; 0: as long as the others.
    """
    times, start, shown = (ticks - ticks[0]) * float(time_base), int(ticks[0]) * time_base, last * time_base
    average = _average_rate(ticks, time_base)
    for guess in (rate, average):
        if guess and np.abs(times - np.arange(len(times)) / float(guess)).max() * guess <= JITTER:
            if shown * guess < HELD:
                return Clock(times, guess, True, 1 / guess, start)
            average = average or guess
    return Clock(times, average, False, shown or 1 / average, start)


def clock_of(path: Any, info: media.Info) -> Clock:
    """Return the clock of a clip; decodes it, and raises UserError as `media.read_frames` does."""
    timing = media.timing(path)
    return clock(timing.ticks, info.time_base, info.rate, timing.last)


def _average_rate(ticks: np.ndarray, time_base: Fraction) -> Fraction | None:
    if len(ticks) < 2 or ticks[-1] <= ticks[0]:
        return None
    period = int(ticks[-1] - ticks[0]) * time_base / (len(ticks) - 1)
    # Whichever is at least 1 is rounded, so that a slow clip's rate does not become 0.
    return 1 / period.limit_denominator(1001) if period > 1 else (1 / period).limit_denominator(1001)


def by_number(cover: Clock, secret: Clock, align: str) -> bool:
    """Return whether the frames are paired one by one instead of by time."""
    return align == "frames" or abs(cover.rate / secret.rate - 1) <= SAME_RATE


class Schedule(NamedTuple):
    """The assignment of the secret's frames to those of the cover."""

    numbers: np.ndarray  # int [cover frames that carry the secret]; never falls
    passes: int  # repetitions of the cover


def schedule(cover: Clock, secret: Clock, align: str, loop: bool, name: str) -> Schedule:
    """Lay a secret along a cover.

    Where the rates agree, and with align "frames", every frame of the cover carries the next frame of the
    secret. Otherwise a frame of the cover carries the secret's frame at its time: some frames of a slower
    secret are carried more than once, some of a faster one are left out.

    Args:
        cover: its clock.
        secret: its clock.
        align: "time" or "frames".
        loop: play the cover as often as it takes.
        name: of the cover, for the message.

    Raises:
        UserError: `align` is neither, or the cover is too short; the message says what length it needs.
    """
    if align not in ("time", "frames"):
        raise UserError(f"config.video.align must be time or frames, not {align!r}")
    frames = len(secret.times)
    if by_number(cover, secret, align):
        passes = -(-frames // len(cover.times))
        if passes > 1 and not loop:
            raise UserError(
                f"the cover {name} is too short: it has {len(cover.times)} frames and the secret {frames}; "
                f"give one of at least {frames} frames ({frames / float(cover.rate):.2f} s), or --loop_cover"
            )
        return Schedule(np.arange(frames), passes)
    slack = float(JITTER / secret.rate)
    passes = max(1, int(np.ceil((secret.duration - slack) / cover.duration - 1e-9)))
    lacking = secret.duration - cover.duration
    if not loop and lacking > max(1 / float(cover.rate), 1 / float(secret.rate)):
        raise UserError(
            f"the cover {name} is too short: it lasts {cover.duration:.2f} s and the secret "
            f"{secret.duration:.2f} s; give one of at least {secret.duration:.2f} s, or --loop_cover"
        )
    passes = passes if loop else 1
    times = np.concatenate([cover.times + i * cover.duration for i in range(passes)])
    times = times[times < secret.duration - slack] if len(times) > 1 else times
    numbers = np.searchsorted(secret.times, times + slack, side="right") - 1
    numbers[0] = 0  # the slack does not skip it: the first frame has no packet and stands for frame 0
    return Schedule(numbers, passes)


# --- space ----------------------------------------------------------------------------------------


class Fit(NamedTuple):
    """The size and turn of the secret in a frame of the cover."""

    width: int  # pixels, as it lies there
    height: int
    turned: bool  # left by 90 degrees


def fit(info: media.Info, width: int, height: int) -> Fit:
    """Fit a secret into width x height: it keeps its size, or takes the way round that shrinks it less."""

    def scale(w, h):
        return min(Fraction(1), Fraction(width, w), Fraction(height, h))

    turned = scale(info.height, info.width) > scale(info.width, info.height)
    size = (info.height, info.width) if turned else (info.width, info.height)
    factor = scale(*size)
    return Fit(*(max(1, round(side * factor)) for side in size), turned)


def fitted_size(info: media.Info, width: int, height: int) -> tuple[int, int]:
    """Return the size (width, height) at which a secret comes back from a cover of width x height."""
    fitted = fit(info, width, height)
    return (fitted.height, fitted.width) if fitted.turned else (fitted.width, fitted.height)


def read_fitted(path: str | Path, info: media.Info, width: int, height: int) -> Iterator[np.ndarray]:
    """Yield the frames of a secret, scaled down if they are larger than the cover; uint8 [h', w', 3]."""
    inner_width, inner_height = fitted_size(info, width, height)
    return media.read_frames(path, width=inner_width, height=inner_height)


# --- plan -----------------------------------------------------------------------------------------


class Plan(NamedTuple):
    """A job as known before the first frame is hidden. A secret that is hidden as bytes has no clock."""

    cover_path: Any
    secret_path: Any
    cover: media.Info
    cover_clock: Clock
    secret: media.Info | None
    secret_clock: Clock | None
    schedule: Schedule
    fit: Fit | None
    more: tuple = ()  # plans of further secrets in the same cover

    @property
    def each(self) -> tuple["Plan", ...]:
        """The plan of each secret."""
        return (self, *self.more)

    @property
    def needs_numbers(self) -> bool:
        """Whether the frames of the cover must say which frame of the secret they carry."""
        in_order = np.arange(len(self.secret_clock.times))
        return not (self.secret_clock.constant and np.array_equal(self.schedule.numbers, in_order))

    @property
    def left_out(self) -> int:
        """The number of the secret's frames that no frame of the cover carries."""
        return len(self.secret_clock.times) - len(np.unique(self.schedule.numbers))


def make_plan(cover: Any, secret: Any, align: str = "time", loop_cover: bool = False) -> Plan:
    """Lay a secret video or image along a cover, both paths; reads the times of all frames.

    Raises:
        UserError: bad input, or the cover is too short.
    """
    info = media.probe(cover)
    return _laid(cover, info, clock_of(cover, info), secret, align, loop_cover)


def _laid(
    cover: Any, cover_info: media.Info, cover_clock: Clock, secret: Any, align: str, loop_cover: bool
) -> Plan:
    secret_info = media.probe(secret)
    secret_clock = clock_of(secret, secret_info)
    if cover_info.is_image and len(secret_clock.times) > 1:
        raise UserError(
            f"the cover {cover} is an image and the secret {secret} has more frames: give a video"
        )
    _check_length(secret, secret_clock, secret_info, cover_clock)
    laid = schedule(cover_clock, secret_clock, align, loop_cover, cover)
    fitted = fit(secret_info, cover_info.width, cover_info.height)
    return Plan(cover, secret, cover_info, cover_clock, secret_info, secret_clock, laid, fitted)


def make_plan_for_bytes(cover: Any, secret: Any, loop_cover: bool = False) -> Plan:
    """Plan to hide a file as it is in all frames of a cover, both paths.

    Raises:
        UserError: bad input, or the cover is to be repeated.
    """
    if loop_cover:
        raise UserError("a cover is repeated for pictures only: give a longer cover")
    info = media.probe(cover)
    times = clock_of(cover, info)
    everything = Schedule(np.zeros(len(times.times), int), 1)
    return Plan(cover, secret, info, times, None, None, everything, None)


def plan_job(
    cover: Any, secrets: Sequence[Any], pictures: bool, align: str = "time", loop_cover: bool = False
) -> Plan:
    """Plan to hide secrets, all paths, in one cover, as pictures or as the files that they are.

    Raises:
        UserError: as `make_plan` and `make_plan_for_bytes`.
    """
    first, *others = secrets
    if not pictures:
        plan = make_plan_for_bytes(cover, first, loop_cover)
        return plan._replace(more=tuple(plan._replace(secret_path=secret) for secret in others))
    plan = make_plan(cover, first, align, loop_cover)
    known = plan.cover_path, plan.cover, plan.cover_clock
    return plan._replace(more=tuple(_laid(*known, secret, align, loop_cover) for secret in others))


def _check_length(secret: Any, clock: Clock, info: media.Info, cover: Clock) -> None:
    """Raise UserError if the times of a secret, which may be damaged, fit neither packets nor memory."""
    too_long = not clock.constant and clock.duration * tick_rate(info) >= 2**32
    if too_long or clock.duration * float(cover.rate) > MOST_COVER_FRAMES:
        raise UserError(
            f"the secret {secret} lasts {clock.duration:.0f} s by its own times: repair or cut it first"
        )


def tick_rate(info: media.Info) -> Fraction:
    """Return the ticks per second in which a timed secret's times travel."""
    rate, most = 1 / info.time_base, Fraction(TICKS_PER_SECOND)
    return rate if rate <= most and rate.denominator == 1 else most


# --- frames ---------------------------------------------------------------------------------------


def cover_frames(plan: Plan, read: Any = media.read_timed) -> Iterator[Any]:
    """Yield the frames of a cover to its end, or those of a repeated one that carry something.

    Args:
        plan: the plan.
        read: `media.read_timed` or `media.read_planes`.
    """
    if plan.schedule.passes == 1:
        return read(plan.cover_path)
    period = round(plan.cover_clock.duration / float(plan.cover.time_base))
    repeated = _repeated(plan.cover_path, plan.schedule.passes, period, read)
    return islice(repeated, len(plan.schedule.numbers))


def _repeated(path: Any, passes: int, length: int, read: Any) -> Iterator[Any]:
    """Yield a cover's frames `passes` times one after the other, `length` ticks apart."""
    for number in range(passes):
        for frame in read(path):
            yield frame._replace(time=frame.time + number * length)


class SecretFrame(NamedTuple):
    """A frame of the secret as it is to be hidden."""

    frame: np.ndarray  # uint8 [h', w', 3], as it lies
    number: int
    time: int  # ticks


def secret_frames(plan: Plan, numbers: Iterable[int]) -> Iterator[SecretFrame]:
    """Yield the secret's frames in the order of `numbers`, which never falls, scaled and turned to fit.

    Raises:
        UserError: there are fewer by now.
    """
    times = np.round(plan.secret_clock.times * float(tick_rate(plan.secret))).astype(np.int64)
    times *= not plan.secret_clock.constant  # nobody reads them then, and they may be too large to send
    frames = read_fitted(plan.secret_path, plan.secret, plan.cover.width, plan.cover.height)
    for number, frame in picked(frames, numbers):
        yield SecretFrame(np.rot90(frame) if plan.fit.turned else frame, number, int(times[number]))


def picked(frames: Iterable[np.ndarray], numbers: Iterable[int]) -> Iterator[tuple[int, np.ndarray]]:
    """Yield (number, frame) in the order of `numbers`, which never falls.

    Raises:
        UserError: there are fewer frames.
    """
    frames, at, frame = iter(frames), -1, None
    for number in numbers:
        while at < number:
            frame, at = next(frames, None), at + 1
            if frame is None:
                raise UserError("the secret changed while it was read: start again")
        yield number, frame
