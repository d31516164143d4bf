"""Interface of tasks: data in three parts, and the metric that evaluates a network on it.

Tasks are registered here by name; the module of a task is imported when it is requested. Stratified
random choices of samples are here too.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from dataclasses import dataclass, fields, replace
from functools import lru_cache, partial
from importlib import import_module
from typing import Any

import numpy as np

from lmu_deploy.core.errors import InputError
from lmu_deploy.core.metrics import accuracy, nrmse
from lmu_deploy.tasks.log_mel import LogMel

_HOMES = {
    "capacity": "memory:CAPACITY",
    "copy": "memory:COPY",
    "delay": "memory:DELAY",
    "digits": "digits:TASK",
    "mackey-glass": "mackey_glass:TASK",
    "psdigits": "digits:PERMUTED",
    "psmnist": "digits:PSMNIST",
    "psmnist-nru": "digits:PSMNIST_NRU",
    "smnist": "digits:SMNIST",
    "spoken-digits": "spoken_digits:TASK",
}
# A number after these names sets the window in steps; the function creates the task.
_SIZED = {
    "capacity": "memory:make_capacity",
    "copy": "memory:make_copy",
    "delay": "memory:make_delay",
}
_LONGEST_NUMBER = 10
# A word after this name chooses the test part; the function creates the task.
_DIVIDED = {"spoken-digits": "spoken_digits:make_task"}


@dataclass(frozen=True)
class Split:
    """One part of a task's data.

    Attributes
    ----------
    inputs : ndarray, shape (samples, steps, n_in), float32
        Or (samples, steps, *frame), where a task has frames of several axes.
    targets : ndarray
        int64 classes, shape (samples,), or (samples, steps) where a task answers at every step;
        or float32 numbers, shape (samples, n_out), or (samples, steps, n_out). Steps without an
        answer have class -1 or NaN.
    lengths : ndarray of int64, shape (samples,), or None
        Steps of each sequence that count, from its first; what follows is padding. None where all
        have the same length.
    order : ndarray of int64, shape (samples,), or None
        Order in which samples are taken where only some are wanted: every beginning of it is a
        stratified random choice. None for the order in which they stand.
    rows : ndarray of int64, shape (samples,), or None
        Numbers that the samples had in the part from which they were taken.
    """

    inputs: np.ndarray
    targets: np.ndarray
    lengths: np.ndarray | None = None
    order: np.ndarray | None = None
    rows: np.ndarray | None = None

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

    def taken(self, index: np.ndarray | slice) -> Split:
        """Return some samples, which stand in the order in which they are named."""
        inputs, targets = self.batch(index)
        lengths = None if self.lengths is None else self.lengths[index]
        return Split(inputs, targets, lengths, rows=np.arange(len(self))[index])

    @property
    def filled(self) -> np.ndarray:
        """The inputs, with the last frame of each sequence in place of padding."""
        if self.lengths is None:
            return self.inputs
        steps = np.arange(self.inputs.shape[1])
        last = np.minimum(steps, self.lengths[:, None] - 1)
        return self.inputs[np.arange(len(self))[:, None], last]

    @property
    def every_step(self) -> bool:
        """Whether there is a target at every step."""
        return self.targets.ndim == 3 or (self.targets.ndim == 2 and self.targets.dtype.kind == "i")

    def cut(self, steps: int) -> Split:
        """Return the first steps of all samples."""
        targets = self.targets[:, :steps] if self.every_step else self.targets
        lengths = None if self.lengths is None else np.minimum(self.lengths, steps)
        return Split(self.inputs[:, :steps], targets, lengths, self.order, self.rows)

    def framed(self, frame: tuple[int, ...]) -> Split:
        """Return the same samples with frames of another shape and as many values."""
        return self.changed(inputs=self.inputs.reshape(*self.inputs.shape[:2], *frame))

    def changed(self, **values: np.ndarray | None) -> Split:
        """Return the same samples with other values of fields, such as `targets` or `order`.

        With other `inputs`, the split holds them in memory, wherever its own are.
        """
        found = copy(self)
        if "inputs" in values:
            found = Split(self.inputs[:0], self.targets, self.lengths, self.order, self.rows)
        for name, value in values.items():
            object.__setattr__(found, name, value)
        return found


class PixelSplit(Split):
    """A split of gray values, one pixel per step, which become floats in batches.

    50,000 sequences of 784 pixels take 39 MB as bytes and 157 MB as float32.

    Parameters
    ----------
    pixels : ndarray, shape (samples, steps), uint8
    targets : ndarray, shape (samples,), int64
    white : int
        Value of a white pixel, which is mapped to 1.
    """

    pixels: np.ndarray
    white: int

    def __init__(self, pixels: np.ndarray, targets: np.ndarray, white: int) -> None:
        object.__setattr__(self, "pixels", pixels)
        object.__setattr__(self, "targets", targets)
        object.__setattr__(self, "white", white)

    @property
    def inputs(self) -> np.ndarray:
        """All inputs, shape (samples, steps, 1), float32; converted at every access."""
        return self._as_floats(self.pixels)

    def batch(self, index: np.ndarray | slice) -> tuple[np.ndarray, np.ndarray]:
        """Return inputs (samples, steps, 1), float32, and targets of some samples."""
        return self._as_floats(self.pixels[index]), self.targets[index]

    def _as_floats(self, pixels: np.ndarray) -> np.ndarray:
        return (pixels.astype(np.float32) / np.float32(self.white))[:, :, None]


@dataclass(frozen=True)
class TaskData:
    """Training, validation and test part; `test` is used for the final evaluation only."""

    train: Split
    validation: Split
    test: Split

    @property
    def parts(self) -> dict[str, Split]:
        """The three parts by name."""
        return {"training": self.train, "validation": self.validation, "test": self.test}

    def shortened(self, steps: int | None = None, samples: int | None = None) -> TaskData:
        """Return `samples` of each part, cut to their first `steps`, for quick runs.

        The samples are the first ones, or of the user's data a stratified random choice.

        Raises
        ------
        InputError
            When sequences with a single target at the end would be cut.
        """
        return TaskData(
            *(_cut(s, steps, samples) for s in (self.train, self.validation, self.test))
        )


def _cut(split: Split, steps: int | None, samples: int | None) -> Split:
    index = slice(None, samples) if split.order is None else split.order[:samples]
    found = split if samples is None else split.taken(index)
    if steps is None:
        return found
    if not found.every_step and steps < found.inputs.shape[1]:
        raise InputError(
            f"these sequences of {found.inputs.shape[1]} steps have one target at their end and "
            f"cannot be cut to {steps}; omit the number of steps."
        )
    return found.cut(steps)


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
        Whether there is a target at every step instead of one after the last. By default true for
        regression.
    labels : tuple of int, str or bool
        Of the user's data: the labels of classes 0, 1, ...
    identify : callable, optional
        Of the user's data: returns a hash of the arrays.
    front_end : LogMel, optional
        Conversion of sound to the inputs; networks record it.
    frame : tuple of int
        Shape of the input of one step, with n_in values; by default (n_in,).
    """

    name: str
    kind: str
    n_in: int
    n_out: int
    steps: int
    load: Callable[[], TaskData]
    washout: int = 0
    every_step: bool = None  # type: ignore[assignment]
    labels: tuple[int | str | bool, ...] = ()
    identify: Callable[[], str] | None = None
    front_end: LogMel | None = None
    frame: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not self.frame:
            object.__setattr__(self, "frame", (self.n_in,))
        if self.every_step is None:
            object.__setattr__(self, "every_step", self.kind == "regression")

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle a built-in task by its name, and any other with its data."""
        if self.name in _HOMES and get_task(self.name) is self:
            return get_task, (self.name,)
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        values["load"] = partial(_same, self.load())
        if self.identify is not None:
            values["identify"] = partial(_same, self.identify())
        return _of_values, (values,)

    @property
    def is_own(self) -> bool:
        """Whether the data are the user's; built-in tasks keep the order of their samples."""
        return self.identify is not None

    @property
    def identity(self) -> str:
        """Identity of the data: the name of a built-in task, else a hash."""
        return self.name if self.identify is None else self.identify()

    def class_name(self, number: int) -> str:
        """Return the user's name of a class."""
        return str(self.labels[number]) if number < len(self.labels) else str(number)

    def framed(self, frame: tuple[int, ...]) -> Task:
        """Return the task with frames of another shape and as many values."""
        if frame == self.frame:
            return self

        @lru_cache(maxsize=1)
        def load() -> TaskData:
            return TaskData(*(part.framed(frame) for part in self.load().parts.values()))

        return replace(self, load=load, frame=frame)

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
            Steps without an answer do not count.
        """
        judge = accuracy if self.kind == "classification" else nrmse
        return judge(outputs, targets, self.washout)


def _same(value: Any) -> Any:
    return value


def _of_values(values: dict[str, Any]) -> Task:
    return Task(**values)


def task_names() -> list[str]:
    """Return the names of all tasks."""
    return sorted(_HOMES)


def get_task(name: str) -> Task:
    """Return the task called `name`; ``capacity-5000`` is `capacity` with a window of 5,000 steps.

    ``spoken-digits-theo`` is `spoken-digits` with all recordings of theo as its test part.

    Raises
    ------
    InputError
        When there is no task of that name (the message lists the valid names).
    """
    if name in _HOMES:
        task: Task = _imported(_HOMES[name])
        return task
    base, _, window = name.rpartition("-")
    if base in _SIZED and window.isascii() and window.isdigit() and len(window) < _LONGEST_NUMBER:
        make: Callable[[int], Task] = _imported(_SIZED[base])
        return make(int(window))
    if base in _DIVIDED and window.isidentifier():
        divided: Callable[[str], Task] = _imported(_DIVIDED[base])
        return divided(window)
    raise InputError(
        f"unknown task {name!r}; choose one of {', '.join(task_names())} (-N after "
        f"{', '.join(_SIZED)} sets the window in steps)."
    )


def _imported(home: str) -> Any:
    """Return an attribute of a module of tasks, named as ``module:attribute``."""
    module, attribute = home.split(":")
    return getattr(import_module(f"lmu_deploy.tasks.{module}"), attribute)


VALIDATION_SHARE = 10
"""Of this many training samples one validates."""

_TRIES = 200


def stratified_order(targets: np.ndarray, seed: int) -> np.ndarray:
    """Return a random order of samples whose every beginning has the classes in proportion.

    Parameters
    ----------
    targets : ndarray
        Classes of samples, shape (samples,); targets of another form have no classes, and the order
        is random.
    seed : int

    Returns
    -------
    order : ndarray of int64, shape (samples,)

    Examples
    --------
    >>> classes = np.repeat([0, 1], [75, 25])
    >>> np.bincount(classes[stratified_order(classes, 0)[:20]])
    array([15,  5])
    """
    order = np.random.default_rng(seed).permutation(len(targets))
    if targets.ndim != 1 or targets.dtype.kind != "i" or not len(targets):
        return order
    _, classes = np.unique(targets[order], return_inverse=True)
    counts = np.bincount(classes)
    by_class = np.argsort(classes, kind="stable")
    rank = np.empty(len(order))
    rank[by_class] = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)
    return np.asarray(order[np.argsort((rank + 0.5) / counts[classes], kind="stable")])


def stratified_parts(labels: np.ndarray, shares: tuple[float, ...], seed: int) -> list[np.ndarray]:
    """Split samples at random with equal class proportions in all parts.

    Parameters
    ----------
    labels : ndarray of int, shape (samples,)
    shares : tuple of float
        Fraction of each part except the last, which gets the remainder.
    seed : int
        Seed of NumPy's legacy generator, whose stream will not change.

    Returns
    -------
    parts : list of ndarray of int
        Sorted indices; every sample is in exactly one of the ``len(shares) + 1`` parts.
    """
    rng = np.random.RandomState(seed)
    bounds = np.cumsum(shares)
    members: list[list[np.ndarray]] = [[] for _ in range(len(shares) + 1)]
    for label in np.unique(labels):
        own = rng.permutation(np.flatnonzero(labels == label))
        cuts = np.rint(bounds * len(own)).astype(int)
        for part, chosen in zip(members, np.split(own, cuts), strict=True):
            part.append(chosen)
    return [np.sort(np.concatenate(part)) for part in members]


def validation_rows(
    samples: int, classes: np.ndarray | None, groups: np.ndarray | None, seed: int
) -> np.ndarray:
    """Return which training samples validate: a stratified tenth, or whole groups of about that.

    Parameters
    ----------
    samples : int
    classes : ndarray of int, shape (samples,), or None
    groups : ndarray, shape (samples,), or None
    seed : int

    Returns
    -------
    rows : ndarray of int64
        Sorted; empty with fewer than ten samples, or with a single group.
    """
    wanted = samples // VALIDATION_SHARE
    if not wanted:
        return np.zeros(0, np.int64)
    labels = np.zeros(samples, np.int64) if classes is None else classes
    if groups is None:
        return np.sort(stratified_order(labels, seed)[:wanted])
    return _whole_groups(wanted, labels, groups, seed)


def _whole_groups(wanted: int, labels: np.ndarray, groups: np.ndarray, seed: int) -> np.ndarray:
    """Return the samples of some groups, the best of many random choices in size and classes."""
    _, numbers = np.unique(groups, return_inverse=True)
    _, classes = np.unique(labels, return_inverse=True)
    table = np.zeros((numbers.max() + 1, classes.max() + 1))
    np.add.at(table, (numbers, classes), 1)
    ideal = table.sum(axis=0) * wanted / len(labels)
    rng = np.random.default_rng(seed)
    best, least = np.zeros(0, np.int64), np.inf
    for _ in range(_TRIES if len(table) > 1 else 0):
        order = rng.permutation(len(table))
        totals = table[order].cumsum(axis=0)[:-1]  # some group stays to be trained on
        errors = ((totals - ideal) ** 2 / np.maximum(ideal, 1)).sum(axis=1)
        number = int(errors.argmin())
        if errors[number] < least:
            best, least = order[: number + 1], errors[number]
    return np.flatnonzero(np.isin(numbers, best))
