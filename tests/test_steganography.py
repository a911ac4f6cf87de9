import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from deepsteg_jax import keys, metrics, models, steganography
from deepsteg_jax.errors import UserError
from deepsteg_jax.models import Model

SHAPE = (16, 24)
KEY = keys.key_words(bytes(range(32)))
WRONG = keys.key_words(bytes(range(1, 33)))
MOVES = ("secret", "cover", "nothing")
# Blocks of the cover: with the model of nibbles, in `test_stages_are_in_their_place`.
WAYS = pytest.mark.parametrize(
    ("moves", "cipher"), [("cover", "coefficients"), ("secret", "blocks"), ("secret", "coefficients")]
)


def shuffle_of(moves, block_size=8, cipher="blocks"):
    return ConfigDict({"moves": moves, "cipher": cipher, "block_size": block_size})


def clip(seed, shape=(4, *SHAPE)):
    """A smooth moving picture with a little noise, uint8 [n, h, w, 3]."""
    rng = np.random.default_rng(seed)
    f, y, x = np.mgrid[: shape[0], : shape[1], : shape[2]][..., None]
    video = 128 + rng.uniform(-2, 2, 3) * (y - shape[1] / 2) + rng.uniform(-2, 2, 3) * (x - shape[2] / 2)
    video = video + 90 * np.sin(0.3 * x + 0.2 * y + 0.4 * f + rng.uniform(0, 6, 3))
    video += rng.normal(0, 1, video.shape)
    return np.clip(np.round(video), 0, 255).astype(np.uint8)


def decibels(a, b):
    return np.mean([metrics.psnr(np.asarray(x), np.asarray(y)) for x, y in zip(a, b, strict=True)])


def nibbles(shapes=None):
    """A model without parameters: the secret's upper four bits become the stego's lower four."""

    def hide(params, cover, secret):
        if shapes is not None:
            shapes.append(cover.shape)

        def upper(x):
            return jnp.floor(jnp.round(x * 255) / 16)

        return (upper(cover) * 16 + upper(secret)) / 255

    def reveal(params, stego):
        if shapes is not None:
            shapes.append(stego.shape)
        return jnp.mod(jnp.round(stego * 255), 16) * 16 / 255

    return Model(lambda key: {"hide": {}, "reveal": {}}, hide, reveal)


@functools.cache
def block_dct():
    """The main model, untrained, and its params."""
    settings = {"name": "block_dct", "modulus": 3, "frames": 4, "classes": 8, "features": 8, "depth": 0}
    model = models.build(ConfigDict(settings))
    return model, jax.jit(model.init)(jax.random.key(0))


@functools.cache
def hidden(moves, cipher="blocks"):
    """(codec, reveal params, stego, revealed) of two clips."""
    model, params = block_dct()
    codec = steganography.Codec(model, shuffle_of(moves, cipher=cipher), 4)
    stego = np.asarray(codec.hide(params["hide"], KEY, 0, clip(1), clip(2)))
    return codec, params["reveal"], stego, np.asarray(codec.reveal(params["reveal"], KEY, 0, stego))


@WAYS
def test_round_trip(moves, cipher):
    _, _, stego, revealed = hidden(moves, cipher)
    assert stego.dtype == revealed.dtype == np.uint8
    assert stego.shape == revealed.shape == clip(1).shape
    assert decibels(clip(1), stego) > 49.5
    assert decibels(clip(2), revealed) > {"cover": 39, "secret": 36.5}[moves]


@pytest.mark.slow
def test_moving_the_cover_costs_nothing():
    _, _, stego, revealed = hidden("cover", "coefficients")
    _, _, plain_stego, plain = hidden("nothing")
    np.testing.assert_array_equal(revealed, plain)
    assert np.mean(stego != plain_stego) > 0.1
    assert decibels(clip(1), plain_stego) == pytest.approx(decibels(clip(1), stego), abs=0.2)


@WAYS
def test_wrong_key_reveals_nothing(moves, cipher):
    codec, params, stego, _ = hidden(moves, cipher)
    wrong = codec.reveal(params, WRONG, 0, stego)
    later = codec.reveal(params, KEY, 4, stego)  # the right key, the wrong frames
    for other in (wrong, later):
        assert decibels(clip(2), other) < 12


def grids(count=6, shape=SHAPE):
    """Random covers and secrets that the nibble model carries exactly."""
    rng = np.random.default_rng(0)
    cover = rng.integers(0, 256, (count, *shape, 3), dtype=np.uint8)
    return cover, rng.integers(0, 16, (count, *shape, 3)).astype(np.uint8) * 16


