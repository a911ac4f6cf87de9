"""Codings of written videos: what FFmpeg's encoders are told, a class each."""

from fractions import Fraction
from typing import NamedTuple

import av

from deepsteg_jax.errors import UserError

_FULL_RANGE, _RGB, _PROGRESSIVE = 2, 0, 1  # AVCOL_RANGE_JPEG, AVCOL_SPC_RGB, AV_FIELD_PROGRESSIVE
_LIMITED_RANGE, _BT601 = 1, 6  # AVCOL_RANGE_MPEG, AVCOL_SPC_SMPTE170M: what swscale makes of RGB by itself


class Lossy(NamedTuple):
    """Permission to write a lossy format, and how much it may lose."""

    crf: int = 18  # x264's constant rate factor
    quality: int = 90  # of a JPEG


class Ffv1:
    """Lossless RGB."""

    pixel_format, colour = "bgr0", (_FULL_RANGE, _RGB)
    finest_tick = Fraction(0)
    smallest, even = 4, False  # sides: less cannot be cut into 16 slices
    aspect_in_frames = True
    is_playable = False

    def __init__(self, lossy: Lossy | None = None):
        """`lossy` changes nothing."""

    def open(self, container: "av.container.OutputContainer", rate: Fraction) -> "av.VideoStream":
        """Add a stream to the container; its size and time base are left to set."""
        options = {"level": "3", "slices": "16", "slicecrc": "1"}
        stream = container.add_stream("ffv1", rate=rate, options=options)
        stream.codec_context.gop_size = 1
        stream.codec_context.field_order = _PROGRESSIVE
        return stream


class H264:
    """H.264, 4:2:0, as the ffmpeg program codes it by default, at a given rate factor."""

    pixel_format, colour = "yuv420p", (_LIMITED_RANGE, _BT601)
    finest_tick = Fraction(1, 90_000)  # seconds: an MP4 holds ticks of a frame's duration in 32 bits
    smallest, even = 4, True
    aspect_in_frames = False
    is_playable = True

    def __init__(self, lossy: Lossy | None = None):
        """Take the rate factor from `lossy`."""
        self._crf = (lossy or Lossy()).crf

    def open(self, container: "av.container.OutputContainer", rate: Fraction) -> "av.VideoStream":
        """Add a stream to the container; its size and time base are left to set."""
        check_encoder("libx264")
        options = {"crf": str(self._crf), "preset": "medium"}
        return container.add_stream("libx264", rate=rate, options=options)


def has_encoder(codec: str) -> bool:
    """Whether this build of FFmpeg has an encoder of that name."""
    try:
        av.Codec(codec, "w")
    except av.codec.codec.UnknownCodecError:
        return False
    return True


def check_encoder(codec: str) -> None:
    """Raise UserError unless `has_encoder`."""
    if not has_encoder(codec):
        raise UserError(f"this build of FFmpeg cannot encode with {codec}: install PyAV from its wheel")
