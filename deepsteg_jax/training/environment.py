"""The environment of a run, so that it can be repeated: packages, revision, seed, devices."""

import json
import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from deepsteg_jax.training import parallel

JSON_LINES = "environment.jsonl"


def _packages() -> dict[str, str]:
    found = [distribution.metadata for distribution in metadata.distributions()]  # parsed at each access
    return dict(sorted((each["Name"], each["Version"]) for each in found))


def describe(config: ConfigDict, step: int) -> dict[str, Any]:
    """Describe one start of a run, ready for JSON."""
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "step": step,
        "seed": config.get("seed"),
        "deterministic": config.get("deterministic"),
        **revision(Path(__file__).parents[2]),
        **parallel.describe_devices(),
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": _packages(),
    }


def record(workdir: Path, config: ConfigDict, step: int) -> None:
    """Append this start to `environment.jsonl` and write `config.json`."""
    with (workdir / JSON_LINES).open("a", encoding="utf-8") as file:
        file.write(json.dumps(describe(config, step)) + "\n")
    (workdir / "config.json").write_text(config.to_json_best_effort(indent=2) + "\n")


def revision(folder: Path) -> dict[str, Any]:
    """Find the git revision of the code and whether files differ from it; None outside a repository."""

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(
                ("git", "-C", str(folder), *arguments), capture_output=True, text=True, timeout=30, check=True
            )
        except (OSError, subprocess.SubprocessError):
            return None
        return done.stdout.strip()

    if git("rev-parse", "--show-prefix") != "":  # no repository, or another one around this folder
        return {"git_revision": None, "git_changed": None}
    changes = git("status", "--porcelain")
    changed = None if changes is None else bool(changes)
    return {"git_revision": git("rev-parse", "HEAD"), "git_changed": changed}
