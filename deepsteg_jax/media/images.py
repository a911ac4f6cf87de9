"""Still images and sequences of them, and animations; with `formats` and `profiles` all that knows Pillow.

A sequence is a folder of images, in the order of their names, or a pattern such as `frame_%05d.png`.
Frames are uint8 RGB arrays [h, w, 3]: upright, in sRGB and without transparency.
"""

import mmap
import os
import re
import shutil
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from fractions import Fraction
from io import BytesIO
from pathlib import Path
from stat import S_ISDIR, S_ISREG
from typing import NamedTuple

import numpy as np
import pillow_heif
from PIL import Image, ImageOps

from deepsteg_jax.errors import UserError
from deepsteg_jax.media import formats, heif, profiles, sdr
from deepsteg_jax.media.codecs import Colour
from deepsteg_jax.media.damage import is_cut

FOLDER_RATE = Fraction(25)  # frames per second of clips without a rate of their own
ANIMATION_TICK = Fraction(1, 1000)  # seconds
DEFAULT_PATTERN = "frame_%05d.png"
LARGEST = 2**26  # pixels of a frame: more than 8K video has

pillow_heif.register_heif_opener(thumbnails=False, depth_images=False, aux_images=False)

_READ = {row.suffix: row.name for row in formats.FORMATS if row.kind == formats.IMAGE}
_NOT_READ = {".jxl", ".tga", ".exr", ".hdr", ".svg", ".dpx", ".dng", ".cr2", ".cr3", ".nef", ".arw"}
_FORMATS = sorted(set(_READ.values()))  # Pillow would also open MPEG streams
# Pillow's readers of damaged files raise nearly everything.
_DAMAGE = (OSError, SyntaxError, ValueError, EOFError, RuntimeError, LookupError, TypeError, ArithmeticError)
# A damaged PNG can ask for more memory than there is.
_ERRORS = (*_DAMAGE, struct.error, MemoryError, Image.DecompressionBombError)
_ANIMATIONS = ["AVIF", "PNG", "WEBP"]
_NUMBER = re.compile(r"%(0\d+)?d")
_SUBFILE, _BITS, _PHOTOMETRIC, _ORIENTATION, _SAMPLE_FORMAT = 254, 258, 262, 274, 339  # tags of TIFF and Exif
_REDUCED_OR_MASK, _WHITE_IS_ZERO, _UNSIGNED = 0b101, 0, 1  # values of them
_NO_DELAY = 100  # milliseconds of a frame that says none, as browsers show it
_HEAD_OF_JPEG = 2**20  # bytes in which its size is
START_OF_JPEG, _SCAN_OF_JPEG, _END_OF_JPEG = b"\xff\xd8\xff", b"\xff\xda", b"\xff\xd9"


class Frame(NamedTuple):
    """A frame of an animation and its time."""

    frame: np.ndarray  # uint8 [h, w, 3]
    time: int  # in ANIMATION_TICKs
    duration: int


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
    if heif.is_still(path):
        return True  # FFmpeg would take one tile of it for a video
    try:
        with Image.open(path, formats=_FORMATS) as image:
            return not (heif.is_sequence(path) or _is_animated(image) or _is_motion_jpeg(image, path))
    except Image.UnidentifiedImageError:
        return False
    except _ERRORS:
        # Cut or damaged in the header: still an image if its name says so, and loading it will complain.
        return path.suffix.lower() in _READ


def is_animation(path: Path) -> bool:
    """Return whether a file is an animation that `read_animation` reads; FFmpeg reads GIF."""
    with suppress(*_ERRORS), Image.open(path, formats=_ANIMATIONS) as image:
        return _is_animated(image)
    return False


def is_pictures(path: str | Path) -> bool:
    """Return whether a path is an image, a sequence or an animation of this module: none has tracks."""
    return is_sequence(path) or is_image(path) or is_animation(path)


def _is_animated(image: Image.Image) -> bool:
    """Return whether an image moves. Pages, views and previews, which other formats have, do not."""
    if _hidden(image):
        return image.n_frames > 2
    return image.format in ("GIF", *_ANIMATIONS) and image.is_animated


