"""The calibrations of a memory on several chips, by the name that a user gives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from converters.spiking.bench import Chip, Fit, Progress, part
from converters.spiking.closed_loop import best_in_loop
from converters.spiking.deviations import predict_spread
from converters.spiking.dynamic import dynamic_for_each
from converters.spiking.scaled import ScaledMemory
from converters.spiking.static import static

_MEASURING, _PREDICTING, _TRYING = 3, 4, 5
"""What a generator is for, beside the seed."""


def calibrate(
    method: str,
    perfect: Chip,
    chips: Sequence[Chip],
    scaled: ScaledMemory,
    seed: Sequence[int],
    progress: Progress | None = None,
) -> list[Fit]:
    """Find W for each chip; what a chip gets does not depend on the others.

    Parameters
    ----------
    method : {"dynamic", "static", "none"}
    perfect : Chip
        The chip without mismatch and noise.
    chips : sequence of Chip
        Alike but for their devices.
    scaled : ScaledMemory
    seed : sequence of int
    progress : callable, optional
        Called with (steps of calibration done, in all).

    Returns
    -------
    list of Fit
        Of "dynamic", the one of the three methods by which the chip holds its states best in a
        closed loop, so that a calibration never leaves a chip worse than it was.
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
    """Give what an ideal chip would be calibrated to."""
    return _static([perfect], scaled, seed, progress)
