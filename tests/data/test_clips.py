"""The folder of clips: what is decoded, which frames an example has, errors."""

from itertools import islice

import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image

from deepsteg_jax import media
from deepsteg_jax.data import create_pairs, create_validation
from deepsteg_jax.errors import UserError

HEIGHT, WIDTH = 24, 32


def _config(path, **changes) -> ConfigDict:
    fields = {
        "source": "clips",
        "path": str(path),
        "validation_path": "",
        "height": 8,
        "width": 12,
        "frames": 4,
        "max_stride": 1,
        "flip": False,
        "min_scale": 1.0,
        "cache_height": HEIGHT,
        "cache_width": WIDTH,
        "max_frames": 64,
    }
    return ConfigDict(fields | changes)


def _write(folder, length: int, value: int = 0, size=(HEIGHT, WIDTH)):
    """Pixel (y, x) of frame f is (value + f, y, x)."""
    folder.mkdir()
    y, x = np.mgrid[: size[0], : size[1]]
    for f in range(length):
        pixels = np.stack([np.full_like(x, value + f), y, x], -1).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{f:03}.png")


def _covers(config, count=20):
    """Of training."""
    batches = create_pairs(config, seed=0, batch_size=4)
    return np.concatenate([b["cover"] for b in islice(batches, count)])


def _validation_covers(config):
    """Of one pass, without what fills up its last batch."""
    batches = create_validation(config, batch_size=4)()
    return np.concatenate([b["cover"][b["weight"] > 0] for b in batches])


def test_examples_are_consecutive_parts_of_one_clip(tmp_path):
    _write(tmp_path / "a", 10)
    _write(tmp_path / "b", 7, value=100)
    firsts = set()
    for clip in _covers(_config(tmp_path), count=50):
        first, y, x = clip[0, 0, 0].tolist()
        assert 0 <= first <= 6 or 100 <= first <= 103
        assert np.array_equal(clip[..., 0], np.broadcast_to(first + np.arange(4)[:, None, None], (4, 8, 12)))
        assert np.array_equal(clip[..., 1], np.broadcast_to(y + np.arange(8)[:, None], (4, 8, 12)))
        assert np.array_equal(clip[..., 2], np.broadcast_to(x + np.arange(12), (4, 8, 12)))
        firsts.add(first)
    assert firsts == {*range(7), *range(100, 104)}


def test_clips_are_drawn_equally_often_whatever_their_length(tmp_path):
    _write(tmp_path / "a", 40)
    _write(tmp_path / "b", 4, value=100)
    clips = _covers(_config(tmp_path), count=55)  # 220 examples: 20 epochs of 11
    assert abs(int(np.sum(clips[:, 0, 0, 0, 0] >= 100)) - 110) <= 10


def test_strides_are_drawn_up_to_what_the_clip_allows(tmp_path):
    _write(tmp_path / "a", 8)
    steps = np.diff(_covers(_config(tmp_path, max_stride=3))[:, :, 0, 0, 0].astype(int))
    assert np.all(steps == steps[:, :1]) and set(steps.ravel()) == {1, 2}


def test_flip_is_one_for_the_whole_clip(tmp_path):
    _write(tmp_path / "a", 6)
    steps = np.diff(_covers(_config(tmp_path, flip=True))[..., 2].astype(int), axis=-1)
    assert {int(s) for s in steps.ravel()} == {1, -1}
    assert all(len(np.unique(s)) == 1 for s in steps)


def test_scaled_crops(tmp_path):
    _write(tmp_path / "a", 6)
    clips = _covers(_config(tmp_path, min_scale=0.4))
    assert clips.shape[1:] == (4, 8, 12, 3)
    spans = np.ptp(clips[:, 0, 0, :, 2].astype(int), axis=-1)
    assert spans.min() == 11 or spans.max() > 20
    assert spans.max() <= WIDTH - 1


def test_evaluation_takes_the_first_frames_at_the_centre(tmp_path):
    _write(tmp_path / "a", 4)
    _write(tmp_path / "b", 20, value=100)
    clips = _validation_covers(_config(tmp_path, flip=True, max_stride=3, min_scale=0.5))
    assert clips[:, :, 0, 0].tolist() == [[[v + f, 8, 10] for f in range(4)] for v in (0, 100)]


def test_single_frames(tmp_path):
    _write(tmp_path / "a", 3)
    config = _config(tmp_path, frames=1, max_stride=5)
    images = _covers(config)
    assert images.shape == (80, 8, 12, 3) and set(images[:, 0, 0, 0]) == {0, 1, 2}


def test_kept_frames_are_bounded_and_spread(tmp_path):
    for name in "abc":
        _write(tmp_path / name, 30, value=ord(name))
    config = _config(tmp_path, max_frames=6)
    firsts = {int(c[0, 0, 0, 0]) for c in _covers(config, count=60)}
    wanted = {ord(n) + start + k for n, start in zip("abc", (0, 12, 24), strict=True) for k in range(3)}
    assert firsts == wanted


def test_other_shapes_are_scaled_to_cover_and_cut_at_the_centre(tmp_path):
    _write(tmp_path / "a", 4, size=(48, 128))
    clips = _validation_covers(_config(tmp_path, height=HEIGHT, width=WIDTH))
    across = clips[0, 0, HEIGHT // 2, :, 2].astype(int)
    assert abs(across[0] - 32) <= 3 and abs(across[-1] - 95) <= 3


def test_video_files(tmp_path):
    path = tmp_path / "a.mkv"
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    with media.Writer(path, 25) as writer:
        for f in range(9):
            writer.write(np.stack([np.full_like(x, 20 * f), y, x], -1).astype(np.uint8))
    clips = _covers(_config(tmp_path))
    assert set(clips[:, 0, 0, 0, 0]) <= {20 * f for f in range(6)}
    assert np.all(np.diff(clips[:, :, 0, 0, 0].astype(int)) == 20)


def test_unusable_clips_are_skipped_with_a_warning(tmp_path, caplog):
    _write(tmp_path / "a", 5)
    _write(tmp_path / "short", 3)
    (tmp_path / "empty").mkdir()
    (tmp_path / "b.mp4").write_text("no video")
    (tmp_path / "notes.txt").write_text("not looked at")
    assert len(_validation_covers(_config(tmp_path))) == 1
    assert "skipped 3 of 4" in caplog.text


def test_clip_shorter_than_it_says(tmp_path, monkeypatch):
    _write(tmp_path / "a", 5)
    _write(tmp_path / "b", 5, value=100)
    probe = media.probe
    monkeypatch.setattr(media, "probe", lambda path: probe(path)._replace(frames=500))
    firsts = {int(c[0, 0, 0, 0]) for c in _covers(_config(tmp_path))}
    assert firsts == {0, 1, 100, 101}


def test_errors(tmp_path):
    def complaint(path, **changes) -> str:
        with pytest.raises(UserError) as caught:
            create_pairs(_config(path, **changes), seed=0, batch_size=1)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert "no folder" in complaint(tmp_path / "absent")
    assert "no video files" in complaint(tmp_path)
    (tmp_path / "a.mp4").write_bytes(b"")
    assert "none of the 1 files" in complaint(tmp_path)
    assert "cache_height" in complaint(tmp_path, height=HEIGHT + 1)
    assert "max_frames" in complaint(tmp_path, max_frames=3)
