"""Rasters cut down to what a plot can show: few neurons, and few enough cells of time.

A raster of thousands of neurons and steps is mostly ink; a few dozen neurons, evenly taken, show
the same. Where even those send too much to draw one by one, their events are counted in bins of
time. Each excerpt is one integer array, so that a folder's plots fit one small `.npz` file.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

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
