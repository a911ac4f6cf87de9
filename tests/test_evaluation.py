from functools import partial

import numpy as np
import pytest
from ml_collections import ConfigDict
from skimage.metrics import structural_similarity

from deepsteg_jax import cluster, evaluation, media
from deepsteg_jax.errors import UserError
from tests.helpers import PlainCodec, PlainScheme, read_stack
from tests.synthetic import noise, save


def make(folder, suffix=".mkv", **clips):
    paths = {name: save(folder / f"{name}{suffix}", frames) for name, frames in clips.items()}
    return evaluation.Files(**paths)


def ssim(a, b):
    settings = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    return structural_similarity(a, b, channel_axis=-1, data_range=255, **settings)


def test_exact_figures_of_known_differences(tmp_path):
    cover, secret = noise(low=10, high=240), noise(seed=1, low=10, high=240)
    stego, revealed = cover + 1, secret.copy()
    revealed[:, ::2] += 4  # a mean squared error of 8 in every frame
    files = make(tmp_path, cover=cover, stego=stego, secret=secret, revealed=revealed)
    report = evaluation.measure(files)
    assert report["stego_psnr_db"] == pytest.approx(20 * np.log10(255))  # 48.13
    assert report["secret_psnr_db"] == pytest.approx(10 * np.log10(255**2 / 8))
    assert report["stego_ssim"] == pytest.approx(np.mean([*map(ssim, cover, stego)]))
    assert report["secret_ssim"] == pytest.approx(np.mean([*map(ssim, secret, revealed)]))
    assert report["capacity_bpp"] == 24 and report["frames"] == 6


def test_psnr_is_a_mean_of_decibels(tmp_path):
    cover = noise(2, low=10, high=200)
    stego = cover.copy()
    stego[0] += 1
    stego[1] += 10
    files = make(tmp_path, cover=cover, stego=stego, secret=cover, revealed=cover)
    report = evaluation.measure(files)
    assert report["stego_psnr_db"] == pytest.approx(20 * np.log10(255) - 10)
    assert report["secret_psnr_db"] == 100 and report["secret_ssim"] == pytest.approx(1)


def test_every_frame_has_its_figures(tmp_path):
    cover = noise(3, low=10, high=200)
    stego = cover + np.arange(1, 4, dtype=np.uint8)[:, None, None, None]
    files = make(tmp_path, cover=cover, stego=stego, secret=cover, revealed=stego)
    frames = evaluation.measure_frames(files)
    wanted = 20 * np.log10(255 / np.arange(1, 4))
    for name in ("stego", "secret"):
        assert [frame[f"{name}_psnr_db"] for frame in frames] == pytest.approx(wanted)
        assert frames[0][f"{name}_ssim"] == pytest.approx(ssim(cover[0], stego[0]))
    means = evaluation.mean_of_frames(files, frames)
    assert means == evaluation.measure(files) and means["stego_psnr_db"] == pytest.approx(wanted.mean())


def test_only_hidden_frames_count(tmp_path):
    """The cover goes on behind the secret's end, unchanged; that must not improve the mean."""
    cover, secret = noise(11, low=10, high=200), noise(5, 20, 30, seed=1)
    stego = cover.copy()
    stego[:5] += 1
    files = make(tmp_path, cover=cover, stego=stego, secret=secret, revealed=secret)
    report = evaluation.measure(files)
    assert report["stego_psnr_db"] == pytest.approx(20 * np.log10(255))
    assert report["frames"] == 5
    assert report["capacity_bpp"] == pytest.approx(24 * (20 * 30) / (32 * 48))


def test_a_large_secret_is_measured_as_it_was_hidden(tmp_path):
    secret = noise(3, 64, 60)  # fits into 48x32 as 34x32, turned
    revealed = np.stack([media.resize(frame, 32, 34) for frame in secret])
    cover = noise(3)
    report = evaluation.measure(make(tmp_path, cover=cover, stego=cover, secret=secret, revealed=revealed))
    assert report["secret_psnr_db"] == 100
    assert report["capacity_bpp"] == pytest.approx(24 * 34 / 48)


