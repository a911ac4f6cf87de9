"""VVC in few bytes: what is packed comes back, and damage is one line."""

import numpy as np
import pytest

from deepsteg_jax import metrics
from deepsteg_jax.errors import UserError
from deepsteg_jax.media import vvc
from tests.synthetic import smooth

needs_encoder = pytest.mark.skipif(vvc.program() is None, reason="there is no ffmpeg with VVenC")


@pytest.fixture(scope="module")
def stream():
    """Four coded frames."""
    return vvc.encode(smooth(4, 64, 96) // 2 + 60, 64)


@needs_encoder
@pytest.mark.parametrize(("size", "count"), [((64, 96), 4), ((136, 200), 1)])
def test_frames_come_back_in_order(size, count):
    frames = smooth(count, *size) // 2 + 60
    decoded = np.stack(vvc.decode(vvc.encode(frames, 64)))
    assert decoded.shape == frames.shape and decoded.dtype == np.uint8
    assert metrics.mean_psnr(frames, decoded) > 30
    errors = [[metrics.psnr(a, b) for a in frames] for b in decoded]
    np.testing.assert_array_equal(np.argmax(errors, axis=1), range(count))


@needs_encoder
@pytest.mark.parametrize(("count", "height", "width"), [(1, 64, 96), (8, 720, 1280)])
def test_parameters_take_few_bytes(count, height, width):
    stream = vvc.encode(np.full((count, height, width, 3), 90, np.uint8), vvc.COARSEST)
    assert len(vvc._separate(stream)[0]) < 60


@needs_encoder
def test_a_coarser_quantiser_takes_fewer_bytes(stream):
    half = vvc.encode(smooth(4, 64, 96) // 2 + 60, 65)
    whole = vvc.encode(smooth(4, 64, 96) // 2 + 60, 66)
    assert len(whole) <= len(half) < len(stream)
    coarse = vvc.encode(smooth(4, 64, 96) // 2 + 60, vvc.COARSEST)
    assert len(coarse) < len(stream) / 2 and len(vvc.decode(coarse)) == 4


@needs_encoder
@pytest.mark.parametrize("kept", [1, 10, 60, 0.5, -1])
def test_a_stream_that_is_cut_short_is_refused(stream, kept):
    kept = round(kept * len(stream)) if isinstance(kept, float) else kept
    _refused(stream[:kept])


@pytest.mark.parametrize("seed", range(6))
def test_what_is_no_stream_is_refused(seed):
    rng = np.random.default_rng(seed)
    _refused(rng.integers(0, 256, int(rng.integers(0, 400)), np.uint8).tobytes())


def _refused(stream):
    with pytest.raises(UserError, match="get an intact copy of it") as caught:
        vvc.decode(stream)
    assert "\n" not in str(caught.value)


@needs_encoder
def test_frames_that_cannot_be_coded_are_one_line():
    with pytest.raises(UserError, match="the VVC encoder failed: ") as caught:
        vvc.encode(smooth(1, 2, 2), 32)
    assert "\n" not in str(caught.value)


def test_a_missing_encoder_is_one_line(monkeypatch):
    monkeypatch.setattr(vvc, "program", lambda: None)
    with pytest.raises(UserError, match="pip install imageio-ffmpeg"):
        vvc.encode(smooth(1, 64, 64), 32)


@pytest.mark.parametrize("lengths", [[], [0], [1, 127, 128, 0, 16_383, 16_384], [3, 70_000]])
def test_joined_parts_come_apart(lengths):
    parts = [bytes([i]) * length for i, length in enumerate(lengths)]
    joined = vvc._joined(parts)
    assert vvc._separate(joined) == parts
    assert len(joined) - sum(lengths) <= sum(1 + (n > 127) + (n > 16_383) for n in lengths)


def test_units_begin_after_start_codes_of_either_length_and_a_byte_that_is_0():
    assert vvc._units(b"\0\0\0\1\0ab\0\0\1\0c\0d\0\0\0\1\0e") == [b"ab", b"c\0d", b"e"]
    assert vvc._units(b"") == []
