"""When each population of an IntegerNetwork works, and how long its messages are held.

Every Dense adds one chip step between what is sent and what is received. A population with
`offset` o therefore works on sample step t at chip step o + period * t: inputs are sent at offset
0, a memory follows its input by one, the hidden units follow their memory by one, the readout
follows the last layer. Where a message comes sooner than it is needed, the receiver holds it for
`delay` chip steps. Without feedback from hidden units into a memory, one chip step a sample step
will do; with it, m[t+1] needs h[t], which needs m[t], and memory and hidden units take turns
within two. After each sample one idle step lets what is still on its way arrive unused.

The plan is pure: the target and its worker make the same one from the same network.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lmu_deploy.integer_network import (
    IntegerHidden,
    IntegerMemory,
    IntegerNetwork,
    IntegerReadout,
)
from lmu_deploy.wiring import Wire, delayed, populations, wires


@dataclass(frozen=True)
class Timetable:
    """When each step of each sample is worked on.

    Attributes
    ----------
    samples, steps : int
    period : int
        Chip steps a sample step.
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
        """Sample and step that a population works on at chip step `tick` (from 0), or None."""
        sample, phase = divmod(tick - offset, self.span)
        step, rest = divmod(phase, self.period)
        if rest or step >= self.steps or not 0 <= sample < self.samples:
            return None
        return sample, step


Part = IntegerMemory | IntegerHidden | IntegerReadout


@dataclass(frozen=True)
class Link:
    """A wire, and how many chip steps its receiver holds what arrives before it uses it."""

    wire: Wire
    delay: int


@dataclass(frozen=True)
class Group:
    """Neurons that work at the same time: the input, a memory, hidden units or the readout.

    Attributes
    ----------
    name : str
        Of the population, or ``readout``.
    neurons : int
    offset : int
    part : IntegerMemory, IntegerHidden, IntegerReadout, or None for the input
    links : tuple of Link
        What ends here.
    places : tuple of str
        Where saturations are counted: every accumulator, then the neuron's own.
    fan_out : ndarray, shape (neurons,), int64
        Synapses that a message of each neuron meets.
    """

    name: str
    neurons: int
    offset: int
    part: Part | None
    links: tuple[Link, ...]
    places: tuple[str, ...]
    fan_out: np.ndarray


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
    """Lay out `network` for a number of samples of equal length."""
    feedback = any(layer.memory.hidden is not None for layer in network.layers)
    period = 2 if feedback else 1
    parts: dict[str, Part] = {}
    for number, layer in enumerate(network.layers):
        assert isinstance(layer.memory, IntegerMemory)  # the target refuses the other form
        parts[f"layer{number}/memory"] = layer.memory
        if layer.hidden is not None:
            parts[f"layer{number}/hidden"] = layer.hidden
    parts["readout"] = network.readout
    sizes = {name: population.neurons for name, population in populations(network).items()}
    sizes["readout"] = network.n_out
    # Each group but the first is driven by the one before it in the list.
    offsets = {name: offset for offset, name in enumerate(sizes)}
    every_wire, late = wires(network), set(delayed(network))

    def group(name: str) -> Group:
        links = []
        for wire in every_wire:
            if wire.target == name:
                lag = period if wire.place in late else 0
                links.append(Link(wire, offsets[name] + lag - offsets[wire.source] - 1))
        fans = [wire.connection.fan_out for wire in every_wire if wire.source == name]
        return Group(
            name,
            sizes[name],
            offsets[name],
            parts.get(name),
            tuple(links),
            _places(name, parts.get(name), links),
            np.sum(fans, axis=0) if fans else np.zeros(sizes[name], np.int64),
        )

    table = Timetable(samples, steps, period, offsets["readout"])
    return Plan(table, tuple(group(name) for name in sizes))


def _places(name: str, part: Part | None, links: list[Link]) -> tuple[str, ...]:
    accumulators = [
        f"{link.wire.place}/slice{k}"
        for link in links
        for k in range(len(link.wire.connection.slices))
    ]
    if isinstance(part, IntegerMemory):
        return (*accumulators, f"{name}/state", f"{name}/message")
    if isinstance(part, IntegerHidden):
        return (*accumulators, f"{name}/drive", f"{name}/message")
    return (*accumulators, f"{name}/output") if part is not None else ()
