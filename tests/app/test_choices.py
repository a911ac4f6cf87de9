from fractions import Fraction

import numpy as np
import pytest
from ml_collections import ConfigDict

from configs import adaptive, image, invertible, robust, video
from tests.app.serving import need, stand_ins
from tests.synthetic import save, smooth

need("fastapi", "app")

from deepsteg_jax import media  # noqa: E402
from deepsteg_jax.app import choices  # noqa: E402
from deepsteg_jax.app.choices import QUALITIES, Choice, Clip, Quality, Schemes  # noqa: E402
from deepsteg_jax.errors import UserError  # noqa: E402
from deepsteg_jax.training import checkpoints  # noqa: E402

CLIP = media.Info(48, 32, 8, Fraction(25), False)
PICTURE = CLIP._replace(is_image=True, frames=1)
QUICK = QUALITIES["file"]["quick"]


@pytest.fixture
def fits(monkeypatch):
    """Has any checkpoint fit any model."""
    monkeypatch.setattr(checkpoints, "restore_params", lambda *_: {"kernel": np.zeros(1, np.float32)})


@pytest.mark.parametrize(
    ("config", "kind"),
    [
        (video.get_config(), "video"),
        (image.get_config(), "image"),
        (adaptive.get_config(), "adaptive"),
        (robust.get_config(), "robust"),
        (robust.get_config("image"), "robust_image"),
        (invertible.get_config(), "image"),
    ],
)
def test_the_config_of_the_command_line_takes_the_place_of_its_kind(fits, config, kind):
    schemes = Schemes(config)
    assert schemes.scheme(kind).config is config
    other = "image" if kind == "video" else "video"
    assert schemes.scheme(other).config.checkpoint == other


def test_a_missing_checkpoint_is_found_at_once():
    config = video.get_config()
    config.checkpoint = "none"
    with pytest.raises(UserError, match="no checkpoint 'none'"):
        Schemes(config)


def test_every_quality_is_a_scheme_and_changes_only_fields_that_there_are(fits):
    schemes = Schemes(video.get_config())
    for qualities in QUALITIES.values():
        for quality in qualities.values():
            for info in (CLIP, PICTURE):
                config = schemes.hiding(info, quality).config
                for field, value in quality.changes.items():
                    section, _, name = field.partition(".")
                    assert config[section][name] == value
    other = Quality("", "live", {"model.spacing": 9.0, "none.rate": 1.0})
    assert schemes.hiding(CLIP, other) is schemes.scheme("video")


def test_schemes_are_kept_and_not_without_end(fits, monkeypatch):
    monkeypatch.setattr(choices, "KEPT", 2)
    schemes = Schemes(video.get_config())
    first = schemes.hiding(CLIP, Quality("", "live", {"model.modulus": 2}))
    assert schemes.hiding(CLIP, Quality("", "live", {"model.modulus": 2})) is first
    for modulus in (4, 5):
        schemes.hiding(CLIP, Quality("", "live", {"model.modulus": modulus}))
    assert schemes.hiding(CLIP, Quality("", "live", {"model.modulus": 2})) is not first


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
    assert choices.within(media.Info(*size, 1, Fraction(25), False), longest, even) == expected


# --- files and estimates ----------------------------------------------------------------------------


def test_looking_at_a_file(tmp_path):
    clip = choices.look(save(tmp_path / "a.mkv", smooth(5, 400, 600)))
    assert clip.frames == 5 and clip.seconds == 0.2 and clip.is_video
    assert clip.first.shape == (213, 320, 3)
    (tmp_path / "letter.txt").write_text("x")
    with pytest.raises(UserError, match="letter.txt"):
        choices.look(tmp_path / "letter.txt")
    letter = choices.look(tmp_path / "letter.txt", any_file=True)
    assert letter.info is None and letter.size == 1 and "letter.txt" in letter.problem
    (tmp_path / "none.mp4").touch()
    for any_file in (False, True):
        with pytest.raises(UserError, match="none.mp4 is empty"):
            choices.look(tmp_path / "none.mp4", any_file)


@pytest.fixture
def schemes(monkeypatch):
    return stand_ins(monkeypatch)


