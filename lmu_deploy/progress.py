"""Progress on standard error: a moving bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Progress = Callable[[int, int], None]

_SECONDS_BETWEEN_LINES = 5.0


@contextmanager
def progress_bar(description: str, unit: str = "samples") -> Iterator[Progress]:
    """Give a callable ``(done, total)`` that shows how far a long piece of work has come.

    Parameters
    ----------
    description : str
        What is being done, such as "lava".
    unit : str
        What is counted.
    """
    if sys.stderr.isatty():
        yield from _bar(description)
    else:
        yield from _lines(description, unit)


def _bar(description: str) -> Iterator[Progress]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.progress import Progress as RichProgress

    columns = (
        TextColumn("{task.description:<14}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with RichProgress(*columns, console=Console(stderr=True)) as bar:
        job = bar.add_task(description, total=None)
        yield lambda done, total: bar.update(job, completed=done, total=total)


def _lines(description: str, unit: str) -> Iterator[Progress]:
    start = last = time.monotonic()
    seen = (0, 0)

    def show(done: int, total: int) -> None:
        nonlocal last, seen
        seen = (done, total)
        if time.monotonic() - last >= _SECONDS_BETWEEN_LINES:
            last = time.monotonic()
            print(f"{description}: {done} of {total} {unit}", file=sys.stderr, flush=True)

    yield show
    spent = time.monotonic() - start
    print(f"{description}: {seen[0]} {unit} in {spent:.1f} s", file=sys.stderr, flush=True)
