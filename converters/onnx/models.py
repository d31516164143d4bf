"""Convert networks to ONNX models of whole sequences and of one step, and read them back.

:func:`to_onnx` returns a model of sequences with batch and time of any length; a recurrence is one
Scan. :func:`to_onnx_step` returns a streaming model: one step, with the states as inputs and
outputs; see :mod:`converters.onnx.emitter`. Start with states of zero, and pass each output
``lmu_1.memory.next`` as the input ``lmu_1.memory`` of the next step. The output of a node of the
network is the tensor of its name.

:func:`from_onnx` returns the network of such a model, equal in every weight. The arrays are read
from the initializers as the metadata describes; the nodes are not read, and models of other
programs are refused. Models of format 1, whose structure is layers one behind the other, are read
too, with arrays in float32.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import TensorProto, numpy_helper

from converters.onnx import cells, frames, over_time, recurrent
from converters.onnx.emitter import EMITTERS, Emitter
from converters.onnx.graph import FORMAT, PREFIX, Dimension, Graph, Weights, describe
from converters.onnx.over_time import ReduceEmitter
from converters.onnx.recurrent import RecurrentEmitter
from lmu_deploy.core.errors import InputError
from lmu_deploy.core.files import check_file, from_tree
from lmu_deploy.core.graph.executor import demands
from lmu_deploy.core.graph.network import GRAPH_CLASSES, INPUT, Network, Node
from lmu_deploy.core.graph.time import Mask, Reduce
from lmu_deploy.core.network import FLOAT_CLASSES, LMUNetwork

REGISTERED = (cells, frames, over_time, recurrent)
"""Modules that register emitters."""

_LENGTHS = np.arange(1, 1025)
"""Numbers of steps for which signals are compared."""


def to_onnx(network: Network | LMUNetwork, *, record: bool = False) -> onnx.ModelProto:
    """Convert a network to a model of sequences.

    Parameters
    ----------
    network : Network or LMUNetwork
    record : bool
        Add outputs ``m``, ``h`` and ``y``, (batch, time, size): the memories, the hidden units and
        the answers of every step. ``m`` or ``h`` is missing if no node has any. The answer of a
        network that answers once is that for the steps so far.

    Returns
    -------
    model : onnx.ModelProto
        Input ``input``, (batch, time, *frame). Output ``output``, (batch, *frame), or
        (batch, time, *frame) if the network returns sequences. All float32.

    Raises
    ------
    InputError
        When a weight exceeds float32, or a node has no form in ONNX.
    """
    network = _graph(network)
    steps = _steps(network, every=False)
    _check_record(network, steps) if record else None
    weights = Weights(network, ("input", "output", *(("m", "h", "y") if record else ())))
    graph = Graph("lmu_sequence", weights)
    writer = _Sequence(graph, network, record)
    for node in network.nodes:
        writer.add(node)
    writer.finish("time" if (steps[network.output] == _LENGTHS).all() else "time_out")
    return graph.model(describe(network, "sequence", weights.structure))


def to_onnx_step(network: Network | LMUNetwork) -> onnx.ModelProto:
    """Convert a network to a model of one step.

    Parameters
    ----------
    network : Network or LMUNetwork

    Returns
    -------
    model : onnx.ModelProto
        Inputs: ``input``, (batch, *frame), and the states, such as ``lmu_1.memory``. Outputs:
        ``output``, (batch, *frame), and each state after the step, named with the suffix ``.next``.
        All float32. A network that does not answer at every step has ``ready`` too, (batch, 1),
        bool: whether there is an output. A network that answers once gives its answer for the
        steps so far.

    Raises
    ------
    InputError
        When a weight exceeds float32, or a node needs inputs of later steps; all such nodes are
        named.
    """
    network = _graph(network)
    _steps(network, every=True)
    _check_ahead(network)
    weights = Weights(network, ("input", "output", "ready"))
    graph = Graph("lmu_step", weights)
    x = graph.input("input", ["batch", *network.frame])
    found, due, states = add_step(graph, network, x)
    frame = network.shapes[network.output].frame
    output = graph.node("Identity", [found], "output")
    graph.output(output, ["batch", *frame])
    if due is not None:
        graph.output(graph.node("Identity", [due], "ready"), ["batch", 1], TensorProto.BOOL)
    for name, axes in states.items():
        graph.output(name, axes)
    return graph.model(describe(network, "step", weights.structure))


def add_step(
    graph: Graph, network: Network, x: str, due: str | None = None
) -> tuple[str, str | None, dict[str, list[Dimension]]]:
    """Add one step of a network to a graph whose weights are its own, and declare its states.

    Parameters
    ----------
    graph : Graph
    network : Network
    x : str
        Input of the step, (batch, *frame).
    due : str, optional
        Whether there is an input at this step, (batch, 1); by default there always is.

    Returns
    -------
    output : str
    due : str or None
        Whether there is an output.
    states : dict of str to list
        Axes of the states after the step, which are tensors of these names and not yet outputs.
    """
    signals, ready = {INPUT: x}, {INPUT: due}
    states: dict[str, list[Dimension]] = {}
    for node in network.nodes:
        given = _all_ready(graph, node, [ready[name] for name in node.inputs])
        emitter = _emitter(graph, network, node, 1, given)
        before = {}
        for part, shape in emitter.state_shapes.items():
            name = graph.weights.names.take(f"{node.name}.{part}", ".next")
            before[part] = graph.input(name, ["batch", *shape])
        signals[node.name], after = emitter.step(before, *(signals[name] for name in node.inputs))
        ready[node.name] = emitter.gives
        for part, shape in emitter.state_shapes.items():
            name = f"{before[part]}.next"
            emitter.when_ready(after[part], before[part], name, 1 + len(shape))
            states[name] = ["batch", *shape]
    return signals[network.output], ready[network.output], states


def ahead(network: Network) -> list[str]:
    """Return the nodes that have no form of one step, because they need inputs of later steps."""
    graph = Graph("", Weights())
    return [
        f"{node.name} ({node.operator.describe()})"
        for node in network.nodes
        if _emitter(graph, network, node, 1).looks_ahead()
    ]


def _graph(network: Network | LMUNetwork) -> Network:
    return Network.from_layers(network) if isinstance(network, LMUNetwork) else network


def _emitter(
    graph: Graph, network: Network, node: Node, leading: int, ready: str | None = None
) -> Emitter:
    return EMITTERS[type(node.operator)](graph, network, node, leading, ready)


def _all_ready(graph: Graph, node: Node, flags: list[str | None]) -> str | None:
    """Return whether all inputs of a node are there at this step."""
    found = list(dict.fromkeys(flag for flag in flags if flag is not None))
    while len(found) > 1:
        name = graph.weights.names.take(f"{node.name}.inputs_ready")
        found[:2] = [graph.node("And", found[:2], name)]
    return found[0] if found else None


def _check_ahead(network: Network) -> None:
    """Raise InputError that names every node that needs inputs of later steps."""
    if nodes := ahead(network):
        raise InputError(
            f"one step of this network cannot be exported, because {', '.join(nodes)} needs inputs "
            "of later steps; export the whole sequence (onnx), or train it with causal padding."
        )


def _steps(network: Network, every: bool) -> dict[str, np.ndarray]:
    """Return how many steps each signal has, for an input of each of `_LENGTHS`.

    Parameters
    ----------
    network : Network
    every : bool
        Whether inputs of one node must have equally many for inputs of any length, not for some.

    Raises
    ------
    InputError
        When the inputs of a node do not.
    """
    steps = {INPUT: _LENGTHS}
    for node in network.nodes:
        first, *others = (steps[name] for name in node.inputs)
        steps[node.name] = first
        if not network.shapes[node.inputs[0]].sequence:
            continue
        equal = np.logical_and.reduce([np.full(len(first), True), *(first == o for o in others)])
        if not (equal.all() if every else equal.any()):
            raise InputError(
                f"the inputs of node {node.name} do not have equally many steps; give them the "
                "same strides and padding."
            )
        steps[node.name] = node.operator.lengths(first)
    return steps


def _check_record(network: Network, steps: Mapping[str, np.ndarray]) -> None:
    """Raise InputError when nodes have fewer steps than the input, so that no record holds all."""
    fewer = [
        node.name
        for node in network.nodes
        if isinstance(node.operator, Mask) or (steps[node.name] != _LENGTHS).any()
    ]
    if fewer:
        raise InputError(
            f"the states of every step cannot be recorded, because {', '.join(fewer)} and the "
            "input do not have equally many steps; run it without record."
        )


def add_sequence(graph: Graph, network: Network, x: str) -> str:
    """Add a network to a graph whose weights are its own; return its output.

    Parameters
    ----------
    graph : Graph
    network : Network
    x : str
        Whole sequences, (batch, time, *frame), of the type of the graph's real numbers.

    Raises
    ------
    InputError
        When inputs of a node have different numbers of steps, or an operator has no kernel.
    """
    _steps(network, every=False)
    writer = _Sequence(graph, network, record=False, x=x)
    for node in network.nodes:
        writer.add(node)
    return writer.output


@dataclass
class _Sequence:
    """Writes the nodes of a network into a model of sequences.

    A node of which only the last step is needed has a tensor without time.

    Parameters
    ----------
    graph : Graph
    network : Network
    record : bool
    x : str
        Its input; by default that of the model.
    """

    graph: Graph
    network: Network
    record: bool
    x: str = ""

    def __post_init__(self) -> None:
        needed = demands(self.network)
        self._whole = dict.fromkeys(needed, True) if self.record else needed
        x = self.x or self.graph.input("input", ["batch", "time", *self.network.frame])
        self._signals = {INPUT: x}
        self._has_time = {INPUT: True}
        self._lasts: dict[str, str] = {}
        self._lengths: dict[str, str | None] = {INPUT: None}
        self._recorded: dict[str, dict[str, int]] = {"m": {}, "h": {}}

    @property
    def output(self) -> str:
        """Output of the network, once all nodes are added."""
        return self._signals[self.network.output]

    def add(self, node: Node) -> None:
        """Add a node."""
        operator = node.operator
        has_time = [self._has_time[name] for name in node.inputs]
        given = [self._signals[name] for name in node.inputs]
        emitter = _emitter(self.graph, self.network, node, 2 if all(has_time) else 1)
        emitter.lengths = self._lengths[node.inputs[0]]
        last = isinstance(operator, Reduce) and operator.kind == "last"
        if isinstance(emitter, ReduceEmitter) and self.record:
            found, timed = emitter.so_far(*given), True
        elif last and not has_time[0]:
            found, timed = emitter.output_of("Identity", given), False
        elif not any(has_time) or isinstance(operator, Reduce):
            found, timed = emitter.sequence(*given), False
        elif self._whole[node.name]:
            if isinstance(emitter, RecurrentEmitter):
                emitter.traces_all = self.record
            found, timed = emitter.sequence(*given), True
        elif operator.framewise:
            emitter.leading = 1
            found, timed = emitter.sequence(*(self._last(name) for name in node.inputs)), False
        else:
            found, timed = emitter.last(*given), False
        self._lengths[node.name] = emitter.lengths_after()
        self._signals[node.name], self._has_time[node.name] = found, timed
        if self.record and isinstance(emitter, RecurrentEmitter):
            self._keep(emitter, found)

    def _last(self, name: str) -> str:
        """Return the last frame of a signal."""
        if not self._has_time[name]:
            return self._signals[name]
        if name not in self._lasts:
            part = self.graph.weights.names.take(f"{name}.last")
            self._lasts[name] = self._last_of(self._signals[name], part)
        return self._lasts[name]

    def _last_of(self, signal: str, output: str) -> str:
        index = self.graph.weights.constant("integer.-1", np.array(-1, dtype=np.int64))
        return self.graph.node("Gather", [signal, index], output, axis=1)

    def _keep(self, emitter: RecurrentEmitter, output: str) -> None:
        """Keep what a recurrent node has at every step for the record."""
        if "memory" in emitter.traced:
            self._recorded["m"][emitter.traced["memory"]] = emitter.sizes["memory"]
        if emitter.has_hidden:
            self._recorded["h"][output] = emitter.operator.n_out

    def finish(self, time: str) -> None:
        """Add the outputs of the model; `time` is the name of the axis of time."""
        graph, network = self.graph, self.network
        shape = network.shapes[network.output]
        found = self._signals[network.output]
        if self.record and not shape.sequence:
            self._last_of(found, "output")
        else:
            graph.node("Identity", [found], "output")
        graph.output("output", ["batch", *[time] * shape.sequence, *shape.frame])
        if not self.record:
            return
        for kind, parts in self._recorded.items():
            if parts:
                joined = graph.node("Concat", list(parts), kind, axis=-1)
                graph.output(joined, ["batch", "time", sum(parts.values())])
        graph.output(graph.node("Identity", [found], "y"), ["batch", "time", *shape.frame])


_DTYPES = ("float16", "float32", "float64")


def read_onnx(path: Path | str) -> Network:
    """Read a network from an ONNX file that lmu_deploy wrote.

    Raises
    ------
    InputError
        When there is no such file, or it is not an ONNX file, was written by another program, or is
        damaged.
    """
    path = Path(path)
    check_file(path)
    try:
        model = onnx.load_model_from_string(path.read_bytes())
    except (DecodeError, ValueError, OSError) as error:
        raise InputError(
            f"{path} is not a readable ONNX file ({type(error).__name__}); export it again."
        ) from error
    try:
        return from_onnx(model)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def from_onnx(model: onnx.ModelProto) -> Network:
    """Convert a float model of lmu_deploy back to the network.

    Parameters
    ----------
    model : onnx.ModelProto
        Sequence or step model.

    Raises
    ------
    InputError
        When the model was made by another program, or is damaged.
    """
    metadata = {item.key: item.value for item in model.metadata_props}
    form = metadata.get(f"{PREFIX}form", "")
    if form.startswith(("integer-", "qdq-")):
        raise InputError(
            f"this ONNX model has the form {form}, and only float models, which export writes with "
            "--to onnx or onnx-step, can be read; give one of those, or the .safetensors file."
        )
    if f"{PREFIX}structure" not in metadata:
        raise InputError("this ONNX model was not made by lmu_deploy; no other models can be read.")
    if metadata.get(f"{PREFIX}format") not in ("1", str(FORMAT)):
        raise InputError("this ONNX model has a format that this version cannot read; update it.")
    try:
        tree = json.loads(metadata[f"{PREFIX}structure"])
        initializers = {tensor.name: tensor for tensor in model.graph.initializer}
        network = from_tree(tree, _Arrays(initializers), (*GRAPH_CLASSES, *FLOAT_CLASSES))
    except InputError:
        raise
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise InputError(
            f"the ONNX model is damaged ({type(error).__name__}); export it again."
        ) from error
    if isinstance(network, LMUNetwork):
        return Network.from_layers(network)
    if not isinstance(network, Network):
        raise InputError("the ONNX model has no complete network; export it again.")
    return network


class _Arrays(Mapping[str, np.ndarray]):
    """The arrays of initializers by their references, ``name`` or ``name:float64``.

    Each is made once, so that a file cannot cause the allocation of more than a few times its size.
    """

    def __init__(self, initializers: Mapping[str, onnx.TensorProto]) -> None:
        self._initializers = initializers
        self._made: dict[tuple[str, str], np.ndarray] = {}

    def __getitem__(self, reference: str) -> np.ndarray:
        if not isinstance(reference, str):
            raise KeyError(reference)
        name, dtype = reference, ""
        if reference not in self._initializers:
            name, _, dtype = reference.rpartition(":")
        if name not in self._initializers or dtype not in ("", *_DTYPES):
            raise KeyError(reference)
        if (name, dtype) not in self._made:
            array = _array(self._initializers[name])
            self._made[name, dtype] = array.astype(dtype) if dtype else array
        return self._made[name, dtype]

    def __iter__(self) -> Iterator[str]:
        return iter(self._initializers)

    def __len__(self) -> int:
        return len(self._initializers)


def _array(tensor: onnx.TensorProto) -> np.ndarray:
    """Return the data of an initializer; external data files are never opened."""
    if tensor.data_location != TensorProto.DEFAULT:
        raise InputError(f"tensor {tensor.name!r} lies in another file; export the model again.")
    return np.asarray(numpy_helper.to_array(tensor))
