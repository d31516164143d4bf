"""Selection of the data for a network: by default those of its task."""

from __future__ import annotations

from lmu_deploy.core.errors import InputError
from lmu_deploy.core.loading import AnyNetwork
from lmu_deploy.core.network import LMUNetwork
from lmu_deploy.tasks.base import Split, Task, task_names
from lmu_deploy.tasks.dataset import Dataset, TaskLike, find_task

CALIBRATION_SAMPLES = 512
"""Number of training samples for measuring ranges and calibrating chips."""


def task_for(network: AnyNetwork | LMUNetwork, task: TaskLike | None) -> Task:
    """Return the given task, or the one on which the network was trained.

    Parameters
    ----------
    network : Network
    task : str, path, Task, Dataset or None
        A name that ends in .npz is a file with data of the user; see
        :class:`lmu_deploy.tasks.dataset.Dataset`.

    Raises
    ------
    InputError
        When there is no such task, none is known, or its inputs or outputs do not match those of
        the network.
    """
    task = network.task if task is None else task
    if not task:
        raise InputError(
            "the network records no task; name one with --task: "
            f"{', '.join(task_names())}, or an .npz file of your own data."
        )
    found = find_task(task)
    # Data of a user may lack the last classes, so a network may have more outputs.
    own_data = isinstance(task, Dataset) or found.name.endswith(".npz")
    fits = found.n_out <= network.n_out if own_data else found.n_out == network.n_out
    if found.n_in != network.n_in or not fits:
        raise InputError(
            f"task {found.name} has {found.n_in} inputs and {found.n_out} outputs, and the network "
            f"{network.n_in} and {network.n_out}; choose the task on which it was trained."
        )
    return found


def limited(split: Split, limit: int | None) -> Split:
    """Return the first `limit` samples of a split, or all samples if it is None.

    Raises
    ------
    InputError
        When `limit` is less than one.
    """
    if limit is None:
        return split
    if limit < 1:
        raise InputError(f"limit is {limit}; give at least 1 sample, or omit it for all.")
    return Split(*split.batch(slice(limit)))
