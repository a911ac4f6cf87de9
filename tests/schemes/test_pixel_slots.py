"""Several secrets of pictures in one stego, each with its own key."""

import random
from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pytest

from deepsteg_jax import keys, loading, media, metrics, pipeline
from deepsteg_jax.errors import PartialError, UserError
from deepsteg_jax.schemes import low_bits, slots
from deepsteg_jax.schemes.base import NOTHING
from deepsteg_jax.schemes.slots import Slot
from tests.synthetic import noise, save, smooth

KEYS = [bytes([i]) * 32 for i in range(4)]
ALL, COUNT, HEIGHT, WIDTH = 4, 8, 48, 96  # whole groups, which compile once


def quiet(told):
    """Progress that nobody watches."""


@pytest.fixture(scope="module")
def scheme():
    """The shipped model with D = 5."""
    return loading.load(loading.config_of("video", {"model.modulus": 5}))


@pytest.fixture(scope="module")
def filled(tmp_path_factory, scheme):
    """Four slots with one secret and with four, of which the first has the same slot: paths and reports.

    The secrets have 3, 5, 8 and 4 frames, the last one at half the rate.
    """
    folder, made = tmp_path_factory.mktemp("pixels"), SimpleNamespace(stegos={}, said={})
    made.cover = save(
        folder / "cover.mkv", smooth(COUNT, HEIGHT, WIDTH, 9) // 2 + noise(COUNT, HEIGHT, WIDTH) // 8
    )
    shapes = ((3, HEIGHT, WIDTH, 25), (5, 40, 64, 25), (COUNT, HEIGHT, WIDTH, 25), (4, HEIGHT, WIDTH, 12.5))
    made.secrets = tuple(
        save(folder / f"secret{i}.mkv", smooth(count, height, width, i), Fraction(rate))
        for i, (count, height, width, rate) in enumerate(shapes)
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(random.SystemRandom, "shuffle", lambda self, filled: None)
        for real in (1, ALL):
            stego, told = folder / f"stego{real}.mkv", []
            settings = pipeline.DEFAULTS._replace(slots=ALL)
            job = scheme, KEYS[:real], made.cover, made.secrets[:real], stego, quiet, settings, told.append
            report = pipeline.hide(*job)
            made.stegos[real] = stego
            made.said[real] = told[0].partition(f"; {stego}")[0], report._replace(seconds=1, size_bytes=0)
    return made


def frames_of(path):
    return np.stack(list(media.read_frames(path)))


def test_every_key_opens_its_own_slot_and_no_other(tmp_path, filled, scheme):
    for i, (key, secret) in enumerate(zip(KEYS, filled.secrets, strict=True)):
        report = pipeline.reveal([scheme], key, filled.stegos[ALL], tmp_path / f"out{i}.mkv", quiet)
        revealed, wanted = frames_of(tmp_path / f"out{i}.mkv"), frames_of(secret)
        assert revealed.shape == wanted.shape and report.rate == media.probe(secret).rate
        assert metrics.mean_psnr(revealed, wanted) > 30
    with pytest.raises(UserError, match=NOTHING.split(":")[0]):
        pipeline.reveal([scheme], KEYS[1], filled.stegos[1], tmp_path / "no.mkv", quiet)


def test_the_stego_is_as_far_from_the_cover_as_with_one_secret(filled):
    """D = 5, with the metadata of small frames."""
    for stego in filled.stegos.values():
        assert 43.5 < metrics.mean_psnr(frames_of(stego), frames_of(filled.cover)) < 45.2


def test_nothing_that_is_said_tells_how_many_are_real(filled):
    assert filled.said[1] == filled.said[ALL] and filled.said[1][0] == "4 slots of the cover's size each"


def test_a_slot_looks_like_noise_whatever_is_in_it(filled):
    """All digits are as frequent, in the first slot, which has a secret, and in the last one."""
    stego, samples = frames_of(filled.stegos[1]).reshape(COUNT, -1), 3 * HEIGHT * WIDTH
    for number in (0, ALL - 1):
        digits = stego[:, slots.share(samples, Slot(number, ALL))] % 5
        counts = np.bincount(digits.ravel(), minlength=5)
        expected = digits.size / 5
        assert ((counts - expected) ** 2 / expected).sum() < 18.5  # chi-squared of 4, one in 1,000


@pytest.mark.parametrize("key", [KEYS[0], bytes(reversed(range(32)))])
def test_a_receiver_prints_writes_and_does_the_same_however_many_are_real(
    tmp_path, filled, scheme, key, monkeypatch
):
    found = []
    for real, stego in filled.stegos.items():
        work, told, output = [], [], tmp_path / f"{real}.mkv"
        for owner, name in ((keys, "derive_key"), (low_bits, "read")):
            usual = getattr(owner, name)

            def counted(*given, usual=usual, name=name, work=work):
                work.append(name)
                return usual(*given)

            monkeypatch.setattr(owner, name, counted)
        try:
            report = pipeline.reveal([scheme], key, stego, output, told.append)
            told += [report._replace(seconds=1, size_bytes=0), frames_of(output).shape]
        except UserError as error:
            told.append(str(error))
        monkeypatch.undo()
        found.append((work, told, output.exists()))
    assert found[0] == found[1] and found[0][0].count("derive_key") <= 2


def test_a_damaged_first_frame_costs_its_group_only(tmp_path, filled, scheme):
    stego = frames_of(filled.stegos[ALL])
    stego[0], bad = 0, tmp_path / "bad.mkv"
    with pytest.raises(
        PartialError, match=r"bad.mkv is damaged: up to 100.0 % .* in frames 1-4 of .*out.mkv is"
    ):
        pipeline.reveal([scheme], KEYS[2], save(bad, stego), tmp_path / "out.mkv", quiet)
    revealed, wanted = frames_of(tmp_path / "out.mkv"), frames_of(filled.secrets[2])
    assert metrics.mean_psnr(revealed[4:], wanted[4:]) > 30


@pytest.mark.slow
def test_images(tmp_path):
    image = loading.load(loading.config_of("image"))
    cover = save(tmp_path / "cover.png", smooth(1, HEIGHT, WIDTH, 5))
    secrets = tuple(save(tmp_path / f"{i}.png", smooth(1, HEIGHT, WIDTH, i)) for i in range(2))
    settings = pipeline.DEFAULTS._replace(slots=2)
    pipeline.hide(image, KEYS[:2], cover, secrets, tmp_path / "stego.png", quiet, settings)
    for key, secret in zip(KEYS, secrets, strict=False):
        pipeline.reveal([image], key, tmp_path / "stego.png", tmp_path / "out.png", quiet)
        assert metrics.mean_psnr(frames_of(tmp_path / "out.png"), frames_of(secret)) > 30


def test_covers_that_are_too_small_or_too_short(tmp_path, filled, scheme):
    small = save(tmp_path / "small.mkv", noise(2, 32, 64))
    secret, settings = save(tmp_path / "s.mkv", noise(2, 16, 16)), pipeline.DEFAULTS._replace(slots=4)
    with pytest.raises(UserError, match="64x32, is too small: a frame needs 4096 pixels"):
        pipeline.hide(scheme, KEYS[0], small, secret, tmp_path / "t.mkv", quiet, settings)
    with pytest.raises(UserError, match="is too short: it has 2 frames and the secret 8"):
        pipeline.hide(
            scheme, KEYS[:2], small, (secret, filled.secrets[2]), tmp_path / "t.mkv", quiet, settings
        )
