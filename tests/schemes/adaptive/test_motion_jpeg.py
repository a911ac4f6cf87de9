"""The scheme `adaptive_jpeg` in a video: one of its frames has no room, and stays."""

from types import SimpleNamespace

import numpy as np
import pytest

from deepsteg_jax import api, loading, media
from deepsteg_jax.errors import PartialError, UserError
from deepsteg_jax.media import jpeg
from deepsteg_jax.schemes.adaptive import coefficients
from deepsteg_jax.schemes.base import NOTHING
from tests.helpers import names
from tests.media.test_motion_jpeg import loud_frames, mux, sound_of
from tests.schemes.adaptive.conftest import KEY, hide
from tests.schemes.adaptive.test_jpeg import make_scheme, reveal
from tests.synthetic import Sound, film, hiss, noise, packets, smooth

SECRET = np.random.default_rng(1).bytes(150)
FLAT = 2  # the frame without room


@pytest.fixture(scope="module")
def hidden(tmp_path_factory):
    """SECRET in a film of 5 frames."""
    folder = tmp_path_factory.mktemp("hidden")
    frames = smooth(5, 120, 136) // 2 + noise(5, 120, 136, high=100)
    frames[FLAT] = 99
    given = {"codec": "mjpeg", "pixel_format": "yuvj422p", "options": {"qmin": "4", "qmax": "4"}}
    film(folder / "cover.avi", frames, sounds=[Sound("pcm_s16le", hiss(0.2))], **given)
    (folder / "secret.bin").write_bytes(SECRET)
    report = hide(folder / "cover.avi", folder / "secret.bin", folder / "stego.avi", make_scheme())
    return SimpleNamespace(
        cover=folder / "cover.avi", secret=folder / "secret.bin", stego=folder / "stego.avi", report=report
    )


def pictures(path):
    """All packets of a video."""
    return [data for data, _ in packets(path, "video")]


def test_a_file_comes_back_bit_for_bit_and_the_video_stays(tmp_path, hidden):
    reveal(hidden.stego, tmp_path / "out.bin")
    assert (tmp_path / "out.bin").read_bytes() == SECRET
    before, after = pictures(hidden.cover), pictures(hidden.stego)
    assert [i for i, pair in enumerate(zip(before, after, strict=True)) if pair[0] == pair[1]] == [FLAT]
    for pair in zip(before, after, strict=True):
        cover, stego = (coefficients.flat(jpeg.decode(data)).astype(int) for data in pair)
        assert set(np.abs(stego - cover)) <= {0, 1}
        assert np.count_nonzero(stego - cover) < 0.05 * cover.size
    assert sound_of(hidden.stego) == sound_of(hidden.cover)
    sizes = [path.stat().st_size for path in (hidden.cover, hidden.stego)]
    assert abs(sizes[1] / sizes[0] - 1) < 0.02
    assert loud_frames(hidden.stego).shape == (5, 120, 136, 3)
    assert hidden.report.processed == 5 and "bit per coefficient" in hidden.report.summary()


def test_all_that_fits(tmp_path, hidden):
    scheme = make_scheme()
    counts = scheme.measure(timed.frame for timed in media.read_coefficients(hidden.cover))
    info = media.probe(hidden.cover)
    room = scheme.holds(info, 5, measured=counts)
    rooms = (0.3 * counts).astype(int) // 8 - 20  # a number and a seal
    rooms[0] -= 16 + 32  # salt, sealed header
    assert room == max(chunk * np.sum(rooms >= chunk) for chunk in range(1, rooms.max() + 1)) > 0
    assert "up to about 2." in scheme.capacity(info, 5)
    (tmp_path / "s").write_bytes(bytes(room))
    with pytest.raises(UserError, match=r"has .* kB and .* kB fit"):
        hide(hidden.cover, tmp_path / "s", tmp_path / "more.avi", scheme)
    assert names(tmp_path) == ["s"]


def test_another_key_and_an_innocent_video_say_the_same(tmp_path, hidden):
    for path, key in ((hidden.stego, bytes(32)), (hidden.cover, KEY)):
        with pytest.raises(UserError) as caught:
            reveal(path, tmp_path / "out", key)
        assert str(caught.value) == NOTHING
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    ("lost", "words", "zeros"),
    [
        ({1}, "was changed in 1 frame: .* has zeros", slice(0, 44)),
        ({3, 4}, "was changed in 2 frames: .* has zeros", slice(44, 150)),
    ],
)
def test_frames_that_are_lost(tmp_path, hidden, lost, words, zeros):
    """A packet without an end stands for one of them, those of the cover for others."""
    cover, found = pictures(hidden.cover), pictures(hidden.stego)
    for i in lost:
        found[i] = cover[i] if i > min(lost) else found[i][:-200]
    mux(tmp_path / "a.avi", found, 120, 136)
    with pytest.raises(PartialError, match=words):
        reveal(tmp_path / "a.avi", tmp_path / "out")
    wanted = bytearray(SECRET)
    wanted[zeros] = bytes(len(SECRET[zeros]))
    assert (tmp_path / "out").read_bytes() == wanted


def test_a_stego_that_is_cut(tmp_path, hidden):
    found = pictures(hidden.stego)
    mux(tmp_path / "a.avi", found[:2], 120, 136)
    with pytest.raises(PartialError, match="is cut short: .* has the first 44 of 150 bytes"):
        reveal(tmp_path / "a.avi", tmp_path / "out")
    mux(tmp_path / "b.avi", [found[0], *pictures(hidden.cover)[1:]], 120, 136)
    with pytest.raises(UserError, match="was changed after hiding, or cut"):
        reveal(tmp_path / "b.avi", tmp_path / "nothing")
    assert names(tmp_path) == ["a.avi", "b.avi", "out"]


def test_a_cover_that_begins_black(tmp_path, hidden):
    found = pictures(hidden.cover)
    mux(tmp_path / "a.avi", [found[FLAT], *found], 120, 136)
    with pytest.raises(UserError, match="has only 0 coefficients other than 0 in its first frame: take"):
        hide(tmp_path / "a.avi", hidden.secret, tmp_path / "b.avi", make_scheme())


def test_motion_jpeg_for_file_stays_so(tmp_path, hidden):
    shipped, info = loading.Shipped(), media.probe(hidden.cover)
    assert shipped.for_cover(info, "file", "a.MKV") == "adaptive_jpeg"
    assert shipped.for_cover(info, "file", "a.nut") == shipped.for_cover(info, "file") == "adaptive"
    assert shipped.for_cover(info, "post", "a.mov") == "robust"
    assert shipped.for_stego(info, False) == ["adaptive_jpeg", "robust"]
    changes = {"payload.rate": 0.3, "model.height": 4}
    api.hide_file(hidden.cover, hidden.secret, tmp_path / "a.avi", KEY, changes=changes)
    api.reveal_file(tmp_path / "a.avi", tmp_path / "out", KEY)
    assert (tmp_path / "out").read_bytes() == SECRET
    assert "(adaptive_jpeg)" in api.describe(hidden.cover, "file")
    with pytest.raises(UserError, match="too small|slots|use .mkv"):
        api.hide_file(hidden.cover, hidden.secret, tmp_path / "b.avi", KEY, slots=2)
