import numpy as np
import pytest

from deepsteg_jax.errors import UserError
from experiments.baselines import lsb_codec

MODULI = [2, 3, 5]


def random_bytes(count, seed=0):
    return np.random.default_rng(seed).bytes(count)


def noise(count=2, height=16, width=24, seed=0, low=0, high=256):
    shape = (count, height, width, 3)
    return np.random.default_rng(seed).integers(low, high, shape, dtype=np.uint8)


def moving(count=3, height=16, width=24, seed=0):
    """Coloured waves with a little noise, uint8 [count, height, width, 3]."""
    rng = np.random.default_rng(seed)
    t, y, x = np.mgrid[:count, :height, :width][..., None]
    waves = 128 + 90 * np.sin(0.3 * x + 0.2 * y + 0.5 * t + rng.uniform(0, 6, 3))
    return np.clip(waves + rng.normal(0, 2, waves.shape), 0, 255).astype(np.uint8)


def distance(a, b):
    return np.abs(a.astype(int) - b.astype(int))


def squared_error(a, b):
    return np.mean(np.square(distance(a, b)))


@pytest.mark.parametrize("modulus", MODULI)
@pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 1000])
def test_digits_round_trip(modulus, count):
    data = random_bytes(count)
    digits = lsb_codec.to_digits(data, modulus)
    assert digits.dtype == np.uint8
    assert set(np.unique(digits)) <= set(range(modulus))
    padded = data + bytes(-count % 8)
    assert lsb_codec.from_digits(digits, modulus) == padded
    unfinished = np.concatenate([digits, np.ones(11, np.uint8)])
    assert lsb_codec.from_digits(unfinished, modulus) == padded


@pytest.mark.parametrize("modulus", MODULI)
def test_digits_of_the_extremes(modulus):
    """The largest word needs every digit, and no fewer would do."""
    data = bytes(8) + b"\xff" * 8
    digits = lsb_codec.to_digits(data, modulus).reshape(2, -1)
    assert not digits[0].any()
    assert sum(int(d) * modulus**i for i, d in enumerate(digits[1])) == 2**64 - 1
    assert digits[1, -1] > 0
    assert lsb_codec.from_digits(digits.ravel(), modulus) == data


def test_digits_of_modulus_two_are_the_bits():
    data = random_bytes(16)
    bits = np.unpackbits(np.frombuffer(data, np.uint8), bitorder="little")
    np.testing.assert_array_equal(lsb_codec.to_digits(data, 2), bits)


@pytest.mark.parametrize("modulus", MODULI)
@pytest.mark.parametrize("cover", [noise(), noise(high=1), noise(low=255)], ids=["noise", "black", "white"])
def test_message_round_trip(modulus, cover):
    room = lsb_codec.capacity(cover.size, modulus)
    assert room > 100
    for length in (1, 50, room):
        message = random_bytes(length, seed=length)
        stego = lsb_codec.embed(cover, message, modulus)
        assert stego.shape == cover.shape and stego.dtype == np.uint8
        assert lsb_codec.extract(stego, modulus) == message


