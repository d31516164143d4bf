r"""Statistical replay of an analog chip: what a recording predicts, and what explains the rest.

A calibrated chip is specified by its network file: tuning curves with their mismatch, weights W and
noise. Initial membranes and noise are not part of it, so that a recording is one draw. From the
states x that were recorded at the end of a presentation, copies of the specified chip (with
membranes and noise of their own) compute those at the end of the next; their mean and covariance
predict what the recording has there. With :math:`L L^T` the covariance of the states of a channel,
the standardized residual of K copies is

.. math:: z = L^{-1} (x - \bar x) / \sqrt{1 + 1/K}.

A fault k predicts a change :math:`\Delta_k` of these residuals: with M the linear step of the
memory, what population j sends in step s of a presentation appears n - s steps later as

.. math:: D_{j} \leftarrow M D_j + (1 - a) W_{\cdot j} s_j / dt, \qquad
          M = a I + (1 - a) S^{-1} A' S,

so that a dead population leaves the residual :math:`-D_j`, one whose column of W has the wrong sign
:math:`-2 D_j`, and so on. The projection of z on such a change, summed over samples, is compared
with that of each copy on the mean of the others. Explanations are ranked by the log likelihood
that they gain, :math:`\tfrac12 (|z|^2 - |z - \Delta_k|^2)`.

Where the spikes of a sample were recorded too, two sharper tests come first. The spikes and the
inputs determine the states exactly, so that any other residual is an error of synapses; and the
spikes of every neuron are counted and compared with those of copies that are driven by the same
states.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from lmu_deploy.core.network import LMULayer, LSTMLayer
from lmu_deploy.core.spiking.network import SpikingNetwork
from lmu_deploy.fidelity.chip_faults import (
    Change,
    ForcedMemory,
    Hypotheses,
    Moved,
    Ranked,
    Source,
    best,
)
from lmu_deploy.fidelity.chip_spikes import PAIRED, NeuronTest, SynapseTest, limit_of
from lmu_deploy.fidelity.replay import MOST_NEURONS, Fault
from targets.host import HostLayer, run_lstm

_COPIES = 8
_MOST_SAMPLES, _UPDATES = 16, 4e7
"""Samples of a replay, and updates of neurons: a few seconds."""
_FLOOR = 1e-4
"""Smallest deviation of a state, in units of its range."""
_NOISIER, _CERTAIN = 10.0, 3.0
"""Noise that a recording has to show, in multiples of the specified one; deviations by which the
expectation of a statistic is beyond its limit where a fault is seen for certain."""
_NOISES = np.concatenate([[0.0], np.geomspace(0.05, 1e9, 80)])
_Shapes = dict[int, tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class ChipFindings:
    """Result of a replay.

    Attributes
    ----------
    samples, steps : int
        Presentations of each sample that were predicted.
    values : int
        Recorded states and neurons that were predicted.
    beyond : int
        Statistics beyond the limit of the false-alarm rate.
    largest : float
        The largest statistic as a share of its limit; above 1 the chip deviates.
    faults : list of Fault
        Statements, the most likely first.
    blind : tuple of str
        Statements on faults that this recording would not show, so that it cannot exclude them.
    """

    samples: int
    steps: int
    values: int
    beyond: int
    largest: float
    faults: list[Fault]
    blind: tuple[str, ...] = ()


class StateTest:
    """The states of all samples against those of copies that start where they were recorded.

    Parameters
    ----------
    forced : ForcedMemory
    seed : int
        Of the copies' membranes and noise.
    """

    def __init__(self, forced: ForcedMemory, seed: int) -> None:
        self.forced, self._shapes = forced, dict[tuple[Source, ...], _Shapes]()
        self._seed, (samples, steps, states) = seed, forced.x.shape
        before, u = (np.tile(each, (_COPIES, 1, 1)) for each in (forced.before, forced.u))
        moved = forced.move(before, u, forced.neurons(len(before), seed))
        shape = samples, steps, forced.channels, forced.order
        x = moved.x.reshape(_COPIES, *shape)
        mean = x.mean(axis=0)
        left = (x - mean).transpose(3, 0, 1, 2, 4).reshape(forced.channels, -1, forced.order)
        covariance = left.swapaxes(1, 2) @ left / ((_COPIES - 1) * samples * steps)
        covariance += _FLOOR**2 * np.eye(forced.order)
        self.whitening = np.linalg.inv(np.linalg.cholesky(covariance))
        self.deviations = (
            np.sqrt(np.diagonal(covariance, axis1=1, axis2=2)) * (1.0 + 1.0 / _COPIES) ** 0.5
        )
        self.off = forced.x.reshape(shape) - mean
        room = 1.0 + 1.0 / _COPIES
        self.z = self.whitened(self.off) / room**0.5
        self.copies = self.whitened(x - mean) * (_COPIES / (_COPIES - 1)) ** 0.5
        averages = (
            values.reshape(_COPIES, samples, steps, states, -1).mean(axis=0)
            for values in (moved.sent, moved.rows, moved.filtered, moved.counts)
        )
        self._sent = moved.sent.reshape(_COPIES, samples, steps, states, forced.order)
        self.hypotheses = Hypotheses(
            forced, Moved(mean.reshape(forced.x.shape), *averages), forced.before, forced.u
        )

    def whitened(self, values: np.ndarray) -> np.ndarray:
        """Return states (..., channels, order) with unit covariance."""
        return np.einsum("cik,...ck->...ci", self.whitening, values)

    def _change(self, change: Change) -> Change:
        """Return a change of the states as one of the standardized residuals."""
        scale = (1.0 + 1.0 / _COPIES) ** 0.5
        return {c: values @ self.whitening[c].T / scale for c, values in change.items()}

    @cached_property
    def scores(self) -> np.ndarray:
        """Projections and powers of the residuals, as shares of their limits."""
        found, both = list[float](), (self.z, self.copies)
        for part in self.hypotheses.parts.values():
            each = [np.zeros(()), np.zeros(())]
            for channel, change in self._change(part).items():
                for n, z in enumerate(both):
                    each[n] = each[n] + (z[..., channel, :] * change).sum(axis=(-2, -1))
            found.append(self._standardized(*each))
        for j in self.hypotheses.states:
            for kind in ("column", "row"):
                ((channel, (values, vectors)),) = self._shape(((kind, j),)).items()
                squares = [(z[..., channel, :] @ vectors) ** 2 @ values for z in both]
                # The cube root of a mean of squares is nearly normal (Wilson, Hilferty 1931).
                found.append(self._standardized(*(np.cbrt(z.mean(axis=-1)) for z in squares)))
        return np.array(found) / limit_of(len(found), _COPIES * len(self.z) - 1)

    @staticmethod
    def _standardized(mine: np.ndarray, copies: np.ndarray) -> float:
        """Return the sum over samples, standardized by that of the copies."""
        size = np.sqrt(copies.var(axis=0).sum() * _COPIES / (_COPIES - 1))
        return abs(float((mine - copies.mean(axis=0)).sum())) / max(float(size), 1e-12)

    def _shape(self, sources: tuple[Source, ...]) -> _Shapes:
        """Return eigenvalues, at most 1, and eigenvectors of the noise of sources, by channel."""
        if sources not in self._shapes:
            total = dict[int, np.ndarray]()
            for kind, i in sources:
                channel = i if kind == "channel" else i // self.forced.order
                noise = self.forced.noise(kind, i)
                noise = self.whitening[channel] @ noise @ self.whitening[channel].T
                noise /= max(float(np.trace(noise)), 1e-300)
                total[channel] = total.get(channel, 0.0) + noise
            found = {}
            for channel, noise in total.items():
                values, vectors = np.linalg.eigh(noise)
                found[channel] = np.maximum(values / values.max(), 0.0), vectors
            self._shapes[sources] = found
        return self._shapes[sources]

    @property
    def size(self) -> float:
        """The largest statistic as a share of its limit."""
        return float(self.scores.max())

    @property
    def beyond(self) -> int:
        """Number of statistics beyond their limit."""
        return int((self.scores > 1.0).sum())

    def unseen(self) -> tuple[int, ...]:
        """Return the populations of which ten times the noise would not be seen in the states.

        In copies whose neurons have that noise, what population j sends has another mean and
        another covariance. The statistics of its column then have known expectations, and the fault
        is seen for certain where one of them is well beyond its limit.
        """
        device = self.forced.network.device
        if not max(device.membrane_noise, device.threshold_noise):
            return ()
        samples, _, states = self.forced.x.shape
        before, u = (np.tile(each, (_COPIES, 1, 1)) for each in (self.forced.before, self.forced.u))
        fire = self.forced.neurons(len(before), self._seed + 1, _NOISIER)
        noisy = self.forced.move(before, u, fire).sent.reshape(self._sent.shape)
        limit = limit_of(len(self.scores), _COPIES * samples - 1)
        found = []
        for j in range(states):
            channel, room = j // self.forced.order, (1.0 + 1.0 / _COPIES) ** 0.5
            sent, plain = (
                each[:, :, :, j] @ self.whitening[channel].T / room for each in (noisy, self._sent)
            )
            shift = sent.mean(axis=0) - plain.mean(axis=0)
            ((_, (values, vectors)),) = self._shape((("column", j),)).items()
            added = [
                (((each - each.mean(axis=0)) @ vectors) ** 2 @ values).sum(axis=0) / (_COPIES - 1)
                for each in (sent, plain)
            ]
            squares = (self.copies[..., channel, :] @ vectors) ** 2 @ values
            powers = squares.mean(axis=-1)
            more = np.maximum((added[0] - added[1]).mean(axis=-1), 0.0)
            growth = np.cbrt(1.0 + more / np.maximum(powers.mean(axis=0), 1e-300))
            grown = self._standardized(np.cbrt(powers).mean(axis=0) * growth, np.cbrt(powers))
            part = self._change({channel: self.hypotheses.parts["column", j][channel]})[channel]
            own = (self.copies[..., channel, :] * part).sum(axis=(-2, -1))
            moved = self._standardized((shift * part).sum(axis=(-2, -1)) + own.mean(axis=0), own)
            if max(grown, moved) < limit + _CERTAIN:
                found.append(j)
        return tuple(found)

    def _gain(self, change: Change, sources: tuple[Source, ...]) -> float:
        """Return the log likelihood that a hypothesis gains, with its best amount of noise."""
        gained = 0.0
        for channel, (values, vectors) in self._shape(sources).items():
            z = self.z[:, :, channel]
            left = z - change[channel] if channel in change else z
            rotated = left.reshape(-1, len(values)) @ vectors
            sizes = 1.0 + _NOISES[:, None] * values
            scaled = (rotated**2).mean(axis=0) / sizes
            rest = np.maximum(scaled.mean(axis=1), 1.0)
            each = np.log(sizes).sum(axis=1) + len(values) * (
                np.log(rest) + scaled.mean(axis=1) / rest
            )
            plain = max(float((z**2).mean()), 1.0)
            before = len(values) * (np.log(plain) + float((z**2).mean()) / plain)
            gained += 0.5 * len(rotated) * (before - float(each.min()))
        return gained

    def explain(self, synapses_right: bool) -> list[Fault]:
        """Return what explains the residuals.

        Parameters
        ----------
        synapses_right : bool
            Whether a recording of spikes has shown that the weights are right.
        """
        of, ranked = self.hypotheses, list[Ranked]()
        still = np.flatnonzero(~np.ptp(self.forced.x, axis=1).any(axis=0))
        if self.forced.x.shape[1] > 1 and 0 < len(still) <= MOST_NEURONS:
            words = "State {} of {} is recorded as constant."
            place = self.forced.place
            return [Fault("read stuck", place, (int(i),), words.format(i, place)) for i in still]
        projections = np.array(
            [
                float((self.z[:, :, c] * b).sum()) ** 2 / max(float((b**2).sum()), 1e-300)
                for name, part in of.parts.items()
                for c, b in self._change(part).items()
                if name[0] == "column"
            ]
        )
        senders = [int(j) for j in np.argsort(-projections)[:PAIRED]]
        drives = np.einsum("cik,stck->stci", np.linalg.inv(self.forced.held), self.off)
        worst = np.argsort(-(drives**2).sum(axis=(0, 1)).reshape(-1))[:PAIRED]
        rows = [int(i) for i in worst]
        found = [of.multiplied(), of.stuck(), of.exchanged(senders), of.other()]
        if not synapses_right:
            found += [of.exchanged_rows(rows), of.exchanged_inputs(), of.exchanged_records(rows)]
        for hypotheses in found:
            for fault, change, sources in hypotheses:
                if not (synapses_right and fault.place != self.forced.place):
                    gain = self._gain(self._change(change), sources)
                    ranked.append(Ranked(fault, gain))
        return best(ranked)


def replay_chip(
    network: SpikingNetwork,
    inputs: np.ndarray,
    m: np.ndarray,
    rasters: Mapping[str, np.ndarray] | None = None,
    seed: int = 0,
) -> ChipFindings | None:
    """Predict every recorded state from the one before it, and explain what deviates.

    Parameters
    ----------
    network : SpikingNetwork
    inputs : ndarray, shape (samples, steps, n_in)
    m : ndarray, shape (samples, steps, states)
        Recorded states of all memories at the ends of presentations.
    rasters : mapping of place to ndarray, shape (chip steps, neurons), optional
        Spikes of sample 0.
    seed : int
        Of the membranes and noise of the copies.

    Returns
    -------
    ChipFindings, or None
        None where the file does not determine the chip: synapses with states that are not
        recorded, or neurons of a device.
    """
    if network.synapse is not None or network.device.board or not m.size:
        return None
    numbers = [n for n, memory in enumerate(network.memories) if memory is not None]
    if not numbers:
        return None
    tests = list[SynapseTest | NeuronTest | StateTest]()
    faults, values, blind = list[Fault](), 0, list[str]()
    samples, steps = _affordable(network, m)
    for forced in _forced(network, inputs[:samples, :steps], m[:samples, :steps]):
        raster, right, before = (rasters or {}).get(forced.place), False, len(faults)
        if raster is not None:
            raster = raster[: steps * forced.parts]
            synapses = SynapseTest(forced, raster)
            tests.append(synapses)
            right = synapses.size <= 1.0
            if right:
                neurons = NeuronTest(forced, synapses.states, raster, seed)
                tests.append(neurons)
                values += neurons.scores.size
                faults += neurons.explain() if neurons.size > 1.0 else []
            else:
                faults += synapses.explain()
        if len(faults) > before:  # spikes are the sharper test
            continue
        states = StateTest(forced, seed)
        tests.append(states)
        values += forced.x.size
        if states.size > 1.0:
            faults += states.explain(right)
        elif raster is None and (unseen := states.unseen()):
            blind.append(_blind(forced.place, unseen))
    return ChipFindings(
        samples,
        steps,
        values,
        sum(test.beyond for test in tests),
        max(test.size for test in tests),
        faults,
        tuple(blind),
    )


def _blind(place: str, populations: tuple[int, ...]) -> str:
    """Return the statement on noise that states alone do not show."""
    numbers = ", ".join(map(str, populations[:MOST_NEURONS]))
    more = len(populations) - MOST_NEURONS
    which = f"population {numbers}" if len(populations) == 1 else f"populations {numbers}"
    which += f" and {more:,} more" if more > 0 else ""
    return (
        f"The recorded states are too few to detect ten times the noise in {which} of {place}: "
        "record the spikes of a sample, or more samples."
    )


def _affordable(network: SpikingNetwork, m: np.ndarray) -> tuple[int, int]:
    """Return how many samples and presentations a replay of a few seconds takes."""
    neurons = sum(memory.neurons for memory in network.memories if memory is not None)
    each = neurons * network.steps_per_presentation * _COPIES
    samples = int(np.clip(_UPDATES / (each * m.shape[1]), 2, _MOST_SAMPLES))
    steps = int(np.clip(_UPDATES / (each * samples), 2, m.shape[1]))
    return min(samples, len(m)), min(steps, m.shape[1])


def _forced(network: SpikingNetwork, inputs: np.ndarray, m: np.ndarray) -> Iterator[ForcedMemory]:
    """Yield the memory of every layer, with what the host gives it after the recorded states."""
    signal, first = inputs, 0
    for number, layer in enumerate(network.host.layers):
        memory = network.memories[number]
        if isinstance(layer, LSTMLayer):
            signal = run_lstm(layer, signal)
            continue
        assert isinstance(layer, LMULayer) and memory is not None
        own = m[:, :, first : first + memory.states]
        first += memory.states
        host, u = HostLayer(layer, signal), list[np.ndarray]()
        for t in range(m.shape[1]):
            u.append(host.channels(t))
            host.observe(t, own[:, t])
        x = own / memory.scales.reshape(-1)
        yield ForcedMemory(network, number, np.stack(u, axis=1), x)
        signal = host.output
