"""Selection of data: the task of a network, and samples that represent the whole.

Samples of the user's data are chosen at random by a seed, with the classes in proportion, because
files often stand in order of class. Built-in tasks have fixed orders and are cut at the front.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache

import numpy as np

from lmu_deploy.core.errors import InputError
from lmu_deploy.core.loading import AnyNetwork, float_source
from lmu_deploy.core.metrics import NO_CLASS
from lmu_deploy.core.network import LMUNetwork
from lmu_deploy.tasks.base import Split, Task, TaskData, task_names
from lmu_deploy.tasks.dataset import TaskLike, check_kind, find_task
from lmu_deploy.tasks.reading import is_path

_LOG = logging.getLogger(__name__)

CALIBRATION_SAMPLES = 512
"""Number of training samples for measuring ranges and calibrating chips."""

CLASSES, DATA = "classes", "data"
"""Entries of a network's provenance: names of its classes (JSON), hash of its training data."""


def task_for(network: AnyNetwork | LMUNetwork, task: TaskLike | None) -> Task:
    """Return the given task, or the one on which the network was trained.

    Parameters
    ----------
    network : Network
    task : str, path, Task, Dataset or None
        A name that ends in .npz is a file with data of the user; see
        :class:`lmu_deploy.tasks.dataset.Dataset`.

    Returns
    -------
    task : Task
        Labels of the user's data are numbered as the network numbers its classes.

    Raises
    ------
    InputError
        When there is no such task, none is known, or its inputs, outputs or labels do not match
        those of the network.
    """
    if task is not None:
        check_kind(task)
    provenance = _provenance(network)
    recorded = task is None
    task = network.task if task is None else task
    if not task:
        what = "the network records no task"
        if DATA in provenance:
            what = (
                "the network was trained on arrays that were given no name "
                f"(hash {provenance[DATA][:12]})"
            )
        raise InputError(
            f"{what}; name one with --task: {', '.join(task_names())}, or an .npz file of your own "
            "data."
        )
    try:
        found = find_task(task)
    except InputError as error:
        if not (recorded and is_path(str(task))):
            raise
        raise InputError(
            f"the network was trained on {task}, which cannot be read here ({error}) Name the "
            "data with --task."
        ) from error
    if recorded and found.is_own and provenance.get(DATA, found.identity) != found.identity:
        _LOG.warning(
            "%s has other contents than when the network was trained on it; name other data with "
            "--task.",
            found.name,
        )
    # Data of a user may lack some classes, so a network may have more outputs.
    lacks = found.is_own and found.kind == "classification"
    fits = found.n_out <= network.n_out if lacks else found.n_out == network.n_out
    if found.n_in != network.n_in or not fits:
        raise InputError(
            f"task {found.name} has {found.n_in} inputs and {found.n_out} outputs, and the network "
            f"{network.n_in} and {network.n_out}; choose the task on which it was trained."
        )
    _check_form(network, found)
    source = network if isinstance(network, LMUNetwork) else float_source(network)
    found = _framed(found, getattr(source, "frame", (network.n_in,)))
    return _renumbered(found, network.n_out, provenance) if lacks and found.labels else found


def _provenance(network: AnyNetwork | LMUNetwork) -> Mapping[str, str]:
    """Return the provenance of the float network, where it is known."""
    source = network if isinstance(network, LMUNetwork) else float_source(network)
    own: Mapping[str, str] = getattr(network, "provenance", {})
    return {**({} if source is None else source.provenance), **own}


def _check_form(network: AnyNetwork | LMUNetwork, task: Task) -> None:
    """Raise InputError unless network and task have outputs at the same steps."""
    sequences = getattr(network, "return_sequences", None)
    if sequences is None or sequences == task.every_step:
        return
    answers, asks = ("at every step", "once, after the last step")
    if task.every_step:
        answers, asks = asks, answers
    option = str(task.every_step).lower()
    raise InputError(
        f"the network answers {answers}, and task {task.name} asks for answers {asks}; "
        "choose a task of the same form, or import the network with --option "
        f"return_sequences={option} if it was trained so."
    )


