"""The folder of images: formats, small and damaged files, errors."""

from itertools import islice

import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image

from deepsteg_jax.data import create_pairs, create_validation
from deepsteg_jax.errors import UserError

CACHE = pytest.mark.parametrize("cache", [False, True])


def _config(path, **changes) -> ConfigDict:
    fields = {
        "source": "images",
        "path": str(path),
        "validation_path": "",
        "height": 8,
        "width": 12,
        "frames": 1,
        "flip": False,
        "min_scale": 1.0,
        "cache": False,
    }
    return ConfigDict(fields | changes)


def _covers(config, count=3):
    """Of training."""
    batches = create_pairs(config, seed=0, batch_size=4)
    return np.concatenate([b["cover"] for b in islice(batches, count)])


def _validation_covers(config):
    """Of one pass, without what fills up its last batch."""
    batches = create_validation(config, batch_size=4)()
    return np.concatenate([b["cover"][b["weight"] > 0] for b in batches])


def _gradient(height=30, width=40) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    return np.stack([y, x, np.full_like(x, 9)], -1).astype(np.uint8)


@CACHE
def test_formats(tmp_path, cache):
    for suffix in ("png", "bmp", "jpg", "JPEG", "webp"):
        for mode in ("RGB", "L"):
            picture = Image.new("RGB", (40, 30), (90, 90, 90)).convert(mode)
            picture.save(tmp_path / f"{suffix}-{mode}.{suffix}")
    covers = _validation_covers(_config(tmp_path, cache=cache))
    assert covers.shape == (10, 8, 12, 3) and np.all(np.abs(covers.astype(int) - 90) <= 2)


@CACHE
def test_transparent_and_deep_png(tmp_path, cache):
    Image.new("RGBA", (40, 30), (10, 20, 30, 255)).save(tmp_path / "a.png")
    Image.fromarray(np.full((30, 40), 40 * 257, np.uint16)).save(tmp_path / "b.png")
    covers = _validation_covers(_config(tmp_path, cache=cache))
    assert covers[0, 0, 0].tolist() == [10, 20, 30] and covers[1, 0, 0].tolist() == [40, 40, 40]


@CACHE
def test_evaluation_takes_the_centre(tmp_path, cache):
    picture = _gradient()
    Image.fromarray(picture).save(tmp_path / "a.png")
    (cover,) = _validation_covers(_config(tmp_path, cache=cache, flip=True, min_scale=0.3))
    assert np.array_equal(cover, picture[11:19, 14:26])


@CACHE
def test_training_crops_are_parts_of_the_image(tmp_path, cache):
    picture = _gradient()
    Image.fromarray(picture).save(tmp_path / "a.png")
    crops = _covers(_config(tmp_path, cache=cache, flip=True), count=30)
    flipped = 0
    for crop in crops:
        flip = crop[0, 0, 1] > crop[0, -1, 1]
        crop = crop[:, ::-1] if flip else crop
        y, x = int(crop[0, 0, 0]), int(crop[0, 0, 1])
        assert np.array_equal(crop, picture[y : y + 8, x : x + 12])
        flipped += flip
    assert 40 < flipped < 80  # of 120
    assert len({(int(c[0, 0, 0]), int(c[0, :, 1].min())) for c in crops}) > 60


def test_jpeg_crop_is_that_of_the_decoded_image(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)
    Image.fromarray(noise).resize((80, 60)).save(tmp_path / "a.jpg", quality=95)
    crops = [_covers(_config(tmp_path, cache=cache)) for cache in (False, True)]
    inside, edges = np.s_[:, :, 1:-1], np.s_[:, :, :: crops[0].shape[2] - 1]
    assert np.array_equal(crops[0][inside], crops[1][inside])
    # Colour is stored at half the resolution: at its edges a cut lacks the neighbours that smooth it.
    assert np.abs(crops[0][edges].astype(int) - crops[1][edges]).max() <= 40


@CACHE
def test_image_smaller_than_the_crop(tmp_path, cache):
    Image.new("RGB", (6, 5), (50, 60, 70)).save(tmp_path / "a.png")
    for read in (_covers, _validation_covers):
        covers = read(_config(tmp_path, cache=cache))
        assert covers.shape[1:] == (8, 12, 3) and np.all(covers == (50, 60, 70))


@CACHE
def test_unreadable_files_are_skipped_with_a_warning(tmp_path, cache, caplog):
    Image.new("RGB", (20, 20), (1, 2, 3)).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_text("no image")
    (tmp_path / "c.txt").write_text("not looked at")
    assert len(_validation_covers(_config(tmp_path, cache=cache))) == 1
    assert "skipped 1 of 2" in caplog.text and "b.png" in caplog.text


def test_damaged_image_found_while_reading(tmp_path):
    Image.effect_noise((64, 64), 90).save(tmp_path / "a.png")
    data = (tmp_path / "a.png").read_bytes()
    (tmp_path / "a.png").write_bytes(data[: len(data) // 2])
    for read in (_covers, _validation_covers):
        with pytest.raises(UserError, match=f"{tmp_path}.* cannot be read") as caught:
            read(_config(tmp_path))
        assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="none of the 1 files"):
        _covers(_config(tmp_path, cache=True))


@CACHE
def test_errors(tmp_path, cache):
    def complaint(path, **changes) -> str:
        with pytest.raises(UserError) as caught:
            create_pairs(_config(path, cache=cache, **changes), seed=0, batch_size=1)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert "no folder" in complaint(tmp_path / "absent")
    assert "no folder" in complaint("")
    assert "no PNG" in complaint(tmp_path)
    (tmp_path / "a.png").write_bytes(b"")
    assert "none of the 1 files" in complaint(tmp_path)
    assert "frames" in complaint(tmp_path, frames=4)
