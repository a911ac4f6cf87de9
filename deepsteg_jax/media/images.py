"""Still images and sequences of them; with `formats` the only file that knows Pillow.

A sequence is a folder of images, in the order of their names, or a pattern such as `frame_%05d.png`.
Frames are uint8 RGB arrays [h, w, 3].
"""

import os
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from fractions import Fraction
from io import BytesIO
from pathlib import Path
from stat import S_ISDIR, S_ISREG

import numpy as np
from PIL import Image, ImageOps

from deepsteg_jax.errors import UserError
from deepsteg_jax.media import formats

FOLDER_RATE = Fraction(25)  # frames per second of clips without a rate of their own
DEFAULT_PATTERN = "frame_%05d.png"
LARGEST = 2**26  # pixels of a frame: more than 8K video has

_READ = {row.suffix: row.name for row in formats.FORMATS if row.kind == formats.IMAGE and row.name}
_NOT_READ = {row.suffix for row in formats.FORMATS if row.kind == formats.IMAGE} - set(_READ)
_NOT_READ |= {
    ".heif",
    ".hif",
    ".jxl",
    ".jpe",
    ".jfif",
    ".tga",
    ".exr",
    ".hdr",
    ".psd",
    ".svg",
    ".pgm",
    ".pbm",
}
_NOT_READ |= {".pnm", ".pcx", ".ico", ".j2k", ".jpx", ".dpx", ".qoi", ".dng", ".cr2", ".cr3", ".nef", ".arw"}
_FORMATS = sorted(set(_READ.values()))  # Pillow would also open MPEG streams
# A damaged PNG can ask for more memory than there is.
_ERRORS = (OSError, SyntaxError, ValueError, EOFError, MemoryError, Image.DecompressionBombError)
_NUMBER = re.compile(r"%(0\d+)?d")


def shown(path: str | Path) -> str:
    """Return a path as it stands in messages, on one line."""
    return " ".join(str(path).split("\n"))


def is_kind(path: str | Path, kind: Callable[[int], bool] = bool) -> bool:
    """Return whether a path exists and is of a kind, by its mode; False for a name too long."""
    with suppress(OSError, ValueError):
        return kind(Path(path).stat().st_mode)
    return False


def is_pattern(path: str | Path) -> bool:
    """Return whether a path names a sequence of images, such as `frame_%05d.png`, and no file or video."""
    named = _NUMBER.search(Path(path).name) is not None
    return named and not formats.is_video(path) and not is_kind(path, S_ISREG)


def is_sequence(path: str | Path) -> bool:
    """Return whether a path is a folder or a pattern, to read from or to write to."""
    return is_pattern(path) or is_folder(path)


def is_folder(path: str | Path) -> bool:
    """Return whether a path is a folder, or is written like one."""
    return str(path).endswith(tuple(filter(None, (os.sep, os.altsep)))) or is_kind(path, S_ISDIR)


def is_image(path: Path) -> bool:
    """Return whether a file is a still image that `load` should read, damaged or not."""
    try:
        with Image.open(path, formats=_FORMATS):
            return True
    except Image.UnidentifiedImageError:
        return False
    except _ERRORS:
        # Cut or damaged in the header: still an image if its name says so, and loading it will complain.
        return path.suffix.lower() in _READ


