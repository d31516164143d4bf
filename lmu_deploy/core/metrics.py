"""Metrics as plain functions of arrays: accuracy for classes, NRMSE for signals.

In: what a network gave and what was wanted. Out: one number. Both leave out the first `washout`
steps where there is an answer at every step.
"""

from __future__ import annotations

import numpy as np

from lmu_deploy.core.errors import InputError


def accuracy(outputs: np.ndarray, targets: np.ndarray, washout: int = 0) -> float:
    """Share of answers whose largest output is the right class.

    Parameters
    ----------
    outputs : ndarray, shape (samples, n_out) or (samples, steps, n_out)
    targets : ndarray of int, shape (samples,) or (samples, steps)
    washout : int
        Steps left out at the start, where there is an answer at every step.

    Returns
    -------
    accuracy : float
        From 0 to 1.

    Raises
    ------
    InputError
        When the shapes do not belong together or nothing is left to judge.
    """
    outputs, targets = np.asarray(outputs), np.asarray(targets)
    if outputs.shape[:-1] != targets.shape or outputs.ndim not in (2, 3):
        raise InputError(
            f"outputs of shape {outputs.shape} cannot be judged against classes of shape "
            f"{targets.shape}; give one row of scores for each class label."
        )
    if targets.ndim == 2:
        outputs, targets = outputs[:, washout:], targets[:, washout:]
    _check_some(targets)
    return float(np.mean(outputs.argmax(axis=-1) == targets))


def nrmse(outputs: np.ndarray, targets: np.ndarray, washout: int = 0) -> float:
    """Root mean square error over the root mean square of the target.

    This is the measure of Voelker, Kajic, Eliasmith (2019), section 3.3: the mean of the target is
    not taken off, so that answering zero scores 1.

    Parameters
    ----------
    outputs, targets : ndarray, shape (samples, steps, n_out)
    washout : int
        Steps left out at the start.

    Returns
    -------
    nrmse : float
        0 is perfect.

    Raises
    ------
    InputError
        When the shapes differ, nothing is left to judge, or the target is zero throughout.
    """
    outputs, targets = np.asarray(outputs, np.float64), np.asarray(targets, np.float64)
    if outputs.shape != targets.shape or outputs.ndim != 3:
        raise InputError(
            f"outputs of shape {outputs.shape} cannot be judged against a target of shape "
            f"{targets.shape}; both must be (samples, steps, n_out)."
        )
    outputs, targets = outputs[:, washout:], targets[:, washout:]
    _check_some(targets)
    power = float(np.mean(targets**2))
    if power == 0.0:
        raise InputError("the target is zero throughout, so a relative error has no meaning.")
    return float(np.sqrt(np.mean((outputs - targets) ** 2) / power))


def _check_some(targets: np.ndarray) -> None:
    if targets.size == 0:
        raise InputError("there is nothing to judge; give at least one sample past the washout.")
