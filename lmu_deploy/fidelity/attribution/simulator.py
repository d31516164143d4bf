"""Hybrid simulator: a network between its float and its integer form, in float64.

All numbers are in the units of the formats of the integer network. With all operations enabled
they are integers and equal those of the integer target with ``==``. With none they equal the float
reference up to rounding errors of float64. Tests check both extremes.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from lmu_deploy.core.integer.graph import Component, components, frame_counts, sources
from lmu_deploy.core.integer.memories import Integrators, Series
from lmu_deploy.core.integer.network import HostNodes, IntegerNetwork
from lmu_deploy.core.integer.parts import Edge, Format, Place
from lmu_deploy.core.integer.populations import Input, Population
from lmu_deploy.core.integer.reductions import Reduction
from lmu_deploy.fidelity.attribution.counterpart import FloatCounterpart, float_counterpart
from lmu_deploy.fidelity.attribution.memories import HybridIntegrators, HybridMemory, HybridSeries
from lmu_deploy.fidelity.attribution.switches import Switches, Synapses, Tally, limited, rounded_at
from lmu_deploy.fidelity.attribution.units import UNITS, HybridUnits
from targets.host import HostStreams, each


@dataclass
class Recording:
    """Frames of all populations of a batch, in units of their formats.

    Attributes
    ----------
    messages : dict of Place to list of ndarray, shape (batch, size)
        One for each frame; real numbers of a host that sends none.
    states : dict of Place to list of ndarray, shape (batch, size)
        Of the populations that keep states.
    tails : dict of Place to list of ndarray, shape (batch, Legendre states)
        Responses of delay lines to inputs beyond the last tap, in real units.
    """

    messages: dict[Place, list[np.ndarray]] = field(default_factory=dict)
    states: dict[Place, list[np.ndarray]] = field(default_factory=dict)
    tails: dict[Place, list[np.ndarray]] = field(default_factory=dict)

    def delivered(self, edge: Edge, n: int) -> np.ndarray:
        """Return the messages that a frame of an edge's target reads, without thresholds."""
        return taps(edge, self.messages[edge.source], n)

    def memory(self, memory: Integrators | Series, n: int) -> np.ndarray:
        """Return a frame of a memory in the float network's coordinates and units."""
        values = self.states[memory.place][n] * memory.state.scale
        if memory.basis is not None:
            values = values @ memory.basis.T
        tails = self.tails.get(memory.place)
        return values if tails is None else values + tails[n]


class HybridSimulator:
    """Simulator of an integer network in which selected operations are those of the float network.

    Parameters
    ----------
    network : IntegerNetwork
    switches : Switches
        Operations of the integer network that are enabled.
    counterpart : FloatCounterpart, optional
        Result of :func:`float_counterpart` for `network`.
    tally : Tally, optional
        Recorder of sums and saturations.

    Raises
    ------
    InputError
        When the network does not contain its float network.
    """

    def __init__(
        self,
        network: IntegerNetwork,
        switches: Switches,
        counterpart: FloatCounterpart | None = None,
        tally: Tally | None = None,
    ) -> None:
        self.network, self.switches, self.tally = network, switches, tally
        self.counterpart = float_counterpart(network) if counterpart is None else counterpart
        self._components = components(network)
        self._into: dict[Place, list[tuple[Edge, Synapses]]] = {}
        for edge in network.edges:
            target = network[edge.target]
            assert isinstance(target, Population)
            synapses = Synapses(
                edge.place,
                edge.connection,
                self.counterpart.matrices[edge.place],
                switches.has("width", rounded_at(target)),
                switches,
                tally,
            )
            self._into.setdefault(edge.target, []).append((edge, synapses))
        self._biases = {
            p.entrance: self._bias(f"{p.entrance}/bias", p.bias)
            for p in network.on_chip
            if p.bias is not None
        }

    def run(self, inputs: np.ndarray) -> Recording:
        """Run real inputs, shape (batch, steps, n_in), from the initial states."""
        return _Run(self, inputs).recording

    def _bias(self, place: str, bias: np.ndarray) -> np.ndarray:
        """Return integer biases for enabled rows, unrounded ones for the others."""
        whole = bias.astype(np.float64)
        if self.switches.has("weights", place):
            return whole
        mixed = self.counterpart.biases[place].copy()
        rows = self.switches.rows(place)
        mixed[rows] = whole[rows]
        return mixed

    def memory(self, memory: Integrators | Series, batch: int) -> HybridMemory:
        """Return a memory in its initial state."""
        given = self.switches, self.tally
        if isinstance(memory, Series):
            return HybridSeries(memory, self.counterpart.series[memory.place], batch, *given)
        layer = self.counterpart.layers[memory.place]
        return HybridIntegrators(memory, self.network, layer, batch, *given)

    def units(self, population: Population, batch: int) -> HybridUnits:
        """Return another population in its initial state."""
        made = UNITS[type(population)]
        return made(population, self.counterpart, batch, self.switches, self.tally)


