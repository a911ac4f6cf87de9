import threading
from queue import Queue
from types import SimpleNamespace

import pytest

from deepsteg_jax.media import background
from deepsteg_jax.media.background import read_ahead, write_behind


class Boom(Exception):
    pass


@pytest.fixture(autouse=True)
def no_thread_is_left():
    before = set(threading.enumerate())
    yield
    left = set(threading.enumerate()) - before
    for thread in left:
        thread.join(10)  # only matters where the test is about to fail
    assert not left


def test_read_ahead_keeps_the_order():
    assert list(read_ahead(range(100))) == list(range(100))
    assert list(read_ahead(iter("abc"), depth=1)) == ["a", "b", "c"]
    assert list(read_ahead([])) == []
    assert list(read_ahead([None, None])) == [None, None]


def test_read_ahead_runs_on_another_thread():
    def items():
        yield threading.current_thread()

    assert list(read_ahead(items()))[0] is not threading.current_thread()


def test_read_ahead_raises_what_the_producer_raises_after_its_items():
    def items():
        yield 1
        yield 2
        raise Boom("no more")

    seen = []
    with pytest.raises(Boom, match="no more"):
        for item in read_ahead(items()):
            seen.append(item)
    assert seen == [1, 2]


def test_read_ahead_raises_at_once_what_iter_raises():
    class Bad:
        def __iter__(self):
            raise Boom

    with pytest.raises(Boom):
        list(read_ahead(Bad()))


@pytest.mark.parametrize("depth", [1, 2, 5])
def test_read_ahead_is_bounded(depth):
    made = []
    ready = threading.Semaphore(0)

    def items():
        for i in range(50):
            made.append(i)
            ready.release()
            yield i

    stream = read_ahead(items(), depth)
    for i in range(50):
        assert next(stream) == i
        assert len(made) <= i + 1 + depth + 2
    with pytest.raises(StopIteration):
        next(stream)
    assert made == list(range(50))


def test_read_ahead_fills_its_queue_while_the_consumer_is_busy():
    third = threading.Event()

    def items():
        yield 0
        yield 1
        third.set()
        yield 2

    stream = read_ahead(items(), depth=2)
    assert next(stream) == 0
    assert third.wait(10)  # nothing more has been asked for
    assert list(stream) == [1, 2]


@pytest.mark.parametrize("taken", [1, 3])
def test_read_ahead_abandoned(taken):
    made = []

    def items():
        while True:
            made.append(None)
            yield len(made)

    before = set(threading.enumerate())  # some of which may end meanwhile
    stream = read_ahead(items(), depth=2)
    for _ in range(taken):
        next(stream)
    assert len(set(threading.enumerate()) - before) == 1
    stream.close()
    assert not set(threading.enumerate()) - before
    assert len(made) <= taken + 4


def test_read_ahead_after_an_exception_of_the_consumer():
    before = set(threading.enumerate())

    def use():
        for item in read_ahead(iter(range(10**9))):
            raise Boom(item)

    with pytest.raises(Boom):
        use()
    assert not set(threading.enumerate()) - before


def test_read_ahead_not_started_leaves_the_items_alone():
    made = []
    stream = read_ahead(made.append(i) for i in range(3))
    stream.close()
    assert made == []


def test_write_behind_keeps_the_order():
    written = []
    with write_behind(written.append) as put:
        for i in range(100):
            put(i)
    assert written == list(range(100))


def test_write_behind_writes_none_and_falsy_items():
    written = []
    with write_behind(written.append) as put:
        for item in (None, 0, ()):
            put(item)
    assert written == [None, 0, ()]


def test_write_behind_runs_on_another_thread():
    threads = []
    with write_behind(lambda item: threads.append(threading.current_thread())) as put:
        put(1)
    assert threads[0] is not threading.current_thread()


def test_write_behind_of_nothing():
    with write_behind(pytest.fail):
        pass


def test_write_behind_raises_in_a_later_put():
    def write(item):
        if item == 2:
            raise Boom(f"item {item}")

    count = 0
    with pytest.raises(Boom, match="item 2"), write_behind(write) as put:  # noqa: PT012
        for i in range(10**9):  # ends only because put raises
            put(i)
            count = i
    assert count >= 2


def test_write_behind_raises_at_the_end_for_the_last_item():
    def write(item):
        if item == "last":
            raise Boom

    with pytest.raises(Boom), write_behind(write) as put:
        put("first")
        put("last")


def test_write_behind_stops_writing_after_a_failure():
    written = []

    def write(item):
        written.append(item)
        raise Boom

    with pytest.raises(Boom), write_behind(write, depth=3) as put:
        put(1)
        put(2)
        put(3)
    assert written == [1]


def test_write_behind_drops_the_rest_after_an_exception_of_the_caller(monkeypatch):
    gate, written = threading.Event(), []

    class Thread(threading.Thread):
        def join(self, timeout=None):
            gate.set()  # lets write go on after the context was told to stop
            super().join(timeout)

    def write(item):
        gate.wait()
        written.append(item)

    def use():
        with write_behind(write, depth=2) as put:
            put(0)
            put(1)
            raise Boom

    monkeypatch.setattr(background, "threading", SimpleNamespace(Event=threading.Event, Thread=Thread))

    with pytest.raises(Boom):
        use()
    assert written in ([], [0])


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_write_behind_is_bounded(depth):
    """With the writer stuck, the caller comes depth + 1 items ahead and no further."""
    gate, ahead = threading.Event(), Queue()

    def use():
        with write_behind(lambda item: gate.wait(10), depth) as put:
            for i in range(20):
                put(i)
                ahead.put(i)

    caller = threading.Thread(target=use)
    caller.start()
    try:
        assert [ahead.get(timeout=10) for _ in range(depth)] == list(range(depth))
        caller.join(0.3)
        assert caller.is_alive() and ahead.qsize() <= 1
    finally:
        gate.set()
        caller.join(10)
    assert not caller.is_alive()
