"""Operands that all engines share: stacked weights, activations and drives.

The slices of all connections of an outlet are stacked, so that one product serves all. A concave,
monotone activation is constant beyond some point, so lines or a table up to that point define all
of it. Lines are exact in float64: a drive has at most 32 bits and a slope 15.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Protocol

import numpy as np

from lmu_deploy.core.integer.functions import PiecewiseLinear
from lmu_deploy.core.integer.parts import Connection, accumulator_place, largest
from lmu_deploy.core.integer.populations import Pointwise


@dataclass(frozen=True)
class Stack:
    """Rows of all slices of all connections of an outlet.

    Attributes
    ----------
    weights : ndarray, shape (rows, n_in), int8
    multiplier, shift, half : ndarray, shape (rows,), int64
        A sum a becomes ``(a * multiplier + half) >> shift``; the half rounds half up.
    accumulator : ndarray, shape (rows,), int64
        Largest magnitude of each sum.
    places : dict of str to list of slice
        Rows of each slice of each connection.
    """

    weights: np.ndarray
    multiplier: np.ndarray
    shift: np.ndarray
    half: np.ndarray
    accumulator: np.ndarray
    places: dict[str, list[slice]]

    @classmethod
    def of(cls, connections: Mapping[str, Connection]) -> Stack:
        """Stack connections of one population, by place."""
        links = list(connections.values())
        multiplier, shift = (
            np.concatenate([rows.ravel() for rows in each]).astype(np.int64)
            for each in ([c.multiplier for c in links], [c.shift for c in links])
        )
        limits = [np.full(c.multiplier.size, largest(c.accumulator_bits)) for c in links]
        return cls(
            np.concatenate([c.slices.reshape(-1, c.n_in) for c in links]),
            multiplier,
            shift,
            (np.int64(1) << shift) >> 1,
            np.concatenate(limits),
            _places(connections),
        )

    def may_saturate(self, limit: int) -> np.ndarray:
        """Return which rows can saturate with messages of at most `limit` in magnitude."""
        weights = np.abs(self.weights.astype(np.int64)).sum(axis=1)
        return np.asarray(weights * limit > self.accumulator)

    def count(self, beyond: Any) -> dict[str, dict[str, int]]:
        """Count the true entries of `beyond`, shape (batch, rows), by place and accumulator."""
        return {
            place: {
                accumulator_place(place, number): int(beyond[:, rows].sum())
                for number, rows in enumerate(slices)
            }
            for place, slices in self.places.items()
        }


def _places(connections: Mapping[str, Connection]) -> dict[str, list[slice]]:
    places, start = {}, 0
    for place, connection in connections.items():
        n_slices, n_out, _ = connection.slices.shape
        places[place] = [slice(start + k * n_out, start + (k + 1) * n_out) for k in range(n_slices)]
        start += n_slices * n_out
    return places


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
    always_fits : bool
        Whether the message's width limits no value of any drive.
    """

    values: np.ndarray
    least: int
    greatest: int
    last_unlimited: int
    odd: bool
    always_fits: bool

    def count_limited(self, z: Any, count_nonzero: Callable[[Any], Any]) -> int:
        """Count the drives whose value the message's width limits.

        Parameters
        ----------
        z : array of any library
        count_nonzero : callable
            That of the library.
        """
        if self.always_fits:
            return 0
        limited = int(count_nonzero(z > self.last_unlimited))
        if self.odd:
            limited += int(count_nonzero(z < -self.last_unlimited))
        return limited


@dataclass(frozen=True)
class Flat:
    """Limits beyond which an activation of kind odd or positive is constant.

    Attributes
    ----------
    least : int
        Least drive for which H has its largest value.
    last_unlimited : int
        Largest drive whose value the message's width does not limit.
    """

    least: int
    last_unlimited: int


def find_flat(hidden: Pointwise) -> Flat:
    """Find where an activation of kind odd or positive is constant."""
    assert isinstance(hidden.function, PiecewiseLinear)
    return _flat(hidden.function, hidden.message.limit, hidden.drive.limit)


def _flat(lines: PiecewiseLinear, limit: int, top: int) -> Flat:
    value = min(int(least_line(lines, np.array([top]))[0]), limit)
    return Flat(
        _first_drive_above(lines, value - 1, top), _first_drive_above(lines, limit, top) - 1
    )


