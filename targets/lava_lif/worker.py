"""The interpreter that runs Lava: ``python -m targets.lava_lif.worker FOLDER``.

In: a folder with one folder for each job, as `session.prepare` made them. Out: the records in
these, or ``failure.json``.
"""

from __future__ import annotations

from pathlib import Path

from targets.lava.session import let_models_report, run_to_end, work_in_folder
from targets.lava_lif.jobs import job_folders, read_job


def run(folder: Path) -> None:
    """Run all jobs in `folder`, one after the other."""
    from targets.lava_lif.assembly import build

    let_models_report(folder)
    for place in job_folders(folder):
        job = read_job(place)
        run_to_end(build(job, place), job.chip_steps, folder)


if __name__ == "__main__":
    work_in_folder(run)
