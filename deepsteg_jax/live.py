"""Hide a secret in frames as they come and reveal it at once, for `--mode live` and the page.

The frames of a cover go in one by one. As soon as a group of them is there (one frame with configs/image.py,
four with configs/video.py), the sender hides the next frames of the secret in it, the stego is rounded to
8 bits, and the receiver reveals from those 8-bit frames and the key. Both sides run the same compiled
functions as files do, with the same keys: frame n of a session has the keystream of frame n of a video. No
file is written, so there is no sealed metadata and no sound; the session's salt, which a file would carry, is
known to both sides.
"""

import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import closing
from itertools import cycle
from typing import NamedTuple

import numpy as np

from deepsteg_jax import keys, media, sample_clips
from deepsteg_jax.media.background import read_ahead
from deepsteg_jax.schemes.base import Scheme

WINDOW_S = 1.5  # over which frames/s and latency are taken
KEPT_BYTES = 2**27  # a secret that takes no more is decoded once


class Shown(NamedTuple):
    """The pictures of one frame, uint8 [h, w, 3] each."""

    cover: np.ndarray
    stego: np.ndarray
    secret: np.ndarray
    revealed: np.ndarray


class Hidden(NamedTuple):
    """A group that is on its way. The receiver is given `stegos`; the rest is for showing and measuring."""

    covers: np.ndarray  # uint8 [t, h, w, 3]
    secrets: np.ndarray
    stegos: np.ndarray
    since: tuple[float, ...]  # when each frame of the cover came, time.monotonic()


class Session:
    """One cover that comes frame by frame, one secret that repeats, one key.

    Attributes:
        group: frames that are hidden together; `push` answers once per group.
        width, height: pixels of all frames.
    """

    def __init__(
        self, scheme: Scheme, secret: str, width: int, height: int, key: keys.Credential | None = None
    ):
        """Compile for frames of one size.

        Args:
            scheme: one that can hide frame by frame.
            secret: path of an image or clip; each of its frames is scaled to lie whole within the cover's
                frame, on black. One frame of it goes into one frame of the cover; a clip repeats.
            width: pixels of the cover's frames.
            height: pixels.
            key: a passphrase, or 32 bytes; None draws a random one. A new salt makes every session's keys
                its own.

        Raises:
            UserError: the secret cannot be read, or the scheme needs longer groups.
        """
        self.group, self.width, self.height = scheme.group, width, height
        self._sender, self._receiver = scheme.session(
            keys.random_key() if key is None else key, height, width
        )
        secret = sample_clips.resolve(secret)
        self._secrets = read_ahead(_repeated(secret, media.probe(secret), width, height))
        self._waiting: list[tuple[np.ndarray, float]] = []  # frames of the cover, when they came
        self._done: deque[tuple[float, list[float]]] = deque()  # when a group was done, its latencies
        self._warm_up()

    def _warm_up(self) -> None:
        blank = np.zeros((self.group, self.height, self.width, 3), np.uint8)
        self._sender.warm_up(blank, blank)
        self._receiver.warm_up(blank)

    def push(self, frame: np.ndarray) -> list[Shown]:
        """Take the next frame of the cover: `hide`, then `reveal`.

        Args:
            frame: uint8 [height, width, 3]; is not kept.

        Returns:
            The frames of the group that it completes, in order; none while the group is not full.

        Raises:
            ValueError: another shape or type.
            UserError: the secret turns out to be damaged.
        """
        return self._shown(self.hide(frame))

    def flush(self) -> list[Shown]:
        """Hide and reveal the waiting frames as a shorter group, at the end of a cover."""
        return self._shown(self.hide_rest())

    def _shown(self, hidden: Hidden | None) -> list[Shown]:
        return [] if hidden is None else self.reveal(hidden)

    def hide(self, frame: np.ndarray, since: float | None = None) -> Hidden | None:
        """Do the sender's half of `push`, which may run on one thread while `reveal` runs on another.

        Args:
            frame: uint8 [height, width, 3]; is not kept.
            since: when the frame came, `time.monotonic()`; now, if not given.
        """
        if frame.shape != (self.height, self.width, 3) or frame.dtype != np.uint8:
            raise ValueError(
                f"a frame is uint8 [{self.height}, {self.width}, 3], not {frame.dtype} {frame.shape}"
            )
        self._waiting.append((np.array(frame), time.monotonic() if since is None else since))
        return self.hide_rest() if len(self._waiting) == self.group else None

    def hide_rest(self) -> Hidden | None:
        """Hide the waiting frames; return None if there are none."""
        if not self._waiting:
            return None
        covers, since = zip(*self._waiting, strict=True)
        self._waiting = []
        covers, secrets = np.stack(covers), np.stack([next(self._secrets) for _ in covers])
        return Hidden(covers, secrets, self._sender.work(covers, secrets), since)

    def reveal(self, hidden: Hidden) -> list[Shown]:
        """Do the receiver's half of `push`; groups come in the order in which they were hidden."""
        revealed = self._receiver.work(hidden.stegos)
        now = time.monotonic()
        self._done.append((now, [now - start for start in hidden.since]))
        self._recent()
        stacks = hidden.covers, hidden.stegos, hidden.secrets, revealed
        return [Shown(*frames) for frames in zip(*stacks, strict=True)]

    def close(self) -> None:
        """Stop reading the secret."""
        self._secrets.close()

    def __enter__(self) -> "Session":
        """Return itself."""
        return self

    def __exit__(self, *exception) -> None:
        """Stop, see `close`."""
        self.close()

    @property
    def fps(self) -> float:
        """Frames per second that came out in the last WINDOW_S seconds; 0 before there are two groups."""
        recent = self._recent()
        if len(recent) < 2:
            return 0.0
        return sum(len(latencies) for _, latencies in recent[1:]) / (recent[-1][0] - recent[0][0])

    @property
    def latency_ms(self) -> float:
        """Median time of a frame in `push`, the wait for its group included; 0 if unknown."""
        latencies = [latency for _, group in self._recent() for latency in group]
        return 1000 * float(np.median(latencies)) if latencies else 0.0

    def _recent(self) -> list[tuple[float, list[float]]]:
        while self._done and self._done[0][0] < time.monotonic() - WINDOW_S:
            self._done.popleft()
        return list(self._done)