def test_images(tmp_path):
    cover, secret = noise(1, low=10, high=200), noise(1, 9, 10)
    files = make(tmp_path, ".png", cover=cover, stego=cover + 2, secret=secret, revealed=secret)
    report = evaluation.measure(files)
    assert report["stego_psnr_db"] == pytest.approx(20 * np.log10(255 / 2))
    assert report["frames"] == 1
    assert -1 <= report["secret_ssim"] <= 1  # frames smaller than the window


def test_progress_counts_the_frames(tmp_path):
    clip = noise(6)
    progress = []
    evaluation.measure(make(tmp_path, cover=clip, stego=clip, secret=clip, revealed=clip), progress.append)
    assert sum(progress) == 6 and len(progress) > 1


@pytest.mark.parametrize(
    "frames, count, wanted", [(9, 3, [1, 4, 7]), (6, 3, [0, 2, 4]), (2, 3, [0, 1]), (1, 3, [0]), (5, 1, [2])]
)
def test_picked_frames(tmp_path, frames, count, wanted):
    clip = noise(frames)
    files = make(tmp_path, cover=clip, stego=clip + 1, secret=clip + 2, revealed=clip + 3)
    rows = evaluation.picked_frames(files, count, frames)
    assert [label for label, _ in rows] == [f"frame {n}" for n in wanted]
    for n, (_, row) in zip(wanted, rows, strict=True):
        for i, name in enumerate(("cover", "stego", "secret", "revealed")):
            np.testing.assert_array_equal(row[name], clip[n] + i)


def test_read_together_keeps_the_clips_apart(tmp_path):
    clips = {name: noise(4, seed=i) for i, name in enumerate(evaluation.Files._fields)}
    files = make(tmp_path, **clips)
    together = list(evaluation.read_together(files, 3))
    assert len(together) == 3
    for n, row in enumerate(together):
        assert set(row) == set(clips)
        for name, frame in row.items():
            np.testing.assert_array_equal(frame, clips[name][n])


def test_perceptual_adds_ssimulacra2(tmp_path):
    cover = noise(2, low=10, high=240)
    files = make(tmp_path, cover=cover, stego=cover + 1, secret=cover, revealed=cover)
    plain, perceptual = evaluation.measure(files), evaluation.measure(files, perceptual=True)
    assert set(perceptual) - set(plain) == {"stego_ssimulacra2", "secret_ssimulacra2"}
    assert {name: perceptual[name] for name in plain} == plain
    assert perceptual["secret_ssimulacra2"] == pytest.approx(100)
    assert 50 < perceptual["stego_ssimulacra2"] < 99.9


def settings_of(folder, **changes):
    sizes = {"height": 16, "width": 20, "first_frame": 1, "frames": 2}
    return ConfigDict({"path": str(folder), **sizes, "perceptual": False, "pictures": 2, **changes})


def clips_folder(folder, count=3):
    """Makes clips a.mkv, b.mkv, ... of the size that is measured; returns their frames."""
    folder.mkdir()
    clips = [noise(4, 16, 20, seed=i, low=10, high=200) for i in range(count)]
    for letter, frames in zip("abcde", clips, strict=False):
        save(folder / f"{letter}.mkv", frames)
    return clips


def run_by_hand(files):
    """A stego one level away, the secret exact; names the first sample of both."""
    cover, secret = read_stack(files.cover), read_stack(files.secret)
    media.write_frames(files.stego, cover + 1)
    media.write_frames(files.revealed, secret)
    return {"hide_fps": 5.0, "cover_sample": int(cover[0, 0, 0, 0]), "secret_sample": int(secret[0, 0, 0, 0])}


