r"""Equivalent networks: linear operators folded into their neighbors, graphs as layers.

Folding rests on :meth:`Operator.absorb`: where a dense operator or a scale and offset feeds only
one other operator that is linear in its input, the two become one.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from lmu_deploy.core.errors import InputError
from lmu_deploy.core.graph.linear import Affine, Dense
from lmu_deploy.core.graph.lmu import LMU
from lmu_deploy.core.graph.memory import LinearMemory
from lmu_deploy.core.graph.network import INPUT, Network, Node
from lmu_deploy.core.graph.pointwise import Activation
from lmu_deploy.core.graph.recurrent import LSTM, SimpleRNN
from lmu_deploy.core.graph.time import Reduce
from lmu_deploy.core.network import (
    ACTIVATIONS,
    Hidden,
    Layer,
    LMULayer,
    LMUNetwork,
    LSTMLayer,
    Readout,
)


def fold(network: Network) -> Network:
    """Return a network that computes the same with as few linear operators as possible.

    Identities are left out, and each dense operator or scale and offset (a batch normalization,
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


def _folded(node: Node, nodes: list[Node], network: Network) -> list[Node] | None:
    """Return the nodes without `node`, which those behind it absorb; None if they cannot."""
    if node.name == network.output:
        return None
    behind = [other for other in nodes if node.name in other.inputs]
    if _is_identity(node):
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


def _is_identity(node: Node) -> bool:
    return isinstance(node.operator, Activation) and node.operator.name == "linear"


def _linear(operator: Dense | Affine) -> tuple[np.ndarray, np.ndarray]:
    """Return kernel (a vector where it is diagonal) and bias in float64."""
    if isinstance(operator, Affine):
        return operator.scale.astype(np.float64), operator.offset.astype(np.float64)
    kernel = operator.kernel.astype(np.float64)
    return kernel, np.zeros(kernel.shape[1]) if operator.bias is None else operator.bias


def _renamed(node: Node, old: str, new: str) -> Node:
    return replace(node, inputs=tuple(new if name == old else name for name in node.inputs))


def to_layers(network: Network) -> LMUNetwork:
    """Return a network as LMU and LSTM layers one behind the other with a dense readout.

    Parameters
    ----------
    network : Network
        It is folded first.

    Raises
    ------
    InputError
        When it has another form; the message names every node that does not fit, and why.
    """
    network = fold(network)
    chain = _chain(network)
    layers, rest = _layers(chain)
    sequences = True
    readout: Dense | None = None
    wrong: list[str] = []
    for node in rest:
        operator = node.operator
        if isinstance(operator, Reduce) and operator.kind == "last":
            sequences = False
        elif isinstance(operator, Dense) and readout is None:
            readout = operator
        else:
            wrong.append(f"{node.name} ({operator.describe()})")
    if wrong or not layers:
        which = ", ".join(wrong) if wrong else "no LMU or LSTM"
        raise InputError(
            f"the network is not a chain of LMU and LSTM layers with a dense readout: {which}."
        )
    if readout is None:
        readout = Dense(np.eye(layers[-1].n_out))
    return LMUNetwork(
        tuple(layers),
        Readout(readout.kernel, readout.bias),
        sequences,
        network.task,
        dict(network.provenance),
    )


def _chain(network: Network) -> list[Node]:
    """Return the nodes, if each takes the one before it."""
    if len(network.frame) != 1:
        raise InputError(f"the network takes frames of shape {network.frame}, not vectors.")
    before = INPUT
    for node in network.nodes:
        if node.inputs != (before,):
            raise InputError(
                f"the network branches: node {node.name} takes {', '.join(node.inputs)}."
            )
        before = node.name
    return list(network.nodes)


def _layers(chain: list[Node]) -> tuple[list[Layer], list[Node]]:
    """Return the layers at the start of a chain, and the nodes that follow them."""
    layers: list[Layer] = []
    rest = list(chain)
    while rest:
        taken, layer = _layer([node.operator for node in rest[:3]])
        if layer is None:
            break
        layers.append(layer)
        rest = rest[taken:]
    return layers, rest


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
