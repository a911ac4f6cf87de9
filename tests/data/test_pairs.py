"""What holds for every source: determinism, resume, independent streams, evaluation order."""

from itertools import islice

import numpy as np
import pytest
import tensorflow as tf
from ml_collections import ConfigDict
from PIL import Image

from deepsteg_jax.data import create_pairs
from deepsteg_jax.data.pairs import shuffled_index
from deepsteg_jax.errors import UserError

BATCH = 3


def _picture(value: int, size=(24, 32)) -> Image.Image:
    """Red is `value` everywhere; green and blue are noise that tells crops apart."""
    pixels = np.random.default_rng(value).integers(0, 256, (*size, 3), np.uint8)
    pixels[..., 0] = value
    return Image.fromarray(pixels)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    (root / "images" / "more").mkdir(parents=True)
    for i in range(7):
        _picture(10 * i).save(root / "images" / ("more" if i % 2 else "") / f"{i}.png")
    for c, length in enumerate((4, 9, 6, 12)):
        folder = root / "clips" / f"clip{c}"
        folder.mkdir(parents=True)
        for f in range(length):
            _picture(20 * c + f).save(folder / f"{f:03}.png")
    return root


def _config(folders, source: str) -> ConfigDict:
    if source == "clips":
        return ConfigDict(
            {
                "source": "clips",
                "path": str(folders / "clips"),
                "height": 12,
                "width": 16,
                "frames": 3,
                "max_stride": 2,
                "flip": True,
                "min_scale": 0.5,
                "cache_height": 24,
                "cache_width": 32,
                "max_frames": 12,
            }
        )
    cache = source == "cached images"
    path = str(folders / "images")
    return ConfigDict(
        {
            "source": "images",
            "path": path,
            "height": 12,
            "width": 16,
            "frames": 1,
            "flip": True,
            "min_scale": 0.5,
            "cache": cache,
        }
    )


def _take(config, count, seed=1, **options):
    return list(islice(create_pairs(config, seed=seed, batch_size=BATCH, **options), count))


def _same(a, b) -> bool:
    return len(a) == len(b) and all(np.array_equal(x[k], y[k]) for x, y in zip(a, b, strict=True) for k in x)


SOURCES = pytest.mark.parametrize("source", ["images", "cached images", "clips"])


@SOURCES
def test_shapes_and_types(folders, source):
    (batch,) = _take(_config(folders, source), 1)
    assert set(batch) == {"cover", "secret"}
    shape = (BATCH, 3, 12, 16, 3) if source == "clips" else (BATCH, 12, 16, 3)
    for value in batch.values():
        assert isinstance(value, np.ndarray) and value.dtype == np.uint8 and value.shape == shape


@SOURCES
def test_same_seed_same_bits_and_other_seed_others(folders, source):
    config = _config(folders, source)
    first = _take(config, 6)
    assert _same(first, _take(config, 6))
    assert not _same(first, _take(config, 6, seed=2))


@SOURCES
@pytest.mark.parametrize("step", [1, 4])  # within the first epoch and beyond it
def test_resume_equals_uninterrupted(folders, source, step):
    config = _config(folders, source)
    assert _same(_take(config, 7)[step:], _take(config, 7 - step, start_step=step))


def test_start_costs_nothing_far_away(folders):
    config = _config(folders, "images")
    assert _same(_take(config, 2, start_step=10**12), _take(config, 2, start_step=10**12))


def test_cached_and_uncached_images_are_the_same(folders):
    assert _same(_take(_config(folders, "images"), 5), _take(_config(folders, "cached images"), 5))


@SOURCES
def test_streams_are_independent(folders, source):
    batches = _take(_config(folders, source), 40)
    cover, secret = (np.concatenate([b[k] for b in batches]) for k in ("cover", "secret"))
    cover, secret = (x.reshape(len(x), -1, 3)[:, 0, 0].astype(float) for x in (cover, secret))
    assert abs(np.corrcoef(cover, secret)[0, 1]) < 0.3
    assert np.mean(cover == secret) < 0.4


def test_every_epoch_visits_every_image_once_in_a_new_order(folders):
    config = _config(folders, "images")
    config.min_scale, config.frames = 1.0, 1
    numbers = list(islice(create_pairs(config, seed=0, batch_size=7), 5))
    for stream in ("cover", "secret"):
        orders = [b[stream][:, 0, 0, 0].tolist() for b in numbers]
        assert all(sorted(o) == [10 * i for i in range(7)] for o in orders)
        assert len({tuple(o) for o in orders}) > 1


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
def test_shuffled_index_is_a_permutation_in_each_epoch(size):
    order = tf.map_fn(lambda n: shuffled_index(5, n, size), tf.range(3 * size, dtype=tf.int64)).numpy()
    for epoch in order.reshape(3, size):
        assert sorted(epoch) == list(range(size))
    if size == 1000:
        assert np.mean(order[:size] == order[size : 2 * size]) < 0.01


@SOURCES
def test_evaluation_is_one_fixed_pass_with_a_smaller_last_batch(folders, source):
    config = _config(folders, source)
    batches = list(create_pairs(config, seed=0, batch_size=BATCH, train=False))
    assert _same(batches, list(create_pairs(config, seed=9, batch_size=BATCH, train=False)))
    total = 4 if source == "clips" else 7
    assert [len(b["cover"]) for b in batches] == [BATCH] * (total // BATCH) + [total % BATCH]
    reds = {k: np.concatenate([b[k] for b in batches]).reshape(total, -1, 3)[:, 0, 0] for k in batches[0]}
    # Sorted by path: the images with odd numbers are in the folder "more", after "6.png".
    wanted = [0, 20, 40, 60] if source == "clips" else [0, 20, 40, 60, 10, 30, 50]
    assert reds["cover"].tolist() == wanted
    assert sorted(reds["secret"]) == sorted(wanted)
    assert np.all(reds["cover"] != reds["secret"])


def test_evaluation_resumes_too(folders):
    config = _config(folders, "images")
    batches = _take(config, 9, train=False)
    assert _same(batches[1:], _take(config, 9, train=False, start_step=1))


def test_one_image_is_enough(folders, tmp_path):
    _picture(50).save(tmp_path / "only.png")
    config = _config(folders, "images")
    config.path = str(tmp_path)
    assert _take(config, 2)[1]["cover"].shape == (BATCH, 12, 16, 3)
    assert len(_take(config, 9, train=False)) == 1


def test_unknown_source(folders):
    config = _config(folders, "images")
    config.source = "webcam"
    with pytest.raises(UserError, match="webcam"):
        create_pairs(config, seed=0, batch_size=1)
