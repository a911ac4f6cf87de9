"""Windows, scaling and flips of single examples."""

import numpy as np
import pytest
import tensorflow as tf
from ml_collections import ConfigDict

from deepsteg_jax.data.examples import (
    Draws,
    central_draws,
    choose_window,
    cut_window,
    finish,
    pick,
    random_draws,
)

LAST = np.float32(1 - 2**-23)  # the largest number that the generator yields


def _config(**changes) -> ConfigDict:
    return ConfigDict({"height": 20, "width": 30, "min_scale": 1.0, "flip": False} | changes)


def _draws(**changes) -> Draws:
    return central_draws()._replace(**{k: tf.constant(v, tf.float32) for k, v in changes.items()})


def _window(size, config, draws) -> list[int]:
    return choose_window(tf.constant(size), config, draws).numpy().tolist()


@pytest.mark.parametrize("size", [(20, 30), (21, 30), (64, 48), (1000, 31), (10, 300), (7, 5), (20, 1)])
@pytest.mark.parametrize("min_scale", [0.1, 0.7, 1.0])
def test_windows_stay_inside(size, min_scale):
    config = _config(min_scale=min_scale)
    extremes = [_draws(y=a, x=a, scale=b) for a in (0.0, LAST) for b in (0.0, LAST, 1.0)]
    for draws in [*extremes, *(random_draws(3, tf.constant(n, tf.int64)) for n in range(20))]:
        top, left, height, width = _window(size, config, draws)
        assert 0 <= top <= top + height <= size[0] and height >= 1
        assert 0 <= left <= left + width <= size[1] and width >= 1
        if min_scale == 1.0 and size[0] >= 20 and size[1] >= 30:
            assert (height, width) == (20, 30)


def test_window_reaches_all_corners_and_the_centre():
    assert _window((50, 70), _config(), _draws(y=0.0, x=LAST)) == [0, 40, 20, 30]
    assert _window((50, 70), _config(), _draws(y=LAST, x=0.0)) == [30, 0, 20, 30]
    assert _window((50, 70), _config(), central_draws()) == [15, 20, 20, 30]


def test_scale_goes_down_to_the_minimum_but_not_below_the_crop():
    assert _window((200, 300), _config(min_scale=0.5), _draws(scale=0.0))[2:] == [40, 60]
    assert _window((30, 300), _config(min_scale=0.1), _draws(scale=0.0))[2:] == [30, 45]


def test_small_pictures_are_scaled_up_to_cover_the_crop():
    window = _window((10, 60), _config(), central_draws())
    assert window[2:] == [10, 15]
    picture = tf.constant(np.full((10, 60, 3), 77, np.uint8))
    crop = finish(cut_window(picture, tf.constant(window)), _config(), central_draws())
    assert crop.shape == (20, 30, 3) and np.all(crop.numpy() == 77)


def test_unscaled_crop_is_an_exact_copy():
    picture = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    window = tf.constant(_window((40, 50), _config(), central_draws()))
    crop = finish(cut_window(tf.constant(picture), window), _config(flip=True), central_draws())
    assert np.array_equal(crop.numpy(), picture[10:30, 10:40])


def test_flip_mirrors_the_width_of_all_frames():
    clip = np.random.default_rng(0).integers(0, 256, (4, 20, 30, 3), np.uint8)
    flipped = finish(tf.constant(clip), _config(flip=True), _draws(flip=0.2))
    assert np.array_equal(flipped.numpy(), clip[:, :, ::-1])
    assert np.array_equal(finish(tf.constant(clip), _config(), _draws(flip=0.2)).numpy(), clip)


def test_shrinking_averages():
    stripes = np.zeros((40, 60, 3), np.uint8)
    stripes[:, ::2] = 200
    small = finish(tf.constant(stripes), _config(), central_draws()).numpy()
    assert small.shape == (20, 30, 3) and np.all(np.abs(small[:, 1:-1].astype(int) - 100) <= 26)


def test_pick_covers_its_range_and_no_more():
    assert int(pick(tf.constant(0.0), 5)) == 0
    for count in (1, 3, 4, 1000, 65535, 1_000_000):
        assert int(pick(tf.constant(LAST), count)) == count - 1


def test_draws_depend_on_key_and_number_only():
    def draw(key, number):
        return np.array(random_draws(key, tf.constant(number, tf.int64)))

    assert np.array_equal(draw(1, 2), draw(1, 2))
    assert not np.array_equal(draw(1, 2), draw(1, 3))
    assert not np.array_equal(draw(1, 2), draw(2, 2))
    many = np.stack([draw(1, n) for n in range(300)])
    assert many.min() >= 0 and many.max() < 1
    assert np.allclose(many.mean(0), 0.5, atol=0.08)
