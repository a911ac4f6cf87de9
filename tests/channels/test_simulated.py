import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deepsteg_jax import media
from deepsteg_jax.channels import simulated
from deepsteg_jax.errors import UserError

KEY = jax.random.key(3)


def picture(seed=0, shape=(2, 16, 24, 3)):
    return jnp.asarray(np.random.default_rng(seed).uniform(-0.2, 1.2, shape), jnp.float32)


@pytest.mark.parametrize("bits", [1, 4, 8])
def test_round_values(bits):
    x = picture()
    rounded = np.asarray(simulated.build((("round", bits),))(KEY, x))
    steps = 2**bits - 1
    np.testing.assert_allclose(rounded, np.round(np.clip(x, 0, 1) * steps) / steps, atol=1e-6)
    assert rounded.dtype == np.float32
    assert (rounded.min(), rounded.max()) == (0, 1)


def test_round_gradient_goes_straight_through():
    x, weights = picture(), picture(1)
    gradient = jax.grad(lambda x: jnp.sum(weights * simulated.build((("round", 8),))(KEY, x)))(x)
    np.testing.assert_array_equal(gradient, weights)


def test_noise_deviation():
    x = jnp.full((1, 200, 200, 3), 0.5)
    noise = np.asarray(simulated.build((("gaussian_noise", 0.05),))(KEY, x) - x)
    assert np.std(noise) == pytest.approx(0.05, rel=0.01)
    assert np.mean(noise) == pytest.approx(0, abs=0.0006)
    assert np.mean(np.abs(noise) > 0.1) == pytest.approx(0.0455, abs=0.003)  # a normal density's tails


def test_noise_gradient_is_one():
    x, weights = picture(), picture(1)
    gradient = jax.grad(lambda x: jnp.sum(weights * simulated.build((("gaussian_noise", 0.1),))(KEY, x)))(x)
    np.testing.assert_array_equal(gradient, weights)


def test_noise_depends_on_the_key_only():
    noisy = simulated.build((("gaussian_noise", 0.1),))
    x = picture()
    np.testing.assert_array_equal(noisy(KEY, x), noisy(KEY, x))
    assert np.mean(np.asarray(noisy(KEY, x) != noisy(jax.random.key(4), x))) > 0.99
    np.testing.assert_allclose(noisy(KEY, x) - x, noisy(KEY, 0 * x), atol=1e-6)


def test_two_noises_are_independent():
    x = jnp.zeros((1, 100, 100, 3))
    noise = simulated.build((("gaussian_noise", 0.3), ("gaussian_noise", 0.4)))(KEY, x)
    assert np.std(noise) == pytest.approx(0.5, rel=0.02)


def test_stages_apply_in_order():
    x = picture()

    def on_grid(y):
        return np.allclose(y * 255, np.round(y * 255), atol=1e-3)

    noise_last = np.asarray(simulated.build((("round", 8), ("gaussian_noise", 0.1)))(KEY, x))
    noise_first = np.asarray(simulated.build((("gaussian_noise", 0.1), ("round", 8)))(KEY, x))
    assert on_grid(noise_first)
    assert not on_grid(noise_last)
    assert noise_first.min() >= 0
    assert noise_last.min() < 0
    by_hand = simulated.gaussian_noise(jax.random.fold_in(KEY, 1), simulated.round_to_bits(KEY, x, 8), 0.1)
    np.testing.assert_array_equal(noise_last, by_hand)


def test_no_stage_changes_nothing():
    np.testing.assert_array_equal(simulated.build(())(KEY, picture()), picture())


def test_compiles():
    x = picture()
    build = simulated.build((("gaussian_noise", 0.1), ("round", 8)))
    np.testing.assert_allclose(jax.jit(build)(KEY, x), build(KEY, x), atol=1 / 254)


# Noise, gamma


def test_shot_noise_has_the_variance_of_a_count():
    x = jnp.broadcast_to(jnp.asarray([0.0, 0.1, 0.9]), (1, 200, 200, 3))
    noise = np.asarray(simulated.build((("shot_noise", 100),))(KEY, x) - x)
    np.testing.assert_allclose(noise.std(axis=(0, 1, 2)), [0.01, 0.001**0.5, 0.009**0.5], rtol=0.02)
    np.testing.assert_allclose(noise.mean(axis=(0, 1, 2)), 0, atol=0.002)


