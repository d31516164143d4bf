"""Build, check and write ONNX models.

:class:`Graph` collects nodes and returns the finished model. The caller names every tensor, and a
node has the name of its result, so that viewers and error messages show ``layers.0.u`` rather than
a number.

:class:`Weights` holds the initializers. Those of a float network are float32 arrays named by their
path, such as ``layers.0.memory.a_bar``; equal arrays are stored once. `structure` is the JSON text
from which :mod:`converters.onnx.reader` restores the network.

:func:`describe` returns the metadata_props of a float model. ``lmu_deploy.structure`` is for
:mod:`converters.onnx.reader`; the rest is for human readers and other programs. Lists are JSON and
have one entry for each LMU layer.
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
"""Most bytes of weights in one ONNX file: the limit of protobuf, 2 GiB, minus the graph."""


class Weights:
    """The initializers of one model.

    Parameters
    ----------
    network : LMUNetwork, optional
        Network whose arrays are added; without it the caller adds each by `constant`.

    Raises
    ------
    InputError
        When a weight exceeds float32, or all of them the size of one ONNX file.

    Attributes
    ----------
    structure : str
        The network as JSON, with arrays referred to by initializer.
    """

    def __init__(self, network: LMUNetwork | None = None) -> None:
        self._arrays: dict[str, np.ndarray] = {}
        self._names: dict[str, str] = {}
        self.structure = ""
        if network is not None:
            self._add(network)

    def _add(self, network: LMUNetwork) -> None:
        tree, tensors = to_tree(network)
        needed = sum(4 * array.size for array in tensors.values())
        if needed > LARGEST_MODEL:
            raise InputError(
                f"the network has {needed:,} bytes of weights, and one ONNX file can have "
                f"{LARGEST_MODEL:,}; give a smaller network."
            )
        for path, array in tensors.items():
            self._names[path] = self.constant(path, _as_float32(path, array))
        self.structure = json.dumps(_renamed(tree, self._names))

    def __getitem__(self, path: str) -> str:
        """Return the name of the initializer of the array at `path` of the network."""
        return self._names[path]

    def constant(self, name: str, array: np.ndarray) -> str:
        """Add an array and return its name, which is that of an equal array if there is one."""
        for existing, other in self._arrays.items():
            if other.dtype == array.dtype and np.array_equal(other, array):
                return existing
        assert name not in self._arrays, f"two arrays are called {name}"
        self._arrays[name] = array
        return name

    def tensors(self) -> list[onnx.TensorProto]:
        """Return every array as an ONNX initializer."""
        return [numpy_helper.from_array(array, name) for name, array in self._arrays.items()]


def _as_float32(path: str, array: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        narrow = np.ascontiguousarray(array, dtype=np.float32)
    if not np.isfinite(narrow).all():
        raise InputError(
            f"{path} has entries beyond float32 (3.4e38), which an ONNX float model cannot have; "
            "scale the network."
        )
    return narrow


def _renamed(tree: Any, names: Mapping[str, str]) -> Any:
    """Replace the paths of arrays in a tree by the names of their initializers."""
    if isinstance(tree, list):
        return [_renamed(item, names) for item in tree]
    if not isinstance(tree, dict):
        return tree
    if set(tree) == {"tensor"}:
        return {"tensor": names[tree["tensor"]]}
    return {key: _renamed(value, names) for key, value in tree.items()}


OPSET = 17
IR_VERSION = 8
"""Supported by ONNX Runtime 1.12 and later."""

Dimension = int | str


class Graph:
    """Nodes, inputs and outputs of a graph, or of the body of a Scan.

    Parameters
    ----------
    name : str
    weights : Weights
        The initializers, which a body shares with the enclosing graph.
    scope : str
        Prefix of every name in the graph, since the names of a body must differ from those of the
        enclosing graph.
    """

    def __init__(self, name: str, weights: Weights, scope: str = "") -> None:
        self.name = name
        self.weights = weights
        self._scope = scope
        self._nodes: list[onnx.NodeProto] = []
        self._inputs: list[onnx.ValueInfoProto] = []
        self._outputs: list[onnx.ValueInfoProto] = []

    def node(self, op: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        """Add a node with one output and return the output's name."""
        return self.nodes(op, inputs, [output], **attributes)[0]

    def nodes(
        self, op: str, inputs: Sequence[str], outputs: Sequence[str], **attributes: Any
    ) -> list[str]:
        """Add a node with several outputs and return their names."""
        names = [self._scope + output for output in outputs]
        self._nodes.append(helper.make_node(op, inputs, names, name=names[0], **attributes))
        return names

    def input(self, name: str, shape: Sequence[Dimension], element: int = TensorProto.FLOAT) -> str:
        """Declare an input; a dimension is a size, or the name of a variable one."""
        name = self._scope + name
        self._inputs.append(helper.make_tensor_value_info(name, element, shape))
        return name

    def output(
        self, tensor: str, shape: Sequence[Dimension], element: int = TensorProto.FLOAT
    ) -> None:
        """Declare a tensor of the graph as an output."""
        self._outputs.append(helper.make_tensor_value_info(tensor, element, shape))

    def affine(self, x: str, kernel: str, bias: str | None, output: str) -> str:
        """Add ``x @ kernel + bias`` for x of any rank; the bias may be missing."""
        if bias is None:
            return self.node("MatMul", [x, kernel], output)
        return self.node("Add", [self.node("MatMul", [x, kernel], f"{output}.sum"), bias], output)

    def total(self, terms: Sequence[str], output: str) -> str:
        """Add the sum of one or more tensors."""
        result = terms[0]
        for number, term in enumerate(terms[1:], start=1):
            last = number == len(terms) - 1
            result = self.node("Add", [result, term], output if last else f"{output}.{number}")
        return result

    def activation(self, kind: str, z: str, output: str, limits: str = "limit.") -> str:
        """Add a float activation; `limits` is the prefix of the constants of hard-tanh."""
        if kind == "hard-tanh":
            names = [
                self.weights.constant(f"{limits}{v:+d}", np.array(v, dtype=np.float32))
                for v in (-1, 1)
            ]
            return self.node("Clip", [z, *names], output)
        return self.node({"linear": "Identity", "relu": "Relu", "tanh": "Tanh"}[kind], [z], output)

    def swap_time(self, x: str, output: str) -> str:
        """Add the exchange of batch and time of a tensor of rank 3."""
        return self.node("Transpose", [x], output, perm=[1, 0, 2])

    def last_step(self, x: str, output: str, index: str) -> str:
        """Add the selection of the last step of a tensor with time first; name the constant -1."""
        index = self.weights.constant(index, np.array(-1, dtype=np.int64))
        return self.node("Gather", [x, index], output, axis=0)

    def body(self) -> onnx.GraphProto:
        """Return the graph as the body of a Scan, which can use the initializers of the model."""
        return helper.make_graph(self._nodes, self.name, self._inputs, self._outputs)

    def model(
        self, metadata: Mapping[str, str], opset: int = OPSET, ir_version: int = IR_VERSION
    ) -> onnx.ModelProto:
        """Return the graph as a model with its initializers, inferred shapes and metadata."""
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
    """Return the metadata of a float model.

    Parameters
    ----------
    network : LMUNetwork
    form : {"sequence", "step"}
    structure : str
        The network as JSON, with arrays referred to by initializer.
    """
    values = {
        "format": str(FORMAT),
        "form": form,
        "task": network.task or "",
        "return_sequences": json.dumps(network.return_sequences),
        **describe_memories(network),
        "dt": "1",
        "structure": structure,
    }
    return {PREFIX + key: value for key, value in values.items()}


def describe_memories(network: LMUNetwork) -> dict[str, str]:
    """Return the properties of the memories of a float network, each a JSON list by layer."""
    memories = [layer.memory for layer in network.layers if isinstance(layer, LMULayer)]
    return {
        name: json.dumps([getattr(memory, name) for memory in memories])
        for name in ("theta", "order", "channels", "discretizer")
    }


def check_onnx(model: onnx.ModelProto) -> None:
    """Run the checker of ONNX with type and shape inference.

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
    """Check `model` and write it; equal models have equal bytes.

    Raises
    ------
    InputError
        When the model is not valid or `path` cannot be written. No partial file is left.
    """
    check_onnx(model)
    with atomic_write(path) as temporary:
        temporary.write_bytes(model.SerializeToString(deterministic=True))
