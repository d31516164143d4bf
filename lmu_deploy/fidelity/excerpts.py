"""Rasters cut down to what a plot can show, as the coordinates of their events.

A raster of thousands of neurons and steps is mostly ink; a few dozen neurons, evenly taken, show
the same. Each excerpt is one integer array, so that a folder's plots fit one small `.npz` file.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

MOST_NEURONS = 40
MOST_EVENTS = 3000


@dataclass(frozen=True)
class RasterExcerpt:
    """Events of some neurons of a population during sample 0.

    Attributes
    ----------
    chip_steps : int
    neurons : ndarray, shape (shown,), int32
        Which neurons are shown, ascending.
    steps, rows : ndarray, shape (events,), int32
        When each event was sent, and by which of the shown neurons (an index into `neurons`).
    """

    chip_steps: int
    neurons: np.ndarray
    steps: np.ndarray
    rows: np.ndarray

    def packed(self) -> np.ndarray:
        """As one int32 array: chip_steps, number of neurons, neurons, steps, rows."""
        head = np.array([self.chip_steps, len(self.neurons)], dtype=np.int32)
        return np.concatenate([head, self.neurons, self.steps, self.rows]).astype(np.int32)

    @classmethod
    def unpacked(cls, packed: np.ndarray) -> RasterExcerpt:
        """Read what :meth:`packed` made."""
        shown = int(packed[1])
        events = packed[2 + shown :]
        half = len(events) // 2
        return cls(int(packed[0]), packed[2 : 2 + shown], events[:half], events[half:])


def excerpt(
    raster: np.ndarray, most_neurons: int = MOST_NEURONS, most_events: int = MOST_EVENTS
) -> RasterExcerpt:
    """Take evenly spaced neurons, as many as both limits allow.

    Parameters
    ----------
    raster : ndarray, shape (chip_steps, neurons)
        Nonzero where an event was sent.
    most_neurons, most_events : int
        At least one neuron is shown, however many events it sent.
    """
    active = np.asarray(raster) != 0
    chip_steps, neurons = active.shape
    shown = min(neurons, most_neurons)
    while True:
        chosen = np.unique(np.linspace(0, max(neurons - 1, 0), shown).astype(np.int32))[:neurons]
        part = active[:, chosen]
        events = int(part.sum())
        if events <= most_events or shown <= 1:
            break
        shown = max(1, min(shown - 1, shown * most_events // events))
    rows, steps = np.nonzero(part.T)
    return RasterExcerpt(chip_steps, chosen, steps.astype(np.int32), rows.astype(np.int32))
