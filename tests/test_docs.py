"""What the documentation says is so: links, commands, the code in it, the reference."""

import functools
import importlib.util
import itertools
import json
import re
import shlex
import sys
from pathlib import Path
from types import ModuleType

import jax
import numpy as np
import pytest

import deepsteg_jax
from deepsteg_jax import cli, metrics, models
from deepsteg_jax import commands as modes
from deepsteg_jax.errors import UserError
from deepsteg_jax.training.loop import train
from tests.helpers import read_stack
from tests.synthetic import noise, save, smooth

ROOT = Path(__file__).parent.parent
PAGES = [
    *sorted(ROOT.glob("*.md")),
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "deepsteg_jax").rglob("*.md")),
]


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def blocks(page: Path, language: str = "") -> list[str]:
    """The code blocks of a page in a language, also those that are indented."""
    found = re.findall(r"^( *)```(\w*)\n(.*?)^ *```$", page.read_text(), re.MULTILINE | re.DOTALL)
    return [
        re.sub(rf"^{indent}", "", code, flags=re.MULTILINE)
        for indent, name, code in found
        if name == language
    ]


# --- links ----------------------------------------------------------------------------------------


def anchors(page: Path) -> set[str]:
    """The names that GitHub gives to the headings of a page."""
    headings = re.findall(
        r"^#+ (.*)$", re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL), re.MULTILINE
    )
    plain = [re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings]
    return set(plain)


def broken_links(page: Path) -> list[str]:
    text = re.sub(r"```.*?```|`[^`\n]*`", "", page.read_text(), flags=re.DOTALL)
    targets = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r"(?:src|srcset|href)=\"([^\"]+)\"", text)
    broken = []
    for target in targets:
        if re.match(r"\w+:", target):
            continue
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        if not there.exists() or (anchor and anchor not in anchors(there)):
            broken.append(target)
    return broken


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page):
    assert not broken_links(page)


