"""Interpreter that runs Lava: ``python -m targets.lava.worker FOLDER``.

The folder contains one folder per network, written by `supervisor.prepare`. The worker writes the
records in these, or reports a failure. It runs in a separate process group, which the supervisor
terminates on any failure, because Lava itself would wait forever.
"""

from __future__ import annotations

from pathlib import Path

from lmu_deploy.core.files import load
from lmu_deploy.core.integer.network import INTEGER_CLASSES
from targets.lava import records
from targets.lava.plan import make_plan
from targets.lava.supervisor import let_models_report, run_to_end, work_in_folder


def run(folder: Path) -> None:
    """Run a stage of every network in `folder`, one after the other."""
    from targets.lava.assembly import build

    let_models_report(folder)
    for case in records.cases(folder):
        network = load(case / records.NETWORK, INTEGER_CLASSES)
        stage, samples, steps = records.planned(case)
        plan = make_plan(network, samples, steps, stage)
        for process in build(plan, case):
            run_to_end(process, plan.timetable.total, folder)


if __name__ == "__main__":
    work_in_folder(run)
