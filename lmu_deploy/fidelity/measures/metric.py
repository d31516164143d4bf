"""Metric of a task with its interval, comparison with the reference, and results of each sample.

The results of each sample are stored compactly, so that two reports of the same samples can be
compared pairwise: one bit per prediction of a classifier, or two numbers per sequence of a
regression, the sums of squared errors and of squared desired outputs. 10,000 samples take 2 kB or
100 kB of fidelity.json.
"""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from lmu_deploy.core.errors import InputError, RunError
from lmu_deploy.core.metrics import NO_CLASS, accuracy, nrmse, nrmse_by_output
from lmu_deploy.fidelity.measures.agreement import class_agreement, deviation
from lmu_deploy.fidelity.measures.statistics import (
    Interval,
    bootstrap_nrmse,
    bootstrap_nrmse_difference,
    jackknife_difference,
    samples_needed,
    score_difference,
    squared_sums,
    student_interval,
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
    return Metric(
        name="nrmse", value=value, ci95=interval, by_output=_by_output(outputs, targets, task)
    )


def _by_output(outputs: np.ndarray, targets: np.ndarray, task: Task) -> list[float | None] | None:
    """Return the NRMSE of each of several outputs; None for one whose answers are all zero."""
    if outputs.shape[-1] == 1:
        return None
    found = nrmse_by_output(outputs, targets, task.washout)
    return [None if math.isnan(value) else value for value in found]


MARGINS = {"classification": 0.01, "regression": 0.02}
"""Margins of equivalence: one point of accuracy, and 2 % of the reference's NRMSE."""


@dataclass(frozen=True)
class Equivalence:
    """90 % interval of a paired difference, and the samples that would decide.

    Attributes
    ----------
    ci90 : pair of float, or None
    needed : int or None
        None where the samples decide, or more than ten million would be needed.
    """

    ci90: Interval | None
    needed: int | None

    @classmethod
    def of(cls, interval: Callable[[int], Interval], samples: int, margin: float) -> Equivalence:
        """Return the interval with these samples, and how many decide."""
        needed = samples_needed(interval, margin, samples)
        return cls(interval(samples), None if needed == samples else needed)


def equivalence(
    outputs: np.ndarray, reference: np.ndarray, targets: np.ndarray, task: Task, margin: float
) -> Equivalence:
    """Decide whether a target is equivalent to the reference; parameters as in :func:`measure`.

    Predictions at every step are grouped by sequence, because its steps depend on each other.
    """
    samples = len(outputs)
    if task.kind != "classification":
        errors, norms = squared_sums(outputs, targets, task.washout)
        theirs, _ = squared_sums(reference, targets, task.washout)
        value = math.sqrt(theirs.sum() / norms.sum()) if norms.sum() > 0 else 0.0
        found = jackknife_difference(errors, theirs, norms)
        if found is None or not value:
            return Equivalence(None, 2 if samples < 2 else None)
        return _clustered(*found, samples, margin * value)
    right = [_right(given, targets) for given in (outputs, reference)]
    if outputs.ndim == 2:
        lost, gained = (int((a & ~b).sum()) for a, b in (right[::-1], right))
        return Equivalence.of(
            lambda n: score_difference(lost * n / samples, gained * n / samples, n), samples, margin
        )
    answered_steps = max(int((targets[:, task.washout :] != NO_CLASS).sum()), 1)
    counts = [each[:, task.washout :].sum(axis=1) for each in right]
    change = (counts[0] - counts[1]) * (samples / answered_steps)
    if samples < 2 or not change.any():
        return Equivalence.of(lambda n: score_difference(0, 0, n), samples, margin)
    error = float(change.std(ddof=1)) / math.sqrt(samples)
    return _clustered(float(change.mean()), error, samples, margin)


def _right(outputs: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Return which predictions are correct; those of steps without a class are not."""
    return np.asarray((outputs.argmax(axis=-1) == targets) & (targets != NO_CLASS))


def _clustered(difference: float, error: float, samples: int, margin: float) -> Equivalence:
    """Decide by a difference with the standard error that it has with these samples."""
    return Equivalence.of(
        lambda n: student_interval(difference, error * math.sqrt(samples / n), n), samples, margin
    )


def compare(
    outputs: np.ndarray,
    reference: np.ndarray,
    targets: np.ndarray,
    task: Task,
    seed: int = 0,
    margin: float | None = None,
) -> AgainstReference:
    """Compare outputs with the reference on the same samples.

    Parameters
    ----------
    outputs, reference, targets, task, seed
        As in :func:`measure`.
    margin : float, optional
        Of equivalence, as a share of all samples for accuracy and of the reference's NRMSE
        otherwise; by default that of :data:`MARGINS`.
    """
    away = deviation(outputs, reference, task.washout)
    theirs = measure(reference, targets, task, seed).value
    difference = measure(outputs, targets, task, seed).value - theirs
    margin = MARGINS[task.kind] if margin is None else margin
    decided = equivalence(outputs, reference, targets, task, margin)
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
            difference_ci90=decided.ci90,
            margin=margin,
            needed=decided.needed,
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
        difference_ci90=decided.ci90,
        margin=margin,
        needed=decided.needed,
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
