"""Calibration of a memory on several chips: dynamic, static, or none.

A static calibration decodes each state from the measured rate curves of its own population.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from converters.spiking.closed_loop import ScaledMemory, best_in_loop, predict_spread
from converters.spiking.device import NeuronDevice, play
from converters.spiking.dynamic import dynamic_for_each
from converters.spiking.neurons import Chip, Fit, part
from converters.spiking.ridge import Products, Regression, fit_few_rows
from lmu_deploy.core.progress import Progress

STATIC_RIDGE = 0.01
LEVELS = np.linspace(-1.1, 1.1, 45)
_SETTLE_MS, _COUNT_MS = 100.0, 1000.0
_WINDOW_MS = 100.0
_SAME = 0.02
"""Largest relative difference of the rates of a neuron that ignores its drive."""


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
    if chip.limit:
        return _sparse(chip, targets, rates)
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


def _sparse(chip: Chip, targets: np.ndarray, rates: np.ndarray) -> Fit:
    """Fit each row of W with few neurons, for states that are independent of each other."""
    by_channel = np.split(rates, chip.channels, axis=1)
    aims = np.repeat(LEVELS[:, None], chip.order, axis=1)
    maps, errors = [], []
    for wanted, of_channel in zip(targets, by_channel, strict=True):
        products = independent_products([(of_channel, aims)], wanted.T)
        maps.append(Regression(products, chip.limit).fit(STATIC_RIDGE))
        errors.append(products.relative_error(maps[-1]))
    weights = np.stack([found.T for found in maps])
    return Fit(weights, STATIC_RIDGE, float(np.sqrt(np.mean(np.square(errors)))))


def independent_products(
    curves: Sequence[tuple[np.ndarray, np.ndarray]], kernel: np.ndarray
) -> Products:
    """Return the mean products of neurons whose drives are independent of each other.

    They follow from the rate curves: neurons of two populations are correlated by their mean rates
    only, and a neuron with other values than its own only by the means of both.

    Parameters
    ----------
    curves : sequence of (rates, aims)
        Rates, shape (levels, values, neurons), and what each population represents, shape
        (levels, values). Populations of different numbers of neurons come one behind the other.
    kernel : ndarray, shape (all values, targets)
    """
    populations = [
        (rates[:, value], aims[:, value])
        for rates, aims in curves
        for value in range(aims.shape[1])
    ]
    means = np.concatenate([rates.mean(axis=0) for rates, _ in populations])
    aim_means = np.array([aims.mean() for _, aims in populations])
    products = Products(len(means), kernel.shape[1])
    products.ff[:] = np.outer(means, means)
    products.ft[:] = np.outer(means, aim_means @ kernel)
    end = 0
    for (rates, aims), of_value in zip(populations, kernel, strict=True):
        cells = slice(end, end := end + rates.shape[1])
        products.ff[cells, cells] = rates.T @ rates / len(rates)
        together = aims @ rates / len(rates) - aims.mean() * rates.mean(axis=0)
        products.ft[cells] += np.outer(together, of_value)
    variances = np.array([aims.var() for _, aims in populations])
    products.tt[:] = variances @ np.square(kernel) + np.square(aim_means @ kernel)
    return products


def measure_rates(
    chip: Chip, rng: np.random.Generator, progress: Progress | None = None
) -> np.ndarray:
    """Measure the rates of all neurons with every state constant at each level.

    Returns
    -------
    ndarray, shape (levels, states, neurons)
        Hertz.
    """
    if chip.model.kind == "poisson" and chip.board is None:
        return _expected_rates(chip)
    neurons = chip.neurons(len(LEVELS), rng)
    x = np.repeat(LEVELS[:, None], chip.populations.states, axis=1)
    settling, steps = (round(ms / chip.dt_ms) for ms in (_SETTLE_MS, _SETTLE_MS + _COUNT_MS))
    counts = np.zeros((len(LEVELS), *chip.populations.encoders.shape))
    recent = np.zeros(counts.shape, np.uint8)  # whose sums are ten times faster
    for step in range(steps):
        spikes = neurons.step(x)
        if step >= settling:
            recent += spikes.view(np.uint8)
        if step % 255 == 0 or step + 1 == steps:
            counts += recent
            recent[:] = 0
        if progress:
            progress(step + 1, steps)
    return counts / ((steps - settling) * chip.dt_ms * 1e-3)


def rates_of(chip: Chip, seed: Sequence[int]) -> np.ndarray:
    """Measure rates as :func:`measure_rates` does, on a board that plays drives too."""

    def measured(board: NeuronDevice | None) -> np.ndarray:
        return measure_rates(replace(chip, board=board), np.random.default_rng(seed))

    if chip.board is None or chip.board.live:
        return measured(chip.board)
    steps = round((_SETTLE_MS + _COUNT_MS) / chip.dt_ms)
    return play(chip.board, chip.block, steps, seed, measured)


def _expected_rates(chip: Chip) -> np.ndarray:
    """Return what :func:`measure_rates` would, for Poisson neurons, without counting spikes."""
    current = LEVELS[:, None, None] * chip.populations.slopes + chip.populations.offsets
    return np.asarray(np.maximum(current, 0.0) / (chip.model.membrane_tau_ms * 1e-3))


@dataclass(frozen=True)
class Health:
    """What a short test shows of the neurons of a chip.

    Attributes
    ----------
    silent : ndarray, shape (states, neurons), bool
        Neurons that spike at no drive.
    stuck : ndarray, shape (states, neurons), bool
        Neurons that spike at every drive, equally often.
    dispersion : ndarray, shape (states,)
        Variance over mean of the spike counts at constant drive, averaged over a population; 0 for
        regular spikes, 1 for those of Poisson neurons.
    """

    silent: np.ndarray
    stuck: np.ndarray
    dispersion: np.ndarray

    @property
    def dead(self) -> list[int]:
        """Populations without a neuron that follows its drive."""
        return [int(n) for n in np.flatnonzero((self.silent | self.stuck).all(axis=1))]

    def noisy(self, factor: float = 3.0) -> list[int]:
        """Return the populations that are this much more irregular than the median one."""
        alive = np.setdiff1d(np.arange(len(self.dispersion)), self.dead)
        if not len(alive):
            return []
        limit = factor * float(np.median(self.dispersion[alive]))
        return [int(n) for n in alive if self.dispersion[n] > max(limit, 1e-9)]


def examine(
    chip: Chip,
    seed: Sequence[int],
    levels: Sequence[float] = (-1.1, 1.1),
    repeats: int = 1,
    windows: int = 1,
) -> Health:
    """Count the spikes of a chip at a few constant drives.

    Parameters
    ----------
    chip : Chip
    seed : sequence of int
        Of initial membranes and noise.
    levels : sequence of float
        Drives of all populations. The two of the default find neurons that do not work.
    repeats : int
        Trials with each drive.
    windows : int
        Windows of 0.1 s of each trial, whose counts are compared.
    """
    window = max(round(_WINDOW_MS / chip.dt_ms), 1)
    settling = window // 2  # a DPI neuron that is dead may still spike once from where it starts
    steps = settling + windows * window
    drives = np.repeat(levels, repeats)
    x = np.repeat(drives[:, None], chip.populations.states, axis=1).astype(np.float32)

    def counted(board: NeuronDevice | None) -> np.ndarray:
        rng = np.random.default_rng([*seed, _EXAMINING])
        neurons = replace(chip, board=board).neurons(len(drives), rng)
        counts = np.zeros((windows, len(drives), *chip.populations.encoders.shape))
        for step in range(steps):
            spikes = neurons.step(x)
            if step >= settling:
                counts[(step - settling) // window] += spikes
        return counts

    board = chip.board
    counts = (
        counted(board)
        if board is None or board.live
        else play(board, chip.block, steps, [*seed, _EXAMINING], counted)
    )
    cells = chip.populations.encoders.shape
    by_level = counts.reshape(windows, len(levels), repeats, *cells).swapaxes(0, 1)
    by_level = by_level.reshape(len(levels), -1, *cells)
    means, variances = by_level.mean(axis=1), by_level.var(axis=1)
    silent = means.max(axis=0) == 0.0
    stuck = (np.ptp(means, axis=0) <= _SAME * means.max(axis=0)) & ~silent
    working = ~(stuck | silent)
    dispersion = (variances * working).sum(axis=(0, 2)) / np.maximum(
        (means * working).sum(axis=(0, 2)), 1e-9
    )
    return Health(silent, stuck, dispersion)


_MEASURING, _PREDICTING, _TRYING, _EXAMINING = 3, 4, 5, 9
"""Streams of random numbers; those between belong to units."""


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
    if any(chip.board is not None for chip in chips):
        return [_on_board(perfect, chip, scaled, seed, progress) for chip in chips]
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


def _on_board(
    perfect: Chip, chip: Chip, scaled: ScaledMemory, seed: Sequence[int], progress: Progress | None
) -> Fit:
    """Calibrate a board dynamically; without a closed loop, there is nothing to compare."""
    board = chip.board
    assert board is not None
    typical = replace(perfect, device=replace(chip.device, mismatch=0.0, tau_mismatch=0.0))
    predicting = np.random.default_rng([*seed, _PREDICTING])
    spread = predict_spread(typical, scaled.targets, scaled.trajectory, predicting)

    def fitted(given: NeuronDevice) -> list[Fit]:
        shown = part(progress, 0, 2 if board.live else 1)
        own, measuring = [replace(chip, board=given)], [*seed, _MEASURING]
        return dynamic_for_each(own, scaled.targets, scaled.trajectory, measuring, shown, spread)

    steps = len(scaled.trajectory)
    fits = play(board, chip.block, steps, [*seed, _MEASURING], fitted)
    if not board.live:
        return fits[0]
    others = [_static([chip], scaled, seed, None), _without(perfect, scaled, seed, None)]
    shown = part(progress, 1, 2)
    return best_in_loop([chip], [fits, *others], scaled, [*seed, _TRYING], shown)[0]


def _static(
    chips: Sequence[Chip], scaled: ScaledMemory, seed: Sequence[int], progress: Progress | None
) -> list[Fit]:
    found = []
    for number, chip in enumerate(chips):
        shown, measuring = part(progress, number, len(chips)), [*seed, _MEASURING]

        def fitted(
            board: NeuronDevice | None,
            chip: Chip = chip,
            shown: Progress | None = shown,
            measuring: Sequence[int] = measuring,
        ) -> Fit:
            own = replace(chip, board=board)
            return static(own, scaled.targets, np.random.default_rng(measuring), shown)

        if chip.board is None or chip.board.live:
            found.append(fitted(chip.board))
        else:
            steps = round((_SETTLE_MS + _COUNT_MS) / chip.dt_ms)
            found.append(play(chip.board, chip.block, steps, measuring, fitted))
    return found


def _without(
    perfect: Chip, scaled: ScaledMemory, seed: Sequence[int], progress: Progress | None
) -> list[Fit]:
    """Return the calibration of an ideal chip."""
    return _static([perfect], scaled, seed, progress)