class _Run:
    """One run of a hybrid simulator on a batch, population by population."""

    def __init__(self, hybrid: HybridSimulator, inputs: np.ndarray) -> None:
        self._hybrid, self._network = hybrid, hybrid.network
        self._batch, steps = inputs.shape[:2]
        self._frames = frame_counts(self._network, steps)
        real = self._network.input.scaled(inputs.astype(np.float64))
        self._real = [real[:, t] for t in range(steps)]
        self._first: dict[Place, np.ndarray] = {}
        self._known: dict[str, list[np.ndarray]] = {}
        self._thresholds = {
            edge.place: edge.connection.threshold
            for edge in self._network.edges
            if hybrid.switches.has("threshold", edge.place)
        }
        self.recording = Recording()
        for component in hybrid._components:
            first = component.populations[0]
            if isinstance(first, Input):
                self._enter(first)
            elif isinstance(first, HostNodes):
                self._compute(first)
            else:
                self._advance(component)

    # What is outside the chip

    def _enter(self, entry: Input) -> None:
        messages = self.recording.messages.setdefault(entry.place, [])
        if entry.place not in sources(self._network):
            messages += [np.zeros((self._batch, entry.size)) for _ in self._real]
            return
        for real in self._real:
            values = real
            if entry.tokens:
                values = np.eye(entry.size)[real[:, 0].astype(np.int64)]
            messages.append(self._encode(values, entry.message, entry.place))

    def _encode(self, x: np.ndarray, message: Format, place: Place) -> np.ndarray:
        units = x / message.scale
        if self._hybrid.switches.has("width", str(place)):
            units = np.rint(units)
        hybrid = self._hybrid
        return limited(units, message.limit, str(place), hybrid.switches, hybrid.tally)

    def _compute(self, host: HostNodes) -> None:
        """Compute nodes on the host, and encode what they send."""
        readings = [r for r in self._network.readings if r.target == host.place]
        streams, found = HostStreams(host.network, self._batch), []
        for n in range(min(self._frames[r.source] for r in readings)):
            signals = [self._read(r.source, host.place, r.matrix, n) for r in readings]
            signal = signals[0]
            for other in signals[1:]:
                signal = signal + other
            found += streams.push(signal)
        found += streams.finish()
        if host.message is not None:
            found = [self._encode(real, host.message, host.place) for real in found]
        self.recording.messages[host.place] = found

    def _read(self, source: Place, host: Place, matrix: np.ndarray | None, n: int) -> np.ndarray:
        population = self._network[source]
        if isinstance(population, Input) and not population.tokens:
            real = self._real[n]
        else:
            scale = 1.0 if population.message is None else population.message.scale
            real = self.recording.messages[source][n] * scale
        if matrix is not None:
            real = each(real, matrix.T)
        if (tails := self.recording.tails.get(source)) is not None:
            through = self._hybrid.counterpart.readings[source, host]
            real = real + (tails[n] if through is None else tails[n] @ through.T)
        return real

    # Populations on the chip

    def _advance(self, component: Component) -> None:
        """Compute all frames of populations that may feed back into each other."""
        hybrid, record = self._hybrid, self.recording
        rules: dict[Place, HybridMemory | HybridUnits] = {}
        for p in component.populations:
            assert isinstance(p, Population)
            record.messages[p.place] = []
            if isinstance(p, Integrators | Series):
                rules[p.place] = hybrid.memory(p, self._batch)
                record.states[p.place] = []
                continue
            rules[p.place] = units = hybrid.units(p, self._batch)
            if units.first is not None:
                self._first[p.place] = np.tile(units.first, (self._batch, 1))
            if units.state is not None:
                record.states[p.place] = []
        for n in range(self._count(component.populations[0])):
            for p in component.populations:
                assert isinstance(p, Population)
                self._frame(p, rules[p.place], n)
        last = component.populations[0]
        if isinstance(last, Reduction):
            rule = rules[last.place]
            assert isinstance(rule, HybridUnits)
            message = rule.finish()
            assert message is not None
            record.messages[last.place] = [message]

    def _count(self, population: object) -> int:
        """Return how many frames a population takes."""
        if not isinstance(population, Reduction):
            return self._frames[population.place]  # type: ignore[attr-defined]
        into = self._network.entering(population.entrance)
        return min(edge.frames(self._frames[edge.source]) for edge in into)

    def _frame(self, p: Population, rule: HybridMemory | HybridUnits, n: int) -> None:
        record, drive = self.recording, self._total(p, n)
        if isinstance(rule, HybridUnits):
            record.messages[p.place].append(rule.advance(drive))
            if p.place in record.states:
                assert rule.state is not None
                record.states[p.place].append(rule.state)
            return
        if isinstance(rule, HybridSeries):
            rule.advance(drive, lambda: self._channel_inputs(p, n))
        else:
            assert isinstance(rule, HybridIntegrators)
            rule.advance(drive)
            if rule.forgets:
                record.tails.setdefault(p.place, []).append(rule.forgotten())
        record.messages[p.place].append(rule.message)
        record.states[p.place].append(rule.m)

    def _total(self, p: Population, n: int) -> np.ndarray:
        """Return the sum of the inputs of a frame of a population, and its bias."""
        total: np.ndarray | None = None
        for edge, synapses in self._hybrid._into[p.entrance]:
            part = synapses.drive(self._delivered(edge, n), self._remembered(edge, n))
            if total is None and part.shape[1] == p.drive_size:
                total = part
                continue
            if total is None:
                total = np.zeros((self._batch, p.drive_size))
            total[:, edge.row : edge.row + part.shape[1]] += part
        assert total is not None
        bias = self._hybrid._biases.get(p.entrance)
        return total if bias is None else total + bias

    def _delivered(self, edge: Edge, n: int) -> np.ndarray:
        """Return what an edge carries to a frame of its target."""
        return self._carried(edge, self._received(edge), n)

    def _carried(self, edge: Edge, frames: list[np.ndarray], n: int) -> np.ndarray:
        if not n and edge.source in self._first and self._network.leads_back(edge):
            return self._first[edge.source]
        if not frames:
            return np.zeros((self._batch, edge.connection.n_in))
        return taps(edge, frames, n)

    def _received(self, edge: Edge) -> list[np.ndarray]:
        """Return the frames that the target of an edge knows of its source so far."""
        sent = self.recording.messages[edge.source]
        threshold = self._thresholds.get(edge.place, 0)
        if not threshold:
            return sent
        known = self._known.setdefault(edge.place, [])
        for message in sent[len(known) :]:
            last = known[-1] if known else self._first.get(edge.source, np.zeros_like(message))
            known.append(np.where(np.abs(message - last) >= threshold, message, last))
        return known

    def _remembered(self, edge: Edge, n: int) -> np.ndarray | None:
        """Return what an edge from a delay line adds for inputs that have left the line."""
        tails = self.recording.tails.get(edge.source)
        if tails is None or edge.place not in self._hybrid.counterpart.tails:
            return None
        return taps(edge, tails, n) @ self._hybrid.counterpart.tails[edge.place].T

    def _channel_inputs(self, p: Population, n: int) -> np.ndarray:
        """Return the real input of the channels of a memory, through the float encoders."""
        truth = self._hybrid.counterpart.series[p.place]
        into = {edge.place: edge for edge in self._network.entering(p.entrance)}
        u: np.ndarray | None = None
        for place, encoders in truth.encoders.items():
            edge = into[place]
            source = self._network[edge.source]
            assert source.message is not None
            x = self._carried(edge, self.recording.messages[edge.source], n) * source.message.scale
            if isinstance(source, Integrators) and source.basis is not None:
                x = x @ source.basis.T
            if (tails := self.recording.tails.get(edge.source)) is not None:
                x = x + taps(edge, tails, n)
            part = x @ encoders
            u = part if u is None else u + part
        assert u is not None
        return np.asarray(u if truth.bias is None else u + truth.bias)


def taps(edge: Edge, frames: list[np.ndarray], n: int) -> np.ndarray:
    """Return the frames that frame n of an edge's target reads, side by side; outside zeros."""
    none = np.zeros_like(frames[0])
    numbers = [edge.stride * n + offset for offset in edge.offsets]
    found = [frames[m] if 0 <= m < len(frames) else none for m in numbers]
    return found[0] if len(found) == 1 else np.concatenate(found, axis=1)
