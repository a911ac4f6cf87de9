import numpy as np
import pytest

from tests.app.serving import need, stand_ins
from tests.helpers import read_stack
from tests.synthetic import Sound, film, hiss, noise, save, smooth

need("fastapi", "app")

from deepsteg_jax import media, pipeline  # noqa: E402
from deepsteg_jax.app import work  # noqa: E402
from deepsteg_jax.app.choices import Choice, look  # noqa: E402
from deepsteg_jax.app.files import Folder, Store  # noqa: E402
from deepsteg_jax.app.jobs import CANCELLED, DONE, FAILED, Job  # noqa: E402
from deepsteg_jax.errors import PartialError, UserError  # noqa: E402

KEY = bytes(range(32))  # quicker than a passphrase
NETWORKS = ("prep_hide_reveal_small", "prep_hide_reveal", "invertible")


@pytest.fixture
def folder(tmp_path):
    with Store(tmp_path) as store:
        yield Folder(store)


@pytest.fixture
def probed():
    """The names of the schemes that looked into a stego."""
    return []


@pytest.fixture
def schemes(monkeypatch, probed):
    return stand_ins(monkeypatch, probed)


@pytest.fixture
def settings(monkeypatch):
    """The settings of every secret that was hidden."""
    hide, given = pipeline.hide, []

    def noting(*arguments):
        given.append(arguments[6])
        return hide(*arguments)

    monkeypatch.setattr(pipeline, "hide", noting)
    return given


def ran(function, *arguments):
    job = Job(lambda job: function(job, *arguments))
    job.run()
    if job.state == FAILED:
        raise job.error
    return job.result


def put(folder, name, frames):
    return look(save(folder.new(name), frames))


def size_of(path):
    return media.probe(path)[:2]


def test_a_cover_is_scaled_down_with_its_sound(folder, schemes, settings):
    path = film(folder.new("cover.mkv"), smooth(6, 48, 64), sounds=[Sound("flac", hiss())])
    secret = put(folder, "secret.mkv", smooth(6, 48, 64, seed=1))
    hidden = ran(
        work.hide, folder, schemes, look(path), secret, KEY, Choice("file", "quick", 32, sound=False)
    )
    assert size_of(hidden.cover) == size_of(hidden.stego) == size_of(hidden.watched) == (32, 24)
    assert media.probe(hidden.watched).tracks == 1 and hidden.watched.suffix == ".mp4"
    assert hidden.numbers is None and hidden.report.frames == 6 and hidden.stego.name == "cover.mkv"
    assert settings[0].sound_bit_rate == 0 and not settings[0].loop_cover and settings[0].drop_tags


def test_odd_sides_are_made_even_for_h264_and_a_cover_repeats(folder, schemes, settings):
    cover = put(folder, "cover.mkv", smooth(3, 33, 49))
    secret = put(folder, "secret.mkv", smooth(6, 33, 49, seed=1))
    hidden = ran(
        work.hide, folder, schemes, cover, secret, KEY, Choice("post", "balanced", 64, loop_cover=True)
    )
    assert size_of(hidden.stego) == (48, 32) and hidden.stego.name == "cover.mp4"
    assert hidden.watched == hidden.stego and list(hidden.numbers) == list(range(6))
    assert settings[0].sound_bit_rate == 64_000 and settings[0].loop_cover


def test_a_cover_is_scaled_in_planes_for_a_scheme_that_works_there(folder, schemes, monkeypatch, tmp_path):
    (tmp_path / "a.bin").write_bytes(bytes(range(40)))
    cover = put(folder, "cover.mkv", smooth(6, 48, 64))
    hidden = ran(work.hide, folder, schemes, cover, look(tmp_path / "a.bin", True), KEY, Choice(longest=32))
    assert hidden.stego.suffix == ".mp4" and hidden.watched == hidden.stego
    assert media.probe(hidden.cover).pixel_format == media.probe(hidden.stego).pixel_format == "yuv420p"
    revealed = ran(work.reveal, folder, schemes, look(hidden.stego), KEY)
    assert revealed.revealed.read_bytes() == bytes(range(40)) and revealed.watched is None


@pytest.mark.parametrize(("choice", "suffix"), [(("file", "quick"), ".png"), (("post", "balanced"), ".jpg")])
def test_pictures(folder, schemes, choice, suffix):
    cover, secret = (put(folder, f"{i}.png", smooth(1, 33, 49, seed=i)) for i in range(2))
    hidden = ran(work.hide, folder, schemes, cover, secret, KEY, Choice(*choice))
    assert hidden.stego.suffix == suffix and size_of(hidden.stego) == (49, 33)


