r"""Which Legendre memory a pair of stored matrices is: its window length and its discretiser.

Files that hold :math:`\bar A, \bar B` alone do not say theta. The first state is the mean of the
window, so that one step of input raises it by about :math:`\bar B_0 = 1 / \theta`, within a step or
so. From there theta is found as the one whose matrices are nearest to those of the file.
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import minimize_scalar

from lmu_deploy.checks import check_array
from lmu_deploy.errors import InputError
from lmu_deploy.legendre import DISCRETISERS, discretise
from lmu_deploy.network import Memory

TOLERANCE = 1e-4
MOST_ORDER = 1024
"""Largest order that is imported: checking the matrices takes order cubed operations."""
_LONGEST = 1e9
_MOST_REFINED = 256


def recognise_memory(a_bar: np.ndarray, b_bar: np.ndarray, theta: float | None = None) -> Memory:
    """Make a Memory of stored matrices; they are kept exactly as they are.

    Parameters
    ----------
    a_bar : ndarray, shape (order, order)
    b_bar : ndarray, shape (order,)
    theta : float, optional
        Window length where it is known.

    Returns
    -------
    memory : Memory
        Its discretiser is zoh, bilinear or euler if the matrices are such to 1e-4, else "trained".

    Raises
    ------
    InputError
        When the matrices are no Legendre memory and `theta` is not given.
    """
    a_bar = check_array("A", a_bar, (None, None))
    order = len(a_bar)
    if order > MOST_ORDER:
        raise InputError(f"the memory has order {order}, more than {MOST_ORDER} can be imported.")
    a_bar = check_array("A", a_bar, (order, order))
    b_bar = check_array("B", b_bar, (order,))
    first = float(b_bar[0])
    guess = theta if theta is not None else (1.0 / first if first > 0 else 0.0)
    for method in DISCRETISERS if 0.5 < guess < _LONGEST else ():
        found = _refine(a_bar, method, guess) if theta is None else theta
        if _distance(a_bar, method, found) < TOLERANCE:
            return Memory(order, 1, found, method, a_bar, b_bar)
    if theta is None:
        raise InputError(
            "the matrices A and B are no Legendre memory whose window can be told (they were "
            "trained); give it with --option theta=...."
        )
    return Memory(order, 1, theta, "trained", a_bar, b_bar)


def _refine(a_bar: np.ndarray, method: str, guess: float) -> float:
    """Find theta near a guess; a whole number that fits is taken as meant."""
    for whole in sorted({max(1.0, np.round(guess) + k) for k in (-1, 0, 1)}):
        if _distance(a_bar, method, whole) < TOLERANCE / 10:
            return float(whole)
    if len(a_bar) > _MOST_REFINED:
        return guess
    best = minimize_scalar(
        lambda theta: _distance(a_bar, method, float(theta)),
        bounds=(max(1.0, 0.95 * guess - 1.0), 1.05 * guess + 1.0),
        method="bounded",
        options={"xatol": 1e-8 * guess, "maxiter": 60},
    )
    return float(best.x)


def _distance(a_bar: np.ndarray, method: str, theta: float) -> float:
    try:
        made = discretise(len(a_bar), theta, method)[0]
    except InputError:  # Euler's rule diverges there
        return float("inf")
    return float(np.linalg.norm(made - a_bar) / np.linalg.norm(made))