@pytest.mark.parametrize("exponent", [0.5, 1, 2.2])
def test_gamma(exponent):
    x = jnp.asarray(np.arange(256) / 255, jnp.float32).reshape(1, 256, 1) * jnp.ones(3)
    made = simulated.build((("gamma", exponent),))(KEY, x)
    np.testing.assert_allclose(made, x**exponent, atol=1e-6)


@pytest.mark.parametrize("stage", [("gamma", 0.5), ("gamma", 2.2), ("shot_noise", 50), ("crop_pad", 0.3)])
def test_gradient_is_that_of_differences(stage):
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.uniform(0.05, 1, (8, 8, 3)) * rng.choice([-0.2, 1], (8, 8, 3)), jnp.float32)
    sent, change = jax.jit(simulated.build((stage,))), jnp.asarray(rng.normal(0, 1e-3, x.shape), jnp.float32)
    made, slope = jax.jvp(lambda x: sent(KEY, x), (x,), (change,))
    assert np.all(np.isfinite(slope))
    np.testing.assert_allclose(slope, (sent(KEY, x + change) - sent(KEY, x - change)) / 2, atol=2e-5)


# Geometry


@pytest.mark.parametrize("scale", [0.5, 0.75])
def test_resize_is_that_of_swscale(scale):
    y, x = np.mgrid[:60, :84]
    waves = [128 + 80 * np.sin(x / a + y / b) * np.cos(y / a) for a, b in ((2, 7), (3, 5), (9, 4))]
    frame = np.stack(waves, axis=-1).astype(np.uint8)
    real = media.resize(media.resize(frame, round(84 * scale), round(60 * scale)), 84, 60).astype(float)
    made = jax.jit(simulated.build((("resize", scale),)))(KEY, jnp.asarray(frame, jnp.float32) / 255)
    assert np.abs(np.round(255 * made) - real).max() <= 3
    assert np.mean((255 * made - real) ** 2) < 1


def resized(x, key, scale):
    return jax.jit(simulated.build((("resize", scale),)))(key, x)


@pytest.mark.slow
def test_resize_to_all_sizes():
    x = picture(shape=(2, 15, 22, 3))
    np.testing.assert_allclose(resized(x, KEY, 1), simulated.round_to_bits(KEY, x, 8), atol=1e-6)
    fixed, drawn = resized(x, KEY, 0.1), resized(x, KEY, (0.1, 0.1))
    np.testing.assert_allclose(fixed, drawn, atol=1 / 254)
    assert fixed.shape == x.shape
    wide = jax.jit(jax.value_and_grad(lambda x, key: jnp.sum(resized(x, key, (0.1, 1)))))
    for key in jax.random.split(KEY, 4):
        value, gradient = wide(x, key)
        assert np.isfinite(value)
        assert float(gradient.sum()) == pytest.approx(x.size, rel=0.01)  # the mean stays


