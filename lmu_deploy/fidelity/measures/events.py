"""Messages and spikes counted: in all, per sample, per step, by population and by class.

In: what a target counted, a (samples, steps) array of integers for each population, or its sums.
An event is one message or spike sent by one neuron; how many synapses it meets is the target's
`synops`.

Rasters cut down to what a plot can show: few neurons, and few enough cells of time.

A raster of thousands of neurons and steps is mostly ink; a few dozen neurons, evenly taken, show
the same. Where even those send too much to draw one by one, their events are counted in bins of
time. Each excerpt is one integer array, so that a folder's plots fit one small `.npz` file.
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
    """Summarize one population's events.

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


MOST_NEURONS = 28
MOST_EVENTS = 2500
MOST_BINS = 80


@dataclass(frozen=True)
class RasterExcerpt:
    """Events of some neurons of a population during sample 0.

    Attributes
    ----------
    chip_steps : int
    neurons : ndarray, shape (shown,), int32
        Which neurons are shown, ascending.
    counts : ndarray, shape (shown, bins), int32
        Events of each in equal parts of time; there are `chip_steps` bins unless they are too many.
    """

    chip_steps: int
    neurons: np.ndarray
    counts: np.ndarray

    @property
    def exact(self) -> bool:
        """Whether every event has its own step."""
        return int(self.counts.shape[1]) == self.chip_steps

    def packed(self) -> np.ndarray:
        """As one int32 array: chip_steps, number of neurons, neurons, counts."""
        head = np.array([self.chip_steps, len(self.neurons)])
        return np.concatenate([head, self.neurons, self.counts.ravel()]).astype(np.int32)

    @classmethod
    def unpacked(cls, packed: np.ndarray) -> RasterExcerpt:
        """Read what :meth:`packed` made."""
        shown = int(packed[1])
        counts = packed[2 + shown :].reshape(shown, -1)
        return cls(int(packed[0]), packed[2 : 2 + shown], counts)


def excerpt(
    raster: np.ndarray,
    most_neurons: int = MOST_NEURONS,
    most_events: int = MOST_EVENTS,
    most_bins: int = MOST_BINS,
) -> RasterExcerpt:
    """Take evenly spaced neurons, and count in bins of time if they still send too much.

    Parameters
    ----------
    raster : ndarray, shape (chip_steps, neurons)
        Nonzero where an event was sent.
    most_neurons, most_events, most_bins : int
    """
    active = (np.asarray(raster) != 0).T
    neurons, chip_steps = active.shape
    chosen = np.unique(np.linspace(0, neurons - 1, min(neurons, most_neurons)).astype(np.int32))
    counts = active[chosen].astype(np.int32)
    found = RasterExcerpt(chip_steps, chosen, counts)
    return binned(found, most_bins) if counts.sum() > most_events else found


def binned(found: RasterExcerpt, most_bins: int = MOST_BINS) -> RasterExcerpt:
    """Count events in at most so many equal parts of time; what has no more stays as it is."""
    bins = found.counts.shape[1]
    if bins <= most_bins:
        return found
    edges = np.linspace(0, bins, most_bins + 1).astype(np.int64)
    counts = np.add.reduceat(found.counts, edges[:-1], axis=1)
    return RasterExcerpt(found.chip_steps, found.neurons, counts)
