import numpy as np
import pytest

from deepsteg_jax.schemes import low_bits

STEPS = (1, 2, 3, 4, 5, 32)
KEY = bytes(range(32))


def noise(size, seed=0):
    return np.random.default_rng(seed).integers(0, 256, size, dtype=np.uint8)


def near(samples, step, seed=1):
    """A cover within `step` of the samples, as a model's stego has it."""
    away = np.random.default_rng(seed).integers(-step, step + 1, samples.size)
    return np.clip(samples.astype(int) + away, 0, 255).astype(np.uint8)


def filled(samples, cover, data, step, seed=0):
    """(the samples afterwards, the places)."""
    places = np.random.default_rng(seed).permutation(samples.size)
    after = samples.copy()
    low_bits.write(after, cover, places, data, step)
    return after, places


# Samples for 40 bytes so that each of the codes is used: (p, samples).
CODES = [(1, 320), (2, 480), (3, 749), (4, 1200), (5, 1984), (6, 3402)]


@pytest.mark.parametrize(("p", "size"), CODES)
def test_code_is_the_largest_that_fits(p, size):
    assert low_bits.code_for(40, size) == p
    assert low_bits.code_for(40, size - 1) == p - 1
    assert low_bits.samples_needed(40, size) == size


def test_no_code_is_larger_than_the_largest():
    assert low_bits.code_for(40, 10**6) == 6
    assert low_bits.samples_needed(40, 10**6) == 3402


