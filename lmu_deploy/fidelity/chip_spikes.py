"""Recorded spikes of one sample: exact states of the synapses, and the count of every neuron.

The equations are in :mod:`lmu_deploy.fidelity.chip_replay`.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy.special import stdtrit

from lmu_deploy.fidelity.chip_faults import (
    ForcedMemory,
    Hypotheses,
    Hypothesis,
    Ranked,
    pairs,
)
from lmu_deploy.fidelity.replay import MOST_NEURONS, Fault

FALSE_ALARMS = 1e-3
"""Rate at which a chip that follows its specification is called different."""
PAIRED = 6
"""Populations and rows of which all pairs are tested."""
_COUNTED = 32
_EXACT = 1e-6
"""Largest residual of states that follow from recorded spikes, in units of the range."""
_POPULATION = 3
"""Neurons that deviate when their population is said to."""
_WHOLE = 0.25
"""Variance of a count that depends on where membranes start."""


def limit_of(statistics: int, degrees: int) -> float:
    """Return the limit of each of several statistics that keeps the rate of false alarms."""
    return float(stdtrit(degrees, 1.0 - FALSE_ALARMS / (2.0 * statistics)))


class SynapseTest:
    """The states of one sample against those that its recorded spikes and inputs give.

    Parameters
    ----------
    forced : ForcedMemory
    raster : ndarray, shape (chip steps, neurons)
        Spikes of sample 0.
    """

    def __init__(self, forced: ForcedMemory, raster: np.ndarray) -> None:
        self.forced, self.states = forced.open_loop(), list[np.ndarray]()
        self.steps = len(raster) // forced.parts
        shape = 1, forced.memory.states, forced.memory.populations.neurons
        before, u = forced.before[:1, : self.steps], forced.u[:1, : self.steps]

        def fire(x: np.ndarray) -> np.ndarray:
            self.states.append(x[0].copy())
            return raster[len(self.states) - 1].reshape(shape)

        moved = self.forced.move(before, u, fire)
        self.recorded = forced.x[0, : self.steps]
        self.left = self.recorded - moved.x[0]
        self.hypotheses = Hypotheses(self.forced, moved, before, u)

    @property
    def size(self) -> float:
        """Largest residual as a share of its limit."""
        return float(np.abs(self.left).max(initial=0.0)) / _EXACT

    @property
    def beyond(self) -> int:
        """Number of states beyond the limit."""
        return int((np.abs(self.left) > _EXACT).sum())

    def explain(self) -> list[Fault]:
        """Return what explains all residuals, or else those of single rows."""
        of, order = self.hypotheses, self.forced.order
        wrong = [int(i) for i in np.flatnonzero((np.abs(self.left) > _EXACT).any(axis=0))]
        wrong.sort(key=lambda i: -float((self.left[:, i] ** 2).sum()))
        among = wrong[: 2 * PAIRED]
        found = (
            of.multiplied(),
            of.exchanged(self._senders()),
            of.exchanged_rows(among),
            of.exchanged_inputs(),
            self._exchanged_drives(among),
        )
        for hypotheses in found:
            for fault, change, _ in hypotheses:
                left = self.left.reshape(self.steps, -1, order).copy()
                for channel, values in change.items():
                    left[:, channel] -= values[0]
                if np.abs(left).max() <= _EXACT:
                    return [fault]
        return [self._of_row(i) for i in wrong[:MOST_NEURONS]]

    def _exchanged_drives(self, among: list[int]) -> Iterator[Hypothesis]:
        """Yield states that were exchanged when they were read: each has the drive of the other."""
        parts, order, place = self.hypotheses.parts, self.forced.order, self.forced.place

        def drive(i: int) -> np.ndarray:
            channel, k = divmod(i, order)
            return sum((parts[kind, i][channel][..., k] for kind in ("row", "input")), np.zeros(()))

        for j, k in pairs(among):
            change, scales = dict[int, np.ndarray](), self.forced.memory.scales.reshape(-1)
            for i, other in ((j, k), (k, j)):
                channel, at = divmod(i, order)
                off = drive(other) * scales[other] / scales[i] - drive(i)
                change.setdefault(channel, np.zeros((*off.shape, order)))[..., at] += off
            words = f"The recorded states {j} and {k} of {place} are exchanged."
            yield Fault("read exchanged", place, (j, k), words), change, ()

    def _of_row(self, i: int) -> Fault:
        """Return what explains the residuals of one state: its row, its input, or a population."""
        order, place, left = self.forced.order, self.forced.place, self.left[:, i]
        channel, k = divmod(i, order)
        if not np.ptp(self.recorded[:, i]):
            what = f"State {i} of {place} is recorded as constant."
            return Fault("read stuck", place, (i,), what)
        parts, words = (
            self.hypotheses.parts,
            {"row": "row {} of the weights", "input": "the input of state {}"},
        )
        parts_of = {kind: parts[kind, i][channel][0, :, k] for kind in words}
        for j in range(channel * order, (channel + 1) * order):
            words[f"population {j}"] = f"what population {j} sends to state {{}}"
            parts_of[f"population {j}"] = parts["column", j][channel][0, :, k]
        for kind, part in parts_of.items():
            factor = 1.0 + float(part @ left) / max(float(part @ part), 1e-300)
            if np.abs(left - (factor - 1.0) * part).max() <= _EXACT:
                of = "input" if kind == "input" else "row"
                how = {0.0: "is missing", -1.0: "has the wrong sign"}
                what = f"{words[kind].format(i)} of {place} "
                what += how.get(round(factor, 6), f"counts {factor:.3g} times") + "."
                return Fault(f"{of} gain", f"{place}/{of}", (i,), what[0].upper() + what[1:])
        what = f"The synapses of state {i} of {place} do not follow their weights."
        return Fault("row", f"{place}/row", (i,), what)

    def _senders(self) -> list[int]:
        """Return the populations whose spikes explain the residuals best."""
        left = self.left.reshape(self.steps, -1, self.forced.order)
        scores = []
        for j in self.hypotheses.states:
            ((channel, part),) = self.hypotheses.parts["column", j].items()
            size = max(float((part**2).sum()), 1e-300)
            scores.append(float((left[:, channel] * part[0]).sum()) ** 2 / size)
        return [int(j) for j in np.argsort(-np.array(scores))[:PAIRED]]


class NeuronTest:
    """Spike counts of the neurons in one sample against those of copies in the same states."""

    def __init__(
        self, forced: ForcedMemory, states: list[np.ndarray], raster: np.ndarray, seed: int
    ) -> None:
        self.forced = forced
        shape = forced.memory.states, forced.memory.populations.neurons
        steps = len(states) // forced.parts
        fire = forced.neurons(_COUNTED, seed)
        counts = np.zeros((steps, _COUNTED, *shape), np.float32)
        for step, x in enumerate(states):
            counts[step // forced.parts] += fire(np.broadcast_to(x, (_COUNTED, shape[0])))
        mine = raster[: steps * forced.parts].reshape(steps, forced.parts, *shape).sum(axis=1)
        mean, spread = counts.mean(axis=1), counts.var(axis=1, ddof=1)
        self.counts, self.expected = mine.sum(axis=0), mean.sum(axis=0)
        """Spikes of each neuron, (states, neurons)."""
        room = 1.0 + 1.0 / _COUNTED
        deviation = counts.sum(axis=0).var(axis=0, ddof=1)
        limit = limit_of(self.counts.size, _COUNTED - 1)
        self.scores = (
            np.abs(self.counts - self.expected) / np.sqrt(room * deviation + _WHOLE) / limit
        )
        """Deviations of the counts, as a share of their limit, (states, neurons)."""
        pooled = spread.mean(axis=2, keepdims=True) + _WHOLE
        own = ((mine - mean) ** 2 / (room * pooled)).mean(axis=(0, 2))
        left = (counts - mean[:, None]) * _COUNTED / (_COUNTED - 1)
        copies = (left**2 / (pooled[:, None] * _COUNTED / (_COUNTED - 1))).mean(axis=(0, 3))
        limit = limit_of(len(own), _COUNTED - 1)
        sizes = copies.std(axis=0, ddof=1) * room**0.5 + 0.05
        self.powers = (own - copies.mean(axis=0)) / sizes / limit
        """Irregularity of each population, as a share of its limit, (states,)."""

    @property
    def size(self) -> float:
        """The largest statistic as a share of its limit."""
        return float(max(self.scores.max(), self.powers.max()))

    @property
    def beyond(self) -> int:
        """Number of statistics beyond their limit."""
        return int((self.scores > 1.0).sum() + (self.powers > 1.0).sum())

    def explain(self) -> list[Fault]:
        """Name populations, then single neurons, the farthest first."""
        ranked, place = list[Ranked](), self.forced.place
        for j in range(len(self.scores)):
            off = np.flatnonzero(self.scores[j] > 1.0)
            if 0 < len(off) < _POPULATION:
                ranked += [Ranked(self._neuron(j, n), float(self.scores[j, n])) for n in off]
                continue
            if not len(off) and self.powers[j] <= 1.0:
                continue
            kind, words = "population", "does not fire as specified: noise, or other curves"
            if not self.counts[j].any():
                kind, words = "dead", "is dead: none of its neurons spikes"
            elif len(off) and self._fastest(self.counts[j, off]).all():
                kind, words = "stuck", "is stuck: its neurons fire whatever their state is"
            fault = Fault(kind, place, (j,), f"Population {j} of {place} {words}.")
            ranked.append(Ranked(fault, 1e3 * float(max(self.powers[j], self.scores[j].max()))))
        ranked.sort(key=lambda each: -each.gain)
        return [each.fault for each in ranked[:MOST_NEURONS]]

    def _fastest(self, counts: np.ndarray) -> np.ndarray:
        """Return which counts are those of a neuron that fires as fast as it can."""
        forced, network = self.forced, self.forced.network
        steps = forced.parts * forced.x.shape[1]
        refractory = max(network.neuron.refractory_ms / network.dt_ms, 1.0)
        return np.asarray(counts >= 0.9 * steps / (refractory + 1.0))

    def _neuron(self, j: int, n: int) -> Fault:
        count, expected = int(self.counts[j, n]), float(self.expected[j, n])
        kind, what = "neuron", f"spikes {count:,} times and not about {expected:,.0f} times"
        if not count:
            kind, what = (
                "dead neuron",
                f"never spikes, and about {expected:,.0f} times are expected",
            )
        elif bool(self._fastest(np.array(count))):
            kind, what = "stuck neuron", f"spikes {count:,} times, as often as it can"
        place = self.forced.place
        return Fault(kind, place, (j, n), f"Neuron {n} of population {j} of {place} {what}.")
