"""Plan models of sequences: what each computes, and how many frames it has of everything.

A target that computes nodes on the host by itself runs a network as several models, one for each
:class:`Stage`; a model of the whole network is one stage.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass

from converters.onnx.quantized.arithmetic import OutletKey
from converters.onnx.quantized.component import key_of
from lmu_deploy.core.integer.graph import Component, components, levels, sources
from lmu_deploy.core.integer.network import HostNodes, IntegerNetwork
from lmu_deploy.core.integer.parts import Edge, Place
from lmu_deploy.core.integer.populations import Input, Population
from lmu_deploy.core.integer.reductions import Reduction

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
