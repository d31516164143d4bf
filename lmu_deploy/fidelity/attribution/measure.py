r"""How far a hybrid is from the float reference, on batches that fit into memory.

Three figures: the task's metric; the output error, an NRMSE to the reference's outputs; the memory
error, with e the error of the state m of layer l, all samples and steps together,

.. math:: \sqrt{\tfrac{1}{L} \sum_l \overline{e_l^2} \,/\, \overline{m_l^2}} .
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from lmu_deploy.core.integer.network import IntegerNetwork
from lmu_deploy.core.metrics import accuracy, nrmse
from lmu_deploy.core.progress import Progress
from lmu_deploy.core.reference import run_reference
from lmu_deploy.fidelity.attribution.counterpart import Exact
from lmu_deploy.fidelity.attribution.simulator import Hybrid
from lmu_deploy.fidelity.attribution.switches import Switches
from lmu_deploy.fidelity.attribution.synapses import Tally
from lmu_deploy.fidelity.measures.agreement import deviation
from lmu_deploy.fidelity.measures.metric import answers
from lmu_deploy.tasks.base import Task

_BATCH_BYTES = 2**26


@dataclass(frozen=True)
class Errors:
    """What a hybrid lost.

    Attributes
    ----------
    metric : float
        Accuracy, or NRMSE to the right answers.
    output : float
        NRMSE to the reference's outputs; 0 where those are zero throughout.
    memory : float
    """

    metric: float
    output: float
    memory: float


@dataclass(frozen=True)
class Bench:
    """A network and samples on which hybrids of it are compared.

    Attributes
    ----------
    network : IntegerNetwork
    exact : Exact
    inputs : ndarray, shape (samples, steps, n_in)
    targets : ndarray, shape (samples, ...)
    task : Task
    """

    network: IntegerNetwork
    exact: Exact
    inputs: np.ndarray
    targets: np.ndarray
    task: Task

    def reference(self) -> Errors:
        """Give the float reference's own figures: no errors, and its metric."""
        outputs = run_reference(self.exact.source, self.inputs).outputs
        return Errors(metric_of(outputs, self.targets, self.task), 0.0, 0.0)

    def errors(
        self,
        variants: Mapping[str, Switches],
        tallies: Mapping[str, Tally] | None = None,
        progress: Progress | None = None,
    ) -> dict[str, Errors]:
        """Run several hybrids on all samples.

        Parameters
        ----------
        variants : mapping of name to Switches
        tallies : mapping of name to Tally, optional
            Where to note sums and saturations of some of them.
        progress : callable, optional
            Called with (runs of a batch done, in all).
        """
        hybrids = {
            name: Hybrid(self.network, switches, self.exact, (tallies or {}).get(name))
            for name, switches in variants.items()
        }
        outputs: dict[str, list[np.ndarray]] = {name: [] for name in variants}
        memories_held = len(self.network.on_chip)
        squares = {name: np.zeros(memories_held) for name in variants}
        powers, truths, batches = np.zeros(memories_held), [], self._batches()
        for number, batch in enumerate(batches):
            truth = run_reference(self.exact.source, self.inputs[batch], record=True)
            assert truth.m is not None
            memories = np.split(truth.m, self._ends(), axis=2)
            powers += [np.sum(m**2) for m in memories]
            truths.append(truth.outputs)
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

    def _run(
        self, hybrid: Hybrid, inputs: np.ndarray, memories: list[np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Give the outputs of a batch, and each layer's sum of squared errors of the memory."""
        every, wrong, kept = self.network.return_sequences, np.zeros(len(memories)), []
        for t, moment in enumerate(hybrid.steps(inputs)):
            pairs = zip(moment.real_m.values(), memories, strict=True)
            for number, (mine, theirs) in enumerate(pairs):
                wrong[number] += np.sum((mine - theirs[:, t]) ** 2)
            if every or t == inputs.shape[1] - 1:
                kept.append(moment.y * self.network.y_scale)
        return (np.stack(kept, axis=1) if every else kept[-1]), wrong

    def _judged(
        self, outputs: np.ndarray, reference: np.ndarray, squares: np.ndarray, powers: np.ndarray
    ) -> Errors:
        relative = np.divide(squares, powers, out=np.zeros_like(squares), where=powers > 0)
        away = deviation(outputs, reference, self.task.washout)
        return Errors(
            metric_of(outputs, self.targets, self.task),
            away or 0.0,
            float(np.sqrt(relative.mean())),
        )

    def _batches(self) -> list[slice]:
        """Batches whose recorded memories take at most 64 MB."""
        samples, steps, _ = self.inputs.shape
        states = sum(self._sizes()) + self.network.n_out
        states += sum(layer.n_out for layer in self.network.layers)
        size = max(1, min(samples, _BATCH_BYTES // (8 * steps * states)))
        return [slice(start, min(start + size, samples)) for start in range(0, samples, size)]

    def _ends(self) -> np.ndarray:
        return np.cumsum(self._sizes())[:-1]

    def _sizes(self) -> list[int]:
        """Legendre states of each layer."""
        memories = [getattr(layer, "memory", None) for layer in self.exact.source.layers]
        return [memory.size for memory in memories if memory is not None]


def metric_of(outputs: np.ndarray, targets: np.ndarray, task: Task) -> float:
    """Give the task's metric of outputs, without an interval."""
    if task.kind == "classification":
        return accuracy(answers(outputs, task), answers(targets, task))
    return nrmse(outputs, targets, task.washout)
