r"""Chip steps at which populations work: stages, rates, and delays that align all branches.

What the host computes divides a network into stages. The host works before a stage, on whole
sequences; the populations of a stage are one run of Lava, which the messages of the host and of
earlier stages enter as inputs do.

A synapse adds one chip step between sending and receiving. Let an edge have the stride s and the
offsets d, and let its source send frame n of a sample at chip step ``a + n p``. Then its target,
whose period is ``s p``, can compute frame n at ``b + n s p`` if

.. math:: b \ge a + 1 + p \max d .

Every population works as early as all edges that enter it permit. What arrives before, on other
edges or other taps, is delayed by ``b - a - 1 - d p`` chip steps, the same at every frame. Messages
of the frame before have d = -1, which bounds p from below where populations feed back: with one
population that is one chip step for a frame, with two it is two, and a series takes one for each
application of its matrix. These loops determine how many chip steps a step of the input takes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

from lmu_deploy.core.integer.graph import (
    Component,
    components,
    frame_counts,
    levels,
    sources,
    taken_frames,
)
from lmu_deploy.core.integer.memories import Series
from lmu_deploy.core.integer.network import HostNodes, IntegerNetwork, Node
from lmu_deploy.core.integer.parts import Place
from lmu_deploy.core.integer.populations import Input, Population
from lmu_deploy.core.integer.reductions import Reduction

Sender = Place | tuple[Place]
"""A population, or in a tuple the one frame of a reduction, which has a different rate."""


@dataclass(frozen=True)
class Timeline:
    """Chip steps of the frames of a sample: frame n is at ``offset + n * period``."""

    offset: int
    period: int
    frames: int

    @property
    def last(self) -> int:
        """Chip step of the last frame; the offset where there are no frames."""
        return self.offset + max(self.frames - 1, 0) * self.period


@dataclass(frozen=True)
class Timetable:
    """Chip steps of all samples, of which each begins before the one before has ended.

    Attributes
    ----------
    samples, steps : int
    period : int
        Chip steps per step of the input.
    span : int
        Chip steps from the start of one sample to that of the next: so many that no frame outside
        a sample, which counts as zero, is one of another sample.
    chip_steps : int
        Chip steps that one sample takes from its first input to its last message.
    """

    samples: int
    steps: int
    period: int
    span: int
    chip_steps: int

    @property
    def total(self) -> int:
        """Chip steps of the whole run."""
        return (self.samples - 1) * self.span + self.chip_steps

    def at(self, tick: int, line: Timeline) -> tuple[int, int] | None:
        """Return the sample and the frame that a timeline has at chip step `tick`, or None."""
        sample, phase = divmod(tick - line.offset, self.span)
        frame, rest = divmod(phase, line.period)
        if rest or frame >= line.frames or not 0 <= sample < self.samples:
            return None
        return sample, frame


@dataclass(frozen=True)
class Slot:
    """When a population works.

    Attributes
    ----------
    enters : int
        Offset at which it takes what its edges deliver.
    works : Timeline
        Frames that it takes: as `enters`, but for a series, which sends its first vector a chip
        step before.
    sends : Timeline
        Frames that it sends.
    """

    enters: int
    works: Timeline
    sends: Timeline


def stage_count(network: IntegerNetwork) -> int:
    """Return the number of stages: of runs of Lava, one after the other."""
    level, sending = levels(network), sources(network)
    working = [
        level[p.place]
        for p in network.populations
        if p.place in sending or not isinstance(p, Input | HostNodes)
    ]
    return max(working, default=-1) + 1


def frame_rates(
    network: IntegerNetwork, taken: dict[Place, int]
) -> tuple[dict[Sender, Fraction], list[Place]]:
    """Return the steps between two frames of every population, and where edges disagree.

    Frames from the host have the rate of those that they meet. So has the one frame that a
    reduction sends; the rate of a reduction itself is that of the frames that it takes. A
    population that takes one frame or none has no rate that edges could disagree on.

    Parameters
    ----------
    network : IntegerNetwork
    taken : dict of Place to int
        From :func:`taken_frames`.

    Returns
    -------
    rates : dict of sender to Fraction
        See :func:`sender`.
    torn : list of Place
        Populations that receive frames of different rates.
    """
    senders = {p.place: sender(p) for p in network.populations}
    ratios: dict[Sender, list[tuple[Sender, Fraction, Place]]] = {}
    for place, sent in senders.items():
        ratios[place], ratios[sent] = [], []
    for edge in network.edges:
        source, target = senders[network[edge.source].place], network[edge.target].place
        if taken[target] > 1 or edge.recurrent:
            ratios[source].append((target, Fraction(edge.stride), target))
            ratios[target].append((source, Fraction(1, edge.stride), target))
    rates: dict[Sender, Fraction] = {}
    torn: dict[Place, None] = {}
    for first in ratios:
        waiting = [] if first in rates else [first]
        rates.setdefault(first, Fraction(1))
        while waiting:
            here = waiting.pop()
            for there, ratio, target in ratios[here]:
                if there not in rates:
                    rates[there] = rates[here] * ratio
                    waiting.append(there)
                elif rates[there] != rates[here] * ratio:
                    torn[target] = None
    return rates, list(torn)


def sender(population: Node) -> Sender:
    """Return the key of the frames that a population sends."""
    single = isinstance(population, Reduction)
    return (population.place,) if single else population.place


def make_slots(network: IntegerNetwork, steps: int, stage: int) -> tuple[dict[Place, Slot], int]:
    """Schedule one stage for sequences of `steps` steps.

    Returns
    -------
    slots : dict of Place to Slot
        Of all populations of the stage, and of all from outside that send to it.
    period : int
        Chip steps per step of the input.
    """
    level, sent = levels(network), frame_counts(network, steps)
    taken = taken_frames(network, steps)
    parts = [
        part
        for part in components(network)
        if not isinstance(part.populations[0], Input | HostNodes)
        and level[part.populations[0].place] == stage
    ]
    outside = _outside(network, parts, stage, level)
    members = [p for part in parts for p in part.populations]
    rates = _whole_rates(
        frame_rates(network, taken)[0],
        {p.place for p in members}
        | {sender(p) for p in members}
        | {sender(network[p]) for p in outside},
    )
    period = max([1, *(_shortest_period(network, part, rates) for part in parts)])
    slots = {}
    for place in outside:
        line = Timeline(0, period * rates[sender(network[place])], sent[place])
        slots[place] = Slot(0, line, line)
    for part in parts:
        enter, send = _within(part)
        base = 1
        for edge in part.outside:
            line = slots[network[edge.source].place].sends
            ready = line.offset + 1 + max(edge.offsets) * line.period
            base = max(base, ready - enter[network[edge.target].place])
        for population in part.populations:
            place, enters = population.place, base + enter[population.place]
            first = enters - isinstance(population, Series)
            works = Timeline(first, period * rates[place], taken[place])
            at = works.last if isinstance(population, Reduction) else base + send[place]
            sends = Timeline(at, period * rates[sender(population)], sent[place])
            slots[place] = Slot(enters, works, sends)
    return slots, period


def _outside(
    network: IntegerNetwork, parts: list[Component], stage: int, level: dict[Place, int]
) -> list[Place]:
    """Return what sends into a stage from outside, and what begins to send in it, in order."""
    members = {p.place for part in parts for p in part.populations}
    found = {network[edge.source].place for part in parts for edge in part.outside} - members
    for place in sources(network):
        if isinstance(network[place], Input | HostNodes) and level[place] == stage:
            found.add(place)
    return sorted(found, key=network.order)


def _whole_rates(rates: dict[Sender, Fraction], wanted: set[Sender]) -> dict[Sender, int]:
    """Return some rates as whole numbers without a common factor."""
    scale = math.lcm(*(rates[each].denominator for each in wanted))
    whole = {each: int(rates[each] * scale) for each in wanted}
    common = math.gcd(*whole.values()) or 1
    return {each: rate // common for each, rate in whole.items()}


def _within(part: Component) -> tuple[dict[Place, int], dict[Place, int]]:
    """Return when populations of a component take and send a frame, from its first on."""
    enter: dict[Place, int] = {}
    send: dict[Place, int] = {}
    for population in part.populations:
        assert isinstance(population, Population)
        place, entrance = population.place, population.entrance
        into = [send[e.source] for e in part.inside if e.target == entrance and e.source in send]
        enter[place] = max(into, default=-1) + 1
        last = population.applications - 1 if isinstance(population, Series) else 0
        send[place] = enter[place] + last
    return enter, send


def _shortest_period(network: IntegerNetwork, part: Component, rates: dict[Sender, int]) -> int:
    """Return the chip steps per step of the input that the loops of a component need."""
    enter, send = _within(part)
    needed = [p.applications for p in part.populations if isinstance(p, Series)]
    needed += [
        send[edge.source] - enter[network[edge.target].place] + 1
        for edge in part.inside
        if edge.recurrent
    ]
    rate = rates[part.populations[0].place]
    return max((-(-chip_steps // rate) for chip_steps in needed), default=1)
