from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from deepsteg_jax import media, metrics
from deepsteg_jax.channels import ladder
from deepsteg_jax.errors import UserError
from tests.synthetic import in_planes, noise, smooth

CODECS = {codec_run.name: codec_run for codec_run in (*ladder.VIDEO, *ladder.IMAGE)}


def film(count=5, height=48, width=64):
    """Moving waves with some grain."""
    grain = noise(count, height, width, high=12)
    return (smooth(count, height, width) // 2 + 50 + grain).astype(np.uint8)


def require(codec_run):
    if not is_available(codec_run):
        pytest.skip(f"no encoder {codec_run.codec} in this build of FFmpeg")


def is_available(codec_run):
    return codec_run.codec in ladder.STILL or media.has_encoder(codec_run.codec)


def largest(a, b):
    return np.abs(a.astype(int) - b).max()


def test_names_and_titles_are_unique():
    for field in ("name", "title"):
        assert len({getattr(codec_run, field) for codec_run in CODECS.values()}) == len(CODECS)


@pytest.mark.parametrize("size", [(32, 48), (17, 23)])
def test_lossless_rgb_is_bit_exact(size):
    frames = noise(4, *size)
    received = ladder.run(CODECS["C0"], frames)
    assert received.frames.dtype == np.uint8
    np.testing.assert_array_equal(received.frames, frames)
    assert frames.size < received.size_bytes < 2 * frames.size  # noise


def test_444_loses_what_rounding_to_yuv_loses_and_only_once():
    frames = film()
    first = ladder.run(CODECS["C1"], frames)
    assert 0 < largest(frames, first.frames) <= 2
    again = ladder.run(CODECS["C1"], first.frames)
    np.testing.assert_array_equal(again.frames, first.frames)


def test_420_loses_colour_that_changes_from_pixel_to_pixel():
    grey = np.repeat(film()[..., :1], 3, axis=-1)
    assert largest(grey, ladder.run(CODECS["C2"], grey).frames) <= 3
    colourful = noise(2)
    received = ladder.run(CODECS["C2"], colourful).frames
    assert metrics.mean_psnr(colourful, received) < 20
    luma = [
        frames @ np.array([0.299, 0.587, 0.114]) for frames in (film(), ladder.run(CODECS["C2"], film())[0])
    ]
    assert np.abs(luma[0] - luma[1]).mean() < 2


def test_a_second_lossless_coding_changes_nothing():
    """It starts from the YUV of the first."""
    frames = film()
    for name in ("C1", "C2"):
        once, twice = (ladder.run(CODECS[name]._replace(times=times), frames) for times in (1, 2))
        np.testing.assert_array_equal(once.frames, twice.frames)
        assert once.size_bytes == twice.size_bytes


@pytest.mark.parametrize("name", CODECS)
@pytest.mark.parametrize("size", [(32, 48), (33, 47)], ids=str)
def test_all_frames_arrive_at_their_size(name, size):
    require(CODECS[name])
    frames = film(7, *size)
    received = ladder.run(CODECS[name], frames)
    assert received.frames.shape == frames.shape and received.frames.dtype == np.uint8
    assert received.size_bytes > 0
    errors = np.array([[metrics.psnr(a, b) for a in frames] for b in received.frames])
    assert metrics.mean_psnr(frames, received.frames) > 24
    np.testing.assert_array_equal(errors.argmax(axis=1), range(7))  # in their order


@pytest.mark.parametrize("size", [(32, 48), (33, 47)], ids=str)
@pytest.mark.parametrize("name", ["C0", "C1", "C2", "C3", "C5", "C10", "C11"])
def test_planes_arrive_as_planes_of_their_size(name, size):
    require(CODECS[name])
    frames = in_planes(film(4, *size))
    received = ladder.run(CODECS[name], frames)
    assert isinstance(received.frames, media.Planes) and received.size_bytes > 0
    for plane, sent in zip(received.frames, frames, strict=True):
        assert plane.shape == sent.shape and plane.dtype == np.uint8
        errors = np.abs(plane[:, None].astype(int) - sent[None]).mean((2, 3))
        assert errors.diagonal().max() < 8 and plane.flags.c_contiguous
    luma = np.abs(received.frames.y[:, None].astype(int) - frames.y[None]).mean((2, 3))
    np.testing.assert_array_equal(luma.argmin(axis=1), range(4))  # in their order


@pytest.mark.parametrize("size", [(32, 48), (33, 47)], ids=str)
def test_planes_in_420_are_exact_without_rgb_between(size):
    frames = in_planes(noise(3, *size))
    received = ladder.run(CODECS["C2"], frames).frames
    for plane, sent in zip(received, frames, strict=True):
        np.testing.assert_array_equal(plane, sent)


def test_rgb_and_planes_of_it_take_the_same_bytes():
    frames = film()
    assert (
        ladder.run(CODECS["C5"], frames).size_bytes == ladder.run(CODECS["C5"], in_planes(frames)).size_bytes
    )


def test_one_frame_goes_through_every_codec():
    frames = film(1)
    for codec_run in filter(is_available, CODECS.values()):
        assert ladder.run(codec_run, frames).frames.shape == frames.shape


def test_the_odd_edge_is_that_of_the_picture():
    frames = film(3, 33, 47)
    received = ladder.run(CODECS["C2"], frames).frames
    inner, edge = (
        metrics.mean_psnr(frames[part], received[part]) for part in (np.s_[:, :-1, :-1], np.s_[:, -1:, :])
    )
    assert edge > inner - 3


def test_quality_and_size_fall_with_the_rate_factor():
    frames = film()
    found = [ladder.run(ladder.x264("", crf), frames) for crf in (10, 18, 23, 28, 40)]
    for finer, coarser in zip(found, found[1:], strict=False):
        assert metrics.mean_psnr(frames, finer.frames) > metrics.mean_psnr(frames, coarser.frames)
        assert finer.size_bytes > coarser.size_bytes


def test_quality_and_size_fall_with_jpeg_quality():
    frames = film()
    found = [ladder.run(ladder.jpeg("", quality), frames) for quality in (90, 75, 50)]
    for finer, coarser in zip(found, found[1:], strict=False):
        assert metrics.mean_psnr(frames, finer.frames) > metrics.mean_psnr(frames, coarser.frames)
        assert finer.size_bytes > coarser.size_bytes


def test_jpeg_is_pillows():
    frames = film(2)
    files = [BytesIO() for _ in frames]
    for frame, file in zip(frames, files, strict=True):
        Image.fromarray(frame).save(file, "JPEG", quality=75)
    received = ladder.run(CODECS["C9-75"], frames)
    assert received.size_bytes == sum(file.tell() for file in files)
    np.testing.assert_array_equal(received.frames, [np.array(Image.open(file)) for file in files])


def test_twice_and_resized_are_worse_than_once():
    frames = film()
    once, twice, resized = (ladder.run(CODECS[name], frames) for name in ("C6", "C10", "C11"))
    assert metrics.mean_psnr(frames, once.frames) > metrics.mean_psnr(frames, twice.frames)
    assert metrics.mean_psnr(frames, once.frames) > metrics.mean_psnr(frames, resized.frames)
    assert 0.5 * once.size_bytes < twice.size_bytes <= 1.1 * once.size_bytes  # the rate factor still holds


@pytest.mark.parametrize("name", ["C6", "C7", "C8-vp9", "C8-av1"])
def test_a_second_run_gives_the_same(name):
    require(CODECS[name])
    frames = film(12, 64, 96)
    first, second = (ladder.run(CODECS[name], frames) for _ in range(2))
    np.testing.assert_array_equal(first.frames, second.frames)
    assert first.size_bytes == second.size_bytes


def test_a_missing_encoder():
    with pytest.raises(UserError, match="cannot encode with libnothing"):
        ladder.run(CODECS["C6"]._replace(codec="libnothing"), film(1))


def test_rates():
    assert ladder.bit_rate(1000, 25) == 8000
    assert ladder.bit_rate(1000, 50) == 4000
    assert ladder.bits_per_pixel(100, (2, 4, 10, 3)) == 10


@pytest.mark.parametrize(
    ("name", "codec", "option"),
    [
        ("CRF21", "libx264", "21"),
        ("C9-65", ladder.JPEG, "65"),
        ("C12-9", ladder.WEBP, "9"),
        ("C7", "libx265", "23"),
    ],
)
def test_codec_runs_by_name(name, codec, option):
    codec_run = ladder.named(name)
    assert (codec_run.name, codec_run.codec) == (name, codec) and option in codec_run.options.values()


@pytest.mark.parametrize("name", ["", "CRF", "CRFx", "C99"])
def test_unknown_names_are_refused(name):
    with pytest.raises(UserError, match="there is no codec run"):
        ladder.named(name)
