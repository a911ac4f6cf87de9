"""`--mode live`: hide a secret in a camera, stream or clip as it plays, and show stego and revealed."""

import signal
import threading
import time
from array import array
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from fractions import Fraction
from typing import NamedTuple

import numpy as np
from ml_collections import ConfigDict

from deepsteg_jax import loading, media, sample_clips
from deepsteg_jax.commands import Options
from deepsteg_jax.errors import UserError
from deepsteg_jax.live import Session, Shown, stream
from deepsteg_jax.media import camera
from deepsteg_jax.media.background import write_behind
from deepsteg_jax.media.camera import Captured
from deepsteg_jax.window import Window

TICK = Fraction(1, 1000)  # seconds, of the file's times
POLL_S = 0.004  # seconds between looks of the window for frames


class Ready(NamedTuple):
    """A frame that came out."""

    picture: np.ndarray  # uint8 [h, w, 3], the panels side by side
    at: float  # when the frame of the cover came, see `Captured`


class Statistics:
    """Frames that came out: their times, and the latency of each."""

    def __init__(self):
        self.start = self.end = time.monotonic()
        self.latencies = array("d")  # seconds

    def add(self, latency: float) -> None:
        """Count a frame that came out."""
        self.latencies.append(latency)
        self.end = time.monotonic()

    def summary(self, dropped: int | None) -> str:
        """Return one line; `dropped` is None where the cover waits for us, and a latency means nothing."""
        frames = len(self.latencies)
        if not frames:
            return "no frames"
        line = f"{frames} frames, {frames / (self.end - self.start):.1f} frames/s"
        if dropped is None:
            return line
        median, late = 1000 * np.percentile(self.latencies, (50, 95))
        drops = f"{dropped} frames of the cover dropped"
        return f"{line}, latency {median:.0f} ms (median), {late:.0f} ms (95th percentile), {drops}"


def panels(settings: ConfigDict) -> list[str]:
    """Return the names in `settings.panels`.

    Raises:
        UserError: none, or another name.
    """
    names = settings.panels.replace(",", " ").split()
    if not names or not set(names) <= set(Shown._fields):
        raise UserError(f"--live.panels must be some of {' '.join(Shown._fields)}, not {settings.panels!r}")
    return names


def is_stream(cover: str) -> bool:
    """Return whether a cover comes in its own time and has no file's name."""
    return camera.is_camera(cover) or camera.is_url(cover)


def _check_files(cover: str, secret: str, output: str | None, size: tuple[int, int]) -> None:
    """Raise UserError for mistakes that show before the model is loaded; `size` is that of the output."""
    media.probe(secret)
    inputs = [secret]
    if not is_stream(cover):
        if media.probe(cover).is_image:
            raise UserError(f"the cover {cover} is an image: give a camera (0), a stream or a clip")
        inputs.append(cover)
    if output:
        media.check_output(output, inputs, lossy=True, size=size)


def _source(cover: str, width: int, height: int, paced: bool) -> Iterator[Captured]:
    if is_stream(cover):
        return camera.read(cover, width, height)
    return camera.read_clip(cover, width, height, paced)


def _ready(groups: Iterable[list[tuple[Shown, float]]], names: list[str]) -> Iterator[list[Ready]]:
    """Lay the panels of each frame side by side."""
    for group in groups:
        yield [Ready(np.concatenate([getattr(shown, n) for n in names], axis=1), at) for shown, at in group]


@contextmanager
def _interruptible() -> Iterator[threading.Event]:
    """Yield an event that the first Ctrl-C sets; the second one interrupts as ever."""
    stop = threading.Event()
    before = signal.getsignal(signal.SIGINT)

    def handle(*_):
        stop.set()
        signal.signal(signal.SIGINT, before)

    signal.signal(signal.SIGINT, handle)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, before)


def _write(output: str, ready: Iterable[list[Ready]], statistics: Statistics) -> None:
    """Write the frames that come out, each at its time."""
    first = None
    with (
        media.Writer(output, media.FOLDER_RATE, time_base=TICK, lossy=media.Lossy()) as writer,
        write_behind(lambda frame: writer.write(*frame)) as put,
    ):
        for group in ready:
            first = group[0].at if first is None else first
            for picture, at in group:
                put((picture, round((at - first) / TICK)))
                statistics.add(time.monotonic() - at)


def _show(
    window: Window,
    ready: Iterable[list[Ready]],
    session: Session,
    stop: threading.Event,
    halt: Callable[[], None],
    statistics: Statistics,
) -> None:
    """Draw the frames that come out; those of a group one after the other, as far apart as they came."""
    waiting: deque[tuple[float, Ready]] = deque()

    def collect():
        for group in ready:
            now = time.monotonic()
            waiting.extend((now + frame.at - group[0].at, frame) for frame in group)

    with ThreadPoolExecutor(1) as pool:
        collecting = pool.submit(collect)
        try:
            while window.open and not stop.is_set() and (waiting or not collecting.done()):
                due = None
                while waiting and waiting[0][0] <= time.monotonic():
                    due = waiting.popleft()[1]
                    statistics.add(time.monotonic() - due.at)
                if due:
                    latency = 1000 * (time.monotonic() - due.at)
                    window.show(due.picture, f"{session.fps:.1f} frames/s   {latency:.0f} ms")
                window.update()
                time.sleep(POLL_S)
        finally:
            halt()
    collecting.result()


def run(config: ConfigDict, options: Options) -> None:
    """Hide `--secret`, which repeats, in `--cover`, and show --live.panels until the cover ends.

    In a window, or with `--output` in a file. A camera, a stream, and a clip in a window play in their own
    time: frames that come too fast are dropped, and the newest ones are kept. A clip that goes into a file is
    hidden frame by frame. The key is drawn for the session.

    Raises:
        UserError: bad input, no such camera, no display, or see `Session`.
    """
    cover, secret = sample_clips.resolve(options.cover), sample_clips.resolve(options.secret)
    size, names = (options.live.width, options.live.height), panels(options.live)
    scheme = loading.load(config)
    _check_files(cover, secret, options.output, (size[0] * len(names), size[1]))
    paced = not options.output or is_stream(cover)
    source = _source(cover, *size, paced)
    with ExitStack() as stack:
        window = None if options.output else stack.enter_context(closing(Window(names, *size)))
        stop = stack.enter_context(_interruptible())
        session = stack.enter_context(Session(scheme, secret, *size))
        frames = camera.Newest(source, session.group) if paced else source
        groups = stack.enter_context(closing(stream(session, frames, stop)))

        def halt():
            stop.set()
            if paced:
                frames.stop()

        stack.callback(halt)  # before the thread that hides is waited for
        ready, statistics = _ready(groups, names), Statistics()
        if window:
            _show(window, ready, session, stop, halt, statistics)
        else:
            _write(options.output, ready, statistics)
    print(statistics.summary(frames.dropped if paced else None))
