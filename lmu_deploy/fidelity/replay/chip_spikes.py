r"""Recorded spikes: exact drives of the synapses, and the count of every neuron.

Of one sample all spikes may be recorded, of more of them how often each neuron spiked in every
presentation. These counts are compared with those of copies that start every presentation from the
recorded drives. Neurons that have just spiked have raised the drives that they start from, and the
copies' neurons have not: a neuron near its threshold spikes less often than in the copies. What
recordings of the specified chip differ from such copies by is therefore rehearsed: copies that run
freely are recordings of it, and followed by copies of their own. The rest of the equations is in
:mod:`lmu_deploy.fidelity.replay.chip_replay`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.special import stdtrit

from lmu_deploy.fidelity.measures.statistics import bennett, missing
from lmu_deploy.fidelity.replay.chip_faults import PAIRED, Hypotheses, Hypothesis, pairs
from lmu_deploy.fidelity.replay.integers import MOST_NEURONS, Fault
from targets.spiking.forced import Change, FireAll, Forced, Moved, move

_ALSO = 0.5
"""Gain of a less likely statement, as a share of that of the first."""
FALSE_ALARMS = 1e-3
"""Rate at which a chip that follows its specification is called different."""
_COUNTED = 32
_EXACT = 1e-6
"""Largest residual of states that follow from recorded spikes, in units of the range."""
_ENTER = "row", "input"
"""Parts of the drives that enter a single value."""
_POPULATION = 3
"""Neurons that deviate when their population is said to."""
_WHOLE = 0.25
"""Variance of a count that depends on where membranes start."""
_REHEARSALS, _FOLLOWERS = 8, 2
"""Recordings of the specified chip, and copies that follow each of them."""
_WINDOW = 4
"""Presentations over which irregular spikes are counted, beside each one and all."""
_FEW, _MISSING = 4.0, 0.01
"""Spikes of a sample that may all be missing, and the share of samples in which they are."""
_SILENT = 1.5
"""Logarithm of the share of samples without a spike for each that is expected; in healthy graphs
it is 1.7, and it would be 1 if spikes were independent."""
_STRAY, _REGULAR = 16.0, 0.08
"""Square of deviations that a few stray spikes make, and the least deviation of its cube root."""


def limit_of(statistics: int, degrees: int) -> float:
    """Return the limit of each of several statistics that keeps the rate of false alarms."""
    return float(stdtrit(degrees, 1.0 - FALSE_ALARMS / (2.0 * statistics)))


def seeds_of(seed: int, number: int) -> tuple[int, ...]:
    """Return the seeds of the copies of an ensemble."""
    return (seed, number) if number else (seed,)


def start(ensembles: Sequence[Forced], copies: int, seed: int, noise: float = 1.0) -> FireAll:
    """Start copies of each sample of ensembles that run at the same time, with so much noise."""
    number = copies * len(ensembles[0].x)
    fires = {
        each.place: each.neurons(number, seeds_of(seed, n), noise)
        for n, each in enumerate(ensembles)
        if each.block is not None
    }
    return lambda drives: {place: fire(drives[place]) for place, fire in fires.items()}


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


class SynapseTest:
    """The drives of one sample against those that recorded spikes and the host's values give.

    Parameters
    ----------
    forced : Forced
    rasters : mapping of place to ndarray, shape (chip steps, neurons)
        Spikes of all senders in sample 0.
    """

    def __init__(self, forced: Forced, rasters: Mapping[str, np.ndarray]) -> None:
        spikes = {
            link.source: rasters[link.source].reshape(-1, 1, *link.weights.shape[:2])
            for link in forced.links
        }
        lengths = [len(each) // forced.parts for each in spikes.values()]
        self.steps = min([*lengths, forced.x.shape[1]])
        self.forced, self.states = (
            forced.open_loop().first(self.steps, samples=1),
            list[np.ndarray](),
        )

        def fire(drives: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
            self.states.append(drives[forced.place][0].copy())
            return {name: each[len(self.states) - 1] for name, each in spikes.items()}

        (moved,) = move([self.forced], 1, fire)
        self.recorded = self.forced.x[0]
        self.left = self.recorded - moved.x[0]
        self.hypotheses = Hypotheses(self.forced, moved)

    @property
    def size(self) -> float:
        """Largest residual as a share of its limit."""
        return float(np.abs(self.left).max(initial=0.0)) / _EXACT

    @property
    def beyond(self) -> int:
        """Number of drives beyond the limit."""
        return int((np.abs(self.left) > _EXACT).sum())

    @property
    def deviating(self) -> np.ndarray:
        """Whether each drive deviates in some step, (size,)."""
        return np.asarray((np.abs(self.left) > _EXACT).any(axis=0))

    def explain(self) -> list[Fault]:
        """Return what explains all residuals, or else those of single rows."""
        of, forced = self.hypotheses, self.forced
        wrong = [int(i) for i in np.flatnonzero(self.deviating)]
        wrong.sort(key=lambda i: -float((self.left[:, i] ** 2).sum()))
        among = wrong[: 2 * PAIRED]
        found = (
            of.multiplied(),
            *(of.exchanged(n, self._senders(n)) for n in range(len(forced.links))),
            of.exchanged_rows(among),
            of.exchanged_inputs(),
            self._exchanged_drives(among),
        )
        for hypotheses in found:
            for each in hypotheses:
                if self._exact(each.change):
                    return [each.fault]
        return [self._of_row(i) for i in wrong[:MOST_NEURONS]]

    def _exact(self, change: Change) -> bool:
        """Return whether a change leaves no residual."""
        left = self.left.reshape(self.steps, -1, self.forced.order).copy()
        for channel, values in change.items():
            left[:, channel] -= values[0]
        return bool(np.abs(left).max() <= _EXACT)

    def _exchanged_drives(self, among: list[int]) -> Iterator[Hypothesis]:
        """Yield drives that were exchanged when they were read: each is what the other follows."""
        parts, order = self.hypotheses.parts, self.forced.order

        def drive(i: int) -> np.ndarray:
            channel, k = divmod(i, order)
            own = [each for (kind, _, row), each in parts.items() if (kind in _ENTER and row == i)]
            return sum((each[channel][..., k] for each in own), np.zeros(()))

        for j, k in pairs(among):
            change, scales = dict[int, np.ndarray](), self.forced.scales
            for i, other in ((j, k), (k, j)):
                channel, at = divmod(i, order)
                off = drive(other) * scales[other] / scales[i] - drive(i)
                change.setdefault(channel, np.zeros((*off.shape, order)))[..., at] += off
            yield Hypothesis(self.hypotheses.misread(j, k), change)

    def _of_row(self, i: int) -> Fault:
        """Return what explains the residuals of one drive: its row, its input, or one of these."""
        place, left = self.forced.place, self.left[:, i]
        if not np.ptp(self.recorded[:, i]):
            what = f"{self.forced.noun.capitalize()} {i} of {place} is recorded as constant."
            return Fault("read stuck", place, (i,), what)
        for of, words, part in self._parts_of(i):
            factor = 1.0 + float(part @ left) / max(float(part @ part), 1e-300)
            if np.abs(left - (factor - 1.0) * part).max() <= _EXACT:
                how = {0.0: "is missing", -1.0: "has the wrong sign"}
                what = f"{words} {how.get(round(factor, 6), f'counts {factor:.3g} times')}."
                return Fault(f"{of} gain", f"{place}/{of}", (i,), what[0].upper() + what[1:])
        what = f"The synapses of {self.forced.noun} {i} of {place} do not follow their weights."
        return Fault("row", f"{place}/row", (i,), what)

    def _parts_of(self, i: int) -> Iterator[tuple[str, str, np.ndarray]]:
        """Yield what enters one drive: where it belongs to, words and values."""
        of, forced = self.hypotheses, self.forced
        (channel, k), to = divmod(i, forced.order), f"{forced.noun} {i} of {forced.place}"
        for source, part in of.parts.items():
            if source[0] in (*_ENTER, "rows") and source[2] == i:
                place, _, words = of.named(source)
                yield place.rpartition("/")[2], words, part[channel][0, :, k]
        for n, link in enumerate(forced.links):
            from_ = "" if link.source == forced.place else f" of {link.source}"
            for j in range(len(link.weights)):
                if channel in (part := of.parts["column", n, j]):
                    yield "row", f"what population {j}{from_} sends to {to}", part[channel][0, :, k]
        for (kind, n, f), part in of.parts.items():
            if kind == "channel" and channel in part:
                current = forced.currents[n]
                alone = np.zeros((1, self.steps, forced.order))
                alone[..., k] = current.values[..., f] * current.weights[i, f]
                words = f"the weight from {current.of} {f} of the {current.name} to {to}"
                after = forced.after({channel: alone}, current.direct)
                yield "input", words, after[channel][0, :, k]

    def _senders(self, n: int) -> list[int]:
        """Return the populations of a link whose spikes explain the residuals best."""
        left = self.left.reshape(self.steps, -1, self.forced.order)
        scores = []
        for j in range(len(self.forced.links[n].weights)):
            part = self.hypotheses.parts["column", n, j]
            size = max(float(sum((each**2).sum() for each in part.values())), 1e-300)
            fit = sum(float((left[:, c] * each[0]).sum()) for c, each in part.items())
            scores.append(fit**2 / size)
        return [int(j) for j in np.argsort(-np.array(scores))[:PAIRED]]


class SpikeTest:
    """Spike counts of the neurons of an ensemble against what is expected.

    Attributes
    ----------
    forced : Forced
    steps : int
        Chip steps.
    counts, expected : ndarray, shape (size, neurons)
        Spikes of each neuron.
    scores : ndarray, shape (size, neurons)
        Deviations of the counts, as a share of their limit.
    powers : ndarray, shape (size,)
        Irregularity of each population, as a share of its limit.
    within : str
        Where spikes were counted.
    """

    forced: Forced
    steps: int
    counts: np.ndarray
    expected: np.ndarray
    scores: np.ndarray
    powers: np.ndarray
    within = ""

    @property
    def size(self) -> float:
        """The largest statistic as a share of its limit."""
        return float(max(self.scores.max(), self.powers.max()))

    @property
    def beyond(self) -> int:
        """Number of statistics beyond their limit."""
        return int((self.scores > 1.0).sum() + (self.powers > 1.0).sum())

    @property
    def deviating(self) -> np.ndarray:
        """Whether each population deviates, or a neuron of it, (states,)."""
        return np.asarray((self.scores > 1.0).any(axis=1) | (self.powers > 1.0))

    def explain(self) -> list[Fault]:
        """Name populations, then single neurons, the farthest first."""
        ranked, place = list[Ranked](), self.forced.place
        seen = "state" if self.forced.noun == "state" else "drive"
        for j in range(len(self.scores)):
            off = np.flatnonzero(self.scores[j] > 1.0)
            own, fastest = self.counts[j, off], self._fastest(self.counts[j, off])
            alone = (fastest | (own == 0)).any() or self.powers[j] <= self.scores[j].max()
            if 0 < len(off) < _POPULATION and alone:
                ranked += [Ranked(self._neuron(j, n), float(self.scores[j, n])) for n in off]
                continue
            if not len(off) and self.powers[j] <= 1.0:
                continue
            kind, words = "population", "does not fire as specified: noise, or other curves"
            if not self.counts[j].any():
                kind, words = "dead", "is dead: none of its neurons spikes"
            elif len(off) and fastest.all():
                kind, words = "stuck", f"is stuck: its neurons fire whatever their {seen} is"
            fault = Fault(kind, place, (j,), f"Population {j} of {place} {words}.")
            ranked.append(Ranked(fault, 1e3 * float(max(self.powers[j], self.scores[j].max()))))
        ranked.sort(key=lambda each: -each.gain)
        return [each.fault for each in ranked[:MOST_NEURONS]]

    def _fastest(self, counts: np.ndarray) -> np.ndarray:
        """Return which counts are those of a neuron that fires as fast as it can."""
        network = self.forced.network
        refractory = max(network.neuron.refractory_ms / network.dt_ms, 1.0)
        return np.asarray(counts >= 0.9 * self.steps / (refractory + 1.0))

    def _neuron(self, j: int, n: int) -> Fault:
        count, place = int(self.counts[j, n]), self.forced.place
        about = f"about {max(float(self.expected[j, n]), 0.0):,.0f} times"
        kind, what = "neuron", f"spikes {count:,} times and not {about}"
        if not count:
            kind, what = "dead neuron", f"never spikes, and {about} are expected"
        elif bool(self._fastest(np.array(count))):
            kind, what = "stuck neuron", f"spikes {count:,} times, as often as it can"
        words = f"Neuron {n} of population {j} of {place} {what}{self.within}."
        return Fault(kind, place, (j, n), words)


class NeuronTest(SpikeTest):
    """Spike counts of the neurons in one sample against those of copies in the same states.

    Parameters
    ----------
    forced : Forced
    states : list of ndarray, shape (size,)
        Drives at every chip step.
    raster : ndarray, shape (chip steps, neurons)
    seed : sequence of int
        Of the membranes and noise of the copies.
    tests : int
        Number of tests that share the rate of false alarms.
    """

    def __init__(
        self,
        forced: Forced,
        states: list[np.ndarray],
        raster: np.ndarray,
        seed: Sequence[int],
        tests: int = 1,
    ) -> None:
        self.forced = forced
        self.steps, shape = len(states), (forced.size, raster.shape[1] // forced.size)
        steps = len(states) // forced.parts
        fire = forced.neurons(_COUNTED, seed)
        counts = np.zeros((steps, _COUNTED, *shape), np.float32)
        for step, x in enumerate(states):
            counts[step // forced.parts] += fire(np.broadcast_to(x, (_COUNTED, shape[0])))
        mine = raster[: steps * forced.parts].reshape(steps, forced.parts, *shape).sum(axis=1)
        mean, spread = counts.mean(axis=1), counts.var(axis=1, ddof=1)
        self.counts, self.expected = mine.sum(axis=0), mean.sum(axis=0)
        room = 1.0 + 1.0 / _COUNTED
        deviation = counts.sum(axis=0).var(axis=0, ddof=1)
        limit = limit_of(self.counts.size * tests, _COUNTED - 1)
        self.scores = (
            np.abs(self.counts - self.expected) / np.sqrt(room * deviation + _WHOLE) / limit
        )
        pooled = spread.mean(axis=2, keepdims=True) + _WHOLE
        own = ((mine - mean) ** 2 / (room * pooled)).mean(axis=(0, 2))
        left = (counts - mean[:, None]) * _COUNTED / (_COUNTED - 1)
        copies = (left**2 / (pooled[:, None] * _COUNTED / (_COUNTED - 1))).mean(axis=(0, 3))
        limit = limit_of(len(own) * tests, _COUNTED - 1)
        sizes = copies.std(axis=0, ddof=1) * room**0.5 + 0.05
        self.powers = (own - copies.mean(axis=0)) / sizes / limit


class CountTest(SpikeTest):
    """Spike counts of the neurons in several samples against those of copies and rehearsals.

    Parameters
    ----------
    forced : Forced
    recorded : ndarray, shape (samples, steps, all neurons)
    copies : ndarray, shape (copies, samples, steps, size, neurons)
        Counts of the copies that start from recorded drives.
    rehearsed : ndarray, shape (rehearsals, samples, steps, size, neurons)
        Differences of rehearsed recordings and the mean of the copies that follow each.
    tests : int
        Number of tests that share the rate of false alarms.
    """

    def __init__(
        self,
        forced: Forced,
        recorded: np.ndarray,
        copies: np.ndarray,
        rehearsed: np.ndarray,
        tests: int = 1,
    ) -> None:
        self.forced, (_, samples, steps, size, neurons) = forced, copies.shape
        self.steps, self.within = samples * steps * forced.parts, f" in {samples} samples"
        self._windows = sorted({1, min(_WINDOW, steps), steps})
        mine = recorded.reshape(copies.shape[1:]).astype(np.float32)
        self._copies, self._rehearsed = copies, rehearsed
        degrees, powers = samples * (_REHEARSALS - 1), size * len(self._windows)
        limit = limit_of(size * neurons * tests, degrees)
        left = mine - _grouped(copies)
        others, room = rehearsed.sum(axis=2), 1.0 + 1.0 / _REHEARSALS
        usual = others.mean(axis=0)
        expected = mine.sum(axis=1) - left.mean(axis=0).sum(axis=1) + usual
        self.counts, self.expected = mine.sum(axis=(0, 1)), expected.sum(axis=0)
        off = self.counts - self.expected
        variance = room * others.var(axis=0, ddof=1).sum(axis=0) + _WHOLE
        jump = np.maximum(np.abs(others - usual).max(axis=(0, 1)), 1.0)
        below = missing(variance, np.clip(expected, 0.0, _FEW), _MISSING, limit)
        above = bennett(variance, jump, limit)
        self.scores = np.abs(off) / np.where(off > 0.0, above, below)
        silent = np.where(self.counts > 0.0, 0.0, _SILENT * self.expected / (0.5 * limit**2))
        self.scores = np.maximum(self.scores, silent)
        self._limit = limit_of(powers * tests, degrees)
        self.powers = self._irregularity(left).max(axis=0) / self._limit

    def shows(self, noisy: np.ndarray) -> np.ndarray:
        """Return whether counts (copies * samples, ...) show irregular populations on average."""
        noisy = noisy.reshape(len(self._copies), -1, *self._copies.shape[2:])
        groups = np.repeat(_grouped(self._copies), _FOLLOWERS, axis=0)
        left = noisy[:, : self._copies.shape[1]] - groups
        return np.asarray(self._irregularity(left).max(axis=0) > self._limit)

    def _irregularity(self, left: np.ndarray) -> np.ndarray:
        """Return that of each population over each window, in deviations, (windows, size).

        Parameters
        ----------
        left : ndarray, shape (groups, samples, steps, size, neurons)
            Differences of counts and those of each group of copies.
        """
        found = list[np.ndarray]()
        for window in self._windows:
            copies = _summed(self._copies, window)
            rows = (copies - copies.mean(axis=0)).transpose(3, 0, 1, 2, 4)
            rows = rows.reshape(len(rows), -1, rows.shape[-1])
            shared = rows.swapaxes(1, 2) @ rows / (len(rows[0]) * (1.0 - 1.0 / len(copies)))
            shared += _WHOLE * np.eye(rows.shape[-1], dtype=rows.dtype)
            whitening = np.linalg.inv(np.linalg.cholesky(shared))
            white = (
                np.einsum("...pn,pmn->...pm", _summed(v, window), whitening, optimize=True)
                for v in (left, self._rehearsed)
            )
            own, others = (np.cbrt((v**2).sum(axis=(2, 4)) + _STRAY) for v in white)
            variance = others.var(axis=0, ddof=1) + _REGULAR**2
            off = (own.mean(axis=0) - others.mean(axis=0)).sum(axis=0)
            found.append(off / np.sqrt((1.0 + 1.0 / _REHEARSALS) * variance.sum(axis=0)))
        return np.array(found)


def _grouped(copies: np.ndarray) -> np.ndarray:
    """Return the means of groups of as many copies as follow a rehearsal."""
    return copies.reshape(-1, _FOLLOWERS, *copies.shape[1:]).mean(axis=1, dtype=np.float32)


def _summed(values: np.ndarray, window: int) -> np.ndarray:
    """Return sums (..., windows, size, neurons) over so many steps of values."""
    *before, steps, size, neurons = values.shape
    whole = values[..., : steps // window * window, :, :]
    return whole.reshape(*before, -1, window, size, neurons).sum(axis=-3, dtype=np.float32)


def count_tests(
    ensembles: Sequence[Forced],
    copies: Sequence[Moved],
    recorded: Mapping[str, np.ndarray],
    seed: int,
    tests: int,
) -> list[CountTest]:
    """Return the tests of all ensembles of which the spikes of every neuron were counted.

    Parameters
    ----------
    ensembles : sequence of Forced
        Those that run at the same time.
    copies : sequence of Moved
        What copies of each do that start from recorded drives.
    recorded : mapping of place to ndarray, shape (samples, steps, neurons)
    seed, tests
        As of :class:`NeuronTest`.
    """
    samples, steps, _ = ensembles[0].x.shape
    counted = {each.place: recorded[each.place] for each in ensembles if each.place in recorded}
    first = min([samples, *(len(each) for each in counted.values())])
    if not counted or not first:
        return []
    some = [each.first(steps, first) for each in ensembles]
    free = move(some, _REHEARSALS, start(some, _REHEARSALS, seed), {})
    starts = dict[str, np.ndarray]()
    for each, moved in zip(some, free, strict=True):
        if each.recorded:
            before = np.zeros_like(moved.x)
            direct = np.tile(each.direct, (_REHEARSALS, 1, 1))
            before[:, 1:] = moved.x[:, :-1] - direct[:, :-1]
            starts[each.place] = np.tile(before, (_FOLLOWERS, 1, 1))
    number, found = _FOLLOWERS * _REHEARSALS, list[CountTest]()
    followed = move(some, number, start(some, number, seed + 1), starts)
    for each, given, own, later in zip(some, copies, free, followed, strict=True):
        if each.place in counted:
            shape = first, *own.counts.shape[1:]
            mine = counted[each.place][:first, :steps]
            plain = given.counts.reshape(-1, samples, *shape[1:])[:, :first]
            rehearsed = own.counts.reshape(_REHEARSALS, *shape) - later.counts.reshape(
                _FOLLOWERS, _REHEARSALS, *shape
            ).mean(axis=0, dtype=np.float32)
            found.append(CountTest(each, mine, plain, rehearsed, tests))
    return found
