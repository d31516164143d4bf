r"""Maps tried out before they are used: chips run freely by them, and the best is taken.

A regression sees states that are forced; whether a chip holds them by itself shows in a closed
loop alone.

How far the states of a chip will stray from those that they should have, before it is fitted.

In a closed loop nothing forces the states. Each population j reads its own with an error
:math:`\eta_j`, and the deviations of all of them follow the memory's own dynamics,

.. math:: \delta \leftarrow a\,\delta + (1 - a)\,A' (\delta + \eta)

A' of scaled states is anything but normal where the window is short or a range small: it carries
an error of half a per cent of the first state as one of half the range into the last. A map that
has only been fitted to states nearer than that is extrapolated where the chip really is, and may
hold the states out there for good.

A memory as neurons are to hold it: states scaled to +-1 behind a first-order synapse.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.linalg import solve_discrete_lyapunov

from converters.spiking.dynamic import Recorder, follow, gather, ranges
from converters.spiking.neurons import Batch, Chip, Fit, part
from converters.spiking.principle3 import behind_synapse, divide_step
from converters.spiking.ridge import fit
from lmu_deploy.core.network import Memory
from lmu_deploy.core.progress import Progress


@dataclass(frozen=True)
class ScaledMemory:
    """What is to be lowered, whatever the neurons are.

    Attributes
    ----------
    a_prime : ndarray, shape (order, order)
        A' of Principle 3 for one step of the simulation, states unscaled.
    b_prime : ndarray, shape (order,)
        B', likewise.
    scales : ndarray, shape (channels, order)
        The state that x = 1 stands for.
    targets : ndarray, shape (channels, order, order)
        A' in scaled states.
    trajectory : ndarray, shape (steps, samples, channels, order), float32
        Scaled states at every step of the simulation.
    """

    a_prime: np.ndarray
    b_prime: np.ndarray
    scales: np.ndarray
    targets: np.ndarray
    trajectory: np.ndarray


def scale_memory(memory: Memory, u: np.ndarray, parts: int, decay: float) -> ScaledMemory:
    """Divide a memory into steps of the simulation, and follow and scale its states.

    Parameters
    ----------
    memory : Memory
    u : ndarray, shape (samples, steps, channels)
        What reaches it.
    parts : int
        Steps of the simulation in a hold.
    decay : float
        What the synapse keeps over one of them.

    Raises
    ------
    InputError
        When the memory cannot be divided so.
    """
    a_bar, b_bar = divide_step(memory, parts)
    a_prime, b_prime = behind_synapse(a_bar, b_bar, decay)
    trajectory = follow(a_bar, b_bar, u, parts)
    scales = ranges(trajectory)
    trajectory /= scales.astype(np.float32)
    targets = a_prime * scales[:, None, :] / scales[:, :, None]
    return ScaledMemory(a_prime, b_prime, scales, targets, trajectory)


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


_SAMPLES = 8
_RIDGE = 1e-3
_FARTHEST = 1.0
"""Of the range, root mean square: a state that strays farther is lost, and not worth learning."""


def predict_spread(
    chip: Chip,
    targets: np.ndarray,
    trajectory: np.ndarray,
    rng: np.random.Generator,
    progress: Progress | None = None,
) -> np.ndarray:
    """Measure what each population misses of its own state, and what the loop makes of that.

    Parameters
    ----------
    chip : Chip
    targets : ndarray, shape (channels, order, order)
        A' in scaled states.
    trajectory : ndarray, shape (steps, samples, channels, order)
        Scaled states at every step of the simulation; eight samples are used at most.
    rng : Generator
    progress : callable, optional
        Called with (steps done, steps in all).

    Returns
    -------
    ndarray, shape (channels, order, order)
        Symmetric square roots of the covariances of the deviations, in scaled states, white
        errors assumed; made smaller where a state would stray by more than its range.
    """
    decay = float(np.exp(-chip.dt_ms / chip.tau_ms))
    missed = _missed(chip, trajectory, rng, progress).reshape(targets.shape[:2])
    return np.stack([loop_spread(*of, decay) for of in zip(targets, missed, strict=True)])


def _missed(
    chip: Chip, trajectory: np.ndarray, rng: np.random.Generator, progress: Progress | None
) -> np.ndarray:
    """Mean squares that populations miss of their states behind the synapse, shape (states,)."""
    steps, samples = trajectory.shape[:2]
    samples, states = min(samples, _SAMPLES), chip.populations.states
    alone = replace(chip, order=1)
    neurons = alone.neurons(samples, rng)
    recorder = Recorder(alone, neurons, 1, samples, np.ones((states, 1, 1)), rng)
    shown = trajectory[:, :samples].reshape(steps, samples, states, 1)
    learned, held_out = gather(recorder, shown, progress)
    maps = [fit(products, [_RIDGE])[0] for products in learned]
    squares = [h.mean_square_error(w) for h, w in zip(held_out, maps, strict=True)]
    return np.array(squares)


def loop_spread(a_prime: np.ndarray, missed: np.ndarray, decay: float) -> np.ndarray:
    """Deviations that a loop of one channel keeps up when its states are misread.

    Parameters
    ----------
    a_prime : ndarray, shape (order, order)
        In scaled states.
    missed : ndarray, shape (order,)
        Mean squares of the errors behind the synapse.
    decay : float
        What the synapse keeps over a step.

    Returns
    -------
    ndarray, shape (order, order)
        Symmetric square root of their covariance, the solution P of
        ``P = step P step^T + (1 - decay^2) A' diag(missed) A'^T``; see :func:`predict_spread`.
    """
    step = decay * np.eye(len(a_prime)) + (1.0 - decay) * a_prime
    shaken = (1.0 - decay**2) * (a_prime * missed) @ a_prime.T
    values, vectors = np.linalg.eigh(solve_discrete_lyapunov(step, shaken))
    root = (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T
    farthest = float(np.sqrt(np.square(root).sum(axis=1).max()))
    return np.asarray(root * min(1.0, _FARTHEST / max(farthest, 1e-300)))
