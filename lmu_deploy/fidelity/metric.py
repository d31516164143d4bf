"""A task's metric with its interval, alone and beside the reference's.

In: outputs, the reference's outputs on the same samples, the right answers. Out: entries of
fidelity.json.
"""

from __future__ import annotations

import numpy as np

from lmu_deploy.errors import InputError, RunError
from lmu_deploy.fidelity.agreement import class_agreement, deviation
from lmu_deploy.fidelity.intervals import (
    bootstrap_nrmse,
    bootstrap_nrmse_difference,
    squared_sums,
    wilson,
)
from lmu_deploy.fidelity.schema import AgainstReference, Metric
from lmu_deploy.metrics import accuracy, nrmse
from lmu_deploy.tasks.base import Task


def answers(values: np.ndarray, task: Task) -> np.ndarray:
    """Set what a classifier answers at every step past the washout one after the other.

    Parameters
    ----------
    values : ndarray, shape (samples, n_out) or (samples, steps, n_out), or (samples,) or
        (samples, steps) if of integers
        Outputs, or the right classes; without steps they stay as they are.
    """
    ends = values.ndim - (0 if values.dtype.kind in "iu" else 1)
    return values if ends < 2 else values[:, task.washout :].reshape(-1, *values.shape[2:])


def measure(outputs: np.ndarray, targets: np.ndarray, task: Task, seed: int = 0) -> Metric:
    """Judge outputs by the task's metric.

    Parameters
    ----------
    outputs : ndarray, shape (samples, n_out) or (samples, steps, n_out)
    targets : ndarray, shape (samples,) classes, or (samples, steps, n_out)
    task : Task
    seed : int
        Of the bootstrap.

    Raises
    ------
    InputError
        When outputs and targets do not fit each other or the task.
    RunError
        When an output is NaN or infinite.
    """
    if not len(outputs):
        raise InputError("no sample was run, so there is nothing to judge; give at least 1.")
    if not np.isfinite(outputs).all():
        raise RunError("the outputs hold NaN or infinite values, so they cannot be judged.")
    if task.kind == "classification":
        outputs, targets = answers(outputs, task), answers(targets, task)
        value = accuracy(outputs, targets)
        right = round(value * len(targets))
        return Metric(name="accuracy", value=value, ci95=wilson(right, len(targets)))
    value = nrmse(outputs, targets, task.washout)
    interval = bootstrap_nrmse(*squared_sums(outputs, targets, task.washout), seed=seed)
    return Metric(name="nrmse", value=value, ci95=interval)


def compare(
    outputs: np.ndarray, reference: np.ndarray, targets: np.ndarray, task: Task, seed: int = 0
) -> AgainstReference:
    """Lay outputs beside the reference's on the same samples; parameters as in :func:`measure`."""
    away = deviation(outputs, reference, task.washout)
    theirs = measure(reference, targets, task, seed).value
    difference = measure(outputs, targets, task, seed).value - theirs
    if task.kind == "classification":
        found = class_agreement(*(answers(a, task) for a in (outputs, reference, targets)))
        return AgainstReference(
            value=theirs,
            agreement=found.share,
            agreement_ci95=found.ci95,
            flips=found.flips,
            lost=found.lost,
            gained=found.gained,
            deviation=away,
            difference=difference,
            difference_ci95=found.difference_ci95,
            p_value=found.p_value,
        )
    errors, norms = squared_sums(outputs, targets, task.washout)
    reference_errors, _ = squared_sums(reference, targets, task.washout)
    return AgainstReference(
        value=theirs,
        agreement=None,
        agreement_ci95=None,
        flips=None,
        lost=None,
        gained=None,
        deviation=away,
        difference=difference,
        difference_ci95=bootstrap_nrmse_difference(errors, reference_errors, norms, seed),
        p_value=None,
    )
