"""Plan models of sequences, and compute one frame of each component.

A target that computes nodes on the host by itself runs a network as several models, one for each
:class:`Stage`; a model of the whole network is one stage. A :class:`ComponentStep` is one frame of
populations that feed back into each other, or of one that does not: the body of a Scan in a model
of sequences, and a part of a model of one step.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from converters.onnx.quantized.arithmetic import (
    MESSAGE,
    Numbers,
    OutletKey,
    Updated,
    held,
)
from lmu_deploy.core.integer.graph import Component, components, levels, sources
from lmu_deploy.core.integer.network import HostNodes, IntegerNetwork
from lmu_deploy.core.integer.parts import Edge, Place
from lmu_deploy.core.integer.populations import Input, Population
from lmu_deploy.core.integer.reductions import Reduction

Part = tuple[Place, str]
"""A population, and a part of it: a state, or the value of its messages at receivers."""


@dataclass(frozen=True)
class Carried:
    """A value that a population carries from frame to frame.

    Attributes
    ----------
    part : (Place, str)
    size : int
    element : int
        ONNX element type.
    first : ndarray, shape (size,), or None
        Value before the first frame; None if zero.
    """

    part: Part
    size: int
    element: int
    first: np.ndarray | None


class ComponentStep:
    """Adds one frame of a component.

    Parameters
    ----------
    network : IntegerNetwork
    component : Component
    thresholds : mapping of Place to collection of int
        Thresholds under which the populations send.

    Attributes
    ----------
    populations : tuple of Population
    """

    def __init__(
        self,
        network: IntegerNetwork,
        component: Component,
        thresholds: Mapping[Place, Collection[int]],
    ) -> None:
        self._network, self._component, self._thresholds = network, component, thresholds
        self.populations = tuple(p for p in component.populations if isinstance(p, Population))

    def states(self, numbers: Numbers) -> list[Carried]:
        """Return the states that the populations themselves keep, in their order."""
        found = []
        for p in self.populations:
            rule = numbers.rule(p)
            for state, size in rule.states.items():
                found.append(Carried((p.place, state), size, numbers.real, rule.first(state)))
        return found

    def messages(self, numbers: Numbers) -> list[Carried]:
        """Return the messages of the frame before that are needed, and those that are held."""
        found = []
        back = {key_of(edge) for edge in self._component.inside if edge.recurrent}
        for p in self.populations:
            element, rule = numbers.message_type(p.message), numbers.rule(p)
            for t in sorted({0, *self._thresholds[p.place]}):
                if t or rule.reads_message or (p.place, 0) in back:
                    part = p.place, held(t)
                    found.append(Carried(part, p.size, element, p.first_message))
        return found

    def carried(self, numbers: Numbers) -> list[Carried]:
        """Return all that is carried from frame to frame."""
        return [*self.states(numbers), *self.messages(numbers)]

    def outside(
        self, numbers: Numbers, population: Population, messages: Mapping[Edge, str]
    ) -> str | None:
        """Add the drive of a population from outside, and its bias; None if there is neither.

        Parameters
        ----------
        numbers : Numbers
        population : Population
        messages : mapping of Edge to str
            What the edges from outside carry.
        """
        into = [e for e in self._component.outside if e.target == population.entrance]
        terms = self._drives(numbers, population, [(edge, messages[edge]) for edge in into])
        if (bias := numbers.bias(population)) is not None and terms:
            terms.append(bias)
        return numbers.total(terms, f"{population.entrance}/outside") if terms else None

    def _drives(
        self, numbers: Numbers, population: Population, given: Iterable[tuple[Edge, str]]
    ) -> list[str]:
        terms = []
        for edge, messages in given:
            form = self._network[edge.source].message
            assert form is not None
            drive = numbers.drive(edge, messages, form, population)
            terms.append(numbers.in_rows(edge, drive, population))
        return terms

    def drive(
        self,
        numbers: Numbers,
        population: Population,
        outside: str | None,
        before: Mapping[Part, str],
        now: Mapping[Part, str],
    ) -> str:
        """Add the whole drive of a population."""
        given = []
        for edge in self._component.inside:
            if edge.target == population.entrance:
                source = edge.source, held(edge.connection.threshold)
                given.append((edge, (before if edge.recurrent else now)[source]))
        terms = self._drives(numbers, population, given)
        if outside is not None:
            terms.insert(0, outside)
        elif (bias := numbers.bias(population)) is not None:
            terms.append(bias)
        return numbers.total(terms, f"{population.entrance}/total")

    def advance(
        self,
        numbers: Numbers,
        outside: Mapping[Place, str | None],
        before: Mapping[Part, str],
    ) -> tuple[dict[Part, str], dict[Place, Updated]]:
        """Add one frame of all populations.

        Parameters
        ----------
        numbers : Numbers
        outside : mapping of Place to str or None
            Drives from outside.
        before : mapping of (Place, str) to str
            What is carried.

        Returns
        -------
        now : dict of (Place, str) to str
            States after the frame, and messages under all thresholds.
        updated : dict of Place to Updated
        """
        now: dict[Part, str] = {}
        updated = {}
        for p in self.populations:
            drive = self.drive(numbers, p, outside[p.place], before, now)
            own = {part: tensor for (place, part), tensor in before.items() if place == p.place}
            found = updated[p.place] = numbers.rule(p).update(drive, own)
            now.update({(p.place, state): tensor for state, tensor in found.after.items()})
            now[p.place, MESSAGE] = found.message
            for t in self._thresholds[p.place]:
                if t:
                    part = p.place, held(t)
                    now[part] = numbers.hold((p.place, t), p.message, found.message, before[part])
        return now, updated


def key_of(edge: Edge) -> OutletKey:
    """Return source and threshold of an edge."""
    return edge.source, edge.connection.threshold


def all_thresholds(
    network: IntegerNetwork, more: Iterable[OutletKey] = ()
) -> dict[Place, list[int]]:
    """Return the thresholds under which every population sends, ascending."""
    found: dict[Place, set[int]] = {p.place: set() for p in network.populations}
    for place, threshold in (*(key_of(edge) for edge in network.edges), *more):
        if place in found:
            found[place].add(threshold)
    return {place: sorted(own) for place, own in found.items()}


TIME, ONE = "time", "one"
"""Lengths: as many frames as the input has, and one."""


@dataclass(frozen=True)
class Stage:
    """Components of a network that one model computes.

    Attributes
    ----------
    hosts : tuple of HostNodes
        What the host computes before.
    entries : tuple of Input or HostNodes
        Whose messages the model is given.
    components : tuple of Component
    given, taken : tuple of (source, threshold)
        Messages of earlier stages that it needs, and its own that are needed elsewhere: by later
        stages or by the host.
    """

    hosts: tuple[HostNodes, ...]
    entries: tuple[Input | HostNodes, ...]
    components: tuple[Component, ...]
    given: tuple[OutletKey, ...] = ()
    taken: tuple[OutletKey, ...] = ()


def stages(network: IntegerNetwork) -> list[Stage]:
    """Divide a network where it passes through the host, which computes between the stages."""
    level = levels(network)
    needed: dict[OutletKey, set[int]] = {}
    for edge in network.edges:
        needed.setdefault(key_of(edge), set()).add(level[network[edge.target].place])
    for reading in network.readings:
        source = network[reading.source]
        if isinstance(source, Population) and not isinstance(source, Input):
            needed.setdefault((reading.source, 0), set()).add(_HOST)
    return [_stage(network, number, level, needed) for number in range(max(level.values()) + 1)]


def whole_stage(network: IntegerNetwork) -> Stage:
    """Return a whole network, nodes on the host included, as one stage."""
    parts = tuple(c for c in components(network) if c.populations[0] is not network.input)
    return Stage((), (network.input,), parts)


_HOST = -1


def _stage(
    network: IntegerNetwork,
    number: int,
    level: Mapping[Place, int],
    needed: Mapping[OutletKey, set[int]],
) -> Stage:
    here = [c for c in components(network) if level[c.populations[0].place] == number]
    sent = sources(network)
    first = [c.populations[0] for c in here]
    entries = [p for p in first if isinstance(p, Input | HostNodes) and p.place in sent]
    return Stage(
        tuple(p for p in first if isinstance(p, HostNodes)),
        tuple(entries),
        tuple(c for c in here if not isinstance(c.populations[0], Input | HostNodes)),
        tuple(k for k, to in needed.items() if number in to and level[k[0]] < number),
        tuple(k for k, to in needed.items() if level[k[0]] == number and to - {number}),
    )


def lengths(network: IntegerNetwork) -> dict[Place, Hashable]:
    """Return what the number of frames of every population depends on."""
    found: dict[Place, Hashable] = {}
    for component in components(network):
        first = component.populations[0]
        into = {driven(found[e.source], e) for e in component.outside}
        if isinstance(first, Input):
            length: Hashable = TIME
        elif isinstance(first, HostNodes):
            read = {found[r.source] for r in network.readings if r.target == first.place}
            same = all(first.network.frames(n) == n for n in SOME_LENGTHS)
            length = next(iter(read)) if same and len(read) == 1 else (first.place, *read)
        elif isinstance(first, Reduction):
            length = ONE
        else:
            length = next(iter(into)) if len(into) == 1 else frozenset(into)
        found.update({p.place: length for p in component.populations})
    return found


SOME_LENGTHS = range(1, 65)
"""Lengths that tell whether nodes give as many frames as they take."""


def driven(length: Hashable, edge: Edge) -> Hashable:
    """Return what the number of frames depends on that an edge can drive."""
    more = edge.after - max(edge.offsets)
    return length if edge.stride == 1 and not more else (length, more, edge.stride)


def last_only(
    network: IntegerNetwork, stage: Stage, lengths: Mapping[Place, Hashable]
) -> set[Place]:
    """Return the populations of which the last frame alone is needed, and can be computed alone."""
    found: set[Place] = set()
    leaving: dict[Place, list[Edge]] = {p.place: [] for p in network.populations}
    for edge in network.edges:
        leaving[edge.source].append(edge)
    taken = {place for place, _ in stage.taken} | {r.source for r in network.readings}
    for component in reversed(stage.components):
        place = component.populations[0].place
        needed = place == network.output or (
            bool(leaving[place])
            and place not in taken
            and all(
                e.target in found and e.offsets == (0,) and e.stride == 1 and not key_of(e)[1]
                for e in leaving[place]
            )
        )
        into = {driven(lengths[e.source], e) for e in component.outside}
        if needed and component.stateless and into == {lengths[place]}:
            found.add(place)
    return found