@pytest.mark.parametrize("moves", MOVES)
def test_stages_are_in_their_place(moves):
    cover, secret = grids(4)
    codec = steganography.Codec(nibbles(), shuffle_of(moves, 4), 2)
    stego = np.asarray(codec.hide({}, KEY, 5, cover, secret))
    np.testing.assert_array_equal(stego // 16, cover // 16)  # the cover is not seen to move
    np.testing.assert_array_equal(codec.reveal({}, KEY, 5, stego), secret)
    scattered = stego % 16 * 16
    assert np.array_equal(scattered, secret) == (moves == "nothing")
    shuffled = steganography.shuffle_blocks(jnp.asarray(secret), KEY, 5, 4)
    unshuffled = steganography.unshuffle_blocks(jnp.asarray(secret), KEY, 5, 4)
    expected = {"secret": shuffled, "cover": unshuffled, "nothing": secret}
    np.testing.assert_array_equal(scattered, expected[moves])


@pytest.mark.slow
def test_scattered_samples_carry_every_digit():
    """All the way through 8 bits, although half of the samples are turned over, at a size of no blocks."""
    cover, secret = grids(2, (7, 13))
    codec = steganography.Codec(nibbles(), shuffle_of("cover", cipher="coefficients"), 2)
    stego = np.asarray(codec.hide({}, KEY, 5, cover, secret))
    np.testing.assert_array_equal(stego // 16, cover // 16)
    np.testing.assert_array_equal(codec.reveal({}, KEY, 5, stego), secret)
    assert np.mean(stego % 16 * 16 == secret) < 0.15
    assert np.mean(np.asarray(codec.reveal({}, KEY, 6, stego)) == secret) < 0.15


@pytest.mark.parametrize("moves", ["secret", "cover"])
def test_every_example_has_its_key_and_frames(moves):
    cover, secret = [jnp.asarray(x, jnp.float32).reshape(3, 2, 16, 24, 3) / 255 for x in grids()]
    ways = jnp.stack([KEY, KEY, WRONG])
    firsts = jnp.asarray([0, 2, 0])
    model, shuffle = nibbles(), shuffle_of(moves, 4)
    hide = jax.jit(functools.partial(steganography.hide, model, shuffle, {}))
    stego = hide(ways, firsts, cover, secret)
    same = jnp.repeat(stego[:1], 3, axis=0)
    reveal = jax.jit(functools.partial(steganography.reveal, model, shuffle, {}))
    np.testing.assert_allclose(reveal(ways, firsts, stego), secret, atol=1e-6)
    seen = np.asarray(reveal(ways, firsts, same))
    np.testing.assert_allclose(seen[0], secret[0], atol=1e-6)
    for i in (1, 2):
        assert np.mean(np.abs(seen[i] - secret[0]) > 0.01) > 0.5


def test_images_are_videos_of_one_frame():
    cover, secret = [jnp.asarray(x[:3], jnp.float32) / 255 for x in grids()]
    ways, firsts = jnp.broadcast_to(KEY, (3, 8)), jnp.arange(3)

    @jax.jit
    def both(cover, secret):
        hide = functools.partial(steganography.hide, nibbles(), shuffle_of("cover", 4), {}, ways, firsts)
        return hide(cover, secret), hide(cover[:, None], secret[:, None])

    image, video = both(cover, secret)
    assert (image.shape, video.shape) == ((3, 16, 24, 3), (3, 1, 16, 24, 3))
    np.testing.assert_array_equal(image, video[:, 0])


def test_groups_in_one_call_or_several():
    cover, secret = grids(6)
    codec = steganography.Codec(nibbles(), shuffle_of("cover", 4), 2)
    together = np.asarray(codec.hide({}, KEY, 10, cover, secret))
    for i in (0, 2, 4):
        part = codec.hide({}, KEY, 10 + i, cover[i : i + 2], secret[i : i + 2])
        np.testing.assert_array_equal(part, together[i : i + 2])
        np.testing.assert_array_equal(codec.reveal({}, KEY, 10 + i, together[i : i + 2]), secret[i : i + 2])


@pytest.mark.parametrize(
    ("frames", "count", "shape"),
    [
        (4, 8, (2, 4, 16, 24, 3)),
        (4, 4, (1, 4, 16, 24, 3)),
        (4, 3, (1, 3, 16, 24, 3)),  # the end of a clip
        (4, 1, (1, 16, 24, 3)),
        (1, 5, (5, 16, 24, 3)),  # a model of images
    ],
)
def test_group_shapes(frames, count, shape):
    cover, secret = grids(count)
    shapes = []
    codec = steganography.Codec(nibbles(shapes), shuffle_of("nothing"), frames)
    stego = codec.hide({}, KEY, 0, cover, secret)
    revealed = codec.reveal({}, KEY, 0, np.asarray(stego))
    assert shapes == [shape, shape]
    np.testing.assert_array_equal(revealed, secret)


@pytest.mark.parametrize(("frames", "count"), [(4, 5), (4, 6), (4, 11), (3, 4)])
def test_counts_that_no_groups_make(frames, count):
    cover, secret = grids(count)
    codec = steganography.Codec(nibbles(), shuffle_of("cover"), frames)
    with pytest.raises(ValueError, match=f"{count} frames.*{frames}"):
        codec.hide({}, KEY, 0, cover, secret)
    with pytest.raises(ValueError, match=f"{count} frames.*{frames}"):
        codec.reveal({}, KEY, 0, cover)


def test_compiles_once_for_every_size():
    chex.clear_trace_counter()
    model = nibbles()
    counted = model._replace(
        hide=chex.assert_max_traces(model.hide, n=2), reveal=chex.assert_max_traces(model.reveal, n=2)
    )
    codec = steganography.Codec(counted, shuffle_of("cover"), 2)
    for size in (SHAPE, (8, 8)):  # two sizes, two traces; keys and frame numbers are data
        cover, secret = grids(2, size)
        for first, key in ((0, KEY), (2, KEY), (1000, WRONG), (0, WRONG)):
            stego = np.asarray(codec.hide({}, key, first, cover, secret))
            np.testing.assert_array_equal(codec.reveal({}, key, first, stego), secret)
    with pytest.raises(AssertionError):  # a third size is a third trace, so the count above is real
        codec.hide({}, KEY, 0, *grids(2, (8, 16)))


def test_stego_is_clipped_and_rounded():
    wild = Model(
        lambda key: {},
        lambda params, cover, secret: cover * 3 - 1 + 0.4 / 255,
        lambda params, stego: stego * 3 - 1 - 0.4 / 255,
    )
    cover = np.arange(0, 256, 4, dtype=np.uint8).repeat(3).reshape(1, 8, 8, 3)
    codec = steganography.Codec(wild, shuffle_of("nothing"), 1)
    expected = np.clip(3 * np.int32(cover) - 255, 0, 255)
    np.testing.assert_array_equal(codec.hide({}, KEY, 0, cover, cover), expected)
    np.testing.assert_array_equal(codec.reveal({}, KEY, 0, cover), expected)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"moves": "both"}, "'both'"),
        ({"cipher": "aes"}, "blocks or coefficients, not 'aes'"),
        ({"block_size": 0}, "block_size.*not 0"),
        ({"moves": "nothing", "cipher": ""}, "not ''"),
    ],
)
def test_wrong_sections(changed, message):
    x = jnp.zeros((1, 8, 8, 3))
    arguments = ({}, KEY[None], jnp.zeros(1, jnp.int32), x)
    shuffle = shuffle_of("cover")
    shuffle.update(changed)
    for call in (
        lambda: steganography.hide(nibbles(), shuffle, *arguments, x),
        lambda: steganography.reveal(nibbles(), shuffle, *arguments),
    ):
        with pytest.raises(UserError, match=message) as caught:
            call()
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("moves", "cipher", "block_size", "smallest"),
    [
        ("secret", "blocks", 16, 16),
        ("cover", "blocks", 5, 5),
        ("secret", "coefficients", 16, 8),
        ("cover", "coefficients", 16, 1),
    ],
)
def test_frames_smaller_than_a_block(moves, cipher, block_size, smallest):
    shuffle = shuffle_of(moves, block_size, cipher)
    assert steganography.transform(shuffle).smallest == smallest
    ways, firsts = KEY[None], jnp.zeros(1, jnp.int32)
    for shape in ((1, smallest - 1, 40, 3), (1, 2, 40, smallest - 1, 3)):
        x = jax.ShapeDtypeStruct(shape, jnp.float32)
        run = functools.partial(steganography.hide, nibbles(), shuffle, {}, ways, firsts)
        if smallest > 1:
            with pytest.raises(UserError, match=f"{smallest} pixels"):
                jax.eval_shape(run, x, x)
    x = jax.ShapeDtypeStruct((1, smallest, smallest, 3), jnp.float32)
    assert jax.eval_shape(run, x, x).shape == x.shape
