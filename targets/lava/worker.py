"""The interpreter that runs Lava: ``python -m targets.lava.worker FOLDER``.

In: the folder that `supervisor.prepare` made. Out: the records in it, or ``failure.json``. It runs
in a process group of its own, which the supervisor ends when anything goes wrong, because Lava
itself then waits for ever.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import numpy as np

from lmu_deploy.errors import MissingDependencyError
from lmu_deploy.files import load
from lmu_deploy.integer_network import INTEGER_CLASSES
from targets.lava import records
from targets.lava.plan import make_plan

NETWORK, INPUTS = "network.safetensors", "inputs.npy"
_SECONDS_BETWEEN_LOOKS = 0.02


def run(folder: Path) -> None:
    """Run the network in `folder` on the inputs there.

    Raises
    ------
    RuntimeError
        When a process of Lava died.
    """
    from targets.lava.assembly import build

    parent = os.getppid()
    network = load(folder / NETWORK, INTEGER_CLASSES)
    inputs = np.load(folder / INPUTS, allow_pickle=False)
    plan = make_plan(network, inputs.shape[0], inputs.shape[1])
    _let_models_report(folder)
    source = build(plan, inputs, folder)
    _start(source, plan.timetable.total)
    children = set(multiprocessing.active_children())
    while not any(port.probe() for port in source.runtime.service_to_runtime):
        if dead := children - set(multiprocessing.active_children()):
            raise RuntimeError(_obituary(dead))
        if os.getppid() != parent:
            shutil.rmtree(folder, ignore_errors=True)
            os.killpg(0, signal.SIGTERM)
        time.sleep(_SECONDS_BETWEEN_LOOKS)
    source.wait()
    source.stop()


def _start(source: Any, chip_steps: int) -> None:
    from lava.magma.core.run_conditions import RunSteps
    from lava.magma.core.run_configs import Loihi2SimCfg

    condition = RunSteps(num_steps=chip_steps, blocking=False)
    source.run(condition=condition, run_cfg=Loihi2SimCfg(select_tag="fixed_pt"))


def _let_models_report(folder: Path) -> None:
    """Make every process of Lava leave word of the exception that ends it.

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


def _obituary(dead: set[Any]) -> str:
    codes = sorted(process.exitcode or 0 for process in dead)
    if codes[0] < 0:
        return f"a process of Lava was killed by {signal.Signals(-codes[0]).name}"
    return f"a process of Lava ended early with exit code {codes[-1]}"


def _last_line(error: BaseException) -> str:
    return traceback.format_exception_only(error)[-1].strip()


def main() -> None:
    """Run; on failure leave word of it and end at once, whatever Lava still waits for."""
    folder = Path(sys.argv[1])
    try:
        run(folder)
    except MissingDependencyError as error:
        records.write_failure(folder, "missing", str(error))
        os._exit(1)
    except BaseException as error:
        traceback.print_exc()
        records.write_failure(folder, "run", _last_line(error))
        os._exit(1)


if __name__ == "__main__":
    main()
