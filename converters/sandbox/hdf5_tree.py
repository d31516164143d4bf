"""The groups and arrays of an HDF5 file, one after the other, and nothing outside that file.

Links of other kinds, arrays in other files and virtual arrays are refused, and everything is
counted before it is read: each of them lets a small file ask for much, or for another file.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from converters.sandbox import limits
from lmu_deploy.core.errors import InputError


class Tree:
    """A file, and how much of the limits has been used of it.

    Parameters
    ----------
    file : h5py.File
    again : str
        What the user can do when the file is damaged or too large.
    skipped : tuple of str
        Groups at the root that are passed over.
    """

    def __init__(self, file: h5py.File, again: str, skipped: tuple[str, ...] = ()) -> None:
        self._file, self._again, self._skipped = file, again, skipped
        self._bytes = 0
        self._objects = 0

    def walk(self) -> Iterator[tuple[str, Any]]:
        """Give the path and the object of each group, the root first, and of each array in it."""
        yield from self._walk(self._file, "", 0)

    def _walk(self, group: h5py.Group, path: str, depth: int) -> Iterator[tuple[str, Any]]:
        if depth > limits.DEPTH:
            raise InputError(f"its groups lie more than {limits.DEPTH} deep; {self._again}.")
        self.count(1 + len(group))
        yield path, group
        for name in group:
            if not path and name in self._skipped:
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
                yield from self._walk(item, where, depth + 1)
            elif isinstance(item, h5py.Dataset):
                yield where, item

    def count(self, objects: int) -> None:
        """Count groups, arrays, attributes or texts that are about to be read."""
        self._objects += objects
        if self._objects > limits.OBJECTS:
            raise InputError(f"it holds more than {limits.OBJECTS} objects; {self._again}.")

    def count_bytes(self, size: int, where: str) -> None:
        """Count the bytes of an array that is about to be read."""
        self._bytes += size
        if self._bytes > limits.ARRAY_BYTES:
            raise InputError(
                f"with array {where!r} it holds more than {limits.ARRAY_BYTES} bytes of arrays; "
                "it cannot be imported."
            )


@contextmanager
def opened(path: Path, again: str, skipped: tuple[str, ...] = ()) -> Iterator[Tree]:
    """Open a file; whatever the library says while it is read of a damaged one is an InputError."""
    try:
        with h5py.File(path, "r") as file:
            yield Tree(file, again, skipped)
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, AttributeError) as error:
        raise InputError(
            f"it is no HDF5 file, or damaged ({type(error).__name__}); {again}."
        ) from error


def size_inside(dataset: h5py.Dataset, where: str) -> int:
    """Bytes of an array, which has to lie in the file itself."""
    if dataset.is_virtual or dataset.id.get_create_plist().get_external_count():
        raise InputError(f"array {where!r} lies in another file; save it in one file.")
    if dataset.shape is None:
        raise InputError(f"array {where!r} is empty; save it with numbers.")
    return size_of(dataset.shape, dataset)


def size_of(shape: tuple[int, ...], dataset: h5py.Dataset) -> int:
    """Bytes of so many entries of an array, in Python's integers, which do not wrap."""
    return int(np.prod(shape, dtype=object)) * int(dataset.dtype.itemsize)


def read_numbers(dataset: h5py.Dataset) -> np.ndarray:
    """Read an array in rows, in this processor's order of bytes; it has been counted before."""
    array = np.asarray(dataset[()])
    return array.astype(array.dtype.newbyteorder("="), order="C", copy=False)
