"""Jobs of all users, one at a time: how far they are, how long they will take, and stopping them."""

import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple

WAITING, RUNNING, DONE, FAILED, CANCELLED = "waiting", "running", "done", "failed", "cancelled"


class Cancelled(Exception):
    """Raised inside a job that is to stop."""


class Status(NamedTuple):
    """What there is to say of a job."""

    state: str
    ahead: int = 0  # jobs before this one, while it waits
    stage: str = ""  # what it does
    share: float | None = None  # of the stage that is done, 0 to 1; None: not known
    left_s: float | None = None  # seconds to the end of the stage; None: not known yet


class Job:
    """Something that runs on the worker's thread; the user's side only looks at it and may stop it."""

    def __init__(self, work: Callable[["Job"], Any]):
        self.result: Any = None
        self.error: Exception | None = None
        self.state = WAITING
        self._work: Callable | None = work
        self._cancel = threading.Event()
        self._stage, self._total, self._done, self._since = "", None, 0, 0.0

    # What the work calls

    def stage(self, name: str, total: int | None = None) -> None:
        """Says what comes next, in so many frames if that is known; raises Cancelled if it shall not."""
        self.check()
        self._stage, self._total, self._done, self._since = name, total, 0, time.monotonic()

    def progress(self, frames: int) -> None:
        """Counts frames of the stage as done; raises Cancelled if the job is to stop."""
        self.check()
        if not self._done:  # what comes before the first frames, such as compiling, says nothing of the rest
            self._begin = time.monotonic()
            self._first = frames
        self._done += frames

    def check(self) -> None:
        """Raises Cancelled if the job is to stop."""
        if self._cancel.is_set():
            raise Cancelled

    # What the user's side calls

    def cancel(self) -> None:
        """Stops the job before its next step; for the user it has stopped at once."""
        self._cancel.set()
        if not self.finished:
            self.state = CANCELLED

    @property
    def finished(self) -> bool:
        """Whether there is nothing to wait for."""
        return self.state in (DONE, FAILED, CANCELLED)

    def status(self, ahead: int = 0) -> Status:
        """How it stands."""
        if self.state != RUNNING:
            return Status(self.state, ahead)
        done, total = self._done, self._total
        share = min(1.0, done / total) if total else None
        return Status(RUNNING, 0, self._stage, share, self._left(done, total))

    def _left(self, done: int, total: int | None) -> float | None:
        if not total or not done or done == self._first:
            return None
        pace = (time.monotonic() - self._begin) / (done - self._first)
        return max(0.0, pace * (total - done))

    def run(self) -> None:
        """Does the work, on the worker's thread."""
        work, self._work = self._work, None  # it may know a passphrase: nothing keeps it
        if self.state != WAITING:
            return
        self.state = RUNNING
        try:
            result = work(self)
            self.check()
            self.result, self.state = result, DONE
        except Cancelled:
            self.state = CANCELLED
        except Exception as error:  # noqa: BLE001, the user's side tells it
            self.error = error
            self.state = CANCELLED if self._cancel.is_set() else FAILED


class Worker:
    """Runs jobs in order on one thread; a context manager."""

    def __init__(self):
        self._jobs: list[Job] = []
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._loop, daemon=True)

    def __enter__(self) -> "Worker":
        """Starts the thread."""
        self._thread.start()
        return self

    def __exit__(self, *exception) -> None:
        """Stops it, see `close`."""
        self.close()

    def submit(self, work: Callable[[Job], Any]) -> Job:
        """Puts work at the end of the line."""
        job = Job(work)
        with self._changed:
            self._jobs.append(job)
            self._changed.notify()
        return job

    def status(self, job: Job) -> Status:
        """How a job stands."""
        with self._changed:
            ahead = self._jobs.index(job) if job in self._jobs else 0
        return job.status(ahead)

    @property
    def runs(self) -> bool:
        """Whether the thread is alive."""
        return self._thread.is_alive()

    def close(self, wait_s: float = 5.0) -> None:
        """Stops all jobs and waits for the one that runs, but not for long: its next step may be far."""
        with self._changed:
            self._closed = True
            for job in self._jobs:
                job.cancel()
            self._changed.notify()
        self._thread.join(wait_s)

    def _loop(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._jobs or self._closed)
                if self._closed:
                    return
                job = self._jobs[0]
            job.run()
            with self._changed:
                self._jobs.pop(0)
