"""A folder of still images."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import tensorflow as tf
from ml_collections import ConfigDict

from deepsteg_jax import media
from deepsteg_jax.data.examples import (
    Draws,
    Source,
    choose_window,
    cut_window,
    finish,
    open_folder,
    report_unreadable,
    require_single_frame,
)
from deepsteg_jax.errors import UserError

_SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"BM", b"RIFF")
_DCT = "INTEGER_ACCURATE"  # the default is several levels off


def open_images(config: ConfigDict, train: bool) -> Source:
    """Open a folder of images, searched recursively and sorted by path.

    Args:
        config: uses `path`, `height`, `width`, `frames` (must be 1), `min_scale`, `flip` and `cache`: with it
            all images are decoded now and kept in memory (3 bytes a pixel), without it on every visit.
        train: not used; training and evaluation have folders of their own.

    Returns:
        A Source of uint8 [height, width, 3].

    Raises:
        UserError: no such folder, no images in it, none of them readable, or more than one frame asked for.
    """
    require_single_frame(config)
    folder = open_folder(config.path)
    paths = sorted(p for p in folder.rglob("*") if media.is_training_image(p) and p.is_file())
    if not paths:
        raise UserError(f"data.path: no PNG, BMP, JPEG or WebP images in {folder}")
    return _open_cached(paths, folder, config) if config.cache else _open_files(paths, folder, config)


def decode_crop(data: tf.Tensor, config: ConfigDict, draws: Draws) -> tf.Tensor:
    """Decode one crop of an encoded image (string scalar) to uint8 [height, width, 3]; grey becomes RGB."""

    def crop_jpeg() -> tf.Tensor:
        window = choose_window(tf.io.extract_jpeg_shape(data)[:2], config, draws)
        # Skips most work outside the window.
        return tf.io.decode_and_crop_jpeg(data, window, channels=3, dct_method=_DCT)

    def crop_other() -> tf.Tensor:
        picture = _decode_other(data)
        return cut_window(picture, choose_window(tf.shape(picture)[:2], config, draws))

    return finish(tf.cond(tf.io.is_jpeg(data), crop_jpeg, crop_other), config, draws)


def _decode_other(data: tf.Tensor) -> tf.Tensor:
    return tf.ensure_shape(tf.io.decode_image(data, 3, expand_animations=False), [None, None, 3])


def _open_files(paths: list[Path], folder: Path, config: ConfigDict) -> Source:
    good = [p for p in paths if _has_signature(p)]
    report_unreadable(sorted(set(paths) - set(good)), len(paths), folder)
    names = tf.constant([str(p) for p in good])

    def load(index: tf.Tensor, draws: Draws) -> tf.Tensor:
        return decode_crop(tf.io.read_file(names[index]), config, draws)

    return Source(len(good), load, f"{len(good):,} images")


def _has_signature(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(8).startswith(_SIGNATURES)
    except OSError:
        return False


def _open_cached(paths: list[Path], folder: Path, config: ConfigDict) -> Source:
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        decoded = list(pool.map(_decode_file, paths))
    report_unreadable([p for p, d in zip(paths, decoded, strict=True) if d is None], len(paths), folder)
    pictures = [d for d in decoded if d is not None]
    sizes = tf.constant([p.shape[:2] for p in pictures], tf.int32)

    def cut(index: np.ndarray, window: np.ndarray) -> np.ndarray:
        top, left, height, width = window.tolist()
        return np.ascontiguousarray(pictures[index][top : top + height, left : left + width])

    def load(index: tf.Tensor, draws: Draws) -> tf.Tensor:
        window = choose_window(sizes[index], config, draws)
        part = tf.numpy_function(cut, [index, window], tf.uint8, stateful=False)
        return finish(tf.ensure_shape(part, [None, None, 3]), config, draws)

    return Source(len(pictures), load, f"{len(pictures):,} images")


def _decode_file(path: Path) -> np.ndarray | None:
    try:
        data = tf.io.read_file(str(path))
        jpeg = tf.io.is_jpeg(data)
        picture = tf.io.decode_jpeg(data, 3, dct_method=_DCT) if jpeg else _decode_other(data)
        return picture.numpy()
    except tf.errors.OpError:
        return None
