"""95 % confidence intervals of accuracies (Wilson) and of NRMSEs (bootstrap over sequences).

An accuracy is a share of n independent samples, for which Wilson's score interval is valid at any n
and any share. An NRMSE is a ratio of sums over whole sequences. The bootstrap resamples sequences,
because the steps of a sequence depend on each other.
"""

from __future__ import annotations

import numpy as np
from scipy.stats import binomtest

from lmu_deploy.core.errors import InputError
from lmu_deploy.core.validation import check_integer

Interval = tuple[float, float]

Z95 = 1.959963984540054
RESAMPLES = 2000
_ROWS_AT_ONCE, _DRAWN_AT_ONCE = 100, 2**18


def wilson(successes: int, trials: int) -> Interval:
    """Return the 95 % score interval of a share (Wilson 1927).

    Parameters
    ----------
    successes, trials : int
        At least one trial, and at most as many successes as trials.

    Returns
    -------
    low, high : float
        In [0, 1].

    Raises
    ------
    InputError
        When there is no trial, or there are more successes than trials.

    Examples
    --------
    >>> low, high = wilson(97, 100)
    >>> round(low, 4), round(high, 4)
    (0.9155, 0.9897)
    """
    trials = check_integer("number of samples", trials, 1, 2**53)
    successes = check_integer("number of successes", successes, 0, trials)
    interval = binomtest(successes, trials).proportion_ci(0.95, method="wilson")
    return float(interval.low), float(interval.high)


def squared_sums(
    outputs: np.ndarray, targets: np.ndarray, washout: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Compute the sums of squared errors and of squared desired outputs of each sample.

    The NRMSE over any selection of samples is the square root of the ratio of their totals.

    Parameters
    ----------
    outputs, targets : ndarray, shape (samples, steps, n_out), or (samples, n_out)
        Targets that are NaN do not count.
    washout : int
        Steps excluded at the start, where there are steps.

    Returns
    -------
    errors, norms : ndarray, shape (samples,), float64
    """
    if outputs.shape != targets.shape or outputs.ndim not in (2, 3):
        raise InputError(
            f"outputs have shape {outputs.shape} and targets {targets.shape}; "
            "both must be (samples, steps, n_out) or (samples, n_out)."
        )
    if outputs.ndim == 2:
        outputs, targets, washout = outputs[:, None], targets[:, None], 0
    if np.isnan(targets).any():
        missing = np.isnan(targets)
        outputs, targets = np.where(missing, 0.0, outputs), np.where(missing, 0.0, targets)
    kept = targets[:, washout:].astype(np.float64)
    errors = outputs[:, washout:].astype(np.float64) - kept
    return (errors**2).sum(axis=(1, 2)), (kept**2).sum(axis=(1, 2))


def bootstrap_nrmse(
    errors: np.ndarray, norms: np.ndarray, seed: int = 0, resamples: int = RESAMPLES
) -> Interval | None:
    """Return the 95 % percentile bootstrap interval of an NRMSE (Efron 1979).

    Parameters
    ----------
    errors, norms : ndarray, shape (samples,)
        From :func:`squared_sums`.
    seed : int
    resamples : int
        Number of resamples with replacement.

    Returns
    -------
    low, high : float, or None
        None with fewer than two samples, or when the desired outputs are all zero.
    """
    if len(errors) < 2 or not norms.sum() > 0:
        return None
    return _percentiles(_resampled(np.stack([errors, norms], axis=1), seed, resamples)[:, 0])


def bootstrap_nrmse_difference(
    errors: np.ndarray,
    reference_errors: np.ndarray,
    norms: np.ndarray,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Interval | None:
    """Return the 95 % paired bootstrap interval of target NRMSE minus reference NRMSE.

    Parameters
    ----------
    errors, reference_errors, norms : ndarray, shape (samples,)

    Returns
    -------
    low, high : float, or None
        As for :func:`bootstrap_nrmse`.
    """
    if len(errors) < 2 or not norms.sum() > 0:
        return None
    drawn = _resampled(np.stack([errors, reference_errors, norms], axis=1), seed, resamples)
    return _percentiles(drawn[:, 0] - drawn[:, 1])


def _resampled(sums: np.ndarray, seed: int, resamples: int) -> np.ndarray:
    """Return sqrt(column / last column) of the totals; (resamples, columns - 1)."""
    generator = np.random.default_rng(seed)
    samples = len(sums)
    totals, at_once = [], max(1, min(_ROWS_AT_ONCE, _DRAWN_AT_ONCE // samples))
    for start in range(0, resamples, at_once):
        rows = min(at_once, resamples - start)
        drawn = generator.integers(0, samples, size=(rows, samples))
        totals.append(sums[drawn].sum(axis=1))
    total = np.concatenate(totals)
    total = total[total[:, -1] > 0]
    return np.asarray(np.sqrt(total[:, :-1] / total[:, -1:]))


def _percentiles(values: np.ndarray) -> Interval:
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)
