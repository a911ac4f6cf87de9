"""Frames as they come, from cameras, streams and files in real time: the only file that opens cameras."""

import os
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from deepsteg_jax.errors import UserError
from deepsteg_jax.media import source as clips
from deepsteg_jax.media.images import shown

TIMEOUT_MS = 10_000
_PROTOCOLS = "http,https,tls,tcp,udp,rtp,rtsp,rtsps,rtmp,rtmps,srt,crypto,httpproxy"  # none opens a file


class Captured(NamedTuple):
    """A frame and the time it came."""

    frame: np.ndarray  # uint8 RGB [h, w, 3]
    at: float  # seconds: time.monotonic(), or of a file that is read in its own time the clip's


def is_camera(source: str) -> bool:
    """Return whether a source is the index of a camera."""
    return source.isascii() and source.isdigit()


def is_url(source: str) -> bool:
    """Return whether a source is the address of a stream."""
    return "://" in source


def _check_address(source: str) -> None:
    if source.partition("://")[0].lower() not in _PROTOCOLS.split(","):
        raise UserError(
            f"{_name(source)} is no address of a stream: give rtsp:// or http://, or a file's name"
        )


def read(source: str, width: int, height: int) -> Iterator[Captured]:
    """Yield frames of a camera ("0") or a stream ("rtsp://...", "http://..."), as they come, until it ends.

    Args:
        source: index or address.
        width: of the frames wanted, pixels: a camera is asked for this size, and its frames are cut to its
            shape about the middle and scaled.
        height: pixels.

    Raises:
        UserError: there is no such source, or no frame comes. At once.
    """
    capture = _open(source, width, height)
    first = _grab(capture)
    if first is None:
        capture.release()
        raise UserError(f"{_name(source)} gives no frames: is another program using it?")
    return _frames(capture, first, width, height)


def _frames(capture, frame: np.ndarray | None, width: int, height: int) -> Iterator[Captured]:
    import cv2

    # An address may be that of a finite file, which arrives faster than it is to be seen.
    rate = capture.get(cv2.CAP_PROP_FPS) if capture.get(cv2.CAP_PROP_FRAME_COUNT) > 0 else 0
    start, count = time.monotonic(), 0
    try:
        while frame is not None:
            if rate > 0:
                _sleep_until(start + count / rate)
            yield Captured(crop(frame, width, height), time.monotonic())
            frame, count = _grab(capture), count + 1
    finally:
        capture.release()


def read_clip(path: str, width: int, height: int, paced: bool) -> Iterator[Captured]:
    """Yield a video file's frames, cut and scaled as by `read`; `paced`: each at its own time, as if live.

    Raises:
        UserError: as `read_timed`.
    """
    tick = float(clips.probe(path).time_base)
    start, first = time.monotonic(), None
    for frame, at in clips.read_timed(path):
        first = at if first is None else first
        if paced:
            _sleep_until(start + (at - first) * tick)
        yield Captured(crop(frame, width, height), time.monotonic() if paced else (at - first) * tick)


def crop(frame: np.ndarray, width: int, height: int) -> np.ndarray:
    """Cut a frame, uint8 [h, w, 3], to the shape of width x height about its middle and scale it."""
    h, w = frame.shape[:2]
    inner_w, inner_h = min(w, max(1, round(h * width / height))), min(h, max(1, round(w * height / width)))
    left, top = (w - inner_w) // 2, (h - inner_h) // 2
    return clips.resize(frame[top : top + inner_h, left : left + inner_w], width, height)


def _sleep_until(moment: float) -> None:
    time.sleep(max(0.0, moment - time.monotonic()))


def _name(source: str) -> str:
    return f"camera {source}" if is_camera(source) else shown(source)


def _open(source: str, width: int, height: int):
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # silent: errors are reported here, in one line
    try:
        import cv2
    except ImportError:
        raise UserError('cameras and streams need OpenCV: run pip install ".[live]"') from None
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    if is_camera(source):
        capture = cv2.VideoCapture(int(source))
    else:
        _check_address(source)
        # A playlist from there must not open files here. RTSP by TCP is OpenCV's own default.
        options = f"rtsp_transport;tcp|protocol_whitelist;{_PROTOCOLS}"
        os.environ.setdefault("OPENCV_FFMPEG_CAPTURE_OPTIONS", options)
        limits = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, TIMEOUT_MS, cv2.CAP_PROP_READ_TIMEOUT_MSEC, TIMEOUT_MS]
        capture = cv2.VideoCapture(source, cv2.CAP_FFMPEG, limits)
    if not capture.isOpened():
        what = "is one plugged in, and may you use it?" if is_camera(source) else "check the address"
        raise UserError(f"{_name(source)} cannot be opened: {what}")
    if is_camera(source):
        for name, value in (("FRAME_WIDTH", width), ("FRAME_HEIGHT", height), ("BUFFERSIZE", 1)):
            capture.set(getattr(cv2, f"CAP_PROP_{name}"), value)
    return capture


def _grab(capture) -> np.ndarray | None:
    import cv2

    good, frame = capture.read()
    return cv2.cvtColor(frame, cv2.COLOR_BGR2RGB) if good else None


class Newest:
    """Takes frames from a source on a thread as they come; whoever iterates gets the newest ones.

    Attributes:
        dropped: frames that nobody took in time.
    """

    def __init__(self, frames: Iterable[Captured], keep: int = 1):
        """Let at most `keep` frames wait; an older one is dropped for every one more."""
        self.dropped = 0
        self._frames, self._waiting = frames, deque()
        self._keep, self._over, self._failure = keep, False, None
        self._changed = threading.Condition()
        threading.Thread(target=self._work, daemon=True).start()  # a camera may block for good

    def _work(self) -> None:
        try:
            for frame in self._frames:
                with self._changed:
                    if self._over:
                        return
                    self._waiting.append(frame)
                    while len(self._waiting) > self._keep:
                        self._waiting.popleft()
                        self.dropped += 1
                    self._changed.notify()
        except BaseException as error:  # noqa: BLE001, raised again by the reader
            self._failure = error
        finally:
            self.stop()

    def stop(self) -> None:
        """End the iteration after the frames that wait."""
        with self._changed:
            self._over = True
            self._changed.notify_all()

    def __iter__(self) -> Iterator[Captured]:
        """Yield the newest frames; raise at the end what the source raised."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._over)
                if not self._waiting:
                    break
                frame = self._waiting.popleft()
            yield frame
        if self._failure is not None:
            raise self._failure
