r"""Network: a trained network as a directed acyclic graph of named operators, in float64.

A node names its inputs, which come before it; the name ``input`` is the network's own input.
Feedback exists only inside an operator, so that whole sequences can be computed node by node.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from lmu_deploy.core.errors import InputError
from lmu_deploy.core.graph.frames import FramePool, LayerNorm, Permute, Reshape, RMSNorm, Slice
from lmu_deploy.core.graph.linear import Affine, Conv1d, Conv2d, Dense, Embedding
from lmu_deploy.core.graph.lmu import LMU
from lmu_deploy.core.graph.memory import LinearMemory
from lmu_deploy.core.graph.operator import Operator, Shape
from lmu_deploy.core.graph.pointwise import Activation, Add, Concat, Multiply
from lmu_deploy.core.graph.recurrent import GRU, LSTM, SimpleRNN
from lmu_deploy.core.graph.time import Delay, Mask, Pool, Reduce, Reverse, RunningMean
from lmu_deploy.core.network import LMULayer, LMUNetwork, LSTMLayer, Memory
from lmu_deploy.core.representation import Part, Representation, Summary, counted
from lmu_deploy.core.validation import INPUT as INPUT
from lmu_deploy.core.validation import check_integer, check_node_name, check_text, set_fields

OPERATORS: tuple[type[Operator], ...] = (
    Dense, Affine, Conv1d, Conv2d, Embedding,
    Activation, Add, Multiply, Concat,
    LinearMemory, LMU, LSTM, GRU, SimpleRNN,
    LayerNorm, RMSNorm,
    Reduce, RunningMean, Pool, Delay, Reverse, Mask,
    Reshape, Permute, Slice, FramePool,
)  # fmt: skip
"""Every operator, in the order of the documentation's table."""


@dataclass(frozen=True, eq=False, repr=False)
class Node(Part):
    """An operator with its name and the names of its inputs.

    Attributes
    ----------
    name : str
        The user's own, such as ``lmu_1`` or ``block.0.lmu``.
    operator : Operator
    inputs : tuple of str
    """

    name: str
    operator: Operator
    inputs: tuple[str, ...]

    def __post_init__(self) -> None:
        name = check_node_name(self.name)
        if not isinstance(self.operator, OPERATORS):
            kind = type(self.operator).__name__
            raise InputError(f"node {name}: {kind} is no operator of a network.")
        inputs = tuple(check_text(f"node {name}, input", each, 200) for each in self.inputs)
        fewest, most = self.operator.fewest, self.operator.most
        if len(inputs) < fewest or (most is not None and len(inputs) > most):
            limit = f"at least {fewest}" if most is None else f"{fewest}"
            raise InputError(f"node {name} has {len(inputs)} inputs and needs {limit}.")
        set_fields(self, inputs=inputs)


