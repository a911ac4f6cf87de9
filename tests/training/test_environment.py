"""What a run says about where it ran."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import jax
import pytest

from deepsteg_jax.training import environment

ROOT = Path(__file__).parents[2]

needs_git = pytest.mark.skipif(shutil.which("git") is None, reason="there is no git")


def _git(folder, *arguments) -> str:
    env = {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    user = ("-c", "user.name=a", "-c", "user.email=a@b.c")
    command = ("git", "-C", str(folder), *user, *arguments)
    return subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture
def repository(tmp_path):
    """A repository with one file."""
    _git(tmp_path, "init")
    (tmp_path / "file").write_text("1")
    _git(tmp_path, "add", "file")
    _git(tmp_path, "commit", "-m", "one")
    return tmp_path


def test_every_start_is_one_line(toy, tmp_path, monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_cpu_enable_fast_math=false")  # XLA has read its flags already
    toy.seed = 11
    for step, toy.optimizer.num_steps in ((0, 2), (2, 3), (3, 3)):
        environment.record(tmp_path, toy, step)
    lines = [json.loads(line) for line in (tmp_path / environment.JSON_LINES).open()]
    assert [line["step"] for line in lines] == [0, 2, 3]
    for line in lines:
        assert line["seed"] == 11 and line["deterministic"] is False
        assert line["packages"]["jax"] == jax.__version__
        assert {"jaxlib", "flax", "optax", "orbax-checkpoint", "numpy"} <= line["packages"].keys()
        assert line["device_kind"] == jax.devices()[0].device_kind
        assert (line["devices"], line["processes"]) == (jax.device_count(), 1)
        assert line["xla_flags"] == "--xla_cpu_enable_fast_math=false"
        assert {"git_revision", "git_changed", "python", "platform", "time"} <= line.keys()
    assert json.loads((tmp_path / "config.json").read_text())["optimizer"]["num_steps"] == 3


@needs_git
def test_the_revision_of_a_repository_and_whether_files_differ(repository):
    head = _git(repository, "rev-parse", "HEAD")
    assert len(head) == 40
    assert environment.revision(repository) == {"git_revision": head, "git_changed": False}
    (repository / "file").write_text("2")
    assert environment.revision(repository) == {"git_revision": head, "git_changed": True}


@needs_git
def test_a_folder_inside_another_repository_has_no_revision(repository):
    (repository / "inside").mkdir()
    nothing = {"git_revision": None, "git_changed": None}
    assert environment.revision(repository / "inside") == nothing


def test_no_revision_without_a_repository_or_without_git(tmp_path, monkeypatch):
    nothing = {"git_revision": None, "git_changed": None}
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))  # wherever temporary files lie
    assert environment.revision(tmp_path) == nothing
    monkeypatch.setenv("PATH", str(tmp_path))
    assert environment.revision(ROOT) == nothing
