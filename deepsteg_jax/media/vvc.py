"""VVC (H.266) in few bytes, by the ffmpeg program of the package imageio-ffmpeg, where that is installed.

PyAV decodes VVC, but its FFmpeg has no encoder. Frames go to the program and the stream comes back through
pipes: nothing of them lies on a disk. VVenC spends 12 bytes on every picture, and 150 on parameters that
hardly change, which weighs in streams of a kilobyte: here access unit delimiters and start codes are left
out, and parameters are deflated with a dictionary of what VVenC's usually are.
"""

import logging
import subprocess
import zlib
from functools import cache
from io import BytesIO
from itertools import pairwise

import av
import numpy as np

from deepsteg_jax.errors import UserError
from deepsteg_jax.media.damage import ERRORS

COARSEST = 126  # quantiser, in halves of VVC's; 12 more halve the bytes, about
SIDE = 8  # pixels that both sides must be multiples of
_START = b"\0\0\1"
_SEQUENCE, _PICTURE = 15, 16  # types of NAL units of parameters (H.266, table 5)
# Finer quantisers of colour: an error of a sample of Cb or Cr is one of R, G and B in four pixels.
_PARAMETERS = (
    "AccessUnitDelimiter=0:HrdParametersPresent=0:VuiParametersPresent=0:CbQpOffset=-3:CrQpOffset=-3"
)
# Of the first picture; -3 is VVenC's. With one more streams are half a step of the quantiser smaller.
_FIRST = (-3, -2)
# The end of a sequence's parameters as VVenC writes them here; other ones would cost 130 bytes more.
_USUAL = bytes.fromhex(
    "a801cdffeb084d958c10209c00ca0c5842183110819220d487a3d5a92f249a92c9116a22f1126a22452444992224d465"
    "9210b5085e10bd5a92f25ea19418b100c5880810810102a102020690810102c408081104040b20808121010640811081"
    "02c8408122041a081241070832045a104908710d09723950cc119c41"
)


@cache
def program() -> str | None:
    """Return the path of an ffmpeg with VVenC; None: there is none."""
    try:
        from imageio_ffmpeg import get_ffmpeg_exe

        path = get_ffmpeg_exe()
        listed = subprocess.run([path, "-v", "info", "-encoders"], capture_output=True, check=True)
    except (ImportError, RuntimeError, OSError, subprocess.CalledProcessError):
        return None
    if b"libvvenc" not in listed.stdout:
        return None
    logging.getLogger(__name__).info("VVC by %s", listed.stderr.decode(errors="replace").partition("\n")[0])
    return path


def encode(frames: np.ndarray, quantiser: int, preset: str = "faster") -> bytes:
    """Encode frames in 10 bits and 4:2:0, for `decode`.

    No rate is said: at a constant quantiser it would only change how often frames refer to no other.

    Args:
        frames: uint8 RGB [n, h, w, 3], sides multiples of SIDE.
        quantiser: 0 to COARSEST.
        preset: VVenC's.

    Raises:
        UserError: `program` is not there, or it failed.
    """
    if program() is None:
        raise UserError("there is no VVC encoder: pip install imageio-ffmpeg")
    (height, width), (whole, half) = frames.shape[1:3], divmod(quantiser, 2)
    given = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", "25", "-i", "-"]
    coding = ["-c:v", "libvvenc", "-pix_fmt", "yuv420p10le", "-preset", preset, "-qp", str(whole)]
    coding += ["-qpa", "0", "-vvenc-params", f"{_PARAMETERS}:IntraQPOffset={_FIRST[half]}", "-f", "vvc", "-"]
    done = subprocess.run(
        [program(), "-v", "error", *given, *coding], input=frames.tobytes(), capture_output=True
    )
    if done.returncode or not done.stdout:
        reason = " ".join(done.stderr.decode(errors="replace").split())[-200:]
        raise UserError(f"the VVC encoder failed: {reason or done.returncode}")
    return _packed(_units(done.stdout))


def decode(stream: bytes) -> list[np.ndarray]:
    """Return the frames of `encode`, uint8 RGB [h, w, 3].

    Raises:
        UserError: nothing can be decoded; damage that FFmpeg conceals goes unnoticed.
    """
    try:
        with av.open(BytesIO(_unpacked(stream)), format="vvc") as file:
            frames = [frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)]
    except (*ERRORS, IndexError, zlib.error) as error:
        raise UserError("the coded video is damaged: get an intact copy of it") from error
    if not frames:
        raise UserError("the coded video has no frames in it: get an intact copy of it")
    return frames


@cache
def _dictionary() -> bytes:
    """Return the usual parameters at every place in a byte: what is before them has any number of bits."""
    number, length = int.from_bytes(_USUAL, "big"), len(_USUAL) + 1
    return b"".join((number << shift).to_bytes(length, "big") for shift in range(8))


def _units(stream: bytes) -> list[bytes]:
    """Split a byte stream (H.266, annex B) into NAL units, without their first bytes, which are 0."""
    at, starts = stream.find(_START), []
    while at >= 0:
        starts.append(at)
        at = stream.find(_START, at + len(_START))
    ends = pairwise([*starts, len(stream)])
    return [stream[a + len(_START) + 1 : b].rstrip(b"\0") for a, b in ends]


def _kind(unit: bytes) -> int:
    return unit[0] >> 3


def _packed(units: list[bytes]) -> bytes:
    """Join units, each after its length; parameters come first, deflated."""
    parameters = [unit for unit in units if _kind(unit) in (_SEQUENCE, _PICTURE)]
    deflate = zlib.compressobj(9, wbits=-15, zdict=_dictionary())
    first = deflate.compress(_joined(parameters)) + deflate.flush()
    return _joined([first, *(unit for unit in units if _kind(unit) not in (_SEQUENCE, _PICTURE))])


def _unpacked(stream: bytes) -> bytes:
    """Invert `_packed`, into a byte stream."""
    first, *pictures = _separate(stream)
    parameters = zlib.decompressobj(wbits=-15, zdict=_dictionary()).decompress(first, 4096)
    return b"".join(_START + b"\0" + unit for unit in [*_separate(parameters), *pictures])


def _joined(parts: list[bytes]) -> bytes:
    """Put each part after its length, in one byte below 128, else in two, or three below 4 million."""
    joined = b""
    for part in parts:
        rest, length = len(part), b""
        while rest > 127:
            length += bytes([rest & 127 | 128])
            rest >>= 7
        joined += length + bytes([rest]) + part
    return joined


def _separate(joined: bytes) -> list[bytes]:
    """Invert `_joined`; raise IndexError where it is cut short."""
    parts, at = [], 0
    while at < len(joined):
        length = shift = 0
        while joined[at] > 127:
            length |= (joined[at] & 127) << shift
            at, shift = at + 1, shift + 7
        length |= joined[at] << shift
        parts.append(joined[at + 1 : at + 1 + length])
        at += 1 + length
        if at > len(joined):
            raise IndexError("cut short")
    return parts
