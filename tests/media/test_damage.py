import numpy as np
import pytest

from deepsteg_jax import media
from deepsteg_jax.errors import UserError
from tests.media.clips import packets_at, write
from tests.synthetic import film, noise


def read_until_error(path):
    frames = []
    with pytest.raises(UserError) as caught:
        for frame in media.read_frames(path):
            frames.append(frame)
    assert "\n" not in str(caught.value)
    assert path.name in str(caught.value)
    return frames, str(caught.value)


def test_cut_mkv_gives_its_frames_then_an_error(tmp_path):
    frames = noise(8)
    path = write(tmp_path / "a.mkv", frames)
    data, coded = path.read_bytes(), packets_at(path)
    for k in (1, 4, 7):
        for position in (coded[k][1] + 2, coded[k][1] + len(coded[k][0]) // 2):
            path.write_bytes(data[:position])
            readable, message = read_until_error(path)
            np.testing.assert_array_equal(readable, frames[:k])
            assert f"cut short after frame {k}" in message
    path.write_bytes(data[: coded[0][1] + 100])
    assert read_until_error(path)[0] == []
    path.write_bytes(data[:-3])  # only the index is hurt
    assert len(read_until_error(path)[0]) == 8
    path.write_bytes(data[:100])
    assert read_until_error(path)[0] == []


def test_part_of_a_cut_file_can_be_read(tmp_path):
    frames = noise(8)
    path = write(tmp_path / "a.mkv", frames)
    path.write_bytes(path.read_bytes()[: packets_at(path)[6][1]])
    np.testing.assert_array_equal(list(media.read_frames(path, 0, 5)), frames[:5])


@pytest.mark.parametrize("front", [True, False])
def test_cut_mp4(tmp_path, front):
    """The index of the second one is at its end, and lost."""
    if front:
        path = write(tmp_path / "a.mp4", noise(20), lossy=media.Lossy())
    else:
        path = film(tmp_path / "a.mp4", noise(20), codec="mpeg4", pixel_format="yuv420p")
    whole = list(media.read_frames(path))
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 2 // 3])
    readable, message = read_until_error(path)
    assert "cut short" in message
    if front:
        assert 5 < len(readable) < 20
        np.testing.assert_array_equal(readable, whole[: len(readable)])


@pytest.mark.parametrize("size", [(48, 64), (16, 16), (5, 17)])
def test_flipped_byte_in_a_frame(tmp_path, size):
    frames = noise(6, *size)
    path = write(tmp_path / "a.mkv", frames)
    data, coded = path.read_bytes(), packets_at(path)
    rng = np.random.default_rng(3)
    for k in (0, 3, 5):
        start = data.index(coded[k][0])
        for offset in [0, len(coded[k][0]) - 1, *rng.integers(0, len(coded[k][0]), 4)]:
            hurt = bytearray(data)
            hurt[start + offset] ^= 1 << int(rng.integers(8))
            path.write_bytes(hurt)
            readable, message = read_until_error(path)
            np.testing.assert_array_equal(np.array(readable).reshape(-1, *size, 3), frames[:k])
            assert f"damaged after frame {k}" in message


@pytest.mark.slow
def test_flipped_byte_anywhere_never_changes_frames_in_silence(tmp_path):
    frames = noise(5, 8, 8)
    path = write(tmp_path / "a.mkv", frames)
    data, first = path.read_bytes(), packets_at(path)[0][1]
    for position in range(first, len(data), 13):
        hurt = bytearray(data)
        hurt[position] ^= 0x55
        path.write_bytes(hurt)
        readable = []
        try:
            readable.extend(media.read_frames(path))
            np.testing.assert_array_equal(readable, frames)
        except UserError:
            np.testing.assert_array_equal(np.array(readable).reshape(-1, 8, 8, 3), frames[: len(readable)])


def test_a_flipped_byte_costs_one_frame(tmp_path):
    frames = noise(6)
    path = write(tmp_path / "a.mkv", frames)
    data, coded = path.read_bytes(), packets_at(path)
    for k in range(6):
        hurt = bytearray(data)
        hurt[data.index(coded[k][0]) + len(coded[k][0]) // 2] ^= 4
        path.write_bytes(hurt)
        damaged = []
        found = list(media.read_timed(path, damaged))
        assert damaged == [k] and len(found) == 6
        assert [frame.time for frame in found] == [40 * i for i in range(6)]
        for i in set(range(6)) - {k}:
            np.testing.assert_array_equal(found[i].frame, frames[i])
        assert (found[k].frame != frames[k]).any()
        damaged = []
        assert media.probe(path, damaged).width == 48


def test_a_flipped_byte_in_a_webm_costs_one_frame_at_most(tmp_path):
    """Nothing shows which one."""
    frames = noise(6)
    path = write(tmp_path / "a.webm", frames)
    data, coded = path.read_bytes(), packets_at(path)
    for k in (0, 2, 5):
        hurt = bytearray(data)
        hurt[data.index(coded[k][0]) + len(coded[k][0]) // 2] ^= 4
        path.write_bytes(hurt)
        found = [frame.frame for frame in media.read_timed(path, [])]
        assert len(found) == 6
        for i in set(range(6)) - {k}:
            np.testing.assert_array_equal(found[i], frames[i])


@pytest.mark.parametrize("k", [1, 3, 5])
def test_a_missing_frame_is_replaced_by_the_one_before(tmp_path, k):
    frames = noise(6)
    path = write(tmp_path / "a.mkv", frames)
    data, coded = path.read_bytes(), packets_at(path)
    begin, end = coded[k][1], data.index(coded[k][0]) + len(coded[k][0])
    path.write_bytes(data[:begin] + bytes(end - begin) + data[end:])
    damaged = []
    found = [frame.frame for frame in media.read_timed(path, damaged)]
    assert len(found) == 6 and k in damaged and 0 not in damaged
    for i in set(range(6)) - set(damaged):
        np.testing.assert_array_equal(found[i], frames[i])
    if k < 5:
        assert damaged == [k]
        np.testing.assert_array_equal(found[k], frames[k - 1])


def test_a_cut_file_is_read_as_far_as_it_goes(tmp_path):
    frames = noise(6)
    path = write(tmp_path / "a.mkv", frames)
    data, coded = path.read_bytes(), packets_at(path)
    for k in (1, 3, 5):
        path.write_bytes(data[: coded[k][1]])
        damaged = []
        found = [frame.frame for frame in media.read_timed(path, damaged)]
        np.testing.assert_array_equal(found, frames[:k])
        assert damaged == []
