"""What a graph says of itself in its metadata: the network's structure, and the host's arrays.

``metadata["lmu_deploy"]`` is one JSON text: the format, what is held, how to step, and the tree of
:func:`lmu_deploy.files.to_tree`. ``metadata["lmu_deploy_arrays"]`` holds the tree's arrays that no
node carries, by their names in it. The other entries are for people.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import nir
import numpy as np

from converters.nir.stepping import Stepping
from lmu_deploy.errors import InputError

KEY = "lmu_deploy"
ARRAYS = "lmu_deploy_arrays"
FORMAT = 1
_FLOATS = ("float16", "float32", "float64")


@dataclass(frozen=True)
class Header:
    """A graph's metadata, read.

    Attributes
    ----------
    kind : {"float", "spiking"}
    stepping : Stepping
    tree : JSON value
    dtypes : mapping of str to str
        Types of the arrays that nodes carry, by name in the tree.
    arrays : mapping of str to ndarray
        The arrays that no node carries.
    """

    kind: str
    stepping: Stepping
    tree: Any
    dtypes: Mapping[str, str]
    arrays: Mapping[str, np.ndarray]


def write_header(
    kind: str,
    stepping: Stepping,
    tree: Any,
    tensors: Mapping[str, np.ndarray],
    carried: Iterable[str],
) -> dict[str, Any]:
    """Give the metadata of a graph.

    Parameters
    ----------
    kind : {"float", "spiking"}
    stepping : Stepping
    tree, tensors : from :func:`lmu_deploy.files.to_tree`
    carried : iterable of str
        Names of the tensors that nodes carry.
    """
    for name, array in tensors.items():
        if array.size == 0:
            raise InputError(f"{name} is empty, and a NIR file holds no empty array; mend it.")
    carried = set(carried)
    text = {
        "format": FORMAT,
        "kind": kind,
        "integrator": stepping.integrator,
        "dt": stepping.dt,
        "tau": stepping.tau,
        "structure": tree,
        "dtypes": {name: tensors[name].dtype.name for name in sorted(carried)},
    }
    rest = {name: np.array(array) for name, array in tensors.items() if name not in carried}
    found: dict[str, Any] = {KEY: json.dumps(text), "dt": stepping.dt}
    return found | ({ARRAYS: rest} if rest else {})


def read_header(graph: nir.NIRGraph) -> Header:
    """Read the metadata of a graph.

    Raises
    ------
    InputError
        When it is another program's, or damaged.
    """
    text = graph.metadata.get(KEY)
    if not isinstance(text, str):
        raise InputError("this NIR graph was not made by lmu_deploy; only its own can be read.")
    read = json.loads(text)
    if not isinstance(read, dict) or read.get("format") != FORMAT:
        raise InputError("this NIR graph has a format that this version cannot read; update it.")
    arrays = graph.metadata.get(ARRAYS, {})
    if not all(isinstance(array, np.ndarray) for array in arrays.values()):
        raise InputError("the arrays of this NIR graph are damaged; export it again.")
    if not all(dtype in _FLOATS for dtype in read["dtypes"].values()):
        raise InputError("the types of this NIR graph are damaged; export it again.")
    stepping = Stepping(read["integrator"], read["dt"], read["tau"])
    return Header(str(read["kind"]), stepping, read["structure"], read["dtypes"], arrays)
