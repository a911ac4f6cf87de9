"""Frames are known again by their pilots, whichever arrive, and with them the step."""

import numpy as np
import pytest

from deepsteg_jax.errors import UserError
from deepsteg_jax.models import robust
from deepsteg_jax.robust import alignment, layout, levels, segments
from tests.synthetic import smooth

KEY, OTHER = bytes(range(32)), bytes(32)
COUNT = 4
SIZE = 64, 96
STEP = alignment.nearest_step(50)


def _stego(numbers, noise=0.0, step=STEP):
    symbols = SIZE[0] // 8 * SIZE[1] // 8 * COUNT
    made = layout.make(KEY, symbols, 64)
    bits = np.random.default_rng(0).integers(0, 2, (len(numbers), symbols, levels.LEVELS), np.uint8)
    for line, number in zip(bits, numbers, strict=True):
        line[made.pilots] = made.pilot_bits(number)
    phases = levels.to_phases(bits).reshape(len(numbers), SIZE[0] // 8, SIZE[1] // 8, COUNT)
    stego = np.asarray(robust.write_symbols(smooth(len(numbers), *SIZE), phases, step))
    stego = stego + np.random.default_rng(1).normal(0, noise, stego.shape)
    return made, segments.luma_of(np.clip(stego, 0, 255))


def _found(made, lumas):
    finder = alignment.Finder(made, COUNT)
    return [finder.find(luma) for luma in lumas]


@pytest.mark.parametrize(
    "numbers", [[0, 1, 2, 3], [0, 2, 3, 7, 20], [5, 6, 6, 6, 9], [700, 701, 703], [0, 0, 40, 88]]
)
def test_finds_frames_that_are_left(numbers):
    made, lumas = _stego(numbers, noise=4)
    assert _found(made, lumas) == [(number, STEP) for number in numbers]


def test_finds_any_step():
    for step in alignment.STEPS[4::5]:
        made, lumas = _stego([0, 1], step=step)
        assert _found(made, lumas) == [(0, step), (1, step)]


def test_frames_that_say_nothing_are_passed_over():
    made, lumas = _stego([3, 4, 5])
    strange = segments.luma_of(smooth(1, *SIZE, seed=9))
    assert _found(made, [strange[0], lumas[0], strange[0], lumas[2]]) == [None, (3, STEP), None, (5, STEP)]


def test_another_key_finds_nothing():
    made, lumas = _stego(range(8))
    other = layout.make(OTHER, made.symbols, 64)
    assert _found(other, lumas) == [None] * 8


def test_steps_are_the_nearest():
    assert alignment.nearest_step(56.0) == pytest.approx(53.8, abs=0.1)
    assert alignment.nearest_step(16) == 16


@pytest.mark.parametrize("step", [-1, 0, 8, 200, float("nan")])
def test_impossible_steps_are_refused(step):
    with pytest.raises(UserError, match=r"config\.model\.step is 16 to 90"):
        alignment.nearest_step(step)
