r"""The memory of one task step, divided into steps of the simulation and put behind a synapse.

In: the memory's discrete matrices for one task step. Out: the same dynamics for one step of the
simulation (n of them make a hold, at the end of which the states are equal), and the matrices of
the discrete Principle 3 of the Neural Engineering Framework (Voelker, Eliasmith 2018, "Improving
spiking dynamical networks", equation 4.7 ff.), for a first-order synapse
:math:`x \leftarrow a x + (1-a) v` with :math:`a = e^{-dt/\tau}`:

.. math:: A' = (\bar A - a I) / (1 - a), \qquad B' = \bar B / (1 - a)
"""

from __future__ import annotations

import warnings

import numpy as np
from scipy.linalg import expm, logm

from lmu_deploy.core.errors import InputError
from lmu_deploy.core.legendre import discretize
from lmu_deploy.core.network import Memory

_EXACT = 1e-9


def divide_step(memory: Memory, parts: int) -> tuple[np.ndarray, np.ndarray]:
    """Matrices of one `parts`-th of a task step, the input held.

    For a memory made by zero-order hold this is the zero-order hold of the shorter step. For any
    other, a_bar is divided by its real matrix logarithm and b_bar so that a whole hold gives it
    back.

    Parameters
    ----------
    memory : Memory
    parts : int
        Steps of the simulation in a task step.

    Returns
    -------
    a_bar : ndarray, shape (order, order)
    b_bar : ndarray, shape (order,)

    Raises
    ------
    InputError
        When a_bar has no real root that gives it back to 1e-9 (an eigenvalue on the negative real
        axis, say).
    """
    if memory.discretizer == "zoh":
        return discretize(memory.order, memory.theta * parts, "zoh")
    whole = memory.a_bar.astype(np.float64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what logm doubts is checked below
        root = expm(np.real(logm(whole)) / parts)
    b_bar = np.linalg.lstsq(held_gain(root, parts), memory.b_bar.astype(np.float64))[0]
    again = np.linalg.matrix_power(root, parts), held_gain(root, parts) @ b_bar
    error = max(np.abs(again[0] - whole).max(), np.abs(again[1] - memory.b_bar).max())
    if not error <= _EXACT * max(1.0, float(np.abs(whole).max())):
        raise InputError(
            f"a memory of discretizer {memory.discretizer} and order {memory.order} cannot be "
            f"divided into {parts} steps (error {error:.1e}); train it with zoh."
        )
    return root, b_bar


def held_gain(a_bar: np.ndarray, parts: int) -> np.ndarray:
    """Sum of the first `parts` powers of `a_bar`: what an input held so long is multiplied by."""
    total, power = np.zeros_like(a_bar), np.eye(len(a_bar))
    for _ in range(parts):
        total, power = total + power, power @ a_bar
    return total


def behind_synapse(
    a_bar: np.ndarray, b_bar: np.ndarray, decay: float
) -> tuple[np.ndarray, np.ndarray]:
    """Give A' and B' of the discrete Principle 3.

    Parameters
    ----------
    a_bar : ndarray, shape (order, order)
    b_bar : ndarray, shape (order,)
    decay : float
        a, what the synapse keeps over a step; in (0, 1).

    Returns
    -------
    a_prime : ndarray, shape (order, order)
    b_prime : ndarray, shape (order,)
    """
    return (a_bar - decay * np.eye(len(a_bar))) / (1.0 - decay), b_bar / (1.0 - decay)
