"""Convert populations and edges to a model of one step, in integers.

The states are inputs and outputs, named after places, such as ``lmu_1/memory/state``. A step of the
model is a step of the network's input. A population has a frame at every step, or, behind a stride,
at every few steps; behind a convolution that reads later frames it has its first frame some steps
late. :class:`Timing` says when, which is the same for all sequences. Frames that are needed later
are states too. Where a population has no frame, its states stay as they are.

A reduction over time gives what it would if the sequence ended here, and so does all behind it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from onnx import TensorProto

from converters.onnx.graph import Dimension
from converters.onnx.models import ahead
from converters.onnx.quantized.arithmetic import (
    MESSAGE,
    OutletKey,
    ReductionRule,
    held,
)
from converters.onnx.quantized.hosts import doubled, encoded, host_step, in_channel_units, mapped
from converters.onnx.quantized.integers import Integers
from converters.onnx.quantized.stages import (
    SOME_LENGTHS,
    Carried,
    ComponentStep,
    Part,
    all_thresholds,
    key_of,
)
from lmu_deploy.core.errors import InputError
from lmu_deploy.core.integer.graph import Component, components
from lmu_deploy.core.integer.network import HostNodes, IntegerNetwork
from lmu_deploy.core.integer.parts import Edge, Place
from lmu_deploy.core.integer.populations import Input
from lmu_deploy.core.integer.reductions import Reduction

_LAST = 2**63 - 1


@dataclass(frozen=True)
class Timing:
    """When a population has a frame: at step ``period * n + late`` its frame n.

    Attributes
    ----------
    period, late : int
    final : bool
        Whether its messages are those of a sequence that ends here.
    """

    period: int = 1
    late: int = 0
    final: bool = False

    def lag(self, offset: int, source: Timing) -> int:
        """Return how many frames before its latest a source's frame is that an offset reads."""
        return (self.late - source.late) // source.period - offset

    def meets(self, source: Timing) -> bool:
        """Return whether the source has a frame whenever the target has one."""
        return (self.late - source.late) % source.period == 0


def timings(network: IntegerNetwork) -> tuple[dict[Place, Timing], dict[Place, Timing]]:
    """Return when every population has a frame, and when every reduction takes one.

    Raises
    ------
    InputError
        When there is no such rule: frames behind the sequence are read, or branches of different
        strides meet. All edges of that kind are named.
    """
    behind = [
        edge.place
        for edge in network.edges
        if not network.leads_back(edge) and edge.after > min(0, max(edge.offsets))
    ]
    if behind:
        raise InputError(
            f"one step of this network cannot be exported, because {', '.join(behind)} "
            f"{'reads' if len(behind) == 1 else 'read'} steps behind the end of the sequence; "
            "export the whole sequence (onnx-int), or train it with causal padding."
        )
    found: dict[Place, Timing] = {network.input.place: Timing()}
    intakes: dict[Place, Timing] = {}
    for component in components(network):
        first = component.populations[0]
        if isinstance(first, Input):
            continue
        if isinstance(first, HostNodes):
            found[first.place] = _host_timing(network, first, found)
            continue
        timing = _timing(component, found)
        if isinstance(first, Reduction):
            intakes[first.place], timing = timing, Timing(1, timing.late, True)
        found.update({p.place: timing for p in component.populations})
    return found, intakes


def _timing(component: Component, known: Mapping[Place, Timing]) -> Timing:
    first = component.populations[0]
    sources = [known[edge.source] for edge in component.outside]
    finals = {source.final for source in sources}
    periods = {
        source.period * edge.stride for edge, source in zip(component.outside, sources, strict=True)
    }
    if len(finals) > 1 or (len(periods) > 1 and finals == {False}):
        places = ", ".join(edge.place for edge in component.outside)
        raise InputError(
            f"one step of this network cannot be exported, because {places} bring frames of "
            f"different strides to {first.place}; export the whole sequence (onnx-int)."
        )
    if finals == {True}:
        return Timing(1, max(source.late for source in sources), True)
    late = max(
        source.late + source.period * max(0, max(edge.offsets) - min(edge.after, 0))
        for edge, source in zip(component.outside, sources, strict=True)
    )
    return Timing(periods.pop(), late)


