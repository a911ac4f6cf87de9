"""Luma and YCbCr by the standards that codecs use (ITU-R BT.601 and BT.709)."""

from functools import cache
from typing import NamedTuple

import numpy as np

LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # weights of R, G and B, BT.601: the default of codecs
MATRICES = ("bt601", "bt709", "bt601_full", "bt709_full")  # the matrix and the range
_RED_BLUE = {"bt601": (0.299, 0.114), "bt709": (0.2126, 0.0722)}  # weights in luma


class YCbCr(NamedTuple):
    """YCbCr = matrix @ RGB + offset; `back` are the gains of Y, of Cr in R, Cb in G, Cr in G and Cb in B."""

    matrix: np.ndarray  # [3, 3]
    offset: np.ndarray  # [3]
    back: np.ndarray  # [5]


@cache
def ycbcr(name: str) -> YCbCr:
    """Return one of MATRICES, limited (16 to 235, 16 to 240) or full range, for samples from 0 to 255."""
    red, blue = _RED_BLUE[name.removesuffix("_full")]
    green = 1 - red - blue
    black, luma, chroma = (0, 1, 1) if name.endswith("_full") else (16, 219 / 255, 224 / 255)
    y = np.array([red, green, blue])
    cb, cr = ((np.eye(3)[i] - y) / (2 - 2 * w) for i, w in ((2, blue), (0, red)))
    matrix = np.round(np.stack([luma * y, chroma * cb, chroma * cr]) * 2**15).astype(np.float32) / 2**15
    cr_red, cb_blue = 2 * (1 - red) / chroma, 2 * (1 - blue) / chroma
    back = np.array([1 / luma, cr_red, -blue / green * cb_blue, -red / green * cr_red, cb_blue])
    return YCbCr(matrix, np.array([black, 128, 128], np.float32), back)
