"""Differentiable proxies of lossy codecs, for `simulated.build`: YCbCr, JPEG and H.264.

Each maps (key, stego, parameter) to what the receiver decodes: float32 RGB in [0, 1], [h, w, 3] or
[t, h, w, 3], any h and w. Forward values are those of integers, rounded as the real thing rounds them;
gradients go straight through rounding and clipping (Bengio 2013). Inside, samples are on the scale 0 to 255.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange, reduce
from jaxtyping import Bool, Float

from deepsteg_jax.colour import YCbCr, ycbcr
from deepsteg_jax.dct import einsum, pad_to_blocks, plane_from_blocks, plane_to_blocks
from deepsteg_jax.shapes import Array, Scalar, Video

Range = Scalar | tuple[Scalar, ...]  # a number, or (low, high) to draw one from

BLOCK = 8
MACROBLOCK = 16

# JPEG's example tables (ITU-T T.81, K.1 and K.2), which libjpeg scales by quality.
_LUMA = """16 11 10 16 24 40 51 61 12 12 14 19 26 58 60 55 14 13 16 24 40 57 69 56 14 17 22 29 51 87 80 62
18 22 37 56 68 109 103 77 24 35 55 64 81 104 113 92 49 64 78 87 103 121 120 101 72 92 95 98 112 100 103 99"""
_CHROMA = """17 18 24 47 99 99 99 99 18 21 26 66 99 99 99 99 24 26 56 99 99 99 99 99 47 66 99 99 99 99 99 99
99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99"""
_TABLES = np.array([_LUMA.split(), _CHROMA.split()], np.float32)  # [2, 64]

# QP of chroma for QP of luma from 30 to 51 (ITU-T H.264, table 8-15).
_CHROMA_QP = [29, 30, 31, 32, 32, 33, 34, 34, 35, 35, 36, 36, 37, 37, 37, 38, 38, 38, 39, 39, 39, 39]
_CHROMA_QP = np.array([*range(30), *_CHROMA_QP], np.float32)
CHROMA_QP_OFFSET = -2  # x264's, for its psychovisual decisions
_ROUNDING = (1 / 3, 1 / 6)  # steps added before truncation: intra, inter (the values of JM and x264)


def straight_through(soft: Array, hard: Array) -> Array:
    """Return `hard` with the gradient of `soft`, arrays of one shape (Bengio 2013)."""
    return soft + jax.lax.stop_gradient(hard - soft)


def to_byte(x: Array) -> Array:
    """Clip to [0, 255] and round to whole numbers, straight through; any shape."""
    return straight_through(x, jnp.round(jnp.clip(x, 0, 255)))


def draw(key: jax.Array, parameter: Range) -> Array | float:
    """Return the parameter, or where it is (low, high) a random number between them, a scalar."""
    if isinstance(parameter, int | float):
        return parameter
    return jax.random.uniform(key, minval=parameter[0], maxval=parameter[1])


# Colours


def _yuv(rgb: Float[Array, "n h w 3"], kind: YCbCr) -> tuple[Float[Array, "n h w"], Float[Array, "n 2 h w"]]:
    """Return Y and C of RGB, not rounded."""
    y = einsum("nyxc,c->nyx", rgb, kind.matrix[0]) + kind.offset[0]
    return y, einsum("nyxc,dc->ndyx", rgb, kind.matrix[1:]) + kind.offset[1]


def _rgb(
    y: Float[Array, "n h w"], c: Float[Array, "n 2 h w"], kind: YCbCr, truncate: bool
) -> Float[Array, "n h w 3"]:
    """Return RGB in [0, 1] of Y and C, rounded to 8 bits.

    With `truncate` it is to the bit what swscale does on x86 for 4:2:0: each product in 16-bit fixed point,
    rounded down, so that the sums are too dark by half a level or more.
    """

    def multiply(x, gain):
        if not truncate:
            return gain * x
        return straight_through(gain * x, jnp.floor(x * (np.round(gain * 2**13) / 2**13)))

    y, u, v = multiply(y - kind.offset[0], kind.back[0]), c[:, 0] - 128, c[:, 1] - 128
    products = zip((v, u, v, u), kind.back[1:], strict=True)
    red, green_u, green_v, blue = (multiply(x, gain) for x, gain in products)
    return to_byte(jnp.stack([y + red, y + green_u + green_v, y + blue], axis=-1)) / 255


def _padded(stego: Array, size: int) -> Array:
    """Return 8-bit frames [n, H, W, 3] of [n, h, w, 3] or [h, w, 3] in [0, 1]; `size` divides H and W."""
    frames = pad_to_blocks(stego.reshape(-1, *stego.shape[-3:]), size)
    return to_byte(255 * frames)


def _crop(frames: Array, like: Array) -> Array:
    """Cut off the padding: [n, H, W, 3] to the shape of `like`."""
    h, w = like.shape[-3:-1]
    return frames[:, :h, :w].reshape(like.shape)


def _halve_rows(c: Array) -> Array:
    """Halve the second last axis as swscale's bilinear scaler does: weights 1, 3, 3, 1 over 8, to 8 bits.

    On x86 its products have 3 binary digits after the point, and those after that are cut off.
    """
    even, odd = c[..., 0::2, :], c[..., 1::2, :]
    above = jnp.concatenate([even[..., :1, :], odd[..., :-1, :]], axis=-2)
    below = jnp.concatenate([even[..., 1:, :], odd[..., -1:, :]], axis=-2)
    products = (above, 3 * even, 3 * odd, below)
    return straight_through(sum(products) / 8, jnp.floor((sum(map(jnp.floor, products)) + 5) / 8))


def _pairs(x: Array, axis: int) -> Array:
    """Return the mean of neighbours along a negative axis."""
    pattern = {-1: "... h (w 2) -> ... h w", -2: "... (h 2) w -> ... h w"}[axis]
    return reduce(x, pattern, "mean")


def _repeat(c: Array) -> Array:
    """Repeat every sample of [..., h, w] as a square of four."""
    *rest, h, w = c.shape
    squares = jnp.broadcast_to(c[..., :, None, :, None], (*rest, h, 2, w, 2))
    return rearrange(squares, "... h i w j -> ... (h i) (w j)")


def _to_420(
    rgb: Float[Array, "n h w 3"], kind: YCbCr
) -> tuple[Float[Array, "n h w"], Float[Array, "n 2 h//2 w//2"]]:
    """Return 8-bit Y and C of 8-bit RGB, as swscale's bilinear scaler makes them."""

    def rounded(x):  # to the 6 binary digits after the point that there are in between
        return straight_through(x, jnp.floor(64 * x + 0.5) / 64)

    y, c = _yuv(rgb, kind)
    y = straight_through(y, jnp.floor(rounded(y) + 0.5))
    return y, _halve_rows(rounded(_pairs(c, -1)))


