"""A network's arrays as ONNX initializers, each named by its path in the network.

In: a float network. Out: float32 arrays such as ``layers.0.memory.a_bar``, an array that two
layers share held once, and the JSON text from which :mod:`converters.onnx.reader` makes the
network again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from lmu_deploy.errors import InputError
from lmu_deploy.files import to_tree
from lmu_deploy.network import LMUNetwork

LARGEST_MODEL = 2**31 - 2**24
"""Bytes of weights that one ONNX file can hold: protobuf ends at 2 GiB, the graph needs some."""


class Weights:
    """The initializers of one model.

    Parameters
    ----------
    network : LMUNetwork, optional
        Whose arrays to hold; without it the caller gives each by `constant`.

    Raises
    ------
    InputError
        When a weight is beyond float32, or all of them are beyond one ONNX file.

    Attributes
    ----------
    structure : str
        The network as JSON, its arrays named by initializer.
    """

    def __init__(self, network: LMUNetwork | None = None) -> None:
        self._arrays: dict[str, np.ndarray] = {}
        self._names: dict[str, str] = {}
        self.structure = ""
        if network is not None:
            self._hold(network)

    def _hold(self, network: LMUNetwork) -> None:
        tree, tensors = to_tree(network)
        needed = sum(4 * array.size for array in tensors.values())
        if needed > LARGEST_MODEL:
            raise InputError(
                f"the network has {needed:,} bytes of weights, and one ONNX file can hold "
                f"{LARGEST_MODEL:,}; give a smaller network."
            )
        for path, array in tensors.items():
            self._names[path] = self.constant(path, _as_float32(path, array))
        self.structure = json.dumps(_renamed(tree, self._names))

    def __getitem__(self, path: str) -> str:
        """Name of the initializer that holds the array at `path` of the network."""
        return self._names[path]

    def constant(self, name: str, array: np.ndarray) -> str:
        """Hold `array` and give its name, which is that of an equal array if there is one."""
        for held, other in self._arrays.items():
            if other.dtype == array.dtype and np.array_equal(other, array):
                return held
        assert name not in self._arrays, f"two arrays are called {name}"
        self._arrays[name] = array
        return name

    def tensors(self) -> list[onnx.TensorProto]:
        """Give every array as an ONNX initializer."""
        return [numpy_helper.from_array(array, name) for name, array in self._arrays.items()]


def _as_float32(path: str, array: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        narrow = np.ascontiguousarray(array, dtype=np.float32)
    if not np.isfinite(narrow).all():
        raise InputError(
            f"{path} has entries beyond float32 (3.4e38), which an ONNX float model cannot hold; "
            "scale the network."
        )
    return narrow


def _renamed(tree: Any, names: Mapping[str, str]) -> Any:
    """Let the arrays of a tree be named by initializer instead of by path."""
    if isinstance(tree, list):
        return [_renamed(item, names) for item in tree]
    if not isinstance(tree, dict):
        return tree
    if set(tree) == {"tensor"}:
        return {"tensor": names[tree["tensor"]]}
    return {key: _renamed(value, names) for key, value in tree.items()}
