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

An ensemble of a graph of neurons is such a memory with several senders, and with other drives than
states; all of its ensembles are copied together. A part :math:`\Delta_k` is a mean over the copies
whose mean is the prediction, and it answers to the noise of the recorded drives, as residuals do:
neurons that spike early spike late next. So projections have a mean, which grows with the number of
steps. For graphs, what the residual before predicts is taken from each, what copies share is added,
and a correlation of 0.3 with the noise of the drives is allowed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from converters.spiking.graph.simulator import HostValues
from lmu_deploy.core.network import LMULayer, LSTMLayer
from lmu_deploy.core.spiking.graph import SpikingGraph
from lmu_deploy.core.spiking.network import SpikingNetwork
from lmu_deploy.fidelity.replay.chip_faults import COPIES, PAIRED, Hypothesis, Residuals
from lmu_deploy.fidelity.replay.chip_spikes import (
    CountTest,
    NeuronTest,
    Ranked,
    SynapseTest,
    best,
    count_tests,
    limit_of,
    seeds_of,
    start,
)
from lmu_deploy.fidelity.replay.integers import MOST_NEURONS, Fault
from targets.host import HostLayer, run_lstm
from targets.spiking.forced import Forced, Moved, move
from targets.spiking.graph import recorded_as

_MOST_SAMPLES, _UPDATES = 16, 4e7
"""Samples of a replay, and updates of neurons: a few seconds."""
_NOISIER = 10.0
"""Noise that a recording has to show, in multiples of the specified one."""
_CERTAIN = 3.0
"""Deviations by which the expectation of a statistic is beyond its limit where a fault is seen for
certain."""
_MATTERS = 1.0
"""Growth of a drive's variance by noise that a recording of spikes has to show."""
_WHOLE = 16
"""Most units whose noise is described by one covariance; that of more is one of each alone."""
_EXPLAINED = 0.15
"""Share of the likelihood that a single fault has to explain if most ensembles deviate."""
_SEVERAL = "{}: the recording may be of another chip"


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
    """The drives of all samples against those of copies that start where they were recorded.

    Parameters
    ----------
    ensembles : sequence of Forced
        Those that run at the same time.
    seed : int
        Of the copies' membranes and noise.
    tests : int
        Number of tests that share the rate of false alarms.
    unbiased : bool
        Whether to take from projections what they have on average: noise that a prediction shares
        with the recorded drives, and with what copies send. It grows with the recording, while
        its deviation grows with the root of it.
    """

    def __init__(
        self, ensembles: Sequence[Forced], seed: int, tests: int = 1, unbiased: bool = False
    ) -> None:
        self.ensembles, self._seed, self._tests = ensembles, seed, tests
        self.moved = self._moved(seed)
        """What the copies of each ensemble do."""
        recorded = zip(ensembles, self.moved, strict=True)
        self.residuals = [
            Residuals(each, moved, unbiased) for each, moved in recorded if each.uncertain
        ]
        degrees = COPIES * len(ensembles[0].x) - 1
        wandering = {each.forced.place: each.wandering for each in self.residuals}
        scores = [each.scores(wandering) for each in self.residuals]
        found, self._ends = np.concatenate(scores), np.cumsum([len(each) for each in scores])
        self._limit = limit_of(len(found) * tests, degrees)
        self.scores = found / self._limit
        """Projections and powers of the residuals, as shares of their limit."""

    def _moved(self, seed: int, noise: float = 1.0) -> list[Moved]:
        """Return what copies of all ensembles do."""
        return move(self.ensembles, COPIES, start(self.ensembles, COPIES, seed, noise))

    @property
    def size(self) -> float:
        """The largest statistic as a share of its limit."""
        return float(self.scores.max(initial=0.0))

    @property
    def beyond(self) -> int:
        """Number of statistics beyond their limit."""
        return int((self.scores > 1.0).sum())

    def unseen(self, spikes: Mapping[str, CountTest]) -> dict[str, tuple[int, ...]]:
        """Return the populations of which ten times the noise would not be seen, by ensemble.

        In copies whose neurons have that noise, what population j sends has another mean and
        another covariance. The statistics of its column then have known expectations, and the fault
        is seen for certain where one of them is well beyond its limit. Where spikes were counted,
        it is not seen if they do not show it either, although it makes a drive noisier.

        Parameters
        ----------
        spikes : mapping of place to CountTest
        """
        device = self.ensembles[0].network.device
        if not max(device.membrane_noise, device.threshold_noise):
            return {}
        moved = dict(zip(self.ensembles, self._moved(self._seed + 1, _NOISIER), strict=True))
        in_spikes = {
            e.place: spikes[e.place].shows(m.counts) for e, m in moved.items() if e.place in spikes
        }
        seen, unseen = dict[tuple[str, int], np.ndarray](), dict[str, tuple[int, ...]]()
        for residuals in self.residuals:
            for key, found in residuals.noisier(moved[residuals.forced]).items():
                seen[key] = np.maximum(seen.get(key, 0.0), found)
        for (place, j), (largest, growth) in seen.items():
            hidden = largest < self._limit + _CERTAIN
            if place in in_spikes:
                hidden &= not in_spikes[place][j] and growth >= _MATTERS
            if hidden:
                unseen[place] = (*unseen.get(place, ()), j)
        return unseen

    def explain(self, synapses_right: Collection[str] = ()) -> list[Fault]:
        """Return what explains the residuals.

        Parameters
        ----------
        synapses_right : collection of str
            Ensembles whose weights are right, as a recording of spikes has shown.
        """
        for each in self.residuals:
            place, noun, x = each.forced.place, each.forced.noun, each.forced.x
            still = np.flatnonzero(~np.ptp(x, axis=1).any(axis=0))
            if x.shape[1] > 1 and 0 < len(still) <= MOST_NEURONS:
                words = f"{noun.capitalize()} {{}} of {place} is recorded as constant."
                return [Fault("read stuck", place, (int(i),), words.format(i)) for i in still]
        ranked, joint = list[Ranked](), dict[Fault, float]()
        for each in self.residuals:
            senders = dict[Fault, float]()
            for one in _hypotheses(each, each.forced.place in synapses_right):
                gain = each.gain(one.change, one.sources)
                ranked.append(Ranked(one.fault, gain))
                if one.whole:
                    whole = replace(one.fault, words=one.whole)
                    senders[whole] = max(senders.get(whole, gain), gain)
            for whole, gain in senders.items():
                joint[whole] = joint.get(whole, 0.0) + gain
        ranked += [Ranked(fault, gain) for fault, gain in joint.items()]
        found, gained = best(ranked), max(each.gain for each in ranked)
        if len(self.residuals) > 1 and self._everywhere(gained):
            words = (
                f"{_SEVERAL.format('The drives of most ensembles deviate')}, and no single fault"
            )
            found.insert(0, Fault("chip", "", (), f"{words} explains it."))
        return found

    def _everywhere(self, gained: float) -> bool:
        """Return whether most ensembles deviate, which no single fault explains."""
        scores = np.split(self.scores, self._ends[:-1])
        deviating = sum(bool((each > 1.0).any()) for each in scores)
        excess = sum(each.excess for each in self.residuals)
        return deviating > len(scores) / 2 and gained < _EXPLAINED * excess


