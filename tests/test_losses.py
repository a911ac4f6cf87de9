import jax
import jax.numpy as jnp
import numpy as np
import pytest
from skimage import color
from skimage.metrics import structural_similarity

from deepsteg_jax import losses, metrics
from deepsteg_jax.errors import UserError


def pictures():
    a, b = np.random.default_rng(0).uniform(size=(2, 1, 16, 24, 3)).astype(np.float32)
    return jnp.asarray(a), jnp.asarray(b)


def test_mean_squared_error():
    a, b = pictures()
    error = losses.mean_squared_error(a, b)
    assert error.shape == ()
    assert float(error) == pytest.approx(np.mean((np.float64(a) - np.float64(b)) ** 2), rel=1e-5)
    assert float(losses.mean_squared_error(a, a)) == 0
    assert float(losses.mean_squared_error(jnp.zeros(4), jnp.full(4, 0.5))) == 0.25


def test_mean_squared_error_gives_psnr():
    a, b = np.random.default_rng(1).integers(0, 256, (2, 16, 24, 3), dtype=np.uint8)
    error = losses.mean_squared_error(jnp.float32(a) / 255, jnp.float32(b) / 255)
    assert -10 * np.log10(float(error)) == pytest.approx(metrics.psnr(a, b), abs=1e-4)


def test_mean_squared_error_gradient():
    a, b = pictures()
    gradient = jax.grad(losses.mean_squared_error)(a, b)
    np.testing.assert_allclose(gradient, 2 * (a - b) / a.size, rtol=1e-5)


def test_total_loss():
    terms = {"stego": jnp.float32(2), "secret": jnp.float32(3), "penalty": jnp.float32(-1)}
    loss, logs = losses.total_loss(terms, {"secret": 10.0, "stego": 0.5, "penalty": 2.0})
    assert float(loss) == 29
    assert {name: float(value) for name, value in logs.items()} == {
        "loss": 29,
        "loss_stego": 2,
        "loss_secret": 3,
        "loss_penalty": -1,
        "weighted_stego": 1,
        "weighted_secret": 30,
        "weighted_penalty": -2,
    }


def test_total_loss_is_that_of_the_paper():
    a, b = pictures()

    def loss(cover, secret):
        terms = {
            "stego": losses.mean_squared_error(cover, b),
            "secret": losses.mean_squared_error(secret, b),
        }
        return losses.total_loss(terms, {"stego": 1.0, "secret": 0.75})[0]

    by_cover, by_secret = jax.grad(loss, argnums=(0, 1))(a, a)
    np.testing.assert_allclose(by_secret, 0.75 * by_cover, rtol=1e-5)
    expected = 1.75 * float(losses.mean_squared_error(a, b))
    assert float(loss(a, a)) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("weights", [{"stego": 1.0}, {"stego": 1.0, "secret": 1.0, "penalty": 1.0}, {}])
def test_names_must_agree(weights):
    with pytest.raises(KeyError, match="differ"):
        losses.total_loss({"stego": jnp.float32(1), "secret": jnp.float32(1)}, weights)


def test_dissimilarity_is_that_of_the_metric():
    a, b = np.random.default_rng(2).integers(0, 256, (2, 24, 31, 3), dtype=np.uint8)
    near = np.uint8(0.8 * a + 0.2 * b)
    dissimilarity = jax.jit(losses.dissimilarity)
    found = dissimilarity(jnp.float32(a) / 255, jnp.float32(near) / 255)
    options = {"channel_axis": -1, "data_range": 255, "gaussian_weights": True, "full": True}
    _, similar = structural_similarity(a, near, use_sample_covariance=False, **options)
    assert float(found) == pytest.approx(1 - similar[5:-5, 5:-5].mean(), abs=1e-4)
    video = jnp.stack([jnp.float32(x) / 255 for x in (a, b)])[None]
    assert float(dissimilarity(video, video)) == pytest.approx(0, abs=1e-5)
    blank = jnp.zeros((12, 11, 3))
    assert np.all(np.isfinite(jax.jit(jax.grad(losses.dissimilarity))(blank, blank)))


def test_colour_spaces():
    x = np.random.default_rng(3).uniform(size=(5, 7, 3)).astype(np.float32)
    x[0, 0], x[0, 1] = 0, 0.02
    np.testing.assert_array_equal(losses.to_space(x, "rgb"), x)
    np.testing.assert_allclose(
        jax.jit(losses.to_space, static_argnums=1)(x, "lab"), color.rgb2lab(x) / 100, atol=2e-3
    )
    in_bytes = color.rgb2ycbcr(x) - [16, 128, 128]
    np.testing.assert_allclose(losses.to_space(x, "ycbcr"), in_bytes / [219, 224, 224], atol=1e-3)
    gradient = jax.jit(jax.grad(lambda x: jnp.sum(losses.to_space(x, "lab"))))(
        jnp.asarray([0.0, -0.01, 1.01])
    )
    assert np.all(np.isfinite(gradient))
    with pytest.raises(UserError, match="losses.colour must be rgb, ycbcr or lab, not 'hsv'"):
        losses.to_space(x, "hsv")
