r"""Activation functions of any shape as lines between breakpoints, in integers.

The error of linear interpolation on a short interval h is :math:`h^2 |f''| / 8` (de Boor, A
Practical Guide to Splines, 1978, chapter III), which is equal everywhere when the knots are at
equal steps of :math:`\int \sqrt{|f''|}`. Where a function has corners, such as relu6, they are
knots, and where it is straight between them the lines are exact. Beyond the last knots the function
continues as its asymptote. The number of lines is the least that keeps the error below a share of
the message's unit, up to :data:`MOST_LINES`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from itertools import pairwise

import numpy as np

from lmu_deploy.core.graph.pointwise import Activation
from lmu_deploy.core.integer.functions import Segments
from lmu_deploy.core.integer.parts import Format

MOST_LINES = 128
_ERROR = 1.1
"""Largest error that more lines should avoid, in units of the message; rounding alone errs by 1."""
_SLOPE_BITS = 15
_GRID = 16_385
_OCTAVES = 40
"""Drives are at most 2^39 units of the message."""

_CORNERS: dict[str, tuple[float, ...]] = {
    "linear": (),
    "relu": (0.0,),
    "relu6": (0.0, 6.0),
    "hard-tanh": (-1.0, 1.0),
    "hard-sigmoid": (-3.0, 3.0),
    "hard-sigmoid-keras2": (-2.5, 2.5),
    "leaky-relu": (0.0,),
    "elu": (0.0,),
    "softsign": (0.0,),
}
"""Points where a function has no derivative, or no second one."""
_STRAIGHT = ("linear", "relu", "relu6", "hard-tanh", "hard-sigmoid", "hard-sigmoid-keras2")
"""Functions that are straight between their corners."""
RANGES: dict[str, tuple[float, float]] = {
    "tanh": (-1.0, 1.0),
    "hard-tanh": (-1.0, 1.0),
    "softsign": (-1.0, 1.0),
    "sigmoid": (0.0, 1.0),
    "hard-sigmoid": (0.0, 1.0),
    "hard-sigmoid-keras2": (0.0, 1.0),
    "step": (0.0, 1.0),
    "relu6": (0.0, 6.0),
}
"""Values of functions that are bounded."""


def fit(activation: Activation, drive: Format, message: Format) -> Segments:
    """Return the lines of an activation from a drive to a message.

    Parameters
    ----------
    activation : Activation
        Of a single value; softmax is none.
    drive, message : Format
    """
    return _fit(activation.name, activation.slope, drive, message)


@lru_cache(256)
def _fit(name: str, slope: float, drive: Format, message: Format) -> Segments:
    activation = Activation(name, slope)
    if name == "step":
        return Segments(np.array([0]), np.array([0, 0]), np.array([0, _unit(message)]), 0)

    def function(z: np.ndarray) -> np.ndarray:
        return np.asarray(activation.apply(z), np.float64)

    corners = _CORNERS.get(activation.name, ())
    straight = activation.name in _STRAIGHT or activation.name == "leaky-relu"
    low, high = _reach(function, drive, message)
    lines = 1
    while True:
        knots = _knots(function, corners, low, high, 0 if straight else lines)
        found = _lines(function, knots, drive, message)
        if straight or lines >= MOST_LINES:
            return found
        if _worst(found, function, low, high, drive, message) <= _ERROR:
            return found
        lines *= 2


def needed_drive(activation: Activation, message: Format) -> float:
    """Return a drive beyond which the message stays the same, at most twice the least.

    A saturated drive of leaky relu or of softplus would otherwise change the message long before
    the message itself saturates.
    """
    widest, farther = message.limit * message.scale, np.exp2(np.arange(_OCTAVES))
    needed = message.scale
    for sign in (-1.0, 1.0):
        drives = sign * message.scale * farther
        messages = np.clip(activation.apply(drives), -widest, widest)
        same = np.abs(messages - messages[-1]) <= message.scale / 2.0
        first = int(np.argmax(np.logical_and.accumulate(same[::-1])[::-1]))
        needed = max(needed, float(abs(drives[first])))
    return needed


def _unit(message: Format) -> int:
    """Return the message that represents 1."""
    return min(int(np.rint(1.0 / message.scale)), message.limit)


def _reach(
    function: Callable[[np.ndarray], np.ndarray], drive: Format, message: Format
) -> tuple[float, float]:
    """Return where the function has met its asymptotes, to a quarter of the message's unit."""
    ends = []
    for sign in (-1.0, 1.0):
        limit = drive.limit * drive.scale
        end = min(2.0**-6, limit)
        while end < limit:
            far = min(2.0 * end, limit)
            three = function(sign * np.array([end, (end + far) / 2.0, far]))
            bend = abs(three[0] - 2.0 * three[1] + three[2])
            beyond = np.abs(three[1:]).min() > 1.5 * message.limit * message.scale
            if (bend < message.scale / 4.0 and end >= 4.0) or beyond:
                break
            end = far
        ends.append(sign * end)
    return ends[0], ends[1]


