"""Encode and decode frames in memory, for measurements and for secrets."""

from collections.abc import Iterable
from fractions import Fraction
from io import BytesIO

import av
import numpy as np

from deepsteg_jax.errors import UserError
from deepsteg_jax.media.codecs import check_encoder, opening
from deepsteg_jax.media.container import open_bytes
from deepsteg_jax.media.damage import ERRORS
from deepsteg_jax.media.images import FOLDER_RATE
from deepsteg_jax.media.planes import Planes, from_picture, to_picture


def compress(
    frames: Iterable[np.ndarray | Planes],
    codec: str,
    pixel_format: str,
    options: dict[str, str],
    rate: Fraction = FOLDER_RATE,
    container: str = "matroska",
    samples: str = "rgb24",
) -> bytes:
    """Encode frames with one of FFmpeg's video encoders; return the bytes of a file.

    Args:
        frames: all of one size, [h, w, 3] or planes.
        codec: the encoder's name, such as "libx264rgb".
        pixel_format: one that the encoder takes, such as "rgb24".
        options: the encoder's own, such as {"crf": "18"}.
        rate: frames per second.
        container: FFmpeg's name of the file's format.
        samples: format of `frames`: "rgb24" for uint8 RGB, "yuv444p10le" for uint16 Y, Cb, Cr below 1,024,
            "yuv420p" for `Planes`.

    Raises:
        UserError: this build of FFmpeg has no such encoder.
    """
    pictures = (_picture_of(frame, samples) for frame in frames)
    return _encode(pictures, codec, pixel_format, options, rate, container)


def recompress(
    data: bytes, codec: str, pixel_format: str, options: dict[str, str], rate: Fraction = FOLDER_RATE
) -> bytes:
    """Decode a matroska file in memory and encode it anew, as sites do: not by way of RGB.

    Arguments and errors are those of `compress`; also UserError if the file is damaged.
    """
    try:
        with open_bytes(BytesIO(data)) as file:
            return _encode(file.decode(video=0), codec, pixel_format, options, rate, "matroska")
    except (*ERRORS, IndexError) as error:
        raise UserError("the coded video is damaged: get an intact copy of it") from error


def decompress(data: bytes, container: str | None = None, samples: str = "rgb24") -> list:
    """Return the frames of a video file in memory, in the format `samples` as in `compress`.

    `container` is FFmpeg's name of its format, for one that does not say so itself. Raises UserError if
    nothing can be decoded; damage that FFmpeg conceals goes unnoticed.
    """
    try:
        with open_bytes(BytesIO(data), container) as file:
            frames = [_samples_of(frame, samples) for frame in file.decode(video=0)]
    except (*ERRORS, IndexError) as error:
        raise UserError("the coded video is damaged: get an intact copy of it") from error
    if not frames:
        raise UserError("the coded video has no frames in it: get an intact copy of it")
    return frames


def _picture_of(frame: np.ndarray | Planes, samples: str) -> av.VideoFrame:
    if isinstance(frame, Planes):
        return to_picture(frame, samples)
    if samples == "rgb24":
        return av.VideoFrame.from_ndarray(frame, format=samples)
    height, width = frame.shape[:2]
    picture = av.VideoFrame(width, height, samples)
    for plane, values in zip(picture.planes, np.moveaxis(frame, 2, 0), strict=True):
        _uint16_of(plane)[:, :width] = values
    return picture


def _samples_of(picture: av.VideoFrame, samples: str) -> np.ndarray | Planes:
    if samples == "rgb24":
        return picture.to_ndarray(format=samples)
    picture = picture.reformat(format=samples)
    if samples == "yuv420p":
        return from_picture(picture)
    planes = picture.planes
    return np.stack([_uint16_of(plane)[:, : plane.width] for plane in planes], axis=-1)


def _uint16_of(plane) -> np.ndarray:
    """View a plane of 16-bit samples, with the padding of its rows, as [h, stride]."""
    return np.frombuffer(plane, "<u2").reshape(plane.height, -1)


def coded_size(data: bytes) -> int:
    """Count the bytes of the coded pictures in a video file in memory, without those of its container."""
    with open_bytes(BytesIO(data)) as file:
        return sum(packet.size for packet in file.demux(video=0))


def _encode(
    pictures: Iterable[av.VideoFrame],
    codec: str,
    pixel_format: str,
    options: dict[str, str],
    rate: Fraction,
    container: str,
) -> bytes:
    check_encoder(codec)
    buffer = BytesIO()
    with av.open(buffer, "w", format=container) as file:
        stream = None
        for number, picture in enumerate(pictures):
            if stream is None:
                stream = file.add_stream(codec, rate=rate, options=options)
                stream.height, stream.width = picture.height, picture.width
                stream.pix_fmt = pixel_format
                with opening():
                    file.start_encoding()
            picture = picture.reformat(format=pixel_format)
            picture.pts, picture.time_base = number, 1 / rate
            picture.pict_type = 0  # a decoded one would force its own type
            file.mux(stream.encode(picture))
        file.mux(stream.encode(None))
    return buffer.getvalue()
