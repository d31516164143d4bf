"""An HDF5 file of weights as plain arrays and texts.

Only what weights need is read: groups, arrays of floats and integers that lie in the file as they
are, and attributes of text. Compressed arrays are refused: no array is larger than its file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from converters.sandbox import limits
from lmu_deploy.core.errors import InputError, MissingDependencyError

try:
    import h5py

    from converters.sandbox.hdf5_tree import Tree, opened, read_numbers, size_inside
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
    arrays: dict[str, np.ndarray] = {}
    attributes: dict[str, dict[str, str | list[str]]] = {}
    file_bytes = path.stat().st_size
    with opened(path, "save it again", SKIPPED) as tree:
        for where, item in tree.walk():
            if isinstance(item, h5py.Group):
                if found := _read_attributes(tree, item, where):
                    attributes[where] = found
            elif item.dtype.kind in "fiu":
                arrays[where] = _read_array(tree, item, where, file_bytes)
    return arrays, {"attributes": attributes}


def _read_array(tree: Tree, dataset: Any, where: str, file_bytes: int) -> np.ndarray:
    size = size_inside(dataset, where)
    if dataset.id.get_create_plist().get_nfilters():
        raise InputError(f"array {where!r} is compressed; save it without compression.")
    if size > file_bytes:
        raise InputError(
            f"array {where!r} of shape {_short(dataset.shape)} is larger than the file; "
            "it cannot be imported."
        )
    tree.count_bytes(size, where)
    return read_numbers(dataset)


def _read_attributes(tree: Tree, group: Any, path: str) -> dict[str, str | list[str]]:
    tree.count(len(group.attrs))
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
            tree.count(value.size)
            found[name] = [_text(item) for item in value]
    return found


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    raise InputError("an attribute holds something else than text; the file is damaged.")


def _short(shape: tuple[int, ...]) -> str:
    return str(shape) if len(shape) < 8 else f"with {len(shape)} dimensions"
