import struct

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20

from deepsteg_jax import shuffle

KEY = np.random.default_rng(7).integers(0, 2**32, 8, dtype=np.uint32)

keystream = jax.jit(shuffle.keystream, static_argnums=2)
permutation = jax.jit(shuffle.permutation, static_argnums=2)
shuffle_blocks = jax.jit(shuffle.shuffle_blocks, static_argnums=3)
unshuffle_blocks = jax.jit(shuffle.unshuffle_blocks, static_argnums=3)


@pytest.fixture(scope="module", autouse=True)
def compile_fast():
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


def words(key):
    return jnp.asarray(np.frombuffer(key, "<u4"))


def chacha20(key, nonce, counter, size):
    """Keystream bytes from the cryptography package."""
    cipher = Cipher(ChaCha20(key, struct.pack("<I", counter) + nonce), mode=None)
    return cipher.encryptor().update(bytes(size))


def frames_of(shape, dtype, seed=0):
    rng = np.random.default_rng(seed)
    if dtype == np.uint8:
        return rng.integers(0, 256, shape, dtype=np.uint8)
    return rng.normal(size=shape).astype(dtype)


def test_reference_is_rfc_8439():
    # RFC 8439, section 2.3.2: what the other tests compare with is ChaCha20 as published.
    stream = chacha20(bytes(range(32)), bytes.fromhex("000000090000004a00000000"), 1, 64)
    assert stream == bytes.fromhex(
        "10f1e7e4d13b5915500fdd1fa32071c4c7d1f4c733c068030422aa9ac3d46c4e"
        "d2826446079faa0914c2d705d98b02a2b5129cd1de164eb9cbd083e8a2503c4e"
    )


@pytest.mark.parametrize(
    ("key", "block", "start"),
    [  # RFC 8439, appendix A.1, the vectors whose nonce is zero
        (bytes(32), 0, "76b8e0ada0f13d90405d6ae55386bd28bdd219b8a08ded1aa836efcc8b770dc7"),
        (bytes(32), 1, "9f07e7be5551387a98ba977c732d080dcb0f29a048e3656912c6533e32ee7aed"),
        (b"\0\xff" + bytes(30), 2, "72d54dfbf12ec44b362692df94137f328fea8da73990265ec1bbbea1ae9af0ca"),
    ],
)
def test_keystream_has_published_values(key, block, start):
    stream = np.asarray(keystream(words(key), 0, 48))
    assert stream[16 * block : 16 * block + 16].astype("<u4").tobytes().startswith(bytes.fromhex(start))


@pytest.mark.parametrize("frame_index", [0, 1, 77, 2**31 - 1])
@pytest.mark.parametrize("count", [1, 16, 33])
def test_keystream_is_that_of_cryptography(frame_index, count):
    stream = np.asarray(keystream(jnp.asarray(KEY), frame_index, count))
    assert stream.dtype == np.uint32
    assert stream.shape == (count,)
    nonce = struct.pack("<I", frame_index) + bytes(8)
    assert stream.astype("<u4").tobytes() == chacha20(KEY.astype("<u4").tobytes(), nonce, 0, 4 * count)


def test_keystream_takes_the_largest_frame_index():
    stream = np.asarray(keystream(jnp.asarray(KEY), np.uint32(2**32 - 1), 20))
    expected = chacha20(KEY.astype("<u4").tobytes(), b"\xff" * 4 + bytes(8), 0, 80)
    assert stream.astype("<u4").tobytes() == expected


@pytest.mark.parametrize("purpose", [0, 1, 4, 2**32 - 1])
def test_purpose_is_the_second_word_of_the_nonce(purpose):
    stream = np.asarray(keystream(jnp.asarray(KEY), 77, 33, np.uint32(purpose)))
    nonce = struct.pack("<III", 77, purpose, 0)
    assert stream.astype("<u4").tobytes() == chacha20(KEY.astype("<u4").tobytes(), nonce, 0, 132)


def test_permutations_differ_by_purpose():
    orders = [np.asarray(permutation(jnp.asarray(KEY), 5, 500, purpose)) for purpose in range(4)]
    for i, one in enumerate(orders):
        np.testing.assert_array_equal(np.sort(one), np.arange(500))
        for other in orders[:i]:
            assert np.mean(one == other) < 0.03
    np.testing.assert_array_equal(orders[0], permutation(jnp.asarray(KEY), 5, 500))


