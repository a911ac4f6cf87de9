import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deepsteg_jax import cipher, dct
from deepsteg_jax.keystream import numpy_keystream

KEY = np.random.default_rng(7).integers(0, 2**32, 8, dtype=np.uint32)

scatter = jax.jit(cipher.scatter, static_argnums=(2, 3, 4, 5))
SAMPLES = tuple(jax.jit(f) for f in (cipher.encipher_samples, cipher.decipher_samples))
COEFFICIENTS = tuple(jax.jit(f) for f in (cipher.encipher_coefficients, cipher.decipher_coefficients))
BOTH = pytest.mark.parametrize("way", [SAMPLES, COEFFICIENTS], ids=["samples", "coefficients"])

SHAPE = (2, 19, 29, 3)  # 2x3 blocks and a margin both ways; most tests share it, since each compiles
BIG = (1, 48, 64, 3)


def frames_of(shape, seed=0):
    """8-bit samples, of which every value occurs if there are enough, as floats."""
    values = np.resize(np.arange(256, dtype=np.uint8), np.prod(shape))
    return np.random.default_rng(seed).permutation(values).reshape(shape)


def as_floats(frames):
    return jnp.asarray(frames, jnp.float32) / 255


def as_bytes(x):
    x = np.asarray(x)
    assert x.dtype == np.float32 and x.min() >= 0 and x.max() <= 1
    assert np.abs(x * 255 - np.round(x * 255)).max() < 2e-4  # 8-bit samples are still 8-bit samples
    return np.round(x * 255).astype(np.uint8)


# --- permutations --------------------------------------------------------------------------------


def random_turns(rows, columns, steps, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, columns, (steps, rows)), rng.integers(0, rows, (steps, columns))


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (1, 6), (5, 1), (4, 6), (13, 17)])
@pytest.mark.parametrize("steps", [0, 1, 3])
def test_rotations_are_permutations_with_an_inverse(rows, columns, steps):
    turns, grid = random_turns(rows, columns, steps), np.indices((rows, columns))
    for invert in (False, True):
        row, column = cipher.rotations(*grid, *turns, invert=invert)
        indices = row * columns + column
        np.testing.assert_array_equal(np.sort(indices.ravel()), np.arange(rows * columns))
        np.testing.assert_array_equal(cipher.rotations(row, column, *turns, invert=not invert), grid)


def test_rotations_are_rolls():
    row_turns, column_turns = random_turns(4, 6, 2)
    grid = np.arange(24).reshape(4, 6)
    row, column = cipher.rotations(*np.indices((4, 6)), row_turns, column_turns)
    for by_row, by_column in zip(row_turns, column_turns, strict=True):
        grid = np.stack([np.roll(line, turn) for line, turn in zip(grid, by_row, strict=True)])
        grid = np.stack([np.roll(line, turn) for line, turn in zip(grid.T, by_column, strict=True)], axis=1)
    np.testing.assert_array_equal(grid[row, column], np.arange(24).reshape(4, 6))


def test_rotations_of_numpy_and_jax_agree():
    turns, grid = random_turns(5, 7, 3), np.indices((5, 7))
    in_jax = cipher.rotations(*jnp.asarray(grid), *(jnp.asarray(turn) for turn in turns))
    np.testing.assert_array_equal(cipher.rotations(*grid, *turns), in_jax)


def test_scatter_is_as_documented():
    """Written out in NumPy, so that a stego made today opens after any upgrade."""
    rows, columns, grids, frame = 13, 17, 4, 9
    words = numpy_keystream(KEY.astype("<u4").tobytes(), frame + (1 << 32), 4 * grids * 3 * 30)
    words = words.view("<u4").reshape(grids, 3, 30).astype(int)
    found = scatter(KEY, frame, rows, columns, grids, False)
    for indices, turns in zip(found, words, strict=True):
        row, column = cipher.rotations(
            *np.indices((rows, columns)), turns[:, :rows] % columns, turns[:, rows:] % rows
        )
        np.testing.assert_array_equal(indices, (row * columns + column).ravel())


@pytest.mark.parametrize(("rows", "columns"), [(1, 5), (13, 17)])
def test_scatter_makes_permutations_and_their_inverses(rows, columns):
    forth = np.asarray(scatter(KEY, 3, rows, columns, 4, False))
    back = np.asarray(scatter(KEY, 3, rows, columns, 4, True))
    assert forth.shape == back.shape == (4, rows * columns)
    for one, inverse in zip(forth, back, strict=True):
        np.testing.assert_array_equal(np.sort(one), np.arange(rows * columns))
        np.testing.assert_array_equal(one[inverse], np.arange(rows * columns))


