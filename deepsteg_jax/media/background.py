"""Reading ahead and writing behind on threads, so that decoding, compute and encoding overlap."""

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from queue import Empty, Full, Queue
from typing import TypeVar

T = TypeVar("T")
_POLL_S = 0.1
_END = object()


def read_ahead(items: Iterable[T], depth: int = 2) -> Iterator[T]:
    """Yield `items`, computed up to `depth` ahead on a thread; its exceptions are raised here."""
    queue: Queue = Queue(depth)
    stop = threading.Event()

    def put(item):
        while not stop.is_set():
            try:
                return queue.put(item, timeout=_POLL_S)
            except Full:
                continue
        return None

    def work():
        try:
            for item in items:
                put((item, None))
                if stop.is_set():
                    return
            put((_END, None))
        except BaseException as error:  # noqa: BLE001, raised again by the reader
            put((_END, error))

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        while True:
            item, error = queue.get()
            if error is not None:
                raise error
            if item is _END:
                return
            yield item
    finally:
        stop.set()
        thread.join()


@contextmanager
def write_behind(write: Callable[[T], None], depth: int = 2) -> Iterator[Callable[[T], None]]:
    """Give put(item), which has a thread call `write(item)` in order, at most `depth` behind.

    An exception of `write` is raised by the next `put`, or when the context ends. When the context ends
    with an exception, what has not been written is dropped.
    """
    queue: Queue = Queue(depth)
    failure: list[BaseException] = []
    stop = threading.Event()

    def work():
        while not stop.is_set():
            try:
                item = queue.get(timeout=_POLL_S)
            except Empty:
                continue
            if item is _END:
                return
            try:
                write(item)
            except BaseException as error:  # noqa: BLE001, raised again by the caller
                failure.append(error)
                return

    def put(item):
        while not failure:
            try:
                return queue.put(item, timeout=_POLL_S)
            except Full:
                continue
        raise failure[0]

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        yield put
        put(_END)
    except BaseException:
        stop.set()
        raise
    finally:
        thread.join()
    if failure:
        raise failure[0]
