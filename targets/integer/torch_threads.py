"""Threads that each run a part of a test set, with one thread of PyTorch's own in each."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager

import torch


def thread_count() -> int:
    """How many threads PyTorch may use here; OMP_NUM_THREADS sets it."""
    return int(torch.get_num_threads())


@contextmanager
def pool(threads: int) -> Iterator[Executor]:
    """Give threads; what has not begun when the block is left is not begun any more.

    PyTorch keeps a number of threads for each thread, and a default for those to come, which is as
    before afterwards.
    """
    before = torch.get_num_threads()
    executor = ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,))
    try:
        yield executor
    finally:
        executor.shutdown(cancel_futures=True)
        torch.set_num_threads(before)