def yuv420(key: jax.Array, stego: Video, name: str) -> Video:
    """Go to 8-bit YCbCr with chroma of half the size and back, as FFmpeg's swscale without any options.

    Chroma comes back without interpolation. `name`: one of MATRICES; "bt601" is what FFmpeg takes for RGB.
    """
    del key
    kind = ycbcr(name)
    y, c = _to_420(_padded(stego, 2), kind)
    return _crop(_rgb(y, _repeat(c), kind, truncate=True), stego)


def yuv444(key: jax.Array, stego: Video, name: str) -> Video:
    """Go to 8-bit YCbCr of full size and back, shape and range as in `yuv420`; `name`: one of MATRICES."""
    del key
    kind = ycbcr(name)
    y, c = map(to_byte, _yuv(_padded(stego, 1), kind))
    return _crop(_rgb(y, c, kind, truncate=False), stego)


# JPEG


def jpeg_tables(quality: Array | float) -> Array:
    """Return libjpeg's quantiser steps, [2 (luma, chroma), 64 row by row], for a quality from 1 to 100."""
    percent = jnp.where(quality < 50, jnp.floor(5000 / quality), 200 - 2 * quality)
    return jnp.clip(jnp.floor((_TABLES * percent + 50) / 100), 1, 255)


def _quantise_blocks(planes: Array, steps: Array) -> Array:
    """Round the DCT of [..., h, w] to multiples of `steps` [64] and go back to 8 bits.

    libjpeg's DCT gives whole eighths; ties are rounded away from 0.
    """
    # Averaged over a step around the input, rounding has slope 1: straight through is its smooth gradient.
    x = plane_to_blocks(planes - 128, BLOCK)
    levels = jnp.sign(x) * jnp.floor((jnp.abs(jnp.round(8 * x)) / 8 + steps / 2) / steps)
    return to_byte(plane_from_blocks(straight_through(x, steps * levels), BLOCK) + 128)


def _quarters(c: Array) -> Array:
    """Average 2x2 samples, [..., h, w] -> [..., h/2, w/2]; as in libjpeg, ties go down and up by turns."""
    mean = _pairs(_pairs(c, -1), -2)
    bias = jnp.where(jnp.arange(mean.shape[-1]) % 2 == 0, 0.25, 0.5)
    return straight_through(mean, jnp.floor(mean + bias))


