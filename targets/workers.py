"""Worker subprocesses: their environment, the failures they report, and their end without a parent.

A worker reads its job from a temporary folder of its parent and writes its results there. It leads
a separate process group, which the parent kills when the run ends early. When the parent dies
first, the worker ends the group and removes the folder.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
import traceback
from collections.abc import Mapping
from pathlib import Path

from lmu_deploy.core.errors import MissingDependencyError, RunError

FAILURE = "failure.json"
"""File in the folder of a run in which a worker reports its failure."""

_SECONDS_TO_REMOVE = 10.0
_SECONDS_BETWEEN_ATTEMPTS = 0.02


def environment(folder: Path, **more: str) -> dict[str, str]:
    """Return the environment of a worker.

    Parameters
    ----------
    folder : Path
        Becomes the folder for temporary files.
    **more : str
        Further variables.
    """
    packages = str(Path(__file__).resolve().parents[1])
    path = os.pathsep.join(filter(None, (packages, os.environ.get("PYTHONPATH"))))
    ours: Mapping[str, str] = {"PYTHONPATH": path, "TMPDIR": str(folder), **more}
    return {**os.environ, **ours}


def write_failure(folder: Path, error: BaseException | str) -> None:
    """Report a failure; the first report in a folder stays.

    Parameters
    ----------
    folder : Path
        Of the run.
    error : exception or str
        What ended the worker. MissingDependencyError keeps its class and message, any other
        exception is reported by its last line.
    """
    kind, message = "run", str(error)
    if isinstance(error, MissingDependencyError):
        kind = "missing"
    elif isinstance(error, BaseException):
        message = last_line(error)
    draft = folder / f"failure.{os.getpid()}"
    draft.write_text(json.dumps({"kind": kind, "message": message}), encoding="utf-8")
    try:
        os.link(draft, folder / FAILURE)
    except FileExistsError:
        pass
    finally:
        draft.unlink()


def read_failure(folder: Path) -> tuple[str, str] | None:
    """Return kind ("missing" or "run") and message of the first failure, or None."""
    path = folder / FAILURE
    if not path.exists():
        return None
    failure = json.loads(path.read_text(encoding="utf-8"))
    return failure["kind"], failure["message"]


def raise_failure(folder: Path, run: str, details: str = "") -> None:
    """Raise the failure that a worker reported, if any.

    Parameters
    ----------
    folder : Path
    run : str
        What failed, for the message: "the Lava run".
    details : str, optional
        Added to the message of a RunError.

    Raises
    ------
    MissingDependencyError, RunError
    """
    if failure := read_failure(folder):
        kind, message = failure
        if kind == "missing":
            raise MissingDependencyError(message)
        raise RunError(f"{run} failed: {message.rstrip('.')}{details}.")


def last_line(error: BaseException) -> str:
    """Return the last line of an exception's traceback: its class and message."""
    return traceback.format_exception_only(error)[-1].strip()


def abandon(folder: Path) -> None:
    """End all other processes of this process group, and remove `folder`.

    A process that is about to end may still write into the folder, so both are repeated until the
    folder is gone. SIGTERM is ignored in this process from here on. Call it from the main thread.
    """
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    deadline = time.monotonic() + _SECONDS_TO_REMOVE
    while True:
        os.killpg(0, signal.SIGTERM)
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists() or time.monotonic() > deadline:
            return
        time.sleep(_SECONDS_BETWEEN_ATTEMPTS)