def test_every_item_of_a_folder_hides_the_next(tmp_path):
    clips = clips_folder(tmp_path / "clips")
    results, rows = evaluation.evaluate_folder(run_by_hand, settings_of(tmp_path / "clips"), tmp_path)
    names = ["a.mkv", "b.mkv", "c.mkv"]
    assert [result["cover"] for result in results] == names
    assert [result["secret"] for result in results] == [*names[1:], names[0]]
    for i, result in enumerate(results):
        assert result["cover_sample"] == clips[i][1, 0, 0, 0]  # from first_frame on
        assert result["secret_sample"] == clips[(i + 1) % 3][1, 0, 0, 0]
        assert result["stego_psnr_db"] == pytest.approx(20 * np.log10(255))
        assert result["secret_psnr_db"] == 100
        assert result["frames"] == 2 and result["hide_fps"] == 5
        assert result["stego_bytes"] > 2 * 16 * 20
        assert "stego_ssimulacra2" not in result
    assert [label for label, _ in rows] == ["a", "b"]
    for i, (_, row) in enumerate(rows):
        np.testing.assert_array_equal(row["stego"], row["cover"] + 1)
        assert any(np.array_equal(row["cover"], frame) for frame in clips[i][1:3])
    assert [path.name for path in tmp_path.iterdir()] == ["clips"]  # nothing is left behind


def test_pairs_that_end_in_another_order_stay_in_that_of_the_folder(tmp_path, monkeypatch):
    clips_folder(tmp_path / "clips")
    asked, run = [], cluster.run

    def backwards(function, pairs, *where):
        asked.append(where)
        yield from [*run(function, pairs)][::-1]

    monkeypatch.setattr(cluster, "run", backwards)
    arguments = run_by_hand, settings_of(tmp_path / "clips"), tmp_path
    results, rows = evaluation.evaluate_folder(*arguments, workers=2, scheduler="tls://host:1")
    assert asked == [(2, "tls://host:1")]
    assert [result["cover"] for result in results] == ["a.mkv", "b.mkv", "c.mkv"]
    assert [label for label, _ in rows] == ["a", "b"]


def test_a_clip_that_ends_before_what_is_measured_is_named(tmp_path):
    clips_folder(tmp_path / "clips")
    with pytest.raises(
        UserError, match=r"clips/a\.mkv ends before frame 4: lower config.evaluate.first_frame"
    ):
        evaluation.prepare(tmp_path / "clips/a.mkv", settings_of(tmp_path, first_frame=4))


def test_images_of_a_folder_are_cropped_in_the_centre(tmp_path):
    (tmp_path / "images").mkdir()
    pictures = [noise(1, 24, 30, seed=i, low=10, high=200) for i in range(2)]
    for letter, picture in zip("ab", pictures, strict=True):
        save(tmp_path / "images" / f"{letter}.png", picture)
    settings = settings_of(tmp_path / "images", perceptual=True)
    results, rows = evaluation.evaluate_folder(run_by_hand, settings, tmp_path)
    assert [result["frames"] for result in results] == [1, 1]
    assert all(result["secret_ssimulacra2"] == pytest.approx(100) for result in results)
    for (_, row), picture in zip(rows, pictures, strict=True):
        np.testing.assert_array_equal(row["cover"], picture[0, 4:20, 5:25])


class KeyedCodec(PlainCodec):
    """Stands in for a compiled model: the stego is the secret plus noise that only the key gives."""

    frames = 2

    def __init__(self):
        self.sides = set()

    def _noise(self, key, shape):
        return np.random.default_rng(np.asarray(key)).integers(0, 256, shape, dtype=np.uint8)

    def hide(self, params, key, first_frame, cover, secret):
        self.sides.add(("hide", params))
        return secret + self._noise(key, secret.shape)

    def reveal(self, params, key, first_frame, stego):
        self.sides.add(("reveal", params))
        return stego - self._noise(key, stego.shape)


def test_a_model_is_evaluated_with_the_right_and_with_a_wrong_key(tmp_path):
    clips_folder(tmp_path / "clips", 2)
    codec = KeyedCodec()
    run = partial(evaluation.hide_and_reveal, PlainScheme(1, 1, codec))
    results, _ = evaluation.evaluate_folder(run, settings_of(tmp_path / "clips"), tmp_path)
    assert codec.sides == {("hide", "of hide"), ("reveal", "of reveal")}
    for result in results:
        assert result["secret_psnr_db"] > 48  # metadata moves some samples by a few levels
        assert max(result["stego_psnr_db"], result["wrong_key_psnr_db"]) < 12
        assert result["hide_fps"] > 0 and result["reveal_fps"] > 0
