"""One ONNX graph while it is written: nodes with names, and a model made of it at the end.

The caller names every tensor, and a node takes the name of what it computes, so that a viewer or
an error message of a runtime shows ``layers.0.u`` rather than a number.

A network's arrays as ONNX initializers, each named by its path in the network.

In: a float network. Out: float32 arrays such as ``layers.0.memory.a_bar``, an array that two
layers share held once, and the JSON text from which :mod:`converters.onnx.reader` makes the
network again.

What an exported model says of itself in its metadata_props, besides its graph.

``lmu_deploy.structure`` is for :mod:`converters.onnx.reader`; the rest is for people and for other
programs: lists are JSON and have one entry for each LMU layer.

Judge an ONNX model, and write it whole or not at all.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from lmu_deploy.core.errors import InputError
from lmu_deploy.core.files import atomic_write, to_tree
from lmu_deploy.core.network import LMULayer, LMUNetwork

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


OPSET = 17
IR_VERSION = 8
"""Read by ONNX Runtime from 1.12 on."""

Dimension = int | str


class Graph:
    """Nodes, inputs and outputs of a graph, or of the body of a Scan.

    Parameters
    ----------
    name : str
    weights : Weights
        The initializers, which a body shares with the graph around it.
    scope : str
        Set before every name that the graph makes: a body's names must not be those of the graph
        around it.
    """

    def __init__(self, name: str, weights: Weights, scope: str = "") -> None:
        self.name = name
        self.weights = weights
        self._scope = scope
        self._nodes: list[onnx.NodeProto] = []
        self._inputs: list[onnx.ValueInfoProto] = []
        self._outputs: list[onnx.ValueInfoProto] = []

    def node(self, op: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        """Add a node with one output and give the output's name."""
        return self.nodes(op, inputs, [output], **attributes)[0]

    def nodes(
        self, op: str, inputs: Sequence[str], outputs: Sequence[str], **attributes: Any
    ) -> list[str]:
        """Add a node with several outputs and give their names."""
        names = [self._scope + output for output in outputs]
        self._nodes.append(helper.make_node(op, inputs, names, name=names[0], **attributes))
        return names

    def input(self, name: str, shape: Sequence[Dimension], element: int = TensorProto.FLOAT) -> str:
        """Declare an input; a dimension is a size, or the name of one that varies."""
        name = self._scope + name
        self._inputs.append(helper.make_tensor_value_info(name, element, shape))
        return name

    def output(
        self, tensor: str, shape: Sequence[Dimension], element: int = TensorProto.FLOAT
    ) -> None:
        """Declare a tensor of the graph as an output."""
        self._outputs.append(helper.make_tensor_value_info(tensor, element, shape))

    def affine(self, x: str, kernel: str, bias: str | None, output: str) -> str:
        """Compute ``x @ kernel + bias`` for x of any rank; no bias is 0."""
        if bias is None:
            return self.node("MatMul", [x, kernel], output)
        return self.node("Add", [self.node("MatMul", [x, kernel], f"{output}.sum"), bias], output)

    def total(self, terms: Sequence[str], output: str) -> str:
        """Add up one or more tensors."""
        result = terms[0]
        for number, term in enumerate(terms[1:], start=1):
            last = number == len(terms) - 1
            result = self.node("Add", [result, term], output if last else f"{output}.{number}")
        return result

    def body(self) -> onnx.GraphProto:
        """Give the graph as the body of a Scan, which sees the initializers of the model."""
        return helper.make_graph(self._nodes, self.name, self._inputs, self._outputs)

    def model(
        self, metadata: Mapping[str, str], opset: int = OPSET, ir_version: int = IR_VERSION
    ) -> onnx.ModelProto:
        """Give the graph as a model with its initializers, inferred shapes and metadata."""
        graph = helper.make_graph(
            self._nodes, self.name, self._inputs, self._outputs, self.weights.tensors()
        )
        model = helper.make_model(
            graph,
            producer_name="lmu_deploy",
            opset_imports=[helper.make_opsetid("", opset)],
            ir_version=ir_version,
        )
        helper.set_model_props(model, dict(metadata))
        return onnx.shape_inference.infer_shapes(
            model, check_type=True, strict_mode=True, data_prop=True
        )


FORMAT = 1
PREFIX = "lmu_deploy."


def describe(network: LMUNetwork, form: str, structure: str) -> dict[str, str]:
    """Give the metadata of a float model.

    Parameters
    ----------
    network : LMUNetwork
    form : {"sequence", "step"}
    structure : str
        The network as JSON, its arrays named by initializer.
    """
    memories = [layer.memory for layer in network.layers if isinstance(layer, LMULayer)]
    values = {
        "format": str(FORMAT),
        "form": form,
        "task": network.task or "",
        "return_sequences": json.dumps(network.return_sequences),
        "theta": json.dumps([memory.theta for memory in memories]),
        "order": json.dumps([memory.order for memory in memories]),
        "channels": json.dumps([memory.channels for memory in memories]),
        "discretizer": json.dumps([memory.discretizer for memory in memories]),
        "dt": "1",
        "structure": structure,
    }
    return {PREFIX + key: value for key, value in values.items()}


def check_onnx(model: onnx.ModelProto) -> None:
    """Run ONNX's own checker with type and shape inference.

    Raises
    ------
    InputError
        When the model is not valid.
    """
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise InputError(f"the ONNX model is not valid: {error}") from error


def save_onnx(model: onnx.ModelProto, path: Path | str) -> None:
    """Check `model` and write it; the same model gives the same bytes.

    Raises
    ------
    InputError
        When the model is not valid or `path` cannot be written. Nothing is left half-written.
    """
    check_onnx(model)
    with atomic_write(path) as temporary:
        temporary.write_bytes(model.SerializeToString(deterministic=True))
