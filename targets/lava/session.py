"""One run of connected Lava processes, watched from the interpreter that started it.

Lava keeps to itself what its processes raise, and waits for ever for those that died. Here each
of them leaves word of its end in the run's folder, and the wait ends with the first that is gone.

End the worker as soon as a process of Lava is dead, or whoever waits for the worker.

Lava itself waits for its processes for ever, in calls that return only when they answer. A timer's
signal is handled within those calls, from the first fork of Lava's start on.
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any
from unittest import mock

from targets import workers

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
            workers.abandon(folder)
            os._exit(1)
        codes = [process.exitcode for process in children]
        if dead := [code for code in codes if code is not None]:
            workers.write_failure(folder, _obituary(dead))
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


def run_to_end(source: Any, chip_steps: int, folder: Path) -> None:
    """Run a set of connected processes, and stop them.

    The interpreter ends when one of them dies: see :mod:`targets.lava.session`.

    Parameters
    ----------
    source : lava process
        One of the processes; running it runs them all.
    chip_steps : int
    folder : Path
        Where a process that fails leaves word; see :func:`targets.workers.write_failure`.
    """
    from lava.magma.core.run_conditions import RunSteps
    from lava.magma.core.run_configs import Loihi2SimCfg

    condition = RunSteps(num_steps=chip_steps)
    with watched(folder):
        source.run(condition=condition, run_cfg=Loihi2SimCfg(select_tag="fixed_pt"))
    source.stop()


def let_models_report(folder: Path) -> None:
    """Make every process of Lava that starts from now on leave word of the exception that ends it.

    Lava starts each through `runtime.target_fn` and keeps what is raised to itself.
    """
    from lava.magma.runtime import runtime

    start = runtime.target_fn

    def start_and_report(*args: Any, **kwargs: Any) -> None:
        try:
            start(*args, **kwargs)
        except BaseException as error:
            model = getattr(kwargs.get("builder"), "proc_model", None)
            name = "" if model is None else f" in {model.__name__}"
            workers.write_failure(folder, f"{workers.last_line(error)}{name}")
            raise

    runtime.target_fn = start_and_report


def work_in_folder(work: Callable[[Path], None]) -> None:
    """Do `work` in the folder that the command line names: the main function of a worker.

    On failure it leaves word of it and ends at once, whatever Lava still waits for.
    """
    folder = Path(sys.argv[1])
    try:
        work(folder)
    except BaseException as error:
        traceback.print_exc()
        workers.write_failure(folder, error)
        os._exit(1)
