"""Batches of covers and secrets, or of recordings, each a pure function of the seed and the step."""

import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from ml_collections import ConfigDict

from deepsteg_jax.data.examples import Draws, Source, central_draws, random_draws
from deepsteg_jax.errors import UserError

_FIELDS = {  # that one source alone has
    "imagenet": ("train_split", "validation_split"),
    "images": ("cache",),
    "clips": ("max_stride", "cache_height", "cache_width", "max_frames"),
}

_FOREVER = np.iinfo(np.int64).max

Batch = dict[str, np.ndarray]


class Share(NamedTuple):
    """The part of every batch that one of several processes reads: examples are dealt out in order."""

    process: int = 0
    processes: int = 1

    def of(self, batch_size: int) -> int:
        """Return the number of examples of this process in a batch."""
        return batch_size // self.processes

    def number(self, local: tf.Tensor | int, batch_size: int) -> tf.Tensor | int:
        """Return the number in the whole stream of this process's example `local` (int64 scalar or int)."""
        size = self.of(batch_size)
        return local // size * batch_size + self.process * size + local % size


WHOLE = Share()  # of a process that is alone


def section(config: ConfigDict) -> ConfigDict:
    """Return section `data`; its examples are as long as the model's groups unless it says otherwise."""
    return ConfigDict({"frames": config.model.get("frames"), **config.data})


def create_pairs(
    config: ConfigDict,
    *,
    seed: int,
    batch_size: int,
    start_step: int = 0,
    share: Share = WHOLE,
    announce: Callable[[str], Any] = lambda line: None,
) -> Iterator[Batch]:
    """Create an endless iterator of batches of covers and secrets, or of recordings, for training.

    The covers, the secrets and each kind of recordings are a stream. Every stream passes over all its
    examples in a new random order every epoch, independently of the others, with random augmentation.

    Nothing about the iterator needs saving: with `start_step=k` it yields exactly what an uninterrupted one
    yields from step k on, at no extra cost. The batches of all shares of a step, one after the other, are the
    batch of a single process.

    Args:
        config: from `section`; `source` is 'imagenet', 'images', 'clips' or 'recordings', and the function
            `open_<source>` lists the fields it uses. `secret_path`, where there is one, holds the secrets.
            `growing`, where there is one, holds pairs (step, side): crops are side x side until that step,
            and `height` x `width` after the last.
        seed: of order and augmentation, at least 0.
        batch_size: pairs in a batch, over all processes.
        start_step: the first step to yield.
        share: which part of every batch to yield.
        announce: called once with a line that tells the data found.

    Returns:
        An iterator of {"cover": ..., "secret": ...}, both uint8: [b, h, w, 3] if `config.frames` is 1, else
        [b, t, h, w, 3], with b = batch_size / processes; of recordings the arrays that `open_recordings`
        lists, with that axis before theirs. Reading from it raises UserError if an image turns out to be
        damaged.

    Raises:
        UserError: the data are missing or unreadable, the source is unknown, or `growing` is not in order.
    """
    stages = [stage for stage in _stages(config) if stage[0] > start_step]
    begins = [start_step, *(end for end, _ in stages)]
    batches = (
        _stage(crops, begin, end, seed, batch_size, share, announce if begin == start_step else None)
        for begin, (end, crops) in zip(begins, stages, strict=False)
    )
    return _one_after_the_other(next(batches), batches)  # the first now, so that bad data are refused here


def _one_after_the_other(first: Iterator[Batch], others: Iterable[Iterator[Batch]]) -> Iterator[Batch]:
    yield from first
    for batches in others:
        yield from batches


def _stages(config: ConfigDict) -> list[tuple[int, ConfigDict]]:
    """List (the step at which it ends, its config) of each size of crops."""
    growing = [(int(step), int(side)) for step, side in config.get("growing", ())]
    ends, sides = [step for step, _ in growing], [side for _, side in growing]
    if ends != sorted(set(ends)) or min(ends + sides, default=1) < 1:
        raise UserError(f"config.data.growing must be pairs (step, side) by rising step, not {growing}")
    crops = [ConfigDict(config.to_dict() | {"height": side, "width": side}) for side in sides]
    return list(zip([*ends, _FOREVER], [*crops, config], strict=True))


def _stage(
    config: ConfigDict,
    first: int,
    end: int,
    seed: int,
    batch_size: int,
    share: Share,
    announce: Callable[[str], Any] | None,
) -> Iterator[Batch]:
    streams = _open_streams(config, True)
    if announce:
        found = dict.fromkeys(source.found for source in streams if source)
        announce(f"data: {' and '.join(found)} in {config.path or 'the default folder'}")
    keys = [_stream_keys(seed, stream) for stream in range(len(streams))]

    def load(local: tf.Tensor) -> dict[str, tf.Tensor]:
        number, example = share.number(local, batch_size), {}
        for source, (order_key, draws_key) in zip(streams, keys, strict=True):
            if source:
                index = shuffled_index(order_key, number, source.size)
                example |= source.load(index, random_draws(draws_key, number))
        return example

    size = share.of(batch_size)
    return _iterate(tf.data.Dataset.range(first * size, min(end * size, _FOREVER)), load, size, config)


