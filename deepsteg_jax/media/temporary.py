"""Temporary files, which hold sound."""

from collections.abc import Iterator
from contextlib import contextmanager
from tempfile import gettempdir

from deepsteg_jax.errors import UserError


@contextmanager
def temporary_files() -> Iterator[None]:
    """Turn an error of the disk into one line for the user."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"a temporary file cannot be written in {gettempdir()}: {reason}") from error
