"""Dynamic calibration: all of W fitted to the filtered spikes of neurons whose states are forced.

In: neurons with all their imperfections, the memory's dynamics in scaled states, trajectories of
those states. Out: W, shape (channels, order, order * neurons), as spiking_network.py defines it.

Neurons whose states are forced, and the sums of products that a regression needs of them.

What the states of a memory do at every step of the simulation, and how large they get.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from converters.spiking.neurons import Batch, Bench, Chip, Driven, Fit, part
from converters.spiking.ridge import Products, fit, round_and_refit
from lmu_deploy.core.progress import Progress
from lmu_deploy.core.spiking.chip import REACH

_NOISE_SHARE = (0.02, 0.10)
_STRAYING = (0.5, 2.5)
"""Of the predicted deviations; the spread also covers what the prediction leaves out."""
_EVERY_MS = 5.0
_BLOCK = 20


class Recorder:
    """Forced neurons, their spikes behind the synapse, and A' x behind the same synapse.

    They are driven by x = reach * trajectory + noise. The noise is as slow as the synapse and the
    sum of 2 to 10 % of the range, alike in all states, and of 0.5 to 2.5 times `spread`; how much
    of each is drawn for each sample. The reach is drawn too, between 1 and 1.5 for every second
    sample and 1 for the others: a memory is linear, so what it does with a larger signal is known,
    and a map that was never fitted out there leaves the states of such a signal astray.

    Parameters
    ----------
    bench : Bench
        Any of the chips.
    driven : Driven
        Neurons of all chips, chip by chip, that have not moved yet.
    chips, samples : int
    targets : ndarray, shape (channels, order, order)
        A' in scaled states.
    rng : Generator
    spread : ndarray, shape (channels, order, order), optional
        See :func:`converters.spiking.closed_loop.predict_spread`; zero if absent.
    """

    def __init__(
        self,
        bench: Bench,
        driven: Driven,
        chips: int,
        samples: int,
        targets: np.ndarray,
        rng: np.random.Generator,
        spread: np.ndarray | None = None,
    ) -> None:
        self.bench, self.driven, self.chips = bench, driven, chips
        self.targets, self.rng = targets.astype(np.float32), rng
        self.decay = np.float32(np.exp(-bench.dt_ms / bench.tau_ms))
        shape = (samples, bench.channels, bench.order)
        farther = rng.uniform(1.0, REACH, (samples, 1, 1))
        every_second = np.arange(samples).reshape(farther.shape) % 2 == 1
        self.reach = np.where(every_second, farther, 1.0).astype(np.float32)
        self.size = rng.uniform(*_NOISE_SHARE, (samples, 1, 1)).astype(np.float32)
        self.noise: np.ndarray = rng.standard_normal(shape).astype(np.float32)
        self.spread = None if spread is None else spread.astype(np.float32)
        if spread is not None:
            self.straying = rng.uniform(*_STRAYING, (samples, 1, 1)).astype(np.float32)
        cells = (samples, chips * bench.channels * bench.order, bench.neurons_per_state)
        self.filtered = np.zeros(cells, dtype=np.float32)
        self.goal: np.ndarray = np.zeros(shape, dtype=np.float32)

    def advance(self, states: np.ndarray) -> None:
        """Move by one step; `states` has shape (samples, channels, order)."""
        x = self.reach * states + self.size * self.noise
        if self.spread is not None:
            x += self.straying * _each_channel(self.spread, self.noise)
        spikes = self.driven.step(x.reshape(len(x), -1))
        hertz = np.float32((1.0 - self.decay) / (self.bench.dt_ms * 1e-3))
        self.filtered *= self.decay
        self.filtered += hertz * spikes
        push = _each_channel(self.targets, x)
        self.goal = self.decay * self.goal + (1 - self.decay) * push
        fresh = self.rng.standard_normal(self.noise.shape).astype(np.float32)
        self.noise = self.decay * self.noise + np.sqrt(1 - self.decay**2) * fresh

    def rows(self) -> tuple[np.ndarray, np.ndarray]:
        """Give features (samples, chips * channels, features), goal (samples, channels, order)."""
        shape = (len(self.filtered), self.chips * self.bench.channels, -1)
        return self.filtered.reshape(shape).copy(), self.goal


def gather(
    recorder: Recorder, trajectory: np.ndarray, progress: Progress | None = None
) -> tuple[list[Products], list[Products]]:
    """Drive the neurons along the trajectory, and add up what they did.

    Parameters
    ----------
    recorder : Recorder
    trajectory : ndarray, shape (steps, samples, channels, order)
        Scaled states at every step of the simulation.
    progress : callable, optional
        Called with (steps done, steps in all).

    Returns
    -------
    learned, held_out : list of Products, one for each channel of each chip, chip by chip
        Held out is the last fifth of the samples; of the time, if there are fewer than five.
    """
    steps, samples = trajectory.shape[:2]
    bench, maps = recorder.bench, recorder.chips * recorder.bench.channels
    features = bench.order * bench.neurons_per_state
    learned = [Products(features, bench.order) for _ in range(maps)]
    held_out = [Products(features, bench.order) for _ in range(maps)]
    learning = samples - samples // 5
    last_learned = steps if samples >= 5 else steps - steps // 5
    every = max(round(_EVERY_MS / bench.dt_ms), 1)
    block: list[tuple[np.ndarray, np.ndarray]] = []
    for step in range(steps):
        recorder.advance(trajectory[step])
        if step % every == every - 1:
            block.append(recorder.rows())
        if block and (len(block) == _BLOCK or step + 1 in (steps, last_learned)):
            phi, goal = (np.stack(part) for part in zip(*block, strict=True))
            block = []
            share = learning if step < last_learned else 0
            for number in range(maps):
                aim = goal[:, :, number % bench.channels]
                _add(learned[number], phi[:, :share, number], aim[:, :share])
                _add(held_out[number], phi[:, share:, number], aim[:, share:])
        if progress:
            progress(step + 1, steps)
    return learned, held_out


def _each_channel(matrices: np.ndarray, x: np.ndarray) -> np.ndarray:
    return np.asarray(np.einsum("cij,scj->sci", matrices, x))


def _add(products: Products, phi: np.ndarray, goal: np.ndarray) -> None:
    if phi.size:
        products.add(phi.reshape(-1, phi.shape[-1]), goal.reshape(-1, goal.shape[-1]))


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
    samples (of the time, if there are fewer than five) is held out and chooses the regularization.

    Parameters
    ----------
    bench : Bench
        A :class:`converters.spiking.neurons.Chip`, or other neurons.
    targets : ndarray, shape (channels, order, order)
        A' in scaled states.
    trajectory : ndarray, shape (steps, samples, channels, order)
        Scaled states at every step of the simulation.
    rng : Generator
    progress : callable, optional
        Called with (steps done, steps in all).
    spread : ndarray, shape (channels, order, order), optional
        See :func:`converters.spiking.closed_loop.predict_spread`; zero if absent.
    largest : float
        Weight that the chip can hold; a regularization that leaves larger ones is only taken if
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
        learned, held_out = gather(recorder, trajectory, part(progress, number, len(groups)))
        for i in range(0, len(learned), channels):
            of_chip = slice(i, i + channels)
            bits = group[0].device.weight_bits
            found.append(_choose(learned[of_chip], held_out[of_chip], bits))
    return found


def _together(chip: Chip, samples: int) -> int:
    by_speed = _NEURONS_AT_ONCE // (samples * chip.populations.encoders.size)
    features = chip.order * chip.neurons_per_state
    by_memory = _PRODUCTS_AT_ONCE // (chip.channels * features**2)
    return max(1, min(by_speed, by_memory))


def _choose(
    learned: list[Products], held_out: list[Products], bits: int, largest: float = np.inf
) -> Fit:
    """Take the regularization with the least error on what was held out, all channels together."""
    maps = [fit(products, DYNAMIC_RIDGES) for products in learned]
    errors = [_error(held_out, [of_channel[r] for of_channel in maps]) for r in range(len(maps[0]))]
    sizes = [max(np.abs(of_channel[r]).max() for of_channel in maps) for r in range(len(maps[0]))]
    fitting = [error for error, size in zip(errors, sizes, strict=True) if size <= largest]
    best = errors.index(min(fitting)) if fitting else int(np.argmin(sizes))
    ridge, chosen = DYNAMIC_RIDGES[best], [of_channel[best] for of_channel in maps]
    if bits:
        chosen = [
            round_and_refit(w.T, bits, products.penalized(ridge)).T
            for w, products in zip(chosen, learned, strict=True)
        ]
    return Fit(np.stack([w.T for w in chosen]), ridge, _error(held_out, chosen))


def _error(held_out: list[Products], maps: list[np.ndarray]) -> float:
    squares = [h.relative_error(w) ** 2 for h, w in zip(held_out, maps, strict=True)]
    return float(np.sqrt(np.mean(squares)))


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
