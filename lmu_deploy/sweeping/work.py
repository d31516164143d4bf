"""What a worker does with a job: look whether it is done, do it, keep the result at once."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from threading import Lock

from lmu_deploy.network import LMUNetwork
from lmu_deploy.sweeping.networks import Untrained, train_network
from lmu_deploy.sweeping.plan import Job, Training
from lmu_deploy.sweeping.records import Record, keep, kept
from lmu_deploy.sweeping.trial import run_trial

_LOCK = Lock()
"""Seeds of random generators are of a process; a worker with several threads takes turns."""


def run_and_keep(job: Job, folder: Path, trained: LMUNetwork | Untrained | None = None) -> Record:
    """Run a job, unless its record is there: its worker may have died between keeping and telling.

    Parameters
    ----------
    job : Job
    folder : path
        The sweep's.
    trained : LMUNetwork or Untrained, optional
        What came of the training that the job needs.
    """
    with _one_at_a_time():
        if (record := kept(folder, job.key)) is not None:
            return record
        record = run_trial(job, trained)
        keep(folder, record)
        return record


def train_and_keep(training: Training, folder: Path) -> LMUNetwork | Untrained:
    """Train a network that some jobs share."""
    with _one_at_a_time():
        return train_network(training, folder)


@contextmanager
def _one_at_a_time() -> Iterator[None]:
    """Hold this process for one job, and keep to itself what converters would print to a person."""
    with _LOCK, Path(os.devnull).open("w") as nowhere, redirect_stderr(nowhere):
        yield