@pytest.mark.parametrize("size", [1, 37, 500])
def test_permutation_sorts_64_bit_words(size):
    stream = chacha20(KEY.astype("<u4").tobytes(), struct.pack("<I", 5) + bytes(8), 0, 8 * size)
    expected = np.argsort(np.frombuffer(stream, "<u8"), kind="stable")
    np.testing.assert_array_equal(permutation(jnp.asarray(KEY), 5, size), expected)


@pytest.mark.parametrize(
    ("shape", "block_size", "dtype"),
    [
        ((2, 16, 24, 3), 4, np.float32),
        ((3, 17, 29, 3), 8, np.uint8),
        ((3, 17, 29, 3), 8, np.float32),
        ((2, 13, 10, 1), 1, np.float32),
        ((2, 13, 10, 3), 3, np.uint8),
        ((1, 8, 8, 3), 8, np.uint8),
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
    frames = frames_of((2, 19, 26, 3), np.uint8)
    shuffled = np.asarray(shuffle_blocks(jnp.asarray(frames), KEY, 9, 4))
    for i in range(2):
        order = np.asarray(permutation(jnp.asarray(KEY), 9 + i, 4 * 6))
        for place, source in enumerate(order):
            y, x = 4 * (place // 6), 4 * (place % 6)
            v, u = 4 * (source // 6), 4 * (source % 6)
            np.testing.assert_array_equal(shuffled[i, y : y + 4, x : x + 4], frames[i, v : v + 4, u : u + 4])
    np.testing.assert_array_equal(shuffled[:, 16:], frames[:, 16:])  # what no whole block covers stays
    np.testing.assert_array_equal(shuffled[:, :, 24:], frames[:, :, 24:])


def test_keeps_every_pixel_and_moves_most():
    frames = np.arange(2 * 24 * 32 * 3, dtype=np.float32).reshape(2, 24, 32, 3)
    shuffled = np.asarray(shuffle_blocks(jnp.asarray(frames), KEY, 0, 4))
    for before, after in zip(frames, shuffled, strict=True):
        np.testing.assert_array_equal(np.sort(after.ravel()), before.ravel())
        assert np.mean(before != after) > 0.8


def test_every_frame_has_its_own_permutation():
    frames = np.repeat(frames_of((1, 16, 24, 3), np.uint8), 4, axis=0)
    shuffled = np.asarray(shuffle_blocks(jnp.asarray(frames), KEY, 0, 4))
    assert len({frame.tobytes() for frame in shuffled}) == 4
    later = np.asarray(shuffle_blocks(jnp.asarray(frames[:2]), KEY, 2, 4))
    np.testing.assert_array_equal(later, shuffled[2:])


@pytest.mark.parametrize("word", range(8))
@pytest.mark.parametrize("bit", [0, 31])
def test_every_key_word_matters(word, bit):
    frames = frames_of((1, 16, 24, 3), np.uint8)
    other = KEY.copy()
    other[word] ^= np.uint32(1 << bit)
    shuffled = shuffle_blocks(jnp.asarray(frames), KEY, 0, 4)
    wrong = np.asarray(unshuffle_blocks(shuffled, other, 0, 4))
    assert np.mean(wrong != frames) > 0.5


def test_jit_equals_eager():
    frames = jnp.asarray(frames_of((2, 16, 24, 3), np.float32))
    eager = shuffle.shuffle_blocks(frames, KEY, 6, 4)
    compiled = shuffle_blocks(frames, KEY, 6, 4)
    np.testing.assert_array_equal(eager, compiled)
    np.testing.assert_array_equal(shuffle.unshuffle_blocks(eager, KEY, 6, 4), frames)


def test_gradient_follows_the_pixels():
    frames = jnp.asarray(frames_of((1, 8, 8, 3), np.float32))
    weights = jnp.asarray(frames_of((1, 8, 8, 3), np.float32, seed=1))
    gradient = jax.grad(lambda x: jnp.sum(weights * shuffle_blocks(x, KEY, 0, 2)))(frames)
    np.testing.assert_array_equal(gradient, unshuffle_blocks(weights, KEY, 0, 2))
