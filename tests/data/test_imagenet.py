"""ImageNet through the real builder, with archives of a few small images in place of the real ones."""

import io
import shutil
import tarfile
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from ml_collections import ConfigDict
from PIL import Image

from deepsteg_jax.data import create_pairs, create_validation
from deepsteg_jax.data.examples import central_draws
from deepsteg_jax.data.imagenet import open_imagenet
from deepsteg_jax.errors import UserError

TRAIN = [10 * i for i in range(10)]  # grey values that name the images
EVAL = [100 + 10 * i for i in range(5)]


def _jpeg(value: int) -> bytes:
    file = io.BytesIO()
    Image.new("L" if value % 20 else "RGB", (50, 40), value if value % 20 else (value,) * 3).save(
        file, "JPEG"
    )
    return file.getvalue()


def _tar(files: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return file.getvalue()


def _write_archives(root: Path, train: dict[str, bytes], validation: list[bytes]) -> Path:
    """Write the two archives of photos where the builder looks for them; `train` has names as n01440764_1."""
    manual = root / "downloads" / "manual"
    manual.mkdir(parents=True)
    synsets = {name.split("_")[0] for name in train}
    folders = {
        f"{s}.tar": _tar({f"{name}.JPEG": data for name, data in train.items() if name.startswith(s)})
        for s in sorted(synsets)
    }
    (manual / "ILSVRC2012_img_train.tar").write_bytes(_tar(folders))
    names = (f"ILSVRC2012_val_{i:08}.JPEG" for i, _ in enumerate(validation, 1))
    (manual / "ILSVRC2012_img_val.tar").write_bytes(_tar(dict(zip(names, validation, strict=True))))
    return manual


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """Archives of single-coloured photos; the first test that opens them prepares them."""
    root = tmp_path_factory.mktemp("tfds")
    train = {f"{'n01440764' if v < 60 else 'n01443537'}_{v}": _jpeg(v) for v in TRAIN}
    _write_archives(root, train, [_jpeg(v) for v in EVAL])
    return root


def _photo(seed: int) -> bytes:
    """A JPEG of its own size, with smooth colours."""
    rng = np.random.default_rng(seed)
    few = Image.fromarray(rng.integers(0, 256, (5, 6, 3), np.uint8))
    file = io.BytesIO()
    few.resize((60 + seed, 50 + 2 * seed), Image.Resampling.BICUBIC).save(file, "JPEG", quality=90)
    return file.getvalue()


@pytest.fixture(scope="module")
def sharded_dir(tmp_path_factory):
    """Photos prepared into three files of each split, as the real data are in 1,024."""
    root = tmp_path_factory.mktemp("sharded")
    train = {f"n01440764_{i}": _photo(i) for i in range(11)}
    manual = _write_archives(root, train, [_photo(i) for i in range(20, 25)])
    download = tfds.download.DownloadConfig(manual_dir=manual, num_shards=3)
    tfds.builder("imagenet2012", data_dir=root).download_and_prepare(download_config=download)
    assert len(list(root.rglob("*train.tfrecord*"))) == 3
    return root


def _config(path, **changes) -> ConfigDict:
    fields = {
        "source": "imagenet",
        "path": str(path),
        "height": 16,
        "width": 16,
        "frames": 1,
        "flip": True,
        "min_scale": 0.5,
        "train_split": "train",
        "validation_split": "validation",
        "validation_path": "",
    }
    return ConfigDict(fields | changes)


def _values(batch) -> list[int]:
    assert batch.dtype == np.uint8 and batch.shape[1:] == (16, 16, 3)
    return (np.round(batch.mean((1, 2, 3)) / 10) * 10).astype(int).tolist()


def test_epochs_and_evaluation_cover_the_splits(data_dir):
    for batch in islice(create_pairs(_config(data_dir), seed=0, batch_size=10), 3):
        assert sorted(_values(batch["cover"])) == sorted(_values(batch["secret"])) == TRAIN
        assert _values(batch["cover"]) != _values(batch["secret"])
    batches = list(create_validation(_config(data_dir), batch_size=3)())
    assert [b["weight"].tolist() for b in batches] == [[1, 1, 1], [1, 1, 0]]
    assert sorted(sum((_values(b["cover"]) for b in batches), [])[: len(EVAL)]) == EVAL


def test_resume_equals_uninterrupted(data_dir):
    config = _config(data_dir)
    whole = list(islice(create_pairs(config, seed=3, batch_size=4), 6))
    tail = list(islice(create_pairs(config, seed=3, batch_size=4, start_step=4), 2))
    assert all(np.array_equal(a[k], b[k]) for a, b in zip(whole[4:], tail, strict=True) for k in a)


def test_part_of_a_split(data_dir):
    def visited(split):
        (batch,) = islice(create_pairs(_config(data_dir, train_split=split), seed=0, batch_size=10), 1)
        return set(_values(batch["cover"]))

    start, end = visited("train[:7]"), visited("train[7:]")
    assert len(start) == 7 and len(end) == 3 and start | end == set(TRAIN)


def _read_with_tfds(data_dir: Path, split: str) -> list[np.ndarray]:
    """Central crops of whole decoded photos, in the order of their files."""
    in_order = tfds.ReadConfig(interleave_cycle_length=1)
    builder = tfds.builder("imagenet2012", data_dir=data_dir)
    encoded = builder.as_dataset(
        split=split, decoders={"image": tfds.decode.SkipDecoding()}, read_config=in_order, shuffle_files=False
    )
    crops = []
    for example in encoded:
        photo = tf.io.decode_jpeg(example["image"], 3, dct_method="INTEGER_ACCURATE").numpy()
        top, left = ((size - 16 + 1) // 2 for size in photo.shape[:2])
        crops.append(photo[top : top + 16, left : left + 16])
    return crops


@pytest.mark.parametrize("split", ["train", "train[2:7]", "train[-1:]", "validation[1:]+train[50%:]"])
def test_records_of_several_files(sharded_dir, split):
    source = open_imagenet(_config(sharded_dir, train_split=split), train=True)
    ours = [source.load(tf.constant(i, tf.int64), central_draws()).numpy() for i in range(source.size)]
    theirs = _read_with_tfds(sharded_dir, split)
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs, strict=True):
        assert np.array_equal(a[:, 1:-1], b[:, 1:-1])
        # Colour is stored at half size, and at the edge of a crop it has one neighbour less.
        assert np.abs(a.astype(int) - b).max() <= 40


def test_photos_in_other_formats(tmp_path):
    """The builder mends 22 CMYK photos and a PNG, which it knows by name; others are read as they are."""
    red = Image.new("CMYK", (50, 40), (0, 255, 255, 0))
    formats = {}
    for name in ("n01739381_1309", "n01739381_1", "n02105855_2933", "n02105855_1"):
        file = io.BytesIO()
        if name.startswith("n01739381"):
            red.save(file, "JPEG")
        else:
            red.convert("RGB").save(file, "PNG")
        formats[name] = file.getvalue()
    _write_archives(tmp_path, formats, [_jpeg(0)])
    (batch,) = islice(create_pairs(_config(tmp_path), seed=0, batch_size=4), 1)
    assert np.abs(batch["cover"].astype(int) - (255, 0, 0)).max() <= 3


def _copy(data_dir: Path, to: Path) -> Path:
    """Copy prepared data without their archives; return the first file of the training split."""
    shutil.copytree(data_dir / "imagenet2012", to / "imagenet2012")
    return min(to.rglob("*train.tfrecord*"))


@pytest.mark.parametrize("damage", ["cut short", "wrong length", "gone"])
def test_file_without_its_records(sharded_dir, tmp_path, damage):
    path = _copy(sharded_dir, tmp_path)
    data = path.read_bytes()
    path.write_bytes(data[:100] if damage == "cut short" else b"\xff" * 8 + data[8:])
    if damage == "gone":
        path.unlink()
    with pytest.raises(UserError, match=f"cannot be read.*{path.name}") as caught:
        create_pairs(_config(tmp_path), seed=0, batch_size=1)
    assert "\n" not in str(caught.value)


def test_changed_byte(sharded_dir, tmp_path):
    path = _copy(sharded_dir, tmp_path)
    data = bytearray(path.read_bytes())
    data[1000] ^= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match="cannot be read"):
        list(islice(create_pairs(_config(tmp_path), seed=0, batch_size=11), 1))


@pytest.mark.parametrize("split", ["train[:50000]", "nothing", "train[:", "train[:0]"])
def test_impossible_split(data_dir, split):
    with pytest.raises(UserError, match="ImageNet has no split") as caught:
        create_pairs(_config(data_dir, train_split=split), seed=0, batch_size=1)
    assert "\n" not in str(caught.value)


def test_missing_archives(tmp_path):
    with pytest.raises(UserError) as caught:
        create_pairs(_config(tmp_path), seed=0, batch_size=1)
    message = str(caught.value)
    assert "ILSVRC2012_img_train.tar" in message and "ILSVRC2012_img_val.tar" in message
    assert str(tmp_path / "downloads" / "manual") in message and "\n" not in message


def test_clips_are_refused(data_dir):
    with pytest.raises(UserError, match="frames"):
        create_pairs(_config(data_dir, frames=4), seed=0, batch_size=1)
