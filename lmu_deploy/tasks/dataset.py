"""Dataset: the data of a task, from its name, from arrays or from files.

Files are an ``.npz`` or a folder of ``.npy`` with the parts ``x_train``, ``y_train``, ``x_test``
and ``y_test``, and if wanted ``x_val``, ``y_val``, ``groups`` and the lengths of padded sequences,
``lengths_train`` and so on. Files of a folder are memory-mapped.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np

from lmu_deploy.core.errors import InputError
from lmu_deploy.core.files import atomic_write
from lmu_deploy.core.representation import counted, shortened
from lmu_deploy.core.validation import check_choice
from lmu_deploy.tasks.arrays import (
    Answers,
    Label,
    Sequences,
    StoredSplit,
    read_answers,
    read_sequences,
)
from lmu_deploy.tasks.base import (
    Split,
    Task,
    TaskData,
    get_task,
    stratified_order,
    validation_rows,
)
from lmu_deploy.tasks.reading import ARRAYS, SETTINGS, is_path, read_arrays

UNNAMED = "dataset"
"""Name of a dataset without one; networks do not record it as their task."""

_PARTS = ("train", "val", "test")
_HASHED_BYTES, _HASHED_BLOCKS, _BLOCK = 2**28, 64, 2**20


class Dataset:
    """Samples to train, choose and judge a network on.

    Parameters
    ----------
    x_train, x_test : array, list or data frame
        Shape (samples, steps, features), or (samples, steps) with one feature; frames of several
        axes, such as (samples, steps, height, width, channels); a list of arrays (steps, features)
        of different lengths; a data frame of one row per sample, or of one row per step with a
        MultiIndex (sample, step).
    y_train, y_test : array, list or series
        A class for each sample (samples,) or for each step (samples, steps): whole numbers, strings
        or booleans. Or real numbers, for each sample (samples,) or (samples, outputs), or for each
        step (samples, steps, outputs). An answer after the last step is read at each sequence's
        own last step.
    x_val, y_val : optional
        Samples that choose between settings. By default a stratified tenth of the training samples,
        and none where there are fewer than ten.
    groups : array_like, shape (training samples,), optional
        Samples of one group (a speaker, a patient) stay in one part when the validation samples are
        chosen.
    kind : {"classification", "regression"}, optional
        By default real numbers for each sample are classes if they are whole and few differ.
    place : {"sample", "step"}, optional
        What has one answer, where the shape does not say it.
    name : str
        Name of the data in reports.
    seed : int
        Of every choice of samples.

    Raises
    ------
    InputError
        When an array has another shape or type, is empty or holds NaN.

    Examples
    --------
    >>> import numpy as np
    >>> x, y = np.zeros((20, 5, 1)), np.repeat(["down", "up"], 10)
    >>> data = Dataset(x, y, x, y)
    >>> data
    Dataset('dataset', classification, 5 steps of 1 input, 2 outputs)
    >>> data.classes, len(data.train), len(data.validation), data.test.x.shape
    (('down', 'up'), 18, 2, (20, 5, 1))
    """

    def __init__(
        self,
        x_train: Any,
        y_train: Any,
        x_test: Any,
        y_test: Any,
        *,
        x_val: Any = None,
        y_val: Any = None,
        groups: Any = None,
        kind: str | None = None,
        place: str | None = None,
        name: str = UNNAMED,
        seed: int = 0,
    ) -> None:
        given = {"x_train": x_train, "y_train": y_train, "x_test": x_test, "y_test": y_test}
        given |= {"x_val": x_val, "y_val": y_val, "groups": groups, "kind": kind, "place": place}
        self.task = _task(name, {part: v for part, v in given.items() if v is not None}, seed)

    @classmethod
    def from_task(cls, task: Task | str | Path) -> Dataset:
        """Return the data of a task, which are loaded when they are first used.

        Parameters
        ----------
        task : Task, str or path
            A task, its name, an ``.npz`` file or a folder of ``.npy`` files.

        Raises
        ------
        InputError
            When there is no such task or file, or the file is damaged.
        """
        dataset = cls.__new__(cls)
        dataset.task = find_task(task)
        return dataset

    @cached_property
    def data(self) -> TaskData:
        """All three parts."""
        return self.task.load()

    @property
    def train(self) -> Split:
        """Samples to train and calibrate on, as ``train.x`` and ``train.y``."""
        return self.data.train

    @property
    def validation(self) -> Split:
        """Samples that choose between settings."""
        return self.data.validation

    @property
    def test(self) -> Split:
        """Samples that judge a network."""
        return self.data.test

    @property
    def name(self) -> str:
        """Name of the data in reports."""
        return self.task.name

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes; empty for built-in tasks and real numbers."""
        return tuple(map(str, self.task.labels))

    @property
    def identity(self) -> str:
        """Hash of the arrays; the name of a built-in task."""
        return self.task.identity

    def save(self, path: Path | str) -> Path:
        """Write the data as an ``.npz`` file that every command takes.

        Raises
        ------
        InputError
            When the file cannot be written.
        """
        arrays: dict[str, Any] = {"kind": self.task.kind}
        arrays["place"] = "step" if self.task.every_step else "sample"
        for name, part in zip(_PARTS, (self.train, self.validation, self.test), strict=True):
            if not len(part):
                continue
            arrays[f"x_{name}"], arrays[f"y_{name}"] = part.inputs, self._answers(part.targets)
            if part.lengths is not None:
                arrays[f"lengths_{name}"] = part.lengths
        with atomic_write(path) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, **arrays)
        return Path(path)

    def _answers(self, targets: np.ndarray) -> np.ndarray:
        """Return the user's labels for classes; padding gets the first one."""
        if not self.task.labels:
            return targets
        return np.array(self.task.labels)[np.maximum(targets, 0)]

    def __repr__(self) -> str:
        """Return one short line; nothing is loaded for it."""
        task = self.task
        inputs = counted(task.n_in, "input")
        if len(task.frame) > 1:
            inputs = f"{' x '.join(map(str, task.frame))} inputs"
        return (
            f"Dataset({shortened(task.name, 30)!r}, {task.kind}, {counted(task.steps, 'step')} of "
            f"{inputs}, {counted(task.n_out, 'output')})"
        )


