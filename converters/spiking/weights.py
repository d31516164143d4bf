"""Weights as a chip with few bits holds them."""

from __future__ import annotations

import numpy as np


def round_weights(weights: np.ndarray, bits: int) -> np.ndarray:
    """Round each row of W to integers of `bits` bits times the row's own scale.

    Parameters
    ----------
    weights : ndarray, shape (..., rows, columns)
    bits : int
        Sign included; 0 leaves the weights as they are.
    """
    if bits == 0:
        return weights
    largest = 2 ** (bits - 1) - 1
    scale = np.abs(weights).max(axis=-1, keepdims=True) / largest
    scale[scale == 0.0] = 1.0
    return np.asarray(np.clip(np.rint(weights / scale), -largest, largest) * scale)
