"""What the states of a memory do at every step of the simulation, and how large they get."""

from __future__ import annotations

import numpy as np

_RANGE_PERCENTILE = 99.9
_SMALLEST_SHARE = 1e-3


def follow(a_bar: np.ndarray, b_bar: np.ndarray, u: np.ndarray, parts: int) -> np.ndarray:
    """States of an ideal memory, each input held for `parts` steps.

    Parameters
    ----------
    a_bar : ndarray, shape (order, order)
    b_bar : ndarray, shape (order,)
        For one step of the simulation.
    u : ndarray, shape (samples, steps, channels)
    parts : int

    Returns
    -------
    m : ndarray, shape (steps * parts, samples, channels, order), float32
        After every step of the simulation.
    """
    samples, steps, channels = u.shape
    m = np.zeros((samples, channels, len(b_bar)))
    trajectory = np.empty((steps * parts, *m.shape), dtype=np.float32)
    for t in range(steps):
        drive = u[:, t, :, None] * b_bar
        for k in range(t * parts, (t + 1) * parts):
            m = m @ a_bar.T + drive
            trajectory[k] = m
    return trajectory


def ranges(trajectory: np.ndarray) -> np.ndarray:
    """Give the 99.9 % range of each state, shape (channels, order).

    A state that hardly moves (less than a thousandth of the largest) gets that thousandth, so
    that nothing is divided by zero.
    """
    size = np.percentile(np.abs(trajectory), _RANGE_PERCENTILE, axis=(0, 1)).astype(np.float64)
    return np.maximum(size, max(_SMALLEST_SHARE * float(size.max()), 1e-12))
