"""What pyproject.toml promises: dependencies, and where the package can be imported."""

import ast
import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterable, Iterator
from importlib import metadata
from pathlib import Path

import pytest

import deepsteg_jax
from deepsteg_jax import cli
from tests.synthetic import noise, save, smooth

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
UNIX_ONLY = re.compile(
    r"(fcntl|resource|termios|pwd|grp)\b|signal\.(SIGHUP|SIGKILL|SIGUSR|SIGALRM|SIGCHLD|SIGPIPE|SIGQUIT|sig(?!nal))"
    r"|os\.(sched_|SCHED_|fork|kill|get[eu]*[ug]id|mkfifo|nice|set|pread|O_NOFOLLOW|O_DIRECTORY|O_CLOEXEC)"
)


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def declared() -> set[str]:
    """Names of all distributions that pyproject.toml lists."""
    lists = [PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()]
    return {normal(re.match(r"[\w.-]+", line)[0]) for lines in lists for line in lines}


def imported() -> set[str]:
    """Names of the packages that the package and main.py import, without the standard library."""
    names = set()
    for path in [*(ROOT / "deepsteg_jax").rglob("*.py"), ROOT / "main.py"]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                names.add(node.module.partition(".")[0])
    return names - sys.stdlib_module_names - {"deepsteg_jax", "configs"}


def test_every_package_that_is_imported_is_declared():
    through = {
        "starlette": "fastapi",
        "pydantic": "fastapi",
        "onnx": "jax2onnx",
        "dask": "distributed",
    }
    distributions = metadata.packages_distributions()
    for name in imported():
        found = {through.get(name, name), *distributions.get(name, [])}
        assert {normal(each) for each in found} & declared(), name


def test_no_dependency_is_declared_twice():
    lists = [PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()]
    lines = [line for lines in lists for line in lines]
    assert len(lines) == len(set(lines))


def at_import(tree: ast.AST) -> Iterator[ast.AST]:
    """The nodes of a module that run when it is imported."""
    for node in ast.iter_child_nodes(tree):
        yield node
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield from at_import(node)


def unix_only(source: str, walk: Callable[[ast.AST], Iterable[ast.AST]] = at_import) -> list[str]:
    """Names that Windows or macOS lacks and that the source needs, by default when it is imported."""
    found = []
    for node in walk(ast.parse(source)):
        if isinstance(node, ast.Attribute):
            found.append(f"{ast.unparse(node.value)}.{node.attr}")
        elif isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found += [f"{node.module}.{alias.name}" for alias in node.names]
    return [name for name in found if UNIX_ONLY.match(name)]


@pytest.mark.parametrize(
    "source", ["import fcntl", "from os import sched_yield", "import signal\nx = [signal.SIGHUP]"]
)
def test_what_only_unix_has_is_found(source):
    assert len(unix_only(source)) == 1
    assert unix_only(f"def f():\n    {source.splitlines()[-1]}") == []


def test_the_package_can_be_imported_on_every_platform():
    files = [*(ROOT / "deepsteg_jax").rglob("*.py"), ROOT / "main.py"]
    assert [(path.name, name) for path in files for name in unix_only(path.read_text())] == []
    # What functions use: only where a check for Linux stands before it.
    used = {(path.name, name) for path in files for name in unix_only(path.read_text(), ast.walk)}
    names = ("SCHED_FIFO", "sched_getparam", "sched_getscheduler", "sched_setscheduler")
    assert used == {("codecs.py", f"os.{name}") for name in names}


@pytest.mark.slow
def test_hide_reveal_roundtrip_and_evaluate_need_no_tensorflow(tmp_path):
    """Nor anything else that only an extra brings, nor a training's logs: importing it fails here."""
    (tmp_path / "clips").mkdir()
    save(tmp_path / "clips/cover.mkv", noise(4))
    save(tmp_path / "clips/secret.mkv", smooth(4))
    code = """
import sys
class Without:
    names = {"tensorflow", "tensorflow_datasets", "tensorboard", "cv2", "fastapi", "uvicorn", "pytest"}
    names |= {"dask", "distributed"}
    def __init__(self, finder):
        self.finder = finder
    def __getattr__(self, name):
        return getattr(self.finder, name)
    def find_spec(self, name, *rest):
        return None if name in self.names else self.finder.find_spec(name, *rest)
sys.meta_path[:] = map(Without, sys.meta_path)
from deepsteg_jax import commands
from deepsteg_jax.commands import common, enhance, hide, live, reveal
from deepsteg_jax.training import logs
from configs import video
config = video.get_config()
config.video.update(cover="clips/cover.mkv", secret="clips/secret.mkv")
config.evaluate.update(path="clips", first_frame=0, frames=4, height=32, width=48, pictures=0)
for mode in ("roundtrip", "evaluate"):
    commands.load(mode).run(config, commands.Options("."))
"""
    env = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "metrics.json").is_file() and (tmp_path / "evaluation.json").is_file()


def test_every_shipped_checkpoint_has_a_card_with_a_command():
    folder = ROOT / "deepsteg_jax/pretrained"
    for name in (path.name for path in folder.iterdir() if path.is_dir()):
        card = (folder / f"{name}.md").read_text()
        hide, reveal = re.findall(r"`deepsteg ((?:hide|reveal) .*?)`", card)
        assert f'deepsteg_jax.load("{name}")' in card
        assert cli.parse(hide.split()).output == cli.parse(reveal.split()).stego


def test_the_citation_and_the_container_name_what_exists():
    assert f"version: {deepsteg_jax.__version__}\n" in (ROOT / "CITATION.cff").read_text()
    steps = dict(
        line.split(" ", 1) for line in (ROOT / "Dockerfile").read_text().splitlines() if line[:1].isalpha()
    )
    (extras,) = re.findall(r"/source\[(.*?)\]", steps["RUN"])
    assert set(extras.split(",")) <= set(PROJECT["optional-dependencies"]) and steps["USER"] != "root"
    options = cli.parse(json.loads(steps["CMD"])[1:])
    assert options.host == "0.0.0.0" and steps["EXPOSE"] == str(options.port)
    assert f"127.0.0.1:{options.port}" in steps["HEALTHCHECK"]
    kept = set(re.findall("^!(.*)$", (ROOT / ".dockerignore").read_text(), re.MULTILINE))
    assert kept == {"deepsteg_jax", "LICENSE", "README.md", "pyproject.toml"}  # what building takes
