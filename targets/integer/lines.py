"""An activation made ready: its lines, where it is flat, and a table where that comes soon.

A concave, monotone activation has one value for all drives beyond some point, so lines or a table
up to that point say everything. Lines are exact in float64: a drive has at most 32 bits and a slope
15.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lmu_deploy.integer_network import IntegerHidden, PiecewiseLinear

_LONGEST_TABLE = 2**20


@dataclass(frozen=True)
class Table:
    """H for all drives: ``values[clip(z, least, greatest) - least]``.

    Attributes
    ----------
    values : ndarray, shape (greatest - least + 1,), int64
    least, greatest : int
    last_unlimited : int
        Largest drive whose value the message's width does not limit; where the activation is odd,
        its negative is the smallest.
    odd : bool
    """

    values: np.ndarray
    least: int
    greatest: int
    last_unlimited: int
    odd: bool


@dataclass(frozen=True)
class Flat:
    """Where an activation of kind odd or positive is flat.

    Attributes
    ----------
    least : int
        Least drive with the largest value that H can have; all greater ones have it too.
    last_unlimited : int
        Largest drive whose value the message's width does not limit.
    """

    least: int
    last_unlimited: int


def find_flat(hidden: IntegerHidden) -> Flat:
    """Find where an activation of kind odd or positive is flat, among the drives there can be."""
    lines, limit, top = hidden.activation, hidden.message.limit, hidden.drive.limit
    value = min(int(least_line(lines, np.array([top]))[0]), limit)
    return Flat(
        _first_drive_above(lines, value - 1, top), _first_drive_above(lines, limit, top) - 1
    )


def make_table(hidden: IntegerHidden) -> Table | None:
    """Make the table of a layer's activation; None where it would be long or is never flat."""
    lines, limit = hidden.activation, hidden.message.limit
    if lines.kind == "linear":
        return None
    flat = find_flat(hidden)
    if flat.least >= _LONGEST_TABLE:
        return None
    half = least_line(lines, np.arange(flat.least + 1)).clip(max=limit).astype(np.int64)
    odd = lines.kind == "odd"
    values = np.concatenate([-half[:0:-1], half]) if odd else half
    return Table(values, -flat.least if odd else 0, flat.least, flat.last_unlimited, odd)


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


def by_lines(hidden: IntegerHidden, z: np.ndarray) -> tuple[np.ndarray, int]:
    """Give H of any drives without a table, and how many entries were limited; float64."""
    lines, limit = hidden.activation, hidden.message.limit
    z = np.asarray(z, dtype=np.float64)
    p = {"odd": np.abs(z), "positive": np.maximum(z, 0.0), "linear": z}[lines.kind]
    value = least_line(lines, p)
    limited = int(np.count_nonzero(np.abs(value) > limit))
    value = np.clip(value, -limit, limit)
    return (value * np.sign(z) if lines.kind == "odd" else value), limited


def _first_drive_above(lines: PiecewiseLinear, value: int, top: int) -> int:
    """Least drive from 0 whose lines exceed `value`; top + 1 when none does (by bisection)."""
    low, high = 0, top + 1
    while low < high:
        middle = (low + high) // 2
        if least_line(lines, np.array([middle]))[0] > value:
            high = middle
        else:
            low = middle + 1
    return low
