"""Pairs in, pieces out: what the scheme does around its segments, with stand-ins for those."""

from fractions import Fraction

import jax
import numpy as np
import pytest

from configs.robust import get_config
from deepsteg_jax import keys, media, plan
from deepsteg_jax.errors import UserError
from deepsteg_jax.schemes.base import Metadata, Pair, Settings, Stego
from deepsteg_jax.schemes.robust import scheme
from tests.schemes.robust.conftest import PROBE_FRAMES, SHORT_SEGMENT, no_params
from tests.synthetic import in_planes, noise, smooth

KEY = bytes(range(1, 33))
HEIGHT, WIDTH = 32, 48
SETTINGS = Settings()


def make_plan(count, length, rate=25, size=(20, 30), align="time", **secret):
    """The plan of a secret of `count` frames in a cover of `length` frames at 25 frames/s."""
    clocks = [
        plan.clock(np.arange(n), 1 / Fraction(r), Fraction(r)) for n, r in ((length, 25), (count, rate))
    ]
    infos = (
        media.Info(WIDTH, HEIGHT, length, Fraction(25), length == 1),
        media.Info(*size[::-1], count, rate, False),
    )
    laid = plan.schedule(*clocks, align, False, "cover")
    secret = infos[1]._replace(**secret)
    return plan.Plan("c", "s", infos[0], clocks[0], secret, clocks[1], laid, plan.fit(secret, WIDTH, HEIGHT))


def hide(robust, job, secret, settings=SETTINGS):
    """Hide frames of a secret as a pipeline does; returns the stego and the sender."""
    numbers, stego = robust.pass_numbers(job), []
    cover = smooth(len(job.cover_clock.times), HEIGHT, WIDTH)
    cover = media.unstack(in_planes(cover) if robust.domain == "planes" else cover)
    with robust.sender(job, [KEY], settings) as hiding:
        for i, frame in enumerate(cover):
            number = numbers[i % len(numbers)]
            shown = np.rot90(secret[number]) if job.fit.turned else secret[number]
            stego += hiding.send(Pair(frame, shown, number))
        stego += hiding.finish()
    jax.tree.map(np.testing.assert_array_equal, stego, jax.tree.map(lambda x: x ^ 1, cover))
    return stego, hiding


def reveal(robust, stego, key=KEY):
    """(receiver, frames) as a pipeline reveals them; None: nothing is found."""
    info = media.Info(WIDTH, HEIGHT, len(stego), Fraction(25), len(stego) == 1)
    found = robust.probe(Stego(info, lambda: iter(stego)), keys.Deriver(key))
    if found is None:
        return None
    with robust.receiver(found) as revealing:
        assert revealing.metadata == found.metadata and revealing.received == found.read <= PROBE_FRAMES
        pieces = []
        for frame in stego[found.read :]:
            if revealing.complete:
                break
            pieces += revealing.receive(frame)
        pieces += revealing.finish()
    assert revealing.written == len(pieces) and all(piece.time is None for piece in pieces)
    return revealing, np.stack([piece.frame for piece in pieces])


def hidden(robust, count=14, length=None):
    """(secret, stego)."""
    secret = noise(count, 20, 30, seed=1)
    return secret, hide(robust, make_plan(count, length or count), secret)[0]


# --- what is hidden -------------------------------------------------------------------------------


def test_round_trip(wire, robust):
    secret, job = noise(10, 20, 30, seed=1), make_plan(10, 10)
    stego, hiding = hide(robust, job, secret)
    assert hiding.notes == () and wire.master == keys.derive_key(KEY, scheme.MASTER_SALT)
    about = Metadata(30, 20, 10, 10, Fraction(25), False, False, Fraction(1))
    assert {metadata for _, metadata in wire.sent.values()} == {about}
    np.testing.assert_array_equal(np.concatenate([frames for frames, _ in wire.sent.values()])[:10], secret)
    revealing, frames = reveal(robust, stego)
    np.testing.assert_array_equal(frames, secret)
    assert revealing.complete and revealing.received == 10 and revealing.metadata == about
    assert revealing.notes == ("3 of 3 layers",) and revealing.complaint("s", "o", [3]) is None


@pytest.mark.parametrize("length", [7, 8, 9, 15, 16, 21])
def test_in_the_tail_the_secret_comes_again(wire, robust, length):
    """From the next segment on: in the one in which it ends it stands still."""
    secret, stego = hidden(robust, 7, length)
    sent = np.concatenate([frames for frames, _ in wire.sent.values()])
    np.testing.assert_array_equal(sent, np.concatenate([secret, secret[-1:]] * 3)[:length])
    assert {metadata.frames for _, metadata in wire.sent.values()} == {7}
    revealing, frames = reveal(robust, stego)
    np.testing.assert_array_equal(frames, secret)
    assert revealing.received == min(length, 8)  # the rest need not be read


