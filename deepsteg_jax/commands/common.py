"""Helpers of several commands: a progress bar, a table, the command line."""

import shlex
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

from ml_collections import ConfigDict
from tqdm import tqdm

from deepsteg_jax.pipeline import Report
from deepsteg_jax.schemes.base import Scheme

_DELAY_S = 0.01  # so that a bar does not stand above the question for a passphrase


class _Bar(tqdm):
    """A progress bar whose line ends when it is closed, also if it stood for less than the delay."""

    def refresh(self, *how: Any, **named: Any) -> None:
        """Draw it; `tqdm.close` ends the line of a bar only after its delay."""
        self.delay = 0
        super().refresh(*how, **named)


def revealer(scheme: Scheme, enhancement: ConfigDict | None = None) -> Callable[..., Report]:
    """Return `pipeline.reveal` with a scheme, called from the credential on.

    With an `enhancement`, see `commands.settings.ENHANCE`, the output is enhanced.
    """
    from deepsteg_jax import enhance, pipeline

    reveal = partial(pipeline.reveal, [scheme])
    return enhance.after(reveal, enhancement) if enhancement else reveal


def command() -> str:
    """Return the command line of this process, ready for a shell."""
    return shlex.join(["python", *sys.argv])


def progress_bar(title: str, total: int | None = None, unit: str = "frame", initial: int = 0) -> tqdm:
    """Return a progress bar over frames, or another unit, on stderr."""
    return _Bar(desc=title, total=total, unit=unit, initial=initial, dynamic_ncols=True, delay=_DELAY_S)


def table(rows: list[tuple[str, str]]) -> str:
    """Format two aligned columns."""
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)