def _hidden(image: Image.Image) -> int:
    """Return the number of frames that only programs show that know no animations: 0, or 1 in a PNG."""
    return int(getattr(image, "default_image", False))


def _is_motion_jpeg(image: Image.Image, path: Path) -> bool:
    """Return whether another JPEG of the same size follows at once, as in a stream without container."""
    if image.format != "JPEG" or {"exif", "xmp"} & set(image.info):  # a camera may add other takes of a photo
        return False
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        end = data.find(_END_OF_JPEG, data.find(_SCAN_OF_JPEG)) + len(_END_OF_JPEG)
        rest = data[end : end + _HEAD_OF_JPEG]
    if not rest.startswith(START_OF_JPEG):
        return False
    with Image.open(BytesIO(rest), formats=["JPEG"]) as following:
        return following.size == image.size


def on_white(rgba: np.ndarray) -> np.ndarray:
    """Lay uint8 [h, w, 4] on a white ground: transparent pixels have no colour to keep."""
    alpha = rgba[..., 3:].astype(np.uint16)
    return ((rgba[..., :3] * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)


@contextmanager
def _opened(path: Path, kinds: Sequence[str] = _FORMATS) -> Iterator[Image.Image]:
    """Open an image; raise UserError for any error in this context."""
    too_large = f"{shown(path)} is too large an image: scale it down first"
    try:
        with Image.open(path, formats=kinds) as image:
            if image.width * image.height > LARGEST:
                raise UserError(too_large)
            yield image
    except Image.DecompressionBombError as error:
        raise UserError(too_large) from error
    except _ERRORS as error:
        fault = "is damaged or cut short: get a complete copy of it"
        if heif.is_still(path):
            fault = "is damaged, cut short or of a kind that is not read: convert it to PNG where it was made"
        raise UserError(f"{shown(path)} {fault}") from error


def load(path: Path) -> np.ndarray:
    """Return one image; raise UserError if it cannot be read, or is not one picture of 8 or 16 bits."""
    with _opened(path) as image:
        if image.format == "TIFF":
            _find_page(image, path)
        elif _is_animated(image):
            raise UserError(f"{shown(path)} has {image.n_frames} frames: give one picture in its place")
        if _hidden(image):
            image.seek(1)
        image.load()  # which turns some kinds
        if image.format in ("AVIF", "HEIF") and is_cut(path):
            raise OSError("tiles are missing, which libheif does not mind")
        turn = image.getexif().get(_ORIENTATION, 1)
        frame = _finished(image, path, _colour(image, path))
        if image.format == "AVIF" and (crop := heif.describe(path, image.size)[1]):
            frame = frame[crop.top : crop.bottom, crop.left : crop.right].copy()
        return frame if turn == 1 else _upright(frame, turn)


def colour_of(path: Path) -> Colour:
    """Return the colour tags that hold for an image; raise UserError as `load` does."""
    with _opened(path) as image:
        return _colour(image, path)


def _colour(image: Image.Image, path: Path) -> Colour:
    if image.format == "PNG":
        return _png_colour(path)
    if image.format in ("AVIF", "HEIF") and not image.info.get("icc_profile"):
        return heif.describe(path, image.size)[0]
    return Colour()


def orientation(path: Path) -> int:
    """Return the orientation that Exif says, 1 to 8; raise UserError as `load` does."""
    with _opened(path) as image:
        return image.getexif().get(_ORIENTATION, 1)


def read_animation(path: Path) -> Iterator[Frame]:
    """Yield the frames of an animation; those without a duration last as long as in browsers."""
    time = exact = 0
    with _opened(path, _ANIMATIONS) as image:
        for number in range(_hidden(image), image.n_frames):
            image.seek(number)
            image.load()
            exact += image.info.get("duration", 0) or _NO_DELAY
            end = round(exact)
            yield Frame(_finished(image, path, _colour(image, path)), time, end - time)
            time = end


def _finished(image: Image.Image, path: Path, colour: Colour) -> np.ndarray:
    """Return an image in sRGB, on white, as it is stored."""
    profile = _profile(image, path)
    alpha = image.convert("RGBA").getchannel("A") if image.has_transparency_data else None
    if image.mode.startswith(("I", "F")):
        image = Image.fromarray(_eight_bits(image, path))
    elif image.mode in ("1", "LA", "La"):
        image = image.convert("LA").convert("L")
    elif image.mode not in ("L", "RGB", "CMYK", "LAB"):
        image = image.convert("RGB")
    if sdr.needs_mapping(colour):
        rgb = sdr.map_to_sdr(np.asarray(image.convert("RGB")), colour)
    else:
        rgb = np.array(profiles.to_srgb(image, profile))
    return rgb if alpha is None else on_white(np.dstack([rgb, np.asarray(alpha)]))


def _profile(image: Image.Image, path: Path) -> bytes:
    """Return the colour profile of an image; none: it is in sRGB."""
    if image.format == "JPEG2000":
        return heif.jp2_profile(path)
    said = image.info.get("icc_profile", b"")
    if said or image.format != "PNG" or "srgb" in image.info:
        return said
    return profiles.of_png(image.info.get("gamma", 0), image.info.get("chromaticity", ()))


def _eight_bits(image: Image.Image, path: Path) -> np.ndarray:
    """Return grey of 16 bits as uint8; raise UserError for samples without a black and a white."""
    tags = getattr(image, "tag_v2", {})
    bits = int(np.max(tags.get(_BITS, 16)))
    if image.mode == "F" or bits > 16 or tags.get(_SAMPLE_FORMAT, (_UNSIGNED,)) != (_UNSIGNED,):
        raise UserError(
            f"{shown(path)} has samples of 32 bits, or with a sign, and does not tell what of them is white: "
            "convert it to 8 or 16 bits first"
        )
    grey = np.asarray(image).astype(np.int32) >> bits - 8
    return (255 - grey if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO else grey).astype(np.uint8)


def _upright(frame: np.ndarray, turn: int) -> np.ndarray:
    """Turn a frame, uint8 [h, w, 3], by an orientation of Exif, 1 to 8."""
    image = Image.fromarray(frame)
    image.getexif()[_ORIENTATION] = turn
    return np.array(ImageOps.exif_transpose(image))


def _find_page(image: Image.Image, path: Path) -> None:
    """Go to the one page of a TIFF that is no preview; raise UserError if there are more, or none."""
    pages = []
    for number in range(image.n_frames):
        image.seek(number)
        if not image.tag_v2.get(_SUBFILE, 0) & _REDUCED_OR_MASK:
            pages.append(number)
    if not pages:
        raise UserError(f"{shown(path)} has a preview only that is read: develop it to TIFF or PNG first")
    if len(pages) > 1:
        raise UserError(f"{shown(path)} has {len(pages)} pages: give the one that is meant as its own file")
    image.seek(pages[0])


def _png_colour(path: Path) -> Colour:
    """Return the tags in numbers of a PNG (chunk cICP)."""
    with path.open("rb") as file:
        head = file.read(2**16)
    at = head.find(b"\0\0\0\4cICP", 0, head.find(b"IDAT") % (len(head) + 1)) + 8
    return Colour(primaries=head[at], transfer=head[at + 1]) if at > 8 else Colour()


def numbered(pattern: str, number: int) -> str:
    """Return the name with this number in place of the pattern's, such as %05d."""
    return _NUMBER.sub(lambda found: found[0] % number, pattern, count=1)


def has_one_number(pattern: str) -> bool:
    """Return whether a pattern has one place for a number."""
    return len(_NUMBER.findall(pattern)) == 1


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
    if hidden := [p for p in found if not os.access(p, os.R_OK)]:
        raise UserError(f"{shown(hidden[0])} cannot be read: no permission")
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


def encode_webp(frame: np.ndarray, quality: int) -> bytes:
    """Encode a frame, uint8 [h, w, 3], as lossy WebP; `quality` is 0 to 100."""
    file = BytesIO()
    Image.fromarray(frame).save(file, "WEBP", quality=quality)
    return file.getvalue()


def decode_image(data: bytes, size: tuple[int, int]) -> np.ndarray:
    """Decode a JPEG or WebP of a known size (width, height) to uint8 [h, w, 3].

    Raises:
        UserError: it is none, or of another size, which is found out before its pixels are decoded.
    """
    try:
        with Image.open(BytesIO(data), formats=["JPEG", "WEBP"]) as image:
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