TaskLike = str | Path | Task | Dataset
"""Data of a command: a task, its name, a file or folder, or a dataset."""


def load_task(name: str | Path) -> Dataset:
    """Return the data of a built-in task, of an ``.npz`` file or of a folder of ``.npy`` files.

    Parameters
    ----------
    name : str or path
        Such as ``digits``, ``psmnist`` or ``delay-50``; see :func:`lmu_deploy.tasks.base.get_task`.

    Raises
    ------
    InputError
        When there is no such task or file.

    Examples
    --------
    >>> load_task("digits")
    Dataset('digits', classification, 8 steps of 8 inputs, 10 outputs)
    """
    return Dataset.from_task(name)


def find_task(task: TaskLike) -> Task:
    """Return the task of a name, a file, a Dataset or a Task.

    Raises
    ------
    InputError
        When there is no task of that name, the file is missing or damaged, or the data are of
        another kind.
    """
    check_kind(task)
    if isinstance(task, Task):
        return task
    if isinstance(task, Dataset):
        return task.task
    return task_from_file(task) if is_path(str(task)) else get_task(str(task))


def check_kind(data: object) -> None:
    """Raise InputError when data with a training and a test part are of no known kind."""
    if isinstance(data, str | Path | Task | Dataset):
        return
    what = f"a {type(data).__name__}"
    if isinstance(data, Split):
        what = f"one part of a dataset, {counted(len(data), 'sample')}"
    elif isinstance(data, np.ndarray):
        what = f"an array of shape {data.shape} without answers"
    raise InputError(
        f"the data are {what}; give lmu_deploy.Dataset(x_train, y_train, x_test, y_test), a task's "
        "name or a file."
    )


