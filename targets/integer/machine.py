"""Integer network on an engine: the populations in order, and one step of all of them.

The arrays are an engine's (engine.py). A drive stays in `State.drives` until its target uses it: in
the same step when the sender comes before the target, in the next when it comes after. This gives
recurrent connections their delay of one step.

Delay lines among memories of integrators need no matrix product. With weights of +-1 that move each
tap to the next, a state's own message removes its old value: m[t] is the value of the tap before,
or at the first taps the input.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lmu_deploy.core.integer.graph import biases, edges, outlets, populations
from lmu_deploy.core.integer.layers import IntegerMemory, SeriesMemory
from lmu_deploy.core.integer.network import IntegerNetwork
from lmu_deploy.core.integer.parts import largest
from targets.integer.engine import Engine, Fan, Sender
from targets.integer.operands import Drive, ReadyDrive


def line_width(memory: IntegerMemory | SeriesMemory) -> int | None:
    """Return the number of delay lines of a memory that consists of nothing else.

    Returns
    -------
    width : int or None
        State n moves to n + width; None for any other memory.
    """
    if isinstance(memory, SeriesMemory) or memory.hidden is not None or memory.bias is not None:
        return None
    recurrent, limit = memory.recurrent, memory.state.limit
    plain = (
        memory.message_shift == 0
        and memory.message.bits == memory.state.bits
        and recurrent.slices.shape[0] == 1
        and recurrent.threshold <= 1
        and bool((recurrent.multiplier == 1).all() and (recurrent.shift == 0).all())
        and 2 * limit <= largest(recurrent.accumulator_bits)
    )
    entered = np.flatnonzero(memory.input.slices.any(axis=(0, 2)))
    if not plain or not entered.size:
        return None
    width = int(entered[-1]) + 1
    if width >= memory.size:
        return None
    shift = np.eye(memory.size, k=-width, dtype=np.int8) - np.eye(memory.size, dtype=np.int8)
    return width if np.array_equal(recurrent.slices[0], shift) else None


OutletKey = tuple[str, int]
"""A population and a threshold."""


@dataclass
class State:
    """State of a batch between two steps, in an engine's arrays.

    Attributes
    ----------
    m : list of arrays, shape (batch, states)
        Memory states of each layer.
    messages : dict of population to array, shape (batch, neurons)
        Messages of the last step, sent or not.
    last_sent : dict of (population, threshold) to array, shape (batch, neurons)
        The message that the receivers of each outlet with a threshold know.
    sent : dict of (population, threshold) to array, shape (batch, neurons)
        Nonzero where the outlet sent an event in the last step; for a series the number of events.
    drives : dict of connection to Drive
        Delivered last.
    saturations : dict of place to int
        Counted so far.
    synops : int
        Counted so far.
    """

    m: list[Any]
    messages: dict[str, Any] = field(default_factory=dict)
    last_sent: dict[OutletKey, Any] = field(default_factory=dict)
    sent: dict[OutletKey, Any] = field(default_factory=dict)
    drives: dict[str, Drive] = field(default_factory=dict)
    saturations: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    synops: int = 0

    def copy(self, engine: Engine) -> State:
        """Return an independent copy."""
        return State(
            [engine.copy(m) for m in self.m],
            dict(self.messages),
            dict(self.last_sent),
            dict(self.sent),
            {place: drive.snapshot() for place, drive in self.drives.items()},
            defaultdict(int, self.saturations),
            self.synops,
        )


class Machine:
    """Run an IntegerNetwork step by step on batches.

    Attributes
    ----------
    network : IntegerNetwork
    engine : Engine
    populations : dict of name to number of neurons
        The input first, then each layer's memory and hidden units.
    senders : dict of (population, threshold) to Sender
        Event counter of each outlet.
    places_of : dict of (population, threshold) to list of str
        The connections that each outlet serves.
    """

    def __init__(self, network: IntegerNetwork, engine: Engine) -> None:
        self.network, self.engine = network, engine
        self._layers, self._output_limit = network.on_chip, network.chip_readout.output.limit
        self.populations = {p.name: p.neurons for p in populations(network).values()}
        self._into: dict[str, list[str]] = defaultdict(list)
        self._lines = [line_width(layer.memory) for _, layer in network.on_chip]
        moved = {f"layer{n}/memory/recurrent" for n, w in enumerate(self._lines) if w is not None}
        self._fans: dict[str, dict[int, Fan | None]] = defaultdict(dict)
        self.senders: dict[OutletKey, Sender] = {}
        self.places_of: dict[OutletKey, list[str]] = {}
        limits = {p.name: p.message.limit for p in populations(network).values()}
        for outlet in outlets(network):
            key = outlet.source, outlet.threshold
            self.places_of[key] = [edge.place for edge in outlet.edges]
            if outlet.source.endswith("/series"):
                continue  # applied by Series itself, without a matrix
            multiplied = {w.place: w.connection for w in outlet.edges if w.place not in moved}
            for edge in outlet.edges:
                if edge.place in multiplied:
                    self._into[edge.target].append(edge.place)
            fan = engine.fan(multiplied, limits[outlet.source]) if multiplied else None
            self._fans[outlet.source][outlet.threshold] = fan
            self.senders[key] = engine.sender(outlet.fan_out)
        self._series = {
            f"layer{number}/series": engine.series(layer.memory)
            for number, layer in network.on_chip
            if isinstance(layer.memory, SeriesMemory)
        }
        self.senders |= {(name, 0): series for name, series in self._series.items()}
        self._activations = [
            None if layer.hidden is None else engine.activation(layer.hidden)
            for _, layer in network.on_chip
        ]
        self._limits = {
            f"layer{number}/memory": (m.state.limit, m.message_shift, m.message.limit)
            for number, layer in network.on_chip
            for m in [layer.memory]
        }
        self._drive_limits = {
            f"layer{number}/hidden": layer.hidden.drive.limit
            for number, layer in network.on_chip
            if layer.hidden is not None
        }
        self._bias = {name: engine.array(bias) for name, bias in biases(network).items()}

    def places(self) -> list[str]:
        """Return all places where saturations are counted, in the order of the populations."""
        places = ["input"]
        for number, layer in self.network.on_chip:
            places += [f"layer{number}/memory/state", f"layer{number}/memory/message"]
            if isinstance(layer.memory, SeriesMemory):
                places += [f"layer{number}/series/{part}" for part in ("drive", "term", "message")]
            if layer.hidden is not None:
                places += [f"layer{number}/hidden/drive", f"layer{number}/hidden/message"]
        accumulators = [
            f"{edge.place}/slice{k}"
            for edge in edges(self.network)
            for k in range(len(edge.connection.slices))
        ]
        return [*places, "readout/output", *accumulators]

    def start(self, batch: int) -> State:
        """Return the initial state."""
        zeros = self.engine.zeros
        state = State([zeros(batch, layer.memory.size) for _, layer in self.network.on_chip])
        for target, places in self._into.items():
            width = self.populations.get(target, self.network.n_out)
            state.drives |= {place: ReadyDrive(zeros(batch, width)) for place in places}
        for name, threshold in self.senders:
            if threshold:
                state.last_sent[name, threshold] = zeros(batch, self.populations[name])
        return state

    def advance(self, state: State, x: np.ndarray) -> Any:
        """Advance `state` by one step, in place.

        Parameters
        ----------
        state : State
        x : ndarray, shape (batch, n_in)
            Real inputs.

        Returns
        -------
        y : array, shape (batch, n_out)
        """
        return self.receive(state, self.encode(state, x))

    def encode(self, state: State, x: np.ndarray) -> Any:
        """Encode real inputs of any shape as messages, and count saturations."""
        messages, limited = self.engine.encode(x, self.network.input)
        state.saturations["input"] += limited
        return messages

    def receive(self, state: State, messages: Any) -> Any:
        """Advance `state` by one step with input messages, (batch, n_in), as `advance` does."""
        self._send("input", messages, state)
        for number, layer in self._layers:
            if isinstance(layer.memory, SeriesMemory):
                self._advance_series(number, state)
            else:
                self._advance_memory(number, state)
            if layer.hidden is not None:
                self._advance_hidden(number, state)
        y = self._total("readout", state)
        self._saturate(y, self._output_limit, "readout/output", state)
        return y

    def _advance_memory(self, number: int, state: State) -> None:
        name, m = f"layer{number}/memory", state.m[number]
        if (width := self._lines[number]) is None:
            self._gather(name, m, state)
        else:
            older = m[:, :-width]
            state.m[number] = m = self._total(name, state)
            m[:, width:] = older
        messages, limited, unsent = self.engine.emit(m, *self._limits[name])
        state.saturations[f"{name}/state"] += limited
        state.saturations[f"{name}/message"] += unsent
        self._send(name, messages, state)

    def _advance_series(self, number: int, state: State) -> None:
        name, series, engine = f"layer{number}/memory", f"layer{number}/series", self.engine
        m = engine.numpy(state.m[number])
        message = engine.numpy(state.messages[name]) if name in state.messages else 0 * m
        drive = engine.numpy(self._total(series, state))
        done = self._series[series].advance(m, message, drive)
        for place, count in done.saturations.items():
            state.saturations[f"layer{number}/{place}"] += count
        state.m[number] = engine.array(done.m)
        state.sent[series, 0] = done.sent
        self._send(name, engine.array(done.message), state)

    def _advance_hidden(self, number: int, state: State) -> None:
        activation, name = self._activations[number], f"layer{number}/hidden"
        assert activation is not None
        z = self._total(name, state)
        self._saturate(z, self._drive_limits[name], f"{name}/drive", state)
        messages, limited = activation(z)
        state.saturations[f"{name}/message"] += limited
        self._send(name, messages, state)

    def _total(self, target: str, state: State) -> Any:
        """Return the sum of the drives and the bias of a population, a new array."""
        width = self.populations.get(target, self.network.n_out)
        total = self.engine.zeros(len(state.m[0]), width)
        self._gather(target, total, state)
        return total

    def _gather(self, target: str, total: Any, state: State) -> None:
        """Add the drives and the bias of a population to `total`; count saturations."""
        for place in self._into[target]:
            for accumulator, count in state.drives[place].add_to(total).items():
                state.saturations[accumulator] += count
        if (bias := self._bias.get(target)) is not None:
            total += bias

    def _saturate(self, values: Any, limit: int, place: str, state: State) -> None:
        state.saturations[place] += self.engine.saturate(values, limit)

    def _send(self, name: str, messages: Any, state: State) -> None:
        state.messages[name] = messages
        for threshold, fan in self._fans[name].items():
            sent = received = messages
            if threshold:
                sent = messages - state.last_sent[name, threshold]
                self.engine.suppress(sent, threshold)
                received = state.last_sent[name, threshold] + sent
                state.last_sent[name, threshold] = received
            state.sent[name, threshold] = sent
            if fan is not None:
                state.drives.update(fan.deliver(received))