def _triangle(c: Array, axis: int) -> Array:
    """Double an axis as libjpeg's "fancy" upsampling does: 3/4 of the near sample, 1/4 of the next."""
    c = jnp.moveaxis(c, axis, -1)
    left = jnp.concatenate([c[..., :1], c[..., :-1]], axis=-1)
    right = jnp.concatenate([c[..., 1:], c[..., -1:]], axis=-1)
    doubled = jnp.stack([3 * c + left, 3 * c + right], axis=-1) / 4
    return jnp.moveaxis(doubled.reshape(*c.shape[:-1], -1), -1, axis)


def _jpeg(key: jax.Array, stego: Video, quality: Range, halved: bool) -> Video:
    kind = ycbcr("bt601_full")
    luma_steps, chroma_steps = jpeg_tables(jnp.round(draw(key, quality)))
    y, c = map(to_byte, _yuv(_padded(stego, MACROBLOCK if halved else BLOCK), kind))
    if halved:
        c = _quarters(c)
    y, c = _quantise_blocks(y, luma_steps), _quantise_blocks(c, chroma_steps)
    if halved:
        h, w = stego.shape[-3:-1]
        c = c[..., : (h + 1) // 2, : (w + 1) // 2]  # the padding of a file is not interpolated with
        c, y = to_byte(_triangle(_triangle(c, -2), -1)), y[:, : h + h % 2, : w + w % 2]
    return _crop(_rgb(y, c, kind, truncate=False), stego)


def jpeg(key: jax.Array, stego: Video, quality: Range) -> Video:
    """Encode as JPEG (ITU-T T.81) with chroma of half the size, as libjpeg and Pillow do, and decode.

    Full-range BT.601, libjpeg's tables and its triangle filter for chroma. `quality`: 1 to 100, or (low,
    high) to draw a whole one from. Each frame is a picture of its own.
    """
    return _jpeg(key, stego, quality, halved=True)


def jpeg444(key: jax.Array, stego: Video, quality: Range) -> Video:
    """Do as `jpeg` with chroma of full size; arguments, shape and range are the same."""
    return _jpeg(key, stego, quality, halved=False)


# H.264


def step_of(qp: Array) -> Array:
    """Return the quantiser step of an orthonormal 8-bit transform: doubles every 6 QP, 1 at QP 4 (H.264)."""
    return 2 ** ((qp - 4) / 6)


def chroma_qp(qp: Array) -> Array:
    """Return chroma's QP for luma's, 0 to 51, by H.264 table 8-15 with x264's offset; any shape."""
    return jnp.interp(qp + CHROMA_QP_OFFSET, np.arange(len(_CHROMA_QP), dtype=np.float32), _CHROMA_QP)


def quantise(residual: Array, step: Array | float, rounding: Array | float) -> Array:
    """Quantise with a dead zone: truncate |residual| / step + rounding (0 to 1/2).

    Its gradient is that of its mean over a step around the input: 1, but 0 within 1/2 - rounding steps of 0,
    where a P frame leaves what it shows to the frame before.
    """
    size = jnp.abs(residual) / step
    hard = jnp.sign(residual) * jnp.floor(size + rounding) * step
    return straight_through(jnp.where(size < 0.5 - rounding, 0, residual), hard)


def intra_frames(key: jax.Array, frames: int, gop: int | None = None) -> Array:
    """Mark the I frames, bool [frames]: the first, or one in `gop` from a random one on."""
    if gop is None:
        return jnp.arange(frames) == 0
    return (jnp.arange(frames) + jax.random.randint(key, (), 0, gop)) % gop == 0


def adaptive_qp(y: Float[Array, "t h w"], c: Float[Array, "t 2 h//2 w//2"]) -> Float[Array, "t h//16 w//16"]:
    """Return the additions to QP of x264's adaptive quantisation (aq-mode 1).

    Flat macroblocks get a lower QP, busy ones a higher.
    """

    def energy(planes, size):
        x = rearrange(planes, "... (y i) (x j) -> ... y i x j", i=size, j=size)
        return size**2 * jnp.var(x, axis=(-3, -1))

    total = energy(y, MACROBLOCK) + jnp.sum(energy(c, BLOCK), axis=1)
    return 1.0397 * (jnp.log2(jnp.maximum(jax.lax.stop_gradient(total), 1)) - 14.427)


def _encode_group(
    coefficients: Float[Array, "t blocks 64"], steps: Float[Array, "t blocks 1"], intra: Bool[Array, " t"]
) -> Float[Array, "t blocks 64"]:
    """Encode a group of frames; return the decoded coefficients.

    Each frame is predicted from the decoded one before it, without motion, except where `intra` is true and
    at the start. Where the quantised residual is zero, the error of the frame before stays.
    `steps`: quantiser step of each block.
    """
    rounding = jnp.where(intra.at[0].set(True), *_ROUNDING)

    def encode(reference, inputs):
        x, step, is_intra, added = inputs
        prediction = jnp.where(is_intra, 0, reference)
        decoded = prediction + quantise(x - prediction, step, added)
        return decoded, decoded

    start, unroll = jnp.zeros_like(coefficients[0]), min(len(coefficients), 4)
    return jax.lax.scan(encode, start, (coefficients, steps, intra, rounding), unroll=unroll)[1]


def _block_steps(qps: Array) -> Array:
    """Return quantiser steps of all luma, then all chroma blocks, [t, blocks, 1], of macroblocks' QP."""
    luma, chroma = step_of(_repeat(qps)), step_of(chroma_qp(qps))
    parts = [x.reshape(len(qps), -1) for x in (luma, chroma, chroma)]
    return jnp.concatenate(parts, axis=1)[..., None]


class Quality(NamedTuple):
    """QP of I and P frames at a quality q: gain * q + offset; `adaptive`: more or less by macroblock."""

    intra: tuple[float, float]
    inter: tuple[float, float]
    adaptive: bool


# Fitted to PSNR and error spectra of x264, preset `medium`, on training clips of 448x256. The gains of P
# frames (and of the B frames that they stand for) are below 1 because x264 compensates motion: the worse the
# quality, the more of a frame it leaves as predicted. So with its intra prediction.
_QP = Quality((0.95, -2.5), (0.83, 2.5), False)
_CRF = Quality((1, 0.5), (0.85, 4.5), True)


def _encode(key: jax.Array, stego: Array, parameter: Range, scale: Quality) -> Array:
    """Encode I and P frames at a quality, or at (low, high) or (low, high, frames of a GOP); decode them."""
    qualities, gop = (parameter[:2], parameter[2:]) if isinstance(parameter, tuple) else (parameter, ())
    kind = ycbcr("bt601")
    y, c = _to_420(_padded(stego, MACROBLOCK), kind)
    t, h, w = y.shape
    intra = intra_frames(jax.random.fold_in(key, 1), t, *gop)
    quality = draw(key, qualities)
    qps = jnp.where(intra, *(gain * quality + offset for gain, offset in scale[:2]))[:, None, None]
    qps = jnp.broadcast_to(qps, (t, h // MACROBLOCK, w // MACROBLOCK))
    qps = jnp.clip(qps + adaptive_qp(y, c) if scale.adaptive else qps, 0, 51)
    blocks = [plane_to_blocks(x - 128, BLOCK) for x in (y, c)]
    luma_blocks, chroma_blocks = blocks[0].shape, blocks[1].shape
    blocks = [x.reshape(t, -1, BLOCK * BLOCK) for x in blocks]
    decoded = _encode_group(jnp.concatenate(blocks, axis=1), _block_steps(qps), intra)
    luma, chroma = jnp.split(decoded, [blocks[0].shape[1]], axis=1)
    y = to_byte(plane_from_blocks(luma.reshape(luma_blocks), BLOCK) + 128)
    c = to_byte(plane_from_blocks(chroma.reshape(chroma_blocks), BLOCK) + 128)
    return _crop(_rgb(y, _repeat(c), kind, truncate=True), stego)


def video_codec(key: jax.Array, stego: Video, qp: Range) -> Video:
    """Encode as H.264 at a constant quantiser parameter, x264's `qp`, in 4:2:0, I then P frames; decode.

    An 8x8 transform of all blocks, dead zones of 2/3 (I) and 5/6 (P) of a step; no motion compensation, no
    intra prediction, no B frames, no loop filter, no rate-distortion optimisation. Fitted to clean pictures:
    hidden symbols meet up to 1.7 times the error in x264 (experiments/channels.py): train above it.

    Args:
        key: draws the QP of the group and the position of the I frame.
        stego: [h, w, 3], an I frame, or [t, h, w, 3], a group.
        qp: x264's, 0 to 51; see Quality for the one that each frame gets. (low, high) draws it uniformly.
            (low, high, frames) also starts the group anywhere in a GOP of that many frames: where no I frame
            is in sight, the first frame stands for all P frames before it and has their QP.
    """
    return _encode(key, stego, qp, _QP)


def video_crf(key: jax.Array, stego: Video, crf: Range) -> Video:
    """Do as `video_codec` at a constant rate factor, x264's `crf` (0 to 51), with adaptive quantisation."""
    return _encode(key, stego, crf, _CRF)
