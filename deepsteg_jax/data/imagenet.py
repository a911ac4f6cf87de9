"""ImageNet 2012, as prepared by TensorFlow Datasets from archives that the user downloads."""

import struct
from pathlib import Path

import tensorflow as tf
import tensorflow_datasets as tfds
from ml_collections import ConfigDict

from deepsteg_jax.data.examples import Draws, Source, require_single_frame
from deepsteg_jax.data.images import decode_crop
from deepsteg_jax.errors import UserError

_ARCHIVES = ("ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar")

Record = tuple[str, int, int]  # file, offset, length in bytes


def open_imagenet(config: ConfigDict, train: bool) -> Source:
    """Open the data set `imagenet2012`, preparing it first if only its archives are there.

    Nothing is ever downloaded. TFRecord files have no index, so the place of every record is looked up here
    (a seek per record); after that any example is read directly, which keeps the order a pure function of
    the step.

    Args:
        config: uses `path` (data directory of TensorFlow Datasets, empty for its default), `train_split` and
            `eval_split` (such as 'train[:50000]'), `height`, `width`, `frames` (must be 1), `min_scale` and
            `flip`.
        train: which of the two splits to open.

    Returns:
        A Source of uint8 [height, width, 3].

    Raises:
        UserError: the archives are missing, the split does not exist, the data are not in TFRecord files,
            or more than one frame is asked for.
    """
    require_single_frame(config)
    builder = _prepare(config.path)
    records = _find_records(builder, config.train_split if train else config.eval_split)
    features, skip = builder.info.features, {"image": tfds.decode.SkipDecoding()}

    def load(index: tf.Tensor, draws: Draws) -> tf.Tensor:
        data = tf.numpy_function(lambda i: _read(records[i]), [index], tf.string, stateful=False)
        example = features.deserialize_example(tf.ensure_shape(data, []), decoders=skip)
        return decode_crop(example["image"], config, draws)

    return Source(len(records), load)


def _prepare(data_dir: str) -> tfds.core.DatasetBuilder:
    builder = tfds.builder("imagenet2012", data_dir=data_dir or None)
    if not builder.is_prepared():
        manual = Path(builder.data_path).parents[1] / "downloads" / "manual"
        if not all((manual / name).is_file() for name in _ARCHIVES):
            raise UserError(
                f"ImageNet is not there: register at https://image-net.org, download {_ARCHIVES[0]} and "
                f"{_ARCHIVES[1]} and put them into {manual}"
            )
        builder.download_and_prepare(download_config=tfds.download.DownloadConfig(manual_dir=manual))
    if builder.info.file_format != tfds.core.FileFormat.TFRECORD:
        raise UserError(f"ImageNet in {builder.data_path} is not stored as TFRecord files: prepare it again")
    return builder


def _find_records(builder: tfds.core.DatasetBuilder, split: str) -> list[Record]:
    try:
        shards = builder.info.splits[split].file_instructions
    except (AssertionError, KeyError, ValueError) as error:
        raise UserError(f"ImageNet has no split {split!r}: {str(error).splitlines()[0]}") from error
    return [record for shard in shards for record in _scan(shard.filename, shard.skip, shard.take)]


def _scan(path: str, skip: int, take: int) -> list[Record]:
    """List the records of one TFRecord file: each has an 8-byte length and 4 + 4 bytes of checksums."""
    records = []
    with Path(path).open("rb") as file:
        while header := file.read(12):
            (length,) = struct.unpack("<Q", header[:8])
            records.append((path, file.tell(), length))
            file.seek(length + 4, 1)
    return records[skip : skip + take]


def _read(record: Record) -> bytes:
    path, offset, length = record
    with Path(path).open("rb") as file:
        file.seek(offset)
        return file.read(length)
