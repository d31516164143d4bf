r"""How many terms of the exponential series, in how many substeps, a Legendre memory needs.

A step of the memory is that of :math:`\theta\,\dot m = A m + B u` with u held. In s substeps of
length :math:`h = 1 / (\theta s)` and p terms,

.. math:: w_1 = h (A m + B u), \quad w_k = \tfrac{h}{k} A\, w_{k-1}, \quad
          m \leftarrow m + \sum_{k \le p} w_k .

The error is judged by impulse responses R: no input of magnitude 1 moves state i further from the
float memory's than :math:`\sum_t |R^{series}_{t,i} - R_{t,i}|` (the norm that peak amplitudes
induce; Boyd, Barratt, Linear Controller Design, 1991, section 5.2).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from lmu_deploy.errors import InputError
from lmu_deploy.legendre import impulse_response, state_space
from lmu_deploy.network import Memory

LARGEST_ERROR = 2.0**-6
"""How far a series may move a state for inputs of magnitude 1."""

_MOST_TERMS = 8
_MOST_APPLICATIONS = 96
_WINDOWS = 4


@dataclass(frozen=True)
class Plan:
    """A series that is good enough.

    Attributes
    ----------
    terms, substeps : int
    error : float
        Greatest deviation of any state for inputs of magnitude 1, over four windows.
    """

    terms: int
    substeps: int
    error: float


def plan_series(
    memory: Memory,
    largest_error: float = LARGEST_ERROR,
    acceptable: Callable[[int, int], bool] = lambda terms, substeps: True,
) -> Plan:
    """Find the fewest applications of A; of equals, the fewest substeps.

    Parameters
    ----------
    memory : Memory
    largest_error : float
    acceptable : callable, optional
        Whether a number of terms and of substeps will do for other reasons.

    Raises
    ------
    InputError
        When 96 applications are not enough, as for matrices that were trained, or leave terms too
        large.
    """
    steps = max(2, math.ceil(_WINDOWS * memory.theta))
    truth = impulse_response(
        memory.a_bar.astype(np.float64), memory.b_bar.astype(np.float64), steps
    )
    least = math.inf
    for applications in range(1, _MOST_APPLICATIONS + 1):
        for terms in range(min(_MOST_TERMS, applications), 0, -1):
            if applications % terms == 0:
                error = series_error(memory, terms, applications // terms, truth)
                least = min(least, error)
                if error <= largest_error and acceptable(terms, applications // terms):
                    return Plan(terms, applications // terms, error)
    reason = f"the best errs by {least:.2g}, and {largest_error:.2g} is allowed"
    if least <= largest_error:
        reason = "those that err little enough have terms too large for their roundings not to show"
    raise InputError(
        f"no series of {_MOST_APPLICATIONS} applications follows this memory (order "
        f"{memory.order}, theta {memory.theta:g}, discretiser {memory.discretiser}): {reason}; "
        f"choose another realisation."
    )


def series_error(memory: Memory, terms: int, substeps: int, truth: np.ndarray) -> float:
    """Greatest deviation of a state for inputs of magnitude 1.

    Parameters
    ----------
    memory : Memory
    terms, substeps : int
    truth : ndarray, shape (steps, order)
        The float memory's impulse response.
    """
    a, b = state_space(memory.order)
    h = 1.0 / (memory.theta * substeps)
    gains = [h / k * a for k in range(1, terms + 1)]
    with np.errstate(all="ignore"):
        step, entering = one_step(gains, substeps)
        response = impulse_response(step, entering @ (h * b), len(truth))
        deviation = np.abs(response - truth).sum(axis=0).max()
    return float(deviation) if np.isfinite(deviation) else math.inf


def one_step(gains: list[np.ndarray], substeps: int) -> tuple[np.ndarray, np.ndarray]:
    """Give the matrices of a step, m and the held c apart.

    Parameters
    ----------
    gains : list of ndarray, shape (order, order)
        G_k, by which w_k follows from w_{k-1}.
    substeps : int

    Returns
    -------
    step, entering : ndarray, shape (order, order)
        ``m = step @ m + entering @ c``.
    """
    identity = np.eye(len(gains[0]))
    from_c, chain = identity, identity
    for gain in gains[1:]:
        chain = gain @ chain
        from_c = from_c + chain
    part = identity + from_c @ gains[0]
    step, entering = identity, np.zeros_like(identity)
    for _ in range(substeps):
        step, entering = part @ step, part @ entering + from_c
    return step, entering
