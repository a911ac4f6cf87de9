"""Held bits: exact without a codec, through real codecs, and nothing but one clear line otherwise."""

import hashlib

import numpy as np
import pytest

from deepsteg_jax import media, metrics
from deepsteg_jax.channels import ladder
from deepsteg_jax.errors import UserError
from experiments.baselines import digital
from experiments.baselines.digital import Settings, embed, extract

KEY, OTHER = bytes(range(32)), bytes(32)


def _clip(n=16, h=96, w=128, seed=0):
    """A pattern of all frequencies that moves a little, and never saturates."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(size=(h + 16, w + 16, 3))
    spectrum = np.fft.fft2(noise, axes=(0, 1))
    y, x = np.meshgrid(np.fft.fftfreq(h + 16), np.fft.fftfreq(w + 16), indexing="ij")
    picture = np.fft.ifft2(spectrum / (0.02 + np.hypot(y, x))[..., None], axes=(0, 1)).real
    picture = 128 + 30 * (picture - picture.mean()) / picture.std()
    frames = [picture[i // 2 : i // 2 + h, i : i + w] for i in np.arange(n) % 16]
    return np.clip(np.round(frames), 40, 215).astype(np.uint8)


def _message(settings, shape, seed=1):
    return np.random.default_rng(seed).bytes(settings.capacity(shape))


@pytest.mark.parametrize("shape", [(16, 96, 128), (11, 50, 61), (1, 64, 64)])
def test_round_trip(shape):
    cover = _clip(*shape)
    for message in (b"", b"x", _message(Settings(), cover.shape)):
        stego = embed(cover, KEY, message, Settings())
        assert stego.shape == cover.shape and stego.dtype == np.uint8
        assert extract(stego, KEY, Settings()) == message


def test_capacity_is_what_the_code_leaves_of_the_settingss():
    settings = Settings(coefficients=5, repeat=4, rate=0.5)
    assert settings.bits((9, 40, 47, 3)) == 3 * 5 * 5 * 5
    assert settings.capacity((9, 40, 47, 3)) == int(375 * 0.5) // 8 - digital.HEADER


def test_what_lies_outside_whole_blocks_stays():
    cover = _clip(8, 50, 61)
    stego = embed(cover, KEY, b"secret", Settings())
    assert np.array_equal(stego[:, 48:], cover[:, 48:]) and np.array_equal(stego[:, :, 56:], cover[:, :, 56:])


def test_frames_of_a_group_move_alike():
    cover = _clip(8)
    move = embed(cover, KEY, b"secret", Settings()).astype(int) - cover
    assert np.abs(move - move[:1]).max() <= 1 and np.abs(move[0]).mean() > 2  # rounding


@pytest.mark.parametrize("modulus, coefficients", [(44.0, 9), (64.0, 4)])
def test_stego_quality_is_that_of_a_uniform_error(modulus, coefficients):
    cover = _clip()
    stego = embed(cover, KEY, _message(Settings(), cover.shape)[:50], Settings(coefficients, modulus))
    expected = 10 * np.log10(255**2 / (coefficients / 64 * modulus**2 / 12))
    assert metrics.mean_psnr(cover, stego) == pytest.approx(expected, abs=0.3)


@pytest.mark.parametrize("name", ["C1", "C2", "C3", "C5", "C6", "C7", "C10"])
def test_codecs(name):
    codec_run = ladder.named(name)
    if not media.has_encoder(codec_run.codec):
        pytest.skip(f"this build of FFmpeg lacks {codec_run.codec}")
    cover = _clip()
    message = _message(Settings(), cover.shape)
    received = ladder.run(codec_run, embed(cover, KEY, message, Settings())).frames
    assert extract(received, KEY, Settings()) == message


def test_the_code_mends_what_the_codec_broke():
    """Some bits are read wrongly, and the message survives by the code."""
    cover, settings = _clip(), Settings()
    stego = embed(cover, KEY, _message(settings, cover.shape), settings)
    received = ladder.run(ladder.named("CRF24"), stego).frames
    sides = [
        digital._coefficients(x, settings) % settings.modulus > settings.modulus / 2
        for x in (stego, received)
    ]
    assert np.mean(sides[0] != sides[1]) > 0.005
    assert extract(received, KEY, settings) == _message(settings, cover.shape)


def test_black_and_white_covers():
    cover = np.repeat([0, 255], 8)[:, None, None, None] * np.ones((1, 128, 128, 3), int)
    for frames in (cover[:8], cover[8:]):
        message = b"in the dark"
        assert extract(
            embed(frames.astype(np.uint8), KEY, message, Settings(4, 64.0)), KEY, Settings(4, 64.0)
        ) == (message)


@pytest.mark.parametrize("frames, key", [("stego", OTHER), ("cover", KEY), ("grey", KEY), ("noise", KEY)])
def test_no_message(frames, key):
    cover = _clip(8)
    shown = {
        "stego": embed(cover, KEY, b"secret", Settings()),
        "cover": cover,
        "grey": np.full_like(cover, 128),
        "noise": np.random.default_rng(2).integers(0, 256, cover.shape, np.uint8),
    }
    with pytest.raises(UserError, match="no message is left"):
        extract(shown[frames], key, Settings())


def test_the_key_scatters_the_bits():
    cover = _clip(8)
    moves = [
        embed(cover, key, b"secret", Settings()).astype(float).ravel() - cover.ravel() for key in (KEY, OTHER)
    ]
    assert abs(np.corrcoef(moves)[0, 1]) < 0.6  # the cover's part of a move is common to both


def test_a_message_that_is_too_long():
    cover = _clip(8, 64, 64)
    room = Settings().capacity(cover.shape)
    with pytest.raises(UserError, match=f"{room + 1} bytes do not fit: these frames carry {room}"):
        embed(cover, KEY, bytes(room + 1), Settings())


def test_frames_that_are_too_small():
    for shape in ((8, 8, 8, 3), (8, 4, 4, 3)):
        with pytest.raises(UserError, match="carry 0|too small"):
            embed(np.zeros(shape, np.uint8), KEY, b"x", Settings())
        with pytest.raises(UserError, match="too small|no message"):
            extract(np.zeros(shape, np.uint8), KEY, Settings())


def test_what_is_embedded_never_changes():
    """The published figures are those of these bits."""
    noise = np.random.default_rng(7).integers(0, 256, (16, 96, 120, 3)).astype(np.uint8)
    stego = embed(noise, KEY, bytes(range(100)), Settings())
    assert hashlib.sha256(stego.tobytes()).hexdigest()[:16] == "4ee87a3f664e8266"
