import threading
import time
import traceback

import pytest

from deepsteg_jax.app import jobs
from deepsteg_jax.app.jobs import CANCELLED, DONE, FAILED, RUNNING, WAITING, Job, Worker
from deepsteg_jax.errors import UserError


def until(condition):
    while not condition():
        time.sleep(0.005)


@pytest.fixture
def worker():
    with Worker() as worker:
        yield worker


def test_jobs_run_one_at_a_time_in_order(worker):
    running, most, order = [], [], []

    def work(job, name):
        running.append(name)
        most.append(len(running))
        time.sleep(0.01)
        running.remove(name)
        order.append(name)
        return name

    made = [worker.submit(lambda job, name=name: work(job, name)) for name in range(5)]
    until(lambda: all(job.finished for job in made))
    assert order == [0, 1, 2, 3, 4] == [job.result for job in made]
    assert max(most) == 1 and all(job.state == DONE for job in made)


def test_those_who_wait_know_whose_jobs_are_before_them(worker):
    go = threading.Event()
    made = [worker.submit(lambda job: go.wait(), owner) for owner in "aab"]
    until(lambda: made[0].state == RUNNING)
    assert [worker.status(job).ahead for job in made] == [0, 0, 2]
    assert [worker.status(job).after_own for job in made] == [False, True, False]
    assert [worker.status(job).state for job in made] == [RUNNING, WAITING, WAITING]
    go.set()
    until(lambda: made[2].finished)


def test_progress_and_time_left(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(jobs.time, "monotonic", lambda: now[0])
    seen = []

    def work(job):
        job.stage("hide", 40)
        seen.append(job.status())
        now[0] += 60  # compiling says nothing of the rest
        for _ in range(3):
            job.progress(4)
            seen.append(job.status())
            now[0] += 2
        job.stage("no total")
        seen.append(job.status())

    Job(work).run()
    assert [status.share for status in seen] == [0.0, 0.1, 0.2, 0.3, None]
    assert [status.left_s for status in seen] == [None, None, 16.0, 14.0, None]
    assert [status.stage for status in seen] == ["hide"] * 4 + ["no total"]


def test_more_frames_than_the_header_promised():
    def work(job):
        job.stage("hide", 2)
        for _ in range(3):
            job.progress(1)
        return job.status()

    job = Job(work)
    job.run()
    assert job.result.share == 1.0 and job.result.left_s in (None, 0.0)


def test_cancelling_a_running_job(worker):
    steps, unwound = [], threading.Event()

    def work(job):
        try:
            while True:
                job.progress(1)
                steps.append(1)
                time.sleep(0.002)
        finally:
            unwound.set()

    job = worker.submit(work)
    until(lambda: steps)
    job.cancel()
    assert job.finished and job.state == CANCELLED  # for the user at once
    assert unwound.wait(5)
    following = worker.submit(lambda job: "next")
    until(lambda: following.finished)
    assert following.result == "next" and job.state == CANCELLED and job.result is None


def test_cancelling_a_job_that_waits(worker):
    go, ran = threading.Event(), []
    first = worker.submit(lambda job: go.wait())
    second = worker.submit(lambda job: ran.append(1))
    second.cancel()
    go.set()
    last = worker.submit(lambda job: None)
    until(lambda: last.finished)
    assert first.state == DONE and second.state == CANCELLED and not ran


def test_a_result_that_comes_after_the_cancelling_is_none():
    def work(job):
        job.cancel()
        return "too late"

    job = Job(work)
    job.run()
    assert job.state == CANCELLED and job.result is None


def test_failure_is_kept_and_the_next_job_runs(worker):
    failing = worker.submit(lambda job: 1 / 0)
    following = worker.submit(lambda job: 7)
    until(lambda: following.finished)
    assert failing.state == FAILED and isinstance(failing.error, ZeroDivisionError)
    assert following.result == 7


def test_nothing_keeps_the_work_and_what_it_knows():
    job = Job(lambda job, passphrase="hunter2": None)  # noqa: S107
    job.run()
    assert job._work is None and "hunter2" not in repr(vars(job))


def test_an_error_does_not_keep_what_the_work_knew():
    def work(job):
        passphrase = "hunter2" + str(job.finished)
        try:
            raise UserError("inside")
        except UserError:
            raise UserError(f"{len(passphrase)}")  # noqa: B904

    job = Job(work)
    job.run()
    errors = job.error, job.error.__context__
    frames = [frame for error in errors for frame, _ in traceback.walk_tb(error.__traceback__)]
    assert len(frames) == 3 and not any("hunter2" in repr(frame.f_locals) for frame in frames[1:])


def test_closing_stops_everything():
    steps = []

    def work(job):
        while True:
            job.progress(1)
            steps.append(1)
            time.sleep(0.002)

    with Worker() as worker:
        made = [worker.submit(work) for _ in range(2)]
        until(lambda: steps)
        assert worker.runs
    assert not worker.runs
    assert [job.state for job in made] == [CANCELLED, CANCELLED]


def test_closing_does_not_wait_for_long():
    go = threading.Event()
    worker = Worker()
    worker.__enter__()
    job = worker.submit(lambda job: go.wait())
    until(lambda: job.state == RUNNING)
    worker.close(wait_s=0.01)
    assert worker.runs and job.state == CANCELLED
    go.set()
    until(lambda: not worker.runs)
