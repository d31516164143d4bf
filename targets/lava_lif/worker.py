"""Interpreter that runs Lava: ``python -m targets.lava_lif.worker FOLDER``.

The folder contains one folder per job, written by `jobs.run_jobs`. The worker writes the records in
these, or reports a failure.
"""

from __future__ import annotations

from pathlib import Path

from targets.lava.supervisor import let_models_report, run_to_end, work_in_folder
from targets.lava_lif.target import job_folders, read_job


def run(folder: Path) -> None:
    """Run all jobs in `folder` in order."""
    from targets.lava_lif.assembly import build

    let_models_report(folder)
    for place in job_folders(folder):
        job = read_job(place)
        run_to_end(build(job, place), job.chip_steps, folder)


if __name__ == "__main__":
    work_in_folder(run)