def _knots(
    function: Callable[[np.ndarray], np.ndarray],
    corners: tuple[float, ...],
    low: float,
    high: float,
    lines: int,
) -> np.ndarray:
    """Return the points between which the function is replaced by lines."""
    fixed = [low, *(corner for corner in corners if low < corner < high), high]
    if not lines:
        return np.array(fixed)
    masses, grids = [], []
    for left, right in pairwise(fixed):
        grid = np.linspace(left, right, _GRID)
        step = grid[1] - grid[0]
        values = function(grid)
        bend = np.abs(values[2:] - 2.0 * values[1:-1] + values[:-2]) / step**2
        density = np.sqrt(np.concatenate([bend[:1], bend, bend[-1:]]))
        mass = np.concatenate([[0.0], np.cumsum((density[1:] + density[:-1]) / 2.0) * step])
        masses.append(mass)
        grids.append(grid)
    total = sum(mass[-1] for mass in masses) or 1.0
    found = []
    for mass, grid in zip(masses, grids, strict=True):
        count = max(1, round(lines * mass[-1] / total))
        found.append(np.interp(np.linspace(0.0, mass[-1], count + 1), mass, grid))
    return np.unique(np.concatenate(found))


def _lines(
    function: Callable[[np.ndarray], np.ndarray],
    knots: np.ndarray,
    drive: Format,
    message: Format,
) -> Segments:
    """Return the lines through the function at the knots, and chords to the widest drives."""
    widest_drive = drive.limit * drive.scale
    points = np.concatenate([[min(-widest_drive, knots[0] - 1.0)], knots])
    points = np.concatenate([points, [max(widest_drive, knots[-1] + 1.0)]])
    at = function(points)
    slopes = np.diff(at) / np.diff(points)
    units = slopes * (drive.scale / message.scale)
    widest = float(np.abs(units).max(initial=0.0)) or 1.0
    shift = int(np.clip(np.floor(np.log2((2**_SLOPE_BITS - 1) / widest)), 0, 31))
    slope = np.rint(units * 2.0**shift).astype(np.int64)
    breakpoints = np.rint(knots / drive.scale).astype(np.int64)
    # Each line passes through the middle of its interval, so that a rounded slope errs least.
    ends = np.concatenate([breakpoints[:1], breakpoints, breakpoints[-1:]])
    middle = (ends[:-1] + ends[1:]) // 2
    target = function(middle * drive.scale) / message.scale
    chord = _chord(function, ends, middle, drive) / message.scale
    intercept = np.rint((target + chord) / 2.0 - slope * middle / 2.0**shift).astype(np.int64)
    flat = slope == 0
    intercept[flat] = np.clip(intercept[flat], -message.limit, message.limit)
    kept = np.concatenate([[True], np.diff(breakpoints) > 0])
    lines = np.concatenate([kept, [True]])
    return Segments(
        breakpoints[kept].astype(np.int32),
        slope[lines].astype(np.int32),
        intercept[lines].astype(np.int32),
        shift,
    )


def _chord(
    function: Callable[[np.ndarray], np.ndarray],
    ends: np.ndarray,
    middle: np.ndarray,
    drive: Format,
) -> np.ndarray:
    """Return the chord of every interval at its middle."""
    left, right = ends[:-1] * drive.scale, ends[1:] * drive.scale
    width = np.where(right > left, right - left, 1.0)
    share = (middle * drive.scale - left) / width
    return np.asarray(function(left) * (1.0 - share) + function(right) * share)


def _worst(
    found: Segments,
    function: Callable[[np.ndarray], np.ndarray],
    low: float,
    high: float,
    drive: Format,
    message: Format,
) -> float:
    """Return the largest error between the knots, in units of the message."""
    z = np.unique(np.rint(np.linspace(2.0 * low, 2.0 * high, 4096) / drive.scale)).astype(np.int64)
    z = z[np.abs(z) <= drive.limit]
    truth = np.clip(function(z * drive.scale) / message.scale, -message.limit, message.limit)
    values = np.clip(found(z), -message.limit, message.limit)
    return float(np.abs(values - truth).max(initial=0.0))
