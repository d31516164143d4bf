"""Readers of HDF5 files: the weights that Keras saves, and NIR graphs.

Both read groups, arrays of numbers and texts, and nothing outside the file. Links to other places,
arrays in other files and virtual arrays are refused, and everything is counted before it is read:
with each of them a small file can cause large allocations, or the reading of another file. Weights
must be uncompressed, so that no array is larger than its file; the arrays of a NIR graph may have
the plain compression filters, and their uncompressed size is checked first.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from converters.sandbox import process
from lmu_deploy.core.errors import InputError

SKIPPED = ("optimizer", "optimizer_weights")
"""Root groups that only training needs."""

_FILTERS = (h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_LZF)
_TEXT, _TABLE = (), 2


def read_hdf5(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Read arrays by path, and ``{"attributes": {group: {name: text or list of text}}}``.

    Raises
    ------
    InputError
        When the file is not HDF5 or contains something that is not allowed.
    """
    arrays: dict[str, np.ndarray] = {}
    attributes: dict[str, dict[str, str | list[str]]] = {}
    file_bytes = path.stat().st_size
    with open_tree(path, "save it again", SKIPPED) as tree:
        for where, item in tree.walk():
            if isinstance(item, h5py.Group):
                if found := _read_attributes(tree, item, where):
                    attributes[where] = found
            elif item.dtype.kind in "fiu":
                arrays[where] = _read_array(tree, item, where, file_bytes)
    return arrays, {"attributes": attributes}


