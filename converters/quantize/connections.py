r"""What every part of a quantization needs: who sends, and connections whose sums fit.

How wide each dendritic accumulator has to be, and rows made coarser until they fit.

A sum :math:`\sum_j W_{kij} X_j` with messages limited to L is at most :math:`L \sum_j |W_{kij}|`:
if that fits, it is proven. Else the sums on the calibration are measured, and half a bit is added
for inputs that were not seen; an accumulator that is too narrow after all saturates and is counted.

How the matrix at one place of a network becomes a connection; the same again for new weights.

A training that has to know what a chip will make of its weights rounds them anew at every step, in
the formats and to the widths that the quantizer found once. Both call :meth:`Rounding.connection`,
so what was trained and what is deployed cannot differ.

A real matrix as slices of small integers with a gain per target row.

In: W with ``target integer = W @ message integer``. Out: a Connection whose
:math:`\sum_k (g_{ki} / 2^{s_{ki}})\, S_{kij} \approx W_{ij}`. The integer of an entry,
:math:`w = \mathrm{rint}(W_{ij} / \gamma_i)`, is cut into digits of base :math:`2^{b-1}` for weights
of b bits; the lower digits lie in :math:`[-2^{b-2}, 2^{b-2} - 1]`, so with two slices of 8 bits
:math:`w = 128\, hi + lo` and :math:`|w| \le 127 \cdot 128 + 63` keeps hi from reaching +128.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from converters.options import SCALES
from converters.quantize.calibration import Signal
from converters.quantize.settings import Settings
from lmu_deploy.core.errors import InputError
from lmu_deploy.core.integer.parts import (
    LARGEST_MULTIPLIER,
    LARGEST_SHIFT,
    Connection,
    Format,
    largest,
    real_gains,
)
from lmu_deploy.core.validation import check_choice

_UNSEEN_BITS = 0.5


@dataclass(frozen=True)
class AccumulatorNeed:
    """Bits, sign included, that the sums of one slice need in its widest row.

    Attributes
    ----------
    slice : int
    bits : float
    proven : bool
        From bounds; else measured on the calibration, with a margin.
    """

    slice: int
    bits: float
    proven: bool

    @property
    def shown(self) -> str:
        """Bits to a tenth, rounded up: 24.02 bits must not read as the 24 that there are."""
        return f"{math.ceil(10.0 * self.bits) / 10.0:.1f}"

    def __str__(self) -> str:
        return f"{self.shown} bits, {'proven' if self.proven else 'measured'}"


def bits_of(magnitude: np.ndarray | float) -> np.ndarray:
    """Bits, sign included, that an integer of this magnitude needs."""
    return np.asarray(np.log2(np.asarray(magnitude, dtype=np.float64) + 1.0) + 1.0)


def row_bits(connection: Connection, limit: int, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Bits that each slice's sum needs in each row.

    Parameters
    ----------
    connection : Connection, (n_out, n_in)
    limit : int
        Largest magnitude of a message.
    rows : ndarray, shape (rows, n_in), float32
        Integer messages seen on the calibration.

    Returns
    -------
    bits : ndarray, shape (slices, n_out)
        From bounds if those fit in every row of the slice, else measured with a margin.
    proven : ndarray of bool, shape (slices, n_out)
    """
    weights = connection.slices.astype(np.float32)
    bits = bits_of(np.abs(weights).sum(axis=2, dtype=np.float64) * limit)
    proven = bits <= connection.accumulator_bits
    for number in np.flatnonzero(~proven.all(axis=1)):
        sums = np.abs(rows @ weights[number].T).max(axis=0, initial=0.0)
        bits[number] = np.minimum(bits[number], bits_of(sums) + _UNSEEN_BITS)
    return bits, proven


def fit_accumulators(
    make: Callable[[np.ndarray], Connection], n_out: int, limit: int, rows: np.ndarray
) -> tuple[Connection, list[AccumulatorNeed], np.ndarray]:
    """Make a connection whose accumulators are wide enough, if one halving of rows a slice does it.

    More would cost more than what it mends: a message of fewer bits then does better.

    Parameters
    ----------
    make : callable
        Gives the Connection for an array (n_out,) of halvings.
    n_out, limit : int
    rows : ndarray, shape (rows, n_in)

    Returns
    -------
    connection : Connection
    needs : list of Need
        One for each slice; the caller judges whether they are met.
    coarser : ndarray, shape (n_out,)
        The halvings with which `connection` was made.
    """
    coarser = np.zeros(n_out, dtype=np.int64)
    while True:
        connection = make(coarser)
        bits, proven = row_bits(connection, limit, rows)
        too_wide = (bits > connection.accumulator_bits).any(axis=0)
        if not too_wide.any() or coarser.max() == len(connection.slices):
            break
        coarser[too_wide] += 1
    needs = [
        AccumulatorNeed(k, float(bits[k].max(initial=1.0)), bool(proven[k].all()))
        for k in range(len(bits))
    ]
    return connection, needs, coarser


_FREE_BITS = 7
"""Of a free multiplier: it wastes at most 1 / 64 of a range, and times 24 bits fits 32."""


def largest_sliced(slices: int, weight_bits: int) -> int:
    """Largest magnitude that `slices` slices can hold: all their digits at their greatest."""
    base, lower = 2 ** (weight_bits - 1), 2 ** (weight_bits - 2) - 1
    value = largest(weight_bits)
    for _ in range(slices - 1):
        value = value * base + lower
    return value


def split_digits(integers: np.ndarray, slices: int, weight_bits: int) -> np.ndarray:
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
    step = real_gains(multiplier[-1], shift[-1])
    integers = np.clip(np.rint(matrix / step[:, None]), -limit, limit).astype(np.int64)
    digits = split_digits(integers, slices, weight_bits)
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