def test_a_broken_link_is_found(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# A title\n[a](none.md) ![b](page.md) [c](#a-title) [d](#b) [e](https://x.y) `[f](g)`\n")
    assert broken_links(page) == ["none.md", "#b"]


def test_the_index_lists_every_page():
    index = (ROOT / "docs/README.md").read_text()
    assert all(f"({page.name})" in index for page in (ROOT / "docs").glob("*.md") if page.name != "README.md")


# --- commands -------------------------------------------------------------------------------------


def commands(page: Path) -> list[list[str]]:
    """The words of every command of a page that runs a file of the project, in blocks and in text."""
    text = page.read_text().replace("\\\n", " ")
    run = r"python\s(?:[\w/]+\.py|-m\sexperiments\.\w+)"
    in_blocks = re.findall(rf"^.*?({run}.*)$", "\n".join(blocks(page) + blocks(page, "bash")), re.MULTILINE)
    in_text = re.findall(rf"`({run}[^`]*)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
    return [
        shlex.split(re.split(r" &&? | \| ", " ".join(line.split()))[0], comments=True)
        for line in in_blocks + in_text
    ]


def options_of(words: list[str]) -> dict[str, str]:
    """--name=value and --name value."""
    options = {}
    for word, following in itertools.zip_longest(words, words[1:], fillvalue=""):
        if word.startswith("--"):
            name, _, value = word.removeprefix("--").partition("=")
            options[name] = value or following
    return options


def known_options(script: Path) -> set[str]:
    """Of main.py or of a script in experiments/, which may take those of common.py."""
    source = script.read_text()
    if script.name == "main.py":
        settings = {f"{name}.{field}" for name, fields in modes.SETTINGS.items() for field in fields}
        return {"config", *settings, *re.findall(r"DEFINE_\w+\(\s*\"(\w+)\"", source)}
    if "common.add_folders" in source:
        source += (ROOT / "experiments/common.py").read_text()
    return set(re.findall(r"add_argument\(\s*\"--([\w-]+)\"", source))


def config_of(name: str):
    """The config of `configs/video.py:tiny`; that of the added model is in its page."""
    file, _, variant = name.partition(":")
    if file == "configs/checkerboard.py":
        return added("config").get_config(variant)
    return importlib.import_module(file.removesuffix(".py").replace("/", ".")).get_config(variant)


def wrong_with(words: list[str]) -> list[str]:
    if words[1] == "-m":
        words = [words[0], f"{words[2].replace('.', '/')}.py", *words[3:]]
    script = ROOT / words[1]
    if not script.is_file():
        return [f"{words[1]} does not exist"]
    options = options_of(words[2:])
    plain = {name for name in options if not name.startswith("config.")}
    wrong = [f"--{name}" for name in plain - known_options(script)]
    if words[1] == "main.py" and "config" in options:
        fields = dict(config_of(options["config"]).iteritems(preserve_field_references=False))
        for name in set(options) - plain:
            try:
                if name.split(".")[1] not in modes.SECTIONS[options.get("mode", "roundtrip")]:
                    raise KeyError(name)
                functools.reduce(lambda part, key: part[key], name.split(".")[1:], fields)
            except (KeyError, TypeError):
                wrong.append(f"--{name}")
    return wrong


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_name_files_flags_and_fields_that_exist(page):
    assert [(" ".join(words), wrong) for words in commands(page) if (wrong := wrong_with(words))] == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_deepsteg_commands_can_be_parsed(page):
    lines = re.findall(
        r"^(?:.*&& )?deepsteg (.*)$", "\n".join(blocks(page) + blocks(page, "bash")), re.MULTILINE
    )
    for line in lines:
        assert cli.parse(shlex.split(line, comments=True)).run


def test_commands_are_found_and_wrong_ones_too():
    assert len(commands(ROOT / "README.md")) > 2 and len(commands(ROOT / "docs/TRAINING.md")) > 10
    for line, wrong in (
        ("python main.py --config configs/video.py --config.model.modulus=4 --mode hide", []),
        ("python main.py --config=configs/video.py --config.model.stop=4", ["--config.model.stop"]),
        (
            "python main.py --config configs/video.py --mode hide --config.train.keep=1",
            ["--config.train.keep"],
        ),
        (
            "python main.py --config configs/image.py --mode live --live.width=9 --live.size=9",
            ["--live.size"],
        ),
        ("python main.py --config configs/video.py --secrets a", ["--secrets"]),
        ("python -m experiments.none --x", ["experiments/none.py does not exist"]),
        ("python -m experiments.robustness --clips A --codecs B --image C", ["--image"]),
    ):
        assert wrong_with(line.split()) == wrong


# --- code -----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_library_page_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cover, secret = noise(4, 32, 48), smooth(4, 24, 40)
    save("cover.mkv", cover), save("secret.mkv", secret)
    (code,) = blocks(ROOT / "docs/API.md", "python")
    names = {"cover": cover, "secret": secret}
    exec(compile(code, "docs/API.md", "exec"), names)
    assert names["revealed"].shape == secret.shape
    assert np.array_equal(names["revealed"], read_stack("revealed.mkv"))


def added(which: str) -> ModuleType:
    """The model or the config of docs/EXTENDING.md."""
    model, config = blocks(ROOT / "docs/EXTENDING.md", "python")
    module = ModuleType("checkerboard")
    exec(
        compile(model if which == "model" else config, f"docs/EXTENDING.md, {which}", "exec"),
        module.__dict__,
    )
    return module


def test_the_added_model_is_short_and_named_everywhere():
    page = ROOT / "docs/EXTENDING.md"
    model, _ = blocks(page, "python")
    assert sum(bool(line.strip()) for line in model.splitlines()) <= 50
    assert '"checkerboard": checkerboard.build,' in page.read_text()
    assert all(len(line) <= 110 for block in blocks(page, "python") for line in block.splitlines())


@pytest.mark.slow
def test_the_added_model_trains_hides_and_reveals(tmp_path, monkeypatch):
    """By the real loop and through real files."""
    monkeypatch.setitem(models.MODELS, "checkerboard", added("model").build)
    (tmp_path / "clips").mkdir()
    for number in range(2):
        save(tmp_path / f"clips/{number}.mkv", smooth(4, 48, 48, seed=number))
    config = added("config").get_config("tiny")
    config.data.path = str(tmp_path / "clips")
    config.optimizer.num_steps = config.train.save_every_steps = 8
    config.train.picture_every_steps = 100
    state = train(config, tmp_path / "run")
    lines = [json.loads(line) for line in (tmp_path / "run/training.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines if "loss" in line]
    fresh = models.build(config.model).init(jax.random.key(0))
    moved = [
        abs(x - y).max() > 1e-4 for x, y in zip(*map(jax.tree.leaves, (state.params, fresh)), strict=True)
    ]
    assert int(state.step) == len(losses) == 8 and np.isfinite(losses).all() and all(moved)

    loaded, key = deepsteg_jax.load(tmp_path / "run"), bytes(range(32))
    stego, revealed = tmp_path / "stego.mkv", tmp_path / "revealed.mkv"
    cover, secret = tmp_path / "clips/0.mkv", save(tmp_path / "secret.mkv", smooth(3, 40, 32, seed=9))
    deepsteg_jax.hide_video(loaded, cover, secret, stego, key)
    deepsteg_jax.reveal_video(loaded, stego, revealed, key)
    shown = read_stack(revealed)
    assert shown.shape == (3, 40, 32, 3)
    assert metrics.mean_psnr(read_stack(secret), shown) > 16
    with pytest.raises(UserError, match="no hidden video"):
        deepsteg_jax.reveal_video(loaded, stego, tmp_path / "wrong.mkv", key[::-1])


# --- the reference --------------------------------------------------------------------------------


@pytest.fixture
def reference(monkeypatch) -> ModuleType:
    """docs/reference.py."""
    pytest.importorskip("pdoc", reason="pdoc is not installed: pip install 'pdoc>=16,<17'")
    monkeypatch.setattr(sys, "path", list(sys.path))  # the script adds to it
    spec = importlib.util.spec_from_file_location("reference", ROOT / "docs/reference.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_the_reference_is_whole(reference, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(sys, "argv", ["reference.py", "--output", str(tmp_path)])
    configure = reference.pdoc.render.configure
    less = {"show_source": False, "search": False}  # half the time
    plain = lambda **settings: configure(**settings | less)  # noqa: E731
    monkeypatch.setattr(reference.pdoc.render, "configure", plain)
    assert reference.main() == 0, capsys.readouterr().err
    for module in ("api", "models.block_dct", "training.loop", "pipeline", "data.pairs", "app.page"):
        assert (tmp_path / f"deepsteg_jax/{module.replace('.', '/')}.html").is_file()
    assert "hide_video" in (tmp_path / "deepsteg_jax/api.html").read_text()


def test_a_hole_in_the_reference_is_found(reference, monkeypatch):
    module = ModuleType("holes", "Two functions and a class.")
    source = (
        "def a(): 'One.'\ndef b(): pass\nclass C:\n 'A class.'\n def d(self): pass\n def _e(self): pass\n"
    )
    exec(source, module.__dict__)
    monkeypatch.setitem(sys.modules, "holes", module)
    assert sorted(reference.holes(["holes"])) == [f"holes.{name} has no docstring" for name in ("C.d", "b")]
