"""Jobs of all users, one at a time: their progress, the time left, and stopping them."""

import threading
import time
import traceback
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

WAITING, RUNNING, DONE, FAILED, CANCELLED = "waiting", "running", "done", "failed", "cancelled"


class Cancelled(Exception):
    """Raised inside a job that is to stop."""


class Status(NamedTuple):
    """The state of a job."""

    state: str
    ahead: int = 0  # jobs of others before this one, while it waits
    stage: str = ""  # of the work
    share: float | None = None  # of the stage that is done, 0 to 1; None: not known
    left_s: float | None = None  # seconds to the end of the stage; None: not known yet
    after_own: bool = False  # whether a job of the same owner, which was stopped, is before it


class Job:
    """Work on the worker's thread; the user's side only looks at it and may stop it."""

    def __init__(self, work: Callable[["Job"], Any], owner: Any = None):
        """Take the work, which is given the job, and its owner, to tell one's own jobs from others'."""
        self.owner = owner
        self.result: Any = None
        self.error: Exception | None = None
        self.state = WAITING
        self.seconds = 0.0  # that the work took
        self._work: Callable | None = work
        self._cancel = threading.Event()
        self._stage, self._total, self._done, self._since = "", None, 0, 0.0

    # Called by the work

    def stage(self, name: str, total: int | None = None) -> None:
        """Begin a stage of `total` frames, None if unknown; raise Cancelled if the job is to stop."""
        self.check()
        self._stage, self._total, self._done, self._since = name, total, 0, time.monotonic()

    def progress(self, frames: int) -> None:
        """Count frames of the stage as done; raise Cancelled if the job is to stop."""
        self.check()
        if not self._done:  # time before the first frames, such as compilation, is excluded
            self._begin = time.monotonic()
            self._first = frames
        self._done += frames

    def check(self) -> None:
        """Raise Cancelled if the job is to stop."""
        if self._cancel.is_set():
            raise Cancelled

    # Called by the user's side

    def cancel(self) -> None:
        """Stop the job before its next step; for the user it has stopped at once."""
        self._cancel.set()
        if not self.finished:
            self.state = CANCELLED

    @property
    def finished(self) -> bool:
        """Whether the job has ended."""
        return self.state in (DONE, FAILED, CANCELLED)

    def status(self, before: Sequence["Job"] = ()) -> Status:
        """Return its state; `before`: the jobs before it."""
        if self.state != RUNNING:
            ahead = sum(job.owner != self.owner for job in before)
            return Status(self.state, ahead, after_own=ahead < len(before))
        done, total = self._done, self._total
        share = min(1.0, done / total) if total else None
        return Status(RUNNING, 0, self._stage, share, self._left(done, total))

    def _left(self, done: int, total: int | None) -> float | None:
        if not total or not done or done == self._first:
            return None
        pace = (time.monotonic() - self._begin) / (done - self._first)
        return max(0.0, pace * (total - done))

    def run(self) -> None:
        """Do the work, on the worker's thread."""
        work, self._work = self._work, None  # it may know a passphrase: nothing keeps it
        if self.state != WAITING:
            return
        self.state, began = RUNNING, time.monotonic()
        try:
            result = work(self)
            self.check()
            self.seconds = time.monotonic() - began
            self.result, self.state = result, DONE
        except Cancelled:
            self.state = CANCELLED
        except Exception as error:  # noqa: BLE001, the user's side shows it
            _forget(error)
            self.error = error
            self.state = CANCELLED if self._cancel.is_set() else FAILED


def _forget(error: BaseException | None) -> None:
    """Clear the local variables that an error keeps, such as passphrases and frames."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__


class Worker:
    """Runs jobs in order on one thread; a context manager."""

    def __init__(self):
        """Make it; entering its context starts the thread."""
        self._jobs: list[Job] = []
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._loop, daemon=True)

    def __enter__(self) -> "Worker":
        """Start the thread."""
        self._thread.start()
        return self

    def __exit__(self, *exception) -> None:
        """Stop it, see `close`."""
        self.close()

    def submit(self, work: Callable[[Job], Any], owner: Any = None) -> Job:
        """Queue work as the last job."""
        job = Job(work, owner)
        with self._changed:
            self._jobs.append(job)
            self._changed.notify()
        return job

    def status(self, job: Job) -> Status:
        """Return the state of a job."""
        with self._changed:
            before = self._jobs[: self._jobs.index(job)] if job in self._jobs else []
        return job.status(before)

    @property
    def runs(self) -> bool:
        """Whether the thread is alive."""
        return self._thread.is_alive()

    def close(self, wait_s: float = 5.0) -> None:
        """Stop all jobs and wait at most `wait_s` for the running one, whose next step may be far."""
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
