r"""How far a figure can be trusted: 95 % intervals from the number of samples that it rests on.

An accuracy is a share of n independent samples, so Wilson's score interval holds for any n and
any share. An NRMSE is a ratio of sums over whole sequences, so sequences are drawn again and again
(the bootstrap): steps inside a sequence depend on each other, sequences do not.
"""

from __future__ import annotations

import math

import numpy as np

from lmu_deploy.core.errors import InputError
from lmu_deploy.core.validation import check_integer

Interval = tuple[float, float]

Z95 = 1.959963984540054
RESAMPLES = 2000
_ROWS_AT_ONCE, _DRAWN_AT_ONCE = 100, 2**18


def wilson(successes: int, trials: int) -> Interval:
    """95 % interval of a share (Wilson 1927, the score interval).

    Parameters
    ----------
    successes, trials : int

    Returns
    -------
    low, high : float, in [0, 1]

    Raises
    ------
    InputError
        When there is no trial, or more successes than trials.
    """
    trials = check_integer("number of samples", trials, 1, 2**53)
    successes = check_integer("number of successes", successes, 0, trials)
    share = successes / trials
    scale = 1.0 + Z95**2 / trials
    middle = (share + Z95**2 / (2 * trials)) / scale
    half = Z95 / scale * math.sqrt(share * (1 - share) / trials + Z95**2 / (4 * trials**2))
    low = 0.0 if successes == 0 else max(0.0, middle - half)
    high = 1.0 if successes == trials else min(1.0, middle + half)
    return low, high


def squared_sums(
    outputs: np.ndarray, targets: np.ndarray, washout: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Sum squared error and squared target, one of each a sample.

    An NRMSE over any choice of samples is the root of the ratio of their totals.

    Parameters
    ----------
    outputs, targets : ndarray, shape (samples, steps, n_out)
    washout : int
        Steps left out at the start.

    Returns
    -------
    errors, norms : ndarray, shape (samples,), float64
    """
    if outputs.shape != targets.shape or outputs.ndim != 3:
        raise InputError(
            f"outputs have shape {outputs.shape} and targets {targets.shape}; "
            "both must be (samples, steps, n_out)."
        )
    kept = targets[:, washout:].astype(np.float64)
    errors = outputs[:, washout:].astype(np.float64) - kept
    return (errors**2).sum(axis=(1, 2)), (kept**2).sum(axis=(1, 2))


def bootstrap_nrmse(
    errors: np.ndarray, norms: np.ndarray, seed: int = 0, resamples: int = RESAMPLES
) -> Interval | None:
    """95 % percentile interval of the NRMSE, by drawing samples with replacement (Efron 1979).

    Parameters
    ----------
    errors, norms : ndarray, shape (samples,)
        From :func:`squared_sums`.
    seed : int
    resamples : int

    Returns
    -------
    low, high : float, or None
        None with fewer than two samples, or targets that are zero throughout: then nothing can
        be said.
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
    """95 % interval of target's NRMSE minus reference's, both on the same drawn samples.

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
    """Roots of (column / last column) of the totals of each drawing; (resamples, columns - 1)."""
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
