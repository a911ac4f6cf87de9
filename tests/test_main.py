"""main.py: the command line, and every mode of files from flags to exit code, with an untrained model."""

import importlib
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import av
import jax
import numpy as np
import pytest
from absl import flags
from PIL import Image
from skimage.metrics import structural_similarity

import main
from configs import video
from deepsteg_jax import commands, keys, loading, media, models
from deepsteg_jax.schemes.base import NOTHING
from deepsteg_jax.training import checkpoints
from deepsteg_jax.training.state import create_optimizer, create_state
from tests.children import Main
from tests.helpers import read_stack
from tests.synthetic import film, noise, save, smooth, tone

ROOT = Path(__file__).parent.parent
VIDEO, TINY = "--config=configs/video.py", f"--config={ROOT}/configs/video.py:tiny"
PASSPHRASE = "hunter2 is Not a good one"


# --- clips ----------------------------------------------------------------------------------------


def cut(path, share):
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])


def decode(path):
    """The frames of a clip or an image, read without deepsteg_jax."""
    if path.suffix == ".png":
        return np.asarray(Image.open(path).convert("RGB"))[None]
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def sound_of(path):
    with av.open(str(path)) as container:
        return b"".join(bytes(packet) for packet in container.demux(audio=0))


def psnr(a, b):
    error = np.square(a.astype(float) - b.astype(float)).mean(axis=(1, 2, 3))
    return np.mean(10 * np.log10(255**2 / error))