def _framed(task: Task, frame: tuple[int, ...]) -> Task:
    """Return a task with frames of the shape that a network takes.

    Frames may be given as vectors, row by row, and with or without axes of length one.

    Raises
    ------
    InputError
        When both have several axes, and these differ.
    """
    given = task.frame
    several = len(given) > 1 and len(frame) > 1
    if several and [n for n in given if n > 1] != [n for n in frame if n > 1]:
        mine, theirs = (" x ".join(map(str, each)) for each in (given, frame))
        raise InputError(
            f"task {task.name} has frames of {mine}, and the network takes {theirs}; give x with "
            "its axes in that order, as by numpy.moveaxis."
        )
    return task.framed(frame)


def _renumbered(task: Task, n_out: int, provenance: Mapping[str, str]) -> Task:
    """Return a task whose classes have the numbers of the network's outputs.

    They are those of the same names, where the network records names. Otherwise whole numbers that
    all name an output are those outputs, and as many labels as outputs are taken in their order.

    Raises
    ------
    InputError
        When a label belongs to no output, or it is not known to which.
    """
    names = [str(label) for label in task.labels]
    numbers = list(range(len(names)))
    known = _class_names(provenance)
    if known is not None and len(known) == n_out:
        if unknown := [name for name in names if name not in known]:
            raise InputError(
                f"task {task.name} has the class {unknown[0]!r}, and the network was trained on "
                f"{', '.join(known[:20])}; leave its samples out, or train on this data."
            )
        numbers = [known.index(name) for name in names]
        labels: tuple[int | str | bool, ...] = tuple(known)
    elif all(type(label) is int and 0 <= label < n_out for label in task.labels):
        numbers = [int(label) for label in task.labels]
        labels = tuple(range(n_out))
    elif len(names) == n_out:
        labels = task.labels
        _LOG.info("outputs 0 to %d of the network are %s", n_out - 1, ", ".join(names[:20]))
    else:
        raise InputError(
            f"task {task.name} has the labels {', '.join(names[:20])}, and the network has "
            f"{n_out} outputs without names; number the classes from 0 to {n_out - 1}."
        )
    if numbers == list(range(len(names))):
        return task if len(names) == n_out else replace(task, n_out=n_out, labels=labels)
    table = np.array([*numbers, NO_CLASS])  # the last entry is what NO_CLASS itself picks

    @lru_cache(maxsize=1)
    def load() -> TaskData:
        data = task.load()
        return TaskData(*(p.changed(targets=table[p.targets]) for p in data.parts.values()))

    return replace(task, n_out=n_out, labels=labels, load=load)


def _class_names(provenance: Mapping[str, str]) -> list[str] | None:
    """Return the names of a network's classes, if it records any that can be read."""
    try:
        names = json.loads(provenance[CLASSES])
    except (KeyError, ValueError, RecursionError):
        return None
    return [str(name) for name in names] if isinstance(names, list) else None


def limited(split: Split, limit: int | None) -> Split:
    """Return `limit` samples of a split, or all samples if it is None.

    They are the first, or of the user's data a stratified random choice.

    Raises
    ------
    InputError
        When `limit` is less than one.
    """
    if limit is not None and limit < 1:
        raise InputError(f"limit is {limit}; give at least 1 sample, or omit it for all.")
    if split.order is not None:
        return split.taken(split.order[:limit])
    return split if limit is None else split.taken(slice(limit))


def first_of(split: Split, number: int) -> Split:
    """Return the first samples in the order in which they stand.

    Raises
    ------
    InputError
        When `number` is less than one.
    """
    if number < 1:
        raise InputError(f"first is {number}; give at least 1 sample, or omit it for all.")
    return split.taken(slice(number))