def part_as_task(data: TaskLike | Split | None) -> TaskLike | None:
    """Return data of which one part is used, which may be given alone.

    Parameters
    ----------
    data : Dataset, Task, str, path, Split or None
        Of a split, classes are the outputs of these numbers.
    """
    if not isinstance(data, Split):
        return data
    split = data
    targets = np.asarray(split.targets)
    classes = targets.dtype.kind in "iu"
    n_out = int(targets.max(initial=0)) + 1 if classes else targets.shape[-1]
    frame = split.inputs.shape[2:]
    return Task(
        UNNAMED,
        "classification" if classes else "regression",
        math.prod(frame),
        n_out,
        split.inputs.shape[1],
        lambda: TaskData(split, split, split),
        every_step=targets.ndim == (2 if classes else 3),
        labels=tuple(range(n_out)) if classes else (),
        identify=cache(lambda: _identity_of(split)),
        frame=frame,
    )


def task_from_file(path: Path | str) -> Task:
    """Return the task in an ``.npz`` file or a folder; pickled objects are refused.

    Raises
    ------
    InputError
        When there is no such file, an array is missing, has another type or shape, holds NaN, or
        an ``.npz`` file would unpack to more than 16 GiB.
    """
    return _task(str(path), read_arrays(Path(path)), 0)


def _task(name: str, arrays: Mapping[str, Any], seed: int) -> Task:
    """Check arrays and return them as a task."""
    if missing := [part for part in ARRAYS if part not in arrays]:
        raise InputError(f"{', '.join(missing)} missing; give {', '.join(ARRAYS)}.")
    kind, place = (arrays.get(setting) for setting in SETTINGS)
    if kind is not None:
        check_choice("kind", kind, ("classification", "regression"))
    if place is not None:
        check_choice("place", place, ("sample", "step"))
    if ("x_val" in arrays) != ("y_val" in arrays):
        raise InputError("x_val and y_val belong together; give both or neither.")
    present = [part for part in _PARTS if f"x_{part}" in arrays]
    x = {p: read_sequences(f"x_{p}", arrays[f"x_{p}"], arrays.get(f"lengths_{p}")) for p in present}
    _check_shapes(x)
    y = {f"y_{p}": read_answers(f"y_{p}", arrays[f"y_{p}"], x[p], kind, place) for p in present}
    _check_forms(y)
    labels = _labels_in_order(set().union(*(found.labels() for found in y.values())))
    model = y["y_train"]
    labels = labels if model.classes else ()
    groups = None if "groups" not in arrays else np.asarray(arrays["groups"])
    if groups is not None and groups.dtype.kind == "O" and groups.ndim == 1:
        groups = np.array([f"{type(group).__name__} {group}" for group in groups])
    if groups is not None and groups.shape != (len(x["train"].values),):
        raise InputError(
            f"groups has shape {groups.shape}; give one for each of the "
            f"{counted(len(x['train'].values), 'training sample')}."
        )
    data = _divided(x, y, labels, groups, seed)
    steps = max(found.values.shape[1] for found in x.values())
    frame = x["train"].values.shape[2:]
    n_out = len(labels) if model.classes else model.values.shape[-1]
    return Task(
        name,
        "classification" if model.classes else "regression",
        math.prod(frame),
        n_out,
        steps,
        lambda: data,
        every_step=model.every_step,
        labels=labels,
        identify=cache(lambda: _identity(x, y, data)),
        frame=frame,
    )


def _check_shapes(x: Mapping[str, Sequences]) -> None:
    """Raise InputError unless all parts have as many features, and steps if all have equally many.

    Where lengths differ, parts may be padded to different lengths.
    """
    (first, model), *others = x.items()
    for part, found in others:
        mine, theirs = model.values.shape[1:], found.values.shape[1:]
        varied = model.lengths is not None or found.lengths is not None
        varied = varied or len(model.values) == len(found.values) == 1  # parts of one series
        if mine != theirs and not (varied and mine[1:] == theirs[1:]):
            raise InputError(
                f"x_{first} has samples of shape {mine} and x_{part} of {theirs}; the two must be "
                "equal, or sequences of different lengths be given as lists."
            )


