r"""A real matrix as slices of small integers with a gain per target row.

In: W with ``target integer = W @ message integer``. Out: a Connection whose
:math:`\sum_k (g_{ki} / 2^{s_{ki}})\, S_{kij} \approx W_{ij}`. The integer of an entry,
:math:`w = \mathrm{rint}(W_{ij} / \gamma_i)`, is cut into digits of base :math:`2^{b-1}` for weights
of b bits; the lower digits lie in :math:`[-2^{b-2}, 2^{b-2} - 1]`, so with two slices of 8 bits
:math:`w = 128\, hi + lo` and :math:`|w| \le 127 \cdot 128 + 63` keeps hi from reaching +128.
"""

from __future__ import annotations

import numpy as np

from converters.quantise.settings import SCALES
from lmu_deploy.checks import check_choice
from lmu_deploy.errors import InputError
from lmu_deploy.integer_network import LARGEST_MULTIPLIER, LARGEST_SHIFT, Connection, largest

_FREE_BITS = 7
"""Of a free multiplier: it wastes at most 1 / 64 of a range, and times 24 bits fits 32."""


def largest_sliced(slices: int, weight_bits: int) -> int:
    """Largest magnitude that `slices` slices can hold: all their digits at their greatest."""
    base, lower = 2 ** (weight_bits - 1), 2 ** (weight_bits - 2) - 1
    value = largest(weight_bits)
    for _ in range(slices - 1):
        value = value * base + lower
    return value


def cut(integers: np.ndarray, slices: int, weight_bits: int) -> np.ndarray:
    """Cut integers into digits, most significant first.

    Parameters
    ----------
    integers : ndarray of int64, any shape, within +-largest_sliced(slices, weight_bits)
    slices, weight_bits : int

    Returns
    -------
    digits : ndarray of int64, shape (slices, *integers.shape)
        ``sum_k digits[k] * 2^((weight_bits-1) * (slices-1-k))`` gives the integers back.
    """
    base, half = 2 ** (weight_bits - 1), 2 ** (weight_bits - 2)
    digits = []
    rest = np.asarray(integers, dtype=np.int64)
    for _ in range(slices - 1):
        upper = (rest + half) // base
        digits.append(rest - upper * base)
        rest = upper
    return np.stack([rest, *reversed(digits)])


def connect(
    matrix: np.ndarray,
    *,
    slices: int = 1,
    weight_bits: int = 8,
    accumulator_bits: int = 24,
    scales: str = "power-of-two",
    coarser: np.ndarray | int = 0,
) -> Connection:
    """Make a Connection that stands for `matrix`.

    Parameters
    ----------
    matrix : ndarray, shape (n_out, n_in)
        Target integers per message integer.
    slices, weight_bits, accumulator_bits : int
    scales : {"power-of-two", "free"}
        Gains that are powers of two, or a multiplier and a shift, which use the weights' range
        nearly to its end.
    coarser : int or ndarray, shape (n_out,)
        Halvings of the rows' integers, for sums that would be too wide.

    Raises
    ------
    InputError
        When an entry is too large for the greatest possible gain.
    """
    check_choice("scales", scales, SCALES)
    limit = largest_sliced(slices, weight_bits)
    widest = np.max(np.abs(matrix), axis=1, initial=0.0) * np.exp2(coarser)
    digit_bits = (weight_bits - 1) * np.arange(slices - 1, -1, -1)[:, None]
    mantissa, exponent = _free(widest, limit) if scales == "free" else _power_of_two(widest, limit)
    exponent = exponent + digit_bits
    multiplier, shift = mantissa * 2 ** np.maximum(exponent, 0), np.maximum(-exponent, 0)
    if multiplier.max(initial=0) > LARGEST_MULTIPLIER:
        raise InputError(
            f"a weight of {np.abs(matrix).max():.3g} units is too large for {slices} slices of "
            f"{weight_bits} bits and a multiplier of 15 bits; use more slices or message bits."
        )
    step = multiplier[-1].astype(np.float64) * np.exp2(-shift[-1].astype(np.float64))
    integers = np.clip(np.rint(matrix / step[:, None]), -limit, limit).astype(np.int64)
    digits = cut(integers, slices, weight_bits)
    return Connection(
        digits.astype(np.int8),
        multiplier.astype(np.int32),
        shift.astype(np.int32),
        weight_bits,
        accumulator_bits,
    )


def _power_of_two(widest: np.ndarray, limit: int) -> tuple[np.ndarray, np.ndarray]:
    """Least e, at least -31, with ``rint(widest / 2^e) <= limit``, and 1; 0 for rows of nothing."""
    ratio = widest / (limit + 0.499)
    mantissa, exponent = np.frexp(np.where(ratio > 0.0, ratio, 1.0))
    least = np.where(mantissa == 0.5, exponent - 1, exponent)
    least = np.maximum(np.where(ratio > 0.0, least, 0), -LARGEST_SHIFT)
    return np.ones_like(least, dtype=np.int64), least.astype(np.int64)


def _free(widest: np.ndarray, limit: int) -> tuple[np.ndarray, np.ndarray]:
    """Mantissas and exponents a little above ``widest / limit``, so that nothing is cut off."""
    gain = np.where(widest > 0.0, widest / limit, 1.0)
    _, exponent = np.frexp(gain)
    exponent = np.maximum(exponent.astype(np.int64) - _FREE_BITS, -LARGEST_SHIFT)
    mantissa = np.ceil(gain * np.exp2(-exponent)).astype(np.int64)
    over = mantissa > 2**_FREE_BITS - 1
    return np.where(over, (mantissa + 1) // 2, mantissa), exponent + over
