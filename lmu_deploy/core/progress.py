"""Progress of long work: a bar on a terminal or in a notebook, log lines elsewhere.

The log lines have level INFO, so a script sees none unless it configures :mod:`logging`; the
command line does. Each of the three estimates the remaining time once the first part of the work is
done.
"""

from __future__ import annotations

import logging
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

Progress = Callable[[int, int], None]

_LOG = logging.getLogger(__name__)
_SECONDS_BETWEEN_LINES = 5.0
_SECONDS_UNTIL_ESTIMATE = 1.0
_SECONDS_BETWEEN_DRAWINGS = 0.1
_BAR_WIDTH = 40


@contextmanager
def progress_bar(description: str, unit: str = "samples") -> Iterator[Progress]:
    """Return a context whose callable ``(done, total)`` shows the progress of long work.

    Parameters
    ----------
    description : str
        What is being done, such as "lava".
    unit : str
        What is counted.
    """
    show = notebook_display()
    if show is not None:
        yield from _bar(description, show)
    elif sys.stderr.isatty():
        yield from _bar(description, _draw_on_terminal)
        sys.stderr.write("\n")
    else:
        yield from _lines(description, unit)


def notebook_display() -> Callable[[str], None] | None:
    """Return a function that shows a text in the running notebook, each in place of the last.

    The result is None where no notebook runs this code.
    """
    ipython = sys.modules.get("IPython")
    shell: Any = None if ipython is None else ipython.get_ipython()
    if shell is None or not hasattr(shell, "kernel"):
        return None
    display, first = uuid.uuid4().hex, True

    def show(text: str) -> None:
        nonlocal first
        shell.display_pub.publish(
            {"text/plain": text}, transient={"display_id": display}, update=not first
        )
        first = False

    return show


def _draw_on_terminal(text: str) -> None:
    sys.stderr.write(f"\r{text}\x1b[K")
    sys.stderr.flush()


def _bar(description: str, draw: Callable[[str], None]) -> Iterator[Progress]:
    start = time.monotonic()
    drawn = -1.0
    last = (0, 0)

    def text(done: int, total: int) -> str:
        now = time.monotonic()
        filled = _BAR_WIDTH * done // total if total else 0
        bar = "█" * filled + "░" * (_BAR_WIDTH - filled)
        left = time_left(now - start, done, total)
        spent = time.strftime("%H:%M:%S", time.gmtime(now - start))
        return f"{description:<14} {bar} {done}/{total} {spent} {left}".rstrip()

    def show(done: int, total: int) -> None:
        nonlocal drawn, last
        last, now = (done, total), time.monotonic()
        if drawn < 0.0 or now - drawn >= _SECONDS_BETWEEN_DRAWINGS:
            draw(text(done, total))
            drawn = now

    try:
        yield show
    finally:
        draw(text(*last))


def _lines(description: str, unit: str) -> Iterator[Progress]:
    start = last = time.monotonic()
    seen = said = (0, 0)
    estimated = False

    def show(done: int, total: int) -> None:
        nonlocal last, seen, said, estimated
        seen, now = (done, total), time.monotonic()
        if done == total and seen == said:  # what follows the last part has no parts of its own
            return
        first = bool(done) and not estimated and now - start >= _SECONDS_UNTIL_ESTIMATE
        if (first and done < total) or now - last >= _SECONDS_BETWEEN_LINES:
            last, estimated, said = now, bool(done), seen
            left = time_left(now - start, done, total)
            suffix = f", {left}" if left else ""
            _LOG.info("%s: %d of %d %s%s", description, done, total, unit, suffix)

    yield show
    _LOG.info("%s: %d %s in %.1f s", description, seen[0], unit, time.monotonic() - start)


def time_left(spent: float, done: int, total: int) -> str:
    """Return the remaining time of some work at the pace so far, in words.

    The result is empty before the first part is done and after the last.

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
