r"""How far the states of a chip will stray from those that they should have, before it is fitted.

In a closed loop nothing forces the states. Each population j reads its own with an error
:math:`\eta_j`, and the deviations of all of them follow the memory's own dynamics,

.. math:: \delta \leftarrow a\,\delta + (1 - a)\,A' (\delta + \eta)

A' of scaled states is anything but normal where the window is short or a range small: it carries
an error of half a per cent of the first state as one of half the range into the last. A map that
has only been fitted to states nearer than that is extrapolated where the chip really is, and may
hold the states out there for good.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy.linalg import solve_discrete_lyapunov

from converters.spiking.bench import Chip, Progress
from converters.spiking.recorder import Recorder, gather
from converters.spiking.ridge import fit

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
    learnt, held_out = gather(recorder, shown, progress)
    maps = [fit(products, [_RIDGE])[0] for products in learnt]
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
