"""Questions to the graph of an integer network, and transforms of its edges.

Names are those of docs/reference/integer-semantics.md. An edge is identified by its place, such as
``layer0/memory/recurrent`` or ``readout``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from graphlib import TopologicalSorter

import numpy as np
from scipy.linalg import block_diag

from lmu_deploy.core.errors import InputError
from lmu_deploy.core.graph.executor import check_counts, enough_steps
from lmu_deploy.core.integer.memories import Integrators, Series
from lmu_deploy.core.integer.network import HostNodes, IntegerNetwork, Node, component_labels
from lmu_deploy.core.integer.parts import Connection, Edge, Format, Place, largest
from lmu_deploy.core.integer.populations import Input, Population
from lmu_deploy.core.integer.reductions import Reduction


@dataclass(frozen=True)
class Source:
    """A sender of events: a population, the terms of a series, or the host.

    Attributes
    ----------
    place : Place
    neurons : int
    message : Format
    outside : bool
        Whether it is outside the chip: the input, or messages of the host.
    """

    place: Place
    neurons: int
    message: Format
    outside: bool


def sources(network: IntegerNetwork) -> dict[Place, Source]:
    """Return everything that sends events, in the order of computation.

    The input is absent if only the host reads it, unless it is a token.
    """
    found = []
    reached = {edge.source for edge in network.edges}
    for population in network.populations:
        if not population.sends or population.message is None:
            continue
        real = isinstance(population, Input) and not population.tokens
        if real and population.place not in reached:
            continue
        outside = isinstance(population, Input | HostNodes)
        for place in dict.fromkeys((population.entrance, population.place)):
            found.append(Source(place, population.size, population.message, outside))
    return {source.place: source for source in found}


def edges(network: IntegerNetwork) -> list[Edge]:
    """Return all edges, grouped by target in the order in which the targets are updated.

    Edges that act within an update, such as that of a series to itself, are included.
    """
    found: list[Edge] = []
    for population in network.populations:
        found += population.inner_edges
        found += network.entering(population.entrance)
    return found


@dataclass(frozen=True)
class Outlet:
    """The edges that share the events of a source: same source and same threshold.

    Attributes
    ----------
    source : Place
    threshold : int
        Threshold of all edges; see :class:`lmu_deploy.core.integer.parts.Connection`.
    edges : tuple of Edge
    """

    source: Place
    threshold: int
    edges: tuple[Edge, ...]

    @property
    def period(self) -> int:
        """Number of frames after which the strides of all edges meet again."""
        return math.lcm(*(edge.stride for edge in self.edges))

    def fan_out(self, phase: int = 0) -> np.ndarray:
        """Return the synaptic operations per event of each neuron; shape (neurons,), int64.

        `phase` is the number of the frame modulo the period.
        """
        return np.asarray(sum(edge.fan_out(phase) for edge in self.edges), dtype=np.int64)


def outlets(network: IntegerNetwork) -> list[Outlet]:
    """Return all outlets, ordered by source in the order of computation, then by threshold."""
    leaving: dict[tuple[Place, int], list[Edge]] = {}
    for edge in edges(network):
        leaving.setdefault((edge.source, edge.connection.threshold), []).append(edge)
    order = list(sources(network))
    keys = sorted(leaving, key=lambda key: (order.index(key[0]), key[1]))
    return [Outlet(*key, tuple(leaving[key])) for key in keys]


def event_outlets(network: IntegerNetwork) -> list[Outlet]:
    """Return all outlets; sources that reach no edge, and those that the host reads, have one too.

    Such an outlet has no edges.
    """
    found = outlets(network)
    there = {(outlet.source, outlet.threshold) for outlet in found}
    read = {reading.source for reading in network.readings}
    reached = {place for place, _ in there}
    alone = [p for p in sources(network) if p not in reached or (p in read and (p, 0) not in there)]
    return found + [Outlet(place, 0, ()) for place in alone]


def saturation_places(network: IntegerNetwork) -> list[str]:
    """Return all places where saturations are counted, in the order of the populations."""
    senders = sources(network)
    own = [
        place
        for p in network.populations
        if not isinstance(p, Input) or p.place in senders
        for place in p.saturation_places
    ]
    return [*own, *(place for edge in edges(network) for place in edge.accumulators)]


@dataclass(frozen=True)
class Component:
    """Populations that feed back into each other, or one that does not.

    Attributes
    ----------
    populations : tuple of Population or HostNodes
        In the order of computation.
    inside, outside : tuple of Edge
        Edges between them, and edges into them from others.
    """

    populations: tuple[Node, ...]
    inside: tuple[Edge, ...]
    outside: tuple[Edge, ...]

    @cached_property
    def stateless(self) -> bool:
        """Whether all frames can be computed at once."""
        return not self.inside and all(p.stateless for p in self.populations)


def components(network: IntegerNetwork) -> list[Component]:
    """Return the strongly connected components of the graph, each behind all that it reads."""
    labels = component_labels(network)
    found = []
    for label in dict.fromkeys(labels):
        members = tuple(
            p for p, own in zip(network.populations, labels, strict=True) if own == label
        )
        places = {place for p in members for place in (p.place, p.entrance)}
        into = [edge for edge in network.edges if edge.target in places]
        inside = tuple(edge for edge in into if edge.source in places)
        outside = tuple(edge for edge in into if edge.source not in places)
        found.append(Component(members, inside, outside))
    return _in_order(network, found)


def _in_order(network: IntegerNetwork, parts: list[Component]) -> list[Component]:
    """Return components behind all that they read, else in the order of their populations."""
    owner = {p.place: n for n, part in enumerate(parts) for p in part.populations}
    sorter: TopologicalSorter[int] = TopologicalSorter()
    for number, part in enumerate(parts):
        places = {p.place for p in part.populations}
        read = {network[edge.source].place for edge in part.outside}
        read |= {reading.source for reading in network.readings if reading.target in places}
        sorter.add(number, *(owner[place] for place in read))
    sorter.prepare()
    found: list[Component] = []
    ready: list[int] = []
    while sorter.is_active():
        ready += sorter.get_ready()
        first = min(ready)
        ready.remove(first)
        sorter.done(first)
        found.append(parts[first])
    return found


def levels(network: IntegerNetwork) -> dict[Place, int]:
    """Return for every population how many times signals have passed from the chip to the host.

    A target that computes nodes on the host by itself runs the populations of one level after the
    other, each behind the host's nodes of the same level.
    """
    found: dict[Place, int] = {}
    for part in components(network):
        places = {p.place for p in part.populations}
        read = [found[network[edge.source].place] for edge in part.outside]
        for reading in network.readings:
            if reading.target in places:
                source = network[reading.source]
                on_chip = isinstance(source, Population) and not isinstance(source, Input)
                read.append(found[reading.source] + on_chip)
        found |= dict.fromkeys(places, max(read, default=0))
    return found


def frame_counts(network: IntegerNetwork, steps: int) -> dict[Place, int]:
    """Return how many frames every population computes of an input of that many steps."""
    found: dict[Place, int] = {}
    for population in network.populations:
        place = population.place
        if isinstance(population, Input):
            found[place] = steps
        elif isinstance(population, HostNodes):
            read = [found[r.source] for r in network.readings if r.target == place]
            found[place] = population.network.frames(min(read))
        else:
            into = network.entering(population.entrance)
            before = [e for e in into if not network.leads_back(e)]
            frames = min(e.frames(found[e.source]) for e in before)
            found[place] = min(frames, 1) if isinstance(population, Reduction) else frames
    return found


def taken_frames(network: IntegerNetwork, steps: int) -> dict[Place, int]:
    """Return how many frames every population takes: of a reduction, more than it computes."""
    found = frame_counts(network, steps)
    taken = dict(found)
    for population in network.populations:
        if isinstance(population, Reduction):
            into = network.entering(population.place)
            taken[population.place] = min(edge.frames(found[edge.source]) for edge in into)
    return taken


def check_frames(network: IntegerNetwork, steps: int) -> None:
    """Raise InputError unless every population has a frame, and a reduction one to reduce."""
    check_counts(steps, lambda steps: taken_frames(network, steps))


def enough_frames(network: IntegerNetwork, steps: int) -> int:
    """Return the least number of steps from `steps` on with which every population has a frame."""
    return enough_steps(steps, lambda steps: taken_frames(network, steps))


def latency(network: IntegerNetwork) -> int:
    """Return by how many steps the output's last frame follows the last step of the input.

    Operators that look ahead, such as a centered convolution, wait for frames that are still to
    come; at the end of a sequence these are the frames of zeros behind it.
    """
    period: dict[Place, int] = {}
    late: dict[Place, int] = {}
    for population in network.populations:
        place = population.place
        into = [e for e in network.entering(population.entrance) if not network.leads_back(e)]
        into = [] if isinstance(population, Input | HostNodes) else into
        read = [r.source for r in network.readings if r.target == place]
        period[place] = max(
            [period[e.source] * e.stride for e in into] + [period[p] for p in read], default=1
        )
        waits = [late[e.source] + max(e.after, 0) * period[e.source] for e in into]
        late[place] = max(waits + [late[p] for p in read], default=0)
    return late[network.output]


def biases(network: IntegerNetwork) -> dict[Place, np.ndarray]:
    """Return the integer biases by entrance of the population, where there is one."""
    return {p.entrance: p.bias for p in network.populations if p.bias is not None}


def delayed(network: IntegerNetwork) -> list[str]:
    """Return the places of the edges that carry messages of the previous step."""
    return [edge.place for edge in network.edges if edge.recurrent]


def memory_basis(network: IntegerNetwork) -> np.ndarray | None:
    """Return the matrix from recorded memory states to those of the float network.

    Returns
    -------
    basis : ndarray, shape (the float network's states, states), or None
        Block diagonal with the basis of each memory; ``basis @ (m * m_scale)`` is the memory of
        the reference. None means the identity.
    """
    memories = network.memories
    if all(memory.basis is None for memory in memories):
        return None
    return np.asarray(
        block_diag(*(np.eye(m.size) if m.basis is None else m.basis for m in memories))
    )


def memory_line(network: IntegerNetwork, memory: Integrators) -> int | None:
    """Return the number of delay lines of a memory that consists of nothing else.

    With weights of +-1 that move each tap to the next, a state's own message removes its old
    value: m[t] is the value of the tap before, or at the first taps the input.

    Returns
    -------
    width : int or None
        State n moves to n + width; None for any other memory.
    """
    entering = {edge.name: edge for edge in network.entering(memory.place)}
    if set(entering) != {"recurrent", "input"} or memory.bias is not None:
        return None
    recurrent, limit = entering["recurrent"].connection, memory.state.limit
    plain = (
        entering["recurrent"].recurrent
        and memory.message_shift == 0
        and memory.message.bits == memory.state.bits
        and recurrent.slices.shape[0] == 1
        and recurrent.threshold <= 1
        and bool((recurrent.multiplier == 1).all() and (recurrent.shift == 0).all())
        and 2 * limit <= largest(recurrent.accumulator_bits)
    )
    entered = np.flatnonzero(entering["input"].connection.slices.any(axis=(0, 2)))
    if not plain or not entered.size:
        return None
    width = int(entered[-1]) + 1
    if width >= memory.size:
        return None
    shift = np.eye(memory.size, k=-width, dtype=np.int8) - np.eye(memory.size, dtype=np.int8)
    return width if np.array_equal(recurrent.slices[0], shift) else None


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
    for population in network.populations:
        for edge in population.inner_edges:
            if edge.place in connections:
                raise InputError(f"{edge.place} is the sign matrix and cannot be replaced.")
    _check_places([edge.place for edge in network.edges], connections)
    changed = tuple(
        replace(edge, connection=connections.get(edge.place, edge.connection))
        for edge in network.edges
    )
    return replace(network, edges=changed)


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


def host_sentence(network: IntegerNetwork) -> str | None:
    """Return a sentence that lists the nodes on the host; None if there are none."""
    nodes = [
        f"{node.name} ({node.operator.describe()})"
        for host in network.on_host
        for node in host.network.nodes
    ]
    if not nodes:
        return None
    listed = f"{', '.join(nodes[:-1])} and {nodes[-1]}" if len(nodes) > 1 else nodes[0]
    return (
        f"On the host, in float64: {listed}. Events, synaptic operations, saturations, placement "
        "and costs are those of the other nodes alone."
    )


def applications(network: IntegerNetwork, edge: Edge) -> int:
    """Return how often an edge acts in a step: once, but for that of a series to itself."""
    population = network[edge.target]
    inner = isinstance(population, Series) and edge.source == population.inner
    return population.applications if inner and isinstance(population, Series) else 1


def _check_places(present: Iterable[str], wanted: Iterable[str]) -> None:
    """Raise InputError when a wanted place is not present."""
    present = list(present)
    if unknown := [place for place in wanted if place not in present]:
        raise InputError(
            f"the network has no connection {unknown[0]}; choose one of {', '.join(present)}."
        )
