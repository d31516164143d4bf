"""Dynamic calibration: fit all of W to the filtered spikes of neurons whose states are forced.

Neurons with mismatch and noise are driven along trajectories of scaled states. The regression
yields W, shape (channels, order, order * neurons), as
:class:`lmu_deploy.core.spiking.network.SpikingMemory` defines it.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from math import ceil

import numpy as np

from converters.spiking.compiled import kernels_for
from converters.spiking.device import Driven
from converters.spiking.neurons import Batch, Chip, Fit, NeuronSimulator, part
from converters.spiking.ridge import (
    Products,
    Regression,
    best_ridge,
    common_error,
    round_and_refit,
    round_sparse,
)
from lmu_deploy.core.progress import Progress
from lmu_deploy.core.spiking.chip import CALIBRATION_MARGIN

_LOG = logging.getLogger(f"lmu_deploy.{__name__}")
_NOISE_SHARE = (0.02, 0.10)
_DEVIATIONS = (0.5, 2.5)
"""Range of the noise in units of the predicted deviations, wide enough for errors of these."""
_EVERY_MS = 5.0
_SERVED = 400
_SPARSEST = 4
_BLOCK = 20
"""Rows of each sample whose products are summed at once."""
_WIDE, _ROWS_A_FEATURE = 1_000, 0.5
"""Features from which more rows are summed at once, and how many for each feature: adding the sums
of a block to those before it takes as long as the products of some hundred rows."""


def _every_ms(features: int) -> float:
    """Return the time between rows of the regression, milliseconds.

    Filtered spikes change as slowly as the synapse, so that more rows add little information: with
    5,000 features, synapses of 100 ms and rows every 5, 10 and 20 ms, the closed-loop errors were
    0.359, 0.364 and 0.366, and with 800 features and rows every 5 and 10 ms 0.112 and 0.113. The
    cost of the products is proportional to the rows and to the square of the features.
    """
    return _EVERY_MS * min(max(features // _SERVED, 1), _SPARSEST)


class Recorder:
    """Forced neurons, their spikes behind the synapse, and A' x behind the same synapse.

    They are driven by x = margin * trajectory + noise. The noise is as slow as the synapse. It is
    the sum of 2 to 10 % of the range, independent of the state, and of 0.5 to 2.5 times `spread`;
    both factors are drawn for each sample. The margin is drawn between 1 and 1.5 for every second
    sample and is 1 for the others: the memory is linear, so its response to a larger signal is
    known, and a map that was never fitted to such states is wrong there.

    Parameters
    ----------
    simulator : NeuronSimulator
        Any of the chips.
    driven : Driven
        Neurons of all chips, chip by chip, in their initial state.
    chips, samples : int
    targets : ndarray, shape (channels, order, order)
        A' in scaled states.
    rng : Generator
    spread : ndarray, shape (channels, order, order), optional
        See :func:`converters.spiking.closed_loop.predict_spread`; zero if absent.
    """

    def __init__(
        self,
        simulator: NeuronSimulator,
        driven: Driven,
        chips: int,
        samples: int,
        targets: np.ndarray,
        rng: np.random.Generator,
        spread: np.ndarray | None = None,
    ) -> None:
        self.simulator, self.driven, self.chips = simulator, driven, chips
        self.targets, self.rng = targets.astype(np.float32), rng
        self.decay = np.float32(np.exp(-simulator.dt_ms / simulator.tau_ms))
        shape = (samples, simulator.channels, simulator.order)
        farther = rng.uniform(1.0, CALIBRATION_MARGIN, (samples, 1, 1))
        every_second = np.arange(samples).reshape(farther.shape) % 2 == 1
        self.margin = np.where(every_second, farther, 1.0).astype(np.float32)
        self.size = rng.uniform(*_NOISE_SHARE, (samples, 1, 1)).astype(np.float32)
        self.noise: np.ndarray = rng.standard_normal(shape).astype(np.float32)
        self.spread = None if spread is None else spread.astype(np.float32)
        if spread is not None:
            self.deviation = rng.uniform(*_DEVIATIONS, (samples, 1, 1)).astype(np.float32)
        cells = (samples, chips * simulator.channels * simulator.order, simulator.neurons_per_state)
        self.filtered = np.zeros(cells, dtype=np.float32)
        self.kernels = kernels_for(self.filtered.size)
        self.goal: np.ndarray = np.zeros(shape, dtype=np.float32)

    def advance(self, states: np.ndarray) -> None:
        """Advance by one step; `states` has shape (samples, channels, order)."""
        x = self.margin * states + self.size * self.noise
        if self.spread is not None:
            x += self.deviation * _each_channel(self.spread, self.noise)
        spikes = self.driven.step(x.reshape(len(x), -1))
        hertz = np.float32((1.0 - self.decay) / (self.simulator.dt_ms * 1e-3))
        if self.kernels is None:
            self.filtered *= self.decay
            self.filtered += hertz * spikes
        else:
            self.kernels[1](self.filtered.reshape(-1), self.decay, hertz, spikes.reshape(-1))
        push = _each_channel(self.targets, x)
        self.goal = self.decay * self.goal + (1 - self.decay) * push
        fresh = self.rng.standard_normal(self.noise.shape).astype(np.float32)
        self.noise = self.decay * self.noise + np.sqrt(1 - self.decay**2) * fresh

    def rows(self) -> tuple[np.ndarray, np.ndarray]:
        """Return features and goal; the features are a view that the next step changes.

        Returns
        -------
        features : ndarray, shape (samples, chips * channels, features)
        goal : ndarray, shape (samples, channels, order)
        """
        shape = (len(self.filtered), self.chips * self.simulator.channels, -1)
        return self.filtered.reshape(shape), self.goal


def gather(
    recorder: Recorder, trajectory: np.ndarray, progress: Progress | None = None
) -> tuple[list[Products], list[Products]]:
    """Drive the neurons along the trajectory, and accumulate the products of the regression.

    Parameters
    ----------
    recorder : Recorder
    trajectory : ndarray, shape (steps, samples, channels, order)
        Scaled states at every simulation step.
    progress : callable, optional
        Called with (steps done, steps in total).

    Returns
    -------
    learned, held_out : list of Products, one for each channel of each chip, chip by chip
        The last fifth of the samples (of the time, if there are fewer than five) is held out.
    """
    steps, samples = trajectory.shape[:2]
    simulator, maps = recorder.simulator, recorder.chips * recorder.simulator.channels
    features = simulator.order * simulator.neurons_per_state
    learned = [Products(features, simulator.order) for _ in range(maps)]
    held_out = [Products(features, simulator.order) for _ in range(maps)]
    learning = samples - samples // 5
    last_learned = steps if samples >= 5 else steps - steps // 5
    every = max(round(_every_ms(features) / simulator.dt_ms), 1)
    wide = ceil(_ROWS_A_FEATURE * features / samples) if features > _WIDE else 0
    most = min(max(_BLOCK, wide), ceil(steps / every))
    phi = np.empty((most, samples, maps, features), dtype=np.float32)
    goal = np.empty((most, *trajectory.shape[1:]), dtype=np.float32)
    found = 0
    for step in range(steps):
        recorder.advance(trajectory[step])
        if step % every == every - 1:
            phi[found], goal[found] = recorder.rows()
            found += 1
        if found and (found == most or step + 1 in (steps, last_learned)):
            share = learning if step < last_learned else 0
            for number in range(maps):
                row, aim = phi[:found, :, number], goal[:found, :, number % simulator.channels]
                _add(learned[number], row[:, :share], aim[:, :share])
                _add(held_out[number], row[:, share:], aim[:, share:])
            found = 0
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
"""Neurons of all chips and samples; larger batches are not faster."""
_PRODUCTS_AT_ONCE = 10_000_000
"""Sums of products of all chips, 16 bytes each including those of the held-out part."""


def dynamic(
    simulator: NeuronSimulator,
    targets: np.ndarray,
    trajectory: np.ndarray,
    rng: np.random.Generator,
    progress: Progress | None = None,
    spread: np.ndarray | None = None,
    largest: float = np.inf,
) -> Fit:
    """Force the states along a trajectory with slow noise, and fit all of W to A' x at once.

    The populations are driven by x = trajectory + noise (2 to 10 % of the range, as slow as the
    synapse, drawn for each sample, plus the predicted deviations of the closed loop). W is the
    ridge regression from the filtered spikes to A' x, filtered by the same synapse, so that it
    compensates for mismatch and for the dynamics of neurons and synapse. The last fifth of the
    samples (of the time, if there are fewer than five) is held out and selects the regularization.

    Parameters
    ----------
    simulator : NeuronSimulator
        A :class:`converters.spiking.neurons.Chip`, or other neurons.
    targets : ndarray, shape (channels, order, order)
        A' in scaled states.
    trajectory : ndarray, shape (steps, samples, channels, order)
        Scaled states at every simulation step.
    rng : Generator
    progress : callable, optional
        Called with (steps done, steps in total).
    spread : ndarray, shape (channels, order, order), optional
        See :func:`converters.spiking.closed_loop.predict_spread`; zero if absent.
    largest : float
        Largest weight that the chip can store; a regularization with larger weights is chosen only
        if all have them.
    """
    samples = trajectory.shape[1]
    driven = simulator.neurons(samples, rng)
    recorder = Recorder(simulator, driven, 1, samples, targets, rng, spread)
    return _choose(*gather(recorder, trajectory, progress), bits=0, largest=largest)


def dynamic_for_each(
    chips: Sequence[Chip],
    targets: np.ndarray,
    trajectory: np.ndarray,
    seed: Sequence[int],
    progress: Progress | None = None,
    spread: np.ndarray | None = None,
) -> list[Fit]:
    """Calibrate several chips in batches; each result is that of its chip alone.

    The weights are rounded as the chip stores them.

    Parameters
    ----------
    chips : sequence of Chip
        They differ in their devices only.
    targets, trajectory, spread
        As for :func:`dynamic`.
    seed : sequence of int
        Seed of the generator, the same for every chip.
    progress : callable, optional
        Called with (steps done, steps in total).
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
            chip = group[i // channels]
            bits = chip.device.weight_bits
            if chip.limit and not found:
                _tell(chip.limit, learned[of_chip], held_out[of_chip])
            found.append(_choose(learned[of_chip], held_out[of_chip], bits, most=chip.limit))
    return found


def _together(chip: Chip, samples: int) -> int:
    by_speed = _NEURONS_AT_ONCE // (samples * chip.populations.encoders.size)
    features = chip.order * chip.neurons_per_state
    by_memory = _PRODUCTS_AT_ONCE // (chip.channels * features**2)
    return max(1, min(by_speed, by_memory))


_JUDGES = 2
"""Channels on which the regularization of all channels is chosen."""


def _choose(
    learned: list[Products],
    held_out: list[Products],
    bits: int,
    largest: float = np.inf,
    most: int = 0,
) -> Fit:
    """Choose the regularization with the smallest held-out error, and fit all channels with it."""
    judges = _JUDGES if np.isinf(largest) else len(learned)
    of_judges = learned[:judges], held_out[:judges]
    ridge, chosen = best_ridge(*of_judges, DYNAMIC_RIDGES, largest, most)
    chosen += [Regression(products, most, 1).fit(ridge) for products in learned[judges:]]
    if bits:
        rounded = round_sparse if most else round_and_refit
        chosen = [
            rounded(w.T, bits, products.penalized(ridge)).T
            for w, products in zip(chosen, learned, strict=True)
        ]
    return Fit(np.stack([w.T for w in chosen]), ridge, common_error(held_out, chosen))


def _tell(most: int, learned: list[Products], held_out: list[Products]) -> None:
    """Log what the limited number of synapses costs, on the channels that choose."""
    of_judges = learned[:_JUDGES], held_out[:_JUDGES]
    few, unlimited = (
        common_error(of_judges[1], best_ridge(*of_judges, DYNAMIC_RIDGES, most=limit)[1])
        for limit in (most, 0)
    )
    _LOG.info(
        "A neuron has synapses from %d of %d neurons: held-out error %.4f, and %.4f with all.",
        most,
        len(learned[0].ff),
        few,
        unlimited,
    )


_RANGE_PERCENTILE = 99.9
_SMALLEST_SHARE = 1e-3


def follow(a_bar: np.ndarray, b_bar: np.ndarray, u: np.ndarray, parts: int) -> np.ndarray:
    """Compute the states of an ideal memory, each input constant for `parts` steps.

    Parameters
    ----------
    a_bar : ndarray, shape (order, order)
    b_bar : ndarray, shape (order,)
        For one simulation step.
    u : ndarray, shape (samples, steps, channels)
    parts : int

    Returns
    -------
    m : ndarray, shape (steps * parts, samples, channels, order), float32
        After every simulation step.
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
    """Return the 99.9 % range of each state, shape (channels, order).

    A range of less than a thousandth of the largest is replaced by that thousandth, so that
    nothing is divided by zero.
    """
    size = np.percentile(np.abs(trajectory), _RANGE_PERCENTILE, axis=(0, 1)).astype(np.float64)
    return np.maximum(size, max(_SMALLEST_SHARE * float(size.max()), 1e-12))
