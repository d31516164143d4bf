"""Run Brian2's C++ device in an interpreter of its own: ``python -m ...worker FOLDER PARENT``.

The folder contains a job, written by `process.write_job`; PARENT is the process that waits for the
outcome, which is written into the same folder, or a failure. When the parent dies, compiler and
program are ended and the folder is removed.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from targets import workers
from targets.brian2.standalone import process

_SECONDS_BETWEEN_CHECKS = 0.5


class _Terminated(BaseException):
    """SIGTERM arrived; a BaseException, so that Brian2 does not handle it."""


def main(folder: Path, parent: int) -> int:
    """Simulate the job in `folder`; return the exit code, 0 or 1.

    Only this thread writes into the folder and removes it, so that nothing is written after the
    removal, however early or late the parent dies.
    """
    code = 1
    with contextlib.suppress(_Terminated), _terminated_with(parent):
        code = _work(folder)
    if os.getppid() != parent:
        workers.abandon(folder)
        return 1
    return code


def _work(folder: Path) -> int:
    try:
        from targets.brian2.standalone.model import simulate

        process.write_outcome(simulate(process.read_job(folder), folder), folder)
    except BaseException as error:
        traceback.print_exc()
        workers.write_failure(folder, error)
        return 1
    return 0


@contextlib.contextmanager
def _terminated_with(parent: int) -> Iterator[None]:
    """Raise _Terminated, and end all child processes, when the parent dies within.

    The main thread waits for the compiler in `os.system`, which no Python signal handler can
    interrupt. A second thread therefore watches the parent and sends SIGTERM to the whole group:
    the compiler ends, `os.system` returns, and the handler runs in the main thread.
    """
    finished = raised = False

    def terminate(*_: Any) -> None:
        nonlocal raised
        if not (finished or raised):
            raised = True
            raise _Terminated

    def watch() -> None:
        while not finished:
            if os.getppid() != parent:
                os.killpg(0, signal.SIGTERM)
            time.sleep(_SECONDS_BETWEEN_CHECKS)

    signal.signal(signal.SIGTERM, terminate)
    threading.Thread(target=watch, daemon=True).start()
    try:
        yield
    finally:
        finished = True


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2])))
