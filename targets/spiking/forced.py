"""Ensembles whose drives are set to recorded ones at the beginning of every presentation.

An ensemble has a drive of several values and synapses from senders: the memory of a chain of layers
is one that only its own spikes and the host drive. The simulation keeps apart what each sender and
each row of weights contributes to the drives (:mod:`lmu_deploy.fidelity.replay.chip_replay`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace

import numpy as np
from scipy.linalg import block_diag

from converters.spiking.closed_loop import behind_synapse, divide_step
from converters.spiking.device import Block, block_of
from converters.spiking.neurons import VirtualDevice
from lmu_deploy.core.graph.network import INPUT
from lmu_deploy.core.integer.parts import Place
from lmu_deploy.core.spiking.ensembles import ONE
from lmu_deploy.core.spiking.graph import AnalogNetwork, Ensemble, SpikingGraph
from lmu_deploy.core.spiking.network import SpikingNetwork

Change = dict[int, np.ndarray]
"""Change of drives by channel, each of shape (samples, steps, order)."""
Source = tuple[str, int, int]
"""A population of a link ("column"), a row of its weights ("row"), or a feature of a current
("channel"), with the numbers of link or current, and its own."""
Fire = Callable[[np.ndarray], np.ndarray]
"""Takes drives (copies, size) and returns spikes (copies, size, neurons)."""
FireAll = Callable[[Mapping[str, np.ndarray]], Mapping[str, np.ndarray]]
"""Takes the drives of all ensembles by place, and returns the spikes of all senders."""
Starts = Mapping[str, np.ndarray] | None


@dataclass(frozen=True)
class Link:
    """Synapses from the populations of one sender.

    Attributes
    ----------
    source : str
        Place of the sender.
    weights : ndarray, shape (populations, neurons, reached)
        Push of a spike on the drives that its population reaches.
    local : bool
        Whether these are those of one channel, as many populations for each, or all drives.
    fast : bool
        Whether the synapses are fast ones beside slow ones.
    whole : bool
        Whether the sender reaches nothing else.
    """

    source: str
    weights: np.ndarray
    local: bool
    fast: bool = False
    whole: bool = True


@dataclass(frozen=True)
class Current:
    """What the host sends once per presentation.

    Attributes
    ----------
    name, of : str
        What it is to a value of the drive, and what one of its features is.
    values : ndarray, shape (samples, steps, features)
    weights : ndarray, shape (size, features)
    direct : bool
        Whether it is added to the drive at once, without a synapse.
    constant : bool
    """

    name: str
    of: str
    values: np.ndarray
    weights: np.ndarray
    direct: bool = False
    constant: bool = False

    @property
    def push(self) -> np.ndarray:
        """Pushes on the drives, shape (samples, steps, size)."""
        return np.asarray(self.values @ self.weights.T)


@dataclass(frozen=True)
class Moved:
    """Drives at the ends of presentations, and who moved them there.

    Attributes
    ----------
    x : ndarray, shape (copies, steps, size)
    sent : list of ndarray, shape (copies, steps, populations, reached)
        For each link the part of each population in the drives that it reaches.
    rows : list of ndarray, shape (copies, steps, size, order)
        Likewise of each row of weights, in the drives of its channel.
    filtered : list of ndarray, shape (copies, steps, populations, neurons)
        Spikes behind the synapse.
    counts : ndarray, shape (copies, steps, size, neurons), uint16
        Spikes of each neuron of all copies in every presentation; empty without neurons.
    """

    x: np.ndarray
    sent: list[np.ndarray]
    rows: list[np.ndarray]
    filtered: list[np.ndarray]
    counts: np.ndarray

    def of(self, copy: int, samples: int) -> Moved:
        """Return one copy of all samples."""
        return self._changed(lambda values: values[copy * samples : (copy + 1) * samples])

    def mean(self, copies: int) -> Moved:
        """Return the means over copies of each sample."""
        return self._changed(lambda v: v.reshape(copies, -1, *v.shape[1:]).mean(axis=0))

    def _changed(self, change: Fire) -> Moved:
        parts = ([change(each) for each in part] for part in (self.sent, self.rows, self.filtered))
        return Moved(change(self.x), next(parts), next(parts), next(parts), self.counts)


class Forced:
    """An ensemble whose drives are set to recorded ones at the beginning of every presentation.

    Parameters
    ----------
    network : SpikingNetwork or SpikingGraph
        With linear synapses.
    place : str
    scales : ndarray, shape (size,)
        Values of the drives at 1.
    x : ndarray, shape (samples, steps, size)
        Recorded drives at the ends of presentations, scaled.
    links : sequence of Link
    currents : sequence of Current
    ideal : ndarray, shape (channels, order, order)
        Push on the drives of a channel that its own populations send per drive; zeros where the
        drives do not feed back. Their covariance is that of a channel, which are independent.
    block : Block, optional
        The neurons; None where the host reads the drives.
    decay : float
        Of the synapses without those that are fast beside slow ones.
    fast_decay : float
        Of these.
    noun : str
        What a value of the drive is called.
    recorded : bool
        Whether the drives were recorded; others start a presentation where the last one ended.
    """

    def __init__(
        self,
        network: AnalogNetwork,
        place: str,
        scales: np.ndarray,
        x: np.ndarray,
        links: Sequence[Link],
        currents: Sequence[Current],
        ideal: np.ndarray,
        block: Block | None,
        decay: float,
        fast_decay: float = 0.0,
        noun: str = "state",
        recorded: bool = True,
    ) -> None:
        self.network, self.place, self.block, self.noun = network, place, block, noun
        self.scales, self.x, self.recorded = scales.reshape(-1), x, recorded
        self.links, self.currents = tuple(links), tuple(currents)
        self.channels, self.order, _ = ideal.shape
        self.size, self.parts = self.channels * self.order, network.steps_per_presentation
        self.decay, self.fast_decay, self.ideal = decay, fast_decay, ideal
        self.step = decay * np.eye(self.order) + (1.0 - decay) * ideal
        self.held = np.zeros_like(self.step)  # response to a constant push of one presentation
        for _ in range(self.parts):
            self.held = self.step @ self.held + (1.0 - decay) * np.eye(self.order)
        pushes = {False: np.zeros_like(x), True: np.zeros_like(x)}
        for each in self.currents:
            pushes[each.direct] += each.push
        self.entering, self.direct = pushes[False], pushes[True]
        self.before = np.zeros_like(x)
        """Drives at the beginning of a presentation, without those that the host sets then."""
        self.before[:, 1:] = x[:, :-1] - self.direct[:, :-1]

    @classmethod
    def of_layer(cls, network: SpikingNetwork, number: int, u: np.ndarray, x: np.ndarray) -> Forced:
        """Return the memory of a layer.

        Parameters
        ----------
        network : SpikingNetwork
            With linear synapses.
        number : int
        u : ndarray, shape (samples, steps, channels)
            Inputs of the memory.
        x : ndarray, shape (samples, steps, states)
            Recorded states at the ends of presentations, scaled.
        """
        memory = network.memories[number]
        assert memory is not None
        block = block_of(network, number, "memory", memory.populations)
        link = _link(block.place, memory.weights, memory.populations.neurons, network, True)
        entry = block_diag(*(column[:, None] for column in memory.scaled_input))
        ideal = memory.recurrent * memory.scales[:, None, :] / memory.scales[:, :, None]
        currents = [Current("input", "channel", u, entry)]
        scales = memory.scales.reshape(-1)
        return cls(network, block.place, scales, x, [link], currents, ideal, block, network.decay)

    @classmethod
    def of_ensemble(
        cls,
        graph: SpikingGraph,
        ensemble: Ensemble,
        values: Mapping[str, np.ndarray],
        recorded: np.ndarray | None,
        most: int,
    ) -> Forced:
        """Return an ensemble of a graph, or a probe.

        Parameters
        ----------
        graph : SpikingGraph
        ensemble : Ensemble
        values : mapping of source to ndarray, shape (samples, steps, features)
            What the host sends.
        recorded : ndarray, shape (samples, steps, size), or None
            Drives at the ends of presentations in units of the node.
        most : int
            Largest size of units whose drives have one covariance.
        """
        name, size = ensemble.name, ensemble.size
        scales, block, kind, place = ensemble.scales, None, "output", str(Place(name, "read"))
        if ensemble.populations is None and recorded is not None:
            scales = np.full(size, max(float(np.abs(recorded).max(initial=0.0)), 1e-12))
        weight = (ensemble.scales / scales)[:, None]  # a probe has no scales of its own
        if ensemble.populations is not None:
            place = name
            block = Block(name, ensemble.populations, graph.neuron, graph.dt_ms)
            kind = "state" if graph.kind(ensemble) == "memory" else "unit"
        ideal = np.zeros((1, size, size) if size <= most else (size, 1, 1))
        if kind == "state":
            memory = graph.host[name].operator.memory  # type: ignore[attr-defined]
            halves = divide_step(memory, graph.steps_per_presentation)
            by_channel = scales.reshape(-1, memory.order)
            own, _ = behind_synapse(*halves, graph.decay)
            ideal = own * by_channel[:, None, :] / by_channel[:, :, None]
        slow = not all(each.fast for each in ensemble.connections)
        slow |= not all(each.direct for each in ensemble.currents)
        links = []
        for each in ensemble.connections:
            weights = each.weights
            if len(weights) not in (1, len(ideal)):
                weights = block_diag(*weights)[None]
            receivers = sum(each.source in other.sources for other in graph.parts)
            local, neurons = len(weights) > 1, graph[each.source].populations.neurons
            weights = weights * weight.reshape(len(weights), -1, 1)
            link = _link(each.source, weights, neurons, graph, local)
            links.append(replace(link, fast=each.fast and slow, whole=receivers == 1))
        currents = dict[tuple[str, bool], np.ndarray]()
        for given in ensemble.currents:
            key = given.source, given.direct
            currents[key] = currents.get(key, 0.0) + given.weights * weight
        found = [
            Current(_name(source, direct, slow), "value", values[source], c, direct, source == ONE)
            for (source, direct), c in currents.items()
        ]
        decays = (graph.decay if slow else graph.fast_decay), graph.fast_decay
        shape = (*next(iter(values.values())).shape[:2], size)
        x = np.zeros(shape) if recorded is None else recorded / scales
        known = recorded is not None
        return cls(graph, place, scales, x, links, found, ideal, block, *decays, kind, known)

    @property
    def uncertain(self) -> bool:
        """Whether its drives were recorded, and spikes of others change them."""
        return self.recorded and bool(self.links)

    def first(self, steps: int, samples: int | None = None) -> Forced:
        """Return the same with only so many first presentations, and samples."""
        found = copy(self)
        for name in ("x", "entering", "direct", "before"):
            setattr(found, name, getattr(self, name)[:samples, :steps])
        found.currents = tuple(
            replace(each, values=each.values[:samples, :steps]) for each in self.currents
        )
        return found

    def open_loop(self) -> Forced:
        """Return the ensemble whose spikes do not follow its drives: they are given."""
        found = copy(self)
        found.step = np.broadcast_to(self.decay * np.eye(self.order), self.step.shape)
        left = 1.0 - self.decay**self.parts
        found.held = np.broadcast_to(left * np.eye(self.order), self.step.shape)
        return found

    def channel_of(self, link: Link, j: int) -> int:
        """Return the channel that a population reaches alone."""
        return j * self.channels // len(link.weights)

    def split(self, values: np.ndarray, link: Link | None = None, j: int = 0) -> Change:
        """Return values (..., size), or those that a population reaches, by channel."""
        if link is not None and link.local:
            return {self.channel_of(link, j): values}
        parts = values.reshape(*values.shape[:-1], self.channels, self.order)
        return {c: parts[..., c, :] for c in range(self.channels)}

    def reaches(self, current: Current, f: int, channel: int) -> bool:
        """Return whether a feature of a current reaches a channel."""
        own = slice(channel * self.order, (channel + 1) * self.order)
        return bool(current.weights[own, f].any())

    def after(self, push: Change, direct: bool = False) -> Change:
        """Return the effect of pushes that are constant during a presentation, at its end.

        A direct push is not kept by synapses, and the drives at the beginning are without it.
        """
        if not direct:
            return {c: values @ self.held[c].T for c, values in push.items()}
        kept = self.decay**self.parts
        late = {c: np.zeros_like(values) for c, values in push.items()}
        for c, values in push.items():
            late[c][:, 1:] = values[:, :-1]
        return {c: values - kept * late[c] for c, values in push.items()}

    def noise(self, source: Source) -> dict[int, np.ndarray]:
        """Return the covariance of drives under irregular currents, by channel, up to a factor.

        Parameters
        ----------
        source : Source
            Spikes of a population, pushes on a value, or a feature of a current.
        """
        kind, where, i = source
        if kind == "row":
            entering = {i // self.order: np.eye(self.order)[:, [i % self.order]]}
        elif kind == "channel":
            columns = self.split(self.currents[where].weights[:, i])
            entering = {c: column[:, None] for c, column in columns.items() if column.any()}
        else:
            link = self.links[where]
            columns = self.split(link.weights[i], link, i)
            entering = {c: column.T for c, column in columns.items() if column.any()}
        found = {}
        for c, column in entering.items():
            now, found[c] = column @ column.T, np.zeros((self.order, self.order))
            for _ in range(self.parts):
                found[c] += now
                now = self.step[c] @ now @ self.step[c].T
        return found

    def neurons(self, copies: int, seed: Sequence[int], noise: float = 1.0) -> Fire:
        """Start copies of the specified neurons, with so many times their noise."""
        assert self.block is not None
        block = replace(self.block, populations=self.block.populations.noisier(noise))
        rng = np.random.default_rng([*seed, copies])
        return VirtualDevice(self.network.device).start(block, copies, rng).step


def _link(
    source: str, weights: np.ndarray, neurons: int, network: AnalogNetwork, local: bool
) -> Link:
    """Return the synapses of weights (blocks, rows, neurons of the sender), in seconds."""
    blocks, rows, _ = weights.shape
    grouped = weights.reshape(blocks, rows, -1, neurons) / (network.dt_ms * 1e-3)
    return Link(source, grouped.transpose(0, 2, 3, 1).reshape(-1, neurons, rows), local)


def _name(source: str, direct: bool, slow: bool) -> str:
    """Return what a current is called: by its source, and whether it passes the synapses."""
    name = "bias" if source == ONE else "input" if source == INPUT else f"input from {source}"
    return f"direct {name}" if direct and slow and source != ONE else name


def move(
    ensembles: Sequence[Forced], copies: int, fire: FireAll, starts: Starts = None
) -> list[Moved]:
    """Compute the drives at the end of every presentation from those at its beginning.

    Parameters
    ----------
    ensembles : sequence of Forced
        Of as many samples and steps.
    copies : int
        Copies of each sample, one behind all samples of the other.
    fire : FireAll
    starts : mapping of place to ndarray, shape (copies, steps, size), optional
        Drives like `Forced.before` in place of recorded ones; ensembles without any are not set to
        drives. Who moved the drives is not returned then.
    """
    motions = [_Motion(each, copies, starts) for each in ensembles]
    counts = {m.forced.place: m.moved.counts for m in motions if m.forced.block is not None}
    for t in range(ensembles[0].x.shape[1]):
        for motion in motions:
            motion.begin(t)
        for _ in range(ensembles[0].parts):
            spikes = fire({each.forced.place: each.total for each in motions})
            given = {name: s.astype(np.float32) for name, s in spikes.items()}
            for name in counts.keys() & spikes.keys():
                counts[name][:, t] += spikes[name]
            for motion in motions:
                motion.advance(given)
        for motion in motions:
            motion.end(t)
    return [motion.moved for motion in motions]


class _Motion:
    """Synapses of an ensemble on their way through a presentation."""

    def __init__(self, forced: Forced, copies: int, starts: Starts) -> None:
        self.forced, self.copies, self.kept = forced, copies, starts is None
        own = {forced.place: np.tile(forced.before, (copies, 1, 1))} if forced.recorded else {}
        self.before = (own if starts is None else starts).get(forced.place)
        samples, steps, size = forced.x.shape
        self.shape = copies * samples, forced.channels, forced.order
        self.x, self.fast = np.zeros((self.shape[0], size)), np.zeros((self.shape[0], size))
        self.sent, self.rows, self.filtered = (list[np.ndarray]() for _ in range(3))
        into: list[list[np.ndarray]] = [[], [], []]
        for link in forced.links if self.kept else ():
            populations, neurons, reached = link.weights.shape
            shapes = (populations, reached), (size, forced.order), (populations, neurons)
            for found, name, shape in zip(into, ("sent", "rows", "filtered"), shapes, strict=True):
                kind = np.float32 if name == "filtered" else float
                getattr(self, name).append(np.zeros((self.shape[0], *shape), kind))
                found.append(np.empty((self.shape[0], steps, *shape), kind))
        neurons = 0 if forced.block is None else forced.block.populations.neurons
        counts = np.zeros((self.shape[0], steps, size, neurons), np.uint16)
        x = np.empty((self.shape[0], steps, size))
        self.moved = Moved(x, into[0], into[1], into[2], counts)
        self.direct = self.entering = np.zeros(0)
        self.start = dict[int, tuple[np.ndarray, np.ndarray]]()

    @property
    def total(self) -> np.ndarray:
        """Drives of the neurons, shape (copies, size)."""
        return self.x + self.fast + self.direct

    def begin(self, t: int) -> None:
        """Start a presentation from what was recorded, less what the fast synapses hold."""
        given = self.forced.direct, self.forced.entering
        self.direct, self.entering = (np.tile(v[:, t], (self.copies, 1)) for v in given)
        if self.before is not None:
            self.x = self.before[:, t] - self.fast
        for number, link in enumerate(self.forced.links if self.kept else ()):
            self.filtered[number][:] = 0.0
            if link.fast:
                self.start[number] = self.sent[number].copy(), self.rows[number].copy()
            else:
                self.sent[number][:] = 0.0
                self.rows[number][:] = 0.0

    def advance(self, spikes: Mapping[str, np.ndarray]) -> None:
        """Advance by one step."""
        of, order = self.forced, self.forced.order
        step, diagonal = of.step.transpose(0, 2, 1), np.arange(order)
        pushes = {False: self.entering.copy(), True: np.zeros_like(self.entering)}
        for number, link in enumerate(of.links):
            fired, a = spikes[link.source], of.fast_decay if link.fast else of.decay
            given = fired.swapaxes(0, 1).astype(float) @ link.weights
            given = given.swapaxes(0, 1)  # (copies, populations, reached)
            grouped = len(given), of.channels, -1, order
            drive = given.reshape(grouped).sum(axis=2) if link.local else given.sum(axis=1)
            pushes[link.fast] += drive.reshape(pushes[link.fast].shape)
            if not self.kept:
                continue
            if link.fast:
                self.sent[number] *= a
                self.rows[number] *= a
            elif link.local:
                self.sent[number] = (self.sent[number].reshape(grouped) @ step).reshape(given.shape)
            elif not of.ideal.any():
                self.sent[number] *= a
            else:
                by_channel = self.sent[number].reshape(*given.shape[:2], of.channels, 1, order)
                self.sent[number] = (by_channel @ step).reshape(given.shape)
            self.sent[number] += (1.0 - a) * given
            if not link.fast:
                rows = self.rows[number].reshape(len(given), of.channels, order, order)
                self.rows[number] = (rows @ step).reshape(self.rows[number].shape)
            rows = self.rows[number].reshape(len(given), of.channels, order, order)
            rows[..., diagonal, diagonal] += (1.0 - a) * drive.reshape(self.shape)
            kept = self.filtered[number]
            kept *= np.float32(a)
            kept += np.float32(1.0 - a) * fired
        self.x = of.decay * self.x + (1.0 - of.decay) * pushes[False]
        self.fast = of.fast_decay * self.fast + (1.0 - of.fast_decay) * pushes[True]

    def end(self, t: int) -> None:
        """Store the end of a presentation."""
        self.moved.x[:, t] = self.total
        kept = self.forced.decay**self.forced.parts
        for number in range(len(self.filtered)):
            sent, rows = self.start.get(number, (0.0, 0.0))
            self.moved.sent[number][:, t] = self.sent[number] - kept * sent
            self.moved.rows[number][:, t] = self.rows[number] - kept * rows
            self.moved.filtered[number][:, t] = self.filtered[number]
