r"""Choose the formats of states, messages and outputs, and the integer form of activations.

**States and messages.** Messages cover the calibrated range. A memory's state is finer than its
messages by `state_bits - message_bits - 2` bits, so its range is four times theirs. A unit is never
finer than 2^-10 of the largest product of a weight and its messages (the inflow), because the
weights for a finer unit would not fit.

**Input.** Pixels and counts are multiples of a step, such as 1/255. If there is such a step, it
becomes the unit, and the input messages are exact; otherwise they cover the range of the inputs.

**Activations.** A hidden activation is the minimum of a few lines with integer slopes and
intercepts. relu and linear are one line and hard-tanh is two, exactly. tanh is concave above zero,
so its interpolant through a few knots is the minimum of the interpolant's lines. The error of
linear interpolation on a short interval h is :math:`h^2 |f''| / 8` (de Boor, A Practical Guide to
Splines, 1978, chapter III), which is equal everywhere when the knots are at equal steps of
:math:`\int \sqrt{|f''|}`; raising the interpolant by half of the error balances its sign.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache

import numpy as np

from converters.quantize.calibration import Signal, clip_range
from converters.quantize.settings import Settings
from lmu_deploy.core.errors import InputError
from lmu_deploy.core.integer.functions import PiecewiseLinear
from lmu_deploy.core.integer.parts import Format, largest

HEADROOM_BITS = 2
_OUTPUT_HEADROOM = 4.0
FAINTEST = 2.0**-10


def bias_limit(bits: int) -> int:
    """Return the largest bias, in units, of a value of `bits` bits: biases have at most 24."""
    return largest(min(bits, 24))


def memory_formats(
    place: str,
    m: Signal,
    settings: Settings,
    bias: np.ndarray | None = None,
    inflow: float = 0.0,
) -> tuple[Format, Format, int]:
    """Choose the formats of a memory's state and of its messages, and the shift between them.

    Parameters
    ----------
    place : str
    m : Signal
    settings : Settings
    bias : ndarray, shape (states,), optional
        Bias, which the state must be able to represent; it may be far larger than the memory where
        it cancels against the inputs.
    inflow : float
        Largest product of a weight that enters the memory and its messages.

    Raises
    ------
    InputError
        When messages are so wide that the state has no bits left above them.
    """
    bits, state_bits = settings.message_bits, settings.state_bits
    clip = max(clip_range(m, settings.calibration_method, bits), inflow * FAINTEST)
    widest = _widest_bias(bias)
    representable = clip * 2.0**HEADROOM_BITS * (bias_limit(state_bits) / largest(state_bits))
    beyond = math.ceil(math.log2(max(m.largest / clip, widest / representable, 1.0)))
    shift = state_bits - bits - HEADROOM_BITS - beyond
    if shift < 0:
        raise InputError(
            f"quantize: {place}, messages of {bits} bits leave no headroom in a state of "
            f"{state_bits}; use --message-bits {bits + shift}."
        )
    scale = clip / largest(bits)
    return Format(state_bits, scale * 2.0**-shift), Format(bits, scale), shift


def hidden_format(
    activation: str,
    inflow: float,
    carried: Sequence[tuple[np.ndarray | None, Signal]],
    bias: np.ndarray | None,
    h: Signal,
    settings: Settings,
) -> Format:
    """Choose the format of hidden messages: up to 1 for tanh and hard-tanh, else as calibrated.

    The unit is at least so coarse that the drive can represent the bias.

    Parameters
    ----------
    activation : str
    inflow : float
        Largest product of a weight of the input kernel and the input messages.
    carried : sequence of (kernel, Signal)
        Kernels of what a layer computes itself, its memory and its units, with their signals.
    bias : ndarray, shape (units,), or None
    h : Signal
        The hidden units.
    settings : Settings
    """
    bits = settings.hidden_bits
    if activation in ("tanh", "hard-tanh"):
        return Format(bits, 1.0 / largest(bits))
    inflow = max(inflow, 0.0, *(_widest(kernel, s) for kernel, s in carried if kernel is not None))
    clip = clip_range(h, settings.calibration_method, bits)
    unit = max(clip, inflow * FAINTEST) / largest(bits)
    return Format(bits, max(unit, _widest_bias(bias) / bias_limit(settings.state_bits)))


def output_format(bias: np.ndarray | None, inflow: float, y: Signal, settings: Settings) -> Format:
    """Choose the format of the readout: four times the calibrated range, and at least its bias.

    A bias may be far larger than the output where it cancels against the product of the kernel.
    `inflow` is the largest product of a weight and its messages.
    """
    widest = max(y.largest, inflow * FAINTEST) or 1.0
    bits = settings.state_bits
    unit = widest * _OUTPUT_HEADROOM / largest(bits)
    return Format(bits, max(unit, _widest_bias(bias) / bias_limit(bits)))


def _widest_bias(bias: np.ndarray | None) -> float:
    return 0.0 if bias is None else float(np.abs(bias).max(initial=0.0))


def _widest(kernel: np.ndarray, signal: Signal) -> float:
    """Return the largest product of an entry of a kernel and its signal."""
    return float(np.abs(kernel).max(initial=0.0)) * signal.largest


_APART = 8.0
"""Ratio to the range of the typical channel from which on an input has a separate unit."""


def channel_gains(x: Signal) -> np.ndarray | None:
    """Return factors that bring the channels of an input to the same magnitude.

    Parameters
    ----------
    x : Signal
        The inputs of the calibration.

    Returns
    -------
    gains : ndarray, shape (channels,), or None
        None where one unit serves all channels: where it represents every input exactly, or where
        no channel is 8 times larger or smaller than the median of all. Other channels keep the
        factor 1.
    """
    widest = np.abs(x.extremes).max(axis=0, initial=0.0)
    if not widest.any():
        return None
    step = _grid_step(x.rows, x.largest, largest(_GRID_BITS))
    if step is not None and np.abs(x.rows[x.rows != 0.0]).min() > step / 2.0:
        return None
    ratio = np.where(widest > 0.0, widest, np.nan) / np.median(widest[widest > 0.0])
    apart = (ratio > _APART) | (ratio < 1.0 / _APART)
    return np.where(apart, 1.0 / ratio, 1.0) if apart.any() else None


_GRID_BITS = 12
_TOLERANCE = 1e-3
_MARGIN = 1.05


def input_format(signal: Signal, bits: int) -> Format:
    """Choose the scale of input messages.

    Parameters
    ----------
    signal : Signal
        The inputs of the calibration.
    bits : int
        Width of a message.

    Returns
    -------
    format : Format
        Its unit is the step of which all inputs are multiples, if there is one that `bits` bits can
        count; otherwise it covers the largest magnitude plus 5 %.
    """
    limit = largest(bits)
    widest = signal.largest or 1.0
    step = _grid_step(signal.rows, widest, limit)
    return Format(bits, step if step is not None else widest * _MARGIN / limit)


def _grid_step(rows: np.ndarray, widest: float, limit: int) -> float | None:
    """Return a step of which all values are multiples, at most `limit` times, or None."""
    magnitudes = np.unique(np.abs(rows[rows != 0.0]).astype(np.float64))
    if not 0 < magnitudes.size <= limit:
        return None
    divisor = widest
    for value in magnitudes:
        divisor = _common_divisor(divisor, float(value), widest / limit / 2.0)
        if divisor * limit < widest * (1.0 - _TOLERANCE):
            return None
    steps = magnitudes / divisor
    return divisor if np.abs(steps - np.rint(steps)).max() < _TOLERANCE else None


def _common_divisor(a: float, b: float, negligible: float) -> float:
    """Apply Euclid's algorithm to real numbers; remainders below `negligible` count as zero."""
    while b > negligible:
        a, b = b, abs(a - round(a / b) * b)
    return a


