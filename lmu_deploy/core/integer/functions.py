r"""Functions of pointwise populations, from the drive z of a neuron to its message.

Both kinds are piecewise linear in integers. With
:math:`\mathrm{ms}(v, g, s) = \lfloor (v g + 2^{s-1}) / 2^s \rfloor` as in integer-semantics.md,

* :class:`PiecewiseLinear` is concave and monotone from zero, so that the least of its lines is its
  value, and no comparison with breakpoints is needed;
* :class:`Segments` has any shape: breakpoints select the line.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lmu_deploy.core.errors import InputError
from lmu_deploy.core.integer.parts import (
    LARGEST_MULTIPLIER,
    LARGEST_SHIFT,
    check_range,
    largest,
)
from lmu_deploy.core.representation import Part
from lmu_deploy.core.validation import check_array, check_choice, check_integer, set_fields

Counts = dict[str, int]
"""Saturated values by the last part of their place, such as ``state``."""

MOST_PIECES = 256
KINDS = ("odd", "positive", "linear")


@dataclass(frozen=True, eq=False, repr=False)
class PiecewiseLinear(Part):
    """A concave, monotone activation as the minimum of a few lines.

    ``p = |z|`` when odd, else ``max(z, 0)``; ``v = min_k(ms(p, slope_k, shift) + intercept_k)``;
    the result is ``sat(v)`` with the sign of z when odd, else ``sat(v)``. When `linear`, there is
    one line and no rectification: ``sat(ms(z, slope_0, shift))``.

    Attributes
    ----------
    slope : ndarray, shape (pieces,), int32, 0 to 32767
    intercept : ndarray, shape (pieces,), int32
        The first is 0.
    shift : int
        0 to 31.
    kind : {"odd", "positive", "linear"}
    """

    slope: np.ndarray
    intercept: np.ndarray
    shift: int
    kind: str

    def __post_init__(self) -> None:
        slope = check_array("activation slope", self.slope, (None,), "i")
        if not 1 <= len(slope) <= 64:
            raise InputError(f"an activation has {len(slope)} pieces; give 1 to 64.")
        intercept = check_array("activation intercept", self.intercept, (len(slope),), "i")
        check_range("activation slope", slope, 0, LARGEST_MULTIPLIER)
        check_range("activation intercept", intercept, 0, largest(24))
        if intercept[0] != 0:
            raise InputError("the first piece of an activation must pass through zero.")
        if self.kind == "linear" and len(slope) > 1:
            raise InputError(
                f"an activation of kind linear has {len(slope)} pieces; give one, or kind odd."
            )
        set_fields(
            self,
            slope=slope.astype(np.int32),
            intercept=intercept.astype(np.int32),
            shift=check_integer("activation shift", self.shift, 0, LARGEST_SHIFT),
            kind=check_choice("activation kind", self.kind, KINDS),
        )

    def __call__(self, z: np.ndarray) -> np.ndarray:
        """Return the values of drives of any shape, before they are limited to a width; int64."""
        z = np.asarray(z, dtype=np.int64)
        p = {"odd": np.abs(z), "positive": np.maximum(z, 0), "linear": z}[self.kind]
        value = rounded_shift(p * np.int64(self.slope[0]), self.shift) + int(self.intercept[0])
        for slope, intercept in zip(self.slope[1:], self.intercept[1:], strict=True):
            line = rounded_shift(p * np.int64(slope), self.shift) + int(intercept)
            np.minimum(value, line, out=value)
        return np.sign(z) * value if self.kind == "odd" else value


@dataclass(frozen=True, eq=False, repr=False)
class Segments(Part):
    """A function of any shape as lines between breakpoints.

    ``k`` is the number of breakpoints that z has reached, ``breakpoint_k <= z``; the value is
    ``ms(z, slope_k, shift) + intercept_k``.

    Attributes
    ----------
    breakpoints : ndarray, shape (pieces - 1,), int32
        Increasing.
    slope : ndarray, shape (pieces,), int32, -32767 to 32767
    intercept : ndarray, shape (pieces,), int32
    shift : int
        0 to 31.
    """

    breakpoints: np.ndarray
    slope: np.ndarray
    intercept: np.ndarray
    shift: int

    def __post_init__(self) -> None:
        slope = check_array("segments slope", self.slope, (None,), "i")
        if not 1 <= len(slope) <= MOST_PIECES:
            raise InputError(f"a function has {len(slope)} pieces; give 1 to {MOST_PIECES}.")
        points = check_array("segments breakpoints", self.breakpoints, (len(slope) - 1,), "i")
        intercept = check_array("segments intercept", self.intercept, (len(slope),), "i")
        check_range("segments slope", slope, -LARGEST_MULTIPLIER, LARGEST_MULTIPLIER)
        check_range("segments intercept", intercept, -largest(32), largest(32))
        check_range("segments breakpoints", points, -largest(32), largest(32))
        if (np.diff(points.astype(np.int64)) <= 0).any():
            raise InputError("the breakpoints of a function must increase.")
        set_fields(
            self,
            breakpoints=points.astype(np.int32),
            slope=slope.astype(np.int32),
            intercept=intercept.astype(np.int32),
            shift=check_integer("segments shift", self.shift, 0, LARGEST_SHIFT),
        )

    def __call__(self, z: np.ndarray) -> np.ndarray:
        """Return the values of drives of any shape, before they are limited to a width; int64."""
        z = np.asarray(z, dtype=np.int64)
        piece = np.searchsorted(self.breakpoints, z, side="right")
        product = z * self.slope.astype(np.int64)[piece]
        return rounded_shift(product, self.shift) + self.intercept[piece]


Function = PiecewiseLinear | Segments


def rounded_shift(values: np.ndarray, shift: int) -> np.ndarray:
    """Return ``floor((values + 2^(shift-1)) / 2^shift)`` of int64: a shift that rounds half up."""
    return np.asarray((values + ((1 << shift) >> 1)) >> shift)


def saturated(values: np.ndarray, limit: int, name: str, counts: Counts) -> np.ndarray:
    """Return values limited to +-limit, and add the number of limited ones to `counts`."""
    limited = np.clip(values, -limit, limit)
    counts[name] = counts.get(name, 0) + int(np.count_nonzero(limited != values))
    return limited


def check_function(place: str, function: object) -> None:
    """Raise InputError unless a population has a function."""
    if not isinstance(function, PiecewiseLinear | Segments):
        raise InputError(f"{place} needs a function, not {type(function).__name__}.")
