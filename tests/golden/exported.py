"""What exported files say, whatever their names, producers, versions and order of nodes."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np


def onnx_parts(path: Path) -> dict[str, Any]:
    """Return operators, tensors and structure of an ONNX file.

    Returns
    -------
    dict
        `operators`, how often each stands in the file, as bytes; `tensors`, those that stand in it;
        `graph`, a hash of what is computed from what.
    """
    import onnx

    model = onnx.load(path)
    names = Counter[str]()
    tensors: list[np.ndarray] = []
    digest = _Graphs(names, tensors).graph(model.graph, {})
    for function in model.functions:
        names.update(f"function {node.op_type}" for node in function.node)
    return {"operators": _bytes(sorted(names.items())), "tensors": tensors, "graph": digest}


class _Graphs:
    """Goes through a graph and those within its nodes; every value is known by what made it."""

    def __init__(self, names: Counter[str], tensors: list[np.ndarray]) -> None:
        self._names, self._tensors = names, tensors

    def graph(self, graph: Any, outer: Mapping[str, str]) -> str:
        known = {**outer, "": ""}
        for tensor in graph.initializer:
            known[tensor.name] = self._tensor(tensor)
        given = [value for value in graph.input if value.name not in known]
        for number, value in enumerate(given):
            kind = value.type.tensor_type
            sizes = [dim.dim_value or "?" for dim in kind.shape.dim]
            known[value.name] = f"input {number} {kind.elem_type} {sizes}"
        for node in graph.node:
            self._names[node.op_type] += 1
            attributes = sorted((a.name, self._attribute(a, known)) for a in node.attribute)
            inputs = [known[name] for name in node.input]
            made = _hash([node.op_type, inputs, attributes])
            known.update({name: f"{made} {k}" for k, name in enumerate(node.output)})
        return _hash([known[value.name] for value in graph.output])

    def _tensor(self, tensor: Any) -> str:
        import onnx

        array = onnx.numpy_helper.to_array(tensor)
        self._tensors.append(array)
        return _hash([array.dtype.str, array.shape, array.tobytes()])

    def _attribute(self, attribute: Any, known: Mapping[str, str]) -> str:
        import onnx

        value = onnx.helper.get_attribute_value(attribute)
        if isinstance(value, onnx.GraphProto):
            return self.graph(value, known)
        if isinstance(value, onnx.TensorProto):
            return self._tensor(value)
        return repr(value)


def nir_parts(path: Path) -> dict[str, Any]:
    """Return kinds of nodes, tensors and structure of a NIR file; see `onnx_parts`."""
    import nir

    graph = nir.read(path)
    tensors: list[np.ndarray] = []
    colors: dict[str, str] = {}
    for name, node in graph.nodes.items():
        inside = {f.name: getattr(node, f.name) for f in fields(node)}
        arrays = {k: np.asarray(v) for k, v in inside.items() if k not in _NOT_OF_NIR}
        arrays = {k: v for k, v in arrays.items() if v.dtype.kind in "fiub"}
        tensors += arrays.values()
        said = sorted((k, v.dtype.str, v.shape, v.tobytes()) for k, v in arrays.items())
        colors[name] = _hash([type(node).__name__, said])
    kinds = Counter(type(node).__name__ for node in graph.nodes.values())
    for _ in range(len(colors)):
        into = {name: sorted(colors[a] for a, b in graph.edges if b == name) for name in colors}
        out = {name: sorted(colors[b] for a, b in graph.edges if a == name) for name in colors}
        colors = {name: _hash([color, into[name], out[name]]) for name, color in colors.items()}
    return {
        "operators": _bytes(sorted(kinds.items())),
        "tensors": tensors,
        "graph": _hash(sorted(colors.values())),
    }


_NOT_OF_NIR = ("metadata", "input_type", "output_type")


def _hash(value: Any) -> str:
    return hashlib.sha256(repr(value).encode()).hexdigest()


def _bytes(value: Any) -> np.ndarray:
    return np.frombuffer(repr(value).encode(), np.uint8)
