"""Colour profiles of stills, applied: sRGB comes out."""

from functools import lru_cache
from io import BytesIO

import numpy as np
from PIL import Image, ImageCms

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


def _trial() -> Image.Image:
    """Return colours from all over RGB, and all greys."""
    steps = np.arange(0, 256, 15)
    colours = np.stack(np.meshgrid(steps, steps, steps), -1).reshape(-1, 3)
    greys = np.repeat(np.arange(256)[:, None], 3, axis=1)
    return Image.fromarray(np.concatenate([colours, greys]).astype(np.uint8)[None])