def make_table(hidden: Pointwise) -> Table | None:
    """Build the table of a layer's activation; None where it would be too long."""
    lines = hidden.function
    if not isinstance(lines, PiecewiseLinear) or lines.kind == "linear":
        return None
    return _table(lines, hidden.message.limit, hidden.drive.limit)


@lru_cache(16)
def _table(lines: PiecewiseLinear, limit: int, top: int) -> Table | None:
    flat = _flat(lines, limit, top)
    if flat.least >= _LONGEST_TABLE:
        return None
    half = least_line(lines, np.arange(flat.least + 1)).clip(max=limit).astype(np.int64)
    odd = lines.kind == "odd"
    values = np.concatenate([-half[:0:-1], half]) if odd else half
    always_fits = flat.last_unlimited >= top
    least = -flat.least if odd else 0
    return Table(values, least, flat.least, flat.last_unlimited, odd, always_fits)


def least_line(lines: PiecewiseLinear, p: np.ndarray) -> np.ndarray:
    """Compute ``min_k(ms(p, slope_k, shift) + intercept_k)`` of integers p, as float64."""
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


def by_lines(hidden: Pointwise, z: np.ndarray) -> tuple[np.ndarray, int]:
    """Compute H in float64 without a table; return it and the number of saturated entries."""
    lines, limit = hidden.function, hidden.message.limit
    if not isinstance(lines, PiecewiseLinear):
        exact = lines(z)
        within = np.clip(exact, -limit, limit)
        return within, int(np.count_nonzero(within != exact))
    z = np.asarray(z, dtype=np.float64)
    p = {"odd": np.abs(z), "positive": np.maximum(z, 0.0), "linear": z}[lines.kind]
    value = least_line(lines, p)
    limited = int(np.count_nonzero(np.abs(value) > limit))
    value = np.clip(value, -limit, limit)
    return (value * np.sign(z) if lines.kind == "odd" else value), limited


def _first_drive_above(lines: PiecewiseLinear, value: int, top: int) -> int:
    """Return the least drive from 0 whose lines exceed `value`, by bisection, or top + 1."""
    low, high = 0, top + 1
    while low < high:
        middle = (low + high) // 2
        if least_line(lines, np.array([middle]))[0] > value:
            high = middle
        else:
            low = middle + 1
    return low


_NONE: Mapping[str, int] = MappingProxyType({})


class Drive(Protocol):
    """Drive of a connection; its saturations count in the step that uses it."""

    def add_to(self, total: Any) -> Mapping[str, int]:
        """Add the drive to `total`, shape (batch, n_out), in place; return the saturations."""

    def snapshot(self) -> Drive:
        """Return a drive that does not change when its fan delivers again."""


class ReadyDrive:
    """Drive of a connection, computed.

    Parameters
    ----------
    values : array, shape (batch, n_out)
        Only their fan may write to them.
    saturations : mapping of accumulator to int
    lasting : bool
        Whether the fan allocates new arrays when it delivers again.
    """

    __slots__ = ("_lasting", "_saturations", "_values")

    def __init__(
        self, values: Any, saturations: Mapping[str, int] = _NONE, lasting: bool = True
    ) -> None:
        self._values, self._saturations, self._lasting = values, saturations, lasting

    def add_to(self, total: Any) -> Mapping[str, int]:
        """Add the values."""
        total += self._values
        return self._saturations

    def snapshot(self) -> ReadyDrive:
        """Copy the values, unless the fan never overwrites them."""
        return self if self._lasting else ReadyDrive(self._values + 0, self._saturations)


def ready_drives(
    sums: Any,
    places: Mapping[str, list[slice]],
    saturations: Mapping[str, Mapping[str, int]],
    lasting: bool,
) -> dict[str, ReadyDrive]:
    """Sum the slices of each connection in place, in the columns of its first slice.

    Parameters
    ----------
    sums : array, shape (batch, rows of all connections)
        Limited and shifted.
    places : mapping of place to list of slice
        Columns of each connection.
    saturations : mapping of place to mapping of accumulator to int
        Empty where nothing saturated.
    lasting : bool
        Whether `sums` are not overwritten when the fan delivers again.
    """
    drives = {}
    for place, (first, *others) in places.items():
        values = sums[:, first]
        for other in others:
            values += sums[:, other]
        drives[place] = ReadyDrive(values, saturations.get(place, _NONE), lasting)
    return drives
