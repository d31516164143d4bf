"""One step of one layer of a quantized network, in either arithmetic.

The equations are those of docs/reference/integer-semantics.md. Tensors have the names of its
places, such as ``layer0/memory/state``. Held messages of connections with a threshold have names
such as ``layer0/memory/held_4``, for a threshold of 4. The substeps of a series (realization
sign-taylor, in integers only) are a Loop whose body is one substep.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from lmu_deploy.core.integer.layers import IntegerHidden, SeriesMemory
from onnx import TensorProto

from converters.onnx.graph import Graph
from converters.onnx.quantized.arithmetic import Messages, Numbers, Sent, held_name
from converters.onnx.quantized.integers import Integers, count_fired
from lmu_deploy.core.integer.graph import outlets
from lmu_deploy.core.integer.network import IntegerLayer, IntegerNetwork
from lmu_deploy.core.integer.parts import Connection, Format


def advance_series(
    numbers: Integers,
    place: str,
    memory: SeriesMemory,
    state: str,
    carried: Mapping[str, Messages],
    message: str,
) -> tuple[str, Messages]:
    """Add the nodes of one step of a series; return its state and messages after the step.

    Parameters
    ----------
    numbers : Integers
    place : str
        Place of the layer, such as ``layer0``.
    memory : SeriesMemory
    state : str
        m after the previous step, (batch, states).
    carried : mapping of connection's name to Messages
        Messages of the connections ``input``, ``feedback`` and ``hidden``.
    message : str
        M of the previous step, (batch, states).
    """
    graph, at = numbers.graph, f"{place}/series"
    connections = {"input": memory.input, "feedback": memory.feedback, "hidden": memory.hidden}
    drives = [
        numbers.drive(f"{at}/{name}", connection, carried[name], memory.state)
        for name, connection in connections.items()
        if connection is not None
    ]
    drive = numbers.total(f"{at}/drive", f"{at}/drive", drives, memory.bias, memory.state)
    substep = Graph(f"{at}/substep", graph.weights, scope="substep/")
    inner = Integers(substep, numbers.counting)
    places = _substep(inner, place, memory, drive)
    trips = graph.weights.constant(f"{at}/substeps", np.array(memory.substeps, dtype=np.int64))
    first = {"memory/state": state, "memory/message": message}
    if numbers.counting:
        first["series/fired"] = graph.node("Sub", [state, state], f"{at}/none_fired")
    outputs = graph.nodes(
        "Loop",
        [trips, "", *first.values()],
        [f"{place}/{name}.next" for name in first] + [f"{name}/substeps" for name in places],
        body=substep.body(),
    )
    if numbers.counting:
        numbers.fired[at, 0] = outputs[2]
    for name, each in zip(places, outputs[len(first) :], strict=True):
        total = graph.node("ReduceSum", [each], f"{name}/all_substeps", keepdims=0)
        numbers.limited[name].append(total)
    return outputs[0], Messages(outputs[1], memory.message)


def _substep(numbers: Integers, place: str, memory: SeriesMemory, drive: str) -> list[str]:
    """Build the body of the Loop; return the places where it counts saturations."""
    body, at, whole = numbers.graph, f"{place}/series", TensorProto.INT32
    body.input(f"{at}/number", [], TensorProto.INT64)
    proceed = body.input(f"{at}/proceed", [], TensorProto.BOOL)
    shape = ("batch", memory.size)
    m = body.input(f"{place}/memory/state", shape, whole)
    v = Messages(body.input(f"{place}/memory/message", shape, whole), memory.message)
    fired = [body.input(f"{at}/fired", shape, whole)] if numbers.counting else []
    for k in range(memory.terms):
        term = f"{at}/term{k + 1}"
        if numbers.counting:
            fired.append(count_fired(body, f"{term}/sent", v.tensor))
        parts = [_apply(numbers, term, at, memory, k, v)]
        if k == 0:
            parts.append(numbers.as_term(f"{at}/drive", drive))
        w = numbers.total(f"{at}/term", term, parts, None, memory.state)
        parts = [numbers.as_term(f"{term}/m", m), numbers.as_term(f"{term}/w", w)]
        m = numbers.total(f"{place}/memory/state", f"{term}/state", parts, None, memory.state)
        if k < memory.terms - 1:
            shift = int(memory.term_shift[k])
            v = numbers.message(f"{term}/message", w, shift, memory.message, f"{at}/message")
    v = numbers.send(f"{place}/memory/message", m, memory)
    body.output(body.node("Identity", [proceed], f"{at}/proceed.next"), [], TensorProto.BOOL)
    after = [m, v.tensor]
    if fired:
        after.append(body.total(fired, f"{at}/fired.next"))
    for state in after:
        body.output(state, shape, whole)
    for where, counts in numbers.limited.items():
        body.output(body.total(counts, f"{where}/all"), [], whole)
    return list(numbers.limited)


def _apply(numbers: Integers, name: str, at: str, memory: SeriesMemory, k: int, v: Messages) -> str:
    """Add ``G_k(v) = ms(sat(S v), multiplier_k, shift_k)``, int64; S has a block per channel."""
    signs, place = memory.recurrent, f"{at}/recurrent/slice0"
    bits = signs.accumulator_bits
    sums = numbers.accumulate(f"{name}/signs", signs.slices[0], v, bits, place)
    gains, shifts = (np.tile(of[k], memory.channels) for of in (memory.multiplier, memory.shift))
    return numbers.multiply_shift(f"{name}/drive", sums, gains, shifts)


INPUT, STATE = "input/message", "memory/state"
SENT, HIDDEN = "memory/message", "hidden/message"


@dataclass(frozen=True)
class Cell:
    """A layer, and which of its messages are held.

    Attributes
    ----------
    place : str
        Such as ``layer0``.
    layer : IntegerLayer
    thresholds : mapping of SENT and HIDDEN to tuple of int
        Nonzero thresholds of the outgoing connections.
    onward : tuple of int
        Thresholds, including 0, of the connections to the next layer or the readout.
    """

    place: str
    layer: IntegerLayer
    thresholds: Mapping[str, tuple[int, ...]]
    onward: tuple[int, ...]

    @property
    def recurs(self) -> bool:
        """Whether the hidden messages of the previous step are needed."""
        if self.layer.hidden is None:
            return False
        return self.layer.hidden.recurrent is not None or self.layer.memory.hidden is not None

    @property
    def formats(self) -> dict[str, Format]:
        """Formats of the layer's messages and held messages."""
        formats = {SENT: self.layer.memory.message}
        if self.layer.hidden is not None:
            formats[HIDDEN] = self.layer.hidden.message
        held = {
            held_name(name, threshold): formats[name]
            for name in formats
            for threshold in self.thresholds[name]
        }
        return formats | held

    @property
    def sizes(self) -> dict[str, int]:
        """Name and size of everything that the layer carries from step to step."""
        names = [STATE, SENT] + ([HIDDEN] if self.recurs else [])
        names += [name for name in self.formats if "/held_" in name]
        return {name: self.size(name) for name in names}

    @property
    def sent_on(self) -> dict[int, str]:
        """Names of the messages to the next layer or the readout, by threshold."""
        name = SENT if self.layer.hidden is None else HIDDEN
        return {t: held_name(name, t) if t else name for t in self.onward}

    def size(self, name: str) -> int:
        """Return the number of states or messages."""
        return self.layer.memory.size if name.startswith("memory/") else self.layer.n_out

    def element(self, numbers: Numbers, name: str) -> int:
        """Return the ONNX type of a state or of messages."""
        return numbers.real if name == STATE else numbers.message_type(self.formats[name])

    def advance(self, numbers: Numbers, x: Sent, before: Mapping[str, str]) -> dict[str, str]:
        """Add the nodes of one step; return the layer's state and messages after it.

        Parameters
        ----------
        numbers : Numbers
        x : Sent
            Messages that enter the layer, (batch, n_in).
        before : mapping
            The tensors of `sizes`, (batch, size), after the previous step.
        """
        earlier = {name: self._earlier(name, before) for name in (SENT, HIDDEN)}
        state, messages = self._memory(numbers, x, before, earlier)
        after = {STATE: state} | self._held(numbers, SENT, messages, before)
        if self.layer.hidden is not None:
            sent = self._as_sent(SENT, after)
            messages = _hidden(numbers, f"{self.place}/hidden", self.layer.hidden, x, sent, earlier)
            after |= self._held(numbers, HIDDEN, messages, before)
        return after

    def _memory(
        self, numbers: Numbers, x: Sent, before: Mapping[str, str], earlier: Mapping[str, Sent]
    ) -> tuple[str, Messages]:
        """Return m and M after the step, of a memory of either class."""
        memory, at = self.layer.memory, f"{self.place}/memory"
        if isinstance(memory, SeriesMemory):
            assert isinstance(numbers, Integers)  # export.py refuses a series in other arithmetic
            edges = (
                ("input", memory.input, x),
                ("feedback", memory.feedback, earlier[SENT]),
                ("hidden", memory.hidden, earlier[HIDDEN]),
            )
            carried = {name: sent[c.threshold] for name, c, sent in edges if c is not None}
            return advance_series(numbers, self.place, memory, before[STATE], carried, before[SENT])
        terms = [
            numbers.as_term(f"{at}/state", before[STATE]),
            _drive(numbers, f"{at}/recurrent", memory.recurrent, earlier[SENT], memory.state),
            _drive(numbers, f"{at}/input", memory.input, x, memory.state),
        ]
        if memory.hidden is not None:
            sent = earlier[HIDDEN]
            terms.append(_drive(numbers, f"{at}/hidden", memory.hidden, sent, memory.state))
        state = numbers.total(f"{at}/state", f"{at}/state.next", terms, memory.bias, memory.state)
        return state, numbers.send(f"{at}/message", state, memory)

    def _held(
        self, numbers: Numbers, name: str, messages: Messages, before: Mapping[str, str]
    ) -> dict[str, str]:
        """Return new messages, and the held messages of each threshold."""
        found = {name: messages.tensor}
        for threshold in self.thresholds[name]:
            held = held_name(name, threshold)
            at = f"{self.place}/{held}"
            now = numbers.changes(at, messages, before[held], threshold)
            found[held] = now.tensor
        return found

    def _earlier(self, name: str, before: Mapping[str, str]) -> Sent:
        """Return the messages and held messages after the previous step."""
        return self._as_sent(name, before) if name in self.formats else {}

    def _as_sent(self, name: str, tensors: Mapping[str, str]) -> Sent:
        """Return a population's messages and held messages by threshold."""
        form = self.formats[name]
        names = {0: name} | {t: held_name(name, t) for t in self.thresholds[name]}
        return {t: Messages(tensors[n], form) for t, n in names.items() if n in tensors}


