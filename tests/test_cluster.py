"""Jobs in this process, in processes that are killed, and through a scheduler."""

import sys
from contextlib import closing

import pytest

from deepsteg_jax import cluster, memory
from deepsteg_jax.errors import UserError
from tests import jobs
from tests.helpers import needs_dask


def outcomes(*arguments, **named):
    """The outcomes by the number of their job."""
    return {outcome.number: outcome for outcome in cluster.run(*arguments, **named)}


def test_this_process_does_jobs_in_order_and_goes_on_after_a_failure():
    found = list(cluster.run(jobs.act, ["a", "fail", "b"]))
    assert [(outcome.number, outcome.result) for outcome in found] == [(0, "a"), (1, None), (2, "b")]
    assert isinstance(found[1].error, ValueError)
    assert list(cluster.run(jobs.act, [], workers=2)) == []


@needs_dask
@pytest.mark.slow
def test_a_job_that_kills_its_workers_fails_alone(tmp_path):
    from dask.system import CPU_COUNT

    words = ["a", "die", "fail", str(tmp_path / "once"), "threads", *"bcdef"]
    found = outcomes(jobs.act, words, workers=2)
    assert sorted(found) == list(range(len(words)))
    errors = {words[number]: type(found[number].error) for number in found if found[number].error}
    assert errors == {"die": cluster.LostError, "fail": ValueError}
    assert found[3].result == words[3]  # the second worker did it
    share = str(max(1, CPU_COUNT // 2))
    assert found[4].result == (share, share)
    assert [found[number].result for number in range(5, 10)] == list("bcdef")


@pytest.fixture
def scheduler(tmp_path):
    """A scheduler behind TLS, without workers, and its address; Dask's configuration names the files."""
    import dask
    from distributed import LocalCluster, Security

    security = Security.temporary()
    files = {"certificate": security.tls_client_cert, "key": security.tls_client_key}
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    certificate, key = (str(tmp_path / name) for name in files)
    tls = {"ca-file": certificate, "client.cert": certificate, "client.key": key}
    with (
        dask.config.set({f"distributed.comm.tls.{name}": path for name, path in tls.items()}),
        LocalCluster(
            n_workers=0, threads_per_worker=1, processes=False, security=security, dashboard_address=None
        ) as started,
    ):
        yield started


@needs_dask
def test_another_scheduler_may_have_its_workers_later(scheduler):
    told = []

    def announce(line):
        told.append(line)
        scheduler.scale(1)

    address = scheduler.scheduler_address
    assert address.startswith("tls://")
    with closing(cluster.run(jobs.act, ["a", "fail", "b"], scheduler=address, announce=announce)) as found:
        assert {outcome.result for outcome in found} == {"a", None, "b"}
    assert told == ["no worker has joined the scheduler yet: waiting for one"]


@needs_dask
@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("tls://127.0.0.1:1", "needs the files of TLS"),
        ("tcp://127.0.0.1:1", "cannot reach the scheduler tcp://127.0.0.1:1: "),
        ("127.0.0.1", "cannot reach the scheduler 127.0.0.1: missing port"),
    ],
)
def test_a_scheduler_that_cannot_be_reached(address, message):
    import dask

    told = []
    with (
        dask.config.set({"distributed.comm.timeouts.connect": "100ms"}),
        pytest.raises(UserError, match=message),
    ):
        list(cluster.run(jobs.act, ["a"], scheduler=address, announce=told.append))
    assert ["not encrypted" in line for line in told] == ([] if address.startswith("tls") else [True])


def test_without_dask_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(UserError, match=r"pip install \"\.\[cluster\]\""):
        list(cluster.run(jobs.act, ["a"], workers=1))


@needs_dask
def test_memory_limits_the_number_of_processes(monkeypatch):
    from dask import system

    monkeypatch.setattr(system, "CPU_COUNT", 8)
    for free, expected in ((10, 3), (100, 8), (1, 1), (None, 8)):
        monkeypatch.setattr(memory, "available", lambda free=free: free)
        assert cluster.fitting(3) == expected
