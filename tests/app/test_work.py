from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from configs import image, invertible, robust, video
from deepsteg_jax import media
from deepsteg_jax.app import work
from deepsteg_jax.app.files import Store
from deepsteg_jax.app.jobs import CANCELLED, DONE, FAILED, Job
from deepsteg_jax.commands import common
from deepsteg_jax.errors import PartialError, UserError
from deepsteg_jax.evaluation import Files
from deepsteg_jax.pipeline import Report
from deepsteg_jax.schemes.metadata import NOTHING
from tests.synthetic import Sound, film, hiss, noise, save, smooth


@pytest.fixture
def desk(tmp_path):
    with Store(tmp_path) as store:
        yield store.desk("a")


@pytest.fixture
def models():
    return work.Models(video.get_config())


@pytest.fixture
def calls(monkeypatch):
    """Stands in for the models: hiding copies the cover, revealing succeeds where `opens` says so."""
    made = {"hide": [], "reveal": [], "opens": lambda config: True, "partial": False}

    def hider(config):
        def hide(credential, cover, secret, output, progress, settings):
            made["hide"].append((config, cover, settings))
            lossy = media.Lossy() if config.model.name == "robust" else None
            info = media.probe(cover)
            tracks = cover if info.tracks else None
            writer = media.Writer(output, info.rate, image=info.is_image, lossy=lossy, tracks_from=tracks)
            with writer:
                for frame in media.read_frames(cover):
                    writer.write(frame)
                    progress(1)
            return Report(info.frames, info.width, info.height, Fraction(25), 1.0, info.frames)

        return hide

    def revealer(config):
        def reveal(credential, stego, output, progress):
            made["reveal"].append((config.model.name, config.model.get("modulus")))
            if not made["opens"](config):
                raise UserError(NOTHING)
            media.write_frames(output, media.read_frames(stego))
            progress(1)
            if made["partial"]:
                raise PartialError("cut")
            return Report(1, 48, 32, Fraction(25), 1.0, 1)

        return reveal

    monkeypatch.setattr(common, "hider", hider)
    monkeypatch.setattr(common, "revealer", revealer)
    return made


def ran(function, *arguments):
    job = Job(lambda job: function(job, *arguments))
    job.run()
    if job.state == FAILED:
        raise job.error
    return job.result


def put(desk, name, frames):
    return save(desk.new(name), frames)


def size_of(path):
    return media.probe(path)[:2]


# --- configs --------------------------------------------------------------------------------------


def test_the_config_of_the_command_line_takes_the_place_of_its_kind():
    for given, place in (
        (video.get_config("tiny"), (False, False)),
        (image.get_config("tiny"), (False, True)),
        (robust.get_config(), (True, False)),
        (robust.get_config("image"), (True, True)),
    ):
        given.checkpoint = "mine"
        models = work.Models(given)
        places = [(a, b) for a in (False, True) for b in (False, True)]
        assert [p for p in places if models.config(*p).checkpoint == "mine"] == [place]


def test_other_models_are_refused():
    with pytest.raises(UserError, match="not with invertible"):
        work.Models(invertible.get_config())


def test_a_step_changes_a_copy():
    given = video.get_config()
    given.lock()
    before = given.to_json_best_effort()
    models = work.Models(given)
    assert models.config(False, False, 5).model.modulus == 5
    assert models.config(True, False, 32).model.spacing == 32.0
    assert models.config(False, False).model.modulus == given.model.modulus == 3
    assert given.to_json_best_effort() == before


def test_sides_are_kept_and_not_without_end(models, calls):
    first = models.side("hide", False, False, 3)
    assert models.side("hide", False, False, 3) is first
    for step in range(2, 2 + work.KEPT):
        models.side("reveal", False, False, step)
    assert models.side("hide", False, False, 3) is not first


# --- hide and reveal --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "longest", "even", "expected"),
    [
        ((1920, 1080), 640, False, (640, 360)),
        ((1080, 1920), 640, False, (360, 640)),
        ((320, 240), 640, False, (320, 240)),
        ((1920, 1080), 0, False, (1920, 1080)),
        ((333, 251), 0, True, (332, 250)),
        ((5000, 2), 640, False, (640, 1)),
    ],
)
def test_sizes(size, longest, even, expected):
    assert work.within(media.Info(*size, 1, Fraction(25), False), longest, even) == expected


