"""Interpreter that runs Lava: ``python -m targets.lava.worker FOLDER``.

The folder contains one folder per network, written by the target, and the name of the module that
builds the processes, which write the records in these. The worker runs in a separate process group,
which the supervisor terminates on any failure, because Lava itself would wait forever.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from targets.lava.supervisor import ASSEMBLY, let_models_report, run_to_end, work_in_folder


def run(folder: Path) -> None:
    """Run everything in `folder`, one network after the other."""
    assembly = import_module((folder / ASSEMBLY).read_text(encoding="utf-8"))
    let_models_report(folder)
    for process, chip_steps in assembly.runs(folder):
        run_to_end(process, chip_steps, folder)


if __name__ == "__main__":
    work_in_folder(run)
