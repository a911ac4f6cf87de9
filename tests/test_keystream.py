import struct

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20

from deepsteg_jax.keystream import (
    keystream,
    numpy_bits,
    numpy_keystream,
    numpy_permutation,
    permutation,
)

KEY = np.random.default_rng(7).integers(0, 2**32, 8, dtype=np.uint32)
KEY_BYTES = KEY.astype("<u4").tobytes()
COUNT = 48  # words; one size, since each is compiled

compiled_keystream = jax.jit(keystream, static_argnums=2)


def words(key):
    return jnp.asarray(np.frombuffer(key, "<u4"))


def chacha20(key, nonce, counter, size):
    """Keystream bytes from the cryptography package."""
    cipher = Cipher(ChaCha20(key, struct.pack("<I", counter) + nonce), mode=None)
    return cipher.encryptor().update(bytes(size))


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
    in_graph = np.asarray(compiled_keystream(words(key), 0, COUNT)).astype("<u4").tobytes()
    for stream in (in_graph, numpy_keystream(key, 0, 4 * COUNT).tobytes()):
        assert stream[64 * block :].startswith(bytes.fromhex(start))


@pytest.mark.parametrize("frame_index", [0, 77, 2**31 - 1, 2**32 - 1])
@pytest.mark.parametrize("purpose", [0, 1, 2**32 - 1])
def test_keystreams_of_jax_and_numpy_are_that_of_cryptography(frame_index, purpose):
    """The frame's number and the purpose are the first and second word of the nonce."""
    expected = chacha20(KEY_BYTES, struct.pack("<III", frame_index, purpose, 0), 0, 4 * COUNT)
    stream = np.asarray(
        compiled_keystream(jnp.asarray(KEY), np.uint32(frame_index), COUNT, np.uint32(purpose))
    )
    assert stream.dtype == np.uint32 and stream.shape == (COUNT,)
    assert stream.astype("<u4").tobytes() == expected
    assert numpy_keystream(KEY_BYTES, frame_index + (purpose << 32), 4 * COUNT).tobytes() == expected


@pytest.mark.parametrize("count", [1, 33])
def test_a_shorter_keystream_is_the_beginning_of_a_longer_one(count):
    longer = np.asarray(compiled_keystream(jnp.asarray(KEY), 5, COUNT))
    np.testing.assert_array_equal(compiled_keystream(jnp.asarray(KEY), 5, count), longer[:count])
    np.testing.assert_array_equal(
        numpy_bits(KEY_BYTES, 5, 8 * count + 3), np.unpackbits(longer.view("u1"))[: 8 * count + 3]
    )


@pytest.mark.parametrize("size", [1, 500])
def test_permutations_of_jax_and_numpy_sort_64_bit_words(size):
    stream = chacha20(KEY_BYTES, struct.pack("<I", 5) + bytes(8), 0, 8 * size)
    expected = np.argsort(np.frombuffer(stream, "<u8"), kind="stable")
    np.testing.assert_array_equal(permutation(jnp.asarray(KEY), 5, size), expected)
    np.testing.assert_array_equal(numpy_permutation(KEY_BYTES, 5, size), expected)


def test_permutations_differ_by_purpose():
    in_graph = jax.jit(permutation, static_argnums=2)
    orders = [np.asarray(in_graph(jnp.asarray(KEY), 5, 500, np.uint32(purpose))) for purpose in range(4)]
    for i, one in enumerate(orders):
        np.testing.assert_array_equal(np.sort(one), np.arange(500))
        np.testing.assert_array_equal(one, numpy_permutation(KEY_BYTES, 5 + (i << 32), 500))
        for other in orders[:i]:
            assert np.mean(one == other) < 0.03