@pytest.mark.parametrize("count", [1, 2, 5, 16, 79, 80, 1000])
def test_what_is_needed_is_enough_for_the_same_code(count):
    """Places may be cut to those that are used before they are handed on."""
    for samples in range(8 * count, 90 * count, max(1, count // 3)):
        needed = low_bits.samples_needed(count, samples)
        assert needed <= samples
        assert low_bits.code_for(count, needed) == low_bits.code_for(count, samples)


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize(("p", "size"), CODES)
def test_round_trip_and_how_samples_move(p, size, step):
    samples, data = noise(size, p), noise(40, 99).tobytes()
    after, places = filled(samples, near(samples, step), data, step)
    assert after.dtype == np.uint8
    assert low_bits.read(after, places, 40, step) == data
    change = after.astype(int) - samples
    assert set(np.abs(change)) <= {0, step}
    np.testing.assert_array_equal(after % step, samples % step)  # also: nothing wrapped around
    used = low_bits.samples_needed(40, size)
    groups = change[places[:used]].reshape(-1, 2**p - 1) != 0
    assert groups.sum(1).max() == 1
    assert not change[places[used:]].any()


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("value", [0, 1, 127, 128, 254, 255])
def test_flat_frames(value, step):
    samples, data = np.full(400, value, np.uint8), noise(40).tobytes()
    after, places = filled(samples, samples, data, step)
    assert low_bits.read(after, places, 40, step) == data
    assert set(np.abs(after.astype(int) - value)) == {0, step}


@pytest.mark.parametrize("data", [b"", b"\0", b"\xff", b"\0" * 40, b"\xff" * 40, b"\x01\x80"])
@pytest.mark.parametrize("size", [320, 500, 3402])
def test_any_bytes(data, size):
    after, places = filled(noise(size), noise(size), data, 3)
    assert low_bits.read(after, places, len(data), 3) == data


def test_writing_again_changes_nothing():
    samples, data = noise(500), noise(40, 1).tobytes()
    once, places = filled(samples, samples, data, 3)
    twice = once.copy()
    low_bits.write(twice, samples, places, data, 3)
    np.testing.assert_array_equal(once, twice)
    assert not np.array_equal(once, samples)


@pytest.mark.parametrize("p", range(1, 7))
def test_how_many_samples_change(p):
    """A group stays as it is if it holds the message already, once in 2^p."""
    count, groups = 6000 // 8 * p, 6000
    samples = noise(groups * (2**p - 1), p)
    assert low_bits.code_for(count, samples.size) == p
    after, _ = filled(samples, samples, noise(count, 50 + p).tobytes(), 3)
    share = 1 - 2.0**-p
    deviation = (groups * share * (1 - share)) ** 0.5
    assert abs(np.count_nonzero(after != samples) - groups * share) < 4 * deviation


@pytest.mark.parametrize("step", STEPS)
def test_samples_move_towards_the_cover(step):
    samples, data = noise(5000, 3), noise(600, 4).tobytes()
    cover = near(samples, 2 * step)
    after, _ = filled(samples, cover, data, step)
    change, away = after.astype(int) - samples, cover.astype(int) - samples
    free = (change != 0) & (samples >= step) & (samples <= 255 - step)
    assert free.sum() > 1000
    differ = free & (away != 0)
    np.testing.assert_array_equal(np.sign(change[differ]), np.sign(away[differ]))
    same = free & (away == 0)
    assert same.sum() > 5  # these go either way: the mean of a frame does not drift
    assert len(set(np.sign(change[same]))) == 2


@pytest.mark.parametrize("step", STEPS)
def test_near_the_ends_of_the_range_there_is_one_way(step):
    low, high = np.arange(step, dtype=np.uint8), 255 - np.arange(step, dtype=np.uint8)
    for samples, goal, way in ((low, 0, 1), (high, 255, -1)):
        samples = np.resize(samples, 400)
        after, _ = filled(samples, np.full(400, goal, np.uint8), noise(40).tobytes(), step)
        assert set(after.astype(int) - samples) == {0, way * step}


def test_one_wrong_sample_spoils_one_group():
    samples, data = noise(1200), noise(40, 8).tobytes()
    after, places = filled(samples, samples, data, 3)
    after[places[16]] = after[places[16]] + 3 if after[places[16]] < 128 else after[places[16]] - 3
    wrong = np.frombuffer(low_bits.read(after, places, 40, 3), np.uint8) ^ np.frombuffer(data, np.uint8)
    assert np.flatnonzero(wrong).tolist() == [0]  # p is 4: bits 4 to 7


def test_too_few_places():
    samples = noise(400)
    for call in (
        lambda places: low_bits.write(samples, samples, places, bytes(40), 3),
        lambda places: low_bits.read(samples, places, 40, 3),
        lambda places: low_bits.samples_needed(40, len(places)),
    ):
        call(np.arange(320))
        with pytest.raises(ValueError, match="40 bytes.*319 samples"):
            call(np.arange(319))
    assert low_bits.code_for(40, 319) == 0


# --- places --------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 16, 17, 128, 640, 768, 2687, 5000, 99_991])
def test_places_are_a_permutation(size):
    for number in (0, 1, 2**32 - 1, 2**40):
        places = low_bits.choose_places(KEY, number, size, size)
        np.testing.assert_array_equal(np.sort(places), np.arange(size))


@pytest.mark.parametrize("size", [768, 5000])
def test_few_places_are_the_first_of_all(size):
    every = low_bits.choose_places(KEY, 7, size, size)
    for count in (0, 1, 100):
        np.testing.assert_array_equal(low_bits.choose_places(KEY, 7, count, size), every[:count])


@pytest.mark.parametrize("byte", range(0, 32, 3))
def test_places_depend_on_every_byte_of_the_key(byte):
    other = bytearray(KEY)
    other[byte] ^= 0x80
    one, two = (low_bits.choose_places(bytes(key), 0, 1000, 1000) for key in (KEY, other))
    assert np.mean(one == two) < 0.02


def test_places_depend_on_the_number():
    numbers = (0, 1, 2, 255, 256, 2**32)
    found = [low_bits.choose_places(KEY, number, 1000, 1000) for number in numbers]
    for i, one in enumerate(found):
        for two in found[:i]:
            assert np.mean(one == two) < 0.02


@pytest.mark.parametrize("size", [12, 17])
def test_places_are_uniform(size):
    """Chi-square of where each index goes, over 3000 permutations: its mean over all indices is about 1."""
    found = np.array([low_bits.choose_places(KEY, number, size, size) for number in range(3000)])
    counts = np.stack([np.bincount(column, minlength=size) for column in found.T])
    expected = 3000 / size
    chi_square = ((counts - expected) ** 2 / expected).sum() / (size - 1) ** 2
    assert abs(chi_square - 1) < 5 * (2 / (size - 1) ** 2) ** 0.5


def test_neighbours_part():
    """Rows and columns that rotate would keep neighbours together if they rotated too few times."""
    size = 10_000
    together = [
        np.mean(np.abs(np.diff(low_bits.choose_places(KEY, number, size, size))) == 1) for number in range(10)
    ]
    assert np.mean(together) < 4 * 2 / size
