import os
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from deepsteg_jax import media
from deepsteg_jax.errors import UserError
from tests.synthetic import noise


@pytest.mark.parametrize("size", [(16, 24), (13, 7)])
@pytest.mark.parametrize(
    "codec", [("libx264rgb", "rgb24", {"crf": "0"}), ("ffv1", "bgr0", {})], ids=lambda codec: codec[0]
)
def test_compress_without_loss(size, codec):
    frames = noise(5, *size)
    found = media.decompress(media.compress(iter(frames), *codec))
    assert {frame.dtype for frame in found} == {np.dtype(np.uint8)}
    np.testing.assert_array_equal(found, frames)


def test_compress_obeys_its_options():
    frames = noise(4, 16, 24)
    coded = [media.compress(frames, "libx264rgb", "rgb24", {"crf": crf}) for crf in ("0", "20", "40")]
    errors = [np.mean(np.square(np.subtract(media.decompress(data), frames, dtype=float))) for data in coded]
    assert len(coded[0]) > len(coded[1]) > len(coded[2])
    assert errors[0] == 0 < errors[1] < errors[2]


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="threads have no such policies here")
@pytest.mark.skipif(not media.has_encoder("libsvtav1"), reason="this build of FFmpeg lacks SVT-AV1")
def test_no_thread_of_an_encoder_is_of_real_time():
    """Only root can see it fail."""
    found, usual = [], os.sched_getscheduler(0)

    def policies():
        for task in Path("/proc/self/task").iterdir():
            with suppress(ProcessLookupError):  # some other thread, which ended meanwhile
                yield os.sched_getscheduler(int(task.name))

    def frames():
        for frame in noise(3, 64, 96):
            found.append(set(policies()))
            yield frame

    media.compress(frames(), "libsvtav1", "yuv420p", {"crf": "50", "preset": "10"})
    assert found == [{usual}] * 3 and os.sched_getscheduler(0) == usual


def test_decompress_refuses_what_is_no_video():
    coded = media.compress(noise(2, 16, 24), "libx264rgb", "rgb24", {})
    for data in (b"", b"this is no video" * 50, bytes(1000), coded[:40]):
        with pytest.raises(UserError, match="damaged") as caught:
            media.decompress(data)
        assert "\n" not in str(caught.value)