@pytest.fixture
def stego(folder, schemes):
    """What the stand-in for `robust` hid in a file that keeps every sample."""
    clips = put(folder, "cover.mkv", smooth(8)).path, put(folder, "secret.mkv", noise(8)).path
    path = folder.new("stego.mkv")
    pipeline.hide(schemes.scheme("robust"), KEY, *map(str, clips), str(path), lambda frames: None)
    return look(path)


def test_reveal_finds_the_scheme(folder, schemes, probed, stego, monkeypatch):
    stages = []
    monkeypatch.setattr(Job, "stage", lambda job, name, total=None: stages.append(name))
    revealed = ran(work.reveal, folder, schemes, stego, KEY)
    assert probed == ["video", "image", "adaptive", *NETWORKS, "robust"]
    assert stages[:4] == ["Revealing", *["Looking further"] * 3]
    assert revealed.revealed.name == "stego revealed.mkv"
    assert revealed.watched.suffix == ".mp4" and revealed.report.frames == 8
    np.testing.assert_array_equal(read_stack(revealed.revealed), noise(8) & 0xF0)


def test_nothing_to_reveal_leaves_nothing(folder, schemes, probed, stego):
    before = sorted(stego.path.parent.parent.iterdir())
    with pytest.raises(UserError, match="no hidden video"):
        ran(work.reveal, folder, schemes, stego, bytes(32))
    assert probed == ["video", "image", "adaptive", *NETWORKS, "robust"]
    assert sorted(stego.path.parent.parent.iterdir()) == before


def test_a_part_is_better_than_nothing(folder, schemes, stego):
    cut = put(folder, "cut.mkv", read_stack(stego.path)[:5])
    revealed = ran(work.reveal, folder, schemes, cut, KEY)
    assert isinstance(revealed.report, PartialError) and len(read_stack(revealed.watched)) == 4


def test_cancelling_leaves_nothing(folder, schemes, settings):
    cover, secret = (put(folder, f"{i}.mkv", smooth(40, 48, 64, seed=i)) for i in range(2))
    before = sorted(cover.path.parent.parent.iterdir())

    def work_and_cancel(job):
        progress, job.progress = job.progress, lambda frames: (job.cancel(), progress(frames))
        return work.hide(job, folder, schemes, cover, secret, KEY, Choice("file", "quick", longest=32))

    job = Job(work_and_cancel)
    job.run()
    assert job.state == CANCELLED and not settings
    assert sorted(cover.path.parent.parent.iterdir()) == before


# --- compare --------------------------------------------------------------------------------------


def test_compare_measures_every_frame(folder, monkeypatch):
    monkeypatch.setattr(work, "PICTURES", 3)
    cover, secret = smooth(8), smooth(8, seed=1)
    stego = np.clip(cover.astype(int) + 1, 0, 255).astype(np.uint8)
    stego[5] = cover[5]
    frames = {"cover": cover, "stego": stego, "secret": secret, "revealed": secret}
    files = {name: put(folder, f"{name}.mkv", each).path for name, each in frames.items()}
    job = Job(lambda job: work.compare(job, folder, files))
    job.run()
    done = job.result
    assert job.state == DONE and len(done.stego_db) == 8 == done.frames
    error = np.square(stego.astype(float) - cover).mean(axis=(1, 2, 3))
    wanted = [100 if e == 0 else 10 * np.log10(255**2 / e) for e in error]
    np.testing.assert_allclose(done.stego_db, wanted, rtol=1e-5)
    assert done.stego_db[5] == 100 and set(done.secret_db) == {100}
    assert done.numbers == [0, 3, 6]
    for pictures in done.pictures:
        assert len(pictures) == 5 and all(path.stat().st_size for path in pictures.values())


def test_a_stego_that_was_scaled_is_compared_all_the_same(folder):
    small, large = (put(folder, f"{i}.mkv", smooth(2, 32 + 8 * i, 48 + 12 * i)).path for i in range(2))
    paths = {"cover": small, "stego": large, "secret": small, "revealed": large}
    done = ran(work.compare, folder, paths)
    assert len(done.stego_db) == 2 and done.stego_db == done.secret_db