def _hypotheses(residuals: Residuals, synapses_right: bool) -> Iterator[Hypothesis]:
    """Yield what may explain the residuals."""
    of, forced = residuals.of, residuals.forced
    found = [of.multiplied(), of.stuck()]
    for n, link in enumerate(forced.links):
        fits = [
            sum(
                float((residuals.z[:, :, c] * b).sum()) ** 2 / max(float((b**2).sum()), 1e-300)
                for c, b in residuals.change(of.parts["column", n, j]).items()
            )
            for j in range(len(link.weights))
        ]
        found.append(of.exchanged(n, [int(j) for j in np.argsort(-np.array(fits))[:PAIRED]]))
    found.append(of.other())
    if not synapses_right:
        drives = np.einsum("cik,stck->stci", np.linalg.inv(forced.held), residuals.off)
        worst = np.argsort(-(drives**2).sum(axis=(0, 1)).reshape(-1))[:PAIRED]
        rows = [int(i) for i in worst]
        found += [of.exchanged_rows(rows), of.exchanged_inputs(), of.exchanged_records(rows)]
    senders = {link.source for link in forced.links}
    for hypotheses in found:
        for each in hypotheses:
            if not (synapses_right and each.fault.place not in senders):
                yield each


def replay_chip(
    network: SpikingNetwork,
    inputs: np.ndarray,
    m: np.ndarray,
    rasters: Mapping[str, np.ndarray] | None = None,
    seed: int = 0,
    counts: Mapping[str, np.ndarray] | None = None,
) -> ChipFindings | None:
    """Predict every recorded state from the one before it, and explain what deviates.

    Parameters
    ----------
    network : SpikingNetwork
    inputs : ndarray, shape (samples, steps, n_in)
    m : ndarray, shape (samples, steps, states)
        Recorded states of all memories, or of the first ones, at the ends of presentations.
    rasters : mapping of place to ndarray, shape (chip steps, neurons), optional
        Spikes of sample 0.
    seed : int
        Of the membranes and noise of the copies.
    counts : mapping of place to ndarray, shape (first samples, steps, neurons), optional
        Spikes of every neuron in every presentation.

    Returns
    -------
    ChipFindings, or None
        None where the file does not determine the chip: synapses with states that are not
        recorded, or neurons of a device.
    """
    if network.synapse is not None or network.device.board or not m.size:
        return None
    neurons = sum(memory.neurons for memory in network.memories if memory is not None)
    samples, steps = _affordable(neurons * network.steps_per_presentation, m)
    layers = [[each] for each in _layers(network, inputs[:samples, :steps], m[:samples, :steps])]
    return _replayed(layers, rasters or {}, counts or {}, seed)


