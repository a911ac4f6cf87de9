"""Checks of outputs: every reason to refuse one, before any work starts."""

import errno
import os
import re
import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from fractions import Fraction
from pathlib import Path

from deepsteg_jax.errors import UserError
from deepsteg_jax.media import formats
from deepsteg_jax.media.codecs import RGB, Coding
from deepsteg_jax.media.damage import ERRORS
from deepsteg_jax.media.images import has_one_number, is_folder, is_pattern, is_sequence, shown
from deepsteg_jax.media.memory import Clip
from deepsteg_jax.media.planes import subsampling

# The devices of Windows.
_RESERVED = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[\d¹²³]) *(\..*)?", re.IGNORECASE)
_LONGEST_NAME = 200  # bytes


def check_output(
    path: str | Path | Clip,
    inputs: Iterable[str | Path | Clip] = (),
    image: bool = False,
    lossy: bool = False,
    size: tuple[int, int] | None = None,
    pixel_format: str = RGB,
) -> None:
    """Raise UserError unless `path` can take a lossless clip (with `image`: a lossless still image).

    Meant to be called before any work starts: the folder must exist and be writable, the path must not
    be one of `inputs`, and the suffix must be that of a lossless format of the right kind. Without
    `image` a new or empty folder, or a pattern in one, takes a sequence of images. With `lossy` H.264 in
    MP4, or JPEG, will do as well. `size` (width, height), where it is known, must suit the format, which
    must keep `pixel_format`: RGB, or that of planes, such as "yuv420p"; with `lossy` images take their RGB.
    """
    if isinstance(path, Clip):
        return
    target = Path(path)
    _check_name(target)
    if is_sequence(path) and not image:
        target = check_sequence(path, RGB if lossy else pixel_format)
    else:
        if is_folder(path):
            raise UserError(f"{shown(target)} is a folder: give the name of a file to write")
        row = check_suffix(target, image, lossy, RGB if image and lossy else pixel_format)
        if size is not None and image and max(size) > row.coding.largest:
            most = f"{row.suffix} takes at most {row.coding.largest} pixels a side"
            raise UserError(f"{shown(target)} cannot be the output: {most}; use .png")
        if size is not None and not image:
            check_size(target, row.coding(pixel_format, None), *size)
    check_place(target, inputs)


def check_place(path: str | Path, inputs: Iterable[str | Path | Clip] = ()) -> None:
    """Raise UserError unless a file, or a new folder, of that name can be written and is none of `inputs`."""
    _check_name(Path(path))
    target = destination(path)
    if not target.parent.is_dir():
        raise UserError(
            f"{shown(target)} cannot be written: the folder {shown(target.parent)} does not exist"
        )
    if not os.access(target.parent, os.W_OK | os.X_OK):
        raise UserError(
            f"{shown(target)} cannot be written: no permission in the folder {shown(target.parent)}"
        )
    if target.is_symlink() or not (target.is_file() or target.is_dir() or not target.exists()):
        raise UserError(f"{shown(target)} is a pipe, a device or a broken link: give the name of a file")
    if any(_same_file(target, Path(other)) for other in inputs):
        raise UserError(f"{shown(target)} is also an input: give the output another name")


def _check_name(path: Path) -> None:
    try:
        path.lstat()
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise UserError(f"{shown(path)} cannot be written: the name is too long") from error


def destination(path: str | Path) -> Path:
    """Return what is written for a path: the file or folder that a link leads to, else the path itself."""
    with suppress(OSError):  # the name is too long
        if Path(path).is_symlink():
            return Path(os.path.realpath(path))  # to a file that need not be there yet
    return Path(path)


