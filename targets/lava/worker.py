"""The interpreter that runs Lava: ``python -m targets.lava.worker FOLDER``.

In: a folder with one folder for each network, as `supervisor.prepare` made them. Out: the records
in those, or ``failure.json``. It runs in a process group of its own, which the supervisor ends when
anything goes wrong, because Lava itself then waits for ever.
"""

from __future__ import annotations

from pathlib import Path

from lmu_deploy.core.files import load
from lmu_deploy.core.integer.network import INTEGER_CLASSES
from targets.lava import records
from targets.lava.plan import make_plan
from targets.lava.session import let_models_report, run_to_end, work_in_folder

NETWORK = "network.safetensors"


def run(folder: Path) -> None:
    """Run every network in `folder` on its inputs, one after the other."""
    from targets.lava.assembly import build

    let_models_report(folder)
    for case in records.cases(folder):
        network = load(case / NETWORK, INTEGER_CLASSES)
        samples, steps, _ = records.input_messages(case).shape
        plan = make_plan(network, samples, steps)
        run_to_end(build(plan, case), plan.timetable.total, folder)


if __name__ == "__main__":
    work_in_folder(run)
