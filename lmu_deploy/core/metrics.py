"""Task metrics: classification accuracy and normalized root mean square error (NRMSE).

Both skip the first `washout` steps of tasks that have an output at every step, and steps without an
answer, which have class -1 or the target NaN.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil

import numpy as np

from lmu_deploy.core.errors import InputError

NO_CLASS = -1
"""Class of steps without an answer, such as padding."""


def accuracy(outputs: np.ndarray, targets: np.ndarray, washout: int = 0) -> float:
    """Return the fraction of outputs whose largest component is the correct class.

    Parameters
    ----------
    outputs : ndarray, shape (samples, n_out) or (samples, steps, n_out)
    targets : ndarray of int, shape (samples,) or (samples, steps)
    washout : int
        Number of initial steps to skip where there is an output at every step.

    Returns
    -------
    accuracy : float
        From 0 to 1.

    Raises
    ------
    InputError
        When the shapes do not match, or no sample remains after the washout.

    Examples
    --------
    >>> accuracy([[0.1, 0.9], [0.8, 0.2]], [1, 1])
    0.5
    """
    outputs, targets = np.asarray(outputs), np.asarray(targets)
    if outputs.shape[:-1] != targets.shape or outputs.ndim not in (2, 3):
        raise InputError(
            f"outputs of shape {outputs.shape} do not match class labels of shape "
            f"{targets.shape}; give one row of scores for each class label."
        )
    if targets.ndim == 2:
        outputs, targets = outputs[:, washout:], targets[:, washout:]
    if (targets == NO_CLASS).any():
        outputs, targets = outputs[targets != NO_CLASS], targets[targets != NO_CLASS]
    _check_some(targets)
    return float(np.mean(outputs.argmax(axis=-1) == targets))


def nrmse(outputs: np.ndarray, targets: np.ndarray, washout: int = 0) -> float:
    """Return the root mean square error divided by the root mean square of the target.

    As in Voelker, Kajic, Eliasmith (2019), section 3.3, the mean of the target is not subtracted,
    so that an output of zero has an NRMSE of 1.

    Parameters
    ----------
    outputs, targets : ndarray, shape (samples, steps, n_out), or (samples, n_out)
    washout : int
        Number of initial steps to skip, where there are steps.

    Returns
    -------
    nrmse : float
        0 is perfect.

    Raises
    ------
    InputError
        When the shapes differ, no step remains after the washout, or the target is zero throughout.

    Examples
    --------
    >>> nrmse([[[0.0], [0.0]]], [[[1.0], [-1.0]]])
    1.0
    """
    outputs, targets = np.asarray(outputs, np.float64), np.asarray(targets, np.float64)
    if outputs.shape != targets.shape or outputs.ndim not in (2, 3):
        raise InputError(
            f"outputs of shape {outputs.shape} do not match a target of shape "
            f"{targets.shape}; both must be (samples, steps, n_out) or (samples, n_out)."
        )
    if outputs.ndim == 3:
        outputs, targets = outputs[:, washout:], targets[:, washout:]
    if np.isnan(targets).any():
        present = ~np.isnan(targets)
        outputs, targets = outputs[present], targets[present]
    _check_some(targets)
    power = float(np.mean(targets**2))
    if power == 0.0:
        raise InputError(
            "the target is zero throughout, so a relative error is undefined; give samples with "
            "other answers."
        )
    return float(np.sqrt(np.mean((outputs - targets) ** 2) / power))


def reached_by(values: Sequence[float], share: float, metric: str) -> float:
    """Return the value that at least a share of the values reaches or exceeds; one of them.

    Parameters
    ----------
    values : sequence of float, not empty
        One for each chip.
    share : float
        From 0 to 1; the best value for 0.
    metric : {"accuracy", "nrmse"}
        Large accuracies and small errors are better.
    """
    ordered = sorted(values, reverse=metric == "accuracy")
    return ordered[max(ceil(round(share * len(ordered), 9)), 1) - 1]


def nrmse_by_output(outputs: np.ndarray, targets: np.ndarray, washout: int = 0) -> list[float]:
    """Return the NRMSE of every output by itself; NaN for one whose target is zero throughout.

    Parameters
    ----------
    outputs, targets : ndarray, shape (samples, steps, n_out), or (samples, n_out)
    washout : int
        As for :func:`nrmse`.
    """
    found = []
    for k in range(np.shape(targets)[-1]):
        mine, theirs = np.asarray(outputs)[..., k : k + 1], np.asarray(targets)[..., k : k + 1]
        there = bool(np.nan_to_num(theirs).any())
        found.append(nrmse(mine, theirs, washout) if there else float("nan"))
    return found


def _check_some(targets: np.ndarray) -> None:
    if targets.size == 0:
        raise InputError(
            "there is nothing to evaluate; give at least one sample beyond the washout."
        )
