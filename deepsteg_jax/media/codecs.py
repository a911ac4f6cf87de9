"""Codings of written videos: the settings of FFmpeg's encoders, a class each.

A class has the attributes of `Coding` and `open`, which adds its stream to a container.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple, Protocol

import av

from deepsteg_jax.errors import UserError

GREY = "gray"
RGB = "rgb24"  # FFmpeg's names of formats of pixels; all others here are planes of Y, Cb, Cr
_EIGHT_BITS = ("yuv420p", "yuv422p", "yuv444p")
PLANES = tuple(f"{name}{bits}" for bits in ("", "10le", "12le", "14le", "16le") for name in _EIGHT_BITS)
_COLOUR_FIELDS = ("color_range", "colorspace", "color_primaries", "color_trc")
_PROGRESSIVE = 1  # AV_FIELD_PROGRESSIVE


class Colour(NamedTuple):
    """The colour tags of a video, in FFmpeg's numbers; by default unspecified."""

    range: int = 0  # AVCOL_RANGE; 1: 16 to 235, 2: all
    matrix: int = 2  # AVCOL_SPC; 0: RGB, 1: BT.709, 6: BT.601
    primaries: int = 2  # AVCOL_PRI
    transfer: int = 2  # AVCOL_TRC

    @classmethod
    def of(cls, source: "av.VideoFrame | av.VideoCodecContext") -> "Colour":
        """Return the tags of a frame or a stream."""
        return cls(*(int(getattr(source, name)) for name in _COLOUR_FIELDS))

    def put_on(self, target: "av.VideoFrame | av.VideoCodecContext") -> None:
        """Tag a frame or a stream."""
        for name, number in zip(_COLOUR_FIELDS, self, strict=True):
            setattr(target, name, number)


_RGB_COLOUR = Colour(range=2, matrix=0)
BT601 = Colour(range=1, matrix=6)  # what swscale makes of RGB by default


class Lossy(NamedTuple):
    """Permission to write a lossy format, and its quality."""

    crf: int = 18  # x264's constant rate factor
    quality: int = 90  # of a JPEG


class Coding(Protocol):
    """The coding of the pictures of a file."""

    exact: tuple[str, ...]  # formats of pixels that come back bit for bit
    is_playable: bool  # by browsers and phones
    pixel_format: str  # as it is coded
    colour: Colour  # of frames that were RGB
    smallest: int  # side in pixels
    any_size: bool  # colour may end within a sample of it
    finest_tick: Fraction  # seconds
    aspect: str | None  # pixels that are not square are noted in "frames", in the "stream" or not at all

    def __init__(self, pixel_format: str, lossy: Lossy | None):
        """Prepare to code frames, RGB or in one of PLANES; `lossy` permits loss where there is a choice."""

    def open(self, container: "av.container.OutputContainer", rate: Fraction) -> "av.VideoStream":
        """Add a stream to the container; its size and time base are left to set."""


class Ffv1:
    """Lossless, each frame by itself and with checksums; no browser plays it."""

    exact, is_playable = (RGB, *PLANES), False
    colour = _RGB_COLOUR
    any_size, smallest, finest_tick = True, 4, Fraction(0)  # smaller frames cannot be cut into 16 slices
    aspect = "frames"

    def __init__(self, pixel_format: str, lossy: Lossy | None):
        """See `Coding`."""
        self.pixel_format = "bgr0" if pixel_format == RGB else pixel_format
        # Planes of half size can be cut into 16 slices at some sizes only: there FFmpeg chooses.
        self._slices = {"slices": "16"} if pixel_format == RGB else {}

    def open(self, container: "av.container.OutputContainer", rate: Fraction) -> "av.VideoStream":
        """See `Coding`."""
        options = {"level": "3", "slicecrc": "1", **self._slices}
        stream = container.add_stream("ffv1", rate=rate, options=options)
        stream.codec_context.gop_size = 1
        stream.codec_context.field_order = _PROGRESSIVE
        return stream


