"""A folder of clips, decoded once and kept in memory."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import tensorflow as tf
from ml_collections import ConfigDict

from deepsteg_jax import media
from deepsteg_jax.data.examples import (
    Draws,
    Source,
    choose_window,
    finish,
    open_folder,
    pick,
    report_unreadable,
)
from deepsteg_jax.errors import UserError


def open_clips(config: ConfigDict, train: bool) -> Source:
    """Decode a folder of clips (video files and folders of frames, sorted by name) into memory.

    In training clips are drawn in turn, whatever their length, and an epoch has as many examples as the clips
    hold disjoint runs of `frames`. In evaluation there is one example per clip, its first frames.

    Args:
        config: uses `path`, `frames`, `max_stride`, `height`, `width`, `min_scale`, `flip`, `cache_height`,
            `cache_width` (size in memory: clips are scaled to cover it and cropped at the centre) and
            `max_frames` (frames kept of each clip).
        train: whether to keep `max_frames` frames of each clip or only its first `frames`.

    Returns:
        A Source of uint8 [frames, height, width, 3], without the first axis if `frames` is 1.

    Raises:
        UserError: no such folder, no clips in it, none of them readable and long enough, or sizes that
            contradict each other.
    """
    _check(config)
    folder = open_folder(config.path)
    paths = sorted(p for p in folder.iterdir() if _may_be_clip(p))
    if not paths:
        raise UserError(f"data.path: no video files and no folders of frames in {folder}")
    clips = _decode_all(paths, folder, config, train)
    size = sum(len(c) // config.frames for c in clips) if train else len(clips)
    return Source(size, _make_load(clips, config), f"{len(clips):,} clips")


def _check(config: ConfigDict) -> None:
    if config.height > config.cache_height or config.width > config.cache_width:
        raise UserError(
            "data.cache_height and data.cache_width must not be smaller than data.height and width"
        )
    if config.max_frames < config.frames:
        raise UserError(f"data.max_frames is {config.max_frames}, less than model.frames = {config.frames}")


def _may_be_clip(path: Path) -> bool:
    return not path.name.startswith(".") and (path.is_dir() or media.is_video(path))


def _decode_all(paths: list[Path], folder: Path, config: ConfigDict, train: bool) -> list[np.ndarray]:
    # Kept runs start at the beginning of the first clip, at the end of the last one and evenly in between:
    # not always at an opening.
    places = np.linspace(0, 1, len(paths)) if train else np.zeros(len(paths))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        decoded = list(pool.map(partial(_decode_clip, config=config, train=train), paths, places))
    report_unreadable([p for p, d in zip(paths, decoded, strict=True) if d is None], len(paths), folder)
    return [d for d in decoded if d is not None]


def _decode_clip(path: Path, position: float, config: ConfigDict, train: bool) -> np.ndarray | None:
    """Decode uint8 [n, cache_height, cache_width, 3]; None if unreadable or shorter than one example."""
    count = config.max_frames if train else config.frames
    try:
        info = media.probe(path)
        start = round(position * max(0, (info.frames or 0) - count))
        clip = _read(path, start, count, info, config)
        if len(clip) < config.frames and start:  # the file has fewer frames than its header says
            clip = _read(path, 0, count, info, config)
    except UserError:
        return None
    return clip if len(clip) >= config.frames else None


def _read(path: Path, start: int, count: int, info: media.Info, config: ConfigDict) -> np.ndarray:
    target = (config.cache_height, config.cache_width)
    scale = max(target[0] / info.height, target[1] / info.width)
    height, width = max(target[0], round(info.height * scale)), max(target[1], round(info.width * scale))
    top, left = (height - target[0]) // 2, (width - target[1]) // 2
    clip = np.empty((count, *target, 3), np.uint8)
    read = 0
    frames = media.read_frames(path, start, start + count, width, height)
    for read, frame in enumerate(islice(frames, count), 1):
        clip[read - 1] = frame[top : top + target[0], left : left + target[1]]
    return clip if read == count else clip[:read].copy()


def _make_load(clips: list[np.ndarray], config: ConfigDict) -> Callable[[tf.Tensor, Draws], tf.Tensor]:
    lengths = tf.constant([len(c) for c in clips], tf.int32)
    size = tf.constant([config.cache_height, config.cache_width], tf.int32)

    def cut(clip: np.ndarray, times: np.ndarray, window: np.ndarray) -> np.ndarray:
        first, last, stride = times.tolist()
        top, left, height, width = window.tolist()
        part = clips[clip][first : last + 1 : stride, top : top + height, left : left + width]
        return np.ascontiguousarray(part)

    def load(index: tf.Tensor, draws: Draws) -> tf.Tensor:
        clip = index % len(clips)
        times = _choose_times(lengths[clip], config, draws)
        window = choose_window(size, config, draws)
        part = tf.numpy_function(cut, [clip, times, window], tf.uint8, stateful=False)
        part = finish(tf.ensure_shape(part, [config.frames, None, None, 3]), config, draws)
        return part if config.frames > 1 else part[0]

    return load


def _choose_times(length: tf.Tensor, config: ConfigDict, draws: Draws) -> tf.Tensor:
    """Choose first frame, last frame and stride (int32 [3]) of an example in a clip of `length` frames."""
    gaps = config.frames - 1
    longest = tf.minimum(config.max_stride, (length - 1) // gaps) if gaps else 1
    stride = 1 + pick(draws.stride, longest)
    first = pick(draws.first, length - gaps * stride)
    return tf.stack([first, first + gaps * stride, stride])
