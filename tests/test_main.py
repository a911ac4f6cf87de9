import json
import os
import re
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
from jax.experimental.compilation_cache import compilation_cache
from ml_collections import config_flags
from PIL import Image
from skimage.metrics import structural_similarity

from deepsteg_jax import commands, keys, media, models
from deepsteg_jax.schemes import metadata
from deepsteg_jax.training import checkpoints
from deepsteg_jax.training.state import create_optimizer, create_state
from tests.helpers import read_stack
from tests.synthetic import noise, save, smooth, tone

ROOT = Path(__file__).parent.parent
TINY = f"--config={ROOT}/configs/video.py:tiny"
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


def rate_of(path):
    with av.open(str(path)) as container:
        return container.streams.video[0].average_rate


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


@pytest.fixture(scope="module")
def cache(tmp_path_factory, compiled_once):
    """Where main.py keeps what it compiled; shared by this process and those it starts."""
    folder, before = tmp_path_factory.mktemp("cache"), jax.config.jax_compilation_cache_dir
    jax.config.update("jax_compilation_cache_dir", str(folder / "deepsteg_jax"))
    compilation_cache.reset_cache()  # takes up the new folder
    yield folder
    jax.config.update("jax_compilation_cache_dir", before)
    compilation_cache.reset_cache()


