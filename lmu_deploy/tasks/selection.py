"""The data that a command runs a network on: its task's, unless another is named."""

from __future__ import annotations

from lmu_deploy.core.errors import InputError
from lmu_deploy.core.loading import Network
from lmu_deploy.tasks.base import Split, Task, get_task, task_names
from lmu_deploy.tasks.from_file import task_from_file

CALIBRATION_SAMPLES = 512
"""Training samples that measure ranges and calibrate chips."""


def task_for(network: Network, name: str | None) -> Task:
    """Give the task called `name`, or the one that the network was trained for.

    A name that ends in .npz is a file of the user's own data; see
    :func:`lmu_deploy.tasks.from_file.task_from_file`.

    Raises
    ------
    InputError
        When there is no such task, none is known, or it does not fit the network's inputs and
        outputs.
    """
    name = name or network.task
    if name is None:
        raise InputError(
            "the file records no task; name one with --task: "
            f"{', '.join(task_names())}, or an .npz file of your own data."
        )
    own_data = name.endswith(".npz")
    task = task_from_file(name) if own_data else get_task(name)
    # Own data may lack the last classes, so a network may have more outputs than it shows.
    fits = task.n_out <= network.n_out if own_data else task.n_out == network.n_out
    if task.n_in != network.n_in or not fits:
        raise InputError(
            f"task {name} has {task.n_in} inputs and {task.n_out} outputs, and the network "
            f"{network.n_in} and {network.n_out}; choose the task that it was trained for."
        )
    return task


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
