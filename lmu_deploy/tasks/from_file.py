"""A task from a user's own data: one `.npz` file, used wherever a task's name can stand.

In: arrays ``x_train``, ``y_train``, ``x_test``, ``y_test``; x of shape (samples, steps, n_in), y of
shape (samples,) integer classes or (samples, steps, n_out) floats to follow. The last tenth of the
training samples validates. Out: a :class:`Task`.
"""

from __future__ import annotations

import tokenize
import zipfile
import zlib
from pathlib import Path

import numpy as np

from lmu_deploy.core.errors import InputError
from lmu_deploy.core.validation import check_array
from lmu_deploy.tasks.base import Split, Task, TaskData

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


def task_from_file(path: Path | str) -> Task:
    """Read a task from an `.npz` file (no pickled objects).

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
    train, test = (_split(part, arrays) for part in ("train", "test"))
    if train.inputs.shape[1:] != test.inputs.shape[1:]:
        raise InputError(
            f"x_train has samples of shape {train.inputs.shape[1:]} and x_test of "
            f"{test.inputs.shape[1:]}; the two must be equal."
        )
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
    return Task(str(path), kind, n_in, n_out, steps, lambda: data)


def _split(part: str, arrays: dict[str, np.ndarray]) -> Split:
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