def save_checkpoint(folder, model_name="block_dct", seed=0):
    """An untrained block_dct, saved as training would, whatever its config calls it."""
    config = config_flags.config_flags.ConfigFileFlagParser("test").parse(f"{ROOT}/configs/video.py:tiny")
    model = models.build(config.model)
    state = create_state(model, create_optimizer(config.optimizer), jax.random.key(seed))
    config.model.name = model_name
    with checkpoints.open_manager(folder / "checkpoints") as manager:
        checkpoints.save(manager, state, config)
    return folder


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory, cache):
    return save_checkpoint(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def other_checkpoint(tmp_path_factory, cache):
    return save_checkpoint(tmp_path_factory.mktemp("other_run"), seed=1)


@pytest.fixture(scope="module")
def foreign_checkpoint(tmp_path_factory, cache):
    return save_checkpoint(tmp_path_factory.mktemp("foreign_run"), model_name="prep_hide_reveal")


@pytest.fixture
def run(monkeypatch, capfd, cache, checkpoint):
    """main.py in this process, run(*arguments) -> Result, with the untrained checkpoint and PASSPHRASE."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    monkeypatch.setenv(keys.PASSPHRASE_VARIABLE, PASSPHRASE)
    monkeypatch.setattr(sys, "argv", ["main.py"])
    handler = signal.getsignal(signal.SIGTERM)
    import main

    def forget():
        for name in list(flags.FLAGS):
            if name.partition(".")[0] in ("config", *commands.SETTINGS) and "." in name:
                delattr(flags.FLAGS, name)
        for name in ("config", "mode", *commands.Options._fields):
            flags.FLAGS[name].unparse()

    def run_main(*arguments, config=(TINY, f"--config.checkpoint={checkpoint}")):
        forget()
        argv = ["main.py", *config, *arguments]
        monkeypatch.setattr(sys, "argv", argv)  # config_flags looks there too
        capfd.readouterr()
        code = main.main(argv)
        return Result(code, *capfd.readouterr())

    yield run_main
    forget()
    signal.signal(signal.SIGTERM, handler)


def environment(cache=None):
    """For a process: the CPU, no passphrase and a cache of its own."""
    ours = (keys.PASSPHRASE_VARIABLE, "JAX_COMPILATION_CACHE_DIR")
    env = {name: value for name, value in os.environ.items() if name not in ours}
    return {**env, "JAX_PLATFORMS": "cpu", "XDG_CACHE_HOME": str(cache or "/nonexistent")}


def process(*arguments, env=None, cwd=ROOT):
    """main.py in a process of its own, without a terminal."""
    command = [sys.executable, str(ROOT / "main.py"), *map(str, arguments)]
    env = environment() if env is None else env
    done = subprocess.run(
        command, cwd=cwd, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300
    )
    return Result(done.returncode, done.stdout, done.stderr)


# --- the command line -----------------------------------------------------------------------------


def test_help():
    result = process("--help")
    assert result.code == 0 and result.err == ""
    for flag in ("config", "mode", *commands.Options._fields):
        assert f"--{flag}" in result.out or f"--[no]{flag}" in result.out
    assert "hides a video in a video" in result.out
    assert process("--helpfull").code == 0


@pytest.mark.parametrize("arguments", [["--help"], ["--config=configs/video.py", "--mode=hide"]])
def test_the_command_line_is_read_before_anything_large_is_imported(arguments):
    code = (
        "import runpy, sys\n"
        f"sys.argv = ['main.py', *{arguments}]\n"
        "try:\n    runpy.run_path('main.py', run_name='__main__')\n"
        "except SystemExit as stop:\n    code = stop.code\n"
        "print('LOADED', code, *sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=120
    )
    loaded = done.stdout.splitlines()[-1].split()
    assert loaded[0] == "LOADED" and loaded[1] == ("0" if arguments == ["--help"] else "2")
    assert not {"jax", "flax", "orbax", "tensorflow", "av", "PIL", "matplotlib", "skimage"} & set(loaded)


HIDE = ["--cover=a", "--secret=b", "--output=c"]
USAGE_ERRORS = {
    "no flags": ([], "--config is missing"),
    "no config": (["--mode=hide", *HIDE], "--config is missing"),
    "unknown flag": (["--config=configs/video.py", "--bogus=1"], "bogus"),
    "typo in a flag": (["--config=configs/video.py", "--mode=hide", "--cove=a"], "cove"),
    "typo in a config field": (["--config=configs/video.py", "--config.modle.name=x"], "modle"),
    "unknown config field": (["--config=configs/video.py", "--config.model.zzz=1"], "zzz"),
    "wrong type": (["--config=configs/video.py", "--config.model.modulus=many"], "config.model.modulus"),
    "section as a value": (["--config=configs/video.py", "--config.model=3"], "config.model"),
    "unknown mode": (["--config=configs/video.py", "--mode=reveil"], "roundtrip"),
    "mode without a value": (["--config=configs/video.py", "--mode"], "--mode"),
    "hide without files": (
        ["--config=configs/video.py", "--mode=hide"],
        "needs --cover and --secret and --output",
    ),
    "hide without a cover": (["--config=configs/video.py", "--mode=hide", *HIDE[1:]], "needs --cover;"),
    "hide without a secret": (["--config=configs/video.py", "--mode=hide", *HIDE[::2]], "needs --secret;"),
    "hide without an output": (["--config=configs/video.py", "--mode=hide", *HIDE[:2]], "needs --output;"),
    "empty name": (["--config=configs/video.py", "--mode=hide", *HIDE, "--secret="], "needs --secret;"),
    "reveal without files": (["--config=configs/video.py", "--mode=reveal"], "needs --stego and --output"),
    "keygen without an output": (["--config=configs/video.py", "--mode=keygen"], "keygen needs --output;"),
    "stray argument": (["--config=configs/video.py", "stray"], "stray"),
    "no such config file": (["--config=configs/nothing.py"], "configs/nothing.py"),
    "no such config file, overridden": (["--config=nothing.py", "--config.seed=1"], "nothing.py"),
    "empty config": (["--config="], "cannot be read"),
    "config is a folder": (["--config=configs"], "'configs'"),
    "config is no program": (["--config=pyproject.toml"], "pyproject.toml"),
    "config without get_config": (["--config=deepsteg_jax/errors.py"], "get_config"),
    "no processes": (["--config=configs/video.py", "--mode=train", "--num_processes=0"], "--num_processes"),
    "a process before the first": (["--config=configs/video.py", "--process_id=-1"], "--process_id"),
    "unknown variant": (["--config=configs/video.py:nonsense"], "nonsense"),
}


@pytest.mark.parametrize("arguments, part", USAGE_ERRORS.values(), ids=USAGE_ERRORS)
def test_usage_errors(tmp_path, arguments, part):
    result = process(*arguments)
    assert result.code == 2
    assert result.out == ""
    assert result.err.count("\n") == 1 and result.err.startswith("main.py: ")
    assert part in result.err and "Traceback" not in result.err


def test_config_variant_and_overrides_reach_the_mode(run, monkeypatch):
    from deepsteg_jax.commands import train

    seen = []
    monkeypatch.setattr(train, "run", lambda *passed: seen.append(passed))
    assert run("--mode=train", "--config.seed=7", "--workdir=somewhere").code == 0
    config, options = seen[0]
    assert (config.seed, config.model.classes, options.workdir) == (7, 8, "somewhere")
    assert (options.coordinator, options.num_processes, options.process_id) == (None, None, None)
    assert run("--mode=train").code == 0
    assert (seen[1][0].seed, seen[1][1].workdir) == (0, "runs/video")
    assert run("--mode=train", "--coordinator=here:1", "--num_processes=2", "--process_id=0").code == 0
    options = seen[2][1]
    assert (options.coordinator, options.num_processes, options.process_id) == ("here:1", 2, 0)


# --- hide and reveal ------------------------------------------------------------------------------


def sound_of(path):
    with av.open(str(path)) as container:
        return b"".join(bytes(packet) for packet in container.demux(audio=0))


def test_hide_and_reveal_a_video(run, monkeypatch, tmp_path):
    cover = tone(tmp_path / "cover.mkv", "pcm_s16le", frames=10, seconds=0.4)
    secret = save(tmp_path / "secret.mkv", smooth(5, seed=1))
    stego, revealed = tmp_path / "stego.mkv", tmp_path / "revealed.mkv"
    hidden = run("--mode=hide", f"--cover={cover}", f"--secret={secret}", f"--output={stego}")
    assert hidden.code == 0, hidden.err
    assert str(stego) in hidden.out and "5 frames" in hidden.out and "48x32" in hidden.out

    (tmp_path / "passphrase.txt").write_text(f"{PASSPHRASE}\nanother line\n")
    monkeypatch.delenv(keys.PASSPHRASE_VARIABLE)
    shown = run(
        "--mode=reveal",
        f"--stego={stego}",
        f"--output={revealed}",
        f"--passphrase_file={tmp_path}/passphrase.txt",
    )
    assert shown.code == 0, shown.err
    assert str(revealed) in shown.out and "5 frames" in shown.out and "48x32" in shown.out

    frames, before = decode(stego), decode(cover)
    assert frames.shape == before.shape
    assert psnr(frames, before) > 45 and (frames[5:] != before[5:]).any()
    assert sound_of(stego) == sound_of(cover) != b""
    np.testing.assert_array_equal(np.stack(list(media.read_frames(stego))), frames)
    assert decode(revealed).shape == (5, 32, 48, 3) and rate_of(revealed) == 25
    assert psnr(decode(revealed), decode(secret)) > 41.5
    for result in (hidden, shown):
        assert PASSPHRASE not in result.out + result.err and "Traceback" not in result.err
    for path in (stego, revealed):
        assert PASSPHRASE.encode() not in path.read_bytes()
        with av.open(str(path)) as container:
            told = str([container.metadata, *(stream.metadata for stream in container.streams)])
        for word in (PASSPHRASE, "cover", "secret", "deepsteg"):
            assert word not in told
    assert names(tmp_path) == ["cover.mkv", "passphrase.txt", "revealed.mkv", "secret.mkv", "stego.mkv"]


def test_hide_and_reveal_an_image(run, tmp_path):
    save(tmp_path / "cover.png", noise(1))
    save(tmp_path / "secret.png", smooth(1, 30, 41, seed=8))
    hidden = run(
        "--mode=hide",
        f"--cover={tmp_path}/cover.png",
        f"--secret={tmp_path}/secret.png",
        f"--output={tmp_path}/stego.png",
    )
    assert hidden.code == 0, hidden.err
    shown = run("--mode=reveal", f"--stego={tmp_path}/stego.png", f"--output={tmp_path}/revealed.png")
    assert shown.code == 0, shown.err
    assert psnr(decode(tmp_path / "stego.png"), decode(tmp_path / "cover.png")) > 44
    assert psnr(decode(tmp_path / "revealed.png"), decode(tmp_path / "secret.png")) > 39
    with Image.open(tmp_path / "stego.png") as image:
        assert (image.format, image.mode, image.info) == ("PNG", "RGB", {})


@pytest.mark.parametrize(
    "output, pattern", [("images/", "frame_%05d.png"), ("images/a_%02d.bmp", "a_%02d.bmp")]
)
def test_folders_of_images(run, folder, output, pattern):
    hidden = run(*arguments("hide", output=output))
    assert hidden.code == 0, hidden.err
    assert names(folder / "images") == [pattern % number for number in range(8)]
    shown = run(*arguments("reveal", stego="images", output="revealed/"))
    assert shown.code == 0, shown.err
    assert names(folder / "revealed") == [f"frame_{number:05d}.png" for number in range(5)]
    assert psnr(read_stack(folder / "revealed"), decode(folder / "secret.mkv")) > 41.5
    again = run(*arguments("reveal", stego="images", output="revealed/"))
    assert again.code == 1 and "has files in it" in again.line


def test_nut(run, folder):
    assert run(*arguments("hide", output="new.nut")).code == 0
    assert run(*arguments("reveal", stego="new.nut", output="out.nut")).code == 0
    assert psnr(decode(folder / "out.nut"), decode(folder / "secret.mkv")) > 41.5


def test_round_trip(run, tmp_path, monkeypatch):
    cover = save(tmp_path / "a.mkv", noise(7))
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
    pairs = {
        "stego": (decode(cover)[:5], decode(workdir / "stego.mkv")[:5]),
        "secret": (decode(secret), decode(workdir / "revealed.mkv")),
    }
    for name, (a, b) in pairs.items():
        assert a.shape == b.shape
        similarity = [
            structural_similarity(
                x,
                y,
                channel_axis=-1,
                data_range=255,
                gaussian_weights=True,
                sigma=1.5,
                use_sample_covariance=False,
            )
            for x, y in zip(a, b, strict=True)
        ]
        assert report[f"{name}_psnr_db"] == pytest.approx(psnr(a, b), abs=1e-9)
        assert report[f"{name}_ssim"] == pytest.approx(np.mean(similarity), abs=1e-9)
    assert report["stego_psnr_db"] > 45 and report["secret_psnr_db"] > 40
    assert report["capacity_bpp"] == pytest.approx(24 * 20 * 30 / (32 * 48))
    assert report["frames"] == 5
    assert report["hide_fps"] > 0 and report["reveal_fps"] > 0
    for name, path in {"cover": cover, "secret": secret, "stego": workdir / "stego.mkv"}.items():
        assert report[f"{name}_bytes"] == path.stat().st_size

    assert report["per_frame"]["stego_psnr_db"] == pytest.approx(
        [psnr(a[None], b[None]) for a, b in zip(*pairs["stego"], strict=True)]
    )
    assert report["parameters"]["hide"] > 0 and report["gmac_per_frame"]["reveal"] > 0
    assert f"{report['stego_psnr_db']:.2f} dB" in page and f"--workdir={workdir}" in page

    table = result.out
    assert f"{report['stego_psnr_db']:.2f} dB" in table and f"{report['secret_ssim']:.4f} SSIM" in table
    assert Image.open(workdir / "comparison.png").size[0] == 5 * 4 * 110


def test_round_trip_of_folders_of_images(run, tmp_path):
    for name, frames in (("a", noise(3)), ("b", smooth(3))):
        (tmp_path / name).mkdir()
        for i, frame in enumerate(frames):
            save(tmp_path / name / f"{i}.png", frame[None])
    files = [f"--config.video.cover={tmp_path}/a", f"--config.video.secret={tmp_path}/b/%d.png"]
    result = run(*files, f"--workdir={tmp_path}/w")
    assert result.code == 0, result.err
    report = json.loads((tmp_path / "w" / "metrics.json").read_text())
    for name in "ab":
        size = sum(path.stat().st_size for path in (tmp_path / name).iterdir())
        assert report["cover_bytes" if name == "a" else "secret_bytes"] == size


def test_evaluate(run, tmp_path):
    """The figures of the three files and of the page are the same, and nothing else is left."""
    (tmp_path / "clips").mkdir()
    for i, name in enumerate(("a", "b $x_")):  # the second might be taken for mathematics
        save(tmp_path / "clips" / f"{name}.mkv", smooth(4, seed=i))
    sizes = {"path": tmp_path / "clips", "first_frame": 0, "frames": 4, "height": 32, "width": 48}
    flags = [f"--config.evaluate.{name}={value}" for name, value in sizes.items()]
    result = run("--mode=evaluate", *flags, f"--workdir={tmp_path}/w")
    assert result.code == 0, result.err
    assert names(tmp_path / "w") == ["evaluation.json", "evaluation.md", "evaluation.png", "report.html"]
    report = json.loads((tmp_path / "w" / "evaluation.json").read_text())
    page = (tmp_path / "w" / "report.html").read_text(encoding="utf-8")
    table = (tmp_path / "w" / "evaluation.md").read_text()
    assert [(pair["cover"], pair["secret"]) for pair in report["pairs"]] == [
        ("a.mkv", "b $x_.mkv"),
        ("b $x_.mkv", "a.mkv"),
    ]
    for figures in (report["mean"], *report["pairs"]):
        for name in ("stego_psnr_db", "secret_psnr_db", "wrong_key_psnr_db"):
            text = f"{figures[name]:.2f}"
            assert text in page and text in table and text in result.out
    assert report["mean"]["stego_bytes"] > 0
    assert sum(report["gmac_per_frame"].values()) > 0 and sum(report["parameters"].values()) > 0


def test_round_trip_does_not_overwrite_its_inputs(run, tmp_path):
    for name in ("stego.mkv", "revealed.mkv"):
        video = save(tmp_path / name, noise(2))
        other = save(tmp_path / "other.mkv", noise(2))
        before = video.read_bytes()
        for first, second in ((video, other), (other, video)):
            result = run(
                f"--config.video.cover={first}", f"--config.video.secret={second}", f"--workdir={tmp_path}"
            )
            assert result.code == 1 and "also an input" in result.line
            assert video.read_bytes() == before
        video.unlink()
    assert names(tmp_path) == ["other.mkv"]


def test_round_trip_with_bad_inputs(run, tmp_path):
    good = save(tmp_path / "good.mkv", noise(2))
    for cover, secret, workdir, part in (
        (tmp_path / "none.mkv", good, tmp_path / "w", "none.mkv does not exist"),
        ("sample:none.mp4", good, tmp_path / "w", "sample:none.mp4"),
        (good, good, good, "cannot make the folder"),
    ):
        files = [f"--config.video.cover={cover}", f"--config.video.secret={secret}"]
        result = run(*files, f"--workdir={workdir}")
        assert result.code == 1 and part in result.line and "Traceback" not in result.err
    assert names(tmp_path) == ["good.mkv"]


@pytest.mark.parametrize(
    "name, suffix, frames, least", [("video", ".mkv", 5, 41.5), ("image", ".png", 1, 38)]
)
def test_shipped_checkpoint(run, tmp_path, name, suffix, frames, least):
    assert (checkpoints.PRETRAINED / name).is_dir() and (checkpoints.PRETRAINED / f"{name}.md").is_file()
    cover, secret, stego, revealed = (tmp_path / f"{part}{suffix}" for part in "csyr")
    save(cover, noise(frames)), save(secret, smooth(frames, seed=1))
    config = [f"--config={ROOT}/configs/{name}.py"]
    hidden = run("--mode=hide", f"--cover={cover}", f"--secret={secret}", f"--output={stego}", config=config)
    assert hidden.code == 0, hidden.err
    shown = run("--mode=reveal", f"--stego={stego}", f"--output={revealed}", config=config)
    assert shown.code == 0, shown.err
    assert psnr(read_stack(revealed), read_stack(secret)) > least


# --- bad inputs -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def clips(tmp_path_factory, checkpoint, cache):
    """A cover of 8 frames, a secret of 5, and the stego that main.py made of them in its own process."""
    folder = tmp_path_factory.mktemp("clips")
    save(folder / "cover.mkv", noise(8)), save(folder / "secret.mkv", smooth(5, seed=1))
    result = process(
        TINY,
        f"--config.checkpoint={checkpoint}",
        "--mode=hide",
        "--cover=cover.mkv",
        "--secret=secret.mkv",
        "--output=stego.mkv",
        env={**environment(cache), keys.PASSPHRASE_VARIABLE: PASSPHRASE},
        cwd=folder,
    )
    assert result.code == 0, result.err
    assert names(folder) == ["cover.mkv", "secret.mkv", "stego.mkv"]
    return folder


@pytest.fixture
def folder(tmp_path, clips, monkeypatch):
    """A copy of `clips` to spoil, as the working directory."""
    for path in clips.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    monkeypatch.chdir(tmp_path)
    return tmp_path


def check_failure(result, folder, before, *parts):
    """One line that says what is wrong, exit code 1, and the folder as it was."""
    assert result.code == 1
    assert result.out == ""
    assert result.line.startswith("main.py: ") and result.err.count("main.py: ") == 1
    assert "Traceback" not in result.err and PASSPHRASE not in result.err
    for part in parts:
        assert part in result.line
    bars = result.err.rpartition("main.py: ")[0]
    assert all(re.fullmatch("((hide|reveal): .*)?", bar) for bar in re.split("[\r\n]+", bars))
    assert names(folder) == before


HIDE_FILES = {"cover": "cover.mkv", "secret": "secret.mkv", "output": "out.mkv"}
REVEAL_FILES = {"stego": "stego.mkv", "output": "out.mkv"}


def arguments(mode, **files):
    files = {**(HIDE_FILES if mode == "hide" else REVEAL_FILES), **files}
    return [f"--mode={mode}", *(f"--{name}={path}" for name, path in files.items())]


def make_bad(name):
    """A bad input under this name in the working directory."""
    path = Path(name)
    if name == "text.mkv":
        path.write_text("no video\n" * 100)
    elif name == "no_bytes.mkv":
        path.write_bytes(b"")
    elif name == "no_frames.mkv":
        with av.open(name, "w") as container:
            container.add_stream("ffv1", rate=25, width=48, height=32, pix_fmt="bgr0")
            container.start_encoding()
    elif name == "text.png":
        path.write_text("no image\n" * 100)
    elif name == "cut.png":
        Image.fromarray(noise(1)[0]).save(path)
        cut(path, 0.5)
    elif name == "no_images":
        path.mkdir()
    return name


@pytest.mark.parametrize("mode, flag", [("hide", "cover"), ("hide", "secret"), ("reveal", "stego")])
def test_files_that_cannot_be_read(run, folder, mode, flag):
    for name in ("none.mkv", "text.mkv", "no_bytes.mkv", "no_frames.mkv", "text.png", "cut.png", "no_images"):
        make_bad(name)
        before = names(folder)
        check_failure(run(*arguments(mode, **{flag: name})), folder, before, name)


@pytest.mark.parametrize("mode, flag", [("hide", "cover"), ("hide", "secret"), ("reveal", "stego")])
@pytest.mark.parametrize("share", [0.4, 0.3, 0.02])
def test_truncated_files(run, folder, mode, flag, share):
    cut(folder / f"{flag}.mkv", share)
    before = names(folder)
    check_failure(run(*arguments(mode)), folder, before, f"{flag}.mkv", "cut short")


def test_truncated_stego_is_revealed_as_far_as_it_goes(run, folder):
    cut(folder / "stego.mkv", 0.6)
    before = names(folder)
    result = run(*arguments("reveal"))
    assert result.code == 3 and result.out == "" and "Traceback" not in result.err
    assert result.line.startswith("main.py: stego.mkv is cut short: out.mkv has the first 4 of 5 frames;")
    assert names(folder) == sorted([*before, "out.mkv"])
    assert psnr(decode(folder / "out.mkv"), decode(folder / "secret.mkv")[:4]) > 41.5


@pytest.mark.parametrize("mode, flag", [("hide", "cover"), ("hide", "secret"), ("reveal", "stego")])
def test_pipe_as_an_input(run, folder, mode, flag):
    os.mkfifo("pipe.mkv")  # nobody writes into it: opening it would wait for ever
    before = names(folder)
    check_failure(run(*arguments(mode, **{flag: "pipe.mkv"})), folder, before, "is a pipe or device")


def test_cover_that_is_too_short(run, folder):
    save(folder / "cover.mkv", noise(3))
    before = names(folder)
    parts = ("it has 3 frames and the secret 5", "at least 5 frames (0.20 s)", "--loop_cover")
    check_failure(run(*arguments("hide")), folder, before, *parts)
    assert run(*arguments("hide", output="loop.mkv"), "--loop_cover").code == 0
    assert run(*arguments("reveal", stego="loop.mkv")).code == 0
    assert len(decode(folder / "loop.mkv")) == 5
    assert psnr(decode(folder / "loop.mkv"), noise(3)[[0, 1, 2, 0, 1]]) > 45
    assert psnr(decode(folder / "out.mkv"), decode(folder / "secret.mkv")) > 41.5


def test_cover_of_another_rate_that_is_too_short(run, folder):
    save(folder / "secret.mkv", smooth(5, seed=1), 12)
    before = names(folder)
    lasts = ("it lasts 0.32 s and the secret 0.42 s", "at least 0.42 s")
    check_failure(run(*arguments("hide")), folder, before, *lasts)
    assert run(*arguments("hide"), "--config.video.align=frames").code == 0
    (folder / "out.mkv").unlink()
    check_failure(run(*arguments("hide"), "--config.video.align=both"), folder, before, "time or frames")


# --- key files ------------------------------------------------------------------------------------


def test_key_file(run, folder, monkeypatch):
    monkeypatch.delenv(keys.PASSPHRASE_VARIABLE)
    made = run("--mode=keygen", "--output=my.key")
    key = (folder / "my.key").read_bytes()
    assert made.code == 0 and "my.key" in made.out and made.err == ""
    assert len(key) == keys.KEY_BYTES and (folder / "my.key").stat().st_mode & 0o777 == 0o600
    hidden = run(*arguments("hide", output="new.mkv"), "--key_file=my.key")
    assert hidden.code == 0, hidden.err
    shown = run(*arguments("reveal", stego="new.mkv"), "--key_file=my.key")
    assert shown.code == 0, shown.err
    assert psnr(decode(folder / "out.mkv"), decode(folder / "secret.mkv")) > 41.5
    for result in (made, hidden, shown):
        told = result.out + result.err
        assert key.hex() not in told.lower() and repr(key) not in told
    for name in ("new.mkv", "out.mkv"):
        assert key not in (folder / name).read_bytes()


def test_keygen_never_overwrites(run, folder):
    assert run("--mode=keygen", "--output=my.key").code == 0
    before, key = names(folder), (folder / "my.key").read_bytes()
    for output, part in (
        ("my.key", "exists"),
        ("cover.mkv", "exists"),
        (".", "exists"),
        ("nowhere/my.key", "cannot write the key file"),
    ):
        check_failure(run("--mode=keygen", f"--output={output}"), folder, before, part)
    assert (folder / "my.key").read_bytes() == key
    assert run("--mode=keygen", "--output=other.key").code == 0
    assert (folder / "other.key").read_bytes() != key


@pytest.mark.parametrize("mode", ["hide", "reveal"])
def test_bad_key_files(run, folder, mode):
    (folder / "short.key").write_bytes(bytes(31))
    (folder / "long.key").write_bytes(bytes(33))
    (folder / "my.key").write_bytes(bytes(32))
    (folder / "passphrase.txt").write_text(PASSPHRASE)
    before = names(folder)
    for name, part in (
        ("short.key", "is no key file"),
        ("long.key", "is no key file"),
        ("none.key", "cannot read the key file"),
        (".", "cannot read the key file"),
    ):
        check_failure(run(*arguments(mode), f"--key_file={name}"), folder, before, name, part)
    both = ("--key_file=my.key", "--passphrase_file=passphrase.txt")
    check_failure(run(*arguments(mode), *both), folder, before, "exclude each other")


@pytest.mark.parametrize("mode", ["hide", "reveal"])
def test_outputs_that_cannot_be_written(run, folder, mode):
    (folder / "folder.mkv").mkdir()
    (folder / "folder.mkv" / "file").touch()
    (folder / "older.mkv").write_text("older")
    before = names(folder)
    inputs = ["cover.mkv", "secret.mkv"] if mode == "hide" else ["stego.mkv"]
    for output, part in [
        ("folder.mkv", "has files in it"),
        ("folder.mkv/", "has files in it"),
        ("nowhere/out.mkv", "does not exist"),
        *((name, "also an input") for name in inputs),
        (f"{folder}/nowhere/../{inputs[0]}", "does not exist"),
        (f"{folder}/folder.mkv/../{inputs[0]}", "also an input"),
        ("out.MP4", "coded with loss"),
        ("out.png", "still images"),
        ("out.xyz", "known video format"),
        ("out", "without a suffix"),
    ]:
        check_failure(run(*arguments(mode, output=output)), folder, before, part)
    # A failure later on leaves an older file of that name alone.
    if mode == "hide":
        save(folder / "cover.mkv", noise(3))
    else:
        save(folder / "stego.mkv", noise(8))
    result = run(*arguments(mode, output="older.mkv"))
    check_failure(result, folder, before, "nothing is hidden" if mode == "reveal" else "3 frames")
    assert (folder / "older.mkv").read_text() == "older"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_output_without_permission(run, folder):
    (folder / "closed").mkdir(mode=0o555)
    for mode in ("hide", "reveal"):
        check_failure(run(*arguments(mode, output="closed/out.mkv")), folder, names(folder), "no permission")


def test_image_and_video_do_not_mix(run, folder):
    save(folder / "cover.png", noise(1))
    before = names(folder)
    check_failure(run(*arguments("hide", cover="cover.png")), folder, before, "the result is an image")
    video_in_image = arguments("hide", cover="cover.png", output="out.png")
    check_failure(
        run(*video_in_image), folder, before, "is an image and the secret secret.mkv has more frames"
    )


@pytest.mark.parametrize("mode", ["hide", "reveal"])
def test_models_and_checkpoints(run, folder, mode, foreign_checkpoint, monkeypatch, tmp_path_factory):
    shipped = tmp_path_factory.mktemp("shipped")
    (shipped / "video").mkdir()
    monkeypatch.setattr(checkpoints, "PRETRAINED", shipped)
    before = names(folder)
    for flag, *parts in [
        ("--config.model.name=resnet", "resnet", "block_dct"),
        ("--config.checkpoint=nothing", "'nothing'", "one of video"),
        ("--config.checkpoint=", "no checkpoint ''"),
        (f"--config.checkpoint={folder}", "no checkpoint"),
        (f"--config.checkpoint={foreign_checkpoint}", "prep_hide_reveal", "block_dct"),
        ("--config.model.classes=9", "does not fit"),
        ("--config.model.depth=2", "does not fit"),
        ("--config.shuffle.moves=pixels", "pixels"),
    ]:
        check_failure(run(*arguments(mode), flag), folder, before, *parts)


@pytest.mark.parametrize("mode", ["hide", "reveal"])
def test_no_passphrase(run, folder, mode, monkeypatch):
    (folder / "empty.txt").write_text("\nsecond line\n")
    (folder / "binary.txt").write_bytes(b"\xff\xfe\xfd")
    before = names(folder)
    for flag, part in [
        ("--passphrase_file=none.txt", "none.txt"),
        ("--passphrase_file=.", "cannot read the passphrase file"),
        ("--passphrase_file=binary.txt", "binary.txt"),
        ("--passphrase_file=empty.txt", "the passphrase is empty"),
    ]:
        check_failure(run(*arguments(mode), flag), folder, before, part)
    monkeypatch.setenv(keys.PASSPHRASE_VARIABLE, "")
    check_failure(run(*arguments(mode)), folder, before, "the passphrase is empty")
    monkeypatch.delenv(keys.PASSPHRASE_VARIABLE)
    check_failure(process(TINY, *arguments(mode), cwd=folder), folder, before, "no passphrase")


def recode(source, target):
    with av.open(target, "w") as container:
        stream = container.add_stream("mpeg4", rate=25, width=48, height=32, pix_fmt="yuv420p")
        for frame in decode(Path(source)):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))


def test_whatever_is_wrong_reveal_says_the_same(run, folder, other_checkpoint, monkeypatch):
    recode("stego.mkv", "recoded.mkv")
    (folder / "wrong.key").write_bytes(bytes(keys.KEY_BYTES))
    (folder / "wrong.txt").write_text("wrong")
    before = names(folder)
    for arguments_ in (
        [*arguments("reveal"), "--passphrase_file=wrong.txt"],
        [*arguments("reveal"), "--key_file=wrong.key"],
        [*arguments("reveal"), f"--config.checkpoint={other_checkpoint}"],
        [*arguments("reveal"), "--config.model.modulus=4"],
        arguments("reveal", stego="cover.mkv"),
        arguments("reveal", stego="secret.mkv"),
        arguments("reveal", stego="recoded.mkv"),
    ):
        result = run(*arguments_)
        check_failure(result, folder, before)
        assert result.line == f"main.py: {metadata.NOTHING}"


def test_lossless_copy_of_a_stego(run, folder):
    save(folder / "stego.mkv", decode(folder / "stego.mkv"))
    assert run(*arguments("reveal")).code == 0
    assert psnr(decode(folder / "out.mkv"), decode(folder / "secret.mkv")) > 41.5


def test_failure_in_a_process_of_its_own(folder, checkpoint, cache):
    """As a user sees it: the exit code of the process, and its last line after the progress bar."""
    save(folder / "cover.mkv", noise(4))
    before = names(folder)
    env = {**environment(cache), keys.PASSPHRASE_VARIABLE: PASSPHRASE}
    result = process(TINY, f"--config.checkpoint={checkpoint}", *arguments("hide"), env=env, cwd=folder)
    check_failure(
        result,
        folder,
        before,
        "it has 4 frames and the secret 5",
        "at least 5 frames (0.20 s)",
        "--loop_cover",
    )


# --- signals --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def long_clip(tmp_path_factory):
    """A clip that takes a while to hide."""
    return save(tmp_path_factory.mktemp("long") / "long.mkv", np.repeat(noise(1), 3000, axis=0))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_while_hiding(tmp_path, checkpoint, cache, long_clip, number):
    output = tmp_path / "stego.mkv"
    output.write_text("older")
    argv = ["main.py", TINY, f"--config.checkpoint={checkpoint}", "--mode=hide"]
    argv += [f"--cover={long_clip}", f"--secret={long_clip}", f"--output={output}"]
    code = (  # what runs the tests may ignore SIGINT, and so would its children
        "import runpy, signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
        f"sys.argv = {argv}; runpy.run_path('main.py', run_name='__main__')"
    )
    running = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**environment(cache), keys.PASSPHRASE_VARIABLE: PASSPHRASE},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        while running.poll() is None and len(names(tmp_path)) == 1:
            time.sleep(0.02)
        assert running.poll() is None, running.communicate()[1]
        running.send_signal(number)
        out, err = running.communicate(timeout=120)
    finally:
        running.kill()
    assert running.returncode == 128 + number
    assert "Traceback" not in err and "Error" not in err
    assert out == "" and "100%" not in err
    if number == signal.SIGINT:
        assert err.splitlines()[-1] == "main.py: interrupted"
    assert names(tmp_path) == ["stego.mkv"] and output.read_text() == "older"