def names(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


# --- running --------------------------------------------------------------------------------------


class Result(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def line(self):
        """The last line on stderr, which is the message."""
        return self.err.splitlines()[-1]


def save_checkpoint(folder, seed=0, model_name="block_dct"):
    """An untrained block_dct, saved as training would, whatever its config calls it."""
    config = video.get_config("tiny")
    model = models.build(config.model)
    state = create_state(model, create_optimizer(config.optimizer), jax.random.key(seed))
    config.model.name = model_name
    with checkpoints.open_manager(folder / "checkpoints") as manager:
        checkpoints.save(manager, state, config)
    return folder


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return save_checkpoint(tmp_path_factory.mktemp("run"))


def forget():
    """Makes the flags as they are before the command line is read."""
    for name in list(flags.FLAGS):
        if name.partition(".")[0] in ("config", *commands.SETTINGS) and "." in name:
            delattr(flags.FLAGS, name)
    sys.modules.pop("config_config", None)  # the config file that was read before
    for name in ("config", "mode", "print_config", *commands.Options._fields):
        if name not in commands.SETTINGS:  # they are defined anew
            flags.FLAGS[name].unparse()


@pytest.fixture(scope="module")
def loaded_once():
    """Has the modes share what they load, with the programs that were compiled for it."""
    kept, load = {}, loading.load

    def load_once(config):
        key = config.checkpoint, *(str(config.get(name)) for name in ("model", "shuffle", "payload"))
        kept[key] = kept[key] if key in kept else load(config)
        return kept[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loading, "load", load_once)
        yield


@pytest.fixture
def call(monkeypatch, capfd):
    """call(*arguments) -> Result of main.py in this process."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    monkeypatch.setenv(keys.PASSPHRASE_VARIABLE, PASSPHRASE)

    def call_main(*arguments):
        forget()
        monkeypatch.setattr(sys, "argv", ["main.py", *arguments])  # config_flags looks there too
        capfd.readouterr()
        code = main.main(sys.argv)
        return Result(code, *capfd.readouterr())

    yield call_main
    forget()
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture
def run(call, checkpoint, loaded_once):
    """run(*arguments) -> Result, with configs/video.py:tiny and the untrained checkpoint."""
    return lambda *arguments: call(TINY, f"--config.checkpoint={checkpoint}", *arguments)


# --- the command line -----------------------------------------------------------------------------


def test_help_comes_before_anything_large_is_imported():
    code = (
        "import runpy, sys\n"
        "sys.argv = ['main.py', '--help']\n"
        "try:\n    runpy.run_path('main.py', run_name='__main__')\n"
        "finally:\n    print('LOADED', *sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    said, _, loaded = done.stdout.partition("LOADED")
    assert done.returncode == 0 and done.stderr == "" and "hides a video in a video" in said
    for flag in ("config", "mode", *commands.Options._fields):
        assert f"--{flag}:" in said or f"--[no]{flag}:" in said
    assert all(f"{field}: " in said for settings in commands.SETTINGS.values() for field in settings)
    large = {"jax", "flax", "orbax", "tensorflow", "av", "PIL", "matplotlib", "skimage"}
    assert not large & set(loaded.split())


HIDE = [VIDEO, "--mode=hide", "--cover=a", "--secret=b", "--output=c"]
USAGE_ERRORS = {
    "no flags": ([], "--config is missing"),
    "no config": (HIDE[1:], "--config is missing"),
    "unknown flag": ([VIDEO, "--bogus=1"], "bogus"),
    "typo in a flag": ([VIDEO, "--mode=hide", "--cove=a"], "cove"),
    "typo in a config field": ([VIDEO, "--config.modle.name=x"], "modle"),
    "unknown config field": ([VIDEO, "--config.model.zzz=1"], "zzz"),
    "field of another job": (["--config=configs/robust.py", "--config.shuffle.cipher=blocks"], "shuffle"),
    "field of another mode": ([*HIDE, "--config.optimizer.num_steps=3"], "does not use --config.optimizer"),
    "a mode without a config": ([VIDEO, "--mode=keygen", "--config.seed=1"], "does not use --config.seed"),
    "setting of another mode": ([*HIDE, "--live.width=64"], "--mode hide does not use --live.width"),
    "enhancing what is not revealed": ([VIDEO, "--enhance.steps=sharpen"], "does not use --enhance.steps"),
    "typo in a setting": ([VIDEO, "--mode=live", "--live.widht=64"], "widht"),
    "wrong type of a setting": ([VIDEO, "--mode=live", "--live.width=wide"], "--live.width"),
    "settings as a value": ([VIDEO, "--mode=live", "--live=64"], "--live"),
    "wrong type": ([VIDEO, "--config.model.modulus=many"], "config.model.modulus"),
    "section as a value": ([VIDEO, "--config.model=3"], "config.model"),
    "unknown mode": ([VIDEO, "--mode=reveil"], "roundtrip"),
    "mode without a value": ([VIDEO, "--mode"], "--mode"),
    "hide without files": (HIDE[:2], "needs --cover and --secret and --output;"),
    "hide without a cover": ([*HIDE[:2], *HIDE[3:]], "needs --cover;"),
    "empty name": ([*HIDE, "--secret="], "needs --secret;"),
    "two of what a mode takes once": (
        [VIDEO, "--mode=reveal", "--key_file=a", "--key_file=b"],
        "--mode reveal takes one --key_file;",
    ),
    "reveal without files": ([VIDEO, "--mode=reveal"], "needs --stego and --output"),
    "keygen without an output": ([VIDEO, "--mode=keygen"], "keygen needs --output;"),
    "stray argument": ([VIDEO, "stray"], "stray"),
    "no such config file": (["--config=configs/nothing.py"], "configs/nothing.py"),
    "no such config file, overridden": (["--config=nothing.py", "--config.seed=1"], "nothing.py"),
    "empty config": (["--config="], "cannot be read"),
    "config is a folder": (["--config=configs"], "'configs'"),
    "config is no program": (["--config=pyproject.toml"], "pyproject.toml"),
    "config without get_config": (["--config=deepsteg_jax/errors.py"], "get_config"),
    "no processes": ([VIDEO, "--mode=train", "--num_processes=0"], "--num_processes"),
    "a process before the first": ([VIDEO, "--process_id=-1"], "--process_id"),
    "unknown variant": (["--config=configs/video.py:nonsense"], "nonsense"),
}


@pytest.mark.parametrize("arguments, part", USAGE_ERRORS.values(), ids=USAGE_ERRORS)
def test_usage_errors(call, monkeypatch, arguments, part):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(main.commands, "load", None)
    result = call(*arguments)
    assert result.code == 2 and result.out == ""
    assert result.err.count("\n") == 1 and result.err.startswith("main.py: ")
    assert part in result.err and "Traceback" not in result.err


def test_flags_reach_the_mode(call, monkeypatch):
    seen = []
    monkeypatch.setattr(main.commands, "load", lambda name: seen.append(name) or Path)  # any module
    monkeypatch.setattr(Path, "run", lambda *passed: seen.append(passed), raising=False)
    assert call(TINY, "--mode=train", "--config.seed=7", "--workdir=somewhere").code == 0
    assert call(TINY, "--mode=train", "--coordinator=here:1", "--num_processes=2", "--process_id=0").code == 0
    assert call(TINY, "--mode=enhance", "--input=a", "--output=b", "--enhance.steps=sharpen").code == 0
    assert call(TINY, "--enhance_revealed", "--enhance.strength=3").code == 0
    assert seen[::2] == ["train", "train", "enhance", "roundtrip"]
    (first, one), (second, two), (_, three), (_, four) = seen[1::2]
    assert (first.seed, first.model.classes, one.workdir) == (7, 8, "somewhere")
    assert (one.coordinator, one.num_processes, one.process_id) == (None, None, None)
    assert (second.seed, two.workdir) == (0, "runs/video")
    assert (two.coordinator, two.num_processes, two.process_id) == ("here:1", 2, 0)
    assert (three.enhance.steps, three.enhance.strength) == ("sharpen", 2.0)
    assert (four.enhance_revealed, four.enhance.strength, four.enhance.steps) == (True, 3.0, "denoise")


@pytest.mark.parametrize("name", sorted(path.stem for path in (ROOT / "configs").glob("[a-z]*.py")))
def test_every_field_of_a_config_can_be_given(name):
    config = importlib.import_module(f"configs.{name}").get_config()
    assert set(config) <= set().union(*commands.SECTIONS.values())


def test_the_printed_config_is_a_command_line_for_the_same_config(call, monkeypatch):
    robust = f"--config={ROOT}/configs/robust.py"
    first = call(robust, "--mode=train", "--print_config", "--config.train.batch_size=4")
    assert first.code == 0 and first.err == "" and "--config.train.batch_size=4\n" in first.out
    assert "video" not in first.out and "evaluate" not in first.out  # which training does not use
    assert call(robust, "--mode=train", "--print_config", *shlex.split(first.out)).out == first.out
    live = call(TINY, "--mode=live", "--print_config", "--live.width=64")  # needs no files
    assert live.code == 0 and live.out.endswith("--live.panels='stego revealed'\n--live.width=64\n")


# --- hide and reveal ------------------------------------------------------------------------------


def test_hide_and_reveal_a_video(run, monkeypatch, tmp_path):
    cover = tone(tmp_path / "cover.mkv", "pcm_s16le", frames=10, seconds=0.4)
    secret = save(tmp_path / "secret.mkv", smooth(5, seed=1))
    stego, revealed = tmp_path / "stego.mkv", tmp_path / "revealed.mkv"
    hidden = run("--mode=hide", f"--cover={cover}", f"--secret={secret}", f"--output={stego}")
    assert hidden.code == 0, hidden.err
    assert str(stego) in hidden.out and "10 frames" in hidden.out and "48x32" in hidden.out

    (tmp_path / "passphrase.txt").write_text(f"{PASSPHRASE}\nanother line\n")
    monkeypatch.setenv(keys.PASSPHRASE_VARIABLE, "another")
    given = f"--passphrase_file={tmp_path}/passphrase.txt"
    shown = run("--mode=reveal", f"--stego={stego}", f"--output={revealed}", given)
    assert shown.code == 0, shown.err
    assert str(revealed) in shown.out and "5 frames" in shown.out and "48x32" in shown.out

    frames, before = decode(stego), decode(cover)
    assert frames.shape == before.shape
    assert psnr(frames, before) > 45 and (frames[5:] != before[5:]).any()
    assert sound_of(stego) == sound_of(cover) != b""
    np.testing.assert_array_equal(read_stack(stego), frames)
    assert decode(revealed).shape == (5, 32, 48, 3)
    assert psnr(decode(revealed), decode(secret)) > 41.5
    for result in (hidden, shown):
        assert PASSPHRASE not in result.out + result.err and "Traceback" not in result.err
    for path in (stego, revealed):
        assert PASSPHRASE.encode() not in path.read_bytes()
        with av.open(str(path)) as container:
            told = str([container.metadata, *(stream.metadata for stream in container.streams)])
        assert not any(word in told for word in (PASSPHRASE, "cover", "secret", "deepsteg"))
    assert names(tmp_path) == ["cover.mkv", "passphrase.txt", "revealed.mkv", "secret.mkv", "stego.mkv"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "name, suffix, frames, least", [("video", ".mkv", 4, 41.5), ("image", ".png", 1, 38)]
)
def test_shipped_checkpoint(call, tmp_path, name, suffix, frames, least):
    assert (checkpoints.PRETRAINED / name).is_dir() and (checkpoints.PRETRAINED / f"{name}.md").is_file()
    cover, secret, stego, revealed = (tmp_path / f"{part}{suffix}" for part in "csyr")
    save(cover, noise(frames)), save(secret, smooth(frames, 30, 41, seed=8))
    config = f"--config={ROOT}/configs/{name}.py"
    hidden = call(config, "--mode=hide", f"--cover={cover}", f"--secret={secret}", f"--output={stego}")
    assert hidden.code == 0, hidden.err
    shown = call(config, "--mode=reveal", f"--stego={stego}", f"--output={revealed}")
    assert shown.code == 0, shown.err
    assert psnr(decode(stego), decode(cover)) > 44 and psnr(decode(revealed), decode(secret)) > least
    if suffix == ".png":
        with Image.open(stego) as image:
            assert (image.format, image.mode, image.info) == ("PNG", "RGB", {})


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """A cover of 5 + 4 frames and a secret of 5; the first test that needs it adds `stego.mkv`."""
    folder = tmp_path_factory.mktemp("clips")
    save(folder / "cover.mkv", noise(9)), save(folder / "secret.mkv", smooth(5, seed=1))
    return folder


@pytest.fixture
def folder(tmp_path, clips, run, monkeypatch):
    """A copy of the clips to spoil, with their stego, as the working directory."""
    if not (clips / "stego.mkv").exists():
        files = (f"--{name}={clips}/{name}.mkv" for name in ("cover", "secret"))
        assert run("--mode=hide", *files, f"--output={clips}/stego.mkv").code == 0
    for path in clips.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    monkeypatch.chdir(tmp_path)
    return tmp_path


HIDE_FILES = {"cover": "cover.mkv", "secret": "secret.mkv", "output": "out.mkv"}
REVEAL_FILES = {"stego": "stego.mkv", "output": "out.mkv"}


def arguments(mode, **files):
    files = {**(HIDE_FILES if mode == "hide" else REVEAL_FILES), **files}
    return [f"--mode={mode}", *(f"--{name}={path}" for name, path in files.items())]


# --- files in files -------------------------------------------------------------------------------

ADAPTIVE = (f"--config={ROOT}/configs/adaptive.py", "--config.model.height=4")


@pytest.fixture
def cover(tmp_path):
    """Four frames in 4:2:0."""
    frames = noise(4, 64, 64, low=60, high=190)
    return film(tmp_path / "cover.mp4", frames, codec="libx264", pixel_format="yuv420p")


def test_hide_and_reveal_a_file(call, loaded_once, cover, tmp_path):
    (tmp_path / "notes.txt").write_bytes(bytes(range(100)))
    files = f"--cover={cover}", f"--secret={tmp_path}/notes.txt", f"--output={tmp_path}/stego.mp4"
    hidden = call(*ADAPTIVE, "--mode=hide", *files)
    assert hidden.code == 0 and "its own file travels, 0.1 kB, bit for bit" in hidden.err
    for output, note in (("out/", "written to"), ("out.mkv", "it is a .txt: its own name is notes.txt")):
        given = f"--stego={tmp_path}/stego.mp4", f"--output={tmp_path}/{output}"
        shown = call(*ADAPTIVE, "--mode=reveal", *given)
        assert shown.code == 0 and note in shown.out
    assert (tmp_path / "out/notes.txt").read_bytes() == bytes(range(100))
    wrong = call(*ADAPTIVE, "--mode=reveal", "--enhance_revealed", *given)
    assert wrong.code == 1 and wrong.line.startswith("main.py: the secret is a file that cannot be enhanced")


def test_hide_two_files_in_slots(call, loaded_once, tmp_path):
    frames = noise(4, 96, 96, low=60, high=190)
    film(tmp_path / "cover.mp4", frames, codec="libx264", pixel_format="yuv420p")
    given = [f"--cover={tmp_path}/cover.mp4", f"--output={tmp_path}/stego.mp4", "--slots=2"]
    for name in "ab":
        (tmp_path / name).write_text(name)
        (tmp_path / f"{name}.key").write_bytes(32 * name.encode())
        given += [f"--secret={tmp_path}/{name}", f"--key_file={tmp_path}/{name}.key"]
    assert "2 secrets need as many keys, and 1 are given" in call(*ADAPTIVE, "--mode=hide", *given[:-1]).line
    hidden = call(*ADAPTIVE, "--mode=hide", *given)
    assert hidden.code == 0 and "2 slots of 0.3 kB" in hidden.err
    for name in "ab":
        given = (
            f"--stego={tmp_path}/stego.mp4",
            f"--output={tmp_path}/out",
            f"--key_file={tmp_path}/{name}.key",
        )
        assert call(*ADAPTIVE, "--mode=reveal", *given).code == 0
        assert (tmp_path / "out").read_text() == name


def test_modes_without_sense_for_a_scheme_of_files(call, loaded_once, cover, tmp_path):
    (tmp_path / "notes.txt").write_text("no video")
    for mode, given, words in (
        ("train", (), "nothing of adaptive is trained"),
        ("export", (f"--workdir={tmp_path}/export",), "the scheme adaptive has nothing to export"),
        (
            "live",
            (f"--cover={cover}", f"--secret={cover}", f"--output={tmp_path}/live.mkv"),
            "hides files and",
        ),
        ("roundtrip", (f"--config.video.secret={tmp_path}/notes.txt",), "notes.txt is not a video or image"),
    ):
        result = call(*ADAPTIVE, f"--mode={mode}", *given)
        assert result.code == 1 and words in result.line and "Traceback" not in result.err
    assert not (tmp_path / "live.mkv").exists()


@pytest.mark.slow
def test_a_round_trip_and_an_evaluation_of_files(call, loaded_once, cover, tmp_path):
    """Coded to fit, and in another size than the cover's."""
    clips = tmp_path / "clips"
    clips.mkdir()
    for i in range(2):
        save(clips / f"{i}.mkv", smooth(6, 96, 80, seed=i))
    secret, rate = f"--config.video.secret={clips}/0.mkv", "--config.payload.rate=0.5"
    trip = call(*ADAPTIVE, f"--workdir={tmp_path}/trip", f"--config.video.cover={cover}", secret, rate)
    assert trip.code == 0, trip.err
    assert "so it is coded: " in trip.err and "so it is coded: " in trip.out
    figures = json.loads((tmp_path / "trip/metrics.json").read_text())
    assert figures["frames"] == 4 and figures["stego_psnr_db"] > 50 and figures["secret_psnr_db"] > 25
    size = "--config.evaluate.height=64", "--config.evaluate.width=64", "--config.evaluate.first_frame=0"
    given = f"--config.evaluate.path={clips}", f"--workdir={tmp_path}/evaluation", *size, rate
    done = call(*ADAPTIVE, "--mode=evaluate", *given)
    assert done.code == 0, done.err
    mean = json.loads((tmp_path / "evaluation/evaluation.json").read_text())["mean"]
    assert mean["stego_psnr_db"] > 50 and mean["secret_psnr_db"] > 30 and mean["wrong_key_psnr_db"] < 20


# --- pictures -------------------------------------------------------------------------------------


@pytest.mark.slow
def test_folders_of_images(run, folder):
    assert run(*arguments("hide", output="images/a_%02d.bmp")).code == 0
    assert names(folder / "images") == [f"a_{number:02d}.bmp" for number in range(9)]
    assert run(*arguments("reveal", stego="images", output="revealed/")).code == 0
    assert names(folder / "revealed") == [f"frame_{number:05d}.png" for number in range(5)]
    assert psnr(read_stack(folder / "revealed"), decode(folder / "secret.mkv")) > 41.5
    again = run(*arguments("reveal", stego="images", output="revealed/"))
    assert again.code == 1 and "has files in it" in again.line


def test_lossless_copy_of_a_stego_in_nut(run, folder):
    save(folder / "copy.nut", decode(folder / "stego.mkv"))
    assert run(*arguments("reveal", stego="copy.nut", output="out.nut")).code == 0
    assert psnr(decode(folder / "out.nut"), decode(folder / "secret.mkv")) > 41.5


def test_a_key_file(call, run, folder, monkeypatch):
    monkeypatch.delenv(keys.PASSPHRASE_VARIABLE)
    made = call(TINY, "--mode=keygen", "--output=my.key")
    key = (folder / "my.key").read_bytes()
    assert made.code == 0 and "my.key" in made.out and made.err == "" and len(key) == keys.KEY_BYTES
    hidden = run(*arguments("hide", output="new.mkv"), "--key_file=my.key")
    shown = run(*arguments("reveal", stego="new.mkv"), "--key_file=my.key")
    assert (hidden.code, shown.code) == (0, 0), hidden.err + shown.err
    assert psnr(decode(folder / "out.mkv"), decode(folder / "secret.mkv")) > 41.5
    for result in (made, hidden, shown):
        told = result.out + result.err
        assert key.hex() not in told.lower() and repr(key) not in told
    assert not any(key in (folder / name).read_bytes() for name in ("new.mkv", "out.mkv"))


# --- round trip, evaluation -----------------------------------------------------------------------


def similarity(a, b):
    options = {"channel_axis": -1, "data_range": 255, "gaussian_weights": True, "sigma": 1.5}
    both = zip(a, b, strict=True)
    return np.mean([structural_similarity(*x, **options, use_sample_covariance=False) for x in both])


@pytest.mark.slow
def test_round_trip(run, tmp_path, monkeypatch):
    cover = save(tmp_path / "a.mkv", noise(9))
    secret = save(tmp_path / "b.mkv", smooth(5, 20, 30, seed=3))
    monkeypatch.delenv(keys.PASSPHRASE_VARIABLE)
    monkeypatch.setattr(keys, "random_key", lambda: bytes(range(32)))
    workdir = tmp_path / "deep" / "work"
    result = run(f"--config.video.cover={cover}", f"--config.video.secret={secret}", f"--workdir={workdir}")
    assert result.code == 0, result.err
    assert names(workdir) == ["comparison.png", "metrics.json", "report.html", "revealed.mkv", "stego.mkv"]
    page = (workdir / "report.html").read_text(encoding="utf-8")
    written = (workdir / "metrics.json").read_text() + page
    assert bytes(range(32)).hex() not in result.out + result.err + written

    report = json.loads((workdir / "metrics.json").read_text())
    stego, revealed = workdir / "stego.mkv", workdir / "revealed.mkv"
    pairs = {"stego": (decode(cover)[:5], decode(stego)[:5]), "secret": (decode(secret), decode(revealed))}
    for name, (a, b) in pairs.items():
        assert report[f"{name}_psnr_db"] == pytest.approx(psnr(a, b), abs=1e-9)
        assert report[f"{name}_ssim"] == pytest.approx(similarity(a, b), abs=1e-9)
    each = [psnr(a[None], b[None]) for a, b in zip(*pairs["stego"], strict=True)]
    assert report["per_frame"]["stego_psnr_db"] == pytest.approx(each)
    assert report["stego_psnr_db"] > 45 and report["secret_psnr_db"] > 40 and report["frames"] == 5
    assert report["capacity_bpp"] == pytest.approx(24 * 20 * 30 / (32 * 48))
    assert report["hide_fps"] > 0 and report["reveal_fps"] > 0
    for name, path in {"cover": cover, "secret": secret, "stego": stego}.items():
        assert report[f"{name}_bytes"] == path.stat().st_size
    assert report["parameters"]["hide"] > 0 and report["gmac_per_frame"]["reveal"] > 0
    assert f"{report['stego_psnr_db']:.2f} dB" in page and f"--workdir={workdir}" in page
    assert f"{report['stego_psnr_db']:.2f} dB" in result.out
    assert f"{report['secret_ssim']:.4f} SSIM" in result.out
    assert Image.open(workdir / "comparison.png").size[0] == 5 * 4 * 110


@pytest.mark.slow
def test_round_trip_of_folders_of_images(run, tmp_path):
    for name, frames in (("a", noise(4)), ("b", smooth(4))):
        (tmp_path / name).mkdir()
        for i, frame in enumerate(frames):
            save(tmp_path / name / f"{i}.png", frame[None])
    files = [f"--config.video.cover={tmp_path}/a", f"--config.video.secret={tmp_path}/b/%d.png"]
    assert run(*files, f"--workdir={tmp_path}/w").code == 0
    report = json.loads((tmp_path / "w" / "metrics.json").read_text())
    for name, figure in (("a", "cover_bytes"), ("b", "secret_bytes")):
        assert report[figure] == sum(path.stat().st_size for path in (tmp_path / name).iterdir())


def test_bad_round_trips(run, tmp_path):
    good, other = save(tmp_path / "stego.mkv", noise(2)), save(tmp_path / "other.mkv", noise(2))
    before, size = names(tmp_path), good.stat().st_size
    for cover, secret, workdir, part in (
        (good, other, tmp_path, "also an input"),
        (other, good, tmp_path, "also an input"),
        (tmp_path / "none.mkv", good, tmp_path / "w", "none.mkv does not exist"),
        ("sample:none.mp4", good, tmp_path / "w", "sample:none.mp4"),
        (good, good, good, "cannot make the folder"),
    ):
        files = [f"--config.video.cover={cover}", f"--config.video.secret={secret}"]
        result = run(*files, f"--workdir={workdir}")
        assert result.code == 1 and part in result.line and "Traceback" not in result.err
    assert names(tmp_path) == before and good.stat().st_size == size


def test_evaluate(run, tmp_path):
    """The figures of the three files and of the page are the same, and nothing else is left."""
    (tmp_path / "clips").mkdir()
    for i, name in enumerate(("a", "b $x_")):  # the second might be taken for mathematics
        save(tmp_path / "clips" / f"{name}.mkv", smooth(4, seed=i))
    sizes = {"path": tmp_path / "clips", "first_frame": 0, "frames": 4, "height": 32, "width": 48}
    given = [f"--config.evaluate.{name}={value}" for name, value in sizes.items()]
    result = run("--mode=evaluate", *given, f"--workdir={tmp_path}/w")
    assert result.code == 0, result.err
    assert names(tmp_path / "w") == ["evaluation.json", "evaluation.md", "evaluation.png", "report.html"]
    report = json.loads((tmp_path / "w" / "evaluation.json").read_text())
    page = (tmp_path / "w" / "report.html").read_text(encoding="utf-8")
    table = (tmp_path / "w" / "evaluation.md").read_text()
    pairs = [(pair["cover"], pair["secret"]) for pair in report["pairs"]]
    assert pairs == [("a.mkv", "b $x_.mkv"), ("b $x_.mkv", "a.mkv")]
    for figures in (report["mean"], *report["pairs"]):
        for name in ("stego_psnr_db", "secret_psnr_db", "wrong_key_psnr_db"):
            text = f"{figures[name]:.2f}"
            assert text in page and text in table and text in result.out
    assert report["mean"]["stego_bytes"] > 0
    assert sum(report["gmac_per_frame"].values()) > 0 and sum(report["parameters"].values()) > 0


# --- bad inputs -----------------------------------------------------------------------------------


def check_failure(result, folder, before, *parts):
    """One line that says what is wrong, exit code 1, and the folder as it was."""
    assert result.code == 1 and result.out == ""
    assert result.line.startswith("main.py: ") and result.err.count("main.py: ") == 1
    assert "Traceback" not in result.err and PASSPHRASE not in result.err
    for part in parts:
        assert part in result.line
    bars = result.err.rpartition("main.py: ")[0]
    assert all(re.fullmatch("((hide|reveal): .*)?", bar) for bar in re.split("[\r\n]+", bars))
    assert names(folder) == before


@pytest.mark.parametrize("mode", ["hide", "reveal"])
def test_bad_files(run, folder, mode):
    """One of each kind; tests/media and tests/test_pipeline.py have the others."""
    (folder / "text.mkv").write_text("no video\n" * 100)
    (folder / "short.key").write_bytes(bytes(31))
    (folder / "closed").mkdir(mode=0o555)
    os.mkfifo("pipe.mkv")  # nobody writes into it: opening it would wait for ever
    save(folder / "cut.mkv", noise(8)), cut(folder / "cut.mkv", 0.02)
    before = names(folder)
    inputs = ["cover", "secret"] if mode == "hide" else ["stego"]
    for flag in inputs:
        for name, part in (
            ("none.mkv", "does not exist"),
            ("text.mkv", "text.mkv"),
            ("pipe.mkv", "is a pipe or device"),
            ("cut.mkv", "cut short"),
        ):
            check_failure(run(*arguments(mode, **{flag: name})), folder, before, part)
        check_failure(run(*arguments(mode, output=f"{flag}.mkv")), folder, before, "also an input")
    if mode == "hide":  # reveal finds the cipher, and may write what loses
        check_failure(run(*arguments(mode), "--config.shuffle.moves=pixels"), folder, before, "pixels")
        check_failure(run(*arguments(mode, output="out.MP4")), folder, before, "coded with loss")
    check_failure(run(*arguments(mode, output="nowhere/out.mkv")), folder, before, "does not exist")
    if os.geteuid():  # root may write everywhere
        check_failure(run(*arguments(mode, output="closed/out.mkv")), folder, before, "no permission")
    for flag, part in (
        ("--key_file=short.key", "is not a key file"),
        ("--passphrase_file=none.txt", "none.txt"),
        ("--config.checkpoint=nothing", "'nothing'"),
        ("--config.model.name=resnet", "resnet"),
        ("--config.model.depth=2", "does not fit"),
    ):
        check_failure(run(*arguments(mode), flag), folder, before, part)


def test_a_checkpoint_of_another_model(run, folder, tmp_path_factory):
    foreign = save_checkpoint(tmp_path_factory.mktemp("foreign"), model_name="prep_hide_reveal")
    result = run(*arguments("reveal"), f"--config.checkpoint={foreign}")
    check_failure(result, folder, names(folder), "prep_hide_reveal", "block_dct")


def test_no_passphrase(run, folder, monkeypatch):
    before = names(folder)
    monkeypatch.setenv(keys.PASSPHRASE_VARIABLE, "")
    check_failure(run(*arguments("hide")), folder, before, "the passphrase is empty")
    monkeypatch.delenv(keys.PASSPHRASE_VARIABLE)
    monkeypatch.setattr(sys, "stdin", None)
    check_failure(run(*arguments("hide")), folder, before, "no passphrase")


def test_keygen_never_overwrites(call, folder):
    before, cover = names(folder), (folder / "cover.mkv").read_bytes()
    check_failure(call(TINY, "--mode=keygen", "--output=cover.mkv"), folder, before, "exists")
    assert (folder / "cover.mkv").read_bytes() == cover


def test_truncated_stego_is_revealed_as_far_as_it_goes(run, folder):
    cut(folder / "stego.mkv", 0.5)
    result = run(*arguments("reveal"))
    assert result.code == 3 and result.out == "" and "Traceback" not in result.err
    assert result.line.startswith("main.py: stego.mkv is cut short: out.mkv has the first 4 of 5 frames;")
    assert psnr(decode(folder / "out.mkv"), decode(folder / "secret.mkv")[:4]) > 41.5


def test_cover_that_is_too_short(run, folder):
    save(folder / "cover.mkv", noise(3))
    (folder / "older.mkv").write_text("older")
    parts = ("it has 3 frames and the secret 5", "at least 5 frames (0.20 s)", "--loop_cover")
    check_failure(run(*arguments("hide", output="older.mkv")), folder, names(folder), *parts)
    assert (folder / "older.mkv").read_text() == "older"
    assert run(*arguments("hide", output="loop.mkv"), "--loop_cover").code == 0
    assert run(*arguments("reveal", stego="loop.mkv")).code == 0
    assert psnr(decode(folder / "loop.mkv"), noise(3)[[0, 1, 2, 0, 1]]) > 45
    assert psnr(decode(folder / "out.mkv"), decode(folder / "secret.mkv")) > 41.5


def test_cover_of_another_rate_that_is_too_short(run, folder):
    save(folder / "secret.mkv", smooth(5, seed=1), 10)
    before = names(folder)
    lasts = ("it lasts 0.36 s and the secret 0.50 s", "at least 0.50 s")
    check_failure(run(*arguments("hide")), folder, before, *lasts)
    check_failure(run(*arguments("hide"), "--config.video.align=both"), folder, before, "time or frames")
    assert run(*arguments("hide"), "--config.video.align=frames").code == 0


def test_whatever_is_wrong_reveal_says_the_same(run, folder, tmp_path_factory):
    other = save_checkpoint(tmp_path_factory.mktemp("other"), seed=1)
    lossy = media.Lossy(crf=1)
    with media.Writer("recoded.mp4", 25, lossy=lossy) as writer:
        for frame in decode(folder / "stego.mkv"):
            writer.write(frame)
    (folder / "wrong.key").write_bytes(bytes(keys.KEY_BYTES))
    (folder / "wrong.txt").write_text("wrong")
    before = names(folder)
    for given in (
        [*arguments("reveal"), "--passphrase_file=wrong.txt"],
        [*arguments("reveal"), "--key_file=wrong.key"],
        [*arguments("reveal"), f"--config.checkpoint={other}"],
        arguments("reveal", stego="cover.mkv"),
        arguments("reveal", stego="recoded.mp4"),
    ):
        result = run(*given)
        check_failure(result, folder, before)
        assert result.line == f"main.py: {NOTHING}"


# --- signals --------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_signal_while_hiding(tmp_path, tmp_path_factory, checkpoint):
    """As a user sees it: the exit code of the process, and the folder as it was."""
    clip, output = save(tmp_path / "long.mkv", np.repeat(noise(1), 2000, axis=0)), tmp_path / "stego.mkv"
    output.write_text("older")
    before = names(tmp_path)
    stem = tmp_path_factory.mktemp("printed") / "hide"
    flags = TINY, f"--config.checkpoint={checkpoint}", "--mode=hide", f"--cover={clip}", f"--secret={clip}"
    environment = {keys.PASSPHRASE_VARIABLE: PASSPHRASE}
    child = Main(stem, *flags, f"--output={output}", environment=environment)
    while child.code is None and names(tmp_path) == before:
        time.sleep(0.02)
    child.send(signal.SIGTERM)
    assert child.finish().code == 128 + signal.SIGTERM
    err = child.errors
    assert "Traceback" not in err and "Error" not in err and "100%" not in err and child.printed == ""
    assert names(tmp_path) == before and output.read_text() == "older"
