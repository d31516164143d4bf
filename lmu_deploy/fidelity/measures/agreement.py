"""How far a target answers as the float reference does, whether or not either is right.

Two networks of equal accuracy can differ on many samples; what counts for trust in a deployment is
how many answers changed, and of those, how many were right before and how many are right now.

Whether two integer targets did the very same: every state of every step, with ``==``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.special import bdtr

from lmu_deploy.core.errors import InputError
from lmu_deploy.fidelity.measures.statistics import Z95, Interval, squared_sums, wilson
from targets.base import States


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


@dataclass(frozen=True)
class Equality:
    """What a comparison of recorded integers found.

    Attributes
    ----------
    samples, steps, values : int
        How much was compared.
    equal : bool
    different : int
        Values that differ.
    first : str
        Where the first difference in time is, in words; empty when there is none.
    compared, apart : tuple of str
        Which of m, h and y these integers are, and which are real numbers of the host and so not
        among them, with the number of columns where they are not all: "h (49 of 149 columns)".
    """

    samples: int
    steps: int
    values: int
    equal: bool
    different: int
    first: str
    compared: tuple[str, ...] = ()
    apart: tuple[str, ...] = ()


def is_integer(states: States | None) -> bool:
    """Whether a target holds its memory in integers, so that there is one right answer."""
    return states is not None and states.m.dtype.kind == "i"


def compare_states(states: States, other: States) -> Equality:
    """Compare all integers of m, h and y, of the samples that both recorded.

    A column of integers in either is compared. Real numbers in both are the host's, which one code
    computes from equal integers.

    Parameters
    ----------
    states, other : States
        Of the same first samples of the same inputs.
    """
    samples, steps = min(len(states.m), len(other.m)), states.m.shape[1]
    values = different = 0
    compared, apart = [], []
    first: tuple[int, int, str] | None = None
    for name in ("m", "h", "y"):
        mine, theirs = getattr(states, name)[:samples], getattr(other, name)[:samples]
        if mine.shape != theirs.shape:
            shapes = f"{name} has shape {mine.shape} against {theirs.shape}"
            return Equality(samples, steps, 0, False, 0, shapes)
        whole = integer_columns(states, name) | integer_columns(other, name)
        compared += _named(name, whole)
        apart += _named(name, ~whole)
        columns = np.flatnonzero(whole)
        if not len(columns):
            continue
        values += samples * steps * len(columns)
        wrong = np.argwhere(mine[..., columns] != theirs[..., columns])
        different += len(wrong)
        if len(wrong):
            sample, step, index = wrong[np.lexsort((wrong[:, 0], wrong[:, 1]))[0]]
            words = f"{name}[{columns[index]}] at step {step} of sample {sample}"
            found = (int(step), int(sample), words)
            first = found if first is None else min(first, found)
    told = first[2] if first else ""
    equal = first is None
    return Equality(samples, steps, values, equal, different, told, tuple(compared), tuple(apart))


def integer_columns(states: States, name: str) -> np.ndarray:
    """Say of each column of m, h or y whether it holds integers; shape (columns,), bool."""
    values = getattr(states, name)
    if name == "h" and states.h_on_host is not None:
        return ~np.asarray(states.h_on_host)
    return np.full(values.shape[2], values.dtype.kind == "i")


def _named(name: str, columns: np.ndarray) -> list[str]:
    found = int(columns.sum())
    if not found:
        return []
    return [name if columns.all() else f"{name} ({found} of {len(columns)} columns)"]