def cells(network: IntegerNetwork) -> list[Cell]:
    """Return the layers of a network, in order."""
    thresholds = held_thresholds(network)
    found = []
    layers = [layer for _, layer in network.on_chip]
    for number, (layer, following) in enumerate(zip(layers, (*layers[1:], None), strict=True)):
        place = f"layer{number}"
        after = {network.chip_readout.connection.threshold}
        onward = after if following is None else entering(following)
        held = {SENT: thresholds[f"{place}/memory"], HIDDEN: thresholds.get(f"{place}/hidden", ())}
        found.append(Cell(place, layer, held, tuple(sorted(onward))))
    return found


def entering(layer: IntegerLayer) -> set[int]:
    """Return the thresholds of the connections that enter a layer, including 0."""
    inputs = (layer.memory.input, None if layer.hidden is None else layer.hidden.input)
    return {connection.threshold for connection in inputs if connection is not None}


def held_thresholds(network: IntegerNetwork) -> dict[str, tuple[int, ...]]:
    """Return the nonzero thresholds of each population's outgoing connections, ascending."""
    found: dict[str, tuple[int, ...]] = {}
    for outlet in outlets(network):
        found.setdefault(outlet.source, ())
        if outlet.threshold:
            found[outlet.source] += (outlet.threshold,)
    return found


