"""Files of the page's users: one private folder for all, in it one for each user, removed when they leave.

    ROOT (0700)/uploads/             where gradio receives; taken from there at once
    ROOT/DESK/TOKEN/name             DESK is one user's, TOKEN one file's: neither can be guessed

A file is fetched by its token and name, `/files/TOKEN/name`, and by nothing else; no path of the server is
ever told to a browser.
"""

import contextlib
import secrets
import shutil
import tempfile
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import quote

from deepsteg_jax.errors import UserError

UPLOAD_AGE_S = 3600.0  # an older upload was given up


class Store:
    """The private folder of one server; a context manager that removes it."""

    def __init__(self, parent: str | Path | None = None):
        """Make the folder, in `parent` or where temporary files go.

        Raises:
            UserError: it cannot be made.
        """
        try:
            self.root = Path(tempfile.mkdtemp(prefix="deepsteg_app_", dir=parent)).resolve()
            self.uploads = self.root / "uploads"
            self.uploads.mkdir(mode=0o700)
        except OSError as error:
            raise UserError(f"cannot make a temporary folder: {error.strerror}; TMPDIR moves it") from None
        self._lock = threading.Lock()
        self._desks: dict[str, Desk] = {}
        self._tokens: dict[str, Path] = {}

    def __enter__(self) -> "Store":
        """Return itself."""
        return self

    def __exit__(self, *exception) -> None:
        """Remove the folder with all that is in it."""
        shutil.rmtree(self.root, ignore_errors=True)

    def desk(self, user: str) -> "Desk":
        """Return the desk of a user, by whatever tells users apart; a new one where there is none."""
        with self._lock:
            if user not in self._desks:
                self._desks[user] = Desk(self)
            return self._desks[user]

    def leave(self, user: str) -> None:
        """Clear a user's desk away, as soon as nothing works on it."""
        with self._lock:
            desk = self._desks.pop(user, None)
        if desk is not None:
            desk.close()
        self.sweep()

    def sweep(self) -> None:
        """Remove uploads that nobody took within `UPLOAD_AGE_S`."""
        for path in self.uploads.iterdir():
            with contextlib.suppress(OSError):
                if time.time() - path.stat().st_mtime > UPLOAD_AGE_S:
                    shutil.rmtree(path) if path.is_dir() else path.unlink()

    def is_upload(self, path: str | Path) -> bool:
        """Return whether a path that a browser sent is that of a received file."""
        path = Path(path).resolve()
        return path.is_relative_to(self.uploads) and path.is_file()

    def find(self, token: str, name: str) -> Path | None:
        """Return the file that a browser may have for a token and a name, or None."""
        with self._lock:
            folder = self._tokens.get(token)
        if folder is None or name != Path(name).name or name in ("", ".", ".."):
            return None
        path = folder / name
        return path if path.is_file() and not path.is_symlink() else None

    def give_token(self, folder: Path) -> None:
        """Let the files of a folder, named by its token, be fetched."""
        with self._lock:
            self._tokens[folder.name] = folder

    def take_token(self, folder: Path) -> None:
        """Undo `give_token`."""
        with self._lock:
            self._tokens.pop(folder.name, None)


class Desk:
    """One user's files."""

    def __init__(self, store: Store):
        self._store = store
        self._folder = store.root / secrets.token_urlsafe(24)
        self._folder.mkdir(mode=0o700)
        self._lock = threading.Lock()
        self._users, self._closed = 0, False

    def new(self, name: str) -> Path:
        """Return a path of that name to write to, in a folder of its own."""
        folder = self._folder / secrets.token_urlsafe(24)
        folder.mkdir(mode=0o700)
        self._store.give_token(folder)
        return folder / name

    def take(self, upload: str | Path) -> Path:
        """Move a received file to the desk and return its path there.

        Raises:
            UserError: it is none, or gone.
        """
        upload = Path(upload)
        if not self._store.is_upload(upload):
            raise UserError("the file did not arrive: drop it once more")
        path = self.new(upload.name)
        upload.replace(path)
        with contextlib.suppress(OSError):
            upload.parent.rmdir()
        return path

    def drop(self, path: Path) -> None:
        """Remove a file from `new` or `take`, if it is there."""
        self._store.take_token(path.parent)
        shutil.rmtree(path.parent, ignore_errors=True)

    def keep_only(self, paths: Iterable[Path]) -> None:
        """Remove all files from `new` and `take` but these."""
        kept = {path.parent for path in paths}
        for folder in set(self._folder.iterdir()) - kept:
            self.drop(folder / "any")

    @contextlib.contextmanager
    def in_use(self):
        """Have `close` wait with removing the files while this lasts.

        Raises:
            UserError: the desk is closed.
        """
        with self._lock:
            if self._closed:
                raise UserError("the page was closed")
            self._users += 1
        try:
            yield self
        finally:
            with self._lock:
                self._users -= 1
            self._tidy()

    def close(self) -> None:
        """Remove everything, now or at the end of `in_use`; nothing can be fetched from now on."""
        with self._lock:
            self._closed = True
        for folder in self._folder.iterdir() if self._folder.is_dir() else ():
            self._store.take_token(folder)
        self._tidy()

    def _tidy(self) -> None:
        with self._lock:
            if self._closed and not self._users:
                shutil.rmtree(self._folder, ignore_errors=True)


def url(path: Path) -> str:
    """Return the address of a file of a desk, relative to the page."""
    return f"files/{path.parent.name}/{quote(path.name)}"
