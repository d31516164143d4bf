"""Start a Lava worker, watch it, and clean up after it; run Lava's processes in the worker.

However a run ends, the worker's whole process group is terminated. The resource tracker of Python's
multiprocessing ignores that signal; it removes the remaining shared memory when its clients are
gone, and then ends. All of these processes keep the worker's output open, so its end proves that
none is left.

In the worker, Lava does not report exceptions of its processes, and waits forever for dead ones, in
calls that return only when they answer. Therefore each process reports its failure in the run's
folder, and a timer's signal, which is handled within those calls, checks the processes and the
parent from the first fork of Lava's start on.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from lmu_deploy.core.errors import RunError
from lmu_deploy.core.files import save
from lmu_deploy.core.integer.network import IntegerNetwork
from lmu_deploy.core.integer.parts import Place
from targets import workers
from targets.lava import records
from targets.lava.plan import Plan

ASSEMBLY = "assembly"
"""File in the folder of a run with the name of the module that builds its processes."""
_POLL_SECONDS = 0.1
_SECONDS_TO_END = 10.0
_LONGEST_FOLDER = 70


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """Create a folder for one run, and remove it afterwards.

    Python's shared-memory manager creates a socket in it, and the path of a socket has at most 107
    bytes. If the name of the usual folder for temporary files is too long, /tmp is used.
    """
    usual = tempfile.gettempdir()
    place = (
        usual if len(os.fsencode(usual)) <= _LONGEST_FOLDER - len("/lmu-lava-xxxxxxxx") else "/tmp"
    )
    with tempfile.TemporaryDirectory(prefix="lmu-lava-", dir=place) as name:
        yield Path(name)


def prepare(
    case: Path,
    network: IntegerNetwork,
    plan: Plan,
    stage: int,
    played: Mapping[Place, np.ndarray],
    recorded: set[Place],
) -> None:
    """Write the files of one stage of a network for the worker, and its empty records.

    Parameters
    ----------
    case : Path
        New folder in that of the run.
    network : IntegerNetwork
    plan, stage, played, recorded
        See :func:`targets.lava.records.create`.
    """
    case.mkdir()
    save(replace(network, source=None), case / records.NETWORK)
    records.create(case, plan, stage, played, recorded)


def supervise(
    folder: Path,
    time_limit: float,
    progress: Callable[[int], None] | None = None,
    assembly: str = "targets.lava.assembly",
) -> None:
    """Run the worker on a prepared folder.

    Parameters
    ----------
    folder : Path
    time_limit : float
        Seconds after which the run is terminated.
    progress : callable, optional
        Called repeatedly with the number of sample steps done.
    assembly : str
        Module that builds the processes: its ``runs(folder)`` yields one of each connected set,
        and the chip steps to run.

    Raises
    ------
    RunError
        When the run failed, died, or took too long.
    MissingDependencyError
        When Lava cannot be imported.
    """
    (folder / ASSEMBLY).write_text(assembly, encoding="utf-8")
    worker = subprocess.Popen(
        [sys.executable, "-m", "targets.lava.worker", str(folder)],
        cwd=folder,
        env=_environment(folder),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        output = _watch(worker, folder, time.monotonic() + time_limit, progress)
    finally:
        _end_all(worker)
    workers.raise_failure(folder, "the Lava run")
    if output is None:
        raise RunError(
            f"the Lava run was not done after {time_limit:g} s; "
            "give fewer samples or a longer time limit."
        )
    if worker.returncode != 0:
        raise RunError(f"the Lava run died: {_cause(worker.returncode, output)}.")


def _watch(
    worker: subprocess.Popen[bytes],
    folder: Path,
    deadline: float,
    progress: Callable[[int], None] | None,
) -> bytes | None:
    """Wait for the end; return the worker's output, or None when the deadline came first."""
    done = 0
    while time.monotonic() < deadline:
        try:
            output, _ = worker.communicate(timeout=_POLL_SECONDS)
            return output
        except subprocess.TimeoutExpired as waiting:
            if worker.poll() is not None or (folder / workers.FAILURE).exists():
                return waiting.output or b""
        if progress:
            # A folder that changes while it is searched is read as no progress.
            done = max(done, records.progress(folder))
            progress(done)
    return None


def _end_all(worker: subprocess.Popen[bytes]) -> None:
    """End the worker's process group and wait until no member of it is left."""
    if worker.stdout is not None and worker.stdout.closed:
        return  # all processes are gone, and their number may be in use again
    for signals in ((signal.SIGTERM, signal.SIGCONT), (signal.SIGKILL,)):
        for number in signals:
            try:
                os.killpg(worker.pid, number)
            except ProcessLookupError:
                break
        try:
            worker.communicate(timeout=_SECONDS_TO_END)
            return
        except subprocess.TimeoutExpired:
            continue


def _environment(folder: Path) -> dict[str, str]:
    """Return the worker's environment: one thread a process, and the parent's number."""
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    return workers.environment(folder, **threads, **{PARENT: str(os.getpid())})


def _cause(code: int, output: bytes) -> str:
    if code < 0:
        return f"killed by {signal.Signals(-code).name}"
    lines = output.decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else f"exit code {code}"


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
