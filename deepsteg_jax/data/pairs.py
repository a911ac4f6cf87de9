"""Batches of covers and secrets, each a pure function of the seed and the step."""

import os
from collections.abc import Callable, Iterator

import numpy as np
import tensorflow as tf
from ml_collections import ConfigDict

from deepsteg_jax.data.examples import Source, central_draws, random_draws
from deepsteg_jax.errors import UserError

_COVER, _SECRET = 0, 1  # numbers of the two streams


def create_pairs(
    config: ConfigDict, *, seed: int, batch_size: int, start_step: int = 0, train: bool = True
) -> Iterator[dict[str, np.ndarray]]:
    """Create an iterator of batches of covers and secrets.

    In training it never ends: both streams pass over all examples in a new random order every epoch,
    independently of each other, with random augmentation. In evaluation it makes one pass in a fixed order
    without augmentation; every example is once cover and once secret, and the last batch may be smaller.

    Nothing about the iterator needs saving: with `start_step=k` it yields exactly what an uninterrupted one
    yields from step k on, at no extra cost.

    Args:
        config: the `data` section; `source` is 'imagenet', 'images' or 'clips', and the function
            `open_<source>` lists the fields it uses.
        seed: of order and augmentation, at least 0.
        batch_size: pairs in a batch.
        start_step: the first step to yield.
        train: training or evaluation.

    Returns:
        An iterator of {"cover": ..., "secret": ...}, both uint8: [batch, h, w, 3] if `config.frames` is 1,
        else [batch, t, h, w, 3]. Reading from it raises UserError if an image turns out to be damaged.

    Raises:
        UserError: the data are missing or unreadable, or the source is unknown.
    """
    source = _open_source(config, train)
    first = start_step * batch_size
    examples = _train_examples(source, seed, first) if train else _eval_examples(source, first)
    options = tf.data.Options()
    options.autotune.enabled = False  # its thread can hold up the end of an iterator for minutes
    return _iterate(examples.batch(batch_size).prefetch(2).with_options(options), config)


def _open_source(config: ConfigDict, train: bool) -> Source:
    # Imported on use: the libraries behind the sources are slow to import and not all needed.
    match config.source:
        case "imagenet":
            from deepsteg_jax.data.imagenet import open_imagenet as open_source
        case "images":
            from deepsteg_jax.data.images import open_images as open_source
        case "clips":
            from deepsteg_jax.data.clips import open_clips as open_source
        case _:
            raise UserError(f"data.source is {config.source!r}: it must be 'imagenet', 'images' or 'clips'")
    return open_source(config, train)


def _train_examples(source: Source, seed: int, first: int) -> tf.data.Dataset:
    keys = {stream: _stream_keys(seed, stream) for stream in (_COVER, _SECRET)}

    def load(stream: int, number: tf.Tensor) -> tf.Tensor:
        order_key, draws_key = keys[stream]
        index = shuffled_index(order_key, number, source.size)
        return source.load(index, random_draws(draws_key, number))

    numbers = tf.data.Dataset.range(first, np.iinfo(np.int64).max)
    return _map(numbers, lambda n: {"cover": load(_COVER, n), "secret": load(_SECRET, n)})


def _eval_examples(source: Source, first: int) -> tf.data.Dataset:
    draws, size = central_draws(), source.size

    def load(number: tf.Tensor) -> dict[str, tf.Tensor]:
        partner = (number + size // 2) % size  # not itself, if there are at least two
        return {"cover": source.load(number, draws), "secret": source.load(partner, draws)}

    return _map(tf.data.Dataset.range(first, size), load)


def _map(numbers: tf.data.Dataset, load: Callable[[tf.Tensor], dict[str, tf.Tensor]]) -> tf.data.Dataset:
    return numbers.map(load, num_parallel_calls=os.cpu_count(), deterministic=True)


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


def _iterate(dataset: tf.data.Dataset, config: ConfigDict) -> Iterator[dict[str, np.ndarray]]:
    # A local name, because modules may be gone when an abandoned iterator is closed at exit.
    damage = (tf.errors.InvalidArgumentError, tf.errors.NotFoundError)
    try:
        yield from dataset.as_numpy_iterator()
    except damage as error:
        reason = str(error.message).splitlines()[0]
        raise UserError(f"data: an image in {config.path!r} cannot be read: {reason}") from error
