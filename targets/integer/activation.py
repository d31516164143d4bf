"""The activation of a batch of drives: a table where one is short, the lines themselves elsewhere.

A concave, monotone activation has one value for all drives beyond some point, so a table up to that
point says everything. Lines are exact in float64: a drive has at most 32 bits and a slope 15.
"""

from __future__ import annotations

import numpy as np

from lmu_deploy.integer_network import IntegerHidden, PiecewiseLinear

_LONGEST_TABLE = 2**20


class Activation:
    """H = f(z) for whole batches.

    Parameters
    ----------
    hidden : IntegerHidden
    """

    def __init__(self, hidden: IntegerHidden) -> None:
        self._lines, self._limit = hidden.activation, hidden.message.limit
        self._odd = hidden.activation.kind == "odd"
        self._table: np.ndarray | None = None
        if hidden.activation.kind == "linear":
            return
        top = hidden.drive.limit
        greatest = min(int(least_line(self._lines, np.array([top]))[0]), self._limit)
        self._flat = self._first_drive_above(greatest - 1, top)
        self._last_unlimited = self._first_drive_above(self._limit, top) - 1
        if self._flat < _LONGEST_TABLE:
            half = least_line(self._lines, np.arange(self._flat + 1)).clip(max=self._limit)
            self._table = np.concatenate([-half[:0:-1], half]) if self._odd else half

    def __call__(self, z: np.ndarray) -> tuple[np.ndarray, int]:
        """Give H and how many of its entries the message's width limited.

        Parameters
        ----------
        z : ndarray, shape (batch, units), float64 integers

        Returns
        -------
        h : ndarray, shape (batch, units), float64 integers
        saturations : int
        """
        if self._table is None:
            return self._by_lines(z)
        least = -self._flat if self._odd else 0
        limited = int(np.count_nonzero(z > self._last_unlimited))
        if self._odd:
            limited += int(np.count_nonzero(z < -self._last_unlimited))
        index = np.clip(z, least, self._flat).astype(np.intp)
        index -= least
        return self._table[index], limited

    def _by_lines(self, z: np.ndarray) -> tuple[np.ndarray, int]:
        kind = self._lines.kind
        p = np.abs(z) if kind == "odd" else np.maximum(z, 0.0) if kind == "positive" else z
        value = least_line(self._lines, p)
        limited = int(np.count_nonzero(np.abs(value) > self._limit))
        value = np.clip(value, -self._limit, self._limit)
        return (value * np.sign(z) if self._odd else value), limited

    def _first_drive_above(self, value: int, top: int) -> int:
        """Least drive from 0 whose lines exceed `value`; top + 1 when none does (by bisection)."""
        low, high = 0, top + 1
        while low < high:
            middle = (low + high) // 2
            if least_line(self._lines, np.array([middle]))[0] > value:
                high = middle
            else:
                low = middle + 1
        return low


def least_line(lines: PiecewiseLinear, p: np.ndarray) -> np.ndarray:
    """``min_k(ms(p, slope_k, shift) + intercept_k)`` of integers p, as float64."""
    p = np.asarray(p, dtype=np.float64)
    half = 0.5 if lines.shift > 0 else 0.0
    values = (
        np.floor(p * (float(slope) * 2.0**-lines.shift) + half) + float(intercept)
        for slope, intercept in zip(lines.slope, lines.intercept, strict=True)
    )
    least = next(values)
    for value in values:
        np.minimum(least, value, out=least)
    return least
