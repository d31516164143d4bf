"""Data that a generated network keeps between frames: names, ring buffers, counters.

A population keeps the last frames that something reads, in a ring whose length is a power of two.
The length follows from running the counters of all populations without data: a frame is computed
as soon as the frames that it reads are there.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from lmu_deploy.core.errors import InputError
from lmu_deploy.core.integer.graph import Component, components, outlets
from lmu_deploy.core.integer.network import HostNodes, IntegerNetwork
from lmu_deploy.core.integer.parts import Edge, Place
from lmu_deploy.core.integer.populations import Input, Population
from lmu_deploy.core.integer.reductions import Reduction

Key = tuple[Place, int]
"""A source and a threshold."""


def identifier(text: str) -> str:
    """Return a C identifier for a name.

    Examples
    --------
    >>> identifier("block.0/lmu-1")
    'block_0_lmu_1'
    """
    found = re.sub(r"[^A-Za-z0-9_]", "_", text) or "network"
    return f"n{found}" if found[0].isdigit() else found


@dataclass
class Layout:
    """Names and sizes of a network in C.

    Parameters
    ----------
    network : IntegerNetwork

    Attributes
    ----------
    populations : list of Population
        All but the input, in the order of computation.
    components : list of Component
        Without that of the input.
    names : dict of Place to str
        Identifiers of populations, each different.
    depths : dict of (source, threshold) to int
        Lengths of the rings.

    Raises
    ------
    InputError
        When nodes run on the host.
    """

    network: IntegerNetwork
    populations: list[Population] = field(init=False)
    components: list[Component] = field(init=False)
    names: dict[Place, str] = field(init=False)
    depths: dict[Key, int] = field(init=False)

    def __post_init__(self) -> None:
        network = self.network
        if network.on_host:
            nodes = [
                f"{node.name} ({node.operator.describe()})"
                for host in network.on_host
                for node in host.network.nodes
            ]
            raise InputError(
                f"export to c: {', '.join(nodes)} run on the host in float64, and the C code has "
                "integers alone; train the network without them (BatchNorm instead of LayerNorm, "
                "say)."
            )
        self.populations = [
            p for p in network.populations if isinstance(p, Population) and not isinstance(p, Input)
        ]
        self.components = [
            c for c in components(network) if not isinstance(c.populations[0], Input | HostNodes)
        ]
        self.names = {}
        used: set[str] = set()
        for population in network.populations:
            name, number = identifier(str(population.place)), 2
            while name in used:
                name, number = f"{identifier(str(population.place))}_{number}", number + 1
            used.add(name)
            self.names[population.place] = name
        self.depths = self._depths()

    def keys(self, place: Place) -> list[Key]:
        """Return the keys of a source that something reads."""
        return [key for key in self.depths if key[0] == place]

    def ring(self, key: Key) -> str:
        """Return the name of a ring."""
        suffix = f"_t{key[1]}" if key[1] else ""
        return f"{self.names[key[0]]}{suffix}"

    def _depths(self) -> dict[Key, int]:
        keys = {
            (outlet.source, outlet.threshold)
            for outlet in outlets(self.network)
            if outlet.source == self.network[outlet.source].place
        }
        reach = 1 + sum(
            (max(map(abs, e.offsets)) + 1) * e.stride for e in self.network.edges if not e.recurrent
        )
        count = {p.place: 0 for p in self.network.populations}
        deepest = dict.fromkeys(sorted(keys, key=lambda k: (self.network.order(k[0]), k[1])), 1)
        longest = min(4 * reach + 64, 20_000)
        for _ in range(longest):
            count[self.network.input.place] += 1
            for component in self.components:
                first = component.populations[0]
                if isinstance(first, Reduction):
                    if (ready := self._ready(component, count)) > 0:
                        self._measure(component.outside, count[first.place], count, deepest)
                        count[first.place] += ready
                    continue
                while self._ready(component, count) > 0:
                    n = count[first.place]
                    for population in component.populations:
                        count[population.place] += 1
                    self._measure((*component.outside, *component.inside), n, count, deepest)
        return {key: 1 << (depth - 1).bit_length() for key, depth in deepest.items()}

    def _ready(self, component: Component, count: dict[Place, int]) -> int:
        done = count[component.populations[0].place]
        there = [edge.frames(count[edge.source], ended=False) for edge in component.outside]
        return min(there) - done

    def _measure(
        self, edges: tuple[Edge, ...], n: int, count: dict[Place, int], deepest: dict[Key, int]
    ) -> None:
        """Widen the rings of what frame n reads."""
        for edge in edges:
            key = edge.source, edge.connection.threshold
            first = max(n * edge.stride + min(edge.offsets), 0)
            deepest[key] = max(deepest[key], count[edge.source] - first)