@pytest.mark.parametrize(("name", "outside"), [("crop_pad", 0), ("crop_edge", None)])
def test_crop_keeps_a_window_in_place(name, outside):
    x = 0.1 + jnp.abs(picture(shape=(2, 20, 30, 3)))
    crop, corners = jax.jit(simulated.build(((name, 0.4),))), set()
    for key in jax.random.split(KEY, 12):
        made = np.asarray(crop(key, x))
        inside = np.all(made == np.asarray(x), axis=(0, 3))
        rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
        corners.add((rows[0], columns[0]))
        window = made[:, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        assert window.shape == (2, 12, 18, 3)
        if outside is None:
            around = ((0, 0), (rows[0], 19 - rows[-1]), (columns[0], 29 - columns[-1]), (0, 0))
            np.testing.assert_array_equal(made, np.pad(window, around, mode="edge"))
        else:
            assert np.all(made[:, ~inside] == outside)
    assert len(corners) > 6
    np.testing.assert_array_equal(simulated.build(((name, 0),))(KEY, x), x)


# Composition

EACH = (
    *((name, (0.1, 0.2)) for name in ("gaussian_noise", "crop_pad", "crop_edge")),
    ("shot_noise", (50, 100)),
    ("gamma", (0.5, 0.9)),
    ("resize", (0.3, 0.7)),
    ("jpeg", (20, 80)),
    ("video_codec", (20, 40, 9)),
    ("video_crf", (10, 40)),
)


@pytest.mark.parametrize("stage", EACH, ids=[name for name, _ in EACH])
def test_drawn_parameters_depend_on_the_key_only(stage):
    x = jnp.clip(picture(shape=(2, 16, 16, 3)), 0, 1)
    sent = jax.jit(jax.vmap(simulated.build((stage,)), (0, None)))
    keys = jax.random.split(KEY, 6)
    made = np.asarray(sent(keys, x))
    np.testing.assert_array_equal(made, sent(keys, x))
    assert len({example.tobytes() for example in made}) > 1
    others = jax.random.split(jax.random.key(4), 6)
    in_company = np.asarray(sent(jnp.concatenate([others[:3], keys[3:4], others[4:]]), x))
    np.testing.assert_array_equal(in_company[3], made[3])  # not on the rest of the batch


def test_one_of_draws_for_each_example():
    x = jnp.full((60, 4, 4, 3), 0.5)
    stages = (("chain", ()), ("gamma", 2), ("chain", (("gamma", 2), ("gamma", 2))))
    sent = jax.jit(jax.vmap(simulated.build((("one_of", stages),))))
    made = np.asarray(sent(jax.random.split(KEY, 60), x))
    np.testing.assert_allclose(np.ptp(made, axis=(1, 2, 3)), 0, atol=1e-6)
    values, counts = np.unique(made[:, 0, 0, 0].round(4), return_counts=True)
    np.testing.assert_allclose(values, [0.5**4, 0.25, 0.5], atol=1e-4)
    assert counts.min() > 8


@pytest.mark.slow
def test_a_mix_of_all_trains():
    mix = (
        ("one_of", (*EACH, ("yuv420", "bt601"), ("jpeg444", 90), ("chain", (("round", 8),)))),
        ("round", 8),
    )
    x, weights = picture(shape=(4, 2, 16, 16, 3)), picture(1, shape=(4, 2, 16, 16, 3))
    keys = jax.random.split(KEY, 4)
    loss = jax.jit(jax.grad(lambda x: jnp.sum(weights * jax.vmap(simulated.build(mix))(keys, x))))
    gradient = np.asarray(loss(x))
    assert np.all(np.isfinite(gradient))
    assert np.all(np.abs(gradient).sum(axis=(1, 2, 3, 4)) > 0)


def test_stages_of_a_config_that_was_saved_as_json():
    stages = (("one_of", (("gamma", (0.5, 2)), ("gamma", 2))), ("round", 8))
    x, again = picture(), json.loads(json.dumps(stages))
    np.testing.assert_array_equal(simulated.build(stages)(KEY, x), simulated.build(again)(KEY, x))


def test_unknown_name():
    with pytest.raises(UserError, match="'vhs'.*round, gaussian_noise.*one_of") as caught:
        simulated.build((("round", 8), ("vhs", 50)))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "stage",
    [
        ("jpeg", 0),
        ("jpeg", 101),
        ("jpeg", "75"),
        ("jpeg", (90, 80)),
        ("jpeg", (80, 90, 4)),
        ("round", 7.5),
        ("round", (7, 8)),
        ("round", True),
        ("gamma", 0),
        ("gamma", float("nan")),
        ("resize", 1.5),
        ("crop_pad", 1),
        ("yuv420", "bt2020"),
        ("yuv420", 601),
        ("video_codec", 52),
        ("video_codec", (20, 30, 0)),
        ("video_crf", (20, 30, 2.5)),
        ("video_crf", ()),
        ("one_of", ()),
        ("one_of", 8),
        ("one_of", (("jpeg", 200),)),
        ("chain", "jpeg"),
        ("jpeg",),
        "jpeg",
        (("jpeg", 75), ("round", 8)),
    ],
    ids=repr,
)
def test_wrong_parameters(stage):
    with pytest.raises(UserError, match="config.channel") as caught:
        simulated.build((stage,))
    assert "\n" not in str(caught.value)
