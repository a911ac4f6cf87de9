"""Colour profiles of stills, applied: sRGB comes out."""

import struct
from functools import lru_cache
from io import BytesIO

import numpy as np
from PIL import Image, ImageCms

_HEAD = 128  # bytes
_COLUMNS, _CURVES = (b"rXYZ", b"gXYZ", b"bXYZ"), (b"rTRC", b"gTRC", b"bTRC")
_SRGB = (0.3127, 0.3290, 0.64, 0.33, 0.30, 0.60, 0.15, 0.06)  # x and y of white, red, green and blue
_D50 = np.array([0.9642, 1.0, 0.8249])  # white of profiles
_BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
_UNUSABLE = (ImageCms.PyCMSError, OSError, ValueError, TypeError)


def to_srgb(image: Image.Image, profile: bytes) -> Image.Image:
    """Return an image, of mode L, RGB, CMYK or LAB, as sRGB; as it is without a profile that suits it.

    Colours are mapped as Pillow does by default, with the profile's perceptual intent.
    """
    if not profile and image.mode != "LAB":
        return image.convert("RGB")
    transform = _transform(profile, image.mode)
    if transform is None and image.mode == "L":  # grey, with the profile of a colour picture
        image = image.convert("RGB")
        transform = _transform(profile, image.mode)
    return image.convert("RGB") if transform is None else ImageCms.applyTransform(image, transform)


@lru_cache(4)
def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """Return the way to sRGB; None if the profile is damaged, of other colours, or sRGB itself."""
    try:
        source = ImageCms.createProfile("LAB") if mode == "LAB" else ImageCms.getOpenProfile(BytesIO(profile))
        transform = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB")
        if mode not in ("L", "RGB"):
            return transform
        trial = _trial().convert(mode)
        changed = np.asarray(ImageCms.applyTransform(trial, transform)).astype(int)
    except _UNUSABLE:
        return None
    # Within rounding of sRGB it is left alone, so that a stego to which a program added that profile opens.
    return None if np.abs(changed - np.asarray(trial.convert("RGB"))).max() <= 1 else transform


def of_png(gamma: float, chromaticities: tuple[float, ...]) -> bytes:
    """Return a profile (ICC.1:2001) for the chunks gAMA and cHRM of a PNG; none where they mean sRGB.

    Args:
        gamma: of the file, 0.45455 for sRGB; 0: not said.
        chromaticities: x and y of white, red, green and blue; empty: those of sRGB.
    """
    points = np.reshape(chromaticities or _SRGB, (4, 2))
    if gamma <= 0 or (points <= 0).any():
        return b""
    if abs(gamma - 1 / 2.2) < 0.01 and np.abs(points.ravel() - _SRGB).max() < 0.005:
        return b""
    white, *primaries = np.column_stack([points, 1 - points.sum(1)]) / points[:, 1:]
    to_xyz = np.transpose(primaries)
    to_xyz = to_xyz * np.linalg.solve(to_xyz, white)
    adapted = np.linalg.solve(
        _BRADFORD, (_BRADFORD @ _D50 / (_BRADFORD @ white))[:, None] * (_BRADFORD @ to_xyz)
    )
    curve = b"curv" + struct.pack(">4xIH", 1, min(round(256 / gamma), 2**16 - 1))
    tags = {
        name: b"XYZ " + bytes(4) + _fixed(column) for name, column in zip(_COLUMNS, adapted.T, strict=True)
    }
    return _in_file({**tags, **dict.fromkeys(_CURVES, curve)})


def _fixed(numbers: np.ndarray) -> bytes:
    return struct.pack(f">{len(numbers)}i", *np.round(65536 * numbers).astype(int))


def _in_file(tags: dict[bytes, bytes]) -> bytes:
    """Return a profile of a display with these tags, from RGB to XYZ."""
    place, table, data = _HEAD + 4 + 12 * len(tags), struct.pack(">I", len(tags)), b""
    for name, content in tags.items():
        table += name + struct.pack(">II", place + len(data), len(content))
        data += content + bytes(-len(content) % 4)
    head = struct.pack(">I4xI", place + len(data), 0x02400000) + b"mntrRGB XYZ " + bytes(12) + b"acsp"
    head += bytes(28) + _fixed(_D50)
    return head.ljust(_HEAD, b"\0") + table + data


def _trial() -> Image.Image:
    """Return colours from all over RGB, and all greys."""
    steps = np.arange(0, 256, 15)
    colours = np.stack(np.meshgrid(steps, steps, steps), -1).reshape(-1, 3)
    greys = np.repeat(np.arange(256)[:, None], 3, axis=1)
    return Image.fromarray(np.concatenate([colours, greys]).astype(np.uint8)[None])
