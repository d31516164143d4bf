r"""Attribution of the errors of a graph of neurons to the ensembles where they come in.

Ensembles feed each other, so that an error has an order. With the values :math:`v_1, \dots, v_k`
that the chip has for its first k ensembles at the ends of presentations, the host can compute all
nodes behind them in float. The error :math:`E_k` of that output is what the chip has lost so far;
the drive of ensemble k, that is the spikes that reach it and what its synapses make of them, adds

.. math:: E_k^2 - E_{k-1}^2 .

The last step is what the host reads from the chip. All errors of a chip come from one run. A
negative part, where an ensemble makes up for the ones before it, counts as zero alone, and appears
as the decrease from one step to the next.

There is one order, that of the ensembles, so the parts are these differences. On other chips with
mismatch, tuning curves, initial membranes and noise of their own, each calibrated as this one was,
the same samples give other parts; the interval is over these chips (shapley.py). For that the
float network is converted again, and first of all for this very chip: ensembles that are not as
they are made then have been damaged or have drifted, or were calibrated otherwise. Chips without
that damage say nothing about it, so such a chip is alone, with an interval over samples, which does
not keep the changed ensembles, and those that read them, from being named as causes.

Where the budget does not allow for five other chips, they run fewer samples, and are calibrated on
as few as half of those of this chip. On fewer they would be chips of another kind, whose errors
come in at other places: the decoders of an ensemble have about as many weights as it has neurons.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import ceil
from typing import TYPE_CHECKING

import numpy as np

from converters.options import LARGEST_SEED
from converters.spiking import spike_again
from converters.spiking.graph.simulator import HostValues
from converters.spiking.neurons import part
from lmu_deploy.core.errors import InputError
from lmu_deploy.core.files import fingerprint
from lmu_deploy.core.graph.executor import record_states
from lmu_deploy.core.progress import Progress
from lmu_deploy.core.spiking.chip import Populations
from lmu_deploy.core.spiking.graph import Ensemble, SpikingGraph
from lmu_deploy.core.validation import check_inputs, check_integer
from lmu_deploy.fidelity.attribution.measure import Errors, metric_of
from lmu_deploy.fidelity.attribution.shapley import ALONE, OneChip, OverChips, Parts
from lmu_deploy.fidelity.attribution.spiking import SAMPLES, added_by
from lmu_deploy.fidelity.attribution.study import Attribution, Cause, Step
from lmu_deploy.fidelity.attribution.switches import NEURONS, UNITS, Tally
from lmu_deploy.fidelity.measures.agreement import deviation
from lmu_deploy.fidelity.measures.statistics import squared_sums
from lmu_deploy.tasks.base import Task
from targets.base import Run, flat_frames
from targets.spiking import SpikingTarget

if TYPE_CHECKING:
    from lmu_deploy.fidelity.store import Parts as Kept

_RELEVANT = 0.05
_OTHERS = 5
"""Chips beside that of the report."""
_FEWEST = 8
"""Samples that these run at least, if there are as many."""
_SEEDS = LARGEST_SEED + 1
_SECONDS_PER_ENSEMBLE, _SECONDS_PER_CUBE = 0.1, 1e-10
"""CPU time of a calibration: of an ensemble or probe, and per cube of neurons decoded together."""
_SECONDS_PER_UPDATE, _SECONDS_PER_NOISY_UPDATE = 1e-8, 4e-8
"""CPU time of a neuron in a step, of a calibration or of a run: by simple neurons without noise,
and by others."""


class GraphChips:
    """Converts the float network of a graph of neurons again, for its own chip and for others.

    Parameters
    ----------
    graph : SpikingGraph
    known : ndarray, shape (samples, steps, n_in)
        The inputs from which those of its calibration were drawn.
    kept : Parts, optional
        Where calibrated chips are kept.
    as_made : bool
        Whether `graph` was just made from these inputs, and need not be compared.
    """

    def __init__(
        self,
        graph: SpikingGraph,
        known: np.ndarray,
        kept: Kept | None = None,
        as_made: bool = False,
    ) -> None:
        self.graph, self.as_made = graph, as_made
        self._known, self._kept = flat_frames(known), kept

    def made(
        self, number: int, samples: int | None = None, progress: Progress | None = None
    ) -> SpikingGraph:
        """Return what `spike` makes with a number added to the seeds of the chip and of its tuning.

        Parameters
        ----------
        number : int
        samples : int, optional
            To calibrate on; by default as many as the graph was calibrated on.
        progress : callable, optional
            Called with (calibration steps done, steps in total).
        """
        graph, kept = self.graph, self._kept
        settings = {
            "seed": (graph.calibration.seed + number) % _SEEDS,
            "chip_seed": (graph.device.seed + number) % _SEEDS,
            "calibration_samples": samples or max(1, graph.calibration.samples),
        }

        def make() -> SpikingGraph:
            keep = None if kept is None else kept.ensemble
            return spike_again(graph, self._known, progress=progress, keep=keep, **settings)

        if kept is None:
            return make()
        found = kept.network(make, "chip", graph.fingerprint(), self._known, settings)
        assert isinstance(found, SpikingGraph)
        return found

    def changes(self, progress: Progress | None = None) -> _Changes:
        """Compare the graph with what `spike` makes of its float network on this very chip."""
        if self.as_made:
            return _Changes()
        found = self.made(0, progress=progress)
        made = {(each.name, each.populations is None): each for each in found.parts}
        neurons, weights = dict[str, None](), dict[str, None]()  # in their order
        for each in self.graph.parts:
            same = made.get((each.name, each.populations is None))
            if same is None or _mark(each.populations) != _mark(same.populations):
                neurons[each.name] = None
            elif _mark(each) != _mark(same) or found.neuron != self.graph.neuron:
                weights[each.name] = None
        everywhere = weights.keys() >= {each.name for each in self.graph.parts}
        return _Changes(tuple(neurons), tuple(weights), everywhere)

    def seconds(self, samples: int) -> float:
        """Return about how long a calibration on so many samples takes on one core."""
        graph, steps = self.graph, self._known.shape[1]
        own = [_SECONDS_PER_ENSEMBLE * len(graph.parts)]
        dynamic = graph.calibration.method == "dynamic"
        if dynamic or graph.round_trips:  # the chip runs on these samples
            own.append(seconds_of_run(graph, samples, steps))
        for each in graph.ensembles if dynamic else ():
            memory = graph.kind(each) == "memory"
            blocks = each.connections[0].weights.shape[0] if memory else 1
            own.append(_SECONDS_PER_CUBE * blocks * (each.neurons / blocks) ** 3)
        return sum(own)


@dataclass(frozen=True)
class _Changes:
    """How a graph differs from what `spike` makes of its float network on its chip.

    Attributes
    ----------
    neurons : tuple of str
        Ensembles whose neurons are others.
    weights : tuple of str
        Other ensembles and probes whose weights or currents are others.
    everywhere : bool
        Whether those of all ensembles and probes are, but no neurons.
    """

    neurons: tuple[str, ...] = ()
    weights: tuple[str, ...] = ()
    everywhere: bool = False

    def __bool__(self) -> bool:
        return bool(self.neurons or self.weights)

    def affected(self, graph: SpikingGraph) -> Iterator[str]:
        """Yield what has changed and what reads it; nothing if all weights are others."""
        changed = set() if self.everywhere else {*self.neurons, *self.weights}
        for each in graph.parts:
            if each.name in changed or not changed.isdisjoint(each.sources):
                yield each.name

    def __str__(self) -> str:
        if self.neurons:
            names = _listed(self.neurons)
            return f"the neurons of {names} were damaged, or have drifted, since they were made"
        if self.everywhere:
            return (
                "it is not what spike makes with the seeds and settings of its file: it was "
                "calibrated on other inputs or another machine, or made with --fan-in or "
                "--calibration-steps, which the file does not hold"
            )
        return (
            f"the weights of {_listed(self.weights)} are not those that spike makes with the seeds "
            "and settings of the file: they were changed since then"
        )


def _mark(part: Ensemble | Populations | None) -> str:
    return "" if part is None else fingerprint(part)


_NAMED = 3


def _listed(names: Sequence[str]) -> str:
    if len(names) > _NAMED:
        return f"{len(names)} ensembles"
    *others, last = names
    return f"{', '.join(others)} and {last}" if others else last


def seconds_of_run(graph: SpikingGraph, samples: int, steps: int) -> float:
    """Return about how long a run of so many samples takes on one core."""
    noise = graph.device.membrane_noise + graph.device.threshold_noise
    simple = graph.neuron.kind != "dpi" and not noise
    updates = samples * steps * graph.steps_per_presentation * graph.neurons
    return updates * (_SECONDS_PER_UPDATE if simple else _SECONDS_PER_NOISY_UPDATE)


def attribute_graph(
    graph: SpikingGraph,
    inputs: np.ndarray,
    targets: np.ndarray,
    task: Task,
    samples: int | None = None,
    seed: int = 0,
    progress: Progress | None = None,
    chips: GraphChips | None = None,
    budget: float = 0.0,
) -> Attribution:
    """Attribute the errors of a graph of neurons to its ensembles.

    Parameters
    ----------
    graph : SpikingGraph
    inputs : ndarray, shape (samples, steps, ...)
    targets : ndarray, shape (as many, ...)
    task : Task
    samples : int, optional
        Number of first samples to run; by default 32.
    seed : int
        Seed of initial membranes and noise.
    progress : callable, optional
        Called with (work done, total).
    chips : GraphChips, optional
        Of this graph, for intervals over chips; without them the intervals are over samples.
    budget : float
        Seconds on one core for the calibrations and runs of other chips, by an estimate from sizes
        and not by a clock; 0 for no parts.

    Returns
    -------
    Attribution
        The total is a run of the graph on target `spiking`.

    Raises
    ------
    InputError
        When the graph was calibrated for a device, or the inputs do not match it.
    """
    samples = check_integer("samples of the attribution", samples or SAMPLES, 1, 2**31)
    inputs = check_inputs(flat_frames(inputs[:samples]), graph.n_in)
    data = inputs, targets[: len(inputs)], task
    own = _GraphOnChip(graph, data, chips if budget > 0 else None, seed, progress)
    parts = OverChips(own, budget).parts()
    own.finish()
    causes = tuple(_causes(own.steps, parts, own.affected))
    return Attribution(len(inputs), own.study.reference, own.steps, causes, Tally(), parts)


class _GraphOnChip(OneChip):
    """A graph of neurons on one chip, which has run.

    Parameters
    ----------
    graph : SpikingGraph
    data : (inputs, targets, task)
    chips : GraphChips or None
    seed : int
    progress : callable or None

    Attributes
    ----------
    study : _Study
    steps : tuple of Step
    affected : frozenset of str
        Ensembles and probes that have changed since they were made, and those that read them.
    """

    orders = 1

    def __init__(
        self,
        graph: SpikingGraph,
        data: tuple[np.ndarray, np.ndarray, Task],
        chips: GraphChips | None,
        seed: int,
        progress: Progress | None,
    ) -> None:
        self.graph, self.chips, self._data = graph, chips, data
        self._seed, self._progress = seed, progress
        self.study, self.affected = _Study(graph, *data), frozenset[str]()
        done = SpikingTarget().run(graph, data[0], record=True, seed=seed, progress=self._shown(0))
        self.steps = tuple(self.study.steps(done))
        self._samples, self._calibrated = len(data[0]), graph.calibration.samples

    def finish(self) -> None:
        """Report all work as done, when less was needed than expected."""
        if self.chips is not None and (last := self._shown(1 + 2 * _OTHERS)) is not None:
            last(1, 1)

    def _shown(self, number: int) -> Progress | None:
        return part(self._progress, number, 2 + 2 * _OTHERS) if self.chips else self._progress

    @property
    def runs(self) -> int:
        """See :class:`OneChip`."""
        return 1

    def affordable(self, budget: float) -> tuple[int, str]:
        """See :class:`OneChip`; five others, or none."""
        graph, chips, samples = self.graph, self.chips, self._samples
        if chips is None:
            return 1, f"{ALONE} the inputs that it was calibrated on are not at hand."
        most, fewest = graph.calibration.samples, min(_FEWEST, samples)
        of_one = seconds_of_run(graph, 1, self.study.inputs.shape[1])
        compared = 0.0 if chips.as_made else chips.seconds(most)
        for calibrated in (most, max(most // 2, 1)):
            of_others = compared + _OTHERS * chips.seconds(calibrated)
            fit = int(min((budget - of_others) / (_OTHERS * of_one), samples))
            if fit >= fewest:
                break
        else:
            least = ceil(of_others + _OTHERS * fewest * of_one)
            return 1, (
                f"{ALONE} five others like it take at least {least} s on one core, by an estimate, "
                f"and --attribution-budget is {budget:g} s."
            )
        try:
            changes = chips.changes(self._shown(1))
        except InputError as error:
            return 1, f"{ALONE} the network cannot be converted again: {error}"
        if changes:
            self.affected = frozenset(changes.affected(graph))
            return 1, f"{ALONE} {changes}."
        self._samples, self._calibrated = fit, calibrated
        return 1 + _OTHERS, self._fewer(samples, most)

    def _fewer(self, samples: int, calibrated: int) -> str:
        """Return the note on what the budget left out."""
        left_out = []
        if self._samples < samples:
            left_out.append(f"the chips are compared on {self._samples} of {samples} samples")
        if self._calibrated < calibrated:
            left_out.append(
                f"the others are calibrated on {self._calibrated} samples instead of {calibrated}, "
                "which makes their errors larger"
            )
        return f"To keep to --attribution-budget, {' and '.join(left_out)}." if left_out else ""

    def another(self, number: int) -> _GraphOnChip:
        """See :class:`OneChip`."""
        assert self.chips is not None
        made = self.chips.made(number, self._calibrated, self._shown(2 * number))
        inputs, targets, task = self._data
        data = inputs[: self._samples], targets[: self._samples], task
        return _GraphOnChip(made, data, None, self._seed + number, self._shown(2 * number + 1))

    def gains(self) -> tuple[Mapping[str, np.ndarray], np.ndarray]:
        """See :class:`OneChip`."""
        names = [step.source for step in self.steps]
        squares = [each[: self._samples] for each in self.study.squares]
        added = [after - before for before, after in pairwise(squares)]
        return dict(zip(names, added, strict=True)), squares[-1]


class _Study:
    """Errors of values that the chip has in part, against the float network."""

    def __init__(
        self, graph: SpikingGraph, inputs: np.ndarray, targets: np.ndarray, task: Task
    ) -> None:
        self.graph, self.inputs, self.targets, self.task = graph, inputs, targets, task
        frames = inputs.reshape(*inputs.shape[:2], *graph.host.frame)
        self.memories = [each.name for each in graph.ensembles if graph.kind(each) == "memory"]
        wanted = [*self.memories, graph.host.output]
        self.truth = record_states(graph.host, frames, nodes=wanted).nodes
        self.reference = Errors(metric_of(self._last(self.truth[wanted[-1]]), targets, task), 0, 0)
        self.squares = [np.zeros(len(inputs))]
        """Squared output errors of the samples, before the first step and after each."""

    def steps(self, done: Run) -> Iterator[Step]:
        """Yield a step for each ensemble, and one for what the host reads."""
        assert done.states is not None and done.states.parts is not None
        host, before = HostValues(self.graph.host, self.inputs), self.reference
        known: dict[str, np.ndarray] = {}
        for each in self.graph.ensembles:
            known[each.name] = done.states.parts[each.name]
            host = HostValues(self.graph.host, self.inputs)
            for name, values in known.items():
                host.read(name, values)
            after = self._errors(host, host[self.graph.host.output])
            source = f"drive of {each.name}"
            yield Step(source, (each.name,), after, added_by(before, after, self.reference))
            before = after
        after = self._errors(host, done.states.y)
        places = tuple(each.name for each in self.graph.probes)
        yield Step(UNITS, places, after, added_by(before, after, self.reference))

    def _errors(self, host: HostValues, outputs: np.ndarray) -> Errors:
        relative = []
        for name in self.memories:
            true = self.truth[name]
            wrong = float(np.square(host[name].reshape(true.shape) - true).sum())
            relative.append(wrong / max(float(np.square(true).sum()), 1e-300))
        mine, true = self._last(outputs), self._last(self.truth[self.graph.host.output])
        self.squares.append(squared_sums(mine, true, self.task.washout)[0])
        return Errors(
            metric_of(mine, self.targets, self.task),
            deviation(mine, true, self.task.washout) or 0.0,
            float(np.sqrt(np.mean(relative))),
        )

    def _last(self, outputs: np.ndarray) -> np.ndarray:
        outputs = outputs.reshape(*outputs.shape[:2], -1)
        return outputs if self.graph.return_sequences else outputs[:, -1]


def _causes(steps: tuple[Step, ...], parts: Parts | None, affected: frozenset[str]) -> list[Cause]:
    """Return the steps that add more than 5 % of the squared output error, the largest first.

    A step whose interval contains zero is none, unless its ensemble is affected by a change.
    """
    whole = steps[-1].after.output
    found = []
    for step in steps:
        share = (step.alone.output / whole) ** 2 if whole else 0.0
        excluded = parts is not None and parts.excluded(step.source)
        if share > _RELEVANT and (not excluded or not affected.isdisjoint(step.places)):
            source = step.source if step.source == UNITS else NEURONS
            place = ", ".join(step.places)
            found.append(Cause(source, place, None, step.alone.output, share, None, None))
    return sorted(found, key=lambda cause: -cause.share)
