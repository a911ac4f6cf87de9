"""Texts of the page: errors, times and sizes for people who know no flags."""

import re
from collections.abc import Iterable
from pathlib import Path

from deepsteg_jax.app.jobs import WAITING, Status
from deepsteg_jax.errors import PartialError, UserError
from deepsteg_jax.schemes.base import NOTHING

NOTHING_FOUND = (
    "Nothing could be revealed. Either the passphrase is not the sender's, or this is not the file that the "
    "sender made: what “Send it as a file” makes is destroyed when a site or an app codes it again."
)
OUR_FAULT = "Something went wrong here, not through you. The window where the page was started says what."
# Advice for the command line, and the same for the page.
_ADVICE = (
    (
        r"; give one of at least ([^;]*?), or --loop_cover",
        r". Tick “Repeat the cover”, or drop a cover of at least \1",
    ),
    (r": give a longer cover, or --loop_cover", ". Tick “Repeat the cover”, or drop a longer one"),
    (r", or more of it with --config\.payload\.rate, which is found sooner", ", or more room"),
    (r" \(--config\.video\.align=frames keeps all\)", ""),
    (r"leave the sound out with --config\.video\.sound_bit_rate=0", "untick “Take its sound along”"),
    (r" or --config[\w.=]*", ""),
    (r"^(\d) of (\d) layers", r"\1 of the \2 layers of the secret arrived, from coarse to fine"),
)
_FOLDERS = re.compile(r"(?<![\w./:])/(?:[^/\s:;,“]+/)+")


def plain(error: Exception, root: Path) -> str:
    """Return an error as a sentence for the page, without any folder, above all those below `root`."""
    if not isinstance(error, UserError | PartialError):
        return OUR_FAULT
    if str(error) == NOTHING:
        return NOTHING_FOUND
    text = re.sub(rf"{re.escape(str(root))}(?:/[^/\s]+)*/", "", " ".join(str(error).split()))
    text = _FOLDERS.sub("", text).rstrip(".")
    for pattern, advice in _ADVICE:
        text = re.sub(pattern, advice, text)
    return f"{text}." if str(error).startswith(str(root)) else f"{text[:1].upper()}{text[1:]}."


def notes(told: Iterable[str], root: Path) -> list[str]:
    """Return what hiding or revealing noted as sentences, without where on this computer things are."""
    return [plain(UserError(note), root) for note in told if not note.startswith("written to ")]


def stage(status: Status) -> str:
    """Say what a job does."""
    if status.state != WAITING:
        return f"{status.stage or 'Starting'} …"
    if not status.ahead:
        return "Waiting until what you stopped has ended …" if status.after_own else "Starting …"
    others = "one job" if status.ahead == 1 else f"{status.ahead} jobs"
    return f"Waiting: {others} of other people first. It starts by itself."


def left(status: Status) -> str:
    """Say how far a job is."""
    rest = "" if status.left_s is None else f", about {duration(status.left_s)} left"
    return f"{100 * status.share:.0f} %{rest}"


def precise(seconds: float) -> str:
    """Return "3.2 s" and the like, or `duration` from a minute on."""
    return f"{seconds:.1f} s" if seconds < 60 else duration(seconds)


def duration(seconds: float) -> str:
    """Return "8 s", "2 min 5 s" or "1 h 3 min" and the like."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60} min"


def roughly(count: float) -> str:
    """Return `size` with one or two digits."""
    digits = len(str(round(count))) - 2
    return size(round(count, -digits)).replace(".0 ", " ")


def size(count: float) -> str:
    """Return "830 kB", "12.4 MB" or "1.2 GB" and the like; powers of 1000."""
    if count < 1e6:
        return f"{max(1, round(count / 1e3))} kB"
    return f"{count / 1e6:.1f} MB" if count < 1e9 else f"{count / 1e9:.1f} GB"
