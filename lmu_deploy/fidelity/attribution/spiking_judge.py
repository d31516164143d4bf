"""Runs of spiking networks with one float network, all judged on the same samples."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from lmu_deploy.fidelity.agreement import deviation
from lmu_deploy.fidelity.attribution.measure import Errors, Progress, metric_of
from lmu_deploy.fidelity.attribution.spiking_hybrid import Outcome, run_hybrid
from lmu_deploy.network import LMULayer, LMUNetwork
from lmu_deploy.reference import Trace, run_reference
from lmu_deploy.spiking_network import SpikingNetwork
from lmu_deploy.tasks.base import Task


class Judge:
    """Runs hybrids and says how far they are from float.

    Parameters
    ----------
    host : LMUNetwork
        The float network that all of them have.
    inputs : ndarray, shape (samples, steps, n_in)
    targets : ndarray, shape (samples, ...)
    task : Task
    seed : int
    progress : callable, optional
        Called with (work done, `total`).

    Attributes
    ----------
    reference : Errors
        Of the float network.
    layers : list of int
        Numbers of the layers with a memory.
    total : int
        Runs and calibrations that are expected.
    """

    def __init__(
        self,
        host: LMUNetwork,
        inputs: np.ndarray,
        targets: np.ndarray,
        task: Task,
        seed: int,
        progress: Progress | None,
    ) -> None:
        self.inputs, self.seed = inputs, seed
        self._targets, self._task, self._progress = targets, task, progress
        self._truth: Trace = run_reference(host, inputs, record=True)
        self.reference = Errors(metric_of(self._truth.outputs, targets, task), 0.0, 0.0)
        self.layers = [n for n, layer in enumerate(host.layers) if isinstance(layer, LMULayer)]
        self.total = self._done = 0

    def errors(self, network: SpikingNetwork, spiking: Collection[int]) -> Errors:
        """Run a network of which some memories spike, and give its figures."""
        found = run_hybrid(network, self.inputs, spiking, self.seed)
        self.report()
        return self._judged(found, network.return_sequences)

    def report(self) -> None:
        """Count a run, or a calibration."""
        self._done += 1
        if self._progress:
            self._progress(min(self._done, self.total), self.total)

    def finish(self) -> None:
        """Say that no more comes, where less was needed than expected."""
        if self._done < self.total and self._progress:
            self._progress(self.total, self.total)

    def _judged(self, found: Outcome, every_step: bool) -> Errors:
        truth = self._truth
        assert truth.m is not None
        ends = np.cumsum([m.shape[2] for m in found.m])[:-1]
        relative = [
            float(np.sum((mine - theirs) ** 2)) / max(float(np.sum(theirs**2)), 1e-300)
            for mine, theirs in zip(found.m, np.split(truth.m, ends, axis=2), strict=True)
        ]
        outputs = found.y if every_step else found.y[:, -1]
        return Errors(
            metric_of(outputs, self._targets, self._task),
            deviation(outputs, truth.outputs, self._task.washout) or 0.0,
            float(np.sqrt(np.mean(relative))),
        )
