import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deepsteg_jax import shuffle
from deepsteg_jax.keystream import numpy_permutation

KEY = np.random.default_rng(7).integers(0, 2**32, 8, dtype=np.uint32)
KEY_BYTES = KEY.astype("<u4").tobytes()
SHAPE = (2, 19, 26, 3)  # 4x6 blocks of 4 pixels and a margin; most tests share it, since each compiles


shuffle_blocks = jax.jit(shuffle.shuffle_blocks, static_argnums=3)
unshuffle_blocks = jax.jit(shuffle.unshuffle_blocks, static_argnums=3)


def frames_of(shape, dtype, seed=0):
    rng = np.random.default_rng(seed)
    if dtype == np.uint8:
        return rng.integers(0, 256, shape, dtype=np.uint8)
    return rng.normal(size=shape).astype(dtype)


@pytest.mark.parametrize(
    ("shape", "block_size", "dtype"),
    [
        (SHAPE, 4, np.uint8),
        (SHAPE, 4, np.float32),
        ((2, 13, 10, 1), 1, np.float32),
        ((1, 9, 9, 3), 3, np.uint8),  # without a margin
        ((2, 4, 24, 3), 8, np.uint8),  # no whole block at all
    ],
)
def test_inverse_is_exact(shape, block_size, dtype):
    frames = frames_of(shape, dtype)
    shuffled = shuffle_blocks(jnp.asarray(frames), KEY, 3, block_size)
    assert shuffled.dtype == dtype
    assert shuffled.shape == shape
    back = unshuffle_blocks(shuffled, KEY, 3, block_size)
    assert np.asarray(back).tobytes() == frames.tobytes()
    other_way = unshuffle_blocks(jnp.asarray(frames), KEY, 3, block_size)
    assert np.asarray(shuffle_blocks(other_way, KEY, 3, block_size)).tobytes() == frames.tobytes()


def test_moves_whole_blocks_by_the_permutation():
    frames = frames_of(SHAPE, np.uint8)
    shuffled = np.asarray(shuffle_blocks(jnp.asarray(frames), KEY, 9, 4))
    for i in range(2):
        order = numpy_permutation(KEY_BYTES, 9 + i, 4 * 6)
        for place, source in enumerate(order):
            y, x = 4 * (place // 6), 4 * (place % 6)
            v, u = 4 * (source // 6), 4 * (source % 6)
            np.testing.assert_array_equal(shuffled[i, y : y + 4, x : x + 4], frames[i, v : v + 4, u : u + 4])
    np.testing.assert_array_equal(shuffled[:, 16:], frames[:, 16:])  # what no whole block covers stays
    np.testing.assert_array_equal(shuffled[:, :, 24:], frames[:, :, 24:])


def test_keeps_every_pixel_and_moves_most():
    frames = np.arange(np.prod(SHAPE), dtype=np.float32).reshape(SHAPE)
    shuffled = np.asarray(shuffle_blocks(jnp.asarray(frames), KEY, 0, 4))
    for before, after in zip(frames, shuffled, strict=True):
        np.testing.assert_array_equal(np.sort(after.ravel()), before.ravel())
        assert np.mean(before[:16, :24] != after[:16, :24]) > 0.8


def test_every_frame_has_its_own_permutation():
    frames = jnp.asarray(np.repeat(frames_of((1, *SHAPE[1:]), np.uint8), 2, axis=0))
    first, later = (np.asarray(shuffle_blocks(frames, KEY, number, 4)) for number in (0, 1))
    assert len({frame.tobytes() for frame in (*first, later[1])}) == 3
    np.testing.assert_array_equal(later[0], first[1])


@pytest.mark.parametrize("word", range(8))
@pytest.mark.parametrize("bit", [0, 31])
def test_every_key_word_matters(word, bit):
    frames = frames_of(SHAPE, np.uint8)
    other = KEY.copy()
    other[word] ^= np.uint32(1 << bit)
    shuffled = shuffle_blocks(jnp.asarray(frames), KEY, 0, 4)
    wrong = np.asarray(unshuffle_blocks(shuffled, other, 0, 4))
    assert np.mean(wrong[:, :16, :24] != frames[:, :16, :24]) > 0.5


def test_jit_equals_eager():
    frames = jnp.asarray(frames_of(SHAPE, np.float32))
    eager = shuffle.shuffle_blocks(frames, KEY, 6, 4)
    compiled = shuffle_blocks(frames, KEY, 6, 4)
    np.testing.assert_array_equal(eager, compiled)
    np.testing.assert_array_equal(shuffle.unshuffle_blocks(eager, KEY, 6, 4), frames)


def test_gradient_follows_the_pixels():
    frames = jnp.asarray(frames_of(SHAPE, np.float32))
    weights = jnp.asarray(frames_of(SHAPE, np.float32, seed=1))
    gradient = jax.grad(lambda x: jnp.sum(weights * shuffle_blocks(x, KEY, 0, 4)))(frames)
    np.testing.assert_array_equal(gradient, unshuffle_blocks(weights, KEY, 0, 4))
