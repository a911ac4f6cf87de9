import re
from fractions import Fraction

import numpy as np
import pytest

from deepsteg_jax import keys
from deepsteg_jax.errors import UserError
from deepsteg_jax.video import sideinfo

STEPS = (1, 3, 4, 5)
INFO = sideinfo.SideInfo(320, 240, 1234, Fraction(30000, 1001), b"8 bytes.")
SALT = bytes(range(100, 116))
KEY = bytes(range(32))


def noise(height=24, width=36, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def flat(value, height=24, width=36):
    return np.full((height, width, 3), value, np.uint8)


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("frame", [noise(), flat(0), flat(255), flat(128)], ids=["noise", "0", "255", "128"])
def test_round_trip_and_how_far_samples_move(frame, step):
    before = frame.copy()
    marked = sideinfo.embed(frame, SALT, KEY, INFO, step)
    np.testing.assert_array_equal(frame, before)
    assert marked.dtype == np.uint8 and marked.shape == frame.shape
    assert sideinfo.read_salt(marked, step) == SALT
    assert sideinfo.extract(marked, KEY, step) == INFO
    change = marked.astype(int) - frame
    assert set(np.abs(change).ravel()) == {0, step}  # so nothing wrapped around at 0 or 255
    if step > 1:
        np.testing.assert_array_equal(marked % step, frame % step)
    assert np.count_nonzero(change) <= sideinfo.SMALLEST_FRAME


@pytest.mark.parametrize(
    "info",
    [
        sideinfo.SideInfo(1, 1, 1, Fraction(1), bytes(8)),
        sideinfo.SideInfo(70_000, 66_000, 2**32 - 1, Fraction(65_536, 65_535), b"\xff" * 8),
        sideinfo.SideInfo(7, 5, 3, Fraction(1, 3), b"\0\1\2\3\4\5\6\7"),
    ],
)
def test_extreme_facts(info):
    assert sideinfo.extract(sideinfo.embed(noise(), SALT, KEY, info, 4), KEY, 4) == info


def test_smallest_frame():
    # With 513 samples for 512 bits, places that were not distinct would overwrite each other.
    frame = noise(9, 19)
    assert frame.size == sideinfo.SMALLEST_FRAME + 1
    marked = sideinfo.embed(frame, SALT, KEY, INFO, 1)
    assert sideinfo.read_salt(marked, 1) == SALT
    assert sideinfo.extract(marked, KEY, 1) == INFO


def test_frame_too_small():
    frame = noise(10, 17)
    with pytest.raises(UserError, match="too small") as caught:
        sideinfo.embed(frame, SALT, KEY, INFO, 1)
    assert int(re.search(r"(\d+) pixels", str(caught.value)).group(1)) == 171
    with pytest.raises(UserError, match="too small"):
        sideinfo.read_salt(frame, 1)


@pytest.mark.parametrize("size", [513, 5184, 100_000])
def test_places_are_distinct(size):
    salt = sideinfo._salt_places(size)
    sealed = sideinfo._sealed_places(KEY, size)
    together = np.concatenate([salt, sealed])
    assert len(np.unique(together)) == len(together) == sideinfo.SMALLEST_FRAME
    assert together.min() >= 0 and together.max() < size


def test_places_are_spread_over_the_frame():
    places = np.concatenate([sideinfo._sealed_places(bytes([i]) * 32, 10_000) for i in range(10)])
    counts = np.histogram(places, bins=10, range=(0, 10_000))[0]
    assert abs(counts / len(places) - 0.1).max() < 0.03


def test_wrong_key():
    marked = sideinfo.embed(noise(), SALT, KEY, INFO, 4)
    for key in (bytes(32), KEY[:-1] + b"\0"):
        with pytest.raises(UserError, match="passphrase") as caught:
            sideinfo.extract(marked, key, 4)
        assert "\n" not in str(caught.value)


def test_salt_is_readable_without_the_key():
    for key in (KEY, bytes(32)):
        assert sideinfo.read_salt(sideinfo.embed(noise(), SALT, key, INFO, 4), 4) == SALT


def test_nothing_hidden():
    for frame in (noise(), flat(0), flat(255)):
        assert len(sideinfo.read_salt(frame, 4)) == keys.SALT_BYTES
        with pytest.raises(UserError, match="nothing is hidden"):
            sideinfo.extract(frame, KEY, 4)


@pytest.mark.parametrize("step", STEPS)
def test_every_flipped_bit_is_noticed(step):
    marked = sideinfo.embed(noise(), SALT, KEY, INFO, step)
    places = sideinfo._sealed_places(KEY, marked.size)
    for place in places[:: len(places) // 23]:
        bad = marked.flatten()
        bad[place] = bad[place] + step if bad[place] < 128 else bad[place] - step
        with pytest.raises(UserError, match="recoded"):
            sideinfo.extract(bad.reshape(marked.shape), KEY, step)


def test_changes_elsewhere_do_no_harm():
    marked = sideinfo.embed(noise(), SALT, KEY, INFO, 4)
    used = np.concatenate([sideinfo._salt_places(marked.size), sideinfo._sealed_places(KEY, marked.size)])
    other = noise(seed=1).flatten()
    other[used] = marked.ravel()[used]
    assert sideinfo.extract(other.reshape(marked.shape), KEY, 4) == INFO


def test_other_version():
    marked = sideinfo.embed(noise(), SALT, KEY, INFO, 4)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sideinfo, "_VERSION", 2)
        newer = sideinfo.embed(noise(), SALT, KEY, INFO, 4)
    with pytest.raises(UserError, match="format 2"):
        sideinfo.extract(newer, KEY, 4)
    assert sideinfo.extract(marked, KEY, 4) == INFO


def marks(salt, passphrase="correct horse"):
    """Which samples of a flat frame of 0 were changed, for a key derived as the pipeline does."""
    key = keys.derive_key(passphrase, salt)
    return sideinfo.embed(flat(0, 200, 200), salt, key, INFO, 4).ravel() != 0


def test_bits_look_random():
    # On a frame of zeros each 1 is a change; 5 marks of 512 bits are a coin thrown 2560 times.
    ones = [marks(np.random.default_rng(i).bytes(16)).sum() / sideinfo.SMALLEST_FRAME for i in range(5)]
    assert abs(np.mean(ones) - 0.5) < 5 * 0.5 / (5 * sideinfo.SMALLEST_FRAME) ** 0.5
    assert len(set(ones)) > 1


def test_two_salts_use_different_places():
    first, second = marks(SALT), marks(SALT[::-1])
    public = np.zeros_like(first)
    public[sideinfo._salt_places(first.size)] = True
    first, second = first & ~public, second & ~public
    assert first.sum() > 100 and second.sum() > 100
    assert (first & second).sum() < 10
    np.testing.assert_array_equal(marks(SALT), marks(SALT))  # and the same salt the same ones


def test_long_fractions_are_rounded():
    info = INFO._replace(rate=Fraction(10**12 + 1, 10**11))
    rate = sideinfo.extract(sideinfo.embed(noise(), SALT, KEY, info, 4), KEY, 4).rate
    assert abs(float(rate) - 10) < 1e-4