def _drive(numbers: Numbers, place: str, connection: Connection, sent: Sent, unit: Format) -> str:
    """Return the drive of a connection."""
    return numbers.drive(place, connection, sent[connection.threshold], unit)


def _hidden(
    numbers: Numbers,
    place: str,
    hidden: IntegerHidden,
    x: Sent,
    m: Sent,
    earlier: Mapping[str, Sent],
) -> Messages:
    """Add ``H = f(D_memory(M) + D_input(x) + D_recurrent(previous H) + bias)``."""
    terms = [_drive(numbers, f"{place}/memory", hidden.memory, m, hidden.drive)]
    if hidden.input is not None:
        terms.append(_drive(numbers, f"{place}/input", hidden.input, x, hidden.drive))
    if hidden.recurrent is not None:
        h = earlier[HIDDEN]
        terms.append(_drive(numbers, f"{place}/recurrent", hidden.recurrent, h, hidden.drive))
    at = f"{place}/drive"
    z = numbers.total(at, at, terms, hidden.bias, hidden.drive)
    return numbers.activate(f"{place}/message", z, hidden)


def read_out(numbers: Numbers, network: IntegerNetwork, sent: Messages, name: str) -> str:
    """Add ``y = D(H) + b`` for messages of any rank, as a tensor called `name`."""
    readout = network.chip_readout
    drive = numbers.drive("readout", readout.connection, sent, readout.output)
    return numbers.total("readout/output", name, [drive], readout.bias, readout.output)
