"""A secret in a number of bytes, by either coder."""

import math

import numpy as np
import pytest

from deepsteg_jax import media, metrics
from deepsteg_jax.errors import UserError
from deepsteg_jax.media import vvc
from deepsteg_jax.media.search import Trial
from deepsteg_jax.schemes.robust import secret_codec
from tests.synthetic import smooth

HAS = {"av1": media.has_encoder(secret_codec.AV1), "vvc": vvc.program() is not None}

pytestmark = pytest.mark.skipif(not any(HAS.values()), reason="there is no encoder of secrets")


@pytest.fixture(params=HAS)
def coder(request, monkeypatch):
    """The number of a coder; it is the one that is used."""
    if not HAS[request.param]:
        pytest.skip(f"there is no encoder for {request.param}")
    if request.param == "av1":
        monkeypatch.setattr(vvc, "program", lambda: None)
    return list(HAS).index(request.param)


def test_fits_and_gets_better_with_room(coder):
    secret, last = smooth(9, 90, 130), 0.0
    for capacity in (400, 1000, 4000):
        message, coding = secret_codec.encode(secret, capacity)
        assert len(message) <= capacity and message[0] == 16 * coder + coding.size
        shown = secret_codec.decode(message, *secret.shape[:3])
        assert shown.shape == secret.shape and shown.dtype == np.uint8
        assert metrics.mean_psnr(secret, shown) > last
        last = metrics.mean_psnr(secret, shown)
    assert last > 30


def test_a_single_frame(coder):
    secret = smooth(1, 64, 64)
    shown = secret_codec.decode(secret_codec.encode(secret, 900)[0], 1, 64, 64)
    assert metrics.mean_psnr(secret, shown) > 30


def test_the_one_before_tells_where_to_begin(coder):
    """A coding of the same size in pixels does, no other."""
    secret, tries = smooth(4, 64, 64), []
    message, coding = secret_codec.encode(secret, 700)
    made = secret_codec._CODERS[coder]

    def encode(frames, quantiser, rate, small):
        tries.append(quantiser)
        return made.encode(frames, quantiser, rate, small)

    with pytest.MonkeyPatch.context() as patch:
        coders = tuple(made._replace(encode=encode) for _ in HAS)
        patch.setattr(secret_codec, "_CODERS", coders)
        again, _ = secret_codec.encode(secret, 700, near=coding)
        assert abs(tries[0] - coding.trial.quantiser) <= 1 and len(again) <= 700
        if len(message) > 700 * secret_codec.FILLED + 1:
            assert len(tries) == 1
        tries.clear()
        far = coding.trial._replace(quantiser=999)
        secret_codec.encode(secret, 700, near=coding._replace(trial=far))
        assert tries[0] == made.quantisers[1]
        tries.clear()
        secret_codec.encode(secret, 700, near=secret_codec.Coding(coding.size + 1, far))
        assert tries[0] != made.quantisers[1]  # a quantiser of another size says nothing


@pytest.mark.parametrize("number", range(len(secret_codec.SIZES)))
def test_every_size_comes_back_whole(coder, number):
    secret, size, made = smooth(10, 64, 96), secret_codec.SIZES[number], secret_codec._CODERS[coder]
    small = secret_codec._shrink(secret, size, made.side)
    assert len(small) == -(-10 // size.stride) and not {x % made.side for x in small.shape[1:3]} - {0}
    stream = made.encode(small, made.usual.quantiser, media.FOLDER_RATE, number > 0)
    message = bytes([16 * coder + number]) + stream
    assert secret_codec.decode(message, 10, 64, 96).shape == secret.shape


def test_frames_between_are_mixed_from_their_neighbours():
    small = np.stack([np.full((8, 8, 3), level, np.uint8) for level in (0, 100, 200)])
    shown = secret_codec._grow(small, secret_codec.Size(0.5, 4), 11, 16, 16)
    assert shown[:, 0, 0, 0].tolist() == [0, 25, 50, 75, 100, 125, 150, 175, 200, 200, 200]


def test_too_little_room_is_refused(coder):
    with pytest.raises(UserError, match="does not fit into 20 bytes"):
        secret_codec.encode(smooth(4, 64, 64), 20)


@pytest.mark.parametrize(
    "message", [b"", bytes([99]) + b"x" * 50, bytes([15]) + b"x" * 50, bytes(60), bytes([16]) + bytes(60)]
)
def test_damage_is_refused(message):
    with pytest.raises(UserError) as caught:
        secret_codec.decode(message, 4, 64, 64)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("guess", [0, 30, 63])
@pytest.mark.parametrize("capacity", [90, 100, 1000, 12_345, 10**6])
def test_the_search_finds_the_finest_that_fits(guess, capacity):
    """Or one that fills most of the room, in few steps; with its bytes."""
    coder, tries = secret_codec._CODERS[0], []

    def coded(quantiser):
        return bytes(round(20_000 * math.exp(-0.08 * quantiser)) - 30)

    def encode_at(quantiser):
        tries.append(quantiser)
        return coded(quantiser)

    found = secret_codec._finest(coder, encode_at, capacity, Trial(guess, capacity, 0.065))
    assert len(tries) == len(set(tries)) <= 8
    if capacity == 90:  # less than the coarsest has
        assert found is None
        return
    trial, stream = found
    assert len(stream) <= capacity and stream == coded(trial.quantiser)
    finer = len(coded(trial.quantiser - 1)) > capacity or trial.quantiser == coder.quantisers[0]
    assert finer or len(stream) > secret_codec.FILLED * capacity
