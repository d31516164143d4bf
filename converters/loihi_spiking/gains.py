"""Real weights as integers with a gain for each row: int8, a multiplier, a shift."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lmu_deploy.errors import InputError

_LARGEST_WEIGHT = 127
_MULTIPLIER_BITS = 15
_LARGEST_SHIFT = 31
LARGEST_ROUNDED = float(_LARGEST_WEIGHT * (2**_MULTIPLIER_BITS - 1))
"""Of the weights that :func:`round_rows` can hold, in units of what the sum is added to."""


@dataclass(frozen=True)
class RowsOfWeights:
    """Rows of int8 weights; ``ms(weights @ v, multiplier, shift)`` is about ``real @ v``.

    Attributes
    ----------
    weights : ndarray, shape (rows, columns), int8
    multiplier, shift : ndarray, shape (rows,), int32
    """

    weights: np.ndarray
    multiplier: np.ndarray
    shift: np.ndarray


def round_rows(real: np.ndarray) -> RowsOfWeights:
    """Round each row of weights to int8 times a gain of its own.

    Parameters
    ----------
    real : ndarray, shape (rows, columns)
        In units of what the sum is added to.

    Raises
    ------
    InputError
        When a gain would need more than 15 bits.
    """
    gain = np.abs(real).max(axis=1) / _LARGEST_WEIGHT
    gain[gain == 0.0] = 1.0
    shift = np.clip(_MULTIPLIER_BITS - 1 - np.floor(np.log2(gain)), 0, _LARGEST_SHIFT)
    multiplier = np.rint(gain * 2.0**shift)
    if np.any(multiplier > 2**_MULTIPLIER_BITS - 1):
        # Rounding up to a power of two takes one bit more, and an even number one less.
        shift[multiplier > 2**_MULTIPLIER_BITS - 1] -= 1
        multiplier = np.rint(gain * 2.0**shift)
    if np.any(shift < 0) or np.any(multiplier > 2**_MULTIPLIER_BITS - 1):
        raise InputError(
            f"a weight of {np.abs(real).max():.4g} units of state does not fit 8 bits and a gain "
            "of 15; hold inputs longer or use more neurons."
        )
    multiplier = np.maximum(multiplier, 1.0)
    rounded = np.rint(real / (multiplier / 2.0**shift)[:, None])
    weights = np.clip(rounded, -_LARGEST_WEIGHT - 1, _LARGEST_WEIGHT)
    return RowsOfWeights(
        weights.astype(np.int8), multiplier.astype(np.int32), shift.astype(np.int32)
    )
