"""One step of one layer of a quantised network, whatever its arithmetic.

The equations are those of docs/integer-semantics.md. Tensors have the names of its places, such as
``layer0/memory/state``; what connections with a threshold hold of messages stands beside these,
such as ``layer0/memory/held_4`` for a threshold of 4.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from converters.onnx.quantised.changes import held_name
from converters.onnx.quantised.integers import Integers
from converters.onnx.quantised.numbers import Messages, Numbers, Sent
from converters.onnx.quantised.series import advance_series
from lmu_deploy.integer_network import (
    Connection,
    Format,
    IntegerHidden,
    IntegerLayer,
    IntegerNetwork,
    SeriesMemory,
)
from lmu_deploy.wiring import outlets

INPUT, STATE = "input/message", "memory/state"
SENT, HIDDEN = "memory/message", "hidden/message"


@dataclass(frozen=True)
class Cell:
    """A layer, and how what it sends is held.

    Attributes
    ----------
    place : str
        Such as ``layer0``.
    layer : IntegerLayer
    thresholds : mapping of SENT and HIDDEN to tuple of int
        From 1 on, of the connections that leave.
    onward : tuple of int
        Thresholds, 0 included, of the connections to the next layer or the readout.
    """

    place: str
    layer: IntegerLayer
    thresholds: Mapping[str, tuple[int, ...]]
    onward: tuple[int, ...]

    @property
    def recurs(self) -> bool:
        """Whether the hidden messages of the step before are needed."""
        if self.layer.hidden is None:
            return False
        return self.layer.hidden.recurrent is not None or self.layer.memory.hidden is not None

    @property
    def formats(self) -> dict[str, Format]:
        """Formats of the layer's messages, and of what is held of them."""
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
        """Name and size of all that the layer carries from step to step."""
        names = [STATE, SENT] + ([HIDDEN] if self.recurs else [])
        names += [name for name in self.formats if "/held_" in name]
        return {name: self.size(name) for name in names}

    @property
    def sent_on(self) -> dict[int, str]:
        """Names of what the next layer or the readout is sent, by threshold."""
        name = SENT if self.layer.hidden is None else HIDDEN
        return {t: held_name(name, t) if t else name for t in self.onward}

    def size(self, name: str) -> int:
        """Width of a state or of messages."""
        return self.layer.memory.size if name.startswith("memory/") else self.layer.n_out

    def element(self, numbers: Numbers, name: str) -> int:
        """ONNX type of a state or of messages."""
        return numbers.real if name == STATE else numbers.message_type(self.formats[name])

    def advance(self, numbers: Numbers, x: Sent, before: Mapping[str, str]) -> dict[str, str]:
        """Add the nodes of one step and give the layer's state and messages after it.

        Parameters
        ----------
        numbers : Numbers
        x : Sent
            What reaches the layer, (batch, n_in).
        before : mapping
            The tensors of `sizes`, (batch, size), after the step before.
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
        """Give m and M after the step, of a memory in either form."""
        memory, at = self.layer.memory, f"{self.place}/memory"
        if isinstance(memory, SeriesMemory):
            assert isinstance(numbers, Integers)  # export.py refuses it in other numbers
            wires = (
                ("input", memory.input, x),
                ("feedback", memory.feedback, earlier[SENT]),
                ("hidden", memory.hidden, earlier[HIDDEN]),
            )
            carried = {name: sent[c.threshold] for name, c, sent in wires if c is not None}
            return advance_series(numbers, self.place, memory, before[STATE], carried, before[SENT])
        terms = [
            numbers.hold(f"{at}/state", before[STATE]),
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
        """Give new messages, and what each threshold holds of them."""
        found = {name: messages.tensor}
        for threshold in self.thresholds[name]:
            held = held_name(name, threshold)
            at = f"{self.place}/{held}"
            now = numbers.changes(at, messages, before[held], threshold)
            found[held] = now.tensor
        return found

    def _earlier(self, name: str, before: Mapping[str, str]) -> Sent:
        """Give what was held after the step before."""
        return self._as_sent(name, before) if name in self.formats else {}

    def _as_sent(self, name: str, tensors: Mapping[str, str]) -> Sent:
        """Give a population's messages and what is held of them, by threshold."""
        form = self.formats[name]
        names = {0: name} | {t: held_name(name, t) for t in self.thresholds[name]}
        return {t: Messages(tensors[n], form) for t, n in names.items() if n in tensors}


def cells(network: IntegerNetwork) -> list[Cell]:
    """Give the layers of a network, in order."""
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
    """Thresholds of the connections that enter a layer, 0 included."""
    inputs = (layer.memory.input, None if layer.hidden is None else layer.hidden.input)
    return {connection.threshold for connection in inputs if connection is not None}


def held_thresholds(network: IntegerNetwork) -> dict[str, tuple[int, ...]]:
    """Thresholds from 1 on, ascending, of what leaves each population."""
    found: dict[str, tuple[int, ...]] = {}
    for outlet in outlets(network):
        found.setdefault(outlet.source, ())
        if outlet.threshold:
            found[outlet.source] += (outlet.threshold,)
    return found


def _drive(numbers: Numbers, place: str, connection: Connection, sent: Sent, unit: Format) -> str:
    """Give what a connection drives its target by."""
    return numbers.drive(place, connection, sent[connection.threshold], unit)


def _hidden(
    numbers: Numbers,
    place: str,
    hidden: IntegerHidden,
    x: Sent,
    m: Sent,
    earlier: Mapping[str, Sent],
) -> Messages:
    """``H = f(D_memory(M) + D_input(x) + D_recurrent(H before) + bias)``."""
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
    """``y = D(H) + b`` of messages of any rank, as a tensor called `name`."""
    readout = network.chip_readout
    drive = numbers.drive("readout", readout.connection, sent, readout.output)
    return numbers.total("readout/output", name, [drive], readout.bias, readout.output)
