"""Components of an integer network on an engine: what computes new frames of its populations."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol
from weakref import proxy

import numpy as np

from lmu_deploy.core.integer.graph import Component
from lmu_deploy.core.integer.network import HostNodes, Node, Reading
from lmu_deploy.core.integer.parts import Edge, Place
from lmu_deploy.core.integer.populations import Input, Population
from lmu_deploy.core.integer.reductions import Reduction
from targets.host import HostStreams, each
from targets.integer.engine import Engine, Fan
from targets.integer.operands import Drive, ReadyDrive

if TYPE_CHECKING:
    from targets.integer.machine import Machine

OutletKey = tuple[Place, int]
"""A source and a threshold."""
REAL = -1
"""In place of a threshold, in keys of the real values that the host reads."""


@dataclass
class Produced:
    """New frames of one population.

    Attributes
    ----------
    first : int
        Number of the first of them in its sequence.
    values : array, shape (frames, batch, neurons)
        What is recorded: states, messages, or real values of the host.
    sent : dict of (source, threshold) to array, shape (frames, batch, neurons)
        Nonzero where an event was sent; for a series the number of events.
    """

    first: int
    values: Any
    sent: dict[OutletKey, Any] = field(default_factory=dict)


@dataclass
class Buffer:
    """Frames of a source that someone still needs.

    Attributes
    ----------
    shape : (batch, neurons)
    first : int
        Number of the first frame that is kept.
    count : int
        Number of frames so far, those dropped included.
    blocks : list of arrays, shape (frames, batch, neurons)
    """

    shape: tuple[int, int]
    first: int = 0
    count: int = 0
    blocks: list[Any] = field(default_factory=list)

    def append(self, frames: Any) -> None:
        """Add new frames."""
        if len(frames):
            self.blocks.append(frames)
            self.count += len(frames)

    def drop(self, before: int) -> None:
        """Drop frames with smaller numbers."""
        while self.blocks and self.first + len(self.blocks[0]) <= before:
            self.first += len(self.blocks.pop(0))
        if self.blocks and before > self.first:
            self.blocks[0] = self.blocks[0][before - self.first :]
            self.first = before

    def window(self, start: int, stop: int, engine: Engine | None) -> Any:
        """Return frames start to stop - 1; those before the first and after the last are zero.

        Without an engine the frames are real values of NumPy.
        """
        low, high = max(start, 0), min(stop, self.count)
        parts, at = [], self.first
        for block in self.blocks:
            part = block[max(low - at, 0) : max(high - at, 0)]
            if len(part):
                parts.append(part)
            at += len(block)
        if len(parts) == 1 and (low, high) == (start, stop):
            return parts[0]
        there = [part if engine is None else engine.numpy(part) for part in parts]
        found = np.zeros((stop - start, *self.shape), there[0].dtype if there else np.float64)
        if there:
            found[low - start : high - start] = np.concatenate(there)
        return found if engine is None else engine.array(found)


@dataclass
class State:
    """State of a batch between two chunks.

    Attributes
    ----------
    batch : int
    own : dict of Place to the state of a population
    drives : dict of edge to Drive
        Of edges within a component, delivered last.
    held : dict of (source, threshold) to array, shape (batch, neurons)
        The message at the receivers of each outlet with a threshold.
    buffers : dict of (source, threshold) to Buffer
    produced : dict of Place to int
        Number of frames so far.
    saturations : dict of place to int
    """

    batch: int
    own: dict[Place, Any] = field(default_factory=dict)
    drives: dict[str, Drive] = field(default_factory=dict)
    held: dict[OutletKey, Any] = field(default_factory=dict)
    buffers: dict[OutletKey, Buffer] = field(default_factory=dict)
    produced: dict[Place, int] = field(default_factory=dict)
    saturations: dict[str, int] = field(default_factory=dict)

    def copy(self, machine: Machine) -> State:
        """Return an independent copy."""
        return State(
            self.batch,
            {place: machine.copied(place, own) for place, own in self.own.items()},
            {place: drive.snapshot() for place, drive in self.drives.items()},
            dict(self.held),
            {key: replace(b, blocks=list(b.blocks)) for key, b in self.buffers.items()},
            dict(self.produced),
            dict(self.saturations),
        )

    def count(self, saturations: Iterable[tuple[str, int]]) -> None:
        """Add saturations."""
        for place, number in saturations:
            if number:
                self.saturations[place] = self.saturations.get(place, 0) + number


class Runner(Protocol):
    """Computation of a component."""

    @property
    def places(self) -> tuple[Place, ...]:
        """Places of the populations."""

    def start(self, state: State) -> None:
        """Add the initial state."""

    def ready(self, state: State, ended: set[Place]) -> int:
        """Return how many new frames can be computed; `ended` are the sources without more."""

    def advance(self, state: State, frames: int, record: bool) -> dict[Place, Produced]:
        """Compute new frames of all populations."""

    def finish(self, state: State) -> dict[Place, Produced]:
        """Compute what appears at the end of the sequence."""

    def needed(self, state: State) -> Iterable[tuple[OutletKey, int]]:
        """Yield the number of the first frame of every source that is still needed."""


def _borrowed(machine: Machine) -> Machine:
    """Return a machine for a runner that it owns.

    A reference would close a cycle, and the buffers of finished runs would stay until the next
    collection.
    """
    lent: Machine = proxy(machine)
    return lent


@dataclass(frozen=True)
class _Inflow:
    """Edges into one component that read the same frames of the same source."""

    key: OutletKey
    edges: tuple[Edge, ...]
    fan: Fan

    @property
    def sample(self) -> Edge:
        """Return one of the edges; all have the same offsets and stride."""
        return self.edges[0]


class ChipRunner:
    """A component of populations on the chip."""

    def __init__(self, machine: Machine, component: Component) -> None:
        self._machine, self._component = _borrowed(machine), component
        self._populations = [p for p in component.populations if isinstance(p, Population)]
        self.places = tuple(p.place for p in self._populations)
        engine = machine.engine
        groups: dict[tuple[Any, ...], list[Edge]] = {}
        for edge in component.outside:
            key = edge.source, edge.connection.threshold, edge.offsets, edge.stride, edge.after
            groups.setdefault(key, []).append(edge)
        self._inflows = [
            _Inflow((key[0], key[1]), tuple(members), machine.fan(key[0], members))
            for key, members in groups.items()
        ]
        self._own: dict[Place, list[Edge]] = {p.entrance: [] for p in self._populations}
        leaving: dict[OutletKey, list[Edge]] = {}
        for edge in component.inside:
            moved = edge.source == edge.target and machine.rules[edge.target].moves
            if not moved:
                self._own[edge.target].append(edge)
                leaving.setdefault((edge.source, edge.connection.threshold), []).append(edge)
        self._fans = {key: machine.fan(key[0], members) for key, members in leaving.items()}
        self._engine = engine

    def start(self, state: State) -> None:
        """Add the initial state, and the drives of the messages before the first frame."""
        for population in self._populations:
            state.own[population.place] = self._machine.rules[population.place].start(state.batch)
        for edges in self._own.values():
            for edge in edges:
                zeros = self._engine.zeros(state.batch, edge.connection.n_out)
                state.drives[edge.place] = ReadyDrive(zeros)
        for population in self._populations:
            if (first := population.first_message) is None:
                continue
            message = self._engine.array(np.tile(first, (state.batch, 1)))
            for key in self._machine.outlets_of[population.place]:
                if key[1]:
                    state.held[key] = message
                if (fan := self._fans.get(key)) is not None:
                    drives = fan.deliver(message)
                    state.drives |= {place: drive.snapshot() for place, drive in drives.items()}

    def ready(self, state: State, ended: set[Place]) -> int:
        """Return how many new frames can be computed."""
        limits = []
        for inflow in self._inflows:
            edge, count = inflow.sample, state.buffers[inflow.key].count
            limits.append(edge.frames(count, edge.source in ended))
        return max(min(limits, default=0) - state.produced[self.places[0]], 0)

    def advance(self, state: State, frames: int, record: bool) -> dict[Place, Produced]:
        """Compute new frames of all populations."""
        first = state.produced[self.places[0]]
        totals = self._totals(state, first, frames)
        if self._component.stateless:
            (population,) = self._populations
            found = {population.place: self._whole(population, totals, state, first)}
        else:
            found = self._stepwise(state, totals, first, frames, record)
        for place in self.places:
            state.produced[place] = first + frames
        return found

    def finish(self, state: State) -> dict[Place, Produced]:
        """Return the frame of a reduction."""
        population = self._populations[0]
        if not isinstance(population, Reduction):
            return {}
        messages, counts = population.finish(state.own[population.place])
        state.count((f"{population.place}/{name}", n) for name, n in counts.items())
        frame = self._engine.array(messages[None])
        produced = Produced(0, frame)
        self._machine.send(population.place, produced, frame, state)
        state.produced[population.place] = 1
        return {population.place: produced}

    def needed(self, state: State) -> Iterable[tuple[OutletKey, int]]:
        """Yield the first frame of every source that the next frame reads."""
        done = state.produced[self.places[0]]
        for inflow in self._inflows:
            edge = inflow.sample
            yield inflow.key, done * edge.stride + min(edge.offsets)

    def _totals(self, state: State, first: int, frames: int) -> dict[Place, Any]:
        """Return the drive of every population from outside, (frames, batch, drive_size)."""
        engine, rows = self._engine, frames * state.batch
        totals = {p.entrance: engine.zeros(rows, p.drive_size) for p in self._populations}
        for inflow in self._inflows:
            buffer, edge = state.buffers[inflow.key], inflow.sample
            start, stop = first * edge.stride, (first + frames - 1) * edge.stride + 1
            taps = [
                buffer.window(start + offset, stop + offset, engine)[:: edge.stride]
                for offset in edge.offsets
            ]
            signal = taps[0] if len(taps) == 1 else engine.side_by_side(taps)
            drives = inflow.fan.deliver(signal.reshape(rows, -1))
            for each_edge in inflow.edges:
                total = _columns(totals[each_edge.target], each_edge)
                state.count(drives[each_edge.place].add_to(total).items())
        return {place: t.reshape(frames, state.batch, -1) for place, t in totals.items()}

    def _whole(
        self, population: Population, totals: dict[Place, Any], state: State, first: int
    ) -> Produced:
        """Compute all frames of a population without memory."""
        total = totals[population.entrance]
        frames, batch, width = total.shape
        rule = self._machine.rules[population.place]
        _, messages, counts = rule.advance(None, total.reshape(frames * batch, width))
        state.count(counts)
        messages = messages.reshape(frames, batch, -1)
        produced = Produced(first, messages)
        self._machine.send(population.place, produced, messages, state)
        return produced

    def _stepwise(
        self, state: State, totals: dict[Place, Any], first: int, frames: int, record: bool
    ) -> dict[Place, Produced]:
        """Advance all populations frame by frame."""
        machine, room = self._machine, self._engine.room
        found: dict[Place, Produced] = {}
        received: dict[OutletKey, Any] = {}
        for p in self._populations:
            shape = frames, state.batch, p.size
            messages = room(*shape)
            keep = record and not p.stateless
            found[p.place] = Produced(first, room(*shape) if keep else messages)
            for key in machine.outlets_of[p.place]:
                plain = key == (p.place, 0)
                found[p.place].sent[key] = messages if plain else room(*shape)
                received[key] = messages if plain else room(*shape)
            received.setdefault((p.place, 0), messages)
        # A step takes a fraction of a millisecond; what is the same for all is looked up once.
        plan = [
            (
                p.place,
                machine.rules[p.place],
                totals[p.entrance],
                [(e.place, _columns(totals[p.entrance], e)) for e in self._own[p.entrance]],
                received[p.place, 0],
                found[p.place],
                machine.outlets_of[p.place] if machine.rules[p.place].emits else (),
            )
            for p in self._populations
        ]
        for t in range(frames):
            for place, rule, total, drives, sent, produced, outlets in plan:
                for edge, columns in drives:
                    state.count(state.drives[edge].add_to(columns[t]).items())
                own, messages, limited = rule.advance(state.own[place], total[t])
                state.own[place] = own
                state.count(limited)
                sent[t] = messages
                if produced.values is not sent:
                    produced.values[t] = rule.recorded(own, messages)
                for key in outlets:
                    known = messages
                    if key[0] != place:
                        produced.sent[key][t] = rule.sent(own)
                    elif key[1]:
                        known, produced.sent[key][t] = machine.suppress(key, messages, state)
                        received[key][t] = known
                    if (fan := self._fans.get(key)) is not None:
                        state.drives.update(fan.deliver(known))
        for p in self._populations:
            for key in machine.outlets_of[p.place]:
                if key[0] == p.place and machine.rules[p.place].emits:
                    state.buffers[key].append(received[key])
        return {p: v for p, v in found.items() if machine.rules[p].emits}


def _columns(total: Any, edge: Edge) -> Any:
    """Return the columns of a drive that an edge adds to."""
    width = edge.connection.n_out
    if not edge.row and total.shape[-1] == width:
        return total
    return total[..., edge.row : edge.row + width]


class HostRunner:
    """Nodes on the host; every sample is computed by itself, so that batches change no bit."""

    def __init__(self, machine: Machine, host: HostNodes, readings: list[Reading]) -> None:
        self._machine, self._host, self._readings = _borrowed(machine), host, readings
        self.places = (host.place,)
        self._keys = [(r.source, self._threshold(machine.network[r.source])) for r in readings]

    @staticmethod
    def _threshold(source: Node) -> int:
        real = isinstance(source, Input) and not source.tokens
        real = real or (isinstance(source, HostNodes) and source.message is None)
        return REAL if real else 0

    def start(self, state: State) -> None:
        """Add the states of all operators."""
        state.own[self._host.place] = HostStreams(self._host.network, state.batch)

    def ready(self, state: State, ended: set[Place]) -> int:
        """Return how many frames of all that is read are there."""
        counts = [state.buffers[key].count for key in self._keys]
        return min(counts) - self._read(state)

    def _read(self, state: State) -> int:
        return int(state.own[self._host.place].taken)

    def advance(self, state: State, frames: int, record: bool) -> dict[Place, Produced]:
        """Feed frames to the operators; return those that are ready."""
        streams, first = state.own[self._host.place], self._read(state)
        signals = []
        for reading, key in zip(self._readings, self._keys, strict=True):
            machine = self._machine
            if key[1] == REAL:
                values = state.buffers[key].window(first, first + frames, None)
            else:
                block = state.buffers[key].window(first, first + frames, machine.engine)
                message = machine.network[reading.source].message
                assert message is not None
                values = machine.engine.numpy(block) * message.scale
            if reading.matrix is not None:
                rows = each(values.reshape(-1, values.shape[2]), reading.matrix.T)
                values = rows.reshape(frames, state.batch, -1)
            signals.append(values)
        signal = signals[0]
        for other in signals[1:]:
            signal = signal + other
        return self._found(state, [y for x in signal for y in streams.push(x)])

    def finish(self, state: State) -> dict[Place, Produced]:
        """Return the frames that appear at the end."""
        return self._found(state, state.own[self._host.place].finish())

    def _found(self, state: State, frames: list[np.ndarray]) -> dict[Place, Produced]:
        place = self._host.place
        if not frames:
            return {}
        values = np.stack(frames)
        produced = Produced(state.produced[place], values)
        state.produced[place] += len(values)
        state.buffers[place, REAL].append(values)
        if self._host.message is not None:
            messages, limited = self._machine.engine.encode(values, self._host.message)
            state.count([(str(place), limited)])
            self._machine.send(place, produced, messages, state)
        return {place: produced}

    def needed(self, state: State) -> Iterable[tuple[OutletKey, int]]:
        """Yield the next frame to read of every source."""
        for key in self._keys:
            yield key, self._read(state)