def _labels_in_order(labels: set[Label]) -> tuple[Label, ...]:
    """Return labels in the order of their numbers, if they are whole numbers; else sorted."""
    if all(isinstance(label, str) and _is_whole(label) for label in labels):
        return tuple(sorted(labels, key=lambda label: (int(label), str(label))))
    return tuple(sorted(labels))


def _is_whole(text: str) -> bool:
    digits = text.removeprefix("-")
    return digits.isascii() and digits.isdigit() and len(digits) < 19


def _check_forms(answers: Mapping[str, Answers]) -> None:
    """Raise InputError unless all parts have answers of one form and size."""
    (first, model), *others = answers.items()
    for name, found in others:
        if (found.classes, found.every_step) != (model.classes, model.every_step):
            raise InputError(
                f"{first} has {model.form}, and {name} {found.form}; both must be the same."
            )
        if not model.classes and found.values.shape[-1] != model.values.shape[-1]:
            raise InputError(
                f"{first} has {model.values.shape[-1]} outputs and {name} "
                f"{found.values.shape[-1]}; both must have as many."
            )
        kinds = (
            {type(label) for each in (model, found) for label in each.labels()}
            if (model.classes)
            else set()
        )
        if len(kinds) > 1:
            raise InputError(f"{first} and {name} have labels of different types; use one type.")


def _divided(
    x: Mapping[str, Sequences],
    y: Mapping[str, Answers],
    labels: tuple[Any, ...],
    groups: np.ndarray | None,
    seed: int,
) -> TaskData:
    """Return the three parts, each with the order in which samples of it are chosen."""
    steps = max(found.values.shape[1] for found in x.values())
    targets = {part: y[f"y_{part}"].targets(labels) for part in x}
    classes = targets["train"] if targets["train"].dtype.kind == "i" else None
    if classes is not None and classes.ndim > 1:
        classes = None
    if "val" in x:
        train = x["train"].split(targets["train"])
        validation = x["val"].split(targets["val"])
    else:
        chosen = validation_rows(len(targets["train"]), classes, groups, seed)
        kept = np.setdiff1d(np.arange(len(targets["train"])), chosen)
        train = x["train"].split(targets["train"], kept if len(chosen) else None)
        validation = x["train"].split(targets["train"], chosen)
    parts = (train, validation, x["test"].split(targets["test"]))
    return TaskData(*(_in_order(part, steps, seed) for part in parts))


def _in_order(split: Split, steps: int, seed: int) -> Split:
    """Return a part whose lengths are known where parts differ, with its stratified order."""
    lengths = split.lengths
    stored = split.stored.shape[1] if isinstance(split, StoredSplit) else split.inputs.shape[1]
    if lengths is None and stored < steps:
        lengths = np.full(len(split), stored)
    order = stratified_order(split.targets, seed)
    return split.changed(lengths=lengths, order=order)


def _identity_of(split: Split) -> str:
    """Return a SHA-256 of the samples and answers of one part."""
    digest = hashlib.sha256()
    for array in (split.inputs, split.targets, split.lengths):
        if array is not None:
            _add(digest, np.asarray(array))
    return digest.hexdigest()


def _identity(x: Mapping[str, Sequences], y: Mapping[str, Answers], data: TaskData) -> str:
    """Return a SHA-256 of all samples and answers, and of which samples validate.

    Of arrays beyond 256 MiB only 64 blocks of 1 MiB are read.
    """
    digest = hashlib.sha256()
    for part, found in x.items():
        answers = y[f"y_{part}"]
        for array in (found.values, found.lengths, answers.values):
            if array is not None:
                _add(digest, array)
    _add(digest, data.validation.targets)
    return digest.hexdigest()


def _add(digest: Any, array: np.ndarray) -> None:
    digest.update(f"{array.dtype.str} {array.shape} ".encode())
    if array.nbytes <= _HASHED_BYTES:
        digest.update(np.ascontiguousarray(array).tobytes())
        return
    rows = max(1, _BLOCK * len(array) // array.nbytes)
    for start in np.linspace(0, len(array) - rows, _HASHED_BLOCKS).astype(int):
        digest.update(np.ascontiguousarray(array[start : start + rows]).tobytes())