def test_a_cover_is_scaled_down_with_its_sound(desk, models, calls):
    path = film(desk.new("cover.mkv"), smooth(6, 48, 64), sounds=[Sound("flac", hiss())])
    secret = put(desk, "secret.mkv", smooth(6, 48, 64, seed=1))
    hidden = ran(work.hide, desk, models, path, secret, "key", work.Choice(longest=32, step=4, sound=False))
    assert size_of(hidden.cover) == size_of(hidden.stego) == size_of(hidden.watched) == (32, 24)
    assert media.probe(hidden.watched).tracks == 1 and hidden.watched.suffix == ".mp4"
    assert hidden.numbers is None
    config, _, settings = calls["hide"][0]
    assert config.model.modulus == 4 and settings.sound_bit_rate == 0 and not settings.loop_cover


def test_odd_sides_are_made_even_for_h264(desk, models, calls):
    cover, secret = (put(desk, f"{i}.mkv", smooth(6, 33, 49, seed=i)) for i in range(2))
    hidden = ran(work.hide, desk, models, cover, secret, "key", work.Choice(survives=True, step=64))
    assert size_of(hidden.stego) == (48, 32) and hidden.stego.suffix == ".mp4"
    assert hidden.watched == hidden.stego and list(hidden.numbers) == list(range(6))


@pytest.mark.parametrize(("survives", "suffix"), [(False, ".png"), (True, ".jpg")])
def test_pictures(desk, models, calls, survives, suffix):
    cover, secret = (put(desk, f"{i}.png", smooth(1, 33, 49, seed=i)) for i in range(2))
    hidden = ran(work.hide, desk, models, cover, secret, "key", work.Choice(survives))
    assert hidden.stego.suffix == suffix and size_of(hidden.stego) == (49, 33)


def test_reveal_tries_every_d_and_both_models(desk, models, calls):
    stego = put(desk, "stego.mkv", smooth(4))
    calls["opens"] = lambda config: config.model.name == "robust"
    revealed = ran(work.reveal, desk, models, stego, "key")
    assert calls["reveal"] == [*(("block_dct", step) for step in (3, 2, 4, 5)), ("robust", 64.0)]
    assert revealed.watched.suffix == ".mp4" and revealed.revealed.suffix == ".mkv"
    assert work.ways_to_reveal(models, Path("a.mp4"), False)[0] == (True, None)


def test_nothing_to_reveal_leaves_nothing(desk, models, calls):
    stego = put(desk, "stego.mkv", smooth(4))
    calls["opens"] = lambda config: False
    before = sorted(stego.parent.parent.iterdir())
    with pytest.raises(UserError, match="no hidden video"):
        ran(work.reveal, desk, models, stego, "key")
    assert sorted(stego.parent.parent.iterdir()) == before


def test_a_part_is_better_than_nothing(desk, models, calls):
    calls["partial"] = True
    revealed = ran(work.reveal, desk, models, put(desk, "stego.mkv", smooth(4)), "key")
    assert isinstance(revealed.report, PartialError) and revealed.watched.exists()


def test_cancelling_leaves_nothing(desk, models, calls):
    cover, secret = (put(desk, f"{i}.mkv", smooth(40, 48, 64, seed=i)) for i in range(2))
    before = sorted(cover.parent.parent.iterdir())

    def work_and_cancel(job):
        progress, job.progress = job.progress, lambda frames: (job.cancel(), progress(frames))
        return work.hide(job, desk, models, cover, secret, "key", work.Choice(longest=32))

    job = Job(work_and_cancel)
    job.run()
    assert job.state == CANCELLED and not calls["hide"]
    assert sorted(cover.parent.parent.iterdir()) == before


# --- compare --------------------------------------------------------------------------------------


def test_compare_measures_every_frame(desk, monkeypatch):
    monkeypatch.setattr(work, "PICTURES", 3)
    cover, secret = smooth(8), smooth(8, seed=1)
    stego = np.clip(cover.astype(int) + 1, 0, 255).astype(np.uint8)
    stego[5] = cover[5]
    files = Files(
        cover=put(desk, "cover.mkv", cover),
        stego=put(desk, "stego.mkv", stego),
        secret=put(desk, "secret.mkv", secret),
        revealed=put(desk, "revealed.mkv", secret),
    )
    job = Job(lambda job: work.compare(job, desk, files))
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


def test_files_that_do_not_belong_together(desk):
    small, large = put(desk, "small.mkv", noise(2)), put(desk, "large.mkv", noise(2, 40, 48))
    with pytest.raises(UserError, match="the cover is 48x32 and the stego 48x40"):
        ran(work.compare, desk, Files(small, large, small, small))
