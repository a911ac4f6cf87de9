import numpy as np
import pytest

from deepsteg_jax.schemes import low_bits

STEPS = (1, 2, 3, 4, 5, 32)
KEY = bytes(range(32))


def noise(size, seed=0):
    return np.random.default_rng(seed).integers(0, 256, size, dtype=np.uint8)


def near(samples, modulus, seed=1):
    """A cover within `modulus` of the samples, as a model's stego has it."""
    away = np.random.default_rng(seed).integers(-modulus, modulus + 1, samples.size)
    return np.clip(samples.astype(int) + away, 0, 255).astype(np.uint8)


def filled(samples, cover, data, modulus, seed=0):
    """(the samples afterwards, the indices)."""
    indices = np.random.default_rng(seed).permutation(samples.size)
    after = samples.copy()
    low_bits.write(after, cover, indices, data, modulus, low_bits.parity_table(modulus))
    return after, indices


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


@pytest.mark.parametrize("modulus", STEPS)
@pytest.mark.parametrize(("p", "size"), CODES)
def test_round_trip_and_how_samples_move(p, size, modulus):
    samples, data = noise(size, p), noise(40, 99).tobytes()
    after, indices = filled(samples, near(samples, modulus), data, modulus)
    assert after.dtype == np.uint8
    assert low_bits.read(after, indices, 40, low_bits.parity_table(modulus)) == data
    change = after.astype(int) - samples
    assert set(np.abs(change)) <= {0, modulus}
    np.testing.assert_array_equal(after % modulus, samples % modulus)  # also: nothing wrapped around
    used = low_bits.samples_needed(40, size)
    groups = change[indices[:used]].reshape(-1, 2**p - 1) != 0
    assert groups.sum(1).max() == 1
    assert not change[indices[used:]].any()


@pytest.mark.parametrize("modulus", STEPS)
@pytest.mark.parametrize("value", [0, 1, 127, 128, 254, 255])
def test_flat_frames(value, modulus):
    samples, data = np.full(400, value, np.uint8), noise(40).tobytes()
    after, indices = filled(samples, samples, data, modulus)
    assert low_bits.read(after, indices, 40, low_bits.parity_table(modulus)) == data
    assert set(np.abs(after.astype(int) - value)) == {0, modulus}


@pytest.mark.parametrize("data", [b"", b"\0", b"\xff", b"\0" * 40, b"\xff" * 40, b"\x01\x80"])
@pytest.mark.parametrize("size", [320, 500, 3402])
def test_any_bytes(data, size):
    after, indices = filled(noise(size), noise(size), data, 3)
    assert low_bits.read(after, indices, len(data), low_bits.parity_table(3)) == data


def test_writing_again_changes_nothing():
    samples, data = noise(500), noise(40, 1).tobytes()
    once, indices = filled(samples, samples, data, 3)
    twice = once.copy()
    low_bits.write(twice, samples, indices, data, 3, low_bits.parity_table(3))
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


@pytest.mark.parametrize("modulus", STEPS)
def test_samples_move_towards_the_cover(modulus):
    samples, data = noise(5000, 3), noise(600, 4).tobytes()
    cover = near(samples, 2 * modulus)
    after, _ = filled(samples, cover, data, modulus)
    change, away = after.astype(int) - samples, cover.astype(int) - samples
    free = (change != 0) & (samples >= modulus) & (samples <= 255 - modulus)
    assert free.sum() > 1000
    differ = free & (away != 0)
    np.testing.assert_array_equal(np.sign(change[differ]), np.sign(away[differ]))
    same = free & (away == 0)
    assert same.sum() > 5  # these go either way: the mean of a frame does not drift
    assert len(set(np.sign(change[same]))) == 2


@pytest.mark.parametrize("modulus", STEPS)
def test_near_the_ends_of_the_range_there_is_one_way(modulus):
    low, high = np.arange(modulus, dtype=np.uint8), 255 - np.arange(modulus, dtype=np.uint8)
    for samples, goal, way in ((low, 0, 1), (high, 255, -1)):
        samples = np.resize(samples, 400)
        after, _ = filled(samples, np.full(400, goal, np.uint8), noise(40).tobytes(), modulus)
        assert set(after.astype(int) - samples) == {0, way * modulus}


