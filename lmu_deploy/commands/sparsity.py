"""What `quantise` does for fewer messages: thresholds as given, or tuned on the validation data."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from lmu_deploy.checks import check_number
from lmu_deploy.commands.task_data import limited
from lmu_deploy.errors import InputError
from lmu_deploy.integer_network import IntegerNetwork
from lmu_deploy.progress import progress_bar
from lmu_deploy.tasks.base import Split, Task
from lmu_deploy.wiring import populations, wires
from targets.base import Run

JUDGED, TRIED = 2000, 64
"""Validation samples that judge a loss, and of these those that thresholds are tried on."""


def check_sparsity(threshold: float | None, loss: float | None) -> None:
    """Raise InputError when what is asked for makes no sense, before any work."""
    if threshold is not None and loss is not None:
        raise InputError(
            "a sparsity threshold and a sparsity loss were given; a loss chooses the thresholds, "
            "so leave one of them out."
        )
    if threshold is not None:
        check_number("sparsity threshold", threshold, 0.0, 1.0)
    if loss is not None:
        check_number("sparsity loss", loss, 0.0, 1.0)


def make_sparse(
    network: IntegerNetwork, task: Task, threshold: float | None, loss: float | None
) -> IntegerNetwork:
    """Give connections thresholds.

    Parameters
    ----------
    network : IntegerNetwork
    task : Task
        Whose validation data tune; its test data are not looked at.
    threshold : float or None
        Share of the range of messages that a change has to reach; see
        :func:`converters.quantise.sparsity.with_fraction`.
    loss : float or None
        Allowed loss: of accuracy, 0.002 being 0.2 points; or relative growth of NRMSE.
    """
    from converters.quantise.sparsity import with_fraction

    if threshold is not None:
        network = with_fraction(network, threshold)
    elif loss is not None:
        network = _tuned(network, task, loss)
    else:
        return network
    return _reported(network, {"threshold": threshold, "loss": loss}, judged_on(task))


def _tuned(network: IntegerNetwork, task: Task, allowed: float) -> IntegerNetwork:
    from converters.quantise.sparsity import highest_rung, make_ladder

    data = judged_on(task)
    with progress_bar("thresholds", "runs") as progress:
        ladder = make_ladder(network, data.inputs[:TRIED], run_twin, progress)
    before = run_twin(ladder.at(0), data.inputs).outputs
    loss = loss_of(task, data, before)
    with progress_bar("tuning", "runs") as progress:
        rung = highest_rung(
            len(ladder.rungs),
            lambda number: loss(run_twin(ladder.at(number), data.inputs).outputs),
            allowed,
            progress,
        )
    return ladder.at(rung)


def loss_of(task: Task, data: Split, before: np.ndarray) -> Callable[[np.ndarray], float]:
    """Give the function that tells what other outputs than those `before` lose."""
    from converters.quantise.sparsity import expected_loss

    if task.kind == "classification":
        if task.every_step:
            before, data = before[:, task.washout :], _without_washout(data, task.washout)
            return lambda outputs: expected_loss(outputs[:, task.washout :], before, data.targets)
        return lambda outputs: expected_loss(outputs, before, data.targets)
    score = task.score(before, data.targets)
    return lambda outputs: task.score(outputs, data.targets) / max(score, 1e-30) - 1.0


def _without_washout(data: Split, washout: int) -> Split:
    return Split(data.inputs, data.targets[:, washout:])


def judged_on(task: Task) -> Split:
    """Give validation data, or training data where a task has no others."""
    data = task.load()
    return limited(data.validation if len(data.validation) else data.train, JUDGED)


def run_twin(network: IntegerNetwork, inputs: np.ndarray) -> Run:
    """Run the integer twin."""
    from targets.integer import IntegerTarget

    return IntegerTarget().run(network, inputs)


def _reported(
    network: IntegerNetwork, asked: dict[str, float | None], data: Split
) -> IntegerNetwork:
    """Say what each connection sends now, and keep it in the provenance."""
    from converters.quantise.sparsity import silent_shares

    inputs = data.inputs[:TRIED]
    made = run_twin(network, inputs)
    shares = silent_shares(network, made.carried, inputs.shape[0] * inputs.shape[1])
    limits = {name: p.message.limit for name, p in populations(network).items()}
    thresholds = {w.place: w.connection.threshold for w in wires(network) if w.place in shares}
    for wire in wires(network):
        if threshold := thresholds.get(wire.place):
            print(
                f"sparsity {wire.place}: threshold {threshold} of {limits[wire.source]}, "
                f"{shares[wire.place]:.1%} of its messages silent",
                file=sys.stderr,
            )
    print(f"sparsity: {shares['total']:.1%} of all messages silent", file=sys.stderr)
    said = {**asked, "thresholds": thresholds, "silent": shares}
    return replace(network, provenance={**network.provenance, "sparsity": json.dumps(said)})
