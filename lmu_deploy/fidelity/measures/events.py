"""Counts of messages and spikes by sample, step, population and class, and excerpts of rasters.

An event is one message or spike sent by one neuron. Synaptic operations are counted by the target
(`synops`). An excerpt of a raster has a few dozen evenly spaced neurons; if they send many events,
the events are counted in time bins. Each excerpt is one integer array, so that the rasters of a
result folder fit in one small `.npz` file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Counted:
    """Events of a population, summed over samples and over steps.

    Attributes
    ----------
    by_step : ndarray, shape (steps,), int64
        Sum over all samples.
    by_sample : ndarray, shape (samples,), int64
        Sum over all steps.
    """

    by_step: np.ndarray
    by_sample: np.ndarray

    @classmethod
    def of(cls, counts: np.ndarray) -> Counted:
        """Sum counts of shape (samples, steps)."""
        return cls(counts.sum(axis=0, dtype=np.int64), counts.sum(axis=1, dtype=np.int64))

    @classmethod
    def joined(cls, parts: Sequence[Counted]) -> Counted:
        """Concatenate the sums of successive parts of a test set."""
        by_step = np.stack([part.by_step for part in parts]).sum(axis=0)
        return cls(by_step, np.concatenate([part.by_sample for part in parts]))

    @property
    def total(self) -> int:
        """Number of events of all samples and steps."""
        return int(self.by_step.sum())


@dataclass(frozen=True)
class PopulationEvents:
    """Summary of the events of one population.

    Attributes
    ----------
    neurons : int or None
        None when the target does not report it.
    total : int
    per_sample : float
    rate : float or None
        Events per neuron and step.
    by_step : ndarray, shape (steps,)
        Mean events of a sample at each step.
    by_class : mapping of class to float, or None
        Mean events of a sample of that class.
    silent : int or None
        Number of neurons without an event in sample 0; None without a raster.
    intervals : ndarray of int, or None
        Result of :func:`count_intervals` for sample 0.
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
    """Summarize the events of one population.

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
    """Count the neurons without an event; `raster` has shape (chip_steps, neurons)."""
    return int((~np.asarray(raster, dtype=bool).any(axis=0)).sum())


def count_intervals(raster: np.ndarray) -> np.ndarray:
    """Count the intervals between successive events of each neuron, in bins of doubling width.

    Parameters
    ----------
    raster : ndarray, shape (chip_steps, neurons)

    Returns
    -------
    ndarray of int64, shape (bins,)
        Entry k counts intervals of 2^(k-1) + 1 to 2^k steps, entry 0 those of one step. Empty when
        no neuron sent two events.
    """
    neuron, step = np.nonzero(np.asarray(raster, dtype=bool).T)
    intervals = np.diff(step)[np.diff(neuron) == 0]
    return np.bincount(np.ceil(np.log2(intervals)).astype(np.int64)).astype(np.int64)


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
        Indices of the neurons, ascending.
    counts : ndarray, shape (shown, bins), int32
        Events of each neuron in time bins of equal width, at most one bin for each chip step.
    """

    chip_steps: int
    neurons: np.ndarray
    counts: np.ndarray

    @property
    def exact(self) -> bool:
        """Whether every bin is one chip step."""
        return int(self.counts.shape[1]) == self.chip_steps

    def packed(self) -> np.ndarray:
        """Return one int32 array: chip_steps, number of neurons, neurons, counts."""
        head = np.array([self.chip_steps, len(self.neurons)])
        return np.concatenate([head, self.neurons, self.counts.ravel()]).astype(np.int32)

    @classmethod
    def unpacked(cls, packed: np.ndarray) -> RasterExcerpt:
        """Build an excerpt from the result of :meth:`packed`."""
        shown = int(packed[1])
        counts = packed[2 + shown :].reshape(shown, -1)
        return cls(int(packed[0]), packed[2 : 2 + shown], counts)


def excerpt(
    raster: np.ndarray,
    most_neurons: int = MOST_NEURONS,
    most_events: int = MOST_EVENTS,
    most_bins: int = MOST_BINS,
) -> RasterExcerpt:
    """Select evenly spaced neurons, and count in time bins if they send many events.

    Parameters
    ----------
    raster : ndarray, shape (chip_steps, neurons)
        Nonzero for an event.
    most_neurons, most_events, most_bins : int
        Largest number of neurons, of events without binning, and of bins.
    """
    active = (np.asarray(raster) != 0).T
    neurons, chip_steps = active.shape
    chosen = np.unique(np.linspace(0, neurons - 1, min(neurons, most_neurons)).astype(np.int32))
    counts = active[chosen].astype(np.int32)
    found = RasterExcerpt(chip_steps, chosen, counts)
    return binned(found, most_bins) if counts.sum() > most_events else found


def binned(found: RasterExcerpt, most_bins: int = MOST_BINS) -> RasterExcerpt:
    """Count events in at most `most_bins` time bins; an excerpt with fewer bins is not changed."""
    bins = found.counts.shape[1]
    if bins <= most_bins:
        return found
    edges = np.linspace(0, bins, most_bins + 1).astype(np.int64)
    counts = np.add.reduceat(found.counts, edges[:-1], axis=1)
    return RasterExcerpt(found.chip_steps, found.neurons, counts)
