"""The arithmetic of docs/integer-semantics.md, with operations that a neuron program has.

Add, subtract, multiply, arithmetic right shift, minimum, maximum, absolute value, comparison and
selection on int64 arrays; nothing here can overflow 64 bits for the widths that an IntegerNetwork
allows (32-bit values, 15-bit multipliers).
"""

from __future__ import annotations

import numpy as np

from lmu_deploy.integer_network import Format, PiecewiseLinear, largest


def saturate(values: np.ndarray, bits: int) -> tuple[np.ndarray, int]:
    """Limit integers to +-(2^(bits-1) - 1).

    Parameters
    ----------
    values : ndarray, int64
    bits : int

    Returns
    -------
    limited : ndarray, int64
    changed : int
        How many entries were limited.
    """
    top = largest(bits)
    limited = np.minimum(np.maximum(values, -top), top)
    return limited, int(np.count_nonzero(limited != values))


def multiply_shift(
    values: np.ndarray, multiplier: np.ndarray | int, shift: np.ndarray | int
) -> np.ndarray:
    """Give ``floor((values * multiplier + r) / 2^shift)``, r = 2^(shift-1), or 0 for shift 0."""
    shift = np.asarray(shift, dtype=np.int64)
    half = np.where(shift > 0, np.int64(1) << np.maximum(shift - 1, 0), 0)
    product: np.ndarray = values * np.asarray(multiplier, dtype=np.int64) + half
    return product >> shift


def activate(
    function: PiecewiseLinear, drive: np.ndarray, message: Format
) -> tuple[np.ndarray, int]:
    """Apply a piecewise-linear activation; the message, and how many of its entries saturated.

    Parameters
    ----------
    function : PiecewiseLinear
    drive : ndarray, shape (units,), int64
        z, already saturated.
    message : Format
        Of the result.
    """
    if function.kind == "linear":
        return saturate(multiply_shift(drive, int(function.slope[0]), function.shift), message.bits)
    rectified = np.abs(drive) if function.kind == "odd" else np.maximum(drive, 0)
    lines = multiply_shift(
        rectified[None, :], function.slope.astype(np.int64)[:, None], function.shift
    )
    lowest = np.minimum.reduce(lines + function.intercept.astype(np.int64)[:, None])
    limited, changed = saturate(lowest, message.bits)
    if function.kind == "odd":
        limited = np.where(drive < 0, -limited, limited)
    return limited, changed