def stream(
    session: Session, frames: Iterable[tuple[np.ndarray, float]], stop: threading.Event | None = None
) -> Iterator[list[tuple[Shown, float]]]:
    """Send frames through a session, the sender on a thread of its own.

    It works on the next group while the receiver reveals.

    Args:
        session: nobody else may use it meanwhile.
        frames: (frame of the cover as for `Session.push`, its time).
        stop: when set, ends after the group at hand.

    Yields:
        The frames of each group, the last one maybe shorter, with their times.
    """
    stop = stop or threading.Event()

    def hidden():
        times = []
        for frame, at in frames:
            if stop.is_set():
                return
            times.append(at)
            if group := session.hide(frame):
                yield group, times
                times = []
        if not stop.is_set() and (group := session.hide_rest()):
            yield group, times

    with closing(read_ahead(hidden(), depth=1)) as groups:
        for group, times in groups:
            yield list(zip(session.reveal(group), times, strict=True))


def _repeated(path: str, info: media.Info, width: int, height: int) -> Iterator[np.ndarray]:
    """Yield the frames of a clip over and over, each whole within width x height, on black."""
    shown_width = info.width * (info.aspect or 1)
    scale = min(width / shown_width, height / info.height)
    inner = max(1, round(shown_width * scale)), max(1, round(info.height * scale))
    left, top = (width - inner[0]) // 2, (height - inner[1]) // 2
    margins = (top, height - inner[1] - top), (left, width - inner[0] - left), (0, 0)
    while True:
        kept, count = [], 0
        for frame in media.read_frames(path, width=inner[0], height=inner[1]):
            laid = np.pad(frame, margins)
            count += 1
            if count * laid.nbytes <= KEPT_BYTES:
                kept.append(laid)
            yield laid
        if len(kept) == count:
            yield from cycle(kept)
