"""The open pages: each one's files, results and job, known by a token that only that page has."""

import asyncio
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from deepsteg_jax.app.choices import Clip
from deepsteg_jax.app.files import Folder, Store, Upload
from deepsteg_jax.app.jobs import Job
from deepsteg_jax.app.work import Compared, Hidden, Revealed
from deepsteg_jax.errors import UserError

MOST = 64  # pages that are open at once
GRACE_S = 30.0  # without a connection, after which a page counts as closed
PARTS = ("cover", "stego", "secret", "revealed")
SLOTS = ("cover", "secret", "stego", "live", *(f"compare_{part}" for part in PARTS))
"""The drop zones."""


class Gone(UserError):
    """There is no page of this token."""


class Session:
    """One open page."""

    def __init__(self, store: Store):
        """Make it, with a folder and a token."""
        self.token = secrets.token_urlsafe(24)
        self.folder = Folder(store)
        self.clips: dict[str, Clip] = {}  # by slot
        self.arriving: set[Path] = set()
        self.hidden: Hidden | None = None
        self.revealed: Revealed | None = None
        self.is_pair = False  # whether something was revealed since the last hiding
        self.compared: Compared | None = None
        self.job: Job | None = None
        self.tab = ""  # of the job
        self.told: dict | None = None  # about its end
        self.lock = threading.Lock()
        self.news = asyncio.Event()
        self.connections, self.seen = 0, time.monotonic()

    @property
    def busy(self) -> bool:
        """Whether a job is waiting or running."""
        return self.job is not None and not self.job.finished

    @contextmanager
    def arrival(self, name: str) -> Iterator[Upload]:
        """Give a file to receive, which `tidy` leaves alone while this lasts."""
        upload = self.folder.upload(name)
        self.arriving.add(upload.path)
        try:
            yield upload
        finally:
            self.arriving.discard(upload.path)
            self.tidy()

    def keep(self, done: Hidden | Revealed | Compared) -> None:
        """Take the result of a job, in place of an earlier one."""
        if isinstance(done, Hidden):
            self.hidden, self.is_pair = done, False
        elif isinstance(done, Revealed):
            self.revealed, self.is_pair = done, self.hidden is not None
        else:
            self.compared = done

    def tidy(self) -> None:
        """Remove the files that nothing on the page shows any more."""
        if self.job is not None and self.told is None:  # what it makes is in nobody's hands yet
            return
        kept = [*self.arriving, *(clip.path for clip in self.clips.values())]
        if self.hidden:
            kept += [self.hidden.cover, self.hidden.secret, self.hidden.stego, self.hidden.watched]
        if self.revealed:
            kept += [self.revealed.stego, self.revealed.revealed, self.revealed.watched]
        if self.compared:
            kept.append(self.compared.pictures[0]["cover"])
        self.folder.keep_only(path for path in kept if path)

    def part(self, name: str) -> Path | None:
        """Return a file to compare: dropped for that, else hidden or revealed here.

        The stego is the one that was revealed, which may have been re-encoded on its way.
        """
        if clip := self.clips.get(f"compare_{name}"):
            return clip.path
        if name in ("stego", "revealed") and self.revealed and self.is_pair:
            return getattr(self.revealed, name)
        return getattr(self.hidden, name, None) if self.hidden and name != "revealed" else None

    @property
    def compares_own_work(self) -> bool:
        """Whether nothing was dropped to compare."""
        return not any(f"compare_{part}" in self.clips for part in PARTS)

    @contextmanager
    def connected(self) -> Iterator[None]:
        """Keep the page open while this lasts."""
        self.connections += 1
        try:
            yield
        finally:
            self.connections -= 1
            self.seen = time.monotonic()

    def close(self) -> None:
        """Stop the job and remove the files."""
        if self.job is not None:
            self.job.cancel()
        self.folder.close()
        self.news.set()


class Sessions:
    """All open pages."""

    def __init__(self, store: Store):
        """Take the store of their files."""
        self.store = store
        self._all: dict[str, Session] = {}

    def open(self) -> Session:
        """Begin a page; raise UserError if there are too many."""
        self.sweep()
        if len(self._all) >= MOST:
            raise UserError(f"{MOST} pages are open already: close some")
        session = Session(self.store)
        self._all[session.token] = session
        return session

    def of(self, token: str) -> Session:
        """Return the page of a token; raise Gone if there is none."""
        if token not in self._all:
            raise Gone("this page was left for too long, or the program was started anew: reload the page")
        return self._all[token]

    def close(self, token: str) -> None:
        """End a page, if it is there."""
        if session := self._all.pop(token, None):
            session.close()

    def sweep(self) -> None:
        """End the pages that have had no connection for `GRACE_S`."""
        oldest = time.monotonic() - GRACE_S
        for session in list(self._all.values()):
            if not session.connections and session.seen < oldest:
                self.close(session.token)