@dataclass(frozen=True)
class Rounding:
    """From a real matrix on the signal that a float network has there to a Connection.

    Attributes
    ----------
    source, target : float
        Real value of one unit of the messages that come in, and of what they drive.
    slices, weight_bits, accumulator_bits : int
    scales : {"power-of-two", "free"}
    basis : ndarray, shape (n, neurons), or None
        From what messages stand for to the signal that the matrix expects.
    coarser : ndarray, shape (n_out,), or int
        Halvings of rows whose sums would be too wide.
    """

    source: float
    target: float
    slices: int
    weight_bits: int
    accumulator_bits: int
    scales: str
    basis: np.ndarray | None = None
    coarser: np.ndarray | int = 0

    def connection(self, matrix: np.ndarray) -> Connection:
        """Round a matrix, shape (n_out, n)."""
        units = matrix.astype(np.float64)
        if self.basis is not None:
            units = units @ self.basis
        return connect(
            units * (self.source / self.target),
            slices=self.slices,
            weight_bits=self.weight_bits,
            accumulator_bits=self.accumulator_bits,
            scales=self.scales,
            coarser=self.coarser,
        )

    def real(self, matrix: np.ndarray) -> np.ndarray:
        """Give what the rounded matrix stands for; shape (n_out, neurons)."""
        return real_matrix(self.connection(matrix), self.source, self.target)


def real_matrix(connection: Connection, source: float, target: float) -> np.ndarray:
    """Give the matrix that a connection stands for, from units of `source` and `target`."""
    return connection.dequantized * (target / source)


@dataclass(frozen=True)
class Source:
    """Messages that leave a population.

    Attributes
    ----------
    signal : Signal
        What they stand for.
    format : Format
    option : str
        The command's option that sets their width.
    basis : ndarray, shape (n, neurons), or None
        From what they stand for to the signal that a float network's matrices expect.
    """

    signal: Signal
    format: Format
    option: str
    basis: np.ndarray | None = None

    def inflow(self, matrix: np.ndarray) -> float:
        """Greatest product of one entry of a matrix, (n_out, n), and the range of the messages."""
        weights = matrix if self.basis is None else matrix @ self.basis
        return float(np.abs(weights).max(initial=0.0)) * self.format.limit * self.format.scale

    @property
    def rows(self) -> np.ndarray:
        """Integer messages seen on the calibration; shape (rows, n), float32."""
        integers = np.rint(self.signal.rows / self.format.scale)
        return np.clip(integers, -self.format.limit, self.format.limit).astype(np.float32)


@dataclass
class Connector:
    """Makes connections and remembers how, and what each accumulator needs."""

    settings: Settings
    needs: dict[str, AccumulatorNeed] = field(default_factory=dict)
    roundings: dict[str, Rounding] = field(default_factory=dict)
    _remedies: dict[str, int] = field(default_factory=dict)

    def memory(self, place: str, matrix: np.ndarray, source: Source, target: Format) -> Connection:
        """Cut a matrix that enters a memory into slices; see :meth:`kernel`."""
        settings = self.settings
        form = settings.slices, settings.weight_bits, settings.memory_scales
        return self._connect(place, matrix, source, target, *form)

    def kernel(self, place: str, matrix: np.ndarray, source: Source, target: Format) -> Connection:
        """Cut a matrix of hidden units or the readout into slices.

        Parameters
        ----------
        place : str
        matrix : ndarray, shape (n_out, n)
            In real units, on the signal that the float network has there.
        source : Source
        target : Format
        """
        settings = self.settings
        form = settings.kernel_slices, settings.kernel_width, settings.kernel_scales
        return self._connect(place, matrix, source, target, *form)

    def record(self, place: str, need: AccumulatorNeed, source: Source) -> None:
        """Remember what an accumulator needs, and what mends it if that is too much."""
        self.needs[f"{place}/slice{need.slice}"] = need
        excess = math.ceil(need.bits - self.settings.accumulator_bits)
        if excess > 0:
            fewer = max(2, source.format.bits - excess)
            self._remedies[source.option] = min(self._remedies.get(source.option, 99), fewer)

    def check_accumulators(self) -> None:
        """Name the accumulator that is furthest too wide, and what mends it and all others."""
        if not self._remedies:
            return
        place, need = max(self.needs.items(), key=lambda item: item[1].bits)
        remedy = " ".join(f"{option} {bits}" for option, bits in self._remedies.items())
        raise InputError(
            f"quantize: accumulator {place} needs {need.shown} bits, profile "
            f"{self.settings.profile.name} has {self.settings.accumulator_bits}; use {remedy}."
        )

    def _connect(
        self,
        place: str,
        matrix: np.ndarray,
        source: Source,
        target: Format,
        slices: int,
        weight_bits: int,
        scales: str,
    ) -> Connection:
        """Cut ``matrix * message scale / target scale`` into slices whose sums fit."""
        rounding = Rounding(
            source.format.scale,
            target.scale,
            slices,
            weight_bits,
            self.settings.accumulator_bits,
            scales,
            source.basis,
        )
        connection, needs, coarser = fit_accumulators(
            lambda coarser: replace(rounding, coarser=coarser).connection(matrix),
            len(matrix),
            source.format.limit,
            source.rows,
        )
        self.roundings[place] = replace(rounding, coarser=coarser)
        for need in needs:
            self.record(place, need, source)
        return connection


def round_to_format(values: np.ndarray, target: Format) -> np.ndarray:
    """Round real values to a format, limited as it is (and as biases are, to 24 bits)."""
    limit = min(target.limit, largest(24))
    return np.clip(np.rint(values / target.scale), -limit, limit).astype(np.int32)
