"""Layers of integers: memories and units together with the connections that enter them.

Files before version 0.3 hold integer networks in this form; :meth:`LayeredNetwork.graph` returns
the same network, integer for integer, as populations and edges, which check every value. The
quantizer builds its layers in this form, and the analysis of memories reads it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from lmu_deploy.core.errors import InputError
from lmu_deploy.core.files import LATER
from lmu_deploy.core.graph.linear import Dense
from lmu_deploy.core.graph.network import INPUT, Network, Node
from lmu_deploy.core.graph.recurrent import LSTM
from lmu_deploy.core.graph.transforms import operator_layer
from lmu_deploy.core.integer.functions import PiecewiseLinear
from lmu_deploy.core.integer.memories import Integrators, Series
from lmu_deploy.core.integer.network import HostNodes, IntegerNetwork, Reading
from lmu_deploy.core.integer.network import Node as Population
from lmu_deploy.core.integer.parts import Connection, Edge, Format, Place, check_type
from lmu_deploy.core.integer.populations import Input, Output, Pointwise
from lmu_deploy.core.network import (
    FLOAT_CLASSES,
    LMULayer,
    LMUNetwork,
    LSTMLayer,
    Readout,
    default_names,
)
from lmu_deploy.core.options import SERIES
from lmu_deploy.core.representation import Part

_ENTRANCE = Place(INPUT)
_EXIT = Place("readout")


@dataclass(frozen=True, eq=False, repr=False)
class IntegerMemory(Part):
    """Integrators with the edges that enter them."""

    state: Format
    message: Format
    message_shift: int
    recurrent: Connection
    input: Connection
    hidden: Connection | None
    bias: np.ndarray | None
    realization: str = "dense-incremental"
    basis: np.ndarray | None = None

    @property
    def size(self) -> int:
        """Number of states."""
        return self.recurrent.n_out


@dataclass(frozen=True, eq=False, repr=False)
class SeriesMemory(Part):
    """A Taylor series with the edges that enter it."""

    channels: int
    order: int
    substeps: int
    state: Format
    message: Format
    message_shift: int
    term_shift: np.ndarray
    multiplier: np.ndarray
    shift: np.ndarray
    input: Connection
    feedback: Connection | None
    hidden: Connection | None
    bias: np.ndarray | None
    accumulator_bits: int = 24
    realization: ClassVar[str] = SERIES
    basis: ClassVar[None] = None

    @property
    def applications(self) -> int:
        """Number of applications of the sign matrix per step."""
        return self.substeps * self.terms

    @property
    def terms(self) -> int:
        """Number of terms of the series."""
        return len(self.multiplier)

    @property
    def size(self) -> int:
        """Number of states."""
        return self.channels * self.order


@dataclass(frozen=True, eq=False, repr=False)
class IntegerHidden(Part):
    """Hidden units with the edges that enter them."""

    drive: Format
    message: Format
    memory: Connection
    input: Connection | None
    recurrent: Connection | None
    bias: np.ndarray | None
    activation: PiecewiseLinear

    @property
    def units(self) -> int:
        """Number of hidden units."""
        return self.memory.n_out


@dataclass(frozen=True, eq=False, repr=False)
class IntegerLayer(Part):
    """A memory and, optionally, hidden units."""

    memory: IntegerMemory | SeriesMemory
    hidden: IntegerHidden | None

    @property
    def n_in(self) -> int:
        """Number of input messages."""
        return self.memory.input.n_in

    @property
    def n_out(self) -> int:
        """Number of output messages."""
        return self.memory.size if self.hidden is None else self.hidden.units

    @property
    def output(self) -> Format:
        """Format of the output messages."""
        return self.memory.message if self.hidden is None else self.hidden.message

    @property
    def output_basis(self) -> np.ndarray | None:
        """Matrix from the dequantized messages to the output of the float layer."""
        return self.memory.basis if self.hidden is None else None


@dataclass(frozen=True, eq=False, repr=False)
class HostLayer(Part):
    """An LSTM layer that the host computes, and the format of its messages to the chip."""

    lstm: LSTMLayer
    message: Format | None


@dataclass(frozen=True, eq=False, repr=False)
class IntegerReadout(Part):
    """A linear readout."""

    connection: Connection
    bias: np.ndarray | None
    output: Format


@dataclass(frozen=True, eq=False, repr=False)
class LayeredNetwork(Part):
    """An integer network as layers one behind the other."""

    FILE_NAME: ClassVar[str] = "IntegerNetwork"

    input: Format
    layers: tuple[IntegerLayer | HostLayer, ...]
    readout: IntegerReadout | Readout
    return_sequences: bool = False
    task: str | None = None
    profile: str = "loihi2"
    provenance: Mapping[str, str] = field(default_factory=dict)
    source: LMUNetwork | None = field(default=None, metadata=LATER)

    def graph(self) -> IntegerNetwork:
        """Return the network as populations and edges.

        Raises
        ------
        InputError
            When a part of it is invalid.
        """
        return _Upgrade(self).network()


class Assembly:
    """Collects the populations, edges and readings of a network.

    Attributes
    ----------
    populations : list of Population or HostNodes
    edges : list of Edge
    readings : list of Reading
    """

    def __init__(self) -> None:
        self.populations: list[Population] = []
        self.edges: list[Edge] = []
        self.readings: list[Reading] = []

    def join(self, source: Place, target: Place, **connections: object) -> None:
        """Add an edge for each connection; those that feed back read the frame before."""
        for name, connection in connections.items():
            if connection is not None:
                check_type(name, connection, Connection)
                assert isinstance(connection, Connection)
                back = (-1,) if name in ("recurrent", "feedback", "hidden") else (0,)
                self.edges.append(Edge(source, target, name, connection, back))

    def memory(
        self, node: str, memory: IntegerMemory | SeriesMemory, sender: Place, units: Place
    ) -> Place:
        """Add a memory with the connections that enter it, and return its place.

        Parameters
        ----------
        node : str
        memory : IntegerMemory or SeriesMemory
        sender, units : Place
            Of the input, and of the hidden units that feed back.
        """
        at = Place(node, "memory")
        if isinstance(memory, SeriesMemory):
            inner = Place(node, "series")
            self.populations.append(
                Series(
                    at,
                    inner,
                    memory.channels,
                    memory.order,
                    memory.substeps,
                    memory.state,
                    memory.message,
                    memory.message_shift,
                    memory.term_shift,
                    memory.multiplier,
                    memory.shift,
                    memory.bias,
                    memory.accumulator_bits,
                )
            )
            self.join(sender, inner, input=memory.input)
            self.join(at, inner, feedback=memory.feedback)
            self.join(units, inner, hidden=memory.hidden)
            return at
        check_type("layer", memory, IntegerMemory)
        check_type("memory recurrent", memory.recurrent, Connection)
        self.populations.append(
            Integrators(
                at,
                memory.recurrent.n_out,
                memory.state,
                memory.message,
                memory.message_shift,
                memory.bias,
                memory.realization,
                memory.basis,
            )
        )
        self.join(at, at, recurrent=memory.recurrent)
        self.join(sender, at, input=memory.input)
        self.join(units, at, hidden=memory.hidden)
        return at


class _Upgrade(Assembly):
    """Collects the populations and edges of a network of layers."""

    def __init__(self, old: LayeredNetwork) -> None:
        super().__init__()
        self.old = old
        check_type("network", old.input, Format)
        if not isinstance(old.layers, tuple) or not old.layers:
            raise InputError("an integer network needs at least one layer.")
        self.sender: Place = _ENTRANCE
        self.basis: np.ndarray | None = None

    def network(self) -> IntegerNetwork:
        """Return the network."""
        old = self.old
        self.populations.append(Input(_ENTRANCE, _n_in(old.layers[0]), old.input))
        for name, layer in zip(default_names(len(old.layers)), old.layers, strict=False):
            if isinstance(layer, HostLayer):
                self._host(name, layer)
            else:
                check_type("layer", layer, IntegerLayer)
                self._layer(name, layer)
        self._readout(old.readout)
        return IntegerNetwork(
            tuple(self.populations),
            tuple(self.edges),
            tuple(self.readings),
            _EXIT,
            old.return_sequences,
            old.task,
            old.profile,
            old.provenance,
            old.source,
        )

    def _layer(self, name: str, layer: IntegerLayer) -> None:
        units, before = Place(name, "hidden"), self.sender
        at = self.memory(name, layer.memory, before, units)
        self.sender, self.basis = at, layer.memory.basis
        if layer.hidden is not None:
            self._hidden(units, layer.hidden, at, before)

    def _hidden(self, at: Place, hidden: IntegerHidden, memory: Place, before: Place) -> None:
        check_type("layer", hidden, IntegerHidden)
        check_type("hidden memory", hidden.memory, Connection)
        self.populations.append(
            Pointwise(
                at,
                hidden.memory.n_out,
                hidden.drive,
                hidden.message,
                hidden.activation,
                hidden.bias,
            )
        )
        self.join(memory, at, memory=hidden.memory)
        self.join(before, at, input=hidden.input)
        self.join(at, at, recurrent=hidden.recurrent)
        self.sender, self.basis = at, None

    def _host(self, name: str, layer: HostLayer) -> None:
        check_type("host layer", layer.lstm, LSTMLayer)
        cell = layer.lstm
        operator = LSTM(cell.kernel, cell.recurrent_kernel, cell.bias)
        network = Network((Node(name, operator, (INPUT,)),), (cell.n_in,), name)
        self._read(HostNodes(Place(name, "host"), network, layer.message))

    def _read(self, host: HostNodes) -> None:
        self.populations.append(host)
        self.readings.append(Reading(self.sender, host.place, self.basis))
        self.sender, self.basis = host.place, None

    def _readout(self, readout: Any) -> None:
        if isinstance(readout, Readout):
            dense = Dense(readout.kernel, readout.bias)
            network = Network(
                (Node("readout", dense, (INPUT,)),), (dense.kernel.shape[0],), "readout"
            )
            self._read(HostNodes(_EXIT, network, None))
            return
        check_type("readout", readout, IntegerReadout)
        check_type("readout", readout.connection, Connection)
        size = readout.connection.n_out
        self.populations.append(Output(_EXIT, size, readout.output, readout.bias))
        self.edges.append(Edge(self.sender, _EXIT, "", readout.connection))


def memory_views(network: IntegerNetwork) -> dict[Place, IntegerMemory | SeriesMemory]:
    """Return every memory of a network together with the connections that enter it.

    Of several inputs the first is the view's input.
    """
    found: dict[Place, IntegerMemory | SeriesMemory] = {}
    for p in network.memories:
        into = {edge.name: edge.connection for edge in network.entering(p.entrance)}
        if isinstance(p, Integrators):
            found[p.place] = IntegerMemory(
                p.state,
                p.message,
                p.message_shift,
                into["recurrent"],
                into["input"],
                into.get("hidden"),
                p.bias,
                p.realization,
                p.basis,
            )
        else:
            found[p.place] = SeriesMemory(
                p.channels,
                p.order,
                p.substeps,
                p.state,
                p.message,
                p.message_shift,
                p.term_shift,
                p.multiplier,
                p.shift,
                into["input"],
                into.get("feedback"),
                into.get("hidden"),
                p.bias,
                p.accumulator_bits,
            )
    return found


def layer_views(network: IntegerNetwork, names: Sequence[str]) -> list[IntegerLayer | None]:
    """Return the memory and units of nodes with the connections that enter them.

    Parameters
    ----------
    network : IntegerNetwork
    names : sequence of str
        Of LMU nodes whose units are simple; None for every other node.
    """
    memories = memory_views(network)
    units = {p.place: p for p in network.on_chip if isinstance(p, Pointwise)}
    found: list[IntegerLayer | None] = []
    for name in names:
        memory, hidden = memories.get(Place(name, "memory")), units.get(Place(name, "hidden"))
        if memory is None:
            found.append(None)
            continue
        view = None
        if hidden is not None and isinstance(hidden.function, PiecewiseLinear):
            into = {edge.name: edge.connection for edge in network.entering(hidden.place)}
            view = IntegerHidden(
                hidden.drive,
                hidden.message,
                into["memory"],
                into.get("input"),
                into.get("recurrent"),
                hidden.bias,
                hidden.function,
            )
        found.append(IntegerLayer(memory, view))
    return found


def float_layers(source: Network | LMUNetwork | None) -> dict[str, LMULayer]:
    """Return the LMU layers of a float network by the name of their node."""
    if source is None:
        return {}
    if isinstance(source, LMUNetwork):
        source = Network.from_layers(source)
    found = {node.name: operator_layer(node.operator) for node in source.nodes}
    return {name: layer for name, layer in found.items() if isinstance(layer, LMULayer)}


def _n_in(layer: Any) -> int:
    if isinstance(layer, HostLayer):
        check_type("host layer", layer.lstm, LSTMLayer)
        return layer.lstm.n_in
    check_type("layer", layer, IntegerLayer)
    connection = getattr(layer.memory, "input", None)
    check_type("memory input", connection, Connection)
    assert isinstance(connection, Connection)
    return connection.n_in


LAYERED_CLASSES: tuple[type, ...] = (
    LayeredNetwork,
    IntegerLayer,
    HostLayer,
    IntegerMemory,
    SeriesMemory,
    IntegerHidden,
    IntegerReadout,
    PiecewiseLinear,
    Connection,
    Format,
    *FLOAT_CLASSES,
)
"""Classes that may occur in such a file, for `core.files.load`."""
