"""An integer network made ready to run: its populations in order, and one step of all of them.

Integers are held as float64 throughout, where every operation of the specification is exact (see
fan.py). A drive that a population has been sent stays in `State.drives` until the population uses
it: in the same step when the sender comes before it, in the next when it comes after, which is how
the recurrent connections get their delay of one step.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

import numpy as np

from lmu_deploy.integer_network import Connection, IntegerLayer, IntegerNetwork
from lmu_deploy.wiring import delayed, populations, wires
from targets.integer.activation import Activation
from targets.integer.fan import Fan


@dataclass
class State:
    """All that a batch carries from one step to the next.

    Attributes
    ----------
    m : list of ndarray, shape (batch, states)
        Memory states, a layer each.
    messages : dict of population to ndarray, shape (batch, neurons)
        Last sent.
    drives : dict of connection to ndarray, shape (batch, targets)
        Last delivered.
    saturations : dict of place to int
        So far.
    undelivered : dict of place to int
        Saturations of drives that wait for the next step, and count only if there is one.
    """

    m: list[np.ndarray]
    messages: dict[str, np.ndarray] = field(default_factory=dict)
    drives: dict[str, np.ndarray] = field(default_factory=dict)
    saturations: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    undelivered: dict[str, int] = field(default_factory=dict)

    def copy(self) -> State:
        """Give a state that shares no array with this one."""
        return State(
            [m.copy() for m in self.m],
            {name: array.copy() for name, array in self.messages.items()},
            {name: array.copy() for name, array in self.drives.items()},
            defaultdict(int, self.saturations),
            dict(self.undelivered),
        )


class Machine:
    """Runs an IntegerNetwork step by step on batches.

    Attributes
    ----------
    populations : dict of name to number of neurons
        The input first, then each layer's memory and hidden units.
    """

    def __init__(self, network: IntegerNetwork) -> None:
        self.network = network
        self.populations = {p.name: p.neurons for p in populations(network).values()}
        self._into: dict[str, list[str]] = defaultdict(list)
        self._delayed = tuple(f"{place}/" for place in delayed(network))
        leaving: dict[str, dict[str, Connection]] = defaultdict(dict)
        for wire in wires(network):
            self._into[wire.target].append(wire.place)
            leaving[wire.source][wire.place] = wire.connection
        self.fans = {
            name: Fan(leaving[name], population.message.limit)
            for name, population in populations(network).items()
        }
        self._activations = [
            None if layer.hidden is None else Activation(layer.hidden) for layer in network.layers
        ]

    def places(self) -> list[str]:
        """All places where saturations are counted, in the order of the populations."""
        places = ["input"]
        for number, layer in enumerate(self.network.layers):
            places += [f"layer{number}/memory/state", f"layer{number}/memory/message"]
            if layer.hidden is not None:
                places += [f"layer{number}/hidden/drive", f"layer{number}/hidden/message"]
        return [*places, "readout/output", *(p for fan in self.fans.values() for p in fan.places)]

    def start(self, batch: int) -> State:
        """Give the state before the first step."""
        state = State([np.zeros((batch, layer.memory.size)) for layer in self.network.layers])
        for target, places in self._into.items():
            width = self.populations.get(target, self.network.n_out)
            state.drives.update({place: np.zeros((batch, width)) for place in places})
        return state

    def advance(self, state: State, x: np.ndarray) -> np.ndarray:
        """Advance `state` by one step, in place.

        Parameters
        ----------
        state : State
        x : ndarray, shape (batch, n_in)
            Real inputs.

        Returns
        -------
        y : ndarray, shape (batch, n_out), float64 integers
        """
        network = self.network
        for place, count in state.undelivered.items():
            state.saturations[place] += count
        state.undelivered.clear()
        messages = np.rint(x / network.input.scale)
        _saturate(messages, network.input.limit, "input", state)
        self._send("input", messages, state)
        for number, layer in enumerate(network.layers):
            self._advance_memory(number, layer, state)
            if layer.hidden is not None:
                self._advance_hidden(number, layer, state)
        y = self._total("readout", network.readout.bias, state)
        _saturate(y, network.readout.output.limit, "readout/output", state)
        return y

    def _advance_memory(self, number: int, layer: IntegerLayer, state: State) -> None:
        memory, name = layer.memory, f"layer{number}/memory"
        m = state.m[number]
        m += self._total(name, memory.bias, state)
        _saturate(m, memory.state.limit, f"{name}/state", state)
        messages = m * 2.0**-memory.message_shift
        if memory.message_shift > 0:
            messages += 0.5
            np.floor(messages, out=messages)
        _saturate(messages, memory.message.limit, f"{name}/message", state)
        self._send(name, messages, state)

    def _advance_hidden(self, number: int, layer: IntegerLayer, state: State) -> None:
        hidden, activation, name = layer.hidden, self._activations[number], f"layer{number}/hidden"
        assert hidden is not None
        assert activation is not None
        z = self._total(name, hidden.bias, state)
        _saturate(z, hidden.drive.limit, f"{name}/drive", state)
        messages, limited = activation(z)
        state.saturations[f"{name}/message"] += limited
        self._send(name, messages, state)

    def _total(self, target: str, bias: np.ndarray | None, state: State) -> np.ndarray:
        """Sum what has reached a population; a new array."""
        first, *others = (state.drives[place] for place in self._into[target])
        total = first + bias if bias is not None else first.copy()
        for other in others:
            total += other
        return total

    def _send(self, name: str, messages: np.ndarray, state: State) -> None:
        state.messages[name] = messages
        drives, limited = self.fans[name].deliver(messages)
        state.drives.update(drives)
        for place, count in limited.items():
            if place.startswith(self._delayed):
                state.undelivered[place] = count
            else:
                state.saturations[place] += count


def _saturate(values: np.ndarray, limit: int, place: str, state: State) -> None:
    """Limit integers to +-limit in place, and count those that it changes."""
    if not values.size or (values.max() <= limit and values.min() >= -limit):
        return
    state.saturations[place] += int(np.count_nonzero(np.abs(values) > limit))
    np.clip(values, -limit, limit, out=values)
