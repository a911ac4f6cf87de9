"""Which frame of the secret each frame of the cover carries."""

from fractions import Fraction
from typing import NamedTuple

import numpy as np

from deepsteg_jax.errors import UserError

SAME_RATE = Fraction(1, 100)  # rates this close are the same: frames are paired by number
JITTER = Fraction(1, 4)  # of a frame's duration, by which times may stray from a constant rate
TICKS_PER_SECOND = 90_000  # of a timed secret whose own ticks are finer


class Clock(NamedTuple):
    """When the frames of a clip are shown."""

    times: np.ndarray  # seconds after the first frame, float64 [n]
    rate: Fraction  # frames per second, on the average where it varies
    constant: bool  # whether it does not vary

    @property
    def duration(self) -> float:
        """Seconds, the last frame's share included."""
        return float(self.times[-1]) + 1 / float(self.rate)


def clock(ticks: np.ndarray, time_base: Fraction, rate: Fraction) -> Clock:
    """The clock of a clip from the times of its frames.

    Args:
        ticks: int [n], rising.
        time_base: seconds of a tick.
        rate: what the file calls its frame rate; believed if the times agree.
    """
    times = (ticks - ticks[0]) * float(time_base)
    for guess in (rate, _average_rate(ticks, time_base)):
        if guess and np.abs(times - np.arange(len(times)) / float(guess)).max() * guess <= JITTER:
            return Clock(times, guess, True)
    return Clock(times, _average_rate(ticks, time_base), False)


def _average_rate(ticks: np.ndarray, time_base: Fraction) -> Fraction | None:
    if len(ticks) < 2 or ticks[-1] <= ticks[0]:
        return None
    period = int(ticks[-1] - ticks[0]) * time_base / (len(ticks) - 1)
    # Of the two, the one that is at least 1 is rounded, so that a slow clip's rate does not become 0.
    return 1 / period.limit_denominator(1001) if period > 1 else (1 / period).limit_denominator(1001)


def by_number(cover: Clock, secret: Clock, align: str) -> bool:
    """Whether the frames are paired one by one instead of by time."""
    return align == "frames" or abs(cover.rate / secret.rate - 1) <= SAME_RATE


class Schedule(NamedTuple):
    """What every carrier shows."""

    numbers: np.ndarray  # int [carriers], the secret's frame that each carries; never falls
    passes: int  # how often the cover is played


def schedule(cover: Clock, secret: Clock, align: str, loop: bool, name: str) -> Schedule:
    """Lays a secret along a cover.

    Where the rates agree, and with align "frames", every frame of the cover carries the next frame of the
    secret. Otherwise a frame of the cover carries what the secret shows at that time: a slower secret's
    frames are carried more than once, of a faster one's some are left out.

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
        raise UserError(f"config.video.align is time or frames, not {align!r}")
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
    numbers[0] = 0  # the slack does not skip it: the first carrier has no packet and stands for frame 0
    return Schedule(numbers, passes)
