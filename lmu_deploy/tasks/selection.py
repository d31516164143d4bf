"""The data that a command runs a network on: its task's, unless another is named."""

from __future__ import annotations

from lmu_deploy.core.errors import InputError
from lmu_deploy.core.loading import Network
from lmu_deploy.tasks.base import Split, Task, task_names
from lmu_deploy.tasks.dataset import Dataset, TaskLike, find_task

CALIBRATION_SAMPLES = 512
"""Training samples that measure ranges and calibrate chips."""


def task_for(network: Network, task: TaskLike | None) -> Task:
    """Return the given task, or the one that the network was trained for.

    Parameters
    ----------
    network : Network
    task : str, path, Task, Dataset or None
        A name that ends in .npz is a file of the user's own data; see
        :class:`lmu_deploy.tasks.dataset.Dataset`.

    Raises
    ------
    InputError
        When there is no such task, none is known, or it does not fit the network's inputs and
        outputs.
    """
    task = network.task if task is None else task
    if not task:
        raise InputError(
            "the network records no task; name one with --task: "
            f"{', '.join(task_names())}, or an .npz file of your own data."
        )
    found = find_task(task)
    # Own data may lack the last classes, so a network may have more outputs than it shows.
    own_data = isinstance(task, Dataset) or found.name.endswith(".npz")
    fits = found.n_out <= network.n_out if own_data else found.n_out == network.n_out
    if found.n_in != network.n_in or not fits:
        raise InputError(
            f"task {found.name} has {found.n_in} inputs and {found.n_out} outputs, and the network "
            f"{network.n_in} and {network.n_out}; choose the task that it was trained for."
        )
    return found


def limited(split: Split, limit: int | None) -> Split:
    """Give the first `limit` samples of a split, or all of them.

    Raises
    ------
    InputError
        When `limit` is less than one.
    """
    if limit is None:
        return split
    if limit < 1:
        raise InputError(f"limit is {limit}; give at least 1 sample, or leave it out for all.")
    return Split(*split.batch(slice(limit)))
