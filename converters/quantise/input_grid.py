"""The input's format: exact when inputs stand on a grid, such as pixels / 255; else their range.

Pixels and counts are integers in disguise. Finding their step costs nothing and makes the input
messages exact, so that the first rounding of a network is that of its memory.
"""

from __future__ import annotations

import numpy as np

from converters.quantise.calibrate import Signal
from lmu_deploy.integer_network import Format, largest

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
        Of the step of the grid that the inputs stand on, if there is one that `bits` bits can
        count; else of the greatest magnitude and 5 % more.
    """
    limit = largest(bits)
    widest = signal.largest or 1.0
    step = _grid_step(signal.rows, widest, limit)
    return Format(bits, step if step is not None else widest * _MARGIN / limit)


def _grid_step(rows: np.ndarray, widest: float, limit: int) -> float | None:
    """Step with which all values are integers of at most `limit`, or None."""
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
    """Euclid's algorithm on real numbers: remainders below `negligible` count as nothing."""
    while b > negligible:
        a, b = b, abs(a - round(a / b) * b)
    return a