GUARD_BITS = 6
"""Bits by which the drive is finer than the message, or fewer where a bias needs range."""

_SLOPE_BITS = 15
_TRIED_DRIVES = 4096


def guard_bits(place: str, message: Format, bits: int, bias: float) -> int:
    """Return by how many bits a drive of `bits` bits with this bias can be finer than a message.

    Raises
    ------
    InputError
        When even a drive as coarse as the message cannot represent the bias.
    """
    widest = bias_limit(bits) * message.scale
    for guard in range(GUARD_BITS, -1, -1):
        if bias <= widest * 2.0**-guard:
            return guard
    fewer = message.bits - math.ceil(math.log2(bias / widest))
    raise InputError(
        f"quantize: {place}, a bias of {bias:.3g} does not fit a drive of {bits} bits with hidden "
        f"messages of {message.bits}; use --hidden-bits {max(2, fewer)}."
    )


def drive_format(message: Format, bits: int, guard: int = GUARD_BITS) -> Format:
    """Return the format of the drive z for hidden messages of a given format."""
    return Format(bits, message.scale * 2.0**-guard)


@cache
def piecewise(name: str, message: Format, guard: int = GUARD_BITS) -> PiecewiseLinear:
    """Return the activation `name` for messages of a given format and drives of `drive_format`.

    Parameters
    ----------
    name : {"linear", "relu", "tanh", "hard-tanh"}
    message : Format
        Format of the result; it covers 1 for tanh and hard-tanh.
    guard : int
        Bits by which the drive is finer than the message.
    """
    if name == "tanh":
        return _tanh(message, guard)
    kind = {"relu": "positive", "hard-tanh": "odd", "linear": "linear"}[name]
    one = min(int(np.rint(1.0 / message.scale)), message.limit)
    slope, intercept = ([1, 0], [0, one]) if name == "hard-tanh" else ([1], [0])
    return PiecewiseLinear(np.array(slope), np.array(intercept), guard, kind)


def evaluate(activation: PiecewiseLinear, z: np.ndarray, message_bits: int) -> np.ndarray:
    """Apply an activation to integer drives of any shape (docs/reference/integer-semantics.md)."""
    return np.clip(activation(z), -largest(message_bits), largest(message_bits))


def tanh_pieces(bits: int) -> int:
    """Return the number of lines for tanh: 8 up to 8 bits, then growing with the precision."""
    return min(64, 8 * 2 ** max(0, (bits - 7) // 2))


def _tanh(message: Format, guard: int) -> PiecewiseLinear:
    """Try several starts of the last, constant line; return the activation with the least error."""
    last = int(8.0 / message.scale) << guard
    drives = np.linspace(0, last, min(last, _TRIED_DRIVES), dtype=np.int64)
    truth = np.tanh(drives * (message.scale * 2.0**-guard))
    candidates = [_interpolant(end, message, guard) for end in np.linspace(1.5, 6.0, 91)]

    def error(activation: PiecewiseLinear) -> float:
        value = evaluate(activation, drives, message.bits) * message.scale
        return float(np.abs(value - truth).max())

    return min(candidates, key=error)


def _interpolant(end: float, message: Format, guard: int) -> PiecewiseLinear:
    """Return the lines through knots from 0 to `end`, and the constant line at 1."""
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