class Vp9:
    """Lossless VP9, which Chromium plays in the right colours; nothing in it shows damage.

    Frames that refer to others would save 1 % at the best speed, and spread damage.
    """

    exact, is_playable = (RGB, *_EIGHT_BITS), False
    colour = _RGB_COLOUR
    any_size, smallest, finest_tick = True, 1, Fraction(0)
    aspect = None  # PyAV cannot tell the container

    def __init__(self, pixel_format: str, lossy: Lossy | None):
        """See `Coding`."""
        self.pixel_format = "gbrp" if pixel_format == RGB else pixel_format

    def open(self, container: "av.container.OutputContainer", rate: Fraction) -> "av.VideoStream":
        """See `Coding`."""
        check_encoder("libvpx-vp9")
        # A tenth larger than at "good", four times as fast.
        fast = {"deadline": "realtime", "cpu-used": "8", "row-mt": "1", "lag-in-frames": "0"}
        stream = container.add_stream("libvpx-vp9", rate=rate, options={"lossless": "1", **fast})
        stream.codec_context.gop_size = 1
        stream.codec_context.field_order = _PROGRESSIVE
        return stream


class H264:
    """H.264 as the ffmpeg program codes it by default, at a given rate factor, or planes without loss."""

    exact, is_playable = _EIGHT_BITS, True
    colour = BT601
    any_size, smallest = False, 4
    finest_tick = Fraction(1, 90_000)  # an MP4 holds ticks of a frame's duration in 32 bits
    aspect = "stream"

    def __init__(self, pixel_format: str, lossy: Lossy | None):
        """See `Coding`."""
        self.pixel_format = "yuv420p" if pixel_format == RGB else pixel_format
        # Without loss "medium" would take three times as long to save a twentieth.
        exactly = {"qp": "0", "preset": "veryfast"}
        self._options = {"crf": str(lossy.crf), "preset": "medium"} if lossy else exactly

    def open(self, container: "av.container.OutputContainer", rate: Fraction) -> "av.VideoStream":
        """See `Coding`."""
        check_encoder("libx264")
        return container.add_stream("libx264", rate=rate, options=dict(self._options))


class Small:
    """AV1, or where there is much room H.264 in 4:4:4, both in 10 bits: few bytes at a quality."""

    exact, is_playable = (), False
    colour = BT601
    any_size, smallest, finest_tick = False, 16, Fraction(0)
    aspect = "stream"
    slopes = {"libsvtav1": 0.065, "libx264": 0.1155}  # of the logarithm of the bytes, by rate factor
    ranges = {"libsvtav1": (4, 63), "libx264": (1, 51)}  # of rate factors

    def __init__(self, codec: str, crf: int):
        """Take the encoder, a key of `slopes`, and its rate factor."""
        self.codec, self._crf = codec, crf
        self.pixel_format = "yuv444p10le" if codec == "libx264" else "yuv420p10le"

    def open(self, container: "av.container.OutputContainer", rate: Fraction) -> "av.VideoStream":
        """See `Coding`."""
        # x264 by itself gives half a decibel for grain, which this many bits keep anyway, and notes ticks in
        # its stream where frames per second are wanted.
        h264 = {"preset": "medium", "tune": "psnr", "x264-params": "force-cfr=1"}
        av1 = {"preset": "6", "svtav1-params": "lp=2"}
        own = h264 if self.codec == "libx264" else av1
        return container.add_stream(self.codec, rate=rate, options={"crf": str(self._crf), **own})


def encoder_tag(codec: str) -> str:
    """Return how the ffmpeg program tags a stream from an encoder, so that ours does not stand out."""
    return "Lavc{}.{}.{} {}".format(*av.library_versions["libavcodec"], codec)


def has_encoder(codec: str) -> bool:
    """Return whether this build of FFmpeg has an encoder of that name."""
    try:
        av.Codec(codec, "w")
    except av.codec.codec.UnknownCodecError:
        return False
    return True


def check_encoder(codec: str) -> None:
    """Raise UserError unless `has_encoder`."""
    if not has_encoder(codec):
        raise UserError(f"this build of FFmpeg cannot encode with {codec}: install PyAV from its wheel")


@contextmanager
def opening() -> Iterator[None]:
    """Let an encoder opened in this context be quiet, and not change how threads are scheduled.

    For root, SVT-AV1 makes its threads, and the one that opens it with all that this one starts later,
    real-time threads of the highest priority: two encoders at once then bring a machine to a standstill.
    """
    os.environ.setdefault("SVT_LOG", "1")  # FFmpeg's log level does not reach SVT-AV1
    threads = Path("/proc/self/task")
    if not threads.is_dir():  # not Linux, where it does no such thing
        yield
        return
    usual = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        yield
    finally:
        for thread in threads.iterdir():
            with suppress(OSError):  # it has ended
                if os.sched_getscheduler(int(thread.name)) == os.SCHED_FIFO:
                    os.sched_setscheduler(int(thread.name), *usual)
