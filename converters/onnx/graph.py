"""Build, check and write ONNX models.

:class:`Graph` collects nodes and returns the finished model. The caller names every tensor, and a
node has the name of its result, so that viewers and error messages show ``lmu_1.u`` rather than
a number.

:class:`Weights` holds the initializers. Those of a float network are named by the network's own
nodes, such as ``lmu_1.memory.a_bar``; equal arrays are stored once. They are stored in float32
where that loses nothing and in float64 otherwise, with a Cast behind them, so that the network can
be restored exactly and yet is computed in float32. `structure` is the JSON text from which
:mod:`converters.onnx.models` restores the network.

:func:`describe` returns the metadata_props of a float model. ``lmu_deploy.structure`` is for
:mod:`converters.onnx.models`; the rest is for human readers and other programs. Lists are JSON and
have one entry for each memory.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from copy import copy
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from converters.onnx import doubles
from lmu_deploy.core.errors import InputError
from lmu_deploy.core.files import atomic_write, to_tree
from lmu_deploy.core.graph.lmu import LMU
from lmu_deploy.core.graph.memory import LinearMemory
from lmu_deploy.core.graph.network import Network
from lmu_deploy.core.network import Memory

LARGEST_MODEL = 2**31 - 2**24
"""Most bytes of weights in one ONNX file: the limit of protobuf, 2 GiB, minus the graph."""


class Names:
    """Names of tensors, each given once."""

    def __init__(self) -> None:
        self._taken: set[str] = set()

    def take(self, name: str, *endings: str) -> str:
        """Return a name that is free, with each of the endings as well, and reserve them all."""
        while any(name + ending in self._taken for ending in ("", *endings)):
            name += "_"
        self._taken.update(name + ending for ending in ("", *endings))
        return name


class Weights:
    """The initializers of one model, and the nodes that compute on them alone.

    Parameters
    ----------
    network : Network, optional
        Network whose arrays are added; without it the caller adds each by `constant`.
    reserved : sequence of str
        Names that no tensor gets: those of inputs and outputs.
    real : {"float32", "float64"}
        Type in which the network is computed.

    Raises
    ------
    InputError
        When a weight exceeds float32, or all of them the size of one ONNX file.

    Attributes
    ----------
    names : Names
    structure : str
        The network as JSON, with arrays referred to by initializer: ``{"tensor": name}``, or
        ``{"tensor": "name:float64"}`` for an array of another type than its initializer.
    nodes : list of onnx.NodeProto
    """

    def __init__(
        self,
        network: Network | None = None,
        reserved: Sequence[str] = (),
        real: str = "float32",
    ) -> None:
        self.names, self.real = Names(), np.dtype(real)
        self.structure = ""
        self.nodes: list[onnx.NodeProto] = []
        self._arrays: dict[str, np.ndarray] = {}
        self._known: dict[tuple[str, tuple[int, ...], bytes], str] = {}
        self._tensors: dict[tuple[str, str], str] = {}
        self._wide: dict[str, str] = {}
        self._derived: dict[tuple[str, tuple[str, ...]], list[str]] = {}
        for name in reserved:
            self.names.take(name)
        if network is not None:
            self._add(network)

    def of_another(self, network: Network, real: str) -> Weights:
        """Return the same initializers with those of another network in the same model."""
        other = copy(self)
        other.real = np.dtype(real)
        other._tensors, other._wide = {}, {}
        other._add(network)
        return other

    def _add(self, network: Network) -> None:
        for node in network.nodes:
            self._tensors[node.name, ""] = self.names.take(node.name)
        tree, tensors = to_tree(network)
        places = {path: _place(network, path) for path in tensors}
        stored = {p: _stored(".".join(places[p]), array) for p, array in tensors.items()}
        if (needed := sum(array.nbytes for array in stored.values())) > LARGEST_MODEL:
            raise InputError(
                f"the network has {needed:,} bytes of weights, and one ONNX file can have "
                f"{LARGEST_MODEL:,}; give a smaller network."
            )
        references = {}
        for path, array in stored.items():
            name = self.constant(".".join(places[path]), array)
            same = array.dtype == tensors[path].dtype
            references[path] = name if same else f"{name}:{tensors[path].dtype.name}"
            if self.real == np.float64:
                if array.dtype == np.float32:
                    name = self.derive(f"{name}.float64", "Cast", [name], to=TensorProto.DOUBLE)
                self._wide[name] = name
            elif array.dtype == np.float64:
                narrow = self.derive(f"{name}.float32", "Cast", [name], to=TensorProto.FLOAT)
                self._wide[narrow], name = name, narrow
            self._tensors[places[path]] = name
        self.structure = json.dumps(_renamed(tree, references))

    def __getitem__(self, place: tuple[str, str]) -> str:
        """Return the tensor of a weight of a node, or without one of the node's output.

        Parameters
        ----------
        place : tuple of two str
            Names of the node and of the weight, such as ``memory.a_bar``.
        """
        return self._tensors[place]

    def double(self, node: str, weight: str) -> str:
        """Return the float64 tensor of a weight of a node."""
        name = self[node, weight]
        if name in self._wide:
            return self._wide[name]
        return self.derive(f"{name}.float64", "Cast", [name], to=TensorProto.DOUBLE)

    def constant(self, name: str, array: np.ndarray) -> str:
        """Add an array and return its name, which is that of an equal array if there is one."""
        digest = hashlib.sha256(np.ascontiguousarray(array).tobytes()).digest()
        key = array.dtype.str, array.shape, digest
        if key not in self._known:
            self._known[key] = self.names.take(name)
            self._arrays[self._known[key]] = array
        return self._known[key]

    def derive(self, name: str, op: str, inputs: Sequence[str], **attributes: Any) -> str:
        """Add a node that computes on initializers, once; return the name of its output.

        A runtime computes such nodes when it loads the model.
        """
        return self.derive_all([name], op, inputs, **attributes)[0]

    def derive_all(
        self, names: Sequence[str], op: str, inputs: Sequence[str], **attributes: Any
    ) -> list[str]:
        """Add a node with several outputs; see `derive`."""
        key = names[0], tuple(inputs)
        if key not in self._derived:
            outputs = [self.names.take(name) for name in names]
            self.nodes.append(helper.make_node(op, inputs, outputs, name=outputs[0], **attributes))
            self._derived[key] = outputs
        return self._derived[key]

    def tensors(self) -> list[onnx.TensorProto]:
        """Return every array as an ONNX initializer."""
        return [numpy_helper.from_array(array, name) for name, array in self._arrays.items()]


def _place(network: Network, path: str) -> tuple[str, str]:
    """Return node and weight of an array, given its path in the tree of the network."""
    _, number, _, weight = path.split(".", 3)  # nodes.3.operator.memory.a_bar
    return network.nodes[int(number)].name, weight


def _stored(label: str, array: np.ndarray) -> np.ndarray:
    """Return an array as it is stored: in float32 if no bit is lost."""
    with np.errstate(over="ignore", under="ignore"):
        narrow = np.ascontiguousarray(array, dtype=np.float32)
    if not np.isfinite(narrow).all():
        raise InputError(
            f"{label} has entries beyond float32 (3.4e38), which an ONNX float model cannot have; "
            "scale the network."
        )
    return narrow if (narrow == array).all() else np.ascontiguousarray(array, dtype=np.float64)


def _renamed(tree: Any, names: Mapping[str, str]) -> Any:
    """Replace the paths of arrays in a tree by their references."""
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

_LIMITS = {"relu6": (0.0, 6.0), "hard-tanh": (-1.0, 1.0)}
_OPERATORS: Mapping[str, tuple[str, dict[str, Any]]] = {
    "linear": ("Identity", {}),
    "relu": ("Relu", {}),
    "tanh": ("Tanh", {}),
    "sigmoid": ("Sigmoid", {}),
    "hard-sigmoid": ("HardSigmoid", {"alpha": 1.0 / 6.0, "beta": 0.5}),
    "hard-sigmoid-keras2": ("HardSigmoid", {"alpha": 0.2, "beta": 0.5}),
    "softsign": ("Softsign", {}),
    "softplus": ("Softplus", {}),
    "softmax": ("Softmax", {"axis": -1}),
    "leaky-relu": ("LeakyRelu", {}),
    "elu": ("Elu", {}),
}
"""Activation functions that are one operator of ONNX."""


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
        if self.real == TensorProto.DOUBLE:
            doubles.check_kernel(op, outputs[0])
        names = [self._scope + output for output in outputs]
        self._nodes.append(helper.make_node(op, inputs, names, name=names[0], **attributes))
        return names

    @property
    def real(self) -> int:
        """ONNX type of real numbers."""
        return int(helper.np_dtype_to_tensor_dtype(self.weights.real))

    def with_weights(self, weights: Weights) -> Graph:
        """Return the same graph for a network with other weights."""
        other = copy(self)
        other.weights = weights
        return other

    def input(self, name: str, shape: Sequence[Dimension], element: int | None = None) -> str:
        """Declare an input, of real numbers by default; a dimension may be a name."""
        name = self._scope + name
        self._inputs.append(helper.make_tensor_value_info(name, element or self.real, shape))
        return name

    def output(self, tensor: str, shape: Sequence[Dimension], element: int | None = None) -> None:
        """Declare a tensor of the graph as an output, of real numbers by default."""
        self._outputs.append(helper.make_tensor_value_info(tensor, element or self.real, shape))

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

    def activation(self, kind: str, z: str, output: str, slope: float = 1.0) -> str:
        """Add an activation function of :mod:`lmu_deploy.core.graph.pointwise`."""
        if self.real == TensorProto.DOUBLE and kind in doubles.WRITTEN:
            return doubles.activation(self, kind, z, output, slope)
        if kind in _LIMITS:
            limits = [self.number(limit) for limit in _LIMITS[kind]]
            return self.node("Clip", [z, *limits], output)
        if kind == "step":
            passed = self.weights.names.take(f"{output}.passed")
            self.node("GreaterOrEqual", [z, self.number(0.0)], passed)
            return self.node("Cast", [passed], output, to=self.real)
        if kind in ("gelu", "gelu-tanh", "silu"):
            return self.node("Mul", [z, self._gate(kind, z, output)], output)
        op, attributes = _OPERATORS[kind]
        if kind in ("leaky-relu", "elu"):
            attributes = {"alpha": slope}
        return self.node(op, [z], output, **attributes)

    def number(self, value: float) -> str:
        """Return a constant, a real number."""
        return self.weights.constant(f"number.{value:g}", np.array(value, dtype=self.weights.real))

    def integers(self, *values: int) -> str:
        """Return a constant vector, int64."""
        name = f"integers.{'.'.join(map(str, values))}"
        return self.weights.constant(name, np.array(values, dtype=np.int64))

    def _gate(self, kind: str, z: str, output: str) -> str:
        """Add what z is multiplied by: the logistic function, or a form of that of Gauss."""

        def add(op: str, inputs: Sequence[str], part: str) -> str:
            return self.node(op, inputs, self.weights.names.take(f"{output}.{part}"))

        if kind == "silu":
            return add("Sigmoid", [z], "gate")
        if kind == "gelu":
            root = add("Mul", [z, self.number(math.sqrt(0.5))], "scaled")
            share = add("Erf", [root], "erf")
        else:
            cube = add("Mul", [add("Mul", [z, z], "square"), z], "cube")
            bent = add("Add", [z, add("Mul", [cube, self.number(0.044715)], "bend")], "bent")
            share = add("Tanh", [add("Mul", [bent, self.number(math.sqrt(2.0 / math.pi))],
                                     "scaled")], "tanh")  # fmt: skip
        half = self.number(0.5)
        return add("Add", [add("Mul", [share, half], "half"), half], "gate")

    def swap_time(self, x: str, output: str) -> str:
        """Add the exchange of batch and time of a tensor of rank 3."""
        return self.node("Transpose", [x], output, perm=[1, 0, 2])

    def last_step(self, x: str, output: str, index: str) -> str:
        """Add the selection of the last step of a tensor with time first; name the constant -1."""
        index = self.weights.constant(index, np.array(-1, dtype=np.int64))
        return self.node("Gather", [x, index], output, axis=0)

    def body_graph(self, name: str) -> Graph:
        """Return an empty graph for the body of a Scan, with the initializers of this one."""
        return Graph(name, self.weights)

    def body(self) -> onnx.GraphProto:
        """Return the graph as the body of a Scan, which can use the initializers of the model."""
        return helper.make_graph(self._nodes, self.name, self._inputs, self._outputs)

    def model(
        self, metadata: Mapping[str, str], opset: int = OPSET, ir_version: int = IR_VERSION
    ) -> onnx.ModelProto:
        """Return the graph as a model with its initializers, inferred shapes and metadata."""
        nodes = [*self.weights.nodes, *self._nodes]
        graph = helper.make_graph(
            nodes, self.name, self._inputs, self._outputs, self.weights.tensors()
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


FORMAT = 2
"""Version of the structure of float models; version 1 held layers one behind the other."""

PREFIX = "lmu_deploy."


def describe(network: Network, form: str, structure: str) -> dict[str, str]:
    """Return the metadata of a float model.

    Parameters
    ----------
    network : Network
    form : {"sequence", "step"}
    structure : str
        The network as JSON, with arrays referred to by initializer.
    """
    operators = [node.operator for node in network.nodes]
    values = {
        "format": str(FORMAT),
        "form": form,
        "task": network.task or "",
        "return_sequences": json.dumps(network.return_sequences),
        **describe_memories([o.memory for o in operators if isinstance(o, LMU | LinearMemory)]),
        "dt": "1",
        "structure": structure,
    }
    return {PREFIX + key: value for key, value in values.items()}


def describe_memories(memories: Sequence[Memory]) -> dict[str, str]:
    """Return the properties of memories, each a JSON list in the order of the network."""
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
