"""Reading of what users have as arrays: files, folders, lists, tensors and data frames.

Files are an ``.npz``, or a folder of ``.npy`` files. They are untrusted: nothing is unpickled, and
the size is known before an array is allocated. What is in files of other kinds depends on the
program that wrote them, so these are refused with the way to store their arrays.
"""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from lmu_deploy.core.errors import InputError
from lmu_deploy.core.files import DAMAGED, check_file
from lmu_deploy.core.representation import counted
from lmu_deploy.tasks.base import task_names

ARRAYS = ("x_train", "y_train", "x_test", "y_test")
OPTIONAL = ("x_val", "y_val", "groups", "lengths_train", "lengths_val", "lengths_test")
SETTINGS = ("kind", "place")
LARGEST_BYTES = 16 * 2**30

_TABLE = "pandas.read_csv(file, usecols=[...]).to_numpy()"
_READERS = {
    ".csv": _TABLE,
    ".tsv": "pandas.read_csv(file, sep='\\t').to_numpy()",
    ".txt": "numpy.loadtxt(file)",
    ".parquet": "pandas.read_parquet(file).to_numpy()",
    ".feather": "pandas.read_feather(file).to_numpy()",
    ".xls": "pandas.read_excel(file).to_numpy()",
    ".xlsx": "pandas.read_excel(file).to_numpy()",
    ".json": "pandas.read_json(file).to_numpy()",
    ".jsonl": "pandas.read_json(file, lines=True).to_numpy()",
    ".h5": "h5py.File(file)[name][:]",
    ".hdf5": "h5py.File(file)[name][:]",
    ".nc": "xarray.open_dataset(file)[name].to_numpy()",
    ".mat": "scipy.io.loadmat(file)[name]",
    ".arff": "scipy.io.arff.loadarff(file)",
    ".ts": "aeon.datasets.load_from_ts_file(file)",
    ".wav": "scipy.io.wavfile.read(file)",
    ".pt": "torch.load(file, weights_only=True).numpy()",
    ".pth": "torch.load(file, weights_only=True).numpy()",
    ".pkl": "the program that wrote it",
    ".pickle": "the program that wrote it",
    ".npy": "numpy.load(file)",
}
"""How other kinds of file are read, by suffix."""


def is_path(name: str) -> bool:
    """Return whether a name is that of a file or folder with data, and of no built-in task."""
    if name in task_names():
        return False
    path = Path(name)
    suffix = path.suffix.lower()
    return suffix == ".npz" or suffix in _READERS or path.is_dir() or path.is_file()


def read_arrays(path: Path) -> dict[str, Any]:
    """Return the arrays in an ``.npz`` file or a folder; files of a folder are memory-mapped.

    Raises
    ------
    InputError
        When there is no such file, it is of another kind or damaged, an array is missing or needs
        pickle, or an ``.npz`` file would unpack to more than 16 GiB.
    """
    if path.is_dir():
        arrays = _from_folder(path)
    else:
        check_file(path)
        _check_kind(path)
        arrays = _from_npz(path)
    if missing := [name for name in ARRAYS if name not in arrays]:
        raise InputError(f"{path} lacks {', '.join(missing)}; store {', '.join(ARRAYS)}.")
    if odd := [name for name in arrays if not isinstance(arrays[name], np.ndarray)]:
        raise InputError(f"{path}: {', '.join(odd)} is no array; store plain arrays.")
    for name in SETTINGS:
        if name in arrays:
            arrays[name] = str(arrays[name])[:20]
    return arrays


def _check_kind(path: Path) -> None:
    suffix = path.suffix.lower()
    if suffix == ".npz":
        return
    means = _READERS.get(suffix)
    how = "read it" if means is None else f"read it, as by {means},"
    raise InputError(
        f"{path}: data are read from an .npz file or a folder of .npy files, because other files "
        f"do not say what is a sample, a step or an answer; {how} and give the arrays to "
        f"lmu_deploy.Dataset, or store them with numpy.savez('{path.stem}.npz', "
        f"{', '.join(f'{name}=...' for name in ARRAYS)})."
    )


def _from_npz(path: Path) -> dict[str, Any]:
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(item.file_size for item in archive.infolist())
            if size > LARGEST_BYTES:
                raise InputError(
                    f"{path} unpacks to {size} bytes; at most {LARGEST_BYTES} do. Store a folder "
                    "of .npy files, which need not fit into memory."
                )
        found: dict[str, Any] = {}
        with np.load(path, allow_pickle=False) as stored:
            for name in (*ARRAYS, *OPTIONAL, *SETTINGS):
                if name in stored:
                    found[name] = _plain(stored, name, path)
    except DAMAGED as error:
        why = str(error)[:200]
        raise InputError(f"{path} is no readable .npz file of plain arrays ({why}).") from error
    return found


