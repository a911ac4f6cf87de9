import jax.numpy as jnp
import numpy as np
import pytest
from scipy.fft import dct as scipy_dct

from deepsteg_jax import dct


def noise(size, seed=0):
    """Two frames of 2 x 3 blocks."""
    return np.random.default_rng(seed).uniform(-1, 1, (2, 2 * size, 3 * size, 3)).astype(np.float32)


def basis_pictures(size):
    """The block of every coefficient, [3 * size * size, size, size, 3]."""
    each = jnp.eye(3 * size * size)[:, None, None]
    return np.asarray(dct.from_blocks(each, size))


def sign_changes(x, axis):
    return np.count_nonzero(np.diff(np.sign(x), axis=axis), axis=axis).max()


@pytest.mark.parametrize("size", [1, 2, 3, 8])
def test_dct_matrix_against_scipy(size):
    expected = scipy_dct(np.eye(size), axis=0, norm="ortho")
    np.testing.assert_allclose(dct.dct_matrix(size), expected, atol=1e-6)
    np.testing.assert_array_equal(dct.dct_matrix(size, 1), dct.dct_matrix(size)[:1])


@pytest.mark.parametrize("size", [2, 4, 8])
def test_inverse_and_energy(size):
    frames = noise(size)
    coefficients = dct.to_blocks(frames, size)
    assert coefficients.shape == (2, 2, 3, 3 * size * size)
    np.testing.assert_allclose(dct.from_blocks(coefficients, size), frames, atol=1e-5)
    assert np.sum(np.square(coefficients)) == pytest.approx(np.sum(np.square(frames)), rel=1e-5)


@pytest.mark.parametrize("size", [2, 4, 8])
def test_basis_is_orthonormal(size):
    flat = basis_pictures(size).reshape(3 * size * size, -1)
    np.testing.assert_allclose(flat @ flat.T, np.eye(len(flat)), atol=1e-5)


@pytest.mark.parametrize("size", [2, 4, 8])
def test_coefficients_lie_by_rising_frequency_in_every_colour(size):
    found = []
    for picture in basis_pictures(size):
        strongest = picture[..., np.argmax(np.abs(picture).sum((0, 1)))]
        found.append(sign_changes(strongest, 0) + sign_changes(strongest, 1))
    for colour in np.reshape(found, (3, -1)):
        assert list(colour) == sorted(colour)
        np.testing.assert_array_equal(colour, dct.diagonal_frequencies(size))


def test_a_block_depends_on_its_own_pixels_only():
    frames = noise(4)
    changed = frames.copy()
    changed[1, 4:, 8:] += 0.5
    difference = dct.to_blocks(changed, 4) - dct.to_blocks(frames, 4)
    assert np.argwhere(np.abs(difference).max(-1) > 1e-5).tolist() == [[1, 1, 2]]


@pytest.mark.parametrize("size", [2, 4, 8])
def test_grey_has_only_the_first_coefficient(size):
    coefficients = np.array(dct.to_blocks(np.full((1, size, 2 * size, 3), 0.25, np.float32), size))
    np.testing.assert_allclose(coefficients[..., 0], 0.25 * 3**0.5 * size, rtol=1e-5)
    assert np.abs(coefficients[..., 1:]).max() < 1e-6


def test_colours_are_lightness_red_blue_and_green_magenta():
    colours = np.array([[1, 1, 1], [1, 0, -1], [1, -2, 1]])
    pictures = np.broadcast_to(colours[:, None, None], (3, 2, 2, 3))
    coefficients = dct.to_blocks(pictures.astype(np.float32), 2)[:, 0, 0, ::4]  # DC of each colour
    np.testing.assert_allclose(coefficients, 2 * np.diag([3, 2, 6]) ** 0.5, atol=1e-5)


def test_blocks_of_two_are_haar():
    frames = noise(2)
    lightness = frames.sum(-1) / 3**0.5
    a, b, c, d = (lightness[:, i::2, j::2] for i in (0, 1) for j in (0, 1))
    expected = np.stack([a + b + c + d, a - b + c - d, a + b - c - d, a - b - c + d], axis=-1) / 2
    np.testing.assert_allclose(dct.to_blocks(frames, 2)[..., :4], expected, atol=1e-5)
