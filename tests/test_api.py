"""The library: arrays and files give what the modes give."""

import inspect
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import deepsteg_jax
from configs import adaptive, invertible, prep_hide_reveal, robust
from configs.video import get_config
from deepsteg_jax import api, commands, keys, loading, media, metrics, models, pipeline
from deepsteg_jax.errors import UserError
from deepsteg_jax.schemes.base import NOTHING
from deepsteg_jax.training import checkpoints
from tests.helpers import read_stack
from tests.synthetic import film, noise, save, smooth

ROOT = Path(__file__).parent.parent
KEY = bytes(range(32))
OTHER = bytes(32)


@pytest.fixture(scope="module")
def model():
    return deepsteg_jax.load("video")


@pytest.fixture(scope="module")
def image_model():
    return deepsteg_jax.load("image")


@pytest.fixture
def same_salts(monkeypatch):
    """Every hide draws the same salts, so that two of them can be compared."""
    monkeypatch.setattr(keys, "random_key", lambda: KEY[::-1])


def run_modes(folder, model, cover, secret, suffix):
    """The stego and the revealed frames of `--mode hide` and `--mode reveal`, by the programs of `model`."""
    (folder / "key").write_bytes(KEY)
    paths = {name: str(folder / f"{name}{suffix}") for name in ("cover", "secret", "stego", "revealed")}
    save(paths["cover"], cover), save(paths["secret"], secret)
    options = commands.Options("", cover=paths["cover"], secret=paths["secret"], key_file=str(folder / "key"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loading, "load", lambda config: model.scheme)
        commands.load("hide").run(model.config, options._replace(output=paths["stego"]))
        commands.load("reveal").run(
            model.config, options._replace(stego=paths["stego"], output=paths["revealed"])
        )
    return read_stack(paths["stego"]), read_stack(paths["revealed"])


# --- arrays ---------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("secret_size", [(24, 40), (40, 72), (48, 32)])  # smaller, larger, turned
def test_arrays_give_the_bits_of_the_modes(model, same_salts, tmp_path, secret_size):
    """Here with a tail of the cover in which the secret comes once more."""
    cover, secret = noise(10, 32, 48), smooth(6, *secret_size)
    stego, revealed = run_modes(tmp_path, model, cover, secret, ".mkv")
    assert np.array_equal(deepsteg_jax.hide(model, cover, secret, KEY), stego)
    shown = deepsteg_jax.reveal(model, stego, KEY)
    assert shown.dtype == np.uint8 and np.array_equal(shown, revealed)
    if secret_size == (24, 40):
        assert shown.shape == secret.shape and np.abs(shown.astype(int) - secret).mean() < 3


@pytest.mark.slow
def test_pictures_give_the_bits_of_the_modes(image_model, same_salts, tmp_path):
    cover, secret = noise(1, 32, 48), smooth(1, 80, 60)
    stego, revealed = run_modes(tmp_path, image_model, cover, secret, ".png")
    assert np.array_equal(deepsteg_jax.hide(image_model, cover[0], secret[0], KEY), stego[0])
    shown = deepsteg_jax.reveal(image_model, stego[0], KEY)
    assert shown.ndim == 3 and np.array_equal(shown, revealed[0])


def test_arrays_are_not_changed_and_each_stego_has_its_own_salt(model):
    cover, secret = noise(4, 32, 48), smooth(4, 32, 48)
    before = cover.copy(), secret.copy()
    first, second = (deepsteg_jax.hide(model, cover, secret, "passphrase") for _ in range(2))
    assert np.array_equal(cover, before[0]) and np.array_equal(secret, before[1])
    assert first.shape == cover.shape and first.dtype == np.uint8 and (first != second).any()
    shown = [deepsteg_jax.reveal(model, stego, "passphrase") for stego in (first, second)]
    assert np.array_equal(*shown)


def test_a_cut_stego_gives_what_is_left(model):
    stego = deepsteg_jax.hide(model, noise(8, 32, 48), smooth(8, 32, 48), KEY)
    with pytest.warns(UserWarning, match="cut short: the revealed array has the first 4 of 8 frames"):
        shown = deepsteg_jax.reveal(model, stego[:6], KEY)
    assert np.array_equal(shown, deepsteg_jax.reveal(model, stego, KEY)[:4])


def test_a_wrong_key_and_a_wrong_model_are_one_line(model):
    stego = deepsteg_jax.hide(model, noise(4, 32, 48), smooth(4, 32, 48), KEY)
    other = deepsteg_jax.load("image")
    lines = set()
    for receiver, frames, key in (
        (model, stego, OTHER),
        (model, stego, "passphrase"),
        (other, stego, KEY),
        (model, noise(4, 32, 48), KEY),
    ):
        with pytest.raises(UserError) as caught:
            deepsteg_jax.reveal(receiver, frames, key)
        lines.add(str(caught.value))
    assert len(lines) == 1 and "passphrase" in lines.pop()


GOOD = noise(4, 32, 48)


@pytest.mark.parametrize(
    "cover, secret, key, words",
    [
        (GOOD / 255, GOOD, KEY, "uint8 RGB arrays.*not float64"),
        (GOOD, GOOD[..., :1], KEY, r"uint8 RGB arrays.*\[4, 32, 48, 1\]"),
        (GOOD[:0], GOOD, KEY, r"uint8 RGB arrays.*\[0, 32, 48, 3\]"),
        (GOOD[0, 0], GOOD, KEY, "uint8 RGB arrays"),
        (GOOD[:3], GOOD, KEY, "the cover array is too short: it has 3 frames and the secret 4"),
        (GOOD[0], GOOD, KEY, "the cover array is an image"),
        (GOOD[:, :8, :8], GOOD, KEY, "too small"),
        (GOOD, GOOD, "", "the passphrase is empty"),
        (GOOD, GOOD, "\ud800", "not UTF-8"),
        (GOOD, GOOD, KEY[:-1], "32 bytes"),
        (GOOD, GOOD, None, "32 bytes"),
    ],
)
def test_bad_arrays_and_keys_are_one_line(model, cover, secret, key, words):
    with pytest.raises(UserError, match=words) as caught:
        deepsteg_jax.hide(model, cover, secret, key)
    assert "\n" not in str(caught.value)


# --- files ----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_files_give_the_bits_of_the_modes(model, same_salts, tmp_path):
    stego, revealed = run_modes(tmp_path, model, noise(10, 32, 48), smooth(6, 24, 40), ".mkv")
    done = []
    paths = tmp_path / "cover.mkv", tmp_path / "secret.mkv", tmp_path / "ours.mkv"
    report = deepsteg_jax.hide_video(model, *paths, KEY, done.append)
    assert isinstance(report, deepsteg_jax.Report) and report.frames == sum(done) == 10
    assert np.array_equal(read_stack(paths[2]), stego)
    report = deepsteg_jax.reveal_video(model, str(paths[2]), tmp_path / "shown.mkv", KEY)
    assert report.frames == 6 and np.array_equal(read_stack(tmp_path / "shown.mkv"), revealed)
    assert np.array_equal(deepsteg_jax.reveal(model, stego, KEY), revealed)


def test_files_that_are_wrong_are_one_line_and_leave_nothing(model, tmp_path):
    short, long = save(tmp_path / "short.mkv", GOOD), save(tmp_path / "long.mkv", noise(6, 32, 48))
    output = tmp_path / "output.mkv"
    for cover, secret, target, words in (
        (short, long, output, "too short"),
        (tmp_path / "none.mkv", long, output, "does not exist"),
        ("sample:none.mp4", long, output, "there is no sample"),
        (long, short, tmp_path / "output.mp4", "loss"),
        (long, short, long, "also an input"),
    ):
        with pytest.raises(UserError, match=words):
            deepsteg_jax.hide_video(model, cover, secret, target, KEY)
    with pytest.raises(UserError, match="no hidden video"):
        deepsteg_jax.reveal_video(model, short, output, KEY)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["long.mkv", "short.mkv"]
    assert deepsteg_jax.hide_video(model, short, long, output, KEY, loop_cover=True).frames == 6


# --- files, whatever hides in them ----------------------------------------------------------------


@pytest.fixture
def files(tmp_path, monkeypatch):
    """A cover in planes and a secret; what hides has a low trellis, which compiles soon."""
    film(tmp_path / "cover.mp4", noise(3, 64, 64, low=60, high=190), codec="libx264", pixel_format="yuv420p")
    (tmp_path / "secret.txt").write_bytes(bytes(range(100)))
    return tmp_path


LOW = {"model.height": 4}


def test_a_file_in_a_file(files):
    told, cover, stego = [], files / "cover.mp4", files / "stego.mp4"
    given = {"purpose": "file", "changes": LOW, "announce": told.append}
    report = api.hide_file(cover, files / "secret.txt", stego, KEY, **given)
    assert told[0].startswith(f"{report.notes[0]}; {stego} will take about ") and "bit for bit" in told[0]
    assert report.notes[-1] == api.SURVIVES["file"]
    report = api.reveal_file(stego, f"{files}/out/", KEY)
    assert (files / "out/secret.txt").read_bytes() == bytes(range(100))
    assert report.notes[-1] == f"written to {files}/out/secret.txt"
    wrong = {}
    for name, key in ((stego, OTHER), (cover, KEY)):
        with pytest.raises(UserError) as caught:
            api.pipeline.reveal([deepsteg_jax.load("adaptive").scheme], key, name, files / "no.txt", len)
        wrong[name] = str(caught.value)
    assert set(wrong.values()) == {NOTHING} and not (files / "no.txt").exists()


@pytest.mark.parametrize(
    ("output", "purpose", "scheme", "name"),
    [
        ("stego.mkv", None, None, "adaptive"),
        ("stego.mp4", None, None, "robust"),
        ("stego.mp4", "file", None, "adaptive"),
        ("stego.mkv", "live", None, "pixels"),
        ("stego.mkv", "file", "pixels", "pixels"),
        ("stego.mp4", None, "adaptive", "adaptive"),
        ("stego.mkv", "post", "prep_hide_reveal_small", "pixels"),
    ],
)
def test_which_scheme_hides(files, output, purpose, scheme, name):
    assert api._suitable(files / "cover.mp4", output, purpose, scheme, None).name == name


def test_what_the_library_refuses(files):
    cover, secret, stego = files / "cover.mp4", files / "secret.txt", files / "no.mkv"
    for change, words in [
        ({"purpose": "File"}, "no purpose 'File': give one of file, post, live"),
        ({"secret": []}, "there is no secret"),
        ({"key": [KEY, OTHER]}, "1 secrets need as many keys, not 2"),
    ]:
        given = {"secret": secret, "key": KEY, "purpose": "file", "changes": LOW} | change
        with pytest.raises(UserError, match=words):
            api.hide_file(cover, given.pop("secret"), stego, given.pop("key"), **given)
    with pytest.raises(UserError, match="no purpose 'archive'"):
        api.describe(cover, "archive")
    assert api.hiding_memory("sample:bikes.mp4", "o.mkv") > 2**20


def test_learned_costs_are_the_sender_s_choice(files):
    made = api._suitable(files / "cover.mp4", "stego.mkv", None, "adaptive_learned", None)
    assert made.config.checkpoint == "adaptive_learned" and made.params["Conv_3"]["kernel"].any()


@pytest.mark.parametrize("name", ["prep_hide_reveal_small", "invertible"])
def test_networks_are_named_to_hide_and_found(tmp_path, name):
    """Of this size metadata takes 1 dB of the stego, and edges of shuffled blocks as much of the secret."""
    cover, secret = (smooth(1, 64, 64, seed) for seed in (1, 2))
    paths = [save(tmp_path / name, frames) for name, frames in (("c.png", cover), ("s.png", secret))]
    api.hide_file(*paths, tmp_path / "stego.png", KEY, scheme=name)
    api.reveal_file(tmp_path / "stego.png", tmp_path / "revealed.png", KEY)
    stego, revealed = (read_stack(tmp_path / name) for name in ("stego.png", "revealed.png"))
    assert metrics.psnr(cover[0], stego[0]) > 33
    assert metrics.psnr(secret[0], revealed[0]) > 32


def test_a_changed_scheme_is_loaded_once(files):
    first, same, other = (
        api._suitable(files / "cover.mp4", "stego.mkv", None, None, {"payload.rate": rate})
        for rate in (0.2, 0.2, 0.3)
    )
    assert first is same is not other and other.config.payload.rate == 0.3


def test_the_memory_of_a_job_is_known_before(files):
    cover = files / "cover.mp4"
    info, loaded = (
        media.probe(cover),
        {name: deepsteg_jax.load(name).scheme for name in ("adaptive", "robust")},
    )
    costs = {name: pipeline.cost(scheme, info) for name, scheme in loaded.items()}
    assert api.hiding_memory(cover, "stego.mkv", drop_tags=True) == costs["adaptive"].memory_bytes
    assert api.hiding_memory(cover, "stego.mp4") == costs["robust"].memory_bytes
    assert api.revealing_memory(cover) == max(cost.revealing_bytes for cost in costs.values())


def test_which_schemes_may_have_hidden():
    planes = media.Info(64, 64, 1, 25, False, pixel_format="yuv420p")
    in_rgb = planes._replace(pixel_format=media.RGB)
    shipped = loading.Shipped()
    for exact in (True, False):
        assert shipped.for_stego(planes, exact) == ["adaptive", "robust"]
    networks = ["prep_hide_reveal_small", "prep_hide_reveal", "invertible"]
    assert shipped.for_stego(in_rgb, True) == ["video", "image", "adaptive", *networks, "robust"]
    assert shipped.for_stego(in_rgb, False) == ["robust", "video", "image", "adaptive"]
    assert shipped.for_stego(in_rgb._replace(is_image=True), False)[0] == "robust_image"


def test_a_file_is_described_by_what_it_holds(files):
    line = api.describe(files / "cover.mp4", "file").splitlines()[1]
    assert line.startswith(
        "--for file (adaptive): holds any file of up to 0.2 kB, at 0.1 bit per sample, "
        "found in about 60 % of frames (50: a guess); about "
    )
    assert line.endswith(api.SURVIVES["file"])


def test_slots_are_described_by_what_each_holds(files):
    frames = noise(3, 128, 128, low=60, high=190)
    cover = film(files / "larger.mp4", frames, codec="libx264", pixel_format="yuv420p")
    file, post = api.describe(cover, slots=2).splitlines()[1:]
    assert "holds any file of up to 0.4 kB in each of 2 slots, at 0.1 bit" in file
    assert "holds a secret of up to 128x128, as long as itself in each of 2 slots; about" in post
    assert len(api.describe(cover, slots=4).splitlines()) == 2
    with pytest.raises(UserError, match="the scheme robust has 2 slots at most"):
        api.describe(cover, "post", slots=4)


def test_a_grey_picture_holds_a_third(tmp_path):
    grey = np.repeat(noise(1, 128, 128)[..., :1], 3, axis=3)
    lines = [
        api.describe(save(tmp_path / f"{i}.png", x), "file") for i, x in enumerate((grey, noise(1, 128, 128)))
    ]
    assert ["of up to 0.2 kB" in lines[0], "of up to 0.6 kB" in lines[1]] == [True, True]


def test_a_file_that_is_to_be_posted_is_one_line(files):
    with pytest.raises(UserError, match=r"secret.txt is not a video .*; --for file hides any other"):
        api.hide_file(files / "cover.mp4", files / "secret.txt", files / "stego.mp4", KEY)


def test_arrays_hide_in_pictures_only():
    model = deepsteg_jax.load("adaptive")
    for run in (
        lambda: deepsteg_jax.hide(model, GOOD, GOOD, KEY),
        lambda: deepsteg_jax.reveal(model, GOOD, KEY),
    ):
        with pytest.raises(UserError, match="the model adaptive hides files: give them to hide_video"):
            run()


# --- load -----------------------------------------------------------------------------------------


def test_every_shipped_checkpoint_has_a_name_and_its_config():
    shipped = {path.name for path in checkpoints.PRETRAINED.iterdir() if path.is_dir()}
    assert shipped == set(api.SHIPPED)
    assert all(loading.config_of(name).checkpoint == name for name in shipped)


@pytest.mark.parametrize(
    ("module", "variant"), [(prep_hide_reveal, ""), (prep_hide_reveal, "small"), (invertible, "")]
)
def test_the_shipped_networks_are_those_of_the_config(module, variant):
    config = module.get_config(variant)
    shipped = loading.config_of(config.checkpoint)
    for section in ("model", "shuffle"):
        assert json.dumps(shipped[section].to_dict()) == json.dumps(config[section].to_dict())


@pytest.mark.parametrize(("name", "variant"), [("robust", ""), ("robust_image", "image")])
def test_a_shipped_config_hides_as_the_one_in_configs(name, variant):
    """What `main.py` hides, `deepsteg` reveals, and the other way round."""
    shipped, config = (x.to_dict() for x in (loading.config_of(name), robust.get_config(variant)))
    fields = (
        "model",
        "secret_layers",
        "overhead",
        "fine",
        "repeats",
        "lines",
        "growth",
        "sound_share",
        "margin",
    )
    for section in fields:
        assert json.dumps(shipped[section]) == json.dumps(config[section])


def test_the_shipped_config_of_files_is_the_one_in_configs():
    shipped, config = (x.to_dict() for x in (loading.config_of("adaptive"), adaptive.get_config()))
    assert json.dumps(shipped, sort_keys=True) == json.dumps(config, sort_keys=True)


def test_a_config_is_taken_and_left_as_it_is(model):
    config = get_config()
    other = deepsteg_jax.load(config, {"model.modulus": 5})
    assert config.model.modulus == 3 and other.config.model.modulus == 5 and other.name == "video"
    assert repr(other) == "LoadedModel(name='video')"


def test_a_folder_that_train_wrote(tmp_path):
    """Its own config is taken, not one of configs/."""
    config = get_config()
    config.model.modulus = 7
    checkpoints.export("video", tmp_path / "checkpoints", models.build(config.model), config)
    trained = deepsteg_jax.load(tmp_path)
    assert trained.config.model.modulus == 7 and trained.name == str(tmp_path)
    next(tmp_path.glob("checkpoints/*/config/metadata")).write_text("{")
    with pytest.raises(UserError, match="damaged"):
        deepsteg_jax.load(tmp_path)


@pytest.mark.parametrize(
    "name, changes, words",
    [
        ("", None, "no checkpoint"),
        ("vidoe", None, "no checkpoint 'vidoe'"),
        (7, None, "a model must be video, image"),
        ("video", {"model.moduluss": 3}, "moduluss"),
        ("video", {"model.modulus": "three"}, "modulus"),
        ("video", {"model.name": "unknown"}, "unknown model"),
        ("video", {"checkpoint": "image"}, "does not fit"),
    ],
)
def test_what_cannot_be_loaded_is_one_line(name, changes, words):
    with pytest.raises(UserError, match=words) as caught:
        deepsteg_jax.load(name, changes)
    assert "\n" not in str(caught.value)


# --- the package ----------------------------------------------------------------------------------

HEAVY = ("jax", "flax", "tensorflow", "av", "numpy", "orbax", "ml_collections", "cryptography")


def test_importing_the_package_is_light():
    code = (
        "import sys, deepsteg_jax\n"
        "names = {name for name in dir(deepsteg_jax) if name[0] != '_'}\n"
        "assert names == set(deepsteg_jax.__all__), names\n"
        f"print([name for name in {HEAVY} if name in sys.modules])\n"
        "deepsteg_jax.load\n"
        "print([name for name in ('jax', 'tensorflow', 'matplotlib') if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.splitlines() == ["[]", "['jax']"], done.stderr


def test_what_the_package_exposes_is_described_and_typed():
    with pytest.raises(AttributeError, match="no attribute 'hidden'"):
        deepsteg_jax.hidden  # noqa: B018
    for name in deepsteg_jax.__all__:
        exposed = getattr(deepsteg_jax, name)
        assert exposed is getattr(api, name) and exposed.__doc__
        if inspect.isfunction(exposed):
            signature = inspect.signature(exposed)
            assert signature.return_annotation is not signature.empty
            assert all(p.annotation is not p.empty for p in signature.parameters.values()), name
    assert (ROOT / "deepsteg_jax/py.typed").is_file()


def test_type_checkers_see_what_is_exposed():
    source = (ROOT / "deepsteg_jax/__init__.py").read_text()
    imported = set(re.findall(r"^    from deepsteg_jax.api import \w+ as (\w+)$", source, re.MULTILINE))
    assert imported == set(deepsteg_jax.__all__)
