"""The grid of blocks is found again in pictures that were scaled, cropped or put between bars."""

from functools import partial

import jax
import numpy as np
import pytest
from scipy import ndimage

from deepsteg_jax import media
from deepsteg_jax.models import symbols as symbol_model
from deepsteg_jax.schemes.robust import geometry, levels
from deepsteg_jax.schemes.robust.modem import planes_of
from deepsteg_jax.schemes.slots import Slot
from tests.synthetic import in_planes, smooth

KEY, OTHER = bytes([3]) * 32, bytes([7]) * 32  # whose grids are found in as small a picture
SIZE, FRAMES = (192, 320), geometry.FRAMES // 2  # enough without a codec
SPACING = float(geometry.SPACINGS[11])
CARRIERS = symbol_model.make_carriers((), (1.0,) * 3)
GRID = geometry.make_grid(CARRIERS, KEY)
UNIFORM_SCALES = geometry._uniform_scales  # replaced in most tests


@pytest.fixture(scope="module", autouse=True)
def optimised():
    """Searches are soon compiled and take ten times as long without optimisations."""
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", before)


@pytest.fixture(scope="module")
def stego():
    """Planes of a cover with symbols, those of the grid known."""
    return _written(GRID)


def _written(*grids, frames=FRAMES):
    """Planes of a cover with symbols, those of a grid in each slot known."""
    cover = in_planes(smooth(frames, *SIZE) // 2 + 60)
    rows, columns = (side // symbol_model.MACROBLOCK for side in SIZE)
    phases = np.random.default_rng(0).uniform(-0.5, 0.5, (frames, len(CARRIERS.blocks) * rows * columns))
    for number, grid in enumerate(grids):
        indices, bits = grid.symbols(CARRIERS, rows, columns, Slot(number, len(grids)))
        for number, line in enumerate(phases):
            line[indices] = levels.to_phases(geometry.turned(bits, number))
    phases = phases.reshape(frames, -1, rows, columns).transpose(0, 2, 3, 1)
    write = jax.jit(partial(symbol_model.write_symbols, carriers=CARRIERS))
    written = write(tuple(cover), phases.astype(np.float32), SPACING)
    return jax.tree.map(lambda x: np.asarray(x).astype(np.uint8), written)


def _found(planes, grid, slot=0):
    """The geometries for a number of a slot."""
    return [placed for number, placed in geometry.find(planes, grid, 0) if number == slot]


@pytest.fixture(autouse=True)
def _few_scales(monkeypatch):
    monkeypatch.setattr(geometry, "_uniform_scales", lambda *_: [(s, s) for s in (1.0, 0.75, 0.9, 1.25)])


def _scaled(planes, height, width):
    sizes = (height, width), *2 * [(height // 2, width // 2)]
    return tuple(
        np.stack([media.resize(frame, w, h) for frame in plane])
        for plane, (h, w) in zip(planes, sizes, strict=True)
    )


def _cropped(planes, top, bottom, left, right):
    cut = [(slice(top // k, -bottom // k or None), slice(left // k, -right // k or None)) for k in (1, 2, 2)]
    return tuple(plane[:, *some] for plane, some in zip(planes, cut, strict=True))


@pytest.mark.parametrize("size", [(144, 240), pytest.param((240, 398), marks=pytest.mark.slow)])
def test_a_whole_picture_has_its_size_again(stego, size):
    (found,) = _found(_scaled(stego, *size), GRID)
    assert found.size == SIZE and found.offset == (0, 0)
    np.testing.assert_allclose(found.scale, np.array(SIZE) / size, rtol=1e-6)


@pytest.mark.slow
def test_a_still_image_is_found_by_its_luma_alone():
    carriers = symbol_model.make_carriers((0.0, 0.0) + (1.0,) * 3, ())
    grid, cover = geometry.make_grid(carriers, KEY), smooth(1, *SIZE) // 2 + 60
    rows, columns = (side // symbol_model.MACROBLOCK for side in SIZE)
    phases = np.random.default_rng(0).uniform(-0.5, 0.5, len(carriers.blocks) * rows * columns)
    indices, bits = grid.symbols(carriers, rows, columns)
    phases[indices] = levels.to_phases(bits)
    phases = phases.reshape(1, -1, rows, columns).transpose(0, 2, 3, 1).astype(np.float32)
    written = symbol_model.write_symbols(cover, phases, float(geometry.SPACINGS[2]), carriers)
    sent = np.asarray(written).astype(np.uint8)[0]
    (found,) = _found(planes_of(media.resize(sent, 240, 144)[None]), grid)
    assert found.size == SIZE and found.offset == (0, 0)
    assert not list(geometry.find(planes_of(cover), grid, 0))


def test_a_busy_picture_does_not_hide_a_better_hit(monkeypatch):
    scores = iter([8.0, 20.0])
    one = np.zeros((2, 1))
    monkeypatch.setattr(geometry, "_correlate", lambda *_: (one + next(scores), one, one.astype(int)))
    planes = np.zeros((FRAMES, 2, 72, 120), np.float32)
    assert geometry._search(planes, GRID, [(1.0, 1.0), (1.25, 1.25), (1.5, 1.5)], (1,), 1).scale[0] == 0.8


def test_usual_scales_are_tried_in_all_frames_and_others_in_the_last_few(monkeypatch):
    """Sites begin dark, or spend few bits at first, or all too many."""
    tried = []

    def search(planes, grid, scales, rates, stride, angle=0):
        tried.append((planes.tolist(), len([*scales])))

    monkeypatch.setattr(geometry, "_search", search)
    monkeypatch.setattr(geometry, "_uniform_scales", UNIFORM_SCALES)
    assert geometry._likeliest_hit(np.arange(20), GRID, *SIZE, 0) is None
    assert tried[0] == (list(range(20)), 4)
    assert all(planes == list(range(4, 20)) for planes, _ in tried[1:]) and tried[1][1] > 20


def test_pictures_without_a_whole_macroblock_have_nothing():
    """A spot on black, or a clip that is too small."""
    for planes in (in_planes(np.zeros((FRAMES, 64, 64, 3), np.uint8)), in_planes(smooth(FRAMES, 2, 2))):
        planes.y[:, :1, :1] = 200
        assert not list(geometry.find(tuple(planes), GRID, 0))


def test_what_was_cut_off_is_found(stego):
    received = _cropped(stego, 12, 10, 18, 8)
    found = _found(received, GRID)
    assert SIZE in [placed.size for placed in found]
    for placed in found:
        np.testing.assert_allclose(placed.scale, 1, atol=0.01)
        np.testing.assert_allclose(placed.offset, (12, 18), atol=1)
    placed = found[0]._replace(size=SIZE)
    here = placed.received(received[0].shape[1:])
    assert here[1:-1, 2:-1].all() and not here[0].any() and not here[:, :1].any() and not here[-1].any()
    y, cb, cr = placed.rectify(tuple(plane[3] for plane in received))
    assert y.shape == SIZE and cb.shape == cr.shape == (SIZE[0] // 2, SIZE[1] // 2)
    inside = slice(20, -20), slice(20, -20)
    assert np.abs(y[inside].astype(int) - stego[0][3][inside]).mean() < 4
    assert y.min() > 0  # mirrored, not black


def test_a_rotated_picture_is_rotated_back(stego):
    rotate = partial(ndimage.rotate, angle=1.4, axes=(2, 1), reshape=False, order=1, mode="nearest")
    received = tuple(map(rotate, stego))
    found = _found(received, GRID)[0]
    assert found.size == SIZE and found.describe(*SIZE) == "the stego was rotated by 1.4 degrees"
    here = found.received(SIZE)
    assert here[2:-2, 2:-2].all() and not here[[0, 0, -1, -1], [0, -1, 0, -1]].any()
    y = found.rectify(tuple(plane[3] for plane in received))[0]
    inside = slice(20, -20), slice(20, -20)
    assert np.abs(y[inside].astype(int) - stego[0][3][inside]).mean() < 4


@pytest.mark.parametrize(("gained", "angle"), [(0.01, 0), (0.05, 0.5)])
def test_a_rotation_has_to_be_worth_it(monkeypatch, gained, angle):
    """Crops behind a codec agree a little better when they are turned, and lie off the grid then."""
    monkeypatch.setattr(geometry, "_Pilots", lambda planes, grid, hit: hit.angle)
    hit = geometry._Hit(48.0, *[None] * 4, angle=0.75)
    found = geometry._likeliest_angle(None, None, hit, lambda at: 1 - gained * ((at - 0.5) / 0.5) ** 2)
    assert found == pytest.approx(angle, abs=0.02)


def test_rotations_are_tried_where_no_scale_is_found(monkeypatch):
    def search(planes, grid, scales, rates, stride, angle=0):
        return geometry._Hit(10 - abs(angle - 0.75), np.ones(2), *[None] * 3, angle) if angle > 0 else None

    monkeypatch.setattr(geometry, "_search", search)
    assert geometry._likeliest_hit(np.zeros(1), GRID, *SIZE, 0).angle == 0.75


def test_whole_samples_and_the_shape_it_had_are_likelier():
    """Pilots hardly tell 127.7 lines from 128, which are another number of blocks."""
    plain = geometry._plain(np.array([127.7 / 160, 0.8]), np.zeros(2), np.array([160, 280]))
    likely = [(likelihood, scale[0]) for scale, _, likelihood in plain if np.isclose(scale[1], 0.8)]
    assert len(likely) > 5 and max(likely)[1] == 0.8


@pytest.mark.parametrize("scale", [0.7, 1.0, 1.4])
def test_one_axis_is_resampled_as_pictures_are(scale):
    offset, unit = np.array([-3.2, 0.0]), np.eye(20, dtype=np.float32)
    moved = geometry._window(unit, np.float32([scale, 1]), np.float32(offset), (40, 20))
    np.testing.assert_allclose(geometry._weights(scale, offset[0], 20, 40), moved, atol=1e-5)


@pytest.mark.slow
def test_bars_are_no_part_of_the_picture(stego):
    padded = [
        np.pad(plane, ((0, 0), (side, side), (0, 0)), constant_values=black)
        for plane, side, black in zip(stego, (40, 20, 20), (16, 128, 128), strict=True)
    ]
    found = _found(tuple(padded), GRID)[0]
    assert found == geometry.Geometry(SIZE, (1.0, 1.0), (-40.0, 0.0))


@pytest.mark.slow
def test_another_key_or_an_innocent_picture_has_no_grid(stego):
    assert not list(geometry.find(stego, geometry.make_grid(CARRIERS, OTHER), 0))
    assert not list(geometry.find(tuple(in_planes(smooth(FRAMES, *SIZE))), GRID, 0))


@pytest.mark.slow
def test_each_slot_has_a_grid_of_its_own():
    """Of as many pilots as that of a stego without slots."""
    grids = GRID, geometry.make_grid(CARRIERS, OTHER)
    symbols = [grid.symbols(CARRIERS, 32, 32, Slot(i, 2))[0] for i, grid in enumerate(grids)]
    assert len({*symbols[0], *symbols[1]}) == 2 * GRID.there.sum()
    received = _scaled(_written(*grids), 144, 240)
    assert [_found(received, grid, slot)[0].size for slot, grid in enumerate(grids)] == [SIZE, SIZE]


def test_places_do_not_depend_on_the_size():
    """In a larger picture the first rows and columns are the same ones."""
    small, large = (np.zeros(6 * r * c, bool) for r, c in ((10, 14), (20, 40)))
    small[GRID.symbols(CARRIERS, 10, 14)[0]] = True
    large[GRID.symbols(CARRIERS, 20, 40)[0]] = True
    assert np.array_equal(small.reshape(6, 10, 14), large.reshape(6, 20, 40)[:, :10, :14])
    assert 0.7 < large.mean() / geometry.DENSITY < 1.3


def test_pilots_turn_every_two_frames():
    bits = np.random.default_rng(0).integers(0, 2, (50, levels.LEVELS), np.uint8)
    turns = [levels.to_phases(geometry.turned(bits, i)) - levels.to_phases(bits) for i in range(5)]
    assert [float(np.abs(turn).max()) for turn in turns] == [0, 0, 0.5, 0.5, 0]


@pytest.mark.slow
def test_frames_that_were_dropped_or_stretched_are_found(stego, monkeypatch):
    """Of 60 frames a second 30 are left; a picture of a usual size gets another shape."""
    monkeypatch.setattr(geometry, "_SIZES", (SIZE,))
    monkeypatch.setattr(geometry, "_uniform_scales", lambda *_: [(1.0, 1.0)])
    half = tuple(plane[::2] for plane in _written(GRID, frames=2 * FRAMES))
    _, found = next(geometry.find(half, GRID, 0))
    assert found == geometry.Geometry(SIZE, (1.0, 1.0), (0.0, 0.0)) and not found.describe(*SIZE)
    _, found = next(geometry.find(_scaled(stego, 192, 240), GRID, 0))
    assert found.size == SIZE and found.describe(192, 240) == "the stego was stretched to 240x192"


def test_scales_are_those_of_blocks_that_are_as_large_as_the_picture_wants():
    """A picture of 480 lines may have had 720, with blocks of 16 samples, which now are 10.7."""
    scales = np.array(list(UNIFORM_SCALES(480, 854, 360)))[:, 0]
    assert 4 / 3 in scales and scales.min() < 0.9 and scales.max() > 1.8
    assert [480 / 540 * 2, 2 * 2 / 3] in np.array(list(geometry._other_scales(480, 640, 360))).tolist()