@pytest.mark.parametrize("modulus", MODULI)
def test_samples_move_to_the_nearest_value_and_only_those_of_the_message(modulus):
    cover = noise()
    message = random_bytes(lsb_codec.capacity(cover.size, modulus) // 2)
    end = len(lsb_codec.to_digits(bytes(8) + message, modulus))
    moved = distance(lsb_codec.embed(cover, message, modulus), cover).ravel()
    assert not moved[end:].any() and moved[:end].any()
    away = (cover >= modulus) & (cover <= 255 - modulus)
    assert moved[away.ravel()].max() == modulus // 2
    assert moved.max() < modulus


def test_capacity_is_rounded_down_and_never_negative():
    assert lsb_codec.capacity(64 * 10, 2) == 8 * 9
    assert lsb_codec.capacity(64 * 10 - 1, 2) == 8 * 8
    assert lsb_codec.capacity(63, 2) == lsb_codec.capacity(0, 5) == 0
    assert lsb_codec.capacity(10**6, 2) < lsb_codec.capacity(10**6, 3) < lsb_codec.capacity(10**6, 5)


@pytest.mark.parametrize("modulus", MODULI)
def test_message_that_is_too_long(modulus):
    cover = noise()
    room = lsb_codec.capacity(cover.size, modulus)
    with pytest.raises(ValueError, match=f"{room + 1} bytes"):
        lsb_codec.embed(cover, random_bytes(room + 1), modulus)


@pytest.mark.parametrize("modulus", MODULI)
@pytest.mark.parametrize("size", [(16, 24), (1, 2)])  # the second holds not even a length
def test_nothing_hidden(modulus, size):
    for read in (lsb_codec.extract, lsb_codec.reveal):
        with pytest.raises(UserError, match="no message") as caught:
            read(noise(2, *size, seed=5), modulus)
        assert "\n" not in str(caught.value)


def test_black_video_is_refused():
    with pytest.raises(UserError) as caught:
        lsb_codec.reveal(noise(high=1), 2)
    assert "\n" not in str(caught.value)


def test_compress_to_fit_is_lossless_where_there_is_room():
    secret = moving()
    coded = lsb_codec.compress_to_fit(secret, 10**6)
    np.testing.assert_array_equal(lsb_codec.decompress(coded), secret)
    exactly = lsb_codec.compress_to_fit(secret, len(coded))
    np.testing.assert_array_equal(lsb_codec.decompress(exactly), secret)


def test_compress_to_fit_takes_the_finest_that_fits():
    secret = moving()
    whole = len(lsb_codec.compress_to_fit(secret, 10**6))
    codings = [lsb_codec.compress(secret, crf) for crf in range(-11, 52, 3)]
    errors = []
    for room in (3 * whole // 4, 2 * whole // 3, whole // 2):
        coded = lsb_codec.compress_to_fit(secret, room)
        errors.append(squared_error(lsb_codec.decompress(coded), secret))
        fitting = [lsb_codec.decompress(other) for other in codings if len(other) <= room]
        assert len(coded) <= room and len(fitting) > 2
        assert errors[-1] <= 1.05 * min(squared_error(frames, secret) for frames in fitting)
    assert errors[0] < errors[1] < errors[2]


def test_every_colour_survives_the_way_to_10_bit_planes_and_back():
    levels = np.arange(256, dtype=np.uint8)
    for red in (0, 1, 77, 128, 254, 255):
        rgb = np.stack(np.broadcast_arrays(np.uint8(red), levels[:, None], levels), axis=-1)
        planes = lsb_codec.to_planes(rgb)
        assert planes.dtype == np.uint16 and planes.max() < 1024
        np.testing.assert_array_equal(lsb_codec.to_rgb(planes), rgb)


def test_planes_of_known_colours():
    white, black, blue = lsb_codec.to_planes(np.array([[255] * 3, [0] * 3, [0, 0, 255]], np.uint8))
    assert white.tolist() == [1023, 512, 512] and black.tolist() == [0, 512, 512]
    assert blue[0] == round(0.0722 * 1023) and blue[1] == 1023  # 0.5 * 1023 + 512, clipped


def test_a_second_coding_gives_the_same_bytes():
    secret = moving(6, 48, 64)
    first, second = (lsb_codec.decompress(lsb_codec.compress(secret, 5.25)) for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_compress_to_fit_without_room():
    with pytest.raises(UserError, match="200 bytes.*larger cover") as caught:
        lsb_codec.compress_to_fit(moving(), 200)
    assert "\n" not in str(caught.value)


def test_hide_and_reveal_without_loss():
    cover, secret = noise(3, 64, 64), moving()
    stego = lsb_codec.hide(cover, secret, 2)
    assert stego.shape == cover.shape and stego.dtype == np.uint8
    assert 0 < distance(stego, cover).max() <= 1
    np.testing.assert_array_equal(lsb_codec.reveal(stego, 2), secret)


def test_a_larger_modulus_reveals_more():
    cover, secret = noise(3, 32, 32), moving()
    errors = []
    for modulus in (3, 5):
        revealed = lsb_codec.reveal(lsb_codec.hide(cover, secret, modulus), modulus)
        assert revealed.shape == secret.shape and revealed.dtype == np.uint8
        errors.append(squared_error(revealed, secret))
    assert 20 > errors[0] > errors[1] > 0


@pytest.mark.parametrize("modulus", MODULI)
def test_a_changed_sample_is_noticed(modulus):
    stego = lsb_codec.embed(noise(), random_bytes(50), modulus).copy()
    place = len(lsb_codec.to_digits(bytes(16), modulus))  # inside the message
    stego.flat[place] ^= 1
    with pytest.raises(UserError, match="no message"):
        lsb_codec.extract(stego, modulus)


@pytest.mark.parametrize("value", [0, 255])
def test_flat_video_has_no_message(value):
    with pytest.raises(UserError, match="no message"):
        lsb_codec.extract(np.full((2, 16, 16, 3), value, np.uint8), 2)