def test_grids_frames_and_keys_are_independent():
    other = KEY ^ np.uint32([0, 0, 0, 0, 0, 0, 0, 1])
    found = [np.asarray(scatter(*given, 13, 17, 4, False)) for given in ((KEY, 0), (KEY, 1), (other, 0))]
    found = np.concatenate(found)
    for i, one in enumerate(found):
        for two in found[:i]:
            assert np.mean(one == two) < 0.05


def random_scatters(rows, columns, count):
    """[count, rows, columns] as `scatter` makes them, with the words of another generator."""
    found = []
    for seed in range(count):
        turns = random_turns(rows, columns, cipher.ROUNDS // 2, seed)
        row, column = cipher.rotations(*np.indices((rows, columns)), *turns)
        found.append(row * columns + column)
    return np.stack(found)


@pytest.mark.slow
@pytest.mark.parametrize(("rows", "columns"), [(3, 4), (1, 7), (5, 5)])
def test_scatters_are_uniform(rows, columns):
    """Chi-square of where each index is taken from."""
    size, count = rows * columns, 1000
    found = random_scatters(rows, columns, count).reshape(count, size)
    counts = np.stack([np.bincount(column, minlength=size) for column in found.T])
    chi_square = ((counts - count / size) ** 2 / (count / size)).sum() / (size - 1) ** 2
    assert abs(chi_square - 1) < 5 * (2 / (size - 1) ** 2) ** 0.5


def test_neighbours_part():
    """Along rows and along columns; too few rotations would leave them together."""
    rows, columns = 24, 32
    found = random_scatters(rows, columns, 100)
    for axis in (1, 2):
        apart = np.abs(np.diff(found // columns, axis=axis)) + np.abs(np.diff(found % columns, axis=axis))
        chance = 4 / (rows * columns)
        assert np.mean(apart == 1) < chance + 4 * (chance / apart.size) ** 0.5


# --- both forms ----------------------------------------------------------------------------------


@BOTH
def test_every_frame_has_its_own(way):
    frames = as_floats(np.repeat(frames_of((1, *SHAPE[1:])), 2, axis=0))
    pairs = [np.asarray(way[0](frames, KEY, first)) for first in (0, 1, 2)]
    for (_, one), (two, _) in zip(pairs, pairs[1:], strict=False):
        np.testing.assert_array_equal(one, two)
    found = np.corrcoef([pair[0].ravel() for pair in pairs])
    assert np.abs(found - np.eye(3)).max() < 0.15


@BOTH
@pytest.mark.parametrize("word", range(8))
@pytest.mark.parametrize("bit", [0, 31])
def test_every_key_word_matters(way, word, bit):
    frames = frames_of(SHAPE)
    other = KEY.copy()
    other[word] ^= np.uint32(1 << bit)
    wrong = np.asarray(way[1](way[0](as_floats(frames), KEY, 0), other, 0)).ravel()
    assert abs(np.corrcoef(wrong, frames.ravel())[0, 1]) < 0.15


def test_jit_equals_eager():
    frames = as_floats(frames_of(SHAPE))
    np.testing.assert_array_equal(cipher.encipher_samples(frames, KEY, 6), SAMPLES[0](frames, KEY, 6))


@BOTH
def test_order_of_the_inverses_does_not_matter(way):
    frames = as_floats(frames_of(SHAPE))
    np.testing.assert_allclose(way[0](way[1](frames, KEY, 5), KEY, 5), frames, atol=1e-5)


@pytest.mark.parametrize(("way", "backwards"), [(SAMPLES, 0), (SAMPLES, 1), (COEFFICIENTS, 1)])
def test_gradient_is_that_of_finite_differences(way, backwards):
    """An affine map: a difference of any size is exact."""
    change = way[backwards]
    rng = np.random.default_rng(3)
    frames = as_floats(frames_of(SHAPE))
    weights, direction = (jnp.asarray(rng.normal(size=frames.shape), jnp.float32) for _ in range(2))
    gradient = jax.grad(lambda x: jnp.sum(weights * change(x, KEY, 4)))(frames)
    difference = (change(frames + direction, KEY, 4) - change(frames - direction, KEY, 4)) / 2
    np.testing.assert_allclose(jnp.sum(gradient * direction), jnp.sum(weights * difference), atol=1e-2)
    # It reaches every sample, and undoes the map: permutations, signs and DCT are orthogonal.
    scale = 1 if way is SAMPLES else (cipher.HEADROOM, 1 / cipher.HEADROOM)[backwards]
    back = way[1 - backwards]
    linear = back(weights, KEY, 4) - back(jnp.zeros_like(weights), KEY, 4)
    np.testing.assert_allclose(gradient, scale**2 * linear, atol=1e-4)


# --- samples -------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [SHAPE, (1, 1, 1, 3)])
def test_samples_come_back_bit_for_bit(shape):
    frames = frames_of(shape)
    enciphered = SAMPLES[0](as_floats(frames), KEY, 3)
    assert enciphered.shape == shape
    np.testing.assert_array_equal(as_bytes(SAMPLES[1](enciphered, KEY, 3)), frames)
    stored = as_bytes(enciphered)  # and again if the enciphered frame was rounded to 8 bits
    np.testing.assert_array_equal(as_bytes(SAMPLES[1](as_floats(stored), KEY, 3)), frames)


def test_samples_are_as_documented():
    """Written out in NumPy: where each comes from, then its coin."""
    frames, key = frames_of(SHAPE), KEY.astype("<u4").tobytes()
    enciphered = as_bytes(SAMPLES[0](as_floats(frames), KEY, 6))
    rows, columns = SHAPE[1], SHAPE[2] * SHAPE[3]
    for number, (frame, found) in enumerate(zip(frames, enciphered, strict=True), 6):
        words = numpy_keystream(key, number + (1 << 32), 4 * 3 * (rows + columns)).view("<u4").reshape(3, -1)
        turns = (words[:, :rows] % columns).astype(int), (words[:, rows:] % rows).astype(int)
        row, column = cipher.rotations(*np.indices((rows, columns)), *turns)
        coins = numpy_keystream(key, number + (2 << 32), frame.size // 8 + 1)
        coins = np.unpackbits(coins, bitorder="little")[: frame.size]
        moved = frame.reshape(rows, columns)[row, column].ravel()
        np.testing.assert_array_equal(np.where(coins, 255 - moved, moved), found.ravel())


def test_samples_are_moved_and_half_of_them_turned_over():
    frames = (frames_of(SHAPE)[:1] // 2).repeat(2, axis=0)  # all below the middle, so coins are seen
    enciphered = as_bytes(SAMPLES[0](as_floats(frames), KEY, 0)).reshape(2, -1)
    turned = enciphered > 127
    assert np.abs(turned.mean(1) - 0.5).max() < 4 * 0.5 / turned.shape[1] ** 0.5
    assert 0.4 < np.mean(turned[0] == turned[1]) < 0.6
    back = np.where(turned, 255 - enciphered, enciphered)
    np.testing.assert_array_equal(np.sort(back), np.sort(frames.reshape(2, -1)))


def test_samples_go_anywhere_in_the_frame():
    """Rows, columns and colours alike."""
    frames, indices = np.full(SHAPE, 0.5, np.float32), []
    frames[:, 4, 6, 1] = 1
    for first in range(0, 400, 2):
        moved = np.asarray(SAMPLES[0](frames, KEY, first)).reshape(2, -1)
        assert np.all(np.count_nonzero(moved != 0.5, axis=1) == 1)
        indices += np.abs(moved - 0.5).argmax(1).tolist()
    for index, size in zip(np.unravel_index(indices, SHAPE[1:]), SHAPE[1:], strict=True):
        counts, expected = np.bincount(index, minlength=size), 400 / size
        chi_square = ((counts - expected) ** 2 / expected).sum() / (size - 1)
        assert abs(chi_square - 1) < 4 * (2 / (size - 1)) ** 0.5


def test_enciphered_samples_are_grey_whatever_the_frame():
    """The mean of a dark frame does not show, nor does it in any row or column."""
    dark = np.asarray(SAMPLES[0](jnp.full(SHAPE, 0.1, jnp.float32), KEY, 0))
    assert dark.mean() == pytest.approx(0.5, abs=4 * 0.4 / dark.size**0.5)
    for axes in ((0, 2, 3), (0, 1, 3), (0, 1, 2)):
        means = dark.mean(axes)
        assert np.abs(means - 0.5).max() < 4 * 0.4 / (dark.size / means.size) ** 0.5


# --- coefficients --------------------------------------------------------------------------------


def planes(frames):
    """[n, frequency, block] of the whole blocks, about mid-grey."""
    n, h, w, _ = frames.shape
    whole = jnp.asarray(frames)[:, : h // 8 * 8, : w // 8 * 8] - 0.5
    return np.asarray(dct.to_blocks(whole, 8)).reshape(n, -1, 192).swapaxes(1, 2)


def margin(frames):
    """[n, samples] that no whole block covers, about mid-grey."""
    n, h, w, _ = frames.shape
    outside = np.ones(frames.shape[1:], bool)
    outside[: h // 8 * 8, : w // 8 * 8] = False
    return np.asarray(frames).reshape(n, -1)[:, outside.ravel()] - 0.5


@pytest.mark.parametrize("shape", [SHAPE, (1, 8, 16, 3)])
def test_coefficients_come_back(shape):
    frames = frames_of(shape)
    enciphered = COEFFICIENTS[0](as_floats(frames), KEY, 3)
    assert enciphered.shape == shape and enciphered.dtype == jnp.float32
    back = COEFFICIENTS[1](enciphered, KEY, 3)
    np.testing.assert_allclose(back, as_floats(frames), atol=2e-6)
    np.testing.assert_array_equal(as_bytes(jnp.clip(back, 0, 1)), frames)


def test_every_frequency_keeps_its_magnitudes():
    frames = np.asarray(as_floats(frames_of(SHAPE)))
    enciphered = COEFFICIENTS[0](frames, KEY, 3)
    for parts in (planes, margin):
        before, after = parts(frames), parts(enciphered)
        np.testing.assert_allclose(np.sort(np.abs(after)), np.sort(np.abs(before)) / 2, atol=2e-5)


def test_every_frequency_has_a_permutation_and_signs_of_its_own():
    """Coefficients are numbered, so that where each went can be read off."""
    rows, columns = BIG[1] // 8, BIG[2] // 8
    count = rows * columns
    numbered = np.broadcast_to((1 + np.arange(count)) / count, (192, count)).T.reshape(1, rows, columns, 192)
    frame = dct.from_blocks(jnp.asarray(numbered, jnp.float32), 8) + 0.5
    after = planes(COEFFICIENTS[0](frame, KEY, 0))[0] * count / cipher.HEADROOM
    orders = np.round(np.abs(after)).astype(int) - 1
    np.testing.assert_allclose(np.abs(after), orders + 1, atol=1e-3)
    np.testing.assert_array_equal(np.sort(orders), np.tile(np.arange(count), (192, 1)))
    assert len({order.tobytes() for order in orders}) == 192
    assert np.mean(orders[1:] == orders[:-1]) < 2 / count
    negative = after < 0
    assert abs(negative.mean() - 0.5) < 4 * 0.5 / negative.size**0.5
    assert np.abs(negative.mean(axis=0) - 0.5).max() < 0.2  # neither block nor frequency decides
    assert np.abs(np.mean(negative[1:] == negative[:-1]) - 0.5) < 0.03


def test_margin_is_scattered():
    frames = np.asarray(as_floats(frames_of(SHAPE)))
    before, after = margin(frames)[0], margin(COEFFICIENTS[0](frames, KEY, 0))[0]
    assert len(before) > 500
    assert abs(np.corrcoef(before, after)[0, 1]) < 0.15
    assert 0.4 < np.mean(np.sign(after) == np.sign(before)) < 0.6
    # What no block covers and what blocks cover do not mix.
    inside = frames.copy()
    inside[:, :16, :24] = 0.25
    np.testing.assert_array_equal(margin(COEFFICIENTS[0](inside, KEY, 0))[0], after)


def test_pictures_seldom_leave_the_range():
    """At half the contrast, of which the energy is exactly a quarter."""
    y, x = np.mgrid[: BIG[1], : BIG[2]][..., None] / 10
    picture = 0.5 + 0.4 * np.sin(x + [0, 1, 2]) * np.cos(y)
    enciphered = np.asarray(COEFFICIENTS[0](jnp.asarray(picture[None], jnp.float32), KEY, 0))
    assert np.mean((enciphered < 0) | (enciphered > 1)) < 1e-2
    assert enciphered.mean() == pytest.approx(0.5, abs=0.05)
    assert np.mean((enciphered - 0.5) ** 2) == pytest.approx(
        cipher.HEADROOM**2 * np.mean((picture - 0.5) ** 2), rel=1e-3
    )