_OBJECTS = (
    "{} is an array of Python objects, which only pickle could read; store sequences of different "
    "lengths by lmu_deploy.Dataset(...).save(file), or padded with lengths_train and lengths_test, "
    "and labels as an array of numbers or strings."
)


def _plain(stored: Any, name: str, path: Path) -> Any:
    """Return an array of a file; raise InputError where it holds Python objects."""
    try:
        return stored[name]
    except ValueError as error:
        if "allow_pickle" not in str(error):
            raise
        raise InputError(_OBJECTS.format(f"{path}: {name}")) from error


def _from_folder(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in (*ARRAYS, *OPTIONAL, *SETTINGS):
        file = path / f"{name}.npy"
        if not file.is_file():
            continue
        try:
            array = np.load(file, mmap_mode="r", allow_pickle=False)
            found[name] = array if name.startswith("x_") else np.array(array)
        except DAMAGED as error:
            why = str(error)[:200]
            if "Python objects" in why:
                raise InputError(_OBJECTS.format(file)) from error
            raise InputError(f"{file} is no readable .npy file of numbers ({why}).") from error
    return found


def listed(name: str, value: Any) -> Any:
    """Return an array, or a list of arrays where sequences may differ in length."""
    masked = int(np.sum(value.mask)) if isinstance(value, np.ma.MaskedArray) else 0
    if masked:
        raise InputError(
            f"{name} has {counted(masked, 'masked value')}; replace them, as by {name}.filled(0)."
        )
    if hasattr(value, "to_numpy"):
        value = _of_data_frame(name, value)
    elif hasattr(value, "toarray"):
        value = value.toarray()  # a sparse matrix
    if isinstance(value, list | tuple):
        return list(value)
    if isinstance(value, np.memmap):
        return value
    try:
        found = as_array(value)  # no subclass, which may compute differently
    except (TypeError, ValueError, RuntimeError):
        found = np.asarray(None)
    if found.ndim == 0:
        raise InputError(f"{name} is a {type(value).__name__}; give an array or a list.")
    return list(found) if found.dtype.kind == "O" else found


def _of_data_frame(name: str, frame: Any) -> Any:
    """Return the values of a data frame or series; a list where it has a row for each step."""
    levels = getattr(getattr(frame, "index", None), "nlevels", 1)
    columns = getattr(getattr(frame, "columns", None), "nlevels", 1)
    if levels > 2 or columns > 1:
        raise InputError(
            f"{name} has an index of {levels} levels and columns of {columns}; give a row per "
            "sample, or a row per step with an index (sample, step) and a column per feature."
        )
    if levels == 2:
        return [group.to_numpy() for _, group in frame.groupby(level=0, sort=False)]
    return frame.to_numpy()


def as_array(item: Any) -> np.ndarray:
    """Return an array or a tensor of torch as an array."""
    if hasattr(item, "detach"):
        item = item.detach().cpu()
        item = item.float() if "bfloat16" in str(item.dtype) else item
    return np.asarray(item)


_MOST_ROUNDING = 0.01
"""Largest rounding to float32, relative to the range of a feature."""


class Rounding:
    """What rounding to float32 changes in every feature, relative to its range."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._error = self._low = self._high = np.zeros(0)

    def take(self, given: np.ndarray, rounded: np.ndarray) -> None:
        """Measure more samples, which padding may have changed."""
        if given.dtype.itemsize <= 2 or given.dtype == np.float32:
            return
        with np.errstate(over="ignore", invalid="ignore"):  # of padding
            exact = given.astype(np.float64)
            error = np.abs(given.astype(np.float32) - exact).max(axis=(0, 1))
        low, high = given.min(axis=(0, 1)), given.max(axis=(0, 1))
        if self._error.shape == error.shape:
            error = np.maximum(error, self._error)
            low, high = np.minimum(low, self._low), np.maximum(high, self._high)
        self._error, self._low, self._high = error, low, high

    def check(self) -> None:
        """Raise InputError for a feature whose changes are lost."""
        spread = self._high.astype(np.float64) - self._low.astype(np.float64)
        lost = np.argwhere(self._error > _MOST_ROUNDING * spread)
        if not len(lost):
            return
        where = tuple(lost[0])
        feature = ", ".join(map(str, where))
        raise InputError(
            f"feature {feature} of {self._name} goes from {self._low[where]:,} to "
            f"{self._high[where]:,}, and float32 rounds that by up to {self._error[where]:,.3g}; "
            "subtract an offset first, or choose another unit."
        )
