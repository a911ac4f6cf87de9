from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from ml_collections import ConfigDict

from configs import image, invertible, robust, video
from deepsteg_jax import loading, media, pipeline
from deepsteg_jax.app import work
from deepsteg_jax.app.files import Store
from deepsteg_jax.app.jobs import CANCELLED, DONE, FAILED, Job
from deepsteg_jax.errors import PartialError, UserError
from deepsteg_jax.evaluation import Files
from deepsteg_jax.training import checkpoints
from tests.helpers import PlainScheme, read_stack
from tests.synthetic import Sound, film, hiss, noise, save, smooth

SHIPPED = ("video", "image", "adaptive", "robust", "robust_image")
CLIP = media.Info(48, 32, 1, Fraction(25), False)
KEY = bytes(range(32))  # quicker than a passphrase
PICTURE = CLIP._replace(is_image=True)


class StandIn(PlainScheme):
    """A plain scheme of the kind of a shipped one, with a fingerprint and a list of probes."""

    def __init__(self, name, probed):
        super().__init__(group=1 if "image" in name else 4, fingerprint=name[:8].ljust(8).encode())
        self._name, self._probed = name, probed
        if name.startswith("robust"):
            self.purpose, self.lossy = "post", media.Lossy()

    def probe(self, stego, deriver):
        self._probed.append(self._name)
        return super().probe(stego, deriver)

    def shown_numbers(self, plan):
        return plan.schedule.numbers if self.lossy else None


@pytest.fixture
def desk(tmp_path):
    with Store(tmp_path) as store:
        yield store.desk("a")


@pytest.fixture
def probed():
    """The names of the schemes that looked into a stego."""
    return []


@pytest.fixture
def schemes(monkeypatch, probed):
    made = {name: StandIn(name, probed) for name in SHIPPED}
    monkeypatch.setattr(loading, "load", lambda config: made[config.checkpoint])
    monkeypatch.setattr(loading, "config_of", lambda name: ConfigDict({"checkpoint": name}))
    return work.Schemes(ConfigDict({"checkpoint": "video"}))


@pytest.fixture
def settings(monkeypatch):
    """The settings of every secret that was hidden."""
    hide, given = pipeline.hide, []

    def noting(*arguments):
        given.append(arguments[-1])
        return hide(*arguments)

    monkeypatch.setattr(pipeline, "hide", noting)
    return given


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


# --- schemes --------------------------------------------------------------------------------------


@pytest.fixture
def fits(monkeypatch):
    """Has any checkpoint fit any model."""
    monkeypatch.setattr(checkpoints, "restore_params", lambda *_: {"kernel": np.zeros(1, np.float32)})


@pytest.mark.parametrize(
    ("config", "kind"),
    [
        (video.get_config(), "video"),
        (image.get_config(), "image"),
        (robust.get_config(), "robust"),
        (robust.get_config("image"), "robust_image"),
        (invertible.get_config(), "image"),
    ],
)
def test_the_config_of_the_command_line_takes_the_place_of_its_kind(fits, config, kind):
    if config.model.name == "invertible":
        config.checkpoint = "image"
    schemes = work.Schemes(config)
    assert schemes.scheme(kind).config is config
    other = "image" if kind == "video" else "video"
    assert schemes.scheme(other).config.checkpoint == other


def test_a_missing_checkpoint_is_found_at_once():
    config = video.get_config()
    config.checkpoint = "none"
    with pytest.raises(UserError, match="no checkpoint 'none'"):
        work.Schemes(config)


def test_quality_changes_a_copy_and_only_models_that_have_one(fits):
    given = invertible.get_config()
    given.checkpoint = "image"
    schemes = work.Schemes(given)
    assert schemes.hiding(PICTURE, "live", 5) is schemes.scheme("image")
    assert schemes.hiding(CLIP, "live", 5).config.model.modulus == 5
    assert schemes.hiding(CLIP, "live", 3) is schemes.scheme("video")
    assert schemes.scheme("video").config.model.modulus == 3
    spacing = schemes.hiding(CLIP, "post", 32).config.model.spacing
    assert spacing == 32 and isinstance(spacing, float)


def test_schemes_are_kept_and_not_without_end(fits, monkeypatch):
    monkeypatch.setattr(work, "KEPT", 2)
    schemes = work.Schemes(video.get_config())
    first = schemes.hiding(CLIP, "live", 2)
    assert schemes.hiding(CLIP, "live", 2) is first
    for modulus in (4, 5):
        schemes.hiding(CLIP, "live", modulus)
    assert schemes.hiding(CLIP, "live", 2) is not first


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


