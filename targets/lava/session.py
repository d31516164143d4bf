"""Run connected Lava processes, and end the worker when one of them or the parent dies.

Lava does not report exceptions of its processes, and waits forever for dead ones, in calls that
return only when they answer. Here each process reports its failure in the run's folder, and a
timer's signal, which is handled within those calls, checks the processes and the parent from the
first fork of Lava's start on.
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
"""Environment variable with the number of the process that waits for the worker."""

_SECONDS_BETWEEN_CHECKS = 0.05


@contextmanager
def watched(folder: Path) -> Iterator[None]:
    """Watch the parent and all processes that are started within.

    When a process dies, a failure is reported in `folder` and this interpreter ends. When the
    parent dies, the folder is removed and the whole process group ends.

    Parameters
    ----------
    folder : Path
    """
    parent, children = int(os.environ[PARENT]), list[BaseProcess]()
    start = BaseProcess.start

    def start_and_watch(process: BaseProcess) -> None:
        start(process)
        children.append(process)

    def check(*_: Any) -> None:
        if os.getppid() != parent:
            workers.abandon(folder)
            os._exit(1)
        codes = [process.exitcode for process in children]
        if dead := [code for code in codes if code is not None]:
            workers.write_failure(folder, _cause_of_death(dead))
            os._exit(1)

    before = signal.signal(signal.SIGALRM, check)
    try:
        with mock.patch.object(BaseProcess, "start", start_and_watch):
            signal.setitimer(signal.ITIMER_REAL, _SECONDS_BETWEEN_CHECKS, _SECONDS_BETWEEN_CHECKS)
            yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _cause_of_death(codes: list[int]) -> str:
    if min(codes) < 0:
        return f"a process of Lava was killed by {signal.Signals(-min(codes)).name}"
    return f"a process of Lava ended early with exit code {max(codes)}"


def run_to_end(source: Any, chip_steps: int, folder: Path) -> None:
    """Run connected processes, and stop them.

    The interpreter ends when one of them dies; see :func:`watched`.

    Parameters
    ----------
    source : lava process
        One of the processes; running it runs them all.
    chip_steps : int
    folder : Path
        A process that fails reports it there; see :func:`targets.workers.write_failure`.
    """
    from lava.magma.core.run_conditions import RunSteps
    from lava.magma.core.run_configs import Loihi2SimCfg

    condition = RunSteps(num_steps=chip_steps)
    with watched(folder):
        source.run(condition=condition, run_cfg=Loihi2SimCfg(select_tag="fixed_pt"))
    source.stop()


def let_models_report(folder: Path) -> None:
    """Make all processes that Lava starts from now on report the exception that ends them.

    Lava starts each through `runtime.target_fn`, which does not report exceptions.
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
    """Call `work` with the folder on the command line: the main function of a worker.

    On failure the worker reports it and ends at once, even if Lava still waits for processes.
    """
    folder = Path(sys.argv[1])
    try:
        work(folder)
    except BaseException as error:
        traceback.print_exc()
        workers.write_failure(folder, error)
        os._exit(1)
