"""How far a target answers as the float reference does, whether or not either is right.

Two networks of equal accuracy can differ on many samples; what counts for trust in a deployment is
how many answers changed, and of those, how many were right before and how many are right now.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.special import bdtr

from lmu_deploy.errors import InputError
from lmu_deploy.fidelity.intervals import Z95, Interval, squared_sums, wilson


@dataclass(frozen=True)
class ClassAgreement:
    """Answers of a classifier beside those of the reference, on the same samples.

    Attributes
    ----------
    samples : int
    flips : int
        Samples on which the predicted class differs.
    lost, gained : int
        Of the flips, those where only the reference is right, and those where only the target is.
    """

    samples: int
    flips: int
    lost: int
    gained: int

    @property
    def share(self) -> float:
        """Share of equal predictions."""
        return 1.0 - self.flips / self.samples

    @property
    def ci95(self) -> Interval:
        """95 % interval of the share."""
        return wilson(self.samples - self.flips, self.samples)

    @property
    def p_value(self) -> float:
        """Exact two-sided McNemar test that neither network is the more accurate (McNemar 1947)."""
        changed = self.lost + self.gained
        return min(1.0, 2.0 * float(bdtr(min(self.lost, self.gained), changed, 0.5)))

    @property
    def difference_ci95(self) -> Interval:
        """95 % interval of target's accuracy minus reference's, paired (Agresti and Min 2005)."""
        lost, gained, samples = self.lost + 0.5, self.gained + 0.5, self.samples + 2
        difference = (gained - lost) / samples
        spread = math.sqrt(lost + gained - (gained - lost) ** 2 / samples) / samples
        return max(-1.0, difference - Z95 * spread), min(1.0, difference + Z95 * spread)


def class_agreement(
    outputs: np.ndarray, reference: np.ndarray, targets: np.ndarray
) -> ClassAgreement:
    """Compare predicted classes; the largest output wins, the first one of equals.

    Parameters
    ----------
    outputs, reference : ndarray, shape (samples, n_out)
    targets : ndarray, shape (samples,), integers

    Raises
    ------
    InputError
        When there is no sample or the shapes differ.
    """
    if outputs.shape != reference.shape or outputs.ndim != 2 or len(outputs) != len(targets):
        raise InputError(
            f"outputs have shape {outputs.shape}, the reference's {reference.shape} and targets "
            f"{targets.shape}; give the same samples of one classifier."
        )
    if not len(outputs):
        raise InputError("there is no sample to compare; give at least 1.")
    mine, theirs = outputs.argmax(axis=1), reference.argmax(axis=1)
    return ClassAgreement(
        samples=len(outputs),
        flips=int((mine != theirs).sum()),
        lost=int(((theirs == targets) & (mine != targets)).sum()),
        gained=int(((mine == targets) & (theirs != targets)).sum()),
    )


def deviation(outputs: np.ndarray, reference: np.ndarray, washout: int = 0) -> float | None:
    """NRMSE of a target's outputs to the reference's: rms of the difference over rms of the latter.

    Parameters
    ----------
    outputs, reference : ndarray, shape (samples, n_out) or (samples, steps, n_out)
    washout : int
        Steps left out at the start of a sequence; not used without steps.

    Returns
    -------
    float, or None when the reference is zero throughout
    """
    if outputs.ndim == 2 and reference.ndim == 2:
        outputs, reference, washout = outputs[:, None], reference[:, None], 0
    errors, norms = squared_sums(outputs, reference, washout)
    total = float(norms.sum())
    return math.sqrt(float(errors.sum()) / total) if total > 0 else None
