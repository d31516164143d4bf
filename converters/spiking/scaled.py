"""A memory as neurons are to hold it: states scaled to +-1 behind a first-order synapse."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from converters.spiking.principle3 import behind_synapse, divide_step
from converters.spiking.trajectories import follow, ranges
from lmu_deploy.network import Memory


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
