"""Dynamic calibration: all of W fitted to the filtered spikes of neurons whose states are forced.

In: neurons with all their imperfections, the memory's dynamics in scaled states, trajectories of
those states. Out: W, shape (channels, order, order * neurons), as spiking_network.py defines it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from converters.spiking.batch import Batch
from converters.spiking.bench import Bench, Chip, Fit, Progress, part
from converters.spiking.recorder import Recorder, gather
from converters.spiking.ridge import Products, fit
from converters.spiking.weights import round_and_refit

DYNAMIC_RIDGES = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2)
_NEURONS_AT_ONCE = 50_000
"""Of all chips and samples: more do not go faster."""
_PRODUCTS_AT_ONCE = 10_000_000
"""Sums of products of all chips, 16 bytes each with those of the held-out part."""


def dynamic(
    bench: Bench,
    targets: np.ndarray,
    trajectory: np.ndarray,
    rng: np.random.Generator,
    progress: Progress | None = None,
    spread: np.ndarray | None = None,
    largest: float = np.inf,
) -> Fit:
    """Force the states along a trajectory with slow noise, and fit all of W to A' x at once.

    The populations are driven by x = trajectory + noise (2 to 10 % of the range, as slow as the
    synapse, drawn for each sample, and what the closed loop will stray by); W is the ridge
    regression from the spikes filtered by the synapse to A' x filtered alike, so that it makes up
    for mismatch, for what neurons remember, and for what the synapse adds. The last fifth of the
    samples (of the time, if there are fewer than five) is held out and chooses the regularisation.

    Parameters
    ----------
    bench : Bench
        A :class:`converters.spiking.bench.Chip`, or other neurons.
    targets : ndarray, shape (channels, order, order)
        A' in scaled states.
    trajectory : ndarray, shape (steps, samples, channels, order)
        Scaled states at every step of the simulation.
    rng : Generator
    progress : callable, optional
        Called with (steps done, steps in all).
    spread : ndarray, shape (channels, order, order), optional
        See :func:`converters.spiking.deviations.predict_spread`; zero if absent.
    largest : float
        Weight that the chip can hold; a regularisation that leaves larger ones is only taken if
        all do.
    """
    samples = trajectory.shape[1]
    driven = bench.neurons(samples, rng)
    recorder = Recorder(bench, driven, 1, samples, targets, rng, spread)
    return _choose(*gather(recorder, trajectory, progress), bits=0, largest=largest)


def dynamic_for_each(
    chips: Sequence[Chip],
    targets: np.ndarray,
    trajectory: np.ndarray,
    seed: Sequence[int],
    progress: Progress | None = None,
    spread: np.ndarray | None = None,
) -> list[Fit]:
    """Calibrate several chips, as many at once as is quick; each fit is that of its chip alone.

    The weights are those that the chip will hold: of few bits, where it has few.

    Parameters
    ----------
    chips : sequence of Chip
        Alike but for their devices.
    targets, trajectory, spread
        As for :func:`dynamic`.
    seed : sequence of int
        Of the generator that :func:`dynamic` would be given, for every chip.
    progress : callable, optional
        Called with (steps done, steps in all).
    """
    channels, samples = chips[0].channels, trajectory.shape[1]
    together = _together(chips[0], samples)
    groups = [chips[i : i + together] for i in range(0, len(chips), together)]
    found: list[Fit] = []
    for number, group in enumerate(groups):
        rng = np.random.default_rng(seed)
        driven = Batch(group).neurons(samples, rng)
        recorder = Recorder(group[0], driven, len(group), samples, targets, rng, spread)
        learnt, held_out = gather(recorder, trajectory, part(progress, number, len(groups)))
        for i in range(0, len(learnt), channels):
            of_chip = slice(i, i + channels)
            bits = group[0].device.weight_bits
            found.append(_choose(learnt[of_chip], held_out[of_chip], bits))
    return found


def _together(chip: Chip, samples: int) -> int:
    by_speed = _NEURONS_AT_ONCE // (samples * chip.populations.encoders.size)
    features = chip.order * chip.neurons_per_state
    by_memory = _PRODUCTS_AT_ONCE // (chip.channels * features**2)
    return max(1, min(by_speed, by_memory))


def _choose(
    learnt: list[Products], held_out: list[Products], bits: int, largest: float = np.inf
) -> Fit:
    """Take the regularisation with the least error on what was held out, all channels together."""
    maps = [fit(products, DYNAMIC_RIDGES) for products in learnt]
    errors = [_error(held_out, [of_channel[r] for of_channel in maps]) for r in range(len(maps[0]))]
    sizes = [max(np.abs(of_channel[r]).max() for of_channel in maps) for r in range(len(maps[0]))]
    fitting = [error for error, size in zip(errors, sizes, strict=True) if size <= largest]
    best = errors.index(min(fitting)) if fitting else int(np.argmin(sizes))
    ridge, chosen = DYNAMIC_RIDGES[best], [of_channel[best] for of_channel in maps]
    if bits:
        chosen = [
            round_and_refit(w.T, bits, products.penalised(ridge)).T
            for w, products in zip(chosen, learnt, strict=True)
        ]
    return Fit(np.stack([w.T for w in chosen]), ridge, _error(held_out, chosen))


def _error(held_out: list[Products], maps: list[np.ndarray]) -> float:
    squares = [h.relative_error(w) ** 2 for h, w in zip(held_out, maps, strict=True)]
    return float(np.sqrt(np.mean(squares)))
