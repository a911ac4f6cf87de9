"""Files of the page's users: one private folder for all, in it one for each open page, removed with it.

    ROOT (0700)/FOLDER/TOKEN/name     FOLDER is one page's, TOKEN one file's: neither can be guessed

A file is fetched by its token and name, `files/TOKEN/name`, and by nothing else; no path of this computer is
ever told to a browser.
"""

import contextlib
import errno
import mimetypes
import secrets
import shutil
import tempfile
import threading
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import quote

from deepsteg_jax.errors import UserError
from deepsteg_jax.media import safe_name

MIB = 2**20
FILES_OF_LIMIT = 4  # all uploads together may take this many times what one may
_SHOWN = ("video/", "image/png", "image/jpeg", "image/webp", "image/gif", "image/avif", "image/bmp")
_TYPES = {".mkv": "video/x-matroska", ".nut": "application/octet-stream", ".ts": "video/mp2t"}


class TooLarge(UserError):
    """An upload is over a limit."""


class Store:
    """The private folder of one server; a context manager that removes it."""

    def __init__(self, parent: str | Path | None = None, limit: int = 2048 * MIB):
        """Make the folder, in `parent` or where temporary files go.

        Args:
            parent: a folder.
            limit: bytes of one upload; all together may have `FILES_OF_LIMIT` times as many.

        Raises:
            UserError: it cannot be made.
        """
        try:
            self.root = Path(tempfile.mkdtemp(prefix="deepsteg_app_", dir=parent)).resolve()
        except OSError as error:
            raise UserError(f"cannot make a temporary folder: {error.strerror}; TMPDIR moves it") from None
        self.limit, self._left = limit, FILES_OF_LIMIT * limit
        self._lock = threading.Lock()
        self._tokens: dict[str, Path] = {}

    def __enter__(self) -> "Store":
        """Return itself."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Remove the folder with all that is in it."""
        shutil.rmtree(self.root, ignore_errors=True)

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

    def reserve(self, count: int) -> None:
        """Take bytes of the quota of all uploads, negative ones to give them back; raise TooLarge."""
        with self._lock:
            if count > self._left:
                raise TooLarge(
                    f"all files dropped here may have {self.limit * FILES_OF_LIMIT // MIB} MiB together: "
                    "take some back first, or close other pages of this program"
                )
            self._left -= count


class Folder:
    """The files of one open page."""

    def __init__(self, store: Store):
        """Make the folder on disk."""
        self._store = store
        self._path = store.root / secrets.token_urlsafe(24)
        self._path.mkdir(mode=0o700)
        self._lock = threading.Lock()
        self._sizes: dict[str, int] = {}  # of uploads, by token
        self._users, self._closed = 0, False

    def new(self, name: str) -> Path:
        """Return a path of that name to write to, in a folder of its own that only its token leads to."""
        path = self._path / secrets.token_urlsafe(24)
        path.mkdir(mode=0o700)
        self._store.give_token(path)
        return path / name

    def upload(self, name: str) -> "Upload":
        """Return a file to receive, by the name that the browser gave it."""
        return Upload(self, self._store, self.new(safe_name(name).replace("%", "_")))  # % is for sequences

    def count(self, path: Path, size: int) -> None:
        """Take bytes of an upload off the quota; raise UserError if that or the page is closed."""
        with self._lock:
            if self._closed:
                raise UserError("the page was closed")
            total = self._sizes.get(path.parent.name, 0) + size
            if total > self._store.limit:
                raise TooLarge(f"{path} is too large: a file may have {self._store.limit // MIB} MiB")
            self._store.reserve(size)
            self._sizes[path.parent.name] = total

    def drop(self, path: Path) -> None:
        """Remove a file from `new` or `upload`, if it is there."""
        self._remove(path.parent)

    def keep_only(self, paths: Iterable[Path]) -> None:
        """Remove all files but these."""
        kept = {path.parent for path in paths}
        for path in set(self._folders()) - kept:
            self._remove(path)

    def _folders(self) -> list[Path]:
        """Return those of the files, each of which has one; none once all is removed."""
        return list(self._path.iterdir()) if self._path.is_dir() else []

    @contextlib.contextmanager
    def in_use(self):
        """Have `close` wait with removing the files while this lasts.

        Raises:
            UserError: the page is closed.
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
        for path in self._folders():
            self._store.take_token(path)
        self._tidy()

    def _remove(self, path: Path) -> None:
        self._store.take_token(path)
        shutil.rmtree(path, ignore_errors=True)
        with self._lock:
            size = self._sizes.pop(path.name, 0)
        self._store.reserve(-size)

    def _tidy(self) -> None:
        with self._lock:
            if not self._closed or self._users:
                return
        for path in self._folders():
            self._remove(path)
        shutil.rmtree(self._path, ignore_errors=True)


class Upload:
    """A file that is being received; a context manager that removes it unless it is whole."""

    def __init__(self, folder: Folder, store: Store, path: Path):
        """Take the path from `Folder.new`."""
        self.path, self._folder = path, folder
        self._file = path.open("xb")

    def write(self, block: bytes) -> None:
        """Add bytes.

        Raises:
            TooLarge: it, or all uploads together, are over a limit.
            UserError: the disk is full, or the page was closed.
        """
        self._folder.count(self.path, len(block))
        try:
            self._file.write(block)
        except OSError as error:
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            reason = "its disk is full" if full else error.strerror
            raise UserError(f"{self.path} cannot be kept on this computer: {reason}") from None

    def __enter__(self) -> "Upload":
        """Return itself."""
        return self

    def __exit__(self, kind: type | None, *rest: object) -> None:
        """Close the file; remove it after an error."""
        with contextlib.suppress(OSError):
            self._file.close()
        if kind is not None:
            self._folder.drop(self.path)


def url(path: Path) -> str:
    """Return the address of a file of a page, relative to the page."""
    return f"files/{path.parent.name}/{quote(path.name)}"


def type_of(path: Path) -> str:
    """Return the media type to serve a file as: its own if it is a video or picture, else plain bytes."""
    kind = _TYPES.get(path.suffix.lower()) or mimetypes.guess_type(path.name)[0] or ""
    return kind if kind.startswith(_SHOWN) else "application/octet-stream"
