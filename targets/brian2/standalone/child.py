"""Start the worker, wait for it, and leave nothing of it behind."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from lmu_deploy.errors import MissingDependencyError, RunError
from targets.brian2.standalone import exchange
from targets.brian2.standalone.exchange import Job, Outcome

_WORKER = "targets.brian2.standalone.worker"
_SECONDS_BETWEEN_LOOKS = 0.1
_LINES_TOLD = 3


def run_job(job: Job, progress: Callable[[float], None] | None = None) -> Outcome:
    """Compile and run a memory in a process of its own.

    Parameters
    ----------
    job : Job
    progress : callable, optional
        Called now and then with the share that is done, if the job tells.

    Raises
    ------
    MissingDependencyError
        When there is no compiler, no make, or no Brian2.
    RunError
        When the program could not be made, or failed.
    """
    check_compiler()
    with tempfile.TemporaryDirectory(prefix="lmu-brian2-") as name:
        folder = Path(name)
        exchange.write_job(job, folder)
        _work(folder, progress)
        return exchange.read_outcome(folder)


def check_compiler() -> None:
    """Raise MissingDependencyError unless the programs that Brian2 calls are there."""
    for program in (_compiler(), "make"):
        if shutil.which(program) is None:
            raise MissingDependencyError(
                f"target brian2-cpp needs a C++ compiler and make, and {program} is not there; "
                "install them with: apt-get install g++ make (or as your system does it), or use "
                "target brian2, which runs the same network without."
            )


def _compiler() -> str:
    return (os.environ.get("CXX") or "g++").split()[0]


def _work(folder: Path, progress: Callable[[float], None] | None) -> None:
    log = folder / "output.txt"
    with log.open("wb") as output:
        worker = subprocess.Popen(
            [sys.executable, "-m", _WORKER, str(folder), str(os.getpid())],
            cwd=folder,
            env=_environment(folder),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        while True:
            with contextlib.suppress(subprocess.TimeoutExpired):
                code = worker.wait(_SECONDS_BETWEEN_LOOKS)
                break
            if progress:
                progress(exchange.read_progress(folder))
    finally:
        if worker.poll() is None:
            os.killpg(worker.pid, signal.SIGKILL)  # the worker, and its compiler or program
            worker.wait()
    if failure := exchange.read_failure(folder):
        kind, message = failure
        if kind == "missing":
            raise MissingDependencyError(message)
        raise RunError(f"the compiled run failed: {message.rstrip('.')}{_last_words(log)}.")
    if code != 0:
        raise RunError(f"the compiled run died with exit code {code}{_last_words(log)}.")


def _last_words(log: Path) -> str:
    """Give the compiler's errors, which the worker's own exception does not hold."""
    lines = log.read_text(errors="replace").splitlines()
    told = [line.strip() for line in lines if "error" in line.lower() and "Error (" not in line]
    return f" ({'; '.join(told[:_LINES_TOLD])})" if told else ""


def _environment(folder: Path) -> dict[str, str]:
    """Environment that finds these packages and leaves temporary files in `folder`."""
    packages = str(Path(__file__).resolve().parents[3])
    path = os.pathsep.join(filter(None, (packages, os.environ.get("PYTHONPATH"))))
    return {**os.environ, "PYTHONPATH": path, "TMPDIR": str(folder), "CXX": _cxx()}


def _cxx() -> str:
    return os.environ.get("CXX") or "g++"
