r"""Confidence intervals of accuracies and of NRMSEs, and of their paired differences.

An accuracy is a share of n independent samples, for which Wilson's score interval is valid at any n
and any share. An NRMSE is a ratio of sums over whole sequences. The bootstrap resamples sequences,
because the steps of a sequence depend on each other.

Equivalence is decided by two one-sided tests at 5 % (Schuirmann 1987), which is the same as a 90 %
interval of the paired difference inside the margin. For classes the interval is Tango's score
interval (1998), which stays wide where few or no predictions changed: with n samples and no change
it is :math:`\pm z^2 / (n + z^2)`. For sequences it is the jackknife with Student's t, which unlike
a percentile bootstrap keeps its coverage with few of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from scipy.special import lambertw, stdtrit

from lmu_deploy.core.errors import InputError
from lmu_deploy.core.validation import check_integer

Interval = tuple[float, float]

Z95 = 1.959963984540054
Z90 = 1.6448536269514722
MOST_NEEDED = 10_000_000
"""Samples beyond which a test set is not asked for."""
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
    from scipy.stats import binomtest  # only here, because it takes a second to load

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


def score_difference(lost: float, gained: float, samples: float, z: float = Z90) -> Interval:
    """Return the score interval of a paired difference of shares (Tango 1998).

    Parameters
    ----------
    lost, gained : float
        Samples that are correct only in the reference, and only in the target.
    samples : float
        At least 1.
    z : float
        Normal quantile; by default that of a 90 % interval.

    Returns
    -------
    low, high : float
        Of target minus reference, in [-1, 1].

    Examples
    --------
    >>> low, high = score_difference(0, 0, 359)
    >>> round(low, 5), round(high, 5)
    (-0.00748, 0.00748)
    """
    observed = (gained - lost) / samples

    def statistic(delta: float) -> float:
        """Return the score statistic of the hypothesis that the difference is `delta`."""
        b = -gained - lost + (2.0 * samples - gained + lost) * delta
        c = -lost * delta * (1.0 - delta)
        share = (math.sqrt(max(b * b - 8.0 * samples * c, 0.0)) - b) / (4.0 * samples)
        variance = samples * (2.0 * share + delta * (1.0 - delta))
        excess = gained - lost - samples * delta
        if not excess:
            return 0.0
        return excess / math.sqrt(variance) if variance > 0.0 else math.copysign(1e6, excess)

    def bound(end: float, level: float) -> float:
        if observed == end or (statistic(end) - level) * level < 0.0:
            return end
        from scipy.optimize import brentq

        return float(brentq(lambda delta: statistic(delta) - level, observed, end))

    return bound(-1.0, z), bound(1.0, -z)


def jackknife_difference(
    errors: np.ndarray, reference_errors: np.ndarray, norms: np.ndarray
) -> tuple[float, float] | None:
    """Return target NRMSE minus reference NRMSE and the standard error (Tukey's jackknife).

    Parameters
    ----------
    errors, reference_errors, norms : ndarray, shape (samples,)
        Sums of each sequence, from :func:`squared_sums`.

    Returns
    -------
    difference, standard_error : float, or None
        None with fewer than two samples, or when the desired outputs of all but one are zero.
    """
    count = len(errors)
    left = norms.sum() - norms
    if count < 2 or not (left > 0).all():
        return None

    def nrmse(sums: np.ndarray) -> np.ndarray:
        return np.asarray(np.sqrt(np.maximum(sums.sum() - sums, 0.0) / left))

    without = nrmse(errors) - nrmse(reference_errors)
    total = math.sqrt(errors.sum() / norms.sum()) - math.sqrt(reference_errors.sum() / norms.sum())
    return total, math.sqrt((count - 1) / count * float(((without - without.mean()) ** 2).sum()))


def student_interval(estimate: float, error: float, samples: int) -> Interval:
    """Return the 90 % interval of an estimate with this standard error from `samples` clusters."""
    half = float(stdtrit(samples - 1, 0.95)) * error
    return estimate - half, estimate + half


def samples_needed(interval: Callable[[int], Interval], margin: float, samples: int) -> int | None:
    """Return how many samples decide whether a difference is inside a margin.

    Parameters
    ----------
    interval : callable
        The interval with n samples, as the rates found so far let expect.
    margin : float
        Larger than 0.
    samples : int
        Those that there are.

    Returns
    -------
    int, or None
        None if even :data:`MOST_NEEDED` samples would not decide.
    """

    def decided(number: int) -> bool:
        low, high = interval(number)
        return (-margin < low and high < margin) or high < -margin or low > margin

    low = high = max(samples, 2)
    while not decided(high):
        low, high = high, 2 * high
        if high > MOST_NEEDED:
            return None
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if decided(middle) else (middle + 1, high)
    return high


def missing(variance: np.ndarray, terms: np.ndarray, share: float, deviations: float) -> np.ndarray:
    """Return the limit of sums below their mean, of terms that may be missing.

    The limit is Chernoff's: the bound on the probability to exceed it is as small as that of a
    normal distribution at so many deviations.

    Parameters
    ----------
    variance : ndarray, shape (...)
        Variances of the sums.
    terms : ndarray, shape (terms, ...)
    share : float
        Probability at which a term is missing.
    deviations : float
    """
    limit = np.full(variance.shape, np.inf)
    for tilt in np.geomspace(1e-3, 100.0, 100):
        lost = np.logaddexp(np.log1p(-share), np.log(share) + tilt * terms).sum(axis=0)
        moments = 0.5 * tilt**2 * variance + lost
        limit = np.minimum(limit, (moments + 0.5 * deviations**2) / tilt)
    return limit


def bennett(variance: np.ndarray, largest: np.ndarray, deviations: float) -> np.ndarray:
    """Return the limit of sums of independent terms above their mean (Bennett 1962).

    The terms may be rare and large. The bound on the probability to exceed the limit is as small as
    that of a normal distribution, :math:`e^{-d^2/2}` at d deviations.

    Parameters
    ----------
    variance, largest : ndarray
        Variances of the sums, and largest terms.
    deviations : float
    """
    size = 0.5 * (deviations * largest) ** 2 / variance  # = (1 + u) log(1 + u) - u
    u = np.expm1(1.0 + lambertw((size - 1.0) / np.e).real)
    return np.asarray(variance / largest * u)
