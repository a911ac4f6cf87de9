"""The codec proxies against the codecs."""

from functools import cache
from io import BytesIO

import av
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from deepsteg_jax import media
from deepsteg_jax.channels import simulated
from deepsteg_jax.channels import simulated_codecs as codecs
from deepsteg_jax.colour import MATRICES, ycbcr

KEY = jax.random.key(5)


def clip(frames=1, height=64, width=96, seed=0, deviation=3):
    """uint8 [t, h, w, 3]: smooth colours, edges and some noise; still but for the noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    waves = [128 + 60 * np.sin(x / a + y / b) for a, b in rng.uniform(4, 20, (3, 2))]
    picture = np.stack(waves, axis=-1) + 50 * ((x // 16 + y // 16) % 2)[..., None]
    return np.clip(picture + rng.normal(0, deviation, (frames, height, width, 3)), 0, 255).astype(np.uint8)


@cache
def compiled(name, parameter):
    return jax.jit(simulated.build(((name, parameter),)))


@cache
def compiled_for_any(name):
    """Channel `name` for any quality: as drawn from a range that has no other one."""
    return jax.jit(lambda x, quality: simulated.CHANNELS[name].apply(KEY, x, (quality, quality)))


def send(frames, name, parameter):
    """What a channel makes of uint8 frames, as whole numbers."""
    x = jnp.asarray(frames, jnp.float32) / 255
    if isinstance(parameter, int):
        received = compiled_for_any(name)(x, float(parameter))
    else:
        received = compiled(name, parameter)(KEY, x)
    assert received.dtype == jnp.float32
    assert received.shape == frames.shape
    whole = np.round(255 * np.asarray(received))
    np.testing.assert_allclose(255 * np.asarray(received), whole, atol=1e-3)
    return whole.astype(int)


def psnr(a, b):
    return 10 * np.log10(255**2 / np.mean((np.asarray(a, float) - b) ** 2))


def through_swscale(frame, pixel_format):
    return av.VideoFrame.from_ndarray(frame, format="rgb24").reformat(format=pixel_format)


# Colours


@pytest.mark.parametrize("noise", [False, True])
def test_yuv420_is_that_of_swscale(noise):
    frame = np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8) if noise else clip()[0]
    real = through_swscale(frame, "yuv420p").to_ndarray(format="rgb24").astype(int)
    # On other processors than x86 swscale rounds in another way.
    apart = np.abs(send(frame, "yuv420", "bt601") - real)
    assert apart.max() <= 4
    assert np.mean(apart) < 1.5
    assert psnr(real, send(frame, "yuv420", "bt601")) > psnr(real, frame)


def test_luma_is_that_of_swscale_to_the_bit():
    frame = clip(seed=1)[0]
    plane = through_swscale(frame, "yuv420p").to_ndarray()[:64]
    y, _ = codecs._to_420(jnp.asarray(frame[None], jnp.float32), ycbcr("bt601"))
    np.testing.assert_array_equal(np.round(y[0]), plane)


def test_yuv444_is_that_of_swscale():
    frame = clip()[0]
    real = through_swscale(frame, "yuv444p").to_ndarray(format="rgb24").astype(int)
    assert np.abs(send(frame, "yuv444", "bt601") - real).max() <= 3
    assert psnr(real, send(frame, "yuv444", "bt601")) > 55


@pytest.mark.parametrize("name", MATRICES)
def test_colours_come_back(name):
    frame = clip()[0]
    assert psnr(frame, send(frame, "yuv444", name)) > 48
    gray = np.full_like(frame, 77)
    assert np.abs(send(gray, "yuv420", name) - 77).max() <= 1
    kind = ycbcr(name)
    np.testing.assert_allclose(kind.matrix.sum(axis=1)[1:], 0, atol=1e-4)  # grey has no chroma
    white = 255 * kind.matrix[0].sum() + kind.offset[0]
    assert white == pytest.approx(255 if name.endswith("full") else 235, abs=0.02)


def test_chroma_gradient_is_spread_over_four_by_two_pixels():
    x = jnp.full((16, 16, 3), 0.5)
    gradient = jax.jit(jax.grad(lambda x: compiled("yuv420", "bt601_full")(KEY, x)[8, 8, 2]))(x)
    # Blue comes of luma in place and of Cb of a pair of columns and four rows.
    touched = np.argwhere(np.abs(np.asarray(gradient)[..., 2]) > 1e-6)
    assert (touched.min(axis=0).tolist(), touched.max(axis=0).tolist()) == ([7, 8], [10, 9])
    assert float(gradient.sum()) == pytest.approx(1, abs=1e-3)


# JPEG


def through_pillow(frame, quality, subsampling):
    buffer = BytesIO()
    Image.fromarray(frame).save(buffer, "jpeg", quality=quality, subsampling=subsampling)
    return np.asarray(Image.open(buffer).convert("RGB")).astype(int)


@pytest.mark.parametrize(("name", "subsampling"), [("jpeg", "4:2:0"), ("jpeg444", "4:4:4")])
@pytest.mark.parametrize("quality", [20, 75, 90])
def test_jpeg_is_that_of_pillow(name, subsampling, quality):
    frame = clip(height=61, width=91)[0]
    real, made = through_pillow(frame, quality, subsampling), send(frame, name, quality)
    assert psnr(real, made) > 47
    assert psnr(frame, made) == pytest.approx(psnr(frame, real), abs=0.1)


@pytest.mark.parametrize("quality", [1, 30, 50, 75, 100])
def test_jpeg_tables(quality):
    buffer = BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "jpeg", quality=quality)
    tables = Image.open(buffer).quantization
    np.testing.assert_array_equal(codecs.jpeg_tables(quality), [tables[0], tables[1]])


def test_best_jpeg_changes_little():
    frame = clip(height=61, width=91)[0]
    assert psnr(frame, send(frame, "jpeg444", 100)) > 50


def test_jpeg_quality_is_drawn_from_a_range():
    x = jnp.asarray(clip(height=61, width=91)[0], jnp.float32) / 255
    ranged = compiled("jpeg", (10, 95))
    keys = jax.random.split(KEY, 8)
    errors = [float(jnp.mean((ranged(key, x) - x) ** 2)) for key in keys]
    low, high = (float(jnp.mean((compiled_for_any("jpeg")(x, q) - x) ** 2)) for q in (95.0, 10.0))
    assert len(set(errors)) > 4
    assert all(low <= error <= high for error in errors)
    np.testing.assert_array_equal(ranged(keys[0], x), ranged(keys[0], x))


# Quantisation


@pytest.mark.parametrize("rounding", [1 / 2, 1 / 3, 1 / 6])
def test_gradient_is_that_of_the_quantiser_averaged_over_a_step(rounding):
    step, x = 3.0, np.linspace(-7, 7, 57)
    dither = step * (np.arange(4000) + 0.5) / 4000 - step / 2

    def averaged(x):
        return np.mean(codecs.quantise(jnp.asarray(x[:, None] + dither), step, rounding), axis=1)

    slope = (averaged(x + 0.05) - averaged(x - 0.05)) / 0.1
    gradient = jax.vmap(jax.grad(lambda x: codecs.quantise(x, step, rounding)))(jnp.asarray(x))
    away = np.abs(np.abs(x) / step - (0.5 - rounding)) > 0.05  # the edge of the dead zone
    np.testing.assert_allclose(gradient[away], slope[away], atol=0.04)


def test_dead_zone():
    x = jnp.asarray([0.8, 0.86, -0.86, 1.8, 1.86])
    np.testing.assert_allclose(codecs.quantise(2 * x, 2, 1 / 6), [0, 2, -2, 2, 4], atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(
    "stage",
    [("yuv420", "bt601"), ("jpeg", 95), ("jpeg444", 95), ("video_codec", 24), ("video_crf", (18, 28, 250))],
)
def test_gradient_follows_the_smoothed_channel(stage):
    """Against differences along a random direction, averaged over noise that hides the steps."""
    x = jnp.asarray(clip(2, 16, 32), jnp.float32) / 255 * 0.8 + 0.1
    sent, rng = simulated.build((stage,)), np.random.default_rng(3)
    weights, change = (jnp.asarray(rng.normal(0, 1, x.shape), jnp.float32) for _ in range(2))
    noise = jnp.asarray(rng.normal(0, 0.04, (400, *x.shape)), jnp.float32)
    loss = jax.jit(jax.vmap(jax.value_and_grad(lambda x: jnp.mean(weights * sent(KEY, x)))))
    expected = (loss(x + noise + 0.02 * change)[0] - loss(x + noise - 0.02 * change)[0]) / 0.04
    gradients = loss(x + noise)[1]
    assert np.all(np.isfinite(gradients))
    found = jnp.sum(gradients * change, axis=(1, 2, 3, 4))
    error = 4 * float(jnp.std(expected - found)) / 20
    assert float(jnp.mean(found)) == pytest.approx(float(jnp.mean(expected)), abs=error + 2e-4)
    assert float(jnp.linalg.norm(gradients[0])) > 0.3 * float(jnp.linalg.norm(weights)) / weights.size


# H.264


def through_x264(frames, **options):
    words = {name: str(value) for name, value in options.items()}
    return np.stack(media.decompress(media.compress(frames, "libx264", "yuv420p", words))).astype(int)


@pytest.mark.parametrize(("name", "option"), [("video_codec", "qp"), ("video_crf", "crf")])
@pytest.mark.parametrize("quality", [20, 28])
def test_quality_is_that_of_x264(name, option, quality):
    """Fitted on natural clips; on this one it must at least not be far off."""
    frames = clip(4)
    real, made = through_x264(frames, **{option: quality}), send(frames, name, quality)
    assert psnr(frames, made) == pytest.approx(psnr(frames, real), abs=3)


def test_error_grows_with_qp():
    frames = clip(4)
    errors = [psnr(frames, send(frames, "video_codec", qp)) for qp in (0, 20, 32, 51)]
    assert all(a > b + 0.5 for a, b in zip(errors[:-1], errors[1:], strict=True))


def test_qp_0_is_little_more_than_420():
    frames = clip(4)
    coarse = send(frames, "yuv420", "bt601")
    assert psnr(coarse, send(frames, "video_codec", 0)) > 45


def test_one_frame_is_an_i_frame():
    frames = clip(4)
    np.testing.assert_array_equal(send(frames, "video_codec", 30)[0], send(frames[0], "video_codec", 30))


def hold(frames, received):
    errors = (received - frames.astype(float))[..., 1]
    errors -= errors.mean(axis=(1, 2), keepdims=True)
    return np.corrcoef(errors[:-1].ravel(), errors[1:].ravel())[0, 1]


def test_p_frames_hold_the_error_of_the_frame_before():
    frames = np.repeat(clip(1), 4, axis=0)
    received = send(frames, "video_codec", 32)
    np.testing.assert_array_equal(received[1:], received[:-1])  # nothing new: all is skipped
    noisy = clip(4, deviation=2)
    held = hold(noisy, send(noisy, "video_codec", 28))
    fresh = hold(noisy, send(noisy, "video_codec", (28, 28, 1)))  # I frames only
    assert held > fresh + 0.03
    assert hold(noisy, through_x264(noisy, qp=28)) == pytest.approx(held, abs=0.1)


@pytest.mark.slow
def test_gradient_of_skipped_coefficients_goes_to_the_frame_before():
    x = jnp.asarray(np.repeat(clip(1, 32, 32), 2, axis=0), jnp.float32) / 255
    weights = jnp.asarray(np.random.default_rng(0).normal(0, 1, x.shape), jnp.float32)
    sent = compiled("video_codec", 30)
    gradient = jax.jit(jax.grad(lambda x: jnp.sum((weights * sent(KEY, x))[1])))(x)
    before, own = jnp.sum(gradient**2, axis=(1, 2, 3))
    assert before > 2 * own
    only = jax.jit(jax.grad(lambda x: jnp.sum((weights * sent(KEY, x))[0])))(x)[1]
    np.testing.assert_array_equal(only, 0)


def test_gop_starts_anywhere():
    places = [np.asarray(codecs.intra_frames(key, 8, 4)) for key in jax.random.split(KEY, 32)]
    assert {tuple(np.flatnonzero(place)) for place in places} == {(0, 4), (1, 5), (2, 6), (3, 7)}
    np.testing.assert_array_equal(codecs.intra_frames(KEY, 3), [True, False, False])
    assert np.all(codecs.intra_frames(KEY, 5, 1))


def test_steps_of_h264():
    np.testing.assert_allclose(codecs.step_of(np.array([4, 10, 28])), [1, 2, 16])
    offset = codecs.CHROMA_QP_OFFSET
    np.testing.assert_allclose(codecs.chroma_qp(np.array([20, 30, 39, 51]) - offset), [20, 29, 35, 39])


def test_adaptive_qp_follows_the_energy_of_a_macroblock():
    flat, busy = jnp.zeros((1, 16, 16)), jnp.asarray(np.random.default_rng(0).normal(0, 40, (1, 16, 16)))
    chroma = jnp.full((1, 2, 8, 16), 128.0)
    low, high = codecs.adaptive_qp(jnp.concatenate([flat, busy], axis=2), chroma)[0, 0]
    assert low == pytest.approx(-1.0397 * 14.427, abs=1e-3)
    assert high == pytest.approx(1.0397 * (np.log2(np.var(busy) * 256) - 14.427), abs=1e-3)


@pytest.mark.parametrize(
    ("stage", "shape"),
    [
        (("jpeg", 50), (17, 33, 3)),
        (("jpeg", 50), (3, 5, 9, 3)),
        (("video_codec", 24), (3, 5, 9, 3)),
        (("video_crf", 23), (17, 33, 3)),
        (("yuv420", "bt709"), (17, 33, 3)),
    ],
)
def test_any_size(stage, shape):
    frames = np.random.default_rng(0).integers(90, 110, shape, np.uint8)
    assert psnr(frames, send(frames, *stage)) > 25
