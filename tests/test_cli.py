"""The console script: its command line, exit codes and messages; what hides and reveals is a stand-in."""

import ast
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

import deepsteg_jax
from deepsteg_jax import api, cli, cluster, commands, keys, media
from deepsteg_jax.errors import PartialError, UserError
from tests.synthetic import film, noise, save

ROOT = Path(__file__).parent.parent
HIDE = ("hide", "cover.mkv", "secret.mkv", "-o", "out.mp4")
LOW = "--config.model.height"  # of the trellis, which then compiles soon
REVEAL = ("reveal", "stego.mkv", "-o", "out.mkv")


@pytest.fixture
def run(monkeypatch, capfd):
    """run(*arguments) -> (exit code, stdout, stderr), with a passphrase in the environment."""
    monkeypatch.setenv(keys.PASSPHRASE_VARIABLE, "a passphrase")
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}

    def run_cli(*arguments):
        capfd.readouterr()
        return (cli.main(arguments), *capfd.readouterr())

    yield run_cli
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current folder, with what `HIDE` and `REVEAL` read."""
    for number, name in enumerate(("cover.mkv", "secret.mkv", "stego.mkv")):
        save(tmp_path / name, noise(2, seed=number))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def calls(monkeypatch):
    """The calls of the library, each as (positional, named); they report one frame."""
    seen = []

    def job(*positional, progress, **named):
        seen.append((tuple(value() if callable(value) else value for value in positional), named))
        progress(1)
        return SimpleNamespace(summary=lambda: "1 frame of 64x48")

    for name in ("hide_file", "reveal_file"):
        monkeypatch.setattr(api, name, job, raising=False)
    return seen


# --- the command line -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments, parts",
    [
        (["-h"], ["hide", "reveal", "keygen", "app", "info", *["\n  deepsteg "] * 2]),
        (["hide", "-h"], ["COVER", "SECRET", "STEGO", "--for", "--scheme", "--loop-cover", "--config.FIELD"]),
        (["hide", "--batch=x", "-h"], ["key_file", "--key-file", "--results", "--workers", "--scheduler"]),
        (["--version"], [f"deepsteg {deepsteg_jax.__version__}\n"]),
    ],
)
def test_help_and_version_import_nothing_large(arguments, parts):
    code = (
        "import sys; from deepsteg_jax import cli; code = cli.main(sys.argv[1:])\n"
        "sys.exit(code or bool({'jax', 'numpy', 'ml_collections', 'tqdm'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr == ""
    assert all(done.stdout.count(part) >= parts.count(part) for part in parts)


@pytest.mark.parametrize(
    "arguments, part",
    [
        ([], "COMMAND"),
        (["hied"], "hied"),
        (HIDE[:2], "SECRET"),
        (HIDE[:3], "--output"),
        ([*HIDE, "--for=ever"], "file"),
        ([*HIDE, "--passphrase=secret"], "--passphrase=secret"),
        ([*HIDE, "--passphrase-file=a", "--key-file=b"], "not allowed with"),
        ([*HIDE, "--config.model.modulus"], "has no value"),
        ([*HIDE, "--config.=3"], "has no value"),
        ([*HIDE, "--configs.model=3"], "--configs.model=3"),
        ([*REVEAL, "--config.model.modulus=3"], "unexpected argument"),
        ([*HIDE, "--batch=list.csv"], "unexpected argument"),
        (["hide", "--batch"], "--batch"),
        (["hide", "--batch=list.csv", "--passphrase-file=a"], "unexpected argument '--passphrase-file=a'"),
        (["hide", "--batch=list.csv", "--workers=0"], "less than 1"),
        (["hide", "--batch=list.csv", "--workers=2", "--scheduler=tls://host:1"], "not allowed with"),
        (["reveal", "--batch=list.csv", "--config.a=1"], "unexpected argument"),
        (["app", "--port=65536"], "0..65535"),
        (["app", "--port=http"], "invalid number"),
        (["app", "--upload-limit=0"], "less than 1"),
    ],
)
def test_mistakes_in_the_command_line(run, arguments, part):
    code, out, err = run(*arguments)
    assert code == 2 and out == "" and part in err
    assert err.startswith("deepsteg: ") and err.count("\n") == 1 and "--help" in err


def test_a_shell_completes_commands_options_and_files(run, tmp_path):
    code, script, err = run("--print-completion", "bash")
    assert (code, err) == (0, "")
    (tmp_path / "clip.mp4").touch()
    ask = 'COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); %s; printf "%%s\\n" "${COMPREPLY[@]}"'
    name = re.search(r"complete .*-F (\S+) deepsteg", script)[1]
    for words, expected in (
        (["re"], "reveal"),
        (["hide", "--dr"], "--drop-tags"),
        (["hide", "cl"], "clip.mp4"),
        (["hide", "a", "b", "--for", "po"], "post"),
    ):
        command = ["bash", "-c", f"{script}\n{ask % name}", "bash", "deepsteg", *words]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert done.stdout.split() == [expected], done.stderr


def test_python_m_is_the_same_command():
    command = [sys.executable, "-m", "deepsteg_jax", "reveal"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.startswith("deepsteg: ")


# --- hide, reveal, info ---------------------------------------------------------------------------


def test_hide(run, calls, folder):
    changes = [
        "--config.model.modulus=4",
        "--config.video.align=frames",
        "--config.video.secret=",
        "--config.a=(1, 2)",
    ]
    code, out, _ = run(*HIDE, "--for=post", "--scheme=robust", "--loop-cover", "--drop-tags", *changes)
    assert code == 0 and out == "out.mp4: 1 frame of 64x48\n"
    positional, named = calls[0]
    assert positional == ("cover.mkv", ["secret.mkv"], "out.mp4", ["a passphrase"])
    assert named.pop("changes") == {
        "model.modulus": 4,
        "video.align": "frames",
        "video.secret": "",
        "a": (1, 2),
    }
    given = {"purpose": "post", "scheme": "robust", "loop_cover": True, "drop_tags": True}
    assert named == given | {"announce": cli.announce, "slots": 1}


def test_the_advice_of_a_message_can_be_followed(run, calls, folder):
    assert run(*HIDE, "--loop_cover")[0] == 0 and calls[0][1]["loop_cover"]


def test_the_suffix_chooses_where_nothing_is_said(run, calls, folder):
    assert run(*HIDE)[0] == 0
    named = {"purpose": None, "scheme": None, "changes": {}, "loop_cover": False, "drop_tags": False}
    assert calls[0][1] == named | {"announce": cli.announce, "slots": 1}


def test_several_secrets_have_a_key_each(run, calls, folder, monkeypatch):
    for name in ("a.key", "b.key"):
        keys.write_key_file(name)
    two = ["hide", "cover.mkv", "secret.mkv", "stego.mkv", *HIDE[3:], "--slots=4"]
    files = ["--key-file=a.key", "--key-file=b.key"]
    assert run(*two, *files)[0] == 0
    (_, secrets, _, found), named = calls.pop()
    assert secrets == ["secret.mkv", "stego.mkv"] and named["slots"] == 4
    assert found == [Path(name).read_bytes() for name in ("a.key", "b.key")]
    code, _, err = run(*two, files[0])
    assert code == 1 and "2 secrets need as many keys, and 1 are given" in err
    entries = iter(["first words", "first words", "other words", "other words"])
    monkeypatch.delenv(keys.PASSPHRASE_VARIABLE)
    monkeypatch.setattr(keys.sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(keys.getpass, "getpass", lambda prompt: next(entries))
    code, _, err = run(*two)
    assert code == 0 and calls[0][0][3] == ["first words", "other words"]
    assert err.index("for secret.mkv:") < err.index("for stego.mkv:")


def test_reveal(run, calls, folder):
    (folder / "pass.txt").write_text("another passphrase\nand a line")
    code, out, _ = run(*REVEAL, f"--passphrase-file={folder}/pass.txt")
    assert code == 0 and out == "out.mkv: 1 frame of 64x48\n"
    assert calls == [(("stego.mkv", "out.mkv", "another passphrase"), {"announce": cli.announce})]


def test_a_weak_passphrase_is_said_before_the_work(run, calls, folder, monkeypatch):
    assert "weak" not in run(*HIDE)[2]
    monkeypatch.setenv(keys.PASSPHRASE_VARIABLE, "password")
    code, _, err = run(*HIDE)
    assert code == 0 and "\rthe passphrase is weak: " in err
    assert "weak" not in run(*REVEAL)[2]


@pytest.mark.parametrize(
    "arguments, part",
    [
        (["hide", "none.mkv", *HIDE[2:]], "none.mkv"),
        (["hide", "cover.mkv", "none.mkv", *HIDE[3:]], "none.mkv"),
        ([*HIDE[:-1], "nowhere/out.mkv"], "nowhere"),
        ([*HIDE[:-1], "cover.mkv"], "also an input"),
        (["reveal", "none.mkv", *REVEAL[2:]], "none.mkv"),
    ],
)
def test_files_are_looked_at_before_the_passphrase_is_asked_for(run, folder, monkeypatch, arguments, part):
    monkeypatch.setattr(keys, "read_credential", None)
    code, out, err = run(*arguments)
    assert code == 1 and out == "" and part in err and err.count("\n") == 1


def test_info(run, monkeypatch):
    monkeypatch.setattr(
        api, "describe", lambda path, purpose, slots: f"{path} {purpose} {slots}", raising=False
    )
    assert run("info", "cover.mkv", "--for=file", "--slots=4")[:2] == (0, "cover.mkv file 4\n")
    assert run("info", "cover.mkv")[:2] == (0, "cover.mkv None 1\n")


@pytest.mark.parametrize(
    "error, code, line",
    [
        (UserError("the cover is\ntoo short"), 1, "the cover is too short"),
        (PartialError("the stego is cut"), 3, "the stego is cut"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_failures_are_one_line(run, folder, monkeypatch, error, code, line):
    def fails(*_, **__):
        raise error

    monkeypatch.setattr(api, "reveal_file", fails, raising=False)
    got, out, err = run(*REVEAL)
    assert (got, out, err.splitlines()[-1]) == (code, "", f"deepsteg: {line}")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_unwinds_the_job(run, number):
    unwound = []

    def job():
        try:
            os.kill(os.getpid(), number)
            signal.sigtimedwait([], 10)
        finally:
            unwound.append(number)

    with pytest.raises(SystemExit) as end:
        cli.exit_code("deepsteg", job)
    assert end.value.code == 128 + number and unwound == [number]


def test_it_starts_where_there_is_no_unix(monkeypatch):
    """Windows has no SIGHUP, no scheduler to ask and none of these modules."""
    monkeypatch.delattr(signal, "SIGHUP")
    before = signal.getsignal(signal.SIGTERM)
    assert cli.exit_code("deepsteg", lambda: None) == cli.DONE
    signal.signal(signal.SIGTERM, before)
    for path in (ROOT / "deepsteg_jax").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import | ast.ImportFrom):
                imported = {getattr(node, "module", None), *(alias.name for alias in node.names)}
                assert not imported & {"fcntl", "pwd", "grp", "resource", "termios", "pty"}, path


def test_a_file_through_the_command_line(run, tmp_path, monkeypatch):
    """Exit codes and lines of the whole way; the header is out of reach of the change."""
    monkeypatch.chdir(tmp_path)
    film("cover.mp4", noise(4, 64, 64, low=60, high=190), codec="libx264", pixel_format="yuv420p")
    Path("secret.pdf").write_bytes(bytes(range(120)))
    code, out, err = run("hide", "cover.mp4", "secret.pdf", "-o", "stego.mp4", "--for=file", f"{LOW}=4")
    assert code == 0 and out.startswith("stego.mp4: 4 frames of 64x64, ")
    assert "its own file travels, 0.1 kB, bit for bit; 0.0" in err
    code, out, err = run("reveal", "stego.mp4", "-o", "out.mkv")
    assert code == 0 and out.startswith("out.mkv: 0.1 kB, took ")
    assert "it is a .pdf: its own name is secret.pdf" in out
    assert Path("out.mkv").read_bytes() == bytes(range(120))
    for output in ("out/", "out"):
        code, _, err = run("reveal", "stego.mp4", "-o", output)
        assert code == (output == "out") and Path("out/secret.pdf").exists()
    assert err.splitlines()[-1].startswith("deepsteg: out/secret.pdf exists already: ")
    planes = [timed.frame for timed in media.read_planes("stego.mp4")]
    planes[2] = planes[2]._replace(y=planes[2].y ^ 1)
    with media.Writer("changed.mkv", 25, pixel_format="yuv420p") as writer:
        for frame in planes:
            writer.write(frame)
    code, out, err = run("reveal", "changed.mkv", "-o", "part.pdf")
    assert (code, out) == (3, "") and "changed.mkv was changed in frame 3: part.pdf has zeros" in err
    assert Path("part.pdf").stat().st_size == 120
    code, out, err = run("hide", "cover.mp4", "stego.mp4", "-o", "new.mp4", "--for=file")
    assert code == 1 and "at any quality" in err and not Path("new.mp4").exists()


# --- lists ----------------------------------------------------------------------------------------


@pytest.fixture
def here(monkeypatch):
    """Has this process do the work of others; returns how many it would have been, and their scheduler."""
    asked, run = [], cluster.run

    def run_here(function, jobs, workers, scheduler, announce):
        asked.append((workers, scheduler))
        return run(function, jobs)

    monkeypatch.setattr(cluster, "run", run_here)
    monkeypatch.setattr(cluster, "fitting", lambda peak: (peak > 1e6) * 7)
    return asked


def test_a_list_is_hidden_with_the_choices_of_the_command(run, here, folder, monkeypatch):
    seen = []

    def hide(cover, secret, output, key, **choices):
        if Path(secret).name == "stego.mkv":
            raise UserError(f"{output} is\nnothing")
        Path(output).write_bytes(key)
        seen.append((Path(cover).name, Path(secret).name, choices))
        return SimpleNamespace(notes=("a note",))

    monkeypatch.setattr(api, "hide_file", hide)
    keys.write_key_file("my.key")
    Path("list.csv").write_text(
        "cover,secret,output\ncover.mkv,secret.mkv,a.mp4\ncover.mkv,stego.mkv,b.mkv\n"
    )
    command = ["hide", "--batch", "list.csv", "--key-file=my.key", "--for=file", f"{LOW}=4", "--drop-tags"]
    code, out, err = run(*command)
    assert (code, out) == (1, "") and "b.mkv: b.mkv is nothing\n" in err
    assert err.endswith("deepsteg: 1 of 2 files are whole: list.results.csv says why the others are not\n")
    given = {"purpose": "file", "scheme": None, "changes": {"model.height": 4}}
    given |= {"loop_cover": False, "drop_tags": True, "slots": 1}
    assert seen == [("cover.mkv", "secret.mkv", given)]
    assert Path("a.mp4").read_bytes() == Path("my.key").read_bytes()
    Path("list.csv").write_text("cover,secret,output\ncover.mkv,secret.mkv,a.mp4\n")
    code, out, err = run(*command, "--scheduler=tls://host:1")
    assert (code, out) == (0, "list.results.csv: all 1 files are whole\n") and len(seen) == 1
    assert run(*command, "--loop-cover", "--workers=3", "--results=other.csv")[0] == 0
    assert here == [(7, None), (0, "tls://host:1"), (3, None)] and Path("other.csv").exists()
    code, _, err = run(*command, "--results=./list.csv")
    assert code == 1 and "also an input" in err and Path("list.csv").read_text().startswith("cover,")


def test_a_list_is_revealed(run, here, folder, monkeypatch):
    def reveal(stego, output, key):
        Path(output).write_bytes(Path(stego).read_bytes())
        raise PartialError(f"{stego} is cut")

    monkeypatch.setattr(api, "reveal_file", reveal)
    keys.write_key_file("my.key")
    Path("list.csv").write_text("stego,output,key_file\nstego.mkv,a,my.key\n")
    code, out, err = run("reveal", "--batch=list.csv")
    assert (code, out) == (3, "") and "0 of 1 files are whole, 1 in part" in err
    assert Path("a").read_bytes() == Path("stego.mkv").read_bytes() and here == [(7, None)]


# --- keygen, app ----------------------------------------------------------------------------------


def test_keygen_makes_a_key_that_hide_takes(run, calls, folder):
    key = folder / "my.key"
    code, out, err = run("keygen", "-o", str(key))
    assert (code, err) == (0, "") and str(key) in out
    assert run(*HIDE, f"--key-file={key}")[0] == 0
    assert calls[0][0][3] == [key.read_bytes()]
    code, _, err = run("keygen", "-o", str(key))
    assert code == 1 and err == f"deepsteg: {key} exists: a key is never overwritten, give another name\n"


def test_app(run, monkeypatch):
    seen = []
    monkeypatch.setattr(api, "load", lambda name: SimpleNamespace(config=name))
    monkeypatch.setattr(
        commands, "load", lambda name: SimpleNamespace(run=lambda *args: seen.append((name, *args)))
    )
    assert run("app", "--port=0", "--open", "--upload-limit=7")[0] == 0
    name, config, options = seen[0]
    assert (name, config) == ("app", "video")
    assert (options.host, options.port, options.open, options.upload_limit) == ("127.0.0.1", 0, True, 7)
