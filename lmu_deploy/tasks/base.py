"""What every task is: data in three splits, and the metric that judges a network on it.

Tasks register here by name; a task's module is imported when it is asked for. In: nothing but a
name. Out: a :class:`Task`, whose ``load`` gives inputs (samples, steps, n_in) and targets.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module

import numpy as np

from lmu_deploy.errors import InputError

_MODULES = {
    "digits": "lmu_deploy.tasks.digits",
    "mackey-glass": "lmu_deploy.tasks.mackey_glass",
}


@dataclass(frozen=True)
class Split:
    """One part of a task's data.

    Attributes
    ----------
    inputs : ndarray, shape (samples, steps, n_in), float32
    targets : ndarray, shape (samples,) int64 classes, or (samples, steps, n_out) float32
    """

    inputs: np.ndarray
    targets: np.ndarray


@dataclass(frozen=True)
class TaskData:
    """The three parts; `validation` chooses, `test` only judges."""

    train: Split
    validation: Split
    test: Split


@dataclass(frozen=True)
class Task:
    """A task.

    Attributes
    ----------
    name : str
    kind : {"classification", "regression"}
        Classification answers once, after the last step; regression at every step.
    n_in, n_out, steps : int
    load : callable
        Gives the TaskData; the same at every call.
    washout : int
        Steps at the start of a sequence that the metric leaves out (regression).
    """

    name: str
    kind: str
    n_in: int
    n_out: int
    steps: int
    load: Callable[[], TaskData]
    washout: int = 0

    @property
    def metric(self) -> str:
        """Name of the metric: accuracy (more is better) or nrmse (less is better)."""
        return "accuracy" if self.kind == "classification" else "nrmse"


def task_names() -> list[str]:
    """Names of all tasks."""
    return sorted(_MODULES)


def get_task(name: str) -> Task:
    """Give the task called `name`.

    Raises
    ------
    InputError
        When there is none of that name (the valid names are listed).
    """
    if name not in _MODULES:
        raise InputError(f"unknown task {name!r}; choose one of {', '.join(task_names())}.")
    task: Task = import_module(_MODULES[name]).TASK
    return task
