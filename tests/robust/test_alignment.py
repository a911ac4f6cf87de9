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
    phases = levels.to_phases(bits).reshape(len(numbers), COUNT, SIZE[0] // 8, SIZE[1] // 8)
    phases = np.moveaxis(phases, 1, -1)
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


def _placed(numbers, hold=1, first=32, length=8):
    return alignment.place(numbers, first, length, hold)


def test_frames_that_were_not_found_are_placed_between_and_around_others():
    whole = {i: [i + 1] for i in range(8)}
    assert _placed([None, None, None, 34, None, None, 37, None, None, None]) == whole
    assert _placed([31, 32, 33, 34, 35, 36, 37, 38, 39, 40]) == whole


def test_where_frames_are_lost_only_gaps_that_they_fill_are_filled():
    assert _placed([None, 33, None, 35, 37, None, None]) == {1: [1], 2: [2], 3: [3], 5: [4]}
    assert _placed([33, None, None, 39]) == {1: [0], 7: [3]}
    assert _placed([33, 33, 34]) == {1: [0, 1], 2: [2]}


def test_frames_that_share_symbols_are_placed_together():
    groups = {0: [0, 1, 2, 3], 4: [4, 5, 6, 7]}
    assert _placed([None, 32, None, None, 36, None, None, 36], hold=4) == groups
    assert _placed([None, 32, None, None, 36, None, None, 36], hold=1) == {0: [1], 4: [4, 7]}
    assert _placed([32, None, 32, 36, 36], hold=2) == {0: [0, 2], 4: [3, 4]}


def test_a_wrong_number_keeps_the_others():
    assert _placed([32, 33, None, 38, None, 37]) == {0: [0], 1: [1], 5: [5], 6: [3]}
