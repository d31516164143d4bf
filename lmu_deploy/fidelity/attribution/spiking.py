"""What a spiking network's errors come from: its layers' neurons, noise, a population to blame.

What mismatch, few bits and the calibration that answers them do cannot be taken apart afterwards,
for W was fitted to all of them together: they are in what the neurons of each layer do. The noise
of membranes can: it is left out at first and added as the last source.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from lmu_deploy.checks import check_inputs, check_integer
from lmu_deploy.errors import InputError
from lmu_deploy.fidelity.agreement import deviation
from lmu_deploy.fidelity.attribution.causes import Cause
from lmu_deploy.fidelity.attribution.measure import Errors, Progress, metric_of
from lmu_deploy.fidelity.attribution.populations import blame_populations, mended
from lmu_deploy.fidelity.attribution.spiking_hybrid import Outcome, run_hybrid
from lmu_deploy.fidelity.attribution.study import Attribution, Step
from lmu_deploy.fidelity.attribution.switches import CALIBRATION
from lmu_deploy.fidelity.attribution.synapses import Tally
from lmu_deploy.reference import Trace, run_reference
from lmu_deploy.spiking_network import SpikingNetwork
from lmu_deploy.tasks.base import Task

SAMPLES = 32
NEURONS, NOISE = "neurons of", "membrane noise"
_MOST_CAUSES = 3


def attribute_spiking(
    network: SpikingNetwork,
    inputs: np.ndarray,
    targets: np.ndarray,
    task: Task,
    samples: int | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Attribution:
    """Let memories spike one after the other and alone, then their noise; find who is to blame.

    Parameters
    ----------
    network : SpikingNetwork
    inputs : ndarray, shape (at least 2, steps, n_in)
    targets : ndarray, shape (as many, ...)
    task : Task
    samples : int, optional
        How many of the first samples are run, at least 2; by default 32.
    seed : int
        Of the neurons' starting points and noise.
    progress : callable, optional
        Called with (runs done, in all).

    Returns
    -------
    Attribution
        A cause is a population of which less is lost once it is fitted anew; its share is what
        that takes away of the squared output error, its `output` what is left.

    Raises
    ------
    InputError
        When inputs or targets do not fit, or the synapses are no linear filters.
    """
    if network.synapse is not None:
        raise InputError(
            "attribution: the network's synapses are no linear filters, so that no memory can be "
            "ideal by itself; make one with linear synapses."
        )
    samples = check_integer("samples of the attribution", samples or SAMPLES, 2, 2**31)
    inputs = check_inputs(inputs, network.n_in)[:samples]
    if len(inputs) < 2 or len(targets) < len(inputs):
        raise InputError(
            f"attribution: {len(inputs)} samples and {len(targets)} answers; give at least two "
            "samples and an answer to each."
        )
    judge = _Judge(network, inputs, targets[: len(inputs)], task, seed, progress)
    layers = [number for number, memory in enumerate(network.memories) if memory is not None]
    noisy = network.device.membrane_noise > 0
    judge.total = 2 * len(layers) - 1 + noisy + 1 + _MOST_CAUSES
    steps = []
    for place, number in enumerate(layers):
        after = judge.errors(layers[: place + 1], noise=False)
        alone = after if place == 0 else judge.errors([number], noise=False)
        steps.append(Step(f"{NEURONS} layer{number}", (f"layer{number}/memory",), after, alone))
    if noisy:
        before, loud = steps[-1].after, judge.errors(layers, noise=True)
        places = tuple(f"layer{number}/memory" for number in layers)
        steps.append(Step(NOISE, places, loud, _added(before, loud, judge.reference.metric)))
    causes = _causes(judge, layers, steps[-1].after.output)
    return Attribution(len(inputs), judge.reference, tuple(steps), tuple(causes), Tally())


class _Judge:
    """Runs hybrids of one network on one set of samples."""

    def __init__(
        self,
        network: SpikingNetwork,
        inputs: np.ndarray,
        targets: np.ndarray,
        task: Task,
        seed: int,
        progress: Progress | None,
    ) -> None:
        self.network, self.inputs, self.seed = network, inputs, seed
        self._targets, self._task, self._progress = targets, task, progress
        self._truth: Trace = run_reference(network.host, inputs, record=True)
        self.reference = Errors(metric_of(self._truth.outputs, targets, task), 0.0, 0.0)
        self.total = self._done = 0

    def errors(
        self, spiking: Collection[int], noise: bool, network: SpikingNetwork | None = None
    ) -> Errors:
        """Give the figures of a run; of another network with the same host, if one is given."""
        found = run_hybrid(network or self.network, self.inputs, spiking, noise, self.seed)
        self.report()
        return self._judged(found)

    def report(self) -> None:
        """Count a run."""
        self._done += 1
        if self._progress:
            self._progress(self._done, self.total)

    def _judged(self, found: Outcome) -> Errors:
        truth = self._truth
        assert truth.m is not None
        ends = np.cumsum([m.shape[2] for m in found.m])[:-1]
        relative = [
            float(np.sum((mine - theirs) ** 2)) / max(float(np.sum(theirs**2)), 1e-300)
            for mine, theirs in zip(found.m, np.split(truth.m, ends, axis=2), strict=True)
        ]
        outputs = found.y if self.network.return_sequences else found.y[:, -1]
        return Errors(
            metric_of(outputs, self._targets, self._task),
            deviation(outputs, truth.outputs, self._task.washout) or 0.0,
            float(np.sqrt(np.mean(relative))),
        )


def _added(before: Errors, after: Errors, reference: float) -> Errors:
    """Give what noise adds: it acts on neurons only, so that it cannot be alone."""
    return Errors(
        reference + after.metric - before.metric,
        max(after.output**2 - before.output**2, 0.0) ** 0.5,
        max(after.memory**2 - before.memory**2, 0.0) ** 0.5,
    )


def _causes(judge: _Judge, layers: Collection[int], whole: float) -> list[Cause]:
    """Name populations that take most of the output error away when they are fitted anew."""
    blames = blame_populations(judge.network, judge.inputs, judge.seed)[:_MOST_CAUSES]
    judge.report()
    causes = []
    for blame in blames:
        left = judge.errors(layers, True, mended(judge.network, blame)).output
        share = 1.0 - left**2 / whole**2 if whole else 0.0
        if share > 0:
            place = f"layer{blame.layer}/memory/population{blame.state}"
            causes.append(Cause(CALIBRATION, place, None, left, share, blame.explained, None))
    return sorted(causes, key=lambda cause: -cause.share)
