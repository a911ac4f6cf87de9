"""What experiments share: the command line, protocol Q1's clips, results as JSON.

A file of results holds {"command", "revision", "results"}: what was run, on which commit, and the figures.
"""

import argparse
import json
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from itertools import chain, cycle, islice
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from deepsteg_jax.errors import UserError
from deepsteg_jax.training import environment
from experiments.entries import ENTRIES

ROOT = Path(__file__).resolve().parent.parent
RESULTS = Path(__file__).with_name("results")
SIZE = {"clips": (256, 448), "images": (256, 256)}  # height, width
FRAMES = 30  # of a clip


def make_parser(description: str) -> argparse.ArgumentParser:
    """A parser whose help is the script's own docstring."""
    return argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )


def add_folders(parser: argparse.ArgumentParser) -> None:
    """Add the options of scripts that measure entries on a folder: its kind decides the protocol."""
    folders = parser.add_mutually_exclusive_group(required=True)
    folders.add_argument("--clips")
    folders.add_argument("--images")
    parser.add_argument("--trained", type=Path, help="folder of train_entries")
    parser.add_argument("--only", nargs="+", help="names of rows")
    parser.add_argument("--frames", type=int, default=FRAMES, help="fewer, for a network that is very slow")
    parser.add_argument("--tables-only", action="store_true")


def run(main: Callable[[], int | None]) -> None:
    """Run a script; a UserError ends it with one line and exit code 1."""
    try:
        sys.exit(main())
    except UserError as error:
        sys.exit(f"{Path(sys.argv[0]).stem}: {error}")


def q1_settings(kind: str, folder: str, frames: int = FRAMES) -> ConfigDict:
    """Section `evaluate` of protocol Q1, or of its counterpart for images.

    Q1 hides clip i + 1 of a folder, sorted by name, in clip i: frames 5..34 at 448x256.
    """
    settings = ENTRIES["block_dct"].load().evaluate
    settings.path, settings.perceptual, settings.frames = folder, True, frames
    settings.height, settings.width = SIZE[kind]
    return settings


def to_and_fro(frames: Sequence[Any], count: int) -> Iterator[Any]:
    """`count` frames of a clip that is played forwards and backwards in turn."""
    return islice(cycle(chain(frames, reversed(frames))), count)


def write_json(path: Path, results: Any) -> None:
    """Write results with the command and the revision that made them; an interruption leaves the old file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    found = {"command": _command(sys.argv), "revision": _revision(), "results": results}
    part.write_text(json.dumps(found, indent=1) + "\n")
    part.replace(path)


def read_json(path: Path, default: Any = None) -> Any:
    """The results in a file of `write_json`, or `default` where there is no such file."""
    return json.loads(path.read_text())["results"] if path.exists() else default


def _command(argv: list[str]) -> str:
    """The command line without the paths of this machine."""
    words = ["FOLDER" if word.startswith("/") else word for word in argv[1:]]
    return f"python -m experiments.{Path(argv[0]).stem} {shlex.join(words)}".strip()


def _revision() -> str:
    found = environment.revision(ROOT)
    return f"{found['git_revision']}{' with changes' if found['git_changed'] else ''}"