def _host_timing(network: IntegerNetwork, host: HostNodes, known: Mapping[Place, Timing]) -> Timing:
    """Return when nodes on the host have a frame: whenever all that they read have one."""
    read = [known[r.source] for r in network.readings if r.target == host.place]
    nodes = ", ".join(f"{n.name} ({n.operator.describe()})" for n in host.network.nodes)
    framewise = all(node.operator.framewise for node in host.network.nodes)
    in_step = all(host.network.frames(n) == n for n in SOME_LENGTHS) and not ahead(host.network)
    if len(set(read)) > 1 or not (framewise if read[0].final else in_step):
        raise InputError(
            f"one step of this network cannot be exported, because {nodes} on the host "
            "need frames of other steps; export the whole sequence (onnx-int)."
        )
    return read[0]


class StepWriter:
    """Writes one step of a network into a graph.

    Parameters
    ----------
    network : IntegerNetwork
    numbers : Integers
    """

    def __init__(self, network: IntegerNetwork, numbers: Integers) -> None:
        self._network, self._numbers = network, numbers
        self._timings, self._intakes = timings(network)
        self._thresholds = all_thresholds(network)
        self._names = {name: numbers.names.take(name) for name in ("input", "output", "ready")}
        self._messages: dict[OutletKey, str] = {}
        self._frames: dict[OutletKey, str] = {}
        self._after: dict[str, tuple[str, list[int], int]] = {}
        self._flags: dict[Timing, str | None] = {}
        self._reals: dict[Place, str] = {}
        self._host_states: dict[str, list[Dimension]] = {}
        read = {reading.source for reading in network.readings}
        for place in read:
            self._thresholds[place] = sorted({0, *self._thresholds[place]})
        real = network.input.place in read and not network.input.tokens
        shape: list[Dimension] = ["batch", network.input.features]
        element = TensorProto.DOUBLE if real else numbers.input_type
        x = numbers.graph.input(self._names["input"], shape, element)
        self._batch = numbers.add("Shape", [x], "batch_size", start=0, end=1)
        every = [*self._timings.values(), *self._intakes.values()]
        timed = [(t.period, t.late) for t in every]
        self._cycle = max(late for _, late in timed), math.lcm(*(period for period, _ in timed))
        self._step = self._clock() if self._cycle != (0, 1) else ""
        if real:
            x = in_channel_units(numbers, "input", x, network.input)
            self._reals[network.input.place] = x
            self._enter(network.input, encoded(numbers, "input", x, network.input.message))
        else:
            self._enter(network.input, numbers.receive(x, network.input))

    # States

    def _state(self, name: str, shape: list[int], element: int) -> str:
        """Declare a state; return its value before the step."""
        name = self._numbers.names.take(name, ".next")
        return self._numbers.graph.input(name, ["batch", *shape], element)

    def _next(
        self, state: str, after: str, due: str | None, shape: list[int], element: int
    ) -> None:
        """Say what a state is after a step, at which it stays as it is unless it is due."""
        if due is not None:
            if len(shape) > 1:
                axes = self._numbers.whole(2)
                due = self._numbers.add("Unsqueeze", [due, axes], f"{state}/due")
            after = self._numbers.add("Where", [due, after, state], f"{state}/after")
        self._after[state] = after, shape, element

    def _clock(self) -> str:
        """Declare the number of the step; once all have begun, it goes round in a cycle."""
        numbers, (late, period) = self._numbers, self._cycle
        step = self._state("step", [1], TensorProto.INT32)
        following = numbers.add("Add", [step, self._whole(1)], "step/following")
        ends = numbers.add("Equal", [following, self._whole(late + period)], "step/ends")
        following = numbers.add("Where", [ends, self._whole(late), following], "step/in_cycle")
        self._next(step, following, None, [1], TensorProto.INT32)
        return step

    def _whole(self, value: int) -> str:
        return self._numbers.constant(f"step/{value}", np.array(value, dtype=np.int32))

    def _due(self, timing: Timing) -> str | None:
        """Return whether populations have a frame at this step, (batch, 1); None: always."""
        if timing not in self._flags:
            self._flags[timing] = self._flag(timing)
        return self._flags[timing]

    def _flag(self, timing: Timing) -> str | None:
        numbers, begun = self._numbers, None
        name = f"due/{timing.period}/{timing.late}"
        if timing.late:
            begun = numbers.add(
                "Greater", [self._step, self._whole(timing.late - 1)], f"{name}/begun"
            )
        if timing.period == 1:
            return begun
        passed = numbers.add("Sub", [self._step, self._whole(timing.late)], f"{name}/passed")
        rest = numbers.add("Mod", [passed, self._whole(timing.period)], f"{name}/rest")
        due = numbers.add("Equal", [rest, self._whole(0)], name)
        return due if begun is None else numbers.add("And", [begun, due], f"{name}/due")

    # Populations

    def _enter(self, population: Input | HostNodes, messages: str) -> None:
        """Send the messages of the input, or of the host."""
        numbers, place, form = self._numbers, population.place, population.message
        assert form is not None
        timing = self._timings[place]
        for t in self._thresholds[place]:
            self._messages[place, t] = messages
            if t:
                part = Carried((place, held(t)), population.size, TensorProto.INT32, None)
                names, before = self._before([part], timing)
                found = numbers.hold((place, t), form, messages, before[part.part])
                self._keep_states([part], names, {part.part: found}, self._due(timing))
                self._messages[place, t] = found
            self._keep((place, t))

    def _on_host(self, host: HostNodes) -> None:
        """Add nodes on the host, in float64."""
        numbers, network, values = self._numbers, self._network, []
        for reading in network.readings:
            if reading.target != host.place:
                continue
            source, name = network[reading.source], f"{host.place}/{reading.source}"
            real = self._reals.get(reading.source)
            if real is None:
                assert source.message is not None
                real = doubled(numbers, name, self._messages[source.place, 0], source.message)
            values.append(mapped(numbers, name, real, reading.matrix))
        timing, x = self._timings[host.place], numbers.total(values, f"{host.place}/read")
        found, states = host_step(numbers, host, x, self._due(timing))
        self._host_states.update(states)
        if host.message is None:
            self._reals[host.place] = found
        else:
            self._enter(host, encoded(numbers, str(host.place), found, host.message))
        if host.place == network.output:
            self._answer(found, TensorProto.DOUBLE)

    def add(self, component: Component) -> None:
        """Add a component."""
        if isinstance(component.populations[0], HostNodes):
            self._on_host(component.populations[0])
            return
        numbers, timing = self._numbers, self._timings[component.populations[0].place]
        step = ComponentStep(self._network, component, self._thresholds)
        windows = {edge: self._window(edge) for edge in component.outside}
        outside = {p.place: step.outside(numbers, p, windows) for p in step.populations}
        if isinstance(component.populations[0], Reduction):
            self._reduce(step, component.populations[0], outside)
            return
        names, before = self._before(step.carried(numbers), timing)
        now, updated = step.advance(numbers, outside, before)
        self._keep_states(step.carried(numbers), names, now, self._due(timing))
        for p in step.populations:
            now[p.place, MESSAGE] = updated[p.place].message
            for t in self._thresholds[p.place]:
                self._messages[p.place, t] = now[p.place, held(t)]
                self._keep((p.place, t))
            if p.place == self._network.output:
                self._answer(updated[p.place].message)

    def _before(
        self, carried: Sequence[Carried], timing: Timing
    ) -> tuple[dict[Part, str], dict[Part, str]]:
        """Declare states; return their names, and what is carried before the step.

        What is computed for a sequence that ends here begins anew at every step.
        """
        names: dict[Part, str] = {}
        before: dict[Part, str] = {}
        for each in carried:
            if timing.final:
                before[each.part] = self._first(each)
                continue
            place, part = each.part
            names[each.part] = self._state(f"{place}/{part}", [each.size], each.element)
            before[each.part] = self._shifted("Add", names[each.part], each)
        return names, before

    def _keep_states(
        self,
        carried: Sequence[Carried],
        names: Mapping[Part, str],
        now: Mapping[Part, str],
        due: str | None,
    ) -> None:
        for each in carried:
            if each.part in names:
                after = self._shifted("Sub", now[each.part], each)
                self._next(names[each.part], after, due, [each.size], each.element)

    def _first(self, each: Carried) -> str:
        """Add what is carried before the first frame, for as many samples as there are."""
        numbers = self._numbers
        value = np.zeros(each.size) if each.first is None else each.first
        stored = numbers.constant("first", value.astype(np.int32)[None])
        shape = numbers.add(
            "Concat", [self._batch, numbers.whole(each.size)], "first/shape", axis=0
        )
        return numbers.add("Expand", [stored, shape], "first/states")

    def _shifted(self, op: str, state: str, each: Carried) -> str:
        """Add a state with its initial value added or subtracted, so that it begins with zeros."""
        if each.first is None:
            return state
        numbers, name = self._numbers, f"{each.part[0]}/{each.part[1]}/shifted"
        first = numbers.wide(f"{name}/first", each.first)
        shifted = numbers.add(op, [numbers.widened(name, state), first], f"{name}/sum")
        return numbers.cast(shifted, TensorProto.INT32, name)

    def _reduce(
        self, step: ComponentStep, population: Reduction, outside: Mapping[Place, str | None]
    ) -> None:
        """Add a reduction: its states take a frame if there is one, and give the message."""
        numbers, place = self._numbers, population.place
        intake, rule, drive = self._intakes[place], numbers.rule(population), outside[place]
        assert isinstance(rule, ReductionRule)
        assert drive is not None
        carried, due = step.states(numbers), self._due(intake)
        names, before = self._before(carried, intake)
        after = rule.absorb(drive, {state: before[place, state] for state in rule.states})
        if due is not None and not intake.final:
            after = {
                state: numbers.add("Where", [due, tensor, before[place, state]], f"{place}/kept")
                for state, tensor in after.items()
            }
        now = {(place, state): tensor for state, tensor in after.items()}
        self._keep_states(carried, names, now, None)
        message = rule.finish(after).message
        for each in step.messages(numbers):
            t = next(t for t in self._thresholds[place] if each.part == (place, held(t)))
            first = self._first(each)
            self._messages[place, t] = numbers.hold((place, t), population.message, message, first)
        if 0 in self._thresholds[place]:
            self._messages[place, 0] = message
        if place == self._network.output:
            self._answer(message)

    # Frames

    def _keep(self, key: OutletKey) -> None:
        """Keep as many frames of a source as its edges read."""
        source = self._timings[key[0]]
        if source.final:
            return
        readers = [
            (edge, self._reading(edge))
            for edge in self._network.edges
            if key_of(edge) == key and not self._network.leads_back(edge)
        ]
        lags = [t.lag(o, source) for edge, t in readers for o in edge.offsets]
        due = self._due(source)
        waits = any(not t.meets(source) for _, t in readers)
        depth = max(lags, default=0) + (due is not None)
        if not max(lags, default=0) and not waits:
            return
        numbers, size, place = self._numbers, self._network[key[0]].size, key[0]
        name = "frames" if not key[1] else f"{held(key[1])}/frames"
        state = self._state(f"{place}/{name}", [depth, size], TensorProto.INT32)
        present = numbers.add(
            "Unsqueeze", [self._messages[key], numbers.whole(1)], f"{state}/present"
        )
        whole = numbers.add("Concat", [state, present], f"{state}/whole", axis=1)
        bounds = [numbers.whole(v) for v in (1, _LAST, 1)]
        rest = numbers.add("Slice", [whole, *bounds], f"{state}/rest")
        shape = [depth, size]
        self._next(state, rest, due, shape, TensorProto.INT32)
        self._frames[key] = whole if due is None else self._after[state][0]

    def _reading(self, edge: Edge) -> Timing:
        """Return when the target of an edge takes frames."""
        place = self._network[edge.target].place
        return self._intakes.get(place, self._timings[place])

    def _window(self, edge: Edge) -> str:
        """Return the messages of all offsets of an edge, side by side, (batch, columns)."""
        numbers, key = self._numbers, key_of(edge)
        source, timing = self._timings[edge.source], self._reading(edge)
        taps = []
        for offset in edge.offsets:
            message = self._messages[key]
            if source.final:
                if offset:
                    message = numbers.add("Sub", [message, message], f"{edge.place}/outside")
            elif key in self._frames:
                index = numbers.number(-1 - timing.lag(offset, source))
                message = numbers.add(
                    "Gather", [self._frames[key], index], f"{edge.place}/tap", axis=1
                )
            taps.append(message)
        if len(taps) == 1:
            return taps[0]
        return numbers.add("Concat", taps, f"{edge.place}/taps", axis=-1)

    # Outputs

    def _answer(self, message: str, element: int = TensorProto.INT32) -> None:
        numbers, population = self._numbers, self._network[self._network.output]
        numbers.graph.node("Identity", [message], self._names["output"])
        numbers.graph.output(self._names["output"], ["batch", population.size], element)
        timing = self._timings[population.place]
        if (due := self._due(timing)) is not None:
            numbers.graph.node("Identity", [due], self._names["ready"])
            numbers.graph.output(self._names["ready"], ["batch", 1], TensorProto.BOOL)

    def finish(self) -> None:
        """Declare the states after the step."""
        graph = self._numbers.graph
        for state, (after, shape, element) in self._after.items():
            graph.node("Identity", [after], f"{state}.next")
            graph.output(f"{state}.next", ["batch", *shape], element)
        for name, axes in self._host_states.items():
            graph.output(name, axes, TensorProto.DOUBLE)


def write_step(network: IntegerNetwork, numbers: Integers) -> None:
    """Write one step of a network into a graph, and declare its inputs and outputs.

    Raises
    ------
    InputError
        When frames behind the sequence are read, or branches of different strides meet.
    """
    writer = StepWriter(network, numbers)
    for component in components(network):
        if not isinstance(component.populations[0], Input):
            writer.add(component)
    writer.finish()