def test_one_wrong_sample_spoils_one_group():
    samples, data = noise(1200), noise(40, 8).tobytes()
    after, indices = filled(samples, samples, data, 3)
    after[indices[16]] = after[indices[16]] + 3 if after[indices[16]] < 128 else after[indices[16]] - 3
    wrong = np.frombuffer(
        low_bits.read(after, indices, 40, low_bits.parity_table(3)), np.uint8
    ) ^ np.frombuffer(data, np.uint8)
    assert np.flatnonzero(wrong).tolist() == [0]  # p is 4: bits 4 to 7


def test_too_few_indices():
    samples = noise(400)
    for call in (
        lambda indices: low_bits.write(samples, samples, indices, bytes(40), 3, low_bits.parity_table(3)),
        lambda indices: low_bits.read(samples, indices, 40, low_bits.parity_table(3)),
        lambda indices: low_bits.samples_needed(40, len(indices)),
    ):
        call(np.arange(320))
        with pytest.raises(ValueError, match="40 bytes.*319 samples"):
            call(np.arange(319))
    assert low_bits.code_for(40, 319) == 0


# --- indices --------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 16, 17, 128, 640, 768, 2687, 5000, 99_991])
def test_indices_are_a_permutation(size):
    for number in (0, 1, 2**32 - 1, 2**40):
        indices = low_bits.choose_indices(KEY, number, size, size)
        np.testing.assert_array_equal(np.sort(indices), np.arange(size))


@pytest.mark.parametrize("size", [768, 5000])
def test_few_indices_are_the_first_of_all(size):
    every = low_bits.choose_indices(KEY, 7, size, size)
    for count in (0, 1, 100):
        np.testing.assert_array_equal(low_bits.choose_indices(KEY, 7, count, size), every[:count])


@pytest.mark.parametrize("byte", range(0, 32, 3))
def test_indices_depend_on_every_byte_of_the_key(byte):
    other = bytearray(KEY)
    other[byte] ^= 0x80
    one, two = (low_bits.choose_indices(bytes(key), 0, 1000, 1000) for key in (KEY, other))
    assert np.mean(one == two) < 0.02


def test_indices_depend_on_the_number():
    numbers = (0, 1, 2, 255, 256, 2**32)
    found = [low_bits.choose_indices(KEY, number, 1000, 1000) for number in numbers]
    for i, one in enumerate(found):
        for two in found[:i]:
            assert np.mean(one == two) < 0.02


@pytest.mark.slow
@pytest.mark.parametrize("size", [12, 17])
def test_indices_are_uniform(size):
    """Chi-square of where each index goes, over 1000 permutations: its mean over all indices is about 1."""
    found = np.array([low_bits.choose_indices(KEY, number, size, size) for number in range(1000)])
    counts = np.stack([np.bincount(column, minlength=size) for column in found.T])
    expected = 1000 / size
    chi_square = ((counts - expected) ** 2 / expected).sum() / (size - 1) ** 2
    assert abs(chi_square - 1) < 5 * (2 / (size - 1) ** 2) ** 0.5


def test_neighbours_part():
    """Rows and columns that rotate would keep neighbours together if they rotated too few times."""
    size = 10_000
    together = [
        np.mean(np.abs(np.diff(low_bits.choose_indices(KEY, number, size, size))) == 1)
        for number in range(10)
    ]
    assert np.mean(together) < 4 * 2 / size


@pytest.mark.parametrize("modulus", range(1, 33))
def test_the_common_table_can_be_written_with_any_modulus(modulus):
    table, values = low_bits.COMMON_TABLE, np.arange(256)
    steps = np.arange(-6, 7) * modulus
    near = values[:, None] + steps
    flips = (near >= 0) & (near <= 255) & (table[near.clip(0, 255)] != table[:, None])
    assert flips.any(1).all()
    samples, data = noise(5_000), bytes(range(40))
    indices = low_bits.choose_indices(KEY, 0, low_bits.samples_needed(40, 5_000), 5_000)
    after = samples.copy()
    low_bits.write(after, samples, indices, data, modulus, table)
    assert low_bits.read(after, indices, 40, table) == data
    np.testing.assert_array_equal(after % modulus, samples % modulus)
    assert np.abs(after.astype(int) - samples).max() <= 6 * modulus
