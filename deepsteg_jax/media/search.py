"""Find the finest quantiser whose coding fits into a number of bytes."""

import math
from collections.abc import Callable


def finest(
    size_at: Callable[[int], int],
    room: int,
    guess: int,
    quantisers: tuple[int, int],
    slope: float,
    filled: float,
) -> int | None:
    """Return the finest quantiser that fits, or nearly; None if none does.

    The logarithm of the number of bytes falls about linearly with the quantiser, which tells where to look.

    Args:
        size_at: codes with a quantiser, or a rate factor; returns the bytes.
        room: bytes that it may take.
        guess: quantiser to begin with.
        quantisers: the finest and the coarsest one.
        slope: of the logarithm of the bytes, a quantiser.
        filled: share of the room from which on a coding is fine enough.
    """
    best, (low, high) = None, quantisers
    while low <= high:
        guess = min(max(guess, low), high)
        size = size_at(guess)
        if size <= room:
            best, high = guess, guess - 1
            if size > filled * room:
                break
        else:
            low = guess + 1
        ahead = math.log(max(size, 1) / max(room, 1)) / slope
        guess += math.ceil(ahead) if ahead > 0 else math.floor(min(ahead, -1))
    return best