def part_path(path: Path) -> Path:
    """Return a new temporary name beside `path`, for a file that is renamed to it when complete."""
    return path.with_name(f".{secrets.token_hex(4)}.part")  # short: `path` may be as long as names can be


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn errors of the disk into UserErrors about `path`."""
    try:
        yield
    except ERRORS as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(f"{shown(path)} cannot be written: {' '.join(reason.split())}") from error


def keeps_samples(path: str | Path | Clip) -> bool:
    """Return whether an output that may be lossy is exact: in memory, a folder, or by its format."""
    return isinstance(path, Clip) or is_folder(path) or formats.is_exact(path)


def takes_rgb_only(path: str | Path | Clip) -> bool:
    """Return whether an output is no video file: planes go there as RGB, which is not exact."""
    return isinstance(path, Clip) or is_sequence(path) or not formats.is_video(path)


def check_suffix(path: Path, image: bool, lossy: bool, pixel_format: str = RGB) -> formats.Format:
    """Return the format to write `path` in; raise UserError unless its suffix is that of one."""
    if image:
        _check_image(path, pixel_format)
    suffix, row = path.suffix.lower(), formats.find(path)
    kind = formats.IMAGE if image else formats.VIDEO
    wanted = formats.written(kind, lossy, pixel_format)
    if suffix in wanted:
        return row
    if row is None:
        reason = (
            f"{repr(suffix) + ' is not' if suffix else 'without a suffix it is not'} a known {kind} format"
        )
    elif row.kind != kind:
        reason = f"the result is {'an image' if image else 'a video'}, but {suffix} is a format for "
        reason += "videos" if image else "still images"
    elif lossy:
        reason = f"{suffix} files are only read"
    else:
        reason = f"{suffix} files are usually coded with loss, which would destroy the hidden secret"
    raise UserError(f"{shown(path)} cannot be the output: {reason}; use {' or '.join(wanted)}")


def check_size(path: Path, coding: Coding, width: int, height: int) -> None:
    """Raise UserError unless the coding takes frames of that size."""
    if min(height, width) < coding.smallest:
        raise UserError(f"{shown(path)}: {width}x{height} is too small for a video: give a folder for images")
    step_x, step_y = (1, 1) if coding.any_size else subsampling(coding.pixel_format)
    even = width // step_x * step_x, height // step_y * step_y
    if (width, height) != even:
        raise UserError(
            f"{shown(path)} cannot be the output: H.264 in {path.suffix} needs even sides and the frames are "
            f"{width}x{height}; use {' or '.join(formats.written(formats.VIDEO))}, or crop the cover first, "
            f"for example with ffmpeg -i IN -vf crop={even[0]}:{even[1]} OUT.mkv"
        )


def padded_size(path: str | Path | Clip, width: int, height: int) -> tuple[int, int]:
    """Return the size to which frames of a video of that name are padded where it needs even sides."""
    row = None if isinstance(path, Clip) or is_sequence(path) else formats.find(path)
    if row is None or row.kind != formats.VIDEO or row.coding is None or row.coding.any_size:
        return width, height
    return width + width % 2, height + height % 2


def check_aspect(path: Path, coding: Coding, aspect: Fraction | None) -> None:
    """Raise UserError unless pixels of that shape, width over height, can be noted."""
    if aspect not in (None, 1) and coding.aspect is None:
        raise UserError(
            f"{shown(path)} cannot be the output: {path.suffix} is written with square pixels and these "
            f"are {aspect.numerator}:{aspect.denominator}; use .mkv"
        )


def check_sequence(path: str | Path, pixel_format: str = RGB) -> Path:
    """Return the folder that a sequence of images goes to; raise UserError unless it is new or empty."""
    folder = Path(path).parent if is_pattern(path) else Path(path)
    wanted = formats.written(formats.IMAGE)
    _check_image(path, pixel_format)
    if is_pattern(path) and Path(path).suffix.lower() not in wanted:
        raise UserError(f"{shown(path)} cannot be the output: use {' or '.join(wanted)}")
    if is_pattern(path) and not has_one_number(Path(path).name):
        raise UserError(f"{shown(path)} cannot be the output: give one place for the number, such as %05d")
    if folder.is_dir() and not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        raise UserError(f"{shown(folder)} cannot be written: no permission in this folder")
    if folder.resolve() == Path.cwd() or (folder.is_dir() and any(folder.iterdir())):
        raise UserError(f"the folder {shown(folder)} has files in it: give a new or empty one for the images")
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{shown(folder)} is a file: give a folder for the images")
    return folder


def _check_image(path: str | Path, pixel_format: str) -> None:
    if pixel_format != RGB:
        use = " or ".join(formats.written(formats.VIDEO, pixel_format=pixel_format))
        raise UserError(f"{shown(path)} cannot be the output: images take RGB only; use {use}")


def _same_file(path: Path, other: Path) -> bool:
    if path.exists() and other.exists():
        return path.samefile(other)
    return path.resolve() == other.resolve()


def safe_name(name: str) -> str:
    """Return a sender's file name without folders, control characters and names of devices, not too long."""
    name = re.split(r"[/\\:]", name)[-1]
    name = "".join(c for c in name if c.isprintable() and c not in '<>"|?*')
    name = name.encode()[-_LONGEST_NAME:].decode("utf-8", "ignore").strip(" .")
    if _RESERVED.fullmatch(name):
        name = f"revealed{Path(name).suffix}"
    return name or "revealed"
