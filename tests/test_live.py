from functools import partial

import numpy as np
import pytest

from configs import image, robust
from deepsteg_jax import keys, live, loading, metrics
from deepsteg_jax.errors import UserError
from deepsteg_jax.live import Session
from tests.helpers import PlainCodec, PlainScheme
from tests.synthetic import noise, save, smooth

HEIGHT, WIDTH = 32, 48


class Noting(PlainCodec):
    """Notes the key too, and nothing of what only compiles."""

    def note(self, what, key, first_frame, count):
        if key.any():
            self.calls.append((what, tuple(key), first_frame, count))


def plain(group):
    return PlainScheme(group, codec=Noting(group))


@pytest.fixture
def secret(tmp_path):
    return str(save(tmp_path / "secret.mkv", noise(5, HEIGHT, WIDTH, seed=1) & 0xF0))


def covers(count, seed=0):
    return list(noise(count, HEIGHT, WIDTH, seed))


def test_a_full_group_comes_out_in_order_and_the_secret_repeats(secret):
    frames, hidden = covers(11), noise(5, HEIGHT, WIDTH, seed=1) & 0xF0
    with Session(plain(4), secret, WIDTH, HEIGHT) as session:
        pushed = [session.push(frame) for frame in frames]
        rest = session.flush()
        assert session.flush() == []
    assert [len(shown) for shown in pushed] == [0, 0, 0, 4, 0, 0, 0, 4, 0, 0, 0] and len(rest) == 3
    for i, shown in enumerate([s for group in (*pushed, rest) for s in group]):
        np.testing.assert_array_equal(shown.cover, frames[i])
        np.testing.assert_array_equal(shown.secret, hidden[i % 5])
        np.testing.assert_array_equal(shown.revealed, hidden[i % 5])
        np.testing.assert_array_equal(shown.stego, (frames[i] & 0xF0) + (hidden[i % 5] >> 4))


def test_both_sides_count_frames_alike_under_one_key(secret):
    scheme = plain(4)
    with Session(scheme, secret, WIDTH, HEIGHT) as session:
        for frame in covers(9):
            session.push(frame)
        session.flush()
    calls = scheme.plain.calls
    groups = [(0, 4), (4, 4), (8, 1)]
    assert [(side, *group) for side, _, *group in calls] == [
        (side, *group) for group in groups for side in ("hide", "reveal")
    ]
    assert len({key for _, key, *_ in calls}) == 1


def test_a_pushed_frame_may_be_used_again_by_the_caller(secret):
    with Session(plain(4), secret, WIDTH, HEIGHT) as session:
        frame, shown = covers(1)[0], []
        for value in range(4):
            frame[:] = value
            shown += session.push(frame)
    assert [int(s.cover[0, 0, 0]) for s in shown] == [0, 1, 2, 3]


def test_a_secret_too_long_to_keep_is_read_again(secret, monkeypatch):
    monkeypatch.setattr(live, "KEPT_BYTES", 2 * HEIGHT * WIDTH * 3)
    hidden = noise(5, HEIGHT, WIDTH, seed=1) & 0xF0
    with Session(plain(1), secret, WIDTH, HEIGHT) as session:
        shown = [session.push(frame)[0] for frame in covers(12)]
    for i, s in enumerate(shown):
        np.testing.assert_array_equal(s.secret, hidden[i % 5])


@pytest.mark.parametrize(("h", "w", "box"), [(16, 48, (8, 24, 0, 48)), (64, 32, (0, 32, 16, 32))])
def test_a_secret_of_another_shape_lies_whole_on_black(tmp_path, h, w, box):
    path = str(save(tmp_path / "secret.png", np.full((1, h, w, 3), 200, np.uint8)))
    with Session(plain(1), path, WIDTH, HEIGHT) as session:
        laid = session.push(covers(1)[0])[0].secret
    top, bottom, left, right = box
    expected = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    expected[top:bottom, left:right] = 200
    np.testing.assert_array_equal(laid, expected)


