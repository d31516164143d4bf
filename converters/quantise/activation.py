r"""A hidden activation as the least of a few lines with integer slopes and intercepts.

relu and linear are one line, hard-tanh one and a flat one, exactly. tanh is concave above zero, so
its interpolant through a few knots is the least of the interpolant's lines. The error of linear
interpolation on a short interval h is :math:`h^2 |f''| / 8` (de Boor, A Practical Guide to Splines,
1978, chapter III), equal everywhere when the knots stand at equal steps of
:math:`\int \sqrt{|f''|}`; raising the interpolant by half of it balances its sign.
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np

from converters.quantise.formats import bias_limit
from lmu_deploy.errors import InputError
from lmu_deploy.integer_network import Format, PiecewiseLinear, largest

GUARD_BITS = 6
"""The drive is finer than the message by this many bits, or by fewer where a bias needs range."""

_SLOPE_BITS = 15
_TRIED_DRIVES = 4096


def guard_bits(place: str, message: Format, bits: int, bias: float) -> int:
    """Bits by which a drive of `bits` bits can be finer than the message, and hold a bias.

    Raises
    ------
    InputError
        When even a drive as coarse as the message cannot hold it.
    """
    widest = bias_limit(bits) * message.scale
    for guard in range(GUARD_BITS, -1, -1):
        if bias <= widest * 2.0**-guard:
            return guard
    fewer = message.bits - math.ceil(math.log2(bias / widest))
    raise InputError(
        f"quantise: {place}, a bias of {bias:.3g} does not fit a drive of {bits} bits with hidden "
        f"messages of {message.bits}; use --hidden-bits {max(2, fewer)}."
    )


def drive_format(message: Format, bits: int, guard: int = GUARD_BITS) -> Format:
    """Format of the drive z for hidden messages of a given format."""
    return Format(bits, message.scale * 2.0**-guard)


@cache
def piecewise(name: str, message: Format, guard: int = GUARD_BITS) -> PiecewiseLinear:
    """Make the activation `name` for messages of a given format and drives of `drive_format`.

    Parameters
    ----------
    name : {"linear", "relu", "tanh", "hard-tanh"}
    message : Format
        Of the result; its scale times its limit is 1 for tanh and hard-tanh.
    guard : int
        Bits by which the drive is finer than the message.
    """
    if name == "tanh":
        return _tanh(message, guard)
    kind = {"relu": "positive", "hard-tanh": "odd", "linear": "linear"}[name]
    slope, intercept = ([1, 0], [0, message.limit]) if name == "hard-tanh" else ([1], [0])
    return PiecewiseLinear(np.array(slope), np.array(intercept), guard, kind)


def evaluate(activation: PiecewiseLinear, z: np.ndarray, message_bits: int) -> np.ndarray:
    """Apply an activation to integer drives of any shape, as docs/integer-semantics.md says."""
    z = np.asarray(z, dtype=np.int64)
    half = (1 << activation.shift) >> 1
    slope = activation.slope.astype(np.int64)
    p = {"odd": np.abs(z), "positive": np.maximum(z, 0), "linear": z}[activation.kind]
    lines = (p[..., None] * slope + half) >> activation.shift
    value = (lines + activation.intercept).min(axis=-1)
    value = np.clip(value, -largest(message_bits), largest(message_bits))
    return np.sign(z) * value if activation.kind == "odd" else value


def tanh_pieces(bits: int) -> int:
    """Lines for tanh: 8 up to 8 bits, then as many as a rounding error of that width is worth."""
    return min(64, 8 * 2 ** max(0, (bits - 7) // 2))


def _tanh(message: Format, guard: int) -> PiecewiseLinear:
    """Try several points where the last, flat line begins; keep what errs least as integers."""
    last = int(8.0 / message.scale) << guard
    drives = np.linspace(0, last, min(last, _TRIED_DRIVES), dtype=np.int64)
    truth = np.tanh(drives * (message.scale * 2.0**-guard))
    candidates = [_interpolant(end, message, guard) for end in np.linspace(1.5, 6.0, 91)]

    def error(activation: PiecewiseLinear) -> float:
        value = evaluate(activation, drives, message.bits) * message.scale
        return float(np.abs(value - truth).max())

    return min(candidates, key=error)


def _interpolant(end: float, message: Format, guard: int) -> PiecewiseLinear:
    """Lines through knots from 0 to `end`, then the flat one at 1."""
    grid = np.linspace(0.0, end, 4001)
    density = np.sqrt(2.0 * np.tanh(grid) * (1.0 - np.tanh(grid) ** 2))
    mass = np.concatenate([[0.0], np.cumsum((density[1:] + density[:-1]) / 2.0)])
    knots = np.interp(np.linspace(0.0, mass[-1], tanh_pieces(message.bits)), mass, grid)
    raised = np.tanh(knots) + (1.0 - np.tanh(end))
    raised[0] = 0.0
    slopes = np.diff(raised) / np.diff(knots)
    intercepts = raised[:-1] - slopes * knots[:-1]
    slopes, intercepts = np.append(slopes, 0.0), np.append(intercepts, 1.0)
    shift = _SLOPE_BITS + guard
    return PiecewiseLinear(
        np.rint(slopes * 2**_SLOPE_BITS).clip(0, 2**15 - 1).astype(np.int32),
        np.rint(intercepts / message.scale).astype(np.int32),
        shift=shift,
        kind="odd",
    )
