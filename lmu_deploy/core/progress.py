"""Progress on standard error: a moving bar on a terminal, plain lines elsewhere.

Both say how long the rest will take as soon as the first part of the work is done.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Progress = Callable[[int, int], None]

_SECONDS_BETWEEN_LINES = 5.0
_SECONDS_UNTIL_RECKONED = 1.0


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
    )
    from rich.progress import Progress as RichProgress

    columns = (
        TextColumn("{task.description:<14}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[left]}"),
    )
    start = time.monotonic()
    with RichProgress(*columns, console=Console(stderr=True)) as bar:
        job = bar.add_task(description, total=None, left="")

        def show(done: int, total: int) -> None:
            left = time_left(time.monotonic() - start, done, total)
            bar.update(job, completed=done, total=total, left=left)

        yield show


def _lines(description: str, unit: str) -> Iterator[Progress]:
    start = last = time.monotonic()
    seen = (0, 0)
    reckoned = False

    def show(done: int, total: int) -> None:
        nonlocal last, seen, reckoned
        seen, now = (done, total), time.monotonic()
        first = bool(done) and not reckoned and now - start >= _SECONDS_UNTIL_RECKONED
        if (first and done < total) or now - last >= _SECONDS_BETWEEN_LINES:
            last, reckoned = now, bool(done)
            left = time_left(now - start, done, total)
            told = f"{description}: {done} of {total} {unit}" + (f", {left}" if left else "")
            print(told, file=sys.stderr, flush=True)

    yield show
    spent = time.monotonic() - start
    print(f"{description}: {seen[0]} {unit} in {spent:.1f} s", file=sys.stderr, flush=True)


def time_left(spent: float, done: int, total: int) -> str:
    """Say how long the rest of some work will take at the pace so far; nothing where none is known.

    Parameters
    ----------
    spent : float
        Seconds.
    done, total : int

    Examples
    --------
    >>> time_left(30.0, 1, 11)
    'about 5 min left'
    """
    if not done or done >= total:
        return ""
    seconds = spent * (total - done) / done
    if seconds < 100:
        return f"about {max(1, round(seconds))} s left"
    if seconds < 100 * 60:
        return f"about {seconds / 60:.0f} min left"
    return f"about {seconds / 3600:.1f} h left"
