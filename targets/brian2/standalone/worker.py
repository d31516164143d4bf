"""The interpreter in which Brian2 is told to make programs: ``python -m ...worker FOLDER PARENT``.

In: a folder with a job, as `exchange.write_job` left it, and the process that waits. Out: the
outcome in that folder, or word of what went wrong. When the parent dies, which would have removed
the folder, it is removed, and compiler and program end with this process.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import threading
import time
import traceback
from pathlib import Path

from lmu_deploy.core.errors import MissingDependencyError
from targets.brian2.standalone import process

_SECONDS_BETWEEN_LOOKS = 0.5


def main(folder: Path, parent: int) -> int:
    """Do the job in `folder`; the exit code is 0 or 1."""
    threading.Thread(target=_end_with, args=(parent, folder), daemon=True).start()
    try:
        from targets.brian2.standalone.model import simulate

        process.write_outcome(simulate(process.read_job(folder), folder), folder)
    except MissingDependencyError as error:
        process.write_failure(folder, "missing", str(error))
        return 1
    except BaseException as error:
        traceback.print_exc()
        last = traceback.format_exception_only(error)[-1].strip()
        process.write_failure(folder, "run", last)
        return 1
    return 0


def _end_with(parent: int, folder: Path) -> None:
    while os.getppid() == parent:
        time.sleep(_SECONDS_BETWEEN_LOOKS)
    shutil.rmtree(folder, ignore_errors=True)
    os.killpg(0, signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2])))
