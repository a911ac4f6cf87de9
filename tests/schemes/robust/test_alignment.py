"""Frames are known again by their pilots, whichever arrive, and with them the spacing."""

import numpy as np
import pytest

from configs.robust import get_config
from deepsteg_jax.errors import UserError
from deepsteg_jax.models import symbols as symbol_model
from deepsteg_jax.schemes.robust import alignment, layout, levels, modem
from tests.synthetic import smooth

KEY, OTHER = bytes(range(32)), bytes(32)
OVERHEAD = get_config().overhead
COUNT = 4
SIZE = 64, 96
SPACING = alignment.nearest_spacing(50)


def _stego(numbers, noise=0.0, spacing=SPACING):
    symbols = SIZE[0] // 8 * SIZE[1] // 8 * COUNT
    made = layout.make(KEY, symbols, 64, OVERHEAD)
    bits = np.random.default_rng(0).integers(0, 2, (len(numbers), symbols, levels.LEVELS), np.uint8)
    for line, number in zip(bits, numbers, strict=True):
        line[made.pilots] = made.pilot_bits(number)
    phases = levels.to_phases(bits).reshape(len(numbers), COUNT, SIZE[0] // 8, SIZE[1] // 8)
    phases = np.moveaxis(phases, 1, -1)
    stego = np.asarray(symbol_model.write_symbols(smooth(len(numbers), *SIZE), phases, spacing))
    stego = stego + np.random.default_rng(1).normal(0, noise, stego.shape)
    return made, modem.luma_of(np.clip(stego, 0, 255))


REPEATS = [1, 4, 16]


def _finder(made):
    return alignment.Finder(made, COUNT, REPEATS)


def _found(made, lumas):
    finder = _finder(made)
    return [finder.find(finder.read(luma)) for luma in lumas]


def _pilots(made, lumas):
    return np.stack([_finder(made).read(luma) for luma in lumas])


@pytest.mark.parametrize(
    "numbers", [[0, 1, 2, 3], [0, 2, 3, 7, 20], [5, 6, 6, 6, 9], [700, 701, 703], [0, 0, 40, 88]]
)
def test_finds_frames_that_are_left(numbers):
    made, lumas = _stego(numbers, noise=4)
    assert _found(made, lumas) == [(number, SPACING) for number in numbers]


def test_finds_any_spacing():
    for spacing in alignment.SPACINGS[4::5]:
        made, lumas = _stego([0, 1], spacing=spacing)
        assert _found(made, lumas) == [(0, spacing), (1, spacing)]


def test_frames_that_say_nothing_are_passed_over():
    made, lumas = _stego([3, 4, 5])
    strange = modem.luma_of(smooth(1, *SIZE, seed=8))
    assert _found(made, [strange[0], lumas[0], strange[0], lumas[2]]) == [
        None,
        (3, SPACING),
        None,
        (5, SPACING),
    ]


def test_another_key_finds_nothing():
    made, lumas = _stego(range(8))
    other = layout.make(OTHER, made.symbols, 64, OVERHEAD)
    assert _found(other, lumas) == [None] * 8


def test_spacings_are_the_nearest():
    assert alignment.nearest_spacing(56.0) == pytest.approx(53.8, abs=0.1)
    assert alignment.nearest_spacing(16) == 16


@pytest.mark.parametrize("spacing", [-1, 0, 8, 200, float("nan")])
def test_impossible_spacings_are_refused(spacing):
    with pytest.raises(UserError, match=r"config\.model\.spacing must be 16 to 90"):
        alignment.nearest_spacing(spacing)


@pytest.mark.parametrize("start", [0, 5, 40])
def test_frames_together_are_found_in_more_noise_than_one(start):
    made, lumas = _stego(range(start, start + 24), noise=20)
    assert None in _found(made, lumas[:4])
    assert _finder(made).find_lost(_pilots(made, lumas)) == (start, SPACING)


def test_frames_that_show_the_first_of_their_group_are_found_together():
    made, lumas = _stego([i // 4 * 4 for i in range(24)], noise=20)
    assert _finder(made).find_lost(_pilots(made, lumas)) == (0, SPACING)


def test_frames_before_the_first_one_do_no_harm():
    made, lumas = _stego(range(16), noise=4)
    pilots = _pilots(made, [lumas[0]] * 3 + list(lumas))
    assert _finder(made).together(pilots, range(-8, 8), alignment.SPACINGS) == (-3, SPACING)


@pytest.mark.parametrize("seed", range(3))
def test_nothing_is_found_in_frames_that_stand_still(seed):
    """Their errors are alike and must not add up."""
    made, _ = _stego([0])
    still = modem.luma_of(np.repeat(smooth(1, *SIZE, seed=seed), 32, axis=0))
    assert _finder(made).find_lost(_pilots(made, still)) is None


def test_nothing_is_found_together_where_nothing_is():
    made, lumas = _stego(range(24))
    other = layout.make(OTHER, made.symbols, 64, OVERHEAD)
    assert _finder(other).find_lost(_pilots(other, lumas)) is None


def _alignments(numbers, start=None, first=32, length=8):
    return alignment.alignments(numbers, start, first, length)


def test_where_no_frame_is_lost_all_are_placed():
    whole = {i + 1: i for i in range(8)}
    assert _alignments([None, None, None, 34, None, None, 37, None, None, None], start=31)[0] == whole
    assert _alignments([31, 32, 33, 34, 35, 36, 37, 38, 39, 40], start=31) == [whole]
    assert _alignments([32, 32, 32, 35, 36, 36, 38, 38], start=32)[0] == {i: i for i in range(8)}


def test_where_frames_are_lost_what_was_found_and_gaps_that_just_fit_are_the_other_answer():
    assert _alignments([None, 33, None, 35, 37, None, None], start=32)[1] == {1: 1, 2: 2, 3: 3, 4: 5}
    assert _alignments([33, None, None, 39]) == [{0: 1, 3: 7}]
    assert _alignments([33, 33, 34]) == [{0: 1, 1: 1, 2: 2}]


def test_a_wrong_number_keeps_the_others():
    assert _alignments([32, 33, None, 38, None, 37]) == [{0: 0, 1: 1, 3: 6, 5: 5}]