def test_a_cover_is_scaled_down_with_its_sound(desk, schemes, settings):
    path = film(desk.new("cover.mkv"), smooth(6, 48, 64), sounds=[Sound("flac", hiss())])
    secret = put(desk, "secret.mkv", smooth(6, 48, 64, seed=1))
    hidden = ran(work.hide, desk, schemes, path, secret, KEY, work.Choice(longest=32, sound=False))
    assert size_of(hidden.cover) == size_of(hidden.stego) == size_of(hidden.watched) == (32, 24)
    assert media.probe(hidden.watched).tracks == 1 and hidden.watched.suffix == ".mp4"
    assert hidden.numbers is None and hidden.report.frames == 6
    assert settings[0].sound_bit_rate == 0 and not settings[0].loop_cover


def test_odd_sides_are_made_even_for_h264_and_a_cover_repeats(desk, schemes, settings):
    cover = put(desk, "cover.mkv", smooth(3, 33, 49))
    secret = put(desk, "secret.mkv", smooth(6, 33, 49, seed=1))
    hidden = ran(work.hide, desk, schemes, cover, secret, KEY, work.Choice("post", 64, loop_cover=True))
    assert size_of(hidden.stego) == (48, 32) and hidden.stego.suffix == ".mp4"
    assert hidden.watched == hidden.stego and list(hidden.numbers) == list(range(6))
    assert settings[0].sound_bit_rate == 64_000 and settings[0].loop_cover


@pytest.mark.parametrize(("purpose", "suffix"), [("live", ".png"), ("post", ".jpg")])
def test_pictures(desk, schemes, purpose, suffix):
    cover, secret = (put(desk, f"{i}.png", smooth(1, 33, 49, seed=i)) for i in range(2))
    hidden = ran(work.hide, desk, schemes, cover, secret, KEY, work.Choice(purpose))
    assert hidden.stego.suffix == suffix and size_of(hidden.stego) == (49, 33)


@pytest.fixture
def stego(desk, schemes):
    """What the stand-in for `robust` hid in a file that keeps every sample."""
    clips = put(desk, "cover.mkv", smooth(8)), put(desk, "secret.mkv", noise(8))
    path = desk.new("stego.mkv")
    pipeline.hide(schemes.scheme("robust"), KEY, *map(str, clips), str(path), lambda frames: None)
    return path


def test_reveal_finds_the_scheme(desk, schemes, probed, stego, monkeypatch):
    stages = []
    monkeypatch.setattr(Job, "stage", lambda job, name, total=None: stages.append(name))
    revealed = ran(work.reveal, desk, schemes, stego, KEY)
    assert probed == ["video", "image", "adaptive", "robust"]
    assert stages[:5] == ["Looking at the file", "Revealing", *["Looking further"] * 3]
    assert revealed.watched.suffix == ".mp4" and revealed.report.frames == 8
    np.testing.assert_array_equal(read_stack(revealed.revealed), noise(8) & 0xF0)


def test_nothing_to_reveal_leaves_nothing(desk, schemes, probed, stego):
    before = sorted(stego.parent.parent.iterdir())
    with pytest.raises(UserError, match="no hidden video"):
        ran(work.reveal, desk, schemes, stego, bytes(32))
    assert probed == ["video", "image", "adaptive", "robust"]
    assert sorted(stego.parent.parent.iterdir()) == before


def test_a_secret_that_the_page_cannot_show_is_one_line(desk, schemes, stego, monkeypatch):
    monkeypatch.setattr(pipeline, "reveal", lambda *given: Path(given[3]).write_bytes(b"%PDF-1.7"))
    before = sorted(stego.parent.parent.iterdir())
    with pytest.raises(UserError, match="the secret is a file and no video or image"):
        ran(work.reveal, desk, schemes, stego, KEY)
    assert sorted(stego.parent.parent.iterdir()) == before


def test_a_part_is_better_than_nothing(desk, schemes, stego):
    cut = put(desk, "cut.mkv", read_stack(stego)[:5])
    revealed = ran(work.reveal, desk, schemes, cut, KEY)
    assert isinstance(revealed.report, PartialError) and len(read_stack(revealed.watched)) == 4


def test_cancelling_leaves_nothing(desk, schemes, settings):
    cover, secret = (put(desk, f"{i}.mkv", smooth(40, 48, 64, seed=i)) for i in range(2))
    before = sorted(cover.parent.parent.iterdir())

    def work_and_cancel(job):
        progress, job.progress = job.progress, lambda frames: (job.cancel(), progress(frames))
        return work.hide(job, desk, schemes, cover, secret, KEY, work.Choice(longest=32))

    job = Job(work_and_cancel)
    job.run()
    assert job.state == CANCELLED and not settings
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
