"""Frames are known again by their pilots, whichever arrive, and with them the spacing."""

import functools

import jax
import numpy as np
import pytest
from einops import rearrange

from configs.robust import get_config
from deepsteg_jax.errors import UserError
from deepsteg_jax.models import symbols as symbol_model
from deepsteg_jax.schemes.robust import alignment, layout, levels, modem
from tests.synthetic import smooth

KEY, OTHER = bytes(range(32)), bytes(32)
CONFIG = get_config()
CONFIG.model.update(luma=(1.0,) * 4, chroma=(), features=8, depth=1)
SIZE, ROWS, COLUMNS = (64, 96), 4, 6
SPACING = alignment.nearest_spacing(50)
CARRIERS = symbol_model.carriers_of(CONFIG.model)
MODEM = modem.Modem(CONFIG.model, None)
MOST = 24  # frames, so many of which are always written: that compiles once
WRITE = jax.jit(functools.partial(symbol_model.write_symbols, carriers=CARRIERS))


def _made(key=KEY):
    no_grid = np.empty(0, int), np.empty((0, levels.LEVELS), np.uint8)
    own = np.ones(len(CARRIERS.blocks) * modem.macroblocks_of(*SIZE), bool)
    return layout.make(key, own, 64, CONFIG.overhead, no_grid)


def _stego(numbers, noise=0.0, spacing=SPACING):
    """(layout, frames); RGB, with these numbers."""
    made = _made()
    bits = np.random.default_rng(0).integers(0, 2, (len(numbers), made.symbols, levels.LEVELS), np.uint8)
    for line, number in zip(bits, numbers, strict=True):
        line[made.pilots] = made.pilot_bits(number)
    phases = rearrange(levels.to_phases(bits), "n (k y x) -> n y x k", y=ROWS, x=COLUMNS)
    rest = (0, MOST - len(numbers)), (0, 0), (0, 0), (0, 0)
    cover = np.pad(smooth(len(numbers), *SIZE), rest)
    stego = np.asarray(WRITE(cover, np.pad(phases, rest), spacing))[: len(numbers)]
    return made, np.clip(stego + np.random.default_rng(1).normal(0, noise, stego.shape), 0, 255)


REPEATS = [1, 4, 16]


def _finder(made):
    return alignment.Finder(made, REPEATS)


def _pilots(made, frames):
    return np.stack([MODEM.values(modem.planes_of(frame))[made.pilots] for frame in frames])


def _found(made, frames):
    return list(map(_finder(made).find, _pilots(made, frames)))


@pytest.mark.parametrize(
    "numbers", [[0, 1, 2, 3], [0, 2, 3, 7, 20], [5, 6, 6, 6, 9], [700, 701, 703], [0, 0, 40, 88]]
)
def test_finds_frames_that_are_left(numbers):
    made, frames = _stego(numbers, noise=4)
    assert _found(made, frames) == [(number, SPACING) for number in numbers]


def test_finds_any_spacing():
    for spacing in alignment.SPACINGS[4::5]:
        made, frames = _stego([0, 1], spacing=spacing)
        assert _found(made, frames) == [(0, spacing), (1, spacing)]


def test_frames_that_say_nothing_are_passed_over():
    made, frames = _stego([3, 4, 5])
    strange = smooth(1, *SIZE, seed=8)
    assert _found(made, [strange[0], frames[0], strange[0], frames[2]]) == [
        None,
        (3, SPACING),
        None,
        (5, SPACING),
    ]


def test_another_key_finds_nothing():
    made, frames = _stego(range(8))
    other = _made(OTHER)
    assert _found(other, frames) == [None] * 8


def test_spacings_are_the_nearest():
    assert alignment.nearest_spacing(56.0) == pytest.approx(53.8, abs=0.1)
    assert alignment.nearest_spacing(16) == 16


@pytest.mark.parametrize("spacing", [-1, 0, 8, 200, float("nan")])
def test_impossible_spacings_are_refused(spacing):
    with pytest.raises(UserError, match=r"config\.model\.spacing must be 16 to 90"):
        alignment.nearest_spacing(spacing)


@pytest.mark.parametrize("start", [0, 5, 40])
def test_frames_together_are_found_in_more_noise_than_one(start):
    made, frames = _stego(range(start, start + 24), noise=20)
    assert None in _found(made, frames[:4])
    assert _finder(made).find_lost(_pilots(made, frames)) == (start, SPACING)


def test_frames_that_show_the_first_of_their_group_are_found_together():
    made, frames = _stego([i // 4 * 4 for i in range(24)], noise=20)
    assert _finder(made).find_lost(_pilots(made, frames)) == (0, SPACING)


def test_frames_before_the_first_one_do_no_harm():
    made, frames = _stego(range(16), noise=4)
    pilots = _pilots(made, [frames[0]] * 3 + list(frames))
    assert _finder(made).together(pilots, range(-8, 8), alignment.SPACINGS) == (-3, SPACING)


@pytest.mark.parametrize("seed", range(3))
def test_nothing_is_found_in_frames_that_stand_still(seed):
    """Their errors are alike and must not add up."""
    made, _ = _stego([0])
    still = np.repeat(smooth(1, *SIZE, seed=seed), 32, axis=0)
    assert _finder(made).find_lost(_pilots(made, still)) is None


def test_nothing_is_found_together_where_nothing_is():
    made, frames = _stego(range(24))
    other = _made(OTHER)
    assert _finder(other).find_lost(_pilots(other, frames)) is None


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
