"""Schedule of an integer network on Lava: groups of neurons, their links, and when they work.

All synapses of an outlet are one Dense; each receiver uses the rows that belong to it. Every Dense
adds one chip step between sending and receiving: inputs are sent at offset 0, a memory follows its
input by one step, the hidden units follow their memory by one, the readout follows the last layer.
A series sends itself a vector at each chip step between its input and its memory's message, one for
each application of its matrix. A receiver delays what arrives too early by `delay` chip steps.

Without feedback from hidden units into a memory, a sample step takes as many chip steps as the
longest series has applications, and one where there is no series. With feedback it takes one more,
because m[t+1] needs h[t], which needs m[t]. A population with offset o works on sample step t at
chip step ``o + period * t``. After each sample one idle step discards what still arrives.

The plan is deterministic: the target and its worker compute the same one from the same network.
"""

from __future__ import annotations

from dataclasses import dataclass

from lmu_deploy.core.integer.graph import Edge, Outlet, delayed, edges, outlets, populations
from lmu_deploy.core.integer.layers import IntegerHidden, IntegerMemory, SeriesMemory
from lmu_deploy.core.integer.network import IntegerLayer, IntegerNetwork, IntegerReadout


@dataclass(frozen=True)
class Timetable:
    """Chip steps at which each step of each sample is computed.

    Attributes
    ----------
    samples, steps : int
    period : int
        Chip steps per sample step.
    depth : int
        Offset of the last population, the readout.
    """

    samples: int
    steps: int
    period: int
    depth: int

    @property
    def span(self) -> int:
        """Chip steps from the start of one sample to that of the next."""
        return self.steps * self.period + 1

    @property
    def chip_steps(self) -> int:
        """Chip steps that one sample takes from its first input to its last output."""
        return (self.steps - 1) * self.period + self.depth + 1

    @property
    def total(self) -> int:
        """Chip steps of the whole run."""
        return (self.samples - 1) * self.span + self.chip_steps

    def at(self, tick: int, offset: int) -> tuple[int, int] | None:
        """Return the sample and step that a population works on at chip step `tick`, or None."""
        sample, phase = divmod(tick - offset, self.span)
        step, rest = divmod(phase, self.period)
        if rest or step >= self.steps or not 0 <= sample < self.samples:
            return None
        return sample, step


Part = IntegerMemory | SeriesMemory | IntegerHidden | IntegerReadout


@dataclass(frozen=True)
class Link:
    """An edge as its receiver sees it.

    Attributes
    ----------
    edge : Edge
    width : int
        Number of rows of the outlet's Dense.
    rows : slice
        Those of them that are this edge's: all of one slice, then all of the next.
    delay : int
        Chip steps by which the receiver delays what arrives.
    """

    edge: Edge
    width: int
    rows: slice
    delay: int


@dataclass(frozen=True)
class Group:
    """Neurons that work at the same time.

    Attributes
    ----------
    name : str
        Name of the population, or ``readout``.
    neurons : int
    offset : int
        Offset of its messages; of a series, that of its first vector.
    part : IntegerMemory, SeriesMemory, IntegerHidden, IntegerReadout, or None
        None for the input, and for the memory of a series, which the series' group computes.
    links : tuple of Link
        Incoming links.
    outlets : tuple of Outlet
        Outgoing synapses.
    places : tuple of str
        Places of saturations: accumulators, then those of the neurons.
    """

    name: str
    neurons: int
    offset: int
    part: Part | None
    links: tuple[Link, ...]
    outlets: tuple[Outlet, ...]
    places: tuple[str, ...]

    @property
    def has_states(self) -> bool:
        """Whether it has states that can be recorded: m, H or y."""
        return not self.name.endswith(("input", "/series"))


@dataclass(frozen=True)
class Plan:
    """The timetable and the groups, input first, readout last."""

    timetable: Timetable
    groups: tuple[Group, ...]

    @property
    def senders(self) -> tuple[Group, ...]:
        """All groups but the readout, which sends nothing."""
        return self.groups[:-1]


def make_plan(network: IntegerNetwork, samples: int, steps: int) -> Plan:
    """Schedule `network` for a number of samples of equal length."""
    period = max(_applications(lay) + (lay.memory.hidden is not None) for _, lay in network.on_chip)
    offsets = _offsets(network)
    links, parts = _links(network, offsets, period), _parts(network)
    sizes = {name: population.neurons for name, population in populations(network).items()}
    groups = tuple(
        Group(
            name,
            sizes.get(name, network.n_out),
            offset,
            parts.get(name),
            tuple(link for link in links if link.edge.target == name),
            tuple(outlet for outlet in outlets(network) if outlet.source == name),
            (*_accumulators(links, name), *_own_places(name, parts.get(name))),
        )
        for name, offset in offsets.items()
    )
    return Plan(Timetable(samples, steps, period, offsets["readout"]), groups)


def _applications(layer: IntegerLayer) -> int:
    """Return the chip steps from a layer's input to its memory's message."""
    return layer.memory.applications if isinstance(layer.memory, SeriesMemory) else 1


def _offsets(network: IntegerNetwork) -> dict[str, int]:
    """Return the chip step at which each group first works, by name, in the order of sending."""
    found, now = {"input": 0}, 0
    for number, layer in network.on_chip:
        if isinstance(layer.memory, SeriesMemory):
            found[f"layer{number}/series"] = now
        now += _applications(layer)
        found[f"layer{number}/memory"] = now
        if layer.hidden is not None:
            now += 1
            found[f"layer{number}/hidden"] = now
    return found | {"readout": now + 1}


def _parts(network: IntegerNetwork) -> dict[str, Part]:
    found: dict[str, Part] = {"readout": network.chip_readout}
    for number, layer in network.on_chip:
        kind = "series" if isinstance(layer.memory, SeriesMemory) else "memory"
        found[f"layer{number}/{kind}"] = layer.memory
        if layer.hidden is not None:
            found[f"layer{number}/hidden"] = layer.hidden
    return found


def _links(network: IntegerNetwork, offsets: dict[str, int], period: int) -> list[Link]:
    """Return the links of all edges, in the order of `graph.edges`."""
    late, found = set(delayed(network)), {}
    for outlet in outlets(network):
        width = sum(edge.connection.multiplier.size for edge in outlet.edges)
        start = 0
        for edge in outlet.edges:
            stop = start + edge.connection.multiplier.size
            delay = 0
            if not edge.source.endswith("/series"):  # its own vectors are not delayed
                used = offsets[edge.target] + edge.target.endswith("/series")
                delay = used + (period if edge.place in late else 0) - offsets[edge.source] - 1
            found[edge.place] = Link(edge, width, slice(start, stop), delay)
            start = stop
    return [found[edge.place] for edge in edges(network)]


def _accumulators(links: list[Link], target: str) -> list[str]:
    return [
        f"{link.edge.place}/slice{k}"
        for link in links
        for k in range(len(link.edge.connection.slices))
        if link.edge.target == target
    ]


def _own_places(name: str, part: Part | None) -> list[str]:
    if isinstance(part, SeriesMemory):
        memory = name.replace("/series", "/memory")
        own = [f"{name}/{what}" for what in ("drive", "term", "message")]
        return [*own, f"{memory}/state", f"{memory}/message"]
    if isinstance(part, IntegerMemory):
        return [f"{name}/state", f"{name}/message"]
    if isinstance(part, IntegerHidden):
        return [f"{name}/drive", f"{name}/message"]
    return [f"{name}/output"] if part is not None else []
