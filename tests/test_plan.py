import re
from fractions import Fraction

import numpy as np
import pytest

from deepsteg_jax import media, plan
from deepsteg_jax.errors import UserError

NTSC = Fraction(30000, 1001)
MILLISECONDS = Fraction(1, 1000)


def steady(frames, rate):
    """A clip whose time base fits its rate."""
    return plan.clock(np.arange(frames), 1 / Fraction(rate), Fraction(rate))


def rounded(frames, rate, time_base=MILLISECONDS):
    """A clip of constant rate in a container that rounds its times."""
    ticks = np.round(np.arange(frames) / float(rate * time_base)).astype(np.int64)
    return plan.clock(ticks, time_base, Fraction(rate))


def varying(frames, rate, seed=0):
    """A clip that lingers on some of its frames; `rate` is the average."""
    gaps = np.random.default_rng(seed).integers(1, 8, frames)
    ticks = np.concatenate([[0], np.cumsum(gaps)])[:frames]
    time_base = Fraction(frames - 1) / (int(ticks[-1]) * Fraction(rate))
    return plan.clock(ticks, time_base, Fraction(rate))


def laid(cover, secret, align="time", loop=False):
    """The numbers; what must hold of all schedules is looked at here."""
    laid_out = plan.schedule(cover, secret, align, loop, "cover.mkv")
    assert laid_out.passes >= 1 and (loop or laid_out.passes == 1)
    length = len(cover.times)
    assert (laid_out.passes - 1) * length < len(laid_out.numbers) <= laid_out.passes * length
    assert laid_out.numbers[0] == 0 and laid_out.numbers.max() < len(secret.times)
    assert np.all(np.diff(laid_out.numbers) >= 0)
    return laid_out.numbers


def refused(cover, secret, align="time", loop=False):
    with pytest.raises(UserError) as caught:
        plan.schedule(cover, secret, align, loop, "cover.mkv")
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- clocks --------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [Fraction(25), NTSC, Fraction(24000, 1001), Fraction(1, 3), Fraction(60)])
def test_clock_of_a_constant_rate(rate):
    for clock in (steady(50, rate), rounded(50, rate)):
        assert clock.constant and clock.rate == rate
        assert clock.duration == pytest.approx(50 / rate, abs=2e-3)


def test_times_count_from_the_first_frame():
    early, late = (plan.clock(np.arange(5) * 40 + start, MILLISECONDS, Fraction(25)) for start in (-80, 999))
    np.testing.assert_array_equal(early.times, late.times)
    np.testing.assert_allclose(late.times, np.arange(5) / 25)


@pytest.mark.parametrize("claimed", [Fraction(50), Fraction(1000), Fraction(0)])
def test_a_rate_that_the_times_contradict_is_not_believed(claimed):
    clock = plan.clock(np.arange(100) * 40, MILLISECONDS, claimed)
    assert clock.constant and clock.rate == 25


def test_clock_that_varies():
    clock = plan.clock(np.array([0, 100, 150, 800, 1000]), MILLISECONDS, Fraction(25))
    assert not clock.constant and clock.rate == 4
    assert clock.duration == pytest.approx(1.25)


@pytest.mark.parametrize("last, constant, duration", [(0, True, 0.4), (150, True, 0.4), (3000, False, 3.3)])
def test_a_last_frame_that_is_held(last, constant, duration):
    clock = plan.clock(np.arange(4) * 100, MILLISECONDS, Fraction(10), last)
    assert clock.constant == constant and clock.rate == 10 and clock.duration == pytest.approx(duration)


@pytest.mark.parametrize("stray", [0.2, 0.3])
def test_how_far_times_may_stray(stray):
    ticks = np.arange(20) * 1000
    ticks[7] += round(1000 * stray)
    assert plan.clock(ticks, Fraction(1, 25_000), Fraction(25)).constant == (stray < plan.JITTER)


def test_clock_of_a_single_frame():
    clock = plan.clock(np.array([77]), MILLISECONDS, NTSC)
    assert clock.constant and clock.rate == NTSC and clock.times.tolist() == [0]
    assert clock.duration == pytest.approx(1001 / 30000)


