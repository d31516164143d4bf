r"""Write a graph of operators as NIR nodes, under the names of its nodes.

A network that is a chain of LMU and LSTM layers is written as :mod:`converters.nir.layers` does;
every other one as here, if NIR has nodes for all of its operators:

==================================================  ==============================================
operator                                            NIR
==================================================  ==============================================
Dense; Slice                                        Linear or Affine
Affine                                              Scale, or Affine with a diagonal matrix
Add, Concat, identity, last step                    Scale by one of the sum of the inputs
LinearMemory and LMU without nonlinear units        LI with recurrent weights, Linear and Affine
causal Conv1d without stride                        Delay and Linear for each tap
Conv2d with symmetric padding                       Conv2d
average over windows of two axes                    AvgPool2d
Reshape of an image to a vector                     Flatten
Delay                                               Delay, in seconds
sum over time                                       I with :math:`R = 1 / dt`
==================================================  ==============================================

NIR sums the inputs of a node. Its images have channels first, ours last, so what reads a flattened
image has its weights in another order. A network that answers once has its answer at the last step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import nir
import numpy as np

from converters.nir.layers import Edges, affine, check_names, check_size, memory_nodes
from converters.nir.plan import Place, Stepping
from lmu_deploy.core.errors import InputError
from lmu_deploy.core.graph.frames import FramePool, Reshape, Slice
from lmu_deploy.core.graph.linear import Affine, Conv1d, Conv2d, Dense
from lmu_deploy.core.graph.lmu import LMU
from lmu_deploy.core.graph.memory import LinearMemory
from lmu_deploy.core.graph.network import INPUT, Network, Node
from lmu_deploy.core.graph.operator import Operator
from lmu_deploy.core.graph.pointwise import Activation, Add, Concat
from lmu_deploy.core.graph.recurrent import SimpleRNN
from lmu_deploy.core.graph.time import Delay, Reduce


@dataclass(frozen=True)
class Written:
    """A network as NIR nodes.

    Attributes
    ----------
    nodes : dict of str to node
    edges : list of (str, str)
    places : dict of str to Place
        Where arrays of the network are, by their path in its tree.
    """

    nodes: dict[str, nir.NIRNode]
    edges: Edges
    places: dict[str, Place]


def write_graph(network: Network, stepping: Stepping) -> Written:
    """Return the nodes and edges of a network.

    Raises
    ------
    InputError
        When NIR has no node for an operator; all such nodes are named.
    """
    wrong = [
        f"{node.name} ({node.operator.describe()})"
        for node in network.nodes
        if not _is_writable(network, node)
    ]
    if wrong:
        raise InputError(f"NIR has no node for {', '.join(wrong)}; export the network as onnx.")
    check_names([node.name for node in network.nodes])
    return _Writer(network, stepping).write()


def _is_writable(network: Network, node: Node) -> bool:
    """Return whether NIR has nodes for an operator with frames of its shapes."""
    operator = node.operator
    shapes = [network.shapes[name].frame for name in (*node.inputs, node.name)]
    vectors = all(len(frame) == 1 for frame in shapes)
    images = all(len(frame) == 3 for frame in shapes)
    if isinstance(operator, Dense | Affine | Concat | Slice | LinearMemory | LMU | Conv1d):
        return vectors and _is_linear(operator)
    if isinstance(operator, Conv2d):
        top, bottom, left, right = operator.padding
        return top == bottom and left == right
    if isinstance(operator, FramePool):
        return images and operator.kind == "average"
    if isinstance(operator, Reshape):
        return len(operator.before) in (1, 3) and len(operator.after) == 1
    plain = isinstance(operator, Activation) and operator.name == "linear"
    kept = isinstance(operator, Reduce) and operator.kind in ("last", "sum")
    return (plain or kept or isinstance(operator, Add | Delay)) and (vectors or images)


def _is_linear(operator: Operator) -> bool:
    """Return whether an operator on vectors is linear and causal."""
    if isinstance(operator, LinearMemory):
        return operator.activation is None or operator.activation.name == "linear"
    if isinstance(operator, Conv1d):
        causal = operator.right == 0 and operator.left == operator.reach - 1
        return causal and operator.stride == 1
    if isinstance(operator, LMU):
        cell = operator.hidden
        units = isinstance(cell, SimpleRNN) and cell.recurrent_kernel is None
        linear = cell is None or (units and cell.activation.name == "linear")
        return linear and operator.hidden_encoders is None
    return True


class _Writer:
    """Writes a network node by node."""

    def __init__(self, network: Network, stepping: Stepping) -> None:
        self.network, self.stepping = network, stepping
        self.nodes: dict[str, nir.NIRNode] = {}
        self.edges: Edges = []
        self.places: dict[str, Place] = {}
        self.number = 0
        self.names = {INPUT: "input"}
        self.orders: dict[str, np.ndarray | None] = {INPUT: None}
        taken = {"input", "output"}
        for node in network.nodes:
            self.names[node.name] = _free(node.name, taken)
        self._taken = taken

    def write(self) -> Written:
        """Write all nodes."""
        network = self.network
        self.nodes["input"] = nir.Input({"input": np.array(_first(network.frame))})
        for self.number, node in enumerate(network.nodes):
            self.orders[node.name] = self.orders[node.inputs[0]]
            _WRITERS[type(node.operator)](self, node, node.operator)
        frame = network.shapes[network.output].frame
        if self.orders[network.output] is not None:
            raise InputError(
                f"the output {network.output} is a flattened image, whose values NIR orders in "
                "another way; export the network as onnx."
            )
        self.add("output", nir.Output({"output": np.array(_first(frame))}),
                 [self.names[network.output]])  # fmt: skip
        return Written(self.nodes, self.edges, self.places)

    def add(self, name: str, node: nir.NIRNode, sources: Sequence[str]) -> str:
        """Add a NIR node that takes the sum of others; return its name."""
        self.nodes[name] = node
        self.edges += [(source, name) for source in sources]
        return name

    def part(self, node: Node, part: str) -> str:
        """Return a new name for a part of a node."""
        return _free(f"{self.names[node.name]}.{part}", self._taken)

    def keep(self, label: str, name: str, field: str, axes: tuple[int, ...]) -> None:
        """Note that a field of a NIR node holds a weight of the present node."""
        self.places[f"nodes.{self.number}.operator.{label}"] = name, field, axes

    def inputs(self, node: Node) -> list[str]:
        """Return the NIR nodes of the inputs."""
        return [self.names[name] for name in node.inputs]

    def total(self, node: Node, sources: Sequence[str]) -> None:
        """Add the NIR node of a node as the sum of others."""
        frame = _first(self.network.shapes[node.name].frame)
        self.add(self.names[node.name], nir.Scale(np.ones(frame)), sources)

    def dense(
        self, name: str, kernel: np.ndarray, bias: np.ndarray | None, node: Node,
        labels: tuple[str, str] | None, sources: Sequence[str] | None = None,
    ) -> str:  # fmt: skip
        """Add a Linear or an Affine; keep kernel and bias there where their order is ours."""
        order = self.orders[node.inputs[0]] if sources is None else None
        check_size(name, kernel.shape[1], kernel.shape[0], kernel.itemsize)
        self.add(name, affine(kernel if order is None else kernel[order], bias),
                 self.inputs(node) if sources is None else sources)  # fmt: skip
        if labels is not None:
            if order is None:
                self.keep(labels[0], name, "weight", (1, 0))
            if bias is not None:
                self.keep(labels[1], name, "bias", (0,))
        return name

    # One for each class of operators

    def write_dense(self, node: Node, operator: Dense) -> None:
        labels = "kernel", "bias"
        self.dense(self.names[node.name], operator.kernel, operator.bias, node, labels)
        self.orders[node.name] = None

    def write_affine(self, node: Node, operator: Affine) -> None:
        order = self.orders[node.inputs[0]]
        scale, offset = (a if order is None else a[order] for a in vars(operator).values())
        name, size = self.names[node.name], len(scale)
        if not offset.any():
            self.add(name, nir.Scale(np.array(scale)), self.inputs(node))
            return
        check_size(name, size, size, scale.itemsize)
        self.add(name, nir.Affine(np.diag(scale), np.array(offset)), self.inputs(node))

    def write_total(self, node: Node, operator: Operator) -> None:
        orders = [self.orders[name] for name in node.inputs]
        if len({None if order is None else order.tobytes() for order in orders}) > 1:
            raise InputError(
                f"node {node.name} takes a flattened image and another vector, whose values NIR "
                "orders in different ways; export the network as onnx."
            )
        self.total(node, self.inputs(node))

    def write_concat(self, node: Node, operator: Concat) -> None:
        parts, first = [], 0
        features = self.network.shapes[node.name].features
        for number, name in enumerate(node.inputs):
            own = self.network.shapes[name].features
            kernel = np.eye(own, features, first, dtype=np.float32)
            kernel = kernel if self.orders[name] is None else kernel[self.orders[name]]
            part = self.part(node, str(number))
            check_size(part, features, own, 4)
            parts.append(self.add(part, affine(kernel, None), [self.names[name]]))
            first += own
        self.total(node, parts)
        self.orders[node.name] = None

    def write_slice(self, node: Node, operator: Slice) -> None:
        features = self.network.shapes[node.inputs[0]].features
        kernel = np.eye(features, dtype=np.float32)[:, operator.begin : operator.end]
        self.dense(self.names[node.name], kernel, None, node, None)
        self.orders[node.name] = None

    def write_delay(self, node: Node, operator: Delay) -> None:
        frame = _first(self.network.shapes[node.name].frame)
        delay = np.full(frame, operator.steps * self.stepping.dt)
        self.add(self.names[node.name], nir.Delay(delay), self.inputs(node))

    def write_reduce(self, node: Node, operator: Reduce) -> None:
        if operator.kind == "last":
            self.total(node, self.inputs(node))
            return
        frame = _first(self.network.shapes[node.name].frame)
        integrator = nir.I(np.full(frame, 1.0 / self.stepping.dt))
        self.add(self.names[node.name], integrator, self.inputs(node))

    def write_reshape(self, node: Node, operator: Reshape) -> None:
        if len(operator.before) == 1:
            self.total(node, self.inputs(node))
            return
        frame = np.array(_first(operator.before))
        self.add(self.names[node.name], nir.Flatten({"input": frame}, start_dim=0),
                 self.inputs(node))  # fmt: skip
        places = np.arange(frame.prod()).reshape(operator.before)
        self.orders[node.name] = places.transpose(2, 0, 1).reshape(-1)

    def write_pool(self, node: Node, operator: FramePool) -> None:
        sizes = np.array(operator.widths), np.array(operator.strides), np.zeros(2, np.int64)
        self.add(self.names[node.name], nir.AvgPool2d(*sizes), self.inputs(node))

    def write_conv2d(self, node: Node, operator: Conv2d) -> None:
        name = self.names[node.name]
        kernel = np.array(operator.kernel.transpose(3, 2, 0, 1), order="C")
        bias = np.zeros(len(kernel), kernel.dtype) if operator.bias is None else operator.bias
        height, width, _ = self.network.shapes[node.inputs[0]].frame
        convolution = nir.Conv2d(
            (height, width), kernel, operator.strides, (operator.padding[0], operator.padding[2]),
            operator.dilations, operator.groups, np.array(bias),
        )  # fmt: skip
        self.add(name, convolution, self.inputs(node))
        self.keep("kernel", name, "weight", (3, 2, 0, 1))
        if operator.bias is not None:
            self.keep("bias", name, "bias", (0,))

    def write_conv1d(self, node: Node, operator: Conv1d) -> None:
        taps = []
        for k, kernel in enumerate(operator.kernel):
            ago = operator.dilation * (len(operator.kernel) - 1 - k)
            sources, whole = self.inputs(node), _grouped(kernel, operator.groups)
            if self.orders[node.inputs[0]] is not None:
                whole = whole[self.orders[node.inputs[0]]]
            if ago:
                delay = nir.Delay(np.full(len(whole), ago * self.stepping.dt))
                sources = [self.add(self.part(node, f"delay{ago}"), delay, sources)]
            bias = None if ago else operator.bias
            name = self.dense(self.part(node, f"tap{k}"), whole, bias, node, None, sources)
            taps.append(name)
        self.total(node, taps)
        self.orders[node.name] = None

    def write_memory(self, node: Node, operator: LinearMemory) -> None:
        encoders = self.part(node, "encoders")
        self.dense(encoders, operator.encoders, operator.bias, node, ("encoders", "bias"))
        self._write_states(node, operator, self.names[node.name], encoders)

    def write_lmu(self, node: Node, operator: LMU) -> None:
        encoders = self.part(node, "encoders")
        labels = "input_encoders", "memory_bias"
        self.dense(encoders, operator.input_encoders, operator.memory_bias, node, labels)
        cell = operator.hidden
        name = self.names[node.name] if cell is None else self.part(node, "memory")
        into = self._write_states(node, operator, name, encoders)
        if operator.memory_encoders is not None:
            feedback = self.part(node, "memory_encoders")
            self.dense(feedback, operator.memory_encoders, None, node, ("memory_encoders", ""),
                       [name])  # fmt: skip
            self.edges.append((feedback, into))
        if cell is None:
            return
        of_memory, of_input = np.split(cell.kernel, [operator.memory.size])
        units = [self.dense(self.part(node, "from_memory"), of_memory, cell.bias, node, None,
                            [name])]  # fmt: skip
        if operator.hidden_takes_input:
            units.append(self.dense(self.part(node, "from_input"), of_input, None, node, None))
        self.total(node, units)

    def _write_states(
        self, node: Node, operator: LinearMemory | LMU, name: str, encoders: str
    ) -> str:
        """Add the integrators of a memory; return the NIR node that takes its channels."""
        parts = memory_nodes("memory", operator.memory, self.stepping)
        into, recurrent = self.part(node, "memory_input"), self.part(node, "recurrent")
        self.add(into, parts["memory_input"], [encoders])
        self.add(name, parts["memory"], [into, recurrent])
        self.add(recurrent, parts["memory_recurrent"], [name])
        self.orders[node.name] = None
        return into


_WRITERS: dict[type[Operator], Callable[[_Writer, Node, Any], None]] = {
    Dense: _Writer.write_dense,
    Affine: _Writer.write_affine,
    Activation: _Writer.write_total,
    Add: _Writer.write_total,
    Concat: _Writer.write_concat,
    Slice: _Writer.write_slice,
    Delay: _Writer.write_delay,
    Reduce: _Writer.write_reduce,
    Reshape: _Writer.write_reshape,
    FramePool: _Writer.write_pool,
    Conv2d: _Writer.write_conv2d,
    Conv1d: _Writer.write_conv1d,
    LinearMemory: _Writer.write_memory,
    LMU: _Writer.write_lmu,
}


def _free(name: str, taken: set[str]) -> str:
    """Return a name that is not taken, and take it."""
    while name in taken:
        name += "_"
    taken.add(name)
    return name


def _first(frame: tuple[int, ...]) -> tuple[int, ...]:
    """Return the axes of a frame with channels first, as NIR has them."""
    return frame if len(frame) == 1 else (frame[-1], *frame[:-1])


def _grouped(kernel: np.ndarray, groups: int) -> np.ndarray:
    """Return the kernel (n_in, n_out) of a convolution with groups, zero between groups."""
    rows, columns = kernel.shape[0], kernel.shape[1] // groups
    whole = np.zeros((rows * groups, kernel.shape[1]), kernel.dtype)
    for g in range(groups):
        own = slice(g * columns, (g + 1) * columns)
        whole[g * rows : (g + 1) * rows, own] = kernel[:, own]
    return whole
