"""Find the finest quantiser whose coding fits into a number of bytes."""

import math
from collections.abc import Callable
from typing import NamedTuple

_APART = 3  # quantisers of two trials that tell a slope


class Trial(NamedTuple):
    """A coding, and how those with quantisers next to it differ."""

    quantiser: int  # or rate factor
    size: int  # bytes
    slope: float  # by which the logarithm of the bytes falls, a quantiser

    def quantiser_for(self, size: float) -> int:
        """Return the quantiser with which a coding of something alike takes about `size` bytes."""
        return round(self.quantiser + math.log(max(self.size, 1) / max(size, 1)) / self.slope)


def finest(
    size_at: Callable[[int], int], room: int, like: Trial, quantisers: tuple[int, int], filled: float
) -> Trial | None:
    """Return the finest coding that fits, or nearly; None if none does.

    The logarithm of the number of bytes falls about linearly with the quantiser, by a slope that further
    trials tell better. The search ends where the next finer one would by it be too large.

    Args:
        size_at: codes with a quantiser; returns the bytes.
        room: bytes that it may take.
        like: a coding of something alike; tells where to begin.
        quantisers: the finest and the coarsest one.
        filled: share of the room from which on a coding is fine enough.
    """
    best, last, slope, (low, high) = None, None, like.slope, quantisers
    middle = room * math.sqrt(filled)  # of what is taken
    guess = like.quantiser_for(middle)
    while low <= high:
        guess = min(max(guess, low), high)
        size = size_at(guess)
        if last is not None and abs(guess - last.quantiser) >= _APART:
            measured = math.log(max(size, 1) / max(last.size, 1)) / (last.quantiser - guess)
            slope = min(max(measured, like.slope / 2), 4 * like.slope)
        last = Trial(guess, size, slope)
        if size <= room:
            best, high = last, guess - 1
            if size * max(math.exp(slope), 1 / filled) > room:
                break
        else:
            low = guess + 1
        guess = last.quantiser_for(middle)
    return best
