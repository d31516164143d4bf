"""What of an HDF5 file can belong to a NIR graph, with every size checked before it is read.

Groups by hard links, arrays of numbers, single
texts and the table of edges are read; links of other kinds, arrays in other files, virtual arrays
and filters that are no plain compression are refused, since each lets a small file ask for much or
for another file.
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
        "the library h5py is absent; install it with: pip install 'lmu-deploy[nir]'."
    ) from error

_FILTERS = (h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_LZF)
_TEXT, _TABLE = (), 2


def read_nir_tree(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Read arrays by path, and ``{"texts": {path: text}, "edges": {path: [[from, to], ...]}}``.

    Raises
    ------
    InputError
        When the file is no HDF5 or holds what is not allowed.
    """
    reading = _Reading()
    try:
        with h5py.File(path, "r") as file:
            reading.group(file, "", 0)
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, AttributeError) as error:
        raise InputError(
            f"it is no HDF5 file, or damaged ({type(error).__name__}); export it again."
        ) from error
    return reading.arrays, {"texts": reading.texts, "edges": reading.edges}


class _Reading:
    """What has been read of one file, and how much of the limits it has used."""

    def __init__(self) -> None:
        self.arrays: dict[str, np.ndarray] = {}
        self.texts: dict[str, str] = {}
        self.edges: dict[str, list[list[str]]] = {}
        self._bytes = 0
        self._objects = 0

    def group(self, group: Any, path: str, depth: int) -> None:
        if depth > limits.DEPTH:
            raise InputError(f"its groups lie more than {limits.DEPTH} deep; export it again.")
        self._count(1 + len(group))
        for name in group:
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
            elif isinstance(item, h5py.Dataset):
                self._dataset(item, where)

    def _dataset(self, dataset: Any, where: str) -> None:
        self._check_layout(dataset, where)
        if dataset.dtype.kind in "fiu":
            array = np.asarray(dataset[()])
            self.arrays[where] = np.ascontiguousarray(
                array, dtype=array.dtype.newbyteorder("=")
            ).reshape(array.shape)
        elif h5py.check_string_dtype(dataset.dtype) is None:
            raise InputError(f"{where!r} is of type {dataset.dtype}; NIR has numbers and texts.")
        elif dataset.shape == _TEXT:
            self.texts[where] = _text(dataset[()], where)
        elif len(dataset.shape) == _TABLE:
            self._count(dataset.size)
            self.edges[where] = [[_text(item, where) for item in row] for row in dataset[()]]
        else:
            raise InputError(f"{where!r} is a list of texts, which NIR has not; export it again.")

    def _check_layout(self, dataset: Any, where: str) -> None:
        layout = dataset.id.get_create_plist()
        if dataset.is_virtual or layout.get_external_count():
            raise InputError(f"array {where!r} lies in another file; save it in one file.")
        filters = [layout.get_filter(i)[0] for i in range(layout.get_nfilters())]
        if any(number not in _FILTERS for number in filters):
            raise InputError(f"array {where!r} has a filter that is not known; save it with gzip.")
        if dataset.shape is None:
            raise InputError(f"{where!r} is empty; export it again.")
        shapes = [dataset.shape, *([dataset.chunks] if dataset.chunks else [])]
        sizes = [int(np.prod(shape, dtype=object)) * dataset.dtype.itemsize for shape in shapes]
        self._bytes += sizes[0]
        if max(sizes) > limits.ARRAY_BYTES or self._bytes > limits.ARRAY_BYTES:
            raise InputError(
                f"with array {where!r} it holds more than {limits.ARRAY_BYTES} bytes of arrays; "
                "it cannot be imported."
            )

    def _count(self, more: int) -> None:
        self._objects += more
        if self._objects > limits.OBJECTS:
            raise InputError(f"it holds more than {limits.OBJECTS} objects; export it again.")


def _text(value: Any, where: str) -> str:
    text = value.decode("utf-8", "replace") if isinstance(value, bytes) else value
    if not isinstance(text, str) or len(text) > limits.JSON_BYTES:
        raise InputError(f"{where!r} is no text, or too long a one; export it again.")
    return text
