"""Agreement of two runs: equal predictions, deviation of outputs, equality of integer states.

Two networks of equal accuracy can differ on many samples. Therefore the number of predictions that
changed is reported, and how many of them are correct in only one of the two runs. For integer
targets every state of every step is compared with ``==``.
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
    """Predictions of a classifier compared with those of the reference on the same samples.

    Attributes
    ----------
    samples : int
    flips : int
        Samples on which the predicted class differs.
    lost, gained : int
        Flips where only the reference is correct, and flips where only the target is correct.
    """

    samples: int
    flips: int
    lost: int
    gained: int

    @property
    def share(self) -> float:
        """Share of samples with equal predictions."""
        return 1.0 - self.flips / self.samples

    @property
    def ci95(self) -> Interval:
        """95 % interval of the share (Wilson)."""
        return wilson(self.samples - self.flips, self.samples)

    @property
    def p_value(self) -> float:
        """Two-sided p-value of the exact McNemar test of equal accuracy (McNemar 1947)."""
        changed = self.lost + self.gained
        return min(1.0, 2.0 * float(bdtr(min(self.lost, self.gained), changed, 0.5)))

    @property
    def difference_ci95(self) -> Interval:
        """Paired 95 % interval of target minus reference accuracy (Agresti and Min 2005)."""
        lost, gained, samples = self.lost + 0.5, self.gained + 0.5, self.samples + 2
        difference = (gained - lost) / samples
        spread = math.sqrt(lost + gained - (gained - lost) ** 2 / samples) / samples
        return max(-1.0, difference - Z95 * spread), min(1.0, difference + Z95 * spread)


def class_agreement(
    outputs: np.ndarray, reference: np.ndarray, targets: np.ndarray
) -> ClassAgreement:
    """Compare predicted classes; the class is the first index of the largest output.

    Parameters
    ----------
    outputs, reference : ndarray, shape (samples, n_out)
    targets : ndarray, shape (samples,), integers

    Raises
    ------
    InputError
        When there is no sample, or the shapes differ.
    """
    if outputs.shape != reference.shape or outputs.ndim != 2 or len(outputs) != len(targets):
        raise InputError(
            f"outputs have shape {outputs.shape}, the reference's {reference.shape} and targets "
            f"{targets.shape}; pass the same samples of one classifier."
        )
    if not len(outputs):
        raise InputError("there is no sample to compare; pass at least 1.")
    mine, theirs = outputs.argmax(axis=1), reference.argmax(axis=1)
    return ClassAgreement(
        samples=len(outputs),
        flips=int((mine != theirs).sum()),
        lost=int(((theirs == targets) & (mine != targets)).sum()),
        gained=int(((mine == targets) & (theirs != targets)).sum()),
    )


def deviation(outputs: np.ndarray, reference: np.ndarray, washout: int = 0) -> float | None:
    """Return the NRMSE of the outputs of a target with respect to those of the reference.

    Parameters
    ----------
    outputs, reference : ndarray, shape (samples, n_out) or (samples, steps, n_out)
    washout : int
        Steps excluded at the start of a sequence; not used without steps.

    Returns
    -------
    float, or None
        None when the outputs of the reference are all zero.
    """
    if outputs.ndim == 2 and reference.ndim == 2:
        outputs, reference, washout = outputs[:, None], reference[:, None], 0
    errors, norms = squared_sums(outputs, reference, washout)
    total = float(norms.sum())
    return math.sqrt(float(errors.sum()) / total) if total > 0 else None


@dataclass(frozen=True)
class Equality:
    """Result of a comparison of recorded integers.

    Attributes
    ----------
    samples, steps, values : int
        Numbers of samples, steps and integers that were compared.
    equal : bool
    different : int
        Number of integers that differ.
    first : str
        The first difference in time, in words; empty when there is none.
    compared, on_host : tuple of str
        Which of m, h and y were compared, and which the host computes in floats and are therefore
        not compared. Partial arrays have a column count, such as "h (49 of 149 columns)".
    """

    samples: int
    steps: int
    values: int
    equal: bool
    different: int
    first: str
    compared: tuple[str, ...] = ()
    on_host: tuple[str, ...] = ()


def is_integer(states: States | None) -> bool:
    """Return whether the memory states of a target are integers, which must be exactly equal."""
    return states is not None and states.m.dtype.kind == "i"


def compare_states(states: States, other: States) -> Equality:
    """Compare all integers of m, h and y, of the samples that both targets recorded.

    A column is compared when it contains integers in either target. Columns of floats in both are
    computed by the host, with the same code and from equal integers.

    Parameters
    ----------
    states, other : States
        Of the same first samples of the same inputs.
    """
    samples, steps = min(len(states.m), len(other.m)), states.m.shape[1]
    values = different = 0
    compared, on_host = [], []
    first: tuple[int, int, str] | None = None
    for name in ("m", "h", "y"):
        mine, theirs = getattr(states, name)[:samples], getattr(other, name)[:samples]
        if mine.shape != theirs.shape:
            shapes = f"{name} has shape {mine.shape} against {theirs.shape}"
            return Equality(samples, steps, 0, False, 0, shapes)
        whole = integer_columns(states, name) | integer_columns(other, name)
        compared += _named(name, whole)
        on_host += _named(name, ~whole)
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
    return Equality(
        samples,
        steps,
        values,
        first is None,
        different,
        first[2] if first else "",
        tuple(compared),
        tuple(on_host),
    )


def integer_columns(states: States, name: str) -> np.ndarray:
    """Return which columns of m, h or y are integers; shape (columns,), bool."""
    values = getattr(states, name)
    if name == "h" and states.h_on_host is not None:
        return ~np.asarray(states.h_on_host)
    return np.full(values.shape[2], values.dtype.kind == "i")


def _named(name: str, columns: np.ndarray) -> list[str]:
    found = int(columns.sum())
    if not found:
        return []
    return [name if columns.all() else f"{name} ({found} of {len(columns)} columns)"]
