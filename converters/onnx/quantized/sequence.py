"""Convert populations and edges to a model of whole sequences, batch and time of any length.

Populations that do not feed back are computed for all frames at once. Populations that feed back
into each other are one Scan over frames; what enters them from outside is computed before, for all
frames. Internally, time is the first axis.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
from onnx import TensorProto, helper

from converters.onnx.graph import Dimension
from converters.onnx.quantized.arithmetic import Numbers, OutletKey, ReductionRule, held
from converters.onnx.quantized.body import Body, Kept
from converters.onnx.quantized.hosts import doubled, encoded, host_frames, in_channel_units, mapped
from converters.onnx.quantized.integers import Tally
from converters.onnx.quantized.stages import (
    ONE,
    TIME,
    Carried,
    ComponentStep,
    Part,
    Stage,
    all_thresholds,
    driven,
    last_only,
    lengths,
)
from lmu_deploy.core.integer.graph import Component
from lmu_deploy.core.integer.network import HostNodes, IntegerNetwork, Node
from lmu_deploy.core.integer.parts import Edge, Place
from lmu_deploy.core.integer.populations import Input, Output, Population
from lmu_deploy.core.integer.reductions import Reduction

_LAST = 2**63 - 1
K = TypeVar("K")
_RECORDED, _FIRED = "recorded", "fired"


@dataclass(frozen=True)
class Signal:
    """Messages of all frames, (frames, batch, size).

    Attributes
    ----------
    tensor : str
    length : hashable
        What the number of frames depends on; signals of the same have equally many.
    """

    tensor: str
    length: Hashable


@dataclass
class Sequences:
    """Names of the inputs and outputs of a model of sequences.

    Attributes
    ----------
    inputs : dict of (source, threshold) to str
        Messages of the input, of the host and of earlier models, (batch, frames, neurons).
    output : str or None
        Of the network's output, if this model computes it.
    messages : dict of (source, threshold) to str
        Messages that later models need, (batch, frames, neurons).
    records : dict of Place to str
        What a recording holds, (batch, frames, neurons).
    events : dict of (source, threshold) to str
        See :class:`converters.onnx.quantized.integers.Tally`.
    rasters : dict of Place to str
    saturations : dict of place to str
    """

    inputs: dict[OutletKey, str] = field(default_factory=dict)
    output: str | None = None
    messages: dict[OutletKey, str] = field(default_factory=dict)
    records: dict[Place, str] = field(default_factory=dict)
    events: dict[OutletKey, str] = field(default_factory=dict)
    rasters: dict[Place, str] = field(default_factory=dict)
    saturations: dict[str, str] = field(default_factory=dict)


class SequenceWriter:
    """Writes a stage of a network into a graph.

    Parameters
    ----------
    network : IntegerNetwork
    numbers : Numbers
        Arithmetic of the graph, with time first.
    stage : Stage
    record : bool
        Whether the states of every frame are outputs.
    tally : Tally or None
        Counts to add as outputs, if any.
    """

    def __init__(
        self,
        network: IntegerNetwork,
        numbers: Numbers,
        stage: Stage,
        record: bool,
        tally: Tally | None,
    ) -> None:
        self.network, self.numbers, self._stage = network, numbers, stage
        self._record, self._tally = record, tally
        self._lengths = lengths(network)
        self._axes: dict[Hashable, str] = {}
        self._signals: dict[OutletKey, Signal] = {}
        self._windows: dict[tuple[object, ...], Signal] = {}
        self._batch = ""
        counted = [
            (p.place, t) for p in network.populations if tally for t in tally.thresholds(p.place)
        ]
        hosts = {c.populations[0].place for c in stage.components}
        self._read = {r.source for r in network.readings if r.target in hosts}
        self._reals: dict[Place, Signal] = {}
        read = [(p, 0) for p in self._read if network.input.tokens or p != network.input.place]
        self._thresholds = all_thresholds(network, [*stage.taken, *counted, *read])
        every = record or tally or network.return_sequences
        self._last_only = set() if every else last_only(network, stage, self._lengths)
        self.records: dict[Place, tuple[Signal, int]] = {}
        self.found = Sequences()
        take = numbers.names.take
        self._input, self._output_name = take("input"), take("output")
        self._record_names = {
            population.place: take(str(population.place))
            for component in (stage.components if record else ())
            for population in component.populations
        }

    # What the model is given

    def receive(self, entry: Input | HostNodes) -> None:
        """Declare the messages of the input, or of the host, as an input, and send them."""
        assert entry.message is not None
        numbers, length = self.numbers, self._lengths[entry.place]
        if isinstance(entry, Input):
            name = self._input
            if entry.place in self._read and not entry.tokens:
                x = self._by_time(name, length, entry.features, TensorProto.DOUBLE)
                x = in_channel_units(numbers, str(entry.place), x, entry)
                self._reals[entry.place] = Signal(x, length)
                messages = encoded(numbers, str(entry.place), x, entry.message)
            else:
                x = self._by_time(name, length, entry.features, numbers.input_type)
                messages = numbers.receive(x, entry)
        else:
            element = numbers.message_type(entry.message)
            name = numbers.names.take(str(entry.place))
            messages = self._by_time(name, length, entry.size, element)
        self.found.inputs[entry.place, 0] = name
        self._send(entry, Signal(messages, length))

    def given(self, key: OutletKey) -> None:
        """Declare messages of an earlier stage as an input."""
        source, length = self.network[key[0]], self._lengths[key[0]]
        assert source.message is not None
        element = self.numbers.message_type(source.message)
        name = self.numbers.names.take(f"{key[0]}/{held(key[1])}")
        self.found.inputs[key] = name
        self._signals[key] = Signal(self._by_time(name, length, source.size, element), length)

    def _by_time(self, name: str, length: Hashable, size: int, element: int) -> str:
        """Declare an input, (batch, frames, size); return it with time first."""
        numbers = self.numbers
        x = numbers.graph.input(name, ["batch", self._axis(length), size], element)
        found = numbers.add("Transpose", [x], f"{name}/by_time", perm=[1, 0, 2])
        if not self._batch:
            self._batch = numbers.add("Shape", [x], "batch_size", start=0, end=1)
        return found

    def _axis(self, length: Hashable) -> str:
        """Return the name of the axis of that many frames."""
        number = len(self._axes)
        return self._axes.setdefault(length, "time" if length == TIME else f"time_{number + 1}")

    # Components

    def add(self, component: Component) -> None:
        """Add a component."""
        if isinstance(component.populations[0], HostNodes):
            self._on_host(component.populations[0])
            return
        step = ComponentStep(self.network, component, self._thresholds)
        if component.stateless:
            self._whole(step, component)
            return
        windows = self._trimmed(component.outside)
        outside = {p.place: step.outside(self.numbers, p, windows) for p in step.populations}
        first = step.populations[0]
        if isinstance(first, Reduction):
            self._reduce(step, first, outside[first.place])
        else:
            self._stepwise(step, outside)

    def _on_host(self, host: HostNodes) -> None:
        """Add nodes on the host, in float64."""
        numbers, network, signals = self.numbers, self.network, dict[Place, Signal]()
        for reading in network.readings:
            if reading.target != host.place:
                continue
            source, name = network[reading.source], f"{host.place}/{reading.source}"
            real = self._reals.get(reading.source)
            if real is None:
                assert source.message is not None
                sent = self._signals[reading.source, 0]
                real = Signal(doubled(numbers, name, sent.tensor, source.message), sent.length)
            tensor = mapped(numbers, name, real.tensor, reading.matrix)
            signals[reading.source] = Signal(tensor, real.length)
        values = list(self._equal(signals).values())
        length = self._lengths[host.place]
        found = host_frames(numbers, host, numbers.total(values, f"{host.place}/read"))
        self.records[host.place] = Signal(found, length), TensorProto.DOUBLE
        if host.message is None:
            self._reals[host.place] = Signal(found, length)
        else:
            self._send(host, Signal(encoded(numbers, str(host.place), found, host.message), length))

    def _whole(self, step: ComponentStep, component: Component) -> None:
        """Compute all frames of a population without memory, or the last one."""
        (population,) = step.populations
        length = self._lengths[population.place]
        if population.place in self._last_only:
            windows, length = self._last_frames(component.outside), ONE
        else:
            windows = self._trimmed(component.outside)
        drive = step.outside(self.numbers, population, windows)
        assert drive is not None
        message = self.numbers.rule(population).update(drive, {}).message
        self._found(population, Signal(message, length))

    def _last_frames(self, into: Sequence[Edge]) -> dict[Edge, str]:
        """Return the last frame of the messages that edges carry."""
        signals, last = {edge: self._window(edge) for edge in into}, self.numbers.whole(-1)
        return {
            edge: signal.tensor
            if signal.length == ONE
            else self.numbers.add("Gather", [signal.tensor, last], f"{edge.place}/last", axis=0)
            for edge, signal in signals.items()
        }

    def _reduce(self, step: ComponentStep, population: Reduction, outside: str | None) -> None:
        """Add a reduction: its states after the last frame give its message."""
        numbers, place = self.numbers, population.place
        assert outside is not None
        body, before = self._body(place, step.states(numbers))
        drive = body.given(outside, population.drive_size, numbers.drives)
        rule = body.numbers.rule(population)
        assert isinstance(rule, ReductionRule)
        after = rule.absorb(drive, {state: before[place, state] for state in rule.states})
        last, _ = body.scan([after[state] for state in rule.states], [])
        ending = numbers.rule(population)
        assert isinstance(ending, ReductionRule)
        message = ending.finish(dict(zip(rule.states, last, strict=True))).message
        frame = numbers.add("Unsqueeze", [message, numbers.whole(0)], f"{place}/frame")
        self._found(population, Signal(frame, ONE))

    def _body(self, place: Place, carried: Sequence[Carried]) -> tuple[Body, dict[Part, str]]:
        """Begin a Scan; return its body, and what is carried in it before a frame."""
        body = Body(self.numbers, f"{place}/step")
        before = {}
        for each in carried:
            first = self._first(each.size, each.element, each.first)
            name = f"{each.part[0]}/{each.part[1]}"
            before[each.part] = body.state(name, each.size, each.element, first)
        return body, before

    def _stepwise(self, step: ComponentStep, outside: Mapping[Place, str | None]) -> None:
        """Add populations that feed back into each other."""
        numbers, wanted = self.numbers, dict[Part, Kept]()
        carried = step.carried(numbers)
        body, before = self._body(step.populations[0].place, carried)
        within = {
            p.place: body.given(drive, p.drive_size, numbers.drives)
            for p in step.populations
            if (drive := outside[p.place]) is not None
        }
        now, updated = step.advance(body.numbers, {**dict.fromkeys(outside), **within}, before)
        for p in step.populations:
            found, shape = updated[p.place], ("batch", p.size)
            for t in self._thresholds[p.place]:
                part = p.place, held(t)
                wanted[part] = Kept(now[part], shape, numbers.message_type(p.message))
            if self._record:
                own = found.recorded == found.message
                element = numbers.message_type(p.message) if own else numbers.real
                wanted[p.place, _RECORDED] = Kept(found.recorded, shape, element)
            if self._tally and found.fired is not None:
                wanted[p.place, _FIRED] = Kept(found.fired, shape, TensorProto.INT32)
        after = [now[each.part] for each in carried]
        _, traces = body.scan(after, list(wanted.values()))
        kept = dict(zip(wanted, traces, strict=True))
        for p in step.populations:
            length = self._lengths[p.place]
            for t in self._thresholds[p.place]:
                self._signals[p.place, t] = Signal(kept[p.place, held(t)], length)
            if self._record:
                recorded = wanted[p.place, _RECORDED]
                signal = Signal(kept[p.place, _RECORDED], length)
                self.records[p.place] = signal, recorded.element
            self._count(p, kept.get((p.place, _FIRED)), length)

    def _found(self, population: Population, messages: Signal) -> None:
        """Keep all messages of a population for the record, and send them."""
        element = self.numbers.message_type(population.message)
        if isinstance(population, Output):
            element = self.numbers.real
        self.records[population.place] = messages, element
        self._send(population, messages)

    def _send(self, population: Node, messages: Signal) -> None:
        """Make messages known to their receivers, under every threshold."""
        place = population.place
        for threshold in self._thresholds[place]:
            self._signals[place, threshold] = (
                self._held(population, messages, threshold) if threshold else messages
            )
        self._count(population, None, messages.length)

    def _count(self, population: Node, fired: str | None, length: Hashable) -> None:
        if self._tally is None or not population.sends:
            return
        place = population.place
        thresholds = self._tally.thresholds(place)
        signals = {t: self._signals[place, t].tensor for t in thresholds}
        firsts = {t: self._first_held(population) for t in thresholds if t}
        self._tally.count(population, signals, firsts, fired, length)

    def _held(self, population: Node, messages: Signal, threshold: int) -> Signal:
        """Add a Scan that holds messages until they have changed by a threshold."""
        key, form = (population.place, threshold), population.message
        assert form is not None
        element = self.numbers.message_type(form)
        body = Body(self.numbers, f"{population.place}/{held(threshold)}/step")
        first = self._first_held(population)
        before = body.state(held(threshold), population.size, element, first)
        now = body.given(messages.tensor, population.size, element)
        after = body.numbers.hold(key, form, now, before)
        _, (trace,) = body.scan([after], [Kept(after, ("batch", population.size), element)])
        return Signal(trace, messages.length)

    def _first_held(self, population: Node) -> str:
        """Return the receivers' values before the first frame, (batch, size)."""
        assert population.message is not None
        element = self.numbers.message_type(population.message)
        value = population.first_message if isinstance(population, Population) else None
        return self._first(population.size, element, value)

    def _first(self, size: int, element: int, value: np.ndarray | None) -> str:
        """Add a state before the first frame, (batch, size): a value, or zeros."""
        numbers, dtype = self.numbers, helper.tensor_dtype_to_np_dtype(element)
        if value is None:
            value = np.zeros(1)
        stored = numbers.constant("first", np.asarray(value, dtype)[None])
        shape = numbers.add("Concat", [self._batch, numbers.whole(size)], "first/shape", axis=0)
        return numbers.add("Expand", [stored, shape], "first/states")

    # Frames

    def _trimmed(self, into: Sequence[Edge]) -> dict[Edge, str]:
        """Return the messages that edges carry, of equally many frames."""
        return self._equal({edge: self._window(edge) for edge in into})

    def _equal(self, signals: Mapping[K, Signal]) -> dict[K, str]:
        """Return as many frames of each signal as the shortest has."""
        found = {key: signal.tensor for key, signal in signals.items()}
        lengths = {signal.length: signal.tensor for signal in signals.values()}
        if len(lengths) <= 1:
            return found
        numbers, least = self.numbers, ""
        for tensor in lengths.values():
            count = numbers.add("Shape", [tensor], "frames", start=0, end=1)
            if least:
                fewer = numbers.add("Less", [count, least], "frames/fewer")
                count = numbers.add("Where", [fewer, count, least], "frames/least")
            least = count
        bounds = [numbers.whole(0), least, numbers.whole(0)]
        return {
            key: numbers.add("Slice", [tensor, *bounds], f"{tensor}/frames")
            for key, tensor in found.items()
        }

    def _window(self, edge: Edge) -> Signal:
        """Return the messages of all offsets of an edge side by side, for frames of its target."""
        signal = self._signals[edge.source, edge.connection.threshold]
        length = driven(signal.length, edge)
        if edge.offsets == (0,) and length == signal.length:
            return signal
        key = signal.tensor, edge.offsets, edge.stride, edge.after
        if key not in self._windows:
            self._windows[key] = Signal(self._taps(signal.tensor, edge), length)
        return self._windows[key]

    def _taps(self, x: str, edge: Edge) -> str:
        numbers, most = self.numbers, max(edge.offsets)
        left, right, left_out = -min(0, *edge.offsets), max(edge.after, 0), min(edge.after, 0)
        if left or right:
            form = self.network[edge.source].message
            assert form is not None
            x = numbers.surrounded(x, form, left, right, f"{edge.place}/padded")
        taps = []
        for offset in edge.offsets:
            end = left_out + offset - most or _LAST
            bounds = [numbers.whole(v) for v in (left + offset, end, 0, edge.stride)]
            taps.append(numbers.add("Slice", [x, *bounds], f"{edge.place}/tap"))
        if len(taps) == 1:
            return taps[0]
        return numbers.add("Concat", taps, f"{edge.place}/taps", axis=-1)

    # Outputs

    def finish(self) -> Sequences:
        """Declare the outputs of the model; return their names."""
        network, numbers, found = self.network, self.numbers, self.found
        if network.output in self.records:
            answer, element = self.records[network.output]
            population = network[network.output]
            if isinstance(population, Population):
                real = numbers.answer(answer.tensor, population)
                answer, element = Signal(real, answer.length), numbers.real
            found.output = self._answer(answer, population.size, element)
        for key in self._stage.taken:
            source = network[key[0]]
            assert source.message is not None
            element = numbers.message_type(source.message)
            name = numbers.names.take(f"{key[0]}/{held(key[1])}")
            found.messages[key] = self._output(self._signals[key], name, source.size, element)
        if self._record:
            for place, (signal, element) in self.records.items():
                name = self._record_names[place]
                found.records[place] = self._output(signal, name, network[place].size, element)
        if self._tally is not None:
            self._declare_counts(self._tally, found)
        return found

    def _answer(self, answer: Signal, size: int, element: int) -> str:
        """Declare the output of the network: all frames, or the last."""
        numbers, name = self.numbers, self._output_name
        if self.network.return_sequences:
            return self._output(answer, name, size, element)
        numbers.graph.node("Gather", [answer.tensor, numbers.number(-1)], name, axis=0)
        numbers.graph.output(name, ["batch", size], element)
        return name

    def _declare_counts(self, tally: Tally, found: Sequences) -> None:
        """Declare events, rasters and saturations."""
        numbers = self.numbers
        for (place, threshold), (tensor, columns) in tally.events.items():
            signal = Signal(tensor, tally.lengths[place])
            name = numbers.names.take(f"{place}/events/{held(threshold)}")
            output = self._output(signal, name, columns, TensorProto.INT64)
            found.events[place, threshold] = output
        for place, (tensor, neurons) in tally.rasters.items():
            axes: list[Dimension] = [self._axis(tally.lengths[place]), neurons]
            numbers.graph.output(tensor, axes, TensorProto.INT32)
            found.rasters[place] = tensor
        for where, counts in numbers.limited.items():
            wide = [numbers.cast(c, TensorProto.INT64, f"{where}/count") for c in counts]
            total = numbers.total(wide, f"{where}/saturations")
            numbers.graph.output(total, [], TensorProto.INT64)
            found.saturations[where] = total

    def _output(self, signal: Signal, name: str, size: int, element: int) -> str:
        """Declare frames as an output, (batch, frames, size)."""
        numbers = self.numbers
        numbers.graph.node("Transpose", [signal.tensor], name, perm=[1, 0, 2])
        numbers.graph.output(name, ["batch", self._axis(signal.length), size], element)
        return name


def write_sequences(
    network: IntegerNetwork,
    numbers: Numbers,
    stage: Stage,
    record: bool = False,
    tally: Tally | None = None,
) -> Sequences:
    """Write a stage of a network into a graph, and declare its outputs.

    Parameters
    ----------
    network, numbers, stage, record, tally
        See :class:`SequenceWriter`.
    """
    writer = SequenceWriter(network, numbers, stage, record, tally)
    for entry in stage.entries:
        writer.receive(entry)
    for key in stage.given:
        writer.given(key)
    for component in stage.components:
        writer.add(component)
    return writer.finish()