@pytest.mark.parametrize(
    "rate, count, align, shown",
    [
        (12.5, 5, "time", [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]),
        (50, 20, "time", list(range(0, 20, 2))),
        (50, 10, "frames", list(range(10))),
        (Fraction(2499, 100), 10, "time", list(range(10))),
    ],
)
def test_other_frame_rates(robust, rate, count, align, shown):
    """Paired by time the revealed clip has the cover's rate, paired one by one its own."""
    secret, job = noise(count, 20, 30, seed=1), make_plan(count, 10, Fraction(rate), align=align)
    assert list(robust.shown_numbers(job)) == shown
    stego, _ = hide(robust, job, secret, Settings(align))
    revealing, frames = reveal(robust, stego)
    np.testing.assert_array_equal(frames, secret[shown])
    assert revealing.metadata.rate == (rate if count == 10 else 25) and not revealing.metadata.timed


@pytest.mark.parametrize("size", [(20, 30), (31, 47), (5, 5), (48, 32), (32, 7), (48, 20)])
@pytest.mark.parametrize("count", [1, 5])
def test_sizes(robust, size, count):
    """Of a clip and of an image."""
    secret = noise(count, *size)
    revealing, frames = reveal(robust, hide(robust, make_plan(count, count, size=size), secret)[0])
    np.testing.assert_array_equal(frames, secret)
    assert revealing.metadata.turned == (size[0] > HEIGHT) and revealing.metadata.size == size[::-1]


def test_pixel_shapes_are_kept(robust):
    stego, _ = hide(robust, make_plan(3, 3, aspect=Fraction(8, 9)), noise(3, 20, 30))
    assert reveal(robust, stego)[0].metadata.aspect == Fraction(8, 9)


def test_times_that_the_secret_loses_are_said(robust):
    job = make_plan(6, 6)
    job = job._replace(cover_clock=job.cover_clock._replace(constant=False))
    assert hide(robust, job, noise(6, 20, 30))[1].notes == (
        "the frame rate of the cover varies, that of the revealed video will not",
    )


# --- what is missing ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "lost, words",
    [
        ({1}, "in frames 5-8: out has all 14 frames, but stands still there"),
        ({0}, "in frames 1-4: "),
        ({0, 1}, "in frames 1-8: "),
        ({3}, "in frames 13-14: "),
        ({0, 2, 3}, "in frames 1-4, 9-14: "),
    ],
)
def test_missing_segments_stand_still(wire, robust, lost, words):
    secret, stego = hidden(robust)
    wire.lost = lost
    revealing, frames = reveal(robust, stego)
    complaint = revealing.complaint("stego", "out", [])
    assert f"stego cannot be read {words}" in complaint and "\n" not in complaint
    wanted, last = [], np.full_like(secret[0], 128)
    for i, frame in enumerate(secret):
        last = last if i // SHORT_SEGMENT in lost else frame
        wanted.append(last)
    np.testing.assert_array_equal(frames, wanted)


def test_one_missing_frame(wire, robust):
    _, stego = hidden(robust, 5)
    wire.lost = {1}
    assert "in frame 5: out has all 5 frames" in reveal(robust, stego)[0].complaint("stego", "out", [])


@pytest.mark.parametrize("key", [KEY, bytes(32), "another passphrase"])
def test_nothing_found(wire, robust, key):
    """All lost, or another key."""
    _, stego = hidden(robust)
    wire.lost = set(range(4)) if key == KEY else set()
    assert reveal(robust, stego, key) is None


@pytest.mark.parametrize(("count", "searched"), [(60, 48), (40, 40), (5, 5)])
def test_a_scaled_stego_is_looked_for_at_its_start(count, searched, monkeypatch):
    seen = []
    monkeypatch.setattr(scheme.geometry, "find", lambda planes, grid, lines: seen.append(planes) or ())
    frames = media.unstack(in_planes(np.zeros((count, 16, 16, 3), np.uint8)))
    frames = [frame._replace(y=np.full_like(frame.y, i)) for i, frame in enumerate(frames)]
    info = media.Info(16, 16, count, Fraction(25), False)
    robust = scheme.RobustScheme(get_config("tiny"), no_params)
    assert not list(robust._places(Stego(info, lambda: iter(frames)), KEY))
    ((luma, *_),) = seen
    assert luma[:, 0, 0].tolist() == list(range(searched))


def test_what_fails_while_a_stego_is_probed_is_said(wire, robust):
    """It is not taken for a frame that is too small, in which nothing could be hidden."""
    _, stego = hidden(robust)

    def fails(number):
        raise UserError("the disk is full")

    wire.layers = fails
    with pytest.raises(UserError, match="the disk is full"):
        reveal(robust, stego)


@pytest.mark.parametrize("repeats", [(), (0, 1), (1, 3), (1, 64)])
def test_symbols_are_shared_by_frames_that_divide_a_segment(repeats):
    config = get_config()
    config.repeats = repeats
    with pytest.raises(UserError, match=r"config\.repeats must be .* divisors of 32"):
        scheme.RobustScheme(config, no_params)


def test_a_probe_is_bounded(wire, robust):
    _, stego = hidden(robust, 40)
    wire.lost = set(range(5))
    assert reveal(robust, stego)[0].missing == list(range(20))
    wire.lost = set(range(6))
    assert reveal(robust, stego) is None