def has_validation(config: ConfigDict) -> bool:
    """Return whether the `data` section names data to validate on."""
    return bool(config.validation_split if config.source == "imagenet" else config.validation_path)


def create_validation(
    config: ConfigDict, *, batch_size: int, share: Share = WHOLE
) -> Callable[[], Iterator[Batch]]:
    """Open the validation data once and create a function that makes a pass over them.

    A pass has a fixed order and no augmentation. Every example is once cover and once secret; of recordings
    it takes the first frames and the central crop of every file, sorted by name, and where one kind has fewer
    files than the other, they come again, from the first one on.

    Args:
        config: the `data` section; `validation_path` (folders of images, clips or recordings; empty: `path`)
            or `validation_split` (ImageNet) names the data, `validation_secret_path` secrets of their own
            kind; the rest is as for `create_pairs`.
        batch_size: pairs in a batch, over all processes.
        share: which part of every batch to yield.

    Returns:
        A function without arguments that returns an iterator as `create_pairs` does, with `weight` besides:
        float32 [b], 1 for an example and 0 for what fills up the last batch.

    Raises:
        UserError: the data are missing or unreadable, or the source is unknown.
    """
    if config.source != "imagenet" and config.validation_path:
        paths = {"path": config.validation_path, "secret_path": config.get("validation_secret_path", "")}
        config = ConfigDict(config.to_dict() | paths)
    sources = [source for source in _open_streams(config, False) if source]
    draws, count = central_draws(), max(source.size for source in sources)

    def load(local: tf.Tensor) -> dict[str, tf.Tensor]:
        number = share.number(local, batch_size)
        example = {"weight": tf.cast(number < count, tf.float32)}
        for source in sources:
            example |= source.load(number % source.size, draws)
        return example

    size = share.of(batch_size)
    batches = -(-count // batch_size)
    return lambda: _iterate(tf.data.Dataset.range(batches * size), load, size, config)


def _open_streams(config: ConfigDict, train: bool) -> list[Source | None]:
    """Open the sources of an example's parts; the position of each decides its random numbers."""
    missing = [name for name in _FIELDS.get(config.source, ()) if name not in config]
    if missing:
        raise UserError(f"data.source = {config.source!r} needs data.{missing[0]}, which this config lacks")
    # Imported on use: the libraries behind the sources are slow to import and not all needed.
    match config.source:
        case "recordings":
            from deepsteg_jax.data.recordings import open_recordings

            return open_recordings(config)
        case "imagenet":
            from deepsteg_jax.data.imagenet import open_imagenet as open_source
        case "images":
            from deepsteg_jax.data.images import open_images as open_source
        case "clips":
            from deepsteg_jax.data.clips import open_clips as open_source
        case _:
            names = "'imagenet', 'images', 'clips' or 'recordings'"
            raise UserError(f"data.source is {config.source!r}: it must be {names}")
    source = open_source(config, train)
    if config.get("secret_path"):
        secrets = open_source(ConfigDict(config.to_dict() | {"path": config.secret_path}), train)
        return [_named("cover", source, 0), _named("secret", secrets, 0)]
    shift = 0 if train else source.size // 2  # two examples make a pair, if there are two
    return [_named("cover", source, 0), _named("secret", source, shift)]


def _named(name: str, source: Source, shift: int) -> Source:
    def load(index: tf.Tensor, draws: Draws) -> dict[str, tf.Tensor]:
        return {name: source.load((index + shift) % source.size, draws)}

    return Source(source.size, load, source.found)


def _stream_keys(seed: int, stream: int) -> tuple[int, int]:
    order_key, draws_key = np.random.SeedSequence((seed, stream)).generate_state(2, np.uint64) >> np.uint64(1)
    return int(order_key), int(draws_key)


def shuffled_index(key: int, number: tf.Tensor, size: int) -> tf.Tensor:
    """Return the index of example `number` (int64 scalar, counted over all epochs).

    Within an epoch of `size` numbers every index in [0, size) comes exactly once; nothing is stored and no
    other number is looked at.
    """
    seed = tf.stack([tf.constant(key, tf.int64), number // size])
    return tf.random.experimental.index_shuffle(number % size, seed, tf.constant(size - 1, tf.int64))


def _iterate(
    numbers: tf.data.Dataset, load: Callable[[tf.Tensor], dict], batch_size: int, config: ConfigDict
) -> Iterator[Batch]:
    # A local name, because modules may be gone when an abandoned iterator is closed at exit.
    damage = (tf.errors.DataLossError, tf.errors.InvalidArgumentError, tf.errors.NotFoundError)
    options = tf.data.Options()
    options.autotune.enabled = False  # its thread can hold up the end of an iterator for minutes
    load = tf.autograph.experimental.do_not_convert(load)  # takes a second and finds nothing to convert
    examples = numbers.map(load, num_parallel_calls=os.cpu_count(), deterministic=True)
    try:
        yield from examples.batch(batch_size).prefetch(2).with_options(options).as_numpy_iterator()
    except damage as error:
        reason = str(error.message).splitlines()[0]
        raise UserError(f"data: an image in {config.path!r} cannot be read: {reason}") from error
