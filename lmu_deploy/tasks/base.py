"""Interface of tasks: data in three parts, and the metric that evaluates a network on it.

Tasks are registered here by name; the module of a task is imported when it is requested.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module

import numpy as np

from lmu_deploy.core.errors import InputError
from lmu_deploy.core.metrics import accuracy, nrmse

_HOMES = {
    "capacity": "capacity:TASK",
    "copy": "copying:TASK",
    "delay": "delay:TASK",
    "digits": "digits:TASK",
    "mackey-glass": "mackey_glass:TASK",
    "psdigits": "psdigits:TASK",
    "psmnist": "mnist:PSMNIST",
    "psmnist-nru": "mnist:PSMNIST_NRU",
    "smnist": "mnist:SMNIST",
}
# A number after these names sets the window in steps; make_task of the module creates the task.
_SIZED = {"capacity": "capacity", "copy": "copying", "delay": "delay"}
_LONGEST_NUMBER = 10


@dataclass(frozen=True)
class Split:
    """One part of a task's data.

    Attributes
    ----------
    inputs : ndarray, shape (samples, steps, n_in), float32
    targets : ndarray
        Shape (samples,) int64 classes, (samples, steps) int64 classes where a task answers at
        every step, or (samples, steps, n_out) float32 signals.
    """

    inputs: np.ndarray
    targets: np.ndarray

    @property
    def x(self) -> np.ndarray:
        """The inputs."""
        return self.inputs

    @property
    def y(self) -> np.ndarray:
        """The targets."""
        return self.targets

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(self.targets)

    def batch(self, index: np.ndarray | slice) -> tuple[np.ndarray, np.ndarray]:
        """Return inputs and targets of some samples; large splits convert only these to floats."""
        return self.inputs[index], self.targets[index]


@dataclass(frozen=True)
class TaskData:
    """Training, validation and test part; `test` is used for the final evaluation only."""

    train: Split
    validation: Split
    test: Split

    def shortened(self, steps: int | None = None, samples: int | None = None) -> TaskData:
        """Return the first `samples` of each part, cut to their first `steps`, for quick runs.

        Raises
        ------
        InputError
            When sequences with a single target at the end would be cut.
        """
        return TaskData(
            *(_cut(s, steps, samples) for s in (self.train, self.validation, self.test))
        )


def _cut(split: Split, steps: int | None, samples: int | None) -> Split:
    inputs, targets = split.batch(slice(None, samples))
    if steps is None:
        return Split(inputs, targets)
    if targets.ndim == 1 and steps < inputs.shape[1]:
        raise InputError(
            f"these sequences of {inputs.shape[1]} steps have one target at their end and cannot "
            f"be cut to {steps}; omit the number of steps."
        )
    return Split(inputs[:, :steps], targets if targets.ndim == 1 else targets[:, :steps])


@dataclass(frozen=True)
class Task:
    """A task: data and metric.

    Attributes
    ----------
    name : str
    kind : {"classification", "regression"}
    n_in, n_out, steps : int
    load : callable
        Returns the TaskData, the same at every call.
    washout : int
        Number of initial steps that the metric skips, for tasks with targets at every step.
    every_step : bool
        Whether there is a target at every step instead of one after the last. Always true for
        regression.
    """

    name: str
    kind: str
    n_in: int
    n_out: int
    steps: int
    load: Callable[[], TaskData]
    washout: int = 0
    every_step: bool = False

    def __post_init__(self) -> None:
        if self.kind == "regression":
            object.__setattr__(self, "every_step", True)

    @property
    def metric(self) -> str:
        """Name of the metric: accuracy (higher is better) or nrmse (lower is better)."""
        return "accuracy" if self.kind == "classification" else "nrmse"

    def score(self, outputs: np.ndarray, targets: np.ndarray) -> float:
        """Return the metric of outputs, with the washout of the task.

        Parameters
        ----------
        outputs : ndarray, shape (samples, n_out), or (samples, steps, n_out) if `every_step`
        targets : ndarray, as in :class:`Split`
        """
        judge = accuracy if self.kind == "classification" else nrmse
        return judge(outputs, targets, self.washout)


def task_names() -> list[str]:
    """Return the names of all tasks."""
    return sorted(_HOMES)


def get_task(name: str) -> Task:
    """Return the task called `name`; ``capacity-5000`` is `capacity` with a window of 5,000 steps.

    Raises
    ------
    InputError
        When there is no task of that name (the message lists the valid names).
    """
    if name in _HOMES:
        module, attribute = _HOMES[name].split(":")
        task: Task = getattr(import_module(f"lmu_deploy.tasks.{module}"), attribute)
        return task
    base, _, window = name.rpartition("-")
    if base in _SIZED and window.isascii() and window.isdigit() and len(window) < _LONGEST_NUMBER:
        make: Callable[[int], Task] = import_module(f"lmu_deploy.tasks.{_SIZED[base]}").make_task
        return make(int(window))
    raise InputError(
        f"unknown task {name!r}; choose one of {', '.join(task_names())} (-N after "
        f"{', '.join(_SIZED)} sets the window in steps)."
    )
