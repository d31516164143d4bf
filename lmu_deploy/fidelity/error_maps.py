r"""One layer's error by Legendre order and time, and how it grows.

The growth of a layer's error is the exponent g in :math:`\epsilon(t) \sim t^g`, by least squares of
logarithms over the second half of the steps: 0 is an error that stays, 1/2 one that adds up at
random, 1 one that adds up in one direction.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lmu_deploy.network import LMULayer
from targets.base import States

MOST_ORDERS, MOST_TIMES = 32, 96
_SAMPLES_AT_ONCE = 16


@dataclass(frozen=True)
class ErrorMap:
    """One layer's relative error by Legendre order and time.

    Attributes
    ----------
    layer : str
    orders : ndarray, shape (rows + 1,), int64
        Where the rows' groups of orders begin and end.
    times : ndarray, shape (columns + 1,), int64
        The same of steps.
    values : ndarray, shape (rows, columns)
        Root mean square error over samples and channels, relative to that of the layer's memory.
    growth : float or None
        Exponent of the error over time; None with too few steps, or where there is no error.
    growth_by_order : list of float or None
        The same of each row.
    """

    layer: str
    orders: np.ndarray
    times: np.ndarray
    values: np.ndarray
    growth: float | None
    growth_by_order: Sequence[float | None]


def error_map(
    name: str,
    layer: LMULayer,
    columns: slice,
    states: States,
    reference: States,
    both: int,
) -> ErrorMap:
    """Make the map of one layer.

    Parameters
    ----------
    name : str
        Of the layer.
    layer : LMULayer
    columns : slice
        Where its states stand in the reference's.
    states, reference : States
    both : int
        Samples that both recorded.
    """
    steps, memory = reference.m.shape[1], layer.memory
    squares, power = np.zeros((steps, memory.order)), 0.0
    for begin in range(0, both, _SAMPLES_AT_ONCE):
        part = slice(begin, min(begin + _SAMPLES_AT_ONCE, both))
        truth = reference.m[part, :, columns].astype(np.float64)
        wrong = (states.real_m(part)[:, :, columns] - truth) ** 2
        squares += wrong.reshape(-1, steps, memory.channels, memory.order).sum(axis=(0, 2))
        power += float((truth**2).sum())
    squares /= both * memory.channels
    mean = power / (both * steps * memory.size)
    orders = np.linspace(0, memory.order, min(memory.order, MOST_ORDERS) + 1).astype(np.int64)
    times = np.linspace(0, steps, min(steps, MOST_TIMES) + 1).astype(np.int64)
    if mean > 0:
        squares /= mean
    by_row = np.add.reduceat(squares, orders[:-1], axis=1) / np.diff(orders)
    cells = np.add.reduceat(by_row, times[:-1], axis=0) / np.diff(times)[:, None]
    growths = [growth(row) for row in by_row.T]
    return ErrorMap(name, orders, times, np.sqrt(cells.T), growth(squares.mean(axis=1)), growths)


def growth(squares: np.ndarray) -> float | None:
    """Exponent of an error over time from its squares at each step, (steps,).

    Returns
    -------
    float, or None
        None with fewer than 8 steps, or no error in some step of the second half.
    """
    steps = len(squares)
    later = squares[steps // 2 :]
    if steps < 8 or not (later > 0).all():
        return None
    time = np.log(np.arange(steps // 2, steps) + 1.0)
    error = 0.5 * np.log(later)
    time = time - time.mean()
    return float(time @ error / (time @ time))
