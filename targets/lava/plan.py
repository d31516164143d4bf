"""What will run where and when: an IntegerNetwork laid out as populations on a timetable.

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
    Connection,
    IntegerHidden,
    IntegerMemory,
    IntegerNetwork,
    IntegerReadout,
)


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


@dataclass(frozen=True)
class Link:
    """A connection that ends in a population.

    Attributes
    ----------
    source : str
        Name of the population that sends.
    place : str
        What its accumulators are called, up to ``/slice<k>``.
    connection : Connection
    delay : int
        Chip steps that the receiver holds what arrives.
    """

    source: str
    place: str
    connection: Connection
    delay: int


@dataclass(frozen=True)
class Population:
    """Neurons that work at the same time.

    Attributes
    ----------
    name : str
    neurons : int
    offset : int
    part : IntegerMemory, IntegerHidden, IntegerReadout, or None for the input
    links : tuple of Link
        Connections that end here.
    places : tuple of str
        Where saturations are counted: every accumulator, then the states of the neuron.
    fan_out : ndarray, shape (neurons,), int64
        Synapses that a message of each neuron meets.
    """

    name: str
    neurons: int
    offset: int
    part: IntegerMemory | IntegerHidden | IntegerReadout | None
    links: tuple[Link, ...]
    places: tuple[str, ...]
    fan_out: np.ndarray


@dataclass(frozen=True)
class Plan:
    """The timetable and the populations, input first, readout last."""

    timetable: Timetable
    populations: tuple[Population, ...]


def make_plan(network: IntegerNetwork, samples: int, steps: int) -> Plan:
    """Lay out `network` for a number of samples of equal length."""
    feedback = any(layer.memory.hidden is not None for layer in network.layers)
    period = 2 if feedback else 1
    before = _Stage("input", 0)
    stages: list[tuple[_Stage, int, _Part, list[Link]]] = [(before, network.n_in, None, [])]
    for number, layer in enumerate(network.layers):
        memory = _Stage(f"layer{number}/memory", before.offset + 1)
        hidden = _Stage(f"layer{number}/hidden", before.offset + 2)
        links = [
            memory.link(memory, "recurrent", layer.memory.recurrent, period),
            memory.link(before, "input", layer.memory.input),
        ]
        if layer.memory.hidden is not None:
            links.append(memory.link(hidden, "hidden", layer.memory.hidden, period))
        stages.append((memory, layer.memory.size, layer.memory, links))
        if layer.hidden is None:
            before = memory
            continue
        links = [hidden.link(memory, "memory", layer.hidden.memory)]
        if layer.hidden.input is not None:
            links.append(hidden.link(before, "input", layer.hidden.input))
        if layer.hidden.recurrent is not None:
            links.append(hidden.link(hidden, "recurrent", layer.hidden.recurrent, period))
        stages.append((hidden, layer.hidden.units, layer.hidden, links))
        before = hidden
    readout = _Stage("readout", before.offset + 1)
    links = [readout.link(before, "", network.readout.connection)]
    stages.append((readout, network.n_out, network.readout, links))
    every_link = [link for *_, ends in stages for link in ends]
    populations = tuple(
        Population(
            stage.name,
            neurons,
            stage.offset,
            part,
            tuple(ends),
            _places(stage.name, part, ends),
            _fan_out(stage.name, neurons, every_link),
        )
        for stage, neurons, part, ends in stages
    )
    return Plan(Timetable(samples, steps, period, readout.offset), populations)


_Part = IntegerMemory | IntegerHidden | IntegerReadout | None


@dataclass(frozen=True)
class _Stage:
    name: str
    offset: int

    def link(self, source: _Stage, name: str, connection: Connection, lag: int = 0) -> Link:
        """Lead a connection here from `source`, whose messages are used `lag` chip steps later."""
        place = f"{self.name}/{name}" if name else self.name
        return Link(source.name, place, connection, self.offset + lag - source.offset - 1)


def _places(name: str, part: _Part, links: list[Link]) -> tuple[str, ...]:
    accumulators = [
        f"{link.place}/slice{k}" for link in links for k in range(len(link.connection.slices))
    ]
    if isinstance(part, IntegerMemory):
        return (*accumulators, f"{name}/state", f"{name}/message")
    if isinstance(part, IntegerHidden):
        return (*accumulators, f"{name}/drive", f"{name}/message")
    if isinstance(part, IntegerReadout):
        return (*accumulators, f"{name}/output")
    return ()


def _fan_out(name: str, neurons: int, links: list[Link]) -> np.ndarray:
    total = np.zeros(neurons, dtype=np.int64)
    for link in links:
        if link.source == name:
            total = total + link.connection.fan_out
    return total
