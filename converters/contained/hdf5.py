"""An HDF5 file as plain arrays and texts, with every size checked before anything is allocated.

Only what weights need is read: groups, arrays of floats and integers that lie in the file as they
are, and attributes of text. Links of other kinds, arrays in other files, virtual and compressed
arrays are refused, because each of them lets a small file ask for much, or for another file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from converters.contained import limits
from lmu_deploy.errors import InputError, MissingDependencyError

try:
    import h5py
except ImportError as error:
    raise MissingDependencyError(
        "the library h5py is absent; install it with: pip install 'lmu-deploy[import]'."
    ) from error

SKIPPED = ("optimizer", "optimizer_weights")
"""Groups at the root that hold what a training needs and a network does not."""


def read_hdf5(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Read arrays by path, and ``{"attributes": {group: {name: text or list of text}}}``.

    Raises
    ------
    InputError
        When the file is no HDF5 or holds what is not allowed.
    """
    reading = _Reading(path.stat().st_size)
    try:
        with h5py.File(path, "r") as file:
            reading.group(file, "", 0)
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, AttributeError) as error:
        raise InputError(
            f"it is no HDF5 file, or damaged ({type(error).__name__}); save it again."
        ) from error
    return reading.arrays, {"attributes": reading.attributes}


class _Reading:
    """What has been read of one file, and how much of the limits it has used."""

    def __init__(self, file_bytes: int) -> None:
        self.arrays: dict[str, np.ndarray] = {}
        self.attributes: dict[str, dict[str, str | list[str]]] = {}
        self._file_bytes = file_bytes
        self._array_bytes = 0
        self._objects = 0

    def group(self, group: Any, path: str, depth: int) -> None:
        if depth > limits.DEPTH:
            raise InputError(f"its groups lie more than {limits.DEPTH} deep; save it again.")
        self._count(1 + len(group) + len(group.attrs))
        self._read_attributes(group, path)
        for name in group:
            if not path and name in SKIPPED:
                continue
            where = f"{path}/{name}".lstrip("/")
            link = group.get(name, getlink=True)
            if not isinstance(link, h5py.HardLink):
                raise InputError(
                    f"{where!r} is a {type(link).__name__}, which may lead out of the file; "
                    "save it without links."
                )
            item = group[name]
            if isinstance(item, h5py.Group):
                self.group(item, where, depth + 1)
            elif isinstance(item, h5py.Dataset) and item.dtype.kind in "fiu":
                self.arrays[where] = self._read_array(item, where)

    def _read_array(self, dataset: Any, where: str) -> np.ndarray:
        layout = dataset.id.get_create_plist()
        if dataset.is_virtual or layout.get_external_count():
            raise InputError(f"array {where!r} lies in another file; save it in one file.")
        if layout.get_nfilters():
            raise InputError(f"array {where!r} is compressed; save it without compression.")
        size = int(np.prod(dataset.shape, dtype=object) * dataset.dtype.itemsize)
        self._array_bytes += size
        if size > self._file_bytes or self._array_bytes > limits.ARRAY_BYTES:
            raise InputError(
                f"array {where!r} of shape {_short(dataset.shape)} is larger than the file, or "
                f"makes more than {limits.ARRAY_BYTES} bytes in all; it cannot be imported."
            )
        array = np.asarray(dataset[()])
        return array.astype(array.dtype.newbyteorder("="), order="C", copy=False)

    def _read_attributes(self, group: Any, path: str) -> None:
        found: dict[str, str | list[str]] = {}
        for name in group.attrs:
            kept = h5py.h5a.open(group.id, name.encode())
            items = kept.get_space().get_simple_extent_npoints()
            if items * kept.get_type().get_size() > limits.JSON_BYTES:
                raise InputError(f"attribute {name!r} of {path or '/'!r} is too long to be read.")
            value = group.attrs[name]
            if isinstance(value, str | bytes):
                found[name] = _text(value)
            elif isinstance(value, np.ndarray) and value.dtype.kind in "SO" and value.ndim == 1:
                self._count(value.size)
                found[name] = [_text(item) for item in value]
        if found:
            self.attributes[path] = found

    def _count(self, more: int) -> None:
        self._objects += more
        if self._objects > limits.OBJECTS:
            raise InputError(f"it holds more than {limits.OBJECTS} objects; save weights alone.")


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    raise InputError("an attribute holds something else than text; the file is damaged.")


def _short(shape: tuple[int, ...]) -> str:
    return str(shape) if len(shape) < 8 else f"with {len(shape)} dimensions"
