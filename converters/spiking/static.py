"""Static calibration: each state decoded from the measured rate curves of its own population."""

from __future__ import annotations

import numpy as np

from converters.spiking.bench import Chip, Fit, Progress
from converters.spiking.ridge import fit_few_rows

STATIC_RIDGE = 0.01
LEVELS = np.linspace(-1.1, 1.1, 45)
_SETTLE_MS, _COUNT_MS = 100.0, 1000.0


def static(
    chip: Chip, targets: np.ndarray, rng: np.random.Generator, progress: Progress | None = None
) -> Fit:
    """Decode each state from its own population's rate curves, then multiply by A'.

    Parameters
    ----------
    chip : Chip
    targets : ndarray, shape (channels, order, order)
        A' in scaled states.
    rng : Generator
    progress : callable, optional
        Called with (steps done, steps in all).
    """
    rates = measure_rates(chip, rng, progress)
    states, neurons = rates.shape[1:]
    decoders = np.empty((states, neurons))
    errors = []
    for state in range(states):
        decoders[state] = fit_few_rows(rates[:, state], LEVELS[:, None], STATIC_RIDGE)[:, 0]
        off = rates[:, state] @ decoders[state] - LEVELS
        errors.append(np.linalg.norm(off) / np.linalg.norm(LEVELS))
    blocks = decoders.reshape(chip.channels, 1, chip.order, neurons)
    weights = (targets[..., None] * blocks).reshape(chip.channels, chip.order, -1)
    return Fit(weights, STATIC_RIDGE, float(np.sqrt(np.mean(np.square(errors)))))


def measure_rates(
    chip: Chip, rng: np.random.Generator, progress: Progress | None = None
) -> np.ndarray:
    """Hold every state at each level and count spikes.

    Returns
    -------
    ndarray, shape (levels, states, neurons)
        Hertz.
    """
    if chip.model.kind == "poisson":
        return _expected_rates(chip)
    neurons = chip.neurons(len(LEVELS), rng)
    x = np.repeat(LEVELS[:, None], chip.populations.states, axis=1)
    settling, steps = (round(ms / chip.dt_ms) for ms in (_SETTLE_MS, _SETTLE_MS + _COUNT_MS))
    counts = np.zeros(neurons.v.shape)
    for step in range(steps):
        spikes = neurons.step(x)
        if step >= settling:
            counts += spikes
        if progress:
            progress(step + 1, steps)
    return counts / ((steps - settling) * chip.dt_ms * 1e-3)


def _expected_rates(chip: Chip) -> np.ndarray:
    """Like :func:`measure_rates`, for Poisson neurons: counting them would take minutes."""
    current = LEVELS[:, None, None] * chip.populations.slopes + chip.populations.offsets
    return np.asarray(np.maximum(current, 0.0) / (chip.model.membrane_tau_ms * 1e-3))
