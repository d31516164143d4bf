r"""Discrete Principle 3: the memory of one task step, divided into steps behind a synapse.

The memory's discrete matrices for one task step are divided into n simulation steps, after which
the states are equal. The discrete Principle 3 of the Neural Engineering Framework (Voelker,
Eliasmith 2018, "Improving spiking dynamical networks", equation 4.7 ff.) gives the matrices for a
first-order synapse :math:`x \leftarrow a x + (1-a) v` with :math:`a = e^{-dt/\tau}`:

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
    """Compute the matrices of one `parts`-th of a task step with constant input.

    For a memory made by zero-order hold this is the zero-order hold of the shorter step. For any
    other, a_bar is divided by its real matrix logarithm, and b_bar so that all parts together
    reproduce it.

    Parameters
    ----------
    memory : Memory
    parts : int
        Simulation steps of one task step.

    Returns
    -------
    a_bar : ndarray, shape (order, order)
    b_bar : ndarray, shape (order,)

    Raises
    ------
    InputError
        When a_bar has no real root that reproduces it to 1e-9 (for example with an eigenvalue on
        the negative real axis).
    """
    if memory.discretizer == "zoh":
        return discretize(memory.order, memory.theta * parts, "zoh")
    whole = memory.a_bar.astype(np.float64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the result is checked below
        root = expm(np.real(logm(whole)) / parts)
    b_bar = np.linalg.lstsq(zoh_gain(root, parts), memory.b_bar.astype(np.float64))[0]
    again = np.linalg.matrix_power(root, parts), zoh_gain(root, parts) @ b_bar
    error = max(np.abs(again[0] - whole).max(), np.abs(again[1] - memory.b_bar).max())
    if not error <= _EXACT * max(1.0, float(np.abs(whole).max())):
        raise InputError(
            f"a memory of discretizer {memory.discretizer} and order {memory.order} cannot be "
            f"divided into {parts} steps (error {error:.1e}); train it with zoh."
        )
    return root, b_bar


def zoh_gain(a_bar: np.ndarray, parts: int) -> np.ndarray:
    """Return the sum of the first `parts` powers of `a_bar`: the gain of a constant input."""
    total, power = np.zeros_like(a_bar), np.eye(len(a_bar))
    for _ in range(parts):
        total, power = total + power, power @ a_bar
    return total


def behind_synapse(
    a_bar: np.ndarray, b_bar: np.ndarray, decay: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return A' and B' of the discrete Principle 3.

    Parameters
    ----------
    a_bar : ndarray, shape (order, order)
    b_bar : ndarray, shape (order,)
    decay : float
        a, the decay factor of the synapse over one step; in (0, 1).

    Returns
    -------
    a_prime : ndarray, shape (order, order)
    b_prime : ndarray, shape (order,)
    """
    return (a_bar - decay * np.eye(len(a_bar))) / (1.0 - decay), b_bar / (1.0 - decay)
