import threading

import numpy as np
import pytest

from deepsteg_jax.schemes import runner

KEY = np.zeros(8, np.uint32)


def frames_of(count):
    return [np.full((2, 3, 3), i, np.uint8) for i in range(count)]


@pytest.mark.parametrize("calls", [1, 2])
def test_frames_come_in_order_with_their_items(monkeypatch, calls):
    monkeypatch.setattr(runner, "CALLS", calls)
    numbers = []

    def run(key, number, one, other):
        numbers.append(number)
        return np.asarray(one) + np.asarray(other), np.arange(number, number + len(one))

    work = runner.Runner(run, KEY, 4, 2, 3)
    stream = frames_of(11)
    done = [got for i, frame in enumerate(stream) for got in work.take(str(i), (frame, frame))]
    done += work.cut() + work.finish()
    assert [item for item, _ in done] == [str(i) for i in range(11)]
    assert [int(number) for _, (_, number) in done] == list(range(11))
    assert [int(picture.max()) for _, (picture, _) in done] == [2 * i for i in range(11)]
    assert sorted(numbers) == [0, 4, 8]


def test_two_calls_run_at_a_time():
    both = threading.Barrier(2, timeout=60)

    def run(key, number, stack):
        both.wait()
        return stack

    work = runner.Runner(run, KEY, 4, 2, 3)
    done = [got for frame in frames_of(8) for got in work.take(None, (frame,))]
    assert not done
    assert len(work.finish()) == 8
    assert runner.calls_at_once(4, 2160, 3840) == 1


def test_what_a_call_raises_comes_back():
    def run(key, number, stack):
        raise MemoryError

    work = runner.Runner(run, KEY, 1, 2, 3)
    work.take(None, (frames_of(1)[0],))
    with pytest.raises(MemoryError):
        work.cut() or work.finish()
