"""Find the number of each received frame in the stego, and the spacing D, from its pilots.

Times and frame counts of a container do not survive. Pilots do: some symbols of every frame, other ones in
every frame, that only the key holder knows.
"""

from itertools import pairwise

import numpy as np

from deepsteg_jax.errors import UserError
from deepsteg_jax.schemes.robust import levels
from deepsteg_jax.schemes.robust.geometry import SPACINGS
from deepsteg_jax.schemes.robust.layout import Layout

AHEAD = 48  # frames that may be missing between two
FIRST = 2048  # frames that may be missing at the start
# Detection thresholds of the score, in standard deviations of chance:
EXPECTED = 3.0  # of the expected frame
SURE = 4.5  # of any other, were it the only candidate
PATIENCE = 32  # frames after which distant frames are searched for only once in that many


def nearest_spacing(spacing: float) -> float:
    """Return the nearest one of SPACINGS.

    Raises:
        UserError: there is none near.
    """
    if not 15 < spacing < 96:
        raise UserError(f"config.model.spacing must be 16 to 90 for the model robust, not {spacing}")
    return float(SPACINGS[np.argmin(np.abs(np.log(SPACINGS / spacing)))])


class Finder:
    """Numbers frames as they come, in rising order."""

    def __init__(self, frames_layout: Layout, repeats: list[int]):
        """Take a layout, and the `repeats` of symbols over frames to try."""
        self._layout, self._repeats = frames_layout, repeats
        self._angles: dict[int, np.ndarray] = {}
        self._last, self._spacing = -1, None
        self._passed = 0  # frames since the last one that was found
        self._seen = 0

    def find(self, values: np.ndarray) -> tuple[int, float] | None:
        """Return (number, spacing) of a frame from its pilots as read; None if it has nothing of the key."""
        self._seen += 1
        following = self._last + 1
        alone = values[None]
        found = self._best(alone, range(max(0, self._last), following + AHEAD), SPACINGS)
        if not found and self._spacing:
            # From the last one on, which a codec shows again where nothing moves.
            expected = range(self._last, following + self._passed + 1)
            found = self._best(alone, expected, np.array([self._spacing]), least=EXPECTED)
        if not found and (self._seen < PATIENCE or self._seen % PATIENCE == 0):
            found = self._best(alone, range(following, following + FIRST), SPACINGS)
        if found:
            self._last, self._spacing = found
        self._passed = 0 if found else self._passed + 1
        return found

    def find_lost(self, values: np.ndarray) -> tuple[int, float] | None:
        """Return (number of the first, spacing D) of frames [n, pilots] that `find` could not find singly."""
        following = self._last + 1
        starts = range(following - AHEAD, following + (AHEAD if self._spacing else FIRST))
        found = self.together(values, starts, SPACINGS)
        if found:
            self._last, self._spacing, self._passed = found[0] + len(values) - 1, found[1], 0
        return found

    def together(self, values: np.ndarray, starts: range, spacings: np.ndarray) -> tuple[int, float] | None:
        """Return (number of the first, spacing D) of consecutive frames, [n, pilots].

        They are found in sqrt(n) times as much noise as a single one, whether each shows its own pilots or
        those of the first frame of its group. None if it could be chance.
        """
        return self._best(values, starts, spacings, self._repeats)

    def _best(self, values, starts: range, spacings: np.ndarray, repeats=(1,), least: float | None = None):
        """Return the likeliest (number of the first of n frames, spacing); None if it could be chance."""
        points = np.exp(2j * np.pi * values / spacings[:, None, None]).astype(np.complex64)
        best = -np.inf, 0, 0.0
        for repeat in repeats:
            for some in (starts[i:][::repeat] for i in range(min(repeat, len(starts)))):
                scores = self._scores(points, np.array(some), repeat)
                spacing, start = np.unravel_index(np.argmax(scores), scores.shape)
                best = max(best, (scores[spacing, start], some[start], float(spacings[spacing])))
        least = least or _beyond_chance(len(starts) * len(spacings) * len(repeats))
        return best[1:] if best[0] > least else None

    def _scores(self, points: np.ndarray, starts: np.ndarray, repeat: int) -> np.ndarray:
        """Score how points [spacings, n, pilots] agree with frames from each start on; deviation 1 by chance.

        From one of `starts` to the next is a group, of `repeat` frames. Still frames err alike, so that it is
        the sum of a group's points that is compared.
        """
        groups = np.arange(starts[0], starts[0] + points.shape[1]) // repeat
        sums = np.add.reduceat(points, np.flatnonzero(np.diff(groups, prepend=groups[0] - 1)), axis=1)
        deviation = np.sqrt((np.abs(sums) ** 2).sum((1, 2)) / 2)
        first, count = int(starts[0]) // repeat, sums.shape[1]
        numbers = range(first, first + len(starts) + count - 1)
        expected = np.stack([self._expected(repeat * i) for i in numbers])
        # One product of real matrices: BLAS spends ten times as long on one of complex ones for each spacing.
        each = sums.view(np.float32).reshape(-1, expected.shape[1]) @ expected.T
        each = each.reshape(-1, count, len(numbers))
        return sum(each[:, i, i : i + len(starts)] for i in range(count)) / deviation[:, None]

    def _expected(self, number: int) -> np.ndarray:
        """Return a frame's pilots as points on the unit circle, real and imaginary parts in turn."""
        if number < 0:  # before the first frame; agrees with nothing
            return np.zeros(2 * len(self._layout.pilots), np.float32)
        if number not in self._angles:
            if len(self._angles) > 2 * FIRST:
                self._angles.clear()
            phases = levels.to_phases(self._layout.pilot_bits(number))
            self._angles[number] = np.exp(2j * np.pi * phases).astype(np.complex64).view(np.float32)
        return self._angles[number]


def _beyond_chance(candidates: int) -> float:
    """Return the score that none of this many candidates reaches by chance."""
    return np.sqrt(SURE**2 + 2 * np.log(candidates))


def alignments(numbers: list[int | None], start: int | None, first: int, length: int) -> list[dict[int, int]]:
    """Assign received frames to the frames of a segment, the likelier answer first.

    On a cover that stands still a codec may show the pilots of another frame nearby. The first answer assumes
    that no frame is lost, the second one takes the numbers that were found.

    Args:
        numbers: of received frames; None of those that were not found.
        start: number of the first one if none is lost, see `Finder.together`; None: not known.
        first: number of the first frame of the segment.
        length: its frames.

    Returns:
        For each answer, index of a received frame -> its index in the segment.
    """
    found = {i: n - first for i, n in enumerate(numbers) if n is not None and 0 <= n - first < length}
    filled = found | _just_between(found)
    if start is None:
        return [filled]
    steady = {i: i + start - first for i in range(len(numbers)) if 0 <= i + start - first < length}
    return [steady] if steady == filled else [steady, filled]


def _just_between(found: dict[int, int]) -> dict[int, int]:
    """Return the indices of frames that exactly fill the gap between two that were found."""
    gaps = [((i, n), j) for (i, n), (j, m) in pairwise(found.items()) if j - i == m - n]
    return {i + k: n + k for (i, n), j in gaps for k in range(1, j - i)}