@pytest.mark.parametrize("lost", [{3, 4}, {2, 3, 4}])
def test_the_tail_stands_in(wire, robust, lost):
    """The secret of 14 frames fills 4 segments and comes again in the next 4."""
    secret, stego = hidden(robust, length=32)
    wire.lost = lost
    np.testing.assert_array_equal(reveal(robust, stego)[1], secret)


def test_a_stego_without_its_beginning(wire, robust):
    secret, stego = hidden(robust, length=32)
    wire.trimmed = 16
    np.testing.assert_array_equal(reveal(robust, stego[16:])[1], secret)


def test_a_stego_that_ends_too_early(wire, robust):
    secret, stego = hidden(robust)
    revealing, frames = reveal(robust, stego[:8])
    np.testing.assert_array_equal(frames, secret[:8])
    cut = "stego is cut short, or its end cannot be read: out has the first 8 of 14 frames"
    assert revealing.complaint("stego", "out", []) == f"{cut}; get a complete copy of it"
    wire.lost = {0}
    complaint = reveal(robust, stego[:8])[0].complaint("stego", "out", [])
    assert complaint == f"{cut}, and stands still in 1-4; get a complete copy of it"


def test_parts_of_another_secret_are_left_out(wire, robust):
    _, stego = hidden(robust)
    frames, metadata = wire.sent[2]
    wire.sent[2] = frames, metadata._replace(frames=99)
    assert "in frames 9-12: " in reveal(robust, stego)[0].complaint("stego", "out", [])


def test_a_frame_of_a_stego_video_is_no_stego_image(wire, robust):
    _, stego = hidden(robust)
    wire.trimmed = 5
    assert reveal(robust, stego[5:6]) is None


@pytest.mark.parametrize(
    "layers, note",
    [
        (lambda number: (5, 6), "5 of 6 layers"),
        (lambda number: (6, 6) if number else (2, 5), "2 to 6 of 6 layers"),
    ],
)
def test_how_many_layers_could_be_read(wire, robust, layers, note):
    _, stego = hidden(robust)
    wire.layers = layers
    assert reveal(robust, stego)[0].notes == (note,)


# --- the scheme -----------------------------------------------------------------------------------


def test_a_side_is_loaded_once_and_only_if_it_is_used(wire):
    loaded = []
    robust = scheme.RobustScheme(get_config("tiny"), lambda side: loaded.append(side) or {})
    assert loaded == []
    for _ in range(2):
        wire.sent.clear()
        _, stego = hidden(robust, 5)
        assert loaded == ["hide"]
    for _ in range(2):
        reveal(robust, stego)
    assert loaded == ["hide", "reveal"]


def test_says_what_it_is_for():
    robust = scheme.RobustScheme(get_config(), None)
    assert (robust.name, robust.purpose, robust.still, robust.slots) == ("robust", "post", False, 2)
    assert (robust.domain, robust.pixel_format, robust.group) == ("planes", "yuv420p", 32)
    image = scheme.RobustScheme(get_config("image"), None)
    assert image.still and (image.domain, image.pixel_format, image.group) == ("rgb", None, 1)


@pytest.mark.parametrize(
    "change",
    [
        {"growth": -1.0},
        {"margin": 0.0},
        {"margin": 1.1},
        {"repeats": ()},
        {"repeats": (1, 0)},
        {"repeats": (33,)},
    ],
)
def test_configs_that_make_no_sense_are_refused(change):
    config = get_config()
    config.update(change)
    with pytest.raises(UserError, match=r"config\.(growth|repeats)"):
        scheme.RobustScheme(config, None)


def test_covers_too_small_are_refused():
    with pytest.raises(UserError, match="too small"):
        scheme.RobustScheme(get_config(), None).check(media.Info(16, 16, 9, Fraction(25), False))


def test_larger_and_longer_covers_cost_more():
    robust = scheme.RobustScheme(get_config(), None)
    small, larger, longer = robust.cost(64, 64, 10), robust.cost(128, 64, 10), robust.cost(64, 64, 20)
    assert larger.seconds == longer.seconds == 2 * small.seconds
    assert larger.memory_bytes > small.memory_bytes == longer.memory_bytes
    assert longer.stego_bytes == 2 * small.stego_bytes > 0
    slots = robust.cost(64, 64, 10, slots=2)
    assert small.seconds < slots.seconds < longer.seconds and slots.memory_bytes > small.memory_bytes


@pytest.mark.parametrize("variant", ["", "image"])
def test_complexity_counts_the_network_once_for_each_side(variant):
    config = get_config(variant)
    config.model.update(features=8, depth=1)
    found = scheme.RobustScheme(config, None).complexity(33, 35)
    assert found["parameters"]["reveal"] == found["parameters"]["hide"] > 0
    config.model.features = 16
    wider = scheme.RobustScheme(config, None).complexity(33, 35)["gmac_per_frame"]
    assert wider["hide"] == found["gmac_per_frame"]["hide"] > 0
    assert wider["reveal"] > found["gmac_per_frame"]["reveal"]
