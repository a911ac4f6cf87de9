"""Memory that is free on this machine, to refuse work before it begins."""

import ctypes
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from deepsteg_jax.errors import UserError

PROC, CGROUPS = Path("/proc"), Path("/sys/fs/cgroup")


def available() -> int | None:
    """Return the bytes that this process may still take, limits of containers included; None: unknown."""
    free = list(_machine()) + list(_containers())
    return max(0, min(free)) if free else None


def taken() -> int:
    """Return the bytes of memory that this process holds; 0: unknown."""
    with suppress(OSError, ValueError, StopIteration):
        return _kibibytes(PROC / "self/status", "VmRSS:")
    return 0


def give_back() -> None:
    """Have the C library return to the system what has been freed; only glibc keeps much of it."""
    with suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)


def check(needed: int, work: str) -> None:
    """Raise UserError if there is not enough memory for a work that takes `needed` bytes at its peak.

    Args:
        needed: bytes, what this process holds already included.
        work: what takes it, for the message: "hiding in 4000x3000".
    """
    free = available()
    if free is not None and needed > free + taken():
        raise UserError(
            f"{work} needs about {needed / 1e9:.1f} GB of memory, {(free + taken()) / 1e9:.1f} GB are free: "
            "take a smaller cover, or close other programs"
        )


def _machine() -> Iterator[int]:
    with suppress(OSError, ValueError, StopIteration):
        yield _kibibytes(PROC / "meminfo", "MemAvailable:")


def _kibibytes(path: Path, name: str) -> int:
    lines = (line.split() for line in path.read_text().splitlines())
    return 1024 * next(int(line[1]) for line in lines if line and line[0] == name)


def _containers() -> Iterator[int]:
    """Yield what is left of the limit of each control group of this process (Linux, version 2 and 1)."""
    groups = []
    with suppress(OSError):
        lines = (PROC / "self/cgroup").read_text().splitlines()
        groups = [line.split(":", 2) for line in lines if line.count(":") > 1]
    names = ("memory.max", "memory.current", "inactive_file")
    older = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
    for number, kinds, path in groups:
        if number == "0":
            yield from _left(CGROUPS, path, *names)
        elif "memory" in kinds.split(","):
            yield from _left(CGROUPS / "memory", path, *older)


def _left(root: Path, path: str, limit: str, used: str, cache: str) -> Iterator[int]:
    """Yield what is left of the limits of a group and of those around it."""
    inner = root / path.strip("/")
    for group in (inner, *inner.parents):
        with suppress(OSError, ValueError):  # no limit, or a group that is not seen from here
            most, now = int((group / limit).read_text()), int((group / used).read_text())
            stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
            yield most - now + int(stat.get(cache, 0))
        if group == root:
            return
