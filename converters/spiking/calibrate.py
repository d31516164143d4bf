"""Finding W, the map from spikes to states, on a virtual chip.

In: the chip (populations with its mismatch, neuron model, noise), the memory's dynamics in scaled
states, trajectories of those states. Out: W, shape (channels, order, order * neurons), as
spiking_network.py defines it. Decoders always come from simulated spikes: the analytic LIF rate
is wrong where a spike can only fall on whole milliseconds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from converters.spiking.neurons import NEURONS, Neurons
from converters.spiking.ridge import Products, fit
from lmu_deploy.spiking_chip import Device, NeuronModel, Populations

Progress = Callable[[int, int], None]

STATIC_RIDGE = 0.01
DYNAMIC_RIDGES = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2)
_LEVELS = np.linspace(-1.1, 1.1, 45)
_SETTLE_MS, _COUNT_MS = 100.0, 1000.0
_NOISE_SHARE = (0.02, 0.10)
_EVERY_MS = 5.0
_BLOCK = 20


class Driven(Protocol):
    """Neurons whose states are given to them at every step."""

    def step(self, x: np.ndarray) -> np.ndarray:
        """Take scaled states (copies, states); give spikes (copies, states, neurons), bool."""


class Bench(Protocol):
    """What a dynamic calibration measures: any neurons behind first-order synapses."""

    @property
    def order(self) -> int:
        """States of a channel."""

    @property
    def channels(self) -> int:
        """Number of channels."""

    @property
    def neurons_per_state(self) -> int:
        """Neurons of a population."""

    @property
    def dt_ms(self) -> float:
        """Step of the simulation, milliseconds."""

    @property
    def tau_ms(self) -> float:
        """Time constant of the synapses, milliseconds."""

    def neurons(self, copies: int, rng: np.random.Generator) -> Driven:
        """Make simulated copies of the chip."""


@dataclass(frozen=True)
class Chip:
    """What a calibration measures: neurons with all their imperfections, and their synapses."""

    populations: Populations
    model: NeuronModel
    device: Device
    dt_ms: float
    tau_ms: float
    order: int

    @property
    def channels(self) -> int:
        """Number of channels."""
        return self.populations.states // self.order

    @property
    def neurons_per_state(self) -> int:
        """Number of neurons of a population."""
        return self.populations.neurons

    def neurons(self, copies: int, rng: np.random.Generator) -> Neurons:
        """Make simulated copies of the chip."""
        return NEURONS[self.model.kind](
            self.populations, self.model, self.device, self.dt_ms, copies, rng
        )


@dataclass(frozen=True)
class Fit:
    """A map and how it was found; see :class:`lmu_deploy.spiking_chip.Calibration`."""

    weights: np.ndarray
    ridge: float
    error: float


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
    rates = _measure_rates(chip, rng, progress)
    states, neurons = rates.shape[1:]
    decoders = np.empty((states, neurons))
    errors = []
    for state in range(states):
        products = Products(neurons, 1)
        products.add(rates[:, state], _LEVELS[:, None])
        weights = fit(products, [STATIC_RIDGE])[0]
        decoders[state] = weights[:, 0]
        errors.append(products.relative_error(weights))
    blocks = decoders.reshape(chip.channels, 1, chip.order, neurons)
    weights = (targets[..., None] * blocks).reshape(chip.channels, chip.order, -1)
    return Fit(weights, STATIC_RIDGE, float(np.sqrt(np.mean(np.square(errors)))))


def _measure_rates(
    chip: Chip, rng: np.random.Generator, progress: Progress | None = None
) -> np.ndarray:
    """Hold every state at each level and count spikes: hertz, (levels, states, neurons)."""
    if chip.model.kind == "poisson":
        return _expected_rates(chip)
    neurons = chip.neurons(len(_LEVELS), rng)
    x = np.repeat(_LEVELS[:, None], chip.populations.states, axis=1)
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
    """Like :func:`_measure_rates`, for Poisson neurons: counting them would take minutes."""
    current = _LEVELS[:, None, None] * chip.populations.slopes + chip.populations.offsets
    return np.asarray(np.maximum(current, 0.0) / (chip.model.membrane_tau_ms * 1e-3))


def dynamic(
    chip: Bench,
    targets: np.ndarray,
    trajectory: np.ndarray,
    rng: np.random.Generator,
    progress: Progress | None = None,
) -> Fit:
    """Force the states along a trajectory with slow noise, and fit all of W to A' x at once.

    The populations are driven by x = trajectory + noise (2 to 10 % of the range, as slow as the
    synapse, drawn for each sample); W is the ridge regression from the spikes filtered by the
    synapse to A' x filtered alike, so that it makes up for mismatch, for what neurons remember,
    and for what the synapse adds. The last fifth of the samples (of the time, if there are fewer
    than five) is held out and chooses the regularisation.

    Parameters
    ----------
    chip : Bench
        A :class:`Chip`, or other neurons.
    targets : ndarray, shape (channels, order, order)
        A' in scaled states.
    trajectory : ndarray, shape (steps, samples, channels, order)
        Scaled states at every step of the simulation.
    rng : Generator
    progress : callable, optional
        Called with (steps done, steps in all).
    """
    steps, samples = trajectory.shape[:2]
    features = chip.order * chip.neurons_per_state
    train = [Products(features, chip.order) for _ in range(chip.channels)]
    held_out = [Products(features, chip.order) for _ in range(chip.channels)]
    learning = samples - samples // 5
    last_learnt = steps if samples >= 5 else steps - steps // 5
    recorder = _Recorder(chip, targets, samples, rng)
    every = max(round(_EVERY_MS / chip.dt_ms), 1)
    block: list[tuple[np.ndarray, np.ndarray]] = []
    for step in range(steps):
        recorder.advance(trajectory[step])
        if step % every == every - 1:
            block.append(recorder.rows())
        if block and (len(block) == _BLOCK or step + 1 in (steps, last_learnt)):
            phi, goal = (np.stack(part) for part in zip(*block, strict=True))
            block = []
            share = learning if step < last_learnt else 0
            for c in range(chip.channels):
                _add(train[c], phi[:, :share, c], goal[:, :share, c])
                _add(held_out[c], phi[:, share:, c], goal[:, share:, c])
        if progress:
            progress(step + 1, steps)
    return _choose(train, held_out)


class _Recorder:
    """Forced neurons, their spikes behind the synapse, and A' x behind the same synapse."""

    def __init__(
        self, chip: Bench, targets: np.ndarray, samples: int, rng: np.random.Generator
    ) -> None:
        self.chip, self.targets, self.rng = chip, targets.astype(np.float32), rng
        self.neurons = chip.neurons(samples, rng)
        self.decay = np.float32(np.exp(-chip.dt_ms / chip.tau_ms))
        shape = (samples, chip.channels, chip.order)
        self.size = rng.uniform(*_NOISE_SHARE, (samples, 1, 1)).astype(np.float32)
        self.noise = rng.standard_normal(shape).astype(np.float32)
        cells = (samples, chip.channels * chip.order, chip.neurons_per_state)
        self.filtered = np.zeros(cells, dtype=np.float32)
        self.goal = np.zeros(shape, dtype=np.float32)

    def advance(self, states: np.ndarray) -> None:
        x = states + self.size * self.noise
        spikes = self.neurons.step(x.reshape(len(x), -1))
        hertz = np.float32((1.0 - self.decay) / (self.chip.dt_ms * 1e-3))
        self.filtered *= self.decay
        self.filtered[spikes] += hertz
        push = np.einsum("cij,scj->sci", self.targets, x, optimize=True)
        self.goal = self.decay * self.goal + (1 - self.decay) * push
        fresh = self.rng.standard_normal(self.noise.shape).astype(np.float32)
        self.noise = self.decay * self.noise + np.sqrt(1 - self.decay**2) * fresh

    def rows(self) -> tuple[np.ndarray, np.ndarray]:
        shape = (len(self.filtered), self.chip.channels, -1)
        return self.filtered.reshape(shape).copy(), self.goal


def _add(products: Products, phi: np.ndarray, goal: np.ndarray) -> None:
    if phi.size:
        products.add(phi.reshape(-1, phi.shape[-1]), goal.reshape(-1, goal.shape[-1]))


def _choose(train: list[Products], held_out: list[Products]) -> Fit:
    """Take the regularisation with the least error on held-out time, all channels together."""
    candidates = [fit(products, DYNAMIC_RIDGES) for products in train]
    errors = [
        float(
            np.sqrt(
                np.mean(
                    [h.relative_error(w[r]) ** 2 for h, w in zip(held_out, candidates, strict=True)]
                )
            )
        )
        for r in range(len(DYNAMIC_RIDGES))
    ]
    best = int(np.argmin(errors))
    weights = np.stack([maps[best].T for maps in candidates])
    return Fit(weights, DYNAMIC_RIDGES[best], errors[best])