def read_nir_tree(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Read arrays by path, and ``{"texts": {path: text}, "edges": {path: [[from, to], ...]}}``.

    Raises
    ------
    InputError
        When the file is not HDF5 or contains something that is not allowed.
    """
    arrays: dict[str, np.ndarray] = {}
    texts: dict[str, str] = {}
    edges: dict[str, list[list[str]]] = {}
    with open_tree(path, "export it again") as tree:
        for where, item in tree.walk():
            if isinstance(item, h5py.Group):
                continue
            _check_layout(tree, item, where)
            if item.dtype.kind in "fiu":
                arrays[where] = _read_numbers(item)
            elif h5py.check_string_dtype(item.dtype) is None:
                raise InputError(f"{where!r} is of type {item.dtype}; NIR has numbers and texts.")
            elif item.shape == _TEXT:
                texts[where] = _nir_text(item[()], where)
            elif len(item.shape) == _TABLE:
                tree.count(item.size)
                edges[where] = [[_nir_text(entry, where) for entry in row] for row in item[()]]
            else:
                raise InputError(
                    f"{where!r} is a list of texts, which NIR does not have; export it again."
                )
    return arrays, {"texts": texts, "edges": edges}


class HDF5Tree:
    """The groups and arrays of a file, counted against the limits.

    Parameters
    ----------
    file : h5py.File
    again : str
        What the user can do when the file is damaged or too large.
    skipped : tuple of str
        Root groups that are skipped.
    """

    def __init__(self, file: h5py.File, again: str, skipped: tuple[str, ...] = ()) -> None:
        self._file, self._again, self._skipped = file, again, skipped
        self._bytes = 0
        self._objects = 0

    def walk(self) -> Iterator[tuple[str, Any]]:
        """Yield path and object of each group, the root first, and of each array in it."""
        yield from self._walk(self._file, "", 0)

    def _walk(self, group: h5py.Group, path: str, depth: int) -> Iterator[tuple[str, Any]]:
        if depth > process.DEPTH:
            raise InputError(
                f"its groups are nested more than {process.DEPTH} deep; {self._again}."
            )
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
        """Count groups, arrays, attributes or texts before they are read."""
        self._objects += objects
        if self._objects > process.OBJECTS:
            raise InputError(f"it contains more than {process.OBJECTS} objects; {self._again}.")

    def count_bytes(self, size: int, where: str) -> None:
        """Count the bytes of an array before it is read."""
        self._bytes += size
        if self._bytes > process.ARRAY_BYTES:
            raise InputError(
                f"with array {where!r} it contains more than {process.ARRAY_BYTES} bytes of "
                "arrays; it cannot be imported."
            )


@contextmanager
def open_tree(path: Path, again: str, skipped: tuple[str, ...] = ()) -> Iterator[HDF5Tree]:
    """Open a file; turn every error of the library into an InputError."""
    try:
        with h5py.File(path, "r") as file:
            yield HDF5Tree(file, again, skipped)
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, AttributeError) as error:
        raise InputError(
            f"it is not an HDF5 file, or it is damaged ({type(error).__name__}); {again}."
        ) from error


def _stored_size(dataset: h5py.Dataset, where: str) -> int:
    """Return the uncompressed size of an array in bytes; it must lie in the file itself."""
    if dataset.is_virtual or dataset.id.get_create_plist().get_external_count():
        raise InputError(f"array {where!r} lies in another file; save it in one file.")
    if dataset.shape is None:
        raise InputError(f"array {where!r} is empty; save it with numbers.")
    return _size_of(dataset.shape, dataset)


def _size_of(shape: tuple[int, ...], dataset: h5py.Dataset) -> int:
    """Return the bytes of an array of this shape, in Python's integers, which do not overflow."""
    return int(np.prod(shape, dtype=object)) * int(dataset.dtype.itemsize)


def _read_numbers(dataset: h5py.Dataset) -> np.ndarray:
    """Read an array in row-major order and native byte order; its size was checked before."""
    array = np.asarray(dataset[()])
    return array.astype(array.dtype.newbyteorder("="), order="C", copy=False)


def _read_array(tree: HDF5Tree, dataset: Any, where: str, file_bytes: int) -> np.ndarray:
    size = _stored_size(dataset, where)
    if dataset.id.get_create_plist().get_nfilters():
        raise InputError(f"array {where!r} is compressed; save it without compression.")
    if size > file_bytes:
        raise InputError(
            f"array {where!r} of shape {_short(dataset.shape)} is larger than the file; "
            "it cannot be imported."
        )
    tree.count_bytes(size, where)
    return _read_numbers(dataset)


def _read_attributes(tree: HDF5Tree, group: Any, path: str) -> dict[str, str | list[str]]:
    tree.count(len(group.attrs))
    found: dict[str, str | list[str]] = {}
    for name in group.attrs:
        attribute = h5py.h5a.open(group.id, name.encode())
        items = attribute.get_space().get_simple_extent_npoints()
        if items * attribute.get_type().get_size() > process.JSON_BYTES:
            raise InputError(f"attribute {name!r} of {path or '/'!r} is too long to be read.")
        value = group.attrs[name]
        if isinstance(value, str | bytes):
            found[name] = _text(value)
        elif isinstance(value, np.ndarray) and value.dtype.kind in "SO" and value.ndim == 1:
            tree.count(value.size)
            found[name] = [_text(item) for item in value]
    return found


def _check_layout(tree: HDF5Tree, dataset: Any, where: str) -> None:
    """Check size, filters and chunks of an array of a NIR graph."""
    tree.count_bytes(_stored_size(dataset, where), where)
    layout = dataset.id.get_create_plist()
    filters = [layout.get_filter(i)[0] for i in range(layout.get_nfilters())]
    if any(number not in _FILTERS for number in filters):
        raise InputError(f"array {where!r} has an unknown filter; save it with gzip.")
    if dataset.chunks and _size_of(dataset.chunks, dataset) > process.ARRAY_BYTES:
        raise InputError(
            f"array {where!r} is stored in chunks of more than {process.ARRAY_BYTES} bytes; "
            "it cannot be imported."
        )


def _nir_text(value: Any, where: str) -> str:
    text = value.decode("utf-8", "replace") if isinstance(value, bytes) else value
    if not isinstance(text, str) or len(text) > process.JSON_BYTES:
        raise InputError(f"{where!r} is not a text, or is too long; export it again.")
    return text


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    raise InputError("an attribute is not a text; the file is damaged.")


def _short(shape: tuple[int, ...]) -> str:
    return str(shape) if len(shape) < 8 else f"with {len(shape)} dimensions"
