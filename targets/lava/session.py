"""One run of connected Lava processes, watched from the interpreter that started it.

Lava keeps to itself what its processes raise, and waits for ever for those that died. Here each
of them leaves word of its end in the run's folder, and the wait ends with the first that is gone.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lmu_deploy.errors import MissingDependencyError
from targets.lava import records
from targets.lava.watch import watched


def run_to_end(source: Any, chip_steps: int, folder: Path) -> None:
    """Run a set of connected processes, and stop them.

    The interpreter ends when one of them dies: see :mod:`targets.lava.watch`.

    Parameters
    ----------
    source : lava process
        One of the processes; running it runs them all.
    chip_steps : int
    folder : Path
        Where a process that fails leaves word; see :func:`targets.lava.records.write_failure`.
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
            records.write_failure(folder, "run", f"{_last_line(error)}{name}")
            raise

    runtime.target_fn = start_and_report


def work_in_folder(work: Callable[[Path], None]) -> None:
    """Do `work` in the folder that the command line names: the main function of a worker.

    On failure it leaves word of it and ends at once, whatever Lava still waits for.
    """
    folder = Path(sys.argv[1])
    try:
        work(folder)
    except MissingDependencyError as error:
        records.write_failure(folder, "missing", str(error))
        os._exit(1)
    except BaseException as error:
        traceback.print_exc()
        records.write_failure(folder, "run", _last_line(error))
        os._exit(1)


def _last_line(error: BaseException) -> str:
    return traceback.format_exception_only(error)[-1].strip()
