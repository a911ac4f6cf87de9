from fractions import Fraction

import numpy as np
import pytest
from ml_collections import ConfigDict

from deepsteg_jax import media, metrics
from deepsteg_jax.commands.settings import ENHANCE
from deepsteg_jax.enhance import after, denoise, enhance, enhance_file, neighbours, sharpen
from deepsteg_jax.errors import PartialError, UserError
from deepsteg_jax.pipeline import Report
from tests.synthetic import Sound, film, hiss, noise, packets, save, smooth

cv2 = pytest.importorskip("cv2", reason="needs OpenCV")


def settings(**values):
    return ConfigDict({**ENHANCE, **values})


def noisy(frames, sigma, seed=0):
    dirt = np.random.default_rng(seed).normal(0, sigma, frames.shape)
    return np.clip(frames + dirt, 0, 255).round().astype(np.uint8)


def tiles(count):
    """Still frames of flat squares, whose patches are alike."""
    small = noise(1, 4, 6, low=40, high=216)
    return np.repeat(np.kron(small, np.ones((1, 8, 8, 1), np.uint8)), count, axis=0)


@pytest.mark.parametrize("reach", [0, 1, 2, 3])
@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 5, 9])
def test_neighbours_are_those_of_a_mirrored_stream(count, reach):
    def mirrored(i):
        return abs(i) if i < count else 2 * (count - 1) - i

    expected = [[mirrored(i + j) for j in range(-reach, reach + 1)] for i in range(count)]
    if count <= reach:
        expected = [[i] for i in range(count)]
    assert list(neighbours(range(count), reach)) == expected


@pytest.mark.parametrize("window", [1, 3, 5])
@pytest.mark.parametrize("count", [1, 2, 6])
def test_denoising_a_noisy_clip_brings_it_nearer(count, window):
    clean = tiles(count)
    dirty = noisy(clean, 3)
    done = list(denoise(dirty, 4, window))
    assert len(done) == count and all(f.shape == clean[0].shape and f.dtype == np.uint8 for f in done)
    assert metrics.mean_psnr(clean, done) > metrics.mean_psnr(clean, dirty) + 2


def test_more_frames_remove_more_noise():
    clean = tiles(7)
    dirty = noisy(clean, 3)
    one, five = (metrics.mean_psnr(clean, list(denoise(dirty, 4, window))) for window in (1, 5))
    assert five > one + 0.5


def test_denoising_treats_all_colours_alike():
    dirty = noisy(smooth(1), 3)
    turned = [frame[..., ::-1].copy() for frame in dirty]
    (plain,), (back,) = list(denoise(dirty, 4)), list(denoise(turned, 4))
    np.testing.assert_array_equal(plain, back[..., ::-1])


def test_sharpening_steepens_edges_and_leaves_flat_parts():
    frame = np.full((32, 48, 3), 80, np.uint8)
    frame[:, 24:] = 160
    assert (sharpen(frame, 1.0, 0) == frame).all()
    weak, strong = (sharpen(frame, 1.0, amount).astype(int) for amount in (0.5, 1.0))
    assert (strong[:, :16] == 80).all() and (strong[:, 32:] == 160).all()
    edges = [x[:, 24] - x[:, 23] for x in (frame.astype(int), weak, strong)]
    assert (edges[0] < edges[1]).all() and (edges[1] < edges[2]).all()


def test_steps_are_taken_in_their_order():
    frames = list(noisy(smooth(3), 3))
    both = list(enhance(frames, settings(steps="sharpen denoise", strength=4.0)))
    by_hand = list(denoise([sharpen(frame, 1.0, 0.5) for frame in frames], 4.0))
    np.testing.assert_array_equal(both, by_hand)
    turned = list(enhance(frames, settings(steps="denoise sharpen", strength=4.0)))
    assert not np.array_equal(both, turned)


def test_memory_is_bounded_by_the_window():
    taken = []

    def source():
        for i, frame in enumerate(noise(9)):
            taken.append(i)
            yield frame

    for i, _ in enumerate(enhance(source(), settings(frames=5))):
        assert len(taken) == min(9, i + 3)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("steps", ""),
        ("steps", "blur"),
        ("strength", 0.0),
        ("frames", 2),
        ("frames", -1),
        ("patch", 4),
        ("search", 0),
        ("radius", 0.0),
        ("amount", -1.0),
    ],
)
def test_bad_settings_are_named_at_once(name, value):
    with pytest.raises(UserError, match=f"--enhance.{name} must be "):
        enhance([], settings(**{name: value}))


def test_a_file_keeps_its_times_and_its_sound(tmp_path):
    times, frames = [0, 30, 50, 130, 140], smooth(5)
    path = film(
        tmp_path / "clip.mkv",
        frames,
        times=times,
        time_base=Fraction(1, 1000),
        sounds=[Sound("flac", hiss())],
    )
    count = enhance_file(path, tmp_path / "done.mkv", settings(strength=3.0), lambda n: None)
    assert count == 5
    read = list(media.read_timed(tmp_path / "done.mkv"))
    assert [at for _, at in read] == times
    expected = list(denoise(list(media.read_frames(path)), 3.0))
    np.testing.assert_array_equal([frame for frame, _ in read], expected)
    assert packets(tmp_path / "done.mkv") == packets(path)


def test_sound_lies_beside_a_folder_of_images(tmp_path):
    path = film(tmp_path / "clip.mkv", smooth(6), sounds=[Sound("flac", hiss())])
    enhance_file(path, f"{tmp_path}/done/", settings(), lambda n: None)
    assert len(list((tmp_path / "done").glob("*.png"))) == 6
    assert (tmp_path / "done" / "sound.opus").is_file()


@pytest.mark.parametrize("name", ["clip.mkv", "picture.png"])
def test_revealed_files_are_enhanced_in_place(tmp_path, name):
    image = name.endswith(".png")
    plain = smooth(1 if image else 4)
    stego, output = save(tmp_path / f"stego_{name}", plain), tmp_path / name

    def reveal(credential, stego, output, progress, announce):
        media.write_frames(output, plain)
        return Report(len(plain), 48, 32, Fraction(25), 1.0, len(plain), ("a note",))

    report = after(reveal, settings(strength=3.0))("key", stego, output, lambda n: None)
    np.testing.assert_array_equal(list(media.read_frames(output)), list(denoise(plain, 3.0)))
    assert report.notes == ("a note", "enhanced: denoise") and report.seconds > 1
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([stego.name, name])


def test_what_a_damaged_stego_gives_is_enhanced_too(tmp_path):
    stego, output = save(tmp_path / "stego.mkv", smooth(2)), tmp_path / "revealed.mkv"

    def reveal(credential, stego, output, progress, announce):
        media.write_frames(output, smooth(2))
        raise PartialError(f"cut short: {output} has the first 2 of 4 frames")

    with pytest.raises(PartialError, match=f"cut short: {output} has"):
        after(reveal, settings())("key", stego, output, lambda n: None)
    assert len(list(media.read_frames(output))) == 2


def test_nothing_is_left_where_reveal_refuses(tmp_path):
    stego = save(tmp_path / "stego.mkv", smooth(2))

    def reveal(*arguments):
        raise UserError("nothing hidden")

    with pytest.raises(UserError, match="nothing hidden"):
        after(reveal, settings())("key", stego, tmp_path / "revealed.mkv", lambda n: None)
    assert [path.name for path in tmp_path.iterdir()] == ["stego.mkv"]
