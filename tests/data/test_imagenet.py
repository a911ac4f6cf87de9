"""ImageNet through the real builder, with archives of a few small images in place of the real ones."""

import io
import tarfile
from itertools import islice

import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image

from deepsteg_jax.data import create_pairs
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


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    root = tmp_path_factory.mktemp("tfds")
    manual = root / "downloads" / "manual"
    manual.mkdir(parents=True)
    classes = {"n01440764": TRAIN[:6], "n01443537": TRAIN[6:]}
    train = {f"{c}.tar": _tar({f"{c}_{v}.JPEG": _jpeg(v) for v in values}) for c, values in classes.items()}
    evaluation = {f"ILSVRC2012_val_{i:08}.JPEG": _jpeg(v) for i, v in enumerate(EVAL, 1)}
    (manual / "ILSVRC2012_img_train.tar").write_bytes(_tar(train))
    (manual / "ILSVRC2012_img_val.tar").write_bytes(_tar(evaluation))
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
        "eval_split": "validation",
    }
    return ConfigDict(fields | changes)


def _values(batch) -> list[int]:
    assert batch.dtype == np.uint8 and batch.shape[1:] == (16, 16, 3)
    return (np.round(batch.mean((1, 2, 3)) / 10) * 10).astype(int).tolist()


def test_epochs_and_evaluation_cover_the_splits(data_dir):
    for batch in islice(create_pairs(_config(data_dir), seed=0, batch_size=10), 3):
        assert sorted(_values(batch["cover"])) == sorted(_values(batch["secret"])) == TRAIN
        assert _values(batch["cover"]) != _values(batch["secret"])
    batches = list(create_pairs(_config(data_dir), seed=0, batch_size=3, train=False))
    assert [len(b["cover"]) for b in batches] == [3, 2]
    assert sorted(sum((_values(b["cover"]) for b in batches), [])) == EVAL


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


@pytest.mark.parametrize("split", ["train[:50000]", "nothing", "train[:"])
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