@dataclass(frozen=True, eq=False, repr=False)
class Network(Representation):
    """A whole network, free of any framework.

    Attributes
    ----------
    nodes : tuple of Node
        Each behind the nodes that it takes its inputs from.
    frame : tuple of int
        Axes of a frame of the input, channels last.
    output : str
        Name of the node whose output is the network's.
    task : str or None
        Name of the task that it was trained for.
    provenance : mapping of str to str
        Where it comes from: command, seed, versions, figures, assumptions of an importer.

    Raises
    ------
    InputError
        At construction, when a name is missing or taken, or a shape does not fit; the message
        names the node.
    """

    nodes: tuple[Node, ...]
    frame: tuple[int, ...]
    output: str
    task: str | None = None
    provenance: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        nodes = tuple(self.nodes)
        if not nodes or not all(isinstance(node, Node) for node in nodes):
            raise InputError("a network needs at least one node and nothing else.")
        frame = tuple(check_integer("input axis", n, 1, 2**31) for n in self.frame)
        if not frame:
            raise InputError("the frames of the input need at least one axis.")
        if self.task is not None:
            check_text("task", self.task, 200)
        if not isinstance(self.provenance, Mapping):
            raise InputError("provenance must map names to texts.")
        for key, value in self.provenance.items():
            check_text("provenance key", key, 200)
            check_text(f"provenance {key}", value)
        set_fields(self, nodes=nodes, frame=frame, provenance=dict(self.provenance))
        shapes = _shapes(nodes, frame)
        if self.output not in shapes or self.output == INPUT:
            raise InputError(f"the output {self.output!r} is no node of the network.")
        object.__setattr__(self, "_shapes", shapes)
        if idle := [node.name for node in nodes if node.name not in self._used()]:
            raise InputError(f"the output does not depend on {', '.join(idle)}; leave them out.")

    @property
    def shapes(self) -> Mapping[str, Shape]:
        """Shape of the output of every node, and of the input."""
        found: Mapping[str, Shape] = self.__dict__["_shapes"]
        return found

    def __getitem__(self, name: str) -> Node:
        """Return the node of that name."""
        for node in self.nodes:
            if node.name == name:
                return node
        raise KeyError(name)

    @property
    def memories(self) -> Mapping[str, Memory]:
        """The linear memories, by node."""
        having = (node for node in self.nodes if isinstance(node.operator, LMU | LinearMemory))
        return {node.name: node.operator.memory for node in having}  # type: ignore[attr-defined]

    def _used(self) -> set[str]:
        used = {self.output}
        for node in reversed(self.nodes):
            if node.name in used:
                used.update(node.inputs)
        return used

    @property
    def n_in(self) -> int:
        """Number of values in a frame of the input."""
        return Shape(self.frame).size

    @property
    def n_out(self) -> int:
        """Number of values in a frame of the output."""
        return self.shapes[self.output].size

    @property
    def return_sequences(self) -> bool:
        """Whether the network answers at every step, not once for a sequence."""
        return self.shapes[self.output].sequence

    def frame_counts(self, steps: int) -> dict[str, int]:
        """Return how many frames every node has for an input of that many steps."""
        found = {INPUT: np.array(steps)}
        for node in self.nodes:
            before = found[node.inputs[0]]
            lengths = node.operator.lengths(before)
            found[node.name] = lengths if self.shapes[node.name].sequence else np.minimum(before, 1)
        return {name: int(frames) for name, frames in found.items()}

    def frames(self, steps: int) -> int:
        """Return how many frames the output has for an input of that many steps.

        It has none where a node has none, which another branch may hide.
        """
        found = self.frame_counts(steps)
        return found[self.output] if min(found.values()) > 0 else 0

    @property
    def n_parameters(self) -> int:
        """Number of trained values."""
        return sum(node.operator.n_parameters for node in self.nodes)

    def summary(self) -> Summary:
        """Return the nodes of the network with their shapes and parameters, as a table."""
        facts = [
            counted(self.n_in, "input"),
            counted(self.n_out, "output"),
            counted(self.n_parameters, "parameter"),
            counted(len(self.nodes), "node"),
            *([] if self.task is None else [f"task {self.task}"]),
        ]
        rows = [(INPUT, "", "", str(Shape(self.frame)), "0")]
        for node in self.nodes:
            rows.append(
                (
                    node.name,
                    node.operator.describe(),
                    ", ".join(node.inputs),
                    str(self.shapes[node.name]),
                    f"{node.operator.n_parameters:,}",
                )
            )
        return Summary(facts, ("node", "operator", "inputs", "output shape", "parameters"), rows)

    @classmethod
    def from_layers(cls, network: LMUNetwork) -> Network:
        """Return the graph of a network of LMU and LSTM layers one behind the other."""
        names = network.node_names
        nodes: list[Node] = []
        before = INPUT
        for name, layer in zip(names, network.layers, strict=False):
            nodes.append(Node(name, layer_operator(layer), (before,)))
            before = nodes[-1].name
        if not network.return_sequences:
            before = "last" if "last" not in names else f"{before}.last"
            nodes.append(Node(before, Reduce("last"), (nodes[-1].name,)))
        readout = Dense(network.readout.kernel, network.readout.bias)
        nodes.append(Node(names[-1], readout, (before,)))
        notes = dict(network.provenance)
        return cls(tuple(nodes), (network.n_in,), names[-1], network.task, notes)


def _shapes(nodes: tuple[Node, ...], frame: tuple[int, ...]) -> dict[str, Shape]:
    """Infer the shape of every node's output."""
    shapes = {INPUT: Shape(frame)}
    for node in nodes:
        if node.name in shapes:
            raise InputError(f"two nodes have the name {node.name}; each needs its own.")
        if missing := [name for name in node.inputs if name not in shapes]:
            raise InputError(
                f"node {node.name} takes {missing[0]}, which is no node before it; nodes must "
                "stand behind their inputs."
            )
        try:
            shapes[node.name] = node.operator.shape(*(shapes[name] for name in node.inputs))
        except InputError as error:
            raise InputError(f"node {node.name}: {error}") from error
    return shapes


def layer_operator(layer: LMULayer | LSTMLayer) -> Operator:
    """Return the operator of a layer of an LMUNetwork."""
    if isinstance(layer, LSTMLayer):
        return LSTM(layer.kernel, layer.recurrent_kernel, layer.bias)
    hidden, cell = layer.hidden, None
    takes_input = hidden is not None and hidden.input_kernel is not None
    if hidden is not None:
        kernel = hidden.memory_kernel
        if hidden.input_kernel is not None:
            kernel = np.concatenate([kernel, hidden.input_kernel])
        activation = Activation(hidden.activation)
        cell = SimpleRNN(kernel, hidden.recurrent_kernel, hidden.bias, activation)
    return LMU(
        layer.memory,
        layer.input_encoders,
        cell,
        takes_input,
        layer.hidden_encoders,
        layer.memory_encoders,
        layer.memory_bias,
    )


GRAPH_CLASSES: tuple[type, ...] = (Network, Node, Memory, *OPERATORS)
"""Every class that a file of this representation may hold, for `core.files.load`."""
