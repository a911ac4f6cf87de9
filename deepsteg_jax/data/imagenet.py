"""ImageNet 2012, as prepared by TensorFlow Datasets from archives that the user downloads."""

import struct
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds
from ml_collections import ConfigDict

from deepsteg_jax.data.examples import Draws, Source, require_single_frame
from deepsteg_jax.data.images import decode_crop
from deepsteg_jax.errors import UserError

_ARCHIVES = ("ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar")

_LENGTH = struct.Struct("<Q")
_CHECKSUMS = 4 + 4  # bytes, one after the length and one after the data
_SCAN_THREADS = 64  # they wait for the disk, not for a core


class Records(NamedTuple):
    """The files and offsets of n records; in tensors, since ImageNet has 1.28 million of them."""

    files: tf.Tensor  # string [number of files]
    file: tf.Tensor  # int32 [n], in `files`
    offset: tf.Tensor  # int64 [n], in bytes


def open_imagenet(config: ConfigDict, train: bool) -> Source:
    """Open the data set `imagenet2012`, preparing it first if only its archives are there.

    Nothing is ever downloaded. TFRecord files have no index, so the offset of every record is looked up here
    (a read of 8 bytes per record); after that any example is read directly, which keeps the order a pure
    function of the step.

    Args:
        config: uses `path` (data directory of TensorFlow Datasets, empty for its default), `train_split` and
            `validation_split` (such as 'train[:50000]'), `height`, `width`, `frames` (must be 1), `min_scale`
            and `flip`.
        train: which of the two splits to open.

    Returns:
        A Source of uint8 [height, width, 3].

    Raises:
        UserError: the archives are missing, the split does not exist, the data are not in TFRecord files or
            in damaged ones, or more than one frame is asked for.
    """
    require_single_frame(config)
    builder = _prepare(config.path)
    records = _find_records(builder, config.train_split if train else config.validation_split)
    features, skip = builder.info.features, {"image": tfds.decode.SkipDecoding()}

    def load(index: tf.Tensor, draws: Draws) -> tf.Tensor:
        data = _read_record(tf.gather(records.files, records.file[index]), records.offset[index])
        example = features.deserialize_example(data, decoders=skip)
        return decode_crop(example["image"], config, draws)

    return Source(len(records.offset), load, f"{len(records.offset):,} photos")


def _prepare(data_dir: str) -> tfds.core.DatasetBuilder:
    builder = tfds.builder("imagenet2012", data_dir=data_dir or None)
    if not builder.is_prepared():
        manual = Path(builder.data_path).parents[1] / "downloads" / "manual"
        if not all((manual / name).is_file() for name in _ARCHIVES):
            raise UserError(
                f"ImageNet is missing: register at https://image-net.org, download {_ARCHIVES[0]} and "
                f"{_ARCHIVES[1]} and put them into {manual}"
            )
        builder.download_and_prepare(download_config=tfds.download.DownloadConfig(manual_dir=manual))
    if builder.info.file_format != tfds.core.FileFormat.TFRECORD:
        raise UserError(f"ImageNet in {builder.data_path} is not stored as TFRecord files: prepare it again")
    return builder


def _find_records(builder: tfds.core.DatasetBuilder, split: str) -> Records:
    try:
        parts = builder.info.splits[split].file_instructions
    except (AssertionError, KeyError, ValueError) as error:
        raise UserError(f"ImageNet has no split {split!r}: {str(error).splitlines()[0]}") from error
    if not parts:
        raise UserError(f"ImageNet has no split {split!r}: it is empty")
    with ThreadPoolExecutor(_SCAN_THREADS) as pool:
        offsets = list(pool.map(_find_offsets, parts))
    file = np.repeat(np.arange(len(parts), dtype=np.int32), [len(o) for o in offsets])
    files = [part.filename for part in parts]
    return Records(tf.constant(files), tf.constant(file), tf.constant(np.concatenate(offsets)))


def _find_offsets(part: tfds.core.utils.shard_utils.FileInstruction) -> np.ndarray:
    """Find the records of a part of one TFRecord file: int64 [part.take], in bytes.

    Each record follows the one before it: length, checksum, data, checksum.
    """
    offsets = [0]
    try:
        with Path(part.filename).open("rb", buffering=0) as file:
            for _ in range(part.skip + part.take):
                # Unlike a memory map, this lets other threads run while it waits.
                file.seek(offsets[-1])
                (length,) = _LENGTH.unpack(file.read(_LENGTH.size))
                offsets.append(offsets[-1] + _LENGTH.size + length + _CHECKSUMS)
    except (OSError, OverflowError, struct.error) as error:
        raise UserError(f"ImageNet cannot be read, prepare it again: {part.filename}: {error}") from error
    return np.array(offsets[part.skip : -1], np.int64)


def _read_record(path: tf.Tensor, offset: tf.Tensor) -> tf.Tensor:
    """Read the record at `offset` bytes (int64 scalar) of a TFRecord file, verifying its checksums.

    A data set of one record, made anew for each: unlike reading in Python, it takes no lock that all cores
    share. Without a buffer it reads no more than the record.
    """
    kind = {"output_types": [tf.string], "output_shapes": [[]]}
    records = tf.raw_ops.TFRecordDatasetV2(
        filenames=[path], compression_type="", buffer_size=0, byte_offsets=[offset]
    )
    record = tf.raw_ops.TakeDataset(input_dataset=records, count=tf.constant(1, tf.int64), **kind)
    return tf.raw_ops.DatasetToSingleElement(dataset=record, **kind)[0]
