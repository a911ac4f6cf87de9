"""Parts common to all sources: the random numbers of one example, its crop window, scaling and flip."""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import tensorflow as tf
from ml_collections import ConfigDict

from deepsteg_jax.errors import UserError


class Draws(NamedTuple):
    """The random numbers of one example: float32 scalars in [0, 1)."""

    y: tf.Tensor
    x: tf.Tensor
    scale: tf.Tensor
    flip: tf.Tensor
    stride: tf.Tensor
    first: tf.Tensor


class Source(NamedTuple):
    """A set of examples with random access.

    Attributes:
        size: number of examples in one epoch.
        load: graph function from an int64 index in [0, size) and Draws to an example: a uint8 tensor
            [h, w, 3], or [t, h, w, 3] for more than one frame; of recordings a dictionary of tensors. It has
            no state and no randomness of its own.
        found: what it was made of, such as "33 clips".
    """

    size: int
    load: Callable[[tf.Tensor, Draws], tf.Tensor | dict[str, tf.Tensor]]
    found: str


def random_draws(key: int, number: tf.Tensor) -> Draws:
    """Return the draws of example `number` (int64 scalar): a pure function of both arguments."""
    seed = tf.stack([tf.constant(key, tf.int64), number])
    return Draws(*tf.unstack(tf.random.stateless_uniform([len(Draws._fields)], seed)))


def central_draws() -> Draws:
    """Return the draws that stand for no augmentation: centre, full scale, no flip, first frames."""
    return Draws(*(tf.constant(u) for u in (0.5, 0.5, 1.0, 1.0, 0.0, 0.0)))


def pick(u: tf.Tensor, count: tf.Tensor | int) -> tf.Tensor:
    """Turn `u` in [0, 1) into an int32 scalar in [0, count)."""
    return tf.cast(u * tf.cast(count, tf.float32), tf.int32)


def choose_window(size: tf.Tensor, config: ConfigDict, draws: Draws) -> tf.Tensor:
    """Choose the part of a picture that becomes the crop once it is scaled.

    Cutting first and scaling the cut gives the crop of the scaled picture without scaling all of it.

    Args:
        size: int32 [2], height and width of the picture.
        config: uses `height`, `width` and `min_scale`.
        draws: uses `y`, `x` and `scale`.

    Returns:
        int32 [4]: top, left, height, width; inside the picture, and of exactly the crop's size unless the
        picture is scaled.
    """
    crop = tf.constant([config.height, config.width], tf.float32)
    smallest = tf.maximum(tf.reduce_max(crop / tf.cast(size, tf.float32)), config.min_scale)
    scale = smallest + draws.scale * (tf.maximum(smallest, 1.0) - smallest)
    window = tf.clip_by_value(tf.cast(tf.round(crop / scale), tf.int32), 1, size)
    spare = size - window + 1
    return tf.stack([pick(draws.y, spare[0]), pick(draws.x, spare[1]), window[0], window[1]])


def cut_window(picture: tf.Tensor, window: tf.Tensor) -> tf.Tensor:
    """Cut a window [4] (see `choose_window`) out of a picture [h, w, 3]."""
    top, left, height, width = tf.unstack(window)
    return picture[top : top + height, left : left + width]


def finish(cut: tf.Tensor, config: ConfigDict, draws: Draws) -> tf.Tensor:
    """Scale a cut to the crop's size and flip it.

    Args:
        cut: uint8 [..., h, w, 3] with at most one leading axis, shared by all its frames.
        config: uses `height`, `width` and `flip`.
        draws: uses `flip`.

    Returns:
        uint8 [..., config.height, config.width, 3].
    """
    size = (config.height, config.width)
    fits = tf.reduce_all(tf.shape(cut)[-3:-1] == size)
    cut = tf.cond(fits, lambda: cut, lambda: _resize(cut, size))
    if config.flip:
        cut = tf.cond(draws.flip < 0.5, lambda: tf.reverse(cut, [-2]), lambda: cut)
    return tf.ensure_shape(cut, [*cut.shape[:-3], *size, 3])


def _resize(picture: tf.Tensor, size: tuple[int, int]) -> tf.Tensor:
    resized = tf.image.resize(picture, size, antialias=True)
    return tf.cast(tf.round(resized), tf.uint8)  # bilinear: never outside 0..255


def require_single_frame(config: ConfigDict) -> None:
    """Raise UserError if a source of still images is asked for clips."""
    if config.frames != 1:
        raise UserError(f"model.frames is {config.frames}, but images have one: use data.source = 'clips'")


def open_folder(path: str) -> Path:
    """Return `path` as an existing folder; raise UserError if there is none."""
    folder = Path(path).expanduser()
    if not path or not folder.is_dir():
        raise UserError(f"data.path: there is no folder {path!r}")
    return folder


def report_unreadable(bad: Sequence[Path], total: int, folder: Path) -> None:
    """Warn about files that were skipped; raise UserError if that leaves nothing."""
    if len(bad) == total:
        raise UserError(f"none of the {total} files in {folder} can be used; the first is {bad[0]}")
    if bad:
        logging.warning("skipped %d of %d files in %s; the first is %s", len(bad), total, folder, bad[0])