def replay_graph(
    graph: SpikingGraph,
    inputs: np.ndarray,
    parts: Mapping[str, np.ndarray],
    rasters: Mapping[str, np.ndarray] | None = None,
    seed: int = 0,
    counts: Mapping[str, np.ndarray] | None = None,
) -> ChipFindings | None:
    """Predict every recorded drive of a graph of neurons, and explain what deviates.

    Parameters
    ----------
    graph : SpikingGraph
    inputs : ndarray, shape (samples, steps, n_in)
    parts : mapping of str to ndarray, shape (samples, frames, size)
        States of memories, the drives of units as ``NAME/drive``, and what the host reads as
        ``NAME/read``. Units without recorded drives follow from those before them. What the host
        sends is known while all that it has read before is recorded.
    rasters, seed, counts
        As of :func:`replay_chip`.

    Returns
    -------
    ChipFindings, or None
        None for the neurons of a device, or if nothing was recorded.
    """
    known = [parts[name] for each in graph.parts if (name := recorded_as(graph, each)) in parts]
    if graph.device.board or not known:
        return None
    samples, steps = _affordable(graph.neurons * graph.steps_per_presentation, known[0])
    found = list(_stages(graph, inputs[:samples], parts, steps))
    with_neurons = sum(each.block is not None for stage in found for each in stage)
    tests = len(found) + 2 * with_neurons * (1 + bool(counts))
    return _replayed(found, rasters or {}, counts or {}, seed, tests)


def _replayed(
    groups: Sequence[Sequence[Forced]],
    rasters: Mapping[str, np.ndarray],
    counts: Mapping[str, np.ndarray],
    seed: int,
    shared: int = 1,
) -> ChipFindings | None:
    """Replay ensembles, group by group those that run at the same time.

    `shared` is the number of tests that share the rate of false alarms.
    """
    tests = list[SynapseTest | NeuronTest | StateTest | CountTest]()
    faults, values, blind = list[Fault](), 0, list[str]()
    for group in groups:
        right, counted, before = set[str](), set[str](), len(faults)
        for number, forced in enumerate(group):
            if not forced.recorded or any(link.source not in rasters for link in forced.links):
                continue
            synapses = SynapseTest(forced, rasters)
            tests.append(synapses)
            if synapses.size > 1.0:
                faults += synapses.explain()
                continue
            right.add(forced.place)
            if forced.block is not None and forced.place in rasters:
                raster, seeds = rasters[forced.place], seeds_of(seed, number)
                neurons = NeuronTest(forced, synapses.states, raster, seeds, shared)
                tests.append(neurons)
                counted.add(forced.place)
                values += neurons.scores.size
                faults += neurons.explain() if neurons.size > 1.0 else []
        tried = [each for each in group if each.uncertain]
        if len(faults) > before or not tried:  # spikes are the sharper test
            continue
        states = StateTest(group, seed, shared, unbiased=shared > 1)
        spikes = count_tests(group, states.moved, counts, seed + 2, shared)
        tests += [states, *spikes]
        values += sum(each.x.size for each in tried) + sum(each.scores.size for each in spikes)
        most = max((each.size for each in spikes), default=0.0)
        if max(most, states.size) > 1.0:
            sure = right.issuperset(each.place for each in tried)
            if most > 1.0 and (sure or most > states.size):
                for each in sorted(spikes, key=lambda test: -test.size):
                    faults += each.explain() if each.size > 1.0 else []
            else:
                faults += states.explain(right)
            continue
        by_place = {each.forced.place: each for each in spikes}
        counted -= by_place.keys()
        unseen = {} if counted.issuperset(each.place for each in group) else states.unseen(by_place)
        blind += [
            _blind(place, of, place in by_place)
            for place, of in unseen.items()
            if place not in counted
        ]
    if not tests:
        return None
    if (whole := _several(tests)) is not None:
        faults.insert(0, whole)
    samples, steps, _ = groups[0][0].x.shape
    return ChipFindings(
        samples,
        steps,
        values,
        sum(test.beyond for test in tests),
        max(test.size for test in tests),
        faults,
        tuple(blind),
    )


