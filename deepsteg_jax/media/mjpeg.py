"""Reading Motion JPEG as quantised coefficients, packet by packet."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import av

from deepsteg_jax.errors import UserError
from deepsteg_jax.media import jpeg
from deepsteg_jax.media.clock import demux
from deepsteg_jax.media.container import opened
from deepsteg_jax.media.damage import ERRORS
from deepsteg_jax.media.images import shown
from deepsteg_jax.media.jpeg import Coefficients, TimedCoefficients

CODEC = "mjpeg"
UNREADABLE = Coefficients((), ())
"""A frame in the place of one that is damaged."""


def packets(container: "av.container.InputContainer", stream: "av.VideoStream") -> Iterator[av.Packet]:
    """Yield the packets of the pictures as far as they can be read."""
    with suppress(*ERRORS):  # decoding tells where a file is cut short
        for packet in demux(container, [stream]):
            if packet.size:
                yield packet


def read(path: str | Path, damaged: list[int] | None = None) -> Iterator[TimedCoefficients]:
    """Yield the frames of Motion JPEG.

    Raises:
        UserError: it is none, or the coefficients of a frame cannot be written. With the list `damaged` such
            frames are UNREADABLE, and their numbers are added to it.
    """
    with opened(Path(path)) as (container, stream):
        if (kind := stream.codec_context.name) != CODEC:
            raise UserError(f"{shown(path)} cannot be used as Motion JPEG: its pictures are {kind}")
        for number, packet in enumerate(packets(container, stream)):
            try:
                frame = jpeg.decode(bytes(packet), alone=True)
            except ValueError as error:
                if damaged is None:
                    told = f"frame {number + 1} of {shown(path)} cannot be used as a JPEG"
                    raise UserError(f"{told}: {error}") from error
                damaged.append(number)
                frame = UNREADABLE
            yield TimedCoefficients(frame, packet.pts)
