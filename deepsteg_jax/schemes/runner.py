"""Run a compiled graph over the frames of a stream, some at a time."""

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import numpy as np

from deepsteg_jax import memory

CHUNK_FRAMES = 4  # frames in one call of the compiled graph, or one group where groups are longer
CHUNK_PIXELS = 2**20  # of larger frames one group in a call
CALLS = 2  # at a time, each on one core, mostly
CALL_PIXELS = 2**22  # a larger call is the only one


def chunk_frames(group: int, height: int, width: int) -> int:
    """Return the number of frames in one call of the compiled graph."""
    return group * max(1, min(CHUNK_FRAMES, CHUNK_PIXELS // (height * width)) // group)


def calls_at_once(group: int, height: int, width: int) -> int:
    """Return the number of calls of the compiled graph that run at a time."""
    return CALLS if chunk_frames(group, height, width) * height * width <= CALL_PIXELS else 1


class Runner:
    """Runs the compiled graph over chunks of a stream, some at a time; to be closed."""

    def __init__(self, run: Callable, key_words: np.ndarray, group: int, height: int, width: int):
        """Take `run`: (key_words, first_frame, *stacks) -> frames [n, height, width, 3], or a tuple."""
        self._run, self._key_words, self._frame = run, key_words, (height, width, 3)
        self._size = chunk_frames(group, height, width)
        self._group, self._waiting, self._number = group, [], 0
        self._calls = calls_at_once(group, height, width)
        self._running = deque()
        self._pool = ThreadPoolExecutor(self._calls)  # JAX runs the calls of one thread in turn

    def warm_up(self, lengths: Sequence[int], inputs: int) -> None:
        """Compile for streams of these lengths, so that reported times are those of the work."""
        for size in {size for length in lengths for size in self._sizes(length)}:
            blank = np.zeros((size, *self._frame), np.uint8)
            jax.block_until_ready(self._run(np.zeros_like(self._key_words), 0, *[blank] * inputs))
        memory.give_back()  # 0.2 GB that a compilation leaves

    def _sizes(self, length: int) -> set[int]:
        rest = length % self._size
        whole = rest // self._group * self._group
        return {size for size in (self._size * (length >= self._size), whole, rest - whole) if size}

    def take(self, item: Any, stacks: tuple[np.ndarray, ...]) -> list[tuple[Any, np.ndarray]]:
        """Take the next frame of every stack; return (item, frame) of those that are ready."""
        self._waiting.append((item, stacks))
        return self._start(self._size) if len(self._waiting) == self._size else []

    def cut(self) -> list[tuple[Any, np.ndarray]]:
        """End a group here: run all waiting frames, the last ones as a shorter group."""
        whole = len(self._waiting) // self._group * self._group
        done = self._start(whole) if whole else []
        return done + (self._start(len(self._waiting)) if self._waiting else [])

    def drop_cut_group(self) -> None:
        """Drop the waiting frames of an incomplete group."""
        del self._waiting[len(self._waiting) // self._group * self._group :]

    def finish(self) -> list[tuple[Any, np.ndarray]]:
        """Return the frames of the chunks that are running, or tuples of what belongs to one."""
        return self._fetched(0)

    def close(self) -> None:
        """End the threads; drop what is not fetched."""
        self._pool.shutdown(cancel_futures=True)

    def _fetched(self, left: int) -> list[tuple[Any, np.ndarray]]:
        done = []
        while len(self._running) > left:
            items, made = self._running.popleft()
            done += zip(items, made.result(), strict=True)
        return done

    def _start(self, count: int) -> list[tuple[Any, np.ndarray]]:
        items, stacks = zip(*self._waiting[:count], strict=True)
        del self._waiting[:count]
        done = self._fetched(self._calls - 1)  # first: one more at a time would take its memory
        stacked = [np.stack(frames) for frames in zip(*stacks, strict=True)]
        self._running.append((items, self._pool.submit(self._call, self._number, stacked)))
        self._number += count
        return done

    def _call(self, number: int, stacks: list[np.ndarray]) -> Sequence:
        made = self._run(self._key_words, number, *map(jax.device_put, stacks))
        return list(zip(*map(np.asarray, made), strict=True)) if isinstance(made, tuple) else np.asarray(made)