@pytest.mark.parametrize("seconds", [3, 700, 2100, 86_400])
def test_slides_that_stay_for_long(seconds):
    for times in ([0, seconds], [0, seconds // 3, 2 * seconds]):
        clock = plan.clock(np.array(times) * 1000, MILLISECONDS, Fraction(25))
        assert clock.constant == (len(times) == 2)
        assert clock.rate == Fraction(1, seconds)
        assert clock.duration == times[-1] + seconds


# --- equal rates ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cover", "secret"),
    [
        (steady(60, 30), steady(50, 30)),
        (steady(60, 30), steady(60, NTSC)),
        (steady(60, NTSC), steady(60, 30)),
        (rounded(60, NTSC), steady(50, NTSC)),
        (steady(60, 24), rounded(50, Fraction(24000, 1001))),
        (rounded(60, 30), rounded(60, NTSC)),
        (steady(1, 25), steady(1, 25)),
        (varying(60, 25), steady(40, 25)),
    ],
)
def test_equal_rates_are_paired_by_number(cover, secret):
    assert plan.by_number(cover, secret, "time")
    np.testing.assert_array_equal(laid(cover, secret), np.arange(len(secret.times)))


def test_rates_that_are_not_equal():
    assert not plan.by_number(steady(9, 24), steady(9, 25), "time")
    assert plan.by_number(steady(9, 24), steady(9, 25), "frames")


@pytest.mark.parametrize("rates", [(60, 24), (24, 60), (25, 25), (1, 1000)])
def test_align_frames_pairs_whatever_the_rates(rates):
    cover, secret = (steady(40, rate) for rate in rates)
    np.testing.assert_array_equal(laid(cover, secret, "frames"), np.arange(40))


# --- different rates -----------------------------------------------------------------------------


def test_a_slower_secret_is_carried_more_than_once():
    numbers = laid(steady(100, 30), steady(48, 24))
    assert len(numbers) == 60  # two seconds of the cover; the rest of it is a tail
    counts = np.bincount(numbers)
    assert set(counts) == {1, 2} and len(counts) == 48
    np.testing.assert_array_equal(numbers[:10], [0, 1, 1, 2, 3, 4, 5, 5, 6, 7])  # (4k + 1) // 5


def test_of_a_faster_secret_frames_are_left_out():
    np.testing.assert_array_equal(laid(steady(50, 30), steady(60, 60)), np.arange(0, 60, 2))
    assert len(np.unique(laid(steady(48, 24), steady(60, 30)))) == 48


@pytest.mark.parametrize("cover_rate", [Fraction(24), Fraction(25), NTSC, Fraction(50), Fraction(120)])
@pytest.mark.parametrize("secret_rate", [Fraction(24000, 1001), Fraction(24), Fraction(10), Fraction(7, 3)])
def test_nothing_is_left_out_where_the_cover_is_at_least_as_fast(cover_rate, secret_rate):
    secret = rounded(31, secret_rate)
    cover = rounded(int(secret.duration * cover_rate) + 2, cover_rate)
    np.testing.assert_array_equal(np.unique(laid(cover, secret)), np.arange(31))


@pytest.mark.parametrize(
    ("cover", "secret"),
    [
        (steady(400, 24), steady(300, 60)),
        (steady(400, 60), steady(100, 24)),
        (varying(400, 30), steady(150, 25)),
        (steady(400, 50), varying(100, 20)),
        (varying(400, 40, seed=1), varying(100, 11, seed=2)),
    ],
)
def test_every_frame_carries_what_is_shown_then(cover, secret):
    """Up to the slack; and no frame of the cover is used once the secret is over."""
    numbers, slack = laid(cover, secret), float(plan.JITTER / secret.rate) + 1e-9
    shown = cover.times[: len(numbers)]
    assert np.all(secret.times[numbers] <= shown + slack)
    following = np.append(secret.times, np.inf)[numbers + 1]
    assert np.all(shown[1:] < following[1:] - slack + 2e-9)
    assert shown[-1] < secret.duration < cover.times[len(numbers)] + slack


# --- lengths -------------------------------------------------------------------------------------


def test_too_few_frames():
    message = refused(steady(59, 30), steady(60, 30))
    assert "cover.mkv" in message and "--loop_cover" in message
    assert "59 frames" in message and "at least 60 frames (2.00 s)" in message
    assert "at least 90 frames" in refused(steady(10, 24), steady(90, 60), "frames")


@pytest.mark.parametrize(("cover_rate", "secret_rate"), [(24, 60), (60, 24), (25, 30), (12, 11)])
def test_too_short_in_seconds(cover_rate, secret_rate):
    secret = steady(5 * secret_rate, secret_rate)
    message = refused(steady(2 * cover_rate, cover_rate), secret)
    assert "cover.mkv" in message and "--loop_cover" in message and "lasts 2.00 s" in message
    needed = float(re.search(r"at least ([\d.]+) s", message).group(1))
    assert needed == 5
    laid(steady(int(needed * cover_rate), cover_rate), secret)  # so long is long enough


def test_a_frame_too_short_is_long_enough():
    """Streams of equal length seldom end in the same instant."""
    secret = steady(100, 25)
    assert laid(steady(239, 60), secret).max() == 99
    assert laid(steady(238, 60), secret).max() >= 98
    assert "too short" in refused(steady(237, 60), secret)


@pytest.mark.parametrize(("align", "rate", "passes"), [("time", 30, 4), ("frames", 24, 4), ("time", 24, 5)])
def test_a_cover_is_played_as_often_as_it_takes(align, rate, passes):
    cover, secret = steady(30, 30), steady(100, rate)
    laid_out = plan.schedule(cover, secret, align, True, "cover.mkv")
    assert laid_out.passes == passes
    np.testing.assert_array_equal(np.unique(laid(cover, secret, align, loop=True)), np.arange(100))


def test_a_loop_goes_on_with_the_secret():
    once, often = steady(500, 50), steady(50, 50)
    secret = varying(90, 20)
    np.testing.assert_array_equal(laid(often, secret, loop=True), laid(once, secret))


def test_a_cover_that_is_long_enough_is_played_once():
    for rate in (25, 30):
        laid_out = plan.schedule(steady(100, 30), steady(50, rate), "time", True, "cover.mkv")
        assert laid_out.passes == 1


# --- odd input -----------------------------------------------------------------------------------


def test_the_first_carrier_shows_the_first_frame():
    """It has no packet to say otherwise, even where the second frame follows at once."""
    secret = plan.clock(np.array([0, 2, 300, 400, 500]), MILLISECONDS, Fraction(25))
    assert laid(steady(60, 30), secret)[:3].tolist() == [0, 1, 1]


def test_single_frames():
    one = steady(1, 25)
    assert laid(one, one).tolist() == [0]
    assert laid(steady(9, 25), one).tolist() == [0]
    assert set(laid(steady(9, 50), one)) == {0}
    assert laid(steady(1, 24), steady(1, 60)).tolist() == [0]
    assert laid(steady(1, 60), steady(1, 24)).tolist() == [0]
    assert "too short" in refused(one, steady(2, 25))
    assert "too short" in refused(one, steady(90, 24))
    np.testing.assert_array_equal(np.unique(laid(one, steady(20, 10), loop=True)), np.arange(20))


@pytest.mark.parametrize("align", ["", "Time", "rate"])
def test_unknown_align(align):
    assert repr(align) in refused(steady(9, 25), steady(9, 25), align)


def test_any_clips_make_a_schedule():
    """The properties that `laid` looks at, for clips of all kinds."""
    rng = np.random.default_rng(0)
    for seed in range(150):
        make = varying if rng.random() < 0.5 else rounded
        frames, rate = int(rng.integers(2, 60)), Fraction(int(rng.integers(4, 240)), 4)
        secret = make(frames, rate, **({"seed": seed} if make is varying else {}))
        cover = steady(int(rng.integers(1, 90)), int(rng.integers(1, 60)))
        align = str(rng.choice(["time", "frames"]))
        numbers = laid(cover, secret, align, loop=True)
        if plan.by_number(cover, secret, align):
            np.testing.assert_array_equal(numbers, np.arange(frames))
        else:
            assert abs(len(numbers) / cover.rate - secret.duration) < 1 / min(cover.rate, secret.rate)


# --- space ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "secret, cover, fitted",
    [
        ((48, 32), (48, 32), (48, 32)),
        ((20, 10), (48, 32), (20, 10)),
        ((96, 64), (48, 32), (48, 32)),
        ((96, 32), (48, 32), (48, 16)),
        ((10, 64), (48, 32), (8, 48)),  # turned
        ((64, 96), (48, 32), (32, 48)),  # turned
        ((32, 32), (48, 32), (32, 32)),
        ((1000, 1), (10, 10), (10, 1)),
        ((1, 1000), (10, 5), (1, 10)),  # turned
    ],
)
def test_fitted_size(secret, cover, fitted):
    info = media.Info(*secret, None, Fraction(25), False)
    assert plan.fitted_size(info, *cover) == fitted


@pytest.mark.parametrize(
    "secret, cover, fitted",
    [
        ((48, 32), (48, 32), (48, 32, False)),
        ((32, 48), (48, 32), (48, 32, True)),
        ((30, 20), (20, 30), (20, 30, True)),
        ((20, 20), (48, 32), (20, 20, False)),
        ((20, 32), (48, 32), (20, 32, False)),  # fits as it is
        ((90, 160), (160, 90), (160, 90, True)),
        ((180, 320), (160, 90), (160, 90, True)),
        ((100, 100), (48, 32), (32, 32, False)),  # no way round is better
    ],
)
def test_a_secret_is_turned_if_that_shrinks_it_less(secret, cover, fitted):
    info = media.Info(*secret, None, Fraction(25), False)
    assert plan.fit(info, *cover) == plan.Fit(*fitted)
