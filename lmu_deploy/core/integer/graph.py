"""The graph of an integer network: populations, edges between them, and transforms of edges.

Names are those of docs/reference/integer-semantics.md. A population is called ``layer0/memory``,
for example; an edge is identified by its place, such as ``layer0/memory/recurrent`` or ``readout``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.linalg import block_diag

from lmu_deploy.core.errors import InputError
from lmu_deploy.core.integer.layers import SeriesMemory
from lmu_deploy.core.integer.network import HostLayer, IntegerLayer, IntegerNetwork
from lmu_deploy.core.integer.parts import Connection, Format
from lmu_deploy.core.network import Readout

HOST = "host"
"""Last part of the name of the population that represents the output of a host layer."""


@dataclass(frozen=True)
class Population:
    """A group of neurons that send messages of one format.

    Attributes
    ----------
    name : str
        ``input``, ``layer<i>/series``, ``layer<i>/memory``, ``layer<i>/hidden``, or
        ``layer<i>/host`` for the messages from a host layer to the chip.
    neurons : int
    message : Format
    """

    name: str
    neurons: int
    message: Format


def from_outside(name: str) -> bool:
    """Return whether a population is external to the chip: the input, or messages of the host."""
    return name == "input" or name.endswith(f"/{HOST}")


@dataclass(frozen=True)
class Edge:
    """A connection with its source and target.

    Attributes
    ----------
    place : str
        Identifier such as ``layer0/memory/recurrent``; accumulators are ``<place>/slice<k>``.
    source : str
        Name of the population that sends.
    target : str
        Name of the population that receives, or ``readout``.
    connection : Connection
    """

    place: str
    source: str
    target: str
    connection: Connection


@dataclass(frozen=True)
class Outlet:
    """The edges that share the events of a population: same source and same threshold.

    Attributes
    ----------
    source : str
        Name of the population.
    threshold : int
        Threshold of all edges; see :class:`lmu_deploy.core.integer.parts.Connection`.
    edges : tuple of Edge
    """

    source: str
    threshold: int
    edges: tuple[Edge, ...]

    @property
    def fan_out(self) -> np.ndarray:
        """Synaptic operations per event of each neuron; shape (neurons,), int64."""
        return np.asarray(sum(edge.connection.fan_out for edge in self.edges), dtype=np.int64)


def populations(network: IntegerNetwork) -> dict[str, Population]:
    """Return all populations by name in the order of computation: input, then layer by layer.

    The input is absent if the first layer is on the host, and so is the output of a host layer
    whose successor is on the host.
    """
    found = []
    if not isinstance(network.layers[0], HostLayer):
        found.append(Population("input", network.n_in, network.input))
    for number, layer in enumerate(network.layers):
        if isinstance(layer, HostLayer):
            if layer.message is not None:
                found.append(Population(f"layer{number}/{HOST}", layer.n_out, layer.message))
            continue
        memory, hidden = layer.memory, layer.hidden
        if isinstance(memory, SeriesMemory):
            found.append(Population(f"layer{number}/series", memory.size, memory.message))
        found.append(Population(f"layer{number}/memory", memory.size, memory.message))
        if hidden is not None:
            found.append(Population(f"layer{number}/hidden", hidden.units, hidden.message))
    return {population.name: population for population in found}


def edges(network: IntegerNetwork) -> list[Edge]:
    """Return all edges, grouped by target in the order in which the targets are updated."""
    found: list[tuple[str, str, str, Connection | None]] = []
    sender = "input"
    for number, layer in enumerate(network.layers):
        if isinstance(layer, HostLayer):
            sender = f"layer{number}/{HOST}"
            continue
        memory, hidden = f"layer{number}/memory", f"layer{number}/hidden"
        found += _into_memory(number, layer, sender)
        if layer.hidden is not None:
            found += [
                ("memory", memory, hidden, layer.hidden.memory),
                ("input", sender, hidden, layer.hidden.input),
                ("recurrent", hidden, hidden, layer.hidden.recurrent),
            ]
        sender = memory if layer.hidden is None else hidden
    joined = [
        Edge(f"{target}/{name}", source, target, connection)
        for name, source, target, connection in found
        if connection is not None
    ]
    if isinstance(network.readout, Readout):
        return joined
    return [*joined, Edge("readout", sender, "readout", network.readout.connection)]


def biases(network: IntegerNetwork) -> dict[str, np.ndarray]:
    """Return the integer biases by name of the target, where there is one.

    The bias of the readout has the name ``readout``; it is absent where the host computes the
    readout.
    """
    found: dict[str, np.ndarray | None] = {}
    if not isinstance(network.readout, Readout):
        found["readout"] = network.readout.bias
    for number, layer in network.on_chip:
        part = "series" if isinstance(layer.memory, SeriesMemory) else "memory"
        found[f"layer{number}/{part}"] = layer.memory.bias
        if layer.hidden is not None:
            found[f"layer{number}/hidden"] = layer.hidden.bias
    return {name: bias for name, bias in found.items() if bias is not None}


def outlets(network: IntegerNetwork) -> list[Outlet]:
    """Return all outlets, ordered by source in the order of computation, then by threshold."""
    leaving: dict[tuple[str, int], list[Edge]] = {}
    for edge in edges(network):
        leaving.setdefault((edge.source, edge.connection.threshold), []).append(edge)
    order = list(populations(network))
    keys = sorted(leaving, key=lambda key: (order.index(key[0]), key[1]))
    return [Outlet(*key, tuple(leaving[key])) for key in keys]


def _into_memory(
    number: int, layer: IntegerLayer, sender: str
) -> list[tuple[str, str, str, Connection | None]]:
    """Return name, source, target and connection of the edges into the memory of a layer."""
    memory, hidden = f"layer{number}/memory", f"layer{number}/hidden"
    if isinstance(layer.memory, SeriesMemory):
        series = f"layer{number}/series"
        return [
            ("recurrent", series, series, layer.memory.recurrent),
            ("input", sender, series, layer.memory.input),
            ("feedback", memory, series, layer.memory.feedback),
            ("hidden", hidden, series, layer.memory.hidden),
        ]
    return [
        ("recurrent", memory, memory, layer.memory.recurrent),
        ("input", sender, memory, layer.memory.input),
        ("hidden", hidden, memory, layer.memory.hidden),
    ]


def delayed(network: IntegerNetwork) -> list[str]:
    """Return the places of the edges that carry messages of the previous step.

    The recurrent edge of a series is not one of them: it acts within a step.
    """
    order = [*populations(network), "readout"]
    return [
        edge.place
        for edge in edges(network)
        if order.index(edge.source) >= order.index(edge.target)
        and not edge.source.endswith("/series")
    ]


def memory_basis(network: IntegerNetwork) -> np.ndarray | None:
    """Return the matrix from recorded memory states to those of the float network.

    Returns
    -------
    basis : ndarray, shape (the float network's states, states), or None
        Block diagonal with the basis of each layer; ``basis @ (m * m_scale)`` is the memory of
        the reference. None means the identity.
    """
    memories = [layer.memory for _, layer in network.on_chip]
    if all(memory.basis is None for memory in memories):
        return None
    blocks = [np.eye(m.size) if m.basis is None else m.basis for m in memories]
    return np.asarray(block_diag(*blocks))


def with_connections(
    network: IntegerNetwork, connections: Mapping[str, Connection]
) -> IntegerNetwork:
    """Return the network with some of its connections replaced.

    Parameters
    ----------
    network : IntegerNetwork
    connections : mapping of place to Connection
        New connections, of the same shapes.

    Raises
    ------
    InputError
        When the network has no such place, or a shape differs.
    """
    _check_places([edge.place for edge in edges(network)], connections)
    layers = tuple(
        _layer(f"layer{number}", layer, connections) if isinstance(layer, IntegerLayer) else layer
        for number, layer in enumerate(network.layers)
    )
    readout = network.readout
    if "readout" in connections:
        readout = replace(network.chip_readout, connection=connections["readout"])
    return replace(network, layers=layers, readout=readout)


def with_thresholds(network: IntegerNetwork, thresholds: Mapping[str, int]) -> IntegerNetwork:
    """Return the network with other message thresholds on some of its edges.

    Parameters
    ----------
    network : IntegerNetwork
    thresholds : mapping of place to int
        In units of the message; 0 sends messages instead of changes.

    Raises
    ------
    InputError
        When the network has no such place (the recurrent edge of a series has no threshold), or a
        threshold is out of range.
    """
    present = {edge.place: edge.connection for edge in edges(network)}
    _check_places(present, thresholds)
    changed = {
        place: replace(present[place], threshold=threshold)
        for place, threshold in thresholds.items()
        if threshold != present[place].threshold
    }
    return with_connections(network, changed)


def _check_places(present: Iterable[str], wanted: Iterable[str]) -> None:
    """Raise InputError when a wanted place is not present."""
    present = list(present)
    if unknown := [place for place in wanted if place not in present]:
        raise InputError(
            f"the network has no connection {unknown[0]}; choose one of {', '.join(present)}."
        )


def _layer(name: str, layer: IntegerLayer, connections: Mapping[str, Connection]) -> IntegerLayer:
    inside = {
        tuple(place.split("/")[1:]): connection
        for place, connection in connections.items()
        if place.startswith(f"{name}/")
    }
    into_memory: dict[str, Any] = {
        field: c for (part, field), c in inside.items() if part != "hidden"
    }
    into_hidden: dict[str, Any] = {
        field: c for (part, field), c in inside.items() if part == "hidden"
    }
    if ("series", "recurrent") in inside:
        raise InputError(f"{name}/series/recurrent is the sign matrix and cannot be replaced.")
    memory = replace(layer.memory, **into_memory) if into_memory else layer.memory
    hidden = layer.hidden
    if into_hidden and hidden is not None:
        hidden = replace(hidden, **into_hidden)
    return replace(layer, memory=memory, hidden=hidden)
