"""A secret as bytes: its own file where that fits, else coded anew to the room that there is."""

import hashlib
from contextlib import ExitStack
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import BinaryIO, NamedTuple

from deepsteg_jax import media
from deepsteg_jax.errors import UserError
from deepsteg_jax.media.temporary import temporary_files

NAME_BYTES = 255  # of a file's name, at most
_BLOCK = 2**20


class Payload(NamedTuple):
    """The bytes that travel, to be read once."""

    name: bytes  # of the file
    file: BinaryIO
    size: int  # bytes, with the name
    digest: bytes  # SHA-256 of both
    coded: bool
    note: str  # for the user: which of the two, and how fine


NOTHING = Payload(b"", BytesIO(), 0, b"", False, "")
"""In the place of a secret."""


def _packed_name(path: Path) -> bytes:
    """Return a name; a long one keeps its end."""
    return path.name.encode("utf-8", "surrogateescape")[-NAME_BYTES:]


def prepare(path: Path, room: int, sound_bit_rate: int, open_files: ExitStack) -> Payload:
    """Prepare a secret of any kind to travel in at most `room` bytes.

    Args:
        path: of the secret.
        room: bytes.
        sound_bit_rate: of a video's sound where that has to be coded, bits per second; 0 leaves it out.
        open_files: closes what is returned, and removes temporary files.

    Raises:
        UserError: it cannot be read, or does not fit and is no picture or video that could be coded.
    """
    size = check(path, room)
    if size is not None:
        if len(_packed_name(path)) + size <= room:
            return _payload(path, False, f"its own file travels, {_kilobytes(size)}, bit for bit", open_files)
        reason = f"its file of {_kilobytes(size)} does not fit into {_kilobytes(room)}, so it is coded"
    else:
        reason = f"its images are coded to fit into {_kilobytes(room)}"
    with temporary_files():
        folder = Path(open_files.enter_context(TemporaryDirectory()))
        named = path.resolve() if path.is_dir() else path  # the current folder has no name
        output = folder / f"{named.stem[:50]}.mkv"
        described = media.code_to_size(path, output, room - len(_packed_name(output)), sound_bit_rate)
    lost = media.unsent(path, sound=True)
    lost = f" (left out: {lost})" if lost else ""
    return _payload(output, True, f"{reason}: {described}{lost}", open_files)


def _payload(path: Path, coded: bool, note: str, open_files: ExitStack) -> Payload:
    name = _packed_name(path)
    digest, size = hashlib.sha256(name), len(name)
    try:
        file = open_files.enter_context(path.open("rb"))
        while block := file.read(_BLOCK):
            digest.update(block)
            size += len(block)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from error
    file.seek(0)
    return Payload(name, file, size, digest.digest(), coded, note)


def check(path: Path, room: int) -> int | None:
    """Return the size of a secret's file, None for a folder or pattern of images.

    Raises:
        UserError: it cannot be read, or does not fit into `room` bytes and is no picture or video.
    """
    media.check_readable(path)
    if not path.is_file():
        return None
    size = path.stat().st_size
    if len(_packed_name(path)) + size <= room:
        return size
    try:
        media.probe(path)
        return size
    except UserError:
        raise UserError(
            f"{path} has {_kilobytes(size)} and {_kilobytes(room)} fit: take a longer or larger cover, "
            "or more of it with --config.payload.rate, which is found sooner"
        ) from None


def _kilobytes(size: int) -> str:
    return f"{size / 1000:,.1f} kB"
