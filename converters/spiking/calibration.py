"""Calibration of a memory on several chips: dynamic, static, or none.

A static calibration decodes each state from the measured rate curves of its own population.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from converters.spiking.closed_loop import ScaledMemory, best_in_loop, predict_spread
from converters.spiking.dynamic import dynamic_for_each
from converters.spiking.neurons import Chip, Fit, part
from converters.spiking.ridge import fit_few_rows
from lmu_deploy.core.progress import Progress

STATIC_RIDGE = 0.01
LEVELS = np.linspace(-1.1, 1.1, 45)
_SETTLE_MS, _COUNT_MS = 100.0, 1000.0


def static(
    chip: Chip, targets: np.ndarray, rng: np.random.Generator, progress: Progress | None = None
) -> Fit:
    """Fit decoders of each state to its own population's rate curves, and multiply them by A'.

    Parameters
    ----------
    chip : Chip
    targets : ndarray, shape (channels, order, order)
        A' in scaled states.
    rng : Generator
    progress : callable, optional
        Called with (steps done, steps in total).
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
    """Measure the rates of all neurons with every state constant at each level.

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
    """Return what :func:`measure_rates` would, for Poisson neurons, without counting spikes."""
    current = LEVELS[:, None, None] * chip.populations.slopes + chip.populations.offsets
    return np.asarray(np.maximum(current, 0.0) / (chip.model.membrane_tau_ms * 1e-3))


_MEASURING, _PREDICTING, _TRYING = 3, 4, 5
"""Streams of random numbers."""


def calibrate(
    method: str,
    perfect: Chip,
    chips: Sequence[Chip],
    scaled: ScaledMemory,
    seed: Sequence[int],
    progress: Progress | None = None,
) -> list[Fit]:
    """Compute W for each chip, independently of the other chips.

    Parameters
    ----------
    method : {"dynamic", "static", "none"}
    perfect : Chip
        An ideal chip, without mismatch and noise.
    chips : sequence of Chip
        They differ in their devices only.
    scaled : ScaledMemory
    seed : sequence of int
    progress : callable, optional
        Called with (calibration steps done, steps in total).

    Returns
    -------
    list of Fit
        For "dynamic", the result of the method that has the smallest error in a closed loop, so
        that a calibration never makes a chip worse.
    """
    if method == "none":
        return _without(perfect, scaled, seed, progress) * len(chips)
    if method == "static":
        return _static(chips, scaled, seed, progress)
    typical = replace(perfect, device=replace(chips[0].device, mismatch=0.0, tau_mismatch=0.0))
    predicting = np.random.default_rng([*seed, _PREDICTING])
    stages = [part(progress, number, 4) for number in range(4)]
    spread = predict_spread(typical, scaled.targets, scaled.trajectory, predicting, stages[0])
    fits = dynamic_for_each(
        chips, scaled.targets, scaled.trajectory, [*seed, _MEASURING], stages[1], spread
    )
    others = [
        _static(chips, scaled, seed, stages[2]),
        _without(perfect, scaled, seed, None) * len(chips),
    ]
    return best_in_loop(chips, [fits, *others], scaled, [*seed, _TRYING], stages[3])


def _static(
    chips: Sequence[Chip], scaled: ScaledMemory, seed: Sequence[int], progress: Progress | None
) -> list[Fit]:
    found = []
    for number, chip in enumerate(chips):
        rng = np.random.default_rng([*seed, _MEASURING])
        found.append(static(chip, scaled.targets, rng, part(progress, number, len(chips))))
    return found


def _without(
    perfect: Chip, scaled: ScaledMemory, seed: Sequence[int], progress: Progress | None
) -> list[Fit]:
    """Return the calibration of an ideal chip."""
    return _static([perfect], scaled, seed, progress)