def _several(tests: Sequence[SynapseTest | NeuronTest | StateTest | CountTest]) -> Fault | None:
    """Return the statement on a recording of spikes in which most of the chip deviates."""
    synapses = [test for test in tests if isinstance(test, SynapseTest) and test.forced.links]
    wrong = [test for test in synapses if test.size > 1.0 and test.explain()[0].kind == "row"]
    what, total = "", len(synapses)
    if len(wrong) > max(1.0, total / 2):
        what = f"The synapses of {len(wrong)} of {total} ensembles do not follow the file"
    elif total == len(wrong) == 1 and wrong[0].deviating.mean() > 0.5:
        what = f"Most synapses of {wrong[0].forced.place} do not follow the file"
    if what:
        return Fault("chip", "", (), f"{_SEVERAL.format(what)}, or of another calibration.")
    for kind in (NeuronTest, CountTest):
        neurons = [test for test in tests if isinstance(test, kind)]
        total = sum(len(test.powers) for test in neurons)
        deviating = [int(test.deviating.sum()) for test in neurons]
        alone = len(neurons) == 1 and sum(deviating) > total / 2
        if (alone or sum(n > 0 for n in deviating) > 1) and sum(deviating) >= max(3.0, total / 4):
            what = f"{sum(deviating)} of {total} populations do not fire as specified"
            return Fault("chip", "", (), f"{_SEVERAL.format(what)}.")
    return None


def _blind(place: str, populations: tuple[int, ...], spikes: bool) -> str:
    """Return the statement on noise that states, or spikes too, do not show."""
    numbers = ", ".join(map(str, populations[:MOST_NEURONS]))
    more = len(populations) - MOST_NEURONS
    which = f"population {numbers}" if len(populations) == 1 else f"populations {numbers}"
    which += f" and {more:,} more" if more > 0 else ""
    what, also = ("spikes", "") if spikes else ("states", "the spikes of a sample, or ")
    return (
        f"The recorded {what} are too few to detect ten times the noise in {which} of {place}: "
        f"record {also}more samples."
    )


def _affordable(updates: int, m: np.ndarray) -> tuple[int, int]:
    """Return how many samples and presentations a replay of a few seconds takes."""
    each = updates * COPIES
    samples = int(np.clip(_UPDATES / (each * m.shape[1]), 2, _MOST_SAMPLES))
    steps = int(np.clip(_UPDATES / (each * samples), 2, m.shape[1]))
    return min(samples, len(m)), min(steps, m.shape[1])


def _layers(network: SpikingNetwork, inputs: np.ndarray, m: np.ndarray) -> Iterator[Forced]:
    """Yield the memory of every layer, with what the host gives it after the recorded states."""
    signal, first = inputs, 0
    for number, layer in enumerate(network.host.layers):
        memory = network.memories[number]
        if isinstance(layer, LSTMLayer):
            signal = run_lstm(layer, signal)
            continue
        assert isinstance(layer, LMULayer) and memory is not None
        if first >= m.shape[2]:
            return
        own = m[:, :, first : first + memory.states]
        first += memory.states
        host, u = HostLayer(layer, signal), list[np.ndarray]()
        for t in range(m.shape[1]):
            u.append(host.channels(t))
            host.observe(t, own[:, t])
        x = own / memory.scales.reshape(-1)
        yield Forced.of_layer(network, number, np.stack(u, axis=1), x)
        signal = host.output


def _stages(
    graph: SpikingGraph, inputs: np.ndarray, recorded: Mapping[str, np.ndarray], steps: int
) -> Iterator[list[Forced]]:
    """Yield the ensembles and probes of each stage, with what the host sends them."""
    host = HostValues(graph.host, inputs)
    for ensembles, probes in graph.stages:
        values, found = host.currents((*ensembles, *probes)), list[Forced]()
        frames = next(iter(values.values())).shape[1]
        for each in (*ensembles, *probes):
            x = recorded.get(recorded_as(graph, each), np.zeros((0, 0, 0)))[: len(inputs)]
            known = x if x.shape == (len(inputs), frames, each.size) else None
            found.append(Forced.of_ensemble(graph, each, values, known, _WHOLE).first(steps))
        yield found
        if not all(forced.recorded for forced in found[len(ensembles) :]):
            return
        for each in probes:
            host.read(each.name, recorded[recorded_as(graph, each)][: len(inputs)])
