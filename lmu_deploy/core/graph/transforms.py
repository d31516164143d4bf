r"""Equivalent networks: linear operators folded into their neighbors, graphs as layers.

Folding rests on :meth:`Operator.absorb`: where a dense operator or a scale and offset feeds only
one other operator that is linear in its input, the two become one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from lmu_deploy.core.errors import InputError
from lmu_deploy.core.graph.frames import FramePool, LayerNorm, Permute, Reshape, RMSNorm, Slice
from lmu_deploy.core.graph.linear import Affine, Conv1d, Conv2d, Dense, Embedding
from lmu_deploy.core.graph.lmu import LMU
from lmu_deploy.core.graph.memory import LinearMemory
from lmu_deploy.core.graph.network import INPUT, Network, Node
from lmu_deploy.core.graph.operator import Operator
from lmu_deploy.core.graph.pointwise import Activation, Add, Concat, Multiply
from lmu_deploy.core.graph.recurrent import GRU, LSTM, SimpleRNN
from lmu_deploy.core.graph.time import Delay, Mask, Pool, Reduce, Reverse, RunningMean
from lmu_deploy.core.network import (
    ACTIVATIONS,
    Hidden,
    Layer,
    LMULayer,
    LMUNetwork,
    LSTMLayer,
    Readout,
    default_names,
)
from lmu_deploy.core.representation import counted

_LAYERED = (LMU, LSTM, LinearMemory)
"""Operators that are layers, some of their settings excepted."""


def fold(network: Network) -> Network:
    """Return a network that computes the same with as few linear operators as possible.

    Identities are left out, an activation before a memory that encodes nothing becomes that of its
    encoder, and each dense operator or scale and offset (a batch normalization,
    say) is folded into the node behind it, if that is the only one and its operator can absorb it.
    The node that remains keeps its name.
    """
    nodes = list(network.nodes)
    done = False
    while not done:
        done = True
        for node in nodes:
            if (found := _folded(node, nodes, network)) is not None:
                nodes, done = found, False
                break
    return replace(network, nodes=tuple(nodes))


def input_scaling(network: Network) -> Node | None:
    """Return the scale and offset through which alone a network reads its input, if there is one.

    A node whose scale is zero for some feature does not count, because it cannot be undone.
    """
    readers = [node for node in network.nodes if INPUT in node.inputs]
    if len(readers) != 1 or readers[0].name == network.output:
        return None
    operator = readers[0].operator
    return readers[0] if isinstance(operator, Affine) and operator.scale.all() else None


def without_input_scaling(network: Network) -> Network:
    """Return a network that takes inputs which are scaled already."""
    scaling = input_scaling(network)
    if scaling is None:
        return network
    nodes = [_renamed(node, scaling.name, INPUT) for node in network.nodes if node is not scaling]
    return replace(network, nodes=tuple(nodes))


def has_direct_path(network: Network) -> bool:
    """Return whether the output is a sum with a term that is linear in the input of its step.

    Such a network continues the input, beyond any range that it was trained or calibrated on.
    """
    nodes = {node.name: node for node in network.nodes}
    end = nodes[network.output]
    if not isinstance(end.operator, Add):
        return False
    for name in end.inputs:
        while name != INPUT and _keeps_scale(nodes[name].operator):
            (name,) = nodes[name].inputs
        if name == INPUT:
            return True
    return False


def _keeps_scale(operator: Operator) -> bool:
    return isinstance(operator, Affine | Dense) or (
        isinstance(operator, Reduce) and operator.kind == "last"
    )


def _folded(node: Node, nodes: list[Node], network: Network) -> list[Node] | None:
    """Return the nodes without `node`, which those behind it absorb; None if they cannot."""
    if node.name == network.output:
        return None
    behind = [other for other in nodes if node.name in other.inputs]
    if (merged := _as_encoder(node, behind)) is not None:
        rewired = {merged.name: merged}
    elif _is_identity(node):
        rewired = {other.name: _renamed(other, node.name, node.inputs[0]) for other in behind}
    elif isinstance(node.operator, Dense | Affine) and len(behind) == 1:
        (other,) = behind
        kernel, bias = _linear(node.operator)
        operator = other.operator.absorb(kernel, bias) if len(other.inputs) == 1 else None
        if operator is None:
            return None
        rewired = {other.name: Node(other.name, operator, node.inputs)}
    else:
        return None
    return [rewired.get(other.name, other) for other in nodes if other is not node]


def _as_encoder(node: Node, behind: list[Node]) -> Node | None:
    """Return the memory behind an activation with that activation in its encoder; None if none."""
    if not isinstance(node.operator, Activation) or len(behind) != 1:
        return None
    (other,) = behind
    memory = other.operator
    if not isinstance(memory, LinearMemory) or memory.activation is not None:
        return None
    plain = memory.bias is None and np.array_equal(memory.encoders, np.eye(len(memory.encoders)))
    if not plain:
        return None
    return Node(other.name, replace(memory, activation=node.operator), node.inputs)


def _is_identity(node: Node) -> bool:
    return isinstance(node.operator, Activation) and node.operator.name == "linear"


def _linear(operator: Dense | Affine) -> tuple[np.ndarray, np.ndarray]:
    """Return kernel (a vector where it is diagonal) and bias in float64."""
    if isinstance(operator, Affine):
        return operator.scale.astype(np.float64), operator.offset.astype(np.float64)
    kernel = operator.kernel.astype(np.float64)
    bias = np.zeros(kernel.shape[1]) if operator.bias is None else operator.bias
    return kernel, bias.astype(np.float64)


def _renamed(node: Node, old: str, new: str) -> Node:
    return replace(node, inputs=tuple(new if name == old else name for name in node.inputs))


def prune(nodes: Sequence[Node], output: str) -> tuple[Node, ...]:
    """Return the nodes that one output needs, in their order.

    Parameters
    ----------
    nodes : sequence of Node
        Each behind the nodes that it takes its inputs from.
    output : str
        Name of a node.

    Raises
    ------
    InputError
        When there is no node of that name.
    """
    if output not in {node.name for node in nodes}:
        names = ", ".join(node.name for node in nodes)
        raise InputError(f"there is no output {output!r}; choose one of {names}.")
    wanted = {output}
    kept: list[Node] = []
    for node in reversed(nodes):
        if node.name in wanted:
            wanted.update(node.inputs)
            kept.append(node)
    return tuple(reversed(kept))


def as_layers(network: Network | LMUNetwork, command: str) -> LMUNetwork:
    """Return a network as LMU and LSTM layers one behind the other with a dense readout.

    Parameters
    ----------
    network : Network or LMUNetwork
        A graph is folded first; a chain of layers is returned as it is.
    command : str
        Command that needs the layers, such as ``quantize``; the message begins with it.

    Returns
    -------
    LMUNetwork
        Without a softmax or sigmoid at the end, which `provenance` records: its outputs are logits.
        A layer has the name of its first node, the readout that of its last.

    Raises
    ------
    InputError
        When the graph has another form; the message names every node that does not fit, why, and
        what could stand in its place.
    """
    if isinstance(network, LMUNetwork):
        return network
    network = with_logits(network)
    chain = _Chain(fold(network).nodes)
    form = _FORMS.get(command, "layer")
    if chain.unfit:
        names = ", ".join(f"{name} ({why})" for name, (why, _) in chain.unfit.items())
        instead = ", ".join(f"{what} in place of {name}" for name, (_, what) in chain.unfit.items())
        verb = "has" if len(chain.unfit) == 1 else "have"
        raise InputError(
            f"{command}: {len(chain.unfit)} of {counted(len(network.nodes), 'node')} {verb} no "
            f"{form} form yet: {names}; what works is {instead}."
        )
    if not chain.layers:
        raise InputError(
            f"{command}: the network has no LMU, memory or LSTM, and only those have {form} form; "
            "put one before the readout."
        )
    readout = chain.readout or _identity(chain.layers[-1])
    readout_name = chain.readout_name
    while readout_name in chain.names:  # the network has no readout of its own
        readout_name += "_"
    own_names = [*chain.names, readout_name]
    return LMUNetwork(
        tuple(chain.layers),
        Readout(readout.kernel, readout.bias),
        network.return_sequences,
        network.task,
        dict(network.provenance),
        () if own_names == default_names(len(chain.layers)) else tuple(own_names),
    )


_DECISIONS = ("softmax", "sigmoid")


def with_logits(network: Network, functions: Sequence[str] = _DECISIONS) -> Network:
    """Return a network without a softmax or sigmoid at its end, which changes no decision.

    Parameters
    ----------
    network : Network
    functions : sequence of str
        Which of the two to leave out.

    Returns
    -------
    Network
        Its outputs are logits, which `provenance` records; a network of another kind as it is.
    """
    last = network[network.output]
    decides = isinstance(last.operator, Activation) and last.operator.name in functions
    if not decides or last.inputs == (INPUT,):
        return network
    left_out = f"the {last.operator.describe()} at the end: outputs are logits"
    return replace(
        network,
        nodes=tuple(node for node in network.nodes if node is not last),
        output=last.inputs[0],
        provenance={**network.provenance, "left out": left_out},
    )


_FORMS = {
    "quantize": "integer",
    "spike": "spiking",
    "yield": "spiking",
    "export to nir": "NIR",
}
"""Form of the layers, by command."""


def _identity(layer: Layer) -> Dense:
    """Return a readout that passes on what a layer answers, in the precision of its weights."""
    weights = layer.kernel if isinstance(layer, LSTMLayer) else layer.input_encoders
    return Dense(np.eye(layer.n_out, dtype=weights.dtype))


FITTING: Mapping[type[Operator], str] = {
    Dense: "folded, or the readout",
    Affine: "folded, or the readout",
    Activation: "linear; behind a memory and a dense layer also relu, tanh, hard-tanh",
    LinearMemory: "with a linear encoder",
    LMU: "with dense or recurrent units, or none",
    LSTM: "on the host, of tanh and sigmoid",
    Reduce: "the last step",
}
"""Operators that :func:`as_layers` takes, and under which condition."""

_RECURRENT = "an LMU or an LSTM"
_INSTEAD: Mapping[type[Operator], str] = {
    Conv1d: "an LMU",
    Conv2d: "an LMU that takes the pixels as features",
    Embedding: "a dense layer of one-hot inputs",
    LayerNorm: "batch normalization",
    RMSNorm: "batch normalization",
    GRU: _RECURRENT,
    SimpleRNN: _RECURRENT,
    Reduce: "the last step",
    RunningMean: "a memory",
    Pool: "every step",
    Delay: "a memory",
    Mask: "sequences of one length",
    Slice: "all features",
    Reverse: "a forward layer",
    Reshape: "inputs that are vectors",
    Permute: "inputs that are vectors",
    FramePool: "inputs that are vectors",
    Add: "one branch",
    Multiply: "one branch",
    Concat: "one branch",
}
"""The nearest operator that fits, for those that never do."""


class _Chain:
    """A folded graph read as layers with a readout; what does not fit is noted and passed over.

    Attributes
    ----------
    layers : list of LMULayer or LSTMLayer
    names : list of str
        Name of the first node of each layer.
    readout : Dense or None
    readout_name : str
        Name of its last node; "readout" where there is none.
    unfit : dict of str to (reason, what could stand in its place)
    """

    def __init__(self, nodes: Sequence[Node]) -> None:
        self.layers: list[Layer] = []
        self.names: list[str] = []
        self.readout: Dense | None = None
        self.readout_name = "readout"
        self.unfit: dict[str, tuple[str, str]] = {}
        layered = [i for i, node in enumerate(nodes) if isinstance(node.operator, _LAYERED)]
        last, before, reduced, number = max(layered, default=-1), INPUT, False, 0
        while number < len(nodes):
            node, taken = nodes[number], 1
            operator = node.operator
            if node.inputs != (before,):
                self._refuse(node, "joins branches" if len(node.inputs) > 1 else "begins a branch")
            elif isinstance(operator, _LAYERED):
                taken, layer = _layer([each.operator for each in _row(nodes[number:])])
                if layer is None or reduced:
                    self._refuse(node, "behind the last step" if reduced else _why(operator))
                    taken = 1
                else:
                    self.layers.append(layer)
                    self.names.append(node.name)
            elif isinstance(operator, Reduce) and operator.kind == "last" and not reduced:
                reduced = True
            elif isinstance(operator, Dense | Affine) and number > last:
                if not self.unfit:  # what was passed over may have another shape
                    self.readout, self.readout_name = self._read_out(operator), node.name
            elif not _is_identity(node):
                self._refuse(node, _why(operator, number < last))
            number += taken
            before = nodes[number - 1].name

    def _read_out(self, operator: Dense | Affine) -> Dense:
        """Return the readout of so far followed by a linear operator."""
        if self.readout is None:
            kernel, bias = _linear(operator)
            return Dense(np.diag(kernel), bias) if isinstance(operator, Affine) else operator
        kernel, bias = _linear(self.readout)
        both = operator.absorb(kernel, bias)
        assert isinstance(both, Dense)  # the product of a dense operator and a linear one
        return both

    def _refuse(self, node: Node, why: str) -> None:
        operator = node.operator
        kind = type(operator).__name__
        detail = getattr(operator, "kind", getattr(operator, "name", ""))
        what = f"{kind} {detail}".rstrip()
        instead = _INSTEAD.get(type(operator), "")
        if not instead:
            instead = "one branch" if "branch" in why else _nearest(operator)
        self.unfit[node.name] = f"{what}: {why}" if why else what, instead


def _row(nodes: Sequence[Node]) -> list[Node]:
    """Return the first node and those behind it that each alone take the one before, three at most.

    No other node may take an output within the row.
    """
    row = [nodes[0]]
    for node in nodes[1:3]:
        users = sum(row[-1].name in other.inputs for other in nodes)
        if node.inputs != (row[-1].name,) or users > 1:
            break
        row.append(node)
    return row


def _why(operator: Operator, before_a_layer: bool = False) -> str:
    """Return why an operator is no layer and no readout; empty if its kind is the reason."""
    if isinstance(operator, LMU):
        cell = operator.hidden
        if not isinstance(cell, SimpleRNN | None):
            return f"its hidden cell is {type(cell).__name__}"
        return "its hidden units " + _cell_why(cell)
    if isinstance(operator, LSTM):
        return _cell_why(operator)
    if isinstance(operator, LinearMemory):
        return f"its encoder has the activation {operator.activation and operator.activation.name}"
    if isinstance(operator, Activation | Dense):
        return "before a layer" if before_a_layer else "behind the readout"
    return ""


def _cell_why(cell: SimpleRNN | LSTM | None) -> str:
    starts = [getattr(cell, name, None) for name in ("initial", "initial_h", "initial_c")]
    if any(start is not None for start in starts):
        return "start from a state that is not zero"
    names = [getattr(cell, name, None) for name in ("activation", "gate_activation")]
    return f"have the activation {' and '.join(each.name for each in names if each)}"


def _nearest(operator: Operator) -> str:
    """Return what could stand in the place of an operator that fits elsewhere."""
    if isinstance(operator, LMU):
        return f"an LMU with dense or recurrent units of {' or '.join(ACTIVATIONS)} from zero"
    if isinstance(operator, LSTM):
        return "an LSTM of tanh and sigmoid from zero"
    if isinstance(operator, LinearMemory):
        return "a memory with a linear encoder"
    return "a dense readout alone"


def _layer(operators: Iterable[object]) -> tuple[int, Layer | None]:
    """Return the layer that the first operators are, and how many they are."""
    first, second, third = (*operators, None, None)[:3]
    if isinstance(first, LSTM):
        usual = first.activation.name == "tanh" and first.gate_activation.name == "sigmoid"
        if usual and first.initial_h is None and first.initial_c is None:
            bias = np.zeros(4 * first.n_out) if first.bias is None else first.bias
            return 1, LSTMLayer(first.kernel, first.recurrent_kernel, bias)
    if isinstance(first, LMU) and (first.hidden is None or isinstance(first.hidden, SimpleRNN)):
        hidden = None if first.hidden is None else _hidden(first, first.hidden)
        if first.hidden is None or hidden is not None:
            return 1, LMULayer(
                first.input_encoders,
                first.hidden_encoders,
                first.memory_encoders,
                first.memory_bias,
                first.memory,
                hidden,
            )
    if isinstance(first, LinearMemory) and first.activation is None:
        memory = first.encoders, None, None, first.bias, first.memory
        activates = isinstance(third, Activation) and third.name in ACTIVATIONS
        if isinstance(second, Dense) and activates:
            assert isinstance(third, Activation)
            hidden = Hidden(second.kernel, None, None, second.bias, third.name)
            return 3, LMULayer(*memory, hidden)
        return 1, LMULayer(*memory, None)
    return 0, None


def operator_layer(operator: object) -> LMULayer | LSTMLayer | None:
    """Return a single operator as an LMU or LSTM layer; None if it is none."""
    return _layer([operator])[1]


def _hidden(layer: LMU, cell: SimpleRNN) -> Hidden | None:
    """Return the hidden units of an LMU, if they are of the usual kind."""
    if cell.activation.name not in ACTIVATIONS or cell.initial is not None:
        return None
    memory, own = np.split(cell.kernel, [layer.memory.size])
    given = own if layer.hidden_takes_input else None
    return Hidden(memory, given, cell.recurrent_kernel, cell.bias, cell.activation.name)
