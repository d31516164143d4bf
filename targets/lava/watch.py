"""End the worker as soon as a process of Lava is dead, or whoever waits for the worker.

Lava itself waits for its processes for ever, in calls that return only when they answer. A timer's
signal is handled within those calls, from the first fork of Lava's start on.
"""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any
from unittest import mock

from targets.lava import records

PARENT = "LMU_DEPLOY_LAVA_PARENT"
"""Environment variable with the process that waits for the worker, which may be dead already."""

_SECONDS_BETWEEN_LOOKS = 0.05


@contextmanager
def watched(folder: Path) -> Iterator[None]:
    """Watch all processes that are started within, and the parent.

    When one of them dies, word of it is left in `folder` and this interpreter ends. When the
    parent dies, which would have removed the folder, it is removed and the whole process group
    ends.

    Parameters
    ----------
    folder : Path
    """
    parent, children = int(os.environ[PARENT]), list[BaseProcess]()
    start = BaseProcess.start

    def start_and_keep(process: BaseProcess) -> None:
        start(process)
        children.append(process)

    def look(*_: Any) -> None:
        if os.getppid() != parent:
            shutil.rmtree(folder, ignore_errors=True)
            os.killpg(0, signal.SIGTERM)
        codes = [process.exitcode for process in children]
        if dead := [code for code in codes if code is not None]:
            records.write_failure(folder, "run", _obituary(dead))
            os._exit(1)

    before = signal.signal(signal.SIGALRM, look)
    try:
        with mock.patch.object(BaseProcess, "start", start_and_keep):
            signal.setitimer(signal.ITIMER_REAL, _SECONDS_BETWEEN_LOOKS, _SECONDS_BETWEEN_LOOKS)
            yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _obituary(codes: list[int]) -> str:
    if min(codes) < 0:
        return f"a process of Lava was killed by {signal.Signals(-min(codes)).name}"
    return f"a process of Lava ended early with exit code {max(codes)}"
