r"""Ablation runners: errors of hybrid simulations relative to the float reference.

There are three errors: the metric of the task; the output error, an NRMSE with respect to the
outputs of the reference; and the memory error over all samples and steps, with e the error of the
state m of layer l,

.. math:: \sqrt{\tfrac{1}{L} \sum_l \overline{e_l^2} \,/\, \overline{m_l^2}} .
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from converters.spiking.device import NeuronDevice
from lmu_deploy.core.files import fingerprint
from lmu_deploy.core.integer.graph import frame_counts
from lmu_deploy.core.integer.memories import Integrators, Series
from lmu_deploy.core.integer.network import IntegerNetwork
from lmu_deploy.core.metrics import accuracy, nrmse
from lmu_deploy.core.network import LMULayer, LMUNetwork
from lmu_deploy.core.progress import Progress
from lmu_deploy.core.reference import Trace, run_reference
from lmu_deploy.core.spiking.network import SpikingNetwork
from lmu_deploy.fidelity.attribution.chips import HybridRun, run_hybrid
from lmu_deploy.fidelity.attribution.counterpart import FloatCounterpart
from lmu_deploy.fidelity.attribution.simulator import HybridSimulator
from lmu_deploy.fidelity.attribution.switches import Switches, Tally
from lmu_deploy.fidelity.measures.agreement import deviation
from lmu_deploy.fidelity.measures.metric import answers
from lmu_deploy.fidelity.measures.statistics import squared_sums
from lmu_deploy.tasks.base import Task

if TYPE_CHECKING:
    from lmu_deploy.fidelity.store import Parts

_BATCH_BYTES = 2**26


@dataclass(frozen=True)
class Errors:
    """Errors of a hybrid simulation.

    Attributes
    ----------
    metric : float
        Accuracy, or NRMSE with respect to the desired outputs.
    output : float
        NRMSE with respect to the outputs of the reference; 0 when these are all zero.
    memory : float
    """

    metric: float
    output: float
    memory: float


@dataclass(frozen=True)
class AblationRunner:
    """Runs hybrid simulations of one network on the same samples.

    Attributes
    ----------
    network : IntegerNetwork
    counterpart : FloatCounterpart
    inputs : ndarray, shape (samples, steps, n_in)
    targets : ndarray, shape (samples, ...)
    task : Task
    """

    network: IntegerNetwork
    counterpart: FloatCounterpart
    inputs: np.ndarray
    targets: np.ndarray
    task: Task

    def reference(self) -> Errors:
        """Return the metric of the float reference, with zero errors."""
        outputs = self._truth(slice(None)).outputs
        outputs = outputs.reshape(*outputs.shape[: self._axes], -1)
        return Errors(metric_of(outputs, self.targets, self.task), 0.0, 0.0)

    def errors(
        self,
        variants: Mapping[str, Switches],
        tallies: Mapping[str, Tally] | None = None,
        progress: Progress | None = None,
    ) -> dict[str, Errors]:
        """Run several hybrid simulations on all samples.

        Parameters
        ----------
        variants : mapping of name to Switches
        tallies : mapping of name to Tally, optional
            Recorders of sums and saturations of some of them.
        progress : callable, optional
            Called with (batch runs done, total).
        """
        hybrids = {
            name: HybridSimulator(
                self.network, switches, self.counterpart, (tallies or {}).get(name)
            )
            for name, switches in variants.items()
        }
        outputs: dict[str, list[np.ndarray]] = {name: [] for name in variants}
        n_memories = len(self._memories())
        squares = {name: np.zeros(n_memories) for name in variants}
        powers, truths, batches = np.zeros(n_memories), [], self._batches()
        for number, batch in enumerate(batches):
            truth = self._truth(batch, record=True)
            memories = [truth.memory[memory.place.node] for memory in self._memories()]
            powers += [np.sum(m**2) for m in memories]
            truths.append(truth.outputs.reshape(*truth.outputs.shape[: self._axes], -1))
            for done, (name, hybrid) in enumerate(hybrids.items(), start=1):
                found, wrong = self._run(hybrid, self.inputs[batch], memories)
                outputs[name].append(found)
                squares[name] += wrong
                if progress:
                    progress(number * len(hybrids) + done, len(batches) * len(hybrids))
        reference = np.concatenate(truths)
        return {
            name: self._judged(np.concatenate(outputs[name]), reference, squares[name], powers)
            for name in variants
        }

    def squares(self, subsets: Mapping[str, Switches]) -> dict[str, np.ndarray]:
        """Return the squared output errors of every sample, shape (samples,), by name."""
        hybrids = {
            name: HybridSimulator(self.network, switches, self.counterpart)
            for name, switches in subsets.items()
        }
        found: dict[str, list[np.ndarray]] = {name: [] for name in subsets}
        for batch in self._batches():
            truth = self._truth(batch, record=True)
            memories = [truth.memory[memory.place.node] for memory in self._memories()]
            reference = truth.outputs.reshape(*truth.outputs.shape[: self._axes], -1)
            for name, hybrid in hybrids.items():
                outputs, _ = self._run(hybrid, self.inputs[batch], memories)
                found[name].append(squared_sums(outputs, reference, self.task.washout)[0])
        return {name: np.concatenate(parts) for name, parts in found.items()}

    def _run(
        self, hybrid: HybridSimulator, inputs: np.ndarray, memories: list[np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Run a batch; return its outputs, and the sum of squared memory errors of each layer."""
        record, network = hybrid.run(inputs), self.network
        wrong = np.zeros(len(memories))
        for number, (memory, theirs) in enumerate(zip(self._memories(), memories, strict=True)):
            for n in range(theirs.shape[1]):
                wrong[number] += np.sum((record.memory(memory, n) - theirs[:, n]) ** 2)
        y = [frame * network.y_scale for frame in record.messages[network.output]]
        return (np.stack(y, axis=1) if network.return_sequences else y[-1]), wrong

    @property
    def _axes(self) -> int:
        """Number of axes of the outputs before those of a frame."""
        return 2 if self.network.return_sequences else 1

    def _truth(self, batch: slice, record: bool = False) -> Trace:
        """Run the float network on some of the samples."""
        source, inputs = self.counterpart.source, self.inputs[batch]
        return run_reference(source, inputs.reshape(*inputs.shape[:2], *source.frame), record)

    def _memories(self) -> list[Integrators | Series]:
        """Return the memories; each has as many frames as the float network's."""
        return list(self.network.memories)

    def _judged(
        self, outputs: np.ndarray, reference: np.ndarray, squares: np.ndarray, powers: np.ndarray
    ) -> Errors:
        relative = np.divide(squares, powers, out=np.zeros_like(squares), where=powers > 0)
        away = deviation(outputs, reference, self.task.washout)
        return Errors(
            metric_of(outputs, self.targets, self.task),
            away or 0.0,
            float(np.sqrt(relative.mean())) if len(relative) else 0.0,
        )

    def _batches(self) -> list[slice]:
        """Return batches whose recorded frames take at most 64 MB."""
        samples, steps, _ = self.inputs.shape
        frames, values = frame_counts(self.network, steps), 0
        for population in self.network.populations:
            values += frames[population.place] * population.size
        size = max(1, min(samples, _BATCH_BYTES // (8 * values)))
        return [slice(start, min(start + size, samples)) for start in range(0, samples, size)]


class SpikingAblationRunner:
    """Runs hybrid simulations of spiking networks and computes their errors against float.

    Parameters
    ----------
    host : LMUNetwork
        The float network of all simulations.
    inputs : ndarray, shape (samples, steps, n_in)
    targets : ndarray, shape (samples, ...)
    task : Task
    seed : int
    progress : callable, optional
        Called with (runs done, `total`).
    device : NeuronDevice, optional
        Device of the network whose errors are attributed.
    parts : Parts, optional
        Where the errors of runs on virtual chips are kept.

    Attributes
    ----------
    reference : Errors
        Errors of the float network.
    layers : list of int
        Numbers of the layers with a memory.
    total : int
        Expected number of runs and calibrations.
    """

    def __init__(
        self,
        host: LMUNetwork,
        inputs: np.ndarray,
        targets: np.ndarray,
        task: Task,
        seed: int,
        progress: Progress | None,
        device: NeuronDevice | None = None,
        parts: Parts | None = None,
    ) -> None:
        self.inputs, self.seed, self.device, self._parts = inputs, seed, device, parts
        self._targets, self._task, self._progress = targets, task, progress
        self._truth: Trace = run_reference(host, inputs, record=True)
        self.reference = Errors(metric_of(self._truth.outputs, targets, task), 0.0, 0.0)
        self.layers = [n for n, layer in enumerate(host.layers) if isinstance(layer, LMULayer)]
        self.total = self._done = 0

    def errors(
        self,
        network: SpikingNetwork,
        spiking: Collection[int],
        device: NeuronDevice | None = None,
    ) -> Errors:
        """Run a network in which some memories spike, on a virtual chip or a device."""

        def run() -> Errors:
            found = run_hybrid(network, self.inputs, spiking, self.seed, device=device)
            return self._judged(found, network.return_sequences)

        if self._parts is None or device is not None:
            found = run()
        else:
            what = (fingerprint(network), list(spiking), self.seed, self._task.name)
            found = self._parts.errors(run, *what, self.inputs, self._targets)
        self.report()
        return found

    def squares(
        self, network: SpikingNetwork, spiking: Collection[int], number: int = 0
    ) -> np.ndarray:
        """Return the squared output errors of every sample, shape (samples,).

        Parameters
        ----------
        network : SpikingNetwork
        spiking : collection of int
        number : int
            Of the chip; it is added to the seed of initial membranes and noise.
        """
        found = run_hybrid(network, self.inputs, spiking, self.seed + number)
        self.report()
        outputs = found.y if network.return_sequences else found.y[:, -1]
        return squared_sums(outputs, self._truth.outputs, self._task.washout)[0]

    def report(self) -> None:
        """Report one more run or calibration as done."""
        self._done += 1
        if self._progress:
            self._progress(min(self._done, self.total), self.total)

    def finish(self) -> None:
        """Report all work as done, when less was needed than expected."""
        if self._done < self.total and self._progress:
            self._progress(self.total, self.total)

    def _judged(self, found: HybridRun, every_step: bool) -> Errors:
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


def metric_of(outputs: np.ndarray, targets: np.ndarray, task: Task) -> float:
    """Return the metric of a task, without an interval."""
    if task.kind == "classification":
        return accuracy(answers(outputs, task), answers(targets, task))
    return nrmse(outputs, targets, task.washout)
