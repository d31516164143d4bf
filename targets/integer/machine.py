"""An integer network on an engine: all populations, chunk by chunk of a sequence.

Populations that do not feed back are computed for all frames of a chunk at once, so that their
synapses are one large product. Populations that feed back into each other advance frame by frame;
what enters them from outside is computed before, for the whole chunk. Chunks of one frame make a
stream. The arrays are an engine's (engine.py); the first axis is the frame, the second the sample.

A frame of a population can be computed when its edges' frames are there. Sources keep the frames
that someone still needs, so that convolutions, strides and branches of different delays need no
other treatment.

The update rules of integrators, pointwise units and outputs are made of the engine's operations.
All others call the definition, :meth:`lmu_deploy.core.integer.populations.Population.update`.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from typing import Any

import numpy as np

from lmu_deploy.core.integer.graph import (
    Outlet,
    components,
    event_outlets,
    memory_line,
    saturation_places,
    sources,
)
from lmu_deploy.core.integer.memories import Integrators, Series
from lmu_deploy.core.integer.network import HostNodes, IntegerNetwork
from lmu_deploy.core.integer.parts import Edge, Place
from lmu_deploy.core.integer.populations import Input, Output, Pointwise, Population
from lmu_deploy.core.integer.reductions import Reduction
from targets.integer.components import (
    REAL,
    Buffer,
    ChipRunner,
    HostRunner,
    OutletKey,
    Produced,
    Runner,
    State,
)
from targets.integer.engine import Engine, Fan, Sender

Counted = Iterable[tuple[str, int]]
"""Places and how many values saturated there."""


class Rule:
    """The definition, in int64.

    Attributes
    ----------
    moves : bool
        Whether a memory's own recurrent edge only moves its states, which needs no product.
    emits : bool
        Whether messages leave at every frame, not only at the end.
    """

    moves = False
    emits = True

    def __init__(self, population: Population, engine: Engine) -> None:
        self.population, self.engine = population, engine
        self.emits = not isinstance(population, Reduction)

    def start(self, batch: int) -> Any:
        """Return the state before the first frame."""
        return self.population.start(batch)

    def copy(self, state: Any) -> Any:
        """Return a state that does not change when the rule advances again."""
        return state

    def advance(self, state: Any, total: Any) -> tuple[Any, Any, Counted]:
        """Update by one frame.

        Parameters
        ----------
        state : what `start` or the last call returned
        total : array, shape (batch, drive_size)
            Sum of the drives, which the rule may overwrite.

        Returns
        -------
        state
        messages : array, shape (batch, size)
        saturations : pairs of place and count
        """
        drive = self.engine.numpy(total).astype(np.int64)
        state, messages, counts = self.population.update(state, drive)
        place = self.population.place
        named = [(f"{place}/{name}", number) for name, number in counts.items()]
        return state, self.engine.array(messages), named

    def recorded(self, state: Any, messages: Any) -> Any:
        """Return what is recorded of a frame."""
        return messages

    def sent(self, state: Any) -> Any:
        """Return the events of a source inside the population, such as the terms of a series."""
        raise NotImplementedError


class IntegratorRule(Rule):
    """Integrators: the states change in place."""

    def __init__(self, population: Integrators, engine: Engine, width: int | None) -> None:
        super().__init__(population, engine)
        self._width, self.moves = width, width is not None
        self._limits = population.state.limit, population.message_shift, population.message.limit
        self._bias = None if population.bias is None else engine.array(population.bias)
        self._places = population.saturation_places

    def start(self, batch: int) -> Any:
        """Return states of zero."""
        return self.engine.zeros(batch, self.population.size)

    def copy(self, state: Any) -> Any:
        """Copy the states."""
        return self.engine.copy(state)

    def advance(self, state: Any, total: Any) -> tuple[Any, Any, Counted]:
        """Integrate; a delay line moves its states instead."""
        if self._width is None:
            state += total
            if self._bias is not None:
                state += self._bias
        else:
            total[:, self._width :] = state[:, : -self._width]
            state = total
        messages, limited, unsent = self.engine.emit(state, *self._limits)
        return state, messages, zip(self._places, (limited, unsent), strict=True)

    def recorded(self, state: Any, messages: Any) -> Any:
        """Return the states."""
        return state


class PointwiseRule(Rule):
    """Units with a function, by a table or by lines."""

    def __init__(self, population: Pointwise, engine: Engine) -> None:
        super().__init__(population, engine)
        self._function, self._limit = engine.activation(population), population.drive.limit
        self._bias = None if population.bias is None else engine.array(population.bias)
        self._places = population.saturation_places

    def advance(self, state: Any, total: Any) -> tuple[Any, Any, Counted]:
        """Apply the function."""
        if self._bias is not None:
            total += self._bias
        limited = self.engine.saturate(total, self._limit)
        messages, unsent = self._function(total)
        return state, messages, zip(self._places, (limited, unsent), strict=True)


class OutputRule(Rule):
    """Outputs: limited sums."""

    def __init__(self, population: Output, engine: Engine) -> None:
        super().__init__(population, engine)
        self._bias = None if population.bias is None else engine.array(population.bias)

    def advance(self, state: Any, total: Any) -> tuple[Any, Any, Counted]:
        """Limit the sums."""
        if self._bias is not None:
            total += self._bias
        limited = self.engine.saturate(total, self.population.message.limit)
        return state, total, [(self.population.saturation_places[0], limited)]


class SeriesRule(Rule):
    """A Taylor series, on integers of NumPy or compiled."""

    def __init__(self, population: Series, engine: Engine) -> None:
        super().__init__(population, engine)
        self._step = engine.series(population)

    def advance(self, state: Any, total: Any) -> tuple[Any, Any, Counted]:
        """Apply all terms of all substeps; the counts already have whole places."""
        drive = self.engine.numpy(total).astype(np.int64)
        state, messages, counts = self._step(state, drive)
        return state, self.engine.array(messages), counts.items()

    def recorded(self, state: Any, messages: Any) -> Any:
        """Return the states."""
        return self.engine.array(state[0])

    def sent(self, state: Any) -> Any:
        """Return how many messages each neuron sent to the series itself."""
        return self.engine.array(state[2])


def make_rule(population: Population, network: IntegerNetwork, engine: Engine) -> Rule:
    """Return the rule of a population on an engine."""
    if isinstance(population, Integrators):
        return IntegratorRule(population, engine, memory_line(network, population))
    if isinstance(population, Pointwise):
        return PointwiseRule(population, engine)
    if isinstance(population, Output):
        return OutputRule(population, engine)
    if isinstance(population, Series):
        return SeriesRule(population, engine)
    return Rule(population, engine)


_VALUES_AT_ONCE = 2**22
_LONGEST_CHUNK = 1024


class Machine:
    """Runs an IntegerNetwork chunk by chunk on batches.

    Attributes
    ----------
    network : IntegerNetwork
    engine : Engine
    sources : dict of Place to Source
        Everything that sends events, in order.
    rules : dict of Place to Rule
    outlets_of : dict of Place to list of (source, threshold)
        Outlets of each population.
    senders : dict of (source, threshold) to list of Sender
        Event counters of each outlet, one for each phase of its strides.
    places_of : dict of (source, threshold) to list of str
        The edges that each outlet serves.
    """

    def __init__(self, network: IntegerNetwork, engine: Engine) -> None:
        self.network, self.engine = network, engine
        self.sources = sources(network)
        self.rules: dict[Place, Rule] = {}
        for population in network.populations:
            if isinstance(population, Population) and not isinstance(population, Input):
                rule = make_rule(population, network, engine)
                self.rules[population.place] = self.rules[population.entrance] = rule
        self.outlets_of: dict[Place, list[OutletKey]] = {p.place: [] for p in network.populations}
        self.senders: dict[OutletKey, list[Sender]] = {}
        self.places_of: dict[OutletKey, list[str]] = {}
        for outlet in event_outlets(network):
            self._add(outlet)
        self._runners: list[Runner] = []
        for component in components(network):
            first = component.populations[0]
            if isinstance(first, HostNodes):
                readings = [r for r in network.readings if r.target == first.place]
                self._runners.append(HostRunner(self, first, readings))
            elif not isinstance(first, Input):
                self._runners.append(ChipRunner(self, component))

    def _add(self, outlet: Outlet) -> None:
        key = outlet.source, outlet.threshold
        owner = self.network[outlet.source]
        self.outlets_of[owner.place].append(key)
        self.places_of[key] = [edge.place for edge in outlet.edges]
        if isinstance(owner, Series) and outlet.source == owner.inner:
            self.senders[key] = [self.engine.series_sender(owner)]
            return
        none = np.zeros(owner.size, np.int64)
        fan_outs = [outlet.fan_out(n) if outlet.edges else none for n in range(outlet.period)]
        self.senders[key] = [self.engine.sender(fan_out) for fan_out in fan_outs]

    def fan(self, source: Place, members: Iterable[Edge]) -> Fan:
        """Return the synapses of edges from one source."""
        connections = {edge.place: edge.connection for edge in members}
        return self.engine.fan(connections, self.sources[source].message.limit)

    def copied(self, place: Place, own: Any) -> Any:
        """Return an independent copy of the state of a population."""
        return self.rules[place].copy(own) if place in self.rules else own.copy()

    @cached_property
    def _widest(self) -> int:
        """Number of values of a frame of the widest signal."""
        widths = [1]
        for population in self.network.populations:
            widths += [population.size, population.drive_size]
        widths += [edge.connection.slices[..., 0].size for edge in self.network.edges]
        return max(widths)

    def frames_at_once(self, batch: int) -> int:
        """Return how many steps of the input are computed at once."""
        return int(np.clip(_VALUES_AT_ONCE // (batch * self._widest), 1, _LONGEST_CHUNK))

    def places(self) -> list[str]:
        """Return all places where saturations are counted, in the order of the populations."""
        return saturation_places(self.network)

    def start(self, batch: int) -> State:
        """Return the initial state."""
        state = State(batch)
        for population in self.network.populations:
            state.produced[population.place] = 0
            shape = batch, population.size
            for key in self.outlets_of[population.place]:
                state.buffers[key] = Buffer(shape)
                if key[1]:
                    state.held[key] = self.engine.zeros(*shape)
            features = population.features if isinstance(population, Input) else population.size
            state.buffers[population.place, REAL] = Buffer((batch, features))
        for runner in self._runners:
            runner.start(state)
        return state

    def feed(
        self, state: State, x: np.ndarray, end: bool = False, record: bool = False
    ) -> dict[Place, list[Produced]]:
        """Take steps of the input; return the new frames of every population.

        Parameters
        ----------
        state : State
            Changed in place.
        x : ndarray, shape (steps, batch, features)
            Real inputs.
        end : bool
            Whether the sequence ends with them.
        record : bool
            Whether states are recorded; otherwise `Produced.values` of a population with states
            are its messages.
        """
        found = self._encode(state, x)
        ended = {self.network.input.place} if end else set()
        for runner in self._runners:
            while frames := runner.ready(state, ended):
                now = min(frames, self.frames_at_once(state.batch))
                _extend(found, runner.advance(state, now, record))
            if end:
                _extend(found, runner.finish(state))
                ended.update(runner.places)
        needed: dict[OutletKey, int] = {}
        for runner in self._runners:
            for key, frame in runner.needed(state):
                needed[key] = min(needed.get(key, frame), frame)
        for key, buffer in state.buffers.items():
            buffer.drop(max(needed.get(key, buffer.count), 0))
        return found

    def _encode(self, state: State, x: np.ndarray) -> dict[Place, list[Produced]]:
        """Encode real inputs as messages, where the chip reads them."""
        entry = self.network.input
        first, state.produced[entry.place] = (
            state.produced[entry.place],
            state.produced[entry.place] + len(x),
        )
        x = entry.scaled(np.asarray(x, np.float64))
        state.buffers[entry.place, REAL].append(x)
        if entry.place not in self.sources or not len(x):
            return {}
        if entry.tokens:
            messages = self.engine.array(entry.one_hot(x))
        else:
            messages, limited = self.engine.encode(x, entry.message)
            state.count([(str(entry.place), limited)])
        produced = Produced(first, messages)
        self.send(entry.place, produced, messages, state)
        return {entry.place: [produced]}

    def numpy(self, values: Any) -> np.ndarray:
        """Return values of an engine, or real values of the host, as NumPy."""
        return values if isinstance(values, np.ndarray) else self.engine.numpy(values)

    def output(self, produced: Produced) -> np.ndarray:
        """Return frames of the output: integers, or real values of the host."""
        values = self.numpy(produced.values)
        on_host = isinstance(self.network[self.network.output], HostNodes)
        return values if on_host else values.astype(np.int64)

    def send(self, place: Place, produced: Produced, messages: Any, state: State) -> None:
        """Send frames of a population: changes under thresholds, messages otherwise."""
        for key in self.outlets_of[place]:
            received = sent = messages
            if key[1]:
                received, sent = (self.engine.room(*messages.shape) for _ in range(2))
                for t in range(len(messages)):
                    received[t], sent[t] = self.suppress(key, messages[t], state)
            produced.sent[key] = sent
            state.buffers[key].append(received)

    def suppress(self, key: OutletKey, messages: Any, state: State) -> tuple[Any, Any]:
        """Return the receivers' values of messages under a threshold, and the changes sent."""
        sent = messages - state.held[key]
        self.engine.suppress(sent, key[1])
        state.held[key] = state.held[key] + sent
        return state.held[key], sent


def _extend(found: dict[Place, list[Produced]], more: dict[Place, Produced]) -> None:
    for place, produced in more.items():
        found.setdefault(place, []).append(produced)
