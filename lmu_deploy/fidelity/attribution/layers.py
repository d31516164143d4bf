"""An integer network as layers, for the attribution of its errors.

The hybrid simulator switches single operations of memories and units between their float and their
integer form, which it knows for LMU layers with simple units one behind the other. Places are
texts such as ``layer0/memory/recurrent`` here; :meth:`Layers.named` gives them the names of nodes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lmu_deploy.core.errors import InputError
from lmu_deploy.core.graph.linear import Dense
from lmu_deploy.core.graph.network import Network
from lmu_deploy.core.graph.time import Reduce
from lmu_deploy.core.graph.transforms import operator_layer
from lmu_deploy.core.integer.layered import (
    IntegerLayer,
    IntegerReadout,
    LayeredNetwork,
    SeriesMemory,
    layer_views,
)
from lmu_deploy.core.integer.memories import sign_matrix
from lmu_deploy.core.integer.network import IntegerNetwork
from lmu_deploy.core.integer.parts import Connection, Format
from lmu_deploy.core.integer.populations import Output
from lmu_deploy.core.network import LMULayer, LMUNetwork, Readout


@dataclass(frozen=True)
class Layers(LayeredNetwork):
    """A network of LMU layers, with the names of their nodes.

    Attributes
    ----------
    names : tuple of str
        Of the nodes of the layers, and of the readout.
    """

    names: tuple[str, ...] = ()

    @property
    def numbered(self) -> tuple[tuple[int, IntegerLayer], ...]:
        """Numbers and layers."""
        return tuple((n, la) for n, la in enumerate(self.layers) if isinstance(la, IntegerLayer))

    @property
    def chip_readout(self) -> IntegerReadout:
        """The readout."""
        assert isinstance(self.readout, IntegerReadout)
        return self.readout

    @property
    def n_in(self) -> int:
        """Number of input features."""
        return self.numbered[0][1].memory.input.n_in

    @property
    def n_out(self) -> int:
        """Number of outputs."""
        return self.chip_readout.connection.n_out

    @property
    def y_scale(self) -> float:
        """Real value of one unit of the output."""
        return self.chip_readout.output.scale

    def named(self, place: str) -> str:
        """Return a place with the name of its node in place of the number of its layer."""
        for number, name in enumerate(self.names[:-1]):
            if place == f"layer{number}" or place.startswith(f"layer{number}/"):
                return f"{name}{place.removeprefix(f'layer{number}')}"
        if place == "readout" or place.startswith("readout/"):
            return f"{self.names[-1]}{place.removeprefix('readout')}"
        return place


def as_layer_network(network: IntegerNetwork | Layers) -> Layers | None:
    """Return a network as layers; None where it has other populations than LMU layers.

    Parameters
    ----------
    network : IntegerNetwork or Layers
        Its `source` says which nodes are layers.
    """
    if isinstance(network, Layers):
        return network
    source = network.source
    if isinstance(source, LMUNetwork):
        source = Network.from_layers(source)
    output = network[network.output]
    if source is None or network.on_host or not isinstance(output, Output):
        return None
    nodes = [node for node in source.nodes if not isinstance(node.operator, Reduce)]
    layers = [operator_layer(node.operator) for node in nodes[:-1]]
    if not layers or not all(isinstance(layer, LMULayer) for layer in layers):
        return None
    names = [node.name for node in nodes]
    views = layer_views(network, names[:-1])
    found = [view for view in views if view is not None]
    made = sum(1 + (view.hidden is not None) for view in found)
    if len(found) != len(views) or made + 2 != len(network.populations):
        return None
    wanted = [isinstance(la, LMULayer) and la.hidden is not None for la in layers]
    if wanted != [view.hidden is not None for view in found]:
        return None
    (last,) = network.entering(network.output)
    return Layers(
        network.input.message,
        tuple(found),
        IntegerReadout(last.connection, output.bias, output.message),
        network.return_sequences,
        network.task,
        network.profile,
        network.provenance,
        LMUNetwork(
            tuple(layer for layer in layers if layer is not None),
            _readout(nodes[-1].operator),
            network.return_sequences,
        ),
        tuple(names),
    )


def layers_of(network: IntegerNetwork | Layers) -> Layers:
    """Return a network as layers.

    Raises
    ------
    InputError
        When the network does not contain its float network, or has other nodes.
    """
    if isinstance(network, IntegerNetwork) and network.source is None:
        raise InputError(
            "attribution: the integer network does not contain the float network from which it was "
            "converted; convert it again with lmu-deploy quantize."
        )
    if (layers := as_layer_network(network)) is None:
        raise InputError(
            "attribution: the network has other nodes than LMU layers with simple units one behind "
            "the other and a dense readout; pass --attribution 0."
        )
    return layers


def _readout(operator: object) -> Readout:
    assert isinstance(operator, Dense)
    return Readout(operator.kernel, operator.bias)


@dataclass(frozen=True)
class Population:
    """A group of neurons that send messages of one format, by its text."""

    name: str
    neurons: int
    message: Format


@dataclass(frozen=True)
class LayerEdge:
    """A connection with the texts of its place, source and target."""

    place: str
    source: str
    target: str
    connection: Connection


def populations(network: Layers) -> dict[str, Population]:
    """Return all populations by name in the order of computation: input, then layer by layer."""
    found = [Population("input", network.n_in, network.input)]
    for number, layer in network.numbered:
        memory, hidden = layer.memory, layer.hidden
        if isinstance(memory, SeriesMemory):
            found.append(Population(f"layer{number}/series", memory.size, memory.message))
        found.append(Population(f"layer{number}/memory", memory.size, memory.message))
        if hidden is not None:
            units = hidden.memory.n_out
            found.append(Population(f"layer{number}/hidden", units, hidden.message))
    return {population.name: population for population in found}


def edges(network: Layers) -> list[LayerEdge]:
    """Return all edges, grouped by target in the order in which the targets are updated."""
    found: list[tuple[str, str, str, Connection | None]] = []
    sender = "input"
    for number, layer in network.numbered:
        memory, hidden = f"layer{number}/memory", f"layer{number}/hidden"
        own = layer.memory
        if isinstance(own, SeriesMemory):
            series = f"layer{number}/series"
            found += [
                ("recurrent", series, series, sign_connection(own)),
                ("input", sender, series, own.input),
                ("feedback", memory, series, own.feedback),
                ("hidden", hidden, series, own.hidden),
            ]
        else:
            found += [
                ("recurrent", memory, memory, own.recurrent),
                ("input", sender, memory, own.input),
                ("hidden", hidden, memory, own.hidden),
            ]
        if layer.hidden is not None:
            found += [
                ("memory", memory, hidden, layer.hidden.memory),
                ("input", sender, hidden, layer.hidden.input),
                ("recurrent", hidden, hidden, layer.hidden.recurrent),
            ]
        sender = memory if layer.hidden is None else hidden
    joined = [
        LayerEdge(f"{target}/{name}", source, target, connection)
        for name, source, target, connection in found
        if connection is not None
    ]
    return [*joined, LayerEdge("readout", sender, "readout", network.chip_readout.connection)]


def biases(network: Layers) -> dict[str, np.ndarray]:
    """Return the integer biases by name of the target, where there is one."""
    found: dict[str, np.ndarray | None] = {"readout": network.chip_readout.bias}
    for number, layer in network.numbered:
        part = "series" if isinstance(layer.memory, SeriesMemory) else "memory"
        found[f"layer{number}/{part}"] = layer.memory.bias
        if layer.hidden is not None:
            found[f"layer{number}/hidden"] = layer.hidden.bias
    return {name: bias for name, bias in found.items() if bias is not None}


def sign_connection(memory: SeriesMemory) -> Connection:
    """Return the sign matrix of a series with the gains of its first term."""
    signs = np.kron(np.eye(memory.channels, dtype=np.int8), sign_matrix(memory.order))
    return Connection(
        signs[None],
        np.tile(memory.multiplier[0], memory.channels)[None],
        np.tile(memory.shift[0], memory.channels)[None],
        weight_bits=2,
        accumulator_bits=memory.accumulator_bits,
    )


def source_layers(network: Layers) -> Sequence[LMULayer]:
    """Return the float layers."""
    assert network.source is not None
    return [layer for layer in network.source.layers if isinstance(layer, LMULayer)]
