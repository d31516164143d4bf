"""Maps tried out before they are used: chips run freely by them, and the best is taken.

A regression sees states that are forced; whether a chip holds them by itself shows in a closed
loop alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from converters.spiking.batch import Batch
from converters.spiking.bench import Chip, Fit, Progress, part
from converters.spiking.scaled import ScaledMemory

_LEAST, _MOST = 2, 8
"""Samples that a map is tried on: what a calibration holds out, but no fewer and no more."""
_NEURONS_AT_ONCE = 500_000


def best_in_loop(
    chips: Sequence[Chip],
    candidates: Sequence[Sequence[Fit]],
    scaled: ScaledMemory,
    seed: Sequence[int],
    progress: Progress | None = None,
) -> list[Fit]:
    """Take for each chip the map by which it holds its states best; the first of equals.

    Parameters
    ----------
    chips : sequence of Chip
        Alike but for their devices.
    candidates : sequence of sequences of Fit
        Each has one for every chip; they are tried as the chip will hold them, rounded.
    scaled : ScaledMemory
        Its last samples are what the chips are tried on.
    seed : sequence of int
        Of where membranes start, alike for all maps and chips, and of their noise.
    progress : callable, optional
        Called with (steps done, steps in all).
    """
    copies = len(candidates) * _tried_on(scaled)
    together = max(1, _NEURONS_AT_ONCE // (copies * chips[0].populations.encoders.size))
    groups = [slice(i, i + together) for i in range(0, len(chips), together)]
    found: list[Fit] = []
    for number, group in enumerate(groups):
        of_group = [fits[group] for fits in candidates]
        shown = part(progress, number, len(groups))
        errors = loop_errors(chips[group], of_group, scaled, seed, shown)
        found += [of_group[which][chip] for chip, which in enumerate(np.argmin(errors, axis=0))]
    return found


def loop_errors(
    chips: Sequence[Chip],
    candidates: Sequence[Sequence[Fit]],
    scaled: ScaledMemory,
    seed: Sequence[int],
    progress: Progress | None = None,
) -> np.ndarray:
    r"""Errors of the states of chips that run freely, relative to the states themselves.

    Every step computes :math:`x \leftarrow a x + (1 - a)(W s / dt + S^{-1} B' u)`; the input's
    part is what an ideal memory's trajectory is short of :math:`A' x`. Errors are those of the
    states that the host reads, unscaled.

    Returns
    -------
    ndarray, shape (candidates, chips)
    """
    chip, channels, order = chips[0], chips[0].channels, chips[0].order
    truth = scaled.trajectory[:, -_tried_on(scaled) :].astype(np.float64)
    steps, samples = truth.shape[:2]
    decay = float(np.exp(-chip.dt_ms / chip.tau_ms))
    maps = np.stack(
        [one.held(f.weights) for fits in candidates for one, f in zip(chips, fits, strict=True)]
    )
    # Seconds become steps; (maps * channels, features, order), so that each has its own product.
    effects = maps.reshape(-1, order, maps.shape[-1]).swapaxes(1, 2) / (chip.dt_ms * 1e-3)
    effects = np.ascontiguousarray(effects, dtype=np.float32)

    # A chip with another map is another chip: its membranes start alike.
    neurons = Batch([*chips] * len(candidates)).apart(samples, np.random.default_rng(seed))
    x = np.zeros((samples, len(maps), channels, order))
    before, squares = np.zeros_like(truth[0]), np.zeros(len(maps))
    for step in range(steps):
        spikes = neurons.step(x.reshape(samples, -1))
        fired = spikes.reshape(samples, len(effects), -1).swapaxes(0, 1)
        drive = np.ascontiguousarray(fired, dtype=np.float32) @ effects
        ideal = np.einsum("cij,scj->sci", scaled.targets, before)
        pushed = (truth[step] - decay * before) / (1.0 - decay) - ideal
        x = decay * x + (1.0 - decay) * (drive.swapaxes(0, 1).reshape(x.shape) + pushed[:, None])
        before = truth[step]
        off = (x - before[:, None]) * scaled.scales
        squares += np.square(off).sum(axis=(0, 2, 3))
        if progress:
            progress(step + 1, steps)
    size = float(np.square(truth * scaled.scales).sum())
    return np.sqrt(squares / max(size, 1e-300)).reshape(len(candidates), -1)


def _tried_on(scaled: ScaledMemory) -> int:
    samples = scaled.trajectory.shape[1]
    return min(samples, int(np.clip(samples // 5, _LEAST, _MOST)))