def test_a_stream_gives_what_push_gives(secret):
    frames = covers(10)
    with Session(plain(4), secret, WIDTH, HEIGHT) as session:
        pushed = [shown for frame in frames for shown in session.push(frame)] + session.flush()
    with Session(plain(4), secret, WIDTH, HEIGHT) as session:
        groups = list(live.stream(session, ((frame, i / 25) for i, frame in enumerate(frames))))
    assert [len(group) for group in groups] == [4, 4, 2]
    streamed = [pair for group in groups for pair in group]
    assert [at for _, at in streamed] == [i / 25 for i in range(10)]
    for (shown, _), expected in zip(streamed, pushed, strict=True):
        for a, b in zip(shown, expected, strict=True):
            np.testing.assert_array_equal(a, b)


def test_speed_and_latency_are_those_of_the_last_moments(secret, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(live.time, "monotonic", lambda: now[0])
    with Session(plain(1), secret, WIDTH, HEIGHT) as session:
        assert session.fps == session.latency_ms == 0
        for frame in covers(10):
            now[0] += 0.1
            group = session.hide(frame)
            now[0] += 0.1
            session.reveal(group)
        assert session.fps == pytest.approx(5) and session.latency_ms == pytest.approx(100)
        now[0] += 2 * live.WINDOW_S
        assert session.fps == session.latency_ms == 0


def test_what_nobody_asks_for_takes_no_memory(secret, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(live.time, "monotonic", lambda: now[0])
    with Session(plain(1), secret, WIDTH, HEIGHT) as session:
        for frame in covers(30):
            now[0] += live.WINDOW_S / 4
            session.reveal(session.hide(frame))
        assert len(session._done) < 6


@pytest.mark.parametrize("frame", [np.zeros((48, 32, 3), np.uint8), np.zeros((32, 48, 3), np.float32)])
def test_other_frames_are_refused(secret, frame):
    with (
        Session(plain(1), secret, WIDTH, HEIGHT) as session,
        pytest.raises(ValueError, match="uint8"),
    ):
        session.push(frame)


def test_the_robust_model_and_missing_secrets_are_refused(secret, tmp_path):
    with pytest.raises(UserError, match="configs/image.py"):
        Session(loading.load(robust.get_config()), secret, WIDTH, HEIGHT)
    with pytest.raises(UserError, match="does not exist"):
        Session(plain(1), str(tmp_path / "none.mkv"), WIDTH, HEIGHT)
    with pytest.raises(UserError, match="too small"):
        Session(plain(1), secret, 2, 2)


def test_the_receiver_opens_each_stego_as_that_frame_of_a_video(tmp_path, monkeypatch):
    path = str(save(tmp_path / "secret.mkv", smooth(3, HEIGHT, WIDTH, seed=5)))
    drawn = iter([bytes(range(32)), bytes(range(32, 64))])
    monkeypatch.setattr(keys, "random_key", lambda: next(drawn))
    scheme = loading.load(image.get_config())
    with Session(scheme, path, WIDTH, HEIGHT) as session:
        hidden = [session.hide(frame) for frame in smooth(3, HEIGHT, WIDTH)]
        blank = [group._replace(covers=0 * group.covers, secrets=0 * group.secrets) for group in hidden]
        revealed = [session.reveal(group)[0].revealed for group in blank]
    master = keys.derive_key(bytes(range(32)), bytes(range(32, 48)))
    words = keys.key_words(keys.subkey(master, "shuffle"))
    reveal = partial(scheme.codec().reveal, scheme.reveal_params, words)
    for i, group in enumerate(hidden):
        alone = np.asarray(reveal(i, group.stegos))[0]
        np.testing.assert_array_equal(revealed[i], alone)
        assert metrics.psnr(group.secrets[0], alone) > 35
        assert metrics.psnr(group.covers[0], group.stegos[0]) > 45
        elsewhere = np.asarray(reveal(i + 1, group.stegos))[0]
        assert metrics.psnr(group.secrets[0], elsewhere) < 15
