"""Dataset: the data of a task, from its name, from arrays or from an ``.npz`` file.

Arrays and files have the four parts ``x_train``, ``y_train``, ``x_test`` and ``y_test``; x has
shape (samples, steps, n_in), y shape (samples,) with integer classes or (samples, steps, n_out)
with signals to follow. The last tenth of the training samples is the validation part.
"""

from __future__ import annotations

import tokenize
import zipfile
import zlib
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from lmu_deploy.core.errors import InputError
from lmu_deploy.core.representation import counted, shortened
from lmu_deploy.core.validation import check_array
from lmu_deploy.tasks.base import Split, Task, TaskData, get_task

UNNAMED = "dataset"
"""Name of a dataset that was given none; networks do not record it as their task."""

ARRAYS = ("x_train", "y_train", "x_test", "y_test")
DAMAGED = (
    EOFError,
    OSError,
    RuntimeError,
    SyntaxError,
    ValueError,
    tokenize.TokenError,  # NumPy reads an array's header as Python's tokens
    zipfile.BadZipFile,
    zlib.error,
)
"""What reading a damaged `.npz` may raise."""

LARGEST_BYTES = 16 * 2**30


class Dataset:
    """Samples to train, choose and judge a network on.

    Parameters
    ----------
    x_train, x_test : array_like, shape (samples, steps, n_in)
    y_train, y_test : array_like
        Shape (samples,), integer classes counted from 0, or (samples, steps, n_out), signals that a
        network follows step by step.
    name : str
        What reports call the data.

    Raises
    ------
    InputError
        When an array has another shape or type, is empty or holds NaN, or when sequences have
        different lengths.

    Examples
    --------
    >>> import numpy as np
    >>> x, y = np.zeros((20, 5, 1)), np.arange(20) % 2
    >>> data = Dataset(x, y, x, y)
    >>> data
    Dataset('dataset', classification, 5 steps of 1 input, 2 outputs)
    >>> len(data.train), len(data.validation), data.test.x.shape
    (18, 2, (20, 5, 1))
    """

    def __init__(
        self,
        x_train: ArrayLike,
        y_train: ArrayLike,
        x_test: ArrayLike,
        y_test: ArrayLike,
        *,
        name: str = UNNAMED,
    ) -> None:
        given = dict(zip(ARRAYS, (x_train, y_train, x_test, y_test), strict=True))
        self.task = _task(name, {part: _array(part, value) for part, value in given.items()})

    @classmethod
    def from_task(cls, task: Task | str | Path) -> Dataset:
        """Return the data of a task, which are loaded when they are first used.

        Parameters
        ----------
        task : Task, str or path
            A task, its name, or an ``.npz`` file.

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
        """What reports call the data."""
        return self.task.name

    def __repr__(self) -> str:
        """Return one short line; nothing is loaded for it."""
        task = self.task
        return (
            f"Dataset({shortened(task.name, 30)!r}, {task.kind}, {counted(task.steps, 'step')} of "
            f"{counted(task.n_in, 'input')}, {counted(task.n_out, 'output')})"
        )


def load_task(name: str | Path) -> Dataset:
    """Return the data of a built-in task, or of an ``.npz`` file.

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
    """Return the task that a name, an ``.npz`` file, a Dataset or a Task stands for.

    Raises
    ------
    InputError
        When there is no task of that name, or the file is missing or damaged.
    """
    if isinstance(task, Task):
        return task
    if isinstance(task, Dataset):
        return task.task
    name = str(task)
    return task_from_file(name) if name.endswith(".npz") else get_task(name)


def _array(name: str, value: ArrayLike) -> np.ndarray:
    """Return what a user gave as an array; sequences of different lengths are refused."""
    if isinstance(value, list | tuple):
        lengths = {np.shape(item)[0] for item in value if np.ndim(item)}
        if len(lengths) > 1:
            raise InputError(
                f"{name} holds sequences of {min(lengths)} to {max(lengths)} steps, and all must "
                "have the same length; pad or cut them."
            )
    try:
        return np.asarray(value)
    except ValueError as error:
        raise InputError(f"{name} is not an array of numbers ({error}).") from error


def task_from_file(path: Path | str) -> Task:
    """Return the task in an ``.npz`` file; pickled objects are refused.

    Raises
    ------
    InputError
        When there is no such file, an array is missing, has another type or shape, holds NaN, or
        the file would unpack to more than 16 GiB.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file; check the name.")
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(item.file_size for item in archive.infolist())
            if size > LARGEST_BYTES:
                raise InputError(f"{path} unpacks to {size} bytes; at most {LARGEST_BYTES} do.")
        with np.load(path, allow_pickle=False) as stored:
            if missing := [name for name in ARRAYS if name not in stored]:
                raise InputError(f"{path} lacks {', '.join(missing)}; store {', '.join(ARRAYS)}.")
            arrays = {name: stored[name] for name in ARRAYS}
        if odd := [name for name in ARRAYS if not isinstance(arrays[name], np.ndarray)]:
            raise InputError(f"{path}: {', '.join(odd)} is no array; store plain arrays.")
    except DAMAGED as error:
        why = str(error)[:200]
        raise InputError(f"{path} is no readable .npz file of plain arrays ({why}).") from error
    return _task(str(path), arrays)


def _task(name: str, arrays: Mapping[str, np.ndarray]) -> Task:
    """Check arrays and return them as a task."""
    train, test = (_split(part, arrays) for part in ("train", "test"))
    if train.inputs.shape[1:] != test.inputs.shape[1:]:
        raise InputError(
            f"x_train has samples of shape {train.inputs.shape[1:]} and x_test of "
            f"{test.inputs.shape[1:]}; the two must be equal."
        )
    if train.targets.ndim != test.targets.ndim:
        raise InputError("y_train and y_test must both be classes or both be signals.")
    classes = train.targets.ndim == 1
    n_out = int(train.targets.max()) + 1 if classes else train.targets.shape[2]
    kept = max(1, len(train.inputs) - len(train.inputs) // 10)
    data = TaskData(
        Split(train.inputs[:kept], train.targets[:kept]),
        Split(train.inputs[kept:], train.targets[kept:]),
        test,
    )
    _, steps, n_in = train.inputs.shape
    kind = "classification" if classes else "regression"
    return Task(name, kind, n_in, n_out, steps, lambda: data)


def _split(part: str, arrays: Mapping[str, np.ndarray]) -> Split:
    x, y = arrays[f"x_{part}"], arrays[f"y_{part}"]
    if x.dtype.kind in "iub":
        x = x.astype(np.float32)
    x = check_array(f"x_{part}", x, (None, None, None)).astype(np.float32)
    if not len(x):
        raise InputError(f"x_{part} is empty; give at least one sample.")
    if y.dtype.kind in "iu":
        y = check_array(f"y_{part}", y.astype(np.int64), (len(x),), "i")
        if y.min() < 0:
            raise InputError(f"y_{part} has negative classes; count them from 0.")
        return Split(x, y)
    targets = check_array(f"y_{part}", y, (len(x), x.shape[1], None))
    return Split(x, targets.astype(np.float32))


TaskLike = str | Path | Task | Dataset
"""What names the data of a command: a task, its name, an ``.npz`` file, or a dataset."""
