"""Messages and spikes counted: in all, per sample, per step, by population and by class.

In: what a target counted, a (samples, steps) array of integers for each population, or its sums.
An event is one message or spike sent by one neuron; how many synapses it meets is the target's
`synops`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Counted:
    """A population's events added up both ways: all that figures need, and no (samples, steps).

    Attributes
    ----------
    by_step : ndarray, shape (steps,), int64
        Of all samples.
    by_sample : ndarray, shape (samples,), int64
        Of all steps.
    """

    by_step: np.ndarray
    by_sample: np.ndarray

    @classmethod
    def of(cls, counts: np.ndarray) -> Counted:
        """Add up counts of shape (samples, steps)."""
        return cls(counts.sum(axis=0, dtype=np.int64), counts.sum(axis=1, dtype=np.int64))

    @classmethod
    def joined(cls, parts: Sequence[Counted]) -> Counted:
        """Join parts of a test set in their order."""
        by_step = np.stack([part.by_step for part in parts]).sum(axis=0)
        return cls(by_step, np.concatenate([part.by_sample for part in parts]))

    @property
    def total(self) -> int:
        """Events of all samples and steps."""
        return int(self.by_step.sum())


@dataclass(frozen=True)
class PopulationEvents:
    """What one population sent.

    Attributes
    ----------
    neurons : int or None
        None when the target did not say.
    total : int
    per_sample : float
    rate : float or None
        Events per neuron and step.
    by_step : ndarray, shape (steps,)
        Mean events of a sample at each step.
    by_class : mapping of class to float, or None
        Mean events of a sample of that class.
    silent : int or None
        Neurons that sent nothing in sample 0; None without a raster.
    intervals : ndarray of int, or None
        Of :func:`count_intervals`, in sample 0.
    """

    neurons: int | None
    total: int
    per_sample: float
    rate: float | None
    by_step: np.ndarray
    by_class: Mapping[int, float] | None
    silent: int | None
    intervals: np.ndarray | None


def count_population(
    counts: np.ndarray | Counted,
    neurons: int | None = None,
    raster: np.ndarray | None = None,
    classes: np.ndarray | None = None,
) -> PopulationEvents:
    """Summarise one population's events.

    Parameters
    ----------
    counts : ndarray, shape (samples, steps), integers, or Counted
    neurons : int, optional
    raster : ndarray, shape (chip_steps, neurons), optional
        Events of sample 0.
    classes : ndarray, shape (samples,), integers, optional
        Class of each sample.
    """
    summed = counts if isinstance(counts, Counted) else Counted.of(counts)
    samples, steps = len(summed.by_sample), len(summed.by_step)
    per_sample = summed.total / samples
    return PopulationEvents(
        neurons=neurons,
        total=summed.total,
        per_sample=per_sample,
        rate=per_sample / (neurons * steps) if neurons and steps else None,
        by_step=summed.by_step / samples,
        by_class=None if classes is None else _means(summed.by_sample, classes),
        silent=None if raster is None else silent_neurons(raster),
        intervals=None if raster is None else count_intervals(raster),
    )


def silent_neurons(raster: np.ndarray) -> int:
    """Count the neurons that sent nothing; `raster` has shape (chip_steps, neurons)."""
    return int((~np.asarray(raster, dtype=bool).any(axis=0)).sum())


def count_intervals(raster: np.ndarray) -> np.ndarray:
    """Count the steps from each event of a neuron to its next one, in bins that double.

    Parameters
    ----------
    raster : ndarray, shape (chip_steps, neurons)

    Returns
    -------
    ndarray of int64, shape (bins,)
        Entry k counts intervals of 2^(k-1) + 1 to 2^k steps, the first those of one step; empty
        when no neuron sent twice.
    """
    neuron, step = np.nonzero(np.asarray(raster, dtype=bool).T)
    apart = np.diff(step)[np.diff(neuron) == 0]
    return np.bincount(np.ceil(np.log2(apart)).astype(np.int64)).astype(np.int64)


def _means(by_sample: np.ndarray, classes: np.ndarray) -> dict[int, float]:
    return {int(c): float(by_sample[classes == c].mean()) for c in np.unique(classes)}
