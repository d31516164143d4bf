r"""Attribution of the errors of a graph of neurons to the ensembles where they come in.

Ensembles feed each other, so that an error has an order. With the values :math:`v_1, \dots, v_k`
that the chip has for its first k ensembles at the ends of presentations, the host can compute all
nodes behind them in float. The error :math:`E_k` of that output is what the chip has lost so far;
the drive of ensemble k, that is the spikes that reach it and what its synapses make of them, adds

.. math:: E_k^2 - E_{k-1}^2 .

The last step is what the host reads from the chip. All errors come from one run, and nothing is
calibrated again. A negative part, where an ensemble makes up for the ones before it, counts as
zero alone, and appears as the decrease from one step to the next.

There is one order, that of the ensembles, so the parts are these differences; their intervals are
over samples, of this chip alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np

from converters.spiking.graph.simulator import HostValues
from lmu_deploy.core.graph.executor import record_states
from lmu_deploy.core.progress import Progress
from lmu_deploy.core.spiking.graph import SpikingGraph
from lmu_deploy.core.validation import check_inputs, check_integer
from lmu_deploy.fidelity.attribution.measure import Errors, metric_of
from lmu_deploy.fidelity.attribution.shapley import Parts, parts_of
from lmu_deploy.fidelity.attribution.spiking import SAMPLES, added_by
from lmu_deploy.fidelity.attribution.study import Attribution, Cause, Step
from lmu_deploy.fidelity.attribution.switches import NEURONS, UNITS, Tally
from lmu_deploy.fidelity.measures.agreement import deviation
from lmu_deploy.fidelity.measures.statistics import squared_sums
from lmu_deploy.tasks.base import Task
from targets.base import Run, flat_frames
from targets.spiking import SpikingTarget

_RELEVANT = 0.05


def attribute_graph(
    graph: SpikingGraph,
    inputs: np.ndarray,
    targets: np.ndarray,
    task: Task,
    samples: int | None = None,
    seed: int = 0,
    progress: Progress | None = None,
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
        Called with (samples run, total).
    budget : float
        0 for no intervals; they take no further run.

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
    done = SpikingTarget().run(graph, inputs, record=True, seed=seed, progress=progress)
    study = _Study(graph, inputs, targets[: len(inputs)], task)
    steps = tuple(study.steps(done))
    parts = study.parts(steps) if budget > 0 else None
    causes = tuple(_causes(steps, parts))
    return Attribution(len(inputs), study.reference, steps, causes, Tally(), parts)


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

    def parts(self, steps: tuple[Step, ...]) -> Parts | None:
        """Return what each step adds to the squared output error, with intervals over samples."""
        names = [step.source for step in steps]
        added = [after - before for before, after in pairwise(self.squares)]
        whole = self.squares[-1]
        return parts_of(dict(zip(names, added, strict=True)), whole, len(whole), chips=1)

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


def _causes(steps: tuple[Step, ...], parts: Parts | None) -> list[Cause]:
    """Return the steps that add more than 5 % of the squared output error, the largest first."""
    whole = steps[-1].after.output
    found = []
    for step in steps:
        share = (step.alone.output / whole) ** 2 if whole else 0.0
        if share > _RELEVANT and not (parts and parts.excluded(step.source)):
            source = step.source if step.source == UNITS else NEURONS
            place = ", ".join(step.places)
            found.append(Cause(source, place, None, step.alone.output, share, None, None))
    return sorted(found, key=lambda cause: -cause.share)
