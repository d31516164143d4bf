"""Metric of a task with its interval, comparison with the reference, and results of each sample.

The results of each sample are stored compactly, so that two reports of the same samples can be
compared pairwise: one bit per prediction of a classifier, or two numbers per sequence of a
regression, the sums of squared errors and of squared desired outputs. 10,000 samples take 2 kB or
100 kB of fidelity.json.
"""

from __future__ import annotations

import base64
import binascii

import numpy as np

from lmu_deploy.core.errors import InputError, RunError
from lmu_deploy.core.metrics import NO_CLASS, accuracy, nrmse
from lmu_deploy.fidelity.measures.agreement import class_agreement, deviation
from lmu_deploy.fidelity.measures.statistics import (
    bootstrap_nrmse,
    bootstrap_nrmse_difference,
    squared_sums,
    wilson,
)
from lmu_deploy.fidelity.schema import AgainstReference, Answers, Metric
from lmu_deploy.tasks.base import Task


def answers(values: np.ndarray, task: Task) -> np.ndarray:
    """Flatten the steps after the washout, for a classifier that predicts at every step.

    Parameters
    ----------
    values : ndarray, shape (samples, n_out) or (samples, steps, n_out), or (samples,) or
        (samples, steps) if of integers
        Outputs, or the correct classes; arrays without steps are returned unchanged.
    """
    ends = values.ndim - (0 if values.dtype.kind in "iu" else 1)
    return values if ends < 2 else values[:, task.washout :].reshape(-1, *values.shape[2:])


def answered(outputs: np.ndarray, targets: np.ndarray, task: Task) -> tuple[np.ndarray, np.ndarray]:
    """Flatten as :func:`answers`, without the steps that have no correct class."""
    outputs, targets = answers(outputs, task), answers(targets, task)
    if not (targets == NO_CLASS).any():
        return outputs, targets
    return outputs[targets != NO_CLASS], targets[targets != NO_CLASS]


def measure(outputs: np.ndarray, targets: np.ndarray, task: Task, seed: int = 0) -> Metric:
    """Compute the metric of a task with its 95 % interval.

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
        When the shapes of outputs and targets do not match each other or the task.
    RunError
        When an output is NaN or infinite.
    """
    if not len(outputs):
        raise InputError("no sample was run, so there is no metric; run at least 1.")
    if not np.isfinite(outputs).all():
        raise RunError("the outputs contain NaN or infinite values, so they have no metric.")
    if task.kind == "classification":
        outputs, targets = answered(outputs, targets, task)
        value = accuracy(outputs, targets)
        right = round(value * len(targets))
        return Metric(name="accuracy", value=value, ci95=wilson(right, len(targets)))
    value = nrmse(outputs, targets, task.washout)
    interval = bootstrap_nrmse(*squared_sums(outputs, targets, task.washout), seed=seed)
    return Metric(name="nrmse", value=value, ci95=interval)


def compare(
    outputs: np.ndarray, reference: np.ndarray, targets: np.ndarray, task: Task, seed: int = 0
) -> AgainstReference:
    """Compare outputs with the reference on the same samples; parameters as in :func:`measure`."""
    away = deviation(outputs, reference, task.washout)
    theirs = measure(reference, targets, task, seed).value
    difference = measure(outputs, targets, task, seed).value - theirs
    if task.kind == "classification":
        mine, wanted = answered(outputs, targets, task)
        found = class_agreement(mine, answered(reference, targets, task)[0], wanted)
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


MOST_ANSWERS = 2**20
"""Largest number of predictions that are stored (131 kB of bits)."""


def keep_answers(outputs: np.ndarray, targets: np.ndarray, task: Task) -> Answers | None:
    """Pack the result of each sample; parameters as in :func:`measure`.

    Returns
    -------
    Answers, or None
        None when there are more than :data:`MOST_ANSWERS` predictions.
    """
    if task.kind != "classification":
        errors, norms = squared_sums(outputs, targets, task.washout)
        if len(errors) > MOST_ANSWERS // 32:
            return None
        return Answers(count=len(errors), errors=_numbers(errors), norms=_numbers(norms))
    given, wanted = answered(outputs, targets, task)
    if len(given) > MOST_ANSWERS:
        return None
    right = given.argmax(axis=1) == wanted
    return Answers(count=len(right), right=_text(np.packbits(right)))


def right_answers(found: Answers) -> np.ndarray | None:
    """Unpack which predictions are correct; shape (predictions,), bool. None for a regression.

    Raises
    ------
    InputError
        When the packed data are corrupt.
    """
    if found.right is None:
        return None
    bits = np.unpackbits(_array(found.right, np.uint8))
    if not 0 <= len(bits) - found.count < 8:
        raise _corrupt()
    return bits[: found.count].astype(bool)


def error_sums(found: Answers) -> tuple[np.ndarray, np.ndarray] | None:
    """Unpack the sums of squared errors and of squared desired outputs; None for a classifier.

    Returns
    -------
    errors, norms : ndarray, shape (samples,), float64

    Raises
    ------
    InputError
        When the packed data are corrupt.
    """
    if found.errors is None or found.norms is None:
        return None
    errors, norms = (_array(text, np.dtype("<f4")) for text in (found.errors, found.norms))
    if not len(errors) == len(norms) == found.count or not np.isfinite([errors, norms]).all():
        raise _corrupt()
    return errors.astype(np.float64), norms.astype(np.float64)


def _numbers(values: np.ndarray) -> str:
    return _text(values.astype("<f4"))


def _text(values: np.ndarray) -> str:
    return base64.b64encode(values.tobytes()).decode("ascii")


def _array(text: str, kind: np.dtype | type) -> np.ndarray:
    try:
        return np.frombuffer(base64.b64decode(text, validate=True), kind)
    except (binascii.Error, ValueError) as error:
        raise _corrupt() from error


def _corrupt() -> InputError:
    return InputError(
        "the results of samples in fidelity.json are corrupt: their number differs from the "
        "recorded count; create the file again with lmu-deploy validate."
    )
