"""Which of the given inputs a calibration uses."""

from __future__ import annotations

import numpy as np

CALIBRATION_SAMPLES = 200
_TRAJECTORY_ELEMENTS = 50_000_000
"""Steps times samples times states of a calibration, at most (4 bytes each)."""


def draw_samples(inputs: np.ndarray, most: int, elements_per_step: int, seed: int) -> np.ndarray:
    """Draw samples, and cut sequences, so that a calibration's trajectory fits in memory.

    Parameters
    ----------
    inputs : ndarray, shape (samples, steps, n_in)
    most : int
        Samples.
    elements_per_step : int
        Of the trajectory, for each sample.
    seed : int
    """
    rng = np.random.default_rng([seed, 0])
    samples = min(len(inputs), most)
    steps = max(1, min(inputs.shape[1], _TRAJECTORY_ELEMENTS // (samples * elements_per_step)))
    chosen = np.sort(rng.permutation(len(inputs))[:samples])
    return np.asarray(inputs[chosen, :steps])
