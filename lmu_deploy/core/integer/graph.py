"""The populations of an integer network and the connections between them, as flat lists.

Targets, pre-flight rules and placement all ask what sends to what; the names here are those of
docs/reference/integer-semantics.md.

A network with other connections in some places; all else stays as it is.

Places are those of integer-semantics.md, such as ``layer0/memory/recurrent`` or ``readout``.
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
"""Last part of the name of what a layer on the host sends."""


@dataclass(frozen=True)
class Population:
    """Neurons that send messages of one format.

    Attributes
    ----------
    name : str
        ``input``, ``layer<i>/series``, ``layer<i>/memory`` or ``layer<i>/hidden``; or
        ``layer<i>/host``, which is what a layer on the host sends to the chip.
    neurons : int
    message : Format
    """

    name: str
    neurons: int
    message: Format


def from_outside(name: str) -> bool:
    """Whether a population is no neurons of the chip: the input, or what the host sends to it."""
    return name == "input" or name.endswith(f"/{HOST}")


@dataclass(frozen=True)
class Edge:
    """A connection and what it joins.

    Attributes
    ----------
    place : str
        Such as ``layer0/memory/recurrent``; its accumulators are ``<place>/slice<k>``.
    source : str
        Population whose messages it carries.
    target : str
        Population that it drives, or ``readout``.
    connection : Connection
    """

    place: str
    source: str
    target: str
    connection: Connection


@dataclass(frozen=True)
class Outlet:
    """What leaves a population under one threshold: one event reaches all of these edges.

    Attributes
    ----------
    source : str
        The population.
    threshold : int
        Of each of the edges; see :class:`lmu_deploy.core.integer.parts.Connection`.
    edges : tuple of Edge
    """

    source: str
    threshold: int
    edges: tuple[Edge, ...]

    @property
    def fan_out(self) -> np.ndarray:
        """Synapses that an event of each neuron meets; shape (neurons,), int64."""
        return np.asarray(sum(edge.connection.fan_out for edge in self.edges), dtype=np.int64)


def populations(network: IntegerNetwork) -> dict[str, Population]:
    """All populations by name, in the order in which they send: input, then layer by layer.

    An input that goes to a layer on the host is none, nor is the output of one that stays there.
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
    """All connections, target by target in the order in which the targets are updated."""
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
    """Return the integer biases by the population that they drive, where there is one.

    The readout's is named ``readout``; it is absent where the host computes the readout.
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
    """All outlets, by population in the order of sending, then by threshold."""
    leaving: dict[tuple[str, int], list[Edge]] = {}
    for edge in edges(network):
        leaving.setdefault((edge.source, edge.connection.threshold), []).append(edge)
    order = list(populations(network))
    keys = sorted(leaving, key=lambda key: (order.index(key[0]), key[1]))
    return [Outlet(*key, tuple(leaving[key])) for key in keys]


def _into_memory(
    number: int, layer: IntegerLayer, sender: str
) -> list[tuple[str, str, str, Connection | None]]:
    """Name, source, target and connection of what drives a layer's memory."""
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
    """Places of the connections that carry the messages of the step before.

    What a series sends to itself it uses in the same step.
    """
    order = [*populations(network), "readout"]
    return [
        edge.place
        for edge in edges(network)
        if order.index(edge.source) >= order.index(edge.target)
        and not edge.source.endswith("/series")
    ]


def memory_basis(network: IntegerNetwork) -> np.ndarray | None:
    """Real matrix from all recorded memory states to the float network's; None for the identity.

    Returns
    -------
    basis : ndarray, shape (the float network's states, states), or None
        The layers' own, block by block; ``basis @ (m * m_scale)`` is the reference's memory.
    """
    memories = [layer.memory for _, layer in network.on_chip]
    if all(memory.basis is None for memory in memories):
        return None
    blocks = [np.eye(m.size) if m.basis is None else m.basis for m in memories]
    return np.asarray(block_diag(*blocks))


def with_connections(
    network: IntegerNetwork, connections: Mapping[str, Connection]
) -> IntegerNetwork:
    """Give a network whose connections at some places are others.

    Parameters
    ----------
    network : IntegerNetwork
    connections : mapping of place to Connection
        Of the shapes that stand there.

    Raises
    ------
    InputError
        When the network has no such place, or a shape does not fit.
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
    """Give a network whose connections at some places send changes from a threshold on.

    Parameters
    ----------
    network : IntegerNetwork
    thresholds : mapping of place to int
        In units of the message; 0 stands for messages themselves.

    Raises
    ------
    InputError
        When the network has no such place, or a threshold is out of range. The loop of a series
        has none.
    """
    present = {edge.place: edge.connection for edge in edges(network)}
    _check_places(present, thresholds)
    changed = {
        place: replace(present[place], threshold=threshold)
        for place, threshold in thresholds.items()
        if threshold != present[place].threshold
    }
    return with_connections(network, changed)


def _check_places(present: Iterable[str], asked: Iterable[str]) -> None:
    """Raise InputError when a place that is asked for is not there."""
    present = list(present)
    if unknown := [place for place in asked if place not in present]:
        raise InputError(
            f"the network has no connection {unknown[0]}; choose among {', '.join(present)}."
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
        raise InputError(f"{name}/series/recurrent is a matrix of signs, and cannot be another.")
    memory = replace(layer.memory, **into_memory) if into_memory else layer.memory
    hidden = layer.hidden
    if into_hidden and hidden is not None:
        hidden = replace(hidden, **into_hidden)
    return replace(layer, memory=memory, hidden=hidden)
