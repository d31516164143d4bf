"""Plan of one run of Lava: groups of neurons, their links and outlets, and when they work.

All synapses that leave a population under one threshold are one process of Lava; each receiver uses
the rows that belong to it, and delays what arrives too early (schedule.py). Rows of an edge with
several offsets come once for each offset, each with its delay.

A group is a population, or stands in for one that is outside the stage: the input, messages of the
host, or those of an earlier stage, which it sends once more.

The plan is deterministic: the target and its worker compute the same one from the same network.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from lmu_deploy.core.integer.graph import Outlet, levels, outlets, sources
from lmu_deploy.core.integer.memories import Series
from lmu_deploy.core.integer.network import HostNodes, IntegerNetwork, Node
from lmu_deploy.core.integer.parts import Edge, Place
from lmu_deploy.core.integer.populations import Input
from targets.lava.schedule import Slot, Timeline, Timetable, make_slots


@dataclass(frozen=True)
class Exit:
    """An outlet, and what of it is in this stage.

    Attributes
    ----------
    outlet : Outlet
        With all its edges, which count for synaptic operations.
    edges : tuple of Edge
        Those that lead to populations of this stage.
    before : ndarray, shape (neurons,), int64
        Message at the receivers before the first frame.
    """

    outlet: Outlet
    edges: tuple[Edge, ...]
    before: np.ndarray


@dataclass(frozen=True)
class Link:
    """An edge at its receiver.

    Attributes
    ----------
    edge : Edge
    exit : Exit
        Where its messages come from.
    line : Timeline
        When they are sent.
    rows : slice
        Rows of the synapses that are this edge's: those of one offset after the other, and of
        each offset all of one slice, then all of the next.
    delays : tuple of int
        Chip steps by which the receiver delays what arrives, for each offset.
    recalls : bool
        Whether the first frame receives the message before the first.
    """

    edge: Edge
    exit: Exit
    line: Timeline
    rows: slice
    delays: tuple[int, ...]
    recalls: bool

    @property
    def width(self) -> int:
        """Number of rows of the synapses."""
        return sum(edge_rows(edge) for edge in self.exit.edges)


@dataclass(frozen=True)
class Group:
    """Neurons that work at the same time.

    Attributes
    ----------
    number : int
        Position in the plan.
    population : Population or HostNodes
    slot : Slot
    replays : bool
        Whether it only sends messages that were computed before.
    counted : bool
        Whether its events count in this stage.
    kept : bool
        Whether its messages are needed after the run.
    links : tuple of Link
        Those from the population itself first.
    exits : tuple of Exit
        That of a series to itself first.
    places : tuple of str
        Places of saturations: accumulators, then those of the neurons.
    """

    number: int
    population: Node
    slot: Slot
    replays: bool
    counted: bool
    kept: bool
    links: tuple[Link, ...]
    exits: tuple[Exit, ...]
    places: tuple[str, ...]

    @property
    def place(self) -> Place:
        """Place of the population."""
        return self.population.place

    @property
    def neurons(self) -> int:
        """Number of neurons."""
        return self.population.size


@dataclass(frozen=True)
class Plan:
    """A timetable and groups, senders before receivers.

    Attributes
    ----------
    timetable : Timetable
    groups : tuple of Group
    """

    timetable: Timetable
    groups: tuple[Group, ...]

    @property
    def latest(self) -> Group:
        """The group that ends last."""
        return max(self.groups, key=lambda group: (group.slot.sends.last, group.number))

    @property
    def processes(self) -> int:
        """Number of processes of Lava."""
        return len(self.groups) + sum(bool(way.edges) for g in self.groups for way in g.exits)

    @property
    def longest_delay(self) -> int:
        """The most chip steps by which a receiver delays what arrives."""
        links = [link for group in self.groups for link in group.links]
        return max((delay for link in links for delay in link.delays), default=0)

    def connected(self) -> list[list[Group]]:
        """Return the groups in parts that exchange messages; each part is a separate run."""
        label = list(range(len(self.groups)))
        at = {group.place: group.number for group in self.groups}
        at |= {group.population.entrance: group.number for group in self.groups}
        for group in self.groups:
            for link in group.links:
                old, new = label[group.number], label[at[link.edge.source]]
                label = [new if own == old else own for own in label]
        return [
            [group for group in self.groups if label[group.number] == part]
            for part in dict.fromkeys(label)
        ]


def edge_rows(edge: Edge) -> int:
    """Return the number of rows of an edge: one for each offset, slice and target."""
    return len(edge.offsets) * edge.connection.multiplier.size


def make_plan(network: IntegerNetwork, samples: int, steps: int, stage: int = 0) -> Plan:
    """Plan one stage of a network for a number of samples of equal length."""
    slots, period = make_slots(network, steps, stage)
    level, order = levels(network), network.order
    exits = _exits(network, slots, level, stage)
    kept = _kept(network, level, stage)
    groups = []
    for number, place in enumerate(sorted(slots, key=order)):
        population = network[place]
        replays = isinstance(population, Input | HostNodes) or level[place] < stage
        links: list[Link] = []
        if not replays:
            links = sorted(
                _links(network, population, exits, slots),
                key=lambda link: link.edge.source != link.edge.target,
            )
        groups.append(
            Group(
                number,
                population,
                slots[place],
                replays,
                level[place] == stage,
                place in kept and not replays,
                tuple(links),
                tuple(way for way in exits if network[way.outlet.source].place == place),
                () if replays else (*_accumulators(links), *population.saturation_places),
            )
        )
    span = 1 + max(_reach(group) for group in groups)
    end = 1 + max(line.last for g in groups for line in (g.slot.works, g.slot.sends))
    return Plan(Timetable(samples, steps, period, span, end), tuple(groups))


def _exits(
    network: IntegerNetwork, slots: dict[Place, Slot], level: dict[Place, int], stage: int
) -> list[Exit]:
    """Return all outlets of senders of a stage; what only the host reads has one without edges."""
    found = outlets(network)
    read = {reading.source for reading in network.readings}
    for place in sources(network):
        thresholds = [outlet.threshold for outlet in found if outlet.source == place]
        if not thresholds or (place in read and 0 not in thresholds):
            found.append(Outlet(place, 0, ()))
    order = list(sources(network))
    exits = []
    for outlet in sorted(found, key=lambda o: (order.index(o.source), o.threshold)):
        population = network[outlet.source]
        if population.place not in slots:
            continue
        before = None if isinstance(population, HostNodes) else population.first_message
        known = np.zeros(population.size, np.int64) if before is None else before.astype(np.int64)
        here = tuple(e for e in outlet.edges if level[network[e.target].place] == stage)
        if here or level[population.place] == stage:
            exits.append(Exit(outlet, here, known))
    return exits


def _links(
    network: IntegerNetwork, population: Node, exits: list[Exit], slots: dict[Place, Slot]
) -> Iterator[Link]:
    """Yield the links that enter a population."""
    enters = slots[population.place].enters
    for way in exits:
        start = 0
        for edge in way.edges:
            rows, start = slice(start, start + edge_rows(edge)), start + edge_rows(edge)
            if edge.target != population.entrance:
                continue
            if isinstance(population, Series) and edge.source == population.inner:
                line = slots[population.place].sends
                yield Link(edge, way, line, rows, (0,), False)
                continue
            line = slots[edge.source].sends
            delays = tuple(enters - 1 - line.offset - n * line.period for n in edge.offsets)
            yield Link(edge, way, line, rows, delays, network.leads_back(edge))


def _kept(network: IntegerNetwork, level: dict[Place, int], stage: int) -> set[Place]:
    """Return the populations whose messages the host or a later stage needs."""
    later = {e.source for e in network.edges if level[network[e.target].place] > stage}
    return later | {reading.source for reading in network.readings}


def _accumulators(links: list[Link]) -> list[str]:
    return [place for link in links for place in link.edge.accumulators]


def _reach(group: Group) -> int:
    """Return how many chip steps a sample needs before the next one may begin.

    A frame outside a sample, read as zero, must not be at the chip step of a frame of another.
    """
    works, reach = group.slot.works, [0]
    reach += [line.frames * line.period for line in (works, group.slot.sends)]
    for link in group.links:
        offsets = link.edge.offsets
        first = min(0, *offsets)
        last = link.edge.stride * (works.frames - 1) + max(offsets)
        reach += [(link.line.frames - 1 - first) * link.line.period, last * link.line.period]
    return max(reach)
