"""Memories on recorded states, and what faults of populations and synapses change there.

Each hypothesis predicts how the states at the end of a presentation change; the equations are in
:mod:`lmu_deploy.fidelity.chip_replay`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import copy
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from converters.spiking.device import block_of
from converters.spiking.neurons import VirtualDevice
from lmu_deploy.core.spiking.network import SpikingNetwork
from lmu_deploy.fidelity.replay import MOST_NEURONS, Fault

_ALSO = 0.5
"""Gain of a less likely statement, as a share of that of the first."""

Fire = Callable[[np.ndarray], np.ndarray]
"""Takes states (copies, states) and returns spikes (copies, states, neurons)."""


@dataclass(frozen=True)
class Moved:
    """States at the ends of presentations, and who moved them there.

    Attributes
    ----------
    x : ndarray, shape (copies, steps, states)
    sent : ndarray, shape (copies, steps, states, order)
        Part of each population in the states of its channel.
    rows : ndarray, shape (copies, steps, states, order)
        Part of each row of W, likewise.
    filtered : ndarray, shape (copies, steps, states, neurons)
        Spikes behind the synapse.
    counts : ndarray, shape (copies, steps, states, neurons)
    """

    x: np.ndarray
    sent: np.ndarray
    rows: np.ndarray
    filtered: np.ndarray
    counts: np.ndarray


class ForcedMemory:
    """A memory whose states are set to recorded ones at the beginning of every presentation.

    Parameters
    ----------
    network : SpikingNetwork
        With linear synapses.
    number : int
        Of the layer.
    u : ndarray, shape (samples, steps, channels)
        Inputs of the memory.
    x : ndarray, shape (samples, steps, states)
        Recorded states at the ends of presentations, scaled.
    """

    def __init__(self, network: SpikingNetwork, number: int, u: np.ndarray, x: np.ndarray) -> None:
        memory = network.memories[number]
        assert memory is not None
        self.network, self.memory, self.number = network, memory, number
        self.place = str(network.place(number, "memory"))
        self.x, self.u = x, u
        self.before = np.concatenate([np.zeros_like(x[:, :1]), x[:, :-1]], axis=1)
        self.parts, self.decay = network.steps_per_presentation, network.decay
        self.channels, self.order = memory.channels, memory.order
        shape = self.channels, self.order, self.order, memory.populations.neurons
        self.weights = memory.weights.reshape(shape) / (network.dt_ms * 1e-3)
        self.ideal = memory.recurrent * memory.scales[:, None, :] / memory.scales[:, :, None]
        self.step = self.decay * np.eye(self.order) + (1.0 - self.decay) * self.ideal
        self.held = np.zeros_like(self.step)  # response to a constant drive of one presentation
        for _ in range(self.parts):
            self.held = self.step @ self.held + (1.0 - self.decay) * np.eye(self.order)

    def open_loop(self) -> ForcedMemory:
        """Return the memory whose spikes do not follow its states: they are given."""
        found = copy(self)
        found.step = np.broadcast_to(self.decay * np.eye(self.order), self.step.shape)
        left = 1.0 - self.decay**self.parts
        found.held = np.broadcast_to(left * np.eye(self.order), self.step.shape)
        return found

    def noise(self, kind: str, i: int) -> np.ndarray:
        """Return the covariance of states under irregular currents, up to a factor.

        Parameters
        ----------
        kind : {"column", "row", "channel"}
            Spikes of a population, drives of a state, or inputs of a channel.
        i : int
        """
        channel, k = (i, 0) if kind == "channel" else divmod(i, self.order)
        entering = {
            "column": self.weights[channel, :, k],
            "row": np.eye(self.order)[:, k : k + 1],
            "channel": self.memory.scaled_input[channel][:, None],
        }[kind]
        now, total = entering @ entering.T, np.zeros((self.order, self.order))
        for _ in range(self.parts):
            total += now
            now = self.step[channel] @ now @ self.step[channel].T
        return total

    def neurons(self, copies: int, seed: int, noise: float = 1.0) -> Fire:
        """Start the specified neurons, with membranes and noise of their own.

        Parameters
        ----------
        copies : int
        seed : int
        noise : float
            Factor of the specified noise.
        """
        populations = self.memory.populations
        if noise != 1.0:
            own = populations.noise_factors
            factors = np.ones(populations.encoders.shape) if own is None else own
            populations = replace(populations, noise_factors=noise * factors)
        block = block_of(self.network, self.number, "memory", populations)
        rng = np.random.default_rng([seed, copies])
        return VirtualDevice(self.network.device).start(block, copies, rng).step

    def move(self, before: np.ndarray, u: np.ndarray, fire: Fire) -> Moved:
        """Compute the states at the end of every presentation from those at its beginning.

        Parameters
        ----------
        before : ndarray, shape (copies, steps, states)
        u : ndarray, shape (copies, steps, channels)
        fire : callable
        """
        copies, steps, states = before.shape
        order, grouped = self.order, (copies, self.channels, self.order)
        by_state = self.weights.transpose(0, 2, 3, 1).reshape(states, -1, order)
        neurons, a = by_state.shape[1], self.decay
        step = self.step.transpose(0, 2, 1)
        found = Moved(
            np.empty(before.shape),
            np.empty((copies, steps, states, order)),
            np.empty((copies, steps, states, order)),
            np.empty((copies, steps, states, neurons), np.float32),
            np.empty((copies, steps, states, neurons), np.float32),
        )
        for t in range(steps):
            x = before[:, t]
            entering = u[:, t, :, None] * self.memory.scaled_input
            sent = np.zeros((copies, self.channels, order, order))
            rows, filtered = np.zeros_like(sent), np.zeros((copies, states, neurons), np.float32)
            counts = np.zeros_like(filtered)
            for _ in range(self.parts):
                spikes = fire(x).astype(np.float32)
                given = spikes.swapaxes(0, 1).astype(float) @ by_state
                given = given.swapaxes(0, 1).reshape(sent.shape)
                sent = sent @ step + (1.0 - a) * given
                drive = given.sum(axis=2)
                rows = rows @ step
                rows[..., np.arange(order), np.arange(order)] += (1.0 - a) * drive
                x = a * x.reshape(grouped) + (1.0 - a) * (drive + entering)
                x = x.reshape(copies, states)
                filtered = np.float32(a) * filtered + np.float32(1.0 - a) * spikes
                counts += spikes
            found.x[:, t] = x
            found.sent[:, t] = sent.reshape(copies, states, order)
            found.rows[:, t] = rows.reshape(copies, states, order)
            found.filtered[:, t], found.counts[:, t] = filtered, counts
        return found


Change = dict[int, np.ndarray]
"""Change of states by channel, each of shape (samples, steps, order)."""
Source = tuple[str, int]
"""A population ("column"), a row of W ("row"), or a channel of the input ("channel")."""
Hypothesis = tuple[Fault, Change, tuple[Source, ...]]
"""A statement, the change that it predicts, and where what it does not predict comes from."""


class Hypotheses:
    """Changes of the states that faults predict.

    Parameters
    ----------
    forced : ForcedMemory
    moved : Moved
        Of one copy of each sample: what the chip does, or the mean of what copies of it do.
    before : ndarray, shape (samples, steps, states)
    u : ndarray, shape (samples, steps, channels)
    """

    def __init__(
        self, forced: ForcedMemory, moved: Moved, before: np.ndarray, u: np.ndarray
    ) -> None:
        self.forced, self.moved, self.before, self.u = forced, moved, before, u
        self.order, self.place = forced.order, forced.place
        self.states, self.channels = range(forced.memory.states), range(forced.channels)
        kept = (1.0 - forced.decay) * forced.decay ** np.arange(forced.parts - 1.0, -1.0, -1.0)
        later = np.arange(forced.parts) / forced.parts
        self.seen = before * (kept * (1.0 - later)).sum() + moved.x * (kept * later).sum()
        """States behind the synapse, if they moved evenly during each presentation."""

    @cached_property
    def parts(self) -> dict[Source, Change]:
        """What each population, row and input contributes to the states."""
        forced, order, found = self.forced, self.order, dict[Source, Change]()
        for i in self.states:
            channel, k = divmod(i, order)
            held = forced.held[channel][:, k]
            entry = forced.memory.scaled_input[channel, k] * self.u[:, :, channel]
            found["column", i] = {channel: self.moved.sent[:, :, i]}
            found["row", i] = {channel: self.moved.rows[:, :, i]}
            found["input", i] = {channel: entry[..., None] * held}
        for channel in self.channels:
            found["channel", channel] = {channel: self._entering(channel, self.u[:, :, channel])}
        for k in range(order if len(self.channels) > 1 else 0):
            of = [found["input", channel * order + k] for channel in self.channels]
            found["order", k] = {c: values for part in of for c, values in part.items()}
        return found

    def multiplied(self) -> Iterator[Hypothesis]:
        """Yield parts that count by another factor than 1."""
        named = {
            "column": "population {} of {}",
            "row": "row {} of the weights of {}",
            "input": "the input of state {} of {}",
            "channel": "channel {} of the input of {}",
            "order": "the input of order {} of every channel of {}",
        }
        lost = {"column": "does not contribute: it is dead, or its column of weights is missing"}
        for (kind, i), part in self.parts.items():
            what = named[kind].format(i, self.place)
            index = tuple(c * self.order + i for c in part) if kind == "order" else (i,)
            sources = tuple(("row" if kind in ("input", "order") else kind, n) for n in index)
            for factor, name, words in (
                (0.0, "lost", lost.get(kind, "is missing")),
                (-1.0, "sign", "has the wrong sign"),
                (0.5, "gain", "counts half"),
                (2.0, "gain", "counts twice"),
            ):
                place = f"{self.place}/{'input' if kind == 'order' else kind}"
                place = self.place if kind == "column" else place
                fault = Fault(f"{kind} {name}", place, index, _sentence(f"{what} {words}"))
                yield fault, {c: (factor - 1.0) * each for c, each in part.items()}, sources

    def other(self) -> Iterator[Hypothesis]:
        """Yield populations, rows and inputs that do something else, whatever it is."""
        for i in self.states:
            words = f"Population {i} of {self.place} sends something else: noise, or other curves."
            yield Fault("population", self.place, (i,), words), {}, (("column", i),)
            words = f"The synapses of state {i} of {self.place} receive something else."
            yield Fault("row", f"{self.place}/row", (i,), words), {}, (("row", i),)
        for channel in self.channels:
            words = f"Channel {channel} of the input of {self.place} receives something else."
            fault = Fault("channel", f"{self.place}/channel", (channel,), words)
            yield fault, {}, (("channel", channel),)

    def stuck(self) -> Iterator[Hypothesis]:
        """Yield populations whose neurons fire as fast as they can, whatever the state."""
        forced, network = self.forced, self.forced.network
        steps = max(network.neuron.refractory_ms / network.dt_ms, 1.0)
        for j in self.states:
            channel, k = divmod(j, self.order)
            words = f"Population {j} of {self.place} is stuck: it fires whatever its state is."
            fault = Fault("stuck", self.place, (j,), words)
            for fastest in (1.0 / steps, 1.0 / (steps + 1.0)):
                sent = forced.held[channel] @ forced.weights[channel, :, k].sum(axis=1) * fastest
                change = sent - self.moved.sent[:, :, j]
                yield fault, {channel: change}, (("column", j),)

    def exchanged(self, among: list[int]) -> Iterator[Hypothesis]:
        """Yield exchanges of what two populations encode, and of what they send."""
        for j, k in pairs(among):
            words = f"Populations {j} and {k} of {self.place} are exchanged."
            fault = Fault("exchanged", self.place, (j, k), words)
            for found in (self._encoding, self._sending):
                change = found(j, k)
                for channel, values in found(k, j).items():
                    change[channel] = change.get(channel, 0.0) + values
                yield fault, change, (("column", j), ("column", k))

    def exchanged_rows(self, among: list[int]) -> Iterator[Hypothesis]:
        """Yield exchanges of two rows of W of one channel."""
        for j, k in pairs(among):
            channel, held = j // self.order, self.forced.held[j // self.order]
            if k // self.order != channel:
                continue
            rows = [j % self.order, k % self.order]
            drives = [
                self.moved.rows[:, :, at, row] / held[row, row]
                for at, row in zip((j, k), rows, strict=True)
            ]
            off = (drives[1] - drives[0])[..., None]
            words = f"Rows {j} and {k} of the weights of {self.place} are exchanged."
            fault = Fault("rows exchanged", f"{self.place}/row", (j, k), words)
            change = {channel: off * (held[:, rows[0]] - held[:, rows[1]])}
            yield fault, change, (("row", j), ("row", k))

    def exchanged_inputs(self) -> Iterator[Hypothesis]:
        """Yield inputs of two channels that are exchanged, and inputs that come a step late."""
        place = f"{self.place}/channel"
        for a, b in pairs(list(self.channels)):
            off = self.u[:, :, b] - self.u[:, :, a]
            words = f"Channels {a} and {b} of the input of {self.place} are exchanged."
            change = {a: self._entering(a, off), b: self._entering(b, -off)}
            yield Fault("exchanged", place, (a, b), words), change, (("channel", a), ("channel", b))
        late = np.diff(self.u, axis=1, prepend=0.0)
        words = f"The input of {self.place} comes one step late."
        change = {c: self._entering(c, -late[:, :, c]) for c in self.channels}
        sources = tuple(("channel", c) for c in self.channels)
        yield Fault("late", place, (), words), change, sources

    def exchanged_records(self, among: list[int]) -> Iterator[Hypothesis]:
        """Yield states that are exchanged in the recording, from which the next follow."""
        for j, k in pairs(among):
            scales = self.forced.memory.scales.reshape(-1)[[j, k]]
            swapped = self.before.copy()
            swapped[:, :, [j, k]] = swapped[:, :, [k, j]] * scales[::-1] / scales
            (c, at), (d, there) = (divmod(i, self.order) for i in (j, k))
            after = {each: self._linear(swapped, each) for each in {c, d}}
            right = {each: self._linear(self.before, each) for each in {c, d}}
            one, two = after[c][..., at].copy(), after[d][..., there].copy()
            ratio = float(scales[1] / scales[0])
            after[c][..., at], after[d][..., there] = two * ratio, one / ratio
            words = f"The recorded states {j} and {k} of {self.place} are exchanged."
            fault = Fault("read exchanged", self.place, (j, k), words)
            sources = ("row", j), ("row", k)
            yield fault, {each: after[each] - right[each] for each in {c, d}}, sources

    def _entering(self, channel: int, u: np.ndarray) -> np.ndarray:
        """Return the effect of an input of a channel."""
        held = self.forced.held[channel] @ self.forced.memory.scaled_input[channel]
        return np.asarray(u[..., None] * held)

    def _linear(self, before: np.ndarray, channel: int) -> np.ndarray:
        """Return what an ideal memory has after a presentation."""
        own = before[:, :, channel * self.order : (channel + 1) * self.order]
        kept = np.linalg.matrix_power(self.forced.step[channel], self.forced.parts)
        return own @ kept.T + self._entering(channel, self.u[:, :, channel])

    def _encoding(self, j: int, k: int) -> Change:
        """Return the change if population j encodes state k."""
        channel, at = divmod(j, self.order)
        off = self.seen[:, :, k] - self.seen[:, :, j]
        return {channel: off[..., None] * self.forced.ideal[channel][:, at]}

    def _sending(self, j: int, k: int) -> Change:
        """Return the change if the spikes of population k arrive as those of population j."""
        channel, at = divmod(j, self.order)
        filtered = self.moved.filtered
        off = filtered[:, :, k] - filtered[:, :, j]
        return {channel: off @ self.forced.weights[channel, :, at].T}


def pairs(among: list[int]) -> Iterator[tuple[int, int]]:
    """Yield all pairs, the smaller number first."""
    for n, j in enumerate(among):
        for k in among[:n]:
            yield min(j, k), max(j, k)


def _sentence(words: str) -> str:
    return f"{words[0].upper()}{words[1:]}."


@dataclass(frozen=True)
class Ranked:
    """A statement and the log likelihood that it gains."""

    fault: Fault
    gain: float


def best(ranked: list[Ranked]) -> list[Fault]:
    """Return the most likely statements, at most three, each index of a place once."""
    found: dict[tuple[str, tuple[int, ...]], Ranked] = {}
    for each in sorted(ranked, key=lambda one: -one.gain):
        found.setdefault((each.fault.place, each.fault.index), each)
    first, *others = found.values()
    others = [each for each in others if each.gain > _ALSO * first.gain][: MOST_NEURONS - 1]
    return [
        first.fault,
        *(replace(o.fault, words=f"Less likely: {o.fault.words}") for o in others),
    ]