@pytest.fixture
def clip(tmp_path):
    """Makes a dropped clip; as if it had other properties where some are given."""

    def make(name="a.mkv", frames=8, height=32, width=48, rate=25):
        (tmp_path / name).touch()
        info = media.Info(width, height, frames, Fraction(rate), name.endswith(".png"))
        return Clip(tmp_path / name, 1000, info)

    return make


def test_an_estimate_follows_the_scheme_s(schemes, clip):
    cover, secret = clip("sea.mp4", 300, 720, 1280), clip("cat.mp4", 300, 480, 640)
    found = choices.estimate(schemes, cover, secret, Choice("file", "quick", 640))
    cost = schemes.scheme("video").cost(360, 640, 300)
    assert (found.name, found.width, found.height) == ("sea.mkv", 640, 360)
    assert (found.memory_bytes, found.stego_bytes) == cost[1:3] and found.seconds > cost.seconds
    assert found.returns == "smaller, at 480 × 360 (its own: 640 × 480)" and len(found.warnings) == 1
    whole = choices.estimate(schemes, cover, secret, Choice("file", "quick", 0))
    assert whole.seconds == schemes.scheme("video").cost(720, 1280, 300).seconds
    assert whole.returns == "at its own size, 640 × 480"
    longer = choices.estimate(
        schemes, cover._replace(info=cover.info._replace(frames=30_000)), secret, Choice()
    )
    assert "takes long" in " ".join(longer.warnings)


@pytest.mark.parametrize(
    ("cover", "secret", "short"),
    [
        ({"frames": 8}, {"frames": 8}, False),
        ({"frames": 8}, {"frames": 9}, True),
        ({"frames": 50, "rate": 25}, {"frames": 60, "rate": 30}, False),  # both last 2 s
        ({"frames": 50, "rate": 25}, {"frames": 70, "rate": 30}, True),
        ({"name": "a.png", "frames": 1}, {"name": "b.png", "frames": 1}, False),
    ],
)
def test_what_needs_a_repeated_cover(schemes, clip, cover, secret, short):
    cover, secret = clip(**cover), clip(**{"name": "s.mkv", **secret})
    found = choices.estimate(schemes, cover, secret, Choice("post", "balanced"))
    assert found.is_short == short == bool(found.wrong)
    assert not choices.estimate(schemes, cover, secret, Choice("post", "balanced", loop_cover=True)).wrong
    assert not choices.estimate(schemes, cover, secret, Choice()).is_short  # bytes travel


def test_what_cannot_be_hidden_is_said_before_the_work(schemes, clip, monkeypatch):
    picture, video = clip("a.png", 1), clip()
    letter = Clip(video.path.with_name("a.pdf"), 5000, None)
    for cover, secret, choice, said in (
        (picture, video, Choice("post", "balanced"), "a video needs a video"),
        (video, letter, Choice("post", "balanced"), "only “Send it as a file”"),
        (video, letter, Choice(), "a.pdf has 5 kB, and 1 kB fit: take a longer or larger cover"),
    ):
        assert said in choices.estimate(schemes, cover, secret, choice).wrong
    assert not choices.estimate(schemes, clip(frames=80), letter, Choice()).wrong


def test_the_size_of_a_secret_that_is_coded_to_fit(schemes, tmp_path):
    cover = choices.look(save(tmp_path / "a.mkv", smooth(8, 64, 96)))
    secret = choices.look(save(tmp_path / "b.mkv", smooth(16, 400, 600)))
    found = choices.estimate(schemes, cover, secret, Choice())
    assert found.returns.startswith("coded again smaller, at 450 × 300 (its own: 600 × 400): its file has ")
    described = media.code_to_size(secret.path, tmp_path / "c.mkv", 20_000, 0)
    width, height = media.likely_size(secret.info, 16, 20_000)
    assert f"{width}x{height}" in described


def test_a_config_without_the_field_of_a_quality(monkeypatch):
    schemes = stand_ins(monkeypatch)
    assert schemes.hiding(CLIP, Quality("", "file", {"payload.none": 1})) is schemes.scheme("adaptive")
    assert isinstance(schemes.scheme("adaptive").config, ConfigDict)
