"""What of an HDF5 file can belong to a NIR graph.

Groups, arrays of numbers, single texts and the table of edges are read; filters that are no plain
compression are refused, and what chunks would unpack to is checked before.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from converters.sandbox import limits
from lmu_deploy.core.errors import InputError, MissingDependencyError

try:
    import h5py

    from converters.sandbox.hdf5_tree import Tree, opened, read_numbers, size_inside, size_of
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
    arrays: dict[str, np.ndarray] = {}
    texts: dict[str, str] = {}
    edges: dict[str, list[list[str]]] = {}
    with opened(path, "export it again") as tree:
        for where, item in tree.walk():
            if isinstance(item, h5py.Group):
                continue
            _check_layout(tree, item, where)
            if item.dtype.kind in "fiu":
                arrays[where] = read_numbers(item)
            elif h5py.check_string_dtype(item.dtype) is None:
                raise InputError(f"{where!r} is of type {item.dtype}; NIR has numbers and texts.")
            elif item.shape == _TEXT:
                texts[where] = _text(item[()], where)
            elif len(item.shape) == _TABLE:
                tree.count(item.size)
                edges[where] = [[_text(entry, where) for entry in row] for row in item[()]]
            else:
                raise InputError(
                    f"{where!r} is a list of texts, which NIR has not; export it again."
                )
    return arrays, {"texts": texts, "edges": edges}


def _check_layout(tree: Tree, dataset: Any, where: str) -> None:
    tree.count_bytes(size_inside(dataset, where), where)
    layout = dataset.id.get_create_plist()
    filters = [layout.get_filter(i)[0] for i in range(layout.get_nfilters())]
    if any(number not in _FILTERS for number in filters):
        raise InputError(f"array {where!r} has a filter that is not known; save it with gzip.")
    if dataset.chunks and size_of(dataset.chunks, dataset) > limits.ARRAY_BYTES:
        raise InputError(
            f"array {where!r} is kept in parts of more than {limits.ARRAY_BYTES} bytes; "
            "it cannot be imported."
        )


def _text(value: Any, where: str) -> str:
    text = value.decode("utf-8", "replace") if isinstance(value, bytes) else value
    if not isinstance(text, str) or len(text) > limits.JSON_BYTES:
        raise InputError(f"{where!r} is no text, or too long a one; export it again.")
    return text