def on_white(rgba: np.ndarray) -> np.ndarray:
    """Lay uint8 [h, w, 4] on a white ground: transparent pixels have no colour to keep."""
    alpha = rgba[..., 3:].astype(np.uint16)
    return ((rgba[..., :3] * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)


def load(path: Path) -> np.ndarray:
    """Return one image, turned upright, without transparency; raise UserError if it cannot be read."""
    try:
        with Image.open(path, formats=_FORMATS) as image:
            if image.width * image.height > LARGEST:
                raise UserError(f"{shown(path)} is too large an image: scale it down first")
            image = ImageOps.exif_transpose(image)
            if image.mode.startswith("I"):  # 16 bits of grey; convert() would clip them
                image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
            if image.has_transparency_data:
                return on_white(np.array(image.convert("RGBA")))
            return np.array(image.convert("RGB"))
    except Image.DecompressionBombError as error:
        raise UserError(f"{shown(path)} is too large an image: scale it down first") from error
    except _ERRORS as error:
        raise UserError(f"{shown(path)} is damaged or cut short: get a complete copy of it") from error


def list_sequence(path: str | Path) -> list[Path]:
    """List the images of a folder by name, or of a pattern by number; raise UserError if there are none."""
    path = Path(path)
    if is_pattern(path):
        before, after = (
            re.escape(part) for part in (_NUMBER.split(path.name)[0], _NUMBER.split(path.name)[-1])
        )
        name = re.compile(f"{before}(\\d+){after}")
        folder = path.parent.iterdir() if path.parent.is_dir() else ()
        numbered = sorted((int(m[1]), p) for p in folder if (m := name.fullmatch(p.name)) and p.is_file())
        found, advice = [p for _, p in numbered], "no files have such names"
    else:
        files = sorted(p for p in path.iterdir() if not p.name.startswith(".") and p.is_file())
        found = [p for p in files if p.suffix.lower() in _READ]
        advice = "it is a folder without images"
        if other := [p for p in files if p.suffix.lower() in _NOT_READ]:
            raise UserError(
                f"{shown(other[0])} is a picture of a kind that is not read in a folder: convert it to .png, "
                "or take it away"
            )
    if not found:
        raise UserError(f"{shown(path)} cannot be read, {advice}: give a video, an image or images")
    return found


def read(paths: Sequence[Path], size: tuple[int, int] | None = None) -> Iterator[np.ndarray]:
    """Yield the images as frames of one size; with `size` (width, height) each is resized, bicubic.

    Raises UserError where one cannot be read, or has another size than the first and none is given.
    """
    shape = None
    for path in paths:
        frame = load(path)
        shape = shape or frame.shape
        if size is None and frame.shape != shape:
            raise UserError(
                f"{shown(path)} is {frame.shape[1]}x{frame.shape[0]} but the images before it are "
                f"{shape[1]}x{shape[0]}: give all images of the folder one size"
            )
        yield frame if size is None else resize(frame, *size)


def resize(frame: np.ndarray, width: int, height: int) -> np.ndarray:
    """Return one uint8 frame [h, w, 3] at another size, bicubic."""
    return np.asarray(Image.fromarray(frame).resize((width, height), Image.BICUBIC))


def save(path: Path, frame: np.ndarray, name: str | Path, quality: int | None = None) -> None:
    """Write one image to `path` in the format of a file called `name`; `quality` is that of a JPEG."""
    row = formats.find(name)
    options = row.coding.options if row.coding.exact else {**row.coding.options, "quality": quality}
    Image.fromarray(frame).save(path, format=row.name, **options)


def save_small(path: Path, frame: np.ndarray, longest: int, quality: int) -> None:
    """Write a JPEG of a frame, uint8 [h, w, 3], scaled down to `longest` pixels of its longer side."""
    image = Image.fromarray(frame)
    image.thumbnail((longest, longest))
    image.save(path, quality=quality)


def encode_jpeg(frame: np.ndarray, quality: int) -> bytes:
    """Encode a frame, uint8 [h, w, 3], as JPEG; `quality` is 1 to 100."""
    file = BytesIO()
    Image.fromarray(frame).save(file, "JPEG", quality=quality)
    return file.getvalue()


def decode_jpeg(data: bytes, size: tuple[int, int]) -> np.ndarray:
    """Decode a JPEG of a known size (width, height) to uint8 [h, w, 3].

    Raises:
        UserError: it is none, or of another size, which is found out before its pixels are decoded.
    """
    try:
        with Image.open(BytesIO(data), formats=["JPEG"]) as image:
            if image.size != size:
                raise UserError(f"the picture is {image.size[0]}x{image.size[1]}, not {size[0]}x{size[1]}")
            return np.asarray(image.convert("RGB"))
    except _ERRORS as error:
        raise UserError("what came is no picture, or a damaged one") from error


def place_folder(part: Path, folder: Path) -> None:
    """Rename a folder of written images to its final name; raise OSError if that is taken by now."""
    with suppress(FileNotFoundError):
        folder.rmdir()  # an empty one; os.replace does not do this on every system
    part.replace(folder)


def remove(part: Path) -> None:
    """Remove an unfinished file or folder."""
    with suppress(OSError):
        if part.is_dir():
            shutil.rmtree(part, ignore_errors=True)
        else:
            part.unlink()
