"""What holds for every source: determinism, resume, independent streams, shares, validation order."""

from functools import partial
from itertools import islice

import numpy as np
import pytest
import tensorflow as tf
from ml_collections import ConfigDict
from PIL import Image

from deepsteg_jax.data import Share, create_pairs, create_validation, has_validation
from deepsteg_jax.data.pairs import shuffled_index
from deepsteg_jax.errors import UserError
from tests.recordings import write_videos

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
    for number in range(3):
        write_videos(root / "recordings", number)
    return root


def _config(folders, source: str) -> ConfigDict:
    if source == "clips":
        return ConfigDict(
            {
                "source": "clips",
                "path": str(folders / "clips"),
                "validation_path": "",
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
    if source == "recordings":
        path = str(folders / "recordings")
        fields = {"source": source, "path": path, "validation_path": "", "height": 16, "width": 32}
        return ConfigDict(fields | {"frames": 3})
    cache = source == "cached images"
    path = str(folders / "images")
    return ConfigDict(
        {
            "source": "images",
            "path": path,
            "validation_path": "",
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
    return len(a) == len(b) and all(
        x.keys() == y.keys() and np.array_equal(x[k], y[k]) for x, y in zip(a, b, strict=True) for k in x
    )


PICTURES = pytest.mark.parametrize("source", ["images", "cached images", "clips"])
SOURCES = pytest.mark.parametrize("source", ["images", "cached images", "clips", "recordings"])


@PICTURES
def test_shapes_and_types(folders, source):
    (batch,) = _take(_config(folders, source), 1)
    assert set(batch) == {"cover", "secret"}
    shape = (BATCH, 3, 12, 16, 3) if source == "clips" else (BATCH, 12, 16, 3)
    for value in batch.values():
        assert isinstance(value, np.ndarray) and value.dtype == np.uint8 and value.shape == shape


@SOURCES
def test_same_seed_same_bits_also_after_a_resume_and_other_seed_others(folders, source):
    config = _config(folders, source)
    whole = _take(config, 7)
    assert not _same(whole[:1], _take(config, 1, seed=2))
    for step in (1, 5):  # within the first epoch and beyond it
        assert _same(whole[step : step + 2], _take(config, 2, start_step=step))


@pytest.mark.parametrize("source", ["images", "recordings"])
def test_start_costs_nothing_far_away(folders, source):
    config = _config(folders, source)
    assert _same(_take(config, 2, start_step=10**12), _take(config, 2, start_step=10**12))


def test_cached_and_uncached_images_are_the_same(folders):
    assert _same(_take(_config(folders, "images"), 5), _take(_config(folders, "cached images"), 5))


@PICTURES
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
    numbers = tf.data.Dataset.range(3 * size).map(lambda n: shuffled_index(5, n, size))
    order = np.array(list(numbers.batch(3 * size).as_numpy_iterator())[0])
    for epoch in order.reshape(3, size):
        assert sorted(epoch) == list(range(size))
    if size == 1000:
        assert np.mean(order[:size] == order[size : 2 * size]) < 0.01


def _joined(shares):
    """The batches of several shares, laid side by side step by step."""
    return [
        {k: np.concatenate([part[k] for part in parts]) for k in parts[0]}
        for parts in zip(*shares, strict=True)
    ]


@pytest.mark.slow
def test_crops_grow(folders):
    config = _config(folders, "cached images")
    config.growing = ((2, 4), (3, 8))
    whole = _take(config, 5)
    assert [batch["cover"].shape[1:3] for batch in whole] == [(4, 4), (4, 4), (8, 8), (12, 16), (12, 16)]
    for step in (1, 2, 3):  # within a stage, at its end, in the last one
        assert _same(whole[step:], _take(config, 5 - step, start_step=step))
    config.growing = ()
    assert _same(whole[3:], _take(config, 2, start_step=3))


@pytest.mark.parametrize("growing", [((3, 8), (2, 4)), ((0, 4),), ((2, 0),)])
def test_crops_that_do_not_grow_in_order(folders, growing):
    config = _config(folders, "images")
    config.growing = growing
    with pytest.raises(UserError, match="config.data.growing must be pairs"):
        _take(config, 1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("source", "processes"), [("images", 2), ("cached images", 4), ("clips", 2), ("recordings", 4)]
)
def test_the_shares_of_a_batch_are_the_batch_of_one_process(folders, source, processes):
    config, options = _config(folders, source), {"seed": 1, "batch_size": 8, "start_step": 3}
    whole = list(islice(create_pairs(config, **options), 3))
    shares = [
        list(islice(create_pairs(config, **options, share=Share(p, processes)), 3)) for p in range(processes)
    ]
    assert all(len(x) == 8 // processes for share in shares for batch in share for x in batch.values())
    assert _same(_joined(shares), whole)
    assert not any(_same(shares[0], share) for share in shares[1:])


# --- validation -----------------------------------------------------------------------------------


def _passes(config, count=1, batch_size=BATCH, **options):
    make_pass = create_validation(config, batch_size=batch_size, **options)
    return [list(make_pass()) for _ in range(count)]


@PICTURES
def test_validation_is_a_fixed_pass_of_full_batches(folders, source):
    config = _config(folders, source)
    batches, again = _passes(config, 2)
    assert _same(batches, again)
    total = 4 if source == "clips" else 7
    assert len(batches) == -(-total // BATCH)
    weights = np.concatenate([b["weight"] for b in batches])
    assert weights.tolist() == [1] * total + [0] * (BATCH * len(batches) - total)
    training = _take(config, 1)[0]
    for batch in batches:
        assert batch["weight"].dtype == np.float32 and batch["weight"].shape == (BATCH,)
        for name in ("cover", "secret"):
            assert batch[name].shape == training[name].shape and batch[name].dtype == np.uint8
    pixels = {k: np.concatenate([b[k] for b in batches]) for k in ("cover", "secret")}
    reds = {k: x.reshape(len(x), -1, 3)[:total, 0, 0] for k, x in pixels.items()}
    # Sorted by path: the images with odd numbers are in the folder "more", after "6.png".
    wanted = [0, 20, 40, 60] if source == "clips" else [0, 20, 40, 60, 10, 30, 50]
    assert reds["cover"].tolist() == wanted
    assert sorted(reds["secret"]) == sorted(wanted)
    assert np.all(reds["cover"] != reds["secret"])


@pytest.mark.slow
@SOURCES
def test_the_shares_of_validation_are_the_pass_of_one_process(folders, source):
    config = _config(folders, source)
    (whole,) = _passes(config, batch_size=4)
    shares = [_passes(config, batch_size=4, share=Share(p, 2))[0] for p in range(2)]
    assert _same(_joined(shares), whole)
    weights = [sum(batch["weight"].sum() for batch in share) for share in shares]
    assert sum(weights) == {"clips": 4, "recordings": 3}.get(source, 7)


def test_validation_has_a_folder_of_its_own(folders, tmp_path):
    _picture(50).save(tmp_path / "only.png")
    config = _config(folders, "images")
    config.validation_path = str(tmp_path)
    ((batch,),) = _passes(config)
    assert batch["weight"].tolist() == [1, 0, 0] and np.all(batch["cover"][..., 0] == 50)
    assert len({*_take(config, 3)[0]["cover"][:, 0, 0, 0]} - {50}) > 1
    assert config.path == str(folders / "images")  # the config is left alone
    config.validation_path = str(tmp_path / "absent")
    with pytest.raises(UserError, match="absent"):
        create_validation(config, batch_size=1)


def test_secrets_have_a_folder_of_their_own(folders, tmp_path):
    for name, value in (("train", 150), ("validation", 200)):
        (tmp_path / name).mkdir()
        _picture(value).save(tmp_path / name / "only.png")
    config = _config(folders, "images")
    config.secret_path = str(tmp_path / "train")
    config.validation_path, config.validation_secret_path = config.path, str(tmp_path / "validation")
    for batch, value in ((_take(config, 1)[0], 150), (_passes(config)[0][0], 200)):
        assert np.all(batch["secret"][..., 0] == value) and np.all(batch["cover"][..., 0] < 100)


def test_has_validation(folders):
    for source in ("images", "clips"):
        config = _config(folders, source)
        assert not has_validation(config)
        config.validation_path = "somewhere"
        assert has_validation(config)
    config = ConfigDict({"source": "imagenet", "path": "", "validation_path": "", "validation_split": ""})
    assert not has_validation(config)
    config.validation_split = "validation[:8]"
    assert has_validation(config)


def test_one_image_is_enough(folders, tmp_path):
    _picture(50).save(tmp_path / "only.png")
    config = _config(folders, "images")
    config.path = str(tmp_path)
    assert _take(config, 2)[1]["cover"].shape == (BATCH, 12, 16, 3)
    ((batch,),) = _passes(config)
    assert batch["weight"].tolist() == [1, 0, 0] and np.array_equal(batch["cover"], batch["secret"])


def test_unknown_source(folders):
    config = _config(folders, "images")
    config.source = "webcam"
    for create in (partial(create_pairs, seed=0), create_validation):
        with pytest.raises(UserError, match="webcam"):
            create(config, batch_size=1)
